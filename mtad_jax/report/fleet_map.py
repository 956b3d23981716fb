"""The fleet heat map: machines by time, grouped by role, each a line of the highest score/threshold of every stretch.

The lines stand in a table, so that the map without colours is its own alternative: the highest ratio, the number of
events and the newest one of each machine. assets/fleet.js paints the lines and hears clicks and keys.
"""

import html
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.report import heat, tables
from mtad_jax.report.axis import Axis, fleet_axis, most_bins, place_text, places_of, step_of
from mtad_jax.report.event_cards import is_open
from mtad_jax.report.inputs import MachineScores, Work

MAX_LINES = 120  # machines drawn, those with the highest ratios
NUM_BINS = 800


class Line(NamedTuple):
  """One machine of the map. lane: its place in the page's data. highest: NaN where it has no score."""

  lane: int
  name: str
  role: str
  highest: float
  peak: int
  num_events: int
  newest: str
  is_open: bool


def lines_of(work: Work) -> list[Line]:
  """Returns a line for every machine: roles with the worst machine first, and so within a role."""
  lines = [_line(work, lane, name) for lane, name in enumerate(work.machines)]
  worst: dict[str, tuple[bool, float]] = {}
  for line in lines:
    worst[line.role] = max(worst.get(line.role, (False, -np.inf)), _rank(line))
  lines.sort(key=lambda line: (not worst[line.role][0], -worst[line.role][1], line.role, *_negative(_rank(line))))
  return lines


def _rank(line: Line) -> tuple[bool, float]:
  return line.is_open, -np.inf if np.isnan(line.highest) else line.highest


def _negative(rank: tuple[bool, float]) -> tuple[bool, float]:
  return not rank[0], -rank[1]


def _line(work: Work, lane: int, name: str) -> Line:
  scores = work.machines[name]
  ratio = heat.ratio_of(scores)
  known = not np.isnan(ratio).all()
  events = sorted((event for event in work.events if event.machine == name), key=lambda event: event.start_row)
  newest = tables.NONE
  if events:
    newest = place_text(scores, int(np.searchsorted(scores.row, events[-1].start_row)))
  return Line(
    lane=lane,
    name=name,
    role=work.role_of.get(name, ""),
    highest=float(np.nanmax(ratio)) if known else float("nan"),
    peak=int(np.nanargmax(ratio)) if known else 0,
    num_events=len(events),
    newest=newest,
    is_open=bool(events) and is_open(events[-1], scores),
  )


def drawn_lines(lines: list[Line]) -> list[Line]:
  """Returns the lines that are drawn, in their order: all, or those with the highest ratios."""
  if len(lines) <= MAX_LINES:
    return lines
  kept = {line.lane for line in sorted(lines, key=lambda line: _negative(_rank(line)))[:MAX_LINES]}
  return [line for line in lines if line.lane in kept]


def chart_data(work: Work, lines: list[Line]) -> dict[str, Any]:
  """Returns what the map paints, ready for JSON: its axis, and the codes of each drawn machine by its index."""
  axis = fleet_axis(work.machines)
  step = max(step_of(places_of(scores)) for scores in work.machines.values()) if axis.dated else 1.0
  bins = most_bins(axis, step, NUM_BINS)
  return {
    "dated": axis.dated,
    "first": axis.first,
    "last": axis.last,
    "bins": bins,
    "strips": {line.lane: _strip(work.machines[line.name], axis, bins) for line in drawn_lines(lines)},
  }


def _strip(scores: MachineScores, axis: Axis, bins: int) -> str:
  places = places_of(scores) if axis.dated else scores.row.astype(np.float64)
  place = heat.bins_of(places, axis.first, axis.last, bins)
  order = np.argsort(place, kind="stable")
  return heat.text_of(heat.bin_maxima(place[order], heat.ratio_codes(scores)[order], bins))


def section(work: Work, lines: list[Line]) -> str:
  """Returns the headline, the map's table and its legend."""
  drawn = drawn_lines(lines)
  left = len(lines) - len(drawn)
  told = ""
  if left:
    kept = {line.lane for line in drawn}
    others = [line.highest for line in lines if line.lane not in kept and not np.isnan(line.highest)]
    most = f"none of them reaches more than {max(others):.2f} times its threshold" if others else "they have no score"
    told = (
      f"<p>{left:,} more machines are not drawn: {most}. The list of machines below and the choice of machine have"
      " them all.</p>"
    )
  return f"{_headline(work, lines)}{_legend(work)}{_table(work, lines, drawn)}{told}"


def _headline(work: Work, lines: list[Line]) -> str:
  """Returns the first thing to know: who is in alarm at the end, and how many were."""
  alarmed = sum(line.num_events > 0 for line in lines)
  is_now = [line for line in lines if line.is_open]
  levels = [event.level == "critical" for event in work.events]
  kinds = f"{sum(levels):,} critical, {len(levels) - sum(levels):,} warning" if not all(levels) else ""
  events = f"{len(levels):,} event{'s' if len(levels) != 1 else ''}{f' ({kinds})' if kinds else ''}"
  if "events" in work.missing:
    return tables.absent(work.missing["events"])
  now = f"{len(is_now):,} of {len(lines):,} machines in alarm" if is_now else "No machine is in alarm"
  names = "".join(
    f'<li><button type="button" class="go" data-index="{line.lane}">{html.escape(line.name)}</button>'
    f" since {html.escape(line.newest)}</li>"
    for line in is_now[:12]
  )
  more = f"<li>and {len(is_now) - 12:,} more</li>" if len(is_now) > 12 else ""
  listed = f'<ul class="now">{names}{more}</ul>' if is_now else ""
  return (
    f'<div class="headline{" bad" if is_now else ""}"><p><strong>{now} at the last scored row.</strong> '
    f"{events} in all, on {alarmed:,} of {len(lines):,} machines.</p>{listed}</div>"
  )


def _legend(work: Work) -> str:
  warned = any(scores.warning is not None for scores in work.machines.values())
  warning = '<li><span class="key warning"></span>warning: above the lower threshold</li>' if warned else ""
  return (
    '<ul class="legend" aria-label="Colours of the map"><li><span class="key quiet"></span>below the threshold</li>'
    f'{warning}<li><span class="key critical"></span>critical: above the threshold</li><li>'
    '<span class="key none"></span>no score</li></ul>'
  )


def _table(work: Work, lines: list[Line], drawn: list[Line]) -> str:
  body, role = [], None
  grouped = len({line.role for line in lines} - {""}) > 0
  for line in drawn:
    if grouped and line.role != role:
      role = line.role
      own = [other for other in lines if other.role == role]
      alarmed = sum(other.num_events > 0 for other in own)
      name = f"role {role}" if role else "no role"
      body.append(
        f'<tr class="role"><th colspan="5" scope="rowgroup">{html.escape(name)} <span class="soft">'
        f"{alarmed:,} of {len(own):,} machines had events</span></th></tr>"
      )
    body.append(_row(work, line))
  caption = (
    "Machines by time: the highest score / threshold of each stretch, the worst machine first. Choose a stretch or a"
    " name to see the machine. By keyboard: arrows move, with Shift to the next alarm, Enter opens."
  )
  axis = '<span class="visually-hidden">over time</span><span id="fleet-axis" aria-hidden="true"></span>'
  heads = ("machine", axis, "highest", "events", "newest from")
  head = "".join(
    f'<th scope="col"{" class=n" if column > 1 else ""}>{name}</th>' for column, name in enumerate(heads)
  )
  return (
    f'<table id="fleet-map" class="fleet"><caption>{html.escape(caption)}</caption><colgroup><col class="name">'
    f'<col><col class="ratio"><col class="count"><col class="newest"></colgroup><thead><tr>{head}</tr></thead>'
    f'<tbody>{"".join(body)}</tbody></table>'
  )


def _row(work: Work, line: Line) -> str:
  name = html.escape(line.name)
  ratio = tables.NONE if np.isnan(line.highest) else f"{line.highest:.2f}"
  where = "no score" if np.isnan(line.highest) else (
    f"highest {line.highest:.2f} times its threshold, {place_text(work.machines[line.name], line.peak)}"
  )
  marked = ' class="n alarm"' if line.highest > 1 else " class=n"
  return (
    f'<tr><th scope="row"><button type="button" class="go" data-index="{line.lane}">{name}</button></th>'
    f'<td class="strip"><canvas data-index="{line.lane}" role="img" tabindex="-1" '
    f'aria-label="{name}: {html.escape(where)}"></canvas></td><td{marked}>{ratio}</td>'
    f"<td class=n>{line.num_events:,}</td><td class=n>{html.escape(line.newest)}</td></tr>"
  )
