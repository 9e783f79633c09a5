"""What threads of one process cost where other processes are at work, by how the threads wait for each other.

    python bench/threads.py [--out FILE]

A program is what the environment says to OpenMP before PyTorch is imported. Every measurement is a process of its own
that trains for `--seconds` after a warm-up, beside `--hogs` processes that compute without end; programs take turns.
It prints milliseconds per iteration, of a ConvNet of width 8 on batches of 128 images of 32 pixels and of 23 members on
ticks, or of a single operation, one added to 100,000 numbers: medians over turns of the mean of a measurement and of its
fastest iteration, which least else came between.
"""

import contextlib
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import NOTHING_KEPT, ROOT, machine, say  # noqa: E402
from data.commandline import Parser, natural, positive_float, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402

CORES = str(os.cpu_count())
PROGRAMS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "thread per core": {"OMP_NUM_THREADS": CORES},
    "thread per core, passive": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "passive"},
    "thread per core, short spin": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "1000"},
}
# What a process runs: epochs of one batch, 10 iterations on ticks, or additions, until the time is over.
MEASURE = """
import sys, time
from types import SimpleNamespace
import torch
import models, train
from data import ticks
from data.device import device_of
from bench.images import random_image_set

kind, seconds = sys.argv[1], float(sys.argv[2])
device = device_of("cpu")
common = {"first_step": 0, "batch_size": 128 if kind == "images" else ticks.BATCH_SIZE, "compile": False}
if kind == "images":
    network = models.NETWORKS["si-convnet"]
    settings = common | {"model": "si-convnet", "width": 8, "optimizer": network.optimizer, "rho": network.rho}
    settings |= {"precision": "fp32", "augment": "none", "shape": {}}
    images = random_image_set(128, 32, 10, device)
    task, step = train.ImageTraining(settings, [{"lrs": [1e-3], "seed": 1}], device, images), 1
elif kind == "addition":
    numbers = torch.ones(100_000)
    task, step = SimpleNamespace(advance=lambda done, until: numbers.add_(1)), 1
else:
    members = [{"lrs": [1e-3], "seed": 1, "data_seed": 1} for _ in range(23)]
    task, step = train.TickTraining(common | {"rho": 1.0}, members, device, ticks.stacked_sets([1])), 10
task.advance(0, step)
done, taken, start = step, [], time.perf_counter()
while time.perf_counter() - start < seconds:
    before = time.perf_counter()
    task.advance(done, done + step)
    taken.append((time.perf_counter() - before) / step)
    done += step
print(1000 * sum(taken) / len(taken), 1000 * min(taken))
"""


@contextlib.contextmanager
def hogs(count):
    """So many other processes that compute without end, while the context is open."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield busy
    finally:
        for process in busy:
            process.kill()
            process.wait()


def milliseconds(program, kind, seconds):
    """{"mean", "fastest"} of the iterations of a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", MEASURE, kind, str(seconds)]
    environment = inherited | PROGRAMS[program] | {"PYTHONPATH": str(ROOT)}
    mean, fastest = subprocess.check_output(command, env=environment, cwd=ROOT, text=True).split()
    return {"mean": float(mean), "fastest": float(fastest)}


def median(times, name):
    return statistics.median(time[name] for time in times)


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/threads.py --turns 3")
    parser.add_argument("--kinds", nargs="+", choices=["images", "ticks", "addition"], default=["images", "ticks"])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), help="what is compared")
    parser.add_argument("--hogs", nargs="+", type=natural, default=[0, 1, 2], help="other processes at work")
    parser.add_argument("--seconds", type=positive_float, default=2, help="of a measurement")
    parser.add_argument("--turns", type=positive_int, default=3, help="measurements of each")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    measured = {}
    for turn in range(args.turns):
        say(f"turn {turn + 1} of {args.turns}")
        for count in args.hogs:
            with hogs(count):
                for kind in args.kinds:
                    for program in args.programs:
                        of_kind = measured.setdefault(kind, {}).setdefault(program, {})
                        taken = milliseconds(program, kind, args.seconds)
                        of_kind.setdefault(str(count), []).append(taken)
                        say(f"{kind}, {program}, {count} hogs: {taken} (load {os.getloadavg()[0]:.1f})")
    heads = "".join(f"{count} hogs".rjust(18) for count in args.hogs)
    print(f"{'mean (fastest), milliseconds':38}{heads}")
    for kind, of_kind in measured.items():
        for program, by_hogs in of_kind.items():
            texts = (f"{median(times, 'mean'):.4g} ({median(times, 'fastest'):.4g})" for times in by_hogs.values())
            print(f"{kind + ', ' + program:38}" + "".join(text.rjust(18) for text in texts))
    if args.out:
        asked = {name: value for name, value in vars(args).items() if name != "out"}
        load = {"load_average": os.getloadavg()[0]}
        write_json(args.out, asked | machine("cpu") | load | {"milliseconds_per_iteration": measured})


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
