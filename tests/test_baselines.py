"""The floors: scaling protocol, each score against a slow reference, and the figures known on real data."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mtad_jax.evaluate.baselines import (
  all_positive,
  fill_forward,
  pca_error,
  random_scores,
  scale,
  training_range,
)
from mtad_jax.evaluate.metrics import average_precision, best_f1


def draw() -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  mixing = rng.normal(size=(3, 8))
  train = rng.normal(size=(400, 3)) @ mixing + 0.1 * rng.normal(size=(400, 8))
  test = rng.normal(size=(200, 3)) @ mixing + 0.3 * rng.normal(size=(200, 8))
  return train, test


def test_scaling_by_training_rows() -> None:
  train = np.array([[0.0, 5.0], [2.0, 5.0]])
  scaled, test = scale(train, np.array([[1.0, 5.5], [100.0, -100.0]]))
  assert scaled.tolist() == [[0, 0], [1, 0]]
  assert test.tolist() == [[0.5, 0.5], [5, -4]]  # the flat metric is divided by 1; both ends are clipped


def test_pca_equals_sklearn() -> None:
  train, test = draw()
  scaled, rows = scale(train, test)
  for variance in (0.5, 0.9, 0.99):
    model = PCA(variance, svd_solver="full").fit(scaled)
    expected = np.sum((rows - model.inverse_transform(model.transform(rows))) ** 2, axis=1)
    np.testing.assert_allclose(pca_error(train, test, variance), expected, rtol=1e-9, atol=1e-12)


def test_pca_ignores_units_and_survives_a_flat_split() -> None:
  train, test = draw()
  units = np.geomspace(1e-6, 1e6, 8)
  np.testing.assert_allclose(pca_error(train * units, test * units), pca_error(train, test), rtol=1e-6)
  flat = pca_error(np.full((10, 2), 3.0), np.array([[3.0, 3.0], [3.5, 3.0]]))
  assert flat.tolist() == [0, 0.25]
  assert pca_error(np.arange(5.0)[:, None], np.array([[2.0]])).tolist() == [0]  # one metric, all of it kept


def test_training_range() -> None:
  train = np.array([[0.0, 10.0, 1.0], [4.0, 20.0, 1.0]])
  test = np.array([[2.0, 15.0, 1.0], [6.0, 5.0, 1.0], [0.0, 20.0, 3.0]])
  assert training_range(train, test).tolist() == [0, 1, 2]
  assert np.all(training_range(train, train) == 0)


def test_floors_without_data() -> None:
  assert np.all(all_positive(4) == 1)
  np.testing.assert_array_equal(random_scores(9, 3), random_scores(9, 3))
  assert not np.array_equal(random_scores(9, 3), random_scores(9, 4))


def test_filling_looks_back_first() -> None:
  nan = np.nan
  values = np.array([[nan, nan, 1.0], [2.0, nan, nan], [nan, nan, nan]])
  assert fill_forward(values).tolist() == [[2, 0, 1], [2, 0, 1], [2, 0, 1]]
  assert fill_forward(values, np.array([7.0, 8.0, 9.0])).tolist() == [[7, 8, 1], [2, 8, 1], [2, 8, 1]]
  assert fill_forward(np.zeros((0, 3))).shape == (0, 3)


def test_errors() -> None:
  with pytest.raises(ValueError, match="test: row 1, metric 0 is NaN; fill it before"):
    pca_error(np.zeros((2, 1)), np.array([[0.0], [np.nan]]))
  with pytest.raises(ValueError, match=r"train has shape \(2, 2\), test \(2, 3\)"):
    training_range(np.zeros((2, 2)), np.zeros((2, 3)))


def test_floors_on_a_real_machine(real_data: Path) -> None:
  # recorded with these floors on 2026-11-22, first 100 rows out; the mean over the 20 machines at hand is
  # .399 (best F1 .453) for PCA and .049 for random scores, as measured independently
  folder = real_data / "ServerMachineDataset"
  train, test = (np.loadtxt(folder / part / "machine-1-1.txt", delimiter=",") for part in ("train", "test"))
  labels = np.loadtxt(folder / "test_label" / "machine-1-1.txt") > 0
  scores = pca_error(train, test)
  assert average_precision(labels[100:], scores[100:]) == pytest.approx(0.514, abs=0.005)
  assert best_f1(labels[100:], scores[100:]).f1 == pytest.approx(0.536, abs=0.005)
  chance = average_precision(labels[100:], random_scores(len(labels), 0)[100:])
  assert chance == pytest.approx(np.mean(labels[100:]), abs=0.01)
