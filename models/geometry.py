"""Where solutions lie to each other: angular distance, and error barriers along straight lines (paper, section 4)."""

from typing import NamedTuple

import torch

from models import sphere


class BarrierProtocol(NamedTuple):
    """How error barriers of a kind of network are measured, and drawn."""

    points: int  # of a straight line, its ends included
    on_sphere: bool  # whether the ends, and all points between them, are projected to the sphere
    # Whether statistics are re-estimated at every point; train errors then are those of batch statistics.
    batch_norm: bool
    floor: float  # percent: smaller barriers run off the plot


def angular_distance(first, second):
    """Angles [members] in radians, 0 to pi, between rows of two tensors [members, parameters] of any norms.

    In float64, and from differences of unit vectors: the arccos of a cosine near 1 would lose small angles.
    """
    first, second = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (first, second))
    return 2 * torch.atan2((first - second).norm(dim=1), (first + second).norm(dim=1))


def error_barriers(solutions, pairs, protocol, rho, errors):
    """The most by which errors on a straight line exceed the line between those of its ends, 0 where they never do.

    solutions: {name: weights [members, parameters]}. pairs: two names each. errors: a function of weights that returns
    errors, [..., members]; it is called once for each solution and each point between two of them.
    Returns {pair: [..., members]}.
    """

    def placed(weights):
        if protocol.on_sphere:
            weights = weights.clone()
            sphere.project_(weights, rho)
        return weights

    ends = {name: placed(solutions[name]) for name in sorted({name for pair in pairs for name in pair})}
    errors_of_ends = {name: errors(weights) for name, weights in ends.items()}
    alphas = [point / (protocol.points - 1) for point in range(1, protocol.points - 1)]
    barriers = {}
    for pair in pairs:
        (first, second), (error_1, error_2) = ([found[name] for name in pair] for found in (ends, errors_of_ends))
        excesses = [
            errors(placed((1 - alpha) * first + alpha * second)) - (1 - alpha) * error_1 - alpha * error_2
            for alpha in alphas
        ]
        barriers[pair] = torch.stack(excesses).amax(dim=0).clamp_min(0)
    return barriers


def measurements_of_line(pairs, protocol):
    """How often error_barriers() calls its function `errors`."""
    return len({name for pair in pairs for name in pair}) + len(pairs) * (protocol.points - 2)


@torch.no_grad()
def relative_filter_norms(parameters):
    """Norms [filters] of all filters in an iterable of parameters, relative to that of all of them (paper, figure 13).

    A filter is what gives one channel of a layer's output; parameters of one dimension have none.
    """
    norms = torch.cat([kernel.flatten(1).norm(dim=1) for kernel in parameters if kernel.ndim > 1])
    return norms / norms.norm()
