"""Last batches of a single image, of which batch norm can take no statistics where its map has one pixel."""

import pytest
import torch
from conftest import random_image_set
from test_runs import call, one_line, strict_json

import analyze
import models
from data.commandline import BadInput
from data.images import save_image_set
from models.batchnorm import leaves_one
from models.evaluator import Evaluator

DEVICE = torch.device("cpu")


def test_leaves_one_is_what_split_does():
    for count in range(1, 40):
        for size in range(1, 42):
            assert leaves_one(count, size) == (len(torch.zeros(count).split(size)[-1]) == 1)


@pytest.mark.parametrize(
    "name, side, taken",
    [
        ("resnet18", 8, False),
        ("si-resnet18", 8, False),
        ("resnet18", 16, True),
        ("si-convnet", 8, True),
        ("vit", 8, True),
    ],
)
def test_which_networks_take_single_images(name, side, taken):
    shape = {"side": side, "patch": 4, "depth": 1, "heads": 2} if name == "vit" else {}
    evaluator = Evaluator(models.build(name, 4, 3, init_seed=0, **shape), DEVICE)
    before = {key: tensor.clone() for key, tensor in evaluator.network.state_dict().items()}
    assert evaluator.takes_single_images(side) == taken
    torch.testing.assert_close(evaluator.network.state_dict(), before, rtol=0, atol=0)
    if not taken:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            evaluator.network.train()(torch.zeros(1, 3, side, side))


def train(tmp_path, count, batch_size, name="resnet18", side=8):
    path = tmp_path / f"{count}.pt"
    save_image_set(random_image_set(classes=3, train=count, test=7, side=side), path)
    size = ["--model", name, "--width", 2, "--batch-size", batch_size, "--lr", 1e-3, "--steps", 1]
    return call("train", "--data", path, *size, "--out", tmp_path / "runs" / "pretrain" / f"{count}-{batch_size}")


@pytest.mark.parametrize(
    "count, batch_size, message",
    [
        (
            33,
            8,
            "--batch-size 8: leaves one of 33 training images for the last batch, and batch norm of resnet18 needs two",
        ),
        (33, 32, "of 8 pixels in every batch; use 33"),
        (9, 1, "--batch-size 1: leaves one of 9 training images for the last batch"),
        (9, 2, "use 3"),
        (
            129,
            64,
            "of 129 training images one is left for the last batch of 128, in which statistics are re-estimated",
        ),
        (129, 100, "prepare another number (--train-per-class)"),
        (1, 8, "of 1 training images one is left"),
    ],
)
def test_single_images_are_refused_before_the_run_begins(tmp_path, count, batch_size, message, capsys):
    assert train(tmp_path, count, batch_size) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "count, batch_size, name, side",
    [
        (33, 33, "resnet18", 8),  # as one of the messages says
        (34, 16, "resnet18", 8),
        (33, 32, "resnet18", 16),
        (129, 64, "si-convnet", 8),
        (3, 1, "si-convnet", 8),
    ],
)
def test_all_others_are_trained_on(tmp_path, count, batch_size, name, side):
    assert train(tmp_path, count, batch_size, name, side) == 0
    metrics = strict_json(tmp_path / "runs" / "pretrain" / f"{count}-{batch_size}" / "metrics.json")
    assert metrics["status"] == "complete" and None not in metrics["train_loss"][-1]


def test_sharpness_on_a_batch_of_one_is_refused(tmp_path, monkeypatch):
    assert train(tmp_path, 130, 64) == 0
    command = ["analyze.py", "sharpness", str(tmp_path / "runs"), "--end", "--probes", "2", "--images"]
    for images, fix in ((129, 128), (1, 2)):
        monkeypatch.setattr("sys.argv", [*command, str(images)])
        message = f"--images {images}: leaves one of {images} images for the last batch, .*; use {fix}$"
        with pytest.raises(BadInput, match=message):
            analyze.main()
        monkeypatch.setattr("sys.argv", [*command, str(fix)])
        analyze.main()
        (tmp_path / "runs" / "pretrain" / "130-64" / "sharpness-checkpoint.json").unlink()
