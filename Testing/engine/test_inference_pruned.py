"""The Segmenter with pruned networks: where they looked, and when they are run again without pruning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import Label, Preprocessing
from apformer.inference import Segmenter
from apformer.inference.doubt import prunes, run_tile, without_pruning
from apformer.inference.prediction import Prediction, Wanted
from apformer.inference.predictors import window_slices
from apformer.networks import APFormer
from apformer.volume import Roi, Source, Volume
from bundle_samples import ANATOMY, save_sample
from torch import Tensor, nn
from torch.nn import functional as F

AIR, BRIGHT, UNSURE, MISSED, DECEIVING = -10, 100, 70, 55, 72


class Scripted(nn.Module):
    """A gated network whose answers are known.

    It finds what is above 50 HU, save around `DECEIVING`, but with pruning only in the cells that it keeps: those of
    which the head's foreground probability, (greatest HU / 100) ** 8, is above 0.1. So `BRIGHT` is kept, of `UNSURE`
    and `DECEIVING` the head is unsure (0.06 and 0.07), and `MISSED` it takes for background (0.008).
    """

    def __init__(self, stride: tuple[int, ...], fail_dense_above: int | None = None) -> None:
        super().__init__()
        self.stride, self.gating, self.fail_dense_above = stride, "hard", fail_dense_above
        self.query_gate: nn.Module | None = nn.Identity()
        self.dense: list[int] = []  # images of each call without pruning

    def forward(self, images: Tensor, auxiliaries: bool = False) -> Any:
        padding = [n for size, s in zip(images.shape[:1:-1], self.stride[::-1], strict=True) for n in (0, -size % s)]
        pool = F.max_pool2d if images.ndim == 4 else F.max_pool3d
        belief = pool(F.pad(images, padding, mode="replicate"), self.stride)[:, 0].clamp(1e-3, 1 - 1e-3) ** 8
        kept = (belief > 0.1).float()
        if self.gating == "off":
            self.dense.append(images.shape[0])
            if self.fail_dense_above is not None and images.shape[0] > self.fail_dense_above:
                raise torch.OutOfMemoryError("simulated")
            kept = torch.ones_like(belief)
        score = 50 * torch.where((images - 0.72).abs() < 0.005, -0.5, images - 0.5)
        seen = cells(kept, self.stride, images.shape[2:])[:, None]
        score = torch.where(seen == 1, score, -25.0)
        logits = torch.cat([-score, score], dim=1)
        if not auxiliaries:
            return logits
        prune_logits = torch.stack([torch.log(1 - belief), torch.log(belief)], dim=1)
        return logits, SimpleNamespace(kept=kept, prune_logits=prune_logits, token_stride=self.stride)


def cells(kept: Tensor, stride: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """The value of each voxel's token, by the voxel's number: (B, *grid) -> (B, *size)."""
    numbers = [torch.arange(n) // s for n, s in zip(size, stride, strict=True)]
    return kept[(slice(None), *torch.meshgrid(*numbers, indexing="ij"))]


def a_segmenter(folder: Path, network: nn.Module | None = None, **settings: Any) -> Segmenter:
    """One label, values 0 to 100 scaled to 0 to 1; without `network`, an APFormer that prunes queries and keys."""
    dims = settings.get("spatial_dims", 2)
    preprocessing: dict[str, Any] = {
        "spatial_dims": dims,
        "orientation": "LPS",
        "spacing_mm": (1.0,) * dims,
        "patch_size": (16,) * dims,
        "intensity": {"kind": "window", "lower": 0.0, "upper": 100.0},
        **{name: value for name, value in settings.items() if name != "strides"},
    }
    arguments = {
        "spatial_dims": dims,
        "in_channels": 1,
        "out_channels": 2,
        "image_size": [16] * dims,
        "channels": [2, 2, 4, 4],
        "strides": settings.get("strides", ()),
        "depth": 2,
        "heads": 2,
        "head_dim": 2,
        "ffn_dim": 4,
        "prune_queries": True,
        "prune_keys": True,
        "safety_ring": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = APFormer(**arguments).state_dict()
    bundle = save_sample(
        folder / "pruned",
        name="pruned",
        modality="CT",
        labels=[Label(7, "Liver", (221, 130, 101), ANATOMY, ANATOMY)],
        preprocessing=Preprocessing(**preprocessing),
        network_arguments=arguments,
        state_dict=state,
    )
    made = Segmenter(bundle, "cpu")
    if network is not None:
        made.network = network
    return made


def slices_of(*values: int) -> Volume:
    """A CT of one slice per value, with a block of it in the second of 4 x 4 cells of 4 pixels, along both axes."""
    array = np.full((len(values), 16, 16), AIR, np.int16)
    for k, value in enumerate(values):
        array[k, 5:8, 4:8] = value
    array[0, 0, 0] = -20  # an image of one value is refused
    return Volume(array, np.diag([-1.0, -1.0, 2.0, 1.0]), "CT")


def noise(shape: tuple[int, ...]) -> Volume:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    return Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "CT")


def scaled(array: np.ndarray) -> Tensor:
    """What the network sees of (k, j, i) without resampling: (k, 1, j, i)."""
    return torch.from_numpy(array.astype(np.float32))[:, None] / 100


def split_in_half(network: Any, images: Tensor) -> Tensor:
    """Move the gate so that half of the tokens of `images` are kept; returns what is kept. All becomes foreground."""
    with torch.inference_mode():
        network.head.bias.copy_(torch.tensor([0.0, 100.0]))  # an empty result would be run again without pruning
        logits = network(images, auxiliaries=True)[1].prune_logits
        margins = (logits[:, 1] - logits[:, 0]).flatten().sort().values
        middle = margins.numel() // 2
        network.query_gate.threshold.copy_(margins[middle - 1 : middle + 1].mean())  # between two: rounding is harmless
        return network(images, auxiliaries=True)[1].kept


# ------------------------------------------------------------------ where the network looked


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAR"])
def test_the_map_is_1_exactly_where_the_slices_kept_their_tokens(tmp_path: Path, code: str) -> None:
    volume = noise((3, 13, 21))
    made = a_segmenter(tmp_path, patch_size=(13, 21), strides=((1, 2), (2, 2), (1, 2)))
    kept = split_in_half(made.network, scaled(volume.array))
    assert kept.shape == (3, 7, 3) and 0 < kept.mean() < 1
    seen = made.segment(volume.oriented(code), kept_tokens=True).kept_tokens
    assert seen is not None and seen.array.dtype == np.float32
    assert seen.array.shape == volume.oriented(code).array.shape
    assert np.array_equal(seen.oriented("LPS").array, cells(kept, (2, 8), (13, 21)).numpy())


@pytest.mark.parametrize("code", ["LPS", "PIR"])
def test_the_map_is_1_exactly_where_a_volume_kept_its_tokens(tmp_path: Path, code: str) -> None:
    volume = noise((7, 13, 18))
    made = a_segmenter(tmp_path, spatial_dims=3, patch_size=(7, 13, 18), strides=((1, 2, 2), (2, 2, 2), (1, 2, 2)))
    kept = split_in_half(made.network, scaled(volume.array).transpose(0, 1)[None])
    assert kept.shape == (1, 4, 2, 3) and 0 < kept.mean() < 1
    seen = made.segment(volume.oriented(code), kept_tokens=True).kept_tokens
    assert seen is not None
    assert np.array_equal(seen.oriented("LPS").array, cells(kept, (2, 8, 8), (7, 13, 18))[0].numpy())


def test_the_map_has_the_matrix_of_the_image_bit_for_bit(tmp_path: Path) -> None:
    volume = slices_of(BRIGHT)
    turned = Volume(volume.array, np.array([[0, 1.1, 0, 3.3], [0.9, 0, 0, 7], [0, 0, -2, 1], [0, 0, 0, 1]]), "CT")
    seen = a_segmenter(tmp_path, Scripted((4, 4))).segment(turned, kept_tokens=True).kept_tokens
    assert seen is not None
    assert np.array_equal(seen.ijk_to_ras, turned.ijk_to_ras)


def test_outside_a_region_of_interest_the_network_did_not_look(tmp_path: Path) -> None:
    roi = Roi((4, 0, 0), (16, 8, 1))
    seen = a_segmenter(tmp_path, Scripted((4, 4))).segment(slices_of(BRIGHT, BRIGHT), roi=roi, kept_tokens=True)
    # Padding 8 x 12 to the patch moves the cells by 4 rows and 2 columns and repeats the block at two of its edges.
    expected = np.zeros((2, 16, 16))
    expected[0, 4:8, 4:10] = 1
    assert seen.kept_tokens is not None
    assert np.array_equal(seen.kept_tokens.array, expected)


def test_where_windows_overlap_the_map_is_their_maximum(tmp_path: Path) -> None:
    array = np.full((1, 40, 33), AIR, np.int16)
    array[0, 9, 11] = array[0, 30:33, 20:31] = BRIGHT
    network = Scripted((4, 8))
    expected = np.zeros((40, 33))
    for rows, columns in window_slices((40, 33), (16, 16), 0.5):
        kept = network(scaled(array)[:, :, rows, columns], auxiliaries=True)[1].kept
        expected[rows, columns] = np.maximum(expected[rows, columns], cells(kept, (4, 8), (16, 16))[0].numpy())
    result = a_segmenter(tmp_path, network).segment(Volume(array, np.diag([-1.0, -1, 1, 1]), "CT"), kept_tokens=True)
    assert result.kept_tokens is not None and result.dense_reruns == 0
    assert 0 < expected.mean() < 0.5
    assert np.array_equal(result.kept_tokens.array[0], expected)


def test_resampling_is_undone_cell_by_cell(tmp_path: Path) -> None:
    array = np.full((1, 32, 32), AIR, np.int16)
    array[0, 8:16, 16:24] = BRIGHT  # at 2 mm one cell of 4 x 4
    volume = Volume(array, np.diag([-1.0, -1, 1, 1]), "CT")
    seen = a_segmenter(tmp_path, Scripted((4, 4)), spacing_mm=(2.0, 2.0)).segment(volume, kept_tokens=True).kept_tokens
    assert seen is not None
    assert np.array_equal(seen.array == 1, array == BRIGHT)


def test_the_map_of_a_picture_has_its_pixels(tmp_path: Path) -> None:
    array = np.zeros((1, 48, 32), np.uint8)
    array[0, 20:28, 12:20] = BRIGHT
    picture = Volume(array, np.diag([-1.0, -1, 1, 1]), source=Source(None, kind="picture"))
    seen = a_segmenter(tmp_path, Scripted((4, 4))).segment(picture, kept_tokens=True).kept_tokens
    assert seen is not None and seen.array.shape == (1, 48, 32)
    assert seen.array[array == BRIGHT].min() == 1
    assert not seen.array[0, :9].any() and not seen.array[0, -9:].any()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_dense_network_looked_everywhere_in_the_region_and_never_counts(tmp_path: Path, dims: int) -> None:
    network = Scripted((4,) * dims)
    network.query_gate, network.gating = None, "off"
    made = a_segmenter(tmp_path, network, spatial_dims=dims)
    volume = Volume(slices_of(*[AIR] * 20).array, np.diag([-1.0, -1, 1, 1]), "CT")
    result = made.segment(volume, kept_tokens=True)
    assert result.kept_tokens is not None and result.kept_tokens.array.min() == 1
    assert result.dense_reruns == 0 and not any("again without" in text for text in result.warnings)
    part = made.segment(volume, roi=Roi((0, 0, 0), (16, 16, 5)), kept_tokens=True).kept_tokens
    assert part is not None and part.array[:5].min() == 1 and part.array[5:].max() == 0


def test_a_map_that_is_not_asked_for_takes_no_memory(tmp_path: Path) -> None:
    result = a_segmenter(tmp_path, Scripted((4, 4))).segment(slices_of(BRIGHT))
    assert result.kept_tokens is None
    assert Prediction.blank((1, 2, 3), Wanted()).looked is None
    asked = Prediction.blank((1, 2, 3), Wanted(kept_tokens=True))
    assert asked.looked is not None and asked.looked.dtype == np.uint8


# ------------------------------------------------------------------ tiles in doubt


def test_a_slice_of_which_the_head_is_unsure_is_run_again_and_others_are_not(tmp_path: Path) -> None:
    network, ct = Scripted((4, 4)), slices_of(BRIGHT, UNSURE, MISSED, AIR)
    result = a_segmenter(tmp_path, network).segment(ct, kept_tokens=True)
    found = result.labels.array == 7
    assert np.array_equal(found[:2], ct.array[:2] > 0) and not found[2:].any()
    assert result.dense_reruns == 1 and network.dense == [1]
    assert not any("again without" in text for text in result.warnings)
    assert result.kept_tokens is not None
    looked = result.kept_tokens.array
    assert looked[0].sum() == 16 and looked[1].min() == 1 and not looked[2:].any()


def test_windows_are_run_again_one_by_one(tmp_path: Path) -> None:
    array = np.full((1, 32, 16), AIR, np.int16)
    array[0, 2:6, 2:6] = BRIGHT
    array[0, 26:30, 2:6] = UNSURE
    network = Scripted((4, 4))
    result = a_segmenter(tmp_path, network, overlap=0.0).segment(Volume(array, np.diag([-1.0, -1, 1, 1]), "CT"))
    assert result.dense_reruns == 1
    assert np.array_equal(result.labels.array == 7, array > 0)


def test_a_volume_of_which_the_head_is_unsure_is_run_again(tmp_path: Path) -> None:
    ct = Volume(slices_of(*[UNSURE] * 16).array, np.diag([-1.0, -1, 1, 1]), "CT")
    result = a_segmenter(tmp_path, Scripted((4, 4, 4)), spatial_dims=3).segment(ct)
    assert result.dense_reruns == 1
    assert np.array_equal(result.labels.array == 7, ct.array > 0)
    assert result.warnings == []


# ------------------------------------------------------------------ volumes in doubt


def test_an_organ_that_pruning_lost_is_found_without_it(tmp_path: Path) -> None:
    network, ct, messages = Scripted((4, 4)), slices_of(MISSED, MISSED, AIR), []
    result = a_segmenter(tmp_path, network).segment(ct, progress=lambda fraction, message: messages.append(message))
    assert np.array_equal(result.labels.array == 7, ct.array > 0)
    assert result.dense_reruns == 3
    assert [text for text in result.warnings if "without: check the result" in text]
    assert "segmenting again without pruning" in messages


def test_an_organ_that_pruning_lost_is_found_without_it_in_3d(tmp_path: Path) -> None:
    ct = Volume(slices_of(*[MISSED] * 16).array, np.diag([-1.0, -1, 1, 1]), "CT")
    result = a_segmenter(tmp_path, Scripted((4, 4, 4)), spatial_dims=3).segment(ct, kept_tokens=True)
    assert np.array_equal(result.labels.array == 7, ct.array > 0)
    assert result.dense_reruns == 1
    assert result.kept_tokens is not None and result.kept_tokens.array.min() == 1


def test_slices_that_are_dense_already_are_not_run_a_third_time(tmp_path: Path) -> None:
    network = Scripted((4, 4))
    result = a_segmenter(tmp_path, network).segment(slices_of(DECEIVING, MISSED, DECEIVING, AIR))
    assert network.dense == [2, 2]
    assert result.dense_reruns == 4
    assert [bool(part.any()) for part in result.labels.array] == [False, True, False, False]


def test_a_result_that_only_clean_up_emptied_is_in_doubt_too(tmp_path: Path) -> None:
    ct = slices_of(AIR, UNSURE, MISSED)
    ct.array[1, 5:8, 5:8] = ct.array[1, 5:8, 4] = AIR
    ct.array[1, 5, 5] = UNSURE  # 0.002 mL, found at once and too small
    result = a_segmenter(tmp_path, Scripted((4, 4)), minimum_volume_ml=0.01).segment(ct)
    assert [int((part == 7).sum()) for part in result.labels.array] == [0, 1, 12]  # one piece with its neighbour now
    assert result.dense_reruns == 1 + 3


def test_an_empty_image_stays_empty_and_is_run_again_only_once(tmp_path: Path) -> None:
    network = Scripted((4, 4))
    result = a_segmenter(tmp_path, network).segment(slices_of(AIR, AIR))
    assert not result.labels.array.any()
    assert sum(network.dense) == result.dense_reruns == 2
    assert any("No voxel" in text for text in result.warnings)


def test_running_out_of_memory_without_pruning_makes_the_batch_smaller_and_counts_no_slice_twice(
    tmp_path: Path,
) -> None:
    network, ct = Scripted((4, 4), fail_dense_above=2), slices_of(*[MISSED] * 5)
    result = a_segmenter(tmp_path, network).segment(ct)
    assert max(network.dense) > 2
    assert result.dense_reruns == 5
    assert np.array_equal(result.labels.array == 7, ct.array > 0)


# ------------------------------------------------------------------ gating


@pytest.mark.parametrize("value", [UNSURE, MISSED], ids=["tile", "volume"])
def test_gating_is_restored_when_the_dense_run_fails(tmp_path: Path, value: int) -> None:
    class Broken(Scripted):
        def forward(self, images: Tensor, auxiliaries: bool = False) -> Any:
            if self.gating == "off":
                raise RuntimeError("shapes do not match")
            return super().forward(images, auxiliaries)

    made = a_segmenter(tmp_path, Broken((4, 4)))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        made.segment(slices_of(value))
    assert made.network.gating == "hard"


@pytest.mark.parametrize("gating", ["hard", "soft", "off"])
def test_gating_is_what_it_was_after_a_dense_run(gating: str) -> None:
    network = APFormer(
        spatial_dims=2, image_size=[16, 16], channels=[2, 2, 2, 2], depth=1, heads=1, head_dim=2, prune_queries=True
    )
    network.gating = gating
    assert prunes(network) == (gating != "off")
    with without_pruning(network):
        assert not prunes(network)
    assert network.gating == gating


def test_a_network_whose_gates_are_off_is_dense(tmp_path: Path) -> None:
    network = Scripted((4, 4))
    network.gating = "off"
    result = a_segmenter(tmp_path, network).segment(slices_of(MISSED, AIR), kept_tokens=True)
    assert network.dense == [2] and result.dense_reruns == 0
    assert result.kept_tokens is not None and result.kept_tokens.array.min() == 1


def test_pruned_and_doubtful_images_share_a_batch_in_bfloat16(tmp_path: Path) -> None:
    class KeepsHalfOfTheFirst(nn.Module):
        def forward(self, prune_logits: Tensor) -> Tensor:
            kept = torch.zeros_like(prune_logits[:, 0])
            kept[0, :, :2] = 1
            return kept

    network: Any = a_segmenter(tmp_path).network
    network.query_gate = KeepsHalfOfTheFirst()
    images = scaled(noise((2, 16, 32)).array)
    with torch.inference_mode():
        exact = run_tile(network, images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = run_tile(network, images)
    assert rough.dense.tolist() == [False, True]
    assert rough.logits.dtype == torch.bfloat16 and network.gating == "hard"
    assert rough.kept is not None and rough.kept[0].float().mean() == 0.5 and rough.kept[1].min() == 1
    assert (rough.logits.float() - exact.logits).abs().max() < 0.1 * exact.logits.abs().max()
