"""The band of useful learning rates: what is said and drawn of runs whose numbers are given, and its test accuracy."""

import json
import math

import pytest
import torch
from test_analyze import EPOCHS, IMAGES, PLRS, command, write_run, write_study
from test_runs import call, one_line, strict_json
from test_validation import MODEL, PLR, sets  # noqa: F401

from data.analysis import band, search
from data.analysis.figures import band_figure_numbers
from data.analysis.study import Study
from data.commandline import BadInput
from data.locks import hold, release
from data.runs import Run, find_runs


@pytest.fixture
def study(tmp_path):
    """1e-4 and 1e-3 converge, 1e-2 is 2A (65 and 65.5 %), 1e-1 2B (61 and 63 %), 1 at chance."""
    write_study(tmp_path / "runs")
    return tmp_path / "runs"


def numbers_of(folder):
    return band_figure_numbers(Study(folder))


def test_the_band_lies_between_the_neighbours_that_differ(study):
    found = numbers_of(study)
    assert found["band"] == {"lower": {"last": 1e-3, "next": 1e-2}, "upper": {"last": 1e-2, "next": 1e-1}}
    assert found["open"] == {}
    verdicts = {row["plr"]: row["verdict"] for row in found["learning_rates"]}
    assert verdicts == dict(zip(PLRS, (band.IN_1, band.IN_1, band.IN_2A, band.IN_2B, band.CHANCE)))


def test_the_best_is_chosen_inside_the_band_and_what_is_more_outside_is_said(study):
    """65.5 % at FLR 1e-4 is the most inside; a single fine-tuning far outside has 70 %."""
    found = numbers_of(study)
    best = found["best"]
    assert (best["plr"], best["flr"], best["mean"], best["runs"]) == (1e-2, 1e-4, 65.5, ["finetune/0.01-0.0001"])
    assert best == found["best_anywhere"]
    path = study / "finetune/0.1-1e-05/metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"test_accuracy": [[0.7] for _ in metrics["step"]]}))
    found = numbers_of(study)
    assert found["best"] == found["best_anywhere"] and found["best"]["plr"] == 1e-1
    assert any(
        line.startswith("it is outside the band, and better than all in it") for line in band.band_lines(found)
    )


def test_what_is_said_of_a_band(study):
    """Epochs: five pre-trainings, ten fine-tunings and SWA of 20 each; one training is 40."""
    lines = band.band_lines(numbers_of(study))
    expected = [
        "PLR 1e-2: 2A, in the band (1 run): train accuracy 80 %, train loss 1; test accuracy 40.00 %; "
        "fine-tuned at 1e-5 65.00 %; fine-tuned at 1e-4 65.50 %",
        "band: PLR 1e-2 to 1e-2; it begins between 1e-3 and 1e-2, and ends between 1e-2 and 1e-1 (single runs)",
        "best: PLR 1e-2, FLR 1e-4: test accuracy 65.50 % (1 run: finetune/0.01-0.0001)",
        "recipe: pre-train at PLR 1e-2 for 20 epochs, then fine-tune at FLR 1e-4 for 20",
        "test accuracy: that above, which it was chosen by, and which so is flattered",
    ]
    assert [line for line in lines if line in expected] == expected
    spent = sum(run.last_step for run in find_runs(study))
    assert lines[-1] == f"spent: {spent:,} epochs in all runs, {spent / 40:.1f} times one training of 40"


def test_several_runs_have_deviations_and_shares(tmp_path):
    for seed, shift in ((1, 0.0), (2, 0.002)):
        for plr, right, test in ((1e-3, 1, 0.5), (1e-2, 0.8, 0.4), (1e-1, 0.1, 0.1)):
            series = {"train_accuracy": [right], "test_accuracy": [test], "train_loss": [[10] + [9.0] * EPOCHS]}
            folder, member = tmp_path / f"pretrain/{plr}-{seed}", {"lrs": [plr], "seed": seed}
            write_run(folder, "pretrain", [member], IMAGES, **series)
        for flr in (1e-5, 1e-4):
            member = {"lrs": [1e-2, flr], "seed": seed}
            write_run(tmp_path / f"f/{flr}-{seed}", "finetune", [member], IMAGES, test_accuracy=[0.6 + shift])
    found = numbers_of(tmp_path)
    assert (found["best"]["mean"], found["best"]["n"]) == (pytest.approx(60.1), 2)
    assert found["best"]["std"] == pytest.approx(0.2 / math.sqrt(2))
    lines = band.band_lines(found)
    assert any("60.10 ± 0.14 % (2 runs: " in line for line in lines)
    assert any(line.startswith("band: PLR 1e-2 to 1e-2; ") and "(in 100 % and 100 % of" in line for line in lines)


def test_where_the_grid_does_not_bracket_it_the_band_says_so_and_what_to_run(tmp_path, monkeypatch, capsys):
    write_study(tmp_path, train=(1, 1, 1, 1, 1))
    command(monkeypatch, "band", tmp_path, "--json", tmp_path / "band.json")
    lines = capsys.readouterr().out.splitlines()
    assert "band: not bracketed by these runs" in lines
    assert any(
        line.startswith("boundary 1|2: not bracketed by these runs: the largest learning rate") for line in lines
    )
    assert lines[-1] == "to run next, for brackets within a factor 1.5: pretrain 1e1 1"
    assert strict_json(tmp_path / "band.json")["band"] is None
    assert strict_json(tmp_path / "band.json")["next"] == ["pretrain 1e1 1"]


def test_the_figure_is_drawn_from_its_json_alone(study, tmp_path, monkeypatch):
    command(monkeypatch, "band", study, "--out", tmp_path / "figures")
    figures = tmp_path / "figures"
    assert {path.name for path in figures.iterdir()} == {"band.json", "band.pdf", "band.png"}
    before = (figures / "band.pdf").read_bytes()
    (study / "pretrain").rename(tmp_path / "gone")
    command(monkeypatch, "draw", figures / "band.json")
    assert (figures / "band.pdf").read_bytes() == before


def test_without_fine_tuning_there_is_no_band_and_regime_1_is_the_best(tmp_path):
    """Its figure can be drawn, too."""
    write_study(tmp_path)
    for run in find_runs(tmp_path):
        if run.config["stage"] != "pretrain":
            for path in run.path.iterdir():
                path.unlink()
    found = numbers_of(tmp_path)
    assert found["band"] is None and (found["best"]["stage"], found["best"]["plr"]) == ("pretrain", 1e-3)
    assert any(
        line.startswith("best of what is there: PLR 1e-3, pre-training alone: ") for line in band.band_lines(found)
    )


# -------------------------------------------------------------------------------------------------------------- next-lr


def following(folder, monkeypatch, capsys, *options):
    command(monkeypatch, "next-lr", folder, *options)
    shown = capsys.readouterr()
    return shown.out.splitlines(), shown.err.splitlines()


def test_next_lr_begins_where_there_is_nothing(tmp_path, monkeypatch, capsys):
    lines, said = following(tmp_path / "none", monkeypatch, capsys, "--parallel", 3, "--start", 1e-3, 1e0)
    assert lines == ["pretrain 3.16e-3 1", "pretrain 3.16e-2 1", "pretrain 3.16e-1 1"]
    assert said == ["next: 3 runs"]
    counts, _ = following(tmp_path / "none", monkeypatch, capsys, "--count")
    assert [len(line.split()) for line in counts] == [2]


def test_next_lr_bisects_and_fine_tunes_what_is_there(study, monkeypatch, capsys):
    lines, said = following(study, monkeypatch, capsys, "--parallel", 2)
    assert lines == ["pretrain 2.15e-3 1", "pretrain 4.64e-3 1"]
    assert said[0] == "boundary 1|2: between 0.001 and 0.01 (single runs)"
    lines, said = following(study, monkeypatch, capsys, "--ratio", 10)
    assert lines == [] and said[-1] == "next: nothing; what these runs can bracket is within a factor 10"
    for path in study.glob("finetune/0.01-*/*"):
        path.unlink()
    lines, _ = following(study, monkeypatch, capsys, "--ratio", 10, "--parallel", 9)
    assert lines == ["finetune pretrain/0.01 1e-5", "finetune pretrain/0.01 1e-4"]
    lines, said = following(study, monkeypatch, capsys, "--ratio", 10, "--max-runs", 13)
    assert lines == [] and "as there are 13 runs; more with a larger --max-runs" in said[-1]


def test_next_lr_asks_for_what_stopped_and_waits_for_what_is_at_work(study, monkeypatch, capsys):
    member = {"lrs": [math.pi * 1e-3], "seed": 3}
    write_run(study / "pretrain/odd", "pretrain", [member], IMAGES, final_step=3, status="running")
    lines, said = following(study, monkeypatch, capsys)
    assert lines == [f"pretrain {math.pi * 1e-3!r} 3"] and said[-1] == "next: 1 run, of which 1 had stopped"
    held = hold(study / "pretrain/odd")
    try:
        lines, said = following(study, monkeypatch, capsys)
    finally:
        release(held)
    assert lines == [] and said[-1] == "next: waits for 1 run that other processes are at work on"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--ratio", 1.01], "--ratio 1.01: is below 1.05"),
        (["--start", 1e-1, 1e-3], "--start 0.1 0.001: give the lower one first"),
        (["--flr", 1e-3, 1e-3], "--flr 0.001 0.001: give the lower one first"),
    ],
)
@pytest.mark.parametrize("name", ["next-lr", "band"])
def test_numbers_that_do_not_go_together_are_refused(name, options, message, study, monkeypatch):
    with pytest.raises(BadInput, match=message.replace(".", r"\.")):
        command(monkeypatch, name, study, *options)


def test_longer_training_is_asked_for_with_its_loss():
    ask = search.Ask(2e-3, 1, None, 0.034)
    from data.analysis.search_commands import lines_of

    assert lines_of(search.Known(), [ask]) == ["converge 2e-3 1 3.4e-2"]


# ----------------------------------------------------------------------------------------------------------- test set


@pytest.fixture(scope="module")
def reporting(sets, tmp_path_factory):  # noqa: F811
    """The same run twice: `test` reports on the test set, `validation` on held-out images."""
    folder = tmp_path_factory.mktemp("reporting")
    for report in ("test", "validation"):
        made = [*MODEL, "--report", report, "--lr", PLR, "--steps", 2, "--out", folder / report]
        assert call("train", "--data", sets["held"], *made) == 0
        assert call("swa", folder / report, "--windows", 2, "--out", folder / "swa") == 0
    return folder


def test_the_test_set_is_measured_whatever_a_run_reports_on(reporting, monkeypatch, capsys):
    """The run that reports on it has the same weights, as reports change nothing, and so its numbers are expected."""
    runs = [reporting / "test", reporting / "validation", reporting / "swa/validation"]
    command(monkeypatch, "test", *runs)
    expected, other = (Run(path).metrics for path in runs[:2])
    assert expected["train_loss"] == other["train_loss"] and expected["test_loss"] != other["test_loss"]
    for path in runs[:2]:
        found = Run(path).measurement("test")
        assert found["solution"] == ["checkpoint"]
        assert found["loss"] == [[pytest.approx(expected["test_loss"][-1][0], rel=1e-5)]]
        assert found["accuracy"] == [[pytest.approx(expected["test_accuracy"][-1][0], abs=1e-6)]]
    averaged = Run(runs[2]).measurement("test")
    assert averaged["solution"] == ["swa-2"]
    of_test = Run(reporting / "swa/test").metrics["swa"]["test_accuracy"]
    assert averaged["accuracy"] == [[pytest.approx(of_test[0][0], abs=1e-6)]]
    capsys.readouterr()
    command(monkeypatch, "test", *runs)
    assert "test: all 3 runs are measured" in capsys.readouterr().out


def test_the_test_accuracy_on_ticks_is_that_of_the_metrics(tmp_path, monkeypatch):
    run = tmp_path / "run"
    made = ["--data", "ticks", "--lr", 1e-3, 1e-2, "--data-seed", 1, 2, "--steps", 30, "--log-every", 10]
    assert call("train", *made, "--out", run) == 0
    command(monkeypatch, "test", run)
    found, metrics = Run(run).measurement("test"), Run(run).metrics
    torch.testing.assert_close(torch.tensor(found["accuracy"][0]), torch.tensor(metrics["test_accuracy"][-1]))
    torch.testing.assert_close(torch.tensor(found["loss"][0]), torch.tensor(metrics["test_loss"][-1]))


def test_a_run_that_is_not_complete_is_not_tested(tmp_path, monkeypatch):
    member = {"lrs": [1e-3], "seed": 1}
    write_run(tmp_path / "run", "pretrain", [member], IMAGES, final_step=3, status="running")
    with pytest.raises(BadInput, match="run: is not complete; finish it first"):
        command(monkeypatch, "test", tmp_path / "run")


def test_the_band_tells_the_test_accuracy_where_it_was_measured(study):
    """Runs report on held-out images; the test accuracy of the chosen one was measured as 60 %."""
    for run in find_runs(study):
        path = run.path / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"settings": config["settings"] | {"report": "validation"}}))
    lines = band.band_lines(numbers_of(study))
    asked = "test accuracy: not measured yet: python analyze.py test finetune/0.01-0.0001"
    assert asked in lines
    content = {"solution": ["checkpoint"], "loss": [[1.0]], "accuracy": [[0.6]]}
    Run(study / "finetune/0.01-0.0001").write_measurement("test", content)
    lines = band.band_lines(numbers_of(study))
    assert "test accuracy: 60.00 % (chosen by other images)" in lines
    assert any(line.startswith("best: PLR 1e-2, FLR 1e-4: validation accuracy 65.50 %") for line in lines)


def test_a_damaged_measurement_is_refused(study):
    folder = study / "finetune/0.01-0.0001"
    (folder / "test.json").write_text(
        json.dumps({"solution": ["checkpoint"], "loss": [[1.0]], "accuracy": [[0.6, 0.7]]})
    )
    with pytest.raises(BadInput, match="accuracy"):
        numbers_of(study)


def test_a_folder_that_is_no_study_is_refused_in_one_line(tmp_path, capsys):
    import analyze
    from data import commandline

    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["analyze.py", "band", str(tmp_path)])
        commandline.run(analyze.main)
    assert "holds no run folders" in one_line(capsys)
