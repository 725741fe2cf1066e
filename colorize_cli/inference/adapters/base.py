"""What a kind of ONNX file is to the rest of the program."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from colorize_cli.color.lab import Floats


@dataclass(frozen=True)
class Tensor:
    """One input or output of an ONNX file.

    Attributes:
        name: Its name in the graph.
        type: Its type as onnxruntime spells it, `tensor(float)` for float32.
        shape: Its sides; a number where fixed, a name or None where dynamic.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.type} ({sides})"


@dataclass(frozen=True)
class Signature:
    """What an ONNX file says of itself: inputs, outputs and metadata."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str]

    def __str__(self) -> str:
        contract = self.metadata.get("colorize.contract")
        said = f"contract {contract!r}" if contract is not None else "no colorize.contract in its metadata"
        inputs, outputs = (", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"inputs [{inputs}], outputs [{outputs}], {said}"


@dataclass(frozen=True)
class ModelInfo:
    """What a caller may know of any model.

    Attributes:
        name: The model's name.
        working_size: Short side in pixels of the copy it sees, that measured best.
        multiple_of: Both sides of what it sees are multiples of this.
        trained_on: What it was trained on, in words.
        license: The licence of its weights.
        config_hash: Hash of the training configuration.
        precision: What it computes in, "fp32" or "int8".
        kind: The contract that the file is of.
        variant_of: SHA-256 of the file that it is a variant of, in hexadecimal; None if of none.
    """

    name: str
    working_size: int
    multiple_of: int
    trained_on: str
    license: str
    config_hash: str
    precision: str = "fp32"
    kind: str = "native"
    variant_of: str | None = None


@dataclass(frozen=True)
class Adapter:
    """How to use one ONNX file.

    Attributes:
        info: What it says of itself.
        feed: Lightness (N, 1, H, W), L* in [0, 100], to the inputs of the network by name.
        outputs: Names of the outputs to compute, in the order in which `chroma` takes them.
        chroma: Those outputs to ab (N, 2, h, w), CIE a* and b*.
        batch: The only N that it takes; None where it takes any.
    """

    info: ModelInfo
    feed: Callable[[Floats], dict[str, Floats]]
    outputs: tuple[str, ...]
    chroma: Callable[[list[Floats]], Floats]
    batch: int | None = None


@dataclass(frozen=True)
class ModelFormat:
    """One kind of ONNX file.

    Attributes:
        accepts: The signature it accepts, in words, for messages.
        recognize: An adapter for a file of this kind, None for any other. Raises ModelError for a file that
            claims to be of this kind and is broken.
        use: The same for a file that a user says is of this kind, though its signature leaves that open.
    """

    accepts: str
    recognize: Callable[[Signature], Adapter | None]
    use: Callable[[Signature], Adapter | None]
