"""One machine's scored rows into the tables: scores, events, metrics' scores near events, causes of true segments."""

import jax
import numpy as np

from mtad_jax.config import Config
from mtad_jax.detect.events import Event
from mtad_jax.detect.feature_attention import attention_shares
from mtad_jax.detect.score_machine import with_context
from mtad_jax.detect.score_run import Judged
from mtad_jax.detect.tables import TableWriter
from mtad_jax.evaluate.segments import segments_of
from mtad_jax.explain.attention_change import Changes, attention_changes
from mtad_jax.explain.event_list import list_events, near_events, rank_segments
from mtad_jax.roles.attribution import Scorer
from mtad_jax.roles.cause_set import find_cause_set


def _strongest_slot(judged: Judged, event: Event) -> int:
  """Returns the row of the split in which an event's metrics score most together."""
  strength = np.nansum(judged.scored.metric_scores[event.start_row : event.end_row], axis=1)
  return int(judged.split.row_to_grid[event.start_row + int(np.argmax(strength))])


def find_causes(judged: Judged, event: Event, metrics: tuple[str, ...]) -> list[str] | None:
  """Returns the fewest metrics that make an event's strongest row unusual under its role's mixture; None without."""
  if not isinstance(judged.params, Scorer):
    return None
  return [metrics[i] for i in find_cause_set(judged.params, judged.split.values[_strongest_slot(judged, event)])]


def find_attention_changes(
  judged: Judged, events: list[Event], num_targets: int, config: Config
) -> list[Changes] | None:
  """Returns how far the attention is from its usual in each event's strongest row; None of a model without any."""
  usual = judged.calibration.attention
  if usual is None:
    return None
  values = with_context(judged.split, judged.context, config.model.window_size)
  num_before = len(values) - len(judged.split.values)
  rows = np.array([num_before + _strongest_slot(judged, event) for event in events])
  stacked = jax.tree.map(lambda leaf: leaf[None], judged.params)
  return attention_changes(
    attention_shares(stacked, [values], [rows], config, num_targets)[0], usual, judged.inputs
  )


def write_machine(
  writers: dict[str, TableWriter],
  judged: Judged,
  metrics: tuple[str, ...],
  config: Config,
  *,
  all_rows: bool,
) -> list[Event]:
  """Writes one machine's rows to all tables; returns its events.

  Args:
    metrics: the scored ones. all_rows: the metrics' scores of every row, not only near events.
  """
  machine, scored, calibration, model = judged.machine, judged.scored, judged.calibration, judged.model
  num_rows, times = len(scored.score), machine.test.timestamps
  names, warning = [machine.name] * num_rows, calibration.warning
  writers["scores"].write(
    {
      "machine": names,
      "row": np.arange(num_rows),
      **({} if times is None else {"timestamp": times}),
      "score": scored.score,
      "threshold": scored.threshold,
      "threshold_initial": np.full(num_rows, calibration.initial),
      "score_ratio": scored.ratio,
      "is_anomaly": scored.is_anomaly,
      "valid": scored.valid,
      **{f"score_{rule}": values for rule, values in scored.by_rule.items()},
      **({} if machine.labels is None else {"label": machine.labels}),
      "model": [model] * num_rows,
      **({} if warning is None else {"threshold_warning": np.full(num_rows, warning.threshold)}),
    }
  )
  events = list_events(machine.name, scored, calibration, metrics, times, config.detect)
  if events:
    columns = {name: [getattr(event, name) for event in events] for name in events[0]._fields}
    columns["contributors"] = [
      [{"metric": metric, "contribution": share} for metric, share in event.contributors] for event in events
    ]
    columns["cause_set"] = [find_causes(judged, event, metrics) for event in events]
    changes = find_attention_changes(judged, events, len(metrics), config)
    if changes is not None:
      columns["attention_change"] = [
        [{"metric": metric, "change": change} for metric, change in own] for own in changes
      ]
    writers["events"].write({**columns, "model": [model] * len(events)})
  near = near_events(events, num_rows, config.detect.event_margin_rows)
  rows = np.flatnonzero((near & scored.valid) if not all_rows else np.ones(num_rows, bool))
  fields = ("forecast", "reconstruction", "expected_low", "expected_high", "actual")
  writers["metric_scores"].write(
    {
      "machine": [machine.name] * (len(rows) * len(metrics)),
      "row": np.repeat(rows, len(metrics)),
      "metric": list(metrics) * len(rows),
      "score": scored.metric_scores[rows].ravel(),
      **{name: getattr(scored, name)[rows].ravel() for name in fields},
    }
  )
  if machine.labels is not None:
    segments = segments_of(machine.labels)
    writers["segments"].write(
      {
        "machine": [machine.name] * len(segments),
        "start_row": segments[:, 0],
        "end_row": segments[:, 1],
        "metrics": rank_segments(scored, segments, calibration.usual, metrics),
      }
    )
  return events
