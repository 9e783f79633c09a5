"""The image networks against their counts, their invariances and a plain version written from the paper's text."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
from models.evaluator import trained_parameters

CONVNET, RESNET = "si-convnet", "si-resnet18"
NAMES = [CONVNET, RESNET]


def plain_logits(name, images, kernels, classifier, statistics=None):
    """The network without modules: the convolution kernels in order, weight and bias (or None) of the classifier.

    statistics: (mean, variance) of each batch norm in order of use, in place of those of the images.
    Returns the logits and (mean, unbiased variance) of the images at each batch norm.
    """
    moments = []

    def norm(x):
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        moments.append((mean.detach(), x.detach().var((0, 2, 3), unbiased=True)))
        if statistics is not None:
            mean, variance = statistics[len(moments) - 1]
        return (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()

    features = {CONVNET: plain_convnet_features, RESNET: plain_resnet_features}[name](images, kernels, norm)
    weight, bias = classifier
    return F.linear(features, weight, bias), moments


def plain_convnet_features(images, kernels, norm):
    first, *others = kernels
    x = F.relu(norm(F.conv2d(images, first, padding=1)))
    for kernel in others:
        x = F.max_pool2d(F.relu(norm(F.conv2d(x, kernel, padding=1))), 2)
    return x.amax((2, 3))


def plain_resnet_features(images, kernels, norm):
    kernels = iter(kernels)
    x = F.conv2d(images, next(kernels), padding=1)
    for stage in range(4):
        for block in range(2):
            shrinks = stage > 0 and block == 0
            h = F.relu(norm(x))
            y = F.conv2d(h, next(kernels), padding=1, stride=2 if shrinks else 1)
            y = F.conv2d(F.relu(norm(y)), next(kernels), padding=1)
            x = y + (F.conv2d(norm(h), next(kernels), stride=2) if shrinks else x)
    assert next(kernels, None) is None
    return F.relu(norm(x)).mean((2, 3))


def exact(network):
    """In float64, with no epsilon to speak of in its batch norms: what is invariant is so to rounding."""
    for norm in norms(network):
        norm.eps = 1e-30
    return network.double()


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def kernels(network):
    return {name: p for name, p in network.named_parameters() if not name.startswith("classifier")}


def pixels(count=8, side=16, seed=0):
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# What they are


@pytest.mark.parametrize(
    "name, width, weights, filters",
    [(RESNET, 32, 2_790_240, 2_400), (CONVNET, 32, 387_936, 480), (CONVNET, 128, 6_196_608, 1_920)],
)
def test_trained_parameters_are_all_convolutions_and_as_many_as_published(name, width, weights, filters):
    network = models.build(name, width, 10, init_seed=0)
    trained = trained_parameters(network)
    assert {id(p) for p in trained} == {id(p) for p in kernels(network).values()}
    assert sum(p.numel() for p in trained) == weights
    assert sum(len(p) for p in trained) == filters
    initial_norm = math.sqrt(sum(p.double().square().sum().item() for p in trained))
    assert initial_norm == pytest.approx(math.sqrt(filters / 3), rel=0.005)


@pytest.mark.parametrize("name, has_bias", [(CONVNET, True), (RESNET, False)])
@pytest.mark.parametrize("classes", [10, 100])
def test_classifier_is_frozen_at_norm_10_with_a_bias_only_in_the_convnet(name, has_bias, classes):
    network = models.build(name, 32, classes, init_seed=1)
    frozen = {name: p for name, p in network.named_parameters() if not p.requires_grad}
    expected = {"classifier.weight": (classes, 256)} | ({"classifier.bias": (classes,)} if has_bias else {})
    assert {name: tuple(p.shape) for name, p in frozen.items()} == expected
    assert network.classifier.weight.double().norm().item() == pytest.approx(10, rel=1e-6)
    if has_bias:  # uniform up to 1/sqrt(256), not rescaled with the weight
        assert 0.75 / 16 < network.classifier.bias.abs().max() <= 1 / 16


@pytest.mark.parametrize("name, count", [(CONVNET, 4), (RESNET, 2 * 8 + 3 + 1)])
def test_batch_norms_have_defaults_and_no_affine_parameters(name, count):
    found = norms(models.build(name, 4, 10, init_seed=0))
    assert len(found) == count
    for norm in found:
        assert (norm.eps, norm.momentum, norm.affine, norm.track_running_stats) == (1e-5, 0.1, False, True)
        assert norm.weight is None and norm.bias is None


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_start_uniform_with_variance_a_third_of_the_inverse_fan_in(name):
    for kernel in kernels(models.build(name, 32, 10, init_seed=3)).values():
        kernel, fan_in, count = kernel.detach().double(), kernel[0].numel(), kernel.numel()
        bound = 1 / math.sqrt(fan_in)
        assert 0.98 * bound < kernel.abs().max() <= bound * (1 + 1e-6)
        variance_error = 4 * math.sqrt(0.8 / count)  # four standard deviations for a uniform distribution
        assert kernel.square().mean().item() == pytest.approx(1 / (3 * fan_in), rel=variance_error)
        assert abs(kernel.mean()) < 4 * bound / math.sqrt(3 * count)


@pytest.mark.parametrize("name", NAMES)
def test_initialisation_is_a_function_of_its_seed_alone(name):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = models.build(name, 4, 10, init_seed=2**62 + 1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = models.build(name, 4, 10, init_seed=2**62 + 1).state_dict()
    other = models.build(name, 4, 10, init_seed=2**62 + 2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if key.endswith((".weight", ".bias"))]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


# What they compute


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("classes", [2, 100])
def test_logits_match_the_plain_network(name, side, classes):
    network = models.build(name, 4, classes, init_seed=1).double()
    weights = [p.detach() for p in kernels(network).values()]
    classifier = network.classifier.weight, network.classifier.bias
    images = pixels(4, side)
    network.train()
    expected, moments = plain_logits(name, images, weights, classifier)
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-10)

    running = [(0.1 * mean, 0.9 + 0.1 * variance) for mean, variance in moments]
    network.eval()
    unseen = pixels(1, side, seed=1)
    expected, _ = plain_logits(name, unseen, weights, classifier, running)
    torch.testing.assert_close(network(unseen), expected, rtol=0, atol=1e-10)


def outputs_after_scaling(network, factors):
    """Logits before and after multiplying kernels, by name, with a number or a tensor with one for each filter."""
    network, images = exact(network).train(), pixels()
    before = network(images).detach()
    with torch.no_grad():
        for name, factor in factors.items():
            kernels(network)[name].mul_(factor)
    return before, network(images).detach()


def relative_change(before, after):
    return ((after - before).norm() / before.norm()).item()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [1e-2, 37.0])
def test_scaling_all_convolutions_together_leaves_the_output(name, factor):
    network = models.build(name, 4, 10, init_seed=0)
    assert relative_change(*outputs_after_scaling(network, dict.fromkeys(kernels(network), factor))) < 1e-10


def test_scaling_single_filters_of_the_convnet_leaves_the_output():
    network = models.build(CONVNET, 4, 10, init_seed=0)
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: torch.exp(torch.randn(len(kernel), 1, 1, 1, generator=generator))
        for name, kernel in kernels(network).items()
    }
    assert relative_change(*outputs_after_scaling(network, factors)) < 1e-10


# Positions among the kernels of what adds to one residual stream: stem and second convolutions in stage 1, second
# convolutions and shortcut in the others. The remaining kernels are first convolutions.
RESNET_STREAMS = [{0, 2, 4}, {6, 7, 9}, {11, 12, 14}, {16, 17, 19}]


def resnet_change(positions):
    network = models.build(RESNET, 4, 10, init_seed=0)
    names = list(kernels(network))
    assert len(names) == 20
    return relative_change(*outputs_after_scaling(network, {names[position]: 3.0 for position in positions}))


@pytest.mark.parametrize("stream", RESNET_STREAMS)
def test_scaling_all_that_adds_to_one_residual_stream_leaves_the_output(stream):
    assert resnet_change(stream) < 1e-10


@pytest.mark.parametrize("position", range(20))
def test_scaling_one_resnet_convolution_leaves_the_output_only_outside_the_streams(position):
    if position in set.union(*RESNET_STREAMS):
        assert resnet_change([position]) > 1e-2
    else:
        assert resnet_change([position]) < 1e-10


@pytest.mark.parametrize("width", [4, 8, 16])
def test_strided_shortcut_in_channels_last_has_the_gradient_of_its_formula(width):
    # On a CPU a strided 1x1 convolution of few channels may corrupt memory in this layout: then this crashes.
    norm_and_convolve = models.build(RESNET, width, 10, init_seed=0).blocks[2].shortcut
    [kernel] = norm_and_convolve.to(memory_format=torch.channels_last).parameters()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, width, 64, 64, generator=generator).to(memory_format=torch.channels_last)
    outer = torch.randn(8, 2 * width, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    norm_and_convolve(images).backward(outer)
    seen = F.batch_norm(images.double(), None, None, training=True)[:, :, ::2, ::2]
    expected = torch.einsum("bohw,bihw->oi", outer.double(), seen)[:, :, None, None]
    torch.testing.assert_close(kernel.grad.double(), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
