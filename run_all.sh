#!/usr/bin/env bash
# ./run_all.sh [SUITE] [options of bench.grid]   set up if needed, run the suite, draw its report (default: mini)
# ./run_all.sh test [options of pytest]          set up if needed, run the tests
#
# An environment that has what pyproject.toml asks for is reused: $PYTHON, .venv, or python3 on the
# PATH (not with FRESH=1). Otherwise .venv is made with the exact versions of constraints.txt.
# Results and reports go into this folder, wherever the command is typed.
set -euo pipefail
case "${1:-}" in -h | --help)  # said before anything is set up
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    echo "Options of bench.grid, once that is set up: python -m bench.grid --help"
    exit ;;
esac
root=$(cd "$(dirname "$0")" && pwd)
# this project's modules, wherever the command is typed
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
if [ -n "${PYTHON:-}" ] && ! command -v "$PYTHON" >/dev/null; then
    echo "error: PYTHON=$PYTHON: no such program" >&2
    exit 2
fi
case "${PYTHON:-}" in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;; esac

extra=""
[ "${1:-}" = test ] && extra=test

usable() {  # Python and all packages of pyproject.toml (and of its extra) are new enough, and timm can be imported
    "$1" - "$root/pyproject.toml" $extra <<'PY' >/dev/null 2>&1
import sys, tomllib
from importlib.metadata import version
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
assert "%d.%d.%d" % sys.version_info[:3] in SpecifierSet(project["requires-python"])
needed = [*project["dependencies"], *(one for extra in sys.argv[2:] for one in project["optional-dependencies"][extra])]
assert all(one.specifier.contains(version(one.name), prereleases=True) for one in map(Requirement, needed))
import bench.backbone.vit
PY
}

python=""
seen="$root/.venv/.usable$extra"  # newer than .venv's packages: they were found usable before
for candidate in "${PYTHON:-}" "$root/.venv/bin/python" python3; do
    [ -z "${FRESH:-}" ] && [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    own=""
    [ "$candidate" = "$root/.venv/bin/python" ] && own=yes
    packages=("$root/pyproject.toml" "$root"/.venv/lib/python*/site-packages)
    if [ -z "$own" ] || [ -n "$(find "${packages[@]}" -maxdepth 0 -newer "$seen" 2>&1)" ]; then
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
    # Not compiled now but on first use: most of what is installed is never imported.
    (cd "$root" && "$python" -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e ".[test]" >&2)
    touch "$root/.venv/.usable" "$root/.venv/.usabletest"
fi

# Without compiled modules each worker would take three times as long to start.
[ "$python" != "$root/.venv/bin/python" ] || unset PYTHONDONTWRITEBYTECODE

if [ "$extra" = test ]; then
    cd "$root"
    exec "$python" -m pytest -n auto --dist worksteal "${@:2}"  # as many processes as cores
fi
suite=mini
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then suite=$1; shift; fi
# exec: in this shell's place, so that a signal reaches it
exec "$python" -m bench.grid "$suite" --results "$root/results" --report "$root/reports" "$@"
