#!/usr/bin/env bash
# Set up what is needed and run the tests: bash scripts/test.sh [pytest arguments], for example -m slow.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python -m pytest tests "$@"
