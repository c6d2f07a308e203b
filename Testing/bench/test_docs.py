"""The examples in the documentation run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from apformer.errors import PruningError
from monai.networks.nets import UNETR

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> str:
    """All Python of a page, in order."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S))


def test_the_example_of_pruning_somebody_elses_network_runs_and_gives_it_back() -> None:
    code = examples("pruning-other-networks.md")
    for wide, small in {"(160, 160)": "(32, 32)", "160, 160": "32, 32"}.items():  # the same, in seconds
        code = code.replace(wide, small)
    names: dict[str, Any] = {}
    exec(compile(code, "pruning-other-networks.md", "exec"), names)
    assert names["logits"].shape == (2, 2, 32, 32)
    assert names["work"].prune_logits.shape[:2] == (2, 2)
    assert names["plain"] is names["network"] and isinstance(names["plain"], UNETR)
    with pytest.raises(PruningError):
        names["pruned"](names["torch"].rand(1, 1, 32, 32))
