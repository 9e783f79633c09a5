#!/usr/bin/env bash
# All stages of a setup with a scale-invariant network on images: pre-training at a grid of learning rates, SWA,
# fine-tuning, and two-stage pre-training (figure 12); then all measurements, figures, and the paper's claims held against
# the runs. The same command resumes it where it was killed.
#
#   bash scripts/images.sh SETUP [OUT]
#
# SETUP: s1 to s5 of the paper, trained as scripts/SETUP.args says, on image sets that `python -m data` has prepared; or
#   `narrow`, short enough for two cores (about two hours), on datasets/cifar10-small.pt: a set of 256 training images per
#   class, so that batches of 64 fill an epoch exactly, for example
#   python -m data folder --source DIR --train-per-class 256 --test-per-class 500 --out datasets/cifar10-small.pt
# OUT: folder for the run folders (default: runs/SETUP).
# Environment: DATA, another image set; JOBS, processes at once, with one thread each (default: all cores); PLRS, FLRS,
# WINDOWS, EPOCHS, FINETUNE_EPOCHS, TWO_STAGES (a PLR of 2B and one of 2A), for another sweep (defaults: the paper's,
# below); TRAIN_FLAGS, more arguments for train.py, for example "--precision bf16".
set -euo pipefail
usage() { echo "usage: bash scripts/images.sh s1|s2|s3|s4|s5|narrow [OUT] (see its first lines)" >&2; exit 2; }
[ $# -eq 1 ] || [ $# -eq 2 ] || usage

epochs=200 finetune_epochs=200 windows="2 5 10 50 100" first_seed=2000 data= two_stages=
decades="1e-5 2e-5 5e-5 1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1"
keep_losses="1e-2 1e-3" sharpness="1e-2 1e-3"
case $1 in  # where the paper does not tell the FLRs between its low and its high one, they are 1, 2 and 5 of each decade
s1)
    plrs="1e-5 1.4e-5 2e-5 3e-5 5e-5 7e-5 1e-4 1.4e-4 2e-4 3e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 7e-3 1e-2 1.4e-2
        2e-2 3e-2 5e-2 7e-2 1e-1"
    flrs="1e-5 5e-5 1e-4 2e-4 3e-4" two_stages="1e-2 1e-3" first_seed=2003 ;;
s2) plrs="$decades 2e-1 5e-1" flrs="2e-5 5e-5 1e-4" ;;
s3) plrs=$decades flrs="1e-5 2e-5 5e-5 1e-4 2e-4 5e-4" ;;
s4) plrs="$decades 2e-1 5e-1" flrs="1e-5 2e-5 5e-5 1e-4 2e-4" ;;
s5) plrs=$decades flrs="1e-5 b12" ;;  # b12: the last PLR that converged, which the high FLR is elsewhere, too
narrow)
    plrs="1e-4 2e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2 1e-1" flrs="1e-4 5e-4 b12"
    epochs=120 finetune_epochs=60 windows="2 5 10" two_stages="1e-2 3e-3" keep_losses="1 0.5 0.3 0.1" sharpness="0.5 0.3 --images 512 --probes 8"
    data=datasets/cifar10-small.pt ;;
*) usage ;;
esac
source "$(dirname "$0")/images_setup.sh"

read -ra plrs <<< "${PLRS:-$(echo $plrs)}"
flrs=${FLRS:-$flrs} windows=${WINDOWS:-$windows} finetune_epochs=${FINETUNE_EPOCHS:-$finetune_epochs}
# Through cat, that is not on a terminal, processes report by lines: their bars would write over each other.
side_by_side() { xargs -P "$JOBS" -L 1 "$@" 2>&1 | cat; }

# Every learning rate has its own seed, and so its own initial point and classifier, as in the paper.
for i in "${!plrs[@]}"; do
    echo "--lr ${plrs[i]} --seed $((first_seed + i)) --out $out/pretrain/plr${plrs[i]}"
done | side_by_side python train.py "${arguments[@]}" --steps "${EPOCHS:-$epochs}" ${TRAIN_FLAGS:-}

[[ $flrs != *b12* ]] || flrs=${flrs/b12/$(python analyze.py boundary "$out" | cut -d' ' -f1)}
finetune="--steps $finetune_epochs --log-every 1 --keep-loss $keep_losses --out $out/finetune"
for plr in "${plrs[@]}"; do
    echo "swa.py $out/pretrain/plr$plr --windows $windows --out $out/swa"
    echo "finetune.py $out/pretrain/plr$plr --lr $flrs $finetune"
done | side_by_side python

# Two stages of pre-training, and what they are compared with: training at the FLRs alone, for as long.
read -r plr_2b plr_2a <<< "${TWO_STAGES-$two_stages}" || true
flr_ends=$(tr ' ' '\n' <<< "$flrs" | sort -g | sed -n '1p;$p' | uniq)
is_plr() { [[ " ${plrs[*]} " == *" $1 "* ]]; }
if [ -n "$plr_2b" ] && ! is_plr "$plr_2b"; then
    echo "two-stage pre-training is left out: $plr_2b is none of the PLRs"
elif [ -n "$plr_2b" ]; then
    python finetune.py "$out/pretrain/plr$plr_2b" --lr "$plr_2a" $finetune
    for flr in $flr_ends; do
        echo "$out/finetune/plr$plr_2b-flr$plr_2a --lr $flr"
        ! is_plr "$flr" || echo "$out/finetune/plr$flr-flr$flr --lr $flr"
    done | side_by_side python finetune.py $finetune
fi

export OMP_NUM_THREADS=$JOBS
python analyze.py geometry "$out"
python analyze.py bands "$out"
python analyze.py norms "$out"
python analyze.py sharpness "$out" --level $sharpness || [ $? = 2 ]  # runs may be too short to come to these losses
python analyze.py figures "$out" --out "$out/figures"
python analyze.py claims "$out" --json "$out/claims.json"
