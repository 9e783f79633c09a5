"""Run folders that are made longer end as runs that were that long from the start, whenever they are killed."""

import itertools
import shutil

import pytest
import torch
from test_runs import (
    call,
    contents,
    crossed_losses,
    load,
    one_line,
    pretraining,
    strict_json,
    survives,
    write_image_set,
)

import train
from data.analysis.study import measurements
from data.files import digest_of
from data.runs import Run

EVERY_SECOND = {"ticks": 4, "images": 2}  # logged steps; lengths below are no multiples of them
LENGTHS = {"ticks": (6, 11), "images": (3, 5)}
KINDS = list(LENGTHS)


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """A folder with an image set and two complete runs to continue: tiny.pt, ticks, images."""
    folder = tmp_path_factory.mktemp("origin")
    write_image_set(folder / "tiny.pt", seed=119)  # losses fall in the first two epochs, as crossed_losses() needs
    for kind, (steps, _) in LENGTHS.items():
        assert call(*pretrain(kind, folder, folder / kind, steps)) == 0
    return folder


def pretrain(kind, origin, out, steps, *more):
    made = ["train", *pretraining(kind, origin), "--log-every", EVERY_SECOND[kind], "--checkpoint-seconds", 0]
    return [*made, "--steps", steps, *more, "--out", out]


def finetune(kind, origin, out, steps, *more):
    made = ["finetune", origin / kind, "--lr", 1e-4, "--log-every", EVERY_SECOND[kind], "--checkpoint-seconds", 0]
    return [*made, "--steps", steps, *more, "--out", out.parent]


def settings(folder):
    return strict_json(folder / "config.json")["settings"]


def assert_same_tensors(folder, expected, *names):
    for name in names:
        torch.testing.assert_close(load(folder / name), load(expected / name), rtol=0, atol=0, equal_nan=True)


def assert_grown(folder, expected):
    """A longer run that kept its old end, with what it was asked to keep, has the same metrics and tensors."""
    assert (folder / "metrics.json").read_text() == (expected / "metrics.json").read_text()
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    assert_same_tensors(folder, expected, *(path.name for path in expected.glob("*.pt")))
    assert settings(folder) == settings(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_run_ends_in_the_bits_of_one_from_the_start(kind, origin, tmp_path):
    short, long = LENGTHS[kind]
    assert call(*pretrain(kind, origin, tmp_path / "run", short)) == 0
    assert call(*pretrain(kind, origin, tmp_path / "run", long)) == 0
    assert call(*pretrain(kind, origin, tmp_path / "whole", long)) == 0
    assert call(*pretrain(kind, origin, tmp_path / "kept", long, "--keep", short)) == 0
    assert_same_tensors(tmp_path / "run", tmp_path / "whole", "checkpoint.pt")
    assert_grown(tmp_path / "run", tmp_path / "kept")
    [earlier] = strict_json(tmp_path / "run/config.json")["earlier"]
    assert (earlier["steps"], earlier["keep"]) == (short, [short]) and "--steps" in earlier["argv"]
    before = contents(tmp_path / "run")
    assert call(*pretrain(kind, origin, tmp_path / "run", long)) == 0
    assert call(*pretrain(kind, origin, tmp_path / "run", long, "--keep", short)) == 0
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_fine_tuning(kind, origin, tmp_path):
    short, long = LENGTHS[kind]
    for folder, steps in (("grown", short), ("grown", long), ("whole", long)):
        assert call(*finetune(kind, origin, tmp_path / folder / "run", steps)) == 0
    grown, whole = (tmp_path / folder / f"{kind}-flr1e-4" for folder in ("grown", "whole"))
    assert_same_tensors(grown, whole, "checkpoint.pt")
    assert load(grown / f"step-{short}.pt")["step"] == short
    assert settings(grown) == settings(whole) | {"keep": [short]}
    measured, expected = strict_json(grown / "metrics.json"), strict_json(whole / "metrics.json")
    assert set(measured["step"]) == {*expected["step"], short}
    for step, loss in zip(expected["step"], expected["test_loss"], strict=True):
        assert measured["test_loss"][measured["step"].index(step)] == loss


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_any_write_while_it_grows(kind, origin, tmp_path):
    short, long = LENGTHS[kind]
    assert call(*pretrain(kind, origin, tmp_path / "whole", long, "--keep", short, long - 1)) == 0
    for writes in itertools.count():
        out = tmp_path / str(writes)
        command = pretrain(kind, origin, out, long, "--keep", long - 1)
        shutil.copytree(origin / kind, out)
        if survives(command, writes):
            break
        complete = Run(out).complete
        assert not complete or (Run(out).settings["steps"], Run(out).last_step) == (short, short)
        assert call(*command) == 0
        assert_grown(out, tmp_path / "whole")
    assert writes > 6


def test_the_shorter_command_goes_on_with_a_run_that_was_killed_before_it_grew(origin, tmp_path):
    out, (short, long) = shutil.copytree(origin / "ticks", tmp_path / "run"), LENGTHS["ticks"]
    assert not survives(pretrain("ticks", origin, out, long), writes=2)
    assert not Run(out).complete and Run(out).settings["steps"] == short
    assert call(*pretrain("ticks", origin, out, short)) == 0
    assert Run(out).complete and Run(out).last_step == short


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_run_is_made_longer(kind, origin, tmp_path):
    short, long = LENGTHS[kind]
    assert not survives(pretrain(kind, origin, tmp_path / "run", short), writes=4)
    assert 0 < load(tmp_path / "run/checkpoint.pt")["step"] < short
    assert call(*pretrain(kind, origin, tmp_path / "run", long)) == 0
    assert call(*pretrain(kind, origin, tmp_path / "whole", long)) == 0
    assert_grown(tmp_path / "run", tmp_path / "whole")


def test_a_run_grows_over_and_over_and_keeps_every_end(origin, tmp_path):
    for steps in (4, 7, 9, 12):
        assert call(*pretrain("ticks", origin, tmp_path / "run", steps)) == 0
    assert call(*pretrain("ticks", origin, tmp_path / "whole", 12, "--keep", 4, 7, 9)) == 0
    assert_grown(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("short", [1, 2])
def test_losses_are_crossed_once_in_all_of_a_longer_run(short, origin, tmp_path):
    more = ["--log-every", 1, "--keep-loss", *crossed_losses("train", origin)]  # in the first and the second epoch
    for steps in (short, 3):
        assert call(*pretrain("images", origin, tmp_path / "run", steps, *more)) == 0
    assert call(*pretrain("images", origin, tmp_path / "whole", 3, *more, "--keep", short)) == 0
    assert len(list((tmp_path / "whole").glob("loss-*.pt"))) == 2
    assert_grown(tmp_path / "run", tmp_path / "whole")


def test_what_was_kept_need_not_be_asked_for_again(origin, tmp_path):
    """As the sweeps' scripts keep another epoch where SWA at the end begins of a longer run."""
    assert call(*pretrain("ticks", origin, tmp_path / "run", 6, "--keep", 5)) == 0
    for _ in range(2):
        assert call(*pretrain("ticks", origin, tmp_path / "run", 9, "--keep", 8)) == 0
    assert settings(tmp_path / "run")["keep"] == [5, 6, 8]
    assert call(*pretrain("ticks", origin, tmp_path / "run", 9)) == 3  # 8 was asked for at this length


@pytest.mark.parametrize("kind", KINDS)
def test_children_keep_the_parent_that_they_began_at(kind, origin, tmp_path):
    (short, long), parent = LENGTHS[kind], tmp_path / "run"
    assert call(*pretrain(kind, origin, parent, short)) == 0
    end = digest_of(Run(parent).weights())
    child = ["finetune", parent, "--lr", 1e-4, "--steps", 3, "--out", tmp_path / "finetune"]
    average = ["swa", parent, "--windows", 2, "--anchor", "start", "--spacing", 1, "--out", tmp_path / "swa"]
    assert call(*child) == call(*average) == 0
    assert call(*pretrain(kind, origin, parent, long)) == 0
    for folder in (tmp_path / "finetune/run-flr1e-4", tmp_path / "swa/run"):
        of_child = Run(folder).config["parent"]
        tensors = Run(folder / of_child["run"]).weights_at(of_child["step"])
        assert digest_of(tensors) == end == of_child["sha256"]
    assert call(*child) == call(*average) == 3  # they would begin at the new end
    assert call(*child, "--from-step", short) == call(*average, "--from-step", short) == 0


UNKNOWN = [None] * 3  # of the members
MEASUREMENTS = {
    "features": {"solution": [], "balanced_accuracy": []},
    "geometry": {
        "low_flr": 1e-5,
        "high_flr": 1e-4,
        "window": 5,
        "angle": {},
        "train_barrier": {},
        "test_barrier": {},
    },
    "bands": {"solution": "checkpoint", "normalisation": "keep", "limits": {}, "accuracy": {}},
    "low": {"solution": "checkpoint", "normalisation": "keep", "low_ends": [], "limits": {}, "accuracy": {}},
    "norms": {"checkpoint": [[1.0]] * 3},
    "sharpness": {"images": 1, "most": 1, "probes": 2, "step": [1] * 3, "test_accuracy": UNKNOWN},
    "band": {"class": "cat", "panels": []},
}


def made(path):
    there, damage = measurements(Run(path))
    assert not damage
    return there


def test_measurements_of_the_shorter_end_are_removed(origin, tmp_path, capsys):
    parent, child = tmp_path / "run", tmp_path / "finetune/run-flr1e-4"
    command = ["finetune", parent, "--lr", 1e-4, "--out", tmp_path / "finetune", "--steps"]
    assert call(*pretrain("ticks", origin, parent, 5)) == call(*command, 3) == 0
    stale = ["features", "geometry-flr1e-5-flr1e-4", "bands-keep", "low-ends-keep", "norms"]
    lasting = ["sharpness-loss-1e-2", "band-images"]
    for run in (Run(parent), Run(child)):
        for name in (*stale, *lasting):
            run.write_measurement(name, MEASUREMENTS[name.split("-")[0]])
    assert call(*command, 5) == 0  # with the child goes the parent's geometry
    assert made(child) == {*lasting} and made(parent) == {*stale, *lasting} - {stale[1]}
    assert "geometry-flr1e-5-flr1e-4.json: is removed" in capsys.readouterr().out
    assert call(*pretrain("ticks", origin, parent, 9)) == 0
    assert made(parent) == {*lasting}


def test_a_run_whose_members_diverged_is_only_said_to_be_longer(origin, tmp_path):
    command = ["train", "--data", "ticks", "--lr", 1e30, "--log-every", 2, "--out", tmp_path / "run", "--steps"]
    assert call(*command, 4) == 0
    before = strict_json(tmp_path / "run/metrics.json")
    assert call(*command, 8) == 0
    assert strict_json(tmp_path / "run/metrics.json") == before and Run(tmp_path / "run").complete
    assert settings(tmp_path / "run")["steps"] == 8 and settings(tmp_path / "run")["keep"] == []


def test_a_run_that_ended_below_its_loss_is_only_said_to_be_longer(origin, tmp_path):
    command = ["train", "--data", "ticks", "--lr", 1e-3, "--log-every", 2, "--until-loss", 100]
    command += ["--out", tmp_path / "run", "--steps"]
    assert call(*command, 4) == 0
    before = strict_json(tmp_path / "run/metrics.json")
    assert before["step"] == [0]
    assert call(*command, 8) == 0
    assert strict_json(tmp_path / "run/metrics.json") == before and Run(tmp_path / "run").complete


def test_nothing_is_written_where_the_data_are_missing(origin, tmp_path, capsys):
    child = ["finetune", origin / "images", "--lr", 1e-3, "--out", tmp_path, "--steps"]
    assert call(*child, 1) == 0
    before = contents(tmp_path / "images-flr1e-3")
    capsys.readouterr()
    assert call(*child, 2, "--data-file", tmp_path / "none.pt") == 2
    assert "none.pt" in one_line(capsys)
    assert contents(tmp_path / "images-flr1e-3") == before


# SWA


def averages(kind, origin, out, *windows, anchor="start"):
    made = ["swa", origin / kind, "--spacing", 1, "--anchor", anchor, "--checkpoint-seconds", 0]
    return [*made, "--windows", *windows, "--out", out]


@pytest.mark.parametrize("windows", [(2, 4, 6), (2, 3, 4), (1, 2, 4, 5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_more_windows_in_the_same_folder(kind, windows, origin, tmp_path):
    assert call(*averages(kind, origin, tmp_path / "grown", 2, 4)) == 0
    assert call(*averages(kind, origin, tmp_path / "whole", *windows)) == 0
    before = load(tmp_path / "grown" / kind / "swa-4.pt")
    assert call(*averages(kind, origin, tmp_path / "grown", *windows)) == 0
    assert_grown(tmp_path / "grown" / kind, tmp_path / "whole" / kind)
    after = load(tmp_path / "grown" / kind / "swa-4.pt")
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    before = contents(tmp_path / "grown" / kind)
    assert call(*averages(kind, origin, tmp_path / "grown", *windows)) == 0
    assert contents(tmp_path / "grown" / kind) == before


def test_larger_windows_go_on_where_averaging_ended(origin, tmp_path, monkeypatch):
    assert call(*averages("images", origin, tmp_path, 2, 4)) == 0
    begun, advance = [], train.ImageTraining.advance
    monkeypatch.setattr(
        train.ImageTraining, "advance", lambda self, step, until: begun.append(step) or advance(self, step, until)
    )
    assert call(*averages("images", origin, tmp_path, 2, 4, 6)) == 0
    assert begun == [3, 4]


@pytest.mark.parametrize("windows", [(2, 4, 5), (2, 3, 4)], ids=str)
def test_killed_in_any_write_while_windows_are_added(windows, origin, tmp_path):
    assert call(*averages("ticks", origin, tmp_path / "whole", *windows)) == 0
    assert call(*averages("ticks", origin, tmp_path / "short", 2, 4)) == 0
    for writes in itertools.count():
        out = tmp_path / str(writes)
        shutil.copytree(tmp_path / "short", out)
        if survives(averages("ticks", origin, out, *windows), writes):
            break
        assert call(*averages("ticks", origin, out, *windows)) == 0
        assert_grown(out / "ticks", tmp_path / "whole" / "ticks")
    assert writes > 6


def test_windows_at_the_end(origin, tmp_path, capsys):
    parent = tmp_path / "ticks"
    assert call(*pretrain("ticks", origin, parent, 10, "--keep", 5, 7)) == 0
    assert call(*averages("ticks", tmp_path, tmp_path / "grown", 2, 4, anchor="end")) == 0
    assert call(*averages("ticks", tmp_path, tmp_path / "grown", 2, 3, 4, anchor="end")) == 0
    assert call(*averages("ticks", tmp_path, tmp_path / "whole", 2, 3, 4, anchor="end")) == 0
    assert_grown(tmp_path / "grown/ticks", tmp_path / "whole/ticks")
    before = contents(tmp_path / "grown/ticks")
    capsys.readouterr()
    assert call(*averages("ticks", tmp_path, tmp_path / "grown", 2, 3, 4, 6, anchor="end")) == 3
    assert "has windows of up to 4 weights that end together; one of 6 begins before them" in one_line(capsys)
    assert contents(tmp_path / "grown/ticks") == before


def test_averages_of_a_run_that_diverged_take_more_windows(origin, tmp_path):
    made = ["train", "--data", "ticks", "--lr", 1e30, "--steps", 4, "--log-every", 2, "--out", tmp_path / "ticks"]
    assert call(*made) == 0
    for folder, windows in (("grown", (2, 4)), ("grown", (2, 4, 6)), ("whole", (2, 4, 6))):
        assert call(*averages("ticks", tmp_path, tmp_path / folder, *windows)) == 0
    grown, whole = (tmp_path / folder / "ticks" for folder in ("grown", "whole"))
    assert strict_json(grown / "metrics.json") == strict_json(whole / "metrics.json")
    assert_same_tensors(grown, whole, "swa-2.pt", "swa-4.pt", "swa-6.pt")
