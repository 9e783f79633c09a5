"""What figures say of the experiments that they show: titles of rows, and small print below.

An experiment here is a dictionary of a figure's numbers: those of the whole figure, or of a row that compares it with
others. Of figures that were written before all of it was, what is there is said.
"""

import textwrap

import numpy as np
from matplotlib.transforms import Bbox

from data.analysis.boundaries import LIKELY
from data.analysis.series import found_under
from data.images import reported_split

STAGES = {"pretrain": "pre-training", "finetune": "fine-tuning", "swa": "SWA over"}
CURVES = "curves"  # in place of a figure's number: learning curves, which are no figure of the paper
BAND = "band"  # likewise: the band of useful learning rates
POINTS = {
    12: "bar",
    13: "histogram",
    CURVES: "curve, of which it is the mean",
}  # what shows runs where it is no point, by figure
RENAMED = {"side": "image_side", "name": "optimizer"}  # inside of settings, where a name alone does not tell
WITH_ERROR_BARS = (1, 12)  # figures that have no bands
WITH_FINAL_ACCURACIES = (2, 8, 10, 12, 19, 22)  # of pre-training and fine-tuning
WITHOUT_BOUNDARIES = (13, 26)  # figures that do not draw the boundaries between regimes, which they have
TRAIN_LOSS_ON_TICKS = "of the whole training set at that iteration"
TRAIN_LOSS_ON_IMAGES = "running mean over the epochs since the point before; at the first point of a stage of the training set, without training"
SMALL_PRINT_SIZE, CHARACTERS_PER_INCH = 6.5, 21


def experiment_title(experiment, differing=()):
    """What tells experiments apart: network, size and data; augmentation, and the optimiser's options, where there are.

    differing: names of other settings that others have otherwise, see flat().
    """
    settings, (_, inside) = flat(experiment), settings_of(experiment)
    names = ["model", "width", *(name for name in inside if name not in RENAMED), "data", "augment"]
    names += [name for name in differing if name not in names]
    texts = (setting_text(name, settings.get(name)) for name in names)
    return ", ".join(text for text in texts if text)


def row_titles(rows):
    """A title for every row of a figure, which says in what settings the rows differ."""
    every = [flat(row) for row in rows]
    known = [name for name in every[0] if all(name in settings for settings in every)]
    differing = [name for name in known if len({str(settings[name]) for settings in every}) > 1]
    return [experiment_title(row, differing) for row in rows]


def flat(experiment):
    """{name: value} of all settings of an experiment, of its network and optimiser, its training samples and lengths."""
    settings, inside = settings_of(experiment)
    renamed = {RENAMED.get(name, name): value for name, value in inside.items()}
    return settings | renamed | {"train_samples": experiment.get("train_samples")} | lengths(experiment)


def settings_of(experiment):
    """(settings of an experiment, those inside of them: the numbers of the network's shape and its optimiser)."""
    settings = dict(experiment.get("experiment", {}))
    return settings, settings.pop("shape", {}) | settings.pop("optimizer", {})


def lengths(experiment):
    """{stage: how long it is, in words}."""
    return {
        stage: f"{STAGES[stage]} {' or '.join(f'{steps:,}' for steps in of_stage)} {experiment['unit']}s"
        for stage, of_stage in experiment.get("lengths", {}).items()
        if of_stage
    }


def setting_text(name, value):
    """A setting in words; nothing where there is none."""
    if value is None or (name, value) == ("augment", "none"):
        return ""
    if name in ("model", "data", "augment", *STAGES):
        return value
    if name == "train_samples":
        return f"{value:,} training samples"
    if name in ("digest", "model_digest"):
        return f"{name.replace('_', ' ')} {value[:8]}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{name.replace('_', ' ')} {value:g}" if number else f"{name.replace('_', ' ')} {value}"


def small_print(numbers):
    """What a figure shows, in lines: the experiment of every row, or the one, and what its bands are."""
    rows = [row for row in numbers.get("rows", []) if "experiment" in row]
    if len(rows) > 1:
        lines = [f"Row {n}: {experiment_line(row, numbers['figure'])}" for n, row in enumerate(rows, 1)]
    else:
        lines = [experiment_line((rows or [numbers])[0], numbers["figure"])]
    notes = dict.fromkeys(note for row in rows or [numbers] for note in what_is_drawn(row, numbers["figure"]))
    return [line for line in [*lines, " ".join(notes)] if line]


def what_is_drawn(experiment, figure):
    """Sentences on bands, bars, markers and lines, and on where there are none."""
    notes = []
    if experiment.get("deviations"):
        fewest, _ = experiment["runs_per_point"]
        none = "; none where there is one run" if fewest == 1 and "over runs" in experiment["deviations"] else ""
        drawn = deviations_drawn(experiment, figure)
        notes.append(f"{drawn}: standard deviations {experiment['deviations']}{none}.")
    geometry = experiment.get("geometry") or experiment
    if "floor" in geometry:
        notes.append(f"Barriers: medians and quartiles; open markers: at most {geometry['floor']:g} %.")
    if figure == 26:
        notes.append("Error bars: standard errors of the trace, by random signs.")
    places = {name: place for name, place in experiment.get("regimes", {}).items() if place}
    if places and figure not in WITHOUT_BOUNDARIES:
        dashed = " and ".join(title for name, title in (("b12", "1|2"), ("b23", "2|3")) if name in places)
        kinds = [f"{dashed} (dashed)"] * bool(dashed) + ["2A|2B (dotted)"] * ("b2AB" in places)
        what = "boundaries" if len(places) > 1 else "boundary"
        notes.append(
            f"Grey lines: {what} {' and '.join(kinds)}, between the last PLR of a regime and the first of the next."
        )
        if any("range" in place for place in places.values()):
            notes.append(f"Grey bands: where {100 * LIKELY:.0f} % or more of the resamples place them.")
    if experiment.get("experiment", {}).get("test_statistics") and figure in WITH_FINAL_ACCURACIES:
        notes.append(
            "Test accuracies after pre-training and fine-tuning: with batch-norm statistics re-estimated."
        )
    if figure == BAND:
        notes.append("Green: the band of useful PLRs, 2A.")
    if figure == CURVES:
        on_ticks = experiment.get("experiment", {}).get("data") == "ticks"
        notes.append(f"Train loss: {TRAIN_LOSS_ON_TICKS if on_ticks else TRAIN_LOSS_ON_IMAGES}.")
    return notes


def deviations_drawn(experiment, figure):
    """How standard deviations are drawn: as axes.draw_curve() does, of points without neighbours by error bars."""
    several = [
        np.array([0, *counts, 0]) > 1 for counts in found_under(experiment, "n") if isinstance(counts, list)
    ]
    bands = any((points[1:] & points[:-1]).any() for points in several)
    bars = any((points[1:-1] & ~points[:-2] & ~points[2:]).any() for points in several)
    if figure in WITH_ERROR_BARS or bars and not bands:
        return "Error bars"
    return "Shaded bands and error bars" if bars else "Shaded bands"


def experiment_line(experiment, figure):
    """An experiment, how long its stages are, and how many runs there are at a point, in words."""
    data = experiment.get("experiment", {}).get("data")
    if "class" in experiment:
        split = reported_split(experiment.get("experiment", {}))
        return f"{data}: the first {split} image, of class {experiment['class']}"
    if figure == 4:
        return f"{data}: the training set of data seed 1"
    names = ["train_samples", "batch_size", *STAGES] if experiment.get("lengths") else []
    words, runs = [experiment_title(experiment, names)], experiment.get("runs_per_point")
    if runs:
        fewest, most = runs
        count = f"{most}" if fewest == most else f"{fewest} to {most}"
        words.append(f"{count} run{'s' * (most > 1)} per {POINTS.get(figure, 'point')}")
    return "; ".join(word for word in words if word)


def add_small_print(figure, numbers):
    """Write small_print() below a figure, outside of it. Returns the rectangle of both, in inches, for savefig."""
    width, height = figure.get_size_inches()
    lines = [
        part for line in small_print(numbers) for part in textwrap.wrap(line, int(width * CHARACTERS_PER_INCH))
    ]
    style = {"va": "top", "fontsize": SMALL_PRINT_SIZE, "linespacing": 1.2, "color": "0.35"}
    figure.text(0.1 / width, 0, "\n".join(lines), parse_math=False, **style)  # names may hold any characters
    figure.draw_without_rendering()  # so that everything has its place, which savefig of more would move
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    return Bbox([[0, -(1.4 * len(lines) + 0.5) * SMALL_PRINT_SIZE / 72], [width, height]])
