"""Claims about the accuracies of regimes: the main message, and pre-training. Terms: see criteria.py."""

import math

import numpy as np

from data.analysis import boundaries
from data.analysis.criteria import (
    ON_IMAGES,
    NotMeasurable,
    Part,
    above,
    at_least,
    at_most,
    below,
    claim,
    each,
    fact,
    lead,
    part,
    sample_mean,
    samples,
    told,
    trend,
)
from data.analysis.intervals import FALLING, RISING, Interval
from data.analysis.regimes import (
    converges,
    converging_plrs,
    late_part_of_earlier_loss,
    late_part_of_initial_loss,
    late_values,
)
from data.analysis.study import at_convergence, final

# ---------------------------------------------------------------------------------------------------- the main message

NARROW = 10  # b2AB / b12: one decade of the three or more that a sweep spans


@claim(
    "M1",
    "abstract, section 4, figures 2 and 15",
    "the best fine-tuning of 2A exceeds every fine-tuning from elsewhere, its best SWA every SWA from elsewhere, the better "
    "of them everything from elsewhere, and 2A is narrow: b2AB / b12 <= 10; refuted by something from elsewhere that is at "
    "least as good as all of 2A, by no 2A, or by a wide one",
)
def best_solutions_come_from_2a(e):
    if e.without_2a:
        return [Part("PLRs that meet the criterion of 2A", e.without_2a, 0)]
    inside, tuned, averaged = e.regime("2A"), list(e.finetuned.values()), list(e.averaged.values())
    solutions, elsewhere = samples([*tuned, *averaged], inside), e.elsewhere(inside)
    others = samples([e.pretrained, *tuned, *averaged], elsewhere)
    width = Interval(*boundaries.width_of_2a(e.numbers))
    return [
        told("best fine-tuned in 2A", max(samples(tuned, inside), key=sample_mean).mean),
        told("best averaged in 2A", max(samples(averaged, inside), key=sample_mean).mean),
        told("best elsewhere", max(others, key=sample_mean).mean),
        lead("lead of 2A, fine-tuned", samples(tuned, inside), samples(tuned, elsewhere)),
        lead("averaged", samples(averaged, inside), samples(averaged, elsewhere)),
        lead("of the better over everything", solutions, others),
        Part("b2AB / b12", at_most(NARROW).decide(width), width),
    ]


# --------------------------------------------------------------------------------------------------------- the regimes


@claim(
    "R1",
    "section 3, figure 1",
    "in regime 1, from the first PLR at which half of the runs converge (see 1|2), half of them do at every PLR; of those "
    "that have, test accuracy after pre-training grows with PLR (ranks, by permutation), and varies by a std < 0.5 pp "
    "within the last tenth of a run (pooled over runs) at every PLR; refuted by a gap, a falling accuracy, or a larger std",
)
def regime_1_converges(e):
    e.need_convergence()
    plrs, first = e.regime("1"), converging_plrs(e.study)[0]
    accuracy = e.accuracy("pretrain", e.of_converged(final("test_accuracy")), every_seed=True)
    of_converged = [plr for plr in plrs if plr in accuracy]
    shares = e.percent("pretrain", lambda run, index: converges(e.study, run, index), every_seed=True)
    variances = e.values("pretrain", e.of_converged(late_variance), every_seed=True).at(of_converged)
    return [
        told("converges from PLR", first),
        each(
            "smallest part of runs that do, from there on",
            at_least(50),
            [[(1, sample)] for sample in shares.at([plr for plr in plrs if plr >= first])],
        ),
        trend("rank correlation", of_converged, accuracy.means(of_converged), RISING),
        root(each("largest std", below(0.5**2), [[(1, sample)] for sample in variances])),
    ]


def late_variance(run, index):
    """The variance of test accuracy within the last tenth of a run, in pp^2; unbiased, as few steps may be logged."""
    accuracies = late_values(run.metrics, "test_accuracy", index)
    if len(accuracies) < 2:
        raise NotMeasurable("the last tenth of the runs holds one logged step: see --log-every")
    return 100**2 * accuracies.var(ddof=1)


def root(found):
    """A Part about variances, with standard deviations as its interval."""
    return found._replace(value=Interval(*(math.sqrt(max(end, 0)) for end in found.value)))


@claim(
    "R2",
    "section 3, figure 1",
    "in regime 2 test accuracy over the last tenth falls with PLR (ranks, by permutation), and at every PLR it varies by "
    "a std >= 2 pp within that tenth, and train loss keeps at least 95 % of its value from the tenth before; refuted by a "
    "growing accuracy, a smaller std, or a loss that goes on falling",
)
def regime_2_stays_noisy(e):
    plrs = e.regime("2")
    variances, kept = (
        e.values("pretrain", value, every_seed=True) for value in (late_variance, part_of_loss_that_stays)
    )
    return [
        trend("rank correlation", plrs, e.late_accuracy.means(plrs), FALLING),
        root(each("smallest std", at_least(2**2), [[(1, sample)] for sample in variances.at(plrs)])),
        each("smallest part of the loss that stays", at_least(0.95), [[(1, sample)] for sample in kept.at(plrs)]),
    ]


def part_of_loss_that_stays(run, index):
    found = late_part_of_earlier_loss(run.metrics, index)
    if found is None:
        raise NotMeasurable("the tenth before the last of the runs holds no logged step: see --log-every")
    return found


@claim(
    "R3",
    "section 3, figure 1",
    "by definition of 2|3: in regime 3 mean test accuracy is within 1 pp, or three binomial standard errors if that is "
    "more, of chance, and train loss is at least half of its initial value; refuted only by accuracies below chance, or by a "
    "loss beside ones that are not finite",
    kinds=["ticks", "scale-invariant"],
)
def regime_3_is_at_chance(e):
    plrs = e.regime("3")
    farthest = max(abs(e.late_accuracy.means(plrs) - e.chance))
    of_initial = e.values(
        "pretrain", lambda run, index: late_part_of_initial_loss(run.metrics, index), every_seed=True
    )
    kept, margin = of_initial.means(plrs), e.chance_margin(e.late_accuracy.at(plrs))
    return [
        fact("farthest from chance", farthest <= margin + boundaries.ROUNDING, float(farthest)),
        fact("smallest loss / initial loss", min(kept) >= boundaries.CHANCE_LOSS, float(min(kept))),
    ]


@claim(
    "R5",
    "appendix, figure 11",
    "from the fastest learning rate up to 1|2 the logarithm of epochs to convergence rises, in its upper half more "
    "steeply than in its lower, to three times the fewest epochs or more; accuracy at convergence grows with the rate "
    "(ranks, by permutation), and all of it is below the best fine-tuned from 2A; refuted where one of these is not so",
    kinds=ON_IMAGES,
)
def convergence_slows_down(e):
    def log_of_epochs(run, index):
        epochs = at_convergence("step")(run, index)
        return epochs and math.log(epochs)

    epochs, accuracy = e.values("converge", log_of_epochs), e.accuracy("converge", at_convergence("test_accuracy"))
    if not epochs:
        raise NotMeasurable("no runs that train until they converge: scripts/boundary.sh")
    lrs = list(epochs)
    slower = lrs[int(np.argmin(epochs.means(lrs))) :]  # smaller learning rates are slow for another reason
    if len(slower) < 4:
        raise NotMeasurable("four or more learning rates are needed from the fastest one up to the boundary")
    middle, logs = len(slower) // 2, epochs.at(slower)
    lower, upper = (slope(slower[half], logs[half]) for half in (slice(middle + 1), slice(middle, None)))
    steeper = [*upper, *((-weight, sample) for weight, sample in lower)]
    return [
        told("fewest epochs", math.exp(logs[0].mean)),
        told("at the largest rate", math.exp(logs[-1].mean)),
        part("log of their ratio", at_least(math.log(3)), (1, logs[-1]), (-1, logs[0])),
        part("slope of log epochs in the lower half", above(0), *lower),
        part("how much steeper in the upper", above(0), *steeper),
        trend("rank correlation of accuracy", lrs, accuracy.means(lrs), RISING),
        lead(
            "lead of the best fine-tuned from 2A",
            samples(e.finetuned.values(), e.regime("2A")),
            samples([accuracy], lrs),
        ),
    ]


def slope(x, found):
    """The least-squares slope of means over x as a combination of Samples."""
    away = np.array(x) - np.mean(x)
    return list(zip(away / (away @ away), found))
