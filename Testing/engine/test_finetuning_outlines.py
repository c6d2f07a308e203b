"""Fine-tuning where cases outline only some structures: each judges what it outlines, and the rest stays open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.datasets import SiteDataset
from apformer.datasets.table import make_table
from apformer.errors import ConfigError
from apformer.finetuning import finetune
from apformer.finetuning.cases import SiteReader, as_case
from apformer.finetuning.labels import plan_labels
from apformer.finetuning.measure import measure, summary
from apformer.finetuning.setup import beginning, case_list, set_up
from apformer.training.cases import UNKNOWN
from apformer.training.parallel import Processes
from finetune_samples import a_ball, a_base, a_request

BALL, HOLE = 1, 2


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary([tmp_path / "models"])


def a_partial_site(folder: Path, outlined: list[tuple[int, ...]]) -> SiteDataset:
    """A data set of Ball and Hole with one case per patient, in which only these values are outlined."""
    dataset = SiteDataset.create(folder, make_table(["Ball,Hole"]), salt="0" * 32)
    names = {label.value: label.name for label in dataset.labels}
    for seed, values in enumerate(outlined):
        image, truth = a_ball(seed)
        kept = truth.with_array(np.where(np.isin(truth.array, values), truth.array, 0).astype(np.uint8))
        dataset.add(image, kept, patient=f"patient {seed}", outlined=[names[value] for value in values])
    return dataset


def in_halves(count: int = 8) -> list[tuple[int, ...]]:
    return [(HOLE,) if seed % 2 else (BALL,) for seed in range(count)]


def a_setup(site: SiteDataset, library: ModelLibrary, **changes: Any) -> Any:
    return set_up(a_request(site, **changes), library, Processes())


def test_each_case_is_judged_by_what_it_outlines_and_the_report_says_who_outlines_what(
    tmp_path: Path, library: ModelLibrary
) -> None:
    site = a_partial_site(tmp_path / "site", in_halves())
    outcome = finetune(a_request(site, base=None, name="balls"), library=library)
    report, cases = outcome.summary, {case.name: case for case in site.cases()}
    assert report["after"]["cases"]
    for name, figures in report["after"]["cases"].items():
        revision = cases[name].revision
        assert revision is not None and list(figures) == [{BALL: "Ball", HOLE: "Hole"}[revision.labelled[0]]]
    assert any("of 8 completed cases: Ball in 4, Hole in 4" in warning for warning in report["warnings"])
    assert "Ball in 4, Hole in 4" in outcome.page.read_text(encoding="utf-8")


def test_a_structure_that_no_validation_case_outlines_is_judged_by_nobody(
    tmp_path: Path, library: ModelLibrary
) -> None:
    site = a_partial_site(tmp_path / "site", [(BALL,)] * 8)
    validating = {case.patient for case in site.freeze_split().divide(site.cases())[1]}
    learning = next(case for case in site.cases() if case.patient not in validating)
    _, truth = a_ball(learning.number - 1)
    site.correct(learning.name, truth)  # the hole is outlined here alone
    outcome = finetune(a_request(site, base=None, name="balls"), library=library)
    assert outcome.summary["after"]["labels"]["Hole"]["mean_dice"] is None
    assert "Not judged, as no validation case has it: Hole" in outcome.verdict
    epochs = [row["dice"] for row in outcome_rows(outcome) if "dice" in row]
    assert epochs and all(dice["Hole"] is None and dice["Ball"] is not None for dice in epochs)


def outcome_rows(outcome: Any) -> list[dict[str, Any]]:
    return json.loads(outcome.report.read_text(encoding="utf-8"))["curves"]


def test_a_structure_that_no_case_outlines_is_left_out_and_refused_where_it_is_asked_for_by_name(
    tmp_path: Path, library: ModelLibrary
) -> None:
    site = a_partial_site(tmp_path / "site", [(BALL,)] * 4)
    with pytest.raises(ConfigError, match="Hole is outlined in no completed case") as caught:
        a_setup(site, library, base=None, name="balls", labels=("Ball", "Hole"))
    assert "--labels" in caught.value.remedy
    setup = a_setup(site, library, base=None, name="balls")
    assert setup.plan.judged == {1: "Ball"}
    assert "Hole is outlined in no completed case." in setup.warnings


def test_what_only_the_base_knows_is_kept_where_no_case_outlines_it(tmp_path: Path, library: ModelLibrary) -> None:
    a_base(library)
    site = a_partial_site(tmp_path / "site", [(HOLE,)] * 4)
    setup = a_setup(site, library)
    assert setup.plan.unlabelled == {1} and setup.plan.judged == {2: "Hole"}
    assert all(as_case(case, setup.plan).missing == frozenset() for case in setup.sites), "the base tells of the ball"
    assert any("is outlined in no completed case" in warning for warning in setup.warnings)


def test_values_that_were_not_outlined_are_those_of_the_model(tmp_path: Path, library: ModelLibrary) -> None:
    a_base(library)
    dataset = SiteDataset.create(tmp_path / "site", make_table(["1=Hole,2=Ball"]))
    image, truth = a_ball(0)
    case, _ = dataset.add(image, truth.with_array((truth.array == 1).astype(np.uint8)), patient="a", outlined=[])
    plan = plan_labels(dataset.labels, {1, 2}, library.find("ball"), a_request(dataset))
    assert plan.site_values == {2: 1, 1: 2} and as_case(case, plan).missing == {1}


def test_a_training_is_not_continued_when_something_else_was_outlined_since(
    tmp_path: Path, library: ModelLibrary
) -> None:
    a_base(library)
    site = a_partial_site(tmp_path / "site", in_halves(4))
    began = beginning(a_setup(site, library))
    assert began["cases"] == case_list(site.cases())
    assert set_up(a_request(site), library, Processes(), began).sites
    site.correct("case-0001", outlined=["Ball", "Hole"])
    with pytest.raises(ConfigError, match="case-0001 was removed, reopened or corrected"):
        set_up(a_request(site), library, Processes(), began)


def test_voxels_that_nobody_knows_are_marked_and_not_judged(tmp_path: Path, library: ModelLibrary) -> None:
    base = a_base(library)
    dataset = SiteDataset.create(tmp_path / "site", make_table(["Ball"]))
    image, truth = a_ball(0)
    labels = (truth.array == 1).astype(np.uint8)
    labels[:8] = 9
    open_half, _ = dataset.add(image, truth.with_array(labels), patient="a", mapping={"9": "ignore"})
    plan = plan_labels(dataset.labels, {1}, base, a_request(dataset))
    reader = SiteReader.of([open_half], plan)
    read = reader(as_case(open_half, plan))
    assert read.marks is not None and (read.marks[:8] == UNKNOWN).all() and not read.marks[8:].any()
    assert not read.label.array[:8].any()
    case = as_case(open_half, plan)
    scores = measure(base, [case], reader, {1: 1}, plan.judged, "cpu", check=lambda: None)
    entry = scores[case.name]["labels"]["Ball"]
    assert entry["predicted"] <= 8 * 16 * 16 and entry["reference"] == np.count_nonzero(truth.array[8:] == 1)


def test_a_case_that_outlines_nothing_of_what_is_judged_has_no_figures(tmp_path: Path, library: ModelLibrary) -> None:
    base = a_base(library)
    site = a_partial_site(tmp_path / "site", [(HOLE,), (BALL,)])
    plan = plan_labels(site.labels, {1, 2}, base, a_request(site, labels=("Ball",)))
    cases = [as_case(case, plan) for case in site.cases()]
    scores = measure(base, cases, SiteReader.of(site.cases(), plan), {1: 1}, plan.judged, "cpu", check=lambda: None)
    figures = summary("ball", scores, plan.judged, {})
    assert figures["cases"]["case-0001"] == {} and list(figures["cases"]["case-0002"]) == ["Ball"]
    dice = figures["cases"]["case-0002"]["Ball"]["dice"]
    assert figures["labels"]["Ball"]["mean_dice"] == pytest.approx(dice, abs=1e-4), "the other case says nothing"
