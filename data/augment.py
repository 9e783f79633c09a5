"""Augmentation of training images as tensor operations on many of them at once, on whichever device they are.

RandAugment (Cubuk et al., 2020) is that of the paper's ViT: each image undergoes two operations, drawn with replacement from
16, at magnitude 14 of 30.
"""

import functools
import itertools

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from data.seeds import generator

# What --augment can say. RandAugment goes before crops and flips.
CHOICES = NONE, CROP_FLIP, RANDAUGMENT = "none", "crop-flip", "randaugment"
ROUNDS = 2  # operations of RandAugment on an image, one after the other
AT_ONCE = 2**18  # pixels, of all images, that an operation works on at a time: it then uses tens of megabytes


def padding_of(side):
    """Pixels that crop_and_flip adds on each side of an image: an eighth of it (4 of 32 in the paper)."""
    return side // 8


def crops_and_flips(seed, epoch, size, side):
    """What crop_and_flip is to do with `size` images, of `side` pixels, of an epoch: int64 [size, 3] on the CPU.

    Its columns are the first row and the first column of the crop, 0 to twice the padding, and whether to flip, 0 or 1.
    A pure function of its arguments, whatever the device.
    """
    random = generator("crops-and-flips", seed, epoch)
    corners = torch.randint(2 * padding_of(side) + 1, (size, 2), generator=random)
    return torch.cat([corners, torch.randint(2, (size, 1), generator=random)], dim=1)


def crop_and_flip(images, choices):
    """Crops, of the images' own size, of images padded by black pixels, flipped left to right where asked.

    images: uint8 [B, C, H, W]. choices: int64 [B, 3] as crops_and_flips gives them for the side W. Returns uint8
    [B, C, H, W], stored channels last.
    """
    height, width = images.shape[-2:]
    top, left, flip = choices[:, :, None].unbind(1)
    along = torch.arange(width, device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.where(flip > 0, width - 1 - along, along)
    padded = F.pad(images, [padding_of(width)] * 4).permute(0, 2, 3, 1)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def strength(lowest, highest):
    """The strength at magnitude 14 of 30 of an operation whose strengths have this range."""
    return lowest + 14 / 30 * (highest - lowest)


ANGLE = strength(0, 30)  # degrees
SHEAR = strength(0, 0.3)
ENHANCEMENT = strength(0.1, 1.9)
POSTERIZE_BITS = max(1, int(strength(0, 4)))
SOLARIZE_FROM = strength(0, 256)
SOLARIZE_ADD, SOLARIZE_ADD_FROM = int(strength(0, 110)), 128
# In sides of an image: the ranges are pixels of 32. A translation leaves nothing of an image but black, as in the paper.
TRANSLATION = strength(0, 100) / 32
CUTOUT_SIDE = strength(0, 40) / 32
CUTOUT_COLOUR = (125, 123, 114)

# name: function of torchvision.transforms.v2.functional and of images, uint8 [B, 3, S, S], that gives such images.
RECOLOURINGS = {
    "autocontrast": lambda library, images: library.autocontrast(images),
    "equalize": lambda library, images: library.equalize(images),
    "invert": lambda library, images: library.invert(images),
    "posterize": lambda library, images: library.posterize(images, POSTERIZE_BITS),
    "solarize": lambda library, images: library.solarize(images, SOLARIZE_FROM),
    "solarize-add": lambda library, images: library.solarize(
        images.clamp(max=255 - SOLARIZE_ADD) + SOLARIZE_ADD, SOLARIZE_ADD_FROM
    ),
    "colour": lambda library, images: library.adjust_saturation(images, ENHANCEMENT),
    "contrast": lambda library, images: library.adjust_contrast(images, ENHANCEMENT),
    "brightness": lambda library, images: library.adjust_brightness(images, ENHANCEMENT),
    "sharpness": lambda library, images: library.adjust_sharpness(images, ENHANCEMENT),
}
# name: function of an image of Pillow and of a sign, 1 or -1, that gives an image of the same size.
MOVES = {
    "rotate": lambda image, sign: image.rotate(sign * ANGLE),
    "shear-x": lambda image, sign: _affine(image, (1, sign * SHEAR, 0, 0, 1, 0)),
    "shear-y": lambda image, sign: _affine(image, (1, 0, 0, sign * SHEAR, 1, 0)),
    "translate-x": lambda image, sign: _affine(image, (1, 0, sign * TRANSLATION * image.width, 0, 1, 0)),
    "translate-y": lambda image, sign: _affine(image, (1, 0, 0, 0, 1, sign * TRANSLATION * image.height)),
}
OPERATIONS = (*RECOLOURINGS, *MOVES, "cutout")
# What is drawn, each as often as the others. The sign means something to MOVES only.
SIGNED_OPERATIONS = tuple(itertools.product(OPERATIONS, (1, -1)))


def randaugment_choices(seed, epoch, size):
    """What randaugment is to do with `size` images in an epoch, on the CPU. A pure function of its arguments.

    Returns indices into SIGNED_OPERATIONS, int64 [size, ROUNDS], and row and column of the centres of cutouts, float32
    [size, ROUNDS, 2], in sides of an image, from 0 to below 1. They are drawn for all images; most are not used.
    """
    random = generator("randaugment", seed, epoch)
    operations = torch.randint(len(SIGNED_OPERATIONS), (size, ROUNDS), generator=random)
    return operations, torch.rand(size, ROUNDS, 2, generator=random)


def randaugment(images, choices):
    """RandAugment of a whole training set.

    images: uint8 [N, 3, S, S]. choices: as randaugment_choices gives them, for any number of rounds, on the CPU. Returns new
    images, uint8 [N, 3, S, S] on the same device.
    """
    images = images.clone()
    at_once = max(1, AT_ONCE // images[0, 0].numel())
    operations, centres = choices
    for drawn, centre in zip(operations.unbind(1), centres.to(images.device).unbind(1)):
        # Images that drew the same, together. The host sorts them, as it need not ask the device how many they are.
        sizes = drawn.bincount(minlength=len(SIGNED_OPERATIONS)).tolist()
        groups = drawn.argsort().to(images.device).split(sizes)
        for (name, sign), group in zip(SIGNED_OPERATIONS, groups):
            for chosen in group.split(at_once) if len(group) > 0 else ():
                images[chosen] = _augmented(name, sign, images[chosen], centre[chosen])
    return images


def _augmented(name, sign, images, centres):
    """One operation, with one sign, on images. centres: float [B, 2] of cutouts, in sides of an image."""
    if name in RECOLOURINGS:
        # Importing it takes a second, which runs without RandAugment need not spend.
        from torchvision.transforms.v2 import functional as library

        return RECOLOURINGS[name](library, images)
    if name in MOVES:
        sources = _sources(name, sign, images.shape[-1], images.device)
        return F.pad(images.flatten(2), [1, 0])[:, :, sources].view_as(images)
    return _cutout(images, centres)


def _affine(image, coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


@functools.cache
def _sources(name, sign, side, device):
    """Which pixel each pixel comes from when images are moved: int64 [side ** 2], from 1 on, 0 where it is black.

    Found by having Pillow move an image whose colours are the numbers of its pixels: so these are Pillow's moves (nearest
    neighbour, black outside) to the last pixel, and the same ones on all devices.
    """
    numbers = np.arange(1, side**2 + 1, dtype=np.int32).reshape(side, side)
    moved = np.array(MOVES[name](Image.fromarray(numbers), sign))
    return torch.from_numpy(moved).flatten().long().to(device)


def _cutout(images, centres):
    """Images with a square of one colour, cut off where it ends outside of them.

    It begins with a whole pixel, of the image, and the pixel in which it ends belongs to it, as with Pillow's
    ImageDraw.rectangle: it is 19 pixels wide in images of 32.
    """
    side = images.shape[-1]
    first = ((centres - CUTOUT_SIDE / 2) * side).floor().clamp(min=0)[:, :, None]
    along = torch.arange(side, device=images.device)
    rows, columns = ((along >= first) & (along <= first + CUTOUT_SIDE * side)).unbind(1)
    square = rows[:, None, :, None] & columns[:, None, None, :]
    colour = torch.tensor(CUTOUT_COLOUR, dtype=torch.uint8, device=images.device)
    return torch.where(square, colour[:, None, None], images)
