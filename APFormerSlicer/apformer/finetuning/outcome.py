"""What a fine-tuning leaves: a version in the model library, a report, and a decision."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..bundles import Bundle, ModelLibrary, load_bundle, save_bundle
from ..files import atomic_path
from ..inference import Segmenter
from ..inference.devices import describe
from ..training.calibration import VOXELS_KEPT
from ..training.cases import Case
from ..training.config import TrainingConfig
from ..training.report import hardware
from .card import write_card
from .cases import as_case
from .events import Teller
from .folder import TrainingFolder
from .labels import relabelled
from .measured import told
from .page import write_page
from .pictures import draw_case
from .rounds import Trained
from .setup import Setup
from .unfound import warnings
from .verdict import RULE, finds_nothing

REPORT_SCHEMA = 1
WORST_CASES = 4


@dataclass(frozen=True)
class Outcome:
    """A finished fine-tuning.

    Attributes:
        bundle: the new version. adopted: whether it is the active one now. verdict: why, in words.
        report, page: report.json and report.html; summary: the report without its curves and settings.
    """

    bundle: Bundle
    adopted: bool
    verdict: str
    report: Path
    page: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """What was found out before and after: see `measure.summary`; `rival` is the active version, unless the base."""

    before: dict[str, Any] | None
    rival: dict[str, Any] | None
    after: dict[str, Any]
    better: bool
    why: str
    rows: Sequence[Mapping[str, Any]]
    drafts: Mapping[str, Path]
    skipped: Mapping[str, str]
    phases: Sequence[Mapping[str, Any]]


def write_version(
    setup: Setup,
    folder: TrainingFolder,
    library: ModelLibrary,
    trained: Trained,
    found: Findings,
    teller: Teller,
    check: Callable[[], None],
) -> Outcome:
    """Draw, write the version, activate it if that is the decision, write the report.

    Raises:
        OutputError: the model library or the training's folder cannot be written; the old version stays active.
    """
    teller.progress("drawing the worst cases", 0.96)
    worst = _draw_worst(setup, folder, found, check)
    pictures = {Path(entry["file"]).name: folder.path / entry["file"] for entry in worst[:1]}
    adopt = setup.request.adopt
    adopted = not finds_nothing(found.after) and (found.better if adopt == "better" else adopt == "always")
    verdict = _verdict(setup, found, adopted)
    overlays = sorted(path.relative_to(folder.path).as_posix() for path in folder.path.glob("*/epoch-*.png"))
    report = _report(setup, trained, found, worst, adopted, verdict, teller, overlays)

    def write(directory: Path) -> None:
        version = library.next_version(setup.request.name, setup.base)
        report["version"], report["after"]["model"] = version, f"{setup.request.name} {version}"
        _save(replace(trained.config, version=version), trained, report, setup, pictures, directory)
        # The report first: where it finds no room, no version is there that a training gone on with would write again.
        report["time"]["used_s"] = round(teller.used, 1)
        with atomic_path(folder.report) as temporary:
            temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
        write_page(report, folder.path, folder.page)

    teller.progress("writing the new version", 0.98)
    bundle = library.add_version(write)
    if adopted:
        library.activate(bundle.name, bundle.version, verdict)
    kept = folder.close(bundle.version)
    summary = {key: value for key, value in report.items() if key not in ("curves", "settings")}
    return Outcome(bundle, adopted, verdict, kept / folder.report.name, kept / folder.page.name, summary)


def _verdict(setup: Setup, found: Findings, adopted: bool) -> str:
    name = setup.request.name
    if finds_nothing(found.after):
        return f"Not adopted: a model that finds nothing is never put in use. {found.why}"
    if adopted and found.better:
        return f"Adopted: the new version of {name} is active. {found.why}"
    if adopted:
        return f"Adopted because that was asked for, although it is not better by the rule. {found.why}"
    if found.better:
        return f"Not adopted, because that was asked for, although it is better by the rule. {found.why}"
    return f"Not adopted: what was active stays active. {found.why}"


def _report(
    setup: Setup,
    trained: Trained,
    found: Findings,
    worst: list[dict[str, Any]],
    adopted: bool,
    verdict: str,
    teller: Teller,
    overlays: list[str],
) -> dict[str, Any]:
    request, split = setup.request, setup.split
    divided = [setup.divided(fold) for fold in range(split.rounds)]
    validating = [site for _, part in divided for site in part]
    learning = divided[0][0] if split.rounds == 1 else [site for site in setup.sites if site in validating]
    return {
        "schema": REPORT_SCHEMA,
        "name": request.name,
        "version": trained.config.version,
        "base": _base(setup),
        "adopted": adopted,
        "rule": RULE,
        "verdict": verdict,
        "better": found.better,
        "why": found.why,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()}, {hardware(setup.device)}",
        "device": describe(setup.device),
        "threads": torch.get_num_threads(),
        "seed": request.seed,
        "time": {
            "asked_s": None if request.steps else request.seconds,
            "used_s": round(teller.used, 1),
            "phases": list(found.phases),
        },
        "data": {
            "training_patients": len({site.patient for site in learning}),
            "validation_patients": len({site.patient for site in validating}),
            "training_cases": [site.name for site in learning],
            "validation_cases": [site.name for site in validating],
            "measured_cases": sorted(found.after["cases"]),
            "folds": split.rounds,
            "skipped": [{"case": case, "reason": reason} for case, reason in sorted(found.skipped.items())],
        },
        "labels": setup.plan.describe(),
        "settings": _settings(setup, trained.config),
        "curves": [dict(row) for row in found.rows],
        "blend": trained.blend,
        "before": found.before,
        "rival": found.rival,
        "after": found.after,
        "pictures": {"worst": worst, "overlays": overlays},
        "warnings": [
            *setup.warnings,
            *warnings(_mean_dices(found.after)),
            *_lost(found.after),
            *told(len(found.after["cases"]), len(validating) - sum(site.name in found.skipped for site in validating)),
        ],
    }


def _base(setup: Setup) -> dict[str, Any] | None:
    base, other = setup.base, setup.remembered is None
    return None if base is None else {"name": base.name, "version": base.version, "other_structures": other}


def _lost(after: Mapping[str, Any]) -> list[str]:
    """In words, where pruning leaves out a part of the structures."""
    inside = after.get("foreground_inside")
    if inside is None or inside >= VOXELS_KEPT:
        return []
    return [
        f"Pruning leaves out {1 - inside:.1%} of the labelled voxels of the validation cases (0.5% is what may be lost "
        "of the training cases): the model looks for nothing there. Compare the worst cases; if parts of a structure "
        "are missing, train longer or with more cases, allow a larger budget, or train without one."
    ]


def _settings(setup: Setup, config: TrainingConfig) -> dict[str, Any]:
    """All that decided the weights, besides cases and base; plain data."""
    asked = {**asdict(setup.request), "dataset": setup.request.dataset.name}
    decided = {**asdict(config), "preprocessing": config.preprocessing.as_dict(), "labels": [
        label.as_dict() for label in config.labels
    ]}  # fmt: skip
    for unused in ("split", "card", "name", "version", "description", "data_licence"):
        decided.pop(unused)
    return json.loads(json.dumps({"request": asked, "recipe": decided}, default=str))


def _save(
    config: TrainingConfig,
    trained: Trained,
    report: dict[str, Any],
    setup: Setup,
    pictures: dict[str, Path],
    directory: Path,
) -> None:
    base = setup.base
    training = {
        "seed": config.seed,
        "steps": trained.rows[-1]["step"],
        "minutes": round(sum(row["seconds"] for row in trained.rows) / 60, 1),
        "hardware": report["machine"],
        "precision": config.precision,
        "training_patients": report["data"]["training_patients"],
        "split": "the site's own, by patient, frozen on disk"
        if report["data"]["folds"] == 1
        else f"{report['data']['folds']}-fold cross-validation by patient; the weights are of a training on all cases",
        "base": None if base is None else {"name": base.name, "version": base.version, "checksum": base.checksum},
        "budget": setup.request.budget,
        "date": report["date"],
    }
    # Numbers only: a model that is passed on tells nothing of single cases.
    metrics = {
        "cases": len(report["data"]["measured_cases"]),
        "labels": report["after"]["labels"],
        "base": None if report["before"] is None else report["before"]["labels"],
        "gmac": report["after"]["gmac"],
        "kept_tokens_mean": report["after"]["kept_tokens_mean"],
        "foreground_inside": report["after"]["foreground_inside"],
        "false_positives": report["after"]["false_positives"],
    }
    save_bundle(
        directory,
        name=config.name,
        version=config.version,
        description=config.description,
        modality=config.modality,
        channels=config.channels,
        labels=config.labels,
        preprocessing=config.preprocessing,
        network_name=config.network,
        network_arguments=config.network_arguments,
        state_dict=trained.weights,
        card=write_card(report, training, config),
        training=training,
        metrics=metrics,
        data_licence=config.data_licence,
        pictures=pictures,
        parent_version=None if base is None else f"{base.name} {base.version}",
        authors="a site that uses APFormerSlicer",
    )


def _draw_worst(
    setup: Setup, folder: TrainingFolder, found: Findings, check: Callable[[], None]
) -> list[dict[str, Any]]:
    """PNGs of the validation cases with the lowest Dice, before and after."""
    cases = {case.name: case for case in (as_case(site, setup.plan) for site in setup.sites)}
    after = {name: _mean_dice(entry) for name, entry in found.after["cases"].items()}
    before = {name: _mean_dice(entry) for name, entry in (found.before or {"cases": {}})["cases"].items()}
    worst = sorted(after, key=lambda name: (after[name] is None, after[name] or 0.0))[:WORST_CASES]
    drawn = []
    old = None if setup.remembered is None else Segmenter(setup.remembered, setup.device.type)
    for place, name in enumerate(worst, 1):
        check()
        file = f"worst-{place}.png"
        new = Segmenter(load_bundle(found.drafts[name]), setup.device.type)
        _draw(setup, cases[name], old, new, folder.path / file)
        drawn.append({"case": name, "file": file, "dice_before": before.get(name), "dice_after": after[name]})
    return drawn


def _draw(setup: Setup, case: Case, old: Segmenter | None, new: Segmenter, path: Path) -> None:
    image, truth, _ = setup.reader(case)
    trained = {value: value for value in setup.plan.judged}
    after = new.segment(image).labels
    before = None
    if old is not None and setup.base is not None:
        said = old.segment(image).labels
        before = said.with_array(relabelled(relabelled(said.array, setup.plan.of_base(setup.base)), trained))
    after = after.with_array(relabelled(after.array, trained))
    known = replace(
        image, modality=image.modality or setup.source.modality
    )  # files seldom say; CT is shown in a window
    draw_case(known, truth, before, after, setup.plan.labels, path, case.name)


def _mean_dices(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: label.get("mean_dice") for name, label in figures["labels"].items()}


def _mean_dice(entry: Mapping[str, Mapping[str, Any]]) -> float | None:
    known = [label["dice"] for label in entry.values() if label["dice"] is not None]
    return round(sum(known) / len(known), 4) if known else None
