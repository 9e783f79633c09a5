"""By how much a test accuracy flatters where the same test samples chose the setting that it is of.

    python bench/halves.py FOLDER [--data-file FILE] [--splits 20] [--out FILE]

FOLDER: the runs of one experiment. Figures and claims speak of the best setting of a stage (PLR, with FLR or SWA
window) by mean test accuracy over runs, and report that accuracy. Here the test set is halved at random, again and again (on
ticks that of every data seed), and the setting that is best on one half is read on this half and on the other. Their
difference, averaged over both ways round, is the optimism, in percentage points. That of the whole test set is smaller,
as halves are noisier: by a factor of sqrt(2) where settings are equally good. Both halves see the same runs, so what
choosing among few runs adds is not in it. Regimes stay where the whole test set puts them.

Solutions are those right after pre-training, after fine-tuning, and SWA averages, on images with the batch-norm
statistics saved with them. What each classifies correctly is computed anew, and must add up to the accuracy in
metrics.json.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from analyze import evaluator_of, image_set_of  # noqa: E402
from bench.common import NOTHING_KEPT, say  # noqa: E402
from data import ticks  # noqa: E402
from data.analysis.explanations import boundary_lines  # noqa: E402
from data.analysis.regimes import measure_regimes  # noqa: E402
from data.analysis.study import Study, final, of_average  # noqa: E402
from data.commandline import BadInput, Parser, positive_int  # noqa: E402
from data.commandline import run as run_script  # noqa: E402
from data.device import add_device_argument, device_of  # noqa: E402
from data.files import write_json  # noqa: E402
from models import mlp  # noqa: E402

SEED = 0  # of the halves


def classifier_of(study, device, data_file):
    """A function (run, name of a solution) -> which test samples it classifies correctly, bool [members, samples]."""
    if study.network["task"] == "ticks":
        return functools.partial(classified_ticks, device)
    first = study.of_stage("pretrain")[0]
    return functools.partial(
        classified_images, evaluator_of(first, device), image_set_of(first, device, data_file)
    )


def classified_ticks(device, run, name):
    sets = ticks.stacked_sets([data_seed for data_seed, _ in ticks.groups(run.members)])
    solution = run.weights(name)
    weights, frozen = solution["weights"].to(device), solution["buffers"]["frozen"].to(device)
    scores = mlp.logits(weights, frozen, sets.test_inputs.to(device)).cpu()
    labels = sets.test_labels.repeat_interleave(len(weights) // len(frozen), dim=0)
    return ((scores > 0) == (labels > 0)).numpy()


@torch.no_grad()
def classified_images(evaluator, image_set, run, name):
    evaluator.load(run.weights(name))
    network = evaluator.network.eval()
    with evaluator.autocast():
        correct = [network(inputs).argmax(dim=1) == labels for inputs, labels in image_set.test_batches()]
    return torch.cat(correct)[None].cpu().numpy()


def correct_by_setting(study, classify):
    """{stage: {(PLR, FLR, or window, or None): [(data seed, correct, bool [samples]) of every run]}}."""
    once = functools.lru_cache(maxsize=1)(classify)  # all members of a run are asked for one after the other

    def checked(name, accuracy):
        def value(run, index):
            stored = accuracy(run, index)
            if stored is None:  # SWA with other windows
                return None
            correct = once(run, name)[index]
            if abs(stored - correct.mean()) >= 0.5 / len(correct):
                raise BadInput(
                    f"{run.path}/{name}.pt: member {index} classifies {100 * correct.mean():.3f} % of the test samples "
                    f"correctly, not {100 * stored:.3f} % as in metrics.json; use device and versions of config.json"
                )
            return run.members[index].get("data_seed"), correct

        return value

    at_end = checked("checkpoint", final("test_accuracy"))
    stages = {
        "pretrain": {None: study.by_plr("pretrain", at_end)},
        "finetune": {flr: study.by_plr("finetune", at_end, flr) for flr in study.flrs()},
        "swa": {k: study.by_plr("swa", checked(f"swa-{k}", of_average(k))) for k in study.windows()},
    }
    return {
        stage: {(plr, other): runs for other, by_plr in found.items() for plr, runs in by_plr.items()}
        for stage, found in stages.items()
    }


def stacked(settings, data_seeds):
    """Which part of the runs of a setting classify a sample of a data seed's test set correctly.

    settings: lists of (data seed, bool [samples]). Returns float64 [settings, data seeds, samples], fractions of all
    runs of a setting: summed over data seeds and averaged over samples they are the mean accuracy over runs.
    """
    samples = len(settings[0][0][1])
    found = np.zeros((len(settings), len(data_seeds), samples))
    for runs, of_setting in zip(settings, found):
        for data_seed, correct in runs:
            of_setting[data_seeds.index(data_seed)] += correct / len(runs)
    return found


def random_halves(splits, test_sets, samples):
    """Random halves of every test set, bool [splits, test sets, samples]; of an odd number the smaller half."""
    first = np.broadcast_to(np.arange(samples) < samples // 2, (splits, test_sets, samples))
    return np.random.default_rng(SEED).permuted(first, axis=2)


def accuracies(correct, halves):
    """Mean accuracy over runs, as a fraction, on halves, float64 [splits, settings]. Arguments: see optimism()."""
    return np.tensordot(halves.astype(float), correct, axes=((1, 2), (1, 2))) / halves[0, 0].sum()


def optimism(correct, halves):
    """What choosing the best setting on a half of the test set adds to its accuracy there, against the other half.

    correct: as stacked() gives it. halves: bool [splits, test sets, samples], one half of every test set.
    Returns the optimism in pp, the mean over choosing on either half, [splits], and whether both choose the same
    setting, bool [splits].
    """
    first, second = accuracies(correct, halves), accuracies(correct, ~halves)
    best_of_first, best_of_second = first.argmax(axis=1), second.argmax(axis=1)
    difference, split = first - second, np.arange(len(halves))
    # That one half is harder than the other has no part in this: it cancels.
    found = 50 * (difference[split, best_of_first] - difference[split, best_of_second])
    return found, best_of_first == best_of_second


def compared_plrs(regimes, plrs):
    """{name: PLRs} whose best settings claims compare; without a regime whose ends were not bracketed."""
    b12, b2ab = (regimes[name] for name in ("b12", "b2AB"))
    found = {"regime 1": [plr for plr in plrs if plr <= b12["last"]]} if b12 else {}
    if b12 and b2ab:
        found["2A"] = [plr for plr in plrs if b12["next"] <= plr <= b2ab["last"]]
    return found | {"all PLRs": plrs}


def measure(study, classify, splits):
    """{stage: {PLRs, see compared_plrs(): numbers}}; standard deviations are over splits, which share one test set."""
    found = {}
    for stage, settings in correct_by_setting(study, classify).items():
        say(f"{stage}: {sum(map(len, settings.values()))} solutions classify as metrics.json says")
        data_seeds = sorted({data_seed for runs in settings.values() for data_seed, _ in runs})
        for name, plrs in compared_plrs(measure_regimes(study), sorted({plr for plr, _ in settings})).items():
            chosen_from = [runs for (plr, _), runs in settings.items() if plr in plrs]
            if not chosen_from:
                continue
            correct = stacked(chosen_from, data_seeds)
            difference, same = optimism(correct, random_halves(splits, *correct.shape[1:]))
            found.setdefault(stage, {})[name] = {
                "settings": len(correct),
                "optimism_pp": float(difference.mean()),
                "std_pp": float(difference.std()),
                "same_choice": float(same.mean()),
            }
    return found


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/halves.py runs/synthetic --out halves.json")
    parser.add_argument("folder", help="folder of the run folders of one experiment")
    parser.add_argument("--data-file", help="image set, where it is no longer where the runs had it")
    parser.add_argument("--splits", type=positive_int, default=20, help="random divisions of the test set")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    add_device_argument(parser)
    args = parser.parse_args()
    study = Study(args.folder)
    for line in study.lines() + study.pairing_lines():
        say(line)
    found = measure(study, classifier_of(study, device_of(args.device), args.data_file), args.splits)
    print(*boundary_lines(study), sep="\n")
    for stage, by_plrs in found.items():
        for name, numbers in by_plrs.items():
            print(
                f"{stage}, best of {name}: optimism {numbers['optimism_pp']:.2f} +- {numbers['std_pp']:.2f} pp; both "
                f"halves choose the same of {numbers['settings']} in {100 * numbers['same_choice']:.0f} % of splits"
            )
    if args.out:
        write_json(args.out, {"experiment": study.settings, "splits": args.splits, "seed": SEED, **found})


if __name__ == "__main__":
    run_script(main, at_interrupt=NOTHING_KEPT)
