"""Annotations as CSV: every one ever made, then the events still open with an empty verdict to fill in; and back.

A row is of a range of rows or of times, so that it holds for another ledger of the same machines too. The same file
read twice adds nothing.
"""

import csv
import datetime
import io
from collections.abc import Collection, Mapping, Sequence

from mtad_jax.alerts.alarms import Alarm
from mtad_jax.alerts.ranges import Range, start_key
from mtad_jax.alerts.records import NO_VERDICT, VERDICTS, Annotation

COLUMNS = (
  "event", "change", "machine", "role", "series", "start_row", "end_row", "start", "end", "severity", "peak",
  "causes", "verdict", "author", "comment", "time",
)  # fmt: skip
_NEEDED = ("machine", "verdict")
_ALLOWED = (*VERDICTS, NO_VERDICT)


def time_text(ms: int | None) -> str:
  """Returns a time as ISO text (UTC, to the millisecond where it has any), empty for None."""
  if ms is None:
    return ""
  stamp = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
  return stamp.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")


def to_ms(text: str) -> int:
  """Returns ms since 1970 of an ISO time, in UTC where it names no zone; raises ValueError on another text."""
  stamp = datetime.datetime.fromisoformat(text)
  if stamp.tzinfo is None:
    stamp = stamp.replace(tzinfo=datetime.UTC)
  since = stamp - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
  return since // datetime.timedelta(milliseconds=1)


def write_sheet(alarms: Sequence[Alarm], annotations: Sequence[Annotation]) -> str:
  """Returns the CSV text.

  Args:
    alarms: all that are to be named, see `alarms`. annotations: all, in the order of recording.
  """
  out = io.StringIO(newline="")
  writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
  writer.writeheader()
  by_start = {(alarm.event.range.machine, start_key(alarm.event.range)): alarm for alarm in alarms}
  for found in annotations:
    alarm = by_start.get((found.range.machine, start_key(found.range)))
    given = {"verdict": found.verdict, "author": found.author, "comment": found.comment}
    writer.writerow({**_described(found.range, alarm), **given, "time": time_text(found.time_ms)})
  for alarm in alarms:
    if alarm.verdict is None:
      writer.writerow(_described(alarm.event.range, alarm))
  return out.getvalue()


def _described(found: Range, alarm: Alarm | None) -> dict[str, object]:
  rows = {"start_row": found.start_row, "end_row": found.end_row}
  values: dict[str, object] = {
    "machine": found.machine,
    "series": found.series,
    **{name: "" if row is None else row for name, row in rows.items()},
    "start": time_text(found.start_ms),
    "end": time_text(found.end_ms),
  }
  if alarm is None:
    return values
  event = alarm.event
  causes = "; ".join(f"{metric} {share:.3f}" for metric, share in event.causes)
  about = {"event": event.id, "change": event.change_id, "role": event.role, "causes": causes}
  return {**values, **about, "severity": event.severity, "peak": event.peak}


def read_sheet(
  text: str, file: str, machines: Collection[str], known: Sequence[Annotation], *, author: str | None, now_ms: int
) -> tuple[list[Annotation], int]:
  """Returns (the annotations that are new, in the order of the file, and how many are known already).

  A row without a verdict is passed over. One without a time is new unless its range has that very verdict, author and
  comment by now; one with a time, unless it was ever recorded.

  Args:
    text: of the CSV file; `file` is named in errors.
    machines: that may be annotated. known: the ledger's annotations, in the order of recording.
    author: of rows that name none. now_ms: the time of rows that have none.

  Raises:
    ValueError: a column or a field that is not allowed; file, row, field and value are named.
  """
  lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
  head = lines[0] if lines else []
  for name in _NEEDED:
    if name not in head:
      raise ValueError(f"{file}: row 1: column {name!r} is missing; there are {', '.join(head) or 'none'}")
  for name in head:
    if name not in COLUMNS or head.count(name) > 1:
      raise ValueError(f"{file}: row 1: column {name!r} is unknown or there twice; known: {', '.join(COLUMNS)}")
  ever = {found._replace(id=0) for found in known}
  last = {(found.range.machine, start_key(found.range)): found for found in known}
  fresh, num_known = [], 0
  for number, fields in enumerate(lines[1:], start=2):
    if not any(fields):
      continue
    if len(fields) != len(head):
      raise ValueError(f"{file}: row {number}: {len(fields)} fields; {len(head)} are wanted as in row 1")
    row = dict(zip(head, fields, strict=True))
    if not row["verdict"].strip():
      continue
    found = _read_row(row, f"{file}: row {number}", machines, author, now_ms)
    key = (found.range.machine, start_key(found.range))
    same = last.get(key)
    is_known = found in ever
    if not row.get("time", "").strip():
      is_known = same is not None and found == same._replace(id=0, time_ms=now_ms, range=found.range)
    if is_known:
      num_known += 1
      continue
    fresh.append(found)
    ever.add(found)
    last[key] = found
  return fresh, num_known


def _read_row(
  row: Mapping[str, str], place: str, machines: Collection[str], author: str | None, now_ms: int
) -> Annotation:
  def given(name: str) -> str:
    return row.get(name, "").strip()

  def whole(name: str) -> int | None:
    if not given(name):
      return None
    if not given(name).isdecimal():
      raise ValueError(f"{place}: field {name!r}: {row[name]!r} is no row; a whole number from 0 is wanted")
    return int(given(name))

  def time(name: str) -> int | None:
    if not given(name):
      return None
    try:
      return to_ms(given(name))
    except ValueError:
      raise ValueError(
        f"{place}: field {name!r}: {row[name]!r} is no time; one like 2026-03-01T12:30:00 is wanted"
      ) from None

  if given("machine") not in machines:
    some = ", ".join(sorted(machines)[:8])
    raise ValueError(f"{place}: field 'machine': {row['machine']!r} is not in this run; there are {some}")
  if given("verdict") not in _ALLOWED:
    allowed = ", ".join(_ALLOWED)
    raise ValueError(f"{place}: field 'verdict': {row['verdict']!r} is not allowed; choose one of {allowed}")
  who = given("author") or author
  if not who:
    raise ValueError(f"{place}: field 'author': '' is nobody; name one there or with --author")
  rows, times = (whole("start_row"), whole("end_row")), (time("start"), time("end"))
  for names, pair in ((("start_row", "end_row"), rows), (("start", "end"), times)):
    if (pair[0] is None) != (pair[1] is None):
      name = names[pair[0] is not None]
      raise ValueError(f"{place}: field {name!r}: '' is wanted together with {names[pair[0] is None]!r}, or neither")
  if rows[0] is not None and rows[1] is not None and rows[1] <= rows[0]:
    raise ValueError(f"{place}: field 'end_row': {row['end_row']!r} is not above start_row, {rows[0]}")
  if times[0] is not None and times[1] is not None and times[1] < times[0]:
    raise ValueError(f"{place}: field 'end': {row['end']!r} is before start, {row['start']!r}")
  if rows[0] is None and times[0] is None:
    raise ValueError(f"{place}: field 'start_row': '' is no range; give start_row and end_row, or start and end")
  when = time("time")
  where = Range(given("machine"), given("series") or "test", *rows, *times)
  return Annotation(0, where, given("verdict"), who, row.get("comment", ""), now_ms if when is None else when)
