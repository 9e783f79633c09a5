"""Angles and barriers whose values are known."""

import functools
import math

import numpy
import pytest
import torch

import models
from data.seeds import generator
from models import mlp
from models.geometry import BarrierProtocol, angular_distance, error_barriers, measurements_of_line


def protocol(points=11, on_sphere=False):
    return BarrierProtocol(points=points, on_sphere=on_sphere, batch_norm=False, floor=0.1)


def float64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def square(weights):
    return weights.square().sum(dim=1)


def barrier(first, second, errors, points=11, on_sphere=False, rho=1.0):
    solutions = {"first": first, "second": second}
    (found,) = error_barriers(solutions, [("first", "second")], protocol(points, on_sphere), rho, errors).values()
    return found


# Angles


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


def test_angle_of_single_precision_weights_that_rounding_alone_sets_apart():
    first = mlp.initial_weights(generator("angle"))[None]
    second = 3 * first
    a, b = first[0].numpy().astype(numpy.longdouble), second[0].numpy().astype(numpy.longdouble)
    sine = numpy.sqrt(((b - (a @ b) / (a @ a) * a) ** 2).sum() / (b @ b))
    assert 1e-9 < sine < 1e-7
    assert angular_distance(first, second).item() == pytest.approx(float(sine), rel=1e-6)


# Barriers with closed forms


@pytest.mark.parametrize("points, largest", [(3, 1 / 4), (4, 2 / 9), (5, 1 / 4), (11, 1 / 4), (12, 30 / 121)])
def test_barrier_of_a_parabola(points, largest):
    """-|w|^2 exceeds the line between its ends by alpha (1 - alpha) times their squared distance."""
    first, second = float64([1.0, 2.0], [0.0, 0.0]), float64([4.0, -2.0], [0.0, 3.0])
    found = barrier(first, second, lambda weights: -square(weights), points)
    torch.testing.assert_close(found, largest * float64(25.0, 9.0), rtol=1e-12, atol=0)


def test_errors_below_the_line_are_no_barrier():
    first, second = float64([1.0, 2.0], [0.0, 0.0]), float64([4.0, -2.0], [0.0, 3.0])
    assert barrier(first, second, square).tolist() == [0, 0]
    assert barrier(first, second, lambda weights: weights[:, 0]).abs().max() < 1e-12  # the line itself


def test_barrier_is_measured_from_the_line_between_unequal_ends():
    """Between 0 and 3, min(w, 1) exceeds w / 3 by most, 2/3, at w = 1: alpha = 1/3 (from the other end 2/3)."""
    ends = float64([0.0]), float64([3.0])
    for first, second in (ends, ends[::-1]):
        found = barrier(first, second, lambda weights: weights[:, 0].clamp_max(1), points=7)
        assert found.item() == pytest.approx(2 / 3, rel=1e-12)
        assert barrier(first, second, lambda weights: weights[:, 0].clamp_min(1), points=7).item() == 0


@pytest.mark.parametrize("rho", [1.0, 12.0])
@pytest.mark.parametrize("angle", [0.3, 2.0])
def test_barrier_on_the_sphere(rho, angle):
    """Along an arc, the projection on its middle direction grows from rho cos(angle / 2) to rho."""
    first, second = float64([5.0, 0.0]), 0.1 * float64([math.cos(angle), math.sin(angle)])
    middle = float64(math.cos(angle / 2), math.sin(angle / 2))
    found = barrier(first, second, lambda weights: weights @ middle, 11, True, rho)
    assert found.item() == pytest.approx(rho * (1 - math.cos(angle / 2)), rel=1e-12)
    assert barrier(first, second, lambda weights: -weights @ middle, 11, True, rho).item() == 0
    assert barrier(first, second, square, 11, True, rho).item() < 1e-12 * rho**2


def test_points_between_ends_lie_at_equal_parts_of_the_line_between_projected_ends():
    seen = []
    first, second = float64([4.0, 0.0]), float64([0.0, 0.1])

    def errors(weights):
        seen.append(weights[0].clone())
        return square(weights)

    barrier(first, second, errors, points=5, on_sphere=True, rho=3.0)
    expected = [float64(1 - alpha, alpha) for alpha in (0, 1, 0.25, 0.5, 0.75)]
    expected = [3 * point / point.norm() for point in expected]
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected), rtol=1e-12, atol=1e-15)


# Which points are measured


@pytest.mark.parametrize("on_sphere", [False, True])
def test_ends_are_measured_once_and_calls_are_as_many_as_announced(on_sphere):
    random = generator("ends")
    solutions = {name: torch.randn(2, 5, generator=random, dtype=torch.float64) for name in "LHSP"}
    before = {name: weights.clone() for name, weights in solutions.items()}
    pairs, seen = [("L", "H"), ("S", "H"), ("S", "L")], []

    def errors(weights):
        seen.append(weights.clone())
        return square(weights)

    barriers = error_barriers(solutions, pairs, protocol(7, on_sphere), 3.0, errors)
    assert list(barriers) == pairs
    assert len(seen) == measurements_of_line(pairs, protocol(7, on_sphere)) == 3 + 3 * 5
    rescale = 3 / before["L"].norm(dim=1, keepdim=True) if on_sphere else 1
    assert sum(torch.allclose(weights, before["L"] * rescale) for weights in seen) == 1
    norms = torch.stack(seen).norm(dim=2)
    on_it = (norms - 3).abs() < 1e-12
    assert on_it.all() if on_sphere else not on_it.any()
    assert all(torch.equal(solutions[name], before[name]) for name in solutions)


def test_a_point_of_the_line_is_not_put_back_on_the_sphere_off_it():
    seen = []

    def errors(weights):
        seen.append(weights.flatten().tolist())
        return square(weights)

    barrier(float64([1.0, 0.0]), float64([0.0, 1.0]), errors, points=3, rho=7.0)
    assert sorted(seen) == [[0, 1], [0.5, 0.5], [1, 0]]


def test_every_pair_has_the_barrier_it_has_alone():
    """One-dimensional ends 0, 1 and 3 under -w^2: a quarter of the squared distance."""
    solutions = {"a": float64([0.0]), "b": float64([1.0]), "c": float64([3.0])}
    pairs = [("a", "b"), ("c", "b"), ("a", "c")]
    found = error_barriers(solutions, pairs, protocol(), 1.0, lambda weights: -square(weights))
    assert {pair: value.item() for pair, value in found.items()} == pytest.approx(
        {("a", "b"): 0.25, ("c", "b"): 1.0, ("a", "c"): 2.25}
    )


@pytest.mark.parametrize("on_sphere", [False, True])
def test_members_together_are_as_each_alone(on_sphere):
    random = generator("members")
    first, second, slopes = (torch.randn(4, 6, generator=random, dtype=torch.float64) for _ in range(3))

    def errors(weights, members=slice(None)):
        waves = torch.sin(3 * (weights * slopes[members]).sum(dim=1))
        return torch.stack([waves, square(weights)])

    together = barrier(first, second, errors, on_sphere=on_sphere, rho=2.0)
    assert together.shape == (2, 4) and (together[0] > 0.1).any()
    for member in range(4):
        one = slice(member, member + 1)
        alone = barrier(
            first[one], second[one], functools.partial(errors, members=one), on_sphere=on_sphere, rho=2.0
        )
        torch.testing.assert_close(together[:, one], alone, rtol=1e-10, atol=1e-12)


def test_a_member_whose_errors_are_no_numbers_has_no_barrier_and_the_others_have_theirs():
    first, second = float64([0.0], [torch.nan], [0.0]), float64([2.0], [1.0], [6.0])
    found = barrier(first, second, lambda weights: -square(weights))
    assert found[::2].tolist() == pytest.approx([1, 9]) and found[1].isnan()


# Networks


def test_permuted_hidden_units_of_a_network_that_knows_xor():
    """Hidden units relu(x - y) and relu(y - x), summed, are |x - y|: over 1/2 for the two points with x != y.

    With the units swapped the network is the same. Between, their weights are 1 - 2 alpha times as large, so that both
    points, half of the four, fall below 1/2 from alpha = 1/4 to 3/4.
    """
    inputs = float64([0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0])
    labels = torch.tensor([False, True, True, False])
    units, outputs = float64([1.0, -1.0], [-1.0, 1.0]), float64(1.0, 1.0)
    calls = []

    def errors(weights):
        hidden = torch.relu(inputs @ weights[:, :4].view(-1, 2, 2).mT)
        scores = (hidden * weights[:, None, 4:]).sum(dim=2)
        calls.append(100 * ((scores > 0.5) != labels).double().mean(dim=1))
        return calls[-1]

    weights = torch.cat([units.flatten(), outputs])[None]
    swapped = torch.cat([units.flip(0).flatten(), outputs.flip(0)])[None]
    assert barrier(weights, swapped, errors).item() == 50
    assert [call.item() for call in calls] == [0, 0] + [0, 0] + [50] * 5 + [0, 0]
    assert barrier(weights, weights, errors).item() == 0


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

    assert errors(weights).item() == 0 and errors(permuted).item() < 0.2
    assert barrier(weights, permuted, errors).item() > 10


def test_barrier_protocols_are_those_of_the_paper():
    assert {name: network.barrier[:3] for name, network in models.NETWORKS.items()} == {
        "si-mlp": (11, False, False),
        "si-convnet": (21, True, True),
        "si-resnet18": (21, True, True),
        "resnet18": (21, False, True),
        "vit": (7, False, False),
    }
