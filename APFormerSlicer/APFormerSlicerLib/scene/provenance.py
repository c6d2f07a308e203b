"""What made a result: which model, on which device, when, and with which parameters.

It is written on each segment, where undo takes it back and .seg.nrrd files keep it, and on the segmentation node, where
the last result that was written to it can be seen (Data module) and is saved with the scene.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .tags import set_tag, tag

FOLLOWED = "followed"  # parameter: the corrections that a result goes by, in words
OUTLINED = "outlined"  # parameter: the slices that a person outlined, by axis of the array; the rest was proposed
_NAMESPACE = "APFormer."
_KIND, _ALGORITHM = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
_LONGEST_LO = 64  # characters of a DICOM Long String, such as Segment Algorithm Name


@dataclass(frozen=True)
class Provenance:
    """The texts are those of the worker's result ("provenance"); `parameters` are what was asked for, as JSON values,
    for example the region of interest. No two results have the same `date`, which counts milliseconds."""

    model: str
    model_version: str
    model_checksum: str
    program: str
    device: str
    date: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_report(report: Mapping[str, str], parameters: Mapping[str, Any] | None = None) -> Provenance:
        """From the "provenance" of the worker's result; what it does not tell is "unknown"."""
        texts = {name: str(report.get(name, "unknown")) for name in _TEXTS}
        return Provenance(**texts, parameters=dict(parameters or {}))


_TEXTS = tuple(entry.name for entry in fields(Provenance) if entry.name != "parameters")


def record_on_node(node: Any, provenance: Provenance) -> None:
    """As attributes APFormer.Model, APFormer.ModelVersion, … of any MRML node."""
    for name, text in _as_texts(provenance).items():
        node.SetAttribute(name, text)


def record_on_segment(segment: Any, provenance: Provenance | None) -> None:
    """As tags of the same names, and as the two tags that Slicer's export to DICOM reads; None: a person alone made
    it."""
    if provenance is None:
        for name in (*_names(), _KIND, _ALGORITHM):
            segment.RemoveTag(name)
        return
    for name, text in _as_texts(provenance).items():
        set_tag(segment, name, text)
    kind = "SEMIAUTOMATIC" if FOLLOWED in provenance.parameters else "AUTOMATIC"
    set_tag(segment, _KIND, kind)
    algorithm = f"APFormer {provenance.model} {provenance.model_version}"
    set_tag(segment, _ALGORITHM, algorithm[:_LONGEST_LO])


def of_node(node: Any) -> Provenance | None:
    """What made the last result that was written to the node; None when none of ours was."""
    return _from_texts({name: node.GetAttribute(name) for name in _names()})


def of_segment(segment: Any) -> Provenance | None:
    """What made the segment; None when it is not a result of ours."""
    return _from_texts({name: tag(segment, name) for name in _names()})


def model_of(segment: Any) -> Provenance | None:
    """As `of_segment`, for what a model made; None for what a person outlined, whatever was proposed between."""
    made_by = of_segment(segment)
    return None if made_by is None or OUTLINED in made_by.parameters else made_by


def _names() -> list[str]:
    return [_name(key) for key in (*_TEXTS, "parameters")]


def _name(key: str) -> str:
    """ "model_version" -> "APFormer.ModelVersion" """
    return _NAMESPACE + "".join(part.capitalize() for part in key.split("_"))


def _as_texts(provenance: Provenance) -> dict[str, str]:
    texts = {_name(key): str(getattr(provenance, key)) for key in _TEXTS}
    # | may not be in a tag, and in JSON it can only be within a string, where an escape says the same.
    parameters = json.dumps(dict(provenance.parameters), sort_keys=True).replace("|", "\\u007c")
    return {**texts, _name("parameters"): parameters}


def _from_texts(texts: Mapping[str, str | None]) -> Provenance | None:
    if texts[_name("model")] is None:
        return None
    try:
        parameters = json.loads(texts[_name("parameters")] or "{}")
    except json.JSONDecodeError:  # edited by hand
        parameters = {}
    report = {key: text for key in _TEXTS if (text := texts[_name(key)]) is not None}
    return Provenance.from_report(report, parameters if isinstance(parameters, dict) else {})
