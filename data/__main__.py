"""Prepare an image set: read its original files once and write one tensor file for the training scripts."""

import data.startup  # noqa: F401 # isort: skip - before all else
import dataclasses
import os
import sys
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch.nn import functional
from torchvision.datasets import CIFAR10, CIFAR100
from tqdm import tqdm

from data.commandline import BadInput, Parser, Refused, one_line, positive_int, run
from data.device import require_memory
from data.files import open_regular, remove_strays
from data.images import (
    TEST,
    VALIDATION,
    ImageSet,
    channel_mean_and_std,
    digest,
    is_plain,
    load_image_set,
    save_image_set,
)
from data.originals import decoded, list_folder, list_tiny_imagenet, opened
from data.seeds import generator

CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}
SETS = (*CIFAR, "tiny-imagenet", "folder")
NORMALISATIONS = PAPER, OWN = "paper", "own"
LARGEST_CIFAR_FILE = 2**28  # bytes; the archives have 170 megabytes
EARLIER_MADE_FROM = {"normalise": PAPER}  # of files made before there was a choice


def main(arguments=None):
    parser = Parser(__doc__, "python -m data tiny-imagenet --source raw/tiny-imagenet-200 --classes 100")
    parser.add_argument(
        "set",
        choices=SETS,
        help="cifar10 and cifar100 are downloaded into --source unless they are there; tiny-imagenet is the"
        " unpacked folder tiny-imagenet-200; folder means image files as train/CLASS/* and test/CLASS/*, or"
        " val/CLASS/* where there is no test",
    )
    parser.add_argument("--source", type=Path, default=Path("datasets/raw"), help="folder of original files")
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write, whose stem names it; None: datasets/SET.pt, or SET-N.pt with --size N",
    )
    for flag, kept in (
        ("--classes", "classes"),
        ("--train-per-class", "training images of each class"),
        ("--test-per-class", "test images of each class"),
    ):
        parser.add_argument(flag, type=positive_int, metavar="N", help=f"keep the first N {kept}; None: all")
    parser.add_argument(
        "--size",
        type=positive_int,
        metavar="N",
        help="crop images, of any shapes, to their central squares and average these down to NxN pixels; smaller ones"
        " are refused, not enlarged; None: as they are, square and of one size",
    )
    parser.add_argument(
        "--validation-per-class",
        type=positive_int,
        metavar="N",
        help="hold out the last N of the training images of each class that --train-per-class keeps, for"
        " train.py --report validation: 500 and 50 leave 450 to train on; None: none",
    )
    parser.add_argument(
        "--normalise",
        choices=NORMALISATIONS,
        default=PAPER,
        help="what images are normalised with in training and everywhere else: paper, the paper's CIFAR-10 mean and"
        " standard deviation of each channel, or own, those of this set's training images (default: paper)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only see whether the file is there and was made with these arguments, --source apart",
    )
    chosen = parser.parse_args(arguments)

    size = f"-{chosen.size}" if chosen.size else ""
    out = chosen.out or Path("datasets") / f"{chosen.set}{size}.pt"
    limits = Limits(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(Limits)})
    _refuse_unfit_place(out)
    remove_strays(out.parent, out.suffix)
    if chosen.check or out.exists():
        image_set, wanted = load_image_set(out), describe_source(chosen.set, chosen.source, limits)
        if chosen.check:
            del wanted["source"]
        _refuse_if_different(out, image_set.made_from, wanted)
        print("already prepared")
    else:
        image_set = prepare(chosen.set, chosen.source, out.stem, limits)
        if out.exists():
            raise Refused(
                f"{out} was made meanwhile by another process; the same command says whether it is the same"
            )
        save_image_set(image_set, out)
    held_out = image_set.validation_labels
    validation = "" if held_out is None else f", {len(held_out)} validation"
    print(
        f"{one_line(str(out))}: {len(image_set.train_labels)} training{validation} and {len(image_set.test_labels)} test images,"
        f" {len(image_set.classes)} classes, {'x'.join(map(str, image_set.train_images.shape[2:]))} pixels,"
        f" digest {image_set.digest[:12]}"
    )


def _refuse_unfit_place(out):
    """Raise BadInput where no set can be written to a file, before the work of preparing it."""
    if out.is_dir():
        raise BadInput(f"{out} is a folder; name a file with --out")
    if not is_plain(out.stem):
        raise BadInput(f"--out {out}: names the set with control characters or not in UTF-8; name another file")
    folder = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"--out {out}: {folder} is no folder that can be written to; name another file")


def _refuse_if_different(out, before, now):
    before = EARLIER_MADE_FROM | before
    different = [f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]]
    if different:
        raise Refused(f"{out} was made with {'; '.join(different)}: give another --out, or remove that file first")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is made of a set: how much of it is kept, held out and normalised in which way.

    Kept are the first classes, the first images of each, and so many pixels on a side; None keeps all. A size makes every
    image square: see resized(). Held out for validation are the last ones of the training images that are kept.
    """

    classes: int | None = None
    train_per_class: int | None = None
    test_per_class: int | None = None
    size: int | None = None
    validation_per_class: int | None = None
    normalise: str = PAPER


def prepare(set_name, source, name, limits=Limits()):
    """Read an image set (one of SETS) from its original files in the folder `source`; returns an ImageSet.

    Raises BadInput, naming the file or folder at fault, for anything missing, unreadable or inconsistent.
    """
    source = Path(source)
    if set_name in CIFAR:
        classes, tensors = _read_cifar(CIFAR[set_name], source, limits)
    else:
        list_files = {"tiny-imagenet": list_tiny_imagenet, "folder": list_folder}[set_name]
        classes, tensors = _read_files(*list_files(source), limits)
    if limits.normalise == OWN:
        tensors |= own_normalisation(tensors["train_images"])
    return ImageSet(
        name=name,
        **tensors,
        classes=tuple(classes),
        digest=digest(tensors),
        made_from=describe_source(set_name, source, limits),
    )


def own_normalisation(train_images):
    """{"mean", "std"} of an ImageSet that is normalised with its own. Raises BadInput for channels that are constant."""
    mean, std = channel_mean_and_std(train_images)
    if min(std) == 0:
        raise BadInput(
            f"--normalise {OWN}: all training pixels of a channel have the same value; use {PAPER}, or add images"
        )
    return {"mean": mean, "std": std}


def describe_source(set_name, source, limits):
    """What decides the content of a prepared set, as a dictionary of plain values (ImageSet.made_from)."""
    # CIFAR's files are known by their checksums, so it does not matter where they lie.
    source = None if set_name in CIFAR else os.path.realpath(source)  # unlike resolve(), also of a circle of links
    return {"set": set_name, "source": source, **dataclasses.asdict(limits)}


def _read_cifar(dataset, source, limits):
    """Class names and the tensors of an ImageSet, in the order of CIFAR's files."""
    _refuse_unfit_cifar(dataset, source)
    try:
        splits = {"train": dataset(source, train=True, download=True), "test": dataset(source, train=False)}
    except (OSError, RuntimeError) as error:
        raise BadInput(
            f"cannot fetch {dataset.filename} ({error}); put {dataset.url} into {source} by hand"
        ) from None
    classes = _first_classes(splits["train"].classes, limits)
    tensors = {}
    for split, images in splits.items():
        labels = torch.tensor(images.targets)
        for part, kept in _kept(split, labels, classes, limits).items():
            chosen = [Image.fromarray(images.data[i]) for i in kept]
            name = f"an image of {dataset.__name__}"
            # contiguous(): stacked tensors keep the order of their dimensions in memory
            tensors[f"{part}_images"] = torch.stack([resized(i, limits.size, name) for i in chosen]).contiguous()
            tensors[f"{part}_labels"] = labels[kept]
    return classes, tensors


def _refuse_unfit_cifar(dataset, source):
    """Raise BadInput for what torchvision, which looks at names and checksums, would open or read without an end."""
    names = [*(name for name, _ in dataset.train_list + dataset.test_list), dataset.meta["filename"]]
    for path in (source / dataset.filename, *(source / dataset.base_folder / name for name in names)):
        if path.exists():
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size > LARGEST_CIFAR_FILE:
                    raise BadInput(f"{path} is much larger than that file of {dataset.__name__}; remove it")


def _read_files(classes, train, test, limits):
    """Class names and the tensors of an ImageSet from lists of files as list_folder returns them."""
    classes = _first_classes(classes, limits)
    example = train[0][0]
    parts = {}
    for split, files in (("train", train), ("test", test)):
        labels = torch.tensor([label for _, label in files])
        for part, kept in _kept(split, labels, classes, limits).items():
            # The files are listed class by class. Mixed, as CIFAR's own files are, every batch in stored order
            # holds many classes, which the measurements with train-mode batch norm on fixed batches need.
            kept = kept[torch.randperm(len(kept), generator=generator("stored-order", part))]
            parts[part] = [files[i][0] for i in kept], labels[kept]
    side = _side_of(example, limits.size)
    count = sum(len(labels) for _, labels in parts.values())
    require_memory(
        count * 3 * side**2,
        f"a set of {count} images of {side}x{side} pixels",
        "keep fewer with --train-per-class and --test-per-class, or smaller ones with --size",
    )
    tensors = {}
    for part, (paths, labels) in parts.items():
        tensors[f"{part}_images"] = _read_images(paths, example, side, limits.size)
        tensors[f"{part}_labels"] = labels
    return classes, tensors


def _first_classes(classes, limits):
    unfit = [name for name in classes if not is_plain(name)]
    if unfit:
        raise BadInput(
            f"the name of class {unfit[0]} holds control characters or is not in UTF-8; rename it in all splits"
        )
    if limits.classes is not None and limits.classes > len(classes):
        raise BadInput(f"there are only {len(classes)} classes; ask for no more with --classes")
    classes = classes[: limits.classes]
    if len(classes) < 2:
        raise BadInput(f"{classes[0]} is the only class; there must be two to tell apart: add some or keep more")
    return classes


def _kept(split, labels, classes, limits):
    """{part: indices, ascending, of the images of a split that the limits keep}.

    The part is the split itself; of `train` there is `validation`, too, where the limits hold images out from it.
    """
    per_class = {"train": limits.train_per_class, TEST: limits.test_per_class}[split]
    held_out = limits.validation_per_class if split == "train" else None
    kept = []
    for label, name in enumerate(classes):
        of_class = (labels == label).nonzero().flatten()
        if len(of_class) < (per_class or 1):
            raise BadInput(
                f"the {split} split has only {len(of_class)} images of class {name};"
                f" ask for no more with --{split}-per-class, or add images"
            )
        of_class = of_class[:per_class]
        if held_out and len(of_class) <= held_out:
            raise BadInput(
                f"--validation-per-class {held_out} leaves none of the {len(of_class)} training images of class {name}"
                " to train on; ask for fewer"
            )
        kept.append(of_class.split([len(of_class) - (held_out or 0), held_out or 0]))
    of_split, of_validation = (torch.cat(part).sort().values for part in zip(*kept))
    return {split: of_split} | ({VALIDATION: of_validation} if held_out else {})


def _side_of(path, size):
    """Pixels on a side of a set: the size or, if None, those of an image file, by its header. Raises BadInput."""
    with opened(path) as image:
        width, height = image.size
    if size is not None:
        _refuse_enlarging(width, height, size, path)
    elif height != width:
        raise BadInput(f"{path} is {width}x{height} pixels, but images must be square; give --size")
    return size or width


def _read_images(paths, example, side, size):
    """uint8 [len(paths), 3, side, side], where side is the size or, if that is None, that of the image file `example`."""
    images = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)
    for i, path in enumerate(tqdm(paths, unit=" images", disable=None)):  # None: a bar on a terminal only
        with opened(path) as image:
            if size is None and image.size != (side, side):
                raise BadInput(
                    f"{path} is {image.width}x{image.height} pixels, but {side}x{side} is expected,"
                    f" the size of {example}; remove it, or give --size"
                )
            rgb = decoded(image)
        images[i] = resized(rgb, size, path)
    return images


def resized(image, size, name):
    """A PIL image as uint8 [3, height, width], or its central square averaged down to [3, size, size].

    Each pixel is then the mean over those that it covers, wholly or in part, rounded once. name: what messages call the
    image. Raises BadInput for an image smaller than `size`: enlarged, it would have no high frequencies.
    """
    pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)
    if size is not None:
        _refuse_enlarging(image.width, image.height, size, name)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = pixels[:, top : top + side, left : left + side]
        pixels = functional.interpolate(square[None].float(), size, mode="area")[0].round().to(torch.uint8)
    return pixels


def _refuse_enlarging(width, height, size, name):
    if min(width, height) < size:
        raise BadInput(
            f"{name} is {width}x{height} pixels, which --size {size} would enlarge;"
            f" ask for {min(width, height)} at most, or remove it"
        )


if __name__ == "__main__":
    sys.argv[0] = "python -m data"  # what help and error messages call this program
    run(main, "nothing was kept; start it again")
