"""The job `follow`: a corrected segmentation in, the rest of the volume proposed anew, in the worker's own files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import load_bundle
from apformer.errors import InputError
from apformer.inference import Segmenter
from apformer.jobs.arrays import image_fields, part_fields
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Event, Fields, RequestError
from apformer.networks import registered
from apformer.part import Part
from cli_samples import files_in
from following_samples import GRID, Thresholds, a_patient, corrected, dice, save_thresholds, truth
from job_samples import run_here

PATIENT = a_patient()
RIGHT = truth(PATIENT)
REST = [0, 1, 2, 4, 5, 6]


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with registered("thresholds", Thresholds):
        yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_thresholds(tmp_path / "hippocampus-test").directory


def asking(folder: Path, model: Path, now: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    """A request whose slice 3 was corrected, unless `now` says what the segmentation is."""
    folder.mkdir(exist_ok=True)
    proposal = Segmenter(load_bundle(model), "cpu").segment(PATIENT).labels.array
    now = corrected(proposal, RIGHT, 3) if now is None else now
    names = ("labels", "uncertainty", "certain", "model")
    fields: dict[str, Any] = {
        "array": image_fields(folder / "image.npy", PATIENT.array, GRID, "MR"),
        "proposal": part_fields(folder / "proposal.npy", Part.of(proposal)),
        "labels": part_fields(folder / "now.npy", Part.of(now)),
        "model": str(model),
        "device": "cpu",
        "right": {"k": [3]},
        "seconds": 600,
        "outputs": {name: str(folder / ("kept" if name == "model" else f"out-{name}.npy")) for name in names},
    }
    return fields | more


def whole(result: dict[str, Any], name: str) -> np.ndarray:
    return Part.at(np.load(result["paths"][name], allow_pickle=False), result["parts"][name]).whole()


def test_a_corrected_slice_becomes_a_new_proposal_in_files(tmp_path: Path, model: Path) -> None:
    fields = asking(tmp_path / "job", model)
    now = Part.at(np.load(fields["labels"]["file"]), fields["labels"]).whole()
    result = run_here("follow", **fields)
    labels = whole(result, "labels")
    assert result["gained"] and np.array_equal(labels[3], RIGHT[3])
    assert dice(labels[REST], RIGHT[REST]) > dice(now[REST], RIGHT[REST]) + 0.05
    assert result["followed"] == "1 corrected slice" == result["provenance"]["followed"]
    assert result["added_ml"]["anterior"] > 0 and result["structures"]["anterior"]["voxels"] == np.count_nonzero(labels)
    assert not whole(result, "uncertainty")[3].any() and isinstance(result["places"], list)
    certain = Part.at(np.load(result["paths"]["certain"]), result["certain"]).whole()
    assert certain[3].all() and not certain[REST].any()
    told = json.loads((tmp_path / "job" / "out-labels.json").read_text())
    assert told["followed"] == "1 corrected slice" and told["gained"]


def test_the_adapted_network_is_a_model_for_the_next_patients_of_the_session(tmp_path: Path, model: Path) -> None:
    result = run_here("follow", **asking(tmp_path / "job", model))
    kept = load_bundle(result["paths"]["model"])
    assert kept.version == "1.0.0+followed" and kept.name == "hippocampus-test"


def test_what_was_certain_before_stays_so(tmp_path: Path, model: Path) -> None:
    before = np.zeros(RIGHT.shape, np.uint8)
    before[5] = 1
    folder = tmp_path / "job"
    folder.mkdir()
    fields = asking(folder, model, certain=part_fields(folder / "before.npy", Part.of(before)))
    proposed = Part.at(np.load(fields["proposal"]["file"]), fields["proposal"]).whole()
    result = run_here("follow", **fields)
    assert np.array_equal(whole(result, "labels")[5], proposed[5])


def test_where_nothing_is_gained_the_labels_come_back_as_they_were(tmp_path: Path, model: Path) -> None:
    proposal = Segmenter(load_bundle(model), "cpu").segment(PATIENT).labels.array
    now = proposal.copy()
    now[2], now[4] = truth(PATIENT, (1.6,))[2], RIGHT[4]
    result = run_here("follow", **asking(tmp_path / "job", model, now, right={"k": [2, 4]}))
    assert not result["gained"] and np.array_equal(whole(result, "labels"), now)
    assert "uncertainty" not in result["parts"] and not (tmp_path / "job" / "kept").exists()
    assert any("Nothing would be gained" in warning for warning in result["warnings"])


def test_a_job_that_is_stopped_while_it_learns_leaves_nothing(tmp_path: Path, model: Path) -> None:
    fields = asking(tmp_path / "job", model)
    before = files_in(tmp_path / "job")

    def stop(job: Job, event: Event) -> None:
        if event.data.get("message") == "learning":
            job.cancel()

    with pytest.raises(Cancelled):
        run_here("follow", stop, **fields)
    assert files_in(tmp_path / "job") == before


def test_a_volume_of_another_size_is_refused(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "job"
    fields = asking(folder, model)
    fields["array"] = image_fields(folder / "other.npy", PATIENT.array[1:], GRID, "MR")
    with pytest.raises(InputError, match="The volume was changed meanwhile"):
        run_here("follow", **fields)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"right": {"x": [1]}}, "unknown field 'x'"),
        ({"right": {"k": [-1]}}, "'k'"),
        ({"plane": "axial"}, "'plane'"),
        ({"seconds": 0}, "'seconds'"),
        ({"labels": {"file": "a.npy"}}, "'start_kji'"),
        ({"outputs": {}}, "'labels'"),
    ],
)
def test_a_request_that_is_wrong_is_refused_before_anything_is_read(change: dict[str, Any], told: str) -> None:
    place = {"start_kji": [0, 0, 0], "shape_kji": [1, 1, 1]}
    fields: dict[str, Any] = {
        "image": "image.nii",
        "model": "liver-ct",
        "proposal": {"file": "a.npy", **place},
        "labels": {"file": "b.npy", **place},
        "outputs": {"labels": "c.npy"},
    }
    with pytest.raises(RequestError, match=told):
        HANDLERS["follow"].parse(Fields("follow", fields | change))
