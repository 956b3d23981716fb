"""The evaluation as an aligned text table, worst machines first, with the footnotes its figures need."""

from collections.abc import Mapping, Sequence
from typing import Any

_MISSING = "-"
_FLOOR_NOTES = (
  "Of one machine, not pooled: VUS-PR (TSB-AD's). Oracles, whose thresholds the labels choose: best F1; Fc1,",
  "composite F1; PA%K, the area over K of F1 with a segment adjusted from K% of its rows on; PA F1, see **",
)
_FLOORS_SHOWN = 3  # beside the detector and random scores, where each takes a column


def _number(value: Any, digits: int = 3) -> str:
  return _MISSING if value is None else f"{value:.{digits}f}"


def _row(name: str, entry: Mapping[str, Any], threshold: str | None) -> list[str]:
  own, best = entry["detector"], entry.get("best_floor", {})
  at = own["at_threshold"].get(threshold, {})
  return [
    name,
    _number(own["average_precision"]),
    _number(best.get("average_precision")),
    best.get("name", _MISSING),
    _number(own["oracle"]["f1"]),
    _number(at.get("f1")),
    _number(at.get("event_recall"), 2),
    _number(at.get("false_alarms_per_day"), 2),
    _number(at.get("false_alarms_per_1000_rows"), 2),
    _number(at.get("delay_rows_median"), 0),
    _number(at.get("point_adjusted_f1")),
  ]


def align(rows: Sequence[Sequence[str]]) -> str:
  """Returns the rows as lines, the first column to the left, the others to the right.

  Args:
    rows: lists of text of one length, the head first.
  """
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = []
  for row in rows:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
    lines.append("  ".join(cells).rstrip())
  return "\n".join(lines)


def _share(figures: Mapping[str, Any] | None) -> str:
  return _MISSING if not figures else f"{_number(figures['mean'], 2)} ({figures['segments']})"


def _best_first(result: Mapping[str, Any]) -> list[str]:
  """Returns the floors by falling average precision, in the mean of machines where there is one."""
  block = result["mean"] if "detector" in result["mean"] else result["pooled"]
  return sorted(block["floors"], key=lambda name: -(block["floors"][name]["average_precision"] or 0.0))


def _floor_lines(result: Mapping[str, Any]) -> list[str]:
  """Returns the block of the detector and its floors side by side, on the same rows, the best floor first."""
  mean, pooled = result["mean"], result["pooled"]
  sides = [block for block in (mean, pooled) if "detector" in block]
  titles = [f"mean of {len(mean['machines'])}"] if "detector" in mean else []
  figures = ("AP", "VUS-PR", "best F1", "Fc1", "PA%K", "PA F1")
  head = [[f"{title}: {figures[0]}", *figures[1:]] for title in (*titles, "pooled")]
  rows = [["", *(name for names in head for name in names)]]
  for floor in ("detector", *_best_first(result)):
    row = [floor]
    for block in sides:
      entry = block["detector"] if floor == "detector" else block["floors"][floor]
      row += [_number(entry["average_precision"]), _number(entry.get("vus_pr"))]
      row.append(_number(entry["oracle"]["f1"]))
      row += [_number(entry[name]) for name in ("composite_f1_oracle", "pa_k_area_oracle")]
      row.append(_number(entry["point_adjusted_oracle"]["f1"]))
    rows.append(row)
  title = "The detector and its floors on the same rows"
  return ["", title, align(rows), *(f"  {note}" for note in _FLOOR_NOTES)]


def _point_lines(result: Mapping[str, Any], *, whole: bool) -> list[str]:
  """Returns the block of recall at one false alarm a day and of right causes; whole: by strength and kind, too."""
  point, causes = result["operating_point"], result["root_cause"]
  floors = _best_first(result)
  shown = {"detector", "random", *floors[:_FLOORS_SHOWN]}  # a screen is not wide enough for all
  names = [name for name in ("detector", *floors) if name in shown and name in point]
  right = causes["all_true_segments"] if causes else None
  head = ["true segments", *names, "first cause right"]
  rows = [head]
  own = point["detector"]
  first_right = _number(right["first_named_right"], 2) if right else _MISSING
  rows.append(
    [f"all ({own['segments']})", *(_number(point[name]["recall"], 2) for name in names), first_right]
  )
  groups = right["first_named_right_groups"] if right else {}
  for group in ("by_strength", "by_kind") if whole else ():
    for key in own[group]:
      cells = [_share(point[name][group].get(key)) for name in names]
      rows.append([key, *cells, _share(groups.get(group, {}).get(key))])
  lines = ["", f"Recall at {point['limit']}", align(rows)]
  if point["assumed_rows_per_day"]:
    lines.append("  no timestamps: a day is taken as 1,440 rows")
  if right:
    chance = _number(right["first_named_right_random"], 2)
    hits = (_number(right[name], 2) for name in ("hit_rate_100", "hit_rate_100_random"))
    lines.append(
      "  a random ranking names a right cause first in {}; HitRate@100% {}, random {}".format(chance, *hits)
    )
  return lines


def format_table(result: Mapping[str, Any], most: int | None = None) -> str:
  """Returns the table of an evaluation, machines by rising average precision, then mean and pooled.

  Args:
    result: the dict of `summary.evaluate_fleet`.
    most: machines shown, the worst; the groups of true segments go with the others. None: all.
  """
  machines = result["machines"]
  thresholds = list(result["pooled"]["detector"]["at_threshold"])
  threshold = "pot" if "pot" in thresholds else (thresholds[0] if thresholds else "pot")
  head = [
    "machine",
    "AP",
    "AP best floor",
    "which",
    "best F1*",
    f"F1 {threshold}",
    "recall",
    "FA/day",
  ]
  head += ["FA/1k rows", "delay", "PA F1**"]

  def precision(name: str) -> tuple[bool, float]:
    value = machines[name]["detector"]["average_precision"]
    return value is None, value or 0.0

  worst_first = sorted(machines, key=precision)[:most]
  num_more = len(machines) - len(worst_first)
  rows = [head] + [_row(name, machines[name], threshold) for name in worst_first]
  mean, pooled = result["mean"], result["pooled"]
  if "detector" in mean:
    rows.append(_row(f"mean of {len(mean['machines'])}", mean, threshold))
  rows.append(_row(f"pooled, {len(pooled['machines'])}", pooled, threshold))
  lines = align(rows).splitlines()
  if num_more:
    told = f"and {num_more} more; evaluation.json has them all (--verbose prints them)"
    lines.insert(1 + len(worst_first), told)
  lines.append("")
  lines.append(
    "AP: average precision; recall: true segments with an alarm; FA: false-alarm events; delay: rows"
  )
  lines.append("* oracle, its threshold chosen with the labels")
  lines.append(f"** {result['notes']['point_adjusted']}")
  lines.append(f"pooled by {pooled['by']}")
  if mean["without_an_anomaly"]:
    lines.append(f"without an anomaly, not in the mean: {', '.join(mean['without_an_anomaly'])}")
  for name, reason in mean["left_out"].items():
    lines.append(f"left out: {name}: {reason}")
  if pooled["left_out"]:
    lines.append(f"no positive POT threshold, not pooled: {', '.join(pooled['left_out'])}")
  return "\n".join(lines + _floor_lines(result) + _point_lines(result, whole=num_more == 0))
