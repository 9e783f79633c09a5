"""analyze.py on run folders written by hand, whose boundaries and statistics are known."""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import analyze
from data import runs, ticks
from data.analysis import drawing, regimes, series
from data.analysis.axes import STYLE
from data.analysis.criteria import NotMeasurable
from data.analysis.evidence import Evidence
from data.analysis.explanations import boundary_lines, convergence_bracket
from data.analysis.figures import FIGURES
from data.analysis.regimes import convergence_level, measure_regimes
from data.analysis.study import LENGTHS, Study, at_convergence, final
from data.commandline import BadInput, lr_name
from data.files import read_json, read_tensors, write_json, write_tensors
from data.runs import Run, geometry_name, metrics_until
from data.seeds import generator
from models import mlp

PLRS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
EPOCHS = 20
IMAGES = {
    "data": "toy",
    "digest": "0",
    "classes": 10,
    "model": "si-convnet",
    "width": 8,
    "batch_size": 128,
    "rho": 12.0,
    "first_step": 0,
}
TICKS = {"data": "ticks", "classes": 2, "model": "si-mlp", "batch_size": 16, "rho": 1.0, "first_step": 0}


def write_run(path, stage, members, settings, final_step=None, status="complete", swa=None, parent=None, **series):
    """A run folder; each series is a list over members of numbers (constant in time) or of lists over time."""
    path.mkdir(parents=True)
    origin = parent and {"run": os.path.relpath(parent, path), "step": EPOCHS}
    final_step = settings.get("steps", EPOCHS) if final_step is None else final_step
    lengths = {"steps": final_step if status == "complete" else EPOCHS, "log_every": 1, "keep": []}
    lengths |= {"spacing": 1, "anchor": "start"} if stage == "swa" else {}
    lengths |= {"steps": 10**5} if settings.get("until_loss") else {}
    data_file = "toy.pt" if "digest" in settings else None
    if "digest" not in settings:
        members = [{"data_seed": 1} | member for member in members]
    members = [{key: value for key, value in member.items() if value is not None} for member in members]
    settings = lengths | settings
    config = {"stage": stage, "members": members, "settings": settings, "parent": origin, "data_file": data_file}
    steps = list(range(final_step + 1))
    if swa:
        unknown = [[None] * len(members) for _ in swa["window"]]
        swa = dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "test_accuracy"), unknown) | swa
    metrics = {"status": status, "unit": "epoch", "diverged_at": [None] * len(members), "step": steps}
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        columns = [c if isinstance(c, list) else [c] * len(steps) for c in series.get(name, [0.0] * len(members))]
        metrics[name] = [list(row) for row in zip(*columns)]
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.json").write_text(json.dumps(metrics | ({"swa": swa} if swa else {})))


def whole(name, content):
    """A measurement as it is on disk, of which `content` has what a test is about."""
    unknown = [None] * len(next(iter(content.values())))
    sharpness = ("gradient_norm", "largest_eigenvalue", "residual", "trace", "trace_error")
    accuracies = ("train_loss", "train_accuracy", "test_accuracy")
    rest = {
        "geometry": {"low_flr": 1e-4, "high_flr": 1e-3, "window": 5}
        | {name: {} for name in ("angle", "train_barrier", "test_barrier")},
        "bands": {"solution": "checkpoint", "normalisation": "keep", "limits": {}},
        "low": {"solution": "checkpoint", "normalisation": "keep", "limits": {}},
        "sharpness": {"images": 1, "most": 1, "probes": 2, "step": [0] * len(unknown)}
        | dict.fromkeys((*sharpness, *accuracies), unknown),
    }
    return rest.get(name.split("-")[0], {}) | content


def write_study(
    folder, settings=IMAGES, train=(1, 1, 0.8, 0.5, 0.1), test=(0.5, 0.6, 0.4, 0.2, 0.105), loss=(0, 0, 1, 2, 9)
):
    """One pre-training per PLR, whose initial train loss is 10, fine-tuned at two FLRs."""
    for i, plr in enumerate(PLRS):
        member = {"lrs": [plr], "seed": 1}
        series = {
            "train_accuracy": [train[i]],
            "test_accuracy": [test[i]],
            "train_loss": [[10] + [loss[i]] * EPOCHS],
        }
        write_run(folder / f"pretrain/{plr}", "pretrain", [member], settings, **series)
    for flr, accuracies in ((1e-5, (0.5, 0.6, 0.65, 0.61, 0.3)), (1e-4, (0.58, 0.6, 0.655, 0.63, 0.4))):
        for plr, accuracy in zip(PLRS, accuracies):
            member = {"lrs": [plr, flr], "seed": 1}
            write_run(folder / f"finetune/{plr}-{flr}", "finetune", [member], settings, test_accuracy=[accuracy])
    for plr, accuracy in zip(PLRS, (0.5, 0.6, 0.62, 0.4, 0.1)):
        swa = {"window": [2, 5], "test_accuracy": [[accuracy], [accuracy + 0.01]]}
        name = f"swa/{plr}"
        write_run(folder / name, "swa", [{"lrs": [plr], "seed": 1}], settings | {"windows": [2, 5]}, swa=swa)


def set_network(folder, **facts):
    """Say something of the network of all runs, beside what runs tell that were made before runs said so."""
    for path in folder.rglob("config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"network": facts}))


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["analyze.py", *map(str, arguments)])
    analyze.main()


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "runs")
    return tmp_path / "runs"


# Regimes


def test_boundaries_lie_between_the_neighbours_that_differ(study):
    # 1e-4 and 1e-3 converge; 1e-2 gives 65 and 65.5 %, above regime 1's 60 %; at 1e-1 the FLRs differ by 2 pp; 1 is at chance.
    assert measure_regimes(Study(study)) == {
        "b12": {"last": 1e-3, "next": 1e-2},
        "b2AB": {"last": 1e-2, "next": 1e-1},
        "b23": {"last": 1e-1, "next": 1.0},
    }


@pytest.mark.parametrize(
    "changes, absent",
    [
        ({"train": (1, 1, 1, 1, 1)}, {"b12", "b2AB"}),  # all converge
        ({"train": (0.9, 0.9, 0.8, 0.5, 0.1)}, {"b12", "b2AB"}),  # none does
        ({"test": (0.5, 0.6, 0.4, 0.2, 0.12)}, {"b23"}),  # none is at chance
        ({"loss": (0, 0, 1, 2, 4)}, {"b23"}),  # accuracy at chance, yet the loss has fallen
        ({"test": (0.1, 0.1, 0.1, 0.1, 0.1), "loss": (9, 9, 9, 9, 9)}, {"b23"}),  # all are at chance
    ],
)
def test_boundaries_that_the_grid_does_not_bracket_are_absent(tmp_path, changes, absent):
    write_study(tmp_path / "runs", **changes)
    found = measure_regimes(Study(tmp_path / "runs"))
    assert {name for name, boundary in found.items() if boundary is None} == absent


def test_a_slow_small_plr_does_not_move_b12(tmp_path):
    write_study(tmp_path / "runs", train=(0.95, 1, 0.8, 0.5, 0.1))
    assert measure_regimes(Study(tmp_path / "runs"))["b12"] == {"last": 1e-3, "next": 1e-2}


def test_convergence_is_judged_over_the_last_tenth(tmp_path):
    runs = tmp_path / "runs"
    write_study(runs)
    for late, expected in (([1.0, 1.0], True), ([1.0, 0.99], False)):
        path = runs / f"late{expected}"
        member = {"lrs": [5e-3], "seed": 1}
        loss = [[10] + [1] * EPOCHS]
        series = {"train_accuracy": [[0.5] * (EPOCHS - 1) + late], "train_loss": loss, "test_accuracy": [0.4]}
        write_run(path, "pretrain", [member], IMAGES, **series)
        b12 = measure_regimes(Study(runs))["b12"]
        assert (b12["last"] == 5e-3) is expected
        (path / "config.json").unlink()


def test_half_of_the_runs_must_converge(tmp_path):
    for converged, expected in ((1, None), (2, 1e-3)):
        members = [{"lrs": [plr], "seed": seed} for plr in (1e-3, 1e-2) for seed in range(4)]
        accuracy = [1.0] * converged + [0.9] * (4 - converged) + [0.5] * 4
        folder = tmp_path / str(converged)
        series = {"train_accuracy": accuracy, "test_accuracy": [0.5] * 8, "train_loss": [[10] + [0] * EPOCHS] * 8}
        write_run(folder / "a", "pretrain", members, IMAGES, **series)
        b12 = measure_regimes(Study(folder))["b12"]
        assert (b12 and b12["last"]) == expected


# Networks that reach no train accuracy at which they would have converged, and ones that do not diverge


@pytest.mark.parametrize(
    "loss, last",
    [
        ((3, 2, 1, 2, 9), 1e-2),
        ((3, 1, 2, 0.5, 9), 1e-1),  # whatever lies below it
        ((3, 1, 1, 2, 9), 1e-3),
        ((3, 1, 2, 1.5, 9), 1e-3),
        ((3, 2, None, 4, 9), 1e-3),  # not finite
        ((None, 2, 1, 3, 9), 1e-2),
        ((5, 4, 3, 2, 1), None),  # a larger PLR may be faster
        ((1, 2, 3, 4, 5), None),  # a smaller one may be
        ((None,) * 5, None),
    ],
)
def test_without_an_accuracy_of_convergence_regime_1_ends_at_the_lowest_train_loss(
    tmp_path, monkeypatch, capsys, loss, last
):
    write_study(tmp_path / "runs", train=(0.9, 1, 0.8, 0.5, 0.1), loss=loss)
    set_network(tmp_path / "runs", converged=None)
    study = Study(tmp_path / "runs")
    found = measure_regimes(study)["b12"]
    if last is None:
        assert found is None
        side = "larger" if loss[0] == 5 else "smaller"
        with pytest.raises(BadInput, match=f"add {side} learning rates"):
            convergence_bracket(study, refined=False)
        return
    above = PLRS[PLRS.index(last) + 1]
    assert found == {"last": last, "next": above}
    assert regimes.converging_plrs(study) == [plr for plr in PLRS if plr <= last]
    assert {run.members[0]["lrs"][0]: regimes.converges(study, run, 0) for run in study.of_stage("pretrain")} == {
        plr: plr <= last for plr in PLRS
    }
    command(monkeypatch, "boundary", tmp_path / "runs")
    assert capsys.readouterr().out == f"{lr_name(last)} {lr_name(above)}\n"


@pytest.mark.parametrize("of_middle, fastest", [((0.5, None), 1e-2), ((0.5, None, None), 1e-1)])
def test_a_diverged_run_never_converges_and_half_of_the_runs_of_a_plr_tell_its_loss(tmp_path, of_middle, fastest):
    of_plrs = {1e-3: (1,), 1e-2: of_middle, 1e-1: (0.9,), 1.0: (5,)}
    members = [{"lrs": [plr], "seed": seed} for plr, losses in of_plrs.items() for seed in range(len(losses))]
    losses = [loss for of_plr in of_plrs.values() for loss in of_plr]
    series = {"train_loss": [[3] * 10 + [loss] * 11 for loss in losses], "test_accuracy": [0.5] * len(members)}
    write_run(tmp_path / "a", "pretrain", members, IMAGES, **series)
    metrics = json.loads((tmp_path / "a/metrics.json").read_text())
    metrics["diverged_at"] = [12 if loss is None else None for loss in losses]
    (tmp_path / "a/metrics.json").write_text(json.dumps(metrics))
    set_network(tmp_path, converged=None)
    study = Study(tmp_path)
    assert regimes.fastest_plr(study) == fastest
    converging = [regimes.converges(study, study.runs[0], index) for index in range(len(members))]
    assert converging == [
        loss is not None and member["lrs"][0] <= fastest for loss, member in zip(losses, members)
    ]


def test_what_continues_a_diverged_run_may_begin_where_that_stopped(tmp_path):
    write_study(tmp_path)
    stopped = tmp_path / "pretrain/1.0"
    for folder in [*tmp_path.glob("finetune/1.0-*"), tmp_path / "swa/1.0"]:
        config = json.loads((folder / "config.json").read_text())
        config["settings"]["first_step"] = 3
        config["parent"] = {"run": os.path.relpath(stopped, folder), "step": 3}
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="first step .*, first step"):
        Study(tmp_path)
    metrics = json.loads((stopped / "metrics.json").read_text()) | {"diverged_at": [3]}
    (stopped / "metrics.json").write_text(json.dumps(metrics))
    assert len(Study(tmp_path).of_stage("finetune")) == 2 * len(PLRS)


def test_that_train_loss_is_a_mean_over_runs_and_the_last_tenth(tmp_path):
    late = {1e-3: [(2.5, 2.5)] * 2, 1e-2: [(0.5, 1.5), (3, 3)], 1e-1: [(1.8, 2.0), (2.0, 1.8)], 1.0: [(5, 5)] * 2}
    members = [{"lrs": [plr], "seed": seed} for plr in late for seed in (0, 1)]
    losses = [[10] + [0.1 if plr == 1e-2 else 7] * 18 + list(of_seed) for plr in late for of_seed in late[plr]]
    write_run(tmp_path / "a", "pretrain", members, IMAGES, train_loss=losses, test_accuracy=[0.5] * 8)
    set_network(tmp_path, converged=None)
    assert measure_regimes(Study(tmp_path))["b12"].items() >= {"last": 1e-1, "next": 1.0}.items()


def test_regime_2_of_a_network_that_does_not_diverge_has_no_end(tmp_path, monkeypatch, capsys):
    study = tmp_path / "runs"
    write_study(study, loss=(0.1, 0.1, 1, 2, 9))
    set_network(study, diverges=False)
    assert measure_regimes(Study(study)) == {
        "b12": {"last": 1e-3, "next": 1e-2},
        "b2AB": {"last": 1e-2, "next": 1e-1},
        "b23": None,
    }
    evidence = Evidence(Study(study))
    assert {name: evidence.regime(name) for name in ("1", "2", "2A", "2B")} == {
        "1": [1e-4, 1e-3],
        "2": [1e-2, 1e-1, 1.0],
        "2A": [1e-2],
        "2B": [1e-1, 1.0],
    }
    with pytest.raises(NotMeasurable, match="regime 3: this network has none"):
        evidence.regime("3")
    command(monkeypatch, "claims", study)
    assert capsys.readouterr().out.splitlines()[:3] == [
        "boundary 1|2: between 0.001 and 0.01 (single runs)",
        "boundary 2A|2B: between 0.01 and 0.1 (single runs)",
        "boundary 2|3: none, as this network does not diverge",
    ]


def write_repeats(folder, data_seeds=(None,)):
    """Two runs at three PLRs, which converge at the first and, one of them, at the second one."""
    repeats = [(seed, data_seed) for seed, data_seed in zip((1, 2), 2 * list(data_seeds))]
    members = [{"lrs": [plr], "seed": seed, "data_seed": data} for plr in PLRS[:3] for seed, data in repeats]
    late = [1, 1, 1, 0.9, 0.5, 0.5]
    settings = IMAGES if data_seeds == (None,) else TICKS
    loss = [[10] + [1] * EPOCHS] * 6
    write_run(folder, "pretrain", members, settings, train_accuracy=late, test_accuracy=[0.6] * 6, train_loss=loss)


@pytest.mark.parametrize("data_seeds, units", [((None,), "runs"), ((1,), "runs"), ((1, 2), "data seeds")])
def test_repeats_tell_how_sure_a_boundary_is(tmp_path, monkeypatch, capsys, data_seeds, units):
    write_repeats(tmp_path / "runs/a", data_seeds)
    b12 = measure_regimes(Study(tmp_path / "runs"))["b12"]
    share = b12["shares"][PLRS[1]]
    assert (b12["last"], b12["next"], b12["range"]) == (PLRS[1], PLRS[2], [PLRS[0], PLRS[2]])
    assert b12["shares"] == pytest.approx({PLRS[0]: 1 - share, PLRS[1]: share}) and 0.7 < share < 0.8
    line = f"boundary 1|2: between 0.001 and 0.01 (in {100 * share:.0f} % of 1000 resamples of {units})"
    command(monkeypatch, "claims", tmp_path / "runs", "--json", tmp_path / "claims.json")
    assert capsys.readouterr().out.splitlines()[0] == line
    written = json.loads((tmp_path / "claims.json").read_text())["regimes"]["b12"]
    assert {float(plr): of_plr for plr, of_plr in written["shares"].items()} == b12["shares"]
    number = 2 if data_seeds == (None,) else 15
    command(monkeypatch, "figures", tmp_path / "runs", "--only", number, "--out", tmp_path)
    assert capsys.readouterr().out.splitlines()[0].endswith(line)
    numbers = json.loads((tmp_path / f"figure{number:02d}.json").read_text())
    assert numbers["regimes"]["b12"] == written
    with plt.rc_context(STYLE):
        [axes] = drawing.draw_accuracy_panels(numbers).axes
    [band] = axes.patches
    x = band.get_patch_transform().transform(band.get_path().vertices)[:, 0]  # a polygon in older matplotlib
    assert [x.min(), x.max()] == pytest.approx(b12["range"])
    assert band.get_alpha() <= 0.1 and band.get_zorder() <= 0


def test_the_number_of_test_samples_is_told_by_accuracies(tmp_path):
    write_study(tmp_path / "few")
    assert regimes.number_of_test_samples(Study(tmp_path / "few")) is None
    accuracies = [round(correct / 500, 7) for correct in (*range(1, 20), 250)]
    for name, last, expected in (("enough", [0.501996], None), ("logged", [0.502], 500)):
        series = {"test_accuracy": [accuracies + last], "train_loss": [[10] + [1] * EPOCHS]}
        write_run(tmp_path / name / "a", "pretrain", [{"lrs": [1], "seed": 1}], IMAGES, **series)
        assert regimes.number_of_test_samples(Study(tmp_path / name)) == expected
    write_repeats(tmp_path / "ticks/a", (1,))
    assert regimes.number_of_test_samples(Study(tmp_path / "ticks")) == ticks.TEST_SIZE


def test_a_boundary_that_the_grid_does_not_bracket_is_said_to_be_there(tmp_path):
    write_study(tmp_path, test=(0.5, 0.6, 0.4, 0.2, 0.12))
    assert boundary_lines(Study(tmp_path))[-1] == (
        "boundary 2|3: not bracketed by these runs: the largest PLR, 1e0, is not at chance; add larger learning rates"
    )


# Runs that train until they converge


def write_convergence(folder, lr, losses, seed=1, until_loss=0.05):
    """A run with these train losses that was to stop below one; its test accuracy grows by 1 % at every epoch."""
    member, accuracy = {"lrs": [lr], "seed": seed}, [(30 + epoch) / 100 for epoch in range(len(losses))]
    series = {"train_loss": [losses], "test_accuracy": [accuracy], "final_step": len(losses) - 1}
    settings = IMAGES | {"until_loss": until_loss}
    write_run(folder / f"converge/{lr}-{seed}", "pretrain", [member], settings, **series)


def test_runs_that_stop_at_a_loss_are_no_pre_trainings(study):
    before = Study(study)
    write_convergence(study, 1e-3, [10, 1, 0.04])  # a PLR of the grid, and its seed
    write_convergence(study, 5e-3, [10, 1, 0.5, 0.2, 0.04])  # another length
    after = Study(study)
    for study_now in (before, after):
        assert list(study_now.by_plr("pretrain", final("test_accuracy"))) == PLRS
    refined = measure_regimes(before) | {"b12": {"last": 5e-3, "next": 1e-2}}
    assert measure_regimes(after) == refined != measure_regimes(before)
    assert after.by_plr("converge", final("test_accuracy")) == {1e-3: [0.32], 5e-3: [0.34]}
    assert [len(after.of_stage(stage)) for stage in ("pretrain", "converge", "finetune", "swa")] == [5, 2, 10, 5]
    config = study / "converge/0.001-1/config.json"
    config.write_text(config.read_text().replace('"steps": 2', '"steps": 900'))  # the most it may take
    assert Study(study).by_plr("converge", final("test_accuracy")) == {1e-3: [0.32], 5e-3: [0.34]}
    write_convergence(study, 6e-3, [10, 0.04], until_loss=0.06)
    with pytest.raises(
        BadInput, match="until loss 0.06, and the .*, until loss 0.05|until loss 0.05, and the .*, until loss 0.06"
    ):
        Study(study)


@pytest.mark.parametrize(
    "converged, refined",
    [
        ({}, (1e-3, 1e-2)),
        ({3e-3: [True]}, (3e-3, 1e-2)),
        ({3e-3: [False]}, (1e-3, 3e-3)),
        ({3e-3: [True, False]}, (3e-3, 1e-2)),  # half of the seeds is enough
        ({3e-3: [True, False, False]}, (1e-3, 3e-3)),
        ({2e-3: [True], 3e-3: [True], 5e-3: [False], 7e-3: [False]}, (3e-3, 5e-3)),
        ({3e-3: [False], 5e-3: [True]}, (5e-3, 1e-2)),
        ({5e-4: [False], 1e-3: [False]}, (1e-3, 1e-2)),  # what the grid says is not undone
        ({1e-2: [True], 3e-2: [False]}, (1e-2, 3e-2)),
        ({3e-2: [True]}, (3e-2, 1e-1)),
    ],
)
def test_the_bracket_of_convergence(study, monkeypatch, capsys, converged, refined):
    for lr, of_seeds in converged.items():
        for seed, reached in enumerate(of_seeds):
            write_convergence(study, lr, [10, 1, 0.049 if reached else 0.05], seed)
    assert convergence_bracket(Study(study), refined=True) == refined
    command(monkeypatch, "boundary", study)
    command(monkeypatch, "boundary", study, "--grid")
    assert capsys.readouterr().out == f"{lr_name(refined[0])} {lr_name(refined[1])}\n1e-3 1e-2\n"


def test_the_bracket_needs_a_learning_rate_above_it(study):
    write_convergence(study, 2.0, [10, 1, 0.04])
    with pytest.raises(BadInput, match="the largest learning rate, 2e0, converges; add larger learning rates"):
        convergence_bracket(Study(study), refined=True)
    assert convergence_bracket(Study(study), refined=False) == (1e-3, 1e-2)


@pytest.mark.parametrize(
    "until_loss, level, losses, step, accuracy",
    [
        (1e-4, 1e-2, [9, 0.1, 0.01, 0.009, 0.00009], 15, 0.3),
        (0.05, 0.05, [9, 0.05, 0.049], 10, 0.2),
        (0.05, 0.05, [9, 0.049, 0.06, 0.04], 5, 0.1),
        (0.05, 0.05, [9, 0.2, 0.06], None, None),
        (0.05, 0.05, [9, None], None, None),
        (20, 20, [9], 0, 0.0),
    ],
)
def test_where_a_run_has_converged(until_loss, level, losses, step, accuracy):
    metrics = {"step": [5 * n for n in range(len(losses))], "train_loss": [[loss] for loss in losses]}
    metrics["test_accuracy"] = [[n / 10] for n in range(len(losses))]
    of_loss = SimpleNamespace(metrics=metrics, settings={"until_loss": until_loss})
    assert convergence_level(of_loss) == level
    assert at_convergence("step")(of_loss, 0) == step
    assert at_convergence("test_accuracy")(of_loss, 0) == accuracy


# Pre-training in two stages


@pytest.fixture
def staged(tmp_path):
    """{learning rates of its stages: test accuracy} of two seeds each, and the folder of the runs."""
    every_lrs = [(1e-4,), (1e-2,), (0.1,), (1e-4, 1e-4), (1e-2, 1e-4), (0.1, 1e-4), (0.1, 1e-2)]
    every_lrs += [(0.1, 1e-2, 1e-4), (1e-4, 1e-4, 1e-4)]
    accuracies = {lrs: [0.5 + number / 100, 0.8] for number, lrs in enumerate(every_lrs)}
    for lrs, of_seeds in accuracies.items():
        stage, settings = "finetune" if len(lrs) > 1 else "pretrain", {"first_step": 30 * (len(lrs) - 1)}
        members = [{"lrs": list(lrs), "seed": seed} for seed in (1, 2)]
        path = tmp_path / "-".join(map(str, lrs))
        write_run(path, stage, members, IMAGES | settings, test_accuracy=of_seeds)
    return tmp_path, accuracies


def test_second_stages_of_pre_training_are_no_fine_tunings(staged):
    folder, _ = staged
    assert Study(folder).flrs() == [1e-4]  # 1e-2 is a second stage; training on at 1e-4 is none
    assert Study(folder).two_stage_lrs() == [(0.1, 1e-2, 1e-4)]
    (folder / "0.1-0.01-0.0001/config.json").unlink()
    assert Study(folder).flrs() == [1e-4, 1e-2]
    assert Study(folder).two_stage_lrs() == []


def test_values_at_the_learning_rates_of_all_stages(staged):
    folder, accuracies = staged
    found = Study(folder)
    assert {lrs: found.at(final("test_accuracy"), lrs) for lrs in accuracies} == accuracies
    assert found.at(final("test_accuracy"), [1e-4] * 4) == found.at(final("test_accuracy"), [5.0]) == []


def test_from_scratch_is_the_longest_training_at_one_rate(staged):
    folder, accuracies = staged
    for stages, steps in ((3, 60 + EPOCHS), (2, 30 + EPOCHS), (1, EPOCHS)):
        lrs = (1e-4,) * stages
        assert Study(folder).from_scratch(final("test_accuracy"), 1e-4) == (accuracies[lrs], steps)
        (folder / "-".join(map(str, lrs)) / "config.json").unlink()
    assert Study(folder).from_scratch(final("test_accuracy"), 1e-4) == ([], 0)
    assert Study(folder).from_scratch(final("test_accuracy"), 1e-2) == (accuracies[1e-2,], EPOCHS)


# Rules of regimes, on metrics from disk and in memory


def in_memory(metrics):
    """Metrics as training holds them, a tensor per logged step."""
    return metrics | {
        name: [torch.tensor([torch.nan if number is None else number for number in row]) for row in metrics[name]]
        for name in ("train_loss", "train_accuracy", "test_accuracy")
    }


@pytest.fixture(params=[dict, in_memory], ids=["from disk", "in memory"])
def metrics(request):
    """Two members over 20 epochs: the first crosses 0.5 at epoch 3, goes back, and converges; the second diverges."""
    losses = [4.0, 1.0, 0.5, 0.25] + [0.75] * 13 + [0.125] * 4
    numbers = {
        "step": list(range(21)),
        "train_loss": [[loss, 0.25 if epoch < 5 else None] for epoch, loss in enumerate(losses)],
        "train_accuracy": [[0.5 if epoch < 19 else 1.0, 0.5] for epoch in range(21)],
        "test_accuracy": [[epoch / 32, None if epoch == 20 else 0.25] for epoch in range(21)],
    }
    return request.param(numbers)


def test_losses_are_floats_and_nan_where_not_finite(metrics):
    assert regimes.losses_at(metrics, 0) == [4.0, 0.25]
    assert regimes.losses_at(metrics, -1) == [0.125, pytest.approx(np.nan, nan_ok=True)]
    assert {type(loss) for loss in regimes.losses_at(metrics, -1)} == {float}


def test_infinite_losses_are_not_finite():
    [loss] = regimes.losses_at({"train_loss": [torch.tensor([torch.inf])]}, 0)
    assert np.isnan(loss)


def test_all_members_must_be_below_a_level(metrics):
    assert not regimes.all_below(metrics, 0.5)  # one is not finite
    metrics["train_loss"][-1] = [0.125, 0.25]
    assert regimes.all_below(metrics, 0.2500001) and not regimes.all_below(metrics, 0.25)
    assert regimes.is_below(metrics, 0, 0.25) and not regimes.is_below(metrics, 1, 0.25)


def test_a_level_is_crossed_once_and_not_from_the_start(metrics):
    levels = (5.0, 4.0, 0.5, 0.2, 0.125)
    assert [regimes.first_below(metrics, 0, level) for level in levels] == [0, 1, 3, 17, None]
    assert [regimes.first_crossing(metrics, 0, level) for level in levels] == [None, 1, 3, 17, None]
    assert [regimes.first_crossing(metrics, 1, level) for level in (0.5, 0.25)] == [None, None]


def test_convergence_is_the_late_mean_of_train_accuracy(metrics):
    assert regimes.late_values(metrics, "train_accuracy", 0).tolist() == [1, 1]
    assert regimes.has_converged(metrics, 0, 1.0) and not regimes.has_converged(metrics, 1, 0.999)
    assert regimes.late_mean(metrics, "test_accuracy", 0) == 19.5 / 32
    assert np.isnan(regimes.late_mean(metrics, "test_accuracy", 1))
    assert regimes.late_part_of_initial_loss(metrics, 0) == 0.125 / 4
    assert regimes.late_part_of_earlier_loss(metrics, 0) == 0.125 / 0.125
    assert regimes.late_part_of_earlier_loss(metrics | {"step": [0] * 20 + [20]}, 0) is None


def test_the_train_accuracy_of_convergence_is_that_of_the_network(study):
    set_network(study, converged=0.75)
    assert measure_regimes(Study(study))["b12"] == {
        "last": 1e-2,
        "next": 1e-1,
    }  # train accuracies 1, 1, 0.8, 0.5, 0.1


# Figures


def test_figure_1_has_mean_and_population_std_of_the_last_tenth(tmp_path):
    accuracy = [0.9] * 19 + [0.2, 0.4]  # 21 logged steps, 0 to 20; the last tenth of 20 epochs is epochs 19 and 20
    loss = [10.0] + [1.0] * EPOCHS
    write_run(
        tmp_path / "a",
        "pretrain",
        [{"lrs": [1e-3], "seed": 1}],
        IMAGES,
        test_accuracy=[accuracy],
        train_loss=[loss],
    )
    pretrain = series.regime_numbers(Study(tmp_path))["pretrain"]
    assert pretrain["plr"] == [1e-3] and pretrain["n"] == [2]
    assert pretrain["mean"] == pytest.approx([30]) and pretrain["std"] == pytest.approx([10])


def test_figures_1_and_2_are_drawn_and_figure_2_has_the_final_accuracies(study, tmp_path, monkeypatch):
    command(monkeypatch, "figures", study, "--out", tmp_path)
    numbers = json.loads((tmp_path / "figure02.json").read_text())
    assert numbers["pretrain"]["mean"] == pytest.approx([50, 60, 40, 20, 10.5])
    assert [curve["flr"] for curve in numbers["finetune"]] == [1e-5, 1e-4]
    assert numbers["finetune"][1]["mean"] == pytest.approx([58, 60, 65.5, 63, 40])
    assert [curve["window"] for curve in numbers["swa"]] == [2, 5]
    assert numbers["swa"][1]["mean"] == pytest.approx([51, 61, 63, 41, 11])
    for name in ("figure01", "figure02"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_two_stage_fine_tunings_and_incomplete_runs_are_skipped(study, tmp_path, monkeypatch, capsys):
    two_stages = {"lrs": [1e-2, 1e-3, 1e-5], "seed": 1}
    write_run(study / "two-stage", "finetune", [two_stages], IMAGES, test_accuracy=[0.99])
    write_run(study / "running", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES, status="running")
    numbers = series.accuracy_numbers(Study(study))
    assert [curve["flr"] for curve in numbers["finetune"]] == [1e-5, 1e-4]
    assert numbers["pretrain"]["plr"] == PLRS
    command(monkeypatch, "figures", study, "--only", 1, "--out", tmp_path)
    assert "1 run is not complete and is skipped; it and what finishes it:" in capsys.readouterr().out


def draw_figure_2(folder):
    numbers = series.accuracy_numbers(Study(folder))
    with plt.rc_context(STYLE):
        return drawing.draw_accuracy_panels(json.loads(json.dumps(numbers)))


def test_boundaries_are_drawn_dashed_and_dotted_on_a_log_axis(study):
    figure = draw_figure_2(study)
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        places = sorted(
            (line.get_xdata()[0], line.get_linestyle()) for line in axes.lines if len(line.get_xdata()) == 2
        )
        assert [style for _, style in places] == ["--", ":", "--"]
        assert [place for place, _ in places] == pytest.approx([10**-2.5, 10**-1.5, 10**-0.5])
        assert [text.get_text() for text in axes.texts] == ["1", "2A", "2B", "3"]
        assert not axes.patches  # single runs do not tell how sure that is


def test_2b_reaches_to_the_end_where_there_is_no_regime_3(study):
    set_network(study, diverges=False)
    for axes in draw_figure_2(study).axes:
        lines = [line.get_linestyle() for line in axes.lines if len(line.get_xdata()) == 2]
        assert sorted(lines) == ["--", ":"]
        assert [text.get_text() for text in axes.texts] == ["1", "2A", "2B"]
        assert axes.texts[-1].xy[0] == pytest.approx(np.sqrt(10**-1.5 * axes.get_xlim()[1]))


def test_no_line_is_drawn_where_the_grid_does_not_bracket_the_boundary(tmp_path):
    write_study(tmp_path / "runs", train=(1, 1, 1, 1, 1), test=(0.5, 0.6, 0.4, 0.2, 0.2))
    figure = draw_figure_2(tmp_path / "runs")
    assert not any(len(line.get_xdata()) == 2 for axes in figure.axes for line in axes.lines)


def test_legends_lie_outside_the_axes(study):
    figure = draw_figure_2(study)
    figure.canvas.draw()
    for axes in figure.axes:
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())


def test_axes_call_the_learning_rate_what_the_network_calls_it(study, tmp_path, monkeypatch):
    command(monkeypatch, "figures", study, "--only", 2, "--out", tmp_path / "out")
    numbers = json.loads((tmp_path / "out/figure02.json").read_text())
    assert numbers["lr_label"] == "learning rate (effective)"
    for label, expected in (("learning rate", "learning rate"), (None, "learning rate (effective)")):
        of_label = {name: value for name, value in numbers.items() if name != "lr_label"}
        with plt.rc_context(STYLE):
            figure = drawing.draw_accuracy_panels(of_label | ({"lr_label": label} if label else {}))
        assert [axes.get_xlabel() for axes in figure.axes] == [f"Pre-training {expected}"] * 2


def test_drawing_again_needs_only_the_json(study, tmp_path, monkeypatch):
    command(monkeypatch, "figures", study, "--only", 2, "--out", tmp_path / "out")
    for path in (tmp_path / "out").glob("*.p*"):
        path.unlink()
    command(monkeypatch, "draw", tmp_path / "out/figure02.json")
    assert (tmp_path / "out/figure02.pdf").exists() and (tmp_path / "out/figure02.png").exists()


# Ticks


def write_tick_run(path, stage, lrs, weights_name="checkpoint", swa=None, parent=None):
    """Three members with random weights; returns weights and last layer."""
    members = [{"lrs": lrs, "seed": seed, "data_seed": 1} for seed in (1, 2, 3)]
    settings = TICKS | ({"windows": swa["window"]} if swa else {})
    series = {"test_accuracy": [0.6, 0.7, 0.8], "train_loss": [[3] + [1] * EPOCHS] * 3}
    write_run(path, stage, members, settings, swa=swa, parent=parent, **series)
    weights = torch.stack([mlp.initial_weights(generator("weights", path.name, seed)) for seed in (1, 2, 3)])
    frozen = mlp.frozen_layer(generator("frozen", 1))[None].repeat(3, 1)
    write_tensors(path / f"{weights_name}.pt", {"step": EPOCHS, "weights": weights, "buffers": {"frozen": frozen}})
    return weights.double().numpy(), frozen[0].double().numpy()


@pytest.fixture
def tick_study(tmp_path):
    folder = tmp_path / "ticks"
    for plr in (1e-3, 1e-2):
        write_tick_run(folder / f"pt{plr}", "pretrain", [plr])
        for flr in (1e-4, 5e-4):
            write_tick_run(folder / f"ft{plr}-{flr}", "finetune", [plr, flr], parent=folder / f"pt{plr}")
        swa = {"window": [5], "test_accuracy": [[0.7] * 3]}
        write_tick_run(folder / f"swa{plr}", "swa", [plr], "swa-5", swa, parent=folder / f"pt{plr}")
    return folder


def slow_correct(weights, frozen, inputs, labels):
    """Whether one network is right, point by point in float64."""
    first, second = weights.reshape(2, 32, 32)
    correct = []
    for point, label in zip(inputs, labels):
        hidden = point
        for matrix in (first, second):
            hidden = matrix @ hidden
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-7)
            hidden = np.maximum(hidden, 0)
        correct.append((frozen @ hidden > 0) == (label > 0))
    return np.array(correct)


def test_single_feature_accuracies_equal_a_slow_count(tmp_path, monkeypatch):
    weights, frozen = write_tick_run(tmp_path / "a", "pretrain", [1e-3])
    command(monkeypatch, "features", tmp_path)
    measured = Run(tmp_path / "a").measurement("features")
    assert measured["solution"] == ["checkpoint"]
    for feature in (0, 7, 15):
        inputs, labels = (tensor.double().numpy() for tensor in ticks.single_feature_set(feature))
        correct = slow_correct(weights[1], frozen, inputs, labels)
        of_classes = [correct[labels == label].sum() / (labels == label).sum() for label in (0, 1)]
        one_tie = 1 / 2 / min((labels == 0).sum(), (labels == 1).sum())
        assert measured["balanced_accuracy"][0][1][feature] == pytest.approx(
            sum(of_classes) / 2, abs=1.01 * one_tie
        )


def test_constant_classifiers_score_exactly_one_half_on_every_single_feature_set(tmp_path, monkeypatch):
    write_tick_run(tmp_path / "a", "pretrain", [1e-3])
    path = tmp_path / "a/checkpoint.pt"
    tensors, _ = read_tensors(path, "")
    always_1 = tensors["buffers"]["frozen"][0].abs()  # what it multiplies is not negative
    tensors["buffers"]["frozen"] = torch.stack([always_1, -always_1, always_1])
    tensors["weights"][2] = torch.nan  # a diverged member
    write_tensors(path, tensors)
    command(monkeypatch, "features", tmp_path)
    assert Run(tmp_path / "a").measurement("features")["balanced_accuracy"] == [[[0.5] * 16] * 3]


def test_plain_accuracies_of_earlier_measurements_do_not_count_and_are_measured_again(tick_study, monkeypatch):
    command(monkeypatch, "features", tick_study)
    measured = {path: path.read_text() for path in tick_study.rglob("features.json")}
    for path, text in measured.items():
        path.write_text(text.replace("balanced_accuracy", "single_feature_accuracy"))
    with pytest.raises(BadInput, match="features are not measured; run analyze.py features"):
        series.feature_numbers(Study(tick_study))
    command(monkeypatch, "features", tick_study)
    assert len(measured) == 8 and measured == {path: path.read_text() for path in measured}


def test_features_are_measured_once(tick_study, monkeypatch):
    command(monkeypatch, "features", tick_study)
    before = {path: path.stat().st_mtime_ns for path in tick_study.rglob("features.json")}
    assert len(before) == 8
    command(monkeypatch, "features", tick_study)
    assert before == {path: path.stat().st_mtime_ns for path in tick_study.rglob("features.json")}
    assert Run(tick_study / "swa0.001").measurement("features")["solution"] == ["swa-5"]


def test_figure_5_sorts_each_run_before_it_averages(tick_study, monkeypatch):
    command(monkeypatch, "features", tick_study)
    panels = series.feature_numbers(Study(tick_study))["panels"]
    assert [panel["flr"] for panel in panels] == [None, 1e-4]
    accuracies = np.array(Run(tick_study / "pt0.001").measurement("features")["balanced_accuracy"][0])
    for rank in (0, 15):
        of_rank = np.array([sorted(of_member)[15 - rank] for of_member in accuracies])
        assert panels[0]["top"][rank]["mean"][0] == pytest.approx(100 * of_rank.mean())
        assert panels[0]["top"][rank]["std"][0] == pytest.approx(100 * of_rank.std(ddof=1))
        assert panels[0]["top"][rank]["n"] == [3, 3]
    assert panels[0]["all_features"]["mean"] == pytest.approx([70, 70])


def test_figure_17_has_a_panel_for_every_stage(tick_study, monkeypatch):
    command(monkeypatch, "features", tick_study)
    panels = series.all_feature_numbers(Study(tick_study))["panels"]
    assert [(panel["stage"], panel["flr"], panel["window"]) for panel in panels] == [
        ("pretrain", None, None),
        ("finetune", 1e-4, None),
        ("finetune", 5e-4, None),
        ("swa", None, 5),
    ]
    averaged = np.array(Run(tick_study / "swa0.01").measurement("features")["balanced_accuracy"][0])
    assert panels[3]["top"][0]["mean"][1] == pytest.approx(100 * averaged.max(axis=1).mean())


def slow_errors(weights, frozen, split, data_seed=1):
    """Error in percent on a whole set, in float64."""
    sets = ticks.tick_sets(data_seed)
    inputs, labels = (sets.train_inputs, sets.train_labels) if split == "train" else (sets[2], sets[3])
    return 100 * (1 - slow_correct(weights, frozen, inputs.double().numpy(), labels.numpy()).mean())


def test_geometry_equals_a_slow_computation(tmp_path, monkeypatch):
    parent = tmp_path / "pt"
    _, frozen = write_tick_run(parent, "pretrain", [1e-2])
    low, _ = write_tick_run(tmp_path / "low", "finetune", [1e-2, 1e-4], parent=parent)
    high, _ = write_tick_run(tmp_path / "high", "finetune", [1e-2, 1e-3], parent=parent)
    swa = {"window": [2, 5], "test_accuracy": [[0.7] * 3] * 2}
    averaged, _ = write_tick_run(tmp_path / "swa", "swa", [1e-2], "swa-5", swa, parent=parent)
    write_tick_run(tmp_path / "between", "finetune", [1e-2, 5e-4], parent=parent)
    command(monkeypatch, "geometry", tmp_path)
    measured = Run(parent).measurement(geometry_name(1e-4, 1e-3))
    assert (measured["low_flr"], measured["high_flr"], measured["window"]) == (1e-4, 1e-3, 5)
    assert measured["protocol"] == {"points": 11, "on_sphere": False, "batch_norm": False, "floor": 0.01}

    solutions = {"L": low, "H": high, "S": averaged}
    for pair in ("LH", "SH", "SL"):
        first, second = (solutions[name][1] for name in pair)
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert measured["angle"][pair][1] == pytest.approx(np.arccos(cosine), rel=1e-5)
    for split in ("train", "test"):
        first, second = low[1], averaged[1]
        path = [slow_errors(a * first + (1 - a) * second, frozen, split) for a in np.arange(11) / 10]
        excess = [e - (1 - a) * path[0] - a * path[-1] for a, e in zip(np.arange(11) / 10, path)]
        one_sample = {"train": 100 / 512, "test": 100 / 2000}[split]
        assert measured[f"{split}_barrier"]["SL"][1] == pytest.approx(max(excess), abs=2.1 * one_sample)
        assert max(excess) > 0.5


def test_geometry_is_measured_once_and_where_all_solutions_are_there(tick_study, monkeypatch, capsys):
    write_tick_run(tick_study / "lonely", "pretrain", [0.1])
    command(monkeypatch, "geometry", tick_study)
    before = {path: path.stat().st_mtime_ns for path in tick_study.rglob("geometry*.json")}
    assert {path.parent.name for path in before} == {"pt0.001", "pt0.01"}
    assert "lonely: is not continued by a complete fine-tuning at 0.0001" in capsys.readouterr().out
    command(monkeypatch, "geometry", tick_study)
    assert before == {path: path.stat().st_mtime_ns for path in tick_study.rglob("geometry*.json")}


def test_geometry_of_images_is_skipped_where_solutions_are_missing(study, monkeypatch, capsys):
    command(monkeypatch, "geometry", study)
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert [line.split()[1] for line in skipped] == [f"{study}/pretrain/{plr}:" for plr in PLRS]
    assert not list(study.rglob("geometry*"))


def test_geometry_of_a_diverged_member_is_not_measured(tick_study, monkeypatch):
    path = tick_study / "ft0.001-0.0005/checkpoint.pt"
    tensors, _ = read_tensors(path, "")
    tensors["weights"][1] = torch.nan
    write_tensors(path, tensors)
    command(monkeypatch, "geometry", tick_study)
    measured = Run(tick_study / "pt0.001").measurement(geometry_name(1e-4, 5e-4))
    for quantity in ("angle", "train_barrier", "test_barrier"):
        assert [number is None for number in measured[quantity]["LH"]] == [False, True, False]
        assert None not in measured[quantity]["SL"]


def test_figure_16_has_means_of_angles_and_quartiles_of_barriers(tick_study):
    for plr in (1e-3, 1e-2):
        numbers = {"angle": [0.0, 1.0, 4.0], "train_barrier": [1.0, 5.0, 5.0], "test_barrier": [0.0, 1.0, 4.0]}
        measured = {"low_flr": 1e-4, "high_flr": 5e-4, "window": 5} | {
            quantity: {
                pair: [number * factor for number in of_members]
                for pair, factor in (("LH", 1), ("SH", 2), ("SL", 3))
            }
            for quantity, of_members in numbers.items()
        }
        write_json(tick_study / f"pt{plr}/{geometry_name(1e-4, 5e-4)}.json", measured)
    numbers = series.geometry_numbers(Study(tick_study))
    assert numbers["angle"]["SL"]["mean"] == pytest.approx([5, 5])
    assert numbers["angle"]["SL"]["std"] == pytest.approx([3 * np.std([0, 1, 4], ddof=1)] * 2)
    assert numbers["train_barrier"]["SH"]["median"] == [10, 10]
    barrier = numbers["test_barrier"]["LH"]
    assert [barrier[name] for name in ("median", "lower", "upper")] == [[1, 1], [0.5, 0.5], [2.5, 2.5]]
    assert barrier["n"] == [3, 3] and barrier["plr"] == [1e-3, 1e-2]
    with plt.rc_context(STYLE):
        panels = drawing.draw_geometry_panels(json.loads(json.dumps(numbers))).axes
    drawn = [[line.get_ydata()[0] for line in axes.lines if line.get_label()[0] != "_"] for axes in panels]
    assert np.allclose(drawn, [[5 / 3, 10 / 3, 5], [5, 10, 15], [1, 2, 3]])


def test_figure_15_draws_the_flrs_of_the_paper_where_all_are_there(tmp_path):
    folder = tmp_path / "ticks"
    flrs = [10 ** (-4.5 + index / 4) for index in range(9)] + [10**-2.25, 10**-2.125]
    write_tick_run(folder / "pt", "pretrain", [1e-2])
    for number, flr in enumerate(flrs):
        write_tick_run(folder / f"ft{number}", "finetune", [1e-2, flr])
    numbers = series.tick_accuracy_numbers(Study(folder))
    assert len(numbers["finetune"]) == 11
    assert [f"{flr:.1e}" for flr in numbers["drawn_flrs"]] == [
        "3.2e-05",
        "1.8e-04",
        "1.0e-03",
        "3.2e-03",
        "7.5e-03",
    ]
    with plt.rc_context(STYLE):
        labels = drawing.draw_accuracy_panels(numbers).axes[0].get_legend_handles_labels()[1]
    assert len(labels) == 6
    (folder / "ft3/config.json").unlink()  # not all are there: what is there is drawn
    assert "drawn_flrs" not in series.tick_accuracy_numbers(Study(folder))


def test_every_figure_on_ticks_is_drawn(tick_study, tmp_path, monkeypatch):
    command(monkeypatch, "features", tick_study)
    command(monkeypatch, "geometry", tick_study)
    read = Counter()
    monkeypatch.setattr(runs, "read_json", lambda path, *fix: read.update([path]) or read_json(path, *fix))
    command(monkeypatch, "figures", tick_study, "--out", tmp_path)
    assert set(read) >= {*tick_study.rglob("metrics.json"), *tick_study.rglob("features.json")}
    assert set(read.values()) == {1}, "every file is read once"
    for name in ("figure04", "figure05", "figure15", "figure16", "figure17"):
        assert (tmp_path / f"{name}.pdf").exists() and (tmp_path / f"{name}.png").exists()
    curve = json.loads((tmp_path / "figure15.json").read_text())["pretrain"]
    assert curve["mean"] == pytest.approx([70, 70])
    assert curve["std"] == pytest.approx([10] * 2) and curve["n"] == [3, 3]


def test_figure_4_shows_feature_0_of_all_training_samples(tick_study):
    numbers = series.tick_numbers(Study(tick_study))
    assert numbers["points"].shape == (512, 2)
    assert ticks.inside_class(numbers["points"], numbers["labels"]).all()
    upper = dict(zip(numbers["boundary_x1"].tolist(), numbers["boundary_x2"][0].tolist()))
    assert upper[-2.0] == 2 and upper[0.0] == 0 and upper[2.0] == 2


# Nothing to measure


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["geometry", "{few}"], "geometry: nothing to measure: {few}: holds fine-tuning at fewer than two FLRs; "),
        (["geometry", "{images}"], "geometry: nothing to measure: no pre-training has all its solutions here"),
        (
            ["sharpness", "{images}", "--level", "0.1"],
            "sharpness at train loss 0.1: nothing to measure: no run kept weights at train loss 0.1; --keep-loss of train.py and",
        ),
        (["norms", "{measured}"], "norms: the 1 run is measured"),
        (["bands", "{measured}"], "bands, reestimate: the 1 run is measured"),
    ],
)
def test_a_stage_with_nothing_to_measure_says_so(study, tmp_path, monkeypatch, capsys, arguments, line):
    for name in ("few", "measured"):
        write_run(tmp_path / name / "run", "pretrain", [{"lrs": [1], "seed": 1}], IMAGES, train_loss=[1.0])
    of_bands = {"solution": "checkpoint", "normalisation": "reestimate", "limits": {}, "accuracy": {}}
    for name, content in (
        ("norms", {}),
        ("bands-reestimate", of_bands),
        ("band-images", {"class": "", "panels": []}),
    ):
        write_json(tmp_path / f"measured/run/{name}.json", content)
    places = {"images": study, "few": tmp_path / "few", "measured": tmp_path / "measured"}
    command(monkeypatch, *(argument.format(**places) for argument in arguments))
    assert capsys.readouterr().out.splitlines()[-1].startswith(line.format(**places))


# Bad input


@pytest.mark.parametrize("earlier", [0, None])
def test_runs_that_differ_in_an_invented_setting_are_not_averaged(study, earlier):
    settings = IMAGES | ({} if earlier is None else {"invented": earlier})
    for path in study.rglob("config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"settings": config["settings"] | settings}))
    write_run(study / "other", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES | {"invented": 1})
    with pytest.raises(BadInput, match=f"other has invented 1, and the 20 others, as .*, invented {earlier};"):
        Study(study)


def test_stages_may_differ_in_length(study):
    lengths = {"first_step": 20, "steps": 7, "spacing": 1, "anchor": "start"}
    for number, path in enumerate(sorted(study.glob("finetune/*/config.json"))):
        config = json.loads(path.read_text())
        kept = {"log_every": number + 1, "keep": [number], "keep_loss": [number + 1], "windows": [number]}
        metrics = path.with_name("metrics.json")
        metrics.write_text(json.dumps(metrics_until(json.loads(metrics.read_text()), 7)))
        path.write_text(json.dumps(config | {"settings": config["settings"] | lengths | kept}))
    assert not {*Study(study).settings} & {*LENGTHS}
    assert {*LENGTHS} == {*lengths, *kept, "until_loss", "stop_when_clear"}


def test_runs_of_other_lengths_are_not_averaged(study):
    write_run(study / "longer", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES | {"steps": 300})
    with pytest.raises(BadInput, match="longer has steps 300, and the 5 others, as .*, steps 20; skip"):
        Study(study)


def test_a_solution_counts_once(study):
    write_run(study / "again", "pretrain", [{"lrs": [1e-3], "seed": 1}], IMAGES)
    with pytest.raises(BadInput, match="hold the same learning rate and seed"):
        Study(study)


def test_figure_5_is_skipped_where_features_are_not_measured(tick_study, tmp_path, monkeypatch, capsys):
    command(monkeypatch, "figures", tick_study, "--out", tmp_path)
    assert "figure 5 is skipped" in capsys.readouterr().out
    assert (tmp_path / "figure15.pdf").exists() and not (tmp_path / "figure05.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["figures", "{empty}", "--out", "o"], "holds no run folders"),
        (["features", "{images}"], "no complete runs on ticks"),
        (["boundary", "{few}"], "its pre-trainings do not bracket the boundary of regimes 1 and 2"),
        (["bands", "{ticks}"], "this is measured on images"),
        (["norms", "{ticks}"], "this is measured on images"),
        (["sharpness", "{ticks}", "--level", "0.1"], "this is measured on images"),
        (["claims", "{empty}"], "holds no run folders"),
        (["figures", "{ticks}", "--only", "16", "--out", "o"], "run analyze.py geometry"),
        (["figures", "{images}", "--only", "5", "--out", "o"], "is not about images"),
        (["figures", "{ticks}", "{ticks}", "--out", "o"], "no figure compares such experiments; give one folder"),
        (["figures", "{ticks}", "{images}", "--out", "o"], "no figure compares such experiments; give one folder"),
        (["figures", "{mixed}", "--out", "o"], "other has width 16, and the .*, width 8"),
        (["figures", "{augmented}", "--out", "o"], "augment crop-flip, and the .*, augment none"),
        (["figures", "{ticks}", "--only", "5", "--out", "o"], "run analyze.py features"),
        (["draw", "{empty}/figure01.json"], "cannot be read"),
        (["draw", "{images}/pretrain/0.1/config.json"], "holds no figure's numbers"),
        (["draw", "{damaged}"], "lacks 'pretrain'"),
    ],
)
def test_bad_input_is_named(study, tick_study, tmp_path, monkeypatch, arguments, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    mixed = tmp_path / "mixed"
    write_study(mixed)
    write_run(mixed / "other", "pretrain", [{"lrs": [1], "seed": 1}], IMAGES | {"width": 16})
    augmented = tmp_path / "augmented"
    write_study(augmented)
    write_run(augmented / "other", "pretrain", [{"lrs": [1], "seed": 1}], IMAGES | {"augment": "crop-flip"})
    damaged = tmp_path / "figure01.json"
    damaged.write_text('{"figure": 1}')
    write_run(tmp_path / "few/run", "pretrain", [{"lrs": [1], "seed": 1}], IMAGES, train_loss=[1.0])
    places = {"augmented": augmented, "damaged": damaged, "empty": empty, "images": study, "mixed": mixed}
    places |= {"ticks": tick_study, "few": tmp_path / "few"}
    with pytest.raises(BadInput, match=message):
        command(monkeypatch, *(argument.format(**places) for argument in arguments))


# Results


@pytest.mark.parametrize("number", [1, 2, 3, 6, 7, 9, 11, 12, 13, 26])
def test_committed_figures_come_from_the_committed_metrics(tmp_path, number):
    results = Path(__file__).parent.parent / "results/cifar10-jpeg-narrow"
    write_json(tmp_path / "figure.json", FIGURES[number].series(Study(results)))
    committed = json.loads((results / f"figure{number:02d}.json").read_text())
    numbers = json.loads((tmp_path / "figure.json").read_text())
    assert numbers.items() <= committed.items()


def test_committed_verdicts_come_from_the_committed_metrics(tmp_path, monkeypatch):
    results = Path(__file__).parent.parent / "results/cifar10-jpeg-narrow"
    command(monkeypatch, "claims", results, "--json", tmp_path / "claims.json")
    written, committed = (json.loads((path / "claims.json").read_text()) for path in (tmp_path, results))
    # Settings that runs could not choose when these were written have their defaults.
    assert committed["experiment"].items() <= written["experiment"].items()
    assert written | {"experiment": committed["experiment"]} == committed


def test_committed_verdicts_and_figures_on_ticks_are_of_one_study():
    results = Path(__file__).parent.parent / "results/ticks"
    claims = json.loads((results / "claims.json").read_text())
    for path in set(results.glob("figure*.json")) - {results / "figure04.json"}:
        assert json.loads(path.read_text())["regimes"] == claims["regimes"], path
