"""What the README says of the models is what their bundles say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from apformer.bundles import ModelLibrary, bundled_models

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = sorted(path.name for path in (ROOT / "Resources" / "Models").iterdir())


def test_the_library_finds_every_bundled_model_and_each_is_sound() -> None:
    entries = {entry.name: entry.problem for entry in ModelLibrary(bundled_models()).list()}
    assert entries == dict.fromkeys(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_quotes_the_measured_dice_of_each_label(name: str) -> None:
    rows = [line for line in README.splitlines() if line.startswith(f"| `{name}`")]
    assert len(rows) == 1, f"the README's table has no row for {name}"
    quoted = [float(text) for text in re.findall(r"\b[01]\.\d{3}\b", rows[0])]
    measured = ModelLibrary(bundled_models()).find(name).metadata["metrics"]["labels"]
    assert quoted == [round(entry["pooled_dice"], 3) for entry in measured.values()]


@pytest.mark.parametrize("name", NAMES)
def test_no_weights_file_is_above_6_mib(name: str) -> None:
    weights = ROOT / "Resources" / "Models" / name / "models" / "model.safetensors"
    assert weights.stat().st_size <= 6 * 2**20


def test_the_readme_explains_messages_that_the_program_has() -> None:
    rows = [line.split("|")[1] for line in README.partition("| it says |")[2].partition("\n\n")[0].splitlines()[2:]]
    quoted = [re.findall(r"`([^`]+)`", row) for row in rows]
    assert len(rows) > 8 and all(len(found) == 1 for found in quoted)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "APFormerSlicer").rglob("*.py"))
    assert [found for (found,) in quoted if found not in sources] == []


def test_every_picture_the_readme_shows_exists() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert pictures
    assert [picture for picture in pictures if not (ROOT / picture).is_file()] == []
