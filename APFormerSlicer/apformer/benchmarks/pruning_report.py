"""The record of `apformer benchmark pruning` as text for a terminal."""

from __future__ import annotations

import io
from typing import Any

from .report import WIDTH, machine_line

FOOTNOTES = (
    "Kept sets are prepared, not learned: the stated share of tokens in a compact blob, ring included, the same in "
    "every image; where keys are cut too, the same share of keys is alive after the first layer. Random weights.",
    "Keep 1.0 has nothing to prune and takes the dense path. The masked form costs the same whatever is kept.",
    "GMAC are per image. Peak MiB is what the first pass adds to a fresh process, positional tables included (CUDA: "
    "what a later pass adds to the card). Convolutions: the share of the pass that is left without transformer layers.",
)


def render(record: dict[str, Any]) -> str:
    """A record of `benchmarks.pruning.run` as plain tables."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False)
    machine = record["machine"]
    console.print(machine_line(machine))
    if record["quick"]:
        console.print("NOTE: a quick run on tiny inputs; it shows that everything works, its numbers mean nothing.")
    if machine["busy"]:
        console.print(f"NOTE: other programs were running (load {machine['load']} at the start); trust ratios only.")
    for compared in record["tables"]:
        console.print(_variants(compared))
    if record["tables"]:
        console.print(*FOOTNOTES, sep="\n")
    for measured in record["bundles"]:
        console.print(_bundle(measured))
    return stream.getvalue()


def _variants(compared: dict[str, Any]) -> Any:
    from rich.table import Table

    shape = " x ".join(map(str, compared["shape"]))
    where = f"{compared['device']}, {compared['precision']}, interleaved rounds: {compared['rounds']}"
    title = f"{compared['setting']}, {shape}, {compared['tokens']} tokens, {where}"
    table = Table(title=title, title_justify="left")
    table.add_column("forward pass", no_wrap=True)
    ratio = f"ratio to {compared['baseline']} (range)"
    for heading in ("ms", ratio, "GMAC", "GMAC without q.k and A.v", "peak MiB", "convolutions"):
        table.add_column(heading, justify="right")
    for row in compared["rows"]:
        low, high = row["ratio_range"]
        table.add_row(
            row["variant"],
            f"{row['seconds'] * 1000:.1f}",
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{row['gmac']:.2f}",
            f"{row['gmac_without_attention']:.2f}",
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / (1 << 20):.0f}",
            f"{row['convolutions']:.0%}",
        )
    return table


def _bundle(measured: dict[str, Any]) -> str:
    model, seconds, dice = measured["model"], measured["seconds"], measured["dice"]
    held_out = "validation cases" if measured["held_out"] else "cases, NOT held out: the model names no patients"
    lines = [
        f"{model['name']} {model['version']} on {measured['cases']} {held_out}, {measured['images']} images one by "
        f"one, {measured['device']}, {measured['precision']}; dense is the same weights with the gates off.",
        f"Kept tokens per image: {_five(measured['kept_tokens'])}.",
        f"Transformer MACs, share of dense: {_five(measured['transformer_macs'])}.",
        f"Forward pass: dense {seconds['dense'] * 1000:.1f} ms, pruned {seconds['pruned'] * 1000:.1f} ms (medians); "
        f"ratio {measured['ratio']:.2f} (median over images).",
    ]
    lines += [
        f"Dice, pooled, {label}: dense {whole:.4f}, pruned {dice['pruned'][label]:.4f} "
        f"({dice['pruned'][label] - whole:+.4f})."
        for label, whole in dice["dense"].items()
    ]
    return "\n".join(lines)


def _five(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1%}" for name, value in numbers.items())
