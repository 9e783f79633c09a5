#!/usr/bin/env bash
# A sweep of the SI ConvNet on CIFAR-10, narrow and short enough for two cores: figures 1 and 2 at reduced scale.
# About an hour and a half. The same command resumes it.
#
#   bash scripts/cifar10_narrow.sh DATA OUT
#
# DATA: a prepared set of 256 training images per class, so that batches of 64 fill an epoch exactly, for example
#   python -m data folder --source DIR --train-per-class 256 --test-per-class 500 --out datasets/cifar10-small.pt
# OUT: folder for the run folders.
# Environment: JOBS, processes at once, with one thread each (default: all cores); PLRS, FLRS, EPOCHS,
# FINETUNE_EPOCHS, for another sweep (defaults: see below); TRAIN_FLAGS, more arguments for train.py.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: bash scripts/cifar10_narrow.sh DATA OUT" >&2; exit 2; }
data=$(realpath -sm --relative-to "$(dirname "$0")/.." "$1")
out=$(realpath -sm --relative-to "$(dirname "$0")/.." "$2")
source "$(dirname "$0")/setup.sh"

read -ra plrs <<< "${PLRS:-1e-4 2e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2 1e-1}"
# Through cat, that is not on a terminal, processes report by lines: their bars would write over each other.
side_by_side() { xargs -P "$JOBS" -L 1 "$@" 2>&1 | cat; }

# Every learning rate has its own seed, and so its own initial point and classifier, as in the paper.
for i in "${!plrs[@]}"; do
    echo "--lr ${plrs[i]} --seed $((2000 + i)) --out $out/pretrain/plr${plrs[i]}"
done | side_by_side python train.py --data "$data" --model si-convnet --width 8 --batch-size 64 --steps "${EPOCHS:-120}" --log-every 2 ${TRAIN_FLAGS:-}

# The largest of the FLRs is the last PLR that converged here (b12), as in the paper.
for plr in "${plrs[@]}"; do
    echo "swa.py $out/pretrain/plr$plr --windows 2 5 10 --out $out/swa"
    echo "finetune.py $out/pretrain/plr$plr --lr ${FLRS:-1e-4 5e-4 1.4e-3} --steps ${FINETUNE_EPOCHS:-60} --log-every 10 --out $out/finetune"
done | side_by_side python
