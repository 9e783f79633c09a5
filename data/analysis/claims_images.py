"""Claims about solutions on images: frequency bands and sharpness. Terms: see criteria.py."""

import numpy as np

from data.analysis import intervals
from data.analysis.criteria import (
    NotMeasurable,
    Part,
    above,
    best_plr,
    claim,
    each,
    lead,
    peaks_in,
    samples,
    told,
    trend,
    within,
)
from data.analysis.intervals import FALLING, all_of
from data.analysis.series import low_ends, sharpness_points
from data.analysis.study import of_measurement
from data.bands import BESIDE_LOW_END, NORMALISATIONS, default_normalisation
from data.runs import bands_name, low_ends_name

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
