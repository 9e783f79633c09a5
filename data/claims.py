"""The claims of the paper as criteria that the runs of one experiment are held against.

    for verdict in judge(study): print(verdict_line(verdict))

Nothing here knows where regimes lie: their boundaries are measured (see study.py), and every criterion speaks of all
setups that the claim speaks of. The thresholds are this project's own. Accuracies are in percent and means over
runs; "pp" are percentage points; "best" is the highest mean. `A` exceeds `B` if its mean is higher by more than two
standard errors of the difference (of single runs: if it is higher). A check takes the Evidence, `e`, and returns
whether the claim holds, and what was measured.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from data import bands, ticks
from data.runs import bands_name
from data.study import (
    GEOMETRY_PAIRS,
    at_convergence,
    converging_plrs,
    decades,
    features_of,
    final,
    geometry_of,
    has_converged,
    is_worse,
    late_mean,
    late_part_of_initial_loss,
    late_values,
    measure_regimes,
    meet_2a,
    of_average,
    of_measurement,
    sharpness_points,
    standard_error,
)

HOLDS, FAILS, NOT_MEASURABLE = "holds", "does not hold", "not measurable"


class NotMeasurable(Exception):
    """These runs cannot tell; the message says what is missing."""


class Values(dict):
    """{PLR: values of the runs}, with the means that claims are about."""

    def means(self, plrs):
        """Means over runs at these PLRs. Raises NotMeasurable where there are no runs."""
        missing = [plr for plr in plrs if plr not in self]
        if missing:
            raise NotMeasurable(f"runs are missing, for one at PLR {missing[0]:.3g}")
        return np.array([np.mean(self[plr], axis=0) for plr in plrs])


class Evidence:
    """What a study's runs say, in the terms of the claims."""

    def __init__(self, study):
        self.study = study
        self.regimes = measure_regimes(study)
        self.chance = 100 / study.settings["classes"]
        self.pretrained = self.percent("pretrain", final("test_accuracy"))
        self.late_accuracy = self.percent("pretrain", late_mean("test_accuracy"))
        self.plrs = list(self.pretrained)
        self.finetuned = {flr: self.percent("finetune", final("test_accuracy"), flr) for flr in study.flrs()}
        self.averaged = {window: self.percent("swa", of_average(window)) for window in study.windows()}

    def values(self, stage, value, *later_lrs):
        """Values as Study.by_plr() gives, but for those that are not finite, of members that diverged."""
        by_plr = self.study.by_plr(stage, value, *later_lrs)
        arrays = {plr: np.array(of_plr, dtype=float) for plr, of_plr in by_plr.items()}
        finite = {
            plr: array[np.isfinite(array).reshape(len(array), -1).all(axis=1)] for plr, array in arrays.items()
        }
        return Values({plr: array for plr, array in finite.items() if len(array)})

    def percent(self, stage, value, *later_lrs):
        return Values({plr: 100 * array for plr, array in self.values(stage, value, *later_lrs).items()})

    def regime(self, name):
        """The PLRs of regime `1`, `2`, `2A`, `2B` or `3`. Raises NotMeasurable where its ends were not."""
        low, high = {
            "1": (None, "b12"),
            "2": ("b12", "b23"),
            "2A": ("b12", "b2AB"),
            "2B": ("b2AB", "b23"),
            "3": ("b23", None),
        }[name]
        for end in (low, high):
            if end and not self.regimes[end]:
                raise NotMeasurable(f"regime {name}: its boundary {end} is not bracketed by these runs")
        first = self.regimes[low]["next"] if low else 0
        last = self.regimes[high]["last"] if high else np.inf
        return [plr for plr in self.plrs if first <= plr <= last]

    @functools.cached_property
    def refutes_2a(self):
        """Whether fine-tuning was measured in regime 2, and no PLR there meets the criterion of 2A."""
        meets = meet_2a(self.study, self.plrs, self.regimes["b12"], self.regimes["b23"])
        return bool(meets) and not any(meets.values())

    @property
    def flrs(self):
        """The FLRs of at least two that were used. Raises NotMeasurable."""
        if len(self.finetuned) < 2:
            raise NotMeasurable("fine-tuning at two or more FLRs is missing")
        return list(self.finetuned)

    @property
    def windows(self):
        """The numbers of weights averaged, at least two. Raises NotMeasurable."""
        if len(self.averaged) < 2:
            raise NotMeasurable("SWA with two or more windows is missing")
        return list(self.averaged)

    @property
    def high_flr(self):
        """The largest FLR that converges by itself, that is, of regime 1. Raises NotMeasurable."""
        converging = [flr for flr in self.flrs if flr <= self.regime("1")[-1]]
        if not converging:
            raise NotMeasurable("no FLR lies in regime 1")
        return converging[-1]

    def geometry(self, quantity, pair, counts=lambda run, index: True):
        """Angles (radians) or barriers (percent) between solutions fine-tuned at the lowest and the highest FLR.

        counts: function (run, member index) -> whether a pre-trained member is among them.
        """
        value = geometry_of(self.flrs[0], self.flrs[-1], quantity, pair)
        values = self.values("pretrain", lambda run, index: value(run, index) if counts(run, index) else None)
        if not values:
            raise NotMeasurable("their geometry is not measured: analyze.py geometry")
        return values

    def features(self, stage, solution="checkpoint", *later_lrs):
        """Sorted single-feature accuracies, best first."""
        if self.study.settings["data"] != ticks.NAME:
            raise NotMeasurable("is about the synthetic study")
        values = self.percent(stage, features_of(solution), *later_lrs)
        if not values:
            raise NotMeasurable("features are not measured: analyze.py features")
        return values

    def dominance(self, plrs, *solution):
        """By how much the best feature is ahead of the second, in pp, at these PLRs."""
        sorted_means = self.features(*solution).means(plrs)
        return sorted_means[:, 0] - sorted_means[:, 1]

    def gains(self):
        """{PLR: change of mean accuracy by the high FLR} for the PLRs below it."""
        plrs = [plr for plr in self.regime("1") if plr < self.high_flr]
        if not plrs:
            raise NotMeasurable("no PLR lies below the high FLR")
        return dict(zip(plrs, self.finetuned[self.high_flr].means(plrs) - self.pretrained.means(plrs)))

    def jump(self):
        """(PLRs of regime 1 below the jump, PLRs above it); it lies above the last to gain half of the largest gain.

        Raises NotMeasurable where no PLR gains.
        """
        gains, plrs = self.gains(), self.regime("1")
        if max(gains.values()) <= 0:
            raise NotMeasurable("fine-tuning at the high FLR gains from no PLR of regime 1")
        last = max(plr for plr, gain in gains.items() if gain >= max(gains.values()) / 2)
        return [plr for plr in plrs if plr <= last], [plr for plr in plrs if plr > last]

    def larger_flrs(self, plr):
        return [flr for flr in self.flrs if plr < flr <= self.regime("1")[-1]]

    def changes(self, plr, flrs):
        """Changes of mean accuracy by fine-tuning at these FLRs from a PLR."""
        [before] = self.pretrained.means([plr])
        return [self.finetuned[flr].means([plr])[0] - before for flr in flrs]

    def elsewhere(self, plrs):
        return [plr for plr in self.plrs if plr not in plrs]


class Best(NamedTuple):
    """The highest mean among curves, the PLR it is at, and the values of the runs behind it."""

    mean: float
    plr: float
    values: np.ndarray


def best(curves, plrs):
    """The Best of curves (Values) at these PLRs. Raises NotMeasurable where there are no runs."""
    found = [Best(np.mean(curve[plr]), plr, curve[plr]) for curve in curves for plr in plrs if plr in curve]
    if not found:
        raise NotMeasurable("runs are missing")
    return max(found, key=lambda candidate: candidate.mean)


def exceeds(values, others):
    return np.mean(values) - np.mean(others) > 2 * standard_error(values, others)


def worse(values, others):
    """is_worse() of accuracies in percent."""
    return is_worse(values / 100, others / 100)


def spearman(rates, values):
    """Rank correlation, 0 where all values are the same. Raises NotMeasurable for fewer than three."""
    if len(rates) < 3:
        raise NotMeasurable("three or more points are needed to see a trend")
    return float(spearmanr(rates, values).statistic) if np.ptp(values) > 0 else 0.0


# ------------------------------------------------------------------------------------------------- the main message


def best_solutions_come_from_2a(e):
    if e.refutes_2a:
        return False, {"PLRs that meet the criterion of 2A": 0}
    inside, tuned, averaged = e.regime("2A"), e.finetuned.values(), e.averaged.values()
    of_2a = {"fine-tuned": best(tuned, inside), "averaged": best(averaged, inside)}
    elsewhere = best([e.pretrained, *tuned, *averaged], e.elsewhere(inside))
    measured = {f"best {name} in 2A": found.mean for name, found in of_2a.items()}
    measured |= {"best elsewhere": elsewhere.mean, "at PLR": elsewhere.plr}
    most = max(of_2a.values(), key=lambda found: found.mean)
    peaks = peaks_in(e, inside, tuned) and peaks_in(e, inside, averaged)
    return peaks and exceeds(most.values, elsewhere.values), measured


# ------------------------------------------------------------------------------------------------------ the regimes


def regime_1_converges(e):
    plrs = e.regime("1")
    converged = converging_plrs(e.study)  # none lies above regime 1, which ends at the last of them
    trend, noise = spearman(plrs, e.pretrained.means(plrs)), max(wander(e, plrs))
    measured = {"converges from PLR": converged[0], "rank correlation": trend, "largest std": noise}
    return plrs[-len(converged) :] == converged and trend >= 0.95 and noise < 0.5, measured


def wander(e, plrs):
    """Standard deviations of test accuracy within the last tenth of a run, in pp, pooled over runs, at these PLRs."""
    return 100 * np.sqrt(e.values("pretrain", late_variance).means(plrs))


def late_variance(run, index):
    """The unbiased variance, as the last tenth may hold few logged steps."""
    accuracies = np.array(late_values("test_accuracy")(run, index), dtype=float)
    if len(accuracies) < 2:
        raise NotMeasurable("the last tenth of the runs holds one logged step: see --log-every")
    return accuracies.var(ddof=1)


def regime_2_stays_noisy(e):
    plrs = e.regime("2")
    trend = spearman(plrs, e.late_accuracy.means(plrs))
    noise = min(wander(e, plrs))
    kept = min(e.values("pretrain", late_part_of_earlier_loss).means(plrs))
    measured = {"rank correlation": trend, "smallest std": noise, "smallest part of the loss that stays": kept}
    return trend <= -0.95 and noise >= 2 and kept >= 0.95, measured


def late_part_of_earlier_loss(run, index):
    """Train loss in the last tenth of a run, relative to the tenth before."""
    steps = np.array(run.metrics["step"]) / run.metrics["step"][-1]
    losses = np.array([row[index] for row in run.metrics["train_loss"]], dtype=float)
    before = losses[(steps > 0.8) & (steps <= 0.9)]
    if not len(before):
        raise NotMeasurable("the tenth before the last of the runs holds no logged step: see --log-every")
    return late_mean("train_loss")(run, index) / before.mean()


def regime_3_is_at_chance(e):
    plrs = e.regime("3")
    distance = max(abs(e.late_accuracy.means(plrs) - e.chance))
    kept = e.values("pretrain", late_part_of_initial_loss).means(plrs)
    measured = {"farthest from chance": distance, "loss / initial loss from": min(kept), "to": max(kept)}
    return distance <= 1 and 0.5 <= min(kept) and max(kept) <= 2, measured


# ------------------------------------------------------------------------------------------------------ fine-tuning


def smaller_flrs_change_nothing(e):
    changes = {}
    for flr in e.flrs:
        by_plr = e.percent("finetune", change_of_converged(e.study), flr)
        changes |= {(plr, flr): np.mean(by_plr[plr]) for plr in e.regime("1") if flr <= plr and plr in by_plr}
    if not changes:
        raise NotMeasurable("no FLR lies below a PLR of regime 1 with converged runs")
    largest = max(changes.values(), key=abs)
    turned = e.geometry("angle", "LP", counts=has_converged)
    angle = max(turned.means([plr for plr, flr in changes if flr == e.flrs[0]]))
    return abs(largest) <= 0.5 and angle <= 0.1, {"largest change": largest, "largest angle(L, PT)": angle}


def change_of_converged(study):
    """A function (run, member index) -> the change of test accuracy by a fine-tuning; None of runs not converged."""
    accuracy = final("test_accuracy")

    def value(run, index):
        parent = study.parent(run)
        if parent is None or not has_converged(parent, index):
            return None
        return accuracy(run, index) - accuracy(parent, index)

    return value


def much_larger_flrs_jump(e):
    gains, (below, above) = e.gains(), e.jump()
    changes = [change for plr in above[2:] for change in e.changes(plr, e.larger_flrs(plr))]
    if not changes:
        raise NotMeasurable("no FLR lies above a PLR that is two grid steps beyond the jump")
    smallest, largest = gains[min(gains)], max(changes, key=abs)
    measured = {"gain from the smallest PLR": smallest, "last PLR before the jump": below[-1]}
    measured["largest change two steps beyond"] = largest
    return smallest >= 2 and abs(largest) < 1, measured


def every_flr_is_as_good_in_2a(e):
    if e.refutes_2a:
        return False, {"PLRs that meet the criterion of 2A": 0}
    inside, curves = e.regime("2A"), [e.finetuned[flr] for flr in e.flrs]
    reached = [sorted((curve[plr] for curve in curves if plr in curve), key=np.mean) for plr in inside]
    ends = [(of_flrs[0], of_flrs[-1]) for of_flrs in reached if of_flrs]  # the worst and the best FLR of a PLR
    regime_1, everywhere = best([e.pretrained, *curves], e.regime("1")), best(curves, e.plrs)
    good = not any(worse(worst, top) or exceeds(regime_1.values, worst) for worst, top in ends)
    measured = {"largest spread over FLRs": max(np.mean(top) - np.mean(worst) for worst, top in ends)}
    measured |= {"least in 2A": min(np.mean(worst) for worst, _ in ends), "best of regime 1": regime_1.mean}
    measured |= {"best fine-tuned": everywhere.mean, "at PLR": everywhere.plr}
    return good and peaks_in(e, inside, curves), measured


def peaks_in(e, inside, curves):
    """Whether nothing at other PLRs exceeds the best at these PLRs."""
    return not exceeds(best(curves, e.elsewhere(inside)).values, best(curves, inside).values)


def flrs_part_in_2b(e):
    plrs, flrs = e.regime("2B"), e.flrs
    reached = np.array([e.finetuned[flr].means(plrs) for flr in flrs])
    trend, spreads = spearman(plrs, reached.mean(axis=0)), np.ptp(reached, axis=0)
    top = best([e.finetuned[flr] for flr in flrs], plrs[-1:])
    measured = {"rank correlation": trend, "spread at its start": spreads[0], "at its end": spreads[-1]}
    measured |= {"best there": top.mean, "highest FLR there": reached[-1, -1]}
    highest_is_best = not exceeds(top.values, e.finetuned[flrs[-1]][plrs[-1]])
    return trend <= -0.9 and spreads[-1] >= max(5, spreads[0]) and highest_is_best, measured


def regime_3_is_like_scratch(e):
    low, high = e.flrs[0], e.flrs[-1]
    scratch_low, scratch_high = e.pretrained.means([low, high])
    above_low = np.mean(e.finetuned[low].means(e.regime("3"))) - scratch_low
    above_high = np.mean(e.finetuned[high].means(e.regime("3"))) - scratch_high
    below_2a = min(
        max(curve.means(e.regime("2A"))) - max(curve.means(e.regime("3"))) for curve in e.finetuned.values()
    )
    measured = {"lowest FLR - scratch": above_low, "highest FLR - scratch": above_high}
    measured["least lead of 2A at an FLR"] = below_2a
    return abs(above_high) <= 1.5 and above_low > 1.5 and below_2a > 0, measured


def two_stages_restore_quality(e):
    two_stages = e.study.two_stage_lrs()
    by_2a = [lrs for lrs in two_stages if lrs[0] in e.regime("2B") and lrs[1] in e.regime("2A")]
    if not by_2a:
        raise NotMeasurable("no fine-tunings of runs of 2B that went on at a PLR of 2A")
    holds, measured = True, {}
    for plr_2b, plr_2a, flr in by_2a:
        if flr not in e.finetuned:
            raise NotMeasurable(f"no run was fine-tuned at {flr:.3g} right after pre-training")
        [both] = e.percent("finetune", final("test_accuracy"), plr_2a, flr).means([plr_2b])
        [only_2b, only_2a] = e.finetuned[flr].means([plr_2b, plr_2a])
        scratch = 100 * np.mean(e.study.from_scratch(final("test_accuracy"), flr)[0] or np.nan)
        if np.isnan(scratch):
            raise NotMeasurable(f"no run was trained at {flr:.3g} from scratch")
        holds &= abs(both - only_2a) <= 1 and min(both, only_2a) >= scratch and only_2b < both
        if flr == e.flrs[-1]:
            holds &= only_2b < scratch
        reached = {"by 2A": both, "from 2A": only_2a, "from 2B": only_2b, "scratch": scratch}
        measured |= {f"{plr_2b:.3g}, {plr_2a:.3g}, {flr:.3g}: {name}": mean for name, mean in reached.items()}
    return bool(holds), measured


# -------------------------------------------------------------------------------------------------------------- SWA


def averaging_changes_nothing_in_1(e):
    plrs = e.regime("1")
    changes = [e.averaged[window].means(plrs) - e.pretrained.means(plrs) for window in e.windows]
    largest = max(np.concatenate(changes), key=abs)
    return abs(largest) <= 0.3, {"largest change": largest}


def averaging_helps_in_2a(e):
    plrs, windows = e.regime("2A"), e.windows
    averaged, tuned = [best([e.averaged[window]], plrs) for window in windows], best(e.finetuned.values(), plrs)
    largest = averaged[-1]
    gain = largest.mean - np.mean(e.pretrained[largest.plr])
    trend = spearman(windows, [of_window.mean for of_window in averaged])
    many = [of_window.values for window, of_window in zip(windows, averaged) if window >= 10]
    if not many:
        raise NotMeasurable("no SWA of 10 or more weights")
    matches = not any(worse(values, tuned.values) for values in many)
    places = [best(curves, e.plrs).plr for curves in ([e.averaged[windows[-1]]], e.finetuned.values())]
    apart = abs(e.plrs.index(places[0]) - e.plrs.index(places[1]))
    measured = {"gain": gain, "rank correlation with K": trend, "best averaged": largest.mean}
    measured |= {"best fine-tuned": tuned.mean, "grid steps between their PLRs": apart}
    return gain >= 2 and trend >= 0.9 and matches and apart <= 1, measured


def averaging_fails_in_2b(e):
    plrs, windows = e.regime("2B"), e.windows
    largest, next_smaller = (e.averaged[window].means(plrs) for window in (windows[-1], windows[-2]))
    trend, gain = spearman(plrs, largest), largest[-1] - next_smaller[-1]
    regime_3 = max(max(abs(e.averaged[window].means(e.regime("3")) - e.chance)) for window in windows)
    measured = {"rank correlation": trend, "gain of the largest K at its end": gain}
    measured["regime 3: farthest from chance"] = regime_3
    return trend <= -0.9 and gain < 1 and regime_3 <= 1, measured


# --------------------------------------------------------------------------------------------------------- geometry

NO_BARRIER, SMALL_ANGLE, LARGE_ANGLE = 0.1, 0.1, 1.2  # percent; radians; three quarters of a right angle
LARGE_BARRIER = 1.0  # percent


def angles(e, pair, plrs):
    return e.geometry("angle", pair).means(plrs)


def barriers(e, pair, plrs, of=("train_barrier", "test_barrier")):
    """The larger of the medians over runs of the train and the test barrier, at each of the PLRs.

    Rounded, as the thresholds are errors of whole numbers of points: two of 2,000 are 0.1 % exactly.
    """
    of_plrs = [e.geometry(name, pair) for name in of]
    missing = [plr for plr in plrs if any(plr not in by_plr for by_plr in of_plrs)]
    if missing:
        raise NotMeasurable(f"the geometry of runs is missing, for one at PLR {missing[0]:.3g}")
    return np.round(np.max([[np.median(by_plr[plr]) for plr in plrs] for by_plr in of_plrs], axis=0), 4)


def regime_1_is_one_basin_above_the_jump(e):
    below, above = e.jump()
    if not above:
        raise NotMeasurable("the gain of the high FLR does not fall to half within regime 1")
    angle = max(max(angles(e, pair, above)) for pair in GEOMETRY_PAIRS)
    barrier = max(max(barriers(e, pair, above)) for pair in GEOMETRY_PAIRS)
    angle_to_h = min(min(angles(e, pair, below)) for pair in ("LH", "SH"))
    barrier_to_h = min(min(barriers(e, pair, below, ["train_barrier"])) for pair in ("LH", "SH"))
    angle_sl, barrier_sl = max(angles(e, "SL", below)), max(barriers(e, "SL", below))
    measured = {"above the jump: largest angle": angle, "largest barrier": barrier}
    measured |= {"below it: smallest angle to H": angle_to_h, "smallest train barrier to H": barrier_to_h}
    measured |= {"largest angle(S, L)": angle_sl, "largest barrier(S, L)": barrier_sl}
    small = max(angle, angle_sl) < SMALL_ANGLE and max(barrier, barrier_sl) < NO_BARRIER
    return small and angle_to_h > LARGE_ANGLE and barrier_to_h > LARGE_BARRIER, measured


def no_barrier_in_2a(e):
    plrs = e.regime("2A")
    angle, barrier = angles(e, "LH", plrs), max(barriers(e, "LH", plrs))
    ratio = max(angle / np.minimum(angles(e, "SL", plrs), angles(e, "SH", plrs)))
    measured = {"angle(L, H) from": min(angle), "to": max(angle)}
    measured |= {"largest angle(L, H) / angle to S": ratio, "largest barrier(L, H)": barrier}
    return min(angle) > 0.01 and max(angle) < np.pi / 4 and ratio <= 0.75 and barrier < NO_BARRIER, measured


def barriers_grow_in_2b(e):
    plrs = e.regime("2B")
    angle, barrier = angles(e, "LH", plrs), barriers(e, "LH", plrs)
    trends = spearman(plrs, angle), spearman(plrs, barrier)
    measured = {"rank correlation of angle(L, H)": trends[0], "of the barrier": trends[1]}
    measured |= {"at the end: angle": angle[-1], "barrier": barrier[-1]}
    return min(trends) >= 0.9 and angle[-1] >= LARGE_ANGLE and barrier[-1] >= LARGE_BARRIER, measured


def regime_3_is_orthogonal(e):
    plrs = e.regime("3")
    farthest = max(abs(angles(e, "LH", plrs) - np.pi / 2))
    smallest = min(min(barriers(e, pair, plrs, ["train_barrier"])) for pair in GEOMETRY_PAIRS)
    measured = {"farthest of angle(L, H) from a right one": farthest, "smallest train barrier": smallest}
    return farthest <= 0.1 and smallest >= LARGE_BARRIER, measured


# --------------------------------------------------------------------------------------- features of the synthetic data

DOMINANCE = 10  # pp


def all_features_count_in_1(e):
    plrs = e.regime("1")
    singles = e.features("pretrain").means(plrs)
    distance, lead = np.max(abs(singles - e.chance)), min(e.pretrained.means(plrs) - singles[:, 0])
    measured = {"single feature farthest from chance": distance, "least lead of all features": lead}
    return distance <= 10 and lead >= 10, measured


def one_feature_dominates_in_2a(e):
    plrs = e.regime("2A")
    before = e.dominance(plrs, "pretrain")
    tuned = e.dominance(plrs, "finetune", "checkpoint", e.flrs[0])
    averaged = e.dominance(plrs, "swa", f"swa-{e.windows[-1]}")
    change = min(np.minimum(tuned, averaged) - before)
    measured = {"lead of the best feature from": min(before), "to": max(before), "least change": change}
    measured |= {"least after fine-tuning": min(tuned), "least after SWA": min(averaged)}
    return min(before) >= DOMINANCE and change >= -1, measured


def none_dominates_beyond(e):
    plrs = e.regime("2B") + e.regime("3")
    lead = max(*e.dominance(plrs, "pretrain"), *e.dominance(plrs, "finetune", "checkpoint", e.flrs[0]))
    at_chance = [plr for plr in plrs if abs(np.mean(e.pretrained[plr]) - e.chance) <= 1]
    stays = bool(at_chance) and plrs[-len(at_chance) :] == at_chance
    again = sum(e.dominance(plrs, "finetune", "checkpoint", e.high_flr) >= DOMINANCE)
    measured = {"largest lead": lead, "at chance from PLR": at_chance[0] if stays else None}
    measured["PLRs with a dominant feature at the highest FLR"] = int(again)
    return lead < DOMINANCE and stays and at_chance[0] in e.regime("2B") and again >= 2, measured


def accuracy_peaks_in_2a(e):
    if e.study.settings["data"] != ticks.NAME:
        raise NotMeasurable("is about the synthetic study")
    inside, window = e.regime("2A"), e.windows[-1]
    curves = {f"FLR {flr:.3g}": curve for flr, curve in e.finetuned.items()}
    curves |= {f"SWA-{window}": curve for window, curve in e.averaged.items()}
    outside = [name for name, curve in curves.items() if not peaks_in(e, inside, [curve])]
    top, averaged = best(curves.values(), e.plrs), best([e.averaged[window]], e.plrs)
    measured = {"curves": len(curves), "that peak outside 2A": ", ".join(outside) or "none"}
    measured |= {"highest of all": top.mean, f"of SWA-{window}": averaged.mean}
    return not outside and not exceeds(top.values, averaged.values), measured


# ------------------------------------------------------------------ the boundary of regime 1, and norms of filters


def convergence_slows_down(e):
    epochs = e.values("converge", at_convergence("step"))
    if not epochs:
        raise NotMeasurable("no runs that train until they converge: scripts/boundary.sh")
    lrs = list(epochs)
    fastest = lrs[int(np.argmin(epochs.means(lrs)))]  # smaller learning rates are slow for another reason
    slower = [lr for lr in lrs if lr >= fastest]
    if len(slower) < 4:
        raise NotMeasurable("four or more learning rates are needed from the fastest one up to the boundary")
    logs, middle = np.log(epochs.means(slower)), len(slower) // 2
    first, last = (np.polyfit(slower[part], logs[part], 1)[0] for part in (slice(middle + 1), slice(middle, None)))
    accuracy = e.percent("converge", at_convergence("test_accuracy"))
    growth, top = spearman(lrs, accuracy.means(lrs)), best([accuracy], lrs)
    tuned = best(e.finetuned.values(), e.regime("2A"))
    measured = {"fewest epochs": np.exp(logs[0]), "at the largest rate": np.exp(logs[-1])}
    measured |= {"slope of log epochs in the lower half": first, "in the upper": last}
    measured |= {
        "rank correlation of accuracy": growth,
        "its best": top.mean,
        "best fine-tuned from 2A": tuned.mean,
    }
    return last > first > 0 and growth >= 0.9 and tuned.mean > top.mean, measured


def norms_spread_in_regime_3(e):
    plr, low, high = e.regime("3")[-1], e.flrs[0], e.flrs[-1]

    def spread(what, solution, *lrs):
        norms = e.study.at(of_measurement("norms", solution), lrs)
        if not norms:
            raise NotMeasurable(f"filter norms of {what} are not measured: analyze.py norms")
        return decades(np.concatenate(norms))

    initial, after = spread("the initial point", "initial", plr), spread("regime 3", "checkpoint", plr)
    of_low, of_high = (spread("fine-tuned runs", "checkpoint", plr, flr) for flr in (low, high))
    scratch = spread("training at the highest FLR", "checkpoint", high)
    measured = {"decades at first": initial, "after regime 3": after, "after the lowest FLR": of_low}
    measured |= {"after the highest FLR": of_high, "from scratch at it": scratch}
    return initial < 1 and after >= 3 and of_low >= after / 2 and abs(of_high - scratch) <= 0.3, measured


# ---------------------------------------------------------------------------------- frequency bands, and sharpness


def band_accuracy(e, band, stage, *later_lrs):
    """Accuracies (Values, percent) on a band by the default normalisation, after a stage."""
    if e.study.settings["data"] == ticks.NAME:
        raise NotMeasurable("is about image networks")
    values = e.percent(
        stage, of_measurement(bands_name(bands.DEFAULT_NORMALISATION), "accuracy", band), *later_lrs
    )
    if not values:
        raise NotMeasurable("accuracies on frequency bands are not measured: analyze.py bands")
    return values


OTHER_BANDS = ("background", "low", "high")


def mid_band_peaks_in_2a(e):
    inside, measured, holds = e.regime("2A"), {}, True
    stages = {"pre-training": ("pretrain",), "SWA": ("swa",), "the lowest FLR": ("finetune", e.flrs[0])}
    for name, stage in (stages | {"the highest FLR": ("finetune", e.flrs[-1])}).items():
        mid = band_accuracy(e, "mid", *stage)
        top = best([mid], inside)
        others = max(np.mean(band_accuracy(e, band, *stage)[top.plr]) for band in OTHER_BANDS)
        holds &= peaks_in(e, inside, [mid]) and top.mean > others
        measured |= {f"{name}: mid band in 2A": top.mean, f"{name}: best other band there": others}
    return bool(holds), measured


def bands_lose_preference(e):
    smallest, beyond = e.plrs[0], e.regime("2B")[-1:] + e.regime("3")
    reached = {band: band_accuracy(e, band, "pretrain") for band in ("mid", *OTHER_BANDS)}
    favoured = max(reached, key=lambda band: reached[band].means([smallest])[0])
    farthest = max(max(abs(values.means(beyond) - e.chance)) for values in reached.values())
    measured = {"best band at the smallest PLR": favoured, "farthest from chance beyond 2A": farthest}
    return favoured in ("background", "low") and farthest <= 5, measured


def solutions_at_equal_loss(e, pretrained):
    """(level, [PLR, sharpness, test error] of solutions) at the lowest level of train loss that has five or more.

    They are the pre-trainings of regime 1, or else the fine-tunings from regime 2; sharpness is the mean gradient norm.
    """
    if e.study.settings["data"] == ticks.NAME:
        raise NotMeasurable("is about image networks")
    levels = sorted({level for run in e.study.runs for level in run.settings["keep_loss"]})
    for level in levels:
        points = [point for point in sharpness_points(e.study, level) if (point["flr"] is None) == pretrained]
        if len(points) >= 5:
            columns = [[point["plr"], point["gradient_norm"], 1 - point["test_accuracy"]] for point in points]
            return level, np.transpose(columns)
    raise NotMeasurable("sharpness is measured of fewer than five such solutions: analyze.py sharpness")


def sharpness_falls_in_regime_1(e):
    level, (plrs, sharpness, error) = solutions_at_equal_loss(e, pretrained=True)
    trends = spearman(plrs, sharpness), spearman(plrs, error)
    measured = {
        "at train loss": level,
        "rank correlation of PLR and sharpness": trends[0],
        "and test error": trends[1],
    }
    return max(trends) <= -0.9, measured


def sharpness_does_not_tell_in_2(e):
    level, (_, sharpness, error) = solutions_at_equal_loss(e, pretrained=False)
    trend = spearman(sharpness, error)
    return abs(trend) < 0.5, {"at train loss": level, "rank correlation of sharpness and test error": trend}


# -------------------------------------------------------------------------------------------------------- the table


def unmeasured(what):
    def check(e):
        raise NotMeasurable(f"there is no measurement yet of {what}")

    return check


class Claim(NamedTuple):
    """A claim of the paper: where it is made, in which words of ours it holds, and the function that judges it.

    check: Evidence -> (whether it holds, {what was measured: number or text}); raises NotMeasurable.
    """

    name: str
    source: str
    criterion: str
    check: object


CLAIMS = (
    Claim(
        "M1",
        "abstract, section 4, figures 2 and 15",
        "fine-tuning and SWA are best in 2A (no other PLR exceeds it), and the better of them exceeds everything from other "
        "PLRs",
        best_solutions_come_from_2a,
    ),
    Claim(
        "R1",
        "section 3, figure 1",
        "in regime 1 runs converge (see 1|2) at all but the smallest PLRs, and test accuracy after pre-training grows with "
        "PLR (rank correlation >= 0.95) and varies by a std < 0.5 pp within the last tenth of a run (pooled over runs)",
        regime_1_converges,
    ),
    Claim(
        "R2",
        "section 3, figure 1",
        "in regime 2 test accuracy over the last tenth falls with PLR (rank correlation <= -0.95) and varies by a std "
        ">= 2 pp within it at every PLR, and train loss keeps at least 95 % of its value from the tenth before",
        regime_2_stays_noisy,
    ),
    Claim(
        "R3",
        "section 3, figure 1",
        "in regime 3 test accuracy is within 1 pp of chance, train loss within a factor 2 of its initial value",
        regime_3_is_at_chance,
    ),
    Claim(
        "R5",
        "appendix, figure 11",
        "from the fastest learning rate up to 1|2 the logarithm of epochs to convergence rises, in its upper half more "
        "steeply than in its lower; accuracy at convergence grows (rank correlation >= 0.9), below the best of 2A",
        convergence_slows_down,
    ),
    Claim(
        "F1",
        "section 4, figures 2, 3, 15 and 16",
        "FLRs <= PLR change the test accuracy of converged runs of regime 1 by <= 0.5 pp, and the lowest FLR turns their "
        "weights by <= 0.1 rad (means at every PLR)",
        smaller_flrs_change_nothing,
    ),
    Claim(
        "F2",
        "section 4, figures 2 and 15",
        "from the smallest PLR the highest FLR of regime 1 gains >= 2 pp, and two grid steps beyond the jump, the last PLR "
        "from which it gains half of its largest gain, no larger FLR of regime 1 changes 1 pp",
        much_larger_flrs_jump,
    ),
    Claim(
        "F3",
        "section 4, figures 2 and 15",
        "at every PLR of 2A all FLRs reach the same (within 1 pp or two standard errors, which defines 2A), the best of "
        "regime 1 exceeds none of them, and no fine-tuning from elsewhere exceeds the best from 2A",
        every_flr_is_as_good_in_2a,
    ),
    Claim(
        "F4",
        "section 4, figures 2 and 15",
        "in 2B accuracy (mean over FLRs) falls with PLR (rank correlation <= -0.9), and at its last PLR the FLRs are >= "
        "5 pp apart, more than at its first, and none exceeds the highest",
        flrs_part_in_2b,
    ),
    Claim(
        "F5",
        "section 4, figures 2 and 15",
        "from regime 3 (mean over its PLRs) the highest FLR reaches what training from scratch at it does within 1.5 pp, "
        "the lowest more by over 1.5 pp, and every FLR less at its best than at its best from 2A",
        regime_3_is_like_scratch,
    ),
    Claim(
        "F6",
        "appendix, figure 12",
        "going on from 2B at a PLR of 2A reaches what 2A does within 1 pp, both at least as much as scratch; 2B alone "
        "reaches less, with the highest FLR less than scratch",
        two_stages_restore_quality,
    ),
    Claim(
        "F7",
        "appendix, figure 13",
        "the largest PLR of regime 3 spreads filter norms from less than 1 decade over >= 3; the lowest FLR keeps half of "
        "them or more, and after the highest they spread as after training from scratch at it, within 0.3",
        norms_spread_in_regime_3,
    ),
    Claim(
        "W1",
        "section 4, figures 2 and 15",
        "in regime 1 SWA of any K changes test accuracy by <= 0.3 pp",
        averaging_changes_nothing_in_1,
    ),
    Claim(
        "W2",
        "section 4, figures 2 and 15",
        "the best of SWA in 2A gains >= 2 pp on its pre-training and grows with K (rank correlation >= 0.9), no K >= 10 is "
        "worse than the best fine-tuning (by 1 pp and two standard errors), and both are best at neighbouring PLRs",
        averaging_helps_in_2a,
    ),
    Claim(
        "W3",
        "section 4, figures 2 and 15",
        "in 2B SWA of the largest K falls with PLR (rank correlation <= -0.9) and at the last PLR gains < 1 pp on the next "
        "smaller K; in regime 3 SWA is within 1 pp of chance",
        averaging_fails_in_2b,
    ),
    Claim(
        "G1",
        "section 4, figures 3 and 16",
        "regime 1 above the jump (see F2): all angles < 0.1 rad, all barriers < 0.1 %; below it: angles of L and S to H > "
        "1.2 rad with train barriers > 1 %, angle(S, L) < 0.1 rad without barrier",
        regime_1_is_one_basin_above_the_jump,
    ),
    Claim(
        "G2",
        "section 4, figures 3 and 16",
        "in 2A angle(L, H) is between 0.01 and pi/4 rad, at most 3/4 of the angles to S, and no barrier(L, H) reaches 0.1 %",
        no_barrier_in_2a,
    ),
    Claim(
        "G3",
        "section 4, figures 3 and 16",
        "in 2B angle(L, H) and its barriers grow with PLR (rank correlations >= 0.9), up to 1.2 rad and 1 % or more",
        barriers_grow_in_2b,
    ),
    Claim(
        "G4",
        "section 4, figures 3 and 16",
        "in regime 3 angle(L, H) is within 0.1 rad of a right one, and all train barriers are >= 1 %",
        regime_3_is_orthogonal,
    ),
    Claim(
        "G5",
        "appendix, figures 20 and 23",
        "practical ResNet and ViT: the same pattern along PLR, no barrier in the middle",
        unmeasured("the practical networks"),
    ),
    Claim(
        "Y1",
        "section 5, figures 5 and 17",
        "after pre-training in regime 1 every sorted single-feature accuracy is within 10 pp of chance, and all features "
        "together reach >= 10 pp more than the best of them",
        all_features_count_in_1,
    ),
    Claim(
        "Y2",
        "section 5, figures 5 and 17",
        "at every PLR of 2A the best feature is >= 10 pp ahead of the second after pre-training, and no more than 1 pp "
        "less after fine-tuning at the lowest FLR and SWA of the largest K",
        one_feature_dominates_in_2a,
    ),
    Claim(
        "Y3",
        "section 5, figures 5 and 17",
        "in 2B and 3 no feature is 10 pp ahead after pre-training or fine-tuning at the lowest FLR, pre-training falls to "
        "within 1 pp of chance in 2B and stays there, and at the highest FLR of regime 1 one is ahead again at two PLRs "
        "or more",
        none_dominates_beyond,
    ),
    Claim(
        "Y4",
        "section 5, figure 15",
        "every curve of fine-tuning and SWA peaks in 2A (no other PLR exceeds it), and none exceeds SWA of the largest K",
        accuracy_peaks_in_2a,
    ),
    Claim(
        "Z1",
        "section 6, figures 7 and 18",
        "after pre-training, SWA and fine-tuning at the lowest and the highest FLR mid-band accuracy is best in 2A (no other "
        "PLR exceeds it) and is there above that of every other band",
        mid_band_peaks_in_2a,
    ),
    Claim(
        "Z2",
        "section 6, figures 7 and 18",
        "after pre-training at the smallest PLR the background or the low band is the best one, and from the last PLR of 2B "
        "on all bands are within 5 pp of chance",
        bands_lose_preference,
    ),
    *(
        Claim(name, source, criterion, unmeasured("the practical networks"))
        for name, source, criterion in (
            ("Z3", "section 6, figures 8 and 21", "practical ResNet: mid-band accuracy peaks in 2A"),
            ("Z4", "section 6, figures 8 and 24", "ViT: low and mid bands peak in 2A, the others stay at chance"),
            ("Z5", "appendix, figure 25", "Z4 does not hinge on where the low band ends"),
        )
    ),
    Claim(
        "H1",
        "appendix, figure 26",
        "pre-trainings of regime 1 at equal train loss: with PLR the mean gradient norm falls (rank correlation <= -0.9), and "
        "so does the test error",
        sharpness_falls_in_regime_1,
    ),
    Claim(
        "H2",
        "appendix, figure 26",
        "fine-tunings from regime 2 at equal train loss: mean gradient norm and test error have a rank correlation between "
        "-0.5 and 0.5",
        sharpness_does_not_tell_in_2,
    ),
)


def judge(study):
    """[{"claim", "verdict", "measured", "criterion", "source"}] for every claim, measured being a dictionary of numbers.

    Where a claim is not measurable, "missing" says why.
    """
    evidence = Evidence(study)
    return [judge_claim(claim, evidence) for claim in CLAIMS]


def judge_claim(claim, evidence):
    verdict = {"claim": claim.name, "verdict": NOT_MEASURABLE, "measured": {}}
    try:
        holds, measured = claim.check(evidence)
        verdict |= {"verdict": HOLDS if holds else FAILS, "measured": {k: plain(v) for k, v in measured.items()}}
    except NotMeasurable as missing:
        verdict["missing"] = str(missing)
    return verdict | {"criterion": claim.criterion, "source": claim.source}


def plain(value):
    return float(f"{value:.6g}") if isinstance(value, (float, np.floating)) else value


def verdict_line(verdict):
    """One line: claim, verdict, what was measured (or is missing), and the criterion with its source."""
    numbers = [f"{name} {text(value)}" for name, value in verdict["measured"].items()]
    found = verdict.get("missing") or ", ".join(numbers)
    return f"{verdict['claim']} {verdict['verdict']}: {found} | criterion: {verdict['criterion']} ({verdict['source']})"


def text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
