"""A network that the project does not know, added by one record: all stages and measurements work for it as they are.

It is trained by SGD with momentum and weight decay, off the sphere, is not scale-invariant, and uses dropout.
"""

import dataclasses
import math

import pytest
import torch
from conftest import random_image_set
from test_runs import call, load, strict_json
from torch import nn
from torch.nn import functional as F

import analyze
import models
import train
from data.images import epoch_order, load_image_set, normalise, save_image_set
from data.runs import Run
from data.seeds import init_seed, seed_of
from models.dropout import Dropout, use_generator
from models.geometry import BarrierProtocol

MOMENTUM, WEIGHT_DECAY, LR, BATCH = 0.9, 0.01, 0.02, 16


class MadeUp(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = Dropout(0.2)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        return self.classifier(self.dropout(F.relu(self.norm(self.convolution(x))).mean(dim=(2, 3))))


RECORD = models.Network(
    task="images",
    kind="convolutional",
    build=MadeUp,
    optimizer={"name": "sgd", "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY},
    barrier=BarrierProtocol(points=5, on_sphere=False, batch_norm=True, floor=0.01),
    swa_anchor="end",
    swa_spacing=2,
    width=4,
    batch_size=BATCH,
    smallest_image=6,
    lr_label="step size",
    in_angles=lambda name, parameter: parameter.ndim == 4,
)


@pytest.fixture(scope="module", autouse=True)
def made_up():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.NETWORKS, "made-up", RECORD)
        yield


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "random.pt"
    save_image_set(random_image_set(classes=3, train=40, test=20, side=6), path)
    return path


@pytest.fixture(scope="module")
def command(image_file):
    return ["train", "--data", image_file, "--model", "made-up", "--lr", LR, "--augment", "crop-flip"]


@pytest.fixture(scope="module")
def pretrained(command, tmp_path_factory):
    """A run of 6 epochs that keeps each of them."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    assert call(*command, "--steps", 6, "--keep", *range(7), "--out", folder) == 0
    return folder


def weights(folder, name="checkpoint"):
    return load(folder / f"{name}.pt")["weights"][0]


def flat(network):
    """All parameters in order, kernels as [out, height, width, in]."""
    ordered = (p.permute(0, 2, 3, 1) if p.ndim == 4 else p for p in network.parameters())
    return torch.cat([parameter.detach().flatten() for parameter in ordered])


class PlainLoop:
    """The training with an optimiser over single parameters and no augmentation."""

    def __init__(self, image_file, seed=1):
        self.images, self.seed = load_image_set(image_file), seed
        self.network = models.build("made-up", RECORD.width, 3, init_seed(seed)).train()
        self.random = torch.Generator()
        use_generator(self.network, self.random)
        self.new_optimizer(LR)

    def new_optimizer(self, lr):
        options = {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=lr, **options)

    def train(self, epochs):
        for epoch in epochs:
            self.random.manual_seed(seed_of("network", self.seed, epoch))
            for chosen in epoch_order(self.seed, epoch, len(self.images.train_labels)).split(BATCH):
                self.optimizer.zero_grad()
                logits = self.network(normalise(self.images.train_images[chosen]))
                F.cross_entropy(logits, self.images.train_labels[chosen]).backward()
                self.optimizer.step()


def test_training_and_fine_tuning_follow_a_plain_loop(image_file, tmp_path):
    made = ["--data", image_file, "--model", "made-up", "--lr", LR, "--steps", 3, "--out", tmp_path / "run"]
    assert call("train", *made) == 0
    assert call("finetune", tmp_path / "run", "--lr", LR / 10, "--steps", 2, "--out", tmp_path) == 0
    [child] = tmp_path.glob("run-flr*")
    plain = PlainLoop(image_file)
    plain.train(range(3))
    torch.testing.assert_close(weights(tmp_path / "run"), flat(plain.network), rtol=1e-4, atol=1e-6)
    plain.new_optimizer(LR / 10)  # a stage begins with fresh momentum
    plain.train(range(3, 5))
    torch.testing.assert_close(weights(child), flat(plain.network), rtol=1e-4, atol=1e-6)


def test_the_record_gives_the_defaults_and_what_the_analysis_needs(pretrained):
    run = Run(pretrained)
    of_record = ("optimizer", "batch_size", "width", "rho")
    assert {name: run.settings[name] for name in of_record} == {
        "optimizer": RECORD.optimizer,
        "batch_size": BATCH,
        "width": 4,
        "rho": None,
    }
    assert run.network == {
        "task": "images",
        "kind": "convolutional",
        "lr_label": "step size",
        "converged": 0.999,
        "diverges": True,
        "barrier": {"points": 5, "on_sphere": False, "batch_norm": True, "floor": 0.01},
    }


def test_a_killed_run_ends_in_the_same_bits(command, pretrained, tmp_path, monkeypatch):
    """Momentum and dropout included."""
    interrupted_at, advance = set(), train.ImageTraining.advance

    def interrupt_once(self, step, until):
        if step in (1, 2, 4) and step not in interrupted_at:
            interrupted_at.add(step)
            raise KeyboardInterrupt
        return advance(self, step, until)

    monkeypatch.setattr(train.ImageTraining, "advance", interrupt_once)
    whole = [*command, "--steps", 6, "--keep", *range(7), "--out", tmp_path / "run"]
    assert [call(*whole) for _ in range(4)] == [130, 130, 130, 0]
    for path in pretrained.glob("*.pt"):
        torch.testing.assert_close(load(tmp_path / "run" / path.name), load(path), rtol=0, atol=0)
    assert strict_json(tmp_path / "run/metrics.json") == strict_json(pretrained / "metrics.json")


def test_replayed_steps_include_the_momentum_and_draw_on(image_file, recorded):
    settings = {"model": "made-up", "width": 4, "optimizer": RECORD.optimizer, "batch_size": BATCH, "rho": None}
    settings |= {"compile": False, "precision": "fp32", "augment": "none", "first_step": 0, "shape": {}}
    member, image_set = {"lrs": [LR], "seed": 1}, load_image_set(image_file)
    plain, replayed = (train.ImageTraining(settings, [member], torch.device("cpu"), image_set) for _ in range(2))
    replayed._step = recorded(replayed._step)
    replayed.replays = {}  # as on a GPU
    for epoch in range(3):
        assert replayed.advance(epoch, epoch + 1) == plain.advance(epoch, epoch + 1)
    assert sorted(replayed.replays) == [8, 16]
    torch.testing.assert_close(replayed.state(), plain.state(), rtol=0, atol=0)
    # A stage that starts from a solution has fresh momentum, one that resumes does not.
    solution = plain.state()
    plain.start_from(solution)
    assert not plain.state()["optimizer"]["momentum_buffer"].any()
    plain.resume(solution)
    torch.testing.assert_close(plain.state(), solution, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_cuda_graph_captures_optimiser_and_dropout(image_file, name):
    cuda, options = torch.device("cuda", 0), RECORD.optimizer if name == "sgd" else {"name": "adam"}
    settings = {"model": "made-up", "width": 4, "optimizer": options, "batch_size": BATCH, "rho": None}
    settings |= {"compile": False, "precision": "fp32", "augment": "crop-flip", "first_step": 0, "shape": {}}
    member, image_set = {"lrs": [1e-3], "seed": 1}, load_image_set(image_file, cuda)
    plain, replayed = (train.ImageTraining(settings, [member], cuda, image_set) for _ in range(2))
    plain.replays = None
    for epoch in range(3):
        plain.advance(epoch, epoch + 1), replayed.advance(epoch, epoch + 1)
    torch.testing.assert_close(replayed.state(), plain.state(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rho": 2.0}, "rho"),
        ({"optimizer": {"name": "projected-sgd"}}, "rho"),
        ({"barrier": BarrierProtocol(5, on_sphere=True, batch_norm=True, floor=0.1)}, "on the sphere"),
        ({"optimizer": {"name": "sgd", "momentum": 0.9, "dampening": 0.5}}, "dampening"),
        ({"task": "ticks"}, "models.mlp"),
    ],
)
def test_records_whose_entries_do_not_fit_together(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECORD, **changes)


def test_averaging_goes_on_with_the_momentum_and_fine_tuning_without(command, pretrained, tmp_path):
    assert call("swa", pretrained, "--windows", 2, 3, "--out", tmp_path / "swa") == 0
    swa = tmp_path / "swa/run"
    assert [Run(swa).settings[name] for name in ("anchor", "spacing", "first_step")] == ["end", 2, 2]
    torch.testing.assert_close(
        load(swa / "checkpoint.pt")["optimizer"], load(pretrained / "step-6.pt")["optimizer"]
    )
    assert torch.equal(weights(swa), weights(pretrained))
    passed = {step: weights(pretrained, f"step-{step}") for step in (2, 4, 6)}
    torch.testing.assert_close(weights(swa, "swa-3"), sum(passed.values()) / 3)
    torch.testing.assert_close(weights(swa, "swa-2"), (passed[4] + passed[6]) / 2)
    from_4 = ["--from-step", 4, "--lr", LR, "--steps", 2]
    assert call("finetune", pretrained, *from_4, "--out", tmp_path) == 0
    [tuned] = tmp_path.glob("run-flr*")
    assert not torch.allclose(weights(tuned), weights(pretrained))
    assert Run(tuned).weights()["optimizer"].keys() == {"momentum_buffer"}


def test_it_is_measured_and_drawn_as_its_record_says(command, image_file, tmp_path, monkeypatch):
    def measure(*arguments):
        monkeypatch.setattr("sys.argv", ["analyze.py", *map(str, arguments)])
        analyze.main()

    runs, flrs = tmp_path / "runs", ["1e-4", "1e-3"]
    for plr in ("1e-3", "1e-1"):
        made = [*command[:5], "--lr", plr, "--steps", 10, "--keep", 2, "--keep-loss", 1.09]
        assert call(*made, "--out", runs / f"pretrain/plr{plr}") == 0
    folders = sorted((runs / "pretrain").iterdir())
    assert call("finetune", *folders, "--lr", *flrs, "--steps", 2, "--out", runs / "finetune") == 0
    assert call("swa", *folders, "--windows", 2, 5, "--out", runs / "swa") == 0
    for what in ("geometry", "bands", "norms"):
        measure(what, runs)
    [geometry] = [strict_json(path) for path in (runs / "pretrain/plr1e-1").glob("geometry-*.json")]
    assert geometry["protocol"] == RECORD.barrier._asdict()
    kernels = MadeUp(4, 3).convolution.weight.numel()  # come first among the weights
    low, high = (weights(runs / f"finetune/plr1e-1-flr{flr}")[:kernels].double() for flr in flrs)
    cosine = (low @ high / (low.norm() * high.norm())).item()
    assert geometry["angle"]["LH"][0] == pytest.approx(math.acos(min(1, cosine)), abs=1e-6)
    norms = strict_json(runs / "finetune/plr1e-1-flr1e-3/norms.json")["checkpoint"][0]
    of_filters = high.view(4, -1).norm(dim=1)
    assert norms == pytest.approx((of_filters / of_filters.norm()).tolist(), rel=1e-5)
    assert_barriers_are_those_of_a_plain_measurement(geometry, runs, image_file, flrs)
    measure("figures", runs, "--out", tmp_path / "figures", "--only", 1, 2, 3, 6, 7)
    measure("claims", runs)
    for number in (1, 2, 3, 7):
        numbers = strict_json(tmp_path / f"figures/figure{number:02d}.json")
        assert numbers["lr_label"] == "step size"
        assert (tmp_path / f"figures/figure{number:02d}.pdf").exists()
    assert strict_json(tmp_path / "figures/figure03.json")["floor"] == 0.01


def assert_barriers_are_those_of_a_plain_measurement(geometry, runs, image_file, flrs):
    """Straight lines through all parameters; batches of 128, so that one holds all 40 training images."""
    image_set = load_image_set(image_file)
    ends = [weights(runs / f"finetune/plr1e-1-flr{flr}") for flr in flrs]
    network = MadeUp(4, 3)

    def errors(vector):
        pieces = vector.split([parameter.numel() for parameter in network.parameters()])
        for parameter, piece in zip(network.parameters(), pieces):
            if parameter.ndim == 4:
                outputs, inputs, height, width = parameter.shape
                piece = piece.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
            parameter.data.copy_(piece.view_as(parameter))
        network.eval()
        network.norm.train().momentum = 1.0
        with torch.no_grad():
            logits = [network(normalise(image_set.train_images)), network.eval()(normalise(image_set.test_images))]
        labels = (image_set.train_labels, image_set.test_labels)
        return torch.tensor(
            [100 * (found.argmax(1) != label).double().mean() for found, label in zip(logits, labels)]
        )

    on_line = [errors(torch.lerp(*ends, alpha)) for alpha in (0, 0.25, 0.5, 0.75, 1)]
    straight = [torch.lerp(on_line[0], on_line[-1], alpha) for alpha in (0, 0.25, 0.5, 0.75, 1)]
    barriers = torch.stack([a - b for a, b in zip(on_line, straight)]).amax(0).clamp_min(0)
    found = [geometry[f"{split}_barrier"]["LH"][0] for split in ("train", "test")]
    assert found == pytest.approx(barriers.tolist(), abs=1e-4)


def test_what_does_not_fit_the_network_is_refused_in_one_line(command, image_file, tmp_path, capsys):
    for wrong, message in (
        (["--rho", 3], "--rho 3: made-up is not trained on a sphere"),
        (["--data", "ticks", "--augment", "none"], "--model made-up: is not for ticks; use si-mlp"),
        (["--model", "si-mlp"], "--model si-mlp: is not for images; use"),
    ):
        assert call(*command, "--steps", 1, *wrong, "--out", tmp_path / "run") == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_network_that_is_gone_says_so(pretrained, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(models.NETWORKS, "made-up")
    assert call("finetune", pretrained, "--lr", 1e-3, "--steps", 1, "--out", tmp_path / "tuned") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "made-up" in line and "models.NETWORKS" in line
    assert not (tmp_path / "tuned").exists()
