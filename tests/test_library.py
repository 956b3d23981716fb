"""The detectors as objects: what train.py and score.py do, in memory; every kind of frame; kept and loaded again."""

import contextlib
import copy
import gc
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fleets import LABELLED, TINY, run_here, series, succeeded, write_fleet

from mtad_jax import MTADGAT, RoleMixture, load
from mtad_jax.config_presets import linear_settings, mixture_settings, network_settings
from mtad_jax.library.frames import SINGLE, read_machines
from mtad_jax.library.rows import RowScores, complete, probabilities
from mtad_jax.library.settings import FEW_ROWS, LEAST_ROWS, build_config, to_settings

TINY_SETTINGS = {
  "model": {"kernel_size": 3, "hidden_size": 8, "forecast_size": 8, "decoder_size": 8, "latent_size": 4},
  "train": {
    "num_train_steps": 200,
    "batch_size": 16,
    "validate_every_steps": 20,
    "checkpoint_every_steps": 50,
    "log_every_steps": 5,
    "max_dispatch_s": 0.01,
  },
}
METRICS = ("cpu", "latency", "memory")
FAULT_ROW = 120


def network(**arguments: Any) -> MTADGAT:
  return MTADGAT(**{"window_size": 8, "window_budget": 0, "settings": TINY_SETTINGS, **arguments})


def rows(num_rows: int, seed: int = 0, first: int = 0) -> np.ndarray:
  return series(METRICS, num_rows, seed, first)


def faulty() -> np.ndarray:
  values = rows(240, seed=1, first=600)
  values[FAULT_ROW, 1] += 200
  return values


@pytest.fixture(scope="module")
def mixture() -> RoleMixture:
  return RoleMixture(components=(1, 2), settings={"data": {"clean": False}}).fit(rows(600))


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
  """A fleet folder and the work directory that train.py and score.py made of it."""
  root = tmp_path_factory.mktemp("library")
  folder = write_fleet(root / "fleet")
  workdir = root / "run"
  succeeded(run_here("train.py", *TINY, f"--source={folder}", f"--workdir={workdir}"))
  succeeded(run_here("score.py", f"--workdir={workdir}"))
  return folder, workdir


def frames_of(folder: Path, split: str) -> dict[str, pd.DataFrame]:
  return {path.stem: pd.read_csv(path) for path in sorted((folder / split).glob("*.csv"))}


def test_a_fit_is_what_train_py_makes_and_a_score_what_score_py_writes(by_command: tuple[Path, Path]) -> None:
  folder, workdir = by_command
  train = frames_of(folder, "train")
  roles = {name: name.split("-")[0] for name in train}
  detector = network(roles=roles).fit(train)
  trained = json.loads((workdir / "calibration.json").read_text())["machines"]
  assert detector.threshold_ == {name: trained[name]["pot"]["threshold"] for name in train}
  with pytest.warns(UserWarning, match="'is_anomaly' is left out: labels are neither trained on nor scored"):
    scored = detector.score_rows(frames_of(folder, "test"))
  table = pq.read_table(workdir / "scores.parquet").to_pandas()
  assert set(scored) == set(train)
  for name, own in scored.items():
    written = table[table["machine"] == name]
    valid = written["valid"].to_numpy()
    assert np.array_equal(own.valid, valid)
    assert 0 < valid.sum() < len(valid)
    assert np.array_equal(own.score[valid], written["score"].to_numpy()[valid])
    assert np.array_equal(own.is_anomaly, written["is_anomaly"].to_numpy())
    assert own.ratio[LABELLED].max() > 1
    assert LABELLED.start <= int(np.argmax(own.score)) < LABELLED.stop + 64  # the longest mean is over 64 minutes
    first = int(np.argmax(valid))
    assert np.array_equal(own.score[:first], np.full(first, own.score[first]))
  assert detector.decision_scores_.keys() == train.keys()
  assert all(len(detector.labels_[name]) == len(train[name]) for name in train)
  again = load(workdir)
  assert type(again) is MTADGAT
  with pytest.warns(UserWarning, match="left out"):
    loaded = again.decision_function(frames_of(folder, "test"))
  assert all(np.array_equal(loaded[name], scored[name].score) for name in train)
  with pytest.raises(AttributeError, match=r"has no labels_: .* does not have it; score.py --split=train writes"):
    _ = again.labels_


def test_scores_vary_and_a_fault_stands_above_all(mixture: RoleMixture) -> None:
  values = faulty()
  score, labels, share = mixture.decision_function(values), mixture.predict(values), mixture.predict_proba(values)
  assert score.shape == labels.shape == (240,)
  assert np.isfinite(score).all()
  assert len(np.unique(score)) > 200
  assert int(np.argmax(score)) == FAULT_ROW
  assert labels[FAULT_ROW] == 1
  assert labels[:FAULT_ROW].mean() < 0.05
  assert np.array_equal(labels, (score > mixture.threshold_).astype(int))
  assert np.allclose(share.sum(axis=1), 1)
  assert np.array_equal(np.argsort(share[:, 1], kind="stable"), np.argsort(np.maximum(score, 0), kind="stable"))
  assert np.array_equal(share[:, 1] > 0.5, labels == 1)
  event = next(e for e in mixture.explain(values) if e.event.start_row <= FAULT_ROW < e.event.end_row)
  assert event.event.contributors[0][0] == "metric_1"
  assert sum(part for _, part in event.event.contributors) == pytest.approx(1)
  assert event.cause_set is not None
  assert event.cause_set[0] == "metric_1"
  place = int(np.flatnonzero(event.rows == FAULT_ROW)[0])
  assert event.actual[place, 1] == values[FAULT_ROW, 1] > event.expected_high[place, 1]


def test_what_was_learnt_is_of_the_training_rows(mixture: RoleMixture) -> None:
  assert np.array_equal(mixture.decision_scores_, mixture.decision_function(rows(600)))
  assert np.array_equal(mixture.labels_, mixture.predict(rows(600)))
  assert mixture.n_features_in_ == 3
  with pytest.raises(AttributeError, match="feature_names_in_"):
    _ = mixture.feature_names_in_
  again = RoleMixture(components=1)
  assert np.array_equal(again.fit_predict(rows(300)), again.labels_)


def test_a_machine_that_was_not_fitted_is_scored_by_its_role() -> None:
  fleet = {f"web-{i}": pd.DataFrame(rows(400, seed=i), columns=METRICS) for i in range(3)}
  roles = dict.fromkeys([*fleet, "web-9"], "web")
  detector = RoleMixture(components=1, roles=roles).fit(fleet)
  assert {name: tuple(names) for name, names in detector.feature_names_in_.items()} == dict.fromkeys(fleet, METRICS)
  new = {"web-9": pd.DataFrame(faulty(), columns=METRICS)}
  with pytest.warns(UserWarning, match="machine web-9: no model of its own; scored by the mixture of role web"):
    score = detector.decision_function(new)["web-9"]
  assert int(np.argmax(score)) == FAULT_ROW
  with pytest.raises(ValueError, match=r"X: 3 machines were fitted, web-0, web-1, web-2; give \{machine: rows\}"):
    detector.predict(faulty())
  with pytest.raises(ValueError, match=r"machine 'db-1'.*role"):
    detector.predict({"db-1": new["web-9"]})


def test_saved_loaded_pickled_and_copied_it_scores_the_same(mixture: RoleMixture, tmp_path: Path) -> None:
  wanted = mixture.decision_function(faulty())
  place = tmp_path / "deep" / "model"
  mixture.save(place)
  others = [load(place), pickle.loads(pickle.dumps(mixture)), copy.deepcopy(mixture)]
  for other in others:
    assert type(other) is RoleMixture
    assert np.array_equal(other.decision_function(faulty()), wanted)
    assert np.array_equal(other.decision_scores_, mixture.decision_scores_)
    assert other.make_config() == mixture.make_config()
  assert not [path for path in place.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
  with pytest.raises(ValueError, match=re.escape(f"{place}: is there already")):
    mixture.save(place)
  assert [path.name for path in place.parent.iterdir()] == ["model"]
  with pytest.raises(ValueError, match="gs://bucket/m: a local path is wanted"):
    mixture.save("gs://bucket/m")


def test_a_save_that_fails_leaves_nothing(
  mixture: RoleMixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def fail(*_: object, **__: object) -> None:
    raise OSError("no space left on device")

  monkeypatch.setattr("shutil.copytree", fail)
  with pytest.raises(OSError, match="no space"):
    mixture.save(tmp_path / "model")
  assert list(tmp_path.iterdir()) == []


def test_the_temporary_folder_goes_with_the_detector() -> None:
  detector = RoleMixture(components=1).fit(rows(200))
  first = Path(detector.workdir_)
  assert first.is_dir()
  detector.fit(rows(220))
  second = Path(detector.workdir_)
  assert second.is_dir()
  assert not first.exists()
  del detector
  gc.collect()
  assert not second.exists()


def test_a_fit_that_fails_keeps_the_detector_as_it_was(mixture: RoleMixture) -> None:
  detector = copy.deepcopy(mixture)
  with pytest.raises(ValueError, match="infinite"):
    detector.fit(np.full((300, 3), np.inf))
  assert np.array_equal(detector.decision_scores_, mixture.decision_scores_)


def test_a_given_folder_is_taken_up_again_and_refused_for_other_rows(tmp_path: Path) -> None:
  detector = RoleMixture(components=1, workdir=tmp_path / "run").fit(rows(300))
  run_id = json.loads((tmp_path / "run" / "run.json").read_text())["run_id"]
  again = RoleMixture(components=1, workdir=tmp_path / "run").fit(rows(300))
  assert json.loads((tmp_path / "run" / "run.json").read_text())["run_id"] == run_id
  assert np.array_equal(detector.decision_scores_, again.decision_scores_)
  with pytest.raises(ValueError, match=re.escape(str(tmp_path / "run"))):
    RoleMixture(components=1, workdir=tmp_path / "run").fit(rows(300, seed=5))


def as_frames(values: np.ndarray, stamps: np.ndarray) -> dict[str, Any]:
  columns = dict(zip(METRICS, values.T, strict=True))
  return {
    "pandas": pd.DataFrame({"timestamp": stamps, **columns}),
    "pandas, times in the index": pd.DataFrame(columns, index=pd.DatetimeIndex(stamps)),
    "pandas, zoned index": pd.DataFrame(columns, index=pd.DatetimeIndex(stamps, tz="UTC").tz_convert("Asia/Tokyo")),
    "pandas, time not first": pd.DataFrame({**columns, "timestamp": stamps}),
    "polars": pl.DataFrame({"timestamp": stamps, **columns}),
    "arrow": pa.table({"timestamp": stamps, **columns}),
  }


def test_every_frame_gives_the_same_machine() -> None:
  values = rows(60)
  values[7, 1] = np.nan
  stamps = np.datetime64("2026-03-01", "ms") + np.arange(60) * np.timedelta64(60_000, "ms")
  for kind, frame in as_frames(values, stamps).items():
    (machine,) = read_machines(frame, None)
    assert (machine.name, machine.metrics) == (SINGLE, METRICS), kind
    assert np.array_equal(machine.train.values, values, equal_nan=True), kind
    assert machine.train.timestamps is not None
    assert np.array_equal(machine.train.timestamps, stamps), kind
  for plain in (values, values.tolist(), pd.DataFrame(values), values.astype(object)):
    (machine,) = read_machines(plain, None)
    assert machine.metrics == ("metric_0", "metric_1", "metric_2")
    assert np.array_equal(machine.train.values, values, equal_nan=True)
    assert machine.train.timestamps is None
  for one in (values[:, 0], pd.Series(values[:, 0], name="cpu"), pl.Series("cpu", values[:, 0])):
    (machine,) = read_machines(one, None)
    assert np.array_equal(machine.train.values, values[:, :1])
  fleet = read_machines({"b-10": values, "b-9": values}, {"b-9": "db"})
  assert [(m.name, m.role) for m in fleet] == [("b-9", "db"), ("b-10", "all")]


@pytest.mark.parametrize(
  ("data", "message"),
  [
    ({}, "X: a fleet without machines"),
    ({1: np.zeros((5, 2))}, "X: 1 is no machine's name; a text is wanted"),
    ({"a": np.array([[1.0, 2.0], [3.0, np.inf]])}, "X, machine 'a': row 1, column 'column 2': infinite"),
    (pd.DataFrame({"cpu": [1.0, 2.0], "mem": [np.inf, 0]}), "X: row 0, column 'mem': infinite"),
    (np.zeros((3, 2, 2)), r"X: an array of shape \(3, 2, 2\); \[time, metric\] or \[time\] is wanted"),
    (np.array([["a", "b"]]), "X: an array of type <U1; numbers are wanted"),
    (np.array([["a"], [None]], object), "X: no array of numbers"),
    (pd.DataFrame({"cpu": ["low", "high"]}), "X: column 'cpu' holds .*string; numbers are wanted"),
    (np.zeros((0, 3)), "X: no rows; at least one is wanted"),
    (pd.DataFrame({"cpu": [1.0, 2.0]}, index=pd.DatetimeIndex(["2026-01-02", "2026-01-01"])), "X: row 1"),
    (pd.DataFrame({"cpu": [1.0, 2.0]}, index=pd.DatetimeIndex(["2026-01-02", pd.NaT])), "X: row 1: the index has no"),
  ],
)
def test_what_is_no_series_is_refused_in_one_line(data: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as error:
    read_machines(data, None)
  assert "\n" not in str(error.value)


def test_columns_are_found_by_name_and_others_refused() -> None:
  train = pd.DataFrame(rows(300), columns=METRICS)
  detector = RoleMixture(components=1).fit(train)
  test = pd.DataFrame(faulty(), columns=METRICS)
  wanted = detector.decision_function(test)
  assert np.array_equal(detector.decision_function(test[["memory", "cpu", "latency"]]), wanted)
  assert np.array_equal(detector.decision_function(pl.from_pandas(test)), wanted)
  with pytest.raises(ValueError, match="latency"):
    detector.decision_function(test[["memory", "cpu"]])
  with pytest.raises(ValueError, match="swap"):
    detector.decision_function(test.assign(swap=1.0))
  with pytest.raises(ValueError, match="2"):
    detector.decision_function(faulty()[:, :2])


def test_a_missing_value_is_no_score_of_its_own_and_no_alarm() -> None:
  detector = RoleMixture(components=1).fit(rows(300))
  values = faulty()
  values[30:40] = np.nan
  found = detector.score_rows(values)
  assert not found.valid[32:40].any()
  assert np.isfinite(found.score).all()
  assert not found.is_anomaly[32:40].any()
  assert len(set(found.score[32:40])) == 1
  with pytest.raises(ValueError, match=r"X, machine series: none of 2 rows has a score; it takes a window of 2 rows"):
    detector.predict(rows(2))


@pytest.mark.parametrize(
  "num_rows", [pytest.param(LEAST_ROWS, marks=pytest.mark.slow), 12, pytest.param(40, marks=pytest.mark.slow)]
)
def test_short_series_get_a_short_window_and_a_warning(num_rows: int) -> None:
  detector = network(window_size=None, settings={**TINY_SETTINGS, "train": {"num_train_steps": 2, "batch_size": 4}})
  told = f"window_size 50 is cut to {max(num_rows // 4, 2)}, a quarter of {num_rows} training rows"
  few = f"{num_rows} training rows leave one to calibrate on"
  with contextlib.ExitStack() as expected:
    expected.enter_context(pytest.warns(UserWarning, match=told))
    if num_rows < FEW_ROWS:
      expected.enter_context(pytest.warns(UserWarning, match=few))
    detector.fit(rows(num_rows))
  assert detector.decision_scores_.shape == (num_rows,)
  assert np.isfinite(detector.decision_scores_).all()


def test_too_short_series_are_refused() -> None:
  with pytest.raises(ValueError, match=f"machine series: 5 training rows .*; at least {LEAST_ROWS} rows are needed"):
    RoleMixture().fit(rows(5))


def test_thresholds_that_follow_the_scores_are_used_row_by_row() -> None:
  detector = RoleMixture(components=1, threshold="spot", pot_q=1e-3).fit(rows(600))
  found = detector.score_rows(faulty())
  assert len(np.unique(found.threshold[found.valid])) > 1
  assert np.array_equal(detector.predict(faulty()), ((found.score > found.threshold) & found.valid).astype(int))


def test_arguments_are_kept_as_given_and_slips_are_named() -> None:
  settings = {"detect": {"rule": "density"}}
  detector = RoleMixture(components=2, settings=settings)
  assert detector.get_params()["settings"] is settings
  assert repr(detector) == "RoleMixture(components=2, settings={'detect': {'rule': 'density'}})"
  assert detector.make_config().roles.components == (2,)
  assert detector.set_params(components=(1, 4)).make_config().roles.components == (1, 4)
  with pytest.raises(ValueError, match="RoleMixture: unknown argument 'window'; known: components, covariance"):
    detector.set_params(window=3)
  with pytest.raises(ValueError, match=r"config\.detect\.rul: unknown setting"):
    RoleMixture(settings={"detect": {"rul": "density"}}).make_config()
  with pytest.raises(ValueError, match=r"config\.detect\.pot_q: given as an argument \(0.001\) and in settings"):
    RoleMixture(pot_q=1e-3, settings={"detect": {"pot_q": 1e-3}}).make_config()
  with pytest.raises(ValueError, match=r"config\.model\.detector: 'mtad_gat' is not RoleMixture's"):
    RoleMixture(settings={"model": {"detector": "mtad_gat"}}).make_config()
  with pytest.raises(ValueError, match="'huge' is no size"):
    MTADGAT(size="huge").make_config()
  assert MTADGAT(size="").make_config().model.hidden_size == 150
  assert MTADGAT(window_size=np.int64(20)).make_config().model.window_size == 20


def test_before_fit_it_says_so(tmp_path: Path) -> None:
  with pytest.raises(ValueError, match="MTADGAT is not fitted yet"):
    MTADGAT().predict(rows(10))
  with pytest.raises(AttributeError, match="has no threshold_: it is not fitted yet"):
    _ = MTADGAT().threshold_
  assert not hasattr(MTADGAT(), "no_such_name")
  assert copy.deepcopy(MTADGAT(window_size=9)).window_size == 9
  with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
    load(tmp_path)


def test_a_prior_is_a_text_or_a_file(tmp_path: Path) -> None:
  values = rows(400)
  values[:, 2] = 50 + np.linspace(0, 1e-3, 400)  # next to constant
  test = values[:100].copy()
  test[60, 2] += 0.02
  prior = '[[metric]]\nname = "metric_2"\nvaries = 0.5\nof = "level"\n'
  place = tmp_path / "known.toml"
  place.write_text(prior)
  plain = RoleMixture(components=1).fit(values)
  assert plain.predict(test)[60] == 1
  for given in (prior, place, str(place)):
    detector = RoleMixture(components=1, prior=given).fit(values)
    assert detector.predict(test)[60] == 0
    assert (Path(detector.workdir_) / "prior.toml").read_text() == prior


@pytest.mark.parametrize("preset", [network_settings("cpu"), linear_settings(), mixture_settings()])
def test_settings_round_trip(preset: dict) -> None:
  changed = build_config(preset, {"detect.pot_q": 0.02, "data.exclude": ("*:0-3",)}, {"train": {"batch_size": 8}})
  assert build_config(preset, {}, to_settings(changed, preset)) == changed
  assert to_settings(build_config(preset, {}, None), preset) == {}


def test_rows_are_completed_and_mapped_to_shares() -> None:
  valid = np.array([False, True, True, False, True])
  score = np.array([np.nan, 2.0, 8.0, np.nan, 1.0])
  found = complete(score, np.full(5, 2.0), np.nan_to_num(score) > 2, valid, "none")
  np.testing.assert_array_equal(found.score, [2, 2, 8, 8, 1])
  np.testing.assert_array_equal(found.is_anomaly, [False, False, True, False, False])
  np.testing.assert_allclose(probabilities(found)[:, 1], [0.5, 0.5, 0.8, 0.5, 1 / 3])
  with pytest.raises(ValueError, match=r"^none$"):
    complete(score, score, valid, np.zeros(5, bool), "none")
  negative = RowScores(score - 9, score, score / 0.1 - 99, valid, np.ones(5, bool))
  assert (probabilities(negative)[[1], 1] == 0).all()
