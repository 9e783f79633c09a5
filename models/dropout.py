"""Dropout whose random numbers come from a generator that is handed to it, so that training can be replayed."""

import torch
from torch import nn

STEPS = 2**16  # of probabilities: 16 random bits decide about a number


class Dropout(nn.Module):
    """nn.Dropout(p), but for where its random numbers come from: see use_generator(). p is rounded to 2^-16."""

    def __init__(self, p):
        super().__init__()
        self.p, self.generator = p, None

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        dropped = round(STEPS * self.p)
        kept = random_steps(x, self.generator) >= dropped - STEPS // 2
        return x * kept.to(x.dtype).mul_(STEPS / (STEPS - dropped))


def random_steps(like, generator):
    """Integers shaped like a tensor, uniform from -STEPS/2 to STEPS/2 - 1: int16.

    Four of each 64 random bits: on a CPU bernoulli_() takes several times as long, a fifth of a narrow ViT's training.
    """
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    return bits.random_(-(2**63), None, generator=generator).view(torch.int16)[: like.numel()].view(like.shape)


def use_generator(network, generator):
    """Have all dropout of a network draw from a generator on its device. Returns [generator], or [] without dropout."""
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.generator = generator
    return [generator] if layers else []
