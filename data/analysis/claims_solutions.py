"""Claims about solutions: their geometry, features, frequency bands and sharpness. Terms: see evidence.py."""

import numpy as np

from data.analysis.evidence import NotMeasurable, best, claim, exceeds, peaks_in, spearman, unmeasured
from data.analysis.series import sharpness_points
from data.analysis.study import GEOMETRY_PAIRS, of_measurement
from data.bands import DEFAULT_NORMALISATION
from data.runs import bands_name

# ------------------------------------------------------------------------------------------------------------ geometry

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


@claim(
    "G1",
    "section 4, figures 3 and 16",
    "regime 1 above the jump (see F2): all angles < 0.1 rad, all barriers < 0.1 %; below it: angles of L and S "
    "to H > 1.2 rad with train barriers > 1 %, angle(S, L) < 0.1 rad without barrier",
)
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


@claim(
    "G2",
    "section 4, figures 3 and 16",
    "in 2A angle(L, H) is between 0.01 and pi/4 rad, at most 3/4 of the angles to S, and no barrier(L, H) "
    "reaches 0.1 %",
)
def no_barrier_in_2a(e):
    plrs = e.regime("2A")
    angle, barrier = angles(e, "LH", plrs), max(barriers(e, "LH", plrs))
    ratio = max(angle / np.minimum(angles(e, "SL", plrs), angles(e, "SH", plrs)))
    measured = {"angle(L, H) from": min(angle), "to": max(angle)}
    measured |= {"largest angle(L, H) / angle to S": ratio, "largest barrier(L, H)": barrier}
    return min(angle) > 0.01 and max(angle) < np.pi / 4 and ratio <= 0.75 and barrier < NO_BARRIER, measured


@claim(
    "G3",
    "section 4, figures 3 and 16",
    "in 2B angle(L, H) and its barriers grow with PLR (rank correlations >= 0.9), up to 1.2 rad and 1 % or more",
)
def barriers_grow_in_2b(e):
    plrs = e.regime("2B")
    angle, barrier = angles(e, "LH", plrs), barriers(e, "LH", plrs)
    trends = spearman(plrs, angle), spearman(plrs, barrier)
    measured = {"rank correlation of angle(L, H)": trends[0], "of the barrier": trends[1]}
    measured |= {"at the end: angle": angle[-1], "barrier": barrier[-1]}
    return min(trends) >= 0.9 and angle[-1] >= LARGE_ANGLE and barrier[-1] >= LARGE_BARRIER, measured


@claim(
    "G4",
    "section 4, figures 3 and 16",
    "in regime 3 angle(L, H) is within 0.1 rad of a right one, and all train barriers are >= 1 %",
)
def regime_3_is_orthogonal(e):
    plrs = e.regime("3")
    farthest = max(abs(angles(e, "LH", plrs) - np.pi / 2))
    smallest = min(min(barriers(e, pair, plrs, ["train_barrier"])) for pair in GEOMETRY_PAIRS)
    measured = {"farthest of angle(L, H) from a right one": farthest, "smallest train barrier": smallest}
    return farthest <= 0.1 and smallest >= LARGE_BARRIER, measured


claim(
    "G5",
    "appendix, figures 20 and 23",
    "practical ResNet and ViT: the same pattern along PLR, no barrier in the middle",
)(unmeasured("the practical networks"))


# -------------------------------------------------------------------------------------- features of the synthetic data

DOMINANCE = 10  # pp


@claim(
    "Y1",
    "section 5, figures 5 and 17",
    "after pre-training in regime 1 every sorted single-feature accuracy is within 10 pp of chance, and all "
    "features together reach >= 10 pp more than the best of them",
)
def all_features_count_in_1(e):
    plrs = e.regime("1")
    singles = e.features("pretrain").means(plrs)
    distance, lead = np.max(abs(singles - e.chance)), min(e.pretrained.means(plrs) - singles[:, 0])
    measured = {"single feature farthest from chance": distance, "least lead of all features": lead}
    return distance <= 10 and lead >= 10, measured


@claim(
    "Y2",
    "section 5, figures 5 and 17",
    "at every PLR of 2A the best feature is >= 10 pp ahead of the second after pre-training, and no more than "
    "1 pp less after fine-tuning at the lowest FLR and SWA of the largest K",
)
def one_feature_dominates_in_2a(e):
    plrs = e.regime("2A")
    before = e.dominance(plrs, "pretrain")
    tuned = e.dominance(plrs, "finetune", "checkpoint", e.flrs[0])
    averaged = e.dominance(plrs, "swa", f"swa-{e.windows[-1]}")
    change = min(np.minimum(tuned, averaged) - before)
    measured = {"lead of the best feature from": min(before), "to": max(before), "least change": change}
    measured |= {"least after fine-tuning": min(tuned), "least after SWA": min(averaged)}
    return min(before) >= DOMINANCE and change >= -1, measured


@claim(
    "Y3",
    "section 5, figures 5 and 17",
    "in 2B and 3 no feature is 10 pp ahead after pre-training or fine-tuning at the lowest FLR, pre-training "
    "falls to within 1 pp of chance in 2B and stays there, and at the highest FLR of regime 1 one is ahead "
    "again at two PLRs or more",
)
def none_dominates_beyond(e):
    plrs = e.regime("2B") + e.regime("3")
    lead = max(*e.dominance(plrs, "pretrain"), *e.dominance(plrs, "finetune", "checkpoint", e.flrs[0]))
    at_chance = [plr for plr in plrs if abs(np.mean(e.pretrained[plr]) - e.chance) <= 1]
    stays = bool(at_chance) and plrs[-len(at_chance) :] == at_chance
    again = sum(e.dominance(plrs, "finetune", "checkpoint", e.high_flr) >= DOMINANCE)
    measured = {"largest lead": lead, "at chance from PLR": at_chance[0] if stays else None}
    measured["PLRs with a dominant feature at the highest FLR"] = int(again)
    return lead < DOMINANCE and stays and at_chance[0] in e.regime("2B") and again >= 2, measured


@claim(
    "Y4",
    "section 5, figure 15",
    "every curve of fine-tuning and SWA peaks in 2A (no other PLR exceeds it), and none exceeds SWA of the "
    "largest K",
)
def accuracy_peaks_in_2a(e):
    e.need("ticks")
    inside, window = e.regime("2A"), e.windows[-1]
    curves = {f"FLR {flr:.3g}": curve for flr, curve in e.finetuned.items()}
    curves |= {f"SWA-{window}": curve for window, curve in e.averaged.items()}
    outside = [name for name, curve in curves.items() if not peaks_in(e, inside, [curve])]
    top, averaged = best(curves.values(), e.plrs), best([e.averaged[window]], e.plrs)
    measured = {"curves": len(curves), "that peak outside 2A": ", ".join(outside) or "none"}
    measured |= {"highest of all": top.mean, f"of SWA-{window}": averaged.mean}
    return not outside and not exceeds(top.values, averaged.values), measured


# ----------------------------------------------------------------------------------------------------- frequency bands


def band_accuracy(e, band, stage, *later_lrs):
    """Accuracies (Values, percent) on a band by the default normalisation, after a stage."""
    e.need("images")
    values = e.percent(stage, of_measurement(bands_name(DEFAULT_NORMALISATION), "accuracy", band), *later_lrs)
    if not values:
        raise NotMeasurable("accuracies on frequency bands are not measured: analyze.py bands")
    return values


OTHER_BANDS = ("background", "low", "high")


@claim(
    "Z1",
    "section 6, figures 7 and 18",
    "after pre-training, SWA and fine-tuning at the lowest and the highest FLR mid-band accuracy is best in 2A "
    "(no other PLR exceeds it) and is there above that of every other band",
)
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


@claim(
    "Z2",
    "section 6, figures 7 and 18",
    "after pre-training at the smallest PLR the background or the low band is the best one, and from the last "
    "PLR of 2B on all bands are within 5 pp of chance",
)
def bands_lose_preference(e):
    smallest, beyond = e.plrs[0], e.regime("2B")[-1:] + e.regime("3")
    reached = {band: band_accuracy(e, band, "pretrain") for band in ("mid", *OTHER_BANDS)}
    favoured = max(reached, key=lambda band: reached[band].means([smallest])[0])
    farthest = max(max(abs(values.means(beyond) - e.chance)) for values in reached.values())
    measured = {"best band at the smallest PLR": favoured, "farthest from chance beyond 2A": farthest}
    return favoured in ("background", "low") and farthest <= 5, measured


claim(
    "Z3",
    "section 6, figures 8 and 21",
    "practical ResNet: mid-band accuracy peaks in 2A",
)(unmeasured("the practical networks"))

claim(
    "Z4",
    "section 6, figures 8 and 24",
    "ViT: low and mid bands peak in 2A, the others stay at chance",
)(unmeasured("the practical networks"))

claim(
    "Z5",
    "appendix, figure 25",
    "Z4 does not hinge on where the low band ends",
)(unmeasured("the practical networks"))


# ----------------------------------------------------------------------------------------------------------- sharpness


def solutions_at_equal_loss(e, pretrained):
    """(level, [PLR, sharpness, test error] of solutions) at the lowest level of train loss that has five or more.

    They are the pre-trainings of regime 1, or else the fine-tunings from regime 2; sharpness is the mean gradient norm.
    """
    e.need("images")
    levels = sorted({level for run in e.study.runs for level in run.settings["keep_loss"]})
    for level in levels:
        points = [point for point in sharpness_points(e.study, level) if (point["flr"] is None) == pretrained]
        if len(points) >= 5:
            columns = [[point["plr"], point["gradient_norm"], 1 - point["test_accuracy"]] for point in points]
            return level, np.transpose(columns)
    raise NotMeasurable("sharpness is measured of fewer than five such solutions: analyze.py sharpness")


@claim(
    "H1",
    "appendix, figure 26",
    "pre-trainings of regime 1 at equal train loss: with PLR the mean gradient norm falls (rank correlation <= "
    "-0.9), and so does the test error",
)
def sharpness_falls_in_regime_1(e):
    level, (plrs, sharpness, error) = solutions_at_equal_loss(e, pretrained=True)
    trends = spearman(plrs, sharpness), spearman(plrs, error)
    measured = {
        "at train loss": level,
        "rank correlation of PLR and sharpness": trends[0],
        "and test error": trends[1],
    }
    return max(trends) <= -0.9, measured


@claim(
    "H2",
    "appendix, figure 26",
    "fine-tunings from regime 2 at equal train loss: mean gradient norm and test error have a rank correlation "
    "between -0.5 and 0.5",
)
def sharpness_does_not_tell_in_2(e):
    level, (_, sharpness, error) = solutions_at_equal_loss(e, pretrained=False)
    trend = spearman(sharpness, error)
    return abs(trend) < 0.5, {"at train loss": level, "rank correlation of sharpness and test error": trend}
