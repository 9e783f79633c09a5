"""Preparing, loading, normalising and batching image sets."""

import dataclasses
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms.functional import normalize

from data import device
from data.__main__ import Limits, main, prepare
from data.commandline import BadInput, Refused, run
from data.files import read_tensors, write_tensors
from data.images import ImageSet, batches, digest, epoch_order, load_image_set, normalise, save_image_set
from data.seeds import generator

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT.parent / "shared" / "data"


def sample_archive(name):
    archive = SAMPLES / name
    if not archive.exists():
        pytest.skip(f"the sample archive {name} is not beside the repository")
    return archive


@pytest.fixture(scope="session")
def cifar_jpeg(tmp_path_factory):
    """CIFAR-10 (JPEG) as train/CLASS and test/CLASS, 4 images in each."""
    folder = tmp_path_factory.mktemp("cifar-jpeg")
    seen = Counter()
    with tarfile.open(sample_archive("cifar10-jpeg.tar.xz"), "r|xz") as archive:
        for member in archive:
            parent = os.path.dirname(member.name)
            if member.isfile() and seen[parent] < 4:
                seen[parent] += 1
                archive.extract(member, folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def tiny_imagenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    with tarfile.open(sample_archive("tiny-imagenet-sample.tar.xz"), "r:xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "tiny-imagenet-200"


def draw(path, size=(8, 8), mode="RGB", seed=0):
    """A random image file, as a stand-in for a photograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """A small sound image folder: classes ant and bee with 3 training and 2 test images of 8x8 each."""
    files = [f"train/{name}/{i}.png" for name in ("ant", "bee") for i in range(3)]
    files += [f"test/{name}/{i}.png" for name in ("ant", "bee") for i in range(2)]
    for seed, file in enumerate(files):
        draw(tmp_path / "raw" / file, seed=seed)
    return tmp_path / "raw"


@pytest.fixture
def tiny_layout(tmp_path):
    """A small sound copy of Tiny ImageNet's layout: 2 classes, 2 training and 1 validation image of each."""
    root = tmp_path / "raw"
    for wnid in ("n02", "n01"):
        for i in range(2):
            draw(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    draw(root / "val" / "images" / "val_0.JPEG", seed=1)
    draw(root / "val" / "images" / "val_1.JPEG", seed=2)
    annotations = "val_0.JPEG\tn02\t0\t0\t7\t7\nval_1.JPEG\tn01\t0\t0\t7\t7\n"
    (root / "val" / "val_annotations.txt").write_text(annotations)
    (root / "wnids.txt").write_text("n02\nn01\n")
    return root


def rgb(path):
    """Pixels of an image file, uint8 [3, H, W]."""
    return torch.tensor(numpy.asarray(Image.open(path).convert("RGB"))).permute(2, 0, 1).contiguous()


def labelled(tensors, labels):
    """Pairs of label and image, in whatever order, with how often each is there."""
    return Counter((int(label), tensor.numpy().tobytes()) for tensor, label in zip(tensors, labels))


def decoded(files):
    """What labelled() must give for a list of (path, label)."""
    return labelled([rgb(path) for path, _ in files], [label for _, label in files])


# Real images


def test_cifar_jpeg_folder(cifar_jpeg):
    image_set = prepare("folder", cifar_jpeg, "cifar10-jpeg")
    assert image_set.classes == tuple(CIFAR10_CLASSES)
    assert image_set.train_images.shape == (40, 3, 32, 32) and image_set.train_images.dtype == torch.uint8
    for split in ("train", "test"):
        files = [
            (path, label)
            for label, name in enumerate(CIFAR10_CLASSES)
            for path in (cifar_jpeg / split / name).iterdir()
        ]
        stored = labelled(getattr(image_set, f"{split}_images"), getattr(image_set, f"{split}_labels"))
        assert stored == decoded(files)
    # Stored order mixes the classes, so that fixed batches suit train-mode batch norm.
    assert len(image_set.train_labels[:20].unique()) > 5
    assert prepare("folder", cifar_jpeg, "again").digest == image_set.digest


def test_tiny_imagenet(tiny_imagenet):
    image_set = prepare("tiny-imagenet", tiny_imagenet, "tiny")
    wnids = sorted((tiny_imagenet / "wnids.txt").read_text().split())
    validation = tiny_imagenet / "val"
    assert image_set.classes == tuple(wnids)
    assert image_set.train_images.shape == (600, 3, 64, 64)
    assert image_set.test_images.shape == (150, 3, 64, 64)
    train = [(path, wnids.index(path.parts[-3])) for path in tiny_imagenet.glob("train/*/images/*.JPEG")]
    assert labelled(image_set.train_images, image_set.train_labels) == decoded(train)
    words = [line.split() for line in (validation / "val_annotations.txt").read_text().splitlines()]
    test = [(validation / "images" / file, wnids.index(wnid)) for file, wnid, *_ in words]
    assert labelled(image_set.test_images, image_set.test_labels) == decoded(test)
    grey = (image_set.train_images[:, :1] == image_set.train_images).flatten(1).all(1)
    assert 0 < grey.sum() < 60  # the sample has a few grey-scale images, as the original does


def test_tiny_imagenet_limits(tiny_imagenet):
    image_set = prepare("tiny-imagenet", tiny_imagenet, "tiny", Limits(3, 5, 2))
    wnids = sorted((tiny_imagenet / "wnids.txt").read_text().split())[:3]
    assert image_set.classes == tuple(wnids)
    assert image_set.test_labels.bincount().tolist() == [2, 2, 2]
    first = [
        (path, label)
        for label, wnid in enumerate(wnids)
        for path in sorted((tiny_imagenet / "train" / wnid / "images").glob("*.JPEG"))[:5]
    ]
    assert labelled(image_set.train_images, image_set.train_labels) == decoded(first)


# Kinds of image files


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_colour_modes_become_rgb(folder, mode):
    path = draw(folder / "train" / "ant" / "other.png", mode=mode, seed=99)
    image_set = prepare("folder", folder, "mixed")
    assert (image_set.train_images == rgb(path)).flatten(1).all(1).sum() == 1


def test_files_that_are_no_images_are_skipped(folder, capsys):
    notes = folder / "train" / "ant" / "notes.txt"
    notes.write_text("not an image")
    draw(folder / "train" / "bee" / "upper.BMP")
    assert prepare("folder", folder, "set").train_labels.bincount().tolist() == [3, 4]
    said = f"{folder / 'train'}: 1 files with names not of images are skipped, such as {notes}\n"
    assert capsys.readouterr().out == said


# Broken originals: the message names the place


def without_test_split(root):
    (root / "test").rename(root / "elsewhere")
    return f"{root / 'test'};"


def without_classes(root):
    (root / "train").rename(root / "elsewhere")
    (root / "train").mkdir()
    return f"class folder in {root / 'train'}"


def class_only_in_train(root):
    draw(root / "train" / "cat" / "0.png")
    return f"cat (one of 1 such) is in {root / 'train'} but not in {root / 'test'}"


def class_only_in_test(root):
    draw(root / "test" / "cat" / "0.png")
    return f"cat (one of 1 such) is in {root / 'test'} but not in {root / 'train'}"


def empty_class(root):
    (root / "train" / "cat").mkdir()
    return "cat"


def other_size(root):
    path = draw(root / "test" / "bee" / "wide.png", size=(9, 8))
    return f"{path} is 9x8 pixels, but 8x8 is expected"


def not_square(root):
    path = draw(root / "train" / "ant" / "-.png", size=(8, 6))  # the first of all
    return f"{path} is 8x6 pixels, but images must be square"


def truncated(root):
    path = draw(root / "train" / "bee" / "cut.jpg", size=(8, 8))
    path.write_bytes(path.read_bytes()[:-40])
    return f"{path} cannot be decoded"


def no_image(root):
    path = root / "train" / "bee" / "text.png"
    path.write_text("hello")
    return f"{path} cannot be decoded"


def sixteen_bits(root):
    path = root / "train" / "bee" / "deep.png"
    Image.fromarray(numpy.zeros((8, 8), dtype=numpy.uint16)).save(path)
    return f"{path} cannot be decoded (more than 8 bits"


@pytest.mark.parametrize(
    "damage",
    [
        without_test_split,
        without_classes,
        class_only_in_train,
        class_only_in_test,
        empty_class,
        other_size,
        not_square,
        truncated,
        no_image,
        sixteen_bits,
    ],
)
def test_broken_folder(folder, damage):
    message = damage(folder)
    with pytest.raises(BadInput) as raised:
        prepare("folder", folder, "broken")
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "limits, message",
    [
        (Limits(classes=3), "only 2 classes"),
        (Limits(train_per_class=4), "the train split has only 3 images of class ant"),
        (Limits(test_per_class=3), "the test split has only 2 images of class ant"),
    ],
)
def test_limits_beyond_the_set(folder, limits, message):
    with pytest.raises(BadInput, match=message):
        prepare("folder", folder, "short", limits)


def without_wnids(root):
    (root / "wnids.txt").unlink()
    return f"cannot read {root / 'wnids.txt'}"


def without_annotations(root):
    (root / "val" / "val_annotations.txt").unlink()
    return f"cannot read {root / 'val' / 'val_annotations.txt'}"


def unknown_wnid(root):
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n01", "n99"))
    return f"{path} line 2: class 'n99' is not in wnids.txt"


def annotation_without_class(root):
    path = root / "val" / "val_annotations.txt"
    path.write_text("val_0.JPEG\n")
    return f"{path} line 1: class ''"


def validation_file_missing(root):
    (root / "val" / "images" / "val_1.JPEG").unlink()
    return f"val_1.JPEG (one of 1 such) is in {root / 'val' / 'val_annotations.txt'}"


def validation_file_not_annotated(root):
    draw(root / "val" / "images" / "val_2.JPEG")
    return f"val_2.JPEG (one of 1 such) is in {root / 'val' / 'images'}"


def class_not_in_wnids(root):
    (root / "wnids.txt").write_text("n01\n")
    return f"n02 (one of 1 such) is in {root / 'train'} but not in {root / 'wnids.txt'}"


def class_without_validation_image(root):
    (root / "val" / "images" / "val_1.JPEG").unlink()
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\n")
    return "the test split has only 0 images of class n01"


@pytest.mark.parametrize(
    "damage",
    [
        without_wnids,
        without_annotations,
        unknown_wnid,
        annotation_without_class,
        validation_file_missing,
        validation_file_not_annotated,
        class_not_in_wnids,
        class_without_validation_image,
    ],
)
def test_broken_tiny_imagenet(tiny_layout, damage):
    message = damage(tiny_layout)
    with pytest.raises(BadInput) as raised:
        prepare("tiny-imagenet", tiny_layout, "broken")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_sound_tiny_layout(tiny_layout):
    image_set = prepare("tiny-imagenet", tiny_layout, "tiny")
    assert image_set.classes == ("n01", "n02") and sorted(image_set.test_labels.tolist()) == [0, 1]


# CIFAR's own files

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def write_cifar(source, dataset, monkeypatch):
    """Small random files in CIFAR's layout, with 20 training and 10 test images of 10 classes.

    Labels are 0, 1, ..., 9, 0, 1, ... in both splits. torchvision is told to take any checksum. Returns the
    training and the test pixels, a row for each image as in the files.
    """
    folder = source / dataset.base_folder
    label_key = "fine_labels" if dataset is CIFAR100 else "labels"
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": None})
    write_pickle(folder / dataset.meta["filename"], {dataset.meta["key"]: CIFAR10_CLASSES})
    splits = []
    for attribute, count in (("train_list", 20), ("test_list", 10)):
        names = [name for name, _ in getattr(dataset, attribute)]
        monkeypatch.setattr(dataset, attribute, [[name, None] for name in names])
        rows = numpy.random.default_rng(count).integers(0, 256, (count, 3 * 32 * 32), dtype=numpy.uint8)
        for name, part in zip(names, numpy.split(numpy.arange(count), len(names)), strict=True):
            write_pickle(folder / name, {"data": rows[part], label_key: (part % 10).tolist()})
        splits.append(torch.from_numpy(rows))
    return splits


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("name, dataset", [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_keeps_pixels_and_order(tmp_path, monkeypatch, name, dataset):
    train_rows, test_rows = write_cifar(tmp_path, dataset, monkeypatch)
    image_set = prepare(name, tmp_path, name)
    # A row of the files is the red plane, then green, then blue.
    assert torch.equal(image_set.train_images.flatten(1), train_rows)
    assert torch.equal(image_set.test_images.flatten(1), test_rows)
    assert image_set.train_images.is_contiguous() and image_set.train_labels.dtype == torch.int64
    assert image_set.train_labels.tolist() == 2 * list(range(10))
    assert image_set.test_labels.tolist() == list(range(10))
    assert image_set.classes == tuple(CIFAR10_CLASSES)


def test_cifar_limits(tmp_path, monkeypatch):
    train_rows, test_rows = write_cifar(tmp_path, CIFAR10, monkeypatch)
    image_set = prepare("cifar10", tmp_path, "few", Limits(classes=3, train_per_class=1))
    assert torch.equal(image_set.train_images.flatten(1), train_rows[:3])
    assert torch.equal(image_set.test_images.flatten(1), test_rows[:3])
    assert image_set.train_labels.tolist() == image_set.test_labels.tolist() == [0, 1, 2]
    assert image_set.classes == ("airplane", "automobile", "bird")


def test_cifar_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", f"file://{tmp_path}/nowhere/cifar-10-python.tar.gz")
    with pytest.raises(BadInput, match=f"put {CIFAR10.url} into {tmp_path / 'raw'} by hand"):
        prepare("cifar10", tmp_path / "raw", "cifar10")


def test_cifar_archive_put_there_by_hand(tmp_path, monkeypatch):
    write_cifar(tmp_path / "made", CIFAR10, monkeypatch)
    (tmp_path / "raw").mkdir()
    with tarfile.open(tmp_path / "raw" / CIFAR10.filename, "w:gz") as archive:
        archive.add(tmp_path / "made" / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "url", f"file://{tmp_path}/nowhere/cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", None)
    assert len(prepare("cifar10", tmp_path / "raw", "cifar10").train_labels) == 20


# Fewer pixels


def means_of_2x2(images):
    """float64 [..., n, n] of uint8 [..., 2n, 2n]."""
    return images.double().unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).mean((-3, -1))


def assert_means(smaller, images):
    """Images are means over 2x2 pixels of others, rounded once."""
    assert smaller.dtype == torch.uint8 and torch.equal(smaller.double(), means_of_2x2(images).round())


def test_half_the_size_is_the_mean_of_2x2_pixels(tmp_path, monkeypatch):
    train_rows, test_rows = write_cifar(tmp_path, CIFAR10, monkeypatch)
    image_set = prepare("cifar10", tmp_path, "half", Limits(size=16))
    assert_means(image_set.train_images, train_rows.view(-1, 3, 32, 32))
    assert_means(image_set.test_images, test_rows.view(-1, 3, 32, 32))
    assert image_set.train_images.is_contiguous()


def test_means_that_need_no_rounding_are_exact(folder):
    for path in folder.rglob("*.png"):
        small = numpy.array(Image.open(path).crop((0, 0, 4, 4)))
        # 2x2 pixels with this mean: 12 more in one corner, 4 less in the other three
        large = small.clip(4, 243).repeat(2, axis=0).repeat(2, axis=1).astype(int)
        large += numpy.tile([[12, -4], [-4, -4]], (4, 4))[:, :, None]
        Image.fromarray(large.astype(numpy.uint8)).save(path)
    half, whole = (prepare("folder", folder, "insects", Limits(size=size)) for size in (4, None))
    assert torch.equal(half.train_images.double(), means_of_2x2(whole.train_images))
    assert torch.equal(half.test_images.double(), means_of_2x2(whole.test_images))


@pytest.mark.parametrize("size, columns, rows", [((14, 8), (3, 11), (0, 8)), ((8, 13), (0, 8), (2, 10))])
def test_the_central_square_is_kept(folder, size, columns, rows):
    path = draw(folder / "train" / "ant" / "-.png", size=size, seed=99)
    square = rgb(path)[:, slice(*rows), slice(*columns)]
    as_large, half = (prepare("folder", folder, "squares", Limits(size=side)) for side in (8, 4))
    (at,) = (as_large.train_images == square).flatten(1).all(1).nonzero()
    assert_means(half.train_images[at], square[None])
    assert len(half.train_images) == 7 and half.test_images.shape[1:] == (3, 4, 4)


def test_images_of_all_shapes_become_means_over_the_pixels_that_are_covered(folder):
    for path, size in zip(sorted(folder.rglob("*.png")), [(5, 5), (9, 5), (5, 31), (7, 8), (13, 11), (6, 6)] * 2):
        draw(path, size=size, seed=sum(size))
    stored = prepare("folder", folder, "shapes", Limits(size=5))

    def plainly(path):
        pixels = rgb(path).double()
        side = min(pixels.shape[1:])
        top, left = ((length - side) // 2 for length in pixels.shape[1:])
        ends = [(side * i // 5, -(-side * (i + 1) // 5)) for i in range(5)]
        cells = [pixels[:, top + a : top + b, left + c : left + d].mean((1, 2)) for a, b in ends for c, d in ends]
        return torch.stack(cells, dim=1).view(3, 5, 5).round().to(torch.uint8)

    for split in ("train", "test"):
        files = [
            (path, label)
            for label, name in enumerate(("ant", "bee"))
            for path in (folder / split / name).iterdir()
        ]
        expected = labelled([plainly(path) for path, _ in files], [label for _, label in files])
        assert labelled(getattr(stored, f"{split}_images"), getattr(stored, f"{split}_labels")) == expected


def test_val_is_taken_for_test_where_there_is_no_test(folder):
    named_test = prepare("folder", folder, "insects")
    draw(folder / "val" / "cat" / "0.png")
    assert prepare("folder", folder, "insects").digest == named_test.digest  # as there is a test
    (folder / "val").rename(folder / "unused")
    (folder / "test").rename(folder / "val")
    assert prepare("folder", folder, "insects").digest == named_test.digest
    (folder / "val" / "bee").rename(folder / "val" / "cat")
    with pytest.raises(BadInput, match=f"bee .* is in {folder / 'train'} but not in {folder / 'val'}"):
        prepare("folder", folder, "insects")


# Held-out images


def test_the_last_training_images_of_each_class_are_held_out(tmp_path, monkeypatch):
    train_rows, test_rows = write_cifar(tmp_path, CIFAR10, monkeypatch)
    image_set = prepare("cifar10", tmp_path, "half", Limits(validation_per_class=1))
    assert torch.equal(image_set.train_images.flatten(1), train_rows[:10])  # labels are 0 to 9, twice
    assert torch.equal(image_set.validation_images.flatten(1), train_rows[10:])
    assert torch.equal(image_set.test_images.flatten(1), test_rows)
    assert image_set.train_labels.tolist() == image_set.validation_labels.tolist() == list(range(10))


def test_images_are_held_out_from_those_that_are_kept(folder):
    kept = prepare("folder", folder, "kept", Limits(train_per_class=2))
    image_set = prepare("folder", folder, "held", Limits(train_per_class=2, validation_per_class=1))
    files = [[(folder / f"train/{name}/{i}.png", k) for k, name in enumerate(("ant", "bee"))] for i in (0, 1)]
    assert labelled(image_set.train_images, image_set.train_labels) == decoded(files[0])
    assert labelled(image_set.validation_images, image_set.validation_labels) == decoded(files[1])
    assert torch.equal(image_set.test_images, kept.test_images) and image_set.digest != kept.digest


def test_something_is_left_to_train_on(folder):
    message = "--validation-per-class 2 leaves none of the 2 training images of class ant to train on"
    with pytest.raises(BadInput, match=message):
        prepare("folder", folder, "all", Limits(train_per_class=2, validation_per_class=2))


def test_what_a_run_reports_on(folder, tmp_path):
    plain = prepare("folder", folder, "insects")
    with pytest.raises(BadInput, match="insects has no validation images .*--validation-per-class N"):
        plain.reporting_on("validation")
    save_image_set(prepare("folder", folder, "insects", Limits(validation_per_class=1)), tmp_path / "held.pt")
    image_set = load_image_set(tmp_path / "held.pt")
    assert image_set.reporting_on("test") is image_set
    reporting = image_set.reporting_on("validation")
    assert torch.equal(reporting.test_images, image_set.validation_images)
    assert torch.equal(reporting.test_labels, image_set.validation_labels) and len(reporting.test_labels) == 2
    assert torch.equal(reporting.train_images, image_set.train_images)
    [(inputs, labels)] = reporting.test_batches()
    assert torch.equal(inputs, normalise(image_set.validation_images))
    assert torch.equal(labels, image_set.validation_labels)


# Normalisation


def test_own_mean_and_std_are_those_of_the_training_pixels(folder):
    paper, own = (
        prepare("folder", folder, "insects", Limits(validation_per_class=1, normalise=choice))
        for choice in ("paper", "own")
    )
    pixels = own.train_images.numpy() / 255
    numpy.testing.assert_allclose(own.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    numpy.testing.assert_allclose(own.std, pixels.std((0, 2, 3)), rtol=1e-12)
    assert (paper.mean, paper.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert torch.equal(paper.train_images, own.train_images) and paper.digest != own.digest
    shifted = dataclasses.replace(own, mean=tuple(reversed(own.mean)))
    assert digest(vars(shifted)) != own.digest
    inputs = own.normalise(own.train_images).double()
    numpy.testing.assert_allclose(inputs.mean((0, 2, 3)), 0, atol=1e-6)
    numpy.testing.assert_allclose(inputs.std((0, 2, 3), unbiased=False), 1, rtol=1e-6)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (own.mean, own.std))
    for split in ("train", "validation", "test"):
        [(found, _)] = own.batches(split, 100)
        expected = (getattr(own, f"{split}_images").double() / 255 - mean) / std
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_constant_channels_have_no_normalisation_of_their_own(folder):
    for path in folder.rglob("*.png"):
        pixels = numpy.array(Image.open(path))
        pixels[:, :, 1] = 7
        Image.fromarray(pixels).save(path)
    assert prepare("folder", folder, "flat").std == (0.2023, 0.1994, 0.2010)
    with pytest.raises(BadInput, match="--normalise own: all training pixels of a channel have the same value"):
        prepare("folder", folder, "flat", Limits(normalise="own"))


def test_enlarging_is_refused(folder, tmp_path, monkeypatch):
    path = draw(folder / "test" / "bee" / "low.png", size=(9, 7))
    message = f"{path} is 9x7 pixels, which --size 8 would enlarge; ask for 7 at most, or remove it"
    with pytest.raises(BadInput, match=message):
        prepare("folder", folder, "large", Limits(size=8))
    write_cifar(tmp_path, CIFAR100, monkeypatch)
    with pytest.raises(BadInput, match="an image of CIFAR100 is 32x32 pixels, which --size 33 would enlarge"):
        prepare("cifar100", tmp_path, "large", Limits(size=33))


def test_the_size_is_part_of_what_a_set_is_made_from(folder, tmp_path, capsys):
    out = tmp_path / "insects.pt"
    arguments = ["folder", "--source", str(folder), "--out", str(out)]
    main(arguments)
    earlier = load_image_set(out)
    made_from = {name: value for name, value in earlier.made_from.items() if name != "size"}  # as before --size
    save_image_set(dataclasses.replace(earlier, made_from=made_from), out)
    main(arguments)
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(Refused, match="size None, not 4"):
        main([*arguments, "--size", "4"])
    out.unlink()
    main([*arguments, "--size", "4"])
    assert "4x4 pixels" in capsys.readouterr().out
    main([*arguments, "--size", "4"])
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(Refused, match="size 4, not None"):
        main(arguments)


# The command


def test_command_prepares_once(folder, tmp_path, capsys):
    out = tmp_path / "sets" / "insects.pt"
    arguments = ["folder", "--source", str(folder), "--out", str(out), "--train-per-class", "2"]
    main(arguments)
    first = capsys.readouterr().out
    assert first.startswith(f"{out}: 4 training and 4 test images, 2 classes, 8x8 pixels, digest ")
    assert load_image_set(out).name == "insects"
    written = out.stat().st_mtime_ns
    main(arguments)
    assert capsys.readouterr().out == f"already prepared\n{first}"
    assert out.stat().st_mtime_ns == written
    for other, difference in (
        ("--train-per-class=1", "train_per_class 2, not 1"),
        ("--classes=1", "classes None, not 1"),
        (f"--source={tmp_path}", f"source {folder}, not {tmp_path}"),
        ("--validation-per-class=1", "validation_per_class None, not 1"),
        ("--normalise=own", "normalise paper, not own"),
    ):
        with pytest.raises(Refused, match=difference):
            main([*arguments, other])


def test_command_holds_out_and_checks(folder, tmp_path, capsys):
    out = tmp_path / "insects.pt"
    arguments = ["folder", "--out", str(out), "--validation-per-class", "1", "--normalise", "own"]
    with pytest.raises(BadInput, match=f"there is no {out}"):
        main([*arguments, "--check"])
    main([*arguments, "--source", str(folder)])
    assert ": 4 training, 2 validation and 4 test images" in capsys.readouterr().out
    written = out.stat().st_mtime_ns
    main([*arguments, "--check"])  # wherever the originals lay
    for changed in (["--normalise", "paper"], ["--size", "4"], ["--validation-per-class", "2"]):
        with pytest.raises(Refused, match=f"{out} was made with {changed[0][2:].replace('-', '_')} "):
            main([*arguments, *changed, "--check"])
    assert out.stat().st_mtime_ns == written
    prepared = load_image_set(out)
    made_from = {name: value for name, value in prepared.made_from.items() if name != "normalise"}
    save_image_set(dataclasses.replace(prepared, made_from=made_from), out)  # as before there was a choice
    main([*arguments, "--normalise", "paper", "--check"])


def test_command_writes_where_the_set_is_named(tmp_path, monkeypatch, capsys):
    write_cifar(tmp_path / "datasets" / "raw", CIFAR10, monkeypatch)
    monkeypatch.chdir(tmp_path)
    main(["cifar10"])
    assert load_image_set("datasets/cifar10.pt").name == "cifar10"
    # CIFAR is the same wherever its files lie.
    main(["cifar10", "--source", "elsewhere"])
    assert "already prepared" in capsys.readouterr().out


def command(*arguments):
    words = [sys.executable, "-m", "data", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def test_exit_codes(folder, tmp_path, capsys):
    out = tmp_path / "insects.pt"
    main(["folder", "--source", str(folder), "--out", str(out)])
    refused = command("folder", "--source", folder, "--out", out, "--classes", 1)
    assert refused.returncode == 3
    assert refused.stderr.startswith("python -m data: ") and refused.stderr.count("\n") == 1
    with pytest.raises(SystemExit) as leaving:
        run(lambda: main(["folder", "--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "other.pt")]))
    error = capsys.readouterr().err
    assert leaving.value.code == 2
    assert str(tmp_path / "nowhere" / "train") in error and error.count("\n") == 1


@pytest.mark.parametrize("failure, raised", [(KeyboardInterrupt, KeyboardInterrupt), (OSError, BadInput)])
def test_stopped_while_writing_leaves_nothing(folder, tmp_path, monkeypatch, failure, raised):
    def stop(source, target):
        assert Path(source).stat().st_size > 0
        raise failure

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(raised):
        main(["folder", "--source", str(folder), "--out", str(tmp_path / "my" / "sets" / "insects.pt")])
    assert list(tmp_path.iterdir()) == [folder]


def test_what_another_process_made_meanwhile_stays(folder, tmp_path, monkeypatch):
    out = tmp_path / "insects.pt"

    def meanwhile(*arguments):
        out.write_text("of the other process")
        return prepare(*arguments)

    monkeypatch.setattr("data.__main__.prepare", meanwhile)
    with pytest.raises(Refused, match=f"{out} was made meanwhile by another process"):
        main(["folder", "--source", str(folder), "--out", str(out)])
    assert out.read_text() == "of the other process"


def test_the_next_start_removes_what_a_kill_left(folder, tmp_path):
    out = tmp_path / "sets" / "insects.pt"
    source = ["folder", "--source", str(folder)]
    process = os.fork()
    if process == 0:
        try:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            main([*source, "--out", str(out)])
        finally:
            os._exit(1)
    os.waitpid(process, 0)
    assert [file.name for file in out.parent.iterdir()] == [f".insects.pt.{process}.tmp"]
    main([*source, "--out", str(out.with_name("other.pt"))])
    assert [file.name for file in out.parent.iterdir()] == ["other.pt"]


def test_stopped_while_reading_leaves_nothing(folder, tmp_path):
    truncated(folder)
    with pytest.raises(BadInput):
        main(["folder", "--source", str(folder), "--out", str(tmp_path / "insects.pt")])
    assert list(tmp_path.iterdir()) == [folder]


# Loading


@pytest.fixture
def saved(folder, tmp_path):
    image_set = prepare("folder", folder, "insects", Limits(classes=2))
    path = tmp_path / "insects.pt"
    save_image_set(image_set, path)
    return image_set, path


def test_load_gives_what_was_saved(saved):
    image_set, path = saved
    loaded = load_image_set(path, "cpu")
    for field in dataclasses.fields(ImageSet):
        before, after = getattr(image_set, field.name), getattr(loaded, field.name)
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.name = "other"


def test_digest_covers_images_labels_and_both_splits(saved):
    image_set, _ = saved
    content = vars(image_set)
    assert digest(content) == image_set.digest
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        assert digest(content | {key: content[key].flip(0)}) != image_set.digest


def test_missing_file_says_how_to_prepare_it(tmp_path):
    with pytest.raises(BadInput, match=f"python -m data .*--out {tmp_path}/none.pt"):
        load_image_set(tmp_path / "none.pt")


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def overwritten_with_text(path):
    path.write_text("this is not a tensor file")


def flipped_pixel_bit(path):  # as an attacker would, with checksums made anew
    content = read_tensors(path, "")[0]
    content["test_images"][0, 0, 0, 0] ^= 1
    write_tensors(path, content)


def flipped_bit_of_the_file(path):
    content = bytearray(path.read_bytes())
    pixels = load_image_set(path).test_images.numpy().tobytes()
    content[content.index(pixels) + 7] ^= 1
    path.write_bytes(content)


def other_content(path):
    torch.save({"step": 3}, path)


def list_content(path):
    torch.save([1, 2], path)


def changed(**values):
    def change(path):
        write_tensors(path, read_tensors(path, "")[0] | values)

    return change


@pytest.mark.parametrize(
    "damage", [cut_in_half, emptied, overwritten_with_text, flipped_bit_of_the_file, list_content]
)
def test_no_file_of_tensors(saved, damage):
    _, path = saved
    damage(path)
    with pytest.raises(BadInput, match=f"^{path}: is damaged or no file .*; prepare one with: python -m data "):
        load_image_set(path)


NOTHING = torch.zeros(0, dtype=torch.uint8)


@pytest.mark.parametrize(
    "damage, message",
    [
        (flipped_pixel_bit, "do not match its digest"),
        (other_content, "it holds step, and lacks classes, digest, "),
        (changed(future=1), "it also holds future"),
        (changed(validation_labels=torch.zeros(1, dtype=torch.int64)), "validation images or their labels alone"),
        (changed(mean=(0.5, 0.5, 0.5)), "do not match its digest"),
        (changed(train_images=torch.zeros(6, 3, 8, 8)), "train images are torch.float32"),
        (changed(test_labels=torch.zeros(4, dtype=torch.int32)), "labels torch.int32"),
        (changed(train_images=torch.zeros(6, 3, 8, 9, dtype=torch.uint8)), "shape"),
        (changed(test_images=torch.zeros(4, 3, 9, 9, dtype=torch.uint8)), "shape"),
        (changed(train_labels=torch.zeros(5, dtype=torch.int64)), "shape"),
        (changed(test_labels=torch.full((4,), 2)), "labels go from 2 to 2"),
        (changed(test_labels=torch.full((4,), -1)), "labels go from -1 to -1"),
        (changed(digest="0"), "do not match its digest"),
        (changed(digest=None), "do not match its digest"),
        (changed(train_images=None), "train images or labels are no tensors"),
        (changed(test_labels=[0, 0, 1, 1]), "test images or labels are no tensors"),
        (changed(test_images=torch.tensor(0, dtype=torch.uint8)), "shape"),
        (changed(train_images=torch.tensor(0, dtype=torch.uint8)), "shape"),
        (changed(train_images=torch.zeros(6, 3, 0, 0, dtype=torch.uint8)), "shape"),
        (changed(train_images=NOTHING, train_labels=NOTHING.long()), "shape"),
        (changed(test_labels=torch.zeros(4, 1, dtype=torch.int64)), "shape"),
        (changed(validation_images=NOTHING, validation_labels=NOTHING.long()), "validation images have the shape"),
        (changed(validation_images=NOTHING, validation_labels=0), "validation images or labels are no tensors"),
        (changed(classes=2), "no plain texts"),
        (changed(classes=()), "no plain texts"),
        (changed(classes=("ant", 2)), "no plain texts"),
        (changed(classes=("ant", "\x1b[2J")), "no plain texts"),
        (changed(classes=("ant", "caf\udce9")), "no plain texts"),
        (changed(classes=("ant", "b" * 256)), "no plain texts"),
        (changed(name=None), "no plain texts"),
        (changed(made_from=None), "what it was made from is a NoneType"),
        (changed(mean=0.5), "its mean is not three numbers"),
        (changed(mean=(0.5, 0.5)), "its mean is not three numbers"),
        (changed(std=("1", 1.0, 1.0)), "its std is not three numbers"),
        (changed(std=(1.0, 0.0, 1.0)), "its std is 1.0, 0.0, 1.0"),
        (changed(mean=(0.5, float("nan"), 0.5)), "its mean is 0.5, nan, 0.5"),
    ],
)
def test_damaged_file(saved, damage, message):
    _, path = saved
    damage(path)
    with pytest.raises(BadInput, match=message) as raised:
        load_image_set(path)
    message = str(raised.value)
    assert re.match(f"{path}(: is damaged| is not a sound image set: )", message) and "\n" not in message
    assert "prepare one with: python -m data " in message
    assert "delete" not in message and "remove" not in message  # it may be anything of the user's


def test_a_folder_of_images_is_told_how_it_is_prepared(folder):
    with pytest.raises(BadInput, match=f"{folder} is a folder, .*python -m data folder --source {folder} --out"):
        load_image_set(folder)


def test_what_becomes_of_the_file_changes_no_set_that_is_loaded(saved):
    image_set, path = saved
    loaded = load_image_set(path)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))  # in place, as no rename does
        file.truncate(0)
    for field in dataclasses.fields(ImageSet):
        before, after = getattr(image_set, field.name), getattr(loaded, field.name)
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after


def test_a_set_larger_than_the_memory_is_not_read(saved, monkeypatch):
    _, path = saved
    monkeypatch.setattr(device, "free_memory", lambda _: path.stat().st_size - 1)
    with pytest.raises(BadInput, match=f"{path} takes 0.0 GiB of memory, of which 0.0 GiB are free; stop other"):
        load_image_set(path)


def test_files_from_before_there_was_a_choice_are_read(saved):
    image_set, path = saved
    content, _ = read_tensors(path, "")
    for name in ("validation_images", "validation_labels", "mean", "std"):
        del content[name]
    hashed = hashlib.sha256()
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        hashed.update(f"{key} {list(content[key].shape)}".encode() + content[key].numpy().tobytes())
    assert content["digest"] == hashed.hexdigest()
    torch.save(content, path)
    loaded = load_image_set(path)
    assert loaded.mean == (0.4914, 0.4822, 0.4465) and loaded.std == (0.2023, 0.1994, 0.2010)
    assert loaded.validation_images is None and loaded.digest == image_set.digest


# Normalised batches


def test_normalise_matches_the_formula():
    every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    result = normalise(every_value)
    exact = normalize(every_value.double() / 255, [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    assert result.dtype == torch.float32 and result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=5e-7)


def test_normalise_leaves_its_input_alone():
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    before = pixels.clone()
    normalise(pixels)
    assert torch.equal(pixels, before)


def test_epoch_order_is_a_permutation_of_seed_and_epoch():
    orders = {(seed, epoch): epoch_order(seed, epoch, 1000) for seed in range(4) for epoch in range(4)}
    for order in orders.values():
        assert order.dtype == torch.int64 and order.device.type == "cpu"
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert len({tuple(order.tolist()) for order in orders.values()}) == len(orders)
    torch.manual_seed(5)  # the global generator has no part in it
    assert torch.equal(epoch_order(1, 2, 1000), orders[1, 2])


def test_epoch_order_stays_the_same_for_ever():
    # Resuming a run and averaging its last stretch replay orders of runs made long ago.
    assert epoch_order(1, 2, 1000)[:6].tolist() == [606, 506, 197, 331, 432, 652]


def test_generators_of_similar_keys_differ():
    keys = [("order", 1, 23), ("order", 12, 3), ("order", 123), ("augment", 1, 23), ("order", -1, 23)]
    assert len({generator(*key).initial_seed() for key in keys}) == len(keys)
    assert all(0 <= generator(*key).initial_seed() < 2**63 for key in keys)


def test_batches_visit_every_image_once_as_stored():
    pixels = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8)
    visited = list(batches(pixels, torch.arange(23), 5))
    assert [len(y) for _, y in visited] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([y for _, y in visited]), torch.arange(23))
    for x, y in visited:
        torch.testing.assert_close(x, normalise(pixels[y]), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_of_the_cpu():
    pixels = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8)
    here, there = (batches(pixels.to(device), torch.arange(23).to(device), 5) for device in ("cpu", "cuda"))
    for (x, y), (x_gpu, y_gpu) in zip(here, there, strict=True):
        assert x_gpu.is_cuda and x_gpu.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(y, y_gpu.cpu())
        torch.testing.assert_close(x, x_gpu.cpu(), rtol=0, atol=5e-7)
