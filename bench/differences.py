"""What a synthetic study says of the questions that its size was chosen for, with 95 % intervals paired by data seed.

    python bench/differences.py FOLDER [--out FILE]

Is the best of 2A better than the best of regime 1: after fine-tuning, after SWA, and where regime 1 trains on at its own
learning rate for as long as both stages take (an FLR that is the PLR)? Do FLRs differ in 2A? In what part of the runs is one
feature 10 pp ahead of the second? The best settings are chosen by the same runs; all settings are in the study's figures.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import NOTHING_KEPT  # noqa: E402
from data.analysis.claims import plain, text  # noqa: E402
from data.analysis.criteria import NotMeasurable, sample_mean  # noqa: E402
from data.analysis.evidence import Evidence  # noqa: E402
from data.analysis.intervals import difference, mean  # noqa: E402
from data.analysis.study import Study, features_of  # noqa: E402
from data.commandline import BadInput, Parser, run  # noqa: E402
from data.files import write_json  # noqa: E402

DOMINANT = 0.1  # lead of a feature over the second, as a fraction


def best(curves, plrs):
    """(name, PLR, Sample) with the highest mean of curves {name: Values} at these PLRs."""
    settings = [(name, plr, curve[plr]) for name, curve in curves.items() for plr in plrs if plr in curve]
    return max(settings, key=lambda setting: sample_mean(setting[2]))


def leads_of_2a(e):
    """{what: {"of 2A", "of regime 1", "difference"}} of the best settings, by stage."""
    regime_1, inside = e.regime("1"), e.regime("2A")
    tuned = {f"FLR {flr:.3g}": curve for flr, curve in e.finetuned.items()}
    averaged = {f"SWA-{window}": curve for window, curve in e.averaged.items()}
    throughout = {f"{flr:.3g} throughout": {flr: curve[flr]} for flr, curve in e.finetuned.items() if flr in curve}
    pairs = {"fine-tuned": (tuned, tuned), "averaged": (averaged, averaged), "either": (tuned | averaged,) * 2}
    if any(plr in curve for curve in throughout.values() for plr in regime_1):
        pairs["against regime 1 for as long"] = (tuned | averaged, throughout)
    found = {}
    for what, (of_2a, of_1) in pairs.items():
        (name, plr, sample), (other_name, other_plr, other) = best(of_2a, inside), best(of_1, regime_1)
        found[what] = {
            "of 2A": f"{name} from {plr:.3g}: {sample.mean:.2f}",
            "of regime 1": f"{other_name} from {other_plr:.3g}: {other.mean:.2f}",
            "difference": plain(difference(sample, other)),
        }
    return found


def range_over_flrs(e):
    """{PLR of 2A: {"best", "worst", "difference"}}; its interval is that of any pair of FLRs looked at together."""
    found = {}
    for plr in e.regime("2A"):
        reached = {flr: curve[plr] for flr, curve in e.finetuned.items() if plr in curve}
        order = sorted(reached, key=lambda flr: reached[flr].mean)
        pairs = len(order) * (len(order) - 1) // 2
        apart = difference(reached[order[-1]], reached[order[0]], comparisons=pairs)
        found[f"{plr:.3g}"] = {"best": order[-1], "worst": order[0], "difference": plain(apart)}
    return found


def dominant_shares(e):
    """{stage: {PLR: the Interval, in percent, of the runs in which one feature is 10 pp ahead of the second}}."""
    stages = {"pre-training": ("pretrain", "checkpoint")}
    stages |= {f"FLR {flr:.3g}": ("finetune", "checkpoint", flr) for flr in (e.flrs[0], e.flrs[-1])}
    stages |= {f"SWA-{window}": ("swa", f"swa-{window}") for window in e.windows}
    found = {}
    for name, (stage, solution, *later_lrs) in stages.items():
        of_run = features_of(solution)

        def dominates(one, index, of_run=of_run):
            accuracies = of_run(one, index)
            return accuracies and float(accuracies[0] - accuracies[1] >= DOMINANT)

        shares = e.percent(stage, dominates, *later_lrs)
        found[name] = {f"{plr:.3g}": plain(mean(sample)) for plr, sample in shares.items()}
    return found


def parse_arguments(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of the runs of a synthetic study")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it as JSON")
    return parser.parse_args(arguments)


def main():
    args = parse_arguments()
    e = Evidence(Study(args.folder))
    try:
        found = {"leads of 2A": leads_of_2a(e), "range over FLRs": range_over_flrs(e)}
        found["percent of runs with a dominant feature"] = dominant_shares(e)
    except NotMeasurable as missing:
        raise BadInput(f"{args.folder}: {missing}") from None
    seeds = {member["data_seed"] for one in e.study.runs for member in one.members}
    for title, entries in found.items():
        print(f"{title}, {len(seeds)} data seeds")
        for name, values in entries.items():
            print(f"  {name}: " + ", ".join(f"{what} {text(value)}" for what, value in values.items()))
    if args.out:
        write_json(args.out, {"data_seeds": len(seeds), "plrs": e.plrs} | found)


if __name__ == "__main__":
    run(main, NOTHING_KEPT)
