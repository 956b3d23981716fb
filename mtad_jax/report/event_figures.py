"""What the charts of a machine's metrics draw: its heat map, and for a chosen event values against what was expected.

In: the metrics' figures of one machine. Out: plain data, ready for JSON; see assets/heat.js and assets/event.js.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.report import heat
from mtad_jax.report.axis import Axis, machine_axis, most_bins, places_of, step_of
from mtad_jax.report.downsample import kept_rows
from mtad_jax.report.figures import encode
from mtad_jax.report.inputs import MachineScores
from mtad_jax.report.metric_rows import MetricRows

MAX_METRICS = 40  # lines of a machine's heat map, those with the highest scores
CELLS_PER_FLEET = 900_000  # of all machines' heat maps, a byte each
MIN_BINS, MAX_BINS = 60, 600
MARGIN_ROWS = 30  # drawn around a chosen event
EVENT_BINS = 100
EVENT_POINTS = 50  # kept of each cause's values, besides the event's ends and peak
NUM_CAUSES = 4  # panels of values against what was expected
LAST_CODE = 65_535


class MetricMap(NamedTuple):
  """Which metrics a machine's heat map shows. lanes: [F] their columns, the highest score first. top: that score."""

  lanes: np.ndarray
  top: float
  num_left_out: int


def choose_metrics(rows: MetricRows) -> MetricMap:
  """Returns the metrics of the heat map, those with the highest single score first."""
  highest = np.nanmax(np.where(np.isnan(rows.score), -np.inf, rows.score), axis=0)
  order = np.argsort(-highest, kind="stable")
  top = float(highest[order[0]])
  return MetricMap(order[:MAX_METRICS], max(top, 0.0), max(len(order) - MAX_METRICS, 0))


def num_bins(num_machines: int, num_metrics: int) -> int:
  """Returns how many stretches of time a machine's heat map has, so that a large fleet's page stays small."""
  return int(np.clip(CELLS_PER_FLEET // max(num_machines * min(num_metrics, MAX_METRICS), 1), MIN_BINS, MAX_BINS))


def map_figure(rows: MetricRows, chosen: MetricMap, scores: MachineScores, bins: int) -> dict[str, Any]:
  """Returns the machine's heat map: the highest score of each metric in each stretch, `bins` at most, ready for JSON.

  Returns:
    metrics: names, top first; left_out: how many more there are; top: the highest score; and `cells`.
  """
  axis = machine_axis(scores)
  return {
    "metrics": [rows.metrics[lane] for lane in chosen.lanes],
    "left_out": chosen.num_left_out,
    "top": chosen.top,
    "cells": _cells(rows, chosen, scores, slice(None), axis, most_bins(axis, step_of(places_of(scores)), bins)),
  }


def _cells(
  rows: MetricRows, chosen: MetricMap, scores: MachineScores, part: slice, axis: Axis, bins: int
) -> dict[str, Any]:
  """Returns {first, last, bins, codes}: codes [F, bins] as text, of the rows in `part`."""
  position = np.clip(np.searchsorted(scores.row, rows.row[part]), 0, len(scores.row) - 1)
  place = heat.bins_of(places_of(scores)[position], axis.first, axis.last, bins)
  codes = heat.metric_codes(rows.score[part][:, chosen.lanes], chosen.top)
  found = heat.bin_maxima(place, codes, bins).T  # [bins, F] -> [F, bins]
  return {"first": axis.first, "last": axis.last, "bins": bins, "codes": heat.text_of(found)}


def event_figure(
  rows: MetricRows, chosen: MetricMap, scores: MachineScores, start: int, end: int, peak: int, causes: Sequence[str]
) -> dict[str, Any] | None:
  """Returns the charts of one event, ready for JSON; None where no row near it has metrics' scores.

  Args:
    start, end, peak: positions in the machine's arrays, end exclusive. causes: metrics, the first one first.

  Returns:
    x: places of the points, encoded. causes: each metric's name, `low` and `step`, its values in 16 bits, `actual`,
    `expected`, `band_low`, `band_high`: code c > 0 is low + step (c - 1), 0 is none. cells: the heat map of the rows.
  """
  places = places_of(scores)
  lower, upper = max(start - MARGIN_ROWS, 0), min(end + MARGIN_ROWS, len(places))
  first_row, last_row = scores.row[lower], scores.row[upper - 1]
  part = slice(*np.searchsorted(rows.row, [first_row, last_row + 1]))
  if part.start == part.stop:
    return None
  # a row that the file does not have is a gap of the curves
  inside = np.searchsorted(scores.row[lower:upper], rows.row[part])
  lanes = [rows.metrics.index(name) for name in causes[:NUM_CAUSES] if name in rows.metrics]
  series = []
  for lane in lanes:
    values = np.full((4, upper - lower), np.nan)
    values[:, inside] = [part_of[part, lane] for part_of in (rows.actual, rows.expected, rows.low, rows.high)]
    series.append(values)
  wanted = [np.array([0, start - lower, end - 1 - lower, peak - lower, upper - lower - 1])]
  wanted += [kept_rows(values[0], EVENT_POINTS) for values in series]
  kept = np.unique(np.concatenate(wanted))
  axis = Axis(scores.times is not None, float(places[lower]), float(places[upper - 1]) + step_of(places))
  x = places[lower:upper][kept]
  return {
    "x": encode(x if axis.dated else x.astype(np.int32)),
    "causes": [
      {"metric": rows.metrics[lane], **_quantised(values[:, kept])}
      for lane, values in zip(lanes, series, strict=True)
    ],
    "cells": _cells(rows, chosen, scores, part, axis, most_bins(axis, step_of(places), EVENT_BINS)),
  }


def _quantised(values: np.ndarray) -> dict[str, Any]:
  """Returns four curves [4, K] of one metric in 16 bits each, over their common range."""
  known = values[np.isfinite(values)]
  low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
  step = (high - low) / (LAST_CODE - 1) if high > low else 1.0
  finite = np.isfinite(values)
  codes = np.where(finite, 1 + np.round((np.where(finite, values, low) - low) / step), 0).astype(np.uint16)
  names = ("actual", "expected", "band_low", "band_high")
  return {"low": low, "step": step, **{name: heat.text_of(row) for name, row in zip(names, codes, strict=True)}}
