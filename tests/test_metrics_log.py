"""metrics.jsonl: a log that was cut anywhere and resumed equals one never stopped; damage is told by its place."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtad_jax.train import metrics_log
from mtad_jax.train.metrics_file import GroupLog, find_parts, group_logs, read_metrics
from mtad_jax.train.metrics_log import MetricsLog

NAMES = {0: ("web-1", "wéb\u20282"), 1: ("db-1",)}
NUM_STEPS, EVERY = 60, 5


def row_of(group: int, step: int) -> dict[str, Any]:
  """Returns a log row whose floats need every digit, with a record of trouble now and then."""
  random = np.random.default_rng([group, step])
  num = len(NAMES[group])
  row: dict[str, Any] = {
    "step": step,
    "machine_step": [step] * num,
    "learning_rate": random.uniform(size=num).tolist(),
    "loss": random.lognormal(sigma=9, size=num).tolist(),
    "num_skipped": [step // 7] * num,
  }
  if step % 15 == 0:
    record = {"machine": NAMES[group][0], "step": step, "tick": step, "attempt": 0, "verdict": "skipped"}
    record |= {
      "back_to": None,
      "parts": ["kl"],
      "blocks": [],
      "learning_rate": 1e-3,
      "loss": None,
      "usual_loss": None,
    }
    row["trouble"] = [record | {"worst_row": 3, "rows": [1, 3]}]
  return row


def write_steps(folder: Path, group: int, resume_step: int, until: int = NUM_STEPS) -> None:
  """Does what training does with the log: opens it, and flushes at each checkpoint (every other row)."""
  log = MetricsLog(folder, group, NAMES[group], resume_step)
  for step in range(resume_step + EVERY, until + 1, EVERY):
    log.write(row_of(group, step))
    if step % (2 * EVERY) == 0:
      log.flush()
  log.flush()


def joined(folder: Path) -> str:
  return "".join(json.dumps(row) + "\n" for row in read_metrics(folder))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
  """A log of two groups, never stopped."""
  folder = tmp_path / "whole"
  folder.mkdir()
  for group in NAMES:
    write_steps(folder, group, 0)
  return folder


@pytest.fixture
def in_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(metrics_log, "is_cloud", lambda path: True)


def steps_of(folder: Path, group: int) -> list[int]:
  logs = group_logs(read_metrics(folder))
  return [row["step"] for row in logs[group].rows] if group in logs else []


# ---- cut and resumed


def test_a_log_cut_at_any_byte_and_resumed_is_bit_equal(whole: Path, tmp_path: Path) -> None:
  text = (whole / "metrics.jsonl").read_bytes()
  random = np.random.default_rng(0)
  cuts = [0, 1, text.index(b"\n"), text.index(b"\n") + 1, len(text) - 1, len(text)]
  for number, cut in enumerate([*cuts, *random.integers(0, len(text), 60).tolist()]):
    folder = tmp_path / f"cut-{number}"
    folder.mkdir()
    (folder / "metrics.jsonl").write_bytes(text[:cut])
    in_second = any(row["group"] == 1 for row in read_metrics(folder))
    for group in [0] if not in_second else [0, 1]:
      # a checkpoint is newer than no row but those flushed before it
      complete = [0, *(step for step in steps_of(folder, group) if step % (2 * EVERY) == 0)]
      finished = in_second and group == 0
      write_steps(folder, group, NUM_STEPS if finished else int(random.choice(complete)))
    if not in_second:
      write_steps(folder, 1, 0)
    assert (folder / "metrics.jsonl").read_bytes() == text, f"cut at byte {cut}"
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]


def test_rows_of_another_group_stay_in_place(whole: Path) -> None:
  before = (whole / "metrics.jsonl").read_text().splitlines()
  MetricsLog(whole, 1, NAMES[1], 20)
  after = (whole / "metrics.jsonl").read_text().splitlines()
  assert after == before[: len(after)]
  assert steps_of(whole, 0) == list(range(EVERY, NUM_STEPS + 1, EVERY))
  assert steps_of(whole, 1) == [5, 10, 15, 20]


def test_a_row_is_in_the_file_when_write_returns_and_null_where_not_finite(tmp_path: Path) -> None:
  log = MetricsLog(tmp_path, 1, NAMES[1], 0)
  log.write({"step": 5, "loss": [float("nan")], "learning_rate": [float("inf")]})
  assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [
    '{"header": true, "group": 1, "machines": ["db-1"]}',
    '{"group": 1, "step": 5, "loss": [null], "learning_rate": [null]}',
  ]


def test_a_step_that_stands_twice_counts_once_the_later_one(tmp_path: Path) -> None:
  write_steps(tmp_path, 1, 0, until=10)
  path = tmp_path / "metrics.jsonl"
  again = json.dumps({"group": 1, "step": 5, "loss": [7.0]})
  path.write_text(path.read_text() + again)  # no line end: cut just before it
  (log,) = group_logs(read_metrics(tmp_path)).values()
  assert (log.rows[0]["step"], log.rows[0]["loss"]) == (5, [7.0])
  MetricsLog(tmp_path, 1, NAMES[1], 10)
  lines = path.read_text().splitlines()
  assert len(lines) == 3
  assert lines[1] == again


def test_a_log_that_is_gone_begins_anew_with_a_header(tmp_path: Path) -> None:
  write_steps(tmp_path, 1, 30)
  assert group_logs(read_metrics(tmp_path))[1].machines == NAMES[1]
  assert read_metrics(tmp_path / "nowhere") == []


# ---- numbered parts


def fail_at(monkeypatch: pytest.MonkeyPatch, kind: type, call: int) -> None:
  """Ends the writer, as a kill would, before its `call`-th change of the folder (from 0)."""
  count = iter(range(10**6))
  for name in ("write_text", "unlink"):
    real = getattr(kind, name)

    def changed(*args: Any, _real: Callable[..., Any] = real, **named: Any) -> Any:
      if next(count) == call:
        raise KeyboardInterrupt
      return _real(*args, **named)

    monkeypatch.setattr(kind, name, changed)


@pytest.mark.usefixtures("in_cloud")
def test_parts_are_whole_or_nothing_at_every_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  start = tmp_path / "start"
  start.mkdir()
  write_steps(start, 0, 0)
  wanted = joined(start)
  assert len(find_parts(start)) == 7, "the header's part, and one a flush"
  kind = type(find_parts(start)[0].path)
  for call in range(20):
    folder = tmp_path / f"kill-{call}"
    folder.mkdir()
    for part in find_parts(start):
      (folder / part.path.name).write_bytes(part.path.read_bytes())
    with monkeypatch.context() as patch:
      fail_at(patch, kind, call)
      try:
        write_steps(folder, 0, 30)
        finished = True
      except KeyboardInterrupt:
        finished = False
    # at the moment of the kill no row up to the checkpoint is lost
    assert [step for step in steps_of(folder, 0) if step <= 30] == [5, 10, 15, 20, 25, 30]
    write_steps(folder, 0, 30)
    assert joined(folder) == wanted, f"killed before change {call}"
    assert len([part for part in find_parts(folder) if part.is_whole]) == 1
    if finished:
      break
  assert finished
  assert call > 8, "the rewrite's write, seven unlinks, and the flushes"


@pytest.mark.usefixtures("in_cloud")
def test_groups_share_the_numbering_of_parts(tmp_path: Path, whole: Path) -> None:
  for group in NAMES:
    write_steps(tmp_path, group, 0, until=40)
    write_steps(tmp_path, group, 20)
  assert joined(tmp_path) == joined(whole)
  numbers = [part.number for part in find_parts(tmp_path)]
  assert len(numbers) == len(set(numbers))
  assert not (tmp_path / "metrics.jsonl").exists()


def test_parts_copied_to_a_local_disk_become_one_file(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  with monkeypatch.context() as patch:
    patch.setattr(metrics_log, "is_cloud", lambda path: True)
    write_steps(tmp_path, 0, 0)
  rows = joined(tmp_path)
  (tmp_path / "metrics-mine.jsonl").write_text("a file of somebody's own, no part\n")
  write_steps(tmp_path, 0, 30)
  assert joined(tmp_path) == rows
  assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics-mine.jsonl", "metrics.jsonl"]


# ---- no space left


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
  """Makes every write beyond `num_bytes` of a file fail, as a full disk does: after a part of the row."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_row_that_does_not_fit_leaves_the_log_as_it_was(tmp_path: Path) -> None:
  log = MetricsLog(tmp_path, 0, NAMES[0], 0)
  log.write(row_of(0, 5))
  path = tmp_path / "metrics.jsonl"
  before = path.read_bytes()
  with (
    file_size_limit(len(before) + 10),
    pytest.raises(OSError, match=r"File too large: '.*/metrics\.jsonl'$"),
  ):
    log.write(row_of(0, 10))
  assert path.read_bytes() == before
  log.write(row_of(0, 15))
  assert steps_of(tmp_path, 0) == [5, 10, 15], "the row is kept until there is room"


def test_a_rewrite_that_does_not_fit_leaves_the_log_and_no_litter(whole: Path) -> None:
  before = (whole / "metrics.jsonl").read_bytes()
  with file_size_limit(100), pytest.raises(OSError, match=r"File too large: '.*/metrics\.jsonl'$"):
    MetricsLog(whole, 0, NAMES[0], 30)
  assert (whole / "metrics.jsonl").read_bytes() == before
  assert [path.name for path in whole.iterdir()] == ["metrics.jsonl"]


# ---- damage

HEADER = '{"header": true, "group": 0, "machines": ["a", "b"]}'
RECORD = {"machine": "a", "step": 1, "tick": 1, "attempt": 0, "verdict": "skipped", "parts": [], "blocks": []}
RECORD |= {
  "back_to": None,
  "learning_rate": 1e-3,
  "loss": None,
  "usual_loss": None,
  "worst_row": None,
  "rows": [],
}


def with_record(**changes: Any) -> str:
  return json.dumps({"group": 0, "step": 5, "trouble": [RECORD | changes]})


def test_a_sound_record_is_read(tmp_path: Path) -> None:
  (tmp_path / "metrics.jsonl").write_text(f"{HEADER}\n{with_record()}\n")
  assert group_logs(read_metrics(tmp_path)) == {
    0: GroupLog(("a", "b"), [{"group": 0, "step": 5, "trouble": [RECORD]}])
  }


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("{", "not readable as JSON"),
    ("", "not readable as JSON"),
    ('{"group": 0, "step": 5, "loss": [NaN, 1]}', "not readable as JSON"),
    ("[]", "a list; named values are wanted"),
    ('{"step": 5}', "group is None; a whole number is wanted"),
    ('{"group": 0, "step": "5"}', "step is '5'; a whole number is wanted"),
    ('{"group": 1, "step": 5}', "no header row names the machines of group 1"),
    ('{"group": 0, "header": true, "machines": "a"}', "machines is no list of names"),
    (
      '{"group": 0, "header": true, "machines": ["b"]}',
      "a second header row names other machines for group 0",
    ),
    ('{"group": 0, "step": 5, "loss": [1]}', "loss has 1 values for 2 machines"),
    ('{"group": 0, "step": 5, "loss": [1, "2"]}', "loss is no list of numbers"),
    ('{"group": 0, "step": 5, "num_skipped": [1, null]}', "num_skipped is no list of numbers"),
    ('{"group": 0, "step": 5, "learning_rate": "1"}', "learning_rate is no list of numbers"),
    ('{"group": 0, "step": 5, "learning_rate": [1]}', "learning_rate has 1 values for 2 machines"),
    ('{"group": 0, "step": 5, "trouble": {}}', "trouble is no list"),
    (with_record(machine="c"), "trouble names no machine of the group"),
    (with_record(tick=None), "trouble: tick is None; a number is wanted"),
    (
      with_record(verdict="gone"),
      "trouble: verdict is 'gone'; one of skipped, rolled back, retired is wanted",
    ),
    (with_record(parts="kl"), "trouble: parts is no list of names"),
    (with_record(rows=[1.5]), "trouble: rows is no list of rows"),
  ],
)
def test_a_damaged_row_is_named(tmp_path: Path, row: str, message: str) -> None:
  path = tmp_path / "metrics.jsonl"
  path.write_text(f'{HEADER}\n{row}\n{{"group": 0, "step": 10}}\n')
  before = path.read_bytes()
  for call in (lambda: read_metrics(tmp_path), lambda: MetricsLog(tmp_path, 0, ("a", "b"), 5)):
    with pytest.raises(ValueError, match="row 2") as caught:
      call()
    assert str(caught.value) == f"{path}: row 2: {message}"
  assert path.read_bytes() == before


def test_half_a_line_is_damage_anywhere_but_at_the_end(tmp_path: Path) -> None:
  path = tmp_path / "metrics.jsonl"
  path.write_text(f'{HEADER}\n{{"group": 0, "st')
  assert [row["group"] for row in read_metrics(tmp_path)] == [0]
  path.write_bytes(f"{HEADER}\n".encode() + b"\x00" * 40)  # what a power failure leaves
  assert len(read_metrics(tmp_path)) == 1
  path.write_text(f'{HEADER}\n{{"group": 0, "st\n')
  with pytest.raises(ValueError, match=r"metrics\.jsonl: row 2: not readable as JSON$"):
    read_metrics(tmp_path)
