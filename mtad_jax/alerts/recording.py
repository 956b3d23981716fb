"""From a scoring's files to what the ledger keeps of it: the version that raised alarms, the rows scored, the events.

In: calibration.json, config.json and fleet.json of the work directory; scores.parquet and events.parquet, which must
be of one scoring and of the thresholds that calibration.json has.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from mtad_jax.alerts.ranges import Range
from mtad_jax.alerts.records import Change, LedgerEvent, Recording, Span
from mtad_jax.config import to_dict
from mtad_jax.detect.tables import COLD_START
from mtad_jax.evaluate.inputs import ScoreTable, read_scores, read_table
from mtad_jax.train.workdir import CALIBRATION, FLEET, read_config, read_json

MADE_BY = "train.py (or calibrate.py)"
_NOT_OF_EVENTS = ("score_batch", "event_margin_rows")  # of config.detect: change no alarm
_EVENT_COLUMNS = (
  "event_id", "machine", "start_row", "end_row", "start", "end", "severity", "peak", "contributors"
)  # fmt: skip


def series_of(workdir: epath.PathLike, scores: epath.PathLike) -> str:
  """Returns what the rows of a scores' folder are counted in: "test", "scores/NAME", or the folder's path."""
  folder, root = (os.path.realpath(os.fspath(path)) for path in (scores, workdir))
  if folder == root:
    return "test"
  inside = os.path.dirname(folder) == os.path.join(root, "scores")
  return f"scores/{os.path.basename(folder)}" if inside else folder


def read_roles(workdir: epath.PathLike) -> dict[str, str]:
  """Returns {machine: role} of fleet.json."""
  file = epath.Path(workdir) / FLEET
  try:
    groups = read_json(file, "train.py", ("groups",))["groups"]
    return {machine["name"]: machine["role"] for group in groups for machine in group["machines"]}
  except (KeyError, TypeError) as error:
    raise ValueError(f"{file}: a machine's name or role is missing ({error}); train.py writes it") from None


def read_cold(scores: epath.PathLike) -> dict[str, dict[str, Any]]:
  """Returns {machine: role, group and run_id of the mixture} of the machines that have no model of their own.

  Raises:
    ValueError: scores.parquet in the folder `scores` is missing or damaged.
  """
  path = epath.Path(scores) / "scores.parquet"
  found = json.loads(_metadata(path).get(COLD_START.encode(), b"{}"))
  for name, entry in found.items():
    for field in ("role", "group", "run_id"):
      if field not in entry:
        raise ValueError(f"{path}: {COLD_START} of machine {name!r}: field {field!r} is missing; run score.py again")
  return found


def _metadata(path: epath.Path) -> dict[bytes, bytes]:
  """Returns what a table says of itself; raises ValueError where it is missing or damaged."""
  if not path.exists():
    raise ValueError(f"{path}: not found; score.py writes it")
  with path.open("rb") as opened:
    try:
      return pq.read_schema(opened).metadata or {}
    except pa.ArrowInvalid as error:
      raise ValueError(f"{path}: not a readable Parquet file ({error})") from None


def read_thresholds(workdir: epath.PathLike) -> dict[str, Any]:
  """Returns calibration.json's content; every machine has a threshold and what POT promised.

  Raises:
    ValueError: there is none, or a field is missing, with the machine that lacks it.
  """
  file = epath.Path(workdir) / CALIBRATION
  content = read_json(file, MADE_BY, ("run_id", "checkpoint_steps", "rule", "machines"))
  for name, entry in content["machines"].items():
    try:
      numbers = (entry["threshold"], entry["pot"]["threshold"])
    except (KeyError, TypeError) as error:
      raise ValueError(f"{file}: machine {name!r}: field {error} is missing; {MADE_BY} writes it") from None
    if not all(isinstance(number, float) and np.isfinite(number) for number in numbers):
      raise ValueError(f"{file}: machine {name!r}: threshold {numbers!r}: finite numbers are wanted")
  return content


def describe_change(workdir: epath.PathLike, calibration: Mapping[str, Any], note: str) -> Change:
  """Returns the version that calibration.json and config.json of a work directory make now."""
  settings = json.loads(json.dumps(to_dict(read_config(workdir).detect)))  # lists for tuples, as they come back
  prior = calibration.get("prior") or None  # an empty file says nothing
  content: dict[str, Any] = {
    "run_id": calibration["run_id"],
    "checkpoint_steps": list(calibration["checkpoint_steps"]),
    "rule": calibration["rule"],
    "thresholds": {name: entry["threshold"] for name, entry in calibration["machines"].items()},
    "settings": {name: value for name, value in settings.items() if name not in _NOT_OF_EVENTS},
    "prior": None if prior is None else _digest(prior),
  }
  digest = _digest(content)
  content["checkpoint_steps"] = tuple(content["checkpoint_steps"])
  return Change(id=0, digest=digest, **content, note=note, recorded_ms=0)


def read_recording(workdir: epath.PathLike, scores: epath.PathLike) -> Recording:
  """Returns what the ledger keeps of the scoring in the folder `scores`.

  Raises:
    ValueError: a file is missing or damaged, of another run, of other thresholds than calibration.json's, or scores
      and events are not of one scoring; file, machine and event are named.
  """
  folder = epath.Path(scores)
  calibration, roles = read_thresholds(workdir), read_roles(workdir)
  roles |= {name: entry["role"] for name, entry in read_cold(folder).items()}
  tables = read_scores(folder / "scores.parquet")
  check_same_thresholds(workdir, folder, calibration, tables)
  series, step_s = series_of(workdir, scores), read_config(workdir).data.sampling_step_s
  spans = [_span(name, series, table, step_s) for name, table in tables.items()]
  events = _read_events(folder, series, tables, roles)
  change = describe_change(workdir, calibration, "first recorded")
  return Recording(change, tuple(span for span in spans if span is not None), tuple(events))


def check_same_thresholds(
  workdir: epath.PathLike,
  folder: epath.Path,
  calibration: Mapping[str, Any],
  tables: Mapping[str, ScoreTable],
) -> None:
  """Raises ValueError where the scores are of another run or other thresholds than the work directory's.

  The threshold of a machine without a model is that of its role's mixture; of a mixture of another run nothing is
  known here.
  """
  cold = read_cold(folder)
  of_roles = {(entry["group"], entry["role"]): entry["calibration"] for entry in calibration.get("roles", [])}
  file = epath.Path(workdir) / CALIBRATION
  for name in ("scores.parquet", "events.parquet"):
    path = folder / name
    run_id = _metadata(path).get(b"run_id", b"").decode()
    if run_id != calibration["run_id"]:
      raise ValueError(f"{path}: of run {run_id or 'unknown'}, {file} is of {calibration['run_id']}")
  for machine, table in tables.items():
    entry = calibration["machines"].get(machine)
    if machine in cold:
      if cold[machine]["run_id"] != calibration["run_id"]:
        continue
      entry = of_roles.get((cold[machine]["group"], cold[machine]["role"]))
    if entry is None:
      raise ValueError(f"{folder / 'scores.parquet'}: machine {machine!r} is not in {file}")
    found = table.thresholds["pot"]
    if entry.get("streaming"):
      continue  # it follows the scores, and no row's need be the one that it began with
    if not isinstance(found, float) or found != entry["threshold"]:
      raise ValueError(
        f"{folder / 'scores.parquet'}: machine {machine!r} was scored with threshold {_told(found)},"
        f" {file} has {entry['threshold']!r}; run score.py again"
      )


def _told(threshold: float | np.ndarray) -> str:
  return repr(threshold) if isinstance(threshold, float) else "one a row"


def _digest(content: Any) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _span(machine: str, series: str, table: ScoreTable, sampling_step_s: float) -> Span | None:
  """Returns the rows from the first to the last with a score; None where there is none."""
  rows = np.flatnonzero(~np.isnan(table.scores))
  if len(rows) == 0:
    return None
  first, last = int(rows[0]), int(rows[-1])
  step_s = sampling_step_s or None
  times: tuple[int | None, int | None] = (None, None)
  if table.timestamps is not None:
    ms = table.timestamps.astype("datetime64[ms]").astype(np.int64)
    times = (int(ms[first]), int(ms[last]))
    if len(ms) > 1:
      step_s = float(np.median(np.diff(ms))) / 1000
  return Span(0, Range(machine, series, first, last + 1, *times), step_s)


def _read_events(
  folder: epath.Path, series: str, tables: Mapping[str, ScoreTable], roles: Mapping[str, str]
) -> list[LedgerEvent]:
  path = folder / "events.parquet"
  table = read_table(path, _EVENT_COLUMNS).select(_EVENT_COLUMNS)
  for name in ("start", "end"):
    index = table.column_names.index(name)
    table = table.set_column(index, name, table.column(name).cast(pa.timestamp("ms")).cast(pa.int64()))
  found = []
  for row in table.to_pylist():
    place = f"{path}: event {row['event_id']}"
    own = tables.get(row["machine"])
    if own is None or row["machine"] not in roles:
      raise ValueError(f"{place}: machine {row['machine']!r} is not in scores.parquet and fleet.json")
    scores = own.scores[row["start_row"] : row["end_row"]]
    peak = np.nanmax(scores, initial=-np.inf)
    if len(scores) != row["end_row"] - row["start_row"] or peak != row["peak"]:
      raise ValueError(
        f"{place}: its peak is {row['peak']!r}, that of its rows in scores.parquet {float(peak)!r}: not of one"
        " scoring; run score.py again"
      )
    thresholds = own.thresholds["pot"]
    if not isinstance(thresholds, float):  # at the event's peak
      thresholds = float(thresholds[row["start_row"] + int(np.nanargmax(scores))])
    causes = tuple((item["metric"], float(item["contribution"])) for item in row["contributors"] or [])
    where = Range(row["machine"], series, row["start_row"], row["end_row"], row["start"], row["end"])
    found.append(
      LedgerEvent(
        id=0,
        change_id=0,
        role=roles[row["machine"]],
        range=where,
        severity=row["severity"],
        peak=row["peak"],
        threshold=thresholds,
        causes=causes,
        recorded_ms=0,
      )
    )
  return found
