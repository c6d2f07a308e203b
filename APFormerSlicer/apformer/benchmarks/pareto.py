"""Accuracy against cost of one pruned model: its query threshold is moved so that it keeps ever fewer tokens."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..bundles import ModelLibrary
from ..networks.apformer import APFormer
from ..pruning import count_macs
from ..pruning.budget import dense_macs
from ..pruning.threshold import find_threshold, recorded_margins
from .machine import describe_machine
from .pruned_bundle import Overlap, held_out_images, pruned_network, run_image

SHARES = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.0)  # of the tokens, on average over the images
Say = Callable[[str], None]


def run(
    model: str,
    dataset: Path,
    device: str,
    *,
    most_images: int | None = None,
    shares: Sequence[float] = SHARES,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Dice, time and operations at each share of kept tokens, as shipped, and dense; one run, all points in turns.

    The threshold of a point is found from the prune head's outputs alone, without labels. All points share the same
    weights, which were trained for the shipped one, so the others are lower bounds of what their own training gives.

    Args:
        model: name or directory of a pruned bundle.
        dataset: a folder in Medical Segmentation Decathlon layout that holds its validation cases.
        most_images: evenly over the cases; None takes all.
        shares: of the tokens, ring included.

    Raises:
        BundleError: the model is missing, unsound, or does not prune.
        ConfigError: the data set cannot be used.
    """
    bundle = ModelLibrary().find(model)
    network = pruned_network(bundle, device)
    assert network.query_gate is not None
    shape = (1, bundle.channels, *bundle.preprocessing.patch_size)
    with held_out_images(bundle, dataset, most_images) as images:
        prepared, chosen = images.prepared, images.chosen
        with recorded_margins(network.query_gate) as margins:
            for index in chosen:
                run_image(network, bundle, prepared.item(index)[0], "pruned", device)
        tokens = margins[0].numel()
        points: list[dict[str, Any]] = [{"name": "dense", "threshold": None}]
        points.append({"name": "as shipped", "threshold": network.query_gate.threshold.item()})
        points += [
            {"name": f"keep {share:g}", "threshold": find_threshold(margins, share, network.query_gate.ring)}
            for share in shares
        ]
        overlaps = [Overlap(bundle) for _ in points]
        runs: list[list[Any]] = [[] for _ in points]
        for number, index in enumerate(chosen):
            image, label = prepared.item(index)
            for point, overlap, done in zip(points, overlaps, runs, strict=True):
                with _threshold(network, point["threshold"]):
                    one = run_image(network, bundle, image, "dense" if point["threshold"] is None else "pruned", device)
                overlap.add(one.predicted, label[0])
                done.append((one.kept, one.macs, one.seconds))
            say(f"image {number + 1} of {len(chosen)}")
    stored = bundle.build_network()  # a counter does not know the convolutions of a network made ready to run
    assert isinstance(stored, APFormer)
    stored.gating = "off"
    rest = count_macs(stored, shape).total - dense_macs(stored.costs, tokens)
    for point, overlap, done in zip(points, overlaps, runs, strict=True):
        kept, macs, seconds = zip(*done, strict=True)
        point |= {"kept": statistics.fmean(kept), "gmac": (rest + statistics.fmean(macs)) / 1e9}
        point |= {"seconds": statistics.median(seconds), "dice": overlap.dice()}
        point["ratio"] = statistics.median(a / b[2] for a, b in zip(seconds, runs[0], strict=True))
    return {
        "model": {"name": bundle.name, "version": bundle.version},
        "machine": describe_machine(),
        "device": device,
        "held_out": images.held_out,
        "images": len(chosen),
        "points": points,
    }


@contextmanager
def _threshold(network: APFormer, value: float | None) -> Iterator[None]:
    gate = network.query_gate
    assert gate is not None
    before = gate.threshold.detach().clone()
    try:
        if value is not None:
            gate.threshold.data.fill_(value)
        yield
    finally:
        gate.threshold.data.copy_(before)


def draw(report: dict[str, Any], path: Path) -> None:
    """Dice against milliseconds and GMAC, one line per label; the shipped point as a star, dense as a square."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = report["points"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axis, (key, factor, name) in zip(
        axes,
        (("seconds", 1e3, "median ms per image"), ("gmac", 1.0, "mean GMAC per image, attention included")),
        strict=True,
    ):
        for label in points[0]["dice"]:
            curve = sorted(points[2:], key=lambda point: point["kept"])
            x = [point[key] * factor for point in curve]
            (line,) = axis.plot(x, [point["dice"][label] for point in curve], ".-", label=label)
            for point, marker in ((points[0], "s"), (points[1], "*")):
                axis.plot(
                    point[key] * factor,
                    point["dice"][label],
                    marker,
                    color=line.get_color(),
                    markersize=11,
                    label=f"{label}, {point['name']}",
                )
            if axis is axes[0]:
                for value, point in zip(x, curve, strict=True):
                    axis.annotate(f"{point['kept']:.0%}", (value, point["dice"][label]), fontsize=7, va="top")
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Dice, pooled")
    axes[1].legend(fontsize=7, loc="lower right")
    figure.suptitle(
        f"{report['model']['name']} {report['model']['version']}: tokens kept, {report['images']} validation images, "
        f"{report['device']}",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def render(report: dict[str, Any]) -> str:
    """The points as a table in plain text."""
    lines = [f"{report['model']['name']} {report['model']['version']}, {report['images']} images, {report['device']}"]
    if not report["held_out"]:
        lines.append("The model names no validation cases: these are all cases, NOT held out.")
    lines.append(f"{'':12}{'kept':>8}{'GMAC':>9}{'ms':>9}{'x dense':>9}  Dice")
    for point in report["points"]:
        dice = ", ".join(f"{name} {value:.4f}" for name, value in point["dice"].items())
        lines.append(
            f"{point['name']:12}{point['kept']:8.1%}{point['gmac']:9.3f}{1e3 * point['seconds']:9.1f}"
            f"{point['ratio']:9.2f}  {dice}"
        )
    return "\n".join(lines)
