"""Dropout whose random numbers come from a generator that is handed to it, so that training can be replayed."""

import torch
from torch import nn


class Dropout(nn.Module):
    """nn.Dropout(p), but for where its random numbers come from: see use_generator()."""

    def __init__(self, p):
        super().__init__()
        self.p, self.generator = p, None

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept / (1 - self.p)


def use_generator(network, generator):
    """Have all dropout of a network draw from a generator on its device. Returns [generator], or [] without dropout."""
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.generator = generator
    return [generator] if layers else []
