"""Draws the figures that are no curves against the PLR from their numbers: points, bars, histograms and images."""

import functools
import itertools

import numpy as np
from matplotlib import pyplot as plt

from data.analysis.axes import (
    accuracy_label,
    colors,
    label_narrow_range,
    legend_below,
    lr_label,
    lr_text,
    prepare_plr_axes,
    reported_word,
    shared_legend,
)
from data.analysis.drawing import draw_accuracies
from data.commandline import lr_name


def draw_ticks(numbers):
    figure, axes = plt.subplots(figsize=(3.2, 3.4))
    points, labels = np.array(numbers["points"]), np.array(numbers["labels"])
    for label, color, marker in ((0, "#0072B2", "o"), (1, "#D55E00", "^")):
        style = {"s": 8, "color": color, "marker": marker, "linewidth": 0, "label": f"class {label}"}
        axes.scatter(*points[labels == label].T, **style)
    for x2 in numbers["boundary_x2"]:
        axes.plot(numbers["boundary_x1"], x2, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    axes.grid(False)
    legend_below(axes)
    return figure


def draw_band_images(numbers, spectra=False):
    panels, rows = numbers["panels"], 2 if spectra else 1
    figure, all_axes = plt.subplots(
        rows, len(panels), figsize=(1.7 * len(panels), 0.3 + 1.8 * rows), squeeze=False
    )
    whole = np.array(panels[0]["spectrum"], dtype=float)
    for position, panel in enumerate(panels):
        limits = panel["limits"]
        distance = (
            "" if not limits else f"\n$|k_x|+|k_y|$ = {limits[0]}" + (f" to {limits[1]}" if limits[1] else "")
        )
        all_axes[0, position].imshow(panel["pixels"])
        all_axes[0, position].set_title(f"{panel['name']}{distance}", fontsize=8)
        if spectra:
            spectrum = np.array(panel["spectrum"], dtype=float)
            image = all_axes[1, position].imshow(spectrum, vmin=np.nanmin(whole), vmax=np.nanmax(whole))
    for axes in all_axes.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
    if spectra:
        figure.colorbar(image, ax=list(all_axes[1]), label="log |Y|", shrink=0.8)
    return figure


draw_band_spectra = functools.partial(draw_band_images, spectra=True)


def draw_boundary(numbers):
    figure, (epochs, accuracy) = plt.subplots(1, 2, figsize=(8.4, 3.5))
    points = [point for point in numbers["points"] if point["epoch"] is not None]
    style = {"color": "#D62728", "linestyle": "", "marker": "o", "zorder": 3}
    converged = {**style, "label": f"trained until the train loss is below {numbers['level']:g}"}
    epochs.plot([point["lr"] for point in points], [point["epoch"] for point in points], **converged)
    others = [point for point in numbers["points"] if point["epoch"] is None]
    if others:
        unfinished = {
            **style,
            "marker": "^",
            "markerfacecolor": "none",
            "label": "not converged in as many epochs",
        }
        epochs.plot([point["lr"] for point in others], [point["epochs"] for point in others], **unfinished)
    draw_accuracies(accuracy, numbers["pretrain"], numbers["finetune"])
    accuracy.plot([point["lr"] for point in points], [point["test_accuracy"] for point in points], **style)
    for axes, label in ((epochs, "Epochs"), (accuracy, accuracy_label(numbers))):
        prepare_plr_axes(axes, numbers)
        axes.set_ylabel(label)
        legend_below(axes)
    epochs.set_yscale("log")
    label_narrow_range(epochs.yaxis, epochs.get_ylim())
    label = lr_label(numbers)
    epochs.set_xlabel(label[0].upper() + label[1:])
    return figure


def draw_two_stage_bars(numbers):
    groups = numbers["groups"]
    figure, axes = plt.subplots(figsize=(max(5.5, 2.6 * len(groups)), 3.8))
    ways = list(dict.fromkeys(tuple(bar["lrs"][:-1]) for group in groups for bar in group["bars"]))
    width = 0.8 / len(ways)
    for place, (way, color) in enumerate(zip(ways, colors(len(ways)))):
        label = r" $\to$ ".join([*map(lr_text, way), "FLR"])
        axes.bar(0, 0, 0, color=color, label=label)  # for the legend, as bars may be missing
        for number, group in enumerate(groups):
            left = number - 0.4 + (place + 0.5) * width
            [bar] = [bar for bar in group["bars"] if tuple(bar["lrs"][:-1]) == way] or [{"mean": None}]
            if bar["mean"] is None:
                axes.annotate("not run", (left, 1), ha="center", va="bottom", rotation=90, color="0.35")
                continue
            deviation = bar["std"] if bar["n"] > 1 else None
            axes.bar(left, bar["mean"], 0.92 * width, color=color, yerr=deviation, capsize=2)
            axes.annotate(f"{bar['mean']:.1f}", (left, bar["mean"] + (deviation or 0)), ha="center", va="bottom")
    draw_scratch_lines(axes, groups)
    axes.set_xticks(range(len(groups)), [f"FLR {lr_text(group['flr'])}" for group in groups])
    axes.set_ylabel(accuracy_label(numbers))
    axes.grid(False, axis="x")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    return figure


def draw_scratch_lines(axes, groups):
    """The accuracies of training at an FLR alone, with an entry of the legend for every length of it."""
    lengths = list(
        dict.fromkeys(group["scratch"]["steps"] for group in groups if group["scratch"]["mean"] is not None)
    )
    for steps, linestyle in zip(lengths, itertools.cycle(("--", ":", "-."))):
        label = f"the FLR alone, for {steps} epochs"
        for number, group in enumerate(groups):
            if group["scratch"]["mean"] is not None and group["scratch"]["steps"] == steps:
                style = {"color": "black", "linestyle": linestyle, "label": label}
                axes.plot([number - 0.4, number + 0.4], [group["scratch"]["mean"]] * 2, **style)
                label = None
    for number, group in enumerate(groups):
        if group["scratch"]["mean"] is None:
            above = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "color": "0.35"}
            axes.annotate("the FLR alone: not run", (number, 1.01), **above)


def draw_norm_histograms(numbers):
    figure, all_axes = plt.subplots(1, len(numbers["panels"]), figsize=(10.5, 3.2), sharey=True)
    for axes, panel in zip(all_axes, numbers["panels"]):
        for histogram, color in zip(panel, ("#0072B2", "#E69F00")):
            axes.stairs(
                histogram["counts"], numbers["edges"], fill=True, color=color, alpha=0.6, label=histogram["label"]
            )
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)  # so that a single filter is seen
        axes.set_xlabel("log10 of filter norm / total norm")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    all_axes[0].set_ylabel("Filters")
    return figure


SHARPNESS_LABELS = {
    "gradient_norm": "Mean effective gradient norm",
    "largest_eigenvalue": "Largest Hessian eigenvalue on the sphere",
    "trace": "Trace of the Hessian on the sphere",
}


TUNED_MARKERS = "s^vD<>pP*h"


def draw_sharpness(numbers):
    """Black points, each with its PLR, are pre-trainings; the others fine-tunings."""
    named = []
    rows = numbers["rows"]
    figure, all_axes = plt.subplots(len(rows), 3, figsize=(10.5, 0.6 + 2.8 * len(rows)), squeeze=False)
    every_point = [point for row in rows for point in row["points"]]
    plrs = sorted({point["plr"] for point in every_point if point["flr"] is not None})
    styles = {None: {"color": "black", "fmt": "o", "label": "pre-trained in regime 1, at the PLR beside it"}}
    for plr, color, marker in zip(plrs, colors(len(plrs)), itertools.cycle(TUNED_MARKERS)):
        styles[plr] = {"color": color, "fmt": marker, "label": f"fine-tuned from PLR {lr_text(plr)}"}
    for row_axes, row in zip(all_axes, rows):
        for axes, (name, axis_label) in zip(row_axes, SHARPNESS_LABELS.items()):
            for plr, style in styles.items():
                points = [
                    point
                    for point in row["points"]
                    if (point["plr"] if point["flr"] is not None else None) == plr and point[name] is not None
                ]
                errors = [point["trace_error"] for point in points]
                error = np.array(errors, dtype=float) if name == "trace" else None  # NaN of what is not known
                places = [point[name] for point in points], [point["test_error"] for point in points]
                axes.errorbar(*places, xerr=error, markersize=5, **style)
            drawn = [point for point in row["points"] if point[name] is not None]
            places = [(point[name], point["test_error"]) for point in drawn]
            named.append((axes, places, [lr_name(point["plr"]) * (point["flr"] is None) for point in drawn]))
            axes.set_xscale("log")
            label_narrow_range(axes.xaxis, axes.get_xlim())
            axes.set_xlabel(axis_label)
        row_axes[0].set_ylabel(f"{reported_word(numbers)} error (%)\nat running train loss {row['level']:g}")
    shared_legend(figure, all_axes[0, 0])
    figure.draw_without_rendering()  # so that all points have their places
    for axes, places, names in named:
        name_points(axes, places, names)
    return figure


NAME_SIZE, NAME_DISTANCE, POINT_RADIUS = 6.5, 3, 2.5  # in printer's points


def name_points(axes, places, names):
    """Write names beside points, each where it covers least of other points and of names that are there already.

    places: [(x, y)] of all points; names: theirs, "" of those that have none.
    """
    centers = axes.transData.transform(places) * 72 / axes.figure.dpi
    taken = [(x - POINT_RADIUS, y - POINT_RADIUS, x + POINT_RADIUS, y + POINT_RADIUS) for x, y in centers]
    for (x, y), place, name in zip(centers, places, names):
        if not name:
            continue
        width = 0.62 * NAME_SIZE * len(name)  # of digits, which are the widest
        options = []
        for right, up in itertools.product((1, -1, 0), (-1, 1)):
            left = x + right * NAME_DISTANCE - width * (1 - right) / 2
            bottom = y + up * (NAME_DISTANCE + POINT_RADIUS * (right == 0)) - NAME_SIZE * (up < 0)
            options.append((left, bottom, left + width, bottom + NAME_SIZE))
        best = min(options, key=lambda box: sum(overlap(box, other) for other in taken))
        taken.append(best)
        offset = {"xytext": (best[0] - x, best[1] - y), "textcoords": "offset points", "va": "bottom"}
        axes.annotate(name, place, **offset, fontsize=NAME_SIZE, annotation_clip=False)


def overlap(box, other):
    """The area that two boxes (left, bottom, right, top) share."""
    width, height = (min(box[axis + 2], other[axis + 2]) - max(box[axis], other[axis]) for axis in (0, 1))
    return max(width, 0) * max(height, 0)
