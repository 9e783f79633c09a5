"""Compiled functions where they can be had, and what compiling must leave alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_runs import strict_json

from models import compiled

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(compiled, "failures", [])


def double(x):
    return 2 * x


def test_what_fails_in_the_trial_is_not_compiled_and_not_tried_again(monkeypatch, capsys):
    """Though it can be compiled for other inputs."""
    tries = []

    def compile_for_few(function, **options):
        def call(x):
            tries.append(len(x))
            if len(x) > 2:
                raise RuntimeError("C++ compile error\nfurther lines")
            return function(x)

        return call

    monkeypatch.setattr(torch, "compile", compile_for_few)

    def trial(function):
        for size in (1, 2, 3):
            function(torch.ones(size))

    assert compiled.compiled_or_plain(double, trial) is double
    assert compiled.compiled_or_plain(double, trial) is double
    assert tries == [1, 2, 3]
    line = "--compile: cannot compile here (C++ compile error); going on without, which is slower\n"
    assert capsys.readouterr().err == line


def test_what_works_in_the_trial_is_compiled(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda x: function(x) + 0)
    found = compiled.compiled_or_plain(double, lambda function: function(torch.ones(3)))
    assert found is not double and torch.equal(found(torch.ones(2)), torch.tensor([2.0, 2.0]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fails", [False, True])
def test_tensors_and_generators_are_as_before(fails):
    tensors, random = [torch.arange(3.0), torch.zeros(2)], torch.Generator().manual_seed(5)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(5))
    try:
        with compiled.unchanged(tensors, [random]):
            tensors[0].mul_(7)
            tensors[1] += torch.rand(2, generator=random)
            assert not fails or 1 / 0
    except ZeroDivisionError:
        assert fails
    assert torch.equal(tensors[0], torch.arange(3.0)) and torch.equal(tensors[1], torch.zeros(2))
    assert torch.equal(torch.rand(4, generator=random), expected)


def test_compiled_code_in_the_cache_is_told_apart_by_instruction_set(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(torch.compiler.config, "cache_key_tag", "")
    compiled.compiled_or_plain(double, lambda function: None)
    assert torch.compiler.config.cache_key_tag == torch.backends.cpu.get_cpu_capability()


@pytest.mark.slow
def test_another_instruction_set_does_not_use_code_compiled_for_this_one(tmp_path):
    """Without the tag training goes wrong without a word: loops run over too few elements."""
    losses = []
    for name in (torch.backends.cpu.get_cpu_capability().lower(), "avx2"):
        made = ["--data", "ticks", "--lr", "1e-3", "--steps", "40", "--compile", "--out", str(tmp_path / name)]
        environment = {"ATEN_CPU_CAPABILITY": name, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
        subprocess.run([sys.executable, "train.py", *made], cwd=ROOT, env=os.environ | environment, check=True)
        losses.append(strict_json(tmp_path / name / "metrics.json")["train_loss"][-1][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
