"""Augmentation of whole batches against torchvision's transforms, image by image."""

import pytest
import torch
from torchvision.transforms import functional as transforms

from data.augment import crop_and_flip, crops_and_flips


@pytest.mark.parametrize("height, width", [(32, 32), (8, 8), (9, 6)])
def test_crops_and_flips_are_those_of_torchvision(height, width):
    images = torch.randint(0, 256, (200, 3, height, width), dtype=torch.uint8)
    choices = crops_and_flips(seed=1, epoch=2, size=200)
    found = crop_and_flip(images, choices)
    assert found.dtype == torch.uint8 and found.is_contiguous(memory_format=torch.channels_last)
    for image, (top, left, flip), one in zip(images, choices.tolist(), found, strict=True):
        crop = transforms.crop(transforms.pad(image, 4), top, left, height, width)
        assert torch.equal(one, transforms.hflip(crop) if flip else crop)


def test_the_middle_crop_without_flip_is_the_image():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(crop_and_flip(images, torch.tensor([[4, 4, 0]] * 3)), images)


def test_choices_are_uniform_and_independent_of_each_other():
    choices = crops_and_flips(seed=0, epoch=0, size=81_000)
    counts = torch.zeros(9, 9, 2)
    counts.index_put_(tuple(choices.T), torch.ones(len(choices)), accumulate=True)
    expected = len(choices) / counts.numel()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 161 + 5 * (2 * 161) ** 0.5  # mean and standard deviation of 161 degrees of freedom


def test_choices_are_a_function_of_seed_and_epoch():
    choices = {(seed, epoch): crops_and_flips(seed, epoch, 50) for seed in range(3) for epoch in range(3)}
    assert len({tuple(each.flatten().tolist()) for each in choices.values()}) == len(choices)
    torch.manual_seed(5)  # the global generator has no part in it
    assert torch.equal(crops_and_flips(1, 2, 50), choices[1, 2])


def test_choices_stay_the_same_for_ever():
    # Resuming a run and averaging its last stretch replay the augmentation of runs made long ago.
    assert crops_and_flips(1, 2, 1000)[:3].tolist() == [[7, 7, 1], [4, 1, 1], [3, 1, 0]]
