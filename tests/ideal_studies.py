"""Studies written by hand in which every claim that is about their network holds.

    write_ideal(folder)                                          ticks
    write_image_ideal(folder, **changed("epochs", (0, 30)))      scale-invariant networks on images, with one number changed
    write_practical_ideal(folder, "transformer", seeds=1)        practical networks, one run per setting

IDEAL, IMAGE_IDEAL and PRACTICAL_IDEAL have the means over runs by index of the PLR, accuracies in percent, and in `noise`
the standard deviations of runs; changes replace entries of them. Where a mean is a list, it has a mean for every run.
seeds, data_seeds: how many there are; every setting has a run for each pair. draw: None for deviations whose mean and
standard deviation are exactly those wanted at every setting, or the seed of normal ones.
"""

import copy
import json
import math

import numpy as np
from test_analyze import EPOCHS, IMAGES, TICKS, set_network, whole, write_run

from data.runs import bands_name, geometry_name, low_ends_name, sharpness_name

PLRS = [float(f"{10 ** (-4 + index / 4):.3g}") for index in range(18)]
ALL_PLRS = range(len(PLRS))
REGIME_1, REGIME_2A, REGIME_2B, REGIME_3 = range(8), range(8, 10), range(10, 15), range(15, 18)
FLRS = [PLRS[0], PLRS[2], PLRS[7]]  # the last is b12, as in the paper
TWO_STAGES = (11, 8)  # PLRs of 2B and of 2A
INITIAL_LOSS = 10

IDEAL = {
    "pretrained": [63, 63.5, 64, 65, 65.5, 66, 66.5, 67, 58, 57, 55, 54, 53, 52, 51.5, 50, 50, 50],
    "late_std": [0.1] * 8 + [3.0] * 7 + [0.1] * 3,  # std of the last tenth
    "train_accuracy": [99, 99.5] + [100] * 6 + [95, 93, 90, 85, 80, 75, 70, 55, 55, 55],
    "late_loss": [0.01] * 8 + [1, 2, 2.5, 3, 3.5, 4, 4.5, 10, 10, 10],
    "earlier_loss": [0.01] * 8 + [1, 2, 2.5, 3, 3.5, 4, 4.5, 10, 10, 10],  # the tenth before
    "finetuned": [
        [63.1, 63.6, 64.1, 65.1, 65.6, 66.1, 66.6, 67.1, 72, 71.5, 67, 65.3, 64, 62, 59, 65, 65, 65],
        [63.3, 63.8, 64.1, 65.1, 65.6, 66.1, 66.6, 67.1, 72.3, 71.8, 68.3, 66.5, 65, 63, 61, 66, 66, 66],
        [67, 67.5, 64.4, 65.3, 65.7, 66.2, 66.6, 67.1, 72.5, 72, 69, 66.3, 66.2, 66, 65.5, 66.8, 66.8, 66.8],
    ],
    "two_stages": [72.2, 72.1],  # from TWO_STAGES to the lowest and the highest FLR
    "scratch": [63.2, 68.5],  # trained at these alone for as long
    "averaged": {
        2: [63, 63.5, 64, 65, 65.5, 66, 66.5, 67, 68, 67, 60, 58, 56, 53, 51.5, 50, 50, 50],
        5: [63, 63.5, 64, 65, 65.5, 66, 66.5, 67, 70, 69, 60.5, 58.5, 56.5, 53.5, 51.7, 50, 50, 50],
        10: [63, 63.5, 64, 65, 65.5, 66, 66.5, 67, 75, 74, 61, 59, 57, 54, 52, 50, 50, 50],
    },
    # The best feature and the second, after every stage.
    "top_pretrained": [(52, 51.5)] * 8 + [(70, 55), (67, 54)] + [(54, 53)] * 8,
    "top_low": [(52, 51.5)] * 8 + [(72, 55)] * 2 + [(54, 53)] * 8,
    "top_high": [(52, 51.5)] * 8 + [(72, 55)] * 7 + [(54, 53)] * 3,
    "top_averaged": [(52, 51.5)] * 8 + [(74, 55)] * 2 + [(54, 53)] * 8,
    "angle": {
        "LH": [1.5] * 2 + [0.02] * 6 + [0.2, 0.25, 0.7, 0.9, 1.1, 1.3, 1.4, 1.56, 1.56, 1.58],
        "SH": [1.5] * 2 + [0.02] * 6 + [0.4, 0.45, 0.9, 1.1, 1.2, 1.4, 1.5, 1.57, 1.57, 1.57],
        "SL": [0.02] * 8 + [0.4, 0.45, 0.9, 1.1, 1.2, 1.4, 1.5, 1.57, 1.57, 1.57],
        "LP": [0.01] * 8 + [0.5] * 10,
    },
    "train_barrier": {
        "LH": [5] * 2 + [0] * 6 + [0.02, 0.03, 0.5, 1, 2, 4, 8, 20, 20, 20],
        "SH": [5] * 2 + [0] * 6 + [0.5, 1, 2, 3, 4, 6, 10, 20, 20, 20],
        "SL": [0] * 8 + [0.5, 1, 2, 3, 4, 6, 10, 20, 20, 20],
    },
    "test_barrier": {
        "LH": [4] * 2 + [0] * 6 + [0.02, 0.03, 0.4, 1, 1.5, 2, 4, 5, 5, 5],
        "SH": [4] * 2 + [0] * 6 + [0.1, 0.2, 1, 2, 3, 4, 5, 5, 5, 5],
        "SL": [0] * 8 + [0.1, 0.2, 1, 2, 3, 4, 5, 5, 5, 5],
    },
    # Of accuracies, also those of single features, in pp; of others, relative to the mean.
    "noise": {
        "pretrained": 0.05,
        "late_std": 0.05,
        "finetuned": 0.1,
        "two_stages": 0.1,
        "scratch": 0.1,
        "averaged": 0.05,
        "features": 0.1,
        "angle": 0.01,
        "train_barrier": 0.01,
        "test_barrier": 0.01,
        "data_seed": 0.02,  # by which data seeds differ in how far accuracies are from chance
    },
}

# What else is measured on images. Bands and sharpness are those of stages: numbers are the indices of FLRs.
CONVERGE_LRS = [1e-3, 2e-3, 2.5e-3, 3e-3, 3.5e-3, 4e-3, 4.5e-3]
DID_NOT_CONVERGE = 9  # the seed of one more run at each of these
IMAGE_IDEAL = IDEAL | {
    "epochs": [120, 60, 64, 70, 82, 110, 200],  # to converge
    "accuracy": [61, 62, 63, 64, 65, 65.5, 66],  # there
    "bands": {
        stage: {
            "background": [54] * 14 + [51] * 4,
            "low": [58, 58, 57.5, 57, 56, 55, 54, 53, 55, 54, 53, 52, 52, 51.5, 51, 50, 50, 50],
            "mid": [52, 52, 52.5, 53, 54, 55, 56, 57, 65, 64, 60, 58, 57, 55, 52, 50, 50, 50],
            "high": [50] * 18,
        }
        for stage in ("pretrain", "swa", 0, 1, 2)
    },
    "other_bands": {},  # the same by normalisation
    # Of filter norms, at first, after the last PLR, after the lowest and the highest FLR, and from scratch.
    "decades": {"initial": 0.5, "end": 4, "low": 2.5, "high": 1, "scratch": 0.9},
    # Measures of sharpness are these powers of the gradient norm.
    "powers": {"gradient_norm": 1, "largest_eigenvalue": 2, "trace": 1.5},
    "sharpness": {  # by level of train loss and stage: gradient norm and test error by index of the PLR
        0.5: {
            "pretrain": {index: (1 + index, 40 + index) for index in range(8)},
            0: dict.fromkeys(range(8, 15), (1, 20)),
        },
        0.1: {
            "pretrain": {index: (8 - index, 42 - index) for index in range(8)} | {8: (9, 44), 9: (10, 45)},
            0: {8: (4, 30), 9: (1, 28), 10: (6, 31), 11: (2, 29), 12: (7, 27), 13: (3, 32), 14: (5, 26)}
            | {0: (10, 40), 1: (20, 50)},  # those of PLRs in other regimes do not count
        },
        0.02: {"pretrain": {0: (1, 1)}, 0: {8: (1, 1)}},  # too few
    },
    "noise": IDEAL["noise"]
    | {"epochs": 0.01, "accuracy": 0.1, "bands": 0.1, "decades": 0.01, "sharpness": 0.001, "error": 0.001},
}

NETWORKS = {
    kind: {
        "kind": kind,
        "converged": None,
        "diverges": False,
        "barrier": {"points": 21, "on_sphere": False, "batch_norm": kind == "convolutional", "floor": 0.01},
    }
    for kind in ("convolutional", "transformer")
}
PEAKS_IN_2A = [51, 52, 53, 54, 56, 58, 59, 60, 65, 64, 60, 59, 58, 57, 56, 54, 52, 51]
PRACTICAL_IDEAL = {
    "pretrained": [*range(48, 56), 56, 55.5, 55, 54.5, 54, 53.5, 53, 52, 51, 50],
    "late_std": [0.1] * 8 + [3.0] * 10,
    "train_accuracy": [90] * 18,
    "late_loss": [8, 7, 6, 5, 4, 3, 2, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8],
    "earlier_loss": [8, 7, 6, 5, 4, 3, 2, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8],
    "finetuned": [
        [58, 59, 60, 61, 62, 63, 64, 65, 72, 71.5, 67, 66, 65, 64, 62, 60, 58, 56],
        [58, 59, 60, 61, 62, 63, 64, 65, 72.5, 72, 69, 68, 67.5, 67, 66, 65, 64, 63],
    ],
    "averaged": {
        2: [58, 59, 60, 61, 62, 63, 64, 65, 68, 67, 65, 63, 62, 61, 59, 57, 55, 53],
        5: [58, 59, 60, 61, 62, 63, 64, 65, 70, 69, 66, 64, 63, 62, 60, 58, 56, 54],
        10: [58, 59, 60, 61, 62, 63, 64, 65, 74, 73, 67, 65, 64, 63, 61, 59, 57, 55],
    },
    "angle": [0.9, 0.8, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.2, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9, 1.0],
    "train_barrier": [0.3, 0.2, 0, 0, 0, 0, 0, 0, 0.05, 0.02, 0.05, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6, 0.5],
    "test_barrier": [0.1, 0.1, 0, 0, 0, 0, 0, 0, 0.02, 0.05, 0.05, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3],
    "bands": {
        stage: {
            "background": [57] * 17 + [43],
            "low": [accuracy + 10 for accuracy in PEAKS_IN_2A],
            "mid": [*PEAKS_IN_2A],
            "high": [53, 47] * 9,
        }
        for stage in ("pretrain", "swa", 0, 1)
    },
    "low_ends": {end: {"low": [*PEAKS_IN_2A], "mid": [*PEAKS_IN_2A]} for end in (4, 16)},
    "noise": {
        "pretrained": 0.1,
        "late_std": 0.05,
        "finetuned": 0.1,
        "averaged": 0.1,
        "angle": 0.01,
        "train_barrier": 0.01,
        "test_barrier": 0.01,
        "bands": 0.1,
        "low_ends": 0.1,
    },
}
PRACTICAL_FLRS = FLRS[:2]  # both of regime 1, as only these count for 2A of networks that never converge


def changed(name, *changes, keys=(), of=IDEAL):
    """An entry of an ideal with {key: value} put in, in what lies in nested dictionaries or lists under `keys`."""
    whole = copy.deepcopy(of[name])
    inside = whole
    for key in keys:
        inside = inside[key]
    for key, value in changes:
        inside[key] = value
    return {name: whole}


class Runs:
    """The runs of a setting, a (data seed, seed) each, and by what they differ."""

    def __init__(self, ideal, seeds, data_seeds=1, draw=None):
        self.keys = [(data_seed, seed) for data_seed in range(1, data_seeds + 1) for seed in range(1, seeds + 1)]
        self.noise, self.exact, self.random = ideal["noise"], draw is None, np.random.default_rng(draw or 0)
        middle = (data_seeds + 1) / 2
        self.ease = [1 + self.noise.get("data_seed", 0) * (data_seed - middle) for data_seed, _ in self.keys]

    def members(self, settings, *later_lrs, indices=ALL_PLRS):
        """Those of all settings, one setting after the other, as numbers of runs are everywhere here."""
        of_ticks = settings["data"] == "ticks"
        return [
            {"lrs": [PLRS[index], *later_lrs], "seed": seed} | ({"data_seed": data_seed} if of_ticks else {})
            for index in indices
            for data_seed, seed in self.keys
        ]

    def every(self, means):
        """The means themselves."""
        return [float(number) for mean in means for number in np.broadcast_to(mean, len(self.keys))]

    def deviates(self, settings):
        """Standard normal ones, float64 [settings, runs]."""
        found = self.random.standard_normal((settings, len(self.keys)))
        if not self.exact:
            return found
        found -= found.mean(axis=1, keepdims=True)
        return found / found.std(axis=1, ddof=1, keepdims=True) if len(self.keys) > 1 else found

    def relative(self, name, means):
        """Numbers whose standard deviations are relative to their means."""
        factors = 1 + self.noise[name] * self.deviates(len(means))
        return [mean * factor for mean, factor in zip(self.every(means), factors.ravel().tolist())]

    def accuracies(self, name, percents, chance=50):
        """Fractions; of a data seed that is easier all accuracies are farther from chance."""
        found = np.reshape(self.every(percents), (len(percents), -1))
        found = chance + (found - chance) * self.ease + self.noise[name] * self.deviates(len(percents))
        return (found.ravel() / 100).tolist()


def write_stage(path, stage, members, settings, parent=None, swa=None, measured=None, apart=False, **series):
    """A run folder, see test_analyze.write_run(), with measurements {name: content}; apart: one for each member.

    Numbers of members are lists, in the dictionaries of measurements as well.
    """
    measured = measured or {}
    if not apart:
        write_run(path, stage, members, settings, parent=parent, swa=swa, **series)
        for name, content in measured.items():
            (path / f"{name}.json").write_text(json.dumps(whole(name, content)))
        return
    for index, member in enumerate(members):
        write_stage(
            path / folder_name(member),
            stage,
            [member],
            settings,
            parent=parent and parent / folder_name(member),
            swa=swa and swa | {"test_accuracy": [[of_window[index]] for of_window in swa["test_accuracy"]]},
            measured=of_member(measured, index),
            **of_member(series, index),
        )


def folder_name(member):
    return f"{member['lrs'][0]}-{member['seed']}"


def of_member(content, index):
    """What holds for a member alone of numbers of members in nested dictionaries."""
    if isinstance(content, dict):
        return {key: of_member(value, index) for key, value in content.items()}
    return [content[index]] if isinstance(content, list) else content


# --------------------------------------------------------------------------------------- what all studies have in common


def write_common(folder, ideal, runs, settings, flrs, measured, apart=False):
    """Pre-training, fine-tuning and SWA. measured: {`pretrain`, `swa` or the index of an FLR: measurements}."""

    def write(path, stage, *later_lrs, own=None, **what):
        key = int(path.name) if stage == "finetune" else stage
        members = runs.members(settings, *later_lrs)
        write_stage(path, stage, members, settings | (own or {}), measured=measured[key], apart=apart, **what)

    pretraining, windows = folder / "pretrain", list(ideal["averaged"])
    write(pretraining, "pretrain", **pretraining_series(ideal, runs))
    for number, (flr, curve) in enumerate(zip(flrs, ideal["finetuned"])):
        accuracies = runs.accuracies("finetuned", curve)
        write(folder / f"finetune/{number}", "finetune", flr, parent=pretraining, test_accuracy=accuracies)
    of_windows = [runs.accuracies("averaged", curve) for curve in ideal["averaged"].values()]
    swa = {"window": windows, "test_accuracy": of_windows}
    write(folder / "swa", "swa", own={"windows": windows}, parent=pretraining, swa=swa)


def pretraining_series(ideal, runs):
    epochs, losses = np.arange(EPOCHS + 1), []
    for before, late in zip(runs.every(ideal["earlier_loss"]), runs.every(ideal["late_loss"])):
        of_run = np.select([epochs == 0, epochs <= 16, epochs <= 18], [INITIAL_LOSS, 5, before], late)
        losses.append(of_run.tolist())
    accuracies = runs.accuracies("pretrained", ideal["pretrained"])
    stds = runs.relative("late_std", ideal["late_std"])
    return {
        # Epochs 19 and 20 are the last tenth; two values have the unbiased standard deviation |difference| / sqrt(2).
        "test_accuracy": [
            [0.6] * (EPOCHS - 1) + [accuracy + math.sqrt(2) * std / 100, accuracy]
            for accuracy, std in zip(accuracies, stds)
        ],
        "train_accuracy": [percent / 100 for percent in runs.every(ideal["train_accuracy"])],
        "train_loss": losses,
    }


def geometry(ideal, runs, flrs):
    """Measurements {name: content}."""
    quantities = {
        quantity: {pair: runs.relative(quantity, curve) for pair, curve in ideal[quantity].items()}
        for quantity in ("angle", "train_barrier", "test_barrier")
    }
    return {geometry_name(flrs[0], flrs[-1]): quantities}


def write_two_stages(folder, ideal, runs, settings, apart=False):
    """From 2B to 2A (TWO_STAGES) to the lowest and the highest FLR, and training at these alone."""

    def write(name, first, *later_lrs, accuracies, first_step=2 * EPOCHS):
        members, own = runs.members(settings, *later_lrs, indices=[first]), settings | {"first_step": first_step}
        write_stage(folder / name, "finetune", members, own, test_accuracy=accuracies, apart=apart)

    of_2b, of_2a = TWO_STAGES
    write("second-stage", of_2b, PLRS[of_2a], accuracies=runs.every([0.57]), first_step=0)
    for flr, percent in zip(FLRS[::2], ideal["two_stages"]):
        accuracies = runs.accuracies("two_stages", [percent])
        write(f"two-stages/{flr}", of_2b, PLRS[of_2a], flr, accuracies=accuracies)
    for flr, percent in zip(FLRS[::2], ideal["scratch"]):
        write(f"scratch/{flr}", PLRS.index(flr), flr, flr, accuracies=runs.accuracies("scratch", [percent]))


# ---------------------------------------------------------------------------------------------------------------- ticks


def write_ideal(folder, seeds=2, data_seeds=1, draw=None, **changes):
    ideal, settings = IDEAL | changes, TICKS
    runs = Runs(ideal, seeds, data_seeds, draw)

    def features(solution, tops):
        first, second = (runs.accuracies("features", column) for column in zip(*tops))
        accuracies = [[0.5] * 14 + [*reversed(of_run)] for of_run in zip(first, second)]
        return {"features": {"solution": [solution], "balanced_accuracy": [accuracies]}}

    measured = {
        "pretrain": features("checkpoint", ideal["top_pretrained"]) | geometry(ideal, runs, FLRS),
        "swa": features(f"swa-{max(ideal['averaged'])}", ideal["top_averaged"]),
        0: features("checkpoint", ideal["top_low"]),
        1: features("checkpoint", ideal["top_low"]),
        2: features("checkpoint", ideal["top_high"]),
    }
    write_common(folder, ideal, runs, settings, FLRS, measured)
    write_two_stages(folder, ideal, runs, settings)


# ----------------------------------------------------------------------------------------------------- image networks


def write_image_ideal(folder, seeds=2, draw=None, **changes):
    """Every run has its own folder, as runs on images do."""
    ideal = IMAGE_IDEAL | changes
    settings = IMAGES | {"classes": 2, "keep_loss": sorted(ideal["sharpness"])}
    runs = Runs(ideal, seeds, draw=draw)
    of_bands = {"reestimate": ideal["bands"]} | ideal["other_bands"]
    measured = {
        stage: {bands_name(normalisation): bands(runs, of[stage]) for normalisation, of in of_bands.items()}
        for stage in ideal["bands"]
    }
    for stage, content in norms(ideal["decades"], runs).items():
        measured[stage]["norms"] = content
    measured["pretrain"] |= geometry(ideal, runs, FLRS)
    write_common(folder, ideal, runs, settings, FLRS, measured, apart=True)
    write_two_stages(folder, ideal, runs, settings, apart=True)
    write_converging(folder / "converge", ideal, runs, settings)
    write_sharpness(folder, ideal, runs)


def bands(runs, curves):
    return {"accuracy": {band: runs.accuracies("bands", curve) for band, curve in curves.items()}}


def norms(decades, runs):
    """Filter norms, by stage and solution, of runs at the PLRs that claims speak of, others have null."""

    def of(by_index):
        found = []
        for index in ALL_PLRS:
            spreads = runs.relative("decades", [by_index.get(index, 1)])
            found += [norms_over(spread) if index in by_index else None for spread in spreads]
        return found

    scratch, last = PLRS.index(FLRS[-1]), ALL_PLRS[-1]
    return {
        "pretrain": {
            "initial": of({last: decades["initial"]}),
            "checkpoint": of({scratch: decades["scratch"], last: decades["end"]}),
        },
        0: {"checkpoint": of({last: decades["low"]})},
        2: {"checkpoint": of({last: decades["high"]})},
    }


def norms_over(decades):
    """Norms of two filters whose percentiles 0.5 and 99.5 are this far apart."""
    return [10 ** (-decades / 0.99), 1.0]


def write_converging(folder, ideal, runs, settings):
    """Runs that train until they converge, and at every learning rate one that does not."""
    for lr, epochs, percent in zip(CONVERGE_LRS, ideal["epochs"], ideal["accuracy"]):
        of_runs = zip(
            [seed for _, seed in runs.keys],
            runs.relative("epochs", [epochs]),
            runs.accuracies("accuracy", [percent]),
        )
        losses = [(seed, [10] * round(epochs) + [0.04], accuracy) for seed, epochs, accuracy in of_runs]
        for seed, loss, accuracy in [*losses, (DID_NOT_CONVERGE, [10] * 100, 0.6)]:
            write_run(
                folder / f"{lr}-{seed}",
                "pretrain",
                [{"lrs": [lr], "seed": seed}],
                settings | {"until_loss": 0.05},
                train_loss=[loss],
                test_accuracy=[accuracy],
                final_step=len(loss) - 1,
            )


def write_sharpness(folder, ideal, runs):
    """All measures of it, beside runs with a folder each; that of a second stage must not count."""
    for level, of_stages in ideal["sharpness"].items():
        name = f"{sharpness_name(level)}.json"
        for path, points in (("pretrain", of_stages["pretrain"]), ("finetune/0", of_stages[0])):
            for index, (gradient_norm, error) in points.items():
                columns = runs.relative("sharpness", [gradient_norm]), runs.relative("error", [error])
                for (_, seed), of_run, percent in zip(runs.keys, *columns):
                    powers = {measure: [of_run**power] for measure, power in ideal["powers"].items()}
                    content = powers | {"test_accuracy": [1 - percent / 100], "images": 1}
                    (folder / path / f"{PLRS[index]}-{seed}" / name).write_text(json.dumps(whole(name, content)))
        for path in (folder / "second-stage").iterdir():
            content = dict.fromkeys(ideal["powers"], [100]) | {"test_accuracy": [0.01], "images": 1}
            (path / name).write_text(json.dumps(whole(name, content)))


# -------------------------------------------------------------------------------------------------- practical networks


def write_practical_ideal(folder, kind, seeds=2, draw=None, **changes):
    ideal, settings = PRACTICAL_IDEAL | changes, IMAGES | {"classes": 2}
    normalisation = "reestimate" if NETWORKS[kind]["barrier"]["batch_norm"] else "keep"
    runs = Runs(ideal, seeds, draw=draw)
    measured = {stage: {bands_name(normalisation): bands(runs, of)} for stage, of in ideal["bands"].items()}
    of_pairs = {"SH": [1.2] * len(PLRS), "SL": [1.2] * len(PLRS)}
    quantities = {name: of_pairs | {"LH": ideal[name]} for name in ("angle", "train_barrier", "test_barrier")}
    measured["pretrain"] |= geometry(quantities, runs, PRACTICAL_FLRS)
    accuracies = {
        band: {str(end): runs.accuracies("low_ends", curves[band]) for end, curves in ideal["low_ends"].items()}
        for band in ("low", "mid")
    }
    measured[0][low_ends_name(normalisation)] = {"low_ends": sorted(ideal["low_ends"]), "accuracy": accuracies}
    write_common(folder, ideal, runs, settings, PRACTICAL_FLRS, measured)
    set_network(folder, **NETWORKS[kind])
