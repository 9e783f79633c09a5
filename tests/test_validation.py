"""Runs that report on held-out images, and image sets with their own normalisation, through all stages and measurements.

A run that reports on validation images is compared with the same run on a set whose test images are those.
"""

import dataclasses
import json

import pytest
import torch
from conftest import random_image_set
from matplotlib.text import Text
from test_analyze import command
from test_runs import call, one_line

from data.analysis import drawing
from data.analysis.axes import STYLE
from data.analysis.captions import small_print
from data.analysis.figures import CURVES, DRAWN, figure_numbers, learning_curve_numbers
from data.analysis.study import Study
from data.images import digest, load_once, save_image_set
from data.runs import Run, find_runs

MEAN, STD = (0.3, 0.5, 0.6), (0.25, 0.3, 0.35)
PLR, FLRS, LEVEL = "1e-3", ("1e-4", "5e-3"), 3.0
MODEL = ["--model", "si-convnet", "--width", 2, "--batch-size", 32, "--rho", 7]


def with_digest(image_set, **changes):
    changed = dataclasses.replace(image_set, **changes)
    return dataclasses.replace(changed, digest=digest(vars(changed)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """{"held": a set with validation images, "swapped": one that has them as its test images}, files of both."""
    held_out, folder = (
        random_image_set(classes=3, train=5, test=30, side=8, seed=7),
        tmp_path_factory.mktemp("sets"),
    )
    images = {"validation_images": held_out.test_images, "validation_labels": held_out.test_labels}
    held = with_digest(random_image_set(classes=3, train=100, test=20, side=8), mean=MEAN, std=STD, **images)
    swapped = with_digest(
        held,
        test_images=held.validation_images,
        test_labels=held.validation_labels,
        validation_images=None,
        validation_labels=None,
    )
    for name, image_set in (("held", held), ("swapped", swapped)):
        save_image_set(image_set, folder / f"{name}.pt")
    return {name: folder / f"{name}.pt" for name in ("held", "swapped")}


def train_all_stages(image_file, folder, *report):
    run = folder / f"pretrain/plr{PLR}"
    made = [*MODEL, *report, "--lr", PLR, "--steps", 4, "--keep-loss", LEVEL, "--out", run]
    assert call("train", "--data", image_file, *made) == 0
    assert call("finetune", run, "--lr", *FLRS, "--steps", 2, "--out", folder / "finetune") == 0
    assert call("swa", run, "--windows", 2, 5, "--out", folder / "swa") == 0


@pytest.fixture(scope="module")
def studies(sets, tmp_path_factory):
    """Measured studies: reporting on the held-out images, and on the same images as a test set."""
    folder = tmp_path_factory.mktemp("studies")
    train_all_stages(sets["held"], folder / "held", "--report", "validation")
    train_all_stages(sets["swapped"], folder / "swapped")
    with pytest.MonkeyPatch.context() as patch:
        for study in (folder / "held", folder / "swapped"):
            command(patch, "geometry", study)
            command(patch, "bands", study, "--normalisation", "std", "reestimate")
            command(patch, "sharpness", study, "--level", LEVEL, "--images", 50, "--probes", 2)
    return folder


def test_validation_images_take_the_place_of_test_images_everywhere(studies):
    runs = {name: find_runs(studies / name) for name in ("held", "swapped")}
    assert len(runs["held"]) == len(runs["swapped"]) == 4
    measured = set()
    for reporting, plain in zip(runs["held"], runs["swapped"], strict=True):
        assert reporting.metrics == plain.metrics
        assert reporting.settings["report"] == "validation" and plain.settings["report"] == "test"
        assert reporting.settings["digest"] != plain.settings["digest"]
        for path in reporting.path.glob("*.json"):
            if path.stem not in ("config", "metrics"):
                measured.add(path.stem)
                assert reporting.measurement(path.stem) == plain.measurement(path.stem), path
    assert measured == {
        "geometry-flr1e-4-flr5e-3",
        "bands-std",
        "bands-reestimate",
        "band-images",
        "sharpness-loss-3e0",
    }


def test_what_is_reported_on_is_part_of_what_a_run_is(studies, sets, tmp_path, capsys):
    made = ["train", "--data", sets["held"], *MODEL, "--lr", "1e-3", "--steps", 4, "--keep-loss", LEVEL]
    assert call(*made, "--out", studies / "held/pretrain/plr1e-3") == 3
    assert "settings report: validation there, test asked for" in one_line(capsys)
    assert call(*made, "--out", tmp_path / "run") == 0
    with_validation, with_test = (
        Run(path).metrics for path in (studies / "held/pretrain/plr1e-3", tmp_path / "run")
    )
    for name, series in with_test.items():
        assert (series == with_validation[name]) == (name not in ("test_loss", "test_accuracy", "reestimated"))


def test_a_set_without_validation_images_is_refused(sets, tmp_path, capsys):
    made = ["train", "--data", sets["swapped"], *MODEL, "--report", "validation", "--lr", 1e-3, "--steps", 1]
    assert call(*made, "--out", tmp_path / "run") == 2
    assert "has no validation images to report on; prepare one that has: python -m data" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_ticks_have_no_validation_images(tmp_path, capsys):
    made = ["train", "--data", "ticks", "--lr", 1e-3, "--steps", 1, "--report", "validation"]
    assert call(*made, "--out", tmp_path / "run") == 2
    assert "--report: is for image networks" in one_line(capsys)


def test_progress_says_what_it_reports_on(sets, tmp_path, capsys):
    for report in ("validation", "test"):
        made = ["train", "--data", sets["held"], *MODEL, "--report", report, "--lr", 1e-3, "--steps", 1]
        assert call(*made, "--out", tmp_path / report) == 0
        assert f", {report} accuracy" in capsys.readouterr().out


def test_axes_and_claims_say_validation(studies, monkeypatch, capsys):
    for name, word in (("held", "Validation"), ("swapped", "Test")):
        study = Study(studies / name)
        for number, draw in (
            (1, drawing.draw_regime_curve),
            (2, drawing.draw_accuracy_panels),
            (3, drawing.draw_geometry_panels),
            (7, drawing.draw_band_panels),
        ):
            figure = draw(figure_numbers(number, [study]))
            labels = [axes.get_ylabel() for axes in figure.axes]
            assert [label for label in labels if label.startswith(f"{word} ")], (number, labels)
            assert not [label for label in labels if label.startswith("Test ") and word == "Validation"]
            drawing.plt.close(figure)
        command(monkeypatch, "claims", studies / name)
        said = "what is called test accuracy is validation accuracy in these runs\n" in capsys.readouterr().out
        assert said == (word == "Validation")


def test_nothing_in_figures_of_runs_that_report_on_validation_images_says_test(studies):
    study = Study(studies / "held")
    drawn = {number: figure_numbers(number, [study]) for number in (6, 9)}  # others: see above
    drawn[CURVES] = learning_curve_numbers(study)
    for name, numbers in drawn.items():
        with drawing.plt.rc_context(STYLE):
            figure = DRAWN[name](json.loads(json.dumps(numbers)))
        texts = " ".join([*small_print(numbers), *(text.get_text() for text in figure.findobj(Text))])
        assert "alidation" in texts and " test " not in f" {texts} ".lower(), (name, texts)
        drawing.plt.close(figure)


def test_a_set_normalised_otherwise_is_refused(studies, sets, tmp_path, capsys):
    load_once.cache_clear()
    by_paper = with_digest(load_once(sets["held"], torch.device("cpu")), mean=(0.4914, 0.4822, 0.4465))
    save_image_set(by_paper, tmp_path / "paper.pt")
    made = ["--lr", 1e-4, "--steps", 1, "--out", tmp_path / "out", "--data-file", tmp_path / "paper.pt"]
    assert call("finetune", studies / "held/pretrain/plr1e-3", *made) == 2
    assert "or the same normalised or held out in another way; give --data-file" in one_line(capsys)
