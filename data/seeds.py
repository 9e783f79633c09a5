"""Random generators seeded by what they are for, so that no two uses share a stream of random numbers."""

import hashlib

import torch


def generator(*key):
    """A CPU torch.Generator that depends on nothing but the key, for example generator("order", seed, epoch).

    The seed is a 63-bit hash of the key's words joined by spaces (so no word may contain a space), not a sum
    of numbers: ("order", 1, 0) and ("order", 0, 1) have nothing in common, nor do neighbouring seeds.
    """
    text = " ".join(str(word) for word in key)
    hashed = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(hashed, "big") >> 1)


def init_seed(seed):
    """The seed, an integer, of the initial point of an image network that a run's seed stands for."""
    return generator("init", seed).initial_seed()
