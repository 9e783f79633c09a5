"""Whether the options that make image networks faster change results: a small sweep with each, and their differences.

    python bench/image_agreement.py DATA RUNS [--out bench/image_agreement.json]

DATA: a prepared image set. RUNS: folder for the run folders; the same command resumes. The sweep is the SI ConvNet of
width 8 at PLRs of all three regimes, fine-tuned from each. It is run as is (fp32), with --precision bf16, with --compile,
and without channels_last; what the machine cannot run is skipped. Training is chaotic, so that runs of the same seeds part
and only distributions and what is concluded from them can be compared: boundaries between regimes, and Wilcoxon's
signed-rank test of the differences between final accuracies at the same learning rates and seed.
"""

import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.agreement import signed_rank  # noqa: E402
from bench.common import Script, machine, require_compiled, say, stopped  # noqa: E402
from bench.images import image_training, random_image_set  # noqa: E402
from data import augment  # noqa: E402
from data.analysis.regimes import measure_regimes  # noqa: E402
from data.analysis.study import Study, final  # noqa: E402
from data.commandline import BadInput, Parser, positive_int, run  # noqa: E402
from data.device import BF16, FP32, use_precision  # noqa: E402
from data.files import write_json  # noqa: E402

OPTIONS = {  # how the scripts are called, and arguments of train.py
    "fp32": ([], []),
    "bf16": ([], ["--precision", BF16]),
    "compile": ([], ["--compile"]),
    "without channels_last": (["bench/without.py", "channels-last"], []),
}
PLRS, FLRS = ["1e-3", "2e-3", "5e-3", "1e-2", "2e-2", "5e-2"], ["2e-4", "2e-3"]
PRETRAIN_EPOCHS, FINETUNE_EPOCHS = "60", "20"
NETWORK = ["--model", "si-convnet", "--width", "8", "--batch-size", "64", "--log-every", "2"]


def commands(option, data, folder, seeds):
    """The command lines of a sweep: those of the pre-trainings, and those of the fine-tunings, which follow."""
    through, flags = OPTIONS[option]
    pretrain, finetune = [], []
    for seed in range(1, seeds + 1):
        for plr in PLRS:
            out = f"{folder}/pretrain/plr{plr}-seed{seed}"
            what = ["--data", data, *NETWORK, "--lr", plr, "--seed", str(seed), "--steps", PRETRAIN_EPOCHS]
            further = ["--lr", *FLRS, "--steps", FINETUNE_EPOCHS, "--out", f"{folder}/finetune"]
            pretrain.append([*through, "train.py", *what, *flags, "--out", out])
            finetune.append([*through, "finetune.py", out, *further])
    return pretrain, finetune


def skipped_options():
    """Options that this machine cannot run: {option: reason}."""
    skipped = {}
    for option, (_, flags) in OPTIONS.items():
        try:
            use_precision(BF16 if BF16 in flags else FP32, torch.device("cpu"))
            if "--compile" in flags:
                network = SimpleNamespace(
                    model="si-convnet", width=8, shape={}, batch_size=64, augment=augment.NONE
                )
                image_set, cpu = random_image_set(64, 32, 10), torch.device("cpu")
                require_compiled(lambda: image_training([FP32, "compile"], network, image_set, cpu))
        except BadInput as reason:
            skipped[option] = str(reason)
            say(f"{option}: skipped: {reason}")
    return skipped


def carry_out(running, command):
    """Run a script, which is in the list `running` from its start on. Raises BadInput where it fails."""
    script = Script(command)
    running.append(script)
    script.wait()


def carry_out_all(name, commands, processes):
    """Run scripts, some side by side, and say how far they are."""
    running = []
    with ThreadPoolExecutor(processes) as pool, stopped(running):
        done = pool.map(functools.partial(carry_out, running), commands)
        for count, _ in enumerate(done, start=1):
            say(f"{name}: {count} of {len(commands)}")


def accuracies(study):
    """{(PLR, FLR or None, seed): final test accuracy in percent}"""
    found = {}
    for run_ in study.runs:
        [member] = run_.members
        plr, flr = [*member["lrs"], None][:2]
        found[plr, flr, member["seed"]] = 100 * final("test_accuracy")(run_, 0)
    return found


def compared(reference, other):
    """Differences of final test accuracies (percentage points) from the reference's: {stage: summary}."""
    summaries = {}
    for stage in ("pretrain", "finetune"):
        keys = sorted((k for k in reference if (k[1] is None) == (stage == "pretrain")), key=str)
        difference = np.array([other[key] - reference[key] for key in keys])
        by_lr = {}
        for key, value in zip(keys, difference):
            by_lr.setdefault(" ".join(f"{lr:g}" for lr in key[:2] if lr), []).append(value)
        summaries[stage] = {
            "runs": len(keys),
            "mean_difference": difference.mean(),
            "standard_error": difference.std(ddof=1) / np.sqrt(len(difference)),
            "p_signed_rank": signed_rank(difference),
            "differences_by_learning_rates": by_lr,
        }
    return summaries


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/image_agreement.py datasets/small.pt runs/agreement")
    parser.add_argument("data", help="prepared image set")
    parser.add_argument("runs", help="folder for the run folders")
    parser.add_argument("--seeds", type=positive_int, default=3, help="seeds 1, 2, ... of every learning rate")
    parser.add_argument("--processes", type=positive_int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument("--out", type=Path, help="JSON file for the comparison")
    args = parser.parse_args()
    skipped = skipped_options()
    folders = {option: f"{args.runs}/{option.replace(' ', '-')}" for option in OPTIONS if option not in skipped}
    for option, folder in folders.items():
        pretrain, finetune = commands(option, args.data, folder, args.seeds)
        carry_out_all(f"{option}, pre-trainings", pretrain, args.processes)
        carry_out_all(f"{option}, fine-tunings (of a pre-training each)", finetune, args.processes)

    studies = {option: Study(folder) for option, folder in folders.items()}
    reached = {option: accuracies(study) for option, study in studies.items()}
    measured = {
        option: {
            "boundaries": measure_regimes(study),
            "test_accuracy": {
                " ".join(f"{lr:g}" for lr in key if lr is not None): value
                for key, value in reached[option].items()
            },
            "compared_with_fp32": compared(reached["fp32"], reached[option]),
        }
        for option, study in studies.items()
    }
    for option, found in measured.items():
        print(f"{option}: boundaries {found['boundaries']}")
        for stage, summary in found["compared_with_fp32"].items():
            print(
                f"  {stage}, {summary['runs']} runs: {summary['mean_difference']:+.2f} +- {summary['standard_error']:.2f} pp "
                f"from fp32, p {summary['p_signed_rank']:.2g}"
            )
    if args.out:
        write_json(args.out, {"command": sys.argv[1:], **machine("cpu"), "skipped": skipped, "options": measured})


if __name__ == "__main__":
    run(main)
