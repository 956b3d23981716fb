"""The commands on real data: two SMD machines and three SMAP channels, a tiny network, prepare to evaluation."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fleets import of_machine, read_table, run_here, succeeded

WINDOW = 12
SIZES = (
  f"--config.model.window_size={WINDOW}",
  "--config.model.hidden_size=12",
  "--config.model.forecast_size=12",
  "--config.model.decoder_size=12",
  "--config.model.latent_size=6",
  "--config.train.batch_size=32",
  "--config.train.progress_bar=False",
)


class Run(NamedTuple):
  """A work directory and the raw files it came from."""

  workdir: Path
  raw: Path


@pytest.fixture(scope="module")
def smd(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
  root = tmp_path_factory.mktemp("smd")
  raw = real_data / "ServerMachineDataset"
  data_dir, workdir = f"--data_dir={root / 'data'}", f"--workdir={root / 'run'}"
  succeeded(run_here("prepare.py", "--dataset=smd", f"--source={raw}", data_dir))
  budget = "--config.train.window_budget=12800"
  succeeded(run_here("train.py", "--config=configs/smd.py:cpu", *SIZES, budget, data_dir, workdir))
  succeeded(run_here("score.py", workdir))
  return Run(root / "run", raw)


def test_smd_every_row_is_scored_beside_its_own_label(smd: Run) -> None:
  scores = read_table(smd.workdir / "scores.parquet")
  for name in ("machine-1-1", "machine-2-1"):
    rows = of_machine(scores, name)
    label = np.loadtxt(smd.raw / "test_label" / f"{name}.txt")
    np.testing.assert_array_equal(rows["row"], np.arange(len(label)))
    np.testing.assert_array_equal(rows["label"], label == 1)
    np.testing.assert_array_equal(rows["valid"], rows["row"] >= WINDOW)
    assert np.isfinite(rows["score"][rows["valid"]]).all()
    assert (rows["threshold"] > 0).all()


def test_smd_evaluation_stands_beside_its_floors(smd: Run) -> None:
  succeeded(run_here("evaluate.py", f"--workdir={smd.workdir}"))
  mean = json.loads((smd.workdir / "evaluation.json").read_text())["mean"]
  assert mean["machines"] == ["machine-1-1", "machine-2-1"]
  detector = mean["detector"]["average_precision"]
  assert detector > 2 * mean["floors"]["random"]["average_precision"]
  assert mean["floors"]["pca_error"]["average_precision"] > mean["floors"]["random"]["average_precision"]


def test_smd_a_planted_spike_is_scored_in_its_row_and_its_metric_named(smd: Run, tmp_path: Path) -> None:
  """Row 2,000 of machine-1-1's test split, normal, with one metric at four times its range."""
  row, column = 2000, 18  # eth1_fi
  values = np.loadtxt(smd.raw / "test" / "machine-1-1.txt", delimiter=",")[:2100]
  values[row, column] += 4
  (tmp_path / "new" / "test").mkdir(parents=True)
  np.savetxt(tmp_path / "new" / "test" / "machine-1-1.txt", values, fmt="%.6f", delimiter=",")
  workdir, out = f"--workdir={smd.workdir}", tmp_path / "out"
  succeeded(run_here("score.py", workdir, f"--source={tmp_path / 'new'}", f"--output={out}", "--all_metric_scores"))
  spiked = read_table(out / "scores.parquet")
  plain = of_machine(read_table(smd.workdir / "scores.parquet"), "machine-1-1")
  np.testing.assert_allclose(spiked["score"][WINDOW:row], plain["score"][WINDOW:row], rtol=1e-4, atol=1e-3)
  assert spiked["score"][row] > 3 * plain["score"][row]
  metrics = read_table(out / "metric_scores.parquet")
  own = metrics["metric"] == "eth1_fi"
  assert metrics["row"][own][np.nanargmax(metrics["score"][own])] == row
  here = metrics["row"] == row
  assert metrics["metric"][here][np.argmax(metrics["score"][here])] == "eth1_fi"


def test_smap_channels_score_their_telemetry_alone(real_data: Path, tmp_path: Path) -> None:
  """P-2 is listed twice, D-12 never moves in training, A-7 is plain; commands are input only."""
  machines = ("P-2", "D-12", "A-7")
  workdir, source = f"--workdir={tmp_path / 'run'}", f"--source={real_data / 'telemanom'}"
  chosen = f"--config.data.machines={machines!r}"
  budget = "--config.train.window_budget=2000"
  succeeded(run_here("train.py", "--config=configs/smap.py:cpu", *SIZES, chosen, budget, source, workdir))
  succeeded(run_here("score.py", workdir))
  succeeded(run_here("evaluate.py", workdir))
  scores = read_table(tmp_path / "run" / "scores.parquet")
  assert set(scores["machine"]) == set(machines)
  assert np.isfinite(scores["score"][scores["valid"]]).all()
  np.testing.assert_array_equal(scores["valid"], scores["row"] >= WINDOW)
  metrics = read_table(tmp_path / "run" / "metric_scores.parquet")
  assert set(metrics["metric"]) <= {"telemetry"}
  mean = json.loads((tmp_path / "run" / "evaluation.json").read_text())["mean"]
  assert sorted(mean["machines"]) == sorted(machines)
