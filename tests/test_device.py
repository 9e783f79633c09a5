"""Devices and precisions that this program, or this machine, does not have: one line before anything is written."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import random_image_set
from test_runs import call, one_line

from data import device
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


# Memory


def test_what_takes_more_memory_than_is_free_is_refused(monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda _: 2 * 2**30)
    device.require_memory(2 * 2**30, "a set", "take less")
    message = "^a set takes 3.0 GiB of memory, of which 2.0 GiB are free; take less$"
    with pytest.raises(BadInput, match=message):
        device.require_memory(3 * 2**30, "a set", "take less")
    with pytest.raises(BadInput, match="of memory of cuda:0, of which"):
        device.require_memory(3 * 2**30, "a set", "take less", torch.device("cuda:0"))


def test_free_memory_is_what_the_machine_has_left():
    words = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = 1024 * int(words["MemTotal"].split()[0])
    assert 0 < device.free_memory(torch.device("cpu")) < total


def test_memory_of_control_groups(tmp_path):
    own = tmp_path / "groups" / "user" / "job"
    own.mkdir(parents=True)
    (tmp_path / "own").write_text("1:cpu:/other\n0::/user/job\n")

    def found():
        return device._memory_of_control_groups(tmp_path / "own", tmp_path / "groups")

    assert found() == math.inf
    (own / "memory.max").write_text("max\n")
    assert found() == math.inf
    (own / "memory.max").write_text("5000\n")
    assert found() == 5000
    (own.parent / "memory.max").write_text("4000\n")
    assert found() == 4000
    assert device._memory_of_control_groups(tmp_path / "none") == math.inf
    assert device._available_memory(tmp_path / "none") == math.inf
