"""The networks of practitioners against their counts and plain versions written from the paper's text."""

import math

import pytest
import torch
from test_networks import norms, pixels, plain_resnet_features
from torch import nn
from torch.nn import functional as F

import models
from models import curvature
from models.dropout import Dropout
from models.evaluator import Evaluator, trained_parameters
from models.vit import Attention

SMALL = {"side": 8, "depth": 2, "heads": 3, "patch": 4}


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def built(name, classes=10, width=None, **shape):
    return models.build(name, width or models.NETWORKS[name].width, classes, init_seed=1, **shape)


# The ResNet


@pytest.mark.parametrize("classes, of_classifier", [(10, 5_120), (100, 51_200)])
def test_all_of_the_resnet_is_trained_and_as_large_as_published(classes, of_classifier):
    network = built("resnet18", classes)
    of_norms = [parameter for norm in norms(network) for parameter in norm.parameters()]
    kernels = models.angle_parameters("resnet18", network)
    assert (count(kernels), count(of_norms), count(network.classifier.parameters())) == (
        11_159_232,
        8_704,
        of_classifier,
    )
    assert count(trained_parameters(network)) == 11_159_232 + 8_704 + of_classifier
    assert network.classifier.bias is None
    # The default initialisation, not rescaled: uniform up to 1 / sqrt(512).
    assert 0.95 < network.classifier.weight.abs().max() * math.sqrt(512) <= 1


def test_resnet_logits_are_those_of_the_plain_network_with_scales_and_shifts():
    network = built("resnet18", width=4).double()
    random = torch.Generator().manual_seed(0)
    for norm in norms(network):
        for parameter in norm.parameters():
            parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=random)
    affine = iter([(norm.weight, norm.bias) for norm in norms(network)])

    def plain_norm(x):
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        weight, bias = next(affine)
        return (x - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]

    kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    expected = plain_resnet_features(pixels(), kernels, plain_norm) @ network.classifier.weight.T
    torch.testing.assert_close(network.train()(pixels()), expected, rtol=0, atol=1e-10)
    assert next(affine, None) is None


# The ViT


@pytest.mark.parametrize("classes, parameters", [(10, 9_634_800), (100, 9_680_970)])
def test_the_vit_has_as_many_parameters_as_published(classes, parameters):
    network = built("vit", classes)
    assert count(trained_parameters(network)) == parameters
    assert count(models.angle_parameters("vit", network)) == parameters


def test_the_vit_begins_as_published():
    network = built("vit")
    for drawn in (network.class_token, network.positions):
        error = 4 / math.sqrt(
            drawn.numel()
        )  # four standard deviations of the mean, more than that of the deviation
        assert abs(drawn.mean().item()) < error and drawn.std().item() == pytest.approx(1, abs=error)
    assert network.positions.shape == (1, 65, 512)
    temperatures = [module.temperature.item() for module in network.modules() if isinstance(module, Attention)]
    assert temperatures == pytest.approx([math.log(64**-0.5)] * 6)
    layer_norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    assert len(layer_norms) == 6 * 4 + 2
    assert {(norm.eps, norm.elementwise_affine) for norm in layer_norms} == {(1e-5, True)}
    dropouts = [module.p for module in network.modules() if isinstance(module, Dropout)]
    assert dropouts == [0.1] * (1 + 6 * 3)


def plain_vit(state, images, depth, heads, patch):
    """Logits of images, float64 [B, 3, S, S], in evaluation, one image, head and token at a time.

    state: parameters by name, the only thing taken from the network.
    """
    logits = []
    for image in images:
        tokens = [state["class_token"][0, 0], *plain_tokens(state, image, patch)]
        x = torch.stack(tokens) + state["positions"][0]
        for block in range(depth):
            x = x + plain_attention(state, f"blocks.{block}.attention", x, heads)
            x = x + plain_feed_forward(state, f"blocks.{block}.feed_forward", x)
        logits.append(linear(state, "classifier", layer_norm(state, "norm", x[0])))
    return torch.stack(logits)


def plain_tokens(state, image, patch):
    side = image.shape[-1]
    zeros = torch.zeros(3, side + 2, side + 2, dtype=image.dtype)
    zeros[:, 1:-1, 1:-1] = image
    # Moved left, right, up and down: each pixel is then what lay right of it, left of it, below and above.
    corners = {"": (1, 1), "left": (1, 2), "right": (1, 0), "up": (2, 1), "down": (0, 1)}
    stacked = torch.cat([zeros[:, row : row + side, column : column + side] for row, column in corners.values()])
    for top in range(0, side, patch):
        for left in range(0, side, patch):
            cut = [stacked[:, top + y, left + x] for y in range(patch) for x in range(patch)]
            yield linear(state, "to_tokens.1", layer_norm(state, "to_tokens.0", torch.cat(cut)))


def plain_attention(state, name, x, heads):
    x, width = layer_norm(state, f"{name}.0", x), x.shape[1]
    q, k, v = (x @ state[f"{name}.1.to_qkv.weight"].T).split(width, dim=1)
    mixed = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        for token in range(len(x)):
            others = [other for other in range(len(x)) if other != token]
            logits = torch.stack([q[token, part] @ k[other, part] for other in others])
            weights = torch.softmax(logits * state[f"{name}.1.temperature"].exp(), dim=0)
            mixed[token, part] = sum(weight * v[other, part] for weight, other in zip(weights, others))
    return linear(state, f"{name}.1.to_output", mixed)


def plain_feed_forward(state, name, x):
    x = linear(state, f"{name}.1", layer_norm(state, f"{name}.0", x))
    x = layer_norm(state, f"{name}.2", x)
    x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
    return layer_norm(state, f"{name}.6", linear(state, f"{name}.5", x))


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(state, name, x):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


@pytest.fixture
def small_vit():
    """In float64, with parameters that are all far from where they begin."""
    network = built("vit", classes=5, width=12, **SMALL).double().eval()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=random)
    return network


def test_vit_logits_and_gradients_are_those_of_the_plain_network(small_vit):
    state = {name: parameter.detach().requires_grad_() for name, parameter in small_vit.named_parameters()}
    images = pixels(3, side=8)
    expected = plain_vit(state, images, SMALL["depth"], SMALL["heads"], SMALL["patch"])
    found = small_vit(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    outer = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected = torch.autograd.grad(expected, list(state.values()), outer)
    found = torch.autograd.grad(found, list(small_vit.parameters()), outer)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_in_channels_last_and_fp32_the_vit_is_the_same(small_vit):
    expected, images = small_vit(pixels(3, side=8)), pixels(3, side=8).float()
    small_vit.float()
    for layout in (torch.contiguous_format, torch.channels_last):
        found = small_vit(images.contiguous(memory_format=layout))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


def test_dropout_of_the_vit_acts_in_training_alone(small_vit):
    images = pixels(3, side=8)
    assert torch.equal(small_vit(images), small_vit(images))
    small_vit.train()
    assert not torch.equal(small_vit(images), small_vit(images))


def test_sharpness_of_the_vit_is_that_with_attention_written_out(monkeypatch):
    """PyTorch's own attention has a second derivative in one of its kernels only."""
    images, labels = pixels(4, side=8).float(), torch.tensor([0, 1, 2, 3])

    def measured():
        evaluator = Evaluator(built("vit", classes=5, width=12, **SMALL), torch.device("cpu"))
        randoms = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        batches = [(images, labels)]
        return curvature.sharpness(evaluator, batches, lambda: batches, 4, 3, randoms)

    def written_out(q, k, v, attn_mask, scale):
        logits = scale * q @ k.transpose(2, 3) + torch.zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
        return torch.softmax(logits, dim=-1) @ v

    found = measured()
    monkeypatch.setattr(F, "scaled_dot_product_attention", written_out)
    assert found == pytest.approx(measured(), rel=1e-3, abs=1e-5)
    assert found["largest_eigenvalue"] > 100 * found["residual"] > 0


@pytest.mark.parametrize(
    "width, shape, fault",
    [(12, {"patch": 3}, "patches of 3 pixels do not fill images of 8"), (10, {}, "3 heads do not divide")],
)
def test_shapes_that_do_not_fit_are_refused(width, shape, fault):
    with pytest.raises(ValueError, match=fault):
        built("vit", width=width, **SMALL | shape)
