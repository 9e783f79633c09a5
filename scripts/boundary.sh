#!/usr/bin/env bash
# Training until convergence next to the boundary between regimes 1 and 2 (figure 11): at some learning rates, and then
# again and again at the geometric mean of the last one that converges and the next. Needs the pre-trainings of
# scripts/images.sh in the same folder; the same command resumes it where it was killed.
#
#   bash scripts/boundary.sh SETUP [OUT]       as for scripts/images.sh
#
# Environment: JOBS, TRAIN_FLAGS and DATA as for scripts/images.sh; and in place of what the setup says (converge_... in
# scripts/defaults.sh) LRS, the learning rates to begin with; SEEDS; UNTIL_LOSS, the train loss to stop at; EPOCHS, the
# most to train for; RATIO, of the last learning rate that converges and the next, at which the search stops.
# A stage that a command fails in is finished, and the script exits 123 then; without the image set it exits 2 at once.
set -euo pipefail
usage() { echo "usage: bash scripts/boundary.sh SETUP [OUT] (see its first lines)" >&2; exit 2; }
[[ $# -le 2 && ${1:--} != -* && ${2:-} != -* ]] || usage
source "$(dirname "$0")/stages.sh" "$@"
source scripts/setup.sh
refuse_another_set

[ -n "$converge_lrs" ] || converge_lrs=$(python analyze.py boundary "$out" --grid | cut -d' ' -f1)
converging $converge_lrs | side_by_side
while true; do
    bracket=$(python analyze.py boundary "$out")
    read -r last next <<< "$bracket"
    lr=$(python -c "print(f'{($last * $next) ** 0.5:.6g}' if $next / $last > $converge_ratio else '')")
    [ -n "$lr" ] || break
    converging "$lr" | side_by_side
done
