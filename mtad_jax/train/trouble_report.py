"""What went wrong in training, machine by machine, from the rows of metrics.jsonl; no jax.

Counts come from the guard's own counters in the group's last row; what was wrong, where and when comes from the
records of single steps beside them. Used at the end of training, by inspection and by the report.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from mtad_jax.train.metrics_file import RETIRED, ROLLED_BACK, GroupLog, group_logs

SPIKE = "spike"
_MOST = 3  # parts, blocks, rows and rollbacks named in a line


class Rollback(NamedTuple):
  """One rollback: the fleet step (tick), the machine's own step, the step it went back to, and the rate after it.

  learning_rate: None where there is no later row.
  """

  tick: int
  step: int
  to_step: int
  learning_rate: float | None


class Trouble(NamedTuple):
  """One machine's bad steps.

  num_skipped: steps not taken, those that led to a rollback or to retirement included. num_rolled_back: of them.
  retired_step: its own step at retirement; None: not retired, or not recorded. retired_tick: likewise, in fleet
  steps. first_step, last_step: its own steps of the first and last record, None without records. verdicts, parts,
  blocks: name -> records, most first. worst_rows: target row of the batch's worst window -> records, most first.
  records: as in the log, oldest first; an older log has none.
  """

  machine: str
  num_skipped: int
  num_rolled_back: int
  retired: bool
  retired_step: int | None
  retired_tick: int | None
  first_step: int | None
  last_step: int | None
  verdicts: dict[str, int]
  parts: dict[str, int]
  blocks: dict[str, int]
  worst_rows: dict[int, int]
  rollbacks: tuple[Rollback, ...]
  records: tuple[dict[str, Any], ...]


def tells_trouble(log: GroupLog) -> bool:
  """Returns whether a log says which machines were rolled back or retired; one of an older version does not."""
  return bool(log.rows) and {"num_rolled_back", "retired"} <= log.rows[-1].keys()


def find_trouble(log: GroupLog) -> list[Trouble]:
  """Returns the machines of a group that had trouble: retired ones first, then by rollbacks and skipped steps.

  Args:
    log: from `metrics_file.group_logs`.
  """
  if not log.rows:
    return []
  records: dict[str, list[dict[str, Any]]] = {name: [] for name in log.machines}
  for row in log.rows:
    for record in row.get("trouble", []):
      records[record["machine"]].append(record)
  found = [_of_machine(name, lane, records[name], log.rows) for lane, name in enumerate(log.machines)]
  bad = [trouble for trouble in found if trouble.num_skipped or trouble.num_rolled_back or trouble.retired]
  return sorted(
    bad, key=lambda trouble: (not trouble.retired, -trouble.num_rolled_back, -trouble.num_skipped)
  )


def summary_lines(rows: Iterable[dict[str, Any]], group: int) -> list[str]:
  """Returns one line a machine of a group that had trouble, worst first; one line where none had any.

  Args:
    rows: from `metrics_file.read_metrics`.
    group: its number in the fleet.
  """
  log = group_logs(rows).get(group)
  if log is None or not log.rows:
    return ["no step is logged yet"]
  return [trouble_line(trouble) for trouble in find_trouble(log)] or ["no step skipped"]


def trouble_line(trouble: Trouble) -> str:
  """Returns a machine's trouble as one line of text."""
  told = [f"{_count(trouble.num_skipped, 'step')} skipped"]
  if trouble.num_rolled_back:
    text = _count(trouble.num_rolled_back, "rollback")
    told.append(f"{text} ({rollback_text(trouble.rollbacks)})" if trouble.rollbacks else text)
  if trouble.retired:
    told.append("retired" if trouble.retired_step is None else f"retired at step {trouble.retired_step}")
  line = f"{trouble.machine}: {', '.join(told)}"
  if not trouble.records:
    return f"{line}; the log has no record of the steps"
  causes = cause_text(trouble.parts, trouble.blocks)
  places = rows_text(trouble.worst_rows)
  line += f": {causes}" if causes else ""
  return line + (f"; {places}" if places else "")


def rollback_text(rollbacks: tuple[Rollback, ...]) -> str:
  """Returns where a machine's rollbacks led, the last ones named: "step 120 to 100, then at learning rate ..."."""
  shown = rollbacks[-_MOST:]
  steps = [f"{back.step} to {back.to_step}" for back in shown]
  text = f"{'last at ' if len(shown) < len(rollbacks) else ''}step {', '.join(steps)}"
  rate = shown[-1].learning_rate
  return text if rate is None else f"{text}; then at learning rate {rate:.2g}"


def cause_text(parts: dict[str, int], blocks: dict[str, int]) -> str:
  """Returns what was wrong: "reconstruction, gradients not finite in vae", "spikes of the loss"."""
  names = [name for name in parts if name != SPIKE]
  causes = []
  if names:
    where = f" in {_first(list(blocks))}" if blocks else ""
    causes.append(f"{_first(names)} not finite{where}")
  if SPIKE in parts:
    causes.append("a spike of the loss" if parts[SPIKE] == 1 else "spikes of the loss")
  return " and ".join(causes)


def rows_text(worst_rows: dict[int, int]) -> str:
  """Returns which windows came out worst, those named more than once before the others."""
  if not worst_rows:
    return ""
  repeated = [row for row, count in worst_rows.items() if count > 1]
  rows = repeated or list(worst_rows)
  places = f"before row{'' if len(rows) == 1 else 's'} {_first(rows)}"
  if repeated:
    return f"windows {places} most often"
  return f"worst window{'' if len(rows) == 1 else 's'} {places}"


def _of_machine(name: str, lane: int, records: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Trouble:
  last = rows[-1]
  verdicts = _counted(record["verdict"] for record in records)
  retirement = next((record for record in reversed(records) if record["verdict"] == RETIRED), None)
  worst = (record["worst_row"] for record in records if record["worst_row"] is not None)
  return Trouble(
    machine=name,
    num_skipped=last["num_skipped"][lane] if "num_skipped" in last else len(records),
    num_rolled_back=last["num_rolled_back"][lane] if "num_rolled_back" in last else 0,
    retired=bool(last["retired"][lane]) if "retired" in last else False,
    retired_step=retirement["step"] if retirement else None,
    retired_tick=retirement["tick"] if retirement else None,
    first_step=records[0]["step"] if records else None,
    last_step=records[-1]["step"] if records else None,
    verdicts=verdicts,
    parts=_counted(part for record in records for part in record["parts"]),
    blocks=_counted(block for record in records for block in record["blocks"]),
    worst_rows=_counted(worst),
    rollbacks=tuple(_rollbacks(lane, records, rows)),
    records=tuple(records),
  )


def _rollbacks(lane: int, records: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[Rollback]:
  """Returns a machine's rollbacks; the rate after one is that of the next row."""
  found = []
  for record in records:
    if record["verdict"] == ROLLED_BACK:
      later = [row for row in rows if row["step"] > record["tick"]]
      rates = later[0].get("learning_rate") if later else None
      rate = rates[lane] if isinstance(rates, list) else None
      found.append(Rollback(record["tick"], record["step"], record["back_to"], rate))
  return found


def _counted(values: Iterable[Any]) -> dict[Any, int]:
  """Returns value -> how often, most first; among equals the one seen first."""
  return dict(Counter(values).most_common())


def _first(values: list[Any]) -> str:
  """Returns the first few, and how many more there are."""
  more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
  return ", ".join(map(str, values[:_MOST])) + more


def _count(number: int, noun: str) -> str:
  return f"{number} {noun}{'' if number == 1 else 's'}"
