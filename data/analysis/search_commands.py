"""The commands of analyze.py that look for a band of learning rates: next-lr, band. They read metrics alone."""

import sys
from pathlib import Path

from data.analysis import search
from data.analysis.band import band_lines
from data.analysis.choosing import add_choice_arguments
from data.analysis.commands import say
from data.analysis.explanations import boundary_lines
from data.analysis.figures import band_figure_numbers, draw_figure
from data.analysis.search import Options, forecast, known_of, next_asks
from data.analysis.study import Study
from data.commandline import BadInput, counted, lr_name, natural, positive_float, positive_int
from data.files import write_json

SMALLEST_RATIO = 1.05


def add_search_commands(commands):
    """Add them to the subparsers of analyze.py, each with its function of the arguments as `run`."""
    following = commands.add_parser(
        "next-lr",
        help="print which learning rates to run next to find the band of useful ones, a line for each run: "
        "`pretrain LR SEED`, `finetune RUN FLR` or `converge LR SEED LOSS`; nothing where it is bracketed",
    )
    following.set_defaults(run=next_command)
    following.add_argument("folder", help="folder of the run folders of one experiment; need not be there yet")
    add_search_arguments(following)
    following.add_argument(
        "--count",
        action="store_true",
        help="print how many pre-trainings and fine-tunings are to come, two numbers",
    )

    band = commands.add_parser(
        "band", help="print the band of useful learning rates, with the evidence, and the best one in it"
    )
    band.set_defaults(run=band_command)
    band.add_argument("folder", help="folder of the run folders of one experiment")
    add_search_arguments(band)
    band.add_argument("--json", type=Path, metavar="FILE", help="write all that was found to a file, too")
    band.add_argument("--out", type=Path, metavar="DIR", help="folder for band.pdf, .png and .json")


def add_search_arguments(parser):
    add_choice_arguments(parser)
    usual = Options()
    parser.add_argument(
        "--ratio",
        type=positive_float,
        default=usual.ratio,
        help="of the two learning rates next to a boundary, to stop at",
    )
    parser.add_argument("--parallel", type=positive_int, default=usual.parallel, help="runs to ask for at a time")
    parser.add_argument(
        "--seeds", type=positive_int, default=usual.seeds, help="runs at the learning rates next to a boundary"
    )
    parser.add_argument(
        "--first-seed", type=natural, default=usual.first_seed, help="the seed of runs that have no repeats"
    )
    parser.add_argument(
        "--max-runs", type=natural, default=usual.max_runs, help="the most runs there may be, of any stage"
    )
    parser.add_argument(
        "--start",
        nargs=2,
        type=positive_float,
        default=usual.start,
        metavar=("LOW", "HIGH"),
        help="learning rates to begin between, where there are no runs",
    )
    parser.add_argument(
        "--flr",
        nargs=2,
        type=positive_float,
        metavar=("LOW", "HIGH"),
        help="of fine-tuning (default: the lowest and the highest that is there and converges, or a tenth and half of the "
        "largest learning rate that converges)",
    )
    parser.add_argument(
        "--precise-chance", action="store_true", help="bracket to the ratio, too, where runs begin to be at chance"
    )


def options_of(args):
    """The Options of a command line. Raises BadInput for numbers that do not go together."""
    if args.ratio < SMALLEST_RATIO:
        raise BadInput(
            f"--ratio {args.ratio:g}: is below {SMALLEST_RATIO}; noise decides there; give a larger one"
        )
    for flag, pair in (("--start", args.start), ("--flr", args.flr)):
        if pair and not pair[0] < pair[1]:
            raise BadInput(f"{flag} {pair[0]:g} {pair[1]:g}: give the lower one first, and a higher one")
    precise = (*Options().precise, *(("b23",) if args.precise_chance else ()))
    return Options(
        args.ratio,
        args.parallel,
        args.seeds,
        args.first_seed,
        args.max_runs,
        tuple(args.start),
        tuple(args.flr) if args.flr else None,
        precise,
    )


def next_command(args):
    """Scripts read what to run from the standard output, so all else goes to the standard error."""
    options = options_of(args)
    known = known_of(args.folder, args.only_runs, args.exclude)
    if args.count:
        to_come = forecast(known, options)
        print(sum(ask.stage != "finetune" for ask in to_come), sum(ask.stage == "finetune" for ask in to_come))
        return
    asks = next_asks(known, options)
    if known.study is not None:
        print(*boundary_lines(known.study), sep="\n", file=sys.stderr)
    print(state(known, options, asks), file=sys.stderr)
    for line in lines_of(known, asks):
        print(line)


def lines_of(known, asks):
    """Asks as lines for a shell: `pretrain LR SEED`, `finetune RUN FLR`, RUN being a path in the folder, or, of training
    that goes on until a train loss, `converge LR SEED LOSS`."""
    return list(dict.fromkeys(line_of(known, ask) for ask in asks))


def line_of(known, ask):
    if ask.stage == "pretrain":
        return f"pretrain {exact_name(ask.plr)} {ask.seed}"
    if ask.stage == "converge":
        return f"converge {exact_name(ask.plr)} {ask.seed} {exact_name(ask.until)}"
    return f"finetune {known.folders[search.Ask(ask.plr, ask.seed)]} {exact_name(ask.flr)}"


def exact_name(lr):
    """A learning rate as lr_name() has it, if that is the very number."""
    return lr_name(lr) if float(lr_name(lr)) == lr else repr(lr)


def state(known, options, asks):
    """What the search is about to do, or why it does nothing."""
    if asks:
        stopped = sum(ask in known.stopped for ask in asks)
        return f"next: {counted(len(asks), 'run')}" + (f", of which {stopped} had stopped" if stopped else "")
    if known.busy:
        return f"next: waits for {counted(len(known.busy), 'run')} that other processes are at work on"
    if len(known.done) >= options.max_runs and search.needs(known, options):
        return f"next: nothing, as there are {counted(len(known.done), 'run')}; more with a larger --max-runs"
    return f"next: nothing; what these runs can bracket is within a factor {options.ratio:g}"


def band_command(args):
    options = options_of(args)
    known = known_of(args.folder, args.only_runs, args.exclude)
    study = known.study or Study(args.folder, args.only_runs, args.exclude)  # which says what is missing
    say(study, paired=True)
    asks = next_asks(known, options)
    numbers = band_figure_numbers(study) | {"next": lines_of(known, asks)}
    print(*band_lines(numbers), sep="\n")
    if numbers["next"]:
        print(f"to run next, for brackets within a factor {options.ratio:g}: {'; '.join(numbers['next'])}")
    else:
        print(state(known, options, asks))
    if args.json:
        write_json(args.json, numbers)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "band.json", numbers)
        draw_figure(args.out / "band.json")
