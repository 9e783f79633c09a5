"""How long the analysis takes, and how much memory, of many run folders and of large metrics.

    python bench/reading.py [--turns N] [--out FILE]

Two sweeps are written to a temporary folder: 200 folders of one member with 200 logged epochs each (25 PLRs: pre-training,
fine-tuning at six FLRs and SWA), and one on ticks of a million points (500 members, 500 logged steps, four series), with
fine-tuning at two FLRs of a tenth of that. Their numbers follow formulas, as nothing is learned from them here. Every
measurement is a process of its own, from the start of Python on; `python` alone imports what all commands do.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import ROOT, machine, say  # noqa: E402
from data.commandline import Parser, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402
from data.runs import COMPLETE, FORMAT  # noqa: E402

PLRS = np.geomspace(1e-5, 1e-1, 25).tolist()
FLRS = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4]
IMAGES = {
    "data": "cifar10", "digest": "0" * 64, "classes": 10, "model": "si-convnet", "width": 8, "shape": {}, "batch_size": 128,
    "rho": 1.0, "compile": False, "precision": "fp32", "augment": "none", "report": "test", "log_every": 1, "keep": [],
    "optimizer": {"name": "projected-sgd"}, "until_loss": None, "keep_loss": [],
}  # fmt: skip
TICKS = {
    "data": "ticks", "classes": 2, "model": "si-mlp", "batch_size": 32, "rho": 1.0, "compile": False, "log_every": 10,
    "keep": [], "optimizer": {"name": "projected-sgd"}, "until_loss": None, "keep_loss": [],
}  # fmt: skip
COMMANDS = {
    "python": ["-c", "import analyze"],
    "runs": ["analyze.py", "runs"],
    "claims": ["analyze.py", "claims"],
    "figures": ["analyze.py", "figures"],
    "curves": ["analyze.py", "curves"],
}


def main():
    parser = Parser(description="Time the analysis of many run folders, and of large metrics.")
    parser.add_argument("--turns", type=positive_int, default=3, help="measurements of each command")
    parser.add_argument("--out", type=Path, help="JSON file for the measurements")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sweeps = {"200 folders": Path(folder) / "images", "a million points": Path(folder) / "ticks"}
        write_images(sweeps["200 folders"])
        write_ticks(sweeps["a million points"])
        measured = {}
        for turn in range(args.turns):
            for sweep, path in sweeps.items():
                for name in COMMANDS:
                    seconds, mebibytes = measure(name, path)
                    say(f"turn {turn + 1} of {args.turns}: {sweep}, {name}: {seconds:.1f} s, {mebibytes:.0f} MiB")
                    measured.setdefault(sweep, {}).setdefault(name, []).append([seconds, mebibytes])
    for sweep, of_sweep in measured.items():
        for name, turns in of_sweep.items():
            seconds, mebibytes = zip(*turns)
            print(f"{sweep}, {name}: {statistics.median(seconds):.1f} s, {max(mebibytes):.0f} MiB at most")
    if args.out:
        write_json(args.out, {**machine("cpu"), "seconds_and_mebibytes": measured})


def measure(name, path):
    """(seconds, MiB at most) of a command on a folder of runs."""
    drawn = ["--out", str(path.parent / f"{name}-{path.name}")] if name in ("figures", "curves") else []
    command = [sys.executable, *COMMANDS[name], *([str(path), *drawn] if name != "python" else [])]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / 1024


def write_images(folder):
    """25 PLRs, of which the lower half converges and the last two are at chance."""
    random = np.random.default_rng(0)
    for index, plr in enumerate(PLRS):
        member = {"seed": 2000 + index}
        own = {"first_step": 0, "steps": 200}
        pretrained = folder / f"pretrain/{index}"
        write_run(pretrained, "pretrain", [member | {"lrs": [plr]}], IMAGES | own, series(random, [plr], 200))
        for flr in FLRS:
            own = {"first_step": 200, "steps": 200}
            members = [member | {"lrs": [plr, flr]}]
            path = folder / f"finetune/{index}-{flr}"
            write_run(path, "finetune", members, IMAGES | own, series(random, [min(plr, flr)], 200), pretrained)
        own = {"first_step": 200, "steps": 9, "windows": [2, 5, 10], "spacing": 1, "anchor": "start"}
        swa = {"window": [2, 5, 10]} | {
            name: [[0.8]] * 3 for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        }
        path = folder / f"swa/{index}"
        write_run(path, "swa", [member | {"lrs": [plr]}], IMAGES | own, series(random, [plr], 9), pretrained, swa)


def write_ticks(folder):
    """20 pairs of seeds at the 25 PLRs in one folder."""
    random = np.random.default_rng(0)
    members = [{"lrs": [plr], "seed": 1, "data_seed": seed} for seed in range(20) for plr in PLRS]
    plrs = [member["lrs"][0] for member in members]
    own = {"first_step": 0, "steps": 5000}
    write_run(folder / "pretrain", "pretrain", members, TICKS | own, series(random, plrs, 5000, every=10))
    for flr in (1e-4, 1e-3):
        of_flr = [member | {"lrs": [*member["lrs"], flr]} for member in members]
        own, found = {"first_step": 5000, "steps": 500}, series(random, np.minimum(plrs, flr), 500, every=10)
        write_run(folder / f"finetune-{flr}", "finetune", of_flr, TICKS | own, found, folder / "pretrain")


def series(random, lrs, steps, every=1):
    """Metrics of members at these learning rates: losses fall to nothing, stay, or never fall, with noise."""
    logged = np.arange(0, steps + 1, every)
    position = np.searchsorted(PLRS, lrs) / len(PLRS)
    floor = np.where(position < 0.5, 1e-4, 2.3 * position**2)
    loss = floor + 2.3 * np.exp(-10 * logged[:, None] / steps) + 1e-3 * random.random((len(logged), len(lrs)))
    accuracy = np.clip(1 - loss / 2.5, 0.1, 1)
    accuracy = np.where((position < 0.5) & (logged[:, None] > steps / 2), 1, accuracy)
    found = {
        "train_loss": loss,
        "train_accuracy": accuracy,
        "test_loss": loss + 0.1,
        "test_accuracy": 0.8 * accuracy,
    }
    found = {name: np.round(values, 7).tolist() for name, values in found.items()}
    return {"step": logged.tolist()} | found


def write_run(path, stage, members, settings, found, parent=None, swa=None):
    origin = parent and {"run": os.path.relpath(parent, path), "step": settings["first_step"]}
    path.mkdir(parents=True)
    config = {"format": FORMAT, "stage": stage, "settings": settings, "members": members, "parent": origin}
    data_file = None if settings["data"] == "ticks" else "set.pt"
    write_json(path / "config.json", config | {"data_file": data_file})
    unit = "iteration" if settings["data"] == "ticks" else "epoch"
    metrics = {"status": COMPLETE, "unit": unit, "diverged_at": [None] * len(members)} | found
    write_json(path / "metrics.json", metrics | ({"swa": swa} if swa else {}))


if __name__ == "__main__":
    run(main)
