"""What runs say of a comparison: 95 % intervals, and whether a claim holds, is refuted or stays undecided by them.

    change = difference(Sample(after), Sample(before))   # Interval(estimate, lower, upper)
    above(change, 2)                                     # HOLDS, REFUTED or UNDECIDED

A false claim is said to hold with a probability of at most 2.5 %, and a true one to be refuted. Of several parts,
each by its own interval, all_of() keeps to that when it holds and any_of() when it is refuted, as every part must be;
every() and exceeds_all() keep to it both ways. So do simultaneous intervals: `comparisons` is how many are looked at
together. They are Bonferroni's, which need nothing of the dependence between comparisons (these share baselines and
data seeds); Holm's steps are stronger as tests, but no simple intervals belong to them.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

HOLDS, REFUTED, UNDECIDED = "holds", "refuted", "undecided"
FACTS = {True: HOLDS, False: REFUTED}  # what takes decisions takes definite facts, too
TAIL = 0.025  # beyond either end of a 95 % interval


class Interval(NamedTuple):
    """An estimate and its 95 % interval, as floats; infinite where nothing tells how far off the estimate may be."""

    estimate: float
    lower: float
    upper: float


def above(interval, margin):
    """Whether a quantity is above a margin: refuted by an interval that ends at it, undecided by one not finite."""
    if not np.isfinite(interval).all():
        return UNDECIDED
    if interval.lower > margin:
        return HOLDS
    return REFUTED if interval.upper <= margin else UNDECIDED


def below(interval, margin):
    """Whether a quantity is below a margin: refuted by an interval that begins at it, undecided by one not finite."""
    return above(Interval(-interval.estimate, -interval.upper, -interval.lower), -margin)


def within(interval, margin):
    """Whether a quantity lies from -margin to margin, these included; a narrow margin has both tails to be refuted by."""
    return all_of([opposite(below(interval, -margin)), opposite(above(interval, margin))])


def opposite(decision):
    """The decision on the contrary: at most is opposite(above(...)), at least is opposite(below(...))."""
    return {HOLDS: REFUTED, REFUTED: HOLDS, UNDECIDED: UNDECIDED}[FACTS.get(decision, decision)]


def all_of(decisions):
    """REFUTED if any is, else UNDECIDED if any is or there are none (nothing was compared), else HOLDS."""
    decisions = [FACTS.get(decision, decision) for decision in decisions]
    if REFUTED in decisions:
        return REFUTED
    return UNDECIDED if UNDECIDED in decisions or not decisions else HOLDS


def any_of(decisions):
    """HOLDS if any does, else UNDECIDED if any is or there are none, else REFUTED."""
    return opposite(all_of([opposite(decision) for decision in decisions]))


# ------------------------------------------------------------------------------------------------------ means over runs


class RunStd(NamedTuple):
    """Standard deviation of single runs at one setting, and its degrees of freedom, infinite where it is given."""

    std: float
    freedom: float = math.inf


class Sample:
    """Values of the runs at one setting, float64 [runs], and the group of each, or None where runs are independent.

    Runs of a group (on ticks, of a data seed: they share data and frozen layer) are alike and do not count as so many.
    noise: the RunStd of independent runs; by default that of the samples which an Interval is of.
    Of runs with a counterpart each, as a parent, give the differences: two samples without groups count as independent.
    """

    def __init__(self, values, groups=None, noise=None):
        self.values = np.asarray(values, dtype=float)
        self.groups = None if groups is None else np.asarray(groups)
        self.noise = noise
        if self.values.ndim != 1 or (groups is not None and self.groups.shape != self.values.shape):
            raise ValueError("a sample is one value per run, and one group per run or no groups")

    @property
    def mean(self):
        return float(self.values.mean())

    @functools.cached_property
    def group_means(self):
        return {group: self.values[self.groups == group].mean() for group in np.unique(self.groups).tolist()}


def run_std(samples):
    """The RunStd pooled over samples (not empty) that are about as noisy; (NaN, 0) where there are no repeats."""
    freedom = sum(len(sample.values) - 1 for sample in samples)
    squares = sum(((sample.values - sample.values.mean()) ** 2).sum() for sample in samples)
    return RunStd(math.sqrt(squares / freedom) if freedom else math.nan, freedom)


def combination(terms, comparisons=1):
    """The Interval of a linear combination of settings' means.

    terms: [(weight, Sample)]; the same Sample in several terms stands for the same runs.
    With groups: combined within each group that all samples have (means over its runs), then averaged over these, each
    with the same weight; a t interval with groups - 1 degrees of freedom. Other groups are skipped.
    Without groups: by the noise of the samples. The interval is infinite for one group, or for runs without a standard
    deviation; where there are no values or some are not finite the estimate is NaN, too. Raises ValueError where only
    some samples have groups.
    """
    weights = {}
    for weight, sample in terms:
        weights[sample] = weights.get(sample, 0) + weight
    if len({sample.groups is None for sample in weights}) > 1:
        raise ValueError("some of these samples have groups, others none")
    if not all(len(sample.values) and np.isfinite(sample.values).all() for sample in weights):
        return interval_of(math.nan)
    if any(sample.groups is None for sample in weights):
        estimate = sum(weight * sample.values.mean() for sample, weight in weights.items())
        return interval_of(estimate, *standard_error(weights), comparisons)
    by_group = [(weight, sample.group_means) for sample, weight in weights.items()]
    common = set.intersection(*(set(means) for _, means in by_group))
    values = np.array([sum(weight * means[group] for weight, means in by_group) for group in sorted(common)])
    if len(values) < 2:
        return interval_of(*values if len(values) else [math.nan])
    return interval_of(values.mean(), values.std(ddof=1) / math.sqrt(len(values)), len(values) - 1, comparisons)


def standard_error(weights):
    """(standard error, degrees of freedom) of a combination {Sample: weight} of independent runs.

    Standard deviations that differ are combined by Welch and Satterthwaite.
    """
    own, variances = run_std([sample for sample in weights if sample.noise is None]), {}
    for sample, weight in weights.items():
        noise = sample.noise or own
        variances[noise] = variances.get(noise, 0) + weight**2 * noise.std**2 / len(sample.values)
    if any(noise.freedom == 0 for noise in variances):
        return math.nan, 0
    variance, freedom = sum(variances.values()), sum(noise.freedom for noise in variances)
    uncertainty = sum(part**2 / noise.freedom for noise, part in variances.items())
    return math.sqrt(variance), variance**2 / uncertainty if uncertainty else freedom


def interval_of(estimate, error=math.nan, freedom=0, comparisons=1):
    """The Interval of an estimate whose standard error has so many degrees of freedom; infinite for none."""
    half = t_quantile(freedom, comparisons) * error if freedom > 0 else math.inf
    lower, upper = (estimate - half, estimate + half) if half < math.inf else (-math.inf, math.inf)
    return Interval(float(estimate), float(lower), float(upper))


@functools.cache  # claims make thousands of intervals, most of them with the same degrees of freedom
def t_quantile(freedom, comparisons):
    return stats.t.ppf(1 - TAIL / comparisons, freedom)


def mean(sample, comparisons=1):
    return combination([(1, sample)], comparisons)


def difference(sample, other, comparisons=1):
    """The Interval of the difference of two settings' means, paired by group where there are groups."""
    return combination([(1, sample), (-1, other)], comparisons)


def every(decide, combinations):
    """Whether decide(interval) holds for all of these combinations, each in the terms of combination().

    It HOLDS if each does by its own interval, as each must; it is REFUTED if one is, by simultaneous intervals.
    """
    if all_of(decide(combination(terms)) for terms in combinations) == HOLDS:
        return HOLDS
    together = [decide(combination(terms, len(combinations))) for terms in combinations]
    return REFUTED if REFUTED in together else UNDECIDED


def some(decide, combinations):
    """Whether decide(interval) holds for one of these combinations or more: the opposite of every() for the contrary."""
    return opposite(every(lambda interval: opposite(decide(interval)), combinations))


def exceeds_all(samples, others, margin=0):
    """Whether the highest mean of `samples` is above every mean of `others` by more than a margin (may be negative).

    It HOLDS if one sample is above all others, by intervals simultaneous over `samples`, each of which has its chance;
    it is REFUTED if one of `others` is exceeded by no sample, by intervals simultaneous over `others`.
    """

    if not samples or not others:
        return UNDECIDED

    def exceeds(sample, other, comparisons):
        return above(difference(sample, other, comparisons), margin)

    # any() and all() stop at the first pair that settles it: there may be ten thousand.
    if any(all(exceeds(one, other, len(samples)) == HOLDS for other in others) for one in samples):
        return HOLDS
    if any(all(exceeds(one, other, len(others)) == REFUTED for one in samples) for other in others):
        return REFUTED
    return UNDECIDED


# ------------------------------------------------------------------------------------------------- trends, correlations

RISING, FALLING = 1, -1
PERMUTATIONS = {"permutation_type": "pairings", "n_resamples": math.factorial(8)}  # of 8 points these are all


class Trend(NamedTuple):
    """correlation: Spearman's. p: probability of one as far or farther on its side if there were no association."""

    decision: str
    correlation: float
    p: float


def trend(x, values, direction):
    """The Trend of values over x, claimed to be RISING or FALLING, by a permutation test of ranks (means where tied).

    It HOLDS at p <= 0.025 with a correlation in that direction, and is REFUTED at p <= 0.025 with one in the other.
    Fewer than five points never decide: of the 24 orders of four, one rises throughout, p = 1/24. Exact up to 8 points,
    beyond them Monte Carlo with a fixed generator. UNDECIDED where spearman() is NaN.
    """
    correlation, of_x, of_values = spearman(x, values), stats.rankdata(x), stats.rankdata(values)
    if math.isnan(correlation):
        return Trend(UNDECIDED, correlation, math.nan)
    side = {"alternative": "greater" if correlation > 0 else "less", "random_state": np.random.default_rng(0)}
    # The sum of products grows with the correlation and is exact, so that equal ones are seen to be equal.
    test = stats.permutation_test((of_values,), lambda order, axis: order @ of_x, **PERMUTATIONS, **side)
    decision = FACTS[correlation * direction > 0] if test.pvalue <= TAIL else UNDECIDED
    return Trend(decision, correlation, float(test.pvalue))


def spearman(x, values):
    """Spearman's rank correlation; NaN where a number is not finite, or all of x or all values are the same."""
    known = all(np.isfinite(numbers).all() and len(set(numbers)) > 1 for numbers in (x, values))
    return float(stats.spearmanr(x, values).statistic) if known else math.nan


def correlation_interval(x, values, comparisons=1):
    """The Interval of Spearman's correlation over independent points; from -1 to 1 for fewer than four, and for NaN.

    Fisher's z with the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (Psychometrika 65, 2000). A bootstrap of
    few points is too narrow, and has no width for points in perfect order. Nor has z, so there r counts as less by
    half of what a swap of neighbours takes. Of normal variables this covers 94 % or more for n = 4 to 25.
    """
    correlation, points = spearman(x, values), len(x)
    if math.isnan(correlation) or points < 4:
        return Interval(correlation, -1.0, 1.0)
    largest = 1 - 6 / (points**3 - points)
    r = np.clip(correlation, -largest, largest)
    half = stats.norm.ppf(1 - TAIL / comparisons) * math.sqrt((1 + r**2 / 2) / (points - 3))
    lower, upper = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    return Interval(correlation, float(min(lower, correlation)), float(max(upper, correlation)))


def correlation_difference(first, second):
    """The Interval of the difference of two correlations of different points, each an Interval of a correlation.

    By their own limits, which lie unevenly around them (Zou, Psychological Methods 12, 2007).
    """
    estimate = first.estimate - second.estimate
    below = math.hypot(first.estimate - first.lower, second.upper - second.estimate)
    above_it = math.hypot(first.upper - first.estimate, second.estimate - second.lower)
    return Interval(estimate, estimate - below, estimate + above_it)


def binomial_error(accuracy, samples):
    """Standard error, in pp, of an accuracy in percent that is measured on so many test samples."""
    return math.sqrt(accuracy * (100 - accuracy) / samples)


def chance_margin(chance, samples):
    """How far from chance (percent) still counts as at chance: 1 pp or three standard errors, whichever is more."""
    return max(1.0, 3 * binomial_error(chance, samples))
