"""Batch-norm statistics of weights that were not trained themselves, such as averaged ones (paper, appendix A)."""

import contextlib

from torch import nn

REESTIMATION_BATCH = 128  # images (paper, appendix A)


def leaves_one(count, batch_size):
    """Whether the last batch of so many images is a single one."""
    return (count - 1) % batch_size == 0


def batch_norms(network):
    """The batch-norm layers of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def use_batch_statistics(network):
    """Have batch norm take each batch's own statistics, and all else be as in evaluation: dropout does nothing."""
    network.eval()
    for module in batch_norms(network):
        module.train()


@contextlib.contextmanager
def reestimating(network):
    """A context in which forward passes replace all running batch-norm statistics by their averages over the batches.

    In it every batch is normalised by its own statistics; after it the network is in evaluation mode. Every batch
    counts by its number of images, so running means are exact means over the images, and running variances are the mean
    of the unbiased within-batch variances. The order of batches does not matter.
    """
    norms = batch_norms(network)
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
    use_batch_statistics(network)
    try:
        yield
    finally:
        hook.remove()
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        network.eval()
