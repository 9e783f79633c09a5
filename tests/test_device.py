"""Devices and precisions that this program, or this machine, does not have: one line before anything is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import random_image_set
from test_runs import call, one_line

from data.commandline import BadInput
from data.device import use_precision
from data.images import save_image_set


@pytest.fixture
def command(tmp_path):
    save_image_set(random_image_set(classes=3, train=14, test=6, side=8), tmp_path / "random.pt")
    network = ["--model", "si-convnet", "--width", 2, "--lr", 1e-3, "--steps", 1]
    return ["train", "--data", tmp_path / "random.pt", *network, "--out", tmp_path / "run"]


@pytest.fixture
def without_bf16(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)


@pytest.mark.parametrize("device", ["mps", "meta", "xpu:1"])
def test_devices_that_nobody_computes_on_here(device, command, tmp_path, capsys):
    assert call(*command, "--device", device) == 2
    assert f"--device {device}: this program computes on CPUs and CUDA GPUs only" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_bf16_on_a_processor_without_its_instructions(command, tmp_path, without_bf16, capsys):
    assert call(*command, "--precision", "bf16") == 2
    assert "--precision bf16: this processor has no instructions for it" in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "script, arguments", [("finetune", ["--lr", 1e-4, "--steps", 1]), ("swa", ["--windows", 2])]
)
def test_bf16_runs_from_another_machine_are_not_continued(
    script, arguments, command, tmp_path, without_bf16, capsys
):
    assert call(*command) == 0
    config = tmp_path / "run/config.json"
    config.write_text(config.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    capsys.readouterr()
    assert call(script, tmp_path / "run", *arguments, "--out", tmp_path / "more") == 2
    assert "--precision bf16" in one_line(capsys)
    assert not (tmp_path / "more").exists()


def test_bf16_on_a_gpu_that_would_emulate_it(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or False)
    with pytest.raises(BadInput, match="this GPU has no instructions"):
        use_precision("bf16", torch.device("cuda", 0))
    assert asked == [{"including_emulation": False}]


@pytest.mark.parametrize("script", ["train", "finetune", "swa", "analyze"])
def test_waiting_threads_spin_for_a_moment_only(script):
    assert "GOMP_SPINCOUNT = '1000'" in what_openmp_reads(script)


def test_waiting_threads_spin_as_long_as_the_user_says():
    assert "GOMP_SPINCOUNT = '0'" in what_openmp_reads("finetune", OMP_WAIT_POLICY="passive")
    assert "GOMP_SPINCOUNT = '7'" in what_openmp_reads("finetune", GOMP_SPINCOUNT="7")


def what_openmp_reads(script, **policy):
    """What OpenMP says of its settings when a script loads PyTorch."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= policy | {"OMP_DISPLAY_ENV": "verbose"}
    command, root = [sys.executable, "-c", f"import {script}"], Path(__file__).parent.parent
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stderr
