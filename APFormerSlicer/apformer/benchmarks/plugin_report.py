"""The record of `apformer benchmark plugin` as text for a terminal."""

from __future__ import annotations

import io
from typing import Any

from .report import WIDTH, machine_line

FOOTNOTES = (
    "Dice on the validation images: pooled over all of them, and the mean over them. Times: median over images, each "
    "through all networks in turn; the range is that of the middle half. GMAC are per image and include q.k and A.v.",
    "Gates taken out: the pruned network's own weights, dense, which they were not trained for. Everything pruned: "
    "what the fastest gates could reach; its masks mean nothing.",
)


def render(record: dict[str, Any]) -> str:
    """A record of `benchmarks.plugin.run` as plain text."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(machine_line(record["machine"]))
    if record["machine"]["busy"]:
        load = record["machine"]["load"]
        console.print(f"NOTE: other programs were running (load {load} after training); trust ratios only.")
    console.print(_network(record["network"]), _training(record), sep="\n")
    console.print(_networks(record))
    console.print(*FOOTNOTES, sep="\n")
    console.print(_kept(record), _restored(record["restored"]), sep="\n")
    return stream.getvalue()


def _network(network: dict[str, Any]) -> str:
    widths = ", ".join(f"{name} {value}" for name, value in network["settings"].items())
    size = " x ".join(map(str, network["size"]))
    return (
        f"{network['name']} ({widths}), {network['parameters']:,} parameters; {size} in {network['tokens']} tokens, "
        f"{network['blocks']} transformer blocks; safety ring {network['safety_ring']}."
    )


def _training(record: dict[str, Any]) -> str:
    data, training = record["data"], record["training"]
    sets = ", ".join(
        f"{data[part]['images']} {part} images of {data[part]['patients']} patients or source volumes"
        for part in ("training", "validation")
    )
    first, plain, pruned = (
        f"{'' if training['epochs'] is None else str(training['epochs'][name]) + ' epochs, '}{minutes:.1f} min"
        for name, minutes in ((name, training["minutes"][name]) for name in ("first", "plain", "pruned"))
    )
    return (
        f"{data['folder']}: {sets}. Trained ({first}), from there on plain ({plain}) and with gates to a budget of "
        f"{record['budget']} ({pruned}); seed {training['seed']}, {training['precision']}, measured in float32."
    )


def _networks(record: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"{record['data']['validation']['images']} validation images, one by one", title_justify="left")
    table.add_column("network", no_wrap=True)
    labels = list(record["rows"][0]["dice"])
    dice = [f"Dice{'' if len(labels) == 1 else f', {label}'} {kind}" for label in labels for kind in ("pooled", "mean")]
    for heading in (*dice, "ms", "ratio to plain (range)", "GMAC"):
        table.add_column(heading, justify="right")
    for row in record["rows"]:
        low, high = row["ratio_range"]
        scores = [
            "-" if row["dice"] is None else f"{row['dice'][label][kind]:.4f}"
            for label in labels
            for kind in ("pooled", "mean")
        ]
        table.add_row(
            row["network"],
            *scores,
            f"{row['seconds'] * 1000:.1f}",
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{row['gmac']:.2f}",
        )
    return table


def _kept(record: dict[str, Any]) -> str:
    shares = ", ".join(f"{name} {value:.0%}" for name, value in record["kept_tokens"].items())
    return (
        f"Kept tokens per image: {shares}; {record['kept_tokens_mean']:.1%} on average. The gated blocks spend "
        f"{record['transformer_macs_share']:.1%} of their dense multiply-accumulates."
    )


def _restored(restored: dict[str, Any]) -> str:
    names = "the plain network's" if restored["same_parameters"] else "NOT the plain network's"
    return (
        f"Gates taken out: parameters are {names}. With its own weights the network gives what it gave with gates off, "
        f"to the bit, on {restored['as_gates_off']} of {restored['images']} images; with the plain network's weights, "
        f"what that gives, on {restored['as_plain']} of {restored['images']}."
    )
