"""Training of the practical ResNet and the ViT against plain loops, and their stages, at a small size."""

import pytest
import torch
from conftest import random_image_set
from test_new_network import flat, weights
from test_runs import call, load, strict_json
from torch.nn import functional as F

import models
import train
from data import augment
from data.images import epoch_order, load_image_set, normalise, save_image_set
from data.runs import Run
from data.seeds import init_seed, seed_of
from models.dropout import use_generator

SIDE, CLASSES, BATCH = 8, 3, 16
SHAPES = {"resnet18": {}, "vit": {"side": SIDE, "depth": 1, "heads": 3, "patch": 4}}
WIDTHS = {"resnet18": 2, "vit": 12}
LRS = {"resnet18": 0.02, "vit": 1e-3}
OPTIMIZERS = {  # as published, or, of the ResNet, chosen
    "resnet18": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 5e-4}),
    "vit": (torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4}),
}
practical = pytest.mark.parametrize("name", list(SHAPES))


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "random.pt"
    save_image_set(random_image_set(classes=CLASSES, train=40, test=20, side=SIDE), path)
    return path


def command(name, image_file, lr=None):
    shape = [word for key, value in SHAPES[name].items() if key != "side" for word in (f"--{key}", value)]
    size = ["--width", WIDTHS[name], "--batch-size", BATCH, *shape]
    return ["train", "--data", image_file, "--model", name, *size, "--lr", lr or LRS[name]]


def plain_training(name, image_file, epochs):
    """The network after some epochs with an optimiser over its single parameters, images taken one by one."""
    images = load_image_set(image_file)
    network = models.build(name, WIDTHS[name], CLASSES, init_seed(1), **SHAPES[name]).train()
    kind, options = OPTIMIZERS[name]
    optimizer = kind(network.parameters(), lr=LRS[name], **options)
    random = torch.Generator()
    use_generator(network, random)
    for epoch in range(epochs):
        random.manual_seed(seed_of("network", 1, epoch))
        pixels = images.train_images
        if name == "vit":
            pixels = augment.randaugment(pixels, augment.randaugment_choices(1, epoch, len(pixels)))
        # Places in the sample order, not images, draw crops and flips.
        draws = augment.crops_and_flips(1, epoch, len(pixels), SIDE).split(BATCH)
        for chosen, of_batch in zip(epoch_order(1, epoch, len(pixels)).split(BATCH), draws):
            cropped = torch.stack([plain_crop(pixels[i], *draw) for i, draw in zip(chosen, of_batch.tolist())])
            optimizer.zero_grad()
            F.cross_entropy(network(normalise(cropped)), images.train_labels[chosen]).backward()
            optimizer.step()
    return network


def plain_crop(image, top, left, flip):
    padded = F.pad(image, [SIDE // 8] * 4)[:, top : top + SIDE, left : left + SIDE]
    return padded.flip(2) if flip else padded


@practical
def test_training_follows_a_plain_loop(name, image_file, tmp_path):
    assert call(*command(name, image_file), "--steps", 3, "--out", tmp_path / "run") == 0
    network = plain_training(name, image_file, epochs=3)
    # Adam divides by the root of tiny second moments, which makes rounding grow.
    tolerance = {"resnet18": 1e-5, "vit": 1e-4}[name]
    torch.testing.assert_close(weights(tmp_path / "run"), flat(network), rtol=1e-3, atol=tolerance)
    initial = flat(models.build(name, WIDTHS[name], CLASSES, init_seed(1), **SHAPES[name]))
    assert (flat(network) - initial).abs().max() > 20 * tolerance


def task_of(name, image_file, device="cpu"):
    record, device = models.NETWORKS[name], torch.device(device)
    settings = {"model": name, "width": WIDTHS[name], "shape": SHAPES[name], "optimizer": record.optimizer}
    settings |= {"augment": record.augment, "batch_size": BATCH, "rho": None, "compile": False}
    settings |= {"precision": "fp32", "first_step": 0}
    member = {"lrs": [LRS[name]], "seed": 1}
    return train.ImageTraining(settings, [member], device, load_image_set(image_file, device))


@practical
def test_replayed_steps_are_the_same(name, image_file, recorded):
    plain, replayed = task_of(name, image_file), task_of(name, image_file)
    replayed._step = recorded(replayed._step)
    replayed.replays = {}  # as on a GPU
    for epoch in range(2):
        assert replayed.advance(epoch, epoch + 1) == plain.advance(epoch, epoch + 1)
    assert sorted(replayed.replays) == [8, 16]
    torch.testing.assert_close(replayed.state(), plain.state(), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@practical
def test_a_cuda_graph_captures_the_whole_step(name, image_file):
    plain, replayed = task_of(name, image_file, "cuda"), task_of(name, image_file, "cuda")
    plain.replays = None
    for epoch in range(3):
        plain.advance(epoch, epoch + 1), replayed.advance(epoch, epoch + 1)
    torch.testing.assert_close(replayed.state(), plain.state(), rtol=1e-3, atol=1e-5)


def test_augmented_images_of_an_epoch_come_from_those_of_the_set(image_file):
    """Not from those of the epoch before."""
    before, task = load_image_set(image_file).train_images, task_of("vit", image_file)
    place = task.train_images.data_ptr()
    task.advance(0, 2)
    expected = augment.randaugment(before, augment.randaugment_choices(1, 1, len(before)))
    assert torch.equal(task.train_images, expected) and task.train_images.data_ptr() == place
    assert torch.equal(task.data.train_images, before)


@practical
def test_killed_runs_end_in_the_same_bits_and_swa_passes_the_weights_of_the_longer_run(
    name, image_file, tmp_path, monkeypatch
):
    whole = [*command(name, image_file), "--steps", 7, "--keep", *range(8)]
    assert call(*whole, "--out", tmp_path / "whole") == 0
    interrupted_at, advance = set(), train.ImageTraining.advance

    def interrupt_once(self, step, until):
        if step in (1, 4) and step not in interrupted_at:
            interrupted_at.add(step)
            raise KeyboardInterrupt
        return advance(self, step, until)

    with monkeypatch.context() as patch:
        patch.setattr(train.ImageTraining, "advance", interrupt_once)
        assert [call(*whole, "--out", tmp_path / "killed") for _ in range(3)] == [130, 130, 0]
    for path in (tmp_path / "whole").glob("*.pt"):
        torch.testing.assert_close(load(tmp_path / "killed" / path.name), load(path), rtol=0, atol=0)
    assert strict_json(tmp_path / "killed/metrics.json") == strict_json(tmp_path / "whole/metrics.json")

    # The ResNet's windows start at the run's end, those of the ViT end there, two epochs apart.
    keep, steps, passed = {"resnet18": ([], 4, [4, 5, 6]), "vit": (["--keep", 3], 7, [3, 5, 7])}[name]
    assert call(*command(name, image_file), "--steps", steps, *keep, "--out", tmp_path / "short") == 0
    assert call("swa", tmp_path / "short", "--windows", 2, 3, "--out", tmp_path / "swa") == 0
    of_windows = {2: {"resnet18": passed[:2], "vit": passed[1:]}[name], 3: passed}
    for window, epochs in of_windows.items():
        mean = sum(weights(tmp_path / "whole", f"step-{epoch}") for epoch in epochs) / window
        torch.testing.assert_close(weights(tmp_path / "swa/short", f"swa-{window}"), mean, rtol=1e-6, atol=1e-7)
    assert torch.equal(weights(tmp_path / "swa/short"), weights(tmp_path / "whole", f"step-{passed[-1]}"))


def test_optimisers_are_as_in_the_paper_unless_told_otherwise(image_file, tmp_path):
    for words, optimizer in (
        ([], {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4}),
        (["--momentum", 0.5, "--weight-decay", 0], {"name": "sgd", "momentum": 0.5, "weight_decay": 0.0}),
    ):
        folder = tmp_path / f"run{len(words)}"
        assert call(*command("resnet18", image_file), *words, "--steps", 1, "--out", folder) == 0
        assert Run(folder).settings["optimizer"] == optimizer
    assert not torch.equal(weights(tmp_path / "run0"), weights(tmp_path / "run4"))
    assert Run(tmp_path / "run0").settings["augment"] == "crop-flip"
    assert models.NETWORKS["vit"].augment == "randaugment"


@pytest.mark.parametrize(
    "name, words, message",
    [
        ("resnet18", ["--depth", 2], "--depth: is not for resnet18"),
        ("vit", ["--momentum", 0.9], "--momentum: is not for vit"),
        ("vit", ["--heads", 5], "vit: 5 heads do not divide a width of 12"),
        ("vit", ["--patch", 3], "vit: patches of 3 pixels do not fill images of 8"),
        ("resnet18", ["--weight-decay", -1], "a finite number of at least 0"),
        ("resnet18", ["--momentum", 1], "a number of at least 0 and below 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, words, message, image_file, tmp_path, capsys):
    assert call(*command(name, image_file), *words, "--steps", 1, "--out", tmp_path / "run") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()
