"""First parameters from another run: every machine's own, a new one's from its role; what does not fit is refused."""

import json
from pathlib import Path

import fleets
import jax
import numpy as np
import pytest
from fleets import TINY, refused, run_here, succeeded

from mtad_jax.train.checkpoints import Checkpoints

SETTINGS = (*TINY, "--config.train.num_train_steps=10", "--config.train.checkpoint_every_steps=10")


def train(fleet: Path, workdir: Path, *more: str):
  return run_here("train.py", *SETTINGS, f"--source={fleet}", f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def last_week(tmp_path_factory: pytest.TempPathFactory) -> Path:
  root = tmp_path_factory.mktemp("last_week")
  fleet = fleets.write_fleet(root / "fleet", ("db-1", "web-1", "web-2"))
  succeeded(train(fleet, root / "run"))
  return root / "run"


def tree_of(run: Path, step: int) -> dict:
  with Checkpoints(run / "checkpoints" / "group-0", read_only=True) as checkpoints:
    return checkpoints.read_tree(step)


def test_every_machine_begins_with_its_own_model_and_a_new_one_with_its_roles(
  last_week: Path, tmp_path: Path
) -> None:
  names = ("app-1", "db-1", "web-1", "web-2", "web-9")
  fleet = fleets.write_fleet(tmp_path / "fleet", names)
  run = tmp_path / "run"
  done = succeeded(train(fleet, run, f"--warm_start={last_week}"))
  assert "warm start: 3 of 5 machines from their own model" in done.stdout
  assert "app-1: no machine of its name or role there; parameters drawn" in done.stdout

  about = json.loads((run / "run.json").read_text())
  losses = tree_of(last_week, 10)["best_loss"]  # lanes db-1, web-1, web-2
  best_of_role = ("web-1", "web-2")[int(np.argmin(losses[1:]))]
  sources = {name: name for name in names} | {"app-1": None, "web-9": best_of_role}
  assert about["warm_start_from"] == sources
  assert about["warm_start"] == str(last_week)
  lane = {"db-1": 0, "web-1": 1, "web-2": 2}
  theirs, first = tree_of(last_week, 10)["best_params"], tree_of(run, 0)
  theirs.pop("linear")  # the skip is fitted anew
  for branch in (first["params"], first["best_params"], first["snapshot"]["params"]):
    branch.pop("linear", None)
    for mine, other in zip(jax.tree.leaves(branch), jax.tree.leaves(theirs), strict=True):
      for i, name in enumerate(names):
        if sources[name] is not None:
          np.testing.assert_array_equal(mine[i], other[lane[sources[name]]])

  # the same run again, with the flag, without it, and with another one
  for flags in ((f"--warm_start={last_week}",), ()):
    assert "resumed at step 10 of 10" in succeeded(train(fleet, run, *flags)).stdout
  refused(train(fleet, run, f"--warm_start={run}"), 1, "run.json", f"began with --warm_start={last_week}")


def test_another_network_other_metrics_or_nobody_alike_is_refused(last_week: Path, tmp_path: Path) -> None:
  fleet = fleets.write_fleet(tmp_path / "fleet", ("db-1",))
  warm = f"--warm_start={last_week}"
  told = refused(train(fleet, tmp_path / "a", warm, "--config.model.hidden_size=9"), 1, "made by another network")
  assert "model.hidden_size is 9, there 8" in told
  few = train(fleet, tmp_path / "b", warm, "--config.data.target_metrics=('cpu',)")
  refused(few, 1, "no group there has these 5 metrics", "the same 1 targets")
  strangers = fleets.write_fleet(tmp_path / "strangers", ("app-1",))
  refused(train(strangers, tmp_path / "c", warm), 1, "it has none of app-1, nor a validated machine of their roles")
  refused(train(fleet, tmp_path / "d", f"--warm_start={tmp_path}"), 1, "config.json: not found")


def test_half_of_the_flags_for_several_processes_is_refused(tmp_path: Path) -> None:
  fleet = fleets.write_fleet(tmp_path / "fleet", ("db-1",))
  refused(train(fleet, tmp_path / "run", "--num_processes=2"), 1, "--coordinator", "all three are wanted")
  three = ("--coordinator=127.0.0.1:9", "--num_processes=2", "--process_id=2")
  refused(train(fleet, tmp_path / "run", *three), 1, "--process_id=2", "0 to 1")
  assert not (tmp_path / "run").exists()
