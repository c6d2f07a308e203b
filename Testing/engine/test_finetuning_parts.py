"""Parts of fine-tuning, each alone: rehearsal, time, the rule, the design of a new model, corrected voxels."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer import files
from apformer.datasets import SiteDataset, identity
from apformer.datasets.table import make_table
from apformer.errors import ConfigError
from apformer.finetuning.design import _window, design
from apformer.finetuning.extents import Seen
from apformer.finetuning.measure import summary
from apformer.finetuning.outcome import _lost
from apformer.finetuning.verdict import finds_nothing, judge
from apformer.networks import build_network
from apformer.volume import Volume
from torch import Tensor, nn

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import timing
from apformer.finetuning.cases import SiteReader, as_case
from apformer.finetuning.labels import plan_labels
from apformer.finetuning.recipe import PEAK_RATE, PEAK_RATE_NEW, _stages
from apformer.finetuning.request import Request
from apformer.finetuning.timing import StepTimer, check_beforehand, check_time, least_seconds
from apformer.training.cases import CORRECTED, PreparedCases
from apformer.training.config import LossWeights, Stage
from apformer.training.losses import CORRECTED_WEIGHT, APFormerLoss
from apformer.training.rehearsal import Rehearsal
from finetune_samples import a_site

identity._SCRYPT["n"] = 2


# ------------------------------------------------------------------------------------------------ rehearsal


class Says(nn.Module):
    """A base that answers with fixed probabilities (channels, n), whatever it is shown."""

    def __init__(self, probabilities: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()[None]

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.expand(image.shape[0], -1, -1)


NOTHING = torch.zeros(1, 1, 3)


def logits_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[None].log()


def test_a_student_that_agrees_with_the_base_loses_least() -> None:
    teacher = Rehearsal(Says([[0.9, 0.2, 0.6], [0.1, 0.8, 0.4]]), {1: 1})
    said, labels = teacher.ask(NOTHING), torch.tensor([[[0, 1, 0]]])
    same = teacher.loss(logits_of([0.9, 0.2, 0.6], [0.1, 0.8, 0.4]), said, labels)
    other = teacher.loss(logits_of([0.6, 0.6, 0.6], [0.4, 0.4, 0.4]), said, labels)
    assert float(same) < float(other)


def test_voxels_where_the_base_is_wrong_are_not_rehearsed() -> None:
    teacher = Rehearsal(Says([[0.9, 0.2, 0.1], [0.1, 0.8, 0.9]]), {1: 1})
    labels = torch.tensor([[[0, 1, 0]]])  # the third voxel: the base says 1, a person says background
    student = logits_of([0.9, 0.2, 0.5], [0.1, 0.8, 0.5]).requires_grad_()
    teacher.loss(student, teacher.ask(NOTHING), labels).backward()
    assert student.grad is not None
    assert student.grad[..., 2].abs().max() == 0
    assert student.grad[..., :2].abs().max() > 0


def test_a_new_structure_where_the_base_says_background_costs_nothing() -> None:
    teacher = Rehearsal(Says([[1 - 1e-6] * 3, [1e-6] * 3]), {1: 1})
    labels = torch.tensor([[[2, 2, 0]]])
    found_new = logits_of([1e-6, 1e-6, 1 - 2e-6], [1e-6, 1e-6, 1e-6], [1 - 2e-6, 1 - 2e-6, 1e-6])
    assert float(teacher.loss(found_new, teacher.ask(NOTHING), labels)) < 1e-3


def test_structures_that_nobody_labelled_are_taken_from_the_base() -> None:
    teacher = Rehearsal(Says([[0.1, 0.1, 0.9], [0.9, 0.9, 0.1]]), {1: 2}, unlabelled={2})
    labels = torch.tensor([[[0, 1, 0]]])  # the second voxel is labelled, as something else
    assert teacher.complete(labels, teacher.ask(NOTHING)).tolist() == [[[2, 1, 0]]]


def test_dropped_labels_of_the_base_count_as_background() -> None:
    teacher = Rehearsal(Says([[0.2] * 3, [0.3] * 3, [0.5] * 3]), {1: 1})
    torch.testing.assert_close(teacher.ask(NOTHING)[0, :, 0], torch.tensor([0.7, 0.3]))


# ------------------------------------------------------------------------------------------------ corrected voxels


def test_corrected_voxels_weigh_more_in_the_cross_entropy() -> None:
    loss = APFormerLoss(LossWeights())
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0, 1] = 3.0  # the second pixel is found to be foreground, with confidence
    labels = torch.tensor([[[[1, 0]]]])
    left, right = torch.tensor([[[[1, 0]]]]), torch.tensor([[[[0, 1]]]])
    entropy = torch.nn.functional.cross_entropy(logits, labels[:, 0], reduction="none").flatten()
    difference = loss._segmentation(logits, labels, right, None) - loss._segmentation(logits, labels, left, None)
    total = CORRECTED_WEIGHT + 1
    expected = (CORRECTED_WEIGHT - 1) * (entropy[1] - entropy[0]) / total
    assert float(difference) == pytest.approx(float(expected), rel=1e-5)
    assert float(difference) > 0, "the wrong pixel costs more when a person has corrected it"


def test_corrections_are_what_differs_from_the_proposal_of_a_model(tmp_path: Path) -> None:
    dataset = SiteDataset.create(tmp_path / "site", make_table(["Ball"]))
    image = Volume(np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32), np.eye(4), "MR")
    proposal = np.zeros((4, 4, 4), np.uint8)
    proposal[1, 1, 1:3] = 1
    corrected = proposal.copy()
    corrected[1, 1, 3] = 1
    case, _ = dataset.add(
        image, image.with_array(proposal), patient="a", proposed_by="ball 1.0.0", status="in progress"
    )
    case = dataset.correct(case.name, image.with_array(corrected), status="completed")
    plan = plan_labels(dataset.labels, {1}, None, Request(dataset.root, "new", None))
    reader = SiteReader.of([case], plan)
    read = reader(as_case(case, plan))
    assert read.marks is not None and np.argwhere(read.marks == CORRECTED).tolist() == [[1, 1, 3]]
    flat = design([case], [1]).preprocessing
    prepared = PreparedCases([as_case(case, plan)], tmp_path / "prepared", flat, reader)
    prepared.build()
    labels = prepared.item(1)[1]
    assert labels.shape == (2, 4, 4)
    assert labels[1].nonzero().tolist() == [[1, 3]]


# ------------------------------------------------------------------------------------------------ time


def test_a_time_that_holds_no_training_is_refused_with_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="holds 4 steps") as caught:
        check_time(10.0, step_s=2.0)
    assert "at least 47 s more" in caught.value.remedy


def test_the_least_time_is_enough() -> None:
    check_time(least_seconds(2.0), step_s=2.0)
    with pytest.raises(ConfigError):
        check_time(0.99 * least_seconds(2.0), step_s=2.0)


def test_what_is_missing_counts_every_training_that_shares_it() -> None:
    with pytest.raises(ConfigError) as caught:
        check_time(10.0, step_s=2.0, shares=4)
    assert "at least 4 min more" in caught.value.remedy


def test_a_time_that_is_far_too_short_is_refused_before_anything_long_with_one_that_would_do() -> None:
    check_beforehand(300.0, 500.0)  # an estimate may be wrong by half
    with pytest.raises(ConfigError, match="about 9 min") as caught:
        check_beforehand(60.0, 500.0)
    assert "at least 11 min" in caught.value.remedy


def test_two_steps_are_timed_and_another_number_format_only_where_the_machine_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    stage = Stage(1, (8, 8), 2, 1e-3)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    for there, times in ((False, 2), (True, 4)):
        checks: list[int] = []
        monkeypatch.setattr(timing, "has_bfloat16", lambda device, there=there: there)
        timer = StepTimer(network, 1, torch.device("cpu"), False, partial(checks.append, 1), lambda: float(next(ticks)))
        assert timer.measure([stage]) == ((1.0,), "float32"), "as fast: float32 rounds less"
        assert len(checks) == times


def test_every_stage_is_timed_in_the_format_that_is_faster_in_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "has_bfloat16", lambda device: True)
    timer = StepTimer(torch.nn.Conv2d(1, 2, 3), 1, torch.device("cpu"), False, lambda: None, lambda: 0.0)
    seconds = {(8, False): 0.5, (8, True): 0.4, (16, False): 3.0, (16, True): 2.0}
    monkeypatch.setattr(timer, "_time", lambda stage, half: seconds[stage.size[0], half])
    stages = (Stage(1, (8, 8), 4, 1e-3), Stage(1, (16, 16), 2, 1e-3))
    assert timer.measure(stages) == ((0.4, 2.0), "bfloat16")


def test_a_training_whose_gates_wait_is_timed_as_it_begins() -> None:
    network = build_network("leanformer", {"out_channels": 2, "image_size": (32, 32), "prune_queries": True})
    seen: list[str] = []
    network.register_forward_pre_hook(lambda module, _: seen.append(module.gating))
    for gates in ("ready", "hard"):
        timer = StepTimer(network, 1, torch.device("cpu"), False, lambda: None, lambda: 0.0)
        timer._time(Stage(1, (32, 32), 1, 1e-3, gates=gates), half=False)
    assert seen == ["off"] * 2 + ["hard"] * 2


def test_steps_are_as_far_as_what_there_is_to_learn() -> None:
    def peak(scratch: bool, rate: float) -> float:
        return _stages("closed", (64, 64), rate, scratch, fixed=False, lean=False)[0].learning_rate

    assert peak(False, PEAK_RATE) < peak(False, PEAK_RATE_NEW) < peak(True, PEAK_RATE)


# ------------------------------------------------------------------------------------------------ what pruning loses


@pytest.mark.parametrize(("inside", "told"), [(None, False), (1.0, False), (0.9951, False), (0.9873, True)])
def test_a_report_warns_where_pruning_leaves_out_more_than_half_a_percent(inside: float | None, told: bool) -> None:
    warnings = _lost({"foreground_inside": inside})
    assert [("1.3%" in text and "budget" in text) for text in warnings] == [True] * told


# ------------------------------------------------------------------------------------------------ the rule


def figures(gmac: float = 10.0, **dice: float | None) -> dict[str, Any]:
    return {"labels": {name: {"mean_dice": value} for name, value in dice.items()}, "gmac": gmac}


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        (figures(A=0.90), figures(A=0.91), True),
        (figures(A=0.90), figures(A=0.901), False),
        (figures(A=0.90), figures(A=0.897, gmac=5.0), True),
        (figures(A=0.90), figures(A=0.89, gmac=5.0), False),
        (figures(A=0.90, B=0.50), figures(A=0.87, B=0.60), False),
        (figures(A=0.90, B=None), figures(A=0.90, B=0.70), True),
        (figures(A=0.90, B=None), figures(A=0.85, B=0.70), False),
        (None, figures(A=0.7), True),
        (None, figures(A=0.0), False),
    ],
)
def test_the_rule_adopts_what_is_better_and_nothing_else(before: Any, after: Any, better: bool) -> None:
    adopted, why = judge(before, after)
    assert adopted is better
    assert why.endswith(".")


def test_a_label_that_no_validation_case_has_decides_nothing_and_is_told() -> None:
    better, why = judge(figures(A=0.90, B=None), figures(A=0.89, B=None))
    assert not better and "from 0.900 to 0.890" in why and "no validation case has it: B" in why
    better, why = judge(figures(A=0.90, B=0.99), figures(A=0.91, B=None))
    assert better and "from 0.900 to 0.910" in why


def test_nothing_is_adopted_that_nothing_judges() -> None:
    for before in (None, figures(A=None), figures(A=0.1)):
        better, why = judge(before, figures(A=None, B=None))
        assert not better and "could be judged by" in why
        assert not finds_nothing(figures(A=None, B=None))


@pytest.mark.parametrize("before", [None, figures(A=0.0, gmac=100.0), figures(A=None), figures(A=0.85)])
def test_a_model_that_finds_nothing_is_never_better(before: Any) -> None:
    blind = figures(A=0.9, B=None)  # nine of ten cases have no A, and it found none in any
    blind["labels"]["A"]["pooled_dice"] = 0.0
    assert finds_nothing(blind)
    better, why = judge(before, blind)
    assert not better and "found nothing of A in any validation case" in why


def test_an_earlier_version_that_knows_none_of_the_labels_or_could_not_be_measured_is_told() -> None:
    better, why = judge(figures(A=None), figures(A=0.5))
    assert better and "knows none of these labels" in why
    better, why = judge({**figures(A=None), "cases": {}}, figures(A=0.5))
    assert not better and "could not be measured" in why


def a_score(both: int, predicted: int, reference: int, ml: float = 0.0) -> dict[str, Any]:
    found = {"both": both, "predicted": predicted, "reference": reference, "false_positive_ml": ml}
    return {"hd95_mm": None, "assd_mm": None, **found}


def test_figures_of_a_label_without_a_case_are_empty_and_what_was_found_of_it_is_told() -> None:
    scores = {
        "one": {"seconds": 1.0, "picture": False, "labels": {"A": a_score(5, 5, 5), "B": a_score(0, 2, 0, 0.002)}},
        "two": {"seconds": 1.0, "picture": False, "labels": {"A": a_score(0, 0, 0), "B": a_score(0, 0, 0)}},
    }
    found = summary("new 1.0.0", scores, {1: "A", 2: "B"}, {})
    assert found["labels"]["A"]["mean_dice"] == found["labels"]["A"]["pooled_dice"] == 1.0
    assert found["labels"]["B"] == dict.fromkeys(found["labels"]["B"])
    assert found["cases"]["one"]["B"]["dice"] is None and found["cases"]["two"]["A"]["dice"] == 1.0
    assert found["false_positives"] == {"B": {"cases": 1, "amount": 0.002, "unit": "mL"}}


def test_a_label_that_fell_is_named() -> None:
    assert "B fell from 0.800 to 0.700" in judge(figures(A=0.5, B=0.8), figures(A=0.9, B=0.7))[1]


# ------------------------------------------------------------------------------------------------ a new model


def test_nearly_cubic_voxels_get_a_network_of_volumes(tmp_path: Path) -> None:
    found = design(a_site(tmp_path / "site", 3).cases(), [1, 2])
    assert found.preprocessing.spatial_dims == 3
    assert found.preprocessing.patch_size == (16, 16, 16)
    assert found.preprocessing.spacing_mm == (1.0, 1.0, 1.0)
    assert found.modality == "MR"


def a_case(folder: Path, shape: tuple[int, ...], spacing: tuple[float, float, float], modality: str) -> list[Any]:
    dataset = SiteDataset.create(folder, make_table(["Organ"]))
    voxels = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    labels = np.zeros(shape[-3:], np.uint8)
    labels[0, 2:6, 2:6] = 1
    if modality == "CT":
        voxels[labels == 1] = np.linspace(0, 100, 16).astype(np.int16)
    image = Volume(voxels, np.diag([*spacing, 1.0]), modality)
    dataset.add(image, Volume(labels, image.ijk_to_ras), patient="a")
    return dataset.cases()


def test_a_model_can_be_given_up_between_any_two_files_that_are_read_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = a_case(tmp_path / "site", (6, 32, 32), (1.0, 1.0, 8.0), "CT")
    happened: list[str] = []
    read = files.read_volume
    monkeypatch.setattr(files, "read_volume", lambda path: (happened.append("read"), read(path))[1])
    design(cases, [1], lambda: happened.append("check"))
    assert happened == ["check", "read", "check", "read"]


def test_thick_slices_get_a_network_of_slices_with_rows_before_columns(tmp_path: Path) -> None:
    found = design(a_case(tmp_path / "site", (6, 64, 32), (1.0, 1.0, 8.0), "MR"), [1]).preprocessing
    assert found.spatial_dims == 2
    assert found.orientation == "acquired"
    assert found.patch_size == (64, 32)


def test_a_ct_window_lies_around_what_is_learned(tmp_path: Path) -> None:
    found = design(a_case(tmp_path / "site", (6, 32, 32), (1.0, 1.0, 8.0), "CT"), [1]).preprocessing
    assert found.orientation == "LPS"
    assert found.intensity["kind"] == "window"
    assert -30 < found.intensity["lower"] < 5
    assert 95 < found.intensity["upper"] < 130


def test_bone_and_air_among_soft_organs_do_not_widen_a_ct_window() -> None:
    soft = {1: (-20.0, 120.0), 2: (-60.0, 180.0), 3: (-100.0, 160.0)}
    jaw, airway, lung, metal = (-50.0, 1700.0), (-1000.0, 150.0), (-950.0, -500.0), (2000.0, 3000.0)
    organs = _window([a_seen({**soft, 4: jaw, 5: airway})])
    assert organs["lower"] > -150 and organs["upper"] < 260, "their edges show all the same"
    everything = _window([a_seen({**soft, 6: lung})])
    assert everything["lower"] == -500, "what is beyond altogether is let in as far as to its nearer end"
    assert _window([a_seen({**soft, 7: metal})])["upper"] == 2000
    assert _window([a_seen({1: (0.0, 100.0)}), a_seen({1: (10.0, 900.0)}), a_seen({1: (0.0, 110.0)})])["upper"] < 150
    assert _window([a_seen({})])["kind"] == "percentile", "nothing of it was seen"


def a_seen(brightness: dict[int, tuple[float, float]]) -> Seen:
    return Seen((8, 8, 8), np.eye(4), False, (), brightness)
