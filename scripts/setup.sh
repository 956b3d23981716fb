#!/usr/bin/env bash
# Makes the virtual environment and installs this package into it; does nothing where that is done already.
#
#   bash scripts/setup.sh [EXTRAS]     EXTRAS as in pyproject.toml, comma-separated: test, tensorboard, gcs
#
# PYTHON   the interpreter to build with (default python3; 3.11 to 3.13)
# VENV     the folder of the environment (default .venv, relative to the repository)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "error: $*" >&2
  exit 1
}

extras="${1:-}"
python="${PYTHON:-python3}"
venv="${VENV:-.venv}"
[[ "$extras" =~ ^[a-z,]*$ ]] || fail "extras '$extras': names of pyproject.toml's extras are wanted, as in test,gcs"

version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# An interpreter that does not start (a moved or half-made environment) is rebuilt rather than repaired.
if [[ -x "$venv/bin/python" ]] && found="$(version_of "$venv/bin/python")"; then
  if [[ -n "${PYTHON:-}" ]]; then
    wanted="$(version_of "$python")" || fail "PYTHON=$python does not start"
    [[ "$wanted" == "$found" ]] ||
      fail "$venv holds Python $found and PYTHON=$python is $wanted; set VENV to another folder or remove $venv"
  fi
else
  found=""
  version="$(version_of "$python")" || fail "$python does not start; set PYTHON to a Python 3.11, 3.12 or 3.13"
  case "$version" in
    3.11 | 3.12 | 3.13) ;;
    *) fail "$python is Python $version; set PYTHON to a Python 3.11, 3.12 or 3.13" ;;
  esac
fi

# What decides whether an install is up to date: the project file, and the extras asked for so far.
checksum="$(cksum < pyproject.toml)"
stamp="$venv/.installed"
if [[ -n "$found" && -f "$stamp" ]]; then
  installed="$(sed -n 2p "$stamp")"
  missing=""
  for extra in ${extras//,/ }; do
    [[ ",$installed," == *",$extra,"* ]] || missing="$missing $extra"
  done
  if [[ "$(sed -n 1p "$stamp")" == "$checksum" && -z "$missing" ]]; then
    exit 0
  fi
  # what an earlier call asked for stays asked for
  extras="$(printf '%s\n' ${installed//,/ } ${extras//,/ } | sort -u | paste -sd, -)"
fi

if [[ -z "$found" ]]; then
  echo "set-up: Python $version into $venv"
  "$python" -m venv --clear "$venv" ||
    fail "$python -m venv failed; Debian and Ubuntu have it in the package python3-venv"
fi
"$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip > /dev/null

target="."
[[ -z "$extras" ]] || target=".[$extras]"
echo "set-up: installing mtad_jax$([[ -z "$extras" ]] || echo " with $extras") (a minute or two the first time)"
rm -f "$stamp"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --editable "$target" ||
  fail "pip could not install the dependencies of pyproject.toml; its message stands above"
printf '%s\n%s\n' "$checksum" "$extras" > "$stamp"
