"""The synthetic tick data: sixteen two-dimensional features, each of which alone gives the label away.

Feature k is the point (x1, x2) = coordinates (2k, 2k+1) of a sample, in the square [-2, 2]^2. The curves
x2 = |x1| and x2 = |x1| - 2 (the "ticks" of figure 4) bound the classes: class 0 lies between the curves,
class 1 above the upper or below the lower one, both at least MARGIN away from the curves. Neither coordinate
alone tells the classes apart. Given the label the features are independent. Source: paper, synthetic example
(figure 4).

    sets = tick_sets(data_seed)            sets.train_inputs [512, 32], sets.train_labels [512],
                                           sets.test_inputs [2000, 32], sets.test_labels [2000]
    inputs, labels = single_feature_set(k) [1000, 32], [1000]: only feature k tells the label
    inputs, labels = minibatches(train_inputs, train_labels, seeds, pass_index)

Inputs are float32, labels are 0.0 or 1.0, all on the CPU. Every set is a pure function of its seed, and the
sets of one seed do not share random numbers.
"""

import math
from typing import NamedTuple

import torch

from data.seeds import generator

NAME = "ticks"  # of this data set on command lines and in run folders
FEATURES = 16
HALF_WIDTH = 2.0
MARGIN = 0.1  # smallest distance between an informative point and a boundary curve
VERTICAL_MARGIN = MARGIN * math.sqrt(2)  # the same along x2, as both curves run at 45 degrees

TRAIN_SIZE, TEST_SIZE, SINGLE_FEATURE_SIZE = 512, 2000, 1000
BATCH_SIZE = 16


class TickSets(NamedTuple):
    """The training and the test set of one data seed: inputs [samples, 32] and labels [samples]."""

    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    test_inputs: torch.Tensor
    test_labels: torch.Tensor


def tick_sets(data_seed):
    """The TickSets of a data seed; all sixteen features of every sample are informative."""
    everything = range(FEATURES)
    return TickSets(
        *_samples(TRAIN_SIZE, everything, generator("ticks", data_seed, "train")),
        *_samples(TEST_SIZE, everything, generator("ticks", data_seed, "test")),
    )


def groups(members):
    """The pairs (data seed, training seed) of a run's members, in order, each once."""
    return list(dict.fromkeys((member["data_seed"], member["seed"]) for member in members))


def stacked_sets(data_seeds):
    """The TickSets of several data seeds, which may repeat, stacked: inputs [seeds, samples, 32]."""
    sets = {data_seed: tick_sets(data_seed) for data_seed in data_seeds}
    return TickSets(*(torch.stack(tensors) for tensors in zip(*(sets[data_seed] for data_seed in data_seeds))))


def single_feature_set(feature):
    """Inputs [1000, 32] and labels [1000] in which only `feature` (0 to 15) depends on the label.

    The other fifteen features are border points. The data seed is 1 + feature, and all models share the set. As labels
    are fair coins, the classes are not exactly equal in size: accuracies on the set are to be balanced.
    """
    return _samples(SINGLE_FEATURE_SIZE, [feature], generator("ticks", 1 + feature, "single-feature"))


def boundary_curves(x1):
    """The x2 of the upper and of the lower boundary curve at x1 (figure 4)."""
    return x1.abs(), x1.abs() - HALF_WIDTH


def informative_points(labels, random):
    """Points [*labels.shape, 2], uniform on the region of their class, from the torch.Generator `random`."""
    points = torch.empty(labels.numel(), 2)
    pending = torch.arange(labels.numel())
    while len(pending):
        candidates = (2 * torch.rand(len(pending), 2, generator=random) - 1) * HALF_WIDTH
        accepted = inside_class(candidates, labels.flatten()[pending])
        points[pending[accepted]] = candidates[accepted]
        pending = pending[~accepted]
    return points.view(*labels.shape, 2)


def inside_class(points, labels):
    """Whether each of the points [..., 2] of the square lies in the region of its label [...]."""
    x1, x2 = points.unbind(-1)
    upper, lower = boundary_curves(x1)
    between = (x2 >= lower + VERTICAL_MARGIN) & (x2 <= upper - VERTICAL_MARGIN)
    outside = (x2 <= lower - VERTICAL_MARGIN) | (x2 >= upper + VERTICAL_MARGIN)
    return torch.where(labels == 0, between, outside)


def border_points(shape, random):
    """Points [*shape, 2] that tell nothing: x1 uniform, x2 on either curve with equal probability."""
    x1 = (2 * torch.rand(shape, generator=random) - 1) * HALF_WIDTH
    upper, lower = boundary_curves(x1)
    on_upper = torch.randint(2, shape, generator=random) == 1
    return torch.stack([x1, torch.where(on_upper, upper, lower)], dim=-1)


def _samples(size, informative_features, random):
    """Inputs [size, 32] and fair-coin labels [size]; features that are not informative are border points."""
    labels = torch.randint(2, (size,), generator=random).float()
    points = border_points((size, FEATURES), random)
    informative = torch.as_tensor(list(informative_features))
    points[:, informative] = informative_points(labels[:, None].expand(size, len(informative)), random)
    return points.flatten(1), labels


def minibatches(inputs, labels, seeds, pass_index, batch_size=BATCH_SIZE):
    """The minibatches of one pass over the training sets, all runs side by side.

    inputs [runs, samples, 32], labels [runs, samples]: the training set of each run.
    seeds: the training seed of each run.
    Returns inputs [iterations, runs, batch_size, 32] and labels [iterations, runs, batch_size], on the device
    of the inputs. Samples that do not fill a batch are skipped. The order is a pure function of
    (seed, pass_index), so that any pass can be replayed alone.
    """
    runs, samples, _ = inputs.shape
    iterations = samples // batch_size
    orders = torch.stack([pass_order(seed, pass_index, samples) for seed in seeds])
    chosen = orders[:, : iterations * batch_size].view(runs, iterations, batch_size).transpose(0, 1)
    chosen = chosen.to(inputs.device)
    run = torch.arange(runs, device=inputs.device)[:, None]
    return inputs[run, chosen], labels[run, chosen]


def pass_order(seed, pass_index, samples):
    """The order [samples] in which a training seed visits its training set in one pass."""
    return torch.randperm(samples, generator=generator("order", seed, pass_index))
