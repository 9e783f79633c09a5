"""Claims about solutions: their geometry, features, frequency bands and sharpness. Terms: see evidence.py."""

import numpy as np

from data.analysis.evidence import NotMeasurable, best, claim, exceeds, peaks_in, spearman
from data.analysis.series import low_ends, sharpness_points
from data.analysis.study import GEOMETRY_PAIRS, of_measurement
from data.bands import BESIDE_LOW_END, default_normalisation
from data.runs import bands_name, low_ends_name

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
    kinds=["ticks", "scale-invariant"],
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
    kinds=["ticks", "scale-invariant"],
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
    kinds=["ticks", "scale-invariant"],
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
    kinds=["ticks", "scale-invariant"],
)
def regime_3_is_orthogonal(e):
    plrs = e.regime("3")
    farthest = max(abs(angles(e, "LH", plrs) - np.pi / 2))
    smallest = min(min(barriers(e, pair, plrs, ["train_barrier"])) for pair in GEOMETRY_PAIRS)
    measured = {"farthest of angle(L, H) from a right one": farthest, "smallest train barrier": smallest}
    return farthest <= 0.1 and smallest >= LARGE_BARRIER, measured


WEAK_BARRIER = 0.5  # percent; the paper's pattern is a weaker one in practical networks


@claim(
    "G5",
    "appendix, figures 20 and 23",
    "in 2A no train or test barrier(L, H) is above 0.1 %, at some other PLR one is 0.5 % or more, and angle(L, H) is "
    "smaller at every PLR of 2A than at the smallest and at the largest PLR",
    kinds=["convolutional", "transformer"],
)
def practical_networks_show_the_pattern(e):
    inside = e.regime("2A")
    barrier, elsewhere = max(barriers(e, "LH", inside)), max(barriers(e, "LH", e.elsewhere(inside)))
    angle, ends = max(angles(e, "LH", inside)), angles(e, "LH", [e.plrs[0], e.plrs[-1]])
    measured = {"largest barrier(L, H) in 2A": barrier, "elsewhere": elsewhere, "largest angle(L, H) in 2A": angle}
    measured |= {"at the smallest PLR": ends[0], "at the largest": ends[1]}
    return barrier <= NO_BARRIER and elsewhere >= WEAK_BARRIER and angle < min(ends), measured


# -------------------------------------------------------------------------------------- features of the synthetic data

DOMINANCE = 10  # pp


@claim(
    "Y1",
    "section 5, figures 5 and 17",
    "after pre-training in regime 1 every sorted single-feature accuracy is within 10 pp of chance, and all "
    "features together reach >= 10 pp more than the best of them",
    kinds=["ticks"],
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
    kinds=["ticks"],
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
    kinds=["ticks"],
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
    kinds=["ticks"],
)
def accuracy_peaks_in_2a(e):
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
    name = bands_name(default_normalisation(e.study.network))
    values = e.percent(stage, of_measurement(name, "accuracy", band), *later_lrs)
    if not values:
        raise NotMeasurable("accuracies on frequency bands are not measured: analyze.py bands")
    return values


OTHER_BANDS = ("background", "low", "high")


def band_stages(e):
    """The stages that claims about bands speak of, by name, as band_accuracy() takes them."""
    return {"pre-training": ("pretrain",), "SWA": ("swa",), "the lowest FLR": ("finetune", e.flrs[0])}


@claim(
    "Z1",
    "section 6, figures 7 and 18",
    "after pre-training, SWA and fine-tuning at the lowest and the highest FLR mid-band accuracy is best in 2A "
    "(no other PLR exceeds it) and is there above that of every other band",
    kinds=["scale-invariant"],
)
def mid_band_peaks_in_2a(e):
    inside, measured, holds = e.regime("2A"), {}, True
    for name, stage in (band_stages(e) | {"the highest FLR": ("finetune", e.flrs[-1])}).items():
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
    kinds=["scale-invariant"],
)
def bands_lose_preference(e):
    smallest, beyond = e.plrs[0], e.regime("2B")[-1:] + e.regime("3")
    reached = {band: band_accuracy(e, band, "pretrain") for band in ("mid", *OTHER_BANDS)}
    favoured = max(reached, key=lambda band: reached[band].means([smallest])[0])
    farthest = max(max(abs(values.means(beyond) - e.chance)) for values in reached.values())
    measured = {"best band at the smallest PLR": favoured, "farthest from chance beyond 2A": farthest}
    return favoured in ("background", "low") and farthest <= 5, measured


@claim(
    "Z3",
    "section 6, figures 8 and 21",
    "after pre-training, SWA and fine-tuning at the lowest FLR mid-band accuracy is best in 2A (no other PLR exceeds it)",
    kinds=["convolutional"],
)
def mid_band_of_practical_networks_peaks_in_2a(e):
    inside, measured, holds = e.regime("2A"), {}, True
    for name, stage in band_stages(e).items():
        mid = band_accuracy(e, "mid", *stage)
        elsewhere = best([mid], e.elsewhere(inside))
        holds &= peaks_in(e, inside, [mid])
        measured |= {f"{name}: mid band in 2A": best([mid], inside).mean, f"{name}: elsewhere": elsewhere.mean}
        measured[f"{name}: at PLR"] = elsewhere.plr
    return bool(holds), measured


@claim(
    "Z4",
    "section 6, figures 8 and 24",
    "after pre-training, SWA and fine-tuning at the lowest FLR accuracy on the low and on the mid band is best in 2A (no "
    "other PLR exceeds it), at every PLR of 2A that on the low band is the highest and that on the mid band second, and "
    "at all PLRs that on the high band is within 5 pp of chance and that on the background within 10 pp",
    kinds=["transformer"],
)
def low_band_peaks_in_2a(e):
    inside, measured, holds = e.regime("2A"), {}, True
    for name, stage in band_stages(e).items():
        of_bands = {band: band_accuracy(e, band, *stage) for band in ("low", "mid", "high", "background")}
        outside = [band for band in ("low", "mid") if not peaks_in(e, inside, [of_bands[band]])]
        low, mid, *others = (values.means(inside) for values in of_bands.values())
        leads = min(low - mid), min(mid - np.max(others, axis=0))
        high, background = (max(abs(of_bands[band].means(e.plrs) - e.chance)) for band in ("high", "background"))
        holds &= not outside and min(leads) > 0 and high <= 5 and background <= 10
        measured |= {f"{name}: bands that peak outside 2A": ", ".join(outside) or "none"}
        measured |= {f"{name}: least lead of the low band in 2A": leads[0], f"{name}: of the mid band": leads[1]}
        measured |= {
            f"{name}: farthest from chance of the high band": high,
            f"{name}: of the background": background,
        }
    return bool(holds), measured


@claim(
    "Z5",
    "appendix, figure 25",
    "wherever the low band ends and the mid band begins, accuracy on each after fine-tuning at the lowest FLR is best in "
    "2A (no other PLR exceeds it)",
    kinds=["transformer"],
)
def bands_peak_wherever_the_low_one_ends(e):
    inside, ends, moved = e.regime("2A"), low_ends(e.study), []
    if not ends:
        raise NotMeasurable("other ends of the low band are not measured: analyze.py bands --low-ends")
    name = low_ends_name(default_normalisation(e.study.network))
    for end in ends:
        for band in BESIDE_LOW_END:
            values = e.percent("finetune", of_measurement(name, "accuracy", band, str(end)), e.flrs[0])
            moved += [] if peaks_in(e, inside, [values]) else [f"{band} at {end}"]
    return not moved, {"ends": ", ".join(map(str, ends)), "bands that peak outside 2A": ", ".join(moved) or "none"}


# ----------------------------------------------------------------------------------------------------------- sharpness


def solutions_at_equal_loss(e, pretrained):
    """(level, [PLR, sharpness, test error] of solutions) at the lowest level of train loss that has five or more.

    They are the pre-trainings of regime 1, or else the fine-tunings from regime 2; sharpness is the mean gradient norm.
    """
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
    kinds=["scale-invariant"],
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
    kinds=["scale-invariant"],
)
def sharpness_does_not_tell_in_2(e):
    level, (_, sharpness, error) = solutions_at_equal_loss(e, pretrained=False)
    trend = spearman(sharpness, error)
    return abs(trend) < 0.5, {"at train loss": level, "rank correlation of sharpness and test error": trend}
