"""`apformer benchmark`: what segmenting costs on this machine, and what pruning saves."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from ..errors import UsageError
from . import options as option
from .console import Console

STUDIES = (
    *("site-shift", "new-structure", "scratch", "atrium", "abdomen", "head-neck"),
    *("learning-curve", "forgetting", "partial-labels", "other-organs"),
)


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("benchmark", help="seconds and memory on this machine")
    kinds = parser.add_subparsers(title="benchmarks", metavar="WHAT", required=True)
    _add_segment(kinds, shared)
    _add_pruning(kinds, shared)
    _add_pareto(kinds, shared)
    _add_plugin(kinds, shared)
    _add_finetune(kinds, shared)
    _add_systems(kinds, shared)
    _add_sparse_unetr(kinds, shared)
    _add_training(kinds, shared)
    _add_boxed(kinds, shared)
    _add_follow(kinds, shared)


def _add_segment(kinds: Any, shared: argparse.ArgumentParser) -> None:
    segment = kinds.add_parser("segment", parents=[shared], help="segment a large CT, beside MONAI's networks")
    segment.add_argument("--model", default="liver-ct", metavar=option.MODEL, help="default: liver-ct")
    option.add_device(segment)
    segment.add_argument("--quick", action="store_true", help="tiny inputs: shows that it runs, not what it costs")
    segment.add_argument("--long", action="store_true", help="also a CT of 600 slices")
    segment.add_argument("--untrained", action="store_true", help="an untrained network of the shape of liver-ct")
    segment.add_argument("--rounds", type=option.positive, metavar="N", help="rounds of the comparison")
    segment.set_defaults(run=run)


def _add_pruning(kinds: Any, shared: argparse.ArgumentParser) -> None:
    pruning = kinds.add_parser("pruning", parents=[shared], help="one network masked, dense, and pruned")
    option.add_device(pruning)
    pruning.add_argument("--quick", action="store_true", help="tiny inputs: shows that it runs, not what it costs")
    pruning.add_argument("--rounds", type=option.positive, metavar="N", help="rounds of the comparison")
    pruning.add_argument("--bundle", metavar=option.MODEL, help="instead: what this pruned model keeps, with --data")
    pruning.add_argument("--data", type=option.path, metavar="DATASET", help="its data set, in Decathlon layout")
    pruning.set_defaults(run=run_pruning)


def _add_pareto(kinds: Any, shared: argparse.ArgumentParser) -> None:
    pareto = kinds.add_parser("pareto", parents=[shared], help="a pruned model's accuracy against its cost, as a plot")
    pareto.add_argument("--bundle", required=True, metavar=option.MODEL, help="a pruned model")
    pareto.add_argument("--data", required=True, type=option.path, metavar="DATASET", help="its data set")
    pareto.add_argument("--plot", type=option.path, metavar="PNG", help="draw it here")
    pareto.add_argument("--images", type=option.positive, metavar="N", help="at most so many validation images")
    option.add_device(pareto)
    pareto.set_defaults(run=run_pareto)


def _add_plugin(kinds: Any, shared: argparse.ArgumentParser) -> None:
    plugin = kinds.add_parser("plugin", parents=[shared], help="MONAI's UNETR trained, pruned by the plug-in, restored")
    plugin.add_argument("dataset", type=option.path, metavar="DATASET", help="folder with images and label maps")
    plugin.add_argument(
        "--config",
        required=True,
        type=option.path,
        metavar="FILE",
        help="TOML file, see Configs/; its network and schedule are not used",
    )
    plugin.add_argument("--keep", type=_share, default=0.3, metavar="SHARE", help="of the tokens; default: 0.3")
    plugin.add_argument("--minutes", type=_minutes, metavar="M", help="of training, instead of the usual epochs")
    plugin.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with")
    plugin.add_argument("-o", "--output", type=option.path, metavar="DIR", help="keep the record and the weights here")
    plugin.set_defaults(run=run_plugin)


def _add_finetune(kinds: Any, shared: argparse.ArgumentParser) -> None:
    finetune = kinds.add_parser("finetune", parents=[shared], help="what fine-tuning brings, on patients kept apart")
    finetune.add_argument("dataset", type=option.path, metavar="DATASET", help="the study's data set, Decathlon layout")
    finetune.add_argument("--study", required=True, choices=STUDIES, help="see docs/fine-tuning.md")
    finetune.add_argument(
        "-o", "--output", required=True, type=option.path, metavar="FILE", help="results, as JSON; continued when there"
    )
    finetune.add_argument("--minutes", type=_minutes, metavar="M", help="per training, instead of the study's own")
    finetune.add_argument(
        "--old",
        type=option.path,
        metavar="DATASET",
        help="the base's own data: what was forgotten; for other-organs, what the base is trained on first",
    )
    finetune.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with")
    finetune.set_defaults(run=run_finetune)


def _add_systems(kinds: Any, shared: argparse.ArgumentParser) -> None:
    systems = kinds.add_parser("systems", parents=[shared], help="all networks trained and measured alike")
    systems.add_argument("datasets", nargs="+", type=option.path, metavar="DATASET", help="see docs/networks.md")
    systems.add_argument(
        "-o", "--output", required=True, type=option.path, metavar="FILE", help="results, as JSON; continued when there"
    )
    systems.add_argument(
        "--minutes",
        type=_minutes,
        default=20.0,
        metavar="M",
        help="of training, each, in processor time per thread; default: 20",
    )
    systems.add_argument("--seeds", type=option.positive, default=1, metavar="N", help="trainings of each; default: 1")
    systems.add_argument("--systems", metavar="A,B", help="only these; leanformer[depth=1;width=128] tries others")
    systems.add_argument("--size", type=option.positive, default=128, metavar="N", help="of the images; default: 128")
    systems.add_argument("--plot", type=option.path, metavar="PNG", help="draw accuracy against cost here")
    systems.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with")
    systems.set_defaults(run=run_systems)


def _add_sparse_unetr(kinds: Any, shared: argparse.ArgumentParser) -> None:
    sparse = kinds.add_parser("sparse-unetr", parents=[shared], help="the token-sparse UNETR against its dense form")
    option.add_device(sparse)
    sparse.add_argument("--quick", action="store_true", help="a tiny network: shows that it runs, not what it costs")
    sparse.add_argument("--rounds", type=option.positive, metavar="N", help="rounds of the comparison")
    sparse.set_defaults(run=run_sparse_unetr)


def _add_training(kinds: Any, shared: argparse.ArgumentParser) -> None:
    training = kinds.add_parser("training", parents=[shared], help="the parts of a training step, in 2D and 3D")
    training.add_argument("--network", default="apformer", metavar="NAME", help="default: apformer")
    training.add_argument("--quick", action="store_true", help="tiny images: shows that it runs, not what it costs")
    training.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with")
    training.set_defaults(run=run_training)


def _add_boxed(kinds: Any, shared: argparse.ArgumentParser) -> None:
    boxed = kinds.add_parser("boxed", parents=[shared], help="LeanFormer's way up on the box of what is kept, or whole")
    boxed.add_argument("datasets", nargs="+", type=option.path, metavar="DATASET", help="as for `benchmark systems`")
    boxed.add_argument("--size", type=option.positive, default=256, metavar="N", help="of slices; default: 256")
    boxed.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with")
    boxed.set_defaults(run=run_boxed)


def _add_follow(kinds: Any, shared: argparse.ArgumentParser) -> None:
    follow = kinds.add_parser("follow", parents=[shared], help="simulated users correct slices, and the rest follows")
    follow.add_argument("dataset", type=option.path, metavar="DATASET", help="labelled volumes, Decathlon layout")
    what = follow.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar=option.MODEL, help="a model of a structure that they show, to be corrected")
    what.add_argument(
        "--outlined", type=_every, metavar="EVERY", help="instead: no model; every so-manieth slice is outlined"
    )
    follow.add_argument(
        "--structures", type=_names, default=(), metavar="A,B", help="with --outlined: only these, by name"
    )
    follow.add_argument(
        "--users", type=_users, default=("worst",), metavar="A,B", help="worst, middle, place, or all; default: worst"
    )
    follow.add_argument(
        "--slices", type=_counts, default=(1,), metavar="N,N", help="corrected slices, such as 1,2,3,5; default: 1"
    )
    follow.add_argument("--volumes", type=option.positive, metavar="N", help="at most so many, evenly over all")
    follow.add_argument("--seconds", type=_seconds, metavar="S", help="for each following, instead of the usual time")
    follow.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with")
    follow.add_argument(
        "-o", "--output", type=option.path, metavar="FILE", help="results, as JSON; continued when there"
    )
    option.add_device(follow)
    follow.set_defaults(run=run_follow)


def _users(text: str) -> tuple[str, ...]:
    from ..benchmarks.follow_users import USERS

    chosen = USERS if text == "all" else tuple(dict.fromkeys(text.split(",")))
    if not set(chosen) <= set(USERS):
        raise argparse.ArgumentTypeError(f"{text!r} is not all, or some of {','.join(USERS)}")
    return chosen


def _every(text: str) -> int:
    if (every := option.positive(text)) < 2:
        raise argparse.ArgumentTypeError("with every slice outlined nothing lies between; give 2 or more")
    return every


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({option.positive(part) for part in text.split(",")}))


def _seconds(text: str) -> float:
    return _number(text, 3600.0, "a number of seconds up to 3600")


def _names(text: str | None) -> list[str]:
    """Parted by commas, but for those in brackets: "a[x=(1, 2)],b"."""
    return re.split(r",(?![^\[]*\])", text) if text else []


def _share(text: str) -> float:
    return _number(text, 1.0, "a share above 0 and up to 1")


def _minutes(text: str) -> float:
    return _number(text, 10_000.0, "a number of minutes")


def _number(text: str, most: float, wanted: str) -> float:
    """A number above 0 and up to `most`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _use(threads: int | None) -> None:
    """Compute with so many threads, if that is asked for."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def run(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import segment

    report = segment.run(
        options.model,
        options.device,
        quick=options.quick,
        long=options.long,
        untrained=options.untrained,
        rounds=options.rounds,
        say=console.say,
    )
    console.result(report, segment.render(report))
    return 0


def run_pruning(options: argparse.Namespace, console: Console) -> int:
    if (options.bundle is None) != (options.data is None):
        raise UsageError(
            "One of --bundle and --data is missing.",
            "A model's kept shares and Dice are measured on labelled cases.",
            "Give both, or neither to measure kept sets of stated shares.",
        )
    from ..benchmarks import pruning

    report = pruning.run(
        options.device,
        quick=options.quick,
        rounds=options.rounds,
        bundle=options.bundle,
        dataset=options.data,
        say=console.say,
    )
    console.result(report, pruning.render(report))
    return 0


def run_pareto(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import pareto
    from ..inference import choose_device
    from .outputs import check_writable

    if options.plot is not None:
        check_writable(options.plot)
    device = str(choose_device(options.device))
    report = pareto.run(options.bundle, options.data, device, most_images=options.images, say=console.say)
    if options.plot is not None:
        pareto.draw(report, options.plot)
    console.result(report, pareto.render(report))
    return 0


def run_plugin(options: argparse.Namespace, console: Console) -> int:
    from .outputs import check_writable

    if options.output is not None:
        check_writable(options.output / "record.json")
    from ..benchmarks import plugin
    from ..training.config import read_config

    _use(options.threads)
    report = plugin.run(
        options.dataset,
        read_config(options.config),
        keep=options.keep,
        minutes=options.minutes,
        output=options.output,
        say=console.say,
    )
    console.result(report, plugin.render(report))
    return 0


def run_finetune(options: argparse.Namespace, console: Console) -> int:
    from .outputs import check_writable

    check_writable(options.output)
    from ..benchmarks import finetuning

    report = finetuning.run(
        options.study,
        options.dataset,
        options.output,
        minutes=options.minutes,
        old=options.old,
        threads=options.threads,
        say=console.say,
    )
    console.result(report, finetuning.render(report))
    return 0


def run_systems(options: argparse.Namespace, console: Console) -> int:
    from .outputs import check_writable

    for path in (options.output, options.plot):
        if path is not None:
            check_writable(path)
    from ..benchmarks import systems

    _use(options.threads)
    report = systems.run(
        options.datasets,
        options.output,
        minutes=options.minutes,
        seeds=options.seeds,
        systems=_names(options.systems),
        size=(options.size, options.size),
        say=console.say,
    )
    if options.plot is not None:
        systems.draw(report, options.plot)
    console.result(report, systems.render(report))
    return 0


def run_sparse_unetr(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import sparse_unetr

    report = sparse_unetr.run(options.device, quick=options.quick, rounds=options.rounds, say=console.say)
    console.result(report, sparse_unetr.render(report))
    return 0


def run_training(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import step

    _use(options.threads)
    report = step.run(options.network, options.quick, console.say)
    console.result(report, step.render(report))
    return 0


def run_boxed(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import boxed

    _use(options.threads)
    record = boxed.run(options.datasets, size=(options.size, options.size), say=console.say)
    console.result(record, boxed.render(record))
    return 0


def run_follow(options: argparse.Namespace, console: Console) -> int:
    from .outputs import check_writable

    if options.output is not None:
        check_writable(options.output)
    from ..benchmarks import follow

    _use(options.threads)
    if options.outlined is not None:
        return _run_outlined(options, console)
    record = follow.run(
        options.dataset,
        options.model,
        users=options.users,
        slices=options.slices,
        volumes=options.volumes,
        seconds=options.seconds,
        device=options.device,
        output=options.output,
        say=console.say,
    )
    console.result(record, follow.render(record))
    return 0


def _run_outlined(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import outlined
    from ..files import atomic_path
    from ..following.between import SECONDS

    record = outlined.study(
        options.dataset,
        options.outlined,
        structures=options.structures,
        volumes=options.volumes,
        seconds=options.seconds or SECONDS,
        say=console.say,
    )
    if options.output is not None:
        with atomic_path(options.output) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    console.result(record, outlined.render(record))
    return 0
