"""VUS, range-based and affiliation figures: TSB-AD's own, definitions written out row by row, and what must hold."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from mtad_jax.config import DetectConfig, EvaluateConfig
from mtad_jax.evaluate.figures import Flagged, series_figures, threshold_figures
from mtad_jax.evaluate.range_scores import harmonic, range_scores
from mtad_jax.evaluate.segments import rows_of, segments_of
from mtad_jax.evaluate.volume import volume


class Golden(NamedTuple):
  """What TSB-AD 1.5 gives (generate_curve, version opt_mem, 250 thresholds; range_recall_new; pr_from_events)."""

  seed: int
  buffer: int
  vus_pr: float
  vus_roc: float
  range_precision: float
  range_recall: float
  affiliation_precision: float
  affiliation_recall: float


GOLDEN = (
  Golden(1, 0, 0.6071760892, 0.8973387097, 0.5217391304, 0.2350000000, 0.8268398268, 0.9986071429),
  Golden(2, 7, 0.4272405692, 0.8276700107, 0.3333333333, 0.3293447293, 0.7204035886, 0.9933773830),
  Golden(3, 40, 0.6544909225, 0.9098750402, 0.4130434783, 0.3238327526, 0.7689229712, 0.9966442382),
  Golden(4, 100, 0.6589824811, 0.9247692664, 0.4615384615, 0.3210271848, 0.7492615419, 0.9861649613),
  Golden(5, 61, 0.5876923441, 0.9126668765, 0.3725490196, 0.3147349216, 0.6883610489, 0.9886687935),
)


def make_series(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns labels and scores [T]; the draws that the golden figures were taken on."""
  rng = np.random.default_rng(seed)
  labels = np.zeros(300 + 50 * seed, bool)
  for start in rng.integers(0, len(labels) - 30, seed + 1):
    labels[start : start + int(rng.integers(1, 30))] = True
  return labels, np.round(rng.normal(size=len(labels)) + 1.5 * labels, 2 if seed % 2 else 0)


@pytest.mark.parametrize("wanted", GOLDEN, ids=lambda golden: f"buffer {golden.buffer}")
def test_the_figures_are_tsb_ad_s(wanted: Golden) -> None:
  labels, scores = make_series(wanted.seed)
  found = volume(labels, scores, wanted.buffer)
  ranges = range_scores(labels, scores > 1.5)
  figures = [*found, np.mean(ranges.range_precision), np.mean(ranges.range_recall)]
  figures += [np.nanmean(ranges.affiliation_precision), np.mean(ranges.affiliation_recall)]
  np.testing.assert_allclose(figures, wanted[2:], atol=1e-9)


def test_affiliation_is_the_chance_of_a_random_row_to_be_no_nearer() -> None:
  """Against integrals over fine grids of rows."""
  rng = np.random.default_rng(7)
  labels = np.zeros(90, bool)
  labels[12:20], labels[50:53], labels[80:90] = True, True, True
  flagged = rng.random(90) < 0.15
  found = range_scores(labels, flagged)
  segments, fine = segments_of(labels), np.arange(0, 90, 0.02) + 0.01
  borders = [0.0, (20 + 50) / 2, (53 + 80) / 2, 90.0]
  is_flagged = flagged[fine.astype(int)]
  for i, (start, end) in enumerate(segments):
    zone = fine[(fine > borders[i]) & (fine < borders[i + 1])]
    to_segment = np.maximum(np.maximum(start - zone, zone - end), 0)
    own = zone[is_flagged[(fine > borders[i]) & (fine < borders[i + 1])]]
    distances = np.maximum(np.maximum(start - own, own - end), 0)
    chances = [1.0 if d == 0 else np.mean(to_segment >= d) for d in distances]
    assert found.affiliation_precision[i] == pytest.approx(np.mean(chances), abs=5e-3)
    chances = []
    for row in fine[(fine > start) & (fine < end)][::5]:
      nearest = np.min(np.abs(own - row))
      chances.append(1.0 if is_flagged[np.searchsorted(fine, row)] else np.mean(np.abs(zone - row) >= nearest))
    assert found.affiliation_recall[i] == pytest.approx(np.mean(chances), abs=5e-3)


def test_a_perfect_score_has_whole_volumes_and_a_random_one_what_the_buffer_gives() -> None:
  labels, _ = make_series(4)
  rng = np.random.default_rng(0)
  near = np.convolve(labels, np.ones(21), "same") > 0
  early = volume(labels, labels * 2.0 + (near & ~labels) * rng.random(len(labels)), 20)
  assert volume(labels, labels * 1.0 + rng.random(len(labels)) * 0.1, 0).vus_roc > 0.999
  assert early.vus_pr > 0.9
  chance = volume(labels, rng.random(len(labels)), 0)
  assert chance.vus_pr < 2.5 * np.mean(labels)
  assert chance.vus_roc < 0.65
  assert volume(labels, rng.random(len(labels)), 100).vus_roc > chance.vus_roc  # the buffer's gift


def test_volumes_do_not_depend_on_the_scores_units() -> None:
  labels, scores = make_series(3)
  np.testing.assert_allclose(volume(labels, scores, 30), volume(labels, np.exp(scores) * 1e-6, 30), rtol=1e-12)


def test_what_does_not_exist_is_nan_and_bad_input_is_refused() -> None:
  nothing, everything = np.zeros(5, bool), np.ones(5, bool)
  for labels in (nothing, everything):
    assert all(math.isnan(x) for x in volume(labels, np.arange(5.0)))
  quiet = range_scores(everything, nothing)
  assert quiet.range_precision.shape == (0,)
  assert np.isnan(quiet.affiliation_precision).all()
  np.testing.assert_array_equal(quiet.range_recall, [0])
  np.testing.assert_array_equal(quiet.affiliation_recall, [0])
  assert range_scores(nothing, everything).range_recall.shape == (0,)
  assert harmonic(0.0, 0.0) == 0
  with pytest.raises(ValueError, match=r"labels have shape \(5,\), scores \(4,\)"):
    volume(nothing, np.zeros(4))
  with pytest.raises(ValueError, match=r"flagged \(4,\)"):
    range_scores(nothing, np.zeros(4, bool))
  with pytest.raises(ValueError, match="buffer_rows: -1"):
    volume(nothing, np.zeros(5), -1)


def test_pooled_figures_count_every_stretch_once_and_rows_without_a_score_are_in_none() -> None:
  settings, detect = EvaluateConfig(vus_buffer_rows=10), DetectConfig(merge_gap_rows=0)
  parts, stretches = [], []
  for seed in (1, 2):
    labels, scores = make_series(seed)
    valid = np.arange(len(labels)) >= 50
    flagged = scores > 1.0
    parts.append(Flagged(labels, flagged & valid, valid, 1440.0))
    stretches.append(range_scores(labels[50:], flagged[50:]))
    rows = rows_of(labels, scores, valid)
    assert series_figures(rows, settings) == volume(labels[50:], scores[50:], 10)._asdict()
  found = threshold_figures(parts, settings, detect)
  for name in ("range_precision", "range_recall", "affiliation_precision", "affiliation_recall"):
    joined = np.concatenate([getattr(one, name) for one in stretches])
    assert found[name] == pytest.approx(np.nanmean(joined))
  num_events = sum(len(one.range_precision) for one in stretches)
  days = sum(np.sum(part.valid) for part in parts) / 1440
  assert found["alarms_per_week"] == pytest.approx(7 * num_events / days)
  assert found["range_f1"] == pytest.approx(harmonic(found["range_precision"], found["range_recall"]))
