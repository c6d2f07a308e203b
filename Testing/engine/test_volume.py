"""Volume, Roi and the checks: world positions stay, what is put back is where it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.volume import Roi, Source, Volume, check_image, paste
from hypothesis import given, settings
from hypothesis import strategies as st

CODES = [
    "".join(letters) for order in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*order)
]


def world(volume: Volume, i: int, j: int, k: int) -> np.ndarray:
    return (volume.ijk_to_ras @ [i, j, k, 1])[:3]


@st.composite
def oblique_volumes(draw: st.DrawFn) -> Volume:
    """Any rotation, flip, spacing from 0.1 to 10 mm and shape up to 4 voxels per axis; all voxels differ."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    length = np.linalg.norm(quaternion)
    a, b, c, d = quaternion / length if length > 0.1 else np.array([1.0, 0.0, 0.0, 0.0])
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    spacing = [draw(st.floats(0.1, 10)) * draw(st.sampled_from((-1, 1))) for _ in range(3)]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * spacing
    matrix[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3))
    channels = draw(st.sampled_from((None, 2)))
    full = shape if channels is None else (channels, *shape)
    return Volume(np.arange(np.prod(full), dtype=np.int16).reshape(full), matrix)


@settings(max_examples=150, deadline=None)
@given(oblique_volumes(), st.sampled_from(CODES))
def test_orienting_there_and_back_is_exact(volume: Volume, code: str) -> None:
    there = volume.oriented(code)
    assert there.orientation == code
    back = there.oriented(volume.orientation)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_array_equal(back.ijk_to_ras[:3, :3], volume.ijk_to_ras[:3, :3])
    np.testing.assert_allclose(back.ijk_to_ras[:3, 3], volume.ijk_to_ras[:3, 3], atol=1e-9)
    change = volume.reorientation(code)
    np.testing.assert_array_equal(change.undo(change.apply(volume.array)), volume.array)


@settings(max_examples=100, deadline=None)
@given(oblique_volumes(), st.sampled_from(CODES), st.data())
def test_orienting_leaves_every_voxel_in_its_place(volume: Volume, code: str, data: st.DataObject) -> None:
    turned = volume.oriented(code)
    k, j, i = (data.draw(st.integers(0, length - 1)) for length in turned.spatial_shape)
    value = turned.array[..., k, j, i]
    same = volume.array == (value if volume.channels == 1 else value[:, None, None, None])
    k0, j0, i0 = (int(index[0]) for index in np.nonzero(same)[-3:])
    np.testing.assert_allclose(world(turned, i, j, k), world(volume, i0, j0, k0), atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(oblique_volumes(), st.data())
def test_cropping_and_pasting_leaves_every_voxel_in_its_place(volume: Volume, data: st.DataObject) -> None:
    starts = [data.draw(st.integers(0, length - 1)) for length in volume.spatial_shape[::-1]]
    stops = [
        data.draw(st.integers(start + 1, length))
        for start, length in zip(starts, volume.spatial_shape[::-1], strict=True)
    ]
    roi = Roi(tuple(starts), tuple(stops))
    small = volume.cropped(roi)
    assert small.spatial_shape == roi.shape_kji
    np.testing.assert_allclose(world(small, 0, 0, 0), world(volume, *starts), atol=1e-9)
    whole = paste(small.array, roi, volume.spatial_shape, fill=-1)
    inside = np.zeros(volume.spatial_shape, bool)
    inside[roi.slices_kji] = True
    np.testing.assert_array_equal(whole, np.where(inside, volume.array, -1))


def test_a_volume_tied_between_two_axes_still_returns_to_itself() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, -1, 0], [1, 1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    volume = Volume(np.arange(24).reshape(2, 3, 4), matrix)
    for code in CODES:
        assert volume.oriented(code).orientation == code
        np.testing.assert_array_equal(volume.oriented(code).oriented(volume.orientation).array, volume.array)


def test_geometry_is_read_from_the_matrix() -> None:
    volume = Volume(np.zeros((2, 3, 4)), np.diag([-2.0, -3.0, 5.0, 1.0]))
    assert volume.spatial_shape == (2, 3, 4)
    assert volume.channels == 1
    assert volume.spacing_ijk == (2.0, 3.0, 5.0)
    assert volume.orientation == "LPS"
    assert volume.voxel_volume_ml == pytest.approx(0.03)
    assert volume.with_array(np.zeros((3, 2, 3, 4))).channels == 3


def test_the_matrix_of_a_volume_cannot_be_changed_behind_its_back() -> None:
    matrix = np.eye(4)
    volume = Volume(np.zeros((2, 2, 2)), matrix)
    matrix[0, 0] = 7
    assert volume.ijk_to_ras[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        volume.ijk_to_ras[0, 0] = 7


def test_a_region_is_parsed_from_voxels_and_from_millimetres(an_image: Volume) -> None:
    assert Roi.parse("1:3, 0:6, 2:5", an_image) == Roi((1, 0, 2), (3, 6, 5))
    volume = Volume(np.zeros((10, 10, 10)), np.diag([-2.0, -2.0, 2.0, 1.0]))
    assert Roi.parse("-8,-3.9, -100,100, 4,4", volume) == Roi((2, 0, 2), (5, 10, 3))
    assert Roi.parse("-3.5,-3.1,-4,0,0,4", volume).shape_kji == (3, 3, 1)  # between two centres: one voxel


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("1:2,3:4", "cannot be read"),
        ("a,b,c,d,e,f", "cannot be read"),
        ("1:2:3,0:1,0:1", "cannot be read"),
        ("nan,1,0,1,0,1", "not six finite"),
        ("5,-5,0,1,0,1", "lower bound above"),
        ("3:3,0:6,0:5", "empty along i"),
        ("0:8,0:6,0:5", "outside the volume"),
        ("-1:3,0:6,0:5", "outside the volume"),
        ("900,950,0,10,0,10", "lies outside the volume"),
    ],
)
def test_a_bad_region_is_refused(an_image: Volume, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Roi.parse(text, an_image)


def test_pasting_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="does not fit"):
        paste(np.zeros((1, 1, 1)), Roi((0, 0, 0), (2, 1, 1)), (2, 2, 2))
    with pytest.raises(InputError, match="outside"):
        paste(np.zeros((1, 1, 3)), Roi((0, 0, 0), (3, 1, 1)), (2, 2, 2))


def test_a_good_image_passes(an_image: Volume) -> None:
    check_image(an_image)
    check_image(an_image.with_array(np.stack([an_image.array] * 3)))


def nan_in_one_voxel(array: np.ndarray) -> np.ndarray:
    broken = array.astype(np.float32)
    broken[2, 1, 1] = np.nan
    return broken


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 4, 4)), "is empty"),
        (np.ones((1, 1, 1)), "single voxel"),
        (np.full((3, 3, 3), 7), "has the value 7"),
        (nan_in_one_voxel(np.random.default_rng(0).normal(size=(3, 3, 3))), r"NaN or infinite voxels .*k = 2"),
        (np.array([[[0.0, np.inf], [1.0, 2.0]]]), "NaN or infinite"),
        (np.ones((2, 2, 2), complex), "type complex"),
    ],
)
def test_an_image_without_usable_voxels_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_image(Volume(array, np.eye(4)))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (np.diag([1.0, 0.0, 1.0]), "spacing"),
        (np.diag([1.0, np.nan, 1.0]), "spacing"),
        (np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), "singular"),
        (np.array([[1.0, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), "sheared"),
    ],
)
def test_an_image_with_impossible_geometry_is_refused(an_image: Volume, steps: np.ndarray, words: str) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = steps
    with pytest.raises(InputError, match=words):
        check_image(Volume(an_image.array, matrix))


def test_a_volume_of_another_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="5 axes"):
        Volume(np.zeros((1, 1, 2, 2, 2)), np.eye(4))
    with pytest.raises(InputError, match="matrix"):
        Volume(np.zeros((2, 2, 2)), np.eye(3))
    with pytest.raises(InputError, match="does not fit a grid"):
        Volume(np.zeros((2, 2, 2)), np.eye(4)).with_array(np.zeros((2, 2, 3)))
    with pytest.raises(InputError, match="not an orientation"):
        Volume(np.zeros((2, 2, 2)), np.eye(4)).oriented("RRS")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("value", [1, 255])
def test_a_label_map_given_as_an_image_is_refused(dtype: type, value: int) -> None:
    labels = np.zeros((8, 16, 16), dtype)
    labels[2:6, 4:12, 4:12] = value
    with pytest.raises(InputError, match="looks like a label map"):
        check_image(Volume(labels, np.eye(4)))


def test_eight_bit_noise_is_not_taken_for_labels() -> None:
    rng = np.random.default_rng(0)
    check_image(Volume(rng.integers(0, 4, (8, 16, 16)).astype(np.uint8), np.eye(4)))
    check_image(Volume(rng.integers(0, 256, (8, 16, 16)).astype(np.uint8), np.eye(4)))


def test_errors_name_the_file(an_image: Volume, tmp_path) -> None:
    named = Volume(np.ones((2, 2, 2)), np.eye(4), source=Source(tmp_path / "blank.nii", kind="nifti"))
    with pytest.raises(InputError, match=r"blank\.nii"):
        check_image(named)
