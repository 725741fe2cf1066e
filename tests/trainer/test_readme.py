"""The trainer's README agrees with the program.

`python -m tests.trainer.test_readme` updates the tables of fields and scores in it.
"""

import ast
import inspect
import json
import re
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from trainer.config import AugmentConfig, Config, DegradationConfig, LossConfig, ModelConfig, Phase
from trainer.data.degradation import LOOKS
from trainer.losses import ADVERSARIAL, LOSSES, RECONSTRUCTION
from trainer.models import DISCRIMINATORS, GENERATORS
from trainer.models.encoders import ENCODERS
from trainer.optim import OPTIMIZERS
from trainer.presets import PRESETS
from trainer.scores import Scores

README = Path(__file__).parents[2] / "trainer" / "README.md"
SECTIONS = {
    "": Config,
    "phases.0.": Phase,
    "model.": ModelConfig,
    "loss.": LossConfig,
    "augment.": AugmentConfig,
    "augment.film.": DegradationConfig,
}
TABLES = (GENERATORS, DISCRIMINATORS, ENCODERS, RECONSTRUCTION, LOSSES, ADVERSARIAL, OPTIMIZERS, PRESETS)


def docstrings(cls: type) -> dict[str, str]:
    """Return the strings below the fields of a dataclass, on one line each."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    found = {}
    for statement, following in pairwise(body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(text)):
                found[name] = " ".join(text.split())
    return found


def default(field) -> str:
    value = field.default if field.default is not MISSING else field.default_factory()
    return json.dumps(value)


def configuration() -> str:
    """Return a table of every field that `--set` accepts."""
    rows = ["| field | default | |", "|---|---|---|"]
    for prefix, cls in SECTIONS.items():
        texts = docstrings(cls)
        rows += [
            f"| `{prefix}{field.name}` | `{default(field)}` | {texts[field.name]} |"
            for field in fields(cls)
            if field.name != "phases" and not is_dataclass(field.default_factory)
        ]
    return "\n".join(rows) + "\n"


def scores() -> str:
    """Return a table of the scores that `evaluate` prints."""
    texts = docstrings(Scores)
    rows = [f"| `{field.name}` | {texts[field.name]} |" for field in fields(Scores)]
    return "\n".join(["| score | |", "|---|---|", *rows]) + "\n"


BLOCKS = {"fields": configuration, "scores": scores}


def block(name: str) -> re.Pattern:
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", BLOCKS)
def test_readme_table_equals_the_docstrings(name):
    found = block(name).search(README.read_text())
    assert found is not None
    assert found[0] == BLOCKS[name](), "run python -m tests.trainer.test_readme"


def test_readme_names_every_row_of_every_table():
    text = README.read_text()
    missing = [row for table in (*TABLES, LOOKS) for row in table if f"`{row}`" not in text]
    assert [row for row in missing if row not in LOOKS] == []
    assert all(f"`augment.film.{row}`" in text for row in LOOKS)


if __name__ == "__main__":
    text = README.read_text()
    for name, generate in BLOCKS.items():
        start, end = block(name).search(text).span()
        text = text[:start] + generate() + text[end:]
    README.write_text(text)
