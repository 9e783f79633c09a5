"""How good learning rates are that are found in different ways, by the test accuracy after the same fine-tuning.

    pip install -r bench/requirements.txt
    python bench/peers.py si-convnet --data datasets/mine.pt --out runs/peers/si-convnet --json bench/peers-si-convnet.json

Ways: the search of scripts/find_lr.sh; the steepest point, and a tenth of the lowest one, of the range test of
torch-lr-finder; half the learning rate at which training diverges; the best of a grid. Each finds a learning rate with every
seed, and the grid with all of them, by held-out images (--data must have some; on ticks, by the test set). Then a network is
pre-trained at it with that seed, and fine-tuned at two FLRs, the same for all ways: a tenth and half of the largest PLR of
the grid that converges, of which held-out images choose one. The same command resumes it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import data.startup  # noqa: F401, E402 # isort: skip
import concurrent.futures  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shlex  # noqa: E402
import subprocess  # noqa: E402
from typing import NamedTuple  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import train  # noqa: E402
from bench.baseline import BaselineRun  # noqa: E402
from bench.common import ROOT, machine, say  # noqa: E402
from data import ticks  # noqa: E402
from data.commandline import BadInput, Parser, lr_name, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402
from data.runs import Run  # noqa: E402

RANGE = {"start_lr": 1e-7, "end_lr": 10, "num_iter": 100}  # as torch-lr-finder's own examples have it
LOW_FLR, HIGH_FLR = 1 / 10, 1 / 2  # of fine-tuning, as parts of the largest PLR of the grid that converges


class Setup(NamedTuple):
    """A network and lengths of its stages. grid: PLRs. start: PLRs that the search begins between."""

    flags: str
    epochs: int
    finetune_epochs: int
    log_every: int
    grid: str
    start: str


SMALL_IMAGES = "1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1"
SETUPS = {
    "si-convnet": Setup("--model si-convnet --width 8", 60, 40, 1, SMALL_IMAGES, "1e-4 1e-1"),
    "resnet18": Setup(
        "--model resnet18 --width 8", 60, 40, 1, "1e-3 3e-3 1e-2 2e-2 5e-2 1e-1 2e-1 5e-1", "1e-3 1e0"
    ),
    "vit": Setup(
        "--model vit --width 64 --depth 4 --heads 4 --patch 4 --augment crop-flip --batch-size 64",
        *(60, 40, 1, "1e-4 2e-4 5e-4 1e-3 2e-3 3e-3 5e-3 1e-2", "1e-4 1e-1"),
    ),
    "own": Setup(
        "--model bench/own_network.py:network", 60, 40, 1, "1e-4 1e-3 1e-2 3e-2 1e-1 3e-1 1e0", "1e-4 1e0"
    ),
    "si-mlp": Setup(
        "--model si-mlp",
        *(
            40000,
            40000,
            1000,
            "1e-4 1e-3 3e-3 5.6e-3 7.5e-3 1e-2 1.3e-2 1.8e-2 2.4e-2 3.2e-2 4.2e-2 5.6e-2",
            "1e-4 1e-1",
        ),
    ),
}
GRID, SEARCH, STEEPEST, TENTH, HALF = "grid", "search", "steepest", "lowest / 10", "half of divergence"


# ------------------------------------------------------------------------------------------------- the range test


class AsTorchOptimizer(torch.optim.Optimizer):
    """The optimiser of an ImageTraining as torch-lr-finder takes it."""

    def __init__(self, task):
        super().__init__([task.weights], {"lr": RANGE["start_lr"]})
        self.optimizer, self.gradient = task.optimizer, task.evaluator.gradient

    def zero_grad(self, set_to_none=True):
        self.gradient.zero_()  # which parameters have a view of

    def step(self, closure=None):
        lr = self.param_groups[0]["lr"]
        if hasattr(self.optimizer, "param_groups"):
            self.optimizer.param_groups[0]["lr"] = lr
        else:
            self.optimizer.lr = lr
        self.optimizer.step()


def range_test(config, device):
    """{way: learning rate} by the range test of torch-lr-finder, of the network, optimiser and batches of a run."""
    from torch_lr_finder import LRFinder

    network, optimizer, loss, batches = (tick_parts if config["settings"]["data"] == ticks.NAME else image_parts)(
        config, device
    )
    finder = LRFinder(network, optimizer, loss, device=device)
    finder.range_test(batches, **RANGE)
    _, steepest = finder.plot(suggest_lr=True)
    rates, losses = (np.array(finder.history[name]) for name in ("lr", "loss"))
    return {STEEPEST: float(steepest), TENTH: float(rates[losses.argmin()]) / 10}


def image_parts(config, device):
    """(network, optimiser, loss, DataLoader) of an image network; images are not augmented."""
    task = train.make_task(config, device, train.load_data(config, device))
    images = task.data.normalise(task.data.train_images)
    order = torch.Generator().manual_seed(config["members"][0]["seed"])
    loader = DataLoader(
        TensorDataset(images, task.data.train_labels),
        config["settings"]["batch_size"],
        shuffle=True,
        generator=order,
    )
    return task.evaluator.network, AsTorchOptimizer(task), cross_entropy, loader


def tick_parts(config, device):
    """The same of the MLP on ticks, on the unit sphere."""
    [member] = config["members"]
    baseline = BaselineRun(RANGE["start_lr"], member["seed"], member["data_seed"])
    order = torch.Generator().manual_seed(member["seed"])
    training_set = TensorDataset(baseline.sets.train_inputs, baseline.sets.train_labels)
    loader = DataLoader(training_set, ticks.BATCH_SIZE, shuffle=True, generator=order)

    def loss(logits, labels):
        return baseline.loss(logits.squeeze(1), labels)

    return baseline.network, baseline.optimizer, loss, loader


# ------------------------------------------------------------------------------------------------- runs


class Bench:
    """The runs of one setup in a folder."""

    def __init__(self, setup, args):
        self.setup, self.args, self.seeds = setup, args, list(range(1, args.seeds + 1))
        self.on_ticks = args.data == ticks.NAME
        self.report = [] if self.on_ticks else ["--report", "validation"]

    def name(self, lr, seed):
        return f"plr{lr_name(lr)}-seed{seed}"

    def pretrain(self, lr, seed):
        data_seed = ["--data-seed", seed] if self.on_ticks else []
        lengths = ["--steps", self.setup.epochs, "--log-every", self.setup.log_every]
        flags = [*shlex.split(self.setup.flags), "--data", self.args.data, *self.report, *data_seed]
        out = self.args.out / "pretrain" / self.name(lr, seed)
        return ["train.py", *flags, "--lr", lr, "--seed", seed, *lengths, "--out", out]

    def finetune(self, lr, seed, flrs):
        return [
            *("finetune.py", self.args.out / "pretrain" / self.name(lr, seed), "--lr", *flrs),
            *("--steps", self.setup.finetune_epochs, "--out", self.args.out / "finetune", *self.own_network()),
        ]

    def own_network(self):
        """What the stages after the first one have to be told of a network of a user's own."""
        model = shlex.split(self.setup.flags)[1]
        return ["--model", model] if ".py:" in model else []

    def make(self, commands):
        """Run commands of our scripts, as many at once as there are jobs. Raises BadInput where one fails."""
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            for number, _ in enumerate(pool.map(run_script, commands), 1):
                say(f"{number} of {len(commands)} commands are done")

    def trained(self, picks, flrs):
        """Pre-train and fine-tune at picks, (learning rate, seed) each."""
        picks = sorted({*picks})
        self.make([self.pretrain(lr, seed) for lr, seed in picks])
        self.make([self.finetune(lr, seed, flrs) for lr, seed in picks])

    def solutions(self, lr, seed, flrs):
        """{FLR: Run} fine-tuned from a pick."""
        names = {flr: f"{self.name(lr, seed)}-flr{lr_name(flr)}" for flr in flrs}
        return {flr: Run(self.args.out / "finetune" / name) for flr, name in names.items()}

    def chosen(self, lr, seed, flrs):
        """(accuracy that chooses, Run) of the better FLR."""
        found = [(run.final("test_accuracy")[0] or 0, run) for run in self.solutions(lr, seed, flrs).values()]
        return max(found, key=lambda one: one[0])


def run_script(command):
    """Run one of our scripts with one thread. Raises BadInput where it fails."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise BadInput(f"{shlex.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def half_of_divergence(bench):
    """Half the smallest PLR of the grid whose pre-training is at chance or not finite with most seeds; None of none."""
    claims = bench.args.out / "claims.json"
    run_script(["analyze.py", "claims", bench.args.out, "--only-runs", *grid_patterns(bench), "--json", claims])
    b23 = json.loads(claims.read_text())["regimes"]["b23"]
    return b23["next"] / 2 if b23 else None


def grid_patterns(bench):
    names = [bench.name(float(lr), seed) for lr in bench.setup.grid.split() for seed in bench.seeds]
    return [*names, *(f"{name}-flr*" for name in names)]


def search(bench, seed):
    """(answer of the search that begins with a seed, as analyze.py band --json has it)."""
    out = bench.args.out / f"search-seed{seed}"
    model, *flags = shlex.split(bench.setup.flags)[1:]
    environment = {
        "EPOCHS": bench.setup.epochs,
        "FINETUNE_EPOCHS": bench.setup.finetune_epochs,
        "START": bench.setup.start,
        "FIRST_SEED": seed,
        "JOBS": bench.args.jobs,
        "TRAIN_FLAGS": shlex.join(flags),
    }
    command = ["bash", "scripts/find_lr.sh", model, str(bench.args.data), str(out)]
    environment = {name: str(value) for name, value in environment.items()}
    if subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=sys.stderr).returncode:
        raise BadInput(f"{shlex.join(command)}: failed; what it said is above")
    return json.loads((out / "band.json").read_text())


# ------------------------------------------------------------------------------------------------- the comparison


def compare(bench):
    """What is written to --json."""
    grid = [float(lr) for lr in bench.setup.grid.split()]
    everything = [(lr, seed) for lr in grid for seed in bench.seeds]
    bench.make([bench.pretrain(lr, seed) for lr, seed in everything])
    b12 = float(run_script(["analyze.py", "boundary", bench.args.out / "pretrain", "--grid"]).split()[0])
    flrs = [float(f"{part * b12:.3g}") for part in (LOW_FLR, HIGH_FLR)]
    bench.trained(everything, flrs)
    answers = {seed: search(bench, seed) for seed in bench.seeds}
    picks = {SEARCH: {seed: answer["best"]["plr"] for seed, answer in answers.items() if answer["best"]}}
    for seed in bench.seeds:
        config = Run(bench.args.out / "pretrain" / bench.name(grid[0], seed)).config
        for way, lr in range_test(config, torch.device("cpu")).items():
            picks.setdefault(way, {})[seed] = float(f"{lr:.3g}")
    half = half_of_divergence(bench)
    picks[HALF] = dict.fromkeys(bench.seeds, half) if half else {}
    means = {lr: np.mean([bench.chosen(lr, seed, flrs)[0] for seed in bench.seeds]) for lr in grid}
    picks[GRID] = dict.fromkeys(bench.seeds, max(grid, key=means.__getitem__))
    bench.trained([(lr, seed) for of_way in picks.values() for seed, lr in of_way.items()], flrs)
    training = bench.setup.epochs + bench.setup.finetune_epochs
    return {
        "command": shlex.join(sys.argv),
        **machine("cpu"),
        "setup": bench.setup._asdict(),
        "flrs": flrs,
        "bands": {seed: answer["band"] for seed, answer in answers.items()},
        "search_cost": {seed: answer["epochs"]["spent"] / training for seed, answer in answers.items()},
        "grid_cost": len(grid) * (bench.setup.epochs + len(flrs) * bench.setup.finetune_epochs) / training,
        "ways": {way: of_way(bench, found, flrs) for way, found in picks.items()},
    }


def of_way(bench, picks, flrs):
    """A way's learning rates by seed, and the test accuracies, in percent, of the solutions that are chosen there."""
    accuracies = {}
    for seed, lr in picks.items():
        _, run = bench.chosen(lr, seed, flrs)
        accuracies[seed] = 100 * test_accuracy(bench, run)
    values = list(accuracies.values())
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "learning_rates": picks,
        "test_accuracy": accuracies,
        "mean": float(np.mean(values)) if values else None,
        "std": std,
    }


def test_accuracy(bench, run):
    """The test accuracy of the end of a run, where it reports on held-out images by analyze.py test."""
    if bench.on_ticks:
        return run.final("test_accuracy")[0]
    run_script(["analyze.py", "test", run.path, *bench.own_network()])
    return json.loads((run.path / "test.json").read_text())["accuracy"][0][0]


def main():
    parser = Parser(
        __doc__.splitlines()[0], "python bench/peers.py si-mlp --data ticks --out runs/peers/si-mlp --json x.json"
    )
    parser.add_argument("setup", choices=SETUPS, help="network, grid and lengths")
    parser.add_argument("--data", required=True, help="`ticks`, or a prepared image set that holds images out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="file for the result")
    parser.add_argument("--seeds", type=positive_int, default=3, help="of every way")
    parser.add_argument("--jobs", type=positive_int, default=2, help="processes at once, with one thread each")
    args = parser.parse_args()
    args.out = args.out.resolve()
    if args.data != ticks.NAME:
        args.data = Path(args.data).resolve()
    write_json(args.json, compare(Bench(SETUPS[args.setup], args)))


if __name__ == "__main__":
    run(main)
