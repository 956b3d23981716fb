"""The ablation: every cell is a run that can be made, what was made is not made again, and a wrong flag is told."""

import json

import pytest
from ablation_cells import CELLS, TUNING_MACHINES
from fleets import refused, run_here, succeeded

from configs import role_gmm, smd
from mtad_jax.config import freeze, to_dict

AS_SETTING = {"smoothed_minutes": lambda text: [int(item) for item in str(text).split(",")]}


@pytest.mark.parametrize("name", sorted(CELLS))
def test_a_cell_s_settings_are_allowed_and_differ_from_the_default(name: str) -> None:
  cell = CELLS[name]
  tree = smd.get_config("cpu").to_dict()
  default = freeze(tree)
  for path, value in cell.settings.items():
    group, field = path.split(".")
    assert field in tree[group]
    tree[group][field] = value
  for flag, value in (cell.calibrate or {}).items():
    tree["detect"][flag] = AS_SETTING.get(flag, lambda x: x)(value)
  assert (freeze(tree) == default) == (name in ("default", "warm_started"))
  assert not (cell.settings and cell.calibrate)


def test_a_cell_is_begun_by_machines_of_the_tuning_machines_roles_and_by_none_of_them() -> None:
  begun_by = CELLS["warm_started"].begun_by
  assert {name.rsplit("-", 1)[0] for name in begun_by} == {name.rsplit("-", 1)[0] for name in TUNING_MACHINES}
  assert not set(begun_by) & set(TUNING_MACHINES)
  assert [name for name, cell in CELLS.items() if cell.begun_by] == ["warm_started"]


def config_of(cell: str) -> dict:
  """Returns the settings tree of a cell on SMD."""
  tree = smd.get_config("cpu").to_dict()
  for path, value in CELLS[cell].settings.items():
    group, field = path.split(".")
    tree[group][field] = value
  return to_dict(freeze(tree))


def test_the_linear_cell_is_its_config() -> None:
  mine, theirs = config_of("skip_and_calibration_alone"), to_dict(freeze(smd.get_config("linear").to_dict()))
  del mine["detect"]["score_batch"], theirs["detect"]["score_batch"]  # speed alone
  assert mine["detect"] == theirs["detect"]
  assert mine["data"] == theirs["data"]
  for name in ("detector", "run_mode", "window_size"):
    assert mine["model"][name] == theirs["model"][name]


def test_the_mixture_s_cell_is_its_config() -> None:
  mine, theirs = config_of("role_mixture"), to_dict(freeze(role_gmm.get_config().to_dict()))
  assert mine["roles"] == theirs["roles"]
  for name in ("detector", "run_mode", "window_size"):
    assert mine["model"][name] == theirs["model"][name]
  for name in ("rule", "level_limit", "score_batch"):
    assert mine["detect"][name] == theirs["detect"][name]


def write_result(folder, precision: float) -> None:
  """Writes what a cell's evaluation leaves, as far as the table reads it, and what it was made with."""
  detector = {
    "average_precision": precision,
    "vus_pr": 0.5,
    "oracle": {"f1": 0.4},
    "at_threshold": {"pot": {"f1": None}},
  }
  floors = {"pca_error": {"average_precision": 0.3}, "random": {"average_precision": 0.05}}
  folder.mkdir(parents=True)
  causes = {"all_true_segments": {"hit_rate_100": 0.6}}
  result = {"mean": {"detector": detector, "floors": floors}, "root_cause": causes}
  (folder / "evaluation.json").write_text(json.dumps(result))
  cell = CELLS[folder.name.rsplit("-", 1)[0]]
  about = {"config": "configs/smd.py:cpu", "window_budget": 480_000, "machines": list(TUNING_MACHINES)}
  about |= {"settings": dict(cell.settings), "calibrate": dict(cell.calibrate or {})}
  folder.with_name(f"{folder.name}.made_with.json").write_text(json.dumps(about))


def test_what_was_made_is_read_and_seeds_are_averaged(tmp_path) -> None:
  for name, precision in (("default-0", 0.50), ("default-1", 0.54), ("no_attention-0", 0.4), ("no_attention-1", 0.4)):
    write_result(tmp_path / name, precision)
  done = succeeded(
    run_here("ablate.py", "--data_dir=nowhere", f"--workdir={tmp_path}", "--cells=default,no_attention")
  )
  lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
  assert "default 0.520 ±0.020 0.500 ±0.000 0.400 ±0.000 nan ±nan 0.600 ±0.000" in lines
  assert "floors: pca_error 0.300, random 0.050" in lines
  assert f"Mean of {', '.join(TUNING_MACHINES)}; seeds 0, 1; ±: half the span of the seeds" in lines


def test_what_was_made_with_other_settings_is_not_taken(tmp_path) -> None:
  write_result(tmp_path / "default-0", 0.5)
  common = ("--data_dir=nowhere", f"--workdir={tmp_path}", "--cells=default", "--seeds=0")
  told = "default-0: made with window_budget 480000, now 1000; remove it, or name another --workdir"
  refused(run_here("ablate.py", *common, "--window_budget=1000"), 1, told)
  (tmp_path / "default-0.made_with.json").unlink()
  refused(run_here("ablate.py", *common), 1, "default-0.made_with.json is missing")


def test_a_cell_that_fails_and_a_wrong_name_are_one_line(tmp_path) -> None:
  where = ("--data_dir=nowhere", f"--workdir={tmp_path}")
  refused(run_here("ablate.py", *where, "--cells=defualt"), 2, "--cells: 'defualt' is unknown; known: default")
  refused(run_here("ablate.py", *where, "--seeds=a"), 2, "--seeds=a: whole numbers")
  refused(run_here("ablate.py", *where, "--cells=default"), 1, "train.py --config=configs/smd.py:cpu", "nowhere")
  assert not (tmp_path / "default-0" / "evaluation.json").exists()


def test_tuning_machines_are_four_of_smd() -> None:
  assert len(set(TUNING_MACHINES)) == 4
  assert all(name.startswith("machine-") for name in TUNING_MACHINES)
