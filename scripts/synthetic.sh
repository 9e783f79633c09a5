#!/usr/bin/env bash
# The synthetic study at the paper's scale: 5 data seeds x 10 training seeds x 23 learning rates, pre-training,
# fine-tuning, SWA, single-feature accuracies, geometry, figures 4, 5 and 15 to 17, and the paper's claims held against
# them. The same command resumes it where it was killed.
#
#   bash scripts/synthetic.sh [OUT] [--flr FLR...]
#
# OUT: folder for everything it writes (default: runs/synthetic). --flr: learning rates of fine-tuning; `low` and `high`
# are the two of figures 16 and 17 (default: the paper's eleven).
# Environment: JOBS, processes at once, with one thread each (default: all cores; 10 are of use). SEEDS, training seeds
# (default: 1 to 10). SEEDS_PER_FOLDER (default: 1, whose 115 networks fit a core's cache; on a GPU take 10 and JOBS=1).
# PRETRAIN_STEPS (at least 50) and FINETUNE_STEPS, to look at shorter training (default: the paper's 40000 and 20000).
# TRAIN_FLAGS (default: --compile).
set -euo pipefail
out=$(realpath -sm "$(dirname "$0")/../runs/synthetic")
if [ $# -gt 0 ] && [ "$1" != --flr ]; then out=$(realpath -sm "$1"); shift; fi
flrs=@scripts/ticks_flrs.args
if [ $# -gt 0 ]; then
    [ "$1" = --flr ] && [ $# -gt 1 ] || { echo "usage: bash scripts/synthetic.sh [OUT] [--flr FLR...]" >&2; exit 2; }
    shift
    flrs="--lr $*"
    flrs=${flrs/ low/ 3.1622776601683795e-05} flrs=${flrs/ high/ 0.007498942093324558}
fi
source "$(dirname "$0")/setup.sh"
out=$(realpath -sm --relative-to . "$out")
pretrain_steps=${PRETRAIN_STEPS:-40000} finetune_steps=${FINETUNE_STEPS:-20000} train_flags=${TRAIN_FLAGS---compile}
swa_spacing=$((pretrain_steps >= 400 ? pretrain_steps / 400 : 1))  # the paper's 100 of 40000

# All stages of some folders, seed1 or seed1-2 by their training seeds: one process a stage saves the time to start.
study_folders() {
    local folder seeds
    for folder in "$@"; do
        seeds=${folder#seed}
        python train.py @scripts/ticks.args $train_flags --seed ${seeds//-/ } --data-seed 1 2 3 4 5 \
            --steps "$pretrain_steps" --keep $((pretrain_steps - 49 * swa_spacing)) --out "$out/pretrain/$folder"
    done
    python finetune.py "${@/#/$out/pretrain/}" $flrs --steps "$finetune_steps" --out "$out/finetune"
    python swa.py "${@/#/$out/pretrain/}" --windows 2 5 10 20 50 --spacing $swa_spacing --anchor end --out "$out/swa"
}
export -f study_folders
export out pretrain_steps finetune_steps train_flags swa_spacing flrs
folders=$(echo ${SEEDS:-1 2 3 4 5 6 7 8 9 10} | xargs -n "${SEEDS_PER_FOLDER:-1}" | sed 's/^/seed/; s/ /-/g')
count=$(wc -w <<< "$folders")
# Through cat, that is not on a terminal, they report by lines: the bars of several processes would write over each other.
xargs -n $(((count + JOBS - 1) / JOBS)) -P "$JOBS" bash -euc 'study_folders "$@"' - <<< "$folders" 2>&1 | cat
python analyze.py features "$out"
python analyze.py geometry "$out"
python analyze.py figures "$out" --out "$out/figures"
python analyze.py claims "$out" --json "$out/figures/claims.json"
