#!/usr/bin/env bash
# Set up what is needed and run the tests: bash scripts/test.sh [pytest arguments], for example -m slow.
# TEST_WORKERS is the number of processes (default: one per core, four at most), TEST_THREADS that of threads in each (1).
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
python -m pytest tests -n "${TEST_WORKERS:-$((JOBS < 4 ? JOBS : 4))}" --dist loadfile "$@"
