"""Everything at one scale, with a plan first: what scripts/reproduce.sh runs, which says how it is used."""

import data.startup  # noqa: F401 # isort: skip - before all else
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from data.commandline import BadInput, Parser, run, say
from data.images import ImageSet, digest, save_image_set
from data.locks import hold
from data.seeds import generator
from scripts.plan import Part, Tally, last_line, measure_costs

SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_LOOKS = 60, 2


@dataclasses.dataclass
class Scale:
    """What a reproduction consists of.

    sweeps, boundaries: the setups of images.sh and boundary.sh, each with the environment that these have beside that of
    this process. comparisons: (folder, numbers of its figures, their setups). synthetic: environment and further arguments
    of synthetic.sh.
    """

    out: str
    sweeps: dict
    boundaries: dict
    comparisons: list
    synthetic: tuple = ({}, ())


def compared(convolutional, of_18, resnets, transformers):
    """The comparisons of a scale: figures 10 and 14, 18, 8 and 19 to 25 of some setups each."""
    return [
        ("figures-si", [10, 14], convolutional),
        ("figures-si", [18], of_18),
        ("figures-practical", [8], [resnets[0], transformers[0]]),
        ("figures-practical", [19, 20, 21], resnets),
        ("figures-practical", [22, 23, 24, 25], transformers),
    ]


PAPER = [f"s{number}" for number in range(1, 10)]
SMALL = ["convnet-small", "resnet-small", "tiny-small", "practical-small", "vit-small"]
MORE = "-more"  # how setups are called that add learning rates to the folder of another one
# Of a smoke test: learning rates at which the tiny networks learn their tiny set, and one at which they do not.
SHORT = {"EPOCHS": "12", "FINETUNE_EPOCHS": "3", "WINDOWS": "2 5", "SEEDS_PER_PLR": "1", "TWO_STAGES": ""}
SI = SHORT | {"TRAIN_FLAGS": "--width 2 --batch-size 16"}
PRACTICAL = SHORT | {"PLRS": "1e-5 1e-2 10", "FLRS": "1e-3 b12", "TRAIN_FLAGS": "--width 2 --batch-size 16"}
VIT = PRACTICAL | {"PLRS": "1e-5 3e-3 1", "TRAIN_FLAGS": "--width 8 --depth 1 --heads 2 --batch-size 16"}
SMOKE = ["convnet-small", "tiny-small", "practical-small", "vit-small"]  # every network once
SCALES = {
    "paper": Scale(
        "runs",
        dict.fromkeys(PAPER, {}),
        {"s1": {}},
        compared(PAPER[1:4], PAPER[:5], PAPER[5:7], PAPER[7:]),
    ),
    "small": Scale(
        "runs",
        dict.fromkeys([SMALL[0], SMALL[0] + MORE, *SMALL[1:]], {}),
        dict.fromkeys(SMALL[:2], {}),
        compared(SMALL[:2], SMALL[:3], SMALL[3:4], SMALL[4:]),
    ),
    "smoke": Scale(
        "runs/smoke",
        {
            "convnet-small": SI | {"PLRS": "3e-3 1e-2 1e-1", "FLRS": "3e-3 b12", "TWO_STAGES": "1e-1 3e-2"},
            "tiny-small": SI | {"PLRS": "3e-3 1e-1", "FLRS": "1e-3 b12"},
            "practical-small": PRACTICAL,
            "vit-small": VIT,
        },
        {"convnet-small": SI | {"LRS": "1e-2", "SEEDS": "1", "UNTIL_LOSS": "0.3", "EPOCHS": "20", "RATIO": "10"}},
        compared(SMOKE[:2], SMOKE[:2], SMOKE[2:3], SMOKE[3:]),
        (
            {"SEEDS": "1", "PRETRAIN_STEPS": "400", "FINETUNE_STEPS": "100", "TRAIN_FLAGS": ""},
            ("--flr", "low", "1e-4", "high"),
        ),
    ),
}


def main():
    parser = Parser(__doc__, "bash scripts/reproduce.sh smoke --plan")
    parser.add_argument("scale", choices=SCALES, help="what is made, see scripts/reproduce.sh")
    parser.add_argument("--out", type=Path, help="folder of all sweeps' folders; None: runs, of smoke runs/smoke")
    parser.add_argument("--plan", action="store_true", help="print the plan only")
    args = parser.parse_args()
    scale, jobs = SCALES[args.scale], jobs_asked_for()
    out = args.out or Path(scale.out)
    out.mkdir(parents=True, exist_ok=True)
    # What is left of a run of this script that was killed holds the folder, too, as long as it trains.
    held = [] if args.plan else hold(out)
    if args.scale == "smoke":
        scale = on_tiny_sets(scale, out / "sets")
    parts = parts_of(scale, out)
    for part in parts:
        part.list()
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        measure_costs(parts, jobs, Path(folder))
    print(*plan_lines(args.scale, parts, jobs, out), sep="\n", flush=True)
    if not args.plan:
        make_all(parts, scale, out, jobs, held)


def jobs_asked_for():
    jobs = os.environ.get("JOBS", "")
    if not jobs.isdigit() or int(jobs) == 0:
        raise BadInput(f"JOBS: '{jobs}' is no number of processes; give one above 0")
    return int(jobs)


def parts_of(scale, out):
    """The sweeps of a scale, in the order in which they are made."""
    environment, arguments = scale.synthetic
    study = ["scripts/synthetic.sh", str(out / "synthetic"), *arguments]
    listed = ["-c", 'LISTED=yes exec bash "$@"', "bash", *study]
    parts = [Part("synthetic", study, listed, out / "synthetic", environment)]
    for script, setups in (("images", scale.sweeps), ("boundary", scale.boundaries)):
        for setup, environment in setups.items():
            folder = out / setup.removesuffix(MORE)
            arguments, name = [setup, str(folder)], setup + (", boundary" if script == "boundary" else "")
            listing = ["scripts/planned.sh", script, *arguments]
            parts.append(Part(name, [f"scripts/{script}.sh", *arguments], listing, folder, environment))
    return parts


def on_tiny_sets(scale, folder):
    """A scale whose sweeps are on tiny image sets, which are made where they are not there."""
    path = folder / "tiny.pt"
    if not path.exists():
        save_image_set(tiny_set(), path)
    data = {"DATA": str(path)}
    sweeps, boundaries = (
        {setup: environment | data for setup, environment in setups.items()}
        for setups in (scale.sweeps, scale.boundaries)
    )
    return dataclasses.replace(scale, sweeps=sweeps, boundaries=boundaries)


def tiny_set(classes=3, train=64, test=30, side=16):
    """An ImageSet of noise over a pattern of each class, which is learnt in a few epochs."""
    random = generator("tiny-set")
    patterns, content = torch.rand(classes, 3, side, side, generator=random), {}
    for split, count in (("train", train), ("test", test)):
        labels = torch.arange(count) % classes
        noise = torch.rand(count, 3, side, side, generator=random)
        content[f"{split}_images"] = (255 * (patterns[labels] + noise) / 2).round().to(torch.uint8)
        content[f"{split}_labels"] = labels
    names = tuple(f"class{label}" for label in range(classes))
    return ImageSet("tiny", **content, classes=names, digest=digest(content), made_from={})


# -------------------------------------------------------------------------------------------------------- the plan


def plan_lines(name, parts, jobs, out):
    """The plan: what every part consists of, what is done of it, and what the rest takes."""
    possible = [part for part in parts if not part.missing]
    total = sum((part.tally() for part in possible), Tally())
    lines = [
        f"plan of {name} in {out}, with JOBS={jobs}; of runs, epochs and iterations what is done is said first"
    ]
    lines += ["  " + row_of(part.name, part.tally(), part.unit, part.missing, jobs) for part in parts]
    lines.append(f"  all of it, at most: {duration(total.seconds_left / jobs)}, {size(total.bytes_left)}")
    free = shutil.disk_usage(out).free
    if total.bytes_left > free:
        lines.append(f"  there are {size(free)} free on the disk of {out}: make room, or give another OUT")
    return lines + [f"  {line}" for line in skipped_lines(parts)]


def skipped_lines(parts):
    """Why parts are skipped, a line for each reason."""
    by_reason = {}
    for part in parts:
        if part.missing:
            by_reason.setdefault(part.missing, []).append(part.name)
    return [f"skipped: {'; '.join(names)}: {reason}" for reason, names in by_reason.items()]


def row_of(name, tally, unit, missing, jobs):
    """A part's row of the plan."""
    runs = f"{tally.runs_done} of {tally.runs} runs"
    work = f"{tally.work_done} of {tally.work} {unit}s"
    left = f"{duration(tally.seconds_left / jobs)}, {size(tally.bytes_left)}"
    state = "skipped" if missing else "complete" if tally.complete else left
    return f"{name:24} {runs:>20} {work:>34}  {state}"


def duration(seconds):
    """A time in words, to two digits or so."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 48 * 60 else f"{minutes / 60 / 24:.1f} days"


def size(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


# ---------------------------------------------------------------------------------------------------- making it all


def make_all(parts, scale, out, jobs, held):
    """Make what is not complete, then the figures of several sweeps. Raises BadInput that names what is not there."""
    progress, failed = Progress(parts, jobs), {}
    for part in parts:
        if part.missing:
            continue
        if part.tally().complete:
            say(f"{part.name}: complete")
        elif fault := call(
            part.name, part.command, part.whole_environment, out, held, lambda: progress.look(part)
        ):  # noqa: B023
            failed[part.name] = fault
    made = [part.name for part in parts if not part.missing and part.name not in failed]
    for name, command in drawings(scale, out, made):
        if fault := call(name, ["-c", 'exec python "$@"', "bash", *command], os.environ, out, held):
            failed[name] = fault
    skipped = [part.name for part in parts if part.missing]
    for line in (*skipped_lines(parts), *(f"{name}: {fault}" for name, fault in failed.items())):
        say(line)
    if skipped or failed:
        raise BadInput(
            f"not everything was made: {'; '.join([*skipped, *failed])} (see above); the same command makes the rest"
        )
    say(f"everything is there: figures in {out}/*/figures, {out}/figures-si and {out}/figures-practical")


def drawings(scale, out, made):
    """(name, arguments of python) of what is drawn at the end, of the sweeps that were made."""
    for setup in scale.boundaries:
        if setup in made:
            figures, claims = out / setup / "figures", out / setup / "claims.json"
            yield f"{setup}, figures", ["analyze.py", "figures", out / setup, "--out", figures]
            yield f"{setup}, claims", ["analyze.py", "claims", out / setup, "--json", claims]
    for folder, figures, setups in scale.comparisons:
        there = [out / setup for setup in setups if setup in made]
        if there:
            numbers = list(map(str, figures))
            name = f"figures {' '.join(numbers)}"
            yield name, ["analyze.py", "figures", *there, "--only", *numbers, "--out", out / folder]


def call(name, command, environment, out, held, look=lambda: None):
    """Run a command of bash, what it says going to a log; returns why it failed, or None. look: called now and then.

    It is a session of its own, so that a signal reaches it once: where this process is told to end, so are all its processes.
    """
    log = out / "logs" / f"{name.replace(', ', '-').replace(' ', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    say(f"{name}: see {log}")
    with open(log, "a") as said:
        process = subprocess.Popen(
            ["bash", *map(str, command)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            pass_fds=held,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SECONDS_BETWEEN_LOOKS)
                look()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    return (
        f"failed ({process.returncode}): {last_line(log.read_text())}; see {log}" if process.returncode else None
    )


class Progress:
    """Says, at every finished run or once a minute, how far everything is, and what time is left.

    The time left is that of the plan, corrected by how long what was done since then took.
    """

    def __init__(self, parts, jobs):
        self.jobs, self.tallies = jobs, {part: part.tally() for part in parts if not part.missing}
        self.at_first, self.started_at = self._seconds_left(), time.monotonic()
        self.said_at = self.started_at

    def look(self, part):
        before, self.tallies[part] = self.tallies[part], part.tally()
        now, tally = time.monotonic(), self.tallies[part]
        if tally.runs_done > before.runs_done or now - self.said_at > SECONDS_BETWEEN_LINES:
            self.said_at = now
            total = sum(self.tallies.values(), Tally())
            say(
                f"{part.name}: {tally.runs_done} of {tally.runs} runs, {tally.work_done} of {tally.work} {part.unit}s;"
                f" in all {total.runs_done} of {total.runs} runs, {self._left(now - self.started_at)}"
            )

    def _seconds_left(self):
        return sum(tally.seconds_left for tally in self.tallies.values()) / self.jobs

    def _left(self, seconds):
        """How much is done of what there was to do at first, and the time left, after so many seconds."""
        left = self._seconds_left()
        done = self.at_first - left
        pace = seconds / done if done > SECONDS_BETWEEN_LINES else 1
        return f"{100 * done / max(self.at_first, 1e-9):.0f} % of the time, {duration(left * pace)} left"


if __name__ == "__main__":
    run(main)
