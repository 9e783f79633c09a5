"""Prepared image sets: one tensor file each (python -m data writes it), held whole on the training device."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import unicodedata
from pathlib import Path

import torch

from data.commandline import BadInput
from data.device import EVALUATION_BATCH, require_memory
from data.files import read_tensors, write_tensors
from data.seeds import generator

# Per colour channel, of pixels in [0, 1]. The paper's code uses these CIFAR-10 numbers for every image set.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
# The splits that a run can report on as its test_loss and test_accuracy.
TEST, VALIDATION = "test", "validation"
SPLITS = ("train", TEST, VALIDATION)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """A prepared image set: N training and M test images, square and all of one size, classes mixed."""

    name: str
    train_images: torch.Tensor  # uint8 [N, 3, H, W]
    train_labels: torch.Tensor  # int64 [N], indices into classes
    test_images: torch.Tensor  # uint8 [M, 3, H, W]
    test_labels: torch.Tensor  # int64 [M]
    classes: tuple[str, ...]
    digest: str  # sha256 (hex): two sets with the same digest hold the same images and normalise them alike
    made_from: dict  # the set, source folder and limits that it was prepared from
    validation_images: torch.Tensor | None = None  # uint8 [V, 3, H, W], held out from the training images
    validation_labels: torch.Tensor | None = None  # int64 [V]
    mean: tuple[float, ...] = MEAN  # of each channel, which normalise() subtracts
    std: tuple[float, ...] = STD  # of each channel, which it divides by

    def normalise(self, images):
        """normalise() with the numbers of this set."""
        return normalise(images, self.mean, self.std)

    def batches(self, split, batch_size, most=None):
        """batches() of a split, `train`, `test` or `validation`: of all its images or the first ones."""
        images, labels = (getattr(self, f"{split}_{what}")[:most] for what in ("images", "labels"))
        return batches(images, labels, batch_size, self.mean, self.std)

    def train_batches(self, batch_size, most=None):
        """batches() of the training images, all or the first ones."""
        return self.batches("train", batch_size, most)

    def test_batches(self):
        """batches() of the test images, as large as suits the device that they are on."""
        return self.batches(TEST, EVALUATION_BATCH[self.test_images.device.type])

    def reporting_on(self, split):
        """This set as a run sees it that reports on a split, `test` or `validation`: its test images are those.

        So nothing that trains, evaluates or measures such a run ever sees the others. Raises BadInput where the set has
        no validation images.
        """
        if split == TEST:
            return self
        if self.validation_images is None:
            raise BadInput(
                f"the image set {self.name} has no validation images to report on; "
                f"prepare one that has: python -m data ... --validation-per-class N"
            )
        return dataclasses.replace(self, test_images=self.validation_images, test_labels=self.validation_labels)


def reported_split(settings):
    """The split that losses and accuracies called `test` are of, by the settings of a run or of an experiment."""
    return settings.get("report", TEST)


def digest(content):
    """ImageSet.digest of a dictionary of an ImageSet's fields, of which it covers tensors and normalisation.

    That of a set without validation images that is normalised with the paper's numbers covers the four tensors alone, as
    it did before there was a choice.
    """
    hashed = hashlib.sha256()
    for split in _splits(content):
        for key in (f"{split}_images", f"{split}_labels"):
            hashed.update(f"{key} {list(content[key].shape)}".encode())
            hashed.update(content[key].contiguous().numpy())
    mean, std = content.get("mean", MEAN), content.get("std", STD)
    if (mean, std) != (MEAN, STD):
        hashed.update(f"mean {list(mean)} std {list(std)}".encode())
    return hashed.hexdigest()


def _splits(content):
    """The splits that a dictionary of an ImageSet's fields has."""
    return [split for split in SPLITS if content.get(f"{split}_images") is not None]


def channel_mean_and_std(images):
    """Mean and standard deviation (population) of each channel over uint8 [N, 3, H, W], pixels being in [0, 1].

    Exact up to the last rounding, as it counts how often each of the 256 values is there.
    """
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = counts @ values / counts.sum(1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def save_image_set(image_set, path):
    """Write an ImageSet to a file for load_image_set, at once: no reader and no crash ever sees a part of it.

    Makes the folder that it is to be in. Raises BadInput where the file cannot be written; no new folder stays then.
    """
    new = [folder for folder in Path(path).parents if not folder.exists()]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        write_tensors(path, vars(image_set))
    except BaseException:
        with contextlib.suppress(OSError):  # where others write there, too
            for folder in new:
                folder.rmdir()
        raise


def load_image_set_of(config, device):
    """The image set of a run, from the config's `data_file`. Raises BadInput where that is not the run's data."""
    path, settings = config["data_file"], config["settings"]
    if not Path(path).exists():
        raise BadInput(f"{path}: the run's image set is not there; say where it is by --data-file")
    image_set = load_once(path, device)
    if image_set.digest != settings["digest"]:
        raise BadInput(
            f"{path}: holds other data than the run's {settings['data']}, or the same normalised or held out in another"
            f" way; give --data-file"
        )
    return image_set.reporting_on(reported_split(settings))


@functools.cache
def load_once(path, device):
    """load_image_set(), once for all runs that a process works on."""
    return load_image_set(path, device)


def load_image_set(path, device="cpu"):
    """Read a prepared image set and put its tensors on the device; returns an ImageSet.

    The file is read wholly and its digest checked, so that nothing that becomes of it later changes what a run sees.
    Raises BadInput for a file that is missing, damaged or not a prepared image set, or larger than the free memory.
    """
    if Path(path).is_dir():
        raise BadInput(
            f"{path} is a folder, not a prepared image set; one of image files is prepared with:"
            f" python -m data folder --source {path} --out FILE"
        )
    device, fix = torch.device(device), "stop other programs, or prepare a smaller one"
    try:
        require_memory(Path(path).stat().st_size, path, fix)
        content, _ = read_tensors(
            path, "prepare one with: python -m data SET --out FILE (see python -m data --help)"
        )
    except FileNotFoundError:
        raise BadInput(
            f"there is no {path}; prepare it with: python -m data SET --out {path} (see --help)"
        ) from None
    content = EARLIER | content
    fault = _fault(content)
    if fault:
        raise BadInput(_not_a_set(path, fault))
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if device.type != "cpu":
        require_memory(sum(tensor.nbytes for tensor in tensors.values()), path, fix, device)
    return ImageSet(**content | {key: tensor.to(device) for key, tensor in tensors.items()})


FIELDS = dataclasses.fields(ImageSet)
# What prepared files lack that were made before there was a choice.
EARLIER = {field.name: field.default for field in FIELDS if field.default is not dataclasses.MISSING}


def _not_a_set(path, fault):
    return (
        f"{path} is not a sound image set: {fault}; prepare one with: python -m data SET --out FILE"
        f" (see python -m data --help)"
    )


def is_plain(name):
    """Whether something can be the name of a set or of a class: text without control characters that can be encoded."""
    unfit = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, separators of lines and paragraphs
    is_text = isinstance(name, str) and 0 < len(name) <= 255
    return is_text and not any(unicodedata.category(character) in unfit for character in name)


def _fault(content):
    """What is wrong with the content of a file of a prepared set, in a few words; None if nothing is."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    expected = {field.name for field in FIELDS}
    if set(content) != expected:
        missing, more = sorted(expected - set(content)), sorted(map(str, set(content) - expected))
        if missing:
            own = [name for name in content if name not in EARLIER]
            return f"it holds {', '.join(map(str, own)) or 'nothing'}, and lacks {', '.join(missing)}"
        return f"it also holds {', '.join(more)}, of a newer version perhaps"
    if (content["validation_images"] is None) != (content["validation_labels"] is None):
        return "it has validation images or their labels alone"
    splits = [split for split in SPLITS if split != VALIDATION or content["validation_images"] is not None]
    fault = _fault_of_facts(content)
    for split in splits:
        fault = fault or _fault_of_split(content, split)
    if fault:
        return fault
    if digest(content) != content["digest"]:
        return "its data do not match its digest"


def _fault_of_facts(content):
    """_fault() of all but the tensors."""
    classes, made_from = content["classes"], content["made_from"]
    if (
        not isinstance(classes, (tuple, list))
        or not classes
        or not all(map(is_plain, (content["name"], *classes)))
    ):
        return "its name or those of its classes are no plain texts"
    if not isinstance(made_from, dict):
        return f"what it was made from is a {type(made_from).__name__}"
    for key in ("mean", "std"):
        numbers = content[key]
        if not isinstance(numbers, (tuple, list)) or [type(number) for number in numbers] != [float] * 3:
            return f"its {key} is not three numbers"
        if not all(math.isfinite(number) and (key == "mean" or number > 0) for number in numbers):
            return f"its {key} is {', '.join(map(str, numbers))}"


def _fault_of_split(content, split):
    """_fault() of the images and labels of a split."""
    images, labels = content[f"{split}_images"], content[f"{split}_labels"]
    if not isinstance(images, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return f"{split} images or labels are no tensors"
    if (images.dtype, labels.dtype) != (torch.uint8, torch.int64):
        return f"{split} images are {images.dtype} and labels {labels.dtype}, not uint8 and int64"
    side = content["train_images"].shape[-1] if content["train_images"].ndim else 0
    if (
        images.ndim != 4
        or 0 in images.shape
        or images.shape[1:] != (3, side, side)
        or labels.shape != images.shape[:1]
    ):
        return f"{split} images have the shape {list(images.shape)} and labels {list(labels.shape)}"
    if labels.min() < 0 or labels.max() >= len(content["classes"]):
        return f"{split} labels go from {labels.min()} to {labels.max()}, beyond the classes"


@functools.cache  # computed anew for every batch, the copy to the device would make the host wait
def _scale_and_shift(mean, std, device):
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)


def normalise(images, mean=MEAN, std=STD):
    """(images / 255 - mean) / std: uint8 [B, 3, H, W] to float32 in channels_last, on the same device."""
    scale, shift = _scale_and_shift(mean, std, images.device)
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)


def epoch_order(seed, epoch, size):
    """The order in which an epoch visits `size` images: a permutation, int64 [size] on the CPU.

    A pure function of seed and epoch, whatever the device, so that resuming needs no stored random state.
    """
    return torch.randperm(size, generator=generator("order", seed, epoch))


def batches(images, labels, batch_size, mean=MEAN, std=STD):
    """Normalised batches (float32 [B, 3, H, W] in channels_last, int64 [B]) as stored; the last one may be smaller.

    images: uint8 [N, 3, H, W]. labels: int64 [N].
    """
    for some_images, some_labels in zip(images.split(batch_size), labels.split(batch_size)):
        yield normalise(some_images, mean, std), some_labels
