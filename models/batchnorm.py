"""Batch-norm statistics of weights that were not trained themselves, such as averaged ones (paper, appendix A)."""

import torch
from torch import nn


@torch.no_grad()
def reestimate(network, batches):
    """Replace all running batch-norm statistics by their averages over the given batches.

    Every batch counts by its number of images, so running means are exact means over the images, and running
    variances are the mean of the unbiased within-batch variances. The order of batches does not matter.

    network: module in any mode; left in evaluation mode. batches: iterable of (inputs [batch, ...], anything).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()  # not-a-numbers would stay even at momentum 1
    network.train()
    seen = 0
    for inputs, _ in batches:
        seen += len(inputs)
        for module in norms:
            module.momentum = len(inputs) / seen
        network(inputs)
    for module, momentum in zip(norms, momenta):
        module.momentum = momentum
    network.eval()
