"""What a fine-tuning says at its end: figures before and after, the verdict, where the report is, the way back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .durations import in_words
from .finetune_view import figure

if TYPE_CHECKING:
    from ..finetuning import Outcome

_COSTS = (
    ("ms per case", "ms_per_case", 0),
    ("GMAC", "gmac", 2),
    ("kept", "kept_tokens_mean", 2),
    ("structures inside", "foreground_inside", 3),
)
_DISTANCES = ("hd95_mm", "hd95_px")  # millimetres of volumes, pixels of pictures


def as_text(outcome: Outcome) -> str:
    summary = outcome.summary
    return "\n".join(
        [
            _data_line(summary["data"]),
            *_table(_models(summary)),
            f"{in_words(summary['time']['used_s'])} on {summary['device']}",
            "",
            outcome.verdict,
            *_way_on(outcome),
            f"report: {outcome.page}",
        ]
    )


def warnings_after(summary: Mapping[str, Any], said: set[str]) -> Iterator[str]:
    """What the user must know and was not told before the training."""
    yield from (warning for warning in summary["warnings"] if warning not in said)
    for skipped in summary["data"]["skipped"]:
        yield f"{skipped['case']} was left out: {skipped['reason']}"


def _models(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Figures of the base, of the version that was active where that is another, and of the new one."""
    return [summary[which] for which in ("before", "rival", "after") if summary.get(which) is not None]


def _data_line(data: Mapping[str, Any]) -> str:
    judged = f"{_many(data['measured_cases'], 'case')} of {_count(data['validation_patients'], 'patient')}"
    if data["folds"] > 1:
        return f"{data['folds']}-fold cross-validation: judged on {judged}, each by a training that did not see it"
    learned = f"{_many(data['training_cases'], 'case')} of {_count(data['training_patients'], 'patient')}"
    return f"trained on {learned}, judged on {judged} kept apart"


def _table(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line per label, with the figures of each model side by side."""
    from ..training.report import false_positives

    names = list(dict.fromkeys(name for model in models for name in model["labels"]))
    shown = [("mean Dice", "mean_dice", 3)]
    shown += [
        (f"HD95 ({key.removeprefix('hd95_')})", key, 2)
        for key in _DISTANCES
        if any(key in entry for model in models for entry in model["labels"].values())
    ]
    for title, key, digits in shown:
        rows = [[title, *(model["model"] for model in models)]]
        for name in names:
            values = [(model["labels"].get(name) or {}).get(key) for model in models]
            rows.append([name, *(figure(value, digits) for value in values)])
        yield ""
        yield from _aligned(rows)
    for model in models:
        wrong = false_positives(model.get("false_positives", {}))
        if wrong:
            yield f"{model['model']}: {wrong}"
    costs = [["cost", *(model["model"] for model in models)]]
    for title, key, digits in _COSTS:
        values = [model.get(key) for model in models]
        if any(value is not None for value in values):
            costs.append([title, *(figure(value, digits) for value in values)])
    yield ""
    yield from _aligned(costs)
    yield ""


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])


def _way_on(outcome: Outcome) -> Iterator[str]:
    name, version = outcome.bundle.name, outcome.bundle.version
    base = outcome.summary["base"]
    if not outcome.adopted:
        yield f"{name} {version} is kept; to use it all the same: apformer models activate {name} {version}"
    elif outcome.summary.get("rival") is not None or (base is not None and base["name"] == name):
        yield f"{name} {version} is active now; to go back: apformer models rollback {name}"
    else:
        yield f"{name} {version} is active now, the first of its name; to go without it: apformer models remove {name}"


def _many(things: Sequence[object], what: str) -> str:
    return _count(len(things), what)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
