"""The library's objects: equal to the commands, kept and found again; arrays, frames, fleets; errors."""

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pyarrow as pa
import pytest
import tiny
from etils import epath
from fleets import of_machine, read_table, run_here, succeeded

from mtad_jax import MTADGAT, RoleMixture, load
from mtad_jax.config_presets import mixture_settings, network_settings
from mtad_jax.data.table import read_table as read_table_file
from mtad_jax.library.frames import read_machines, read_series
from mtad_jax.library.rows import RowScores, complete, probabilities
from mtad_jax.library.settings import build_config, to_settings, with_short_window

SMALL = {
  "model": {name: size for name, size in tiny.MODEL.items() if name != "window_size"},
  "train": {"num_train_steps": 60, "batch_size": 16, "validate_every_steps": 20},
}
METRICS = ("cpu", "latency", "memory")
FAULT = slice(120, 126)


def small_network(**arguments: Any) -> MTADGAT:
  return MTADGAT(window_size=fleets.WINDOW, window_budget=0, settings=SMALL, **arguments)


def rows(num: int, seed: int) -> np.ndarray:
  return fleets.series(METRICS, num, seed)


def with_fault(values: np.ndarray, kind: str) -> np.ndarray:
  """Returns the rows with one metric far off in `FAULT`."""
  changed = values.copy()
  changed[FAULT, 1] += 80 if kind == "shift" else np.where(np.arange(6) == 0, 120, 0)
  return changed


@pytest.fixture(scope="module")
def network() -> MTADGAT:
  return small_network().fit(rows(400, 0))


@pytest.fixture(scope="module")
def mixture() -> RoleMixture:
  fleet = {name: rows(300, seed) for seed, name in enumerate(("web-1", "web-2"))}
  return RoleMixture(components=(1, 2), roles={"web-1": "web", "web-2": "web", "web-9": "web"}).fit(fleet)


def write_test(root: Path, fleet: dict[str, np.ndarray]) -> Path:
  for name, values in fleet.items():
    (root / "test").mkdir(parents=True, exist_ok=True)
    np.save(root / "test" / f"{name}.npy", values)
  return root


def test_the_package_itself_brings_no_jax() -> None:
  told = "import sys, mtad_jax; assert 'jax' not in sys.modules; assert 'MTADGAT' in dir(mtad_jax)"
  subprocess.run([sys.executable, "-c", told], check=True, timeout=60)
  with pytest.raises(ImportError, match="MTADGATT"):
    from mtad_jax import MTADGATT  # type: ignore[attr-defined]  # noqa: F401


def test_scores_are_those_of_score_py(network: MTADGAT, mixture: RoleMixture, tmp_path: Path) -> None:
  for number, (detector, fleet) in enumerate(
    [(network, {"series": rows(200, 5)}), (mixture, {"web-2": rows(150, 6), "web-1": rows(200, 7)})]
  ):
    source = write_test(tmp_path / f"new{number}", fleet)
    detector.save(tmp_path / f"run{number}")
    succeeded(run_here("score.py", f"--workdir={tmp_path / f'run{number}'}", f"--source={source}"))
    table = read_table(tmp_path / f"run{number}" / "scores" / f"new{number}" / "scores.parquet")
    found = detector.score_rows(fleet)
    assert list(found) == list(fleet)
    for name, own in found.items():
      there = of_machine(table, name)
      np.testing.assert_array_equal(own.valid, there["valid"])
      np.testing.assert_array_equal(own.score[own.valid], there["score"][own.valid])
      np.testing.assert_array_equal(own.is_anomaly, there["is_anomaly"])
      assert np.isfinite(own.score).all()
      assert (own.score[: np.argmax(own.valid)] == own.score[np.argmax(own.valid)]).all()
    events = read_table(tmp_path / f"run{number}" / "scores" / f"new{number}" / "events.parquet")
    explained = [one for each in detector.explain(fleet).values() for one in each]
    assert sorted(one.event.event_id for one in explained) == sorted(events.get("event_id", []))


def test_a_run_of_train_py_is_opened(tmp_path: Path) -> None:
  fleet = fleets.write_fleet(tmp_path / "fleet", ("web-1", "web-2"))
  config = f"--config={fleets.ROOT / 'configs' / 'role_gmm.py'}"
  succeeded(run_here("train.py", config, f"--source={fleet}", f"--workdir={tmp_path / 'run'}"))
  succeeded(run_here("score.py", f"--workdir={tmp_path / 'run'}"))
  scores = of_machine(read_table(tmp_path / "run" / "scores.parquet"), "web-2")
  detector = load(tmp_path / "run")
  assert type(detector) is RoleMixture
  with pytest.raises(AttributeError, match=r"no decision_scores_: .*score\.py --split=train"):
    _ = detector.decision_scores_
  read = read_table_file(epath.Path(fleet) / "test" / "web-2.csv")
  columns = dict(zip(fleets.WEB, read.series.values.T, strict=True))
  frame = pa.table({"memory": columns.pop("memory"), "timestamp": read.series.timestamps, **columns})
  own = detector.score_rows({"web-2": frame})["web-2"]
  np.testing.assert_array_equal(own.score[own.valid], scores["score"][scores["valid"]])
  np.testing.assert_array_equal(detector.feature_names_in_["web-1"], list(fleets.WEB))


@pytest.mark.parametrize("kind", ["spike", "shift"])
def test_faults_stand_out_and_are_explained(network: MTADGAT, kind: str) -> None:
  clean = rows(240, 3)
  normal, faulty = network.decision_function(clean), network.decision_function(with_fault(clean, kind))
  assert len(np.unique(normal)) > 200
  assert faulty[FAULT].max() > normal.max()
  assert faulty[FAULT].max() > network.threshold_
  np.testing.assert_array_equal(faulty[:120], normal[:120])
  events = [one for one in network.explain(with_fault(clean, kind)) if one.event.start_row in range(115, 127)]
  assert events[0].event.contributors[0][0] == "metric_1"
  assert sum(share for _, share in events[0].event.contributors) == pytest.approx(1)
  np.testing.assert_allclose(events[0].actual[:, 1], with_fault(clean, kind)[events[0].rows, 1])


def test_the_protocol(network: MTADGAT) -> None:
  train = rows(400, 0)
  assert network.decision_scores_.shape == network.labels_.shape == (400,)
  np.testing.assert_allclose(network.decision_scores_, network.decision_function(train), rtol=1e-6)
  np.testing.assert_array_equal(network.labels_, network.predict(train))
  assert network.n_features_in_ == 3
  assert not hasattr(network, "feature_names_in_")
  two = network.predict_proba(with_fault(train, "shift"))
  np.testing.assert_allclose(two.sum(axis=1), 1)
  np.testing.assert_array_equal(two[:, 1] > 0.5, network.predict(with_fault(train, "shift")) == 1)


def test_saved_pickled_and_copied_it_scores_the_same(network: MTADGAT, tmp_path: Path) -> None:
  new, path = rows(100, 8), tmp_path / "kept"
  wanted = network.decision_function(new)
  network.save(path)
  for other in (load(path), pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
    np.testing.assert_array_equal(other.decision_function(new), wanted)
    np.testing.assert_array_equal(other.decision_scores_, network.decision_scores_)
    assert other.threshold_ == network.threshold_
  assert pickle.loads(pickle.dumps(network)).get_params() == network.get_params()
  assert load(path).make_config().model == network.make_config().model
  with pytest.raises(ValueError, match="kept: is there already"):
    network.save(path)
  assert [other.name for other in tmp_path.iterdir()] == ["kept"]
  assert not any("pickle" in name or name.endswith(".pkl") for name in fleets.files_of(path))


def test_its_folder_goes_with_it() -> None:
  detector = RoleMixture(components=1).fit(rows(60, 0))
  folder = Path(detector.workdir_)
  assert (folder / "calibration.json").exists()
  detector.fit(rows(70, 1))
  assert not folder.exists()
  folder = Path(detector.workdir_)
  del detector
  assert not folder.exists()


def test_a_given_folder_is_taken_up_again_by_the_same_rows_alone(tmp_path: Path) -> None:
  train = rows(60, 0)
  first = RoleMixture(components=1, workdir=tmp_path / "run").fit(train)
  run_id = (tmp_path / "run" / "run.json").read_text()
  again = RoleMixture(components=1, workdir=tmp_path / "run").fit(train)
  assert (tmp_path / "run" / "run.json").read_text() == run_id
  np.testing.assert_array_equal(first.decision_scores_, again.decision_scores_)
  with pytest.raises(ValueError, match="training data differ"):
    RoleMixture(components=1, workdir=tmp_path / "run").fit(rows(60, 1))


def test_a_machine_without_a_model_is_scored_by_its_role(mixture: RoleMixture) -> None:
  with pytest.warns(UserWarning, match="machine web-9: no model of its own; scored by the mixture of role web"):
    found = mixture.score_rows({"web-9": rows(50, 11)})
  assert np.isfinite(found["web-9"].score).all()


def test_a_short_series_cuts_the_window() -> None:
  machines = read_machines(rows(24, 0), None)
  with pytest.warns(UserWarning, match="50 is cut to 6, a quarter of the 24 training rows of machine series"):
    config = with_short_window(MTADGAT().make_config(), machines)
  assert config.model.window_size == 6
  with pytest.warns(UserWarning, match="12 training rows leave one to calibrate on"):
    with_short_window(RoleMixture().make_config(), read_machines(rows(12, 0), None))
  with pytest.raises(ValueError, match=r"series: 9 training rows \(n_samples=9\); at least 10 rows are needed"):
    MTADGAT().fit(rows(9, 0))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert with_short_window(MTADGAT().make_config(), read_machines(rows(200, 0), None)).model.window_size == 50


def test_arguments_are_kept_as_given_and_checked_by_fit() -> None:
  detector = MTADGAT(pot_q=np.float64(0.01), attention="gatv2", settings={"detect": {"rule": "density"}})
  assert type(detector)(**detector.get_params()).get_params() == detector.get_params()
  assert repr(detector).startswith("MTADGAT(attention='gatv2', pot_q=")
  config = detector.make_config()
  assert (config.detect.pot_q, config.detect.rule.value, config.model.window_size) == (0.01, "density", 50)
  assert detector.set_params(size="").make_config().model.window_size == 100
  for arguments, message in (
    ({"settings": {"train": {"num_steps": 3}}}, r"config\.train\.num_steps: unknown setting"),
    ({"settings": {"trian": 1}}, r"config\.trian"),
    ({"window_size": 1}, r"config\.model\.window_size: 1 is out of range"),
    ({"pot_q": 0.1, "settings": {"detect": {"pot_q": 0.2}}}, r"config\.detect\.pot_q: given as an argument"),
    ({"size": "huge"}, "'huge' is no size"),
    ({"settings": {"model": {"detector": "role_mixture"}}}, "'role_mixture' is not MTADGAT's"),
  ):
    with pytest.raises(ValueError, match=message):
      MTADGAT(**arguments).fit(rows(60, 0))
  with pytest.raises(ValueError, match="MTADGAT: unknown argument 'windows'; known: size, window_size"):
    detector.set_params(windows=3)


@pytest.mark.parametrize("preset", [network_settings("cpu"), mixture_settings()])
def test_settings_round_trip(preset: dict) -> None:
  changed = build_config(preset, {"detect.pot_q": 0.02, "data.exclude": ("*:0-3",)}, {"train": {"batch_size": 8}})
  assert build_config(preset, {}, to_settings(changed, preset)) == changed
  assert to_settings(build_config(preset, {}, None), preset) == {}


def test_rows_that_cannot_be_scored_say_why(network: MTADGAT, mixture: RoleMixture) -> None:
  infinite = rows(50, 0)
  infinite[7, 2] = np.inf
  for detector, data, message in (
    (network, infinite, r"^X: row 7, column 'column 3': infinite"),
    (network, rows(8, 0), r"machine series: none of 8 rows has a score; .* at least 9 rows"),
    (network, rows(50, 0)[:, :2], "machine series: 2 unnamed columns, training had 3 metrics"),
    (network, np.zeros((2, 3, 4)), r"an array of shape \(2, 3, 4\)"),
    (network, [["a"]], "numbers are wanted"),
    (mixture, rows(50, 0), r"2 machines were fitted \(web-1, web-2\); give \{machine: rows\}"),
    (mixture, {"web-1": infinite}, r"^X, machine 'web-1': row 7"),
    (network, {"db": rows(50, 0)}, "machine 'db' has no model"),
    (mixture, {}, "a fleet without machines"),
    (mixture, {3: rows(50, 0)}, "3 is no machine's name"),
    (RoleMixture(), rows(50, 0), "RoleMixture is not fitted yet"),
  ):
    with pytest.raises(ValueError, match=message):
      detector.decision_function(data)
  with pytest.raises(AttributeError, match="MTADGAT has no threshold_: it is not fitted yet"):
    _ = MTADGAT().threshold_
  with pytest.raises(ValueError, match="is nowhere a work directory"):
    load("nowhere")


def test_missing_values_are_filled_and_rows_of_nothing_carry_a_score(mixture: RoleMixture) -> None:
  holed = rows(200, 9)
  holed[60:80] = np.nan
  found = mixture.score_rows({"web-1": holed})["web-1"]
  assert not found.valid[66:79].any()
  assert (found.score[66:79] == found.score[np.flatnonzero(found.valid[:79])[-1]]).all()
  assert not found.is_anomaly[~found.valid].any()


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


class Indexed:
  """A frame as pandas gives itself: to Arrow, with an index of times beside it."""

  def __init__(self, table: pa.Table, index: np.ndarray):
    self.table, self.index = table, np.rec.array(index) if index.dtype.kind == "V" else _Index(index)
    self.columns = table.column_names

  def reset_index(self, drop: bool) -> "Indexed":
    return self

  def __arrow_c_stream__(self, requested: Any = None) -> Any:
    return self.table.__arrow_c_stream__(requested)


class _Index:
  def __init__(self, values: np.ndarray):
    self.values, self.dtype = values, values.dtype


def test_frames_give_names_times_and_missing_values() -> None:
  times = fleets.minutes(3)
  table = pa.table({"a": [1, None, 3], "timestamp": times, "b": [0.5, 1.5, float("nan")]})
  found = read_series(table, "X")
  assert found.metrics == ("a", "b")
  np.testing.assert_array_equal(found.series.values, [[1, 0.5], [np.nan, 1.5], [3, np.nan]])
  np.testing.assert_array_equal(found.series.timestamps, times)
  by_index = read_series(Indexed(table.drop_columns(["timestamp"]), times), "X")
  np.testing.assert_array_equal(by_index.series.timestamps, times)
  with pytest.raises(ValueError, match="X: row 1: the index has no time"):
    read_series(Indexed(table.drop_columns(["timestamp"]), np.array([times[0], "NaT", times[2]], times.dtype)), "X")
  with pytest.warns(UserWarning, match="column 'label' is left out"):
    assert read_series(pa.table({"a": [1.0], "label": [1]}), "X").metrics == ("a",)
  with pytest.raises(ValueError, match=r"X: column 'a' holds string; numbers are wanted"):
    read_series(pa.table({"a": ["1"]}), "X")
  assert read_series([1, 2, 3], "X").series.values.shape == (3, 1)
