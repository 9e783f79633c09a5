"""Frequency bands of images against numpy's full complex transform, in float64."""

import dataclasses

import numpy
import pytest
import torch
from conftest import random_image_set

from data.bands import (
    BACKGROUND,
    DIVIDE,
    KEEP,
    NORMALISATIONS,
    REESTIMATE,
    STANDARDISE,
    BandSets,
    band_images,
    bands,
    channel_moments,
    default_normalisation,
    distances,
    low_end_limits,
    normalise_band,
    panels,
)
from data.commandline import BadInput

SIZES = [8, 16, 32, 48, 64]
PARTITION = [BACKGROUND, "low", "mid", "high"]
MEANS, DEVIATIONS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def some_images(size, count=5, seed=0):
    """Random pixels in three channels of different mean and contrast."""
    random = numpy.random.default_rng(seed)
    highest = numpy.array([256, 200, 90])[:, None, None]
    return torch.from_numpy(random.integers(0, highest, (count, 3, size, size), dtype=numpy.uint8))


def plain_distance(size):
    """Coefficient by coefficient: frequencies from size/2 on are the negative ones."""
    signed = [index if index < size / 2 else index - size for index in range(size)]
    return numpy.array([[abs(row) + abs(column) for column in signed] for row in signed])


def plain_band(images, lowest, highest):
    """By the whole complex spectrum, as complex128."""
    distance = plain_distance(images.shape[-1])
    return numpy.fft.ifft2(numpy.fft.fft2(images.numpy() / 255) * ((lowest <= distance) & (distance <= highest)))


def energy(pixels):
    return float(numpy.square(numpy.asarray(pixels, dtype=numpy.float64)).sum())


def count(size, name):
    lowest, highest = bands(size)[name]
    return int(((distances(size) >= lowest) & (distances(size) <= highest)).sum())


# Which coefficients belong to which band


def test_bands_at_32_pixels_are_the_papers():
    assert bands(32) == {"background": (0, 0), "low": (1, 8), "mid": (9, 24), "high": (25, 32)}
    assert [count(32, name) for name in bands(32)] == [1, 144, 766, 113]


def test_bands_at_64_pixels_scale_and_the_papers_own_are_kept_beside_them():
    scaled = {"background": (0, 0), "low": (1, 16), "mid": (17, 48), "high": (49, 64)}
    assert bands(64) == scaled | {"low-32": (1, 8), "mid-32": (9, 24), "high-32": (25, 32)}
    assert [count(64, name) for name in scaled] == [1, 544, 3070, 481]
    # 4 d coefficients have the distance d, but for 32: there the frequencies 32 and -32 are one.
    sums = [4 * sum(range(1, 9)), 4 * sum(range(9, 25)), 4 * sum(range(25, 33)) - 2]
    assert [count(64, name) for name in ("low-32", "mid-32", "high-32")] == sums


@pytest.mark.parametrize(
    "size, low, mid, high, unscaled",
    [(16, 4, 12, 16, ["low-32"]), (24, 6, 18, 24, ["low-32", "mid-32"]), (48, 12, 36, 48, None)],
)
def test_bands_of_other_sizes(size, low, mid, high, unscaled):
    expected = {"background": (0, 0), "low": (1, low), "mid": (low + 1, mid), "high": (mid + 1, high)}
    papers = {"low-32": (1, 8), "mid-32": (9, 24), "high-32": (25, 32)}
    assert bands(size) == expected | {name: papers[name] for name in unscaled or papers}


def test_the_low_band_may_end_elsewhere():
    limits = low_end_limits(32, [4, 16])
    assert limits == {("low", 4): (1, 4), ("mid", 4): (5, 24), ("low", 16): (1, 16), ("mid", 16): (17, 24)}
    assert low_end_limits(32, [8]) == {(band, 8): bands(32)[band] for band in ("low", "mid")}
    assert low_end_limits(64, [47])["mid", 47] == (48, 48)
    with pytest.raises(BadInput, match="--low-ends 48: the mid band of images of 64 pixels ends at 48"):
        low_end_limits(64, [8, 48])


def test_batch_norm_statistics_are_reestimated_where_there_are_some():
    assert [default_normalisation({"barrier": {"batch_norm": some}}) for some in (True, False)] == [
        REESTIMATE,
        KEEP,
    ]


@pytest.mark.parametrize("size", SIZES + [15])
def test_distances_are_sums_of_absolute_frequencies(size):
    assert numpy.array_equal(distances(size).numpy(), plain_distance(size))


@pytest.mark.parametrize("size", SIZES + [24, 96])
def test_every_distance_is_in_one_band(size):
    limits = [bands(size)[name] for name in PARTITION]
    assert [sum(low <= distance <= high for low, high in limits) for distance in range(size + 1)] == [1] * (
        size + 1
    )
    assert plain_distance(size).max() == size


# What a band holds of an image


@pytest.mark.parametrize("size", SIZES)
def test_a_band_is_that_of_the_full_complex_spectrum(size):
    images = some_images(size)
    for limits in bands(size).values():
        found, expected = band_images(images, limits), plain_band(images, *limits)
        assert numpy.abs(expected.imag).max() < 1e-14  # the mask takes a frequency with its negative
        assert found.dtype == torch.float32 and found.shape == images.shape
        numpy.testing.assert_allclose(found.numpy(), expected.real, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_bands_sum_to_the_image_and_their_energies_to_its_energy(size):
    images = some_images(size)
    parts = [band_images(images, bands(size)[name]) for name in PARTITION]
    numpy.testing.assert_allclose(sum(parts).numpy(), images.numpy() / 255, rtol=0, atol=1e-6)
    assert sum(energy(part) for part in parts) == pytest.approx(energy(images.numpy() / 255), rel=1e-6)
    assert min(energy(part) for part in parts) > 1


def test_the_background_is_the_mean_of_each_image_and_channel():
    images = some_images(32)
    expected = numpy.broadcast_to(images.numpy().mean((2, 3), keepdims=True) / 255, images.shape)
    numpy.testing.assert_allclose(band_images(images, (0, 0)).numpy(), expected, rtol=0, atol=1e-6)
    for name in ("low", "mid", "high"):
        assert band_images(images, bands(32)[name]).mean((2, 3)).abs().max() < 1e-7


@pytest.mark.parametrize(
    "size, row, column, band",
    [
        (32, 0, 1, "low"),
        (32, 3, 5, "low"),
        (32, 3, -5, "low"),
        (32, 8, 0, "low"),
        (32, 9, 0, "mid"),
        (32, 4, 5, "mid"),
        (32, -4, 5, "mid"),
        (32, 0, 16, "mid"),
        (32, 16, 8, "mid"),
        (32, 16, -8, "mid"),
        (32, 12, -12, "mid"),
        (32, 16, 9, "high"),
        (32, 12, 13, "high"),
        (32, 16, 16, "high"),
        (64, 16, 0, "low"),
        (64, 8, -9, "mid"),
        (64, 32, 16, "mid"),
        (64, 17, 32, "high"),
        (16, 4, 0, "low"),
        (16, 2, 3, "mid"),
        (16, 8, 5, "high"),
    ],
)
def test_a_cosine_is_in_its_own_band_alone(size, row, column, band):
    y, x = numpy.mgrid[:size, :size]
    cosine = 127 * numpy.cos(2 * numpy.pi * (row * y + column * x) / size)
    pixels = numpy.rint(127 + cosine).astype(numpy.uint8)
    # A band is an orthogonal projection: what rounding to integers adds to it is no longer than the rounding itself,
    # which is 0.3 percent of the cosine, and nothing where the cosine is -1, 0 or 1 at all pixels.
    rounding = energy((pixels - 127.0 - cosine) / 255) ** 0.5
    assert rounding < 0.01 * energy(cosine / 255) ** 0.5
    images = torch.from_numpy(pixels).expand(1, 3, size, size)
    for name in PARTITION:
        expected = {BACKGROUND: 127 + 0 * cosine, band: cosine}.get(name, 0 * cosine) / 255
        difference = band_images(images, bands(size)[name]).numpy()[0] - expected
        assert energy(difference[2]) ** 0.5 <= rounding + 1e-6 * size


# How bands are normalised


@pytest.mark.parametrize("name", ["background", "mid"])
def test_moments_of_channels_over_all_images_and_pixels(name):
    images = some_images(8, count=2600)  # more than are transformed at once
    images[2500:] //= 3
    limits = bands(8)[name]
    mean, deviation = channel_moments(images, limits)
    expected = plain_band(images, *limits).real
    assert mean.shape == deviation.shape == (3, 1, 1) and mean.dtype == deviation.dtype == torch.float32
    numpy.testing.assert_allclose(mean.flatten().numpy(), expected.mean((0, 2, 3)), rtol=1e-5, atol=1e-7)
    numpy.testing.assert_allclose(deviation.flatten().numpy(), expected.std((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_moments_divide_by_the_number_of_pixels_not_by_one_less(count):
    images = some_images(8, count=count)
    expected = (images.numpy() / 255).std((0, 2, 3))
    numpy.testing.assert_allclose(channel_moments(images, (0, 8))[1].flatten().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("rule", NORMALISATIONS)
@pytest.mark.parametrize("size, limits", [(32, (1, 8)), (32, (0, 0)), (32, (0, 8)), (16, (0, 32)), (64, (17, 48))])
def test_normalised_bands(size, limits, rule):
    band = plain_band(some_images(size), *limits).real
    mean, std, own_mean, own_std = (
        numpy.array(values)[:, None, None]
        for values in (MEANS, DEVIATIONS, band.mean((0, 2, 3)) + 0.125, 2 * band.std((0, 2, 3)) + 0.5)
    )
    expected = {
        (KEEP, True): (band - mean) / std,
        (KEEP, False): band,
        (REESTIMATE, True): (band - mean) / std,
        (REESTIMATE, False): band,
        (DIVIDE, True): (band - mean) / std,
        (DIVIDE, False): band / std,
        (STANDARDISE, True): (band - own_mean) / own_std,
        (STANDARDISE, False): (band - own_mean) / own_std,
    }[rule, limits[0] == 0]
    images = torch.from_numpy(band).float()
    before = images.clone()
    moments = tuple(torch.from_numpy(values).float() for values in (own_mean, own_std))
    found = normalise_band(images, limits, rule, moments)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    numpy.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    assert torch.equal(images, before)


OWN_MEAN, OWN_STD = (0.2, 0.5, 0.7), (0.1, 0.3, 0.4)


@pytest.mark.parametrize("rule, limits", [(KEEP, (0, 0)), (KEEP, (1, 2)), (DIVIDE, (0, 0)), (DIVIDE, (1, 2))])
def test_bands_of_a_set_with_a_normalisation_of_its_own(rule, limits):
    image_set = dataclasses.replace(random_image_set(side=8, train=20, test=9), mean=OWN_MEAN, std=OWN_STD)
    sets = BandSets(image_set, rule, {"band": limits})
    mean, std = (numpy.array(values)[:, None, None] for values in (OWN_MEAN, OWN_STD))
    for split in ("train", "test"):
        images = getattr(image_set, f"{split}_images")
        band = plain_band(images, *limits).real
        expected = (band - mean) / std if limits[0] == 0 else band / std if rule == DIVIDE else band
        for name, wanted in (("band", expected), ("full", (images.numpy() / 255 - mean) / std)):
            found = torch.cat([inputs for inputs, _ in sets.batches(name, split, 8)])
            numpy.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-5)


def test_a_standardised_band_has_mean_0_and_deviation_1():
    images, limits = some_images(16, count=20), (5, 12)
    standardised = normalise_band(
        band_images(images, limits), limits, STANDARDISE, channel_moments(images, limits)
    )
    values = standardised.double().numpy()
    numpy.testing.assert_allclose(values.mean((0, 2, 3)), 0, atol=1e-6)
    numpy.testing.assert_allclose(values.std((0, 2, 3)), 1, rtol=1e-6)


def test_all_frequencies_together_are_normalised_as_other_images_are():
    images = some_images(32)
    found = normalise_band(band_images(images, (0, 32)), (0, 32), KEEP, None)
    expected = (images.numpy() / 255 - numpy.array(MEANS)[:, None, None]) / numpy.array(DEVIATIONS)[:, None, None]
    numpy.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


# Bands that hold nothing


def test_bands_of_a_constant_image_are_black():
    drawn = panels(torch.full((3, 8, 8), 200, dtype=torch.uint8))
    for panel in drawn:
        value = 200 if panel["name"] in ("image", BACKGROUND) else 0
        assert panel["pixels"].dtype == torch.uint8 and panel["pixels"].unique().tolist() == [value]
    assert [panel["name"] for panel in drawn][:5] == ["image", *PARTITION]


def test_no_band_is_divided_by_zero():
    image_set = random_image_set(side=8)
    flat = image_set.train_images.clone()
    flat[:, 1] = 7
    image_set = dataclasses.replace(image_set, train_images=flat)
    BandSets(image_set, KEEP, bands(8))
    with pytest.raises(
        BadInput, match="--normalisation band: a channel of the training images has nothing in band"
    ):
        BandSets(image_set, STANDARDISE, bands(8))
