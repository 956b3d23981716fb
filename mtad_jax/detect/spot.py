"""SPOT and DSPOT: thresholds that follow a stream of scores, each decided before its row is seen.

In: calibration scores, then one score after another. Out: a threshold a row, and the state to go on from. A normal
row counts; one above the initial quantile also leaves its excess to the tail (Siffer et al. 2017). DSPOT takes both
from the level of the normal rows before: z_q = level + t + (sigma / gamma) ((q n / N_t)^-gamma - 1).

Alarms feed nothing, so that a threshold that began too low cannot learn it from them. Departures from the paper:
- the level is an exponential mean, one number of state in place of a window of them;
- an alarm that lasts longer than `learn_after_rows` moves the level from then on, or it would last for ever;
- the tail is that of the last `KEPT` excesses and of the rows they came from, so that a long stream still moves;
- of the normal rows a share q is above the threshold and left out with the alarms. That many are put back into every
  fit, at the fit's own quantiles. Without them the tail is cut off, threshold after threshold: on exponential scores
  at q 1e-3, five times the promised alarms after 100,000 rows.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.detect import gpd
from mtad_jax.detect.pot import MIN_EXPECTED_ROWS

KEPT = 500  # excesses
REFIT_SHARE = 0.2  # a fit is made again once so many of the excesses are new: every 100 of `KEPT`, a fit being 10 ms
_WARM_UP_SHARE = 0.25  # of a calibration series, at most, from which its first level is taken


@dataclasses.dataclass(frozen=True)
class StreamSettings:
  """q: promised share of normal rows in alarm. level_rows: that the level is a mean of; 0 is SPOT, without a level.

  learn_after_rows: an alarm moves the level from this row of it on. floor: no threshold is below it, a score.
  """

  q: float
  level_rows: int
  learn_after_rows: int
  floor: float


class Stream(NamedTuple):
  """What the next row's threshold and update need; scores' unit.

  level: of normal rows, 0 without one. initial: where the tail begins, above the level. excesses: of the tail, oldest
  first, above `initial`. spans: counted rows that each excess stands for: those since the excess before, and itself.
  rows_since: counted rows since the last excess. num_rows: all of them, spans and since. num_streamed: the excesses
  that came after calibration. num_unfitted: that came after the last fit. shape, scale: of that fit, NaN where
  there are too few excesses. alarm_rows: length of the alarm that the last row is in.
  """

  level: float
  initial: float
  excesses: tuple[float, ...]
  spans: tuple[int, ...]
  rows_since: int
  num_rows: int
  num_streamed: int
  num_unfitted: int
  shape: float
  scale: float
  alarm_rows: int


def levels(scores: np.ndarray, level_rows: int) -> tuple[np.ndarray, int, float]:
  """Returns (the level [N] before each row, how many first rows it began with, the level after the last).

  Args:
    scores: [N] finite calibration scores in the order of time. level_rows: 0: the level is 0.
  """
  if not level_rows or not len(scores):
    return np.zeros(len(scores)), 0, 0.0
  num_first = max(1, min(level_rows, int(_WARM_UP_SHARE * len(scores))))
  level = float(np.mean(scores[:num_first]))
  found = np.full(len(scores), level)
  for row in range(num_first, len(scores)):
    found[row] = level
    level += (float(scores[row]) - level) / level_rows
  return found, num_first, level


def departures(series: Sequence[np.ndarray], level_rows: int) -> np.ndarray:
  """Returns the scores less their levels, series after series, without the rows that the levels began with."""
  parts = [np.asarray(scores, np.float64) for scores in series]
  return np.concatenate([s - found for s, found in (_after_first(part, level_rows) for part in parts)])


def _after_first(scores: np.ndarray, level_rows: int) -> tuple[np.ndarray, np.ndarray]:
  found, num_first, _ = levels(scores, level_rows)
  first = num_first if num_first < len(scores) else 0  # a single row departs from itself by 0
  return scores[first:], found[first:]


def start(above_level: np.ndarray, level: float, initial_quantile: float) -> Stream:
  """Returns the state after calibration; its threshold is POT's of the same numbers.

  Args:
    above_level: [N] finite, `departures` of the calibration scores. level: where the stream goes on.
    initial_quantile: where the tail begins, in (0, 1).

  Raises:
    ValueError: no number, or one that is not finite.
  """
  if not len(above_level) or not np.all(np.isfinite(above_level)):
    bad = int(np.sum(~np.isfinite(above_level)))
    raise ValueError(f"{len(above_level)} calibration scores, {bad} not finite: a stream has nothing to start from")
  initial = float(np.quantile(above_level, initial_quantile))
  rows = np.flatnonzero(above_level > initial)
  excesses = tuple((above_level[rows] - initial).tolist())
  spans = tuple(np.diff(rows, prepend=-1).tolist())
  shape, scale = _fit(excesses)
  stream = Stream(
    level=level, initial=initial, excesses=excesses, spans=spans,
    rows_since=len(above_level) - sum(spans), num_rows=len(above_level),
    num_streamed=0, num_unfitted=0, shape=shape, scale=scale, alarm_rows=0,
  )  # fmt: skip
  return stream


def _fit(excesses: Sequence[float]) -> tuple[float, float]:
  """Returns (shape, scale), NaN of fewer than two excesses."""
  if len(excesses) < 2:
    return math.nan, math.nan
  fit = gpd.fit_gpd(np.array(excesses))
  return fit.shape, fit.scale


def _unseen(stream: Stream, q: float) -> float:
  """Returns how many normal rows were above the threshold and left out, of the rows that the tail stands for."""
  return q * stream.num_rows * stream.num_streamed / len(stream.excesses)


def _tail_share(stream: Stream, q: float) -> float:
  """Returns the share of the excesses that lie above the threshold sought, q n / N_t."""
  unseen = _unseen(stream, q)
  return q * (stream.num_rows + unseen) / (len(stream.excesses) + unseen)


def next_threshold(stream: Stream, settings: StreamSettings) -> float:
  """Returns the threshold of the row to come: an alarm is a score strictly above it.

  Where the tail cannot carry q, the largest excess kept; where q is not below its share, where the tail begins.
  """
  if len(stream.excesses) < 2 or settings.q * stream.num_rows < MIN_EXPECTED_ROWS:
    excess = max(stream.excesses, default=0.0)
  else:
    share = _tail_share(stream, settings.q)
    excess = gpd.excess_quantile(stream.shape, stream.scale, share) if share < 1 else 0.0
  return max(stream.level + stream.initial + excess, settings.floor)


def _with_unseen(stream: Stream, q: float) -> list[float]:
  """Returns the excesses, and the unseen ones at the quantiles of the fit that left them out."""
  share, num_unseen = _tail_share(stream, q), round(_unseen(stream, q))
  if not num_unseen or share >= 1:
    return list(stream.excesses)
  ranks = (np.arange(num_unseen) + 0.5) / num_unseen
  return [*stream.excesses, *(gpd.excess_quantile(stream.shape, stream.scale, share * rank) for rank in ranks)]


def _with_excess(stream: Stream, excess: float, q: float) -> Stream:
  """Returns the state with one more excess, the oldest dropped where there are too many, fitted again where due."""
  excesses, spans = (*stream.excesses, excess), (*stream.spans, stream.rows_since)
  num_dropped = max(len(excesses) - max(KEPT, len(stream.excesses)), 0)  # a long calibration is not cut short
  stream = stream._replace(
    excesses=excesses[num_dropped:],
    spans=spans[num_dropped:],
    rows_since=0,
    num_rows=stream.num_rows - sum(spans[:num_dropped]),
    num_streamed=min(stream.num_streamed + 1, len(excesses) - num_dropped),
    num_unfitted=stream.num_unfitted + 1,
  )
  if stream.num_unfitted < REFIT_SHARE * len(stream.excesses):
    return stream
  known = list(stream.excesses) if math.isnan(stream.shape) else _with_unseen(stream, q)
  shape, scale = _fit(known)
  return stream._replace(shape=shape, scale=scale, num_unfitted=0)


def step(stream: Stream, score: float, settings: StreamSettings) -> tuple[Stream, float]:
  """Returns (the state after the row, the row's threshold, which is of the rows before it).

  Args:
    score: NaN, or not finite, where the row has none: the state stays as it is.
  """
  threshold = next_threshold(stream, settings)
  if not math.isfinite(score):
    return stream, threshold
  above = score - stream.level
  level = stream.level + above / settings.level_rows if settings.level_rows else stream.level
  if score > threshold:
    alarm_rows = stream.alarm_rows + 1
    is_learnt = alarm_rows > settings.learn_after_rows
    return stream._replace(level=level if is_learnt else stream.level, alarm_rows=alarm_rows), threshold
  excess = above - stream.initial
  stream = stream._replace(
    level=level, rows_since=stream.rows_since + 1, num_rows=stream.num_rows + 1, alarm_rows=0
  )
  return (_with_excess(stream, excess, settings.q) if excess > 0 else stream), threshold


def run(stream: Stream, scores: np.ndarray, settings: StreamSettings) -> tuple[Stream, np.ndarray]:
  """Returns (the state after the last row, the rows' thresholds [T]); run in parts, it gives the same.

  Args:
    scores: [T] in the order of time, NaN where a row has none; such a row has a threshold all the same.
  """
  found = np.zeros(len(scores))
  for row, score in enumerate(np.asarray(scores, np.float64).tolist()):
    stream, found[row] = step(stream, score, settings)
  return stream, found


def stream_to_json(stream: Stream) -> dict[str, Any]:
  """Returns the state for JSON; NaN, not fitted, is null."""
  values: dict[str, Any] = {name: list(v) if isinstance(v, tuple) else v for name, v in stream._asdict().items()}
  return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


def stream_from_json(values: dict[str, Any]) -> Stream:
  """Returns what `stream_to_json` wrote."""
  plain: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
  plain |= {name: tuple(plain[name]) for name in ("excesses", "spans")}
  return Stream(**plain)
