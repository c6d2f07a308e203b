"""The job `follow` for structures that no model knows: outlines in, what lies between out, in the worker's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.jobs.arrays import image_fields, part_fields
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Event, Fields, RequestError
from apformer.networks import registered
from apformer.part import Part
from cli_samples import files_in
from following_samples import GRID, Thresholds, a_patient, dice, save_thresholds, truth
from job_samples import run_here

ROWS, COLUMNS = np.mgrid[:32, :32]
TUBE = np.stack([(ROWS - 10 - k * 0.5) ** 2 + (COLUMNS - 20) ** 2 < 40 for k in range(13)])
IMAGE = (100 + 80 * TUBE + np.random.default_rng(0).normal(0, 6, TUBE.shape)).astype(np.float32)
DRAWN, GAPS = [1, 6, 11], [2, 3, 4, 5, 7, 8, 9, 10]


def outlines(*slices: int) -> np.ndarray:
    labels = np.zeros(TUBE.shape, np.uint8)
    labels[list(slices)] = 3 * TUBE[list(slices)]
    return labels


def asking(folder: Path, labels: np.ndarray, image: np.ndarray = IMAGE, slices: list[int] = DRAWN) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    outlined = {
        **part_fields(folder / "now.npy", Part.of(labels)),
        "names": {"3": "Tumour"},
        "planes": {"3": "k"},
        "slices": {"3": slices},
        "seconds": 2,
    }
    array = image_fields(folder / "image.npy", image, GRID, "MR")
    return {"array": array, "outlined": outlined, "outputs": {"outlined": str(folder / "out.npy")}}


def whole(result: dict[str, Any]) -> np.ndarray:
    return Part.at(np.load(result["paths"]["outlined"]), result["outlined"]["part"]).whole()


def test_what_lies_between_outlines_is_written_and_told(tmp_path: Path) -> None:
    result = run_here("follow", **asking(tmp_path / "job", outlines(*DRAWN)))
    found, told = whole(result), result["outlined"]
    assert np.array_equal(found[DRAWN], outlines(*DRAWN)[DRAWN]) and dice(found[GAPS] > 0, TUBE[GAPS]) > 0.85
    assert told["gained"] and told["followed"] == "3 outlined slices of Tumour"
    assert told["added_ml"]["Tumour"] == pytest.approx(np.count_nonzero(found[GAPS]) * 0.004)
    assert told["removed_ml"] == {"Tumour": 0.0}
    assert told["structures"]["Tumour"]["voxels"] == np.count_nonzero(found)
    assert told["provenance"]["model"] == "between-slices" and len(told["provenance"]["model_checksum"]) == 64
    assert "gained" not in result and "model" not in result  # no model was asked


def test_what_was_proposed_before_is_proposed_anew_and_what_went_is_told(tmp_path: Path) -> None:
    labels = outlines(*DRAWN)
    labels[4, 1:4, 1:20] = 3  # of an earlier proposal: slice 4 is not among the outlined ones
    result = run_here("follow", **asking(tmp_path / "job", labels))
    assert not whole(result)[4, 1:4, 1:12].any() and result["outlined"]["removed_ml"]["Tumour"] > 0


def test_outlines_without_anything_to_go_by_between_them_are_told(tmp_path: Path) -> None:
    labels = np.zeros(TUBE.shape, np.uint8)
    labels[1, 4, 4], labels[11, 28, 28] = 3, 3  # single voxels, far apart
    result = run_here("follow", **asking(tmp_path / "job", labels, slices=[1, 11]))
    told = result["outlined"]
    assert told["gained"] or "nothing was proposed" in told["warnings"][0]


def test_a_model_and_outlines_follow_in_one_job(tmp_path: Path) -> None:
    patient = a_patient((13, 32, 32))
    right = truth(patient)
    with registered("thresholds", Thresholds):
        from apformer.inference import Segmenter

        bundle = save_thresholds(tmp_path / "hippocampus-test")
        proposal = Segmenter(bundle, "cpu").segment(patient).labels.array
        now = proposal.copy()
        now[6] = right[6]
        covered = (proposal > 0) & (np.arange(13) == 3)[:, None, None] & (COLUMNS > 18)
        now[covered] = 9  # a structure of the user's own took its place
        folder = tmp_path / "job"
        fields = asking(folder, outlines(*DRAWN), patient.array)
        fields |= {
            "model": str(bundle.directory),
            "proposal": part_fields(folder / "proposal.npy", Part.of(proposal)),
            "labels": part_fields(folder / "labels.npy", Part.of(now)),
            "right": {"k": [6]},
            "seconds": 600,
        }
        fields["outputs"] |= {"labels": str(folder / "labels-out.npy")}
        fractions: list[float] = []
        result = run_here("follow", lambda _, event: fractions.append(event.data.get("fraction", 0.0)), **fields)
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert result["gained"] and result["followed"] == "1 corrected slice"
    assert result["outlined"]["gained"] and whole(result)[GAPS].any()
    labels = Part.at(np.load(result["paths"]["labels"]), result["parts"]["labels"]).whole()
    assert np.array_equal(labels[6], right[6]) and set(np.unique(labels)) == {0, 1}
    assert covered.any() and not labels[covered].any()  # not proposed again below it


def test_progress_rises_and_who_stops_it_leaves_nothing(tmp_path: Path) -> None:
    fields = asking(tmp_path / "job", outlines(*DRAWN))
    before, told = files_in(tmp_path / "job"), []

    def stop(job: Job, event: Event) -> None:
        told.append(event.data.get("message"))
        if told[-1] == "learning from the outlined slices":
            job.cancel()

    with pytest.raises(Cancelled):
        run_here("follow", stop, **fields)
    assert files_in(tmp_path / "job") == before and told[-1] == "learning from the outlined slices"


@pytest.mark.parametrize(
    ("labels", "slices", "said"),
    [
        (outlines(1), [1], "1 slice was outlined"),
        (outlines(4, 5), [4, 5], "Every slice from 4 to 5"),
        (outlines(1, 6)[:9], [1, 6], "changed meanwhile"),
        (outlines(), [1, 6], "Label 3 is on none"),
        (outlines(1, 6), [1, 40], "not in the image"),
    ],
)
def test_what_cannot_be_followed_is_told(tmp_path: Path, labels: np.ndarray, slices: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run_here("follow", **asking(tmp_path / "job", labels, slices=slices))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"names": {}}, "names and planes"),
        ({"names": {"x": "Tumour"}, "planes": {"x": "k"}}, "names and planes"),
        ({"names": {"0": "Tumour"}, "planes": {"0": "k"}}, "names and planes"),
        ({"names": {"9" * 5000: "Tumour"}, "planes": {"9" * 5000: "k"}}, "names and planes"),
        ({"planes": {"3": "axial"}}, "one of k, j, i"),
        ({"planes": {"4": "k"}}, "names and planes"),
        ({"slices": {"3": [-1]}}, "'3'"),
        ({"slices": {"3": [1], "4": [2]}}, "unknown field '4'"),
        ({"seconds": 0}, "'seconds'"),
        ({"file": ""}, "'file'"),
    ],
)
def test_a_request_that_is_wrong_is_refused_before_anything_is_read(change: dict[str, Any], told: str) -> None:
    place = {"file": "now.npy", "start_kji": [0, 0, 0], "shape_kji": [1, 1, 1]}
    outlined = {**place, "names": {"3": "Tumour"}, "planes": {"3": "k"}, "slices": {"3": [1, 4]}, **change}
    fields = {"image": "image.nii", "outlined": outlined, "outputs": {"outlined": "out.npy"}}
    with pytest.raises(RequestError, match=told):
        HANDLERS["follow"].parse(Fields("follow", fields))


def test_outlines_need_a_place_for_their_proposal() -> None:
    place = {"file": "now.npy", "start_kji": [0, 0, 0], "shape_kji": [1, 1, 1]}
    outlined = {**place, "names": {"3": "Tumour"}, "planes": {"3": "k"}, "slices": {"3": [1, 4]}}
    with pytest.raises(RequestError, match="'outlined'"):
        HANDLERS["follow"].parse(Fields("follow", {"image": "a.nii", "outlined": outlined, "outputs": {}}))
