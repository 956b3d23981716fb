"""What score.py tells a person of the machines it scored: a table, the worst machines first."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from terminal import Row, table_lines

from mtad_jax.detect.events import Event
from mtad_jax.detect.score_machine import ScoredRows

_SMALLEST_SHARE = 0.005  # of rows outside the training range that is worth a word


class Line(NamedTuple):
  """One machine as it is told of; kept in place of its rows, which may be many.

  worst_ratio: the highest score over its threshold, NaN where no row has a score. above: share of the scored rows
  above it. events, top_cause: how many, and what is named first in the worst. outside: share of rows outside the
  training range by metric, the most first.
  """

  name: str
  num_rows: int
  num_scored: int
  worst_ratio: float
  above: float
  events: str
  top_cause: str
  outside: tuple[tuple[str, float], ...]


def describe(name: str, scored: ScoredRows, events: Sequence[Event], told: str, outside: Mapping[str, float]) -> Line:
  """Returns what is told of a machine.

  Args:
    told: its events as counted for a person. outside: share of rows outside the training range by metric.
  """
  num_scored = int(scored.valid.sum())
  ratio = float(np.nanmax(scored.ratio[scored.valid])) if num_scored else float("nan")
  worst = max(events, key=lambda event: event.peak, default=None)
  cause = "-"
  if worst is not None:
    cause = "no metric stands out"
    if worst.contributors:
      cause = "{} {:.0%}".format(*worst.contributors[0])
  most = sorted(outside.items(), key=lambda pair: -pair[1])[:3]
  far = tuple((metric, share) for metric, share in most if share >= _SMALLEST_SHARE)
  above = float(scored.is_anomaly.sum()) / max(num_scored, 1)
  return Line(name, len(scored.score), num_scored, ratio, above, told, cause, far)


def _outside(line: Line) -> str:
  return ", ".join(f"{metric} {share:.0%}" for metric, share in line.outside)


def full_line(line: Line) -> str:
  """Returns all of it as one line."""
  told = f"{line.num_rows} rows, {line.num_scored} scored, {line.events}, {line.above:.2%} of rows above"
  return f"{line.name}: {told} the threshold; outside the training range: {_outside(line) or 'next to nothing'}"


def summary_lines(lines: Sequence[Line], rest: str) -> list[str]:
  """Returns the table, by falling worst score over threshold.

  Args:
    rest: the file with every row of all of them.
  """
  ranked = sorted(lines, key=lambda line: -np.nan_to_num(line.worst_ratio, nan=-np.inf))
  rows = []
  for line in ranked:
    ratio = "-" if np.isnan(line.worst_ratio) else f"{line.worst_ratio:.2f}"
    num_events = line.events.replace(" events", "")  # the head says what they are
    counts = (str(line.num_rows), str(line.num_scored), num_events, ratio, f"{line.above:.2%}")
    cells = (line.name, *counts, line.top_cause, _outside(line))
    rows.append(Row(cells, line.num_scored == 0))
  head = ("machine", "rows", "scored", "events", "worst ratio", "above", "top cause", "outside its training range")
  return table_lines(head, rows, rest)
