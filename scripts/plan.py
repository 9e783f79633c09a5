"""What the parts of a reproduction train and measure, how much of it is there, and what the rest takes.

Which runs a part consists of, its script says (planned.sh, and synthetic.sh with LISTED); how far they are, their
folders. What an epoch takes is measured, on this machine: by networks that train on a few of the images.
"""

import dataclasses
import functools
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from data.commandline import BadInput, lr_name
from data.images import SPLITS, digest, load_image_set, save_image_set
from data.runs import Run

RATE = "[0-9.]+(?:e[-+]?[0-9]+)?"  # a learning rate in the name of a folder
# How long networks train to see what that takes: until it is measured, and then on.
WARM_UP = {"epoch": (1, 4), "iteration": (300, 600)}
WARM_UP_BATCHES = 8  # of images, in an epoch


class Item(NamedTuple):
    """A run folder that a part makes, or a measurement, whose path ends in .json.

    steps: its length, in epochs or iterations; of a measurement, in how many epochs as much is computed. files: of weights
    at most. path: below the part's folder; it may stand for any learning rate or seed, see planned.sh. closing: a file
    after which no more such things come, or "".
    """

    steps: int
    members: int
    files: int
    path: str
    closing: str = ""

    @property
    def is_run(self):
        return not self.path.endswith(".json")

    @property
    def work(self):
        """In epochs or iterations of one network."""
        return self.steps * self.members


class Cost(NamedTuple):
    """What training takes: seconds for an epoch or iteration of a member, seconds until it begins, bytes of a member."""

    step: float
    start: float
    size: float


class Tally(NamedTuple):
    """How much there is of something, and how much of it is done. Members count as runs."""

    runs: int = 0
    runs_done: int = 0
    work: int = 0
    work_done: int = 0
    seconds: float = 0.0  # of one process, measurements included
    seconds_left: float = 0.0
    bytes_left: float = 0.0
    complete: bool = True

    def __add__(self, other):
        return Tally(*(a + b for a, b in zip(self[:-1], other)), self.complete and other.complete)


@dataclasses.dataclass(eq=False)
class Part:
    """A sweep: the arguments of bash that make it, those that list what it makes, and its folder.

    environment: that both have, beside that of this process. missing: why it cannot be made, if it cannot. cost: None
    where it is not known.
    """

    name: str
    command: list
    listing: list
    out: Path
    environment: dict
    data: str = ""
    missing: str = ""
    flags: str = ""
    items: list = dataclasses.field(default_factory=list)
    cost: Cost | None = None
    known: dict = dataclasses.field(default_factory=dict)  # {path: steps done} of runs that are complete

    @property
    def unit(self):
        return "iteration" if self.data == "ticks" else "epoch"

    @property
    def whole_environment(self):
        return os.environ | self.environment

    def list(self):
        """Ask the part's script what it consists of. Raises BadInput where it refuses."""
        listed = subprocess.run(
            ["bash", *self.listing], env=self.whole_environment, capture_output=True, text=True
        )
        if listed.returncode:
            raise BadInput(f"{self.name}: {last_line(listed.stderr + listed.stdout)}")
        for line in listed.stdout.splitlines():
            word, _, rest = line.partition(" ")
            if word.isdigit():
                steps, members, files, path, *closing = line.split()
                path = re.sub(f"(?<=flr){RATE}", lambda rate: lr_name(float(rate[0])), path)
                self.items.append(Item(int(steps), int(members), int(files), path, *closing))
            else:
                setattr(self, word, rest)

    def done(self):
        """Of each item, how much of it is done: from 0 to 1, which it is when complete."""
        named = {item.path for item in self.items}
        there = sorted(str(path.parent.relative_to(self.out)) for path in self.out.glob("*/*/config.json"))
        unnamed = [path for path in there if path not in named]
        return [self._done(item, unnamed) for item in self.items]

    def _done(self, item, unnamed):
        """How much of an item is done. What it takes of `unnamed`, runs that no item names, is removed from there."""
        if not item.is_run:
            return float(self._is_there(item.path) or self._is_there(item.closing))
        path = item.path
        if is_pattern(path):
            path = next(filter(matcher(path).fullmatch, unnamed), None)
            if path is None:
                return float(self._is_there(item.closing))
            unnamed.remove(path)
        if self.known.get(path, 0) < item.steps:
            done, complete = steps_done(self.out / path, item.steps)
            if not complete:
                return done / (item.steps + 1)
            self.known[path] = item.steps
        return 1.0

    def _is_there(self, pattern):
        """Whether there is such a file below the folder; not where there is no pattern."""
        return bool(pattern) and any(self.out.glob(pattern.replace("b12", "*")))

    def tally(self):
        total, cost = Tally(complete=not self.missing), self.cost or Cost(0, 0, 0)
        for item, done in zip(self.items, self.done()):
            seconds = item.work * cost.step + (cost.start if item.is_run else 0)
            of_run = item.is_run
            total += Tally(
                runs=item.members * of_run,
                runs_done=item.members * of_run * (done == 1),
                work=item.work * of_run,
                work_done=round(item.work * done) * of_run,
                seconds=seconds,
                seconds_left=seconds * (1 - done),
                bytes_left=item.members * item.files * cost.size * (1 - done),
                complete=done == 1,
            )
        return total


def last_line(text):
    return (text.strip().splitlines() or ["failed"])[-1]


def is_pattern(path):
    return "*" in path or "b12" in path


@functools.cache
def matcher(pattern):
    """A regular expression of the paths that a pattern of planned.sh stands for: b12 is one and the same rate."""
    text = re.escape(pattern).replace(r"seed\*", "seed[0-9]+").replace(r"\*", RATE)
    first, *others = text.split("b12")
    others = [("(?P=b12)" if at else f"(?P<b12>{RATE})") + text for at, text in enumerate(others)]
    return re.compile(first + "".join(others))


def steps_done(path, steps):
    """(how many of its steps a run has done, whether it is complete at that length); (0, False) where there is none."""
    try:
        run = Run(path)
    except BadInput:  # also one that is just being made
        return 0, False
    if not run.metrics:
        return 0, False
    return min(run.last_step, steps), run.complete and run.settings["steps"] >= steps


# ----------------------------------------------------------------------------------------------- what training takes


def measure_costs(parts, jobs, folder):
    """Let networks of every kind train for a moment, in a folder, and set the cost of the parts that have something left.

    As many train at once as will later. A part whose network cannot be trained gets the reason as what it is missing.
    """
    costs = {}
    for part in parts:
        if part.missing or part.tally().complete:
            continue
        key = part.data, part.flags
        if key not in costs:
            print(f"measuring what training takes: {part.name}", flush=True)
            costs[key] = measured_cost(part, jobs, folder / str(len(costs)))
        if isinstance(costs[key], Cost):
            part.cost = costs[key]
        else:
            part.missing = costs[key]


def measured_cost(part, jobs, folder):
    """The Cost of training a part's network, in a new folder; or, where it fails, why."""
    folder.mkdir()
    share, data, flags = 1.0, [], shlex.split(part.flags)
    if part.unit == "epoch":
        try:
            share = save_few_images(part.data, folder / "few.pt", batch_size(part.flags))
        except BadInput as error:
            return str(error)
        data = ["--data", folder / "few.pt"]
    begin, length = WARM_UP[part.unit]
    length_flags = ["--steps", begin + length, "--keep", begin]
    rate = [] if part.unit == "iteration" else ["--lr", "1e-4"]
    started, processes = time.time(), []
    for number in range(jobs):
        command = ["python", "train.py", *flags, *data, *rate, *length_flags, "--out", folder / f"run{number}"]
        with open(folder / f"log{number}", "w") as log:
            environment = part.whole_environment | {"OMP_NUM_THREADS": "1"}
            options = {"env": environment, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            processes.append(subprocess.Popen([str(word) for word in command], **options))
    codes = [process.wait() for process in processes]
    for number, code in enumerate(codes):
        if code:
            return f"its network cannot be trained: {last_line((folder / f'log{number}').read_text())}"
    costs = [cost_of(folder / f"run{number}", started, begin, length) for number in range(jobs)]
    step, start, size = (sum(of_runs) / jobs for of_runs in zip(*costs))
    return Cost(step / share, max(0, start), size)


def cost_of(run, started, begin, length):
    """What a run took by when its files were written: those of its first steps, and of its end."""
    members = len(Run(run).members)
    first, last = (run / name for name in (f"step-{begin}.pt", "checkpoint.pt"))
    seconds = (last.stat().st_mtime - first.stat().st_mtime) / length
    return Cost(
        seconds / members,
        first.stat().st_mtime - started - begin * seconds,
        last.stat().st_size / members,
    )


def batch_size(flags):
    found = re.findall(r"--batch-size[ =](\d+)", flags)
    return int(found[-1]) if found else 128


def save_few_images(data, path, size):
    """Write an image set that has some batches of another one's training images, and as large a share of its test images.

    Returns that share.
    """
    whole = load_image_set(data)
    count = min(WARM_UP_BATCHES * size, len(whole.train_labels))
    share = count / len(whole.train_labels)
    few = {}
    for split in SPLITS:
        images, labels = (getattr(whole, f"{split}_{what}") for what in ("images", "labels"))
        if images is not None:
            kept = max(2, round(share * len(labels)))
            few |= {f"{split}_images": images[:kept].clone(), f"{split}_labels": labels[:kept].clone()}
    cut = dataclasses.replace(whole, **few)
    save_image_set(dataclasses.replace(cut, digest=digest(vars(cut))), path)
    return share
