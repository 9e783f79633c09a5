"""Pre-training on ticks, ours and the baseline (baseline.py), in microseconds of wall time per network and iteration.

    python bench/synthetic.py [--processes 2] [--repeats 3] [--against DIR] [--out bench/synthetic.json]

As a user gets them: train.py with 575 networks (5 data seeds x 5 training seeds x 23 learning rates) in each of some
processes side by side, and baseline.py with one; one thread each, both measuring every 1,000 iterations. Every repeat runs
all programs in turn, at two lengths: the difference between these is the cost of iterations, without that of starting.
Before that, ours and the baseline are shown to train the same networks. The floor is what the operations of an iteration
take at the speed of a large matrix product. --against runs the train.py of another checkout in every turn as well.
"""

import functools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.baseline import BaselineRun  # noqa: E402
from bench.common import BASELINE, NOTHING_KEPT, ROOT, Script, machine, require_compiled, say, stopped  # noqa: E402
from data import ticks  # noqa: E402
from data.commandline import BadInput, Parser, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402
from models import mlp  # noqa: E402
from train import TickTraining  # noqa: E402

PRESET = ROOT / "scripts/ticks.args"  # the 23 learning rates
STEPS = (2000, 8000)  # iterations of the shorter and of the longer runs
OURS, COMPILED = "train.py", "train.py --compile"


class Program(NamedTuple):
    command: object  # a function of (process, iterations, run folder): the command line
    networks: int  # of a process
    folder: Path  # of the checkout whose script it is


def ours(process, iterations, out, compiled=False):
    seeds = [5 * process + more for more in range(5)]
    grid = [f"@{PRESET}", "--data-seed", *range(1, 6), "--seed", *seeds, "--device", "cpu"]
    return ["train.py", *grid, "--steps", iterations, "--out", out, *(["--compile"] if compiled else [])]


def baseline(process, iterations, out):
    network = ["--lr", "1e-3", "--data-seed", 1, "--seed", process]
    return ["bench/baseline.py", *network, "--steps", iterations, "--out", out]


def programs(against=None):
    """{name: Program}. against: the folder of another checkout whose train.py is one of them."""
    found = {COMPILED: Program(functools.partial(ours, compiled=True), 575, ROOT), OURS: Program(ours, 575, ROOT)}
    if against is not None:
        found[f"{OURS} of {against}"] = Program(ours, 575, against)
    return found | {BASELINE: Program(baseline, 1, ROOT)}


def seconds(program, processes, iterations):
    """Wall time until all of the processes, started together, are done. Raises BadInput where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        commands = [
            program.command(number, iterations, f"{folder}/{number}") for number in range(1, processes + 1)
        ]
        running = []
        with stopped(running):
            begin = time.perf_counter()
            for command in commands:
                running.append(Script(command, program.folder))
            for script in running:
                script.wait()
            return time.perf_counter() - begin


def microseconds_per_iteration(program, processes):
    short, long = STEPS
    difference = seconds(program, processes, long) - seconds(program, processes, short)
    return 1e6 * difference / ((long - short) * program.networks * processes)


def tick_training(members, compiled):
    """train.py's training of members."""
    settings = {"first_step": 0, "batch_size": ticks.BATCH_SIZE, "rho": 1.0, "compile": compiled}
    cpu, config = torch.device("cpu"), {"members": members}
    return TickTraining(settings, members, cpu, TickTraining.load_data(config, cpu))


def our_weights(members, iterations):
    """Weights [members, 2048] that train.py's training reaches."""
    task = tick_training(members, compiled=False)
    task.advance(0, iterations)
    return task.weights


def difference_of_trajectories(iterations=200):
    """The largest difference between a weight of ours and of the baseline; weights are of the order of 0.02."""
    members = [{"lrs": [lr], "seed": 1, "data_seed": 2} for lr in (1e-4, 1e-3)]
    differences = []
    for member, weights in zip(members, our_weights(members, iterations)):
        reference = BaselineRun(member["lrs"][0], member["seed"], member["data_seed"])
        reference.train(iterations)
        differences.append((reference.weights() - weights).abs().max().item())
    return max(differences)


def operations_per_iteration():
    """Floating-point operations of one network's iteration; a multiplication and an addition are two."""
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
        begin = time.perf_counter()
        torch.mm(first, second)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)


def runnable_programs(against):
    """The programs that this machine can run, and why it cannot run the others, {name: reason}."""
    found, skipped = programs(against), {}
    try:
        require_compiled(lambda: tick_training([{"lrs": [1e-3], "seed": 1, "data_seed": 1}], compiled=True))
    except BadInput as reason:
        del found[COMPILED]
        skipped[COMPILED] = str(reason)
        say(f"{COMPILED}: skipped: {reason}")
    return found, skipped


def measure(found, processes, repeats):
    """Microseconds per network and iteration, {program: [repeat]}, and the floor, [repeat], in the same turns."""
    for name, program in found.items():  # what is compiled once is not measured
        say(f"{name}: starting once, not measured")
        seconds(program, processes, 1)
    cost, floor = {name: [] for name in found}, []
    for turn in range(repeats):
        floor.append(1e6 * operations_per_iteration() / product_rate(processes))
        for name in list(found)[:: 1 if turn % 2 == 0 else -1]:
            cost[name].append(microseconds_per_iteration(found[name], processes))
            say(
                f"turn {turn + 1} of {repeats}: {name}: {cost[name][-1]:.2f} microseconds per network and iteration"
            )
    return cost, floor


def ratios(cost, name, reference):
    """How many times as long as a reference a program takes, turn by turn; None where one of them was not measured."""
    if name not in cost or reference not in cost:
        return None
    return [value / other for value, other in zip(cost[name], cost[reference], strict=True)]


def median_and_range(values):
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def report(cost):
    """Lines for the user: medians over turns, and their ranges. cost: of the programs and of "the floor"."""
    for name, values in cost.items():
        yield f"{name}: {median_and_range(values)} microseconds per network and iteration"
    for name in cost:
        if name not in (OURS, "the floor"):
            yield f"{name} takes {median_and_range(ratios(cost, name, OURS))} times as long as {OURS}"


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/synthetic.py --processes 2")
    parser.add_argument("--processes", type=positive_int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument("--repeats", type=positive_int, default=3, help="measurements of every program")
    parser.add_argument("--against", type=Path, help="another checkout, whose train.py is to be compared")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    if args.against and not (args.against / "train.py").is_file():
        raise BadInput(f"--against {args.against}: has no train.py; name the folder of another checkout")

    difference = difference_of_trajectories()
    if difference >= 1e-5:
        raise SystemExit(f"ours and the baseline part: weights differ by {difference:.2g} after 200 iterations")
    found, skipped = runnable_programs(args.against)
    cost, floor = measure(found, args.processes, args.repeats)
    print(f"after 200 iterations no weight differs from the baseline's by more than {difference:.2g}")
    print("\n".join(report(cost | {"the floor": floor})))
    if args.out:
        numbers = {
            "microseconds_per_network_and_step": cost,
            "baseline_over_ours": ratios(cost, BASELINE, COMPILED),
            "baseline_over_ours_not_compiled": ratios(cost, BASELINE, OURS),
            "ours_not_compiled_over_against": ratios(cost, OURS, f"{OURS} of {args.against}"),
            "operations_per_network_and_step": operations_per_iteration(),
            "floor_microseconds": floor,
            "ours_over_floor": statistics.median(cost[COMPILED if COMPILED in cost else OURS])
            / statistics.median(floor),
            "largest_weight_difference_after_200_steps": difference,
            "processes": args.processes,
            "networks_per_process_and_steps": {name: (program.networks, STEPS) for name, program in found.items()},
            "skipped": skipped,
            **machine("cpu"),
        }
        write_json(args.out, numbers)


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
