"""The commands of analyze.py that read metrics and measurements alone: claims, boundary, figures, curves, draw."""

from pathlib import Path

from data.analysis.claims import judge, verdict_line
from data.analysis.figures import (
    FIGURES,
    draw_figure,
    figure_numbers,
    fitting_figures,
    learning_curve_numbers,
    refuse_unfit_figures,
)
from data.analysis.regimes import boundary_lines, convergence_bracket, measure_regimes
from data.analysis.study import Study
from data.commandline import BadInput, lr_name, positive_float
from data.files import write_json
from data.images import TEST, reported_split


def add_reading_commands(commands):
    """Add them to the subparsers of analyze.py, each with its function of the arguments as `run`."""
    claims = commands.add_parser("claims", help="hold the claims of the paper against the runs of one experiment")
    claims.set_defaults(run=claims_command)
    claims.add_argument("folder", help="folder of the run folders of one experiment")
    claims.add_argument(
        "--run-std",
        type=positive_float,
        metavar="PP",
        help="standard deviation of a run's test accuracy in pp, where it is known; by default that of the runs' repeats",
    )
    claims.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to a file, too")

    bracket = commands.add_parser(
        "boundary", help="print the largest learning rate that converges and the next one above it"
    )
    bracket.set_defaults(run=boundary_command)
    bracket.add_argument("folder", help="folder of the run folders of one experiment")
    bracket.add_argument(
        "--refined",
        action="store_true",
        help="by runs that train until they converge, too (train.py --until-loss)",
    )

    figures = commands.add_parser(
        "figures", help="draw figures from the metrics of one experiment, or compare several"
    )
    figures.set_defaults(run=figures_command)
    figures.add_argument(
        "folder", nargs="+", help="folders of the run folders of one experiment each; several are compared"
    )
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
    curves.add_argument("folder", help="folder of the run folders of one experiment")
    curves.add_argument("--out", type=Path, required=True, help="folder for curves.pdf, .png and .json")

    draw = commands.add_parser("draw", help="draw figures again from their JSON")
    draw.set_defaults(run=draw_command)
    draw.add_argument("figures", type=Path, nargs="+", metavar="figureNN.json", help="files that `figures` wrote")


def claims_command(args):
    study = Study(args.folder)
    report_incomplete(study)
    regimes, verdicts = measure_regimes(study), judge(study, args.run_std)
    print(*boundary_lines(study), sep="\n")
    if reported_split(study.settings) != TEST:
        print(f"what is called test accuracy is {reported_split(study.settings)} accuracy in these runs")
    for verdict in verdicts:
        print(verdict_line(verdict))
    if args.json:
        write_json(args.json, {"experiment": study.settings, "regimes": regimes, "claims": verdicts})


def boundary_command(args):
    print(*map(lr_name, convergence_bracket(Study(args.folder), args.refined)))


def figures_command(args):
    studies = [Study(folder) for folder in args.folder]
    for study in studies:
        report_incomplete(study)
    wanted = args.only or fitting_figures(studies)
    if args.only:
        refuse_unfit_figures(args.only, studies)
    args.out.mkdir(parents=True, exist_ok=True)
    for study in studies:
        print(*(f"{study.folder}: {line}" for line in boundary_lines(study)), sep="\n")
    for number in wanted:
        try:
            numbers = figure_numbers(number, studies)
        except BadInput as error:
            if args.only:
                raise
            print(f"figure {number} is skipped: {error}")
            continue
        path = args.out / f"figure{number:02d}.json"
        write_json(path, numbers)
        draw_figure(path)


def curves_command(args):
    study = Study(args.folder)
    report_incomplete(study)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "curves.json", learning_curve_numbers(study))
    draw_figure(args.out / "curves.json")


def report_incomplete(study):
    if study.incomplete:
        print(f"{study.folder}: {study.incomplete} runs are not complete and are skipped")


def draw_command(args):
    for path in args.figures:
        draw_figure(path)
