"""Rules of the boundaries between regimes on numbers of runs made by hand, and what resamples of these runs say."""

import itertools
import math
import time

import numpy as np
import pytest
from scipy import stats

from data.analysis.boundaries import (
    ENOUGH_ACCURACIES,
    RESAMPLES,
    Finetuned,
    Pretrained,
    RunNumbers,
    measure,
    share_without_2a,
    size_of_test_set,
    std_of_a_run,
    width_of_2a,
)

PLRS = [1, 2, 3, 4, 5]
CHANCE = 0.5


def pretrained(plr, unit=1, converged=False, late_accuracy=0.7, accuracy=0.7, part=0.2, loss=1.0, finite=True):
    return Pretrained(plr, unit, converged, finite, loss, part, late_accuracy, accuracy)


def study(reached, regime_1=(1,), regime_3=(5,), best_of_1=0.7, **options):
    """A run at every PLR, of the regimes given, fine-tuned with accuracies {PLR: [that at each FLR]}."""
    runs = []
    for plr in PLRS:
        at_chance = {"late_accuracy": CHANCE, "part": 1.0} if plr in regime_3 else {}
        accuracy = best_of_1 if plr in regime_1 else 0.5
        runs.append(pretrained(plr, converged=plr in regime_1, accuracy=accuracy, **at_chance))
    tuned = [Finetuned(plr, 1, flr, value) for plr, values in reached.items() for flr, value in enumerate(values)]
    return RunNumbers(runs, tuned, classes=2, **options)


def last(numbers, name="b2AB"):
    found = measure(numbers)[name]
    assert found is None or found["next"] == PLRS[PLRS.index(found["last"]) + 1]
    return found and found["last"]


# 2A|2B

SAME, APART, BAD = [0.75, 0.755], [0.75, 0.77], [0.6, 0.6]


@pytest.mark.parametrize(
    "of_regime_2, end_of_2a",
    [
        ([SAME, SAME, APART], 3),
        ([SAME, APART, SAME], 2),  # a gap
        ([APART, SAME, SAME], None),  # one right above b12
        ([SAME, SAME, SAME], 4),  # all of regime 2
        ([BAD, BAD, BAD], None),  # the FLR does not matter, and nothing is as good as in regime 1
        ([SAME, BAD, SAME], 2),
        ([SAME, [0.75, 0.74, 0.745], APART], 3),  # exactly 1 pp
        ([SAME, [0.75, 0.7398, 0.745], APART], 2),
        ([SAME, [0.69, 0.7], APART], 3),  # exactly 1 pp below the best of regime 1
        ([SAME, [0.6898, 0.69], APART], 2),
        ([SAME, [0.75, np.nan], SAME], 2),  # at an FLR runs diverge
        ([SAME, [0.75], SAME], None),  # not measured whether 2A goes on
        ([[0.75], SAME, APART], None),
        ([[], [], []], None),
    ],
)
def test_2a_runs_without_a_gap_from_b12_while_the_flr_does_not_matter(of_regime_2, end_of_2a):
    assert last(study(dict(zip((2, 3, 4), of_regime_2)) | {1: BAD, 5: SAME})) == end_of_2a


def test_2a_is_not_bracketed_where_it_reaches_to_the_end_of_the_grid():
    same = dict.fromkeys(PLRS, SAME)
    assert last(study(same, diverges=False)) is None
    assert last(study(same, regime_3=())) is None
    assert last(study(same | {5: APART}, diverges=False)) == 4


def test_without_a_boundary_of_regime_1_there_is_none_of_2a():
    assert last(study(dict.fromkeys(PLRS, SAME), regime_1=())) is None
    assert last(study(dict.fromkeys(PLRS, SAME), regime_1=PLRS)) is None


def test_the_standard_deviation_of_a_run_is_pooled_within_settings():
    values = {(1, 1): [0.1, 0.3], (1, 2): [0.2, 0.2, 0.5], (2, 1): [0.9], (2, 2): [0.4, np.nan]}
    runs = [Finetuned(plr, unit, flr, x) for (plr, flr), of in values.items() for unit, x in enumerate(of)]
    assert std_of_a_run(runs) == pytest.approx(np.sqrt((0.02 + 0.06) / 3))
    assert std_of_a_run([runs[0], runs[2]]) == 0 == std_of_a_run([])


@pytest.mark.parametrize("samples, tolerance", [(None, 0.01), (10_000, 0.01), (1000, 0.5 / np.sqrt(1000))])
def test_single_runs_are_told_apart_by_no_less_than_the_noise_of_their_test_samples(samples, tolerance):
    """Accuracies of 50 % on average have the largest; repeats tell of it themselves."""
    pretrained = [Pretrained(1e-2, 1, False, True, 1.0, 0.5, 0.5, 0.5)]
    single = [Finetuned(1e-2, 1, flr, accuracy) for flr, accuracy in ((1e-5, 0.48), (1e-4, 0.52))]
    numbers = RunNumbers(pretrained, single, classes=2, test_samples=samples)
    assert numbers.tolerance == pytest.approx(tolerance, abs=2e-6)
    repeated = [*single, Finetuned(1e-2, 2, 1e-5, 0.481)]
    assert RunNumbers(pretrained, repeated, classes=2, test_samples=samples).tolerance == pytest.approx(
        0.01, abs=2e-6
    )


def repeated(range_over_flrs, runs, deviation):
    """`runs` runs at every PLR, half of them above and half below the mean, so that std_of_a_run() is `deviation`."""
    half = deviation * np.sqrt((runs - 1) / runs)
    signs = [(-1) ** run for run in range(runs)]
    numbers = [
        pretrained(
            plr, unit, plr == 1, accuracy=0.65, **({"late_accuracy": CHANCE, "part": 1.0} if plr == 5 else {})
        )
        for plr in PLRS
        for unit in range(runs)
    ]
    values = {
        (plr, flr): [0.75 + flr * apart + half * sign for sign in signs]
        for plr, apart in zip(PLRS, (0, 0, range_over_flrs, 2 * range_over_flrs, 0))
        for flr in (0, 1)
    }
    tuned = [Finetuned(plr, unit, flr, x) for (plr, flr), of in values.items() for unit, x in enumerate(of)]
    return RunNumbers(numbers, tuned, classes=2), values


def test_flrs_may_differ_by_one_standard_deviation_of_a_run():
    assert last(repeated(0.0299, 6, deviation=0.03)[0]) == 3
    assert last(repeated(0.0301, 6, deviation=0.03)[0]) == 2
    assert last(repeated(0.0099, 6, deviation=0.003)[0]) == 3  # 1 pp is more
    assert last(repeated(0.0101, 6, deviation=0.003)[0]) == 2


def test_more_runs_do_not_shrink_2a():
    for runs, significant in ((4, False), (50, True)):
        numbers, values = repeated(0.025, runs, deviation=0.03)
        assert (stats.ttest_ind(values[3, 0], values[3, 1]).pvalue < 0.05) == significant
        found = measure(numbers)["b2AB"]
        assert found["last"] == 3 and found["shares"].keys() >= {3}


def never_converging(reached, fastest=2, **options):
    """A run at every PLR, of the lowest train loss at one of them, fine-tuned with accuracies {PLR: {FLR: that}}."""
    at_chance = {"late_accuracy": CHANCE, "part": 1.0}
    runs = [
        pretrained(plr, converged=plr <= fastest, loss=abs(plr - fastest), **(at_chance if plr == 5 else {}))
        for plr in PLRS
    ]
    tuned = [Finetuned(plr, 1, flr, value) for plr, values in reached.items() for flr, value in values.items()]
    return RunNumbers(runs, tuned, classes=2, **{"by_accuracy": False} | options)


@pytest.mark.parametrize("flr", [2, 2.5, 3, 4])
@pytest.mark.parametrize("accuracy", [0.6, 0.9, np.nan])
def test_flrs_that_do_not_converge_do_not_count_for_2a_of_networks_that_never_do(flr, accuracy):
    reached = {plr: {0.5: 0.75, 1.5: 0.755, flr: accuracy} for plr in PLRS}
    assert last(never_converging(reached), "b12") == 2
    assert last(never_converging(reached)) == 4  # all of regime 2
    assert last(never_converging(reached, by_accuracy=True), "b12") == 2
    assert last(never_converging(reached, by_accuracy=True)) is None
    # One that is smaller than b12 counts, and so does this one where b12 lies higher.
    assert last(never_converging({plr: {0.5: 0.75, 1.99: accuracy, flr: 0.75} for plr in PLRS})) is None
    assert last(never_converging(reached, fastest=3)) == (4 if flr >= 3 else None)


def test_2a_is_not_measured_where_fewer_than_two_flrs_count():
    reached = {3: {0.5: 0.75, 1.5: 0.75, 2: 0.6}, 4: {0.5: 0.75, 2: 0.75, 3: 0.75}}
    assert last(never_converging(reached)) is None
    assert last(never_converging(reached, by_accuracy=True)) is None  # as FLR 2 matters at PLR 3
    assert last(never_converging(reached | {4: {0.5: 0.75, 1.5: 0.6}})) == 3
    del reached[3][2]
    assert last(never_converging(reached, by_accuracy=True)) == 4


# 2|3


@pytest.mark.parametrize(
    "runs, samples, tolerance",
    [
        (1, 2000, 3 * np.sqrt(0.25 / 2000)),
        (4, 2000, 3 * np.sqrt(0.25 / 8000)),
        (100, 2000, 0.01),  # three standard errors are 0.3 pp
        (1, None, 0.01),
    ],
)
def test_chance_allows_for_the_noise_of_few_test_samples(runs, samples, tolerance):
    for excess, end_of_2 in ((0.99 * tolerance, 3), (1.01 * tolerance, 4)):
        at_4 = [{"late_accuracy": CHANCE + excess, "part": 1.0}, {"late_accuracy": CHANCE, "part": 1.0}]
        numbers = [
            pretrained(plr, unit, **(at_4[plr - 4] if plr > 3 else {})) for plr in PLRS for unit in range(runs)
        ]
        assert last(RunNumbers(numbers, [], classes=2, test_samples=samples), "b23") == end_of_2


def test_regime_3_begins_where_every_larger_plr_is_at_chance():
    def b23(accuracies, parts=(1.0,) * 5, classes=10, **options):
        runs = [pretrained(plr, late_accuracy=a, part=part) for plr, a, part in zip(PLRS, accuracies, parts)]
        return last(RunNumbers(runs, [], classes=classes, **options), "b23")

    assert b23((0.5, 0.1, 0.5, 0.11, 0.09)) == 3
    assert b23((0.5, 0.1, 0.5, 0.1101, 0.09)) == 4
    assert b23((0.5, 0.5, 0.5, 0.1, 0.1), (0, 0, 0, 0.49, 0.5)) == 4  # the loss has fallen
    assert b23((0.5, 0.5, 0.5, np.nan, 0.1), (0, 0, 0, np.nan, 1)) == 3
    assert b23((0.5,) * 5) is None is b23((0.1,) * 5)
    assert b23((0.5, 0.1, 0.5, 0.11, 0.09), diverges=False) is None
    # 5,000 samples of ten classes: three standard errors are 1.27 pp.
    assert b23((0.5, 0.5, 0.5, 0.1127, 0.1), test_samples=5000) == 3
    assert b23((0.5, 0.5, 0.5, 0.1128, 0.1), test_samples=5000) == 4


@pytest.mark.parametrize("size", [10_000, 5_000, 2_000, 777, 100])
def test_accuracies_tell_how_many_samples_they_were_measured_on(size):
    random = np.random.default_rng(size)
    correct = random.integers(1, size, 60)
    stored = [float(f"{accuracy:.7g}") for accuracy in correct / size]
    assert size_of_test_set(stored) == size
    assert size_of_test_set((correct / size).astype(np.float32)) == size
    assert size_of_test_set(stored[: ENOUGH_ACCURACIES - 1] * 2) is None
    assert size_of_test_set(random.random(60)) is None


# Resamples


def test_two_runs_that_differ_give_binomial_shares():
    """At PLR 2 one of two runs converges, so that half of them do unless the other one is drawn twice."""
    converged = {(1, 0), (1, 1), (2, 0)}
    runs = [pretrained(plr, unit, (plr, unit) in converged) for plr in PLRS for unit in (0, 1)]
    found = measure(RunNumbers(runs, [], classes=2))["b12"]
    assert (found["last"], found["next"]) == (2, 3)
    assert found["shares"] == pytest.approx({1: 0.25, 2: 0.75}, abs=0.05)  # the standard error is 1.4 pp
    assert sum(found["shares"].values()) == 1 and found["range"] == [1, 3]


def test_shared_units_are_drawn_for_all_plrs_at_once():
    """Runs of data seed 1 converge at PLRs 1 to 3, others at 1 alone: never is 2 the last."""
    runs = [pretrained(plr, unit, plr == 1 or (unit == 1 and plr < 4)) for plr in PLRS for unit in (1, 2) * 3]
    found = measure(RunNumbers(runs, [], classes=2, shared=True))["b12"]
    assert found["last"] == 3 and found["shares"] == pytest.approx({1: 0.25, 3: 0.75}, abs=0.05)
    assert found["range"] == [1, 4]
    alone = measure(RunNumbers(runs[::6] + runs[1::6], [], classes=2))["b12"][
        "shares"
    ]  # the same runs, by themselves
    assert alone == pytest.approx({1: 1 / 16, 2: 3 / 16, 3: 3 / 4}, abs=0.05)


def test_a_plr_with_units_of_its_own_is_in_every_resample():
    runs = [pretrained(plr, unit, plr < 4) for plr in PLRS for unit in ((1,) if plr == 3 else (1, 2, 3))]
    assert measure(RunNumbers(runs, [], classes=2, shared=True))["b12"]["shares"] == {3: 1.0}


def test_single_runs_are_not_resampled():
    assert measure(study({2: SAME, 3: APART}))["b2AB"] == {"last": 2, "next": 3}


def test_places_below_a_tenth_and_resamples_without_a_boundary():
    """At PLR 4 two of five runs converge, at 2 and 3 all; at 5 one of five, which may be drawn most often."""
    converging = {1: 5, 2: 5, 3: 5, 4: 2, 5: 1}
    runs = [pretrained(plr, unit, unit < converging[plr]) for plr in PLRS for unit in range(5)]
    found = measure(RunNumbers(runs, [], classes=2))["b12"]
    of_4, of_5 = (sum(of_draws(5, converging[plr], drawn) for drawn in (3, 4, 5)) for plr in (4, 5))
    assert found["shares"] == pytest.approx({3: (1 - of_4) * (1 - of_5), 4: of_4 * (1 - of_5)}, abs=0.05)
    assert 1 - sum(found["shares"].values()) == pytest.approx(of_5, abs=0.03)
    assert found["last"] == 3 and found["range"] == [3, 5]
    certain = [run for run in runs if run.plr != 4] + [pretrained(4, unit, unit == 0) for unit in range(5)]
    assert measure(RunNumbers(certain, [], classes=2))["b12"]["range"] == [3, 4]  # 4 comes out in 5.8 %


def of_draws(runs, converging, drawn):
    """The probability that so many of `runs` draws are of one of the runs that converge."""
    chance = converging / runs
    return len([*itertools.combinations(range(runs), drawn)]) * chance**drawn * (1 - chance) ** (runs - drawn)


def slow_lasts(pretrainings, finetunings, tolerance, by_accuracy):
    """The last PLRs below all boundaries, or None, of {PLR: [Pretrained]} and {(PLR, FLR): [accuracy]}: loops only."""

    def mean(plr, name):
        return np.mean([getattr(run, name) for run in pretrainings[plr]])

    def before_another(plrs):
        return max(plrs) if plrs and max(plrs) != PLRS[-1] else None

    if by_accuracy:
        converging = [plr for plr in PLRS if mean(plr, "converged") >= 0.5]
    else:
        fastest = min(PLRS, key=lambda plr: mean(plr, "late_loss"))
        converging = [plr for plr in PLRS if plr <= fastest and mean(plr, "stays_finite") >= 0.5]
        converging = converging if fastest != PLRS[0] else []
    chance = [plr for plr in PLRS if mean(plr, "late_accuracy") <= 0.51 and mean(plr, "part_of_loss") >= 0.5]
    b12, b23, b2ab = before_another(converging), before_another([plr for plr in PLRS if plr not in chance]), None
    if by_accuracy and b12 is not None:
        following, *larger = [plr for plr in PLRS if b12 < plr <= (b23 or PLRS[-1])] or [None]
        if any(mean(plr, "late_loss") < 0.95 * mean(following, "late_loss") for plr in larger):
            b12 = None  # slow, not noisy
    if b12 is not None:
        best = max(mean(plr, "accuracy") for plr in PLRS if plr <= b12)
        for plr in PLRS[PLRS.index(b12) + 1 :]:
            of_plr = {flr: values for (of, flr), values in finetunings.items() if of == plr}
            reached = [np.mean(values) for flr, values in of_plr.items() if by_accuracy or flr < b12]
            if b23 is not None and plr > b23:
                break
            if len(reached) < 2:  # how far 2A reaches is not measured
                b2ab = None
                break
            if max(reached) - min(reached) > tolerance or best - min(reached) > tolerance:
                break
            b2ab = plr
    return {"b12": b12, "b2AB": b2ab if b2ab != PLRS[-1] else None, "b23": b23}


@pytest.mark.parametrize("by_accuracy", [True, False])
def test_boundaries_and_shares_equal_a_slow_enumeration(by_accuracy):
    """Two runs at each of five PLRs: all 4^5 draws of them are as likely."""
    random = np.random.default_rng(5)
    runs = {
        plr: [
            pretrained(
                plr,
                unit,
                converged=random.random() < (0.9, 0.7, 0.2, 0, 0)[index],
                late_accuracy=(0.8, 0.7, 0.55, 0.52, 0.5)[index] + random.normal(0, 0.01),
                accuracy=(0.6, 0.7, 0.6, 0.5, 0.5)[index] + random.normal(0, 0.02),
                part=(0, 0.1, 0.6, 0.8, 1)[index],
                loss=(3, 2, 1.8, 4, 5)[index] + random.normal(0, 0.3),
            )
            for unit in (0, 1)
        ]
        for index, plr in enumerate(PLRS)
    }
    tuned = {
        (plr, flr): [0.72 + (0, 0, 0.01, 0.03, 0.1)[index] * flr + random.normal(0, 0.02) for _ in (0, 1)]
        for index, plr in enumerate(PLRS)
        for flr in ((0, 1) if by_accuracy else (0, 1, 2))  # where 2 is b12, it does not count
    }
    finetuned = [Finetuned(plr, unit, flr, of[unit]) for (plr, flr), of in tuned.items() for unit in (0, 1)]
    listed = [run for of_plr in runs.values() for run in of_plr]
    found = measure(RunNumbers(listed, finetuned, classes=2, by_accuracy=by_accuracy))

    tolerance = max(0.01, np.sqrt(np.mean([np.var(of, ddof=1) for of in tuned.values()])))
    whole = slow_lasts(runs, tuned, tolerance, by_accuracy)
    assert {name: place and place["last"] for name, place in found.items()} == whole
    assert None not in whole.values()
    counts = {name: dict.fromkeys(PLRS[:-1], 0) for name in whole}
    for draw in itertools.product([(0, 0), (0, 1), (1, 0), (1, 1)], repeat=len(PLRS)):
        drawn = dict(zip(PLRS, draw))
        lasts = slow_lasts(
            {plr: [runs[plr][unit] for unit in units] for plr, units in drawn.items()},
            {(plr, flr): [of[unit] for unit in drawn[plr]] for (plr, flr), of in tuned.items()},
            tolerance,
            by_accuracy,
        )
        for name, plr in lasts.items():
            if plr is not None:
                counts[name][plr] += 1
    for name, of_plrs in counts.items():
        shares = dict.fromkeys(of_plrs, 0) | found[name]["shares"]
        assert shares == pytest.approx({plr: count / 4**5 for plr, count in of_plrs.items()}, abs=0.06), name
    assert sum(len(place["shares"]) for place in found.values()) > 3  # so that there is something to compare


# 2A itself


def with_samples(numbers, *samples):
    """The same RunNumbers, whose resamples are these: (how often, how often each unit is drawn)."""
    times, units = zip(*samples)
    numbers.resamples = lambda: np.repeat(np.array(units, dtype=float), times, axis=0)
    return numbers


def of_units(*ends, **options):
    """Data seeds as shared units, each with runs whose (b12, b2AB) have these last PLRs; b2AB None: no fine-tuning."""
    runs, tuned = [], []
    for unit, (b12, b2ab) in enumerate(ends):
        for plr in PLRS:
            at_chance = {"late_accuracy": CHANCE, "part": 1.0} if plr == 5 else {}
            runs.append(pretrained(plr, unit, plr <= b12, **at_chance))
            for flr in () if b2ab is None else (0, 1):
                tuned.append(Finetuned(plr, unit, flr, 0.75 + flr * (0 if plr <= b2ab else 0.1)))
    return RunNumbers(runs, tuned, classes=2, shared=True, **options)


@pytest.mark.parametrize("b12, b2ab", [(1, 2), (1, 3), (2, 3), (3, 4)])
def test_width_of_2a_where_all_resamples_are_the_same(b12, b2ab):
    numbers = of_units(*[(b12, b2ab)] * 3)
    places = measure(numbers)
    assert (places["b12"]["last"], places["b2AB"]["last"]) == (b12, b2ab)
    estimate, lower, upper = width_of_2a(numbers)
    # The next PLR is one more.
    assert (lower, upper) == (b2ab / (b12 + 1), (b2ab + 1) / b12)
    middles = [math.exp((math.log(last) + math.log(last + 1)) / 2) for last in (b12, b2ab)]
    assert estimate == pytest.approx(middles[1] / middles[0])


def test_width_of_2a_of_single_runs_may_be_anything():
    estimate, *ends = width_of_2a(of_units((1, 2)))
    assert estimate == pytest.approx(math.sqrt(2 * 3 / (1 * 2))) and ends == [-math.inf, math.inf]
    for unknown in (study({}), study({2: SAME, 3: APART}, regime_1=PLRS), study(dict.fromkeys(PLRS, APART))):
        estimate, *ends = width_of_2a(unknown)
        assert math.isnan(estimate) and ends == [-math.inf, math.inf]


USUAL, NARROWER, WIDER = [4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]
UNKNOWN = [0, 0, 0, 4]  # all converge


@pytest.mark.parametrize(
    "others, lower, upper",
    [
        ([], 3 / 2, 4 / 1),
        # 2.5 % of the resamples may be beyond either end.
        ([(25, WIDER), (25, NARROWER)], 3 / 2, 4 / 1),
        ([(26, WIDER)], 3 / 2, 5 / 1),
        ([(26, NARROWER)], 2 / 2, 4 / 1),
        ([(974, WIDER)], 3 / 2, 5 / 1),
        ([(975, WIDER)], 4 / 2, 5 / 1),
        ([(25, UNKNOWN)], 3 / 2, 4 / 1),
        ([(26, UNKNOWN)], 0, math.inf),
        ([(13, UNKNOWN), (13, WIDER)], 3 / 2, 5 / 1),
        ([(1000, UNKNOWN)], 0, math.inf),
    ],
)
def test_ends_of_the_width_of_2a_are_of_95_percent_of_the_resamples(others, lower, upper):
    numbers = of_units((1, 3), (1, 2), (1, 4), (5, 5))
    usual = RESAMPLES - sum(times for times, _ in others)
    _, *ends = width_of_2a(with_samples(numbers, (usual, USUAL), *others))
    assert ends == [lower, upper]


def test_resamples_that_do_not_bracket_2a_leave_its_width_open():
    """All three data seeds, or two of them, are the one that converges everywhere in 1/27 + 6/27 of the draws."""
    numbers = of_units((1, 3), (1, 3), (5, 5))
    assert width_of_2a(numbers) == (pytest.approx(math.sqrt(3 * 4 / (1 * 2))), 0, math.inf)
    # Nothing may be known of the runs as they are, and yet of all resamples.
    numbers = with_samples(of_units((1, 3), (5, 5)), (RESAMPLES, [2, 0]))
    estimate, *ends = width_of_2a(numbers)
    assert math.isnan(estimate) and ends == [3 / 2, 4 / 1]


def test_share_of_resamples_without_2a():
    numbers = of_units((1, 3), (1, 1), (1, None), (5, 5), (2, 2))
    draws = [(5, [5, 0, 0, 0, 0]), (2, [0, 5, 0, 0, 0])]
    assert share_without_2a(with_samples(numbers, *draws)) == pytest.approx(2 / 7)
    # Neither what was not fine-tuned nor what has no boundary 1|2 shows that there is none.
    draws += [(2, [0, 0, 5, 0, 0]), (1, [0, 0, 0, 5, 0])]
    assert share_without_2a(with_samples(numbers, *draws)) == pytest.approx(2 / 10)
    assert share_without_2a(with_samples(numbers, *draws, (6, [0, 0, 0, 0, 5]))) == pytest.approx(8 / 16)
    assert share_without_2a(with_samples(numbers, draws[0])) == 0
    assert share_without_2a(with_samples(numbers, draws[1])) == 1


def test_share_without_2a_is_that_of_real_resamples_and_unknown_of_single_runs():
    """2A is there only if both draws are of the first data seed: the mean over both depends on the FLR, too."""
    numbers = of_units((1, 3), (1, 1))
    assert numbers.tolerance < 0.05
    assert share_without_2a(numbers) == pytest.approx(0.75, abs=0.05)
    assert share_without_2a(of_units((1, 1))) is None


def test_resamples_are_always_the_same_and_hold_as_many_units():
    runs = [pretrained(plr, unit) for plr in PLRS for unit in range(3)]
    numbers = RunNumbers(runs, [], classes=2)
    samples = numbers.resamples()
    assert samples.shape == (RESAMPLES, 15)
    assert np.array_equal(samples, numbers.resamples())
    assert all((samples[:, units].sum(axis=1) == 3).all() for units in numbers.strata)


def test_the_synthetic_study_is_measured_in_seconds():
    """23 PLRs, 11 FLRs, 5 data seeds of 10 runs each, and the same as runs by themselves."""
    plrs, random = np.logspace(-4, 0, 23).tolist(), np.random.default_rng(1)
    begin = time.perf_counter()
    for shared in (True, False):
        unit = [1 + run // 10 if shared else run for run in range(50)]
        runs = [pretrained(plr, u, plr < 1e-2, late_accuracy=0.5 + (plr < 0.1) / 4) for plr in plrs for u in unit]
        tuned = [
            Finetuned(plr, u, flr, random.normal(0.7, 0.03)) for plr in plrs for flr in plrs[:11] for u in unit
        ]
        assert measure(RunNumbers(runs, tuned, classes=2, shared=shared))["b12"]["shares"]
    assert time.perf_counter() - begin < 10
