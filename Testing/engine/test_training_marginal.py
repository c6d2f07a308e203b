"""Cases that outline only some structures: the loss asks nothing of what is open, and a network learns from halves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.files import write_labels, write_scalar
from apformer.networks import build_network
from apformer.pruning.auxiliaries import Auxiliaries, Coarser
from apformer.training.assess import CaseScore, assess, summarise
from apformer.training.cases import CORRECTED, UNKNOWN, PreparedCases, by_name, read_case, read_dataset
from apformer.training.config import LossWeights, TrainingConfig, parse_config
from apformer.training.loop import Trainer
from apformer.training.losses import APFormerLoss
from apformer.training.marginal import with_own_answer
from apformer.training.rehearsal import Rehearsal
from apformer.training.run import write_bundle
from apformer.training.validation import Judged, Validation
from apformer.volume import Volume
from monai.losses import DiceCELoss
from torch import Tensor, nn
from training_samples import settings

CLASSES = 3
LOSS = APFormerLoss(LossWeights())


def some_logits(items: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (items, 3, 5, 6) and labels (items, 1, 5, 6) with all three classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (items, 1, 5, 6), generator=generator)
    return torch.randn(items, CLASSES, 5, 6, generator=generator).requires_grad_(), labels


def leaving_out(*values: tuple[int, ...]) -> Tensor:
    """The values that were not outlined in each item, as a batch has them."""
    flags = torch.zeros(len(values), 256, dtype=torch.bool)
    for item, missing in enumerate(values):
        flags[item, list(missing)] = True
    return flags


# ---------------------------------------------------------------- the loss


def test_where_everything_is_outlined_and_known_it_is_the_usual_loss() -> None:
    logits, labels = some_logits()
    usual = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)(logits, labels)
    (expected,) = torch.autograd.grad(usual, logits)
    nothing = torch.zeros_like(labels)
    for marks, missing in ((nothing, None), (None, leaving_out((), ())), (nothing, leaving_out((), ()))):
        loss = LOSS._segmentation(logits, labels, marks, missing)
        torch.testing.assert_close(loss, usual)
        torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)


def test_a_structure_that_was_not_outlined_is_as_right_on_background_as_the_background_itself() -> None:
    labels = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    of = {name: torch.full((1, CLASSES, 1, 1), -9.0) for name in ("background", "missing", "outlined")}
    for channel, name in enumerate(of):
        of[name][0, channel] = 9.0
    loss = {name: float(LOSS._segmentation(logits, labels, None, leaving_out((1,)))) for name, logits in of.items()}
    assert loss["missing"] == pytest.approx(loss["background"], abs=1e-5)
    assert loss["outlined"] > loss["background"] + 5


def test_the_loss_says_nothing_of_how_background_and_missing_structures_share_their_probability() -> None:
    logits, labels = some_logits(items=1)
    labels[labels == 1] = 0
    (gradient,) = torch.autograd.grad(LOSS._segmentation(logits, labels, None, leaving_out((1,))), logits)
    assert torch.isfinite(gradient).all()
    shares = logits.detach()[:, :2].softmax(1)
    torch.testing.assert_close(gradient[:, :2], shares * gradient[:, :2].sum(1, keepdim=True))


def test_dice_of_a_structure_is_that_of_the_items_that_outline_it() -> None:
    logits, labels = some_logits()
    labels[1][labels[1] == 1] = 0
    both = LOSS._segmentation(logits, labels, None, leaving_out((), (1,)))
    softmax = logits.softmax(1)
    dice = [
        2 * (softmax[items, value] * (labels[items, 0] == value)).sum()
        / (softmax[items, value].sum() + (labels[items, 0] == value).sum())
        for value, items in ((1, slice(0, 1)), (2, slice(0, 2)))
    ]  # fmt: skip
    log = logits.log_softmax(1)
    log[1, 0] = log[1, :2].logsumexp(0)
    entropy = -log.gather(1, labels).mean()
    torch.testing.assert_close(both, 1 - sum(dice) / 2 + entropy, rtol=1e-4, atol=1e-5)


def test_a_structure_that_no_item_of_a_batch_outlines_does_not_thin_out_the_others() -> None:
    logits, labels = some_logits()
    labels[labels == 1] = 0
    alone = DiceCELoss(include_background=False, batch=True, to_onehot_y=True, softmax=True, lambda_ce=0.0)
    merged = torch.stack([logits[:, :2].logsumexp(1), logits[:, 2]], dim=1)
    other = (labels == 2).long()
    entropy = nn.functional.cross_entropy(merged, other[:, 0])
    expected = alone(merged, other) + entropy
    torch.testing.assert_close(LOSS._segmentation(logits, labels, None, leaving_out((1,), (1,))), expected)


def test_voxels_that_nobody_knows_change_nothing() -> None:
    logits, labels = some_logits()
    marks = torch.zeros_like(labels)
    marks[:, :, 2:4] = UNKNOWN
    others = labels.clone()
    others[:, :, 2:4] = 0
    loss = LOSS._segmentation(logits, labels, marks, None)
    torch.testing.assert_close(LOSS._segmentation(logits, others, marks, None), loss)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[:, :, 2:4].any() and gradient[:, :, :2].all()


def test_a_batch_of_which_nothing_is_known_teaches_nothing_and_breaks_nothing() -> None:
    logits, labels = some_logits()
    loss = LOSS._segmentation(logits, 0 * labels, torch.full_like(labels, UNKNOWN), leaving_out((1, 2), (1, 2)))
    assert loss.item() == 0 and not torch.autograd.grad(loss, logits)[0].any()


# ---------------------------------------------------------------- tokens that are not empty


def test_where_labels_leave_something_open_the_prune_head_is_taught_what_the_network_finds() -> None:
    found = torch.tensor([[[1, 2, 0, 1]], [[1, 2, 0, 1]]])  # by the network
    logits = nn.functional.one_hot(found, CLASSES).permute(0, 3, 1, 2).float()
    labels = torch.tensor([[[[0, 0, 2, 0]]], [[[0, 0, 2, 0]]]])
    marks = torch.tensor([[[[0, 0, 0, 0]]], [[[0, UNKNOWN, 0, CORRECTED]]]])
    answered = with_own_answer(labels, logits, marks, leaving_out((1,), ()))
    assert answered.flatten(1).tolist() == [[1, 0, 2, 1], [0, 2, 2, 0]]


def test_a_cell_with_what_nobody_outlined_is_not_taught_to_be_empty() -> None:
    logits = torch.zeros(1, CLASSES, 4, 4)
    logits[0, 1, :2, :2] = 5.0
    labels = torch.zeros(1, 1, 4, 4, dtype=torch.long)

    def slope(missing: Tensor | None) -> Tensor:
        heads = torch.zeros(1, 2, 2, 2, requires_grad=True)
        auxiliaries = Auxiliaries.unpruned(logits)._replace(prune_logits=heads, token_stride=(2, 2))
        LOSS(logits, auxiliaries, labels, None, None, missing)["prune_head"].backward()
        assert heads.grad is not None
        return heads.grad[0, 1]

    assert slope(None)[0, 0] > 0, "today's labels say: empty"
    assert slope(leaving_out((1,)))[0, 0] < 0 < slope(leaving_out((1,)))[1, 1]


# ---------------------------------------------------------------- rehearsal


class Says(nn.Module):
    """A base that always answers the same: classes (B, *size)."""

    def __init__(self, classes: Tensor) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        return 9.0 * nn.functional.one_hot(self.classes, CLASSES).movedim(-1, 1)


def test_the_base_fills_what_an_item_did_not_outline_and_nothing_else() -> None:
    base = torch.tensor([[[1, 2, 1]], [[1, 2, 1]]])
    teacher = Rehearsal(Says(base), {1: 1, 2: 2})
    said = teacher.ask(torch.zeros(2, 1, 1, 3))
    labels = torch.tensor([[[[0, 0, 2]]], [[[0, 0, 2]]]])
    assert teacher.complete(labels, said, leaving_out((1,), (2,))).flatten(1).tolist() == [[1, 0, 2], [0, 2, 2]]
    assert torch.equal(teacher.complete(labels, said), labels)


def test_what_the_base_fills_in_is_learned() -> None:
    labels = torch.ones(1, 1, 1, 1, dtype=torch.long)  # filled in, although 1 was not outlined
    found, lost = torch.tensor([0.0, 9.0, 0.0]), torch.tensor([9.0, 0.0, 0.0])
    loss = [float(LOSS._segmentation(x.reshape(1, 3, 1, 1), labels, None, leaving_out((1,)))) for x in (found, lost)]
    assert 8 < loss[1] - loss[0] < 10


def test_the_base_is_believed_where_nobody_knows() -> None:
    teacher = Rehearsal(Says(torch.ones(1, 1, 2, dtype=torch.long)), {1: 1, 2: 2})
    said = teacher.ask(torch.zeros(1, 1, 1, 2))
    logits = torch.zeros(1, CLASSES, 1, 2, requires_grad=True)
    marks = torch.tensor([[[[UNKNOWN, 0]]]])
    teacher.loss(logits, said, torch.zeros(1, 1, 1, 2, dtype=torch.long), marks).backward()
    assert logits.grad is not None and logits.grad[0, 1, 0, 0] < 0 and not logits.grad[..., 1].any()


# ---------------------------------------------------------------- a network

SIDE = 16
FIRST, SECOND = 1, 2


def two_balls(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (1, 16, 16) of noise with a bright and a dark disc, and its labels."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"))
    bright, dark = (((grid - c[:, None, None]) ** 2).sum(0) < 10 for c in generator.integers(4, SIDE - 4, (2, 2)))
    dark &= ~bright
    image = 128 + generator.normal(0, 8, (SIDE, SIDE)) + 90.0 * bright - 90.0 * dark
    return image[None].astype(np.float32), (FIRST * bright + SECOND * dark).astype(np.uint8)[None]


def a_folder(folder: Path, cases: int, labelled: Any, ignored: bool = False) -> Path:
    """A Decathlon folder in which `labelled` of a case's number tells the values that were outlined; None: all."""
    entries, grid = [], np.diag([-1.0, -1.0, 1.0, 1.0])
    for number in range(cases):
        image, labels = two_balls(number)
        outlined = labelled(number)
        kept = labels if outlined is None else np.where(np.isin(labels, outlined), labels, 0).astype(np.uint8)
        if ignored:
            kept[0, 0, :4] = 3
        name = f"p{number}_x.nii.gz"
        write_scalar(folder / "imagesTr" / name, Volume(image, grid))
        write_labels(folder / "labelsTr" / name, Volume(kept, grid), (), reference=Volume(kept, grid))
        entries.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
        entries[-1] |= {} if outlined is None else {"labelled": list(outlined)}
    names = {"0": "background", "1": "Ball", "2": "Hole", **({"3": "ignore"} if ignored else {})}
    (folder / "dataset.json").write_text(json.dumps({"labels": names, "training": entries}))
    return folder


def a_config(steps: int = 90) -> TrainingConfig:
    made = settings()
    hole = {**made["labels"][0], "value": SECOND, "name": "Hole"}
    made |= {"labels": [*made["labels"], hole]}
    made["preprocessing"] |= {"spatial_dims": 2, "spacing_mm": [1.0, 1.0], "patch_size": [SIDE, SIDE]}
    made["network"] |= {"spatial_dims": 2, "image_size": [SIDE, SIDE], "out_channels": 3}
    made["stages"] = [{"epochs": steps // 3, "size": [SIDE, SIDE], "batch_size": 4, "learning_rate": 0.02,
                       "validate_every": steps // 3}]  # fmt: skip
    return parse_config(made)


def prepared(folder: Path, config: TrainingConfig, where: Path) -> PreparedCases:
    cases, _ = by_name(read_dataset(folder, config.split), folder, config.labels)
    found = PreparedCases(cases, where, config.preprocessing)
    found.build()
    return found


def half(number: int) -> tuple[int, ...]:
    return (FIRST,) if number % 2 else (SECOND,)


def test_a_network_that_learns_from_halves_finds_both_and_the_usual_loss_does_not(tmp_path: Path) -> None:
    config = a_config()
    halves = prepared(a_folder(tmp_path / "halves", 12, half), config, tmp_path / "a")
    whole = prepared(a_folder(tmp_path / "whole", 6, lambda number: None), config, tmp_path / "b")
    dice = {}
    for name in ("marginal", "usual"):
        absent = [replace(case, labelled=None) for case in halves.cases]  # what is not outlined
        told = absent if name == "usual" else halves.cases
        cases = PreparedCases(told, halves.folder, halves.preprocessing)
        cases.build()
        (tmp_path / name).mkdir()
        trainer = Trainer(config, cases, whole, tmp_path / name, torch.device("cpu"), workers=0)
        trainer.run()
        dice[name] = trainer.rows[-1]["dice"]
    assert min(dice["marginal"].values()) > 0.7, dice
    assert min(dice["usual"].values()) < min(dice["marginal"].values()) - 0.2, dice


# ---------------------------------------------------------------- what judges


class Finds(nn.Module):
    """A network that finds the first structure everywhere."""

    def forward(self, image: Tensor) -> Tensor:
        logits = torch.zeros(len(image), CLASSES, *image.shape[2:])
        logits[:, FIRST] = 5.0
        return logits


def judge(cases: PreparedCases, config: TrainingConfig) -> Judged:
    judging = Validation(cases, config, torch.device("cpu"))
    return judging(Finds(), check=lambda: None, seconds=None, clock=lambda: 0.0)


def test_a_case_judges_what_it_outlines_where_it_is_known(tmp_path: Path) -> None:
    config = a_config()
    folder = a_folder(tmp_path / "data", 2, lambda number: [(FIRST,), (SECOND,)][number])
    cases = prepared(folder, config, tmp_path / "p")
    only = PreparedCases(cases.cases[:1], cases.folder, cases.preprocessing)
    only.build()
    both, alone = (judge(each, config).dice for each in (cases, only))
    assert both["Ball"] == alone["Ball"] is not None, "the second case says nothing of the ball"
    assert both["Hole"] == 0.0 and alone["Hole"] is None, "outlined in no case: judged by nobody"


def test_voxels_to_ignore_are_read_prepared_and_judge_nothing(tmp_path: Path) -> None:
    config = a_config()
    folder = a_folder(tmp_path / "data", 1, lambda number: None, ignored=True)
    cases, notes = by_name(read_dataset(folder, config.split), folder, config.labels)
    read = read_case(cases[0])
    assert not notes and read.marks is not None
    assert (read.marks[0, 0, :4] == UNKNOWN).all() and np.count_nonzero(read.marks) == 4
    assert not read.label.array[0, 0, :4].any() and set(np.unique(read.label.array)) == {0, 1, 2}
    found = prepared(folder, config, tmp_path / "p")
    _, maps = found.item(0)
    assert (maps[1] == UNKNOWN).sum() == 4
    known = prepared(a_folder(tmp_path / "other", 1, lambda number: None), config, tmp_path / "q")
    dice = [judge(each, config).dice["Ball"] for each in (found, known)]
    assert dice[0] is not None and dice[1] is not None and dice[0] > dice[1], "four wrong voxels do not count"


def test_a_card_counts_each_structure_over_the_cases_that_outline_it(tmp_path: Path) -> None:
    config = a_config()
    folder = a_folder(tmp_path / "data", 3, lambda number: [(FIRST,), (FIRST, SECOND), ()][number])
    cases, _ = by_name(read_dataset(folder, config.split), folder, config.labels)
    torch.manual_seed(0)
    weights = build_network(config.network, config.network_arguments).state_dict()
    scores: list[CaseScore] = assess(write_bundle(config, weights, tmp_path / "ball"), cases, "cpu")
    assert [sorted(score.evaluation.labels) for score in scores] == [[FIRST], [FIRST, SECOND], []]
    figures = summarise(scores)["labels"]
    assert figures["Ball"]["mean_dice"] is not None and figures["Hole"]["mean_dice"] is not None
    assert summarise(scores[:1])["labels"]["Hole"]["mean_dice"] is None


def test_the_loss_that_chooses_the_moment_asks_nothing_of_what_is_open(tmp_path: Path) -> None:
    config = a_config()
    partial = prepared(a_folder(tmp_path / "a", 1, lambda number: (SECOND,)), config, tmp_path / "p")
    absent = PreparedCases([replace(partial.cases[0], labelled=None)], partial.folder, partial.preprocessing)
    absent.build()
    assert judge(partial, config).loss < judge(absent, config).loss - 1, "Finds sees the ball everywhere"


def test_coarser_outputs_are_asked_no_more_than_the_finest() -> None:
    logits = torch.zeros(1, CLASSES, 4, 4)
    labels = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    marks = torch.full_like(labels, UNKNOWN)
    marks[:, :, :2] = 0
    coarse = torch.zeros(1, CLASSES, 2, 2, requires_grad=True)
    auxiliaries = Auxiliaries.unpruned(logits)._replace(coarser=(Coarser(coarse, (2, 2)),))
    LOSS(logits, auxiliaries, labels, None, marks, leaving_out((1,)))["total"].backward()
    assert coarse.grad is not None and not coarse.grad[:, :, 1].any(), "nobody knows what is there"
    torch.testing.assert_close(coarse.grad[:, 0, 0], coarse.grad[:, 1, 0])
    assert (coarse.grad[:, 0, 0] < 0).all()
