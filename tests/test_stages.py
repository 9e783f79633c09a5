"""Pre-training, fine-tuning and SWA as commands: what they do to weights, and what they make of bad arguments."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import needs_bf16, random_image_set
from test_runs import call, contents, load, one_line, strict_json
from torch.nn import functional as F

import models
import train
from data import ticks
from data.images import epoch_order, load_image_set, load_once, normalise, save_image_set
from data.runs import Run, loss_name
from models import compiled
from swa import WindowAverages

ROOT = Path(__file__).parent.parent
KINDS = ["ticks", "images"]
PACE = {"ticks": 10, "images": 1}  # steps between measurements; a pass over the ticks has 32
UNIT = {"ticks": "iteration", "images": "epoch"}
RHO = {"ticks": 1.0, "images": 12.0}
SERIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "random.pt"
    save_image_set(random_image_set(classes=3, train=150, test=20, side=8), path)
    return path


@pytest.fixture(scope="session")
def arguments(image_file):
    """Of train.py, but for --steps and --out. Both learning rates keep weights moving."""
    return {
        "ticks": ["--data", "ticks", "--lr", 1e-2, "--seed", 1, 2, "--log-every", 10],
        "images": ["--data", image_file, "--model", "si-convnet", "--width", 2, "--batch-size", 32, "--lr", 1e-2],
    }


@pytest.fixture(scope="session")
def pretrained(arguments, tmp_path_factory):
    """pretrained[kind, units]: folders of runs of 4 and of 7 units (see PACE); the latter keep units 4 to 7."""
    folders = {}
    for kind in KINDS:
        for units, keep in ((4, []), (7, [4, 5, 6, 7])):
            folder = tmp_path_factory.mktemp("pretrained") / f"{kind}{units}"
            kept = ["--keep", *(step * PACE[kind] for step in keep)] if keep else []
            assert call("train", *arguments[kind], "--steps", units * PACE[kind], *kept, "--out", folder) == 0
            folders[kind, units] = folder
    return folders


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def weights(folder, name="checkpoint"):
    return load(folder / f"{name}.pt")["weights"]


def metrics(folder):
    return strict_json(folder / "metrics.json")


# Pre-training


def test_ticks_follow_a_plain_loop(float64, tmp_path):
    lrs = [1e-3, 1e-2]
    made = ["--lr", *lrs, "--seed", 3, "--data-seed", 2, "--steps", 40, "--keep", 0, "--log-every", 15]
    assert call("train", "--data", "ticks", *made, "--out", tmp_path / "run") == 0
    data, start = ticks.tick_sets(2), load(tmp_path / "run" / "step-0.pt")
    frozen = start["buffers"]["frozen"]
    final, losses = [], []

    def logits(layers, inputs):
        for layer in layers:
            inputs = F.layer_norm(inputs @ layer.T, (32,), eps=1e-7).relu()
        return (inputs @ frozen.T)[:, 0]

    for lr, initial in zip(lrs, start["weights"], strict=True):
        layers = initial.view(2, 32, 32)
        for step in range(40):
            order = epoch_order(3, step // 32, 512)[16 * (step % 32) :][:16]
            layers.requires_grad_()
            batch_logits = logits(layers, data.train_inputs[order])
            loss = F.binary_cross_entropy_with_logits(batch_logits, data.train_labels[order].double())
            moved = layers.detach() - lr * torch.autograd.grad(loss, layers)[0]
            layers = moved / moved.norm()
        final.append(layers.flatten())
        logits_at_end = logits(layers, data.test_inputs)
        losses.append(F.binary_cross_entropy_with_logits(logits_at_end, data.test_labels.double()).item())
    assert_equal(start["weights"][0], start["weights"][1])
    torch.testing.assert_close(weights(tmp_path / "run"), torch.stack(final), rtol=0, atol=1e-9)
    assert metrics(tmp_path / "run")["test_loss"][-1] == pytest.approx(losses, rel=1e-6)  # of the digits on disk
    assert metrics(tmp_path / "run")["step"] == [0, 15, 30, 40]


def test_many_seeds_in_a_folder_equal_folders_of_their_own(float64, tmp_path):
    common = ["train", "--data", "ticks", "--steps", 40, "--log-every", 40]
    assert call(*common, "--lr", 1e-3, 1e-2, "--seed", 1, 2, "--data-seed", 5, 6, "--out", tmp_path / "all") == 0
    members = Run(tmp_path / "all").members
    assert [(m["data_seed"], m["seed"], m["lrs"]) for m in members] == [
        (data_seed, seed, [lr]) for data_seed in (5, 6) for seed in (1, 2) for lr in (1e-3, 1e-2)
    ]
    for index, member in enumerate(members):
        folder = tmp_path / str(index)
        seeds = ["--seed", member["seed"], "--data-seed", member["data_seed"]]
        assert call(*common, "--lr", *member["lrs"], *seeds, "--out", folder) == 0
        torch.testing.assert_close(weights(folder)[0], weights(tmp_path / "all")[index], rtol=0, atol=1e-9)
        for name in SERIES:
            ours, alone = metrics(tmp_path / "all")[name], metrics(folder)[name]
            assert [row[index] for row in ours] == pytest.approx([row[0] for row in alone], rel=1e-6)


def test_repeated_seeds_are_one_member(tmp_path):
    assert call("train", *TICK_RUN, "--seed", 1, 2, 1, "--data-seed", 4, 4, "--out", tmp_path / "run") == 0
    assert [(m["seed"], m["data_seed"]) for m in Run(tmp_path / "run").members] == [(1, 4), (2, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_kept_steps_are_those_asked_for_and_change_nothing(kind, pretrained):
    pace = PACE[kind]
    assert {path.name for path in pretrained[kind, 4].glob("*.pt")} == {"checkpoint.pt"}
    kept = {f"step-{units * pace}.pt" for units in (4, 5, 6, 7)}
    assert {path.name for path in pretrained[kind, 7].glob("*.pt")} == {"checkpoint.pt", *kept}
    assert_equal(load(pretrained[kind, 7] / f"step-{4 * pace}.pt"), load(pretrained[kind, 4] / "checkpoint.pt"))
    assert_equal(load(pretrained[kind, 7] / f"step-{7 * pace}.pt"), load(pretrained[kind, 7] / "checkpoint.pt"))


@pytest.mark.parametrize("kind", KINDS)
def test_measuring_and_keeping_change_nothing(kind, arguments, pretrained, tmp_path):
    often = ["--log-every", 3, "--keep", 0, 2, 2, "--checkpoint-seconds", 0]
    assert call("train", *arguments[kind], "--steps", 4 * PACE[kind], *often, "--out", tmp_path / "run") == 0
    assert {path.stem for path in (tmp_path / "run").glob("*.pt")} == {"checkpoint", "step-0", "step-2"}
    assert_equal(weights(tmp_path / "run"), weights(pretrained[kind, 4]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rho", [None, 3.0])
def test_weights_stay_on_the_sphere(kind, rho, arguments, tmp_path):
    radius = [] if rho is None else ["--rho", rho]
    assert call("train", *arguments[kind], "--steps", 20, "--keep", 0, *radius, "--out", tmp_path / "run") == 0
    for name in ("step-0", "checkpoint"):
        norms = weights(tmp_path / "run", name).double().norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, rho or RHO[kind]), rtol=1e-6, atol=0)


def test_measured_losses_of_images_are_those_of_the_checkpoint(pretrained, image_file):
    network, images = network_at(pretrained["images", 4], "checkpoint"), load_image_set(image_file)
    with torch.no_grad():
        logits = network.eval()(normalise(images.test_images))
    measured = metrics(pretrained["images", 4])
    assert [measured[name][-1][0] for name in ("test_loss", "test_accuracy")] == scores(logits, images.test_labels)


def scores(logits, labels):
    """[mean loss, accuracy], to be compared with rounded ones."""
    accuracy = (logits.argmax(1) == labels).float().mean()
    return pytest.approx([F.cross_entropy(logits, labels).item(), accuracy.item()], rel=1e-5)


def network_at(folder, name):
    """A network with the tensors of a file, which hold kernels one after the other as [out, height, width, in]."""
    tensors, network = load(folder / f"{name}.pt"), models.build("si-convnet", 2, 3, init_seed=0)
    state, offset = dict(tensors["buffers"]), 0
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            outputs, inputs, *kernel = parameter.shape
            flat = tensors["weights"][0, offset : offset + parameter.numel()]
            state[key] = flat.view(outputs, *kernel, inputs).permute(0, 3, 1, 2)
            offset += parameter.numel()
    assert offset == tensors["weights"].shape[1]
    network.load_state_dict(state)
    return network


def test_ticks_train_the_same_networks_when_compiled(compiler, float64, tmp_path, capsys):
    compiled = ["--lr", 1e-4, "--steps", 40, "--log-every", 10, "--data", "ticks"]
    assert call("train", *compiled, "--compile", "--out", tmp_path / "compiled") == 0
    assert "cannot compile" not in capsys.readouterr().err
    assert call("train", *compiled, "--out", tmp_path / "plain") == 0
    torch.testing.assert_close(weights(tmp_path / "compiled"), weights(tmp_path / "plain"), rtol=0, atol=1e-9)
    assert call("finetune", tmp_path / "compiled", "--lr", 1e-5, "--steps", 1, "--out", tmp_path) == 0
    assert Run(tmp_path / "compiled-flr1e-5").settings["compile"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_where_nothing_can_be_compiled(
    kind, pretrained, arguments, tmp_path, monkeypatch, capsys
):
    def fails(function, **options):
        def call(*arguments):
            raise RuntimeError("No working C++ compiler found\nfurther lines")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    compiled.failures.clear()
    made = [*arguments[kind], "--steps", 4 * PACE[kind], "--compile", "--out", tmp_path / "run"]
    assert call("train", *made) == 0
    compiled.failures.clear()
    assert_equal(weights(tmp_path / "run"), weights(pretrained[kind, 4]))
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("--compile")]
    assert (
        line == "--compile: cannot compile here (No working C++ compiler found); going on without, which is slower"
    )


@needs_bf16
def test_precision_and_augmentation_go_on_through_the_stages(arguments, pretrained, tmp_path):
    made = [*arguments["images"], "--precision", "bf16", "--augment", "crop-flip"]
    assert call("train", *made, "--steps", 4, "--out", tmp_path / "run") == 0
    assert call("train", *made, "--steps", 7, "--keep", 6, "--out", tmp_path / "long") == 0
    assert call("finetune", tmp_path / "run", "--lr", 1e-2, "--steps", 3, "--out", tmp_path) == 0
    assert call("swa", tmp_path / "run", "--windows", 3, "--out", tmp_path / "swa") == 0
    assert_equal(weights(tmp_path / "run-flr1e-2"), weights(tmp_path / "long"))
    assert_equal(weights(tmp_path / "swa" / "run"), weights(tmp_path / "long", "step-6"))
    for other in (["--precision", "bf16"], ["--augment", "crop-flip"]):
        assert call("train", *arguments["images"], *other, "--steps", 4, "--out", tmp_path / other[0]) == 0
        assert not torch.equal(weights(tmp_path / other[0]), weights(tmp_path / "run"))
        assert not torch.equal(weights(tmp_path / other[0]), weights(pretrained["images", 4]))


def test_memory_of_a_step_is_kept_for_the_next():
    """Without that, every tensor of megabytes comes as fresh pages that the system has to clear."""
    script = """
import resource, torch
from data.device import device_of
def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)  # beyond what glibc might keep by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(page_faults() for _ in range(10)))
device_of("cpu")
print(min(page_faults() for _ in range(10)))
"""
    printed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)
    without, kept = map(int, printed.split())
    assert kept < 5 < without


@pytest.mark.slow
def test_a_thousand_epochs_keep_memory_flat_and_one_checkpoint(arguments, tmp_path):
    script = """
import resource, sys, train
original = train.record
def record(step, *others):
    if step in (100, 1000):
        print("MEMORY", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return original(step, *others)
train.record = record
train.run(train.main)
"""
    command = [*arguments["images"], "--augment", "crop-flip", "--steps", 1000, "--out", tmp_path / "run"]
    command += ["--checkpoint-seconds", 1]
    printed = subprocess.check_output([sys.executable, "-c", script, *map(str, command)], cwd=ROOT, text=True)
    early, late = (int(line.split()[1]) for line in printed.splitlines() if line.startswith("MEMORY"))
    assert late - early < 0.01 * early
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == ["checkpoint.pt"]
    assert len(metrics(tmp_path / "run")["step"]) == 1001


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_the_first_gpu_is_taken_where_none_is_named(name, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    assert train.device_of(name) == torch.device("cuda", 0) and chosen == [0]


# Fine-tuning


def finetuned(parent, out, *extra, lr=1e-2, units=3):
    steps = units * PACE["ticks" if "ticks" in parent.name else "images"]
    assert call("finetune", parent, "--lr", lr, "--steps", steps, "--out", out, *extra) == 0
    return out / f"{parent.name}-flr{lr:.0e}".replace("e-0", "e-")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_step", ["last", "kept"])
def test_finetuning_at_the_same_learning_rate_is_a_longer_run(kind, from_step, pretrained, tmp_path):
    long, pace = pretrained[kind, 7], PACE[kind]
    if from_step == "kept":
        child = finetuned(long, tmp_path, "--from-step", 4 * pace)
    else:
        child = finetuned(pretrained[kind, 4], tmp_path)
    tensors, expected = load(child / "checkpoint.pt"), load(long / "checkpoint.pt")
    assert_equal(tensors, expected | {"step": 3 * pace})
    assert metrics(child)["step"] == [step * pace for step in range(4)]
    for name in SERIES:  # at their first step the children are measured without training
        assert metrics(child)[name][1:] == metrics(long)[name][5:]


@pytest.mark.parametrize("kind", KINDS)
def test_finetuning_twice_goes_on_where_the_first_stopped(kind, pretrained, tmp_path):
    twice = finetuned(finetuned(pretrained[kind, 4], tmp_path, units=1), tmp_path, units=2)
    assert_equal(weights(twice), weights(pretrained[kind, 7]))
    assert Run(twice).settings["first_step"] == 5 * PACE[kind]
    assert [member["lrs"] for member in Run(twice).members] == [[1e-2] * 3] * len(Run(twice).members)


@pytest.mark.parametrize("kind", KINDS)
def test_members_carry_the_learning_rates_of_every_stage(kind, pretrained, tmp_path):
    parent = pretrained[kind, 4]
    assert call("finetune", parent, "--lr", 1e-4, 3e-3, "--steps", 2, "--out", tmp_path / "once") == 0
    names = [f"{parent.name}-flr1e-4", f"{parent.name}-flr3e-3"]
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == names
    once = tmp_path / "once" / names[1]
    assert call("finetune", once, "--lr", 1e-5, "--steps", 2, "--out", tmp_path / "twice") == 0
    twice = Run(tmp_path / "twice" / f"{names[1]}-flr1e-5")
    for before, member in zip(Run(parent).members, twice.members, strict=True):
        assert member == before | {"lrs": [1e-2, 3e-3, 1e-5]}
    assert Run(tmp_path / "once" / names[0]).settings["log_every"] == Run(parent).settings["log_every"]


@pytest.mark.parametrize("kind", KINDS)
def test_finetuning_starts_at_the_weights_of_the_run(kind, pretrained, tmp_path):
    child = metrics(finetuned(pretrained[kind, 4], tmp_path, lr=1e-3))
    parent = metrics(pretrained[kind, 4])
    assert child["test_loss"][0] == parent["test_loss"][-1]
    assert child["test_loss"][1] != parent["test_loss"][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_finetuning_uses_its_own_learning_rate(kind, pretrained, tmp_path):
    parent, moved = pretrained[kind, 4], {}
    for lr in (1e-6, 1e-5):
        child = finetuned(parent, tmp_path, lr=lr, units=1)
        moved[lr] = (weights(child) - weights(parent)).norm().item()
    assert moved[1e-5] / moved[1e-6] == pytest.approx(10, rel=0.1)


def test_several_runs_are_continued_by_one_command(pretrained, tmp_path, capsys):
    parents = [pretrained[kind, 4] for kind in KINDS]
    names = {"finetune": ["ticks4-flr1e-4", "images4-flr1e-4"], "swa": ["ticks4", "images4"]}
    own = {"finetune": ["--lr", 1e-4, "--steps", 1], "swa": ["--windows", 2, "--anchor", "start"]}
    for stage, out in ((stage, tmp_path / stage) for stage in own):
        assert call(stage, *parents, *own[stage], "--out", out) == 0
        assert {path.name for path in out.iterdir()} == {*names[stage]}
        said = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": complete")]
        assert said == [f"{out / name} (run {at} of 2): complete" for at, name in enumerate(names[stage], 1)]


# Training until a loss, and weights kept where the loss crosses a level


@pytest.fixture(scope="session")
def followed(arguments, tmp_path_factory):
    """followed[kind]: folders of runs of 14 units that keep every one of them."""
    folders = {}
    for kind in KINDS:
        folders[kind], steps = tmp_path_factory.mktemp("followed") / kind, range(0, 15 * PACE[kind], PACE[kind])
        assert call("train", *arguments[kind], "--steps", steps[-1], "--keep", *steps, "--out", folders[kind]) == 0
    return folders


def deepest_fall(measured, earliest=2):
    """Where the largest loss of the members falls furthest below all before: (index of the logged step, level between).

    The last logged step is no candidate: a run that stops at the level stops before its end.
    """
    losses = [max(row) for row in measured["train_loss"]]
    falls = {index: min(losses[:index]) / losses[index] for index in range(earliest, len(losses) - 1)}
    index = max(falls, key=falls.get)
    assert falls[index] > 1.01, "the loss must fall"
    return index, float(f"{losses[index] * falls[index] ** 0.5:.6g}")


@pytest.fixture(scope="session")
def stopped(arguments, followed, tmp_path_factory):
    """stopped[kind]: command and folder of the same run with --until-loss, and the index of the step to stop at."""
    runs = {}
    for kind in KINDS:
        folder, (index, level) = tmp_path_factory.mktemp("stopped") / kind, deepest_fall(metrics(followed[kind]))
        length = ["--steps", 14 * PACE[kind], "--until-loss", level]
        runs[kind] = ["train", *arguments[kind], *length, "--out", folder], folder, index
        assert call(*runs[kind][0]) == 0
    return runs


def assert_is_beginning(measured, whole, logged_steps):
    """The metrics are those of a longer run to the last bit, up to some logged step, and of a complete run."""
    assert measured["status"] == "complete"
    assert {name: measured[name] for name in ("step", *SERIES)} == {
        name: whole[name][:logged_steps] for name in ("step", *SERIES)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stops_at_the_first_logged_step_below_until_loss(kind, stopped, followed):
    _, folder, at = stopped[kind]
    assert_is_beginning(metrics(folder), metrics(followed[kind]), at + 1)
    assert_equal(load(folder / "checkpoint.pt"), load(followed[kind] / f"step-{at * PACE[kind]}.pt"))
    assert [path.name for path in folder.glob("*.pt")] == ["checkpoint.pt"]


def test_members_of_a_folder_stop_together(tmp_path):
    """The loss of the second member falls faster; it goes on below the level until that of the first is there."""
    command = ["train", "--data", "ticks", "--lr", 1e-5, 1e-3, "--steps", 80, "--log-every", 10, "--out"]
    assert call(*command, tmp_path / "whole") == 0
    whole = metrics(tmp_path / "whole")
    at, level = deepest_fall(whole, earliest=3)
    assert [row[1] < level for row in whole["train_loss"][at - 2 : at + 1]] == [True] * 3
    assert [row[0] < level for row in whole["train_loss"][at - 2 : at + 1]] == [False, False, True]
    assert call(*command, tmp_path / "stopped", "--until-loss", level) == 0
    assert_is_beginning(metrics(tmp_path / "stopped"), whole, at + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_stopped_below_its_loss_is_complete(kind, stopped, monkeypatch):
    command, folder, _ = stopped[kind]
    before = contents(folder)
    monkeypatch.setattr(train, "make_task", None)
    assert call(*command) == 0
    assert contents(folder) == before
    assert call(*command, "--until-loss", 0.1) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("until_loss, logged_steps", [(1e-9, 4), (100, 1)])
def test_a_run_goes_on_to_its_end_above_the_loss_and_nowhere_below_it(
    kind, until_loss, logged_steps, arguments, followed, tmp_path
):
    length = ["--steps", 3 * PACE[kind], "--until-loss", until_loss]
    assert call("train", *arguments[kind], *length, "--out", tmp_path / "run") == 0
    assert_is_beginning(metrics(tmp_path / "run"), metrics(followed[kind]), logged_steps)
    last = (logged_steps - 1) * PACE[kind]
    assert_equal(load(tmp_path / "run" / "checkpoint.pt"), load(followed[kind] / f"step-{last}.pt"))


def test_a_run_stops_at_logged_steps_only(arguments, tmp_path):
    command = ["train", *arguments["images"], "--steps", 14, "--log-every", 5, "--out"]
    assert call(*command, tmp_path / "whole") == 0
    at, level = deepest_fall(metrics(tmp_path / "whole"))
    assert call(*command, tmp_path / "run", "--until-loss", level) == 0
    assert_is_beginning(metrics(tmp_path / "run"), metrics(tmp_path / "whole"), at + 1)
    assert metrics(tmp_path / "run")["step"] == [0, 5, 10]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_stopped_below_its_loss_is_finetuned_from_there(kind, stopped, followed, tmp_path):
    (_, folder, _), pace = stopped[kind], PACE[kind]
    at = metrics(folder)["step"][-1]
    assert call("finetune", folder, "--lr", 1e-2, "--steps", 2 * pace, "--out", tmp_path) == 0
    child = Run(tmp_path / f"{kind}-flr1e-2")
    assert child.metrics["step"] == [0, pace, 2 * pace] and child.config["parent"]["step"] == at
    assert child.settings["first_step"] == at
    assert child.settings["until_loss"] is None and child.settings["keep_loss"] == []
    assert_equal(weights(child.path), weights(followed[kind], f"step-{at + 2 * pace}"))


LOSSES = [4.3, 3.1, 1.6, 1.2, 1.1, 0.9, 0.81, 0.86, 0.65, 0.87, 0.6, 0.7, 0.5, 0.6, 0.4]  # by epoch
KEPT_AT = {  # what of those is kept at which level
    5: None,  # above the initial loss
    3.9: 0,
    3.3: 1,
    0.85: 6,  # crossed again at 10, as are the next two
    0.8: 7,
    0.7: 8,
    1e-9: None,
}
NAMES_OF_LEVELS = {3.9: "loss-3.9e0", 3.3: "loss-3.3e0", 0.85: "loss-8.5e-1", 0.8: "loss-8e-1", 0.7: "loss-7e-1"}


@pytest.fixture
def scripted_losses(monkeypatch):
    """The measured train losses of image runs are LOSSES, by the epoch since the beginning of pre-training."""
    advance, evaluate_train = train.ImageTraining.advance, train.ImageTraining.evaluate_train

    def scripted(task, measured, step):
        return measured | {"train_loss": torch.tensor([LOSSES[task.settings["first_step"] + step]])}

    monkeypatch.setattr(
        train.ImageTraining, "advance", lambda self, step, until: scripted(self, advance(self, step, until), until)
    )
    monkeypatch.setattr(
        train.ImageTraining, "evaluate_train", lambda self: scripted(self, evaluate_train(self), 0)
    )


def check_kept_losses(folder, whole, first_step, kept_at):
    """What is kept at the levels is what another run, of the same weights, has kept epoch by epoch."""
    assert [loss for [loss] in metrics(folder)["train_loss"]] == LOSSES[first_step:]
    kept = {NAMES_OF_LEVELS[level]: epoch for level, epoch in kept_at.items() if epoch is not None}
    files = {path.stem: load(path) for path in folder.glob("loss-*")}
    assert files.keys() == kept.keys()
    for name, epoch in kept.items():
        assert_equal(files[name], load(whole / f"step-{epoch}.pt") | {"step": epoch - first_step})


def test_weights_are_kept_at_the_first_crossing_of_a_loss(scripted_losses, arguments, followed, tmp_path):
    command = [*arguments["images"], "--steps", 14, "--keep-loss", *KEPT_AT, "--out", tmp_path / "run"]
    assert call("train", *command) == 0
    check_kept_losses(tmp_path / "run", followed["images"], 0, KEPT_AT)
    whole = metrics(followed["images"])
    assert_is_beginning(metrics(tmp_path / "run") | {"train_loss": whole["train_loss"]}, whole, 15)


def test_finetuning_keeps_weights_at_losses(scripted_losses, pretrained, followed, tmp_path):
    child = finetuned(pretrained["images", 4], tmp_path, "--keep-loss", *KEPT_AT, units=10)
    check_kept_losses(child, followed["images"], 4, KEPT_AT | {3.9: None, 3.3: None})
    assert Run(child).settings["keep_loss"] == sorted(KEPT_AT)


@pytest.mark.parametrize(
    "losses, levels, kept",
    [
        ([4, 1], [1.9, 2.1], {1.9: 1, 2.1: 0}),  # on either side of the geometric mean
        ([100, 1], [9, 11, 50], {9: 1, 11: 0, 50: 0}),  # the mean is 50.5
        ([9, 4, 1], [6.1, 5.9, 2.1, 1.9], {6.1: 0, 5.9: 1, 2.1: 1, 1.9: 2}),
        ([4, 2, 1], [2], {2: 1}),
        ([4, 3, 2], [2], {}),
        ([4, 1, 4, 1, 0.1], [1.9, 0.2], {1.9: 1, 0.2: 4}),  # the first crossing counts
        ([1, 4, 1, 4, 1], [2, 1], {}),  # starts below, or at it and does not fall below
        ([4, None], [2], {}),
    ],
)
def test_levels_are_crossed_once_and_the_closer_loss_is_kept(losses, levels, kept):
    measured, files = {"step": [], "train_loss": []}, {}
    run = SimpleNamespace(keep=lambda name, checkpoint: files.setdefault(name, []).append(checkpoint["step"]))
    for step, loss in enumerate(losses):
        measured["step"].append(step)
        measured["train_loss"].append([loss])
        if step:
            train.keep_crossed_losses(levels, {"step": step - 1}, {"step": step}, measured, run)
    assert files == {loss_name(level): [step] for level, step in kept.items()}


# SWA: weights of units 4, 5, 6, 7 are passed, going on from a run of 4 (anchor start) or back in one of 7 (end)


@pytest.fixture(scope="session")
def averaged(pretrained, tmp_path_factory):
    """averaged[kind, anchor]: folders of SWA runs."""
    folders = {}
    for kind in KINDS:
        for anchor, units in (("start", 4), ("end", 7)):
            parent, out = pretrained[kind, units], tmp_path_factory.mktemp("averaged")
            windows = ["--windows", 4, 1, 2, 2, "--spacing", PACE[kind], "--anchor", anchor]
            assert call("swa", parent, *windows, "--out", out) == 0
            folders[kind, anchor] = out / parent.name
    return folders


EVERY = [(kind, anchor) for kind in KINDS for anchor in ("start", "end")]


@pytest.mark.parametrize("kind, anchor", EVERY)
def test_swa_continues_the_run_itself(kind, anchor, averaged, pretrained):
    folder, long, pace = averaged[kind, anchor], pretrained[kind, 7], PACE[kind]
    assert_equal(weights(folder), weights(long))
    assert metrics(folder)["step"] == [0, pace, 2 * pace, 3 * pace]
    for name in SERIES:
        assert metrics(folder)[name][1:] == metrics(long)[name][5:]
    assert Run(folder).config["parent"]["step"] == 4 * pace
    assert [member["lrs"] for member in Run(folder).members] == [[1e-2]] * len(Run(folder).members)


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("kind, anchor", EVERY)
def test_windows_are_plain_means(kind, anchor, window, averaged, pretrained):
    units = [4, 5, 6, 7][:window] if anchor == "start" else [4, 5, 6, 7][-window:]
    passed = [weights(pretrained[kind, 7], f"step-{unit * PACE[kind]}") for unit in units]
    mean = torch.stack(passed).double().mean(0)
    actual = weights(averaged[kind, anchor], f"swa-{window}")
    torch.testing.assert_close(actual.double(), mean, rtol=1e-6, atol=1e-7 * RHO[kind])
    if window == 1:
        assert_equal(actual, passed[0])
    else:  # not projected back to the sphere
        assert (actual.norm(dim=1) < 0.999 * RHO[kind]).all()


@pytest.mark.parametrize("kind, anchor", EVERY)
def test_windows_are_listed_once_in_order(kind, anchor, averaged):
    measured, members = metrics(averaged[kind, anchor])["swa"], len(Run(averaged[kind, anchor]).members)
    assert measured["window"] == [1, 2, 4]
    assert all([len(row) for row in measured[name]] == [members] * 3 for name in SERIES)
    assert {path.stem for path in averaged[kind, anchor].glob("swa-*")} == {"swa-1", "swa-2", "swa-4"}


@pytest.mark.parametrize("anchor", ["start", "end"])
def test_average_of_one_measures_as_the_run_itself(anchor, averaged):
    measured = metrics(averaged["ticks", anchor])
    at = {"start": 0, "end": -1}[anchor]
    for name in SERIES:
        assert measured["swa"][name][0] == pytest.approx(measured[name][at], rel=1e-6)


@pytest.mark.parametrize("window", [2, 4])
def test_averages_get_batch_norm_statistics_of_their_own(window, averaged, image_file):
    network, images = network_at(averaged["images", "start"], f"swa-{window}"), load_image_set(image_file)
    moments = [(0, 0)] * 4
    with torch.no_grad():
        for inputs in normalise(images.train_images).split(128):  # 128 and 22 images
            share = len(inputs) / 150
            for depth, convolution in enumerate(network.convolutions):
                inputs = convolution(inputs)
                mean, variance = inputs.mean((0, 2, 3)), inputs.var((0, 2, 3))
                moments[depth] = (moments[depth][0] + share * mean, moments[depth][1] + share * variance)
                biased = inputs.var((0, 2, 3), correction=0)
                inputs = ((inputs - mean[:, None, None]) / (biased + 1e-5).sqrt()[:, None, None]).relu()
                inputs = F.max_pool2d(inputs, 2) if depth else inputs
    for norm, (mean, variance) in zip(network.norms, moments, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("index, window", [(1, 2), (2, 4)])
def test_what_averages_reach(index, window, averaged, image_file):
    network, images = network_at(averaged["images", "start"], f"swa-{window}"), load_image_set(image_file)
    measured = metrics(averaged["images", "start"])["swa"]
    with torch.no_grad():
        test_logits = network.eval()(normalise(images.test_images))
        train_logits = [network.train()(batch) for batch in normalise(images.train_images).split(32)]
    for split, logits in (("train", torch.cat(train_logits)), ("test", test_logits)):
        reached = [measured[f"{split}_{name}"][index][0] for name in ("loss", "accuracy")]
        assert reached == scores(logits, getattr(images, f"{split}_labels"))


@pytest.mark.parametrize("anchor, mean_of_two", [("start", (1 + 10) / 2), ("end", (10 + 100) / 2)])
def test_anchors(anchor, mean_of_two):
    averages = WindowAverages([2, 3], spacing=4, anchor=anchor)
    for step, weight in ((0, 1.0), (4, 10.0), (8, 100.0)):
        averages.add(step, torch.tensor([[weight]]))
    assert averages.mean(2, last_step=8).item() == mean_of_two
    assert averages.mean(3, last_step=8).item() == 37


@pytest.mark.parametrize("anchor, whole", [("start", [True, False]), ("end", [False, False])])
def test_windows_that_a_run_did_not_reach_the_end_of_have_no_average(anchor, whole):
    averages = WindowAverages([2, 3], spacing=4, anchor=anchor)
    for step in (0, 4):
        averages.add(step, torch.ones(1, 1))
    assert [averages.mean(window, last_step=4).isfinite().item() for window in (2, 3)] == whole


def test_swa_from_a_kept_step(pretrained, averaged, tmp_path):
    windows = ["--windows", 1, 2, 4, "--spacing", 10, "--from-step", 40, "--anchor", "start"]
    assert call("swa", pretrained["ticks", 7], *windows, "--out", tmp_path) == 0
    assert metrics(tmp_path / "ticks7") == metrics(averaged["ticks", "start"])


def test_ticks_are_averaged_as_the_paper_does_unless_told_otherwise(tmp_path):
    """100 iterations apart, all windows sharing the last weights."""
    made = ["--data", "ticks", "--lr", 1e-2, "--steps", 200, "--keep", 0, 100, "--out", tmp_path / "run"]
    assert call("train", *made) == 0
    assert call("swa", tmp_path / "run", "--windows", 2, 3, "--out", tmp_path / "swa") == 0
    passed = [weights(tmp_path / "run", name) for name in ("step-0", "step-100", "checkpoint")]
    torch.testing.assert_close(weights(tmp_path / "swa/run", "swa-2"), sum(passed[1:]) / 2, rtol=0, atol=1e-7)
    torch.testing.assert_close(weights(tmp_path / "swa/run", "swa-3"), sum(passed) / 3, rtol=0, atol=1e-7)


# Divergence is a result

TICK_RUN = ["--data", "ticks", "--lr", 1e-2, "--steps", 4]
DIVERGING = "1e30"


@pytest.fixture(scope="session")
def diverged(arguments, tmp_path_factory):
    """Folder of runs: ticks, whose second member of three diverges; steady, with another second member; images."""
    out = tmp_path_factory.mktemp("diverged")
    for name, lr in (("ticks", DIVERGING), ("steady", 2e-2)):
        made = ["--data", "ticks", "--lr", 1e-3, lr, 1e-2, "--steps", 20, "--log-every", 5, "--keep", 10]
        assert call("train", *made, "--out", out / name) == 0
    made = [*arguments["images"], "--lr", DIVERGING, "--steps", 9, "--keep", 8]
    assert call("train", *made, "--out", out / "images") == 0
    return out


def assert_second_diverged(folder, steady, at):
    """The second member is recorded as diverged; the others are just what they are beside a steady one."""
    measured, expected = metrics(folder), metrics(steady)
    assert measured["diverged_at"] == [None, at, None] and measured["status"] == "complete"
    assert measured["step"] == expected["step"]
    for name in SERIES:
        assert [row[::2] for row in measured[name]] == [row[::2] for row in expected[name]]
        assert all(math.isfinite(value) for row in measured[name] for value in row[::2])
    for name in ("train_loss", "test_loss"):
        assert [row[1] is None for row in measured[name]] == [step >= at for step in measured["step"]]
    assert_equal(weights(folder)[::2], weights(steady)[::2])


def test_member_that_diverges_leaves_the_others_alone(diverged):
    assert_second_diverged(diverged / "ticks", diverged / "steady", at=5)


def test_finetuning_members_that_diverged(diverged, tmp_path):
    made = ["--lr", 1e-3, "--steps", 10, "--out", tmp_path]
    assert call("finetune", diverged / "ticks", diverged / "steady", *made) == 0
    assert_second_diverged(tmp_path / "ticks-flr1e-3", tmp_path / "steady-flr1e-3", at=0)


@pytest.mark.parametrize("anchor", ["start", "end"])
def test_averaging_members_that_diverged(anchor, diverged, tmp_path):
    made = ["--windows", 2, 3, "--spacing", 5, "--anchor", anchor, "--out", tmp_path]
    assert call("swa", diverged / "ticks", diverged / "steady", *made) == 0
    assert_second_diverged(tmp_path / "ticks", tmp_path / "steady", at=0)
    measured, expected = metrics(tmp_path / "ticks")["swa"], metrics(tmp_path / "steady")["swa"]
    for name in SERIES:
        assert [row[::2] for row in measured[name]] == [row[::2] for row in expected[name]]
    assert [row[1] for row in measured["test_loss"]] == [None, None]


def test_run_stops_when_all_of_it_diverged(diverged):
    measured = metrics(diverged / "images")
    assert (measured["status"], measured["step"], measured["diverged_at"]) == ("complete", [0, 1], [1])
    assert measured["train_loss"][1] == measured["test_loss"][1] == [None]
    assert not weights(diverged / "images").isfinite().any()
    assert not (diverged / "images" / "step-8.pt").exists()


def test_finetuning_a_run_that_diverged(diverged, tmp_path):
    assert call("finetune", diverged / "images", "--lr", 1e-3, "--steps", 5, "--out", tmp_path) == 0
    measured = metrics(tmp_path / "images-flr1e-3")
    assert (measured["status"], measured["step"], measured["diverged_at"]) == ("complete", [0], [0])


@pytest.mark.parametrize("anchor", ["start", "end"])
def test_averaging_a_run_that_diverged(anchor, diverged, tmp_path):
    assert call("swa", diverged / "images", "--windows", 2, 3, "--anchor", anchor, "--out", tmp_path) == 0
    measured = metrics(tmp_path / "images")
    assert (measured["status"], measured["step"], measured["diverged_at"]) == ("complete", [0], [0])
    assert measured["swa"]["test_loss"] == measured["swa"]["train_loss"] == [[None], [None]]


def test_run_that_diverges_while_it_is_averaged(arguments, tmp_path, monkeypatch):
    assert call("train", *arguments["images"], "--steps", 1, "--out", tmp_path / "run") == 0
    monkeypatch.setattr(train.ImageTraining, "advance", exploding(train.ImageTraining.advance, at=2))
    windows = ["--windows", 1, 2, 4, 5, "--anchor"]
    assert call("swa", tmp_path / "run", *windows, "start", "--out", tmp_path / "start") == 0
    assert call("swa", tmp_path / "run", *windows, "end", "--from-step", 1, "--out", tmp_path / "end") == 0
    found = {anchor: metrics(tmp_path / anchor / "run") for anchor in ("start", "end")}
    assert found["start"]["step"] == found["end"]["step"] == [0, 1, 2]
    assert found["start"]["diverged_at"] == found["end"]["diverged_at"] == [2]
    assert [row[0] is None for row in found["start"]["swa"]["test_loss"]] == [False, False, True, True]
    assert [row[0] is None for row in found["end"]["swa"]["test_loss"]] == [True] * 4


def exploding(advance, at):
    def exploding_advance(self, step, until):
        if until == at:
            self.weights.fill_(float("nan"))
        return advance(self, step, until)

    return exploding_advance


# Bad arguments: one line, exit code 2, nothing written


def check_refusal(capsys, out, message, *command):
    capsys.readouterr()
    assert call(*command, "--out", out) == 2
    error = one_line(capsys)
    assert message in error
    assert not out.exists()
    return error


@pytest.mark.parametrize("lr", ["0", "-1", "-1e-3", "nan", "inf", "-inf", "1e999", "fast", ""])
@pytest.mark.parametrize("stage", ["train", "finetune"])
def test_bad_learning_rate(stage, lr, pretrained, tmp_path, capsys):
    first = ["--data", "ticks"] if stage == "train" else [pretrained["ticks", 4]]
    check_refusal(capsys, tmp_path / "out", "argument --lr: ", stage, *first, "--steps", 4, "--lr", lr)


@pytest.mark.parametrize(
    "change, message",
    [
        (["--steps", 0], "argument --steps: 0 is not a whole number above 0"),
        (["--steps", -3], "argument --steps: -3 is not a whole number above 0"),
        (["--steps", 1.5], "argument --steps: "),
        (["--keep", 5], "--keep 5: lies beyond --steps 4"),
        (["--keep", -1], "argument --keep: "),
        (["--seed", -1], "argument --seed: "),
        (["--log-every", 0], "argument --log-every: "),
        (["--rho", 0], "argument --rho: "),
        (["--rho", "nan"], "argument --rho: "),
        (["--batch-size", 0], "argument --batch-size: "),
        (["--batch-size", 513], "--batch-size 513: there are only 512 training samples"),
        (["--width", 8], "--width: is for image networks, not for si-mlp on ticks; leave it out"),
        (["--model", "si-convnet"], "--model si-convnet: is not for ticks; use si-mlp"),
        (["--precision", "bf16"], "--precision: is for image networks, not for si-mlp on ticks; leave it out"),
        (["--augment", "none"], "--augment: is for image networks, not for si-mlp on ticks; leave it out"),
        (["--keep-loss", 0.5], "--keep-loss: is for image networks, not for si-mlp on ticks; leave it out"),
        (["--keep-loss", 0.5, 0], "argument --keep-loss: 0 is not a finite number above 0"),
        (["--until-loss", 0], "argument --until-loss: 0 is not a finite number above 0"),
        (["--until-loss", "nan"], "argument --until-loss: nan is not a finite number above 0"),
        (["--model", "perceptron"], "argument --model: "),
        (["--data", "none.pt"], "there is no none.pt; prepare it with: python -m data"),
        (["--device", "abacus"], "--device abacus: is no device"),
        (["--device", "cuda:99"], "--device cuda:99: no such CUDA GPU"),
        (["--nesterov", 0.9], "unrecognized arguments: --nesterov"),
    ],
)
def test_bad_arguments_of_training(change, message, tmp_path, capsys):
    with_network = change[0] == "--data"
    model = ["--model", "si-convnet"] if with_network else []
    check_refusal(capsys, tmp_path / "out", message, "train", *TICK_RUN, *model, *change)


@pytest.mark.parametrize("missing", ["--data", "--lr", "--steps"])
def test_missing_arguments(missing, tmp_path, capsys):
    at = TICK_RUN.index(missing)
    check_refusal(capsys, tmp_path / "out", missing, "train", *TICK_RUN[:at], *TICK_RUN[at + 2 :])


@pytest.mark.parametrize(
    "change, message",
    [
        (["--width", 0], "argument --width: "),
        (["--precision", "tf32"], "--precision tf32: only GPUs have it; train in fp32 or bf16"),
        (["--precision", "fp8"], "argument --precision: "),
        (["--augment", "mixup"], "argument --augment: "),
        (["--data-seed", 1], "--data-seed: only ticks are drawn by a seed"),
        (["--steps", 2, "--keep", 1, 3], "--keep 3: lies beyond --steps 2"),
        (["--data", __file__], "is damaged or no file of this program"),
    ],
)
def test_bad_arguments_of_training_on_images(change, message, arguments, tmp_path, capsys):
    change = [*change, "--device", "cpu"]
    check_refusal(capsys, tmp_path / "out", message, "train", *arguments["images"], "--steps", 4, *change)


def test_network_must_be_named(image_file, tmp_path, capsys):
    made = ["--data", image_file, "--lr", 1e-2, "--steps", 4]
    check_refusal(capsys, tmp_path / "out", "--model: name the network for an image set: si-", "train", *made)


def test_many_learning_rates_of_images_are_refused_with_the_loop_to_write(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    many = ["--steps", 4, "--lr", 1e-3, 0.5, "--seed", 1, 2]
    command = ["train", *arguments["images"], *many]
    error = check_refusal(capsys, out, "one learning rate and seed per folder", *command)
    loop = error[error.index("for lr in") :]
    echoed = subprocess.check_output(["bash", "-c", f'python() {{ echo "$@"; }}; {loop}'], text=True)
    assert echoed.splitlines() == [
        f"train.py ... --lr {lr} --seed {seed} --out {out}/plr{lr}-seed{seed}"
        for lr in (0.001, 0.5)
        for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    "stage, own", [("finetune", ["--lr", 1e-3, "--steps", 4]), ("swa", ["--windows", 2, "--anchor", "start"])]
)
class TestRunsToContinue:
    @pytest.mark.parametrize("kind", KINDS)
    def test_step_without_weights(self, stage, own, kind, pretrained, tmp_path, capsys):
        kept = ", ".join(str(units * PACE[kind]) for units in (4, 5, 6, 7))
        message = f"{pretrained[kind, 7]}: has no weights of {UNIT[kind]} 3, only of {kept};"
        check_refusal(capsys, tmp_path / "out", message, stage, pretrained[kind, 7], *own, "--from-step", 3)

    def test_step_beyond_the_run(self, stage, own, pretrained, tmp_path, capsys):
        command = [stage, pretrained["ticks", 4], *own, "--from-step", 50]
        check_refusal(capsys, tmp_path / "out", "has no weights of iteration 50, only of 40;", *command)

    def test_step_that_is_no_number(self, stage, own, pretrained, tmp_path, capsys):
        command = [stage, pretrained["ticks", 4], *own, "--from-step", -1]
        check_refusal(capsys, tmp_path / "out", "argument --from-step: ", *command)

    def test_incomplete_run_is_noticed_before_any_work(self, stage, own, pretrained, tmp_path, capsys):
        shutil.copytree(pretrained["ticks", 4], tmp_path / "parent")
        path = tmp_path / "parent" / "metrics.json"
        path.write_text(path.read_text().replace('"complete"', '"running"'))
        command = [stage, pretrained["ticks", 4], tmp_path / "parent", *own]
        message = f"{tmp_path / 'parent'}: is not complete; finish it first"
        check_refusal(capsys, tmp_path / "out", message, *command)

    @pytest.mark.parametrize("name", ["none", ""])
    def test_folder_that_is_no_run(self, stage, own, name, tmp_path, capsys):
        message = f"{tmp_path / name}: is not a run folder"
        check_refusal(capsys, tmp_path / "out", message, stage, tmp_path / name, *own)

    def test_swa_run(self, stage, own, averaged, tmp_path, capsys):
        check_refusal(
            capsys,
            tmp_path / "out",
            "is an SWA run; give the run that it",
            stage,
            averaged["ticks", "start"],
            *own,
        )

    def test_no_runs(self, stage, own, tmp_path, capsys):
        check_refusal(capsys, tmp_path / "out", "the following arguments are required: RUN", stage, *own)

    def test_image_set_that_moved(self, stage, own, arguments, image_file, tmp_path, capsys):
        shutil.copy(image_file, tmp_path / "here.pt")
        made = [*arguments["images"], "--data", tmp_path / "here.pt", "--steps", 1]
        assert call("train", *made, "--out", tmp_path / "run") == 0
        load_once.cache_clear()  # as in a new process
        os.rename(tmp_path / "here.pt", tmp_path / "there.pt")
        command = [stage, tmp_path / "run", *own, "--out", tmp_path / "out"]
        capsys.readouterr()
        assert call(*command) == 2
        assert f"{tmp_path / 'here.pt'}: the run's image set is not there" in one_line(capsys)
        assert call(*command, "--data-file", tmp_path / "there.pt") == 0

    def test_other_image_set(self, stage, own, pretrained, tmp_path, capsys):
        save_image_set(random_image_set(classes=3, train=150, test=20, side=8, seed=1), tmp_path / "other.pt")
        command = [stage, pretrained["images", 4], *own, "--out", tmp_path / "out"]
        assert call(*command, "--data-file", tmp_path / "other.pt") == 2
        assert (
            "other.pt: holds other data than the run's random, or the same normalised or held out in another way; give"
            in one_line(capsys)
        )
        assert call(*command) == 0  # what was refused stands in no one's way


def test_weights_of_several_members_are_not_kept_at_losses(pretrained, tmp_path, capsys):
    message = f"{pretrained['ticks', 4]}: has several members; --keep-loss is for runs with one"
    command = ["finetune", pretrained["ticks", 4], "--lr", 1e-3, "--steps", 4, "--keep-loss", 0.5]
    check_refusal(capsys, tmp_path / "out", message, *command)


@pytest.mark.parametrize(
    "change, message",
    [
        (["--windows", 0], "argument --windows: "),
        (["--windows", 2, -1], "argument --windows: "),
        (["--spacing", 0], "argument --spacing: "),
        (["--anchor", "middle"], "argument --anchor: "),
        (["--windows", 6, "--spacing", 10, "--anchor", "end"], "is too short for windows that reach back 50"),
        (["--windows", 3, "--spacing", 10, "--anchor", "end"], "has no weights of iteration 20, only of 40;"),
    ],
)
def test_bad_arguments_of_averaging(change, message, pretrained, tmp_path, capsys):
    check_refusal(capsys, tmp_path / "out", message, "swa", pretrained["ticks", 4], *change)


@pytest.mark.parametrize("kind", KINDS)
def test_parents_are_only_read(kind, pretrained, tmp_path):
    before = contents(pretrained[kind, 4])
    assert call("finetune", pretrained[kind, 4], "--lr", 1e-3, "--steps", 2, "--out", tmp_path / "finetune") == 0
    assert call("swa", pretrained[kind, 4], "--windows", 2, "--anchor", "start", "--out", tmp_path / "swa") == 0
    assert contents(pretrained[kind, 4]) == before
