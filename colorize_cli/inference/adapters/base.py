"""Define the interface between the kinds of ONNX file and the rest of the program."""

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import ModelError

VERSION = "1"
_PREFIX = "colorize."
# Key of the version.
CONTRACT = f"{_PREFIX}contract"


@dataclass(frozen=True)
class Tensor:
    """Input or output of an ONNX file.

    Attributes:
        name: Name in the graph.
        type: Type as onnxruntime spells it, `tensor(float)` for float32.
        shape: Size of each dimension: a number if fixed, a name or None if dynamic.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.type} ({sides})"


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and metadata of an ONNX file."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str]

    @property
    def contract(self) -> str | None:
        """Version of our contract in the metadata; None for a file of another kind."""
        return self.metadata.get(CONTRACT)

    def __str__(self) -> str:
        version = self.contract
        contract = f"contract {version!r}" if version is not None else f"no {CONTRACT} in its metadata"
        inputs, outputs = (", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"inputs [{inputs}], outputs [{outputs}], {contract}"


@dataclass(frozen=True)
class ModelInfo:
    """Public facts about a model.

    A file of our own kind has them in its metadata, as text: the keys are `colorize.` and the name of the
    attribute, but `colorize.licence` for the license. `colorize.contract` is `VERSION`. A variant of another
    file also has `colorize.precision` and `colorize.variant_of`.

    Attributes:
        name: Name of the model.
        working_size: Short side of its input in pixels with the best measured quality.
        multiple_of: Both sides of its input are multiples of this.
        trained_on: Training data, in words.
        license: License of its weights.
        config_hash: Hash of the training configuration.
        precision: Precision of the computation: "fp32", "fp16" or "int8".
        kind: Kind of the file, a key of `MODEL_FORMATS`.
        variant_of: SHA-256 of the file from which this variant was made, in hexadecimal; None for no variant.
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

    def to_metadata(self, **further: str) -> dict[str, str]:
        """Return the metadata of a file of our own kind, with `further` fields that are not read here."""
        fields = {
            "contract": VERSION,
            "name": self.name,
            "working_size": str(self.working_size),
            "multiple_of": str(self.multiple_of),
            "trained_on": self.trained_on,
            "licence": self.license,
            "config_hash": self.config_hash,
        }
        if self.variant_of is not None:
            fields |= {"precision": self.precision, "variant_of": self.variant_of}
        return {f"{_PREFIX}{name}": text for name, text in (fields | further).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read the metadata of a file of our own kind.

        Raises:
            ModelError: A field is missing or invalid.
        """

        def text(name: str) -> str:
            value = metadata.get(f"{_PREFIX}{name}")
            if value is None:
                raise ModelError(f"the metadata lacks {_PREFIX}{name}")
            return value

        def count(name: str) -> int:
            value = text(name)
            if not re.fullmatch("0*[1-9][0-9]{0,8}", value):
                raise ModelError(
                    f"the metadata field {_PREFIX}{name} is {reprlib.repr(value)}, not a positive integer"
                )
            return int(value)

        return cls(
            name=text("name"),
            working_size=count("working_size"),
            multiple_of=count("multiple_of"),
            trained_on=text("trained_on"),
            license=text("licence"),
            config_hash=text("config_hash"),
            precision=metadata.get(f"{_PREFIX}precision", "fp32"),
            variant_of=metadata.get(f"{_PREFIX}variant_of"),
        )


@dataclass(frozen=True)
class Adapter:
    """Conversion between our arrays and the inputs and outputs of one ONNX file.

    Attributes:
        info: Facts about the model.
        feed: Converts lightness (N, 1, H, W), L* in [0, 100], to the network's inputs by name.
        outputs: Names of the outputs to compute, in the order of `chroma`'s argument.
        chroma: Converts these outputs to ab (N, 2, h, w), CIE a* and b*.
        batch: The fixed batch size N of the network; None if N is dynamic.
    """

    info: ModelInfo
    feed: Callable[[Floats], dict[str, Floats]]
    outputs: tuple[str, ...]
    chroma: Callable[[list[Floats]], Floats]
    batch: int | None = None


@dataclass(frozen=True)
class ModelFormat:
    """Kind of ONNX file.

    Attributes:
        accepts: The accepted signature, in words, for messages.
        recognize: Returns an adapter for a file of this kind, None for any other. Raises ModelError for a
            file that claims to be of this kind and is broken.
        use: Like `recognize`, for a kind given by the user: also accepts an ambiguous signature.
    """

    accepts: str
    recognize: Callable[[Signature], Adapter | None]
    use: Callable[[Signature], Adapter | None]
