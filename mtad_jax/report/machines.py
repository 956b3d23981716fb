"""The table of machines: rows, alarms, thresholds, and what the labels say, one line a machine."""

from collections import Counter

import numpy as np

from mtad_jax.report import evaluation, tables
from mtad_jax.report.heat import ratio_of
from mtad_jax.report.inputs import MachineScores, Work


def _highest(scores: MachineScores) -> float:
  """Returns the highest score/threshold, NaN where no row has one."""
  ratio = ratio_of(scores)
  return float(np.nanmax(ratio)) if not np.isnan(ratio).all() else float("nan")


def section(work: Work) -> str:
  """Returns the table."""
  num_events = Counter(event.machine for event in work.events)
  several = len({scores.model for scores in work.machines.values()}) > 1
  columns = [tables.Column("machine"), *([tables.Column("scored by")] if several else [])] + [
    tables.Column(name, numeric=True)
    for name in (
      "rows",
      "scored",
      "alarm rows",
      "events",
      "highest score / threshold",
      "initial",
      "POT",
      "best F1 (oracle)",
      "labelled",
    )
  ]
  rows = []
  for name, scores in work.machines.items():
    finite = scores.threshold[~np.isnan(scores.threshold)]
    rows.append(
      [
        name,
        *([scores.model.replace("_", " ") or "not known"] if several else []),
        tables.number(len(scores.row)),
        tables.number(int(np.sum(scores.valid))),
        tables.number(int(np.sum(scores.is_anomaly))),
        tables.number(num_events[name]),
        tables.number(_highest(scores)),
        tables.number(scores.initial),
        tables.number(float(finite[-1]) if len(finite) else None),
        tables.number(evaluation.best_threshold(work, name)),
        tables.share(None if scores.label is None else float(np.mean(scores.label))),
      ]
    )
  return tables.table("Every machine of this scoring", columns, rows)
