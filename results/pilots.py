"""A table of the runs that pilots.md is about, from their folders: one line for each complete one but SWA.

    python results/pilots.py FOLDER... > results/pilots.tsv
    python results/pilots.py --means convnet-small results/pilots.tsv

FOLDER: of run folders; the last part of its name and what is below it name a run. Accuracies are percent. `test` is the
final one with running batch-norm statistics, `reestimated` with those re-estimated over the training set (empty where
metrics.json does not have it), `late_mean` and `late_std` mean and standard deviation (n - 1) of `test` over the logged
epochs of the last tenth, `late_train` the mean train accuracy over these, `late_n` their number.

--means NAME TABLE: means over the seeds of an experiment in the table, by PLR and FLR, for pilots.md.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

COLUMNS = (
    "run", "model", "width", "data", "batch", "stage", "lrs", "seed", "epochs", "train_loss", "train", "late_train",
    "test", "reestimated", "late_mean", "late_std", "late_n",
)  # fmt: skip


def row(config, metrics, name):
    settings, [member] = config["settings"], config["members"]
    last = metrics["step"][-1]
    late = [step > last - max(1, last // 10) for step in metrics["step"]]
    train, test = (100 * np.array(metrics[key], dtype=float)[:, 0] for key in ("train_accuracy", "test_accuracy"))
    of_late, there = test[late], metrics.get("reestimated")
    return (
        name, settings["model"], settings["width"], settings["data"], settings["batch_size"], config["stage"],
        " ".join(f"{lr:g}" for lr in member["lrs"]), member["seed"], last, f"{metrics['train_loss'][-1][0]:.4f}",
        f"{train[-1]:.2f}", f"{train[late].mean():.2f}", f"{test[-1]:.2f}",
        f"{100 * there['test_accuracy'][0]:.2f}" if there else "", f"{of_late.mean():.2f}",
        f"{of_late.std(ddof=1):.2f}" if len(of_late) > 1 else "", len(of_late),
    )  # fmt: skip


def print_means(name, table):
    """A row for each PLR: train accuracy, test accuracy of pre-training and after each FLR with re-estimated in brackets,
    and by how much re-estimation raises that of the single pre-trainings."""
    by_lrs = {}
    with open(table) as file:
        for line in csv.DictReader(file, delimiter="\t"):
            if line["run"].startswith(f"{name}/"):
                by_lrs.setdefault(tuple(map(float, line["lrs"].split())), []).append(line)

    def values(lrs, column):
        return np.array([float(line[column]) for line in by_lrs[lrs]])

    plrs = sorted(lrs[0] for lrs in by_lrs if len(lrs) == 1)
    flrs = sorted({lrs[1] for lrs in by_lrs if len(lrs) == 2})
    flrs = [flr for flr in flrs if all((plr, flr) in by_lrs for plr in plrs)]
    print("| PLR | train | pre-training |", " | ".join(f"FLR {flr:g}" for flr in flrs), "| gain |")
    print("|---" * (4 + len(flrs)) + "|")
    for plr in plrs:
        gains = values((plr,), "reestimated") - values((plr,), "test")
        cells = [f"{plr:g}", f"{values((plr,), 'train').mean():.1f}"]
        cells += [
            f"{values(lrs, 'test').mean():.1f} ({values(lrs, 'reestimated').mean():.1f})"
            for lrs in [(plr,), *((plr, flr) for flr in flrs)]
        ]
        print("|", " | ".join([*cells, f"{gains.min():.1f} to {gains.max():.1f}"]), "|")


def main():
    if sys.argv[1:2] == ["--means"]:
        return print_means(*sys.argv[2:])
    print(*COLUMNS, sep="\t")
    for folder in map(Path, sys.argv[1:]):
        for path in sorted(folder.glob("**/config.json")):
            config, metrics = (
                json.loads((path.parent / f"{name}.json").read_text()) for name in ("config", "metrics")
            )
            if metrics["status"] == "complete" and config["stage"] != "swa":
                print(*row(config, metrics, f"{folder.name}/{path.parent.relative_to(folder)}"), sep="\t")


if __name__ == "__main__":
    main()
