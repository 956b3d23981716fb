"""Holds scores against labels beside the floors; fits nothing that scoring uses.

python scripts/evaluate.py --workdir=DIR [--scores=DIR] [--early_hit_rows=N] [--delay_limit_rows=N]

Reads scores.parquet and segments.parquet (in the work directory, or where --scores says), the run's settings
and its raw data; writes evaluation.json beside the scores and prints a table, the worst machines first.
"""

import dataclasses

from absl import flags
from etils import epath
from program import UsageError, run

from mtad_jax.config import Config
from mtad_jax.data.load import load_machines
from mtad_jax.evaluate.inputs import common_scores, read_rankings, read_scores, scored_machines
from mtad_jax.evaluate.summary import evaluate_fleet
from mtad_jax.evaluate.table import format_table
from mtad_jax.train.workdir import RUN, read_config, read_json, write_json

_WORKDIR = flags.DEFINE_string("workdir", None, "the work directory of a training run", required=True)
_SCORES = flags.DEFINE_string("scores", "", "folder with scores.parquet; default: the work directory")
_EARLY = flags.DEFINE_integer(
  "early_hit_rows", None, "an alarm this many rows before a segment counts for it; default: the run's",
  lower_bound=0,
)  # fmt: skip
_DELAY = flags.DEFINE_integer(
  "delay_limit_rows", None, "a hit later than this after a segment's start does not count; 0: no limit",
  lower_bound=0,
)  # fmt: skip
_DATA_DIR = flags.DEFINE_string("data_dir", "", "prepared datasets, where they have moved since training")
_SOURCE = flags.DEFINE_string("source", "", "raw files that were scored, in place of the run's data")


def _settings() -> Config:
  """Returns the run's settings with the flags' tolerances in them."""
  config = read_config(_WORKDIR.value)
  given = {"early_hit_rows": _EARLY.value, "delay_limit_rows": _DELAY.value}
  changed = {name: value for name, value in given.items() if value is not None}
  return dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, **changed))


def _data_place(stored: dict[str, str | None]) -> tuple[str | None, str | None]:
  """Returns (data_dir, source): the flags', else the run's."""
  if _DATA_DIR.value and _SOURCE.value:
    raise UsageError("--data_dir and --source: one of them, not both")
  if _DATA_DIR.value or _SOURCE.value:
    return _DATA_DIR.value or None, _SOURCE.value or None
  return stored.get("data_dir"), stored.get("source")


def main() -> None:
  """Reads, evaluates, writes evaluation.json in one step, and prints the table."""
  config = _settings()
  stored = read_json(epath.Path(_WORKDIR.value) / RUN, "train.py")
  data_dir, source = _data_place(stored)
  folder = epath.Path(_SCORES.value or _WORKDIR.value)
  tables = read_scores(folder / "scores.parquet")
  machines = load_machines(config.data, data_dir=data_dir, source=source)
  rankings = None
  if (folder / "segments.parquet").exists():
    rankings = read_rankings(folder / "segments.parquet")
  scored = scored_machines(tables, machines, rankings, config)
  result = evaluate_fleet(scored, config.evaluate, config.detect)
  result["run_id"] = stored["run_id"]
  _, left_out = common_scores(tables)
  result["other_scores_left_out"] = left_out
  write_json(folder / "evaluation.json", result)
  print(format_table(result))
  for name, reason in left_out.items():
    print(f"score {name} left out: {reason}")
  if rankings is None:
    print(f"causes not evaluated: no segments.parquet in {folder}")
  print(f"\n{folder / 'evaluation.json'}")


if __name__ == "__main__":
  run(main)
