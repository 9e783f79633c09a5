"""What the measuring commands of analyze.py have in common: which runs are measured, and how all of them are gone through."""

import argparse
import functools
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

from data.analysis.commands import add_folder_arguments, study_of
from data.analysis.study import GEOMETRY_WINDOW
from data.commandline import BadInput, Progress, Refused, counted, positive_int, say
from data.device import add_device_argument
from data.runs import loss_name, low_ends_name, step_name


def add_measuring_arguments(parser):
    add_folder_arguments(parser)
    parser.add_argument("--data-file", help="image set, where it is no longer where the runs had it")
    add_device_argument(parser)


def at_least_two(text):
    """A whole number of at least 2, for argparse."""
    if positive_int(text) == 1:
        raise argparse.ArgumentTypeError("a standard error needs at least 2")
    return int(text)


def image_study(args):
    """The Study of a command's folder. Raises BadInput where it is not about images."""
    study = study_of(args)
    if study.network["task"] != "images":
        raise BadInput(f"{args.folder}: holds runs on {study.network['task']}; this is measured on images")
    return study


def solution_name(run):
    """The weights of a run that band accuracies and filter norms are those of. Raises BadInput where there are none."""
    if run.config["stage"] != "swa":
        return "checkpoint"
    if GEOMETRY_WINDOW not in run.settings["windows"]:
        raise BadInput(f"{run.path}: has no average of {GEOMETRY_WINDOW} weights")
    return f"swa-{GEOMETRY_WINDOW}"


def solutions_shown(study):
    """The runs whose solutions figures of bands and of norms show: pre-trainings, SWA, and the lowest and the highest FLR."""
    flrs, averaged = study.flrs(), []
    for run in study.of_stage("swa"):
        try:
            solution_name(run)
            averaged.append(run)
        except BadInput as error:
            say(f"skipped: {error}")
    return study.of_stage("pretrain") + averaged + fine_tuned(study, flrs[:1] + flrs[-1:])


def fine_tuned(study, flrs):
    """The runs fine-tuned at one of the FLRs right after pre-training."""
    return [run for run in study.of_stage("finetune") if run.members[0]["lrs"][1:] in [[flr] for flr in flrs]]


def without_low_ends(study, normalisation, ends):
    """The runs fine-tuned at the lowest FLR that --low-ends is to measure yet."""
    runs, name = fine_tuned(study, study.flrs()[:1]), low_ends_name(normalisation)
    refuse_others(runs, name, {"--low-ends": ("low_ends", sorted({*ends}))})
    if runs:
        return missing(f"low ends, {normalisation}", runs, name)
    say(f"low ends, {normalisation}: nothing to measure: {study.folder} holds no fine-tuning")
    return []


def weights_named(args, study):
    """{which weights sharpness is asked of, in words: (function run -> (run, their name), flag that keeps them or None)}.

    The end of a run that was made longer is one of its epochs, though it is compared as it was before.
    """

    def at_step(run, step):
        whole = study.whole(run)
        ends = [of_length for of_length in (run, whole) if of_length.complete and of_length.last_step == step]
        return (ends[0], "checkpoint") if ends else (run, step_name(step))

    named = {}
    for level in args.level:
        of_level = "--keep-loss of train.py and finetune.py"
        named[f"train loss {level:g}"] = (lambda run, level=level: (run, loss_name(level))), of_level
    for step in args.step:
        named[f"epoch {step}"] = functools.partial(at_step, step=step), "--keep of train.py"
    if args.end:
        named["the end"] = (lambda run: (run, "checkpoint")), None
    return named


def missing(title, runs, name, *keys):
    """The runs that have no measurement `name` with these keys; where all have it, that is printed."""

    def is_missing(run):
        measured = run.measurement(name)
        return measured is None or not {*keys} <= measured.keys()

    found = [run for run in runs if is_missing(run)]
    if not found:
        say(
            f"{title}: {'all' if runs[1:] else 'the'} {counted(len(runs), 'run')} {'are' if runs[1:] else 'is'} measured"
        )
    return found


def refuse_others(runs, name, options):
    """Raise Refused where a measurement of a run was made with other options: they would mix in one figure.

    options: {flag: (key in the measurement, number or list)}.
    """
    for run in runs:
        measured = run.measurement(name)
        if measured and any(measured[key] != value for key, value in options.values()):
            made = " ".join(f"{flag} {measured[key]}" for flag, (key, _) in options.items())
            raise Refused(
                f"{run.path}: {name} was measured with {re.sub('[][,]', '', made)}; use these, or remove {name}.json "
                f"everywhere"
            )


class Job(NamedTuple):
    """Measurements of runs: measure(run, advance) is called for each, which may call advance(): at each of several
    points, or with a text, which tells what is being done without a point being done."""

    title: str
    runs: list
    measure: Callable
    points: int = 1


def measure_all(jobs):
    """Make the measurements of all jobs. What one run lacks stops no other; at the end it is an error.

    Raises BadInput where files are damaged or gone or cannot be written, and Refused where other processes hold folders.
    """
    failed, refused = [], []
    for job in jobs:
        with Progress(job.title, job.points * len(job.runs), "point" if job.points > 1 else "run", 0) as progress:
            for number, run in enumerate(job.runs):
                try:
                    measure_one(job, run, number * job.points, progress)
                except (BadInput, Refused) as error:
                    print(f"{job.title}: not measured: {error}", file=sys.stderr)
                    (failed if isinstance(error, BadInput) else refused).append(error)
    if failed:
        raise BadInput(
            f"{counted(len(failed), 'measurement')} could not be made; mend that and give the command again"
        )
    if refused:
        raise Refused(f"other processes held {counted(len(refused), 'folder')}; give the command again")


def measure_one(job, run, done, progress):
    """Measure one run of a job, of which some points are done."""

    def advance(text=None):
        nonlocal done
        done += text is None
        progress.update(done, f"{run.path.name}, {text}" if text else run.path.name)

    job.measure(run, advance)
    if job.points == 1:
        advance()
