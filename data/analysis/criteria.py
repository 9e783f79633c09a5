"""What the claims of the paper are made of: bounds on quantities, parts, and @claim, which declares a claim.

Nothing here knows where regimes lie: their boundaries are measured (see regimes.py), and every criterion speaks of all
setups that the claim speaks of. The thresholds are this project's own. Accuracies are in percent and means over runs;
"pp" are percentage points; "best" is the highest mean. What peaks in 2A is best there, and everywhere in 2A above its
average elsewhere. A claim consists of parts, each an Interval that is held against a Bound; it holds if all of them do, is
refuted if one is, and is undecided otherwise.

    @claim("R9", "section 3, figure 1", "in regime 1 ...", kinds=["ticks"])
    def name_of_the_claim(e):
        return [part("gain from the smallest PLR", at_least(2), (1, gains[plr])), ...]

e is the Evidence of a study, see evidence.py.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from data.analysis import intervals
from data.analysis.intervals import (
    FACTS,
    Interval,
    all_of,
    combination,
    difference,
    every,
    exceeds_all,
    opposite,
    some,
)

KINDS = {
    "ticks": "the synthetic study",
    "scale-invariant": "scale-invariant networks on images",
    "convolutional": "practical convolutional networks",
    "transformer": "transformers",
}
ON_IMAGES = [kind for kind in KINDS if kind != "ticks"]


class NotMeasurable(Exception):
    """These runs cannot tell; the message says what is missing."""


# ----------------------------------------------------------------------------------------------------- parts of claims


class Bound(NamedTuple):
    """What is asked of a quantity. decide: Interval -> decision; excess: estimate -> how far it is from being met."""

    decide: object
    excess: object


def above(margin):
    return Bound(lambda interval: intervals.above(interval, margin), lambda estimate: -estimate)


def at_least(margin):
    return Bound(lambda interval: opposite(intervals.below(interval, margin)), lambda estimate: -estimate)


def below(margin):
    return Bound(lambda interval: intervals.below(interval, margin), lambda estimate: estimate)


def at_most(margin):
    return Bound(lambda interval: opposite(intervals.above(interval, margin)), lambda estimate: estimate)


def within(margin, of=0):
    def decide(interval):
        return intervals.within(Interval(*(end - of for end in interval)), margin)

    return Bound(decide, lambda estimate: abs(estimate - of))


class Part(NamedTuple):
    """A part of a claim: its decision, or None of what is only told, and what was measured.

    value: an Interval, a number, a dictionary of numbers, or text.
    """

    name: str
    decision: object
    value: object


def part(name, bound, *terms):
    """One quantity: a linear combination [(weight, Sample)] of means."""
    interval = combination(terms)
    return Part(name, bound.decide(interval), interval)


def each(name, bound, combinations):
    """All of these combinations; that with the least favourable estimate is shown. Raises NotMeasurable for none."""
    worst = max(intervals_of(combinations), key=lambda found: excess(bound, found))
    return Part(name, every(bound.decide, combinations), worst)


def one_of(name, bound, combinations):
    """One of these combinations or more; that with the most favourable estimate is shown. Raises NotMeasurable for none."""
    found = min(intervals_of(combinations), key=lambda found: excess(bound, found))
    return Part(name, some(bound.decide, combinations), found)


def intervals_of(combinations):
    if not combinations:
        raise NotMeasurable("runs are missing")
    return [combination(terms) for terms in combinations]


def excess(bound, interval):
    return math.inf if math.isnan(interval.estimate) else bound.excess(interval.estimate)


def lead(name, samples, others, margin=0):
    """The highest mean of some settings over that of others, by more than a margin.

    The interval allows for the choice of the first, by which it HOLDS: it is simultaneous over `samples`.
    """
    interval = difference(max(samples, key=sample_mean), max(others, key=sample_mean), len(samples))
    return Part(name, exceeds_all(samples, others, margin), interval)


def trend(name, x, values, direction):
    found = intervals.trend(x, values, direction)
    return Part(name, found.decision, {"correlation": found.correlation, "p": found.p})


def fact(name, holds, value):
    return Part(name, FACTS[bool(holds)], value)


def told(name, value):
    return Part(name, None, value)


def sample_mean(sample):
    return sample.mean


# ----------------------------------------------------------------------------------------------------- parts of curves


def samples(curves, plrs):
    """The Samples of curves (Values) at these PLRs. Raises NotMeasurable where there are none."""
    curves, plrs = list(curves), list(plrs)
    found = [curve[plr] for curve in curves for plr in plrs if plr in curve]
    if not found:
        if not curves:
            raise NotMeasurable("fine-tuning or SWA is missing: finetune.py, swa.py")
        if not plrs:
            raise NotMeasurable("there are no PLRs elsewhere")
        curves[0].at(plrs)
    return found


def best_plr(curve, plrs):
    """The one of these PLRs with the highest mean."""
    return max(plrs, key=lambda plr: curve.means([plr])[0])


def peaks_in(e, name, inside, curves):
    """The Part that curves peak at these PLRs: the best there is above the best elsewhere, whose interval is shown, and
    every curve is at all of them above its average elsewhere (the best of 2 of 20 PLRs is the best by chance in 10 %).
    """
    outside = e.elsewhere(inside)
    found = lead(name, samples(curves, inside), samples(curves, outside))
    leads = leads_over_average(curves, inside, outside)
    return found._replace(decision=all_of([found.decision, every(above(0).decide, leads)]))


def leads_over_average(curves, plrs, others):
    """The lead of every curve at each of these PLRs over its average at the others, as combinations of Samples."""
    return [
        [(1, sample), *((-weight, other) for weight, other in average(samples([curve], others)))]
        for curve in curves
        for sample in samples([curve], plrs)
    ]


def average(found):
    """The mean over settings, as a combination of their Samples."""
    return [(1 / len(found), sample) for sample in found]


# -------------------------------------------------------------------------------------------------------------- claims


class Claim(NamedTuple):
    """A claim of the paper: where it is made, in which words of ours it holds, and the function that judges it.

    check: Evidence -> [Part]; raises NotMeasurable.
    """

    name: str
    source: str
    criterion: str
    kinds: Collection  # of the networks that it is about
    check: object

    @property
    def short(self):
        """The claim in a few words, those of the name of its check."""
        words = {"2a": "2A", "2b": "2B", "flr": "FLR", "flrs": "FLRs"}
        return " ".join(words.get(word, word) for word in self.check.__name__.split("_"))


CLAIMS = []  # in order of definition


def claim(name, source, criterion, kinds=tuple(KINDS)):
    """A decorator that makes a function the check of a Claim."""

    def declare(check):
        CLAIMS.append(Claim(name, source, criterion, kinds, check))
        return check

    return declare
