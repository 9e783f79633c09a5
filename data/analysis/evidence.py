"""What claims are judged by: the Evidence of a study, the values of its runs by PLR and the regimes that they lie in.

Runs are independent, but for several data seeds (on ticks), whose runs share data: these are the groups of samples.
What independent runs vary by is pooled over the PLRs of a regime, as those of regime 2 vary more than those of regime 1;
but for geometry, see there.
"""

import contextlib
import functools
import math

import numpy as np

from data.analysis import boundaries, intervals
from data.analysis.criteria import KINDS, NotMeasurable
from data.analysis.explanations import TITLES, why_open
from data.analysis.intervals import (
    REFUTED,
    UNDECIDED,
    RunStd,
    Sample,
    run_std,
)
from data.analysis.pairing import title
from data.analysis.regimes import converges, measure_regimes, meet_2a, run_numbers
from data.analysis.study import GEOMETRY_WINDOW, features_of, final, geometry_of, late_mean, of_average

SCRIPTS = {"pretrain": "train.py", "converge": "scripts/boundary.sh", "finetune": "finetune.py", "swa": "swa.py"}


class Values(dict):
    """{PLR: Sample of the runs}. lacking: what to say of PLRs without any, and fix: the command that makes it."""

    lacking, fix = "runs are missing", None

    def at(self, plrs):
        """The Samples at these PLRs. Raises NotMeasurable where there are no runs."""
        missing = [plr for plr in plrs if plr not in self]
        if missing:
            fix = f": {self.fix}" if self.fix else ""
            raise NotMeasurable(f"{self.lacking}, for one at PLR {missing[0]:.3g}{fix}")
        return [self[plr] for plr in plrs]

    def told_as(self, lacking, fix):
        """The same, with what to say of PLRs that are missing."""
        self.lacking, self.fix = lacking, fix
        return self

    def means(self, plrs):
        """Means over runs at these PLRs. Raises NotMeasurable where there are no runs."""
        return np.array([sample.mean for sample in self.at(plrs)])


class Evidence:
    """What a study's runs say, in the terms of the claims.

    std: the standard deviation of a run's test accuracy, in pp, where it is known otherwise than from repeats.
    regimes: boundaries instead of those that the study's runs give.
    """

    def __init__(self, study, std=None, regimes=None):
        self.study, self.std = study, std
        self.regimes = regimes or measure_regimes(study)
        self.numbers = run_numbers(study)
        self.chance = 100 / study.settings["classes"]
        self.pretrained = self.accuracy("pretrain", final("test_accuracy"))
        self.late_accuracy = self.accuracy("pretrain", late_mean("test_accuracy"), every_seed=True)
        self.plrs = list(self.pretrained)
        self.finetuned = {flr: self.accuracy("finetune", final("test_accuracy"), flr) for flr in study.flrs()}
        self.averaged = {window: self.accuracy("swa", of_average(window)) for window in study.windows()}

    def need(self, kinds):
        """Raise NotMeasurable where the study's network is of none of these kinds, which a claim is about."""
        if self.study.network["kind"] not in kinds:
            raise NotMeasurable(f"is about {' and '.join(KINDS[kind] for kind in kinds)}")

    def need_convergence(self):
        """Raise NotMeasurable where regime 1 is not that of runs that have converged, see regimes.converges()."""
        if self.study.network["converged"] is None:
            raise NotMeasurable("is about runs that have converged, which those of this network never do")

    # ------------------------------------------------------------------------------------------------- values of runs

    def values(self, stage, value, *later_lrs, scale=1, std=None, every_seed=False):
        """Values as Study.by_plr() gives, times `scale`, but for those that are not finite, of members that diverged."""
        by_plr = self.study.by_plr(stage, self.with_group(value), *later_lrs, every_seed=every_seed)
        return self.sampled(by_plr, scale, std).told_as(f"{title(stage, *later_lrs)} is missing", SCRIPTS[stage])

    def with_group(self, value):
        """A function (run, member index) -> (group, value), None where the value is."""

        def grouped(run, index):
            found = value(run, index)
            return None if found is None else (run.members[index].get("data_seed"), found)

        return grouped

    def sampled(self, by_plr, scale=1, std=None, ends=None):
        """Values of {PLR: [(group, value)]}; their noise is pooled up to every one of these PLRs, by default by regime."""
        values = Values()
        for plr, runs in by_plr.items():
            finite = [(group, scale * float(value)) for group, value in runs if math.isfinite(value)]
            if finite:
                groups, numbers = zip(*finite)
                values[plr] = Sample(numbers, groups if self.numbers.shared else None)
        if not self.numbers.shared:
            alike, ends = {}, self.ends("b12", "b23") if ends is None else ends
            for plr, sample in values.items():
                alike.setdefault(sum(plr > end for end in ends), []).append(sample)
            for of_these in alike.values():
                noise = RunStd(std) if std else run_std(of_these)
                for sample in of_these:
                    sample.noise = noise
        return values

    def ends(self, *names):
        """The last PLRs below these boundaries, as far as they are bracketed."""
        return [self.regimes[name]["last"] for name in names if self.regimes[name]]

    def accuracy(self, stage, value, *later_lrs, every_seed=False):
        """Test accuracies, whose std may be given."""
        return self.values(stage, value, *later_lrs, scale=100, std=self.std, every_seed=every_seed)

    def percent(self, stage, value, *later_lrs, every_seed=False):
        """Other fractions."""
        return self.values(stage, value, *later_lrs, scale=100, every_seed=every_seed)

    def measured(self, what, command, stage, value, *later_lrs):
        """Other fractions of a stage, as a command of analyze.py measures them. Raises NotMeasurable where there are none."""
        values = self.percent(stage, value, *later_lrs)
        if not values:
            if not self.study.by_plr(stage, lambda run, index: True, *later_lrs):
                raise NotMeasurable(f"{title(stage, *later_lrs)} is missing: {SCRIPTS[stage]}")
            raise NotMeasurable(f"{what} are not measured after {title(stage, *later_lrs)}: {command}")
        return values.told_as(f"{what} are not measured after {title(stage, *later_lrs)}", command)

    def change(self, stage, value, *later_lrs, converged=False):
        """Changes of test accuracy (value: a function of a run that continues one) since the end of pre-training.

        converged: only of runs that had converged by then.
        """
        before = final("test_accuracy")

        def changed(run, index):
            parent, found = self.study.parent(run), value(run, index)
            if parent is None or found is None or (converged and not converges(self.study, parent, index)):
                return None
            # Not finite ones are skipped, as everywhere.
            return math.nan if before(parent, index) is None else found - before(parent, index)

        std = self.std and self.std * math.sqrt(2)
        return self.values(stage, changed, *later_lrs, scale=100, std=std)

    def finetuning_change(self, flr, converged=False):
        return self.change("finetune", final("test_accuracy"), flr, converged=converged)

    def of_converged(self, value):
        """The same function, None of pre-trained members that have not converged."""
        return lambda run, index: value(run, index) if converges(self.study, run, index) else None

    def at(self, value, lrs):
        """The Sample of accuracies of the runs whose stages had these learning rates, or None where there are none."""
        return self.sample_of(self.study.at(self.with_group(value), lrs))

    def sample_of(self, runs):
        """The Sample of accuracies [(group, fraction)]."""
        return self.sampled({0: runs}, scale=100, std=self.std).get(0)

    # -------------------------------------------------------------------------------------------- regimes, FLRs, windows

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
                raise NotMeasurable(f"regime {name}: its boundary {TITLES[end]} is {why_open(self.study, end)}")
        first = self.regimes[low]["next"] if low else 0
        last = self.regimes[high]["last"] if high else np.inf
        found = [plr for plr in self.plrs if first <= plr <= last]
        if not found:
            raise NotMeasurable(f"regime {name} has no PLR")
        return found

    @functools.cached_property
    def without_2a(self):
        """The decision on claims about 2A where no PLR meets its criterion, or None: it may be that there is none."""
        meets = meet_2a(self.study, self.plrs, self.regimes["b12"], self.regimes["b23"])
        if not meets or any(meets.values()):
            return None
        share = boundaries.share_without_2a(self.numbers)
        return REFUTED if share is not None and share >= 1 - intervals.TAIL else UNDECIDED

    @property
    def middle_of_2a(self):
        """The lower one of two."""
        inside = self.regime("2A")
        return inside[(len(inside) - 1) // 2]

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
    def many(self):
        """Accuracies of SWA of 10 weights or more: Values each. Raises NotMeasurable."""
        found = [self.averaged[window] for window in self.windows if window >= 10]
        if not found:
            raise NotMeasurable("no SWA of 10 or more weights")
        return found

    @property
    def high_flr(self):
        """The largest FLR that converges by itself, that is, of regime 1. Raises NotMeasurable."""
        converging = [flr for flr in self.flrs if flr <= self.regime("1")[-1]]
        if not converging:
            raise NotMeasurable("no FLR lies in regime 1")
        return converging[-1]

    def larger_flrs(self, plr):
        return [flr for flr in self.flrs if plr < flr <= self.regime("1")[-1]]

    def elsewhere(self, plrs):
        return [plr for plr in self.plrs if plr not in plrs]

    def chance_margin(self, of_runs):
        """How far from chance, in pp, the mean of any of these Samples still counts as at chance, see intervals.py."""
        runs = min(len(sample.values) for sample in of_runs)
        return intervals.chance_margin(self.chance, (self.numbers.test_samples or math.inf) * runs)

    # --------------------------------------------------------------------------------------------------- measurements

    def geometry(self, quantity, pair, counts=lambda run, index: True):
        """Angles (radians) or barriers (percent) between solutions fine-tuned at the lowest and the highest FLR.

        Of the runs of a data seed it is the median, as barriers have long tails. Noise is pooled between the jump and the
        boundaries, 2A|2B as well: on one side of each barriers are large and vary, on the other side there are none.
        counts: function (run, member index) -> whether a pre-trained member is among them.
        """
        value = self.with_group(geometry_of(self.flrs[0], self.flrs[-1], quantity, pair))
        by_plr = self.study.by_plr(
            "pretrain", lambda run, index: value(run, index) if counts(run, index) else None
        )
        if self.numbers.shared:
            by_plr = {plr: medians(runs) for plr, runs in by_plr.items()}
        if not by_plr:
            averaged = GEOMETRY_WINDOW in self.study.windows()
            needs = "" if averaged else f", which needs SWA of {GEOMETRY_WINDOW} weights: swa.py --windows"
            raise NotMeasurable(f"their geometry is not measured: analyze.py geometry{needs}")
        ends = self.ends("b12", "b2AB", "b23")
        with contextlib.suppress(NotMeasurable):
            ends.append(self.jump()[0][-1])
        return self.sampled(by_plr, ends=ends).told_as("geometry is not measured", "analyze.py geometry")

    def features(self, rank, stage, solution="checkpoint", *later_lrs):
        """The balanced accuracy by the single feature of this rank, 0 the best and -1 the worst, in percent."""
        return self._of_features(lambda accuracies: accuracies[rank], stage, solution, *later_lrs)

    def dominance(self, stage, solution="checkpoint", *later_lrs):
        """By how much the best feature of a run is ahead of its second, in pp."""
        return self._of_features(lambda accuracies: accuracies[0] - accuracies[1], stage, solution, *later_lrs)

    def _of_features(self, number, stage, solution, *later_lrs):
        """A number of the single-feature accuracies of a run, best first."""
        of_run = features_of(solution)

        def value(run, index):
            accuracies = of_run(run, index)
            return accuracies and number(accuracies)

        return self.measured("features", "analyze.py features", stage, value, *later_lrs)

    @functools.cached_property
    def gains(self):
        """{PLR: Sample of changes of accuracy by the high FLR} for the PLRs below it. Raises NotMeasurable."""
        plrs = [plr for plr in self.regime("1") if plr < self.high_flr]
        if not plrs:
            raise NotMeasurable("no PLR lies below the high FLR")
        return dict(zip(plrs, self.finetuning_change(self.high_flr).at(plrs)))

    def jump(self):
        """(PLRs of regime 1 below the jump, PLRs above it); it lies above the last to gain half of the largest gain.

        Raises NotMeasurable where no PLR gains.
        """
        gains, plrs = {plr: sample.mean for plr, sample in self.gains.items()}, self.regime("1")
        if max(gains.values()) <= 0:
            raise NotMeasurable("fine-tuning at the high FLR gains from no PLR of regime 1")
        last = max(plr for plr, gain in gains.items() if gain >= max(gains.values()) / 2)
        return [plr for plr in plrs if plr <= last], [plr for plr in plrs if plr > last]


def medians(runs):
    """[(group, median)] of [(group, value)]."""
    groups = dict.fromkeys(group for group, _ in runs)
    return [(name, float(np.median([value for group, value in runs if group == name]))) for name in groups]
