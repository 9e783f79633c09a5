"""The baseline, which benchmarks compare with, is an independent program: what train.py must agree with."""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import stack_module_state
from torch.nn import functional as F

import models
import train
from bench import common, geometry, image_agreement, image_profile, images, synthetic
from bench.agreement import compare
from bench.baseline import BaselineRun, train_one
from data.commandline import BadInput
from data.device import BF16
from models import compiled, mlp
from models.evaluator import Evaluator

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("members_at_once, parts", [(230, 1), (6, 2), (8, 2), (4, 3), (1, 3)])
def test_members_follow_the_baseline_however_they_are_parted(members_at_once, parts, monkeypatch):
    monkeypatch.setattr(mlp, "MEMBERS_PER_PART", members_at_once)
    pairs = [(1, 2), (3, 2), (3, 1)]  # data seed, training seed
    members = [{"lrs": [lr], "seed": s, "data_seed": d} for d, s in pairs for lr in (1e-4, 1e-3, 3e-3)]
    settings = {"first_step": 0, "batch_size": 16, "rho": 1.0, "compile": False}
    sets = train.TickTraining.load_data({"members": members}, torch.device("cpu"))
    task = train.TickTraining(settings, members, torch.device("cpu"), sets)
    assert len(task.trainers.parts) == parts
    task.advance(0, 50)
    task.advance(50, 150)
    for member, weights, accuracy in zip(members, task.weights, task.evaluate()["test_accuracy"], strict=True):
        baseline = BaselineRun(member["lrs"][0], member["seed"], member["data_seed"])
        baseline.train(150)
        torch.testing.assert_close(weights, baseline.weights(), rtol=0, atol=1e-5)
        assert accuracy.item() == pytest.approx(
            baseline.evaluate(*baseline.sets[2:])[1], abs=0.0011
        )  # two points of 2,000


def test_baseline_measures_at_the_logged_iterations_and_at_the_end():
    measured = train_one(1e-3, 1, 1, steps=50, log_every=20)
    assert measured["step"] == [20, 40, 50] and len(measured["train"]) == len(measured["test"]) == 3
    again = BaselineRun(1e-3, 1, 1)
    again.train(50)
    assert measured["test"][-1] == again.evaluate(*again.sets[2:])
    assert len(measured["single_feature_accuracy"]) == 16


def results(shift, scale, seed=0, networks=50):
    random = np.random.default_rng(seed)
    values = shift + scale * random.standard_normal((networks, 3))
    return {("0.001", number, 1): list(row) for number, row in enumerate(values)}


def test_agreement_is_refuted_by_a_shift_and_by_another_standard_deviation():
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
def test_baseline_training_of_images_is_the_same_training(model, monkeypatch):
    # A smooth ReLU: at a kink rounding may switch a gradient. And both in the order as stored.
    smooth = lambda x, inplace=False: F.softplus(4 * x) / 4  # noqa: E731
    monkeypatch.setattr(F, "relu", smooth)
    monkeypatch.setattr(images, "without_in_place_relu", lambda: None)
    monkeypatch.setattr(train.images, "epoch_order", lambda seed, epoch, size: torch.arange(size))
    args = argparse.Namespace(
        model=model, width=4, classes=10, side=16, batch_size=32, images=70, device="cpu", augment="none"
    )
    cpu, image_set = torch.device("cpu"), images.random_image_set(70, 16, 10)
    baseline, ours = (
        images.BaselineTraining(args, image_set, cpu),
        images.OurTraining(["fp32"], args, image_set, cpu),
    )
    ours.task.evaluator.network.load_state_dict(baseline.network.state_dict())
    with torch.no_grad():
        for parameter in baseline.parameters:
            parameter.mul_(baseline.rho / ours.task.weights.norm())
        train.sphere.project_(ours.task.weights, baseline.rho)
    baseline.train_loader = torch.utils.data.DataLoader(baseline.train_loader.dataset, 32)
    for _ in range(2):
        baseline.epoch()
        ours.epoch()
    state = ours.task.evaluator.network.state_dict()
    for name, tensor in baseline.network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-4 * tensor.abs().max().item())


SMALL = ["--model", "si-convnet", "--width", "2", "--images", "40", "--side", "8", "--device", "cpu"]


@pytest.mark.slow
def test_images_are_timed_in_turns(tmp_path):
    programs = ["baseline", "bf16 without-channels-last", "tf32"]
    command = [sys.executable, "bench/images.py", *SMALL, "--turns", "2", "--processes", "1"]
    command += ["--programs", *programs, "--out", tmp_path / "speed.json"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["program", "baseline", "bf16", "tf32"]
    assert "tf32: skipped: --precision tf32: only GPUs have it" in done.stderr
    assert re.search(r"^turn 2 of 2: baseline \d+, bf16 without-channels-last \d+ images/s$", done.stderr, re.M)
    found = json.loads((tmp_path / "speed.json").read_text())
    assert list(found["images_per_second"]) == programs[:2] and found["processes"] == 1
    assert list(found["skipped"]) == ["tf32"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found["images_per_second"].values())


def interrupted(script, *arguments, after):
    """Start a script, interrupt it as Ctrl-C does, once it has printed a line that begins so; its code and stderr."""
    command = [sys.executable, script, *map(str, arguments)]
    # A shell that runs the tests in the background has them ignore SIGINT, which a script would inherit.
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=listen, **streams)
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith(after):
            break
    os.killpg(process.pid, signal.SIGINT)
    said += process.communicate(timeout=60)[1]
    deadline = time.monotonic() + 10
    while left := processes_of_group(process.pid):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)
    return process.returncode, said


def processes_of_group(group):
    """Names of the processes of a group that have not ended (nobody may have asked how those that have did)."""
    names = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, its_group = rest.split()[:3]
            if int(its_group) == group and state not in "ZX":
                names.append(name)
    return names


def test_interrupted_images_say_that_nothing_was_kept_and_leave_nothing_behind():
    asked = [*SMALL, "--turns", 10**6, "--programs", "baseline", "tf32"]
    code, said = interrupted("bench/images.py", *asked, after="turn 2 of")
    assert code in (130, -signal.SIGINT)  # both are 130 in a shell
    started, next_started, skipped, *turns, last = said.splitlines()
    assert started == "baseline: starting; two epochs are not measured" and next_started.startswith(
        "tf32: starting"
    )
    assert (
        skipped
        == "tf32: skipped: --precision tf32: only GPUs have it; train in fp32 or bf16, or use --device cuda"
    )
    assert [line for line in turns if not re.match(r"turn \d+ of 1000000: baseline \d+ images/s$", line)] == []
    assert last == "bench/images.py: interrupted; nothing was kept; start it again"


def no_bf16(precision, device):
    if precision == BF16:
        raise BadInput("--precision bf16: this processor has no instructions for it")


def refuse_to_compile(monkeypatch):
    def no_compiler(function, **options):
        raise RuntimeError("no g++")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(compiled, "failures", [])


def test_what_the_machine_cannot_run_is_refused_with_its_reason(monkeypatch):
    monkeypatch.setattr(images, "use_precision", no_bf16)
    refuse_to_compile(monkeypatch)
    args = argparse.Namespace(model="si-convnet", width=2, classes=10, side=8, batch_size=8, augment="none")
    image_set, cpu = images.random_image_set(10, 8, 10), torch.device("cpu")
    for words, reason in (
        (["bf16"], "no instructions"),
        (["fp32", "compile"], "^--compile: cannot compile here \\(no g\\+\\+\\)$"),
        (["fp32", "without-cuda-graph"], "only GPUs have CUDA graphs"),
    ):
        with pytest.raises(BadInput, match=reason):
            images.OurTraining(words, args, image_set, cpu)
    images.OurTraining(["fp32"], args, image_set, cpu).epoch()


class Answers:
    """A connection to a process that has given its answer."""

    def __init__(self, answer):
        self.answer = answer

    def send(self, message):
        pass

    def recv(self):
        return self.answer


def test_programs_are_skipped_where_their_process_says_so_and_the_others_run(monkeypatch, capsys):
    answers = {"baseline": "no images", "fp32": images.READY, "bf16": "no instructions", "tf32": images.READY}
    monkeypatch.setattr(images, "trainer", lambda program, args: contextlib.nullcontext(Answers(answers[program])))
    args = argparse.Namespace(programs=list(answers), processes=2, turns=3, images=10)
    rates, skipped = images.measure(args)
    assert {program: len(values) for program, values in rates.items()} == {"fp32": 3, "tf32": 3}
    assert skipped == {"baseline": "no images", "bf16": "no instructions"}
    said = capsys.readouterr().err
    assert (
        "bf16: skipped: no instructions\n" in said and said.count("turn ") == 3 and "\nturn 3 of 3: fp32 " in said
    )
    *_, last = images.table(rates, skipped)
    assert last.split() == ["bf16", "skipped:", "no", "instructions"]
    args.programs = ["baseline", "bf16"]
    with pytest.raises(BadInput, match="none of the programs"):
        images.measure(args)


@pytest.mark.parametrize("text", ["fp8", "fp32 backwards", "baseline compile", "compile", ""])
def test_unknown_programs_are_refused(text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["images.py", "--programs", "baseline", text])
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
    small = [*SMALL, "--images", "60", "--turns", "3", "--points", "2"]
    monkeypatch.setattr(sys, "argv", ["geometry.py", *small, "--out", str(tmp_path / "cost.json")])
    geometry.main()
    found = json.loads((tmp_path / "cost.json").read_text())
    point, forward = (float(np.median(found["seconds"][name])) for name in ("point", "forward pass"))
    assert found["points"] == 60 and found["forward_passes_of_geometry"] == pytest.approx(60 * point / forward)
    printed = capsys.readouterr()
    assert "geometry of one pre-training, 60 points" in printed.out
    assert printed.err.splitlines()[1:] == ["warmed up", "turn 1 of 3", "turn 2 of 3", "turn 3 of 3"]


def test_a_batched_pass_is_that_of_every_network():
    image_set = images.random_image_set(60, 8, 3)
    evaluator = Evaluator(models.build("si-convnet", 2, 3, 0), torch.device("cpu"))
    networks = [models.build("si-convnet", 2, 3, seed).train() for seed in (1, 2)]
    correct = geometry.batched_pass(evaluator, image_set, *stack_module_state(networks))
    for network, found in zip(networks, correct, strict=True):
        assert found == sum((network(x).argmax(1) == y).sum().item() for x, y in image_set.train_batches(128))


def test_the_profile_shows_progress_and_sums_to_an_iteration(tmp_path, monkeypatch, capsys):
    arguments = ["image_profile.py", *SMALL, "--threads", "1", "--out", str(tmp_path / "profile.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    image_profile.main()
    assert capsys.readouterr().err.splitlines()[-1] == "epoch 4 of 4: profiled"
    found = json.loads((tmp_path / "profile.json").read_text())
    assert sum(found["milliseconds_per_step"].values()) == pytest.approx(found["step"])


def test_options_that_the_machine_cannot_run_are_skipped(monkeypatch, capsys):
    monkeypatch.setattr(image_agreement, "use_precision", no_bf16)
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    monkeypatch.setattr(compiled, "failures", [])
    assert list(image_agreement.skipped_options()) == ["bf16"]
    assert "bf16: skipped: --precision bf16: this processor" in capsys.readouterr().err


RECORDING_SCRIPT = """
import json, sys
out = sys.argv[sys.argv.index("--out") + 1]
assert "--fail" not in sys.argv, "asked to fail"
open(out.rpartition("/")[2] + ".json", "w").write(json.dumps(sys.argv))
"""


@pytest.fixture
def checkout(tmp_path):
    """Another checkout, whose train.py notes in its folder how it was called."""
    (tmp_path / "train.py").write_text(RECORDING_SCRIPT)
    return tmp_path


def test_synthetic_runs_the_script_of_another_checkout_as_it_runs_ours(checkout):
    found = synthetic.programs(checkout)
    other, ours = found[f"train.py of {checkout}"], found["train.py"]
    assert list(found) == ["train.py --compile", "train.py", f"train.py of {checkout}", "baseline"]
    assert (other.folder, ours.folder, other.networks) == (checkout, ROOT, ours.networks)
    assert synthetic.seconds(other, 2, 7) > 0
    for process in (1, 2):
        called = json.loads((checkout / f"{process}.json").read_text())
        out = called[called.index("--out") + 1]
        assert called == [str(word) for word in ours.command(process, 7, out)]


def test_a_script_that_fails_is_named_with_its_words(checkout, capsys):
    program = synthetic.Program(lambda *_: ["train.py", "--fail", "--out", "here"], 1, checkout)
    with pytest.raises(BadInput, match="train.py --fail --out here: failed in "):
        synthetic.seconds(program, 1, 1)
    assert "asked to fail" in capsys.readouterr().err


def test_scripts_are_stopped_when_their_context_is_left():
    running = []
    with pytest.raises(KeyboardInterrupt), common.stopped(running):
        running.append(common.Script(["-c", "import time; time.sleep(1000)"]))
        raise KeyboardInterrupt
    assert running[0].process.returncode == -signal.SIGTERM


def test_synthetic_reports_every_turn_and_paired_ratios(checkout, tmp_path, monkeypatch, capsys):
    costs = {"train.py": iter([4, 5]), f"train.py of {checkout}": iter([2, 10]), "baseline": iter([400, 300])}
    found = synthetic.programs(checkout)
    named = {id(program): name for name, program in found.items()}
    monkeypatch.setattr(synthetic, "programs", lambda against: dict(found))
    monkeypatch.setattr(synthetic, "seconds", lambda *_: 0)
    monkeypatch.setattr(synthetic, "product_rate", lambda cores: 1e6 * synthetic.operations_per_iteration())
    monkeypatch.setattr(
        synthetic, "microseconds_per_iteration", lambda program, _: next(costs[named[id(program)]])
    )
    monkeypatch.setattr(synthetic, "difference_of_trajectories", lambda: 1e-7)
    refuse_to_compile(monkeypatch)
    out = tmp_path / "speed.json"
    monkeypatch.setattr(
        sys, "argv", ["synthetic.py", "--repeats", "2", "--against", str(checkout), "--out", str(out)]
    )
    synthetic.main()
    printed = capsys.readouterr()
    assert "train.py --compile: skipped: --compile: cannot compile here" in printed.err
    assert "turn 2 of 2: baseline: 300.00 microseconds per network and iteration" in printed.err
    assert f"train.py of {checkout} takes 1.25 (0.5-2) times as long as train.py\n" in printed.out
    written = json.loads(out.read_text())
    assert written["baseline_over_ours_not_compiled"] == [100, 60] and written["baseline_over_ours"] is None
    assert written["ours_not_compiled_over_against"] == [2, 0.5] and written["ours_over_floor"] == 4.5


def test_another_checkout_must_have_train_py(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["synthetic.py", "--against", str(tmp_path)])
    with pytest.raises(BadInput, match="has no train.py"):
        synthetic.main()
