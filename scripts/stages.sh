# Sourced by images.sh, boundary.sh, sweep.slurm and planned.sh with the arguments SETUP [OUT], SETUP being the name of a
# file in setups/ or the path of another: goes to the repository's root, reads the setup and what the environment changes
# of it, stops where the image set is missing (but for planned.sh), lists the runs of pre-training, and defines the stages
# of a sweep, each for one run, and the commands that they consist of.
set -a  # the shells of side_by_side take part in all of this
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

setup=$(basename -- "$1" .sh) settings=$root/scripts/setups/$1.sh
[ -f "$settings" ] || settings=$1
if [ ! -f "$settings" ]; then
    names=("$root"/scripts/setups/*.sh) names=("${names[@]##*/}")
    stop "there is no setup $1: give ${names[*]%.sh}, or a file of settings like those in scripts/setups"
fi
settings=$(realpath -- "$settings")
out=$(from_root "${2:-$root/runs/$setup}") other_data=${DATA:+$(from_root "$DATA")}
cd "$root"
source scripts/defaults.sh
source "$settings"

if [ -n "$other_data" ]; then
    data=$other_data prepare="python -m data SET --out $(printf %q "$DATA") (see python -m data --help)"
fi
missing=
[ -f "$data" ] || missing="there is no ${DATA:-$data}; prepare it with: $prepare"
[[ -z $missing || $0 == */planned.sh ]] || stop "$missing"

# What lies at the setup's own path must be what `prepare` makes, wherever its source; DATA may be any image set.
refuse_another_set() {
    local fault
    [[ -z $other_data && $prepare == "python -m data "* ]] || return 0
    fault=$($prepare --out "$data" --check 2>&1 > /dev/null) ||
        stop "$(tail -n 1 <<< "$fault") ($setup expects what \`$prepare\` makes; to take this one say DATA=$data)"
}

plrs=$(echo ${PLRS:-$plrs}) flrs=$(echo ${FLRS:-$flrs}) two_stages=${TWO_STAGES-$two_stages}
seeds_per_plr=${SEEDS_PER_PLR:-$seeds_per_plr}
epochs=${EPOCHS:-$epochs} finetune_epochs=${FINETUNE_EPOCHS:-$finetune_epochs} windows=${WINDOWS:-$windows}
converge_lrs=${LRS:-$converge_lrs} converge_seeds=${SEEDS:-$converge_seeds} converge_ratio=${RATIO:-$converge_ratio}
converge_loss=${UNTIL_LOSS:-$converge_loss} converge_epochs=${EPOCHS:-$converge_epochs}

# The runs of pre-training, a line each: name, PLR, seed. Each has its own seed, and so its own initial point and
# classifier, as in the paper; where there are several at a PLR, all PLRs come again with the next seeds.
list_runs() {
    local seed=$first_seed plr
    for _ in $(seq "$seeds_per_plr"); do
        for plr in $plrs; do
            echo "plr$plr$([ "$seeds_per_plr" = 1 ] || echo "-seed$seed") $plr $seed"
            seed=$((seed + 1))
        done
    done
}
runs=$(list_runs)

# Where PLRs or seeds are added to a sweep of several seeds, its runs get other seeds and names: all would be trained anew.
for folder in "$out"/pretrain/plr*/; do
    name=$(basename "$folder") plr=${folder##*/plr} plr=${plr%/} plr=${plr%-seed*}
    if [[ -d $folder && " $plrs " == *" $plr "* ]] && ! grep -q "^$name " <<< "$runs"; then
        stop "$out/pretrain/$name is no run of this sweep, as PLRS or SEEDS_PER_PLR were others then; give those, or" \
            "another OUT"
    fi
done

largest=$(printf '%s\n' $windows | sort -n | tail -n 1)
swa_epochs=$(((largest - 1) * swa_spacing))
kept_epoch=
if [ "$swa_anchor" = end ]; then  # SWA goes back to where its largest window begins
    kept_epoch=$((epochs - swa_epochs))
    [ $kept_epoch -ge 0 ] || stop "$epochs epochs are too short for SWA of $largest weights $swa_spacing apart:" \
        "give more EPOCHS or smaller WINDOWS"
fi

# What the stages after train.py need of a network of your own, which they load only if it is named: the last --model of a
# file that train.py is given.
own_network=
name_own_network() {
    local word before=
    for word in $flags ${TRAIN_FLAGS:-}; do
        [ "$before" != --model ] || word=--model=$word
        case $word in
            --model=*.py:*) own_network="--model ${word#*=}" ;;
            --model=*) own_network= ;;
        esac
        before=$word
    done
}
name_own_network

train() {
    python train.py $flags --data "$data" ${keep_losses:+--keep-loss $keep_losses} "$@" ${TRAIN_FLAGS:-}
}

# pretrain NAME PLR SEED
pretrain() {
    train --lr "$2" --seed "$3" --steps "$epochs" ${kept_epoch:+--keep $kept_epoch} --out "$out/pretrain/$1"
}

# average NAME: SWA of a pre-training.
average() {
    python swa.py "$out/pretrain/$1" $own_network --windows $windows --anchor "$swa_anchor" --spacing "$swa_spacing" --out "$out/swa"
}

# finetune RUN FLR...: RUN is a folder in OUT. Losses are only seen to be crossed in logged epochs.
finetune() {
    python finetune.py "$out/$1" $own_network --lr "${@:2}" --steps "$finetune_epochs" \
        ${keep_losses:+--log-every $finetune_log_every --keep-loss $keep_losses} --out "$out/finetune"
}

# converge LR SEED: training until convergence.
converge() {
    train --lr "$1" --seed "$2" --steps "$converge_epochs" --until-loss "$converge_loss" \
        --out "$out/converge/lr$1-seed$2"
}

# The commands of a sweep, a line each for side_by_side.
pretrainings() { while read -r name plr seed; do echo "pretrain $name $plr $seed"; done <<< "$runs"; }
continuations() {
    while read -r name _; do
        echo "average $name"
        echo "finetune pretrain/$name $flrs"
    done <<< "$runs"
}

# Two stages of pre-training, at a PLR of 2B and one of 2A, and what they are compared with: training at the lowest and
# the highest FLR alone, for as long.
read -r plr_2b plr_2a <<< "$two_stages" || true
second_stages() { for name in $(runs_at "$plr_2b"); do echo "finetune pretrain/$name $plr_2a"; done; }
after_second_stages() {
    local flr
    [ -n "$(runs_at "$plr_2b")" ] || return 0
    for flr in $(tr ' ' '\n' <<< "${flrs/b12/inf}" | LC_ALL=C sort -g | sed -n '1p;$p' | uniq | sed 's/inf/b12/'); do
        for name in $(runs_at "$plr_2b"); do echo "finetune finetune/$name-flr$plr_2a $flr"; done
        for name in $(runs_at "$flr"); do echo "finetune finetune/$name-flr$flr $flr"; done
    done
}
# The names of the runs at a PLR; at b12, as long as it is not known, patterns of them.
runs_at() {
    if [ "$1" = b12 ]; then
        seq "$seeds_per_plr" | sed "s/.*/plrb12$([ "$seeds_per_plr" = 1 ] || echo '-seed*')/"
    else
        while read -r name plr _; do [ "$plr" != "$1" ] || echo "$name"; done <<< "$runs"
    fi
}

# Training until convergence at some learning rates.
converging() {
    local lr seed
    for lr in "$@"; do for seed in $converge_seeds; do echo "converge $lr $seed"; done; done
}
set +a
