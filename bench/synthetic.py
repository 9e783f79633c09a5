"""Pre-training on ticks, ours and the usual way (usual.py), in microseconds of wall time per network and step.

    python bench/synthetic.py [--processes 2] [--repeats 3] [--out bench/synthetic.json]

As a user gets them: train.py with 575 networks (5 data seeds x 5 training seeds x 23 learning rates) in each of some
processes side by side, and usual.py with one; one thread each, both measuring every 1,000 steps. Every repeat runs all
programs, at two lengths: the difference between these is the cost of steps, without that of starting. Before that, both
are shown to train the same networks. The floor is what the operations of a step take at the speed of a large matrix product.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench.usual import UsualRun  # noqa: E402
from data import ticks  # noqa: E402
from data.commandline import Parser, positive_int  # noqa: E402
from models import mlp  # noqa: E402
from train import TickTraining  # noqa: E402

OURS = "train.py @scripts/ticks.args --data-seed 1 2 3 4 5 --device cpu --seed {seeds} --steps {steps} --out {out}"
USUAL = "bench/usual.py --lr 1e-3 --data-seed 1 --seed {seed} --steps {steps} --out {out}"
STEPS = (2000, 8000)  # of the shorter and of the longer runs
# name: (command, networks per process)
PROGRAMS = {
    "train.py --compile": (OURS + " --compile", 575),
    "train.py": (OURS, 575),
    "the usual way": (USUAL, 1),
}


def seconds(command, processes, steps):
    """Wall time until all of the processes, started together, are done."""
    with tempfile.TemporaryDirectory() as folder:
        commands = []
        for seed in range(1, processes + 1):
            seeds = " ".join(str(5 * seed + more) for more in range(5))
            filled = command.format(steps=steps, seed=seed, seeds=seeds, out=f"{folder}/{seed}")
            commands.append([sys.executable, *filled.split()])
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        start = time.perf_counter()
        running = [subprocess.Popen(c, cwd=ROOT, env=environment, **quiet) for c in commands]
        assert all(process.wait() == 0 for process in running)
        return time.perf_counter() - start


def microseconds_per_step(program, processes):
    command, networks = PROGRAMS[program]
    short, long = STEPS
    difference = seconds(command, processes, long) - seconds(command, processes, short)
    return 1e6 * difference / ((long - short) * networks * processes)


def difference_of_trajectories(steps=200):
    """The largest difference between a weight of ours and of the usual way; weights are of the order of 0.02."""
    members = [{"lrs": [lr], "seed": 1, "data_seed": 2} for lr in (1e-4, 1e-3)]
    settings = {"first_step": 0, "batch_size": ticks.BATCH_SIZE, "rho": 1.0, "compile": False}
    ours = TickTraining(settings, members, torch.device("cpu"))
    ours.advance(0, steps)
    differences = []
    for member, weights in zip(members, ours.weights):
        usual = UsualRun(member["lrs"][0], member["seed"], member["data_seed"])
        usual.train(steps)
        differences.append((usual.weights() - weights).abs().max().item())
    return max(differences)


def operations_per_step():
    """Floating-point operations of one network's step; a multiplication and an addition are two."""
    products = 5 * 2 * mlp.WIDTH**2 * ticks.BATCH_SIZE  # two forward, one backward, two for the weights
    # Of every activation: two layers centre (2), square and sum (2), rectify (1), and on the way back rectify (1),
    # centre (2) and take out the radial part (2); the second also multiplies with the slope (1) and the last layer (2).
    activations = (2 * 10 + 3) * mlp.WIDTH * ticks.BATCH_SIZE
    weights = 3 * mlp.WEIGHTS  # the norm (2) and the scaling (1)
    return products + activations + weights


def product_rate(cores):
    """Operations per second of a large float32 matrix product on all cores."""
    torch.set_num_threads(cores)
    size = 4096
    first, second = torch.randn(2, size, size)
    torch.mm(first, second)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(first, second)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/synthetic.py --processes 2")
    parser.add_argument("--processes", type=positive_int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument("--repeats", type=positive_int, default=3, help="measurements of every program")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()

    difference = difference_of_trajectories()
    assert difference < 1e-5, f"ours and the usual way part: weights differ by {difference:.2g} after 200 steps"
    print(f"after 200 steps no weight differs from the usual way's by more than {difference:.2g}")
    for program in PROGRAMS:  # what is compiled once is not measured
        seconds(PROGRAMS[program][0], args.processes, 1)
    cost, floor = {program: [] for program in PROGRAMS}, []
    for _ in range(args.repeats):
        floor.append(1e6 * operations_per_step() / product_rate(args.processes))
        for program in PROGRAMS:
            cost[program].append(microseconds_per_step(program, args.processes))
            print(f"{program}: {cost[program][-1]:.2f} microseconds per network and step", flush=True)
        ratios = {p: cost["the usual way"][-1] / cost[p][-1] for p in PROGRAMS}
        print(
            f"  the usual way takes {ratios['train.py --compile']:.0f} and {ratios['train.py']:.0f} times as long;",
            end="",
        )
        print(
            f" ours takes {cost['train.py --compile'][-1] / floor[-1]:.1f} times the floor, {floor[-1]:.2f}",
            flush=True,
        )
    if args.out:
        numbers = {
            "microseconds_per_network_and_step": cost,
            "usual_way_over_ours": [u / c for u, c in zip(cost["the usual way"], cost["train.py --compile"])],
            "usual_way_over_ours_not_compiled": [u / c for u, c in zip(cost["the usual way"], cost["train.py"])],
            "operations_per_network_and_step": operations_per_step(),
            "floor_microseconds": floor,
            "ours_over_floor": statistics.median(cost["train.py --compile"]) / statistics.median(floor),
            "largest_weight_difference_after_200_steps": difference,
            "processes": args.processes,
            "networks_per_process_and_steps": {p: (networks, STEPS) for p, (_, networks) in PROGRAMS.items()},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
            "torch": torch.__version__,
        }
        args.out.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
