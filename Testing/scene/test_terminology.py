"""Segments carry SNOMED CT codes that Slicer reads, and a model's labels can be looked up in Slicer by name."""

from __future__ import annotations

from typing import Any

import pytest
import slicer
import vtk
from apformer.bundles.labels import Code, Label
from apformer.errors import OutputError
from APFormerSlicerLib.scene import Result, write_result
from APFormerSlicerLib.scene.terminology import context, context_name, entry, entry_of, register
from headless import Host

ORGAN = Code("SCT", "123037004", "Anatomical Structure")
HIPPOCAMPUS = Code("SCT", "5366008", "Hippocampus")
HIPPOCAMPI = (
    Label(1, "Anterior hippocampus", (230, 159, 0), ORGAN, HIPPOCAMPUS, Code("SCT", "255549009", "Anterior")),
    Label(2, "Posterior hippocampus", (86, 180, 233), ORGAN, HIPPOCAMPUS, Code("SCT", "255551008", "Posterior")),
    Label(3, "Whole hippocampus", (1, 2, 3), ORGAN, HIPPOCAMPUS),
)


def test_an_entry_is_what_slicer_itself_would_write(a_host: Host) -> None:
    for label in HIPPOCAMPI:
        text = entry(label, "APFormer hippocampus-mr")
        read = slicer.vtkSlicerTerminologyEntry()
        assert a_host.terminologies.DeserializeTerminologyEntry(text, read)
        assert a_host.terminologies.SerializeTerminologyEntry(read) == text
        assert read.GetTypeObject().GetCodeMeaning() == "Hippocampus"


def test_every_segment_of_a_result_has_its_labels_codes(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    kidney = written.segmentation_node.GetSegmentation().GetSegment(written.segment_ids["Left kidney"])
    assert entry_of(kidney) == (
        "APFormer liver-ct~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left~~^^~^^"
    )


def test_registered_labels_are_found_by_name_with_their_codes(a_host: Host) -> None:
    name = context_name("hippocampus-mr")
    register(a_host.terminologies, HIPPOCAMPI, name)
    for label in HIPPOCAMPI:
        found = slicer.vtkSlicerTerminologyEntry()
        assert a_host.terminologies.FindTypeInTerminologyBy3dSlicerLabel(name, label.name, found)
        assert a_host.terminologies.SerializeTerminologyEntry(found) == entry(label, name)


def test_slicer_recommends_the_labels_colours(a_host: Host) -> None:
    register(a_host.terminologies, HIPPOCAMPI, "APFormer h")
    category, kind, modifier = (
        slicer.vtkSlicerTerminologyCategory(),
        slicer.vtkSlicerTerminologyType(),
        slicer.vtkSlicerTerminologyType(),
    )
    assert a_host.terminologies.GetNthCategoryInTerminology("APFormer h", 0, category)
    assert a_host.terminologies.GetNthTypeInTerminologyCategory("APFormer h", category, 0, kind)
    assert kind.GetRecommendedDisplayRGBValue() == (1, 2, 3)
    assert a_host.terminologies.GetNthTypeModifierInTerminologyType("APFormer h", category, kind, 1, modifier)
    assert modifier.GetRecommendedDisplayRGBValue() == (86, 180, 233)


def test_registering_again_replaces_the_context(a_host: Host) -> None:
    register(a_host.terminologies, HIPPOCAMPI[:1], "APFormer h")
    register(a_host.terminologies, HIPPOCAMPI[1:], "APFormer h")
    names = vtk.vtkStringArray()
    a_host.terminologies.GetLoadedTerminologyNames(names)
    assert [names.GetValue(number) for number in range(names.GetNumberOfValues())] == ["APFormer h"]
    found = slicer.vtkSlicerTerminologyEntry()
    assert not a_host.terminologies.FindTypeInTerminologyBy3dSlicerLabel("APFormer h", "Anterior hippocampus", found)


def test_labels_are_grouped_by_category_and_type() -> None:
    lesion = Code("SCT", "49755003", "Morphologically Altered Structure")
    tumour = Label(4, "Tumour", (9, 9, 9), lesion, Code("SCT", "4147007", "Mass"))
    listed = context([*HIPPOCAMPI, tumour], "x")["SegmentationCodes"]["Category"]
    assert [(category["CodeMeaning"], len(category["Type"])) for category in listed] == [
        ("Anatomical Structure", 1),
        ("Morphologically Altered Structure", 1),
    ]
    assert [modifier["3dSlicerLabel"] for modifier in listed[0]["Type"][0]["Modifier"]] == [
        "Anterior hippocampus",
        "Posterior hippocampus",
    ]


def test_separators_in_a_models_name_do_not_reach_the_entry() -> None:
    assert context_name("a~b^c|d") == "APFormer a b c d"


class Deaf:
    def LoadTerminologyFromFile(self, path: str) -> str:
        return ""  # as Slicer does after an error


def test_a_context_that_slicer_refuses_is_told() -> None:
    with pytest.raises(OutputError, match="did not take the terminology APFormer h"):
        register(Deaf(), HIPPOCAMPI, "APFormer h")
