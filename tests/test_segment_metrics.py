"""Composite F1, PA%K and AUC-ROC against loops over every threshold, scikit-learn, and what random scores get."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mtad_jax.evaluate.metrics import best_f1
from mtad_jax.evaluate.segment_metrics import auc_roc, best_composite_f1, pa_k_area
from mtad_jax.evaluate.segments import Rows, point_adjust, pool, rows_of


def draw(seed: int, ties: bool) -> Rows:
  rng = np.random.default_rng(seed)
  labels = np.zeros(120, bool)
  for start, length in ((5, 1), (20, 7), (60, 23), (100, 20)):
    labels[start : start + length] = True
  scores = rng.normal(size=120) + labels
  scores[::17] = np.nan
  return rows_of(labels, np.round(scores) if ties else scores)


def f1(hits: float, flagged: float, wanted: float) -> float:
  return 2 * hits / (flagged + wanted) if flagged + wanted else 0.0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_by_loops_over_thresholds(seed: int, ties: bool) -> None:
  rows = draw(seed, ties)
  segments = [np.flatnonzero(rows.segment == i) for i in range(4)]
  composite, by_k = [], np.zeros(101)
  for threshold in np.unique(rows.scores):
    flagged = rows.scores >= threshold
    precision = np.mean(rows.labels[flagged])
    recall = np.mean([np.any(flagged[s]) for s in segments])
    composite.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    for k in range(101):
      adjusted = flagged.copy()
      for s in segments:
        if np.sum(flagged[s]) * 100 > k * len(s):
          adjusted[s] = True
      by_k[k] = max(by_k[k], f1(np.sum(adjusted & rows.labels), np.sum(adjusted), np.sum(rows.labels)))
  assert best_composite_f1(rows) == pytest.approx(max(composite))
  assert pa_k_area(rows) == pytest.approx(np.mean(by_k))
  assert by_k[100] == pytest.approx(best_f1(rows.labels, rows.scores).f1)
  adjusted = point_adjust(rows)
  assert by_k[0] == pytest.approx(best_f1(adjusted.labels, adjusted.scores).f1)
  assert auc_roc(rows) == pytest.approx(roc_auc_score(rows.labels, rows.scores))


def test_laws() -> None:
  rows = draw(0, False)
  for figure in (auc_roc, best_composite_f1, pa_k_area):
    assert figure(rows._replace(scores=np.exp(3 * rows.scores))) == pytest.approx(figure(rows))
    assert figure(rows._replace(scores=rows.labels.astype(float))) == 1
    assert figure(pool([rows, rows])) == pytest.approx(figure(rows))
    assert np.isnan(figure(rows._replace(labels=np.zeros_like(rows.labels), segment=-np.ones_like(rows.segment))))
  assert auc_roc(rows._replace(scores=-rows.scores)) == pytest.approx(1 - auc_roc(rows))
  assert np.isnan(auc_roc(rows._replace(labels=np.ones_like(rows.labels))))


def test_random_scores_win_nothing_but_by_point_adjustment() -> None:
  """A share of 5% in long segments: PA%K lies between the plain and the adjusted figure, composite F1 is low."""
  labels = np.zeros(20000, bool)
  for start in range(500, 20000, 2000):
    labels[start : start + 100] = True
  rows = rows_of(labels, np.random.default_rng(0).uniform(size=20000))
  adjusted = point_adjust(rows)
  plain, won = best_f1(rows.labels, rows.scores).f1, best_f1(adjusted.labels, adjusted.scores).f1
  assert plain < 0.11 < 0.6 < won
  assert plain < pa_k_area(rows) < 0.3
  assert best_composite_f1(rows) < 0.3
  assert auc_roc(rows) == pytest.approx(0.5, abs=0.02)
