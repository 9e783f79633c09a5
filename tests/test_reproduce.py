"""Reproductions: what a plan counts, against what scripts do, and all of it on tiny sets."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from test_runs import call
from test_scripts import ROOT, calls, listed, quick, run, value_of, written  # noqa: F401

from data.commandline import BadInput, lr_name
from data.images import load_image_set
from data.runs import find_runs
from scripts import plan, reproduce
from scripts.plan import Cost, Item, Part, matcher

pytestmark = pytest.mark.xdist_group("scripts")


def part_of(listing, out, environment):
    part = Part("part", [], listing, out, environment)
    part.list()
    return part


def made_by(commands, out):
    """The folders, below a folder, and lengths of the runs that commands make, by what the commands say."""
    found = Counter()
    for words in commands:
        place = os.path.relpath(ROOT / value_of("--out", words)[0], out) if "--out" in words else None
        if words[0] == "train.py":
            found[place, int(value_of("--steps", words)[0])] += 1
        elif words[0] == "finetune.py":
            for lr in value_of("--lr", words):
                folder = f"{place}/{Path(words[1]).name}-flr{lr_name(float(lr))}"
                found[folder, int(value_of("--steps", words)[0])] += 1
        elif words[0] == "swa.py":
            spacing, windows = int(value_of("--spacing", words)[0]), map(int, value_of("--windows", words))
            found[f"{place}/{Path(words[1]).name}", (max(windows) - 1) * spacing] += 1
    return found


@pytest.mark.parametrize("setup", ["s1", "s5", "s8", "convnet-small", "tiny-small"])
def test_a_plan_has_the_runs_that_a_sweep_makes(setup, listed, tmp_path):  # noqa: F811
    run("bash", "scripts/images.sh", setup, str(tmp_path / "out"), **listed)
    made = made_by(calls(listed), tmp_path / "out")
    part = part_of(["scripts/planned.sh", "images", setup, str(tmp_path / "out")], tmp_path / "out", listed)
    planned = Counter((item.path, item.steps) for item in part.items if item.is_run)
    assert set(planned.values()) == {1} or "*" in max(planned, key=planned.get)[0]
    for path, steps in made:
        named = (path, steps) if (path, steps) in planned else None
        pattern = (key for key in planned if plan.is_pattern(key[0]) and matcher(key[0]).fullmatch(path))
        found = named or next(pattern)
        assert found[1] == steps
        planned -= Counter([found])
    # Where b12 is not among the PLRs nobody trains at it from scratch; the plan, which does not know, has that run.
    assert all(path.startswith("finetune/plrb12-") for path, _ in planned) and planned.total() <= 1
    assert Path(ROOT / part.data).samefile(listed["DATA"])


def test_a_plan_has_the_runs_of_the_synthetic_study(listed, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    asked = listed | {"SEEDS": "1 2 3", "DATA_SEEDS": "1 2 3 4 5 6", "JOBS": "2", "LISTED": ""}
    command = ["bash", "scripts/synthetic.sh", str(out), "--flr", "low", "1e-3"]
    part = part_of(command[1:], out, asked | {"LISTED": "yes"})
    assert not out.exists()
    run(*command, **asked)
    made = [words for words in calls(listed) if words[0] in ("train.py", "finetune.py", "swa.py")]
    runs = {(item.path, item.steps): item for item in part.items if item.is_run}
    assert {*made_by(made, out)} == {*runs}
    networks = sum(item.members for item in runs.values() if item.path.startswith("pretrain/"))
    assert networks == 3 * 6 * 23
    assert len(runs) == len({path for path, _ in runs})


def test_training_until_convergence_is_planned_with_its_halvings(listed, tmp_path):  # noqa: F811
    asked = listed | {"LRS": "1e-4 2e-4", "SEEDS": "4 5", "RATIO": "1.1"}
    part = part_of(["scripts/planned.sh", "boundary", "s1", str(tmp_path)], tmp_path, asked)
    names = Counter(item.path for item in part.items)
    # From a factor of 1.5 to one of at most 1.1: 1.225, 1.107, 1.052.
    assert names == {f"converge/lr{lr}-seed{seed}": 1 for lr in ("1e-4", "2e-4") for seed in "45"} | {
        f"converge/lr*-seed{seed}": 3 for seed in "45"
    }


@pytest.mark.parametrize(
    "pattern, path, fits",
    [
        ("finetune/plr1e-4-flrb12", "finetune/plr1e-4-flr7.5e-4", True),
        ("finetune/plr1e-4-flrb12", "finetune/plr1e-4-flr1e-3-flr7e-4", False),
        ("finetune/plrb12-flrb12-flrb12", "finetune/plr7e-4-flr7e-4-flr7e-4", True),
        ("finetune/plrb12-flrb12-flrb12", "finetune/plr1e-2-flr7e-4-flr7e-4", False),
        ("finetune/plrb12-seed*-flrb12-flrb12", "finetune/plr7e-4-seed2003-flr7e-4-flr7e-4", True),
        ("converge/lr*-seed1", "converge/lr1.2e-3-seed1", True),
        ("converge/lr*-seed1", "converge/lr1.2e-3-seed11", False),
    ],
)
def test_what_is_not_known_yet_stands_for_any_rate(pattern, path, fits):
    assert bool(matcher(pattern).fullmatch(path)) == fits


TICKS = ["--data", "ticks", "--lr", 1e-3, "--seed", 1, 2, "--log-every", 5]


def test_what_is_done_is_counted(tmp_path):
    """Three lengths: there, half there, and a folder that is not; a run at a rate that was not known is found."""
    for name, steps in (("pretrain/whole", 20), ("pretrain/short", 10), ("finetune/whole-flr2e-3", 20)):
        assert call("train", *TICKS, "--steps", steps, "--out", tmp_path / name) == 0
    paths = ["pretrain/whole", "pretrain/short", "pretrain/none", "finetune/whole-flrb12", "finetune/none-flrb12"]
    part = Part("part", [], [], tmp_path, {}, data="ticks", cost=Cost(2.0, 3.0, 100.0))
    part.items = [Item(20, 2, 5, path) for path in paths] + [Item(7, 1, 0, "pretrain/whole/features.json")]
    tally = part.tally()
    assert (tally.runs, tally.runs_done) == (10, 4) and not tally.complete
    assert tally.work == 5 * 40 and abs(tally.work_done - (40 + 20 + 40)) <= 1
    assert tally.seconds == 5 * (2 * 40 + 3) + 7 * 2
    assert abs(tally.seconds_left - (2.5 * 83 + 14)) < 3 and abs(tally.bytes_left - 2.5 * 1000) < 50
    # The measurement is there once its file is, and runs at an unknown rate are as many as there will be once all is closed.
    (tmp_path / "pretrain/whole/features.json").write_text("{}")
    (tmp_path / "claims.json").write_text("{}")
    part.items = [Item(20, 2, 5, paths[0]), Item(20, 2, 5, paths[4], "claims.json"), part.items[-1]]
    assert part.tally().complete and part.tally().seconds_left == 0


def test_a_few_images_take_their_share_of_an_epoch(image_set, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "WARM_UP_BATCHES", 2)
    reproduce.save_image_set(image_set, tmp_path / "all.pt")
    assert plan.save_few_images(tmp_path / "all.pt", tmp_path / "few.pt", 6) == 12 / 60
    few = load_image_set(tmp_path / "few.pt")
    assert (len(few.train_labels), len(few.test_labels)) == (12, 6) and few.digest != image_set.digest
    assert plan.batch_size("--batch-size 128 --width 2 --batch-size 16") == 16


@pytest.fixture
def commands(monkeypatch):
    """What a reproduction would run, (name, arguments of bash); training is not measured."""
    made = []
    monkeypatch.setattr(reproduce, "measure_costs", lambda parts, jobs, folder: None)
    monkeypatch.setattr(reproduce, "call", lambda name, command, *rest: made.append((name, command)))
    monkeypatch.setenv("JOBS", "2")
    return made


def reproduced(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, arguments)])
    reproduce.main()


def test_sweeps_without_their_set_are_named_and_skipped(commands, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DATA", str(tmp_path / "none.pt"))
    monkeypatch.setenv("SEEDS", "1 2")
    with pytest.raises(
        BadInput,
        match="convnet-small; convnet-small-more; resnet-small; tiny-small; .*the same command makes the rest",
    ):
        reproduced(monkeypatch, "small", "--out", tmp_path / "out")
    assert [name for name, _ in commands] == ["synthetic"]
    output = capsys.readouterr().out
    [line, again] = re.findall(r"skipped: convnet-small; .*", output)
    assert line == again and f"there is no {tmp_path}/none.pt; prepare it with: python -m data" in line
    assert re.search(r"synthetic +0 of 2990 runs", output)


def test_a_plan_alone_runs_nothing_and_says_what_there_is(commands, monkeypatch, tmp_path, capsys):
    (tmp_path / "set.pt").touch()
    monkeypatch.setenv("DATA", str(tmp_path / "set.pt"))
    reproduced(monkeypatch, "paper", "--out", tmp_path / "out", "--plan")
    assert commands == []
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    # S1: 25 PLRs, each pre-trained, averaged, fine-tuned at five FLRs; second stages from one PLR, with two FLRs, and one
    # run at each of these from scratch.
    runs, epochs = 25 * 7 + 1 + 2 + 2, 25 * (200 + 99 + 5 * 200) + 5 * 200
    assert re.search(rf" 0 of {runs} runs +0 of {epochs} epochs", rows["s1"])
    assert re.search(r" 0 of 14950 runs ", rows["synthetic"])


def test_figures_that_compare_are_drawn_of_the_sweeps_that_were_made(tmp_path):
    found = dict(reproduce.drawings(reproduce.SCALES["paper"], tmp_path, ["s1", "s3", "s8"]))
    folders = {name: [Path(word).name for word in command[2 : command.index("--only")]] for name, command in found.items() if "--only" in command}  # fmt: skip
    assert folders == {
        "figures 10 14": ["s3"],
        "figures 18": ["s1", "s3"],
        "figures 8": ["s8"],
        "figures 22 23 24 25": ["s8"],
    }
    assert [*found][:2] == ["s1, figures", "s1, claims"]


def test_time_left_is_corrected_by_the_time_taken(tmp_path, monkeypatch):
    part = Part("part", [], [], tmp_path, {}, cost=Cost(10.0, 0.0, 0.0))
    part.items = [Item(20, 1, 1, "pretrain/a")]
    progress = reproduce.Progress([part], 2)
    assert progress._left(5) == "0 % of the time, 100 s left".replace("100 s", reproduce.duration(100))
    progress.tallies[part] = progress.tallies[part]._replace(seconds_left=50.0)
    assert progress._left(300) == "75 % of the time, 2 min left"  # 75 s of the plan took 300 s


@pytest.mark.parametrize("arguments", [[], ["large"], ["smoke", "a", "b"], ["smoke", "--what"]])
def test_reproduce_says_how_it_is_used(arguments):
    done = subprocess.run(["bash", str(ROOT / "scripts/reproduce.sh"), *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: bash scripts/reproduce.sh")


@pytest.mark.slow
def test_everything_on_tiny_sets_killed_and_resumed(quick, tmp_path):  # noqa: F811
    """The smoke test: it is killed once it has trained, goes on, draws every figure, and has nothing left to do then."""
    out = tmp_path / "Ann's runs"
    command = ["bash", "scripts/reproduce.sh", "smoke", str(out)]
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | quick, stdout=said, stderr=said)
        while not list(out.glob("convnet-small/pretrain/*/checkpoint.pt")):
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    before = written(out / "synthetic")
    output = run(*command, **quick)
    assert "synthetic: complete" in output and "everything is there" in output
    assert before.items() <= written(out / "synthetic").items()
    drawn = {int(re.search(r"figure(\d+)", path.name)[1]) for path in out.glob("*/figure*.pdf")}
    drawn |= {int(re.search(r"figure(\d+)", path.name)[1]) for path in out.glob("*/figures/*.pdf")}
    assert drawn == {*range(1, 27)}
    assert all(json.loads(path.read_text())["claims"] for path in out.glob("*/claims.json"))
    plan_of_all = run(*command, "--plan", **quick).splitlines()
    rows = [line for line in plan_of_all if re.search(r"\d+ of \d+ runs", line)]
    assert len(rows) == 6 and all(row.endswith("complete") for row in rows)
    # Runs are counted as they lie there.
    for row in rows:
        name = row.split()[0]
        if "," not in row and name != "synthetic":
            runs = [found for found in find_runs(out / name) if "converge" not in found.path.parts]
            assert re.search(rf" {len(runs)} of {len(runs)} runs", row), row
