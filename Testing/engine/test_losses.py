"""Losses of APFormer: the self-supervised attention term in loops, and what each loss teaches."""

from __future__ import annotations

import math

import pytest
import torch
from apformer.training.config import LossWeights
from torch import Tensor

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.networks.apformer import APFormer
from apformer.pruning.auxiliaries import Auxiliaries, Coarser
from apformer.training.losses import (
    SEARCH,
    APFormerLoss,
    balanced_entropy,
    cells_with_foreground,
    content_attention,
    ssa_term,
    thinned,
)

FLOOR = 0.8 * 0.1  # symmetry weight times symmetry floor


def random_attention(*shape: int, sharpness: float = 1.0) -> Tensor:
    scores = torch.randn(*shape, generator=torch.Generator().manual_seed(7)) * sharpness
    return scores.softmax(-1)


def focused(count: int, mutual: bool) -> Tensor:
    """Attention (1, 1, N, N): token i looks at token i ^ 1 (mutual), or every token at token 0."""
    attention = torch.full((count, count), 0.01 / (count - 1))
    for i in range(count):
        attention[i, i ^ 1 if mutual else 0] = 0.99
    return attention[None, None]


def ssa_in_loops(attention: Tensor) -> float:
    batch, heads, count, _ = attention.shape
    asymmetry, evenness = 0.0, 0.0
    for b in range(batch):
        for h in range(heads):
            a = attention[b, h].double().tolist()
            rows = [-sum(p * math.log(p) for p in row) / math.log(count) for row in a]
            evenness += max(0.0, min(rows) - 0.9) * 10
            for i in range(count):
                for j in range(count):
                    difference = abs(count * a[i][j] - count * a[j][i])
                    asymmetry += 0.5 * difference**2 if difference < 1 else difference - 0.5
    asymmetry /= batch * heads * count * count
    return 0.8 * max(0.1, asymmetry) + 0.2 * evenness / (batch * heads)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 4.0])
def test_ssa_is_the_formula(sharpness: float):
    attention = random_attention(2, 3, 5, 5, sharpness=sharpness)
    assert float(ssa_term(attention)) == pytest.approx(ssa_in_loops(attention), rel=1e-4)


def test_content_attention_is_softmax_of_scaled_products():
    queries, keys = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    expected = torch.einsum("bhid,bhjd->bhij", queries, keys).div(2.0).softmax(-1)
    torch.testing.assert_close(content_attention(queries, keys), expected)


def test_symmetric_focused_attention_costs_the_floor():
    assert float(ssa_term(focused(6, mutual=True))) == pytest.approx(FLOOR)


def test_one_sided_attention_costs_more_than_mutual_attention():
    assert float(ssa_term(focused(6, mutual=False))) > 2 * FLOOR


def test_uniform_attention_pays_the_whole_entropy_penalty():
    assert float(ssa_term(torch.full((2, 3, 8, 8), 1 / 8))) == pytest.approx(FLOOR + 0.2 * 10 * (1 - 0.9), rel=1e-4)


def test_one_focused_query_is_enough_to_escape_the_entropy_penalty():
    attention = torch.full((1, 1, 8, 8), 1 / 8)
    attention[0, 0, 3] = torch.eye(8)[3]
    assert float(ssa_term(attention)) == pytest.approx(ssa_in_loops(attention.clamp_min(1e-12)), rel=1e-4)
    assert float(ssa_term(attention)) < FLOOR + 0.2


def test_below_the_floor_ssa_gives_no_gradient_and_above_it_does():
    for mutual in (True, False):
        scores = focused(6, mutual).log().requires_grad_()
        ssa_term(scores.softmax(-1)).backward()
        assert bool(scores.grad.abs().max() > 1e-6) is not mutual


def test_gradients_stay_finite_where_attention_underflows_to_zero():
    scores = torch.zeros(1, 1, 4, 4)
    scores[..., 0] = 200.0  # exp(-200) is 0 in float32
    scores.requires_grad_()
    ssa_term(scores.softmax(-1)).backward()
    assert scores.grad.isfinite().all()


def test_descending_ssa_makes_attention_mutual():
    torch.manual_seed(0)
    scores = (3 * torch.randn(1, 1, 6, 6)).requires_grad_()
    optimiser = torch.optim.Adam([scores], lr=0.1)
    before = ssa_term(scores.softmax(-1)).item()
    for _ in range(100):
        optimiser.zero_grad()
        ssa_term(scores.softmax(-1)).backward()
        optimiser.step()
    assert ssa_term(scores.softmax(-1)).item() < before / 2


def test_a_cell_counts_as_foreground_when_any_of_its_pixels_does():
    labels = torch.tensor([[0, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])[None, None]
    assert cells_with_foreground(labels, (2, 2)).tolist() == [[[[0, 1], [1, 0]]]]


def test_a_cell_beyond_the_edge_of_an_odd_image_counts_what_is_inside():
    labels = torch.zeros(1, 1, 3, 4, dtype=torch.long)
    labels[0, 0, 2, 0] = 1
    assert cells_with_foreground(labels, (2, 2)).tolist() == [[[[0, 0], [1, 0]]]]


def test_cells_are_those_of_the_network_for_any_size():
    network = APFormer(in_channels=1, out_channels=2, channels=(4, 4, 4, 4), depth=1, heads=1, head_dim=4)
    labels = torch.zeros(1, 1, 17, 9, dtype=torch.long)
    labels[0, 0, 7, 7] = labels[0, 0, 16, 8] = 1
    _, auxiliaries = network(torch.zeros(1, 1, 17, 9), auxiliaries=True)
    cells = cells_with_foreground(labels, auxiliaries.token_stride)
    assert cells.shape[2:] == auxiliaries.prune_logits.shape[2:]
    assert cells[0, 0].tolist() == [[1, 0], [0, 0], [0, 1]]


def test_cells_of_a_volume_may_be_anisotropic():
    labels = torch.zeros(2, 1, 3, 4, 4, dtype=torch.long)
    labels[1, 0, 1, 0, 3] = 1
    cells = cells_with_foreground(labels, (1, 2, 2))
    assert cells.shape == (2, 1, 3, 2, 2)
    assert cells.nonzero().tolist() == [[1, 0, 1, 0, 1]]


def an_example() -> tuple[Tensor, Tensor, Auxiliaries]:
    """Logits, labels and auxiliaries of a 16 x 16 image with one 8 x 8 square, 2 x 2 tokens and 3 layers."""
    torch.manual_seed(4)
    labels = torch.zeros(2, 1, 16, 16, dtype=torch.long)
    labels[:, :, :8, 8:] = 1
    pairs = [(torch.randn(2, 2, 4, 3, requires_grad=True), torch.randn(2, 2, 4, 3)) for _ in range(3)]
    prune_logits = torch.randn(2, 2, 2, 2, requires_grad=True)
    return (
        torch.randn(2, 2, 16, 16, requires_grad=True),
        labels,
        Auxiliaries(prune_logits, pairs, (8, 8), torch.ones(2, 2, 2), torch.ones(2)),
    )


def test_the_total_is_the_weighted_sum_of_its_parts():
    logits, labels, auxiliaries = an_example()
    losses = APFormerLoss(LossWeights(segmentation=0.5, ssa=2.0, prune_head=0.25))(logits, auxiliaries, labels, 1)
    expected = 0.5 * losses["segmentation"] + 2.0 * losses["ssa"] + 0.25 * losses["prune_head"]
    torch.testing.assert_close(losses["total"], expected)
    torch.testing.assert_close(losses["ssa"], ssa_term(content_attention(*auxiliaries.queries_keys[1])))


def test_without_a_layer_or_a_head_only_the_segmentation_counts():
    logits, labels, auxiliaries = an_example()
    losses = APFormerLoss(LossWeights())(logits, auxiliaries._replace(prune_logits=None), labels, None)
    assert set(losses) == {"segmentation", "total"}
    torch.testing.assert_close(losses["total"], 0.8 * losses["segmentation"])


def test_ssa_regularises_the_chosen_layer_only():
    logits, labels, auxiliaries = an_example()
    APFormerLoss(LossWeights())(logits, auxiliaries, labels, 2)["total"].backward()
    assert [queries.grad is not None for queries, _ in auxiliaries.queries_keys] == [False, False, True]


def test_the_prune_head_learns_which_cells_hold_foreground():
    logits, labels, auxiliaries = an_example()
    features = torch.randn(2, 5, 2, 2)
    head = torch.nn.Conv2d(5, 2, kernel_size=1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    loss, history = APFormerLoss(LossWeights()), []
    for _ in range(150):
        optimiser.zero_grad()
        losses = loss(logits.detach(), auxiliaries._replace(prune_logits=head(features)), labels, None)
        losses["total"].backward()
        optimiser.step()
        history.append(losses["prune_head"].item())
    assert history[-1] < 0.5 * history[0]
    cells = cells_with_foreground(labels, (8, 8))[:, 0]
    assert (head(features).argmax(1) == cells).float().mean() > 0.8


def test_a_perfect_segmentation_costs_next_to_nothing():
    _, labels, auxiliaries = an_example()
    logits = torch.cat([1 - labels, labels], dim=1) * 40.0
    losses = APFormerLoss(LossWeights())(logits, auxiliaries, labels, None)
    assert float(losses["segmentation"]) < 1e-3


def test_thinned_labels_are_the_middle_of_every_cell_whatever_the_size():
    labels = torch.arange(5 * 3).reshape(1, 1, 5, 3)
    assert thinned(labels, (2, 1))[0, 0].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert thinned(labels[..., :1, :], (2, 4)).tolist() == [[[[2]]]]


def test_coarser_outputs_count_half_as_much_at_every_level():
    labels = (torch.rand(1, 1, 8, 9, generator=torch.Generator().manual_seed(0)) > 0.5).long()
    sizes = {(8, 9): (1, 1), (4, 5): (2, 2), (2, 3): (4, 4)}  # of whole cells, beyond an image of nine columns
    outputs = {size: torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1)) for size in sizes}
    full, *coarser = outputs.values()
    said = Auxiliaries.unpruned(full)
    loss = APFormerLoss(LossWeights(1.0, 0.0, 0.0))
    alone = [
        float(loss(out[..., : part.shape[2], : part.shape[3]], said, part, None)["total"])
        for (size, out), part in ((item, thinned(labels, sizes[item[0]])) for item in outputs.items())
    ]
    deeper = tuple(Coarser(out, step) for out, step in zip(coarser, list(sizes.values())[1:], strict=True))
    together = float(loss(full, said._replace(coarser=deeper), labels, None)["total"])
    assert together == pytest.approx((alone[0] + alone[1] / 2 + alone[2] / 4) / 1.75, rel=1e-5)


def test_each_structure_counts_alike_while_structures_are_searched_for_however_small_it_is():
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    labels[..., :4, :] = 1
    labels[..., 7, 7] = 2  # one voxel beside 32
    logits = torch.zeros(1, 4, 8, 8)  # of a third structure there is nothing here
    logits[:, 0] = 5.0  # all is background, it says
    whole = float(balanced_entropy(logits, labels, torch.ones_like(labels, dtype=torch.float32)))
    logits[0, 2, 7, 7] = 20.0
    found = float(balanced_entropy(logits, labels, torch.ones_like(labels, dtype=torch.float32)))
    assert found == pytest.approx(whole / 2, rel=1e-3), "the voxel was half of all that there was to find"


def test_what_nobody_knows_is_not_searched_for():
    labels = torch.tensor([[[[1, 2, 0]]]])
    logits = torch.zeros(1, 3, 1, 3, requires_grad=True)
    balanced_entropy(logits, labels, torch.tensor([[[[1.0, 0.0, 1.0]]]])).backward()
    assert logits.grad is not None
    assert [bool(grad.any()) for grad in logits.grad[0, :, 0].T] == [True, False, False]
    nothing = balanced_entropy(logits, torch.zeros_like(labels), torch.ones(1, 1, 1, 3))
    assert float(nothing.detach()) == 0.0


def test_a_structure_that_was_lost_is_found_again_only_where_structures_are_searched_for():
    labels = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    labels[..., 5:7, 5:7] = 1
    image = (labels == 1).float()

    def after(balanced: float) -> bool:
        head = torch.nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([12.0, -12.0]))  # sure that it is nowhere
        optimiser = torch.optim.SGD(head.parameters(), lr=1.0)
        loss = APFormerLoss(LossWeights(1.0, 0.0, 0.0, balanced))
        for _ in range(60):
            optimiser.zero_grad()
            logits = head(image)
            loss(logits, Auxiliaries.unpruned(logits), labels, None, share=0.0)["total"].backward()
            optimiser.step()
        return bool((head(image).argmax(1) == labels[:, 0]).all())

    assert not after(0.0)
    assert after(0.5)


def test_the_search_fades_and_is_over_before_the_training_is():
    logits, labels, auxiliaries = an_example()
    plain, searching = APFormerLoss(LossWeights()), APFormerLoss(LossWeights(balanced=0.5))

    def more(share: float) -> float:
        each = [
            float(loss(logits, auxiliaries, labels, None, share=share)["total"].detach()) for loss in (plain, searching)
        ]
        return each[1] - each[0]

    assert more(0.0) > more(SEARCH / 2) > 0
    assert more(SEARCH / 2) == pytest.approx(more(0.0) / 2, rel=1e-4)
    assert more(SEARCH) == more(1.0) == 0
