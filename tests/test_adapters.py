"""The adapters under the checkers of the projects they serve; a dead detector passes those, so faults are put in too.

    VENV=.venv-adapters bash scripts/setup.sh test,pyod,aeon,sktime,sklearn,tsbad
    .venv-adapters/bin/python -m pip install --no-deps "TSB-AD>=1.5,<2"
    .venv-adapters/bin/python -m pytest -m slow tests/test_adapters.py
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mtad_jax import MTADGAT, LinearForecast, RoleMixture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # other projects warn of themselves

NUM_METRICS = 3
SPIKE, SHIFT = slice(100, 101), slice(200, 230)
SMALL = {
  "model": {"hidden_size": 8, "forecast_size": 8, "decoder_size": 8, "latent_size": 4, "kernel_size": 3},
  "train": {"batch_size": 16},
}


def small_network(**arguments: Any) -> MTADGAT:
  return MTADGAT(window_size=8, window_budget=3200, settings=SMALL, **arguments)


def make_rows(num: int, seed: int, num_metrics: int = NUM_METRICS) -> np.ndarray:
  """Returns [num, F] waves with noise."""
  rng = np.random.default_rng(seed)
  waves = [np.sin(np.arange(num) / 9 + i) for i in range(num_metrics)]
  return np.stack(waves, axis=1) + rng.normal(0, 0.1, (num, num_metrics))


def assert_alive(score: Callable[[np.ndarray], np.ndarray], num_metrics: int = NUM_METRICS) -> None:
  """Asserts that scores vary, and that a spike and a shift are scored above all normal rows."""
  normal = make_rows(300, 1, num_metrics)
  faulty = normal.copy()
  faulty[SPIKE, 0] += 6
  faulty[SHIFT, 0] += 3
  without, found = np.asarray(score(normal), float).ravel(), np.asarray(score(faulty), float).ravel()
  assert without.shape == found.shape == (300,)
  assert np.isfinite(found).all()
  assert len(np.unique(without)) > 200
  assert found[SPIKE].max() > without.max()
  assert found[SHIFT].max() > without.max()


def test_scikit_learns_check_estimator() -> None:
  pytest.importorskip("sklearn", reason="scikit-learn is not installed: the extra sklearn")
  from sklearn.utils.estimator_checks import check_estimator

  from mtad_jax.library.sklearn_adapter import RoleMixtureOutlier

  results = check_estimator(RoleMixtureOutlier(components=1), on_skip=None)
  passed = {result["check_name"] for result in results if result["status"] == "passed"}
  assert not [result["check_name"] for result in results if result["status"] in ("failed", "xfail")]
  assert {"check_outliers_train", "check_outliers_fit_predict", "check_methods_subset_invariance"} <= passed
  for contamination in (0.02, "auto"):
    fitted = RoleMixtureOutlier(contamination=contamination).fit(make_rows(600, 0))
    assert_alive(lambda rows, fitted=fitted: -fitted.score_samples(rows))
    faulty = make_rows(300, 1)
    faulty[SPIKE, 0] += 6
    assert (fitted.predict(faulty)[SPIKE] == -1).all()
  with pytest.raises(ValueError, match=r"contamination: 0\.7 is out of range"):
    RoleMixtureOutlier(contamination=0.7).fit(make_rows(60, 0))


@pytest.mark.parametrize(
  "detector",
  [small_network(), LinearForecast(), RoleMixture(components=1)],
  ids=["network", "linear", "mixture"],
)
def test_pyods_protocol(detector: MTADGAT | LinearForecast | RoleMixture) -> None:
  """What PyOD's own tests of a detector call, in their order."""
  pytest.importorskip("pyod", reason="PyOD is not installed: the extra pyod")
  from pyod.models.ecod import ECOD
  from pyod.utils.utility import standardizer
  from sklearn.base import clone

  from mtad_jax.library.pyod_adapter import MTADGATOutlier

  train, test = make_rows(500, 0), make_rows(120, 2)
  fitted = MTADGATOutlier(contamination=0.05, detector=detector)
  with pytest.raises(ValueError, match="fitted"):
    fitted.decision_function(test)
  assert fitted.fit(train) is fitted
  assert "_fitted" not in vars(detector)  # the one given stays as it is
  assert fitted.decision_scores_.shape == fitted.labels_.shape == (500,)
  assert fitted.labels_.sum() == pytest.approx(0.05 * 500, abs=1)
  assert fitted.threshold_ == pytest.approx(np.quantile(fitted.decision_scores_, 0.95))
  assert fitted._mu == pytest.approx(fitted.decision_scores_.mean())
  scores, labels = fitted.decision_function(test), fitted.predict(test)
  np.testing.assert_array_equal(labels, scores > fitted.threshold_)
  for method in ("linear", "unify"):
    shares = fitted.predict_proba(test, method=method)
    assert shares.shape == (120, 2)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1)
  with pytest.raises(ValueError, match="something"):
    fitted.predict_proba(test, method="something")
  for confidence in (
    fitted.predict_confidence(test),
    fitted.predict(test, return_confidence=True)[1],
    fitted.predict_proba(test, method="linear", return_confidence=True)[1],
  ):
    assert confidence.shape == (120,)
    assert 0 <= confidence.min() <= confidence.max() <= 1
  ranks = fitted._predict_rank(test, normalized=True)
  assert 0 <= ranks.min() <= ranks.max() <= 1
  rejected = fitted.predict_with_rejection(test, return_stats=False)
  assert set(np.unique(rejected)) <= {-2, 0, 1}
  other = ECOD().fit(train)  # pyod.models.combination needs a package that nobody installs any more
  known = np.stack([fitted.decision_scores_, other.decision_scores_], axis=1)
  combined = standardizer(known, np.stack([scores, other.decision_function(test)], axis=1))[1].mean(axis=1)
  assert combined.shape == (120,)
  assert np.isfinite(combined).all()
  copied = clone(fitted)
  assert copied.contamination == 0.05
  assert copied.detector.get_params() == detector.get_params()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    np.testing.assert_array_equal(fitted.fit_predict(train), fitted.labels_)
  assert_alive(fitted.decision_function)
  for wrong in (0.6, -0.1):
    with pytest.raises(ValueError, match="contamination must be in"):
      MTADGATOutlier(contamination=wrong)
  with pytest.raises(ValueError, match="an MTADGAT, a LinearForecast or a RoleMixture is wanted"):
    MTADGATOutlier(detector="mtad").fit(train)


def test_aeons_check_estimator() -> None:
  pytest.importorskip("aeon", reason="aeon is not installed: the extra aeon")
  from aeon.testing.estimator_checking import check_estimator

  from mtad_jax.library.aeon_adapter import MTADGATAnomalyDetector

  results = check_estimator(MTADGATAnomalyDetector, raise_exceptions=True)
  assert len(results) > 10
  assert set(results.values()) == {"PASSED"}
  fitted = MTADGATAnomalyDetector(small_network()).fit(make_rows(500, 0), axis=0)
  assert_alive(lambda rows: fitted.predict(rows, axis=0))
  assert_alive(lambda rows: fitted.predict(rows.T))


def test_sktimes_check_estimator() -> None:
  pytest.importorskip("sktime", reason="sktime is not installed: the extra sktime")
  import pandas as pd
  from sktime.utils.estimator_checks import check_estimator

  from mtad_jax.library.sktime_adapter import MTADGATDetector

  results = check_estimator(MTADGATDetector, raise_exceptions=True, verbose=False)
  assert len(results) > 10
  assert set(results.values()) == {"PASSED"}
  fitted = MTADGATDetector(small_network()).fit(pd.DataFrame(make_rows(500, 0)))
  assert_alive(lambda rows: fitted.transform_scores(pd.DataFrame(rows))["scores"])
  faulty = make_rows(300, 1)
  faulty[SPIKE, 0] += 6
  assert 100 in fitted.predict(pd.DataFrame(faulty))["ilocs"].to_list()
  assert len(fitted.predict_scores(pd.DataFrame(faulty))) == len(fitted.predict(pd.DataFrame(faulty)))


def test_tsb_ads_runner_scores_a_series() -> None:
  pytest.importorskip("TSB_AD", reason="TSB-AD is not installed: pip install --no-deps TSB-AD, and the extra tsbad")
  from TSB_AD.model_wrapper import Semisupervise_AD_Pool, run_Semisupervise_AD

  from mtad_jax.library import tsb_ad_adapter

  tsb_ad_adapter.register()
  tsb_ad_adapter.register()
  for kind in (MTADGAT, LinearForecast, RoleMixture):
    assert Semisupervise_AD_Pool.count(kind.__name__) == 1
  train = make_rows(500, 0, 1)
  arguments = {"window_size": 8, "window_budget": 3200, "settings": SMALL}
  assert_alive(lambda rows: run_Semisupervise_AD("MTADGAT", train, rows, **arguments), 1)
  assert_alive(lambda rows: run_Semisupervise_AD("LinearForecast", train, rows, window_size=4), 1)
  assert_alive(lambda rows: run_Semisupervise_AD("RoleMixture", train, rows, components=1), 1)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_of_other_libraries(kind: str) -> None:
  library = pytest.importorskip(kind, reason=f"{kind} is not installed")
  times = np.datetime64("2026-01-01", "ms") + np.arange(200) * np.timedelta64(60, "s")
  train, new = make_rows(200, 0), make_rows(200, 1)
  columns = {f"m{i}": new[:, i] for i in range(NUM_METRICS)}
  fitted = RoleMixture(components=1).fit(
    library.DataFrame({"timestamp": times, **{f"m{i}": train[:, i] for i in range(NUM_METRICS)}})
  )
  assert fitted.feature_names_in_.tolist() == ["m0", "m1", "m2"]
  wanted = fitted.decision_function(library.DataFrame({"timestamp": times, **columns}))
  turned = library.DataFrame({**dict(reversed(columns.items())), "timestamp": times})
  np.testing.assert_array_equal(fitted.decision_function(turned), wanted)
  np.testing.assert_array_equal(fitted.decision_function(new), wanted)  # without names: by position
  if kind == "pandas":
    nameless = RoleMixture(components=1).fit(train[:, 0])
    one = library.Series(new[:, 0])
    np.testing.assert_array_equal(nameless.decision_function(one), nameless.decision_function(new[:, 0]))
    zoned = library.DatetimeIndex(times).tz_localize("UTC").tz_convert("Europe/Berlin")
    assert fitted.explain(library.DataFrame(columns, index=zoned)) is not None
    np.testing.assert_array_equal(fitted.decision_function(library.DataFrame(columns, index=zoned)), wanted)
  with pytest.raises(ValueError, match=r"metrics missing that training had: m0 \(is other the same, renamed\?\)"):
    fitted.decision_function(library.DataFrame({"other": new[:, 0], **dict(list(columns.items())[1:])}))
