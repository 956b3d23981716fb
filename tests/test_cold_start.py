"""A machine that a run was not trained on: scored by the mixture of its role, and every row says by what."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import fleets
import numpy as np
import pytest
from fleets import LABELLED, NUM_TEST, ROOT, TINY, WEB, of_machine, read_table, refused, run_here, succeeded
from scipy import stats

from mtad_jax.alerts.recording import read_cold
from mtad_jax.data.fleet import prepare_groups
from mtad_jax.data.fleet_folder import read_fleet_folder
from mtad_jax.data.preparation import Preparation
from mtad_jax.data.scaling import Scaler
from mtad_jax.detect.calibrate_run import read_calibration
from mtad_jax.detect.pot import fit_pot
from mtad_jax.detect.role_calibration import roles_from_json
from mtad_jax.roles.fit import fit_roles
from mtad_jax.roles.role_models import read_role_models
from mtad_jax.roles.role_preparation import role_preparation
from mtad_jax.train.workdir import read_config

MIXTURES = (
  f"--config={ROOT / 'configs' / 'role_gmm.py'}",
  "--config.roles.components=(1,2)",
  "--config.roles.search_rows=200",
)
NETWORK = (
  *TINY,
  "--config.model.run_mode=FORECASTING",  # half of the network to compile
  "--config.train.num_train_steps=4",
  "--config.train.checkpoint_every_steps=4",
  "--config.train.validate_every_steps=4",
)
NEW = ("db-1", "web-1", "web-3")


class Runs(NamedTuple):
  """A run of mixtures on db-1, web-1 and web-2, new files with web-3, and their scores."""

  fleet: Path
  mixtures: Path
  new: Path
  scores: Path
  trained: str
  scored: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
  root = tmp_path_factory.mktemp("cold")
  fleet, new = fleets.write_fleet(root / "fleet"), fleets.write_fleet(root / "new", NEW)
  shutil.rmtree(new / "train")
  trained = succeeded(run_here("train.py", *MIXTURES, f"--source={fleet}", f"--workdir={root / 'mixtures'}"))
  scored = succeeded(run_here("score.py", f"--workdir={root / 'mixtures'}", f"--source={new}"))
  scores = root / "mixtures" / "scores" / "new"
  return Runs(fleet, root / "mixtures", new, scores, trained.stdout, scored.stdout)


@pytest.fixture(scope="module")
def networks(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A run of networks on the same machines."""
  workdir = tmp_path_factory.mktemp("networks") / "run"
  succeeded(run_here("train.py", *NETWORK, f"--source={runs.fleet}", f"--workdir={workdir}"))
  return workdir


def models_of(scores: dict[str, np.ndarray]) -> dict[str, set[str]]:
  return {name: set(of_machine(scores, name)["model"]) for name in dict.fromkeys(scores["machine"])}


def one_file(root: Path, name: str, values: np.ndarray, metrics: tuple[str, ...] = WEB, role: str = "web") -> Path:
  """Returns a fleet folder with one machine's test split and its role."""
  stamps = fleets.minutes(len(values), first=fleets.NUM_TRAIN + 15)
  fleets.write_csv(root / "test" / f"{name}.csv", metrics, values, stamps)
  (root / "roles.csv").write_text(f"machine,role\n{name},{role}\n")
  return root


def test_a_new_host_is_scored_and_its_fault_is_found_with_its_cause_first(runs: Runs) -> None:
  scores, events = (read_table(runs.scores / f"{name}.parquet") for name in ("scores", "events"))
  assert models_of(scores) == {"db-1": {"role_mixture"}, "web-1": {"role_mixture"}, "web-3": {"role_mixture_cold"}}
  rows = of_machine(scores, "web-3")
  assert len(rows["row"]) == NUM_TEST
  assert rows["valid"][2:].all()  # a mixture's window is 2 rows
  assert rows["is_anomaly"][LABELLED].all()
  assert not rows["is_anomaly"][: LABELLED.start].any()
  own = of_machine(events, "web-3")
  assert set(own["model"]) == {"role_mixture_cold"}
  assert own["start_row"][0] == LABELLED.start
  assert own["contributors"][0][0]["metric"] == "cpu"
  assert "web-3: no model of its own; scored by the mixture of role web" in runs.scored
  assert "role web, machines without a model of their own: threshold" in runs.trained


def test_known_machines_are_scored_the_same_with_a_new_one_beside_and_without(runs: Runs, tmp_path: Path) -> None:
  known = fleets.write_fleet(tmp_path / "known", ("db-1", "web-1"))
  alone = tmp_path / "scores"
  succeeded(run_here("score.py", f"--workdir={runs.mixtures}", f"--source={known}", f"--output={alone}"))
  beside, without = (read_table(folder / "scores.parquet") for folder in (runs.scores, alone))
  for name in ("db-1", "web-1"):
    here, there = of_machine(beside, name), of_machine(without, name)
    for column, values in here.items():
      np.testing.assert_array_equal(values, there[column], err_msg=column)


def test_a_host_far_from_its_peers_alarms_though_it_is_calm(runs: Runs, tmp_path: Path) -> None:
  values = fleets.series(WEB, NUM_TEST, 5, first=fleets.NUM_TRAIN)
  usual = one_file(tmp_path / "usual", "web-7", values)
  shares = []
  for source, level in ((usual, 0.0), (tmp_path / "far", 70.0)):
    moved = values.copy()
    moved[:, WEB.index("memory")] += level
    one_file(source, "web-7", moved)
    succeeded(run_here("score.py", f"--workdir={runs.mixtures}", f"--source={source}", f"--output={source / 'out'}"))
    rows = read_table(source / "out" / "scores.parquet")
    shares.append(float(rows["is_anomaly"][rows["valid"]].mean()))
  assert shares[0] < 0.05
  assert shares[1] > 0.95
  events = read_table(tmp_path / "far" / "out" / "events.parquet")
  assert events["contributors"][0][0]["metric"] == "memory"


def test_networks_score_what_they_know_and_mixtures_the_rest_in_one_set_of_tables(
  runs: Runs, networks: Path, tmp_path: Path
) -> None:
  arguments = (f"--source={runs.new}", f"--cold_start={runs.mixtures}")
  folder = tmp_path / "both"
  succeeded(run_here("score.py", f"--workdir={networks}", *arguments, f"--output={folder}"))
  scores = read_table(folder / "scores.parquet")
  assert models_of(scores) == {"db-1": {"network"}, "web-1": {"network"}, "web-3": {"role_mixture_cold"}}
  events = read_table(folder / "events.parquet")
  for name, change in zip(events["machine"], events["attention_change"], strict=True):
    assert (change is None) == (name == "web-3")  # a mixture attends to nothing
  by_mixture, own = of_machine(read_table(runs.scores / "scores.parquet"), "web-3"), of_machine(scores, "web-3")
  for column, values in by_mixture.items():
    np.testing.assert_array_equal(values, own[column], err_msg=column)
  known = fleets.write_fleet(tmp_path / "known", ("db-1", "web-1"))
  alone = tmp_path / "alone"
  succeeded(run_here("score.py", f"--workdir={networks}", f"--source={known}", f"--output={alone}"))
  np.testing.assert_array_equal(
    of_machine(scores, "web-1")["score"], of_machine(read_table(alone / "scores.parquet"), "web-1")["score"]
  )
  run_id = json.loads((runs.mixtures / "run.json").read_text())["run_id"]
  assert read_cold(folder) == {"web-3": {"role": "web", "group": 0, "run_id": run_id}}

  floors = "--floors=random,pca_error,linear_autoregression"
  done = succeeded(run_here("evaluate.py", f"--workdir={networks}", *arguments, floors, f"--scores={folder}"))
  assert "web-3: no training rows of its own; its floors are fitted on those of web-1, of its role" in done.stdout
  found = json.loads((folder / "evaluation.json").read_text())["machines"]
  assert set(found) == set(NEW)
  page = tmp_path / "page.html"
  succeeded(run_here("report.py", f"--workdir={networks}", f"--scores={folder}", f"--output={page}"))
  assert "role mixture cold" in page.read_text()


def test_a_network_that_began_from_a_peers_is_told_apart(networks: Path, tmp_path: Path) -> None:
  workdir = tmp_path / "run"
  shutil.copytree(networks, workdir)
  about = json.loads((workdir / "run.json").read_text())
  about["warm_start_from"] = {"db-1": "db-1", "web-1": "web-9", "web-2": None}
  (workdir / "run.json").write_text(json.dumps(about))
  succeeded(run_here("score.py", f"--workdir={workdir}"))
  found = models_of(read_table(workdir / "scores.parquet"))
  assert found == {"db-1": {"network"}, "web-1": {"role_network"}, "web-2": {"network"}}


def test_the_alarms_of_a_new_host_are_recorded_reviewed_and_not_refitted(runs: Runs, tmp_path: Path) -> None:
  workdir = tmp_path / "run"
  shutil.copytree(runs.mixtures, workdir)
  scores = f"--scores={workdir / 'scores' / 'new'}"
  assert "events new" in succeeded(run_here("annotate.py", f"--workdir={workdir}", scores, "record")).stdout
  listed = succeeded(run_here("annotate.py", f"--workdir={workdir}", "--role=web", "list")).stdout
  assert "web-3" in listed
  sheet = tmp_path / "sheet.csv"
  succeeded(run_here("annotate.py", f"--workdir={workdir}", "export", sheet))
  succeeded(run_here("annotate.py", f"--workdir={workdir}", "--author=ann", "import", sheet))
  done = succeeded(run_here("annotate.py", f"--workdir={workdir}", scores, "refit"))
  assert "web-3: no threshold of its own to refit" in done.stdout
  told = tmp_path / "alerts.jsonl"
  succeeded(run_here("alert.py", f"--workdir={workdir}", scores, f"--jsonl={told}"))
  assert any(json.loads(line)["machine"] == "web-3" for line in told.read_text().splitlines())

  # another threshold of the role: the scores are no longer those of this calibration
  content = json.loads((workdir / "calibration.json").read_text())
  for entry in content["roles"]:
    entry["calibration"]["threshold"] *= 2
  (workdir / "calibration.json").write_text(json.dumps(content))
  done = run_here("annotate.py", f"--workdir={workdir}", scores, "record")
  refused(done, 1, "machine 'web-3' was scored with threshold", "run score.py again")


def test_what_cannot_be_scored_is_refused_in_one_line(runs: Runs, networks: Path, tmp_path: Path) -> None:
  values = fleets.series(WEB, NUM_TEST, 5, first=fleets.NUM_TRAIN)

  def score(source: Path, *more: str, workdir: Path = runs.mixtures) -> fleets.Done:
    return run_here("score.py", f"--workdir={workdir}", f"--source={source}", f"--output={tmp_path / 'x'}", *more)

  stranger = one_file(tmp_path / "a", "mail-1", values, role="mail")
  refused(score(stranger), 1, "machine 'mail-1' has no model", "role 'mail' no mixture", "known roles: db, web")
  few = one_file(tmp_path / "b", "web-8", values[:, :4], WEB[:4])
  refused(score(few), 1, "web-8", "metrics missing that training had: memory")
  usual = one_file(tmp_path / "c", "web-8", values)
  refused(score(usual, workdir=networks), 1, "'web-8' has no model; trained: db-1, web-1, web-2", "--cold_start")
  wrong = f"--cold_start={networks}"
  refused(score(usual, wrong, workdir=networks), 1, "config.model.detector mtad_gat", "role_mixture")
  refused(run_here("score.py", f"--workdir={runs.mixtures}", wrong), 2, "--cold_start", "--source")

  old = tmp_path / "old"  # calibrated before there were roles in it
  shutil.copytree(runs.mixtures, old)
  content = json.loads((old / "calibration.json").read_text())
  roles = content.pop("roles")
  (old / "calibration.json").write_text(json.dumps(content))
  succeeded(run_here("score.py", f"--workdir={old}"))
  refused(score(usual, workdir=old), 1, "role 'web' has no calibration for machines without a model", "calibrate.py")
  content["roles"] = [{**entry, "calibration": None, "refused": "role web: nothing in common"} for entry in roles]
  (old / "calibration.json").write_text(json.dumps(content))
  refused(score(usual, workdir=old), 1, "'web-8' has no model", "nothing in common")
  content["roles"] = [{"group": 0, "role": "web"}]
  (old / "calibration.json").write_text(json.dumps(content))
  refused(score(usual, workdir=old), 1, "a role's calibration: field 'calibration' is missing")
  assert not (tmp_path / "x").exists()


def test_the_calibration_of_a_role_of_one_machine_is_that_machines_own(runs: Runs) -> None:
  machines, about = read_calibration(runs.mixtures)
  own, role = machines["db-1"], roles_from_json(about, "calibration.json")[0, "db"].calibration
  assert role is not None
  assert (role.threshold, role.initial, role.num_rows) == (own.threshold, own.initial, own.num_rows)
  assert role.check == own.check
  for name in ("centre", "usual"):
    np.testing.assert_array_equal(getattr(role, name), getattr(own, name))
  for here, there in zip(role.errors.level, own.errors.level, strict=True):
    np.testing.assert_array_equal(here, there)


def test_the_calibration_of_a_role_equals_a_slow_one(runs: Runs) -> None:
  """Rule density and level errors of role web, a row and a component at a time, in the metrics' own units."""
  config = read_config(runs.mixtures)
  (group,) = prepare_groups(read_fleet_folder(runs.fleet), config)
  model = next(model for model in read_role_models(runs.mixtures) if model.role == "web")
  _, about = read_calibration(runs.mixtures)
  found = roles_from_json(about, "calibration.json")[0, "web"].calibration
  assert found is not None
  low, span = model.scaler.minimum, model.scaler.scale
  parts = {}
  for machine in group.machines:
    if machine.role != "web":
      continue
    own = machine.preparation.scaler
    values = machine.train.values.astype(np.float64) * own.scale + own.minimum
    parts[machine.name] = ((values - low) / span, machine)
  fit, held = [], []
  for values, machine in parts.values():
    window, limit = config.model.window_size, config.data.max_filled_share
    fit.append([])
    held.append([])
    for rows, place in ((fit[-1], machine.parts.fit), (held[-1], machine.parts.calibration)):
      for row in range(max(place[0], window), place[1]):
        if machine.train.filled[row - window : row + 1].mean() <= limit:
          rows.append(values[row])
  np.testing.assert_allclose(found.centre, np.concatenate(fit).mean(axis=0), atol=1e-6)
  # each of the two machines is measured by what the other alone says
  settings = dataclasses.replace(config.roles, components=(len(model.mixture.log_weights),))
  others = [np.array(fit[1]), np.array(fit[0])]
  floors = [model.deviation_floor] * 2
  mixtures = [fitted.mixture for fitted in fit_roles(["x", "y"], others, floors, settings, config.train.random_seed)]
  departures = np.concatenate(
    [np.abs(np.array(own) - other.mean(axis=0)) for own, other in zip(held, others, strict=True)]
  )
  assert found.num_rows == len(departures)
  np.testing.assert_allclose(found.errors.level.absolute_mean, departures.mean(axis=0), atol=1e-6)
  np.testing.assert_allclose(found.errors.level.absolute_deviation, departures.std(axis=0), atol=1e-6)

  # what the mixture expects of each metric given the others, from the joint normal of each component
  surprise = []
  for row, mixture in [(row, mixture) for own, mixture in zip(held, mixtures, strict=True) for row in own]:
    gaps = []
    for i in range(len(WEB)):
      rest = [j for j in range(len(WEB)) if j != i]
      weights, means = [], []
      for log_weight, mean, covariance in zip(*mixture, strict=True):
        inner = covariance[np.ix_(rest, rest)]
        weights.append(np.exp(log_weight) * stats.multivariate_normal.pdf(row[rest], mean[rest], inner))
        pull = covariance[i, rest] @ np.linalg.inv(inner)
        means.append(mean[i] + pull @ (row[rest] - mean[rest]))
      gaps.append(row[i] - np.average(means, weights=weights))
    surprise.append(gaps)
  away = np.abs(surprise)
  away[:, model.scaler.is_constant] = 0.0  # is expected at its constant, which it keeps
  assert found.errors.reconstruction is not None
  np.testing.assert_allclose(found.errors.reconstruction.absolute_mean, away.mean(axis=0), atol=1e-5)

  # rule joint, the default: departures from both errors, the largest summed, means over the minutes before
  floor = config.detect.error_floor
  of_errors, of_level = (
    np.maximum(0, part - part.mean(axis=0)) / np.maximum(part.std(axis=0), floor) for part in (away, departures)
  )
  total = of_errors + np.minimum(of_level, config.detect.level_limit)
  sums = np.sort(total, axis=1)[:, -min(config.detect.largest_metrics, len(WEB)) :].sum(axis=1)
  halves = np.split(sums, [len(held[0])])
  scores = []
  for own in halves:
    for row in range(len(own)):
      means = [np.mean(own[max(0, row - length + 1) : row + 1]) for length in config.detect.smoothed_minutes]
      scores.append(np.mean(means))
  settings = config.detect
  again = fit_pot(
    np.array(scores),
    initial_quantile=settings.initial_quantile,
    q=settings.pot_q,
    rows_per_week=7 * 24 * 60,
    run_rows=max(settings.smoothed_minutes),
  )
  assert found.initial == pytest.approx(again.initial, rel=1e-4)
  assert found.threshold == pytest.approx(again.threshold, rel=1e-3)


def _known(is_counter: tuple[bool, ...], step_s: float | None, fill: float) -> Preparation:
  ones = np.ones(2)
  scaler = Scaler(0 * ones, ones, ones, np.zeros(2, bool))
  return Preparation(("a", "b"), step_s, step_s, np.array(is_counter), scaler, np.full(2, fill))


def test_a_role_is_prepared_by_what_its_machines_have_in_common() -> None:
  members = [("w-0", _known((True, False), 60, 1.0)), ("w-1", _known((True, False), 61, 5.0))]
  members.append(("w-2", _known((True, False), 60, 2.0)))
  wide = Scaler(np.zeros(2), np.full(2, 9.0), np.full(2, 9.0), np.zeros(2, bool))
  found = role_preparation("web", members, wide)
  assert (found.step_s, found.source_step_s, found.scaler) == (60, 60, wide)
  np.testing.assert_array_equal(found.leading_fill, [2.0, 2.0])
  assert role_preparation("web", [("w", _known((True, False), None, 1.0))] * 2, wide).step_s is None
  for other, told in (
    (_known((True, True), 60, 1.0), "b is a counter on w-9 and none on w-0"),
    (_known((True, False), 300, 1.0), "the step of w-0 is 60 s, that of w-9 300 s"),
    (_known((True, False), None, 1.0), "has a clock and w-9 has none"),
  ):
    with pytest.raises(ValueError, match=f"^role web: .*{told}"):
      role_preparation("web", [members[0], ("w-9", other)], wide)
