"""scripts/find_lr.sh from nothing to its answer, killed on the way, on training too short to mean anything."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import time

import pytest
import torch
from conftest import random_image_set
from test_scripts import ROOT, calls, fails, quick, run  # noqa: F401

from data.images import digest, save_image_set
from data.locks import is_held
from data.runs import Run, find_runs

pytestmark = pytest.mark.xdist_group("scripts")  # its tests share a process that starts scripts

SHORT = {"EPOCHS": "400", "FINETUNE_EPOCHS": "40", "RATIO": "4", "MAX_RUNS": "16"}
COARSE_LENGTHS = {"EPOCHS": "25", "FINETUNE_EPOCHS": "4", "RATIO": "10", "MAX_RUNS": "9", "START": "1e-3 1e-1"}
COARSE = COARSE_LENGTHS | {"TRAIN_FLAGS": "--width 2 --batch-size 16"}
SCRIPT = ("bash", "scripts/find_lr.sh")


def find(environment, *arguments, **more):
    return run(*SCRIPT, *map(str, arguments), **environment, **more)


@pytest.fixture(scope="module")
def searched(quick, tmp_path_factory):  # noqa: F811
    """The folder and the output of a search on ticks."""
    out = tmp_path_factory.mktemp("search") / "Ann's runs"
    return out, find(quick, "si-mlp", "ticks", out, **SHORT)


def test_the_search_tells_its_plan_its_progress_and_its_answer(searched):
    out, output = searched
    lines = output.splitlines()
    assert lines[0] == "chooses by the test set, as ticks have no other"
    expected = r"plan: about \d+ pre-trainings of at most 400 iterations and \d+ fine-tunings of 40 to come: about \d+ minutes"
    assert re.match(expected, lines[1])
    counts = [int(found) for found in re.findall(r"about (\d+) pre-trainings", output)]
    assert counts[-1] == 0 or "larger --max-runs" in output
    assert any(line.startswith("band: ") for line in lines) and any(line.startswith("spent: ") for line in lines)
    assert {path.name for path in (out / "figures").iterdir()} == {"band.json", "band.pdf", "band.png"}
    asked = {tuple(line.split()[1:]) for line in lines if line.startswith("pretrain ")}
    made = [run for run in find_runs(out / "pretrain")]
    assert {f"plr{lr}-seed{seed}" for lr, seed in asked} == {run.path.name for run in made}
    assert all(run.complete and run.settings["stop_when_clear"] for run in made)
    assert all(run.members[0]["data_seed"] == run.members[0]["seed"] for run in made)


def test_all_that_was_asked_for_is_there_and_a_second_run_trains_nothing(searched, quick):  # noqa: F811
    out, _ = searched
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    calls(quick)
    output = find(quick, "si-mlp", "ticks", out, **SHORT)
    commands = calls(quick)
    assert {words[0] for words in commands} == {"analyze.py"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")} == before
    assert "about 0 pre-trainings" in output or "larger --max-runs" in output


def test_killed_and_resumed_it_ends_in_the_same_answer(searched, quick, tmp_path):  # noqa: F811
    out, _ = searched
    killed = tmp_path / "killed"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [*SCRIPT, "si-mlp", "ticks", str(killed)],
            cwd=ROOT,
            env=os.environ | quick | SHORT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while len([*killed.rglob("config.json")]) < 4:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    while any(
        is_held(path.parent) for path in killed.rglob("config.json")
    ):  # those that the scripts' process had started
        time.sleep(0.01)
    find(quick, "si-mlp", "ticks", killed, **SHORT)
    found = [json.loads((folder / "band.json").read_text()) for folder in (out, killed)]
    assert found[0] == found[1]


def coloured(folder):
    """A file with an image set that is easily learnt, its classes being colours, with images held out."""
    image_set = random_image_set(classes=3, train=48, test=30, side=8)
    held_out = random_image_set(classes=3, train=5, test=30, side=8, seed=1)
    images = {"validation_images": held_out.test_images, "validation_labels": held_out.test_labels}
    image_set = dataclasses.replace(image_set, **images)
    for split in ("train", "test", "validation"):
        pixels, labels = (getattr(image_set, f"{split}_{what}") for what in ("images", "labels"))
        pixels //= 2
        pixels[torch.arange(len(labels)), labels] += 100
    image_set = dataclasses.replace(image_set, digest=digest(vars(image_set)))
    save_image_set(image_set, folder / "colours.pt")
    return folder / "colours.pt"


def test_held_out_images_choose_and_the_test_set_is_measured_once(quick, tmp_path):  # noqa: F811
    data, out = coloured(tmp_path), tmp_path / "out"
    output = find(quick, "si-convnet", data, out, **COARSE)
    assert output.startswith("chooses by the held-out images of ")
    runs = find_runs(out)
    assert {run.settings["report"] for run in runs} == {"validation"}
    best = json.loads((out / "band.json").read_text())["best"]
    assert best is not None
    assert {path.parent for path in out.rglob("test.json")} == {out / name for name in best["runs"]}
    [name] = best["runs"]
    [[accuracy]] = Run(out / name).measurement("test")["accuracy"]
    assert f"test accuracy: {100 * accuracy:.2f} % (chosen by other images)" in output


def test_a_network_of_ones_own_is_named_to_all_of_its_stages(quick, tmp_path):  # noqa: F811
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef net(classes, side):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, classes))\n"
    )
    out, stages = tmp_path / "out", "pretrain 1e-2 1; finetune pretrain/plr1e-2-seed1 1e-3; conclude"
    command = ["bash", "-euc", f'source scripts/find_lr.sh "$@"; {stages}', "-"]
    run(*command, str(tmp_path / "mine.py:net"), str(coloured(tmp_path)), str(out), **quick, **COARSE_LENGTHS)
    assert {run.settings["model"] for run in find_runs(out)} == {"mine.py:net"} and len(find_runs(out)) == 2
    assert json.loads((out / "band.json").read_text())["best"]["test"] is not None


def test_a_set_without_held_out_images_is_said_to_choose_by_the_test_set(quick, tmp_path):  # noqa: F811
    save_image_set(random_image_set(classes=3, train=20, test=10, side=8), tmp_path / "plain.pt")
    flags = {"TRAIN_FLAGS": "--width 2 --batch-size 10", "EPOCHS": "1", "FINETUNE_EPOCHS": "1", "MAX_RUNS": "1"}
    output = find(quick, "si-convnet", tmp_path / "plain.pt", tmp_path / "out", **flags)
    assert output.startswith("chooses by the test set, which flatters: ")
    assert not [*(tmp_path / "out").rglob("test.json")]


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        ([], {}, "usage: "),
        (["si-mlp", "ticks", "--out"], {}, "usage: "),
        (["si-mlp", "ticks", "OUT"], {"EPOCHS": "many"}, "EPOCHS: 'many' is no whole number above 0"),
        (["no-such", "ticks", "OUT"], {}, "invalid choice: 'no-such'"),
        (["si-convnet", "no such.pt", "OUT"], {}, "there is no "),
        (["si-mlp", "ticks", "OUT"], {"RATIO": "1"}, "--ratio 1: is below 1.05"),
    ],
)
def test_what_cannot_be_done_is_said_at_once_and_leaves_no_runs(arguments, environment, message, quick, tmp_path):  # noqa: F811
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    code, output = fails(*SCRIPT, *arguments, **quick | environment)
    assert code == 2 and message in output
    assert not [*tmp_path.rglob("config.json")]
