"""The images of a folder, from files to files; and cases as small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer.errors import APFormerError
from apformer.volume import Source, Volume
from APFormerSlicerLib.workflow import Workflow
from APFormerSlicerLib.workflow.thumbnails import SIDE, picture
from bundle_samples import LABELS
from workflow_samples import PlayedWorker


@pytest.fixture
def a_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Bilder 脳"
    folder.mkdir()
    for name in ("a.nii.gz", "b.png", "a.seg.nrrd"):
        (folder / name).write_bytes(b"x")
    return folder


def test_every_image_becomes_a_file_and_the_scene_stays_as_it_is(
    a_workflow: Workflow, a_worker: PlayedWorker, a_folder: Path, tmp_path: Path
) -> None:
    a_workflow.state.model = "slices"
    nodes = a_workflow.scene.GetNumberOfNodes()
    batch = a_workflow.folder(a_folder, tmp_path / "out")
    assert [item.title for item in batch.items] == ["a.nii.gz", "b.png"]
    batch.start()
    a_worker.last.tell("result", device="cpu")
    assert a_worker.last.fields["image"] == str(a_folder / "b.png")
    assert a_worker.last.fields["outputs"] == {"labels": str(tmp_path / "out" / "b.png")}
    a_worker.last.tell("result", device="cpu")
    assert batch.over and batch.summary == "2 of 2 segmented"
    assert a_workflow.scene.GetNumberOfNodes() == nodes


def test_nothing_is_begun_where_a_result_would_replace_an_image(
    a_workflow: Workflow, a_worker: PlayedWorker, a_folder: Path
) -> None:
    a_workflow.state.model = "slices"
    with pytest.raises(APFormerError, match="would replace"):
        a_workflow.folder(a_folder, a_folder)
    assert a_worker.asked == []


@pytest.mark.parametrize("model", ["", "none-such"])
def test_without_a_model_or_images_there_is_no_batch(a_workflow: Workflow, a_folder: Path, model: str) -> None:
    a_workflow.state.model = model
    with pytest.raises(APFormerError):
        a_workflow.folder(a_folder, a_folder / "out")


def test_a_case_is_shown_where_most_of_its_labels_are() -> None:
    image = np.zeros((3, 100, 80), np.int16)
    image[:, :50] = 1000
    labels = np.zeros((3, 100, 80), np.uint8)
    labels[2, 10:30, 10:30] = LABELS[0].value
    grid = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS: shown as stored
    small = picture(Volume(image, grid, "MR"), Volume(labels, grid), LABELS)
    assert small.dtype == np.uint8 and max(small.shape[:2]) <= SIDE and small.shape[2] == 3
    assert small[0, 0].tolist() == [255, 255, 255] and small[-1, -1].tolist() == [0, 0, 0]
    assert small[6, 6].tolist() == [round(127.5 + channel / 2) for channel in LABELS[0].color]


def test_a_colour_picture_keeps_its_colours() -> None:
    image = np.zeros((3, 1, 4, 4), np.uint8)
    image[0, :, :2] = 255
    volume = Volume(image, np.diag([-1.0, -1.0, 1.0, 1.0]), "RGB", Source(None, kind="picture"))
    small = picture(volume, volume.with_array(np.zeros((1, 4, 4), np.uint8)), LABELS)
    assert small[0, 0].tolist() == [255, 0, 0] and small[3, 3].tolist() == [0, 0, 0]
