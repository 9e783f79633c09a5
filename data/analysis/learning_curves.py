"""Learning curves of all stages by PLR (analyze.py curves): the numbers behind curves.json, and their drawing.

The numbers have a panel for every stage, and of fine-tuning for every learning rate; a panel has a curve for every PLR,
the mean over its runs, at epochs or iterations counted from the start of pre-training.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.ticker import MaxNLocator

from data.analysis.axes import accuracy_label, colors, label_narrow_range, lr_label, lr_text
from data.analysis.lengths import stage_of
from data.analysis.pairing import STAGES
from data.analysis.regimes import as_float

MOST_POINTS = 500  # of a curve; a figure cannot show more
PANELS_ABREAST = 5
QUANTITIES = {"train_loss": 1, "test_accuracy": 100}  # and what they are multiplied by


def curve_numbers(study):
    """Mean train loss and test accuracy, in percent, by panel and PLR, of those seeds that all stages at a PLR have."""
    runs = {}  # {(stage, learning rates after the PLR...): {PLR: [(run, member index)]}}
    for run in study.runs:
        for index, member in enumerate(run.members):
            if not study.is_compared(run, index):
                continue
            plr, *later = member["lrs"]
            runs.setdefault((stage_of(run), *later), {}).setdefault(plr, []).append((run, index))
    panels = []
    for key in sorted(runs, key=lambda key: (STAGES.index(key[0]), len(key), key)):
        (stage, *later), by_plr = key, runs[key]
        curves = [{"plr": plr} | mean_curve(by_plr[plr]) for plr in sorted(by_plr)]
        panels.append({"stage": stage, "later_lrs": later, "curves": curves})
    return {"panels": panels}


def mean_curve(members):
    """`step`, and the means of QUANTITIES there over members, (run, index) each, that have not diverged; their number `n`.

    Steps are those that all runs have logged which are as long. Long curves are thinned to MOST_POINTS.
    """
    logged = [np.array(run.metrics["step"]) + run.settings["first_step"] for run, _ in members]
    steps, counts = np.unique(np.concatenate(logged), return_counts=True)
    steps = steps[counts == sum((steps >= of_run[0]) & (steps <= of_run[-1]) for of_run in logged)]
    steps = steps[thinned(len(steps))]
    found = {"step": steps.tolist(), "n": len(members)}
    for name, scale in QUANTITIES.items():
        values = np.full((len(members), len(steps)), np.nan)
        for row, of_run, (run, index) in zip(values, logged, members):
            there = np.isin(steps, of_run)
            positions = np.searchsorted(of_run, steps[there])
            row[there] = [as_float(run.metrics[name][position][index]) for position in positions]
        found[name] = [
            scale * float(np.mean(of_step)) if len(of_step) else None for of_step in map(finite, values.T)
        ]
    return found


def thinned(count):
    """Which of so many points are drawn, evenly, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def finite(values):
    return values[np.isfinite(values)]


def draw_curves(numbers):
    """Two axes for every panel, loss above accuracy, in rows of a few panels; the colour tells the PLR."""
    panels = numbers["panels"]
    plrs = sorted({curve["plr"] for panel in panels for curve in panel["curves"]})
    scale = LogNorm(plrs[0], plrs[-1]) if len(plrs) > 1 else LogNorm(plrs[0] / 2, plrs[0] * 2)
    color_of = plt.cm.ScalarMappable(scale, ListedColormap(colors(256)))
    abreast, deep = min(PANELS_ABREAST, len(panels)), -(-len(panels) // PANELS_ABREAST)
    figure = plt.figure(figsize=(1.2 + 2.5 * abreast, 3.8 * deep))
    places, drawn = figure.add_gridspec(2 * deep, abreast), []
    for number, panel in enumerate(panels):
        row, column = divmod(number, PANELS_ABREAST)
        pair = [figure.add_subplot(places[2 * row + below, column]) for below in (0, 1)]
        for axes, name, first in zip(pair, QUANTITIES, drawn[0] if drawn else (None, None)):
            draw_panel(axes, panel["curves"], name, color_of)
            if first:
                axes.sharey(first)
        drawn.append(pair)
        pair[0].set_yscale("log")
        pair[0].set_title(curve_title(panel), fontsize=9)
        pair[0].tick_params(labelbottom=False)
        pair[1].set_xlabel(f"{numbers['unit'].capitalize()}s")
        if column == 0:
            pair[0].set_ylabel("Train loss")
            pair[1].set_ylabel(accuracy_label(numbers))
    for loss, _ in drawn:
        label_narrow_range(loss.yaxis, loss.get_ylim())
    every = [axes for pair in drawn for axes in pair]
    figure.colorbar(color_of, ax=every, label=f"Pre-training {lr_label(numbers)}", aspect=30 * deep, pad=0.02)
    return figure


def draw_panel(axes, curves, name, color_of):
    """A quantity of every PLR; a single point is marked."""
    for curve in curves:
        values = np.array(curve[name], dtype=float)
        marker = "o" if np.isfinite(values).sum() == 1 else None
        axes.plot(curve["step"], values, color=color_of.to_rgba(curve["plr"]), linewidth=1, marker=marker)
    # Iterations have many digits, and panels are narrow.
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True))


def curve_title(panel):
    rates, count = r" $\to$ ".join(map(lr_text, panel["later_lrs"])), len(panel["later_lrs"])
    names = {"pretrain": "Pre-training", "converge": "Until convergence", "swa": "SWA, at the PLR"}
    return names.get(panel["stage"]) or (f"Fine-tuning, FLR {rates}" if count == 1 else f"PLR $\\to$ {rates}")
