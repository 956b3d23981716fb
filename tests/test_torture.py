"""The run ends by itself whatever it is given: every machine finite, or retired and named; and it is scored."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_train import assert_equal, lanes

from mtad_jax.data.fleet import Group, prepare_groups
from mtad_jax.data.machine import Machine
from mtad_jax.train import fleet_step, loop, objective
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_file import best_params, describe_fleet, read_fleet
from mtad_jax.train.fleet_step import make_programs
from mtad_jax.train.loop import train_group
from mtad_jax.train.metrics_log import read_metrics
from mtad_jax.train.trouble_report import summary_lines
from mtad_jax.train.workdir import FLEET, group_directory, write_json

GUARD = {"max_rollbacks": 3, "snapshot_every_steps": 10, "max_skipped_in_a_row": 3, "rate_recovery_steps": 20}
TORTURE = {
  "train": {
    **GUARD,
    "learning_rate": 0.1,
    "final_learning_rate": 0.1,
    "clip_gradients": 0.0,
    "num_train_steps": 120,
  },
  "model": {**tiny.MODEL, "variance_floor": 0.0},
}


def hard_machine(name: str, seed: int) -> Machine:
  """A machine with a metric that reaches 1e30 and one that never moves."""
  machine = tiny.make_machine(name, 260, seed)
  for series in (machine.train, machine.test):
    series.values[::17, 0] = 1e30
    series.values[:, 2] = 7.0
  return machine


def poisoned(group: Group, lane: int, rows: slice) -> Group:
  """The group with values that are not finite in some training rows of one machine: its batches are bad at times."""
  machine = group.machines[lane]
  values = machine.train.values.copy()
  values[rows] = np.nan
  machine = machine._replace(train=machine.train._replace(values=values))
  machines = (*group.machines[:lane], machine, *group.machines[lane + 1 :])
  return group._replace(machines=machines)


def train(workdir, group: Group, config, first_params=None):
  workdir.mkdir(exist_ok=True)
  write_json(workdir / FLEET, describe_fleet([group]))
  return train_group(group, 0, config, workdir, {"run_id": "x", "versions": {}}, first_params)


def state_of(workdir):
  with Checkpoints(group_directory(workdir, 0), read_only=True) as checkpoints:
    return checkpoints.read_tree(checkpoints.steps()[-1])


def assert_comes_home(workdir, group: Group, config, outcome):
  """Ended by itself; parameters finite; bad machines named with what was wrong; every machine can be scored."""
  assert outcome.finished
  tree = state_of(workdir)
  for name in ("params", "optimizer", "best_params"):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree[name])), name
  rows = read_metrics(workdir)
  records = [record for row in rows for record in row.get("trouble", [])]
  for lane, name in enumerate(group.names):
    mine = [record for record in records if record["machine"] == name]
    assert len(mine) == outcome.num_skipped[name]
    assert sum(record["verdict"] == "rolled back" for record in mine) == outcome.num_rolled_back[name]
    assert [record["verdict"] == "retired" for record in mine].count(True) == outcome.retired[name]
    assert outcome.retired[name] or tree["step"][lane] == config.train.num_train_steps
    for record in mine:
      assert record["parts"]
      assert record["worst_row"] in record["rows"]
      assert len(record["rows"]) == config.train.batch_size
      assert record["learning_rate"] > 0
  lines = "\n".join(summary_lines(rows, 0))
  assert all((f"{name}: " in lines) == (outcome.num_skipped[name] > 0) for name in group.names)
  params, _, remarks = best_params(workdir, config, read_fleet(workdir)[0], report=pytest.fail)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
  assert {name for name, retired in outcome.retired.items() if retired} <= set(remarks)


def test_everything_wrong_at_once(tmp_path):
  """Learning rate 100 times too high, no clipping, no variance floor, 1e30, a constant metric, poisoned batches."""
  config = tiny.make_config(**TORTURE)
  group = prepare_groups([hard_machine(f"machine-{i}", i) for i in range(3)], config)[0]
  group = poisoned(group, 1, slice(60, 64))
  group = poisoned(group, 2, slice(0, 260))
  outcome = train(tmp_path / "run", group, config)
  assert_comes_home(tmp_path / "run", group, config, outcome)
  assert outcome.retired["machine-2"]
  assert outcome.num_skipped["machine-1"] > 0


def unsafe_likelihood(reconstruction, actual):
  """The original program's: the density first, then its logarithm; flat, then NaN, where the density underflows."""
  squares = (actual - reconstruction.mean) ** 2
  density = jnp.exp(-squares / (2 * reconstruction.variance)) / jnp.sqrt(2 * jnp.pi * reconstruction.variance)
  return -jnp.mean(jnp.log(density + 1e-35), axis=(1, 2))


def collapsed(group: Group, config, metric: int):
  """Returns drawn parameters but for one metric, reconstructed as exactly 0 with a variance of 2e-9 and no floor.

  There the original's training takes a metric that never moves: its likelihood has no upper bound.
  """
  programs = make_programs(config, len(group.metrics), group.targets)
  params = programs.init(np.arange(len(group.names), dtype=np.uint32)).params
  heads = {name: dict(params["vae"][name]) for name in ("mean", "variance")}
  for name, bias in (("mean", 0.0), ("variance", -20.0)):
    heads[name]["kernel"] = heads[name]["kernel"].at[:, :, metric].set(0.0)
    heads[name]["bias"] = heads[name]["bias"].at[:, metric].set(bias)
  return {**params, "vae": {**params["vae"], **heads}}


@pytest.fixture
def original_likelihood(monkeypatch):
  """The original program's likelihood in place of ours; programs made with one are not used with the other."""
  fleet_step._make_programs.cache_clear()
  monkeypatch.setattr(objective, "reconstruction_loss", unsafe_likelihood)
  yield
  fleet_step._make_programs.cache_clear()


@pytest.mark.usefixtures("original_likelihood")
def test_with_the_original_programs_likelihood_the_guard_brings_the_run_home(tmp_path):
  """A metric that never moved moves in one row: its density underflows, the gradient is NaN, and it is told so."""
  config = tiny.make_config(**TORTURE)
  group = prepare_groups([hard_machine(f"machine-{i}", i) for i in range(3)], config)[0]
  for machine in group.machines:
    machine.train.values[:, 2] = 0.0
    machine.train.values[60, 2] = 1.0
  params = collapsed(group, config, metric=2)
  outcome = train(tmp_path / "run", group, config, lambda: params)
  assert_comes_home(tmp_path / "run", group, config, outcome)
  records = [record for row in read_metrics(tmp_path / "run") for record in row.get("trouble", [])]
  for name in group.names:
    mine = [record for record in records if record["machine"] == name and "vae" in record["blocks"]]
    # the row of its batch that moved is among the windows told; its loss was finite and said nothing
    assert any(set(record["rows"]) & set(range(61, 69)) and record["loss"] is not None for record in mine), name


@pytest.mark.parametrize(
  ("rows", "kind"), [(slice(60, 62), "skipped"), (slice(60, 80), "rolled back"), (slice(0, 230), "retired")]
)
def test_a_sick_machine_leaves_the_run_of_the_others_bit_equal(tmp_path, rows, kind):
  """To the end of training, best states and log rows included, though the sick one takes longer or never ends."""
  config = tiny.make_config(train={**GUARD, "max_rollbacks": 30, "num_train_steps": 43})
  group = tiny.make_group(config)
  whole = train(tmp_path / "whole", group, config)
  sick = train(tmp_path / "sick", poisoned(group, 1, rows), config)
  assert not sum(whole.num_skipped.values())
  assert sick.num_skipped["machine-1"] > 0
  assert (sick.num_rolled_back["machine-1"] > 0) == (kind != "skipped")
  assert sick.retired["machine-1"] == (kind == "retired")
  trees = [state_of(tmp_path / name) for name in ("whole", "sick")]
  for name in set(trees[0]) - {"tick", "trouble"}:
    assert_equal(*(lanes(tree[name], [0, 2]) for tree in trees))
  rows_whole, rows_sick = (read_metrics(tmp_path / name)[1:] for name in ("whole", "sick"))
  for row, other in zip(rows_whole, rows_sick, strict=False):
    for name, values in row.items():
      if isinstance(values, list) and name != "trouble":
        assert [values[0], values[2]] == [other[name][0], other[name][2]], (row["step"], name)
  for row in rows_sick[
    len(rows_whole) :
  ]:  # the sick one takes its steps again; nothing happens to the others
    assert row["loss"][0] is row["loss"][2] is None
    assert row["machine_step"][0] == row["machine_step"][2] == 43


@pytest.mark.slow
def test_a_run_with_rollbacks_stopped_and_resumed_equals_never_having_stopped(tmp_path, monkeypatch):
  """The guard's memory too: snapshot, history of losses, attempts, cut rates, records not yet logged."""
  config = tiny.make_config(train={**GUARD, "max_rollbacks": 30, "num_train_steps": 43})
  group = poisoned(tiny.make_group(config), 1, slice(60, 80))
  whole = train(tmp_path / "whole", group, config)
  real = loop.Pace.num_steps
  for stop_after in (3, 5, 9):
    calls = {"count": 0}

    def slowly(pace, calls=calls, stop_after=stop_after):
      calls["count"] += 1
      if calls["count"] == stop_after:
        signal.raise_signal(signal.SIGTERM)
      return min(real(pace), 3)

    monkeypatch.setattr(loop.Pace, "num_steps", slowly)
    assert not train(tmp_path / "cut", group, config).finished
  monkeypatch.setattr(loop.Pace, "num_steps", real)
  assert train(tmp_path / "cut", group, config) == whole
  assert whole.num_rolled_back["machine-1"] > 0
  assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))
  logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
  assert logs[0] == logs[1]


def test_a_machine_that_never_validates_finitely_is_scored_with_its_last_parameters(tmp_path, monkeypatch):
  config = tiny.make_config()
  group = tiny.make_group(config)
  machine = group.machines[1]
  values = machine.train.values.copy()
  first, end = machine.parts.validation
  values[first - 1 : end] = np.inf  # the fit part is sound
  broken = machine._replace(train=machine.train._replace(values=values))
  group = group._replace(machines=(group.machines[0], broken, group.machines[2]))
  outcome = train(tmp_path / "run", group, config)
  assert outcome.num_skipped == {name: 0 for name in group.names}
  assert outcome.best_loss["machine-1"] == np.inf
  params, _, remarks = best_params(tmp_path / "run", config, read_fleet(tmp_path / "run")[0])
  assert list(remarks) == ["machine-1"]
  assert "never validated finitely" in remarks["machine-1"]
  tree = state_of(tmp_path / "run")
  assert_equal(lanes(tree["params"], [1]), lanes(params, [1]))
  assert_equal(lanes(tree["best_params"], [0, 2]), lanes(params, [0, 2]))


@pytest.mark.parametrize("stop_at", [4, 6, 7])
def test_stopped_between_two_log_rows_after_all_have_retired_loses_no_row(tmp_path, monkeypatch, stop_at):
  """Whether a run is at its end is asked where a row is due: the last bad steps are still to be told."""
  config = tiny.make_config(
    train={**GUARD, "max_rollbacks": 0, "log_every_steps": 10, "validate_every_steps": 10}
  )
  group = tiny.make_group(config)
  for lane in range(3):
    group = poisoned(group, lane, slice(0, 260))
  whole = train(tmp_path / "whole", group, config)
  assert all(whole.retired.values())
  calls = {"count": 0}

  def slowly(pace):
    calls["count"] += 1
    if calls["count"] == stop_at:
      signal.raise_signal(signal.SIGTERM)
    return 1

  with monkeypatch.context() as patch:
    patch.setattr(loop.Pace, "num_steps", slowly)
    stopped = train(tmp_path / "cut", group, config)
  assert (stopped.step, stopped.finished) == (stop_at, False)
  assert train(tmp_path / "cut", group, config) == whole
  assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))
  logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
  assert logs[0] == logs[1]
