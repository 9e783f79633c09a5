"""What figures say and how they can be read, drawn of numbers or of run folders written by hand."""

import itertools
import json
import resource
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ideal_studies import write_image_ideal
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from test_analyze import IMAGES, PLRS, command, write_run, write_study
from test_runs import call

from data.analysis import captions, drawing, drawing_other, learning_curves
from data.analysis.axes import STYLE, draw_curve, label_narrow_range
from data.analysis.figures import DRAWN, FIGURES, figure_numbers, learning_curve_numbers
from data.analysis.series import mean_and_std
from data.analysis.study import Study
from data.runs import metrics_until

REGIMES = {"b12": {"last": 1e-3, "next": 1e-2}, "b2AB": None, "b23": None}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def read_again(numbers):
    return json.loads(json.dumps(numbers))


def draw(name, numbers):
    with plt.rc_context(STYLE):
        return DRAWN[name](read_again(numbers))


def set_config(folder, stage, **changes):
    """Change settings of all runs of a stage, and what `config` gives of their configs; of another length, what is logged."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        if config["stage"] == stage:
            settings = changes.get("settings", {})
            steps = settings.get("steps", config["settings"]["steps"])
            pace = max(1, steps // config["settings"]["steps"])
            metrics = json.loads(path.with_name("metrics.json").read_text())
            metrics = metrics_until(metrics | {"step": [pace * step for step in metrics["step"]]}, steps)
            path.with_name("metrics.json").write_text(json.dumps(metrics))
            config["settings"] |= settings | ({"log_every": pace} if "steps" in settings else {})
            path.write_text(json.dumps(config | changes.get("config", {})))


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "runs"
    write_study(folder)
    set_config(folder, "pretrain", settings={"steps": 20}, config={"samples": {"train": 2560, "test": 100}})
    set_config(folder, "finetune", settings={"steps": 1000})
    return folder


# Small print

BETWEEN = "between the last PLR of a regime and the first of the next."
LINES_SAY = f"Grey lines: boundaries 1|2 and 2|3 (dashed) and 2A|2B (dotted), {BETWEEN}"


def test_small_print_says_which_experiment_a_figure_shows(study):
    numbers = read_again(figure_numbers(2, [Study(study)]))
    assert captions.small_print(numbers) == [
        "si-convnet, width 8, toy, 2,560 training samples, batch size 128, pre-training 20 epochs, "
        "fine-tuning 1,000 epochs, SWA over 20 epochs; 1 run per point",
        LINES_SAY,
    ]
    for seed in (1, 2, 3):
        member = {"lrs": [5e-2], "seed": seed}
        settings = IMAGES | {"steps": 20}
        write_run(study / str(seed), "pretrain", [member], settings, test_accuracy=[0.5], train_loss=[1.0])
    numbers = read_again(figure_numbers(2, [Study(study)]))
    line, note = captions.small_print(numbers)
    assert (
        line.endswith("; 1 to 3 runs per point")
        and note
        == "Error bars: standard deviations over runs (n - 1); none where there is one run. "
        + f"Grey lines: boundaries 1|2 and 2|3 (dashed), {BETWEEN}"
        + " Grey bands: where 10 % or more of the resamples place them."
    )
    of_figure_1 = captions.small_print(read_again(figure_numbers(1, [Study(study)])))
    assert "fine-tuning" not in of_figure_1[0] and of_figure_1[0].endswith("; 1 to 3 runs per point")
    assert of_figure_1[1].startswith(
        "Error bars: standard deviations over the last tenth of pre-training. Grey lines: "
    )


def grey_patches(figure):
    return [patch for axes in figure.axes for patch in axes.patches if patch.get_facecolor()[:3] == (0.35,) * 3]


@pytest.mark.parametrize("number", [1, 2])
def test_grey_lines_and_bands_are_explained_where_they_are(tmp_path, number):
    """Of 1e-2 one run in two converges, so that resamples place 1|2 above or below it."""
    for plr, converged in ((1e-3, (1, 1)), (1e-2, (1, 0.5)), (1e-1, (0.5, 0.5))):
        for seed, accuracy in zip((1, 2), converged):
            member, series = (
                {"lrs": [plr], "seed": seed},
                {"train_accuracy": [accuracy], "train_loss": [[10] + [1] * 20]},
            )
            write_run(tmp_path / f"{plr}-{seed}", "pretrain", [member], IMAGES, test_accuracy=[0.5], **series)
    numbers = read_again(figure_numbers(number, [Study(tmp_path)]))
    assert len(grey_patches(draw(number, numbers))) == 1
    note = captions.small_print(numbers)[-1]
    assert "Grey bands: where" in note and f"Grey lines: boundary 1|2 (dashed), {BETWEEN}" in note
    del numbers["regimes"]["b12"]["range"]
    assert not grey_patches(draw(number, numbers)) and "Grey bands" not in captions.small_print(numbers)[-1]
    numbers["regimes"]["b12"] = None
    assert "Grey" not in " ".join(captions.small_print(numbers))


def test_that_points_have_no_band_is_said_where_some_have_one():
    said = {}
    for counts in ([1, 3], [2, 3]):
        numbers = {"figure": 2, "deviations": "over runs (n - 1)", "runs_per_point": counts}
        said[counts[0]] = "; none where there is one run." in captions.small_print(numbers)[-1]
    assert said == {1: True, 2: False}


@pytest.mark.parametrize(
    "counts, bands, bars",
    [([1, 1, 2], 0, 1), ([2, 2, 1], 1, 0), ([2, 1, 2, 2], 1, 1), ([1, 2, 1], 0, 1), ([3, 3, 3], 1, 0)],
)
def test_bands_and_bars_are_spoken_of_where_they_are_drawn(counts, bands, bars):
    curve = {"plr": [1, 10, 100, 1000][: len(counts)], "mean": [50.0] * len(counts), "std": [1.0] * len(counts)}
    numbers = {"figure": 2, "deviations": "over runs (n - 1)", "runs_per_point": [1, 3]}
    numbers["pretrain"] = curve | {"n": counts}
    [note] = captions.small_print(numbers)[-1:]
    assert ("bands" in note, "rror bars" in note) == (bool(bands), bool(bars))
    axes = plt.figure().subplots()
    draw_curve(axes, numbers["pretrain"], color="k")
    paths = [path for shade in axes.collections if isinstance(shade, PolyCollection) for path in shade.get_paths()]
    assert any(path.get_extents().width > 0 for path in paths) == bool(bands)
    assert bool(axes.containers) == bool(bars)


@pytest.mark.parametrize("means, limits", [([1, 99], (-3, 103)), ([40, 60], (17, 83))])
def test_axes_of_percentages_end_there_whatever_bands_do(means, limits):
    curve = {"plr": [1e-3, 1e-2], "mean": means, "std": [20, 20], "n": [3, 3]}
    numbers = {"regimes": {}, "pretrain": curve, "finetune": [], "swa": [curve | {"window": 2}]}
    assert drawing.draw_accuracy_panels(numbers).axes[0].get_ylim() == pytest.approx(limits)


@pytest.mark.parametrize(
    "places, words",
    [
        (("b12",), "boundary 1|2 (dashed), between"),
        (("b2AB",), "boundary 2A|2B (dotted), between"),
        (("b12", "b23"), "boundaries 1|2 and 2|3 (dashed), between"),
        (("b2AB", "b23"), "boundaries 2|3 (dashed) and 2A|2B (dotted), between"),
    ],
)
def test_only_boundaries_that_are_drawn_are_spoken_of(places, words):
    regimes = dict.fromkeys(("b12", "b2AB", "b23")) | dict.fromkeys(places, {"last": 1, "next": 2})
    [note] = captions.what_is_drawn({"regimes": regimes}, 2)
    assert note.startswith(f"Grey lines: {words} the last PLR")


def test_figures_that_draw_no_deviations_or_boundaries_explain_none():
    few = {"runs_per_point": [2, 2], "deviations": None, "regimes": REGIMES}
    assert not FIGURES[5].deviations and not FIGURES[13].deviations
    assert "Grey" not in " ".join(captions.small_print({"figure": 13} | few))
    assert (
        captions.small_print({"figure": 26} | few)[-1]
        == "Error bars: standard errors of the trace, by random signs."
    )


@pytest.mark.parametrize(
    "data, said", [("ticks", "of the whole training set"), ("toy", "running mean over the epochs")]
)
def test_learning_curves_say_what_their_train_loss_is(data, said):
    assert f"Train loss: {said}" in captions.small_print({"figure": "curves", "experiment": {"data": data}})[-1]


def test_what_is_not_recorded_is_not_said(study):
    for path in study.rglob("config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in config.items() if name != "samples"}))
    assert "samples" not in captions.small_print(read_again(figure_numbers(2, [Study(study)])))[0]


def test_small_print_lies_below_everything_else(study):
    numbers = figure_numbers(2, [Study(study)])
    figure = draw(2, numbers)
    width, height = figure.get_size_inches()
    with plt.rc_context(STYLE):
        whole = captions.add_small_print(figure, read_again(numbers))
    [text] = figure.texts
    box = text.get_window_extent()
    assert (whole.x0, whole.x1, whole.y1) == (0, width, height)
    assert whole.y0 * figure.dpi < box.y0 and box.y1 <= 0 < box.x0 and box.x1 < width * figure.dpi


def test_names_are_no_formulas(study, tmp_path, monkeypatch):
    numbers = json.dumps(read_again(figure_numbers(1, [Study(study)]))).replace("toy", r"$\\x_$")
    (tmp_path / "figure01.json").write_text(numbers)
    command(monkeypatch, "draw", tmp_path / "figure01.json")
    assert (tmp_path / "figure01.png").exists()


def test_figures_written_before_they_said_so_are_drawn(study, tmp_path, monkeypatch):
    numbers = read_again(figure_numbers(2, [Study(study)]))
    for name in ("unit", "lengths", "train_samples", "runs_per_point", "deviations"):
        del numbers[name]
    assert captions.small_print(numbers) == ["si-convnet, width 8, toy", LINES_SAY]
    numbers["pretrain"]["std"] = [0.0] * len(PLRS)
    (tmp_path / "figure02.json").write_text(json.dumps(numbers))
    command(monkeypatch, "draw", tmp_path / "figure02.json")
    assert (tmp_path / "figure02.png").exists()


# Bands


def test_standard_deviations_are_those_of_samples_and_none_of_a_single_run():
    curve = mean_and_std({1e-4: [0.5], 1e-3: [0.25, 0.75], 1e-2: [0.1, 0.2, 0.3]})
    assert curve["std"] == [None, pytest.approx(100 * np.sqrt(0.125)), pytest.approx(10)]
    numbers = {"pretrain": curve, "finetune": [], "swa": [], "regimes": dict.fromkeys(REGIMES)}
    [axes] = draw(2, numbers).axes
    [band] = axes.collections
    inside = {x for path in band.get_paths() for x, _ in path.vertices}
    assert inside == {1e-3, 1e-2}
    alone = mean_and_std({1e-4: [0.5], 1e-3: [0.25, 0.75], 1e-2: [0.1]})
    _, bar = draw(2, numbers | {"pretrain": alone}).axes[0].collections
    assert np.allclose(bar.get_segments(), [[[1e-3, 50 - alone["std"][1]], [1e-3, 50 + alone["std"][1]]]])
    single = mean_and_std({1e-4: [0.5], 1e-3: [0.25]})
    assert not draw(2, numbers | {"pretrain": single}).axes[0].collections


# Rows that are compared


def test_rows_say_in_what_they_differ_and_share_their_plrs(study, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(study, other)
    for stage in ("pretrain", "finetune", "swa"):
        set_config(other, stage, settings={"batch_size": 64, "digest": "123456789"})
    set_config(other, "pretrain", settings={"steps": 10})
    for path in other.rglob("0.0001*"):
        shutil.rmtree(path)
    numbers = read_again(figure_numbers(10, [Study(study), Study(other)]))
    assert captions.row_titles(numbers["rows"]) == [
        "si-convnet, width 8, toy, digest 0, batch size 128, pre-training 20 epochs",
        "si-convnet, width 8, toy, digest 12345678, batch size 64, pre-training 10 epochs",
    ]
    assert [line[:5] for line in captions.small_print(numbers)] == ["Row 1", "Row 2", "Grey "]
    limits = {axes.get_xlim() for axes in draw(10, numbers).axes}
    [(left, right)] = limits
    assert left < PLRS[0] and right > PLRS[-1]
    numbers["rows"][1]["lr_label"] = "learning rate"  # of another kind
    assert len({axes.get_xlim() for axes in draw(10, numbers).axes}) == 2


# Barriers


def test_barriers_at_most_the_floor_are_drawn_there_as_open_markers():
    curve = {
        "plr": [1e-4, 1e-3, 1e-2],
        "median": [5, 0, 0.05],
        "lower": [5, 0, 0],
        "upper": [5, 0.2, 0.1],
        "n": [1] * 3,
    }
    with plt.rc_context(STYLE):
        axes = plt.figure().subplots()
        drawing.draw_barriers(
            axes, {"train_barrier": dict.fromkeys(("LH", "SH", "SL"), curve), "floor": 0.1}, "train_barrier"
        )
    assert axes.get_ylim() == (0.1, 100)
    lines = [line for line in axes.lines if line.get_label() == "low FLR – high FLR"]
    assert [list(line.get_ydata()) for line in lines] == [[5, 0.1, 0.1]] and lines[0].get_markevery() == [0]
    at_floor = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in at_floor] == [
        ([1e-3, 1e-2], [0.1, 0.1])
    ] * 3
    assert len({line.get_marker() for line in at_floor}) == len({line.get_markersize() for line in at_floor}) == 3
    assert captions.small_print({"figure": 3, "floor": 0.1}) == [
        "Barriers: medians and quartiles; open markers: at most 0.1 %."
    ]


# Ticks, legends, colours


@pytest.mark.parametrize("low, high", [(1.4e-3, 2e-3), (7e-4, 1.9e-3), (1e-3, 8e-3), (430, 8600), (1.01, 1.05)])
def test_axes_of_a_narrow_range_have_ticks_that_can_be_read(low, high):
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.plot([low, high], [0, 1])
    axes.set_xscale("log")
    label_narrow_range(axes.xaxis, axes.get_xlim())
    figure.draw_without_rendering()
    left, right = axes.get_xlim()
    labels = [tick.label1 for tick in axes.xaxis.get_major_ticks() if left <= tick.get_loc() <= right]
    assert len(labels) >= 3 and all(
        float(label.get_text()) == pytest.approx(label.get_position()[0]) for label in labels
    )
    boxes = [label.get_window_extent() for label in labels]
    assert all(box.x1 < after.x0 for box, after in zip(boxes, boxes[1:]))
    assert not any(tick.label1.get_text() for tick in axes.xaxis.get_minor_ticks())


def band_numbers(columns, *names):
    curves = [{"band": name, "plr": PLRS, "mean": [50] * 5, "std": [None] * 5, "n": [1] * 5} for name in names]
    panels = [{"stage": "pretrain", "flr": None, "window": None, "bands": curves}] * columns
    return {"regimes": REGIMES, "rows": [{"normalisation": "keep", "panels": panels}]}


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_legend_of_bands_at_64_pixels_is_whole_and_explains_unscaled_ones(columns):
    names = ("full", "background", "low", "mid", "high", "low-32", "mid-32", "high-32")
    figure = draw(7, band_numbers(columns, *names))
    figure.draw_without_rendering()
    [legend] = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [*names[:5], *(f"{name}, limits as at 32 pixels" for name in names[2:5])]


def test_lines_can_be_told_apart_without_colours():
    styles = [
        (line.get_linestyle(), line.get_marker())
        for line in draw(7, band_numbers(1, "full", "background", "low", "mid", "high")).axes[0].lines[:5]
    ]
    assert len(set(styles)) == 5
    assert len({style["marker"] for style in drawing.PAIR_STYLES.values()}) == 3


def test_figure_12_names_every_line_and_what_was_not_run():
    def group(flr, bars, scratch, steps):
        bars = [{"lrs": [*way, flr], "mean": mean, "std": None, "n": int(mean is not None)} for way, mean in bars]
        return {"flr": flr, "bars": bars, "scratch": {"mean": scratch, "std": None, "n": 1, "steps": steps}}

    groups = [
        group(1e-4, [((0.1,), 50), ((0.1, 1e-2), None), ((1e-2,), 60)], None, 0),
        group(1e-3, [((0.1,), 51), ((0.1, 1e-2), 61)], 40, 60),
        group(1e-2, [((0.1,), None), ((0.1, 1e-2), None), ((1e-2,), 60)], 45, 80),
    ]
    [axes] = draw(12, {"groups": groups}).axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels[:2] == ["the FLR alone, for 60 epochs", "the FLR alone, for 80 epochs"] and len(labels) == 5
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("not run") == 4 and texts.count("the FLR alone: not run") == 1
    assert len({line.get_linestyle() for line in axes.lines}) == 2
    assert sorted(bar.get_height() for bar in axes.patches if bar.get_width()) == [50, 51, 60, 60, 61]


def test_figure_26_names_the_plrs_of_regime_1(tmp_path):
    write_image_ideal(tmp_path, seeds=1)
    numbers = read_again(figure_numbers(26, [Study(tmp_path)]))
    for row in numbers["rows"]:
        row["points"] = [{"trace_error": 0.1} | point for point in row["points"]]
    figure = draw(26, numbers)
    for row, first in zip(numbers["rows"], (0, 3)):
        black = [point for point in row["points"] if point["flr"] is None]
        texts = {text.get_text(): text.xy for text in figure.axes[first].texts}
        assert {float(name) for name in texts} == {point["plr"] for point in black} and len(black) >= 5
        for point in black:
            [place] = [xy for name, xy in texts.items() if float(name) == point["plr"]]
            assert place == (point["gradient_norm"], point["test_error"])


def test_names_of_points_cover_neither_each_other_nor_points():
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(3.5, 2.8))
        places = [(1, 1), (1.04, 1.01), (1.02, 0.98), (2, 3), (2.01, 3.2), (3, 1)]
        axes.plot(*zip(*places), "o", markersize=5)
        figure.draw_without_rendering()
        drawing_other.name_points(axes, places, ["5e-4", "7e-4", "", "1.4e-3", "1e-3", "2e-4"])
        figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["5e-4", "7e-4", "1.4e-3", "1e-3", "2e-4"]
    assert not any(box.overlaps(other) for box, other in itertools.combinations(boxes, 2))
    centers = axes.transData.transform(places)
    assert not any(box.contains(*center) for box in boxes for center in centers)


def test_markers_on_an_axis_are_whole(tmp_path):
    """Those of angles near 0, and those of barriers near the floor."""
    write_image_ideal(tmp_path, seeds=1)
    figure = draw(3, figure_numbers(3, [Study(tmp_path)]))
    drawn = [line for axes in figure.axes for line in axes.lines if line.get_marker() not in ("None", None, "")]
    assert len(drawn) >= 9 and not any(line.get_clip_on() for line in drawn)


# Learning curves


def write_curves(folder):
    """Two seeds at 1e-3, fine-tuned and averaged, one of which diverges at the end of pre-training."""
    losses = [[8.0, 4.0, 2.0, 1.0, 0.5], [4.0, 2.0, 1.0, 0.5, None]]
    accuracies = [[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.4, 0.5, 0.6, None]]
    for seed, loss, accuracy in zip((1, 2), losses, accuracies):
        series = {"train_loss": [loss], "test_accuracy": [accuracy], "final_step": 4}
        write_run(folder / f"a{seed}", "pretrain", [{"lrs": [1e-3], "seed": seed}], IMAGES, **series)
        tuned = {"train_loss": [[1.0, 0.25]], "test_accuracy": [[0.5, 0.75]], "final_step": 1}
        settings, member = IMAGES | {"first_step": 4}, {"lrs": [1e-3, 1e-4], "seed": seed}
        write_run(folder / f"b{seed}", "finetune", [member], settings, **tuned)
        member = member | {"lrs": [1e-3]}
        write_run(folder / f"c{seed}", "swa", [member], settings | {"windows": [2]}, **tuned)


def test_learning_curves_are_means_over_runs_by_plr_and_go_on_where_their_stage_begins(tmp_path):
    write_curves(tmp_path)
    numbers = learning_curve_numbers(Study(tmp_path))
    assert [(panel["stage"], panel["later_lrs"]) for panel in numbers["panels"]] == [
        ("pretrain", []),
        ("finetune", [1e-4]),
        ("swa", []),
    ]
    pretraining, tuning, averaging = ([*panel["curves"]] for panel in numbers["panels"])
    [curve] = pretraining
    assert (curve["plr"], curve["step"], curve["n"]) == (1e-3, [0, 1, 2, 3, 4], 2)
    assert curve["train_loss"] == [6, 3, 1.5, 0.75, 0.5]  # the diverged one drops out
    assert curve["test_accuracy"] == pytest.approx([20, 30, 40, 50, 50])
    for [curve] in (tuning, averaging):
        assert (curve["step"], curve["train_loss"], curve["test_accuracy"]) == ([4, 5], [1, 0.25], [50, 75])
    assert numbers["runs_per_point"] == [2, 2] and numbers["unit"] == "epoch"


def test_steps_that_only_some_runs_logged_are_no_points_of_a_mean(tmp_path):
    write_curves(tmp_path)
    for name, logged, settings in (
        ("a1", {"diverged_at": [4]}, {}),
        ("a2", {"step": [0, 2, 3, 6, 8]}, {"log_every": 3, "keep": [2]}),
    ):
        path, config = tmp_path / name / "metrics.json", json.loads((tmp_path / name / "config.json").read_text())
        path.write_text(json.dumps(json.loads(path.read_text()) | logged))
        config["settings"] |= settings | {"steps": 8}
        path.with_name("config.json").write_text(json.dumps(config))
    [curve] = learning_curve_numbers(Study(tmp_path))["panels"][0]["curves"]
    assert curve["step"] == [0, 2, 3, 6, 8]  # beyond 4 there is only this run
    assert curve["train_loss"] == [6, 2, 1, 0.5, None]


def test_long_learning_curves_are_thinned(tmp_path):
    loss = [float(2 + step) for step in range(5001)]
    members = [{"lrs": [1e-3], "seed": 1}]
    write_run(tmp_path / "a", "pretrain", members, IMAGES, train_loss=[loss], final_step=5000)
    [curve] = learning_curve_numbers(Study(tmp_path))["panels"][0]["curves"]
    assert len(curve["step"]) == learning_curves.MOST_POINTS == 500
    assert (curve["step"][0], curve["step"][-1]) == (0, 5000)
    assert max(np.diff(curve["step"])) <= 11 and curve["train_loss"] == [2 + step for step in curve["step"]]


@pytest.mark.parametrize("first, last", [(0, 1), (4, 5), (120, 129), (40_000, 60_000)])
def test_ticks_of_learning_curves_are_whole_steps_and_stay_apart(first, last):
    curve = {"plr": 1e-3, "step": [first, last], "train_loss": [2, 1], "test_accuracy": [50, 60], "n": 1}
    panels = [{"stage": "finetune", "later_lrs": [1e-4], "curves": [curve]}] * 5
    figure = draw("curves", {"figure": "curves", "panels": panels, "unit": "epoch"})
    figure.draw_without_rendering()
    axes = figure.axes[1]
    left, right = axes.get_xlim()
    labels = [tick.label1 for tick in axes.xaxis.get_major_ticks() if left <= tick.get_loc() <= right]
    assert len(labels) >= 2 and all(label.get_text() == f"{label.get_position()[0]:.0f}" for label in labels)
    boxes = [label.get_window_extent() for label in labels]
    assert all(box.x1 + 3 < after.x0 for box, after in zip(boxes, boxes[1:]))


def test_learning_curves_are_drawn_and_drawn_again(tmp_path, monkeypatch):
    write_curves(tmp_path / "runs")
    write_run(
        tmp_path / "runs/d", "pretrain", [{"lrs": [1e-1], "seed": 1}], IMAGES, train_loss=[2.0], final_step=4
    )
    command(monkeypatch, "curves", tmp_path / "runs", "--out", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"curves.json", "curves.pdf", "curves.png"}
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "out/curves.png").unlink()
    command(monkeypatch, "draw", tmp_path / "out/curves.json")
    assert (tmp_path / "out/curves.png").exists()
    numbers = json.loads((tmp_path / "out/curves.json").read_text())
    loss, accuracy, *others, scale = draw("curves", numbers).axes
    assert [list(line.get_ydata()) for line in loss.lines][0] == [6, 3, 1.5, 0.75, 0.5]
    colors = [to_hex(axes.lines[0].get_color()) for axes in (loss, accuracy, *others)]
    assert len(set(colors)) == 1 and to_hex(loss.lines[1].get_color()) != colors[0]
    assert loss.get_title() == "Pre-training" and scale.get_ylim() == pytest.approx((1e-3, 1e-1))


def test_figure_1_has_no_deviations_of_a_single_epoch(study):
    """Those of many are over the last tenth; of a run of nine epochs that is one, whatever other runs there are."""
    numbers = read_again(figure_numbers(1, [Study(study)]))
    assert all(std is not None for std in numbers["pretrain"]["std"]) and numbers["deviations"]
    for path in (study / "pretrain").rglob("metrics.json"):
        path.write_text(json.dumps(metrics_until(json.loads(path.read_text()), 9)))
    for path in (study / "pretrain").rglob("config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"settings": config["settings"] | {"steps": 9}}))
    numbers = read_again(figure_numbers(1, [Study(study)]))
    assert set(numbers["pretrain"]["std"]) == {None} and numbers["deviations"] is None
    assert "standard deviation" not in " ".join(captions.small_print(numbers))


# Files


@pytest.fixture
def small_files():
    """A function after which no file can become longer than 10,000 bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["figures", "curves", "draw"])
def test_a_full_disk_is_one_line_and_leaves_figures_whole(name, study, tmp_path, small_files, capsys):
    out = tmp_path / "out"
    arguments = [] if name == "curves" else ["--only", 1]
    assert call("analyze", "curves" if name == "curves" else "figures", study, *arguments, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    [first, *_] = sorted(out.glob("*.json"))
    capsys.readouterr()
    small_files()
    command = [name, first] if name == "draw" else [name, study, *arguments, "--out", out]
    assert call("analyze", *command) == 2
    error = capsys.readouterr().err
    assert f"{first.with_suffix('.pdf')}: cannot be written (File too large); make room there" in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", ["figures", "curves", "draw"])
def test_what_a_kill_left_of_a_figure_is_removed_by_the_next_start(name, study, tmp_path):
    out = tmp_path / "out"
    assert call("analyze", "figures", study, "--only", 1, "--out", out) == 0
    for ending in ("json", "pdf", "png", "txt"):
        (out / f".figure99.{ending}.12.tmp").write_text("a part")
    chosen = ["--only", 1, "--out", out] if name == "figures" else ["--out", out]
    assert call("analyze", *([name, out / "figure01.json"] if name == "draw" else [name, study, *chosen])) == 0
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".figure99.txt.12.tmp"]
