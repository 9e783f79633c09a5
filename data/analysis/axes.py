"""What figures have in common: their style, axes of learning rates, curves with bands, legends, and how rates are written."""

import math

import matplotlib
import numpy as np

from data.commandline import lr_name
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
MOST_BEYOND = 3  # percentage points of an axis below 0 and above 100, for markers there
EARLIER_LR_LABEL = "learning rate (effective)"  # of figures that do not say what their network calls it


def draw_curve(axes, curve, shaded=True, *, color, **style):
    """A mean over runs, with a band of one standard deviation, if wanted, where there are several.

    A point with several runs between points with one has an error bar instead, as a band needs two.
    """
    axes.plot(curve["plr"], curve["mean"], color=color, **style)
    if shaded and max(curve["n"]) > 1:
        plrs, mean, std = np.array(curve["plr"]), np.array(curve["mean"], dtype=float), deviations(curve)
        axes.fill_between(plrs, mean - std, mean + std, color=color, alpha=0.15, linewidth=0)
        before, known, after = (np.pad(np.isfinite(std), 1)[shift:][: len(std)] for shift in range(3))
        alone = known & ~before & ~after
        if alone.any():
            axes.errorbar(plrs[alone], mean[alone], std[alone], fmt="none", color=color, linewidth=1, capsize=2)


def deviations(curve):
    """The standard deviations of a curve, NaN where there is a single run."""
    return np.where(np.array(curve["n"]) > 1, np.array(curve["std"], dtype=float), np.nan)


def prepare_plr_axes(axes, numbers):
    """A log axis of PLRs with the measured regime boundaries: dashed b12 and b23, dotted b2AB, regimes named on top.

    Faint bands reach over all places of a boundary that are likely by resamples of the runs, where there are some.
    The axis spans `plr_limits` where the numbers have them: those of all rows that are compared.
    """
    axes.set_xscale("log")
    axes.set_xlabel(f"Pre-training {lr_label(numbers)}")
    axes.margins(x=0.03)
    if "plr_limits" in numbers:
        low, high = np.log(numbers["plr_limits"])
        margin = 0.03 * (high - low)
        axes.set_xlim(np.exp(low - margin), np.exp(high + margin))
    left, right = axes.get_xlim()
    label_narrow_range(axes.xaxis, (left, right), lr_name)
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


def keep_to_percent(axes):
    """Cut an axis of percentages, of all axes that share it, where bands go beyond them. To be called last."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -MOST_BEYOND), min(high, 100 + MOST_BEYOND))


def reported_word(numbers):
    """`Test`, or `Validation` where the runs of a figure report on held-out images instead."""
    return reported_split(numbers.get("experiment", {})).capitalize()


def accuracy_label(numbers):
    return f"{reported_word(numbers)} accuracy (%)"


def lr_label(numbers):
    """What the learning rate of a figure's network is called."""
    return numbers.get("lr_label", EARLIER_LR_LABEL)


ROUND_NUMBERS = ((1,), (1, 2, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))  # ever denser, times powers of ten


def label_narrow_range(axis, limits, text=lambda number: f"{number:g}"):
    """Ticks of a log axis that can be read where fewer than two powers of ten are in view.

    text: how a number is written.
    """
    low, high = limits
    axis.set_minor_formatter(ticker.NullFormatter())
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    powers, *denser = (
        [
            found
            for exponent in exponents
            for number in numbers
            if low <= (found := number * 10.0**exponent) <= high
        ]
        for numbers in ROUND_NUMBERS
    )
    if len(powers) > 1:
        return
    enough = [ticks for ticks in denser if len(ticks) > 2]
    axis.set_major_locator(ticker.FixedLocator(enough[0]) if enough else ticker.MaxNLocator(4))
    axis.set_major_formatter(ticker.FuncFormatter(lambda number, _: text(number)))


MARGINS = 1.3  # how much wider axes are with the margins at their sides, below which a legend may reach


def legend_below(axes, columns=3):
    """A legend outside the axes, so that it hides no data, in as many columns as there is room for, and no more."""
    _, labels = axes.get_legend_handles_labels()
    columns = min(columns, fitting_columns(axes, labels, MARGINS))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)


def shared_legend(figure, axes):
    """The legend of one of its axes, below a whole figure, in as many columns as there is room for."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=fitting_columns(figure, labels))


def fitting_columns(place, labels, wider=1):
    """How many columns of a legend with these labels fit below axes, a figure, or a part of one, or what is wider."""
    figure = place if hasattr(place, "dpi_scale_trans") else place.figure
    width = wider * place.bbox.width / figure.dpi_scale_trans.to_values()[0]  # in inches
    columns = int(width / max((0.6 + 0.055 * written_length(label) for label in labels), default=width))
    return max(1, min(columns, len(labels)))


def written_length(label):
    """About how many characters a label takes, as some of it may be mathematics."""
    return len(label.replace(r"\cdot", ".").replace(r"\to", ">").translate(str.maketrans("", "", "${}^\\")))


def colors(count):
    """Ordered colours that stay apart for colour-blind readers and in grey, none too light on white."""
    return plt.get_cmap("viridis")(np.linspace(0, 0.88, count))


def lr_text(lr):
    mantissa, exponent = f"{lr:.1e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if float(mantissa) == 1 else f"${float(mantissa):g}\\cdot{power}$"


def panel_title(panel):
    if panel["stage"] == "finetune":
        return f"After fine-tuning, FLR {lr_text(panel['flr'])}"
    return f"After SWA, {panel['window']} weights" if panel["stage"] == "swa" else "After pre-training"
