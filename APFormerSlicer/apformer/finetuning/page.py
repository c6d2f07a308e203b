"""The fine-tuning report as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import atomic_path
from ..training.report import false_positives
from .page_curves import SERIES, draw_curves, folds_of, losses_of, phase_color, phases_of
from .page_style import STYLE, dashes, label_colors, label_variables
from .page_tables import case_table, cost_table, label_table, number, signed, text

Report = Mapping[str, Any]

MOST_OVERLAYS = 6  # of the slice followed during training: the first, the last, and some between
FEW_CASES = 15  # the table of so many cases is shown unfolded
# What the page may load: pictures that it carries itself, and its own style. A browser refuses everything else.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_RULES = {
    "better": "the new model is put in use only if it is measurably better.",
    "always": "the new model is put in use whatever it measures.",
    "never": "the new model is never put in use by itself.",
}


def write_page(report: Report, folder: Path, path: Path) -> Path:
    """Write report.json's content as a page, completely or not at all.

    Args:
        report: schema 1.
        folder: where the report's pictures lie; only PNG files inside it are taken into the page.
        path: the .html file; replaced when it exists.

    Returns: `path`.

    Raises:
        OutputError: the file cannot be written.
    """
    page = render(report, folder)
    with atomic_path(path) as temporary:
        # A file name with bytes that are no UTF-8 reaches Python as lone surrogates, which cannot be encoded.
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def render(report: Report, folder: Path) -> str:
    """The whole page."""
    colors = label_colors(report)
    lines = dashes(colors)
    chips = {
        name: f'<span class="chip" style="background:var(--label-{index})"></span>' for index, name in enumerate(colors)
    }
    title = f"{report['name']} {report['version']}"
    sections = (
        _header(report),
        _verdict(report),
        _comparison(report, chips),
        _curves(report, folder, lines),
        _cases(report, chips),
        _worst(report, folder, chips),
        _data(report),
        _warnings(report),
        _run(report),
        _rollback(report),
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Fine-tuning of {text(title)}</title>
<style>{STYLE}{label_variables(list(colors.values()))}</style>
</head>
<body>
<main>
{"".join(sections)}
<footer>Research software, not a medical device.</footer>
</main>
</body>
</html>
"""


def _section(title: str, *parts: str, kind: str = "", anchor: str = "") -> str:
    names = (f' class="{kind}"' if kind else "") + (f' id="{anchor}"' if anchor else "")
    return f"<section{names}>\n<h2>{title}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>\n"


def _header(report: Report) -> str:
    base = report["base"]
    start = "trained from scratch" if base is None else f"started from {text(base['name'])} {text(base['version'])}"
    if _of_other_structures(base):
        start = f"began with the weights of {text(base['name'])} {text(base['version'])}, of other structures"
    return (
        f'<header><p class="kicker">Fine-tuning report</p><h1>{text(report["name"])} '
        f'<span class="version">{text(report["version"])}</span></h1>'
        f'<p class="facts">{start} · {text(str(report["date"]).replace("T", " "))}</p></header>\n'
    )


def _of_other_structures(base: Mapping[str, Any] | None) -> bool:
    """Whether nothing of what the base finds is in the new model; reports of earlier versions do not say."""
    return base is not None and bool(base.get("other_structures"))


def _verdict(report: Report) -> str:
    if report["adopted"]:
        title = "Adopted: the new model is now in use"
    elif report["base"] is None or _of_other_structures(report["base"]):
        title = "Not adopted: the new model is not in use"
    else:
        title = "Kept the old model: the new one is not in use"
    rule = str(report["rule"])
    parts = [f"<p>{text(report['verdict'])}</p>", f'<p class="soft">Rule: {text(_RULES.get(rule, rule))}</p>']
    remarks = [
        f"{len(found)} {one if len(found) == 1 else many}"
        for found, one, many in (
            (report["warnings"], "warning", "warnings"),
            (report["data"]["skipped"], "skipped case", "skipped cases"),
        )
        if found
    ]
    if remarks:
        parts.append(f'<p><a href="#warnings">{" and ".join(remarks)}</a></p>')
    return _section(title, *parts, kind="verdict adopted" if report["adopted"] else "verdict")


def _comparison(report: Report, chips: Mapping[str, str]) -> str:
    before, after = report["before"], report["after"]
    cases = len(after["cases"])
    measured = f"{text(after['model'])}, measured on {cases} {'case' if cases == 1 else 'cases'}"
    if before is not None:
        measured = f"Before: {text(before['model'])}. After: {measured}"
    explained = (
        "Dice, HD95 and ASSD are means over the cases; pooled Dice counts all voxels of all cases together. "
        "Higher is better for Dice, lower for HD95 (95th percentile of the distances between surfaces) and ASSD (their "
        "mean)."
    )
    return _section(
        "Measured" if before is None else "Before and after",
        f'<p class="soft">{measured}. {explained}</p>',
        label_table(report, chips),
        _false_positives(after),
        "<h3>Cost</h3>",
        cost_table(report),
    )


def _false_positives(after: Mapping[str, Any]) -> str:
    found = false_positives(after.get("false_positives", {}))
    return f"<p>{text(found)}</p>" if found else ""


def _curves(report: Report, folder: Path, lines: Mapping[str, str]) -> str:
    rows = report["curves"]
    if not rows:
        return _section("Training", "<p>No step was taken.</p>")
    folds = report["data"]["folds"]
    titles = {fold: _fold_title(fold, folds) for fold in folds_of(rows)}
    drawings = "".join(draw_curves(rows, lines, titles))
    overlays = _evenly([str(name) for name in report["pictures"]["overlays"]], MOST_OVERLAYS)
    strip = "".join(_image(folder, name, f"A validation slice during training: {name}") for name in overlays)
    followed = f'<h3>One validation slice during training</h3><div class="strip">{strip}</div>' if strip else ""
    return _section("Training", _keys(rows, lines), drawings, followed)


def _fold_title(fold: Any, folds: int) -> str:
    if folds == 1:
        return ""
    return f"fold {fold} of {folds}" if fold in range(1, folds + 1) else "all cases"


def _evenly(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, the first and the last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]


def _keys(rows: Sequence[Mapping[str, Any]], lines: Mapping[str, str]) -> str:
    """What the lines and shades of the curves stand for."""
    order = list(lines)
    followed = dict.fromkeys(str(name) for row in rows for name in row.get("dice") or {})

    def line(style: str, variable: str, name: str) -> str:
        look = f"border-top-style:{style};border-top-color:var({variable})"
        return f'<span><span class="dash" style="{look}"></span>{text(name)}</span>'

    def shade(phase: str) -> str:
        look = f"background:var(--phase-{phase_color(phase)})"
        return f'<span><span class="shade" style="{look}"></span>{text(phase)}</span>'

    keys = {
        "Phases": [shade(phase) for phase in phases_of(rows)],
        "Dice": [line(lines[name], f"--label-{order.index(name)}", name) for name in followed],
        "Losses": [
            line("solid", f"--series-{index % SERIES}", name.replace("_", " "))
            for index, name in enumerate(losses_of(rows))
        ],
    }
    return "".join(f'<div class="keys"><b>{title}</b>{"".join(items)}</div>' for title, items in keys.items() if items)


def _cases(report: Report, chips: Mapping[str, str]) -> str:
    cases = report["after"]["cases"]
    if not cases:
        return _section("Case by case", "<p>No case was measured.</p>")
    opened = " open" if len(cases) <= FEW_CASES else ""
    count = f"{len(cases)} {'case' if len(cases) == 1 else 'cases'}, worst first"
    return _section("Case by case", f"<details{opened}><summary>{count}</summary>{case_table(report, chips)}</details>")


def _worst(report: Report, folder: Path, chips: Mapping[str, str]) -> str:
    pictures = report["pictures"]["worst"]
    if not pictures:
        return ""
    names = "".join(f"<span>{chips[str(entry['name'])]}{text(entry['name'])}</span>" for entry in report["labels"])
    figures = (
        _image(folder, str(entry["file"]), f"Slices of {entry['case']}", str(entry["case"]), _dice_line(report, entry))
        for entry in pictures
    )
    return _section("Worst cases", f'<div class="keys"><b>Labels</b>{names}</div>', *figures)


def _dice_line(report: Report, entry: Mapping[str, Any]) -> str:
    before, after = number(entry["dice_before"]), number(entry["dice_after"])
    if after is None:
        return "Nothing here judges it"
    if before is None:
        return f"Dice {after:.3f}" + (" (not measured before)" if report["before"] is not None else "")
    return f"Dice {before:.3f} → {after:.3f} ({signed(after - before, 3)})"


def _image(folder: Path, name: str, alternative: str, title: str = "", line: str = "") -> str:
    """A PNG as part of the page, or a sentence when it is not there."""
    caption = f"<figcaption><b>{text(title)}</b> · {text(line)}</figcaption>" if title else ""
    content = _png(folder, name)
    if content is None:
        return f'<figure><p class="soft">The picture {text(name)} could not be read.</p>{caption}</figure>\n'
    data = base64.b64encode(content).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" alt="{text(alternative)}">{caption}</figure>\n'


def _png(folder: Path, name: str) -> bytes | None:
    """The bytes of a PNG inside the folder; None for anything else, so that no other file gets into the page."""
    try:
        path = (folder / name).resolve()
        content = path.read_bytes() if path.is_relative_to(folder.resolve()) else b""
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None


def _data(report: Report) -> str:
    data = report["data"]
    training, validation = (f"{data[f'{part}_patients']} patients" for part in ("training", "validation"))
    if data["folds"] > 1:
        how = (
            f"{data['folds']}-fold cross-validation: the cases were split by patient into {data['folds']} parts, and "
            "each part was measured by a network trained on the others. The figures join these parts, so no case was "
            "measured by a network that had seen its patient; they describe the recipe rather than one network."
        )
    else:
        how = (
            "One frozen split by patient: the validation patients were set aside before training, and every version "
            "is measured on the same ones. The network was never trained on them."
        )
    parts = [f"<p>{how}</p>"]
    facts = [("Trained on", training, "training_cases"), ("Measured on", validation, "measured_cases")]
    for title, patients, key in facts:
        cases = [text(case) for case in data[key]]
        listed = f"<details><summary>{patients}, {len(cases)} cases</summary><p>{', '.join(cases)}</p></details>"
        parts.append(f"<dt>{title}</dt><dd>{listed if cases else f'{patients}, no cases'}</dd>")
    return _section("Data", parts[0], f"<dl>{''.join(parts[1:])}</dl>")


def _warnings(report: Report) -> str:
    warnings, skipped = report["warnings"], report["data"]["skipped"]
    if not warnings and not skipped:
        return ""
    lines = "".join(f"<li>{text(warning)}</li>" for warning in warnings)
    cases = "".join(f"<li><b>{text(entry['case'])}</b>: {text(entry['reason'])}</li>" for entry in skipped)
    return _section(
        "Warnings and skipped cases",
        f"<ul>{lines}</ul>" if lines else "",
        f"<h3>Skipped cases</h3><ul>{cases}</ul>" if cases else "",
        kind="warnings",
        anchor="warnings",
    )


def _run(report: Report) -> str:
    time = report["time"]
    asked = number(time["asked_s"])
    facts = [
        ("Time", f"{_duration(time['used_s'])}{f' of {_duration(asked)} asked for' if asked is not None else ''}"),
        ("Spent on", ", ".join(f"{entry['name']} {_duration(entry['seconds'])}" for entry in time["phases"])),
        ("Way from the base", _way(report.get("blend"))),
        ("Machine", report["machine"]),
        ("Device", f"{report['device']}, {report['threads']} threads"),
        ("Seed", report["seed"]),
    ]
    lines = "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in facts if value != "")
    settings = json.dumps(report["settings"], indent=2, ensure_ascii=False, default=str)
    exact = f"<details><summary>Exact settings</summary><pre>{text(settings)}</pre></details>"
    return _section("Run", f"<dl>{lines}</dl>", exact)


def _way(blend: Mapping[str, Any] | None) -> str:
    """How far the weights are from the base's, and what else was tried; see `blend`."""
    if blend is None:
        return ""
    tried = ", ".join(f"{float(share):.0%}: {dice:.3f}" for share, dice in sorted(blend["dice"].items(), key=_share))
    return f"{blend['share']:.0%} of what was learned. Mean Dice during training at {tried}"


def _share(entry: tuple[str, float]) -> float:
    return float(entry[0])


def _duration(seconds: float) -> str:
    """ "48 s", "14 min 5 s", "2 h 3 min"; tenths below ten seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (hours, "h"), (minutes, "min"), (0 if hours else rest, "s")
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _rollback(report: Report) -> str:
    name, base = text(report["name"]), report["base"]
    command = f"<p><code>apformer models rollback {name}</code></p>"
    if not report["adopted"]:
        advice = "There is nothing to roll back: this version is not in use. Were it adopted later, this would undo it:"
    elif base is not None and base["name"] == report["name"]:
        advice = f"Every version is kept. This puts {name} {text(base['version'])} in use again:"
    else:
        other = "" if base is None else f" {text(base['name'])} itself is unchanged."
        advice = f"Every version is kept. This puts the version of {name} before this one in use again, if any:{other}"
    return _section("Rolling back", f"<p>{advice}</p>", command)
