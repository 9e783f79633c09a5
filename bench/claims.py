"""How often a claim is said to hold of shuffled learning rates: one that often does says little where it holds.

    python bench/claims.py [FOLDER...] [--shuffles 200] [--out FILE]

In every shuffle the pre-training learning rates of a study change places, each together with all that was measured of its
runs, while the boundaries between regimes stay where they are; so do those of the runs that train until they converge. By
default the studies are those written by hand in tests/ideal_studies.py, in which every claim holds.
"""

import copy
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from bench.common import NOTHING_KEPT, say  # noqa: E402
from data.analysis.claims import judge_claim  # noqa: E402
from data.analysis.criteria import CLAIMS  # noqa: E402
from data.analysis.evidence import Evidence  # noqa: E402
from data.analysis.intervals import HOLDS  # noqa: E402
from data.analysis.lengths import stage_of  # noqa: E402
from data.analysis.regimes import measure_regimes  # noqa: E402
from data.analysis.study import Study  # noqa: E402
from data.commandline import Parser, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402

TOO_LOOSE = 0.1  # the share of shuffles that a criterion may hold of


def shuffled(study, random):
    """The study with its first learning rates in another order; those of `converge` runs among themselves."""
    other = copy.copy(study)  # another object, as what is measured of a study is cached by it
    other.runs = [copy.copy(one) for one in study.runs]
    other._by_path = {one.path.resolve(): one for one in other.runs}
    for kind in (True, False):  # whether runs train until they converge
        runs = [one for one in other.runs if (stage_of(one) == "converge") == kind]
        lrs = sorted({member["lrs"][0] for one in runs for member in one.members})
        order = dict(zip(lrs, random.permutation(lrs).tolist()))
        for one in runs:
            one.members = [
                member | {"lrs": [order[member["lrs"][0]], *member["lrs"][1:]]} for member in one.members
            ]
    return other


def shares_that_hold(study, shuffles, random):
    """{claim: share of the shuffles of which it holds} for the claims that hold of the study as it is."""
    regimes = measure_regimes(study)
    claims = [claim for claim in CLAIMS if judge_claim(claim, Evidence(study))["verdict"] == HOLDS]
    counts = dict.fromkeys((claim.name for claim in claims), 0)
    for _ in range(shuffles):
        evidence = Evidence(shuffled(study, random), regimes=regimes)
        for claim in claims:
            counts[claim.name] += judge_claim(claim, evidence)["verdict"] == HOLDS
    return {name: count / shuffles for name, count in counts.items()}


def ideal_studies(folder):
    """Write the studies of the tests; their folders by name."""
    import ideal_studies as ideal

    folders = {name: Path(folder) / name for name in ("ticks", "scale-invariant", "convolutional", "transformer")}
    ideal.write_ideal(folders["ticks"])
    ideal.write_image_ideal(folders["scale-invariant"])
    for kind in ("convolutional", "transformer"):
        ideal.write_practical_ideal(folders[kind], kind)
    return folders


def parse_arguments(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("folder", nargs="*", type=Path, help="folders of the runs of one experiment each")
    parser.add_argument("--shuffles", type=positive_int, default=200, help="of every study")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the shares as JSON")
    return parser.parse_args(arguments)


def main():
    args, random = parse_arguments(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {str(folder): folder for folder in args.folder} or ideal_studies(temporary)
        shares = {}
        for name, folder in folders.items():
            say(f"{name}: {args.shuffles} shuffles")
            shares[name] = shares_that_hold(Study(folder), args.shuffles, random)
    for name, of_study in shares.items():
        for claim, share in of_study.items():
            print(f"{name:16s} {claim} {100 * share:.1f} %{'  too loose' if share > TOO_LOOSE else ''}")
    if args.out:
        write_json(args.out, {"shuffles": args.shuffles, "shares": shares})


if __name__ == "__main__":
    run(main, NOTHING_KEPT)
