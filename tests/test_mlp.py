"""The batched MLP against a plain network per member: torch modules, autograd and an explicit projection."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from data.seeds import generator
from data.ticks import minibatches, tick_sets
from models import mlp
from models.mlp import MlpTrainer, evaluate, logits

GROUPS = [(1, 1), (1, 2), (2, 1)]  # data seed, training seed
SEEDS = [seed for _, seed in GROUPS]


def initial_weights(seed):
    return mlp.initial_weights(generator("initial-weights", seed))


def frozen_layer(data_seed):
    return mlp.frozen_layer(generator("frozen-layer", data_seed))


@pytest.fixture(scope="module")
def sets():
    """Training inputs [groups, 512, 32] and labels, test inputs [groups, 2000, 32] and labels."""
    return [torch.stack(part) for part in zip(*(tick_sets(data_seed) for data_seed, _ in GROUPS))]


def batches(sets, steps, dtype):
    """`steps` pairs of inputs [groups, 16, 32] and labels [groups, 16]."""
    passes = [minibatches(sets[0], sets[1], SEEDS, number) for number in range(-(-steps // 32))]
    inputs, labels = (torch.cat(part)[:steps].to(dtype) for part in zip(*passes))
    return list(zip(inputs, labels))


def start(members_per_group, dtype, rho=1.0):
    """Initial weights [members, 2048] at radius rho and frozen layers [groups, 32]."""
    weights = torch.stack([initial_weights(seed) for seed in SEEDS]).repeat_interleave(members_per_group, 0)
    frozen = torch.stack([frozen_layer(data_seed) for data_seed, _ in GROUPS])
    return weights.to(dtype) * rho, frozen.to(dtype)


def train(learning_rates, steps, sets, dtype, rho=1.0, compiled=False):
    """Weights [members, 2048] after training every group at all the learning rates."""
    weights, frozen = start(len(learning_rates), dtype, rho)
    rates = torch.tensor(learning_rates, dtype=dtype).repeat(len(GROUPS))
    trainer = MlpTrainer(weights, frozen, rates, rho=rho, compiled=compiled)
    for inputs, labels in batches(sets, steps, dtype):
        trainer.step(inputs, labels)
    return trainer.weights


def reference_network(weights, last):
    network = torch.nn.Sequential(
        torch.nn.Linear(32, 32, bias=False),
        torch.nn.LayerNorm(32, eps=1e-7, elementwise_affine=False),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 32, bias=False),
        torch.nn.LayerNorm(32, eps=1e-7, elementwise_affine=False),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 1, bias=False),
    ).to(weights.dtype)
    network[0].weight.data = weights[:1024].reshape(32, 32).clone()
    network[3].weight.data = weights[1024:].reshape(32, 32).clone()
    network[6].weight.data = last[None].clone()
    network[6].requires_grad_(False)
    return network


def reference_train(learning_rate, group, steps, sets, rho=1.0):
    """Weights [2048] of one member, in double precision, and the loss of every minibatch."""
    weights, frozen = start(1, torch.float64, rho)
    network = reference_network(weights[group], frozen[group])
    matrices = [network[0].weight, network[3].weight]
    losses = []
    for inputs, labels in batches(sets, steps, torch.float64):
        loss = binary_cross_entropy_with_logits(network(inputs[group])[:, 0], labels[group])
        gradients = torch.autograd.grad(loss, matrices)
        with torch.no_grad():
            for matrix, gradient in zip(matrices, gradients):
                matrix -= learning_rate * rho**2 * gradient
            norm = sum(matrix.square().sum() for matrix in matrices).sqrt()
            for matrix in matrices:
                matrix *= rho / norm
        losses.append(loss.item())
    return torch.cat([matrix.detach().flatten() for matrix in matrices]), losses


@pytest.mark.parametrize(
    "learning_rates, steps, rho",
    [
        ([1e-4, 1e-3, 1e-2], 200, 1.0),
        ([0.1, 1.0], 10, 1.0),
        ([1e-4, 1e-2], 100, 30.0),
        ([1e-4, 1e-2], 100, 3e-3),  # so small that the epsilon of layer norm matters
    ],
)
def test_double_precision_follows_the_reference(learning_rates, steps, rho, sets):
    weights = train(learning_rates, steps, sets, torch.float64, rho)
    weights = weights.view(len(GROUPS), len(learning_rates), -1)
    for group in range(len(GROUPS)):
        for index, learning_rate in enumerate(learning_rates):
            expected, _ = reference_train(learning_rate, group, steps, sets, rho)
            torch.testing.assert_close(weights[group, index], expected, rtol=0, atol=1e-7 * rho)


def test_single_precision_follows_the_reference(sets):
    """Training is chaotic only at larger learning rates; a ReLU at zero may flip at any, hence the median."""
    learning_rates, steps = [1e-4, 1e-3], 200
    weights, frozen = start(len(learning_rates), torch.float32)
    trainer = MlpTrainer(weights, frozen, torch.tensor(learning_rates).repeat(len(GROUPS)))
    losses = []
    for inputs, labels in batches(sets, steps, torch.float32):
        losses.append(evaluate(trainer.weights, frozen, inputs, labels)[0])
        trainer.step(inputs, labels)
    losses = torch.stack(losses).view(steps, len(GROUPS), len(learning_rates)).double()
    differences = []
    for group in range(len(GROUPS)):
        for index, learning_rate in enumerate(learning_rates):
            _, expected = reference_train(learning_rate, group, steps, sets)
            differences.append((losses[:, group, index] - losses.new_tensor(expected)).abs().max())
    assert torch.stack(differences).median() < 3e-5


def test_gradient_is_orthogonal_to_the_weights(sets):
    """Only then is the tangent of the angle between old and new weights proportional to the learning rate."""
    rho, learning_rate = 1000.0, 0.01
    weights, frozen = start(1, torch.float64, rho)
    inputs, labels = batches(sets, 1, torch.float64)[0]
    ratios = []
    for length in (learning_rate, 2 * learning_rate):
        trainer = MlpTrainer(weights, frozen, torch.full((len(GROUPS),), length), rho=rho)
        trainer.step(inputs, labels)
        radial = (trainer.weights * weights).sum(1) / rho**2
        tangential = (trainer.weights / rho - radial[:, None] * weights / rho).norm(dim=1)
        ratios.append(tangential / radial)
    assert (ratios[0] > 1e-3).all()
    torch.testing.assert_close(ratios[1], 2 * ratios[0], rtol=1e-7, atol=0)


def test_scale_of_the_weights_does_not_matter(sets):
    weights, frozen = start(1, torch.float64)
    small, large = (logits(weights * scale, frozen, sets[2].double()) for scale in (1e3, 1e6))
    torch.testing.assert_close(small, large, rtol=1e-7, atol=1e-9)


def test_radius_does_not_matter_to_effective_learning_rates(sets):
    small, large = (train([1e-3, 1e-2], 100, sets, torch.float64, rho) / rho for rho in (1e3, 1e5))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rho", [1.0, 28.0])
def test_norm_stays_on_the_sphere(rho, sets):
    weights = train([1e-4, 1e-2, 1.0], 100, sets, torch.float32, rho)
    torch.testing.assert_close(weights.norm(dim=1), torch.full((9,), rho), rtol=1e-6, atol=0)


def test_projection_is_global(sets):
    """At a large learning rate the norms of the two layers drift apart while their joint norm stays.

    In double precision and over few iterations, in which rounding errors cannot grow to be seen.
    """
    first, second = train([1.0], 10, sets, torch.float64).view(len(GROUPS), 2, 1024).norm(dim=2).unbind(1)
    assert ((first / second).log().abs() > 0.05).all()


def test_compiled_step_is_the_same_arithmetic(compiler, sets):
    """In double precision, as in single precision a ReLU at zero may flip and be seen early."""
    plain, compiled = (train([1e-4, 1e-2], 100, sets, torch.float64, compiled=c) for c in (False, True))
    torch.testing.assert_close(plain, compiled, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "groups, members", [([[0], [1], [2]], 1), ([[0, 1, 2]], 1), ([[0, 2], [1]], 3), ([[2, 1, 0]], 2)]
)
def test_member_of_a_batch_equals_the_member_alone(groups, members, sets):
    """In chunks of whole groups, `members` learning rates at a time: nothing but rounding may differ.

    In double precision, as in single precision a ReLU at zero may flip and be seen early.
    """
    learning_rates, steps = [1e-4, 1e-3, 3e-3], 200
    together = train(learning_rates, steps, sets, torch.float64).view(len(GROUPS), len(learning_rates), -1)
    weights, frozen = start(1, torch.float64)
    for chunk in groups:
        for rates in torch.tensor(learning_rates, dtype=torch.float64).split(members):
            points = weights[chunk].repeat_interleave(len(rates), dim=0)
            trainer = MlpTrainer(points, frozen[chunk], rates.repeat(len(chunk)))
            for inputs, labels in batches(sets, steps, torch.float64):
                trainer.step(inputs[chunk], labels[chunk])
            expected = together[chunk][:, [learning_rates.index(pytest.approx(rate.item())) for rate in rates]]
            torch.testing.assert_close(trainer.weights.view_as(expected), expected, rtol=0, atol=1e-9)


def test_member_that_is_not_finite_leaves_the_others_alone(sets):
    weights, frozen = start(2, torch.float32)
    spoilt = weights.clone()
    spoilt[2] = torch.nan
    spoilt[4, 100] = torch.inf
    rates = torch.tensor([1e-3, 1e-2]).repeat(len(GROUPS))
    trainers = [MlpTrainer(start_weights, frozen, rates) for start_weights in (weights, spoilt)]
    for inputs, labels in batches(sets, 40, torch.float32):
        for trainer in trainers:
            trainer.step(inputs, labels)
    healthy = [0, 1, 3, 5]
    assert torch.equal(trainers[0].weights[healthy], trainers[1].weights[healthy])
    assert not trainers[1].weights[[2, 4]].isfinite().any(dim=1).any()
    for good, bad in zip(*(evaluate(trainer.weights, frozen, sets[2], sets[3]) for trainer in trainers)):
        assert torch.equal(good[healthy], bad[healthy])


def test_weights_are_all_there_is_to_resume(sets):
    weights, frozen = start(2, torch.float32)
    rates = torch.tensor([1e-3, 0.1]).repeat(len(GROUPS))
    through = MlpTrainer(weights, frozen, rates)
    steps = batches(sets, 60, torch.float32)
    for inputs, labels in steps[:30]:
        through.step(inputs, labels)
    interrupted = MlpTrainer(through.weights, frozen, rates)
    for trainer in (through, interrupted):
        for inputs, labels in steps[30:]:
            trainer.step(inputs, labels)
    assert torch.equal(through.weights, interrupted.weights)


def test_initial_weights_stay_untouched(sets):
    weights, frozen = start(1, torch.float32)
    trainer = MlpTrainer(weights, frozen, torch.ones(len(GROUPS)))
    before = trainer.weights
    trainer.step(*batches(sets, 1, torch.float32)[0])
    assert torch.equal(weights, start(1, torch.float32)[0])
    assert torch.equal(before, weights) and not torch.equal(before, trainer.weights)


def test_frozen_layer_and_initial_point():
    assert frozen_layer(1).shape == (32,) and frozen_layer(1).norm().item() == pytest.approx(10, rel=1e-6)
    assert torch.equal(frozen_layer(1), frozen_layer(1)) and not torch.equal(frozen_layer(1), frozen_layer(2))
    layers = torch.stack([frozen_layer(data_seed) for data_seed in range(40)])
    assert (layers * 32**0.5 / 10).pow(4).mean() == pytest.approx(1.8, abs=0.15)  # of the uniform law

    points = torch.stack([initial_weights(seed) for seed in range(1, 11)])
    assert points.shape == (10, 2048)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(10))
    assert torch.equal(points[0], initial_weights(1))
    cosines = points @ points.T - torch.eye(10)
    assert cosines.abs().max() < 5 / 2048**0.5
    kurtosis = (points * 2048**0.5).pow(4).mean()
    assert kurtosis == pytest.approx(3, abs=0.25)  # of the normal law


def test_logits_and_evaluation_follow_the_reference(sets):
    """Seventy members in two groups, so that members and points are cut into several chunks."""
    weights = torch.stack([initial_weights(seed) for seed in range(70)]).double()
    frozen = torch.stack([frozen_layer(1), frozen_layer(2)]).double()
    inputs, labels = sets[2][:2, :1300].double(), sets[3][:2, :1300].double()
    own = logits(weights, frozen, inputs)
    losses, accuracies = evaluate(weights, frozen, inputs, labels)
    shared = logits(weights, frozen, inputs[0])
    shared_losses, shared_accuracies = evaluate(weights, frozen, inputs[0], labels[0])
    for member in (0, 31, 34, 35, 67, 69):
        group = member // 35
        network = reference_network(weights[member], frozen[group])
        with torch.no_grad():
            expected, expected_shared = network(inputs[group])[:, 0], network(inputs[0])[:, 0]
        torch.testing.assert_close(own[member], expected)
        torch.testing.assert_close(shared[member], expected_shared)
        for found, score, truth in (
            ((losses, accuracies), expected, labels[group]),
            ((shared_losses, shared_accuracies), expected_shared, labels[0]),
        ):
            loss = binary_cross_entropy_with_logits(score, truth)
            torch.testing.assert_close(found[0][member], loss)
            accuracy = ((score > 0).double() == truth).double().mean()
            assert found[1][member].item() == pytest.approx(accuracy.item())


def test_small_learning_rates_converge_and_large_ones_stay_at_chance(sets):
    """Whatever the trajectory: over 40 seeds, accuracies were 1 at the small rate, 0.50 +- 0.01 at the other."""
    weights = train([1e-3, 1.0], 1600, sets, torch.float32)
    _, frozen = start(1, torch.float32)
    _, accuracies = evaluate(weights, frozen, sets[0], sets[1])
    converged, diverged = accuracies.view(len(GROUPS), 2).unbind(1)
    assert (converged > 0.9).all() and (diverged < 0.6).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu_follows_the_cpu(sets, compiled):
    learning_rates, steps = [1e-4, 1e-3], 100
    expected = train(learning_rates, steps, sets, torch.float64)
    weights, frozen = (tensor.cuda() for tensor in start(len(learning_rates), torch.float64))
    rates = torch.tensor(learning_rates, dtype=torch.float64).repeat(len(GROUPS)).cuda()
    trainer = MlpTrainer(weights, frozen, rates, compiled=compiled)
    for inputs, labels in batches(sets, steps, torch.float64):
        trainer.step(inputs.cuda(), labels.cuda())
    torch.testing.assert_close(trainer.weights.cpu(), expected, rtol=0, atol=1e-9)
    found = evaluate(trainer.weights, frozen, sets[2].double().cuda(), sets[3].double().cuda())
    for values, others in zip(found, evaluate(expected, frozen.cpu(), sets[2].double(), sets[3].double())):
        torch.testing.assert_close(values.cpu(), others, rtol=1e-6, atol=1e-6)
