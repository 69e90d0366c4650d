#!/usr/bin/env bash
# ./run_all.sh [SUITE] [options of bench.grid]   set up where needed, run the suite, draw the report (default: mini)
# ./run_all.sh test [options of pytest]          the same set-up, then the tests
# A usable environment is reused ($PYTHON, .venv, python3 on the PATH; not with FRESH=1); otherwise .venv is made with the exact
# versions of constraints.txt.
set -euo pipefail
cd "$(dirname "$0")"

extra=""
[ "${1:-}" = test ] && extra=test

usable() {  # the guard makes timm importable beside a torchvision that was built for other hardware
    "$1" - $extra <<'PY' >/dev/null 2>&1
import sys
import bench.torchvision_guard, matplotlib, mmengine, pandas, safetensors, scipy, seaborn, sklearn, tabulate, timm, tqdm
if sys.argv[1:]:
    import hypothesis, pytest, pytest_timeout
PY
}

python=""
for candidate in "${PYTHON:-}" .venv/bin/python python3; do
    [ -z "${FRESH:-}" ] && [ -n "$candidate" ] && command -v "$candidate" >/dev/null && usable "$candidate" && python=$candidate && break
done
if [ -z "$python" ]; then
    for base in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 ""; do
        [ -n "$base" ] && "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    [ -n "$base" ] || { echo "error: Python 3.11 or newer is needed (set PYTHON=...)" >&2; exit 2; }
    echo "setting up .venv (packages from the registry, once)" >&2
    "$base" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]" >&2
    python=.venv/bin/python
fi

if [ "$extra" = test ]; then
    exec "$python" -m pytest "${@:2}"
fi
suite=mini
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then suite=$1; shift; fi
case " $* " in *" -h "*|*" --help "*) exec "$python" -m bench.grid --help ;; esac
status=0
"$python" -m bench.grid "$suite" "$@" || status=$?
[ $status = 0 ] || [ $status = 3 ] || exit $status
case " $* " in *" --dry-run "*|*" --launcher "*) exit $status ;; esac
mapfile -t where < <("$python" -m bench.grid "$suite" "$@" --where)
"$python" -m bench.report "${where[@]}"
exit $status
