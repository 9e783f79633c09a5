"""The claims of the paper as criteria that the runs of one experiment are held against.

    for verdict in judge(study): print(verdict_line(verdict))
    print(*summary(study, verdicts), sep="\n")      a line per claim that is about such networks

Every claim stands beside its criterion and its source in one of the claims_*.py, in the order of the imports below and
of the definitions there.
"""

import numpy as np

from data.analysis import (  # they declare the claims, in this order
    claims_accuracy,  # noqa: F401
    claims_finetuning,  # noqa: F401
    claims_geometry,  # noqa: F401
    claims_images,  # noqa: F401
)
from data.analysis.criteria import CLAIMS, KINDS, NotMeasurable
from data.analysis.evidence import Evidence
from data.analysis.explanations import why_open
from data.analysis.intervals import HOLDS, Interval, all_of
from data.analysis.regimes import measure_regimes

NOT_MEASURABLE = "not measurable"


def judge(study, std=None):
    """[{"claim", "verdict", "measured", "decisions", "criterion", "source"}] for every claim, in order of definition.

    std: the standard deviation of a run's test accuracy, in pp, where it is known otherwise than from repeats.
    `measured` is a dictionary of numbers, and of intervals {"estimate", "lower", "upper"}; `decisions` has what each of
    them says. Where a claim is not measurable, `missing` says why. `if_2A_ended_earlier` and `if_2A_ended_later` have
    the verdicts with b2AB one step of the grid away, where they differ.
    """
    evidence = Evidence(study, std)
    moved = {name: Evidence(study, std, regimes) for name, regimes in moved_ends_of_2a(evidence).items()}
    verdicts = []
    for claim in CLAIMS:
        verdict = judge_claim(claim, evidence)
        others = {name: judge_claim(claim, other)["verdict"] for name, other in moved.items()}
        verdicts.append(verdict | {name: other for name, other in others.items() if other != verdict["verdict"]})
    return verdicts


def moved_ends_of_2a(evidence):
    """{what to say of it: regimes} with b2AB one step of the grid away, where it then still lies within regime 2."""
    regimes, plrs, moved = evidence.regimes, evidence.plrs, {}
    if not regimes["b2AB"]:
        return moved
    last = plrs.index(regimes["b2AB"]["last"])
    end_of_2 = plrs.index(regimes["b23"]["last"]) if regimes["b23"] else len(plrs) - 1
    for name, index in (("if_2A_ended_earlier", last - 1), ("if_2A_ended_later", last + 1)):
        if regimes["b12"]["next"] <= plrs[index] and index < end_of_2:
            moved[name] = regimes | {"b2AB": {"last": plrs[index], "next": plrs[index + 1]}}
    return moved


def judge_claim(claim, evidence):
    verdict = {"claim": claim.name, "verdict": NOT_MEASURABLE, "measured": {}, "decisions": {}}
    try:
        evidence.need(claim.kinds)
        parts = claim.check(evidence)
        verdict["measured"] = {found.name: plain(found.value) for found in parts}
        verdict["decisions"] = {found.name: found.decision for found in parts if found.decision}
        verdict["verdict"] = all_of(verdict["decisions"].values())
    except NotMeasurable as missing:
        verdict["missing"] = str(missing)
    return verdict | {"criterion": claim.criterion, "source": claim.source}


def plain(value):
    """What JSON holds of a value: of an interval the ends that are finite, or null."""
    if isinstance(value, Interval):
        return {name: plain(number) for name, number in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(number) for name, number in value.items()}
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def summary(study, verdicts, verbose=False):
    """What judge() found, as lines: one for every claim about such networks, and one that names the claims about others.

    A line has the claim in short and what decides it; verbose: all that was measured, and the criterion.
    """
    lines, others = [], []
    for claim, verdict in zip(CLAIMS, verdicts):
        if study.network["kind"] not in claim.kinds:
            others.append(claim.name)
        else:
            lines.append(verdict_line(verdict) if verbose else short_line(claim, verdict, study))
    if not verbose:
        lines.insert(0, "accuracies in %, their differences in pp, angles in radians; estimate [95 % interval]")
    return lines + (
        [f"about other networks than {KINDS[study.network['kind']]}: {' '.join(others)}"] if others else []
    )


def short_line(claim, verdict, study):
    """One line: claim, verdict, the claim in short, and what is missing or the first part that decides."""
    found = briefly(verdict.get("missing"), study)
    if not found:
        decisive = [name for name, decision in verdict["decisions"].items() if decision == verdict["verdict"]]
        name = decisive[0]
        found = f"{name} {text(verdict['measured'][name])}" + (
            f" and {len(decisive) - 1} more" if decisive[1:] else ""
        )
    return f"{claim.name} {verdict['verdict']}: {claim.short}; {found}{if_2a_ended_elsewhere(verdict)}"


def briefly(missing, study):
    """What is missing without why boundaries are open, which boundary_lines() say once, above."""
    for name, place in measure_regimes(study).items() if missing else ():
        if place is None:
            missing = missing.replace(f"is {why_open(study, name)}", "is open, see above")
    return missing


def verdict_line(verdict):
    """One line: claim, verdict, what was measured (or is missing), and the criterion with its source."""
    numbers = []
    for name, value in verdict["measured"].items():
        decision = verdict["decisions"].get(name, HOLDS)
        numbers.append(f"{name} {text(value)}" + (f" ({decision})" if decision != HOLDS else ""))
    found = (verdict.get("missing") or ", ".join(numbers)) + if_2a_ended_elsewhere(verdict)
    return f"{verdict['claim']} {verdict['verdict']}: {found} | criterion: {verdict['criterion']} ({verdict['source']})"


def if_2a_ended_elsewhere(verdict):
    """What to say of verdicts that change where 2A ends a PLR earlier or later."""
    return "".join(
        f"; {verdict[name]} if 2A ended one PLR {what}"
        for name, what in (("if_2A_ended_earlier", "earlier"), ("if_2A_ended_later", "later"))
        if name in verdict
    )


def text(value):
    """A number with four digits, an interval as `estimate [lower, upper]`, which has no ends where nothing tells them."""
    if isinstance(value, dict) and "estimate" in value:
        ends = (value["lower"], value["upper"])
        return text(value["estimate"]) + (f" [{text(ends[0])}, {text(ends[1])}]" if None not in ends else " [?]")
    if isinstance(value, dict):
        return " ".join(
            text(number) if name == "correlation" else f"({name} {text(number)})" for name, number in value.items()
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)
