#!/usr/bin/env bash
# What a sweep would train and measure, for plan.py; nothing is done.
#
#   bash scripts/planned.sh SCRIPT SETUP OUT       SCRIPT: images or boundary, the sweep; the others as for that one
#
# Prints `data FILE`, `missing WHY` where that is not there, `flags ...`, the arguments of train.py but for learning rate,
# length and folder, and a line for each run: its length, members, files of weights at most, and folder in OUT. In the
# names of folders b12, as it is not known yet, and * stand for any learning rate, and `-seed*` for any seed.
# Measurements are such lines, too, whose folder is their file and whose length says in how many epochs of training as
# much is computed. A last word of some lines is a file: once it is there, no more of this will come.
set -euo pipefail
[ $# = 3 ] || { echo "usage: bash scripts/planned.sh SCRIPT SETUP OUT (see its first lines)" >&2; exit 2; }
source "$(dirname "$0")/stages.sh" "${@:2}"
set -f

# The run folders that a command of a sweep makes.
made_by() {
    local flr kept closing
    kept=$((1 + $(wc -w <<< "$keep_losses")))
    case $1 in
        pretrain) echo "$epochs 1 $((kept + ${kept_epoch:+1} + 0)) pretrain/$2" ;;
        average) echo "$swa_epochs 1 $((1 + $(wc -w <<< "$windows"))) swa/$2" ;;
        finetune)
            for flr in "${@:3}"; do
                closing=
                [ "$flr" != b12 ] || closing=claims.json  # as it may turn out to be one of the others
                echo "$finetune_epochs 1 $kept finetune/${2##*/}-flr$flr $closing"
            done ;;
        converge) echo "$converge_epochs 1 $kept converge/lr$2-seed$3 ${4:-}" ;;
    esac
}

# An epoch's images without training take about 0.45 of its time. Barriers take 60 points between solutions, for the ViT
# 21, bands about eight sets of images of each of four solutions, and sharpness some 30 products with a Hessian.
measurements() {
    local name flr points=60
    [[ $flags != *"--model vit"* ]] || points=21
    while read -r name _; do
        echo "$((points * 45 / 100)) 1 0 pretrain/$name/geometry-*.json claims.json"
        echo "8 1 0 pretrain/$name/bands-*.json claims.json"
        echo "8 1 0 swa/$name/bands-*.json claims.json"
        [ -n "$sharpness" ] || continue
        for flr in $flrs; do echo "16 1 0 finetune/$name-flr$flr/sharpness-*.json claims.json"; done
    done <<< "$runs"
    echo "0 1 0 claims.json"
}

echo "data $data"
[ -z "$missing" ] || echo "missing $missing"
echo flags $flags ${TRAIN_FLAGS:-}
if [ "$1" = images ]; then
    { pretrainings; continuations; second_stages; after_second_stages; } |
        while read -r command; do made_by $command; done | awk '/\*/ || !seen[$4]++'
    measurements
else
    # Between neighbours of the grid, by factors of about 1.5, as many halvings as bring them together.
    halvings=$(awk "BEGIN { n = log(log(1.5) / log($converge_ratio)) / log(2); print n < 0 ? 0 : int(n + 0.999) }")
    converging ${converge_lrs:-b12} | while read -r command; do made_by $command; done
    for _ in $(seq "$halvings"); do
        converging any | while read -r _ _ seed; do made_by converge '*' "$seed" figures/figure11.json; done
    done
fi
