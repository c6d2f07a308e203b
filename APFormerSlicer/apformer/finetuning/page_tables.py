"""The tables of the fine-tuning report: before and after, cost, cases. Every dash says in a note why it is one."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Report = Mapping[str, Any]
Entry = Mapping[str, Any] | None


@dataclass(frozen=True)
class Measure:
    """A figure of a label: its key in the report (distances without their unit), its name, and which way is better."""

    key: str
    title: str
    decimals: int
    higher_is_better: bool
    is_distance: bool = False


@dataclass
class Notes:
    """The reasons for a table's dashes, numbered in order of appearance."""

    reasons: list[str] = field(default_factory=list)

    def dash(self, reason: str) -> str:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f'<span class="missing">\N{EN DASH}</span><sup>{self.reasons.index(reason) + 1}</sup>'

    def __str__(self) -> str:
        lines = "".join(f"<li><sup>{number}</sup> {text(reason)}</li>" for number, reason in enumerate(self.reasons, 1))
        return f'<ul class="notes">{lines}</ul>' if lines else ""


class Reasons(NamedTuple):
    """Why a figure is missing: the model before or after does not have the label, or the figure is not defined."""

    before: str
    after: str
    undefined: str


_DISTANCES = (Measure("hd95", "HD95", 2, False, True), Measure("assd", "ASSD", 2, False, True))
OVERALL = (Measure("mean_dice", "Dice", 3, True), Measure("pooled_dice", "Dice, pooled", 3, True), *_DISTANCES)
DICE = Measure("dice", "Dice", 3, True)
PER_CASE = (DICE, *_DISTANCES)
NO_BASE_LABEL = "The base model does not have this label."
NO_NEW_LABEL = "The new model does not have this label."
NO_BASE_CASE = "The base model was not measured on this case."
NO_CASE_LABEL = "No case of the site labels this structure, so it could not be measured."
UNDEFINED = "Not defined: the structure is missing from the reference or from the result."
UNDEFINED_ALL = "Not defined: in every case the structure is missing from the reference or from the result."
NOT_JUDGED = "No validation case has this structure, so nothing judges it."
NOT_MEASURED = "Not measured."
NOT_PRUNED = "This model does not prune: it keeps every token."


def text(value: Any) -> str:
    """Any value as HTML text, safe between tags and inside quotes."""
    return html.escape(str(value), quote=True)


def number(value: Any) -> float | None:
    """A finite number, else None: JSON written by Python may hold NaN for what is not defined."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def signed(difference: float, decimals: int) -> str:
    """With a sign and a true minus; zero without a sign."""
    shown = f"{difference:+.{decimals}f}"
    return shown.replace("-", "\N{MINUS SIGN}") if any(digit in shown for digit in "123456789") else shown[1:]


def figure_of(entry: Entry, measure: Measure) -> float | None:
    """What the report has for a measure; a distance is under hd95_mm or hd95_px."""
    names = (f"{measure.key}_mm", f"{measure.key}_px") if measure.is_distance else (measure.key,)
    return next((found for name in names if (found := number((entry or {}).get(name))) is not None), None)


def unit_of(report: Report) -> str:
    """Of distances: "px" for pictures, which have no spacing, else "mm"."""
    entries = report["after"]["labels"].values()
    return "px" if any(key.endswith("_px") for entry in entries for key in entry) else "mm"


def worst_first(cases: Mapping[str, Mapping[str, Entry]]) -> list[str]:
    """The names of the cases by mean Dice over their labels, lowest first; those without any Dice at the end."""

    def mean_dice(case: str) -> float:
        known = [value for entry in cases[case].values() if (value := figure_of(entry, DICE)) is not None]
        return sum(known) / len(known) if known else math.inf

    return sorted(cases, key=mean_dice)


def label_table(report: Report, chips: Mapping[str, str]) -> str:
    """One row per label: each measure before, after, and how it changed.

    Args:
        chips: label name -> HTML of its colour.
    """
    notes, before, after = Notes(), report["before"], report["after"]
    known = {str(entry["name"]): entry for entry in report["labels"]}
    rows = []
    for name in dict.fromkeys([*known, *after["labels"], *(before["labels"] if before else ())]):
        trained = name not in known or known[name]["trained"]
        old, new = before["labels"].get(name) if before else None, after["labels"].get(name)
        absent = (NO_CASE_LABEL,) * 2 if not trained else _absences(after, name, NO_BASE_LABEL)
        cells = _cells(OVERALL, old, new, before is not None, notes, Reasons(*absent, UNDEFINED_ALL))
        origin = f'<span class="how">{text(known[name]["how"])}</span>' if name in known else ""
        rows.append(f'<tr><th scope="row" class="name">{chips[name]}{text(name)}{origin}</th>{cells}</tr>')
    head = _head(("Label",), OVERALL, unit_of(report), before is not None)
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>{notes}'


def _absences(after: Mapping[str, Any], name: str, before: str) -> tuple[str, str]:
    """Why a label that the site labels has no Dice, before and after: `before` is why the old model may lack it."""
    if name in after["labels"] and figure_of(after["labels"][name], OVERALL[0]) is None:
        return NOT_JUDGED, NOT_JUDGED
    return before, NO_NEW_LABEL


def case_table(report: Report, chips: Mapping[str, str]) -> str:
    """One group of rows per case, worst first; one row per label."""
    notes, before, after = Notes(), report["before"], report["after"]
    groups = []
    for case in worst_first(after["cases"]):
        new = after["cases"][case]
        old = before["cases"].get(case) if before else None
        rows = []
        for name in dict.fromkeys([*new, *(old or {})]):
            absent = _absences(after, name, NO_BASE_CASE if old is None else NO_BASE_LABEL)
            why = Reasons(*absent, UNDEFINED)
            cells = _cells(PER_CASE, (old or {}).get(name), new.get(name), before is not None, notes, why)
            rows.append(f'<th scope="row" class="name">{chips[name]}{text(name)}</th>{cells}</tr>')
        if rows:
            header = f'<th scope="rowgroup" class="name" rowspan="{len(rows)}">{text(case)}</th>'
            groups.append(f'<tbody class="group"><tr>{header}{"<tr>".join(rows)}</tbody>')
    head = _head(("Case", "Label"), PER_CASE, unit_of(report), before is not None)
    return f'<div class="scroll"><table>{head}{"".join(groups)}</table></div>{notes}'


def cost_table(report: Report) -> str:
    """Time, operations, kept tokens and parameters, before and after."""
    notes, before, after = Notes(), report["before"], report["after"]
    rows = "".join(
        f'<tr><th scope="row" class="name">{title}</th>{_cost_cells(key, show, before, after, reason, notes)}</tr>'
        for key, title, show, reason in (
            ("ms_per_case", "Time per case", lambda value: f"{_three(value)} ms", NOT_MEASURED),
            ("gmac", "Operations per case", lambda value: f"{_three(value)} GMAC", NOT_MEASURED),
            ("gmac_dense", "Operations if nothing were pruned", lambda value: f"{_three(value)} GMAC", NOT_MEASURED),
            ("kept_tokens_mean", "Tokens kept, mean over the cases", lambda value: f"{value:.0%}", NOT_PRUNED),
            ("foreground_inside", "Structures inside what is kept", _inside, NOT_PRUNED),
            ("parameters", "Parameters", lambda value: f"{value:,.0f}", NOT_MEASURED),
        )
    )
    columns = ("Before", "After", "Change") if before is not None else ("New model",)
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    head = f'<thead><tr><th class="name" scope="col">Cost</th>{heads}</tr></thead>'
    return f'<div class="scroll"><table class="plain">{head}<tbody>{rows}</tbody></table></div>{notes}'


def _inside(share: float) -> str:
    """Rounded down: 100 % means all of it."""
    return f"{math.floor(1e3 * share) / 10:.1f}%"


def _cost_cells(key: str, show: Callable[[float], str], before: Entry, after: Entry, reason: str, notes: Notes) -> str:
    new = number((after or {}).get(key))
    shown = f'<td class="after">{notes.dash(reason) if new is None else show(new)}</td>'
    if before is None:
        return shown
    old = number(before.get(key))
    change = "" if old is None or new is None or old <= 0 else f"{signed(100 * (new / old - 1), 0)}%"
    return f'<td class="before">{notes.dash(reason) if old is None else show(old)}</td>{shown}<td>{change}</td>'


def _head(names: Sequence[str], measures: Sequence[Measure], unit: str, compare: bool) -> str:
    """Two header rows when there is something to compare, else one."""
    titles = [
        f'{measure.title}<span class="unit">{f" {unit}" if measure.is_distance else ""}</span>' for measure in measures
    ]
    span = ' rowspan="2"' if compare else ""
    first = "".join(f'<th class="name" scope="col"{span}>{name}</th>' for name in names)
    if not compare:
        columns = "".join(f'<th class="first" scope="col">{title}</th>' for title in titles)
        return f"<thead><tr>{first}{columns}</tr></thead>"
    groups = "".join(f'<th class="first" scope="colgroup" colspan="3">{title}</th>' for title in titles)
    columns = '<th class="first" scope="col">before</th><th scope="col">after</th><th scope="col">change</th>'
    return f"<thead><tr>{first}{groups}</tr><tr>{columns * len(measures)}</tr></thead>"


def _cells(measures: Sequence[Measure], old: Entry, new: Entry, compare: bool, notes: Notes, why: Reasons) -> str:
    """The cells of one label: before, after and change of each measure, or only after."""
    cells = []
    for measure in measures:
        was, now = figure_of(old, measure), figure_of(new, measure)
        after = _show(measure, now, new, notes, why.after, why.undefined)
        if compare:
            before = _show(measure, was, old, notes, why.before, why.undefined)
            change = _change(measure, was, now)
            cells.append(f'<td class="first before">{before}</td><td class="after">{after}</td>{change}')
        else:
            cells.append(f'<td class="first after">{after}</td>')
    return "".join(cells)


def _show(measure: Measure, value: float | None, entry: Entry, notes: Notes, absent: str, undefined: str) -> str:
    if value is not None:
        return f"{value:.{measure.decimals}f}"
    # of a label that a model knows and a case has, Dice always exists
    known = any(figure_of(entry, dice) is not None for dice in (DICE, OVERALL[0]))
    return notes.dash(undefined if known else absent)


def _change(measure: Measure, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "<td></td>"
    difference = round(after - before, measure.decimals)
    verdict = "" if difference == 0 else "better" if (difference > 0) == measure.higher_is_better else "worse"
    return f'<td class="{verdict}">{signed(difference, measure.decimals)}</td>'


def _three(value: float) -> str:
    """Three significant digits without an exponent: 0.0123, 1.23, 12.3, 1,234."""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
