"""Files that are never seen half-written or changed unnoticed: tensors with a digest, and strict JSON."""

import errno
import fcntl
import hashlib
import json
import math
import os
import pickle
import resource
import signal
import zipfile

import pytest
import torch

from data.commandline import BadInput
from data.files import (
    digest_of,
    open_regular,
    read_json,
    read_tensors,
    remove_strays,
    write_atomically,
    write_json,
    write_tensors,
)


def refuse(word):
    raise AssertionError(f"{word} is not JSON")


def rewritten(path, content):
    write_json(path, content)
    return json.loads(path.read_text(), parse_constant=refuse)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "value, written",
    [
        (NAN, None),
        (-INF, None),
        ([1.5, [INF, 2], (NAN,)], [1.5, [None, 2], [None]]),
        ({"loss": {"test": NAN}}, {"loss": {"test": None}}),
        (torch.tensor([[1.0, NAN], [INF, -INF]]), [[1.0, None], [None, None]]),
        ([torch.tensor([NAN]), None], [[None], None]),
        (torch.tensor(True), True),
        (torch.tensor([3, 2**40]), [3, 2**40]),
        (torch.tensor(0.25), 0.25),
        ([True, "NaN", 0, 1e-300], [True, "NaN", 0, 1e-300]),
        ({2: "window"}, {"2": "window"}),
    ],
)
def test_json_is_strict(tmp_path, value, written):
    result = rewritten(tmp_path / "a.json", {"value": value})["value"]
    assert result == written and type(result) is type(written)


def test_tensors_are_rounded_to_seven_digits_and_numbers_are_not(tmp_path):
    values = [1 / 3, 2 / 3 * 1e-9, 12345678.9, -0.1]
    content = rewritten(tmp_path / "a.json", {"tensor": torch.tensor(values), "numbers": values})
    assert content["tensor"] == [0.3333333, 6.666667e-10, 12345680.0, -0.1]
    assert content["numbers"] == values


def test_rounded_float32_numbers_are_those_to_within_a_last_digit(tmp_path):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).exp()
    written = torch.tensor(rewritten(tmp_path / "a.json", {"x": values})["x"], dtype=torch.float64)
    assert ((written - values.double()) / values).abs().max() <= 5e-7


def test_a_line_for_every_key(tmp_path):
    write_json(tmp_path / "a.json", {"one": [1, 2], "two": {"three": 3}})
    assert (tmp_path / "a.json").read_text() == '{\n"one": [1, 2],\n"two": {"three": 3}\n}\n'


def test_read_json_gives_back_what_was_written(tmp_path):
    content = {"text": "ä\n", "numbers": [1, 0.1, None], "nested": {"empty": {}}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


NOT_STRICT = [
    b'[[],{"a":' * 60 + b"1" + b"}]" * 60,
    b"[1" + b"0" * 400 + b"]",
    b'{"a": NaN}',
    b"[-Infinity]",
    b'{"a": 1, "a": 1}',
    b"[1e999]",
    b"[" * 10**5,
    b"[1" + b"0" * 5000,
]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1} x', *NOT_STRICT])
def test_read_json_of_something_else(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInput, match=f"^{tmp_path}/a.json: is not valid JSON") as raised:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(raised.value)


def test_what_is_nested_as_measurements_are_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ' + "[" * 90 + "]" * 90 + ', "]]": "[[["}')
    assert read_json(tmp_path / "a.json")["]]"] == "[[["


def test_read_json_of_no_file(tmp_path):
    with pytest.raises(BadInput, match="none.json: cannot be read"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("read", [read_json, lambda path: read_tensors(path, "")])
def test_what_might_never_end_is_not_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(BadInput, match=f"^{path}: is no regular file"):
            read(path)


# At once or not at all


class Killed(BaseException):
    pass


def fail_in_write(monkeypatch):
    def write(file):
        file.write(b"new, but not")
        raise Killed

    return write


def fail_in(name):
    def prepare(monkeypatch):
        def fail(*_):
            raise Killed

        monkeypatch.setattr(os, name, fail)
        return lambda file: file.write(b"new")

    return prepare


@pytest.mark.parametrize("failure", [fail_in_write, fail_in("fsync"), fail_in("replace")])
@pytest.mark.parametrize("old", [None, b"old"])
def test_failing_write_leaves_what_was_there(tmp_path, monkeypatch, failure, old):
    path = tmp_path / "a"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(Killed):
        write_atomically(path, failure(monkeypatch))
    assert (path.read_bytes() if path.exists() else None) == old
    monkeypatch.undo()
    write_atomically(path, lambda file: file.write(b"newer"))
    assert path.read_bytes() == b"newer" and os.listdir(tmp_path) == ["a"]


def killed_while_writing(path):
    """Leave what write_atomically() leaves where the process is killed."""
    process = os.fork()
    if process == 0:
        try:
            write_atomically(path, lambda file: os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(1)
    os.waitpid(process, 0)
    return path.parent / f".{path.name}.{process}.tmp"


def test_strays_of_killed_processes_are_removed(tmp_path):
    others = [".a.json.12.tmp", ".a.pt.x.tmp", "a.pt.12.tmp", ".a.pt.12", ".a.pt.12.tmp.old", ".pt.12.tmp"]
    for name in others:
        (tmp_path / name).write_text("something else")
    strays = [killed_while_writing(tmp_path / name) for name in ("a.pt", "b.pt")]
    assert all(stray.exists() for stray in strays)
    remove_strays(tmp_path, ".pt")
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    remove_strays(tmp_path / "none", ".pt")
    strays = [killed_while_writing(tmp_path / name) for name in ("a.pdf", "b.png")]
    remove_strays(tmp_path, ".pdf", ".png")
    assert sorted(os.listdir(tmp_path)) == sorted(others) and len({*strays}) == 2


def test_pipes_named_like_strays_are_left_alone(tmp_path):
    os.mkfifo(tmp_path / ".a.pt.12.tmp")
    stray = killed_while_writing(tmp_path / "z.pt")
    remove_strays(tmp_path, ".pt")
    assert (tmp_path / ".a.pt.12.tmp").is_fifo() and not stray.exists()


def test_files_that_are_being_written_are_no_strays(tmp_path):
    stray = killed_while_writing(tmp_path / "killed.pt")

    def write(file):
        remove_strays(tmp_path, ".pt")
        assert os.fstat(file.fileno()).st_nlink == 1 and not stray.exists()
        file.write(b"new")

    write_atomically(tmp_path / "a.pt", write)
    assert (tmp_path / "a.pt").read_bytes() == b"new" and os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("made", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_not_replaced(made, tmp_path):
    made(tmp_path / "out")
    with pytest.raises(BadInput, match="out: is no regular file; name another place"):
        write_atomically(tmp_path / "out", lambda file: file.write(b"new"))
    assert not (tmp_path / "out").is_file() and os.listdir(tmp_path) == ["out"]


def test_folders_that_cannot_be_locked_are_written_to(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    stray = killed_while_writing(tmp_path / "a.pt")
    monkeypatch.setattr(fcntl, "flock", fail)
    write_atomically(tmp_path / "a.pt", lambda file: file.write(b"new"))
    remove_strays(tmp_path, ".pt")
    assert (tmp_path / "a.pt").read_bytes() == b"new" and stray.exists()


def test_new_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path, events = tmp_path / "a", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(("fsync", os.fstat(file).st_size)), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append(("replace", path.exists())), replace(*names)))
    write_atomically(path, lambda file: file.write(b"1234"))
    assert events == [("fsync", 4), ("replace", False)]


@pytest.mark.parametrize("write", [write_json, write_tensors])
def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "a"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(BadInput, match=f"^{path}: cannot be written .File too large.; make room") as raised:
            write(path, {"a": torch.zeros(10000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value) and path.read_text() == "old"


def test_missing_folder_is_one_line(tmp_path):
    with pytest.raises(BadInput, match="none/a.json: cannot be written .No such file or directory."):
        write_json(tmp_path / "none" / "a.json", {})


def test_errors_that_are_no_fault_of_the_disk_pass_through(tmp_path):
    def write(file):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_atomically(tmp_path / "a", write)


# What is no regular file


def test_pipes_and_devices_are_not_opened(tmp_path, monkeypatch):
    """Opening a pipe lets those go on that wait to write into it; opening some devices has effects of its own."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it is opened"))
    for path in (tmp_path / "pipe", "/dev/null", tmp_path):
        with pytest.raises(BadInput, match="is no regular file; name one"):
            open_regular(path)


def test_what_becomes_a_pipe_before_it_is_opened_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    as_before = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: as_before)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BadInput, match="is no regular file; name one"):
        open_regular(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == descriptors


# Tensors


def solution():
    weights = torch.tensor([[1.0, math.pi]])
    return {
        "step": 3,
        "weights": weights,
        "averages": {2: torch.zeros(1)},
        "none": torch.zeros(0),
        "list": [1.5, 2],
    }


def test_tensors_are_read_as_written_and_load_as_weights_only(tmp_path):
    write_tensors(tmp_path / "a.pt", solution())
    content, digest = read_tensors(tmp_path / "a.pt", "")
    torch.testing.assert_close(content, solution(), rtol=0, atol=0)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert loaded.pop("sha256") == digest
    torch.testing.assert_close(loaded, solution(), rtol=0, atol=0)


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "a.pt"
    write_tensors(path, solution())
    sound = path.read_bytes()
    refused = 0
    for position in range(0, len(sound), 3):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << position % 8]) + sound[position + 1 :])
        try:
            content, _ = read_tensors(path, "make it again")
        except BadInput as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and str(error).endswith("; make it again")
        else:  # a bit that means nothing: padding, a date
            torch.testing.assert_close(content, solution(), rtol=0, atol=0)
    assert refused > len(sound) / 3 * 0.1


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    write_tensors(path, solution())
    sound = path.read_bytes()
    for length in range(0, len(sound), 16):
        path.write_bytes(sound[:length])
        with pytest.raises(BadInput):
            read_tensors(path, "")


def test_of_earlier_files_the_digest_is_computed(tmp_path):
    torch.save(solution(), tmp_path / "a.pt")
    for wholly in (True, False):
        content, digest = read_tensors(tmp_path / "a.pt", "", wholly)
        assert digest == digest_of(solution()) and content.keys() == solution().keys()


def test_mapped_files_give_the_digest_as_it_stands_there(tmp_path):
    write_tensors(tmp_path / "a.pt", solution())
    content, digest = read_tensors(tmp_path / "a.pt", "", wholly=False)
    assert digest == digest_of(solution())
    torch.testing.assert_close(content, solution(), rtol=0, atol=0)
    torch.save(solution() | {"sha256": "of others"}, tmp_path / "a.pt")
    assert read_tensors(tmp_path / "a.pt", "", wholly=False)[1] == "of others"
    with pytest.raises(BadInput, match="do not match their digest"):
        read_tensors(tmp_path / "a.pt", "")


def test_digests_differ_where_contents_do():
    contents = [
        {"a": torch.zeros(2)},
        {"b": torch.zeros(2)},
        {"a": torch.zeros(2, 1)},
        {"a": torch.zeros(2, dtype=torch.int32)},
        {"a": torch.tensor([0.0, -0.0])},
        {"a": [torch.zeros(1), torch.zeros(1)]},
        {"a": {"b": 1}},
        {"a": {"b": 1.0}},
        {"a": {"b": "1"}},
        {"a": {"b": None}},
        {"a": {}, "b": 1},
        {1: "a"},
        {"1": "a"},
    ]
    assert len({digest_of(content) for content in contents}) == len(contents)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    view = torch.arange(6.0).view(2, 3).t()
    assert digest_of({"a": view}) == digest_of({"a": view.contiguous()})


def test_a_digest_is_the_sha256_of_what_is_written_down_here():
    text = b"dictionary 1\nstr 3\n'a'tensor torch.uint8 [2]\n\x01\x02"
    assert digest_of({"a": torch.tensor([1, 2], dtype=torch.uint8)}) == hashlib.sha256(text).hexdigest()


def declared_gigabytes(path):
    torch.save({"weights": torch.zeros(1).expand(10**9)}, path)


def many_names_for_one_tensor(path):
    weights = torch.zeros(10**5)
    torch.save({"weights": [weights] * 1000}, path)


def rewrite(path, change=lambda name, content: content, compression=zipfile.ZIP_STORED):
    """Change the parts of a file of torch.save()."""
    with zipfile.ZipFile(path) as file:
        entries = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, change(name, content))


def compressed(path):
    torch.save({"weights": torch.zeros(10**6)}, path)
    rewrite(path, compression=zipfile.ZIP_DEFLATED)


def more_numbers_than_are_there(path):
    """Of a tensor of 1000 numbers the file holds 3."""
    torch.save({"weights": torch.zeros(1000)}, path)
    rewrite(path, lambda name, content: content[:12] if name.endswith("data/0") else content)


def more_than_the_file_holds(path):
    torch.save({"weights": torch.zeros(3)}, path)
    declared = pickle.dumps(3, 2)[2:-1], pickle.dumps(2**28, 2)[2:-1]
    rewrite(path, lambda name, content: content.replace(b"%stq" % declared[0], b"%stq" % declared[1], 1))


def nested_lists(path):
    """Lists of lists of the same lists, which to walk takes for ever."""
    nested = []
    for _ in range(40):
        nested = [nested, nested]
    torch.save({"weights": torch.zeros(3), "nested": nested}, path)


def made_when_read(path):
    """A pickle that asks for an array of 10 GB."""

    class Large:
        def __reduce__(self):
            return bytearray, (10**10,)

    torch.save({"weights": torch.zeros(3), "large": Large()}, path)


def without_numbers(path):
    torch.save({"weights": torch.zeros(3, device="meta")}, path)


def sparse(path):
    torch.save({"weights": torch.zeros(3, 3).to_sparse()}, path)


@pytest.mark.parametrize(
    "write",
    [
        declared_gigabytes,
        many_names_for_one_tensor,
        compressed,
        without_numbers,
        sparse,
        more_numbers_than_are_there,
        more_than_the_file_holds,
        nested_lists,
        made_when_read,
    ],
)
def test_files_that_declare_more_than_they_hold_are_refused(tmp_path, write):
    write(tmp_path / "a.pt")
    with pytest.raises(BadInput, match="^.*a.pt: .*; make it again$"):
        read_tensors(tmp_path / "a.pt", "make it again")
