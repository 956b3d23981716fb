"""A run of role mixtures in the report and in inspect_checkpoint.py: its roles in place of curves and checkpoints."""

import json
import shutil
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from fleets import NUM_TEST, WEB, refused, run_here, succeeded
from test_report import Page

from mtad_jax.data.fleet import part_rows, prepare_groups
from mtad_jax.data.load import load_machines
from mtad_jax.data.scaling import unscale
from mtad_jax.report.inputs import read_work
from mtad_jax.report.page import render
from mtad_jax.roles.role_file import ROLE_MIXTURES, StoredRole, read_role_file, write_role_file
from mtad_jax.roles.role_models import read_role_models
from mtad_jax.train.workdir import read_config

ROLES = {"db": ["db-1"], "web": ["web-1", "web-2"]}
TRIED = (1, 2)
SHORT = (
  f"--config={fleets.ROOT / 'configs' / 'role_gmm.py'}",
  f"--config.roles.components={TRIED}",
  "--config.roles.search_rows=200",
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return fleets.write_fleet(tmp_path_factory.mktemp("mixed") / "fleet")


@pytest.fixture(scope="module")
def trained(fleet: Path) -> Path:
  """A run of role mixtures, trained and scored."""
  workdir = fleet.parent / "run"
  succeeded(run_here("train.py", *SHORT, f"--source={fleet}", f"--workdir={workdir}"))
  succeeded(run_here("score.py", f"--workdir={workdir}"))
  return workdir


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
  """A copy of the run that a test may change."""
  return Path(shutil.copytree(trained, tmp_path / "run"))


def inspect(workdir: Path, *arguments: str) -> fleets.Done:
  return run_here("inspect_checkpoint.py", f"--workdir={workdir}", *arguments)


def facts_of(workdir: Path, *arguments: str) -> Any:
  return json.loads(succeeded(inspect(workdir, "--json", *arguments)).stdout)


# ---- the file


def test_the_file_read_without_jax_is_what_scoring_reads(trained: Path) -> None:
  stored, models = read_role_file(trained), read_role_models(trained)
  assert [(s.role, list(s.machines)) for s in stored] == list(ROLES.items())
  for own, model in zip(stored, models, strict=True):
    assert (own.group, own.role, own.machines, own.bic, own.num_rows) == (
      model.group,
      model.role,
      model.machines,
      model.bic,
      model.num_rows,
    )
    np.testing.assert_array_equal(own.weights, np.sort(np.exp(model.mixture.log_weights))[::-1])
    np.testing.assert_array_equal(own.arrays["means"], model.mixture.means)
    np.testing.assert_array_equal(own.arrays["scale"], model.scaler.scale)
    assert own.num_metrics == len(WEB)
    assert sorted(own.bic) == list(TRIED)


# ---- the report


def test_the_report_has_roles_in_place_of_curves(trained: Path) -> None:
  work = read_work(str(trained))
  assert set(work.missing) == {"evaluation"}
  page = Page(render(work, made="today"))
  assert "loss-chart" not in page.ids
  assert "score-chart" in page.ids
  assert "one mixture a role" in page.text
  assert "etired" not in page.text
  head, *rows = page.table("One mixture a role")
  assert head == ["role", "machines", "metrics", "rows", "components", "BIC of 1", "BIC of 2", "their weights",
                  "names of machines"]  # fmt: skip
  for row, stored in zip(rows, read_role_file(trained), strict=True):
    best = min(stored.bic, key=lambda count: stored.bic[count])
    assert row[:5] == [stored.role, str(len(ROLES[stored.role])), str(len(WEB)), str(stored.num_rows), str(best)]
    assert [float(cell.replace(",", "")) for cell in row[5:7]] == [round(stored.bic[count]) for count in TRIED]
    assert row[8] == ", ".join(ROLES[stored.role])
  assert [len(work.machines[name].row) for names in ROLES.values() for name in names][:2] == [NUM_TEST] * 2
  assert [entry["losses"] for entry in page.data] == [{}] * 3


def test_the_report_command_says_nothing_of_a_training_log(run: Path) -> None:
  done = succeeded(run_here("report.py", f"--workdir={run}"))
  assert [line.partition(":")[0] for line in done.stdout.splitlines()[:-1]] == ["without evaluation"]
  assert (run / "report.html").is_file()


def test_a_missing_file_is_told_and_a_damaged_one_refused(run: Path) -> None:
  (run / ROLE_MIXTURES).write_bytes((run / ROLE_MIXTURES).read_bytes()[:-100])
  with pytest.raises(ValueError, match=rf"{ROLE_MIXTURES}: damaged: .*; remove it and run train\.py again"):
    read_work(str(run))
  refused(inspect(run), 1, f"{ROLE_MIXTURES}: damaged")
  (run / ROLE_MIXTURES).unlink()
  page = Page(render(read_work(str(run)), made="today"))
  assert f"Not shown. There is no {ROLE_MIXTURES}: scripts/train.py writes it." in page.text
  refused(inspect(run), 1, f"{ROLE_MIXTURES}: not found; train.py writes it")


# ---- inspect_checkpoint.py


def test_inspect_prints_the_roles(trained: Path) -> None:
  facts = facts_of(trained)
  assert "groups" not in facts
  assert {role["role"]: role["machines"] for role in facts["mixtures"]["roles"]} == ROLES
  lines = succeeded(inspect(trained)).stdout.splitlines()
  for role in facts["mixtures"]["roles"]:
    assert role["metrics"] == list(WEB)
    assert role["constant"] == ["disk_size"]
    assert sum(role["weights"]) == pytest.approx(1)
    assert str(role["num_components"]) == min(role["bic"], key=lambda count: role["bic"][count])
    (row,) = [line.split() for line in lines if line.startswith(f"  {role['role']} ")]
    counts = [0, len(role["machines"]), role["num_rows"], len(WEB), role["num_components"]]
    assert row[1:6] == [str(count) for count in counts]
    assert row[6:] == [f"{weight:.3f}" for weight in role["weights"]]
    tried = ", ".join(f"{count}: {role['bic'][str(count)]:.0f}" for count in TRIED)
    assert f"  BIC by number of components: {tried}; the least is chosen" in lines
  assert any(line.startswith("thresholds (rule joint") for line in lines)
  assert not any("no checkpoint" in line or "check part" in line for line in lines)


def test_inspect_of_one_machine(trained: Path) -> None:
  facts = facts_of(trained, "--machine=web-2")
  (role,) = facts["mixtures"]["roles"]
  assert role["role"] == "web"
  (machine,) = facts["thresholds"]["machines"]
  calibration = json.loads((trained / "calibration.json").read_text())["machines"]["web-2"]
  assert (machine["name"], machine["threshold"]) == ("web-2", calibration["threshold"])
  assert machine["check"] == calibration["check"]
  assert [row["metric"] for row in facts["thresholds"]["metrics"]] == list(WEB)
  check = calibration["check"]
  told = f"web-2: check part: {check['num_alarm_rows']} of {check['num_rows']} rows above it in"
  assert told in succeeded(inspect(trained, "--machine=web-2")).stdout


def test_full_shows_components_in_the_metrics_own_units(trained: Path, fleet: Path) -> None:
  """The weighted means are those of the rows it was fitted on, but for the prior's hundredth of a row."""
  config = read_config(trained)
  (group,) = prepare_groups(load_machines(config.data, data_dir=None, source=str(fleet)), config)
  for role in facts_of(trained, "--full")["mixtures"]["roles"]:
    rows = np.concatenate([
      unscale(machine.train.values, machine.preparation.scaler, np.arange(len(WEB)))[
        part_rows(machine, "fit", config.model.window_size, config.data)
      ]
      for machine in group.machines
      if machine.role == role["role"]
    ])  # fmt: skip
    assert len(rows) == role["num_rows"]
    for place, metric in enumerate(WEB):
      mean = sum(found["weight"] * found["means"][metric] for found in role["components"])
      assert mean == pytest.approx(rows[:, place].mean(), rel=1e-3)
    # the variance of all rows is that within the components and that of their means
    variance, middle = 0.0, rows[:, 0].mean()
    for found in role["components"]:
      variance += found["weight"] * (found["deviations"]["cpu"] ** 2 + (found["means"]["cpu"] - middle) ** 2)
    assert np.sqrt(variance) == pytest.approx(rows[:, 0].std(), rel=0.1)
  assert "mean and deviation by component" in succeeded(inspect(trained, "--full")).stdout


def several(old: StoredRole) -> StoredRole:
  """Returns the role with three components whose means and deviations are known, the heaviest in the middle."""
  scale, num_metrics = old.arrays["scale"], old.num_metrics
  means = np.outer([0.0, 0.5, 1.0], np.ones(num_metrics))
  covariances = np.stack([np.eye(num_metrics) * (step / scale) ** 2 for step in (1.0, 2.0, 3.0)])
  arrays = {"log_weights": np.log([0.2, 0.7, 0.1]), "means": means, "covariances": covariances}
  return old._replace(arrays={**old.arrays, **arrays}, bic={1: 5.4, 3: -1234.6, 7: 1e6})


def test_several_components_stand_heaviest_first(run: Path) -> None:
  write_role_file(run, [several(stored) for stored in read_role_file(run)], "r")
  for stored, told in zip(read_role_file(run), facts_of(run, "--full")["mixtures"]["roles"], strict=True):
    assert [round(found["weight"], 6) for found in told["components"]] == [0.7, 0.2, 0.1]
    lowest, reach = stored.arrays["minimum"], stored.arrays["scale"]
    for found, share, step in zip(told["components"], (0.5, 0.0, 1.0), (2.0, 1.0, 3.0), strict=True):
      np.testing.assert_allclose(list(found["means"].values()), lowest + share * reach)
      np.testing.assert_allclose(list(found["deviations"].values()), np.full(len(WEB), step))
  text = succeeded(inspect(run, "--full")).stdout
  assert "  BIC by number of components: 1: 5, 3: -1235, 7: 1000000; the least is chosen" in text
  assert "0.700 0.200 0.100" in text
  assert text.splitlines().count("  mean and deviation by component, in the metrics' own units:") == 2
  page = Page(render(read_work(str(run)), made="today"))
  for row in page.table("One mixture a role")[1:]:
    assert row[4:9] == ["3", "5", "-1,235", "1,000,000", "70%, 20%, 10%"]


def test_a_mixture_of_other_metrics_is_refused(run: Path) -> None:
  first, *rest = read_role_file(run)
  fewer = {"means": first.arrays["means"][:, :-1]}
  write_role_file(run, [first._replace(arrays={**first.arrays, **fewer}), *rest], "r")
  refused(inspect(run), 1, ROLE_MIXTURES, "role 'db' of group 0 has 4 metrics, its group in fleet.json 5")


@pytest.mark.parametrize("name", ["step", "verify", "compare", "compare_step", "export"])
def test_what_asks_for_checkpoints_is_refused(trained: Path, tmp_path: Path, name: str) -> None:
  flags = {
    "step": ["--step=1"],
    "verify": ["--verify"],
    "compare": [f"--compare={tmp_path}"],
    "compare_step": ["--compare_step=1"],
    "export": ["--machine=web-1", f"--export={tmp_path / 'new'}"],
  }
  said = refused(inspect(trained, *flags[name]), 2, f"--{name}: ", "has a mixture per role and no checkpoints")
  assert str(trained) in said
  assert not (tmp_path / "new").exists()


def test_can_score(run: Path, fleet: Path) -> None:
  assert succeeded(inspect(run, f"--can_score={fleet}")).stdout.splitlines()[0] == "yes: 3 machines"
  assert facts_of(run, f"--can_score={fleet}")["can_score"]
  (run / ROLE_MIXTURES).unlink()
  done = inspect(run, f"--can_score={fleet}")
  assert done.code == 1
  assert done.stdout.startswith("no:\n")
  assert f"{ROLE_MIXTURES}: not found" in done.stdout
