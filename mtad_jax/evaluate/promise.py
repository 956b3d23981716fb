"""Realised against promised alarms on the check part, normal rows that nothing was fitted on.

In: calibration.json's machines. Out: figures per machine and pooled. A machine's check part is short: where it was
promised less than one alarm, only the pooled figure says anything.
"""

from collections.abc import Mapping
from typing import Any

MIN_PROMISED = 1.0  # alarms, below which a machine's own ratio is not given
_COUNTS = ("num_rows", "num_alarm_rows", "num_alarms", "promised_alarm_rows", "promised_alarms")


def _entry(counts: Mapping[str, float]) -> dict[str, Any]:
  promised = counts["promised_alarms"]
  ratio = counts["num_alarms"] / promised if promised >= MIN_PROMISED else None
  return {**counts, "realised_over_promised": ratio}


def promise_figures(machines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """Returns {"machines": {name: counts and their ratio}, "pooled": the sums and theirs}.

  Alarms are declustered: rows that come close together are one. A ratio is None where too few alarms were promised.

  Args:
    machines: calibration.json's entries by name.
  """
  found: dict[str, dict[str, float]] = {}
  for name, entry in machines.items():
    found[name] = {key: float(entry["check"].get(key) or 0.0) for key in _COUNTS}
  pooled = {key: sum(counts[key] for counts in found.values()) for key in _COUNTS}
  return {"machines": {name: _entry(counts) for name, counts in found.items()}, "pooled": _entry(pooled)}


def promise_line(figures: Mapping[str, Any]) -> str:
  """Returns the pooled figure for a person."""
  pooled = figures["pooled"]
  ratio = pooled["realised_over_promised"]
  told = "too few were promised to compare" if ratio is None else f"{ratio:.2f} times"
  return (
    f"check part, {pooled['num_rows']:.0f} normal rows: {pooled['num_alarms']:.0f} alarms,"
    f" {pooled['promised_alarms']:.3g} promised: {told}"
  )
