"""The kinds of ONNX file that can be used: one file and one row each."""

from colorize_cli.contracts import native
from colorize_cli.contracts.base import Adapter, Card, Contract, Signature, Tensor
from colorize_cli.errors import ModelError

__all__ = ["CONTRACTS", "Adapter", "Card", "Contract", "Signature", "Tensor", "recognise"]

CONTRACTS: dict[str, Contract] = {
    "native": native.CONTRACT,
}


def recognise(signature: Signature) -> Adapter:
    """The adapter of the first contract that recognises the file.

    Raises:
        ModelError: None does; the text gives the signature found and those accepted.
    """
    for contract in CONTRACTS.values():
        adapter = contract.recognise(signature)
        if adapter is not None:
            return adapter
    accepted = "; ".join(f"{name}: {contract.accepts}" for name, contract in CONTRACTS.items())
    raise ModelError(f"not an ONNX file of a kind known here. It has {signature}. Accepted are {accepted}")
