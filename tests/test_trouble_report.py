"""Trouble told from the log: counts, causes, places, and where each rollback led, on a small guard played by hand."""

from pathlib import Path
from typing import Any

import pytest

from mtad_jax.train.metrics_file import GroupLog, group_logs, read_metrics
from mtad_jax.train.metrics_log import MetricsLog
from mtad_jax.train.trouble_report import (
  Rollback,
  cause_text,
  find_trouble,
  rollback_text,
  rows_text,
  summary_lines,
  tells_trouble,
)

NAMES = ("calm", "web-1", "web-2")
EVERY = 10


class Machine:
  """One machine's counters as the guard keeps them, with a snapshot every 8 steps and rates that do not recover."""

  def __init__(self, bad: dict[int, str]) -> None:
    self.bad = bad  # tick -> verdict
    self.step = self.snapshot = self.num_skipped = self.attempt = 0
    self.rate, self.retired = 0.001, False

  def take(self, name: str, tick: int) -> list[dict[str, Any]]:
    """Takes one step; returns its record, if it is a bad one."""
    if self.retired:
      return []
    verdict = self.bad.get(tick)
    if verdict is None:
      self.snapshot = self.step if self.step % 8 == 0 else self.snapshot
      self.step += 1
      return []
    record = {"machine": name, "step": self.step, "tick": tick, "attempt": self.attempt, "verdict": verdict}
    record |= {"parts": ["reconstruction", "gradients"], "blocks": ["vae"], "learning_rate": self.rate}
    record["back_to"] = None if verdict == "skipped" else self.snapshot
    record |= {"loss": None, "usual_loss": 0.5, "worst_row": 1203 + tick % 2, "rows": [7, 1203]}
    self.num_skipped += 1
    self.step += 1
    if verdict == "rolled back":
      self.step, self.attempt, self.rate = self.snapshot, self.attempt + 1, self.rate / 2
    self.retired = verdict == "retired"
    return [record]


def write_log(folder: Path, bad: dict[str, dict[int, str]], num_ticks: int) -> list[dict[str, Any]]:
  """Writes a log of machines that have the given verdicts at the given ticks; returns its rows."""
  log = MetricsLog(folder, 0, NAMES, 0)
  machines = [Machine(bad.get(name, {})) for name in NAMES]
  trouble: list[dict[str, Any]] = []
  for tick in range(num_ticks):
    for name, machine in zip(NAMES, machines, strict=True):
      trouble += machine.take(name, tick)
    if (tick + 1) % EVERY == 0:
      row: dict[str, Any] = {"step": tick + 1, "machine_step": [machine.step for machine in machines]}
      row |= {"learning_rate": [machine.rate for machine in machines], "loss": [1.0] * len(NAMES)}
      row |= {"num_skipped": [machine.num_skipped for machine in machines]}
      row |= {"num_rolled_back": [machine.attempt for machine in machines]}
      row |= {"retired": [machine.retired for machine in machines]}
      log.write(row | ({"trouble": trouble} if trouble else {}))
      trouble = []
  return read_metrics(folder)


def log_of(rows: list[dict[str, Any]]) -> GroupLog:
  return group_logs(rows)[0]


def test_a_retired_machine_stands_before_one_that_skipped(tmp_path: Path) -> None:
  bad = {
    "web-2": {3: "skipped", 4: "skipped", 5: "skipped"},
    "web-1": {20: "skipped", 21: "rolled back", 24: "skipped", 26: "retired"},
  }
  rows = write_log(tmp_path, bad, 40)
  assert summary_lines(rows, 0) == [
    "web-1: 4 steps skipped, 1 rollback (step 21 to 16; then at learning rate 0.0005), retired at step 20: "
    "reconstruction, gradients not finite in vae; windows before row 1203 most often",
    "web-2: 3 steps skipped: reconstruction, gradients not finite in vae; windows before row 1204 most often",
  ]
  worst, other = find_trouble(log_of(rows))
  assert (worst.machine, other.machine) == ("web-1", "web-2")
  assert worst.verdicts == {"skipped": 2, "rolled back": 1, "retired": 1}
  assert (worst.num_skipped, worst.num_rolled_back, worst.retired) == (4, 1, True)
  assert (worst.retired_step, worst.retired_tick) == (20, 26)
  assert (worst.first_step, worst.last_step) == (20, 20), "its own steps; the ticks are 20 to 26"
  assert worst.parts == {"reconstruction": 4, "gradients": 4}
  assert worst.blocks == {"vae": 4}
  assert worst.worst_rows == {1203: 3, 1204: 1}
  assert worst.rollbacks == (Rollback(tick=21, step=21, to_step=16, learning_rate=0.0005),)
  assert [record["tick"] for record in worst.records] == [20, 21, 24, 26]


def test_several_rollbacks_are_told_apart(tmp_path: Path) -> None:
  rows = write_log(tmp_path, {"web-1": dict.fromkeys((10, 13, 17, 30), "rolled back")}, 60)
  (trouble,) = find_trouble(log_of(rows))
  assert [(back.step, back.to_step) for back in trouble.rollbacks] == [(10, 8), (10, 8), (11, 8), (20, 16)]
  told = "4 rollbacks (last at step 10 to 8, 11 to 8, 20 to 16; then at learning rate 6.3e-05): "
  assert summary_lines(rows, 0)[0].startswith(f"web-1: 4 steps skipped, {told}")



def test_no_trouble_and_no_step_are_said(tmp_path: Path) -> None:
  rows = write_log(tmp_path, {}, 20)
  assert summary_lines(rows, 0) == ["no step skipped"]
  assert summary_lines(rows[:1], 0) == ["no step is logged yet"]
  assert summary_lines([], 0) == ["no step is logged yet"]
  assert find_trouble(log_of(rows[:1])) == []


def test_rows_up_to_a_step_tell_trouble_up_to_it(tmp_path: Path) -> None:
  rows = write_log(tmp_path, {"web-1": {3: "skipped", 33: "retired"}}, 40)
  early = [row for row in rows if row.get("header") or row["step"] <= 30]
  assert summary_lines(early, 0) == [
    "web-1: 1 step skipped: reconstruction, gradients not finite in vae; worst window before row 1204"
  ]


def test_an_older_log_has_counts_alone() -> None:
  rows: list[dict[str, Any]] = [
    {"header": True, "group": 0, "machines": ["a", "b"]},
    {"group": 0, "step": 20, "learning_rate": 0.001, "num_skipped": [0, 3]},
  ]
  assert summary_lines(rows, 0) == ["b: 3 steps skipped; the log has no record of the steps"]
  assert not tells_trouble(log_of(rows))
  rows[1] |= {"num_rolled_back": [0, 0], "retired": [False, False]}
  assert tells_trouble(log_of(rows))


def test_groups_are_told_apart(tmp_path: Path) -> None:
  rows = write_log(tmp_path, {"web-1": {3: "skipped"}}, 20)
  rows += [{"header": True, "group": 1, "machines": ["db-1"]}, {"group": 1, "step": 20, "num_skipped": [0]}]
  assert summary_lines(rows, 1) == ["no step skipped"]
  assert len(summary_lines(rows, 0)) == 1


@pytest.mark.parametrize(
  ("parts", "blocks", "text"),
  [
    ({"spike": 1}, {}, "a spike of the loss"),
    ({"spike": 2}, {}, "spikes of the loss"),
    ({"kl": 1, "spike": 1}, {"gru": 1, "vae": 1}, "kl not finite in gru, vae and a spike of the loss"),
    (dict.fromkeys("abcde", 1), {}, "a, b, c and 2 more not finite"),
    ({}, {}, ""),
  ],
)
def test_causes(parts: dict[str, int], blocks: dict[str, int], text: str) -> None:
  assert cause_text(parts, blocks) == text


@pytest.mark.parametrize(
  ("rows", "text"),
  [
    ({}, ""),
    ({5: 1}, "worst window before row 5"),
    ({5: 1, 9: 1}, "worst windows before rows 5, 9"),
    ({5: 3, 9: 1}, "windows before row 5 most often"),
    ({5: 3, 9: 2}, "windows before rows 5, 9 most often"),
    (dict.fromkeys(range(5), 1), "worst windows before rows 0, 1, 2 and 2 more"),
  ],
)
def test_rows(rows: dict[int, int], text: str) -> None:
  assert rows_text(rows) == text


def test_rollbacks_without_a_rate() -> None:
  assert rollback_text((Rollback(9, 9, 4, None),)) == "step 9 to 4"
