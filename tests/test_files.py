"""Files that are never seen half-written, and strict JSON."""

import json
import math
import os
import resource

import pytest
import torch

from data.commandline import BadInput
from data.files import read_json, write_atomically, write_json, write_tensors


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


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1} x'])
def test_read_json_of_something_else(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInput, match=f"^{tmp_path}/a.json: is not valid JSON") as raised:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["none.json", "."])
def test_read_json_of_no_file(tmp_path, name):
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(tmp_path / name)


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


def test_tensors_load_as_weights_only(tmp_path):
    content = {"step": 3, "weights": torch.tensor([[1.0, math.pi]]), "averages": {2: torch.zeros(1)}}
    write_tensors(tmp_path / "a.pt", content)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.testing.assert_close(loaded, content, rtol=0, atol=0)
