"""What several test files use."""

import pytest
import torch

from data.images import ImageSet, digest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The tensors of these tests are so small that more threads only cost time."""
    torch.set_num_threads(1)


def random_image_set(classes=10, train=60, test=30, side=16, seed=0):
    """An ImageSet of random pixels; every class appears in both splits."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for split, count in (("train", train), ("test", test)):
        shape = (count, 3, side, side)
        tensors[f"{split}_images"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        tensors[f"{split}_labels"] = torch.randperm(count, generator=generator) % classes
    names = tuple(f"class{index}" for index in range(classes))
    return ImageSet(name="random", **tensors, classes=names, digest=digest(tensors), made_from={})


@pytest.fixture(scope="session")
def image_set():
    """60 training and 30 test images of 16x16 random pixels in 10 classes."""
    return random_image_set()
