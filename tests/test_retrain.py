"""A new model takes the old one's place only if it passes its checks, in one step, and can be put back."""

import json
import os
from pathlib import Path
from typing import Any

import fleets
import pytest
from fleets import TINY, refused, run_here, succeeded

from mtad_jax.evaluate.succession import RunFacts, Tolerance, reasons_against

SETTINGS = (*TINY, "--config.train.num_train_steps=10", "--config.train.checkpoint_every_steps=10")


def entry(*, injected: int = 10, detected: int = 10, alarms: int = 1, promised: float | None = 1.0) -> dict[str, Any]:
  alive = {"injected": {"spike": injected, "level_shift": 0}, "detected": {"spike": detected, "level_shift": 0}}
  return {"alive": alive, "check": {"num_alarms": alarms, "promised_alarms": promised}}


def facts(**changes: Any) -> RunFacts:
  """Returns a run of two machines with nothing against it; `changes` are of machine b."""
  entries = {name: entry(**(changes if name == "b" else {})) for name in "ab"}
  return RunFacts({"a": -1.0, "b": -1.0}, {"a": False, "b": False}, entries)


OLD = facts()


def test_a_run_like_the_old_one_may_follow() -> None:
  assert reasons_against(OLD, OLD, Tolerance()) == []
  assert reasons_against(OLD, OLD._replace(losses={"a": -0.6, "b": -3.0, "new": 9.0}), Tolerance()) == []
  assert reasons_against(OLD, facts(detected=9), Tolerance()) == []
  # what was so before is no reason
  sick = facts(detected=0)._replace(retired={"a": False, "b": True}, losses={"a": -1.0, "b": None})
  assert reasons_against(sick, sick, Tolerance()) == []
  without_tries = OLD._replace(calibrations={name: {"check": entry()["check"]} for name in "ab"})
  assert reasons_against(without_tries, OLD, Tolerance()) == []


@pytest.mark.parametrize(
  ("new", "reason"),
  [
    (OLD._replace(retired={"a": False, "b": True}), "newly retired in training: b"),
    (OLD._replace(losses={"a": -1.0, "b": -0.4}), "validation loss more than 0.5 higher: b -0.4 (before -1)"),
    (OLD._replace(losses={"a": -1.0, "b": float("nan")}), "validation loss more than 0.5 higher: b nan (before -1)"),
    (OLD._replace(losses={"a": -1.0, "b": None}), "no finite validation loss any more: b"),
    (OLD._replace(calibrations={"a": entry()}), "no longer there: b"),
    (facts(detected=7), "85% of the faults put into the check part are found, before 100%"),
    (facts(alarms=6), "7 alarms on the check parts, 2 promised; up to 6 would keep the promise"),
    (facts(promised=None, alarms=4), "5 alarms on the check parts, 1 promised; up to 4 would keep the promise"),
  ],
)
def test_each_check_names_what_is_against_the_new_run(new: RunFacts, reason: str) -> None:
  assert reasons_against(OLD, new, Tolerance()) == [reason]


def test_a_machine_that_sees_nothing_any_more_is_named_beside_the_sum() -> None:
  found = reasons_against(OLD, facts(detected=0), Tolerance(found_drop=1.0))
  assert found == ["not one fault put into the check part is found: b"]
  assert len(reasons_against(OLD, facts(detected=0), Tolerance())) == 2


def test_the_links_change_places_and_what_is_no_link_is_refused(tmp_path: Path) -> None:
  live, first, second = (tmp_path / name for name in ("live", "first", "second"))
  first.mkdir()
  second.mkdir()
  current = f"--current={live}"
  refused(run_here("retrain.py", current, f"--next={second}"), 1, "no link to a work directory")
  told = refused(run_here("retrain.py", f"--current={first}/", f"--next={second}"), 1, "a folder, and a link to one")
  assert f"mv {first} {first}.first; ln -s first.first {first}" in told
  live.symlink_to("first")
  refused(run_here("retrain.py", current), 2, "one of --next and --put_back is wanted")
  refused(run_here("retrain.py", current, f"--next={second}", "--put_back"), 2, "one of --next and --put_back")
  refused(run_here("retrain.py", current, f"--next={first}"), 2, "this is the run in use")
  refused(run_here("retrain.py", current, "--put_back"), 1, "live.previous: no link")
  (tmp_path / "live.previous").symlink_to("second")
  for now, before in ((second, first), (first, second)):
    succeeded(run_here("retrain.py", current, "--put_back"))
    assert (live.resolve(), (tmp_path / "live.previous").resolve()) == (now, before)
  assert sorted(os.listdir(tmp_path)) == ["first", "live", "live.previous", "second"]


@pytest.mark.slow
def test_the_command_replaces_keeps_and_puts_back(tmp_path: Path) -> None:
  fleet, live = fleets.write_fleet(tmp_path / "fleet", ("db-1", "web-1")), tmp_path / "live"
  first, second, third = (tmp_path / name for name in ("first", "second", "third"))
  succeeded(run_here("train.py", *SETTINGS, f"--source={fleet}", f"--workdir={first}"))
  current = f"--current={live}"
  live.symlink_to("first")

  done = succeeded(run_here("retrain.py", current, f"--next={second}"))
  assert f"{second} is current" in done.stdout
  assert [line.split()[0] for line in done.stdout.splitlines()[:1]] == ["machine"]  # the two runs side by side
  assert {line.split()[0] for line in done.stdout.splitlines()[1:3]} == {"db-1", "web-1"}
  assert (live.resolve(), (tmp_path / "live.previous").resolve()) == (second, first)
  about = json.loads((second / "run.json").read_text())
  assert (about["warm_start"], about["source"]) == (str(first), str(fleet))
  assert json.loads((second / "config.json").read_text()) == json.loads((first / "config.json").read_text())
  succeeded(run_here("score.py", f"--workdir={live}"))
  assert (second / "scores.parquet").is_file()

  told = refused(run_here("retrain.py", current, f"--next={third}", "--max_loss_rise=-100"), 1)
  assert f"{second} stays current, {third} is not: validation loss more than -100 higher: db-1" in told
  told = refused(run_here("retrain.py", current, f"--next={tmp_path / 'x'}", "--source=/nowhere"), 1)
  assert "stays current" in told
  assert "training did not finish: train.py" in told
  assert (live.resolve(), (tmp_path / "live.previous").resolve()) == (second, first)

