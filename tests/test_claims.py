"""The claims held against a study made by hand, in which all of them hold, and against ones in which each fails."""

import copy
import json
import re
import shutil

import numpy as np
import pytest
from test_analyze import EPOCHS, IMAGES, TICKS, command, set_network, write_run, write_study

import models
from data.analysis.claims import CLAIMS, judge
from data.analysis.evidence import KINDS
from data.analysis.figures import FIGURES
from data.analysis.regimes import measure_regimes
from data.analysis.study import Study
from data.files import write_json
from data.runs import geometry_name, sharpness_name

PLRS = [float(f"{10 ** (-4 + index / 4):.3g}") for index in range(14)]
REGIME_1, REGIME_2A, REGIME_2B, REGIME_3 = range(6), range(6, 8), range(8, 11), range(11, 14)
FLRS = [PLRS[0], PLRS[2], PLRS[5]]  # the last is b12, as in the paper
NOISE = 0.1 * np.array([-1, 1])  # pp, of two runs at every PLR

IDEAL = {
    "pretrained": [62, 63, 64, 65, 66, 67, 58, 57, 55, 52, 50.5, 50, 50, 50],
    "late_std": [0.0] * 6 + [2.5] * 5 + [0.0] * 3,  # std of the last tenth
    "train_accuracy": [99, 99.5] + [100] * 4 + [95, 93, 90, 80, 70, 55, 55, 55],
    "late_loss": [0.01] * 6 + [1, 2, 3, 4, 4.5, 10, 10, 10],
    "earlier_loss": [0.01] * 6 + [1, 2, 3, 4, 4.5, 10, 10, 10],  # the tenth before; it starts at 10
    "finetuned": [
        [62.1, 63.1, 64.1, 65.1, 66.1, 67.1, 72, 71.5, 67.8, 64, 59, 65, 65, 65],
        [62.3, 63.3, 64.1, 65.1, 66.1, 67.1, 72.3, 71.8, 68.5, 65, 61, 66, 66, 66],
        [66, 67, 64.4, 65.3, 66.2, 67.1, 72.5, 72, 69, 66.5, 65.9, 67, 67, 67],
    ],
    "two_stages": [72.2, 72.1],  # from PLR 9 by PLR 6 to the lowest and the highest FLR
    "scratch": [62.2, 67.2],  # trained at these alone for as long
    "averaged": {
        2: [62.05, 63.05, 64.05, 65.05, 66.05, 67.05, 68, 67, 60, 54, 50.5, 50, 50, 50],
        5: [62.05, 63.05, 64.05, 65.05, 66.05, 67.05, 70, 69, 60.5, 54.5, 50.8, 50, 50, 50],
        10: [62.05, 63.05, 64.05, 65.05, 66.05, 67.05, 74, 73, 61, 55, 51, 50, 50, 50],
    },
    # Best and second-best feature after every stage.
    "top_pretrained": [(52, 51.5)] * 6 + [(70, 55)] * 2 + [(54, 53)] * 6,
    "top_low": [(52, 51.5)] * 6 + [(72, 55)] * 2 + [(54, 53)] * 6,
    "top_high": [(52, 51.5)] * 6 + [(72, 55)] * 5 + [(54, 53)] * 3,
    "top_averaged": [(52, 51.5)] * 6 + [(74, 55)] * 2 + [(54, 53)] * 6,
    "angle": {
        "LH": [1.5] * 2 + [0.02] * 4 + [0.2, 0.25, 0.8, 1.1, 1.3, 1.56, 1.56, 1.58],
        "SH": [1.5] * 2 + [0.02] * 4 + [0.4, 0.45, 0.9, 1.2, 1.4, 1.57, 1.57, 1.57],
        "SL": [0.02] * 6 + [0.4, 0.45, 0.9, 1.2, 1.4, 1.57, 1.57, 1.57],
        "LP": [0.01] * 6 + [0.5] * 8,
    },
    "train_barrier": {
        "LH": [10] * 2 + [0] * 4 + [0.02, 0.03, 0.5, 2, 8, 20, 20, 20],
        "SH": [10] * 2 + [0] * 4 + [0.5, 1, 2, 4, 10, 20, 20, 20],
        "SL": [0] * 6 + [0.5, 1, 2, 4, 10, 20, 20, 20],
    },
    "test_barrier": {
        "LH": [5] * 2 + [0] * 4 + [0.02, 0.03, 0.4, 1, 4, 5, 5, 5],
        "SH": [5] * 2 + [0] * 4 + [0.1, 0.2, 1, 2, 5, 5, 5, 5],
        "SL": [0] * 6 + [0.1, 0.2, 1, 2, 5, 5, 5, 5],
    },
}

MEMBERS = [(index, seed) for index in range(len(PLRS)) for seed in (0, 1)]


def of_members(percents):
    """Fractions of the two runs at every PLR."""
    return [(percents[index] + NOISE[seed]) / 100 for index, seed in MEMBERS]


ALL_PLRS = range(len(PLRS))


def members(*later_lrs, indices=ALL_PLRS):
    return [{"lrs": [PLRS[i], *later_lrs], "seed": seed, "data_seed": 1} for i, seed in MEMBERS if i in indices]


def write_features(path, solution, tops):
    accuracies = [[0.5] * 14 + [tops[index][1] / 100, tops[index][0] / 100] for index, _ in MEMBERS]
    write_json(path / "features.json", {"solution": [solution], "balanced_accuracy": [accuracies]})


def write_ideal(folder, **changes):
    ideal = copy.deepcopy(IDEAL) | changes
    epochs = np.arange(EPOCHS + 1)
    final = of_members(ideal["pretrained"])
    losses = [
        np.select(
            [epochs == 0, epochs <= 16, epochs <= 18], [10, 5, ideal["earlier_loss"][i]], ideal["late_loss"][i]
        )
        for i, _ in MEMBERS
    ]
    pretraining = folder / "pretrain"
    write_run(
        pretraining,
        "pretrain",
        members(),
        TICKS,
        # Epochs 19 and 20 are the last tenth; two values have the unbiased standard deviation |difference| / sqrt(2).
        test_accuracy=[
            [0.6] * (EPOCHS - 1) + [value + 2**0.5 * ideal["late_std"][i] / 100, value]
            for (i, _), value in zip(MEMBERS, final)
        ],
        train_accuracy=[ideal["train_accuracy"][i] / 100 for i, _ in MEMBERS],
        train_loss=[list(map(float, of_member)) for of_member in losses],
    )
    write_features(pretraining, "checkpoint", ideal["top_pretrained"])
    for number, (flr, curve) in enumerate(zip(FLRS, ideal["finetuned"])):
        path = folder / f"finetune/{number}"
        write_run(path, "finetune", members(flr), TICKS, parent=pretraining, test_accuracy=of_members(curve))
        write_features(path, "checkpoint", ideal["top_high" if flr == FLRS[-1] else "top_low"])
    second_stage = members(PLRS[6], indices=[9])
    write_run(
        folder / "second-stage", "finetune", second_stage, TICKS, parent=pretraining, test_accuracy=[0.57] * 2
    )
    for flr, accuracy in zip(FLRS[::2], ideal["two_stages"]):
        two, settings = members(PLRS[6], flr, indices=[9]), TICKS | {"first_step": 2 * EPOCHS}
        series = {"test_accuracy": [accuracy / 100] * 2}
        write_run(folder / f"two-stages/{flr}", "finetune", two, settings, **series)
    for flr, accuracy in zip(FLRS[::2], ideal["scratch"]):
        throughout, settings = members(flr, flr, indices=[PLRS.index(flr)]), TICKS | {"first_step": 2 * EPOCHS}
        series = {"test_accuracy": [accuracy / 100] * 2}
        write_run(folder / f"scratch/{flr}", "finetune", throughout, settings, **series)
    windows = list(ideal["averaged"])
    swa = {"window": windows, "test_accuracy": [of_members(curve) for curve in ideal["averaged"].values()]}
    write_run(folder / "swa", "swa", members(), TICKS | {"windows": windows}, swa=swa)
    write_features(folder / "swa", f"swa-{windows[-1]}", ideal["top_averaged"])
    geometry = {
        quantity: {pair: [curve[index] for index, _ in MEMBERS] for pair, curve in ideal[quantity].items()}
        for quantity in ("angle", "train_barrier", "test_barrier")
    }
    write_json(pretraining / f"{geometry_name(FLRS[0], FLRS[-1])}.json", geometry)


def verdicts(folder):
    return {verdict["claim"]: verdict for verdict in judge(Study(folder))}


OF_PRACTICAL = {"G5", "Z3", "Z4", "Z5"}  # networks
OF_IMAGES = {"R5", "F7", "Z1", "Z2", "H1", "H2"}


def test_every_measurable_claim_holds_in_the_ideal_study(tmp_path):
    write_ideal(tmp_path)
    found = verdicts(tmp_path)
    missing = {name for name, verdict in found.items() if verdict["verdict"] == "not measurable"}
    assert missing == OF_PRACTICAL | OF_IMAGES
    assert [name for name, verdict in found.items() if verdict["verdict"] == "does not hold"] == []


def changed(name, *changes, key=None):
    """The ideal curve with {index: value} put in; key picks one of several curves."""
    curves = copy.deepcopy(IDEAL[name])
    curve = curves if key is None else curves[key]
    for index, value in changes:
        curve[index] = value
    return {name: curves}


BREAKS = [
    ("M1", changed("finetuned", (0, 75), key=2)),  # the smallest PLR with the high FLR is best
    ("M1", changed("averaged", (8, 74.05), key=10)),  # 2B averages as well, within the noise
    ("R1", changed("pretrained", (4, 62.5))),
    ("R1", changed("late_std", (5, 0.6))),
    ("R1", changed("train_accuracy", (3, 99.5))),
    ("M1", changed("averaged", (0, 74.5), key=10)),
    ("R2", changed("pretrained", (7, 59))),
    ("R2", changed("late_std", (8, 1.9))),
    ("R2", changed("earlier_loss", (9, 4.5))),
    ("R3", changed("pretrained", (12, 48.9))),
    ("R3", changed("late_loss", (13, 21))),
    ("F1", changed("finetuned", (4, 66.6), key=0)),
    ("F1", changed("angle", (5, 0.2), key="LP")),
    ("F2", changed("finetuned", (0, 63.5), key=2)),
    ("F2", changed("finetuned", (1, 63.4), (2, 63.4), (3, 64), (4, 67.1), key=2)),  # not abrupt
    ("F3", changed("finetuned", (0, 73), key=2)),
    ("F3", changed("finetuned", (3, 74), key=1)),
    ("F4", changed("finetuned", (10, 64), key=0)),
    ("F4", changed("finetuned", (10, 66.2), key=1)),
    ("F4", changed("finetuned", (8, 60), (9, 59), key=0)),  # wider at its first PLR
    ("F5", changed("finetuned", (11, 63), (12, 63), (13, 63), key=2)),
    ("F5", changed("finetuned", (11, 63), (12, 63), (13, 63), key=0)),
    ("F5", changed("finetuned", (11, 73), (12, 64), (13, 64), key=2)),
    ("F6", {"two_stages": [70.5, 72.1]}),
    ("F6", {"scratch": [72.1, 67.2]}),
    ("F6", {"scratch": [62.2, 66.4]}),
    ("F6", changed("finetuned", (9, 67.5), key=2)),
    ("W1", changed("averaged", (2, 64.5), key=2)),
    ("W2", changed("averaged", (6, 70.5), (7, 70), key=10)),
    ("W2", changed("averaged", (6, 75), key=2)),
    ("W2", changed("averaged", (8, 75), key=10)),  # best two grid steps away from the best fine-tuning
    ("W2", changed("pretrained", (6, 73))),
    ("W3", changed("averaged", (9, 62), key=10)),
    ("W3", changed("averaged", (10, 52), key=10)),
    ("W3", changed("averaged", (12, 51.5), key=5)),
    ("G1", changed("angle", (3, 0.2), key="SH")),
    ("G1", changed("test_barrier", (5, 0.2), key="LH")),
    ("G1", changed("angle", (1, 0.5), key="LH")),
    ("G1", changed("train_barrier", (0, 0.5), key="SH")),
    ("G1", changed("angle", (0, 0.2), key="SL")),
    ("G2", changed("angle", (6, 0.35), key="LH")),
    ("G2", changed("angle", (6, 0.001), key="LH")),
    (
        "G2",
        {
            "angle": {
                pair: [9.0 * a if i == 6 else a for i, a in enumerate(c)] for pair, c in IDEAL["angle"].items()
            }
        },
    ),
    ("G2", changed("test_barrier", (7, 0.2), key="LH")),
    ("G3", changed("angle", (9, 0.7), key="LH")),
    ("G3", changed("angle", (10, 1.15), key="LH")),
    ("G3", changed("train_barrier", (10, 0.6), key="LH") | changed("test_barrier", (10, 0.6), key="LH")),
    ("G4", changed("angle", (12, 1.3), key="LH")),
    ("G4", changed("train_barrier", (12, 0.5), key="SL")),
    ("Y1", changed("top_pretrained", (0, (61, 52)))),
    ("Y1", changed("pretrained", (0, 61))),
    ("Y2", changed("top_pretrained", (7, (64, 55)))),
    ("Y2", changed("top_low", (7, (68, 55)))),
    ("Y2", changed("top_averaged", (6, (68, 55)))),
    ("Y3", changed("top_pretrained", (9, (65, 54)))),
    ("Y3", changed("pretrained", (12, 51.5))),
    ("Y3", changed("top_high", (8, (54, 53)), (9, (54, 53)))),
    ("Y3", changed("pretrained", (10, 51.5))),  # at chance only in 3
    ("Y4", changed("finetuned", (8, 73), key=0)),
    ("Y4", changed("averaged", (6, 71.9), (7, 71), key=10)),
]


@pytest.mark.parametrize("claim, changes", BREAKS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(BREAKS)])
def test_a_claim_fails_where_the_runs_say_otherwise(tmp_path, claim, changes):
    write_ideal(tmp_path, **changes)
    verdict = verdicts(tmp_path)[claim]
    assert verdict["verdict"] == "does not hold", verdict


@pytest.mark.parametrize(
    "missing, unjudged, reason",
    [
        ("finetune", {"F1", "F2"}, "fine-tuning at two or more FLRs is missing"),
        (
            "finetune",
            {"M1", "F3", "F4", "F5", "G2", "G3", "Y2", "Y3", "Y4", "W2"},
            "b2AB is not bracketed|FLRs is missing",
        ),
        ("swa", {"W1", "W2", "Y2"}, "SWA with two or more windows"),
        ("pretrain/geometry*", {"F1", "G1", "G2", "G3", "G4"}, "analyze.py geometry"),
        ("**/features.json", {"Y1", "Y2", "Y3"}, "analyze.py features"),
        ("two-stages", {"F6"}, "no fine-tunings of runs of 2B"),
        ("finetune/2", {"F6"}, "no run was fine-tuned at 0.00178"),
    ],
)
def test_what_is_missing_is_named(tmp_path, missing, unjudged, reason):
    write_ideal(tmp_path)
    for path in tmp_path.glob(missing):
        for file in [path] if path.is_file() else path.rglob("*.json"):
            file.unlink()
    found = verdicts(tmp_path)
    for name in unjudged:
        assert found[name]["verdict"] == "not measurable", name
        assert re.search(reason, found[name]["missing"]), found[name]["missing"]
    assert found["R1"]["verdict"] == "holds"


# What is measured on image runs: the same regimes, one run per point

CONVERGE_LRS = [5e-4, 1e-3, 1.2e-3, 1.4e-3, 1.6e-3, 1.8e-3]
IMAGE_IDEAL = {
    "epochs": [30, 20, 22, 26, 35, 60],  # to converge
    "accuracy": [61, 62, 63, 64, 65, 66],  # there
    "bands": {
        stage: {
            "background": [54] * 10 + [51] * 4,
            "low": [58, 57, 56, 55, 54, 53, 55, 54, 53, 52, 51, 50, 50, 50],
            "mid": [52, 53, 54, 55, 56, 57, 65, 64, 60, 56, 54, 50, 50, 50],
            "high": [50] * 14,
        }
        for stage in ("pretrain", "swa", 0, 1, 2)  # numbers are those of FLRs
    },
    "decades": {
        "initial": 0.5,
        "end": 4,
        "low": 2.5,
        "high": 1.2,
        "scratch": 1,
    },  # of filter norms at the last PLR
    "sharpness": {  # by level: (gradient norm, test error) of pre-trainings and of fine-tunings at the lowest FLR
        0.5: (
            [1, 2, 3, 4, 5, 6] + [7] * 5,
            [40] * 11,
            [1, 2, 3, 4, 5, 6] + [1, 2, 3, 4, 5],
            [20] * 6 + [1, 2, 3, 4, 5],
        ),
        0.1: (
            [6, 5, 4, 3, 2, 1] + [7, 8, 9, 10, 11],
            [40, 39, 38, 37, 36, 35] + [41, 42, 43, 44, 45],
            [10, 20, 30, 40, 50, 60] + [1, 2, 3, 4, 5],
            [40, 50, 60, 70, 80, 90] + [30, 28, 31, 27, 29],
        ),
        0.02: ([1, 2, 3, 4], [1, 2, 3, 4], [], []),
    },
}


def norms_over(decades):
    """Norms of 201 filters whose percentiles 0.5 and 99.5 are this far apart."""
    return np.logspace(-decades / 0.99, 0, 201).tolist()


def write_image_ideal(folder, **changes):
    ideal = copy.deepcopy(IMAGE_IDEAL) | changes
    settings = IMAGES | {"classes": 2, "keep_loss": sorted(ideal["sharpness"])}

    def write(path, stage, lrs, index, accuracy, bands, norms, **others):
        members = [{"lrs": [PLRS[index], *lrs], "seed": 1}]
        others = {"train_loss": [[10] + [IDEAL["late_loss"][index]] * EPOCHS]} | others
        write_run(
            folder / path,
            stage,
            members,
            settings | others.pop("settings", {}),
            test_accuracy=[accuracy / 100],
            **others,
        )
        accuracies = {band: [curve[index] / 100] for band, curve in bands.items()}
        write_json(folder / path / "bands-reestimate.json", {"accuracy": accuracies})
        write_json(folder / path / "norms.json", {name: [norms_over(spread)] for name, spread in norms.items()})

    decades, bands, of_levels = ideal["decades"], ideal["bands"], ideal["sharpness"]
    for index in range(len(PLRS)):
        end = decades["scratch"] if index == 5 else decades["end"] if index == 13 else 0.7
        own = {"train_accuracy": [IDEAL["train_accuracy"][index] / 100]}
        norms = {"initial": decades["initial"], "checkpoint": end}
        write(
            f"pretrain/{index}", "pretrain", [], index, IDEAL["pretrained"][index], bands["pretrain"], norms, **own
        )
        swa = {
            "window": [5, 10],
            "test_accuracy": [[IDEAL["averaged"][window][index] / 100] for window in (5, 10)],
        }
        own = {"swa": swa, "settings": {"windows": [5, 10]}}
        write(f"swa/{index}", "swa", [], index, 50, bands["swa"], {"swa-5": 0.7}, **own)
        for number, flr in enumerate(FLRS):
            norms = {"checkpoint": {0: decades["low"], 1: 0.7, 2: decades["high"]}[number]}
            accuracy = IDEAL["finetuned"][number][index]
            write(f"finetune/{index}-{number}", "finetune", [flr], index, accuracy, bands[number], norms)
        for level, columns in of_levels.items():
            for path, (norm, error) in {
                f"pretrain/{index}": columns[:2],
                f"finetune/{index}-0": columns[2:],
            }.items():
                if index < len(norm):
                    measured = {
                        "gradient_norm": [norm[index]],
                        "test_accuracy": [1 - error[index] / 100],
                        "images": 1,
                    }
                    write_json(folder / path / f"{sharpness_name(level)}.json", measured)
    write("second-stage", "finetune", [PLRS[6]], 9, 57, bands[0], {"checkpoint": 0.7})
    of_second_stage = {"gradient_norm": [100], "test_accuracy": [0.01]}
    write_json(folder / "second-stage" / f"{sharpness_name(0.1)}.json", of_second_stage)
    for flr, accuracy in zip(FLRS[::2], IDEAL["two_stages"]):
        write(f"two-stages/{flr}", "finetune", [PLRS[6], flr], 9, accuracy, bands[0], {"checkpoint": 0.7})
    for lr, epochs, accuracy in zip(CONVERGE_LRS, ideal["epochs"], ideal["accuracy"]):
        losses = {1: [10] * epochs + [0.04], 2: [10] * 100}  # the second seed does not converge
        for seed, of_seed in losses.items():
            members, path = [{"lrs": [lr], "seed": seed}], folder / f"converge/{lr}-{seed}"
            series = {"train_loss": [of_seed], "test_accuracy": [accuracy / 100], "final_step": len(of_seed) - 1}
            write_run(path, "pretrain", members, settings | {"until_loss": 0.05}, **series)


def test_claims_of_images_hold_in_the_ideal_study(tmp_path):
    write_image_ideal(tmp_path)
    found = verdicts(tmp_path)
    assert {name for name in OF_IMAGES if found[name]["verdict"] == "holds"} == OF_IMAGES
    assert found["R5"]["measured"]["fewest epochs"] == pytest.approx(20)
    assert found["R5"]["measured"]["at the largest rate"] == pytest.approx(60)
    decades = [
        found["F7"]["measured"][name] for name in ("decades at first", "after regime 3", "from scratch at it")
    ]
    assert decades == pytest.approx([0.5, 4, 1])
    assert found["Z1"]["measured"]["SWA: mid band in 2A"] == pytest.approx(65)
    assert found["Z1"]["measured"]["SWA: best other band there"] == pytest.approx(55)
    assert found["Z2"]["measured"]["best band at the smallest PLR"] == "low"
    assert found["Z2"]["measured"]["farthest from chance beyond 2A"] == pytest.approx(4)
    assert [found[name]["measured"]["at train loss"] for name in ("H1", "H2")] == [0.1, 0.1]
    correlation = found["H2"]["measured"]["rank correlation of sharpness and test error"]
    assert correlation == pytest.approx(-0.3)


def changed_band(stage, band, *changes):
    bands = copy.deepcopy(IMAGE_IDEAL["bands"])
    for index, value in changes:
        bands[stage][band][index] = value
    return {"bands": bands}


def changed_sharpness(level, column, *changes):
    sharpness = copy.deepcopy(IMAGE_IDEAL["sharpness"])
    for index, value in changes:
        sharpness[level][column][index] = value
    return {"sharpness": sharpness}


IMAGE_BREAKS = [
    ("R5", {"epochs": [30, 20, 40, 50, 58, 62]}),  # as steep or less next to the boundary
    ("R5", {"epochs": [30, 20, 23, 25, 21, 20]}),  # does not rise
    ("R5", {"accuracy": [61, 62, 63, 66, 65, 64]}),
    ("R5", {"accuracy": [61, 62, 63, 64, 65, 72.6]}),  # fine-tuned from 2A: 72.5 %
    ("F7", {"decades": IMAGE_IDEAL["decades"] | {"initial": 1.1}}),
    ("F7", {"decades": IMAGE_IDEAL["decades"] | {"end": 2.9}}),
    ("F7", {"decades": IMAGE_IDEAL["decades"] | {"low": 1.9}}),
    ("F7", {"decades": IMAGE_IDEAL["decades"] | {"high": 1.4}}),
    ("F7", {"decades": IMAGE_IDEAL["decades"] | {"high": 0.6}}),
    *(("Z1", changed_band(stage, "mid", (5, 66))) for stage in ("pretrain", "swa", 0, 2)),
    *(("Z1", changed_band(stage, "high", (6, 66))) for stage in ("pretrain", "swa", 0, 2)),
    ("Z1", changed_band("pretrain", "background", (6, 65.5))),
    ("Z1", changed_band("swa", "mid", (9, 65.5))),
    ("Z2", changed_band("pretrain", "mid", (0, 58.5))),
    ("Z2", changed_band("pretrain", "high", (0, 58.5))),
    *(("Z2", changed_band("pretrain", band, (10, 55.5))) for band in ("background", "low", "mid", "high")),
    ("Z2", changed_band("pretrain", "low", (13, 44))),
    ("H1", changed_sharpness(0.1, 0, (0, 3.5), (1, 2.5))),
    ("H1", changed_sharpness(0.1, 1, (0, 36.5), (1, 35.5))),
    ("H2", changed_sharpness(0.1, 3, (6, 26), (7, 27), (8, 28), (9, 29), (10, 30))),
    ("H2", changed_sharpness(0.1, 3, (6, 31), (7, 30), (8, 29), (9, 28), (10, 27))),
]


@pytest.mark.parametrize(
    "claim, changes", IMAGE_BREAKS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(IMAGE_BREAKS)]
)
def test_a_claim_of_images_fails_where_the_runs_say_otherwise(tmp_path, claim, changes):
    write_image_ideal(tmp_path, **changes)
    verdict = verdicts(tmp_path)[claim]
    assert verdict["verdict"] == "does not hold", verdict


@pytest.mark.parametrize("changes", [changed_band(1, "mid", (5, 66)), changed_band(0, "low", (0, 70))])
def test_other_bands_and_stages_do_not_matter(tmp_path, changes):
    write_image_ideal(tmp_path, **changes)
    assert [verdicts(tmp_path)[name]["verdict"] for name in ("Z1", "Z2")] == ["holds"] * 2


@pytest.mark.parametrize(
    "missing, unjudged, reason",
    [
        ("converge", {"R5"}, "no runs that train until they converge: scripts/boundary.sh"),
        ("converge/*-2", {"R5"}, None),
        ("converge/0.00[01]*[568]-1", {"R5"}, "four or more learning rates are needed"),
        ("pretrain/13/norms.json", {"F7"}, "filter norms of the initial point are not measured: analyze.py norms"),
        ("finetune/13-2/norms.json", {"F7"}, "filter norms of fine-tuned runs are not measured: analyze.py norms"),
        ("pretrain/5/norms.json", {"F7"}, "filter norms of training at the highest FLR are not measured"),
        ("*/*/bands-reestimate.json", {"Z1", "Z2"}, "frequency bands are not measured: analyze.py bands"),
        ("swa/*/bands-reestimate.json", {"Z1"}, "frequency bands are not measured: analyze.py bands"),
        ("pretrain/12/bands-reestimate.json", {"Z2"}, "runs are missing, for one at PLR 0.1"),
        ("pretrain/3/sharpness*", {"H1"}, None),
        ("pretrain/[34]/sharpness*", {"H1"}, "of fewer than five such solutions: analyze.py sharpness"),
        ("finetune/[89]-0/sharpness*", {"H2"}, "of fewer than five such solutions: analyze.py sharpness"),
    ],
)
def test_what_is_missing_of_images_is_named(tmp_path, missing, unjudged, reason):
    write_image_ideal(tmp_path)
    for path in tmp_path.glob(missing):
        for file in [path] if path.is_file() else path.rglob("*.json"):
            file.unlink()
    found = verdicts(tmp_path)
    for name in OF_IMAGES:
        if name in unjudged and reason:
            assert found[name]["verdict"] == "not measurable" and reason in found[name]["missing"], found[name]
        else:
            assert found[name]["verdict"] == "holds", found[name]


# Practical networks: nothing converges or diverges, two FLRs, one run per point

NETWORKS = {
    kind: {
        "kind": kind,
        "converged": None,
        "diverges": False,
        "barrier": {"batch_norm": kind == "convolutional", "floor": 0.01},
    }
    for kind in ("convolutional", "transformer")
}
PEAKS_IN_2A = [52, 54, 56, 58, 59, 60, 65, 64, 60, 58, 56, 54, 52, 51]
PRACTICAL_IDEAL = {
    "pretrained": [50 + index for index in range(6)] + [56, 55.5, 55, 54, 53, 52, 51, 50],
    "late_loss": [6, 5, 4, 3, 2, 1, 1.5, 2, 3, 4, 5, 6, 7, 8],
    "finetuned": [
        [60, 61, 62, 63, 64, 65, 72, 71.5, 66, 64, 60, 58, 56, 54],
        [60, 61, 62, 63, 64, 65, 72.5, 72, 69, 68, 66, 65, 64, 63],
    ],
    "averaged": [60, 61, 62, 63, 64, 65, 70, 69, 66, 64, 60, 58, 56, 54],
    "angle": [0.9, 0.8, 0.5, 0.4, 0.3, 0.3, 0.2, 0.25, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0],
    "train_barrier": [0.3, 0.2, 0, 0, 0, 0, 0.1, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4],
    "test_barrier": [0.1, 0.1, 0, 0, 0, 0, 0.05, 0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
    "bands": {
        stage: {
            "background": [57] * 13 + [41],
            "low": [accuracy + 10 for accuracy in PEAKS_IN_2A],
            "mid": [*PEAKS_IN_2A],
            "high": [54, 46] * 7,
        }
        for stage in ("pretrain", "swa", 0, 1)  # numbers are those of FLRs
    },
    "low_ends": {end: {"low": [*PEAKS_IN_2A], "mid": [*PEAKS_IN_2A]} for end in (4, 16)},
}
PRACTICAL_FLRS = FLRS[::2]


def write_practical_ideal(folder, kind, **changes):
    ideal, settings = copy.deepcopy(PRACTICAL_IDEAL) | changes, IMAGES | {"classes": 2}
    normalisation = "reestimate" if NETWORKS[kind]["barrier"]["batch_norm"] else "keep"

    def write(path, stage, lrs, index, bands, **series):
        own = settings | ({"windows": [5]} if stage == "swa" else {})
        write_run(folder / path, stage, [{"lrs": [PLRS[index], *lrs], "seed": 1}], own, **series)
        accuracies = {band: [curve[index] / 100] for band, curve in bands.items()}
        write_json(folder / path / f"bands-{normalisation}.json", {"accuracy": accuracies})

    for index in range(len(PLRS)):
        series = {"train_loss": [[10] + [ideal["late_loss"][index]] * EPOCHS]}
        series["test_accuracy"] = [ideal["pretrained"][index] / 100]
        write(f"pretrain/{index}", "pretrain", [], index, ideal["bands"]["pretrain"], **series)
        geometry = {
            name: {"LH": [ideal[name][index]], "SH": [1.2], "SL": [1.2]}
            for name in ("angle", "train_barrier", "test_barrier")
        }
        write_json(folder / f"pretrain/{index}" / f"{geometry_name(*PRACTICAL_FLRS)}.json", geometry)
        swa = {"window": [5], "test_accuracy": [[ideal["averaged"][index] / 100]]}
        write(f"swa/{index}", "swa", [], index, ideal["bands"]["swa"], swa=swa)
        for number, (flr, curve) in enumerate(zip(PRACTICAL_FLRS, ideal["finetuned"])):
            path, series = f"finetune/{index}-{number}", {"test_accuracy": [curve[index] / 100]}
            write(path, "finetune", [flr], index, ideal["bands"][number], **series)
        accuracies = {
            band: {str(end): [curves[band][index] / 100] for end, curves in ideal["low_ends"].items()}
            for band in ("low", "mid")
        }
        measured = {"low_ends": sorted(ideal["low_ends"]), "accuracy": accuracies}
        write_json(folder / f"finetune/{index}-0/low-ends-{normalisation}.json", measured)
    set_network(folder, **NETWORKS[kind])


OF_KIND = {"convolutional": {"G5", "Z3"}, "transformer": {"G5", "Z4", "Z5"}}


@pytest.mark.parametrize("kind", NETWORKS)
def test_claims_of_practical_networks_hold_in_the_ideal_study(tmp_path, kind):
    write_practical_ideal(tmp_path, kind)
    assert measure_regimes(Study(tmp_path)) == {
        "b12": {"last": PLRS[5], "next": PLRS[6]},
        "b2AB": {"last": PLRS[7], "next": PLRS[8]},
        "b23": None,
    }
    found = verdicts(tmp_path)
    assert {name for name in OF_PRACTICAL if found[name]["verdict"] == "holds"} == OF_KIND[kind]
    assert found["M1"]["verdict"] == found["F3"]["verdict"] == found["F4"]["verdict"] == "holds"
    assert found["G5"]["measured"] == {
        "largest barrier(L, H) in 2A": 0.1,
        "elsewhere": 0.5,
        "largest angle(L, H) in 2A": 0.25,
        "at the smallest PLR": 0.9,
        "at the largest": 1.0,
    }


@pytest.mark.parametrize("kind", NETWORKS)
def test_claims_that_are_not_about_practical_networks_say_what_they_are_about(tmp_path, kind):
    write_practical_ideal(tmp_path, kind)
    missing = {name: verdict.get("missing", "") for name, verdict in verdicts(tmp_path).items()}
    about = {name: reason for name, reason in missing.items() if reason.startswith("is about")}
    scale_invariant = dict.fromkeys(
        ("R3", "G1", "G2", "G3", "G4"), "is about the synthetic study and scale-invariant networks on images"
    )
    scale_invariant |= dict.fromkeys(("Z1", "Z2", "H1", "H2"), "is about scale-invariant networks on images")
    of_ticks = dict.fromkeys(("Y1", "Y2", "Y3", "Y4"), "is about the synthetic study")
    other = {"Z4": "is about transformers", "Z5": "is about transformers"}
    if kind == "transformer":
        other = {"Z3": "is about practical convolutional networks"}
    converged = {"F1": "is about runs that have converged, which those of this network never do"}
    assert about == scale_invariant | of_ticks | other | converged
    no_regime_3 = {
        name for name, reason in missing.items() if reason.startswith("regime 3: this network has none")
    }
    assert no_regime_3 == {"F5", "F7", "W3"}


def test_claims_about_practical_networks_say_so_of_others(tmp_path):
    write_image_ideal(tmp_path)
    found = verdicts(tmp_path)
    assert {name: found[name]["missing"] for name in OF_PRACTICAL} == {
        "G5": "is about practical convolutional networks and transformers",
        "Z3": "is about practical convolutional networks",
        "Z4": "is about transformers",
        "Z5": "is about transformers",
    }


def changed_practical(name, *changes, keys=()):
    """The ideal with {index: value} put into a curve, which lies in nested dictionaries under keys."""
    whole = copy.deepcopy(PRACTICAL_IDEAL[name])
    curve = whole
    for key in keys:
        curve = curve[key]
    curve[:] = [dict(changes).get(index, value) for index, value in enumerate(curve)]
    return {name: whole}


PRACTICAL_STAGES = ("pretrain", "swa", 0)
PRACTICAL_BREAKS = [
    *(("G5", kind, changed_practical("train_barrier", (6, 0.11))) for kind in NETWORKS),
    ("G5", "convolutional", changed_practical("test_barrier", (7, 0.2))),
    ("G5", "convolutional", changed_practical("train_barrier", (12, 0.49))),
    ("G5", "transformer", changed_practical("angle", (7, 0.95))),
    ("G5", "transformer", changed_practical("angle", (0, 0.25))),
    ("G5", "transformer", changed_practical("angle", (13, 0.25))),
    *(
        ("Z3", "convolutional", changed_practical("bands", change, keys=(stage, "mid")))
        for stage in PRACTICAL_STAGES
        for change in ((5, 66), (8, 66))
    ),
    *(
        ("Z4", "transformer", changed_practical("bands", change, keys=(stage, band)))
        for stage in PRACTICAL_STAGES
        for band, change in [
            ("low", (5, 76)),
            ("mid", (8, 66)),
            ("low", (7, 63)),  # below the mid band
            ("mid", (7, 56)),  # below the background
            ("high", (0, 55.5)),
            ("high", (13, 44.5)),
            ("background", (3, 60.5)),
            ("background", (13, 39.5)),
        ]
    ),
    *(
        ("Z5", "transformer", changed_practical("low_ends", (index, 66), keys=(end, band)))
        for end, band, index in [(4, "low", 0), (4, "mid", 9), (16, "low", 5), (16, "mid", 13)]
    ),
]


@pytest.mark.parametrize(
    "claim, kind, changes", PRACTICAL_BREAKS, ids=[f"{n}-{name}" for n, (name, *_) in enumerate(PRACTICAL_BREAKS)]
)
def test_a_claim_of_practical_networks_fails_where_the_runs_say_otherwise(tmp_path, claim, kind, changes):
    write_practical_ideal(tmp_path, kind, **changes)
    verdict = verdicts(tmp_path)[claim]
    assert verdict["verdict"] == "does not hold", verdict


def test_the_end_of_the_low_band_that_moves_a_peak_is_named(tmp_path):
    write_practical_ideal(tmp_path, "transformer", **changed_practical("low_ends", (0, 66), keys=(16, "mid")))
    measured = verdicts(tmp_path)["Z5"]["measured"]
    assert measured == {"ends": "4, 16", "bands that peak outside 2A": "mid at 16"}


@pytest.mark.parametrize(
    "changes",
    [
        changed_practical("bands", (5, 90), keys=(1, "mid")),  # after the highest FLR
        changed_practical("bands", (0, 60), keys=("pretrain", "background")),
    ],
)
def test_what_claims_of_practical_networks_do_not_speak_of(tmp_path, changes):
    for kind, names in OF_KIND.items():
        write_practical_ideal(tmp_path / kind, kind, **changes)
        assert {verdicts(tmp_path / kind)[name]["verdict"] for name in names} == {"holds"}


@pytest.mark.parametrize(
    "missing, claim, reason",
    [
        ("pretrain/*/geometry*", "G5", "analyze.py geometry"),
        ("pretrain/13/geometry*", "G5", "the geometry of runs is missing, for one at PLR 0.178"),
        ("swa/*/bands*", "Z4", "analyze.py bands"),
        ("finetune/*/low-ends*", "Z5", "analyze.py bands --low-ends"),
    ],
)
def test_what_is_missing_of_practical_networks_is_named(tmp_path, missing, claim, reason):
    write_practical_ideal(tmp_path, "transformer")
    for path in tmp_path.glob(missing):
        path.unlink()
    verdict = verdicts(tmp_path)[claim]
    assert verdict["verdict"] == "not measurable" and reason in verdict["missing"], verdict


def test_kinds_are_those_of_the_records():
    assert {*KINDS} == {*models.KINDS} == set().union(*(figure.kinds for figure in FIGURES.values()))


def test_scratch_is_the_longest_training_at_a_rate(tmp_path):
    write_image_ideal(tmp_path / "images")
    write_ideal(tmp_path / "ticks")

    def measured(kind):
        return verdicts(tmp_path / kind)["F6"]["measured"]

    name = f"{PLRS[9]:.3g}, {PLRS[6]:.3g}, {FLRS[0]:.3g}: scratch"
    assert measured("ticks")[name] == pytest.approx(62.2) and measured("images")[name] == pytest.approx(62.1)
    shutil.rmtree(tmp_path / "ticks/scratch")
    assert (
        measured("ticks")[name] == pytest.approx(62.1) and verdicts(tmp_path / "ticks")["F6"]["verdict"] == "holds"
    )
    for path in ("pretrain/0", "finetune/0-0"):
        shutil.rmtree(tmp_path / "images" / path)
    assert verdicts(tmp_path / "images")["F6"]["missing"] == "no run was trained at 0.0001 from scratch"


def test_a_regime_2_without_2a_refutes_what_is_said_of_it(tmp_path):
    worse = copy.deepcopy(IDEAL["finetuned"])
    for curve in worse:
        curve[6:11] = [55, 54, 53, 52, 51]
    write_ideal(tmp_path, finetuned=worse)
    found = verdicts(tmp_path)
    assert [found[name]["verdict"] for name in ("M1", "F3")] == ["does not hold"] * 2
    assert found["G2"]["verdict"] == "not measurable"


def test_2a_does_not_reach_into_regime_3(tmp_path):
    as_good = copy.deepcopy(IDEAL["finetuned"])
    for curve in as_good:
        curve[12] = 72
    write_ideal(tmp_path, finetuned=as_good)
    assert measure_regimes(Study(tmp_path))["b2AB"].items() >= {"last": PLRS[7], "next": PLRS[8]}.items()


def test_members_that_diverged_are_skipped(tmp_path):
    write_ideal(tmp_path)
    path = tmp_path / "pretrain/metrics.json"
    metrics = json.loads(path.read_text())
    before = verdicts(tmp_path)["R3"]["measured"]
    for name in ("train_loss", "test_loss"):
        for row in metrics[name][5:]:
            row[-1] = None  # the second run of the largest PLR
    path.write_text(json.dumps(metrics))
    assert verdicts(tmp_path)["R3"]["measured"] == before


def test_claims_of_image_runs_are_judged_by_the_same_criteria(tmp_path):
    """write_study: 2A is one PLR, 1e-2, at which fine-tuning gives 65 and 65.5 %, SWA 62 and 63 %."""
    write_study(tmp_path)
    found = verdicts(tmp_path)
    assert found["F3"]["verdict"] == "holds" and found["M1"]["verdict"] == "holds"
    assert found["M1"]["measured"]["best fine-tuned in 2A"] == pytest.approx(65.5)
    assert found["M1"]["measured"]["best averaged in 2A"] == pytest.approx(63)
    assert found["Y1"]["missing"] == "is about the synthetic study"


def test_every_claim_gets_one_line_and_json(tmp_path, monkeypatch, capsys):
    write_ideal(tmp_path / "runs")
    command(monkeypatch, "claims", tmp_path / "runs", "--json", tmp_path / "claims.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "boundary 1|2: between 0.00178 and 0.00316 (in 100 % of 1000 resamples of runs)"
    lines = lines[3:]
    assert [line.split()[0] for line in lines] == [claim.name for claim in CLAIMS]
    assert lines[0].startswith("M1 holds: best fine-tuned in 2A 72.5, best averaged in 2A 74, best elsewhere 69,")
    assert lines[0].endswith("(abstract, section 4, figures 2 and 15)")
    written = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [entry["claim"] for entry in written] == [claim.name for claim in CLAIMS]
    assert written[0]["verdict"] == "holds" and written[0]["measured"]["best averaged in 2A"] == pytest.approx(74)
