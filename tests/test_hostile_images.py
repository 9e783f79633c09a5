"""Damaged, odd and hostile originals of image sets: one line and exit code 2, and nothing is left behind."""

import io
import os
import resource
import struct
import sys
import time
import zlib

import numpy
import pytest
import torch
from PIL import EpsImagePlugin, Image
from torchvision.datasets import CIFAR10

from data import __main__ as preparing
from data import device
from data.__main__ import main
from data.commandline import run
from data.images import load_image_set, save_image_set


def pixels(width=8, height=8, seed=99):
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def encoded(kind, image=None, **options):
    """The bytes of an image file of a kind, as PIL calls it."""
    file = io.BytesIO()
    (image or pixels()).save(file, kind, **options)
    return file.getvalue()


def png(*chunks):
    """A PNG of chunks, (name, content), each with its checksum."""
    parts = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_of(width, height, packed):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


@pytest.fixture
def source(tmp_path):
    """A sound image folder: classes ant and bee with 3 training and 2 test images of 8x8 each."""
    root = tmp_path / "raw"
    for split, count in (("train", 3), ("test", 2)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels(seed=len(list(root.rglob("*.png")))).save(root / split / name / f"{number}.png")
    return root


def left(folder):
    """All that is in a folder, in whatever depth."""
    return sorted(str(path) for path in folder.rglob("*"))


def refused(arguments, capfd, code=2):
    """The one line with which `python -m data` refuses arguments, nothing being left behind."""
    with pytest.raises(SystemExit) as leaving:
        run(lambda: main(list(map(str, arguments))))
    message = capfd.readouterr().err
    assert leaving.value.code == code and message.count("\n") == 1 and len(message) < 1200
    assert message[:-1].isprintable() and "Traceback" not in message
    return message


def refused_folder(source, capfd, *flags):
    before = left(source.parent)
    message = refused(["folder", "--source", source, "--out", source.parent / "sets" / "a.pt", *flags], capfd)
    assert left(source.parent) == before
    return message


# Image files

BROKEN = {
    "empty.png": b"",
    "zeros.png": bytes(1000),
    "text.jpg": b"hello",
    "page.png": b"<html><body>404</body></html>",
    "signature.png": b"\x89PNG\r\n\x1a\n",
    "header-only.png": encoded("PNG")[:40],
    "cut.png": encoded("PNG")[:-30],
    "half.png": encoded("PNG")[:120],
    "cut.jpg": encoded("JPEG")[:-60],
    "cut.gif": encoded("GIF")[:-60],
    "cut.bmp": encoded("BMP")[:-60],
    "cut.tif": encoded("TIFF")[:-60],
    "cut.webp": encoded("WEBP")[:-30],
    "cut.ppm": encoded("PPM")[:-30],
    "flipped-header.png": flipped(encoded("PNG"), 18),
    "flipped-pixel.png": flipped(encoded("PNG"), 60),
    "other-sum.png": png_of(8, 8, zlib.compress(bytes(8 * 25))[:-1] + b"x"),
    "no-pixels.png": png_of(0, 8, zlib.compress(b"")),
    "no-width.ppm": b"P6 0 0 255\n",
    "negative.ppm": b"P6 -8 8 255\n" + bytes(200),
    "animated.gif": encoded("GIF", save_all=True, append_images=[pixels(seed=1)]),
    "animated.png": encoded("PNG", save_all=True, append_images=[pixels(seed=1)]),
    "animated.webp": encoded("WEBP", save_all=True, append_images=[pixels(seed=1)]),
    "pages.tif": encoded("TIFF", save_all=True, append_images=[pixels(seed=1)]),
    "deep.png": encoded("PNG", Image.fromarray(numpy.zeros((8, 8), dtype=numpy.uint16))),
    "float.tif": encoded("TIFF", Image.fromarray(numpy.zeros((8, 8), dtype=numpy.float32))),
    "int.tif": encoded("TIFF", Image.fromarray(numpy.zeros((8, 8), dtype=numpy.int32))),
    "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n",
}


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_image(source, name, size, capfd):
    path = source / "train" / "bee" / name
    path.write_bytes(BROKEN[name])
    message = refused_folder(source, capfd, *([] if size is None else ["--size", size]))
    assert message.startswith(f"{sys.argv[0]}: {path} cannot be decoded (") and "restore or remove it" in message


ODD = {
    "grey.png": encoded("PNG", pixels().convert("L")),
    "black-and-white.png": encoded("PNG", pixels().convert("1")),
    "palette.png": encoded("PNG", pixels().convert("P")),
    "transparent.png": encoded("PNG", pixels().convert("RGBA")),
    "transparent-palette.gif": encoded("GIF", pixels().convert("P"), transparency=0),
    "transparent-palette.png": encoded("PNG", pixels().convert("P"), transparency=bytes(range(256))),
    "print.jpg": encoded("JPEG", pixels().convert("CMYK")),
    "print.tif": encoded("TIFF", pixels().convert("CMYK")),
    "one-frame.gif": encoded("GIF", pixels().convert("P")),
    "jpeg-of-another-name.png": encoded("JPEG"),
    "ending-in-capitals.PNG": encoded("PNG"),
    "more-behind.png": encoded("PNG") + bytes(1000),
    "with-a-thumbnail.jpg": encoded("MPO", save_all=True, append_images=[pixels(4, 4)]),
    "caf\udce9.png": encoded("PNG"),
    "\x1b[2J\n.png": encoded("PNG"),
}


@pytest.mark.filterwarnings("ignore")  # of PIL here
@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_read(source, name, capfd):
    path = source / "train" / "bee" / name
    path.write_bytes(ODD[name])
    run(lambda: main(["folder", "--source", str(source), "--out", str(source.parent / "a.pt")]))
    image_set = load_image_set(source.parent / "a.pt")
    expected = torch.tensor(numpy.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    assert len(image_set.train_labels) == 7
    assert (image_set.train_images == expected).flatten(1).all(1).sum() == 1
    assert capfd.readouterr().err == ""


def test_names_of_files_are_escaped(source, capfd):
    (source / "train" / "bee" / "\x1b[2J\ncaf\udce9.png").write_bytes(b"")
    assert "bee/\\x1b[2J\\ncaf\\udce9.png cannot be decoded" in refused_folder(source, capfd)


@pytest.mark.parametrize("width, height", [(30000, 30000), (2**31 - 1, 2**31 - 1), (9500, 9500), (1, 2**30)])
@pytest.mark.parametrize("size", [None, 1])
def test_images_of_gigabytes_are_not_decoded(source, width, height, size, monkeypatch, capfd):
    rows = zlib.compressobj(9)
    packed = rows.compress(bytes(10**7)) + rows.flush()
    path = source / "train" / "bee" / "bomb.png"
    path.write_bytes(png_of(width, height, packed))
    assert path.stat().st_size < 20000
    monkeypatch.setattr(
        preparing, "decoded", lambda image: image.size == (8, 8) and pixels() or pytest.fail("big")
    )
    message = refused_folder(source, capfd, *([] if size is None else ["--size", size]))
    assert str(path) in message and ("could be decompression bomb" in message or f"{width}x{height}" in message)


def test_a_header_may_not_declare_another_size(source, capfd, monkeypatch):
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda image, mode: convert(image, mode).resize((9, 9)))
    assert "(other than the size that it declares)" in refused_folder(source, capfd)


# What is no file


def pipe(path):
    os.mkfifo(path)
    return "is no regular file"


def endless(path):
    path.symlink_to("/dev/zero")
    return "is no regular file"


def silent(path):
    path.symlink_to("/dev/null")
    return "is no regular file"


def link_to_nothing(path):
    path.symlink_to("nothing")
    return "No such file or directory"


def link_to_itself(path):
    path.symlink_to(path)
    return "Too many levels of symbolic links"


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(2**40)
    return "no image file that PIL knows"


NO_FILES = [pipe, endless, silent, link_to_nothing, link_to_itself, sparse]


def test_no_program_is_started_for_an_image(source, capfd, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("is started"))
    path = source / "train" / "bee" / "program.eps"
    path.write_bytes(BROKEN["program.png"])
    main(["folder", "--source", str(source), "--out", str(source.parent / "a.pt")])
    assert f"1 files with names not of images are skipped, such as {path}" in capfd.readouterr().out
    path.rename(path.with_suffix(".png"))
    (source.parent / "a.pt").unlink()
    assert "program.png cannot be decoded (no image file that PIL knows)" in refused_folder(source, capfd)


@pytest.mark.parametrize("make", NO_FILES)
def test_image_that_is_no_file(source, make, capfd):
    path = source / "test" / "ant" / "x.png"
    reason = make(path)
    began = time.monotonic()
    message = refused_folder(source, capfd)
    assert f"{path}" in message and reason in message and time.monotonic() - began < 5


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("make", NO_FILES)
def test_list_that_is_no_file(tmp_path, make, split, capfd):
    for split_folder in ("train/n01", "train/n02", "val/images"):
        (tmp_path / "raw" / split_folder).mkdir(parents=True)
        (tmp_path / "raw" / split_folder / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "raw" / "wnids.txt").write_text("n01\nn02\n")
    path = tmp_path / "raw" / ("wnids.txt" if split == "train" else "val/val_annotations.txt")
    path.unlink(missing_ok=True)
    reason = make(path)
    before = left(tmp_path)
    message = refused(["tiny-imagenet", "--source", tmp_path / "raw", "--out", tmp_path / "a.pt"], capfd)
    assert str(path) in message and (reason in message or "too long for a list" in message)
    assert left(tmp_path) == before


@pytest.mark.parametrize("make", [pipe, endless, silent])
@pytest.mark.parametrize("name", [CIFAR10.filename, f"{CIFAR10.base_folder}/data_batch_3"])
def test_archive_that_is_no_file(tmp_path, make, name, capfd):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    reason = make(path)
    message = refused(["cifar10", "--source", tmp_path, "--out", tmp_path / "a.pt"], capfd)
    assert f"{path}" in message and reason in message


def test_archive_that_never_ends(tmp_path, capfd):
    sparse(tmp_path / CIFAR10.filename)
    message = refused(["cifar10", "--source", tmp_path, "--out", tmp_path / "a.pt"], capfd)
    assert f"{tmp_path / CIFAR10.filename} is much larger than that file of CIFAR10; remove it" in message


@pytest.mark.parametrize("make", [pipe, endless, silent])
def test_set_that_is_no_file(source, make, capfd):
    out = source.parent / "a.pt"
    reason = make(out)
    message = refused(["folder", "--source", source, "--out", out], capfd)
    assert f"{out}" in message and reason in message
    assert not out.is_file()


# Folders


def circle(root):
    (root / "train" / "ant" / "again").symlink_to(root / "train" / "ant")
    return "ant/again is a folder that is also met elsewhere"


def circle_of_all(root):
    (root / "train" / "ant" / "again").symlink_to(root)
    return "again/train/ant is a folder that is also met elsewhere"


def bomb_of_links(root):
    folders = [root / "links" / str(number) for number in range(30)]
    for folder, following in zip(folders, [*folders[1:], root / "test" / "ant"]):
        folder.mkdir(parents=True)
        (folder / "left").symlink_to(following)
        (folder / "right").symlink_to(following)
    (root / "train" / "bee" / "links").symlink_to(folders[0])
    return "is a folder that is also met elsewhere"


def one_folder_twice(root):
    for split in ("train", "test"):
        (root / split / "cat").symlink_to(root / split / "ant")
    return "train/cat is a folder that is also met elsewhere"


def empty_class(root):
    for split in ("train", "test"):
        (root / split / "cat").mkdir()
    return "train/cat has no image files in it"


def class_of_other_files(root):
    for split in ("train", "test"):
        (root / split / "cat").mkdir()
        (root / split / "cat" / "notes.txt").write_text("none")
    return "train/cat has no image files in it"


def class_without_test_images(root):
    for path in (root / "test" / "ant").iterdir():
        path.unlink()
    return "test/ant has no image files in it"


def one_class(root):
    (root / "train" / "bee").rename(root / "bee")
    (root / "test" / "bee").rename(root / "bee" / "test")
    return "ant is the only class; there must be two"


def class_in_test_alone(root):
    (root / "test" / "cat").mkdir()
    (root / "test" / "cat" / "0.png").write_bytes(encoded("PNG"))
    return "cat (one of 1 such) is in "


def files_alone(root):
    for folder in (root / "train").iterdir():
        folder.rename(root / folder.name)
    (root / "train" / "0.png").write_bytes(encoded("PNG"))
    return "there is no class folder in "


def file_in_place_of_a_split(root):
    (root / "train").rename(root / "elsewhere")
    (root / "train").write_text("none")
    return "there is no folder "


def named(name, shown):
    def rename(root):
        for split in ("train", "test"):
            (root / split / "bee").rename(root / split / name)
        return f"the name of class {shown} holds control characters or is not in UTF-8"

    return rename


@pytest.mark.parametrize(
    "damage",
    [
        circle,
        circle_of_all,
        bomb_of_links,
        one_folder_twice,
        empty_class,
        class_of_other_files,
        class_without_test_images,
        one_class,
        class_in_test_alone,
        files_alone,
        file_in_place_of_a_split,
        named("\x1b[2Jbee", "\\x1b[2Jbee"),
        named("bee\n", "bee\\n"),
        named("b\u2028e", "b\\u2028e"),
        named("caf\udce9", "caf\\udce9"),
    ],
)
def test_odd_folder(source, damage, capfd):
    said = damage(source)
    assert said in refused_folder(source, capfd)


def test_folder_that_cannot_be_read(source, capfd, monkeypatch):
    scan = os.scandir

    def denied(path):
        if str(path).endswith("ant"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SystemExit) as leaving:
        run(lambda: main(["folder", "--source", str(source), "--out", str(source.parent / "a.pt")]))
    message = capfd.readouterr().err
    assert leaving.value.code == 2 and message.count("\n") == 1
    assert f"{source / 'train' / 'ant'} cannot be read (Permission denied); make it readable" in message


def test_links_to_folders_and_plain_foreign_names_are_followed(source, capfd):
    for split in ("train", "test"):
        (source / split / "bee").rename(source / f"{split}-bee")
        (source / split / "пчела 蜂 \u200cé").symlink_to(source / f"{split}-bee")
    main(["folder", "--source", str(source), "--out", str(source.parent / "é\udce9" / "é.pt")])
    image_set = load_image_set(source.parent / "é\udce9" / "é.pt")
    assert image_set.classes == ("ant", "пчела 蜂 \u200cé") and image_set.name == "é"
    assert len(image_set.train_labels) == 6


# Numbers


@pytest.mark.parametrize("number", [0, -1, 10**30, "9" * 4000, "9" * 5000, "1e3", "nan", ""])
@pytest.mark.parametrize("flag", ["--size", "--classes", "--train-per-class", "--test-per-class"])
def test_odd_numbers(source, flag, number, capfd):
    message = refused_folder(source, capfd, flag, number)
    assert flag in message


@pytest.mark.parametrize("number", [3, 4, 10**15])
def test_more_held_out_than_there_are(source, number, capfd):
    message = refused_folder(source, capfd, "--validation-per-class", number)
    assert f"--validation-per-class {number} leaves none of the 3 training images of class ant" in message


def test_keeping_one_class_is_refused(source, capfd):
    assert "ant is the only class" in refused_folder(source, capfd, "--classes", 1)


def test_a_set_larger_than_the_memory_is_not_begun(source, capfd, monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda _: 10 * 3 * 64 - 1)
    monkeypatch.setattr(preparing, "_read_images", lambda *_: pytest.fail("is read"))
    message = refused_folder(source, capfd)
    assert "a set of 10 images of 8x8 pixels takes 0.0 GiB of memory" in message and "--train-per-class" in message


# Where it is written


def folder_in_its_place(out):
    out.mkdir(parents=True)
    return "is a folder; name a file with --out"


def file_above(out):
    out.parent.write_text("a file")
    return "is no folder that can be written to"


def link_above(out):
    out.parent.symlink_to("nowhere")
    return "is no folder that can be written to"


@pytest.mark.parametrize("make", [folder_in_its_place, file_above, link_above])
def test_places_where_nothing_can_be_written(source, make, capfd, monkeypatch):
    monkeypatch.setattr(preparing, "prepare", lambda *_: pytest.fail("is prepared before"))
    reason = make(source.parent / "sets" / "a.pt")
    assert reason in refused_folder(source, capfd)


def test_folder_that_may_not_be_written_to(source, capfd, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != source.parent)
    monkeypatch.setattr(preparing, "prepare", lambda *_: pytest.fail("is prepared before"))
    assert f"{source.parent} is no folder that can be written to" in refused_folder(source, capfd)


@pytest.mark.parametrize(
    "name, shown", [("\x1b[2J.pt", "\\x1b[2J.pt"), ("caf\udce9.pt", "caf\\udce9.pt"), ("a\n.pt", "a\\n.pt")]
)
def test_names_that_no_set_may_have(source, name, shown, capfd):
    before = left(source.parent)
    message = refused(["folder", "--source", source, "--out", source.parent / name], capfd)
    assert f"{shown}: names the set with control characters or not in UTF-8" in message
    assert left(source.parent) == before


def test_names_that_are_too_long(source, capfd):
    before = left(source.parent)
    for name in ("x" * 300, "x" * 250 + ".pt", "x/" * 3000):
        assert "File name too long" in refused(
            ["folder", "--source", source, "--out", source.parent / name], capfd
        )
    assert left(source.parent) == before


def test_full_disk(source, capfd):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    before = left(source.parent)
    try:
        message = refused(["folder", "--source", source, "--out", source.parent / "sets" / "a.pt"], capfd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{source.parent / 'sets' / 'a.pt'}: cannot be written (File too large); make room there" in message
    assert left(source.parent) == before


def test_source_that_is_a_circle_of_links(source, capfd):
    out = source.parent / "a.pt"
    main(["folder", "--source", str(source), "--out", str(out)])
    (source.parent / "circle").symlink_to("circle")
    assert "there is no folder" in refused(
        ["folder", "--source", source.parent / "circle", "--out", f"{out}2"], capfd
    )
    message = refused(["folder", "--source", source.parent / "circle", "--out", out], capfd, code=3)
    assert f"source {source}, not {source.parent / 'circle'}" in message


def test_messages_about_a_set_of_somebody_else_are_escaped(source, capfd):
    out = source.parent / "a.pt"
    main(["folder", "--source", str(source), "--out", str(out)])
    image_set = load_image_set(out)
    image_set.made_from["source"] = "\x1b[2J\n" + "x" * 5000
    save_image_set(image_set, out)
    assert "source \\x1b[2J\\nxxx" in refused(["folder", "--source", source, "--out", out], capfd, code=3)
