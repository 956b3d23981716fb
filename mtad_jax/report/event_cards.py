"""The event cards: which events get one, and what it says, as plain data that assets/event.js lays out.

A card says when, how severe, the causes that sum to 1, values against what was expected at the peak, what the rest of
the role did, and which model spoke. The worst events get one; how many did not is counted on the page.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtad_jax.detect.tables import LINEAR, NETWORK, ROLE_MIXTURE, ROLE_MIXTURE_COLD, ROLE_NETWORK
from mtad_jax.report.axis import length_text, place_text, places_of, span_text, step_of
from mtad_jax.report.event_figures import MetricMap, event_figure
from mtad_jax.report.event_file import Event
from mtad_jax.report.heat import ratio_of
from mtad_jax.report.inputs import MachineScores, Work
from mtad_jax.report.metric_rows import MetricRows
from mtad_jax.report.neighbours import Neighbours, rest_text

CARDS_PER_MACHINE = 12
CARDS_PER_FLEET = 300
WORST_CARDS = 6  # of the fleet, at the top
WORST_OF_A_MACHINE = 2  # among these, so that one machine does not hide the others
NAMED_CAUSES = 5
ATTENTION_CHANGES = 4
MODELS = {
  NETWORK: "its own network",
  ROLE_NETWORK: "its own network, begun from another machine of its role",
  LINEAR: "its own linear forecast",
  ROLE_MIXTURE: "its role's mixture",
  ROLE_MIXTURE_COLD: "its role's mixture, calibrated without rows of its own",
}


def worst_first(events: Sequence[Event]) -> list[Event]:
  """Returns the events, most severe first; one without a severity stands behind."""
  return sorted(events, key=lambda event: (np.isnan(event.severity), -event.severity))


def is_open(event: Event, scores: MachineScores) -> bool:
  """Returns whether an event goes on to the machine's last scored row."""
  scored = scores.row[scores.valid]
  return len(scored) > 0 and event.end_row > int(scored[-1])


def choose_events(work: Work) -> dict[str, list[Event]]:
  """Returns the events that get a card, by machine: open ones first, then the worst."""
  ordered = [event for event in worst_first(work.events) if event.machine in work.machines]
  ordered.sort(key=lambda event: not is_open(event, work.machines[event.machine]))
  chosen: dict[str, list[Event]] = {name: [] for name in work.machines}
  room = CARDS_PER_FLEET
  for event in ordered:
    if room and len(chosen[event.machine]) < CARDS_PER_MACHINE:
      chosen[event.machine].append(event)
      room -= 1
  return chosen


def fleet_worst(chosen: dict[str, list[Event]]) -> list[tuple[int, int]]:
  """Returns the fleet's worst events as (machine, place among its cards), the worst first."""
  ranked = [(event, (index, place)) for index, own in enumerate(chosen.values()) for place, event in enumerate(own)]
  ranked.sort(key=lambda entry: (np.isnan(entry[0].severity), -entry[0].severity))
  found: list[tuple[int, int]] = []
  for _, (index, place) in ranked:
    if sum(machine == index for machine, _ in found) < WORST_OF_A_MACHINE:
      found.append((index, place))
  return found[:WORST_CARDS]


def card(
  event: Event, scores: MachineScores, neighbours: Neighbours, rows: MetricRows | None, chosen: MetricMap | None
) -> dict[str, Any]:
  """Returns one event's card and charts, ready for JSON.

  Args:
    scores: of the event's machine. rows, chosen: its metrics' figures and which its heat map shows, or None.
  """
  start, end = (int(place) for place in np.searchsorted(scores.row, [event.start_row, event.end_row]))
  score = scores.score[start:end]
  peak = start + (int(np.nanargmax(score)) if not np.isnan(score).all() else 0)
  places = places_of(scores)
  named = [(metric, value) for metric, value in event.contributors if value > 0]
  causes, rest = named[:NAMED_CAUSES], named[NAMED_CAUSES:]
  metrics = [metric for metric, _ in causes]
  figure = None
  if rows is not None and chosen is not None:
    figure = event_figure(rows, chosen, scores, start, end, peak, metrics)
  return {
    "id": event.event_id,
    "level": event.level,
    "open": is_open(event, scores),
    "when": span_text(scores, start, end),
    "since": place_text(scores, start),
    "length": length_text(scores, start, end),
    "peak_at": place_text(scores, peak),
    "from": float(places[start]),
    "to": float(places[end - 1] + step_of(places)),
    "severity": _number(event.severity),
    "ratio": _number(ratio_of(scores)[peak]),
    "causes": [[metric, value] for metric, value in causes],
    "others": [len(rest), sum(value for _, value in rest)],
    "values": _values(rows, int(scores.row[peak]), metrics),
    "attention": _attention(event, metrics),
    "rest": rest_text(neighbours.rest_of(event)),
    "model": MODELS.get(event.model or scores.model, event.model or scores.model),
    "cause_set": None if event.cause_set is None else list(event.cause_set),
    "figure": figure,
  }


def _values(rows: MetricRows | None, peak_row: int, metrics: list[str]) -> list[list[Any]]:
  """Returns [metric, actual, expected, low, high] of the causes at the peak row; empty where it is not on file."""
  if rows is None:
    return []
  place = int(np.searchsorted(rows.row, peak_row))
  if place == len(rows.row) or rows.row[place] != peak_row:
    return []
  found = []
  for metric in metrics:
    if metric in rows.metrics:
      lane = rows.metrics.index(metric)
      parts = (rows.actual, rows.expected, rows.low, rows.high)
      found.append([metric, *(_number(part[place, lane]) for part in parts)])
  return found


def _attention(event: Event, causes: list[str]) -> list[list[Any]] | None:
  """Returns [metric, change] of the causes, and of the metrics whose attention changed most; None without any."""
  if event.attention_change is None:
    return None
  changes = event.attention_change
  most = sorted(changes, key=lambda metric: -abs(changes[metric]))[:ATTENTION_CHANGES]
  return [[metric, changes[metric]] for metric in dict.fromkeys([*most, *causes]) if metric in changes]


def _number(value: float) -> float | None:
  """Returns a number as JSON has it: what is not finite is null."""
  return float(value) if np.isfinite(value) else None
