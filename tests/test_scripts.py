"""The shell scripts' main paths, on training too short to mean anything."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import random_image_set

from data.images import save_image_set

ROOT = Path(__file__).parent.parent


def run(*command, folder=ROOT, **environment):
    """Run a command in a folder; returns its output."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TICK_FIGURES = {
    f"figure{number}.{kind}" for number in ("04", "05", "15", "16", "17") for kind in ("pdf", "png", "json")
}


def test_demo_trains_fine_tunes_averages_measures_and_draws(tmp_path):
    short = {"PRETRAIN_STEPS": "300", "FINETUNE_STEPS": "100", "JOBS": "2"}
    output = run("bash", "scripts/demo.sh", str(tmp_path), **short)
    assert "What to expect" in output and "\nM1 " in output
    folders = (tmp_path / "folders").read_text().split()
    assert sorted(path.name for path in (tmp_path / "pretrain").iterdir()) == folders
    assert {path.name for path in (tmp_path / "figures").iterdir()} == TICK_FIGURES
    numbers = json.loads((tmp_path / "figures/figure15.json").read_text())
    assert len(numbers["pretrain"]["plr"]) == 23 and set(numbers["pretrain"]["n"]) == {10}
    assert len(numbers["finetune"]) == 4
    assert [curve["window"] for curve in numbers["swa"]] == [2, 5, 10, 20, 50]


def test_the_study_keeps_its_folders_and_adds_one_for_new_seeds(tmp_path):
    out = tmp_path / "a study"
    short = {"PRETRAIN_STEPS": "60", "FINETUNE_STEPS": "20", "TRAIN_FLAGS": "", "SEEDS": "3 4 5", "JOBS": "1"}
    out.mkdir()
    (out / "folders").write_text("seed3-4\n")  # what an earlier start decided
    run("bash", "scripts/synthetic.sh", str(out), "--flr", "low", "1e-3", "high", **short)
    assert (out / "folders").read_text() == "seed3-4\nseed5\n"
    assert sorted(path.name for path in (out / "pretrain").iterdir()) == ["seed3-4", "seed5"]
    names = [f"seed{seeds}-flr{flr}" for seeds in ("3-4", "5") for flr in ("1e-3", "3.162278e-5", "7.498942e-3")]
    assert sorted(path.name for path in (out / "finetune").iterdir()) == names
    numbers = json.loads((out / "figures/figure15.json").read_text())
    assert set(numbers["finetune"][1]["n"]) == {15}
    assert json.loads((out / "claims.json").read_text())["claims"][0]["claim"] == "M1"


@pytest.mark.parametrize(
    "arguments", [("out", "1e-3"), ("--flr", "low"), ("out", "--flr", "low", "hihg"), ("--help",)]
)
def test_the_study_says_how_it_is_used(tmp_path, arguments):
    script = str(ROOT / "scripts/synthetic.sh")
    done = subprocess.run(["bash", script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: bash scripts/synthetic.sh")


def learning_rates(preset):
    return re.findall(r"[\d.]+(?:e-\d+)?", (ROOT / preset).read_text().split("--lr")[1])


def test_grids_of_the_synthetic_study():
    plrs, flrs = (learning_rates(f"scripts/{name}.args") for name in ("ticks", "ticks_flrs"))
    exponents = (
        [-4.5 + i / 4 for i in range(9)] + [-2.25 + i / 8 for i in range(8)] + [-1.25 + i / 4 for i in range(6)]
    )
    assert [float(lr) for lr in plrs] == [10**exponent for exponent in exponents]
    assert flrs == plrs[:11]  # the very numbers: training from scratch at an FLR is looked up among the PLRs


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "datasets/cifar10.pt"
    path.parent.mkdir()
    save_image_set(random_image_set(classes=10, train=24, test=20), path)
    return path


def test_narrow_sweep_trains_fine_tunes_and_averages(image_file, tmp_path):
    short = {"PLRS": "1e-3 1e-2", "FLRS": "1e-4", "EPOCHS": "2", "FINETUNE_EPOCHS": "1", "TRAIN_FLAGS": ""}
    run("bash", "scripts/cifar10_narrow.sh", str(image_file), str(tmp_path / "runs"), **short)
    complete = [
        path.parent.name for path in (tmp_path / "runs").rglob("metrics.json") if '"complete"' in path.read_text()
    ]
    assert sorted(complete) == sorted(
        ["plr1e-3", "plr1e-2", "plr1e-3-flr1e-4", "plr1e-2-flr1e-4", "plr1e-3", "plr1e-2"]
    )


def manual_block(index, changes, folder):
    """A block of commands in the manual, made shorter, and a folder to run it in."""
    block = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[index]
    for asked, shorter in changes:
        assert asked in block
        block = block.replace(asked, shorter)
    for name in ("train.py", "finetune.py", "swa.py", "analyze.py"):
        (folder / name).symlink_to(ROOT / name)
    return block


def test_the_sweep_of_the_manual_gives_its_figures(image_file, tmp_path):
    shorter = [
        ("python -m data cifar10\n", "ls datasets/cifar10.pt\n"),  # would download
        ("1e-4 1e-3 1e-2", "1e-4 1e-2"),
        ("--model si-convnet", "--model si-convnet --width 2"),
        ("--steps 200", "--steps 1"),
    ]
    sweep = manual_block(0, shorter, tmp_path)
    run("bash", "-euo", "pipefail", "-c", sweep, folder=tmp_path)
    assert {path.name for path in (tmp_path / "figures/cifar10").iterdir()} == {
        f"figure{number}.{kind}" for number in ("01", "02") for kind in ("pdf", "png", "json")
    }


def test_the_loop_of_the_manual_trains_side_by_side(image_file, tmp_path):
    shorter = [
        ("nvidia-cuda-mps-control -d ", "true "),
        ("1e-4 1e-3 1e-2 1e-1", "1e-4 1e-2"),
        ("--model si-convnet", "--model si-convnet --width 2"),
        ("--steps 200", "--steps 1"),
    ]
    run("bash", "-euo", "pipefail", "-c", manual_block(1, shorter, tmp_path), folder=tmp_path)
    runs = (tmp_path / "runs/cifar10/pretrain").iterdir()
    assert sorted(path.name for path in runs if '"complete"' in (path / "metrics.json").read_text()) == [
        "plr1e-2",
        "plr1e-4",
    ]
