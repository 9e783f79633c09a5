"""What is said of boundaries between regimes: where they lie, why one is not bracketed and what would, how far PLRs are."""

import numpy as np

from data.analysis import boundaries
from data.analysis.regimes import FALLS, TOO_SHORT, late_mean, measure_regimes, run_numbers, why_unfinished
from data.commandline import BadInput, counted, lr_name

TITLES = {"b12": "1|2", "b2AB": "2A|2B", "b23": "2|3"}


def boundary_lines(study):
    """What measure_regimes() found, in a line for every boundary, and how many of the resamples agree."""
    lines, units = [], "data seeds" if run_numbers(study).shared else "runs"
    for name, title in TITLES.items():
        place, found = measure_regimes(study)[name], why_open(study, name)
        if place:
            found, how_sure = f"between {place['last']:.4g} and {place['next']:.4g}", "single runs"
            if "shares" in place:
                share = 100 * place["shares"].get(place["last"], 0)
                how_sure = f"in {share:.0f} % of {boundaries.RESAMPLES} resamples of {units}"
            found += f" ({how_sure})"
        lines.append(f"boundary {title}: {found}")
    return lines


def why_open(study, name):
    """Why a boundary is not bracketed, and what would bracket it, as text; of one that is, text without a meaning."""
    numbers = run_numbers(study)
    if name == "b23" and not numbers.diverges:
        return "none, as this network does not diverge"
    if name == "b2AB":
        return why_2a_is_open(study, numbers)
    sample, found = numbers.whole(), why_1_is_open if name == "b12" else why_3_is_open
    return f"not bracketed by these runs: {found(numbers, sample)}"


def why_1_is_open(numbers, sample):
    [converging], plrs = boundaries.converging(numbers, sample), numbers.plrs
    if not numbers.by_accuracy:
        [fastest], [finite] = boundaries.fastest(numbers, sample), numbers.of("stays_finite", sample).mean() >= 0.5
        if not finite.any():
            return "runs at every PLR diverge; add smaller learning rates"
        if 0 < fastest < len(plrs) - 1:
            return f"runs diverge up to PLR {lr_name(plrs[fastest])}, that of the lowest train loss"
        which, more = ("largest", "larger") if fastest else ("smallest", "smaller")
        return f"the {which} PLR, {lr_name(plrs[fastest])}, has the lowest train loss; add {more} learning rates"
    if converging[-1] or plrs[-1] <= numbers.converges_up_to:
        largest = max(plrs[-1], numbers.converges_up_to)
        return f"the largest learning rate, {lr_name(largest)}, converges; add larger learning rates"
    known = converging | (np.array(plrs) <= numbers.converges_up_to)
    first = int(known.nonzero()[0].max()) + 1 if known.any() else 0
    return why_undertrained(numbers, sample, first) or (
        f"none converges, from PLR {lr_name(plrs[first])} on; add smaller learning rates"
    )


def why_3_is_open(numbers, sample):
    [chance], plrs = boundaries.at_chance(numbers, sample), numbers.plrs
    if not chance[-1]:
        return f"the largest PLR, {lr_name(plrs[-1])}, is not at chance; add larger learning rates"
    if chance.all():
        return why_undertrained(numbers, sample, 0) or (
            f"every PLR is at chance, from {lr_name(plrs[0])} on; add smaller learning rates"
        )
    return why_undertrained(numbers, sample, int((~chance).nonzero()[0].max()) + 1)


def why_undertrained(numbers, sample, index):
    """Why training at a PLR of this index does not tell what it leads to, and what would; None where it does."""

    def is_so(rule):
        return rule(numbers, sample)[0, index]

    at = f"training at PLR {lr_name(numbers.plrs[index])}"
    if not is_so(boundaries.undertrained):
        return None
    if is_so(boundaries.unfinished):
        return f"{at} is not finished, its train loss still falls; train longer (--steps)"
    if is_so(boundaries.slow):
        return f"{at} is slow, as its late train loss is higher than at a larger PLR; train longer (--steps)"
    return f"{at} logged too few steps to tell if it is finished; train longer (--steps) or log more often (--log-every)"


def why_2a_is_open(study, numbers):
    sample, plrs = numbers.whole(), numbers.plrs
    places = boundaries.last_plrs(numbers, sample)
    [inside], [measured] = boundaries.subregime_2a(numbers, sample, places["b12"], places["b23"])
    b12 = places["b12"][0]
    if b12 < 0:
        return "not bracketed by these runs, as 1|2 is not"
    if not boundaries.regime_2(numbers, places["b12"], places["b23"]).any():
        return "missing, as 2|3 follows 1|2; add learning rates between them"
    which = "FLRs" if numbers.by_accuracy else "FLRs below 1|2"
    last = int(inside.nonzero()[0].max()) if inside.any() else b12
    if measured.any() and not inside.any():
        return "missing, as no PLR above 1|2 meets the criterion of 2A"
    if last == len(plrs) - 1:
        return f"not bracketed by these runs: the largest PLR, {lr_name(plrs[last])}, is of 2A; add larger learning rates"
    return (
        f"not bracketed by these runs: fine-tuning at two or more {which} is missing at PLR {lr_name(plrs[last + 1])}; "
        f"finetune.py makes it"
    )


# -------------------------------------------------------------------------------------------------------- convergence


def convergence_bracket(study, refined):
    """(the largest PLR that converges, the next one), see b12 of measure_regimes().

    refined: whether runs that train until they converge narrow it. Raises BadInput where these runs do not bracket it.
    """
    numbers = run_numbers(study, refined)
    b12 = boundaries.measure(numbers)["b12"]
    if b12 is None:
        why = why_1_is_open(numbers, numbers.whole())
        raise BadInput(f"{study.folder}: its pre-trainings do not bracket the boundary of regimes 1 and 2: {why}")
    return b12["last"], b12["next"]


def convergence_lines(study):
    """How far pre-training converged, a line for every PLR: means over its runs and the last tenth of each."""
    accuracy, numbers = study.network["converged"], run_numbers(study)

    def of_run(run, index):
        return (
            100 * late_mean(run.metrics, "train_accuracy", index),
            late_mean(run.metrics, "train_loss", index),
            why_unfinished(run.metrics, index, accuracy),
        )

    [converging], [slow] = (rule(numbers, numbers.whole()) for rule in (boundaries.converging, boundaries.slow))
    is_slow = dict(zip(numbers.plrs, slow & ~converging))
    lines = []
    for plr, found in study.by_plr("pretrain", of_run, every_seed=True).items():
        accuracies, losses, unfinished = zip(*found)
        text = f"PLR {lr_name(plr)}: train accuracy {np.mean(accuracies):.4g} %, train loss {np.mean(losses):.3g}"
        falling, short = (f"{unfinished.count(why)} of {counted(len(found), 'run')}" for why in (FALLS, TOO_SHORT))
        if FALLS in unfinished:
            text += f", not finished: the loss of {falling} still falls"
        if TOO_SHORT in unfinished:
            text += f", {short} logged too few steps to tell if training is finished"
        if is_slow[plr]:
            text += ", slow: the loss is lower at a larger PLR"
        lines.append(text)
    return lines
