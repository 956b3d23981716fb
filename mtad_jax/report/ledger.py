"""The ledger's part of the page: what people said of the alarms, by week, by cause, and before and after each change.

In: `alerts.curves.ledger_curves`. An alarm that nobody has reviewed is counted beside, everywhere, and never guessed.
"""

import datetime
import html
import re
from collections.abc import Mapping
from typing import Any

from mtad_jax.alerts.sheet import time_text
from mtad_jax.report import tables

_WEEK_MS = 7 * 86_400_000
_FIGURES = ("alarms", "true", "false", "expected", "not reviewed", "precision", "low", "high")
_GROUPS = {"roles": "role", "machines": "machine", "metrics": "first cause"}


def section(curves: Mapping[str, Any]) -> str:
  """Returns the charts' places and the tables."""
  if not has_alarms(curves):
    return f"<p>The ledger holds no alarm yet.</p>{_weeks(curves)}{_changes(curves)}"
  return _total(curves) + _charts() + _weeks(curves) + _causes(curves) + _changes(curves) + _groups(curves)


def has_alarms(curves: Mapping[str, Any]) -> bool:
  """Returns whether there is anything to draw."""
  return any(_counts(curves["total"]))


def chart_data(curves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what the charts draw, ready for JSON: numbers and dates alone, no name.

  Returns:
    dated: whether x are ms since 1970, else the place in the list of weeks. first, last, tick, step: the axis' ends,
    its first tick (a Monday, or a place), a week. weeks: each x (its middle), week (its Monday or place), value, low,
    high, reviewed, open, false. changes: those that begin to count on the axis, each its number, x and kinds.
  """
  names = [found["week"] for found in curves["weeks"]]
  dated = all(re.fullmatch(r"\d{4}-\d\d-\d\d", name) for name in names)
  step = _WEEK_MS if dated else 1
  starts = [_milliseconds(name) if dated else place + 0.5 for place, name in enumerate(names)]
  weeks = [
    {
      "x": start + step / 2,
      "week": name if dated else place + 1,
      "reviewed": found["num_true"] + found["num_false"] + found["num_expected"],
      "open": found["num_open"],
      "false": found["num_false"],
      **{key: found[key] for key in ("value", "low", "high")},
    }
    for place, (name, start, found) in enumerate(zip(names, starts, curves["weeks"], strict=True))
  ]
  changes = []
  for found in curves["changes"]:
    at = found["since_ms"] if dated else dict(zip(names, starts, strict=True)).get(found["since_week"])
    if at is not None and found["kinds"]:
      changes.append({"number": found["change"], "x": at, "kinds": found["kinds"]})
  first, last = (min(starts), max(starts) + step) if starts else (0, step)
  tick = first if dated else first + step / 2
  return {
    "dated": dated, "first": first, "last": last, "tick": tick, "step": step, "weeks": weeks, "changes": changes
  }  # fmt: skip


def _milliseconds(monday: str) -> int:
  midnight = datetime.datetime.fromisoformat(monday).replace(tzinfo=datetime.UTC)
  return int(midnight.timestamp()) * 1000


def _counts(found: Mapping[str, Any]) -> list[int]:
  return [found[name] for name in ("num_true", "num_false", "num_expected", "num_open")]


def _figures(found: Mapping[str, Any]) -> list[str]:
  """Returns the cells of `_FIGURES`; where nothing was reviewed there is no precision."""
  counts = _counts(found)
  is_known = found["value"] is not None
  values = [found[name] if is_known else None for name in ("value", "low", "high")]
  return [*map(tables.number, (sum(counts), *counts)), *map(tables.number, values)]


def _figure_columns() -> list[tables.Column]:
  return [tables.Column(name, numeric=True) for name in _FIGURES]


def _total(curves: Mapping[str, Any]) -> str:
  found, reviewers = curves["total"], curves["num_reviewers"]
  num_true, num_false, num_expected, num_open = _counts(found)
  text = (
    f"{sum(_counts(found)):,} alarms on record: {num_true:,} true, {num_false:,} false, {num_expected:,} expected,"
    f" {num_open:,} not reviewed."
  )
  if found["value"] is not None:
    text += (
      f" Precision {found['value']:.3f}, {curves['confidence']:.0%} interval {found['low']:.3f} to"
      f" {found['high']:.3f}; {reviewers} reviewer{'s' if reviewers != 1 else ''}."
    )
  return f"<p>{html.escape(text)}</p>"


def _charts() -> str:
  return (
    '<div id="precision-chart" class="chart" role="group" aria-label="Precision a week with its interval"></div>'
    '<p class="soft">Share of true among the true and false alarms of each week, with its interval; below: how many'
    " alarms were reviewed and how many were not.</p>"
    '<div id="false-chart" class="chart low" role="group" aria-label="False alarms a week, with changes"></div>'
    '<p class="soft">Alarms a week that were marked false, and on top those that nobody has reviewed; a dashed line'
    " with its number is where a change begins to count, behind all rows scored before it.</p>"
  )


def _weeks(curves: Mapping[str, Any]) -> str:
  columns = [
    tables.Column("week"),
    *_figure_columns(),
    tables.Column("machine-weeks", numeric=True),
    tables.Column("false a machine-week", numeric=True),
  ]
  rows = [
    [
      found["week"],
      *_figures(found),
      tables.number(found["machine_weeks"]),
      tables.number(found["false_per_machine_week"]),
    ]
    for found in curves["weeks"]
  ]
  caption = "Alarms by the week that they began in; low, high: the interval of the precision"
  return tables.table(caption, columns, rows) if rows else ""


def _causes(curves: Mapping[str, Any]) -> str:
  if not curves["total"]["num_false"]:
    return "<p>No alarm was marked false: there are no causes of false ones.</p>"
  columns = [
    tables.Column("metric"),
    tables.Column("role"),
    tables.Column("false alarms more", numeric=True),
    tables.Column("covered so far", numeric=True),
    tables.Column("true alarms that name it", numeric=True),
  ]
  rows = [
    [
      found["metric"],
      found["role"],
      tables.number(found["num_covered"]),
      tables.share(found["share"]),
      tables.number(found["num_true"]),
    ]
    for found in curves["causes"]
  ]
  if not rows:
    return "<p>The false alarms name no cause.</p>"
  caption = "Causes that cover most of the false alarms, each with those that no cause above it covers"
  return tables.table(caption, columns, rows)


def _raised(found: Mapping[str, Any] | None, kind: str) -> str:
  return tables.NONE if found is None else f"{found[f'num_{kind}_raised']:,} of {found[f'num_{kind}']:,}"


def _since(found: Mapping[str, Any]) -> str:
  if found["since_ms"] is not None:
    return time_text(found["since_ms"])[:16]
  return found["since_week"] or tables.NONE


def _changes(curves: Mapping[str, Any]) -> str:
  names = ("events", "before: true raised", "after: true raised", "before: false raised", "after: false raised")
  columns = [
    tables.Column("change"),
    tables.Column("what changed"),
    tables.Column("why recorded"),
    tables.Column("recorded", numeric=True),
    tables.Column("counts from", numeric=True),
    tables.Column("beside change", numeric=True),
    *(tables.Column(name, numeric=True) for name in names),
  ]
  rows = [
    [
      str(found["change"]),
      ", ".join(found["kinds"]) or "the first",
      found["note"],
      time_text(found["recorded_ms"])[:16],
      _since(found),
      tables.number(found["before_change"]),
      tables.number(found["num_events"]),
      *(_raised(found[when], kind) for kind in ("true", "false") for when in ("before", "after")),
    ]
    for found in curves["changes"]
  ]
  caption = (
    "Each change beside the one before it, on the annotated ranges that both scored: how many of those marked true"
    " and of those marked false each raises"
  )
  return tables.table(caption, columns, rows) if rows else ""


def _groups(curves: Mapping[str, Any]) -> str:
  """Returns the figures by role, machine and first cause, folded away."""
  parts = []
  for key, title in _GROUPS.items():
    rows = [[name, *_figures(found)] for name, found in curves[key].items()]
    machines = list(curves[key]) if key == "machines" else None
    columns = [tables.Column(title), *_figure_columns()]
    parts.append(tables.table(f"Alarms by {title}", columns, rows, row_machines=machines))
  return f"<details><summary>By role, machine and first cause</summary>{''.join(parts)}</details>"
