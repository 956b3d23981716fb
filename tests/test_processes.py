"""train.py as two processes that find each other by what a job scheduler told; the run is that of one process."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import fleets
import numpy as np
import pytest
import share_part
from fleets import SCRIPTS, TINY, refused, run_here, run_process, succeeded

from mtad_jax.train.metrics_log import read_metrics

TESTS = Path(__file__).resolve().parent
NAMES = ("db-1", "db-2", "web-1", "web-2")
SETTINGS = (*TINY, "--config.train.num_train_steps=40")


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def run_slurm(*arguments: str | Path, num_processes: int = 2) -> list[tuple[int, str, str]]:
  """Returns (exit code, stdout, stderr) of the processes of one program, started with what Slurm's srun sets."""
  job = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": str(num_processes),
    "JAX_COORDINATOR_PORT": str(free_port()),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
  }
  started = [
    subprocess.Popen(
      [sys.executable, *map(str, arguments)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, **job, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
    )
    for i in range(num_processes)
  ]
  ends = [process.communicate(timeout=240) for process in started]
  return [(process.returncode, *end) for process, end in zip(started, ends, strict=True)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Four machines of five metrics, and before them in order one of four."""
  root = fleets.write_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
  for split, num_rows in (("train", fleets.NUM_TRAIN), ("test", fleets.NUM_TEST)):
    metrics = fleets.WEB[:4]
    fleets.write_csv(root / split / "app-1.csv", metrics, fleets.series(metrics, num_rows, 3))
  with (root / "roles.csv").open("a") as file:
    file.write("app-1,app\n")
  return root


@pytest.mark.slow
def test_two_processes_of_a_slurm_job_train_and_calibrate_one_fleet(fleet: Path, tmp_path: Path) -> None:
  arguments = (*SETTINGS, f"--source={fleet}")
  ends = run_slurm(SCRIPTS / "train.py", *arguments, f"--workdir={tmp_path / 'two'}", "--distributed")
  assert [code for code, _, _ in ends] == [0, 0], ends
  assert "on 2 cpu devices of 2 processes" in ends[0][1]
  # the first one tells it all; the CPU's transport, Gloo, has its own say
  assert [line for line in ends[1][1].splitlines() if not line.startswith("[Gloo]")] == []
  succeeded(run_here("train.py", *arguments, f"--workdir={tmp_path / 'one'}"))
  files = [json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("two", "one")]
  for name, entry in files[1]["machines"].items():
    np.testing.assert_allclose(files[0]["machines"][name]["threshold"], entry["threshold"], rtol=1e-3)
  rows = [[row for row in read_metrics(tmp_path / name) if "loss" in row] for name in ("two", "one")]
  for row, wanted in zip(*rows, strict=True):
    np.testing.assert_allclose(row["loss"], wanted["loss"], atol=1e-4)
  fleet_files = [(tmp_path / name / "fleet.json").read_text() for name in ("two", "one")]
  assert fleet_files[0] == fleet_files[1]


@pytest.mark.parametrize(
  ("per_block", "rows_of"),
  [
    # app-1 is alone of its kind: both devices share its windows
    (0, [{"app-1", "db-1", "db-2"}, {"app-1", "web-1", "web-2"}]),
    (2, [{"app-1", "db-1", "web-1"}, {"app-1", "db-2", "web-2"}]),
  ],
)
def test_a_process_holds_the_rows_of_its_own_machines_alone(
  fleet: Path, per_block: int, rows_of: list[set[str]]
) -> None:
  ends = run_slurm(TESTS / "share_part.py", fleet, str(per_block))
  assert [code for code, _, _ in ends] == [0, 0], ends
  told = [json.loads(out.splitlines()[-1]) for _, out, _ in ends]
  assert [set(one["rows_of"]) for one in told] == rows_of
  alone = json.loads(json.dumps(share_part.facts(fleet, per_block)))
  assert alone["rows_of"] == ["app-1", *NAMES]
  for one in told:
    assert one["fleet"] == alone["fleet"]
    assert one["extents"] == alone["extents"]
    for name in one["sums"]:  # what lies on its devices
      assert one["sums"][name] == alone["sums"][name]
  assert told[0]["sums"].keys() | told[1]["sums"].keys() == alone["sums"].keys()


def test_what_is_wrong_with_one_processs_machines_is_told_by_all(fleet: Path, tmp_path: Path) -> None:
  broken = shutil.copytree(fleet, tmp_path / "fleet")
  path = broken / "train" / "web-2.csv"
  path.write_text(path.read_text().replace("\n", "\nnonsense", 2))
  arguments = (*SETTINGS, f"--source={broken}", f"--workdir={tmp_path / 'run'}", "--distributed")
  ends = run_slurm(SCRIPTS / "train.py", *arguments)
  assert [code for code, _, _ in ends] == [1, 1], ends
  for _, _, err in ends:
    assert "error: " in err
    assert "web-2.csv" in err
  assert not (tmp_path / "run").exists()


def test_without_a_job_scheduler_or_with_both_ways_the_refusal_says_so(
  fleet: Path, tmp_path: Path
) -> None:
  arguments = (*SETTINGS, f"--source={fleet}", f"--workdir={tmp_path / 'run'}", "--distributed")
  told = refused(run_process("train.py", *arguments), 1, "--distributed: neither a TPU pod nor Slurm")
  assert "--coordinator" in told
  refused(run_here("train.py", *arguments, "--process_id=0"), 2, "--distributed and --process_id: one of them")
  assert not (tmp_path / "run").exists()
