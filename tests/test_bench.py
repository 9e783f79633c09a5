"""The baseline, which benchmarks compare with, is an independent program: what train.py must agree with."""

import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import ideal_studies
import numpy as np
import pytest
import torch
from conftest import random_image_set
from PIL import Image
from scipy import stats
from torch.func import stack_module_state
from torch.nn import functional as F

import analyze
import models
import train
from bench import claims as shuffled_claims
from bench import (
    common,
    differences,
    geometry,
    image_agreement,
    image_profile,
    images,
    peers,
    reading,
    synthetic,
    threads,
    without,
)
from bench.agreement import baseline_results, compare
from bench.baseline import BaselineRun, train_one
from data import augment, ticks
from data.analysis.claims import CLAIMS, judge, judge_claim
from data.analysis.criteria import KINDS
from data.analysis.evidence import Evidence
from data.analysis.lengths import stage_of
from data.analysis.regimes import measure_regimes
from data.analysis.study import Study, final
from data.commandline import BadInput, Parser, run
from data.device import BF16
from data.files import write_json
from models import compiled, mlp
from models.dropout import Dropout
from models.evaluator import Evaluator
from models.vit import Attention

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
    assert measured["balanced_accuracy"] == [again.balanced_accuracy(*set_) for set_ in single_feature_sets()]


def single_feature_sets():
    return [ticks.single_feature_set(feature) for feature in range(16)]


def test_baseline_and_analyze_measure_the_same_features_of_the_same_weights():
    baseline, written = BaselineRun(1e-3, 1, 1), {}
    frozen = baseline.network[6].weight.detach()
    solution = {"weights": baseline.weights()[None], "buffers": {"frozen": frozen}}

    def weights(name, put):
        put(solution)
        return solution

    run = SimpleNamespace(
        settings={},
        members=[{"data_seed": 1, "seed": 1}],
        weights=weights,
        write_measurement=lambda name, content: written.update(content),
    )
    sets = single_feature_sets()
    analyze.measure_features(run, *(torch.cat(parts) for parts in zip(*sets)))
    for measured, (inputs, labels) in zip(written["balanced_accuracy"][0, 0].tolist(), sets, strict=True):
        smaller = min((labels == 0).sum().item(), (labels == 1).sum().item())
        assert measured == pytest.approx(
            baseline.balanced_accuracy(inputs, labels), abs=1.01 / 2 / smaller
        )  # a tie


def test_constant_classifiers_score_exactly_one_half_in_the_baseline():
    for sign in (-1, 1):
        baseline = BaselineRun(1e-3, 1, 1)
        baseline.network[6].weight.data.abs_().mul_(sign)  # what it multiplies is not negative
        assert [baseline.balanced_accuracy(*set_) for set_ in single_feature_sets()] == [0.5] * 16


def test_agreement_reads_balanced_accuracies_of_the_baseline_alone(tmp_path):
    found = {"lr": 1e-3, "seed": 1, "data_seed": 2, "step": [20, 40], "train": [[0.7, 0.5], [0.6, 0.625]]}
    found |= {"test": [[0.8, 0.5], [0.7, 0.55]], "balanced_accuracy": [0.5, 0.75, 0.25]}
    write_json(tmp_path / "network.json", found)
    assert baseline_results(tmp_path) == {("0.001", 1, 2, 40): [0.6, 0.55, 0.75]}
    found["single_feature_accuracy"] = found.pop("balanced_accuracy")
    write_json(tmp_path / "network.json", found)
    with pytest.raises(BadInput, match="network.json: has no balanced_accuracy.*remove it and run"):
        baseline_results(tmp_path)


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


SHAPES = {"vit": {"side": 16, "depth": 1, "heads": 2, "patch": 8}}


@pytest.mark.parametrize("model", models.networks_for("images"))
def test_baseline_training_of_images_is_the_same_training(model, monkeypatch, float64):
    # A smooth ReLU: at a kink rounding may switch a gradient. And both in the order as stored, without dropout.
    smooth = lambda x, inplace=False: F.softplus(4 * x) / 4  # noqa: E731
    monkeypatch.setattr(F, "relu", smooth)
    monkeypatch.setattr(images, "without_in_place_relu", lambda: None)
    monkeypatch.setattr(images, "LR", 1e-4 if models.NETWORKS[model].rho else 1e-2)
    monkeypatch.setattr(train.images, "epoch_order", lambda seed, epoch, size: torch.arange(size))
    normalise = train.images.normalise
    monkeypatch.setattr(train.images, "normalise", lambda *arguments: normalise(*arguments).double())
    shape = SHAPES.get(model, {})
    args = argparse.Namespace(
        model=model, width=4, classes=10, side=16, batch_size=32, images=70, augment="none", shape=shape
    )
    cpu, image_set = torch.device("cpu"), images.random_image_set(70, 16, 10)
    baseline, ours = (
        images.BaselineTraining(args, image_set, cpu),
        images.OurTraining(["fp32"], args, image_set, cpu),
    )
    network = ours.task.evaluator.network
    network.load_state_dict(baseline.network.state_dict())
    if baseline.rho is not None:
        with torch.no_grad():
            for parameter in baseline.parameters:
                parameter.mul_(baseline.rho / ours.task.weights.norm())
        train.sphere.project_(ours.task.weights, baseline.rho)
    for module in [*baseline.network.modules(), *network.modules()]:
        if isinstance(module, Dropout):
            module.p = 0
    baseline.train_loader = torch.utils.data.DataLoader(baseline.train_loader.dataset, 32)
    before = ours.task.weights.clone()
    for _ in range(2):
        baseline.epoch()
        ours.epoch()
    assert (ours.task.weights - before).abs().max() > 1e-3
    state = network.state_dict()
    for name, tensor in baseline.network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-5, atol=1e-7)


def test_the_network_of_the_baseline_begins_as_ours_and_drops_as_published_code():
    args = argparse.Namespace(model="vit", width=4, classes=10, shape=SHAPES["vit"])
    network = images.plain_network(args)
    expected = models.build("vit", 4, 10, init_seed=1, **SHAPES["vit"])
    torch.testing.assert_close(network.state_dict(), expected.state_dict(), rtol=0, atol=0)
    activations = torch.ones(8, 100)
    for layer in (network.dropout, network.blocks[0].attention[2]):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            found = layer(activations)
            torch.manual_seed(1)
            assert torch.equal(found, torch.nn.Dropout(0.1)(activations)) and (found == 0).any()
    assert network.eval().dropout(activations) is activations


@pytest.mark.parametrize("name, operations", [("none", 0), ("crop-flip", 0), ("randaugment", 2)])
def test_the_baseline_crops_and_flips_as_we_do_after_its_randaugment(name, operations, monkeypatch):
    asked = []

    def invert(num_ops, magnitude):
        asked.append((num_ops, magnitude))
        return lambda image: Image.fromarray(255 - np.array(image))

    monkeypatch.setattr(images.transforms, "RandAugment", invert)
    pixels = images.random_image_set(1, 16, 2).train_images
    of_baseline = images.transforms.Compose(images.plain_transforms(name, 16))
    found = of_baseline(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()))
    assert asked == ([(operations, 14)] if operations else [])
    # Black where the image was padded: so padding comes after what inverts.
    before = 255 - pixels if operations else pixels
    choices = torch.cartesian_prod(torch.arange(5), torch.arange(5), torch.arange(2))
    ours = before if name == "none" else augment.crop_and_flip(before.expand(len(choices), -1, -1, -1), choices)
    assert torch.from_numpy(np.array(found)).permute(2, 0, 1).tolist() in ours.tolist()


def arguments(monkeypatch, *words):
    """What bench/images.py is asked for by these words."""
    monkeypatch.setattr(sys, "argv", ["images.py", *words])
    parser = Parser()
    images.add_network_arguments(parser)
    return images.network_arguments(parser)


def test_augmentation_and_shape_are_those_of_the_record_unless_given(monkeypatch):
    for model in models.networks_for("images"):
        args = arguments(monkeypatch, "--model", model)
        record = models.NETWORKS[model]
        assert (args.width, args.batch_size, args.side) == (32, 128, 32)
        assert (args.augment, args.shape) == (record.augment, record.shape)
    words = ["--model", "vit", "--side", "16", "--depth", "2", "--patch", "8", "--augment", "crop-flip"]
    args = arguments(monkeypatch, *words)
    assert args.augment == "crop-flip" and args.shape == {"side": 16, "depth": 2, "heads": 8, "patch": 8}
    cpu, image_set = torch.device("cpu"), images.random_image_set(4, 16, 10)
    settings = images.image_training(["fp32"], args, image_set, cpu).settings
    assert settings["shape"] == args.shape and settings["augment"] == "crop-flip"
    assert settings["optimizer"] == models.NETWORKS["vit"].optimizer


@pytest.mark.parametrize(
    "words, fault",
    [
        (["--model", "resnet18", "--depth", "2"], "--depth: is not for resnet18"),
        (["--model", "vit", "--width", "33"], "8 heads do not divide a width of 33"),
        (["--model", "vit", "--side", "18"], "patches of 4 pixels do not fill images of 18"),
    ],
)
def test_shapes_that_a_network_cannot_have_are_refused(words, fault, monkeypatch):
    with pytest.raises(BadInput, match=fault):
        arguments(monkeypatch, *words)


@pytest.mark.parametrize(
    "what, forward", [("fused-attention", "plain_attention"), ("fast-dropout", "plain_dropout")]
)
def test_train_py_goes_without_what_makes_the_vit_fast(what, forward, monkeypatch):
    for kind in (Attention, Dropout):
        monkeypatch.setattr(kind, "forward", kind.forward)  # to be put back
    without.WITHOUT[what]()
    assert getattr(without, forward) in (Attention.forward, Dropout.forward)
    shape = {"side": 8, "depth": 1, "heads": 2, "patch": 4}
    args = argparse.Namespace(model="vit", width=4, classes=10, batch_size=8, augment="randaugment", shape=shape)
    images.OurTraining(["fp32"], args, images.random_image_set(10, 8, 10), torch.device("cpu")).epoch()


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
    args = argparse.Namespace(
        model="si-convnet", width=2, shape={}, classes=10, side=8, batch_size=8, augment="none"
    )
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


def test_programs_of_threads_are_what_openmp_reads(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setattr(threads, "MEASURE", "import os; print(os.environ['OMP_NUM_THREADS'], 0)")
    found = {program: threads.milliseconds(program, "ticks", 1)["mean"] for program in threads.PROGRAMS}
    assert found == {name: 1 if name == "one thread" else os.cpu_count() for name in threads.PROGRAMS}
    monkeypatch.setattr(threads, "MEASURE", "import os; print(os.environ.get('GOMP_SPINCOUNT', 0), 0)")
    assert threads.milliseconds("one thread", "ticks", 1)["mean"] == 0  # that of the caller is not passed on
    assert threads.milliseconds("thread per core, short spin", "ticks", 1)["mean"] == 1000


@pytest.mark.parametrize("kind", ["images", "ticks", "addition"])
def test_iterations_of_a_process_are_timed(kind, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["-c", kind, "0.01"])
    exec(threads.MEASURE, {})
    mean, fastest = map(float, capsys.readouterr().out.split())
    assert 0 < fastest <= mean


def test_hogs_compute_until_they_are_ended():
    with threads.hogs(2) as busy:
        assert [process.poll() for process in busy] == [None, None]
    assert [process.returncode for process in busy] == [-signal.SIGKILL] * 2


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


def test_the_profile_of_a_vit_names_its_operations(tmp_path, monkeypatch):
    shape = ["--width", "8", "--depth", "1", "--heads", "2", "--patch", "4"]
    words = ["--model", "vit", *shape, "--images", "20", "--side", "8", "--batch-size", "10", "--threads", "1"]
    spent = {}
    for name in ("randaugment", "crop-flip"):
        out = tmp_path / f"{name}.json"
        monkeypatch.setattr(sys, "argv", ["image_profile.py", *words, "--augment", name, "--out", str(out)])
        image_profile.main()
        spent[name] = json.loads(out.read_text())["milliseconds_per_step"]
    named = {
        "attention",
        "linear layers, classifier",
        "layer norm",
        "GELU",
        "dropout's decisions",
        "optimiser",
        "loss",
    }
    assert all(spent[name][what] > 0 for name in spent for what in named)
    of_an_epoch = image_profile.RANDAUGMENT
    assert spent["randaugment"][of_an_epoch] > 10 * spent["crop-flip"][of_an_epoch]


def test_operations_are_counted_by_their_name_but_in_the_optimiser_and_in_randaugment():
    def event(name, around=None):
        return argparse.Namespace(name=name, cpu_parent=around)

    step, augmentation = event("Optimizer.step#Adam.step"), event(image_profile.RANDAUGMENT)
    for found, what in (
        (event("aten::mul", event("aten::linear")), "products, norm, zeroes: of dropout, step and data"),
        (event("aten::mul", event("aten::lerp", step)), "optimiser"),
        (step, "optimiser"),
        (event("aten::mkldnn_convolution", augmentation), image_profile.RANDAUGMENT),
        (event("aten::mkldnn_convolution"), "convolutions"),
        (event("aten::_softmax"), "attention"),
        (event("aten::_log_softmax"), "loss"),
        (event("aten::gelu"), "GELU"),
        (event("aten::view"), "memory, views, autograd"),
    ):
        assert image_profile.operation(found) == what


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


# ------------------------------------------------------------------------- shuffled learning rates, synthetic differences


@pytest.mark.parametrize("write", [ideal_studies.write_ideal, ideal_studies.write_image_ideal])
def test_a_shuffle_gives_runs_other_learning_rates_and_leaves_them_their_numbers(tmp_path, write):
    write(tmp_path)
    study = Study(tmp_path)
    before = copy.deepcopy([one.members for one in study.runs])
    other = shuffled_claims.shuffled(study, np.random.default_rng(1))
    assert [one.members for one in study.runs] == before and other is not study
    orders = {}
    for one, same in zip(study.runs, other.runs, strict=True):
        assert same is not one and same.path == one.path and same.metrics is one.metrics
        for member, moved in zip(one.members, same.members, strict=True):
            first, *later = member["lrs"]
            order = orders.setdefault(stage_of(one) == "converge", {})
            assert moved == member | {"lrs": [order.setdefault(first, moved["lrs"][0]), *later]}
        if study.parent(one):
            assert other.parent(same) is other.runs[study.runs.index(study.parent(one))]
    assert set(orders) == {False} | ({True} if study.of_stage("converge") else set())
    for order in orders.values():
        assert sorted(order) == sorted(order.values()) and list(order) != list(order.values())
    order, accuracy = orders[False], final("test_accuracy")
    for stage, *flrs in (("pretrain",), ("finetune", ideal_studies.FLRS[0])):
        found, expected = (of.by_plr(stage, accuracy, *flrs) for of in (other, study))
        assert found == {order[plr]: values for plr, values in expected.items()}


def test_claims_that_speak_of_learning_rates_seldom_hold_of_shuffled_ones(tmp_path, monkeypatch):
    """Nor do the boundaries between regimes move with them."""
    regimes_seen = []

    def judged(claim, evidence):
        regimes_seen.append(evidence.regimes)
        return judge_claim(claim, evidence)

    monkeypatch.setattr(shuffled_claims, "judge_claim", judged)
    monkeypatch.setattr(shuffled_claims, "CLAIMS", [claim for claim in CLAIMS if claim.name in ("M1", "R2", "Z1")])
    ideal_studies.write_ideal(tmp_path)
    study = Study(tmp_path)
    shares = shuffled_claims.shares_that_hold(study, 20, np.random.default_rng(0))
    assert list(shares) == ["M1", "R2"]  # not that of frequency bands, which ticks have none of
    assert max(shares.values()) <= 0.05
    assert len(regimes_seen) == 3 + 2 * 20 and all(found == measure_regimes(study) for found in regimes_seen)


def test_claims_hold_of_learning_rates_that_keep_their_places(tmp_path):
    ideal_studies.write_ideal(tmp_path)
    study = Study(tmp_path)
    shares = shuffled_claims.shares_that_hold(study, 2, SimpleNamespace(permutation=np.array))
    assert shares == {verdict["claim"]: 1 for verdict in judge(study) if verdict["verdict"] == "holds"}
    assert {"M1", "R2", "W1", "F6", "Y2"} < set(shares)


def test_criteria_that_hold_of_more_than_a_tenth_of_shuffles_are_marked(tmp_path, monkeypatch, capsys):
    found, kinds = {"M1": 0.0, "F2": 0.1, "R2": 0.105}, []

    def shares(study, shuffles, random):
        kinds.append(study.network["kind"])
        assert shuffles == 7 and 0 <= random.random() < 1
        return found

    monkeypatch.setattr(shuffled_claims, "shares_that_hold", shares)
    monkeypatch.setattr(sys, "argv", ["claims.py", "--shuffles", "7", "--out", str(tmp_path / "shares.json")])
    shuffled_claims.main()
    assert kinds == list(KINDS)
    printed = capsys.readouterr()
    lines = [line.split(maxsplit=2) for line in printed.out.splitlines()]
    of_each = [["M1", "0.0 %"], ["F2", "10.0 %"], ["R2", "10.5 %  too loose"]]
    assert lines == [[kind, *line] for kind in KINDS for line in of_each]
    assert printed.err.splitlines() == [f"{kind}: 7 shuffles" for kind in KINDS]
    assert json.loads((tmp_path / "shares.json").read_text()) == {
        "shuffles": 7,
        "shares": dict.fromkeys(KINDS, found),
    }


def test_a_study_of_ones_own_is_shuffled_instead_of_the_ideal_ones(tmp_path, monkeypatch, capsys):
    ideal_studies.write_practical_ideal(tmp_path / "runs", "convolutional")
    out = tmp_path / "shares.json"
    monkeypatch.setattr(sys, "argv", ["claims.py", str(tmp_path / "runs"), "--shuffles", "2", "--out", str(out)])
    shuffled_claims.main()
    [shares] = json.loads(out.read_text())["shares"].items()
    assert shares[0] == str(tmp_path / "runs") and shares[1].keys() == {"M1", "R2", "F3", "F4", "W2", "G5", "Z3"}
    assert len(capsys.readouterr().out.splitlines()) == 7


TICK_CHANGES = ideal_studies.changed("averaged", (7, 67.3), keys=(10,))  # so that no two settings are the best


@pytest.fixture
def tick_study(tmp_path):
    """Two runs each of three data seeds."""
    folder = tmp_path / "runs"
    ideal_studies.write_ideal(folder, data_seeds=3, **TICK_CHANGES)
    return folder


def by_data_seed(folder, index, window=None):
    """Mean accuracy in percent of each data seed at the PLR of this index, read from the files of a run."""
    members = json.loads((folder / "config.json").read_text())["members"]
    metrics = json.loads((folder / "metrics.json").read_text())
    swa = metrics.get("swa")
    accuracies = swa["test_accuracy"][swa["window"].index(window)] if window else metrics["test_accuracy"][-1]
    at_plr = [
        (member["data_seed"], 100 * accuracy)
        for member, accuracy in zip(members, accuracies)
        if member["lrs"][0] == ideal_studies.PLRS[index]
    ]
    return np.array([np.mean([a for seed, a in at_plr if seed == wanted]) for wanted in (1, 2, 3)])


def paired_interval(first, second, comparisons=1):
    """Of three data seeds; with two degrees of freedom Student's t has this closed form."""
    values, tail = first - second, 0.025 / comparisons
    t = (1 - 2 * tail) / np.sqrt(2 * tail * (1 - tail))
    half = t * values.std(ddof=1) / np.sqrt(3)
    ends = {"estimate": values.mean(), "lower": values.mean() - half, "upper": values.mean() + half}
    return pytest.approx(ends, rel=1e-4, abs=1e-5)


def test_leads_of_2a_are_paired_by_data_seed(tick_study):
    found = differences.leads_of_2a(Evidence(Study(tick_study)))
    finetuned, averaged = by_data_seed(tick_study / "finetune/2", 8), by_data_seed(tick_study / "swa", 8, 10)
    others = {
        "fine-tuned": (finetuned, by_data_seed(tick_study / "finetune/2", 1)),
        "averaged": (averaged, by_data_seed(tick_study / "swa", 7, 10)),
        "either": (averaged, by_data_seed(tick_study / "finetune/2", 1)),
        "against regime 1 for as long": (averaged, by_data_seed(tick_study / "finetune/2", 7)),
    }
    named = {
        "fine-tuned": ("FLR 0.00562 from 0.01: 72.50", "FLR 0.00562 from 0.000178: 67.50"),
        "averaged": ("SWA-10 from 0.01: 75.00", "SWA-10 from 0.00562: 67.30"),
        "either": ("SWA-10 from 0.01: 75.00", "FLR 0.00562 from 0.000178: 67.50"),
        "against regime 1 for as long": (
            "SWA-10 from 0.01: 75.00",
            "0.00562 throughout from 0.00562: 67.10",
        ),
    }
    assert {what: (of["of 2A"], of["of regime 1"]) for what, of in found.items()} == named
    for what, pair in others.items():
        assert found[what]["difference"] == paired_interval(*pair), what
    assert [found[what]["difference"]["estimate"] for what in named] == pytest.approx([5, 7.7, 7.5, 7.9])


def test_without_an_flr_that_is_a_plr_of_regime_1_nothing_trains_there_for_as_long(tick_study):
    e = Evidence(Study(tick_study))
    e.finetuned = {1.1 * flr: curve for flr, curve in e.finetuned.items()}
    assert list(differences.leads_of_2a(e)) == ["fine-tuned", "averaged", "either"]


def test_the_range_over_flrs_is_that_of_any_two_of_them(tick_study):
    found = differences.range_over_flrs(Evidence(Study(tick_study)))
    assert list(found) == ["0.01", "0.0178"]
    for index, of_plr in zip((8, 9), found.values()):
        assert (of_plr["best"], of_plr["worst"]) == (ideal_studies.FLRS[2], ideal_studies.FLRS[0])
        highest, lowest = (by_data_seed(tick_study / f"finetune/{number}", index) for number in (2, 0))
        assert of_plr["difference"] == paired_interval(highest, lowest, comparisons=3)
        assert of_plr["difference"]["estimate"] == pytest.approx(0.5)


def test_a_feature_dominates_in_runs_where_it_is_10_points_ahead(tick_study):
    """In both runs of the first data seed, one of the second and none of the third."""
    members = json.loads((tick_study / "pretrain/config.json").read_text())["members"]
    leads = {(1, 1): 0.125, (1, 2): 0.3, (2, 1): 0.0625, (2, 2): 0.11, (3, 1): 0.09, (3, 2): 0}
    at_plr = [member["lrs"][0] == ideal_studies.PLRS[8] for member in members]
    accuracies = [
        [0.5] * 7 + [0.5 + (leads[member["data_seed"], member["seed"]] if here else 0)] + [0.5] * 8
        for member, here in zip(members, at_plr)
    ]
    content = {"solution": ["checkpoint"], "balanced_accuracy": [accuracies]}
    (tick_study / "pretrain/features.json").write_text(json.dumps(content))
    found = differences.dominant_shares(Evidence(Study(tick_study)))
    shares = np.array([100, 50, 0])
    assert found["pre-training"].pop("0.01") == paired_interval(shares, 0 * shares)
    nothing, everything = ({"estimate": share, "lower": share, "upper": share} for share in (0, 100))
    assert list(found["pre-training"].values()) == [nothing] * 17
    assert found["SWA-2"] == found["SWA-5"] == {}  # of which no features are measured
    of_2a = {name: [plr for plr, share in found[name].items() if share == everything] for name in found}
    names = {index: f"{ideal_studies.PLRS[index]:.3g}" for index in range(18)}
    assert of_2a["SWA-10"] == of_2a["FLR 0.0001"] == [names[8], names[9]]
    assert of_2a["FLR 0.00562"] == [names[index] for index in range(8, 15)]


def test_differences_are_printed_and_written(tick_study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["differences.py", str(tick_study), "--out", str(tmp_path / "found.json")])
    differences.main()
    lines = capsys.readouterr().out.splitlines()
    titles = ["leads of 2A", "range over FLRs", "percent of runs with a dominant feature"]
    assert [line for line in lines if not line.startswith("  ")] == [f"{title}, 3 data seeds" for title in titles]
    written = json.loads((tmp_path / "found.json").read_text())
    assert list(written) == ["data_seeds", "plrs", *titles]
    assert (written["data_seeds"], written["plrs"]) == (3, ideal_studies.PLRS)
    lead = written["leads of 2A"]["fine-tuned"]
    ends = "{estimate:.4g} [{lower:.4g}, {upper:.4g}]".format(**lead["difference"])
    said = f"of 2A {lead['of 2A']}, of regime 1 {lead['of regime 1']}, difference {ends}"
    assert lines[1] == f"  fine-tuned: {said}"


def test_differences_are_refused_in_one_line_where_2a_is_not_bracketed(tmp_path, monkeypatch, capsys):
    without_2a = ideal_studies.changed("finetuned", (8, 70), keys=(0,))  # 2.5 pp below the highest FLR
    ideal_studies.write_ideal(tmp_path, data_seeds=2, **without_2a)
    monkeypatch.setattr(sys, "argv", ["differences.py", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        run(differences.main)
    assert end.value.code == 2
    printed = capsys.readouterr()
    reason = "regime 2A: its boundary 2A|2B is missing, as no PLR above 1|2 meets the criterion of 2A"
    assert (printed.out, printed.err) == ("", f"differences.py: {tmp_path}: {reason}\n")


def test_a_step_of_the_range_test_is_a_step_of_the_network():
    """At the learning rate that its schedule sets, for projected SGD and for those of torch.optim."""
    image_set = random_image_set(classes=3, train=8, test=6, side=8)
    members, device = [{"lrs": [1e-2], "seed": 1}], torch.device("cpu")
    for model in ("si-convnet", "resnet18"):
        network = models.NETWORKS[model]
        settings = {"model": model, "width": 2, "shape": {}, "optimizer": network.optimizer, "rho": network.rho}
        settings |= {"batch_size": 8, "compile": False, "precision": "fp32", "augment": "none", "first_step": 0}
        direct, wrapped = (train.ImageTraining(settings, members, device, image_set) for _ in range(2))
        direct.advance(0, 1)
        optimizer = peers.AsTorchOptimizer(wrapped)
        optimizer.param_groups[0]["lr"] = 1e-2
        optimizer.zero_grad()
        samples = wrapped._samples(0)[:, 0]
        wrapped.evaluator.network.train()
        images = image_set.normalise(image_set.train_images[samples])
        F.cross_entropy(wrapped.evaluator.network(images), image_set.train_labels[samples]).backward()
        optimizer.step()
        torch.testing.assert_close(wrapped.weights, direct.weights)


def test_runs_that_are_read_to_measure_it_are_such_as_scripts_write(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PLRS", reading.PLRS[::6])
    reading.write_images(tmp_path / "images")
    reading.write_ticks(tmp_path / "ticks")
    for name in ("images", "ticks"):
        study = Study(tmp_path / name)
        assert len(study.by_plr("pretrain", final("train_loss"))) == len(reading.PLRS) and study.flrs()
        assert not study.incomplete
    assert len(Study(tmp_path / "images").of_stage("swa")) == len(reading.PLRS)
