"""Prepared datasets: bit-equal round trips, and nothing half-made after a kill, a failure or a full disk."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mtad_jax.data.builder import (
  DATASETS,
  FleetBuilder,
  build_dataset,
  find_dataset,
  is_prepared,
  read_dataset,
)
from mtad_jax.data.fingerprint import fingerprint_folder, fingerprint_text
from mtad_jax.data.machine import Interpretation, Machine, Series, empty_series


def fleet() -> list[Machine]:
  """Four machines that differ in everything: widths, times, labels, causes, an empty test split."""
  rng = np.random.default_rng(0)
  times = np.datetime64("2026-01-05", "ms") + np.cumsum(rng.integers(1, 10**6, 50)).astype("timedelta64[ms]")
  values = rng.normal(size=(50, 3)) * 10.0 ** rng.integers(-300, 300, (50, 3))
  values[3], values[4, 1], values[5, 2] = np.nan, -0.0, 5e-324
  causes = (Interpretation(3, 9, (0, 2), "spike", "weak"), Interpretation(20, 21, ()))
  metrics = ("cpu", "größe; %", "a,b")
  series = Series(values, times)
  return [
    Machine("m-10", "web", metrics, series, Series(values[:20], times[:20]), np.arange(20) > 9, causes),
    Machine("m-2", "db", ("x",), Series(rng.normal(size=(7, 1))), Series(rng.normal(size=(1, 1)))),
    Machine("m-3", "db", ("x", "y"), Series(rng.normal(size=(7, 2))), empty_series(2)),
    Machine("é", "", ("x",), Series(np.zeros((7, 1))), Series(np.zeros((2, 1))), np.zeros(2, bool)),
  ]


def assert_bit_equal(here: Machine, there: Machine) -> None:
  assert (here.name, here.role, here.metrics) == (there.name, there.role, there.metrics)
  assert here.interpretation == there.interpretation
  pairs = [(here.labels, there.labels)]
  for left, right in ((here.train, there.train), (here.test, there.test)):
    pairs += [(left.values, right.values), (left.timestamps, right.timestamps)]
  for left_array, right_array in pairs:
    assert (left_array is None) == (right_array is None)
    if left_array is not None and right_array is not None:
      assert (left_array.dtype, left_array.shape) == (right_array.dtype, right_array.shape)
      assert left_array.tobytes() == right_array.tobytes()


def leftovers(root: Path) -> list[str]:
  return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("name", DATASETS)
def test_round_trip_is_bit_equal_and_in_order(tmp_path: Path, name: str) -> None:
  machines = fleet()
  assert build_dataset(name, machines, str(tmp_path), "hash")
  back = read_dataset(name, str(tmp_path))
  for here, there in zip(machines, back, strict=True):
    assert_bit_equal(here, there)
  back[0].train.values[0] = 1.0  # writable, as from a file
  assert leftovers(tmp_path) == [name]


def test_only_the_wanted_machines_are_read(tmp_path: Path) -> None:
  build_dataset("folder", fleet(), str(tmp_path), "hash")
  chosen = read_dataset("folder", str(tmp_path), ("é", "m-2"))
  assert [machine.name for machine in chosen] == ["m-2", "é"]
  with pytest.raises(ValueError, match="no machine 'm-1'; known: m-10, m-2, m-3, é"):
    read_dataset("folder", str(tmp_path), ("m-1",))


def test_second_call_does_nothing_and_other_data_are_refused(tmp_path: Path) -> None:
  def never() -> Iterator[Machine]:
    raise AssertionError("a second call must not read the machines")
    yield

  data_dir = str(tmp_path)
  assert not is_prepared("smd", data_dir, "one")
  assert build_dataset("smd", fleet(), data_dir, "one")
  stored = sorted((tmp_path / "smd").rglob("*"))
  assert not build_dataset("smd", never(), data_dir, "one")
  assert is_prepared("smd", data_dir, "one")
  with pytest.raises(ValueError, match=r"smd: made from other data \(4 machines\); --overwrite replaces it"):
    build_dataset("smd", never(), data_dir, "two")
  assert sorted((tmp_path / "smd").rglob("*")) == stored
  assert build_dataset("smd", fleet()[:2], data_dir, "two", overwrite=True)
  found = find_dataset("smd", data_dir)
  assert found is not None
  assert (found.fingerprint, found.machines) == ("two", ("m-10", "m-2"))
  assert leftovers(tmp_path) == ["smd"]


def test_a_machine_twice_or_none_is_refused_and_leaves_the_old_dataset(tmp_path: Path) -> None:
  machines = fleet()
  build_dataset("smd", machines, str(tmp_path), "one")
  with pytest.raises(ValueError, match="machine 'm-2' is there twice; names must differ"):
    build_dataset("smd", [*machines, machines[1]], str(tmp_path), "two", overwrite=True)
  with pytest.raises(ValueError, match="no machines; at least one is wanted"):
    build_dataset("smd", [], str(tmp_path), "two", overwrite=True)
  wrong = machines[0]._replace(metrics=("cpu",))
  with pytest.raises(ValueError, match=r"'m-10': train values have shape \(50, 3\); \[rows, 1\] is wanted"):
    build_dataset("smd", [wrong], str(tmp_path), "two", overwrite=True)
  assert leftovers(tmp_path) == ["smd"]
  assert_bit_equal(read_dataset("smd", str(tmp_path))[3], machines[3])


KILLED = """
import os, signal, sys
import numpy as np
from mtad_jax.data.builder import build_dataset
from mtad_jax.data.machine import Machine, Series

def machines():
  for i in range(3):
    if i == 2:
      os.kill(os.getpid(), signal.SIGKILL)
    values = np.random.default_rng(i).normal(size=(20_000, 30))
    yield Machine(f"m{i}", "", tuple(f"x{j}" for j in range(30)), Series(values), Series(values))

build_dataset("folder", machines(), sys.argv[1], "hash", overwrite=len(sys.argv) > 2)
"""


def test_killed_while_writing_leaves_nothing_readable(tmp_path: Path) -> None:
  command = [sys.executable, "-c", KILLED, str(tmp_path)]
  assert subprocess.run(command, capture_output=True, timeout=60).returncode == -signal.SIGKILL
  assert find_dataset("folder", str(tmp_path)) is None
  with pytest.raises(ValueError, match="no prepared dataset"):
    read_dataset("folder", str(tmp_path))
  assert build_dataset("folder", fleet(), str(tmp_path), "hash")
  # killed while replacing: the old one stays
  assert (
    subprocess.run([*command, "overwrite"], capture_output=True, timeout=60).returncode == -signal.SIGKILL
  )
  assert_bit_equal(read_dataset("folder", str(tmp_path))[0], fleet()[0])
  assert build_dataset("folder", fleet()[1:], str(tmp_path), "hash", overwrite=True)
  assert leftovers(tmp_path) == ["folder"]


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
  def meddle() -> Iterator[Machine]:
    with pytest.raises(ValueError, match="another process is preparing it"):
      build_dataset("smd", fleet(), str(tmp_path), "two")
    yield from fleet()

  assert build_dataset("smd", meddle(), str(tmp_path), "one")


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
  root = tmp_path / "small"
  root.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)]
  if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("a small tmpfs cannot be mounted here")
  try:
    values = np.random.default_rng(0).normal(size=(40_000, 3))
    machine = Machine("m", "", ("a", "b", "c"), Series(values), Series(values))
    with pytest.raises(OSError, match="No space left on device") as caught:
      build_dataset("folder", [machine], str(root), "hash")
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    assert leftovers(root) == []
    assert build_dataset("folder", fleet(), str(root), "hash")
  finally:
    subprocess.run(["umount", str(root)], check=True)


@pytest.mark.parametrize(
  ("fault", "shown"),
  [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
    (RuntimeError("disk gone"), "writing failed"),
  ],
)
def test_failed_write_keeps_the_old_dataset(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, shown: str
) -> None:
  build_dataset("smd", fleet(), str(tmp_path), "one")

  def broken(self: FleetBuilder) -> None:
    raise fault

  monkeypatch.setattr(FleetBuilder, "download_and_prepare", broken)
  with pytest.raises(OSError, match=shown):
    build_dataset("smd", fleet(), str(tmp_path), "two", overwrite=True)
  monkeypatch.undo()
  assert leftovers(tmp_path) == ["smd"]
  assert len(read_dataset("smd", str(tmp_path))) == 4


def test_wrong_places(tmp_path: Path) -> None:
  with pytest.raises(ValueError, match="dataset 'swat' is unknown; one of smd, smap, msl, folder, simulated"):
    read_dataset("swat", str(tmp_path))
  for call in (lambda: read_dataset("smd", "gs://b/d"), lambda: build_dataset("smd", [], "gs://b/d", "")):
    with pytest.raises(
      ValueError, match="'gs://b/d' is a cloud address; ArrayRecord files need a local folder"
    ):
      call()
  (tmp_path / "smd").mkdir()
  with pytest.raises(ValueError, match=r"not a dataset of version .*--overwrite"):
    find_dataset("smd", str(tmp_path))
  build_dataset("smd", fleet(), str(tmp_path), "one", overwrite=True)
  for record in (tmp_path / "smd").rglob("*array_record*"):
    record.write_bytes(record.read_bytes()[:100])
  with pytest.raises(ValueError, match="damaged; prepare it again with --overwrite"):
    read_dataset("smd", str(tmp_path))


def test_tensorflow_is_never_imported(tmp_path: Path) -> None:
  code = (
    "import sys\n"
    "import numpy as np\n"
    "from mtad_jax.data.builder import build_dataset, read_dataset\n"
    "from mtad_jax.data.machine import Machine, Series\n"
    "s = Series(np.zeros((3, 1)))\n"
    "build_dataset('smd', [Machine('m', '', ('x',), s, s)], sys.argv[1], '')\n"
    "print(len(read_dataset('smd', sys.argv[1])), 'tensorflow' in sys.modules)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
  )
  assert done.stdout == "1 False\n"


def test_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
  (tmp_path / "train").mkdir()
  file = tmp_path / "train" / "a.txt"
  file.write_text("1,2\n")
  first = fingerprint_folder(tmp_path)
  assert first == fingerprint_folder(tmp_path)
  seen = {first, fingerprint_folder(tmp_path, "other machines")}
  file.write_text("1,3\n")
  seen.add(fingerprint_folder(tmp_path))
  file.rename(tmp_path / "train" / "b.txt")
  seen.add(fingerprint_folder(tmp_path))
  (tmp_path / "roles.csv").write_text("machine,role\n")
  seen.add(fingerprint_folder(tmp_path))
  assert len(seen) == 5
  (tmp_path / "unrelated.log").write_text("a dataset beside the sources, say")
  assert fingerprint_folder(tmp_path) in seen
  assert fingerprint_text("ab", "c") != fingerprint_text("a", "bc")
