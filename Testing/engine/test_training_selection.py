"""Which moment is kept, what validation looks at, what an average is, and cases that are prepared meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.errors import InputError
from apformer.training.average import Average
from apformer.training.cases import Case, Labelled, PreparedCases
from apformer.training.config import TrainingConfig, parse_config
from apformer.training.selection import Selection, as_good
from apformer.training.validation import Validation
from apformer.volume import Volume
from training_samples import a_trainer, settings

# ------------------------------------------------------------------ which moment


def kept(moments: list[tuple[float | None, float]], patients: int) -> int:
    """The number of the moment that is kept, of (mean Dice, loss)."""
    selection, chosen = Selection(patients), -1
    for number, (dice, loss) in enumerate(moments):
        if selection.offers({"Ball": dice, "Ghost": None}, loss):
            selection.keep({"number": torch.tensor(number)})
    chosen = int(selection.weights["number"])
    assert selection.dice == (moments[chosen][0] or 0.0)
    return chosen


def test_of_moments_that_dice_cannot_tell_apart_the_one_with_the_least_loss_is_kept() -> None:
    assert as_good(4) == pytest.approx(0.01)
    assert kept([(0.900, 0.30), (0.905, 0.25), (0.899, 0.20), (0.903, 0.22)], patients=4) == 2


def test_dice_that_is_better_by_more_than_its_error_decides_whatever_the_loss() -> None:
    assert kept([(0.80, 0.10), (0.90, 0.50), (0.85, 0.05)], patients=4) == 1


def test_many_patients_tell_more_apart_than_few() -> None:
    moments: list[tuple[float | None, float]] = [(0.900, 0.30), (0.894, 0.20)]
    assert kept(moments, patients=2) == 1
    assert kept(moments, patients=100) == 0


def test_where_nothing_judges_the_last_moment_is_kept() -> None:
    assert kept([(None, 0.1), (None, 0.9)], patients=2) == 1


def test_the_average_of_the_last_tenth_is_a_candidate(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings(stages=[{**settings()["stages"][0], "epochs": 10, "validate_every": 10}]))
    trainer = a_trainer(a_dataset, config, tmp_path / "run")
    weights = trainer.run()
    assert trainer.tail is not None and 3 <= trainer.tail.count <= 5, "of some 30 steps"
    tail = trainer.tail.weights()
    row = trainer.rows[-1]
    judge = Selection(1)
    judge.offers(row["dice"], row["validation_loss"])
    better = judge.offers({"Ball": row["tail_dice"]}, row["tail_loss"])
    expected = tail if better else trainer.ema.weights()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    again = a_trainer(a_dataset, config, tmp_path / "run")
    again.resume()
    after = again.run()
    assert all(torch.equal(weights[name], after[name]) for name in weights)


# ------------------------------------------------------------------ averages


def test_an_average_that_follows_by_the_share_of_the_training_reaches_back_over_it_whatever_the_steps_are() -> None:
    network = nn.Linear(1, 1, bias=False)
    found = []
    for steps in (60, 600):
        nn.init.zeros_(network.weight)
        average = Average(network)
        average.add(network)
        nn.init.ones_(network.weight)
        for _ in range(steps // 10):
            average.follow(network, passed=1 / steps, reach=0.1)
        found.append(float(average.module.weight.detach()))
    assert found == pytest.approx([1 - np.exp(-1)] * 2, abs=0.01)


def test_what_is_added_counts_alike_running_statistics_too() -> None:
    network = nn.BatchNorm1d(2)
    average = Average(network)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(network.weight, value)
        network.load_state_dict(
            {
                **network.state_dict(),
                "running_mean": torch.full((2,), 10 * value),
                "num_batches_tracked": torch.tensor(int(value)),
            }
        )
        average.add(network)
    state = average.weights()
    assert state["weight"].tolist() == pytest.approx([3.0, 3.0])
    assert state["running_mean"].tolist() == pytest.approx([30.0, 30.0])
    assert int(state["num_batches_tracked"]) == 6


# ------------------------------------------------------------------ what validation looks at


def a_config(dims: int, side: int = 16) -> TrainingConfig:
    flat = {"spatial_dims": dims, "spacing_mm": [1.0] * dims, "patch_size": [side] * dims}
    flat |= {"orientation": "acquired" if dims == 2 else "RAS"}
    stage = {**settings()["stages"][0], "size": [side] * dims}
    network = {**settings()["network"], "spatial_dims": dims, "image_size": [side] * dims}
    config = settings(preprocessing={**settings()["preprocessing"], **flat}, stages=[stage], network=network)
    return parse_config(config)


def cases_of(
    config: TrainingConfig, folder: Path, shape: tuple[int, ...], count: int = 3, wait: Callable[[str], None] = print
) -> PreparedCases:
    """Cases with a box in their first half; `wait` is called with the name of each before it is read."""

    def read(case: Case) -> Labelled:
        wait(case.name)
        label = np.zeros(shape, np.uint8)
        label[1 : shape[0] // 2, 2:6, 2:6] = 1
        grid = np.diag([-1.0, -1.0, 1.0, 1.0])
        return Labelled(Volume(label.astype(np.float32), grid, "MR"), Volume(label, grid))

    named = [Case(f"p{n}", f"p{n}", n, Path("image"), Path("label")) for n in range(count)]
    return PreparedCases(named, folder, config.preprocessing, read)


class Copies(nn.Module):
    """Says foreground where the image is bright; remembers the sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape[2:]))
        return torch.cat([-image, image], dim=1) * 10 - torch.tensor(5.0)


def test_large_volumes_are_seen_in_windows_of_a_patch_that_cover_them(tmp_path: Path) -> None:
    config = a_config(3)
    cases = cases_of(config, tmp_path, (40, 20, 33))
    cases.build()
    validation, network = Validation(cases, config, torch.device("cpu")), Copies()
    covered = np.zeros((40, 20, 33), bool)
    for window in validation.windows:
        if window.item == 0:
            assert window.start is not None
            covered[tuple(slice(s, s + 16) for s in window.start)] = True
    assert covered.all()
    judged = validation(network, lambda: None, None, lambda: 0.0)
    assert set(network.seen) == {(16, 16, 16)}
    assert judged.windows == 3 * 3 * 2 * 3
    assert judged.dice["Ball"] is not None and judged.dice["Ball"] > 0.9
    small = cases_of(config, tmp_path / "small", (16, 16, 20), count=1)
    small.build()
    assert [window.start for window in Validation(small, config, torch.device("cpu")).windows] == [None]


def test_a_network_that_sees_images_shrunk_is_judged_by_shrunk_images(tmp_path: Path) -> None:
    config = a_config(2)
    cases = cases_of(config, tmp_path, (4, 20, 24))
    cases.build()
    coarse = replace(config.stages[0], size=(8, 8), crop=False)
    validation, network = Validation(cases, config, torch.device("cpu")), Copies()
    shrunk = validation(network, lambda: None, None, lambda: 0.0, coarse)
    assert config.preprocessing.patch_size == (16, 16)
    assert set(network.seen) == {(10, 12)}, "half of the images' size, as the stage has half of the patch's"
    network.seen.clear()
    cut = validation(network, lambda: None, None, lambda: 0.0, replace(coarse, crop=True))
    assert set(network.seen) == {(20, 24)}
    assert shrunk.dice["Ball"] is not None and cut.dice["Ball"] is not None
    assert 0.2 < shrunk.dice["Ball"] < cut.dice["Ball"], "against labels that were not shrunk"


def test_any_number_of_windows_is_a_fair_sample_of_the_cases(tmp_path: Path) -> None:
    config = a_config(2)
    cases = cases_of(config, tmp_path, (20, 16, 16))
    cases.build()
    windows = Validation(cases, config, torch.device("cpu")).windows
    assert sorted(window.item for window in windows) == list(range(60)), "each slice once"
    first = windows[:12]
    names = [cases.case(window.item).name for window in first]
    assert {name: names.count(name) for name in names} == {"p0": 4, "p1": 4, "p2": 4}
    inside = [bool(cases.label(window.item).any()) for window in first]
    assert sum(inside) == 9 and not all(inside)


def test_a_validation_that_takes_too_long_looks_at_fewer_windows_from_then_on(tmp_path: Path) -> None:
    config = a_config(2)
    cases = cases_of(config, tmp_path, (20, 16, 16))
    cases.build()
    validation, network = Validation(cases, config, torch.device("cpu")), Copies()
    now = [0.0]

    def a_second_passes() -> None:
        now[0] += 1.0

    first = validation(network, a_second_passes, 6.5, lambda: now[0])
    assert first.windows == validation.limit == 7
    assert validation(network, a_second_passes, 100.0, lambda: now[0]).windows == 7, "the same ones"
    everything = Validation(cases, config, torch.device("cpu"))
    assert everything(network, a_second_passes, None, lambda: now[0]).windows == 60


def test_the_loss_sees_how_sure_a_network_is_where_dice_does_not(tmp_path: Path) -> None:
    config = a_config(2)
    cases = cases_of(config, tmp_path, (8, 16, 16), count=1)
    cases.build()
    validation = Validation(cases, config, torch.device("cpu"))

    class Surer(Copies):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * 0.05

    sure, unsure = (validation(net, lambda: None, None, lambda: 0.0) for net in (Copies(), Surer()))
    assert sure.dice == unsure.dice
    assert sure.loss < unsure.loss


# ------------------------------------------------------------------ prepared meanwhile


def test_training_begins_with_some_cases_and_the_others_come_meanwhile(tmp_path: Path) -> None:
    config, go = replace(a_config(3)), threading.Event()
    read: list[str] = []

    def wait(name: str) -> None:
        read.append(name)
        assert name in ("p0", "p1") or go.wait(60)

    cases = cases_of(config, tmp_path, (16, 16, 16), count=5, wait=wait)
    cases.build(first=2)
    assert len(cases) == 2
    cases.raise_failure()
    go.set()
    cases.finish()
    assert len(cases) == 5 and read == ["p0", "p1", "p2", "p3", "p4"]


def test_what_goes_wrong_meanwhile_is_raised_where_it_is_asked_for_and_a_case_may_be_left_out(tmp_path: Path) -> None:
    def broken(name: str) -> None:
        if name == "p2":
            raise InputError("p2 cannot be read.", "", "")

    config = a_config(3)
    cases = cases_of(config, tmp_path / "a", (16, 16, 16), count=4, wait=broken)
    cases.build(first=1)
    with pytest.raises(InputError, match="p2"):
        cases.finish()
    left_out: list[str] = []
    cases = cases_of(config, tmp_path / "b", (16, 16, 16), count=4, wait=broken)
    cases.build(skip=lambda case, error: left_out.append(case.name), first=1)
    cases.finish()
    assert left_out == ["p2"] and len(cases) == 3


def test_preparing_stops_when_the_training_does(tmp_path: Path) -> None:
    go, read = threading.Event(), list[str]()

    def wait(name: str) -> None:
        read.append(name)
        assert name == "p0" or go.wait(60)

    cases = cases_of(a_config(3), tmp_path, (16, 16, 16), count=5, wait=wait)
    cases.build(first=1)
    cases.stop()
    go.set()
    cases.finish()
    assert len(read) <= 2
