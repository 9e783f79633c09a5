"""Which figure of the paper shows what, of which networks: its number, its numbers, and the files it is drawn to."""

import functools
import io
from typing import NamedTuple

from matplotlib import pyplot as plt

from data import ticks
from data.analysis import band, drawing, drawing_other, learning_curves, series
from data.analysis.axes import STYLE
from data.analysis.captions import BAND, CURVES, STAGES, add_small_print
from data.commandline import BadInput
from data.files import read_json, write_atomically


class Figure(NamedTuple):
    """A figure of the paper."""

    kinds: set  # of the networks that it is drawn of; by --only it is of all others with their task, too
    series: object  # function of a study that gathers the numbers behind it
    draw: object  # function of such numbers
    rows: bool = False  # whether it shows several experiments, in a row each
    alone: bool = True  # whether it is drawn of a single experiment; by --only it is
    stages: tuple = tuple(STAGES)  # whose lengths it says; none where it shows data alone
    deviations: bool = True  # whether it shows standard deviations, where there are several runs
    paired: bool = True  # whether it shows those seeds alone that all stages have, see pairing.py


TICKS, SI, CONVOLUTIONAL, TRANSFORMER = {"ticks"}, {"scale-invariant"}, {"convolutional"}, {"transformer"}
IMAGES = SI | CONVOLUTIONAL | TRANSFORMER
FIGURES = {
    1: Figure(SI, series.regime_numbers, drawing.draw_regime_curve, stages=("pretrain",), paired=False),
    2: Figure(SI, series.accuracy_numbers, drawing.draw_accuracy_panels),
    3: Figure(SI, series.geometry_numbers, drawing.draw_geometry_panels),
    4: Figure(TICKS, series.tick_numbers, drawing_other.draw_ticks, stages=(), paired=False),
    5: Figure(TICKS, series.feature_numbers, drawing.draw_feature_panels, deviations=False),
    6: Figure(IMAGES, series.band_image_numbers, drawing_other.draw_band_images, stages=(), paired=False),
    7: Figure(SI, series.band_numbers, drawing.draw_band_panels),
    8: Figure(CONVOLUTIONAL | TRANSFORMER, series.practical_numbers, drawing.draw_practical_rows, rows=True),
    9: Figure(IMAGES, series.band_image_numbers, drawing_other.draw_band_spectra, stages=(), paired=False),
    10: Figure(SI, series.accuracy_numbers, drawing.draw_accuracy_rows, rows=True, alone=False),
    11: Figure(SI, series.boundary_numbers, drawing_other.draw_boundary),
    12: Figure(SI, series.two_stage_numbers, drawing_other.draw_two_stage_bars),
    13: Figure(SI, series.norm_numbers, drawing_other.draw_norm_histograms, deviations=False),
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
    26: Figure(SI, series.sharpness_numbers, drawing_other.draw_sharpness, paired=False),
}


DRAWN = {number: figure.draw for number, figure in FIGURES.items()} | {
    CURVES: learning_curves.draw_curves,
    BAND: drawing.draw_band,
}


def figure_numbers(number, studies):
    """The numbers of a figure, of one study or of several, compared. Raises BadInput where they are not there."""
    figure = FIGURES[number]
    rows = [experiment_facts(study, figure.stages) | figure.series(study) for study in studies]
    for row in rows if figure.stages else ():
        if "runs_per_point" not in row:
            row["runs_per_point"] = series.runs_per_point(row)
            several = figure.deviations and row["runs_per_point"][-1:] > [1]
            row["deviations"] = "over runs (n - 1)" if several else None
    return {"figure": number, "accuracies": "percent"} | ({"rows": rows} if figure.rows else rows[0])


def band_figure_numbers(study):
    """The numbers behind the figure of the band (band.json), which are all that is said of it."""
    numbers = {"figure": BAND, "accuracies": "percent"} | experiment_facts(study) | band.band_numbers(study)
    runs = series.runs_per_point([numbers[name] for name in ("pretrain", "finetune", "swa")])
    return numbers | {"runs_per_point": runs, "deviations": "over runs (n - 1)" if runs[-1:] > [1] else None}


def learning_curve_numbers(study):
    """The numbers behind learning curves of a study (curves.json)."""
    numbers = (
        {"figure": CURVES, "accuracies": "percent"}
        | experiment_facts(study)
        | learning_curves.curve_numbers(study)
    )
    return numbers | {"runs_per_point": series.runs_per_point(numbers)}


def experiment_facts(study, stages=tuple(STAGES)):
    """What a figure says of an experiment: settings, training samples where they are known, lengths of the stages."""
    [first, *_] = study.of_stage("pretrain")
    on_ticks = study.network["task"] == "ticks"
    samples = {"train": ticks.TRAIN_SIZE} if on_ticks else first.config.get("samples", {})
    known = {"train_samples": samples["train"]} if samples else {}
    steps = {stage: {run.settings.get("steps") for run in plain_runs(study, stage)} - {None} for stage in stages}
    return {
        "experiment": study.settings,
        "lr_label": study.network["lr_label"],
        **known,
        "unit": first.unit,
        "lengths": {stage: sorted(of_stage) for stage, of_stage in steps.items()},
    }


def plain_runs(study, stage):
    """The runs of a stage; of fine-tuning those that continue pre-training, and not another fine-tuning."""
    return [run for run in study.of_stage(stage) if len(run.members[0]["lrs"]) == 1 + (stage == "finetune")]


ENDINGS = (".json", ".pdf", ".png")  # of the files of a figure


# What drawing raises for numbers that are not such as series functions give.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
WRITE_AGAIN = "write it again with analyze.py figures"


def draw_again(path):
    """draw_figure() of a file that may have been changed. Raises BadInput where it cannot be drawn."""
    try:
        draw_figure(path)
    except KeyError as key:
        plt.close("all")
        raise BadInput(f"{path}: lacks {key}; {WRITE_AGAIN}") from None
    except MALFORMED as error:
        plt.close("all")
        words = f"{type(error).__name__}: {error}".split("\n")[0]
        raise BadInput(f"{path}: holds numbers that cannot be drawn ({words:.100}); {WRITE_AGAIN}") from None


def draw_figure(path):
    """Draw figureNN.pdf and .png beside figureNN.json. Raises BadInput."""
    numbers = read_json(path, WRITE_AGAIN)
    name = numbers.get("figure") if isinstance(numbers, dict) else None
    if not isinstance(name, (int, str)) or name not in DRAWN:
        raise BadInput(f"{path}: holds no figure's numbers; give a figureNN.json that analyze.py figures wrote")
    _refuse_ragged(path, numbers)
    with plt.rc_context(STYLE):
        figure = DRAWN[name](numbers)
        whole = add_small_print(figure, numbers)
        for suffix, options in ((".pdf", {"metadata": {"CreationDate": None}}), (".png", {"dpi": 200})):
            drawn = io.BytesIO()
            figure.savefig(drawn, format=suffix[1:], bbox_inches=whole, **options)
            write_atomically(path.with_suffix(suffix), lambda file, drawn=drawn: file.write(drawn.getbuffer()))
        plt.close(figure)
    print(f"{path.with_suffix('.pdf')}")


def _refuse_ragged(path, value, where=""):
    """Raise BadInput where a curve has not as many numbers as learning rates of pre-training."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    plrs = value.get("plr") if isinstance(value, dict) else None
    for key, item in inner:
        if isinstance(plrs, list) and isinstance(item, list) and len(item) != len(plrs):
            raise BadInput(f"{path}: {where}{key} has {len(item)} entries, not {len(plrs)}; {WRITE_AGAIN}")
        _refuse_ragged(path, item, f"{where}{key}.")


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
