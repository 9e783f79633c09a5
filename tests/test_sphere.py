"""Flat weights and the projected step against the paper's formula, and the mathematics that follow from it."""

import numpy
import pytest
import torch
from test_networks import NAMES, exact, pixels
from torch.nn import functional as F

import models
from models import sphere
from models.evaluator import trained_parameters


def some_parameters():
    shapes = [(5, 3, 3, 3), (7,), (4, 5, 1, 1), (6, 2)]
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_flatten_keeps_values_and_shares_memory():
    parameters = some_parameters()
    before = [p.detach().clone() for p in parameters]
    weights, gradient = sphere.flatten(iter(parameters))
    assert weights.shape == gradient.shape == (1, 5 * 27 + 7 + 20 + 12)
    assert not weights.requires_grad and not gradient.any()
    # Channels-last: the flat order is filter, row, column, input.
    flat = torch.cat([value.movedim(1, -1).flatten() if value.dim() == 4 else value.flatten() for value in before])
    assert torch.equal(weights[0], flat)
    for parameter, value in zip(parameters, before):
        assert parameter.requires_grad and parameter.shape == value.shape
        assert torch.equal(parameter, value)
        assert parameter.dim() != 4 or parameter.is_contiguous(memory_format=torch.channels_last)
    weights.mul_(2)
    for parameter, value in zip(parameters, before):
        assert torch.equal(parameter, 2 * value)


def test_pieces_of_flat_weights_are_the_parameters():
    parameters = some_parameters()
    before = [p.detach().clone() for p in parameters]
    weights, _ = sphere.flatten(parameters)
    found = sphere.pieces(weights[0], [p.shape for p in parameters])
    for piece, parameter, value in zip(found, parameters, before, strict=True):
        assert torch.equal(piece, value)
        assert piece.data_ptr() == parameter.data_ptr() and piece.stride() == parameter.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_joined_tensors_have_the_order_of_flat_weights_in_memory_of_their_own(layout):
    tensors = [p.detach() for p in some_parameters()]
    tensors = [value.contiguous(memory_format=layout) if value.dim() == 4 else value for value in tensors]
    before = [value.clone() for value in tensors]
    expected, _ = sphere.flatten(some_parameters())
    flat = sphere.joined(tensors)
    assert flat.dtype == torch.float32 and torch.equal(flat, expected[0])
    flat.zero_()
    assert all(torch.equal(value, old) for value, old in zip(tensors, before))


def test_pieces_and_joined_are_inverse_to_each_other():
    tensors = [p.detach().double() for p in some_parameters()]
    shapes = [value.shape for value in tensors]
    flat = torch.arange(sum(value.numel() for value in tensors), dtype=torch.float64)
    assert torch.equal(sphere.joined(sphere.pieces(flat, shapes)), flat)
    for piece, value in zip(sphere.pieces(sphere.joined(tensors), shapes), tensors, strict=True):
        assert piece.dtype == torch.float64 and torch.equal(piece, value)
    # The first kernel's inputs of its first pixel come first, then those of the pixel beside it.
    first = sphere.pieces(flat, shapes)[0]
    assert first[0, :, 0, 0].tolist() == [0, 1, 2] and first[0, :, 0, 1].tolist() == [3, 4, 5]
    assert first[1, 0, 0, 0] == 27


def test_backward_accumulates_into_the_flat_gradient():
    parameters = some_parameters()
    weights, gradient = sphere.flatten(parameters)
    addresses = [p.grad.data_ptr() for p in parameters]
    for _ in range(2):  # the gradient of sum(a*p^2) is 2*a*p, here twice
        sum((number * p.square()).sum() for number, p in enumerate(parameters, start=1)).backward()
    factors = torch.cat([torch.full((p.numel(),), 4.0 * number) for number, p in enumerate(parameters, start=1)])
    torch.testing.assert_close(gradient, factors * weights)
    assert [p.grad.data_ptr() for p in parameters] == addresses


def test_backward_through_a_network_fills_the_flat_gradient():
    networks = [models.build("si-resnet18", 4, 10, init_seed=0).double() for _ in range(2)]
    _, gradient = sphere.flatten(trained_parameters(networks[0]))
    images = pixels().to(memory_format=torch.channels_last)
    for network in networks:
        network(images).square().mean().backward()
    own = [p.grad.permute(0, 2, 3, 1).flatten() for p in trained_parameters(networks[1])]
    torch.testing.assert_close(gradient[0], torch.cat(own), rtol=1e-9, atol=1e-12)
    assert networks[0].classifier.weight.grad is None


def members(rows=3, size=1000, seed=0):
    """Weights and gradients of members of very different norms, [members, parameters] in float32."""
    random = numpy.random.default_rng(seed)
    scales = numpy.array([1e-3, 1.0, 400.0])[:rows, None]
    weights, gradient = random.normal(size=(2, rows, size))
    return torch.tensor(weights * scales, dtype=torch.float32), torch.tensor(gradient, dtype=torch.float32)


def expected_step(weights, gradient, lrs, rho):
    """The formula of the paper, member by member in float64."""
    rows = []
    for w, g, lr in zip(weights.double().numpy(), gradient.double().numpy(), lrs):
        moved = w - lr * rho**2 * g
        rows.append(rho * moved / numpy.sqrt((moved**2).sum()))
    return torch.tensor(numpy.stack(rows))


def test_projection_rescales_every_member_on_its_own():
    weights, _ = members()
    expected = expected_step(weights, torch.zeros_like(weights), [0, 0, 0], rho=12.0)
    sphere.project_(weights, 12.0)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rho", [1.0, 28.0])
@pytest.mark.parametrize("lr", [1e-4, 0.03, 2.0])
def test_step_matches_the_formula_for_several_members(lr, rho):
    weights, gradient = members()
    sphere.project_(weights, rho)
    expected = expected_step(weights, gradient, [lr] * 3, rho)
    gradient_before, address = gradient.clone(), weights.data_ptr()
    sphere.projected_step_(weights, gradient, lr, rho)
    torch.testing.assert_close(weights.double(), expected, rtol=2e-6, atol=2e-6 * rho / 1000**0.5)
    assert weights.data_ptr() == address and torch.equal(gradient, gradient_before)


def test_norm_stays_rho_over_many_steps():
    weights, _ = members()
    generator = torch.Generator().manual_seed(1)
    for _ in range(1000):
        sphere.projected_step_(weights, torch.randn(weights.shape, generator=generator), 1e-3, 12.0)
    torch.testing.assert_close(weights.double().norm(dim=1), torch.full((3,), 12.0).double(), rtol=1e-6, atol=0)


def test_a_member_that_is_not_finite_leaves_the_others_alone():
    weights, gradient = members()
    expected = expected_step(weights, gradient, [0.1, 0.1, 0.1], rho=2.0)
    gradient[1, 5] = torch.inf
    sphere.projected_step_(weights, gradient, 0.1, 2.0)
    torch.testing.assert_close(weights[::2].double(), expected[::2], rtol=2e-6, atol=1e-7)
    assert not weights[1].isfinite().all()


@pytest.mark.parametrize("lr", [1e-3, 0.02, 0.5])
def test_step_at_rho_is_the_step_on_the_unit_sphere(lr):
    unit, gradient = (tensor.double() for tensor in members())
    sphere.project_(unit, 1.0)
    scaled = 28.0 * unit
    sphere.projected_step_(unit, gradient, lr, 1.0)
    # The gradient of a function of the direction alone is smaller by rho there.
    sphere.projected_step_(scaled, gradient / 28.0, lr, 28.0)
    torch.testing.assert_close(scaled, 28.0 * unit, rtol=1e-12, atol=1e-14)


def directions(name, rho, lr, steps=6):
    """Weights/rho at each step of training a network in float64 without epsilon, and the gradients at those."""
    network = exact(models.build(name, 4, 10, init_seed=0)).train()
    weights, gradient = sphere.flatten(trained_parameters(network))
    sphere.project_(weights, rho)
    path, gradients = [], []
    for step in range(steps):
        gradient.zero_()
        F.cross_entropy(network(pixels(seed=step)), torch.arange(8)).backward()
        path.append(weights[0] / rho)
        gradients.append(gradient[0].clone())
        sphere.projected_step_(weights, gradient, lr, rho)
    return torch.stack(path), torch.stack(gradients)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_orthogonal_to_the_weights(name):
    path, gradients = directions(name, 3.0, 1e-3)
    cosines = torch.cosine_similarity(path, gradients)
    assert cosines.abs().max() < 1e-10 and gradients.norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_directions_do_not_depend_on_rho(name):
    path, gradients = directions(name, 28.0, 1e-3)
    other_path, other_gradients = directions(name, 0.5, 1e-3)
    assert (path[-1] - path[0]).norm() > 0.01
    torch.testing.assert_close(other_path, path, rtol=0, atol=1e-9)
    torch.testing.assert_close(0.5 * other_gradients, 28.0 * gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_first_step_turns_the_weights_by_the_arctangent_of_rate_and_gradient(name):
    lr, rho = 1e-3, 12.0
    path, gradients = directions(name, rho, lr, steps=2)
    # The gradient is tangential: on the unit sphere the step is lr*|g| long and at a right angle to the radius.
    expected = torch.atan(lr * rho * gradients[0].norm())
    angle = 2 * torch.asin((path[1] - path[0]).norm() / 2)
    assert angle.item() == pytest.approx(expected.item(), rel=1e-9)
