"""Prometheus text of the newest rows, for node_exporter's textfile collector: all gauges, no times of samples."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from mtad_jax.alerts.newest_rows import NewestRow
from mtad_jax.alerts.told_event import LEVELS, ToldEvent

_Sample = tuple[dict[str, str], float]


def escaped(value: str) -> str:
  """Returns a label's value as the text format wants it."""
  return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _written(number: float) -> str:
  if math.isnan(number):
    return "NaN"
  return repr(float(number)) if math.isfinite(number) else ("+Inf" if number > 0 else "-Inf")


def _family(name: str, told: str, samples: Iterable[_Sample]) -> list[str]:
  """Returns one metric's lines; none at all where it has no sample."""
  lines = []
  for labels, number in samples:
    inner = ",".join(f'{label}="{escaped(value)}"' for label, value in labels.items())
    lines.append(f"{name}{{{inner}}} {_written(number)}" if inner else f"{name} {_written(number)}")
  return [f"# HELP {name} {told}", f"# TYPE {name} gauge", *lines] if lines else []


def _levels(row: NewestRow) -> list[tuple[str, float]]:
  return [("critical", row.threshold)] + ([] if row.warning is None else [("warning", row.warning)])


def prometheus_text(rows: Sequence[NewestRow], events: Sequence[ToldEvent], model_age_s: float) -> str:
  """Returns the file's text.

  Args:
    rows: the newest of each machine. events: of the same scores, all levels.
    model_age_s: seconds since the run was begun.
  """
  counts = Counter((event.machine, event.level) for event in events)
  by_level = [({"machine": row.machine, "level": level}, row, limit) for row in rows for level, limit in _levels(row)]
  bands = [({"machine": row.machine, "metric": band.metric}, band) for row in rows for band in row.bands]
  own = [({"machine": row.machine}, row) for row in rows]
  families = [
    _family("mtad_score", "Score of the newest row; NaN where it has none.", ((at, row.score) for at, row in own)),
    _family("mtad_threshold", "Score above which a row is in alarm.", ((at, limit) for at, _, limit in by_level)),
    _family("mtad_score_ratio", "Score over the critical threshold.", ((at, row.ratio) for at, row in own)),
    _family(
      "mtad_alarm",
      "Whether the newest row is above the threshold of the level.",
      # a NaN is above nothing
      ((at, float(row.is_valid and row.score > limit)) for at, row, limit in by_level),
    ),
    _family("mtad_valid", "Whether the newest row has a score.", ((at, float(row.is_valid)) for at, row in own)),
    _family(
      "mtad_newest_row_seconds",
      "Time of the newest row, seconds since 1970.",
      ((at, row.timestamp_s) for at, row in own if row.timestamp_s is not None),
    ),
    _family(
      "mtad_expected_low",
      "Lower end of the expected band, of the metrics that stand out most in the newest row.",
      ((at, band.expected_low) for at, band in bands),
    ),
    _family("mtad_expected_high", "Upper end of that band.", ((at, band.expected_high) for at, band in bands)),
    _family("mtad_actual", "What was seen of these metrics.", ((at, band.actual) for at, band in bands)),
    _family(
      "mtad_events",
      "Events in the scored rows.",
      (
        ({"machine": row.machine, "level": level}, float(counts[row.machine, level]))
        for row in rows
        for level in LEVELS
      ),
    ),
    _family("mtad_model_age_seconds", "Time since the training run was begun.", [({}, model_age_s)]),
  ]
  return "".join(f"{line}\n" for family in families for line in family)
