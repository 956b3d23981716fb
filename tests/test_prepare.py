"""scripts/prepare.py as a user calls it: what it prints, its exit codes, and one line for every bad input."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mtad_jax.data.builder import read_dataset
from mtad_jax.data.smd import read_smd

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "prepare.py"


def prepare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, str(SCRIPT), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, timeout=120)


def fleet_folder(root: Path, num_rows: int = 30) -> Path:
  rng = np.random.default_rng(0)
  for split in ("train", "test"):
    (root / split).mkdir(parents=True)
    for name in ("web-2", "web-10"):
      np.savetxt(root / split / f"{name}.txt", rng.random((num_rows, 3)), delimiter=",")
  (root / "test_label").mkdir()
  for name in ("web-2", "web-10"):
    np.savetxt(root / "test_label" / f"{name}.txt", np.arange(num_rows) < num_rows // 10, fmt="%d")
  return root


def refused(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
  assert done.returncode == code, done.stderr
  (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
  assert "Traceback" not in done.stderr
  for part in parts:
    assert part in line


def test_folder_is_prepared_once(tmp_path: Path) -> None:
  source, data_dir = fleet_folder(tmp_path / "raw"), tmp_path / "data"
  arguments = ("--dataset=folder", f"--source={source}", f"--data_dir={data_dir}")
  done = prepare(*arguments)
  assert done.returncode == 0, done.stderr
  assert done.stderr == ""
  lines = done.stdout.splitlines()
  assert lines[0].split() == ["machine", "role", "train", "test", "metrics", "anomalous", "missing"]
  assert lines[1].split() == ["web-2", "all", "30", "30", "3", "10.00%", "0.00%"]
  assert lines[-1] == f"{data_dir / 'folder'}: 2 machines, 120 rows prepared"

  again = prepare(*arguments)
  assert (again.returncode, again.stderr) == (0, "")
  assert again.stdout == f"{data_dir / 'folder'}: already prepared from the same data; nothing to do\n"

  np.savetxt(source / "train" / "web-2.txt", np.ones((40, 3)), delimiter=",")
  refused(prepare(*arguments), 1, "made from other data", "--overwrite")
  assert len(read_dataset("folder", str(data_dir))[0].train.values) == 30
  assert prepare(*arguments, "--overwrite").returncode == 0
  assert len(read_dataset("folder", str(data_dir))[0].train.values) == 40


def test_simulated_fleet(tmp_path: Path) -> None:
  arguments = ("--dataset=simulated", "--sim_machines=2", "--sim_seed=3", f"--data_dir={tmp_path}")
  done = prepare(*arguments)
  assert done.returncode == 0, done.stderr
  machines = read_dataset("simulated", str(tmp_path))
  assert len(machines) == 2
  assert all(machine.interpretation and machine.interpretation[0].kind for machine in machines)
  assert "nothing to do" in prepare(*arguments).stdout
  refused(prepare("--sim_seed=4", *arguments[:2], arguments[3]), 1, "made from other data")


def test_download(tmp_path: Path) -> None:
  """A whole SMD of 28 tiny machines from a server on loopback."""
  from mtad_jax.data.publishers import PUBLISHERS

  published = tmp_path / "published"
  for file in PUBLISHERS["smd"].files:
    path = published / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    row = (
      "0-1:1,38\n"
      if "interpretation" in file.path
      else "0\n"
      if "label" in file.path
      else "0.5," * 37 + "1\n"
    )
    path.write_text(row)

  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
      """Says nothing: the test's output is for the test."""

  server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Quiet, directory=str(published))
  )
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    url = f"--url=http://127.0.0.1:{server.server_address[1]}/"
    arguments = ("--dataset=smd", "--download", url, f"--data_dir={tmp_path / 'data'}")
    done = prepare(*arguments)
    assert done.returncode == 0, done.stderr
    assert "112 files unverified" in done.stdout
    assert "28 machines, 56 rows prepared" in done.stdout
    again = prepare(*arguments)
    assert "nothing to do" in again.stdout
    assert "unverified" not in again.stdout
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
  assert len(read_smd(tmp_path / "data" / "downloads" / "ServerMachineDataset")) == 28


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    (("--dataset=swat", "--data_dir=d", "--source=s"), ("dataset", "smd")),
    (("--dataset=smd", "--data_dir=d"), ("--source=DIR or --download is needed",)),
    (("--dataset=folder", "--data_dir=d", "--download"), ("'folder' has no publisher",)),
    (("--dataset=simulated", "--data_dir=d", "--source=s"), ("a simulated fleet has none",)),
    (("--dataset=folder", "--data_dir=d", "--source=s", "--sauce=1"), ("sauce",)),
  ],
)
def test_wrong_usage(arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
  refused(prepare(*arguments), 2, *parts)


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
  source, data_dir = fleet_folder(tmp_path / "raw"), tmp_path / "data"
  arguments = ("--dataset=folder", f"--source={source}", f"--data_dir={data_dir}")
  refused(prepare(*arguments, "--machines=db-1"), 1, "no machine 'db-1'; known: web-2, web-10")
  refused(prepare(*arguments[:2], "--data_dir=gs://bucket/x"), 1, "'gs://bucket/x' is a cloud address")
  wrong = source / "test" / "web-10.txt"
  wrong.write_text("1,2,3\n1,2\n")
  refused(prepare(*arguments), 1, f"{wrong}: row 2: 2 fields; 3 are wanted")
  (source / "train" / "web-10.txt").unlink()
  refused(prepare(*arguments), 1, "machine 'web-10' is in test/ but not in train/")
  assert not data_dir.exists()


def test_full_disk_is_one_line(tmp_path: Path) -> None:
  small = tmp_path / "small"
  small.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
  if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("a small tmpfs cannot be mounted here")
  try:
    source = fleet_folder(tmp_path / "raw", num_rows=10_000)
    done = prepare("--dataset=folder", f"--source={source}", f"--data_dir={small}")
    refused(done, 1, "No space left on device")
    assert [path.name for path in small.iterdir() if path.suffix != ".lock"] == []
  finally:
    subprocess.run(["umount", str(small)], check=True)


def test_real_smap(real_data: Path, tmp_path: Path) -> None:
  done = prepare("--dataset=smap", f"--source={real_data / 'telemanom'}", f"--data_dir={tmp_path}")
  assert done.returncode == 0, done.stderr
  assert "channel T-10 is left out" in done.stderr
  assert "54 machines" in done.stdout
