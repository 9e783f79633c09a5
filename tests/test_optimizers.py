"""Optimisers over one flat vector, held against closed forms in float64 and against torch.optim over single parameters."""

import copy

import pytest
import torch

from models import optimizers

SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01}
ADAM = {"name": "adam", "betas": (0.9, 0.999), "weight_decay": 0.01}
LR = 0.1


def gradients(count, size=6):
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, size, generator=random, dtype=torch.float64)


def started(options, rho=None):
    weights = gradients(1)[0].clone()
    if rho is not None:
        weights *= rho / weights.norm()
    gradient = torch.zeros_like(weights)
    return weights, gradient, optimizers.build(weights, gradient, LR, options, rho)


def trained(options, slopes, rho=None):
    """The weights after each step."""
    weights, gradient, optimizer = started(options, rho)
    path = []
    for slope in slopes:
        gradient.copy_(slope)
        optimizer.step()
        path.append(weights.clone())
    return path


def test_to_build_one_leaves_weights_and_gradient_alone():
    for options, rho in ((optimizers.PROJECTED_SGD, 2.0), (SGD, None), (ADAM, None)):
        weights, gradient, optimizer = started(options, rho)
        expected = gradients(1)[0] * (1 if rho is None else rho / gradients(1)[0].norm())
        assert torch.equal(weights, expected) and not gradient.any()
        assert not any(tensor.any() for tensor in optimizers.state_of(optimizer).values())


def test_projected_sgd_follows_its_definition():
    rho, w = 2.0, gradients(1)[0] * 2.0 / gradients(1)[0].norm()
    for slope, found in zip(gradients(5), trained(optimizers.PROJECTED_SGD, gradients(5), rho), strict=True):
        moved = w - LR * rho**2 * slope
        w = rho * moved / moved.norm()
        torch.testing.assert_close(found, w, rtol=1e-14, atol=0)


def test_sgd_with_momentum_and_weight_decay_follows_its_definition():
    w, velocity = gradients(1)[0], 0
    for slope, found in zip(gradients(5), trained(SGD, gradients(5)), strict=True):
        velocity = 0.9 * velocity + slope + 0.01 * w
        w = w - LR * velocity
        torch.testing.assert_close(found, w, rtol=1e-14, atol=0)


def test_adam_adds_weight_decay_to_the_gradient():
    w, first, second = gradients(1)[0], 0, 0
    for step, (slope, found) in enumerate(zip(gradients(5), trained(ADAM, gradients(5)), strict=True), start=1):
        g = slope + 0.01 * w
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        w = w - LR * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(found, w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", [SGD, ADAM])
def test_state_made_beforehand_changes_no_bit(options):
    """torch.optim makes it at the first step, too late for a CUDA graph."""
    weights = gradients(1)[0].clone().requires_grad_()
    keywords = {name: value for name, value in options.items() if name != "name"}
    plain = optimizers.OPTIMIZERS[options["name"]]([weights], lr=LR, **keywords)
    for slope, found in zip(gradients(5), trained(options, gradients(5)), strict=True):
        weights.grad = slope.clone()
        plain.step()
        assert torch.equal(weights.detach(), found)


@pytest.mark.parametrize("options, rho", [(optimizers.PROJECTED_SGD, 2.0), (SGD, None), (ADAM, None)])
def test_stored_state_goes_on_and_cleared_state_begins_anew(options, rho):
    slopes = gradients(6)
    whole = trained(options, slopes, rho)
    weights, gradient, optimizer = started(options, rho)
    for slope in slopes[:3]:
        gradient.copy_(slope)
        optimizer.step()
    state = copy.deepcopy(dict(optimizers.state_of(optimizer)))
    again, gradient, other = started(options, rho)
    again.copy_(weights)
    optimizers.load_state(other, state)
    for slope in slopes[3:]:
        gradient.copy_(slope)
        other.step()
    assert torch.equal(again, whole[-1])
    optimizers.clear_state(other)
    again.copy_(whole[2])
    for slope in slopes[3:]:
        gradient.copy_(slope)
        other.step()
    assert torch.equal(again, whole[-1]) == (options is optimizers.PROJECTED_SGD)
