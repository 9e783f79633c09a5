"""The original files of image sets: where they lie, in folders that may hold anything, and how they are opened."""

import contextlib
import functools
import os
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data.commandline import BadInput, one_line
from data.files import open_regular

LARGEST_LIST = 2**26  # bytes of a text file of names; Tiny ImageNet's have half a megabyte


def list_folder(source):
    """Image files of train/<class>/... and test/<class>/...: (class names, train files, test files).

    Where there is no test/, val/ is taken for it. Class names are sorted. Files are (path, label) pairs, sorted by class
    and then by name. Raises BadInput.
    """
    test_folder = source / "test"
    if not test_folder.is_dir() and (source / "val").is_dir():
        test_folder = source / "val"
    classes, train = _list_split(source / "train")
    test_classes, test = _list_split(test_folder)
    _require_same_names(classes, source / "train", test_classes, test_folder)
    return classes, train, test


def list_tiny_imagenet(source):
    """Image files of Tiny ImageNet in its original layout, its validation split being the test split.

    Returns (class names, train files, test files) as list_folder does; the classes are the sorted wnids.
    """
    wnids = sorted(set(_read_lines(source / "wnids.txt")))
    classes, train = _list_split(source / "train")
    _require_same_names(wnids, source / "wnids.txt", classes, source / "train")
    return wnids, train, _list_tiny_imagenet_validation(source / "val", wnids)


def _list_tiny_imagenet_validation(folder, wnids):
    annotations, images = folder / "val_annotations.txt", folder / "images"
    labels = {}  # by file name
    for number, line in enumerate(_read_lines(annotations), start=1):
        file, wnid = (line.split("\t") + [""])[:2]  # a bounding box follows
        if wnid not in wnids:
            raise BadInput(f"{annotations} line {number}: class {wnid!r} is not in wnids.txt; restore them")
        labels[file] = wnids.index(wnid)
    present = [entry.name for entry in images.iterdir()] if images.is_dir() else []
    _require_same_names(labels, annotations, present, images)
    files = [(str(images / file), label) for file, label in labels.items()]
    return sorted(files, key=lambda file: (file[1], file[0]))


def _read_lines(path):
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_LIST + 1)
        if len(content) > LARGEST_LIST:
            raise ValueError("too long for a list of names")
        return content.decode().splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} ({error}); --source must be the unpacked tiny-imagenet-200") from None


def _list_split(folder):
    """(class names, files) of <folder>/<class>/...: sorted, the files as (path, label), of every type that PIL can read.

    Raises BadInput.
    """
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}; give the folder that holds the splits as --source")
    endings, _ = _image_types()
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not classes:
        raise BadInput(f"there is no class folder in {folder}; each class needs a folder of image files")
    files, skipped, seen = [], [], set()
    for label, name in enumerate(classes):
        images = []
        for path in _files_below(folder / name, seen):
            (images if Path(path).suffix.lower() in endings else skipped).append(path)
        if not images:
            raise BadInput(f"{folder / name} has no image files in it; add some, or remove it")
        files += [(path, label) for path in images]
    if skipped:
        print(
            one_line(f"{folder}: {len(skipped)} files with names not of images are skipped, such as {skipped[0]}")
        )
    return classes, files


def _files_below(top, seen):
    """Paths of all files below a folder, sorted by folder and then by name. Links are followed.

    seen: what identifies the folders seen so far, to which these are added. Raises BadInput for a folder that cannot be
    read, or that links lead to again: its images would count twice, or for ever.
    """

    def refuse(error):
        raise BadInput(f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it")

    found = []
    for folder, _, names in os.walk(top, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            raise BadInput(f"{folder} is a folder that is also met elsewhere, by a link; remove the link")
        seen.add((status.st_dev, status.st_ino))
        found.append((folder, sorted(names)))
    return [os.path.join(folder, name) for folder, names in sorted(found) for name in names]


@functools.cache
def _image_types():
    """(endings of names, PIL's formats) of the images that it can read; not EPS, for which it starts another program."""
    endings = Image.registered_extensions()  # after which PIL knows its formats
    readable = [kind for kind in Image.OPEN if kind != "EPS"]
    return {ending for ending, kind in endings.items() if kind in readable}, readable


def _require_same_names(first, first_place, second, second_place):
    for names, place, others, other_place in (
        (first, first_place, second, second_place),
        (second, second_place, first, first_place),
    ):
        missing = sorted(set(names) - set(others))
        if missing:
            raise BadInput(
                f"{missing[0]} (one of {len(missing)} such) is in {place} but not in {other_place};"
                " restore or remove it in one of them"
            )


@contextlib.contextmanager
def opened(path):
    """An image file of which only the header is read so far, as a PIL image; errors within become BadInput."""
    _, formats = _image_types()
    try:
        # PIL would map a file that it opens itself into memory: then it is gone, with the process, where that is cut.
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what has no part in the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=formats) as image:
                yield image
    except BadInput:
        raise
    except Exception as error:  # PIL's decoders raise all kinds of errors on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "no image file that PIL knows"
        raise BadInput(f"{path} cannot be decoded ({reason}); restore or remove it") from None


def decoded(image):
    """A PIL image in RGB. Raises ValueError, and whatever PIL does."""
    if image.mode[0] in "IF":  # PIL would clip them to 8 bits
        raise ValueError(f"more than 8 bits per channel, mode {image.mode}")
    if image.format not in ("MPO", "PSD") and getattr(image, "is_animated", False):  # those have one main image
        raise ValueError(f"{image.n_frames} images in one file")
    declared = image.size
    rgb = image.convert("RGB")
    if rgb.size != declared:
        raise ValueError("other than the size that it declares")
    return rgb
