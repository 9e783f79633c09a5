#!/usr/bin/env bash
# The synthetic study for 10 of its 50 pairs of seeds, at full length: pre-training over the 23 learning rates,
# fine-tuning, SWA, single-feature accuracies, figures 4, 5 and 15. About 3 minutes on two cores; the same command
# resumes it.
#
#   bash scripts/demo.sh [OUT]          OUT: folder for everything it writes (default: runs/demo)
#
# Environment: JOBS, processes at once (default: all cores; 2 are of use); PRETRAIN_STEPS (at least 50) and
# FINETUNE_STEPS, to look at shorter training (default: the paper's 40000 and 20000).
set -euo pipefail
out=$(realpath -sm "${1:-$(dirname "$0")/../runs/demo}")
source "$(dirname "$0")/setup.sh"
out=$(realpath -sm --relative-to . "$out")
pretrain_steps=${PRETRAIN_STEPS:-40000} finetune_steps=${FINETUNE_STEPS:-20000}
swa_spacing=$((pretrain_steps >= 400 ? pretrain_steps / 400 : 1))  # the paper's 100 of 40000
flrs="3.1622776601683795e-05 1e-4 1e-3 7.498942093324558e-03"
windows="2 5 10 20 50"

# One folder a training seed, with the 23 learning rates of five data seeds: 115 members, which one core's cache holds.
study_seed() {
    python train.py @scripts/ticks.args --seed "$1" --data-seed 1 2 3 4 5 --steps "$pretrain_steps" \
        --keep $((pretrain_steps - 49 * swa_spacing)) --out "$out/pretrain/seed$1"
    python finetune.py "$out/pretrain/seed$1" --lr $flrs --steps "$finetune_steps" --out "$out/finetune"
    python swa.py "$out/pretrain/seed$1" --windows $windows --spacing $swa_spacing --anchor end --out "$out/swa"
}
export -f study_seed
export out pretrain_steps finetune_steps swa_spacing flrs windows
echo "training 230 networks (about 3 minutes on two cores)"
# Through cat, that is not on a terminal, they report by lines: the bars of two processes would write over each other.
printf '%s\n' 1 2 | xargs -P "$JOBS" -I SEED bash -euc 'study_seed SEED' 2>&1 | cat
python analyze.py features "$out"
python analyze.py figures "$out" --out "$out/figures"
cat <<END

What to expect (section 5 of the paper) in $out/figures:
  figure04  one of the 16 features of the synthetic data
  figure15  three regimes, with both dashed lines drawn. Left of the first, pre-training converges and test accuracy
            rises with the learning rate. Just right of it, in 2A, pre-training alone is worse, yet fine-tuning reaches
            as much as the best of regime 1 or more; farther right small FLRs and averaging get worse and worse.
            The largest FLR lifts the smallest PLRs too, as they lose their minimum at it; its bands are wide.
  figure05  in 2A one feature stands out from the other fifteen, more so after fine-tuning; in regimes 1 and 3 none does.
END
