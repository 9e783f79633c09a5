"""Learning rates and radii up to the ends of floats: trained, measured and drawn without a word, or refused in one line."""

import json
import warnings
from pathlib import Path

import pytest
from conftest import random_image_set
from test_runs import call, one_line, strict_json

from data.commandline import LIMITS, RADII
from data.images import save_image_set
from data.runs import find_runs

SMALLEST, LARGEST = LIMITS
ON_IMAGES = ["--data", "tiny.pt", "--batch-size", 4, "--steps", 2, "--width", 2]
NETWORKS = {
    "si-mlp": ["--data", "ticks", "--log-every", 2, "--steps", 4],
    "si-convnet": [*ON_IMAGES, "--model", "si-convnet"],
    "resnet18": [*ON_IMAGES, "--model", "resnet18"],
    "vit": [*ON_IMAGES, "--model", "vit", "--depth", 1, "--heads", 1],
}
DRAWN = {
    "si-mlp": ["figures", "--only", 15],
    "si-convnet": ["figures", "--only", 1],
    "resnet18": ["curves"],
    "vit": ["curves"],
}
BEYOND = ("1e308", "1e31", "1e-31", "1e-320", "1e309")


@pytest.fixture(autouse=True)
def strictly(tmp_path, monkeypatch):
    """In a folder with an image set, where a warning is an error, but for those about other versions of libraries."""
    monkeypatch.chdir(tmp_path)
    save_image_set(random_image_set(classes=3, train=14, test=6, side=8), "tiny.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def train_all(name, options=()):
    """Pre-train at the largest and the smallest rate and one between, and continue each run at both: what was at the
    largest has diverged, and the others have not."""
    for lr in (SMALLEST, 1e-3, LARGEST):
        assert call("train", *NETWORKS[name], *options, "--lr", lr, "--out", f"runs/pretrain/{lr}") == 0
    runs = [f"runs/pretrain/{lr}" for lr in (SMALLEST, 1e-3, LARGEST)]
    assert call("finetune", *runs, "--lr", *LIMITS, "--steps", 2, "--out", "runs/finetune") == 0
    swa = ["--windows", 2, 5, "--spacing", 1, "--anchor", "start", "--out", "runs/swa"]
    assert call("swa", *runs, *swa) == 0
    diverged = {True: [], False: []}
    for run in find_runs("runs"):
        diverged[LARGEST in run.members[0]["lrs"]].append(run.all_diverged)
    assert (
        all(diverged[True]) and not any(diverged[False]) and (len(diverged[True]), len(diverged[False])) == (6, 6)
    )


@pytest.mark.parametrize("name", ["si-mlp", "si-convnet"])
@pytest.mark.parametrize("rho", RADII)
def test_the_largest_and_the_smallest_radius(rho, name):
    train_all(name, ["--rho", rho])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_diverged_is_measured_and_drawn_without_a_warning(name, capfd):
    train_all(name)
    capfd.readouterr()
    sharpness = ["sharpness", "--end", "--images", 4, "--probes", 2]
    measuring = {"si-mlp": [["features"]], "si-convnet": [["bands"], sharpness]}.get(name, [["norms"]])
    for command, *more in (*measuring, ["geometry"], ["runs"], ["claims"], [*DRAWN[name], "--out", "figures"]):
        assert call("analyze", command, "runs", *more) == 0
    printed = capfd.readouterr()  # also what libraries print that are not in Python
    assert printed.err == "" and "On entry to" not in printed.out
    assert call("analyze", "boundary", "runs") in (0, 2)
    assert "train loss nan" in capfd.readouterr().err
    for path in Path("runs").rglob("*.json"):
        strict_json(path)


@pytest.mark.parametrize("number", BEYOND)
@pytest.mark.parametrize(
    "words",
    [
        ["train", *NETWORKS["si-mlp"], "--lr"],
        ["train", *NETWORKS["si-mlp"], "--lr", 1e-3, "--rho"],
        ["train", *NETWORKS["si-mlp"], "--lr", 1e-3, "--until-loss"],
        ["train", *NETWORKS["resnet18"], "--lr", 1e-3, "--weight-decay"],
        ["train", *NETWORKS["si-convnet"], "--lr", 1e-3, "--keep-loss"],
        ["finetune", "runs/none", "--steps", 1, "--lr"],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_numbers_that_training_does_not_hold_are_refused(words, number, capsys):
    assert call(*words, number, "--out", "runs") == 2
    error = one_line(capsys)
    low, high = ("1e-4", "1e4") if "--rho" in words else ("1e-30", "1e30")
    assert f"argument {words[-1]}: {number} is not a" in error and f"from {low} to {high} (see" in error


@pytest.mark.parametrize(
    "change",
    [{"rho": 1e308}, {"lrs": [1e308]}, {"optimizer": {"name": "sgd", "weight_decay": 1e308}}],
    ids=lambda change: next(iter(change)),
)
def test_such_numbers_in_a_run_folder_are_refused(change, capsys):
    assert call("train", *NETWORKS["si-mlp"], "--lr", 1e-3, "--out", "runs/a") == 0
    config = strict_json(Path("runs/a/config.json"))
    (config["members"][0] if "lrs" in change else config["settings"]).update(change)
    Path("runs/a/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert call("finetune", "runs/a", "--lr", 1e-4, "--steps", 2, "--out", "out") == 2
    assert "is 1e+308, more than" in one_line(capsys)
    assert call("analyze", "claims", "runs") == 2
    assert "is 1e+308, more than" in one_line(capsys)
