#!/usr/bin/env bash
# Training until convergence next to the boundary between regimes 1 and 2 (figure 11): at LRS, and then again and again in the middle (of logarithms) between the last one that converges and the next.
# Needs the pre-trainings of scripts/images.sh in the same folder; the same command resumes it where it was killed.
#
#   bash scripts/boundary.sh SETUP [OUT]       as for scripts/images.sh
#
# Environment: DATA, JOBS and TRAIN_FLAGS as for scripts/images.sh; LRS, the learning rates to
# begin with (default: the paper's for s1, else the last PLR of regime 1); RATIO, of these two at
# which to stop (default: 1.03; of `narrow` 1.05); SEEDS (default: 1 2 3); UNTIL_LOSS, the train loss to stop at, and
# EPOCHS, the most to train for (defaults: the paper's, 1e-4 and 30000; of `narrow` 0.03 and 240).
set -euo pipefail
usage() { echo "usage: bash scripts/boundary.sh s1|s2|s3|s4|s5|narrow [OUT] (see its first lines)" >&2; exit 2; }
[ $# -eq 1 ] || [ $# -eq 2 ] || usage
until_loss=1e-4 epochs=30000 ratio=1.03 data= lrs=
case $1 in
s1) lrs="1e-4 2e-4 3e-4" ;;
s2 | s3 | s4 | s5) ;;
narrow) until_loss=0.03 epochs=240 ratio=1.05 data=datasets/cifar10-small.pt lrs="7e-4 1e-3 1.4e-3" ;;
*) usage ;;
esac
source "$(dirname "$0")/images_setup.sh"

train_until_convergence() {
    for lr in "$@"; do
        for seed in ${SEEDS:-1 2 3}; do
            echo "--lr $lr --seed $seed --out $out/converge/lr$lr-seed$seed"
        done
    done | xargs -P "$JOBS" -L 1 python train.py "${arguments[@]}" --steps "${EPOCHS:-$epochs}" \
        --until-loss "${UNTIL_LOSS:-$until_loss}" ${TRAIN_FLAGS:-} 2>&1 | cat
}

lrs=${LRS:-$lrs}
train_until_convergence ${lrs:-$(python analyze.py boundary "$out" | cut -d' ' -f1)}
while true; do
    bracket=$(python analyze.py boundary "$out" --refined)
    read -r last next <<< "$bracket"
    lr=$(python -c "print(f'{($last * $next) ** 0.5:.6g}' if $next / $last > ${RATIO:-$ratio} else '')")
    [ -n "$lr" ] || break
    train_until_convergence "$lr"
done
