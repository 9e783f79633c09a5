"""Batch-norm statistics of weights that were not trained themselves, such as averaged ones (paper, appendix A)."""

import contextlib

import torch
from torch import nn

REESTIMATION_BATCH = 128  # images (paper, appendix A)


@contextlib.contextmanager
def reestimating(network):
    """A context in which forward passes replace all running batch-norm statistics by their averages over the batches.

    The network is in training mode in it, so that every batch is normalised by its own statistics, and in evaluation
    mode after it. Every batch counts by its number of images, so running means are exact means over the images, and
    running variances are the mean of the unbiased within-batch variances. The order of batches does not matter.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()  # not-a-numbers would stay even at momentum 1
    seen = 0

    def weigh_batch(_, inputs):
        nonlocal seen
        seen += len(inputs[0])
        for module in norms:
            module.momentum = len(inputs[0]) / seen

    hook = network.register_forward_pre_hook(weigh_batch)
    network.train()
    try:
        yield
    finally:
        hook.remove()
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        network.eval()


@torch.no_grad()
def reestimate(network, batches):
    """Replace all running batch-norm statistics by their averages over batches of (inputs [batch, ...], anything)."""
    with reestimating(network):
        for inputs, _ in batches:
            network(inputs)
