"""Whether the batched program reaches what the baseline does: a statistical test of final results over seeds.

    python bench/agreement.py OURS BASELINE [--out bench/agreement.json]

OURS: folder of train.py's runs, with features measured (analyze.py features). BASELINE: folder of baseline.py's files.
Training is chaotic, so that networks of the same seeds part and only distributions can be compared. For every PLR and
every final quantity (train loss, test accuracy, balanced accuracy by the best single feature) two tests: Wilcoxon's
signed-rank test of the differences between networks of the same seeds, which sees shifts, and the two-sample
Kolmogorov-Smirnov test, which sees other shapes. The programs disagree where a p-value, times the number of tests
(Bonferroni), is below 5 %. The 95 % confidence interval of the mean difference says what size of shift would have gone
unnoticed.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import NOTHING_KEPT, say  # noqa: E402
from data.analysis.study import Study, features_of, final  # noqa: E402
from data.commandline import BadInput, Parser, run  # noqa: E402
from data.files import read_json, write_json  # noqa: E402

QUANTITIES = ("train loss", "test accuracy", "best single feature")
LEVEL = 0.05


def our_results(folder):
    """{(PLR, seed, data seed, steps): [train loss, test accuracy, best single feature]}"""
    loss, accuracy, features = final("train_loss"), final("test_accuracy"), features_of("checkpoint")
    results = {}
    for pretraining in Study(folder).runs:
        if pretraining.config["stage"] == "pretrain":
            for index, member in enumerate(pretraining.members):
                singles = features(pretraining, index)
                if singles is None:
                    raise BadInput(
                        f"{pretraining.path}: features are not measured; run analyze.py features {folder}"
                    )
                key = (f"{member['lrs'][0]:.6g}", member["seed"], member["data_seed"], pretraining.last_step)
                results[key] = [loss(pretraining, index), accuracy(pretraining, index), singles[0]]
    return results


def baseline_results(folder):
    results = {}
    for path in sorted(folder.glob("*.json")):
        found = read_json(path)
        if "balanced_accuracy" not in found:
            raise BadInput(
                f"{path}: has no balanced_accuracy, but a plain one; remove it and run baseline.py again"
            )
        key = (f"{found['lr']:.6g}", found["seed"], found["data_seed"], found["step"][-1])
        results[key] = [found["train"][-1][0], found["test"][-1][1], max(found["balanced_accuracy"])]
    return results


def compare(ours, baseline):
    """One dictionary per PLR and quantity; p-values are corrected for their number."""
    shared = sorted(ours.keys() & baseline.keys(), key=lambda key: (float(key[0]), key))
    if not shared:
        raise BadInput("the two folders hold no networks of the same learning rate, seeds and length")
    plrs = list(dict.fromkeys(plr for plr, *_ in shared))
    tests = 2 * len(plrs) * len(QUANTITIES)
    comparisons = []
    for plr in plrs:
        pairs = np.array([(ours[key], baseline[key]) for key in shared if key[0] == plr])
        for name, (first, second) in zip(QUANTITIES, pairs.transpose(2, 1, 0)):
            difference = first - second
            half_width = stats.sem(difference) * stats.t.ppf(0.975, len(difference) - 1)
            comparisons.append(
                {
                    "plr": float(plr),
                    "quantity": name,
                    "networks": len(first),
                    "ours": [first.mean(), first.std(ddof=1)],
                    "baseline": [second.mean(), second.std(ddof=1)],
                    "difference_95": [difference.mean() - half_width, difference.mean() + half_width],
                    "p_signed_rank": min(1.0, tests * signed_rank(difference)),
                    "p_kolmogorov_smirnov": min(1.0, tests * float(stats.ks_2samp(first, second).pvalue)),
                }
            )
    return comparisons


def signed_rank(difference):
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/agreement.py runs/synthetic/pretrain runs/baseline")
    parser.add_argument("ours", type=Path, help="folder of train.py's run folders")
    parser.add_argument("baseline", type=Path, help="folder of baseline.py's files")
    parser.add_argument("--out", type=Path, help="JSON file for the comparison")
    args = parser.parse_args()
    say(f"reading {args.ours} and {args.baseline}")
    comparisons = compare(our_results(args.ours), baseline_results(args.baseline))
    for c in comparisons:
        low, high = c["difference_95"]
        print(
            f"PLR {c['plr']:.4g}, {c['quantity']}, {c['networks']} networks: ours {c['ours'][0]:.4g} +- {c['ours'][1]:.2g}, "
            f"baseline {c['baseline'][0]:.4g} +- {c['baseline'][1]:.2g}, difference {low:.2g} to {high:.2g}, "
            f"p {c['p_signed_rank']:.2g} and {c['p_kolmogorov_smirnov']:.2g}"
        )
    agree = all(min(c["p_signed_rank"], c["p_kolmogorov_smirnov"]) >= LEVEL for c in comparisons)
    print("the programs agree" if agree else f"the programs DISAGREE at the level of {100 * LEVEL:.0f} %")
    if args.out:
        write_json(args.out, {"agree": agree, "level": LEVEL, "comparisons": comparisons})


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
