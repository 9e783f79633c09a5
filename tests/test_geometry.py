"""Angles and barriers whose values are known."""

import math

import pytest
import torch

from data.seeds import generator
from models import mlp
from models.geometry import angular_distance, error_barriers, interpolation_errors

ALPHAS = [step / 10 for step in range(11)]


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.5, math.pi / 2, 3.0, math.pi])
def test_angle_of_vectors_in_a_plane(angle):
    first = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1e-3]], dtype=torch.float64)
    second = torch.tensor(
        [[math.cos(angle), math.sin(angle), 0.0], [0.0, math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    expected = torch.full((2,), angle, dtype=torch.float64)
    torch.testing.assert_close(angular_distance(first, 7 * second), expected, rtol=0, atol=1e-12)


def test_angle_of_single_precision_weights_is_that_of_the_numbers_they_are():
    first = mlp.initial_weights(generator("angle"))[None]
    second = first.clone()
    second[0, 0] += 1e-3
    exact = torch.arccos((first.double() @ second.double().T) / first.double().norm() / second.double().norm())
    assert angular_distance(first, second).item() == pytest.approx(exact.item(), rel=1e-6)
    assert angular_distance(first, first.clone()).item() == 0


def test_barrier_of_a_parabola():
    """Between -1 and 1, 1 - w^2 exceeds the line between its ends (0) by 1; w^2 stays below the line (1)."""
    ends = torch.tensor([[-1.0], [-1.0]]), torch.tensor([[1.0], [0.5]])

    def errors(weights):
        return torch.stack([1 - weights[:, 0] ** 2, weights[:, 0] ** 2])

    barriers = error_barriers(interpolation_errors(*ends, ALPHAS, errors), ALPHAS)
    # From -1 to 0.5 the line is 0.75 alpha, and 1 - (1.5 alpha - 1)^2 - 0.75 alpha is largest at alpha = 1/2: 9/16.
    torch.testing.assert_close(barriers, torch.tensor([[1.0, 0.5625], [0.0, 0.0]]))


def test_barrier_is_measured_from_the_line_between_unequal_ends():
    path = torch.tensor([10.0, 14.0, 30.0])[:, None]  # the middle lies 6 below the line
    assert error_barriers(path, [0.0, 0.5, 1.0]).item() == 0
    assert error_barriers(path.flip(0) * -1, [0.0, 0.5, 1.0]).item() == 6


def test_permuted_hidden_units_are_the_same_solution_behind_a_barrier():
    """A network that separates the classes, and itself with hidden units permuted: equal at the ends, not between."""
    random = generator("permutation")
    frozen = mlp.frozen_layer(random)[None]
    weights = mlp.initial_weights(random)[None]
    first, second = weights.view(2, 32, 32)
    order = torch.randperm(32, generator=random)
    permuted = torch.stack([first[order], second[:, order]]).view(1, -1)
    inputs = torch.randn(1, 2000, 32, generator=random)
    labels = (mlp.logits(weights, frozen, inputs) > 0).float()

    def errors(weights):
        return 100 * (1 - mlp.evaluate(weights, frozen, inputs, labels)[1])

    path = interpolation_errors(weights, permuted, ALPHAS, errors)
    assert path[0].item() == 0 and path[-1].item() < 0.2
    assert error_barriers(path, ALPHAS).item() > 10


def test_a_point_of_the_line_is_not_put_back_on_the_sphere():
    seen = interpolation_errors(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), [0.5], lambda w: w.T)
    assert seen.flatten().tolist() == [0.5, 0.5]
