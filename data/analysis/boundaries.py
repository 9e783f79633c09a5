"""Where the boundaries between regimes lie, by numbers of single runs, and how sure that is.

    numbers = RunNumbers(pretrained, finetuned, classes=10)
    measure(numbers)      {"b12": {"last": PLR, "next": PLR, "shares": {PLR: share}, "range": [PLR, PLR]}, ...}

The regimes (paper, sections 3 and 4) are told apart by means over runs. All rules are computed for several samples of
the runs at once: for the study as it is, or for a thousand resamples of it. `samples` is how often each of them holds
every unit, float64 [samples, units]; a unit is what is drawn as a whole. P and F are the numbers of PLRs and of FLRs.

The thresholds are this project's own.
"""

import math
from typing import NamedTuple

import numpy as np

from data.seeds import seed_of

STAYING_LOSS = 0.95  # a train loss below this part of another is lower
SAME_ACCURACY = 0.01  # test accuracies no further apart count as the same
CHANCE_LOSS = 0.5  # at chance, train loss is at least this part of its initial value
CHANCE_ERRORS = 3  # a mean at chance is at most so many standard errors above it
RESAMPLES = 1000
LIKELY = 0.1  # a place of a boundary counts if at least this part of the resamples gives it
ROUNDING = 1e-6  # of accuracies, which are stored with 7 digits; less than one of 100,000 test samples
LARGEST_TEST_SET = 100_000  # that size_of_test_set() knows
ENOUGH_ACCURACIES = 20  # different ones, for size_of_test_set()


class Pretrained(NamedTuple):
    """The numbers of a pre-training; `late` ones are means over its last tenth. They are NaN where not finite."""

    plr: float
    unit: int  # a data seed, or the seed of this run
    converged: bool  # whether it has the train accuracy of runs that have converged
    stays_finite: bool  # whether it has not diverged
    late_loss: float  # train loss
    part_of_loss: float  # the same, relative to the initial one
    late_accuracy: float  # test accuracy
    accuracy: float  # test accuracy at the end
    unfinished: bool = False  # whether its train loss still falls where it has not converged
    too_short: bool = False  # whether too few steps were logged to tell that
    compared: bool = True  # whether its accuracy is compared with those of fine-tunings


class Finetuned(NamedTuple):
    """The numbers of a fine-tuning right after pre-training."""

    plr: float
    unit: int
    flr: float
    accuracy: float  # test accuracy at the end


class Totals(NamedTuple):
    """Sums over the runs of every unit, or sample: float64 [units or samples, P] or [units or samples, P, F]."""

    runs: np.ndarray
    finite: np.ndarray  # runs whose value is finite
    values: np.ndarray  # the finite values

    def mean(self):
        """Means over runs; NaN where a value was not finite, or there are no runs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.finite == self.runs, self.values / self.runs, np.nan)

    def mean_of_finite(self):
        """Means of the finite values; infinite where those of more than half of the runs are not."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((self.finite > 0) & (2 * self.finite >= self.runs), self.values / self.finite, np.inf)


class RunNumbers:
    """What boundaries are measured from: Pretrained and Finetuned, one for each run.

    classes, test_samples: of the test set; None where the number of its samples is unknown.
    shared: whether a unit is the same thing at all PLRs, as a data seed is, and drawn for all of them at once;
        otherwise every PLR has units of its own, and they are drawn for each by itself.
    by_accuracy: whether `converged` tells if runs have converged, or else the lowest train loss.
    diverges: whether there is a regime 3.
    trained_longer: {learning rate: whether runs that train until they converge do} of any learning rates.
    """

    def __init__(
        self,
        pretrained,
        finetuned,
        *,
        classes,
        test_samples=None,
        shared=False,
        by_accuracy=True,
        diverges=True,
        trained_longer=None,
    ):
        self.plrs = sorted({run.plr for run in pretrained})
        flrs = self.flrs = sorted({run.flr for run in finetuned})
        finetuned = [run for run in finetuned if run.plr in self.plrs]
        self.chance, self.test_samples = 1 / classes, test_samples
        self.shared, self.by_accuracy, self.diverges = shared, by_accuracy, diverges
        std = std_of_a_run(finetuned) or sampling_std(finetuned, test_samples)
        self.tolerance = max(SAME_ACCURACY, std) + ROUNDING
        self.trained_longer = trained_longer or {}
        self.converges_up_to = max((lr for lr, converges in self.trained_longer.items() if converges), default=0)

        of_plr = {plr: set() for plr in self.plrs}
        for run in [*pretrained, *finetuned]:
            of_plr[run.plr].add(run.unit)
        # PLRs with the same shared units are drawn at once; others apart, so that no draw leaves one without runs.
        stratum = {plr: tuple(sorted(units)) if shared else plr for plr, units in of_plr.items()}
        units = list(dict.fromkeys((stratum[plr], unit) for plr in self.plrs for unit in sorted(of_plr[plr])))
        self.strata = [
            [i for i, unit in enumerate(units) if unit[0] == name] for name in dict.fromkeys(stratum.values())
        ]
        self.units = len(units)

        index = {unit: number for number, unit in enumerate(units)}
        plr_index, flr_index = ({lr: number for number, lr in enumerate(lrs)} for lrs in (self.plrs, flrs))
        shape, self._totals = (self.units, len(self.plrs)), {}
        for name in Pretrained._fields:
            if name not in ("plr", "unit", "compared"):
                runs = [run for run in pretrained if run.compared or name != "accuracy"]
                cells = [(index[stratum[run.plr], run.unit], plr_index[run.plr]) for run in runs]
                self._totals[name] = totals(shape, cells, [getattr(run, name) for run in runs])
        cells = [(index[stratum[run.plr], run.unit], plr_index[run.plr], flr_index[run.flr]) for run in finetuned]
        self._totals["finetuned"] = totals((*shape, len(flrs)), cells, [run.accuracy for run in finetuned])

    def of(self, name, samples):
        """The Totals of samples: of a field of Pretrained, [samples, P], or of `finetuned`, [samples, P, F]."""
        return Totals(*(np.tensordot(samples, of_units, axes=1) for of_units in self._totals[name]))

    def place(self, name, index):
        """(last, next): the learning rates that a boundary lies between, if that is after the PLR of this index.

        They are two neighbours of the grid; those of b12 are narrowed by what trained longer between them.
        """
        last, following = self.plrs[index : index + 2]
        if name == "b12":
            between = [lr for lr in self.trained_longer if last < lr < following]
            last = max([last, *(lr for lr in between if self.trained_longer[lr])])
            following = min([following, *(lr for lr in between if lr > last)])
        return last, following

    def whole(self):
        """The one sample that holds every unit once."""
        return np.ones((1, self.units))

    def resamples(self):
        """RESAMPLES samples, always the same, drawn with replacement; None of single runs, where there is no choice."""
        if max(map(len, self.strata)) == 1:
            return None
        generator, samples = np.random.default_rng(seed_of("resamples")), np.zeros((RESAMPLES, self.units))
        for units in self.strata:
            samples[:, units] = generator.multinomial(len(units), [1 / len(units)] * len(units), RESAMPLES)
        return samples


def totals(shape, cells, values):
    """The Totals of values that lie in these cells."""
    values = np.array(values, dtype=float)
    finite, where = np.isfinite(values), tuple(np.array(cells, dtype=int).reshape(-1, len(shape)).T)
    sums = Totals(*np.zeros((3, *shape)))
    for of_cells, added in zip(sums, (1, finite, np.where(finite, values, 0))):
        np.add.at(of_cells, where, added)
    return sums


def std_of_a_run(finetuned):
    """The standard deviation of a run's test accuracy, pooled within settings (PLR and FLR); 0 of single runs."""
    settings = {}
    for run in finetuned:
        if math.isfinite(run.accuracy):
            settings.setdefault((run.plr, run.flr), []).append(run.accuracy)
    freedom = sum(len(of_setting) - 1 for of_setting in settings.values())
    squares = sum(np.var(of_setting) * len(of_setting) for of_setting in settings.values())
    return math.sqrt(squares / freedom) if freedom else 0.0


def sampling_std(finetuned, test_samples):
    """The standard deviation of a mean accuracy over that many test samples, for single runs; 0 where it is unknown."""
    accuracies = [run.accuracy for run in finetuned if math.isfinite(run.accuracy)]
    if not accuracies or not test_samples:
        return 0.0
    mean = float(np.mean(accuracies))
    return math.sqrt(mean * (1 - mean) / test_samples)


# --------------------------------------------------------------------------------------------------------------- rules


def measure(numbers):
    """{"b12", "b2AB", "b23"}: the boundaries, see last_plrs(), each between two neighbours of the PLR grid.

    `last` is the last PLR below it and `next` the first above it; those of b12 are learning rates between them where runs
    that train until they converge tell more. Where there are repeats, `shares` has the part of the resamples in which it
    lies above `last`, for every one that comes out, and `range` reaches from the lowest `last` to the highest `next` of
    what at least a tenth of them gives. What is missing in `shares` did not bracket the boundary.
    None for a boundary that the runs themselves do not bracket.
    """
    samples, resampled = numbers.resamples(), {}
    if samples is not None:
        resampled = last_plrs(numbers, samples)
    return {
        name: boundary(numbers, name, int(found), resampled.get(name))
        for name, [found] in last_plrs(numbers, numbers.whole()).items()
    }


def boundary(numbers, name, last, resampled):
    if last < 0:
        return None
    place = dict(zip(("last", "next"), numbers.place(name, last)))
    if resampled is None:
        return place
    shares = {index: float(np.mean(resampled == index)) for index in np.unique(resampled).tolist() if index >= 0}
    likely = [last, *(index for index, share in shares.items() if share >= LIKELY)]
    place["shares"] = {numbers.place(name, index)[0]: share for index, share in shares.items()}
    return place | {"range": [numbers.place(name, min(likely))[0], numbers.place(name, max(likely))[1]]}


def last_plrs(numbers, samples):
    """{"b12", "b2AB", "b23"}: the index of the last PLR below a boundary, int [samples]; -1 where it is not bracketed.

    b12: the largest PLR that converges, see converging(), or converges where it is trained longer. (Smaller PLRs that are
        not there yet are slow, not noisy.)
    b23: the one before the smallest PLR from which on every PLR is at chance, see at_chance(); -1 of networks that do
        not diverge, whose regime 2 has no end.
    b2AB: the last PLR of 2A, see subregime_2a(). It is not bracketed either where none is, or where the next one belongs
        to regime 2 and was fine-tuned at fewer than two FLRs.
    b12 is not bracketed either where the next PLR is undertrained(), nor b23 where it is unfinished().
    """
    b12 = last_before_another(converging(numbers, samples) | (np.array(numbers.plrs) <= numbers.converges_up_to))
    b12[is_open(numbers, "b12", b12, undertrained(numbers, samples))] = -1
    b23 = np.full_like(b12, -1)
    if numbers.diverges:
        b23 = last_before_another(~at_chance(numbers, samples))
        b23[is_open(numbers, "b23", b23, unfinished(numbers, samples))] = -1
    inside, measured = subregime_2a(numbers, samples, b12, b23)
    b2ab = last_before_another(inside)
    above = np.arange(len(numbers.plrs)) == b2ab[:, None] + 1
    beyond = ~regime_2(numbers, b12, b23)
    b2ab[~(above & (measured | beyond)).any(axis=1)] = -1
    return {"b12": b12, "b2AB": b2ab, "b23": b23}


def is_open(numbers, name, last, untold):
    """Whether a PLR next to the last one below a boundary, which tells that it lies below, does not, [samples].

    untold: whether a PLR was trained for too short a time to tell, [samples, P].
    """
    ended_by_grid = [numbers.place(name, index)[1] == plr for index, plr in enumerate(numbers.plrs[1:])]
    untold = untold & np.array([False, *ended_by_grid])
    return (last >= 0) & untold[np.arange(len(last)), last + 1]


def unfinished(numbers, samples):
    """Whether at least half of the runs of a PLR are not finished, [samples, P]: their train loss still falls."""
    return numbers.of("unfinished", samples).mean() >= 0.5


def too_short(numbers, samples):
    """Whether at least half of the runs of a PLR logged too few steps to tell if they are finished, [samples, P]."""
    return numbers.of("too_short", samples).mean() >= 0.5


def slow(numbers, samples):
    """Whether a larger PLR has a lower late train loss than a PLR, by 5 % or more, [samples, P].

    So what keeps the loss up there is that training is slow: noise keeps it up the more, the larger the PLR. PLRs of regime
    3 are neither slow nor compared with, as the loss at chance says nothing of either; nor are those that diverge slow. Of
    networks that never converge it is not asked, as regime 1 is then where the loss falls with the PLR.
    """
    losses = numbers.of("late_loss", samples).mean_of_finite()
    in_3 = in_regime_3(numbers, samples)
    larger = np.where(in_3, np.inf, losses)[:, ::-1]
    lowest_from = np.minimum.accumulate(larger, axis=1)[:, ::-1]
    lowest_above = np.concatenate([lowest_from[:, 1:], np.full((len(losses), 1), np.inf)], axis=1)
    return numbers.by_accuracy & np.isfinite(losses) & ~in_3 & (lowest_above < STAYING_LOSS * losses)


def in_regime_3(numbers, samples):
    """Whether a PLR and all above it are at chance, and one below it is not, [samples, P]."""
    last = last_before_another(~at_chance(numbers, samples))[:, None]
    return numbers.diverges & (last >= 0) & (np.arange(len(numbers.plrs)) > last)


def undertrained(numbers, samples):
    """Whether a PLR that has not converged might do so if it were trained for longer, [samples, P].

    Its training is unfinished() or slow(), or, but at chance, too_short() to tell; unless runs that train until they
    converge do not there.
    """
    short = too_short(numbers, samples) & ~in_regime_3(numbers, samples)
    untold = unfinished(numbers, samples) | slow(numbers, samples) | short
    return untold & ~np.array([numbers.trained_longer.get(plr) is False for plr in numbers.plrs])


def last_before_another(flags):
    """The index of the last flag of every row that is set, -1 where none is, or where none follows it; [rows, P]."""
    count = flags.shape[1]
    last = count - 1 - flags[:, ::-1].argmax(axis=1)
    return np.where(flags.any(axis=1) & (last < count - 1), last, -1)


def converging(numbers, samples):
    """Whether at least half of the runs of a PLR converge, [samples, P].

    They do if they have the train accuracy of convergence; of networks that reach none, if they have not diverged and
    their PLR is at most that of fastest().
    """
    if numbers.by_accuracy:
        return numbers.of("converged", samples).mean() >= 0.5
    place, best = np.arange(len(numbers.plrs)), fastest(numbers, samples)[:, None]
    return (numbers.of("stays_finite", samples).mean() >= 0.5) & (place <= best) & (best > 0)


def fastest(numbers, samples):
    """The index of the PLR with the lowest train loss (mean over runs and the last tenth of each), int [samples].

    Up to it a larger learning rate makes faster progress, above it its noise keeps the loss up. Where it is the smallest
    PLR, 0, nothing shows that a smaller one would not have a lower loss still.
    """
    return numbers.of("late_loss", samples).mean_of_finite().argmin(axis=1)


def at_chance(numbers, samples):
    """Whether a PLR is at chance by means over runs and the last tenth of each, [samples, P].

    Mean test accuracy is then at most 1 pp above chance, or at most three standard errors of the mean of as many runs
    that guess on as many test samples, if that is more; and mean train loss at least half of its initial value. (Runs
    that share a test set guess by themselves.) What is NaN, as of members that diverged, speaks for chance.
    """
    accuracy, part = numbers.of("late_accuracy", samples), numbers.of("part_of_loss", samples).mean()
    tolerance = np.full_like(part, SAME_ACCURACY)
    if numbers.test_samples:
        variance = numbers.chance * (1 - numbers.chance) / (numbers.test_samples * accuracy.runs)
        tolerance = np.maximum(tolerance, CHANCE_ERRORS * np.sqrt(variance))
    return ~((accuracy.mean() > numbers.chance + tolerance + ROUNDING) | (part < CHANCE_LOSS))


def regime_2(numbers, b12, b23):
    """Whether a PLR lies above b12 and not above b23, [samples, P], which are given as last_plrs() has them."""
    place, b12, b23 = np.arange(len(numbers.plrs)), b12[:, None], b23[:, None]
    return (b12 >= 0) & (place > b12) & ((b23 < 0) | (place <= b23))


def subregime_2a(numbers, samples, b12, b23):
    """(whether a PLR belongs to 2A, whether that is measured), bool [samples, P] each.

    2A runs from b12 upwards without a gap through PLRs of regime 2 from which fine-tuning
    - depends less on the FLR than on the seed: mean final test accuracies at all FLRs lie within a tolerance of 1 pp, or
      of the standard deviation of a run (see std_of_a_run(); of single runs that which so few test samples alone make), if
      that is more;
    - loses nothing against regime 1: at no FLR is the mean further below the best mean of regime 1's pre-training than
      by the same tolerance. The paper's 2A is where all FLRs lead to the same *and best* quality; without this, PLRs from
      which fine-tuning is equally bad at all FLRs, far into regime 2, would belong to it.

    The tolerance is no standard error, so it does not shrink as runs are added: what it is compared with is how large
    differences are, not whether they are significant. It is that of all runs in resamples, too, as runs that are drawn
    twice differ less.

    Of networks that never converge only FLRs below b12 count: what is fine-tuned at b12 itself, above which noise keeps the
    loss up, is about as noisy as pre-training there, wherever it comes from.

    Measured are the PLRs of regime 2 up to the first that was fine-tuned at fewer than two FLRs that count.
    """
    finetuned, place = numbers.of("finetuned", samples), np.arange(len(numbers.plrs))
    there, means = finetuned.runs > 0, finetuned.mean()
    if not numbers.by_accuracy:
        end_of_1 = np.array(numbers.plrs)[np.maximum(b12, 0)]
        there = there & (np.array(numbers.flrs) < end_of_1[:, None])[:, None, :]
    best = np.where(there, means, -np.inf).max(axis=2, initial=-np.inf)
    worst = np.where(there, means, np.inf).min(axis=2, initial=np.inf)
    pretrained = np.where(place <= b12[:, None], numbers.of("accuracy", samples).mean(), -np.inf)
    best_of_1 = np.fmax.reduce(pretrained, axis=1, keepdims=True)
    meets = (best - worst <= numbers.tolerance) & (best_of_1 - worst <= numbers.tolerance)
    measured = without_gap(regime_2(numbers, b12, b23) & (there.sum(axis=2) >= 2), b12)
    return without_gap(measured & meets, b12), measured


def without_gap(flags, b12):
    """The flags that are set without a gap from b12 upwards, [samples, P]."""
    below = np.arange(flags.shape[1]) <= b12[:, None]
    return flags & np.logical_and.accumulate(flags | below, axis=1)


# ----------------------------------------------------------------------------------------------------------- 2A itself


def width_of_2a(numbers):
    """(estimate, lower, upper) of b2AB / b12, by the middles (of logarithms) of where each lies, and by resamples.

    The ends, of 95 % of the resamples, allow for the boundaries to lie anywhere between two PLRs. Where a resample does
    not bracket both, the ratio may be anything; without repeats it may, too. The estimate is NaN where it is not known.
    """
    samples, last = numbers.resamples(), len(numbers.plrs) - 1
    below, above = (
        {name: np.array([numbers.place(name, index)[end] for index in range(last)]) for name in ("b12", "b2AB")}
        for end in (0, 1)
    )

    def ratios(of_samples):
        places = last_plrs(numbers, of_samples)
        b12, b2ab = places["b12"], places["b2AB"]
        known = (b12 >= 0) & (b2ab >= 0)
        lowest, highest = np.zeros(len(known)), np.full(len(known), np.inf)
        lowest[known] = below["b2AB"][b2ab[known]] / above["b12"][b12[known]]
        highest[known] = above["b2AB"][b2ab[known]] / below["b12"][b12[known]]
        return lowest, highest

    [lowest], [highest] = ratios(numbers.whole())
    estimate = math.sqrt(lowest * highest) if math.isfinite(highest) else math.nan
    if samples is None:
        return estimate, -math.inf, math.inf
    lower, upper = map(np.sort, ratios(samples))
    beyond = int(0.025 * RESAMPLES)  # so many resamples lie beyond either end
    return estimate, lower[beyond], upper[-1 - beyond]


def share_without_2a(numbers):
    """The part of the resamples in which regime 2 was fine-tuned and none of it is 2A; None without repeats."""
    samples = numbers.resamples()
    if samples is None:
        return None
    places = last_plrs(numbers, samples)
    inside, measured = subregime_2a(numbers, samples, places["b12"], places["b23"])
    return float(np.mean(measured.any(axis=1) & ~inside.any(axis=1)))


# ----------------------------------------------------------------------------------------------------------- test sets


def size_of_test_set(accuracies):
    """The number of samples that accuracies were measured on, or None where they do not tell.

    It is the smallest number of which all of them are multiples of one part. Among 20 different accuracies or more it is
    all but never a divisor of the true one; fewer are not trusted.
    """
    accuracies, sizes = np.unique(accuracies), np.arange(1, LARGEST_TEST_SET + 1)
    if len(accuracies) < ENOUGH_ACCURACIES:
        return None
    for accuracy in accuracies:
        correct = accuracy * sizes
        sizes = sizes[abs(correct - np.round(correct)) <= ROUNDING * sizes]
    return int(sizes[0]) if len(sizes) else None
