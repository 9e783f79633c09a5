# Sourced by images.sh and boundary.sh with their arguments, SETUP [OUT], and `data`, the setup's own image set or nothing:
# sets `out` and the `arguments` of train.py, and sources setup.sh.
arguments=(@scripts/$1.args)
out=$(realpath -sm --relative-to "$(dirname "$0")/.." "${2:-$(dirname "$0")/../runs/$1}")
data=${DATA:-$data}
[ -z "$data" ] || arguments+=(--data "$(realpath -sm --relative-to "$(dirname "$0")/.." "$data")")
source "$(dirname "$0")/setup.sh"
