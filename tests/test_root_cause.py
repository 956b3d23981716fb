"""Root-cause figures by hand-made cases, and what chance gets on the real interpretation labels."""

import os
from pathlib import Path

import numpy as np
import pytest

from mtad_jax.evaluate.operating_point import Watched, by_group, find_operating_point
from mtad_jax.evaluate.root_cause import first_named_right, hit_rate, match_segments, ndcg, random_hit_rate


def test_hit_rate() -> None:
  assert hit_rate([3, 1, 2, 0], [1, 2]) == 0.5
  assert hit_rate([3, 1, 2, 0], [1, 2], 150) == 1.0
  assert hit_rate([], [1, 2]) == 0.0
  assert np.isnan(hit_rate([1], []))


def test_ndcg() -> None:
  assert ndcg([1, 2, 0], [1, 2]) == 1.0
  second_only = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
  assert ndcg([0, 2, 1], [1, 2]) == pytest.approx(second_only)
  assert ndcg([1, 2, 0], [1, 2], 150) == 1.0
  assert ndcg([1], [1, 2]) == pytest.approx(1 / (1 + 1 / np.log2(3)))  # a short ranking names less
  assert np.isnan(ndcg([1], []))


@pytest.mark.parametrize("percent", [100, 150])
def test_random_hit_rate_equals_drawing(percent: int) -> None:
  rng = np.random.default_rng(0)
  drawn = [hit_rate(rng.permutation(9).tolist(), [0, 4, 5], percent) for _ in range(4000)]
  assert random_hit_rate(3, 9, percent) == pytest.approx(np.mean(drawn), abs=0.02)


def test_first_named_right() -> None:
  assert first_named_right([4, 1], [4])
  assert not first_named_right([1, 4], [4])
  assert not first_named_right([], [4])
  assert not first_named_right(None, [4])


def test_matching_by_overlap() -> None:
  segments = np.array([[10, 20], [30, 40], [50, 60]])
  assert match_segments(segments, [(28, 33), (33, 45), (12, 25)]) == [2, 1, None]
  assert match_segments(segments, []) == [None, None, None]


def test_chance_on_the_real_interpretations() -> None:
  # measured: HitRate@100% / @150% of random rankings, per segment: .190 / .274
  beside = Path(__file__).resolve().parents[2] / "shared" / "data"
  folder = Path(os.environ.get("MTAD_REAL_DATA") or beside) / "smd" / "interpretation_label"
  if not folder.is_dir():
    pytest.skip(f"no {folder}; MTAD_REAL_DATA names the folder with the real data")
  lines = [line for file in sorted(folder.glob("*.txt")) for line in file.read_text().split()]
  counts = [len(line.split(":")[1].split(",")) for line in lines]
  assert np.mean([random_hit_rate(count, 38) for count in counts]) == pytest.approx(0.190, abs=1e-3)
  assert np.mean([random_hit_rate(count, 38, 150) for count in counts]) == pytest.approx(0.274, abs=1e-3)


def test_groups() -> None:
  groups = by_group(
    np.array([True, False, True, True]), ["spike", "spike", "drift", ""], ["weak", "", "weak", ""]
  )
  assert groups["by_kind"] == {
    "drift": {"mean": 1.0, "segments": 1},
    "spike": {"mean": 0.5, "segments": 2},
  }
  assert groups["by_strength"] == {"weak": {"mean": 1.0, "segments": 2}}
  assert set(groups["by_kind_and_strength"]) == {"drift, weak", "spike, weak"}


def watched(seed: int, shift: float) -> Watched:
  rng = np.random.default_rng(seed)
  labels = np.zeros(3000, bool)
  for start in range(200, 3000, 400):
    labels[start : start + 20] = True
  scores = rng.normal(size=3000) + shift * labels
  scores[:50] = np.nan
  return Watched(labels, scores, 500.0)


def false_per_day(machines: list[Watched], threshold: float) -> float:
  count = sum(int(np.sum((m.scores > threshold) & ~m.labels)) for m in machines)  # single rows, no merging
  return count / sum(np.sum(~np.isnan(m.scores)) / m.rows_per_day for m in machines)


def test_operating_point_is_the_lowest_before_the_limit() -> None:
  machines = [watched(seed, 2.0) for seed in range(3)]
  point = find_operating_point(machines, 1.0)
  assert point.false_alarms_per_day <= 1.0
  normal = np.sort(np.concatenate([m.scores[~m.labels & ~np.isnan(m.scores)] for m in machines]))
  lower = normal[np.searchsorted(normal, point.threshold) - 1]
  assert false_per_day(machines, lower) > 1.0
  expected = [np.any(m.scores[s : s + 20] > point.threshold) for m in machines for s in range(200, 3000, 400)]
  assert np.concatenate(point.hits).tolist() == expected


def test_operating_point_rises_with_the_limit_and_the_signal() -> None:
  recalls = [np.mean(np.concatenate(find_operating_point([watched(0, 2.0)], x).hits)) for x in (0.2, 1, 5)]
  assert recalls == sorted(recalls)
  weak, strong = (
    np.mean(np.concatenate(find_operating_point([watched(0, s)], 1.0).hits)) for s in (0.0, 6.0)
  )
  assert weak < 0.5 < strong == 1.0


def test_constant_scores_find_nothing() -> None:
  machine = watched(0, 0.0)
  point = find_operating_point([machine._replace(scores=np.ones(3000))], 1.0)
  assert not np.any(point.hits[0])
  assert point.false_alarms_per_day == 0


def test_a_score_that_is_high_half_the_day_buys_nothing() -> None:
  """Its alarms grow wider day by day and stay one event each; rows in alarm are what they cost."""
  rows, day = np.arange(14400), 1440
  labels = rows % 1000 < 10
  daily = Watched(labels, np.sin(2 * np.pi * rows / day), float(day))
  cheap = find_operating_point([daily], 1.1, 1.0)
  assert np.mean(cheap.hits[0]) > 0.9  # without the second price
  point = find_operating_point([daily], 1.1, 0.05)
  in_alarm = (daily.scores > point.threshold) & ~labels
  assert np.sum(in_alarm) <= 0.05 * np.sum(~labels)
  assert np.mean(point.hits[0]) < 0.2
  assert point.threshold > cheap.threshold


def test_operating_point_without_a_normal_row() -> None:
  with pytest.raises(ValueError, match="operating point: no normal row with a score"):
    find_operating_point([Watched(np.ones(4, bool), np.ones(4), 10.0)])
