"""train.py as two processes that find each other by what a job scheduler told; the run is that of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import fleets
import numpy as np
from fleets import SCRIPTS, TINY, refused, run_here, run_process, succeeded

from mtad_jax.train.metrics_log import read_metrics

SETTINGS = (*TINY, "--config.train.num_train_steps=40")


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def run_slurm(num_processes: int, *arguments: str) -> list[tuple[int, str, str]]:
  """Returns (exit code, stdout, stderr) of train.py's processes, started with what Slurm's srun sets."""
  job = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": str(num_processes),
    "JAX_COORDINATOR_PORT": str(free_port()),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",
  }
  started = [
    subprocess.Popen(
      [sys.executable, str(SCRIPTS / "train.py"), *arguments, "--distributed"],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, **job, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
    )
    for i in range(num_processes)
  ]
  ends = [process.communicate(timeout=240) for process in started]
  return [(process.returncode, *end) for process, end in zip(started, ends, strict=True)]


def test_two_processes_of_a_slurm_job_train_and_calibrate_one_fleet(tmp_path: Path) -> None:
  fleet = fleets.write_fleet(tmp_path / "fleet")
  arguments = (*SETTINGS, f"--source={fleet}")
  ends = run_slurm(2, *arguments, f"--workdir={tmp_path / 'two'}")
  assert [code for code, _, _ in ends] == [0, 0], ends
  assert "on 4 cpu devices of 2 processes" in ends[0][1]
  # the first one tells it all; the CPU's transport, Gloo, has its own say
  assert [line for line in ends[1][1].splitlines() if not line.startswith("[Gloo]")] == []
  succeeded(run_here("train.py", *arguments, f"--workdir={tmp_path / 'one'}"))
  files = [json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("two", "one")]
  for name, entry in files[1]["machines"].items():
    np.testing.assert_allclose(files[0]["machines"][name]["threshold"], entry["threshold"], rtol=1e-3)
  rows = [read_metrics(tmp_path / name)[1:] for name in ("two", "one")]
  for row, wanted in zip(*rows, strict=True):
    np.testing.assert_allclose(row["loss"], wanted["loss"], atol=1e-4)
  fleet_files = [(tmp_path / name / "fleet.json").read_text() for name in ("two", "one")]
  assert fleet_files[0] == fleet_files[1]


def test_without_a_job_scheduler_or_with_both_ways_the_refusal_says_so(tmp_path: Path) -> None:
  fleet = fleets.write_fleet(tmp_path / "fleet", ("db-1",))
  arguments = (*SETTINGS, f"--source={fleet}", f"--workdir={tmp_path / 'run'}", "--distributed")
  told = refused(run_process("train.py", *arguments), 1, "--distributed: neither a TPU pod nor Slurm")
  assert "--coordinator" in told
  refused(run_here("train.py", *arguments, "--process_id=0"), 2, "--distributed and --process_id: one of them")
  assert not (tmp_path / "run").exists()
