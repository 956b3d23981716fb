"""How often the named metrics are the right ones, per true segment; every figure uses the labels.

In: a ranking of metrics per segment and the set of its true metrics. Out: shares, with what a random ranking
gets beside them. HitRate@P% and NDCG@P% as in OmniAnomaly (Su et al. 2019) and MTAD-GAT (Zhao et al. 2020).
"""

from collections.abc import Sequence

import numpy as np


def _depth(num_true: int, percent: int) -> int:
  return percent * num_true // 100


def hit_rate(ranking: Sequence[int], true_metrics: Sequence[int], percent: int = 100) -> float:
  """Returns |top floor(P% |G|) of the ranking, in G| / |G|; NaN where G is empty.

  Args:
    ranking: metric indices, best first.
    true_metrics: G, metric indices.
    percent: P.
  """
  if not true_metrics:
    return float("nan")
  named = list(ranking)[: _depth(len(true_metrics), percent)]
  return len(set(named) & set(true_metrics)) / len(true_metrics)


def random_hit_rate(num_true: int, num_metrics: int, percent: int = 100) -> float:
  """Returns the expected `hit_rate` of a random ranking: the share of metrics that it may name.

  Args:
    num_true: |G|.
    num_metrics: F.
    percent: P.
  """
  return min(_depth(num_true, percent), num_metrics) / num_metrics if num_true else float("nan")


def ndcg(ranking: Sequence[int], true_metrics: Sequence[int], percent: int = 100) -> float:
  """Returns the discounted gain of the top floor(P% |G|) over the best possible; NaN where G is empty.

  Args:
    ranking: metric indices, best first.
    true_metrics: G, metric indices.
    percent: P.
  """
  depth = _depth(len(true_metrics), percent)
  if not depth:
    return float("nan")
  gains = 1 / np.log2(np.arange(depth) + 2)
  right = np.isin(np.asarray(ranking[:depth], np.int64), np.asarray(true_metrics, np.int64))
  return float(np.sum(gains[: len(right)][right]) / np.sum(gains[: min(depth, len(true_metrics))]))


def first_named_right(ranking: Sequence[int] | None, true_metrics: Sequence[int]) -> bool:
  """Returns whether the ranking's first metric is a true one; a segment without a ranking is wrong.

  Args:
    ranking: metric indices, best first, or None where no cause was named.
    true_metrics: metric indices.
  """
  return bool(ranking is not None and len(ranking) and int(ranking[0]) in set(true_metrics))


def match_segments(segments: np.ndarray, interpretation: Sequence[tuple[int, int]]) -> list[int | None]:
  """Returns, for each true segment, the interpretation that overlaps it most, or None where none does.

  Args:
    segments: [S, 2] rows, end exclusive.
    interpretation: (start, end) rows, end exclusive.
  """
  matches: list[int | None] = []
  for start, end in segments:
    overlaps = [min(end, stop) - max(start, begin) for begin, stop in interpretation]
    best = int(np.argmax(overlaps)) if overlaps else -1
    matches.append(best if best >= 0 and overlaps[best] > 0 else None)
  return matches
