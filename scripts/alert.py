"""Tells the events and newest scores of a scoring: JSON lines, a webhook, Prometheus text; each event once.

python scripts/alert.py --workdir=runs/mine --jsonl=events.jsonl
python scripts/alert.py --workdir=runs/mine --scores=scored --webhook=https://HOST/PATH --level=critical
python scripts/alert.py --workdir=runs/mine --prometheus=/var/lib/node_exporter/textfile_collector/mtad.prom

Run after every score.py. Exit code 1 where an event could not be delivered: it stays pending, run the command again.
"""

import datetime
import hashlib
import os
from pathlib import Path

from absl import flags
from program import UsageError, run

from mtad_jax.alerts.delivered import Delivered
from mtad_jax.alerts.json_lines import append_events
from mtad_jax.alerts.newest_rows import newest_rows
from mtad_jax.alerts.prometheus_text import prometheus_text
from mtad_jax.alerts.told_event import LEVELS, read_events
from mtad_jax.alerts.webhook import Patience, check_url, place_of, send_events
from mtad_jax.train.workdir import RUN, is_cloud, read_json, write_whole
from mtad_jax.train.writer_lock import writer_lock

_WORKDIR = flags.DEFINE_string("workdir", None, "the run", required=True)
_SCORES = flags.DEFINE_string("scores", "", "folder with the tables of score.py; default: the work directory")
_JSONL = flags.DEFINE_string("jsonl", "", "file to append one line of JSON per event to")
_WEBHOOK = flags.DEFINE_string("webhook", "", "URL to POST the JSON of each event to")
_PROMETHEUS = flags.DEFINE_string("prometheus", "", "file NAME.prom for node_exporter's textfile collector")
_LEVEL = flags.DEFINE_enum("level", LEVELS[0], LEVELS, "the lowest level that --jsonl and --webhook tell")
_TOLD = flags.DEFINE_string("told", "", "file that remembers what the webhook was told; default: RUNDIR/alerts/...")
_ATTEMPTS = flags.DEFINE_integer("attempts", Patience().attempts, "tries of one delivery", lower_bound=1)
_TIMEOUT = flags.DEFINE_float("timeout_s", Patience().timeout_s, "wait for an answer", lower_bound=0.01)
_WAIT = flags.DEFINE_float("first_wait_s", Patience().first_wait_s, "before the second try; doubles", lower_bound=0)


def _check_flags() -> None:
  if not (_JSONL.value or _WEBHOOK.value or _PROMETHEUS.value):
    raise UsageError("nothing to do: --jsonl, --webhook or --prometheus is wanted")
  for name, value in (("workdir", _WORKDIR.value), ("scores", _SCORES.value), ("told", _TOLD.value)):
    if is_cloud(value):
      raise UsageError(f"--{name}={value}: alerts need a local path")
  for name, value in (("jsonl", _JSONL.value), ("prometheus", _PROMETHEUS.value), ("told", _TOLD.value)):
    if value and (is_cloud(value) or not Path(value).absolute().parent.is_dir()):
      raise UsageError(f"--{name}={value}: there is no folder {Path(value).parent}")
  if _PROMETHEUS.value and not _PROMETHEUS.value.endswith(".prom"):
    raise UsageError(f"--prometheus={_PROMETHEUS.value}: the collector reads files that end in .prom only")
  if _WEBHOOK.value:
    try:
      check_url(_WEBHOOK.value)
    except ValueError as error:
      raise UsageError(error) from None


def _write_prometheus(folder: str) -> None:
  content = read_json(Path(_WORKDIR.value) / RUN, "train.py", ("created",))
  created = datetime.datetime.fromisoformat(content["created"])
  age_s = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
  rows = newest_rows(folder)
  write_whole(Path(_PROMETHEUS.value), prometheus_text(rows, read_events(folder), age_s))
  print(f"{_PROMETHEUS.value}: {len(rows)} machines, {sum(row.is_alarm for row in rows)} in alarm")


def _send(folder: str) -> str:
  """Sends what is pending; returns why something still is, or nothing."""
  digest = hashlib.sha256(_WEBHOOK.value.encode()).hexdigest()[:8]  # the URL itself may hold a secret
  told = Path(_TOLD.value or Path(_WORKDIR.value) / "alerts" / f"webhook-{digest}.json")
  told.parent.mkdir(exist_ok=True)
  patience = Patience(_ATTEMPTS.value, _TIMEOUT.value, _WAIT.value)
  with writer_lock(told.parent, "alert.py"):
    sent = send_events(_WEBHOOK.value, read_events(folder, _LEVEL.value), Delivered(told), patience)
  print(f"{place_of(_WEBHOOK.value)}: {sent.delivered} events delivered", flush=True)
  return f"{sent.pending} events pending, run again: {sent.reason}" if sent.pending else ""


def main() -> None:
  """Tells what is new to each outlet; what fails at one keeps nothing from the others."""
  _check_flags()
  folder = os.fspath(_SCORES.value or _WORKDIR.value)
  if _JSONL.value:
    count = append_events(Path(_JSONL.value), read_events(folder, _LEVEL.value))
    print(f"{_JSONL.value}: {count} events appended")
  if _PROMETHEUS.value:
    _write_prometheus(folder)
  if _WEBHOOK.value:
    pending = _send(folder)
    if pending:
      raise ValueError(f"{place_of(_WEBHOOK.value)}: {pending}")


if __name__ == "__main__":
  run(main)
