"""The job that stores a case: as the data set itself would, told step by step, stopped without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.datasets import COMPLETED, SiteDataset, identity
from apformer.datasets.recovery import ANNOUNCED_FILE, SET_ASIDE
from apformer.errors import APFormerError, ConfigError
from apformer.files import read_volume
from apformer.jobs.arrays import image_fields, part_fields
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Event, RequestError
from apformer.part import Part
from bundle_samples import LABELS
from job_samples import run_here

MATRIX = np.diag([-0.8, -0.9, 2.0, 1.0])
SHAPE = (5, 6, 7)
FIRST, SECOND = LABELS
identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients


@pytest.fixture
def site(tmp_path: Path) -> SiteDataset:
    return SiteDataset.create(tmp_path / "Fälle 脳", LABELS)


def a_mask(value: int = FIRST.value) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:4, 2:4] = value
    return mask


def asking(site: SiteDataset, folder: Path, mask: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    fields = {
        "dataset": str(site.root),
        "array": image_fields(folder / "image.npy", image, MATRIX, "MR", name="MR of Müller"),
        "labels": part_fields(folder / "labels.npy", Part.of(a_mask() if mask is None else mask)),
        "names": {str(label.value): label.name for label in LABELS},
        "patient": "Müller 0815",
    }
    return {name: value for name, value in {**fields, **more}.items() if value is not None}


def stored(site: SiteDataset) -> SiteDataset:
    site.reload()
    return site


def test_a_new_case_is_stored_and_names_nobody(site: SiteDataset, tmp_path: Path) -> None:
    told: list[str] = []

    def hear(job: Job, event: Event) -> None:
        told.append(event.data.get("message", ""))

    result = run_here("store", hear, **asking(site, tmp_path / "job", status=COMPLETED, who="Dr. Ö", comment="fine"))
    assert (result["present"], result["case"], result["status"]) == (None, "case-0001", COMPLETED)
    (case,) = stored(site).cases()
    assert case.labels_path is not None and np.array_equal(read_volume(case.labels_path).array, a_mask())
    assert (case.revision.who, case.revision.comment) == ("Dr. Ö", "fine")
    assert {"storing the image", "reading it back to prove it", "storing the labels"} <= set(told)
    kept = b"".join(path.read_bytes() for path in site.root.rglob("*") if path.is_file())
    assert b"0815" not in kept and "Müller".encode() not in kept


def test_what_was_proposed_is_kept_as_an_earlier_version(site: SiteDataset, tmp_path: Path) -> None:
    corrected = a_mask()
    corrected[4, 5, 6] = SECOND.value
    proposed = a_mask()
    proposed[0, 0, 0] = 9  # a label that the site does not have
    part = part_fields(tmp_path / "proposal.npy", Part.of(proposed))
    names = {str(FIRST.value): f"  {FIRST.name.upper()}\u00a0", "9": "Spleen"}
    proposal = {"model": "slices 1.0.0", "labels": part, "names": names}
    run_here("store", **asking(site, tmp_path / "job", corrected, proposal=proposal))
    (case,) = stored(site).cases()
    assert case.current == 2 and case.proposal.proposed_by == "slices 1.0.0"
    assert np.array_equal(read_volume(case.revision_path(case.proposal)).array, a_mask())
    assert np.array_equal(read_volume(case.labels_path).array, corrected)


def test_a_known_image_changes_nothing_until_it_is_asked_for(site: SiteDataset, tmp_path: Path) -> None:
    run_here("store", **asking(site, tmp_path / "a"))
    other = a_mask(SECOND.value)
    again = run_here("store", **asking(site, tmp_path / "b", other))
    assert again["present"] == "case-0001" and "already" in again["reason"]["what"]
    assert stored(site).cases()[0].current == 1
    run_here("store", **asking(site, tmp_path / "b", other, correct=True))
    assert np.array_equal(read_volume(stored(site).cases()[0].labels_path).array, other)


def test_a_case_that_was_opened_is_corrected_by_its_name_without_an_image(site: SiteDataset, tmp_path: Path) -> None:
    run_here("store", **asking(site, tmp_path / "a"))
    other = a_mask(SECOND.value)
    run_here("store", **asking(site, tmp_path / "b", other, array=None, patient=None, case="case-0001"))
    assert np.array_equal(read_volume(stored(site).cases()[0].labels_path).array, other)
    with pytest.raises(ConfigError, match="case-0009"):
        run_here("store", **asking(site, tmp_path / "b", other, array=None, case="case-0009"))


def test_what_was_outlined_is_stored_with_the_labels(site: SiteDataset, tmp_path: Path) -> None:
    run_here("store", **asking(site, tmp_path / "a", outlined=[]))
    assert stored(site).cases()[0].revision.labelled == (FIRST.value,)
    again = asking(site, tmp_path / "b", array=None, patient=None, case="case-0001", outlined=[FIRST.name, SECOND.name])
    run_here("store", **again)
    assert stored(site).cases()[0].revision.labelled is None
    with pytest.raises(ConfigError, match="no 'Spleen'"):
        run_here(
            "store", **asking(site, tmp_path / "c", array=None, patient=None, case="case-0001", outlined=["Spleen"])
        )
    with pytest.raises(RequestError, match="'outlined'"):
        run_here("store", **asking(site, tmp_path / "d", outlined=[1]))


def test_a_proposal_that_was_corrected_says_what_was_outlined_in_the_correction(
    site: SiteDataset, tmp_path: Path
) -> None:
    part = part_fields(tmp_path / "proposal.npy", Part.of(a_mask(SECOND.value)))
    proposal = {"model": "slices 1.0.0", "labels": part, "names": {str(SECOND.value): SECOND.name}}
    run_here("store", **asking(site, tmp_path / "job", proposal=proposal, outlined=[]))
    (case,) = stored(site).cases()
    assert [revision.labelled for revision in case.revisions] == [None, (FIRST.value,)]


@pytest.mark.parametrize("step", ["storing the image", "reading it back to prove it", "storing the labels"])
def test_cancelled_at_any_step_it_leaves_the_data_set_as_it_was(site: SiteDataset, tmp_path: Path, step: str) -> None:
    def cancel(job: Job, event: Event) -> None:
        if event.data.get("message") == step:
            job.cancel()

    before = sorted(path.name for path in site.root.rglob("*"))
    with pytest.raises(Cancelled):
        run_here("store", cancel, **asking(site, tmp_path / "job"))
    assert stored(site).cases() == []
    left = {path.name for path in site.root.rglob("*")} - {"cases"}
    assert left <= {*before, ".lock", ANNOUNCED_FILE}, left
    assert run_here("store", **asking(site, tmp_path / "job"))["case"] == "case-0001"
    left = {path.name for path in site.root.iterdir()}
    assert ANNOUNCED_FILE not in left and SET_ASIDE not in left


@pytest.mark.parametrize(
    "change",
    [
        {"names": {"x": "anterior"}},
        {"names": {"0": "anterior"}},
        {"names": {"256": "anterior"}},
        {"array": None},
        {"case": "case-0001"},
        {"status": "done"},
        {"labels": {"file": "a.npy", "start_kji": [0, 0, -1], "shape_kji": [5, 6, 7]}},
        {"labels": {"file": "a.npy", "start_kji": [0, 0, 0]}},
        {"unknown": 1},
    ],
)
def test_a_request_that_cannot_be_is_refused(site: SiteDataset, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        run_here("store", **asking(site, tmp_path / "job", **change))


def test_labels_that_do_not_fit_or_are_not_known_are_told(site: SiteDataset, tmp_path: Path) -> None:
    outside = {"file": str(tmp_path / "l.npy"), "start_kji": [4, 0, 0], "shape_kji": list(SHAPE)}
    np.save(tmp_path / "l.npy", np.ones((3, 2, 2), np.uint8))
    for change in ({"labels": outside}, {"names": {"1": "Spleen"}}, {"dataset": str(tmp_path / "nowhere")}):
        with pytest.raises(APFormerError) as caught:
            run_here("store", **asking(site, tmp_path / "job", **change))
        assert caught.value.remedy
    assert stored(site).cases() == []
