"""analyze.py on image runs: what it measures of trained solutions, against slow float64 computations, and its figures."""

import errno
import json
import math
import os
import re
import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import random_image_set
from test_analyze import IMAGES, command, set_network, whole, write_run, write_study
from test_claims import PRACTICAL_IDEAL, write_practical_ideal
from test_image_training import normalised
from test_networks import plain_logits
from test_runs import call, load

import analyze
from data.analysis import drawing, drawing_other, series
from data.analysis.axes import STYLE
from data.analysis.figures import FIGURES, figure_numbers, fitting_figures, refuse_unfit_figures
from data.analysis.study import Study
from data.commandline import BadInput, Progress, Refused
from data.files import write_json
from data.images import load_image_set, save_image_set
from data.locks import hold, release
from data.runs import Run, bands_name, geometry_name, low_ends_name, sharpness_name
from models.evaluator import Evaluator

PLRS, FLRS, LEVEL = ("1e-3", "1e-1"), ("1e-4", "5e-3"), 3.0
WIDTH, SIDE, CLASSES = 2, 8, 3


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "random.pt"
    save_image_set(random_image_set(classes=CLASSES, train=150, test=41, side=SIDE), path)  # batches of 128 and 22
    return path


@pytest.fixture(scope="session")
def trained(image_file, tmp_path_factory):
    """A study of real runs, all stages of two PLRs, with weights kept at a train loss."""
    folder = tmp_path_factory.mktemp("study")
    common = [
        "--model",
        "si-convnet",
        "--width",
        WIDTH,
        "--batch-size",
        32,
        "--rho",
        7,
        "--steps",
        4,
        "--keep-loss",
        LEVEL,
    ]
    for plr in PLRS:
        run = folder / f"pretrain/plr{plr}"
        assert call("train", "--data", image_file, *common, "--lr", plr, "--out", run) == 0
        tuning = ["--lr", *FLRS, "--steps", 3, "--keep-loss", LEVEL, "--out", folder / "finetune"]
        assert call("finetune", run, *tuning) == 0
        assert call("swa", run, "--windows", 2, 5, "--out", folder / "swa") == 0
    return folder


@pytest.fixture
def study(trained, tmp_path):
    """A copy of the runs of the study that has no measurements yet."""
    return shutil.copytree(trained, tmp_path / "study")


def kernels(weights):
    """The convolution kernels in flat weights [P], float64 [outputs, inputs, 3, 3]: stored channels last."""
    widths, found = [3, *(WIDTH * 2**depth for depth in range(4))], []
    for inputs, outputs in zip(widths, widths[1:]):
        count = outputs * inputs * 9
        found.append(weights[:count].double().view(outputs, 3, 3, inputs).permute(0, 3, 1, 2))
        weights = weights[count:]
    assert len(weights) == 0
    return found


def classifier(folder):
    buffers = load(folder / "checkpoint.pt")["buffers"]
    return buffers["classifier.weight"].double(), buffers["classifier.bias"].double()


def weights_of(folder, name="checkpoint"):
    return load(folder / f"{name}.pt")["weights"][0]


def slow_pass(weights, last_layer, inputs):
    """Logits in batches of 128 with their own statistics, and the statistics averaged over images."""
    logits, totals = [], None
    for batch in inputs.split(128):
        found, moments = plain_logits("si-convnet", batch, kernels(weights), last_layer, None)
        logits.append(found)
        weighted = [(len(batch) * mean, len(batch) * variance) for mean, variance in moments]
        totals = weighted if totals is None else [(a + c, b + d) for (a, b), (c, d) in zip(totals, weighted)]
    return torch.cat(logits), [(mean / len(inputs), variance / len(inputs)) for mean, variance in totals]


def error(logits, labels):
    return 100 * (logits.argmax(1) != labels).double().mean().item()


# Geometry


def slow_errors(weights, last_layer, data):
    logits, statistics = slow_pass(weights, last_layer, normalised(data.train_images))
    of_test, _ = plain_logits("si-convnet", normalised(data.test_images), kernels(weights), last_layer, statistics)
    return error(logits, data.train_labels), error(of_test, data.test_labels)


def test_geometry_equals_a_slow_computation(study, image_file, monkeypatch):
    command(monkeypatch, "geometry", study)
    data, plr = load_image_set(image_file), PLRS[1]
    measured = Run(study / f"pretrain/plr{plr}").measurement(geometry_name(*map(float, FLRS)))
    solutions = {
        "L": weights_of(study / f"finetune/plr{plr}-flr{FLRS[0]}"),
        "H": weights_of(study / f"finetune/plr{plr}-flr{FLRS[1]}"),
        "S": weights_of(study / f"swa/plr{plr}", "swa-5"),
    }
    solutions = {name: 7 * weights.double() / weights.double().norm() for name, weights in solutions.items()}
    last_layer = classifier(study / f"pretrain/plr{plr}")
    barriers = []
    for pair in ("LH", "SH", "SL"):
        first, second = (solutions[name] for name in pair)
        assert measured["angle"][pair] == [pytest.approx(torch.acos(first @ second / 49).item(), abs=1e-5)]
        alphas = np.arange(21) / 20
        path = np.array([slow_errors((1 - a) * first + a * second, last_layer, data) for a in alphas])
        excess = path - np.outer(1 - alphas, path[0]) - np.outer(alphas, path[-1])
        for split, barrier, count in zip(("train", "test"), excess.max(axis=0), (150, 41)):
            assert measured[f"{split}_barrier"][pair] == [pytest.approx(barrier, abs=1e-4)], count
        barriers.append(excess.max(axis=0))
    assert np.max(barriers) > 3


def test_geometry_is_measured_once_and_where_all_solutions_are_there(study, monkeypatch, capsys):
    (study / f"finetune/plr{PLRS[0]}-flr{FLRS[0]}/config.json").unlink()
    command(monkeypatch, "geometry", study)
    files = list(study.rglob("geometry*.json"))
    assert [path.parent.name for path in files] == [f"plr{PLRS[1]}"]
    assert f"plr{PLRS[0]}: is not continued by a complete fine-tuning at 0.0001" in capsys.readouterr().out
    before = files[0].stat().st_mtime_ns
    command(monkeypatch, "geometry", study)
    assert files[0].stat().st_mtime_ns == before


def test_geometry_takes_one_pass_for_every_point(study, monkeypatch):
    passes = []
    measure = Evaluator.errors
    monkeypatch.setattr(Evaluator, "errors", lambda *arguments: passes.append(1) or measure(*arguments))
    command(monkeypatch, "geometry", study)
    assert len(passes) == len(PLRS) * (3 + 3 * 19)


# Frequency bands


def slow_bands(images, limits):
    pixels = images.double().numpy() / 255
    frequencies = np.abs(np.fft.fftfreq(SIDE, 1 / SIDE))
    distance = frequencies[:, None] + frequencies
    kept = np.fft.fft2(pixels) * ((distance >= limits[0]) & (distance <= limits[1]))
    return torch.tensor(np.fft.ifft2(kept).real)


def slow_normalised(filtered, normalisation, has_mean, of_training):
    mean = torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010], dtype=torch.float64).view(3, 1, 1)
    if normalisation == "band":
        channels = of_training.transpose(0, 1).flatten(1)
        moments = (channels.mean(1).view(3, 1, 1), channels.std(1, unbiased=False).view(3, 1, 1))
        return (filtered - moments[0]) / moments[1]
    if has_mean:
        return (filtered - mean) / std
    return filtered / std if normalisation == "std" else filtered


def norm_statistics(buffers):
    """[(mean, variance)] of the batch norms, in order."""
    return [
        (buffers[f"norms.{i}.running_mean"].double(), buffers[f"norms.{i}.running_var"].double()) for i in range(4)
    ]


@pytest.mark.parametrize("normalisation", ["keep", "std", "band", "reestimate"])
@pytest.mark.parametrize("run, solution", [("pretrain/plr1e-3", "checkpoint"), ("swa/plr1e-3", "swa-5")])
def test_band_accuracies_equal_a_slow_computation(study, image_file, monkeypatch, normalisation, run, solution):
    command(monkeypatch, "bands", study, "--normalisation", normalisation)
    measured, data = Run(study / run).measurement(bands_name(normalisation)), load_image_set(image_file)
    assert measured["solution"] == solution and measured["normalisation"] == normalisation
    weights, last_layer = weights_of(study / run, solution), classifier(study / run)
    trained_statistics = norm_statistics(load(study / run / f"{solution}.pt")["buffers"])
    limits = {"background": (0, 0), "low": (1, 2), "mid": (3, 6), "high": (7, 8), "low-32": (1, 8)}
    assert measured["limits"] == {name: list(ends) for name, ends in limits.items()}
    for name, ends in [("full", None), *limits.items()]:
        train, test = data.train_images, data.test_images
        if name == "full":
            train, test = normalised(train), normalised(test)
        else:
            of_training = slow_bands(train, ends)
            train, test = (
                slow_normalised(part, normalisation, ends[0] == 0, of_training)
                for part in (of_training, slow_bands(test, ends))
            )
        statistics = (
            trained_statistics if normalisation != "reestimate" else slow_pass(weights, last_layer, train)[1]
        )
        logits, _ = plain_logits("si-convnet", test, kernels(weights), last_layer, statistics)
        expected = 1 - error(logits, data.test_labels) / 100
        assert measured["accuracy"][name] == [pytest.approx(expected, abs=1e-6)], name


def test_accuracies_for_other_ends_of_the_low_band_equal_a_slow_computation(study, image_file, monkeypatch):
    command(monkeypatch, "bands", study, "--low-ends", 4, 1, "--normalisation", "keep", "reestimate")
    files = {path.relative_to(study) for path in study.rglob("low-ends-*.json")}
    lowest = [study / f"finetune/plr{plr}-flr{FLRS[0]}" for plr in PLRS]
    assert files == {
        run.relative_to(study) / f"low-ends-{n}.json" for run in lowest for n in ("keep", "reestimate")
    }
    run, data = lowest[0], load_image_set(image_file)
    weights, last_layer = weights_of(run), classifier(run)
    for normalisation in ("keep", "reestimate"):
        measured = Run(run).measurement(low_ends_name(normalisation))
        assert measured["low_ends"] == [1, 4] and measured["normalisation"] == normalisation
        assert measured["limits"] == {"low": {"1": [1, 1], "4": [1, 4]}, "mid": {"1": [2, 6], "4": [5, 6]}}
        for band, of_ends in measured["limits"].items():
            for end, ends in of_ends.items():
                train, test = slow_bands(data.train_images, ends), slow_bands(data.test_images, ends)
                statistics = norm_statistics(load(run / "checkpoint.pt")["buffers"])
                if normalisation == "reestimate":
                    statistics = slow_pass(weights, last_layer, train)[1]
                logits, _ = plain_logits("si-convnet", test, kernels(weights), last_layer, statistics)
                expected = 1 - error(logits, data.test_labels) / 100
                assert measured["accuracy"][band][end] == [pytest.approx(expected, abs=1e-6)], (band, end)


def test_other_ends_of_the_low_band_are_measured_once_and_not_mixed(study, monkeypatch, capsys):
    command(monkeypatch, "bands", study, "--low-ends", 4, 2)
    before = {path: path.stat().st_mtime_ns for path in study.rglob("low-ends-*.json")}
    command(monkeypatch, "bands", study, "--low-ends", 2, 4, 4)
    assert before == {path: path.stat().st_mtime_ns for path in study.rglob("low-ends-*.json")}
    assert "low ends, reestimate: all 2 runs are measured" in capsys.readouterr().out
    with pytest.raises(
        Refused, match="low-ends-reestimate was measured with --low-ends 2 4; use these, or remove"
    ):
        command(monkeypatch, "bands", study, "--low-ends", 2, 3)
    numbers = series.low_end_numbers(Study(study))
    assert numbers["flr"] == float(FLRS[0]) and numbers["normalisation"] == "reestimate"
    assert [panel["low_end"] for panel in numbers["panels"]] == [2, 4]
    mid = {curve["band"]: curve for curve in numbers["panels"][1]["bands"]}["mid"]
    found = [Run(study / f"finetune/plr{plr}-flr{FLRS[0]}").measurement("low-ends-reestimate") for plr in PLRS]
    assert mid["mean"] == pytest.approx([100 * measured["accuracy"]["mid"]["4"][0] for measured in found])


@pytest.mark.parametrize("end", [6, 40])
def test_an_end_that_leaves_no_mid_band_is_refused_before_anything_is_measured(study, monkeypatch, end):
    with pytest.raises(
        BadInput, match=f"--low-ends {end}: the mid band of images of 8 pixels ends at 6; give ends"
    ):
        command(monkeypatch, "bands", study, "--low-ends", 2, end)
    assert not list(study.rglob("bands-*.json")) + list(study.rglob("band-images.json"))


def test_ends_of_the_low_band_need_fine_tuning(study, monkeypatch, capsys):
    shutil.rmtree(study / "finetune")
    command(monkeypatch, "bands", study, "--low-ends", 2)
    assert "low ends, reestimate: nothing to measure: " in capsys.readouterr().out


def test_networks_without_batch_norm_see_band_images_by_the_published_rule(study, monkeypatch):
    set_network(study, barrier={"points": 7, "on_sphere": False, "batch_norm": False, "floor": 0.01})
    command(monkeypatch, "bands", study, "--low-ends", 2)
    found = {path.name for path in study.rglob("*.json")} - {"config.json", "metrics.json"}
    assert found == {"band-images.json", "bands-keep.json", "low-ends-keep.json"}
    [row] = series.all_band_numbers(Study(study))["rows"]
    assert row["normalisation"] == series.low_end_numbers(Study(study))["normalisation"] == "keep"
    with pytest.raises(
        BadInput, match="--normalisation reestimate: this network has no batch-norm statistics; use"
    ):
        command(monkeypatch, "bands", study, "--normalisation", "reestimate")


def test_every_normalisation_is_measured_once(study, monkeypatch):
    command(monkeypatch, "bands", study)
    before = {path: path.stat().st_mtime_ns for path in study.rglob("bands-*.json")}
    assert len(before) == 8 and {path.name for path in before} == {"bands-reestimate.json"}
    command(monkeypatch, "bands", study, "--normalisation", "reestimate", "std")
    after = {path: path.stat().st_mtime_ns for path in study.rglob("bands-*.json")}
    assert len(after) == 16 and before.items() <= after.items()


def test_figure_7_has_a_row_for_every_normalisation_measured(study, monkeypatch):
    command(monkeypatch, "bands", study, "--normalisation", "reestimate", "band")
    numbers = series.band_numbers(Study(study))
    assert [row["normalisation"] for row in numbers["rows"]] == ["band", "reestimate"]
    columns = [(panel["stage"], panel["flr"]) for panel in numbers["rows"][0]["panels"]]
    assert columns == [("pretrain", None), ("swa", None), ("finetune", 1e-4)]
    mid = {curve["band"]: curve for curve in numbers["rows"][0]["panels"][2]["bands"]}["mid"]
    found = [Run(study / f"finetune/plr{plr}-flr1e-4").measurement("bands-band") for plr in PLRS]
    assert mid["mean"] == pytest.approx([100 * measured["accuracy"]["mid"][0] for measured in found])
    [row] = series.all_band_numbers(Study(study))["rows"]
    assert [panel["flr"] for panel in row["panels"]] == [None, None, 1e-4, 5e-3]


def test_band_images_are_stretched_and_their_spectra_masked(study, image_file, monkeypatch):
    command(monkeypatch, "bands", study)
    numbers, data = series.band_image_numbers(Study(study)), load_image_set(image_file)
    assert numbers["class"] == data.classes[data.test_labels[0]]
    panels, image = {panel["name"]: panel for panel in numbers["panels"]}, data.test_images[0].permute(1, 2, 0)
    assert panels["image"]["pixels"] == image.tolist()
    mid = slow_bands(data.test_images[:1], (3, 6))[0].numpy()
    low, high = mid.min(axis=(1, 2), keepdims=True), mid.max(axis=(1, 2), keepdims=True)
    expected = (255 * (mid - low) / (high - low)).transpose(1, 2, 0)
    assert np.allclose(panels["mid"]["pixels"], expected, rtol=0, atol=0.51)
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(data.test_images[0].numpy() / 255), axes=(1, 2))).sum(axis=0)
    place = np.arange(-4, 4)
    inside = np.isin(abs(place)[:, None] + abs(place), range(3, 7))
    found = np.array(panels["mid"]["spectrum"], dtype=float)
    assert np.allclose(found, np.where(inside, np.log(magnitude), np.nan), rtol=0, atol=1e-3, equal_nan=True)


# Filter norms


def test_filter_norms_equal_those_of_the_kernels(study, monkeypatch):
    command(monkeypatch, "norms", study)
    for run, solution in ((f"finetune/plr{PLRS[0]}-flr1e-4", "checkpoint"), (f"swa/plr{PLRS[0]}", "swa-5")):
        measured = Run(study / run).measurement("norms")
        weights = weights_of(study / run, solution)
        expected = [kernel[output].norm().item() for kernel in kernels(weights) for output in range(len(kernel))]
        assert list(measured) == [solution, "end"]
        assert measured[solution] == [
            pytest.approx([norm / weights.double().norm().item() for norm in expected], rel=1e-5)
        ]


def test_the_initial_point_has_the_norms_that_training_starts_from(
    study, trained, image_file, tmp_path, monkeypatch
):
    command(monkeypatch, "norms", study)
    common = ["--model", "si-convnet", "--width", WIDTH, "--batch-size", 32, "--rho", 7, "--steps", 1, "--keep", 0]
    assert call("train", "--data", image_file, *common, "--lr", PLRS[0], "--out", tmp_path / "again") == 0
    weights = weights_of(tmp_path / "again", "step-0")
    expected = [kernel[output].norm().item() / 7 for kernel in kernels(weights) for output in range(len(kernel))]
    assert Run(study / f"pretrain/plr{PLRS[0]}").measurement("norms")["initial"] == [
        pytest.approx(expected, rel=1e-5)
    ]


def test_figure_13_counts_filters_by_decade(tmp_path):
    runs = tmp_path / "runs"
    write_study(runs)
    norms = {"initial": [[0.1, 0.1, 0.01, 0.0]], "checkpoint": [[0.5, 1e-3, 1e-3, 1e-5]]}
    flrs = (1e-5, 1e-4)
    for path in (runs / "pretrain/1.0", runs / "pretrain/0.0001", *(runs / f"finetune/1.0-{flr}" for flr in flrs)):
        write_json(path / "norms.json", norms)
    write_run(runs / "pretrain/1e-5", "pretrain", [{"lrs": [1e-5], "seed": 1}], IMAGES, train_loss=[10.0])
    write_json(runs / "pretrain/1e-5/norms.json", norms)
    numbers = series.norm_numbers(Study(runs))
    (initial, after), (scratch, tuned), _ = numbers["panels"]
    edges = np.array(numbers["edges"])
    assert sum(initial["counts"]) == 4 and initial["counts"][0] == 1  # what is 0 lies in the first bin
    assert initial["counts"][np.searchsorted(edges, -0.99) - 1] == 2
    assert after["counts"][np.searchsorted(edges, -2.99) - 1] == 2
    assert after["decades"] == pytest.approx(math.log10(0.5) + 5, rel=0.05)
    assert (scratch["lrs"], tuned["lrs"]) == ((1e-5,), (1.0, 1e-5))


# Sharpness


def test_sharpness_is_that_of_the_kept_weights(study, image_file, monkeypatch):
    for path in study.rglob("loss-3e0.pt"):
        if path.parent.name != f"plr{PLRS[0]}":
            path.unlink()
    command(monkeypatch, "sharpness", study, "--level", LEVEL, "--images", 140, "--probes", 3)
    run, data = study / f"pretrain/plr{PLRS[0]}", load_image_set(image_file)
    measured, kept = Run(run).measurement(sharpness_name(LEVEL)), load(run / "loss-3e0.pt")
    assert measured["step"] == [kept["step"]] and measured["images"] == 140
    pieces = [kernel.clone().requires_grad_() for kernel in kernels(kept["weights"][0])]
    inputs, norms, losses, correct = normalised(data.train_images), [], [], 0
    for some_inputs, labels in zip(inputs.split(128), data.train_labels.split(128)):
        logits, _ = plain_logits("si-convnet", some_inputs, pieces, classifier(run), None)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        norms.append(math.sqrt(sum(g.square().sum().item() for g in torch.autograd.grad(loss, pieces))))
        losses.append(loss.item() * len(labels))
        correct += (logits.argmax(1) == labels).sum().item()
    assert measured["gradient_norm"] == [pytest.approx(7 * np.mean(norms), rel=1e-3)]
    assert measured["train_loss"] == [pytest.approx(sum(losses) / 150, rel=1e-4)]
    assert measured["train_accuracy"] == [pytest.approx(correct / 150)]
    logits, _ = plain_logits(
        "si-convnet", normalised(data.test_images), pieces, classifier(run), norm_statistics(kept["buffers"])
    )
    assert measured["test_accuracy"] == [pytest.approx(1 - error(logits, data.test_labels) / 100)]
    assert measured["residual"][0] < 0.05 * measured["largest_eigenvalue"][0]
    assert measured["largest_eigenvalue"][0] == pytest.approx(
        slow_largest_eigenvalue(run, kept, data, 140), rel=0.05
    )
    assert measured["trace_error"][0] > 0


def slow_largest_eigenvalue(run, kept, data, count):
    """The largest eigenvalue of the Hessian of the loss of the direction, by power iteration in float64."""
    weights = kept["weights"][0].double()
    direction = (weights / weights.norm()).requires_grad_()
    total = 0
    for inputs, labels in zip(
        normalised(data.train_images[:count]).split(128), data.train_labels[:count].split(128)
    ):
        pieces = kernels(7 * direction / direction.norm())
        logits, _ = plain_logits("si-convnet", inputs, pieces, classifier(run), None)
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / count
    [slope] = torch.autograd.grad(total, direction, create_graph=True)
    found = []
    for shift in (0, None):
        vector, value = (
            torch.randn(len(direction), dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
            0.0,
        )
        offset = 0 if shift == 0 else abs(found[0])
        for _ in range(60):
            [product] = torch.autograd.grad(slope @ vector, direction, retain_graph=True)
            product = product + offset * vector
            value, vector = (vector @ product / (vector @ vector)).item(), product / product.norm()
        found.append(value - offset)
    return found[1]


def test_sharpness_is_measured_once_of_every_run_that_kept_weights(study, monkeypatch):
    options = ["--images", 64, "--probes", 2]
    command(monkeypatch, "sharpness", study, "--level", LEVEL, *options)
    before = {path: path.stat().st_mtime_ns for path in study.rglob("sharpness-*.json")}
    assert {path.parent for path in before} == {path.parent for path in study.rglob("loss-3e0.pt")} and len(
        before
    ) > 0
    command(monkeypatch, "sharpness", study, "--level", LEVEL, *options)
    assert before == {path: path.stat().st_mtime_ns for path in study.rglob("sharpness-*.json")}


def test_sharpness_with_other_options_is_refused(study, monkeypatch):
    command(monkeypatch, "sharpness", study, "--level", LEVEL, "--images", 64, "--probes", 2)
    for options in (["--images", 65, "--probes", 2], ["--images", 64, "--probes", 3]):
        with pytest.raises(Refused, match="was measured with --images 64 --probes 2"):
            command(monkeypatch, "sharpness", study, "--level", LEVEL, *options)


def test_every_level_is_checked_before_one_is_measured(study, monkeypatch):
    command(monkeypatch, "sharpness", study, "--level", LEVEL, "--images", 64, "--probes", 2)
    for path in study.rglob("loss-3e0.pt"):
        shutil.copy(path, path.with_name("loss-7e0.pt"))
    with pytest.raises(Refused, match="was measured with --images 64 --probes 2"):
        command(monkeypatch, "sharpness", study, "--level", 7, LEVEL)
    assert not list(study.rglob("sharpness-loss-7e0.json"))


def test_a_level_that_no_run_kept_weights_at_is_skipped(study, monkeypatch, capsys):
    command(monkeypatch, "sharpness", study, "--level", 7, LEVEL, "--images", 64, "--probes", 2)
    line = "nothing to measure: no run kept weights at train loss 7; --keep-loss of train.py and finetune.py does"
    assert f"sharpness at train loss 7: {line}\n" in capsys.readouterr().out
    assert {path.name for path in study.rglob("sharpness-*.json")} == {"sharpness-loss-3e0.json"}


def test_sharpness_along_training_is_that_of_kept_epochs_and_of_the_end(study, monkeypatch, capsys):
    run, options = study / f"pretrain/plr{PLRS[0]}", ["--images", 64, "--probes", 2, "--level", LEVEL]
    shutil.copy(run / "loss-3e0.pt", run / "step-1.pt")
    monkeypatch.setattr(Progress, "seconds_between_lines", 0)
    command(monkeypatch, "sharpness", study, "--step", 1, 7, "--end", *options)
    out, measured = capsys.readouterr().out, Run(run).measurement
    assert measured("sharpness-step-1") == measured(sharpness_name(LEVEL)) | {"solution": "step-1"}
    assert measured("sharpness-checkpoint")["step"] == [load(run / "checkpoint.pt")["step"]]
    assert not list(study.rglob("sharpness-step-7*")) and len(list(study.rglob("sharpness-step-1*"))) == 1
    assert {path.parent.name for path in study.rglob("sharpness-checkpoint*")} == {
        path.name for stage in ("pretrain", "finetune") for path in (study / stage).iterdir()
    }
    steps = ", ".join(map(str, sorted({load(path)["step"] for path in study.rglob("checkpoint.pt")})))
    nothing = (
        f"nothing to measure: no run kept weights at epoch 7 (there are epochs {steps}); --keep of train.py does"
    )
    assert f"sharpness at epoch 7: {nothing}" in out
    # One pass for the gradient, a product for each step of Lanczos and the residual, and two probes.
    passes = re.findall(rf"sharpness at epoch 1: run 0/1, plr{PLRS[0]}, pass (\d+) over 64 images", out)
    assert [int(number) for number in passes] == list(range(1, len(passes) + 1)) and len(passes) > 10


def test_sharpness_at_the_epoch_of_the_end_is_that_of_the_end(study, monkeypatch, capsys):
    step, options = load(study / f"pretrain/plr{PLRS[0]}/checkpoint.pt")["step"], ["--images", 64, "--probes", 2]
    command(monkeypatch, "sharpness", study, "--step", step, "--end", *options)
    found = [path for path in study.rglob("sharpness-*.json")]
    assert {path.stem for path in found} == {"sharpness-checkpoint"} and len(found) == len(set(found))
    assert capsys.readouterr().out.count("plr") == 0 or not list(study.rglob("sharpness-step*"))


def test_sharpness_needs_to_know_of_what(study, monkeypatch):
    with pytest.raises(BadInput, match="--level LOSS..., --step EPOCH... or --end"):
        command(monkeypatch, "sharpness", study)


def test_filter_norms_need_no_gpu_of_runs_at_a_precision_of_gpus(study, monkeypatch):
    for path in study.rglob("config.json"):
        path.write_text(path.read_text().replace('"precision": "fp32"', '"precision": "tf32"'))
    command(monkeypatch, "norms", study)
    assert len(list(study.rglob("norms.json"))) == len(list(study.rglob("config.json")))


def test_nothing_is_loaded_where_all_is_measured(study, monkeypatch):
    stages = (
        ["norms"],
        ["bands", "--low-ends", 2],
        ["geometry"],
        ["sharpness", "--level", LEVEL, "--images", 64, "--probes", 2],
    )
    for name, *options in stages:
        command(monkeypatch, name, study, *options)
    monkeypatch.delattr(analyze, "evaluator_of")
    monkeypatch.delattr(analyze, "image_set_of")
    for name, *options in stages:
        command(monkeypatch, name, study, *options)


@pytest.mark.parametrize(
    "network, regime_1, regime_2",
    [
        ({}, (1e-4, 1e-3), (1e-2, 1e-1)),
        ({"converged": None}, (1e-4, 1e-3, 1e-2), (1e-1,)),
        ({"diverges": False}, (1e-4, 1e-3), (1e-2, 1e-1, 1.0)),
    ],
)
def test_figure_26_shows_regime_1_and_what_is_fine_tuned_from_regime_2(tmp_path, network, regime_1, regime_2):
    runs = tmp_path / "runs"
    write_study(runs, settings=IMAGES | {"keep_loss": [0.1]}, loss=(3, 2, 1, 2, 9))
    set_network(runs, **network)
    measured = {"test_accuracy": [0.4], "residual": [0.1], "trace_error": [1.0], "train_loss": [0.1]}
    for index, path in enumerate(sorted(runs.rglob("config.json"))):
        sharp = {"gradient_norm": [float(index)], "largest_eigenvalue": [None], "trace": [5.0]}
        write_json(path.parent / "sharpness-loss-1e-1.json", whole("sharpness", measured | sharp))
    [row] = series.sharpness_numbers(Study(runs))["rows"]
    found = [(point["plr"], point["flr"]) for point in row["points"]]
    tuned = [(plr, flr) for plr in regime_2 for flr in (1e-5, 1e-4)]
    assert found == [(plr, None) for plr in regime_1] + tuned
    assert {point["test_error"] for point in row["points"]} == {60.0} and row["level"] == 0.1


# Boundary and two stages


def test_figure_11_shows_where_every_run_converged(tmp_path):
    runs = tmp_path / "runs"
    write_study(runs)
    settings = IMAGES | {"until_loss": 1e-4}
    for seed, losses in ((1, [9.0, 0.5, 0.009, 0.00005]), (2, [9.0, 0.5, 0.2, 0.1])):
        measured = {"train_loss": [losses], "test_accuracy": [[0.1, 0.2, 0.3, 0.4]]}
        write_run(runs / f"converge/{seed}", "pretrain", [{"lrs": [2e-3], "seed": seed}], settings, 3, **measured)
    numbers = series.boundary_numbers(Study(runs))
    assert numbers["level"] == 0.01
    assert numbers["points"] == [
        {"lr": 2e-3, "seed": 1, "epochs": 3, "epoch": 2, "test_accuracy": pytest.approx(30)},
        {"lr": 2e-3, "seed": 2, "epochs": 3, "epoch": None, "test_accuracy": None},
    ]
    assert numbers["pretrain"]["plr"] == [1e-4, 1e-3, 1e-2, 1e-1, 1.0] and len(numbers["finetune"]) == 2


def write_two_stages(runs):
    write_study(runs)
    for lrs, accuracy in (([0.1, 1e-2], 0.3), ([0.1, 1e-2, 1e-4], 0.7), ([1e-4, 1e-4, 1e-4], 0.55)):
        settings = IMAGES | {"first_step": 40 if len(lrs) == 3 else 20}
        write_run(runs / f"more/{lrs}", "finetune", [{"lrs": lrs, "seed": 1}], settings, test_accuracy=[accuracy])


def test_figure_12_has_a_bar_for_every_way_to_pre_train(tmp_path):
    runs = tmp_path / "runs"
    write_two_stages(runs)
    for path in runs.glob("finetune/*/config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"settings": config["settings"] | {"first_step": 20}}))
    [group] = series.two_stage_numbers(Study(runs))["groups"]
    assert group["flr"] == 1e-4
    assert [(bar["lrs"], bar["mean"]) for bar in group["bars"]] == [
        ((0.1, 1e-4), pytest.approx(63)),
        ((0.1, 1e-2, 1e-4), pytest.approx(70)),
        ((1e-2, 1e-4), pytest.approx(65.5)),
    ]
    assert group["scratch"] == {"mean": pytest.approx(55), "std": None, "n": 1, "steps": 60}
    assert Study(runs).flrs() == [1e-5, 1e-4]


def test_an_flr_that_is_a_second_stage_from_one_plr_is_an_flr_from_the_others(tmp_path):
    runs = tmp_path / "runs"
    write_study(runs)
    lrs = [1e-2, 1e-4, 1e-5]
    write_run(
        runs / "two", "finetune", [{"lrs": lrs, "seed": 1}], IMAGES | {"first_step": 40}, test_accuracy=[0.7]
    )
    assert Study(runs).flrs() == [1e-5, 1e-4]


# Folders that others hold


def test_a_folder_that_another_process_holds_is_skipped(study, monkeypatch, capsys):
    held = hold(study / f"pretrain/plr{PLRS[0]}")
    with pytest.raises(Refused, match="other processes held 1 folder; give"):
        command(monkeypatch, "norms", study)
    release(held)
    assert f"norms: not measured: {study}/pretrain/plr{PLRS[0]}: another process" in capsys.readouterr().err
    assert len(list(study.rglob("norms.json"))) == 7
    command(monkeypatch, "norms", study)
    command(monkeypatch, "norms", study)
    assert len(list(study.rglob("norms.json"))) == 8
    assert "norms: all 8 runs are measured" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "gone", "no room"])
def test_what_could_not_be_measured_is_no_success(damage, study, monkeypatch, capsys):
    checkpoint = study / f"pretrain/plr{PLRS[0]}/checkpoint.pt"
    whole, fsync, synced = checkpoint.read_bytes(), os.fsync, []

    def one_is_too_many(descriptor):
        synced.append(descriptor)
        if len(synced) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    if damage == "cut":
        checkpoint.write_bytes(whole[:-1000])
    elif damage == "gone":
        checkpoint.unlink()
    else:
        monkeypatch.setattr(os, "fsync", one_is_too_many)
    with pytest.raises(BadInput, match="1 measurement could not be made; mend that"):
        command(monkeypatch, "norms", study)
    assert f"norms: not measured: {study}/pretrain/plr" in capsys.readouterr().err
    assert len(list(study.rglob("norms.json"))) == 7
    checkpoint.write_bytes(whole)
    command(monkeypatch, "norms", study)
    assert len(list(study.rglob("norms.json"))) == 8


def test_runs_without_the_average_that_is_measured_are_no_failure(study, monkeypatch, capsys):
    for path in (study / "swa").glob("*/config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"settings": config["settings"] | {"windows": [2, 3]}}))
    command(monkeypatch, "norms", study)
    assert "skipped: " in capsys.readouterr().out and not list((study / "swa").rglob("norms.json"))
    assert len(list(study.rglob("norms.json"))) > 0


# Figures


def test_every_figure_of_measured_runs_is_drawn(study, tmp_path, monkeypatch, capsys):
    command(monkeypatch, "geometry", study)
    command(monkeypatch, "bands", study)
    command(monkeypatch, "figures", study, "--out", tmp_path / "out")
    drawn = {path.stem for path in (tmp_path / "out").glob("*.pdf")}
    assert drawn == {"figure01", "figure02", "figure03", "figure06", "figure07", "figure09"}
    output = capsys.readouterr().out
    assert all(f"figure {number} is skipped: " in output for number in (11, 12, 13, 26))
    command(monkeypatch, "figures", study, study, "--out", tmp_path / "compared")
    assert {path.stem for path in (tmp_path / "compared").glob("*.png")} == {"figure10", "figure14", "figure18"}
    rows = json.loads((tmp_path / "compared/figure14.json").read_text())["rows"]
    assert len(rows) == 2 and rows[0]["experiment"]["model"] == "si-convnet"


@pytest.mark.parametrize(
    "kinds, figures",
    [
        (["ticks"], {4, 5, 15, 16, 17}),
        (["scale-invariant"], {1, 2, 3, 6, 7, 9, 11, 12, 13, 26}),
        (["convolutional"], {6, 8, 9, 19, 20, 21}),
        (["transformer"], {6, 8, 9, 22, 23, 24, 25}),
        (["scale-invariant"] * 3, {10, 14, 18}),
        (["convolutional"] * 2, {8, 19, 20, 21}),
        (["transformer"] * 2, {8, 22, 23, 24, 25}),
        (["convolutional", "transformer"], {8}),
    ],
)
def test_figures_that_are_drawn_of_a_kind_of_network(kinds, figures):
    studies = [SimpleNamespace(network={"kind": kind, "task": "images"}) for kind in kinds]
    assert {*fitting_figures(studies)} == figures


@pytest.mark.parametrize("kinds", [["ticks"] * 2, ["scale-invariant", "convolutional"], ["ticks", "transformer"]])
def test_experiments_that_no_figure_compares(kinds):
    with pytest.raises(BadInput, match="no figure compares such experiments"):
        fitting_figures([SimpleNamespace(network={"kind": kind}, folder="f") for kind in kinds])


def test_any_figure_of_the_same_task_is_drawn_where_it_is_asked_for():
    def refuse(number, task, count=1):
        refuse_unfit_figures([number], [SimpleNamespace(network={"task": task}, folder="f")] * count)

    on_ticks = {4, 5, 15, 16, 17}
    for number in FIGURES:
        task, other = ("ticks", "images") if number in on_ticks else ("images", "ticks")
        refuse(number, task)
        with pytest.raises(BadInput, match=f"--only {number}: is not about {other}"):
            refuse(number, other)
    for number in (8, 10, 14, 18, *range(19, 26)):
        refuse(number, "images", 2)
    with pytest.raises(BadInput, match="--only 13: is about one experiment"):
        refuse(13, "images", 2)


def test_figures_of_practical_networks_are_drawn(tmp_path, monkeypatch):
    """Of the runs of test_claims.write_practical_ideal(), whose PLRs lie in regimes 1, 2A and 2B."""
    for kind in ("convolutional", "transformer"):
        write_practical_ideal(tmp_path / kind, kind)
    command(monkeypatch, "figures", tmp_path / "convolutional", tmp_path / "transformer", "--out", tmp_path)
    numbers = json.loads((tmp_path / "figure08.json").read_text())
    assert (tmp_path / "figure08.png").exists()
    assert [row["normalisation"] for row in numbers["rows"]] == ["reestimate", "keep"]
    with plt.rc_context(STYLE):
        of_bands, accuracy, barrier, *of_vit = drawing.draw_practical_rows(numbers).axes
    assert len(of_vit) == 3

    def drawn(axes):
        return {line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"}

    def percent(*keys):
        found = PRACTICAL_IDEAL
        for key in keys:
            found = found[key]
        return pytest.approx(found)

    assert drawn(of_bands) == {band: percent("bands", 0, band) for band in ("background", "low", "mid", "high")}
    assert list(drawn(accuracy).values()) == [
        percent("pretrained"),
        percent("finetuned", 0),
        percent("finetuned", 1),
    ]
    assert drawn(barrier)["low FLR – high FLR"] == pytest.approx(
        np.maximum(PRACTICAL_IDEAL["train_barrier"], 0.01)
    )
    assert [text.get_text() for text in accuracy.texts] == ["1", "2A", "2B"]
    with plt.rc_context(STYLE):
        panels = drawing.draw_low_end_rows(figure_numbers(25, [Study(tmp_path / "transformer")])).axes
    assert [axes.get_title() for axes in panels] == ["low band to 4", "low band to 16"]
    assert drawn(panels[1]) == {band: percent("low_ends", 16, band) for band in ("low", "mid")}


def test_figure_8_needs_no_geometry(tmp_path):
    write_practical_ideal(tmp_path, "transformer")
    for path in tmp_path.rglob("geometry*"):
        path.unlink()
    row = series.practical_numbers(Study(tmp_path))
    assert row["geometry"] is None
    with plt.rc_context(STYLE):
        row |= {"experiment": Study(tmp_path).settings}
        assert len(drawing.draw_practical_rows({"rows": [row]}).axes) == 2


def test_a_stage_whose_bands_are_not_measured_is_named(tmp_path):
    """After fine-tuning at a still lower FLR, say."""
    write_practical_ideal(tmp_path, "transformer")
    study = Study(tmp_path)
    lowest = [run.path for run in study.of_stage("finetune") if run.members[0]["lrs"][1] == study.flrs()[0]]
    for path in lowest:
        (path / "bands-keep.json").unlink()
        (path / "low-ends-keep.json").unlink()
    for number in (8, 24, 25):
        with pytest.raises(BadInput, match="are not measured.*; run analyze.py bands"):
            figure_numbers(number, [Study(tmp_path)])


def test_drawn_points_are_the_numbers():
    regimes = {"b12": {"last": 1e-3, "next": 2e-3}, "b2AB": None, "b23": None}
    points = [{"lr": 1e-3, "epoch": 40, "epochs": 90, "test_accuracy": 50.0}]
    points.append({"lr": 2e-3, "epoch": None, "epochs": 100, "test_accuracy": None})
    curve = {"plr": [1e-4, 1e-1], "mean": [40, 10], "std": [0, 0], "n": [1, 1]}
    numbers = {
        "level": 0.01,
        "points": points,
        "regimes": regimes,
        "pretrain": curve,
        "finetune": [{"flr": 1e-4} | curve],
    }
    with plt.rc_context(STYLE):
        epochs, accuracy = drawing_other.draw_boundary(numbers).axes
    drawn = [list(zip(line.get_xdata(), line.get_ydata())) for line in epochs.lines if line.get_marker() in "o^"]
    assert drawn == [[(1e-3, 40)], [(2e-3, 100)]]
    assert [list(line.get_ydata()) for line in accuracy.lines if line.get_marker() == "o"] == [
        [40, 10],
        [40, 10],
        [50],
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["figures", "{toy}", "--only", "11", "--out", "o"], "no runs that train until they converge"),
        (["figures", "{toy}", "--only", "12", "--out", "o"], "no pre-training in two stages"),
        (["figures", "{toy}", "--only", "13", "--out", "o"], "no filter norms: initial point"),
        (["figures", "{toy}", "--only", "26", "--out", "o"], "sharpness is not measured"),
        (["figures", "{toy}", "--only", "7", "--out", "o"], "accuracies on bands are not measured"),
        (["figures", "{toy}", "--only", "3", "--out", "o"], "geometry is not measured"),
        (["figures", "{toy}", "--only", "6", "--out", "o"], "no band images are there"),
        (["figures", "{toy}", "--only", "8", "--out", "o"], "accuracies on bands are not measured"),
        (["figures", "{toy}", "--only", "25", "--out", "o"], "other ends of the low band are not measured; run"),
        (["figures", "{toy}", "{toy}", "--only", "2", "--out", "o"], "is about one experiment; give one folder"),
        (["bands", "{toy}"], "image set is not there; say where it is by --data-file"),
    ],
)
def test_bad_input_is_named(tmp_path, monkeypatch, arguments, message):
    write_study(tmp_path / "toy")
    for path in (tmp_path / "toy").rglob("config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_file": "nowhere.pt"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        command(monkeypatch, *(argument.format(toy=tmp_path / "toy") for argument in arguments))
