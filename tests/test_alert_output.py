"""Alerts told once each: JSON lines through kills, a webhook through failures, Prometheus text by its own parser."""

import datetime
import http.server
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleets import refused, run_here, succeeded
from prometheus_client.parser import text_string_to_metric_families

from mtad_jax.alerts.delivered import Delivered, event_key
from mtad_jax.alerts.json_lines import append_events
from mtad_jax.alerts.newest_rows import newest_rows
from mtad_jax.alerts.told_event import ToldEvent, as_json, from_json, read_events
from mtad_jax.alerts.webhook import Patience, place_of, send_events
from mtad_jax.detect.tables import open_tables

EVIL = 'web "1"\\2\n<b>é'
FIRST = np.datetime64("2026-03-01T10:00", "ms")
QUICK = Patience(attempts=3, timeout_s=0.5, first_wait_s=0.5)


def event(
  machine: str = "web-1", first: int = 0, last: int = 5, *, level: str = "critical", **changes: Any
) -> ToldEvent:
  """Returns an event of minutes `first` to `last` after ten o'clock."""
  start, end = (str(FIRST + np.timedelta64(minute, "m")) for minute in (first, last))
  own = (f"{machine}:{first}-{last + 1}", machine, level, first, last + 1, start, end)
  return ToldEvent(*own, 0.5, 9.0, (("cpu", 0.75), ("disk", 0.25)), "r1")._replace(**changes)


def write_scores(folder: Path, *, timed: bool = True, num_rows: int = 8, warning: float | None = 1.5) -> Path:
  """Writes tables of two machines by the writer that score.py uses; the first machine's newest row is in alarm."""
  scores = np.array([1.0, 1.0, 2.0, 4.0, 5.0, 1.0, np.nan, 3.5])[:num_rows]
  times = FIRST + np.arange(num_rows) * np.timedelta64(1, "m")
  with open_tables(folder, "r1", has_labels=False) as writers:
    for name, factor in ((EVIL, 1.0), ("db-1", 0.1)):
      own = scores * factor
      writers["scores"].write(
        {
          "machine": [name] * num_rows,
          "row": np.arange(num_rows),
          **({"timestamp": times} if timed else {}),
          "score": own,
          "threshold": np.full(num_rows, 3.0),
          "score_ratio": own / 3.0,
          "is_anomaly": own > 3.0,
          "valid": ~np.isnan(own),
          **({} if warning is None else {"threshold_warning": np.full(num_rows, warning)}),
        }
      )
    rows, metrics = [num_rows - 2, num_rows - 1], ["cpu", "mem", "net", "disk"]
    writers["metric_scores"].write(
      {
        "machine": [EVIL] * 8,
        "row": np.repeat(rows, 4),
        "metric": metrics * 2,
        "score": [9.0, 9.0, 9.0, 9.0, 1.0, 4.0, 2.0, 3.0],
        "expected_low": np.arange(8.0),
        "expected_high": np.arange(8.0) + 10,
        "actual": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, np.nan],
      }
    )
    starts, ends = np.array([2, 7]), np.array([5, 8])
    kept = ends <= num_rows
    writers["events"].write(
      {
        "event_id": [f"{EVIL}:{a}-{b}" for a, b in zip(starts[kept], ends[kept])],
        "machine": [EVIL] * int(kept.sum()),
        "start_row": starts[kept],
        "end_row": ends[kept],
        **({"start": times[starts[kept]], "end": times[ends[kept] - 1]} if timed else {}),
        "severity": [0.4, 0.1][: int(kept.sum())],
        "peak": [5.0, 3.5][: int(kept.sum())],
        "contributors": [[{"metric": "cpu", "contribution": 1.0}], []][: int(kept.sum())],
        "level": ["critical", "warning"][: int(kept.sum())],
      }
    )
  created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
  (folder / "run.json").write_text(json.dumps({"created": created.isoformat(timespec="seconds")}))
  return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


# --- which event is which


def test_an_event_is_known_by_its_time_and_told_again_only_when_it_becomes_critical(tmp_path: Path) -> None:
  told = Delivered(tmp_path / "told.json")
  warned = event(level="warning")
  assert not told.knows(warned)
  told.add(warned)
  assert told.knows(warned)
  assert told.knows(event(first=3, last=30, level="warning"))  # goes on, cut off where the next file begins
  assert told.knows(event(first=28, last=29, level="warning"))  # followed to its new end
  assert not told.knows(event(first=31, last=40, level="warning"))
  assert not told.knows(event("web-2", level="warning"))
  assert not told.knows(event())
  told.add(event())
  assert told.knows(event(first=2, last=3, level="warning"))  # a critical one stands for it
  told.save()
  again = Delivered(tmp_path / "told.json")
  assert again.knows(event())
  assert again.knows(event(first=25, last=26, level="warning"))


def test_without_a_clock_only_the_very_same_event_is_known(tmp_path: Path) -> None:
  told, bare = Delivered(tmp_path / "told.json"), {"start": None, "end": None}
  told.add(event(**bare))
  told.save()
  again = Delivered(tmp_path / "told.json")
  assert again.knows(event(**bare))
  assert again.knows(event(last=9, **bare))
  for changes in ({"peak": 9.5}, {"run_id": "r2"}, {"start_row": 1}, {"level": "warning"}, {"machine": "db"}):
    assert not again.knows(event()._replace(**{**bare, **changes}))
  assert len({event_key(event(**bare)), event_key(event(first=1)), event_key(event()), event_key(event("db"))}) == 4
  assert event_key(event(last=50)) == event_key(event())


def test_a_damaged_memory_is_refused_by_name(tmp_path: Path) -> None:
  for text in ("{", "[]", '{"keys": [], "timed": [{"machine": "a"}]}'):
    (tmp_path / "told.json").write_text(text)
    with pytest.raises(ValueError, match=r"told\.json: damaged .* remove it to have all told again"):
      Delivered(tmp_path / "told.json")


# --- JSON lines


def test_json_lines_hold_every_event_once_and_grow(tmp_path: Path) -> None:
  path = tmp_path / "events.jsonl"
  events = [event(), event("db-1", 7, 9), event(EVIL, 20, 30, level="warning")]
  assert append_events(path, events[:2]) == 2
  assert append_events(path, events) == 1
  assert append_events(path, events) == 0
  assert lines_of(path) == [json.loads(json.dumps(as_json(each))) for each in events]
  path.rename(tmp_path / "rotated")
  assert append_events(path, [*events, event("new")]) == 1
  (tmp_path / ".events.jsonl.told.json").unlink()  # the lines themselves say what was written
  assert append_events(path, [event("new")]) == 0


def test_lines_carry_the_attention_s_change_where_there_is_one_and_are_read_back_either_way(tmp_path: Path) -> None:
  path = tmp_path / "events.jsonl"
  events = [event(attention_change=(("disk", -7.5), ("cpu", 2.0))), event("db-1", 7, 9)]
  append_events(path, events)
  lines = lines_of(path)
  assert lines[0]["attention_change"] == [{"metric": "disk", "change": -7.5}, {"metric": "cpu", "change": 2.0}]
  assert "attention_change" not in lines[1]  # as in every line of before there were any
  assert [from_json(line) for line in lines] == events
  (tmp_path / ".events.jsonl.told.json").unlink()
  assert append_events(path, events) == 0
  path.write_text(path.read_text().replace('"change": -7.5', '"changed": -7.5'))
  with pytest.raises(ValueError, match=r"events\.jsonl, line 1: no event of alert\.py \('change'\)"):
    append_events(path, events)


def test_a_kill_at_any_byte_loses_and_doubles_nothing(tmp_path: Path) -> None:
  """The file as it is after a kill at any byte of the second and third line, whose memory was not written yet."""
  path, events = tmp_path / "events.jsonl", [event(), event("db-1", 7, 9), event(EVIL, 20, 30)]
  append_events(path, events[:1])
  memory = (tmp_path / ".events.jsonl.told.json").read_bytes()
  first = path.stat().st_size
  append_events(path, events)
  whole = path.read_bytes()
  ends = [first, *(i for i, byte in enumerate(whole) if byte == 10), len(whole)]
  near = {size for end in ends for size in (end, end + 1) if first <= size <= len(whole)}
  for size in sorted(near | set(range(first, len(whole), 11))):
    path.write_bytes(whole[:size])
    (tmp_path / ".events.jsonl.told.json").write_bytes(memory)
    append_events(path, events)
    assert path.read_bytes() == whole, size


def test_json_lines_refuse_what_is_no_file_of_theirs(tmp_path: Path) -> None:
  path = tmp_path / "other.jsonl"
  for text in ('{"step": 3}\n', "no json\n", "3\n", "a note without an end"):
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.jsonl, line 1: no event of alert\.py"):
      append_events(path, [event()])
    assert path.read_text() == text


# --- webhook


class Receiver:
  """A server on this machine that answers as told, in turn, and then 200; it keeps what it was sent."""

  def __init__(self) -> None:
    self.answers: list[Any] = []
    self.posts: list[tuple[dict[str, Any], str]] = []
    receiver = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        receiver.posts.append((body, self.headers["Idempotency-Key"]))
        answer = receiver.answers.pop(0) if receiver.answers else 200
        if answer == "hang up":
          self.connection.close()
          return
        if answer == "slow":
          time.sleep(1.0)
          return
        self.send_response(answer[0] if isinstance(answer, tuple) else answer)
        for name, value in (answer[1] if isinstance(answer, tuple) else {}).items():
          self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

      def log_message(self, *_: Any) -> None:
        pass

    self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
    threading.Thread(target=self.server.serve_forever, daemon=True).start()

  def ids(self) -> list[str]:
    return [body["event_id"] for body, _ in self.posts]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
  made = Receiver()
  yield made
  made.server.shutdown()
  made.server.server_close()


def send(receiver: Receiver, events: list[ToldEvent], told: Path, answers: list[Any]) -> tuple[Any, list[float]]:
  receiver.answers, waits = answers, []
  return send_events(receiver.url, events, Delivered(told), QUICK, waits.append), waits


def test_a_server_that_fails_twice_gets_the_event_the_third_time(receiver: Receiver, tmp_path: Path) -> None:
  sent, waits = send(receiver, [event()], tmp_path / "told", [500, 503])
  assert (sent.delivered, sent.pending, sent.reason) == (1, 0, "")
  assert waits == [0.5, 1.0]
  assert receiver.posts == [(json.loads(json.dumps(as_json(event()))), event_key(event()))] * 3
  assert "attention_change" not in receiver.posts[0][0]
  sent, _ = send(receiver, [event()], tmp_path / "told", [])
  assert (sent.delivered, sent.pending, len(receiver.posts)) == (0, 0, 3)
  send(receiver, [event("db-1", attention_change=(("disk", -7.5),))], tmp_path / "told", [])
  assert receiver.posts[3][0]["attention_change"] == [{"metric": "disk", "change": -7.5}]


@pytest.mark.parametrize("answer", [500, "hang up", "slow", 408, 429])
def test_what_is_never_accepted_stays_pending_and_is_sent_by_the_next_run(
  receiver: Receiver, tmp_path: Path, answer: Any
) -> None:
  events = [event("a"), event("b"), event("c")]
  sent, waits = send(receiver, events, tmp_path / "told", [200, answer, answer, answer])
  assert (sent.delivered, sent.pending) == (1, 2)
  assert sent.reason.startswith("event b:0-6: ")
  assert sent.reason.endswith(" after 3 tries")
  assert "secret" not in sent.reason
  assert len(waits) == 2
  assert receiver.ids() == ["a:0-6"] + ["b:0-6"] * 3  # the server is down: c was not tried
  sent, _ = send(receiver, events, tmp_path / "told", [])
  assert (sent.delivered, sent.pending) == (2, 0)
  assert receiver.ids()[4:] == ["b:0-6", "c:0-6"]


@pytest.mark.parametrize("answer", [400, 404, 413, 302])
def test_a_refusal_is_not_tried_again_and_holds_nobody_up(receiver: Receiver, tmp_path: Path, answer: int) -> None:
  sent, waits = send(receiver, [event("a"), event("b")], tmp_path / "told", [answer])
  assert (sent.delivered, sent.pending, sent.reason, waits) == (1, 1, f"event a:0-6: answer {answer}", [])
  assert receiver.ids() == ["a:0-6", "b:0-6"]
  sent, _ = send(receiver, [event("a"), event("b")], tmp_path / "told", [])
  assert (sent.delivered, receiver.ids()[2:]) == (1, ["a:0-6"])


def test_a_server_may_ask_for_a_longer_wait_but_not_for_ever(receiver: Receiver, tmp_path: Path) -> None:
  answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "9000"})]
  assert send(receiver, [event()], tmp_path / "told", answers)[1] == [7.0, 60.0]


def test_nobody_there_is_a_pending_event(receiver: Receiver, tmp_path: Path) -> None:
  receiver.server.server_close()
  sent = send_events("http://127.0.0.1:9/x", [event()], Delivered(tmp_path / "told"), QUICK, lambda _: None)
  assert sent.reason == "event web-1:0-6: no answer (ConnectionError) after 3 tries"
  assert place_of("https://user:pass@host:8443/a?b=c") == "https://host:8443"


# --- Prometheus


def samples(text: str) -> dict[tuple[str, ...], float]:
  """Returns {(name, label values in order): value} by prometheus_client's parser."""
  found = {}
  for family in text_string_to_metric_families(text):
    assert family.type == "gauge"
    assert family.documentation
    for sample in family.samples:
      key = (sample.name, *sample.labels.values())
      assert key not in found
      found[key] = sample.value
  return found


def test_prometheus_text_is_read_back_by_its_own_parser(tmp_path: Path) -> None:
  folder = write_scores(tmp_path / "scored")
  target = tmp_path / "mtad.prom"
  done = succeeded(run_here("alert.py", f"--workdir={folder}", f"--prometheus={target}"))
  assert f"{target}: 2 machines, 1 in alarm" in done.stdout
  found = samples(target.read_text())
  assert found["mtad_score", EVIL] == 3.5
  assert found["mtad_score_ratio", EVIL] == 3.5 / 3.0
  assert found["mtad_threshold", EVIL, "critical"] == 3.0
  assert found["mtad_threshold", EVIL, "warning"] == 1.5
  alarms = {key[1:]: value for key, value in found.items() if key[0] == "mtad_alarm"}
  assert alarms == {(EVIL, "critical"): 1, (EVIL, "warning"): 1, ("db-1", "critical"): 0, ("db-1", "warning"): 0}
  assert found["mtad_valid", "db-1"] == 1
  assert found["mtad_newest_row_seconds", EVIL] == (FIRST + np.timedelta64(7, "m")).astype(np.int64) / 1000
  bands = {key[2]: value for key, value in found.items() if key[0] == "mtad_expected_high"}
  assert bands == {"mem": 15.0, "disk": 17.0, "net": 16.0}  # the newest row's three largest
  assert math.isnan(found["mtad_actual", EVIL, "disk"])
  assert found["mtad_events", EVIL, "critical"] == found["mtad_events", EVIL, "warning"] == 1
  assert found["mtad_events", "db-1", "critical"] == 0
  assert found["mtad_model_age_seconds",] == pytest.approx(7200, abs=60)
  assert sorted(os.listdir(tmp_path)) == ["mtad.prom", "scored"]  # nothing half-written beside it


def test_a_newest_row_without_a_score_is_no_alarm(tmp_path: Path) -> None:
  folder = write_scores(tmp_path, timed=False, num_rows=7, warning=None)
  row = newest_rows(str(folder))[0]
  assert (row.is_valid, row.is_alarm, row.warning, row.timestamp_s) == (False, False, None, None)
  succeeded(run_here("alert.py", f"--workdir={folder}", f"--prometheus={tmp_path / 'x.prom'}"))
  found = samples((tmp_path / "x.prom").read_text())
  assert math.isnan(found["mtad_score", EVIL])
  assert (found["mtad_valid", EVIL], found["mtad_alarm", EVIL, "critical"]) == (0, 0)
  assert not [key for key in found if key[0] == "mtad_newest_row_seconds"]
  assert ("mtad_threshold", EVIL, "warning") not in found


# --- the command


def test_the_command_tells_every_outlet_and_fails_where_one_event_is_pending(
  receiver: Receiver, tmp_path: Path
) -> None:
  folder = write_scores(tmp_path / "run")
  lines, target = tmp_path / "events.jsonl", tmp_path / "mtad.prom"
  flags = (f"--workdir={folder}", f"--jsonl={lines}", f"--prometheus={target}", f"--webhook={receiver.url}")
  receiver.answers = [400]
  done = run_here("alert.py", *flags)
  told = refused(done, 1, "127.0.0.1", "1 events pending, run again: event", "answer 400")
  assert "secret" not in told + done.stdout
  assert "1 events delivered" in done.stdout
  assert [line["level"] for line in lines_of(lines)] == ["critical", "warning"]
  assert lines_of(lines)[0]["machine"] == EVIL
  assert target.is_file()
  done = succeeded(run_here("alert.py", *flags))
  assert "0 events appended" in done.stdout
  assert "1 events delivered" in done.stdout
  assert sorted(receiver.ids()) == sorted([f"{EVIL}:2-5", f"{EVIL}:2-5", f"{EVIL}:7-8"])
  memory = list((folder / "alerts").iterdir())
  assert [path.suffix for path in memory] == [".json"]
  assert "secret" not in memory[0].name + memory[0].read_text()
  critical = tmp_path / "critical.jsonl"
  succeeded(run_here("alert.py", f"--workdir={folder}", f"--jsonl={critical}", "--level=critical"))
  assert [line["level"] for line in lines_of(critical)] == ["critical"]


def test_the_command_refuses_by_one_line(tmp_path: Path) -> None:
  refused(run_here("alert.py", f"--workdir={tmp_path}"), 2, "--jsonl, --webhook or --prometheus is wanted")
  work = f"--workdir={tmp_path}"
  refused(run_here("alert.py", work, f"--jsonl={tmp_path / 'x'}"), 1, "events.parquet: not found; score.py writes it")
  refused(run_here("alert.py", work, "--webhook=ftp://host/x"), 2, "--webhook: ftp: an http:// or https:// URL")
  refused(run_here("alert.py", work, f"--prometheus={tmp_path / 'x.txt'}"), 2, "files that end in .prom only")
  refused(run_here("alert.py", work, f"--jsonl={tmp_path / 'gone' / 'x'}"), 2, "there is no folder")
  (tmp_path / "events.parquet").write_text("no parquet")
  refused(run_here("alert.py", work, f"--jsonl={tmp_path / 'x'}"), 1, "not a readable Parquet file")


def test_tables_of_before_there_were_levels_hold_critical_events(tmp_path: Path) -> None:
  import pyarrow.parquet as pq

  folder = write_scores(tmp_path)
  pq.write_table(pq.read_table(folder / "events.parquet").drop(["level"]), folder / "events.parquet")
  assert [each.level for each in read_events(str(folder), "critical")] == ["critical", "critical"]
