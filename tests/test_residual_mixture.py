"""The mixture of a network's errors: against a slow reference, what it sees that single errors do not, commands."""

import json
import shutil

import fleets
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from fleets import LABELLED, TINY, of_machine, read_table, refused, run_here, succeeded
from scipy import stats

from mtad_jax.config import Config, DetectConfig, RolesConfig
from mtad_jax.config_choices import ScoringRule
from mtad_jax.detect.combine import metric_scores
from mtad_jax.detect.errors import Errors, fit_error_model
from mtad_jax.detect.residual_mixture import VARIES, fit_residuals, with_density
from mtad_jax.detect.residual_scorer import judge_series, make_residual_scorer
from mtad_jax.roles.mixture import Mixture
from mtad_jax.roles.prior import UP, MetricPrior, know_nothing

CONFIG = Config(roles=RolesConfig(components=(1,), search_rows=2000), detect=DetectConfig(rule=ScoringRule.DENSITY))


def mixture_of(num_components=2, size=4, seed=0):
  rng = np.random.default_rng(seed)
  roots = rng.normal(size=(num_components, size, size)) * 0.4
  covariances = roots @ np.swapaxes(roots, 1, 2) + np.eye(size) * 0.3
  weights = np.log(np.arange(1, num_components + 1) / np.arange(1, num_components + 1).sum())
  return Mixture(weights, rng.normal(size=(num_components, size)) * 0.5, covariances)


def judge(mixture, rows, prior=None, num_metrics=2, batch_rows=16):
  size = rows.shape[1]
  known = know_nothing(num_metrics) if prior is None else prior
  scorer = make_residual_scorer(mixture, np.ones(size), np.full(size, VARIES), known)
  return judge_series(jax.tree.map(lambda leaf: np.asarray(leaf)[None], scorer), [rows], batch_rows)[0]


def slow(mixture, row, block):
  """Returns (surprise, the block's attribution), one component at a time, by partitioned covariances."""
  rest = [i for i in range(len(row)) if i not in block]
  joint, bound, terms, without, of_others = [], [], [], [], []
  for log_weight, mean, covariance in zip(*mixture, strict=True):
    joint.append(log_weight + stats.multivariate_normal(mean, covariance).logpdf(row))
    bound.append(log_weight + stats.multivariate_normal(mean, covariance).logpdf(mean))
    outer = stats.multivariate_normal(mean[rest], covariance[np.ix_(rest, rest)])
    across = covariance[np.ix_(block, rest)] @ np.linalg.inv(covariance[np.ix_(rest, rest)])
    gap = row[block] - mean[block] - across @ (row[rest] - mean[rest])
    inner = covariance[np.ix_(block, block)] - across @ covariance[np.ix_(rest, block)]
    without.append(log_weight + outer.logpdf(row[rest]))
    of_others.append(log_weight + outer.logpdf(mean[rest]))
    terms.append(stats.chi2(len(block)).logsf(gap @ np.linalg.solve(inner, gap)))
  whole = np.logaddexp.reduce(without)
  attribution = -np.logaddexp.reduce(np.array(without) - whole + np.array(terms))
  if np.logaddexp.reduce(of_others) - whole > stats.chi2.ppf(0.999, len(rest)) / 2:
    alone = []
    for log_weight, mean, covariance in zip(*mixture, strict=True):
      away = row[block] - mean[block]
      distance = away @ np.linalg.solve(covariance[np.ix_(block, block)], away)
      alone.append(log_weight + stats.chi2(len(block)).logsf(distance))
    attribution = min(attribution, -np.logaddexp.reduce(alone))
  return np.logaddexp.reduce(bound) - np.logaddexp.reduce(joint), attribution


@pytest.mark.parametrize("num_metrics", [2, 4])  # of 4 columns: two of each, or one
def test_scores_equal_a_slow_reference(num_metrics):
  mixture = mixture_of()
  rows = np.random.default_rng(1).normal(size=(40, 4)) * np.where(np.arange(40) % 4 == 0, 5, 1)[:, None]
  found = judge(mixture, rows, num_metrics=num_metrics)
  for row, surprise, attribution in zip(rows, *found, strict=True):
    for metric in range(num_metrics):
      wanted = slow(mixture, row, list(range(metric, 4, num_metrics)))
      np.testing.assert_allclose((surprise, attribution[metric]), wanted, rtol=1e-8, atol=1e-10)


def test_a_row_alone_scores_to_the_bit_as_among_all_and_one_without_errors_has_none():
  rows = np.random.default_rng(2).normal(size=(50, 4))
  rows[7] = np.nan
  whole = judge(mixture_of(), rows)
  assert np.isnan(whole.surprise[7])
  assert np.isnan(whole.attribution[7]).all()
  for number in (0, 8, 49):
    alone = judge(mixture_of(), rows[number : number + 1])
    assert alone.surprise[0] == whole.surprise[number]
    np.testing.assert_array_equal(alone.attribution[0], whole.attribution[number])


def test_what_is_ignored_is_integrated_out_both_errors_of_it():
  mixture, rows = mixture_of(), np.random.default_rng(3).normal(size=(20, 4))
  prior = MetricPrior(np.zeros(2), np.array([False, True]), np.zeros(2, int))
  found = judge(mixture, rows, prior)
  assert (found.attribution[:, 1] == 0).all()
  moved = rows + np.array([0, 100.0, 0, -100.0])[None, :]
  np.testing.assert_array_equal(judge(mixture, moved, prior).surprise, found.surprise)
  keep = [0, 2]
  marginal = Mixture(mixture.log_weights, mixture.means[:, keep], mixture.covariances[:, keep][:, :, keep])
  np.testing.assert_allclose(found.surprise, judge(marginal, rows[:, keep], num_metrics=1).surprise, atol=1e-9)


def test_a_departure_the_way_that_does_not_matter_is_none():
  mixture = Mixture(np.zeros(1), np.zeros((1, 4)), np.eye(4)[None])
  prior = MetricPrior(np.zeros(2), np.zeros(2, bool), np.array([UP, 0]))
  rows = np.array([[-9.0, 0, -9, 0], [9.0, 0, 9, 0], [0, -9.0, 0, -9]])
  found = judge(mixture, rows, prior)
  np.testing.assert_allclose(found.surprise, [0, 81, 81], atol=1e-9)
  np.testing.assert_allclose(found.attribution, [[0, 0], [81, 0], [0, 81]], atol=1e-9)


def follow(num_rows: int, seed: int) -> Errors:
  """Returns errors of two metrics that go wrong together, and of a third by itself; no reconstruction."""
  rng = np.random.default_rng(seed)
  shared = rng.normal(0, 0.1, num_rows)
  forecast = np.stack([shared, shared, rng.normal(0, 0.1, num_rows)], axis=1)
  forecast[:, :2] += rng.normal(0, 0.01, (num_rows, 2))
  return Errors(forecast, None, None, forecast)


def fit(errors: Errors):
  return fit_residuals(["a"], ["web"], [errors], CONFIG)[0]


def test_surprise_and_attribution_are_those_of_a_gaussian_on_standardised_errors():
  density = fit(follow(4000, 0))
  fresh = follow(50, 1)
  found = with_density(fresh, density, know_nothing(3))
  mean, covariance = density.mixture.means[0], density.mixture.covariances[0]
  scaled = fresh.forecast / density.deviations
  normal = stats.multivariate_normal(mean, covariance)
  np.testing.assert_allclose(found.surprise, normal.logpdf(mean) - normal.logpdf(scaled), atol=1e-9)
  precision = np.linalg.inv(covariance)
  z = (scaled - mean) @ precision / np.sqrt(np.diag(precision))
  np.testing.assert_allclose(found.attribution, -np.log(2 * stats.norm.sf(np.abs(z))), rtol=1e-6)
  assert np.sqrt(np.linalg.eigvalsh(covariance)[0]) >= VARIES * (1 - 1e-9)


def test_errors_that_part_company_are_seen_though_each_is_usual():
  """Two errors that always agree disagree by what is usual for each: only their joint density finds it."""
  normal, fresh = follow(4000, 0), follow(400, 1)
  forecast = fresh.forecast.copy()
  forecast[200:, 0] = np.random.default_rng(2).permutation(forecast[200:, 0])
  parted = fresh._replace(forecast=forecast, level=forecast)
  found = with_density(parted, fit(normal), know_nothing(3))
  model = fit_error_model(normal._replace(level=normal.forecast))
  plain = metric_scores(parted, model, np.zeros((400, 3), bool), ScoringRule.STANDARDISED, DetectConfig(), 1e-4)
  one_by_one = plain.sum(axis=1)
  wins = (found.surprise[200:, None] > found.surprise[None, :200]).mean()
  wins_one_by_one = (one_by_one[200:, None] > one_by_one[None, :200]).mean()
  assert wins > 0.9
  assert wins_one_by_one < 0.6
  assert found.attribution[200:].mean(axis=0).argmin() == 2


def test_a_row_alone_is_a_row_among_others_and_no_window_is_no_figure():
  density, fresh = fit(follow(2000, 0)), follow(30, 1)
  whole = with_density(fresh, density, know_nothing(3))
  one = Errors(fresh.forecast[7:8], None, None, fresh.level[7:8])
  alone = with_density(one, density, know_nothing(3))
  np.testing.assert_array_equal(alone.surprise, whole.surprise[7:8])
  np.testing.assert_array_equal(alone.attribution, whole.attribution[7:8])
  fresh.forecast[:5] = np.nan
  short = with_density(fresh, density, know_nothing(3))
  assert np.isnan(short.surprise[:5]).all()
  np.testing.assert_array_equal(short.surprise[5:], whole.surprise[5:])


def test_it_obeys_the_prior():
  density = fit(follow(2000, 0))
  row = Errors(np.array([[0.0, 0.0, -2.0]]), None, None, np.zeros((1, 3)))
  assert with_density(row, density, know_nothing(3)).surprise[0] > 100
  third = np.arange(3) == 2
  for prior in (
    know_nothing(3)._replace(is_ignored=third),
    know_nothing(3)._replace(direction=np.where(third, UP, 0)),
    know_nothing(3)._replace(floor=np.where(third, 2.0, 0.0)),
  ):
    assert with_density(row, density, prior).surprise[0] < 3


def test_a_machine_without_validation_errors_is_named():
  errors = follow(10, 0)
  errors.forecast[:] = np.nan
  with pytest.raises(ValueError, match=r"machine a: rule density: not one row of the validation part"):
    fit(errors)


@pytest.mark.slow
def test_the_commands_find_the_fault_and_name_its_metric(tmp_path):
  fleet = fleets.write_fleet(tmp_path / "fleet")
  run = tmp_path / "run"
  small = ("--config.train.num_train_steps=100", "--config.roles.components=(1,)", "--config.roles.search_rows=200")
  short = "--config.detect.smoothed_minutes=(1,4)"
  succeeded(run_here("train.py", *TINY, *small, short, f"--source={fleet}", f"--workdir={run}"))
  succeeded(run_here("calibrate.py", f"--workdir={run}", "--rule=density"))
  content = json.loads((run / "calibration.json").read_text())
  assert len(content["residual_mixtures"]) == 2  # one a role
  assert {entry["residual"]["mixture"] for entry in content["machines"].values()} == {0, 1}
  succeeded(run_here("score.py", f"--workdir={run}"))
  table = of_machine(read_table(run / "scores.parquet"), "web-1")
  np.testing.assert_array_equal(table["score"], table["score_density"])
  assert table["is_anomaly"][LABELLED].any()
  events = pq.read_table(run / "events.parquet").to_pylist()
  hits = [e for e in events if e["machine"] == "web-1" and e["start_row"] <= LABELLED.start + 3 <= e["end_row"]]
  assert hits
  assert hits[0]["contributors"][0]["metric"] == "cpu"

  damaged = shutil.copytree(run, tmp_path / "damaged")
  del content["residual_mixtures"][0]["means"]
  (damaged / "calibration.json").write_text(json.dumps(content))
  refused(run_here("score.py", f"--workdir={damaged}"), 1, "calibration.json: field 'residual_mixtures': 'means'")
