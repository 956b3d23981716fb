"""A work directory with scores and events but no network: the files that the ledger reads, by the tables' writer."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mtad_jax.config import Config, dumps, freeze
from mtad_jax.detect.events import find_events, severity
from mtad_jax.detect.tables import open_tables
from mtad_jax.evaluate.inputs import read_scores

METRICS = ("cpu", "disk", "latency", "queue")
RUN_ID = "0123abcd"
START = np.datetime64("2026-03-02T00:00", "ms")  # a Monday

Causes = Callable[[str, int, int], list[tuple[str, float]]]


def minutes(num_rows: int, first: int = 0, step: int = 1) -> np.ndarray:
  """Returns [num_rows] datetime64[ms], `step` minutes apart, from the row `first` of an endless clock on."""
  return START + (np.arange(first, first + num_rows) * step * 60_000).astype("timedelta64[ms]")


def make_run(workdir: Path, roles: Mapping[str, str], thresholds: Mapping[str, float], **detect: object) -> Path:
  """Writes config.json, fleet.json and calibration.json; returns the work directory."""
  workdir.mkdir(parents=True, exist_ok=True)
  config: Config = freeze({"detect": detect})
  (workdir / "config.json").write_text(dumps(config))
  scaler = {"minimum": [0.0] * len(METRICS), "maximum": [10.0] * len(METRICS)}
  preparation = {"metrics": list(METRICS), "scaler": scaler}
  machines = [{"name": name, "role": role, "preparation": preparation} for name, role in roles.items()]
  (workdir / "fleet.json").write_text(json.dumps({"groups": [{"machines": machines}]}))
  write_thresholds(workdir, thresholds)
  return workdir


def write_thresholds(workdir: Path, thresholds: Mapping[str, float]) -> None:
  """Writes calibration.json as a fresh calibration would."""
  entries = {name: {"threshold": value, "pot": {"threshold": value}} for name, value in thresholds.items()}
  content = {"run_id": RUN_ID, "checkpoint_steps": [200], "rule": "joint", "machines": entries}
  (workdir / "calibration.json").write_text(json.dumps(content))


def thresholds_of(workdir: Path) -> dict[str, float]:
  """Returns the thresholds in force."""
  machines = json.loads((workdir / "calibration.json").read_text())["machines"]
  return {name: entry["threshold"] for name, entry in machines.items()}


def cpu_first(machine: str, start: int, end: int) -> list[tuple[str, float]]:
  """Returns the causes of an event: cpu, and a little of latency."""
  return [("cpu", 0.75), ("latency", 0.25)]


def score(
  workdir: Path,
  scores: Mapping[str, np.ndarray],
  times: np.ndarray | None = None,
  folder: Path | None = None,
  causes: Causes = cpu_first,
  moved: float = 0.0,
) -> Path:
  """Writes scores.parquet, metric_scores.parquet and events.parquet by the thresholds in force; returns their folder.

  Args:
    scores: [T] by machine; NaN: no score. times: [T], of all machines. moved: how far the first cause of an event
      was from the middle of its expected band.
  """
  folder = folder or workdir
  detect = json.loads((workdir / "config.json").read_text())["detect"]
  limits = {name: detect[name] for name in ("merge_gap_rows", "min_event_rows")}
  clock = {} if times is None else {"timestamp": times}
  with open_tables(folder, RUN_ID, has_labels=False) as writers:
    for machine, values in scores.items():
      threshold, valid = thresholds_of(workdir)[machine], ~np.isnan(values)
      with np.errstate(invalid="ignore"):
        is_anomaly = valid & (values > threshold)
      writers["scores"].write(
        {
          "machine": [machine] * len(values),
          "row": np.arange(len(values)),
          **clock,
          "score": values,
          "threshold": np.full(len(values), threshold),
          "score_ratio": values / threshold,
          "is_anomaly": is_anomaly,
          "valid": valid,
        }
      )
      for start, end in find_events(is_anomaly, valid, **limits).tolist():
        peak = float(np.nanmax(values[start:end]))
        named = causes(machine, start, end)
        stamps = {} if times is None else {"start": [times[start]], "end": [times[end - 1]]}
        writers["events"].write(
          {
            "event_id": [f"{machine}:{start}-{end}"],
            "machine": [machine],
            "start_row": [start],
            "end_row": [end],
            **stamps,
            "severity": [float(severity(peak / threshold))],
            "peak": [peak],
            "contributors": [[{"metric": metric, "contribution": share} for metric, share in named]],
          }
        )
        rows = end - start
        if named:
          band = {"expected_low": np.full(rows, 4.0), "expected_high": np.full(rows, 6.0)}
          writers["metric_scores"].write(
            {
              "machine": [machine] * rows,
              "row": np.arange(start, end),
              "metric": [named[0][0]] * rows,
              **band,
              "actual": 5.0 + moved * np.linspace(0, 1, rows + 1)[1:],
            }
          )
  return folder


def event_ranges(workdir: Path, scores: Mapping[str, np.ndarray]) -> dict[str, list[tuple[int, int]]]:
  """Returns the events that scoring makes at the thresholds in force, by machine."""
  score(workdir, scores, folder=workdir / "again")
  detect = json.loads((workdir / "config.json").read_text())["detect"]
  found = {}
  for name, table in read_scores(workdir / "again" / "scores.parquet").items():
    limits = {key: detect[key] for key in ("merge_gap_rows", "min_event_rows")}
    with np.errstate(invalid="ignore"):
      alarms = table.scores > table.thresholds["pot"]
    found[name] = [tuple(row) for row in find_events(alarms, ~np.isnan(table.scores), **limits).tolist()]
  return found


def bumps(num_rows: int, heights: Mapping[int, float], width: int = 4) -> np.ndarray:
  """Returns [num_rows] scores of 0.1 with a bump of the given height at each row; the first three have no score."""
  values = np.full(num_rows, 0.1)
  for row, height in heights.items():
    values[row : row + width] = height * np.linspace(0.8, 1, width)
  values[:3] = np.nan
  return values
