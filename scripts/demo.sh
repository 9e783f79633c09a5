#!/usr/bin/env bash
# The synthetic study for 10 of its 50 pairs of seeds, at full length, with four FLRs: figures 4, 5 and 15 to 17 and the
# paper's claims held against the runs. About 3 minutes on two cores; the same command resumes it.
#
#   bash scripts/demo.sh [OUT]          OUT: folder for everything it writes (default: runs/demo)
#
# Environment: JOBS, PRETRAIN_STEPS and FINETUNE_STEPS as for scripts/synthetic.sh, which does the work.
set -euo pipefail
out=$(realpath -sm "${1:-$(dirname "$0")/../runs/demo}")
echo "training 230 networks (about 3 minutes on two cores)"
# To compile the training step would take as long here as it saves.
SEEDS="1 2" TRAIN_FLAGS= bash "$(dirname "$0")/synthetic.sh" "$out" --flr low 1e-4 1e-3 high
cat <<END

What to look for (sections 4 and 5 of the paper) in $out/figures:
  figure04  one of the 16 features of the synthetic data
  figure15  three regimes, with both dashed lines drawn. Left of the first, pre-training converges and test accuracy
            rises with the learning rate. Just right of it, in 2A, pre-training alone is worse, yet fine-tuning reaches
            about as much as the best of regime 1; farther right small FLRs and averaging get worse and worse.
            The largest FLR lifts the smallest PLRs too, as they lose their minimum at it; its bands are wide.
  figure05  in 2A one feature stands out from the other fifteen, more so after fine-tuning; in regimes 1 and 3 none does.
  figure16  solutions from most of regime 1 are close together with no barrier between them; barriers appear just
            right of the first dashed line and grow with the learning rate, as angles do.
  figure17  as figure 5, for all stages, with one standard deviation over the ten runs
END
python - "$out" <<'END'
import json, sys

folder = sys.argv[1]
numbers, found = (json.load(open(f"{folder}/{name}.json")) for name in ("figures/figure15", "claims"))
runs, regimes = max(numbers["pretrain"]["n"]), numbers["regimes"]
b12, b2ab, b23 = (regimes[name]["last"] if regimes[name] else None for name in ("b12", "b2AB", "b23"))


def regime(plr):
    if b12 is None or plr <= b12:
        return "1" if b12 else "all PLRs"
    if b23 is not None and plr > b23:
        return "3"
    return "2" if b2ab is None else "2A" if plr <= b2ab else "2B"


print(f"\nMeasured here: best mean test accuracy of {runs} runs, in percent")
stages = {"pre-training": [numbers["pretrain"]], "fine-tuning": numbers["finetune"], "SWA": numbers["swa"]}
for name in dict.fromkeys(map(regime, numbers["pretrain"]["plr"])):
    means = {
        stage: [mean for curve in curves for plr, mean in zip(curve["plr"], curve["mean"]) if regime(plr) == name]
        for stage, curves in stages.items()
    }
    best = ", ".join(f"{stage} {max(of_stage):.1f}" for stage, of_stage in means.items() if of_stage)
    print(f"  {'regime ' if name[0].isdigit() else ''}{name}: {best}")

verdicts = [verdict for verdict in found["claims"] if verdict["verdict"] != "not measurable"]
by_verdict = {
    what: [verdict["claim"] for verdict in verdicts if verdict["verdict"] == what]
    for what in ("holds", "refuted", "undecided")
}
decisions = [decision for verdict in verdicts for decision in verdict["decisions"].values()]
decided, agree = len(decisions) - decisions.count("undecided"), decisions.count("holds")
listed = "; ".join(f"{what}: {' '.join(names) or 'none'}" for what, names in by_verdict.items())
print(f"Claims of the paper that such runs can speak of (data/analysis/README.md lists all of them): {listed}.")
print(
    f"These consist of {len(decisions)} comparisons. {runs} runs decide {decided} of them, {agree} as the paper has it. The"
    " others need more runs, as their\nintervals are wider than what is measured: undecided is not refuted."
    " `bash scripts/synthetic.sh` trains all 50 pairs of seeds."
)
END
