"""The claims of the paper as criteria that the runs of one experiment are held against.

    for verdict in judge(study): print(verdict_line(verdict))

Every claim stands beside its criterion and its source in one of the claims_*.py, in the order of the imports below and
of the definitions there.
"""

import numpy as np

from data.analysis import claims_accuracy, claims_solutions  # noqa: F401 (they declare the claims)
from data.analysis.evidence import CLAIMS, Evidence, NotMeasurable

HOLDS, FAILS, NOT_MEASURABLE = "holds", "does not hold", "not measurable"


def judge(study):
    """[{"claim", "verdict", "measured", "criterion", "source"}] for every claim, in order of definition.

    `measured` is a dictionary of numbers. Where a claim is not measurable, `missing` says why.
    """
    evidence = Evidence(study)
    return [judge_claim(claim, evidence) for claim in CLAIMS]


def judge_claim(claim, evidence):
    verdict = {"claim": claim.name, "verdict": NOT_MEASURABLE, "measured": {}}
    try:
        evidence.need(claim.kinds)
        holds, measured = claim.check(evidence)
        verdict |= {"verdict": HOLDS if holds else FAILS, "measured": {k: plain(v) for k, v in measured.items()}}
    except NotMeasurable as missing:
        verdict["missing"] = str(missing)
    return verdict | {"criterion": claim.criterion, "source": claim.source}


def plain(value):
    return float(f"{value:.6g}") if isinstance(value, (float, np.floating)) else value


def verdict_line(verdict):
    """One line: claim, verdict, what was measured (or is missing), and the criterion with its source."""
    numbers = [f"{name} {text(value)}" for name, value in verdict["measured"].items()]
    found = verdict.get("missing") or ", ".join(numbers)
    return f"{verdict['claim']} {verdict['verdict']}: {found} | criterion: {verdict['criterion']} ({verdict['source']})"


def text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
