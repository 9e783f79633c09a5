"""Augmentation of whole batches against Pillow and torchvision's transforms, image by image."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch.nn import functional as F
from torchvision.transforms import functional as transforms

from data import augment
from data.augment import crop_and_flip, crops_and_flips, randaugment, randaugment_choices


@pytest.mark.parametrize(
    "height, width, padding", [(32, 32, 4), (16, 16, 2), (8, 8, 1), (7, 7, 0), (9, 16, 2), (64, 64, 8)]
)
def test_crops_and_flips_are_those_of_torchvision(height, width, padding):
    images = torch.randint(0, 256, (200, 3, height, width), dtype=torch.uint8)
    choices = crops_and_flips(seed=1, epoch=2, size=200, side=width)
    assert choices[:, :2].amin() == 0 and choices[:, :2].amax() == 2 * padding
    found = crop_and_flip(images, choices)
    assert found.dtype == torch.uint8 and found.is_contiguous(memory_format=torch.channels_last)
    for image, (top, left, flip), one in zip(images, choices.tolist(), found, strict=True):
        crop = transforms.crop(transforms.pad(image, padding), top, left, height, width)
        assert torch.equal(one, transforms.hflip(crop) if flip else crop)


def test_the_middle_crop_without_flip_is_the_image():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(crop_and_flip(images, torch.tensor([[2, 2, 0]] * 3)), images)


def assert_uniform(counts):
    """Counts are those of draws that are all equally likely: chi-squared, within five standard deviations."""
    expected, freedom = counts.sum() / counts.numel(), counts.numel() - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * (2 * freedom) ** 0.5


def test_choices_are_uniform_and_independent_of_each_other():
    choices = crops_and_flips(seed=0, epoch=0, size=81_000, side=32)
    counts = torch.zeros(9, 9, 2)
    counts.index_put_(tuple(choices.T), torch.ones(len(choices)), accumulate=True)
    assert_uniform(counts)


def test_choices_are_a_function_of_seed_and_epoch():
    choices = {(seed, epoch): crops_and_flips(seed, epoch, 50, 32) for seed in range(3) for epoch in range(3)}
    assert len({tuple(each.flatten().tolist()) for each in choices.values()}) == len(choices)
    torch.manual_seed(5)  # the global generator has no part in it
    assert torch.equal(crops_and_flips(1, 2, 50, 32), choices[1, 2])


def test_choices_stay_the_same_for_ever():
    # Resuming a run and averaging its last stretch replay the augmentation of runs made long ago.
    assert crops_and_flips(1, 2, 1000, 32)[:3].tolist() == [[7, 7, 1], [4, 1, 1], [3, 1, 0]]
    operations, centres = randaugment_choices(1, 2, 1000)
    assert operations[:3].tolist() == [[7, 10], [4, 5], [22, 19]]
    torch.testing.assert_close(centres[0], torch.tensor([[0.0298, 0.1979], [0.4743, 0.9689]]), rtol=0, atol=5e-5)


def test_choices_of_randaugment_are_a_function_of_seed_and_epoch():
    choices = {(seed, epoch): randaugment_choices(seed, epoch, 50) for seed in range(3) for epoch in range(3)}
    for part in (0, 1):
        assert len({tuple(each[part].flatten().tolist()) for each in choices.values()}) == len(choices)
    torch.manual_seed(5)
    for found, expected in zip(randaugment_choices(1, 2, 50), choices[1, 2], strict=True):
        assert torch.equal(found, expected)


def test_operations_of_randaugment_are_equally_likely_and_independent_of_each_other():
    operations, centres = randaugment_choices(seed=0, epoch=0, size=80_000)
    names = [name for name, _ in augment.SIGNED_OPERATIONS]
    assert len(set(names)) == 16 and all(names.count(name) == 2 for name in names)  # with either sign
    counts = torch.zeros(32, 32)
    counts.index_put_(tuple(operations.T), torch.ones(len(operations)), accumulate=True)
    assert_uniform(counts)
    places = (centres[:, 0] * 8).long()
    assert centres.min() >= 0 and centres.max() < 1
    assert_uniform(torch.bincount(places[:, 0] * 8 + places[:, 1], minlength=64))


def pictures(side, size=200):
    """Smooth images with noise, uint8 [size, 3, side, side]."""
    random = torch.Generator().manual_seed(side)
    coarse = 20 + 220 * torch.rand(size, 3, 4, 4, generator=random)
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth + 10 * torch.randn(size, 3, side, side, generator=random)).clamp(0, 255).byte()


def images_of_one_colour(side):
    colours = torch.tensor([(value,) * 3 for value in (0, 1, 118, 119, 120, 127, 128, 254, 255)] + [(255, 0, 119)])
    return colours[:, :, None, None].expand(-1, -1, side, side).byte()


def moved(image, *coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


def cut_out(image, centre):
    """A square of 18.7 pixels of 32 that begins at a whole pixel, of the image."""
    image, side, square = image.copy(), image.width, 40 * 14 / 30 * image.width / 32
    top, left = (math.floor(max(0, share * side - square / 2)) for share in centre)
    ImageDraw.Draw(image).rectangle((left, top, left + square, top + square), (125, 123, 114))
    return image


# name: function of an image of Pillow, a sign and the centre of a cutout.
REFERENCE = {
    "autocontrast": lambda image, *_: ImageOps.autocontrast(image),
    "equalize": lambda image, *_: ImageOps.equalize(image),
    "invert": lambda image, *_: ImageOps.invert(image),
    "posterize": lambda image, *_: ImageOps.posterize(image, 1),
    "solarize": lambda image, *_: ImageOps.solarize(image, 119.47),
    "solarize-add": lambda image, *_: ImageOps.solarize(image.point(lambda value: min(value + 51, 255)), 128),
    "colour": lambda image, *_: ImageEnhance.Color(image).enhance(0.94),
    "contrast": lambda image, *_: ImageEnhance.Contrast(image).enhance(0.94),
    "brightness": lambda image, *_: ImageEnhance.Brightness(image).enhance(0.94),
    "sharpness": lambda image, *_: ImageEnhance.Sharpness(image).enhance(0.94),
    "rotate": lambda image, sign, _: image.rotate(14 * sign),
    "shear-x": lambda image, sign, _: moved(image, 1, 0.14 * sign, 0, 0, 1, 0),
    "shear-y": lambda image, sign, _: moved(image, 1, 0, 0, 0.14 * sign, 1, 0),
    "translate-x": lambda image, sign, _: moved(image, 1, 0, 46.67 * sign * image.width / 32, 0, 1, 0),
    "translate-y": lambda image, sign, _: moved(image, 1, 0, 0, 0, 1, 46.67 * sign * image.width / 32),
    "cutout": lambda image, _, centre: cut_out(image, centre),
}
# Share of the numbers of an image that may differ, by one level, about twice what was measured: Pillow computes the grey of
# a pixel and the mean of an image as whole numbers, and the stretch of autocontrast in double precision.
ROUNDED = {"autocontrast": 0.03, "colour": 0.06, "contrast": 0.08}


def reference(image, operations, centres):
    image = Image.fromarray(image.permute(1, 2, 0).numpy())
    for operation, centre in zip(operations.tolist(), centres.tolist(), strict=True):
        name, sign = augment.SIGNED_OPERATIONS[operation]
        image = REFERENCE[name](image, sign, centre)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def differences_from_reference(images, choices):
    found = randaugment(images, choices)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    expected = [reference(*each) for each in zip(images, *choices, strict=True)]
    return (found.int() - torch.stack(expected).int()).abs()


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize(
    "operation", range(32), ids=lambda index: "{}{:+d}".format(*augment.SIGNED_OPERATIONS[index])
)
def test_operations_of_randaugment_are_those_of_pillow(operation, side):
    allowed = ROUNDED.get(augment.SIGNED_OPERATIONS[operation][0], 0)
    for images, share in ((pictures(side), allowed), (images_of_one_colour(side), 1)):
        _, centres = randaugment_choices(0, 0, len(images))
        choices = torch.full((len(images), 1), operation), centres[:, :1]
        differences = differences_from_reference(images, choices)
        assert differences.max() <= (1 if allowed else 0)
        assert (differences > 0).double().mean() <= share


@pytest.mark.parametrize("side", [16, 32])
def test_randaugment_is_that_of_pillow(side):
    images = pictures(side, size=1500)
    before = images.clone()
    differences = differences_from_reference(images, randaugment_choices(3, 4, len(images)))
    assert torch.equal(images, before)
    # A level that the first operation differs by may become more in the second one, where a threshold lies between.
    assert (differences > 0).double().mean() < 0.02
    assert (differences > 1).double().mean() < 0.0005


@pytest.mark.parametrize("side", [8, 32, 64])
def test_translation_leaves_black(side):
    for operation, (name, _) in enumerate(augment.SIGNED_OPERATIONS):
        if name.startswith("translate"):
            choices = torch.full((5, 1), operation), torch.zeros(5, 1, 2)
            assert not randaugment(torch.full((5, 3, side, side), 200, dtype=torch.uint8), choices).any()


def test_cutout_is_a_square_of_19_of_32_pixels_that_begins_inside_and_is_cut_off_at_its_end():
    operation = augment.SIGNED_OPERATIONS.index(("cutout", 1))
    centres = torch.tensor([[[0.5, 0.5]], [[0, 0.5]], [[0.5, 31.99 / 32]], [[0, 0]]])
    cut = randaugment(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), (torch.full((4, 1), operation), centres))
    for image, rows, columns in zip(
        cut, [(6, 25), (0, 19), (6, 25), (0, 19)], [(6, 25), (6, 25), (22, 32), (0, 19)]
    ):
        expected = torch.zeros(3, 32, 32, dtype=torch.uint8)
        expected[:, slice(*rows), slice(*columns)] = torch.tensor([[[125]], [[123]], [[114]]])
        assert torch.equal(image, expected)


def test_how_many_images_an_operation_works_on_at_a_time_changes_nothing(monkeypatch):
    images = pictures(16)
    choices = randaugment_choices(0, 1, len(images))
    found = randaugment(images, choices)
    for pixels in (1, 3 * 16**2):
        monkeypatch.setattr(augment, "AT_ONCE", pixels)
        assert torch.equal(randaugment(images, choices), found)
