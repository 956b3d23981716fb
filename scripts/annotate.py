"""Keeps the ledger of events and of what people said of them; counts, and refits thresholds by it.

python scripts/annotate.py --workdir=runs/mine record                     # the events of the last scoring
python scripts/annotate.py --workdir=runs/mine record --scores=scored     # of score.py --output=scored
python scripts/annotate.py --workdir=runs/mine list --role=web --verdict=open --since=2026-03-01
python scripts/annotate.py --workdir=runs/mine show 1
python scripts/annotate.py --workdir=runs/mine mark 1 false --author=ann --comment='nightly backup'
python scripts/annotate.py --workdir=runs/mine undo 1 --author=ann
python scripts/annotate.py --workdir=runs/mine export review.csv          # fill in the empty verdicts, then
python scripts/annotate.py --workdir=runs/mine import review.csv --author=ann
python scripts/annotate.py --workdir=runs/mine summary --change=1         # or --json
python scripts/annotate.py --workdir=runs/mine refit                      # thresholds from what was marked; --write
python scripts/annotate.py --workdir=runs/mine propose                    # metrics for the prior, as its lines

EVENT is the number that list shows, or MACHINE:FIRSTROW-ENDROW as in events.parquet. Verdicts: true; false;
expected (a real change that was planned: neither a hit nor a false alarm).
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import annotate_lines
import annotate_refit
from absl import flags
from etils import epath
from program import UsageError, run

from mtad_jax.alerts.alarms import Alarm, all_alarms, shown_alarms
from mtad_jax.alerts.curves import curves
from mtad_jax.alerts.ledger import ledger_path, open_ledger, writing
from mtad_jax.alerts.proposals import proposal_lines, propose, read_moves, training_ranges
from mtad_jax.alerts.ranges import start_key
from mtad_jax.alerts.recording import read_recording, read_roles, series_of
from mtad_jax.alerts.records import (
  NO_VERDICT,
  VERDICTS,
  Annotation,
  Book,
  add_annotations,
  add_recording,
  insert_annotation,
  read_annotations,
  read_book,
  read_event_roles,
)
from mtad_jax.alerts.refit import MIN_ANNOTATIONS
from mtad_jax.alerts.sheet import read_sheet, to_ms, write_sheet
from mtad_jax.train.workdir import write_whole

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "the run", required=True)
flags.DEFINE_string("scores", None, "record, refit, propose: the folder of the tables; default: the work directory")
flags.DEFINE_string("machine", None, "list: of one machine")
flags.DEFINE_string("role", None, "list: of one role")
flags.DEFINE_enum("verdict", None, ["open", *VERDICTS], "list: those alone")
flags.DEFINE_string("since", None, "list: that begin then or later, e.g. 2026-03-01 or 2026-03-01T12:00 (UTC)")
flags.DEFINE_integer("change", None, "list, summary, propose: of one change; default: of each row's first")
flags.DEFINE_string("author", None, "mark, undo, import: who says so")
flags.DEFINE_string("comment", "", "mark, undo: why")
flags.DEFINE_bool("json", False, "summary: the same figures as JSON")
flags.DEFINE_bool("write", False, "refit: write the thresholds into calibration.json; default: a preview")
flags.DEFINE_bool("below_pot", False, "refit: thresholds may fall below what POT promised, to raise what was missed")
flags.DEFINE_integer(
  "min_annotations", MIN_ANNOTATIONS, "refit: true and false ranges of a machine; fewer: its role's", lower_bound=1
)


def _now_ms() -> int:
  return time.time_ns() // 1_000_000


def _folder() -> epath.Path:
  return epath.Path(FLAGS.scores or FLAGS.workdir)


def _author() -> str:
  author = (FLAGS.author or "").strip()
  if not author:
    raise UsageError("--author: a name is wanted, of who says so")
  return author


def _book() -> Book:
  with open_ledger(FLAGS.workdir) as connection:
    return read_book(connection)


def _record() -> None:
  recording = read_recording(FLAGS.workdir, _folder())
  with open_ledger(FLAGS.workdir, create=True) as connection:
    added = add_recording(connection, recording, _now_ms())
  new = "new: " if added.is_new_change else ""
  print(
    f"change {added.change_id} ({new}run {recording.change.run_id}, rule {recording.change.rule}):"
    f" {len(recording.spans)} machines, {added.num_events} events new, {added.num_seen_again} seen again with another"
    f" end, peak or causes, {added.num_known} known"
  )


def _list() -> None:
  alarms = shown_alarms(_book(), FLAGS.change)
  since = None
  if FLAGS.since is not None:
    try:
      since = to_ms(FLAGS.since)
    except ValueError:
      raise UsageError(f"--since={FLAGS.since}: no time; one like 2026-03-01T12:00 is wanted") from None
    if alarms and all(alarm.event.range.start_ms is None for alarm in alarms):
      raise UsageError(f"--since={FLAGS.since}: these events have no times")
  for flag, names in (
    ("machine", {alarm.event.range.machine for alarm in alarms}),
    ("role", {alarm.event.role for alarm in alarms}),
  ):
    wanted = FLAGS[flag].value
    if wanted is not None and wanted not in names:
      raise ValueError(f"--{flag}={wanted}: has no events; there are {', '.join(sorted(names)) or 'none at all'}")

  def is_wanted(alarm: Alarm) -> bool:
    start, wanted = alarm.event.range.start_ms, FLAGS.verdict
    return (
      FLAGS.machine in (None, alarm.event.range.machine)
      and FLAGS.role in (None, alarm.event.role)
      and (wanted is None or (alarm.verdict or "open") == wanted)
      and (since is None or (start is not None and start >= since))
    )

  chosen = [alarm for alarm in alarms if is_wanted(alarm)]
  chosen.sort(key=lambda alarm: (alarm.verdict is not None, -alarm.event.severity, alarm.event.id))
  print("\n".join(annotate_lines.list_lines(chosen)))


def _find(book: Book, name: str) -> Alarm:
  """Returns the event of a number, or the newest of MACHINE:FIRSTROW-ENDROW."""
  found = None
  for alarm in all_alarms(book):
    place = alarm.event.range
    if name in (str(alarm.event.id), f"{place.machine}:{place.start_row}-{place.end_row}"):
      found = alarm
  if found is None:
    numbers = f"1 to {book.events[-1].id}" if book.events else "none; annotate.py record takes them in"
    raise ValueError(f"event {name!r}: not in the ledger; there are {numbers}")
  return found


def _show(name: str) -> None:
  book = _book()
  print("\n".join(annotate_lines.show_lines(_find(book, name), book)))


def _annotate(alarm: Alarm, verdict: str) -> None:
  annotation = Annotation(0, alarm.event.range, verdict, _author(), FLAGS.comment, _now_ms())
  with open_ledger(FLAGS.workdir) as connection:
    add_annotations(connection, [annotation], _now_ms())
  told = "open again" if verdict == NO_VERDICT else verdict
  print(f"event {alarm.event.id}: {told}; it was {alarm.verdict or 'open'}")


def _mark(name: str, verdict: str) -> None:
  if verdict not in VERDICTS:
    raise UsageError(f"{verdict!r} is no verdict; choose one of {', '.join(VERDICTS)} (undo takes one back)")
  _author()
  _annotate(_find(_book(), name), verdict)


def _undo(name: str) -> None:
  _author()
  book = _book()
  alarm = _find(book, name)
  given = alarm.judged.annotation
  if given is None:
    raise ValueError(f"event {alarm.event.id}: it is open; there is no verdict to take back")
  if alarm.judged.is_carried:
    key = (given.range.machine, start_key(given.range))
    others = [event.id for event in book.events if (event.range.machine, start_key(event.range)) == key]
    where = f"event {others[-1]}" if others else annotate_lines.place_of(given.range)
    raise ValueError(f"event {alarm.event.id}: its verdict is carried over from {where}; take it back there")
  _annotate(alarm, NO_VERDICT)


def _export(file: str) -> None:
  book = _book()
  alarms = shown_alarms(book, FLAGS.change)
  write_whole(file, write_sheet(alarms, book.annotations))
  num_open = sum(alarm.verdict is None for alarm in alarms)
  print(f"{file}: {len(book.annotations)} annotations, {num_open} open events without a verdict")


def _import(file: str) -> None:
  try:
    text = epath.Path(file).read_bytes().decode("utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{file}: not UTF-8 text (byte {error.start})") from None
  roles, author = read_roles(FLAGS.workdir), (FLAGS.author or "").strip() or None
  with open_ledger(FLAGS.workdir, create=True) as connection, writing(connection):
    known, now = read_annotations(connection), _now_ms()
    roles = {**read_event_roles(connection), **roles}
    fresh, num_known = read_sheet(text, file, roles, known, author=author, now_ms=now)
    for annotation in fresh:
      insert_annotation(connection, annotation, now)
  print(f"{file}: {len(fresh)} annotations new, {num_known} known")


def _summary() -> None:
  found = curves(_book(), FLAGS.change)
  print(
    json.dumps(found, indent=1, allow_nan=False) if FLAGS.json else "\n".join(annotate_lines.summary_lines(found))
  )


def _refit() -> None:
  settings = annotate_refit.Settings(FLAGS.workdir, _folder(), FLAGS.below_pot, FLAGS.min_annotations)
  if FLAGS.write:
    print("\n".join(annotate_refit.write(settings, _now_ms())))
    return
  _, refits = annotate_refit.refitted(settings)
  print("\n".join(annotate_lines.refit_lines(refits)))
  print("a preview: nothing was written; --write writes it")


def _propose() -> None:
  alarms = shown_alarms(_book(), FLAGS.change)
  file = _folder() / "metric_scores.parquet"
  false = [alarm for alarm in alarms if alarm.verdict == "false"]
  moves = read_moves(file, false, series_of(FLAGS.workdir, _folder())) if file.exists() else {}
  found = propose(alarms, moves, training_ranges(FLAGS.workdir))
  print("# Proposals from what was marked; take into the prior what you know to be true.")
  for proposal in found:
    print("\n" + "\n".join(proposal_lines(proposal)))
  if not found:
    print("# None: no metric was named first in three or more false alarms of a role and in no true one.")


class _Command(NamedTuple):
  """run: is given the words after the command. words: their names. flags: those that it reads."""

  run: Callable[..., None]
  words: tuple[str, ...] = ()
  flags: tuple[str, ...] = ()


COMMANDS = {
  "record": _Command(_record, flags=("scores",)),
  "list": _Command(_list, flags=("machine", "role", "verdict", "since", "change")),
  "show": _Command(_show, ("EVENT",)),
  "mark": _Command(_mark, ("EVENT", "VERDICT"), ("author", "comment")),
  "undo": _Command(_undo, ("EVENT",), ("author", "comment")),
  "export": _Command(_export, ("FILE.csv",), ("change",)),
  "import": _Command(_import, ("FILE.csv",), ("author",)),
  "summary": _Command(_summary, flags=("change", "json")),
  "refit": _Command(_refit, flags=("scores", "write", "below_pot", "min_annotations")),
  "propose": _Command(_propose, flags=("scores", "change")),
}


def main(*words: str) -> None:
  """Runs one command on the work directory's ledger."""
  names = ", ".join(COMMANDS)
  if not words:
    raise UsageError(f"a command is wanted, one of {names}")
  command = COMMANDS.get(words[0])
  if command is None:
    raise UsageError(f"{words[0]!r} is no command; choose one of {names}")
  _check_words(words[0], command, words[1:])
  ledger_path(FLAGS.workdir)  # refuses a folder that can have no ledger before anything is read
  command.run(*words[1:])


def _check_words(name: str, command: _Command, words: Sequence[str]) -> None:
  if len(words) != len(command.words):
    raise UsageError(f"{' '.join((name, *command.words))} is wanted, not {' '.join((name, *words))}")
  own = {flag for each in COMMANDS.values() for flag in each.flags}
  for flag in sorted(own - set(command.flags)):
    if FLAGS[flag].present:
      raise UsageError(f"--{flag}: {name} does not read it")


if __name__ == "__main__":
  run(main, takes_words=True)
