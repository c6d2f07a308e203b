"""What a training leaves for people: log.csv, curves.png and the model card."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..bundles import Bundle
from .config import TrainingConfig

Row = dict[str, Any]
# Not losses to be made small; the budget's term is negative where less is spent than allowed, so no log axis shows it.
GATE_CURVES = {
    "loss_cost": "share of the dense transformer's cost",
    "loss_kept": "share of tokens kept",
    "loss_budget": "budget term of the loss",
}


def flat(row: Row) -> Row:
    """A log row without nesting: {"dice": {"Liver": 0.9}} becomes {"dice Liver": 0.9}."""
    simple = {key: value for key, value in row.items() if key != "dice"}
    return {**simple, **{f"dice {name}": value for name, value in row.get("dice", {}).items()}}


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line per epoch; columns that an epoch lacks stay empty."""
    table = [flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in table for key in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(table)


def draw_curves(rows: Sequence[Row], title: str, path: Path) -> None:
    """Losses, what the gates cost if there are gates, and validation Dice, against epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    table = [flat(row) for row in rows]
    names = list(dict.fromkeys(key for row in table for key in row))
    losses = [name for name in names if name.startswith("loss_") and name not in GATE_CURVES]
    gates = {name: text for name, text in GATE_CURVES.items() if name in names}
    panels = [("training losses", {name: name.removeprefix("loss_") for name in losses}, "log")]
    if gates:
        panels.append(("gates in training", gates, "linear"))
    dice = {name: name.removeprefix("dice ") for name in names if name.startswith("dice ")}
    panels.append(("validation Dice (pooled, EMA weights)", dice, "linear"))
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.6))
    for axis, (heading, curves, scale) in zip(axes, panels, strict=True):
        for name, text in curves.items():
            points = [(row["epoch"], row[name]) for row in table if row.get(name) is not None]
            if points:  # a label that no validation case has is measured nowhere
                axis.plot(*zip(*points, strict=True), marker="." if name in dice else None, label=text)
        axis.set(xlabel="epoch", yscale=scale)
        axis.set_title(heading, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def hardware(device: torch.device) -> str:
    """The machine in words: enough to judge a training time by."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} CPU cores, torch {torch.__version__}"


def provenance(
    config: TrainingConfig, rows: Sequence[Row], patients: int, device: torch.device, base: Bundle | None = None
) -> dict[str, Any]:
    """How the weights came about, for metadata.json."""
    return {
        "seed": config.seed,
        "epochs": config.epochs,
        "stages": [f"{stage.epochs} epochs at {'x'.join(map(str, stage.size))}" for stage in config.stages],
        "minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "hardware": hardware(device),
        "precision": config.precision,
        "training_patients": patients,
        "split": f"validation where patient number % {config.split.modulus} == {config.split.remainder}",
        "configuration": config.file,
        "base": None
        if base is None
        else {
            "name": base.name,
            "version": base.version,
            "checksum": base.checksum,
            "configuration": base.metadata.get("training", {}).get("configuration", ""),
        },
    }


def pruning_section(metrics: dict[str, Any]) -> str:
    """Dice before and after, kept shares and times; empty for a model that was not pruned."""
    if "pruning" not in metrics:
        return ""
    pruning, kept = metrics["pruning"], metrics["pruning"]["kept_tokens"]
    rows = "\n".join(
        f"| {name} | {_both_dice(metrics['base'].get(name) or {})} | {_both_dice(entry)} |"
        for name, entry in metrics["labels"].items()
    )
    keep = pruning.get("final_keep")
    threshold = (
        f" Afterwards the query threshold was set to keep {keep:.0%} of the training images' tokens." if keep else ""
    )
    return f"""
## Pruning

Budget: {pruning["budget"]}.{threshold} On the same validation cases, mean / pooled Dice of
{pruning["base"]} (dense) and of this model:

| label | dense | pruned |
|---|---|---|
{rows}

Tokens kept per image: {kept["min"]:.0%} at least, {kept["q1"]:.0%}, {kept["median"]:.0%} and {kept["q3"]:.0%} at the
quartiles, {kept["max"]:.0%} at most, {pruning["kept_tokens_mean"]:.0%} on average. The transformer layers cost
{pruning["transformer_macs_share"]:.0%} of their dense multiply-accumulates (attention included). The whole network runs
{pruning["speedup_cpu"]:.2f} times as fast as the dense one with fused attention, image by image in turns on
{pruning["threads"]} CPU threads; measured by the training command below.
"""


def _both_dice(entry: Mapping[str, Any]) -> str:
    return " / ".join(shown(entry.get(key), 4) for key in ("mean_dice", "pooled_dice"))


def shown(value: float | None, digits: int = 3) -> str:
    """A figure; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def false_positives(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence about what was found in cases whose reference has none of it (see `summarise`); empty for nothing."""
    amounts = [
        f"{name} {entry['amount']:.3g} {entry['unit']} in {entry['cases']} case{'' if entry['cases'] == 1 else 's'}"
        for name, entry in found.items()
    ]
    return f"Found in cases whose reference has none of it: {', '.join(amounts)}." if amounts else ""


def _command(training: dict[str, Any]) -> str:
    """What repeats the training, in Markdown."""
    command = f"apformer train DATASET --config {training['configuration'] or 'CONFIG'} -o OUT"
    base = training["base"]
    if not base:
        return f"`{command}`"
    made = f", made by `{base['configuration']}`" if base["configuration"] else ""
    return f"`{command} --base BASE`, where BASE is {base['name']} {base['version']}{made}"


def model_card(config: TrainingConfig, training: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The model card in Markdown; free text (intended use, limits) comes from the configuration's [card]."""
    labels, losses = metrics["labels"], config.losses
    columns = list(next(iter(labels.values())))
    scores = "\n".join(
        f"| {name} | " + " | ".join(shown(entry[c]) for c in columns) + " |" for name, entry in labels.items()
    )
    extra = "\n\n".join(f"## {title.replace('_', ' ').capitalize()}\n\n{text}" for title, text in config.card.items())
    return f"""# {config.name} {config.version}

{config.description}

Research software, not a medical device.

## Figures

{metrics["cases"]} validation cases of {len(metrics["patients"])} patients or source volumes, none of them trained on
({training["split"]}). Mean: over cases; pooled: over all voxels of all cases. Weights are stored in fp16 and were
selected by Dice on these same cases, so expect slightly less on new data. A label that no validation case has is judged
by nobody ("-"). {false_positives(metrics.get("false_positives", {}))}

| label | {" | ".join(c.replace("_", " ") for c in columns)} |
|---|{"---|" * len(columns)}
{scores}
{pruning_section(metrics)}
![Validation cases from worst to best](overlay.png)

## Training

- Data: {config.data_licence}; {training["training_patients"]} patients or source volumes.
- Network: {config.network}, arguments in `configs/network.json`.
- Schedule: {"; ".join(training["stages"])}.
- Optimiser: AdamW, cosine, EMA {config.ema_decay}, {config.precision}, seed {config.seed}.
- Losses: {losses.segmentation} x (Dice + CE), {losses.ssa} x SSA, {losses.prune_head} x prune head (Dice + CE).
- Time: {training["minutes"]} minutes on {training["hardware"]}.
- Repeat with: {_command(training)}

![Training curves](curves.png)

{extra}
"""
