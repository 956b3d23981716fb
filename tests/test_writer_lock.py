"""The writer's lock: one program at a time, and a killed one leaves nothing that stops the next."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from mtad_jax.detect.tables import SCHEMAS, open_tables
from mtad_jax.train.workdir import sweep, write_whole
from mtad_jax.train.writer_lock import LOCK, writer_lock

HOLDER = """
import sys, time
from mtad_jax.train.writer_lock import writer_lock
with writer_lock(sys.argv[1], "holder.py"):
  print("held", flush=True)
  time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the lock of tmp_path."""
  process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_a_second_program_is_told_who_is_writing(tmp_path, holder):
  who = rf"holder.py \(process {holder.pid} on .+, since 20.+\)"
  told = rf"^{tmp_path}: {who} is writing here; wait for it or stop it$"
  with pytest.raises(ValueError, match=told), writer_lock(tmp_path, "train.py"):
    pytest.fail("two writers")


def test_a_killed_writer_leaves_nothing_that_stops_the_next(tmp_path, holder):
  os.kill(holder.pid, signal.SIGKILL)
  holder.wait()
  assert (tmp_path / LOCK).exists()
  with writer_lock(tmp_path, "train.py"):
    assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
  assert list(tmp_path.iterdir()) == []


def test_a_second_lock_in_one_process_is_refused_and_the_first_holds_on(tmp_path):
  with writer_lock(tmp_path, "train.py"):
    for _ in range(2):
      with pytest.raises(ValueError, match=r"train.py \(process"), writer_lock(tmp_path, "calibrate.py"):
        pytest.fail("two writers")
  with writer_lock(tmp_path, "calibrate.py"):
    pass


def test_a_failure_inside_lets_the_lock_go(tmp_path):
  with pytest.raises(KeyError), writer_lock(tmp_path, "train.py"):
    raise KeyError("inside")
  with writer_lock(tmp_path, "train.py"):
    pass


def test_a_longer_name_before_leaves_no_rest_in_the_text(tmp_path):
  (tmp_path / LOCK).write_text("x" * 3000)
  with writer_lock(tmp_path, "train.py"):
    assert json.loads((tmp_path / LOCK).read_text())["program"] == "train.py"


def test_a_lock_without_its_text_yet_is_still_a_lock(tmp_path):
  with writer_lock(tmp_path, "train.py"):
    (tmp_path / LOCK).write_text("")
    with pytest.raises(ValueError, match="another program is writing here"), writer_lock(tmp_path, "b"):
      pytest.fail("two writers")


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
  with (
    pytest.raises(OSError, match=r"none/\.lock: the writer's lock cannot be made: No such file"),
    writer_lock(tmp_path / "none", "train.py"),
  ):
    pytest.fail("no folder, no lock")


def test_in_the_cloud_the_lock_is_an_object_made_only_if_absent():
  folder = "memory://runs/one"
  store = fsspec.filesystem("memory")
  with writer_lock(folder, "train.py"):
    assert json.loads(store.cat_file("runs/one/.lock"))["program"] == "train.py"
    told = r"runs/one: train.py \(process .* if it was killed, delete memory://runs/one/.lock and run again"
    with pytest.raises(ValueError, match=told), writer_lock(folder, "calibrate.py"):
      pytest.fail("two writers")
    assert store.exists("runs/one/.lock")
  assert not store.exists("runs/one/.lock")
  with pytest.raises(KeyError), writer_lock(folder, "train.py"):
    raise KeyError("inside")
  assert not store.exists("runs/one/.lock")


def test_in_the_cloud_a_lock_replaced_by_hand_is_not_removed():
  store = fsspec.filesystem("memory")
  with writer_lock("memory://runs/two", "train.py"):
    store.pipe_file("runs/two/.lock", b"another's")
  assert store.cat_file("runs/two/.lock") == b"another's"
  store.rm_file("runs/two/.lock")


def test_sweep_removes_what_killed_writers_leave_and_nothing_else(tmp_path):
  litter = [".config.json.0a1b2c3d", ".inference_score.csv.ffffffff", ".metric_scores.01234567.parquet"]
  litter += [".metrics.jsonl.new", ".scores.89abcdef.parquet"]
  kept = [
    "config.json",
    "metrics.jsonl",
    "scores.parquet",
    ".lock",
    ".hidden",
    ".config.json",
    ".note.deadbeef",
  ]
  kept += [".config.json.0a1b2c3", ".config.json.0A1B2C3D", "x.config.json.0a1b2c3d", ".report.html.4711"]
  for name in litter + kept:
    (tmp_path / name).write_text("x")
  (tmp_path / ".run.json.00000000").mkdir()
  (tmp_path / "below").mkdir()
  (tmp_path / "below" / ".config.json.0a1b2c3d").write_text("x")
  assert sweep(tmp_path) == sorted(litter)
  left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
  assert left == sorted([*kept, "below/.config.json.0a1b2c3d"])
  assert sweep(tmp_path) == []


def test_sweep_knows_the_names_that_writing_gives(tmp_path, monkeypatch):
  """Writers that end before their rename, as a kill would: their files are there, and are swept."""
  with open_tables(tmp_path, "run", True):
    during = {path.name for path in tmp_path.iterdir()}
    assert len(during) == len(SCHEMAS)
    copies = {name: (tmp_path / name).read_bytes() for name in during}
  for path in tmp_path.iterdir():
    path.unlink()
  for name, content in copies.items():
    (tmp_path / name).write_bytes(content)

  seen = []
  monkeypatch.setattr("etils.epath.gpath.PosixGPath.replace", lambda path, target: seen.append(path.name))
  write_whole(tmp_path / "run.json", "{}")
  (tmp_path / seen[0]).write_text("{}")
  assert set(sweep(tmp_path)) == {*during, seen[0]}


def test_writing_names_the_file_when_the_disk_does_not_take_it(tmp_path):
  (tmp_path / "run.json").mkdir()
  with pytest.raises(OSError, match=r"run\.json: cannot be written: .*is a directory"):
    write_whole(tmp_path / "run.json", "{}")
  assert [path.name for path in Path(tmp_path).iterdir()] == ["run.json"]
