"""A benchmark's record as text for a terminal."""

from __future__ import annotations

import io
from typing import Any

WIDTH = 130


def render(record: dict[str, Any]) -> str:
    """A record of `apformer benchmark segment` as plain tables."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(machine_line(record["machine"]))
    for remark in _remarks(record):
        console.print(f"NOTE: {remark}")
    console.print(_volumes(record), _cold_start(record["cold_start"]), sep="\n")
    for comparison in record["networks"]:
        console.print(_networks(comparison, record["baseline"]))
    for row in record["networks"][0]["rows"]:
        console.print(f"{row['network']}: {row['settings']}.")
    return stream.getvalue()


def machine_line(machine: dict[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ", no CUDA device"
    cores = f"{machine['cores']} cores ({machine['logical_cores']} logical), {machine['threads']} threads"
    versions = f"torch {machine['torch']}, Python {machine['python']}, {machine['system']}"
    return f"{machine['cpu']}, {cores}, {machine['memory_gib']} GiB{gpu}; {versions}"


def _remarks(record: dict[str, Any]) -> list[str]:
    remarks = []
    if record["quick"]:
        remarks.append("a quick run on tiny inputs; it shows that everything works, its numbers mean nothing.")
    if record["model"]["untrained"]:
        remarks.append("an untrained network of the shape of liver-ct was used; its masks mean nothing.")
    if record["machine"]["busy"]:
        load = record["machine"]["load"]
        remarks.append(f"other programs were running (load {load} at the start), so the times are too long.")
    return remarks


def _volumes(record: dict[str, Any]) -> Any:
    from rich.table import Table

    model = f"{record['model']['name']} {record['model']['version']}"
    table = Table(title=f"From file to mask with {model}, each in a fresh process", title_justify="left")
    steps = ("import", "load", "read", "write", "segment")
    table.add_column("CT (i x j x k)")
    table.add_column("ran on")
    for heading in ("all s", *(f"{step} s" for step in steps), "aim s", "peak GiB", "aim GiB"):
        table.add_column(heading, justify="right")
    for case in record["volumes"]:
        aim = f"{case['aim_seconds']:.0f}" if case["aim_seconds"] else "-"
        table.add_row(
            " x ".join(str(n) for n in case["size"]),
            case["device"],
            f"{case['seconds']:.1f}",
            *(f"{case['steps'][step]:.1f}" for step in steps),
            aim,
            f"{case['peak_gib']:.2f}",
            f"{case['aim_peak_gib']:.0f}",
        )
    return table


def _cold_start(start: dict[str, Any]) -> str:
    rows, columns = start["picture"]
    return (
        f"Cold start, a {rows} x {columns} picture from a new process to a mask on disk: {start['seconds']:.1f} s "
        f"(median of {start['starts']}, {start['device']}).\n"
        f"import apformer.inference: {start['import_seconds']:.2f} s (aim {start['aim_import_seconds']:.0f} s), "
        f"{start['import_ratio']:.2f} times that of import torch ({start['import_torch_seconds']:.2f} s)."
    )


def _networks(comparison: dict[str, Any], baseline: str) -> Any:
    from rich.table import Table

    size, rounds = comparison["size"], comparison["rounds"]
    where = f"{comparison['device']}, {comparison['precision']}, interleaved rounds: {rounds}"
    table = Table(title=f"Forward pass, 1 x 1 x {size} x {size}, {where}", title_justify="left")
    for heading in ("network", "parameters", "GMAC", "GMAC without q.k and A.v", "ms", f"ratio to {baseline} (range)"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in comparison["rows"]:
        low, high = row["ratio_range"]
        table.add_row(
            row["network"],
            f"{row['parameters']:,}",
            f"{row['gmac']:.2f}",
            f"{row['gmac_without_attention']:.2f}",
            f"{row['seconds'] * 1000:.1f}",
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
    return table
