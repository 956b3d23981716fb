"""Metrics proposed for the prior or the ignore list, as lines of the prior's file; a person decides.

A metric is proposed for a role where it was named first in false alarms and in no true one. Where
metric_scores.parquet has the rows of those alarms, the proposal says how far the metric moved in them, as a share of
its training range.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from etils import epath

from mtad_jax.alerts.alarms import NO_CAUSE, Alarm
from mtad_jax.evaluate.inputs import read_table
from mtad_jax.train.workdir import FLEET, read_json

MIN_FALSE = 3  # false alarms that a metric was named first in, below which one week's chance speaks
MAX_VARIES = 1.0  # of its training range; a metric that moved by more is proposed to be ignored


class Proposal(NamedTuple):
  """num_false, of_false: false alarms of the role that the metric was named first in, and all of them.

  num_true: true alarms of the role, in none of which it was named first. varies: the farthest that it was from the
  middle of its expected band in those alarms, as a share of its training range, NaN where that is not known.
  num_seen: alarms that this is known of. num_down: those in which it was below the band's middle at its farthest.
  """

  role: str
  metric: str
  num_false: int
  of_false: int
  num_true: int
  varies: float
  num_seen: int
  num_down: int


def training_ranges(workdir: epath.PathLike) -> dict[tuple[str, str], float]:
  """Returns {(machine, metric): maximum - minimum in training} of fleet.json."""
  file = epath.Path(workdir) / FLEET
  found = {}
  try:
    for group in read_json(file, "train.py", ("groups",))["groups"]:
      for machine in group["machines"]:
        scaler = machine["preparation"]["scaler"]
        bounds = zip(machine["preparation"]["metrics"], scaler["minimum"], scaler["maximum"], strict=True)
        found.update({(machine["name"], metric): high - low for metric, low, high in bounds})
  except (KeyError, TypeError) as error:
    raise ValueError(f"{file}: a machine's training range is missing ({error}); train.py writes it") from None
  return found


def read_moves(path: epath.Path, alarms: Sequence[Alarm], series: str) -> dict[int, float]:
  """Returns {event id: how far its first cause was from the middle of the expected band, signed, its own units}.

  Events whose rows are not in the table are left out.

  Args:
    path: metric_scores.parquet. series: what its rows are counted in.
  """
  needed = ("machine", "row", "metric", "expected_low", "expected_high", "actual")
  table = read_table(path, needed)
  wanted = [alarm for alarm in alarms if alarm.event.range.series == series]
  moves = {}
  for metric in sorted({alarm.first_cause for alarm in wanted}):
    own = table.filter(pc.equal(table["metric"], metric))
    machines = np.array(own["machine"].to_pylist(), object)
    rows, low, high, actual = (own[name].to_numpy() for name in ("row", *needed[3:]))
    far = actual - (low + high) / 2
    for alarm in wanted:
      place = alarm.event.range
      if alarm.first_cause != metric:
        continue
      inside = (machines == place.machine) & (rows >= place.start_row) & (rows < place.end_row) & ~np.isnan(far)
      if inside.any():
        moves[alarm.event.id] = float(far[inside][np.argmax(np.abs(far[inside]))])
  return moves


def propose(
  alarms: Sequence[Alarm],
  moves: Mapping[int, float],
  ranges: Mapping[tuple[str, str], float],
  min_false: int = MIN_FALSE,
) -> list[Proposal]:
  """Returns the proposals, those for most false alarms first.

  Args:
    alarms: that count. moves: from `read_moves`. ranges: from `training_ranges`.
  """
  found = []
  for role in sorted({alarm.event.role for alarm in alarms}):
    own = [alarm for alarm in alarms if alarm.event.role == role]
    false = [alarm for alarm in own if alarm.verdict == "false"]
    true = [alarm for alarm in own if alarm.verdict == "true"]
    for metric in sorted({alarm.first_cause for alarm in false} - {alarm.first_cause for alarm in true} - {NO_CAUSE}):
      named = [alarm.event for alarm in false if alarm.first_cause == metric]
      if len(named) < min_false:
        continue
      known = [event for event in named if event.id in moves]
      spans = [ranges[event.range.machine, metric] for event in known]
      shares = [abs(moves[event.id]) / span if span > 0 else np.inf for event, span in zip(known, spans, strict=True)]
      varies = max(shares) if len(known) == len(named) else float("nan")
      num_down = sum(moves[event.id] < 0 for event in known)
      counts = (len(named), len(false), len(true))
      found.append(Proposal(role, metric, *counts, float(varies), len(known), num_down))
  return sorted(found, key=lambda each: (-each.num_false, each.role, each.metric))


def _rounded_up(share: float) -> float:
  """Returns the share to two digits, never less."""
  unit = 10.0 ** (np.floor(np.log10(share)) - 1)
  return float(f"{np.ceil(share / unit - 1e-9) * unit:.6g}")


def proposal_lines(found: Proposal) -> list[str]:
  """Returns a proposal as it would stand in the prior's file (TOML), with its grounds as comments."""
  grounds = (
    f"# named first in {found.num_false} of the {found.of_false} false alarms of its role, in none of the"
    f" {found.num_true} true ones"
  )
  entry: dict[str, Any] = {"name": found.metric, "role": found.role}
  if np.isnan(found.varies):
    notes = [f"# how far it moved is known in {found.num_seen} of them: metric_scores.parquet lacks the others"]
    entry["ignore"] = True
  elif not 0 < found.varies <= MAX_VARIES:
    notes = ["# it moved by more than its training range"]
    entry["ignore"] = True
  else:
    notes = [f"# it moved by at most {found.varies:.2%} of its training range"]
    entry |= {"varies": _rounded_up(found.varies), "of": "range"}
  if found.num_seen == found.num_false == found.num_down:
    notes.append('# always downwards; where only rises matter: only = "up" in place of the last line')
  text = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items()]
  return [grounds, *notes, "[[metric]]", *text]
