"""The network that CONTRIBUTING.md adds works as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from apformer import networks
from torch import nn

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from crash_samples import plain_pictures
from test_every_network import UTR, walk

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("## A fifth network in 20 lines")[2].partition("\n## ")[0]
CODE, REGISTRATION = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def my_net(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[nn.Module]]:
    """The class of the page, registered as the page says."""
    module = ModuleType("apformer.networks.my_net")
    module.__package__ = "apformer.networks"
    exec(compile(CODE, str(PAGE), "exec"), module.__dict__)
    entry = re.search(r'"(\w+)": (\w+),  # in its _REGISTRY', REGISTRATION)
    assert entry is not None
    network: type[nn.Module] = getattr(module, entry[2])
    monkeypatch.setitem(networks._REGISTRY, entry[1], network)
    with plain_pictures():
        yield network


def arguments() -> dict[str, Any]:
    """Those of the page, for the test of every network."""
    entry = re.search(r'"my_net": (\{.*\}),  # in NETWORKS', REGISTRATION)
    assert entry is not None
    found: dict[str, Any] = eval(entry[1], {"UTR": UTR})
    return found


def test_the_class_has_20_lines_at_most() -> None:
    lines = CODE.partition("class ")[2].splitlines()
    assert 0 < len([line for line in lines if line.strip()]) <= 20


@pytest.mark.parametrize("size", [(16, 16), (9, 21), (1, 1), (8, 9, 10)])
def test_the_network_of_the_page_takes_images_of_any_size(my_net: type[nn.Module], size: tuple[int, ...]) -> None:
    network = my_net(spatial_dims=len(size), in_channels=2, out_channels=3)
    assert network(torch.zeros(2, 2, *size)).shape == (2, 3, *size)


def test_the_network_of_the_page_is_trained_kept_run_fine_tuned_and_made_smaller(
    my_net: type[nn.Module], a_dataset: Path, tmp_path: Path
) -> None:
    walk("my_net", arguments(), a_dataset, tmp_path)
