"""Draws the figures of curves against the PLR from their numbers, as series.py gathers them, and nothing else.

A function draws a dictionary of such numbers and returns a matplotlib figure. Those that take a `figure` can draw into
a part of another one instead.
"""

import functools

import numpy as np
from matplotlib import pyplot as plt

from data.analysis.axes import (
    PRETRAIN_STYLE,
    accuracy_label,
    colors,
    deviations,
    draw_curve,
    keep_to_percent,
    legend_below,
    lr_label,
    lr_text,
    panel_title,
    prepare_plr_axes,
    reported_word,
    shared_legend,
)
from data.analysis.captions import row_titles
from data.analysis.series import found_under
from data.bands import DIVIDE, FULL, KEEP, REESTIMATE, STANDARDISE


def draw_regime_curve(numbers):
    figure, axes = plt.subplots(figsize=(4.5, 3))
    curve = numbers["pretrain"]
    axes.errorbar(curve["plr"], curve["mean"], deviations(curve), **PRETRAIN_STYLE | {"label": None}, capsize=2)
    prepare_plr_axes(axes, numbers)
    axes.set_ylim(0, 100)
    axes.set_ylabel(accuracy_label(numbers))
    return figure


def draw_accuracy_panels(numbers, figure=None):
    drawn_flrs = numbers.get("drawn_flrs")
    finetune = [curve for curve in numbers["finetune"] if drawn_flrs is None or curve["flr"] in drawn_flrs]
    panels = [("Fine-tuning", finetune), ("Weight averaging (SWA)", numbers["swa"])]
    panels = [panel for panel in panels if panel[1]] or [("Pre-training", [])]
    figure = figure or plt.figure(figsize=(4.2 * len(panels), 3.5))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (title, curves) in zip(all_axes[0], panels):
        draw_accuracies(axes, numbers["pretrain"], curves)
        prepare_plr_axes(axes, numbers)
        axes.set_title(title, fontsize=9, pad=16)
        legend_below(axes)
    keep_to_percent(all_axes[0, 0])
    all_axes[0, 0].set_ylabel(accuracy_label(numbers))
    return figure


def draw_accuracies(axes, pretrain, curves):
    """The accuracies after pre-training, and those at FLRs or of averages."""
    draw_curve(axes, pretrain, **PRETRAIN_STYLE)
    for curve, color in zip(curves, colors(len(curves))):
        label = f"FLR {lr_text(curve['flr'])}" if "flr" in curve else f"{curve['window']} weights"
        draw_curve(axes, curve, color=color, marker="o", label=label)


BAND_COLOR = "#009E73"


def draw_band(numbers):
    """The band of useful learning rates: accuracies above, and late train loss, by which regimes are told apart, below."""
    figure, (axes, below) = plt.subplots(2, 1, figsize=(5.2, 5.4), sharex=True, height_ratios=(2, 1))
    draw_accuracies(axes, numbers["pretrain"], [*numbers["finetune"], *numbers["swa"]])
    best, band = numbers["best"], numbers["band"]
    if best:
        label = f"best: PLR {lr_text(best['plr'])}"
        axes.plot(best["plr"], best["mean"], "*", color="#D55E00", markersize=11, zorder=3, label=label)
    draw_curve(below, numbers["late_loss"], **PRETRAIN_STYLE | {"label": None})
    below.set_yscale("log")
    prepare_plr_axes(axes, numbers)
    for each in (axes, below) if band else ():
        each.axvspan(
            band["lower"]["next"], band["upper"]["last"], color=BAND_COLOR, alpha=0.15, linewidth=0, zorder=0
        )
    below.set_xlabel(axes.get_xlabel())
    axes.set_xlabel("")
    axes.set_ylabel(accuracy_label(numbers))
    below.set_ylabel("Late train loss")
    shared_legend(figure, axes)
    return figure


PAIR_STYLES = {
    "LH": {"color": "#0072B2", "marker": "o", "label": "low FLR – high FLR"},
    "SH": {"color": "#D55E00", "marker": "s", "label": "SWA – high FLR"},
    "SL": {"color": "#009E73", "marker": "^", "label": "SWA – low FLR"},
}
BARRIERS = ("train_barrier", "test_barrier")


def draw_geometry_panels(numbers, figure=None):
    figure = figure or plt.figure(figsize=(10.5, 3.2))
    all_axes = figure.subplots(1, 3)
    for pair, style in PAIR_STYLES.items():
        draw_curve(all_axes[0], numbers["angle"][pair], **style, clip_on=False)  # as markers may lie on the axis
    prepare_plr_axes(all_axes[0], numbers)
    all_axes[0].set_ylabel("Angular distance (rad)")
    all_axes[0].set_ylim(bottom=0)
    for axes, name in zip(all_axes[1:], BARRIERS):
        draw_barriers(axes, numbers, name)
        prepare_plr_axes(axes, numbers)
    shared_legend(figure, all_axes[0])
    return figure


def draw_barriers(axes, numbers, name):
    """The barriers of all pairs, in percent, on a log axis that begins at the floor of the barrier protocol."""
    for pair, style in PAIR_STYLES.items():
        draw_quartiles(axes, numbers[name][pair], numbers["floor"], **style)
    axes.set_yscale("log")
    axes.set_ylim(numbers["floor"], 100)
    split = "Train" if name == BARRIERS[0] else reported_word(numbers)
    axes.set_ylabel(f"{split} error barrier (%)")


def draw_quartiles(axes, curve, floor, marker, color, **style):
    """A median over runs with the band between the quartiles; what is at most the floor lies there, as open markers."""
    median, lower, upper = (np.maximum(curve[name], floor) for name in ("median", "lower", "upper"))
    plrs, at_floor = np.array(curve["plr"]), median <= floor
    above_floor = np.flatnonzero(~at_floor).tolist()
    axes.plot(plrs, median, color=color, marker=marker, markevery=above_floor, clip_on=False, **style)
    axes.fill_between(plrs, lower, upper, color=color, alpha=0.15, linewidth=0)
    size = {"o": 3.5, "s": 5.5, "^": 7.5}[marker]  # so that all are seen where they coincide
    open_style = {"markerfacecolor": "none", "markersize": size, "clip_on": False, "zorder": 3}
    if at_floor.any():
        axes.plot(plrs[at_floor], median[at_floor], color=color, linestyle="", marker=marker, **open_style)


def draw_feature_panels(numbers, shaded=False):
    panels = numbers["panels"]
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.3), sharey=True, squeeze=False)
    for axes, panel in zip(all_axes[0], panels):
        for rank, (curve, color) in enumerate(zip(panel["top"], colors(len(panel["top"])))):
            name = {0: "best feature of each run", len(panel["top"]) - 1: "worst feature"}.get(rank)
            draw_curve(axes, curve, shaded, color=color, linewidth=1, label=name)
        draw_curve(axes, panel["all_features"], shaded, color="black", marker="o", label="all features")
        prepare_plr_axes(axes, numbers)
        axes.set_title(panel_title(panel), fontsize=9, pad=16)
    keep_to_percent(all_axes[0, 0])
    shared_legend(figure, all_axes[0, 0])
    all_axes[0, 0].set_ylabel(accuracy_label(numbers))
    return figure


BAND_STYLES = {
    "background": {"color": "#999999", "marker": "x"},
    "low": {"color": "#0072B2", "marker": "o"},
    "mid": {"color": "#D55E00", "marker": "s"},
    "high": {"color": "#009E73", "marker": "^"},
    FULL: {"color": "black", "marker": None},
}
NORMALISATION_TITLES = {
    KEEP: "published rule",
    DIVIDE: "divided by the usual standard deviation",
    STANDARDISE: "standardised by band",
    REESTIMATE: "batch norm re-estimated by band",
}


def draw_band_panels(numbers, figure=None):
    rows, columns = numbers["rows"], len(numbers["rows"][0]["panels"])
    figure = figure or plt.figure(figsize=(2.9 * columns, 0.6 + 2.3 * len(rows)))
    all_axes = figure.subplots(len(rows), columns, sharey=True, sharex=True, squeeze=False)
    for row_axes, row in zip(all_axes, rows):
        for axes, panel in zip(row_axes, row["panels"]):
            draw_bands(axes, panel["bands"])
            prepare_plr_axes(axes, numbers)
            axes.label_outer()
            if row is rows[0]:
                axes.set_title(panel_title(panel), fontsize=9, pad=16)
        label_band_accuracy(row_axes[0], numbers, row["normalisation"])
    keep_to_percent(all_axes[0, 0])
    shared_legend(figure, all_axes[0, 0])
    return figure


def draw_bands(axes, curves):
    """The accuracies on every band; dotted those on bands that do not scale with the images, low-32 and so on."""
    for curve in curves:
        name, *side = curve["band"].split("-")
        unscaled = (
            {"linestyle": ":", "marker": None, "label": f"{name}, limits as at {side[0]} pixels"} if side else {}
        )
        draw_curve(axes, curve, **{"label": name} | BAND_STYLES[name] | unscaled)


def label_band_accuracy(axes, numbers, normalisation):
    axes.set_ylabel(f"{accuracy_label(numbers)},\n{NORMALISATION_TITLES[normalisation]}", fontsize=8)


def draw_low_ends(numbers, figure):
    all_axes = figure.subplots(1, len(numbers["panels"]), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, numbers["panels"]):
        draw_bands(axes, panel["bands"])
        prepare_plr_axes(axes, numbers)
        axes.set(xlabel=None)  # there is no room for six
        axes.label_outer()
        axes.set_title(f"low band to {panel['low_end']}", fontsize=9, pad=16)
    figure.supxlabel(
        f"Pre-training {lr_label(numbers)}. After fine-tuning, FLR {lr_text(numbers['flr'])}; the mid band begins where the "
        f"low one ends, in $|k_x|+|k_y|$",
        fontsize=9,
    )
    keep_to_percent(all_axes[0])
    label_band_accuracy(all_axes[0], numbers, numbers["normalisation"])
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside center right")


def draw_practical_panels(numbers, figure):
    """Bands and accuracy after fine-tuning, and the train barriers where they are measured."""
    geometry = numbers["geometry"]
    of_bands, accuracy, *barriers = figure.subplots(1, 3 if geometry else 2)
    draw_bands(of_bands, numbers["panel"]["bands"])
    label_band_accuracy(of_bands, numbers, numbers["normalisation"])
    of_bands.set_title(panel_title(numbers["panel"]), fontsize=9, pad=16)
    draw_accuracies(accuracy, numbers["pretrain"], numbers["finetune"])
    accuracy.set_ylabel(accuracy_label(numbers))
    for axes in (of_bands, accuracy):
        keep_to_percent(axes)
    for axes in barriers:
        draw_barriers(axes, geometry, "train_barrier")
    for axes in (of_bands, accuracy, *barriers):
        prepare_plr_axes(axes, numbers)
        legend_below(axes, columns=2)


def draw_rows(draw, height, numbers):
    """One experiment in each row, drawn by a function that draws one of them into a figure.

    Rows whose learning rates are of the same kind share their axis of PLRs.
    """
    rows = numbers["rows"]
    figure = plt.figure(figsize=(10.5, height * len(rows)))
    kinds = {(lr_label(row), row["experiment"].get("optimizer", {}).get("name")) for row in rows}
    plrs = [plr for row in rows for found in found_under(row, "plr") for plr in found]
    shared = (
        {"plr_limits": [min(plrs), max(plrs)]}
        if len(rows) > 1 and len(kinds) == 1 and min(plrs) < max(plrs)
        else {}
    )
    for part, row, title in zip(np.atleast_1d(figure.subfigures(len(rows), 1)), rows, row_titles(rows)):
        draw(row | shared, part)
        part.suptitle(title, fontsize=9, parse_math=False)  # names may hold any characters
    return figure


draw_accuracy_rows = functools.partial(draw_rows, draw_accuracy_panels, 3.7)
draw_geometry_rows = functools.partial(draw_rows, draw_geometry_panels, 3.4)
draw_band_rows = functools.partial(draw_rows, draw_band_panels, 3.4)
draw_low_end_rows = functools.partial(draw_rows, draw_low_ends, 3.4)
draw_practical_rows = functools.partial(draw_rows, draw_practical_panels, 3.7)
