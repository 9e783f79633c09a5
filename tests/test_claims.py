"""The claims held against studies made by hand: ones in which they hold, in which each is refuted, and undecided.

BREAKS, UNDECIDED and their like have (claim, the parts of it that come out so, changes of the ideal study).
"""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ideal_studies import (
    FLRS,
    IDEAL,
    IMAGE_IDEAL,
    NETWORKS,
    PLRS,
    PRACTICAL_IDEAL,
    REGIME_2A,
    REGIME_3,
    TWO_STAGES,
    changed,
    write_ideal,
    write_image_ideal,
    write_practical_ideal,
)
from scipy import stats
from test_analyze import command, write_study

import models
from data.analysis.claims import CLAIMS, judge, judge_claim, moved_ends_of_2a, verdict_line
from data.analysis.criteria import KINDS, peaks_in
from data.analysis.evidence import Evidence, Values
from data.analysis.figures import FIGURES
from data.analysis.intervals import RunStd, Sample
from data.analysis.regimes import measure_regimes
from data.analysis.study import Study
from data.runs import sharpness_name

OF_PRACTICAL = {"G5", "Z3", "Z4", "Z5"}  # networks
OF_IMAGES = {"R5", "F7", "Z1", "Z2", "H1", "H2"}
OF_TICKS = {"Y1", "Y2", "Y3", "Y4"}
OF_KIND = {"convolutional": {"G5", "Z3"}, "transformer": {"G5", "Z4", "Z5"}}
EVERY_CLAIM = {claim.name for claim in CLAIMS}


def verdicts(folder, std=None):
    return {verdict["claim"]: verdict for verdict in judge(Study(folder), std)}


def verdicts_of(names, folder, std=None):
    """Verdicts by claim, but for what they were if 2A ended elsewhere, which takes as long again."""
    evidence = Evidence(Study(folder), std)
    return {claim.name: judge_claim(claim, evidence) for claim in CLAIMS if claim.name in names}


def verdict_of(name, folder, std=None):
    return verdicts_of({name}, folder, std)[name]


def named(found, verdict):
    return {name for name, of_claim in found.items() if of_claim["verdict"] == verdict}


def parts(verdict, decision):
    return {name for name, found in verdict["decisions"].items() if found == decision}


def numbered(cases):
    """Cases of pytest, whose names are the claims."""
    return [pytest.param(*case, id=f"{number}-{case[0]}") for number, case in enumerate(cases)]


# ------------------------------------------------------------------------------------------- claims hold in ideal studies


def test_every_measurable_claim_holds_in_the_ideal_study(tmp_path):
    write_ideal(tmp_path)
    found = verdicts(tmp_path)
    assert named(found, "not measurable") == OF_PRACTICAL | OF_IMAGES
    assert named(found, "holds") == EVERY_CLAIM - OF_PRACTICAL - OF_IMAGES


def test_every_claim_about_scale_invariant_networks_holds_in_the_ideal_study_of_images(tmp_path):
    write_image_ideal(tmp_path)
    found = verdicts(tmp_path)
    assert named(found, "not measurable") == OF_PRACTICAL | OF_TICKS
    assert named(found, "holds") == EVERY_CLAIM - OF_PRACTICAL - OF_TICKS
    measured = {name: of_claim["measured"] for name, of_claim in found.items()}
    assert measured["R5"]["fewest epochs"] == pytest.approx(60, rel=0.01)
    assert measured["R5"]["at the largest rate"] == pytest.approx(200, rel=0.01)
    decades = [
        measured["F7"][name]["estimate"] if name in found["F7"]["decisions"] else measured["F7"][name]
        for name in ("decades at first", "after regime 3", "from scratch at it")
    ]
    assert decades == pytest.approx([0.5, 4, 0.9], rel=1e-3)
    assert [measured[name]["at train loss"] for name in ("H1", "H2")] == [0.1, 0.1]


@pytest.mark.parametrize("kind", NETWORKS)
def test_claims_of_practical_networks_hold_in_the_ideal_study(tmp_path, kind):
    write_practical_ideal(tmp_path, kind)
    places = {
        name: place and (place["last"], place["next"]) for name, place in measure_regimes(Study(tmp_path)).items()
    }
    assert places == {"b12": (PLRS[7], PLRS[8]), "b2AB": (PLRS[9], PLRS[10]), "b23": None}
    found = verdicts(tmp_path)
    assert named(found, "holds") == OF_KIND[kind] | {"M1", "R2", "F3", "F4", "W2"}
    measured = found["G5"]["measured"]
    assert measured["largest barrier(L, H) in 2A"]["estimate"] == pytest.approx(0.05)
    assert measured["elsewhere"]["estimate"] == pytest.approx(0.6)
    angles = [measured[name] for name in ("largest angle(L, H) in 2A", "at the smallest PLR", "at the largest")]
    assert angles == pytest.approx([0.25, 0.9, 1.0])


def test_data_seeds_that_differ_are_paired(tmp_path):
    """Accuracies of data seeds differ by up to 1 pp, what a stage changes hardly."""
    write_ideal(tmp_path, data_seeds=3, noise=IDEAL["noise"] | {"data_seed": 0.03})
    found = verdicts(tmp_path)
    assert named(found, "holds") == EVERY_CLAIM - OF_PRACTICAL - OF_IMAGES
    change = found["W1"]["measured"]["largest change"]
    assert change["upper"] - change["lower"] < 0.6


@pytest.mark.parametrize("draw", [1, 2, 3])
def test_no_claim_is_refuted_by_runs_drawn_at_random(tmp_path, draw):
    write_ideal(tmp_path / "seeds", seeds=3, draw=draw)
    write_ideal(tmp_path / "data seeds", seeds=2, data_seeds=3, draw=draw)
    write_practical_ideal(tmp_path / "practical", "transformer", draw=draw)
    for folder in tmp_path.iterdir():
        assert named(verdicts(folder), "refuted") == set()


# --------------------------------------------------------------------------------------------------- and are refuted


def ideal(name, *changes, keys=()):
    return changed(name, *changes, keys=keys)


def finetuned(flr, *changes):
    return changed("finetuned", *changes, keys=(flr,))


def all_finetuned(*changes):
    """Each of the changes is (index of the PLR, accuracies at all FLRs)."""
    curves = [[*curve] for curve in IDEAL["finetuned"]]
    for index, accuracies in changes:
        for curve, accuracy in zip(curves, accuracies):
            curve[index] = accuracy
    return {"finetuned": curves}


def averaged(window, *changes):
    return changed("averaged", *changes, keys=(window,))


def all_averaged(*changes):
    """Each of the changes is (index of the PLR, accuracy with all windows)."""
    curves = {window: [*curve] for window, curve in IDEAL["averaged"].items()}
    for index, accuracy in changes:
        for curve in curves.values():
            curve[index] = accuracy
    return {"averaged": curves}


def geometry(quantity, pair, *changes):
    return changed(quantity, *changes, keys=(pair,))


def noisier(factor, *names):
    return {"noise": IDEAL["noise"] | {name: factor * IDEAL["noise"][name] for name in names}}


ON_2AB = range(9, 15)  # from the last PLR of 2A through 2B
OF_LOW, OF_HIGH = (f"{PLRS[TWO_STAGES[0]]:.3g}, {PLRS[TWO_STAGES[1]]:.3g}, {flr:.3g}:" for flr in FLRS[::2])
LEAD_IN_2A = [f"FLR {flr:.3g}: lead of 2A" for flr in FLRS]
# Regime 1 gains at the highest FLR, and of 2A only the first PLR leads to more than that.
GAINS_IN_REGIME_1 = all_finetuned(
    (9, (67, 67.2, 67.4)),
    *((index, (*(of_flr[index] for of_flr in IDEAL["finetuned"][:2]), 68.5)) for index in range(8)),
)
AS_GOOD_IN_REGIME_1 = all_finetuned((1, (63.6, 63.8, 73.5)), (9, (75, 75.2, 75.4)))

BREAKS = [
    ("M1", ["lead of 2A, fine-tuned"], finetuned(2, (12, 73.5))),
    ("M1", ["averaged"], averaged(10, (12, 75.5)) | all_finetuned((8, (76.8, 76.9, 77)))),
    ("M1", ["averaged", "of the better over everything"], averaged(10, (0, 76))),
    ("M1", ["of the better over everything"], ideal("pretrained", (12, 76))),
    (
        "M1",
        ["b2AB / b12"],
        all_finetuned(*((i, (70, 70, 70)) for i in range(10, 14)))
        | all_averaged(*((i, 66) for i in range(10, 14))),
    ),
    ("R1", ["smallest part of runs that do, from there on"], ideal("train_accuracy", (5, 99.5))),
    ("R1", ["rank correlation"], ideal("pretrained", *zip(range(2, 8), (67, 66, 65, 64, 63.5, 63)))),
    ("R1", ["largest std"], ideal("late_std", (5, 0.7))),
    ("R2", ["rank correlation"], ideal("pretrained", *zip(range(8, 15), range(51, 58)))),
    ("R2", ["smallest std"], ideal("late_std", (10, 0.5))),
    ("R2", ["smallest part of the loss that stays"], ideal("earlier_loss", (11, 4))),
    ("R3", ["farthest from chance"], ideal("pretrained", (16, 46))),
    ("F1", ["largest change"], finetuned(0, (4, 66.5))),
    ("F1", ["largest change"], finetuned(1, (2, 63))),
    ("F1", ["largest angle(L, PT)"], geometry("angle", "LP", (5, 0.2))),
    ("F1", ["smallest gain from regime 2"], ideal("pretrained", (14, 59.2))),
    ("F2", ["gain from the smallest PLR"], finetuned(2, (0, 64))),
    ("F2", ["smallest gain up to the jump, less a quarter of the largest"], finetuned(2, (1, 63.9), (2, 68))),
    ("F2", ["largest change two steps beyond, less a quarter of it"], finetuned(2, (4, 67))),  # not abrupt
    ("F3", ["lead over it of the worst FLR in the middle of 2A"], AS_GOOD_IN_REGIME_1),
    ("F3", ["lead over it of the best of 2A"], finetuned(2, (1, 73.2))),
    ("F3", ["least lead in 2A over the average of regime 1"], GAINS_IN_REGIME_1),
    ("F3", ["lead over the best elsewhere"], finetuned(2, (12, 75))),
    (
        "F4",
        ["rank correlation at the lowest FLR", "fall at the lowest FLR"],
        all_finetuned(*zip(ON_2AB, [(71, 71, 71.5), *((low, low + 2, low + 3) for low in range(72, 77))])),
    ),
    ("F4", ["fall at the lowest FLR"], all_finetuned((14, (73, 74, 76)))),
    ("F4", ["lead of the highest at its end"], all_finetuned((9, (72, 71.8, 71.2)), (14, (59, 61, 58.5)))),
    ("F4", ["growth of the lead"], all_finetuned((9, (71.5, 71.8, 72.4)), (14, (59, 61, 59.4)))),
    *(("F5", ["least lead of 2A at an FLR"], finetuned(flr, (16, 74))) for flr in range(3)),
    ("F6", [f"{OF_LOW} by 2A - from 2A"], {"two_stages": [70, 72.1]}),
    ("F6", [f"{OF_HIGH} by 2A - from 2A"], {"two_stages": [72.2, 70]}),
    ("F6", [f"{OF_LOW} least lead over scratch"], {"scratch": [73.5, 68.5]}),
    ("F6", [f"{OF_HIGH} least lead over scratch"], {"scratch": [63.2, 74]}),
    ("F6", [f"{OF_LOW} by 2A - from 2B"], finetuned(0, (11, 74))),
    (
        "F6",
        [f"{OF_HIGH} by 2A - from 2B"],
        finetuned(2, (11, 74)) | {"scratch": [63.2, 72.3]} | noisier(50, "scratch"),
    ),
    ("F6", [f"{OF_HIGH} from 2B - scratch"], finetuned(2, (11, 70.5))),
    ("W1", ["largest change"], averaged(5, (4, 66.5))),
    ("W1", ["smallest gain in 2A"], averaged(10, (9, 58))),
    ("W2", ["lead of 2A"], averaged(10, (12, 76))),
    ("W2", ["gain on pre-training"], ideal("pretrained", (8, 74))),
    ("W2", ["lead over K = 2"], averaged(2, (8, 75.6))),
    ("W2", ["lead over fine-tuning"], all_finetuned((8, (76.8, 76.9, 77)))),
    ("W3", ["rank correlation"], averaged(10, *zip(ON_2AB, (50.5, 51, 51.3, 51.6, 51.8, 52.2)))),
    ("W3", ["gain of the largest K at its end"], averaged(10, (14, 53.5))),
    *(("W3", ["regime 3: accuracy farthest from chance"], averaged(5, (16, x))) for x in (45, 55)),
    ("G1", ["above the jump: largest train barrier"], geometry("train_barrier", "SL", (4, 0.5))),
    ("G1", ["below it: smallest train barrier(L, H)"], geometry("train_barrier", "LH", (0, 0.5))),
    *(
        (
            "G1",
            [f"angle({pair[0]}, {pair[1]}) above, less a quarter of that below"],
            geometry("angle", pair, *((index, 0.5) for index in range(2, 8))),
        )
        for pair in ("LH", "SH")
    ),
    ("G2", [f"train barrier at {PLRS[8]}"], geometry("train_barrier", "LH", (8, 3))),
    ("G2", [f"test barrier at {PLRS[8]}"], geometry("test_barrier", "LH", (8, 2))),
    ("G2", ["least angle(L, H) of 2B - largest of these"], geometry("angle", "LH", (11, 0.1))),
    ("G2", ["smallest of these - angle(L, H) at b12"], geometry("angle", "LH", (7, 0.3))),
    (
        "G3",
        ["rank correlation of the angle"],
        geometry("angle", "LH", *zip(ON_2AB, (1.55, 1.5, 1.45, 1.4, 1.35, 1.3))),
    ),
    ("G3", ["angle at the end"], geometry("angle", "LH", *zip(ON_2AB, (0.25, 0.5, 0.6, 0.7, 0.8, 1)))),
    (
        "G3",
        ["rank correlation of the train barrier"],
        geometry("train_barrier", "LH", *zip(ON_2AB, range(8, 2, -1))),
    ),
    (
        "G3",
        ["train barrier at the end"],
        geometry("train_barrier", "LH", *zip(ON_2AB, (0.03, 0.05, 0.1, 0.2, 0.3, 0.5))),
    ),
    ("G4", ["smallest angle(L, H)"], geometry("angle", "LH", (16, 1))),
    *(("G4", ["smallest train barrier"], geometry("train_barrier", pair, (16, 0))) for pair in ("LH", "SH", "SL")),
    (
        "Y1",
        ["single-feature accuracy farthest from chance"],
        ideal("top_pretrained", (0, (62, 52))) | ideal("pretrained", (0, 75)),
    ),
    ("Y1", ["least lead of all features"], ideal("pretrained", (0, 60))),
    ("Y2", ["lead in 2A - lead elsewhere"], ideal("top_pretrained", (12, (72, 54)))),
    ("Y2", ["lead - three times regime 1's"], ideal("top_pretrained", *((index, (60, 54)) for index in range(8)))),
    ("Y2", ["change by fine-tuning"], ideal("top_low", (8, (66, 55)))),
    ("Y2", ["change by SWA"], ideal("top_averaged", (8, (66, 55)))),
    *(
        ("Y3", ["largest lead beyond, less a quarter of it"], ideal(name, (12, (62, 55))))
        for name in ("top_pretrained", "top_low")
    ),
    ("Y3", ["smallest lead in 2A, less half of it"], ideal("top_pretrained", (9, (60, 55)))),
    ("Y3", ["after the highest FLR, less half of it"], ideal("top_high", *((i, (54, 53)) for i in range(11, 15)))),
    *(("Y4", [name], finetuned(flr, (12, 73.5))) for flr, name in enumerate(LEAD_IN_2A)),
    *(("Y4", [f"SWA-{k}: lead of 2A"], averaged(k, (12, x))) for k, x in ((2, 72), (5, 72), (10, 77))),
    ("Y4", ["lead of SWA of K >= 10"], all_finetuned((8, (75.6, 75.7, 75.8)))),
]

OF_EQUAL_LOSS = IMAGE_IDEAL["sharpness"]
STAGES = {"pretrain": "pre-training", "swa": "SWA", 0: "the lowest FLR", 2: "the highest FLR"}


def of_images(name, *changes, keys=()):
    return changed(name, *changes, keys=keys, of=IMAGE_IDEAL)


def band(stage, name, *changes):
    return of_images("bands", *changes, keys=(stage, name))


def sharpness(points, stage="pretrain"):
    """points: {index of the PLR: (gradient norm, test error)}."""
    return of_images("sharpness", (stage, points), keys=(0.1,))


IMAGE_BREAKS = [
    ("R5", ["log of their ratio"], {"epochs": [120, 60, 61, 63, 66, 75, 110]}),
    ("R5", ["slope of log epochs in the lower half"], {"epochs": [120, 60, 150, 62, 61, 110, 220]}),
    ("R5", ["how much steeper in the upper"], {"epochs": [120, 60, 90, 130, 170, 185, 200]}),
    ("R5", ["rank correlation of accuracy"], {"accuracy": [66, 65.5, 65, 64, 63, 62, 61]}),
    ("R5", ["lead of the best fine-tuned from 2A"], of_images("accuracy", (6, 74))),
    ("F5", ["lowest FLR - scratch"], finetuned(0, *((index, 64) for index in REGIME_3))),
    *(("F5", ["highest FLR - scratch"], finetuned(2, *((i, x) for i in REGIME_3))) for x in (64, 69)),
    ("F7", ["decades at first"], of_images("decades", ("initial", 1.5))),
    ("F7", ["after regime 3"], of_images("decades", ("end", 2))),
    ("F7", ["lowest FLR - twice the highest"], of_images("decades", ("high", 1.5))),
    ("F7", ["lowest FLR - twice scratch"], of_images("decades", ("scratch", 1.5))),
    *(
        ("Z1", [f"{name}: lead of 2A on the mid band"], band(stage, "mid", (index, 67)))
        for (stage, name), index in zip(STAGES.items(), (5, 12, 5, 12))
    ),
    *(
        ("Z1", [f"{name}: lead over other bands"], band(stage, other, (8, 68)))
        for (stage, name), other in zip(STAGES.items(), ("high", "low", "background", "high"))
    ),
    *(
        ("Z2", ["lead of the better at the smallest PLR"], band("pretrain", name, (0, 60)))
        for name in ("mid", "high")
    ),
    *(
        ("Z2", [f"accuracy farthest from chance: {name}"], band("pretrain", name, (index, x)))
        for name, index, x in [
            *(("background", 14, 62), ("background", 16, 38), ("low", 14, 57), ("low", 16, 43)),
            *(("mid", 14, 57), ("high", 17, 57)),
        ]
    ),
    (
        "H1",
        ["rank correlation of PLR and gradient norm"],
        sharpness({index: (1 + index, 42 - index) for index in range(8)}),
    ),
    ("H1", ["and test error"], sharpness({index: (8 - index, 35 + index) for index in range(8)})),
    (
        "H2",
        ["gradient norm: correlation in 1 - in 2"],
        sharpness({index: (8 - index, 35 + index) for index in range(8)}),
    ),
    ("H2", ["in 1 with PLR"], sharpness({index: (1 + index, 35 + index) for index in range(8)})),
]


def practical(name, *changes, keys=()):
    return changed(name, *changes, keys=keys, of=PRACTICAL_IDEAL)


def practical_bands(stage, **changes):
    """By band each of the changes is (index of the PLR, accuracy)."""
    curves = {band: [*PRACTICAL_IDEAL["bands"][stage][band]] for band in changes}
    for band, (index, accuracy) in changes.items():
        curves[band][index] = accuracy
    return practical("bands", *curves.items(), keys=(stage,))


PRACTICAL_STAGES = {"pretrain": "pre-training", "swa": "SWA", 0: "the lowest FLR"}
CONVOLUTIONAL_BREAKS = [
    ("G5", ["largest barrier(L, H) in 2A"], practical("test_barrier", (9, 0.3))),
    *(
        ("Z3", [f"{name}: lead of 2A on the mid band"], practical("bands", (index, 67), keys=(stage, "mid")))
        for stage, name in PRACTICAL_STAGES.items()
        for index in (5, 12)
    ),
]
TRANSFORMER_BREAKS = [
    ("G5", ["largest barrier(L, H) in 2A"], practical("train_barrier", (8, 0.3))),
    ("G5", ["elsewhere"], practical("train_barrier", *((index, 0.3) for index in range(12, 18)))),
    *(
        ("G5", ["least of these, and of the average elsewhere, - largest in 2A"], practical("angle", change))
        for change in (
            (9, 0.95),
            (9, 0.7),
            (0, 0.1),
            (17, 0.1),
        )  # elsewhere 0.59 on average, 0.9 and 1 at the ends
    ),
    *(
        ("Z4", [f"{name}: {part}"], practical_bands(stage, **changes))
        for stage, name in PRACTICAL_STAGES.items()
        for part, changes in [
            ("lead of 2A on the low band", {"low": (5, 77)}),
            ("lead of 2A on the mid band", {"mid": (12, 67)}),
            ("least lead of the low band over the next", {"mid": (9, 76)}),
            # The mid band is still above its average elsewhere, and the background within 10 pp of chance.
            ("least lead of the mid band over the next", {"mid": (9, 58), "background": (9, 59.5)}),
            ("accuracy farthest from chance: high", {"high": (0, 57)}),
            ("accuracy farthest from chance: background", {"background": (17, 38)}),
        ]
    ),
    *(
        (
            "Z5",
            [f"lead of 2A on the {of_band} band, low up to {end}"],
            practical("low_ends", change, keys=(end, of_band)),
        )
        for end, of_band, change in [
            (4, "low", (0, 67)),
            (4, "mid", (12, 67)),
            (16, "low", (5, 67)),
            (16, "mid", (17, 67)),
        ]
    ),
]


def check(folder, claim, verdict, names, std=None):
    found = verdict_of(claim, folder, std)
    assert (found["verdict"], parts(found, verdict)) == (verdict, {*names}), found


@pytest.mark.parametrize("claim, names, changes", numbered(BREAKS))
def test_a_claim_is_refuted_where_the_runs_say_otherwise(tmp_path, claim, names, changes):
    write_ideal(tmp_path, **changes)
    check(tmp_path, claim, "refuted", names)


@pytest.mark.parametrize("claim, names, changes", numbered(IMAGE_BREAKS))
def test_a_claim_of_images_is_refuted_where_the_runs_say_otherwise(tmp_path, claim, names, changes):
    write_image_ideal(tmp_path, **changes)
    check(tmp_path, claim, "refuted", names)


@pytest.mark.parametrize("claim, names, changes", numbered(CONVOLUTIONAL_BREAKS))
def test_a_claim_of_convolutional_networks_is_refuted_where_the_runs_say_otherwise(
    tmp_path, claim, names, changes
):
    write_practical_ideal(tmp_path, "convolutional", **changes)
    check(tmp_path, claim, "refuted", names)


@pytest.mark.parametrize("claim, names, changes", numbered(TRANSFORMER_BREAKS))
def test_a_claim_of_transformers_is_refuted_where_the_runs_say_otherwise(tmp_path, claim, names, changes):
    write_practical_ideal(tmp_path, "transformer", **changes)
    check(tmp_path, claim, "refuted", names)


@pytest.mark.parametrize(
    "claim, names",
    [
        ("M1", ["lead of 2A, fine-tuned"]),
        ("F1", ["largest change"]),
        ("F5", ["least lead of 2A at an FLR"]),
        ("G4", ["smallest angle(L, H)"]),
        ("Y2", ["lead in 2A - lead elsewhere"]),
    ],
)
def test_claims_are_refuted_by_data_seeds_as_well(tmp_path, claim, names):
    [changes] = [of for other, which, of in BREAKS if (other, which) == (claim, names)][:1]
    write_ideal(tmp_path, data_seeds=5, **changes)
    check(tmp_path, claim, "refuted", names)


# ------------------------------------------------------------------------------------------------------ or undecided

UNDECIDED = [
    ("M1", ["lead of 2A, fine-tuned"], finetuned(2, (12, 72.4))),
    ("M1", ["averaged", "of the better over everything"], averaged(10, (12, 75))),
    (
        "M1",
        ["b2AB / b12"],
        all_finetuned((10, (70, 70, 70)), (11, (70, 70, 70))) | all_averaged((10, 66), (11, 66)),
    ),
    ("R1", ["smallest part of runs that do, from there on"], ideal("train_accuracy", (5, [100, 99]))),
    ("R1", ["rank correlation"], ideal("pretrained", (3, 66.7), (4, 63.5))),
    ("R1", ["largest std"], ideal("late_std", (5, 0.5))),
    ("R2", ["rank correlation"], ideal("pretrained", (8, 51))),
    ("R2", ["smallest std"], ideal("late_std", (10, 2))),
    ("F1", ["largest change"], finetuned(0, (4, 66))),
    ("F1", ["largest angle(L, PT)"], geometry("angle", "LP", (5, 0.1))),
    ("F2", ["gain from the smallest PLR"], finetuned(2, (0, 65))),
    ("F2", ["smallest gain up to the jump, less a quarter of the largest"], finetuned(2, (1, 64.5), (2, 68))),
    ("F3", ["lead over it of the best of 2A"], finetuned(2, (1, 72.5))),
    ("F3", ["lead over the best elsewhere"], finetuned(2, (12, 73.5))),
    ("F4", ["lead of the highest at its end"], all_finetuned((9, (72, 71.8, 71.2)), (14, (59, 61, 59)))),
    ("F5", ["least lead of 2A at an FLR"], finetuned(0, (16, 71.5))),
    ("F6", [f"{OF_LOW} by 2A - from 2A"], {"two_stages": [71, 72.1]}),
    ("W1", ["largest change"], averaged(5, (4, 65.8))),
    ("W1", ["smallest gain in 2A"], averaged(10, (9, 59))),
    ("W2", ["lead of 2A"], averaged(10, (12, 75))),
    ("W2", ["lead over K = 2"], averaged(2, (8, 75))),
    ("W3", ["gain of the largest K at its end"], averaged(10, (14, 52.7))),
    ("G1", ["above the jump: largest train barrier"], geometry("train_barrier", "SL", (4, 0.1))),
    ("G2", ["least angle(L, H) of 2B - largest of these"], geometry("angle", "LH", (10, 0.2))),
    ("G3", ["angle at the end"], geometry("angle", "LH", (13, 1.15), (14, 1.2))),
    ("G4", ["smallest angle(L, H)"], geometry("angle", "LH", (16, 1.2))),
    ("Y1", ["least lead of all features"], ideal("pretrained", (0, 62))),
    ("Y2", ["lead in 2A - lead elsewhere"], ideal("top_pretrained", (12, (69, 54)))),
    ("Y3", ["largest lead beyond, less a quarter of it"], ideal("top_low", (12, (58.75, 55)))),
    ("Y3", ["smallest lead in 2A, less half of it"], ideal("top_pretrained", (9, (62.5, 55)))),
    ("Y4", [LEAD_IN_2A[1]], finetuned(1, (12, 72.3))),
]
SCRAMBLED = dict(enumerate([(4, 30), (1, 28), (6, 31), (2, 29), (8, 25), (7, 27), (3, 32), (5, 26)]))
IMAGE_UNDECIDED = [
    ("R5", ["log of their ratio"], of_images("epochs", (6, 180))),
    ("F5", ["lowest FLR - scratch"], finetuned(0, *((index, 64.5) for index in REGIME_3))),
    ("F7", ["decades at first"], of_images("decades", ("initial", 1))),
    ("Z1", ["SWA: lead of 2A on the mid band"], band("swa", "mid", (5, 65))),
    ("Z2", ["accuracy farthest from chance: high"], band("pretrain", "high", (14, 55))),
    ("H1", ["rank correlation of PLR and gradient norm", "and test error"], sharpness(SCRAMBLED)),
    (
        "H2",
        ["gradient norm: correlation in 1 - in 2"],
        sharpness({index: (8 - index, error) for index, (_, error) in SCRAMBLED.items()}),
    ),
    ("H2", ["in 1 with PLR"], sharpness({index: (norm, 30 + norm) for index, (norm, _) in SCRAMBLED.items()})),
]
TRANSFORMER_UNDECIDED = [
    ("G5", ["largest barrier(L, H) in 2A"], practical("train_barrier", (8, 0.1))),
    ("G5", ["least of these, and of the average elsewhere, - largest in 2A"], practical("angle", (9, 9.5 / 16))),
    ("Z4", ["SWA: lead of 2A on the low band"], practical("bands", (5, 75), keys=("swa", "low"))),
    ("Z5", ["lead of 2A on the mid band, low up to 4"], practical("low_ends", (12, 65), keys=(4, "mid"))),
]
CONVOLUTIONAL_UNDECIDED = [
    ("Z3", ["SWA: lead of 2A on the mid band"], practical("bands", (12, 65), keys=("swa", "mid"))),
]


@pytest.mark.parametrize("claim, names, changes", numbered(UNDECIDED))
def test_a_claim_is_undecided_within_the_noise_of_runs(tmp_path, claim, names, changes):
    write_ideal(tmp_path, **changes)
    check(tmp_path, claim, "undecided", names)


@pytest.mark.parametrize("claim, names, changes", numbered(IMAGE_UNDECIDED))
def test_a_claim_of_images_is_undecided_within_the_noise_of_runs(tmp_path, claim, names, changes):
    write_image_ideal(tmp_path, **changes)
    check(tmp_path, claim, "undecided", names)


@pytest.mark.parametrize("claim, names, changes", numbered([*CONVOLUTIONAL_UNDECIDED, *TRANSFORMER_UNDECIDED]))
def test_a_claim_of_practical_networks_is_undecided_within_the_noise_of_runs(tmp_path, claim, names, changes):
    write_practical_ideal(tmp_path, "convolutional" if claim == "Z3" else "transformer", **changes)
    check(tmp_path, claim, "undecided", names)


NOISE = RunStd(0.1)
HALF = 0.1 * np.sqrt(1 + 1 / 4)  # the standard error of a run's accuracy less the average of four
TWO_TAILED, OF_TWO = 1.959964, 2.241403  # of the normal distribution, for one comparison and for two together


@pytest.mark.parametrize(
    "other, decision",
    [
        (TWO_TAILED * HALF + 1e-4, "holds"),
        (TWO_TAILED * HALF - 1e-4, "undecided"),
        (-OF_TWO * HALF + 1e-4, "undecided"),
        (-OF_TWO * HALF - 1e-4, "refuted"),
        (-50, "refuted"),
    ],
)
def test_a_peak_in_2a_takes_all_of_2a(other, decision):
    """2A are PLRs 1 and 2: one far above all others, the other one above their average (60) by so much."""
    accuracies = {1: 80, 2: 60 + other, 3: 58, 4: 59, 5: 61, 6: 62}
    curve = Values((plr, Sample([accuracy], noise=NOISE)) for plr, accuracy in accuracies.items())
    evidence = SimpleNamespace(elsewhere=lambda inside: [plr for plr in curve if plr not in inside])
    found = peaks_in(evidence, "lead of 2A", [1, 2], [curve])
    assert found.decision == decision
    half = OF_TWO * 0.1 * np.sqrt(2)
    assert found.value == pytest.approx(
        (18, 18 - half, 18 + half), abs=1e-6
    )  # of the best over the best elsewhere


def average_elsewhere(curve):
    return np.mean([accuracy for index, accuracy in enumerate(curve) if index not in REGIME_2A])


ALL_OF_2A = [
    ("W2", "lead of 2A", write_ideal, "averaged", (10,)),
    ("Y4", "SWA-2: lead of 2A", write_ideal, "averaged", (2,)),
    ("Z1", "SWA: lead of 2A on the mid band", write_image_ideal, "bands", ("swa", "mid")),
    ("Z3", "SWA: lead of 2A on the mid band", write_practical_ideal, "bands", ("swa", "mid")),
    ("Z4", "SWA: lead of 2A on the low band", write_practical_ideal, "bands", ("swa", "low")),
    ("Z5", "lead of 2A on the low band, low up to 4", write_practical_ideal, "low_ends", (4, "low")),
]
OF_WRITER = {write_ideal: IDEAL, write_image_ideal: IMAGE_IDEAL, write_practical_ideal: PRACTICAL_IDEAL}


@pytest.mark.parametrize("below, verdict", [(0, "undecided"), (1, "refuted")])
@pytest.mark.parametrize("claim, name, write, curves, keys", ALL_OF_2A)
def test_claims_of_peaks_ask_for_all_of_2a(tmp_path, claim, name, write, curves, keys, below, verdict):
    """The last PLR of 2A has the average elsewhere, or 1 pp less; the first one is still the best of all."""
    ideal_curve = OF_WRITER[write][curves]
    for key in keys:
        ideal_curve = ideal_curve[key]
    accuracy = average_elsewhere(ideal_curve) - below
    kind = ["convolutional" if claim == "Z3" else "transformer"] if write is write_practical_ideal else []
    write(tmp_path, *kind, **changed(curves, (9, accuracy), keys=keys, of=OF_WRITER[write]))
    check(tmp_path, claim, verdict, [name])


@pytest.mark.parametrize("behind, verdict", [(0, "undecided"), (1, "refuted")])
def test_a_feature_that_dominates_in_part_of_2a_does_not_peak_there(tmp_path, behind, verdict):
    leads = [best - second for best, second in IDEAL["top_pretrained"]]
    write_ideal(tmp_path, **ideal("top_pretrained", (9, (54 + average_elsewhere(leads) - behind / 2, 54))))
    check(tmp_path, "Y2", verdict, ["lead in 2A - lead elsewhere"])


# What no break reaches alone. R3 says that regime 3 is what 2|3 makes it; only accuracies below chance, which count as at
# chance there, refute it. Ranks that rise significantly have their last above their first.
BY_DEFINITION = {("R3", "smallest loss / initial loss")}
TOGETHER = {("F4", "rank correlation at the lowest FLR")}


@pytest.mark.parametrize("accuracy, verdict", [(49, "holds"), (46, "refuted")])
def test_a_definition_is_never_undecided(tmp_path, accuracy, verdict):
    """R3, which says what 2|3 makes of regime 3, by means alone, however noisy these are."""
    changes = ideal("pretrained", (16, accuracy)) | noisier(100, "pretrained")
    for seeds in (1, 2, 4):
        write_ideal(tmp_path / str(seeds), seeds=seeds, **changes)
        assert verdict_of("R3", tmp_path / str(seeds))["verdict"] == verdict


def test_every_claim_has_data_on_which_it_is_refuted_and_undecided():
    breaks = [*BREAKS, *IMAGE_BREAKS, *CONVOLUTIONAL_BREAKS, *TRANSFORMER_BREAKS]
    undecided = [*UNDECIDED, *IMAGE_UNDECIDED, *CONVOLUTIONAL_UNDECIDED, *TRANSFORMER_UNDECIDED]
    assert {claim for claim, _, _ in breaks} == EVERY_CLAIM
    assert {claim for claim, _, _ in undecided} == EVERY_CLAIM - {"R3"}


def test_every_part_of_every_claim_has_data_on_which_it_alone_is_refuted(tmp_path):
    write_ideal(tmp_path / "ticks")
    write_image_ideal(tmp_path / "images")
    for kind in NETWORKS:
        write_practical_ideal(tmp_path / kind, kind)
    every = {
        (name, part)
        for folder in tmp_path.iterdir()
        for name, verdict in verdicts_of(EVERY_CLAIM, folder).items()
        for part in verdict["decisions"]
    }
    breaks = [*BREAKS, *IMAGE_BREAKS, *CONVOLUTIONAL_BREAKS, *TRANSFORMER_BREAKS]
    alone = {(claim, *names) for claim, names, _ in breaks if len(names) == 1}
    together = {(claim, name) for claim, names, _ in breaks for name in names}
    assert every - alone == BY_DEFINITION | TOGETHER
    assert TOGETHER < together


# ------------------------------------------------------------------------------------- single runs, and more noise


@pytest.mark.parametrize(
    "write, not_measurable, holds, decided_by_std",
    [
        (write_ideal, OF_PRACTICAL | OF_IMAGES, {"R3"}, {"F2", "F3", "F4", "F5", "F6", "W1", "W2", "W3", "Y4"}),
        (
            write_image_ideal,
            OF_PRACTICAL | OF_TICKS,
            {"R3", "H1", "H2"},  # which no means are compared for
            {"F2", "F3", "F4", "F5", "F6", "W1", "W2", "W3"},
        ),
    ],
)
def test_of_single_runs_comparisons_of_means_are_undecided(tmp_path, write, not_measurable, holds, decided_by_std):
    write(tmp_path, seeds=1)
    found = verdicts(tmp_path)
    assert named(found, "holds") == holds
    assert named(found, "undecided") == EVERY_CLAIM - not_measurable - holds
    with_std = verdicts(tmp_path, std=0.05)
    assert named(with_std, "holds") == holds | decided_by_std
    assert named(with_std, "undecided") == EVERY_CLAIM - not_measurable - holds - decided_by_std
    parts_of_m1 = ["lead of 2A, fine-tuned", "averaged", "of the better over everything"]
    assert [with_std["M1"]["decisions"][name] for name in parts_of_m1] == ["holds"] * 3
    assert parts(with_std["M1"], "undecided") == {"b2AB / b12"}  # no resamples tell how wide 2A is


def test_a_std_that_is_given_counts_instead_of_that_of_repeats(tmp_path):
    write_ideal(tmp_path)
    assert verdict_of("W1", tmp_path, std=0.05)["verdict"] == "holds"
    assert verdict_of("W1", tmp_path, std=1)["verdict"] == "undecided"
    change = verdict_of("W1", tmp_path, std=1)["measured"]["largest change"]
    half = 1.959964 * np.sqrt(2) / np.sqrt(2)  # of a change, the mean of two
    assert [change["upper"], change["lower"]] == pytest.approx([half, -half], abs=1e-4)


def test_noisier_runs_leave_more_undecided(tmp_path):
    write_ideal(tmp_path, **noisier(10, "pretrained", "finetuned", "averaged"))
    found = verdicts(tmp_path)
    assert named(found, "undecided") >= {"F1", "F2", "W1", "W3"}  # whose margins are 1 pp or less
    assert named(found, "refuted") == set()


# --------------------------------------------------------------------------------------------------------- without 2A


WITHOUT_2A = all_finetuned((8, (70, 72, 74)))


def test_where_there_is_no_2a_what_is_said_of_it_is_refuted(tmp_path):
    worse = all_finetuned(
        *((index, (55, 54, 53)) for index in range(8, 15))
    )  # and all of regime 2 is worse than 1
    for number, changes in enumerate((WITHOUT_2A, worse)):
        write_ideal(tmp_path / str(number), **changes)
        found = verdicts(tmp_path / str(number))
        for name in ("M1", "F3"):
            assert found[name]["verdict"] == "refuted"
            assert found[name]["measured"] == {"PLRs that meet the criterion of 2A": 0}
        assert {found[name]["verdict"] for name in ("F5", "G2", "W2", "Y2", "Y4")} == {"not measurable"}


def test_it_is_undecided_whether_there_is_a_2a_where_resamples_have_one(tmp_path):
    # FLRs differ by 1.02 pp at the first PLR of regime 2, of the first run alone by 0.72 pp.
    write_ideal(tmp_path / "close", **all_finetuned((8, ([72.3, 71.7], 72.5, 73.02))))
    write_ideal(tmp_path / "single", seeds=1, **WITHOUT_2A)
    for folder in tmp_path.iterdir():
        assert measure_regimes(Study(folder))["b2AB"] is None
        for name in ("M1", "F3"):
            check(folder, name, "undecided", ["PLRs that meet the criterion of 2A"])


def test_where_regime_2_was_not_fine_tuned_nothing_is_said_of_2a(tmp_path):
    write_ideal(tmp_path)
    for path in (tmp_path / "finetune").rglob("*.json"):
        path.unlink()
    for verdict in verdicts_of({"M1", "F3"}, tmp_path).values():
        assert "2A|2B is not bracketed by these runs: fine-tuning at two or more FLRs" in verdict["missing"]


def test_2a_does_not_reach_into_regime_3(tmp_path):
    write_ideal(tmp_path, **all_finetuned((16, (72, 72, 72))))
    assert measure_regimes(Study(tmp_path))["b2AB"].items() >= {"last": PLRS[9], "next": PLRS[10]}.items()


# ------------------------------------------------------------------------------------------------------ where 2A ends

BEST_AT_ITS_END = all_finetuned((8, (68.5, 68.6, 68.7)))  # at the last PLR of 2A are 71.5 to 72 %
BARRIER_AT_ITS_END = geometry("train_barrier", "LH", (9, 3))  # beyond the PLRs that G2 looks at


@pytest.mark.parametrize(
    "claim, changes, key, verdict, said",
    [
        ("M1", BEST_AT_ITS_END, "if_2A_ended_earlier", "refuted", "; refuted if 2A ended one PLR earlier"),
        ("G2", BARRIER_AT_ITS_END, "if_2A_ended_later", "refuted", "; refuted if 2A ended one PLR later"),
    ],
)
def test_a_verdict_that_depends_on_where_2a_ends_says_so(
    tmp_path, monkeypatch, capsys, claim, changes, key, verdict, said
):
    write_ideal(tmp_path, **changes)
    command(monkeypatch, "claims", tmp_path)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{claim} ")]
    assert line.startswith(f"{claim} holds: ") and line.endswith(said)
    command(monkeypatch, "claims", tmp_path, "--verbose", "--json", tmp_path / "claims.json")
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{claim} ")]
    [entry] = [
        entry for entry in json.loads((tmp_path / "claims.json").read_text())["claims"] if entry["claim"] == claim
    ]
    assert line.startswith(f"{claim} holds: ") and f"{said} | criterion:" in line
    assert {name: value for name, value in entry.items() if name.startswith("if_")} == {key: verdict}


def test_where_the_end_of_2a_does_not_matter_nothing_is_said_of_it(tmp_path):
    write_ideal(tmp_path / "ticks")
    write_image_ideal(tmp_path / "images")
    for folder in tmp_path.iterdir():
        evidence = Evidence(Study(folder))
        ends = {name: regimes["b2AB"] for name, regimes in moved_ends_of_2a(evidence).items()}
        assert ends == {
            "if_2A_ended_earlier": {"last": PLRS[8], "next": PLRS[9]},
            "if_2A_ended_later": {"last": PLRS[10], "next": PLRS[11]},
        }
        for verdict in judge(Study(folder)):
            if verdict["claim"] != "Y3":  # where 2A ends matters to what is said of all of it
                assert not [name for name in verdict if name.startswith("if_")]
                assert "if 2A ended" not in verdict_line(verdict)


@pytest.mark.parametrize(
    "changes, others",
    [
        (all_finetuned((9, (70, 72, 74))), ["if_2A_ended_later"]),  # of one PLR
        (all_finetuned(*((i, (71, 71, 71)) for i in range(10, 14))), ["if_2A_ended_earlier"]),  # 2B of one
        (WITHOUT_2A, []),
    ],
)
def test_2a_and_2b_keep_a_plr(tmp_path, changes, others):
    write_ideal(tmp_path, **changes)
    assert list(moved_ends_of_2a(Evidence(Study(tmp_path)))) == others


# --------------------------------------------------------------------------------------------------- side by side


def test_the_mid_band_is_judged_by_every_normalisation_side_by_side(tmp_path):
    other_bands = {
        "keep": band("swa", "mid", (5, 67))["bands"],
        "std": band("swa", "mid", (5, 65))["bands"],
    }
    write_image_ideal(tmp_path, other_bands=other_bands)
    verdict = verdict_of("Z1", tmp_path)
    assert verdict["verdict"] == "holds"
    beside = {name: value for name, value in verdict["measured"].items() if name.startswith("by ")}
    assert beside == {"by keep": "refuted", "by std": "undecided", "by band": "not measured"}
    assert {*verdict["decisions"]}.isdisjoint(beside)


def test_sharpness_is_told_by_all_measures_and_judged_by_the_gradient_norm(tmp_path):
    powers = {"gradient_norm": 1, "largest_eigenvalue": -1, "trace": 2}
    write_image_ideal(tmp_path, powers=powers)
    verdict = verdict_of("H1", tmp_path)
    assert verdict["verdict"] == "holds"
    names = [name for name in verdict["measured"] if name.startswith("rank correlation of PLR and")]
    assert names == [
        "rank correlation of PLR and gradient norm",
        "rank correlation of PLR and largest eigenvalue (refuted)",
        "rank correlation of PLR and trace (holds)",
    ]
    assert {*verdict["decisions"]} == {names[0], "and test error"}
    correlations = [verdict["measured"][name]["correlation"] for name in names]
    assert correlations[0] == correlations[2] == -correlations[1] < -0.9
    verdict = verdict_of("H2", tmp_path)
    assert {*verdict["decisions"]} == {"gradient norm: correlation in 1 - in 2", "in 1 with PLR"}
    differences = [name for name in verdict["measured"] if "in 1 - in 2" in name]
    assert differences == [
        "gradient norm: correlation in 1 - in 2",
        "largest eigenvalue: correlation in 1 - in 2 (refuted)",
        "trace: correlation in 1 - in 2 (holds)",
    ]


def test_sharpness_of_a_setting_is_the_mean_over_its_runs(tmp_path):
    """Runs of a setting differ more than settings do, whose means fall in order: one of 8! orders."""
    write_image_ideal(tmp_path, **sharpness({i: ([4 - i / 2, 12 - 1.5 * i], [32 - i, 52 - i]) for i in range(8)}))
    measured = verdict_of("H1", tmp_path)["measured"]
    for name in ("rank correlation of PLR and gradient norm", "and test error"):
        assert measured[name] == {"correlation": -1, "p": pytest.approx(1 / 40320, rel=1e-5)}


def test_measures_of_sharpness_that_some_solutions_lack_are_not_told(tmp_path):
    write_image_ideal(tmp_path)
    path = tmp_path / f"pretrain/{PLRS[3]}-1/{sharpness_name(0.1)}.json"
    measured = json.loads(path.read_text())
    del measured["trace"]
    path.write_text(json.dumps(measured))
    for verdict in verdicts_of({"H1", "H2"}, tmp_path).values():
        told = " ".join(verdict["measured"])
        assert "largest eigenvalue" in told and "trace" not in told


@pytest.mark.parametrize("changes", [band(1, "mid", (5, 70)), band(0, "low", (0, 72))])
def test_other_bands_and_stages_do_not_matter(tmp_path, changes):
    write_image_ideal(tmp_path, **changes)
    assert named(verdicts_of({"Z1", "Z2"}, tmp_path), "holds") == {"Z1", "Z2"}


@pytest.mark.parametrize(
    "changes",
    [
        practical("bands", (5, 90), keys=(1, "mid")),  # after the highest FLR
        practical("bands", (0, 58), keys=("pretrain", "background")),
    ],
)
def test_what_claims_of_practical_networks_do_not_speak_of(tmp_path, changes):
    for kind, names in OF_KIND.items():
        write_practical_ideal(tmp_path / kind, kind, **changes)
        assert named(verdicts_of(names, tmp_path / kind), "holds") == names


@pytest.mark.parametrize("barriers", [(1, 0.5, 1, 2, 4, 8), (0.05, 0.04, 0.04, 0.04, 0.05, 0.05)])
def test_a_barrier_in_2a_is_small_by_itself_or_beside_those_of_2b(tmp_path, barriers):
    """At the first PLR of 2A and in 2B."""
    write_ideal(tmp_path, **geometry("train_barrier", "LH", *zip((8, *range(10, 15)), barriers)))
    assert verdict_of("G2", tmp_path)["verdict"] == "holds"


# ------------------------------------------------------------------------------------------------- what is missing


def remove(folder, pattern):
    """Delete files, or what folders hold."""
    found = [*folder.glob(pattern)]
    assert found
    for path in found:
        for file in [path] if path.is_file() else [*path.rglob("*.json")]:
            file.unlink()


@pytest.mark.parametrize(
    "missing, unjudged, reason",
    [
        ("finetune", {"F1", "F2"}, "fine-tuning at two or more FLRs is missing"),
        (
            "finetune",
            {"M1", "F3", "F4", "F5", "G2", "G3", "Y2", "Y3", "Y4", "W2"},
            "2A.2B is not bracketed by these runs: fine-tuning at two or more FLRs is missing at PLR|FLRs is missing",
        ),
        ("swa", {"W1", "W2", "W3", "Y2"}, "SWA with two or more windows"),
        ("pretrain/geometry*", {"F1", "G1", "G2", "G3", "G4"}, "analyze.py geometry"),
        ("**/features.json", {"Y1", "Y2", "Y3"}, "analyze.py features"),
        ("two-stages", {"F6"}, "no fine-tunings of runs of 2B"),
        ("finetune/2", {"F6"}, f"no run was fine-tuned at {FLRS[2]:.3g}"),
    ],
)
def test_what_is_missing_is_named(tmp_path, missing, unjudged, reason):
    write_ideal(tmp_path)
    remove(tmp_path, missing)
    found = verdicts(tmp_path)
    for name in unjudged:
        assert (found[name]["verdict"], found[name]["measured"]) == ("not measurable", {}), name
        assert re.search(reason, found[name]["missing"]), found[name]["missing"]
        assert verdict_line(found[name]).startswith(
            f"{name} not measurable: {found[name]['missing']} | criterion:"
        )
    assert found["R1"]["verdict"] == "holds"


@pytest.mark.parametrize(
    "missing, unjudged, reason",
    [
        ("converge", {"R5"}, "no runs that train until they converge: scripts/boundary.sh"),
        ("converge/*-9", {"R5"}, None),
        ("converge/0.00[234]*-[12]", {"R5"}, "four or more learning rates are needed"),
        (
            f"pretrain/{PLRS[17]}-*/norms.json",
            {"F7"},
            "norms of the initial point are not measured: analyze.py norms",
        ),
        (
            f"finetune/2/{PLRS[17]}-*/norms.json",
            {"F7"},
            "norms of fine-tuned runs are not measured: analyze.py norms",
        ),
        (f"pretrain/{PLRS[7]}-*/norms.json", {"F7"}, "norms of training at the highest FLR are not measured"),
        (
            "**/bands-reestimate.json",
            {"Z1", "Z2"},
            "frequency bands are not measured after pre-training: analyze.py bands",
        ),
        ("swa/*/bands-reestimate.json", {"Z1"}, "frequency bands are not measured after SWA: analyze.py bands"),
        (
            f"pretrain/{PLRS[16]}-*/bands-reestimate.json",
            {"Z2"},
            "bands are not measured after pre-training, for one at PLR 1: analyze.py bands",
        ),
        (f"pretrain/{PLRS[3]}-1/sharpness*", {"H1"}, None),
        ("pretrain/*/sharpness*", {"H1", "H2"}, "of fewer than five such settings: analyze.py sharpness"),
        # Two runs each of four.
        (
            "pretrain/0.00[1-9]*/sharpness*",
            {"H1", "H2"},
            "of fewer than five such settings: analyze.py sharpness",
        ),
        ("finetune/0/*/sharpness*", {"H2"}, "of fewer than five such settings: analyze.py sharpness"),
    ],
)
def test_what_is_missing_of_images_is_named(tmp_path, missing, unjudged, reason):
    write_image_ideal(tmp_path)
    remove(tmp_path, missing)
    for name, found in verdicts_of(OF_IMAGES, tmp_path).items():
        if name in unjudged and reason:
            assert found["verdict"] == "not measurable" and reason in found["missing"], found
        else:
            assert found["verdict"] == "holds", found


@pytest.mark.parametrize(
    "missing, claim, reason",
    [
        ("pretrain/geometry*", "G5", "analyze.py geometry"),
        ("swa/bands*", "Z4", "analyze.py bands"),
        ("finetune/0/low-ends*", "Z5", "analyze.py bands --low-ends"),
    ],
)
def test_what_is_missing_of_practical_networks_is_named(tmp_path, missing, claim, reason):
    write_practical_ideal(tmp_path, "transformer")
    remove(tmp_path, missing)
    verdict = verdict_of(claim, tmp_path)
    assert verdict["verdict"] == "not measurable" and reason in verdict["missing"], verdict


def test_geometry_that_is_missing_at_a_plr_is_named(tmp_path):
    write_image_ideal(tmp_path)
    remove(tmp_path, f"pretrain/{PLRS[16]}-*/geometry*")
    assert (
        verdict_of("G4", tmp_path)["missing"] == "geometry is not measured, for one at PLR 1: analyze.py geometry"
    )
    assert verdict_of("G3", tmp_path)["verdict"] == "holds"


# ----------------------------------------------------------------------------------------------- kinds of networks


@pytest.mark.parametrize("kind", NETWORKS)
def test_claims_that_are_not_about_practical_networks_say_what_they_are_about(tmp_path, kind):
    write_practical_ideal(tmp_path, kind)
    missing = {name: verdict.get("missing", "") for name, verdict in verdicts(tmp_path).items()}
    about = {name: reason for name, reason in missing.items() if reason.startswith("is about")}
    scale_invariant = dict.fromkeys(
        ("R3", "G1", "G2", "G3", "G4"), "is about the synthetic study and scale-invariant networks on images"
    )
    scale_invariant |= dict.fromkeys(("Z1", "Z2", "H1", "H2"), "is about scale-invariant networks on images")
    of_ticks = dict.fromkeys(OF_TICKS, "is about the synthetic study")
    other = {"Z4": "is about transformers", "Z5": "is about transformers"}
    if kind == "transformer":
        other = {"Z3": "is about practical convolutional networks"}
    converged = dict.fromkeys(
        ("R1", "F1", "W1"), "is about runs that have converged, which those of this network never do"
    )
    assert about == scale_invariant | of_ticks | other | converged
    no_regime_3 = {
        name for name, reason in missing.items() if reason.startswith("regime 3: this network has none")
    }
    assert no_regime_3 == {"F5", "F7", "W3"}


def test_claims_about_other_networks_say_so(tmp_path):
    write_image_ideal(tmp_path)
    missing = {name: verdict.get("missing") for name, verdict in verdicts(tmp_path).items()}
    assert {name: missing[name] for name in OF_PRACTICAL} == {
        "G5": "is about practical convolutional networks and transformers",
        "Z3": "is about practical convolutional networks",
        "Z4": "is about transformers",
        "Z5": "is about transformers",
    }
    assert {missing[name] for name in OF_TICKS} == {"is about the synthetic study"}


def test_kinds_are_those_of_the_records():
    assert {*KINDS} == {*models.KINDS} == set().union(*(figure.kinds for figure in FIGURES.values()))


def test_claims_of_image_runs_are_judged_by_the_same_criteria(tmp_path):
    """write_study: 2A is one PLR, 1e-2, at which fine-tuning gives 65 and 65.5 %, SWA 62 and 63 %; single runs."""
    write_study(tmp_path)
    found = verdicts(tmp_path, std=0.1)
    assert found["F3"]["verdict"] == "holds"
    assert parts(found["M1"], "holds") == {*found["M1"]["decisions"]} - {"b2AB / b12"}
    assert found["M1"]["measured"]["best fine-tuned in 2A"] == pytest.approx(65.5)
    assert found["M1"]["measured"]["best averaged in 2A"] == pytest.approx(63)
    assert found["Y1"]["missing"] == "is about the synthetic study"


# ------------------------------------------------------------------------------------------ what runs a claim looks at


def test_scratch_is_the_longest_training_at_a_rate(tmp_path):
    for name, write in (("images", write_image_ideal), ("ticks", write_ideal)):
        write(tmp_path / name)
        found = verdict_of("F6", tmp_path / name)
        assert found["measured"][f"{OF_LOW} scratch"] == pytest.approx(63.2)
        shutil.rmtree(tmp_path / name / "scratch")
        found = verdict_of("F6", tmp_path / name)
        assert found["measured"][f"{OF_LOW} scratch"] == pytest.approx(63.1) and found["verdict"] == "holds"
    for path in ("pretrain", "finetune/0"):
        remove(tmp_path / "images", f"{path}/{PLRS[0]}-*")
    assert verdict_of("F6", tmp_path / "images")["missing"] == f"no run was trained at {FLRS[0]} from scratch"


def test_members_that_diverged_are_skipped(tmp_path):
    write_ideal(tmp_path)
    path = tmp_path / "pretrain/metrics.json"
    metrics = json.loads(path.read_text())
    before = verdict_of("R3", tmp_path)["measured"]
    for name in ("train_loss", "test_loss"):
        for row in metrics[name][5:]:
            row[-1] = None  # the second run of the largest PLR
    path.write_text(json.dumps(metrics))
    assert verdict_of("R3", tmp_path)["measured"] == before


def test_runs_without_their_parent_tell_no_change(tmp_path):
    write_image_ideal(tmp_path)
    remove(tmp_path, f"pretrain/{PLRS[4]}-2")
    change = Evidence(Study(tmp_path)).finetuning_change(FLRS[0])
    assert [len(change[plr].values) for plr in PLRS[3:6]] == [2, 1, 2]
    assert change[PLRS[4]].mean == pytest.approx(0.1, abs=0.2)


# ------------------------------------------------------------------------------------------------- what is written


def test_every_claim_gets_one_line_and_json(tmp_path, monkeypatch, capsys):
    write_ideal(tmp_path / "runs", **finetuned(2, (0, 64.5)))
    command(monkeypatch, "claims", tmp_path / "runs", "--verbose", "--json", tmp_path / "claims.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "boundary 1|2: between 0.00562 and 0.01 (in 100 % of 1000 resamples of runs)"
    *lines, others = lines[3:]
    about_ticks = [claim.name for claim in CLAIMS if "ticks" in claim.kinds]
    assert [line.split()[0] for line in lines] == about_ticks
    assert others == "about other networks than the synthetic study: R5 F7 G5 Z1 Z2 Z3 Z4 Z5 H1 H2"
    assert lines[0].startswith("M1 holds: best fine-tuned in 2A 72.5, best averaged in 2A 75, best elsewhere 69,")
    assert lines[0].endswith("(abstract, section 4, figures 2 and 15)")
    assert re.search(r", b2AB / b12 3\.164 \[1\.78, 5\.623\] \| criterion: ", lines[0])
    [line] = [line for line in lines if line.startswith("F2")]
    assert re.match(r"F2 refuted: gain from the smallest PLR 1\.5 \[1\.\d+, 1\.\d+\] \(refuted\), smallest", line)
    assert "rank correlation 1 (p 0.001389)" in "".join(lines)
    written = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [entry["claim"] for entry in written] == [claim.name for claim in CLAIMS]
    first = written[0]
    assert first["verdict"] == "holds" and first["measured"]["best averaged in 2A"] == pytest.approx(75)
    assert first["measured"]["b2AB / b12"].keys() == {"estimate", "lower", "upper"}
    assert first["decisions"] == dict.fromkeys(
        ["lead of 2A, fine-tuned", "averaged", "of the better over everything", "b2AB / b12"], "holds"
    )
    [f2] = [entry for entry in written if entry["claim"] == "F2"]
    assert list(f2["decisions"].values()) == ["refuted", "holds", "holds"]
    assert {*first} == {"claim", "verdict", "measured", "decisions", "criterion", "source"}


def test_a_claim_is_a_short_line_with_what_decides_it(tmp_path, monkeypatch, capsys):
    write_ideal(tmp_path, **finetuned(2, (0, 64.5)))
    remove(tmp_path, "two-stages")
    command(monkeypatch, "claims", tmp_path)
    header, *lines = capsys.readouterr().out.splitlines()[3:]
    assert header == "accuracies in %, their differences in pp, angles in radians; estimate [95 % interval]"
    lines = {line.split()[0]: line for line in lines}
    assert (
        lines["R3"] == "R3 holds: regime 3 is at chance; farthest from chance 0.07071 and 1 more"
    )  # 0.1 / sqrt(2)
    assert re.fullmatch(
        r"F2 refuted: much larger FLRs jump; gain from the smallest PLR 1\.5 \[1\.\d+, 1\.\d+\]", lines["F2"]
    )
    missing = (
        "F6 not measurable: two stages restore quality; no fine-tunings of runs of 2B that went on at a PLR of 2A"
    )
    assert lines["F6"] == missing
    assert max(map(len, lines.values())) < 160


def test_intervals_that_nothing_tells_have_null_ends(tmp_path, monkeypatch, capsys):
    write_ideal(tmp_path / "runs", seeds=1)
    command(monkeypatch, "claims", tmp_path / "runs", "--json", tmp_path / "claims.json")
    text = capsys.readouterr().out
    assert re.search(
        r"\nM1 undecided: best solutions come from 2A; lead of 2A, fine-tuned \S+ \[\?\] and \d more", text
    )
    command(monkeypatch, "claims", tmp_path / "runs", "--verbose")
    text = capsys.readouterr().out
    written = {entry["claim"]: entry for entry in json.loads((tmp_path / "claims.json").read_text())["claims"]}
    lead = written["M1"]["measured"]["averaged"]
    assert lead == {"estimate": pytest.approx(8), "lower": None, "upper": None}
    assert "\nM1 undecided: " in text and ", averaged 8 [?] (undecided), " in text
    command(monkeypatch, "claims", tmp_path / "runs", "--verbose", "--run-std", 0.05)
    half = stats.norm.ppf(1 - 0.025 / 6) * 0.05 * np.sqrt(2)  # of six averages in 2A
    assert f", averaged 8 [{8 - half:.4g}, {8 + half:.4g}], of the better" in capsys.readouterr().out
