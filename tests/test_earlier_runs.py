"""Run folders of format 1, made before folders had a format number: tests/earlier_runs.

Two learning rates on random images and two on ticks with all stages and measurements, and a run that was killed after
the second of five epochs.
"""

import shutil
from pathlib import Path

import pytest
import torch
from test_runs import call, contents, load, strict_json

import analyze
from data.runs import FORMAT, Run, find_runs

NETWORK = ["--data", "images.pt", "--model", "si-convnet", "--width", 2, "--batch-size", 32, "--lr", 1e-2]
KILLED = ["train", *NETWORK, "--steps", 5, "--checkpoint-seconds", 0, "--out", "killed"]


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    folder = tmp_path / "earlier"
    shutil.copytree(Path(__file__).parent / "earlier_runs", folder)
    monkeypatch.chdir(folder)
    return folder


def test_they_are_known_to_be_older(earlier):
    for run in find_runs(earlier):
        assert "format" not in run.config and run.network["task"] == run.path.relative_to(earlier).parts[
            0
        ].replace("killed", "images")


def test_the_same_command_finds_a_complete_run(earlier):
    run = earlier / "images/pretrain/plr1e-2"
    before = contents(run)
    made = ["train", *NETWORK, "--steps", 3, "--keep", 2, "--keep-loss", 3, "--out", "images/pretrain/plr1e-2"]
    assert call(*made) == 0
    assert call("swa", "images/pretrain/plr1e-2", "--windows", 2, 5, "--out", "images/swa") == 0
    assert (
        call(
            "finetune",
            "images/pretrain/plr1e-2",
            "--lr",
            1e-5,
            "--steps",
            2,
            "--keep-loss",
            3,
            "--out",
            "images/finetune",
        )
        == 0
    )
    assert {name: found for name, found in contents(run).items() if name != "lock"} == before
    assert call(*made, "--batch-size", 16) == 3


def test_a_killed_run_goes_on(earlier):
    beginning = strict_json(earlier / "killed/metrics.json")
    assert call(*KILLED) == 0
    metrics = strict_json(earlier / "killed/metrics.json")
    assert metrics["status"] == "complete" and metrics["step"] == [0, 1, 2, 3, 4, 5]
    assert [loss[:1] for loss in metrics["train_loss"][:3]] == beginning["train_loss"][:3]
    # The same network was trained for two epochs in another folder, which is continued here.
    continued = ["images/pretrain/plr1e-2", "--from-step", 2, "--lr", 1e-2, "--steps", 3]
    assert call("finetune", *continued, "--out", "continued") == 0
    [child] = Path("continued").iterdir()
    for name in ("weights", "buffers"):
        torch.testing.assert_close(
            load(earlier / "killed/checkpoint.pt")[name], load(child / "checkpoint.pt")[name], rtol=0, atol=0
        )
    assert Run(child).config["format"] == FORMAT


def test_they_are_continued(earlier):
    assert call("finetune", "ticks/pretrain/seed1", "--lr", 1e-3, "--steps", 20, "--out", "ticks/finetune") == 0
    assert call("swa", "images/pretrain/plr1e-4", "--windows", 3, "--out", "more") == 0
    assert torch.equal(load(Path("more/plr1e-4/checkpoint.pt"))["weights"].isfinite().all(), torch.tensor(True))
    swa = strict_json(Path("more/plr1e-4/metrics.json"))
    assert swa["status"] == "complete" and swa["train_loss"][0] is not None
    tuned = strict_json(next(Path("ticks/finetune").glob("*flr1e-3")) / "metrics.json")
    assert tuned["test_loss"][0] == strict_json(Path("ticks/pretrain/seed1/metrics.json"))["test_loss"][-1]


@pytest.mark.parametrize("kind, figures", [("images", [1, 2, 3, 6, 7, 9]), ("ticks", [4, 5, 15, 16, 17])])
def test_they_are_measured_and_drawn(kind, figures, earlier, monkeypatch, capsys):
    def analyse(*arguments):
        monkeypatch.setattr("sys.argv", ["analyze.py", *arguments])
        analyze.main()

    def measurements():
        return {path: path.read_bytes() for path in Path(kind).rglob("*.json") if path.name != "features.json"}

    measured = measurements()
    for what in {"images": ("geometry", "bands", "norms"), "ticks": ("geometry", "features")}[kind]:
        analyse(what, kind)
    analyse("claims", kind)
    analyse("figures", kind, "--out", "figures", "--only", *map(str, figures))
    assert measurements() == measured
    for path in Path(kind).rglob("features.json"):  # of plain accuracies until then
        assert set(strict_json(path)) == {"solution", "balanced_accuracy", "end"}
    for number in figures:
        assert Path(f"figures/figure{number:02d}.pdf").exists()
    floors = {"images": ("figure03", 0.1), "ticks": ("figure16", 0.01)}
    name, floor = floors[kind]
    assert strict_json(Path(f"figures/{name}.json"))["floor"] == floor


def test_runs_on_ticks_from_before_they_could_be_compiled(earlier):
    config = earlier / "ticks/pretrain/seed1/config.json"
    config.write_text(config.read_text().replace('"compile": false, ', ""))
    assert "compile" not in config.read_text()
    assert call("finetune", "ticks/pretrain/seed1", "--lr", 1e-3, "--steps", 20, "--out", "more") == 0


def test_a_folder_of_a_newer_format_is_refused(earlier, capsys):
    config = earlier / "killed/config.json"
    config.write_text(config.read_text().replace("{", f'{{"format": {FORMAT + 1},', 1))
    assert call(*KILLED) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "newer" in line
