"""Labelled rows and the true segments they form, as every metric takes them.

In: one machine's labels [T] and scores [T], NaN where a row has none. Out: `Rows`, the valid rows with the
number of the segment each belongs to; pooling machines never joins two segments.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtad_jax.detect.events import runs


class Rows(NamedTuple):
  """Valid rows of one machine or of many.

  labels: [N] bool. scores: [N] float64, no NaN. segment: [N] int64, the true segment of each row from 0,
  or -1 for a normal row.
  """

  labels: np.ndarray
  scores: np.ndarray
  segment: np.ndarray


def segments_of(labels: np.ndarray) -> np.ndarray:
  """Returns [S, 2] int64: first row and exclusive end of every true segment.

  Args:
    labels: [T] bool.
  """
  return runs(labels)


def rows_of(labels: np.ndarray, scores: np.ndarray, valid: np.ndarray | None = None) -> Rows:
  """Returns the rows that have a score, with the segments numbered over all rows before any is left out.

  Args:
    labels: [T] bool.
    scores: [T] float64, NaN where a row has none.
    valid: [T] bool, further rows to leave out; None: none.

  Raises:
    ValueError: arrays of different lengths.
  """
  labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
  if labels.shape != scores.shape or labels.ndim != 1:
    raise ValueError(f"labels have shape {labels.shape}, scores {scores.shape}; both must be [T]")
  starts = np.diff(np.concatenate([[0], labels.astype(np.int8)])) == 1
  segment = np.where(labels, np.cumsum(starts) - 1, -1)
  kept = ~np.isnan(scores) if valid is None else ~np.isnan(scores) & valid
  return Rows(labels[kept], scores[kept], segment[kept])


def pool(parts: Sequence[Rows]) -> Rows:
  """Returns the rows of all parts as one, segments renumbered so that none is shared.

  Args:
    parts: at least one.
  """
  shifted, offset = [], 0
  for part in parts:
    shifted.append(np.where(part.segment >= 0, part.segment + offset, -1))
    offset += int(np.max(part.segment, initial=-1)) + 1
  return Rows(
    np.concatenate([part.labels for part in parts]),
    np.concatenate([part.scores for part in parts]),
    np.concatenate(shifted),
  )


def point_adjust(rows: Rows) -> Rows:
  """Returns the rows with every segment's scores raised to the segment's largest (point adjustment).

  Flagging the result at any threshold is what papers call point-adjusted: one flagged point flags the whole
  segment. Random scores win under it; it is here because papers print it.
  """
  inside = rows.segment >= 0
  if not np.any(inside):
    return rows
  peaks = np.full(int(np.max(rows.segment)) + 1, -np.inf)
  np.maximum.at(peaks, rows.segment[inside], rows.scores[inside])
  return rows._replace(scores=np.where(inside, peaks[np.where(inside, rows.segment, 0)], rows.scores))
