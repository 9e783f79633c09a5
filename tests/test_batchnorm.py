"""Re-estimated batch-norm statistics against moments of the whole data, computed without running averages."""

import pytest
import torch
from test_networks import NAMES, kernels, norms, pixels, plain_logits
from torch.nn import functional as F

import models
from models.batchnorm import reestimating
from models.evaluator import Evaluator

SIZES = [7, 2, 12, 5]


def unequal_batches():
    """Batches of several sizes, each of another mean and contrast, so that weights and order would show."""
    return [
        (number + (number + 1) * pixels(size, seed=number), torch.zeros(size)) for number, size in enumerate(SIZES)
    ]


@torch.no_grad()
def reestimate(network, batches):
    with reestimating(network):
        for inputs, _ in batches:
            network(inputs)


def new_network(name):
    return models.build(name, 4, 10, init_seed=0).double()


def statistics(network):
    return [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms(network)]


def assert_statistics(network, expected):
    for (mean, variance), (expected_mean, expected_variance) in zip(statistics(network), expected, strict=True):
        torch.testing.assert_close(mean, expected_mean, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(variance, expected_variance, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_first_norm_has_the_mean_over_images_and_the_weighted_mean_of_batch_variances(name):
    network = new_network(name)
    reestimate(network, unequal_batches())
    first = next(iter(kernels(network).values())).detach()
    maps = [F.conv2d(images, first, padding=1).movedim(1, 0).flatten(1) for images, _ in unequal_batches()]
    mean = torch.cat(maps, dim=1).mean(dim=1)
    variance = torch.zeros(4, dtype=torch.float64)
    for size, values in zip(SIZES, maps):
        squares = (values - values.mean(dim=1, keepdim=True)).square().sum(dim=1)
        variance += size / sum(SIZES) * squares / (values.shape[1] - 1)
    found = norms(network)[0]
    torch.testing.assert_close(found.running_mean, mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.running_var, variance, rtol=1e-10, atol=1e-12)


def test_every_norm_has_the_moments_of_batches_weighted_by_size():
    network = new_network("si-convnet")
    reestimate(network, unequal_batches())
    weights = [p.detach() for p in kernels(network).values()]
    classifier = network.classifier.weight, network.classifier.bias
    moments = [plain_logits("si-convnet", images, weights, classifier)[1] for images, _ in unequal_batches()]
    shares = [size / sum(SIZES) for size in SIZES]
    expected = [
        [sum(share * moment for share, moment in zip(shares, one_moment)) for one_moment in zip(*one_norm)]
        for one_norm in zip(*moments)
    ]
    assert_statistics(network, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", [-1e3, torch.inf, torch.nan])
def test_earlier_statistics_leave_no_trace(name, start):
    fresh, used = new_network(name), new_network(name)
    for norm in norms(used):
        norm.running_mean.fill_(start)
        norm.running_var.fill_(start)
    for network in (fresh, used):
        reestimate(network, unequal_batches())
    assert_statistics(used, statistics(fresh))


@pytest.mark.parametrize("name", NAMES)
def test_order_of_batches_and_of_images_in_them_does_not_matter(name):
    straight, reversed_ = new_network(name), new_network(name)
    reestimate(straight, unequal_batches())
    reestimate(reversed_, ((images.flip(0), labels) for images, labels in reversed(unequal_batches())))
    assert_statistics(reversed_, statistics(straight))


@pytest.mark.parametrize("name", NAMES)
def test_changes_only_statistics_and_leaves_evaluation_mode(name):
    network = new_network(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    momenta = [0.3, 0.7] * (len(norms(network)) // 2)
    for norm, momentum in zip(norms(network), momenta, strict=True):
        norm.momentum = momentum
    network.train()
    reestimate(network, iter(unequal_batches()))
    assert [norm.momentum for norm in norms(network)] == momenta
    assert not any(module.training for module in network.modules())
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if "running" in key or "num_batches" in key}


def diverse_momenta(network):
    momenta = [0.25 + number / 64 for number in range(len(norms(network)))]
    for norm, momentum in zip(norms(network), momenta):
        norm.momentum = momentum
    return momenta


def test_one_batch_of_all_images_gives_the_moments_of_all_data():
    network = models.build("si-convnet", 4, 10, init_seed=0)
    images = pixels(12).float() + 3
    with torch.no_grad(), reestimating(network):
        network(images)
    first = network.convolutions[0].weight.detach().double()
    maps = F.conv2d(images.double(), first, padding=1).movedim(1, 0).flatten(1).numpy()
    found = network.norms[0]
    torch.testing.assert_close(
        found.running_mean.double(), torch.from_numpy(maps.mean(axis=1)), rtol=1e-5, atol=1e-6
    )
    expected = torch.from_numpy(maps.var(axis=1, ddof=1))
    torch.testing.assert_close(found.running_var.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_while_reestimating_are_those_of_batch_statistics(name):
    network = new_network(name).eval()
    weights = [p.detach() for p in kernels(network).values()]
    classifier = network.classifier.weight, network.classifier.bias
    with reestimating(network):
        for images, _ in unequal_batches():
            expected, _ = plain_logits(name, images, weights, classifier)
            torch.testing.assert_close(network(images), expected, rtol=1e-8, atol=1e-8)


def test_a_measurement_while_reestimating_leaves_the_statistics_of_reestimate():
    network, other = new_network("si-convnet"), new_network("si-convnet")
    batches = [(images, labels.long()) for images, labels in unequal_batches()]
    losses = [F.cross_entropy(other.train()(images), labels, reduction="sum").item() for images, labels in batches]
    reestimate(other, batches)
    loss, _ = Evaluator(network, torch.device("cpu")).reestimate(batches)
    assert loss == pytest.approx(sum(losses) / sum(SIZES), rel=1e-10)
    assert_statistics(network, statistics(other))


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_while_reestimating_leaves_momenta_and_no_hook_behind(name):
    network = new_network(name)
    momenta = diverse_momenta(network)
    (images, _), *_ = unequal_batches()
    with pytest.raises(KeyError), reestimating(network):
        network(images)
        raise KeyError
    assert [norm.momentum for norm in norms(network)] == momenta
    assert not any(module.training for module in network.modules())
    before = statistics(network)[0]
    network.train()(5 * images + 1)
    assert [norm.momentum for norm in norms(network)] == momenta
    first = next(iter(kernels(network).values())).detach()
    mean = F.conv2d(5 * images + 1, first, padding=1).mean((0, 2, 3))
    expected = (1 - momenta[0]) * before[0] + momenta[0] * mean
    torch.testing.assert_close(norms(network)[0].running_mean, expected, rtol=1e-10, atol=1e-12)


def test_evaluation_after_reestimating_changes_no_statistics():
    network = new_network("si-resnet18")
    momenta = diverse_momenta(network)
    with torch.no_grad(), reestimating(network):
        for images, _ in unequal_batches():
            network(images)
    expected = statistics(network)
    network(pixels(3, seed=9))
    assert_statistics(network, expected)
    assert [norm.momentum for norm in norms(network)] == momenta
