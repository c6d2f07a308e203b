"""`apformer benchmark follow`: simulated users correct some slices of labelled volumes, and the rest follows, or not.

They take their corrections from the reference. What is compared is the rest, the slices that no one has touched: as the
model proposed it, as it is after following, and interpolated between the corrected slices, as a user of Slicer would do
it instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundles import ModelLibrary
from ..datasets.listing import read_listing
from ..errors import ConfigError
from ..files.atomic import atomic_path
from ..inference import Segmenter
from .follow_users import Interpolate, interpolated_between, read_patient, shared_labels, simulate
from .machine import describe_machine
from .memory import peak_memory_bytes
from .outlined import evenly

BELOW = 0.93  # a proposal that needs correction
LOST = 0.005  # of Dice, from which a volume counts as worse
ENOUGH = 0.95  # Dice of a whole volume that a user is content with
Say = Callable[[str], None]


def run(
    dataset: Path,
    model: str,
    *,
    users: Sequence[str] = ("worst",),
    slices: Sequence[int] = (1,),
    volumes: int | None = None,
    seconds: float | None = None,
    device: str = "cpu",
    output: Path | None = None,
    interpolate: Interpolate | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Measure following on a data set in Decathlon layout.

    Args:
        users: of `USERS`. slices: how many are corrected, one after another; followed after each of these numbers.
        volumes: at most so many, evenly over all; all without.
        seconds: for each following, instead of the default.
        output: what was measured is kept here after each volume, and not measured again.
        interpolate: what following is compared with; `interpolated_between` without.

    Raises:
        ConfigError: the data set or what is kept in `output` cannot be used, or the model knows none of its structures.
        BundleError, DeviceError: the model or the device cannot be used.
    """
    segmenter = Segmenter(ModelLibrary().find(model), device)
    setting = {
        "dataset": dataset.name,
        "model": f"{segmenter.bundle.name} {segmenter.bundle.version}",
        "users": list(users),
        "slices": list(slices),
        "limit_s": seconds,
    }
    kept = _kept(output, setting)
    listing = read_listing(dataset)
    values = shared_labels(segmenter.bundle, listing.names)
    for pair in evenly(listing.pairs, volumes):
        if pair.stem in kept:
            continue
        patient = read_patient(pair, segmenter, values)
        if patient is None:
            say(f"{pair.stem}: left out, since fewer than two slices show what the model knows")
            continue
        found = [
            {"user": user, **entry}
            for user in users
            for entry in simulate(patient, segmenter, user, slices, seconds, interpolate or interpolated_between)
        ]
        kept[pair.stem] = found
        say(f"{pair.stem}: " + ", ".join(_line(entry) for entry in found))
        if output is not None:
            _keep(output, setting, kept)
    if not kept:
        raise ConfigError(
            f"No volume of {dataset} shows a structure of {segmenter.bundle.name} on two slices.",
            "There is nothing to follow.",
            "Choose the data set of another model.",
        )
    return {**setting, "machine": describe_machine(), **summary(kept), "cases": kept}


def summary(cases: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The figures of all volumes: those of the first user's first round, and the table of all rounds."""
    first = [rounds[0] for rounds in cases.values() if rounds]
    below = [entry for entry in first if entry["before"]["dice"] < BELOW]
    users = dict.fromkeys(entry["user"] for rounds in cases.values() for entry in rounds)
    return {
        "volumes": len(first),
        **{name: _mean(first, name) for name in ("before", "after", "interpolated")},
        "below": {
            "threshold": BELOW,
            "volumes": len(below),
            **{name: _mean(below, name) for name in ("before", "after", "interpolated")},
        },
        "worse": _share(first, lambda entry: entry["after"]["dice"] < entry["before"]["dice"] - LOST),
        "seconds": float(np.median([entry["seconds"] for entry in first])) if first else None,
        "peak_mib": round(peak_memory_bytes() / (1 << 20)),
        "table": [
            _row(user, count, [entry for rounds in cases.values() for entry in rounds if _is(entry, user, count)])
            for user in users
            for count in sorted({entry["slices"] for rounds in cases.values() for entry in rounds})
        ],
        "until_enough": {user: _until(cases, user) for user in users},
    }


def _is(entry: Mapping[str, Any], user: str, count: int) -> bool:
    return bool(entry["user"] == user and entry["slices"] == count)


def _row(user: str, count: int, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of a user and a number of slices. "both": following and interpolation, in the better order."""
    names = ("before", "after", "interpolated")
    dices = {name: _mean(entries, name) for name in names}
    distances = {f"{name}_hd95_mm": _mean(entries, name, "hd95_mm") for name in names}
    orders = [figure for figure in (dices["after"], _mean(entries, "both")) if figure is not None]
    seconds = float(np.median([entry["seconds"] for entry in entries])) if entries else None
    both = max(orders) if orders else None
    row = {"user": user, "slices": count, "volumes": len(entries)}
    return {**row, **dices, "both": both, **distances, "seconds": seconds}


def _until(cases: Mapping[str, Sequence[Mapping[str, Any]]], user: str) -> dict[str, int]:
    """Volumes by how many corrected slices brought them to `ENOUGH`; "never" within the study."""
    counts: dict[str, int] = {}
    for rounds in cases.values():
        mine = [entry for entry in rounds if entry["user"] == user]
        done = [entry["slices"] for entry in mine if (entry["whole"] or 0.0) >= ENOUGH]
        key = str(min(done)) if done else "never"
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items()))


def _mean(entries: Sequence[Mapping[str, Any]], name: str, what: str = "dice") -> float | None:
    figures = [entry[name][what] for entry in entries if entry[name][what] is not None]
    return round(float(np.mean(figures)), 4) if figures else None


def _share(entries: Sequence[Mapping[str, Any]], holds: Callable[[Mapping[str, Any]], bool]) -> float | None:
    return round(sum(map(holds, entries)) / len(entries), 4) if entries else None


def _line(entry: Mapping[str, Any]) -> str:
    before, after = entry["before"]["dice"], entry["after"]["dice"]
    return f"{entry['user']} {entry['slices']}: {before:.3f} -> {after:.3f} ({entry['seconds']:.1f} s)"


def _kept(output: Path | None, setting: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier run has measured.

    Raises:
        ConfigError: the file is no such record, or that of another study.
    """
    if output is None or not output.is_file():
        return {}
    try:
        record = json.loads(output.read_text(encoding="utf-8"))
        same = all(record[name] == value for name, value in setting.items())
        cases = dict(record["cases"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_record(output, "is no record of this benchmark") from error
    if not same:
        raise _no_record(output, "is the record of another study")
    return cases


def _no_record(output: Path, why: str) -> ConfigError:
    return ConfigError(f"{output} {why}.", "It was left as it is.", "Choose another file, or move that one away.")


def _keep(output: Path, setting: Mapping[str, Any], cases: Mapping[str, Any]) -> None:
    record = {**setting, "machine": describe_machine(), **summary(cases), "cases": cases}
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")


def render(record: Mapping[str, Any]) -> str:
    """A table for people."""

    def cell(value: float | None) -> str:
        return "   -  " if value is None else f"{value:6.3f}"

    lines = [
        f"{record['model']} on {record['dataset']}: Dice of the rest, {record['volumes']} volumes",
        "",
        "user    slices  volumes  before   after  interp.   both  HD95 mm before   after  seconds",
    ]
    for row in record["table"]:
        dices = "  ".join(cell(row[name]) for name in ("before", "after", "interpolated", "both"))
        distances = "  ".join(cell(row[f"{name}_hd95_mm"]) for name in ("before", "after"))
        who = f"{row['user']:<7} {row['slices']:>6}  {row['volumes']:>7}"
        lines.append(f"{who}  {dices}          {distances}  {cell(row['seconds'])}")
    below = record["below"]
    lines += [
        "",
        f"below {below['threshold']}: {below['volumes']} volumes, {cell(below['before'])} -> "
        f"{cell(below['after'])}; {record['worse']:.1%} of all lose more than {LOST}; "
        f"{record['peak_mib']} MiB at most",
    ]
    for user, counts in record["until_enough"].items():
        told = ", ".join(f"{number} slices: {volumes}" for number, volumes in counts.items())
        lines.append(f"{user}, volumes at {ENOUGH} after {told}")
    return "\n".join(lines)
