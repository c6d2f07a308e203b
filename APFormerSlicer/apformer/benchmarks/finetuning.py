"""What fine-tuning brings on labelled data that no bundled model was trained on: studies that anyone can repeat.

Each study makes site data sets of some patients, fine-tunes, and judges every model on other patients, through the
Segmenter. Nothing is written but the results: sites and models live in a temporary folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..bundles import Bundle, ModelLibrary
from ..bundles.labels import Label
from ..datasets import SiteDataset, import_cases, read_decathlon
from ..datasets.imports import Pair, Source
from ..datasets.table import make_table
from ..errors import ConfigError
from ..finetuning import Request, finetune
from ..finetuning.labels import relabelled
from ..finetuning.measure import Scores, measure, summary
from ..finetuning.request import LEANFORMER
from ..networks import registered
from ..training.cases import Case, Labelled
from . import head_neck_base
from .machine import describe_machine
from .peer import PEER, Peer
from .twins import once

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One fine-tuning of a study, or only its base when `patients` is 0.

    Attributes:
        labels: name in the data set -> name in the site's table; what is not named is left out.
        budget, rehearsal, base, network: as in `finetuning.Request`; `PEER` is MONAI's DynUNet.
        complete: only patients of whom everything was outlined. absent: what was not outlined is said to be absent.
    """

    name: str
    patients: int
    labels: Mapping[str, str]
    base: str | None
    budget: str | None = None
    rehearsal: bool = True
    complete: bool = False
    absent: bool = False
    network: str = LEANFORMER


@dataclass(frozen=True)
class Study:
    """Runs on one data set, all judged on the same `others` patients, none of whom is in any site.

    Attributes:
        patient: regular expression for the patient in a file name.
        minutes: given to each fine-tuning.
        rare: names in the data set; where there are any, patients judge of whom one of these was outlined, and not
            everything was, so that those who are complete can all be learned from.
    """

    patient: str
    others: int
    minutes: float
    runs: tuple[Run, ...]
    rare: tuple[str, ...] = ()


SALT = hashlib.sha256(b"benchmark finetune").hexdigest()[:32]  # the same patients train and validate each time
ACDC = r"^(?P<patient>patient\d+)"
LEFT = {"Left ventricle": "Left ventricle cavity"}
HEART = {**LEFT, "Right ventricle": "Right ventricle", "Myocardium": "Myocardium"}
BASE = "left-ventricle-cine-mr"
ORGANS = {
    name: name
    for name in (
        "Brainstem",
        "Spinal cord",
        "Right parotid gland",
        "Left parotid gland",
        "Mandible",
        "Larynx",
        "Esophagus",
    )
}
RARE = ("Larynx", "Esophagus")
LIVER = {"Liver": "Liver"}
HIPPOCAMPUS = {name: name for name in ("Anterior hippocampus", "Posterior hippocampus")}
ATRIUM = {"Left atrium": "Left atrium"}
ABDOMEN = {name: name for name in ("Liver", "Right kidney", "Left kidney", "Spleen")}


def _from_scratch(patients: int, labels: Mapping[str, str]) -> tuple[Run, ...]:
    """A model from nothing beside the plain network, from the same cases in the same time."""
    return (
        Run("from scratch", patients, labels, None),
        Run(f"from scratch, {PEER}", patients, labels, None, network=PEER),
    )


STUDIES: dict[str, Study] = {
    "site-shift": Study(
        ACDC, 20, 15.0,
        (
            Run("base", 0, LEFT, BASE),
            Run("fine-tuned", 10, LEFT, BASE),
            *_from_scratch(10, LEFT),
        ),
    ),
    "new-structure": Study(
        ACDC, 20, 30.0,
        (
            Run("base", 0, LEFT, BASE),
            Run("fine-tuned", 20, HEART, BASE),
            *_from_scratch(20, HEART),
        ),
    ),
    "scratch": Study(r"^(?P<patient>hippocampus_\d+)", 40, 15.0, _from_scratch(20, HIPPOCAMPUS)),
    "atrium": Study(r"^(?P<patient>la_\d+)", 4, 15.0, _from_scratch(11, ATRIUM)),  # one of 16 is there twice
    "abdomen": Study(r"^(?P<patient>chaos_\d+)", 5, 15.0, _from_scratch(11, ABDOMEN)),
    "head-neck": Study(r"^(?P<patient>hn_\d+)", 20, 20.0, _from_scratch(150, ORGANS), rare=RARE),
    "learning-curve": Study(
        ACDC, 20, 12.0,
        tuple(
            run
            for count in (3, 5, 10, 20)
            for run in (
                Run(f"{count} patients", count, LEFT, BASE),
                Run(f"{count} patients, pruned", count, LEFT, BASE, "keep=0.15"),
                Run(f"{count} patients, {PEER}", count, LEFT, None, network=PEER),
            )
        ),
    ),
    "forgetting": Study(
        ACDC, 20, 6.0,
        (
            Run("base", 0, LEFT, BASE),
            Run("with rehearsal", 10, LEFT, BASE),
            Run("without rehearsal", 10, LEFT, BASE, rehearsal=False),
        ),
    ),
    "partial-labels": Study(
        r"^(?P<patient>hn_\d+)", 20, 30.0,
        (
            Run("complete patients", 30, ORGANS, None, complete=True),
            Run("all patients", 150, ORGANS, None),
            Run("all, others absent", 150, ORGANS, None, absent=True),
        ),
        rare=RARE,
    ),
    "other-organs": Study(
        r"^(?P<patient>liver_\d+)", 20, 12.0,
        (
            Run("from scratch", 5, LIVER, None),
            Run("from the heart, MR", 5, LIVER, BASE),
            Run("from the head, CT", 5, LIVER, head_neck_base.NAME),
        ),
    ),
}  # fmt: skip


def run(
    name: str,
    dataset: Path,
    results: Path,
    *,
    minutes: float | None = None,
    old: Path | None = None,
    threads: int | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Make the runs of a study that `results` does not hold yet, and write each into it when it is done.

    Args:
        name: one of STUDIES.
        dataset: its data, in Decathlon layout. old: the base's own data set; every model is judged on its validation
            patients too, which tells what was forgotten. A base of other organs is trained on it.
        results: JSON file; a study that was interrupted goes on where it stopped.
        minutes: instead of the study's own, to try it out.

    Raises:
        ConfigError: there is no such study, or the data set is not the one.
    """
    if name not in STUDIES:
        raise ConfigError(f"There is no study {name!r}.", "Nothing was run.", f"Choose from: {', '.join(STUDIES)}.")
    study = STUDIES[name]
    study = replace(study, minutes=minutes or study.minutes)
    source = read_decathlon(dataset)
    patients = _patients(source, study)
    done = _read(results, name, study)
    for one in study.runs:
        if one.name in done["runs"]:
            continue
        say(f"{name}: {one.name}")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, registered(PEER, Peer):
            entry = _run(study, one, source, patients, Path(scratch), old, threads, say)
        done["runs"][one.name] = entry
        done["machine"] = describe_machine()
        with files.atomic_path(results) as temporary:
            temporary.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return done


def _patients(source: Source, study: Study) -> dict[str, list[Pair]]:
    """Patient -> cases, in an order that depends on nothing but their names and what was outlined: the first `others`
    judge."""
    missing = {name for one in study.runs for name in one.labels} - set((source.names or {}).values())
    if missing:
        raise ConfigError(
            f"The data set has no label {', '.join(sorted(missing))}.",
            "The study is about that.",
            "Point to the data set that the study names; see `apformer benchmark finetune --help`.",
        )
    found: dict[str, list[Pair]] = {}
    for pair in once(sorted(source.pairs, key=lambda pair: pair.stem), lambda pair: pair.images):
        match = re.search(study.patient, pair.stem)
        if match is None:
            raise ConfigError(
                f"{pair.stem} does not look like a file of this study's data set.",
                "Patients are told by file names.",
                "Point to the data set that the study names; see `apformer benchmark finetune --help`.",
            )
        found.setdefault(match["patient"], []).append(pair)
    judges = {name: _judges(pairs, source, study) for name, pairs in found.items()}
    order = {name: (not judges[name], hashlib.sha256(name.encode()).hexdigest()) for name in found}
    return {name: found[name] for name in sorted(found, key=lambda name: order[name])}


def _judges(pairs: Sequence[Pair], source: Source, study: Study) -> bool:
    """Whether a patient is one of those who judge first."""
    rare = {value for value, name in (source.names or {}).items() if name in study.rare}
    return any(rare & set(pair.labelled or ()) for pair in pairs) and not _is_complete(pairs, source)


def _is_complete(pairs: Sequence[Pair], source: Source) -> bool:
    return all(pair.labelled is None or set(source.names or ()) <= set(pair.labelled) for pair in pairs)


def _learn_from(patients: Mapping[str, list[Pair]], one: Run, study: Study, source: Source) -> list[Pair]:
    """The cases of a run's site: of the patients who do not judge."""
    left = list(patients.values())[study.others :]
    chosen = [pairs for pairs in left if not one.complete or _is_complete(pairs, source)][: one.patients]
    return [pair for pairs in chosen for pair in pairs]


def _read(results: Path, name: str, study: Study) -> dict[str, Any]:
    settings = {"study": name, "minutes": study.minutes, "others": study.others}
    if results.exists():
        done = json.loads(results.read_text(encoding="utf-8"))
        if {key: done.get(key) for key in settings} == settings:
            return done
        raise ConfigError(
            f"{results} holds the results of other settings.",
            "They cannot be continued with these.",
            "Name another file, or delete it.",
        )
    return {**settings, "runs": {}}


def _run(
    study: Study,
    one: Run,
    source: Source,
    patients: Mapping[str, list[Pair]],
    scratch: Path,
    old: Path | None,
    threads: int | None,
    say: Say,
) -> dict[str, Any]:
    installed = ModelLibrary()
    library = ModelLibrary([scratch / "models", *installed.roots[1:]])
    trained = _train_base(one, library, study, scratch, old, threads, say)
    base = None if one.base is None else library.find(one.base)
    names = list(patients)
    entry: dict[str, Any] = {"patients": one.patients, "base": None if base is None else f"{base.name} {base.version}"}
    model = base
    if one.patients:
        chosen = _learn_from(patients, one, study, source)
        site = _site(source, chosen, one, base, study, scratch / "site")
        request = Request(
            site.root, "studied", one.base, seconds=60 * study.minutes, budget=one.budget, rehearsal=one.rehearsal,
            threads=threads, device="cpu", adopt="always", network=one.network,
        )  # fmt: skip
        outcome = finetune(request, library=library, on_event=lambda event: _tell(event, say))
        model = outcome.bundle
        entry |= {"time": outcome.summary["time"], "verdict": outcome.verdict, "blend": outcome.summary["blend"]}
        entry |= {} if trained is None else {"trained_base": trained}
        entry["site"] = {key: outcome.summary[key] and outcome.summary[key]["labels"] for key in ("before", "after")}
        entry |= {key: outcome.summary["after"][key] for key in ("gmac", "gmac_dense", "kept_tokens_mean")}
    assert model is not None
    others = [pair for name in names[: study.others] for pair in patients[name]]
    entry["others"] = _judge(model, others, source.names or {}, one.labels)
    if old is not None and base is not None and _shares(base, [label.name for label in model.labels]):
        entry["old"] = _judge_old(model, base, old)
    say(json.dumps({key: entry[key]["labels"] for key in ("others", "old") if key in entry}))
    return entry


def _train_base(
    one: Run, library: ModelLibrary, study: Study, scratch: Path, old: Path | None, threads: int | None, say: Say
) -> dict[str, Any] | None:
    """Train the base of a run that no library has, in as much time as the run gets; None where it has one, or needs
    none."""
    if one.base != head_neck_base.NAME:
        return None
    if old is None:
        raise ConfigError(
            f"{one.name} begins with a model that is trained first, and there are no cases for it.",
            "It cannot be run.",
            "Point to them: --old head-neck-ct.",
        )
    say(f"training {one.base}")
    return head_neck_base.train_base(
        old,
        library,
        scratch,
        minutes=study.minutes,
        salt=SALT,
        threads=threads,
        on_event=lambda event: _tell(event, say),
    )


def _tell(event: Mapping[str, Any], say: Say) -> None:
    if event["event"] == "epoch" and event["dice"]:
        say(f"step {event['step']}, {event['phase']}: Dice {event['dice']}")
    elif event["event"] == "log":
        say(event["message"])


def _site(source: Source, chosen: list[Pair], one: Run, base: Bundle | None, study: Study, folder: Path) -> SiteDataset:
    known: tuple[Label, ...] = base.labels if base is not None and _shares(base, one.labels.values()) else ()
    table = (*known, *_more(known, one.labels.values()))
    dataset = SiteDataset.create(folder, table, salt=SALT)
    mapping = {name: one.labels.get(name) for name in (source.names or {}).values()}
    report = import_cases(
        dataset,
        replace(source, pairs=tuple(chosen)),
        patient_pattern=study.patient,
        mapping=mapping,
        outlined=[label.name for label in table] if one.absent else None,
    )
    if report.failed:
        raise next(iter(report.failed.values()))
    return dataset


def _shares(base: Bundle, names: Iterable[str]) -> bool:
    """Whether a site or model with labels of these names is of structures that the base knows."""
    return bool({label.name for label in base.labels} & set(names))


def _more(known: Sequence[Label], names: Any) -> tuple[Label, ...]:
    """Labels for the names that `known` has not, with values of their own."""
    new = [name for name in names if name not in {label.name for label in known}]
    first = 1 + max((label.value for label in known), default=0)
    return make_table([f"{value}={name}" for value, name in enumerate(new, first)]) if new else ()


def _judge(model: Bundle, pairs: Sequence[Pair], named: Mapping[int, str], labels: Mapping[str, str]) -> dict[str, Any]:
    """Figures of the model on these cases; label names are those of the site's table."""
    ours = {label.name: label.value for label in model.labels}
    values = {value: ours[labels[name]] for value, name in named.items() if labels.get(name) in ours}

    def read(case: Case) -> Labelled:
        image, label = files.read_volume(case.image), files.read_volume(case.label)
        return Labelled(image, label.with_array(relabelled(np.asarray(label.array), values)))

    known = tuple(values.items())
    cases = [
        Case(pair.stem, pair.stem, number, pair.images[0], pair.labels, "", known, pair.labelled)
        for number, pair in enumerate(pairs)
    ]
    judged = {value: name for name, value in ours.items() if value in values.values()}
    return _figures(model, measure(model, cases, read, {v: v for v in judged}, judged, "cpu", check=_never), judged)


def _judge_old(model: Bundle, base: Bundle, folder: Path) -> dict[str, Any]:
    """Figures on the base's own validation patients: those whose number is 1 modulo 5, as all bundled models have."""
    source = read_decathlon(folder)
    held_out = [pair for pair in source.pairs if _number(pair.stem) % 5 == 1]
    named = {value: name for value, name in (source.names or {}).items() if value}
    same = dict(zip(named.values(), (label.name for label in base.labels), strict=True))
    return _judge(model, held_out, named, same)


def _number(stem: str) -> int:
    found = re.search(r"(?:SC-[A-Z-]+-|hippocampus_|liver_)(\d+)", stem)
    return int(found[1]) if found else 0


def _figures(model: Bundle, scores: Scores, judged: Mapping[int, str]) -> dict[str, Any]:
    found = summary(f"{model.name} {model.version}", scores, judged, {})
    counts = {name: sum(name in case for case in found["cases"].values()) for name in found["labels"]}
    return {"cases": len(scores), "judges": counts, "labels": found["labels"], "ms_per_case": found["ms_per_case"]}


def _never() -> None:
    """Nobody stops a benchmark but by ending the process."""


def render(done: Mapping[str, Any]) -> str:
    """A table of the results: a line per run and label."""
    lines = [f"{done['study']}: {done['others']} other patients, {done['minutes']:g} minutes per training"]
    lines += ["", "run                          label                     mean Dice  pooled   HD95 mm  old cases  GMAC"]
    for name, entry in done["runs"].items():
        for label, figures in entry["others"]["labels"].items():
            old = entry.get("old", {}).get("labels", {}).get(label, {}).get("pooled_dice")
            distance = figures.get("hd95_mm", figures.get("hd95_px"))  # pictures have pixels
            cells = (figures["mean_dice"], figures["pooled_dice"], distance, old, entry.get("gmac"))
            shown = "  ".join("   -   " if value is None else f"{value:7.3f}" for value in cells)
            lines.append(f"{name:<27}  {label:<24}  {shown}")
    return "\n".join(lines)
