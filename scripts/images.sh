#!/usr/bin/env bash
# All stages of a setup with networks on images: pre-training at a grid of learning rates, SWA, fine-tuning, and
# two-stage pre-training (figure 12); then all measurements, figures, and the paper's claims held against the runs. The
# same command resumes it where it was killed.
#
#   bash scripts/images.sh SETUP [OUT]
#
# SETUP: a file in scripts/setups (s1 to s9: those of the paper; narrow and *-small: for two cores), or
#   the path of a file of your own like those; scripts/defaults.sh says what can stand in it. Its image set must be
#   prepared first.
# OUT: folder for the run folders (default: runs/SETUP).
# Environment: JOBS, processes at once, with one thread each (default: all cores); TRAIN_FLAGS, more arguments for
# train.py, for example "--precision bf16"; and in place of what the setup says DATA (image set), PLRS, SEEDS_PER_PLR,
# FLRS, WINDOWS, EPOCHS, FINETUNE_EPOCHS, TWO_STAGES (a PLR of 2B and one of 2A, or "" for none).
# Where FLRS has b12 the PLRs must bracket the boundary of regimes 1 and 2; give numbers for a sweep that does not.
# A stage that a command fails in is finished, and the script exits 123 then; without the image set it exits 2 at once.
set -euo pipefail
usage() { echo "usage: bash scripts/images.sh SETUP [OUT] (see its first lines)" >&2; exit 2; }
[[ $# -le 2 && ${1:--} != -* && ${2:-} != -* ]] || usage
source "$(dirname "$0")/stages.sh" "$@"
source scripts/setup.sh
refuse_another_set

pretrainings | side_by_side

if [[ $flrs == *b12* ]]; then
    bracket=$(python analyze.py boundary "$out" --grid) || stop "(or give numbers in place of b12: FLRS=...)"
    flrs=${flrs/b12/${bracket% *}}
fi
continuations | side_by_side

if [ -n "$plr_2b" ] && [ -z "$(runs_at "$plr_2b")" ]; then
    echo "two-stage pre-training is skipped: $plr_2b is none of the PLRs"
elif [ -n "$plr_2b" ]; then
    second_stages | side_by_side
    after_second_stages | side_by_side
fi

export OMP_NUM_THREADS=$JOBS
python analyze.py geometry "$out" $own_network
python analyze.py bands "$out" $own_network $bands
[ -z "$norms" ] || python analyze.py norms "$out" $own_network
[ -z "$sharpness" ] || python analyze.py sharpness "$out" $own_network $sharpness
python analyze.py figures "$out" --out "$out/figures"
python analyze.py claims "$out" --json "$out/claims.json"
