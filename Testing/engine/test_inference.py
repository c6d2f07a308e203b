"""The Segmenter: results on the input grid, whatever the orientation, spacing, size or device."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from apformer.bundles import Bundle, Code, Label, Preprocessing, save_bundle
from apformer.errors import DeviceError, InputError
from apformer.inference import Segmenter, predictors, segmenter
from apformer.inference.cleanup import clean_up
from apformer.inference.fold import fold_batch_norms
from apformer.inference.prediction import Wanted
from apformer.inference.predictors import window_slices
from apformer.inference.preprocess import IntensityScaling, model_axes, model_size
from apformer.networks import APFormer
from apformer.volume import Roi, Source, Volume
from torch import Tensor, nn

TINY = {"channels": [4, 4, 8, 8], "depth": 1, "heads": 2, "head_dim": 4, "ffn_dim": 8}
ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
LIVER = Label(7, "Liver", (221, 130, 101), ANATOMY, Code("SCT", "10200004", "Liver"))


class Threshold(nn.Module):
    """A network whose answer is known: foreground where the scaled image is above 0.5."""

    def __init__(self, fail_above: int | None = None) -> None:
        super().__init__()
        self.fail_above = fail_above
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(image.shape[0])
        if self.fail_above is not None and image.shape[0] > self.fail_above:
            raise torch.OutOfMemoryError("simulated")
        score = 50 * (image[:, :1] - 0.5)
        return torch.cat([-score, score], dim=1)


def a_bundle(folder: Path, **settings: object) -> Bundle:
    """A CT bundle with a tiny untrained network; `settings` change its preprocessing."""
    dims = int(str(settings.get("spatial_dims", 2)))
    preprocessing = Preprocessing(
        **{
            "spatial_dims": 2,
            "orientation": "LPS",
            "spacing_mm": (1.0,) * dims,
            "patch_size": (16,) * dims,
            "intensity": {"kind": "window", "lower": 0.0, "upper": 100.0},
            **settings,
        }  # type: ignore[arg-type]
    )
    arguments = {"spatial_dims": dims, "in_channels": 1, "out_channels": 2, "image_size": [16] * dims, **TINY}
    return save_bundle(
        folder / "tiny",
        name="tiny",
        version="1.0.0",
        description="For tests.",
        modality="CT",
        channels=1,
        labels=[LIVER],
        preprocessing=preprocessing,
        network_name="apformer",
        network_arguments=arguments,
        state_dict=APFormer(**arguments).state_dict(),
        card="# tiny",
        training={},
        metrics={},
        data_licence="none",
    )


def a_segmenter(folder: Path, network: nn.Module | None = None, **settings: object) -> Segmenter:
    made = Segmenter(a_bundle(folder, **settings), "cpu")
    made.network = network or Threshold()
    return made


def a_ct(shape: tuple[int, int, int] = (6, 20, 24), matrix: np.ndarray | None = None) -> Volume:
    """A bright block (100 HU) in air (-1000 HU) with a little noise."""
    array = np.random.default_rng(0).integers(-1010, -990, shape).astype(np.int16)
    array[1:5, 4:14, 6:20] = 100
    return Volume(array, np.diag([-1.0, -1.0, 2.5, 1.0]) if matrix is None else matrix, "CT")


def test_the_result_lies_on_the_input_grid_bit_for_bit(tmp_path: Path) -> None:
    oblique = np.array([[0.1, -0.9, 0.05, 12.3], [0.8, 0.1, 0.1, -4.5], [-0.12, 0.03, 2.4, 7.7], [0, 0, 0, 1]])
    rotation, _ = np.linalg.qr(oblique[:3, :3])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array([0.8, 0.9, 2.5])
    matrix[:3, 3] = (12.3, -4.5, 7.7)
    ct = a_ct(matrix=matrix)
    result = a_segmenter(tmp_path).segment(ct)
    assert result.labels.array.shape == ct.array.shape
    assert result.labels.array.dtype == np.uint8
    assert np.array_equal(result.labels.ijk_to_ras, ct.ijk_to_ras)


@pytest.mark.parametrize("code", ["LPS", "RAS", "SPR", "ASL", "PIR"])
def test_any_orientation_gives_the_same_labels_in_the_same_place(tmp_path: Path, code: str) -> None:
    ct = a_ct()
    expected = np.where(ct.array == 100, 7, 0)
    turned = ct.oriented(code)
    labels = a_segmenter(tmp_path).segment(turned).labels
    assert np.array_equal(labels.array, np.where(turned.array == 100, 7, 0))
    assert np.array_equal(labels.oriented("LPS").array, expected)


def test_a_real_network_gives_the_same_labels_for_any_stored_orientation(tmp_path: Path) -> None:
    ct = a_ct()
    real = Segmenter(a_bundle(tmp_path), "cpu")
    upright = real.segment(ct).labels
    turned = real.segment(ct.oriented("SAR")).labels
    assert np.array_equal(turned.oriented("LPS").array, upright.array)


def test_resampling_is_undone_on_the_way_back(tmp_path: Path) -> None:
    ct = a_ct()
    labels = a_segmenter(tmp_path, spacing_mm=(0.5, 0.5)).segment(ct).labels.array
    assert np.mean((labels == 7) != (ct.array == 100)) < 0.02
    assert labels[3, 9, 13] == 7
    assert labels[3, 1, 1] == 0


def test_slices_larger_than_the_patch_are_covered_by_windows(tmp_path: Path) -> None:
    ct = a_ct((2, 60, 52))
    labels = a_segmenter(tmp_path).segment(ct).labels.array
    assert np.array_equal(labels == 7, ct.array == 100)


def test_volumes_are_covered_by_windows_in_3d(tmp_path: Path) -> None:
    ct = a_ct((12, 40, 44), np.diag([-1.0, -1.0, 1.0, 1.0]))
    labels = a_segmenter(tmp_path, spatial_dims=3).segment(ct).labels.array
    assert np.array_equal(labels == 7, ct.array == 100)


@pytest.mark.parametrize(("size", "overlap"), [((16, 16), 0.5), ((17, 40), 0.5), ((100, 33), 0.25), ((16, 50), 0.0)])
def test_windows_cover_every_voxel_and_stay_inside(size: tuple[int, int], overlap: float) -> None:
    seen = np.zeros(size, int)
    for window in window_slices(size, (16, 16), overlap):
        assert seen[window].shape == (16, 16)
        seen[window] += 1
    assert seen.min() >= 1


def test_a_region_of_interest_limits_the_result_and_nothing_else(tmp_path: Path) -> None:
    ct = a_ct()
    whole = a_segmenter(tmp_path).segment(ct).labels.array
    roi = Roi((0, 0, 0), (12, 20, 6))
    part = a_segmenter(tmp_path).segment(ct, roi=roi).labels
    assert part.array.shape == whole.shape
    assert np.array_equal(part.array[:, :, :12], whole[:, :, :12])
    assert not part.array[:, :, 12:].any()


def test_uncertainty_is_high_where_classes_are_equally_likely(tmp_path: Path) -> None:
    array = np.full((1, 16, 16), 0, np.int16)
    array[0, 4:8] = 100
    array[0, 8:12] = 50  # exactly between air and organ
    uncertainty = a_segmenter(tmp_path).segment(Volume(array, np.diag([-1.0, -1, 1, 1])), uncertainty=True).uncertainty
    assert uncertainty is not None
    assert uncertainty.array[0, 9, 5] == pytest.approx(1.0)
    assert uncertainty.array[0, 5, 5] < 0.01
    assert uncertainty.array.dtype == np.float32


def test_volumes_in_ml_follow_the_spacing(tmp_path: Path) -> None:
    volumes = a_segmenter(tmp_path).segment(a_ct()).volumes_ml
    assert volumes["Liver"] == pytest.approx(4 * 10 * 14 * 2.5 / 1000)


def test_progress_rises_to_one(tmp_path: Path) -> None:
    seen: list[float] = []
    a_segmenter(tmp_path).segment(a_ct(), progress=lambda fraction, message: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert len(seen) > 3


def test_a_picture_is_scaled_to_the_patch_and_has_no_volume_in_ml(tmp_path: Path) -> None:
    array = np.zeros((1, 48, 32), np.uint8)
    array[0, 12:36, 8:24] = 100
    picture = Volume(array, np.diag([-1.0, -1, 1, 1]), source=Source(None, kind="picture"))
    made = a_segmenter(tmp_path)
    assert model_size(picture, made.bundle.preprocessing, model_axes(picture, made.bundle.preprocessing)) == (16, 11)
    result = made.segment(picture)
    assert result.volumes_ml == {}
    assert result.labels.array[0, 24, 16] == 7


def test_acquired_orientation_cuts_along_the_coarsest_axis_and_flips_nothing(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    volume = Volume(array, np.diag([8.0, -1.5, 1.5, 1.0]))  # i is the through-plane axis
    change = model_axes(volume, a_bundle(tmp_path, orientation="acquired").preprocessing)
    moved = change.apply(array)
    assert moved.shape == (4, 2, 3)
    assert np.array_equal(moved[1], array[:, :, 1])
    assert np.array_equal(change.undo(moved), array)


def test_percentile_scaling_is_the_same_for_any_slope_and_offset() -> None:
    array = np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32)
    intensity = {"kind": "percentile", "lower": 0.5, "upper": 99.5}
    one = IntensityScaling.for_array(array, intensity).apply(array)
    other = IntensityScaling.for_array(40 * array + 300, intensity).apply(40 * array + 300)
    assert torch.allclose(one, other, atol=1e-4)


def test_a_window_clips_hounsfield_units_to_zero_and_one() -> None:
    scaling = IntensityScaling.for_array(np.zeros(1), {"kind": "window", "lower": 0, "upper": 255})
    assert scaling.apply(np.array([-1000, 0, 51, 255, 3000], np.int16)).tolist() == pytest.approx([0, 0, 0.2, 1, 1])


def test_only_the_largest_component_of_a_volume_is_kept_but_every_piece_of_a_single_slice() -> None:
    labels = np.zeros((2, 5, 9), np.uint8)
    labels[:, 1:3, 1:3] = 1
    labels[0, 4, 8] = 1
    labels[:, 3:, 4:6] = 2
    kept = clean_up(labels.copy(), largest_component=True, one_piece_per_slice=False, minimum_voxels=0)
    assert kept[0, 4, 8] == 0
    assert np.count_nonzero(kept == 1) == 8
    assert np.count_nonzero(kept == 2) == 8
    assert np.array_equal(
        clean_up(labels[:1].copy(), largest_component=True, one_piece_per_slice=False, minimum_voxels=0), labels[:1]
    )


def test_one_piece_per_slice_cleans_every_slice_by_itself() -> None:
    labels = np.zeros((2, 5, 9), np.uint8)
    labels[0, 1:3, 1:3] = labels[1, 3:5, 5:8] = 1
    labels[0, 4, 8] = labels[1, 0, 0] = 1
    kept = clean_up(labels.copy(), largest_component=False, one_piece_per_slice=True, minimum_voxels=0)
    assert np.count_nonzero(kept[0]) == 4
    assert np.count_nonzero(kept[1]) == 6
    assert kept[0, 4, 8] == kept[1, 0, 0] == 0


def test_components_below_the_minimum_volume_are_removed() -> None:
    labels = np.zeros((3, 5, 5), np.uint8)
    labels[:, :2, :2] = 1
    labels[0, 4, 4] = 1
    kept = clean_up(labels.copy(), largest_component=False, one_piece_per_slice=False, minimum_voxels=3)
    assert kept[0, 4, 4] == 0
    assert np.count_nonzero(kept) == 12


def test_a_gpu_that_runs_out_of_memory_gets_smaller_batches(tmp_path: Path) -> None:
    network = Threshold(fail_above=1)
    result = a_segmenter(tmp_path, network).segment(a_ct())
    assert max(network.batches) > 1
    assert network.batches[-1] == 1
    assert np.array_equal(result.labels.array == 7, a_ct().array == 100)
    assert result.warnings == []


def test_a_gpu_with_no_memory_left_hands_over_to_the_cpu_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = a_segmenter(tmp_path)
    made.device = torch.device("meta")  # stands for a GPU: its predictor is replaced below
    failed: list[str] = []

    class Predictor(predictors.Predictor):
        def __init__(self, bundle: Bundle, network: nn.Module, device: torch.device, wanted: Wanted) -> None:
            self.is_gpu = device.type == "meta"
            super().__init__(bundle, made.network, torch.device("cpu"), wanted)

        def run(self, images: Tensor) -> predictors.Output:
            if self.is_gpu:
                failed.append("gpu")
                raise torch.OutOfMemoryError("simulated")
            return super().run(images)

    monkeypatch.setattr(segmenter, "Predictor", Predictor)
    result = made.segment(a_ct())
    assert failed
    assert result.device.startswith("cpu")
    assert any("ran out of memory" in warning for warning in result.warnings)
    assert np.array_equal(result.labels.array == 7, a_ct().array == 100)


def test_too_little_memory_everywhere_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not enough memory"):
        a_segmenter(tmp_path, Threshold(fail_above=0)).segment(a_ct())


def test_an_error_in_the_network_is_not_mistaken_for_lack_of_memory(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        a_segmenter(tmp_path, Broken()).segment(a_ct())


def test_a_model_of_another_modality_is_a_warning(tmp_path: Path) -> None:
    mr = Volume(np.abs(a_ct().array), a_ct().ijk_to_ras, "MR")
    assert any("trained on CT" in text for text in a_segmenter(tmp_path).segment(mr).warnings)


def test_a_wide_image_for_a_model_of_small_crops_is_a_warning(tmp_path: Path) -> None:
    small = a_segmenter(tmp_path, field_of_view_mm=(10.0, 10.0, 10.0))
    assert any("region of interest" in text for text in small.segment(a_ct()).warnings)


def test_a_colour_image_is_refused_by_a_gray_model(tmp_path: Path) -> None:
    colour = Volume(np.random.default_rng(0).integers(0, 255, (3, 4, 20, 20)).astype(np.uint8), np.eye(4), "RGB")
    with pytest.raises(InputError, match="3 channels"):
        a_segmenter(tmp_path).segment(colour)


def test_a_single_slice_is_refused_by_a_3d_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="single slice"):
        a_segmenter(tmp_path, spatial_dims=3).segment(a_ct((1, 20, 24)))


def test_a_missing_organ_is_told(tmp_path: Path) -> None:
    air = Volume(a_ct().array.clip(None, -990), a_ct().ijk_to_ras, "CT")
    result = a_segmenter(tmp_path).segment(air)
    assert result.volumes_ml == {"Liver": 0.0}
    assert any("No voxel was labelled Liver" in text for text in result.warnings)


# ------------------------------------------------------------------ folded batch norms


def a_trained_look(network: nn.Module) -> nn.Module:
    """Batch norms as after training: statistics, scales and shifts that differ from channel to channel."""
    numbers = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.weight, 0.5)):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=numbers) + low)
            module.bias.data.copy_(torch.rand(module.bias.shape, generator=numbers) - 0.5)
    return network.eval()


@pytest.mark.parametrize("dims", [2, 3])
def test_folded_batch_norms_give_the_same_logits_and_labels(dims: int) -> None:
    arguments = {"spatial_dims": dims, "in_channels": 1, "out_channels": 3, "image_size": [16] * dims, **TINY}
    network = a_trained_look(APFormer(**arguments))
    folded = fold_batch_norms(copy.deepcopy(network))
    image = torch.rand(2, 1, *[17] * dims, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, logits = network(image), folded(image)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in folded.modules())
    assert expected.std() > 0.05
    assert torch.allclose(logits, expected, atol=1e-4, rtol=0)
    assert torch.equal(logits.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_the_segmenter_runs_a_folded_network_in_channels_last(
    tmp_path: Path, dims: int, layout: torch.memory_format
) -> None:
    network = Segmenter(a_bundle(tmp_path, spatial_dims=dims), "cpu").network
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    assert len(convolutions) > 14
    assert all(module.weight.is_contiguous(memory_format=layout) for module in convolutions)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules())


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True)).eval(),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)).eval(),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).eval(),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train(),
    ],
    ids=["instance norm", "not directly after", "no running statistics", "training"],
)
def test_what_cannot_be_folded_is_left_alone(block: nn.Sequential) -> None:
    before = list(block)
    assert list(fold_batch_norms(block)) == before
