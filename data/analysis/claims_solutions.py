"""Claims about solutions: their geometry, features, frequency bands and sharpness. Terms: see evidence.py."""

import numpy as np

from data.analysis import intervals
from data.analysis.evidence import (
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
from data.analysis.intervals import FALLING, RISING, all_of, any_of, combination
from data.analysis.series import low_ends, sharpness_points
from data.analysis.study import GEOMETRY_PAIRS, of_measurement
from data.bands import BESIDE_LOW_END, NORMALISATIONS, default_normalisation
from data.runs import bands_name, low_ends_name

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


# ----------------------------------------------------------------------------------------------------- frequency bands


def band_accuracy(e, normalisation, band, stage, *later_lrs):
    """Accuracies (Values, percent) on a band by a normalisation, after a stage."""
    value = of_measurement(bands_name(normalisation), "accuracy", band)
    return e.measured("accuracies on frequency bands", "analyze.py bands", stage, value, *later_lrs)


ALL_BANDS = ("background", "low", "mid", "high")
# What is at chance: no network tells much from the high band. The background is each image's mean colour, and that alone
# tells some classes from others.
FROM_CHANCE = {"high": 5, "background": 10, "low": 5, "mid": 5}  # pp


def band_stages(e):
    """The stages that claims about bands speak of, by name, as band_accuracy() takes them."""
    return {"pre-training": ("pretrain",), "SWA": ("swa",), "the lowest FLR": ("finetune", e.flrs[0])}


@claim(
    "Z1",
    "section 6, figures 7 and 18",
    "after pre-training, SWA and fine-tuning at the lowest and the highest FLR mid-band accuracy peaks in 2A, and at its "
    "best is above that of every other band; judged by the default normalisation, others beside it; refuted where mid-band "
    "accuracy is as high elsewhere, or another band's there",
    kinds=["scale-invariant"],
)
def mid_band_peaks_in_2a(e):
    default = default_normalisation(e.study.network)
    parts = mid_band_parts(e, default)
    for normalisation in NORMALISATIONS:
        if normalisation != default:
            try:
                others = mid_band_parts(e, normalisation)
                verdict = all_of(found.decision for found in others)
            except NotMeasurable:
                verdict = "not measured"
            parts.append(told(f"by {normalisation}", verdict))
    return parts


def mid_band_parts(e, normalisation):
    inside, parts = e.regime("2A"), []
    for name, stage in (band_stages(e) | {"the highest FLR": ("finetune", e.flrs[-1])}).items():
        mid = band_accuracy(e, normalisation, "mid", *stage)
        top = best_plr(mid, inside)
        others = [
            band_accuracy(e, normalisation, band, *stage).at([top])[0] for band in ALL_BANDS if band != "mid"
        ]
        parts.append(peaks_in(e, f"{name}: lead of 2A on the mid band", inside, [mid]))
        parts.append(each(f"{name}: lead over other bands", above(0), [[(1, mid[top]), (-1, o)] for o in others]))
    return parts


@claim(
    "Z2",
    "section 6, figures 7 and 18",
    "after pre-training at the smallest PLR the background or the low band is the best one, and from the last PLR of 2B on "
    "all bands are at chance: within 5 pp, the background, which is the mean colour, within 10 pp; refuted by another best "
    "band, or one that tells more",
    kinds=["scale-invariant"],
)
def bands_lose_preference(e):
    smallest, beyond = e.plrs[:1], e.regime("2B")[-1:] + e.regime("3")
    default = default_normalisation(e.study.network)
    reached = {band: band_accuracy(e, default, band, "pretrain") for band in ALL_BANDS}
    lower, higher = (samples([reached[band] for band in of], smallest) for of in (ALL_BANDS[:2], ALL_BANDS[2:]))
    parts = [lead("lead of the better at the smallest PLR", lower, higher)]
    for band, values in reached.items():
        bound = within(FROM_CHANCE[band], of=e.chance)
        parts.append(each(f"accuracy farthest from chance: {band}", bound, [[(1, s)] for s in values.at(beyond)]))
    return parts


@claim(
    "Z3",
    "section 6, figures 8 and 21",
    "after pre-training, SWA and fine-tuning at the lowest FLR mid-band accuracy peaks in 2A; refuted where it is as high "
    "elsewhere",
    kinds=["convolutional"],
)
def mid_band_of_practical_networks_peaks_in_2a(e):
    inside, default, parts = e.regime("2A"), default_normalisation(e.study.network), []
    for name, stage in band_stages(e).items():
        mid = band_accuracy(e, default, "mid", *stage)
        parts.append(told(f"{name}: best PLR", best_plr(mid, list(mid))))
        parts.append(peaks_in(e, f"{name}: lead of 2A on the mid band", inside, [mid]))
    return parts


@claim(
    "Z4",
    "section 6, figures 8 and 24",
    "after pre-training, SWA and fine-tuning at the lowest FLR accuracy on the low and on the mid band peaks in 2A, at "
    "every PLR of 2A that on the low band is the highest and that on the mid band second, and at all PLRs that on the high "
    "band is within 5 pp of chance and that on the background, the mean colour, within 10 pp; refuted where one of these is "
    "not so",
    kinds=["transformer"],
)
def low_band_peaks_in_2a(e):
    inside, default, parts = e.regime("2A"), default_normalisation(e.study.network), []
    for name, stage in band_stages(e).items():
        of_bands = {band: band_accuracy(e, default, band, *stage) for band in ALL_BANDS}
        for band in ("low", "mid"):
            parts.append(peaks_in(e, f"{name}: lead of 2A on the {band} band", inside, [of_bands[band]]))
        for first, *others in (("low", "mid"), ("mid", "high", "background")):
            pairs = [
                [(1, sample), (-1, beaten)]
                for other in others
                for sample, beaten in zip(of_bands[first].at(inside), of_bands[other].at(inside))
            ]
            parts.append(each(f"{name}: least lead of the {first} band over the next", above(0), pairs))
        for band in ("high", "background"):
            bound = within(FROM_CHANCE[band], of=e.chance)
            found = [[(1, sample)] for sample in of_bands[band].at(e.plrs)]
            parts.append(each(f"{name}: accuracy farthest from chance: {band}", bound, found))
    return parts


@claim(
    "Z5",
    "appendix, figure 25",
    "wherever the low band ends and the mid band begins, accuracy on each after fine-tuning at the lowest FLR peaks in 2A; "
    "refuted where it is as high elsewhere",
    kinds=["transformer"],
)
def bands_peak_wherever_the_low_one_ends(e):
    inside, ends = e.regime("2A"), low_ends(e.study)
    if not ends:
        raise NotMeasurable("other ends of the low band are not measured: analyze.py bands --low-ends")
    name = low_ends_name(default_normalisation(e.study.network))
    return [
        peaks_in(
            e,
            f"lead of 2A on the {band} band, low up to {end}",
            inside,
            [e.percent("finetune", of_measurement(name, "accuracy", band, str(end)), e.flrs[0])],
        )
        for end in ends
        for band in BESIDE_LOW_END
    ]


# ----------------------------------------------------------------------------------------------------------- sharpness

SHARPNESS = ("gradient_norm", "largest_eigenvalue", "trace")


def solutions_at_equal_loss(e, pretrained):
    """(level, points of sharpness_points(), means over runs) at the lowest level of train loss with five or more of them.

    They are settings of pre-training in regime 1, or else of fine-tuning from regime 2. Runs of one setting are no points
    of their own, as trends and correlations take points for independent.
    """
    e.regime("1")  # raises where it is unknown which solutions these are
    levels = sorted({level for run in e.study.runs for level in run.settings["keep_loss"]})
    if not levels:
        raise NotMeasurable("no run kept weights where its train loss crossed a level: --keep-loss")
    for level in levels:
        points = sharpness_points(e.study, e.regimes, level)
        settings = {}
        for point in points:
            if (point["flr"] is None) == pretrained:
                settings.setdefault((point["plr"], point["flr"]), []).append(point)
        if len(settings) >= 5:
            return level, [mean_point(of_setting) for of_setting in settings.values()]
    raise NotMeasurable("sharpness is measured of fewer than five such settings: analyze.py sharpness")


def mean_point(points):
    """The means of what points of one setting all have."""
    names = [name for name in ("plr", "test_accuracy", *SHARPNESS) if all(name in point for point in points)]
    return {name: float(np.mean(column(points, name))) for name in names}


def column(points, name):
    return [point[name] for point in points]


def measures(points):
    """The measures of sharpness that all of these points have."""
    return [name for name in SHARPNESS if all(name in point for point in points)]


@claim(
    "H1",
    "appendix, figure 26",
    "pre-trainings of regime 1 at equal train loss: with PLR the mean gradient norm falls (ranks, by permutation), and so "
    "does the test error; other measures of sharpness beside it; refuted where one of these grows",
    kinds=["scale-invariant"],
)
def sharpness_falls_in_regime_1(e):
    level, points = solutions_at_equal_loss(e, pretrained=True)
    plrs, parts = column(points, "plr"), [told("at train loss", level)]
    for name in measures(points):
        found = trend(f"rank correlation of PLR and {name.replace('_', ' ')}", plrs, column(points, name), FALLING)
        parts.append(found if name == SHARPNESS[0] else beside(found))
    errors = [-accuracy for accuracy in column(points, "test_accuracy")]
    return [*parts, trend("and test error", plrs, errors, FALLING)]


def beside(found):
    """A Part that is told beside what the claim is judged by."""
    return found._replace(decision=None, name=f"{found.name} ({found.decision})")


@claim(
    "H2",
    "appendix, figure 26",
    "at equal train loss the rank correlation of mean gradient norm and test error is weaker among fine-tunings from "
    "regime 2 than among pre-trainings of regime 1, by an interval of the difference of both, while in regime 1 that norm "
    "falls with PLR, as in H1; other measures of sharpness beside it; refuted by a correlation that is as strong",
    kinds=["scale-invariant"],
)
def sharpness_does_not_tell_in_2(e):
    level, tuned = solutions_at_equal_loss(e, pretrained=False)
    level_of_1, pretrained = solutions_at_equal_loss(e, pretrained=True)
    parts = [told("at train loss", level), told("in regime 1 at", level_of_1)]
    for name in [name for name in measures(tuned) if name in measures(pretrained)]:
        of_2, of_1 = (
            intervals.correlation_interval(column(points, name), [-a for a in column(points, "test_accuracy")])
            for points in (tuned, pretrained)
        )
        weaker = intervals.correlation_difference(of_1, of_2)
        what = name.replace("_", " ")
        found = Part(f"{what}: correlation in 1 - in 2", above(0).decide(weaker), weaker)
        parts += [told(f"{what}: correlation in regime 2", of_2), found if name == SHARPNESS[0] else beside(found)]
    falls = trend("in 1 with PLR", column(pretrained, "plr"), column(pretrained, SHARPNESS[0]), FALLING)
    return [*parts, falls]
