"""The model card of a fine-tuned version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..training.config import TrainingConfig
from ..training.report import false_positives, shown


def write_card(report: Mapping[str, Any], training: Mapping[str, Any], config: TrainingConfig) -> str:
    """Markdown: what it is, what it was made from, how good it is and was."""
    base = report["base"]
    begun = "from scratch"
    if base is not None:
        other = base["other_structures"]
        named = f"{base['name']} {base['version']}"
        begun = f"with the weights of {named}, of other structures" if other else f"from {named}"
    data, before, after = report["data"], report["before"], report["after"]
    columns = list(next(iter(after["labels"].values())))
    heading = " | ".join(column.replace("_", " ") for column in columns)
    rows = []
    for name, entry in after["labels"].items():
        old = None if before is None else before["labels"].get(name)
        cells = [_change(None if old is None else old.get(column), entry[column]) for column in columns]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    found = false_positives(after.get("false_positives", {}))
    kept = [label["name"] for label in report["labels"] if not label["trained"]]
    untouched = f"\nKept from the base, without a case here that could judge it: {', '.join(kept)}.\n" if kept else ""
    lines = "\n".join(rows)
    return f"""# {config.name} {report["version"]}

{config.description}

Research software, not a medical device.

## Figures

{len(data["measured_cases"])} validation cases of the site's {data["validation_patients"]} validation patients
({training["split"]}). Before -> after, where the base knows the label; a label that no validation case has is judged by
nobody ("-"). {found}

| label | {heading} |
|---|{"---|" * len(columns)}
{lines}
{untouched}
Operations: {after["gmac"]:.2f} GMAC for one patch on average, {after["gmac_dense"]:.2f} without pruning;
{after["parameters"]:,} parameters.

## Training

- Begun {begun}; {data["training_patients"]} patients of the site.
- Time: {training["minutes"]} minutes on {training["hardware"]}.
- {training["steps"]} steps, {config.precision}, seed {config.seed}; all settings are in the site's report.
- Data: {config.data_licence}

## Intended use

Research at the site whose cases it was trained on. Its figures hold for that site's images; on others, evaluate first.
"""


def _change(old: float | None, new: float | None) -> str:
    """ "0.912 -> 0.934", or what there is of it."""
    return shown(new) if old is None else f"{old:.3f} -> {shown(new)}"
