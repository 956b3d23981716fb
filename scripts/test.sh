#!/usr/bin/env bash
# Set-up, linter, type checker, tests. Runs on the CPU.
#
#   bash scripts/test.sh [--slow]      --slow: the tests of minutes too; and, each in an environment of its own, those
#                                      of the adapters and of the PyTorch network
#
# PYTHON and VENV choose the interpreter and the environment's folder, as in scripts/setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection="not slow"
case "${1:-}" in
  "") ;;
  --slow) selection="slow or not slow" ;;
  *)
    echo "error: unknown option '$1'; usage: bash scripts/test.sh [--slow]" >&2
    exit 2
    ;;
esac

bash scripts/setup.sh test
bin="${VENV:-.venv}/bin"
"$bin/python" - <<'PYTHON'
import platform
from importlib.metadata import version

print(f"Python {platform.python_version()}, jax {version('jax')}, flax {version('flax')}, numpy {version('numpy')}")
PYTHON
python_version="$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

echo "ruff"
"$bin/ruff" check .
echo "mypy"
# checked as the interpreter at hand: a newer Python's libraries bring type stubs in its own syntax
"$bin/mypy" --python-version "$python_version"
echo "pytest, two processes, one file at a time each"
# one file stays in one process, so that what a file compiles once is compiled once
"$bin/python" -m pytest -q -n 2 --dist loadfile -m "$selection"
[[ "$selection" != "not slow" ]] || exit 0

adapters="${VENV:-.venv}-adapters"
echo "the adapters under other projects' checkers, in $adapters"
VENV="$adapters" bash scripts/setup.sh test,sklearn,pyod,aeon,sktime,tsbad
# its own requirements pin versions that do not go with ours; the extra tsbad has what its runner imports
"$adapters/bin/python" -m pip install -qq --disable-pip-version-check --no-deps "TSB-AD>=1.5,<2"
"$adapters/bin/python" -m pytest -q -m slow tests/test_adapters.py

yardstick="${VENV:-.venv}-torch"
echo "PyTorch's network beside ours, in $yardstick"
VENV="$yardstick" bash scripts/setup.sh test,torch
"$yardstick/bin/python" -m pytest -q tests/test_torch_network.py
