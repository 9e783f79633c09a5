"""analyze.py runs: a table of whatever lies in a folder."""

import csv
import fcntl
import json

import pytest
from test_analyze import IMAGES, TICKS, command, whole, write_run, write_study
from test_choosing import with_argv

from data.analysis.runs_table import COLUMNS, table, text_lines, write_csv
from data.commandline import BadInput
from data.files import write_json


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "runs")
    return tmp_path / "runs"


def row(folder, name):
    [found] = [row for row in table(folder) if row["run"] == name]
    return found


def test_a_complete_run_has_its_numbers(study, monkeypatch, capsys):
    found = row(study, "pretrain/0.01")
    assert {*found} == {*COLUMNS}
    assert found == {
        "run": "pretrain/0.01",
        "stage": "pretrain",
        "lrs": [1e-2],
        "window": None,
        "seed": 1,
        "n": 1,
        "status": "complete",
        "done": 20,
        "planned": 20,
        "unit": "epoch",
        "train_loss": 1,
        "train_accuracy": 0.8,
        "test_accuracy": 0.4,
        "report": "test",
        "notes": [],
        "command": None,
    }
    averaged = row(study, "swa/0.01")
    assert averaged["test_accuracy"] == pytest.approx(0.63) and averaged["window"] == 5  # the largest window
    command(monkeypatch, "runs", study)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["run", "stage", "PLR", "seed", "n", "status"] and len(lines) == 20
    assert "  SWA of 5 weights  " in lines[-1]
    [line] = [line for line in lines if line.startswith("pretrain/0.01 ")]
    assert line.split() == [
        "pretrain/0.01",
        "pre-training",
        *"1e-2 1 1 complete 20/20 epochs 1 80.00 40.00".split(),
    ]
    assert [line.split()[0] for line in lines[:5]] == [f"pretrain/{plr}" for plr in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)]


def test_runs_that_stopped_run_or_were_not_begun_are_told_apart(study):
    settings = IMAGES | {"steps": 200}
    for number, name in enumerate(("stopped", "running", "new")):
        member = {"lrs": [5.0 + number], "seed": 1}
        write_run(study / name, "pretrain", [member], settings, status="running", final_step=7)
        with_argv(study / name, "train.py", "--out", f"my {name}")
        (study / name / "lock").touch()
    (study / "new/metrics.json").unlink()
    with open(study / "running/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {name: row(study, name) for name in ("stopped", "running", "new")}
    found = {name: (of["status"], of["done"], of["planned"], of["command"]) for name, of in rows.items()}
    assert found == {
        "stopped": ("stopped", 7, 200, "python train.py --out 'my stopped'"),
        "running": ("running", 7, 200, None),
        "new": ("stopped", 0, 200, "python train.py --out 'my new'"),
    }
    assert rows["new"]["test_accuracy"] is None
    assert text_lines(table(study))[-4:] == [
        "to finish what stopped:",
        "  python train.py --out 'my stopped'",
        "  python train.py --out 'my running'",
        "  python train.py --out 'my new'",
    ]


def test_what_is_odd_is_noted(study):
    member = {"lrs": [5.0], "seed": 1}
    write_run(study / "longer", "pretrain", [member], IMAGES | {"steps": 300, "keep": [7]})
    write_run(study / "wider", "pretrain", [member], IMAGES | {"width": 16})
    lost = {"lrs": [5.0, 1e-4], "seed": 1}
    write_run(study / "lost", "finetune", [lost], IMAGES, parent=study / "gone")
    write_run(study / "diverged", "pretrain", [member], IMAGES, train_loss=[None])
    metrics = json.loads((study / "diverged/metrics.json").read_text())
    (study / "diverged/metrics.json").write_text(json.dumps(metrics | {"diverged_at": [3]}))
    falling = [2 ** (-epoch / 4) for epoch in range(21)]
    write_run(study / "short", "pretrain", [member], IMAGES, train_loss=[falling], train_accuracy=[0.5])
    notes = {name: row(study, name)["notes"] for name in ("longer", "wider", "lost", "diverged", "short")}
    assert notes == {
        "longer": ["steps 300, of most 20"],
        "wider": ["width 16, of most 8"],
        "lost": ["the run that it continues, ../gone, is not here"],
        "diverged": ["diverged at epoch 3"],
        "short": ["not converged, and the train loss still falls"],
    }
    assert row(study, "diverged")["train_loss"] is None
    assert [of["notes"] for of in table(study) if of["run"] not in notes] == [[]] * 20


MEASURED = {
    "norms": {"checkpoint": [[1.0]]},
    "band": {"class": "cat", "panels": []},
    "bands": {"accuracy": {"full": [0.5]}},
    "sharpness": {"test_accuracy": [0.5]},
}


def test_a_measurement_is_missing_where_runs_of_the_same_stage_have_it(study):
    names = {"pretrain/0.1": ("norms", "band-images"), "finetune/0.1-1e-05": ("bands-keep", "sharpness-loss-1e-1")}
    for run, of_run in names.items():
        for name in of_run:
            write_json(study / run / f"{name}.json", whole(name, MEASURED[name.split("-")[0]]))
    (study / "finetune/1.0-1e-05/loss-1e-1.pt").touch()
    lacking = {found["run"]: found["notes"] for found in table(study) if found["notes"]}
    plrs = ("0.0001", "0.001", "0.01", "1.0")
    expected = {f"pretrain/{plr}": ["not measured: norms"] for plr in plrs}
    expected |= {f"finetune/{plr}-1e-05": ["not measured: bands-keep"] for plr in plrs[:3]}
    assert lacking == expected | {"finetune/1.0-1e-05": ["not measured: bands-keep, sharpness-loss-1e-1"]}


def test_stages_are_missing_that_continue_other_pre_trainings(tmp_path):
    def write(name, stage, lrs, parent=None, settings=(), **options):
        member = {"lrs": lrs, "seed": 1}
        path = parent and tmp_path / parent
        write_run(
            tmp_path / name, stage, [member], IMAGES | dict(settings), parent=path, train_accuracy=[1], **options
        )

    for name, plr in (("all", 1e-3), ("some", 1e-2), ("none", 1e-1), ("diverged", 1.0)):
        write(name, "pretrain", [plr])
    write("begun", "pretrain", [2.0], status="running")
    write("converge", "pretrain", [1e-3], settings={"until_loss": 0.1})
    path = tmp_path / "diverged/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"diverged_at": [3]}))
    for parent, plr, flrs in (("all", 1e-3, (1e-5, 1e-4)), ("some", 1e-2, (1e-4,))):
        for flr in flrs:
            write(f"{parent}-{flr}", "finetune", [plr, flr], parent)
    write("stopped", "swa", [1e-3], "all", settings={"windows": [2]}, status="running")
    write("second", "finetune", [1e-2, 1e-3], "some")  # a second stage, which others need not have
    write("third", "finetune", [1e-2, 1e-3, 1e-5], "second")
    assert {found["run"]: found["notes"] for found in table(tmp_path) if found["notes"]} == {
        "some": ["not continued by: fine-tuning at 1e-5, SWA"],
        "none": ["not continued by: fine-tuning at 1e-5, 1e-4, SWA"],
        "diverged": ["not continued by: fine-tuning at 1e-5, 1e-4, SWA", "diverged at epoch 3"],
    }


@pytest.mark.parametrize(
    "name, text",
    [
        ("config.json", "{"),
        ("config.json", '{"stage": "pretrain"}'),
        ("config.json", '{"stage": "pretrain", "settings": {}, "members": [{}], "parent": null}'),
        ("metrics.json", '{"status": "complete"'),
        ("metrics.json", "[]"),
        ("metrics.json", '{"status": "running", "diverged_at": [], "step": [], "train_loss": [], '
         '"train_accuracy": [], "test_loss": [], "test_accuracy": []}'),
    ],
)  # fmt: skip
def test_damaged_runs_are_listed_as_unreadable(study, name, text):
    (study / "pretrain/0.1" / name).write_text(text)
    *rows, last = table(study)
    assert (last["run"], last["status"]) == ("pretrain/0.1", "unreadable")
    assert "pretrain/0.1" in last["notes"][0] and len(rows) == 19
    assert text_lines([*rows, last])[-1].startswith("pretrain/0.1 ")


def test_members_of_a_learning_rate_share_a_row_over_all_folders(tmp_path):
    for number in (1, 2):
        members = [{"lrs": [lr], "seed": seed, "data_seed": number} for lr in (1e-3, 1e-2) for seed in (1, 2)]
        accuracies = [0.5 + 0.01 * number * index for index in range(4)]
        write_run(tmp_path / f"data{number}", "pretrain", members, TICKS, test_accuracy=accuracies)
    rows = table(tmp_path)
    assert [(found["run"], found["lrs"], found["seed"], found["n"]) for found in rows] == [
        ("data1 and 1 more", [1e-3], None, 4),
        ("data1 and 1 more", [1e-2], None, 4),
    ]
    assert [found["test_accuracy"] for found in rows] == [0.5075, 0.5375]  # by 7 digits, as the sums are not exact
    assert all("  4 members  4  " in line for line in text_lines(rows)[1:])
    metrics = json.loads((tmp_path / "data2/metrics.json").read_text())
    (tmp_path / "data2/metrics.json").write_text(json.dumps(metrics | {"diverged_at": [None, 3, None, None]}))
    assert [(found["n"], found["notes"]) for found in table(tmp_path)] == [
        (3, []),
        (1, ["diverged at epoch 3"]),
        (4, []),
    ]
    assert [found["seed"] for found in table(tmp_path)] == [None, 2, None]


def test_a_mean_has_seven_digits(tmp_path):
    members = [{"lrs": [1e-3], "seed": seed} for seed in (1, 2, 3)]
    write_run(
        tmp_path / "a", "pretrain", members, TICKS, test_accuracy=[0.7, 0.7, 0.8], train_loss=[1e-5, 1e-5, 2e-5]
    )
    [found] = table(tmp_path)
    assert (found["test_accuracy"], found["train_loss"]) == (0.7333333, 1.333333e-05)


def test_the_largest_average_is_shown_wherever_it_stands(tmp_path):
    swa = {"window": [5, 2], "test_accuracy": [[0.5], [0.25]]}
    write_run(tmp_path / "a", "swa", [{"lrs": [1e-3], "seed": 1}], IMAGES | {"windows": [5, 2]}, swa=swa)
    [found] = table(tmp_path)
    assert (found["window"], found["test_accuracy"]) == (5, 0.5)


def test_the_table_is_written_as_json_and_csv(study, tmp_path, monkeypatch, capsys):
    write_run(study / "longer", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES | {"steps": 300})
    files = ["--json", tmp_path / "runs.json", "--csv", tmp_path / "runs.csv"]
    command(monkeypatch, "runs", study, "--only-runs", "finetune/*", "longer", *files)
    rows = table(study, ["finetune/*", "longer"])
    assert len(rows) == 11
    assert json.loads((tmp_path / "runs.json").read_text()) == {"folder": str(study), "runs": rows}
    with open(tmp_path / "runs.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [of["run"] for of in written] == [of["run"] for of in rows] and list(written[0]) == list(COLUMNS)
    [tuned] = [of for of in written if of["run"] == "finetune/0.1-1e-05"]
    assert tuned["lrs"] == "0.1 1e-05" and float(tuned["test_accuracy"]) == 0.61 and tuned["command"] == ""


@pytest.mark.parametrize(
    "splits, heading, column",
    [
        (("test", "test"), "test acc. %", "test_accuracy"),
        (("validation", "validation"), "validation acc. %", "validation_accuracy"),
        (("validation", "test"), "test or validation acc. %", "test_or_validation_accuracy"),
    ],
)
def test_the_split_that_runs_report_on_is_named(tmp_path, splits, heading, column):
    for lr, split in zip((1e-3, 1e-2), splits):
        member = {"lrs": [lr], "seed": 1}
        write_run(tmp_path / f"runs/{lr}", "pretrain", [member], IMAGES | {"report": split}, test_accuracy=[0.5])
    rows = table(tmp_path / "runs")
    assert f"train acc. %  {heading}  notes" in text_lines(rows)[0]
    write_csv(tmp_path / "runs.csv", rows)
    with open(tmp_path / "runs.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [of[column] for of in written] == ["0.5", "0.5"] and [of["report"] for of in written] == [*splits]
    assert [found["test_accuracy"] for found in rows] == [0.5, 0.5]


def test_names_that_are_not_utf8_are_written_as_they_are(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "caf\udce9", "pretrain", [{"lrs": [5.0], "seed": 1}], IMAGES)
    command(monkeypatch, "runs", tmp_path / "runs", "--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json")
    assert b"\ncaf\xe9,pretrain," in (tmp_path / "a.csv").read_bytes()
    [found] = json.loads((tmp_path / "a.json").read_text())["runs"]
    assert found["run"] == "caf\udce9"


def test_a_folder_without_runs_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="holds no run folders"):
        table(tmp_path)


@pytest.mark.parametrize("grown", [False, True])
def test_damaged_measurements_are_odd(grown, study, monkeypatch, capsys):
    """Of runs that were made longer, too, whose measurements tell by what is in them which end they are of."""
    config = json.loads((study / "pretrain/0.1/config.json").read_text())
    earlier = {"earlier": [{"steps": 10, "keep": [10]}]} if grown else {}
    (study / "pretrain/0.1/config.json").write_text(json.dumps(config | earlier))
    for name in ("norms", "bands-keep"):
        whole_one = whole(name, MEASURED[name.split("-")[0]]) | {"end": 20}
        write_json(study / "pretrain/0.1" / f"{name}.json", whole_one)
        write_json(study / "pretrain/0.01" / f"{name}.json", whole_one)
    (study / "pretrain/0.1/norms.json").write_text("{")
    (study / "pretrain/0.1/mine.json").write_text("[]")
    command(monkeypatch, "runs", study)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain/0.1 ")]
    assert f"{study}/pretrain/0.1/norms.json: is not valid JSON" in line and "remove it and measure again" in line
    assert "not measured" not in line and "bands" not in line and "mine" not in line
    notes = [found["notes"] for found in table(study) if found["run"].startswith("pretrain/")]
    assert sorted(map(len, notes)) == [0, 1, 1, 1, 1] and ["not measured: bands-keep, norms"] in notes
