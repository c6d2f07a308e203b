"""Curves of a training have the colours of the segments, as far as they can be seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from APFormerSlicerLib.workflow import Choices, Workflow
from APFormerSlicerLib.workflow.curve_colors import LEAST_CONTRAST, contrast, in_hex, segment_color, visible_on
from bundle_samples import LABELS
from workflow_samples import PlayedWorker

DARK, LIGHT = (14, 18, 23), (239, 239, 239)


def test_contrast_is_that_of_the_web_guidelines() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # WebAIM's example
    assert contrast((9, 9, 9), (9, 9, 9)) == 1


@pytest.mark.parametrize(
    "color", [(255, 255, 255), (0, 0, 0), (152, 55, 13), (230, 159, 0), (255, 255, 0), (0, 0, 139)]
)
@pytest.mark.parametrize("background", [DARK, LIGHT])
def test_every_colour_can_be_seen_on_dark_and_on_light(
    color: tuple[int, int, int], background: tuple[int, int, int]
) -> None:
    seen = visible_on(color, background)
    assert contrast(seen, background) >= LEAST_CONTRAST
    if contrast(color, background) >= LEAST_CONTRAST:
        assert seen == color


def test_only_the_dice_of_a_known_label_has_a_colour_of_segments() -> None:
    first = LABELS[0]
    assert segment_color(f"Dice of {first.name.upper()}", LABELS, DARK) == in_hex(visible_on(first.color, DARK))
    for curve in ("Dice of Nothing", "share of tokens kept", "loss: total", first.name):
        assert segment_color(curve, LABELS, DARK) is None


def test_a_training_knows_the_colours_of_the_bases_labels_and_of_the_sites_own(
    a_workflow: Workflow, a_worker: PlayedWorker, tmp_path: Path
) -> None:
    a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))
    own = a_workflow.collecting.add_label("Cyst")
    training = a_workflow.tuning.start(Choices(name="our", base="slices"))
    dice = {LABELS[1].name: 0.5, "Cyst": 0.4, "Unheard of": 0.1}
    a_worker.last.tell("metrics", event="epoch", epoch=1, of=2, losses={"total": 1.0}, dice=dice, kept=0.5)
    assert training.colors(LIGHT) == {
        f"Dice of {LABELS[1].name}": in_hex(visible_on(LABELS[1].color, LIGHT)),
        "Dice of Cyst": in_hex(visible_on(own.color, LIGHT)),
    }
