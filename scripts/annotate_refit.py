"""The refit of annotate.py on a work directory: read, fitted, and written whole or not at all."""

import datetime
from typing import Any, NamedTuple

import annotate_lines
from etils import epath

from mtad_jax.alerts.ledger import open_ledger, writing
from mtad_jax.alerts.recording import (
  check_same_thresholds,
  describe_change,
  read_cold,
  read_roles,
  read_thresholds,
  series_of,
)
from mtad_jax.alerts.records import add_change, read_annotations
from mtad_jax.alerts.refit import Refit, gather_evidence, refit, with_thresholds
from mtad_jax.alerts.verdicts import standing
from mtad_jax.evaluate.inputs import read_scores
from mtad_jax.train.workdir import CALIBRATION, read_config, write_json


class Settings(NamedTuple):
  """scores: the folder with scores.parquet. may_lower: below what POT promised, too. min_annotations: see `refit`."""

  workdir: str
  scores: epath.Path
  may_lower: bool
  min_annotations: int


def refitted(settings: Settings) -> tuple[dict[str, Any], list[Refit]]:
  """Returns (calibration.json's content, the refit of each scored machine); writes nothing."""
  calibration = read_thresholds(settings.workdir)
  if any(entry.get("streaming") for entry in calibration["machines"].values()):
    kind = calibration["detect"]["threshold"]
    raise ValueError(f"{settings.workdir}: detect.threshold {kind} follows the scores: there is no one to refit")
  tables = read_scores(settings.scores / "scores.parquet")
  check_same_thresholds(settings.workdir, settings.scores, calibration, tables)
  for name in read_cold(settings.scores):  # what its peers share is not refitted by one of them
    print(f"{name}: no threshold of its own to refit; its role's mixture scored it")
    del tables[name]
  with open_ledger(settings.workdir) as connection:
    annotations = standing(read_annotations(connection))
  evidence = gather_evidence(
    tables,
    series_of(settings.workdir, settings.scores),
    annotations,
    calibration,
    read_roles(settings.workdir),
    may_lower=settings.may_lower,
  )
  return calibration, refit(evidence, read_config(settings.workdir).detect, settings.min_annotations)


def write(settings: Settings, now_ms: int) -> list[str]:
  """Writes the refitted thresholds into calibration.json, the old and the new into the ledger; returns what to tell.

  Raises:
    ValueError: another program writes into the work directory.
  """
  from mtad_jax.train.stored_run import sole_writer  # seconds of imports that nothing else here needs

  workdir = settings.workdir
  read_thresholds(workdir)  # no lock is put into a folder that is no work directory
  with sole_writer(workdir, "annotate.py refit"):
    calibration, refits = refitted(settings)
    lines = annotate_lines.refit_lines(refits)
    if all(found.threshold in (None, found.now) for found in refits):
      return [*lines, "every threshold stays as it is; nothing was written"]
    when = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).isoformat(timespec="seconds")
    fresh = with_thresholds(calibration, refits, when)
    file = epath.Path(workdir) / CALIBRATION
    with open_ledger(workdir) as connection:
      # The old one first, which nothing else keeps. Killed before the last, the next record adds the new one.
      with writing(connection):
        before, _ = add_change(connection, describe_change(workdir, calibration, "before a refit"), now_ms)
      write_json(file, fresh)
      with writing(connection):
        after, _ = add_change(connection, describe_change(workdir, fresh, "refit"), now_ms)
  return [
    *lines,
    f"{file}: now change {after}, before that change {before}. Next: score.py, which takes its thresholds there,",
    "and annotate.py record. calibrate.py, run again, makes fresh thresholds in place of these.",
  ]
