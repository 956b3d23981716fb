"""The detector `linear`: a network's linear skip without the network, by the standard commands and as an object."""

import dataclasses
import json

import fleets
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from fleets import LABELLED, WINDOW, Trained, of_machine, read_table, refused, run_here, series, succeeded

from mtad_jax import LinearForecast, load
from mtad_jax.config_choices import Detector
from mtad_jax.model.network import apply, init_params
from mtad_jax.train.linear_fit import fit_linear_skips
from mtad_jax.train.run_length import total_steps

LINEAR = f"--config={fleets.ROOT / 'configs' / 'fleet.py'}:linear"
CONFIG = tiny.make_config(model={"detector": "linear", "run_mode": "FORECASTING", "window_size": 8})
METRICS = ("cpu", "latency", "memory")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
  return fleets.train_and_score(tmp_path_factory.mktemp("linear"), LINEAR)


def test_its_forecast_is_that_of_a_network_with_nothing_learnt():
  model = dataclasses.replace(CONFIG.model, detector=Detector.MTAD_GAT, linear_rows=CONFIG.model.window_size)
  network = dataclasses.replace(CONFIG, model=model)
  group = tiny.make_group(CONFIG, (220, 260))
  mine, theirs = fit_linear_skips(group, CONFIG, [0]), fit_linear_skips(group, network, [0])
  np.testing.assert_array_equal(mine["linear"]["kernel"], theirs["linear"]["kernel"])
  fitted = jax.tree.map(lambda x: x[0], mine)
  windows = np.stack([group.machines[0].train.values[row - 8 : row] for row in range(8, 40)])
  whole = {**init_params(jax.random.key(0), model, 3, 3), **fitted}
  wanted = apply(whole, windows, settings=model, num_targets=3)
  found = apply(fitted, windows, settings=CONFIG.model, num_targets=3)
  np.testing.assert_array_equal(found.forecast, wanted.forecast)
  assert (found.reconstruction, found.feature_attention, found.time_attention) == (None, None, None)
  assert np.ptp(np.asarray(found.forecast)) > 0.1


def test_its_parameters_are_the_regression_s_and_its_window_is_the_order():
  params = init_params(jax.random.key(0), CONFIG.model, 3, 2)
  assert jax.tree.map(np.shape, params) == {"linear": {"kernel": (24, 2), "bias": (2,)}}
  long = dataclasses.replace(CONFIG.model, window_size=30)  # linear_rows, 8, is the skip's beside a network
  assert init_params(jax.random.key(0), long, 3, 2)["linear"]["kernel"].shape == (90, 2)


@pytest.mark.parametrize("change", [{"num_train_steps": 500}, {"window_budget": 10**6}])
def test_no_budget_makes_it_take_more_than_the_one_step(change):
  train = dataclasses.replace(CONFIG.train, **change)
  assert total_steps(dataclasses.replace(CONFIG, train=train), 2) == 1


def test_training_is_fitting_and_is_not_done_twice(trained):
  assert "group 0: linear forecasts from 8 rows for 3 machines, on 1 cpu device" in trained.stdout
  again = succeeded(run_here("train.py", LINEAR, f"--source={trained.fleet}", f"--workdir={trained.workdir}"))
  assert "group 0: resumed at step 1 of 1" in again.stdout
  shown = succeeded(
    run_here("inspect_checkpoint.py", f"--workdir={trained.workdir}", "--machine=web-1")
  ).stdout
  assert "linear" in shown
  assert "gru" not in shown


def test_faults_are_found_and_their_metric_is_named_first(trained):
  table = read_table(trained.workdir / "scores.parquet")
  events = pq.read_table(trained.workdir / "events.parquet").to_pylist()
  for name in ("db-1", "web-1", "web-2"):
    rows = of_machine(table, name)
    assert rows["is_anomaly"].astype(bool)[LABELLED].any()
    assert not rows["valid"][:WINDOW].any()
    assert rows["valid"][WINDOW]
    assert set(rows["model"]) == {"linear"}
    found = [
      e for e in events if e["machine"] == name and e["start_row"] < LABELLED.stop <= e["end_row"] + 20
    ]
    assert found[0]["contributors"][0]["metric"] == "cpu"
    assert found[0]["attention_change"] is None


def test_what_follows_training_works_on_it(trained):
  workdir = f"--workdir={trained.workdir}"
  succeeded(run_here("calibrate.py", workdir, "--pot_q=0.01"))
  succeeded(run_here("score.py", workdir))
  succeeded(run_here("evaluate.py", workdir, "--floors=random,l2_norm"))
  content = json.loads((trained.workdir / "evaluation.json").read_text())
  found = {name: machine["detector"]["average_precision"] for name, machine in content["machines"].items()}
  assert min(found.values()) > 0.6, found  # random scores: 0.04
  succeeded(run_here("report.py", workdir))
  assert "linear forecasts, no network" in (trained.workdir / "report.html").read_text()


def test_the_next_run_begins_with_nothing_of_the_one_before(trained, tmp_path):
  source, following = f"--source={trained.fleet}", tmp_path / "next"
  warm = f"--warm_start={trained.workdir}"
  done = run_here("train.py", LINEAR, source, f"--workdir={following}", warm)
  refused(done, 2, "detector=linear: --warm_start gives it nothing to begin with")
  assert not following.exists()
  current = tmp_path / "current"
  current.symlink_to(trained.workdir)
  succeeded(run_here("retrain.py", f"--current={current}", f"--next={following}", source))
  assert current.resolve() == following.resolve()


def test_as_an_object(tmp_path):
  values = series(METRICS, 240, seed=1, first=600)
  values[120, 1] += 200
  detector = LinearForecast(window_size=6).fit(series(METRICS, 600, 0))
  assert int(np.argmax(detector.decision_function(values))) == 120
  assert detector.predict(values)[120] == 1
  event = next(e.event for e in detector.explain(values) if e.event.start_row <= 120 < e.event.end_row)
  assert event.contributors[0][0] == "metric_1"
  detector.save(tmp_path / "kept")
  again = load(tmp_path / "kept")
  assert type(again) is LinearForecast
  assert again.make_config() == dataclasses.replace(detector.make_config(), train=again.make_config().train)
  np.testing.assert_array_equal(again.decision_function(values), detector.decision_function(values))
  with pytest.raises(ValueError, match=r"^config\.model\.detector: 'mtad_gat' is not LinearForecast's"):
    LinearForecast(settings={"model": {"detector": "mtad_gat"}}).make_config()
