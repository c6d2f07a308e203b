"""Both hippocampi of the template: segment, measure, compare with the atlas, write it all down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..bundles import Bundle, Code, Label, ModelLibrary
from ..commands.segment import describe_model, provenance
from ..files import atomic_path, write_labels
from ..inference import Result, Segmenter
from ..metrics import dice
from ..volume import Volume
from .contact_sheet import Panel, draw
from .inputs import SIDES, Side, atlas_paths, read_atlas, read_template, sha256_of, template_path

LATERALITY = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right")}
ROI_NOTE = "The regions of interest come from MNI coordinates of the template; no detector looked for them."
ATLAS_NOTE = (
    "Dice is that of the whole hippocampus with the Harvard-Oxford atlas (most probable structure, at least 25 %, "
    "nearest neighbour on the T1 grid). The atlas follows another protocol, is an average of 37 people, and lies in "
    "another generation of MNI space: it shows that the place is right, not how exact the outline is."
)


@dataclass(frozen=True)
class Finding:
    """What the model made of one side."""

    side: Side
    result: Result
    atlas_dice: float
    atlas_ml: float

    @property
    def whole_ml(self) -> float:
        return sum(self.result.volumes_ml.values())


@dataclass(frozen=True)
class Outputs:
    """The files that a demonstration leaves."""

    folder: Path

    @property
    def segmentation(self) -> Path:
        return self.folder / "hippocampi.seg.nrrd"

    @property
    def contact_sheet(self) -> Path:
        return self.folder / "hippocampi.png"

    @property
    def record(self) -> Path:
        return self.folder / "hippocampi.json"

    @property
    def all(self) -> tuple[Path, ...]:
        return self.segmentation, self.contact_sheet, self.record


def run_demo(model: str, device: str, folder: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    """Segment both hippocampi of the template and write the three files of `Outputs` to `folder`.

    Args:
        say: told what happens.

    Returns: the JSON record, and the same for people to read.

    Raises:
        InputError: the packages with the template and the atlas are not installed.
        BundleError, DeviceError, OutputError: as their names say.
    """
    outputs = Outputs(folder)
    segmenter = Segmenter(ModelLibrary().find(model), device)
    say(f"model {segmenter.bundle.name} {segmenter.bundle.version}")
    template = read_template()
    atlas = read_atlas(template)
    findings = [_find(side, segmenter, template, atlas[side.name], say) for side in SIDES]
    record = _record(segmenter.bundle, findings)
    text = _as_text(record, outputs)
    say("writing the segmentation, the contact sheet and the record")
    _write_segmentation(outputs.segmentation, segmenter.bundle, template, findings)
    draw(outputs.contact_sheet, template, segmenter.bundle, [_panel(found, template, atlas) for found in findings])
    with atomic_path(outputs.record) as temporary:
        temporary.write_text(json.dumps({**record, "files": _names(outputs)}, indent=2) + "\n", encoding="utf-8")
    return {**record, "folder": str(folder), "files": _names(outputs)}, text


def _find(side: Side, segmenter: Segmenter, template: Volume, atlas: np.ndarray, say: Callable[[str], None]) -> Finding:
    say(f"segmenting the {side.name} hippocampus")
    result = segmenter.segment(template, roi=side.roi(template), kept_tokens=True)
    whole = result.labels.array > 0
    return Finding(side, result, dice(whole, atlas), float(atlas.sum()) * template.voxel_volume_ml)


def _panel(found: Finding, template: Volume, atlas: Mapping[str, np.ndarray]) -> Panel:
    caption = f"{found.whole_ml:.2f} mL, Dice with the atlas {found.atlas_dice:.2f}"
    name, result = found.side.name, found.result
    assert result.kept_tokens is not None  # it was asked for
    return Panel(name, found.side.roi(template), result.labels.array, atlas[name], result.kept_tokens.array, caption)


def _write_segmentation(path: Path, bundle: Bundle, template: Volume, findings: Sequence[Finding]) -> None:
    """One segment per side and label: on side n, label values are moved up by n times the highest one."""
    highest = max(label.value for label in bundle.labels)
    merged = np.zeros(template.spatial_shape, np.uint8)
    definitions: list[Label] = []
    for place, found in enumerate(findings):
        side, values = found.side.name, found.result.labels.array
        merged = np.where(values > 0, values + np.uint8(place * highest), merged)
        definitions += [
            replace(
                label,
                value=label.value + place * highest,
                name=f"{side.capitalize()} {label.name[0].lower()}{label.name[1:]}",
                modifier=LATERALITY[side],
            )
            for label in bundle.labels
        ]
    made_by = provenance(bundle, findings[0].result.device)
    write_labels(path, template.with_array(merged), definitions, reference=template, provenance=made_by)


def _record(bundle: Bundle, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "program": f"APFormerSlicer {__version__}",
        "date": _now(),
        "model": describe_model(bundle),
        "inputs": [{"file": path.name, "sha256": sha256_of(path)} for path in (template_path(), *atlas_paths())],
        "device": findings[0].result.device,
        "seconds": round(sum(found.result.seconds for found in findings), 3),
        "sides": {found.side.name: _side_record(found) for found in findings},
        "notes": [ROI_NOTE, ATLAS_NOTE],
    }


def _side_record(found: Finding) -> dict[str, Any]:
    return {
        "roi_centre_ras_mm": list(found.side.centre_ras),
        "volumes_ml": found.result.volumes_ml,
        "whole_ml": found.whole_ml,
        "atlas_ml": found.atlas_ml,
        "dice_with_atlas": found.atlas_dice,
        "device": found.result.device,
        "seconds": round(found.result.seconds, 3),
        "warnings": list(found.result.warnings),
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _names(outputs: Outputs) -> list[str]:
    return [path.name for path in outputs.all]


def _as_text(record: Mapping[str, Any], outputs: Outputs) -> str:
    model = record["model"]
    lines = [f"{model['name']} {model['version']} on {record['device']}: {record['seconds']:.1f} s for both sides", ""]
    for side, found in record["sides"].items():
        lines.append(f"{side} hippocampus  {found['whole_ml']:.2f} mL (atlas {found['atlas_ml']:.2f} mL)")
        lines += [f"  {label}  {volume:.2f} mL" for label, volume in found["volumes_ml"].items()]
        lines.append(f"  Dice with the atlas  {found['dice_with_atlas']:.3f}")
    lines += ["", *record["notes"], "", "written:", *(f"  {path}" for path in outputs.all)]
    return "\n".join(lines)
