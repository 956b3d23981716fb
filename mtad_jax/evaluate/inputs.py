"""What the evaluation reads: scores.parquet, segments.parquet, and the raw machines for the floors.

In: the tables that score.py wrote and the machines as the readers return them. Out: `ScoredMachine`s.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from mtad_jax.config import Config
from mtad_jax.data.machine import Machine
from mtad_jax.data.track import Track, untracked
from mtad_jax.evaluate.floors import floor_scores
from mtad_jax.evaluate.scored import ScoredMachine
from mtad_jax.evaluate.segments import segments_of

_NEEDED = ("machine", "row", "score", "threshold", "valid")
_OTHER = "score_"  # columns score_raw, score_gamma, ... are the same rows by another rule
_DAY_MS = 86_400_000


class ScoreTable(NamedTuple):
  """One machine's part of scores.parquet, in the order of rows; NaN where there is no score.

  timestamps: [T] datetime64[ms], or None. labels: [T] bool, or None. other_scores: [T] by name.
  thresholds: one number, or [T] where it changes from row to row.
  """

  scores: np.ndarray
  thresholds: dict[str, float | np.ndarray]
  other_scores: dict[str, np.ndarray]
  labels: np.ndarray | None
  timestamps: np.ndarray | None


def read_table(path: epath.Path, needed: Sequence[str]) -> pa.Table:
  """Returns a Parquet table; raises ValueError where there is none, or it is damaged, or lacks a needed column."""
  if not path.exists():
    raise ValueError(f"{path}: not found; score.py writes it")
  try:
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
  except pa.ArrowInvalid as error:
    raise ValueError(f"{path}: not a readable Parquet file ({error})") from None
  missing = [name for name in needed if name not in table.column_names]
  if missing:
    raise ValueError(f"{path}: column {missing[0]!r} is missing; there are {', '.join(table.column_names)}")
  return table


def _numbers(table: pa.Table, name: str) -> np.ndarray:
  """Returns a column as float64, NaN where null."""
  return table.column(name).cast(pa.float64()).to_numpy()


def _one_threshold(values: np.ndarray, place: str) -> float:
  """Returns a machine's threshold: the one number in all its rows, NaN where all are null."""
  known = values[~np.isnan(values)]
  if len(known) == 0:
    return float("nan")
  if len(known) < len(values) or np.ptp(known) > 0:
    raise ValueError(f"{place}: more than one value; one threshold a machine is wanted")
  return float(known[0])


def _row_thresholds(own: dict[str, np.ndarray], valid: np.ndarray, place: str) -> float | np.ndarray:
  """Returns a machine's threshold: one number, NaN where all are null, or [T] where it changes.

  Raises:
    ValueError: a row has none where others have, or is_anomaly says otherwise than score and threshold.
  """
  values = own["threshold"]
  known = ~np.isnan(values)
  if not np.any(known):
    return float("nan")
  if not np.all(known):
    raise ValueError(f"{place}, column threshold, row {int(np.argmin(known))}: null; one a row is wanted")
  if "is_anomaly" in own:
    with np.errstate(invalid="ignore"):
      wrong = valid & ((own["score"] > values) != (own["is_anomaly"] == 1))
    if np.any(wrong):
      row = int(np.argmax(wrong))
      told = f"score {own['score'][row]:g}, threshold {values[row]:g}"
      raise ValueError(f"{place}, row {row}: is_anomaly {bool(own['is_anomaly'][row])} against {told}")
  return float(values[0]) if np.ptp(values) == 0 else values


def _labels(values: np.ndarray, place: str) -> np.ndarray | None:
  if np.all(np.isnan(values)):
    return None
  bad = ~np.isin(values, (0.0, 1.0))
  if np.any(bad):
    raise ValueError(f"{place}, row {int(np.argmax(bad))}: {values[bad][0]} is no label; 0 or 1 is wanted")
  return values == 1


def read_scores(path: epath.Path) -> dict[str, ScoreTable]:
  """Returns {machine: its scores}, in the order of the file.

  Args:
    path: scores.parquet.

  Raises:
    ValueError: no such file, a missing column, a row missing or given twice, a valid row without a score or a
      threshold, an is_anomaly that they contradict, or a threshold_initial that changes within a machine; file,
      machine and row are named.
  """
  table = read_table(path, _NEEDED)
  names = table.column("machine").cast(pa.string()).to_numpy(zero_copy_only=False)
  columns = {
    name: _numbers(table, name)
    for name in table.column_names
    if name in _NEEDED[1:] or name in ("label", "threshold_initial", "is_anomaly") or name.startswith(_OTHER)
  }
  columns.pop("score_ratio", None)
  stamps = None
  if "timestamp" in table.column_names and table.column("timestamp").null_count < len(table):
    stamps = table.column("timestamp").cast(pa.timestamp("ms")).to_numpy()
  machines, lane = np.unique(names.astype(str), return_inverse=True)
  first_row = {name: int(np.argmax(lane == index)) for index, name in enumerate(machines)}
  result = {}
  for name in sorted(first_row, key=first_row.__getitem__):
    index = np.flatnonzero(lane == np.searchsorted(machines, name))
    index = index[np.argsort(columns["row"][index], kind="stable")]
    own = {key: values[index] for key, values in columns.items()}
    place = f"{path}: machine {name}"
    wrong = own["row"] != np.arange(len(index))
    if np.any(wrong):
      raise ValueError(f"{place}: row {int(np.argmax(wrong))} is missing or given twice; one each is wanted")
    valid = own["valid"] == 1
    empty = valid & np.isnan(own["score"])
    if np.any(empty):
      raise ValueError(f"{place}, row {int(np.argmax(empty))}: valid but without a score")
    thresholds = {"pot": _row_thresholds(own, valid, place)}
    if "threshold_initial" in own:
      column = f"{place}, column threshold_initial"
      thresholds["initial"] = _one_threshold(own["threshold_initial"], column)
    clock = None if stamps is None or np.any(np.isnat(stamps[index])) else stamps[index]
    result[str(name)] = ScoreTable(
      np.where(valid, own["score"], np.nan),
      thresholds,
      {key.removeprefix(_OTHER): values for key, values in own.items() if key.startswith(_OTHER)},
      _labels(own["label"], f"{place}, column label") if "label" in own else None,
      clock,
    )
  return result


def common_scores(tables: Mapping[str, ScoreTable]) -> tuple[list[str], dict[str, str]]:
  """Returns the other scores that every machine has in every valid row, and why others are left out.

  A score that no row has, of a rule that this kind of model does not know, is neither.
  """
  kept, left_out = [], {}
  names = dict.fromkeys(
    name for table in tables.values() for name, values in table.other_scores.items() if not np.isnan(values).all()
  )
  for name in names:
    lacking = [
      machine
      for machine, table in tables.items()
      if np.any(~np.isnan(table.scores) & np.isnan(table.other_scores[name]))
    ]
    if lacking:
      left_out[name] = f"not in every valid row of {lacking[0]}"
    else:
      kept.append(name)
  return kept, left_out


def read_rankings(path: epath.Path) -> dict[tuple[str, int, int], tuple[str, ...]]:
  """Returns {(machine, start row, end row): metrics, best first} of segments.parquet.

  Args:
    path: segments.parquet.

  Raises:
    ValueError: no such file, or a missing column.
  """
  table = read_table(path, ("machine", "start_row", "end_row", "metrics"))
  return {
    (row["machine"], int(row["start_row"]), int(row["end_row"])): tuple(row["metrics"] or ())
    for row in table.select(["machine", "start_row", "end_row", "metrics"]).to_pylist()
  }


def rows_per_day(timestamps: np.ndarray | None, sampling_step_s: float) -> float | None:
  """Returns the rows of a day by the median step, else by the configured one, None where nothing says.

  Args:
    timestamps: [T] datetime64[ms], or None.
    sampling_step_s: of the config, seconds; 0: not known.
  """
  if timestamps is not None and len(timestamps) > 1:
    return _DAY_MS / float(np.median(np.diff(timestamps).astype("timedelta64[ms]").astype(np.float64)))
  return _DAY_MS / (1000 * sampling_step_s) if sampling_step_s > 0 else None


def _checked_labels(name: str, table: ScoreTable, machine: Machine) -> np.ndarray | None:
  if len(machine.test.values) != len(table.scores):
    raise ValueError(
      f"{name}: {len(table.scores)} scored rows, but the raw test split has {len(machine.test.values)}; "
      "give the data that were scored by --data_dir or --source"
    )
  if table.labels is None or machine.labels is None:
    return machine.labels if table.labels is None else table.labels
  differs = table.labels != machine.labels
  if np.any(differs):
    row = int(np.argmax(differs))
    raise ValueError(f"{name}, row {row}: the label in scores.parquet differs from the raw data's")
  return table.labels


def scored_machines(
  tables: Mapping[str, ScoreTable],
  machines: Sequence[Machine],
  rankings: Mapping[tuple[str, int, int], tuple[str, ...]] | None,
  config: Config,
  floors: Sequence[str] | None = None,
  track: Track = untracked,
) -> list[ScoredMachine]:
  """Returns the machines as `summary.evaluate_fleet` takes them.

  Args:
    tables: of scores.parquet.
    machines: raw, at least those that were scored.
    rankings: of segments.parquet; None: no causes are evaluated.
    config: of the run.
    floors: names of `floors.FLOORS`; None: those that are available.
    track: watches the floors, machine by machine.

  Raises:
    ValueError: a scored machine without raw data, other lengths or labels, or a cause that is no metric.
  """
  by_name = {machine.name: machine for machine in machines}
  names, _ = common_scores(tables)
  result = []
  for lane, (name, table) in enumerate(track(tables.items(), "floors")):
    if name not in by_name:
      raise ValueError(f"{name}: scored, but not in the raw data; known there: {', '.join(by_name)}")
    machine = by_name[name]
    labels = _checked_labels(name, table, machine)
    column = {metric: index for index, metric in enumerate(machine.metrics)}
    ranked: list[tuple[int, ...] | None] = []
    for start, end in segments_of(labels) if labels is not None else []:
      causes = None if rankings is None else rankings.get((name, int(start), int(end)))
      unknown = [metric for metric in causes or () if metric not in column]
      if unknown:
        raise ValueError(f"segments.parquet: machine {name}: cause {unknown[0]!r} is none of its metrics")
      ranked.append(None if causes is None else tuple(column[metric] for metric in causes))
    clock = table.timestamps if table.timestamps is not None else machine.test.timestamps
    result.append(
      ScoredMachine(
        name=name,
        role=machine.role,
        labels=labels,
        scores=table.scores,
        thresholds=table.thresholds,
        other_scores={key: table.other_scores[key] for key in names},
        baselines=floor_scores(machine, config, config.evaluate.random_seed + lane, floors),
        interpretation=() if rankings is None else machine.interpretation,
        cause_ranking=tuple(ranked),
        rows_per_day=rows_per_day(clock, config.data.sampling_step_s),
        # a ranking names every scored metric once; a random one would choose among the same
        num_metrics=max((len(causes) for causes in ranked if causes), default=len(machine.metrics)),
      )
    )
  return result
