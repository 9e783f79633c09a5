"""Frequency bands of images (paper, section 6): what remains of an image when only some frequencies are kept.

The distance of a coefficient of the two-dimensional discrete Fourier transform is |kx| + |ky|, with frequencies from
-size/2 to size/2 - 1, so that it runs from 0 to the size of the image.
"""

import torch

from data.commandline import BadInput
from data.images import MEAN, STD

FULL, BACKGROUND = "full", "background"
# How band images are normalised before a network sees them; `keep` is the rule of the paper's code: as all images where
# they still hold the zero frequency, and not at all where they do not.
KEEP, DIVIDE, STANDARDISE, REESTIMATE = "keep", "std", "band", "reestimate"
NORMALISATIONS = (KEEP, DIVIDE, STANDARDISE, REESTIMATE)
BESIDE_LOW_END = ("low", "mid")  # the bands that meet where the low one ends


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


def default_normalisation(network):
    """How band images are normalised unless another way is asked for; network: what Run.network says of it.

    With the running batch-norm statistics of whole images networks know next to nothing in a band (README), so these
    are re-estimated. Networks without such statistics see band images by the paper's rule.
    """
    return REESTIMATE if network["barrier"]["batch_norm"] else KEEP


def low_end_limits(size, ends):
    """{(band, end): (lowest, highest distance)} of the low and the mid band if the low one ends elsewhere (figure 25).

    Raises BadInput for an end at which no mid band would be left.
    """
    end_of_mid = bands(size)["mid"][1]
    if max(ends) >= end_of_mid:
        raise BadInput(
            f"--low-ends {max(ends)}: the mid band of images of {size} pixels ends at {end_of_mid}; give ends below that"
        )
    low, mid = BESIDE_LOW_END
    return {(low, end): (1, end) for end in ends} | {(mid, end): (end + 1, end_of_mid) for end in ends}


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


def normalise_band(images, limits, normalisation, moments, mean=MEAN, std=STD):
    """Band images as a network sees them, float32 [N, C, S, S], channels-last.

    mean, std: per channel, those that whole images are normalised with. normalisation: `keep` and `reestimate`:
    (images - mean) / std of a band with the zero frequency, others unchanged; `std`: others are divided by std; `band`:
    (images - its mean) / its deviation by the band's own moments, (mean, deviation).
    (With `reestimate` the network's batch-norm statistics are to be re-estimated on images that are treated alike.)
    """
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std))
    if normalisation == STANDARDISE:
        images = (images - moments[0]) / moments[1]
    elif limits[0] == 0:
        images = (images - mean) / std
    elif normalisation == DIVIDE:
        images = images / std
    return images.contiguous(memory_format=torch.channels_last)


class BandSets:
    """The images of an experiment by frequency band, each as float32 [N, C, S, S], normalised in one of the ways.

    limits: {name: (lowest, highest distance)} of the bands. Raises BadInput for a band that cannot be normalised by its
    own moments, as a channel of all training images has nothing in it.
    """

    def __init__(self, image_set, normalisation, limits):
        self.image_set, self.normalisation, self.limits = image_set, normalisation, limits
        self.moments = {
            name: channel_moments(image_set.train_images, limits) if normalisation == STANDARDISE else None
            for name, limits in self.limits.items()
        }
        for name, moments in self.moments.items():
            if moments is not None and 0 in moments[1]:
                raise BadInput(
                    f"--normalisation {STANDARDISE}: a channel of the training images has nothing in band {name}; choose"
                    " another way"
                )

    def batches(self, name, split, size):
        """Batches (images, labels) of the band `name`, or of `full`, the images themselves; split: train or test."""
        image_set = self.image_set
        if name == FULL:
            yield from image_set.batches(split, size)
            return
        pixels, labels = (getattr(image_set, f"{split}_{what}") for what in ("images", "labels"))
        limits, moments = self.limits[name], self.moments[name]
        for some_pixels, some_labels in zip(pixels.split(size), labels.split(size)):
            filtered = band_images(some_pixels, limits)
            band = normalise_band(filtered, limits, self.normalisation, moments, image_set.mean, image_set.std)
            yield band, some_labels


def panels(image):
    """An image, uint8 [3, S, S], and its frequency bands (paper, figures 6 and 9), as dictionaries.

    Each has `name`, `limits` (None of the image itself), `pixels`, whole numbers from 0 to 255, uint8 [S, S, 3], which
    of bands without the zero frequency are stretched to all of that range in every channel, and `spectrum`, the
    logarithm of the magnitudes of the Fourier coefficients summed over channels, float64 [S, S], NaN outside the band,
    the zero frequency in the middle.
    """
    size = image.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.fft2(image.double() / 255).abs().sum(dim=0)).log()
    distance = torch.fft.fftshift(distances(size))

    def panel(name, limits, pixels, spectrum):
        rounded = torch.round(spectrum, decimals=3)
        return {"name": name, "limits": limits, "pixels": pixels.permute(1, 2, 0), "spectrum": rounded}

    found = [panel("image", None, image, spectrum)]
    for name, limits in bands(size).items():
        [filtered] = band_images(image[None], limits)
        if limits[0] > 0:
            least, most = filtered.amin((1, 2), keepdim=True), filtered.amax((1, 2), keepdim=True)
            filtered = (filtered - least) / (most - least).clamp_min(1e-12)  # black where there is nothing
        inside = (distance >= limits[0]) & (distance <= limits[1])
        pixels = (255 * filtered).round().clamp(0, 255).to(torch.uint8)
        found.append(panel(name, limits, pixels, spectrum.where(inside, torch.nan)))
    return found
