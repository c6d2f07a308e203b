"""LeanFormer: any size, 2D and 3D, the box against the whole, hard gates against soft ones, deep supervision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from apformer.errors import ConfigError
from apformer.networks import NETWORK_NAMES, LeanFormer, build_network
from apformer.networks.leanformer import POSITION_WAVES
from apformer.networks.norm import SLOPE, InstanceNormAct
from apformer.pruning import count_parameters
from apformer.pruning.boxes import BACKGROUND_LOGIT, boxes_around
from torch import Tensor, nn
from torch.nn import functional as F


def tiny(**arguments: Any) -> LeanFormer:
    """A 2D network of a few thousand parameters, one token per 8 x 8 pixels; its tables are for 3 x 4 tokens."""
    chosen: dict[str, Any] = {"image_size": (24, 32), "channels": (4, 6), "detail": 2, "width": 8, "heads": 2}
    network = build_network(
        "leanformer", chosen | {"head_dim": 4, "ffn_dim": 7, "depth": 2, "out_channels": 3} | arguments
    )
    assert isinstance(network, LeanFormer)
    return network


def tiny_3d(**arguments: Any) -> LeanFormer:
    return tiny(spatial_dims=3, **{"image_size": (8, 24, 16), **arguments})


class Kept(nn.Module):
    """In place of the query gate: keeps these cells (B, *grid)."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, prune_logits: Tensor) -> Tensor:
        return self.kept


def gated(kept: Tensor, make: Any = tiny, **arguments: Any) -> LeanFormer:
    """With lively positions and gates that keep `kept`."""
    torch.manual_seed(0)
    network = make(prune_queries=True, **arguments)
    for layer in network.layers:
        nn.init.normal_(layer.attention.position.table)
    network.query_gate = Kept(kept)
    return network


def test_the_registry_names_the_network():
    assert "leanformer" in NETWORK_NAMES


def test_the_default_networks_have_the_documented_number_of_parameters():
    flat = {"out_channels": 2, "image_size": (96, 96)}
    assert count_parameters(build_network("leanformer", flat)) == 1_812_964
    solid = {"channels": (32, 64), "width": 128, "heads": 4, "ffn_dim": 256, "image_size": (48, 96, 96)}
    assert count_parameters(build_network("leanformer", {**flat, **solid, "spatial_dims": 3})) == 1_202_064


@pytest.mark.parametrize("size", [(24, 32), (40, 16), (25, 31), (9, 50), (8, 8), (3, 5), (1, 1)])
@pytest.mark.parametrize("training", [False, True])
def test_a_2d_image_of_any_size_gives_logits_of_that_size(size: tuple[int, int], training: bool):
    network = tiny(in_channels=2).train(training)
    logits = network(torch.rand(3, 2, *size))
    assert logits.shape == (3, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(8, 24, 16), (9, 17, 30), (2, 3, 4)])
def test_a_3d_image_of_any_size_gives_logits_of_that_size(size: tuple[int, int, int]):
    network = tiny_3d().eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, *size)).shape == (2, 3, *size)


def test_anisotropic_strides_spare_the_thin_axis_and_a_first_stride_of_1_starts_at_full_size():
    network = tiny_3d(strides=[[1, 1, 1], [1, 2, 2], [2, 4, 4]], detail=0, supervised=1).train()
    assert network.token_stride == (2, 8, 8)
    logits, said = network(torch.rand(1, 1, 7, 20, 16), auxiliaries=True)
    assert logits.shape == (1, 3, 7, 20, 16)
    assert said.prune_logits.shape == (1, 2, 4, 3, 2)
    assert [(tuple(c.logits.shape), c.step) for c in said.coarser] == [((1, 3, 8, 12, 8), (1, 2, 2))]


def test_without_detail_the_first_level_must_be_at_full_size():
    with pytest.raises(ConfigError, match="detail"):
        tiny(detail=0, supervised=1)


WRONG: list[dict[str, Any]] = [
    {"channels": ()},
    {"strides": (2, 2)},
    {"strides": (2, 2, 1)},
    {"prune_head": False, "prune_queries": True},
    {"prune_keys": True},
    {"supervised": 3},
    {"dropout": 1.0},
    {"halo": -1},
    {"width": True},
    {"image_size": (24,)},
    {"tail": "none"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_arguments_that_do_not_fit_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        tiny(**wrong)


def test_the_table_of_positions_starts_with_the_longest_waves_along_each_axis():
    table = tiny(width=12, image_size=(8 * 5, 8 * 4)).positions
    assert table is not None
    rows, columns = table[0, 0], table[0, 2]
    height = POSITION_WAVES
    assert rows[:, 0].tolist() == pytest.approx([-height, -height * 0.5**0.5, 0.0, height * 0.5**0.5, height], abs=1e-6)
    assert columns[0].tolist() == pytest.approx([-height, -height / 2, height / 2, height], abs=1e-6)
    assert bool((rows == rows[:, :1]).all() and (columns == columns[:1]).all()), "each knows one axis"


def test_what_the_grid_cannot_hold_as_waves_starts_as_noise():
    table = tiny(width=12, image_size=(16, 16)).positions  # 2 x 2 tokens: one half period along each axis
    assert table is not None
    largest = table.detach()[0].abs().flatten(1).amax(1)
    assert float(largest[0]) == float(largest[2]) == POSITION_WAVES
    assert (largest[4:] < 0.1).all()


def test_coarser_outputs_come_in_training_only():
    network = tiny()
    image = torch.rand(2, 1, 24, 32)
    _, said = network.train()(image, auxiliaries=True)
    assert [(tuple(c.logits.shape), c.step) for c in said.coarser] == [((2, 3, 12, 16), (2, 2)), ((2, 3, 6, 8), (4, 4))]
    assert network.eval()(image, auxiliaries=True)[1].coarser == ()


def test_every_parameter_gets_a_gradient_in_training():
    torch.manual_seed(1)
    network = tiny().train()
    logits, said = network(torch.rand(2, 1, 24, 32), auxiliaries=True)
    outputs = [logits, said.prune_logits, *(c.logits for c in said.coarser)]
    sum(out.square().mean() for out in outputs).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_each_image_of_a_batch_is_segmented_as_if_alone_whatever_the_others_keep():
    kept = torch.zeros(3, 3, 4)
    kept[0, :2, 1:3] = kept[1, 2, 3] = 1  # the third keeps nothing
    network, images = gated(kept).eval(), torch.rand(3, 1, 24, 32)
    with torch.no_grad():
        together = network(images)
        for number in range(3):
            network.query_gate = Kept(kept[number : number + 1])
            torch.testing.assert_close(network(images[number : number + 1])[0], together[number], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_inside_the_box_is_what_the_decoder_makes_of_the_box_and_outside_is_background(training: bool):
    """Norms see the box: the decoder is the same function, of the same features, cut out."""
    kept = torch.zeros(1, 3, 4)
    kept[0, 1:, :2] = 1  # rows 8 to 24, columns 0 to 16
    network, image = gated(kept).train(training), torch.rand(1, 1, 24, 32)
    seen: list[list[Tensor]] = []
    decode = network._decode

    def watched(maps: list[Tensor], with_heads: bool) -> list[Tensor]:
        seen.append(maps)
        return decode(maps, with_heads)

    network._decode = watched
    with torch.no_grad():
        logits = network(image)
        network.config.__dict__["prune_decoder"] = False
        network(image)
        boxed, whole = seen
        for cut, full, cell in zip(boxed, whole, (8, 4, 2, 1), strict=True):
            assert torch.equal(cut, full[..., cell:, : 2 * cell])
        torch.testing.assert_close(logits[..., 8:, :16], decode(boxed, False)[0])
    outside = torch.ones(24, 32, dtype=torch.bool)
    outside[8:, :16] = False
    assert (logits[0, 0, outside] == BACKGROUND_LOGIT).all()
    assert (logits[0, 1:, :, :][:, outside] == -BACKGROUND_LOGIT).all()


@pytest.mark.parametrize("make", [tiny, tiny_3d])
def test_a_box_of_everything_is_the_whole_network(make: Any):
    network = make(prune_queries=True).eval()
    image = torch.rand(2, 1, *network.config.image_size)
    network.query_gate = Kept(torch.ones(2, *network.config.base_grid))
    with torch.no_grad():
        boxed = network(image)
        network.gating = "off"
        torch.testing.assert_close(boxed, network(image), rtol=1e-4, atol=1e-5)


def test_away_from_the_edge_of_the_box_only_the_norms_tell_it_from_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(InstanceNormAct, "forward", lambda self, features: F.leaky_relu(features, SLOPE))
    kept = torch.zeros(1, 6, 6)
    kept[0, 1:5, 1:5] = 1
    network, image = gated(kept, image_size=(48, 48)).eval(), torch.rand(1, 1, 48, 48)
    with torch.no_grad():
        boxed = network(image)
        network.config.__dict__["prune_decoder"] = False
        inner = (..., slice(16, 32), slice(16, 32))  # a cell and more from the edge
        torch.testing.assert_close(boxed[inner], network(image)[inner], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(boxed[..., 8:12, 8:12], network(image)[..., 8:12, 8:12], atol=1e-3)


@pytest.mark.parametrize("keys", [False, True])
def test_hard_gates_give_what_soft_ones_give(keys: bool):
    kept = torch.zeros(2, 3, 4)
    kept[0, 1, 1:3] = kept[1, :, 2] = 1
    network, images = gated(kept, prune_keys=keys, prune_decoder=False).eval(), torch.rand(2, 1, 24, 32)
    with torch.no_grad():
        hard, said = network(images, auxiliaries=True)
        assert torch.equal(said.kept, kept)
        network.gating = "soft"
        torch.testing.assert_close(network(images), hard, rtol=1e-4, atol=1e-5)


def test_a_step_on_boxes_reaches_every_weight_and_images_that_keep_nothing_do_no_harm():
    kept = torch.zeros(3, 3, 4)
    kept[0, 1, 1:3] = kept[2] = 1
    network = gated(kept).train()
    logits, said = network(torch.rand(3, 1, 24, 32), auxiliaries=True)
    outputs = [logits, said.prune_logits, *(c.logits for c in said.coarser)]
    assert [tuple(out.shape[2:]) for out in outputs] == [(24, 32), (3, 4), (12, 16), (6, 8)]
    sum(out.square().mean() for out in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.query_gate = Kept(torch.zeros(3, 3, 4))
    assert (network(torch.rand(3, 1, 24, 32))[:, 0] == BACKGROUND_LOGIT).all()


def test_boxes_of_one_size_come_together_and_hold_two_cells_and_the_halo():
    kept = torch.zeros(4, 3, 4)
    kept[0, 0, 0] = kept[1, 2, 3] = kept[2, 1, 1] = 1
    found = {boxes.images: (boxes.starts, boxes.extent) for boxes in boxes_around(kept)}
    assert found == {(0, 1, 2): (((0, 0), (2, 2), (1, 1)), (1, 2))}
    assert [(b.images, b.extent) for b in boxes_around(kept, halo=1)] == [((0, 1), (2, 2)), ((2,), (3, 3))]


def test_extents_are_rounded_up_inside_the_image():
    kept = torch.zeros(2, 5, 9)
    kept[0, :5, 4:] = kept[1, 1:3, :7] = 1
    found = [(boxes.starts, boxes.extent) for boxes in boxes_around(kept)]
    assert found == [(((0, 3),), (5, 6)), (((1, 0),), (2, 8))]


@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (2, 3, 4, 5, 6), (1, 300, 2, 1)])
@pytest.mark.parametrize("last", [False, True])
def test_the_norm_is_instance_norm_and_leaky_relu_forward_and_backward(shape: tuple[int, ...], last: bool):
    torch.manual_seed(0)
    norm = InstanceNormAct(shape[1]).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    features = 3 + torch.randn(*shape, dtype=torch.float64)
    if last:
        features = features.to(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    gradient = torch.randn(*shape, dtype=torch.float64)
    out = norm(ours)
    reference = F.leaky_relu(F.instance_norm(theirs, weight=norm.weight, bias=norm.bias), SLOPE)
    torch.testing.assert_close(out, reference)
    inputs = [norm.weight, norm.bias]
    expected = torch.autograd.grad(reference, [theirs, *inputs], gradient)
    torch.testing.assert_close(torch.autograd.grad(out, [ours, *inputs], gradient), expected)


def test_in_half_precision_the_norm_is_as_exact_as_its_numbers():
    features = (20 + torch.randn(2, 4, 96, 97)).bfloat16()
    exact = F.leaky_relu(F.instance_norm(features.double()), SLOPE)
    torch.testing.assert_close(InstanceNormAct(4)(features).double(), exact, rtol=2e-2, atol=2e-2)
