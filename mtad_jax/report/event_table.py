"""The table of events, worst first: all that a card says in a line, for as many as a page holds."""

from mtad_jax.report import tables
from mtad_jax.report.event_cards import worst_first
from mtad_jax.report.inputs import Work


def section(work: Work) -> str:
  """Returns the table, or why there is none."""
  if "events" in work.missing:
    return tables.absent(work.missing["events"])
  if not work.events:
    return "<p>No score passed its threshold: there are no events.</p>"
  order = worst_first(work.events)
  shown = order[: tables.MAX_EVENTS]
  timed = any(event.start for event in shown)
  levelled = any(event.level != "critical" for event in work.events)
  columns = [
    tables.Column("event"),
    tables.Column("machine"),
    tables.Column("rows", numeric=True),
    *([tables.Column("from", numeric=True), tables.Column("to", numeric=True)] if timed else []),
    *([tables.Column("level")] if levelled else []),
    tables.Column("severity", numeric=True),
    tables.Column("peak", numeric=True),
    tables.Column("metrics behind it"),
  ]
  rows = [
    [
      event.event_id,
      event.machine,
      f"{event.start_row:,}{tables.NONE}{event.end_row:,}",
      *([event.start, event.end] if timed else []),
      *([event.level] if levelled else []),
      tables.number(event.severity),
      tables.number(event.peak),
      tables.contributors_text(event.contributors),
    ]
    for event in shown
  ]
  caption = f"{len(shown):,} of {len(order):,} events, most severe first; end rows are exclusive"
  if len(shown) < len(order):
    caption += "; events.parquet has the rest"
  return tables.table(caption, columns, rows, row_machines=[event.machine for event in shown])
