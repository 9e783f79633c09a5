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
    correlation_interval,
    difference,
    every,
    exceeds_all,
    mean,
    mean_difference,
    opposite,
    run_std,
    skipped_groups,
    trend,
    within,
)

A, B = [61.2, 60.1, 62.5, 61.9, 60.7], [58.4, 58.9, 57.1, 59.5]
GROUPS = [1, 1, 2, 2, 3, 3]
INFINITE = (-math.inf, math.inf)


def around(estimate, half=1.0):
    return Interval(estimate, estimate - half, estimate + half)


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
    assert difference(Sample(A), single, RunStd(std, freedom)) == pytest.approx(expected)


def test_given_standard_deviation_of_a_run_makes_a_normal_interval():
    assert mean(Sample([60.0]), RunStd(0.5)) == pytest.approx((60, *stats.norm.interval(0.95, 60, 0.5)))


def test_single_runs_do_not_tell_how_far_they_are_off():
    interval = difference(Sample([3.0]), Sample([1.0]))
    assert interval == (2, *INFINITE) and above(interval, 0) == UNDECIDED
    assert math.isnan(run_std([Sample([3.0])]).std)


def test_combination_adds_weighted_variances():
    samples = [Sample(A), Sample(B), Sample([1.0, 2.0])]
    weights, noise = np.array([0.5, -2.0, 1.5]), RunStd(0.7, 12)
    estimate = weights @ [np.mean(sample.values) for sample in samples]
    error = 0.7 * math.sqrt(sum(weights**2 / [5, 4, 2]))
    expected = (estimate, *stats.t.interval(0.95, 12, estimate, error))
    assert combination(list(zip(weights, samples)), noise) == pytest.approx(expected)


def test_runs_that_occur_twice_are_no_independent_ones():
    """The mean of x - z and y - z varies with z as one difference does."""
    x, y, z = Sample([1.0]), Sample([2.0]), Sample([0.5])
    error = math.sqrt(0.25 + 0.25 + 1)
    assert mean_difference([(x, z), (y, z)], RunStd(1)) == pytest.approx((1, *stats.norm.interval(0.95, 1, error)))
    assert difference(x, x, RunStd(1)) == (0, 0, 0)


def test_values_that_are_missing_or_not_finite_decide_nothing():
    for values in ([], [1, math.nan], [1, math.inf]):
        independent = difference(Sample(values), Sample([1, 2]), RunStd(1))
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
    assert mean(Sample(values, GROUPS)) == pytest.approx((8.5 / 3, *expected))


def test_difference_in_groups_is_paired():
    a, b = np.array([1, 3, 4, 8, 0, 1]), np.array([0, 1, 3, 3, -1, -2])
    result = stats.ttest_rel([2, 6, 0.5], [0.5, 3, -1.5])
    found = difference(Sample(a, GROUPS), Sample(b, GROUPS))
    assert found == pytest.approx((2.5 - 1 / 3, *result.confidence_interval(0.95)))
    # Neither the order of runs nor what all runs of a group share makes a difference.
    order, shared = [4, 0, 3, 5, 2, 1], 100 * np.array(GROUPS)
    moved = difference(Sample((a + shared)[order], np.array(GROUPS)[order]), Sample(b + shared, GROUPS))
    assert moved == pytest.approx(found)


def test_groups_of_one_sample_alone_are_skipped_and_counted():
    a, b = Sample([1, 3, 4, 8, 0, 1], GROUPS), Sample([0, 3, 9, 9], ["2", "3", "4", "5"])
    c = Sample([0, 3, 9, 9], [2, 3, 4, 5])
    expected = stats.ttest_rel([6, 0.5], [0, 3]).confidence_interval(0.95)
    assert difference(a, c) == pytest.approx((1.75, *expected))
    assert skipped_groups([a, c]) == 3 and skipped_groups([a, a]) == 0
    assert math.isnan(difference(a, b).estimate) and difference(a, b)[1:] == INFINITE
    assert difference(a, Sample([0.5], [3])) == (0, *INFINITE)


def test_mean_difference_in_groups_is_averaged_within_them():
    a, b, c = ([2, 6, 0.5], [0.5, 3, -1.5], [1, 1, 2])
    expected = stats.ttest_1samp((np.subtract(a, b) + np.subtract(a, c)) / 2, 0).confidence_interval(0.95)
    a, b, c = (Sample(values, [1, 2, 3]) for values in (a, b, c))
    assert mean_difference([(a, b), (a, c)])[1:] == pytest.approx(tuple(expected))


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
    assert mean(Sample([1.0]), RunStd(1), comparisons=7)[2] == pytest.approx(1 + stats.norm.isf(0.025 / 7))


def singles(*values):
    return [Sample([value]) for value in values]


def test_every_comparison_must_hold_and_one_is_refuted_by_simultaneous_intervals():
    """Of normal means with error 1: 1.96 is what one interval reaches, 2.81 what each of ten does."""

    def small(*values):
        return every(
            lambda interval: within(interval, 5), [[(1, sample)] for sample in singles(*values)], RunStd(1)
        )

    assert small(*[3.0] * 10) == HOLDS  # none of which is within 5 by simultaneous intervals
    assert small(*[3.0] * 9, 3.1) == UNDECIDED
    assert small(*[3.0] * 9, 7.7) == UNDECIDED
    assert small(*[3.0] * 9, 7.9) == REFUTED
    assert small(7.7) == REFUTED  # a single comparison
    assert small() == UNDECIDED


def test_highest_of_some_settings_against_others():
    def leads(samples, others, margin=0):
        return exceeds_all(singles(*samples), singles(*others), margin, RunStd(math.sqrt(0.5)))  # errors of 1

    assert leads([0, 5], [2, 1, 3]) == UNDECIDED  # of two samples either could be above by chance: 2.24, not 1.96
    assert leads([0, 5.2], [2, 1, 2.9]) == HOLDS
    assert leads([5], [2, 3]) == HOLDS
    assert leads([0, 1], [3.3, 0, 0]) == UNDECIDED  # of three others one could be: 2.39
    assert leads([0, 1], [3.5, 0, 0]) == REFUTED
    assert leads([1], [3]) == REFUTED
    # Other settings may exceed each sample, but none both.
    assert leads([3, 3], [3, 3]) == UNDECIDED
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
