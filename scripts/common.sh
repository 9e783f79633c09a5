# Sourced by stages.sh and find_lr.sh, which have what is defined here exported (set -a): the repository's root, paths from
# there, an end with a message, and many commands at once.
root=$(realpath -s "$(dirname "${BASH_SOURCE[0]}")/..")
from_root() { realpath -sm --relative-to "$root" -- "$1"; }
stop() { echo "$*" >&2; exit 2; }

# Run commands, one a line, JOBS at once. One that fails does not keep the others from running; the exit code is then
# 123. Through cat, that is not on a terminal, processes report by lines: their bars would write over each other.
side_by_side() { xargs -r -d '\n' -n 1 -P "$JOBS" bash -euc 2>&1 | cat; }
