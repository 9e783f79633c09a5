"""Measure the solutions that the other scripts left on disk, and draw the figures of the paper.

    analyze.py features FOLDER                single-feature accuracies of runs on ticks, written beside the runs
    analyze.py geometry FOLDER                angles and error barriers between solutions on ticks, beside the runs
    analyze.py claims FOLDER                  the claims of the paper, held against the runs of one experiment
    analyze.py figures FOLDER --out DIR       the figures that the runs of one experiment permit
    analyze.py draw DIR/figureNN.json ...     figures again, from the numbers written beside them

Measuring, gathering numbers and drawing are separate: drawing reads nothing but a figure's own JSON.
"""

import functools
from pathlib import Path

import matplotlib
import numpy as np
import torch

from data import ticks
from data.claims import judge, verdict_line
from data.commandline import BadInput, Parser, Progress, lr_name, run
from data.files import read_json, write_json
from data.runs import find_runs, geometry_name
from data.study import (
    GEOMETRY_PAIRS,
    GEOMETRY_WINDOW,
    Study,
    convergence_bracket,
    features_of,
    final,
    geometry_of,
    late_values,
    measure_regimes,
    of_average,
)
from models import mlp
from models.geometry import angular_distance, error_barriers, interpolation_errors

matplotlib.use("Agg")  # writes files, never needs a display
from matplotlib import pyplot as plt  # noqa: E402

# --------------------------------------------------------------------------------------------------- measuring runs


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


TICK_ALPHAS = [step / 10 for step in range(11)]


def measure_geometry(study, run, low, high):
    """Angles and error barriers between the solutions that continue one pre-training on ticks: geometry-*.json.

    They are L and H, fine-tuned at the FLRs `low` and `high`; S, the SWA average of 5 weights; and P, the end of the
    pre-training itself. Angles are in radians and barriers in percent, {pair: [member]}, NaN of members that diverged;
    errors are those of the whole training and test set at 11 points of a straight line, which is not put back on the
    sphere (paper, section 4 and figure 16). Raises BadInput where one of the solutions is missing.
    """
    solutions = {
        "P": run.weights(),
        "L": study.continuation(run, "finetune", low).weights(),
        "H": study.continuation(run, "finetune", high).weights(),
        "S": study.continuation(run, "swa").weights(f"swa-{GEOMETRY_WINDOW}"),
    }
    weights = {name: solution["weights"] for name, solution in solutions.items()}
    sets = ticks.stacked_sets([data_seed for data_seed, _ in ticks.groups(run.members)])
    frozen = solutions["P"]["buffers"]["frozen"]

    def errors(weights):
        """Errors in percent, [train and test, members]."""
        train, test = sets[:2], sets[2:]
        of_splits = torch.stack([100 * (1 - mlp.evaluate(weights, frozen, *split)[1]) for split in (train, test)])
        return of_splits.where(weights.isfinite().all(dim=1), torch.nan)

    angles = {pair: angular_distance(*(weights[name] for name in pair)) for pair in (*GEOMETRY_PAIRS, "LP")}
    barriers = {}
    for pair in GEOMETRY_PAIRS:
        path = interpolation_errors(*(weights[name] for name in pair), TICK_ALPHAS, errors)
        barriers[pair] = error_barriers(path, TICK_ALPHAS)
    measured = {
        "low_flr": low,
        "high_flr": high,
        "window": GEOMETRY_WINDOW,
        "alphas": TICK_ALPHAS,
        "angle": angles,
        "train_barrier": {pair: of_splits[0] for pair, of_splits in barriers.items()},
        "test_barrier": {pair: of_splits[1] for pair, of_splits in barriers.items()},
    }
    run.write_measurement(geometry_name(low, high), measured)


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
    """Figure 16: angles, mean and std over runs, and barriers, median and quartiles over runs, of three pairs."""
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
        "angle": {pair: spread(values, scale=1) for pair, values in measured["angle"].items()},
        **{
            name: {pair: quartiles(values) for pair, values in measured[name].items()}
            for name in ("train_barrier", "test_barrier")
        },
    }


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


# ---------------------------------------------------------------------------------------------------------- drawing

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
PLR_LABEL = "Pre-training learning rate (effective)"
ACCURACY_LABEL = "Test accuracy (%)"


def draw_regime_curve(numbers):
    figure, axes = plt.subplots(figsize=(4.5, 3))
    curve = numbers["pretrain"]
    axes.errorbar(curve["plr"], curve["mean"], curve["std"], **PRETRAIN_STYLE | {"label": None}, capsize=2)
    prepare_plr_axes(axes, numbers)
    axes.set_ylim(0, 100)
    axes.set_ylabel(ACCURACY_LABEL)
    return figure


def draw_accuracy_panels(numbers):
    drawn_flrs = numbers.get("drawn_flrs")
    finetune = [curve for curve in numbers["finetune"] if drawn_flrs is None or curve["flr"] in drawn_flrs]
    panels = [("Fine-tuning", "flr", finetune), ("Weight averaging (SWA)", "window", numbers["swa"])]
    panels = [panel for panel in panels if panel[2]] or [("Pre-training", None, [])]
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.5), sharey=True, squeeze=False)
    for axes, (title, kind, curves) in zip(all_axes[0], panels):
        draw_curve(axes, numbers["pretrain"], **PRETRAIN_STYLE)
        for curve, color in zip(curves, colors(len(curves))):
            label = f"FLR {lr_text(curve['flr'])}" if kind == "flr" else f"{curve['window']} weights"
            draw_curve(axes, curve, color=color, marker="o", label=label)
        prepare_plr_axes(axes, numbers)
        axes.set_title(title, fontsize=9, pad=16)
        legend_below(axes)
    all_axes[0, 0].set_ylabel(ACCURACY_LABEL)
    return figure


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


PAIR_LABELS = {"LH": "low FLR – high FLR", "SH": "SWA – high FLR", "SL": "SWA – low FLR"}
PAIR_COLORS = {"LH": "#0072B2", "SH": "#D55E00", "SL": "#009E73"}
BARRIER_FLOOR = 0.01  # percent; smaller ones run off the plot


def draw_geometry_panels(numbers):
    figure, all_axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
    for pair, label in PAIR_LABELS.items():
        style = {"color": PAIR_COLORS[pair], "marker": "o", "label": label}
        draw_curve(all_axes[0], numbers["angle"][pair], **style)
        for axes, name in zip(all_axes[1:], ("train_barrier", "test_barrier")):
            draw_quartiles(axes, numbers[name][pair], **style)
    for axes, label in zip(
        all_axes, ("Angular distance (rad)", "Train error barrier (%)", "Test error barrier (%)")
    ):
        prepare_plr_axes(axes, numbers)
        axes.set_ylabel(label)
    all_axes[0].set_ylim(bottom=0)
    for axes in all_axes[1:]:
        axes.set_yscale("log")
        axes.set_ylim(BARRIER_FLOOR, 100)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_quartiles(axes, curve, color, **style):
    """A median over runs with the band between the quartiles; what is below the floor leaves a log axis downwards."""
    median, lower, upper = (np.maximum(curve[name], BARRIER_FLOOR / 10) for name in ("median", "lower", "upper"))
    axes.plot(curve["plr"], median, color=color, **style)
    axes.fill_between(curve["plr"], lower, upper, color=color, alpha=0.15, linewidth=0)


def draw_feature_panels(numbers, bands=False):
    panels = numbers["panels"]
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.3), sharey=True, squeeze=False)
    for axes, panel in zip(all_axes[0], panels):
        for rank, (curve, color) in enumerate(zip(panel["top"], colors(len(panel["top"])))):
            name = {0: "best feature of each run", len(panel["top"]) - 1: "worst feature"}.get(rank)
            draw_curve(axes, curve, bands, color=color, linewidth=1, label=name)
        draw_curve(axes, panel["all_features"], bands, color="black", marker="o", label="all features")
        prepare_plr_axes(axes, numbers)
        axes.set_title(panel_title(panel), fontsize=9, pad=16)
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    all_axes[0, 0].set_ylabel(ACCURACY_LABEL)
    return figure


def panel_title(panel):
    if panel["stage"] == "finetune":
        return f"After fine-tuning, FLR {lr_text(panel['flr'])}"
    return f"After SWA, {panel['window']} weights" if panel["stage"] == "swa" else "After pre-training"


def draw_curve(axes, curve, bands=True, *, color, **style):
    """A mean over runs, with a band of one standard deviation, if wanted, where there are several."""
    axes.plot(curve["plr"], curve["mean"], color=color, **style)
    if bands and max(curve["n"]) > 1:
        mean, std = np.array(curve["mean"]), np.array(curve["std"])
        axes.fill_between(curve["plr"], mean - std, mean + std, color=color, alpha=0.15, linewidth=0)


def prepare_plr_axes(axes, numbers):
    """A log axis of PLRs with the measured regime boundaries: dashed b12 and b23, dotted b2AB, regimes named on top."""
    axes.set_xscale("log")
    axes.set_xlabel(PLR_LABEL)
    axes.margins(x=0.03)
    left, right = axes.get_xlim()
    places = {name: np.sqrt(place["last"] * place["next"]) for name, place in numbers["regimes"].items() if place}
    for name, place in places.items():
        axes.axvline(place, color="0.35", linestyle=":" if name == "b2AB" else "--", linewidth=1, zorder=0)
    b12, b2ab, b23 = (places.get(name) for name in ("b12", "b2AB", "b23"))
    regimes = [("1", left, b12), ("2A", b12, b2ab), ("2B", b2ab, b23 or right), ("3", b23, right)]
    if b2ab is None:
        regimes[1:3] = [("2", b12, b23 or right)]
    above_axes = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "color": "0.35"}
    for regime, begin, end in regimes:
        if begin and end:
            axes.annotate(regime, (np.sqrt(begin * end), 1.01), **above_axes)
    axes.set_xlim(left, right)


def legend_below(axes):
    """A legend outside the axes, so that it hides no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def colors(count):
    """Ordered colours that stay apart for colour-blind readers and in grey, none too light on white."""
    return plt.get_cmap("viridis")(np.linspace(0, 0.88, count))


def lr_text(lr):
    mantissa, exponent = f"{lr:.1e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if float(mantissa) == 1 else f"${float(mantissa):g}\\cdot{power}$"


# ------------------------------------------------------------------------------------------------------ the figures

# number: (data it is about, numbers behind it, how it is drawn)
FIGURES = {
    1: ("images", regime_numbers, draw_regime_curve),
    2: ("images", accuracy_numbers, draw_accuracy_panels),
    4: (ticks.NAME, tick_numbers, draw_ticks),
    5: (ticks.NAME, feature_numbers, draw_feature_panels),
    15: (ticks.NAME, tick_accuracy_numbers, draw_accuracy_panels),
    16: (ticks.NAME, geometry_numbers, draw_geometry_panels),
    17: (ticks.NAME, all_feature_numbers, functools.partial(draw_feature_panels, bands=True)),
}


def write_figure(number, study, folder):
    """Write the numbers of a figure, and draw it from them."""
    _, gather, _ = FIGURES[number]
    path = folder / f"figure{number:02d}.json"
    write_json(path, {"figure": number, "experiment": study.settings, "accuracies": "percent"} | gather(study))
    draw_figure(path)


def draw_figure(path):
    """Draw figureNN.pdf and .png beside figureNN.json. Raises BadInput."""
    numbers = read_json(path)
    if not isinstance(numbers, dict) or numbers.get("figure") not in FIGURES:
        raise BadInput(f"{path}: holds no figure's numbers; give a figureNN.json that analyze.py figures wrote")
    _, _, draw = FIGURES[numbers["figure"]]
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

    geometry = commands.add_parser("geometry", help="measure angles and error barriers between solutions on ticks")
    geometry.add_argument("folder", help="folder of the run folders of one experiment")

    claims = commands.add_parser("claims", help="hold the claims of the paper against the runs of one experiment")
    claims.add_argument("folder", help="folder of the run folders of one experiment")
    claims.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to a file, too")

    bracket = commands.add_parser(
        "boundary", help="print the largest learning rate that converges and the next one above it"
    )
    bracket.add_argument("folder", help="folder of the run folders of one experiment")

    figures = commands.add_parser("figures", help="draw figures from the metrics of one experiment")
    figures.add_argument("folder", help="folder of the run folders of one experiment")
    figures.add_argument("--out", type=Path, required=True, help="folder for figureNN.pdf, .png and .json")
    figures.add_argument(
        "--only", type=int, nargs="+", choices=FIGURES, help="figures; without: all that fit the data"
    )

    draw = commands.add_parser("draw", help="draw figures again from their JSON")
    draw.add_argument("figures", type=Path, nargs="+", metavar="figureNN.json", help="files that `figures` wrote")

    args = parser.parse_args()
    command = {
        "features": features_command,
        "geometry": geometry_command,
        "claims": claims_command,
        "boundary": boundary_command,
        "figures": figures_command,
        "draw": draw_command,
    }[args.command]
    command(args)


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
    study = Study(args.folder)
    if study.settings["data"] != ticks.NAME:
        raise BadInput(
            f"{args.folder}: holds runs on {study.settings['data']}; geometry is measured on ticks so far"
        )
    low, high = study.extreme_flrs()
    runs = study.of_stage("pretrain")
    with Progress("geometry", len(runs), "run", 0) as progress:
        for done, run in enumerate(runs, start=1):
            try:
                if run.measurement(geometry_name(low, high)) is None:
                    measure_geometry(study, run, low, high)
            except BadInput as error:
                print(f"left out: {error}")
            progress.update(done, run.path.name)


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
    print(*map(lr_name, convergence_bracket(Study(args.folder))))


def figures_command(args):
    study = Study(args.folder)
    report_incomplete(study)
    kind = ticks.NAME if study.settings["data"] == ticks.NAME else "images"
    wanted = args.only or [number for number, (data, _, _) in FIGURES.items() if data == kind]
    unfit = [number for number in wanted if FIGURES[number][0] != kind]
    if unfit:
        raise BadInput(f"--only {unfit[0]}: is about {FIGURES[unfit[0]][0]}; {args.folder} holds runs on {kind}")
    args.out.mkdir(parents=True, exist_ok=True)
    print_regimes(measure_regimes(study))
    for number in wanted:
        try:
            write_figure(number, study, args.out)
        except BadInput as error:
            if args.only:
                raise
            print(f"figure {number} is left out: {error}")


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
    run(main)
