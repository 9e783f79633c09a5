"""The band of useful learning rates that the runs of an experiment show: the numbers behind it, and what is said of it.

    numbers = band_numbers(study)
    print(*band_lines(numbers), sep="\\n")

The band is regime 2A, see boundaries.py. Solutions are chosen by the accuracy that runs report, of the test set or of held-out
images; the test accuracy of the chosen one is shown where it was measured (analyze.py test).
"""

import numpy as np

from data.analysis import boundaries
from data.analysis.choosing import relative
from data.analysis.explanations import TITLES, why_open
from data.analysis.regimes import (
    index_of_last,
    measure_regimes,
    meet_2a,
    run_numbers,
    why_unfinished,
)
from data.analysis.series import accuracy_numbers, mean_and_std, mean_and_std_of
from data.analysis.study import final, of_average
from data.analysis.study import late_mean as late_mean_of
from data.commandline import counted, lr_name
from data.images import TEST, reported_split

CHANCE, IN_1, SLOW = "3, at chance", "1, converges", "1, not there yet"
IN_2, IN_2A, IN_2B = "2, noisy", "2A, in the band", "2B, above the band"


def band_numbers(study):
    """What is known of the band: a dictionary for JSON; accuracies are in percent, means and standard deviations over runs.

    band: {"lower": {"last", "next"}, "upper": {...}}, the PLRs that each end lies between, or None where one is not
        bracketed; `open` says why then, by boundary.
    learning_rates: for every PLR its verdict and the numbers behind it.
    best: the solution of the highest mean accuracy from inside the band, if there are any; from anywhere, if that is better
        by more than counts as the same.
    epochs: `spent` in all runs, and `training`, those of one training in two stages.
    """
    places = measure_regimes(study)
    ends = {"lower": places["b12"], "upper": places["b2AB"]}
    missing = {TITLES[name]: why_open(study, name) for name, place in places.items() if place is None}
    learning_rates = [of_learning_rate(study, plr, verdict) for plr, verdict in verdicts(study).items()]
    inside = [row["plr"] for row in learning_rates if row["verdict"] == IN_2A]
    every, tolerance = solutions(study), 100 * run_numbers(study).tolerance
    best, anywhere = (
        best_of(study, [found for found in every if not plrs or found["plr"] in plrs]) for plrs in (inside, ())
    )
    if best and anywhere["mean"] - best["mean"] > tolerance:
        best = anywhere
    return accuracy_numbers(study) | {
        "split": reported_split(study.settings),
        "band": {name: {end: place[end] for end in ("last", "next")} for name, place in ends.items()}
        if all(ends.values())
        else None,
        "open": missing,
        "learning_rates": learning_rates,
        "late_loss": mean_and_std(study.by_plr("pretrain", late_mean_of("train_loss"), every_seed=True), scale=1),
        "best": best,
        "best_anywhere": anywhere,
        "tolerance": tolerance,
        "epochs": epochs(study),
    }


def verdicts(study):
    """{PLR: its regime in words, or why its runs do not tell}."""
    numbers, places = run_numbers(study), measure_regimes(study)
    sample, plrs = numbers.whole(), numbers.plrs
    [converging], [in_3] = (rule(numbers, sample) for rule in (boundaries.converging, boundaries.in_regime_3))
    [untold] = boundaries.undertrained(numbers, sample)
    in_2a = meet_2a(study, plrs, places["b12"], places["b23"])
    last = index_of_last(plrs, places["b2AB"]["last"]) if places["b2AB"] else len(plrs)
    end_of_1 = index_of_last(plrs, places["b12"]["last"]) if places["b12"] else -1
    found = {}
    for index, plr in enumerate(plrs):
        if converging[index]:
            found[plr] = IN_1
        elif index <= end_of_1:
            found[plr] = SLOW
        elif in_3[index]:
            found[plr] = CHANCE
        elif untold[index]:
            found[plr] = "not trained long enough to tell"
        elif plr in in_2a:
            found[plr] = IN_2A if in_2a[plr] else IN_2B
        else:
            found[plr] = IN_2B if index > last else IN_2
    return found


def of_learning_rate(study, plr, verdict):
    """The verdict on a PLR and the numbers behind it."""
    accuracy, converged = final("test_accuracy"), study.network["converged"]

    def of(value, stage="pretrain", *later, scale=100):
        return mean_and_std_of(
            study.by_plr(stage, value, *later, every_seed=stage == "pretrain").get(plr, []), scale
        )

    values = study.by_plr("pretrain", lambda run, index: (run, index), every_seed=True)[plr]
    return {
        "plr": plr,
        "verdict": verdict,
        "runs": len(values),
        "stopped": sorted({run.metrics["verdict"][index] for run, index in values if clear(run, index)}),
        "unfinished": sum(why_unfinished(run.metrics, index, converged) is not None for run, index in values),
        "trained": float(np.mean([run.last_step for run, _ in values])),
        "train_accuracy": of(late_mean_of("train_accuracy")),
        "train_loss": of(late_mean_of("train_loss"), scale=1),
        "accuracy": of(accuracy),
        "finetuned": [
            {"flr": flr} | of(accuracy, "finetune", flr) for flr in study.flrs() if has(study, plr, flr)
        ],
    }


def clear(run, index):
    """Whether a member's run stopped early, its regime being decided."""
    return run.last_step < run.settings["steps"] and bool(run.metrics.get("verdict", [None])[index:][0])


def has(study, plr, flr):
    return plr in study.by_plr("finetune", final("test_accuracy"), flr)


def solutions(study):
    """The mean accuracies of all settings: of pre-training in regime 1, of fine-tuning and of SWA."""
    accuracy, places = final("test_accuracy"), measure_regimes(study)
    end_of_1 = places["b12"]["last"] if places["b12"] else 0
    found = [
        {"stage": "pretrain", "plr": plr} | mean_and_std_of(values)
        for plr, values in study.by_plr("pretrain", accuracy).items()
        if plr <= end_of_1
    ]
    for flr in study.flrs():
        for plr, values in study.by_plr("finetune", accuracy, flr).items():
            found.append({"stage": "finetune", "plr": plr, "flr": flr} | mean_and_std_of(values))
    for window in study.windows():
        for plr, values in study.by_plr("swa", of_average(window)).items():
            found.append({"stage": "swa", "plr": plr, "window": window} | mean_and_std_of(values))
    return found


def best_of(study, found):
    """The setting of the highest mean accuracy, with the folders of its runs and what its test accuracy is; None of none."""
    finite = [one for one in found if np.isfinite(one["mean"])]
    if not finite:
        return None
    best = max(finite, key=lambda one: one["mean"])
    later = [best["flr"]] if "flr" in best else []
    members = study.by_plr(best["stage"], lambda run, index: (run, index), *later)[best["plr"]]
    of_runs = [test_accuracy_of(run, index, best.get("window")) for run, index in members]
    runs = list(dict.fromkeys(relative(run.path, study.folder) for run, _ in members))
    test = mean_and_std_of(of_runs) if None not in of_runs else None
    return best | {"runs": runs, "steps": members[0][0].settings["steps"], "test": test}


def test_accuracy_of(run, index, window=None):
    """The test accuracy of a member's solution: as measured by analyze.py test; None where it was not."""
    measured, name = run.measurement("test"), "checkpoint" if window is None else f"swa-{window}"
    if measured is None or name not in measured["solution"]:
        return None
    return measured["accuracy"][measured["solution"].index(name)][index]


def epochs(study):
    """How long all runs have trained together, those of one training in two stages, and how many times that is."""
    stages = {
        stage: max((run.settings["steps"] for run in study.of_stage(stage)), default=0)
        for stage in ("pretrain", "finetune")
    }
    spent, training = sum(run.last_step * len(run.members) for run in study.runs), sum(stages.values())
    return {"spent": spent, "training": training, "trainings": spent / training, "stages": stages}


# ---------------------------------------------------------------------------------------------------------------- text


def band_lines(numbers):
    """What is said of the band."""
    unit, split = numbers["unit"], numbers["split"]
    lines = [learning_rate_line(row, numbers) for row in numbers["learning_rates"]]
    lines += [f"boundary {title}: {why}" for title, why in numbers["open"].items()]
    band = numbers["band"]
    if band:
        lower, upper = band["lower"], band["upper"]
        lines.append(
            f"band: PLR {lr_name(lower['next'])} to {lr_name(upper['last'])}; it begins between {lr_name(lower['last'])} and "
            f"{lr_name(lower['next'])}, and ends between {lr_name(upper['last'])} and {lr_name(upper['next'])}"
            f"{shares_text(numbers['regimes'])}"
        )
    else:
        lines.append("band: not bracketed by these runs")
    best = numbers["best"]
    if best is None:
        lines.append("best: no solution is there to choose; fine-tune with finetune.py")
    else:
        lines.append(f"best{'' if band else ' of what is there'}: {solution_text(best, numbers)}")
        lines += other_lines(numbers)
        lengths = numbers["epochs"]["stages"]
        lines.append(f"recipe: {recipe(best, lengths, unit)}")
        lines.append(test_line(best, split))
    spent = numbers["epochs"]
    lines.append(
        f"spent: {spent['spent']:,} {unit}s in all runs, {spent['trainings']:.1f} times one training of "
        f"{spent['training']:,}"
    )
    return lines


def learning_rate_line(row, numbers):
    """PLR 2e-3: 2A, in the band: train accuracy 80.1 %, ..."""
    parts = [
        f"train accuracy {row['train_accuracy']['mean']:.4g} %, train loss {row['train_loss']['mean']:.3g}",
        f"{numbers['split']} accuracy {accuracy_text(row['accuracy'])}",
        *(f"fine-tuned at {lr_name(found['flr'])} {accuracy_text(found)}" for found in row["finetuned"]),
    ]
    stopped = (
        f", {' or '.join(row['stopped'])} at {row['trained']:.4g} {numbers['unit']}s" if row["stopped"] else ""
    )
    unfinished = f", {row['unfinished']} not finished" if row["unfinished"] else ""
    runs = counted(row["runs"], "run")
    return f"PLR {lr_name(row['plr'])}: {row['verdict']} ({runs}{stopped}{unfinished}): {'; '.join(parts)}"


def accuracy_text(found):
    """61.25 %, or 61.25 +- 0.31 % of several runs."""
    return f"{found['mean']:.2f}" + (f" ± {found['std']:.2f}" if found["std"] is not None else "") + " %"


def shares_text(regimes):
    """How often resamples of the runs agree on the two ends; nothing of single runs."""
    shares = [
        place["shares"].get(place["last"], 0) for place in (regimes["b12"], regimes["b2AB"]) if "shares" in place
    ]
    if not shares:
        return " (single runs)"
    low, high = (f"{100 * share:.0f} %" for share in shares)
    return f" (in {low} and {high} of {boundaries.RESAMPLES} resamples)"


def solution_text(best, numbers):
    how = {"pretrain": "pre-training alone"}.get(best["stage"], "")
    how = f"FLR {lr_name(best['flr'])}" if "flr" in best else how
    how = f"SWA of {best['window']} weights" if "window" in best else how
    return (
        f"PLR {lr_name(best['plr'])}, {how}: {numbers['split']} accuracy {accuracy_text(best)} "
        f"({counted(best['n'], 'run')}: {', '.join(best['runs'])})"
    )


def other_lines(numbers):
    """What lies outside the band and is better, and what inside of it is as good."""
    best, anywhere, tolerance = numbers["best"], numbers["best_anywhere"], numbers["tolerance"]
    lines = []
    if anywhere["mean"] > best["mean"]:
        lines.append(
            f"outside the band is more, but no more than counts as the same: {solution_text(anywhere, numbers)}"
        )
    elif (
        numbers["band"] and not numbers["band"]["lower"]["next"] <= best["plr"] <= numbers["band"]["upper"]["last"]
    ):
        lines.append("it is outside the band, and better than all in it by more than counts as the same")
    near = [
        row["plr"]
        for row in numbers["learning_rates"]
        if row["plr"] != best["plr"]
        and any(best["mean"] - found["mean"] <= tolerance for found in row["finetuned"])
    ]
    if near:
        lines.append(
            f"within {tolerance:.2g} pp of it, which counts as the same: PLR {', '.join(map(lr_name, near))}"
        )
    return lines


def recipe(best, lengths, unit):
    """How to train so, in words."""
    text = f"pre-train at PLR {lr_name(best['plr'])} for {lengths['pretrain']:,} {unit}s"
    if "flr" in best:
        return f"{text}, then fine-tune at FLR {lr_name(best['flr'])} for {best['steps']:,}"
    return f"{text}, then average {best['window']} weights at that rate (SWA)" if "window" in best else text


def test_line(best, split):
    if best["test"] is not None:
        chosen = "chosen by it, which flatters" if split == TEST else "chosen by other images"
        return f"test accuracy: {accuracy_text(best['test'])} ({chosen})"
    if split == TEST:
        return "test accuracy: that above, which it was chosen by, and which so is flattered"
    return f"test accuracy: not measured yet: python analyze.py test {' '.join(best['runs'])}"
