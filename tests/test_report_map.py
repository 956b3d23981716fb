"""The report's heat maps: no spike is lost, alarms stay apart, and the fleet's map says what is wrong."""

import base64
import json

import numpy as np
import pytest
from report_fleet import MINUTE, THRESHOLD, WARNING, event, machine, work
from test_report import EVIL, Page

from mtad_jax.report import fleet_map, heat, tables
from mtad_jax.report.axis import fleet_axis, length_text, machine_axis, moment_text, span_text
from mtad_jax.report.inputs import MachineScores
from mtad_jax.report.neighbours import Neighbours, rest_text


def level_of(code: int) -> str:
  """Returns what assets/heat.js makes of a code."""
  if code == heat.NONE:
    return "none"
  return "quiet" if code < heat.WARNING_FROM else "warning" if code < heat.CRITICAL_FROM else "critical"


def ratio_back(code: int) -> float:
  """Returns the score/threshold of a code, by the formulas of assets/heat.js."""
  if code < heat.WARNING_FROM:
    return (code - 1) / (heat.WARNING_FROM - 2)
  if code < heat.CRITICAL_FROM:
    return (code - heat.WARNING_FROM) / (heat.CRITICAL_FROM - 1 - heat.WARNING_FROM)
  return float(np.exp((code - heat.CRITICAL_FROM) / (heat.LAST - heat.CRITICAL_FROM) * np.log(heat.HIGHEST_RATIO)))


def strip_of(scores: MachineScores, bins: int) -> np.ndarray:
  axis = machine_axis(scores)
  place = heat.bins_of(scores.row.astype(float), axis.first, axis.last, bins)
  return heat.bin_maxima(place, heat.ratio_codes(scores), bins)


# ---- codes


def test_codes_keep_the_level_and_the_ratio() -> None:
  values = np.array([np.nan, 0.0, 1.7, WARNING, 3.0001, THRESHOLD, 4.0001, 8.0, 400.0, 1e9])
  scores = machine(10, {})._replace(score=values, is_anomaly=values > THRESHOLD, warning=np.full(10, WARNING))
  codes = heat.ratio_codes(scores)
  assert codes.dtype == np.uint16
  wanted = ["none", "quiet", "quiet", "quiet", "warning", "warning", "critical", "critical", "critical", "critical"]
  assert [level_of(code) for code in codes] == wanted
  found = [ratio_back(code) for code in codes[1:-1]]
  np.testing.assert_allclose(found, values[1:-1] / THRESHOLD, rtol=3e-4, atol=3e-5)
  assert ratio_back(codes[-1]) == pytest.approx(heat.HIGHEST_RATIO)


def test_codes_rise_with_the_score() -> None:
  values = np.sort(np.random.default_rng(0).uniform(0, 30, 500))
  scores = machine(500, {})._replace(score=values, is_anomaly=values > THRESHOLD, warning=np.full(500, WARNING))
  assert np.all(np.diff(heat.ratio_codes(scores).astype(int)) >= 0)


def test_a_row_without_a_threshold_or_of_zero_by_zero_is_no_score() -> None:
  scores = machine(6, {})
  threshold = np.array([4, 4, 4, np.nan, 0, 4.0])
  scores = scores._replace(score=np.array([1, 1, 1, 1, 0, 1.0]), threshold=threshold)
  assert [level_of(code) for code in heat.ratio_codes(scores)] == ["quiet"] * 3 + ["none"] * 2 + ["quiet"]


@pytest.mark.parametrize(("num_rows", "bins"), [(28_479, 800), (801, 800), (50, 800), (5000, 7)])
def test_every_alarm_is_in_its_stretch_and_nothing_else_is(num_rows: int, bins: int) -> None:
  random = np.random.default_rng(num_rows)
  rows = random.choice(np.arange(3, num_rows), 20, replace=False)
  spikes = {int(row): float(random.uniform(4.01, 90)) for row in rows}
  scores = machine(num_rows, spikes)
  found = strip_of(scores, bins)
  # a slow count, row by row
  wanted = np.zeros(bins)
  for row in range(3, num_rows):
    place = min(int(row / num_rows * bins), bins - 1)
    wanted[place] = max(wanted[place], scores.score[row] / THRESHOLD)
  has_row = wanted > 0
  assert np.array_equal(found > 0, has_row)
  np.testing.assert_allclose([ratio_back(code) for code in found[has_row]], wanted[has_row], rtol=5e-4)


def test_highest_of_highest_is_highest() -> None:
  """The script takes the highest of several stretches on a narrow screen: the order of both does not matter."""
  values = np.random.default_rng(1).integers(0, 65_535, 840).astype(np.uint16)
  fine = heat.bin_maxima(heat.bins_of(np.arange(840.0), 0, 840, 120), values, 120)
  coarse = heat.bin_maxima(heat.bins_of(np.arange(840.0), 0, 840, 30), values, 30)
  np.testing.assert_array_equal(fine.reshape(30, 4).max(axis=1), coarse)


def test_metric_codes() -> None:
  values = np.array([[np.nan, 0.0], [3.0, 50.0]])
  codes = heat.metric_codes(values, 50.0)
  assert codes.dtype == np.uint8
  assert codes[0].tolist() == [0, 1]
  assert codes[1, 1] == 255
  assert np.expm1((codes[1, 0] - 1.0) / 254 * np.log1p(50)) == pytest.approx(3, rel=0.05)
  assert heat.metric_codes(np.array([0.0, np.nan]), 0.0).tolist() == [1, 0]


# ---- the axis


def test_a_fleet_with_one_machine_without_a_clock_stands_on_rows() -> None:
  dated, bare = machine(10, {}, clock=0.0), machine(12, {})
  assert fleet_axis({"a": dated, "b": bare}) == (False, 0.0, 12.0)
  assert fleet_axis({"a": dated, "b": machine(5, {}, clock=MINUTE * 20)}) == (True, 0.0, MINUTE * 25)


def test_times_as_a_person_reads_them() -> None:
  scores = machine(3000, {}, clock=1_700_000_040_000.0)
  assert moment_text(1_700_000_040_000) == "2023-11-14 22:14"
  assert moment_text(1_700_000_041_000) == "2023-11-14 22:14:01"
  assert span_text(scores, 0, 1) == "2023-11-14 22:14"
  assert span_text(scores, 0, 61) == "2023-11-14 22:14 to 23:14"
  assert span_text(scores, 0, 301) == "2023-11-14 22:14 to 2023-11-15 03:14"
  assert length_text(scores, 0, 90) == "1 h 30 min, 90 rows"
  assert length_text(scores, 0, 2881) == "2 d 1 min, 2,881 rows"
  assert span_text(machine(3000, {}), 1200, 1300) == "rows 1,200 to 1,299"
  assert (span_text(machine(9, {}), 5, 6), length_text(machine(9, {}), 5, 6)) == ("row 5", "1 row")


# ---- the rest of the role


def test_the_rest_of_the_role_is_that_of_a_slow_count() -> None:
  random = np.random.default_rng(3)
  machines = {
    f"m{lane}": machine(200, {int(row): 8.0 for row in random.choice(200, 12)}, clock=MINUTE * 10 * lane)
    for lane in range(5)
  }
  machines["other"] = machine(200, dict.fromkeys(range(3, 200), 99.0), clock=0.0)
  roles = {name: "web" for name in machines} | {"other": "db"}
  neighbours = Neighbours(work(machines, roles))
  for start in range(60, 150, 7):
    found = neighbours.rest_of(event("m2", start, start + 9))
    own = machines["m2"].times
    assert own is not None
    alarmed, highest, others = set(), (0.0, ""), 0
    for name in ("m0", "m1", "m3", "m4"):
      other = machines[name]
      assert other.times is not None
      inside = [row for row, at in enumerate(other.times) if own[start] <= at <= own[start + 8] and row >= 3]
      others += bool(inside)
      alarmed |= {name for row in inside if other.score[row] > THRESHOLD}
      highest = max([highest, *((other.score[row] / THRESHOLD, name) for row in inside)])
    assert (found.num_others, set(found.alarmed), found.highest) == (others, alarmed, highest)


def test_without_clocks_the_same_rows_are_the_same_time() -> None:
  machines = {"a": machine(50, {20: 8.0}), "b": machine(50, {21: 6.0}), "c": machine(15, {})}
  roles = dict.fromkeys(machines, "web")
  found = Neighbours(work(machines, roles)).rest_of(event("a", 18, 25))
  assert (found.num_others, found.alarmed, found.highest) == (1, ("b",), (1.5, "b")), "c has no such rows"
  assert rest_text(found) == (
    "The one other machine of role web, b, was in alarm then, at 1.50 times its threshold at most."
  )


def test_a_warning_of_another_machine_is_an_alarm() -> None:
  machines = {"a": machine(50, {20: 8.0}), "b": machine(50, {20: 3.5}, warning=np.full(50, WARNING))}
  machines["c"] = machine(50, {20: 3.5})
  found = Neighbours(work(machines, dict.fromkeys(machines, "web"))).rest_of(event("a", 20, 21))
  assert found.alarmed == ("b",)


def test_a_role_of_one_and_no_role() -> None:
  machines = {"a": machine(50, {20: 8.0}), "b": machine(50, {20: 8.0})}
  found = Neighbours(work(machines, {"a": "web"}))
  assert rest_text(found.rest_of(event("a", 20, 21))) == "No other machine of role web has a score then."
  assert rest_text(found.rest_of(event("b", 20, 21))) == "Its role is not known."


# ---- the map


def test_the_map_stands_worst_first_by_role_and_opens_with_who_is_in_alarm() -> None:
  machines = {
    "calm": machine(400, {}),
    EVIL: machine(400, {100: 8.0}),
    "worst": machine(400, {200: 40.0}),
    "open": machine(400, {399: 4.4}),
  }
  roles = {"calm": "db<b>", EVIL: "db<b>", "worst": "web", "open": "web"}
  events = [event(EVIL, 100, 101), event("worst", 200, 201), event("open", 399, 400)]
  whole = work(machines, roles, events)
  lines = fleet_map.lines_of(whole)
  assert [line.name for line in lines] == ["open", "worst", EVIL, "calm"]
  text = fleet_map.section(whole, lines)
  assert EVIL not in text
  assert "db<b>" not in text
  page = Page(text)
  assert "1 of 4 machines in alarm at the last scored row. 3 events in all, on 3 of 4 machines." in page.text
  (table,) = page.tables
  assert table[1] == ["role web 2 of 2 machines had events"]
  assert table[2] == ["open", "", "1.10", "1", "row 399"]
  assert table[3] == ["worst", "", "10.00", "1", "row 200"]
  assert table[4] == ["role db<b> 1 of 2 machines had events"]
  assert table[6] == ["calm", "", "0.25", "0", tables.NONE]
  labels = [value for tag, name, value in page.attributes if (tag, name) == ("canvas", "aria-label")]
  assert labels[1] == "worst: highest 10.00 times its threshold, row 200"
  drawn = json.loads(json.dumps(fleet_map.chart_data(whole, lines)))
  assert (drawn["first"], drawn["last"], drawn["bins"]) == (0, 400, 400), "no stretch is shorter than a row"
  codes = np.frombuffer(base64.b64decode(drawn["strips"]["2"]), "<u2")
  assert level_of(codes.max()) == "critical"
  assert int(codes.argmax()) == 200


def test_a_large_fleet_is_cut_and_what_is_left_out_told(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(fleet_map, "MAX_LINES", 3)
  machines = {f"m{lane}": machine(50, {20: 1.0 + lane}) for lane in range(8)}
  whole = work(machines, dict.fromkeys(machines, "web"))
  lines = fleet_map.lines_of(whole)
  text = fleet_map.section(whole, lines)
  assert "5 more machines are not drawn: none of them reaches more than 1.25 times its threshold." in text
  assert list(fleet_map.chart_data(whole, lines)["strips"]) == [7, 6, 5]
  assert text.count("<canvas") == 3


def test_a_machine_without_any_score_has_a_line_too() -> None:
  bare = machine(50, {})._replace(score=np.full(50, np.nan), valid=np.zeros(50, bool))
  whole = work({"bare": bare, "b": machine(50, {20: 9.0})})
  lines = fleet_map.lines_of(whole)
  assert [line.name for line in lines] == ["b", "bare"]
  assert "bare: no score" in fleet_map.section(whole, lines)
  codes = np.frombuffer(base64.b64decode(fleet_map.chart_data(whole, lines)["strips"][0]), "<u2")
  assert not codes.any()
