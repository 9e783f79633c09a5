#!/usr/bin/env bash
# Everything: the synthetic study, the sweeps on images, training until convergence, and all figures of the paper that
# these permit, after a plan of what there is to do and what it takes. The same command resumes it where it was killed.
#
#   bash scripts/reproduce.sh SCALE [OUT] [--plan]
#
# SCALE: smoke   every step and figure, on tiny sets that it makes, by training too short to mean anything: minutes
#        small   what is committed in results/: the synthetic study at the paper's scale, narrow networks on few images
#                of 16 pixels: a day on two cores
#        paper   the sizes of the paper, s1 to s9: for GPUs
# OUT: folder of the sweeps' folders, where they are with the scripts alone (default: runs; of smoke runs/smoke). What
#   each says goes to OUT/logs; here a line on the whole comes with every finished run, or every minute.
# --plan: the plan only. For its times some networks train for a moment, in a folder that is removed.
# Environment: JOBS, processes at once (default: all cores; on a GPU as many as share it well, see README.md) and
# TRAIN_FLAGS, as for the sweeps' scripts.
# Image sets must be prepared first; a sweep whose set is missing is skipped, and named at the end with the command that
# prepares it. What fails does not keep the rest from running. Where anything was skipped or failed the exit code is 2.
set -euo pipefail
usage() { echo "usage: bash scripts/reproduce.sh smoke|small|paper [OUT] [--plan] (see its first lines)" >&2; exit 2; }
[[ ${1:-} =~ ^(smoke|small|paper)$ ]] || usage
scale=$1 out= plan=
for word in "${@:2}"; do
    case $word in
        --plan) plan=yes ;;
        -*) usage ;;
        *) [ -z "$out" ] || usage; out=$(realpath -sm -- "$word") ;;
    esac
done
source "$(dirname "$0")/setup.sh"
exec python -m scripts.reproduce "$scale" ${out:+--out "$out"} ${plan:+--plan}
