"""Whatever is typed, a script does its work or says in one line why not: no traceback, nothing made, exit code 2 or 3.

Each example is a command that works, with one flag or one file of another value. Training stops where it would begin.
"""

import contextlib
import functools
import io
import itertools
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_runs import TICKS, call, pretraining, write_image_set

import analyze
import finetune
import swa
import train
from data import __main__ as prepare
from data import commandline

ROOT = Path(__file__).parent.parent
SCRIPTS = {"train": train, "finetune": finetune, "swa": swa, "analyze": analyze, "prepare": prepare}
COMMANDS = {
    "train ticks": ["train", *TICKS, "--steps", 5, "--out", "new"],
    "train images": ["train", *pretraining("images", Path(".")), "--steps", 2, "--out", "new"],
    "finetune ticks": ["finetune", "sweep/ticks", "--lr", 1e-4, "--steps", 5, "--out", "new"],
    "finetune images": ["finetune", "sweep/images", "--lr", 1e-4, "--steps", 2, "--out", "new"],
    "swa ticks": ["swa", "sweep/ticks", "--windows", 2, "--spacing", 5, "--out", "new"],
    "swa images": ["swa", "sweep/images", "--windows", 2, "--out", "new"],
    "runs": ["analyze", "runs", "sweep"],
    "claims": ["analyze", "claims", "sweep/ticks"],
    "boundary": ["analyze", "boundary", "sweep/ticks"],
    "next-lr": ["analyze", "next-lr", "sweep/ticks"],
    "band": ["analyze", "band", "sweep/ticks"],
    "test": ["analyze", "test", "sweep/images"],
    "curves": ["analyze", "curves", "sweep/images", "--out", "new"],
    "figures": ["analyze", "figures", "sweep/ticks", "--only", 4, "--out", "new"],
    "features": ["analyze", "features", "sweep/ticks"],
    "geometry": ["analyze", "geometry", "sweep/ticks"],
    "bands": ["analyze", "bands", "sweep/images"],
    "norms": ["analyze", "norms", "sweep/images"],
    "sharpness": ["analyze", "sharpness", "sweep/images", "--end", "--images", 4, "--probes", 2],
    "draw": ["analyze", "draw", "figure04.json"],
    "prepare": ["prepare", "folder", "--source", "images", "--out", "set.pt"],
}
HOSTILE = [
    "", " ", "-", "--", "0", "-1", "-0.0", "nan", "inf", "-inf", "1e-320", "1e308", "1e309", "9" * 400, "0x10", "1_000", "١",
    "x", "x" * 5000, "é", "\udcff", "\x1b[2J\r", "a\nb", ".",   "/dev/zero", "fifo",
    "@", "@.", "@fifo", "@/dev/zero", "@loop", "~", "*", "[", "meta", "mps", "xpu", "cuda:99", "cpu:1", "10000000", "sweep",
    "sweep/ticks", "sweep/ticks/config.json", "tiny.pt", "damaged",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=20),
    st.integers().map(str),
    st.floats().map(str),
)


class Begins(Exception):
    """Training would begin now."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands are given."""
    folder = tmp_path_factory.mktemp("properties")
    write_image_set(folder / "tiny.pt")
    for kind in ("ticks", "images"):
        assert call("train", *pretraining(kind, folder), "--steps", 2, "--out", folder / "sweep" / kind) == 0
    for split in ("train", "test"):
        for number in range(4):
            path = folder / f"images/{split}/{number % 2}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    os.mkfifo(folder / "fifo")
    (folder / "loop").write_text("@loop")
    (folder / "damaged").write_bytes((folder / "tiny.pt").read_bytes()[:-100])
    os.chdir(folder)
    assert give("analyze", "figures", "sweep/ticks", "--only", 4, "--out", ".") == (0, [])
    os.chdir(ROOT)
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    def begin(*_, **__):
        raise Begins

    monkeypatch.chdir(folder)
    for module in (train, swa):
        monkeypatch.setattr(module, "train", begin)
    monkeypatch.setattr(analyze, "measure_all", begin)
    monkeypatch.setattr(commandline, "silence", lambda: None)  # the output is that of the tests


@functools.cache
def flags(name):
    """The flags of a command, by its help."""
    script, *rest = COMMANDS[name]
    words = list(itertools.takewhile(lambda word: not str(word).startswith("-"), rest))
    subcommand = words[:1] if script == "analyze" else []
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert give(script, *subcommand, "--help")[0] == 0
    return sorted({*re.findall(r"--[a-z][a-z-]+", shown.getvalue())} - {"--help"})


def give(script, *arguments):
    """(exit code, lines on stderr) of a command; 0 where training or measuring would begin."""
    argv = mock.patch.object(sys, "argv", [f"{script}.py", *map(str, arguments)])
    with argv, contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            commandline.run(SCRIPTS[script].main)
            code = 0
        except Begins:
            code = 0
        except SystemExit as leaving:
            code = leaving.code
    return code, said.getvalue().splitlines()


def check(folder, script, arguments):
    """Give a command, which must do its work, or refuse it in one line and leave nothing behind."""
    before = {*folder.rglob("*")}
    try:
        code, said = give(script, *arguments)
        made = {*folder.rglob("*")} - before
        assert code in (0, 2, 3)
        if code:
            assert said and (len(said) == 1 or "boundary" in arguments) and all(map(str.isprintable, said)), said
            assert not {path for path in made if path.name != "lock"}
    finally:
        for path in sorted({*folder.rglob("*")} - before, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


PROPERTIES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "draw"])  # which has no flags
@given(data=st.data())
@PROPERTIES
def test_any_value_of_any_flag(name, folder, data):
    script, *arguments = COMMANDS[name]
    flag = data.draw(st.sampled_from(flags(name)))
    values = data.draw(st.lists(VALUES, min_size=0, max_size=2))
    if flag in ("--out", "--json", "--csv"):  # not into folders of others
        values = [f"new/{value}".replace("..", "") for value in values]
    check(folder, script, [*arguments, flag, *values])


@pytest.mark.parametrize("name", COMMANDS)
@given(data=st.data())
@PROPERTIES
def test_any_name_of_a_file(name, folder, data):
    script, *arguments = COMMANDS[name]
    places = [n for n, word in enumerate(arguments) if str(word).startswith(("sweep", "tiny", "images", "figure"))]
    value = data.draw(VALUES)
    for place in places[:1]:
        arguments[place] = value
    check(folder, script, arguments)
