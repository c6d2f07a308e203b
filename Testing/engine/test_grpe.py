"""GRPE: the positional bias against the formula in loops, other grids, and when the cached bias is rebuilt."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from apformer.networks.grpe import GRPE, relative_index, squared_distances


def a_grpe(grid: tuple[int, ...] = (2, 3), heads: int = 2) -> GRPE:
    """With random table and distinct widths."""
    position = GRPE(grid, heads)
    with torch.no_grad():
        position.table.copy_(torch.randn(position.table.shape, generator=torch.Generator().manual_seed(3)))
        position.sigma.copy_(torch.linspace(0.2, 0.7, heads))
    return position


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The grids for which any GRPE built its bias, in order."""
    grids: list[tuple[int, ...]] = []
    build = GRPE._build

    def recorded(self: GRPE, grid: tuple[int, ...]) -> torch.Tensor:
        grids.append(grid)
        return build(self, grid)

    monkeypatch.setattr(GRPE, "_build", recorded)
    return grids


def evaluated(position: GRPE, grid: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    with torch.no_grad():
        return position(grid).clone()


@pytest.mark.parametrize("grid", [(2, 3), (3, 1), (2, 1, 3)])
def test_the_bias_is_table_entry_plus_gaussian_prior(grid: tuple[int, ...]):
    heads = 2
    position = a_grpe(grid, heads)
    tokens = list(itertools.product(*map(range, grid)))
    table = position.table.detach().reshape(*(2 * g - 1 for g in grid), heads)
    bias = position(grid).detach()
    assert bias.shape == (1, heads, len(tokens), len(tokens))
    for head in range(heads):
        sigma = position.sigma[head].item()
        for (row, p), (column, q) in itertools.product(enumerate(tokens), enumerate(tokens)):
            distance = sum(((a - b) / g) ** 2 for a, b, g in zip(p, q, grid, strict=True))
            offset = tuple(a - b + g - 1 for a, b, g in zip(p, q, grid, strict=True))
            expected = float(table[(*offset, head)]) + 0.01 * math.exp(-distance / (2 * sigma**2 + 1e-6))
            assert float(bias[0, head, row, column]) == pytest.approx(expected, abs=1e-6)


def test_relative_index_on_two_tokens_in_a_row():
    assert relative_index((1, 2)).tolist() == [[1, 0], [2, 1]]


def test_squared_distance_counts_each_axis_in_units_of_its_length():
    assert squared_distances((1, 4)).tolist() == [9 / 16, 4 / 16, 1 / 16, 0.0, 1 / 16, 4 / 16, 9 / 16]
    between = relative_index((2, 4))[0, 7]  # the farthest two tokens
    assert float(squared_distances((2, 4))[between]) == 1 / 4 + 9 / 16


def test_head_h_starts_a_tenth_wider_than_the_one_before_and_the_table_at_zero():
    position = GRPE((2, 2), 3)
    assert position.sigma.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert not position.table.any()


def test_a_bias_on_another_grid_keeps_the_ends_of_the_table():
    position = a_grpe((3, 3), 1)
    with torch.no_grad():
        position.sigma.fill_(1e-3)  # the prior is 0.01 on the diagonal and nothing elsewhere
    small, large = evaluated(position, (3, 3))[0, 0], evaluated(position, (5, 7))[0, 0]
    assert large.shape == (35, 35)
    torch.testing.assert_close(large[0, -1], small[0, -1])  # the farthest pairs
    torch.testing.assert_close(large[-1, 0], small[-1, 0])
    torch.testing.assert_close(large[0, 0], small[0, 0])  # no offset


def test_evaluation_builds_the_bias_once(builds: list[tuple[int, ...]]):
    position = a_grpe()
    first, second = evaluated(position), evaluated(position)
    assert builds == [(2, 3)]
    assert torch.equal(first, second)


def test_training_builds_the_bias_every_time(builds: list[tuple[int, ...]]):
    position = a_grpe()
    position((2, 3))
    position((2, 3))
    assert len(builds) == 2


def test_frozen_positions_are_cached_in_training_too(builds: list[tuple[int, ...]]):
    position = a_grpe().requires_grad_(False)
    position((2, 3))
    position((2, 3))
    assert len(builds) == 1


def test_another_grid_or_dtype_rebuilds_the_bias(builds: list[tuple[int, ...]]):
    position = a_grpe()
    evaluated(position)
    assert evaluated(position, (4, 4)).shape == (1, 2, 16, 16)
    with torch.no_grad():
        assert position((4, 4), torch.bfloat16).dtype == torch.bfloat16
    assert builds == [(2, 3), (4, 4), (4, 4)]


@pytest.mark.parametrize("name", ["table", "sigma"])
def test_an_optimiser_step_on_either_parameter_changes_the_next_evaluation(name: str):
    position = a_grpe()
    before = evaluated(position)
    for other in position.parameters():
        other.requires_grad_(False)
    parameter = position.get_parameter(name).requires_grad_(True)
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    position((2, 3)).square().sum().backward()
    optimiser.step()
    after = evaluated(position)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, position((2, 3)).detach())


@pytest.mark.parametrize("assign", [False, True])
def test_loading_weights_changes_the_next_evaluation(assign: bool):
    position, other = a_grpe(), GRPE((2, 3), 2)
    evaluated(position)
    position.load_state_dict(other.state_dict(), assign=assign)
    assert torch.equal(evaluated(position), evaluated(other))


@pytest.mark.parametrize("name", ["table", "sigma"])
def test_replacing_a_parameter_changes_the_next_evaluation(name: str):
    position = a_grpe()
    with torch.no_grad():
        for parameter in position.parameters():
            parameter.add_(0)  # versions that a new, twice updated parameter can reach too
    evaluated(position)
    old = position.get_parameter(name)
    new = torch.nn.Parameter(torch.full_like(old, 0.4))
    with torch.no_grad():
        while new._version < old._version:
            new.add_(0)
    setattr(position, name, new)
    torch.testing.assert_close(evaluated(position), position((2, 3)).detach())


def test_gradients_reach_table_and_widths():
    position = a_grpe()
    position((2, 3)).square().sum().backward()
    assert (position.table.grad != 0).all()  # every offset occurs on the full grid
    assert (position.sigma.grad != 0).all()


def test_a_bias_cached_in_inference_mode_can_serve_a_backward_pass():
    position = a_grpe().requires_grad_(False)
    with torch.inference_mode():
        position((2, 3))
    scores = torch.zeros(6, 6, requires_grad=True)
    (scores * position((2, 3))).sum().backward()
    torch.testing.assert_close(scores.grad, position((2, 3)).sum((0, 1)))
