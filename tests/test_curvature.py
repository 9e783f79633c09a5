"""Hessians on the sphere against closed forms, and against dense ones of the loss as a function of the direction."""

import math

import numpy
import pytest
import torch
from scipy.sparse.linalg import eigsh
from test_networks import exact, pixels
from torch import nn
from torch.nn import functional as F

import models
from data.seeds import generator
from models import curvature, sphere
from models.curvature import SphereHessian, effective_gradient_norm
from models.evaluator import trained_parameters

SHAPES = [(3,), (2, 3, 2, 1), (4, 2)]
SIZE = 3 + 12 + 8


def in_order(tensors):
    """What sphere.flatten() documents: filter, row, column, input."""
    return torch.cat([t.permute(0, 2, 3, 1).flatten() if t.dim() == 4 else t.flatten() for t in tensors])


def hessian_of(loss, weights, shapes=SHAPES):
    """SphereHessian of losses(flat weights), at float64 weights [P], of parameters of these shapes."""
    parameters = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
    flat, _ = sphere.flatten(parameters)
    flat.copy_(weights)
    return SphereHessian(parameters, flat, lambda: loss(in_order(parameters)))


def on_sphere(hessian, gradient, weights):
    """The Riemannian Hessian at weights / |weights| from the Euclidean Hessian and gradient at weights, as a matrix."""
    hessian, gradient, weights = (tensor.detach().numpy() for tensor in (hessian, gradient, weights))
    norm = numpy.linalg.norm(weights)
    tangent = numpy.eye(len(weights)) - numpy.outer(weights, weights) / norm**2
    return norm**2 * tangent @ hessian @ tangent - (weights @ gradient) * tangent


def dense(hessian):
    return numpy.stack([hessian.times(unit).numpy() for unit in torch.eye(hessian.size, dtype=torch.float64)])


def assert_same(hessian, expected):
    scale = numpy.abs(expected).max()
    numpy.testing.assert_allclose(dense(hessian), expected, rtol=0, atol=1e-10 * scale)
    value, residual = hessian.largest_eigenvalue(generator("start"), tolerance=1e-10, most_products=4000)
    assert value == pytest.approx(numpy.linalg.eigvalsh(expected)[-1], rel=1e-8)
    assert residual < 1e-8 * scale


def normal(*shape, key="normal"):
    return torch.randn(shape, generator=generator(key, *shape), dtype=torch.float64)


def quadratic(slope=0.0):
    """(matrix A, vector b, weights w) of the loss w'Aw / 2 + slope b'w."""
    root = normal(SIZE, SIZE)
    return root @ root.T - 8 * torch.eye(SIZE).double(), slope * normal(SIZE), 3 * normal(SIZE, key="weights")


# Known Hessians


@pytest.mark.parametrize("slope", [0.0, 5.0])
def test_quadratic_loss(slope):
    matrix, vector, weights = quadratic(slope)
    hessian = hessian_of(lambda w: [w @ matrix @ w / 2 + vector @ w], weights)
    assert_same(hessian, on_sphere(matrix, matrix @ weights + vector, weights))


def test_linear_regression():
    inputs, targets, weights = normal(40, SIZE), normal(40), normal(SIZE, key="weights")
    hessian = hessian_of(lambda w: [F.mse_loss(inputs @ w, targets) / 2], weights)
    slope = inputs.T @ (inputs @ weights - targets) / 40
    assert_same(hessian, on_sphere(inputs.T @ inputs / 40, slope, weights))


@pytest.mark.parametrize("batches", [1, 3])
def test_logistic_regression_in_one_batch_and_in_several(batches):
    inputs, labels, weights = normal(40, SIZE), (normal(40) > 0).double(), 0.3 * normal(SIZE, key="weights")

    def losses(w):
        for some_inputs, some_labels in zip(inputs.chunk(batches), labels.chunk(batches)):
            logits = some_inputs @ w
            yield F.binary_cross_entropy_with_logits(logits, some_labels, reduction="sum") / 40

    chances = 1 / (1 + torch.exp(-inputs @ weights))
    curved = inputs.T @ torch.diag(chances * (1 - chances)) @ inputs / 40
    slope = inputs.T @ (chances - labels) / 40
    assert_same(hessian_of(losses, weights), on_sphere(curved, slope, weights))


def test_the_largest_eigenvalue_of_a_saddle_is_not_the_one_of_largest_size():
    values = torch.linspace(-50, 4, SIZE, dtype=torch.float64)
    for axis in (SIZE - 3, SIZE - 2):  # the eigenvalues are values less that of the axis
        hessian = hessian_of(lambda w: [w @ (values * w) / 2], 7 * torch.eye(SIZE)[axis].double())
        value, _ = hessian.largest_eigenvalue(generator("start"), tolerance=1e-10, most_products=4000)
        assert value == pytest.approx(49 * (values[-1] - values[axis]).item(), rel=1e-8)


# Networks


def small_network(eps=None):
    network = exact(models.build("si-convnet", 1, 2, init_seed=3)).train()
    for norm in network.norms:
        norm.eps = eps or norm.eps
    weights, gradient = sphere.flatten(trained_parameters(network))
    sphere.project_(weights, 2.0)
    return network, weights, gradient


INPUTS, LABELS = pixels(6, side=8), torch.arange(6) % 2


def network_losses(network):
    return lambda: [F.cross_entropy(network(INPUTS), LABELS)]


def network_hessian(network, weights):
    return SphereHessian(trained_parameters(network), weights, network_losses(network))


def hessian_by_direction(network, weights):
    """The Hessian of v -> loss(|weights| v / |v|) at the unit vector v, along the tangent space, by torch's own."""
    named = {name: p.shape for name, p in network.named_parameters() if p.requires_grad}
    norm = weights.norm()

    def loss(vector):
        flat, parameters, begin = norm * vector / vector.norm(), {}, 0
        for name, (outputs, inputs, height, width) in named.items():
            size = outputs * inputs * height * width
            kernel = flat[begin : begin + size].reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
            parameters[name], begin = kernel, begin + size
        return F.cross_entropy(torch.func.functional_call(network, parameters, INPUTS), LABELS)

    direction = weights[0] / norm
    tangent = numpy.eye(len(direction)) - numpy.outer(direction, direction)
    return tangent @ torch.autograd.functional.hessian(loss, direction).numpy() @ tangent


@pytest.mark.parametrize("eps", [None, 0.3])  # that of 0.3 leaves a loss that is not scale-invariant
def test_network_against_the_dense_hessian_of_the_loss_by_direction(eps):
    network, weights, _ = small_network(eps)
    hessian = network_hessian(network, weights)
    expected = hessian_by_direction(network, weights)
    scale = numpy.linalg.norm(expected, 2)
    assert (abs(hessian.radial_slope) > 1e-3 * scale) == (eps is not None)
    for seed in range(5):
        vector = normal(hessian.size, key=f"vector{seed}")
        found = hessian.times(vector).numpy()
        numpy.testing.assert_allclose(found, expected @ vector.numpy(), rtol=0, atol=1e-8 * scale)
    value, residual = hessian.largest_eigenvalue(generator("start"), tolerance=1e-6, most_products=2000)
    assert value == pytest.approx(numpy.linalg.eigvalsh(expected)[-1], rel=1e-6)
    assert residual < 1e-5 * value
    trace, error = hessian.trace(generator("probes"), 50)
    assert abs(trace - numpy.trace(expected)) < 4 * error


@pytest.mark.parametrize("rho", [0.5, 6.0])
def test_measures_of_a_scale_invariant_network_do_not_depend_on_rho(rho):
    measured = []
    for radius in (2.0, rho):
        network, weights, gradient = small_network()
        sphere.project_(weights, radius)
        hessian = network_hessian(network, weights)
        value, _ = hessian.largest_eigenvalue(generator("start"), tolerance=1e-6)
        norm, loss, _ = effective_gradient_norm(network, weights, gradient, [(INPUTS, LABELS)])
        measured.append([value, *hessian.trace(generator("probes"), 3), norm, loss])
    assert measured[1] == pytest.approx(measured[0], rel=1e-6)
    assert min(measured[0]) > 1e-3


def test_the_largest_eigenvalue_of_single_precision_weights():
    network, weights, _ = small_network()
    expected = numpy.linalg.eigvalsh(hessian_by_direction(network, weights))[-1]
    network = models.build("si-convnet", 1, 2, init_seed=3).train()
    weights, _ = sphere.flatten(trained_parameters(network))
    sphere.project_(weights, 2.0)
    losses = lambda: [F.cross_entropy(network(INPUTS.float()), LABELS)]  # noqa: E731
    hessian = SphereHessian(trained_parameters(network), weights, losses)
    value, residual = hessian.largest_eigenvalue(generator("start"), tolerance=1e-3)
    assert value == pytest.approx(expected, rel=5e-3)
    assert residual < 2e-3 * value


# The eigenvalue's accuracy


def test_residual_is_that_of_the_eigenpair(monkeypatch):
    found = []

    def recorded(*args, **options):
        found.append(eigsh(*args, **options))
        return found[-1]

    monkeypatch.setattr(curvature, "eigsh", recorded)
    values = torch.linspace(0, 1, 200, dtype=torch.float64) ** 2
    weights = normal(200, key="weights")
    hessian = hessian_of(lambda w: [w @ (values * w) / 2], weights, [(200,)])
    value, residual = hessian.largest_eigenvalue(generator("start"))
    (values_found, vectors) = found[0]
    matrix = on_sphere(torch.diag(values), values * weights, weights)
    assert value == values_found[0]
    assert residual == pytest.approx(numpy.linalg.norm(matrix @ vectors[:, 0] - value * vectors[:, 0]), rel=1e-6)
    assert 1e-6 * value < residual < 2e-2 * value  # the tolerance is one in a hundred
    assert abs(vectors[:, 0] @ weights.numpy()) < 1e-10 and numpy.linalg.norm(vectors[:, 0]) == pytest.approx(1)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3, 1e-4])
def test_residual_is_within_the_tolerance(tolerance):
    values = torch.linspace(0, 1, 400, dtype=torch.float64)
    hessian = hessian_of(lambda w: [w @ (values * w) / 2], torch.eye(400)[0].double(), [(400,)])
    value, residual = hessian.largest_eigenvalue(generator("start"), tolerance, most_products=2000)
    assert residual <= tolerance * value
    assert 1 - tolerance <= value < 1 + 1e-9


@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_at_a_maximum_the_direction_of_the_weights_is_no_eigenvector(tolerance):
    values = torch.linspace(-3, -2, 400, dtype=torch.float64)
    values[200] = -1  # at this axis the eigenvalues are values + 1, and the matrix is 0 along the weights
    hessian = hessian_of(lambda w: [w @ (values * w) / 2], torch.eye(400)[200].double(), [(400,)])
    value, _ = hessian.largest_eigenvalue(generator("start"), tolerance, most_products=4000)
    assert value == pytest.approx(-1, rel=tolerance)


def test_no_convergence_is_not_a_number_after_no_more_products_than_allowed():
    products = []
    values = torch.linspace(0, 1, 400, dtype=torch.float64)

    def losses(w):
        products.append(1)
        return [w @ (values * w) / 2]

    hessian = hessian_of(losses, normal(400, key="weights"), [(400,)])
    products.clear()
    found = hessian.largest_eigenvalue(generator("start"), tolerance=1e-14, most_products=36)
    assert len(found) == 2 and all(math.isnan(number) for number in found)
    assert 24 <= len(products) <= 36


@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_a_hessian_that_is_not_finite_has_no_eigenvalue(factor):
    hessian = hessian_of(lambda w: [factor * w.norm() ** 4], normal(30, key="weights"), [(30,)])
    assert all(math.isnan(number) for number in hessian.largest_eigenvalue(generator("start")))


def test_the_start_is_drawn_from_the_generator():
    starts = []

    def losses(w):
        starts.append(1)
        return [w.norm() ** 4 * w @ (torch.linspace(0, 1, 100).double() * w)]

    hessian = hessian_of(losses, normal(100, key="weights"), [(100,)])
    first, again, other = (hessian.largest_eigenvalue(generator(key)) for key in ("one", "one", "other"))
    assert first == again != other
    assert first[0] == pytest.approx(other[0], rel=2e-2)


# The trace


def test_trace_of_a_diagonal_hessian_at_an_axis_is_exact():
    values = torch.linspace(-1, 3, SIZE, dtype=torch.float64)
    hessian = hessian_of(lambda w: [w @ (values * w) / 2], 5 * torch.eye(SIZE)[2].double())
    others = [value for index, value in enumerate(values.tolist()) if index != 2]
    trace, error = hessian.trace(generator("probes"), 4)
    assert trace == pytest.approx(25 * sum(value - values[2].item() for value in others), rel=1e-10)
    assert error < 1e-10 * trace


@pytest.mark.parametrize("key", ["first", "second"])
def test_trace_is_within_its_standard_error_which_shrinks_as_that_of_random_signs(key):
    matrix, vector, weights = quadratic(5.0)
    expected = on_sphere(matrix, matrix @ weights + vector, weights)
    trace, error = hessian_of(lambda w: [w @ matrix @ w / 2 + vector @ w], weights).trace(generator(key), 1000)
    assert abs(trace - numpy.trace(expected)) < 4 * error
    # z'Mz of random signs has the variance 2 |M|^2 of all that is off the diagonal.
    off_diagonal = expected - numpy.diag(numpy.diag(expected))
    assert error == pytest.approx(math.sqrt(2 / 1000) * numpy.linalg.norm(off_diagonal), rel=0.1)


def test_standard_error_of_few_probes_has_one_degree_of_freedom_less():
    matrix, vector, weights = quadratic(5.0)
    expected = on_sphere(matrix, matrix @ weights + vector, weights)
    trace, error = hessian_of(lambda w: [w @ matrix @ w / 2 + vector @ w], weights).trace(generator("probes"), 2)
    random = generator("probes")
    signs = [(2 * torch.randint(2, (SIZE,), generator=random) - 1).numpy() for _ in range(2)]
    first, second = (sign @ expected @ sign for sign in signs)
    assert trace == pytest.approx((first + second) / 2, rel=1e-9)
    assert error == pytest.approx(abs(first - second) / 2, rel=1e-9)


# Gradients


def test_effective_gradient_norm_is_the_mean_over_batches_at_norm_1():
    network, weights, gradient = small_network()
    batches = [(pixels(size, side=8, seed=size), torch.arange(size) % 2) for size in (3, 6, 4)]
    gradient.fill_(7.0)  # what was there before does not count
    norm, loss, accuracy = effective_gradient_norm(network, weights, gradient, iter(batches))

    plain, _, _ = small_network()
    norms, losses, correct = [], [], 0
    for images, labels in batches:
        logits = plain(images)
        chances = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        each = -chances[torch.arange(len(labels)), labels].log()
        gradients = torch.autograd.grad(each.mean(), trained_parameters(plain))
        norms.append(math.sqrt(sum(numpy.square(part.numpy()).sum() for part in gradients)))
        losses += each.tolist()
        correct += sum(numpy.argmax(logits.detach().numpy(), axis=1) == labels.numpy())
    assert norm == pytest.approx(2.0 * sum(norms) / 3, rel=1e-9)
    assert loss == pytest.approx(sum(losses) / 13, rel=1e-12)
    assert accuracy == pytest.approx(correct / 13, rel=1e-12)
