"""Claims about accuracies: the main message, the regimes, fine-tuning and SWA. Terms: see evidence.py."""

import functools

import numpy as np

from data.analysis.evidence import NotMeasurable, best, claim, exceeds, peaks_in, spearman, worse
from data.analysis.regimes import (
    converges,
    converging_plrs,
    late_part_of_earlier_loss,
    late_part_of_initial_loss,
    late_values,
)
from data.analysis.series import decades
from data.analysis.study import at_convergence, final, of_measurement

# ---------------------------------------------------------------------------------------------------- the main message


@claim(
    "M1",
    "abstract, section 4, figures 2 and 15",
    "fine-tuning and SWA are best in 2A (no other PLR exceeds it), and the better of them exceeds everything "
    "from other PLRs",
)
def best_solutions_come_from_2a(e):
    if e.refutes_2a:
        return False, {"PLRs that meet the criterion of 2A": 0}
    inside, tuned, averaged = e.regime("2A"), e.finetuned.values(), e.averaged.values()
    of_2a = {"fine-tuned": best(tuned, inside), "averaged": best(averaged, inside)}
    elsewhere = best([e.pretrained, *tuned, *averaged], e.elsewhere(inside))
    measured = {f"best {name} in 2A": found.mean for name, found in of_2a.items()}
    measured |= {"best elsewhere": elsewhere.mean, "at PLR": elsewhere.plr}
    most = max(of_2a.values(), key=lambda found: found.mean)
    peaks = peaks_in(e, inside, tuned) and peaks_in(e, inside, averaged)
    return peaks and exceeds(most.values, elsewhere.values), measured


# --------------------------------------------------------------------------------------------------------- the regimes


@claim(
    "R1",
    "section 3, figure 1",
    "in regime 1 runs converge (see 1|2) at all but the smallest PLRs, and test accuracy after pre-training "
    "grows with PLR (rank correlation >= 0.95) and varies by a std < 0.5 pp within the last tenth of a run "
    "(pooled over runs)",
)
def regime_1_converges(e):
    plrs = e.regime("1")
    converged = converging_plrs(e.study)  # none lies above regime 1, which ends at the last of them
    trend, noise = spearman(plrs, e.pretrained.means(plrs)), max(late_std(e, plrs))
    measured = {"converges from PLR": converged[0], "rank correlation": trend, "largest std": noise}
    return plrs[-len(converged) :] == converged and trend >= 0.95 and noise < 0.5, measured


def late_std(e, plrs):
    """Late-training standard deviations: of test accuracy within the last tenth of a run, in pp, pooled over runs."""
    return 100 * np.sqrt(e.values("pretrain", late_variance).means(plrs))


def late_variance(run, index):
    """The unbiased variance, as the last tenth may hold few logged steps."""
    accuracies = late_values(run.metrics, "test_accuracy", index)
    if len(accuracies) < 2:
        raise NotMeasurable("the last tenth of the runs holds one logged step: see --log-every")
    return accuracies.var(ddof=1)


@claim(
    "R2",
    "section 3, figure 1",
    "in regime 2 test accuracy over the last tenth falls with PLR (rank correlation <= -0.95) and varies by a "
    "std >= 2 pp within it at every PLR, and train loss keeps at least 95 % of its value from the tenth before",
)
def regime_2_stays_noisy(e):
    plrs = e.regime("2")
    trend = spearman(plrs, e.late_accuracy.means(plrs))
    noise = min(late_std(e, plrs))
    kept = min(e.values("pretrain", part_of_loss_that_stays).means(plrs))
    measured = {"rank correlation": trend, "smallest std": noise, "smallest part of the loss that stays": kept}
    return trend <= -0.95 and noise >= 2 and kept >= 0.95, measured


def part_of_loss_that_stays(run, index):
    part = late_part_of_earlier_loss(run.metrics, index)
    if part is None:
        raise NotMeasurable("the tenth before the last of the runs holds no logged step: see --log-every")
    return part


@claim(
    "R3",
    "section 3, figure 1",
    "in regime 3 test accuracy is within 1 pp of chance, train loss within a factor 2 of its initial value",
    kinds=["ticks", "scale-invariant"],
)
def regime_3_is_at_chance(e):
    plrs = e.regime("3")
    distance = max(abs(e.late_accuracy.means(plrs) - e.chance))
    kept = e.values("pretrain", lambda run, index: late_part_of_initial_loss(run.metrics, index)).means(plrs)
    measured = {"farthest from chance": distance, "loss / initial loss from": min(kept), "to": max(kept)}
    return distance <= 1 and 0.5 <= min(kept) and max(kept) <= 2, measured


@claim(
    "R5",
    "appendix, figure 11",
    "from the fastest learning rate up to 1|2 the logarithm of epochs to convergence rises, in its upper half "
    "more steeply than in its lower; accuracy at convergence grows (rank correlation >= 0.9), below the best "
    "of 2A",
)
def convergence_slows_down(e):
    epochs = e.values("converge", at_convergence("step"))
    if not epochs:
        raise NotMeasurable("no runs that train until they converge: scripts/boundary.sh")
    lrs = list(epochs)
    fastest = lrs[int(np.argmin(epochs.means(lrs)))]  # smaller learning rates are slow for another reason
    slower = [lr for lr in lrs if lr >= fastest]
    if len(slower) < 4:
        raise NotMeasurable("four or more learning rates are needed from the fastest one up to the boundary")
    logs, middle = np.log(epochs.means(slower)), len(slower) // 2
    first, last = (np.polyfit(slower[part], logs[part], 1)[0] for part in (slice(middle + 1), slice(middle, None)))
    accuracy = e.percent("converge", at_convergence("test_accuracy"))
    growth, top = spearman(lrs, accuracy.means(lrs)), best([accuracy], lrs)
    tuned = best(e.finetuned.values(), e.regime("2A"))
    measured = {"fewest epochs": np.exp(logs[0]), "at the largest rate": np.exp(logs[-1])}
    measured |= {"slope of log epochs in the lower half": first, "in the upper": last}
    measured |= {
        "rank correlation of accuracy": growth,
        "its best": top.mean,
        "best fine-tuned from 2A": tuned.mean,
    }
    return last > first > 0 and growth >= 0.9 and tuned.mean > top.mean, measured


# --------------------------------------------------------------------------------------------------------- fine-tuning


@claim(
    "F1",
    "section 4, figures 2, 3, 15 and 16",
    "FLRs <= PLR change the test accuracy of converged runs of regime 1 by <= 0.5 pp, and the lowest FLR turns "
    "their weights by <= 0.1 rad (means at every PLR)",
)
def smaller_flrs_change_nothing(e):
    e.need_convergence()
    changes = {}
    for flr in e.flrs:
        by_plr = e.percent("finetune", change_of_converged(e.study), flr)
        changes |= {(plr, flr): np.mean(by_plr[plr]) for plr in e.regime("1") if flr <= plr and plr in by_plr}
    if not changes:
        raise NotMeasurable("no FLR lies below a PLR of regime 1 with converged runs")
    largest = max(changes.values(), key=abs)
    turned = e.geometry("angle", "LP", counts=functools.partial(converges, e.study))
    angle = max(turned.means([plr for plr, flr in changes if flr == e.flrs[0]]))
    return abs(largest) <= 0.5 and angle <= 0.1, {"largest change": largest, "largest angle(L, PT)": angle}


def change_of_converged(study):
    """A function (run, member index) -> the change of test accuracy by a fine-tuning; None of runs not converged."""
    accuracy = final("test_accuracy")

    def value(run, index):
        parent = study.parent(run)
        if parent is None or not converges(study, parent, index):
            return None
        return accuracy(run, index) - accuracy(parent, index)

    return value


@claim(
    "F2",
    "section 4, figures 2 and 15",
    "from the smallest PLR the highest FLR of regime 1 gains >= 2 pp, and two grid steps beyond the jump, the "
    "last PLR from which it gains half of its largest gain, no larger FLR of regime 1 changes 1 pp",
)
def much_larger_flrs_jump(e):
    gains, (below, above) = e.gains(), e.jump()
    changes = [change for plr in above[2:] for change in e.changes(plr, e.larger_flrs(plr))]
    if not changes:
        raise NotMeasurable("no FLR lies above a PLR that is two grid steps beyond the jump")
    smallest, largest = gains[min(gains)], max(changes, key=abs)
    measured = {"gain from the smallest PLR": smallest, "last PLR before the jump": below[-1]}
    measured["largest change two steps beyond"] = largest
    return smallest >= 2 and abs(largest) < 1, measured


@claim(
    "F3",
    "section 4, figures 2 and 15",
    "at every PLR of 2A all FLRs reach the same (within 1 pp or two standard errors, which defines 2A), the "
    "best of regime 1 exceeds none of them, and no fine-tuning from elsewhere exceeds the best from 2A",
)
def every_flr_is_as_good_in_2a(e):
    if e.refutes_2a:
        return False, {"PLRs that meet the criterion of 2A": 0}
    inside, curves = e.regime("2A"), [e.finetuned[flr] for flr in e.flrs]
    reached = [sorted((curve[plr] for curve in curves if plr in curve), key=np.mean) for plr in inside]
    ends = [(of_flrs[0], of_flrs[-1]) for of_flrs in reached if of_flrs]  # the worst and the best FLR of a PLR
    regime_1, everywhere = best([e.pretrained, *curves], e.regime("1")), best(curves, e.plrs)
    good = not any(worse(worst, top) or exceeds(regime_1.values, worst) for worst, top in ends)
    measured = {"largest range over FLRs": max(np.mean(top) - np.mean(worst) for worst, top in ends)}
    measured |= {"least in 2A": min(np.mean(worst) for worst, _ in ends), "best of regime 1": regime_1.mean}
    measured |= {"best fine-tuned": everywhere.mean, "at PLR": everywhere.plr}
    return good and peaks_in(e, inside, curves), measured


@claim(
    "F4",
    "section 4, figures 2 and 15",
    "in 2B accuracy (mean over FLRs) falls with PLR (rank correlation <= -0.9), and at its last PLR the FLRs "
    "are >= 5 pp apart, more than at its first, and none exceeds the highest",
)
def flrs_part_in_2b(e):
    plrs, flrs = e.regime("2B"), e.flrs
    reached = np.array([e.finetuned[flr].means(plrs) for flr in flrs])
    trend, ranges = spearman(plrs, reached.mean(axis=0)), np.ptp(reached, axis=0)
    top = best([e.finetuned[flr] for flr in flrs], plrs[-1:])
    measured = {"rank correlation": trend, "range at its start": ranges[0], "at its end": ranges[-1]}
    measured |= {"best there": top.mean, "highest FLR there": reached[-1, -1]}
    highest_is_best = not exceeds(top.values, e.finetuned[flrs[-1]][plrs[-1]])
    return trend <= -0.9 and ranges[-1] >= max(5, ranges[0]) and highest_is_best, measured


@claim(
    "F5",
    "section 4, figures 2 and 15",
    "from regime 3 (mean over its PLRs) the highest FLR reaches what training from scratch at it does within "
    "1.5 pp, the lowest more by over 1.5 pp, and every FLR less at its best than at its best from 2A",
)
def regime_3_is_like_scratch(e):
    plrs, low, high = e.regime("3"), e.flrs[0], e.flrs[-1]
    scratch_low, scratch_high = e.pretrained.means([low, high])
    above_low = np.mean(e.finetuned[low].means(plrs)) - scratch_low
    above_high = np.mean(e.finetuned[high].means(plrs)) - scratch_high
    below_2a = min(max(curve.means(e.regime("2A"))) - max(curve.means(plrs)) for curve in e.finetuned.values())
    measured = {"lowest FLR - scratch": above_low, "highest FLR - scratch": above_high}
    measured["least lead of 2A at an FLR"] = below_2a
    return abs(above_high) <= 1.5 and above_low > 1.5 and below_2a > 0, measured


@claim(
    "F6",
    "appendix, figure 12",
    "going on from 2B at a PLR of 2A reaches what 2A does within 1 pp, both at least as much as scratch; 2B "
    "alone reaches less, with the highest FLR less than scratch",
)
def two_stages_restore_quality(e):
    two_stages = e.study.two_stage_lrs()
    by_2a = [lrs for lrs in two_stages if lrs[0] in e.regime("2B") and lrs[1] in e.regime("2A")]
    if not by_2a:
        raise NotMeasurable("no fine-tunings of runs of 2B that went on at a PLR of 2A")
    holds, measured = True, {}
    for plr_2b, plr_2a, flr in by_2a:
        if flr not in e.finetuned:
            raise NotMeasurable(f"no run was fine-tuned at {flr:.3g} right after pre-training")
        [both] = e.percent("finetune", final("test_accuracy"), plr_2a, flr).means([plr_2b])
        [only_2b, only_2a] = e.finetuned[flr].means([plr_2b, plr_2a])
        scratch = 100 * np.mean(e.study.from_scratch(final("test_accuracy"), flr)[0] or np.nan)
        if np.isnan(scratch):
            raise NotMeasurable(f"no run was trained at {flr:.3g} from scratch")
        holds &= abs(both - only_2a) <= 1 and min(both, only_2a) >= scratch and only_2b < both
        if flr == e.flrs[-1]:
            holds &= only_2b < scratch
        reached = {"by 2A": both, "from 2A": only_2a, "from 2B": only_2b, "scratch": scratch}
        measured |= {f"{plr_2b:.3g}, {plr_2a:.3g}, {flr:.3g}: {name}": mean for name, mean in reached.items()}
    return bool(holds), measured


@claim(
    "F7",
    "appendix, figure 13",
    "the largest PLR of regime 3 spreads filter norms from less than 1 decade over >= 3; the lowest FLR keeps "
    "half of them or more, and after the highest they spread as after training from scratch at it, within 0.3",
)
def norms_spread_in_regime_3(e):
    plr, low, high = e.regime("3")[-1], e.flrs[0], e.flrs[-1]

    def decades_of(what, solution, *lrs):
        norms = e.study.at(of_measurement("norms", solution), lrs)
        if not norms:
            raise NotMeasurable(f"filter norms of {what} are not measured: analyze.py norms")
        return decades(np.concatenate(norms))

    initial, after = decades_of("the initial point", "initial", plr), decades_of("regime 3", "checkpoint", plr)
    of_low, of_high = (decades_of("fine-tuned runs", "checkpoint", plr, flr) for flr in (low, high))
    scratch = decades_of("training at the highest FLR", "checkpoint", high)
    measured = {"decades at first": initial, "after regime 3": after, "after the lowest FLR": of_low}
    measured |= {"after the highest FLR": of_high, "from scratch at it": scratch}
    return initial < 1 and after >= 3 and of_low >= after / 2 and abs(of_high - scratch) <= 0.3, measured


# ----------------------------------------------------------------------------------------------------------------- SWA


@claim(
    "W1",
    "section 4, figures 2 and 15",
    "in regime 1 SWA of any K changes test accuracy by <= 0.3 pp",
)
def averaging_changes_nothing_in_1(e):
    plrs = e.regime("1")
    changes = [e.averaged[window].means(plrs) - e.pretrained.means(plrs) for window in e.windows]
    largest = max(np.concatenate(changes), key=abs)
    return abs(largest) <= 0.3, {"largest change": largest}


@claim(
    "W2",
    "section 4, figures 2 and 15",
    "the best of SWA in 2A gains >= 2 pp on its pre-training and grows with K (rank correlation >= 0.9), no K "
    ">= 10 is worse than the best fine-tuning (by 1 pp and two standard errors), and both are best at "
    "neighbouring PLRs",
)
def averaging_helps_in_2a(e):
    plrs, windows = e.regime("2A"), e.windows
    averaged, tuned = [best([e.averaged[window]], plrs) for window in windows], best(e.finetuned.values(), plrs)
    largest = averaged[-1]
    gain = largest.mean - np.mean(e.pretrained[largest.plr])
    trend = spearman(windows, [of_window.mean for of_window in averaged])
    many = [of_window.values for window, of_window in zip(windows, averaged) if window >= 10]
    if not many:
        raise NotMeasurable("no SWA of 10 or more weights")
    matches = not any(worse(values, tuned.values) for values in many)
    places = [best(curves, e.plrs).plr for curves in ([e.averaged[windows[-1]]], e.finetuned.values())]
    apart = abs(e.plrs.index(places[0]) - e.plrs.index(places[1]))
    measured = {"gain": gain, "rank correlation with K": trend, "best averaged": largest.mean}
    measured |= {"best fine-tuned": tuned.mean, "grid steps between their PLRs": apart}
    return gain >= 2 and trend >= 0.9 and matches and apart <= 1, measured


@claim(
    "W3",
    "section 4, figures 2 and 15",
    "in 2B SWA of the largest K falls with PLR (rank correlation <= -0.9) and at the last PLR gains < 1 pp on "
    "the next smaller K; in regime 3 SWA is within 1 pp of chance",
)
def averaging_fails_in_2b(e):
    beyond, plrs, windows = e.regime("3"), e.regime("2B"), e.windows
    largest, next_smaller = (e.averaged[window].means(plrs) for window in (windows[-1], windows[-2]))
    trend, gain = spearman(plrs, largest), largest[-1] - next_smaller[-1]
    regime_3 = max(max(abs(e.averaged[window].means(beyond) - e.chance)) for window in windows)
    measured = {"rank correlation": trend, "gain of the largest K at its end": gain}
    measured["regime 3: farthest from chance"] = regime_3
    return trend <= -0.9 and gain < 1 and regime_3 <= 1, measured
