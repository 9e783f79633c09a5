"""Work that nobody watches: output without a reader, signals of schedulers, lengths beyond all patience."""

import itertools
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_runs import TICKS, call, contents, strict_json, survives

import train
from data import commandline, locks, open_run
from data.runs import Run

ROOT = Path(__file__).parent.parent
SHORT = [*TICKS, "--steps", 12, "--log-every", 4]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The metrics of a whole run of SHORT."""
    folder = tmp_path_factory.mktemp("expected")
    assert call("train", *SHORT, "--out", folder / "run") == 0
    return strict_json(folder / "run/metrics.json")


def shell(command, cwd):
    environment = os.environ | {"PYTHON": sys.executable, "ROOT": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("output", ["| true", "> /dev/full", ">&-"])
def test_work_goes_on_without_a_reader(output, expected, tmp_path):
    """`| true` reads nothing, /dev/full takes nothing, and a closed output is none."""
    command = " ".join(map(str, SHORT))
    done = shell(f'("$PYTHON" "$ROOT/train.py" {command} --out run; echo $? > code) {output}', tmp_path)
    assert (tmp_path / "code").read_text() == "0\n" and done.stderr == ""
    assert strict_json(tmp_path / "run/metrics.json") == expected


def test_results_without_a_reader_are_no_success(expected, tmp_path):
    assert call("train", *SHORT, "--out", tmp_path / "run") == 0
    printing = '"$PYTHON" "$ROOT/analyze.py" runs .'
    assert shell(f"({printing}; echo $? > code) | true", tmp_path).stderr == ""
    assert (tmp_path / "code").read_text() == "141\n"
    full = shell(f"{printing} > /dev/full", tmp_path)
    assert full.returncode == 2 and full.stderr.count("\n") == 1
    assert "the output cannot be written: No space left on device" in full.stderr


def test_a_warning_signal_saves_and_goes_on(expected, tmp_path, monkeypatch):
    """SIGUSR1, as SLURM sends it before it kills: the next logged step is on disk, though none was due."""
    advance, seen = train.TickTraining.advance, []

    def warned(self, step, until):
        if step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        if step > 0:
            seen.append((step, Run(tmp_path / "run").trained_to))
        return advance(self, step, until)

    monkeypatch.setattr(train.TickTraining, "advance", warned)
    assert call("train", *SHORT, "--checkpoint-seconds", 3600, "--out", tmp_path / "run") == 0
    assert seen == [(4, -1), (8, 8)]
    assert strict_json(tmp_path / "run/metrics.json") == expected


@pytest.mark.parametrize("steps, log_every, keep", [(12, 4, []), (13, 4, [0, 3, 8, 13]), (3, 7, [1]), (5, 1, [2])])
@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 11, 12])
def test_logged_steps(steps, log_every, keep, after):
    every = {*range(0, steps, log_every), *keep, steps}
    assert [*train.logged_steps(steps, log_every, keep, after)] == sorted(step for step in every if step > after)


def test_a_length_costs_nothing_before_it_is_trained():
    steps = train.logged_steps(10**15, 1, [], 0)
    assert [*itertools.islice(steps, 3)] == [1, 2, 3]


def test_a_run_that_stops_at_a_loss_does_so_wherever_it_was_killed(tmp_path):
    """Levels are losses as they stand on disk, where rounding makes the difference between below and not below."""
    made = ["--data", "ticks", "--lr", 1e-2, "--steps", 12, "--log-every", 1, "--checkpoint-seconds", 0]
    assert call("train", *made, "--out", tmp_path / "all") == 0
    losses = [loss for [loss] in strict_json(tmp_path / "all/metrics.json")["train_loss"]]
    lowest = list(itertools.accumulate(losses, min))
    crossed = [loss for loss, before in zip(losses[1:], lowest) if loss < before][:2]
    levels = [level for loss in crossed for level in (loss, math.nextafter(loss, math.inf))]
    assert levels, "the loss must fall"
    for number, level in enumerate(levels):
        whole, killed = tmp_path / f"whole{number}", tmp_path / f"killed{number}"
        assert call("train", *made, "--until-loss", repr(level), "--out", whole) == 0
        at = losses.index(crossed[number // 2])
        command = ["train", *made, "--until-loss", repr(level), "--out", killed]
        survives(command, writes=2 * at + 1)
        assert call(*command) == 0
        assert strict_json(killed / "metrics.json") == strict_json(whole / "metrics.json")


def test_a_network_that_cannot_be_built_leaves_nothing(tmp_path, monkeypatch):
    def too_large(*_):
        raise MemoryError

    monkeypatch.setattr(train, "make_task", too_large)
    with pytest.raises(MemoryError):
        call("train", *SHORT, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists() and not contents(tmp_path)


def test_a_resume_in_other_conditions_is_said_and_recorded(tmp_path, monkeypatch, capsys):
    """Another number of threads, processor or version may round otherwise; the same conditions are not worth a word."""
    command = ["train", *SHORT, "--checkpoint-seconds", 0, "--out", tmp_path / "run"]
    original, conditions = open_run.describe_execution, {}
    monkeypatch.setattr(open_run, "describe_execution", lambda device: original(device) | conditions)
    for writes, changed in ((3, {}), (3, {"processor": "none known"}), (1, {"device": "an abacus"})):
        conditions.update(changed)
        capsys.readouterr()
        assert not survives(command, writes)
        said = [line for line in capsys.readouterr().out.splitlines() if "goes on from" in line]
        assert len(said) == len(changed)
        for line, (name, now) in zip(said, changed.items()):
            assert f"{name} {now}, not " in line and "bits may differ" in line
    resumed = strict_json(tmp_path / "run/config.json")["resumed"]
    assert [(of["step"], of["processor"], of["device"] == "an abacus") for of in resumed][0] == (
        4,
        "none known",
        False,
    )
    assert len(resumed) == 2 and resumed[1]["device"] == "an abacus"
    assert call(*command) == 0 and strict_json(tmp_path / "run/config.json")["resumed"] == resumed


def test_a_folder_is_held_after_its_lock_was_removed(tmp_path):
    held = locks.hold(tmp_path)
    assert locks.is_held(tmp_path)
    (tmp_path / "lock").unlink()
    assert locks.is_held(tmp_path)
    assert call("train", *SHORT, "--out", tmp_path) == 3
    locks.release(held)
    assert not locks.is_held(tmp_path)
    assert call("train", *SHORT, "--out", tmp_path) == 0


@pytest.mark.parametrize("moment", range(1, 5))
def test_ctrl_c_while_a_step_is_recorded_leaves_whole_metrics(moment, expected, tmp_path, monkeypatch):
    """Its number is there then, and not yet all that was measured; moment: which of the second step's series comes next."""
    as_written, seen = train.as_written, itertools.count()

    def interrupted(values):
        if next(seen) == 2 * 4 + moment - 1:
            raise KeyboardInterrupt
        return as_written(values)

    command = ["train", *SHORT, "--out", tmp_path / "run"]
    monkeypatch.setattr(train, "as_written", interrupted)
    assert call(*command) == 130
    assert Run(tmp_path / "run").metrics["step"] == [0, 4] and Run(tmp_path / "run").trained_to == 4
    monkeypatch.undo()
    assert call(*command) == 0
    assert strict_json(tmp_path / "run/metrics.json") == expected


def test_what_kills_left_in_a_run_folder_is_removed_and_what_others_put_there_is_not(tmp_path):
    """Of training and of measuring; a file that a living process writes is not removed either."""
    names = [".checkpoint.pt.12.tmp", ".metrics.json.12.tmp", ".features.json.12.tmp", ".mine.tmp"]
    command = ["train", *SHORT, "--out", tmp_path]
    assert call(*command) == 0
    for removed, start in (
        (names[:3], lambda: call(*command)),
        (names[1:3], lambda: Run(tmp_path).write_measurement("features", {"solution": []})),
    ):
        for name in names:
            (tmp_path / name).write_text("a part")
        start()
        assert {path.name for path in tmp_path.glob(".*")} == {*names} - {*removed}


def test_a_pipe_in_the_place_of_a_lock_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "lock")
    assert not locks.is_held(tmp_path)
    held = locks.hold(tmp_path)
    assert locks.is_held(tmp_path)
    locks.release(held)


def test_an_error_about_a_file_leaves_the_output_as_it_is(capfd):
    """Only where the output itself cannot be written is the rest of it given up."""

    def fail():
        raise FileNotFoundError(2, "No such file or directory", "there.pt")

    with pytest.raises(SystemExit):
        commandline.run(fail)
    print("still read")
    assert capfd.readouterr().out == "still read\n"
