"""The rehearsal: faults are where they are said to be, figures follow the settings, and the command tells both."""

from pathlib import Path

import numpy as np
import pytest
from fleets import CONFIG, refused, run_here, succeeded, write_fleet
from rehearsal import MIN_ROWS, judge, put_faults, rehearse

from mtad_jax.config import DetectConfig
from mtad_jax.config_choices import ScoringRule

NUM_ROWS = 6000


def draw_training(seed: int = 0, num_rows: int = NUM_ROWS) -> np.ndarray:
  """Returns [T, 4]: two metrics that follow one another, one of its own, one that never moves."""
  rng = np.random.default_rng(seed)
  load = np.sin(np.arange(num_rows) / 50) + 0.1 * rng.normal(size=num_rows)
  alone = 0.2 * rng.normal(size=num_rows)
  follower = load + 0.05 * rng.normal(size=num_rows)
  return np.stack([load, follower, alone, np.ones(num_rows)], axis=1)


def test_faults_lie_where_they_are_said_to_and_touch_only_what_they_may() -> None:
  rows = draw_training()
  num_faults = 0
  for seed in range(10):
    faulty, is_fault = put_faults(rows, np.array([0, 2]), np.random.default_rng(seed))
    changed = np.any(faulty != rows, axis=1)
    assert not np.any(changed & ~is_fault)
    np.testing.assert_array_equal(faulty[:, [1, 3]], rows[:, [1, 3]])
    assert 0.002 < is_fault.mean() < 0.25
    num_faults += np.sum(np.diff(is_fault.astype(int)) == 1)
  assert num_faults == 10 * (NUM_ROWS // 900)
  again, _ = put_faults(rows, np.array([0, 2]), np.random.default_rng(9))
  np.testing.assert_array_equal(again, faulty)


def test_one_metric_alone_has_every_fault_but_the_swap() -> None:
  rows = draw_training(num_rows=200_000)[:, 2:3]
  faulty, is_fault = put_faults(rows, np.array([0]), np.random.default_rng(0))
  assert np.all(np.isfinite(faulty))
  starts, ends = (np.flatnonzero(np.diff(np.pad(is_fault.astype(int), 1)) == way) for way in (1, -1))
  frozen = [np.ptp(faulty[s:e]) == 0 for s, e in zip(starts, ends, strict=True) if e - s > 5]
  assert 0.1 < np.mean(frozen) < 0.5  # a fifth or so: of five kinds, the spike is short


def test_calibration_rows_are_as_they_were_and_faults_lie_in_deployment_alone() -> None:
  found = rehearse(draw_training(), (0, 1, 2, 3), seed=1)
  first = found.num_calibration
  assert first == int(0.48 * NUM_ROWS) - int(0.38 * NUM_ROWS)
  assert found.quiet.forecast is not None
  assert found.faulty.forecast is not None
  assert found.quiet.level.shape == (NUM_ROWS - int(0.38 * NUM_ROWS), 4)
  np.testing.assert_array_equal(found.quiet.forecast[:first], found.faulty.forecast[:first])
  np.testing.assert_array_equal(
    found.quiet.level[first:][~found.is_fault], found.faulty.level[first:][~found.is_fault]
  )
  assert len(found.is_fault) == len(found.quiet.level) - first
  np.testing.assert_allclose(found.quiet.level[:, 3], 0)


def test_a_judgement_says_what_is_found_and_what_the_threshold_costs() -> None:
  found = rehearse(draw_training(), (0, 1, 2, 3), seed=1)
  default = judge(found, DetectConfig(), 60.0)
  assert default.average_precision > 0.5
  assert 0 < default.f1 <= default.best_f1
  assert (default.promised_share, default.alarm_share) == (1e-4, pytest.approx(0, abs=0.02))
  loose = judge(found, DetectConfig(pot_q=0.1), 60.0)
  assert loose.alarm_share > default.alarm_share
  assert (loose.average_precision, loose.best_f1) == (default.average_precision, default.best_f1)
  plain = judge(found, DetectConfig(rule=ScoringRule.STANDARDISED), 60.0)
  assert plain.average_precision != default.average_precision
  with pytest.raises(ValueError, match="rule density"):
    judge(found, DetectConfig(rule=ScoringRule.DENSITY), 60.0)


def test_a_level_that_moves_for_good_in_deployment_does_not_hide_the_faults_where_it_is_limited() -> None:
  train = draw_training()
  train[4000:, 2] += 3  # within no fault
  found = rehearse(train, (0, 1, 2, 3), seed=1)
  limited, without = (judge(found, DetectConfig(level_limit=limit), 60.0) for limit in (10.0, 1e9))
  assert limited.average_precision > without.average_precision + 0.05
  soon = DetectConfig(threshold="dspot", pot_q=2e-3, level_minutes=200, learn_minutes=100)
  following, staying = judge(found, soon, 60.0), judge(found, DetectConfig(pot_q=2e-3), 60.0)
  assert following.alarm_share < 0.5 * staying.alarm_share


def test_what_cannot_be_rehearsed_is_told() -> None:
  with pytest.raises(ValueError, match=f"399 training rows; a rehearsal needs {MIN_ROWS}"):
    rehearse(draw_training(num_rows=399), (0,), 0)
  with pytest.raises(ValueError, match="no scored metric moves in the first 2100 rows"):
    rehearse(draw_training(), (3,), 0)


def test_the_command_compares_settings_and_names_wrong_ones(tmp_path: Path) -> None:
  fleet = write_fleet(tmp_path / "fleet")
  where = (CONFIG, f"--source={fleet}", "--seeds=0,1")
  told = succeeded(
    run_here("rehearse.py", *where, "--compare=level_limit=0", "--compare=threshold=dspot,pot_q=0.01")
  ).stdout
  rows = [line.split() for line in told.splitlines()]
  by_name = {row[0]: row[1:] for row in rows if row}
  assert set(by_name) >= {"config", "level_limit=0", "threshold=dspot,pot_q=0.01"}
  assert by_name["config"][0] != by_name["level_limit=0"][0]  # average precision
  assert by_name["threshold=dspot,pot_q=0.01"][0] == by_name["config"][0]
  assert by_name["threshold=dspot,pot_q=0.01"][-1] == "1.00%"
  refused(run_here("rehearse.py", *where, "--compare=level_limits=0"), 2, "'level_limits=0' is no setting")
  refused(
    run_here("rehearse.py", *where, "--compare=level_limit=-1"),
    2,
    "--compare=level_limit=-1",
    "detect.level_limit",
  )
  refused(
    run_here("rehearse.py", *where, "--compare=rule=density"), 2, "rule density", "a rehearsal fits none"
  )
  refused(run_here("rehearse.py", *where, "--seeds=a"), 2, "--seeds=a")


def test_machines_that_are_too_short_are_left_out_by_name_and_all_of_them_is_a_failure(
  tmp_path: Path,
) -> None:
  fleet = write_fleet(tmp_path / "fleet")
  for file in (fleet / "train").iterdir():
    if file.stem.startswith("web"):
      file.write_text("".join(file.read_text().splitlines(keepends=True)[:300]))
  told = succeeded(run_here("rehearse.py", CONFIG, f"--source={fleet}", "--seeds=0"))
  assert "left out: web-1: 299 training rows" in told.stdout + told.stderr
  for file in (fleet / "train").iterdir():
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:300]))
  refused(run_here("rehearse.py", CONFIG, f"--source={fleet}"), 1, "not one of", "299 training rows")
