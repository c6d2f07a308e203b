"""A base of other structures: its weights are begun with, and nothing else of it is kept, compared or rehearsed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import Bundle, ModelLibrary
from apformer.datasets import SiteDataset
from apformer.datasets.table import make_table
from apformer.errors import ConfigError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.commands.finetune_check import check_request, label_lines
from apformer.finetuning import Outcome, Request, finetune, rounds
from apformer.finetuning.blend import SHARES
from apformer.finetuning.form import choose_form
from apformer.finetuning.heads import NEW_LOGIT, grown_weights
from apformer.finetuning.labels import plan_labels
from apformer.finetuning.recipe import PEAK_RATE_NEW, PEAK_RATE_SCRATCH, write_recipe
from apformer.finetuning.window import window_problems
from apformer.jobs.preflight_finetune import estimate_finetune
from apformer.networks import build_network
from apformer.training.config import parse_config
from apformer.training.loop import Trainer
from apformer.training.run import write_bundle
from apformer.volume import Volume
from crash_samples import TINY, Stopped, Stopper
from finetune_samples import GRID, a_base, a_request, a_site
from training_samples import SETTINGS


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelLibrary:
    """Of one model, `ball`, which knows Ball."""
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    return library


@pytest.fixture
def site(tmp_path: Path) -> SiteDataset:
    """Of structures that `ball` does not know."""
    return a_site(tmp_path / "site", labels="Cube,Gap")


def names(plan: Any) -> list[str]:
    return [label.name for label in plan.labels]


def asked(**changes: Any) -> Request:
    return Request(Path("site"), **{"name": "new", "base": "ball", **changes})


# ------------------------------------------------------------------ which labels


def test_labels_of_a_base_of_other_structures_are_dropped(library: ModelLibrary) -> None:
    plan = plan_labels(make_table(["Cube,Gap"]), {1, 2}, library.find("ball"), asked())
    assert names(plan) == ["Cube", "Gap"] and plan.how == ("new", "new")
    assert plan.base_channels == {} and plan.unlabelled == frozenset() and plan.dropped == ("Ball",)
    assert plan.remembered(library.find("ball")) is None
    assert label_lines(plan) == ["Cube: new", "Gap: new", "dropped from the base: Ball"]


def test_they_are_kept_where_the_data_set_names_one_of_them_though_no_case_holds_it(library: ModelLibrary) -> None:
    base = library.find("ball")
    for table, mapping in ((["Cube,ball"], {}), (["Cube,Gap"], {"Gap": "Ball"})):
        plan = plan_labels(make_table(table), {1}, base, asked(mapping=mapping))
        assert names(plan) == ["Ball", "Cube"] and plan.unlabelled == {1} and plan.dropped == ()
        assert plan.remembered(base) is base


def test_a_version_of_the_base_that_would_find_nothing_of_what_the_base_does_is_refused(
    library: ModelLibrary, site: SiteDataset
) -> None:
    with pytest.raises(ConfigError, match="a version of ball that finds Cube, Gap and nothing of what") as caught:
        finetune(a_request(site, name="ball"), library=library)
    assert "another name" in caught.value.remedy
    assert [entry.version for entry in library.history("ball")] == ["1.0.0"]


# ------------------------------------------------------------------ a training


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights that each training began with."""
    begun: list[dict[str, torch.Tensor]] = []
    start_with = Trainer.start_with

    def watched(self: Trainer, weights: Any) -> None:
        begun.append({name: tensor.clone() for name, tensor in weights.items()})
        start_with(self, weights)

    monkeypatch.setattr(Trainer, "start_with", watched)
    return begun


def no_rehearsal(*_unused: Any) -> None:
    raise AssertionError("nothing of the base is to be rehearsed")


def report_of(outcome: Outcome) -> dict[str, Any]:
    return json.loads(outcome.report.read_text(encoding="utf-8"))


@pytest.mark.parametrize("budget", [None, "keep=0.5"])
def test_a_training_begins_with_the_encoder_of_the_base_and_outputs_of_its_own(
    library: ModelLibrary,
    site: SiteDataset,
    started: list[dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    budget: str | None,
) -> None:
    monkeypatch.setattr(rounds, "Rehearsal", no_rehearsal)
    outcome = finetune(a_request(site, budget=budget), library=library)
    assert [label.name for label in outcome.bundle.labels] == ["Cube", "Gap"]
    base, (start,) = library.find("ball").build_network().state_dict(), started
    assert all(start[name].equal(base[name]) for name in base if not name.startswith("head."))
    assert start["head.weight"].shape[0] == 3, "background and two structures"
    torch.testing.assert_close(start["head.bias"][1:], base["head.bias"][:1].expand(2) + NEW_LOGIT)
    assert not start["head.weight"][1].equal(start["head.weight"][2])
    report = report_of(outcome)
    assert report["before"] is None and report["rival"] is None and report["blend"] is None
    assert report["base"] == {"name": "ball", "version": "1.0.0", "other_structures": True}
    assert all(worst["dice_before"] is None for worst in report["pictures"]["worst"])


def test_an_output_of_the_base_does_not_become_that_of_another_structure_where_there_are_as_many(
    library: ModelLibrary,
) -> None:
    base = library.find("ball")
    old = base.build_network().state_dict()
    grown = grown_weights(base, "apformer", base.network_arguments, {}, seed=3)
    assert {name for name in old if not grown[name].equal(old[name])} == {"head.weight", "head.bias"}
    torch.testing.assert_close(grown["head.bias"][1], old["head.bias"][0] + NEW_LOGIT)


def test_it_is_learned_at_the_rate_of_a_model_from_nothing(library: ModelLibrary) -> None:
    """At the rate of a base that knows the structures, a liver was not found at all in the time in which it is at this
    one, or from nothing; see `docs/fine-tuning.md`."""
    base, first = library.find("ball"), []
    for table in (["Cube,Gap"], ["Ball,Gap"]):
        plan = plan_labels(make_table(table), {1, 2}, base, asked())
        form = choose_form(base, plan, None)
        first.append(write_recipe(asked(), base, plan, form, "1.0.0", "the site's own").stages[0])
    other, known = first
    assert (other.learning_rate, other.learn_position) == (PEAK_RATE_SCRATCH[len(other.size)], True)
    assert (known.learning_rate, known.learn_position) == (PEAK_RATE_NEW, False)


def test_report_and_card_say_what_it_began_with(library: ModelLibrary, site: SiteDataset) -> None:
    outcome = finetune(a_request(site), library=library)
    assert "began with the weights of ball 1.0.0, of other structures" in outcome.page.read_text(encoding="utf-8")
    card = (outcome.bundle.directory / "docs" / "README.md").read_text(encoding="utf-8")
    assert "- Begun with the weights of ball 1.0.0, of other structures; 6 patients of the site." in card
    assert "begun with the weights of ball 1.0.0, of other structures" in outcome.bundle.metadata["description"]
    assert any("No label of the data set is one of ball 1.0.0" in line for line in outcome.summary["warnings"])


def test_it_is_compared_with_the_version_that_is_active_under_its_name(
    library: ModelLibrary, site: SiteDataset
) -> None:
    first = finetune(a_request(site, adopt="never"), library=library)
    library.activate(first.bundle.name, first.bundle.version)
    report = report_of(finetune(a_request(site, seed=7), library=library))
    assert report["before"] is None and report["rival"]["model"] == "site-ball 1.0.0"
    assert report["rival"]["labels"].keys() == {"Cube", "Gap"}


def test_a_training_that_was_stopped_goes_on_without_the_base(
    library: ModelLibrary, site: SiteDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "Rehearsal", no_rehearsal)
    stopper = Stopper("step 3")
    with pytest.raises(Stopped):
        finetune(a_request(site), library=library, on_event=stopper, check=stopper.check)
    assert report_of(finetune(a_request(site, resume=True), library=library))["blend"] is None


def test_where_one_structure_is_the_bases_it_is_measured_rehearsed_and_gone_back_towards(
    library: ModelLibrary, tmp_path: Path
) -> None:
    report = report_of(finetune(a_request(a_site(tmp_path / "known")), library=library))
    assert report["base"]["other_structures"] is False
    assert report["before"]["labels"]["Ball"]["mean_dice"] is not None
    assert len(report["blend"]["dice"]) == len(SHARES) + 1


def test_preflight_says_so_and_counts_no_work_for_the_base(library: ModelLibrary, site: SiteDataset) -> None:
    verdict = estimate_finetune(check_request(a_request(site)), torch.device("cpu"))
    assert "Cube, Gap with the weights of ball 1.0.0, of other structures, on 6 cases" in verdict.about["work"]
    (told,) = (problem for problem in verdict.about["problems"] if problem["kind"] == "label names")
    assert "begin with the model's weights and learn Cube, Gap alone" in told["meaning"]
    assert "apformer dataset add-label" in told["remedy"]


# ------------------------------------------------------------------ a window that misses it


def a_ct_base(library: ModelLibrary, lower: float, upper: float) -> Bundle:
    settings = copy.deepcopy(SETTINGS) | {"name": "ct", "modality": "CT"}
    settings["network"] |= TINY
    settings["preprocessing"]["intensity"] = {"kind": "window", "lower": lower, "upper": upper}
    config = parse_config(settings)
    weights = build_network(config.network, config.network_arguments).state_dict()
    return library.add_version(lambda folder: write_bundle(config, weights, folder))


def a_chest(folder: Path) -> SiteDataset:
    """CT of water at 40 HU with a bone of 900 and a cyst of 0."""
    dataset = SiteDataset.create(folder, make_table(["Bone,Cyst"]))
    for seed in range(8):
        labels = np.zeros((16, 16, 16), np.uint8)
        labels[3:6, 3:6, 3:9], labels[9:13, 9:13, 9:13] = 1, 2
        image = np.select([labels == 1, labels == 2], [900.0, 0.0], 40.0).astype(np.float32)
        image += np.random.default_rng(seed).normal(0, 5, image.shape).astype(np.float32)
        dataset.add(Volume(image, GRID, "CT"), Volume(labels, GRID), patient=f"patient {seed}")
    return dataset


def test_a_structure_outside_of_the_bases_window_is_named_before_the_training_and_in_the_report(
    library: ModelLibrary, tmp_path: Path
) -> None:
    a_ct_base(library, -160, 240)
    site, told = a_chest(tmp_path / "chest"), Stopper()
    outcome = finetune(a_request(site, base="ct@1.0.0"), library=library, on_event=told)
    what = "100% of Bone is outside of the intensities that ct 1.0.0 sees, -160 to 240"
    assert any(event["event"] == "log" and event["message"].startswith(what) for event in told.told)
    assert any(warning.startswith(what) for warning in outcome.summary["warnings"])
    verdict = estimate_finetune(check_request(a_request(site, name="other", base="ct@1.0.0")), torch.device("cpu"))
    assert [one["what"][: len(what)] for one in verdict.about["problems"] if one["kind"] == "window"] == [what]


@pytest.mark.parametrize(
    ("lower", "upper", "missed"), [(-160, 1200, []), (-160, 240, ["Bone"]), (100, 300, ["Bone", "Cyst"])]
)
def test_only_what_the_window_cuts_off_is_told(
    library: ModelLibrary, tmp_path: Path, lower: float, upper: float, missed: list[str]
) -> None:
    base, site = a_ct_base(library, lower, upper), a_chest(tmp_path / "chest")
    plan = plan_labels(site.labels, {1, 2}, base, asked())
    told = window_problems(base, site.cases(), plan)
    assert [problem.what.split()[2] for problem in told] == missed
    assert all("Choose a base for structures of such intensities" in problem.remedy for problem in told)


def test_what_a_base_knows_is_not_looked_at(library: ModelLibrary, tmp_path: Path) -> None:
    base, site = a_ct_base(library, -160, 240), a_chest(tmp_path / "chest")
    plan = plan_labels(site.labels, {1, 2}, base, asked(mapping={"Bone": "Ball"}))
    assert window_problems(base, site.cases(), plan) == []
    assert window_problems(None, site.cases(), plan) == [] == window_problems(library.find("ball"), site.cases(), plan)
