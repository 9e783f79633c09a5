# Sourced by the other scripts: goes to the repository root and makes `python` one that has the requirements, in the
# active virtual environment, or else in .venv. Nothing is fetched where all packages are there.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    [ -x .venv/bin/python ] || { echo "making .venv"; python3 -m venv .venv; }
    source .venv/bin/activate
fi
python -m pip install --quiet --disable-pip-version-check -r requirements.txt
# Several processes with one thread each use the cores best. (nproc would obey OMP_NUM_THREADS, so it is asked first.)
export JOBS="${JOBS:-$(nproc)}"
export OMP_NUM_THREADS=1
