"""A whole fine-tuning: the base is measured first, the model learns, and takes over only when it is better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import Bundle, ModelLibrary
from apformer.bundles.manifest import WEIGHTS, write_checksums
from apformer.datasets import SiteDataset
from apformer.errors import BundleError
from apformer.inference import Segmenter

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import finetune
from apformer.finetuning.rounds import Allowance
from apformer.finetuning.session import _Session
from apformer.finetuning.timing import FEWEST_STEPS_IN_ALL
from apformer.training.checkpoint import CHECKPOINT
from finetune_samples import a_ball, a_base, a_request, a_site
from safetensors.torch import load_file, save_file
from version_samples import copy_as

pytestmark = pytest.mark.long

ENOUGH = 270  # steps after which a small network tells balls from noise; half of them are not enough for it


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary([tmp_path / "models"])


@pytest.fixture
def base(library: ModelLibrary) -> Bundle:
    return a_base(library)


def a_weak_copy(bundle: Bundle, library: ModelLibrary) -> Bundle:
    """A trained model whose last layer forgot everything, as an active version of the name weak. It learns anew in a
    tenth of the steps, since the layers before still see."""

    def write(folder: Path) -> None:
        copy_as(bundle.directory, folder, "weak", "1.0.0")
        weights = load_file(folder / WEIGHTS)
        noise = torch.randn(weights["head.weight"].shape, generator=torch.Generator().manual_seed(0))
        weights["head.weight"] = 0.1 * noise.to(weights["head.weight"].dtype)
        save_file(weights, folder / WEIGHTS)
        write_checksums(folder)

    return library.activate("weak", library.add_version(write).version)


def told(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[dict[str, Any]], ModelLibrary, Path]:
    """A model of Ball and Hole that was trained from scratch: (outcome, events, library, site)."""
    folder = tmp_path_factory.mktemp("learned")
    library = ModelLibrary([folder / "models"])
    site = a_site(folder / "site")
    events: list[dict[str, Any]] = []
    request = a_request(site, base=None, name="balls", steps=ENOUGH)
    outcome = finetune(request, library=library, on_event=events.append)
    return outcome, events, library, site.root


def test_a_model_from_scratch_learns_and_segments_new_images(learned: Any) -> None:
    outcome, _, library, _ = learned
    assert outcome.adopted
    dice = {name: entry["mean_dice"] for name, entry in outcome.summary["after"]["labels"].items()}
    assert min(dice.values()) > 0.4, "untrained networks reach 0.06"
    image, truth = a_ball(99)
    found = Segmenter(library.find("balls"), "cpu").segment(image).labels.array
    overlap = 2 * np.count_nonzero((found == 1) & (truth.array == 1))
    assert overlap / (np.count_nonzero(found == 1) + np.count_nonzero(truth.array == 1)) > 0.3


def test_events_tell_what_a_host_shows(learned: Any) -> None:
    _, events, _, site = learned
    json.dumps(events)  # plain data
    fractions = [event["fraction"] for event in told(events, "progress")]
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)
    epochs = told(events, "epoch")
    assert [event["epoch"] for event in epochs] == list(range(1, len(epochs) + 1))
    shown = next(event for event in epochs if event["overlays"])
    assert set(shown["dice"]) == {"Ball", "Hole"}
    assert shown["losses"]["total"] > 0
    assert len(shown["overlays"]) == 2
    kept = site / "trainings" / "balls-1.0.0" / "training"
    assert sorted(kept.glob("epoch-*.png")), "pictures of the training stay with its report"


def test_the_report_holds_what_was_done_and_the_page_needs_nothing_else(learned: Any) -> None:
    outcome, _, _, site = learned
    report = json.loads(outcome.report.read_text(encoding="utf-8"))
    assert report["version"] == outcome.bundle.version == "1.0.0"
    assert report["data"]["folds"] == 1
    assert not set(report["data"]["training_cases"]) & set(report["data"]["validation_cases"])
    assert report["curves"][-1]["dice"]
    assert report["settings"]["recipe"]["stages"][0]["learning_rate"] > 0
    assert set(report["after"]["cases"]) == set(report["data"]["validation_cases"])
    for picture in report["pictures"]["worst"]:
        assert (outcome.report.parent / picture["file"]).stat().st_size > 500
    page = outcome.page.read_text(encoding="utf-8")
    assert "http://" not in page and "https://" not in page
    left = {path.name for path in outcome.report.parent.rglob("*")}
    assert not {CHECKPOINT, "plan.json", "draft"} & left, "what only an unfinished training needs is gone"
    assert str(site) not in json.dumps(report["settings"]), "reports name no folders of this computer"


def test_a_better_version_takes_over_and_one_step_goes_back(learned: Any) -> None:
    trained, _, library, site = learned
    weak = a_weak_copy(trained.bundle, library)
    events: list[dict[str, Any]] = []
    request = a_request(SiteDataset.open(site), base="weak", name="weak", steps=30, rehearsal=False)
    outcome = finetune(request, library=library, on_event=events.append)
    first_epoch = next(n for n, event in enumerate(events) if event["event"] == "epoch")
    measured = told(events, "measured")
    assert [event["which"] for event in measured] == ["before", "after"]
    assert events.index(measured[0]) < first_epoch, "the base is measured before anything is trained"
    before, after = (outcome.summary[which]["labels"]["Ball"]["mean_dice"] for which in ("before", "after"))
    assert after > before + 0.05
    assert outcome.adopted
    assert library.find("weak").version == outcome.bundle.version == "1.1.0"
    assert outcome.bundle.metadata["parent_version"] == "weak 1.0.0"
    assert library.rollback("weak").checksum == weak.checksum
    assert library.find("weak@1.1.0").checksum == outcome.bundle.checksum, "no version is lost"


def test_what_is_not_better_is_kept_but_not_adopted(tmp_path: Path, library: ModelLibrary, base: Bundle) -> None:
    site = a_site(tmp_path / "site")
    outcome = finetune(a_request(site, name="ball", steps=6), library=library)
    assert not outcome.adopted
    assert "no clear gain" in outcome.verdict
    assert library.find("ball").checksum == base.checksum
    assert library.find("ball@1.1.0").version == "1.1.0"
    forced = finetune(a_request(site, name="ball", steps=6, adopt="always"), library=library)
    assert forced.adopted
    assert library.find("ball").version == forced.bundle.version == "1.2.0"


def test_a_model_that_finds_nothing_is_never_adopted_even_if_that_is_asked_for(
    tmp_path: Path, library: ModelLibrary, base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apformer.finetuning import session

    def blind(*arguments: Any, **more: Any) -> Any:
        scores = measure(*arguments, **more)
        for score in scores.values():
            for entry in score["labels"].values():
                entry |= {"both": 0, "predicted": 0}
        return scores

    measure = session.measure
    monkeypatch.setattr(session, "measure", blind)
    request = a_request(a_site(tmp_path / "site"), base=None, adopt="always")
    outcome = finetune(request, library=library)
    assert not outcome.adopted
    assert "finds nothing is never put in use" in outcome.verdict and "found nothing of Ball, Hole" in outcome.verdict


def test_a_first_version_that_is_no_better_than_its_base_waits_to_be_activated(
    tmp_path: Path, library: ModelLibrary, base: Bundle
) -> None:
    finetune(a_request(a_site(tmp_path / "site"), name="other"), library=library)
    with pytest.raises(BundleError, match="No version of other is active"):
        library.find("other")


def test_with_few_patients_every_one_is_judged_once_by_a_model_that_never_saw_it(
    tmp_path: Path, library: ModelLibrary, base: Bundle
) -> None:
    site = a_site(tmp_path / "site", patients=4)
    events: list[dict[str, Any]] = []
    outcome = finetune(a_request(site), library=library, on_event=events.append)
    data = outcome.summary["data"]
    assert data["folds"] == 3
    assert sorted(outcome.summary["after"]["cases"]) == [case.name for case in site.cases()]
    assert {(event["fold"], event["folds"]) for event in told(events, "epoch")} == {(n, 4) for n in (1, 2, 3, 4)}
    final = [event for event in told(events, "epoch") if event["fold"] == 4]
    assert all(event["dice"] is None for event in final), "on cases that it was trained on there is nothing to tell"


def test_a_budget_prunes_the_new_version(learned: Any, tmp_path: Path) -> None:
    _, _, library, _ = learned  # a base whose prune head knows balls
    site = a_site(tmp_path / "site")
    events: list[dict[str, Any]] = []
    request = a_request(site, base="balls", name="light", steps=60, budget="keep=0.5", adopt="always")
    outcome = finetune(request, library=library, on_event=events.append)
    phases = [event["phase"] for event in told(events, "epoch")]
    assert list(dict.fromkeys(phases)) in (["prune"], ["adapt", "prune"]), "whenever the prune head is ready"
    assert all(0 <= event["kept"] <= 1 for event in told(events, "epoch") if event["phase"] != "adapt")
    assert outcome.bundle.network_arguments["prune_queries"] is True
    after = outcome.summary["after"]
    assert after["gmac"] <= after["gmac_dense"]
    assert outcome.summary["before"]["kept_tokens_mean"] is None
    assert 0 <= after["kept_tokens_mean"] <= 1
    assert 0.9 < after["foreground_inside"] <= 1
    events.clear()
    further = a_request(site, base="light", name="lighter", steps=12, budget="keep=0.4", adopt="always")
    finetune(further, library=library, on_event=events.append)
    assert {event["phase"] for event in told(events, "epoch")} == {"prune"}, "a base with gates begins with them"
    again = finetune(a_request(site, base="light", name="light", steps=12), library=library)
    assert not again.bundle.network_arguments.get("prune_queries"), "gates of other images are not taken over"


def test_labels_that_the_site_does_not_have_are_kept_from_the_base(learned: Any, tmp_path: Path) -> None:
    _, _, library, _ = learned
    site = a_site(tmp_path / "site", labels="2=Hole", only=2)
    events: list[dict[str, Any]] = []
    outcome = finetune(a_request(site, base="balls", name="balls", steps=12), library=library, on_event=events.append)
    assert {name for event in told(events, "epoch") for name in event["dice"]} == {"Hole"}
    assert [label.name for label in outcome.bundle.labels] == ["Ball", "Hole"]
    assert list(outcome.summary["after"]["labels"]) == ["Hole"], "nothing at the site can judge the ball"
    image, truth = a_ball(50)
    found = Segmenter(outcome.bundle, "cpu").segment(image).labels.array
    both = np.count_nonzero((found == 1) & (truth.array == 1))
    assert both > 0.4 * np.count_nonzero(truth.array == 1), "the ball is not forgotten"


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, library: ModelLibrary, base: Bundle) -> None:
    site = a_site(tmp_path / "site")
    request = a_request(site, adopt="never")
    first, second = (finetune(replace(request, name=name), library=library).bundle for name in ("a", "b"))
    other = finetune(replace(request, name="c", seed=1), library=library).bundle
    weights = [bundle.build_network().state_dict()["head.weight"] for bundle in (first, second, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_fold_that_has_no_time_left_takes_the_fewest_steps_instead_of_losing_the_folds_before(
    tmp_path: Path, library: ModelLibrary, base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three folds and the final training; after the first, the clock says that nothing is left."""
    times = {4: Allowance(4.0, 0.0)}  # by trainings that are left
    nothing = Allowance(0.0, 0.0)
    monkeypatch.setattr(_Session, "_allowance", lambda self, setup, folder, place, left: times.get(left, nothing))
    site = a_site(tmp_path / "site", patients=4, labels="Ball", only=1)
    outcome = finetune(a_request(site, steps=None, seconds=60.0), library=library)
    steps: dict[int, int] = {}
    for row in json.loads(outcome.report.read_text(encoding="utf-8"))["curves"]:
        steps[row["fold"]] = steps.get(row["fold"], 0) + row["steps"]
    assert sorted(steps) == [1, 2, 3, 4]
    assert all(1 <= steps[fold] <= 3 * FEWEST_STEPS_IN_ALL for fold in (2, 3, 4))
