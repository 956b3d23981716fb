"""inspect_checkpoint.py on a small trained run: what it lists, compares, refuses and exports, and what it reads."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from fleets import TINY, WEB, WINDOW, of_machine, read_table, refused, run_here, succeeded

from mtad_jax.data.fleet import prepare_groups
from mtad_jax.data.load import load_machines
from mtad_jax.detect.calibrate_run import read_calibration
from mtad_jax.train.checkpoint_reader import CheckpointReader
from mtad_jax.train.checkpoints import Checkpoints, CorruptCheckpoint
from mtad_jax.train.fleet_file import (
  best_params,
  check_same_data,
  describe_fleet,
  read_fleet,
)
from mtad_jax.train.inspection import Lanes, compare_branches, named_leaves, relative_difference
from mtad_jax.train.workdir import read_config

NAMES = ["db-1", "web-1", "web-2"]
STEPS = (20, 40)
SHORT = (
  *TINY,
  "--config.train.num_train_steps=40",
  "--config.train.validate_every_steps=20",
  "--config.train.checkpoint_every_steps=20",
  "--exclude=web-2:0-5",
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return fleets.write_fleet(tmp_path_factory.mktemp("inspected") / "fleet")


@pytest.fixture(scope="module")
def trained(fleet: Path) -> Path:
  workdir = fleet.parent / "run"
  succeeded(run_here("train.py", *SHORT, f"--source={fleet}", f"--workdir={workdir}"))
  return workdir


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
  """A copy of the run that a test may change."""
  return Path(shutil.copytree(trained, tmp_path / "run"))


def inspect(workdir: Path, *arguments: str) -> fleets.Done:
  return run_here("inspect_checkpoint.py", f"--workdir={workdir}", *arguments)


def facts_of(workdir: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
  done = inspect(workdir, "--json", *arguments)
  assert done.code == code, done.stderr
  return json.loads(done.stdout)


def group_folder(workdir: Path) -> Path:
  return workdir / "checkpoints" / "group-0"


def damage_arrays(workdir: Path, step: int) -> None:
  """Flips a byte in the middle of every large file of a step's arrays."""
  for path in (group_folder(workdir) / str(step) / "state").rglob("*"):
    if path.is_file() and path.parent.name == "d" and path.stat().st_size > 4000:
      data = bytearray(path.read_bytes())
      for at in range(1500, len(data), 1500):
        data[at] ^= 255
      path.write_bytes(data)


def rewrite(workdir: Path, step: int, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
  """Writes a step again, with other arrays or another note."""
  reader = CheckpointReader(group_folder(workdir))
  tree, about = reader.read_tree(step), reader.about(step)
  names = tuple(about["machines"])
  change(tree, about)
  later = [number for number in reader.steps() if number >= step]
  for number in later:
    shutil.rmtree(group_folder(workdir) / str(number))
  with Checkpoints(group_folder(workdir)) as checkpoints:
    checkpoints.save(step, tree, names, about)


def retire(tree: dict[str, Any], about: dict[str, Any]) -> None:
  """web-1 retired before any finite validation, db-1 after one; web-2 was validated, never finitely."""
  about["best_loss"] = [about["best_loss"][0], None, None]
  about["verdicts"] = {"num_skipped": [3, 9, 2], "num_rolled_back": [1, 3, 0], "retired": [True, True, False]}
  about["machine_step"] = [18, 7, 40]
  about["validated_step"] = [18, 0, 40]
  tree["params"] = {name: {**branch} for name, branch in tree["params"].items()}
  tree["params"]["gru"]["candidate_bias"] = tree["params"]["gru"]["candidate_bias"] + 1


# what is there


def test_the_fleet_is_told_and_every_figure_is_the_array_s_own(trained: Path) -> None:
  done = succeeded(inspect(trained))
  assert "step 40, written by python " in done.stdout
  assert re.search(r"  on 1 x \w*cpu; processes: 1\n", done.stdout, re.IGNORECASE)
  assert "model.window_size" in done.stdout
  assert "all finite" in done.stdout
  assert "DAMAGED" not in done.stdout
  facts = facts_of(trained)
  group = facts["groups"][0]
  assert [step["step"] for step in group["steps"]] == list(STEPS)
  assert [record["name"] for record in group["records"]] == NAMES
  reader = CheckpointReader(group_folder(trained))
  leaves = named_leaves(reader.read_part(40, "best_params"))
  assert [leaf["path"] for leaf in group["arrays"]] == list(leaves)
  for leaf in group["arrays"]:
    values = leaves[leaf["path"]]
    assert leaf["shape"] == list(values.shape)
    assert leaf["norm"] == pytest.approx(np.sqrt(np.sum(np.float64(values) ** 2)), rel=1e-12)
    assert leaf["num_not_finite"] == 0
  unread = {branch["name"]: branch["num_values"] for branch in group["not_read"]}
  assert unread["params"] == sum(values.size for values in leaves.values())
  losses = [record["best_loss"] for record in group["records"]]
  assert group["steps"][1]["worst_loss"] == max(losses)
  assert group["steps"][1]["median_loss"] == sorted(losses)[1]
  assert facts["run"]["config"]["model.window_size"] == [WINDOW, 100]
  assert facts["trouble"] == [{"group": 0, "num_records": 0, "last": []}]
  found, _ = read_calibration(trained)
  assert [entry["threshold"] for entry in facts["thresholds"]["machines"]] == [
    found[n].threshold for n in NAMES
  ]


def test_one_machine_alone_and_nothing_else_is_read(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  whole = CheckpointReader(group_folder(trained)).read_tree(40)

  def refuse(*_: Any) -> None:
    raise AssertionError("more than one machine was read")

  with monkeypatch.context() as patched:
    for name in ("read_tree", "read_part", "restore"):
      patched.setattr(CheckpointReader, name, refuse)
    facts, full = facts_of(trained, "--machine=web-1"), facts_of(trained, "--machine=web-1", "--full")
    told = succeeded(inspect(trained, "--machine=web-1")).stdout
  assert "web-1: validation loss " in told
  assert "web-2: " not in told
  arrays = {leaf["path"]: leaf for leaf in facts["groups"][0]["arrays"]}
  for path, values in named_leaves(whole["best_params"]).items():
    assert arrays[path]["shape"] == list(values.shape[1:])
    assert arrays[path]["norm"] == pytest.approx(float(np.linalg.norm(np.float64(values[1]))), rel=1e-12)
  assert len(full["groups"][0]["arrays"]) == len(named_leaves(whole))
  metrics = {row["metric"]: row for row in facts["thresholds"]["metrics"]}
  assert list(metrics) == list(WEB)
  assert [metrics[name]["is_counter"] for name in WEB] == [name == "requests" for name in WEB]
  assert [metrics[name]["is_constant"] for name in WEB] == [name == "disk_size" for name in WEB]
  stored = json.loads((trained / "fleet.json").read_text())["groups"][0]["machines"][1]["preparation"][
    "scaler"
  ]
  assert [metrics[name]["scale"] for name in WEB] == stored["scale"]


def test_values_that_are_not_finite_are_counted(run: Path) -> None:
  def spoil(tree: dict[str, Any], _: dict[str, Any]) -> None:
    tree["guard"]["history"]["losses"][1, :2] = [np.nan, np.inf]

  rewrite(run, 40, spoil)
  arrays = {leaf["path"]: leaf for leaf in facts_of(run, "--full")["groups"][0]["arrays"]}
  assert arrays["guard/history/losses"]["num_not_finite"] == 2
  assert arrays["guard/history/losses"]["norm"] is None
  assert sum(leaf["num_not_finite"] for leaf in arrays.values()) == 2
  assert "2 NOT FINITE" in inspect(run, "--full").stdout


def test_verdicts_and_trouble_are_told_up_to_the_step(run: Path) -> None:
  rewrite(run, 40, retire)
  records = [
    {
      "machine": machine,
      "step": tick - 1,
      "tick": tick,
      "attempt": 0,
      "verdict": "skipped",
      "back_to": None,
      "parts": ["kl"],
      "blocks": ["gru"],
      "learning_rate": 1e-3,
      "loss": None,
      "usual_loss": 1.5,
      "worst_row": 77,
      "rows": [77, 78],
    }
    for machine, tick in (("web-1", 5), ("db-1", 19), ("web-1", 25))
  ]
  lines = (run / "metrics.jsonl").read_text().splitlines()
  last = json.loads(lines[-1])
  (run / "metrics.jsonl").write_text(
    "\n".join([*lines[:-1], json.dumps({**last, "trouble": records})]) + "\n"
  )
  group = facts_of(run)["groups"][0]
  row = group["steps"][-1]
  assert (row["num_skipped"], row["num_rolled_back"], row["num_retired"], row["num_validated"]) == (
    14,
    4,
    2,
    1,
  )
  assert [record["retired"] for record in group["records"]] == [True, True, False]
  told = inspect(run, "--machine=web-1").stdout
  assert "web-1: not validated yet; at its step 7; 9 steps skipped, 3 rolled back; RETIRED" in told
  assert "never finite" in inspect(run, "--machine=web-2").stdout
  assert facts_of(run)["trouble"][0]["last"] == records
  assert facts_of(run, "--machine=web-1")["trouble"][0]["last"] == [records[0], records[2]]
  assert facts_of(run, "--step=20")["trouble"][0]["last"] == records[:2]


# what is damaged, or is not there


def test_a_damaged_newest_step_is_named_and_the_one_before_is_shown(run: Path) -> None:
  damage_arrays(run, 40)
  (group_folder(run) / "39.damaged").mkdir()
  done = inspect(run)
  assert done.code == 0
  assert "  40  DAMAGED: " in done.stdout
  assert "step 20, written by" in done.stdout
  assert "folders that do not count: 39.damaged" in done.stdout
  refused(inspect(run, "--step=40"), 1, "step 40")


def test_missing_metadata_does_not_end_the_listing(run: Path) -> None:
  (group_folder(run) / "20" / "about" / "metadata").unlink()
  group = facts_of(run)["groups"][0]
  assert group["step"] == 40
  assert "about/metadata is missing" in group["steps"][0]["damage"]
  assert group["steps"][1]["damage"] is None


def test_only_verify_reads_the_arrays_of_other_steps(run: Path) -> None:
  damage_arrays(run, 20)
  assert [step["damage"] for step in facts_of(run)["groups"][0]["steps"]] == [None, None]
  told = facts_of(run, "--verify")["groups"][0]["steps"]
  assert "leaf" in told[0]["damage"]
  assert told[1]["damage"] is None


def test_a_group_without_checkpoint_does_not_end_the_listing(run: Path) -> None:
  """Of several groups, those whose turn has not come."""
  fleet = json.loads((run / "fleet.json").read_text())
  other = json.loads(json.dumps(fleet["groups"][0]))
  other["machines"] = [{**other["machines"][0], "name": "later-1"}]
  (run / "fleet.json").write_text(json.dumps({**fleet, "groups": [*fleet["groups"], other]}))
  done = succeeded(inspect(run))
  assert "step 40, written by" in done.stdout
  assert "group 1: 1 machines, 5 metrics" in done.stdout
  assert done.stdout.count("no checkpoint yet") == 1
  refused(inspect(run, "--machine=later-1", "--step=40"), 1, "group-1", "no checkpoint")
  refused(inspect(run, "--machine=later-1", f"--export={run / 'x'}"), 1, "group-1", "no checkpoint")


def test_a_machine_of_the_second_group(run: Path, tmp_path: Path) -> None:
  """Its checkpoints, its log and its calibration are its group's, not the first one's."""
  names = [f"other-{name}" for name in NAMES]
  fleet = json.loads((run / "fleet.json").read_text())
  machines = [{**m, "name": n} for m, n in zip(fleet["groups"][0]["machines"], names, strict=True)]
  fleet["groups"].append({**fleet["groups"][0], "machines": machines})
  (run / "fleet.json").write_text(json.dumps(fleet))
  reader = CheckpointReader(group_folder(run))
  tree, about = reader.read_tree(20), reader.about(20)
  with Checkpoints(run / "checkpoints" / "group-1") as checkpoints:
    checkpoints.save(20, tree, tuple(names), about)
  calibration = json.loads((run / "calibration.json").read_text())
  calibration["checkpoint_steps"] = [40, 20]
  calibration["machines"] |= {n: calibration["machines"][m] for n, m in zip(names, NAMES, strict=True)}
  (run / "calibration.json").write_text(json.dumps(calibration))
  log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  rows = [*log, {**log[0], "group": 1, "machines": names}, {**log[1], "group": 1, "epoch": 77.0}]
  (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  facts = facts_of(run, "--machine=other-web-1")
  assert [(group["group"], group["step"]) for group in facts["groups"]] == [(1, 20)]
  succeeded(inspect(run, "--machine=other-web-1", f"--export={tmp_path / 'x'}"))
  alone = named_leaves(CheckpointReader(group_folder(tmp_path / "x")).read_tree(20))
  np.testing.assert_array_equal(alone["params/gru/recurrent"][0], tree["params"]["gru"]["recurrent"][1])
  assert json.loads((tmp_path / "x" / "calibration.json").read_text())["checkpoint_steps"] == [20]
  lines = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
  assert [(row["group"], row.get("epoch")) for row in lines] == [(0, None), (0, 77.0)]
  assert lines[1]["loss"] == [log[1]["loss"][1]]
  refused(inspect(run, "--step=40"), 1, "group-1", "no step 40; there are [20]")


def test_all_steps_damaged(run: Path) -> None:
  for step in STEPS:
    damage_arrays(run, step)
  done = inspect(run)
  assert done.stdout.count("DAMAGED") == 2
  assert "no step can be read" in done.stdout
  assert "every step is damaged" in done.stderr


@pytest.mark.parametrize(
  ("arguments", "code", "parts"),
  [
    (("--step=7",), 1, ("no step 7; there are [20, 40]",)),
    (("--machine=web-9",), 1, ("--machine=web-9", "web-1, web-2")),
    (("--compare_step=7",), 1, ("no step 7",)),
    (("--compare=nowhere",), 1, ("nowhere", "not a work directory")),
    (("--export=somewhere",), 2, ("--export", "--machine=NAME")),
    (("--export=somewhere", "--compare_step=20", "--machine=web-1"), 2, ("one of them at a time",)),
    (("--can_score=x", "--step=20"), 2, ("--can_score", "--step")),
    (("--compare_step=20", "--full"), 2, ("--full",)),
  ],
)
def test_wrong_flags(trained: Path, arguments: tuple[str, ...], code: int, parts: tuple[str, ...]) -> None:
  refused(inspect(trained, *arguments), code, *parts)


# two checkpoints


def test_relative_difference_by_hand() -> None:
  b = np.array([3.0, 4.0])
  assert relative_difference(b, b) == 0
  assert relative_difference(2 * b, b) == 1
  assert relative_difference(np.array([3.0, 4.5]), b) == pytest.approx(0.1)
  assert relative_difference(b * 1e3, (b + 1) * 1e3) == pytest.approx(relative_difference(b, b + 1))
  assert relative_difference(b, 0 * b) == np.inf
  assert relative_difference(0 * b, 0 * b) == 0
  assert np.isnan(relative_difference(np.array([np.nan, 4.0]), b))


def test_machines_are_matched_by_name_and_other_leaves_are_told() -> None:
  here = Lanes({"a": np.array([[1.0], [2.0]]), "b": np.zeros((2, 3)), "c": np.zeros((2, 1))}, ("x", "y"))
  there = Lanes({"a": np.array([[4.0], [1.0]]), "b": np.zeros((2, 4)), "d": np.zeros((2, 1))}, ("y", "z"))
  found = compare_branches([here], [there])
  assert found["machines"] == [{"name": "y", "whole": 0.5, "path": "a", "worst": 0.5}]
  assert found["leaves"] == [{"path": "a", "median": 0.5, "worst": 0.5, "machine": "y"}]
  assert found["others"] == ["c: only here", "d: only there", "b: [3] here, [4] there"]


def test_two_steps_of_a_run(trained: Path) -> None:
  facts = facts_of(trained, "--compare_step=20")
  assert facts["config"] == {}
  reader = CheckpointReader(group_folder(trained))
  a, b = (named_leaves(reader.read_part(step, "params")) for step in (40, 20))
  leaves = {leaf["path"]: leaf for leaf in facts["branches"]["params"]["leaves"]}
  assert set(leaves) == set(a)
  path = "gru/recurrent"
  wanted = [float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in zip(a[path], b[path], strict=True)]
  assert leaves[path]["worst"] == pytest.approx(max(wanted), rel=1e-4)
  assert leaves[path]["median"] == pytest.approx(sorted(wanted)[1], rel=1e-4)
  assert leaves[path]["machine"] == NAMES[int(np.argmax(wanted))]
  alone = facts_of(trained, "--compare_step=20", "--machine=web-1")["branches"]["params"]
  whole = {machine["name"]: machine for machine in facts["branches"]["params"]["machines"]}
  assert alone["machines"] == [whole["web-1"]]
  told = succeeded(inspect(trained, "--compare_step=20", "--machine=web-1")).stdout
  assert alone["leaves"][0]["path"] in told
  assert "more that differ less (--json has all)" in told


def test_another_run_with_another_network_and_other_machines(trained: Path, run: Path) -> None:
  def shrink(tree: dict[str, Any], _: dict[str, Any]) -> None:
    for branch in ("params", "best_params"):
      tree[branch]["gru"]["recurrent"] = tree[branch]["gru"]["recurrent"][:, :, :5]

  rewrite(run, 40, shrink)
  config = json.loads((run / "config.json").read_text())
  config["train"]["batch_size"] = 17
  (run / "config.json").write_text(json.dumps(config))
  facts = facts_of(trained, f"--compare={run}")
  assert facts["config"] == {"train.batch_size": [16, 17]}
  assert facts["branches"]["params"]["others"] == ["gru/recurrent: [8, 24] here, [8, 5] there"]
  assert all(leaf["worst"] == 0 for leaf in facts["branches"]["params"]["leaves"])
  done = succeeded(inspect(trained, f"--compare={run}"))
  assert "train.batch_size: 16, 17" in done.stdout


# can it score?


def test_a_fleet_that_can_be_scored(trained: Path, fleet: Path) -> None:
  assert facts_of(trained, f"--can_score={fleet}") == {
    "can_score": True,
    "machines": NAMES,
    "reasons": [],
    "notes": [],
  }
  assert succeeded(inspect(trained, f"--can_score={fleet}")).stdout == "yes: 3 machines\n"


def test_every_reason_against_scoring_is_given(run: Path, fleet: Path, tmp_path: Path) -> None:
  source = tmp_path / "new"
  split = fleets.test_split("web-1")
  fleets.write_csv(source / "test" / "web-1.csv", WEB[:-1], split.values[:, :-1], split.timestamps)
  fleets.write_csv(source / "test" / "web-2.csv", WEB, split.values[:WINDOW], split.timestamps[:WINDOW])
  fleets.write_csv(source / "test" / "web-9.csv", WEB, split.values, split.timestamps)
  (source / "test" / "db-1.csv").write_text("cpu,latency\n1,x\n")
  content = json.loads((run / "calibration.json").read_text())
  content["run_id"] = "another"
  content["detect"]["gamma"] = 0.1
  content["checkpoint_steps"] = [33]
  del content["machines"]["web-2"]
  (run / "calibration.json").write_text(json.dumps(content))
  reasons = facts_of(run, f"--can_score={source}", code=1)["reasons"]
  wanted = (
    "db-1.csv",
    "machine web-1: metrics missing that training had: memory",
    "machine 'web-9' has no model",
    f"machine web-2: test has {WINDOW} rows on its grid; the first score needs {WINDOW + 1}",
    "of run another",
    "detect.gamma 0.1",
    "no calibration of web-2",
    "no step 33; there are [20, 40]",
  )
  for part in wanted:
    assert sum(part in reason for reason in reasons) == 1, (part, reasons)
  assert len(reasons) == len(wanted)
  only = facts_of(run, f"--can_score={source}", "--machine=web-2", code=1)["reasons"]
  assert not any("web-1" in reason or "web-9" in reason for reason in only)
  assert facts_of(run, f"--can_score={tmp_path / 'none'}", code=1)["reasons"][0].endswith("is wanted")


def test_metrics_that_training_did_not_have_can_be_ignored_as_in_scoring(
  trained: Path, tmp_path: Path
) -> None:
  split = fleets.test_split("web-1")
  wider = np.concatenate([split.values, split.values[:, :1]], axis=1)
  fleets.write_csv(tmp_path / "test" / "web-1.csv", (*WEB, "fan"), wider, split.timestamps)
  reasons = facts_of(trained, f"--can_score={tmp_path}", code=1)["reasons"]
  assert len(reasons) == 1
  assert "metrics that training did not have: fan" in reasons[0]
  assert facts_of(trained, f"--can_score={tmp_path}", "--extra=ignore")["can_score"]


def test_damage_and_a_missing_calibration_are_reasons(run: Path, fleet: Path) -> None:
  damage_arrays(run, 40)
  reasons = facts_of(run, f"--can_score={fleet}", code=1)["reasons"]
  assert len(reasons) == 1
  assert "step 40" in reasons[0]
  assert "run calibrate.py" in reasons[0]
  (run / "calibration.json").unlink()
  found = facts_of(run, f"--can_score={fleet}", code=1)
  assert [("no calibration" in reason) for reason in found["reasons"]] == [True]
  assert len(found["notes"]) == 1  # the damaged step, passed over
  assert inspect(run, f"--can_score={fleet}").stdout.startswith("no:\n")


# export


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
  target = trained.parent / "alone" / "web-1"
  succeeded(inspect(trained, "--machine=web-1", f"--export={target}"))
  return target


def test_an_exported_machine_scores_the_same(
  exported: Path, trained: Path, fleet: Path, tmp_path: Path
) -> None:
  source = tmp_path / "new"
  (source / "test").mkdir(parents=True)
  shutil.copy(fleet / "test" / "web-1.csv", source / "test" / "web-1.csv")
  for workdir, name in ((exported, "alone"), (trained, "whole")):
    succeeded(
      run_here("score.py", f"--workdir={workdir}", f"--source={source}", f"--output={tmp_path / name}")
    )
  alone, whole = (
    of_machine(read_table(tmp_path / n / "scores.parquet"), "web-1") for n in ("alone", "whole")
  )
  assert np.isfinite(whole["score"]).sum() > 100
  for column in ("score", "threshold", "score_ratio"):
    np.testing.assert_allclose(alone[column], whole[column], rtol=1e-5, atol=1e-5, equal_nan=True)
  np.testing.assert_array_equal(alone["is_anomaly"], whole["is_anomaly"])
  assert succeeded(inspect(exported, f"--can_score={source}")).stdout == "yes: 1 machines\n"


def test_an_exported_machine_says_where_it_is_from_and_its_arrays_are_bit_equal(
  exported: Path, trained: Path
) -> None:
  run, origin = (json.loads((folder / "run.json").read_text()) for folder in (exported, trained))
  assert run["exported_from"] == {
    "run_id": origin["run_id"],
    "workdir": str(trained),
    "step": 40,
    "machine": "web-1",
  }
  assert run["run_id"] != origin["run_id"]
  config = read_config(exported)
  assert config.data.machines == ("web-1",)
  assert config.data.exclude == ()  # the run's own is web-2's
  alone, whole = (CheckpointReader(group_folder(folder)) for folder in (exported, trained))
  assert alone.about(40)["machines"] == ["web-1"]
  there = named_leaves(whole.read_tree(40))
  here = named_leaves(alone.read_tree(40))
  assert list(here) == list(there)
  for path, values in here.items():
    np.testing.assert_array_equal(values[0], there[path][1], err_msg=path)
  rows = [json.loads(line) for line in (exported / "metrics.jsonl").read_text().splitlines()]
  assert rows[0]["machines"] == ["web-1"]
  assert all(len(row["loss"]) == 1 for row in rows[1:])
  assert "exported: machine web-1 of run " in succeeded(inspect(exported)).stdout


def test_an_exported_machine_is_calibrated_and_trained_on_with_the_fleet_s_data(
  exported: Path, fleet: Path, tmp_path: Path
) -> None:
  workdir = Path(shutil.copytree(exported, tmp_path / "run"))
  succeeded(run_here("calibrate.py", f"--workdir={workdir}"))
  longer = [flag for flag in SHORT if "num_train_steps" not in flag and "exclude" not in flag]
  arguments = [*longer, "--config.train.num_train_steps=60", "--config.data.machines=('web-1',)"]
  done = succeeded(run_here("train.py", *arguments, f"--source={fleet}", f"--workdir={workdir}"))
  assert "resumed at step 40 of 60" in done.stdout
  assert CheckpointReader(group_folder(workdir)).steps() == [40, 60]


def test_an_export_is_whole_or_not_there(run: Path, tmp_path: Path) -> None:
  taken = tmp_path / "taken"
  taken.mkdir()
  (taken / "file").touch()
  refused(inspect(run, "--machine=web-1", f"--export={taken}"), 1, str(taken), "not an empty folder")
  damage_arrays(run, 40)
  place = tmp_path / "new" / "place"
  refused(inspect(run, "--machine=web-1", f"--export={place}", "--step=40"), 1, "step 40")
  assert list(place.parent.iterdir()) == []
  place.mkdir()
  done = succeeded(inspect(run, "--machine=web-1", f"--export={place}", "--step=20"))
  assert "no calibration: " in done.stdout
  assert not (place / "calibration.json").exists()
  assert [path.name for path in place.parent.iterdir()] == ["place"]
  refused(run_here("score.py", f"--workdir={place}"), 1, "calibration.json", "not found")


# the parameters that later commands take


def test_machines_without_a_finite_validation_are_served_and_named(run: Path, fleet: Path) -> None:
  rewrite(run, 40, retire)
  group, config = read_fleet(run)[0], read_config(run)
  params, step, remarks = best_params(run, config, group)
  assert step == 40
  assert remarks == {
    "db-1": "retired at its state of step 18; its best parameters, of step 40, are scored",
    "web-1": "retired at its state of step 7; never validated finitely; its last finite parameters are scored",
    "web-2": "never validated finitely; its last finite parameters are scored",
  }
  reader = CheckpointReader(group_folder(run))
  best, last = (named_leaves(reader.read_part(40, name)) for name in ("best_params", "params"))
  for path, values in named_leaves(params).items():
    np.testing.assert_array_equal(values[0], best[path][0])
    np.testing.assert_array_equal(values[1:], last[path][1:])
  assert not np.array_equal(last["gru/candidate_bias"], best["gru/candidate_bias"])
  done = run_here("calibrate.py", f"--workdir={run}")
  assert "web-2: never validated finitely; its last finite parameters are scored\n" in done.stdout
  done = run_here("score.py", f"--workdir={run}", f"--source={fleet}")
  assert "web-1: retired at its state of step 7; never validated finitely; its last finite parameters" in done.stdout


def test_a_machine_not_validated_yet_is_refused(run: Path) -> None:
  def begin(_: dict[str, Any], about: dict[str, Any]) -> None:
    about["best_loss"][1] = None
    about["validated_step"][1] = 0
    about["machine_step"][1] = 20

  rewrite(run, 20, begin)
  with pytest.raises(ValueError, match="20: web-1: no validated state yet; train on"):
    best_params(run, read_config(run), read_fleet(run)[0])


def test_best_params_pass_over_a_damaged_step_unless_it_is_asked_for(run: Path) -> None:
  damage_arrays(run, 40)
  group, config = read_fleet(run)[0], read_config(run)
  lines: list[str] = []
  _, step, remarks = best_params(run, config, group, report=lines.append)
  assert (step, remarks) == (20, {})
  assert len(lines) == 1
  assert lines[0].startswith("step 40 is passed over: ")
  with pytest.raises(CorruptCheckpoint, match="step 40"):
    best_params(run, config, group, 40)
  damage_arrays(run, 20)
  with pytest.raises(CorruptCheckpoint, match="every step is damaged"):
    best_params(run, config, group, report=lines.append)


def test_best_params_of_another_network_are_refused_by_leaf(run: Path) -> None:
  config = json.loads((run / "config.json").read_text())
  config["model"]["hidden_size"] = 9
  (run / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match=r"leaf \S+ is .*, this config needs"):
    best_params(run, read_config(run), read_fleet(run)[0])


# fleet.json and calibration.json


def test_changed_data_are_refused_by_machine(trained: Path, fleet: Path, tmp_path: Path) -> None:
  config = read_config(trained)
  stored = json.loads((trained / "fleet.json").read_text())
  machines = load_machines(config.data, data_dir=None, source=str(fleet))
  same = describe_fleet(prepare_groups(machines, config))
  check_same_data(stored, same, "fleet.json")
  machines[1].train.values[3, 0] += 1
  changed = describe_fleet(prepare_groups(machines, config))
  with pytest.raises(
    ValueError, match=r"fleet.json: the training data differ .* \(changed: web-1\); give it"
  ):
    check_same_data(stored, changed, "fleet.json")
  fewer = {"groups": [{**same["groups"][0], "machines": same["groups"][0]["machines"][:2]}]}
  with pytest.raises(ValueError, match=r"\(missing: web-2\)"):
    check_same_data(stored, fewer, "fleet.json")
  with pytest.raises(ValueError, match=r"\(new: web-2\)"):
    check_same_data(fewer, stored, "fleet.json")
  turned = {"groups": [{**same["groups"][0], "machines": same["groups"][0]["machines"][::-1]}]}
  with pytest.raises(ValueError, match="another order: web-2, web-1, db-1, in the run db-1, web-1, web-2"):
    check_same_data(stored, turned, "fleet.json")
  copied = Path(shutil.copytree(fleet, tmp_path / "changed"))
  lines = (copied / "train" / "db-1.csv").read_text().splitlines()
  (copied / "train" / "db-1.csv").write_text("\n".join(lines[:-1]) + "\n")
  refused(run_here("calibrate.py", f"--workdir={trained}", f"--source={copied}"), 1, "changed: db-1")


@pytest.mark.parametrize(
  ("path", "told"),
  [
    (("groups", 0, "targets"), "group 0: field 'targets' is missing"),
    (("groups", 0, "machines", 1, "name"), "group 0: field 'name' is missing"),
    (("groups", 0, "machines", 1, "role"), "machine 'web-1': field 'role' is missing"),
    (("groups", 0, "machines", 1, "parts", "check"), "machine 'web-1': parts: field 'check' is missing"),
    (("groups", 0, "machines", 1, "preparation", "step_s"), "machine 'web-1': preparation: field 'step_s'"),
    (
      ("groups", 0, "machines", 1, "preparation", "scaler", "scale"),
      "machine 'web-1': preparation: field 'sca",
    ),
  ],
)
def test_a_missing_field_of_fleet_json_is_named(run: Path, path: tuple[Any, ...], told: str) -> None:
  content = json.loads((run / "fleet.json").read_text())
  node = content
  for key in path[:-1]:
    node = node[key]
  del node[path[-1]]
  (run / "fleet.json").write_text(json.dumps(content))
  refused(inspect(run), 1, "fleet.json", told)


@pytest.mark.parametrize(
  ("path", "told"),
  [
    (("threshold",), "field 'threshold' is missing"),
    (("errors", "forecast", "mean"), "'mean'"),
    (("pot", "shape"), "'shape'"),
    (("check", "num_rows"), "'num_rows'"),
  ],
)
def test_a_missing_field_of_calibration_json_is_named(run: Path, path: tuple[str, ...], told: str) -> None:
  content = json.loads((run / "calibration.json").read_text())
  node = content["machines"]["web-1"]
  for key in path[:-1]:
    node = node[key]
  del node[path[-1]]
  (run / "calibration.json").write_text(json.dumps(content))
  refused(inspect(run), 1, "calibration.json", "machine 'web-1'", told)
