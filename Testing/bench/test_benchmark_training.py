"""`apformer benchmark training` tells the parts of a step; shares add up, and what is not the network is named."""

from __future__ import annotations

import pytest

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.benchmarks import step
from apformer.errors import ConfigError


def test_the_parts_of_a_step_are_measured_in_2d_and_3d_and_told_as_a_table() -> None:
    said: list[str] = []
    report = step.run("apformer", quick=True, say=said.append)
    assert list(report["steps"]) == ["2D", "3D"] and len(said) == 2
    for one in report["steps"].values():
        parts = one["parts_ms"]
        assert tuple(parts) == step.PARTS
        assert parts["forward"] > 0 and parts["backward"] > 0 and parts["augmentation"] > 0
        besides = 1 - (parts["forward"] + parts["backward"]) / sum(parts.values())
        assert one["besides_network"] == pytest.approx(besides, abs=0.02)
    text = step.render(report)
    assert "| augmentation |" in text and "All but the network's forward and backward pass" in text


def test_a_network_that_takes_images_of_any_size_is_built_without_one() -> None:
    assert step.a_config("mobile_utr", (32, 32)).network == "mobile_utr"


def test_a_network_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ConfigError, match="not registered"):
        step.run("none-such", quick=True, say=lambda line: None)
