"""Frequency bands of images (paper, section 6): what remains of an image when only some frequencies are kept.

The distance of a coefficient of the two-dimensional discrete Fourier transform is |kx| + |ky|, with frequencies from
-size/2 to size/2 - 1, so that it runs from 0 to the size of the image.
"""

import torch

from data.images import MEAN, STD

FULL, BACKGROUND = "full", "background"
# How band images are normalised before a network sees them; `keep` is the rule of the paper's code: as all images where
# they still hold the zero frequency, and not at all where they do not.
KEEP, DIVIDE, STANDARDISE, REESTIMATE = "keep", "std", "band", "reestimate"
NORMALISATIONS = (KEEP, DIVIDE, STANDARDISE, REESTIMATE)
# Of convolutional networks: with the running statistics of whole images they know next to nothing in a band (README).
DEFAULT_NORMALISATION = REESTIMATE


def bands(size):
    """{name: (lowest, highest distance)} of the bands of square images of a size in pixels.

    They are those of the paper at 32 pixels, and scale with the size. Other sizes also have the paper's own, as
    `low-32` and so on, whose remainder above 32 belongs to none.
    """
    paper = {BACKGROUND: (0, 0), "low": (1, 8), "mid": (9, 24), "high": (25, 32)}
    if size == 32:
        return paper
    ends = {name: high * size // 32 for name, (_, high) in paper.items()}
    scaled = {name: (begin + 1, ends[name]) for name, begin in zip(("low", "mid", "high"), ends.values())}
    unscaled = {f"{name}-32": limits for name, limits in paper.items() if name != BACKGROUND and limits[1] <= size}
    return {BACKGROUND: (0, 0)} | scaled | unscaled


def distances(size):
    """|kx| + |ky| of the coefficients of torch.fft.fft2, [size, size]."""
    frequencies = torch.fft.fftfreq(size, 1 / size).abs().round().long()
    return frequencies[:, None] + frequencies


def band_images(images, limits):
    """What a band, (lowest, highest distance), holds of images, uint8 [N, C, S, S]: float32 [N, C, S, S].

    Pixels are in units of [0, 1]; only those of bands with the zero frequency have a mean other than 0. The bands of a
    partition of all distances sum to the images.
    """
    size = images.shape[-1]
    distance = distances(size)[:, : size // 2 + 1].to(images.device)  # the rest follows, as images are real
    coefficients = torch.fft.rfft2(images.float() / 255)
    coefficients *= (distance >= limits[0]) & (distance <= limits[1])
    return torch.fft.irfft2(coefficients, s=(size, size))


def channel_moments(images, limits):
    """Mean and standard deviation (population) of a band of images over images and pixels, each [C, 1, 1]."""
    total, squares, count = 0, 0, 0
    for some_images in images.split(2500):
        filtered = band_images(some_images, limits).double()
        total, squares = total + filtered.sum((0, 2, 3)), squares + filtered.square().sum((0, 2, 3))
        count += filtered.numel() // filtered.shape[1]
    mean = total / count
    deviation = (squares / count - mean**2).clamp_min(0).sqrt()
    return mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)


def normalise_band(images, limits, normalisation, moments):
    """Band images as a network sees them, float32 [N, C, S, S], channels-last.

    normalisation: `keep` and `reestimate`: (images - MEAN) / STD of a band with the zero frequency, others unchanged;
    `std`: others are divided by STD; `band`: (images - mean) / deviation by the band's own moments, (mean, deviation).
    (With `reestimate` the network's batch-norm statistics are to be re-estimated on images that are treated alike.)
    """
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    if normalisation == STANDARDISE:
        images = (images - moments[0]) / moments[1]
    elif limits[0] == 0:
        images = (images - mean) / std
    elif normalisation == DIVIDE:
        images = images / std
    return images.contiguous(memory_format=torch.channels_last)
