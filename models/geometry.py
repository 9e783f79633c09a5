"""Where solutions lie to each other: angular distance, and error barriers along straight lines (paper, section 4)."""

import torch


def angular_distance(first, second):
    """Angles [members] in radians, 0 to pi, between rows of two tensors [members, parameters] of any norms.

    In float64, and from differences of unit vectors: the arccos of a cosine near 1 would lose small angles.
    """
    first, second = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (first, second))
    return 2 * torch.atan2((first - second).norm(dim=1), (first + second).norm(dim=1))


def interpolation_errors(first, second, alphas, errors):
    """Errors of (1 - alpha) * first + alpha * second, which is not put back on the sphere: [alphas, ..., members].

    first, second: [members, parameters]. errors: function of such weights that returns a tensor [..., members].
    """
    return torch.stack([errors((1 - alpha) * first + alpha * second) for alpha in alphas])


def error_barriers(path, alphas):
    """The most by which errors exceed the line between those of the end points; 0 where they never do.

    path: [alphas, ...]; alphas from 0 to 1. Returns [...].
    """
    alphas = torch.tensor(alphas).view(-1, *[1] * (path.dim() - 1))
    return (path - (1 - alphas) * path[0] - alphas * path[-1]).amax(dim=0).clamp_min(0)
