"""Claims about the accuracies after fine-tuning and SWA. Terms: see criteria.py."""

import functools

from data.analysis.criteria import (
    ON_IMAGES,
    NotMeasurable,
    Part,
    above,
    at_least,
    at_most,
    below,
    best_plr,
    claim,
    each,
    lead,
    leads_over_average,
    part,
    peaks_in,
    sample_mean,
    samples,
    told,
    trend,
    within,
)
from data.analysis.intervals import FALLING
from data.analysis.regimes import (
    converges,
)
from data.analysis.series import decades
from data.analysis.study import final, of_average, of_measurement

# --------------------------------------------------------------------------------------------------------- fine-tuning


@claim(
    "F1",
    "section 4, figures 2, 3, 15 and 16",
    "FLRs <= PLR change the test accuracy of converged runs of regime 1 by at most 0.5 pp, and the lowest FLR turns their "
    "weights by at most 0.1 rad (at every PLR), while it gains more than that 0.5 pp from every PLR of regime 2; refuted by "
    "a larger change or angle at one, or a smaller gain",
)
def smaller_flrs_change_nothing(e):
    e.need_convergence()
    changes = {}
    for flr in e.flrs:
        of_flr = e.finetuning_change(flr, converged=True)
        changes |= {(plr, flr): of_flr[plr] for plr in e.regime("1") if flr <= plr and plr in of_flr}
    if not changes:
        raise NotMeasurable("no FLR lies below a PLR of regime 1 with converged runs")
    gains = e.finetuning_change(e.flrs[0]).at(e.regime("2"))
    turned = e.geometry("angle", "LP", counts=functools.partial(converges, e.study))
    angles = turned.at([plr for plr, flr in changes if flr == e.flrs[0]])
    return [
        each("largest change", within(0.5), [[(1, change)] for change in changes.values()]),
        each("largest angle(L, PT)", at_most(0.1), [[(1, angle)] for angle in angles]),
        each("smallest gain from regime 2", above(0.5), [[(1, gain)] for gain in gains]),
    ]


@claim(
    "F2",
    "section 4, figures 2 and 15",
    "from the smallest PLR the highest FLR of regime 1 gains at least 2 pp, and from two grid steps beyond the jump (the "
    "last PLR from which it gains half of its largest gain) on no larger FLR of regime 1 changes more than a quarter of "
    "the largest gain, while it gains at least that at every PLR up to the jump; refuted by a smaller gain, or a larger "
    "change beyond",
)
def much_larger_flrs_jump(e):
    gains, (before, beyond) = e.gains, e.jump()
    largest = max(gains.values(), key=sample_mean)
    changes = [e.finetuning_change(flr).at([plr])[0] for plr in beyond[1:] for flr in e.larger_flrs(plr)]
    if not changes:
        raise NotMeasurable("no FLR lies above a PLR that is two grid steps beyond the jump")
    up_to_it = [[(1, gains[plr]), (-1 / 4, largest)] for plr in before]
    excesses = [[(sign, change), (-1 / 4, largest)] for change in changes for sign in (1, -1)]
    return [
        part("gain from the smallest PLR", at_least(2), (1, gains[min(gains)])),
        each("smallest gain up to the jump, less a quarter of the largest", at_least(0), up_to_it),
        told("last PLR before the jump", before[-1]),
        told("largest gain", largest.mean),
        each("largest change two steps beyond, less a quarter of it", at_most(0), excesses),
    ]


@claim(
    "F3",
    "section 4, figures 2 and 15",
    "at the middle PLR of 2A no FLR leads to less than the best of regime 1 (1 pp of slack), at all of 2A every FLR leads to "
    "more than on average from regime 1, and the best fine-tuning from 2A exceeds all of regime 1, and is not below any from "
    "elsewhere (1 pp of slack); that all FLRs of 2A reach the same is its definition; refuted by an FLR that leads to less, "
    "by a regime 1 that is at least as good, by a fine-tuning from elsewhere that exceeds 2A by 1 pp, or by no 2A",
)
def every_flr_is_as_good_in_2a(e):
    if e.without_2a:
        return [Part("PLRs that meet the criterion of 2A", e.without_2a, 0)]
    inside, curves, middle = e.regime("2A"), [e.finetuned[flr] for flr in e.flrs], e.middle_of_2a
    of_middle, of_2a = samples(curves, [middle]), samples(curves, inside)
    regime_1 = samples([e.pretrained, *curves], e.regime("1"))
    pairs = [[(1, sample), (-1, other)] for sample in of_middle for other in regime_1]
    above_average = leads_over_average(curves, inside, e.regime("1"))
    return [
        told("best of regime 1", max(regime_1, key=sample_mean).mean),
        each("lead over it of the worst FLR in the middle of 2A", at_least(-1), pairs),
        each("least lead in 2A over the average of regime 1", above(0), above_average),
        lead("lead over it of the best of 2A", of_2a, regime_1),
        lead("lead over the best elsewhere", of_2a, samples(curves, e.elsewhere(inside)), margin=-1),
    ]


@claim(
    "F4",
    "section 4, figures 2 and 15",
    "from the last PLR of 2A on through 2B the accuracy at the lowest FLR falls with PLR (ranks, by permutation), and is "
    "lower in the end; there the highest FLR is ahead of it, and more than at the end of 2A; refuted where one of these is "
    "the other way round",
)
def flrs_part_in_2b(e):
    plrs, lowest, highest = e.regime("2A")[-1:] + e.regime("2B"), e.finetuned[e.flrs[0]], e.finetuned[e.flrs[-1]]
    (low_before, low), (high_before, high) = (curve.at([plrs[0], plrs[-1]]) for curve in (lowest, highest))
    return [
        trend("rank correlation at the lowest FLR", plrs, lowest.means(plrs), FALLING),
        part("fall at the lowest FLR", above(0), (1, low_before), (-1, low)),
        part("lead of the highest at its end", above(0), (1, high), (-1, low)),
        part("growth of the lead", above(0), (1, high), (-1, low), (-1, high_before), (1, low_before)),
    ]


@claim(
    "F5",
    "section 4, figures 2 and 15",
    "every FLR leads from all of 2A to more than from all of regime 3; for networks on images, from regime 3 "
    "(mean over its PLRs) the highest FLR reaches what training from scratch at it does within 1.5 pp, the lowest more by "
    "over 1.5 pp; refuted where one of these is not so",
)
def regime_3_is_like_scratch(e):
    plrs, inside, low, high = e.regime("3"), e.regime("2A"), e.flrs[0], e.flrs[-1]
    pairs = [
        [(1, sample), (-1, other)]
        for curve in e.finetuned.values()
        for sample in curve.at(inside)
        for other in curve.at(plrs)
    ]
    parts = [each("least lead of 2A at an FLR", above(0), pairs)]
    if e.study.network["task"] == "images":
        for name, flr, bound in (("lowest", low, above(1.5)), ("highest", high, within(1.5))):
            tuned = [(1 / len(plrs), sample) for sample in e.finetuned[flr].at(plrs)]
            [scratch] = e.pretrained.at([flr])
            parts.append(part(f"{name} FLR - scratch", bound, *tuned, (-1, scratch)))
    return parts


@claim(
    "F6",
    "appendix, figure 12",
    "going on from 2B at a PLR of 2A reaches what 2A does within 1 pp, both at least as much as scratch; 2B alone reaches "
    "less than both stages, with the highest FLR less than scratch; refuted where one of these is not so",
)
def two_stages_restore_quality(e):
    two_stages = e.study.two_stage_lrs()
    by_2a = [lrs for lrs in two_stages if lrs[0] in e.regime("2B") and lrs[1] in e.regime("2A")]
    if not by_2a:
        raise NotMeasurable("no fine-tunings of runs of 2B that went on at a PLR of 2A")
    accuracy, parts = final("test_accuracy"), []
    for plr_2b, plr_2a, flr in by_2a:
        if flr not in e.finetuned:
            raise NotMeasurable(f"no run was fine-tuned at {flr:.3g} right after pre-training")
        both = e.at(accuracy, [plr_2b, plr_2a, flr])
        only_2b, only_2a = e.finetuned[flr].at([plr_2b, plr_2a])
        scratch = e.sample_of(e.study.from_scratch(e.with_group(accuracy), flr)[0])
        if both is None or scratch is None:
            raise NotMeasurable(f"no run was trained at {flr:.3g} from scratch")
        name = f"{plr_2b:.3g}, {plr_2a:.3g}, {flr:.3g}:"
        reached = {"by 2A": both, "from 2A": only_2a, "from 2B": only_2b, "scratch": scratch}
        parts += [told(f"{name} {which}", sample.mean) for which, sample in reached.items()]
        parts.append(part(f"{name} by 2A - from 2A", within(1), (1, both), (-1, only_2a)))
        not_below = [[(1, sample), (-1, scratch)] for sample in (both, only_2a)]
        parts.append(each(f"{name} least lead over scratch", at_least(0), not_below))
        parts.append(part(f"{name} by 2A - from 2B", above(0), (1, both), (-1, only_2b)))
        if flr == e.flrs[-1]:
            parts.append(part(f"{name} from 2B - scratch", below(0), (1, only_2b), (-1, scratch)))
    return parts


@claim(
    "F7",
    "appendix, figure 13",
    "the largest PLR of regime 3 spreads filter norms from less than 1 decade over at least 3, and after the lowest FLR "
    "they spread over at least twice the decades as after the highest and as after training from scratch at it; refuted "
    "where one of these is not so",
    kinds=ON_IMAGES,
)
def norms_spread_in_regime_3(e):
    plr, low, high = e.regime("3")[-1], e.flrs[0], e.flrs[-1]

    def decades_of(what, solution, *lrs):
        norms = of_measurement("norms", solution)

        def value(run, index):
            found = norms(run, index)
            return found and decades(found)

        found = e.sampled({plr: e.study.at(e.with_group(value), lrs)}).get(plr)
        if found is None and not e.study.at(lambda run, index: True, lrs):
            raise NotMeasurable(f"there are no runs of {what}: train.py and finetune.py make them")
        if found is None:
            raise NotMeasurable(f"filter norms of {what} are not measured: analyze.py norms")
        return found

    initial, after = decades_of("the initial point", "initial", plr), decades_of("regime 3", "checkpoint", plr)
    of_low, of_high = (decades_of("fine-tuned runs", "checkpoint", plr, flr) for flr in (low, high))
    scratch = decades_of("training at the highest FLR", "checkpoint", high)
    return [
        part("decades at first", below(1), (1, initial)),
        part("after regime 3", at_least(3), (1, after)),
        told("after the lowest FLR", of_low.mean),
        told("after the highest FLR", of_high.mean),
        told("from scratch at it", scratch.mean),
        part("lowest FLR - twice the highest", at_least(0), (1, of_low), (-2, of_high)),
        part("lowest FLR - twice scratch", at_least(0), (1, of_low), (-2, scratch)),
    ]


# ----------------------------------------------------------------------------------------------------------------- SWA


@claim(
    "W1",
    "section 4, figures 2 and 15",
    "SWA of any K changes the test accuracy of converged runs of regime 1 by at most 0.3 pp, while the largest K gains at "
    "least 2 pp at every PLR of 2A; refuted by a larger change at one PLR, or a smaller gain",
)
def averaging_changes_nothing_in_1(e):
    e.need_convergence()
    changes = [e.change("swa", of_average(window), converged=True) for window in e.windows]
    found = samples(changes, e.regime("1"))
    gains = e.change("swa", of_average(e.windows[-1])).at(e.regime("2A"))
    return [
        each("largest change", within(0.3), [[(1, change)] for change in found]),
        each("smallest gain in 2A", at_least(2), [[(1, gain)] for gain in gains]),
    ]


@claim(
    "W2",
    "section 4, figures 2 and 15",
    "SWA of K >= 10 peaks in 2A; its best there gains at least 2 pp on its pre-training, exceeds that of K = 2, and is not "
    "below any fine-tuning from 2A (1 pp of slack); refuted where one of these is not so",
)
def averaging_helps_in_2a(e):
    plrs, windows, tuned = e.regime("2A"), e.windows, samples(e.finetuned.values(), e.regime("2A"))
    many, fewest = samples(e.many, plrs), samples([e.averaged[windows[0]]], plrs)
    window, best = max(
        ((window, best_plr(e.averaged[window], plrs)) for window in windows if window >= 10),
        key=lambda found: e.averaged[found[0]][found[1]].mean,
    )
    gain = e.change("swa", of_average(window)).at([best])[0]
    return [
        told("best averaged", max(many, key=sample_mean).mean),
        told("best fine-tuned", max(tuned, key=sample_mean).mean),
        peaks_in(e, "lead of 2A", plrs, e.many),
        part("gain on pre-training", at_least(2), (1, gain)),
        lead(f"lead over K = {windows[0]}", many, fewest),
        lead("lead over fine-tuning", many, tuned, margin=-1),
    ]


@claim(
    "W3",
    "section 4, figures 2 and 15",
    "from the last PLR of 2A on through 2B SWA of the largest K falls with PLR (ranks, by permutation), and at the last "
    "one it gains less than 1 pp on the next smaller K; in regime 3 SWA is at chance: within 1 pp, or three binomial "
    "standard errors of the mean over runs if that is more; refuted by growth, by a larger gain, or by more than chance",
)
def averaging_fails_in_2b(e):
    beyond, plrs, windows = e.regime("3"), e.regime("2A")[-1:] + e.regime("2B"), e.windows
    largest, next_smaller = (e.averaged[window].at(plrs) for window in (windows[-1], windows[-2]))
    averaged = samples(e.averaged.values(), beyond)
    chance = [[(1, sample)] for sample in averaged]
    return [
        trend("rank correlation", plrs, [sample.mean for sample in largest], FALLING),
        part("gain of the largest K at its end", below(1), (1, largest[-1]), (-1, next_smaller[-1])),
        each("regime 3: accuracy farthest from chance", within(e.chance_margin(averaged), of=e.chance), chance),
    ]
