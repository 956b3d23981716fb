"""Fleet folders: causes, roles, and the folder as a whole; the line that every fault in them gives."""

from pathlib import Path

import pytest
from test_readers import fails, put, text_fleet

from mtad_jax.data.fleet_folder import read_fleet_folder
from mtad_jax.data.machine import Interpretation


@pytest.mark.parametrize(
  ("line", "part"),
  [
    ("1-3", "is not start-end:metric,metric"),
    ("1-3:1,", "is not start-end"),
    ("3-3:1", "rows 3-3 are out of range"),
    ("1-5:1", "<= 4 is wanted"),
    ("1-3:0", "metric 0 is out of range; 1 to 2"),
    ("1-3:1,3", "metric 3 is out of range"),
  ],
)
def test_wrong_interpretation(tmp_path: Path, line: str, part: str) -> None:
  text_fleet(tmp_path)
  put(tmp_path, "interpretation_label/a.txt", f"0-1:1\n{line}\n")
  fails(tmp_path, "interpretation_label/a.txt", "row 2", part)


def test_interpretation_counts_metrics_from_one_and_ends_exclusive(tmp_path: Path) -> None:
  text_fleet(tmp_path)
  put(tmp_path, "interpretation_label/a.txt", "0-4:1,2\n2-3:2\n")
  assert read_fleet_folder(tmp_path)[0].interpretation == (
    Interpretation(0, 4, (0, 1)),
    Interpretation(2, 3, (1,)),
  )


FAULT_HEADER = "machine,kind,strength,start_row,end_row,metrics\n"


@pytest.mark.parametrize(
  ("row", "part"),
  [
    ("z,spike,weak,0,1,metric_0", "no machine 'z'"),
    ("a,spike,weak,0,9,metric_0", "rows 0-9 are out of range"),
    ("a,spike,weak,-1,2,metric_0", "'start_row': '-1' is not a row number"),
    ("a,spike,weak,0,2,metric_0;cpu", "unknown metric 'cpu'"),
    ("a,spike,weak,0,2", "5 fields; 6 are wanted"),
  ],
)
def test_wrong_faults_csv(tmp_path: Path, row: str, part: str) -> None:
  text_fleet(tmp_path)
  put(tmp_path, "faults.csv", FAULT_HEADER + row + "\n")
  fails(tmp_path, "faults.csv", "row 2", part)


def test_faults_csv_goes_before_interpretation_label(tmp_path: Path) -> None:
  text_fleet(tmp_path)
  put(tmp_path, "interpretation_label/a.txt", "0-4:1\n")
  put(tmp_path, "faults.csv", FAULT_HEADER + "a,drift,weak,1,3,metric_1;metric_0\n")
  assert read_fleet_folder(tmp_path)[0].interpretation == (Interpretation(1, 3, (1, 0), "drift", "weak"),)


def test_roles(tmp_path: Path) -> None:
  text_fleet(tmp_path, "a", "b")
  assert [m.role for m in read_fleet_folder(tmp_path, role_of=str.upper)] == ["A", "B"]
  put(tmp_path, "roles.csv", "machine,role\na,web\nb,db\n")
  assert [m.role for m in read_fleet_folder(tmp_path, role_of=str.upper)] == ["web", "db"]
  put(tmp_path, "roles.csv", "machine,role\na,web\nc,db\n")
  fails(tmp_path, "roles.csv", "row 3", "no machine 'c'; known: a, b")
  put(tmp_path, "roles.csv", "machine,role\na,web\n")
  fails(tmp_path, "roles.csv", "no role for machine 'b'")
  put(tmp_path, "roles.csv", "host,role\na,web\n")
  fails(tmp_path, "roles.csv", "row 1", "machine,role is wanted")


def test_wrong_folders(tmp_path: Path) -> None:
  fails(tmp_path / "nowhere", "no such folder")
  fails(tmp_path, "no machines")
  text_fleet(tmp_path)
  fails(tmp_path, "no machine 'b'; known: a", machines=("b",))
  fails(tmp_path, "train/a.txt", "2 columns; 3 metrics are wanted", metrics=("x", "y", "z"))
  put(tmp_path, "train/.DS_Store", "hidden files are nobody's")
  assert len(read_fleet_folder(tmp_path)) == 1
  put(tmp_path, "train/a.csv", "cpu,memory\n1,2\n")
  fails(tmp_path, "machine 'a' already has")
  (tmp_path / "train/a.csv").unlink()
  put(tmp_path, "train/notes.md", "what is this")
  fails(tmp_path, "notes.md", ".txt, .csv, .npy, .parquet")
