"""The commands of analyze.py that read metrics and measurements alone: runs, claims, boundary, boundaries, figures, curves, draw."""

import sys
from pathlib import Path

from data.analysis import runs_table
from data.analysis.boundary_table import boundary_table
from data.analysis.choosing import add_choice_arguments, choice_by_folder
from data.analysis.claims import judge, summary
from data.analysis.explanations import boundary_lines, convergence_bracket, convergence_lines
from data.analysis.figures import (
    ENDINGS,
    FIGURES,
    draw_again,
    draw_figure,
    figure_numbers,
    fitting_figures,
    learning_curve_numbers,
    refuse_unfit_figures,
)
from data.analysis.regimes import measure_regimes
from data.analysis.study import Study
from data.commandline import BadInput, lr_name, positive_float
from data.files import remove_strays, write_json
from data.images import TEST, reported_split


def add_reading_commands(commands):
    """Add them to the subparsers of analyze.py, each with its function of the arguments as `run`."""
    runs = commands.add_parser(
        "runs", help="list the runs in a folder, whatever they are, and what is missing or odd"
    )
    runs.set_defaults(run=runs_command)
    runs.add_argument("folder", help="folder of run folders")
    add_choice_arguments(runs)
    runs.add_argument("--json", type=Path, metavar="FILE", help="write the table to a file, too")
    runs.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the table to a file of comma-separated values, too"
    )

    claims = commands.add_parser("claims", help="hold the claims of the paper against the runs of one experiment")
    claims.set_defaults(run=claims_command)
    add_folder_arguments(claims)
    add_statistics_argument(claims)
    claims.add_argument(
        "--run-std",
        type=positive_float,
        metavar="PP",
        help="standard deviation of a run's test accuracy in pp, where it is known; by default that of the runs' repeats",
    )
    claims.add_argument(
        "--verbose",
        action="store_true",
        help="print all that was measured, and the criteria, which --json has anyway",
    )
    claims.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to a file, too")

    bracket = commands.add_parser(
        "boundary", help="print the largest learning rate that converges and the next one above it"
    )
    bracket.set_defaults(run=boundary_command)
    add_folder_arguments(bracket)
    bracket.add_argument(
        "--grid",
        action="store_true",
        help="two neighbours of the PLR grid, not narrowed by runs that train until they converge (train.py --until-loss)",
    )

    table = commands.add_parser("boundaries", help="print a table of the boundaries of several experiments")
    table.set_defaults(run=boundaries_command)
    table.add_argument(
        "claims", type=Path, nargs="+", metavar="claims.json", help="files that `claims --json` wrote"
    )

    figures = commands.add_parser(
        "figures", help="draw figures from the metrics of one experiment, or compare several"
    )
    figures.set_defaults(run=figures_command)
    figures.add_argument(
        "folder", nargs="+", help="folders of the run folders of one experiment each; several are compared"
    )
    add_choice_arguments(figures)
    add_statistics_argument(figures)
    figures.add_argument("--out", type=Path, required=True, help="folder for figureNN.pdf, .png and .json")
    figures.add_argument(
        "--only",
        type=int,
        nargs="+",
        choices=sorted(FIGURES),
        help="figures; without: all that fit (10, 14 and 18 for several folders)",
    )

    curves = commands.add_parser("curves", help="draw learning curves of all stages of one experiment, by PLR")
    curves.set_defaults(run=curves_command)
    add_folder_arguments(curves)
    curves.add_argument("--out", type=Path, required=True, help="folder for curves.pdf, .png and .json")

    draw = commands.add_parser("draw", help="draw figures again from their JSON")
    draw.set_defaults(run=draw_command)
    draw.add_argument("figures", type=Path, nargs="+", metavar="figureNN.json", help="files that `figures` wrote")


def add_folder_arguments(parser):
    parser.add_argument("folder", help="folder of the run folders of one experiment")
    add_choice_arguments(parser)


def add_statistics_argument(parser):
    parser.add_argument(
        "--reestimated",
        action="store_true",
        help="test accuracies after pre-training and fine-tuning with batch-norm statistics re-estimated over the training "
        "set, as those of averages are, in place of the running ones",
    )


def study_of(args, paired=False, **options):
    """The Study of a command's folder and choice; what is skipped is printed, see say()."""
    study = Study(args.folder, args.only_runs, args.exclude, **options)
    say(study, paired)
    return study


def say(study, paired, file=None):
    """Print what a study skips; paired: also where only seeds are compared that all stages have."""
    for line in study.lines() + (study.pairing_lines() if paired else []):
        print(line, file=file)


def remove_strays_beside(*paths):
    """remove_strays() of files like those that are to be written, None where there is none."""
    for path in filter(None, paths):
        remove_strays(path.parent, path.suffix)


def runs_command(args):
    remove_strays_beside(args.json, args.csv)
    rows = runs_table.table(args.folder, args.only_runs, args.exclude)
    print(*runs_table.text_lines(rows), sep="\n")
    if args.json:
        write_json(args.json, {"folder": str(args.folder), "runs": rows})
    if args.csv:
        runs_table.write_csv(args.csv, rows)


def claims_command(args):
    remove_strays_beside(args.json)
    study = study_of(args, paired=True, reestimated=args.reestimated)
    study.refuse_damaged()
    regimes, verdicts = measure_regimes(study), judge(study, args.run_std)
    if reported_split(study.settings) != TEST:
        print(f"what is called test accuracy is {reported_split(study.settings)} accuracy in these runs")
    print(*boundary_lines(study), *summary(study, verdicts, args.verbose), sep="\n")
    if args.json:
        write_json(args.json, {"experiment": study.settings, "regimes": regimes, "claims": verdicts})


def boundary_command(args):
    """Scripts read the two numbers from the standard output, so all else goes to the standard error."""
    study = Study(args.folder, args.only_runs, args.exclude, stages=("pretrain", "converge"))
    say(study, paired=True, file=sys.stderr)
    print(*convergence_lines(study), sep="\n", file=sys.stderr)
    print(*map(lr_name, convergence_bracket(study, refined=not args.grid)))


def boundaries_command(args):
    print(*boundary_table(args.claims), sep="\n")


def figures_command(args):
    remove_strays(args.out, *ENDINGS)
    choices = choice_by_folder(args.folder, args.only_runs, args.exclude)
    studies = [Study(*choice, reestimated=args.reestimated) for choice in choices]
    wanted, skipped = args.only or fitting_figures(studies), []
    for study in studies:
        say(study, paired=any(FIGURES[number].paired for number in wanted))
    for study in studies:
        print(*(f"{study.folder}: {line}" for line in boundary_lines(study)), sep="\n")
    for number in wanted:
        try:
            if args.only:
                refuse_unfit_figures([number], studies)
            numbers = figure_numbers(number, studies)
        except BadInput as error:
            if not args.only:
                print(f"figure {number} is skipped: {error}")
            skipped.append(f"figure {number}: {error}")
            continue
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"figure{number:02d}.json"
        write_json(path, numbers)
        draw_figure(path)
    if args.only and skipped:
        raise BadInput(f"--only: {len(skipped)} of {len(wanted)} figures are not drawn: {'; '.join(skipped)}")
    for study in studies:
        study.refuse_damaged()


def curves_command(args):
    remove_strays(args.out, *ENDINGS)
    numbers = learning_curve_numbers(study_of(args, paired=True))
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "curves.json", numbers)
    draw_figure(args.out / "curves.json")


def draw_command(args):
    for path in args.figures:
        remove_strays(path.parent, *ENDINGS)
        draw_again(path)
