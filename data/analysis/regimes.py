"""What a regime is (paper, sections 3 and 4), as functions of metrics, and where the boundaries between regimes lie.

metrics: what metrics.json holds, read from disk (None = not finite) or in memory, where the numbers of a logged step
may be a tensor. index: that of a member. Training that stops early, boundaries and claims all call these.

measure_regimes(study)      {"b12": {"last": PLR, "next": PLR}, ...}

The thresholds are this project's own.
"""

import functools
import math

import numpy as np

from data.commandline import BadInput

SAME_ACCURACY = 0.01  # test accuracies no further apart count as the same
CHANCE_LOSS = 0.5  # at chance, train loss is at least this part of its initial value
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


def is_at_chance(test_accuracy, part_of_initial_loss, classes):
    """Whether late test accuracy is at most 1 pp above chance, and train loss at least half of its initial value.

    What is NaN, as of members that diverged, speaks for chance.
    """
    return not (test_accuracy > 1 / classes + SAME_ACCURACY or part_of_initial_loss < CHANCE_LOSS)


def late_values(metrics, name, index):
    """The values of a series in the last tenth of the run (epochs 181-200 of 200), NaN where not finite."""
    steps = np.array(metrics["step"])
    return of_member(metrics, name, index)[(steps > 0.9 * steps[-1]) | (steps == steps[-1])]


def late_mean(metrics, name, index):
    """Mean of late_values(); NaN where one of them was not finite."""
    return late_values(metrics, name, index).mean()


def late_part_of_initial_loss(metrics, index):
    """Mean train loss in the last tenth of the run, relative to the initial one."""
    return late_mean(metrics, "train_loss", index) / losses_at(metrics, 0)[index]


def late_part_of_earlier_loss(metrics, index):
    """Mean train loss in the last tenth of the run, relative to the tenth before; None where none was logged there."""
    steps = np.array(metrics["step"]) / metrics["step"][-1]
    before = of_member(metrics, "train_loss", index)[(steps > 0.8) & (steps <= 0.9)]
    return late_mean(metrics, "train_loss", index) / before.mean() if len(before) else None


def of_member(metrics, name, index):
    """The series of a member, float64 [logged steps], NaN where not finite."""
    return np.array([as_float(row[index]) for row in metrics[name]])


def as_float(number):
    """A number of metrics, None where not finite, as a float, NaN where not finite."""
    return float(number) if number is not None and math.isfinite(number) else math.nan


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
    """The boundaries between regimes (paper, sections 3 and 4), each between two neighbours of the PLR grid.

    Returns {"b12", "b2AB", "b23"}, each {"last": PLR, "next": PLR}: the last PLR below the boundary and the first
    above it; None where the grid does not bracket the boundary.

    b12: `last` is the largest PLR at which at least half of the runs converge, see converges(). (Smaller PLRs that are
        not there yet are slow, not noisy.)
    b23: `next` is the smallest PLR from which on every PLR is at chance, see is_at_chance(), by means over runs and
        the last tenth of each; always None of networks that do not diverge, whose regime 2 has no end.
    b2AB: `last` is the end of subregime 2A: the last PLR of regime 2 from which fine-tuning reaches the same test
        accuracy at every FLR, and no worse a one than the best of regime 1's pre-training. Means over runs are the
        same within 1 pp or two standard errors of their difference, whichever is more.
    """
    accuracies = means(study.by_plr("pretrain", lambda run, index: late_mean(run.metrics, "test_accuracy", index)))
    losses = means(study.by_plr("pretrain", lambda run, index: late_part_of_initial_loss(run.metrics, index)))
    plrs, classes = list(accuracies), study.settings["classes"]
    trains = [plr for plr in plrs if not is_at_chance(accuracies[plr], losses[plr], classes)]
    b12 = boundary(converging_plrs(study), plrs)
    b23 = boundary(trains, plrs) if study.network["diverges"] else None
    inside = [plr for plr, meets in meet_2a(study, plrs, b12, b23).items() if meets]
    return {"b12": b12, "b2AB": boundary(inside, plrs), "b23": b23}


def converging_plrs(study):
    """The PLRs at which at least half of the runs converge, in order."""
    shares = means(study.by_plr("pretrain", functools.partial(converges, study)))
    return [plr for plr, share in shares.items() if share >= 0.5]


def converges(study, run, index):
    """Whether a pre-trained member of a study has converged.

    It has if it has the train accuracy that its network's record calls converged, averaged over the last tenth of the
    run; or, of networks that reach none (converged is None), if it has not diverged and its PLR is at most fastest_plr().
    """
    accuracy = study.network["converged"]
    if accuracy is not None:
        return has_converged(run.metrics, index, accuracy)
    fastest, diverged = fastest_plr(study), run.metrics["diverged_at"][index] is not None
    return fastest is not None and not diverged and run.members[index]["lrs"][0] <= fastest


@functools.cache  # every member asks for it
def fastest_plr(study):
    """The PLR of the lowest train loss (mean over runs and the last tenth of each), or None if it is the smallest one.

    Up to it a larger learning rate makes faster progress, above it its noise keeps the loss up. Where the smallest PLR
    has the lowest loss, nothing shows that a smaller one would not have a lower one still. Means are over losses that
    are finite, and infinite where those of more than half of the runs are not.
    """
    of_runs = study.by_plr("pretrain", lambda run, index: late_mean(run.metrics, "train_loss", index))
    losses = {}
    for plr, of_plr in of_runs.items():
        finite = [loss for loss in of_plr if math.isfinite(loss)]
        losses[plr] = np.mean(finite) if len(finite) >= len(of_plr) / 2 else math.inf
    fastest = min(losses, key=losses.get)
    return None if fastest == min(losses) else fastest


def boundary_lines(study):
    """What measure_regimes() found, in a line for every boundary."""
    lines = []
    for name, title in (("b12", "1|2"), ("b2AB", "2A|2B"), ("b23", "2|3")):
        place, found = measure_regimes(study)[name], "not bracketed by these runs"
        if place:
            found = f"between {place['last']:.4g} and {place['next']:.4g}"
        elif name == "b23" and not study.network["diverges"]:
            found = "none, as this network does not diverge"
        lines.append(f"boundary {title}: {found}")
    return lines


def convergence_bracket(study, refined):
    """(the largest PLR that converges, the next one), see b12 of measure_regimes().

    If refined, runs between them that train until they converge narrow the bracket: a learning rate converges where at
    least half of these reach the loss at which they stop. Raises BadInput where the grid does not bracket the boundary.
    """
    b12 = measure_regimes(study)["b12"]
    if b12 is None:
        side = "larger" if converging_plrs(study) else "smaller"
        raise BadInput(
            f"{study.folder}: its pre-trainings do not bracket the boundary of regimes 1 and 2; add some with {side} "
            f"learning rates"
        )
    shares = means(study.by_plr("converge", reaches_its_loss)) if refined else {}
    last = max([b12["last"], *(lr for lr, share in shares.items() if share >= 0.5)])
    above = [lr for lr in [*study.by_plr("pretrain", lambda *_: True), *shares] if lr > last]
    if not above:
        raise BadInput(f"{study.folder}: no learning rate above {last:.3g}, which converges, was tried; add some")
    return last, min(above)


def meet_2a(study, plrs, b12, b23):
    """{PLR: whether it meets the criterion of 2A (see measure_regimes)} for those of regime 2 with two or more FLRs."""
    if b12 is None:
        return {}
    pretrained = study.by_plr("pretrain", final_accuracy)
    best_of_regime_1 = max((pretrained[plr] for plr in plrs if plr <= b12["last"]), key=np.mean)
    finetuned = [study.by_plr("finetune", final_accuracy, flr) for flr in study.flrs()]
    meets = {}
    for plr in plrs:
        reached = [curve[plr] for curve in finetuned if plr in curve]
        if plr > b12["last"] and not (b23 and plr > b23["last"]) and len(reached) >= 2:
            best, worst = max(reached, key=np.mean), min(reached, key=np.mean)
            meets[plr] = not is_worse(worst, best) and not is_worse(worst, best_of_regime_1)
    return meets


def final_accuracy(run, index):
    return run.metrics["test_accuracy"][-1][index]


def is_worse(accuracies, others):
    """Whether the first mean is below the second by more than 1 pp and more than two standard errors."""
    return np.mean(others) - np.mean(accuracies) > max(SAME_ACCURACY, 2 * standard_error(accuracies, others))


def standard_error(values, others):
    """That of the difference of two means; a single value adds nothing, as its own is unknown."""
    return np.sqrt(sum(np.var(sample, ddof=1) / len(sample) for sample in (values, others) if len(sample) > 1))


def boundary(below, plrs):
    """The boundary above the largest of the PLRs `below`, or None where the grid has no PLR on both its sides."""
    if not below or max(below) == plrs[-1]:
        return None
    return {"last": max(below), "next": plrs[plrs.index(max(below)) + 1]}


def means(values_by_plr):
    return {plr: float(np.mean(values)) for plr, values in values_by_plr.items()}
