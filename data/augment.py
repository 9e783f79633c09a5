"""Augmentation of training images as tensor operations on whole batches, on whichever device they are."""

import torch
from torch.nn import functional as F

from data.seeds import generator

NONE, CROP_FLIP = "none", "crop-flip"
PADDING = 4  # pixels on each side (paper, practical networks)


def crops_and_flips(seed, epoch, size):
    """What crop_and_flip is to do with `size` images of an epoch: int64 [size, 3] on the CPU.

    Its columns are the first row and the first column of the crop, 0 to 2 * PADDING, and whether to flip, 0 or 1. A
    pure function of seed and epoch, whatever the device.
    """
    random = generator("crops-and-flips", seed, epoch)
    corners = torch.randint(2 * PADDING + 1, (size, 2), generator=random)
    return torch.cat([corners, torch.randint(2, (size, 1), generator=random)], dim=1)


def crop_and_flip(images, choices):
    """Crops, of the images' own size, of images padded by black pixels, flipped left to right where asked.

    images: uint8 [B, C, H, W]. choices: int64 [B, 3] as crops_and_flips gives them. Returns uint8 [B, C, H, W], stored
    channels last.
    """
    height, width = images.shape[-2:]
    top, left, flip = choices[:, :, None].unbind(1)
    along = torch.arange(width, device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.where(flip > 0, width - 1 - along, along)
    padded = F.pad(images, [PADDING] * 4).permute(0, 2, 3, 1)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
