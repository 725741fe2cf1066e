import dataclasses

import pytest

from colorize_cli.core.errors import ModelError
from colorize_cli.inference.adapters import MODEL_FORMATS, ModelInfo, Signature, Tensor, recognize
from tests.helpers.models import METADATA

LIGHTNESS = Tensor("lightness", "tensor(float)", ("n", 1, "h", "w"))
AB = Tensor("ab", "tensor(float)", ("n", 2, "h2", "w2"))


def test_recognize_accepts_the_native_signature():
    adapter = recognize(Signature((LIGHTNESS,), (AB,), METADATA))
    assert adapter.outputs == ("ab",)
    assert adapter.info.license == "CC0-1.0"


def test_model_info_round_trips_through_metadata():
    info = ModelInfo.from_metadata(METADATA)
    assert info.to_metadata() == METADATA
    assert info.to_metadata(config="{}") == METADATA | {"colorize.config": "{}"}
    variant = dataclasses.replace(info, precision="int8", variant_of="ab" * 32)
    added = {"colorize.precision": "int8", "colorize.variant_of": "ab" * 32}
    assert variant.to_metadata() == METADATA | added
    assert ModelInfo.from_metadata(variant.to_metadata()) == variant


@pytest.mark.parametrize(
    ("lightness", "ab"),
    [
        (Tensor("grey", "tensor(float)", ("n", 1, "h", "w")), AB),
        (Tensor("lightness", "tensor(float16)", ("n", 1, "h", "w")), AB),
        (Tensor("lightness", "tensor(float)", (1, 1, "h", "w")), AB),
        (Tensor("lightness", "tensor(float)", ("n", 1, 256, 256)), AB),
        (Tensor("lightness", "tensor(float)", ("n", 3, "h", "w")), AB),
        (LIGHTNESS, Tensor("rgb", "tensor(float)", ("n", 3, "h", "w"))),
        (LIGHTNESS, Tensor("ab", "tensor(float)", ("n", 313, "h", "w"))),
    ],
)
def test_recognize_of_other_signatures_names_found_and_accepted(lightness, ab):
    with pytest.raises(ModelError) as raised:
        recognize(Signature((lightness,), (ab,), METADATA))
    for text in (str(lightness), str(ab), *(contract.accepts for contract in MODEL_FORMATS.values())):
        assert text in str(raised.value)


@pytest.mark.parametrize("name", MODEL_FORMATS)
def test_recognize_by_each_format_ignores_foreign_files(name):
    foreign = Signature(
        (Tensor("tokens", "tensor(int64)", ("n",)),), (Tensor("logits", "tensor(float)", ("n",)),), {}
    )
    assert MODEL_FORMATS[name].recognize(foreign) is None
