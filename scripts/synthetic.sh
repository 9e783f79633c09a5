#!/usr/bin/env bash
# The synthetic study at the paper's scale: 5 data seeds x 10 training seeds x 23 learning rates, pre-training,
# fine-tuning, SWA, single-feature accuracies, geometry, figures 4, 5 and 15 to 17, and the paper's claims held against
# them. The same command resumes it where it was killed.
#
#   bash scripts/synthetic.sh [OUT] [--flr FLR FLR...]
#
# OUT: folder for everything it writes (default: runs/synthetic). --flr: learning rates of fine-tuning; `low` and `high`
# are the two of figures 16 and 17 (default: the paper's eleven).
# Environment: JOBS, processes at once, with one thread each (default: all cores; take 1 on a GPU). SEEDS, training
# seeds (default: 1 to 10). PRETRAIN_STEPS (at least 50) and FINETUNE_STEPS, for shorter training (default: the paper's
# 40000 and 20000 iterations). TRAIN_FLAGS, more arguments for train.py (default: --compile).
# The seeds are dealt out to JOBS run folders (listed in OUT/folders), and more of them to more folders later. Where a
# command fails in a folder, the other folders' training is finished, and the script exits 123.
set -euo pipefail
usage() { echo "usage: bash scripts/synthetic.sh [OUT] [--flr FLR FLR...] (see its first lines)" >&2; exit 2; }
out=$(realpath -sm "$(dirname "$0")/../runs/synthetic")
if [ $# -gt 0 ] && [[ $1 != -* ]]; then out=$(realpath -sm "$1"); shift; fi
flrs=@scripts/ticks_flrs.args
if [ $# -gt 0 ]; then
    [ "$1" = --flr ] && [ $# -gt 2 ] || usage
    flrs=--lr
    for flr in "${@:2}"; do
        case $flr in low) flr=3.1622776601683795e-05 ;; high) flr=0.007498942093324558 ;; esac
        [[ $flr =~ ^[0-9.]+(e[-+]?[0-9]+)?$ ]] || usage
        flrs+=" $flr"
    done
fi
source "$(dirname "$0")/setup.sh"
out=$(realpath -sm --relative-to . "$out")
pretrain_steps=${PRETRAIN_STEPS:-40000} finetune_steps=${FINETUNE_STEPS:-20000} train_flags=${TRAIN_FLAGS---compile}
swa_spacing=$((pretrain_steps >= 400 ? pretrain_steps / 400 : 1))  # in iterations; the paper's 100 of 40000

# All stages of a folder, seed1-2-3 by its training seeds.
study_folder() {
    local seeds=${1#seed}
    python train.py @scripts/ticks.args $train_flags --seed ${seeds//-/ } --data-seed 1 2 3 4 5 --steps "$pretrain_steps" \
        --keep $((pretrain_steps - 49 * swa_spacing)) --out "$out/pretrain/$1"
    python finetune.py "$out/pretrain/$1" $flrs --steps "$finetune_steps" --out "$out/finetune"
    python swa.py "$out/pretrain/$1" --windows 2 5 10 20 50 --spacing $swa_spacing --anchor end --out "$out/swa"
}
export -f study_folder
export out pretrain_steps finetune_steps train_flags swa_spacing flrs

# Seeds are dealt out once: with other JOBS or more SEEDS, what is there stays as it is, and new seeds get new folders.
mkdir -p "$out"
touch "$out/folders"
new_seeds=$(comm -13 <(grep -o '[0-9]*' "$out/folders" | sort) <(tr -s ' ' '\n' <<< "${SEEDS:-1 2 3 4 5 6 7 8 9 10}" | sort) | sort -n)
if [ -n "$new_seeds" ]; then
    per_folder=$((($(wc -l <<< "$new_seeds") + JOBS - 1) / JOBS))
    { cat "$out/folders"; xargs -n $per_folder <<< "$new_seeds" | sed 's/^/seed/; s/ /-/g'; } > "$out/folders.new"
    mv "$out/folders.new" "$out/folders"
fi
# Through cat, that is not on a terminal, processes report by lines: their bars would write over each other.
xargs -n 1 -P "$JOBS" bash -euc 'study_folder "$1"' - < "$out/folders" 2>&1 | cat
export OMP_NUM_THREADS=$JOBS
python analyze.py features "$out"
python analyze.py geometry "$out"
python analyze.py figures "$out" --out "$out/figures"
python analyze.py claims "$out" --json "$out/claims.json"
