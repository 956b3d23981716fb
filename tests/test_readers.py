"""Fleet folders: what reads, in which order, and the line that every wrong file gives."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from write_fleet import write_fleet_folder

from mtad_jax.data.fleet_folder import natural_key, read_fleet_folder
from mtad_jax.data.machine import Interpretation, Machine, Series, empty_series
from mtad_jax.data.text_table import _read_slow, read_fields

CSV = "timestamp,cpu,memory,is_anomaly\n"


def put(root: Path, name: str, content: str | bytes | np.ndarray) -> Path:
  path = root / name
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(content, np.ndarray):
    np.save(path, content)
  elif isinstance(content, bytes):
    path.write_bytes(content)
  else:
    path.write_text(content)
  return path


def text_fleet(root: Path, *names: str) -> Path:
  """Writes a healthy fleet of txt files: two metrics, three training rows, four test rows."""
  for name in names or ("a",):
    put(root, f"train/{name}.txt", "1,2\n3,4\n5,6\n")
    put(root, f"test/{name}.txt", "1,2\n3,4\n5,6\n7,8\n")
  return root


def fails(root: Path, *parts: str, **options: object) -> None:
  """Asserts that reading gives one line with all the parts in it."""
  with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
    read_fleet_folder(root, **options)  # type: ignore[arg-type]
  message = str(caught.value)
  assert "\n" not in message
  for part in parts:
    assert part in message


def example_fleet() -> list[Machine]:
  rng = np.random.default_rng(0)
  start = np.datetime64("2026-01-05T00:00:00", "ms")
  result = []
  for i, name in enumerate(("web-1", "web-2", "web-10")):
    train, test = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) * 1e9 + 1 / 3
    train[4, 1] = np.nan
    test[7] = np.nan
    times = [start + np.arange(n) * np.timedelta64(60_000, "ms") for n in (30, 20)]
    labels = np.arange(20) > 15
    causes = (Interpretation(16, 20, (0, 2), "spike", "middle"),) if i else (Interpretation(2, 5, (1,)),)
    metrics = ("cpu", "mem, used", "disk")
    result.append(
      Machine(name, f"role {i % 2}", metrics, Series(train, times[0]), Series(test, times[1]), labels, causes)
    )
  return result


def assert_same(here: Machine, there: Machine) -> None:
  assert here[:3] == there[:3]
  assert here.interpretation == there.interpretation
  for left, right in ((here.train, there.train), (here.test, there.test)):
    np.testing.assert_array_equal(left.values, right.values, strict=True)
    assert (left.timestamps is None) == (right.timestamps is None)
    if left.timestamps is not None:
      np.testing.assert_array_equal(left.timestamps, right.timestamps, strict=True)
  assert (here.labels is None) == (there.labels is None)
  if here.labels is not None:
    np.testing.assert_array_equal(here.labels, there.labels, strict=True)


@pytest.mark.parametrize("extension", [".csv", ".parquet"])
def test_written_folder_reads_back_bit_equal(tmp_path: Path, extension: str) -> None:
  fleet = example_fleet()
  write_fleet_folder(fleet, tmp_path / "fleet", extension=extension)
  back = read_fleet_folder(tmp_path / "fleet")
  assert [machine.name for machine in back] == ["web-1", "web-2", "web-10"]
  for here, there in zip(fleet, back, strict=True):
    assert_same(here, there)


@pytest.mark.parametrize("extension", [".txt", ".npy"])
def test_headerless_folder_reads_back(tmp_path: Path, extension: str) -> None:
  fleet = [
    machine._replace(train=Series(machine.train.values), test=Series(machine.test.values))
    for machine in example_fleet()
  ]
  write_fleet_folder(fleet, tmp_path / "fleet", extension=extension)
  back = read_fleet_folder(tmp_path / "fleet", metrics=fleet[0].metrics)
  for here, there in zip(fleet, back, strict=True):
    assert_same(here, there)


def test_writer_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
  fleet = example_fleet()
  with pytest.raises(ValueError, match=r"has timestamps, which \.txt cannot hold"):
    write_fleet_folder(fleet, tmp_path / "fleet", extension=".txt")
  with pytest.raises(ValueError, match="'web-1' is there twice"):
    write_fleet_folder([fleet[0], fleet[0]], tmp_path / "fleet")
  (tmp_path / "there").mkdir()
  with pytest.raises(ValueError, match="is there already"):
    write_fleet_folder(fleet, tmp_path / "there")
  assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_natural_order_and_default_names(tmp_path: Path) -> None:
  text_fleet(tmp_path, "m-1-10", "m-1-2", "m-1-1", "x", "3")
  machines = read_fleet_folder(tmp_path)
  assert [machine.name for machine in machines] == ["3", "m-1-1", "m-1-2", "m-1-10", "x"]
  assert machines[0].metrics == ("metric_0", "metric_1")
  assert machines[0].labels is None
  assert machines[0].role == machines[1].role
  assert sorted(["b10", "b9", "b"], key=natural_key) == ["b", "b9", "b10"]


def test_fast_and_slow_parsers_agree() -> None:
  rng = np.random.default_rng(1)
  values = rng.normal(size=(200, 5)) * 10.0 ** rng.integers(-12, 12, (200, 5))
  rows = [[repr(float(value)) for value in row] for row in values]
  rows[3][2], rows[4][0], rows[5][4] = "", "nan", "NaN"
  data = "\n".join(",".join(row) for row in rows).encode()
  columns = [f"c{i}" for i in range(5)]
  _, fast = read_fields(data, columns, num_text=0, file="f", first_row=1)
  _, slow = _read_slow(data, columns, 0, "f", 1)
  np.testing.assert_array_equal(fast, slow, strict=True)
  values[3, 2] = values[4, 0] = values[5, 4] = np.nan
  np.testing.assert_array_equal(fast, values, strict=True)


def test_what_a_spreadsheet_writes_is_read(tmp_path: Path) -> None:
  content = '\ufeffTimestamp,"cpu, user",mem,Label\r\n0,+1.5,,0\r\n60, 2 ,4e0,1\r\n\r\n'
  put(tmp_path, "train/a.csv", 'timestamp,"cpu, user",mem\n0,1,2\n60,3,4\n')
  put(tmp_path, "test/a.csv", content)
  (machine,) = read_fleet_folder(tmp_path)
  assert machine.metrics == ("cpu, user", "mem")
  np.testing.assert_array_equal(machine.test.values, [[1.5, np.nan], [2, 4]])
  assert machine.labels is not None
  assert machine.labels.tolist() == [False, True]
  assert machine.test.timestamps is not None
  assert machine.test.timestamps.tolist() == np.array([0, 60_000], "datetime64[ms]").tolist()


@pytest.mark.parametrize(
  "first", ["2026-03-01T00:00:00Z", "2026-03-01 01:00:00+01:00", "1772323200", "1772323200.0"]
)
def test_timestamps_in_every_form(tmp_path: Path, first: str) -> None:
  put(tmp_path, "train/a.csv", f"timestamp,cpu\n{first},1\n")
  (machine,) = read_fleet_folder(tmp_path)
  assert machine.train.timestamps is not None
  assert str(machine.train.timestamps[0]) == "2026-03-01T00:00:00.000"


def test_parquet_with_zoned_times_and_integers(tmp_path: Path) -> None:
  times = pa.array([0, 1_500_000], pa.timestamp("us", "Europe/Berlin"))
  (tmp_path / "train").mkdir()
  table = pa.table({"timestamp": times, "cpu": pa.array([1, None], pa.int64())})
  pa.parquet.write_table(table, tmp_path / "train/a.parquet")
  (machine,) = read_fleet_folder(tmp_path)
  assert machine.train.timestamps is not None
  assert machine.train.timestamps.astype(int).tolist() == [0, 1500]
  np.testing.assert_array_equal(machine.train.values, [[1], [np.nan]])


def test_train_only_and_test_only(tmp_path: Path) -> None:
  text_fleet(tmp_path)
  put(tmp_path, "train/b.txt", "1,2\n")
  only_train = read_fleet_folder(tmp_path, machines=("b",))[0]
  assert_same(only_train, only_train._replace(test=empty_series(2), labels=None))
  put(tmp_path, "test/c.txt", "1,2\n")
  fails(tmp_path, "c.txt", "machine 'c' is in test/ but not in train/")
  machine = read_fleet_folder(tmp_path, require_train=False)[-1]
  assert machine.name == "c"
  assert machine.train.values.shape == (0, 2)


TEXT_FAULTS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
  "ragged": ("1,2\n3,4,5\n", ("test/a.txt", "row 2", "3 fields; 2 are wanted")),
  "short": ("1,2\n3\n", ("test/a.txt", "row 2", "1 fields")),
  "text": ("1,2\n3,4\n5,abc\n", ("test/a.txt", "row 3", "'column 2'", "'abc' is not a number")),
  "underscore": ("1,2\n3,1_000\n", ("test/a.txt", "row 2", "'1_000'")),
  "infinite": ("1,2\n-inf,4\n", ("test/a.txt", "row 2", "'column 1'", "infinite")),
  "blank line": ("1,2\n\n5,6\n", ("test/a.txt", "row 2")),
  "empty": ("\n", ("test/a.txt", "empty")),
  "bytes": (b"1,2\n3,\xff\n", ("test/a.txt", "row 2", "not UTF-8")),
  "columns": ("1,2,3\n", ("test/a.txt", "3 metrics; the training file has 2")),
}


@pytest.mark.parametrize("fault", TEXT_FAULTS)
def test_wrong_text_is_named_by_file_and_row(tmp_path: Path, fault: str) -> None:
  content, parts = TEXT_FAULTS[fault]
  text_fleet(tmp_path)
  put(tmp_path, "test/a.txt", content)
  fails(tmp_path, *parts)


CSV_FAULTS = {
  "text": (CSV + "0,1,2,0\n60,x,2,0\n", ("row 3", "'cpu'", "'x' is not a number")),
  "ragged": (CSV + "0,1,2,0\n60,1,2\n", ("row 3", "3 fields; 4 are wanted")),
  "duplicate time": (CSV + "0,1,2,0\n60,1,2,0\n60,1,2,0\n", ("row 4", "'timestamp'", "duplicate")),
  "unordered": (CSV + "2026-01-02,1,2,0\n2026-01-01,1,2,0\n", ("row 3", "comes before")),
  "no time": (CSV + "2026-01-02,1,2,0\n,1,2,0\n", ("row 3", "'timestamp'", "''")),
  "odd time": (CSV + "0,1,2,0\nnoon,1,2,0\n", ("row 3", "'timestamp'")),
  "milliseconds": (CSV + "1772323200000,1,2,0\n", ("row 2", "seconds since 1970")),
  "mixed zones": (CSV + "2026-01-01T00:00,1,2,0\n2026-01-01T01:00Z,1,2,0\n", ("row 3", "offset")),
  "label": (CSV + "0,1,2,0\n60,1,2,2\n", ("row 3", "label 2; 0 or 1 is wanted")),
  "no label": (CSV + "0,1,2,\n", ("row 2", "label nan")),
  "label not last": ("cpu,Label,memory\n1,0,2\n", ("row 1", "'Label'", "must be the last")),
  "time not first": ("cpu,timestamp\n1,0\n", ("row 1", "must be the first")),
  "twice": ("cpu,cpu\n1,0\n", ("row 1", "'cpu' stands there twice")),
  "nameless": ("cpu,\n1,0\n", ("row 1", "column 2 has no name")),
  "no header": ("1,2\n3,4\n", ("row 1", "header")),
  "no rows": (CSV, ("no rows",)),
  "no metrics": ("timestamp,label\n0,1\n", ("no metrics",)),
  "renamed": ("timestamp,cpu,disk\n0,1,2\n", ("metric 2 is 'disk'", "'memory'")),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_wrong_csv_is_named_by_file_and_row(tmp_path: Path, fault: str) -> None:
  content, parts = CSV_FAULTS[fault]
  put(tmp_path, "train/a.csv", "timestamp,cpu,memory\n0,1,2\n60,3,4\n")
  put(tmp_path, "test/a.csv", content)
  fails(tmp_path, "test/a.csv", *parts)


def test_wrong_arrays(tmp_path: Path) -> None:
  healthy = np.ones((50, 3), np.float32)
  path = put(tmp_path, "train/a.npy", healthy)
  path.write_bytes(path.read_bytes()[:-100])
  fails(tmp_path, "train/a.npy", "truncated")
  put(tmp_path, "train/a.npy", np.ones(5))
  fails(tmp_path, "train/a.npy", "shape (5,)")
  put(tmp_path, "train/a.npy", np.array([["x"]]))
  fails(tmp_path, "train/a.npy", "numbers are wanted")
  np.save(tmp_path / "train/a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
  fails(tmp_path, "train/a.npy", "no npy file of numbers")
  healthy[6, 2] = np.inf
  put(tmp_path, "train/a.npy", healthy)
  fails(tmp_path, "train/a.npy", "row 7", "infinite")
  (tmp_path / "train/a.npy").unlink()
  put(tmp_path, "train/a.parquet", b"PAR1 and nothing else")
  fails(tmp_path, "train/a.parquet", "no parquet file")
  pa.parquet.write_table(pa.table({"cpu": ["high"]}), tmp_path / "train/a.parquet")
  fails(tmp_path, "train/a.parquet", "'cpu' holds string")


def test_labels_from_their_own_file(tmp_path: Path) -> None:
  text_fleet(tmp_path)
  put(tmp_path, "test_label/a.txt", "0\n1\n1\n0\n")
  labels = read_fleet_folder(tmp_path)[0].labels
  assert labels is not None
  assert labels.tolist() == [False, True, True, False]
  put(tmp_path, "test_label/a.txt", "0\n1\n")
  fails(tmp_path, "test_label/a.txt", "2 labels", "4 rows")
  put(tmp_path, "test_label/a.txt", "0\n1\n0.5\n0\n")
  fails(tmp_path, "test_label/a.txt", "row 3", "label 0.5")
  (tmp_path / "test_label/a.txt").unlink()
  put(tmp_path, "test_label/a.npy", np.array([0, 0, 0, 1]))
  assert read_fleet_folder(tmp_path)[0].labels.tolist() == [False, False, False, True]  # type: ignore[union-attr]


def test_two_sources_of_labels_must_agree(tmp_path: Path) -> None:
  put(tmp_path, "train/a.csv", "cpu\n1\n2\n")
  put(tmp_path, "test/a.csv", "cpu,is_anomaly\n1,0\n2,1\n")
  put(tmp_path, "test_label/a.txt", "0\n0\n")
  fails(tmp_path, "test_label/a.txt", "label 2 differs")
