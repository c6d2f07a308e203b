"""Between the base and what was learned: as near the base as the site's own validation cases allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from apformer.bundles import ModelLibrary

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import finetune, rounds
from apformer.finetuning.blend import SHARES, as_good, blended, choose_share
from apformer.finetuning.heads import grown_weights
from apformer.finetuning.session import _middle
from crash_samples import TINY, plain_pictures, weights_of
from finetune_samples import a_base, a_request, a_site


@pytest.fixture(autouse=True)
def pictures_are_not_drawn() -> Iterator[None]:
    with plain_pictures():
        yield


def assert_halfway(found: torch.Tensor, start: torch.Tensor, learned: torch.Tensor) -> None:
    torch.testing.assert_close(found, (start + learned) / 2, rtol=2e-3, atol=2e-4)  # bundles hold half precision


@pytest.mark.parametrize(
    ("dice", "learned", "share"),
    [
        ((0.80, 0.85, 0.88), 0.90, 1.0),
        ((0.80, 0.8981, 0.88), 0.90, 0.5),  # 0.002 below the best is as good
        ((0.80, 0.8979, 0.88), 0.90, 1.0),
        ((0.93, 0.95, 0.94), 0.90, 0.5),  # better than the end of the way
        ((0.90, 0.90, 0.90), 0.90, 0.25),
    ],
)
def test_the_nearest_place_to_the_base_that_is_as_good_as_the_best_is_chosen(
    dice: tuple[float, ...], learned: float, share: float
) -> None:
    by_share = dict(zip(SHARES, dice, strict=True))
    chosen, told = choose_share(learned, by_share.__getitem__, patients=100)
    assert chosen == share
    assert told == {**{f"{place:g}": value for place, value in by_share.items()}, "1": learned}


def test_few_patients_do_not_decide_alone_how_far_the_model_leaves_its_base() -> None:
    by_share = dict(zip(SHARES, (0.88, 0.89, 0.897), strict=True))
    chosen = {patients: choose_share(0.90, by_share.__getitem__, patients)[0] for patients in (1, 2, 25, 400)}
    assert chosen == {1: 0.25, 2: 0.5, 25: 0.75, 400: 1.0}


def test_weights_lie_on_the_line_and_gates_and_counters_stay_as_learned() -> None:
    start = {"weight": torch.tensor([0.0, 2.0]), "gate": torch.tensor(0.0), "batches": torch.tensor(3)}
    learned = {"weight": torch.tensor([4.0, 2.0]), "gate": torch.tensor(1.0), "batches": torch.tensor(9)}
    found = blended(start, learned, 0.25, {"gate"})
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "weight": [1.0, 2.0],
        "gate": 1.0,
        "batches": 9,
    }


def test_the_new_version_has_the_weights_of_the_chosen_place_and_new_structures_as_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModelLibrary([tmp_path / "models"])
    base = a_base(library, **TINY)
    site = a_site(tmp_path / "site")
    tuned: dict[float, dict[str, torch.Tensor]] = {}
    for share in (0.5, 1.0):
        monkeypatch.setattr(
            rounds, "choose_share", lambda learned, dice_at, patients, share=share: (share, {"1": learned})
        )
        outcome = finetune(a_request(site, name=f"share-{share}"), library=library)
        assert json.loads(outcome.report.read_text(encoding="utf-8"))["blend"]["share"] == share
        tuned[share] = weights_of(outcome.bundle)
    start = grown_weights(base, "apformer", outcome.bundle.network_arguments, {1: 1}, a_request(site).seed)
    for name, learned in tuned[1.0].items():
        if learned.is_floating_point() and not name.startswith("head."):
            assert_halfway(tuned[0.5][name], start[name], learned)
    assert not tuned[1.0]["level1.0.weight"].equal(start["level1.0.weight"]), "something was learned"
    for name in ("head.weight", "head.bias"):  # background, Ball: known to the base; Hole: new
        assert_halfway(tuned[0.5][name][:2], start[name][:2], tuned[1.0][name][:2])
        assert tuned[0.5][name][2].equal(tuned[1.0][name][2])


@pytest.mark.parametrize("settings", [{}, {"budget": "keep=0.5", "steps": 12}])
def test_the_report_tells_how_good_every_place_was(tmp_path: Path, settings: dict[str, Any]) -> None:
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    outcome = finetune(a_request(a_site(tmp_path / "site"), **settings), library=library)
    blend = outcome.summary["blend"]
    assert set(blend["dice"]) == {f"{share:g}" for share in (*SHARES, 1.0)}
    best = max(blend["dice"].values())
    assert blend["dice"][f"{blend['share']:g}"] >= best - as_good(1) - 1e-5


@pytest.mark.parametrize("settings", [{"rehearsal": False}, {"base": None}])
def test_without_a_base_to_remember_all_of_the_way_is_gone(tmp_path: Path, settings: dict[str, Any]) -> None:
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    outcome = finetune(a_request(a_site(tmp_path / "site"), **settings), library=library)
    assert outcome.summary["blend"] is None


def test_the_training_on_all_cases_goes_as_far_as_those_of_the_folds() -> None:
    places = [{"share": share, "dice": {"0.5": dice, "1": 0.9}} for share, dice in ((0.5, 0.8), (1.0, 0.7), (0.5, 0.9))]
    assert _middle([{"blend": place} for place in places]) == {"share": 0.5, "dice": {"0.5": 0.8, "1": 0.9}}
    assert _middle([{"blend": None}]) is None
