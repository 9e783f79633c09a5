"""Which figure of the paper shows what, of which networks: its number, its numbers, and the files it is drawn to."""

import functools
from typing import NamedTuple

from matplotlib import pyplot as plt

from data.analysis import drawing, series
from data.commandline import BadInput
from data.files import read_json


class Figure(NamedTuple):
    """A figure of the paper."""

    kinds: set  # of the networks that it is drawn of; by --only it is of all others with their task, too
    series: object  # function of a study that gathers the numbers behind it
    draw: object  # function of such numbers
    rows: bool = False  # whether it shows several experiments, in a row each
    alone: bool = True  # whether it is drawn of a single experiment; by --only it is


TICKS, SI, CONVOLUTIONAL, TRANSFORMER = {"ticks"}, {"scale-invariant"}, {"convolutional"}, {"transformer"}
IMAGES = SI | CONVOLUTIONAL | TRANSFORMER
FIGURES = {
    1: Figure(SI, series.regime_numbers, drawing.draw_regime_curve),
    2: Figure(SI, series.accuracy_numbers, drawing.draw_accuracy_panels),
    3: Figure(SI, series.geometry_numbers, drawing.draw_geometry_panels),
    4: Figure(TICKS, series.tick_numbers, drawing.draw_ticks),
    5: Figure(TICKS, series.feature_numbers, drawing.draw_feature_panels),
    6: Figure(IMAGES, series.band_image_numbers, drawing.draw_band_images),
    7: Figure(SI, series.band_numbers, drawing.draw_band_panels),
    8: Figure(CONVOLUTIONAL | TRANSFORMER, series.practical_numbers, drawing.draw_practical_rows, rows=True),
    9: Figure(IMAGES, series.band_image_numbers, functools.partial(drawing.draw_band_images, spectra=True)),
    10: Figure(SI, series.accuracy_numbers, drawing.draw_accuracy_rows, rows=True, alone=False),
    11: Figure(SI, series.boundary_numbers, drawing.draw_boundary),
    12: Figure(SI, series.two_stage_numbers, drawing.draw_two_stage_bars),
    13: Figure(SI, series.norm_numbers, drawing.draw_norm_histograms),
    14: Figure(SI, series.geometry_numbers, drawing.draw_geometry_rows, rows=True, alone=False),
    15: Figure(TICKS, series.tick_accuracy_numbers, drawing.draw_accuracy_panels),
    16: Figure(TICKS, series.geometry_numbers, drawing.draw_geometry_panels),
    17: Figure(TICKS, series.all_feature_numbers, functools.partial(drawing.draw_feature_panels, shaded=True)),
    18: Figure(SI, series.all_band_numbers, drawing.draw_band_rows, rows=True, alone=False),
    19: Figure(CONVOLUTIONAL, series.accuracy_numbers, drawing.draw_accuracy_rows, rows=True),
    20: Figure(CONVOLUTIONAL, series.geometry_numbers, drawing.draw_geometry_rows, rows=True),
    21: Figure(CONVOLUTIONAL, series.all_band_numbers, drawing.draw_band_rows, rows=True),
    22: Figure(TRANSFORMER, series.accuracy_numbers, drawing.draw_accuracy_rows, rows=True),
    23: Figure(TRANSFORMER, series.geometry_numbers, drawing.draw_geometry_rows, rows=True),
    24: Figure(TRANSFORMER, series.all_band_numbers, drawing.draw_band_rows, rows=True),
    25: Figure(TRANSFORMER, series.low_end_numbers, drawing.draw_low_end_rows, rows=True),
    26: Figure(SI, series.sharpness_numbers, drawing.draw_sharpness),
}


def figure_numbers(number, studies):
    """The numbers of a figure, of one study or of several, compared. Raises BadInput where they are not there."""
    figure = FIGURES[number]
    rows = [
        {"experiment": study.settings, "lr_label": study.network["lr_label"]} | figure.series(study)
        for study in studies
    ]
    return {"figure": number, "accuracies": "percent"} | ({"rows": rows} if figure.rows else rows[0])


def draw_figure(path):
    """Draw figureNN.pdf and .png beside figureNN.json. Raises BadInput."""
    numbers = read_json(path)
    number = numbers.get("figure") if isinstance(numbers, dict) else None
    if not isinstance(number, int) or number not in FIGURES:
        raise BadInput(f"{path}: holds no figure's numbers; give a figureNN.json that analyze.py figures wrote")
    with plt.rc_context(drawing.STYLE):
        try:
            figure = FIGURES[number].draw(numbers)
        except KeyError as key:
            raise BadInput(f"{path}: lacks {key}; write it again with analyze.py figures") from None
        for suffix, options in ((".pdf", {"metadata": {"CreationDate": None}}), (".png", {"dpi": 200})):
            figure.savefig(path.with_suffix(suffix), **options)
        plt.close(figure)
    print(f"{path.with_suffix('.pdf')}")


def fitting_figures(studies):
    """The figures about such networks, of one experiment or of several. Raises BadInput where there are none."""
    kinds, several = {study.network["kind"] for study in studies}, len(studies) > 1
    about_these = {number: figure for number, figure in FIGURES.items() if kinds <= figure.kinds}
    fitting = [number for number, figure in about_these.items() if (figure.rows if several else figure.alone)]
    if not fitting:
        raise BadInput(f"{studies[0].folder} and others: no figure compares such experiments; give one folder")
    return fitting


def refuse_unfit_figures(numbers, studies):
    """Raise BadInput for a figure about another task than a study's, or about one experiment of several."""
    for number in numbers:
        for study in studies:
            if (FIGURES[number].kinds == TICKS) != (study.network["task"] == "ticks"):
                raise BadInput(
                    f"--only {number}: is not about {study.network['task']}, which {study.folder} holds runs on"
                )
        if len(studies) > 1 and not FIGURES[number].rows:
            raise BadInput(f"--only {number}: is about one experiment; give one folder")
