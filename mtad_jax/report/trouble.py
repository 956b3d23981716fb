"""Trouble in training, for the page: a table of machines, a list of single bad steps, the retired ones by name.

From the guard's counters and records in the training log; a log of an older version has the skipped steps alone.
"""

import html
from typing import Any

from mtad_jax.report import figures, tables
from mtad_jax.report.inputs import Work
from mtad_jax.train.metrics_file import SKIPPED
from mtad_jax.train.trouble_report import Trouble, rollback_text

MAX_RECORDS = 200  # lines of the list of steps; metrics.jsonl has them all
_MOST = 4  # names or rows in a cell before the rest is counted


def retired_line(work: Work) -> str:
  """Returns the note that names the retired machines, or nothing where there are none."""
  names = [trouble.machine for trouble in _troubles(work) if trouble.retired]
  if not names:
    return ""
  text = f"Retired in training, each scored with its best finite parameters: {', '.join(names)}."
  return f'<p class="absent">{html.escape(text)}</p>'


def section(work: Work) -> str:
  """Returns the tables of trouble, or the line that says there was none."""
  unknown = (
    tables.absent(f"Rollbacks and causes. {work.missing['trouble']}") if "trouble" in work.missing else ""
  )
  troubles = _troubles(work)
  lost = {name: figures.non_finite_validations(log) for name, log in work.losses.items()}
  if not troubles and not any(lost.values()):
    none = "No step was skipped." if unknown else "No step was skipped, no machine rolled back or retired."
    return f"{unknown}<p>{none}</p>"
  return unknown + _machines(work, troubles, lost) + _steps(troubles)


def _troubles(work: Work) -> list[Trouble]:
  """Returns the machines that had trouble, over all groups, worst first."""
  found = [log.trouble for log in work.losses.values() if log.trouble is not None]
  return sorted(
    found, key=lambda trouble: (not trouble.retired, -trouble.num_rolled_back, -trouble.num_skipped)
  )


def _machines(work: Work, troubles: list[Trouble], lost: dict[str, int]) -> str:
  known = "trouble" not in work.missing
  columns = [
    tables.Column("machine"),
    tables.Column("steps skipped", numeric=True),
    tables.Column("rollbacks"),
    tables.Column("retired at step"),
    tables.Column("validations not finite", numeric=True),
    tables.Column("first to last step", numeric=True),
    tables.Column("what was wrong"),
    tables.Column("gradients of"),
    tables.Column("worst windows before rows"),
  ]
  rows = [
    [
      trouble.machine,
      tables.number(trouble.num_skipped),
      _rollbacks(trouble) if known else tables.NONE,
      _retired(trouble) if known else tables.NONE,
      tables.number(lost[trouble.machine]),
      _range(trouble),
      _counts(trouble.parts),
      _counts(trouble.blocks),
      _counts(trouble.worst_rows),
    ]
    for trouble in troubles
  ]
  # finite parameters can have a validation loss that is not
  quiet = [name for name, count in lost.items() if count and work.losses[name].trouble is None]
  none = "0" if known else tables.NONE
  rows += [[name, "0", none, tables.NONE, tables.number(lost[name]), *[tables.NONE] * 4] for name in quiet]
  caption = (
    f"Trouble in training: {len(rows):,} of {len(work.losses):,} machines, worst first; in brackets: how many of "
    "the bad steps"
  )
  return tables.table(caption, columns, rows, row_machines=[cells[0] for cells in rows])


def _rollbacks(trouble: Trouble) -> str:
  if not trouble.num_rolled_back:
    return "0"
  where = f" ({rollback_text(trouble.rollbacks)})" if trouble.rollbacks else ""
  return f"{trouble.num_rolled_back:,}{where}"


def _retired(trouble: Trouble) -> str:
  if not trouble.retired:
    return tables.NONE
  return (
    "retired, step not on record" if trouble.retired_step is None else tables.number(trouble.retired_step)
  )


def _range(trouble: Trouble) -> str:
  if trouble.first_step is None or trouble.last_step is None:
    return tables.NONE
  return f"{trouble.first_step:,}{tables.NONE}{trouble.last_step:,}"


def _counts(counts: dict[Any, int]) -> str:
  """Returns names with how many bad steps name them, most first; the rest is counted."""
  return _joined([f"{name} ({count:,})" for name, count in counts.items()])


def _joined(values: list[str]) -> str:
  more = f" and {len(values) - _MOST:,} more" if len(values) > _MOST else ""
  return ", ".join(values[:_MOST]) + more if values else tables.NONE


def _steps(troubles: list[Trouble]) -> str:
  records = [record for trouble in troubles for record in trouble.records]
  if not records:
    return ""
  order = sorted(records, key=lambda record: (record["verdict"] == SKIPPED, -record["tick"]))
  shown = order[:MAX_RECORDS]
  columns = [
    tables.Column("machine"),
    tables.Column("verdict"),
    tables.Column("its step", numeric=True),
    tables.Column("fleet step", numeric=True),
    tables.Column("rollbacks before", numeric=True),
    tables.Column("what was wrong"),
    tables.Column("gradients of"),
    tables.Column("learning rate", numeric=True),
    tables.Column("loss", numeric=True),
    tables.Column("usual loss", numeric=True),
    tables.Column("worst window before", numeric=True),
    tables.Column("batch: windows before rows"),
  ]
  rows = [
    [
      record["machine"],
      record["verdict"],
      tables.number(record["step"]),
      tables.number(record["tick"]),
      tables.number(record["attempt"]),
      _joined(record["parts"]),
      _joined(record["blocks"]),
      tables.number(record["learning_rate"]),
      tables.number(record["loss"]),
      tables.number(record["usual_loss"]),
      tables.number(record["worst_row"]),
      _joined([str(row) for row in record["rows"]]),
    ]
    for record in shown
  ]
  caption = f"{len(shown):,} of {len(order):,} bad steps: rollbacks and retirements first, then the newest"
  if len(shown) < len(order):
    caption += f"; {len(order) - len(shown):,} more in metrics.jsonl"
  return tables.table(caption, columns, rows, row_machines=[record["machine"] for record in shown])
