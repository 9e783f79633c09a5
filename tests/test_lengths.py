# ruff: noqa: F811 - `origin` is a fixture
"""Runs that were made longer: what they are compared as, and how a command that went wrong is put right."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from test_analyze import command
from test_growing import LENGTHS, assert_same_tensors, averages, origin, pretrain  # noqa: F401
from test_runs import call, contents, one_line, strict_json, survives

import analyze
from data.analysis.figures import figure_numbers, learning_curve_numbers
from data.analysis.runs_table import table
from data.analysis.study import Study, final, of_average
from data.commandline import BadInput
from data.runs import Run

SHORT, LONG = LENGTHS["images"]
PLRS = (1e-3, 1e-2)


def pretrain_at(lr, origin, folder, steps):
    return [*pretrain("images", origin, folder / f"plr{lr}", steps), "--lr", lr]


def finetune_all(folder, *more):
    runs = [folder / f"plr{lr}" for lr in PLRS]
    return ["finetune", *runs, "--lr", 1e-5, "--steps", 2, "--out", folder / "finetune", *more]


@pytest.fixture
def sweep(origin, tmp_path):
    """A folder with pre-training at two PLRs, both fine-tuned and averaged."""
    folder = tmp_path / "runs"
    for lr in PLRS:
        assert call(*pretrain_at(lr, origin, folder, SHORT)) == 0
    assert call(*finetune_all(folder)) == 0
    runs = [folder / f"plr{lr}" for lr in PLRS]
    assert call("swa", *runs, "--windows", 2, "--anchor", "start", "--out", folder / "swa") == 0
    return folder


def numbers(folder):
    """What is drawn of a sweep."""
    study = Study(folder)
    ends = [study.by_plr(stage, final("train_loss"), *lrs) for stage, *lrs in (("pretrain",), ("finetune", 1e-5))]
    return ends, figure_numbers(2, [study]), learning_curve_numbers(study)


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_run_as_it_was_has_the_numbers_and_weights_of_one_that_never_grew(kind, origin, tmp_path):
    short, long = LENGTHS[kind]
    shutil.copytree(origin / kind, tmp_path / kind)
    assert call(*pretrain(kind, origin, tmp_path / kind, long)) == 0
    whole, before = Run(tmp_path / kind), Run(origin / kind)
    as_it_was = whole.until(short)
    assert as_it_was.metrics == {k: v for k, v in before.metrics.items() if k != "reestimated"}
    assert as_it_was.settings == before.settings | {"keep": [short]}
    torch.testing.assert_close(
        as_it_was.weights()["weights"], before.weights()["weights"], rtol=0, atol=0, equal_nan=True
    )
    assert (whole.lengths, whole.last_step, as_it_was.last_step) == ({short, long}, long, short)


def test_children_are_compared_with_their_parent_as_it_was(sweep, origin):
    """Nothing that is drawn changes while a pre-training is made longer, or after; what was cut short is named."""
    before, lines = numbers(sweep), Study(sweep).lines()
    longer = pretrain_at(PLRS[0], origin, sweep, LONG)
    assert not survives(longer, writes=7)
    parent = Run(sweep / "plr0.001")
    assert parent.settings["steps"] == LONG and not parent.complete
    for progress in (f"epoch {parent.last_step} of {LONG}", f"epoch {LONG} of {LONG}"):
        assert numbers(sweep) == before
        [line] = {*Study(sweep).lines()} - {*lines}
        assert line.endswith(f"at epoch {SHORT}, where others go on from them: plr0.001 ({progress})")
        [row] = [row for row in table(sweep) if row["run"] == "plr0.001"]
        assert f"compared as it was at epoch {SHORT}" in row["notes"]
        assert call(*longer) == 0
    for lr in PLRS:
        assert call(*pretrain_at(lr, origin, sweep, LONG)) == 0
    assert numbers(sweep) == before


def test_without_children_runs_are_compared_at_the_length_of_most(origin, tmp_path):
    lengths = []
    for lr in (1e-4, *PLRS):
        assert call(*pretrain_at(lr, origin, tmp_path, SHORT)) == 0
    for lr in (1e-4, *PLRS):
        assert call(*pretrain_at(lr, origin, tmp_path, LONG)) == 0
        lengths.append({run.last_step for run in Study(tmp_path).runs})
    assert lengths == [{SHORT}, {SHORT}, {LONG}]


def test_swa_of_another_length_than_fine_tuning_is_said(sweep, origin, tmp_path):
    for lr in PLRS:
        assert call(*pretrain_at(lr, origin, sweep, LONG)) == 0
    assert not any("SWA is of" in line for line in Study(sweep).lines())
    shutil.rmtree(sweep / "swa")
    runs = [sweep / f"plr{lr}" for lr in PLRS]
    assert call("swa", *runs, "--windows", 2, "--anchor", "start", "--out", sweep / "swa") == 0
    assert f"{sweep}: SWA is of runs of length {LONG}, and fine-tuning of length {SHORT}" in Study(sweep).lines()


def test_the_command_that_finishes_a_child_goes_on_from_where_it_began(sweep, origin, capsys):
    child = sweep / "finetune/plr0.001-flr1e-5"
    shutil.rmtree(child)
    assert not survives(finetune_all(sweep), writes=3)
    assert call(*pretrain_at(PLRS[0], origin, sweep, LONG)) == 0
    before = {path: contents(path) for path in (sweep / "finetune").iterdir()}
    capsys.readouterr()
    assert call(*finetune_all(sweep)) == 3  # before the first is trained
    assert f"--from-step {SHORT} goes on with it; or name another folder, or remove this one" in one_line(capsys)
    assert {path: contents(path) for path in (sweep / "finetune").iterdir()} == before
    script, *arguments = Run(child).finishing_command.split()[1:]
    assert arguments[-2:] == ["--from-step", str(SHORT)]
    assert call("finetune", *arguments) == 0 and Run(child).complete


def test_a_mistyped_length_is_taken_back(origin, tmp_path):
    """As long as the run was not trained beyond the one that is asked for instead."""
    run = shutil.copytree(origin / "images", tmp_path / "images")
    before = strict_json(run / "metrics.json")
    assert not survives(pretrain("images", origin, run, 400), writes=3)
    assert Run(run).settings["steps"] == 400 and Run(run).last_step == SHORT
    assert call(*pretrain("images", origin, run, SHORT)) == 0
    assert strict_json(run / "metrics.json") == before and Run(run).complete
    assert not survives(pretrain("images", origin, run, 400), writes=6)
    assert SHORT < Run(run).trained_to < LONG
    assert call(*pretrain("images", origin, run, SHORT)) == 3
    assert call(*pretrain("images", origin, run, LONG)) == 0
    assert call(*pretrain("images", origin, tmp_path / "whole", LONG, "--keep", SHORT)) == 0
    assert_same_tensors(run, tmp_path / "whole", "checkpoint.pt", f"step-{SHORT}.pt")
    assert strict_json(run / "metrics.json") == strict_json(tmp_path / "whole/metrics.json")


def test_mistyped_windows_are_taken_back(origin, tmp_path):
    for windows in ((2, 9), (2, 3, 4)):
        assert call(*averages("images", origin, tmp_path / "run", 2, 4)) == 0
        before = strict_json(tmp_path / "run/images/metrics.json")
        assert not survives(averages("images", origin, tmp_path / "run", *{2, 4, *windows}), writes=3)
        assert not Run(tmp_path / "run/images").complete
        assert call(*averages("images", origin, tmp_path / "run", 2, 4)) == 0
        assert strict_json(tmp_path / "run/images/metrics.json") == before
        shutil.rmtree(tmp_path / "run")


def test_a_run_that_grows_is_continued_from_a_step_that_it_has_kept(sweep, origin, tmp_path, capsys):
    assert not survives(pretrain_at(PLRS[0], origin, sweep, LONG), writes=7)
    child = ["finetune", sweep / "plr0.001", "--lr", 1e-4, "--steps", 2, "--out", tmp_path / "later"]
    capsys.readouterr()
    assert call(*child) == 2
    message = one_line(capsys)
    assert (
        f"plr0.001: is not complete; finish it first: python {Run(sweep / 'plr0.001').config['argv'][0]}"
        in message
    )
    assert f"or begin at a step that it has kept: --from-step {SHORT}" in message
    assert call(*child, "--from-step", SHORT) == 0
    assert call(*child, "--from-step", SHORT - 1) == 2


def test_a_run_that_diverged_is_continued_from_its_last_step(origin, tmp_path):
    """So that a loop over learning rates need not tell which have."""
    made = ["train", "--data", "ticks", "--lr", 1e30, "--steps", 9, "--log-every", 2, "--keep", 6]
    assert call(*made, "--out", tmp_path / "run") == 0
    last = Run(tmp_path / "run").last_step
    assert last < 6
    for script, more in (("finetune", ["--lr", 1e-3, "--steps", 2]), ("swa", ["--anchor", "start"])):
        assert call(script, tmp_path / "run", *more, "--from-step", 6, "--out", tmp_path / script) == 0
        [child] = (tmp_path / script).iterdir()
        assert Run(child).config["parent"]["step"] == last


def test_features_are_those_of_runs_as_they_are_compared(origin, tmp_path, capsys):
    short, long = LENGTHS["ticks"]
    parent = shutil.copytree(origin / "ticks", tmp_path / "ticks")
    assert call("finetune", parent, "--lr", 1e-4, "--steps", 2, "--out", tmp_path / "finetune") == 0
    assert call(*pretrain("ticks", origin, parent, long)) == 0
    for _ in range(2):
        analyze.features_command(SimpleNamespace(folder=tmp_path, only_runs=(), exclude=()))
    assert strict_json(parent / "features.json")["end"] == short
    assert "features: all 2 runs are measured" in capsys.readouterr().out


def test_averages_are_there_while_more_windows_are_added(sweep):
    swa = ["swa", *(sweep / f"plr{lr}" for lr in PLRS), "--anchor", "start", "--checkpoint-seconds", 0]
    before = Study(sweep).by_plr("swa", of_average(2))
    assert not survives([*swa, "--windows", 2, 6, "--out", sweep / "swa"], writes=8)
    assert not Run(sweep / "swa/plr0.001").complete
    assert Study(sweep).by_plr("swa", of_average(2)) == before and len(before) == 2


def test_of_children_that_do_not_go_together_the_odd_one_is_named(sweep, origin, monkeypatch):
    assert call(*pretrain_at(PLRS[0], origin, sweep, LONG)) == 0
    assert call("finetune", sweep / "plr0.001", "--lr", 1e-6, "--steps", 2, "--out", sweep / "odd") == 0
    with pytest.raises(BadInput, match=f"odd/plr0.001-flr1e-6 has first step {LONG}, and the 2 others"):
        Study(sweep)
    assert len(Study(sweep, (), ["odd/*"]).runs) == 6
    with pytest.raises(BadInput, match="do not bracket the boundary"):  # whatever children there are
        command(monkeypatch, "boundary", sweep)


def test_sharpness_at_the_end_of_a_run_that_grew_is_that_of_its_new_end(sweep, origin, monkeypatch):
    """Though the run is compared as it was, which the end of all runs is that of."""
    assert call(*pretrain_at(PLRS[0], origin, sweep, LONG)) == 0
    options = ["--images", 40, "--probes", 2]
    command(monkeypatch, "sharpness", sweep, "--step", LONG, *options)
    of_whole = Run(sweep / "plr0.001").measurement("sharpness-checkpoint")
    assert of_whole["step"] == [LONG] and len(list(sweep.rglob("sharpness-*.json"))) == 1
    shutil.copytree(sweep / "plr0.001", sweep.parent / "alone/plr0.001")
    (sweep.parent / "alone/plr0.001/sharpness-checkpoint.json").unlink()
    command(monkeypatch, "sharpness", sweep.parent / "alone", "--end", *options)
    assert Run(sweep.parent / "alone/plr0.001").measurement("sharpness-checkpoint") == of_whole


def test_fine_tuning_that_is_continued_itself_is_not_missing(sweep):
    child = sweep / "finetune/plr0.001-flr1e-5"
    assert call("finetune", child, "--lr", 1e-4, "--steps", 2, "--out", sweep / "second") == 0
    assert not [note for row in table(sweep) for note in row["notes"] if "not continued" in note]
