"""The report page in a real browser: no error, every link and control works, nothing is asked of the network.

  python -m pytest -m slow tests/test_report_browser.py

Needs chromium, chromium-driver and selenium; without them the tests are skipped and say how to install them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import Browser, browser, needs_browser
from test_report import EVIL, NAMES, write_events, write_work
from test_report_ledger import make_ledger

from mtad_jax.detect.tables import METRIC_SCORES
from mtad_jax.report.inputs import read_work
from mtad_jax.report.page import render

pytestmark = [pytest.mark.slow, needs_browser]
CHOSEN = "return document.getElementById('chosen-machine').textContent"
TOLD = "return document.activeElement.getAttribute('aria-valuetext')"
RANGE = "return document.getElementById('score-chart').layout.xaxis.range.map(Number)"
MOST_BYTES, MOST_SECONDS = 15e6, 2.0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
  with browser() as made:
    yield made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A page of two machines, one with markup for a name, each with one event."""
  folder = write_work(tmp_path_factory.mktemp("page") / "work")
  groups = [{"machines": [{"name": name, "role": "web", "notes": {"num_rows": 9}} for name in NAMES]}]
  (folder / "fleet.json").write_text(json.dumps({"groups": groups}))
  write_events(folder)
  events = pq.read_table(folder / "events.parquet").to_pylist()
  for line in events:
    line |= {"model": "network", "cause_set": ["load_1"]}
    line["attention_change"] = [{"metric": "<b>cpu_r</b>", "change": 2.5}]
  pq.write_table(pa.Table.from_pylist(events), folder / "events.parquet")
  return write_page(folder)


def write_page(folder: Path) -> Path:
  path = folder / "report.html"
  path.write_text(render(read_work(str(folder)), made="today"), encoding="utf-8")
  return path


@pytest.fixture
def page(chromium: Browser, file: Path) -> Iterator[Browser]:
  """The page freshly opened on a desk; at the end nothing may stand in its console."""
  chromium.look()
  chromium.errors()
  chromium.open(file)
  yield chromium
  assert chromium.errors() == []


def text_of(page: Browser, selector: str) -> str:
  return str(page.run("return document.querySelector(arguments[0]).textContent", selector))


# ---- what is there


def test_every_chart_is_drawn_and_nothing_is_asked_of_the_network(chromium: Browser, file: Path) -> None:
  chromium.look()
  chromium.errors()
  chromium.requests()
  chromium.open(file)
  assert chromium.errors() == []
  asked = chromium.requests()
  assert asked
  assert {re.split("[:]", address)[0] for address in asked} <= {"file", "data", "blob"}, asked
  assert [address for address in asked if address.startswith("file:")] == [file.resolve().as_uri()]
  drawn = chromium.run(
    "return Object.fromEntries([...document.querySelectorAll('.chart')].map(c => [c.id, c.data ? c.data.length : 0]))"
  )
  assert drawn["score-chart"] >= 5
  assert drawn["event-chart"] == 8, "two causes: band low and high, expected, actual"
  assert drawn["loss-chart"] >= 1
  painted = chromium.run(
    "return [...document.querySelectorAll('#fleet-map canvas')].map(c => new Set("
    "new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)"
  )
  assert len(painted) == 2
  assert min(painted) >= 3, "quiet stretches, alarms, and what has no score differ"


def test_names_are_shown_and_never_run(page: Browser) -> None:
  page.find(f"#machine option[value='{NAMES.index(EVIL)}']").click()
  assert page.run(CHOSEN) == EVIL
  assert page.run("return document.querySelectorAll('main b, main img, svg img').length") == 0
  labels = page.run("return [...document.querySelectorAll('#score-chart .y3tick')].map(t => t.textContent)")
  assert "<b>cpu_r</b>" in labels, "a metric's name is a label as it is written"
  assert EVIL in text_of(page, "#event-card")


def test_the_event_card_tells_all(page: Browser) -> None:
  found = text_of(page, "#event-card")
  times = "\N{MULTIPLICATION SIGN}"
  for said in ("critical", "rows 102 to 105", "0.6 of 1", f"2 {times} the threshold", "<b>cpu_r</b>75%", "load_125%"):
    assert said in found, (said, found)
  assert "The one other machine of role web" in found
  assert "scored byits own network" in found
  assert "load_1: without them its strongest row is usual" in found
  assert "+2.5" in found
  assert text_of(page, "#event-card tbody td.above").startswith("25")


# ---- links and controls


def test_every_link_leads_to_its_section(page: Browser) -> None:
  links = page.run("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
  assert len(links) >= 9
  for link in links:
    page.find(f"a[href='{link}']").click()
    assert page.run("return location.hash") == link
    top = page.run("return document.querySelector(arguments[0]).getBoundingClientRect().top", link)
    bottom = page.run("return document.documentElement.scrollHeight - window.scrollY - window.innerHeight")
    assert -5 < top < 150 or bottom < 5, (link, top)


def test_the_choice_of_machine_draws_it(page: Browser) -> None:
  for index, name in enumerate(NAMES):
    page.find(f"#machine option[value='{index}']").click()
    assert page.run(CHOSEN) == name
    top = page.run("return document.getElementById('score-chart').layout.yaxis.range[1]")
    assert top == pytest.approx(1.06 * (9 + index)), "the axis reaches just above the machine's highest score"
    assert text_of(page, "#summary").startswith("300 rows")
    pressed = page.run("return document.querySelectorAll('#fleet-map button[aria-current=true]').length")
    assert pressed == 1


def test_a_name_of_the_map_opens_its_machine_and_takes_the_focus(page: Browser) -> None:
  for index in (0, 1):
    page.find(f"#fleet-map button[data-index='{index}']").click()
    assert page.run(CHOSEN) == NAMES[index]
    assert page.run("return document.activeElement.id") == "chosen-machine"


@pytest.mark.parametrize("share", [0.1, 0.345, 0.9])
def test_a_click_on_the_map_opens_the_stretch(page: Browser, share: float) -> None:
  from selenium.webdriver.common.action_chains import ActionChains

  strip = page.find("#fleet-map canvas[data-index='0']")
  offset = (share - 0.5) * strip.size["width"]
  ActionChains(page.driver).move_to_element_with_offset(strip, offset, 0).perform()
  tip = text_of(page, ".tip")
  assert tip.startswith(f"{NAMES[0]}, row ")
  assert ("critical, highest 1.8 \N{MULTIPLICATION SIGN} threshold" in tip) == (share == 0.345)
  ActionChains(page.driver).click().perform()
  assert page.run(CHOSEN) == NAMES[0]
  low, high = page.run(RANGE)
  assert low <= share * 300 <= high
  assert high - low < 300 * 0.06
  page.find("#whole").click()
  assert page.run(RANGE) == [0, 299]
  assert page.find("#whole").get_attribute("disabled")


def test_the_map_is_used_by_keyboard(page: Browser) -> None:
  from selenium.webdriver.common.keys import Keys

  tab_stops = page.run("return document.querySelectorAll('#fleet-map canvas[tabindex=\"0\"]').length")
  assert tab_stops == 1, "the map is one stop of the tab key besides its names"
  page.run("document.querySelector('#fleet-map canvas').focus()")
  first = page.run("return document.activeElement.dataset.index")
  assert page.run("return document.activeElement.getAttribute('role')") == "slider"
  page.press(Keys.HOME)
  assert "row 0 to" in page.run(TOLD)
  page.press(Keys.ARROW_RIGHT, shift=True)
  assert "critical" in page.run(TOLD)
  page.press(Keys.ARROW_DOWN)
  second = page.run("return document.activeElement.dataset.index")
  assert {first, second} == {"0", "1"}
  assert page.run(TOLD).startswith(NAMES[int(second)])
  page.press(Keys.ENTER)
  assert page.run(CHOSEN) == NAMES[int(second)]
  low, high = page.run(RANGE)
  assert low <= 102 <= high


def test_log_scale_and_the_tables_filter(page: Browser) -> None:
  page.find("#log-scale").click()
  assert page.run("return document.getElementById('score-chart').layout.yaxis.type") == "log"
  rows = "return [...document.querySelectorAll('section.of-events tbody tr')].filter(r => !r.hidden).length"
  assert page.run(rows) == 2
  page.find("#only-this").click()
  assert page.run(rows) == 1
  page.find("#machine option[value='0']").click()
  shown = "return [...document.querySelectorAll('section.of-events tbody tr')].find(r => !r.hidden).dataset.machine"
  assert page.run(shown) == NAMES[0]
  page.find("#only-this").click()
  assert page.run(rows) == 2


def test_a_card_opens_its_event(page: Browser) -> None:
  cards = page.run("return [...document.querySelectorAll('#worst-cards h3')].map(h => h.textContent)")
  assert cards == [EVIL, NAMES[0]], "the worst first"
  page.find("#worst-cards article:nth-child(2) button").click()
  assert page.run(CHOSEN) == NAMES[0]
  low, high = page.run(RANGE)
  assert low < 102 < 106 < high
  assert high - low < 250
  assert "No metric stands above its usual level" in text_of(page, "#event-card")
  page.find("#whole").click()
  page.find("#event-list button").click()
  assert page.run("return document.activeElement.closest('#event-list') !== null"), "the focus stays in the list"
  assert page.run(RANGE) == [low, high]
  page.find("#whole").click()
  page.find("#to-event").click()
  assert page.run(RANGE) == [low, high]


def test_a_zoom_by_hand_is_followed(page: Browser) -> None:
  page.find("#machine option[value='1']").click()
  page.run("return Plotly.relayout('score-chart', {'xaxis.range[0]': 150, 'xaxis.range[1]': 250})")
  assert page.run(RANGE) == [150, 250]
  assert page.run("return document.getElementById('score-chart').layout.yaxis.range[1]") < 9, "of what is shown"
  assert "No metrics' scores in the stretch shown" in text_of(page, "#metrics-said")
  page.run("return Plotly.relayout('score-chart', {'xaxis.autorange': true})")
  assert page.run(RANGE) == [0, 299]


def test_the_metrics_map_says_what_it_lacks_and_has_a_table(page: Browser) -> None:
  page.find("#machine option[value='1']").click()
  assert "blank where there are none, 96% of the stretch shown" in text_of(page, "#metrics-said")
  rows = page.run(
    "return [...document.querySelectorAll('#metrics-table tbody tr')]"
    ".map(row => [...row.children].map(cell => cell.textContent))"
  )
  assert [row[0] for row in rows] == ["<b>cpu_r</b>", "load_1"]
  assert rows[0][1:] == ["30", "row 102"]
  page.find("#fleet-map canvas[data-index='1']").click()
  assert "No metrics' scores in the stretch shown" in text_of(page, "#metrics-said")


def test_folded_parts_open(page: Browser) -> None:
  for place in range(page.run("return document.querySelectorAll('summary').length")):
    page.run("document.querySelectorAll('summary')[arguments[0]].click()", place)
  assert page.run("return [...document.querySelectorAll('details')].every(d => d.open || d.hidden)")


def test_every_control_has_a_name(page: Browser) -> None:
  nameless = page.run(
    "return [...document.querySelectorAll('button, select, input, [tabindex], canvas, [role=group], [role=region]')]"
    ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label'))"
    " && !e.closest('.chart > *') && e.offsetParent !== null).map(e => e.outerHTML.slice(0, 200))"
  )
  assert nameless == []


# ---- screens and paper


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_phone_and_desk_light_and_dark(chromium: Browser, file: Path, width: int, dark: bool) -> None:
  chromium.look(width, dark=dark)
  chromium.open(file)
  assert chromium.run("return document.documentElement.scrollWidth") <= width
  page_color, ink = chromium.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
  lightness = [sum(map(int, re.findall(r"\d+", found)[:3])) for found in (page_color, ink)]
  assert (lightness[0] < lightness[1]) == dark
  tick = chromium.run("return document.querySelector('#score-chart .xtick text').style.fill")
  assert abs(sum(map(int, re.findall(r"\d+", tick)[:3])) - lightness[1]) < 30, "the charts have the page's ink"
  wide = chromium.run(
    "return [...document.querySelectorAll('.chart svg.main-svg')].map(s => s.getBoundingClientRect().right)"
  )
  assert max(wide) <= width
  assert chromium.errors() == []


def test_a_change_to_dark_draws_anew(page: Browser) -> None:
  before = page.run("return document.getElementById('score-chart').data[0].line.color")
  page.look(dark=True)
  page.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
  assert page.run("return document.getElementById('score-chart').data[0].line.color") != before


def test_paper(page: Browser) -> None:
  page.look(dark=True)
  found = page.print()
  assert found.startswith(b"%PDF")
  assert len(re.findall(rb"/Type\s*/Page\b", found)) >= 4, "a page for each large section"
  assert not page.run("return document.documentElement.classList.contains('print')"), "the screen is as before"
  page.run(
    "window.addEventListener('beforeprint', () => { window.seen = [document.documentElement.scrollWidth,"
    " document.getElementById('score-chart').data[0].line.color,"
    " Math.max(...[...document.querySelectorAll('.chart svg.main-svg')]"
    ".map(chart => chart.getBoundingClientRect().width))]; })"
  )
  page.print()
  _, line, widest = page.run("return window.seen")
  assert line == "#0b5cad", "light colours, though the screen is dark"
  assert 0 < widest <= 700, "no chart is wider than the paper"


def test_the_ledgers_charts(chromium: Browser, tmp_path: Path) -> None:
  chromium.look()
  chromium.errors()
  chromium.open(write_page(make_ledger(tmp_path / "run")))
  assert chromium.errors() == []
  for chart in ("precision-chart", "false-chart"):
    assert chromium.run("return document.getElementById(arguments[0]).data.length", chart) >= 2


# ---- a fleet of the size of SMD


def make_large(folder: Path, num_machines: int = 28, num_rows: int = 28_479, num_metrics: int = 38) -> Path:
  """Writes scores and every row's metric scores of a fleet of SMD's size, with sixty events a machine."""
  folder.mkdir()
  random = np.random.default_rng(0)
  metrics = [f"metric_{place}" for place in range(num_metrics)]
  groups, events = [], []
  scores = pq.ParquetWriter(folder / "scores.parquet", SCORES)
  rows = pq.ParquetWriter(folder / "metric_scores.parquet", METRIC_SCORES)
  for lane in range(num_machines):
    name, score = f"machine-{lane}", random.exponential(size=num_rows)
    starts = np.sort(random.choice(num_rows // 100 - 2, 60, replace=False)) * 100 + 60
    for start in starts:
      score[start : start + 20] += random.uniform(20, 200)
    score[:50] = np.nan
    scores.write_table(scores_table(name, score))
    metric = np.maximum(random.normal(size=(num_rows, num_metrics)), 0).astype(np.float32)
    rows.write_table(metrics_table(name, metric, metrics))
    groups.append({"name": name, "role": f"role-{lane % 3}"})
    for start in starts.tolist():
      shares = random.dirichlet(np.ones(num_metrics))
      pairs = zip(metrics, shares.tolist(), strict=True)
      named = [{"metric": found, "contribution": share} for found, share in pairs]
      events.append(
        {"event_id": f"{name}:{start}", "machine": name, "start_row": start, "end_row": start + 20, "peak": 9.0,
         "severity": float(random.uniform()), "contributors": named}
      )  # fmt: skip
  scores.close()
  rows.close()
  pq.write_table(pa.Table.from_pylist(events), folder / "events.parquet")
  (folder / "fleet.json").write_text(json.dumps({"groups": [{"machines": groups}]}))
  return folder


SCORES = pa.schema(
  [("machine", pa.string()), ("row", pa.int64()), ("timestamp", pa.timestamp("ms")), ("score", pa.float64()),
   ("threshold", pa.float64()), ("is_anomaly", pa.bool_()), ("valid", pa.bool_()), ("label", pa.bool_())]
)  # fmt: skip


def scores_table(name: str, score: np.ndarray) -> pa.Table:
  minutes = np.arange(len(score)).astype("datetime64[m]").astype("datetime64[ms]")
  above = np.nan_to_num(score) > 15
  columns: dict[str, Any] = {"machine": [name] * len(score), "row": np.arange(len(score)), "timestamp": minutes}
  columns |= {"score": pa.array(score, from_pandas=True), "threshold": np.full(len(score), 15.0)}
  columns |= {"is_anomaly": above, "valid": ~np.isnan(score), "label": above}
  return pa.table(columns, schema=SCORES)


def metrics_table(name: str, score: np.ndarray, metrics: list[str]) -> pa.Table:
  num_rows, num_metrics = score.shape
  size, flat = score.size, score.ravel().astype(np.float64)
  columns: dict[str, Any] = {"machine": pa.repeat(name, size), "row": np.repeat(np.arange(num_rows), num_metrics)}
  columns |= {"metric": pa.array(metrics * num_rows), "score": flat, "forecast": flat, "reconstruction": flat}
  columns |= {"expected_low": flat - 1, "expected_high": flat + 1, "actual": flat * 1.1}
  return pa.table(columns, schema=METRIC_SCORES)


def test_a_fleet_of_smds_size_is_small_and_opens_at_once(
  chromium: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  path = write_page(make_large(tmp_path / "large"))
  assert path.stat().st_size < MOST_BYTES
  chromium.look()
  seconds, waits = [], []
  for _ in range(3):
    chromium.driver.get("about:blank")
    chromium.open(path)
    seconds.append(chromium.main_thread_s())
    waits.append(chromium.run("return performance.getEntriesByName('drawn')[0].startTime") / 1000)
  with capsys.disabled():
    cpu, wall = min(seconds), min(waits)
    print(f"\n{path.stat().st_size / 1e6:.1f} MB, drawn after {wall:.2f} s, {cpu:.2f} s of its main thread")
  # of the page's own thread: what else the machine does at the time is not the page's
  assert min(seconds) < MOST_SECONDS
  assert chromium.errors() == []
