"""Random generators seeded by what they are for, so that no two uses share a stream of random numbers."""

import hashlib

import torch


def seed_of(*key):
    """A 63-bit seed that depends on nothing but the key, for example seed_of("order", seed, epoch).

    It is a hash of the key's words joined by spaces (so no word may contain a space), not a sum of numbers:
    ("order", 1, 0) and ("order", 0, 1) have nothing in common, nor do neighbouring seeds.
    """
    text = " ".join(str(word) for word in key)
    hashed = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big") >> 1


def generator(*key):
    """A CPU torch.Generator with the seed of a key."""
    return torch.Generator().manual_seed(seed_of(*key))


def init_seed(seed):
    """The seed, an integer, of the initial point of an image network that a run's seed stands for."""
    return seed_of("init", seed)
