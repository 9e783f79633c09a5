"""Microseconds per member and step of pre-training on ticks, as a user gets them: train.py, logging included.

    python bench/synthetic.py [--processes 2] [--steps 12000] [--out bench/synthetic.json]

Processes of 115 members (5 data seeds x 23 learning rates, one thread each) run side by side at two lengths. The
slope between the two is the cost of a step; what is left is start-up. Numbers go to a JSON file with the machine.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from data.commandline import Parser, positive_int  # noqa: E402

MEMBERS = 115


def seconds(processes, steps):
    """Wall time until all of the processes, started together, are done."""
    with tempfile.TemporaryDirectory() as folder:
        common = f"train.py @scripts/ticks.args --data-seed 1 2 3 4 5 --steps {steps} --device cpu"
        commands = [
            [sys.executable, *common.split(), "--seed", str(seed), "--out", f"{folder}/{seed}"]
            for seed in range(1, processes + 1)
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        start = time.perf_counter()
        running = [subprocess.Popen(c, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) for c in commands]
        assert all(process.wait() == 0 for process in running)
        return time.perf_counter() - start


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/synthetic.py --processes 2")
    parser.add_argument("--processes", type=positive_int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument(
        "--steps", type=positive_int, default=12000, help="steps of the longer runs; the shorter have a third"
    )
    parser.add_argument("--repeats", type=positive_int, default=3, help="pairs of measurements")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()

    short = args.steps // 3
    per_step = []
    for _ in range(args.repeats):
        difference = seconds(args.processes, args.steps) - seconds(args.processes, short)
        per_step.append(1e6 * difference / ((args.steps - short) * MEMBERS * args.processes))
        print(f"{per_step[-1]:.2f} microseconds per member and step", flush=True)
    if args.out:
        numbers = {
            "microseconds_per_member_and_step": per_step,
            "processes": args.processes,
            "members_per_process": MEMBERS,
            "steps": [short, args.steps],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
            "torch": torch.__version__,
        }
        args.out.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
