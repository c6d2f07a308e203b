"""Segments of a person's own: as labels beside a model's, written back, and begun."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from apformer.bundles.labels import Code, Label
from apformer.errors import InputError
from apformer.part import Part
from APFormerSlicerLib.scene import Provenance, Status, new_segmentation, set_status, status_of
from APFormerSlicerLib.scene.difference import together
from APFormerSlicerLib.scene.label_table import labels_besides
from APFormerSlicerLib.scene.provenance import FOLLOWED, OUTLINED, model_of, of_segment
from APFormerSlicerLib.scene.results import write_outlined
from APFormerSlicerLib.scene.segments import add_segment
from APFormerSlicerLib.scene.tags import tag
from APFormerSlicerLib.scene.terminology import entry_of
from headless import VolumeMaker, draw, matrix_of, segment_mask

SHAPE = (4, 6, 8)
TISSUE = Code("SCT", "85756007", "Tissue")
LIVER = Label(2, "Liver", (200, 100, 50), TISSUE, TISSUE)


def block(start: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 2:4, start : start + 2] = 1
    return mask


@pytest.fixture
def a_volume(make_volume_node: VolumeMaker) -> Any:
    return make_volume_node(np.zeros(SHAPE, np.int16))


@pytest.fixture
def a_node(a_volume: Any) -> Any:
    """A model's liver and a person's tumour, which overlap."""
    node = new_segmentation(a_volume)
    draw(node, "Liver", block(2), matrix_of(a_volume))
    draw(node, "Tumour", block(3), matrix_of(a_volume))
    return node


def segment(node: Any, name: str) -> Any:
    return node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(name))


def test_segments_beside_a_models_have_values_of_their_own(a_volume: Any, a_node: Any) -> None:
    draw(a_node, "Muscle", block(5), matrix_of(a_volume))
    assert [(label.name, label.value) for label in labels_besides(a_node, [LIVER])] == [("Tumour", 1), ("Muscle", 3)]
    assert [label.name for label in labels_besides(a_node, [])] == ["Liver", "Tumour", "Muscle"]


def test_twins_and_names_that_no_label_can_have_are_left_out(a_volume: Any, a_node: Any) -> None:
    for name in ("tumour", "x" * 100, "two\nlines"):
        draw(a_node, name, block(5), matrix_of(a_volume))
    assert [label.name for label in labels_besides(a_node, [LIVER])] == ["Tumour"]


def test_what_was_outlined_is_written_and_all_else_stays(a_volume: Any, a_node: Any, a_provenance: Any) -> None:
    labels = labels_besides(a_node, [LIVER])
    set_status(segment(a_node, "Tumour"), Status.FLAGGED)
    entry = entry_of(segment(a_node, "Tumour"))
    told = {FOLLOWED: "between 2 outlined slices", OUTLINED: {"k": [0, 3]}}
    made_by = Provenance("between-slices", "1", "ab", "test", "cpu", "2026-01-02", told)
    after = np.zeros(SHAPE, np.uint8)
    after[:, 2:4, 3:5] = labels[0].value
    ids, undoable = write_outlined(a_volume, Part.of(after), labels, a_node, {"Tumour": made_by})
    assert np.array_equal(segment_mask(a_node, ids["Tumour"], SHAPE), after > 0) and not undoable
    liver = a_node.GetSegmentation().GetSegmentIdBySegmentName("Liver")
    assert np.array_equal(segment_mask(a_node, liver, SHAPE), block(2))
    tumour = segment(a_node, "Tumour")
    assert status_of(tumour) == Status.FLAGGED and entry_of(tumour) == entry
    assert of_segment(tumour) == made_by and model_of(tumour) is None
    assert tag(tumour, "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"
    write_outlined(a_volume, Part.of(block(3)), labels, a_node, {"Tumour": None})
    assert of_segment(tumour) is None and tag(tumour, "DICOM.SegmentAlgorithmName") is None


def test_a_label_map_of_another_size_is_refused_and_nothing_is_touched(a_volume: Any, a_node: Any) -> None:
    labels = labels_besides(a_node, [LIVER])
    with pytest.raises(InputError, match="does not fit"):
        write_outlined(a_volume, Part.of(np.ones((3, 3, 3), np.uint8)), labels, a_node, {"Tumour": None})
    tumour = a_node.GetSegmentation().GetSegmentIdBySegmentName("Tumour")
    assert np.array_equal(segment_mask(a_node, tumour, SHAPE), block(3))


def test_a_new_segment_is_empty_and_has_a_name_that_no_other_has(a_node: Any) -> None:
    segment_id = add_segment(a_node, "Muscle")
    assert not segment_mask(a_node, segment_id, SHAPE).any()
    with pytest.raises(InputError, match="named Muscle already"):
        add_segment(a_node, " muscle")


def test_differences_of_two_label_maps_are_shown_as_one() -> None:
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[0, 0, :4], second[0, 0, 2:6] = 2, 1  # removed; added
    assert together([Part.of(first), Part.of(second)]).whole()[0, 0].tolist() == [2, 2, 1, 1, 1, 1, 0, 0]
    assert together([Part.of(first)]).whole().tolist() == first.tolist()
