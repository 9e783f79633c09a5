"""How often training that stops where its regime is decided (train.py --stop-when-clear) decides it wrongly.

    python bench/early_verdicts.py FOLDER... [--out FILE]

Full-length pre-trainings in the folders are replayed: at every logged step the rule of data/analysis/regimes.py sees what
was logged until then. What it says where it would have stopped is held against what the whole run says: diverged, at
chance, converged, or neither (noisy) by the same thresholds over the last tenth. A noisy run whose train loss still falls
at its end counts as noisy, and is told apart.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent)]

from bench.common import NOTHING_KEPT  # noqa: E402
from data.analysis import boundaries, regimes  # noqa: E402
from data.analysis.lengths import stage_of  # noqa: E402
from data.commandline import BadInput, Parser, run  # noqa: E402
from data.files import write_json  # noqa: E402
from data.runs import find_runs, metrics_until  # noqa: E402

NOISY, FALLING = "noisy", "noisy, still falls"
AGREES = {  # with which verdicts of whole runs an early one does
    regimes.DIVERGED: {regimes.DIVERGED},
    regimes.AT_CHANCE: {regimes.AT_CHANCE, regimes.DIVERGED},
    regimes.CONVERGED: {regimes.CONVERGED},
    regimes.PLATEAUED: {NOISY, FALLING},
    None: {regimes.DIVERGED, regimes.AT_CHANCE, regimes.CONVERGED, NOISY, FALLING},
}


def final_verdict(metrics, index, circumstances):
    """What a whole run leads to."""
    if metrics["diverged_at"][index] is not None:
        return regimes.DIVERGED
    accuracy, steps = circumstances.accuracy, np.array(metrics["step"])
    if accuracy is not None and regimes.has_converged(metrics, index, accuracy):
        return regimes.CONVERGED
    if circumstances.diverges and regimes.guesses(metrics, index, steps > 0.9 * steps[-1], circumstances):
        return regimes.AT_CHANCE
    return FALLING if regimes.still_falls(metrics, index) else NOISY


def replay(metrics, index, circumstances):
    """(verdict, step) where a run would have stopped; (None, its last step) where it would not."""
    for step in metrics["step"]:
        verdict = regimes.early_verdict(metrics_until(metrics, step), index, circumstances)
        if verdict is not None:
            return verdict, step
    return None, metrics["step"][-1]


def replays(folder):
    """A dictionary for every member of the full-length pre-trainings in a folder."""
    found = []
    for one in find_runs(folder):
        if stage_of(one) != "pretrain" or not one.complete or one.settings["stop_when_clear"]:
            continue
        for index, member in enumerate(one.members):
            circumstances = regimes.circumstances_of(one)
            circumstances = circumstances._replace(
                test_samples=circumstances.test_samples or boundaries.size_of_test_set(accuracies(one))
            )
            verdict, step = replay(one.metrics, index, circumstances)
            whole = final_verdict(one.metrics, index, circumstances)
            found.append(
                {
                    "plr": member["lrs"][0],
                    "early": verdict,
                    "whole": whole,
                    "agrees": whole in AGREES[verdict],
                    "part": step / one.settings["steps"],
                }
            )
    return found


def accuracies(one):
    return [number for row in one.metrics["test_accuracy"] for number in row if number is not None]


def lines(found):
    """A table of early verdicts by those of whole runs, and the training saved."""
    counts = Counter((row["early"], row["whole"]) for row in found)
    wholes = [regimes.CONVERGED, NOISY, FALLING, regimes.AT_CHANCE, regimes.DIVERGED]
    text = [f"{'':22s}" + "".join(f"{whole:>20s}" for whole in wholes)]
    for early in AGREES:
        of_early = [row["part"] for row in found if row["early"] == early]
        if of_early:
            cells = "".join(f"{counts[early, whole]:>20d}" for whole in wholes)
            where = f"  stops at {100 * np.mean(of_early):.0f} %" if early else ""
            text.append(f"{early or 'not decided early':22s}{cells}{where}")
    wrong = [row for row in found if not row["agrees"]]
    decided = sum(row["early"] is not None for row in found)
    saved = 1 - np.mean([row["part"] for row in found])
    text.append(
        f"{len(wrong)} of {decided} early verdicts wrong, n = {len(found)} runs; {100 * saved:.0f} % of epochs saved"
    )
    return text + [f"  wrong: PLR {row['plr']:.3g}, {row['early']} at {row['part']:.2f}" for row in wrong]


def parse_arguments(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="folders of full-length runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what was found as JSON")
    return parser.parse_args(arguments)


def main():
    args, every = parse_arguments(), {}
    for folder in args.folder:
        every[str(folder)] = found = replays(folder)
        if not found:
            raise BadInput(f"{folder}: holds no complete full-length pre-trainings; give another folder")
        print(f"{folder}:", *lines(found), sep="\n")
    if len(every) > 1:
        print("all:", *lines([row for found in every.values() for row in found]), sep="\n")
    if args.out:
        write_json(args.out, every)


if __name__ == "__main__":
    run(main, NOTHING_KEPT)
