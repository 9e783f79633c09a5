"""Claims about solutions: their geometry, and features of the synthetic data. Terms: see criteria.py."""

import numpy as np

from data.analysis.criteria import (
    NotMeasurable,
    Part,
    above,
    at_least,
    at_most,
    average,
    best_plr,
    claim,
    each,
    lead,
    one_of,
    part,
    peaks_in,
    sample_mean,
    samples,
    told,
    trend,
    within,
)
from data.analysis.intervals import RISING, any_of, combination
from data.analysis.study import GEOMETRY_PAIRS

# ------------------------------------------------------------------------------------------------------------ geometry

NO_BARRIER, LARGE_BARRIER = 0.1, 1.0  # percent
LARGE_ANGLE = 1.2  # radians; three quarters of a right one
BARRIERS = ("train_barrier", "test_barrier")


@claim(
    "G1",
    "section 4, figures 3 and 16",
    "regime 1 above the jump (see F2): all train barriers are at most 0.1 % at every PLR, and the angles of L and S to H, "
    "averaged over PLRs, are at most a quarter of those below the jump, where the train barrier between L and H is at least "
    "1 % at every PLR; refuted by a barrier above, by larger angles, or by a smaller barrier below",
    kinds=["ticks", "scale-invariant"],
)
def regime_1_is_one_basin_above_the_jump(e):
    before, beyond = e.jump()
    if not beyond:
        raise NotMeasurable("the gain of the high FLR does not fall to half within regime 1")
    found = [sample for pair in GEOMETRY_PAIRS for sample in e.geometry("train_barrier", pair).at(beyond)]
    parted = [[(1, sample)] for sample in e.geometry("train_barrier", "LH").at(before)]
    parts = [
        each("above the jump: largest train barrier", at_most(NO_BARRIER), [[(1, sample)] for sample in found]),
        each("below it: smallest train barrier(L, H)", at_least(LARGE_BARRIER), parted),
    ]
    for pair, name in (("LH", "angle(L, H)"), ("SH", "angle(S, H)")):
        angle = e.geometry("angle", pair)
        above_it, below_it = average(angle.at(beyond)), average(angle.at(before))
        quarter = [(-weight / 4, sample) for weight, sample in below_it]
        parts += [
            told(f"{name} above", float(np.mean(angle.means(beyond)))),
            told(f"{name} below", float(np.mean(angle.means(before)))),
            part(f"{name} above, less a quarter of that below", at_most(0), *above_it, *quarter),
        ]
    return parts


@claim(
    "G2",
    "section 4, figures 3 and 16",
    "at the first and the middle PLR of 2A the train and the test barrier between L and H are at most 0.1 %, or a fifth of "
    "the largest in 2B if that is more, and angle(L, H) is smaller than everywhere in 2B, but larger than at the end of "
    "regime 1; refuted by a larger barrier, or an angle that is not between",
    kinds=["ticks", "scale-invariant"],
)
def no_barrier_in_2a(e):
    inside, outside, parts = dict.fromkeys([e.regime("2A")[0], e.middle_of_2a]), e.regime("2B"), []
    for quantity in BARRIERS:
        barrier = e.geometry(quantity, "LH")
        largest, name = max(barrier.at(outside), key=sample_mean), quantity.replace("_", " ")
        for plr, sample in zip(inside, barrier.at(inside)):
            nothing, fifth = part("", at_most(NO_BARRIER), (1, sample)), [(1, sample), (-1 / 5, largest)]
            small = any_of([nothing.decision, at_most(0).decide(combination(fifth))])
            parts.append(Part(f"{name} at {plr:.3g}", small, nothing.value))
        parts.append(told(f"largest {name} in 2B", largest.mean))
    angle = e.geometry("angle", "LH")
    pairs = [[(1, other), (-1, sample)] for sample in angle.at(inside) for other in angle.at(outside)]
    [at_b12] = angle.at(e.regime("1")[-1:])
    return [
        *parts,
        each("least angle(L, H) of 2B - largest of these", above(0), pairs),
        each(
            "smallest of these - angle(L, H) at b12", above(0), [[(1, s), (-1, at_b12)] for s in angle.at(inside)]
        ),
    ]


@claim(
    "G3",
    "section 4, figures 3 and 16",
    "from the last PLR of 2A on through 2B angle(L, H) and its train barrier grow with PLR (ranks, by permutation), up to "
    "1.2 rad and 1 % or more; refuted where they shrink, or stay smaller",
    kinds=["ticks", "scale-invariant"],
)
def barriers_grow_in_2b(e):
    plrs, parts = e.regime("2A")[-1:] + e.regime("2B"), []
    for quantity, least in (("angle", LARGE_ANGLE), ("train_barrier", LARGE_BARRIER)):
        found, name = e.geometry(quantity, "LH").at(plrs), quantity.replace("_", " ")
        parts.append(trend(f"rank correlation of the {name}", plrs, [sample.mean for sample in found], RISING))
        parts.append(part(f"{name} at the end", at_least(least), (1, found[-1])))
    return parts


@claim(
    "G4",
    "section 4, figures 3 and 16",
    "at every PLR of regime 3 angle(L, H) is at least 1.2 rad, and the train barriers of all pairs are at least 1 %; "
    "refuted by a smaller angle or barrier",
    kinds=["ticks", "scale-invariant"],
)
def regime_3_is_orthogonal(e):
    plrs = e.regime("3")
    found = [sample for pair in GEOMETRY_PAIRS for sample in e.geometry("train_barrier", pair).at(plrs)]
    return [
        each(
            "smallest angle(L, H)", at_least(LARGE_ANGLE), [[(1, s)] for s in e.geometry("angle", "LH").at(plrs)]
        ),
        each("smallest train barrier", at_least(LARGE_BARRIER), [[(1, sample)] for sample in found]),
    ]


WEAK_BARRIER = 0.5  # percent; the paper's pattern is a weaker one in practical networks


@claim(
    "G5",
    "appendix, figures 20 and 23",
    "in 2A no train or test barrier between L and H is above 0.1 %, at some other PLR one is 0.5 % or more, and angle(L, H) "
    "is at every PLR of 2A smaller than at the smallest and at the largest PLR, and than on average elsewhere; refuted "
    "where one of these is not so",
    kinds=["convolutional", "transformer"],
)
def practical_networks_show_the_pattern(e):
    inside, angle = e.regime("2A"), e.geometry("angle", "LH")
    of_2a, elsewhere = (
        [[(1, sample)] for quantity in BARRIERS for sample in e.geometry(quantity, "LH").at(plrs)]
        for plrs in (inside, e.elsewhere(inside))
    )
    ends = angle.at([e.plrs[0], e.plrs[-1]])
    beyond = [[(1, ends[0])], [(1, ends[1])], average(angle.at(e.elsewhere(inside)))]
    pairs = [[*terms, (-1, sample)] for sample in angle.at(inside) for terms in beyond]
    return [
        each("largest barrier(L, H) in 2A", at_most(NO_BARRIER), of_2a),
        one_of("elsewhere", at_least(WEAK_BARRIER), elsewhere),
        told("largest angle(L, H) in 2A", max(angle.means(inside))),
        told("at the smallest PLR", ends[0].mean),
        told("at the largest", ends[1].mean),
        each("least of these, and of the average elsewhere, - largest in 2A", above(0), pairs),
    ]


# -------------------------------------------------------------------------------------- features of the synthetic data


@claim(
    "Y1",
    "section 5, figures 5 and 17",
    "after pre-training at PLRs up to half of b12 the best and the worst single-feature accuracy of a run are within 10 pp "
    "of chance, and all features together reach at least 10 pp more than the best; refuted where one of these is not so",
    kinds=["ticks"],
)
def all_features_count_in_1(e):
    plrs = [plr for plr in e.regime("1") if plr <= e.regime("1")[-1] / 2]
    if not plrs:
        raise NotMeasurable("no PLR lies below half of b12")
    first, last = (e.features(rank, "pretrain").at(plrs) for rank in (0, -1))
    leads = [[(1, sample), (-1, best)] for sample, best in zip(e.pretrained.at(plrs), first)]
    return [
        each(
            "single-feature accuracy farthest from chance",
            within(10, of=e.chance),
            [[(1, s)] for s in first + last],
        ),
        each("least lead of all features", at_least(10), leads),
    ]


def middle_of(found):
    """The Sample with the median mean, the lower one of two."""
    return sorted(found, key=sample_mean)[(len(found) - 1) // 2]


@claim(
    "Y2",
    "section 5, figures 5 and 17",
    "after pre-training the best feature's lead over the second peaks in 2A, is there at least three times its median over "
    "regime 1, and not smaller (1 pp of slack) after fine-tuning at the lowest FLR and SWA of the largest K; refuted "
    "where one of these is not so",
    kinds=["ticks"],
)
def one_feature_dominates_in_2a(e):
    before = e.dominance("pretrain")
    best = best_plr(before, e.regime("2A"))
    [largest], regime_1 = before.at([best]), middle_of(before.at(e.regime("1")))
    [tuned] = e.dominance("finetune", "checkpoint", e.flrs[0]).at([best])
    [averaged] = e.dominance("swa", f"swa-{e.windows[-1]}").at([best])
    return [
        told("largest lead in 2A", largest.mean),
        told("median lead in regime 1", regime_1.mean),
        peaks_in(e, "lead in 2A - lead elsewhere", e.regime("2A"), [before]),
        part("lead - three times regime 1's", at_least(0), (1, largest), (-3, regime_1)),
        part("change by fine-tuning", at_least(-1), (1, tuned), (-1, largest)),
        part("change by SWA", at_least(-1), (1, averaged), (-1, largest)),
    ]


@claim(
    "Y3",
    "section 5, figures 5 and 17",
    "from the second PLR of 2B on through regime 3 the best feature's lead after pre-training and after the lowest FLR is "
    "at most a quarter of its largest in 2A after pre-training, while it is at least half of that at every PLR of 2A, and "
    "again after the highest FLR of regime 1 at one PLR or more beyond; refuted by a larger lead there, by a smaller one in "
    "2A, or where none comes back",
    kinds=["ticks"],
)
def none_dominates_beyond(e):
    plrs = e.regime("2B")[1:] + e.regime("3")
    before, low = e.dominance("pretrain"), e.dominance("finetune", "checkpoint", e.flrs[0])
    largest = max(before.at(e.regime("2A")), key=sample_mean)
    again = e.dominance("finetune", "checkpoint", e.high_flr).at(plrs)
    inside = [[(1, sample), (-1 / 2, largest)] for sample in before.at(e.regime("2A"))]
    small = [[(1, sample), (-1 / 4, largest)] for curve in (before, low) for sample in curve.at(plrs)]
    return [
        told("largest lead in 2A", largest.mean),
        each("smallest lead in 2A, less half of it", at_least(0), inside),
        each("largest lead beyond, less a quarter of it", at_most(0), small),
        one_of(
            "after the highest FLR, less half of it", at_least(0), [[(1, s), (-1 / 2, largest)] for s in again]
        ),
    ]


@claim(
    "Y4",
    "section 5, figure 15",
    "every curve of fine-tuning and SWA peaks in 2A, and the best SWA of K >= 10 exceeds all fine-tuning and all SWA of "
    "fewer weights; refuted by a curve that is at least as good elsewhere, or by a solution that is as good as that SWA",
    kinds=["ticks"],
)
def accuracy_peaks_in_2a(e):
    inside = e.regime("2A")
    curves = {f"FLR {flr:.3g}": curve for flr, curve in e.finetuned.items()}
    curves |= {f"SWA-{window}": curve for window, curve in e.averaged.items()}
    fewer = [curve for window, curve in e.averaged.items() if window < 10]
    others = samples([*e.finetuned.values(), *fewer], e.plrs)
    return [
        *(peaks_in(e, f"{name}: lead of 2A", inside, [curve]) for name, curve in curves.items()),
        lead("lead of SWA of K >= 10", samples(e.many, e.plrs), others),
    ]
