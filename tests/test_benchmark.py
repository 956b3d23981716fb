"""The benchmark runs, and its lines hold what the table says; the figures themselves are the machine's."""

import json

import pytest
from fleets import ROOT, TINY, refused, run_here, succeeded


@pytest.mark.slow
def test_both_measures_are_told_as_json_and_as_a_table() -> None:
  done = succeeded(
    run_here("benchmark.py", *TINY, "--machines=2", "--metrics=3", "--repeats=3", "--seconds=0.1")
  )
  about, guard, checkpoints, *table = done.stdout.splitlines()
  about, guard, checkpoints = json.loads(about), json.loads(guard), json.loads(checkpoints)
  assert (about["machines"], about["metrics"], about["window"]) == (2, 3, 8)
  assert guard["measure"] == "guard"
  assert guard["ratio_low"] <= guard["ratio"] <= guard["ratio_high"]
  assert guard["ratio"] == pytest.approx(guard["step_s_on"] / guard["step_s_off"], rel=1.0)
  assert checkpoints["measure"] == "checkpoints"
  assert checkpoints["every_steps"] == 50
  assert 0 < checkpoints["wait_s"] < 10
  assert checkpoints["share_of_step_time"] == pytest.approx(
    checkpoints["cost_s"] / (50 * checkpoints["step_s"])
  )
  assert "2 machines of 3 metrics on 1 cpu device:" in table[0]
  assert f"ratio {guard['ratio']:.3f} (" in table[1]


@pytest.mark.slow
def test_one_measure_alone() -> None:
  done = succeeded(
    run_here(
      "benchmark.py", *TINY, "--machines=1", "--metrics=2", "--repeats=1", "--seconds=0.1", "--measure=guard"
    )
  )
  measures = [json.loads(line).get("measure") for line in done.stdout.splitlines() if line.startswith("{")]
  assert measures == [None, "guard"]


@pytest.mark.parametrize(
  ("flag", "told"),
  [
    ("--sizes=smd", "--sizes=smd: NAME:METRICS is wanted"),
    ("--sizes=smd:none", "--sizes=smd:none: NAME:METRICS is wanted"),
    ("--attention=static,gat", "--attention=gat: choose of static, gatv2"),
    ("--sides=jax,tensorflow", "--sides=tensorflow: choose of jax, torch, torch_factored"),
    ("--machines=0", "--machines=0: a whole number above 0 is wanted"),
    ("--hidden=150,many", "--hidden=many: a whole number above 0 is wanted"),
  ],
)
def test_flags_that_cannot_be_are_refused_by_name(flag: str, told: str) -> None:
  refused(run_here("benchmark.py", *TINY, "--measure=speed", flag), 2, told)


def test_what_is_of_networks_is_measured_of_networks() -> None:
  config = f"--config={ROOT / 'configs' / 'fleet.py'}:linear"
  told = "--measure=guard is of networks; config.model.detector is linear, mtad_gat is wanted"
  refused(run_here("benchmark.py", config, "--measure=roles", "--measure=guard"), 2, told)


@pytest.mark.slow
def test_fleets_of_different_sizes_share_a_total_batch() -> None:
  few = (*TINY, "--measure=sizes", "--metrics=3", "--repeats=2", "--seconds=0.05")
  done = succeeded(run_here("benchmark.py", *few, "--machines=1,4", "--total_batch=8"))
  one, four = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
  assert [(row["machines"], row["batch"]) for row in (one, four)] == [(1, 8), (4, 2)]
  assert min(one["over_cheapest"], four["over_cheapest"]) == 1.0
  assert four["machine_step_s"] == pytest.approx(four["step_s"] / 4)
  assert "4 machines, batch 2: " in done.stdout
  odd = run_here("benchmark.py", *few, "--machines=3", "--total_batch=8")
  refused(odd, 1, "--total_batch=8: 3 machines cannot share that evenly")


def test_role_mixtures_are_fitted_scored_and_weighed() -> None:
  small = ("--config.roles.components=(1,2)", "--config.roles.search_rows=200", "--config.roles.batch_rows=1000")
  config = f"--config={ROOT / 'configs' / 'role_gmm.py'}"
  sizes = ("--machines=10", "--metrics=3", "--repeats=2", "--measure=roles")
  done = succeeded(run_here("benchmark.py", config, *small, *sizes))
  row = json.loads(done.stdout.splitlines()[0])
  assert row["roles"] == len(row["components"]) == 2
  assert 0 < row["newest_rows_s"] < row["all_rows_s"]
  assert row["fit_again_s"] < row["fit_first_s"]
  assert row["bytes"] > 500
  assert "the newest row of every machine scored and explained in" in done.stdout
