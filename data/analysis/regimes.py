"""What a regime is (paper, sections 3 and 4), as functions of metrics, and where the boundaries between regimes lie.

metrics: what metrics.json holds, as it is read from disk (None = not finite). index: that of a member. Training that
stops early, boundaries, claims and the search for a band all call these.

measure_regimes(study)      {"b12": {"last": PLR, "next": PLR}, ...}
early_verdict(metrics, ...) what a run leads to, where that is decided before its end

The rules of boundaries themselves stand in boundaries.py. The thresholds are this project's own.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from data import schema, ticks
from data.analysis import boundaries
from data.analysis.boundaries import (
    CHANCE_ERRORS,
    CHANCE_LOSS,
    SAME_ACCURACY,
    STAYING_LOSS,
    Finetuned,
    Pretrained,
    RunNumbers,
)

FALLS, TOO_SHORT = "falls", "too short"  # what tells that training is not finished, see why_unfinished()
LATE_STEPS = 4  # at least so many logged steps tell whether the train loss still falls
FALL_ERRORS = 3  # a fall is at least so many standard errors
DIVERGED, AT_CHANCE, CONVERGED, PLATEAUED = schema.VERDICTS
EARLIEST, LATEST = 0.2, 0.9  # the parts of a run's length between which it may stop early
SHORTEST_TREND = 8  # at least so many logged steps tell a trend
TREND_ERRORS = 2  # a trend may be steeper by so many standard errors
STAYS = 0.7  # a train loss that plateaued keeps at least this part of itself until the end of the run
FAR_FROM_CONVERGED = 0.2  # its train error is at least this part of that of guessing
LATEST_CONVERGENCE = 1e-2  # train loss at which the paper's runs count as converged; they stop at 1e-4

# -------------------------------------------------------------------------------------------- members, by their metrics


def losses_at(metrics, position):
    """The train losses of all members at a logged step, as floats, NaN where not finite; position: that in `step`."""
    return [as_float(loss) for loss in metrics["train_loss"][position]]


def all_below(metrics, level):
    """Whether the last logged train losses of all members are below a level."""
    return all(loss < level for loss in losses_at(metrics, -1))


def is_below(metrics, index, level):
    """Whether the last logged train loss of a member is below a level."""
    return losses_at(metrics, -1)[index] < level


def first_below(metrics, index, level):
    """The position of the first logged train loss of a member that is below a level, or None."""
    below = of_member(metrics, "train_loss", index) < level
    return int(below.argmax()) if below.any() else None


def first_crossing(metrics, index, level):
    """first_below(), but None where the loss was below the level from the start, and so never crossed it."""
    position = first_below(metrics, index, level)
    return None if position == 0 else position


def has_converged(metrics, index, accuracy):
    """Whether train accuracy, averaged over the last tenth of the run, reaches that of a run that has converged."""
    return late_mean(metrics, "train_accuracy", index) >= accuracy


def late_values(metrics, name, index):
    """The values of a series in the last tenth of the run (epochs 181-200 of 200), NaN where not finite."""
    steps = metrics["step"]
    late = [row[index] for step, row in zip(steps, metrics[name]) if step > 0.9 * steps[-1] or step == steps[-1]]
    return np.array([as_float(number) for number in late])


def late_mean(metrics, name, index):
    """Mean of late_values(); NaN where one of them was not finite."""
    return late_values(metrics, name, index).mean()


def late_part_of_initial_loss(metrics, index):
    """Mean train loss in the last tenth of the run, relative to the initial one."""
    return late_mean(metrics, "train_loss", index) / as_float(metrics["train_loss"][0][index])


def late_part_of_earlier_loss(metrics, index):
    """Mean train loss in the last tenth of the run, relative to the tenth before; None where none was logged there.

    Not finite where the loss was 0 before.
    """
    steps = np.array(metrics["step"]) / metrics["step"][-1]
    before = of_member(metrics, "train_loss", index)[(steps > 0.8) & (steps <= 0.9)]
    if not len(before):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return late_mean(metrics, "train_loss", index) / before.mean()


def still_falls(metrics, index):
    """Whether the train loss of a member still falls at the end of the run, so that more training would tell more.

    Of the steps logged in the last fifth of the run, at least four, the mean loss over the later half is then below 95 %
    of that over the earlier half, and by at least three standard errors of their difference; noise is what deviates from a
    straight line. Of runs with fewer logged steps after the initial point nothing is said.
    """
    if logs_too_few_steps(metrics):
        return False
    steps = np.array(metrics["step"])
    count = max(int((steps > 0.8 * steps[-1]).sum()), LATE_STEPS)
    losses, steps = of_member(metrics, "train_loss", index)[-count:], steps[-count:] - steps[-count:].mean()
    if not np.isfinite(losses).all():
        return False
    earlier, later = losses[: count // 2], losses[count // 2 :]
    deviations = losses - np.polyval(np.polyfit(steps, losses, 1), steps)
    variance = deviations @ deviations / (count - 2)
    error = math.sqrt(variance * (1 / len(earlier) + 1 / len(later)))
    fall = earlier.mean() - later.mean()
    return bool(fall > (1 - STAYING_LOSS) * earlier.mean() and fall >= FALL_ERRORS * error)


def logs_too_few_steps(metrics):
    """Whether fewer steps were logged after the initial point than tell whether the train loss still falls."""
    return len(metrics["step"]) <= LATE_STEPS


def why_unfinished(metrics, index, accuracy):
    """Why a member may be undertrained, FALLS or TOO_SHORT, or None.

    It has not the train accuracy of convergence, nor diverged, and its train loss still falls, or too few steps were logged
    to tell. accuracy: None of networks that never converge, of which this is never said.
    """
    if accuracy is None or metrics["diverged_at"][index] is not None or has_converged(metrics, index, accuracy):
        return None
    if logs_too_few_steps(metrics):
        return TOO_SHORT
    return FALLS if still_falls(metrics, index) else None


def of_member(metrics, name, index):
    """The series of a member, float64 [logged steps], NaN where not finite."""
    return np.array([as_float(row[index]) for row in metrics[name]])


def as_float(number):
    """A number of metrics, None where not finite, as a float, NaN where not finite."""
    return float(number) if number is not None and math.isfinite(number) else math.nan


# ------------------------------------------------------------------------------------------------------ early verdicts


class Circumstances(NamedTuple):
    """What early verdicts on a run depend on beside its metrics."""

    length: int  # of the run, in epochs or iterations
    accuracy: float | None  # train accuracy of convergence; None of networks that never converge
    diverges: bool  # whether there is a regime 3
    chance: float  # test accuracy of guessing
    test_samples: int | None  # how many there are, None where it is unknown


def circumstances_of(run):
    """The Circumstances of a run's members."""
    test_samples = ticks.TEST_SIZE if run.network["task"] == "ticks" else run.config.get("samples", {}).get("test")
    network = run.network
    return Circumstances(
        run.settings["steps"], network["converged"], network["diverges"], 1 / run.settings["classes"], test_samples
    )


def early_verdict(metrics, index, circumstances):
    """What the regime of a member is, decided by its metrics so far; None where they do not decide it.

    DIVERGED: a loss or a weight is not finite. The others are said between a fifth and nine tenths of the run's length:
    CONVERGED: has_converged() by what was trained so far, of which at least LATE_STEPS steps after the first are logged.
    Of the later half of what was trained, which has at least SHORTEST_TREND logged steps:
    AT_CHANCE: boundaries.at_chance() of this run by the later half of what was trained: mean test accuracy is at most 1 pp,
        or three standard errors of a mean of one set, above chance, and train loss at least half of its initial value; and
        it does not fall, see expected_part_of_loss(). Of networks that have a regime 3.
    PLATEAUED: the train loss does not fall any more: extrapolated to the end of the run it keeps 70 % of itself, see
        expected_part_of_loss(), and does not still_fall(); and late train error is at least a fifth of that of guessing, as
        next to 1|2 runs may stay at some small loss for long, and then converge. Not of networks that never converge.

    It depends on nothing but what is on disk, and on the length of the run, which therefore cannot be changed.
    """
    if metrics["diverged_at"][index] is not None:
        return DIVERGED
    now, length = metrics["step"][-1], circumstances.length
    if not EARLIEST * length <= now <= LATEST * length:
        return None
    accuracy = circumstances.accuracy
    if accuracy is not None and not logs_too_few_steps(metrics) and has_converged(metrics, index, accuracy):
        return CONVERGED
    later = np.array(metrics["step"]) > 0.5 * now
    if later.sum() < SHORTEST_TREND or not expected_part_of_loss(metrics, index, later, length) >= STAYS:
        return None
    if circumstances.diverges and guesses(metrics, index, later, circumstances):
        return AT_CHANCE
    if accuracy is None or still_falls(metrics, index):
        return None
    error = 1 - late_mean(metrics, "train_accuracy", index)
    return PLATEAUED if error >= FAR_FROM_CONVERGED * (1 - circumstances.chance) else None


def early_verdicts(metrics, circumstances):
    """early_verdict() of every member."""
    return [early_verdict(metrics, index, circumstances) for index in range(len(metrics["diverged_at"]))]


def expected_part_of_loss(metrics, index, chosen, length):
    """The part of its train loss that a member keeps until the end of the run by the trend of the chosen logged steps.

    It is the least that the trend allows for: a straight line through the logarithms of losses, steeper by two standard
    errors, which allow for deviations that follow each other being alike: with their correlation r the variance of a
    trend is (1 + r) / (1 - r) times that of independent ones. At most 1; NaN where a loss is not finite or is 0.
    """
    steps = np.array(metrics["step"], dtype=float)
    with np.errstate(divide="ignore"):
        slope, error = trend(steps[chosen], np.log(of_member(metrics, "train_loss", index)[chosen]))
    return math.exp(min(slope - TREND_ERRORS * error, 0) * (length - steps[-1]))


def trend(x, values):
    """(slope of the straight line through values, its standard error with the deviations' lag-1 correlation in it).

    That correlation is biased downwards in short series with a fitted line (Kendall 1954; by about (2 + 4 r) / n), which is
    taken back; below 0 it counts as 0, and it is at most 0.9. NaN where values are not finite.
    """
    if not np.isfinite(values).all():
        return math.nan, math.nan
    count, x = len(x), x - x.mean()
    slope, middle = np.polyfit(x, values, 1)
    deviations = values - slope * x - middle
    squares = deviations @ deviations
    found = deviations[1:] @ deviations[:-1] / squares if squares > 0 else 0
    correlation = min(max((count * found + 2) / (count - 4), 0), 0.9)
    variance = squares / (count - 2) / (x @ x)
    return slope, math.sqrt(variance * (1 + correlation) / (1 - correlation))


def guesses(metrics, index, chosen, circumstances):
    """Whether a member is at chance by its means over the chosen logged steps, as boundaries.at_chance() has it."""
    tolerance, chance = SAME_ACCURACY, circumstances.chance
    if circumstances.test_samples:
        tolerance = max(tolerance, CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / circumstances.test_samples))
    accuracy = of_member(metrics, "test_accuracy", index)[chosen].mean()
    losses = of_member(metrics, "train_loss", index)
    return bool(accuracy <= chance + tolerance and losses[chosen].mean() >= CHANCE_LOSS * losses[0])


# --------------------------------------------------------------------------------------------------------- single runs


def reaches_its_loss(run, index):
    """Whether a member reached the train loss at which its run was to stop."""
    return is_below(run.metrics, index, run.settings["until_loss"])


def convergence_level(run):
    """The train loss below which a run that trains until it converges has converged (figure 11).

    It is 1e-2, or the loss at which the run stops where that is larger.
    """
    return max(LATEST_CONVERGENCE, run.settings["until_loss"])


# ---------------------------------------------------------------------------------------------------------- boundaries


@functools.cache  # every figure of a study asks for them
def measure_regimes(study):
    """The boundaries between regimes of a study, {"b12", "b2AB", "b23"}, see boundaries.measure()."""
    return boundaries.measure(run_numbers(study))


@functools.cache
def run_numbers(study, refined=True):
    """The RunNumbers of a study, of its run_records()."""
    return run_records(study, refined).numbers()


class Records(NamedTuple):
    """What boundaries are measured from: one Pretrained or Finetuned for each run, and facts for RunNumbers."""

    pretrained: list
    finetuned: list
    facts: dict

    def numbers(self):
        return RunNumbers(self.pretrained, self.finetuned, **self.facts)


def run_records(study, refined=True):
    """The Records of a study.

    Units are the data seeds, where there are several (on ticks), as all runs of one share its data and vary less among
    themselves; otherwise runs, each with its fine-tunings. All pre-trainings tell where 1|2 and 2|3 lie; those that are
    compared (see pairing.py), and their fine-tunings, where 2A ends.
    refined: whether runs that train until they converge narrow 1|2.
    """
    members = [member for run in study.of_stage("pretrain") for member in run.members]
    shared = len({member.get("data_seed") for member in members}) > 1
    accuracy = study.network["converged"]

    def unit(run, index):
        return run.members[index]["data_seed" if shared else "seed"]

    def pretrained(run, index):
        unfinished = why_unfinished(run.metrics, index, accuracy)
        return Pretrained(
            plr=run.members[index]["lrs"][0],
            unit=unit(run, index),
            converged=accuracy is not None and has_converged(run.metrics, index, accuracy),
            stays_finite=stays_finite(run, index),
            late_loss=late_mean(run.metrics, "train_loss", index),
            part_of_loss=late_part_of_initial_loss(run.metrics, index),
            late_accuracy=late_mean(run.metrics, "test_accuracy", index),
            accuracy=final_accuracy(run, index),
            unfinished=unfinished == FALLS,
            too_short=unfinished == TOO_SHORT,
            compared=study.is_compared(run, index),
        )

    def finetuned(run, index):
        return Finetuned(run.members[index]["lrs"][0], unit(run, index), flr, final_accuracy(run, index))

    def listed(by_plr):
        return [of_run for of_plr in by_plr.values() for of_run in of_plr]

    of_finetuning = []
    for flr in study.flrs():
        of_finetuning += listed(study.by_plr("finetune", finetuned, flr))
    facts = {
        "classes": study.settings["classes"],
        "test_samples": number_of_test_samples(study),
        "shared": shared,
        "by_accuracy": accuracy is not None,
        "diverges": study.network["diverges"],
        "trained_longer": trained_longer(study) if refined else {},
    }
    return Records(listed(study.by_plr("pretrain", pretrained, every_seed=True)), of_finetuning, facts)


def trained_longer(study):
    """{learning rate: whether it converges} by runs that train until they converge: whether at least half do."""
    shares = means(study.by_plr("converge", reaches_its_loss))
    return {lr: share >= 0.5 for lr, share in shares.items()}


def number_of_test_samples(study):
    """The number of test samples of a study, None where it is unknown.

    Settings of runs on images do not have it. The accuracies of their pre-trainings do, if enough were logged.
    """
    if study.network["task"] == "ticks":
        return ticks.TEST_SIZE
    rows = [row for run in study.of_stage("pretrain") for row in run.metrics["test_accuracy"]]
    return boundaries.size_of_test_set([number for row in rows for number in row if number is not None])


def final_accuracy(run, index):
    return as_float(run.final("test_accuracy")[index])


def stays_finite(run, index):
    return run.metrics["diverged_at"][index] is None


def converging_plrs(study):
    """The PLRs at which at least half of the runs converge, in order."""
    numbers = run_numbers(study)
    [converging] = boundaries.converging(numbers, numbers.whole())
    return [plr for plr, converges in zip(numbers.plrs, converging) if converges]


def converges(study, run, index):
    """Whether a pre-trained member of a study has converged.

    It has if it has the train accuracy that its network's record calls converged, averaged over the last tenth of the
    run; or, of networks that reach none (converged is None), if it has not diverged and its PLR is at most fastest_plr().
    """
    accuracy = study.network["converged"]
    if accuracy is not None:
        return has_converged(run.metrics, index, accuracy)
    fastest = fastest_plr(study)
    return fastest is not None and stays_finite(run, index) and run.members[index]["lrs"][0] <= fastest


@functools.cache  # every member asks for it
def fastest_plr(study):
    """The PLR of the lowest train loss, see boundaries.fastest(), or None if it is the smallest one."""
    numbers = run_numbers(study)
    [fastest] = boundaries.fastest(numbers, numbers.whole())
    return numbers.plrs[fastest] if fastest > 0 else None


def meet_2a(study, plrs, b12, b23):
    """{PLR: whether it belongs to 2A} for those of `plrs` in regime 2 that boundaries.subregime_2a() has measured."""
    if b12 is None:
        return {}
    numbers = run_numbers(study)
    ends = (np.array([index_of_last(numbers.plrs, end["last"]) if end else -1]) for end in (b12, b23))
    [inside], [measured] = boundaries.subregime_2a(numbers, numbers.whole(), *ends)
    index = {plr: number for number, plr in enumerate(numbers.plrs)}
    return {plr: bool(inside[index[plr]]) for plr in plrs if measured[index[plr]]}


def index_of_last(plrs, last):
    """The index of the largest PLR of a grid that is at most the last learning rate below a boundary."""
    return int(np.searchsorted(plrs, last, side="right")) - 1


def means(values_by_plr):
    return {plr: float(np.mean(values)) for plr, values in values_by_plr.items()}
