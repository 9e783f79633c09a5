"""Draws the figures of the paper from their numbers, as series.py gathers them: figureNN.json, and nothing else.

A function draws a dictionary of such numbers and returns a matplotlib figure. Those that take a `figure` can draw into
a part of another one instead.
"""

import functools

import matplotlib
import numpy as np

from data.bands import DIVIDE, FULL, KEEP, REESTIMATE, STANDARDISE
from data.images import reported_split

matplotlib.use("Agg")  # writes files, never needs a display
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib import ticker  # noqa: E402

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # text stays text
}
PRETRAIN_STYLE = {"color": "black", "marker": "o", "label": "after pre-training"}
EARLIER_LR_LABEL = "learning rate (effective)"  # of figures that do not say what their network calls it


def draw_regime_curve(numbers):
    figure, axes = plt.subplots(figsize=(4.5, 3))
    curve = numbers["pretrain"]
    axes.errorbar(curve["plr"], curve["mean"], curve["std"], **PRETRAIN_STYLE | {"label": None}, capsize=2)
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
    all_axes[0, 0].set_ylabel(accuracy_label(numbers))
    return figure


def draw_accuracies(axes, pretrain, curves):
    """The accuracies after pre-training, and those at FLRs or of averages."""
    draw_curve(axes, pretrain, **PRETRAIN_STYLE)
    for curve, color in zip(curves, colors(len(curves))):
        label = f"FLR {lr_text(curve['flr'])}" if "flr" in curve else f"{curve['window']} weights"
        draw_curve(axes, curve, color=color, marker="o", label=label)


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


PAIR_STYLES = {
    "LH": {"color": "#0072B2", "marker": "o", "label": "low FLR – high FLR"},
    "SH": {"color": "#D55E00", "marker": "o", "label": "SWA – high FLR"},
    "SL": {"color": "#009E73", "marker": "o", "label": "SWA – low FLR"},
}
BARRIERS = ("train_barrier", "test_barrier")


def draw_geometry_panels(numbers, figure=None):
    figure = figure or plt.figure(figsize=(10.5, 3.2))
    all_axes = figure.subplots(1, 3)
    for pair, style in PAIR_STYLES.items():
        draw_curve(all_axes[0], numbers["angle"][pair], **style)
    prepare_plr_axes(all_axes[0], numbers)
    all_axes[0].set_ylabel("Angular distance (rad)")
    all_axes[0].set_ylim(bottom=0)
    for axes, name in zip(all_axes[1:], BARRIERS):
        draw_barriers(axes, numbers, name)
        prepare_plr_axes(axes, numbers)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_barriers(axes, numbers, name):
    """The barriers of all pairs, in percent, on a log axis that begins at the floor of the barrier protocol."""
    for pair, style in PAIR_STYLES.items():
        draw_quartiles(axes, numbers[name][pair], numbers["floor"], **style)
    axes.set_yscale("log")
    axes.set_ylim(numbers["floor"], 100)
    split = "Train" if name == BARRIERS[0] else reported_word(numbers)
    axes.set_ylabel(f"{split} error barrier (%)")


def draw_quartiles(axes, curve, floor, color, **style):
    """A median over runs with the band between the quartiles; what is below the floor leaves a log axis downwards."""
    median, lower, upper = (np.maximum(curve[name], floor / 10) for name in ("median", "lower", "upper"))
    axes.plot(curve["plr"], median, color=color, **style)
    axes.fill_between(curve["plr"], lower, upper, color=color, alpha=0.15, linewidth=0)


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
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    all_axes[0, 0].set_ylabel(accuracy_label(numbers))
    return figure


BAND_COLORS = {"background": "#999999", "low": "#0072B2", "mid": "#D55E00", "high": "#009E73", "full": "black"}
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
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


def draw_bands(axes, curves):
    """The accuracies on every band."""
    for curve in curves:
        name, *unscaled = curve["band"].split("-")
        style = {"color": BAND_COLORS[name], "linestyle": ":" if unscaled else "-", "label": curve["band"]}
        draw_curve(axes, curve, **style, marker=None if name == FULL or unscaled else "o")


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
    for axes in barriers:
        draw_barriers(axes, geometry, "train_barrier")
    for axes in (of_bands, accuracy, *barriers):
        prepare_plr_axes(axes, numbers)
        legend_below(axes, columns=2)


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
    label_ones_twos_and_fives(epochs.yaxis)
    label = lr_label(numbers)
    epochs.set_xlabel(label[0].upper() + label[1:])
    return figure


def draw_two_stage_bars(numbers):
    figure, axes = plt.subplots(figsize=(5.5, 3.8))
    groups = numbers["groups"]
    ways = list(dict.fromkeys(tuple(bar["lrs"][:-1]) for group in groups for bar in group["bars"]))
    width = 0.8 / len(ways)
    for place, (way, color) in enumerate(zip(ways, colors(len(ways)))):
        label = r" $\to$ ".join([*map(lr_text, way), "FLR"])
        for number, group in enumerate(groups):
            for bar in group["bars"]:
                if tuple(bar["lrs"][:-1]) == way and bar["mean"] is not None:
                    left, deviation = number - 0.4 + (place + 0.5) * width, bar["std"] if bar["n"] > 1 else None
                    axes.bar(left, bar["mean"], 0.92 * width, color=color, yerr=deviation, label=label)
                    axes.annotate(f"{bar['mean']:.1f}", (left, bar["mean"]), ha="center", va="bottom")
                    label = None
    for number, group in enumerate(groups):
        if group["scratch"]["mean"] is not None:
            label = f"the FLR alone, for {group['scratch']['steps']} epochs" if number == 0 else None
            style = {"color": "black", "linestyle": "--", "label": label}
            axes.plot([number - 0.4, number + 0.4], [group["scratch"]["mean"]] * 2, **style)
    axes.set_xticks(range(len(groups)), [f"FLR {lr_text(group['flr'])}" for group in groups])
    axes.set_ylabel(accuracy_label(numbers))
    axes.grid(False, axis="x")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    return figure


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


def draw_sharpness(numbers):
    rows = numbers["rows"]
    figure, all_axes = plt.subplots(len(rows), 3, figsize=(10.5, 0.6 + 2.8 * len(rows)), squeeze=False)
    plrs = sorted({point["plr"] for row in rows for point in row["points"] if point["flr"] is not None})
    plr_colors = dict(zip(plrs, plt.get_cmap("rainbow")(np.linspace(0, 1, len(plrs)))))
    groups = {None: ("black", "pre-trained at PLRs of regime 1")}
    groups |= {plr: (plr_colors[plr], f"fine-tuned from PLR {lr_text(plr)}") for plr in plrs}
    for row_axes, row in zip(all_axes, rows):
        for axes, (name, axis_label) in zip(row_axes, SHARPNESS_LABELS.items()):
            for plr, (color, label) in groups.items():
                points = [
                    point
                    for point in row["points"]
                    if (point["plr"] if point["flr"] is not None else None) == plr and point[name] is not None
                ]
                error = [point["trace_error"] for point in points] if name == "trace" else None
                places = [point[name] for point in points], [point["test_error"] for point in points]
                axes.errorbar(*places, xerr=error, fmt="o", markersize=5, color=color, label=label)
            axes.set_xscale("log")
            label_ones_twos_and_fives(axes.xaxis)
            axes.set_xlabel(axis_label)
        row_axes[0].set_ylabel(f"{reported_word(numbers)} error (%)\nat running train loss {row['level']:g}")
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_rows(draw, height, numbers):
    """One experiment in each row, drawn by a function that draws one of them into a figure."""
    figure = plt.figure(figsize=(10.5, height * len(numbers["rows"])))
    for part, row in zip(np.atleast_1d(figure.subfigures(len(numbers["rows"]), 1)), numbers["rows"]):
        draw(row, part)
        part.suptitle(experiment_title(row["experiment"]), fontsize=9)
    return figure


def experiment_title(experiment):
    """What tells experiments apart: network, size and data; augmentation, and the optimiser's options, where there are."""
    sizes = {"width": experiment["width"]} | {k: v for k, v in experiment.get("shape", {}).items() if k != "side"}
    options = {k: v for k, v in experiment.get("optimizer", {}).items() if k != "name"}
    words = [
        experiment["model"],
        *(f"{name.replace('_', ' ')} {value:g}" for name, value in (sizes | options).items()),
    ]
    augment = experiment.get("augment", "none")
    return ", ".join([*words, experiment["data"], *([] if augment == "none" else [augment])])


draw_accuracy_rows = functools.partial(draw_rows, draw_accuracy_panels, 3.7)
draw_geometry_rows = functools.partial(draw_rows, draw_geometry_panels, 3.4)
draw_band_rows = functools.partial(draw_rows, draw_band_panels, 3.4)
draw_low_end_rows = functools.partial(draw_rows, draw_low_ends, 3.4)
draw_practical_rows = functools.partial(draw_rows, draw_practical_panels, 3.7)


def panel_title(panel):
    if panel["stage"] == "finetune":
        return f"After fine-tuning, FLR {lr_text(panel['flr'])}"
    return f"After SWA, {panel['window']} weights" if panel["stage"] == "swa" else "After pre-training"


def draw_curve(axes, curve, shaded=True, *, color, **style):
    """A mean over runs, with a band of one standard deviation, if wanted, where there are several."""
    axes.plot(curve["plr"], curve["mean"], color=color, **style)
    if shaded and max(curve["n"]) > 1:
        mean, std = np.array(curve["mean"]), np.array(curve["std"])
        axes.fill_between(curve["plr"], mean - std, mean + std, color=color, alpha=0.15, linewidth=0)


def prepare_plr_axes(axes, numbers):
    """A log axis of PLRs with the measured regime boundaries: dashed b12 and b23, dotted b2AB, regimes named on top.

    Faint bands reach over all places of a boundary that are likely by resamples of the runs, where there are some.
    """
    axes.set_xscale("log")
    axes.set_xlabel(f"Pre-training {lr_label(numbers)}")
    axes.margins(x=0.03)
    left, right = axes.get_xlim()
    places = {name: np.sqrt(place["last"] * place["next"]) for name, place in numbers["regimes"].items() if place}
    for likely in (place["range"] for place in numbers["regimes"].values() if place and "range" in place):
        axes.axvspan(*likely, color="0.35", alpha=0.1, linewidth=0, zorder=0)
    for name, place in places.items():
        axes.axvline(place, color="0.35", linestyle=":" if name == "b2AB" else "--", linewidth=1, zorder=0)
    b12, b2ab, b23 = (places.get(name) for name in ("b12", "b2AB", "b23"))
    regimes = [("1", left, b12), ("2A", b12, b2ab), ("2B", b2ab, b23 or right), ("3", b23, right)]
    if b2ab is None:
        regimes[1:3] = [("2", b12, b23 or right)]
    above_axes = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "color": "0.35"}
    for regime, begin, end in regimes:
        begin, end = max(begin or right, left), min(end or left, right)  # in view; nothing where not measured
        if begin < end:
            axes.annotate(regime, (np.sqrt(begin * end), 1.01), **above_axes)
    axes.set_xlim(left, right)


def reported_word(numbers):
    """`Test`, or `Validation` where the runs of a figure report on held-out images instead."""
    return reported_split(numbers.get("experiment", {})).capitalize()


def accuracy_label(numbers):
    return f"{reported_word(numbers)} accuracy (%)"


def lr_label(numbers):
    """What the learning rate of a figure's network is called."""
    return numbers.get("lr_label", EARLIER_LR_LABEL)


def label_ones_twos_and_fives(axis):
    """Labels for log axes of about one decade, where matplotlib's own are too few or overlap."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def legend_below(axes, columns=3):
    """A legend outside the axes, so that it hides no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)


def colors(count):
    """Ordered colours that stay apart for colour-blind readers and in grey, none too light on white."""
    return plt.get_cmap("viridis")(np.linspace(0, 0.88, count))


def lr_text(lr):
    mantissa, exponent = f"{lr:.1e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if float(mantissa) == 1 else f"${float(mantissa):g}\\cdot{power}$"
