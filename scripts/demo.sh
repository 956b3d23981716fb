#!/usr/bin/env bash
# The whole flow on a simulated fleet with known faults, in minutes on two cores: set-up, simulate, train,
# score, evaluate, report. Everything lands in runs/demo, made anew each time; MTAD_DEMO_DIR names another folder.
set -euo pipefail
start="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run="${MTAD_DEMO_DIR:-runs/demo}"
if [[ -n "${MTAD_DEMO_DIR:-}" && "$run" != /* ]]; then
  run="$start/$run"
fi
# Only a folder that an earlier demo made is removed: the variable may point anywhere.
if [[ -e "$run" ]]; then
  if [[ ! -f "$run/.mtad_demo" && -n "$(ls -A "$run")" ]]; then
    echo "error: $run is not empty and no earlier demo made it; name another folder in MTAD_DEMO_DIR" >&2
    exit 1
  fi
  rm -rf "$run"
fi

bash scripts/setup.sh baselines  # all floors
mkdir -p "$run"
touch "$run/.mtad_demo"
run="$(cd "$run" && pwd)"
python="${VENV:-.venv}/bin/python"

step() {
  echo
  echo "== $*"
}

step "a fleet with faults of six kinds at three strengths"
"$python" scripts/prepare.py --dataset=simulated --data_dir="$run/data"
step "training, every machine at once"
"$python" scripts/train.py --config=configs/demo.py --data_dir="$run/data" --workdir="$run/work"
step "scoring"
"$python" scripts/score.py --workdir="$run/work"
step "evaluation"
"$python" scripts/evaluate.py --workdir="$run/work"
step "report"
"$python" scripts/report.py --workdir="$run/work"
echo
echo "The report: $run/work/report.html"
