"""What annotate.py prints: the ledger's events, figures and refits as aligned lines for a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from program import VERBOSE
from terminal import Row, first_lines, table_lines

from mtad_jax.alerts.alarms import Alarm
from mtad_jax.alerts.ranges import Range, find_overlaps, index_ranges
from mtad_jax.alerts.records import Book
from mtad_jax.alerts.refit import Refit
from mtad_jax.alerts.sheet import time_text
from mtad_jax.evaluate.table import align

_CAUSES_SHOWN = 3
_WEEKS_SHOWN, _GROUPS_SHOWN = 6, 5  # the last weeks; the worst roles, machines and causes
_FIGURES = ("alarms", "true", "false", "expected", "not reviewed", "precision", "95% interval")


def place_of(found: Range) -> str:
  """Returns a range as text: its times, else its rows."""
  if found.start_ms is not None:
    return f"{time_text(found.start_ms)} to {time_text(found.end_ms)}"
  rows = f"rows {found.start_row} to {found.end_row}"
  return rows if found.series == "test" else f"{rows} of {found.series}"


def _causes(causes: Sequence[tuple[str, float]], count: int | None = _CAUSES_SHOWN) -> str:
  shown = causes[:count]
  text = ", ".join(f"{metric} {share:.0%}" for metric, share in shown)
  return (text + (" ..." if len(causes) > len(shown) else "")) or "none"


def list_lines(alarms: Sequence[Alarm]) -> list[str]:
  """Returns a line per event."""
  head = ("event", "change", "machine", "role", "severity", "verdict", "by", "from, to", "causes")
  rows = []
  for alarm in alarms:
    event, said = alarm.event, alarm.judged
    verdict = "open" if said.verdict is None else said.verdict + (" (carried over)" if said.is_carried else "")
    cells = (
      str(event.id),
      str(event.change_id),
      event.range.machine,
      event.role,
      f"{event.severity:.2f}",
      verdict,
      said.annotation.author if said.annotation else "",
      place_of(event.range),
      _causes(event.causes),
    )
    rows.append(Row(cells))
  count = sum(alarm.verdict is None for alarm in alarms)
  lines = table_lines(head, rows, "annotate.py export")
  return [*lines, f"{len(alarms)} events, {count} of them open"] if alarms else ["no events"]


def show_lines(alarm: Alarm, book: Book) -> list[str]:
  """Returns all that the ledger knows of an event, its rows' annotations and what other changes raised there."""
  event = alarm.event
  change = next(each for each in book.changes if each.id == event.change_id)
  lines = [
    f"event {event.id}: {event.range.machine} (role {event.role}), {place_of(event.range)}",
    f"rows {event.range.start_row} to {event.range.end_row} of {event.range.series}",
    f"severity {event.severity:.3f}, peak {event.peak:.6g}, threshold {event.threshold:.6g}",
    f"causes: {_causes(event.causes, None)}",
    f"change {change.id} ({change.note}, {time_text(change.recorded_ms)}): run {change.run_id}, checkpoint steps"
    f" {', '.join(map(str, change.checkpoint_steps))}, rule {change.rule}, prior {change.prior or 'none'}",
    f"recorded {time_text(event.recorded_ms)}",
  ]
  said = alarm.judged
  told = " (carried over from rows that it overlaps)" if said.is_carried else ""
  lines.append(f"verdict: {said.verdict or 'open'}{told}")
  index = index_ranges([found.range for found in book.annotations])
  for place in find_overlaps(index, event.range):
    found = book.annotations[place]
    verdict = "taken back" if found.verdict == "none" else found.verdict
    text = f"  {time_text(found.time_ms)} {found.author}: {verdict}, of {place_of(found.range)}"
    lines.append(text + (f": {found.comment}" if found.comment else ""))
  index = index_ranges([other.range for other in book.events])
  others = [book.events[place] for place in find_overlaps(index, event.range)]
  lines += [
    f"on the same rows: event {other.id} of change {other.change_id}, {place_of(other.range)}"
    for other in others
    if other.id != event.id
  ]
  return lines


def _figures(found: Mapping[str, Any]) -> list[str]:
  counts = [found[name] for name in ("num_true", "num_false", "num_expected", "num_open")]
  value = "-" if found["value"] is None else f"{found['value']:.3f}"
  interval = "-" if found["value"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
  return [str(sum(counts)), *map(str, counts), value, interval]


def summary_lines(curves: Mapping[str, Any]) -> list[str]:
  """Returns the figures of `curves.curves`."""
  rows = [["week", *_FIGURES, "machine-weeks", "false a machine-week"]]
  for found in curves["weeks"]:
    rate, weeks = found["false_per_machine_week"], found["machine_weeks"]
    ends = ["-" if weeks is None else f"{weeks:.2f}", "-" if rate is None else f"{rate:.2f}"]
    rows.append([found["week"], *_figures(found), *ends])
  total = ["all", *_figures(curves["total"]), "", ""]
  shown = rows if VERBOSE.value else [rows[0], *rows[1:][-_WEEKS_SHOWN:]]
  lines = [align([*shown, total])]
  if len(shown) < len(rows):
    lines.append(f"and {len(rows) - len(shown)} weeks before; --json has them all (--verbose prints them)")
  for name, title in (("roles", "role"), ("machines", "machine"), ("metrics", "first cause")):
    rows = [[title, *_FIGURES]]
    rows += [[group, *_figures(found)] for group, found in _most_false_first(curves[name])]
    lines += ["", *_cut(rows, "--json")]
  lines += [
    "",
    "precision: true / (true + false). Expected ones (a real change that was planned) are neither; those not",
    "reviewed are not guessed. The interval (Clopper and Pearson) is for alarms to come, like those reviewed.",
  ]
  if curves["causes"]:
    rows = [["causes that cover most false alarms", "role", "false", "covered so far", "true"]]
    for found in curves["causes"]:
      counts = [str(found["num_covered"]), f"{found['share']:.0%}", str(found["num_true"])]
      rows.append([found["metric"], found["role"], *counts])
    lines += ["", align(rows)]
  return [*lines, "", *_change_lines(curves["changes"])]


def _most_false_first(groups: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
  """Returns (name, figures) of groups of alarms, those first of which most was marked false, then most is open."""
  return sorted(groups.items(), key=lambda pair: (-pair[1]["num_false"], -pair[1]["num_open"]))


def _cut(rows: list[list[str]], rest: str) -> list[str]:
  """Returns the head and the first of the rows, aligned, and what has the others."""
  head, *lines = align(rows).splitlines()
  return [head, *first_lines(lines, rest, _GROUPS_SHOWN)]


def _change_lines(changes: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns a line per change: the annotated ranges that it raises, beside those that the change before did."""

  def raised(found: Mapping[str, Any] | None, kind: str) -> str:
    return "-" if found is None else f"{found[f'num_{kind}_raised']} of {found[f'num_{kind}']}"

  head = ["change", "what", "recorded", "events", "true raised", "false raised"]
  rows = [[*head, "beside", "true: before", "after", "false: before", "after"]]
  for found in changes:
    row = [str(found["change"]), found["note"], time_text(found["recorded_ms"])[:16], str(found["num_events"])]
    row += [raised(found["own"], kind) for kind in ("true", "false")]
    row.append("-" if found["before_change"] is None else f"change {found['before_change']}")
    row += [raised(found[when], kind) for kind in ("true", "false") for when in ("before", "after")]
    rows.append(row)
  return [align(rows), "(of the annotated ranges that a change scored; before and after: on those that both scored)"]


def refit_lines(refits: Sequence[Refit]) -> list[str]:
  """Returns a line per machine that has annotations or a refitted threshold, then the fleet's sums."""
  head = ["machine", "role", "promised", "now", "refitted", "factor", "true raised", "false raised", "events", "by"]
  rows = []
  for found in sorted(refits, key=lambda found: -abs((found.threshold or found.now) - found.now) / (found.now or 1)):
    threshold = "as now" if found.threshold is None else f"{found.threshold:.6g}"
    factor = "-" if found.factor is None else f"{found.factor:.4g}"
    cells = (
      found.machine,
      found.role,
      f"{found.promised:.6g}",
      f"{found.now:.6g}",
      threshold,
      factor,
      f"{found.num_true_now} -> {found.num_true_then}",
      f"{found.num_false_now} -> {found.num_false_then}",
      f"{found.num_events_now} -> {found.num_events_then}",
      found.basis,
    )
    rows.append(Row(cells))
  sums = {
    kind: [sum(getattr(found, f"num_{kind}_{when}") for found in refits) for when in ("now", "then")]
    for kind in ("true", "false", "events")
  }
  told = ", ".join(f"{kind} {now} -> {then}" for kind, (now, then) in sums.items())
  lines = table_lines(head, rows, "calibration.json, once written,")
  return [*lines, f"raised on these rows, now -> refitted: {told}"]
