"""Prepared image sets: one tensor file each (python -m data writes it), held whole on the training device."""

import dataclasses
import functools
import hashlib
from pathlib import Path

import torch

from data.commandline import BadInput
from data.device import EVALUATION_BATCH
from data.files import write_tensors
from data.seeds import generator

# Per colour channel, of pixels in [0, 1]. The paper's code uses these CIFAR-10 numbers for every image set.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """A prepared image set: N training and M test images, square and all of one size, classes mixed."""

    name: str
    train_images: torch.Tensor  # uint8 [N, 3, H, W]
    train_labels: torch.Tensor  # int64 [N], indices into classes
    test_images: torch.Tensor  # uint8 [M, 3, H, W]
    test_labels: torch.Tensor  # int64 [M]
    classes: tuple[str, ...]
    digest: str  # sha256 (hex) over the four tensors: two sets with the same digest hold the same data
    made_from: dict  # the set, source folder and limits that it was prepared from

    def train_batches(self, batch_size, most=None):
        """batches() of the training images, all or the first ones."""
        return batches(self.train_images[:most], self.train_labels[:most], batch_size)

    def test_batches(self):
        """batches() of the test images, as large as suits the device that they are on."""
        return batches(self.test_images, self.test_labels, EVALUATION_BATCH[self.test_images.device.type])


def digest(tensors):
    """ImageSet.digest of a dictionary that holds the four tensors of an ImageSet."""
    hashed = hashlib.sha256()
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        hashed.update(f"{key} {list(tensors[key].shape)}".encode())
        hashed.update(tensors[key].contiguous().numpy())
    return hashed.hexdigest()


def save_image_set(image_set, path):
    """Write an ImageSet to a file for load_image_set, at once: no reader and no crash ever sees a part of it.

    Raises BadInput where the file cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, vars(image_set))


def load_image_set_of(config, device):
    """The image set of a run, from the config's `data_file`. Raises BadInput where that is not the run's data."""
    path, settings = config["data_file"], config["settings"]
    if not Path(path).exists():
        raise BadInput(f"{path}: the run's image set is not there; say where it is by --data-file")
    image_set = load_once(path, device)
    if image_set.digest != settings["digest"]:
        raise BadInput(f"{path}: holds other data than the run's {settings['data']}; give --data-file")
    return image_set


@functools.cache
def load_once(path, device):
    """load_image_set(), once for all runs that a process works on."""
    return load_image_set(path, device)


def load_image_set(path, device="cpu"):
    """Read a prepared image set and put its tensors on the device; returns an ImageSet.

    Takes a fraction of a second for CIFAR-10, with the check of the digest. On the CPU the tensors are
    memory-mapped, so that processes share them. Raises BadInput for a file that is missing, damaged or not a
    prepared image set.
    """
    try:
        content = torch.load(path, mmap=True, weights_only=True)
    except FileNotFoundError:
        raise BadInput(
            f"there is no {path}; prepare it with: python -m data SET --out {path} (see --help)"
        ) from None
    except Exception as error:  # unpickling a broken file raises all kinds of errors
        raise BadInput(_broken(path, f"reading it fails with {type(error).__name__}")) from None
    fault = _fault(content)
    if fault:
        raise BadInput(_broken(path, fault))
    on_device = {key: value.to(device) for key, value in content.items() if isinstance(value, torch.Tensor)}
    return ImageSet(**content | on_device)


def _broken(path, fault):
    return f"{path} is not a sound image set: {fault}; delete it and prepare it again: python -m data --help"


def _fault(content):
    """What is wrong with the content of a file of a prepared set, in a few words; None if nothing is."""
    expected = {field.name for field in dataclasses.fields(ImageSet)}
    if not isinstance(content, dict) or set(content) != expected:
        return f"it does not hold just {', '.join(sorted(expected))}"
    side = content["train_images"].shape[-1]
    for split in ("train", "test"):
        images, labels = content[f"{split}_images"], content[f"{split}_labels"]
        if (images.dtype, labels.dtype) != (torch.uint8, torch.int64):
            return f"{split} images are {images.dtype} and labels {labels.dtype}, not uint8 and int64"
        if labels.shape != (len(images),) or len(images) == 0 or images.shape[1:] != (3, side, side):
            return f"{split} images have the shape {list(images.shape)} and labels {list(labels.shape)}"
        if labels.min() < 0 or labels.max() >= len(content["classes"]):
            return f"{split} labels go from {labels.min()} to {labels.max()}, beyond the classes"
    if digest(content) != content["digest"]:
        return "its data do not match its digest"


@functools.cache  # computed anew for every batch, the copy to the device would make the host wait
def _scale_and_shift(device):
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)


def normalise(images):
    """(images / 255 - MEAN) / STD: uint8 [B, 3, H, W] to float32 in channels_last, on the same device."""
    scale, shift = _scale_and_shift(images.device)
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)


def epoch_order(seed, epoch, size):
    """The order in which an epoch visits `size` images: a permutation, int64 [size] on the CPU.

    A pure function of seed and epoch, whatever the device, so that resuming needs no stored random state.
    """
    return torch.randperm(size, generator=generator("order", seed, epoch))


def batches(images, labels, batch_size):
    """Normalised batches (float32 [B, 3, H, W] in channels_last, int64 [B]) as stored; the last one may be smaller.

    images: uint8 [N, 3, H, W]. labels: int64 [N].
    """
    for some_images, some_labels in zip(images.split(batch_size), labels.split(batch_size)):
        yield normalise(some_images), some_labels
