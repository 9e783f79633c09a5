"""Measure the solutions that the other scripts left on disk, and draw the figures of the paper.

    analyze.py features FOLDER                single-feature accuracies of runs on ticks
    analyze.py geometry FOLDER                angles and error barriers between solutions
    analyze.py bands FOLDER                   accuracies of image runs on frequency bands
    analyze.py norms FOLDER                   norms of the filters of image runs
    analyze.py sharpness FOLDER --level LOSS  gradient norms and curvature of image runs where their train loss crossed LOSS
    analyze.py claims FOLDER                  the claims of the paper, held against the runs of one experiment
    analyze.py boundary FOLDER                the largest learning rate that converges, and the next one
    analyze.py figures FOLDER... --out DIR    the figures that the runs of one experiment permit, or of several, compared
    analyze.py draw DIR/figureNN.json ...     figures again, from the numbers written beside them

Measuring, gathering numbers and drawing are separate: measurements are written beside the runs, once, and drawing reads
nothing but a figure's own JSON.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F

import models
from data import bands, images, ticks
from data.claims import judge, verdict_line
from data.commandline import BadInput, Parser, Progress, Refused, lr_name, positive_float, positive_int
from data.commandline import run as run_script
from data.device import EVALUATION_BATCH, add_device_argument, autocast, device_of, use_precision
from data.drawing import (
    STYLE,
    draw_accuracy_panels,
    draw_band_images,
    draw_band_panels,
    draw_boundary,
    draw_feature_panels,
    draw_geometry_panels,
    draw_norm_histograms,
    draw_regime_curve,
    draw_rows,
    draw_sharpness,
    draw_ticks,
    draw_two_stage_bars,
)
from data.files import read_json, write_json
from data.runs import bands_name, find_runs, geometry_name, loss_name, sharpness_name
from data.seeds import generator, init_seed
from data.study import (
    GEOMETRY_PAIRS,
    GEOMETRY_WINDOW,
    Study,
    at_convergence,
    convergence_bracket,
    convergence_level,
    decades,
    features_of,
    final,
    geometry_of,
    late_values,
    measure_regimes,
    measurement,
    of_average,
    of_measurement,
    sharpness_points,
)
from models import batchnorm, curvature, mlp
from models.batchnorm import REESTIMATION_BATCH
from models.geometry import CONVENTIONS, angular_distance, error_barriers, measurements_of_line

# --------------------------------------------------------------------------------------------------- measuring runs


class ImageProbe:
    """The network and the images of one experiment, to measure its solutions with, one after the other.

    run: any of the experiment's. data_file: its image set, where it is no longer where the run had it.
    Raises BadInput where the images are missing or others.
    """

    def __init__(self, run, device, data_file=None):
        settings = run.settings
        use_precision(settings["precision"], device)
        self.settings, self.device = settings, device
        self.images = images.load_image_set_of(
            run.config | {"data_file": data_file or run.config["data_file"]}, device
        )
        self.network = models.build(settings["model"], settings["width"], settings["classes"], 0)
        self.weights, self.gradient = models.place(self.network, device)

    def load(self, solution):
        """Put a solution, as Run.weights() gives it, in place."""
        self.weights.copy_(solution["weights"])
        models.load_untrained_state(self.network, solution["buffers"])

    def autocast(self):
        return autocast(self.settings["precision"], self.device)

    def train_batches(self, most=None):
        """Normalised training images with labels, all or the first ones."""
        return images.batches(self.images.train_images[:most], self.images.train_labels[:most], REESTIMATION_BATCH)

    def test_batches(self):
        size = EVALUATION_BATCH[self.device.type]
        return images.batches(self.images.test_images, self.images.test_labels, size)

    def accuracy(self, batches):
        """Accuracy, a fraction, with the statistics that the network has."""
        self.network.eval()
        with self.autocast():
            return evaluation.evaluate(self.network, batches)[1]

    def errors(self, weights):
        """Train and test error at weights [1, parameters], in percent, [2, 1].

        One pass over the training images gives both the train error, with batch statistics, and the statistics that
        the test error is measured with (paper, appendix).
        """
        self.weights.copy_(weights)
        with self.autocast(), batchnorm.reestimating(self.network):
            _, train_accuracy = evaluation.evaluate(self.network, self.train_batches())
        test_accuracy = self.accuracy(self.test_batches())
        return 100 * (1 - torch.tensor([[train_accuracy], [test_accuracy]], dtype=torch.float64))


def measure_features(run, inputs, labels):
    """Single-feature accuracies (paper, section 5) of every member of a run on ticks: features.json.

    Solutions are those at the end of the run (`checkpoint`), or, of an SWA run, its averages (`swa-K`).
    The accuracies are indexed [solution][member][feature], unsorted, as fractions.

    inputs, labels: the single-feature test sets one after the other, [16 * 1000, 32] and [16 * 1000].
    """
    names = [f"swa-{window}" for window in run.settings.get("windows", [])] or ["checkpoint"]
    accuracies = []
    for name in names:
        solution = run.weights(name)
        scores = mlp.logits(solution["weights"], solution["buffers"]["frozen"], inputs)
        correct = (scores > 0) == (labels > 0)
        accuracies.append(correct.view(len(scores), ticks.FEATURES, -1).float().mean(dim=2))
    run.write_measurement("features", {"solution": names, "single_feature_accuracy": torch.stack(accuracies)})


def tick_errors(run):
    """A function of the weights [members, 2048] of a run: train and test errors in percent, [2, members]."""
    sets = ticks.stacked_sets([data_seed for data_seed, _ in ticks.groups(run.members)])
    frozen = run.weights()["buffers"]["frozen"]

    def errors(weights):
        train, test = sets[:2], sets[2:]
        return torch.stack([100 * (1 - mlp.evaluate(weights, frozen, *split)[1]) for split in (train, test)])

    return errors


def measure_geometry(study, run, low, high, errors):
    """Angles and error barriers between the solutions that continue one pre-training: geometry-*.json.

    They are L and H, fine-tuned at the FLRs `low` and `high`; S, the SWA average of 5 weights; and P, the end of the
    pre-training itself. Angles are in radians and barriers in percent, {pair: [member]}, NaN of members that diverged;
    how barriers are measured is the network's Convention (paper, section 4, figures 3 and 16). Raises BadInput where
    one of the solutions is missing.

    errors: function of weights [members, parameters] that gives train and test errors, [2, members].
    """
    weights = {name: solution["weights"] for name, solution in solutions_around(study, run, low, high).items()}
    convention = CONVENTIONS[study.settings["model"]]

    def finite_errors(weights):
        return errors(weights).where(weights.isfinite().all(dim=1), torch.nan)

    barriers = error_barriers(weights, GEOMETRY_PAIRS, convention, study.settings["rho"], finite_errors)
    measured = {
        "low_flr": low,
        "high_flr": high,
        "window": GEOMETRY_WINDOW,
        "points": convention.points,
        "angle": {pair: angular_distance(*(weights[name] for name in pair)) for pair in (*GEOMETRY_PAIRS, "LP")},
        "train_barrier": {pair: of_splits[0] for pair, of_splits in barriers.items()},
        "test_barrier": {pair: of_splits[1] for pair, of_splits in barriers.items()},
    }
    run.write_measurement(geometry_name(low, high), measured)


def solutions_around(study, run, low, high):
    """The solutions P, L, H and S of measure_geometry(). Raises BadInput where one is missing."""
    return {
        "P": run.weights(),
        "L": study.continuation(run, "finetune", low).weights(),
        "H": study.continuation(run, "finetune", high).weights(),
        "S": study.continuation(run, "swa").weights(f"swa-{GEOMETRY_WINDOW}"),
    }


class BandSets:
    """The images of an experiment by frequency band, each as float32 [N, C, S, S], normalised in one of the ways."""

    def __init__(self, image_set, normalisation):
        self.image_set, self.normalisation = image_set, normalisation
        self.limits = bands.bands(image_set.train_images.shape[-1])
        self.moments = {
            name: bands.channel_moments(image_set.train_images, limits)
            if normalisation == bands.STANDARDISE
            else None
            for name, limits in self.limits.items()
        }

    def batches(self, name, split, size):
        """Batches (images, labels) of the band `name`, or of `full`, the images themselves; split: `train` or `test`."""
        pixels, labels = (getattr(self.image_set, f"{split}_{what}") for what in ("images", "labels"))
        if name == bands.FULL:
            yield from images.batches(pixels, labels, size)
            return
        limits, moments = self.limits[name], self.moments[name]
        for some_pixels, some_labels in zip(pixels.split(size), labels.split(size)):
            filtered = bands.band_images(some_pixels, limits)
            yield bands.normalise_band(filtered, limits, self.normalisation, moments), some_labels


def measure_bands(probe, run, sets):
    """Test accuracies on frequency bands (paper, section 6) of a run on images: bands-<normalisation>.json.

    The solution is the end of the run, or, of an SWA run, its average of 5 weights. Accuracies are fractions, {band:
    [member]}; `full` is that on the images themselves.
    """
    name = solution_name(run)
    probe.load(run.weights(name))
    size = EVALUATION_BATCH[probe.device.type]
    accuracy = {}
    for band in (bands.FULL, *sets.limits):
        if sets.normalisation == bands.REESTIMATE:
            with probe.autocast():
                batchnorm.reestimate(probe.network, sets.batches(band, "train", REESTIMATION_BATCH))
        accuracy[band] = [probe.accuracy(sets.batches(band, "test", size))]
    measured = {"solution": name, "normalisation": sets.normalisation, "limits": sets.limits, "accuracy": accuracy}
    run.write_measurement(bands_name(sets.normalisation), measured)


def measure_band_images(run, image_set):
    """The first test image and its frequency bands (paper, figures 6 and 9): band-images.json.

    Pixels, [size][size][colour channel], are whole numbers from 0 to 255; bands without the zero frequency are stretched
    to all of that range in every channel. A spectrum, [size][size], is the logarithm of the magnitudes of the Fourier
    coefficients summed over channels, null outside the band, the zero frequency in the middle.
    """
    image = image_set.test_images[:1].cpu()
    size = image.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.fft2(image.double() / 255).abs().sum(dim=(0, 1))).log()
    distance = torch.fft.fftshift(bands.distances(size))
    panels = [{"name": "image", "limits": None, "pixels": channels_last(image), "spectrum": rounded(spectrum)}]
    for name, limits in bands.bands(size).items():
        filtered = bands.band_images(image, limits)
        if limits[0] > 0:
            least, most = filtered.amin((2, 3), keepdim=True), filtered.amax((2, 3), keepdim=True)
            filtered = (filtered - least) / (most - least)
        inside = (distance >= limits[0]) & (distance <= limits[1])
        pixels = (255 * filtered).round().clamp(0, 255).to(torch.uint8)
        masked = rounded(spectrum.where(inside, torch.nan))
        panels.append({"name": name, "limits": limits, "pixels": channels_last(pixels), "spectrum": masked})
    label = image_set.classes[image_set.test_labels[0]]
    run.write_measurement("band-images", {"class": label, "panels": panels})


def channels_last(image):
    return image[0].permute(1, 2, 0)


def rounded(spectrum):
    return torch.round(spectrum, decimals=3)


def solution_name(run):
    """The weights of a run that band accuracies and filter norms are those of. Raises BadInput where there are none."""
    if run.config["stage"] != "swa":
        return "checkpoint"
    if GEOMETRY_WINDOW not in run.settings["windows"]:
        raise BadInput(f"{run.path}: has no average of {GEOMETRY_WINDOW} weights")
    return f"swa-{GEOMETRY_WINDOW}"


def measure_norms(run):
    """Norms of all filters of a run on images, relative to that of all weights (paper, figure 13): norms.json.

    {solution: [member][filter]}; solutions are the initial point (of pre-trainings) and the end of the run, or, of an SWA
    run, its average of 5 weights. A filter is what gives one channel of a convolution's output.
    """
    settings, [member], name = run.settings, run.members, solution_name(run)
    network = models.build(settings["model"], settings["width"], settings["classes"], init_seed(member["seed"]))
    weights, _ = models.place(network, torch.device("cpu"))
    solutions = {"initial": [relative_filter_norms(network)]} if run.config["stage"] == "pretrain" else {}
    weights.copy_(run.weights(name)["weights"])
    run.write_measurement("norms", solutions | {name: [relative_filter_norms(network)]})


@torch.no_grad()
def relative_filter_norms(network):
    norms = torch.cat([kernel.flatten(1).norm(dim=1) for kernel in models.trained_parameters(network)])
    return norms / norms.norm()


def measure_sharpness(probe, run, level, most, probes):
    """How sharp the solution is that was kept where the train loss crossed a level: sharpness-loss-<level>.json.

    Numbers are those on the unit sphere, [member]: `gradient_norm`, the mean over training batches (paper, figure 26);
    `largest_eigenvalue` of the Hessian with its `residual`, and its `trace` with the `trace_error`, a standard error,
    over the first training images, `most` at most. Losses are those of batches with their own statistics.
    """
    solution = run.weights(loss_name(level))
    probe.load(solution)
    test_accuracy = probe.accuracy(probe.test_batches())
    network, parameters = probe.network.train(), models.trained_parameters(probe.network)
    with probe.autocast():
        norm, loss, train_accuracy = curvature.effective_gradient_norm(
            network, probe.weights, probe.gradient, probe.train_batches()
        )
    count = min(most, len(probe.images.train_labels))

    def losses():
        for inputs, labels in probe.train_batches(count):
            yield F.cross_entropy(network(inputs), labels, reduction="sum") / count

    hessian = curvature.SphereHessian(parameters, probe.weights, losses)
    eigenvalue, residual = hessian.largest_eigenvalue(generator("largest-eigenvalue"))
    trace, trace_error = hessian.trace(generator("trace"), probes)
    measured = {
        "step": solution["step"],
        "train_loss": loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "gradient_norm": norm,
        "largest_eigenvalue": eigenvalue,
        "residual": residual,
        "trace": trace,
        "trace_error": trace_error,
    }
    of_member = {name: [value] for name, value in measured.items()}
    run.write_measurement(
        sharpness_name(level), {"level": level, "most": most, "images": count, "probes": probes} | of_member
    )


# ---------------------------------------------------------------------------------- the numbers behind each figure


def spread(values_by_plr, scale=100):
    """Mean, standard deviation (population) and number of values at every PLR, as lists; in percent, or times scale."""
    return {
        "plr": list(values_by_plr),
        "mean": [scale * float(np.mean(values)) for values in values_by_plr.values()],
        "std": [scale * float(np.std(values)) for values in values_by_plr.values()],
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
    """Figure 1: test accuracy over the last tenth of pre-training; spread over epochs (and runs)."""
    values = study.by_plr("pretrain", late_values("test_accuracy"))
    pooled = {plr: [value for run in runs for value in run if value is not None] for plr, runs in values.items()}
    regimes = measure_regimes(study) | {"b2AB": None}  # which pre-training alone does not show
    return {"regimes": regimes, "pretrain": spread(pooled), "n": "logged epochs times runs"}


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
    """Figures 2 and 15: final test accuracy after pre-training, fine-tuning and SWA; spread over runs."""
    accuracy = final("test_accuracy")
    return {
        "regimes": measure_regimes(study),
        "pretrain": spread(study.by_plr("pretrain", accuracy)),
        "finetune": [{"flr": flr} | spread(study.by_plr("finetune", accuracy, flr)) for flr in study.flrs()],
        "swa": [{"window": k} | spread(study.by_plr("swa", of_average(k))) for k in study.windows()],
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
    """Figures 3 and 16: angles, mean and std over runs, and barriers, median and quartiles over runs, of three pairs."""
    low, high = study.extreme_flrs()
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
        "floor": CONVENTIONS[study.settings["model"]].floor,
        "angle": {pair: spread(values, scale=1) for pair, values in measured["angle"].items()},
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
    """Accuracies on every band after one stage; spread over runs."""
    name = bands_name(normalisation)
    names = dict.fromkeys(
        band for run in study.runs for band in (measurement(run, name) or {"accuracy": ()})["accuracy"]
    )
    later_lrs = [] if flr is None else [flr]
    curves = [
        {"band": band} | spread(study.by_plr(stage, of_measurement(name, "accuracy", band), *later_lrs))
        for band in names
    ]
    return {"stage": stage, "flr": flr, "window": GEOMETRY_WINDOW if stage == "swa" else None, "bands": curves}


def all_band_numbers(study):
    """A row of figure 18: the same, by the default normalisation, with fine-tuning at the lowest and the highest FLR."""
    return band_numbers(study, [bands.DEFAULT_NORMALISATION], high_flr=True)


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
    """Figure 12: test accuracy by the learning rates of the stages, and of training at the FLR alone; spread over runs."""
    accuracy, groups = final("test_accuracy"), {}
    for plr_2b, plr_2a, flr in study.two_stage_lrs():
        scratch, steps = study.from_scratch(accuracy, flr)
        group = groups.setdefault(flr, {"flr": flr, "bars": [], "scratch": one_spread(scratch) | {"steps": steps}})
        for lrs in ((plr_2b, flr), (plr_2b, plr_2a, flr), (plr_2a, flr)):
            if lrs not in [tuple(bar["lrs"]) for bar in group["bars"]]:
                group["bars"].append({"lrs": lrs} | one_spread(study.at(accuracy, lrs)))
    if not groups:
        raise BadInput(
            f"{study.folder}: holds no pre-training in two stages; finetune.py of finetune.py's runs makes it"
        )
    return {"groups": list(groups.values())}


def one_spread(values, scale=100):
    """Mean, standard deviation and number of values; null where there are none."""
    found = spread({0: values}, scale) if values else {"mean": [None], "std": [None], "n": [0]}
    return {name: found[name][0] for name in ("mean", "std", "n")}


NORM_EDGES = np.linspace(-6, 0, 51)


def norm_numbers(study):
    """Figure 13: numbers of filters by the logarithm of their relative norm, before and after fine-tuning from regime 3.

    Panels compare the initial point with the end of pre-training at the largest PLR, and training from scratch at the
    lowest and the highest FLR with fine-tuning from there. The first and the last bin hold what lies beyond them.
    """
    plr, flrs = max(study.by_plr("pretrain", final("test_accuracy"))), study.extreme_flrs()

    def histogram(label, solution, *lrs):
        norms = study.at(of_measurement("norms", solution), lrs)
        if not norms:
            raise BadInput(
                f"{study.folder}: no filter norms of {label}; analyze.py norms {study.folder} measures them"
            )
        norms = np.concatenate(norms)
        with np.errstate(divide="ignore"):
            logs = np.log10(norms).clip(NORM_EDGES[0], NORM_EDGES[-1])
        counts = np.histogram(logs, NORM_EDGES)[0].tolist()
        return {"label": label, "lrs": lrs, "counts": counts, "decades": decades(norms)}

    after = f"PLR {lr_name(plr)}"
    panels = [[histogram("initial point", "initial", plr), histogram(f"after {after}", "checkpoint", plr)]]
    for flr in flrs:
        tuned = histogram(f"FLR {lr_name(flr)} after {after}", "checkpoint", plr, flr)
        panels.append([histogram(f"from scratch at {lr_name(flr)}", "checkpoint", flr), tuned])
    return {"regimes": measure_regimes(study), "edges": NORM_EDGES.tolist(), "panels": panels}


def sharpness_numbers(study):
    """Figure 26: sharpness and test error, in percent, of solutions at the same train loss, for every level measured."""
    levels = sorted({level for run in study.runs for level in run.settings["keep_loss"]}, reverse=True)
    rows = []
    for level in levels:
        points = sharpness_points(study, level)
        for point in points:
            point["test_error"] = 100 * (1 - point.pop("test_accuracy"))
        rows += [{"level": level, "points": points}] if points else []
    if not rows:
        raise BadInput(
            f"{study.folder}: sharpness is not measured on both sides of a boundary of regimes 1 and 2; run analyze.py "
            f"sharpness {study.folder} --level ..."
        )
    return {"regimes": measure_regimes(study), "rows": rows}


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
    """Sorted single-feature accuracies, and that of all features, after one stage; spread over runs."""
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
            spread({plr: [accuracies[rank] for accuracies in of_plr] for plr, of_plr in chosen.items()})
            for rank in range(ticks.FEATURES)
        ],
        "all_features": spread(study.by_plr(stage, accuracy, *later_lrs)),
    }


# ------------------------------------------------------------------------------------------------------ the figures

# number: (data it is about, numbers behind it, how it is drawn)
FIGURES = {
    1: ("images", regime_numbers, draw_regime_curve),
    2: ("images", accuracy_numbers, draw_accuracy_panels),
    3: ("images", geometry_numbers, draw_geometry_panels),
    4: (ticks.NAME, tick_numbers, draw_ticks),
    5: (ticks.NAME, feature_numbers, draw_feature_panels),
    6: ("images", band_image_numbers, draw_band_images),
    7: ("images", band_numbers, draw_band_panels),
    9: ("images", band_image_numbers, functools.partial(draw_band_images, spectra=True)),
    11: ("images", boundary_numbers, draw_boundary),
    12: ("images", two_stage_numbers, draw_two_stage_bars),
    13: ("images", norm_numbers, draw_norm_histograms),
    15: (ticks.NAME, tick_accuracy_numbers, draw_accuracy_panels),
    16: (ticks.NAME, geometry_numbers, draw_geometry_panels),
    17: (ticks.NAME, all_feature_numbers, functools.partial(draw_feature_panels, shaded=True)),
    26: ("images", sharpness_numbers, draw_sharpness),
}
# The same of several experiments, in a row each.
COMPARISONS = {
    10: ("images", accuracy_numbers, functools.partial(draw_rows, draw_accuracy_panels, 3.7)),
    14: ("images", geometry_numbers, functools.partial(draw_rows, draw_geometry_panels, 3.4)),
    18: ("images", all_band_numbers, functools.partial(draw_rows, draw_band_panels, 3.4)),
}


def figure_numbers(number, studies):
    """The numbers of a figure, of one study or, of COMPARISONS, of several. Raises BadInput where they are not there."""
    _, gather, _ = (FIGURES | COMPARISONS)[number]
    rows = [{"experiment": study.settings} | gather(study) for study in studies]
    return {"figure": number, "accuracies": "percent"} | ({"rows": rows} if number in COMPARISONS else rows[0])


def draw_figure(path):
    """Draw figureNN.pdf and .png beside figureNN.json. Raises BadInput."""
    numbers = read_json(path)
    known = FIGURES | COMPARISONS
    number = numbers.get("figure") if isinstance(numbers, dict) else None
    if not isinstance(number, int) or number not in known:
        raise BadInput(f"{path}: holds no figure's numbers; give a figureNN.json that analyze.py figures wrote")
    _, _, draw = known[number]
    with plt.rc_context(STYLE):
        try:
            figure = draw(numbers)
        except KeyError as missing:
            raise BadInput(f"{path}: lacks {missing}; write it again with analyze.py figures") from None
        for suffix, options in ((".pdf", {"metadata": {"CreationDate": None}}), (".png", {"dpi": 200})):
            figure.savefig(path.with_suffix(suffix), **options)
        plt.close(figure)
    print(f"{path.with_suffix('.pdf')}")


# --------------------------------------------------------------------------------------------------- the command line


def main():
    parser = Parser(__doc__.splitlines()[0], "python analyze.py figures runs/ticks --out figures")
    commands = parser.add_subparsers(dest="command", required=True)

    features = commands.add_parser("features", help="measure the single-feature accuracies of runs on ticks")
    features.add_argument("folder", help="folder of run folders; runs that are measured already are passed over")

    geometry = commands.add_parser("geometry", help="measure angles and error barriers between solutions")
    add_measuring_arguments(geometry)

    band = commands.add_parser("bands", help="measure accuracies of runs on images on frequency bands")
    add_measuring_arguments(band)
    band.add_argument(
        "--normalisation",
        nargs="+",
        choices=bands.NORMALISATIONS,
        default=[bands.DEFAULT_NORMALISATION],
        help="of band images: keep (the published rule: only those with the zero frequency are normalised), std (others "
        "are divided by the usual standard deviation), band (standardised, each by its own moments), reestimate (as keep, "
        "with batch-norm statistics of training images treated alike)",
    )

    norms = commands.add_parser("norms", help="measure the filter norms of runs on images")
    norms.add_argument("folder", help=MEASURED_FOLDER)

    sharpness = commands.add_parser(
        "sharpness", help="measure gradient norms and curvature of runs on images at a level of train loss"
    )
    add_measuring_arguments(sharpness)
    sharpness.add_argument(
        "--level",
        type=positive_float,
        nargs="+",
        required=True,
        help="train losses that --keep-loss kept weights at",
    )
    sharpness.add_argument(
        "--images", type=positive_int, default=5000, help="training images that curvature is measured on, at most"
    )
    sharpness.add_argument(
        "--probes", type=at_least_two, default=10, help="random vectors that estimate the trace"
    )

    claims = commands.add_parser("claims", help="hold the claims of the paper against the runs of one experiment")
    claims.add_argument("folder", help="folder of the run folders of one experiment")
    claims.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to a file, too")

    bracket = commands.add_parser(
        "boundary", help="print the largest learning rate that converges and the next one above it"
    )
    bracket.add_argument("folder", help="folder of the run folders of one experiment")
    bracket.add_argument(
        "--refined",
        action="store_true",
        help="by runs that train until they converge, too (train.py --until-loss)",
    )

    figures = commands.add_parser(
        "figures", help="draw figures from the metrics of one experiment, or compare several"
    )
    figures.add_argument(
        "folder", nargs="+", help="folders of the run folders of one experiment each; several are compared"
    )
    figures.add_argument("--out", type=Path, required=True, help="folder for figureNN.pdf, .png and .json")
    figures.add_argument(
        "--only",
        type=int,
        nargs="+",
        choices=sorted(FIGURES | COMPARISONS),
        help="figures; without: all that fit (10, 14 and 18 for several folders)",
    )

    draw = commands.add_parser("draw", help="draw figures again from their JSON")
    draw.add_argument("figures", type=Path, nargs="+", metavar="figureNN.json", help="files that `figures` wrote")

    args = parser.parse_args()
    command = {
        "features": features_command,
        "geometry": geometry_command,
        "bands": bands_command,
        "norms": norms_command,
        "sharpness": sharpness_command,
        "claims": claims_command,
        "boundary": boundary_command,
        "figures": figures_command,
        "draw": draw_command,
    }[args.command]
    command(args)


MEASURED_FOLDER = "folder of the run folders of one experiment; what is measured is passed over"


def add_measuring_arguments(parser):
    parser.add_argument(
        "folder", help="folder of the run folders of one experiment; what is measured is passed over"
    )
    parser.add_argument("--data-file", help="image set, where it is no longer where the runs had it")
    add_device_argument(parser)


def at_least_two(text):
    """A whole number of at least 2, for argparse."""
    if positive_int(text) == 1:
        raise argparse.ArgumentTypeError("a standard error needs at least 2")
    return int(text)


def features_command(args):
    runs = [run for run in find_runs(args.folder) if run.complete and run.settings["data"] == ticks.NAME]
    if not runs:
        raise BadInput(f"{args.folder}: holds no complete runs on ticks")
    sets = [ticks.single_feature_set(feature) for feature in range(ticks.FEATURES)]
    inputs, labels = (torch.cat(parts) for parts in zip(*sets))
    with Progress("features", len(runs), "run", 0) as progress:
        for done, run in enumerate(runs, start=1):
            if run.measurement("features") is None:
                measure_features(run, inputs, labels)
            progress.update(done, run.path.name)


def geometry_command(args):
    study, device = Study(args.folder), device_of(args.device)
    report_incomplete(study)
    low, high = study.extreme_flrs()
    runs = []
    for run in study.of_stage("pretrain"):
        try:
            solutions_around(study, run, low, high)
            runs.append(run)
        except BadInput as error:
            print(f"left out: {error}")
    probe = ImageProbe(runs[0], device, args.data_file) if runs and study.settings["data"] != ticks.NAME else None

    def measure(run, advance):
        if probe:
            probe.load(run.weights())
        errors = probe.errors if probe else tick_errors(run)

        def counted_errors(weights):
            advance()
            return errors(weights)

        measure_geometry(study, run, low, high, counted_errors)

    points = measurements_of_line(GEOMETRY_PAIRS, CONVENTIONS[study.settings["model"]])
    measure_each("geometry", runs, geometry_name(low, high), measure, points)


def measure_each(title, runs, name, measure, points=1):
    """Call measure(run, advance) for the runs without the measurement `name`; it calls advance() for each of its points.

    What a run lacks for it is printed. Runs whose folder another process holds are left out, too; raises Refused then.
    """
    missing, refused, done = [run for run in runs if run.measurement(name) is None], [], 0
    if not missing:
        print(f"{title}: all {len(runs)} runs are measured")
        return
    with Progress(title, points * len(missing), "point" if points > 1 else "run", 0) as progress:
        for number, run in enumerate(missing):

            def advance():
                nonlocal done
                done += 1
                progress.update(done, run.path.name)

            done = number * points
            try:
                measure(run, advance)
            except BadInput as error:
                print(f"left out: {error}")
            except Refused as error:
                refused.append(error)
                print(f"left out: {error}")
    if refused:
        raise Refused(f"{title}: {len(refused)} folders were held by other processes; give the command again")


def image_study(folder):
    """The Study of a folder. Raises BadInput where it is not about images."""
    study = Study(folder)
    if study.settings["data"] == ticks.NAME:
        raise BadInput(f"{folder}: holds runs on ticks; this is measured on images")
    report_incomplete(study)
    return study


def solutions_shown(study):
    """The runs whose solutions figures 7, 13 and 18 show: pre-trainings, SWA, and the lowest and the highest FLR."""
    flrs = study.flrs()
    return study.of_stage("pretrain") + study.of_stage("swa") + fine_tuned(study, flrs[:1] + flrs[-1:])


def fine_tuned(study, flrs):
    """The runs fine-tuned at one of the FLRs right after pre-training."""
    return [run for run in study.of_stage("finetune") if run.members[0]["lrs"][1:] in [[flr] for flr in flrs]]


def bands_command(args):
    study = image_study(args.folder)
    probe = ImageProbe(study.runs[0], device_of(args.device), args.data_file)
    first = study.of_stage("pretrain")[0]
    if first.measurement("band-images") is None:
        measure_band_images(first, probe.images)
    for normalisation in args.normalisation:
        sets = BandSets(probe.images, normalisation)

        def measure(run, advance):
            measure_bands(probe, run, sets)
            advance()

        measure_each(f"bands, {normalisation}", solutions_shown(study), bands_name(normalisation), measure)


def norms_command(args):
    def measure(run, advance):
        measure_norms(run)
        advance()

    measure_each("norms", solutions_shown(image_study(args.folder)), "norms", measure)


def sharpness_command(args):
    study = image_study(args.folder)
    compared = study.of_stage("pretrain") + fine_tuned(study, study.flrs())
    kept = {level: [run for run in compared if run.has_weights(loss_name(level))] for level in args.level}
    for level, runs in kept.items():
        if not runs:
            raise BadInput(
                f"{args.folder}: no run kept weights at train loss {level:g}; --keep-loss of train.py and finetune.py does"
            )
        for run in runs:
            refuse_other_sharpness(run, level, args)
    probe = ImageProbe(study.runs[0], device_of(args.device), args.data_file)
    for level, runs in kept.items():

        def measure(run, advance):
            measure_sharpness(probe, run, level, args.images, args.probes)
            advance()

        measure_each(f"sharpness at {level:g}", runs, sharpness_name(level), measure)


def refuse_other_sharpness(run, level, args):
    """Raise Refused where a run's sharpness was measured with other options: they would mix in one figure."""
    measured = run.measurement(sharpness_name(level))
    options = {"most": args.images, "probes": args.probes}
    if measured and any(measured[name] != value for name, value in options.items()):
        raise Refused(
            f"{run.path}: its sharpness was measured with --images {measured['most']} --probes {measured['probes']}; use "
            f"these, or remove {sharpness_name(level)}.json everywhere"
        )


def claims_command(args):
    study = Study(args.folder)
    report_incomplete(study)
    regimes, verdicts = measure_regimes(study), judge(study)
    print_regimes(regimes)
    for verdict in verdicts:
        print(verdict_line(verdict))
    if args.json:
        write_json(args.json, {"experiment": study.settings, "regimes": regimes, "claims": verdicts})


def boundary_command(args):
    print(*map(lr_name, convergence_bracket(Study(args.folder), args.refined)))


def figures_command(args):
    studies = [Study(folder) for folder in args.folder]
    for study in studies:
        report_incomplete(study)
    kinds = {study.folder: "ticks" if study.settings["data"] == ticks.NAME else "images" for study in studies}
    if len(studies) > 1 and set(kinds.values()) != {"images"}:
        raise BadInput(
            f"{args.folder[0]} and others: several experiments are compared only on images; give one folder"
        )
    drawable = FIGURES if len(studies) == 1 else COMPARISONS
    kind = kinds[studies[0].folder]
    wanted = args.only or [number for number, (data, _, _) in drawable.items() if data == kind]
    for number in wanted:
        if (FIGURES | COMPARISONS)[number][0] != kind:
            raise BadInput(f"--only {number}: is not about {kind}, which {args.folder[0]} holds runs on")
        if len(studies) > 1 and number in FIGURES:
            raise BadInput(f"--only {number}: is about one experiment; give one folder")
    args.out.mkdir(parents=True, exist_ok=True)
    for study in studies:
        print_regimes(measure_regimes(study))
    for number in wanted:
        try:
            numbers = figure_numbers(number, studies)
        except BadInput as error:
            if args.only:
                raise
            print(f"figure {number} is left out: {error}")
            continue
        path = args.out / f"figure{number:02d}.json"
        write_json(path, numbers)
        draw_figure(path)


def report_incomplete(study):
    if study.incomplete:
        print(f"{study.folder}: {study.incomplete} runs are not complete and are left out")


def print_regimes(regimes):
    for name, title in (("b12", "1|2"), ("b2AB", "2A|2B"), ("b23", "2|3")):
        place = regimes[name]
        found = f"between {place['last']:.4g} and {place['next']:.4g}" if place else "not bracketed by these runs"
        print(f"boundary {title}: {found}")


def draw_command(args):
    for path in args.figures:
        draw_figure(path)


if __name__ == "__main__":
    run_script(main)
