"""Several processes train one model: what is equal to a training in one process, what is not, and how all of them end.

Each process takes its part of every batch, and gradients are averaged. Losses over a batch (Dice is one) are therefore
means over the parts, so weights are not those of one process. Instance norm is used here: statistics of batch norm are
each process's own on CPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from apformer.bundles import ModelLibrary
from apformer.datasets import SiteDataset
from apformer.errors import ConfigError, DeviceError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import finetune, recipe
from apformer.training.parallel import Processes
from crash_samples import TINY, assert_same_weights, plain_pictures, plan_of
from finetune_samples import a_base, a_request, a_site
from parallel_samples import QUICK, SCENARIOS, dices

ENGINE = Path(__file__).resolve().parents[2] / "APFormerSlicer"
SCRIPT = Path(__file__).with_name("parallel_samples.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ENGINE), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
GRADIENT_TOLERANCE = 1e-6
DICE_TOLERANCE = 0.03
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one that has loaded torch")


@dataclass(frozen=True)
class Ran:
    """What the processes of each scenario of `parallel_samples` left, and the errors that they ended with."""

    site: SiteDataset
    library: ModelLibrary
    output: Path
    errors: dict[str, list[str | None]]

    def seen(self, scenario: str) -> list[dict[str, Any]]:
        return [torch.load(self.output / f"{scenario}-{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("parallel")
    library = ModelLibrary([folder / "models"])
    a_base(library, **TINY, norm="instance")
    site = a_site(folder / "site")
    said = subprocess.run(
        [sys.executable, *map(str, (SCRIPT, site.root, library.user_root, folder)), *SCENARIOS],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert said.returncode == 0, said.stderr
    return Ran(site, library, folder, json.loads(said.stdout.splitlines()[-1]))


@linux_only
def test_processes_that_train_together_end_without_an_error(ran: Ran) -> None:
    for scenario in ("together", "pruned", "whole", "resumed"):
        assert ran.errors[scenario] == [None, None]


@linux_only
def test_the_first_steps_gradient_is_the_mean_of_those_of_the_parts(ran: Ran) -> None:
    first, second = ran.seen("together")
    assert first["batch"].shape[0] == second["batch"].shape[0] == 1
    assert not first["batch"].equal(second["batch"]), "each has a part of its own"
    assert first["joined"].keys() == first["alone"].keys() == second["alone"].keys()
    for name, gradient in first["joined"].items():
        mean = (first["alone"][name] + second["alone"][name]) / 2
        assert (gradient - mean).abs().max() <= GRADIENT_TOLERANCE, name
        assert gradient.equal(second["joined"][name])
    assert any(not first["alone"][name].equal(second["alone"][name]) for name in first["alone"])


@linux_only
@pytest.mark.parametrize("scenario", ["together", "pruned"])
def test_all_processes_end_with_the_very_same_weights(ran: Ran, scenario: str) -> None:
    first, second = ran.seen(scenario)
    assert [name for name, tensor in first["weights"].items() if not tensor.equal(second["weights"][name])] == []
    assert first["version"] == second["version"] == "1.0.0"
    assert first["told"] > 0 and second["told"] == 0, "the first process alone speaks"


@linux_only
def test_what_two_processes_learn_is_as_good_as_what_one_learns(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "PEAK_RATE", QUICK)
    with plain_pictures():
        alone = finetune(a_request(ran.site, name="alone", **SCENARIOS["together"]), library=ran.library)
    expected, found = dices(alone.summary), ran.seen("together")[0]["dice"]
    before = {name: entry["mean_dice"] or 0.0 for name, entry in alone.summary["before"]["labels"].items()}
    assert max(expected[name] - before[name] for name in expected) > 0.3, "something was learned"
    assert all(abs(expected[name] - found[name]) <= DICE_TOLERANCE for name in expected)


@linux_only
def test_when_the_first_process_stops_the_other_ends_too_and_both_can_go_on_to_the_same_result(ran: Ran) -> None:
    first, second = ran.errors["stopped"]
    assert first == "Stopped()"
    assert second not in (None, "hangs")
    assert_same_weights(ran.library.find("stopped@1.0.0"), ran.library.find("whole@1.0.0"))
    assert ran.seen("resumed")[0]["dice"] == ran.seen("whole")[0]["dice"]


@linux_only
def test_when_another_process_fails_the_first_does_not_wait_for_it_and_nothing_is_lost(ran: Ran) -> None:
    first, second = ran.errors["left"]
    assert second == "Stopped()"
    assert first not in (None, "hangs")
    assert plan_of(ran.site, "left").exists(), "it can be continued"


@linux_only
def test_what_cannot_be_trained_is_refused_by_all(ran: Ran) -> None:
    assert all(error is not None and "no label 'Spleen'" in error for error in ran.errors["refused"])


def test_torchrun_ends_all_processes_when_one_stops(tmp_path: Path) -> None:
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY, norm="instance")
    site = a_site(tmp_path / "site")
    said = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *map(str, (SCRIPT, site.root, library.user_root, tmp_path, "stopped")),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=600,
    )
    assert said.returncode != 0
    assert "Stopped" in said.stderr
    assert plan_of(site, "stopped").exists()
    assert library.inactive() == []


# ------------------------------------------------------------------------------------------------ alone


@pytest.mark.parametrize(
    ("size", "items", "parts"), [(2, 4, [[0, 1], [2, 3]]), (2, 1, [[0], [0]]), (3, 2, [[0], [1], [0]])]
)
def test_every_process_takes_an_equal_part_of_a_batch(size: int, items: int, parts: list[list[int]]) -> None:
    assert [Processes(rank, size).share_of(list(range(items))) for rank in range(size)] == parts


def test_processes_that_cannot_find_each_other_are_told_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="could not be joined") as caught:
        Processes.from_environment()
    assert "torchrun" in caught.value.remedy


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"Process 2 .* there are 1") as caught:
        Processes(1, 2).device(torch.device("cuda"))
    assert "1 processes" in caught.value.remedy
    assert Processes(1, 2).device(torch.device("cpu")) == torch.device("cpu")
