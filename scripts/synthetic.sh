#!/usr/bin/env bash
# The synthetic study, by default at the paper's scale: 5 data seeds x 10 training seeds x 23 learning rates. It is
# pre-training, fine-tuning, SWA, single-feature accuracies, geometry, figures 4, 5 and 15 to 17, and the paper's claims
# held against them. The same command resumes it where it was killed.
#
#   bash scripts/synthetic.sh [OUT] [--flr FLR FLR...]
#
# OUT: folder for everything it writes (default: runs/synthetic). --flr: learning rates of fine-tuning (default: the
# paper's eleven). The exponent of a learning rate may have a fraction, as those of the paper's grid have: 1e-2.5. `low`
# and `high` are the FLRs of figures 16 and 17, 1e-4.5 and 1e-2.125.
# Environment: JOBS, processes at once, with one thread each (default: all cores; take 1 on a GPU). DATA_SEEDS (default:
# 1 to 5) and SEEDS, training seeds (default: 1 to 10), of which all pairs are trained. PLRS, learning rates of
# pre-training (default: the paper's 23). PRETRAIN_STEPS (at least 50) and FINETUNE_STEPS, for training of another
# length (default: the paper's 40000 and 20000 iterations). TRAIN_FLAGS, more arguments for train.py (default:
# --compile).
# The seeds are dealt out to run folders (listed in OUT/folders), and more of them to more folders later: training seeds
# with the paper's data seeds to JOBS folders, and other data seeds to JOBS folders for every training seed. All that is
# in one OUT has the same PLRS and lengths. Where a command fails in a folder, the other folders' training is finished,
# and the script exits 123. `LISTED=yes` before the command writes and trains nothing, but lists what it would: see
# planned.sh.
#
# Equal budgets: an FLR that is one of the PLRS goes on with the pre-training at that PLR, bit by bit, to 60000
# iterations in all, the length of both stages; from regime 1 to `low` is an ordinary fine-tuning. SWA at the end of
# 60000 iterations is a study in another OUT, with PRETRAIN_STEPS=60000.
set -euo pipefail
usage() { echo "usage: bash scripts/synthetic.sh [OUT] [--flr FLR FLR...] (see its first lines)" >&2; exit 2; }
stop() { echo "$*" >&2; exit 2; }

# Learning rates as numbers: 1e-2.5 is 10 to the power of -2.5.
learning_rates() {
    local lr
    for lr in "$@"; do
        case $lr in low) lr=1e-4.5 ;; high) lr=1e-2.125 ;; esac
        [[ $lr =~ ^([0-9.]+)(e([-+]?[0-9]+(\.[0-9]+)?))?$ ]] || return 1
        if [[ ${BASH_REMATCH[3]} == *.* ]]; then
            lr=$(LC_ALL=C awk -v factor="${BASH_REMATCH[1]}" -v exponent="${BASH_REMATCH[3]}" \
                'BEGIN { printf "%.17g", factor * 10 ^ exponent }') || return 1
        fi
        echo "$lr"
    done
}

out=$(realpath -sm "$(dirname "$0")/../runs/synthetic")
if [ $# -gt 0 ] && [[ $1 != -* ]]; then out=$(realpath -sm "$1"); shift; fi
plrs=@scripts/ticks.args flrs=@scripts/ticks_flrs.args
if [ $# -gt 0 ]; then
    [ "$1" = --flr ] && [ $# -gt 2 ] || usage
    flrs="--lr $(learning_rates "${@:2}")" || usage
fi
if [ -n "${PLRS:-}" ]; then
    plrs="--data ticks --lr $(learning_rates $PLRS)" ||
        stop "PLRS: '$PLRS' are no learning rates; give some like 1e-3"
fi
for name in DATA_SEEDS SEEDS; do
    [[ ${!name:-0} =~ ^[[:space:]]*((0|[1-9][0-9]*)([[:space:]]+|$))+$ ]] ||
        stop "$name: '${!name}' are no seeds; give some like 1 2"
done
source "$(dirname "$0")/setup.sh"
out=$(realpath -sm --relative-to . "$out")
pretrain_steps=${PRETRAIN_STEPS:-40000} finetune_steps=${FINETUNE_STEPS:-20000} train_flags=${TRAIN_FLAGS---compile}
swa_spacing=$((pretrain_steps / 400))  # in iterations; the paper's 100 of 40000
swa_spacing=$((swa_spacing < 1 ? 1 : swa_spacing > 100 ? 100 : swa_spacing))

# A folder's name says what it holds: seed1-2 those training seeds with the data seeds 1 to 5; data6to8-10-seed1 the
# training seed 1 with the data seeds 6, 7, 8 and 10.
numbers() {
    local range
    for range in ${1//-/ }; do seq "${range%to*}" "${range#*to}"; done
}
seeds_of() { numbers "${1##*seed}"; }
data_seeds_of() {
    local ranges=${1%seed*}
    ranges=${ranges#data}
    numbers "${ranges:-1to5}"
}
# The other way round: ascending numbers as 6to8-10.
ranges() {
    local first=$1 last=$1 number joined=
    for number in "${@:2}" end; do
        if [ "$number" != $((last + 1)) ]; then
            joined+=-$first
            [ "$first" = "$last" ] || joined+=to$last
            first=$number
        fi
        last=$number
    done
    echo "${joined#-}"
}

# All stages of a folder.
study_folder() {
    python train.py $plrs $train_flags --seed $(seeds_of "$1") --data-seed $(data_seeds_of "$1") \
        --steps "$pretrain_steps" --keep $((pretrain_steps - 49 * swa_spacing)) --out "$out/pretrain/$1"
    python finetune.py "$out/pretrain/$1" $flrs --steps "$finetune_steps" --out "$out/finetune"
    python swa.py "$out/pretrain/$1" --windows 2 5 10 20 50 --spacing $swa_spacing --anchor end --out "$out/swa"
}
export -f study_folder numbers seeds_of data_seeds_of
export out pretrain_steps finetune_steps train_flags swa_spacing flrs plrs

# All pairs of seeds in folders, whose names are read: lines of a training seed and a data seed.
pairs() {
    local folder seed
    while read -r folder; do
        for seed in $(seeds_of "$folder"); do data_seeds_of "$folder" | sed "s/^/$seed /"; done
    done
}
ascending() { xargs -n 1 <<< "$*" | sort -nu; }
# Groups of numbers, a line each, as many as JOBS at most.
deal() { xargs -n $((($# + JOBS - 1) / JOBS)) <<< "$*"; }

# Pairs are dealt out once: with other JOBS or more seeds, what is there stays as it is, and new pairs get new folders.
new_folders() {
    local seed new there whole=()
    there=$(folders_there | pairs)
    for seed in $(ascending "${SEEDS:-1 2 3 4 5 6 7 8 9 10}"); do
        new=$(comm -13 <(sed -n "s/^$seed //p" <<< "$there" | sort) \
            <(ascending "${DATA_SEEDS:-1 2 3 4 5}" | sort) | sort -n | xargs)
        if [ "$new" = "1 2 3 4 5" ]; then
            whole+=("$seed")
        elif [ -n "$new" ]; then
            deal $new | while read -r some; do echo "data$(ranges $some)-seed$seed"; done
        fi
    done
    [ ${#whole[@]} = 0 ] || deal "${whole[@]}" | sed 's/^/seed/; s/ /-/g'
}
folders_there() { [ ! -f "$out/folders" ] || cat "$out/folders"; }
folders=$(folders_there; new_folders)

rates_of() { { [[ $1 != @* ]] && echo "$1" || grep -v '^#' "${1#@}"; } | grep -oE '[0-9][0-9.e+-]*'; }
if [ -n "${LISTED:-}" ]; then
    first=$(head -n 1 <<< "$folders")
    echo "data ticks"
    echo "flags $plrs $train_flags --seed" $(seeds_of "$first") --data-seed $(data_seeds_of "$first")
    for folder in $folders; do
        members=$(($(pairs <<< "$folder" | wc -l) * $(rates_of "$plrs" | wc -l)))
        echo "$pretrain_steps $members 2 pretrain/$folder"
        for flr in $(rates_of "$flrs"); do echo "$finetune_steps $members 1 finetune/$folder-flr$flr"; done
        echo "$((49 * swa_spacing)) $members 6 swa/$folder"
    done
    echo "0 1 0 claims.json"
    exit
fi
mkdir -p "$out"
echo "$folders" > "$out/folders.new"
mv "$out/folders.new" "$out/folders"

# What it takes: 8 microseconds of a core per network and iteration, 4 where there are two processes (bench/README.md);
# half as much again in SWA, which measures more often.
networks=$(($(pairs < "$out/folders" | wc -l) * $(rates_of "$plrs" | wc -l))) flr_count=$(rates_of "$flrs" | wc -l)
iterations=$((pretrain_steps + flr_count * finetune_steps + 49 * swa_spacing * 3 / 2))
minutes=$((networks * iterations * 8 / JOBS / 60000000 + 1))
echo "$networks networks in $(wc -l < "$out/folders") run folders, $pretrain_steps iterations each and" \
    "$finetune_steps at each of $flr_count FLRs: about $minutes minutes with JOBS=$JOBS, less where some are there"

# Through cat, that is not on a terminal, processes report by lines: their bars would write over each other.
xargs -n 1 -P "$JOBS" bash -euc 'study_folder "$1"' - < "$out/folders" 2>&1 | cat
export OMP_NUM_THREADS=$JOBS
python analyze.py features "$out"
python analyze.py geometry "$out"
python analyze.py figures "$out" --out "$out/figures"
python analyze.py claims "$out" --json "$out/claims.json"
