"""What segments are, in SNOMED CT codes: the terminology entry on each segment, and a model's labels as a terminology
context that Slicer's terminology selector offers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from apformer.bundles.labels import Code, Label
from apformer.errors import OutputError

from .tags import set_tag, tag

# Slicer refuses a context file without this very text (SEGMENTATION_CONTEXT_SCHEMA in
# Modules/Loadable/Terminologies/Logic/vtkSlicerTerminologiesModuleLogic.cxx).
_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/segment-context-schema.json#"
_NO_CODE = "^^"
_SEPARATORS = str.maketrans(dict.fromkeys("~^|\n\t", " "))


def context_name(model: str) -> str:
    """The name of a model's context."""
    return f"APFormer {model}".translate(_SEPARATORS)


def entry(label: Label, context: str) -> str:
    """The terminology entry of a label, as vtkSlicerTerminologiesModuleLogic::SerializeTerminologyEntry writes it:
    context~category~type~modifier~region context~region~region modifier, a code being scheme^value^meaning."""
    modifier = _NO_CODE if label.modifier is None else _triplet(label.modifier)
    return "~".join((context, _triplet(label.category), _triplet(label.type), modifier, "", _NO_CODE, _NO_CODE))


def set_entry(segment: Any, label: Label, context: str) -> None:
    """Give the segment the codes of `label`."""
    set_tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName(), entry(label, context))


def entry_of(segment: Any) -> str | None:
    """The segment's terminology entry; None when it has none."""
    return tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName())


def context(labels: Sequence[Label], name: str) -> dict[str, Any]:
    """The content of a .term.json file: each label with its codes, its recommended colour and its name.

    Labels of one type that differ by their modifiers become modifiers of that type.
    """
    categories: dict[Code, dict[Code, list[Label]]] = {}
    for label in labels:
        categories.setdefault(label.category, {}).setdefault(label.type, []).append(label)
    listed = [
        # showAnatomy: no second choice, of an anatomic region, is offered
        _code(category) | {"showAnatomy": False, "Type": [_type(code, found) for code, found in types.items()]}
        for category, types in categories.items()
    ]
    return {"SegmentationCategoryTypeContextName": name, "@schema": _SCHEMA, "SegmentationCodes": {"Category": listed}}


def register(logic: Any, labels: Sequence[Label], name: str) -> None:
    """Make the labels known to Slicer until it ends; the same name again replaces what it stood for.

    Args:
        logic: vtkSlicerTerminologiesModuleLogic; in Slicer, slicer.modules.terminologies.logic().

    Raises:
        OutputError: Slicer did not take the context.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "APFormer.term.json"
        path.write_text(json.dumps(context(labels, name)), encoding="utf-8")
        taken = logic.LoadTerminologyFromFile(str(path))
    if taken != name:
        raise OutputError(
            f"Slicer did not take the terminology {name}.",
            "Segments keep their codes, but the terminology selector cannot offer the model's labels.",
            "See Slicer's error log, and check that there is space on the disk of the temporary folder.",
        )


def _type(code: Code, labels: Sequence[Label]) -> dict[str, Any]:
    found = _code(code)
    for label in labels:
        shown = {"recommendedDisplayRGBValue": list(label.color), "3dSlicerLabel": label.name}
        if label.modifier is None:
            found |= shown
        else:
            found.setdefault("Modifier", []).append(_code(label.modifier) | shown)
    return found


def _code(code: Code) -> dict[str, Any]:
    return {"CodingSchemeDesignator": code.scheme, "CodeValue": code.value, "CodeMeaning": code.meaning}


def _triplet(code: Code) -> str:
    return "^".join((code.scheme, code.value, code.meaning))
