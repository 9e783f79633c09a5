"""The shell scripts' main paths, on training too short to mean anything."""

import json
import os
import subprocess
from pathlib import Path

import numpy
from PIL import Image

ROOT = Path(__file__).parent.parent


def bash(*command, **environment):
    """Run a command from the repository's root; returns its output."""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo_trains_fine_tunes_averages_measures_and_draws(tmp_path):
    short = {"PRETRAIN_STEPS": "300", "FINETUNE_STEPS": "100", "SWA_SPACING": "2"}
    output = bash("bash", "scripts/demo.sh", str(tmp_path), **short)
    assert "What to expect" in output
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"figure{number}.{kind}" for number in ("04", "05", "15") for kind in ("pdf", "png", "json")
    }
    numbers = json.loads((tmp_path / "figures/figure15.json").read_text())
    assert len(numbers["pretrain"]["plr"]) == 23 and set(numbers["pretrain"]["n"]) == {10}
    assert [curve["window"] for curve in numbers["swa"]] == [2, 5, 10, 20, 50]


def test_narrow_sweep_trains_fine_tunes_and_averages(tmp_path):
    random = numpy.random.default_rng(0)
    for split, number in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    data = str(tmp_path / "toy.pt")
    bash("python", "-m", "data", "folder", "--source", str(tmp_path), "--out", data)
    short = {"PLRS": "1e-3 1e-2", "FLRS": "1e-4", "EPOCHS": "2", "FINETUNE_EPOCHS": "1", "TRAIN_FLAGS": ""}
    bash("bash", "scripts/cifar10_narrow.sh", data, str(tmp_path / "runs"), **short)
    complete = [
        path.parent.name for path in (tmp_path / "runs").rglob("metrics.json") if '"complete"' in path.read_text()
    ]
    assert sorted(complete) == sorted(
        ["plr1e-3", "plr1e-2", "plr1e-3-flr1e-4", "plr1e-2-flr1e-4", "plr1e-3", "plr1e-2"]
    )
