"""What the report reads of a work directory: scores, events, evaluation, training log or roles, notes, ledger.

scores.parquet must be there; a part that is missing otherwise stands in `missing` with its reason, which the
page shows in its place. A file that is there and cannot be read is an error, never a missing part.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mtad_jax.alerts.curves import ledger_curves
from mtad_jax.config_choices import Detector
from mtad_jax.detect.tables import COLD_START
from mtad_jax.report.event_file import Event, read_events
from mtad_jax.report.metric_rows import FILE as METRIC_SCORES
from mtad_jax.report.parquet import read_columns
from mtad_jax.report.training_log import LossCurves, read_losses
from mtad_jax.roles.role_file import ROLE_MIXTURES, StoredRole, read_role_file


class MachineScores(NamedTuple):
  """The scores of one machine, in row order.

  row: [T] int64. times: [T] float64, ms since 1970 (UTC), or None where the data have no timestamps.
  score, threshold: [T] float64, NaN where a row has none. initial: the tail's beginning, or None.
  is_anomaly, valid: [T] bool. label: [T] bool, or None where the data have none.
  warning: [T] float64, the lower threshold of warnings, or None where the run has none.
  model: what scored it; empty in files of before that was written.
  """

  row: np.ndarray
  times: np.ndarray | None
  score: np.ndarray
  threshold: np.ndarray
  initial: float | None
  is_anomaly: np.ndarray
  valid: np.ndarray
  label: np.ndarray | None
  model: str = ""
  warning: np.ndarray | None = None


class Work(NamedTuple):
  """Everything the page shows.

  notes: machine -> counts of its preparation. roles: of a run of role mixtures, in place of losses. ledger: see
  `ledger_curves`, None where there is none. missing: part -> why it cannot be drawn. role_of: machine -> its role,
  where known. metric_scores: the file of the metrics' scores, or None.
  """

  path: Path
  machines: dict[str, MachineScores]
  events: list[Event]
  losses: dict[str, LossCurves]
  evaluation: dict[str, Any] | None
  calibration: dict[str, Any] | None
  config: dict[str, Any]
  run: dict[str, Any]
  notes: dict[str, dict[str, Any]]
  roles: list[StoredRole]
  ledger: dict[str, Any] | None
  missing: dict[str, str]
  role_of: dict[str, str]
  metric_scores: Path | None

  @property
  def is_role_mixture(self) -> bool:
    """Whether the run has a mixture a role, and no networks."""
    return _is_role_mixture(self.config)


_SCORE_COLUMNS = ("machine", "row", "timestamp", "score", "threshold", "is_anomaly", "valid")


def read_work(workdir: str, scores_dir: str = "") -> Work:
  """Returns what the report shows of a work directory.

  Args:
    workdir: folder with config.json, run.json, metrics.jsonl.
    scores_dir: folder with scores.parquet, events.parquet and evaluation.json; empty: the work directory.

  Raises:
    ValueError: the folder is no local one, there is no scores.parquet, or a file is damaged; file named.
  """
  for place in (workdir, scores_dir):
    if "://" in place:
      raise ValueError(f"{place}: the report needs a local path; copy the work directory to this machine")
  path = Path(workdir)
  if not path.is_dir():
    raise ValueError(f"{path}: there is no such work directory")
  scores_path = Path(scores_dir) if scores_dir else path
  missing: dict[str, str] = {}
  machines, cold = _read_scores(scores_path / "scores.parquet")
  config = _read_json(path / "config.json", "settings", "the settings are not known", missing) or {}
  roles, losses = _read_model(path, config, missing)
  fleet = _read_json(path / "fleet.json", "notes", "what was done to the data is not known", missing)
  return Work(
    path=path,
    machines=machines,
    events=read_events(scores_path / "events.parquet", missing),
    losses=losses,
    evaluation=_read_json(
      scores_path / "evaluation.json", "evaluation", "run scripts/evaluate.py first", missing
    ),
    calibration=_read_json(path / "calibration.json", "calibration", "the fits are not known", missing),
    config=config,
    run=_read_json(path / "run.json", "run", "nothing is known of the training run", missing) or {},
    notes=_notes(fleet, missing),
    roles=roles,
    ledger=ledger_curves(path),
    missing=missing,
    role_of=_roles_of(fleet) | cold,
    metric_scores=_metric_scores(scores_path / METRIC_SCORES, missing),
  )


def _is_role_mixture(config: dict[str, Any]) -> bool:
  return config.get("model", {}).get("detector") == Detector.ROLE_MIXTURE.value


def _read_model(
  path: Path, config: dict[str, Any], missing: dict[str, str]
) -> tuple[list[StoredRole], dict[str, LossCurves]]:
  """Returns what training made: the mixtures of the roles, or the networks' log."""
  if not _is_role_mixture(config):
    return [], read_losses(path, missing)
  if (path / ROLE_MIXTURES).is_file():
    return read_role_file(path), {}
  missing["roles"] = f"There is no {ROLE_MIXTURES}: scripts/train.py writes it."
  return [], {}


def _read_scores(path: Path) -> tuple[dict[str, MachineScores], dict[str, str]]:
  """Returns the scores by machine, and the roles of those that have no model of their own."""
  if not path.is_file():
    raise ValueError(f"{path}: there are no scores to report; run scripts/score.py first")
  table = read_columns(path, _SCORE_COLUMNS, ("label", "threshold_initial", "threshold_warning", "model"))
  columns = {name: _numbers(table, name) for name in ("row", "score", "threshold", "is_anomaly", "valid")}
  optional = {
    name: _numbers(table, name)
    for name in ("label", "threshold_initial", "threshold_warning")
    if name in table.column_names
  }
  models = table["model"].cast(pa.string()) if "model" in table.column_names else None
  times = _milliseconds(table["timestamp"])
  machines = {}
  for name, index in _rows_by_machine(table["machine"], columns["row"]):
    initial = optional["threshold_initial"][index] if "threshold_initial" in optional else np.zeros(0)
    initial = initial[~np.isnan(initial)]
    label = optional["label"][index] if "label" in optional else np.array([np.nan])
    warning = optional["threshold_warning"][index] if "threshold_warning" in optional else np.array([np.nan])
    machines[name] = MachineScores(
      row=columns["row"][index].astype(np.int64),
      times=None if np.isnan(times[index]).any() else times[index],
      score=columns["score"][index],
      threshold=columns["threshold"][index],
      initial=float(initial[0]) if len(initial) else None,
      is_anomaly=columns["is_anomaly"][index] == 1,
      valid=columns["valid"][index] == 1,
      label=None if np.isnan(label).any() else label == 1,
      model="" if models is None else _text(models[int(index[0])].as_py()),
      warning=None if np.isnan(warning).all() else warning,
    )
  if not machines:
    raise ValueError(f"{path}: no rows; there is nothing to report")
  return machines, _cold_roles(path, table)


def _cold_roles(path: Path, table: pa.Table) -> dict[str, str]:
  """Returns the roles of machines that a mixture scored without rows of their own, from the file's metadata."""
  found = (table.schema.metadata or {}).get(COLD_START.encode(), b"{}")
  try:
    return {name: str(about["role"]) for name, about in json.loads(found).items()}
  except (ValueError, KeyError, TypeError):
    raise ValueError(f"{path}: its metadata {COLD_START} do not give roles by machine; run score.py again") from None


def _roles_of(fleet: dict[str, Any] | None) -> dict[str, str]:
  machines = [machine for group in (fleet or {}).get("groups", []) for machine in group.get("machines", [])]
  return {str(machine["name"]): str(machine["role"]) for machine in machines if machine.get("role")}


def _metric_scores(path: Path, missing: dict[str, str]) -> Path | None:
  if path.is_file():
    return path
  missing["metric_scores"] = f"There is no {path.name}: scripts/score.py writes it beside the scores."
  return None


def _rows_by_machine(column: pa.ChunkedArray, row: np.ndarray) -> list[tuple[str, np.ndarray]]:
  """Returns (machine, its places in the table in row order), machines in the order of the file."""
  encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
  codes = encoded.indices.to_numpy(zero_copy_only=False)
  order = np.lexsort((row, codes))
  bounds = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
  names = encoded.dictionary.to_pylist()
  return [(name, order[bounds[i] : bounds[i + 1]]) for i, name in enumerate(names)]


def _numbers(table: pa.Table, name: str) -> np.ndarray:
  """Returns a column as float64; null is NaN."""
  column = table[name]
  if pa.types.is_boolean(column.type):
    column = column.cast(pa.int8())  # Arrow has no cast from bool to double
  return column.cast(pa.float64()).to_numpy().astype(np.float64)


def _milliseconds(column: pa.ChunkedArray) -> np.ndarray:
  """Returns timestamps as float64 ms since 1970; null is NaN."""
  if pa.types.is_timestamp(column.type):
    column = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False)
  elif not (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
    raise ValueError(f"scores.parquet: column timestamp is {column.type}; a timestamp is wanted")
  return column.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def _text(value: Any) -> str:
  return "" if value is None else str(value)


def _read_json(path: Path, part: str, reason: str, missing: dict[str, str]) -> dict[str, Any] | None:
  if not path.is_file():
    missing[part] = f"There is no {path.name}: {reason}."
    return None
  try:
    values = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: not readable as JSON: {error}") from None
  if not isinstance(values, dict):
    raise ValueError(f"{path}: a {type(values).__name__}; a group of named values is wanted")
  return values


def _notes(fleet: dict[str, Any] | None, missing: dict[str, str]) -> dict[str, dict[str, Any]]:
  """Returns the preparation's counts of every machine: groups[].machines[] each with a name and notes."""
  found = {}
  for group in (fleet or {}).get("groups", []):
    for machine in group.get("machines", []):
      if isinstance(machine, dict) and isinstance(machine.get("notes"), dict):
        found[str(machine["name"])] = machine["notes"]
  if not found:
    missing.setdefault("notes", "fleet.json has no notes of the preparation.")
  return found
