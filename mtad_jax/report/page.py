"""The report page: one HTML file that opens offline, on a phone as on a desk.

The plotting library stands in the file once; everything else is small. A part that cannot be drawn says why
in its place. A content policy in the page forbids it to load anything from anywhere.
"""

import html
import json
from typing import Any

from plotly.offline import get_plotlyjs

from mtad_jax.config_choices import Detector
from mtad_jax.report import (
  browser,
  evaluation,
  event_cards,
  event_table,
  fleet_map,
  ledger,
  machine_section,
  machines,
  notes,
  role_table,
  tables,
  trouble,
)
from mtad_jax.report.inputs import Work
from mtad_jax.report.machine_data import machine_entries

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
  lines = fleet_map.lines_of(work)
  worst = event_cards.fleet_worst(event_cards.choose_events(work))
  sections = [
    ("fleet", "Fleet", fleet_map.section(work, lines)),
    *([("worst", "Worst events", machine_section.worst(work, len(worst)))] if work.events else []),
    ("scores", "One machine", machine_section.section(work)),
    ("events", "All events", event_table.section(work)),
    ("machines", "All machines", machines.section(work)),
    *([("ledger", "Alarms as people reviewed them", ledger.section(work.ledger))] if work.ledger else []),
    ("evaluation", "Evaluation", evaluation.section(work)),
    ("training", "Training", _training(work)),
    ("notes", "Notes", notes.section(work)),
  ]
  links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections)
  body = "".join(
    f'<section class="of-{name}" aria-labelledby="{name}"><h2 id="{name}">{heading}</h2>{content}</section>'
    for name, heading, content in sections
  )
  fleet = {**fleet_map.chart_data(work, lines), "worst": worst, "begin": lines[0].lane}
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)}</title><style>{browser.style()}</style></head><body>"
    f"<header><h1>{html.escape(title)}</h1>{_about(work, made)}{trouble.retired_line(work)}"
    f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    "<noscript><p class=absent>The charts need JavaScript; the tables do not.</p></noscript>"
    f"{_bar(work)}<main>{body}</main>"
    f'<script type="application/json" id="report-data">{embed(machine_entries(work))}</script>'
    f'<script type="application/json" id="fleet-data">{embed(fleet)}</script>'
    f"{_ledger_data(work)}"
    f"<script>{get_plotlyjs()}</script><script>{browser.script()}</script></body></html>"
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
  elif model.get("detector") == Detector.LINEAR.value:
    facts.append("linear forecasts, no network")
  elif "run_mode" in model:
    facts.append(f"mode {model['run_mode']}")
  return f'<p class="soft">{html.escape(" · ".join(facts))}</p>'


def _bar(work: Work) -> str:
  options = "".join(
    f'<option value="{index}">{html.escape(name)}</option>' for index, name in enumerate(work.machines)
  )
  return (
    f'<div class="bar" role="group" aria-label="Choice of machine"><label>Machine '
    f'<select id="machine">{options}</select></label>'
    '<label><input type="checkbox" id="log-scale"> log scale</label>'
    '<label><input type="checkbox" id="only-this"> tables: only this machine</label></div>'
  )


def _ledger_data(work: Work) -> str:
  if work.ledger is None or not ledger.has_alarms(work.ledger):
    return ""
  return f'<script type="application/json" id="ledger-data">{embed(ledger.chart_data(work.ledger))}</script>'


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
