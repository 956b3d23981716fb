"""The evaluation as tables: the detector, its other scores and the floors on the same rows, side by side.

Reads the dict of `evaluate/summary.py` as evaluation.json has it, where a figure that does not exist is null.
What was chosen with labels is marked as an oracle wherever it stands.
"""

import html
from collections.abc import Sequence
from typing import Any

from mtad_jax.report import tables
from mtad_jax.report.inputs import Work

# heading -> place of the figure in a block's entry; POT is the threshold that uses no label
_FIGURES: dict[str, tuple[str, ...]] = {
  "average precision": ("average_precision",),
  "F1 at POT": ("at_threshold", "pot", "f1"),
  "precision at POT": ("at_threshold", "pot", "precision"),
  "recall at POT": ("at_threshold", "pot", "recall"),
  "events found": ("at_threshold", "pot", "event_recall"),
  "false alarms a day": ("at_threshold", "pot", "false_alarms_per_day"),
  "false alarms per 1,000 rows": ("at_threshold", "pot", "false_alarms_per_1000_rows"),
  "median delay, rows": ("at_threshold", "pot", "delay_rows_median"),
  "best F1 (oracle)": ("oracle", "f1"),
  "point-adjusted F1 at POT": ("at_threshold", "pot", "point_adjusted_f1"),
  "point-adjusted best F1 (oracle)": ("point_adjusted_oracle", "f1"),
}
_MACHINE_FIGURES = (
  "average precision",
  "F1 at POT",
  "events found",
  "false alarms a day",
  "false alarms per 1,000 rows",
  "best F1 (oracle)",
  "point-adjusted best F1 (oracle)",
)
_CAUSE_FIGURES = {
  "first named is right": ("first_named_right", "first_named_right_random"),
  "HitRate@100%": ("hit_rate_100", "hit_rate_100_random"),
  "HitRate@150%": ("hit_rate_150", "hit_rate_150_random"),
}


def best_threshold(work: Work, name: str) -> float | None:
  """Returns the threshold with the machine's best point-wise F1 (an oracle), None where there is none."""
  value = pick(work.evaluation, "machines", name, "detector", "oracle", "threshold")
  return None if value is None else float(value)


def pick(tree: Any, *names: str) -> Any:
  """Returns the value at a path of nested dicts, None where the path ends early."""
  for name in names:
    if not isinstance(tree, dict):
      return None
    tree = tree.get(name)
  return tree


def section(work: Work) -> str:
  """Returns the evaluation's part of the page, or why there is none."""
  evaluation = work.evaluation
  if evaluation is None:
    return tables.absent(work.missing["evaluation"])
  parts = [
    _block(evaluation, "mean", "Mean over machines"),
    _block(evaluation, "pooled", "Pooled"),
    _by_machine(evaluation),
    _operating_point(evaluation),
    _causes(evaluation),
    _notes(evaluation),
  ]
  return "".join(parts)


def _entries(block: Any) -> list[tuple[str, Any]]:
  """Returns (row's name, its figures): the detector, then its other scores, then the floors."""
  entries = [("detector", block["detector"])]
  for title, part in (("other score", "other_scores"), ("floor", "floors")):
    entries += [(f"{title}: {name}", figures) for name, figures in (block.get(part) or {}).items()]
  return entries


def _block(evaluation: dict[str, Any], part: str, title: str) -> str:
  block = evaluation.get(part)
  if not isinstance(block, dict) or "detector" not in block:
    return tables.absent(f"{title}: evaluation.json has no figures of this kind.")
  names = block.get("machines") or []
  caption = f"{title}: {len(names)} machines"
  if part == "mean" and block.get("without_an_anomaly"):
    caption += f"; without an anomaly and left out: {', '.join(block['without_an_anomaly'])}"
  if block.get("by"):
    caption += f", ranked by {block['by']}"
  columns = [tables.Column("score"), *(tables.Column(name, numeric=True) for name in _FIGURES)]
  rows = [
    [name, *(tables.number(pick(figures, *path)) for path in _FIGURES.values())]
    for name, figures in _entries(block)
  ]
  return tables.table(caption, columns, rows)


def _by_machine(evaluation: dict[str, Any]) -> str:
  machines = evaluation.get("machines")
  if not isinstance(machines, dict) or not machines:
    return tables.absent("Figures of each machine: evaluation.json has none.")
  columns = [
    tables.Column("machine"),
    tables.Column("role"),
    tables.Column("segments", numeric=True),
    tables.Column("best floor"),
    *(tables.Column(name, numeric=True) for name in _MACHINE_FIGURES),
  ]

  def rank(item: tuple[str, Any]) -> float:
    value = pick(item[1], "detector", "average_precision")
    return float("inf") if value is None else float(value)

  rows = []
  ordered = sorted(machines.items(), key=rank)
  for name, entry in ordered:
    floor = pick(entry, "best_floor", "name")
    segments = tables.number(entry.get("segments"))
    cells = [name, str(entry.get("role") or ""), segments, str(floor or tables.NONE)]
    for figure in _MACHINE_FIGURES:
      own = tables.number(pick(entry, "detector", *_FIGURES[figure]))
      beside = tables.number(pick(entry, "floors", str(floor), *_FIGURES[figure]))
      cells.append(f"{own} / {beside}")
    rows.append(cells)
  caption = (
    "Each machine, the worst first: the detector's figure / that of the floor with the best average precision"
  )
  return tables.table(caption, columns, rows, row_machines=[name for name, _ in ordered])


def _groups(entries: Sequence[tuple[str, Any]], group: str) -> list[str]:
  """Returns the names in a grouping, in the order in which they first appear."""
  return list(dict.fromkeys(key for _, entry in entries for key in (pick(entry, group) or {})))


def _operating_point(evaluation: dict[str, Any]) -> str:
  point = evaluation.get("operating_point")
  if not isinstance(point, dict):
    return tables.absent("Recall at a fixed rate of false alarms: evaluation.json has none.")
  entries = [(name, entry) for name, entry in point.items() if isinstance(entry, dict) and "recall" in entry]
  columns = [
    tables.Column("segments taken"),
    tables.Column("segments", numeric=True),
    *(tables.Column(name if name == "detector" else f"floor: {name}", numeric=True) for name, _ in entries),
  ]
  rows = [
    [
      "all",
      tables.number(entries[0][1].get("segments") if entries else None),
      *(tables.number(entry["recall"]) for _, entry in entries),
    ],
    ["false alarms a day", tables.NONE, *(tables.number(e.get("false_alarms_per_day")) for _, e in entries)],
  ]
  for group in ("by_strength", "by_kind", "by_kind_and_strength"):
    for heading in _groups(entries, group):
      rows.append(
        [
          heading,
          tables.number(pick(entries[0][1], group, heading, "segments")),
          *(tables.number(pick(entry, group, heading, "mean")) for _, entry in entries),
        ]
      )
  return tables.table(f"Share of true segments found at {point.get('limit', 'one rate')}", columns, rows)


def _causes(evaluation: dict[str, Any]) -> str:
  causes = evaluation.get("root_cause")
  if not isinstance(causes, dict):
    return tables.absent("Causes: the data do not say which metrics were behind the true segments.")
  entries = [
    (title, causes[key])
    for title, key in (("all true segments", "all_true_segments"), ("detected at POT", "detected_segments"))
    if isinstance(causes.get(key), dict)
  ]
  grouped = [(title, entry.get("first_named_right_groups")) for title, entry in entries]
  groups = [(heading, group) for group in ("by_strength", "by_kind") for heading in _groups(grouped, group)]
  columns = [
    tables.Column("segments taken"),
    tables.Column("segments", numeric=True),
    *(tables.Column(f"{name} / at random", numeric=True) for name in _CAUSE_FIGURES),
    tables.Column("NDCG@100%", numeric=True),
    *(tables.Column(f"first right: {heading}", numeric=True) for heading, _ in groups),
  ]
  rows = [
    [
      title,
      tables.number(entry.get("segments")),
      *(f"{tables.number(entry.get(own))} / {tables.number(entry.get(chance))}"
        for own, chance in _CAUSE_FIGURES.values()),
      tables.number(entry.get("ndcg_100")),
      *(tables.number(pick(entry, "first_named_right_groups", group, heading, "mean"))
        for heading, group in groups),
    ]
    for title, entry in entries
  ]  # fmt: skip
  return tables.table("How often the named metrics are the true ones", columns, rows)


def _notes(evaluation: dict[str, Any]) -> str:
  lines = [f"{name}: {text}" for name, text in (evaluation.get("notes") or {}).items()]
  lines += [f"{name}: {text}" for name, text in (evaluation.get("peeked") or {}).items()]
  left_out = {**(pick(evaluation, "mean", "left_out") or {})}
  lines += [f"{name} is in no figure: {reason}" for name, reason in left_out.items()]
  lines += [f"{name} is not pooled" for name in pick(evaluation, "pooled", "left_out") or []]
  assumed = pick(evaluation, "operating_point", "assumed_rows_per_day") or {}
  if assumed:
    days = sorted(set(assumed.values()))
    lines.append(
      f"{len(assumed)} machines have no clock; at the operating point a day is taken as "
      f"{', '.join(tables.number(value) for value in days)} rows"
    )
  items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
  return f'<details class="soft"><summary>How to read these figures</summary><ul>{items}</ul></details>'
