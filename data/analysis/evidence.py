"""What claims are judged by: the Evidence of a study, comparisons of accuracies, and @claim, which declares one.

Nothing here knows where regimes lie: their boundaries are measured (see regimes.py), and every criterion speaks of all
setups that the claim speaks of. The thresholds are this project's own. Accuracies are in percent and means over
runs; "pp" are percentage points; "best" is the highest mean. `A` exceeds `B` if its mean is higher by more than two
standard errors of the difference (of single runs: if it is higher).

    @claim("R9", "section 3, figure 1", "in regime 1 ...", kinds=["ticks"])
    def name_of_the_claim(e):
        return holds, {what was measured: number or text}
"""

import functools
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from data.analysis.regimes import is_worse, measure_regimes, meet_2a, standard_error
from data.analysis.study import features_of, final, geometry_of, late_mean, of_average

KINDS = {
    "ticks": "the synthetic study",
    "scale-invariant": "scale-invariant networks on images",
    "convolutional": "practical convolutional networks",
    "transformer": "transformers",
}


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

    def need(self, kinds):
        """Raise NotMeasurable where the study's network is of none of these kinds, which a claim is about."""
        if self.study.network["kind"] not in kinds:
            raise NotMeasurable(f"is about {' and '.join(KINDS[kind] for kind in kinds)}")

    def need_convergence(self):
        """Raise NotMeasurable where regime 1 is not that of runs that have converged, see regimes.converges()."""
        if self.study.network["converged"] is None:
            raise NotMeasurable("is about runs that have converged, which those of this network never do")

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
        """The PLRs of regime `1`, `2`, `2A`, `2B` or `3`. Raises NotMeasurable where its ends were not, or there is none.

        Of networks that do not diverge there is no regime 3, and regime 2 reaches to the end of the grid.
        """
        diverges = self.study.network["diverges"]
        if name == "3" and not diverges:
            raise NotMeasurable("regime 3: this network has none, as it does not diverge")
        end_of_2 = "b23" if diverges else None
        low, high = {
            "1": (None, "b12"),
            "2": ("b12", end_of_2),
            "2A": ("b12", "b2AB"),
            "2B": ("b2AB", end_of_2),
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


def peaks_in(e, inside, curves):
    """Whether nothing at other PLRs exceeds the best at these PLRs."""
    return not exceeds(best(curves, e.elsewhere(inside)).values, best(curves, inside).values)


def spearman(rates, values):
    """Rank correlation, 0 where all values are the same. Raises NotMeasurable for fewer than three."""
    if len(rates) < 3:
        raise NotMeasurable("three or more points are needed to see a trend")
    return float(spearmanr(rates, values).statistic) if np.ptp(values) > 0 else 0.0


class Claim(NamedTuple):
    """A claim of the paper: where it is made, in which words of ours it holds, and the function that judges it.

    check: Evidence -> (whether it holds, {what was measured: number or text}); raises NotMeasurable.
    """

    name: str
    source: str
    criterion: str
    kinds: Collection  # of the networks that it is about
    check: object


CLAIMS = []  # in order of definition


def claim(name, source, criterion, kinds=tuple(KINDS)):
    """A decorator that makes a function the check of a Claim."""

    def declare(check):
        CLAIMS.append(Claim(name, source, criterion, kinds, check))
        return check

    return declare
