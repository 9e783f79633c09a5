"""Intervals against scipy's tests, closed forms and simulated studies; every decision where it falls each way."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from data.analysis.intervals import (
    FALLING,
    HOLDS,
    REFUTED,
    RISING,
    UNDECIDED,
    Interval,
    RunStd,
    Sample,
    above,
    all_of,
    any_of,
    below,
    binomial_error,
    chance_margin,
    combination,
    correlation_difference,
    correlation_interval,
    difference,
    every,
    exceeds_all,
    mean,
    opposite,
    run_std,
    some,
    t_quantile,
    trend,
    within,
)

A, B = [61.2, 60.1, 62.5, 61.9, 60.7], [58.4, 58.9, 57.1, 59.5]
GROUPS = [1, 1, 2, 2, 3, 3]
INFINITE = (-math.inf, math.inf)


def around(estimate, half=1.0):
    return Interval(estimate, estimate - half, estimate + half)


def singles(*values, std=1):
    """Samples of one run each, of a given standard deviation."""
    return [Sample([value], noise=RunStd(std)) for value in values]


def alone(samples):
    """The combinations that are one mean each."""
    return [[(1, sample)] for sample in samples]


# ----------------------------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("interval", "is_above", "is_below"),
    [
        (around(5), HOLDS, REFUTED),
        (around(3), UNDECIDED, UNDECIDED),
        (around(1), REFUTED, HOLDS),
        # An interval that ends at the margin has nothing beyond it; one without width is a number.
        (around(4), UNDECIDED, REFUTED),
        (around(2), REFUTED, UNDECIDED),
        (around(3, 0), REFUTED, REFUTED),
        (Interval(5, *INFINITE), UNDECIDED, UNDECIDED),
        (Interval(5, 4, math.inf), UNDECIDED, UNDECIDED),
        (Interval(1, -math.inf, 2), UNDECIDED, UNDECIDED),
        (Interval(math.nan, 4, 6), UNDECIDED, UNDECIDED),
        (Interval(5, math.nan, math.nan), UNDECIDED, UNDECIDED),
    ],
)
def test_above_and_below_a_margin(interval, is_above, is_below):
    assert (above(interval, 3), below(interval, 3)) == (is_above, is_below)


def test_within_a_margin():
    expected = {0: HOLDS, 1: HOLDS, -1: HOLDS, 2: UNDECIDED, -2: UNDECIDED, 3: UNDECIDED, 4: REFUTED, -4: REFUTED}
    assert {estimate: within(around(estimate), 2) for estimate in expected} == expected
    assert within(around(0, 5), 2) == within(Interval(0, *INFINITE), 2) == UNDECIDED
    assert within(around(2, 0), 2) == HOLDS


def test_decisions_combine_with_each_other_and_with_facts():
    assert all_of([HOLDS, True, np.bool_(True)]) == HOLDS
    assert all_of([HOLDS, UNDECIDED]) == UNDECIDED
    assert all_of([UNDECIDED, np.bool_(False)]) == all_of([REFUTED, UNDECIDED, HOLDS]) == REFUTED
    assert any_of([UNDECIDED, REFUTED, True]) == HOLDS
    assert any_of([UNDECIDED, False]) == UNDECIDED
    assert any_of([REFUTED, False]) == REFUTED
    assert all_of([]) == any_of([]) == UNDECIDED
    assert [opposite(decision) for decision in (HOLDS, True, UNDECIDED, False)] == [
        REFUTED,
        REFUTED,
        UNDECIDED,
        HOLDS,
    ]


# ---------------------------------------------------------------------------------------------------- independent runs


def test_difference_of_independent_runs_is_that_of_students_test():
    result = stats.ttest_ind(A, B, equal_var=True)
    expected = (np.mean(A) - np.mean(B), *result.confidence_interval(0.95))
    assert difference(Sample(A), Sample(B)) == pytest.approx(expected)


def test_standard_deviation_of_a_run_is_pooled_over_settings_with_repeats():
    single, flat = Sample([3.0]), Sample([7, 7, 7])
    std, freedom = run_std([Sample(A), Sample(B), single, flat])
    assert freedom == 4 + 3 + 0 + 2
    assert std == pytest.approx(math.sqrt((4 * np.var(A, ddof=1) + 3 * np.var(B, ddof=1)) / 9))
    half = stats.t.ppf(0.975, 9) * std * math.sqrt(1 / 5 + 1)
    expected = np.mean(A) - 3 + np.array([0, -half, half])
    noise = RunStd(std, freedom)
    assert difference(Sample(A, noise=noise), Sample([3.0], noise=noise)) == pytest.approx(expected)


def test_given_standard_deviation_of_a_run_makes_a_normal_interval():
    assert mean(Sample([60.0], noise=RunStd(0.5))) == pytest.approx((60, *stats.norm.interval(0.95, 60, 0.5)))


def test_single_runs_do_not_tell_how_far_they_are_off():
    interval = difference(Sample([3.0]), Sample([1.0]))
    assert interval == (2, *INFINITE) and above(interval, 0) == UNDECIDED
    assert math.isnan(run_std([Sample([3.0])]).std)


def test_combination_adds_weighted_variances():
    weights, noise = np.array([0.5, -2.0, 1.5]), RunStd(0.7, 12)
    samples = [Sample(values, noise=noise) for values in (A, B, [1.0, 2.0])]
    estimate = weights @ [np.mean(sample.values) for sample in samples]
    error = 0.7 * math.sqrt(sum(weights**2 / [5, 4, 2]))
    expected = (estimate, *stats.t.interval(0.95, 12, estimate, error))
    assert combination(list(zip(weights, samples))) == pytest.approx(expected)


def test_difference_of_samples_with_their_own_standard_deviations_is_that_of_welchs_test():
    for a, b in ((A, B), ([1.0, 9.0, 4.0], [2.0, 2.1, 2.2, 2.0, 1.9])):
        result = stats.ttest_ind(a, b, equal_var=False)
        found = difference(*(Sample(values, noise=run_std([Sample(values)])) for values in (a, b)))
        assert found == pytest.approx((np.mean(a) - np.mean(b), *result.confidence_interval(0.95)))


def test_a_shared_standard_deviation_has_its_own_degrees_of_freedom():
    shared, other = RunStd(0.7, 5), RunStd(0.3, 8)
    x, y = Sample(A, noise=shared), Sample(B, noise=RunStd(0.7, 5))
    error = 0.7 * math.sqrt(1 / 5 + 1 / 4)
    estimate = np.mean(A) - np.mean(B)
    assert difference(x, y) == pytest.approx((estimate, *stats.t.interval(0.95, 5, estimate, error)))
    # With another one these two are one part of the variance.
    z = Sample([1.0, 2.0], noise=other)
    parts = np.array([0.49 * (1 / 5 + 4 / 4), 0.09 * 9 / 2])
    freedom, estimate = parts.sum() ** 2 / (parts**2 @ [1 / 5, 1 / 8]), np.mean(A) - 2 * np.mean(B) + 3 * 1.5
    expected = (estimate, *stats.t.interval(0.95, freedom, estimate, math.sqrt(parts.sum())))
    assert combination([(1, x), (-2, y), (3, z)]) == pytest.approx(expected)


def test_samples_without_their_own_standard_deviation_pool_it_among_themselves():
    x, y, z = Sample(A), Sample(B), Sample([1.0, 2.0, 9.0], noise=RunStd(0.3, 8))
    pooled = run_std([x, y])
    parts = np.array([pooled.std**2 * (1 / 5 + 1 / 4), 0.09 / 3])
    freedom, estimate = parts.sum() ** 2 / (parts**2 @ [1 / 7, 1 / 8]), np.mean(A) + np.mean(B) - 4
    expected = (estimate, *stats.t.interval(0.95, freedom, estimate, math.sqrt(parts.sum())))
    assert combination([(1, x), (1, y), (-1, z)]) == pytest.approx(expected)


def test_a_given_standard_deviation_adds_no_uncertainty_to_an_estimated_one():
    x, y = Sample([3.0] * 4, noise=RunStd(0.5)), Sample([1.0] * 5, noise=RunStd(0.8, 6))
    given, estimated = 0.25 / 4, 0.64 / 5
    freedom = (given + estimated) ** 2 / (estimated**2 / 6)
    expected = (2, *stats.t.interval(0.95, freedom, 2, math.sqrt(given + estimated)))
    assert difference(x, y) == pytest.approx(expected)
    # Two that are given make a normal interval, one that is unknown an infinite one.
    z = Sample([1.0], noise=RunStd(0.8))
    assert difference(x, z) == pytest.approx((2, *stats.norm.interval(0.95, 2, math.sqrt(given + 0.64))))
    assert difference(x, Sample([1.0], noise=run_std([Sample([1.0])]))) == (2, *INFINITE)
    # Runs that do not differ at all have no width, whichever standard deviation says so.
    flat = [
        Sample([value], noise=RunStd(0.0, freedom)) for value, freedom in ((3.0, 4), (1.0, 7), (1.0, math.inf))
    ]
    assert difference(flat[0], flat[1]) == difference(flat[0], flat[2]) == (2, 2, 2)


def test_runs_that_occur_twice_are_no_independent_ones():
    """The mean of x - z and y - z varies with z as one difference does."""
    x, y, z = singles(1.0, 2.0, 0.5)
    error = math.sqrt(0.25 + 0.25 + 1)
    found = combination([(0.5, x), (-0.5, z), (0.5, y), (-0.5, z)])
    assert found == pytest.approx((1, *stats.norm.interval(0.95, 1, error)))
    assert difference(x, x) == (0, 0, 0)


def test_values_that_are_missing_or_not_finite_decide_nothing():
    for values in ([], [1, math.nan], [1, math.inf]):
        independent = difference(Sample(values, noise=RunStd(1)), Sample([1, 2], noise=RunStd(1)))
        grouped = difference(Sample(values, range(len(values))), Sample([1, 2], range(2)))
        for interval in (independent, grouped):
            assert math.isnan(interval.estimate) and interval[1:] == INFINITE


def test_intervals_are_plain_floats():
    interval = mean(Sample(A))
    assert {type(number) for number in interval} == {float}
    assert json.loads(json.dumps(interval)) == list(interval)


# ------------------------------------------------------------------------------------------------------ runs in groups


def test_mean_of_groups_is_that_of_their_means():
    values = np.array([1, 3, 4, 8, 0, 1])
    expected = stats.ttest_1samp([2, 6, 0.5], 0).confidence_interval(0.95)
    sample = Sample(values, GROUPS)
    assert mean(sample) == pytest.approx((8.5 / 3, *expected))
    assert sample.mean == pytest.approx(17 / 6) and sample.group_means == {1: 2, 2: 6, 3: 0.5}


def test_difference_in_groups_is_paired():
    a, b = np.array([1, 3, 4, 8, 0, 1]), np.array([0, 1, 3, 3, -1, -2])
    result = stats.ttest_rel([2, 6, 0.5], [0.5, 3, -1.5])
    found = difference(Sample(a, GROUPS), Sample(b, GROUPS))
    assert found == pytest.approx((2.5 - 1 / 3, *result.confidence_interval(0.95)))
    # Neither the order of runs nor what all runs of a group share makes a difference.
    order, shared = [4, 0, 3, 5, 2, 1], 100 * np.array(GROUPS)
    moved = difference(Sample((a + shared)[order], np.array(GROUPS)[order]), Sample(b + shared, GROUPS))
    assert moved == pytest.approx(found)


def test_groups_of_one_sample_alone_are_skipped():
    a, b = Sample([1, 3, 4, 8, 0, 1], GROUPS), Sample([0, 3, 9, 9], ["2", "3", "4", "5"])
    c = Sample([0, 3, 9, 9], [2, 3, 4, 5])
    expected = stats.ttest_rel([6, 0.5], [0, 3]).confidence_interval(0.95)
    assert difference(a, c) == pytest.approx((1.75, *expected))
    assert math.isnan(difference(a, b).estimate) and difference(a, b)[1:] == INFINITE
    assert difference(a, Sample([0.5], [3])) == (0, *INFINITE)


def test_combination_in_groups_is_made_within_them():
    a, b, c = ([2, 6, 0.5], [0.5, 3, -1.5], [1, 1, 2])
    expected = stats.ttest_1samp((np.subtract(a, b) + np.subtract(a, c)) / 2, 0).confidence_interval(0.95)
    a, b, c = (Sample(values, [1, 2, 3]) for values in (a, b, c))
    terms = [(0.5, a), (-0.5, b), (0.5, a), (-0.5, c)]
    assert combination(terms)[1:] == pytest.approx(tuple(expected))


def test_samples_with_and_without_groups_do_not_mix():
    with pytest.raises(ValueError, match="others none"):
        difference(Sample(A), Sample(B, [1, 1, 2, 2]))
    with pytest.raises(ValueError, match="one group per run"):
        Sample(A, [1, 2])
    with pytest.raises(ValueError, match="one value per run"):
        Sample([A, A])


def test_intervals_of_a_grouped_design_cover_and_those_that_ignore_groups_do_not():
    """2,000 studies of 10 groups of 5 runs at two settings; within a group and a setting runs correlate by 0.5."""
    random, studies, groups = np.random.default_rng(0), 2000, np.repeat(range(10), 5)
    shared = random.normal(size=(studies, 1, 10, 1))
    of_setting = random.normal(scale=math.sqrt(0.5), size=(studies, 2, 10, 1))
    values = 3 * shared + of_setting + random.normal(scale=math.sqrt(0.5), size=(studies, 2, 10, 5))
    values = values.reshape(studies, 2, 50) + [[0.3], [0]]
    covered = {"grouped": 0, "ignored": 0}
    for a, b in values:
        intervals = {"grouped": difference(Sample(a, groups), Sample(b, groups)), "ignored": mean(Sample(a - b))}
        for name, (_, lower, upper) in intervals.items():
            covered[name] += lower <= 0.3 <= upper
    assert 0.93 <= covered["grouped"] / studies <= 0.97
    assert covered["ignored"] / studies <= 0.85


# ---------------------------------------------------------------------------------------------------- many comparisons


def test_simultaneous_intervals_are_bonferronis():
    a, b = Sample([2, 6, 0.5], [1, 2, 3]), Sample([0.5, 3, -1.5], [1, 2, 3])
    expected = stats.ttest_rel(a.values, b.values).confidence_interval(1 - 0.05 / 7)
    assert difference(a, b, comparisons=7)[1:] == pytest.approx(tuple(expected))
    assert mean(*singles(1.0), comparisons=7)[2] == pytest.approx(1 + stats.norm.isf(0.025 / 7))
    assert t_quantile(2.5, 7) == pytest.approx(stats.t.isf(0.025 / 7, 2.5))


def test_every_comparison_must_hold_and_one_is_refuted_by_simultaneous_intervals():
    """Of normal means with error 1: 1.96 is what one interval reaches, 2.81 what each of ten does."""

    def small(*values):
        return every(lambda interval: within(interval, 5), alone(singles(*values)))

    assert small(*[3.0] * 10) == HOLDS  # none of which is within 5 by simultaneous intervals
    assert small(*[3.0] * 9, 3.1) == UNDECIDED
    assert small(*[3.0] * 9, 7.7) == UNDECIDED
    assert small(*[3.0] * 9, 7.9) == REFUTED
    assert small(7.7) == REFUTED  # a single comparison
    assert small() == UNDECIDED


def test_one_comparison_must_hold_by_simultaneous_intervals_and_all_are_refuted_by_their_own():
    """The same errors of 1: 1.96 is what one interval reaches, 2.81 what each of ten does."""

    def large(*values):
        return some(lambda interval: above(interval, 5), alone(singles(*values)))

    assert large(*[3.0] * 9, 7.9) == HOLDS
    assert large(*[3.0] * 9, 7.7) == UNDECIDED  # which is above 5 by an interval of its own
    assert large(*[3.0] * 9, 3.1) == UNDECIDED
    assert large(*[3.0] * 10) == REFUTED  # none of which is below 5 by simultaneous intervals
    assert large(7.0) == HOLDS and large(3.0) == REFUTED  # a single comparison
    assert large(math.nan, 9) == HOLDS and large(math.nan, 0) == large() == UNDECIDED


def test_one_of_several_errs_in_at_most_2_5_percent():
    """2,000 studies of ten settings that are compared with a margin of 0, of which each mean has an error of 1."""

    def rate(decision, truths):
        estimates = np.random.default_rng(0).normal(truths, size=(2000, 10))
        found = [some(lambda interval: above(interval, 0), alone(singles(*of_study))) for of_study in estimates]
        return np.mean([of_study == decision for of_study in found])

    error = 3 * math.sqrt(0.025 * 0.975 / 2000)
    assert 0.025 - error <= rate(HOLDS, [0.0] * 10) <= 0.025 + error  # none is above 0
    assert 0.025 - error <= rate(REFUTED, [1e-9] + [-9.0] * 9) <= 0.025 + error  # one barely is


def slow_exceeds_all(samples, others, margin):
    """Every pair looked at, one decision after the other."""

    def pair(sample, other, comparisons):
        return above(difference(sample, other, comparisons), margin)

    if any_of(all_of(pair(x, y, len(samples)) for y in others) for x in samples) == HOLDS:
        return HOLDS
    refuted = all_of(any_of(pair(x, y, len(others)) for x in samples) for y in others) == REFUTED
    return REFUTED if refuted else UNDECIDED


@pytest.mark.parametrize("groups", [None, [1, 2, 3, 4]])
def test_highest_of_some_settings_is_what_all_pairs_say(groups):
    random, found = np.random.default_rng(2), dict.fromkeys((HOLDS, REFUTED, UNDECIDED), 0)
    noises = None, RunStd(0.5), RunStd(0.6, 3)
    for _ in range(150):
        samples, others = (
            [
                Sample(random.normal(apart + random.normal(), 0.6, 4), groups, noises[random.integers(3)])
                for _ in range(random.integers(1, 5))
            ]
            for apart in (random.choice([-1.5, 0, 3]), 0)
        )
        margin = random.choice([-1, 0, 1])
        decision = exceeds_all(samples, others, margin)
        assert decision == slow_exceeds_all(samples, others, margin)
        found[decision] += 1
    assert min(found.values()) >= 15


def test_highest_of_some_settings_against_others():
    def leads(samples, others, margin=0):
        std = math.sqrt(0.5)  # of differences: 1
        return exceeds_all(singles(*samples, std=std), singles(*others, std=std), margin)

    assert leads([0, 5], [2, 1, 3]) == UNDECIDED  # of two samples either could be above by chance: 2.24, not 1.96
    assert leads([0, 5.2], [2, 1, 2.9]) == HOLDS
    assert leads([5], [2, 3]) == HOLDS
    assert leads([0, 1], [3.3, 0, 0]) == UNDECIDED  # of three others one could be: 2.39
    assert leads([0, 1], [3.5, 0, 0]) == REFUTED
    assert leads([1], [3]) == REFUTED
    # Other settings may exceed each sample, but none both.
    assert leads([3, 3], [3, 3]) == UNDECIDED
    # Each sample is exceeded by one of these others, but not by the same one.
    samples = singles(0, std=0.1) + singles(-12, std=8)
    others = singles(20, std=10) + singles(1, std=0.1)
    assert exceeds_all(samples, others) == UNDECIDED
    assert exceeds_all(samples[:1], others) == exceeds_all(samples[1:], others) == REFUTED
    assert leads([0, 2], [0, 0], margin=-1) == HOLDS
    assert leads([0, 3], [0, 0], margin=1) == UNDECIDED
    assert leads([], [1]) == leads([1], []) == UNDECIDED


def test_highest_of_some_settings_in_groups():
    low, high = (Sample(np.array([0, 1, 2, 3]) + [mean, mean, mean, mean + 0.1], range(4)) for mean in (50, 60))
    assert exceeds_all([low, high], [low], margin=9) == HOLDS
    assert exceeds_all([low], [high, low]) == REFUTED


# ------------------------------------------------------------------------------------------------- trends, correlations


@pytest.mark.parametrize(
    "values", [[1, 2, 3, 4, 5, 6], [1, 3, 2, 4, 5, 5], [2, 2, 1, 1, 3, 0], [5, 3, 3, 2, 2, 2]]
)
def test_exact_p_counts_permutations(values):
    x = [1, 2, 3, 3, 5, 6]
    correlation = stats.spearmanr(x, values).statistic
    others = np.array([stats.rankdata(order) for order in itertools.permutations(values)])
    ranks = stats.rankdata(x)
    products, observed = 4 * others @ ranks, 4 * stats.rankdata(values) @ ranks  # whole numbers
    tail = products >= observed if correlation > 0 else products <= observed
    found = trend(x, values, RISING)
    assert (found.correlation, found.p) == pytest.approx((correlation, tail.mean()))


def test_trends_hold_are_refuted_or_stay_undecided():
    plrs = np.logspace(-4, -1, 8)
    rising, shuffled = np.arange(8.0), [3, 1, 4, 8, 5, 2, 6, 0]
    assert trend(plrs, rising, RISING) == (HOLDS, pytest.approx(1), pytest.approx(1 / math.factorial(8)))
    assert trend(plrs, rising, FALLING).decision == trend(plrs, -rising, RISING).decision == REFUTED
    assert trend(plrs, -rising, FALLING).decision == HOLDS
    assert trend(plrs, shuffled, RISING).decision == trend(plrs, shuffled, FALLING).decision == UNDECIDED


def test_fewer_than_five_points_never_decide_a_trend():
    for points, decision in ((2, UNDECIDED), (3, UNDECIDED), (4, UNDECIDED), (5, HOLDS)):
        found = trend(range(points), range(points), RISING)
        assert found == (decision, pytest.approx(1), pytest.approx(1 / math.factorial(points)))


def test_trend_over_many_points_is_that_of_random_permutations():
    random = np.random.default_rng(1)
    x, noise = np.arange(25), random.normal(size=25)
    weak = trend(x, x + 16 * noise, RISING)
    assert weak == trend(x, x + 16 * noise, RISING)
    assert 0.001 < weak.p < 0.2 and weak.p == pytest.approx(stats.spearmanr(x, x + 16 * noise).pvalue / 2, rel=0.2)
    assert trend(x, x + noise, RISING).decision == trend(x, -x + noise, FALLING).decision == HOLDS
    assert trend(x, -x + noise, RISING).decision == REFUTED
    assert trend(x, noise, RISING).decision == trend(x, noise, FALLING).decision == UNDECIDED


@pytest.mark.parametrize("values", [[1] * 6, [1, 2, 3, 4, 5, math.nan], [1, 2, 3, 4, 5, math.inf]])
def test_no_correlation_of_values_that_are_equal_or_not_finite(values):
    found, interval = trend(range(6), values, RISING), correlation_interval(range(6), values)
    assert found.decision == UNDECIDED and math.isnan(found.correlation) and math.isnan(found.p)
    assert math.isnan(interval.estimate) and within(interval, 1) == UNDECIDED


def test_interval_of_a_correlation_has_fishers_closed_form():
    x, values = range(10), [1, 0, 3, 2, 6, 4, 5, 9, 8, 7]
    r = stats.spearmanr(x, values).statistic
    lower, upper = stats.norm.interval(0.95, math.atanh(r), math.sqrt((1 + r**2 / 2) / 7))
    assert correlation_interval(x, values) == pytest.approx((r, math.tanh(lower), math.tanh(upper)))
    lower, upper = stats.norm.interval(0.99, math.atanh(r), math.sqrt((1 + r**2 / 2) / 7))
    assert correlation_interval(x, values, 5)[1:] == pytest.approx((math.tanh(lower), math.tanh(upper)))


def test_few_points_in_perfect_order_leave_a_wide_interval():
    assert correlation_interval(range(3), range(3)) == (1, -1, 1)
    widths = [1 - correlation_interval(range(points), range(points)).lower for points in (4, 5, 8, 25)]
    assert widths == sorted(widths, reverse=True) and widths[1] > 0.5 and 0 < widths[-1] < 0.01
    rising, falling = correlation_interval(range(5), range(5)), correlation_interval(range(5), range(5)[::-1])
    assert rising == pytest.approx((1, 1 - widths[1], 1)) and falling == pytest.approx((-1, -1, widths[1] - 1))


def test_intervals_of_correlations_cover():
    """Of two normal variables, Spearman's correlation is 6 / pi arcsin(Pearson's / 2)."""
    random = np.random.default_rng(0)
    for points, pearson in ((5, 0.5), (8, 0.9), (25, 0)):
        x, noise = random.normal(size=(2, 400, points))
        values, truth = pearson * x + math.sqrt(1 - pearson**2) * noise, 6 / math.pi * math.asin(pearson / 2)
        intervals = [correlation_interval(*pair) for pair in zip(x, values)]
        assert np.mean([lower <= truth <= upper for _, lower, upper in intervals]) >= 0.92


def test_difference_of_correlations_has_the_limits_of_both():
    assert correlation_difference(around(0.5, 0.3), around(0.1, 0.4)) == pytest.approx(around(0.4, 0.5))
    # Below it the first may be lower and the second higher, above it the contrary.
    found = correlation_difference(Interval(0.6, 0.3, 0.72), Interval(-0.2, -0.36, 0.2))
    assert found == pytest.approx((0.8, 0.8 - 0.5, 0.8 + 0.2))
    unknown = correlation_interval([1, 2, 3], [1, 1, 1])
    for pair in ((unknown, around(0.1)), (around(0.1), unknown)):
        assert above(correlation_difference(*pair), 0) == below(correlation_difference(*pair), 0) == UNDECIDED


def test_intervals_of_differences_of_correlations_cover():
    random = np.random.default_rng(0)
    for pearsons in ((0.5, 0.5), (0.9, 0), (0.8, -0.6)):
        x, noise = random.normal(size=(2, 300, 2, 12))
        of_x, of_noise = np.array(pearsons)[:, None], np.sqrt(1 - np.square(pearsons))[:, None]
        first, second = (6 / math.pi * math.asin(pearson / 2) for pearson in pearsons)
        covered = 0
        for pairs in zip(x, of_x * x + of_noise * noise):
            found = correlation_difference(*(correlation_interval(*pair) for pair in zip(*pairs)))
            covered += found.lower <= first - second <= found.upper
        assert 0.92 <= covered / 300


def test_whether_a_correlation_is_weak():
    many = np.arange(60)
    assert within(correlation_interval(many, many * 7 % 60), 0.5) == HOLDS
    assert within(correlation_interval(many, many // 2), 0.5) == REFUTED
    assert within(correlation_interval(many[:6], [2, 5, 1, 6, 3, 4]), 0.5) == UNDECIDED


# ------------------------------------------------------------------------------------------------------------ accuracy


def test_binomial_error_of_an_accuracy():
    assert binomial_error(50, 2000) == pytest.approx(stats.binom.std(2000, 0.5) / 2000 * 100)
    assert binomial_error(10, 10_000) == pytest.approx(0.3)
    assert binomial_error(100, 50) == 0


def test_margin_at_chance_is_a_point_or_three_errors():
    assert chance_margin(10, 10_000) == 1
    assert chance_margin(50, 2000) == pytest.approx(3 * 100 * math.sqrt(0.25 / 2000))
