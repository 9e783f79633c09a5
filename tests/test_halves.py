"""bench/halves.py: what choosing and reporting on the same test samples adds, on settings whose answer is known."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import random_image_set
from test_runs import call

from bench import halves
from data import ticks
from data.analysis.series import accuracy_numbers
from data.analysis.study import Study
from data.commandline import BadInput
from data.images import save_image_set
from models import mlp

# Expected maxima of independent standard normal variables.
EXPECTED_MAXIMUM = {1: 0, 2: 1 / np.sqrt(np.pi), 3: 1.5 / np.sqrt(np.pi)}


@pytest.mark.parametrize("settings", EXPECTED_MAXIMUM)
def test_optimism_of_equally_good_settings_is_the_expected_maximum_of_their_noise(settings):
    random, runs, samples, repeats = np.random.default_rng(1), 2, 400, 3000
    # Every repeat is a test set of its own, divided once: a split that shares it would tell little more.
    guesses = (random.random((repeats, settings, 1, samples, runs)) < 0.5).mean(axis=-1)
    half = halves.random_halves(1, 1, samples)
    found = np.array([halves.optimism(correct, half)[0][0] for correct in guesses])
    noise = 100 * np.sqrt(0.25 / (runs * samples / 2))  # of the accuracy on a half, in pp
    standard_error = found.std() / np.sqrt(repeats)
    assert found.mean() == pytest.approx(EXPECTED_MAXIMUM[settings] * noise, abs=4 * standard_error + 1e-12)
    assert standard_error < 0.02 * noise


def test_a_setting_far_better_than_all_others_is_chosen_by_both_halves_without_optimism():
    random = np.random.default_rng(1)
    correct = (random.random((4, 2, 101)) < np.array([0.5, 0.95, 0.5, 0.5])[:, None, None]) / 2
    found, same = halves.optimism(correct, halves.random_halves(50, 2, 101))
    assert same.all() and not found.any()


def test_halves_are_drawn_for_every_split_and_test_set():
    drawn = halves.random_halves(3, 2, 11)
    assert drawn.dtype == bool and (drawn.sum(axis=2) == 5).all()
    assert len({row.tobytes() for row in drawn.reshape(6, 11)}) == 6
    assert np.array_equal(drawn, halves.random_halves(3, 2, 11))


def test_optimism_is_that_of_a_plain_loop_over_runs_of_several_data_seeds():
    random, data_seeds, samples = np.random.default_rng(2), [3, 7], 21
    # Settings have runs of unlike numbers, and of one data seed more than of the other.
    settings = [
        [(data_seed, random.random(samples) < accuracy) for data_seed in of_runs]
        for of_runs, accuracy in (([3, 7, 7], 0.6), ([7, 3], 0.4), ([3, 3, 3, 7], 0.6), ([7], 0.5))
    ]
    drawn = halves.random_halves(30, 2, samples)
    found, same = halves.optimism(halves.stacked(settings, data_seeds), drawn)
    for split, of_split in enumerate(drawn):
        means = []  # [half][setting]
        for half in (of_split, ~of_split):
            of_data_seed = dict(zip(data_seeds, half))
            means.append(
                [
                    np.mean([correct[of_data_seed[data_seed]].mean() for data_seed, correct in runs])
                    for runs in settings
                ]
            )
        chosen = [np.argmax(of_half) for of_half in means]
        ways = [means[0][chosen[0]] - means[1][chosen[0]], means[1][chosen[1]] - means[0][chosen[1]]]
        assert found[split] == pytest.approx(100 * np.mean(ways)) and same[split] == (chosen[0] == chosen[1])
    assert 0 < same.sum() < 30 and found.min() >= -1e-9


def test_the_best_of_regime_1_of_2a_and_of_all_plrs_are_compared():
    plrs, end_of_1, end_of_2a = [1, 2, 3, 4, 5], {"last": 2, "next": 3}, {"last": 4, "next": 5}
    compared = halves.compared_plrs({"b12": end_of_1, "b2AB": end_of_2a}, plrs)
    assert compared == {"regime 1": [1, 2], "2A": [3, 4], "all PLRs": plrs}
    assert list(halves.compared_plrs({"b12": end_of_1, "b2AB": None}, plrs)) == ["regime 1", "all PLRs"]
    assert list(halves.compared_plrs({"b12": None, "b2AB": None}, plrs)) == ["all PLRs"]


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("halves") / "random.pt"
    save_image_set(random_image_set(classes=3, train=64, test=41, side=8), path)
    return path


@pytest.fixture(scope="module")
def trained(image_file, tmp_path_factory):
    """Folders of studies on ticks and on images: two PLRs and both second stages, and another second stage at 1e-2."""
    folders = {}
    shape = ["--data", image_file, "--model", "si-convnet", "--width", 2]
    for task, steps, runs in (
        ("ticks", 20, [["--data", "ticks", "--lr", 1e-3, 1e-1, "--seed", 1, 2, "--data-seed", 4, 1]]),
        ("images", 2, [[*shape, "--lr", 1e-3], [*shape, "--lr", 1e-1]]),
    ):
        folders[task] = folder = tmp_path_factory.mktemp(task)
        for number, words in enumerate(runs):
            out = folder / f"pretrain/{number}"
            assert call("train", *words, "--steps", steps, "--out", out) == 0
            tuning = ["--lr", 1e-4, 2e-3, 1e-2, "--steps", steps, "--out", folder / "finetune"]
            assert call("finetune", out, *tuning) == 0
            second_stage = folder / f"finetune/{number}-flr1e-2"
            assert (
                call("finetune", second_stage, "--lr", 1e-4, "--steps", steps, "--out", folder / "finetune") == 0
            )
            windows = ["--windows", 2, 3, "--spacing", 1, "--anchor", "start"]
            assert call("swa", out, *windows, "--out", folder / "swa") == 0
    return folders


def main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["halves.py", *map(str, words), "--device", "cpu"])
    halves.main()


@pytest.mark.parametrize("task, runs", [("ticks", 4), ("images", 1)])
def test_all_settings_of_trained_runs_are_compared(task, runs, trained, image_file, tmp_path, monkeypatch, capsys):
    main(monkeypatch, trained[task], "--data-file", image_file, "--splits", 3, "--out", tmp_path / "halves.json")
    printed, found = capsys.readouterr(), json.loads((tmp_path / "halves.json").read_text())
    counts = {"pretrain": 2, "finetune": 4, "swa": 4}  # not the second stage of pre-training, nor what follows it
    assert {stage: found[stage]["all PLRs"]["settings"] for stage in counts} == counts
    assert f"finetune: {4 * runs} solutions classify as metrics.json says" in printed.err
    assert "swa, best of all PLRs: optimism" in printed.out and found["splits"] == 3
    assert all(0 <= found[stage]["all PLRs"]["same_choice"] <= 1 for stage in counts)


@pytest.mark.parametrize("task", ["ticks", "images"])
def test_solutions_are_those_of_the_stages_that_figures_show(task, trained, image_file):
    study = Study(trained[task])
    found = halves.correct_by_setting(study, halves.classifier_of(study, torch.device("cpu"), image_file))
    numbers = accuracy_numbers(study)
    curves = {("pretrain", None): numbers["pretrain"]}
    curves |= {("finetune", curve["flr"]): curve for curve in numbers["finetune"]}
    curves |= {("swa", curve["window"]): curve for curve in numbers["swa"]}
    for (stage, other), curve in curves.items():
        for plr, mean, count in zip(curve["plr"], curve["mean"], curve["n"]):
            runs = found[stage].pop((plr, other))
            assert len(runs) == count and 100 * np.mean([correct for _, correct in runs]) == pytest.approx(mean)
    assert found == {"pretrain": {}, "finetune": {}, "swa": {}}


def test_samples_of_ticks_are_those_of_the_members_data_seed(trained):
    study = Study(trained["ticks"])
    [pretrained] = study.of_stage("pretrain")
    found = halves.classifier_of(study, torch.device("cpu"), None)(pretrained, "checkpoint")
    solution, groups = pretrained.weights(), ticks.groups(pretrained.members)
    for index, member in enumerate(pretrained.members):
        sets = ticks.tick_sets(member["data_seed"])
        frozen = solution["buffers"]["frozen"][groups.index((member["data_seed"], member["seed"]))]
        scores = mlp.logits(solution["weights"][index : index + 1], frozen[None], sets.test_inputs)[0]
        wrong = (found[index] != ((scores > 0) == (sets.test_labels == 1)).numpy()).sum()
        assert wrong <= 1  # a score that rounds to the other side of 0


def test_another_accuracy_than_in_metrics_is_refused(trained, image_file, monkeypatch):
    study = Study(trained["images"])
    first = study.of_stage("pretrain")[0]
    classify = halves.classifier_of(study, torch.device("cpu"), image_file)
    halves.correct_by_setting(study, classify)
    first.metrics["test_accuracy"][-1][0] += 1 / 41
    with pytest.raises(BadInput, match=f"{first.path}/checkpoint.pt: member 0 classifies .* as in metrics.json"):
        halves.correct_by_setting(study, classify)
