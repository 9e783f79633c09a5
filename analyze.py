"""Measure the solutions that the other scripts left on disk, and draw the figures of the paper.

    analyze.py features FOLDER                balanced single-feature accuracies of runs on ticks
    analyze.py geometry FOLDER                angles and error barriers between solutions
    analyze.py bands FOLDER                   accuracies of image runs on frequency bands
    analyze.py norms FOLDER                   norms of the filters of image runs
    analyze.py sharpness FOLDER --level LOSS  gradient norms and curvature of image runs where train loss crossed LOSS,
                                              at kept epochs (--step N), or at the end (--end)
    analyze.py runs FOLDER                    a table of the runs, and what is missing or odd
    analyze.py claims FOLDER                  the claims of the paper, held against the runs of one experiment
    analyze.py boundary FOLDER                the largest learning rate that converges, and the next one
    analyze.py boundaries claims.json...      a table of the boundaries of several experiments
    analyze.py next-lr FOLDER                 which learning rates to run next, to find the band of useful ones
    analyze.py band FOLDER                    that band, with the evidence, and the best learning rate in it
    analyze.py test RUN...                    test accuracy of runs that report on held-out images
    analyze.py figures FOLDER... --out DIR    the figures that runs of one experiment permit, or several compared
    analyze.py curves FOLDER --out DIR        learning curves of all stages by learning rate of pre-training
    analyze.py draw DIR/figureNN.json ...     figures again, from the numbers written beside them

Measuring, gathering numbers and drawing are separate: measurements are written beside the runs, once, and drawing reads
nothing but a figure's own JSON.
"""

import data.startup  # noqa: F401 # isort: skip - before all else
import functools
import itertools

import torch

import models
from data import bands, images, ticks
from data.analysis.choosing import add_choice_arguments, chosen_runs, how_to_finish
from data.analysis.commands import add_folder_arguments, add_reading_commands, study_of
from data.analysis.lengths import Lengths
from data.analysis.measuring import (
    Job,
    add_measuring_arguments,
    at_least_two,
    fine_tuned,
    image_study,
    measure_all,
    missing,
    refuse_others,
    solution_name,
    solutions_shown,
    weights_named,
    without_low_ends,
)
from data.analysis.search_commands import add_search_commands
from data.analysis.study import GEOMETRY_PAIRS, GEOMETRY_WINDOW
from data.commandline import (
    BadInput,
    Parser,
    natural,
    positive_float,
    positive_int,
    say,
)
from data.commandline import run as run_script
from data.device import BF16, EVALUATION_BATCH, add_device_argument, device_of, use_precision
from data.runs import Run, bands_name, geometry_name, low_ends_name, sharpness_of
from data.seeds import generator, init_seed
from models import curvature, mlp
from models.batchnorm import REESTIMATION_BATCH, leaves_one
from models.evaluator import Evaluator
from models.geometry import (
    BarrierProtocol,
    angular_distance,
    error_barriers,
    measurements_of_line,
    relative_filter_norms,
)
from models.requests import add_own_network_argument, network_of, use_own_network

# --------------------------------------------------------------------------------------------------- measuring runs


def evaluator_of(run, device):
    """An Evaluator of a run's network, at the run's initial point. Raises BadInput where there is no such network."""
    settings, [member, *more] = run.settings, run.members
    if more:
        raise BadInput(
            f"{run.path}: has {len(run.members)} members, but an image network has one in every run folder"
        )
    network_of(run.config, f"{run.path}: ")  # there is one
    seed = init_seed(member["seed"])
    width, classes, shape = settings["width"], settings["classes"], settings["shape"]
    network = models.build(settings["model"], width, classes, seed, **shape)
    return Evaluator(network, device, settings["precision"] == BF16)


def image_set_of(run, device, data_file, **settings):
    """The image set of a run, at data_file where it is no longer where the run had it, as by other settings of the run.

    Raises BadInput where it is missing or another, or the device lacks the precision of the run.
    """
    use_precision(run.settings["precision"], device)
    config = run.config | {
        "data_file": data_file or run.config["data_file"],
        "settings": run.settings | settings,
    }
    return images.load_image_set_of(config, device)


def solutions_of(run):
    """The names of the weights that a run ends with: those of its end (`checkpoint`), or, of an SWA run, its averages."""
    return [f"swa-{window}" for window in run.settings.get("windows", [])] or ["checkpoint"]


def measure_features(run, inputs, labels):
    """Balanced single-feature accuracies (paper, section 5) of every member of a run on ticks: features.json.

    Solutions are those of solutions_of().
    The accuracies are indexed [solution][member][feature], unsorted, as fractions. They are balanced, unlike the
    paper's, so that chance is 50 % on every set, whatever its classes' sizes.

    inputs, labels: the single-feature test sets one after the other, [16 * 1000, 32] and [16 * 1000].
    """
    names = solutions_of(run)
    accuracies = []
    for name in names:
        solution = run.weights(name, fits_ticks(run))
        scores = mlp.logits(solution["weights"], solution["buffers"]["frozen"], inputs)
        of_sets = scores.view(len(scores), ticks.FEATURES, -1)
        accuracies.append(balanced_accuracy(of_sets > 0, labels.view(ticks.FEATURES, -1) > 0))
    run.write_measurement("features", {"solution": names, "balanced_accuracy": torch.stack(accuracies)})


def balanced_accuracy(predicted, actual):
    """The mean of the accuracies on the two classes, as a fraction, [...]: 0.5 where the prediction is constant.

    predicted, actual: whether each point is of class 1, [..., points], of shapes that broadcast.
    """
    of_classes = [
        ((predicted == label) & (actual == label)).sum(-1) / (actual == label).sum(-1) for label in (0, 1)
    ]
    return torch.stack(of_classes).mean(0)


def fits_ticks(run):
    """A function that raises ValueError for a solution that is not of the members of a run on ticks."""
    return functools.partial(mlp.refuse_unfit, members=len(run.members), groups=len(ticks.groups(run.members)))


def tick_errors(run):
    """A function of the weights [members, 2048] of a run: train and test errors in percent, [2, members]."""
    sets = ticks.stacked_sets([data_seed for data_seed, _ in ticks.groups(run.members)])
    frozen = run.weights(put=fits_ticks(run))["buffers"]["frozen"]

    def errors(weights):
        train, test = sets[:2], sets[2:]
        return torch.stack([100 * (1 - mlp.evaluate(weights, frozen, *split)[1]) for split in (train, test)])

    return errors


def image_errors(evaluator, image_set, protocol):
    """The same for runs on images: a function of a run that gives such a function."""

    def errors(weights):
        train_batches, test_batches = image_set.train_batches(REESTIMATION_BATCH), image_set.test_batches()
        return evaluator.errors(weights, train_batches, test_batches, protocol.batch_norm)

    def errors_of(run):
        run.weights(put=evaluator.load)
        return errors

    return errors_of


def measure_geometry(study, run, low, high, protocol, in_angles, errors, fits=None):
    """Angles and error barriers between the solutions that continue one pre-training: geometry-*.json.

    They are L and H, fine-tuned at the FLRs `low` and `high`; S, the SWA average of 5 weights; and P, the end of the
    pre-training itself. Angles are in radians and barriers in percent, {pair: [member]}, NaN of members that diverged
    (paper, section 4, figures 3 and 16). Raises BadInput where one of the solutions is missing.

    protocol: the BarrierProtocol. in_angles: index of the weights that angles are between.
    errors: function of weights [members, parameters] that gives train and test errors, [2, members].
    fits: function that raises ValueError for a solution that is not of the network.
    """
    solutions = solutions_around(study, run, low, high, fits)
    weights = {name: solution["weights"] for name, solution in solutions.items()}
    compared = {name: of_solution[:, in_angles] for name, of_solution in weights.items()}

    def finite_errors(weights):
        return errors(weights).where(weights.isfinite().all(dim=1), torch.nan)

    barriers = error_barriers(weights, GEOMETRY_PAIRS, protocol, study.settings["rho"], finite_errors)
    measured = {
        "low_flr": low,
        "high_flr": high,
        "window": GEOMETRY_WINDOW,
        "protocol": protocol._asdict(),
        "angle": {pair: angular_distance(*(compared[name] for name in pair)) for pair in (*GEOMETRY_PAIRS, "LP")},
        "train_barrier": {pair: of_splits[0] for pair, of_splits in barriers.items()},
        "test_barrier": {pair: of_splits[1] for pair, of_splits in barriers.items()},
    }
    run.write_measurement(geometry_name(low, high), measured)


def solutions_around(study, run, low, high, fits=None):
    """The solutions P, L, H and S of measure_geometry(). Raises BadInput where one is missing or does not fit."""
    low_run = study.continuation(run, "finetune", low)
    began = low_run.config["parent"]
    if began is None:
        raise BadInput(f"{low_run.path}: does not say what it continues")
    return {
        "P": run.weights_at(began["step"], fits, began.get("sha256")),  # the run may have been made longer since
        "L": low_run.weights(put=fits),
        "H": study.continuation(run, "finetune", high).weights(put=fits),
        "S": study.continuation(run, "swa").weights(f"swa-{GEOMETRY_WINDOW}", fits),
    }


def measure_bands(evaluator, run, sets):
    """Test accuracies on frequency bands (paper, section 6) of a run on images: bands-<normalisation>.json.

    The solution is the end of the run, or, of an SWA run, its average of 5 weights. Accuracies are fractions, {band:
    [member]}; `full` is that on the images themselves.
    """
    name = solution_name(run)
    run.weights(name, evaluator.load)
    accuracy = {band: [band_accuracy(evaluator, sets, band)] for band in (bands.FULL, *sets.limits)}
    measured = {"solution": name, "normalisation": sets.normalisation, "limits": sets.limits, "accuracy": accuracy}
    run.write_measurement(bands_name(sets.normalisation), measured)


def measure_low_ends(evaluator, run, sets):
    """Test accuracies of the end of a run on the bands of bands.low_end_limits() (figure 25): low-ends-*.json.

    They are fractions, {band: {end of the low band: [member]}}, and limits likewise {band: {end: [lowest, highest]}}.
    """
    run.weights(put=evaluator.load)
    ends = sorted({end for _, end in sets.limits})

    def by_end(value):
        return {band: {end: value((band, end)) for end in ends} for band in bands.BESIDE_LOW_END}

    measured = {"solution": "checkpoint", "normalisation": sets.normalisation, "low_ends": ends}
    measured["limits"] = by_end(sets.limits.get)
    measured["accuracy"] = by_end(lambda key: [band_accuracy(evaluator, sets, key)])
    run.write_measurement(low_ends_name(sets.normalisation), measured)


def band_accuracy(evaluator, sets, band):
    """Test accuracy of the solution that an Evaluator holds on a band of BandSets; `full`: on the images themselves."""
    if sets.normalisation == bands.REESTIMATE:
        evaluator.reestimate(sets.batches(band, "train", REESTIMATION_BATCH))
    size = EVALUATION_BATCH[evaluator.device.type]
    return evaluator.evaluate(sets.batches(band, "test", size))[1]


def measure_band_images(run, image_set):
    """The first test image and its frequency bands, see bands.panels() (paper, figures 6 and 9): band-images.json."""
    label = image_set.classes[image_set.test_labels[0]]
    run.write_measurement("band-images", {"class": label, "panels": bands.panels(image_set.test_images[0].cpu())})


def measure_norms(run):
    """Norms of all filters of a run on images, relative to that of all of them (paper, figure 13): norms.json.

    {solution: [member][filter]}; solutions are the initial point (of pre-trainings) and the end of the run, or, of an
    SWA run, its average of 5 weights.
    """
    name, evaluator = solution_name(run), evaluator_of(run, torch.device("cpu"))
    kernels = models.angle_parameters(run.settings["model"], evaluator.network)
    at_first = {"initial": [relative_filter_norms(kernels)]}
    solutions = at_first if run.config["stage"] == "pretrain" else {}
    run.weights(name, evaluator.load)
    run.write_measurement("norms", solutions | {name: [relative_filter_norms(kernels)]})


def measure_test(run, device, data_file):
    """Loss and accuracy over the test set, whatever the run reports on: test.json, both [solution][member].

    Solutions are those of solutions_of().
    """
    names = solutions_of(run)
    if run.network["task"] == "ticks":
        sets = ticks.stacked_sets([data_seed for data_seed, _ in ticks.groups(run.members)])
        solutions = (run.weights(name, fits_ticks(run)) for name in names)
        found = [mlp.evaluate(one["weights"], one["buffers"]["frozen"], *sets[2:]) for one in solutions]
    else:
        evaluator, found = evaluator_of(run, device), []
        image_set = image_set_of(run, device, data_file, report=images.TEST)
        for name in names:
            run.weights(name, evaluator.load)
            found.append([[number] for number in evaluator.evaluate(image_set.test_batches())])
    losses, accuracies = zip(*found)
    run.write_measurement("test", {"solution": names, "loss": losses, "accuracy": accuracies})


def measure_sharpness(evaluator, image_set, name, most, probes, run, alive):
    """How sharp one of a run's solutions is: sharpness-<name>.json, name being that of its weights (see data/runs.py).

    Numbers are those of curvature.sharpness(), [member], its curvature that of the first training images, `most` at
    most; and the test accuracy of the same weights. alive: called with a text at every pass over images.
    """
    solution, passes = run.weights(name, evaluator.load), itertools.count(1)
    _, test_accuracy = evaluator.evaluate(image_set.test_batches())
    count = min(most, len(image_set.train_labels))

    def some_batches():
        alive(f"pass {next(passes)} over {count} images")
        return image_set.train_batches(REESTIMATION_BATCH, count)

    measured = {"step": solution["step"], "test_accuracy": test_accuracy} | curvature.sharpness(
        evaluator,
        image_set.train_batches(REESTIMATION_BATCH),
        some_batches,
        count,
        probes,
        [generator("largest-eigenvalue"), generator("trace")],
    )
    of_member = {name: [value] for name, value in measured.items()}
    run.write_measurement(
        sharpness_of(name), {"solution": name, "most": most, "images": count, "probes": probes} | of_member
    )


# --------------------------------------------------------------------------------------------------- the command line


def main():
    parser = Parser(__doc__.splitlines()[0], "python analyze.py figures runs/ticks --out figures")
    commands = parser.add_subparsers(dest="command", required=True)

    features = commands.add_parser(
        "features", help="measure the balanced single-feature accuracies of runs on ticks"
    )
    features.set_defaults(run=features_command)
    features.add_argument("folder", help="folder of run folders; runs that are measured already are skipped")
    add_choice_arguments(features)

    geometry = commands.add_parser("geometry", help="measure angles and error barriers between solutions")
    geometry.set_defaults(run=geometry_command)
    add_measuring_arguments(geometry)
    add_own_network_argument(geometry)

    band = commands.add_parser("bands", help="measure accuracies of runs on images on frequency bands")
    band.set_defaults(run=bands_command)
    add_measuring_arguments(band)
    add_own_network_argument(band)
    band.add_argument(
        "--normalisation",
        nargs="+",
        choices=bands.NORMALISATIONS,
        help="of band images: keep (the published rule: only those with the zero frequency are normalised), std "
        "(others are divided by the standard deviation of whole images), band (standardised, each by its own moments), "
        "reestimate (as keep, with batch-norm statistics of training images treated alike; the default of networks with "
        "such statistics, keep is that of others)",
    )
    band.add_argument(
        "--low-ends",
        type=positive_int,
        nargs="+",
        help="where else the low band is to end and the mid band to begin, in |kx| + |ky|, for fine-tuning at the lowest "
        "FLR (figure 25 of the paper: 4 6 8 10 12 16 at 32 pixels, our choice)",
    )

    norms = commands.add_parser("norms", help="measure the filter norms of runs on images")
    norms.set_defaults(run=norms_command)
    add_folder_arguments(norms)
    add_own_network_argument(norms)

    sharpness = commands.add_parser(
        "sharpness",
        help="measure gradient norms and curvature of runs on images at levels of train loss or at epochs",
    )
    sharpness.set_defaults(run=sharpness_command)
    add_measuring_arguments(sharpness)
    add_own_network_argument(sharpness)
    sharpness.add_argument(
        "--level",
        type=positive_float,
        nargs="+",
        default=[],
        help="train losses that --keep-loss kept weights at",
    )
    sharpness.add_argument(
        "--step", type=natural, nargs="+", default=[], help="epochs that --keep kept weights of"
    )
    sharpness.add_argument("--end", action="store_true", help="also the end of every run")
    sharpness.add_argument(
        "--images", type=positive_int, default=5000, help="training images that curvature is measured on, at most"
    )
    sharpness.add_argument(
        "--probes", type=at_least_two, default=10, help="random vectors that estimate the trace"
    )

    test = commands.add_parser("test", help="measure the test accuracy of runs, whatever images they report on")
    test.set_defaults(run=test_command)
    test.add_argument("runs", nargs="+", metavar="RUN", help="folders of complete runs")
    test.add_argument("--data-file", help="image set, where it is no longer where the runs had it")
    add_device_argument(test)
    add_own_network_argument(test)

    add_reading_commands(commands)
    add_search_commands(commands)
    args = parser.parse_args()
    args.run(args)


def features_command(args):
    every_run = chosen_runs(args.folder, args.only_runs, args.exclude)
    compared = Lengths([run for run in every_run if run.network["task"] == "ticks"]).at_length.values()
    runs = [run for run in compared if run]
    if not runs:
        raise BadInput(f"{args.folder}: holds no complete runs on ticks")
    sets = [ticks.single_feature_set(feature) for feature in range(ticks.FEATURES)]
    inputs, labels = (torch.cat(parts) for parts in zip(*sets))

    # Earlier measurements are of plain accuracies, under another key.
    runs = missing("features", runs, "features", "balanced_accuracy")
    measure_all([Job("features", runs, lambda run, advance: measure_features(run, inputs, labels))])


def geometry_command(args):
    study, device = study_of(args), device_of(args.device)
    try:
        low, high = study.extreme_flrs()
    except BadInput as too_few:
        say(f"geometry: nothing to measure: {too_few}")
        return
    runs = []
    for run in study.of_stage("pretrain"):
        try:
            for flr in (low, high):
                study.continuation(run, "finetune", flr)
            solution_name(study.continuation(run, "swa"))
            runs.append(run)
        except BadInput as error:
            say(f"skipped: {error}")
    if not runs:
        say("geometry: nothing to measure: no pre-training has all its solutions here")
        return
    runs = missing("geometry", runs, geometry_name(low, high))
    if not runs:
        return
    protocol, in_angles, errors_of = BarrierProtocol(**study.network["barrier"]), slice(None), tick_errors
    evaluator = None
    use_own_network(args.model, runs)
    if study.network["task"] == "images":
        evaluator = evaluator_of(runs[0], device)
        in_angles = models.angle_weights(study.settings["model"], evaluator.network)
        errors_of = image_errors(evaluator, image_set_of(runs[0], device, args.data_file), protocol)

    def measure(run, advance):
        errors, fits = errors_of(run), evaluator.refuse_unfit if evaluator else fits_ticks(run)

        def counted_errors(weights):
            advance()
            return errors(weights)

        measure_geometry(study, run, low, high, protocol, in_angles, counted_errors, fits)

    measure_all([Job("geometry", runs, measure, measurements_of_line(GEOMETRY_PAIRS, protocol))])


def bands_command(args):
    study = image_study(args)
    shown, first = solutions_shown(study), study.of_stage("pretrain")[0]
    normalisations = args.normalisation or [bands.default_normalisation(study.network)]
    if bands.REESTIMATE in normalisations and not study.network["barrier"]["batch_norm"]:
        raise BadInput(
            f"--normalisation {bands.REESTIMATE}: this network has no batch-norm statistics; use {bands.KEEP}"
        )
    unmeasured = {name: missing(f"bands, {name}", shown, bands_name(name)) for name in normalisations}
    of_low_ends = {name: without_low_ends(study, name, args.low_ends) for name in normalisations if args.low_ends}
    images_missing = first.measurement("band-images") is None
    if not images_missing and not any((*unmeasured.values(), *of_low_ends.values())):
        return
    device = device_of(args.device)
    use_own_network(args.model, [first])
    evaluator, image_set = evaluator_of(first, device), image_set_of(first, device, args.data_file)
    size = image_set.train_images.shape[-1]
    work = [("bands", measure_bands, unmeasured, bands.bands(size))]
    if args.low_ends:
        work.append(("low ends", measure_low_ends, of_low_ends, bands.low_end_limits(size, args.low_ends)))

    def jobs():
        if images_missing:
            yield Job("band images", [first], lambda run, advance: measure_band_images(run, image_set))
        for title, measure, missing_by, limits in work:
            for normalisation, runs in missing_by.items():
                if runs:
                    sets = bands.BandSets(image_set, normalisation, limits)
                    yield Job(f"{title}, {normalisation}", runs, lambda run, _: measure(evaluator, run, sets))  # noqa: B023

    measure_all(jobs())


def test_command(args):
    runs, device = [Run(path) for path in args.runs], device_of(args.device)
    for run in runs:
        if not run.complete:
            raise BadInput(f"{run.path}: is not complete; finish it first: {how_to_finish(run)}")
    runs = missing("test", runs, "test")
    use_own_network(args.model, runs)
    measure_all([Job("test", runs, lambda run, advance: measure_test(run, device, args.data_file))])


def norms_command(args):
    runs = missing("norms", solutions_shown(image_study(args)), "norms")
    use_own_network(args.model, runs)
    measure_all([Job("norms", runs, lambda run, advance: measure_norms(run))])


def sharpness_command(args):
    if not (args.level or args.step or args.end):
        raise BadInput("sharpness: give the weights to measure: --level LOSS..., --step EPOCH... or --end")
    study = image_study(args)
    named = weights_named(args, study)
    compared, unmeasured, wanted = study.of_stage("pretrain") + fine_tuned(study, study.flrs()), {}, set()
    for where, (weights_of, flag) in named.items():
        title, by_name = f"sharpness at {where}", {}
        for run, name in map(weights_of, compared):
            if run.has_weights(name):
                by_name.setdefault(name, []).append(run)
        for name, runs in by_name.items():
            refuse_others(
                runs, sharpness_of(name), {"--images": ("most", args.images), "--probes": ("probes", args.probes)}
            )
            runs = [run for run in runs if (run, name) not in wanted]
            wanted |= {(run, name) for run in runs}
            unmeasured[title, name] = missing(title, runs, sharpness_of(name)) if runs else []
        if not by_name:
            there = sorted({step for run in compared for step in (*run.kept, study.whole(run).last_step)})
            fix = f"{flag} does" if flag else "their folders hold no checkpoint.pt"
            kept = f" (there are epochs {', '.join(map(str, there))})" if where.startswith("epoch") else ""
            say(f"{title}: nothing to measure: no run kept weights at {where}{kept}; {fix}")
    if not any(unmeasured.values()):
        return
    device = device_of(args.device)
    use_own_network(args.model, compared)
    evaluator, image_set = evaluator_of(compared[0], device), image_set_of(compared[0], device, args.data_file)
    count, side = min(args.images, len(image_set.train_labels)), image_set.train_images.shape[-1]
    if leaves_one(count, REESTIMATION_BATCH) and not evaluator.takes_single_images(side):
        raise BadInput(
            f"--images {args.images}: leaves one of {count} images for the last batch, and batch norm needs two of {side} "
            f"pixels in every batch; use {max(2, count - 1)}"
        )
    jobs = []
    for (title, name), runs in unmeasured.items():
        measure = functools.partial(measure_sharpness, evaluator, image_set, name, args.images, args.probes)
        jobs.append(Job(title, runs, measure))
    measure_all(jobs)


if __name__ == "__main__":
    run_script(main)
