"""SMD and telemanom: names, roles, labels, the traps of the real data, and the run's one loader."""

from pathlib import Path

import numpy as np
import pytest

from mtad_jax.config import DataConfig
from mtad_jax.data.builder import build_dataset
from mtad_jax.data.load import list_machines, load_machines, read_source
from mtad_jax.data.smd import MACHINES, METRICS, read_smd, role_of
from mtad_jax.data.telemanom import read_telemanom


def telemanom_folder(root: Path, rows: str, *channels: str, num_columns: int = 25) -> Path:
  for split, count in (("train", 30), ("test", 40)):
    (root / split).mkdir(parents=True, exist_ok=True)
    for channel in channels:
      np.save(root / split / f"{channel}.npy", np.zeros((count, num_columns), np.float32))
  header = "chan_id,spacecraft,anomaly_sequences,class,num_values\n"
  (root / "labeled_anomalies.csv").write_text(header + rows)
  return root


def smd_folder(root: Path, *names: str) -> Path:
  for split in ("train", "test"):
    (root / split).mkdir(parents=True, exist_ok=True)
    for name in names:
      np.savetxt(root / split / f"{name}.txt", np.random.default_rng(0).random((20, 38)), delimiter=",")
  return root


def test_smd_names() -> None:
  assert len(METRICS) == len(set(METRICS)) == 38
  assert len(MACHINES) == 28
  assert [METRICS[i] for i in (0, 7, 19, 37)] == ["cpu_r", "total_mem", "eth1_fo", "udp_snd_buf_errs"]
  assert role_of("machine-3-11") == "group-3"


def test_new_data_to_score_need_no_training_split(tmp_path: Path) -> None:
  smd = smd_folder(tmp_path / "smd", "machine-1-1")
  nasa = telemanom_folder(tmp_path / "nasa", 'A-1,SMAP,"[[3, 4]]",[point],40\n', "A-1")
  for dataset, folder in (("smd", smd), ("smap", nasa), ("folder", smd)):
    for file in (folder / "train").iterdir():
      file.rename(folder / f"{dataset}-away")
    with pytest.raises(ValueError, match="is in test/ but not in train/"):
      read_source(dataset, str(folder))
    (machine,) = read_source(dataset, str(folder), require_train=False)
    assert machine.train.values.shape == (0, len(machine.metrics))
    assert len(machine.test.values) > 0
    if dataset == "smd":
      (folder / "smd-away").rename(folder / "train" / "machine-1-1.txt")


def test_smd_takes_any_subset_and_no_stranger(tmp_path: Path) -> None:
  machines = read_smd(smd_folder(tmp_path, "machine-3-10", "machine-1-2"))
  assert [(m.name, m.role) for m in machines] == [("machine-1-2", "group-1"), ("machine-3-10", "group-3")]
  assert machines[0].metrics == METRICS
  smd_folder(tmp_path, "machine-4-1")
  with pytest.raises(ValueError, match="'machine-4-1' is not of SMD"):
    read_smd(tmp_path)


def test_real_smd(real_data: Path) -> None:
  first, second = read_smd(real_data / "ServerMachineDataset")
  assert (first.name, second.name) == ("machine-1-1", "machine-2-1")
  assert first.train.values.shape == (28479, 38)
  assert first.test.values.shape == (28479, 38)
  assert first.labels is not None
  assert first.labels.sum() == 2694
  assert not np.isnan(first.train.values).any()
  # interpretations and labels tell of the same rows, but for one end on machine-1-1
  starts = np.flatnonzero(np.diff(np.concatenate([[False], first.labels, [False]]).astype(int)))
  segments = list(zip(starts[::2].tolist(), starts[1::2].tolist(), strict=True))
  told = [(s.start, s.end) for s in first.interpretation]
  assert len(told) == len(segments) == 8
  assert [i for i in range(8) if told[i] != segments[i]] == [0]
  assert (told[0], segments[0]) == ((15849, 16368), (15849, 16395))
  assert first.interpretation[0].metrics == (0, 8, 9, 11, 12, 13, 14)


def test_real_telemanom(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
  folder = real_data / "telemanom"
  smap, msl = read_telemanom(folder, "SMAP"), read_telemanom(folder, "MSL")
  assert "channel T-10 is left out" in caplog.text
  assert (len(smap), len(msl)) == (54, 27)
  # the usual protocol's totals, SMAP without P-2
  for machines, train, test, anomalous in ((smap, 135_183, 427_617, 54_696), (msl, 58_317, 73_729, 7_766)):
    counted = [machine for machine in machines if machine.name != "P-2"]
    assert sum(len(m.train.values) for m in counted) == train
    assert sum(len(m.test.values) for m in counted) == test
    assert sum(int(m.labels.sum()) for m in counted if m.labels is not None) == anomalous
  assert "P-2" in [machine.name for machine in smap]
  assert smap[0].name == "A-1"
  assert len(msl[0].metrics) == 55
  assert msl[0].metrics[:2] == ("telemetry", "command_1")


def test_telemanom_ends_are_inclusive_and_double_rows_united(tmp_path: Path) -> None:
  rows = 'P-2,SMAP,"[[3, 5], [20, 20]]",[point],40\nP-2,SMAP,"[[5, 9]]",[point],40\n'
  (machine,) = read_telemanom(telemanom_folder(tmp_path, rows, "P-2"), "SMAP")
  assert machine.role == "P"
  assert machine.labels is not None
  assert np.flatnonzero(machine.labels).tolist() == [3, 4, 5, 6, 7, 8, 9, 20]
  assert [segment[:3] for segment in machine.interpretation] == [(3, 10, (0,)), (20, 21, (0,))]


@pytest.mark.parametrize(
  ("rows", "part"),
  [
    ('A-1,SMAP,"[[3, 40]]",[point],40\n', "channel 'A-1': row 40 of 40"),
    ('A-1,SMAP,"[[9, 3]]",[point],40\n', r"row 2, column 'anomaly_sequences': \[9, 3\]"),
    ('A-1,SMAP,"[[9]]",[point],40\n', "row 2, column 'anomaly_sequences'"),
    ("A-1,SMAP,none,[point],40\n", "row 2, column 'anomaly_sequences': 'none'"),
    ("A-1,SMAP\n", "row 2: 2 fields; 5 are wanted"),
  ],
)
def test_wrong_telemanom_labels(tmp_path: Path, rows: str, part: str) -> None:
  with pytest.raises(ValueError, match=f"labeled_anomalies.csv: {part}"):
    read_telemanom(telemanom_folder(tmp_path, rows, "A-1"), "SMAP")


def test_wrong_telemanom_folders(tmp_path: Path) -> None:
  row = 'A-1,SMAP,"[[3, 4]]",[point],40\n'
  with pytest.raises(ValueError, match="spacecraft 'smap' is unknown; SMAP or MSL"):
    read_telemanom(tmp_path, "smap")
  telemanom_folder(tmp_path, row, "A-1", num_columns=55)
  with pytest.raises(ValueError, match=r"train/A-1.npy: 55 columns; 25 are wanted"):
    read_telemanom(tmp_path, "SMAP")
  (tmp_path / "train/A-1.npy").unlink()
  with pytest.raises(ValueError, match="channel 'A-1' is in test/ but not in train/"):
    read_telemanom(tmp_path, "SMAP")
  with pytest.raises(ValueError, match="no such folder"):
    read_telemanom(tmp_path / "nowhere", "SMAP")


def test_load_machines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
  smd = smd_folder(tmp_path / "smd", "machine-1-1", "machine-2-1")
  assert len(read_source("smd", str(smd))) == 2
  data = DataConfig(dataset="smd", machines=("machine-2-1",))
  (straight,) = load_machines(data, data_dir=None, source=str(smd))
  build_dataset("smd", read_smd(smd), str(tmp_path / "prepared"), "hash")
  (prepared,) = load_machines(data, data_dir=str(tmp_path / "prepared"), source=None)
  np.testing.assert_array_equal(straight.train.values, prepared.train.values, strict=True)
  assert straight.name == prepared.name == "machine-2-1"
  stranger = DataConfig(dataset="smd", machines=("machine-9-9",))
  for place in (
    {"data_dir": None, "source": str(smd)},
    {"data_dir": str(tmp_path / "prepared"), "source": None},
  ):
    with pytest.raises(ValueError, match="no machine 'machine-9-9'; known: machine-1-1, machine-2-1"):
      load_machines(stranger, **place)
  for both in ({"data_dir": "a", "source": "b"}, {"data_dir": None, "source": None}):
    with pytest.raises(ValueError, match="exactly one of --data_dir and --source"):
      load_machines(data, **both)
  empty = telemanom_folder(tmp_path / "telemanom", 'A-1,SMAP,"[]",[point],40\n')
  with pytest.raises(ValueError, match="dataset 'smap' has no machines"):
    load_machines(DataConfig(dataset="smap"), data_dir=None, source=str(empty))
  assert "channel A-1 is left out; it has no files" in caplog.text


def test_names_are_listed_in_the_order_in_which_machines_are_read(tmp_path: Path) -> None:
  smd = smd_folder(tmp_path / "smd", "machine-3-11", "machine-3-2", "machine-1-1")
  crafts = {"A-2": "SMAP", "A-1": "SMAP", "C-1": "MSL"}
  rows = "".join(f'{name},{craft},"[]",[point],40\n' for name, craft in crafts.items())
  nasa = telemanom_folder(tmp_path / "nasa", rows, "A-1", "A-2", "A-10", "C-1")
  build_dataset("smd", read_smd(smd), str(tmp_path / "prepared"), "hash")
  places = [("smd", None, smd), ("folder", None, smd), ("smap", None, nasa), ("smd", tmp_path / "prepared", None)]
  for dataset, data_dir, source in places:
    place = {"data_dir": data_dir and str(data_dir), "source": source and str(source)}
    data = DataConfig(dataset=dataset)
    names = list_machines(data, **place)
    assert names == [machine.name for machine in load_machines(data, **place)]
    assert list_machines(DataConfig(dataset=dataset, machines=(names[1],)), **place) == [names[1]]
  assert list_machines(DataConfig(), data_dir=None, source=str(tmp_path / "nowhere")) == []
