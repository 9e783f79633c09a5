"""The numbers behind each figure: a function of a study for each, which gathers what the figure shows.

Accuracies are in percent, `std` are sample standard deviations (n - 1) over runs, null where there is one. Functions
raise BadInput where the runs of a study do not permit the figure.
"""

import numpy as np
import torch

from data import bands, ticks
from data.analysis.regimes import convergence_level, measure_regimes
from data.analysis.study import (
    GEOMETRY_PAIRS,
    GEOMETRY_WINDOW,
    at_convergence,
    features_of,
    final,
    geometry_of,
    late_values,
    measurement,
    of_average,
    of_measurement,
    stage_of,
)
from data.commandline import BadInput, lr_name
from data.runs import bands_name, low_ends_name, sharpness_name


def mean_and_std(values_by_plr, scale=100, ddof=1):
    """Mean, standard deviation and number of values at every PLR, as lists; in percent, or times scale.

    ddof: 1 for that of a sample, which is null of a single value; 0 for that of a population.
    """
    return {
        "plr": list(values_by_plr),
        "mean": [scale * float(np.mean(values)) for values in values_by_plr.values()],
        "std": [
            scale * float(np.std(values, ddof=ddof)) if len(values) > ddof else None
            for values in values_by_plr.values()
        ],
        "n": [len(values) for values in values_by_plr.values()],
    }


def quartiles(values_by_plr):
    """Median, lower and upper quartile and number of values at every PLR, as lists."""
    lower, median, upper = zip(*(np.percentile(values, (25, 50, 75)) for values in values_by_plr.values()))
    return {
        "plr": list(values_by_plr),
        "median": list(map(float, median)),
        "lower": list(map(float, lower)),
        "upper": list(map(float, upper)),
        "n": [len(values) for values in values_by_plr.values()],
    }


def regime_numbers(study):
    """Figure 1: test accuracy over the last tenth of pre-training; mean and std (population) over epochs (and runs).

    There is no std where a run has a single logged epoch in that tenth.
    """
    values = study.by_plr("pretrain", late_values("test_accuracy"), every_seed=True)
    pooled = {plr: np.concatenate(of_runs) for plr, of_runs in values.items()}
    pooled = {plr: of_plr[np.isfinite(of_plr)] for plr, of_plr in pooled.items()}
    regimes = measure_regimes(study) | {"b2AB": None}  # which pre-training alone does not show
    found, shortest = mean_and_std(pooled, ddof=0), [min(map(len, of_runs)) for of_runs in values.values()]
    found["std"] = [std if epochs > 1 else None for std, epochs in zip(found["std"], shortest)]
    return {
        "regimes": regimes,
        "pretrain": found,
        "n": "logged epochs times runs",
        "runs_per_point": fewest_and_most(map(len, values.values())),
        "deviations": "over the last tenth of pre-training"
        if any(std is not None for std in found["std"])
        else None,
    }


def fewest_and_most(counts):
    """[fewest, most] of the numbers of runs at those points of a figure that have some; empty where none has."""
    counts = [count for count in counts if count]
    return [min(counts), max(counts)] if counts else []


def runs_per_point(numbers):
    """fewest_and_most() of what stands under `n` in the numbers of a figure."""
    counts = []
    for found in found_under(numbers, "n"):
        counts += found if isinstance(found, list) else [found]
    return fewest_and_most(counts)


def found_under(numbers, name):
    """All that stands under a name, in nested dictionaries and lists, in order."""
    if isinstance(numbers, dict):
        own = [numbers[name]] if name in numbers else []
        return own + found_under([*numbers.values()], name)
    return (
        [found for inside in numbers for found in found_under(inside, name)] if isinstance(numbers, list) else []
    )


def flrs_near(study, wanted):
    """The FLRs of a study that are among those wanted, however they were rounded."""
    return [flr for flr in study.flrs() if np.isclose(flr, wanted, rtol=0.02).any()]


FIGURE_15_FLRS = (10**-4.5, 10**-3.75, 1e-3, 10**-2.5, 10**-2.125)  # those that the paper shows of its eleven


def tick_accuracy_numbers(study):
    """Figure 15: accuracy_numbers(); where more FLRs are there than the paper shows, `drawn_flrs` are the paper's."""
    drawn = flrs_near(study, FIGURE_15_FLRS)
    enough = len(drawn) == len(FIGURE_15_FLRS)
    return accuracy_numbers(study) | ({"drawn_flrs": drawn} if enough else {})


def accuracy_numbers(study):
    """Figures 2 and 15: final test accuracy after pre-training, fine-tuning and SWA; mean and std over runs."""
    accuracy = final("test_accuracy")
    return {
        "regimes": measure_regimes(study),
        "pretrain": mean_and_std(study.by_plr("pretrain", accuracy)),
        "finetune": [{"flr": flr} | mean_and_std(study.by_plr("finetune", accuracy, flr)) for flr in study.flrs()],
        "swa": [{"window": k} | mean_and_std(study.by_plr("swa", of_average(k))) for k in study.windows()],
    }


def tick_numbers(study):
    """Figure 4: feature 0 of the training set of data seed 1."""
    sets = ticks.tick_sets(1)
    x1 = torch.linspace(-ticks.HALF_WIDTH, ticks.HALF_WIDTH, 5)
    return {
        "points": sets.train_inputs[:, :2],
        "labels": sets.train_labels,
        "boundary_x1": x1,
        "boundary_x2": torch.stack(ticks.boundary_curves(x1)),
    }


def geometry_numbers(study):
    """Figures 3 and 16: angles, mean and std over runs, and barriers, median and quartiles, of three pairs."""
    low, high = study.extreme_flrs()
    if GEOMETRY_WINDOW not in study.windows():
        raise BadInput(f"{study.folder}: holds no SWA of {GEOMETRY_WINDOW} weights; make it with swa.py --windows")
    measured = {
        quantity: {
            pair: study.by_plr("pretrain", geometry_of(low, high, quantity, pair)) for pair in GEOMETRY_PAIRS
        }
        for quantity in ("angle", "train_barrier", "test_barrier")
    }
    if not measured["angle"]["LH"]:
        raise BadInput(f"{study.folder}: geometry is not measured; run analyze.py geometry {study.folder}")
    return {
        "regimes": measure_regimes(study),
        "low_flr": low,
        "high_flr": high,
        "window": GEOMETRY_WINDOW,
        "floor": study.network["barrier"]["floor"],
        "angle": {pair: mean_and_std(values, scale=1) for pair, values in measured["angle"].items()},
        **{
            name: {pair: quartiles(values) for pair, values in measured[name].items()}
            for name in ("train_barrier", "test_barrier")
        },
    }


def band_numbers(study, normalisations=bands.NORMALISATIONS, high_flr=False):
    """Figure 7: test accuracy on frequency bands after pre-training, SWA and fine-tuning, in a row per normalisation.

    Fine-tuning is that at the lowest FLR, and with high_flr at the highest as well (figure 18).
    """
    columns = [("pretrain", None)]
    columns += [("swa", None)] if GEOMETRY_WINDOW in study.windows() else []
    flrs = study.flrs()
    columns += [("finetune", flr) for flr in sorted({*flrs[:1], *(flrs[-1:] if high_flr else [])})]
    rows = [
        {
            "normalisation": normalisation,
            "panels": [band_panel(study, normalisation, *column) for column in columns],
        }
        for normalisation in normalisations
        if any(measurement(run, bands_name(normalisation)) for run in study.runs)
    ]
    if not rows:
        raise BadInput(
            f"{study.folder}: accuracies on bands are not measured; run analyze.py bands {study.folder}"
        )
    return {"regimes": measure_regimes(study), "rows": rows}


def band_panel(study, normalisation, stage, flr):
    """Accuracies on every band after one stage; mean and std over runs."""
    name = bands_name(normalisation)
    names = dict.fromkeys(
        band for run in study.runs for band in (measurement(run, name) or {"accuracy": ()})["accuracy"]
    )
    later_lrs = [] if flr is None else [flr]
    by_band = {band: study.by_plr(stage, of_measurement(name, "accuracy", band), *later_lrs) for band in names}
    if not all(by_band.values()):
        what = stage if flr is None else f"{stage} at {flr:.4g}"
        raise BadInput(
            f"{study.folder}: accuracies on bands ({normalisation}) are not measured of {what}; run analyze.py bands "
            f"{study.folder} --normalisation {normalisation}"
        )
    curves = [{"band": band} | mean_and_std(values) for band, values in by_band.items()]
    return {"stage": stage, "flr": flr, "window": GEOMETRY_WINDOW if stage == "swa" else None, "bands": curves}


def all_band_numbers(study):
    """A row of figures 18, 21 and 24: the same, by the default normalisation, with the highest FLR, too."""
    return band_numbers(study, [bands.default_normalisation(study.network)], high_flr=True)


def low_ends(study):
    """Where the low band ends in what was measured at the lowest FLR (figure 25) by the default normalisation, in order."""
    name = low_ends_name(bands.default_normalisation(study.network))

    def measured_ends(run, index):
        return (measurement(run, name) or {"low_ends": ()})["low_ends"]

    ends = study.by_plr("finetune", measured_ends, *study.flrs()[:1])
    return sorted({end for of_plr in ends.values() for of_run in of_plr for end in of_run})


def low_end_numbers(study):
    """A row of figure 25: accuracies on the low and the mid band after the lowest FLR, by where the low one ends."""
    ends, normalisation = low_ends(study), bands.default_normalisation(study.network)
    if not ends:
        raise BadInput(
            f"{study.folder}: other ends of the low band are not measured; run analyze.py bands {study.folder} "
            f"--low-ends ..."
        )
    [flr, *_], name = study.flrs(), low_ends_name(normalisation)

    def curve(band, end):
        values = study.by_plr("finetune", of_measurement(name, "accuracy", band, str(end)), flr)
        return {"band": band} | mean_and_std(values)

    panels = [{"low_end": end, "bands": [curve(band, end) for band in bands.BESIDE_LOW_END]} for end in ends]
    return {"regimes": measure_regimes(study), "flr": flr, "normalisation": normalisation, "panels": panels}


def practical_numbers(study):
    """A row of figure 8: accuracies on bands after the lowest FLR and, as of figures 2 and 3, fine-tuning and geometry.

    `geometry` is null where it is not measured.
    """
    [row] = all_band_numbers(study)["rows"]
    of_stages = {name: found for name, found in accuracy_numbers(study).items() if name != "swa"}
    try:
        geometry = geometry_numbers(study)
    except BadInput:
        study.refuse_damaged()
        geometry = None
    tuned = [panel for panel in row["panels"] if panel["stage"] == "finetune"]
    if not tuned:
        raise BadInput(f"{study.folder}: holds no fine-tuning; make it with finetune.py")
    return of_stages | {"normalisation": row["normalisation"], "panel": tuned[0], "geometry": geometry}


def band_image_numbers(study):
    """Figures 6 and 9: an image and its frequency bands."""
    for run in study.of_stage("pretrain"):
        if measurement(run, "band-images"):
            return measurement(run, "band-images")
    raise BadInput(f"{study.folder}: no band images are there; run analyze.py bands {study.folder}")


def boundary_numbers(study):
    """Figure 11: epochs until the train loss is below a level, and the test accuracy there, of every run.

    `epoch` is null of runs that did not get there in `epochs`.
    """
    runs = study.of_stage("converge")
    if not runs:
        raise BadInput(
            f"{study.folder}: holds no runs that train until they converge; scripts/boundary.sh makes some"
        )
    points = []
    for run in runs:
        [member], accuracy = run.members, at_convergence("test_accuracy")(run, 0)
        point = {"lr": member["lrs"][0], "seed": member["seed"], "epochs": run.last_step}
        point["epoch"] = at_convergence("step")(run, 0)
        points.append(point | {"test_accuracy": None if accuracy is None else 100 * accuracy})
    points.sort(key=lambda point: (point["lr"], point["seed"]))
    of_stages = {name: found for name, found in accuracy_numbers(study).items() if name != "swa"}
    return {"level": convergence_level(runs[0]), "points": points} | of_stages


def two_stage_numbers(study):
    """Figure 12: test accuracy by the learning rates of the stages, and at the FLR alone; mean and std over runs."""
    accuracy, groups = final("test_accuracy"), {}
    for plr_2b, plr_2a, flr in study.two_stage_lrs():
        scratch, steps = study.from_scratch(accuracy, flr)
        group = groups.setdefault(
            flr, {"flr": flr, "bars": [], "scratch": mean_and_std_of(scratch) | {"steps": steps}}
        )
        for lrs in ((plr_2b, flr), (plr_2b, plr_2a, flr), (plr_2a, flr)):
            if lrs not in [tuple(bar["lrs"]) for bar in group["bars"]]:
                group["bars"].append({"lrs": lrs} | mean_and_std_of(study.at(accuracy, lrs)))
    if not groups:
        raise BadInput(
            f"{study.folder}: holds no pre-training in two stages; finetune.py of finetune.py's runs makes it"
        )
    return {"groups": list(groups.values())}


def mean_and_std_of(values, scale=100):
    """Mean, standard deviation and number of values; null where there are none."""
    found = mean_and_std({0: values}, scale) if values else {"mean": [None], "std": [None], "n": [0]}
    return {name: found[name][0] for name in ("mean", "std", "n")}


NORM_EDGES = np.linspace(-6, 0, 51)


def norm_numbers(study):
    """Figure 13: filters by the logarithm of their relative norm, before and after fine-tuning from regime 3.

    Panels compare the initial point with the end of pre-training at the largest PLR, and training from scratch at the
    lowest and the highest FLR with fine-tuning from there. The first and the last bin hold what lies beyond them.
    """
    plr, flrs = max(study.by_plr("pretrain", final("test_accuracy"))), study.extreme_flrs()

    def histogram(label, solution, *lrs):
        norms = study.at(of_measurement("norms", solution), lrs)
        if not norms:
            raise BadInput(
                f"{study.folder}: no filter norms: {label}; make such a run if there is none, and measure it by "
                f"analyze.py norms {study.folder}"
            )
        runs, norms = len(norms), np.concatenate(norms)
        with np.errstate(divide="ignore"):
            logs = np.log10(norms).clip(NORM_EDGES[0], NORM_EDGES[-1])
        counts = np.histogram(logs, NORM_EDGES)[0].tolist()
        return {"label": label, "lrs": lrs, "counts": counts, "decades": decades(norms), "n": runs}

    after = f"PLR {lr_name(plr)}"
    panels = [[histogram("initial point", "initial", plr), histogram(f"after {after}", "checkpoint", plr)]]
    for flr in flrs:
        tuned = histogram(f"FLR {lr_name(flr)} after {after}", "checkpoint", plr, flr)
        panels.append([histogram(f"from scratch at {lr_name(flr)}", "checkpoint", flr), tuned])
    return {"regimes": measure_regimes(study), "edges": NORM_EDGES.tolist(), "panels": panels}


def decades(norms):
    """Over how many decades norms spread: between their percentiles 0.5 and 99.5; those below 1e-30 count as that."""
    low, high = np.percentile(np.log10(np.maximum(norms, 1e-30)), (0.5, 99.5))
    return float(high - low)


def sharpness_points(study, regimes, level):
    """What figure 26 shows at a level of train loss, as dictionaries with `plr`, `flr` and what was measured there.

    These are pre-trainings of regime 1, whose `flr` is None, and fine-tunings from regime 2; none where it is unknown
    where regime 1 ends.
    """
    flrs, points = study.flrs(), []
    if regimes["b12"] is None:
        return []
    end_of_1, end_of_2 = regimes["b12"]["last"], regimes["b23"]["last"] if regimes["b23"] else np.inf
    for run in study.runs:
        plr, *later = run.members[0]["lrs"]
        measured = measurement(run, sharpness_name(level))
        pretrained = stage_of(run) == "pretrain" and plr <= end_of_1
        tuned = len(later) == 1 and later[0] in flrs and end_of_1 < plr <= end_of_2
        if measured and (pretrained or tuned):
            values = {name: value[0] for name, value in measured.items() if isinstance(value, list)}
            points.append({"plr": plr, "flr": later[0] if tuned else None} | values)
    return sorted(points, key=lambda point: (point["flr"] is not None, point["plr"], point["flr"]))


def sharpness_numbers(study):
    """Figure 26: sharpness and test error, in percent, of solutions at the same train loss, by the levels measured."""
    levels = sorted({level for run in study.runs for level in run.settings["keep_loss"]}, reverse=True)
    rows = []
    if not levels:
        raise BadInput(f"{study.folder}: sharpness is not measured, as no run has --keep-loss; train with it")
    if measure_regimes(study)["b12"] is None:
        raise BadInput(
            f"{study.folder}: it is unknown where regime 1 ends; see analyze.py boundary {study.folder}"
        )
    for level in levels:
        points = sharpness_points(study, measure_regimes(study), level)
        for point in points:
            point["test_error"] = 100 * (1 - point.pop("test_accuracy"))
        rows += [{"level": level, "points": points}] if points else []
    if not rows:
        raise BadInput(
            f"{study.folder}: sharpness is not measured on both sides of a boundary of regimes 1 and 2; run analyze.py "
            f"sharpness {study.folder} --level ..."
        )
    return {"regimes": measure_regimes(study), "rows": rows, "runs_per_point": [1, 1]}


FIGURE_5_FLRS = (10**-4.5, 1e-4)  # the notebook of the paper names the first, its caption the second


def feature_numbers(study):
    """Figure 5: sorted single-feature accuracies after pre-training and after fine-tuning at small FLRs."""
    flrs = flrs_near(study, FIGURE_5_FLRS)
    panels = [feature_panel(study, "pretrain"), *(feature_panel(study, "finetune", flr=flr) for flr in flrs)]
    return {"regimes": measure_regimes(study), "panels": panels}


def all_feature_numbers(study):
    """Figure 17: the same after pre-training, after fine-tuning at the lowest and the highest FLR, and after SWA."""
    flrs = study.flrs()
    panels = [feature_panel(study, "pretrain")]
    panels += [feature_panel(study, "finetune", flr=flr) for flr in sorted({*flrs[:1], *flrs[-1:]})]
    if GEOMETRY_WINDOW in study.windows():
        panels.append(feature_panel(study, "swa", window=GEOMETRY_WINDOW))
    return {"regimes": measure_regimes(study), "panels": panels}


def feature_panel(study, stage, flr=None, window=None):
    """Sorted single-feature accuracies, and that of all features, after one stage; mean and std over runs."""
    solution, accuracy = "checkpoint", final("test_accuracy")
    if stage == "swa":
        solution, accuracy = f"swa-{window}", of_average(window)
    later_lrs = [] if flr is None else [flr]
    chosen = study.by_plr(stage, features_of(solution), *later_lrs)
    if not chosen:
        raise BadInput(f"{study.folder}: features are not measured; run analyze.py features {study.folder}")
    return {
        "stage": stage,
        "flr": flr,
        "window": window,
        "top": [
            mean_and_std({plr: [accuracies[rank] for accuracies in of_plr] for plr, of_plr in chosen.items()})
            for rank in range(ticks.FEATURES)
        ],
        "all_features": mean_and_std(study.by_plr(stage, accuracy, *later_lrs)),
    }
