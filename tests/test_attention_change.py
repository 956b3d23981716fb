"""The change of feature attention in events: against the slow reference, its laws, and through the tables."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import reference
import tiny

from mtad_jax.config import Config
from mtad_jax.config_choices import Attention
from mtad_jax.data.fleet import Group, part_rows
from mtad_jax.data.preparation import PreparedSplit, apply_preparation
from mtad_jax.detect.calibrate_run import read_calibration
from mtad_jax.detect.calibration import MachineCalibration, calibrate_group
from mtad_jax.detect.calibration_json import calibration_from_json, calibration_to_json
from mtad_jax.detect.feature_attention import (
  UsualAttention,
  attention_shares,
  has_attention,
  make_shares,
  usual_attention,
)
from mtad_jax.detect.row_outputs import make_forward
from mtad_jax.detect.score_machine import score_machines, with_context
from mtad_jax.detect.score_run import Judged
from mtad_jax.detect.tables import NETWORK, open_tables
from mtad_jax.explain.attention_change import MOST_CHANGED, SMALLEST_DEVIATION, attention_changes
from mtad_jax.library.score_tables import write_machine
from mtad_jax.model.network import init_params
from mtad_jax.train.mesh import make_mesh

DETECT = {"min_calibration_rows": 10, "pot_q": 0.02}
CONFIG = tiny.make_config(detect=DETECT)
GROUP = tiny.make_group(CONFIG, (420, 460, 430))
W = CONFIG.model.window_size
NUM = len(GROUP.metrics)


def config_of(attention: str) -> Config:
  return tiny.make_config(model={"attention": attention}, detect=DETECT)


def draw(config: Config, group: Group) -> Any:
  """Returns parameters [M, ...] of every kind, biases too, drawn without a program to compile."""
  rng = np.random.default_rng(5)
  sizes = len(group.metrics), len(group.targets)
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), config.model, *sizes))
  num = len(group.machines)
  return jax.tree.map(lambda leaf: rng.normal(0, 0.2, (num, *leaf.shape)).astype(np.float32), shapes)


def lane(params: Any, index: int) -> Any:
  return jax.tree.map(lambda leaf: leaf[index], params)


def alone(params: Any) -> Any:
  return jax.tree.map(lambda leaf: leaf[None], params)


def plain_shares(params: Any, values: np.ndarray, rows: np.ndarray, config: Config) -> np.ndarray:
  """Returns [R, F]: the slow reference's attention in the window that ends at each row, its columns' means."""
  exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  found = []
  for row in rows:
    window = values[row - W + 1 : row + 1].astype(np.float64)
    attention = reference.network(exact, window, None, config.model).feature_attention
    np.testing.assert_allclose(attention.sum(axis=1), 1)
    found.append([np.mean([attention[i, j] for i in range(NUM)]) for j in range(NUM)])
  return np.array(found)


@pytest.fixture(scope="module")
def params() -> Any:
  return draw(CONFIG, GROUP)


@pytest.fixture(scope="module")
def calibrations(params: Any) -> dict[str, MachineCalibration]:
  return calibrate_group(GROUP, params, CONFIG)


SERIES = [machine.train.values for machine in GROUP.machines]


@pytest.mark.parametrize("attention", ["static", "gatv2"])
def test_shares_are_those_of_the_slow_reference_and_sum_to_one(attention: str) -> None:
  config = config_of(attention)
  drawn = draw(config, GROUP)
  rows = [np.array([W - 1, W, 77, 419]), np.array([200]), np.arange(0)]  # a row of the first full window; no row
  found = attention_shares(drawn, SERIES, rows, config, NUM)
  assert [each.shape for each in found] == [(4, NUM), (1, NUM), (0, NUM)]
  for i, (each, own) in enumerate(zip(found, rows, strict=True)):
    np.testing.assert_allclose(each.sum(axis=1), 1, atol=1e-6)
    if len(own):
      np.testing.assert_allclose(each, plain_shares(lane(drawn, i), SERIES[i], own, config), atol=1e-5)
  assert np.ptp(found[0], axis=0).min() > 1e-4  # they do move


def test_a_machine_s_shares_depend_on_no_other_machine_and_no_other_row(params: Any) -> None:
  rows = [np.arange(W - 1, 420), np.arange(50, 57), np.arange(300, 400)]  # more and fewer than a batch
  whole = attention_shares(params, SERIES, rows, CONFIG, NUM)
  for i, own in enumerate(rows):
    one = attention_shares(alone(lane(params, i)), [SERIES[i]], [own[3:5]], CONFIG, NUM)[0]
    np.testing.assert_allclose(one, whole[i][3:5], atol=1e-6)
  poisoned = attention_shares(params, [np.full_like(SERIES[0], np.nan), *SERIES[1:]], rows, CONFIG, NUM)
  assert np.isnan(poisoned[0]).all()
  for before, after in zip(whole[1:], poisoned[1:], strict=True):
    np.testing.assert_array_equal(after, before)


def test_over_the_calibration_rows_the_change_has_mean_zero_and_deviation_one(
  params: Any, calibrations: dict[str, MachineCalibration]
) -> None:
  for i, machine in enumerate(GROUP.machines):
    rows, usual = part_rows(machine, "calibration", W, CONFIG.data), calibrations[machine.name].attention
    shares = attention_shares(alone(lane(params, i)), [SERIES[i]], [rows], CONFIG, NUM)[0]
    assert usual.deviation.min() > SMALLEST_DEVIATION / NUM
    changes = np.array([[dict(own)[name] for name in GROUP.metrics] for own in attention_changes(
      shares, usual, GROUP.metrics
    )])
    np.testing.assert_allclose(changes.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(changes.std(axis=0), 1, atol=1e-3)
    assert usual.mean.sum() == pytest.approx(1, abs=1e-6)


def test_machines_with_few_rows_have_the_moments_of_their_role(params: Any) -> None:
  """As their error distributions: over all rows of the role's machines, those with enough rows too."""
  usable = GROUP.machines[0].train.usable.copy()
  first, end = GROUP.machines[0].parts.calibration
  usable[first : end - 20] = False
  short = GROUP.machines[0]._replace(train=GROUP.machines[0].train._replace(usable=usable))
  members = (short, GROUP.machines[1], GROUP.machines[2]._replace(role="db"))
  group = GROUP._replace(machines=members)
  found = calibrate_group(group, params, CONFIG)
  rows = [part_rows(machine, "calibration", W, CONFIG.data) for machine in members]
  assert 0 < len(rows[0]) < 30 < len(rows[1])
  shares = [
    plain_shares(lane(params, i), SERIES[i], rows[i], CONFIG) for i in (0, 1)
  ]
  for name, own in ((members[0].name, np.concatenate(shares)), (members[1].name, shares[1])):
    np.testing.assert_allclose(found[name].attention.mean, own.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found[name].attention.deviation, own.std(axis=0), atol=1e-5)
  assert "error distributions over 2 machines of role web" in found[members[0].name].pooled


def test_only_the_calibration_part_is_read(params: Any, calibrations: dict[str, MachineCalibration]) -> None:
  machine = GROUP.machines[0]
  first, end = machine.parts.calibration
  values = machine.train.values.copy()
  values[: first - W + 1] = 0.5
  values[end:] = 0.5
  changed = machine._replace(train=machine.train._replace(values=values))
  again = calibrate_group(GROUP._replace(machines=(changed, *GROUP.machines[1:])), params, CONFIG)
  for mine, before in zip(again[machine.name].attention, calibrations[machine.name].attention, strict=True):
    np.testing.assert_array_equal(mine, before)


@pytest.mark.parametrize("change", [{"attention": "none"}, {"detector": "role_mixture"}])
def test_a_model_without_attention_has_no_shares(change: dict[str, str]) -> None:
  assert has_attention(CONFIG)
  assert not has_attention(tiny.make_config(model=change))


def test_a_network_without_attention_has_no_moments_and_a_null_in_every_event(tmp_path: Path) -> None:
  config = config_of(Attention.NONE.value)
  drawn = draw(config, GROUP)
  calibration = calibrate_group(GROUP, drawn, config)["machine-0"]
  assert calibration.attention is None
  assert not [name for name in calibration_to_json(calibration) if name.startswith("attention")]
  events, _ = write_tables(tmp_path, calibration, drawn, config=config)
  assert events
  assert [event["attention_change"] for event in events] == [None] * len(events)
  with pytest.raises(ValueError, match=r"config\.model\.attention is none: there is no attention to share out"):
    attention_shares(drawn, SERIES, [np.array([W])] * 3, config, NUM)


def test_the_moments_survive_json_to_the_bit_and_half_of_them_is_refused(
  calibrations: dict[str, MachineCalibration], tmp_path: Path
) -> None:
  stored = json.loads(json.dumps(calibration_to_json(calibrations["machine-0"]), allow_nan=False))
  back = calibration_from_json(stored).attention
  np.testing.assert_array_equal(back.mean, calibrations["machine-0"].attention.mean)
  np.testing.assert_array_equal(back.deviation, calibrations["machine-0"].attention.deviation)
  del stored["attention_mean"]
  about = {"run_id": "r", "checkpoint_steps": [1], "rule": "joint", "detect": {}}
  (tmp_path / "calibration.json").write_text(json.dumps({**about, "machines": {"machine-0": stored}}))
  told = r"calibration\.json: machine 'machine-0': field 'attention_mean' is missing; calibrate\.py writes it"
  with pytest.raises(ValueError, match=told):
    read_calibration(tmp_path)


def test_the_largest_changes_come_first_and_a_share_that_stood_still_is_measured_in_the_floor() -> None:
  names = ("a", "b", "c", "d", "e", "f", "g")
  usual = UsualAttention(np.full(7, 1 / 7), np.array([0.01, 0.02, 0.0, 0.01, 0.01, 0.01, 0.01]))
  moved = np.array([[0.03, -0.1, 2e-6, 0.03, 0.0, 0.01, 0.02]])
  found = attention_changes(usual.mean[None, :] + moved, usual, names)[0]
  assert [name for name, _ in found] == ["b", "a", "d", "g", "f"]  # a before d, which changed as much
  assert len(found) == MOST_CHANGED < len(names)
  np.testing.assert_allclose([change for _, change in found], [-5, 3, 3, 2, 1])
  still = attention_changes(usual.mean[None, 2:3] + 2e-6, UsualAttention(usual.mean[2:3], np.zeros(1)), ("c",))
  assert still == [(("c", pytest.approx(2e-6 / SMALLEST_DEVIATION)),)]
  assert attention_changes(np.zeros((0, 7)), usual, names) == []
  with pytest.raises(ValueError, match=r"attention has shape \(1, 6\), its mean \(7,\), .* F = 7"):
    attention_changes(moved[:, :6], usual, names)


def test_usual_attention_against_numpy() -> None:
  shares = np.random.default_rng(0).dirichlet(np.ones(4), 50).astype(np.float32)
  found = usual_attention(shares)
  np.testing.assert_allclose(found.mean, np.mean(shares.astype(np.float64), axis=0), rtol=1e-12)
  np.testing.assert_allclose(found.deviation, np.std(shares.astype(np.float64), axis=0), rtol=1e-12)
  assert found.mean.dtype == found.deviation.dtype == np.float64


def test_neither_pass_does_the_other_s_work(params: Any) -> None:
  """Of the shares' no GRU is left (a loop); the scoring's has no output of attentions."""
  mesh, batch = make_mesh(devices=jax.devices()[:1]), CONFIG.detect.score_batch
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
  values = jax.ShapeDtypeStruct((3, 512, NUM), np.float32)
  of_machines = jax.ShapeDtypeStruct((3, batch), np.int32)
  shares = make_shares(CONFIG, NUM, mesh).lower(shapes, values, of_machines).compile()
  forward = make_forward(CONFIG, NUM, mesh).lower(shapes, values, jax.ShapeDtypeStruct((batch,), np.int32)).compile()
  assert " while(" in forward.as_text()
  assert " while(" not in shares.as_text()
  assert len(jax.tree.leaves(forward.out_info)) == 3  # forecast, mean, variance


def faulty_rows(metric: int) -> np.ndarray:
  """Returns machine-0's raw test rows with a fault in one metric."""
  values = tiny.make_machine("machine-0", 200, seed=0).test.values.copy()
  values[150:154, metric] += 50.0
  return values


def write_tables(
  folder: Path,
  calibration: MachineCalibration,
  params: Any,
  *,
  group: Group = GROUP,
  config: Config = CONFIG,
  metric: int = 1,
  context: PreparedSplit | None = None,
) -> tuple[list[dict[str, Any]], Judged]:
  """Scores machine-0's faulty rows and writes its tables as score.py does; returns the events' rows."""
  machine = group.machines[0]
  raw = tiny.make_machine("machine-0", 200, seed=0)
  raw = raw._replace(test=raw.test._replace(values=faulty_rows(metric)))
  split = apply_preparation(machine.preparation, raw.test, config.data)
  own = lane(params, 0)
  scored = next(score_machines(
    [split], alone(own), group.targets, [machine.preparation], [calibration], config, [context]
  ))
  judged = Judged(raw, scored, calibration, NETWORK, split, context, own, group.metrics)
  with open_tables(folder, "r", has_labels=False) as writers:
    write_machine(writers, judged, tuple(group.metrics[i] for i in group.targets), config, all_rows=True)
  return pq.read_table(folder / "events.parquet").to_pylist(), judged


@pytest.mark.parametrize("with_tail", [False, True])
@pytest.mark.parametrize("attention", ["static", "gatv2"])
def test_a_fault_s_change_is_that_of_the_window_that_ends_in_its_strongest_row(
  attention: str, with_tail: bool, tmp_path: Path
) -> None:
  """Recomputed by plain NumPy from the weights, calibration and all."""
  config = config_of(attention)
  drawn = draw(config, GROUP)
  calibration = calibrate_group(GROUP, drawn, config)["machine-0"]
  context = GROUP.machines[0].train if with_tail else None
  events, judged = write_tables(tmp_path, calibration, drawn, config=config, context=context)
  hit = [event for event in events if event["start_row"] <= 150 < event["end_row"]]
  assert len(hit) == 1
  rows = slice(hit[0]["start_row"], hit[0]["end_row"])
  strongest = rows.start + int(np.argmax(np.nansum(judged.scored.metric_scores[rows], axis=1)))
  assert 150 <= strongest < 150 + W
  values = with_context(judged.split, context, W)
  row = strongest + (W if with_tail else 0)
  usual = plain_shares(
    judged.params, SERIES[0], part_rows(GROUP.machines[0], "calibration", W, config.data), config
  )
  share = plain_shares(judged.params, values, np.array([row]), config)[0]
  wanted = (share - usual.mean(axis=0)) / usual.std(axis=0)
  found = {entry["metric"]: entry["change"] for entry in hit[0]["attention_change"]}
  np.testing.assert_allclose([found[name] for name in GROUP.metrics], wanted, rtol=1e-3, atol=1e-3)
  sizes = [abs(entry["change"]) for entry in hit[0]["attention_change"]]
  assert sizes == sorted(sizes, reverse=True)
  assert sizes[0] > 5  # a fault of fifty units is nothing that was seen on normal rows


def test_all_inputs_are_named_where_one_metric_alone_is_scored(tmp_path: Path) -> None:
  config = tiny.make_config(data={"target_metrics": ("m0",)}, detect=DETECT)
  group = tiny.make_group(config, (420,))
  drawn = draw(config, group)
  calibration = calibrate_group(group, drawn, config)["machine-0"]
  events, _ = write_tables(tmp_path, calibration, drawn, group=group, config=config, metric=0)
  assert {cause["metric"] for event in events for cause in event["contributors"]} == {"m0"}
  assert all({entry["metric"] for entry in event["attention_change"]} == set(group.metrics) for event in events)


def test_a_calibration_of_before_scores_as_it_did_and_the_column_is_null(
  params: Any, calibrations: dict[str, MachineCalibration], tmp_path: Path
) -> None:
  stored = calibration_to_json(calibrations["machine-0"])
  for name in UsualAttention._fields:
    del stored[f"attention_{name}"]
  old = calibration_from_json(json.loads(json.dumps(stored)))
  before, _ = write_tables(tmp_path / "old", old, params)
  now, _ = write_tables(tmp_path / "now", calibrations["machine-0"], params)
  assert before
  assert [event["attention_change"] for event in before] == [None] * len(before)
  assert all(event["attention_change"] for event in now)
  assert before == [{**event, "attention_change": None} for event in now]
  for name in ("scores", "metric_scores"):
    assert (tmp_path / "old" / f"{name}.parquet").read_bytes() == (tmp_path / "now" / f"{name}.parquet").read_bytes()
