"""What a point of an error barrier costs, in forward passes over the training images.

    python bench/geometry.py --model si-convnet --width 8 [--out FILE]

A forward pass is that of a training epoch: batches with their own statistics, gradients recorded, no backward pass. A point
is what analyze.py geometry does: one pass over the training images without gradients, for train error and batch-norm
statistics, and one over the test images, a fifth as many. `batched` is the first of these passes for several points in one
program (torch.func.vmap), per point. Times are medians of turns.
"""

import functools
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

import models  # noqa: E402
from bench.common import NOTHING_KEPT, machine, say  # noqa: E402
from bench.images import add_network_arguments, network_arguments, random_image_set  # noqa: E402
from data.analysis.study import GEOMETRY_PAIRS  # noqa: E402
from data.commandline import Parser, positive_int, run  # noqa: E402
from data.device import device_of  # noqa: E402
from data.files import write_json  # noqa: E402
from models.batchnorm import REESTIMATION_BATCH  # noqa: E402
from models.evaluator import Evaluator  # noqa: E402
from models.geometry import measurements_of_line  # noqa: E402


def forward_pass(evaluator, image_set):
    evaluator.network.train()
    for inputs, labels in image_set.train_batches(REESTIMATION_BATCH):
        loss = F.cross_entropy(evaluator.network(inputs), labels)
    return loss.item()


def point(evaluator, image_set, batch_norm):
    train_batches, test_batches = image_set.train_batches(REESTIMATION_BATCH), image_set.test_batches()
    return evaluator.errors(evaluator.weights.clone(), train_batches, test_batches, batch_norm)


@torch.no_grad()
def batched_pass(evaluator, image_set, parameters, buffers):
    run_all = vmap(lambda p, b, x: functional_call(evaluator.network, (p, b), (x,)), in_dims=(0, 0, None))
    correct = 0
    for inputs, labels in image_set.train_batches(REESTIMATION_BATCH):
        correct = correct + (run_all(parameters, buffers, inputs).argmax(2) == labels).sum(1)
    return correct.tolist()


def seconds_of(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def points_of_geometry(model):
    """How many points the geometry of one pre-training measures."""
    return measurements_of_line(GEOMETRY_PAIRS, models.NETWORKS[model].barrier)


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/geometry.py --model si-convnet --width 8")
    add_network_arguments(parser)
    parser.add_argument("--points", type=positive_int, default=4, help="in one batched program")
    parser.add_argument("--turns", type=positive_int, default=3, help="measurements of each")
    args = network_arguments(parser)
    device = device_of(args.device)
    say(f"{args.model} of width {args.width}: warming up")
    image_set = random_image_set(args.images, args.side, args.classes, device)
    evaluator = Evaluator(models.build(args.model, args.width, args.classes, init_seed=0, **args.shape), device)
    build = functools.partial(models.build, args.model, args.width, args.classes, **args.shape)
    networks = [build(init_seed=seed).to(device) for seed in range(args.points)]
    state = stack_module_state([network.to(memory_format=torch.channels_last).train() for network in networks])
    programs = {
        "forward pass": (forward_pass, evaluator, image_set),
        "point": (point, evaluator, image_set, models.NETWORKS[args.model].barrier.batch_norm),
        "batched, training images only": (batched_pass, evaluator, image_set, *state),
    }
    times = {name: [] for name in programs}
    for turn in range(args.turns + 1):
        for name, program in programs.items():
            seconds = seconds_of(*program) / (args.points if name.startswith("batched") else 1)
            if turn > 0:  # the first one warms up
                times[name].append(seconds)
        say(f"turn {turn} of {args.turns}" if turn > 0 else "warmed up")
    medians = {name: statistics.median(found) for name, found in times.items()}
    points = points_of_geometry(args.model)
    passes = points * medians["point"] / medians["forward pass"]
    for name, seconds in medians.items():
        print(f"{name}: {1e3 * seconds:.0f} ms, {seconds / medians['forward pass']:.2f} forward passes")
    print(f"geometry of one pre-training, {points} points: {passes:.1f} forward passes")
    if args.out:
        asked = {name: value for name, value in vars(args).items() if name != "out"}
        found = {"points": points, "forward_passes_of_geometry": passes, "seconds": times}
        write_json(args.out, {**asked, **machine(args.device), "threads": torch.get_num_threads()} | found)


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
