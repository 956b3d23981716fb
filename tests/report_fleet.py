"""A small fleet's scores for the report's tests, made by hand: spikes where a test puts them."""

from pathlib import Path
from typing import Any

import numpy as np

from mtad_jax.report.event_file import Event
from mtad_jax.report.inputs import MachineScores, Work
from mtad_jax.report.metric_rows import MetricRows

THRESHOLD, WARNING = 4.0, 3.0
MINUTE = 60_000.0


def machine(num_rows: int, spikes: dict[int, float], *, clock: float | None = None, **changes: Any) -> MachineScores:
  """Returns scores of 1 with the given ones at some rows; the first three rows have none.

  Args:
    clock: ms since 1970 of row 0, a row a minute; None: no clock.
  """
  score = np.ones(num_rows)
  for row, value in spikes.items():
    score[row] = value
  score[:3] = np.nan
  with np.errstate(invalid="ignore"):
    is_anomaly = score > THRESHOLD
  made = MachineScores(
    row=np.arange(num_rows),
    times=None if clock is None else clock + MINUTE * np.arange(num_rows),
    score=score,
    threshold=np.full(num_rows, THRESHOLD),
    initial=2.0,
    is_anomaly=is_anomaly,
    valid=~np.isnan(score),
    label=None,
  )
  return made._replace(**changes)


def event(name: str, start: int, end: int, **changes: Any) -> Event:
  made = Event(
    event_id=f"{name}:{start}-{end}",
    machine=name,
    start_row=start,
    end_row=end,
    start="",
    end="",
    severity=0.5,
    peak=8.0,
    contributors=(("cpu", 0.6), ("disk", 0.4)),
    level="critical",
  )
  return made._replace(**changes)


def work(machines: dict[str, MachineScores], roles: dict[str, str] | None = None, events: Any = ()) -> Work:
  return Work(
    path=Path("w"),
    machines=machines,
    events=list(events),
    losses={},
    evaluation=None,
    calibration=None,
    config={},
    run={},
    notes={},
    roles=[],
    ledger=None,
    missing={},
    role_of=roles or {},
    metric_scores=None,
  )


def metric_rows(row: np.ndarray, metrics: tuple[str, ...], seed: int = 0) -> MetricRows:
  """Returns figures of the given rows: values around 10 in a band of 9 to 11, scores from 0 to 5."""
  random = np.random.default_rng(seed)
  shape = (len(row), len(metrics))
  return MetricRows(
    row=row,
    metrics=metrics,
    score=random.uniform(0, 5, shape),
    actual=10 + random.normal(size=shape),
    low=np.full(shape, 9.0),
    high=np.full(shape, 11.0),
    expected=np.full(shape, 10.0),
  )
