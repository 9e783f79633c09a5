#!/usr/bin/env bash
# How large should the initial learning rate be? Finds the band of useful ones for a network and data: pre-trains where
# `analyze.py next-lr` says, fine-tunes, says which learning rate is best and why, and measures the test set once, for what
# it chose. The same command resumes it where it was killed.
#
#   bash scripts/find_lr.sh MODEL DATA OUT
#
# MODEL: a network of train.py, or FILE.py:FUNCTION. DATA: `ticks`, or an image set prepared by python -m data; where that
#   has held-out images (--validation-per-class) these choose, and the test set where not. OUT: folder for all it writes.
# Environment: EPOCHS of pre-training at most, and FINETUNE_EPOCHS (default: 100 and half of that; iterations on ticks, 40000);
# RATIO of the two learning rates next to an end of the band (default: 1.5); SEEDS, runs next to an end (default: 1), from FIRST_SEED (1) on;
# START, "LOW HIGH", to begin between (default: 1e-4 1e-1); FLRS, "LOW HIGH" (default: a tenth and half of the largest rate
# that converges); MAX_RUNS (default: 100); JOBS, processes at once, with one thread each (default: all cores);
# TRAIN_FLAGS, more arguments for train.py, such as "--width 16"; EARLY="" trains to the end where the regime is clear.
set -euo pipefail
usage() { echo "usage: bash scripts/find_lr.sh MODEL DATA OUT (see its first lines)" >&2; exit 2; }
[[ $# -eq 3 && $1 != -* && $2 != -* && $3 != -* ]] || usage
set -a  # the shells of side_by_side take part in all of this
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

model=$1 data=$2 out=$(from_root "$3")
own_network=
[[ $model != *.py:* ]] || own_network=$(from_root "${model%:*}"):${model##*:} model=$own_network
[ "$data" = ticks ] || data=$(from_root "$data")
for name in EPOCHS FINETUNE_EPOCHS SEEDS FIRST_SEED MAX_RUNS JOBS; do
    [[ ${!name:-1} =~ ^[1-9][0-9]*$ ]] || stop "$name: '${!name}' is no whole number above 0"
done
source "$root/scripts/setup.sh"
if [ "$data" = ticks ]; then
    unit=iteration epochs=${EPOCHS:-40000}
    log_every=$(((epochs + 39) / 40)) warm_up=$((epochs < 1000 ? epochs : 1000))
else
    unit=epoch epochs=${EPOCHS:-100} log_every=1 warm_up=1
fi
finetune_epochs=${FINETUNE_EPOCHS:-$(((epochs + 1) / 2))} early=${EARLY---stop-when-clear}
search="--ratio ${RATIO:-1.5} --seeds ${SEEDS:-1} --first-seed ${FIRST_SEED:-1} --parallel $JOBS --max-runs ${MAX_RUNS:-100}"
search+="${START:+ --start $START}${FLRS:+ --flr $FLRS}"
set +a

# What chooses.
holds_out() {
    python - "$data" 2> /dev/null <<< 'import sys
from data.images import load_image_set
sys.exit(load_image_set(sys.argv[1]).validation_images is None)'
}
export report=
if [[ " ${TRAIN_FLAGS:-} " == *" --report "* ]]; then
    :
elif [ "$data" = ticks ]; then
    echo "chooses by the test set, as ticks have no other"
elif holds_out; then
    report="--report validation"
    echo "chooses by the held-out images of $data; the test set is measured once, for what is chosen"
else
    echo "chooses by the test set, which flatters: $data holds no images out (python -m data ... --validation-per-class N)"
fi

set -a
# train LR SEED LENGTH FOLDER ...
train() {
    python train.py --model "$model" --data "$data" --lr "$1" --seed "$2" $([ "$data" != ticks ] || echo "--data-seed $2") \
        --steps "$3" --log-every "$log_every" $report "${@:5}" ${TRAIN_FLAGS:-} --out "$4"
}
# pretrain LR SEED
pretrain() { train "$1" "$2" "$epochs" "$out/pretrain/plr$1-seed$2" $early; }
# converge LR SEED LOSS: until that train loss, as where it still falls in the end the run tells no boundary.
converge() { train "$1" "$2" $((4 * epochs)) "$out/converge/lr$1-seed$2" --until-loss "$3"; }
# finetune RUN FLR: RUN is a folder in OUT.
finetune() {
    python finetune.py "$out/$1" --lr "$2" --steps "$finetune_epochs" ${own_network:+--model "$own_network"} \
        --out "$out/finetune"
}
set +a

# The answer, and the test accuracy of what was chosen.
answer() { python analyze.py band "$out" $search --json "$out/band.json" "$@"; }
conclude() {
    if [ -n "$report" ]; then
        answer > /dev/null
        mapfile -t chosen < <(python -c 'import json, sys
best = json.load(open(sys.argv[1]))["best"]
print(*(best["runs"] if best else []), sep="\n")' "$out/band.json")
        for run in "${chosen[@]}"; do
            [ -z "$run" ] || python analyze.py test "$out/$run" ${own_network:+--model "$own_network"}
        done
    fi
    answer --out "$out/figures"
}
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0  # find_lr.slurm has a loop of its own

# How long an epoch takes, in microseconds: a first one, less what the same command takes that has nothing left to do.
mkdir -p "$out"
microseconds() { local begin; begin=$(date +%s%N); "$@" > /dev/null || return; echo $((($(date +%s%N) - begin) / 1000)); }
if [ ! -s "$out/microseconds" ]; then
    trial=$(mktemp -d)
    trap 'rm -rf "$trial"' EXIT
    whole=$(microseconds train 1e-3 1 "$warm_up" "$trial/run")
    again=$(microseconds train 1e-3 1 "$warm_up" "$trial/run")
    echo $(((whole > again ? whole - again : 1000) / warm_up + 1)) > "$out/microseconds"
fi
speed=$(< "$out/microseconds")

# What is to come, and how long that takes; where runs may end early they take two thirds of their length or less.
to_come() {
    local pretrainings finetunings minutes share=${early:+2}
    share=${share:-3}
    read -r pretrainings finetunings <<< "$(python analyze.py next-lr "$out" $search --count)"
    minutes=$(((pretrainings * epochs * share / 3 + finetunings * finetune_epochs) * speed / JOBS / 60000000 + 1))
    echo "about $pretrainings pre-trainings of ${early:+at most }$epochs ${unit}s and $finetunings fine-tunings of" \
        "$finetune_epochs to come: about $minutes minutes with JOBS=$JOBS"
}
echo "plan: $(to_come)"

before=
while true; do
    lines=$(python analyze.py next-lr "$out" $search) || exit
    [ -n "$lines" ] || break
    [ "$lines" != "$before" ] || stop "$out: these runs were made and are not there: $lines"
    before=$lines
    echo "$lines"
    side_by_side <<< "$lines"
    to_come
done
conclude
