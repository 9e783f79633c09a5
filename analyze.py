"""Measure the solutions that the other scripts left on disk, and draw the figures of the paper.

    analyze.py features FOLDER                single-feature accuracies of runs on ticks, written beside the runs
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
from data.commandline import BadInput, Parser, Progress, run
from data.files import read_json, write_json
from data.runs import find_runs
from models import mlp

matplotlib.use("Agg")  # writes files, never needs a display
from matplotlib import pyplot as plt  # noqa: E402

# --------------------------------------------------------------------------------------------------------- the runs


class Study:
    """The complete runs of one experiment, which share data, network, batch size and radius.

    Raises BadInput where they do not, or where no pre-training is among them.
    """

    shared = ("data", "digest", "classes", "model", "width", "batch_size", "rho")

    def __init__(self, folder):
        self.folder = folder
        every_run = find_runs(folder)
        self.runs = [run for run in every_run if run.complete]
        self.incomplete = len(every_run) - len(self.runs)
        if not any(run.config["stage"] == "pretrain" for run in self.runs):
            raise BadInput(f"{folder}: holds no complete pre-training run; make some with train.py")
        first, *others = self.runs
        for other in others:
            for name in self.shared:
                if other.settings.get(name) != first.settings.get(name):
                    raise BadInput(self._difference(first, other, name))
        self.refuse_unlike_runs()
        self.settings = {name: first.settings[name] for name in self.shared if name in first.settings}

    def refuse_unlike_runs(self):
        """Raise BadInput where solutions of a stage are no repeats of each other, or one is there twice."""
        first_of_kind, seen = {}, {}
        for run in self.runs:
            for member in run.members:
                kind = (run.config["stage"], len(member["lrs"]))
                first = first_of_kind.setdefault(kind, run)
                for name in ("first_step", "steps", "spacing", "anchor"):
                    if run.settings.get(name) != first.settings.get(name):
                        raise BadInput(self._difference(first, run, name))
                solution = (*kind, *member["lrs"], member["seed"], member.get("data_seed"))
                if seen.setdefault(solution, run) is not run:
                    raise BadInput(
                        f"{self.folder}: {seen[solution].path} and {run.path} hold the same learning rate and seed; "
                        f"remove one of them"
                    )

    def _difference(self, first, other, name):
        return (
            f"{self.folder}: {first.path} and {other.path} differ in {name} ({first.settings.get(name)} and "
            f"{other.settings.get(name)}); give the folder of one experiment"
        )

    def by_plr(self, stage, value, flr=None):
        """{PLR: [value(run, member index) of every member]}, in order of PLRs, where the value is not None.

        stage: `pretrain`; `finetune`, at one FLR; or `swa`. Runs that have more stages behind them are left out.
        """
        values = {}
        for run in self.runs:
            for index, member in enumerate(run.members):
                plr, *flrs = member["lrs"]
                if run.config["stage"] == stage and flrs == ([] if flr is None else [flr]):
                    values.setdefault(plr, []).append(value(run, index))
        values = {plr: [value for value in values[plr] if value is not None] for plr in sorted(values)}
        return {plr: of_plr for plr, of_plr in values.items() if of_plr}

    def flrs(self):
        """The learning rates of all fine-tunings of pre-trained runs, in order."""
        finetunings = [run for run in self.runs if run.config["stage"] == "finetune"]
        every_lrs = [member["lrs"] for run in finetunings for member in run.members]
        return sorted({lrs[1] for lrs in every_lrs if len(lrs) == 2})

    def windows(self):
        """The numbers of weights averaged by SWA runs, in order."""
        return sorted({window for run in self.runs for window in run.settings.get("windows", [])})


def final(name):
    """A function (run, member index) -> the last value of a series of metrics.json."""
    return lambda run, index: run.metrics[name][-1][index]


def late_values(name):
    """A function (run, member index) -> values of a series in the last tenth of the run (epochs 181-200 of 200)."""

    def values(run, index):
        steps = run.metrics["step"]
        late = [step > 0.9 * steps[-1] or step == steps[-1] for step in steps]
        return [row[index] for row, is_late in zip(run.metrics[name], late) if is_late]

    return values


def late_mean(name):
    """A function (run, member index) -> mean of late_values; NaN where one was not finite."""
    return lambda run, index: np.mean([np.nan if v is None else v for v in late_values(name)(run, index)])


def of_average(window, name="test_accuracy"):
    """A function (run, member index) -> a measurement of the SWA average of `window` weights; None where not made."""

    def value(run, index):
        swa = run.metrics["swa"]
        return swa[name][swa["window"].index(window)][index] if window in swa["window"] else None

    return value


def spread(values_by_plr):
    """Mean, standard deviation (population) and number of values at every PLR, as lists, in percent."""
    return {
        "plr": list(values_by_plr),
        "mean": [100 * float(np.mean(values)) for values in values_by_plr.values()],
        "std": [100 * float(np.std(values)) for values in values_by_plr.values()],
        "n": [len(values) for values in values_by_plr.values()],
    }


# ------------------------------------------------------------------------------------------------------ the regimes

CONVERGED_ACCURACY = 0.999  # train accuracy of a run that has converged
SAME_ACCURACY = 0.01  # test accuracies no further apart count as the same
CHANCE_LOSS = 0.5  # at chance, train loss is at least this part of its initial value


@functools.cache  # every figure of a study asks for them
def measure_regimes(study):
    """The boundaries between regimes (paper, sections 3 and 4), each between two neighbours of the PLR grid.

    Returns {"b12", "b2AB", "b23"}, each {"last": PLR, "next": PLR}: the last PLR below the boundary and the first
    above it; None where the grid does not bracket the boundary. The thresholds are this project's.

    b12: `last` is the largest PLR at which at least half of the runs converge, that is, have a train accuracy of
        99.9 % averaged over the last tenth of the run. (Smaller PLRs that are not there yet are slow, not noisy.)
    b23: `next` is the smallest PLR from which on every PLR is at chance, as means over runs and the last tenth of
        each: test accuracy at most 1 pp above chance, and train loss at least half of its initial value.
    b2AB: `last` is the end of subregime 2A: the last PLR above b12 from which fine-tuning reaches the same test
        accuracy at every FLR, and no worse a one than the best of regime 1's pre-training. Means over runs are the
        same within 1 pp or two standard errors of their difference, whichever is more.
    """
    train_accuracies = study.by_plr("pretrain", late_mean("train_accuracy"))
    plrs = list(train_accuracies)
    converged = [plr for plr in plrs if np.mean(np.array(train_accuracies[plr]) >= CONVERGED_ACCURACY) >= 0.5]
    test_accuracy = means(study.by_plr("pretrain", late_mean("test_accuracy")))
    loss_kept = means(study.by_plr("pretrain", late_part_of_initial_loss))
    chance = 1 / study.settings["classes"]
    trains = [plr for plr in plrs if test_accuracy[plr] > chance + SAME_ACCURACY or loss_kept[plr] < CHANCE_LOSS]
    b12, b23 = boundary(converged, plrs), boundary(trains, plrs)
    return {"b12": b12, "b2AB": b12 and boundary(subregime_2a(study, plrs, b12), plrs), "b23": b23}


def late_part_of_initial_loss(run, index):
    return late_mean("train_loss")(run, index) / run.metrics["train_loss"][0][index]


def subregime_2a(study, plrs, b12):
    """The PLRs above b12 that meet the criterion of subregime 2A (see measure_regimes), in order."""
    accuracy = final("test_accuracy")
    pretrained = study.by_plr("pretrain", accuracy)
    best_of_regime_1 = max((pretrained[plr] for plr in plrs if plr <= b12["last"]), key=np.mean)
    finetuned = [study.by_plr("finetune", accuracy, flr) for flr in study.flrs()]
    inside = []
    for plr in plrs[plrs.index(b12["next"]) :]:
        reached = [curve[plr] for curve in finetuned if plr in curve]
        if len(reached) < 2:
            continue  # the same at every FLR means nothing of one
        best, worst = max(reached, key=np.mean), min(reached, key=np.mean)
        if not is_worse(worst, best) and not is_worse(worst, best_of_regime_1):
            inside.append(plr)
    return inside


def is_worse(accuracies, others):
    """Whether the first mean is below the second by more than 1 pp and more than two standard errors."""
    variances = [np.var(values, ddof=1) / len(values) if len(values) > 1 else 0 for values in (accuracies, others)]
    return np.mean(others) - np.mean(accuracies) > max(SAME_ACCURACY, 2 * np.sqrt(sum(variances)))


def boundary(below, plrs):
    """The boundary above the largest of the PLRs `below`, or None where the grid has no PLR on both its sides."""
    if not below or max(below) == plrs[-1]:
        return None
    return {"last": max(below), "next": plrs[plrs.index(max(below)) + 1]}


def means(values_by_plr):
    return {plr: float(np.mean(values)) for plr, values in values_by_plr.items()}


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


def features_of(solution):
    """A function (run, member index) -> its 16 single-feature accuracies, best first; None where not measured."""
    measurement = functools.cache(lambda run: run.measurement("features"))

    def value(run, index):
        features = measurement(run)
        if features is None or solution not in features["solution"]:
            return None
        of_members = features["single_feature_accuracy"][features["solution"].index(solution)]
        return sorted(of_members[index], reverse=True)

    return value


# ---------------------------------------------------------------------------------- the numbers behind each figure


def regime_numbers(study):
    """Figure 1: test accuracy over the last tenth of pre-training; spread over epochs (and runs)."""
    values = study.by_plr("pretrain", late_values("test_accuracy"))
    pooled = {plr: [value for run in runs for value in run if value is not None] for plr, runs in values.items()}
    regimes = measure_regimes(study) | {"b2AB": None}  # which pre-training alone does not show
    return {"regimes": regimes, "pretrain": spread(pooled), "n": "logged epochs times runs"}


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


FIGURE_5_FLRS = (10**-4.5, 1e-4)  # the notebook of the paper names the first, its caption the second


def feature_numbers(study):
    """Figure 5: sorted single-feature accuracies after pre-training and after fine-tuning at small FLRs."""
    flrs = [flr for flr in study.flrs() if np.isclose(flr, FIGURE_5_FLRS, rtol=0.02).any()]
    panels = [{"stage": "pretrain"}] + [{"stage": "finetune", "flr": flr} for flr in flrs]
    for panel in panels:
        chosen = study.by_plr(panel["stage"], features_of("checkpoint"), panel.get("flr"))
        if not chosen:
            raise BadInput(f"{study.folder}: features are not measured; run analyze.py features {study.folder}")
        panel["top"] = [
            spread({plr: [accuracies[rank] for accuracies in of_plr] for plr, of_plr in chosen.items()})
            for rank in range(ticks.FEATURES)
        ]
        panel["all_features"] = spread(study.by_plr(panel["stage"], final("test_accuracy"), panel.get("flr")))
    return {"regimes": measure_regimes(study), "panels": panels}


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
    panels = [("Fine-tuning", "flr", numbers["finetune"]), ("Weight averaging (SWA)", "window", numbers["swa"])]
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


def draw_feature_panels(numbers):
    panels = numbers["panels"]
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.3), sharey=True, squeeze=False)
    for axes, panel in zip(all_axes[0], panels):
        for rank, (curve, color) in enumerate(zip(panel["top"], colors(len(panel["top"])))):
            name = {0: "best feature of each run", len(panel["top"]) - 1: "worst feature"}.get(rank)
            axes.plot(curve["plr"], curve["mean"], color=color, linewidth=1, label=name)
        full = panel["all_features"]
        axes.plot(full["plr"], full["mean"], color="black", marker="o", label="all features")
        prepare_plr_axes(axes, numbers)
        title = f"After fine-tuning, FLR {lr_text(panel['flr'])}" if "flr" in panel else "After pre-training"
        axes.set_title(title, fontsize=9, pad=16)
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    all_axes[0, 0].set_ylabel(ACCURACY_LABEL)
    return figure


def draw_curve(axes, curve, color, **style):
    """A mean over runs, with a band of one standard deviation where there are several."""
    axes.plot(curve["plr"], curve["mean"], color=color, **style)
    if max(curve["n"]) > 1:
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
    15: (ticks.NAME, accuracy_numbers, draw_accuracy_panels),
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

    figures = commands.add_parser("figures", help="draw figures from the metrics of one experiment")
    figures.add_argument("folder", help="folder of the run folders of one experiment")
    figures.add_argument("--out", type=Path, required=True, help="folder for figureNN.pdf, .png and .json")
    figures.add_argument(
        "--only", type=int, nargs="+", choices=FIGURES, help="figures; without: all that fit the data"
    )

    draw = commands.add_parser("draw", help="draw figures again from their JSON")
    draw.add_argument("figures", type=Path, nargs="+", metavar="figureNN.json", help="files that `figures` wrote")

    args = parser.parse_args()
    {"features": features_command, "figures": figures_command, "draw": draw_command}[args.command](args)


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


def figures_command(args):
    study = Study(args.folder)
    if study.incomplete:
        print(f"{args.folder}: {study.incomplete} runs are not complete and are left out")
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
