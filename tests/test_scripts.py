"""The shell scripts' main paths, on training too short to mean anything."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import random_image_set
from test_runs import call

import models
import train
from data.analysis.study import Study, final
from data.commandline import lr_name
from data.images import save_image_set
from data.runs import Run, find_runs

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.xdist_group("scripts")  # its tests share sweeps


def run(*command, folder=ROOT, **environment):
    """Run a command in a folder; returns its output."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# To start Python takes longer than most of these trainings: `quick` forks a process that has started.

SERVER = """
import json, os, runpy, signal, socket, sys
import torch, analyze, finetune, swa, train
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(50)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    client, _ = server.accept()
    if os.fork():
        client.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, _, _ = socket.recv_fds(client, 100000, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    folder, sys.argv = json.loads(request)
    os.chdir(folder)
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code or 0
    sys.stdout.flush()
    client.sendall(bytes([code]))
    os._exit(0)
"""
CLIENT = """
import json, os, socket, sys
if sys.argv[1:3] in (["-m", "pip"], ["analyze.py", os.environ.get("LEFT_OUT")]):
    sys.exit()
if sys.argv[1] in ("train.py", "finetune.py", "swa.py", "analyze.py"):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(chr(9).join(sys.argv[1:]) + chr(10))
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.environ["SERVER"])
    socket.send_fds(server, [json.dumps([os.getcwd(), sys.argv[1:]]).encode()], [0, 1, 2])
    sys.exit((server.recv(1) or b"9")[0])
os.execv(os.environ["PYTHON"], [os.environ["PYTHON"], *sys.argv[1:]])
"""


def stand_in(folder, text):
    """A command `python` in a folder; returns the environment that makes scripts use it."""
    path = folder / "bin/python"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)
    (folder / "calls").touch()
    environment = {"PATH": f"{path.parent}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}
    return environment | {"VIRTUAL_ENV": sys.prefix, "PYTHON": sys.executable, "JOBS": "2", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The environment of a script whose python scripts run in forks of one process; its CALLS is a file that lists them."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "client.py").write_text(CLIENT)
    environment = stand_in(folder, f'#!/bin/sh\nexec {sys.executable} -S -E {folder}/client.py "$@"\n')
    environment["SERVER"] = str(folder / "socket")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, environment["SERVER"]], cwd=ROOT, env=os.environ | environment
    )
    while not (folder / "socket").exists():
        assert server.poll() is None
        time.sleep(0.05)
    yield environment
    server.kill()
    server.wait()


def calls(environment):
    """The commands since the last time."""
    path = Path(environment["CALLS"])
    lines = path.read_text().splitlines()
    path.write_text("")
    return [line.split("\t") for line in lines]


def fails(*command, folder=ROOT, **environment):
    """Run a command that fails; returns its exit code and output."""
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode != 0
    return done.returncode, done.stdout + done.stderr


def written(folder):
    """Every file of the run folders in a folder, but for their locks, and when it was written."""
    paths = [path for run in find_runs(folder) for path in run.path.iterdir() if path.name != "lock"]
    return {path: path.stat().st_mtime_ns for path in paths}


LIST = r"""#!/bin/sh
tab=$(printf '\t')
IFS=$tab
printf '%s\n' "$*" >> "$CALLS"
IFS=' '
case "$*" in "analyze.py boundary"*) echo 7e-4 9e-4 ;; esac
case "$*" in ${FAILING:-none}) exit 2 ;; esac
"""


@pytest.fixture
def listed(tmp_path):
    """The environment of a script whose commands are only listed in its CALLS; b12 is 7e-4.

    Those that match the pattern FAILING exit with 2.
    """
    (tmp_path / "image set.pt").touch()
    return stand_in(tmp_path, LIST) | {"JOBS": "1", "DATA": str(tmp_path / "image set.pt")}


def value_of(name, words):
    """The values of an argument in a command."""
    following = words[words.index(name) + 1 :]
    return following[: next((at for at, word in enumerate(following) if word.startswith("--")), None)]


TICK_FIGURES = {
    f"figure{number}.{kind}" for number in ("04", "05", "15", "16", "17") for kind in ("pdf", "png", "json")
}


# What a folder is called must not matter.
FOLDER = "Ann's runs"
TICK_LENGTHS = {"PRETRAIN_STEPS": "300", "FINETUNE_STEPS": "100"}


@pytest.fixture(scope="module")
def demo(quick, tmp_path_factory):
    """The folder and the output of a demo with short training."""
    folder = tmp_path_factory.mktemp("demo") / FOLDER
    return folder, run("bash", "scripts/demo.sh", str(folder), **quick | TICK_LENGTHS)


def test_demo_trains_fine_tunes_averages_measures_and_draws(demo):
    folder, output = demo
    assert "What to look for" in output and "\nM1 " in output
    folders = (folder / "folders").read_text().split()
    assert sorted(path.name for path in (folder / "pretrain").iterdir()) == folders == ["seed1", "seed2"]
    assert {path.name for path in (folder / "figures").iterdir()} == TICK_FIGURES
    numbers = json.loads((folder / "figures/figure15.json").read_text())
    assert len(numbers["pretrain"]["plr"]) == 23 and set(numbers["pretrain"]["n"]) == {10}
    assert len(numbers["finetune"]) == 4
    assert [curve["window"] for curve in numbers["swa"]] == [2, 5, 10, 20, 50]


def test_the_demo_ends_with_what_its_runs_can_tell(demo):
    folder, output = demo
    numbers = json.loads((folder / "figures/figure15.json").read_text())
    ending = output.split("Measured here: best mean test accuracy of 10 runs, in percent\n")[1].splitlines()
    best = re.findall(r"fine-tuning ([0-9.]+)", "\n".join(ending))
    assert f"{max(mean for curve in numbers['finetune'] for mean in curve['mean']):.1f}" in best
    assert f"{max(numbers['pretrain']['mean']):.1f}" in re.findall(r"pre-training ([0-9.]+)", "\n".join(ending))
    claims = json.loads((folder / "claims.json").read_text())["claims"]
    measured = [claim for claim in claims if claim["verdict"] != "not measurable"]
    [listed] = [line for line in ending if line.startswith("Claims of the paper that such runs can speak of")]
    names = {what: found.split() for what, found in re.findall(r"(holds|refuted|undecided): ([^;.]+)", listed)}
    for what, found in names.items():
        assert found == ([claim["claim"] for claim in measured if claim["verdict"] == what] or ["none"])
    decisions = [decision for claim in measured for decision in claim["decisions"].values()]
    decided = [decision for decision in decisions if decision != "undecided"]
    assert f"These consist of {len(decisions)} comparisons. 10 runs decide {len(decided)} of them, " in "\n".join(
        ending
    )


def test_the_study_keeps_its_folders_and_adds_one_for_new_seeds(demo, quick, tmp_path):
    out = shutil.copytree(demo[0], tmp_path / FOLDER)
    before = written(out)
    more = {"TRAIN_FLAGS": "", "SEEDS": "1 2 3", "JOBS": "1"}
    run("bash", "scripts/synthetic.sh", str(out), "--flr", "low", "1e-3", "high", **quick | TICK_LENGTHS | more)
    assert (out / "folders").read_text() == "seed1\nseed2\nseed3\n"
    assert sorted(path.name for path in (out / "pretrain").iterdir()) == ["seed1", "seed2", "seed3"]
    names = [f"seed{seed}-flr{flr}" for seed in "123" for flr in ("1e-3", "3.162278e-5", "7.498942e-3")]
    names += [f"seed{seed}-flr1e-4" for seed in "12"]
    assert sorted(path.name for path in (out / "finetune").iterdir()) == sorted(names)
    assert before.items() <= written(out).items()
    numbers = json.loads((out / "figures/figure15.json").read_text())
    # The new seed has not been fine-tuned at all FLRs, and so is compared at none.
    assert [set(curve["n"]) for curve in numbers["finetune"]] == [{10}] * 4
    assert json.loads((out / "claims.json").read_text())["claims"][0]["claim"] == "M1"


@pytest.mark.parametrize(
    "there, seeds, jobs, folders",
    [
        ([], None, 3, ["1-2-3-4", "5-6-7-8", "9-10"]),
        ([], "5 3", 4, ["3", "5"]),
        (["3-4"], "3 4 5", 1, ["3-4", "5"]),
        (["7", "3-4"], "1 2 3 4 5 6 7", 2, ["7", "3-4", "1-2", "5-6"]),
        (["1-2"], "2", 2, ["1-2"]),
    ],
)
def test_seeds_of_the_study_are_dealt_out_once(there, seeds, jobs, folders, listed, tmp_path):
    out = tmp_path / FOLDER
    out.mkdir()
    (out / "folders").write_text("".join(f"seed{names}\n" for names in there))
    asked = {"JOBS": str(jobs)} | ({"SEEDS": seeds} if seeds else {})
    run("bash", "scripts/synthetic.sh", str(out), **listed | asked)
    assert (out / "folders").read_text() == "".join(f"seed{names}\n" for names in folders)
    trained = {tuple(value_of("--seed", words)): words for words in calls(listed) if words[0] == "train.py"}
    assert set(trained) == {tuple(names.split("-")) for names in folders}
    for seed, words in trained.items():
        assert os.path.normpath(ROOT / value_of("--out", words)[0]) == str(
            out / "pretrain" / f"seed{'-'.join(seed)}"
        )


@pytest.mark.parametrize(
    "there, seeds, data_seeds, jobs, added",
    [
        ([], "1", "1 2 3 4 5 6 7", 2, {"data1to4-seed1": "1 2 3 4", "data5to7-seed1": "5 6 7"}),
        ([], "4 3", "12\n9 10", 1, {"data9to10-12-seed3": "9 10 12", "data9to10-12-seed4": "9 10 12"}),
        (["seed1-2"], "2 3", "2 6 4 7", 1, {"data6to7-seed2": "6 7", "data2-4-6to7-seed3": "2 4 6 7"}),
        (["data2to4-9-seed1"], "1", "1 2 3 4 5", 3, {"data1-seed1": "1", "data5-seed1": "5"}),
        (["data1to2-seed3"], "3 8", "1 2 3 4 5", 1, {"data3to5-seed3": "3 4 5", "seed8": "1 2 3 4 5"}),
        (["data1to2-4-seed3"], "3", "4 2", 2, {}),
    ],
)
def test_data_seeds_of_the_study_are_dealt_out_once(there, seeds, data_seeds, jobs, added, listed, tmp_path):
    out = tmp_path / FOLDER
    out.mkdir()
    (out / "folders").write_text("".join(f"{name}\n" for name in there))
    asked = {"JOBS": str(jobs), "SEEDS": seeds, "DATA_SEEDS": data_seeds}
    run("bash", "scripts/synthetic.sh", str(out), **listed | asked)
    folders = (out / "folders").read_text().split()
    assert folders == [*there, *added]
    trained = [words for words in calls(listed) if words[0] == "train.py"]
    of_folder = {Path(*value_of("--out", words)).name: words for words in trained}
    assert set(of_folder) == set(folders)
    for name, expected in added.items():
        assert value_of("--data-seed", of_folder[name]) == expected.split()
        assert value_of("--seed", of_folder[name]) == [name[-1]]
    pairs = [
        (data_seed, seed)
        for words in trained
        for data_seed in value_of("--data-seed", words)
        for seed in value_of("--seed", words)
    ]
    assert len(set(pairs)) == len(pairs)
    assert {(data_seed, seed) for data_seed in data_seeds.split() for seed in seeds.split()} <= set(pairs)


def test_learning_rates_of_the_study_are_those_of_the_grid(listed, tmp_path):
    exponents = [f"1e{number}" for number in ("-4.5", "-3", "-2.25", "-2.125", "-1.875", "-1.75", "-0.25", "+0")]
    flrs = ("low", "1e-4", "1e-2.5", "3e-3", "high")
    lengths = {"PRETRAIN_STEPS": "60000", "FINETUNE_STEPS": "300"}
    lengths |= {"SEEDS": "1 2", "DATA_SEEDS": " ".join(map(str, range(500))), "JOBS": "2"}
    asked = {"PLRS": " ".join(exponents)} | lengths
    output = run("bash", "scripts/synthetic.sh", str(tmp_path / FOLDER), "--flr", *flrs, **listed | asked)
    made = calls(listed)
    trained, tuned, averaged = (
        next(words for words in made if words[0] == name) for name in ("train.py", "finetune.py", "swa.py")
    )
    grid = [float(lr) for lr in learning_rates("scripts/ticks.args")]
    assert [float(lr) for lr in value_of("--lr", trained)] == [grid[at] for at in (0, 6, 9, 10, 12, 13, 21, 22)]
    assert [float(lr) for lr in value_of("--lr", tuned)] == [grid[0], grid[2], grid[8], 3e-3, grid[10]]
    # As far apart as in the paper's 40000 iterations, the last one at the end.
    assert value_of("--spacing", averaged) == ["100"] and value_of("--keep", trained) == ["55100"]
    # 8000 networks, 60000 + 5 * 300 iterations and 4900 of SWA, which count half as much again; 8 microseconds; 2 processes.
    minutes = 8000 * (60000 + 1500 + 4900 * 1.5) * 8e-6 / 2 / 60
    plan = re.search(
        r"^8000 networks in 4 run folders, 60000 .* 300 .* 5 FLRs: about (\d+) minutes", output, re.MULTILINE
    )
    assert int(plan[1]) - 1 <= minutes <= int(plan[1])


def test_the_plan_of_the_papers_study(listed, tmp_path):
    output = run("bash", "scripts/synthetic.sh", str(tmp_path / FOLDER), **listed)
    assert re.search(r"^1150 networks in 1 run folders, 40000 .* 20000 .* 11 FLRs", output, re.MULTILINE)


def test_an_flr_that_is_the_plr_gives_equal_budgets(quick, tmp_path):
    out, long = tmp_path / FOLDER, tmp_path / "long"
    asked = {"PLRS": "1e-3 high", "SEEDS": "4", "DATA_SEEDS": "7 8 9", "TRAIN_FLAGS": "", "LEFT_OUT": "figures"}
    # Neither length is that of a pass over the training set, 32 iterations.
    lengths = {"PRETRAIN_STEPS": "50", "FINETUNE_STEPS": "25"}
    run("bash", "scripts/synthetic.sh", str(out), "--flr", "low", "1e-3", "high", **quick | asked | lengths)
    plrs, data_seeds = [1e-3, 10**-2.125], [7, 8, 9]
    same = ["--data", "ticks", "--seed", 4, "--data-seed", *data_seeds, "--steps", 75]
    assert call("train", *same, "--lr", *plrs, "--out", long) == 0
    trained_for_long = Run(long).weights()["weights"].view(3, 2, -1)
    study = Study(out)
    assert study.flrs() == [10**-4.5, *plrs]

    def weights(run, index):
        return run.weights()["weights"][index]

    for at, plr in enumerate(plrs):
        of_seeds, iterations = study.from_scratch(weights, plr)
        assert iterations == 75
        assert torch.equal(torch.stack(of_seeds), trained_for_long[:, at])
        assert len(study.by_plr("finetune", weights, 10**-4.5)[plr]) == 3


@pytest.mark.parametrize(
    "wrong", [{"PLRS": "1e-3 hihg"}, {"PLRS": "1e-2.x"}, {"DATA_SEEDS": "1-5"}, {"SEEDS": "1 x"}, {"SEEDS": "01"}]
)
def test_the_study_refuses_what_are_no_rates_or_seeds(wrong, listed, tmp_path):
    code, output = fails("bash", "scripts/synthetic.sh", str(tmp_path / "out"), **listed | wrong)
    assert code == 2 and output.startswith(f"{[*wrong][0]}: ") and len(output.splitlines()) == 1
    assert calls(listed) == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [("out", "1e-3"), ("--flr", "low"), ("out", "--flr", "low", "hihg"), ("--help",)]
)
def test_the_study_says_how_it_is_used(tmp_path, arguments):
    script = str(ROOT / "scripts/synthetic.sh")
    done = subprocess.run(["bash", script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: bash scripts/synthetic.sh")


def learning_rates(preset):
    return re.findall(r"[\d.]+(?:e-\d+)?", (ROOT / preset).read_text().split("--lr")[1])


def test_grids_of_the_synthetic_study():
    plrs, flrs = (learning_rates(f"scripts/{name}.args") for name in ("ticks", "ticks_flrs"))
    exponents = (
        [-4.5 + i / 4 for i in range(9)] + [-2.25 + i / 8 for i in range(8)] + [-1.25 + i / 4 for i in range(6)]
    )
    assert [float(lr) for lr in plrs] == [10**exponent for exponent in exponents]
    assert flrs == plrs[:11]  # the very numbers: training from scratch at an FLR is looked up among the PLRs


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "datasets/cifar10.pt"
    path.parent.mkdir()
    save_image_set(random_image_set(classes=10, train=24, test=20), path)
    return path


SHORT = {"EPOCHS": "30", "FINETUNE_EPOCHS": "4", "WINDOWS": "2 5", "PLRS": "3e-3 1e-2 3e-2 1e-1"}
SHORT |= {"FLRS": "3e-3 b12", "TWO_STAGES": "1e-1 3e-2", "DATA": "sets/tiny.pt"}


@pytest.fixture(scope="module")
def narrow(quick, tmp_path_factory):
    """A folder with an image set, sets/tiny.pt, and the runs of a short sweep on it, in `runs`.

    In 30 epochs 3e-3 and 1e-2 converge, 3e-2 and 1e-1 do not.
    """
    folder = tmp_path_factory.mktemp(FOLDER)
    (folder / "sets").mkdir()
    save_image_set(random_image_set(classes=3, train=64, test=6, side=8), folder / "sets/tiny.pt")
    run("bash", str(ROOT / "scripts/images.sh"), "narrow", "runs", folder=folder, **quick | SHORT)
    return folder


def complete(folder):
    paths = folder.rglob("metrics.json")
    return {str(path.parent.relative_to(folder)) for path in paths if Run(path.parent).complete}


def test_a_sweep_on_images_trains_fine_tunes_and_averages(narrow):
    plrs = SHORT["PLRS"].split()
    expected = {f"{stage}/plr{plr}" for stage in ("pretrain", "swa") for plr in plrs}
    expected |= {f"finetune/plr{plr}-flr{flr}" for plr in plrs for flr in ("3e-3", "1e-2")}  # b12 is 1e-2
    expected |= {"finetune/plr1e-1-flr3e-2"} | {f"finetune/plr1e-1-flr3e-2-flr{flr}" for flr in ("3e-3", "1e-2")}
    expected |= {f"finetune/plr{flr}-flr{flr}-flr{flr}" for flr in ("3e-3", "1e-2")}
    assert complete(narrow / "runs") == expected
    assert len(find_runs(narrow / "runs")) == len(expected)


def test_stages_of_a_sweep_on_images(narrow):
    pretrained = [Run(narrow / f"runs/pretrain/plr{plr}") for plr in SHORT["PLRS"].split()]
    assert [member["seed"] for run in pretrained for member in run.members] == [2000, 2001, 2002, 2003]
    for run in find_runs(narrow / "runs"):
        names = ("model", "width", "batch_size", "rho")
        assert [run.settings[name] for name in names] == ["si-convnet", 8, 64, 12]
        kind = run.config["stage"]
        assert run.last_step == {"pretrain": 30, "finetune": 4, "swa": 4}[kind]
        assert run.settings["log_every"] == {"pretrain": 2, "finetune": 1, "swa": 1}[kind]
        assert run.settings["keep_loss"] == ([] if kind == "swa" else [0.1, 0.3, 0.5, 1])
    study = Study(narrow / "runs")
    assert study.flrs() == [3e-3, 1e-2] and study.windows() == [2, 5]
    assert study.two_stage_lrs() == [(1e-1, 3e-2, 3e-3), (1e-1, 3e-2, 1e-2)]
    assert [len(study.from_scratch(final("test_accuracy"), flr)[0]) for flr in (3e-3, 1e-2)] == [1, 1]
    assert study.from_scratch(final("test_accuracy"), 1e-2)[1] == 30 + 4 + 4


def test_a_sweep_on_images_is_measured_and_drawn(narrow):
    for run in find_runs(narrow / "runs"):
        expected = {"config", "metrics"}
        if run.config["stage"] != "finetune" or run.members[0]["lrs"][1:] in ([3e-3], [1e-2]):  # no second stages
            expected |= {"bands-reestimate", "norms"}
            expected |= {f"sharpness-{name}" for name in ("loss-5e-1", "loss-3e-1") if run.has_weights(name)}
        expected |= {"geometry-flr3e-3-flr1e-2"} if run.config["stage"] == "pretrain" else set()
        assert {path.stem for path in run.path.glob("*.json")} - {"band-images"} == expected
    drawn = {path.stem for path in (narrow / "runs/figures").glob("*.pdf")}
    assert drawn >= {f"figure{number:02d}" for number in (1, 2, 3, 6, 7, 9, 12, 13, 26)}
    claims = json.loads((narrow / "runs/claims.json").read_text())
    assert claims["regimes"]["b12"] == {"last": 1e-2, "next": 3e-2}


def test_a_sweep_on_images_that_is_there_is_left_alone(quick, narrow):
    before, short = written(narrow / "runs"), SHORT | {"LEFT_OUT": "figures"}
    run("bash", str(ROOT / "scripts/images.sh"), "narrow", "runs", folder=narrow, **quick | short)
    assert written(narrow / "runs") == before


BOUNDARY = {
    "LRS": "3e-3",
    "SEEDS": "1 2",
    "RATIO": "1.5",
    "UNTIL_LOSS": "0.05",
    "EPOCHS": "40",
    "DATA": "sets/tiny.pt",
}


def test_sweeps_stop_where_b12_is_not_bracketed(quick, narrow, tmp_path):
    image_set = {"DATA": str(narrow / "sets/tiny.pt")}
    for script, short in (("images", SHORT | {"PLRS": "3e-3"}), ("boundary", BOUNDARY | {"SEEDS": "1"})):
        command = ["bash", f"scripts/{script}.sh", "narrow", str(tmp_path / "runs")]
        _, output = fails(*command, folder=ROOT, **quick | short | image_set)
        assert "do not bracket the boundary of regimes 1 and 2: " in output
        assert ("(or give numbers in place of b12: FLRS=...)" in output) == (script == "images")
    assert complete(tmp_path / "runs") == {"pretrain/plr3e-3", "converge/lr3e-3-seed1"}


def test_sweeps_stop_where_training_fails(quick, tmp_path):
    (tmp_path / "broken.pt").touch()
    for script in ("images", "boundary"):
        calls(quick)
        command, short = ["bash", f"scripts/{script}.sh", "narrow", str(tmp_path)], SHORT | BOUNDARY
        short |= {"PLRS": "1", "SEEDS": "1", "DATA": str(tmp_path / "broken.pt")}
        code, output = fails(*command, **quick | short)
        assert code == 123 and "broken.pt: is damaged or no file of this program" in output
        assert [words[0] for words in calls(quick)] == ["train.py"]


def test_a_stage_is_finished_where_a_command_fails(listed):
    code, _ = fails("bash", "scripts/images.sh", "s3", **listed | {"FAILING": "train.py*--lr 2e-5 *"})
    assert code == 123 and [words[0] for words in calls(listed)[1:]] == ["train.py"] * 13
    code, _ = fails("bash", "scripts/boundary.sh", "s1", **listed | {"FAILING": "train.py*--lr 1e-4 --seed 1 *"})
    assert code == 123 and [words[0] for words in calls(listed)[1:]] == ["train.py"] * 9


def test_boundary_stops_where_there_is_none_to_begin_at(listed):
    code, _ = fails("bash", "scripts/boundary.sh", "s3", **listed | {"FAILING": "analyze.py boundary*"})
    assert code == 2 and [words[:2] for words in calls(listed)[1:]] == [["analyze.py", "boundary"]]


def test_a_sweep_stops_where_sharpness_fails(listed):
    code, _ = fails("bash", "scripts/images.sh", "s3", **listed | {"FAILING": "analyze.py sharpness*"})
    assert code == 2 and calls(listed)[-1][:2] == ["analyze.py", "sharpness"]


def test_a_sweep_too_short_for_sharpness_is_drawn(quick, narrow, tmp_path):
    short = {
        "EPOCHS": "1",
        "FINETUNE_EPOCHS": "1",
        "WINDOWS": "5",
        "PLRS": "1e-4",
        "FLRS": "1e-4 2e-4",
        "TWO_STAGES": "",
    }
    image_set = {"DATA": str(narrow / "sets/tiny.pt")}
    run("bash", "scripts/images.sh", "narrow", str(tmp_path), **quick | short | image_set)
    assert not list(tmp_path.rglob("sharpness*.json"))
    assert (tmp_path / "figures/figure02.pdf").exists() and (tmp_path / "claims.json").exists()


def test_the_boundary_is_halved_until_it_is_close(quick, narrow, tmp_path):
    runs = shutil.copytree(narrow / "runs", tmp_path / FOLDER)
    calls(quick)
    command = ["bash", str(ROOT / "scripts/boundary.sh"), "narrow", str(runs)]
    run(*command, folder=narrow, **quick | BOUNDARY)
    trained = [words[words.index("--lr") + 1] for words in calls(quick) if words[0] == "train.py"]
    converged = {(run.members[0]["lrs"][0], run.members[0]["seed"]): run for run in find_runs(runs / "converge")}
    assert all(run.complete and run.settings["until_loss"] == 0.05 for run in converged.values())
    last, following, lrs = 1e-2, 3e-2, [3e-3]
    while following / last > 1.5:
        lrs.append(float(f"{(last * following) ** 0.5:.6g}"))
        converge = [converged[lrs[-1], seed].metrics["train_loss"][-1][0] < 0.05 for seed in (1, 2)]
        last, following = (lrs[-1], following) if any(converge) else (last, lrs[-1])
    assert len(lrs) == 3 and sorted(converged) == sorted((lr, seed) for lr in lrs for seed in (1, 2))
    assert [float(lr) for lr in trained] == [lr for lr in lrs for _ in (1, 2)]
    before = written(runs)
    run(*command, folder=narrow, **quick | BOUNDARY)
    assert written(runs) == before


USES = [(), ("",), ("--help",), ("narrow", "--help"), ("narrow", "out", "more")]


@pytest.mark.parametrize("script", ["images", "boundary"])
@pytest.mark.parametrize("arguments", USES)
def test_a_sweep_on_images_says_how_it_is_used(script, arguments, tmp_path):
    code, output = fails("bash", str(ROOT / f"scripts/{script}.sh"), *arguments, folder=tmp_path)
    assert code == 2 and output.startswith(f"usage: bash scripts/{script}.sh SETUP [OUT]")
    assert list(tmp_path.iterdir()) == []


def sweep(script, setup, index=0):
    """The command of a sweep, and what it needs in the environment."""
    if script == "sweep.slurm":
        return ["bash", str(ROOT / "scripts/sweep.slurm")], {"SETUP": setup, "SLURM_ARRAY_TASK_ID": str(index)}
    return ["bash", str(ROOT / "scripts" / script), setup], {}


SWEEPS = pytest.mark.parametrize("script", ["images.sh", "boundary.sh", "sweep.slurm"])


@SWEEPS
@pytest.mark.parametrize("setup", ["s10", "S1", "defaults", "no such/file.sh"])
def test_an_unknown_setup_is_refused(script, setup, listed, tmp_path):
    command, environment = sweep(script, setup)
    code, output = fails(*command, folder=tmp_path, **listed | environment)
    assert code == 2 and calls(listed) == []
    names = "convnet-small-more convnet-small narrow practical-small resnet-small s1 s2 s3 s4 s5 s6 s7 s8 s9 tiny-small vit-small"
    assert output == (
        f"there is no setup {setup}: give {names}, or a file of settings like those in scripts/setups\n"
    )


@SWEEPS
def test_a_missing_image_set_is_said_once(script, listed, tmp_path):
    command, environment = sweep(script, "s3")
    code, output = fails(*command, folder=tmp_path, **listed | environment | {"DATA": "no set.pt"})
    prepare = r"prepare it with: python -m data SET --out no\ set.pt (see python -m data --help)"
    assert code == 2 and output == f"there is no no set.pt; {prepare}\n"
    (tmp_path / "mine.sh").write_text(
        'source scripts/setups/s1.sh; data=no/such.pt prepare="python -m data such"\n'
    )
    command, environment = sweep(script, "mine.sh")
    code, output = fails(*command, folder=tmp_path, **listed | environment | {"DATA": ""})
    assert code == 2 and output == "there is no no/such.pt; prepare it with: python -m data such\n"
    assert calls(listed) == []


def test_another_image_set_than_the_setup_expects_is_refused(quick, tmp_path):
    image_set = random_image_set(classes=3, train=24, test=6, side=8)
    save_image_set(
        dataclasses.replace(image_set, made_from={"set": "folder", "source": "/x"}), tmp_path / "set.pt"
    )
    (tmp_path / "mine.sh").write_text(f"source scripts/setups/s3.sh; data={tmp_path}/set.pt\n")
    calls(quick)
    command = ["bash", str(ROOT / "scripts/images.sh"), "mine.sh"]
    code, output = fails(*command, folder=tmp_path, **quick | {"DATA": ""})
    assert code == 2 and output.count("\n") == 1 and calls(quick) == []
    assert f"{tmp_path}/set.pt was made with set folder, not cifar10" in output
    assert output.endswith(
        f"(mine expects what `python -m data cifar10` makes; to take this one say DATA={tmp_path}/set.pt)\n"
    )


@SWEEPS
@pytest.mark.parametrize("asked", [True, False])
def test_the_image_set_is_checked_unless_it_is_asked_for(script, asked, listed, tmp_path):
    (tmp_path / "mine.sh").write_text(f"source scripts/setups/s5.sh; data='{listed['DATA']}' converge_lrs=1e-3\n")
    command, environment = sweep(script, "mine.sh")
    run(*command, folder=tmp_path, **listed | environment | {"RATIO": "1.3"} | ({} if asked else {"DATA": ""}))
    made = [words for words in calls(listed) if words[:2] == ["-m", "data"]]
    source = ["tiny-imagenet", "--source", "tiny-imagenet-200", "--classes", "100"]
    assert made == ([] if asked else [["-m", "data", *source, "--out", listed["DATA"], "--check"]])


@SWEEPS
def test_a_setup_of_ones_own(script, listed, tmp_path):
    changes = 'plrs="1e-3 1e-2" first_seed=7 flrs=1e-5 epochs=3 finetune_epochs=4 windows=2'
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine.sh").write_text(f"source scripts/setups/s3.sh\n{changes} converge_lrs=1e-3\n")
    command, environment = sweep(script, f"{FOLDER}/mine.sh", index=1)
    run(*command, folder=tmp_path, **listed | environment | {"RATIO": "1.3"})
    made = [words for words in calls(listed) if words[0] in ("train.py", "swa.py", "finetune.py")]
    trained = [words for words in made if words[0] == "train.py"]
    flags = "--model si-convnet --width 32 --rho 12 --batch-size 128".split()
    assert all(words[1:9] == flags for words in trained)
    if script == "boundary.sh":
        outs = [f"runs/mine/converge/lr1e-3-seed{seed}" for seed in (1, 2, 3)]
        assert [value_of("--out", words) for words in made] == [[out] for out in outs]
        return
    plrs = {"images.sh": ["1e-3", "1e-2"], "sweep.slurm": ["1e-2"]}[script]
    assert [value_of("--lr", words) for words in trained] == [[plr] for plr in plrs]
    assert [value_of("--seed", words) for words in trained] == [["7"], ["8"]][-len(plrs) :]
    assert all(value_of("--steps", words) == ["3"] for words in trained)
    runs = [f"runs/mine/pretrain/plr{plr}" for plr in plrs]
    averaged, tuned = ([words for words in made if words[0] == name] for name in ("swa.py", "finetune.py"))
    as_usual = ["--anchor", "start", "--spacing", "1", "--out", "runs/mine/swa"]
    assert [words[1:] for words in averaged] == [[out, "--windows", "2", *as_usual] for out in runs]
    assert [words[1:6] for words in tuned] == [[out, "--lr", "1e-5", "--steps", "4"] for out in runs]


def made_by(script, settings, folder, listed, **changes):
    """The commands of a sweep of a setup of one's own, in runs/mine: s3 with some settings changed."""
    (folder / "mine.sh").write_text(f"source scripts/setups/s3.sh\n{settings}\n")
    command, environment = sweep(script, "mine.sh", changes.pop("index", 0))
    run(*command, folder=folder, **listed | environment | changes)
    return calls(listed)


@pytest.mark.parametrize(
    "flags, more, expected",
    [
        ("--width 8 --model nets/mine.py:net", "", ["nets/mine.py:net"]),
        ("--model=nets/mine.py:net", "--precision bf16", ["nets/mine.py:net"]),
        ("--model nets/mine.py:net", "--model nets/mine.py:wider", ["nets/mine.py:wider"]),
        ("--model nets/mine.py:net", "--model si-convnet", []),
        ("--model si-convnet", "", []),
    ],
)
@pytest.mark.parametrize("script", ["images.sh", "sweep.slurm"])
def test_the_stages_name_a_network_of_ones_own(script, flags, more, expected, listed, tmp_path):
    settings = f'flags="{flags}" plrs=1e-3 flrs="1e-5 1e-4" windows=2'
    made = made_by(script, settings, tmp_path, listed, TRAIN_FLAGS=more)
    loading = [words for words in made if words[0] in ("swa.py", "finetune.py")]
    loading += [words for words in made if words[1] in ("geometry", "bands", "norms", "sharpness")]
    assert len(loading) >= (6 if script == "images.sh" else 2)
    for words in loading:
        assert (value_of("--model", words) if "--model" in words else []) == expected


@pytest.mark.parametrize(
    "changes, kept",
    [
        ({}, 82),  # 100 - 9 * 2
        ({"EPOCHS": "60"}, 42),
        ({"WINDOWS": "20 3 5"}, 62),
        ({"WINDOWS": "3", "EPOCHS": "4"}, 0),
        ({"WINDOWS": "1"}, 100),
    ],
)
@pytest.mark.parametrize("script", ["images.sh", "sweep.slurm"])
def test_averages_that_end_with_a_run_have_it_keep_where_they_begin(script, changes, kept, listed, tmp_path):
    settings = 'epochs=100 windows="10 5" swa_anchor=end swa_spacing=2 plrs=1e-3'
    made = made_by(script, settings, tmp_path, listed, **changes)
    [train], [average] = ([words for words in made if words[0] == name] for name in ("train.py", "swa.py"))
    assert value_of("--keep", train) == [str(kept)]
    assert value_of("--windows", average) == changes.get("WINDOWS", "10 5").split()
    assert value_of("--anchor", average) == ["end"] and value_of("--spacing", average) == ["2"]
    assert value_of("--steps", train) == [changes.get("EPOCHS", "100")]


def test_averages_that_begin_with_the_end_of_a_run_need_nothing_kept(listed, tmp_path):
    made = made_by("images.sh", "swa_spacing=3 plrs=1e-3", tmp_path, listed)
    assert not any("--keep" in words for words in made)
    [average] = [words for words in made if words[0] == "swa.py"]
    assert value_of("--anchor", average) == ["start"] and value_of("--spacing", average) == ["3"]


def test_averages_longer_than_a_run_are_refused(listed, tmp_path):
    (tmp_path / "mine.sh").write_text("source scripts/setups/s3.sh; swa_anchor=end swa_spacing=2\n")
    changes = {"EPOCHS": "17", "WINDOWS": "10 5"}
    code, output = fails("bash", str(ROOT / "scripts/images.sh"), "mine.sh", folder=tmp_path, **listed | changes)
    assert code == 2 and calls(listed) == []
    expected = "17 epochs are too short for SWA of 10 weights 2 apart: give more EPOCHS or smaller WINDOWS\n"
    assert output == expected


TWICE = 'plrs="1e-3 1e-2" first_seed=7 seeds_per_plr=2 flrs="1e-5 1e-3" two_stages="1e-2 1e-3"'
NAMES = ["plr1e-3-seed7", "plr1e-2-seed8", "plr1e-3-seed9", "plr1e-2-seed10"]


def test_several_runs_at_every_learning_rate(listed, tmp_path):
    made = made_by("images.sh", TWICE, tmp_path, listed)
    trained, averaged, tuned = (
        [words for words in made if words[0] == name] for name in ("train.py", "swa.py", "finetune.py")
    )
    asked = [[value_of(flag, words)[0] for flag in ("--lr", "--seed", "--out")] for words in trained]
    assert asked == [
        ["1e-3", "7", "runs/mine/pretrain/plr1e-3-seed7"],
        ["1e-2", "8", "runs/mine/pretrain/plr1e-2-seed8"],
        ["1e-3", "9", "runs/mine/pretrain/plr1e-3-seed9"],
        ["1e-2", "10", "runs/mine/pretrain/plr1e-2-seed10"],
    ]
    assert [words[1] for words in averaged] == [f"runs/mine/pretrain/{name}" for name in NAMES]
    continued = [(words[1].removeprefix("runs/mine/"), value_of("--lr", words)) for words in tuned]
    assert continued[:4] == [(f"pretrain/{name}", ["1e-5", "1e-3"]) for name in NAMES]
    at_1e_3, at_1e_2 = NAMES[::2], NAMES[1::2]
    assert continued[4:6] == [(f"pretrain/{name}", ["1e-3"]) for name in at_1e_2]
    assert continued[6:] == [
        *((f"finetune/{name}-flr1e-3", ["1e-5"]) for name in at_1e_2),
        *((f"finetune/{name}-flr1e-3", ["1e-3"]) for name in at_1e_2),
        *((f"finetune/{name}-flr1e-3", ["1e-3"]) for name in at_1e_3),
    ]


def test_the_environment_says_how_many_runs_there_are(listed, tmp_path):
    made = made_by("images.sh", TWICE, tmp_path, listed, SEEDS_PER_PLR="3", TWO_STAGES="")
    seeds = [value_of("--seed", words)[0] for words in made if words[0] == "train.py"]
    assert seeds == [str(seed) for seed in range(7, 13)]
    made = made_by("images.sh", TWICE, tmp_path, listed, SEEDS_PER_PLR="1")
    outs = [value_of("--out", words) for words in made if words[0] == "train.py"]
    assert outs == [["runs/mine/pretrain/plr1e-3"], ["runs/mine/pretrain/plr1e-2"]]


def test_jobs_count_runs(listed, tmp_path):
    swept = made_by("images.sh", TWICE, tmp_path, listed)
    for index, name in enumerate(NAMES):
        made = made_by("sweep.slurm", TWICE, tmp_path, listed, index=index)
        assert [words[0] for words in made] == ["train.py", "swa.py", "finetune.py"]
        assert all(words in swept for words in made)
        assert value_of("--out", made[0]) == [f"runs/mine/pretrain/{name}"]
    command, environment = sweep("sweep.slurm", "mine.sh", 4)
    code, output = fails(*command, folder=tmp_path, **listed | environment)
    assert code == 2 and output.endswith("not the index of a run of mine: give --array=0-3\n")


def measured(made):
    """The measurements of a sweep, without its folder."""
    kinds = ("geometry", "bands", "norms", "sharpness")
    return [[words[1], *words[3:]] for words in made if words[0] == "analyze.py" and words[1] in kinds]


def test_measurements_that_do_not_apply_are_not_made(listed, tmp_path):
    made = made_by("images.sh", "norms= keep_losses= sharpness=", tmp_path, listed)
    assert measured(made) == [["geometry"], ["bands"]]
    assert not any("--keep-loss" in words or "" in words for words in made)
    tuned = [words for words in made if words[0] == "finetune.py"]
    assert tuned and not any("--log-every" in words for words in tuned)
    bands = "--low-ends 4 6"
    made = made_by("images.sh", f'bands="{bands}"', tmp_path, listed)
    assert measured(made) == [
        ["geometry"],
        ["bands", *bands.split()],
        ["norms"],
        ["sharpness", "--level", "1e-2", "1e-3"],
    ]
    for words in made:
        if words[0] in ("train.py", "finetune.py"):
            assert value_of("--keep-loss", words) == ["1e-2", "1e-3"]


def test_runs_of_several_seeds_with_averages_at_their_end(quick, narrow, tmp_path):
    settings = "swa_anchor=end swa_spacing=2 seeds_per_plr=2 keep_losses="
    (tmp_path / "mine.sh").write_text(f"source scripts/setups/narrow.sh; {settings}\n")
    short = {"EPOCHS": "12", "FINETUNE_EPOCHS": "2", "WINDOWS": "2 5", "PLRS": "1e-3", "FLRS": "1e-3"}
    short |= {"DATA": str(narrow / "sets/tiny.pt"), "OUT": str(tmp_path / "runs")}
    for index in (0, 1):
        command, environment = sweep("sweep.slurm", "mine.sh", index)
        run(*command, folder=tmp_path, **quick | short | environment)
    study = Study(tmp_path / "runs")
    assert len(study.at(final("test_accuracy"), [1e-3])) == len(study.at(final("test_accuracy"), [1e-3] * 2)) == 2
    averaged = study.of_stage("swa")
    assert len(averaged) == 2 and all(run.config["parent"]["step"] == 4 for run in averaged)
    for averaging in averaged:  # it passed epochs 4, 6, ..., 12 of the pre-training, whose end it reached
        weights, end = averaging.weights(), study.parent(averaging).weights()
        assert weights["step"] == 8 and torch.equal(weights["weights"], end["weights"])
    assert not list(tmp_path.rglob("loss-*.pt"))
    # With another PLR before it, or one seed alone, that PLR would get other seeds, and so be trained anew.
    for other in ({"PLRS": "1e-4 1e-3"}, {"SEEDS_PER_PLR": "1"}):
        command, environment = sweep("sweep.slurm", "mine.sh", 0)
        code, output = fails(*command, folder=tmp_path, **quick | short | environment | other)
        assert code == 2 and "is no run of this sweep, as PLRS or SEEDS_PER_PLR were others then" in output


# What the sweeps of the paper would do: network, width, radius, batch, image set, learning rates of both stages.

PAPER = {
    "s1": ("si-resnet18", 32, 28, 128, "cifar10", 25, [1e-5, 3e-4]),
    "s2": ("si-resnet18", 32, 28, 128, "cifar100", 15, [2e-5, 1e-4]),
    "s3": ("si-convnet", 32, 12, 128, "cifar10", 13, [1e-5, 5e-4]),
    "s4": ("si-convnet", 128, 12, 128, "cifar100", 15, [1e-5, 2e-4]),
    "s5": ("si-resnet18", 32, 28, 128, "tiny-imagenet", 13, [1e-5, 7e-4]),
    "s6": ("resnet18", 64, None, 128, "cifar10", 13, [1e-4, 2e-3]),
    "s7": ("resnet18", 64, None, 128, "cifar100", 12, [1e-4, 2e-3]),
    "s8": ("vit", 512, None, 512, "cifar10", 10, [1e-5, 1e-4]),
    "s9": ("vit", 512, None, 512, "cifar100", 10, [1e-5, 1e-4]),
}
PRACTICAL, VITS = ("s6", "s7", "s8", "s9"), ("s8", "s9")
FIRST_SEEDS = {"s1": 2003, "s8": 1, "s9": 1}


def by_hand(setup, listed):
    """The command of the single run that a setup's first lines show."""
    lines = (ROOT / f"scripts/setups/{setup}.sh").read_text().split("\n\n")[0].splitlines()
    commands = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    calls(listed)
    run("bash", "-euo", "pipefail", "-c", "\n".join(commands), **listed)
    (made,) = calls(listed)
    return made


def settings_in(words):
    """The arguments of a pre-training but for those that differ between the runs of a sweep, and the image set."""
    flags = {word: value_of(word, words) for word in words if word.startswith("--")}
    return {flag: values for flag, values in flags.items() if flag not in ("--lr", "--seed", "--out", "--data")}


@pytest.mark.parametrize("setup", PAPER)
def test_a_sweep_of_the_paper(setup, listed):
    run("bash", "scripts/images.sh", setup, **listed)
    made = calls(listed)
    *_, points, ends = PAPER[setup]
    pretrained = [words for words in made if words[0] == "train.py"]
    plrs = [float(*value_of("--lr", words)) for words in pretrained]
    assert len(plrs) == points and plrs == sorted(set(plrs))
    first = FIRST_SEEDS.get(setup, 2000)
    assert [int(*value_of("--seed", words)) for words in pretrained] == list(range(first, first + points))
    outs = [f"runs/{setup}/pretrain/plr{lr_name(plr)}" for plr in plrs]
    assert [value_of("--out", words) for words in pretrained] == [[out] for out in outs]
    epochs = ["500" if setup in VITS else "200"]
    assert all(value_of("--steps", words) == epochs for words in pretrained)
    in_common = settings_in(by_hand(setup, listed))
    assert all(settings_in(words) == in_common for words in pretrained)
    averaged = [words for words in made if words[0] == "swa.py"]
    windows = ["2", "5", "10"] if setup in VITS else ["2", "5", "10", "50", "100"]
    anchor = ["--anchor", "end", "--spacing", "2"] if setup in VITS else ["--anchor", "start", "--spacing", "1"]
    averaging = [[out, "--windows", *windows, *anchor, "--out", f"runs/{setup}/swa"] for out in outs]
    assert [words[1:] for words in averaged] == averaging
    assert in_common.get("--keep") == (["482"] if setup in VITS else None)
    tuned = [words for words in made if words[0] == "finetune.py"]
    assert all(value_of("--steps", words) == epochs for words in tuned)
    from_pretrained = [words for words in tuned if words[1] in outs][:points]
    assert [words[1] for words in from_pretrained] == outs
    flrs = [float(flr) for flr in value_of("--lr", from_pretrained[0])]
    assert [flrs[0], flrs[-1]] == ends and flrs == sorted(flrs)
    assert all(value_of("--lr", words) == value_of("--lr", from_pretrained[0]) for words in from_pretrained)
    assert (setup == "s5") == any(words[:2] == ["analyze.py", "boundary"] for words in made)
    bands = ["--low-ends", "4", "6", "8", "10", "12", "16"] if setup in VITS else []
    of_si_networks = [] if setup in PRACTICAL else [["norms"], ["sharpness", "--level", "1e-2", "1e-3"]]
    assert measured(made) == [["geometry"], ["bands", *bands], *of_si_networks]
    assert in_common.get("--keep-loss") == (None if setup in PRACTICAL else ["1e-2", "1e-3"])
    continued = [word for words in tuned[points:] for word in words if re.match(f"runs/{setup}/.*/", word)]
    second_stages = [(run, *value_of("--lr", words)) for run, words in zip(continued, tuned[points:], strict=True)]
    assert second_stages == (SECOND_STAGES if setup == "s1" else [])


SECOND_STAGES = [
    ("runs/s1/pretrain/plr1e-2", "1e-3"),
    ("runs/s1/finetune/plr1e-2-flr1e-3", "1e-5"),
    ("runs/s1/finetune/plr1e-5-flr1e-5", "1e-5"),
    ("runs/s1/finetune/plr1e-2-flr1e-3", "3e-4"),
    ("runs/s1/finetune/plr3e-4-flr3e-4", "3e-4"),
]


@pytest.mark.parametrize("script", ["images", "boundary"])
def test_another_image_set_and_folder(script, listed, tmp_path):
    (tmp_path / "here.pt").touch()
    changes = {"DATA": "here.pt", "TWO_STAGES": ""}
    run("bash", str(ROOT / f"scripts/{script}.sh"), "s3", "out", folder=tmp_path, **listed | changes)
    trained = [words for words in calls(listed) if words[0] == "train.py"]
    assert trained
    for words in trained:
        assert os.path.normpath(ROOT / value_of("--data", words)[0]) == str(tmp_path / "here.pt")
        assert os.path.normpath(ROOT / value_of("--out", words)[0]).startswith(str(tmp_path / "out/"))


def test_the_paper_trains_until_convergence(listed):
    run("bash", "scripts/boundary.sh", "s1", **listed | {"RATIO": "1.3"})
    trained = [words for words in calls(listed) if words[0] == "train.py"]
    in_common = settings_in(by_hand("s1", listed))
    asked = {(*value_of("--lr", words), *value_of("--seed", words)) for words in trained}
    assert asked == {(lr, seed) for lr in ("1e-4", "2e-4", "3e-4") for seed in "123"}
    for words in trained:
        assert [value_of("--until-loss", words), value_of("--steps", words)] == [["1e-4"], ["30000"]]
        assert settings_in(words) == in_common | {"--until-loss": ["1e-4"], "--steps": ["30000"]}


def test_other_setups_begin_at_the_end_of_regime_1(listed):
    run("bash", "scripts/boundary.sh", "s3", **listed | {"RATIO": "1.3"})
    trained = [words for words in calls(listed) if words[0] == "train.py"]
    assert [value_of("--lr", words) for words in trained] == [["7e-4"]] * 3


@pytest.mark.parametrize("setup", PAPER)
def test_the_networks_of_the_paper(setup, narrow, listed, tmp_path, monkeypatch):
    model, width, rho, batch, image_set, *_ = PAPER[setup]
    preset = ["train", *by_hand(setup, listed)[1:]]
    smaller = ["--data", narrow / "sets/tiny.pt", "--width", 8, "--steps", 1, "--batch-size", 8]
    smaller += ["--keep", 0] if "--keep" in preset else []
    assert call(*preset, *smaller, "--out", tmp_path / "run") == 0
    settings = Run(tmp_path / "run").settings
    expected = {"model": model, "rho": rho, "keep_loss": [] if setup in PRACTICAL else [1e-3, 1e-2]}
    expected |= {"augment": "randaugment" if setup in VITS else "crop-flip" if setup in PRACTICAL else "none"}
    expected |= {"log_every": 10 if setup in VITS else 1}
    assert {name: settings[name] for name in expected} == expected
    assert settings["optimizer"] == models.NETWORKS[model].optimizer
    parsed = []
    monkeypatch.setattr(train, "describe_images", lambda args, device: parsed.append(args))
    monkeypatch.setattr(train, "complete_run", lambda *arguments: None)
    assert call(*preset, "--out", tmp_path / "not made") == 0
    names = ("data", "model", "width", "rho", "batch_size", "steps")
    assert [getattr(parsed[0], name) for name in names] == [
        f"datasets/{image_set}.pt",
        model,
        width,
        rho,
        batch,
        500 if setup in VITS else 200,
    ]
    assert models.NETWORKS[model].rho == rho


def settings_of(setup, *names):
    """Settings of a setup: the values of shell variables."""
    lines = ["source scripts/defaults.sh", f"source scripts/setups/{setup}.sh"]
    lines += [f'printf "%s\\n" "${name}"' for name in names]
    return run("bash", "-euc", "\n".join(lines)).splitlines()


# {1, 2, 5} * 10^k between these: PLRs, FLRs (but for S5, whose high one is measured).
GRIDS = {
    "s2": ("1e-5", "5e-1", "2e-5", "1e-4"),
    "s3": ("1e-5", "1e-1", "1e-5", "5e-4"),
    "s4": ("1e-5", "5e-1", "1e-5", "2e-4"),
    "s6": ("1e-4", "1e0", "1e-4", "2e-3"),
    "s7": ("1e-4", "5e-1", "1e-4", "2e-3"),
    "s8": ("1e-5", "1e-2", "1e-5", "1e-4"),
    "s9": ("1e-5", "1e-2", "1e-5", "1e-4"),
}


@pytest.mark.parametrize("setup", GRIDS)
def test_grids_of_the_paper(setup):
    every = [f"{digit}e{exponent}" for exponent in range(-5, 1) for digit in (1, 2, 5)]
    first_plr, last_plr, first_flr, last_flr = (every.index(lr) for lr in GRIDS[setup])
    plrs, flrs = settings_of(setup, "plrs", "flrs")
    assert plrs.split() == every[first_plr : last_plr + 1] and flrs.split() == every[first_flr : last_flr + 1]


PRACTICAL_FLAGS = {
    "resnet18": "--momentum 0.9 --weight-decay 5e-4 --augment crop-flip",
    "vit": "--depth 6 --heads 8 --patch 4 --weight-decay 1e-4 --augment randaugment --log-every 10",
}


@pytest.mark.parametrize("setup", PRACTICAL)
def test_the_training_of_practical_networks(setup, listed):
    model, width, _, batch, *_ = PAPER[setup]
    made = settings_in(["train.py", *PRACTICAL_FLAGS[model].split()])
    made |= {"--model": [model], "--width": [str(width)], "--batch-size": [str(batch)]}
    made |= {"--steps": ["500"], "--keep": ["482"]} if setup in VITS else {"--steps": ["200"]}
    assert settings_in(by_hand(setup, listed)) == made


SMALL = ["narrow", "convnet-small", "resnet-small", "practical-small", "vit-small", "tiny-small"]
ACCURACY_ALONE = ("practical-small", "vit-small", "tiny-small")


@pytest.mark.parametrize("setup", SMALL)
def test_a_small_setup_trains_as_its_first_lines_say(setup, listed):
    run("bash", "scripts/images.sh", setup, **listed)
    made = calls(listed)
    trained = [words for words in made if words[0] == "train.py"]
    in_common = settings_in(by_hand(setup, listed))
    assert all(settings_in(words) == in_common for words in trained)
    plrs, seeds, epochs = settings_of(setup, "plrs", "seeds_per_plr", "epochs")
    assert len(trained) == len(plrs.split()) * int(seeds) and in_common["--steps"] == [epochs]
    norms, sharpness = (any(words[1] == name for words in made) for name in ("norms", "sharpness"))
    assert norms == sharpness == ("--keep-loss" in in_common) == (setup not in ACCURACY_ALONE)


@pytest.mark.parametrize("setup", [*PAPER, *SMALL])
def test_setups_say_how_their_image_set_is_prepared(setup):
    data, prepare = settings_of(setup, "data", "prepare")
    asked = shlex.split(prepare)
    assert asked[:3] == ["python", "-m", "data"]
    out = value_of("--out", asked) if "--out" in asked else [f"datasets/{asked[3]}.pt"]
    assert out == [data]


def test_the_narrow_setup():
    names = ("plrs", "flrs", "epochs", "finetune_epochs", "windows", "two_stages", "first_seed")
    assert settings_of("narrow", *names) == [
        "1e-4 2e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2 1e-1",
        "1e-4 5e-4 b12",
        "120",
        "60",
        "2 5 10",
        "1e-2 3e-3",
        "2000",
    ]
    names = ("data", "converge_lrs", "converge_loss", "converge_epochs", "converge_ratio", "sharpness")
    assert settings_of("narrow", *names) == [
        "datasets/cifar10-small.pt",
        "7e-4 1e-3 1.4e-3",
        "0.03",
        "240",
        "1.05",
        "--level 0.5 0.3 --images 512 --probes 8",
    ]


# The job array.


@pytest.mark.parametrize("setup", PAPER)
def test_a_job_trains_as_the_sweep_does(setup, listed, tmp_path):
    run("bash", "scripts/images.sh", setup, "out", folder=ROOT, **listed)
    swept = [words for words in calls(listed) if words[0] in ("train.py", "swa.py", "finetune.py")]
    run("bash", "scripts/sweep.slurm", **listed | {"SETUP": setup, "OUT": "out", "SLURM_ARRAY_TASK_ID": "6"})
    train, average, tune = calls(listed)
    assert train == [words for words in swept if words[0] == "train.py"][6]
    assert average in swept
    if setup == "s5":  # b12 is not known yet
        tune.insert(tune.index("--lr") + 2, "7e-4")
    assert tune in swept


def test_the_job_array_is_that_of_s3(listed):
    indices = re.search(
        r"^#SBATCH --array=0-(\d+)$", (ROOT / "scripts/sweep.slurm").read_text(), flags=re.MULTILINE
    )
    run("bash", "scripts/sweep.slurm", **listed | {"SLURM_ARRAY_TASK_ID": indices[1]})
    train = calls(listed)[0]
    assert [value_of(flag, train) for flag in ("--lr", "--seed", "--out")] == [
        ["1e-1"],
        ["2012"],
        ["runs/s3/pretrain/plr1e-1"],
    ]


@pytest.mark.parametrize("index", ["13", "-1", "08", "1x", ""])
def test_a_job_without_a_learning_rate_is_refused(index, listed):
    code, output = fails("bash", "scripts/sweep.slurm", **listed | {"SLURM_ARRAY_TASK_ID": index})
    assert code == 2 and calls(listed) == []
    assert output == f"SLURM_ARRAY_TASK_ID is '{index}', not the index of a run of s3: give --array=0-12\n"


def test_a_job_submitted_from_elsewhere_is_refused(listed, tmp_path):
    code, output = fails("bash", "scripts/sweep.slurm", **listed | {"SLURM_SUBMIT_DIR": str(tmp_path)})
    assert code == 2 and calls(listed) == []
    assert output == f"there is no {tmp_path}/scripts/stages.sh: submit from the repository's root\n"


def test_a_job_skips_b12(listed):
    environment = {"SETUP": "s5", "SLURM_ARRAY_TASK_ID": "0"}
    output = run("bash", "scripts/sweep.slurm", **listed | environment)
    assert output == "FLR b12 is skipped until all PLRs are there: bash scripts/images.sh s5 runs/s5 adds it\n"
    calls(listed)
    run("bash", "scripts/sweep.slurm", **listed | environment | {"FLRS": "b12"})
    assert [words[0] for words in calls(listed)] == ["train.py", "swa.py"]


def test_a_job_leaves_what_the_sweep_made_alone(quick, narrow):
    before = written(narrow / "runs")
    job = {"SETUP": "narrow", "OUT": "runs", "SLURM_ARRAY_TASK_ID": "3", "SLURM_SUBMIT_DIR": str(ROOT)}
    calls(quick)
    run("bash", str(ROOT / "scripts/sweep.slurm"), folder=narrow, **quick | SHORT | job)
    assert [words[0] for words in calls(quick)] == ["train.py", "swa.py", "finetune.py"]
    assert written(narrow / "runs") == before


def manual_block(index, changes, folder):
    """A block of commands in the manual, made shorter, and a folder to run it in."""
    block = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[index]
    for asked, shorter in changes:
        assert asked in block
        block = block.replace(asked, shorter)
    for name in ("train.py", "finetune.py", "swa.py", "analyze.py"):
        (folder / name).symlink_to(ROOT / name)
    return block


def test_the_sweep_of_the_manual_gives_its_figures(quick, image_file, tmp_path):
    shorter = [
        ("python -m data cifar10\n", "ls datasets/cifar10.pt\n"),  # would download
        ("1e-4 1e-3 1e-2", "1e-4 1e-2"),
        ("--model si-convnet", "--model si-convnet --width 2"),
        ("--steps 200", "--steps 1"),
    ]
    sweep = manual_block(0, shorter, tmp_path)
    run("bash", "-euo", "pipefail", "-c", sweep, folder=tmp_path, **quick)
    assert {path.name for path in (tmp_path / "figures/cifar10").iterdir()} == {
        f"figure{number}.{kind}" for number in ("01", "02") for kind in ("pdf", "png", "json")
    }


def test_the_loop_of_the_manual_trains_side_by_side(image_file, tmp_path):
    shorter = [
        ("1e-4 1e-3 1e-2 1e-1", "1e-4 1e-2"),
        ("--model si-convnet", "--model si-convnet --width 2"),
        ("--steps 200", "--steps 1"),
    ]
    run("bash", "-euo", "pipefail", "-c", manual_block(1, shorter, tmp_path), folder=tmp_path)
    runs = (tmp_path / "runs/cifar10/pretrain").iterdir()
    assert sorted(path.name for path in runs if '"complete"' in (path / "metrics.json").read_text()) == [
        "plr1e-2",
        "plr1e-4",
    ]


@pytest.mark.slow
def test_a_minute_of_kills_changes_no_byte(tmp_path):
    """scripts/stress.sh kills every command of a sweep until it is done, and compares with one that nobody killed."""
    lines = run("bash", "scripts/stress.sh", "1", tmp_path / "out", VIRTUAL_ENV=sys.prefix).splitlines()
    assert lines and all(re.fullmatch(r"\d+ kills in \d+ sweeps: not a byte differs", line) for line in lines)
