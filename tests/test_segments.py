"""Rows and segments: numbering over gaps, pooling, point adjustment."""

import numpy as np
import pytest

from mtad_jax.evaluate.segments import Rows, point_adjust, pool, rows_of, segments_of

LABELS = np.array([0, 1, 1, 0, 1, 0, 0, 1], bool)


def test_segments() -> None:
  assert segments_of(LABELS).tolist() == [[1, 3], [4, 5], [7, 8]]
  assert segments_of(np.zeros(3, bool)).shape == (0, 2)


def test_rows_without_a_score_do_not_join_segments() -> None:
  scores = np.arange(8.0)
  scores[3] = np.nan  # the row between the first two segments
  rows = rows_of(LABELS, scores)
  assert rows.segment.tolist() == [-1, 0, 0, 1, -1, -1, 2]
  assert rows.scores.tolist() == [0, 1, 2, 4, 5, 6, 7]
  assert rows_of(LABELS, scores, np.arange(8) > 3).labels.tolist() == [True, False, False, True]


def test_lengths_must_agree() -> None:
  with pytest.raises(ValueError, match=r"labels have shape \(8,\), scores \(7,\); both must be \[T\]"):
    rows_of(LABELS, np.zeros(7))


def test_pooling_never_joins_machines() -> None:
  one = rows_of(np.array([True, True]), np.array([1.0, 5.0]))
  both = pool([one, one, rows_of(np.array([False]), np.array([0.0])), one])
  assert both.segment.tolist() == [0, 0, 1, 1, -1, 2, 2]
  assert len(both.scores) == len(both.labels) == 7


def test_point_adjustment_equals_a_slow_reference() -> None:
  rng = np.random.default_rng(0)
  labels, scores = rng.uniform(size=200) < 0.4, rng.normal(size=200)
  expected = scores.copy()
  for start, end in segments_of(labels):
    expected[start:end] = scores[start:end].max()
  np.testing.assert_array_equal(point_adjust(rows_of(labels, scores)).scores, expected)


def test_point_adjustment_without_a_segment_changes_nothing() -> None:
  rows = Rows(np.zeros(3, bool), np.arange(3.0), np.full(3, -1))
  assert point_adjust(rows) is rows
