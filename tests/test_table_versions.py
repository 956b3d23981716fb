"""The tables of the schema before this one, which have no attention_change, are read as today's are."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored_run import bumps, make_run, minutes, score

from mtad_jax.alerts.recording import read_recording
from mtad_jax.alerts.told_event import as_json, read_events
from mtad_jax.detect.tables import EVENTS, SCHEMA_VERSION, SCHEMAS
from mtad_jax.evaluate.inputs import read_scores, read_table
from mtad_jax.report.inputs import read_work

CHANGES = [{"metric": "latency", "change": -4.5}, {"metric": "cpu", "change": 2.0}]


def rewrite(folder: Path, version: str, changes: list[dict[str, Any]] | None) -> None:
  """Makes the tables of a folder those of a version; with None, today's events have no change."""
  for name in SCHEMAS:
    path = folder / f"{name}.parquet"
    table = pq.read_table(path)
    about = {**table.schema.metadata, b"schema_version": version.encode()}
    if name == "events":
      table = table.drop(["attention_change"])
      if version == SCHEMA_VERSION:
        field = EVENTS.field("attention_change")
        table = table.append_column(field, pa.array([changes] * len(table), field.type))
    pq.write_table(table.replace_schema_metadata(about), path)


@pytest.mark.parametrize(("version", "changes"), [("3", None), ("4", None), ("4", CHANGES)])
def test_evaluation_ledger_alerts_and_report_read_a_version(
  tmp_path: Path, version: str, changes: list[dict[str, Any]] | None
) -> None:
  run = make_run(tmp_path / "run", {"web-1": "web", "db-1": "db"}, {"web-1": 1.0, "db-1": 1.0})
  scores = {name: bumps(60, {row: 3.0}) for name, row in (("web-1", 20), ("db-1", 40))}
  score(run, scores, minutes(60))
  assert pq.read_schema(run / "events.parquet").metadata[b"schema_version"].decode() == SCHEMA_VERSION
  rewrite(run, version, changes)
  assert ("attention_change" in pq.read_schema(run / "events.parquet").names) == (version == "4")
  told = read_events(str(run))
  assert [event.event_id for event in told] == ["web-1:20-24", "db-1:40-44"]
  for event in told:
    assert as_json(event).get("attention_change") == changes
    assert ("attention_change" in as_json(event)) == (changes is not None)
  assert len(read_recording(run, run).events) == 2
  assert len(read_work(str(run)).events) == 2
  for name, table in read_scores(run / "scores.parquet").items():
    np.testing.assert_array_equal(table.scores, scores[name])
  assert read_table(run / "segments.parquet", ("machine", "metrics")).num_rows == 0
