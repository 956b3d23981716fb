"""The ledger beside the real commands: train, score, record, mark, refit, score again with the new thresholds."""

import json
from pathlib import Path

import fleets
import pytest
from fleets import TINY, read_table, run_here, succeeded


@pytest.mark.slow
def test_a_refit_is_what_the_next_scoring_uses(tmp_path: Path) -> None:
  """Every event off the labelled rows is marked false; scored again they are fewer, the labelled ones are there."""
  fleet, run = fleets.write_fleet(tmp_path / "fleet"), tmp_path / "run"
  workdir = f"--workdir={run}"
  short = (*TINY, "--config.train.num_train_steps=20", "--config.detect.pot_q=0.02")
  succeeded(run_here("train.py", *short, f"--source={fleet}", workdir))
  succeeded(run_here("score.py", workdir))
  succeeded(run_here("annotate.py", workdir, "record"))
  before = read_table(run / "events.parquet")
  is_true = (before["start_row"] < fleets.LABELLED.stop) & (before["end_row"] > fleets.LABELLED.start)
  assert 0 < is_true.sum() < len(is_true)
  for name, true in zip(before["event_id"], is_true):
    succeeded(run_here("annotate.py", workdir, "mark", name, str(bool(true)).lower(), "--author=ann"))
  succeeded(run_here("annotate.py", workdir, "refit", "--write", "--min_annotations=1"))
  thresholds = json.loads((run / "calibration.json").read_text())["machines"]
  assert all(entry["threshold"] >= entry["pot"]["threshold"] for entry in thresholds.values())
  assert any("refit" in entry for entry in thresholds.values())

  succeeded(run_here("score.py", workdir))
  after = read_table(run / "events.parquet")
  scores = read_table(run / "scores.parquet")
  for name, entry in thresholds.items():
    assert set(scores["threshold"][scores["machine"] == name]) == {entry["threshold"]}

  def raised(i: int) -> bool:
    return bool(
      (
        (after["machine"] == before["machine"][i])
        & (after["start_row"] < before["end_row"][i])
        & (after["end_row"] > before["start_row"][i])
      ).any()
    )

  left = [raised(i) for i in range(len(is_true))]
  assert all(kept for kept, true in zip(left, is_true) if true)
  num_false = sum(kept for kept, true in zip(left, is_true) if not true)
  assert num_false < (~is_true).sum()
  succeeded(run_here("annotate.py", workdir, "record"))
  told = json.loads(succeeded(run_here("annotate.py", workdir, "summary", "--json")).stdout)["changes"][1]
  assert (told["after"]["num_true_raised"], told["after"]["num_false_raised"]) == (is_true.sum(), num_false)

  succeeded(run_here("calibrate.py", workdir))  # fresh thresholds in place of the refitted
  fresh = json.loads((run / "calibration.json").read_text())["machines"]
  assert all(entry["threshold"] == entry["pot"]["threshold"] and "refit" not in entry for entry in fresh.values())
