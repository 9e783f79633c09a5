"""How sharp the loss is around a solution (paper, appendix, figure 26), measured on the unit sphere.

The loss of a scale-invariant network is a function on the sphere; its Hessian there is that along the sphere's tangent
space. Norms and curvatures at weights w are scaled to those at w / |w|: gradients by |w|, Hessians by |w|^2.
"""

import math

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models import sphere
from models.batchnorm import use_batch_statistics
from models.evaluator import loss_and_correct


def effective_gradient_norm(network, weights, gradient, batches):
    """Mean over batches of the norm of the gradient of the mean loss, times |weights| (paper, figure 26).

    network: in whichever mode it is; weights, gradient: its flat ones [1, P].
    Returns (norm, mean loss, accuracy), the latter two over all images.
    """
    norms, totals, count = [], 0, 0
    for inputs, labels in batches:
        gradient.zero_()
        logits = network(inputs)
        F.cross_entropy(logits, labels).backward()
        norms.append(gradient.norm())
        totals, count = totals + loss_and_correct(logits, labels), count + len(labels)
    loss, accuracy = (totals / count).tolist()
    return (torch.stack(norms).mean() * weights.norm()).item(), loss, accuracy


def sharpness(evaluator, train_batches, some_batches, count, probes, randoms):
    """How sharp the loss is at an evaluator's weights, on the unit sphere: {name: number}.

    `gradient_norm` is the mean over train_batches (paper, figure 26), `train_loss` and `train_accuracy` are those of
    the same pass, with every batch's own statistics; `largest_eigenvalue` of the Hessian with its `residual`, and its
    `trace` with the `trace_error`, a standard error of `probes` random vectors, are over the `count` images of
    some_batches().
    randoms: two torch.Generators, for the vector that the eigenvalue begins with and for the trace.
    """
    network = evaluator.network
    use_batch_statistics(network)
    with evaluator.autocast():
        norm, loss, accuracy = effective_gradient_norm(
            network, evaluator.weights, evaluator.gradient, train_batches
        )

    def losses():
        for inputs, labels in some_batches():
            yield F.cross_entropy(network(inputs), labels, reduction="sum") / count

    with sdpa_kernel(SDPBackend.MATH):  # other kernels of attention have no second derivatives
        hessian = SphereHessian(evaluator.parameters, evaluator.weights, losses)
        eigenvalue, residual = hessian.largest_eigenvalue(randoms[0])
        trace, trace_error = hessian.trace(randoms[1], probes)
    return {
        "train_loss": loss,
        "train_accuracy": accuracy,
        "gradient_norm": norm,
        "largest_eigenvalue": eigenvalue,
        "residual": residual,
        "trace": trace,
        "trace_error": trace_error,
    }


class SphereHessian:
    """The Hessian of a loss at flat weights, restricted to the tangent space of the sphere and scaled to radius 1.

    parameters: the tensors that the flat weights [1, P] consist of, in order (see sphere.flatten).
    losses: a function that returns an iterable of scalar losses of the parameters, each computed when it is asked for;
    the loss is their sum.
    """

    def __init__(self, parameters, weights, losses):
        self.parameters, self.losses = list(parameters), losses
        self.norm = weights.norm().item()
        self.radial = (weights[0] / weights.norm()).detach()
        gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        for loss in losses():
            for total, part in zip(gradients, torch.autograd.grad(loss, self.parameters)):
                total += part
        # How the sphere's own curvature enters; zero for scale-invariant losses.
        self.radial_slope = (self.radial @ sphere.joined(gradients)).item() * self.norm
        self.size = self.radial.numel()

    def tangent(self, vector):
        """The part of a vector [P] that is tangent to the sphere."""
        return vector - (vector @ self.radial) * self.radial

    def times(self, vector):
        """The Hessian times a vector [P], both taken as tangent: [P]."""
        vector = self.tangent(vector)
        pieces = sphere.pieces(vector, [parameter.shape for parameter in self.parameters])
        product = torch.zeros_like(vector)
        for loss in self.losses():
            gradients = torch.autograd.grad(loss, self.parameters, create_graph=True)
            slope = sum((gradient * piece).sum() for gradient, piece in zip(gradients, pieces))
            product += sphere.joined(torch.autograd.grad(slope, self.parameters))
        return self.tangent(self.norm**2 * product) - self.radial_slope * vector

    def largest_eigenvalue(self, random, tolerance=1e-2, most_products=200):
        """(largest eigenvalue, residual |Hv - lambda v| of its unit eigenvector) by scipy's Lanczos; NaN if it fails.

        random: a torch.Generator, for the vector to begin with. tolerance: of the eigenvalue, relative.
        """
        device, dtype = self.radial.device, self.radial.dtype

        def times(vector):
            product = self.times(torch.from_numpy(vector.ravel()).to(device, dtype)).cpu().numpy()
            if not np.isfinite(product).all():  # of which LAPACK would complain on the terminal
                raise FloatingPointError
            return product.astype(np.float64)

        operator = LinearOperator((self.size, self.size), matvec=times, dtype=np.float64)
        # Tangent, as some versions of scipy take it as it is: the weights' own direction is an eigenvector, with 0.
        start = self.tangent(torch.randn(self.size, generator=random, dtype=torch.float64).to(self.radial))
        basis = min(self.size, 12)
        try:
            values, vectors = eigsh(
                operator,
                k=1,
                which="LA",
                v0=start.cpu().double().numpy(),
                ncv=basis,
                tol=tolerance,
                maxiter=most_products // basis,
            )
        except (ArpackError, FloatingPointError):  # no convergence, or numbers that are not finite
            return math.nan, math.nan
        residual = np.linalg.norm(times(vectors[:, 0]) - values[0] * vectors[:, 0])
        return float(values[0]), float(residual)

    def trace(self, random, probes):
        """(trace, its standard error) by Hutchinson's estimator: the mean of zHz over random signs z."""
        found = []
        for _ in range(probes):
            signs = (2 * torch.randint(2, (self.size,), generator=random) - 1).to(self.radial)
            found.append((signs @ self.times(signs)).item())
        return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(probes))
