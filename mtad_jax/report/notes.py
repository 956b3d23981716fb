"""What a reader must know before trusting the figures: thresholds that could not be fitted, values filled in,
metrics left out, machines that stopped.

Reads calibration.json ({"machines": {name: {"pot": the POT fit's fields}}}), the preparation's counts, the training
log's last row, and of run.json what the run was made with.
"""

import html
import json
from typing import Any

from mtad_jax.report import tables, trouble
from mtad_jax.report.inputs import Work

_MOST = 6  # names listed in a cell before the rest is counted
_POT_COLUMNS = {
  "initial": "initial",
  "threshold": "threshold",
  "low": "low",
  "high": "high",
  "rows": "num_rows",
  "above initial": "num_excesses",
  "clusters": "num_clusters",
  "shape": "shape",
  "scale": "scale",
  "expected alarms a week": "expected_alarms_per_week",
}


def section(work: Work) -> str:
  """Returns the notes' part of the page; a kind of note that the files do not have says so."""
  return _retired(work) + _pot(work) + _preparation(work) + _origin(work)


def _origin(work: Work) -> str:
  """Returns what is needed to make the run again: commit, versions, settings."""
  facts = [f"{name} {version}" for name, version in (work.run.get("versions") or {}).items()]
  if work.run.get("commit"):
    facts.insert(0, f"commit {work.run['commit']}")
  unknown = work.missing.get("run", "Versions: run.json does not list them.")
  settings = json.dumps(work.config, indent=1) if work.config else work.missing.get("settings", "")
  return (
    f"<p class=soft>{html.escape(', '.join(facts) or unknown)}</p>"
    f"<details><summary>Settings</summary><pre class=scroll>{html.escape(settings)}</pre></details>"
  )


def _retired(work: Work) -> str:
  if work.is_role_mixture:
    return ""  # a mixture is fitted whole, or train.py fails
  reason = work.missing.get("losses") or work.missing.get("trouble")
  if reason:
    return tables.absent(f"Retired machines. {reason}")
  return trouble.retired_line(work) or "<p>No machine was retired.</p>"


def _pot(work: Work) -> str:
  if work.calibration is None:
    return tables.absent(f"Threshold fits. {work.missing['calibration']}")
  entries = work.calibration.get("machines") or {}
  fits = {name: entry["pot"] for name, entry in entries.items() if isinstance(entry.get("pot"), dict)}
  if not fits:
    return tables.absent("Threshold fits: calibration.json has none.")
  columns = [
    tables.Column("machine"),
    tables.Column("status"),
    tables.Column("pooled"),
    *(tables.Column(name, numeric=True) for name in _POT_COLUMNS),
    tables.Column("alarms on the check part / promised", numeric=True),
  ]
  rows = [
    [
      name,
      str(fit.get("status") or tables.NONE),
      str(entries[name].get("pooled") or tables.NONE),
      *(tables.number(fit.get(key)) for key in _POT_COLUMNS.values()),
      _checked(entries[name].get("check")),
    ]
    for name, fit in fits.items()
  ]
  caption = "Thresholds from peaks over the initial one, on held-out normal scores; low, high: its interval"
  return tables.table(caption, columns, rows, row_machines=list(fits))


def _checked(check: Any) -> str:
  """Returns what the threshold did on rows that nothing was fitted on, beside what it promised."""
  if not isinstance(check, dict):
    return tables.NONE
  return f"{tables.number(check.get('num_alarms'))} / {tables.number(check.get('promised_alarms'))}"


def _preparation(work: Work) -> str:
  if "notes" in work.missing:
    return tables.absent(f"Filled and cleaned values. {work.missing['notes']}")
  columns = [
    tables.Column("machine"),
    tables.Column("rows", numeric=True),
    tables.Column("excluded", numeric=True),
    tables.Column("two rows at one time", numeric=True),
    tables.Column("filled"),
    tables.Column("cleaned"),
    tables.Column("outside the training range"),
    tables.Column("constant"),
    tables.Column("counters"),
    tables.Column("never seen"),
  ]
  rows = [
    [
      name,
      tables.number(note.get("num_rows")),
      tables.number(note.get("excluded_rows")),
      tables.number(note.get("grid_collisions")),
      _shares(note.get("filled_share")),
      _shares(note.get("cleaned_share")),
      _shares(note.get("outside_share")),
      _names(note.get("constant")),
      _names(note.get("counters")),
      _names(note.get("never_seen")),
    ]
    for name, note in work.notes.items()
  ]
  caption = "What was done to the training split: shares of rows per metric, the largest first"
  return tables.table(caption, columns, rows, row_machines=list(work.notes))


def _shares(shares: Any) -> str:
  """Returns the metrics with their shares, the largest first; the rest is counted."""
  if not shares:
    return tables.NONE
  ordered = sorted(shares.items(), key=lambda item: -item[1])
  parts = [f"{name} {tables.share(value)}" for name, value in ordered[:_MOST]]
  return ", ".join(parts) + _rest(len(ordered))


def _names(names: Any) -> str:
  return ", ".join(map(str, names[:_MOST])) + _rest(len(names)) if names else tables.NONE


def _rest(count: int) -> str:
  return f" and {count - _MOST} more" if count > _MOST else ""
