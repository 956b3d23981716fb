"""The table of a data set: what was made is read, tuning machines stay out of the means, seeds are averaged."""

import json

import pytest
from fleets import refused, run_here, succeeded


def block(precision: float) -> dict:
  return {
    "average_precision": precision,
    "vus_pr": 0.5,
    "vus_roc": 0.6,
    "auc_roc": 0.7,
    "oracle": {"f1": 0.4},
    "composite_f1_oracle": 0.3,
    "pa_k_area_oracle": 0.2,
    "point_adjusted_oracle": {"f1": 0.9},
    "at_threshold": {"pot": {"f1": None, "range_f1": 0.1, "affiliation_f1": 0.6}},
  }


def write_result(folder, by_machine: dict[str, float]) -> None:
  """Writes what an evaluation leaves, as far as the table reads it."""
  machines = {
    name: {"detector": block(precision), "floors": {"weak": block(0.1), "good": block(0.3)}}
    for name, precision in by_machine.items()
  }
  causes = {"all_true_segments": {"hit_rate_100": 0.5, "hit_rate_100_random": 0.2}}
  folder.mkdir(parents=True)
  result = {"mean": {"machines": list(by_machine)}, "machines": machines, "root_cause": causes}
  (folder / "evaluation.json").write_text(json.dumps(result))
  about = {"config": "configs/smd.py:cpu", "source": "nowhere", "machines": []}
  folder.with_name(f"{folder.name}.made_with.json").write_text(json.dumps(about))


def test_means_leave_the_tuning_machines_out_and_seeds_are_averaged(tmp_path) -> None:
  write_result(tmp_path / "smd-0", {"machine-1-1": 1.0, "machine-1-2": 0.5, "machine-3-4": 0.6})
  write_result(tmp_path / "smd-1", {"machine-1-1": 1.0, "machine-1-2": 0.7, "machine-3-4": 0.8})
  common = ("--dataset=smd", "--source=nowhere", f"--workdir={tmp_path}", "--seeds=0,1")
  lines = [" ".join(line.split()) for line in succeeded(run_here("reproduce.py", *common)).stdout.splitlines()]
  assert "smd: 2 machines, seeds 0, 1; ±: half the span of the seeds" in lines
  assert any(line.endswith("machine-1-1, machine-1-5, machine-2-1, machine-3-2") for line in lines)
  rows = [line for line in lines if line.split(" ")[0] in ("detector", "weak", "good")]
  assert [row.split(" ")[0] for row in rows] == ["detector", "good", "weak"]  # floors by falling precision
  assert rows[0].startswith("detector 0.650 ±0.100 0.500 ±0.000")
  assert " nan ±nan " in rows[0]
  assert any(line.startswith("best_of_each_machine 0.650 ±0.100 0.500") for line in lines)
  assert "hit_rate_100, per true segment of all machines: 0.500 ±0.000" in lines
  told = "smd-0: made with config 'configs/smd.py:cpu', now 'mine.py'"
  refused(run_here("reproduce.py", *common, "--config=mine.py"), 1, told)
  whole = succeeded(run_here("reproduce.py", *common, "--without=")).stdout
  assert "smd: 3 machines" in whole


@pytest.mark.parametrize(
  ("arguments", "code", "told"),
  [
    (("--dataset=msl", "--seeds=one"), 2, "--seeds=one: whole numbers"),
    (("--dataset=msl",), 1, "prepare.py --dataset=msl"),
    (("--dataset=smd", "--seeds=0", "--without=machine-1-2"), 1, "no machine with an anomaly is left"),
  ],
)
def test_what_cannot_be_made_is_one_line(tmp_path, arguments, code, told) -> None:
  write_result(tmp_path / "smd-0", {"machine-1-2": 0.5})
  refused(run_here("reproduce.py", *arguments, "--source=nowhere", f"--workdir={tmp_path}"), code, told)


def test_the_best_of_each_machine_is_chosen_machine_by_machine(tmp_path) -> None:
  write_result(tmp_path / "smd-0", {"machine-1-2": 0.2, "machine-3-4": 0.6})  # the floors: 0.1 and 0.3 on both
  common = ("--dataset=smd", "--source=nowhere", f"--workdir={tmp_path}", "--seeds=0")
  lines = succeeded(run_here("reproduce.py", *common)).stdout.splitlines()
  rows = {line.split()[0]: line.split() for line in lines if line.startswith(("detector", "best_of_each_machine "))}
  assert rows["detector"][1] == "0.400"
  assert rows["best_of_each_machine"][1] == "0.450"
  assert rows["best_of_each_machine"][9] == "nan"  # F1, which none of them has
