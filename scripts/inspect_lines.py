"""The facts of inspect_facts.py as aligned lines for a person."""

import math
import re
from collections.abc import Sequence
from typing import Any

from terminal import aligned, first_lines

MAX_LEAVES = 12  # shown: of a comparison, the worst
MOST_MACHINES = 8  # shown, the worst; beside the arrays, which are as many in any fleet


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None) -> list[str]:
  """Returns a table's lines, two spaces in; figures to the right, text to the left.

  Args:
    most: rows shown without --verbose; None: all.
  """
  if not rows:
    return []
  first, *lines = [f"  {line}" for line in aligned([header, *rows])]
  return [first, *lines] if most is None else [first, *first_lines(lines, "--json", most)]


def number(value: Any) -> str:
  """Returns a figure for a table; what is not known is a dash."""
  if value is None:
    return "-"
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, int):
    return str(value)
  if isinstance(value, float):
    return f"{value:.5g}" if math.isfinite(value) else "not finite" if math.isnan(value) else "from 0"
  return str(value)


def _listed(values: Sequence[Any]) -> str:
  return ", ".join(map(str, values)) or "none"


def size(num_bytes: float) -> str:
  """Returns bytes in the unit that suits."""
  for unit in ("B", "KiB", "MiB"):
    if num_bytes < 1024:
      return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
    num_bytes /= 1024
  return f"{num_bytes:.1f} GiB"


def run_lines(run: dict[str, Any]) -> list[str]:
  """Returns what run and config are told in."""
  lines = [f"run {run['run_id']} of {run['created']}, commit {run['commit'] or 'unknown'}"]
  if run["exported_from"]:
    origin = run["exported_from"]
    lines.append(
      f"exported: machine {origin['machine']} of run {origin['run_id']} ({origin['workdir']}), step {origin['step']}"
    )
  if run["warm_start"]:
    lines.append(f"first parameters from {run['warm_start']}")
  lines.append(f"data: {run['data']} ({run['dataset']})")
  lines.append("config, where it differs from the defaults:")
  rows = [(path, repr(here), f"(default {default!r})") for path, (here, default) in run["config"].items()]
  widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
  return lines + [f"  {a.ljust(widths[0])}  {b.ljust(widths[1])}  {c}" for a, b, c in rows]


def _step_lines(steps: list[dict[str, Any]]) -> list[str]:
  header = ("step", "validated", "median loss", "worst loss", "skipped", "rolled back", "retired")
  rows = []
  fields = ("median_loss", "worst_loss", "num_skipped", "num_rolled_back", "num_retired")
  for step in steps:
    if step["damage"] is None:
      validated = f"{step['num_validated']} of {step['num_machines']}"
      rows.append((str(step["step"]), validated, *(number(step[field]) for field in fields)))
  damaged = [f"  {step['step']}  DAMAGED: {step['damage']}" for step in steps if step["damage"] is not None]
  return columns(header, rows) + damaged


def _told(record: dict[str, Any]) -> str:
  loss = record["best_loss"]
  best = "not validated yet" if loss is None else f"validation loss {loss:.6g} at step {record['best_step']}"
  if loss is None and record["validated_step"]:
    best = f"validated up to step {record['validated_step']}, never finite"
  text = f"  {record['name']}: {best}; at its step {number(record['machine_step'])}"
  text += f"; {number(record['num_skipped'])} steps skipped, {number(record['num_rolled_back'])} rolled back"
  return text + ("; RETIRED" if record["retired"] else "")


def _trouble(record: dict[str, Any]) -> tuple[bool, int, int, float]:
  """Returns the sort key that puts retired machines first, then those with most trouble, then the highest loss."""
  loss = math.inf if record["best_loss"] is None else record["best_loss"]
  return not record["retired"], -(record["num_rolled_back"] or 0), -(record["num_skipped"] or 0), -loss


def _record_lines(records: list[dict[str, Any]]) -> list[str]:
  if len(records) == 1:
    return [_told(records[0])]
  fields = ("best_loss", "best_step", "machine_step", "num_skipped", "num_rolled_back", "retired")
  header = ("machine", "validation loss", "at step", "own step", "skipped", "rolled back", "retired")
  worst_first = sorted(records, key=_trouble)
  return columns(header, [(r["name"], *(number(r[field]) for field in fields)) for r in worst_first], MOST_MACHINES)


def _array_lines(arrays: list[dict[str, Any]], most: int | None) -> list[str]:
  arrays = sorted(arrays, key=lambda leaf: not leaf["num_not_finite"])
  rows = [
    (
      leaf["path"],
      str(leaf["shape"]),
      leaf["dtype"],
      number(leaf["norm"]),
      f"{leaf['num_not_finite']} NOT FINITE" if leaf["num_not_finite"] else "finite",
    )
    for leaf in arrays
  ]
  bad = sum(leaf["num_not_finite"] for leaf in arrays)
  values = sum(math.prod(leaf["shape"]) for leaf in arrays)
  total = f"  {len(arrays)} leaves, {values:,} values, {size(sum(leaf['num_bytes'] for leaf in arrays))}"
  return [
    *columns(("leaf", "shape", "type", "norm", "values"), rows, most),
    f"{total}, {f'{bad} NOT FINITE' if bad else 'all finite'}",
  ]


def group_lines(facts: dict[str, Any]) -> list[str]:
  """Returns a group's steps, and of one step who wrote it, its machines and its arrays."""
  count = len(facts["machines"])
  lines = [f"group {facts['group']}: {count} machines, {len(facts['metrics'])} metrics"]
  inputs = [name for name in facts["metrics"] if name not in facts["targets"]]
  lines.append(
    f"  scored: {_listed(facts['targets'])}" + (f"; input only: {_listed(inputs)}" if inputs else "")
  )
  if not facts["steps"]:
    return [*lines, "  no checkpoint yet; train.py writes them"]
  lines += _step_lines(facts["steps"])
  if facts["left_aside"]:
    lines.append(f"  folders that do not count: {_listed(facts['left_aside'])}")
  if facts["step"] is None:
    return [*lines, "no step can be read"]
  by = facts["written_by"]
  versions = ", ".join(f"{name} {version}" for name, version in (by["versions"] or {}).items())
  lines.append(f"step {facts['step']}, written by {versions or 'unknown versions'}")
  kinds = [re.sub(r"[_:]\d.*", "", name) for name in by["devices"] or []]  # cuda:3, TPU_3(process=0,...)
  devices = [f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)]
  processes = "unknown" if by["num_processes"] is None else str(by["num_processes"])
  lines.append(f"  on {_listed(devices) if devices else 'unknown devices'}; processes: {processes}")
  if facts["fleet_steps"] is not None:
    lines.append(f"  length of the run: {facts['fleet_steps']} steps")
  lines += ["machines:", *_record_lines(facts["records"])]
  most = MAX_LEAVES if facts["branch"] else None
  lines += [f"arrays ({facts['branch'] or 'all'}):", *_array_lines(facts["arrays"], most)]
  if facts["not_read"]:
    told = [f"{b['name']} {b['num_values']:,} values" for b in facts["not_read"] if b["num_leaves"] > 1]
    single = [b["name"] for b in facts["not_read"] if b["num_leaves"] == 1]
    lines.append(f"  not read (--full shows them): {', '.join(told + single)}")
  return lines


def threshold_lines(facts: dict[str, Any]) -> list[str]:
  """Returns every machine's threshold, and of one machine the table of its metrics."""
  if facts["rule"] is None:
    lines = ["thresholds: none yet; train.py ends with them"]
  else:
    other = "" if facts["is_of_this_run"] else "; OF ANOTHER RUN"
    machines = sorted(facts["machines"], key=_excess)
    lines = [
      f"thresholds (rule {facts['rule']}, checkpoint steps {_listed(facts['checkpoint_steps'])}{other}):"
    ]
    lines += columns(
      ("machine", "role", "threshold", "initial", "rows", "status"),
      [
        (
          m["name"],
          m["role"],
          number(m["threshold"]),
          number(m["initial"]),
          number(m["num_rows"]),
          m["status"],
        )
        for m in machines
        if m["threshold"] is not None
      ],
      MOST_MACHINES,
    )
    lines += [f"  {m['name']}: NO THRESHOLD" for m in machines if m["threshold"] is None]
    for told in (
      [f"  {m['name']}: warning above {number(m['warning'])}" for m in machines if "warning" in m],
      [f"  {m['name']}: pooled: {m['pooled']}" for m in machines if m.get("pooled")],
      [f"  {m['name']}: {_check_text(m['check'])}" for m in machines if "check" in m],
    ):
      lines += first_lines(told, "--json", MOST_MACHINES)
  if not facts["metrics"]:
    return lines
  names = [name for name in facts["metrics"][0] if name != "metric"]
  names += [name for row in facts["metrics"] for name in row if name not in ("metric", *names)]
  names = list(dict.fromkeys(names))
  shown = [name.removeprefix("is_").replace("_", " ").replace("deviation", "dev.") for name in names]
  rows = [(row["metric"], *(number(row.get(name)) for name in names)) for row in facts["metrics"]]
  lines.append("metrics (minimum, maximum and scale in their own units, errors in scaled ones):")
  return lines + columns(("metric", *shown), rows)


def _excess(machine: dict[str, Any]) -> float:
  """Returns the sort key that puts first the machine whose check part broke its promise most."""
  check = machine.get("check", {})
  return (check.get("promised_alarm_rows") or 0.0) - (check.get("num_alarm_rows") or 0)


def _check_text(check: dict[str, Any]) -> str:
  """Returns what the threshold did on rows that nothing was fitted on, beside what it promised."""
  return (
    f"check part: {check['num_alarm_rows']} of {check['num_rows']} rows above it in {check['num_alarms']} alarms;"
    f" promised {number(check['promised_alarm_rows'])} rows in {number(check['promised_alarms'])} alarms"
  )


def trouble_lines(facts: dict[str, Any]) -> list[str]:
  """Returns the last records of trouble."""
  if not facts["num_records"]:
    return ["trouble: none on record"]
  lines = [f"trouble: {facts['num_records']} on record, the last {len(facts['last'])}:"]
  header = (
    "machine",
    "step",
    "tick",
    "attempt",
    "verdict",
    "what",
    "blocks",
    "rate",
    "loss",
    "usual",
    "worst row",
  )
  rows = []
  for r in facts["last"]:
    cells = [r.get(name) for name in ("learning_rate", "loss", "usual_loss", "worst_row")]
    numbers = [number(r.get(name)) for name in ("step", "tick", "attempt")]
    what, blocks = (",".join(r.get(name, [])) or "-" for name in ("parts", "blocks"))
    rows.append((r["machine"], *numbers, r["verdict"], what, blocks, *map(number, cells)))
  return lines + columns(header, rows)


def compare_lines(facts: dict[str, Any]) -> list[str]:
  """Returns a comparison's tables."""
  here, there = facts["here"], facts["there"]
  steps = [
    _listed([f"{step} (group {group})" for group, step in side["steps"].items()]) for side in (here, there)
  ]
  lines = [f"here:  {here['workdir']} step {steps[0]}", f"there: {there['workdir']} step {steps[1]}"]
  for name, side in (("only_here", "here"), ("only_there", "there")):
    if facts[name]:
      lines.append(f"machines only {side}: {_listed(facts[name])}")
  lines.append("config: no difference" if not facts["config"] else "config, here and there:")
  lines += [f"  {path}: {a!r}, {b!r}" for path, (a, b) in facts["config"].items()]
  whole = {
    branch: {m["name"]: m for m in compared["machines"]} for branch, compared in facts["branches"].items()
  }
  header = ["machine", "loss here", "there", "skipped here", "there", "rolled back here", "there"]
  header += ["retired here", "there", *(f"d {branch}" for branch in whole)]
  rows = []
  for record in facts["records"]:
    cells = [record["name"]]
    for field in ("best_loss", "num_skipped", "num_rolled_back", "retired"):
      cells += [number(record["here"][field]), number(record["there"][field])]
    cells += [number(whole[branch].get(record["name"], {}).get("whole")) for branch in whole]
    rows.append(cells)
  lines += ["machines (d: ||here - there|| / ||there|| over all leaves):", *columns(header, rows)]
  for branch, compared in facts["branches"].items():
    lines.append(f"{branch}, ||here - there|| / ||there|| by leaf, worst first:")
    shown, rest = compared["leaves"][:MAX_LEAVES], len(compared["leaves"][MAX_LEAVES:])
    rows = [[x["path"], number(x["median"]), number(x["worst"]), x["machine"]] for x in shown]
    lines += columns(["leaf", "median", "worst", "machine"], rows)
    lines += [f"  and {rest} more that differ less (--json has all)"] if rest else []
    lines += [f"  {line}" for line in compared["others"]]
  return lines


def readiness_lines(facts: dict[str, Any]) -> list[str]:
  """Returns yes, or no with every reason."""
  answer = f"yes: {len(facts['machines'])} machines" if not facts["reasons"] else "no:"
  return [
    answer,
    *(f"  {reason}" for reason in facts["reasons"]),
    *(f"note: {note}" for note in facts["notes"]),
  ]


def export_lines(facts: dict[str, Any]) -> list[str]:
  """Returns what was exported and how it is used."""
  return [
    f"{facts['machine']}: step {facts['step']} is now the work directory {facts['workdir']}"
    f" (run {facts['run_id']}); {facts['calibration']}"
  ]
