"""The usual way, which benchmarks compare with, is an independent program: what train.py must agree with."""

import argparse
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import stack_module_state
from torch.nn import functional as F

import models
import train
from bench import geometry, image_agreement, images
from bench.agreement import compare
from bench.usual import UsualRun, train_one
from data.commandline import BadInput

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("members_at_once, parts", [(230, 1), (6, 2), (8, 2), (4, 3), (1, 3)])
def test_members_follow_the_usual_way_however_they_are_parted(members_at_once, parts, monkeypatch):
    monkeypatch.setattr(train, "MEMBERS_PER_PART", members_at_once)
    pairs = [(1, 2), (3, 2), (3, 1)]  # data seed, training seed
    members = [{"lrs": [lr], "seed": s, "data_seed": d} for d, s in pairs for lr in (1e-4, 1e-3, 3e-3)]
    settings = {"first_step": 0, "batch_size": 16, "rho": 1.0, "compile": False}
    task = train.TickTraining(settings, members, torch.device("cpu"))
    assert len(task.parts) == parts
    task.advance(0, 50)
    task.advance(50, 150)
    for member, weights, accuracy in zip(members, task.weights, task.evaluate()["test_accuracy"], strict=True):
        usual = UsualRun(member["lrs"][0], member["seed"], member["data_seed"])
        usual.train(150)
        torch.testing.assert_close(weights, usual.weights(), rtol=0, atol=1e-5)
        assert accuracy.item() == pytest.approx(
            usual.evaluate(*usual.sets[2:])[1], abs=0.0011
        )  # two points of 2,000


def test_usual_way_measures_at_the_logged_steps_and_at_the_end():
    measured = train_one(1e-3, 1, 1, steps=50, log_every=20)
    assert measured["step"] == [20, 40, 50] and len(measured["train"]) == len(measured["test"]) == 3
    again = UsualRun(1e-3, 1, 1)
    again.train(50)
    assert measured["test"][-1] == again.evaluate(*again.sets[2:])
    assert len(measured["single_feature_accuracy"]) == 16


def results(shift, scale, seed=0, networks=50):
    random = np.random.default_rng(seed)
    values = shift + scale * random.standard_normal((networks, 3))
    return {("0.001", number, 1): list(row) for number, row in enumerate(values)}


def test_agreement_is_refuted_by_a_shift_and_by_another_spread():
    base = results(0, 1)
    for other, expected in ((results(0, 1, 2), True), (results(1.5, 1, 2), False), (results(0, 8, 2), False)):
        comparisons = compare(base, other)
        assert len(comparisons) == 3 and comparisons[0]["networks"] == 50
        smallest = min(min(c["p_signed_rank"], c["p_kolmogorov_smirnov"]) for c in comparisons)
        assert (smallest >= 0.05) is expected


def test_interval_of_the_difference_is_that_of_students_t():
    first, second = results(0, 1), {key: [0, 0, 0] for key in results(0, 1)}
    values = np.array([row[0] for row in first.values()])
    [low, high] = compare(first, second)[0]["difference_95"]
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.0096 * values.std(ddof=1) / np.sqrt(50), rel=1e-4)


@pytest.mark.parametrize("model", ["si-convnet", "si-resnet18"])
def test_usual_training_of_images_is_the_same_training(model, monkeypatch):
    # A smooth ReLU: at a kink rounding may switch a gradient. And both in the order as stored.
    smooth = lambda x, inplace=False: F.softplus(4 * x) / 4  # noqa: E731
    monkeypatch.setattr(F, "relu", smooth)
    monkeypatch.setattr(images, "without_in_place_relu", lambda: None)
    monkeypatch.setattr(train.images, "epoch_order", lambda seed, epoch, size: torch.arange(size))
    args = argparse.Namespace(
        model=model, width=4, classes=10, side=16, batch_size=32, images=70, device="cpu", augment="none"
    )
    cpu, image_set = torch.device("cpu"), images.random_image_set(70, 16, 10)
    usual, ours = images.UsualTraining(args, image_set, cpu), images.OurTraining(["fp32"], args, image_set, cpu)
    ours.task.network.load_state_dict(usual.network.state_dict())
    with torch.no_grad():
        for parameter in usual.parameters:
            parameter.mul_(usual.rho / ours.task.weights.norm())
        train.sphere.project_(ours.task.weights, usual.rho)
    usual.train_loader = torch.utils.data.DataLoader(usual.train_loader.dataset, 32)
    for _ in range(2):
        usual.epoch()
        ours.epoch()
    state = ours.task.network.state_dict()
    for name, tensor in usual.network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-4 * tensor.abs().max().item())


@pytest.mark.slow
def test_images_are_timed_in_turns(tmp_path):
    asked = ["--model", "si-convnet", "--width", "2", "--images", "40", "--side", "8", "--device", "cpu"]
    programs = ["usual", "bf16 without-channels-last"]
    command = [sys.executable, "bench/images.py", *asked, "--turns", "2", "--processes", "1"]
    command += ["--programs", *programs, "--out", tmp_path / "speed.json"]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    assert [line.split()[0] for line in printed.splitlines()] == ["program", "usual", "bf16"]
    found = json.loads((tmp_path / "speed.json").read_text())
    assert list(found["images_per_second"]) == programs and found["processes"] == 1
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found["images_per_second"].values())


@pytest.mark.parametrize("text", ["fp8", "fp32 backwards", "usual compile", "compile", ""])
def test_unknown_programs_are_refused(text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["images.py", "--programs", "usual", text])
    with pytest.raises(SystemExit) as end:
        images.main()
    assert end.value.code == 2 and f"{text!r} is none; say fp32, tf32, bf16" in capsys.readouterr().err


def test_a_program_that_dies_is_named_and_the_others_end():
    before = set(multiprocessing.active_children())
    args = argparse.Namespace(programs=["bf16"], processes=1, turns=1)  # lacks what the process needs
    with pytest.raises(BadInput, match="bf16: its process has ended"):
        images.measure(args)
    assert set(multiprocessing.active_children()) == before


def test_options_are_compared_run_by_run():
    keys = [(plr, flr, seed) for plr in (0.1, 0.2) for flr in (None, 0.01) for seed in range(6)]
    reference = {key: float(number) for number, key in enumerate(keys)}
    shifts = np.linspace(0.5, 1.5, 12)
    finetuned = iter(shifts)
    other = {key: value + (0 if key[1] is None else next(finetuned)) for key, value in reference.items()}
    found = image_agreement.compared(reference, other)
    assert (found["pretrain"]["mean_difference"], found["pretrain"]["p_signed_rank"]) == (0, 1)
    assert found["finetune"]["runs"] == 12 and found["finetune"]["mean_difference"] == pytest.approx(1)
    assert found["finetune"]["standard_error"] == pytest.approx(stats.sem(shifts))
    assert found["finetune"]["p_signed_rank"] == pytest.approx(2 / 2**12)  # all of one sign
    assert found["finetune"]["differences_by_learning_rates"]["0.1 0.01"] == pytest.approx(shifts[:6])


def test_the_cost_of_geometry_counts_its_points(tmp_path, monkeypatch, capsys):
    small = [
        "--model",
        "si-convnet",
        "--width",
        "2",
        "--side",
        "8",
        "--images",
        "60",
        "--turns",
        "3",
        "--points",
        "2",
    ]
    monkeypatch.setattr(
        sys, "argv", ["geometry.py", *small, "--device", "cpu", "--out", str(tmp_path / "cost.json")]
    )
    geometry.main()
    found = json.loads((tmp_path / "cost.json").read_text())
    point, forward = (float(np.median(found["seconds"][name])) for name in ("point", "forward pass"))
    assert found["points"] == 60 and found["forward_passes_of_geometry"] == pytest.approx(60 * point / forward)
    assert "geometry of one pre-training, 60 points" in capsys.readouterr().out


def test_a_batched_pass_is_that_of_every_network():
    arguments = argparse.Namespace(model="si-convnet", width=2, side=8, images=60, classes=3)
    probe = geometry.probe_of(arguments, torch.device("cpu"))
    networks = [models.build("si-convnet", 2, 3, seed).train() for seed in (1, 2)]
    correct = geometry.batched_pass(probe, *stack_module_state(networks))
    for network, found in zip(networks, correct, strict=True):
        assert found == sum((network(x).argmax(1) == y).sum().item() for x, y in probe.train_batches())
