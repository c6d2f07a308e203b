"""The rest of a patient follows corrected slices; what the user has drawn is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from apformer.bundles import Bundle
from apformer.errors import InputError
from apformer.following import Corrections, Followed, Plane, follow
from apformer.following.session_model import save_session_model
from apformer.inference import Segmenter
from apformer.networks import registered
from apformer.volume import Roi, Volume
from bundle_samples import LABELS
from following_samples import BELIEVED, TRUE, Thresholds, a_patient, corrected, dice, save_thresholds, truth

LONG = 600.0  # seconds that no learning here needs, so that steps decide when it ends


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with registered("thresholds", Thresholds):
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return save_thresholds(tmp_path / "hippocampus-test")


@pytest.fixture
def segmenter(bundle: Bundle) -> Segmenter:
    return Segmenter(bundle, "cpu")


@pytest.fixture
def patient() -> Volume:
    return a_patient()


def followed_after(
    patient: Volume, segmenter: Segmenter, right: np.ndarray, *slices: int
) -> tuple[np.ndarray, Followed]:
    """The first proposal, and what follows when these slices are corrected and marked as right."""
    proposal = segmenter.segment(patient).labels.array
    values = [label.value for label in segmenter.bundle.labels]
    marked = [Plane(0, index) for index in slices]
    corrections = Corrections.of(proposal, corrected(proposal, right, *slices), values, right=marked)
    return proposal, follow(patient, segmenter, corrections, seconds=LONG)


def test_slices_that_nobody_touched_become_better_when_one_is_corrected(patient: Volume, segmenter: Segmenter) -> None:
    right = truth(patient)
    proposal, followed = followed_after(patient, segmenter, right, 3)
    rest = [0, 1, 2, 4, 5, 6]
    before, after = dice(proposal[rest], right[rest]), dice(followed.labels.array[rest], right[rest])
    assert followed.gained and before < 0.85 and after > before + 0.08
    assert followed.wrong["1"] < followed.wrong["0"]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_what_was_drawn_stays_to_the_voxel_even_where_it_is_wrong(
    patient: Volume, tmp_path: Path, spatial_dims: int
) -> None:
    segmenter = Segmenter(save_thresholds(tmp_path / "hippocampus-test", spatial_dims=spatial_dims), "cpu")
    proposal = segmenter.segment(patient).labels.array
    now = corrected(proposal, truth(patient), 3)
    now[5, 20, 2:4] = 1  # a dab in the dark, and a hole in the middle
    now[1, 16, 16] = 0
    followed = follow(patient, segmenter, Corrections.of(proposal, now, [1], right=[Plane(0, 3)]), seconds=LONG)
    settled = now != proposal
    settled[3] = True
    assert followed.gained and np.array_equal(followed.certain, settled)
    assert np.array_equal(followed.labels.array[settled], now[settled])
    assert followed.uncertainty is not None and not followed.uncertainty.array[settled].any()
    assert not np.array_equal(followed.labels.array[~settled], now[~settled])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_slices_of_every_plane_are_followed(patient: Volume, tmp_path: Path, axis: int, spatial_dims: int) -> None:
    segmenter = Segmenter(save_thresholds(tmp_path / "hippocampus-test", spatial_dims=spatial_dims), "cpu")
    proposal, right = segmenter.segment(patient).labels.array, truth(patient)
    plane = (slice(None),) * axis + (patient.array.shape[axis] // 2,)
    now = proposal.copy()
    now[plane] = right[plane]
    marked = [Plane(axis, patient.array.shape[axis] // 2)]
    followed = follow(patient, segmenter, Corrections.of(proposal, now, [1], right=marked, axis=axis), seconds=LONG)
    assert np.array_equal(followed.labels.array[plane], right[plane])
    assert dice(followed.labels.array, right) > dice(now, right) + 0.03


def test_two_strokes_are_enough_to_start(patient: Volume, segmenter: Segmenter) -> None:
    proposal, right = segmenter.segment(patient).labels.array, truth(patient)
    now = proposal.copy()
    for k in (2, 4):
        now[k, 14:18] = right[k, 14:18]
    corrections = Corrections.of(proposal, now, [1])
    followed = follow(patient, segmenter, corrections, seconds=LONG)
    assert followed.corrections == "strokes on 2 slices" and followed.provenance == {"followed": "strokes on 2 slices"}
    assert dice(followed.labels.array, right) > dice(now, right) + 0.03


def test_several_structures_follow_together(patient: Volume, tmp_path: Path) -> None:
    segmenter = Segmenter(save_thresholds(tmp_path / "hippocampus-test", at=(BELIEVED, 2.2)), "cpu")
    right = truth(patient, (TRUE, 1.8))
    proposal, followed = followed_after(patient, segmenter, right, 2, 4)
    for value in (1, 2):
        assert dice(followed.labels.array == value, right == value) > dice(proposal == value, right == value)
    assert set(followed.volumes_ml) == {label.name for label in LABELS}


def test_structures_that_the_model_does_not_know_stay_and_are_no_correction(
    patient: Volume, segmenter: Segmenter
) -> None:
    proposal, right = segmenter.segment(patient).labels.array, truth(patient)
    now = corrected(proposal, right, 3)
    now[5, 10:12, 4:28] = np.where(now[5, 10:12, 4:28] == 0, 7, now[5, 10:12, 4:28])
    corrections = Corrections.of(proposal, now, [1], right=[Plane(0, 3)])
    assert str(corrections) == "1 corrected slice"
    followed = follow(patient, segmenter, corrections, seconds=LONG)
    assert followed.gained and np.array_equal(followed.labels.array == 7, now == 7)


def test_where_nothing_is_gained_the_proposal_stays_and_it_is_said(patient: Volume, segmenter: Segmenter) -> None:
    """The corrections contradict each other: no threshold makes both right."""
    proposal = segmenter.segment(patient).labels.array
    now = proposal.copy()
    now[2], now[4] = truth(patient, (BELIEVED + 0.4,))[2], truth(patient)[4]
    followed = follow(
        patient, segmenter, Corrections.of(proposal, now, [1], right=[Plane(0, 2), Plane(0, 4)]), seconds=LONG
    )
    assert not followed.gained and followed.uncertainty is None and followed.provenance == {}
    assert np.array_equal(followed.labels.array, now) and not any(followed.added_ml.values())
    assert any("Nothing would be gained" in note and "stays as it was" in note for note in followed.notes)


def test_a_single_voxel_is_too_little_and_it_is_said(patient: Volume, segmenter: Segmenter) -> None:
    proposal = segmenter.segment(patient).labels.array
    now = proposal.copy()
    now[3, 16, 25] = 1 - now[3, 16, 25]
    followed = follow(patient, segmenter, Corrections.of(proposal, now, [1]), seconds=LONG)
    assert not followed.gained and np.array_equal(followed.labels.array, now)
    assert any("Too little was corrected" in note for note in followed.notes)


def test_the_difference_is_told_in_millilitres(patient: Volume, segmenter: Segmenter) -> None:
    right = truth(patient)
    proposal, followed = followed_after(patient, segmenter, right, 3)
    now, new = corrected(proposal, right, 3), followed.labels.array
    voxel_ml = 0.004  # 1 x 1 x 4 mm
    assert followed.added_ml == {"anterior": pytest.approx(np.count_nonzero((new == 1) & (now != 1)) * voxel_ml)}
    assert followed.removed_ml == {"anterior": pytest.approx(np.count_nonzero((now == 1) & (new != 1)) * voxel_ml)}
    assert followed.volumes_ml == {"anterior": pytest.approx(np.count_nonzero(new == 1) * voxel_ml)}


def test_corrections_accumulate(patient: Volume, segmenter: Segmenter) -> None:
    right = truth(patient)
    _, first = followed_after(patient, segmenter, right, 3)
    proposed = first.labels.array
    now = corrected(proposed, right, 5)
    again = Corrections.of(proposed, now, [1], right=[Plane(0, 3), Plane(0, 5)], certain=first.certain)
    assert str(again) == "2 corrected slices" and again.certain[[3, 5]].all() and not again.certain[[0, 1, 2, 4]].any()
    followed = follow(patient, segmenter, again, seconds=LONG)
    assert np.array_equal(followed.labels.array[[3, 5]], right[[3, 5]])


def test_the_same_corrections_are_followed_in_the_same_way_and_the_model_is_left_alone(
    patient: Volume, segmenter: Segmenter
) -> None:
    right = truth(patient)
    proposal, once = followed_after(patient, segmenter, right, 3)
    again, twice = followed_after(patient, segmenter, right, 3)
    assert np.array_equal(proposal, again)
    assert np.array_equal(once.labels.array, twice.labels.array)


def test_who_stops_it_has_lost_nothing(patient: Volume, segmenter: Segmenter) -> None:
    proposal, right = segmenter.segment(patient).labels.array, truth(patient)
    now = corrected(proposal, right, 3)
    kept = now.copy()

    class Stopped(BaseException):
        pass

    told: list[str] = []

    def progress(fraction: float, message: str) -> None:
        told.append(message)
        if message == "learning":
            raise Stopped

    with pytest.raises(Stopped):
        follow(patient, segmenter, Corrections.of(proposal, now, [1], right=[Plane(0, 3)]), progress=progress)
    assert np.array_equal(now, kept) and np.array_equal(segmenter.segment(patient).labels.array, proposal)
    assert list(dict.fromkeys(told)) == ["preparing", "learning"]


def test_progress_rises_to_the_end(patient: Volume, segmenter: Segmenter) -> None:
    proposal, right = segmenter.segment(patient).labels.array, truth(patient)
    fractions: list[float] = []
    corrections = Corrections.of(proposal, corrected(proposal, right, 3), [1], right=[Plane(0, 3)])
    follow(patient, segmenter, corrections, progress=lambda fraction, _: fractions.append(fraction))
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] == 1.0


def test_what_was_learned_can_be_kept_for_the_session_but_is_no_version(
    patient: Volume, segmenter: Segmenter, tmp_path: Path
) -> None:
    right = truth(patient)
    proposal, followed = followed_after(patient, segmenter, right, 3)
    kept = save_session_model(tmp_path / "session", segmenter.bundle, followed)
    assert kept.version == "1.0.0+followed" and kept.metadata["parent_version"] == "hippocampus-test 1.0.0"
    assert "not checked against any other case" in kept.card
    found = Segmenter(kept, "cpu").segment(patient).labels.array
    assert dice(found, right) > dice(proposal, right) + 0.05


# ------------------------------------------------------------------ bad input


def test_nothing_corrected_is_told() -> None:
    proposal = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(InputError, match="Nothing was corrected since the proposal"):
        Corrections.of(proposal, proposal.copy(), [1])


def test_everything_corrected_is_told() -> None:
    proposal = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(InputError, match="Every voxel was settled by hand"):
        Corrections.of(proposal, proposal, [1], right=[Plane(0, 0), Plane(0, 1)])


def test_a_correction_that_erases_all_is_told() -> None:
    proposal = np.zeros((2, 3, 4), np.uint8)
    proposal[:, 1] = 1
    with pytest.raises(InputError, match=r"erase all.*Draw the structure on one slice"):
        Corrections.of(proposal, np.zeros_like(proposal), [1])


def test_a_slice_on_which_the_structure_was_rightly_erased_is_a_correction() -> None:
    proposal = np.zeros((2, 3, 4), np.uint8)
    proposal[:, 1] = 1
    now = proposal.copy()
    now[0] = 0
    assert str(Corrections.of(proposal, now, [1])) == "strokes on 1 slice"


@pytest.mark.parametrize("shape", [(3, 3, 4), (2, 3, 5), (2, 12)])
def test_labels_of_another_size_are_told(shape: tuple[int, ...]) -> None:
    proposal = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(InputError, match=r"drawn outside the image|is no label map"):
        Corrections.of(proposal, np.zeros(shape, np.uint8), [1])


@pytest.mark.parametrize("values", [np.full((2, 3, 4), 0.5), np.full((2, 3, 4), 300), np.full((2, 3, 4), -1)])
def test_what_is_no_label_map_is_told(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="The segmentation is no label map"):
        Corrections.of(np.ones((2, 3, 4), np.uint8), values, [1])


@pytest.mark.parametrize("plane", [Plane(0, 2), Plane(1, -1), Plane(3, 0)])
def test_a_marked_slice_that_the_volume_lacks_is_told(plane: Plane) -> None:
    proposal = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(InputError, match="which the volume"):
        Corrections.of(proposal, proposal, [1], right=[plane])


def test_a_volume_that_was_changed_meanwhile_is_told(patient: Volume, segmenter: Segmenter) -> None:
    proposal = segmenter.segment(patient).labels.array
    corrections = Corrections.of(proposal, corrected(proposal, truth(patient), 3), [1])
    with pytest.raises(InputError, match="The volume was changed meanwhile"):
        follow(patient.with_array(patient.array).cropped(_box(patient)), segmenter, corrections)


def _box(volume: Volume) -> Roi:
    """All but the last row."""
    k, j, i = volume.spatial_shape
    return Roi((0, 0, 0), (i, j - 1, k))
