"""Continue finished runs at their own learning rate and average the weights they pass: SWA in
"Where Do Large Learning Rates Lead Us?"

A window of K is the plain mean of K weights, `--spacing` steps apart, never re-projected to the sphere. Windows share
their first weights (--anchor start: the paper's convolutional networks, epochs 200 to 200+K-1) or their last
(--anchor end: the synthetic study and the ViT, whose runs keep what the largest window begins with: train.py --keep
of its length minus (K - 1) times the spacing). The sample order of a
continued run is that of the run itself, and its optimiser goes on, so that it passes weights of its own past again.
"""

import data.startup  # noqa: F401 # isort: skip - before all else
import functools
from pathlib import Path

import torch

from data.commandline import BadInput, Parser, Refused, natural, positive_int, run
from data.device import device_of
from data.open_run import describe_child, finished_runs, step_to_begin_at
from data.runs import Run, is_run
from models.requests import network_of, use_own_network
from models.solutions import refuse_unlike
from train import add_continuing_arguments, complete_run, place_of, refuse_what_cannot_be_made, train


class WindowAverages:
    """Running sums of the weights in each window.

    windows: numbers of weights K. spacing: steps between them. anchor: `start` or `end`.
    """

    def __init__(self, windows, spacing, anchor):
        self.windows, self.spacing, self.anchor = windows, spacing, anchor
        self.sums = {}

    def add(self, step, weights):
        """Take weights [members, parameters] of a step (0 is where averaging begins) into the windows they are in."""
        position = step // self.spacing
        for window in self.windows:
            total = self.sums.setdefault(window, torch.zeros_like(weights))
            if self.first(window) <= position < self.first(window) + window:
                self.sums[window] = total + weights  # not in place: a checkpoint may hold the old sum

    def resume(self, sums, weights):
        """Go on from the sums of a checkpoint, tensors like `weights`. Windows that are not in it must be larger than those
        that are, and share their first weights. Raises ValueError where it has no such sums."""
        known = [window for window in self.windows if isinstance(sums, dict) and window in sums]
        refuse_unlike(sums, dict.fromkeys(known or self.windows, weights), "averages")
        sums = {window: total.to(weights.device) for window, total in sums.items()}
        self.sums = {window: sums.get(window, sums[max(sums)]) for window in self.windows}

    def first(self, window):
        """Position, counted in spacings, of the first weights in a window."""
        return 0 if self.anchor == "start" else max(self.windows) - window

    def mean(self, window, last_step):
        """The average of a window, [members, parameters]; NaN where the run stopped (diverged) before its end."""
        complete = last_step // self.spacing >= self.first(window) + window - 1
        return self.sums[window] / window if complete else torch.full_like(self.sums[window], torch.nan)


def main():
    parser = Parser(
        description="Continue finished runs at their own learning rate and average the weights they pass (SWA).",
        example="python swa.py runs/pretrain/* --windows 2 5 10 --out runs/swa",
    )
    parser.add_argument(
        "--windows",
        nargs="+",
        type=positive_int,
        default=[2, 5, 10],
        help="numbers of weights averaged; further ones are added to a run that is there",
    )
    parser.add_argument(
        "--spacing",
        type=positive_int,
        help="epochs or iterations between averaged weights (default: the paper's for the network)",
    )
    parser.add_argument(
        "--anchor",
        choices=["start", "end"],
        help="which weights all windows share (default: as in the paper for the network)",
    )
    parser.add_argument(
        "--from-step",
        type=natural,
        help="epoch or iteration of the runs to begin at, or their last where they diverged before (default: their last, "
        "or with --anchor end as far before it as needed)",
    )
    add_continuing_arguments(parser)
    args = parser.parse_args()

    device = device_of(args.device)
    parents = finished_runs(args.runs, args.from_step)
    use_own_network(args.model, parents)
    children = [describe(parent, args) for parent in parents]
    refuse_what_cannot_be_made(children, device)
    for number, (parent, path, config) in enumerate(children, 1):
        work = functools.partial(average, parent, checkpoint_seconds=args.checkpoint_seconds)
        complete_run(path, config, device, work, place_of(number, len(children)))


def describe(parent, args):
    """(parent, folder, config) of the SWA run that continues one run over its largest window. Raises BadInput."""
    path, network = Path(args.out) / parent.path.name, network_of(parent.config)
    spacing, anchor = args.spacing or network.swa_spacing, args.anchor or network.swa_anchor
    windows = sorted(set(args.windows))
    length = (windows[-1] - 1) * spacing
    step = args.from_step
    if step is None:
        step = parent.settings["steps"] - (length if anchor == "end" else 0)
        if step < 0:
            raise BadInput(
                f"{parent.path}: is too short for windows that reach back {length} {parent.unit}s; give smaller --windows "
                f"or --spacing, or average from its end on with --anchor start"
            )
    step = step_to_begin_at(parent, step)
    refuse_larger_windows_at_end(path, windows, anchor)
    try:
        config = describe_child("swa", parent, path, step, [], length, spacing, args.data_file)
    except BadInput as error:
        if anchor == "start":
            raise
        raise BadInput(f"{error}, in a new folder; or average from the run's end on with --anchor start") from None
    config["settings"] |= {"windows": windows, "spacing": spacing, "anchor": anchor}
    return parent, path, config


def average(parent, run, task, checkpoint_seconds):
    """Train an SWA run over its largest window, and write the averages and what they reach. Returns the metrics."""
    averages = WindowAverages(*(run.settings[name] for name in ("windows", "spacing", "anchor")))
    run.begin_from(parent, task.resume)  # with the optimiser's state: it passes weights again
    metrics = train(run, task, checkpoint_seconds, averages)
    return metrics | {"swa": measure_averages(run, task, averages, metrics["step"][-1])}


def refuse_larger_windows_at_end(path, windows, anchor):
    """Raise Refused where an SWA run that is there would have to begin earlier than it did."""
    there = Run(path).settings if is_run(path) else {}
    if anchor == there.get("anchor") == "end" and windows[-1] > max(there["windows"]):
        raise Refused(
            f"{path}: has windows of up to {max(there['windows'])} weights that end together; one of {windows[-1]} begins "
            f"before them; name another folder"
        )


def measure_averages(run, task, averages, last_step):
    """Write each window's average as swa-K.pt; returns losses and accuracies, arrays indexed [window][member]."""
    measured = {"window": averages.windows}
    for window in averages.windows:
        task.load_average(averages.mean(window, last_step))
        for name, values in {**task.evaluate_train(), **task.evaluate()}.items():
            measured.setdefault(name, []).append(values)
        run.keep(f"swa-{window}", {"network": run.settings["model"], **task.solution()})
    return measured


if __name__ == "__main__":
    run(main)
