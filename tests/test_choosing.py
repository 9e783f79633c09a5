"""Which runs of a folder an analysis is about: chosen by patterns, of equal settings, with parents, with the same seeds."""

import contextlib
import fcntl
import json
import shlex

import numpy as np
import pytest
from test_analyze import IMAGES, PLRS, command, write_run, write_study

from data.analysis import captions, series
from data.analysis.choosing import chosen_paths, relative
from data.analysis.evidence import Evidence
from data.analysis.figures import figure_numbers, learning_curve_numbers
from data.analysis.pairing import Pairing
from data.analysis.regimes import measure_regimes
from data.analysis.study import Study, final, late_mean, of_average
from data.commandline import BadInput, lr_name
from data.runs import Run


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "runs")
    return tmp_path / "runs"


def names(folder, *choice):
    return [relative(path, folder) for path in chosen_paths(folder, *choice)]


# Patterns


def test_patterns_match_paths_in_the_folder_and_names(study):
    pretrained = [f"pretrain/{plr}" for plr in map(str, PLRS)]
    assert names(study, ["pretrain/*"]) == sorted(pretrained)
    assert names(study, ["0.1*"]) == ["finetune/0.1-0.0001", "finetune/0.1-1e-05", "pretrain/0.1", "swa/0.1"]
    assert names(study, ["pretrain/*", "swa/1.0"], ["*/0.0*"]) == ["pretrain/0.1", "pretrain/1.0", "swa/1.0"]
    assert names(study, ["swa/1.0/"]) == ["swa/1.0"]  # as a shell completes it
    assert len(names(study)) == 20 and len(names(study, (), ["finetune/*"])) == 10


@pytest.mark.parametrize(
    "choice, message",
    [
        ((["nowhere/*"],), "--only-runs 'nowhere/.': matches no run folder"),
        (([], ["a b"]), "--exclude 'a b': matches no run folder"),
        ((["swa/*"], ["swa/*"]), "leave no run"),
        (((), ["pretrain/*"]), "--only-runs and --exclude leave no complete pre-training"),
    ],
)
def test_patterns_that_match_nothing_or_leave_nothing_are_bad_input(study, choice, message):
    with pytest.raises(BadInput, match=message):
        Study(study, *choice)


@pytest.mark.parametrize(
    "name", ["claims", "boundary", "figures", "geometry", "runs", "norms", "sharpness", "bands"]
)
def test_every_command_that_reads_a_folder_lets_choose(study, tmp_path, monkeypatch, name):
    own = {"figures": ["--out", tmp_path / "out"], "sharpness": ["--end"]}.get(name, [])
    with pytest.raises(BadInput, match="--exclude odd: matches no run folder"):
        command(monkeypatch, name, study, "--exclude", "odd", *own)


def test_of_several_folders_a_pattern_must_match_in_one(study, tmp_path, monkeypatch):
    write_study(tmp_path / "other")
    write_run(tmp_path / "other/odd", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES | {"width": 16})
    compare = ["figures", study, tmp_path / "other", "--only", 10, "--out", tmp_path / "out"]
    command(monkeypatch, *compare, "--exclude", "odd")
    assert len(json.loads((tmp_path / "out/figure10.json").read_text())["rows"]) == 2
    with pytest.raises(BadInput, match="--exclude even: matches no run folder"):
        command(monkeypatch, *compare, "--exclude", "even", "odd")


# Runs that do not go together


def test_a_refusal_names_the_odd_runs_and_both_ways_out_work(study):
    for seed, name, steps in ((1, "a", 300), (2, "b", 400)):
        write_run(study / f"long {name}", "pretrain", [{"lrs": [5.0], "seed": seed}], IMAGES | {"steps": steps})
    with pytest.raises(BadInput) as refusal:
        Study(study)
    message = str(refusal.value)
    assert message.startswith(
        f"{study}: long a, long b have steps 300 or 400, and the 5 others, as pretrain/0.0001, steps 20; skip "
    )
    assert "make the shorter ones longer by their commands with --steps 400, or" in message
    _, _, patterns = message.partition("--exclude ")
    exclude = shlex.split(patterns.partition(", ")[0])
    assert exclude == ["long a", "long b"] and "--only-runs" in message and "\n" not in message
    assert len(Study(study, (), exclude).runs) == 20
    assert [run.path.name for run in Study(study, ["long a"]).runs] == ["long a"]


def test_many_odd_runs_are_not_all_named(study):
    for number in range(12):
        write_run(
            study / f"wide{number:02d}", "pretrain", [{"lrs": [5.0], "seed": number}], IMAGES | {"width": 16}
        )
    with pytest.raises(
        BadInput, match="wide00, .*, wide07 and 4 more have width 16, and the 20 others.*--exclude PATTERN"
    ):
        Study(study)


def test_a_pattern_stands_for_all_runs_in_a_folder(study):
    for number in range(12):
        write_run(study / f"wide/{number}", "pretrain", [{"lrs": [5.0], "seed": number}], IMAGES | {"width": 16})
    write_run(study / "other", "pretrain", [{"lrs": [5.0], "seed": 0}], IMAGES | {"width": 16})
    with pytest.raises(BadInput, match=r"--exclude other 'wide/\*', take"):
        Study(study)
    assert len(Study(study, (), ["other", "wide/*"]).runs) == 20


def test_what_was_started_from_excluded_runs_is_skipped_with_them(tmp_path):
    for seed, name, steps in ((1, "short", 20), (2, "long", 300)):
        settings = IMAGES | {"steps": steps}
        write_run(tmp_path / name, "pretrain", [{"lrs": [1e-3], "seed": seed}], settings)
        child, settings = {"lrs": [1e-3, 1e-4], "seed": seed}, IMAGES | {"first_step": steps}
        write_run(tmp_path / f"{name}-child", "finetune", [child], settings, parent=tmp_path / name)
    with pytest.raises(BadInput, match="short has steps 20, and the other, long, steps 300; skip"):
        Study(tmp_path)
    assert [run.path.name for run in Study(tmp_path, (), ["long"]).runs] == ["short", "short-child"]


# Parents that are gone


def test_runs_whose_parent_is_gone_are_said_and_do_not_count(tmp_path, capsys, monkeypatch):
    write_study(tmp_path)
    chain = [("pretrain/5", [5.0]), ("finetune/5", [5.0, 1e-2]), ("finetune/5-", [5.0, 1e-2, 1e-4])]
    parent = None
    for name, lrs in chain:
        stage = name.partition("/")[0]
        write_run(tmp_path / name, stage, [{"lrs": lrs, "seed": 1}], IMAGES, parent=parent)
        parent = tmp_path / name
    assert len(Study(tmp_path).runs) == 23 and not Study(tmp_path).without_parent
    (tmp_path / "pretrain/5/config.json").unlink()
    found = Study(tmp_path)
    assert [run.path.name for run in found.without_parent] == ["5", "5-"]
    assert len(found.runs) == 20 and found.flrs() == [1e-5, 1e-4]
    command(monkeypatch, "claims", tmp_path)
    line = "the runs that these continue are not here, or excluded, so they are skipped: finetune/5, finetune/5-"
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}: {line}"


def test_a_parent_that_is_at_work_is_not_gone(tmp_path):
    write_study(tmp_path)
    running = tmp_path / "pretrain/5"
    write_run(running, "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES, status="running")
    write_run(tmp_path / "finetune/5", "finetune", [{"lrs": [5.0, 1e-4], "seed": 1}], IMAGES, parent=running)
    found = Study(tmp_path)
    assert found.without_parent == [] and len(found.incomplete) == 1
    assert list(found.by_plr("finetune", final("test_accuracy"), 1e-4)) == [*PLRS, 5.0]


# Incomplete runs


def with_argv(path, *argv):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"argv": argv}))


def test_incomplete_runs_are_named_with_the_command_that_finishes_them(study, capsys, monkeypatch):
    for name, lr in (("half", 5.0), ("new one", 6.0), ("other", 7.0)):
        settings = IMAGES | {"steps": 200}
        write_run(study / name, "pretrain", [{"lrs": [lr], "seed": 1}], settings, status="running", final_step=7)
        with_argv(study / name, "train.py", "--data", "my set.pt", "--lr", "5" if name != "other" else "7")
    (study / "new one/metrics.json").unlink()
    (study / "other/lock").touch()
    with open(study / "other/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command(monkeypatch, "claims", study)
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"{study}: 3 runs are not complete and are skipped; these and what finishes them:",
        "  half (epoch 7 of 200), new one (not begun): python train.py --data 'my set.pt' --lr 5",
        "  other (epoch 7 of 200): a process is at work on it",
    ]
    with pytest.raises(BadInput, match=r"no complete pre-training run; finish half .* python train.py .*--lr 5$"):
        Study(study, ["half"])


def test_one_run_is_spoken_of_as_one(study, capsys, monkeypatch):
    write_run(study / "half", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES, status="running", final_step=7)
    [line, _] = Study(study).lines()
    assert line == f"{study}: 1 run is not complete and is skipped; it and what finishes it:"
    for name, changes in (("odd", {"width": 16}), ("other", {"width": 32})):
        write_run(study / name, "pretrain", [{"lrs": [7.0], "seed": 1}], IMAGES | changes)
    with pytest.raises(BadInput, match=r": other has width 32, and the other, odd, width 16;"):
        Study(study, ["odd", "other"])


def test_that_nothing_is_chosen_is_no_default_in_the_help(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        command(monkeypatch, "runs", "--help")
    assert "--exclude" in (text := capsys.readouterr().out) and "default" not in text


# The same seeds at every stage


def write_seeds(folder, seeds):
    """Runs {stage: {PLR: seeds}}, whose test accuracy is 0.5 + seed / 100 everywhere."""
    for (stage, *flr), of_plrs in seeds.items():
        for plr, of_plr in of_plrs.items():
            for seed in of_plr:
                accuracy, member = 0.5 + seed / 100, {"lrs": [plr, *flr], "seed": seed}
                swa = {"window": [5], "test_accuracy": [[accuracy]]} if stage == "swa" else None
                settings = IMAGES | ({"windows": [5]} if swa else {})
                path = folder / f"{stage}{flr}-{plr}-{seed}"
                parent = folder / f"pretrain[]-{plr}-{seed}"
                series = {"test_accuracy": [accuracy], "train_loss": [[10] + [1] * 20]}
                is_child = stage != "pretrain" and parent.exists()
                write_run(path, stage, [member], settings, swa=swa, parent=parent if is_child else None, **series)


UNEQUAL = {
    ("pretrain",): {1e-3: [1, 2, 3], 1e-2: [1, 2], 1e-1: [1, 2]},
    ("finetune", 1e-5): {1e-3: [1, 2, 3], 1e-2: [2], 1e-1: [1, 2]},
    ("finetune", 1e-4): {1e-3: [2, 3], 1e-1: [1, 2]},
    ("swa",): {1e-3: [1, 2, 3], 1e-2: [1, 2]},
}


def seeds_shown(values):
    return {plr: [round(100 * accuracy - 50) for accuracy in of_plr] for plr, of_plr in values.items()}


def test_at_a_plr_the_seeds_are_compared_that_all_of_its_stages_have(tmp_path):
    write_seeds(tmp_path, UNEQUAL)
    found, accuracy = Study(tmp_path), final("test_accuracy")
    common = {1e-3: [2, 3], 1e-2: [2], 1e-1: [1, 2]}
    assert seeds_shown(found.by_plr("pretrain", accuracy)) == common
    assert seeds_shown(found.by_plr("finetune", accuracy, 1e-5)) == common
    assert seeds_shown(found.by_plr("finetune", accuracy, 1e-4)) == {1e-3: [2, 3], 1e-1: [1, 2]}  # shown as it is
    assert seeds_shown(found.by_plr("pretrain", accuracy, every_seed=True)) == UNEQUAL["pretrain",]
    e, numbers = Evidence(found), series.accuracy_numbers(found)
    assert [len(e.averaged[5][plr].values) for plr in (1e-3, 1e-2)] == [2, 1]
    assert e.finetuning_change(1e-5)[1e-2].mean == 0  # as every seed has one accuracy
    assert numbers["pretrain"]["n"] == [2, 1, 2] and numbers["finetune"][0]["mean"] == pytest.approx(
        [52.5, 52, 51.5]
    )


def test_stages_that_lack_seeds_are_said_in_a_line_each(tmp_path, capsys, monkeypatch):
    write_seeds(tmp_path, UNEQUAL)
    command(monkeypatch, "figures", tmp_path, "--only", 2, "--out", tmp_path / "out")
    said = "lacks seeds, and the others are skipped there: it has"
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"{tmp_path}: fine-tuning at 1e-5 {said} 1 of 2 at PLR 1e-2",
        f"{tmp_path}: fine-tuning at 1e-4 {said} 2 of 3 at PLR 1e-3",
        f"{tmp_path}: PLR 1e-2 has no seed 3; PLR 1e-1 has no seed 3",
    ]


@pytest.mark.parametrize(
    "seeds, line",
    [
        ({1e-3: [1], 1e-2: [1, 2], 1e-1: [1, 2]}, "PLR 1e-3 has no seed 2"),
        ({1e-3: [1, 2], 1e-2: [2, 3]}, "PLR 1e-3 has no seed 3; PLR 1e-2 has no seed 1"),
        ({1e-3: [1], 1e-2: [2], 1e-1: [3]}, None),  # each PLR has its own
        ({1e-3: [1, 4], 1e-2: [2, 5]}, None),
        ({1e-4: [7], 1e-3: [1], 1e-2: [2], 1e-1: [3], 1.0: [1]}, None),  # most have
        ({1e-3: [1], 1e-2: range(1, 12)}, "PLR 1e-3 has no seed 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
        (
            {plr: [1, 2] if plr == 10 else [1] for plr in range(1, 11)},
            "; ".join(f"PLR {lr_name(plr)} has no seed 2" for plr in range(1, 9)) + " and 1 more",
        ),
    ],
)
def test_a_seed_that_is_missing_at_a_plr_is_named(tmp_path, seeds, line):
    write_seeds(tmp_path, {("pretrain",): seeds, ("finetune", 1e-5): seeds})
    assert Study(tmp_path).pairing_lines() == ([f"{tmp_path}: {line}"] if line else [])


def test_a_pair_of_seeds_that_is_missing_at_a_plr_is_named():
    members = [("pretrain", [plr], (data, seed)) for plr in (1e-3, 1e-2) for data in (1, 2) for seed in (5, 6)]
    assert Pairing(members[:-1], []).lines() == ["PLR 1e-2 has no seed 6 of data seed 2"]


def test_where_no_seed_has_all_stages_all_are_kept_and_that_is_said(tmp_path):
    write_seeds(tmp_path, {("pretrain",): {1e-3: [1, 2]}, ("finetune", 1e-5): {1e-3: [3]}})
    found = Study(tmp_path)
    assert seeds_shown(found.by_plr("pretrain", final("test_accuracy"))) == {1e-3: [1, 2]}
    assert seeds_shown(found.by_plr("finetune", final("test_accuracy"), 1e-5)) == {1e-3: [3]}
    assert found.pairing_lines() == [
        f"{tmp_path}: no seed has all stages at PLR 1e-3: means there are of different seeds"
    ]


def test_equal_seeds_are_not_spoken_of(study):
    assert Study(study).lines() == Study(study).pairing_lines() == []


@pytest.mark.parametrize(
    "arguments, paired",
    [
        (["claims"], True),
        (["figures", "--only", 2], True),
        (["figures", "--only", 1, 2], True),
        (["figures", "--only", 1], False),
        (["curves"], True),
        (["boundary"], False),
        (["sharpness", "--end"], False),
        (["norms"], False),
    ],
)
def test_that_seeds_are_skipped_is_said_where_they_are(tmp_path, capsys, monkeypatch, arguments, paired):
    write_seeds(tmp_path / "runs", UNEQUAL)
    name, *others = arguments
    with contextlib.suppress(BadInput):  # of boundaries that are open
        out = ["--out", tmp_path / "out"] if name in ("figures", "curves") else []
        command(monkeypatch, name, tmp_path / "runs", *others, *out)
    assert ("lacks seeds" in "".join(capsys.readouterr())) is paired


def test_learning_curves_are_of_the_seeds_that_are_compared(tmp_path):
    write_seeds(tmp_path, UNEQUAL)
    first, *panels = learning_curve_numbers(Study(tmp_path))["panels"]
    assert [curve["n"] for curve in first["curves"]] == [2, 1, 2]
    assert first["curves"][0]["test_accuracy"][-1] == pytest.approx(52.5)  # of seeds 2 and 3
    assert [curve["n"] for panel in panels for curve in panel["curves"]] == [2, 1, 2, 2, 2, 2, 1]


def test_the_same_seed_of_another_data_seed_is_another_run(tmp_path):
    settings = IMAGES | {"data": "ticks"}
    for stage, flr, data_seeds in (("pretrain", [], (1, 2)), ("finetune", [1e-4], (2,))):
        members = [{"lrs": [1e-3, *flr], "seed": 1, "data_seed": data_seed} for data_seed in data_seeds]
        write_run(tmp_path / stage, stage, members, settings, test_accuracy=[0.5 + d / 100 for d in data_seeds])
    assert seeds_shown(Study(tmp_path).by_plr("pretrain", final("test_accuracy"))) == {1e-3: [2]}


def test_boundaries_of_pre_training_are_of_all_seeds_and_2a_of_those_compared(tmp_path):
    """Of 1e-3 two seeds in three converge, but not the one that was fine-tuned; its accuracy decides what 2A is."""

    def pretrain(plr, seed, train, test):
        losses = [[10] + [1] * 20]
        member = {"lrs": [plr], "seed": seed}
        series = {"train_accuracy": [train], "test_accuracy": [test], "train_loss": losses}
        write_run(tmp_path / f"{plr}-{seed}", "pretrain", [member], IMAGES, **series)

    for seed, train, test in ((1, 0.9, 0.5), (2, 1.0, 0.8), (3, 1.0, 0.8)):
        pretrain(1e-3, seed, train, test)
    for plr in (1e-2, 1e-1):
        pretrain(plr, 1, 0.9, 0.5)
    for plr, accuracies in ((1e-3, (0.5, 0.5)), (1e-2, (0.55, 0.55)), (1e-1, (0.55, 0.7))):
        for flr, accuracy in zip((1e-5, 1e-4), accuracies):
            member = {"lrs": [plr, flr], "seed": 1}
            write_run(tmp_path / f"{plr}-{flr}", "finetune", [member], IMAGES, test_accuracy=[accuracy])
    regimes = measure_regimes(Study(tmp_path))
    assert regimes["b12"]["last"] == 1e-3  # by all three
    assert regimes["b2AB"] == {"last": 1e-2, "next": 1e-1} | {
        name: regimes["b2AB"][name] for name in ("shares", "range")
    }  # 55 % exceeds the 50 % of the seed that was fine-tuned, but not the 70 % of all
    assert np.mean([0.5, 0.8, 0.8]) - 0.55 > 0.01


# Statistics that are re-estimated


def test_final_accuracies_are_with_re_estimated_statistics_where_asked_for(tmp_path):
    write_study(tmp_path)
    running = Study(tmp_path)
    with pytest.raises(BadInput, match="are missing, as runs are of before .*--exclude skips them"):
        Study(tmp_path, reestimated=True)
    for number, path in enumerate(sorted(tmp_path.rglob("metrics.json"))):
        metrics = json.loads(path.read_text())
        accuracies = [number / 100] * len(metrics["diverged_at"])
        metrics["reestimated"] = {"test_loss": accuracies, "test_accuracy": accuracies}
        path.write_text(json.dumps(metrics))
    study, expected = Study(tmp_path, reestimated=True), {}
    for number, path in enumerate(sorted(tmp_path.rglob("metrics.json"))):
        [lrs] = [member["lrs"] for member in Run(path.parent).members]
        expected[(Run(path.parent).config["stage"], *lrs)] = number / 100
    for stage, *later in (("pretrain",), *(("finetune", flr) for flr in study.flrs())):
        found = study.by_plr(stage, final("test_accuracy"), *later)
        assert found == {
            plr: [expected[(stage, plr, *later)]] for plr in running.by_plr(stage, final("test_accuracy"), *later)
        }
    for value in (late_mean("test_accuracy"), final("train_accuracy")):
        assert study.by_plr("pretrain", value) == running.by_plr("pretrain", value)
    assert study.by_plr("swa", of_average(5)) == running.by_plr("swa", of_average(5)) != {}
    said = "with batch-norm statistics re-estimated"
    assert [said in captions.small_print(figure_numbers(2, [s]))[-1] for s in (running, study)] == [False, True]
