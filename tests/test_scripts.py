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


def test_demo_trains_fine_tunes_averages_measures_and_draws(tmp_path):
    short = {"PRETRAIN_STEPS": "300", "FINETUNE_STEPS": "100"}
    output = run("bash", "scripts/demo.sh", str(tmp_path), **short)
    assert "What to expect" in output
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"figure{number}.{kind}" for number in ("04", "05", "15") for kind in ("pdf", "png", "json")
    }
    numbers = json.loads((tmp_path / "figures/figure15.json").read_text())
    assert len(numbers["pretrain"]["plr"]) == 23 and set(numbers["pretrain"]["n"]) == {10}
    assert [curve["window"] for curve in numbers["swa"]] == [2, 5, 10, 20, 50]


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


def test_the_sweep_of_the_manual_gives_its_figures(image_file, tmp_path):
    [sweep] = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for asked, shorter in (
        ("python -m data cifar10\n", "ls datasets/cifar10.pt\n"),  # would download
        ("1e-4 1e-3 1e-2", "1e-4 1e-2"),
        ("--model si-convnet", "--model si-convnet --width 2"),
        ("--steps 200", "--steps 1"),
    ):
        assert asked in sweep
        sweep = sweep.replace(asked, shorter)
    for name in ("train.py", "finetune.py", "swa.py", "analyze.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    run("bash", "-euo", "pipefail", "-c", sweep, folder=tmp_path)
    assert {path.name for path in (tmp_path / "figures/cifar10").iterdir()} == {
        f"figure{number}.{kind}" for number in ("01", "02") for kind in ("pdf", "png", "json")
    }
