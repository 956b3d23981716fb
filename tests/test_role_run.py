"""The role mixtures by the standard commands, on a fleet folder made by hand: two roles, one of a single machine."""

import json
import shutil
from pathlib import Path

import fleets
import numpy as np
import pyarrow.parquet as pq
import pytest
from fleets import LABELLED, WEB, Trained, of_machine, read_table, refused, run_here, succeeded

from mtad_jax.roles.role_models import read_role_models

FEW = (
  f"--config={fleets.ROOT / 'configs' / 'role_gmm.py'}",
  "--config.roles.search_rows=300",
  "--config.detect.smoothed_minutes=(1,4)",
)
ROLES = (*FEW, "--config.roles.components=(1,2,3)")
QUIET_ROW = 200  # of the test split, far from every planted fault
STILL = WEB.index("disk_size")  # 512 in every training row


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
  return fleets.train_and_score(tmp_path_factory.mktemp("roles"), *ROLES)


def test_training_tells_of_every_role_and_is_not_done_twice(trained):
  assert "2 role mixtures in" in trained.stdout
  assert "role db: " in trained.stdout
  assert "of 1 machines, 5 metrics" in trained.stdout
  assert "of 2 machines, 5 metrics" in trained.stdout
  models = read_role_models(trained.workdir)
  assert [(model.role, model.machines) for model in models] == [("db", ("db-1",)), ("web", ("web-1", "web-2"))]
  before = (trained.workdir / "role_mixtures.npz").read_bytes()
  again = succeeded(run_here("train.py", *ROLES, f"--source={trained.fleet}", f"--workdir={trained.workdir}"))
  assert "role mixtures in" not in again.stdout
  assert (trained.workdir / "role_mixtures.npz").read_bytes() == before


def test_faults_are_found_and_their_metric_is_named_first(trained):
  table = read_table(trained.workdir / "scores.parquet")
  events = pq.read_table(trained.workdir / "events.parquet").to_pylist()
  for name in ("db-1", "web-1", "web-2"):
    rows = of_machine(table, name)
    alarm = rows["is_anomaly"].astype(bool)
    assert alarm[LABELLED].any()
    assert rows["valid"][2:].mean() > 0.9
    found = [e for e in events if e["machine"] == name and e["start_row"] < LABELLED.stop <= e["end_row"] + 20]
    assert found
    assert found[0]["contributors"][0]["metric"] == "cpu"
    assert found[0]["cause_set"][0] == "cpu"
    assert len(found[0]["cause_set"]) < len(WEB)
    assert found[0]["attention_change"] is None  # a mixture attends to nothing


def test_evaluation_works_on_it(trained):
  done = succeeded(run_here("evaluate.py", f"--workdir={trained.workdir}", "--floors=random,l2_norm"))
  assert "mean of 3" in done.stdout
  content = json.loads((trained.workdir / "evaluation.json").read_text())
  assert all(machine["detector"]["average_precision"] > 0.9 for machine in content["machines"].values())


@pytest.mark.parametrize("rule", ["density", "standardised"])
def test_other_rules_find_the_faults_too(trained, tmp_path, rule):
  run = shutil.copytree(trained.workdir, tmp_path / "run")
  refused(run_here("score.py", f"--workdir={run}", "--split=train", f"--source={trained.fleet}"), 2, "--split=train")
  succeeded(run_here("calibrate.py", f"--workdir={run}", f"--rule={rule}"))
  succeeded(run_here("score.py", f"--workdir={run}"))
  table = of_machine(read_table(run / "scores.parquet"), "web-1")
  score, own = table["score"], table[f"score_{rule}"]
  np.testing.assert_array_equal(score, own)
  assert np.nanmax(score[LABELLED]) > np.nanmax(np.delete(score, np.r_[LABELLED, 30, 60:66, 160:164]))


def moved_fleet(fleet: Path, target: Path) -> Path:
  """Returns new files of web-1 in which the metric that never moved moves by half in one quiet row."""
  split = fleets.test_split("web-1")
  values = split.values.copy()
  values[QUIET_ROW, STILL] *= 1.5
  fleets.write_csv(target / "test" / "web-1.csv", split.metrics, values, split.timestamps, split.labels)
  return target


@pytest.mark.parametrize("rule", ["joint", "density"])
def test_one_line_of_prior_silences_a_metric_that_may_vary(trained, tmp_path, rule):
  """A constant metric moves a little: an alarm without the prior and none with it."""
  run = shutil.copytree(trained.workdir, tmp_path / "run")
  new = moved_fleet(trained.fleet, tmp_path / "new")

  def alarms() -> np.ndarray:
    succeeded(run_here("score.py", f"--workdir={run}", f"--source={new}", f"--output={tmp_path / 'out'}"))
    return read_table(tmp_path / "out" / "scores.parquet")["is_anomaly"].astype(bool)

  succeeded(run_here("calibrate.py", f"--workdir={run}", f"--rule={rule}"))
  before = alarms()
  assert before[QUIET_ROW]
  events = pq.read_table(tmp_path / "out" / "events.parquet").to_pylist()
  told = [e for e in events if e["start_row"] <= QUIET_ROW < e["end_row"]]
  assert told[0]["contributors"][0]["metric"] == "disk_size"

  prior = tmp_path / "prior.toml"
  prior.write_text('[[metric]]\nname = "disk_size"\nvaries = 0.5\nof = "level"\n')
  succeeded(run_here("calibrate.py", f"--workdir={run}", f"--prior={prior}"))
  after = alarms()
  assert not after[QUIET_ROW]
  assert after[LABELLED].any()
  assert (run / "prior.toml").read_text() == prior.read_text()


def test_a_prior_has_no_part_in_the_fit_and_can_be_taken_back(trained, tmp_path):
  prior = tmp_path / "prior.toml"
  prior.write_text('[[metric]]\nname = "cpu"\nignore = true\n[[metric]]\nname = "latency"\nvaries = 2\n')
  run = tmp_path / "run"
  succeeded(run_here("train.py", *ROLES, f"--source={trained.fleet}", f"--workdir={run}", f"--prior={prior}"))
  for here, there in zip(read_role_models(run), read_role_models(trained.workdir), strict=True):
    for mine, theirs in zip(here.mixture, there.mixture, strict=True):
      np.testing.assert_array_equal(mine, theirs)
  prior.write_text("")
  succeeded(run_here("calibrate.py", f"--workdir={run}", f"--prior={prior}"))
  succeeded(run_here("score.py", f"--workdir={run}"))
  here, there = (read_table(folder / "scores.parquet")["score"] for folder in (run, trained.workdir))
  np.testing.assert_array_equal(here, there)


def test_a_slip_in_the_prior_is_told_before_anything_is_trained(trained, tmp_path):
  prior = tmp_path / "prior.toml"
  prior.write_text('[[metric]]\nname = "cpus"\nignore = true\n')
  run = tmp_path / "run"
  done = run_here("train.py", *ROLES, f"--source={trained.fleet}", f"--workdir={run}", f"--prior={prior}")
  refused(done, 1, "prior.toml: [[metric]] 1: name = 'cpus' is nobody's")
  assert not run.exists()


def test_the_next_mixtures_take_the_place_of_the_last(trained, tmp_path):
  run, live = shutil.copytree(trained.workdir, tmp_path / "run"), tmp_path / "live"
  live.symlink_to(run)
  succeeded(run_here("calibrate.py", f"--workdir={run}", "--pot_q=0.05"))  # the short check part has an alarm row
  done = run_here("retrain.py", f"--current={live}", f"--next={tmp_path / 'next'}", f"--source={trained.fleet}")
  succeeded(done)
  assert live.resolve() == (tmp_path / "next").resolve()


def test_a_prior_that_is_wrong_or_was_changed_since_is_told(trained, tmp_path):
  run = shutil.copytree(trained.workdir, tmp_path / "run")
  before = (run / "calibration.json").read_bytes()
  prior = tmp_path / "prior.toml"
  prior.write_text('[[metric]]\nname = "dsk_size"\nignore = true\n')
  told = "name = 'dsk_size' is nobody's; known: cpu, disk_size, latency, memory, requests"
  refused(run_here("calibrate.py", f"--workdir={run}", f"--prior={prior}"), 1, told)
  assert (run / "calibration.json").read_bytes() == before
  assert not (run / "prior.toml").exists()
  none = tmp_path / "none.toml"
  refused(run_here("calibrate.py", f"--workdir={run}", f"--prior={none}"), 1, "none.toml: cannot be read")
  (run / "prior.toml").write_text('[[metric]]\nname = "disk_size"\nignore = true\n')
  told = "fitted with another prior.toml than there is now; run calibrate.py"
  refused(run_here("score.py", f"--workdir={run}"), 1, told)


def test_a_damaged_or_missing_file_is_named(trained, tmp_path):
  run = shutil.copytree(trained.workdir, tmp_path / "run")
  file = run / "role_mixtures.npz"
  whole = file.read_bytes()
  for content in (whole[: len(whole) // 2], b"", b"no archive"):
    file.write_bytes(content)
    refused(run_here("score.py", f"--workdir={run}"), 1, "role_mixtures.npz: damaged: ")
  file.unlink()
  refused(run_here("score.py", f"--workdir={run}"), 1, "role_mixtures.npz: not found; train.py writes it")


def test_what_does_not_go_together_is_refused(trained, tmp_path):
  run = f"--workdir={tmp_path / 'run'}"
  source = f"--source={trained.fleet}"
  refused(run_here("train.py", *ROLES, source, run, f"--warm_start={trained.workdir}"), 2, "--warm_start")
  many = (*FEW, "--config.roles.components=(500,)")
  refused(run_here("train.py", *many, source, run), 1, "role db: ", "fewer than the fewest components")
