"""Scoring: what belongs to row t stands in row t, no row depends on another batch, the rules keep their laws."""

import json
import math
import re

import jax
import numpy as np
import pytest
import tiny
from scipy import stats

from mtad_jax.config import DetectConfig
from mtad_jax.config_choices import ScoringRule
from mtad_jax.data.fleet import part_rows, prepare_groups
from mtad_jax.data.machine import Series
from mtad_jax.data.preparation import apply_preparation
from mtad_jax.detect import spot
from mtad_jax.detect.calibration import (
  calibrate_blocks,
  calibrate_group,
)
from mtad_jax.detect.calibration_json import calibration_from_json, calibration_to_json
from mtad_jax.detect.combine import metric_scores, row_scores, smoothed_rows, tail_surprise
from mtad_jax.detect.errors import ErrorModel, Errors, Moments, find_errors, fit_error_model
from mtad_jax.detect.row_outputs import RowOutputs, compute_row_outputs
from mtad_jax.detect.score_machine import score_rows
from mtad_jax.explain.preview import preview_group, preview_lines
from mtad_jax.model.network import apply
from mtad_jax.train.fleet_file import StoredGroup, StoredMachine

CONFIG = tiny.make_config(detect={"min_calibration_rows": 10})
GROUP = tiny.make_group(CONFIG, (420, 460, 430))  # calibration parts above MIN_OWN_ROWS
W = CONFIG.model.window_size


@pytest.fixture(scope="module")
def params():
  return tiny.draw_params(CONFIG, GROUP)


@pytest.fixture(scope="module")
def series():
  return [machine.train.values for machine in GROUP.machines]


@pytest.fixture(scope="module")
def outputs(params, series):
  return compute_row_outputs(params, series, CONFIG, 3)


def test_forecast_and_reconstruction_of_a_row_speak_of_that_row(params, series, outputs):
  """Row t: forecast from t - W .. t - 1, reconstruction from the window that ends at t."""
  for lane, (values, output) in enumerate(zip(series, outputs, strict=True)):
    one = jax.tree.map(lambda x, lane=lane: x[lane], params)
    for t in (W, W + 1, 77, len(values) - 1):
      before = apply(one, values[None, t - W : t], settings=CONFIG.model, num_targets=3)
      ending = apply(one, values[None, t - W + 1 : t + 1], settings=CONFIG.model, num_targets=3)
      np.testing.assert_allclose(output.forecast[t], before.forecast[0], atol=1e-5)
      np.testing.assert_allclose(output.reconstruction[t], ending.reconstruction.mean[0, -1], atol=1e-5)
      np.testing.assert_allclose(output.variance[t], ending.reconstruction.variance[0, -1], rtol=1e-4)


def test_every_row_from_the_first_full_window_on_is_there_the_last_partial_batch_too(series, outputs):
  for values, output in zip(series, outputs, strict=True):
    assert output.surprise is None
    assert output.attribution is None
    for array in (output.forecast, output.reconstruction, output.variance):
      assert array.shape == values.shape
      assert np.isnan(array[:W]).all()
      assert np.isfinite(array[W:]).all()


def test_a_row_does_not_depend_on_the_rows_after_it_or_on_the_length(params, series, outputs):
  cut = [values[:100] for values in series]
  short = compute_row_outputs(params, cut, CONFIG, 3)
  for a, b in zip(short, outputs, strict=True):
    np.testing.assert_allclose(a.forecast[W:], b.forecast[W:100], atol=1e-6)
    np.testing.assert_allclose(a.reconstruction[W:], b.reconstruction[W:100], atol=1e-6)


def test_a_series_below_a_window_has_no_score_and_breaks_nobody_elses(params, series, outputs):
  short = compute_row_outputs(params, [series[0][:3], series[1], series[2][:0]], CONFIG, 3)
  assert np.isnan(short[0].forecast).all()
  assert short[2].forecast.shape == (0, 3)
  np.testing.assert_allclose(short[1].forecast[W:], outputs[1].forecast[W:], atol=1e-6)


def test_scoring_is_deterministic(params, series, outputs):
  again = compute_row_outputs(params, series, CONFIG, 3)
  for a, b in zip(again, outputs, strict=True):
    for x, y in zip(a, b, strict=True):
      np.testing.assert_array_equal(x, y)


def test_tail_surprise_is_bounded_below_monotone_and_exponential_under_the_model():
  z = np.array([0.0, 1e-3, 1.0, 8.0, 40.0, 1e4, 1e10])
  surprise = tail_surprise(z)
  assert surprise[0] == 0
  assert (np.diff(surprise) > 0).all()
  np.testing.assert_array_equal(surprise, tail_surprise(-z))
  np.testing.assert_allclose(surprise[2], -math.log(2 * stats.norm.sf(1.0)), rtol=1e-12)
  draws = tail_surprise(np.random.default_rng(0).normal(size=20_000))
  assert stats.kstest(draws, "expon").pvalue > 0.01


def some_errors(num_rows=500, seed=0):
  rng = np.random.default_rng(seed)
  scale = np.array([0.1, 1.0, 1e-6])[None, :]
  forecast = rng.normal(size=(num_rows, 3)) * scale
  return Errors(forecast, forecast[::-1] * 0.5, np.full((num_rows, 3), math.log(0.01)), forecast * 2)


def test_a_network_has_no_density():
  errors = some_errors()
  nothing = np.zeros((500, 3), bool)
  with pytest.raises(ValueError, match="rule density: there is no mixture of the role in this calibration"):
    metric_scores(errors, fit_error_model(errors), nothing, ScoringRule.DENSITY, DetectConfig(), 1e-4)


@pytest.mark.parametrize("rule", [rule for rule in ScoringRule if rule is not ScoringRule.DENSITY])
def test_scores_are_never_negative_grow_with_the_error_and_add_up(rule):
  errors = some_errors()
  model = fit_error_model(errors)
  none_filled = np.zeros((500, 3), bool)
  scores = metric_scores(errors, model, none_filled, rule, DetectConfig(), 1e-4)
  assert scores.shape == (500, 3)
  assert (scores >= 0).all()
  larger = Errors(errors.forecast * 3, errors.reconstruction * 3, errors.log_variance, errors.level * 3)
  grown = metric_scores(larger, model, none_filled, rule, DetectConfig(), 1e-4)
  # the surprise counts from the mean signed error, which an error may lie on the far side of
  assert (grown >= scores).mean() > 0.95
  settings = DetectConfig(largest_metrics=3, smoothed_minutes=(1,))
  np.testing.assert_allclose(row_scores(scores, np.arange(500), rule, settings, None), scores.sum(axis=1))


def test_smoothing_is_over_time_and_a_row_without_a_clock_is_a_minute():
  settings = DetectConfig(smoothed_minutes=(64, 1, 4, 16))
  assert smoothed_rows(settings, 60.0) == smoothed_rows(settings, None) == (1, 4, 16, 64)
  assert smoothed_rows(settings, 600.0) == (1, 2, 6)
  assert smoothed_rows(settings, 5.0) == (12, 48, 192, 768)
  assert smoothed_rows(settings, 86_400.0) == (1,)


@pytest.mark.parametrize("lengths", [(1,), (4,), (7,), (1, 4, 16, 64), (2, 13)])
def test_the_joint_score_is_the_mean_of_the_last_rows_largest_metrics(lengths):
  """Against a loop; a row that is missing is in no mean, and a row's score is the same in any series."""
  rng = np.random.default_rng(3)
  scores = rng.exponential(size=(40, 6))
  rows = np.sort(rng.choice(60, 40, replace=False)) + 1000
  settings = DetectConfig(largest_metrics=2, smoothed_minutes=lengths)
  found = row_scores(scores, rows, ScoringRule.JOINT, settings, None)
  sums = {int(row): sum(sorted(own)[-2:]) for row, own in zip(rows, scores, strict=True)}
  for row, value in zip(rows, found, strict=True):
    near = [[sums[r] for r in range(row - length + 1, row + 1) if r in sums] for length in lengths]
    np.testing.assert_allclose(value, np.mean([np.mean(values) for values in near]), rtol=1e-12)
  longest = max(lengths)
  later = row_scores(scores[10:], rows[10:], ScoringRule.JOINT, settings, None)
  whole = rows[10:] - rows[10] >= longest - 1  # the mean is over as many rows in both series
  np.testing.assert_array_equal(found[10:][whole], later[whole])
  assert row_scores(scores[:0], rows[:0], ScoringRule.JOINT, settings, None).shape == (0,)


def test_the_joint_score_of_a_metric_is_the_sum_of_its_departures():
  errors = Errors(np.full((1, 1), 0.5), np.full((1, 1), -0.4), np.zeros((1, 1)), np.full((1, 1), 0.05))
  one, tenth = np.ones(1), np.full(1, 0.1)
  moments = Moments(one, one, tenth, np.full(1, 1e-3))  # a deviation below the floor
  model = ErrorModel(moments, moments._replace(absolute_deviation=tenth), moments)
  settings = DetectConfig(error_floor=0.01)
  found = metric_scores(errors, model, np.zeros((1, 1), bool), ScoringRule.JOINT, settings, 1e-4)
  np.testing.assert_allclose(found[0, 0], 0.4 / 0.01 + 0.3 / 0.1 + 0)  # 0.05 is usual


@pytest.mark.parametrize(("limit", "counted"), [(0.0, 0.0), (5.0, 5.0), (10.0, 10.0), (100.0, 40.0)])
def test_a_level_that_has_moved_counts_up_to_the_limit_and_the_other_errors_in_full(limit, counted):
  away = np.full((1, 1), 0.5)  # 40 deviations of 0.01 above what is usual
  one, tenth, hundredth = np.ones(1), np.full(1, 0.1), np.full(1, 0.01)
  model = ErrorModel(*(Moments(one, one, tenth, hundredth) for _ in range(3)))
  settings = DetectConfig(level_limit=limit)
  nothing = np.zeros((1, 1), bool)
  found = metric_scores(
    Errors(away, away, np.zeros((1, 1)), away), model, nothing, ScoringRule.JOINT, settings, 1e-4
  )
  np.testing.assert_allclose(found[0, 0], 40 + 40 + counted)
  alone = metric_scores(Errors(None, None, None, away), model, nothing, ScoringRule.JOINT, settings, 1e-4)
  np.testing.assert_allclose(alone[0, 0], counted)


@pytest.mark.parametrize("rule", [ScoringRule.JOINT, ScoringRule.STANDARDISED])
def test_each_metric_is_measured_against_its_own_errors(rule):
  """Metrics whose errors differ tenfold in size weigh alike; below the floor they weigh less."""
  errors = some_errors()
  model = fit_error_model(errors)
  scores = metric_scores(errors, model, np.zeros((500, 3), bool), rule, DetectConfig(), 1e-4)
  means = scores.mean(axis=0)
  np.testing.assert_allclose(means[0], means[1], rtol=0.15)
  assert means[2] < 0.02 * means[0]


def test_gamma_weighs_forecast_and_reconstruction_as_the_paper_does():
  errors = Errors(
    np.full((1, 1), 0.5), np.full((1, 1), 0.2), np.full((1, 1), math.log(0.04)), np.zeros((1, 1))
  )
  one = np.ones(1)
  model = ErrorModel(*(Moments(one, one, one, one) for _ in range(3)))
  found = metric_scores(errors, model, np.zeros((1, 1), bool), ScoringRule.GAMMA, DetectConfig(gamma=0.8), 1e-4)
  density, highest = stats.norm.pdf(0.2, scale=0.2), stats.norm.pdf(0, scale=0.01)
  expected = (0.25 + 0.8 * -math.log(density / highest)) / 1.8
  np.testing.assert_allclose(found[0, 0], expected, rtol=1e-12)


def test_a_filled_value_accuses_nobody():
  errors = some_errors()
  filled = np.zeros((500, 3), bool)
  filled[7, 1] = True
  scores = metric_scores(errors, fit_error_model(errors), filled, ScoringRule.RAW, DetectConfig(), 1e-4)
  assert scores[7, 1] == 0
  assert scores[7, 0] > 0


def test_error_moments_against_numpy():
  errors = some_errors()
  found = fit_error_model(errors).forecast
  np.testing.assert_allclose(found.mean, np.mean(errors.forecast, axis=0))
  np.testing.assert_allclose(found.absolute_deviation, np.std(np.abs(errors.forecast), axis=0))
  with pytest.raises(ValueError, match="no calibration rows"):
    fit_error_model(Errors(np.zeros((0, 3)), None, None, np.zeros((0, 3))))
  with pytest.raises(ValueError, match="1 calibration rows have no finite error"):
    fit_error_model(Errors(np.array([[1.0, np.nan], [1.0, 2.0]]), None, None, np.zeros((2, 2))))


def test_calibration_reads_the_calibration_part_and_the_fit_part_s_means_and_nothing_else(params):
  """Changing any row of the validation and check parts leaves the calibration as it was."""
  found = calibrate_group(GROUP, params, CONFIG)
  machine = GROUP.machines[0]
  first, end = machine.parts.calibration
  values = machine.train.values.copy()
  fit_end = machine.parts.fit[1]
  assert fit_end < machine.parts.validation[1] < first - W + 1
  values[fit_end : first - W] += 5.0
  values[machine.parts.check[0] - W :] = np.clip(values[machine.parts.check[0] - W :] + 5, -4, 5)
  assert end <= machine.parts.check[0] - W
  changed = machine._replace(train=machine.train._replace(values=values))
  again = calibrate_group(GROUP._replace(machines=(changed, *GROUP.machines[1:])), params, CONFIG)
  name = machine.name
  assert again[name].threshold == found[name].threshold
  np.testing.assert_array_equal(again[name].usual, found[name].usual)
  assert again[name].check != found[name].check


def test_alarms_a_week_are_promised_in_place_of_a_share_of_rows(params):
  config = tiny.make_config(
    data={"sampling_step_s": 3600.0}, detect={"min_calibration_rows": 10, "alarms_per_week": 3.0}
  )
  tried = {}
  found = calibrate_blocks([(GROUP, params)], config, tried)
  for name, entry in found.items():
    pot = entry.pot
    assert pot.expected_alarms_per_week == pytest.approx(3.0)
    assert pot.q == pytest.approx(3.0 / 168 * pot.num_excesses / pot.num_clusters)
    assert entry.check.promised_alarms == pytest.approx(3.0 / 168 * entry.check.num_rows)
    own = tried[name]
    assert own.is_check.sum() == entry.check.num_rows
    assert int(np.sum(own.scores[own.is_check] > entry.threshold)) == entry.check.num_alarm_rows
  with pytest.raises(ValueError, match=r"machine machine-0: config.detect.alarms_per_week needs a clock"):
    calibrate_group(GROUP, params, tiny.make_config(detect={"alarms_per_week": 3.0}))


def test_a_preview_names_the_events_of_the_last_week_of_held_out_rows(params):
  """Two faults in the week's rows, one of them excluded, and one before it, which is not told."""
  config = tiny.make_config(data={"sampling_step_s": 21_600.0}, detect={"min_calibration_rows": 10})  # 28 a week
  machines = [tiny.make_machine(f"machine-{i}", n, seed=i) for i, n in enumerate((420, 460, 430))]
  raw = {machine.name: machine.train for machine in machines}
  values = raw["machine-0"].values.copy()
  for row, metric in ((418, 2), (402, 1), (370, 0)):
    values[row, metric] += 50.0
  raw["machine-0"] = raw["machine-0"]._replace(values=values)
  tried = {}
  found = calibrate_blocks([(GROUP, params)], config, tried)
  members = tuple(StoredMachine(m.name, m.role, m.preparation, m.parts, m.notes) for m in GROUP.machines)
  stored = StoredGroup(0, GROUP.metrics, GROUP.targets, members)
  tried["machine-0"] = tried["machine-0"]._replace(
    rows=(rows := tried["machine-0"].rows[abs(tried["machine-0"].rows - 405) > 8]),
    is_check=rows >= GROUP.machines[0].parts.check[0],
  )
  previews = preview_group(stored, params, raw, found, tried, config)
  lines = preview_lines(previews[:1])
  assert lines[0] == "machine-0: 2 events in its last 7.0 held-out days"
  assert lines[-1] == "1 machines: 2 events"
  for line, row, part in zip(lines[1:-1], (402, 418), ("left out of both parts", "check part"), strict=True):
    assert re.match(rf"^  rows {row} to 4\d\d, {part}, [\d.]+ times the threshold: m\d", line), line
  assert [re.search(r"times the threshold: (m\d)", line).group(1) for line in lines[1:-1]] == ["m1", "m2"]


@pytest.mark.parametrize("threshold", ["pot", "dspot"])
def test_calibration_survives_json_to_the_bit(params, threshold):
  warned = tiny.make_config(
    data={"sampling_step_s": 3600.0}, detect={"min_calibration_rows": 10, "warning": "sensitive", "pot_q": 1e-3}
  )
  found = calibrate_group(GROUP, params, streaming_config(threshold))
  found["warned"] = calibrate_group(GROUP, params, warned)["machine-0"]
  assert found["warned"].warning.threshold < found["warned"].threshold
  assert found["machine-0"].warning is None
  for entry in found.values():
    back = calibration_from_json(json.loads(json.dumps(calibration_to_json(entry), allow_nan=False)))
    assert repr(back) == repr(entry)


def streaming_config(threshold):
  detect = {"min_calibration_rows": 10, "threshold": threshold, "pot_q": 1e-2, "level_minutes": 20}
  return tiny.make_config(detect=detect)


@pytest.mark.parametrize("threshold", ["spot", "dspot"])
def test_a_streaming_threshold_is_tried_and_scored_row_by_row(params, threshold):
  config, tried = streaming_config(threshold), {}
  found = calibrate_blocks([(GROUP, params)], config, tried)
  for name, entry in found.items():
    own, (start, settings) = tried[name], entry.streaming
    on_check = own.scores[own.is_check]
    np.testing.assert_array_equal(own.thresholds[own.is_check], spot.run(start, on_check, settings)[1])
    assert own.thresholds[own.is_check][0] == entry.threshold
    assert entry.check.num_alarm_rows == np.sum(on_check > own.thresholds[own.is_check])
  values = tiny.make_machine(GROUP.names[0], 300, seed=4).test
  result = scored(params, values, config=config)
  start, settings = found[GROUP.names[0]].streaming
  np.testing.assert_array_equal(result.threshold, spot.run(start, result.score, settings)[1])
  np.testing.assert_array_equal(result.threshold[: W + 1], found[GROUP.names[0]].threshold)
  assert np.ptp(result.threshold) > 0
  np.testing.assert_array_equal(result.ratio, result.score / result.threshold)
  np.testing.assert_array_equal(result.is_anomaly, result.valid & (result.score > result.threshold))
  # of fewer rows, what is there is the same
  part = scored(params, Series(values.values[:200]), config=config)
  np.testing.assert_array_equal(part.threshold, result.threshold[:200])


def test_thresholds_of_short_machines_are_pooled_over_the_role_and_say_so(params):
  roles = ("web", "web", "db")
  members = tuple(m._replace(role=role) for m, role in zip(GROUP.machines, roles, strict=True))
  config = tiny.make_config(detect={"min_calibration_rows": 500})
  found = list(calibrate_group(GROUP._replace(machines=members), params, config).values())
  assert found[0].threshold == found[1].threshold != found[2].threshold
  assert found[0].pot.num_rows == found[0].num_rows + found[1].num_rows
  assert found[0].pooled == "thresholds over 2 machines of role web"
  assert calibrate_group(GROUP, params, CONFIG)[GROUP.names[0]].pooled == ""


def test_a_machine_without_calibration_rows_is_named(params):
  usable = GROUP.machines[1].train.usable.copy()
  first, end = GROUP.machines[1].parts.calibration
  usable[first:end] = False
  machine = GROUP.machines[1]._replace(
    role="alone", train=GROUP.machines[1].train._replace(usable=usable)
  )
  group = GROUP._replace(machines=(GROUP.machines[0], machine, GROUP.machines[2]))
  with pytest.raises(ValueError, match=r"machine machine-1 \(role alone\): no calibration rows"):
    calibrate_group(group, params, CONFIG)


def scored(params, values, group=GROUP, config=CONFIG, context=None):
  """One machine's raw test values scored by lane 0."""
  machine = group.machines[0]
  split = apply_preparation(machine.preparation, values, config.data)
  calibration = calibrate_group(group, params, config)[machine.name]
  one = jax.tree.map(lambda x: x[:1], params)
  rows = split.values if context is None else np.concatenate([context.values[-W:], split.values])
  output = compute_row_outputs(one, [rows], config, len(group.targets))[0]
  return score_rows(split, output, group.targets, machine.preparation, calibration, config, context)


def test_a_spike_at_row_t_is_scored_at_row_t_and_its_metric_named(params):
  raw = tiny.make_machine("machine-0", 200, seed=0).test
  quiet = scored(params, raw)
  values = raw.values.copy()
  values[150, 1] += 50.0
  spiked = scored(params, raw._replace(values=values))
  np.testing.assert_allclose(spiked.score[W:150], quiet.score[W:150], atol=1e-6)  # causal
  change = spiked.score - quiet.score
  assert 150 <= np.nanargmax(change) < 150 + W
  assert change[150] > 1
  assert np.argmax(spiked.metric_scores[150]) == 1
  assert spiked.actual[150, 1] < values[150, 1]  # clipped for the network, five training ranges away
  np.testing.assert_allclose(spiked.actual[149], values[149], rtol=1e-5, atol=1e-6)


def test_rows_without_a_window_have_no_score_and_context_gives_them_one(params):
  raw = tiny.make_machine("machine-0", 200, seed=0).test
  plain = scored(params, raw)
  assert not plain.valid[:W].any()
  assert plain.valid[W:].all()
  assert np.isnan(plain.score[:W]).all()
  assert not plain.is_anomaly[:W].any()
  with_tail = scored(params, raw, context=GROUP.machines[0].train)
  assert with_tail.valid.all()
  whole = W + max(CONFIG.detect.smoothed_minutes) - 1  # from here on the means are over as many rows in both
  np.testing.assert_allclose(with_tail.score[whole:], plain.score[whole:], rtol=1e-5)
  np.testing.assert_allclose(plain.ratio[W:] > 1, plain.is_anomaly[W:])


def test_a_long_gap_has_no_score_rather_than_a_made_up_one(params):
  raw = tiny.make_machine("machine-0", 200, seed=0).test
  values = raw.values.copy()
  values[60:90] = np.nan
  found = scored(params, raw._replace(values=values))
  assert found.valid[:60][W:].all()
  assert not found.valid[66:90].any()
  assert np.isfinite(found.score[found.valid]).all()


def test_targets_alone_are_scored(params):
  config = tiny.make_config(data={"target_metrics": ("2", "m0")}, detect={"min_calibration_rows": 10})
  group = prepare_groups([tiny.make_machine("machine-0", 220, seed=0)], config)[0]
  assert group.targets == (2, 0)
  own = tiny.draw_params(config, group)
  raw = tiny.make_machine("machine-0", 220, seed=0).test
  found = scored(own, raw, group, config)
  assert found.metric_scores.shape == (220, 2)
  np.testing.assert_allclose(found.actual[W:], raw.values[W:, [2, 0]], rtol=1e-4, atol=1e-5)
  assert len(part_rows(group.machines[0], "calibration", W, config.data)) == found_rows(group, config)


def found_rows(group, config):
  first, end = group.machines[0].parts.calibration
  return end - first


@pytest.mark.parametrize("mode", ["FORECASTING", "RECONSTRUCTING"])
def test_one_sided_modes_score_with_what_they_have(mode):
  config = tiny.make_config(model={"run_mode": mode}, detect={"min_calibration_rows": 10})
  group = prepare_groups([tiny.make_machine("machine-0", 220, seed=0)], config)[0]
  own = tiny.draw_params(config, group)
  found = scored(own, tiny.make_machine("machine-0", 220, seed=0).test, group, config)
  assert np.isfinite(found.score[W:]).all()
  assert np.isnan(found.reconstruction if mode == "FORECASTING" else found.forecast).all()
  assert np.isfinite(found.expected_low[W:]).all()


def test_errors_of_a_forecast_only_output():
  output = RowOutputs(np.ones((4, 2), np.float32), None, None)
  errors = find_errors(np.full((4, 2), 3.0, np.float32), output, np.array([1.0, 5.0]))
  np.testing.assert_array_equal(errors.forecast, np.full((4, 2), 2.0))
  np.testing.assert_array_equal(errors.level, np.tile([2.0, -2.0], (4, 1)))
  assert errors.reconstruction is None
  assert errors.log_variance is None


def test_a_metric_that_never_moved_is_expected_at_its_constant_and_accused_only_when_it_leaves_it():
  raw = tiny.make_machine("machine-0", 260, seed=0)
  flat = raw.train.values.copy()
  flat[:, 1] = 4.0
  test = flat[:200].copy()
  test[150, 0] += 50.0  # another metric goes astray
  test[190, 1] = 4.4
  config = tiny.make_config(detect={"min_calibration_rows": 10})
  group = prepare_groups([raw._replace(train=raw.train._replace(values=flat))], config)[0]
  own = tiny.draw_params(config, group)
  found = scored(own, raw.test._replace(values=test), group, config)
  assert (found.forecast[W:, 1] == 4.0).all()
  assert (found.metric_scores[W:190, 1] == 0).all()
  assert found.metric_scores[150, 0] > 0
  assert np.argmax(found.metric_scores[190]) == 1
