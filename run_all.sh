#!/usr/bin/env bash
# ./run_all.sh [SUITE] [options of bench.grid]   set up where needed, run the suite, draw the report (default: mini)
# ./run_all.sh test [options of pytest]          the same set-up, then the tests
# A usable environment is reused ($PYTHON, .venv, python3 on the PATH; not with FRESH=1); otherwise .venv is made with the exact
# versions of constraints.txt. Results and reports go into this folder, wherever the command is typed.
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1  # this project's modules, wherever the command is typed
[ -z "${PYTHON:-}" ] || command -v "$PYTHON" >/dev/null || { echo "error: PYTHON=$PYTHON: no such program" >&2; exit 2; }
case "${PYTHON:-}" in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;; esac

extra=""
[ "${1:-}" = test ] && extra=test

usable() {  # new enough, and importable: the guard lets timm in beside a torchvision that was built for other hardware
    "$1" - $extra <<'PY' >/dev/null 2>&1
import sys
from importlib.metadata import version
assert sys.version_info >= (3, 11)
import bench.config.mmengine_config, bench.torchvision_guard, matplotlib, pandas, safetensors, scipy, seaborn, sklearn, tabulate, timm, torch, tqdm
for name, least in (("torch", (2, 6, 0)), ("timm", (1, 0, 28))):
    assert tuple(int(part) for part in version(name).split("+")[0].split(".")[:3]) >= least
if sys.argv[1:]:
    import hypothesis, pytest, pytest_timeout, xdist
PY
}

python=""
seen="$root/.venv/.usable$extra"  # .venv was found usable: no package has come or gone since, so it need not import all again
for candidate in "${PYTHON:-}" "$root/.venv/bin/python" python3; do
    [ -z "${FRESH:-}" ] && [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    own=""
    [ "$candidate" = "$root/.venv/bin/python" ] && own=yes
    if [ -z "$own" ] || [ -n "$(find "$root/pyproject.toml" "$root"/.venv/lib/python*/site-packages -maxdepth 0 -newer "$seen" 2>&1)" ]; then
        usable "$candidate" || continue
        [ -z "$own" ] || touch "$seen"
    fi
    python=$candidate && break
done
if [ -z "$python" ]; then
    for base in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 ""; do
        [ -n "$base" ] && "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    [ -n "$base" ] || { echo "error: Python 3.11 or newer is needed (set PYTHON=...)" >&2; exit 2; }
    echo "setting up .venv (packages from the registry, once)" >&2
    "$base" -m venv "$root/.venv"
    python="$root/.venv/bin/python"
    # compiled on first use, since most of what is installed is never imported: see below
    (cd "$root" && "$python" -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[test]" >&2)
    touch "$root/.venv/.usable" "$root/.venv/.usabletest"
fi

# else each process would compile each module again: three times the start of a worker, where .venv is not yet compiled
[ "$python" != "$root/.venv/bin/python" ] || unset PYTHONDONTWRITEBYTECODE

if [ "$extra" = test ]; then
    cd "$root"
    exec "$python" -m pytest -n auto --dist worksteal "${@:2}"  # a worker for each core, none idle while others wait
fi
suite=mini
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then suite=$1; shift; fi
# in this shell's place, so that a signal reaches it
exec "$python" -m bench.grid "$suite" --results "$root/results" --report "$root/reports" "$@"
