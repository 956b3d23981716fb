"""What the page's script is given of every machine: curves, its metrics' heat map, event cards, losses."""

from typing import Any

import numpy as np

from mtad_jax.report import evaluation, figures
from mtad_jax.report.event_cards import card, choose_events
from mtad_jax.report.event_figures import choose_metrics, map_figure, num_bins
from mtad_jax.report.event_file import Event
from mtad_jax.report.inputs import MachineScores, Work
from mtad_jax.report.metric_rows import MetricFile
from mtad_jax.report.neighbours import Neighbours


def machine_entries(work: Work) -> list[dict[str, Any]]:
  """Returns one entry a machine, in the order of `work.machines`, ready for JSON."""
  num_points = figures.points_per_machine(len(work.machines))
  metric_file = None if work.metric_scores is None else MetricFile(work.metric_scores)
  neighbours, chosen = Neighbours(work), choose_events(work)
  by_machine: dict[str, list[Event]] = {name: [] for name in work.machines}
  for event in work.events:
    by_machine.get(event.machine, []).append(event)
  entries = []
  for name, scores in work.machines.items():
    events = by_machine[name]
    axis = scores.row if scores.times is None else scores.times
    losses = work.losses.get(name)
    rows = None if metric_file is None else metric_file.rows_of(name)
    shown = None if rows is None else choose_metrics(rows)
    metrics = None
    if rows is not None and shown is not None:
      metrics = map_figure(rows, shown, scores, num_bins(len(work.machines), len(rows.metrics)))
    entries.append(
      {
        "name": name,
        "role": work.role_of.get(name, ""),
        "summary": _summary(scores, events),
        "first": float(axis[0]),
        "last": float(axis[-1]),
        **figures.score_figure(
          scores, events, evaluation.best_threshold(work, name), num_points, _near(scores, chosen[name])
        ),
        "metrics": metrics,
        "num_events": len(events),
        "events": [card(event, scores, neighbours, rows, shown) for event in chosen[name]],
        "losses": figures.loss_figure(losses) if losses else {},
        "trouble": figures.trouble_figure(losses) if losses else None,
      }
    )
  return entries


def _near(scores: MachineScores, events: list[Event]) -> np.ndarray:
  """Returns the positions around the carded events, but for long ones: those the score's curve keeps whole."""
  around = figures.ROWS_AROUND_EVENT
  spans = [np.searchsorted(scores.row, [event.start_row, event.end_row]) for event in events]
  rows = [np.arange(max(start - around, 0), min(end + around, len(scores.row))) for start, end in spans]
  short = [own for own in rows if len(own) <= figures.MOST_ROWS_OF_EVENT]
  return np.unique(np.concatenate(short)) if short else np.zeros(0, np.int64)


def _summary(scores: MachineScores, events: list[Event]) -> str:
  rows, scored = len(scores.row), int(np.sum(scores.valid))
  text = f"{rows:,} rows, {scored:,} of them scored, {int(np.sum(scores.is_anomaly)):,} above the threshold"
  text += f" in {len(events):,} event{'s' if len(events) != 1 else ''}"
  if scores.label is not None:
    text += f"; {int(np.sum(scores.label)):,} rows are labelled anomalous"
  return text + "."
