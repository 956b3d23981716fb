"""The report page: one HTML file that opens offline, on a phone as on a desk.

The plotting library stands in the file once; everything else is small. A part that cannot be drawn says why
in its place. A content policy in the page forbids it to load anything from anywhere.
"""

import html
import json
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from mtad_jax.report import browser, evaluation, figures, ledger, notes, role_table, tables, trouble
from mtad_jax.report.inputs import Event, MachineScores, Work

_POLICY = (
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
  "form-action 'none'; base-uri 'none'"
)


def render(work: Work, *, made: str) -> str:
  """Returns the whole page.

  Args:
    work: from `inputs.read_work`.
    made: when the page was made, as text; the clock belongs to the caller.
  """
  title = f"Report: {work.path.resolve().name}"
  sections = [
    ("machines", "Machines", _machines(work)),
    ("scores", "Score against time", _scores(work)),
    ("events", "Events and their causes", _events(work)),
    *([("ledger", "Alarms as people reviewed them", ledger.section(work.ledger))] if work.ledger else []),
    ("evaluation", "Evaluation", evaluation.section(work)),
    ("training", "Training", _training(work)),
    ("notes", "Notes", notes.section(work)),
  ]
  links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections)
  body = "".join(
    f'<section aria-labelledby="{name}"><h2 id="{name}">{heading}</h2>{content}</section>'
    for name, heading, content in sections
  )
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)}</title><style>{browser.STYLE}</style></head><body>"
    f"<header><h1>{html.escape(title)}</h1>{_about(work, made)}{trouble.retired_line(work)}"
    f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    "<noscript><p class=absent>The charts need JavaScript; the tables do not.</p></noscript>"
    f"{_bar(work)}<main>{body}</main>"
    f'<script type="application/json" id="report-data">{embed(_chart_data(work))}</script>'
    f"{_ledger_data(work)}"
    f"<script>{get_plotlyjs()}</script><script>{browser.SCRIPT}</script></body></html>"
  )


def embed(values: Any) -> str:
  """Returns JSON that can stand inside a script element: no text in it can close the element."""
  text = json.dumps(values, separators=(",", ":"), allow_nan=False)
  return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _about(work: Work, made: str) -> str:
  facts = [f"{len(work.machines)} machine{'s' if len(work.machines) != 1 else ''}", f"made {made}"]
  if "run_id" in work.run:
    facts.insert(0, f"run {work.run['run_id']}")
  model = work.config.get("model", {})
  if work.is_role_mixture:
    facts.append("one mixture a role")
  elif "run_mode" in model:
    facts.append(f"mode {model['run_mode']}")
  return f'<p class="soft">{html.escape(" · ".join(facts))}</p>'


def _bar(work: Work) -> str:
  options = "".join(
    f'<option value="{index}">{html.escape(name)}</option>' for index, name in enumerate(work.machines)
  )
  return (
    f'<div class="bar"><label>Machine <select id="machine">{options}</select></label>'
    '<label><input type="checkbox" id="log-scale"> log scale</label>'
    '<label><input type="checkbox" id="only-this"> tables: only this machine</label></div>'
  )


def _ledger_data(work: Work) -> str:
  if work.ledger is None or not ledger.has_alarms(work.ledger):
    return ""
  return f'<script type="application/json" id="ledger-data">{embed(ledger.chart_data(work.ledger))}</script>'


def _events_of(work: Work, name: str) -> list[Event]:
  return [event for event in work.events if event.machine == name]


def _chart_data(work: Work) -> list[dict[str, Any]]:
  num_points = figures.points_per_machine(len(work.machines))
  entries = []
  for name, scores in work.machines.items():
    events = _events_of(work, name)
    axis = scores.row if scores.times is None else scores.times
    losses = work.losses.get(name)
    entries.append(
      {
        "name": name,
        "summary": _summary(scores, events),
        "first": float(axis[0]),
        "last": float(axis[-1]),
        **figures.score_figure(scores, events, evaluation.best_threshold(work, name), num_points),
        "losses": figures.loss_figure(losses) if losses else {},
        "trouble": figures.trouble_figure(losses) if losses else None,
      }
    )
  return entries


def _summary(scores: MachineScores, events: list[Event]) -> str:
  rows, scored = len(scores.row), int(np.sum(scores.valid))
  text = f"{rows:,} rows, {scored:,} of them scored, {int(np.sum(scores.is_anomaly)):,} above the threshold"
  text += f" in {len(events):,} event{'s' if len(events) != 1 else ''}"
  if scores.label is not None:
    text += f"; {int(np.sum(scores.label)):,} rows are labelled anomalous"
  return text + "."


def _ratio(scores: MachineScores) -> float:
  """Returns the highest score/threshold, NaN where no row has one."""
  with np.errstate(invalid="ignore", divide="ignore"):
    ratio = scores.score / scores.threshold
  return float(np.nanmax(ratio)) if not np.isnan(ratio).all() else float("nan")


def _machines(work: Work) -> str:
  several = len({scores.model for scores in work.machines.values()}) > 1
  columns = [tables.Column("machine"), *([tables.Column("scored by")] if several else [])] + [
    tables.Column(name, numeric=True)
    for name in (
      "rows",
      "scored",
      "alarm rows",
      "events",
      "highest score / threshold",
      "initial",
      "POT",
      "best F1 (oracle)",
      "labelled",
    )
  ]
  rows = []
  for name, scores in work.machines.items():
    finite = scores.threshold[~np.isnan(scores.threshold)]
    rows.append(
      [
        name,
        *([scores.model.replace("_", " ") or "not known"] if several else []),
        tables.number(len(scores.row)),
        tables.number(int(np.sum(scores.valid))),
        tables.number(int(np.sum(scores.is_anomaly))),
        tables.number(len(_events_of(work, name))),
        tables.number(_ratio(scores)),
        tables.number(scores.initial),
        tables.number(float(finite[-1]) if len(finite) else None),
        tables.number(evaluation.best_threshold(work, name)),
        tables.share(None if scores.label is None else float(np.mean(scores.label))),
      ]
    )
  return tables.table("Every machine of this scoring", columns, rows)


def _scores(work: Work) -> str:
  num_points = figures.points_per_machine(len(work.machines))
  return (
    '<h3 class="chosen"></h3><p id="summary" aria-live="polite"></p>'
    '<div id="score-chart" class="chart" role="group" aria-label="Score against time with thresholds"></div>'
    '<p class="soft">Shaded: labelled segments; the strip below repeats them beside the alarms. The best-F1 '
    f"threshold was chosen with the labels and serves comparison alone. Long series are drawn at about "
    f"{num_points:,} points: lowest and highest of each stretch, and the peak of every run above the "
    "threshold.</p>"
  )


def _events(work: Work) -> str:
  if "events" in work.missing:
    return tables.absent(work.missing["events"])
  if not work.events:
    return "<p>No score passed its threshold: there are no events.</p>"
  # a NaN severity sorts behind every number
  order = sorted(work.events, key=lambda event: (np.isnan(event.severity), -event.severity))
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


def _training(work: Work) -> str:
  if work.is_role_mixture:
    return role_table.section(work)
  if "losses" in work.missing:
    return tables.absent(work.missing["losses"]) + '<p id="no-losses" hidden></p>'
  ended = {name: log.stopped_step for name, log in work.losses.items() if log.stopped_step is not None}
  early = [f"{name} (by step {step:,})" for name, step in ended.items()]
  stopped = f"<p>Stopped early, their best state kept: {html.escape(', '.join(early))}.</p>" if early else ""
  return (
    f'{trouble.section(work)}{stopped}<h3 class="chosen"></h3><p id="no-losses" class="absent" hidden>Not shown. '
    'The training log has no machine of this name.</p><div id="loss-chart" class="chart low" role="group" '
    'aria-label="Losses against training step, with rollbacks and retirement"></div><p class="soft" '
    'id="set-back" hidden>Below the losses: the learning rate in use, which a rollback cuts and good steps raise '
    "again. Steps are the fleet's; a machine that was rolled back is behind them with its own.</p>"
  )
