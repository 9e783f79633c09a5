"""Run folders: killed, interrupted, finished, refused and damaged runs of every stage."""

import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import HAS_BF16, needs_bf16, random_image_set

import analyze
import finetune
import models
import swa
import train
from data import commandline
from data.commandline import BadInput, Refused, run
from data.files import read_tensors, write_json, write_tensors
from data.images import load_image_set, save_image_set
from data.locks import hold, release
from data.open_run import OpenRun
from data.runs import SERIES, Run, find_runs, loss_name
from models.evaluator import Evaluator

ROOT = Path(__file__).parent.parent
STAGES = {"train": train, "finetune": finetune, "swa": swa}
SCRIPTS = STAGES | {"analyze": analyze}
TICKS = ["--data", "ticks", "--lr", "1e-3", "1e30", "3e-2", "--log-every", 5]  # the second diverges
SELDOM = ["--checkpoint-seconds", 60]  # fewer writes, the same result
EVERY = [(stage, kind) for stage in STAGES for kind in ("ticks", "images")]
# Which logged step is closest to the level of train loss that image runs cross in their first and in their second step.
KEPT_AT_LOSSES = {"train": (0, 1), "finetune": (0, 2)}


@pytest.fixture(autouse=True)
def signal_handlers():
    """Ctrl-C even where the tests were started in the background, no death by SIGTERM; afterwards as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("SIGTERM is not handled"))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def call(script, *arguments):
    """Run a script in this process as from the command line; returns its exit code, as a shell sees it."""
    argv = mock.patch.object(sys, "argv", [f"{script}.py", *map(str, arguments)])
    with argv, mock.patch.object(commandline, "die_by", lambda signum: sys.exit(128 + signum)):
        try:
            run(SCRIPTS[script].main)
        except SystemExit as leaving:
            return leaving.code
    return 0


def write_image_set(path, train=14, seed=0):
    """A prepared set of a few images of 8x8 random pixels."""
    save_image_set(random_image_set(classes=3, train=train, test=6, side=8, seed=seed), path)


def strict_json(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def load(path):
    """The tensors of a file, its digest checked, without the name of their network, which torch.testing cannot compare."""
    content, _ = read_tensors(path, "")
    assert isinstance(content.pop("network"), str)
    return content


def contents(folder):
    """Time of the last change and content of every file."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def one_line(capsys):
    """What was written to stderr, which must be one line."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith("\n"), error
    return error


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """A folder with an image set and two complete runs to continue: tiny.pt, ticks, images."""
    folder = tmp_path_factory.mktemp("origin")
    write_image_set(
        folder / "tiny.pt", seed=119
    )  # train losses fall by a fifth and more in each of the first steps
    for kind, steps in (("ticks", 10), ("images", 2)):
        assert call("train", *pretraining(kind, folder), "--steps", steps, "--out", folder / kind) == 0
    return folder


def pretraining(kind, origin):
    images = ["--data", origin / "tiny.pt", "--model", "si-convnet", "--width", 2, "--batch-size", 4, "--lr", 1e-2]
    return TICKS if kind == "ticks" else images


def command(stage, kind, origin, out, points=3, keep_losses=True):
    """A run with a checkpoint at every one of `points` logged steps: (script and arguments, run folder)."""
    spacing, keep = (5, 7) if kind == "ticks" else (1, 2)
    folder = out / (f"{kind}-flr1e-4" if stage == "finetune" else kind)
    steps = ["--steps", points * spacing]
    own = {
        "train": [*pretraining(kind, origin), *steps, "--keep", 0, keep, "--out", folder],
        "finetune": [origin / kind, "--lr", 1e-4, *steps, "--out", out],
        "swa": [
            origin / kind,
            "--windows",
            2,
            points + 1,
            "--spacing",
            spacing,
            "--anchor",
            "start",
            "--out",
            out,
        ],
    }[stage]
    if kind == "images" and stage in KEPT_AT_LOSSES and keep_losses:
        own += ["--keep-loss", *crossed_losses(stage, origin)]
    return [stage, *own, "--checkpoint-seconds", 0, "--device", "cpu"], folder


@functools.cache
def crossed_losses(stage, origin):
    """The levels of KEPT_AT_LOSSES, from the losses of a run of this stage on images."""
    with tempfile.TemporaryDirectory() as out:
        arguments, folder = command(stage, "images", origin, Path(out), keep_losses=False)
        assert call(*arguments) == 0
        losses = [loss for [loss] in strict_json(folder / "metrics.json")["train_loss"]]
    levels = []
    for before, after, kept in zip((0, 1), (1, 2), KEPT_AT_LOSSES[stage], strict=True):
        assert losses[before] > 1.05 * losses[after], "the loss must fall in the first and in the second step"
        other = before if kept == after else after
        levels.append(float(f"{losses[kept] ** 0.75 * losses[other] ** 0.25:.6g}"))
    return levels


@pytest.fixture(scope="session")
def finished(origin, tmp_path_factory):
    """finished(stage, kind): the command and the folder of a run that nothing disturbed."""

    @functools.cache
    def finish(stage, kind, points=3):
        arguments, folder = command(stage, kind, origin, tmp_path_factory.mktemp("finished"), points)
        assert call(*arguments, *SELDOM) == 0
        return arguments, folder

    return finish


def assert_same_result(folder, expected):
    """Metrics and all tensors are equal to the last bit, and no file is left over or missing."""
    assert strict_json(folder / "metrics.json")["status"] == "complete"
    assert (folder / "metrics.json").read_text() == (expected / "metrics.json").read_text()
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    for path in expected.glob("*.pt"):
        torch.testing.assert_close(load(folder / path.name), load(path), rtol=0, atol=0, equal_nan=True)


# Killed


class Killed(BaseException):
    """The process is gone: nothing gets to the disk any more."""


def survives(arguments, writes):
    """Whether a run completes that is killed in the middle of a write, after so many whole ones."""
    count = itertools.count()

    def fsync(descriptor):
        if next(count) >= writes:
            os.ftruncate(descriptor, 10)
            raise Killed

    with mock.patch.object(os, "fsync", fsync):
        try:
            assert call(*arguments) == 0
        except Killed:
            return False
    return True


def step_on_disk(folder):
    """The step of the checkpoint, None without one; everything must be whole and the metrics not behind."""
    for path in folder.glob("*.json"):
        strict_json(path)
    for path in folder.glob("*.pt"):
        load(path)
    if not (folder / "checkpoint.pt").exists():
        return None
    step = load(folder / "checkpoint.pt")["step"]
    assert step in strict_json(folder / "metrics.json")["step"]
    return step


def check_kills(made, out, expected):
    """Kill a run, as made(folder) gives it, in each of its writes and resume it."""
    steps = set()
    for writes in itertools.count():
        arguments, folder = made(out / str(writes))
        if survives(arguments, writes):
            break
        steps.add(step_on_disk(folder))
        assert call(*arguments) == 0
        assert_same_result(folder, expected)
    assert steps == {None, *strict_json(expected / "metrics.json")["step"][1:]}


@pytest.mark.parametrize("stage, kind", EVERY)
def test_killed_in_any_write_and_resumed(stage, kind, origin, finished, tmp_path):
    check_kills(lambda out: command(stage, kind, origin, out), tmp_path, finished(stage, kind)[1])


@pytest.mark.parametrize("stage", KEPT_AT_LOSSES)
def test_the_runs_that_are_killed_keep_weights_at_losses(stage, origin, finished):
    files = finished(stage, "images")[1].glob("loss-*.pt")
    names = [loss_name(level) for level in crossed_losses(stage, origin)]
    assert {path.stem: load(path)["step"] for path in files} == dict(
        zip(names, KEPT_AT_LOSSES[stage], strict=True)
    )


def test_run_until_a_loss_is_killed_in_any_write_and_resumed(origin, tmp_path):
    def made(out):
        arguments, folder = command("train", "images", origin, out, points=5)
        return [*arguments, "--until-loss", crossed_losses("train", origin)[1]], folder

    arguments, expected = made(tmp_path / "expected")
    assert call(*arguments, *SELDOM) == 0
    assert strict_json(expected / "metrics.json")["step"] == [0, 1, 2]
    check_kills(made, tmp_path, expected)


@pytest.mark.parametrize("stage, kind", EVERY)
def test_killed_over_and_over(stage, kind, origin, finished, tmp_path):
    arguments, folder = command(stage, kind, origin, tmp_path)
    lives = 1
    while not survives(arguments, writes=5):
        lives += 1
        assert lives < 10
    assert lives > 1
    assert_same_result(folder, finished(stage, kind)[1])


def start(arguments, folder):
    """Start a script in a process of its own and wait for its first checkpoint."""
    words = [str(word) for word in arguments]
    process = subprocess.Popen(
        [sys.executable, ROOT / f"{words[0]}.py", *words[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("stage, kind", [("train", "images"), ("finetune", "ticks"), ("swa", "images")])
def test_sigkill(stage, kind, origin, finished, tmp_path):
    arguments, folder = command(stage, kind, origin, tmp_path, points=60)
    process = start(arguments, folder)
    process.kill()
    process.communicate()
    assert strict_json(folder / "metrics.json")["status"] == "running"
    assert call(*arguments, *SELDOM) == 0
    assert_same_result(folder, finished(stage, kind, points=60)[1])


@pytest.mark.parametrize("on_disk", [{}, {"until_loss": None, "keep_loss": []}])  # the first was made earlier
def test_resume_goes_back_to_the_checkpoint(on_disk, tmp_path):
    settings = {"data": "ticks", "classes": 2, "model": "si-mlp", "batch_size": 16, "rho": 1.0, "first_step": 0}
    settings |= {"steps": 30, "log_every": 10, "keep": []}
    members = [{"lrs": [lr], "seed": 1, "data_seed": 1} for lr in (0.1, 0.2, 0.3)]
    config = {"stage": "pretrain", "members": members, "parent": None, "data_file": None}
    series = {name: [[loss] * 3 for loss in (1.0, 2.0, 3.0)] for name in SERIES if name != "step"}
    metrics = {
        "status": "running",
        "unit": "iteration",
        "diverged_at": [None, 20, 10],
        "step": [0, 10, 20],
        **series,
    }
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", config | {"settings": settings | on_disk})
    write_json(tmp_path / "run" / "metrics.json", metrics)
    write_tensors(tmp_path / "run" / "checkpoint.pt", {"step": 10, "weights": torch.zeros(3, 2)})
    settings |= {"compile": False, "until_loss": None, "stop_when_clear": False, "keep_loss": []}
    settings |= {"optimizer": {"name": "projected-sgd"}}
    with OpenRun(tmp_path / "run", config | {"settings": settings}, torch.device("cpu")) as opened:
        checkpoint, trimmed = opened.resume()
    assert checkpoint["step"] == 10 and opened.settings == settings
    assert trimmed["diverged_at"] == [None, None, 10] and trimmed["step"] == [0, 10]
    assert all(trimmed[name] == [[1.0] * 3, [2.0] * 3] for name in series)


# Interrupted


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("stage, kind", EVERY)
def test_interrupt_saves_the_last_logged_step(stage, kind, name, origin, finished, tmp_path, capsys):
    arguments, folder = command(stage, kind, origin, tmp_path)
    task = train.TickTraining if kind == "ticks" else train.ImageTraining
    evaluate, count = task.evaluate, itertools.count()

    def interrupted(self):
        if next(count) == 2:  # in the middle of measuring the third logged step
            signal.raise_signal(getattr(signal, name))
        return evaluate(self)

    with mock.patch.object(task, "evaluate", interrupted):
        assert call(*arguments, *SELDOM) == 128 + getattr(signal, name)
    assert one_line(capsys) == f"{stage}.py: interrupted; the same command goes on where it was\n"
    assert step_on_disk(folder) == strict_json(finished(stage, kind)[1] / "metrics.json")["step"][1]
    assert call(*arguments) == 0
    assert_same_result(folder, finished(stage, kind)[1])


def test_live_process_holds_its_folder_until_ctrl_c(origin, finished, tmp_path, capsys):
    arguments, folder = command("train", "ticks", origin, tmp_path, points=150)
    process = start(arguments, folder)
    assert call(*arguments) == 3
    assert one_line(capsys) == f"train.py: {folder}: another process is working on it; wait for it or stop it\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == -signal.SIGINT  # a shell says 130
    assert (
        error.endswith("train.py: interrupted; the same command goes on where it was\n") and error.count("\n") == 1
    )
    assert step_on_disk(folder) > 0
    assert call(*arguments, *SELDOM) == 0
    assert_same_result(folder, finished("train", "ticks", points=150)[1])


@pytest.mark.parametrize("script", ["train.py", "finetune.py", "swa.py", "analyze.py", "data"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_ends_a_script_with_one_line(script, signum, tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "link").symlink_to(ROOT)
    folder, environment = tmp_path / "link", os.environ | {"PYTHONPATH": str(tmp_path)}
    # The folder of a script comes before PYTHONPATH, and PyTorch after it: this one is found.
    command, name = (
        ([folder / script], folder / script) if script != "data" else (["-m", script], ROOT / "data/__main__.py")
    )
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGUSR1)  # is ignored
    time.sleep(0.1)
    process.send_signal(signum)
    _, error = process.communicate()
    assert process.returncode == -signum and error == f"{name}: interrupted before it began\n"


@pytest.mark.parametrize("stage", STAGES)
def test_held_folder_is_refused_and_left_alone(stage, origin, tmp_path):
    arguments, folder = command(stage, "ticks", origin, tmp_path)
    folder.mkdir()
    lock = hold(folder)
    assert call(*arguments) == 3
    assert [path.name for path in folder.iterdir()] == ["lock"]
    release(lock)
    assert call(*arguments) == 0


# Finished


@pytest.mark.parametrize("stage, kind", EVERY)
def test_complete_run_is_left_alone(stage, kind, finished):
    arguments, folder = finished(stage, kind)
    before = contents(folder)
    with mock.patch.object(SCRIPTS["train"], "make_task", None):  # nothing is trained
        assert call(*arguments) == 0
        assert call(*arguments, "--checkpoint-seconds", 5) == 0  # does not change results
    assert contents(folder) == before


def test_image_set_may_move(finished, origin, tmp_path):
    arguments, folder = finished("train", "images")
    before = contents(folder)
    shutil.copy(origin / "tiny.pt", tmp_path / "moved.pt")
    assert call(*arguments, "--data", tmp_path / "moved.pt") == 0
    assert contents(folder) == before


# Refused

OTHER_SETTINGS = [
    ("train", "ticks", ["--steps", 9], "settings steps: 15 there, 9 asked for"),
    ("train", "ticks", ["--steps", 99, "--log-every", 1], "settings log_every: 5 there, 1 asked for"),
    ("train", "ticks", ["--steps", 99, "--keep", 0, 7, 8], "settings keep: [0, 7] there, [0, 7, 8] asked for"),
    ("train", "ticks", ["--log-every", 1], "settings log_every: 5 there, 1 asked for"),
    ("train", "ticks", ["--batch-size", 8], "settings batch_size: 16 there, 8 asked for"),
    ("train", "ticks", ["--rho", 2], "settings rho: 1.0 there, 2.0 asked for"),
    ("train", "ticks", ["--keep", 7], "settings keep: [0, 7] there, [7] asked for"),
    ("train", "ticks", ["--lr", 1e-3, 1e30, 2e-2], "members: 3 there, 3 asked for, and not the same"),
    ("train", "ticks", ["--seed", 2], "members: 3 there, 3 asked for, and not the same"),
    ("train", "ticks", ["--data-seed", 1, 2], "members: 3 there, 6 asked for, and not the same"),
    ("train", "images", ["--width", 3], "settings width: 2 there, 3 asked for"),
    ("train", "images", ["--model", "si-resnet18"], "settings model: si-convnet there, si-resnet18 asked for"),
    ("train", "images", ["--seed", 2], "members: [{'lrs': [0.01], 'seed': 1}] there"),
    ("train", "images", ["--compile"], "settings compile: False there, True asked for"),
    pytest.param(
        *("train", "images", ["--precision", "bf16"], "settings precision: fp32 there, bf16 asked for"),
        marks=needs_bf16,
    ),
    ("train", "images", ["--augment", "crop-flip"], "settings augment: none there, crop-flip asked for"),
    ("train", "images", ["--until-loss", 0.5], "settings until_loss: None there, 0.5 asked for"),
    ("train", "images", ["--keep-loss", 2.85], "settings keep_loss: LEVELS there, [2.85] asked for"),
    ("finetune", "images", ["--steps", 2], "settings steps: 3 there, 2 asked for"),
    # A length would not be refused, so it is not spoken of.
    (
        *("finetune", "images", ["--steps", 9, "--keep-loss", 1]),
        "other settings (settings keep_loss: LEVELS there, [1.0] asked for); ",
    ),
    ("finetune", "ticks", ["--log-every", 1], "settings log_every: 5 there, 1 asked for"),
    ("swa", "ticks", ["--windows", 4], "settings windows: [2, 4] there, [4] asked for"),
    ("swa", "ticks", ["--windows", 4, 5], "settings windows: [2, 4] there, [4, 5] asked for"),
    ("swa", "images", ["--spacing", 2], "settings spacing: 1 there, 2 asked for"),
    ("swa", "images", ["--anchor", "end", "--from-step", 2], "settings anchor: start there, end asked for"),
]


@pytest.mark.parametrize("stage, kind, change, difference", OTHER_SETTINGS)
def test_other_settings_are_refused_with_the_difference(stage, kind, change, difference, finished, capsys):
    arguments, folder = finished(stage, kind)
    before = contents(folder)
    capsys.readouterr()
    assert call(*arguments, *change) == 3
    error = one_line(capsys)
    difference = difference.replace("LEVELS", str(Run(folder).settings["keep_loss"]))
    assert error.startswith(f"{stage}.py: {folder}: was made with other settings (") and difference in error
    assert contents(folder) == before
    assert call(*arguments) == 0  # the refused command holds nothing


LATER_SETTINGS = {
    "ticks": ("until_loss", "stop_when_clear", "keep_loss"),
    "images": ("until_loss", "stop_when_clear", "keep_loss", "precision", "augment"),
}


def make_older(folder):
    """Take from a run folder the settings that there was no choice of when its like was first made."""
    config = strict_json(folder / "config.json")
    for name in LATER_SETTINGS["images" if "digest" in config["settings"] else "ticks"]:
        del config["settings"][name]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind, steps", [("ticks", 10), ("images", 2)])
def test_runs_made_before_a_setting_existed_go_on(kind, steps, origin, tmp_path):
    old = make_older(shutil.copytree(origin / kind, tmp_path / "old"))
    assert Run(old).settings == Run(origin / kind).settings
    assert (Run(old).settings["until_loss"], Run(old).settings["keep_loss"]) == (None, [])
    command = ["train", *pretraining(kind, origin), "--steps", steps]
    assert call(*command, "--out", old) == 0
    changes = [["--until-loss", 1], ["--stop-when-clear"]]
    if kind == "images":
        changes += [
            ["--keep-loss", 1],
            ["--augment", "crop-flip"],
            *([["--precision", "bf16"]] if HAS_BF16 else []),
        ]
    for change in changes:
        assert call(*command, "--out", old, *change) == 3
    for stage, own in (("finetune", ["--lr", 1e-3, "--steps", 1]), ("swa", ["--windows", 2, "--anchor", "start"])):
        assert call(stage, old, *own, "--out", tmp_path / stage) == 0
    killed = [*command, "--checkpoint-seconds", 0, "--out", tmp_path / "killed"]
    assert not survives(killed, writes=4) and step_on_disk(tmp_path / "killed")
    make_older(tmp_path / "killed")
    assert call(*killed) == 0
    assert_same_result(tmp_path / "killed", origin / kind)


def test_other_images_are_refused(finished, tmp_path, capsys):
    arguments, folder = finished("train", "images")
    write_image_set(tmp_path / "other.pt", seed=1)
    assert call(*arguments, "--data", tmp_path / "other.pt") == 3
    assert f"settings digest: {Run(folder).settings['digest']} there" in one_line(capsys)


def test_folder_of_another_stage_is_refused(finished, origin, capsys):
    _, folder = finished("finetune", "ticks")
    assert call("train", *TICKS, "--steps", 15, "--out", folder) == 3
    assert "stage: finetune there, pretrain asked for" in one_line(capsys)


def test_other_parent_is_refused(finished, origin, tmp_path, capsys):
    arguments, folder = finished("finetune", "ticks")
    shutil.copytree(origin / "ticks", tmp_path / "ticks")
    assert call("finetune", tmp_path / "ticks", *arguments[2:]) == 3
    assert f"parent run: {Run(folder).config['parent']['run']} there" in one_line(capsys)


# Folders that are no run folders


@pytest.mark.parametrize("stage", STAGES)
def test_folder_of_strangers_is_left_alone(stage, origin, tmp_path, capsys):
    arguments, folder = command(stage, "ticks", origin, tmp_path)
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    assert call(*arguments) == 2
    assert f"{folder}: is not a run folder, yet it holds thesis.tex" in one_line(capsys)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"thesis.tex": "precious"}


def test_hidden_files_are_no_strangers(origin, tmp_path):
    arguments, folder = command("train", "ticks", origin, tmp_path)
    folder.mkdir()
    (folder / ".gitkeep").touch()
    assert call(*arguments) == 0


@pytest.mark.parametrize("below", ["", "below"])
def test_file_in_place_of_the_folder(below, origin, tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    assert call("train", *TICKS, "--steps", 5, "--out", tmp_path / "file" / below) == 2
    assert f"{tmp_path / 'file' / below}: cannot be made a folder" in one_line(capsys)
    assert (tmp_path / "file").read_text() == "precious"


# Damaged

DAMAGES = [
    ("config.json", b""),
    ("config.json", b'{\n"stage": "pret'),
    ("config.json", b"[]\n"),
    ("config.json", b"{}\n"),
    ("metrics.json", b""),
    ("metrics.json", b"\xff\xfe\x00"),
    ("metrics.json", b"null\n"),
    ("metrics.json", b'{"status": "running"}\n'),
    ("checkpoint.pt", b""),
    ("checkpoint.pt", b"PK\x03\x04 no tensors"),
]


def unfinished(stage, kind, origin, out):
    """A run that was killed after its first checkpoint: (script and arguments, run folder)."""
    arguments, folder = command(stage, kind, origin, out)
    assert not survives(arguments, writes=6) and (folder / "checkpoint.pt").exists()
    return arguments, folder


@pytest.mark.parametrize("name, damage", DAMAGES)
def test_damaged_run_is_left_as_it_is(name, damage, origin, tmp_path, capsys):
    arguments, folder = unfinished("train", "ticks", origin, tmp_path)
    (folder / name).write_bytes(damage)
    before = contents(folder)
    capsys.readouterr()
    assert call(*arguments) == 2
    assert f"{folder / name}: " in one_line(capsys)
    assert contents(folder) == before


def test_cut_checkpoint_is_left_as_it_is(origin, tmp_path, capsys):
    arguments, folder = unfinished("swa", "images", origin, tmp_path)
    os.truncate(folder / "checkpoint.pt", 3000)
    before = contents(folder)
    assert call(*arguments) == 2
    assert f"{folder / 'checkpoint.pt'}: is damaged" in one_line(capsys)
    assert contents(folder) == before


def test_metrics_lost(origin, tmp_path, capsys):
    arguments, folder = unfinished("finetune", "ticks", origin, tmp_path)
    (folder / "metrics.json").unlink()
    before = contents(folder)
    assert call(*arguments) == 2
    assert "no metrics.json" in one_line(capsys)
    assert contents(folder) == before


@pytest.mark.parametrize("name, damage", DAMAGES)
@pytest.mark.parametrize("stage", ["finetune", "swa"])
def test_damaged_parent(stage, name, damage, origin, tmp_path, capsys):
    shutil.copytree(origin / "ticks", tmp_path / "ticks")
    (tmp_path / "ticks" / name).write_bytes(damage)
    arguments, _ = command(stage, "ticks", tmp_path, tmp_path / "out")
    assert call(*arguments) == 2
    assert f"{tmp_path / 'ticks' / name}: " in one_line(capsys)


# What is on disk


@pytest.mark.parametrize("stage, kind", EVERY)
def test_metrics_are_arrays_of_logged_step_and_member(stage, kind, finished):
    metrics = strict_json(finished(stage, kind)[1] / "metrics.json")
    members = 3 if kind == "ticks" else 1
    expected = {"ticks": [0, 5, 10, 15], "images": [0, 1, 2, 3]}[kind]
    if (stage, kind) == ("train", "ticks"):
        expected = [0, 5, 7, 10, 15]  # 7 is kept
    assert metrics["step"] == expected
    assert metrics["status"] == "complete"
    assert metrics["unit"] == {"ticks": "iteration", "images": "epoch"}[kind]
    assert len(metrics["diverged_at"]) == members
    for name in set(SERIES) - {"step"}:
        assert [len(row) for row in metrics[name]] == [members] * len(expected)
        assert all(0 <= value <= 1 for row in metrics[name] for value in row if "accuracy" in name)
        if stage == "swa":
            assert [len(row) for row in metrics["swa"][name]] == [members] * 2
    if stage == "swa":
        assert metrics["swa"]["window"] == [2, 4]


@pytest.mark.parametrize("stage, kind", EVERY)
def test_reestimated_statistics_are_measured_beside_the_running_ones(stage, kind, origin, finished):
    folder = finished(stage, kind)[1]
    metrics = strict_json(folder / "metrics.json")
    assert ("reestimated" in metrics) == (kind == "images" and stage != "swa")
    if "reestimated" in metrics:
        network = models.build("si-convnet", 2, 3, init_seed=0)
        evaluator = Evaluator(network, torch.device("cpu"))
        evaluator.load(load(folder / "checkpoint.pt"))
        image_set = load_image_set(origin / "tiny.pt")
        running = evaluator.evaluate(image_set.test_batches())
        evaluator.load_average(evaluator.weights, image_set.train_batches(128))
        reestimated = evaluator.evaluate(image_set.test_batches())
        assert reestimated[0] != pytest.approx(running[0], rel=1e-3)
        for place, name in enumerate(("test_loss", "test_accuracy")):
            assert metrics[name][-1] == [pytest.approx(running[place], rel=1e-5)]
            assert metrics["reestimated"][name] == [pytest.approx(reestimated[place], rel=1e-5)]


def test_reestimated_of_a_diverged_run(origin, tmp_path):
    arguments = [*pretraining("images", origin)[:-1], 1e30, "--steps", 2, "--out", tmp_path / "run"]
    assert call("train", *arguments) == 0
    metrics = strict_json(tmp_path / "run" / "metrics.json")
    assert metrics["diverged_at"] == [1]
    assert metrics["reestimated"]["test_loss"] == [None]


def test_config_tells_how_the_run_was_made(finished, origin):
    arguments, folder = finished("finetune", "images")
    config = strict_json(folder / "config.json")
    assert config["argv"] == ["finetune.py", *map(str, [*arguments[1:], *SELDOM])]
    assert config["stage"] == "finetune"
    assert config["members"] == [{"lrs": [0.01, 0.0001], "seed": 1}]
    assert (folder / config["parent"]["run"]).resolve() == (origin / "images").resolve()
    assert config["parent"]["step"] == 2
    assert strict_json(origin / "images/config.json")["samples"] == {"train": 14, "test": 6}
    assert config["versions"]["torch"] == torch.__version__
    assert config["device"] == f"cpu, {torch.get_num_threads()} threads"
    settings = {"model": "si-convnet", "width": 2, "batch_size": 4, "rho": 12.0, "steps": 3, "first_step": 2}
    assert {key: config["settings"][key] for key in settings} == settings


def test_git_need_not_be_installed(origin, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call("train", *TICKS, "--steps", 5, "--out", tmp_path / "run") == 0
    assert strict_json(tmp_path / "run" / "config.json")["git_commit"] is None


# Reading


def test_weights_at_a_step(finished):
    folder = finished("train", "ticks")[1]
    finished_run = Run(folder)
    assert finished_run.last_step == 15
    for step, name in ((7, "step-7"), (15, "checkpoint")):
        tensors = finished_run.weights_at(step)
        assert tensors["step"] == step and tensors.pop("network") == "si-mlp"
        torch.testing.assert_close(tensors, load(folder / f"{name}.pt"), rtol=0, atol=0, equal_nan=True)
    with pytest.raises(BadInput, match="has no weights of iteration 5, but of 15"):
        finished_run.weights_at(5)
    with pytest.raises(BadInput, match="swa-2.pt: does not exist; this run has checkpoint, step-0, step-7"):
        finished_run.weights("swa-2")


def test_find_runs(origin, finished, tmp_path):
    assert [found.path for found in find_runs(origin)] == [origin / "images", origin / "ticks"]
    with pytest.raises(BadInput, match=f"{tmp_path}: holds no run folders"):
        find_runs(tmp_path)
    with pytest.raises(BadInput, match=f"{tmp_path}: is not a run folder"):
        Run(tmp_path)


def test_measurements_stand_beside_the_run(origin, tmp_path):
    shutil.copytree(origin / "ticks", tmp_path / "run")
    assert Run(tmp_path / "run").measurement("features") is None
    of_members = torch.tensor([[[0.5, float("nan")]] * 3])
    measured = {"solution": ["checkpoint"], "balanced_accuracy": of_members}
    Run(tmp_path / "run").write_measurement("features", measured)
    expected = measured | {"balanced_accuracy": [[[0.5, None]] * 3], "end": 10}
    assert Run(tmp_path / "run").measurement("features") == expected


def test_lock_is_free_after_its_holder(tmp_path):
    lock = hold(tmp_path)
    with pytest.raises(Refused, match="another process is working on it"):
        hold(tmp_path)
    release(lock)
    release(hold(tmp_path))
