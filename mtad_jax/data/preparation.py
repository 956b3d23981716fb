"""One machine's raw split becomes what the network reads: on a grid, filled, differenced, cleaned, scaled.

Everything is learnt from the fit part of the training split and kept in a `Preparation`, so that test and new
data are treated by training statistics alone.
"""

from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import DataConfig
from mtad_jax.data import counters, exclude, gaps, scaling, spectral_residual, train_from
from mtad_jax.data.machine import Machine, Series
from mtad_jax.data.parts import Parts, split_parts
from mtad_jax.data.scaling import Scaler


class Preparation(NamedTuple):
  """What scoring must know of one machine's training split.

  metrics: F names in the trained order.
  step_s: the grid's step in seconds, None where the training split has no timestamps.
  source_step_s: the median step of the training timestamps themselves, in seconds.
  is_counter: [F] bool, metrics that are differenced.
  scaler: of the differenced, cleaned fit part.
  leading_fill: [F] what stands before a metric's first seen value, in differenced units.
  """

  metrics: tuple[str, ...]
  step_s: float | None
  source_step_s: float | None
  is_counter: np.ndarray
  scaler: Scaler
  leading_fill: np.ndarray


class PreparedSplit(NamedTuple):
  """One split of one machine, ready for the device.

  values: [G, F] float32, scaled and clipped, no NaN.
  filled: [G, F] bool, True where the value was not seen.
  usable: [G] bool, False where excluded by the user.
  row_to_grid: [T] int64, the grid slot of every input row.
  outside_share: [F] share of slots outside the training range.
  """

  values: np.ndarray
  filled: np.ndarray
  usable: np.ndarray
  row_to_grid: np.ndarray
  outside_share: np.ndarray


def _leading_fill(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the median of the seen values [F], 0 where there is none, and which metrics have none [F]."""
  never_seen = np.all(np.isnan(values), axis=0)
  medians = np.zeros(values.shape[1])
  medians[~never_seen] = np.nanmedian(values[:, ~never_seen], axis=0)
  return medians, never_seen


def _on_grid(is_excluded: np.ndarray, row_to_grid: np.ndarray, num_slots: int) -> np.ndarray:
  """Returns the exclusion of every slot [G]; a slot without a row follows the row before it."""
  rows = np.searchsorted(row_to_grid, np.arange(num_slots), side="right") - 1
  return is_excluded[rows]


def _names(metrics: tuple[str, ...], chosen: np.ndarray) -> list[str]:
  return [metrics[index] for index in np.flatnonzero(chosen)]


def _finish(
  values: np.ndarray, grid: gaps.Grid, filled: np.ndarray, usable: np.ndarray, scaler: Scaler, margin: float
) -> PreparedSplit:
  scaled = scaling.scale(values, scaler, margin).astype(np.float32)
  share = scaling.outside_share(values, scaler)
  return PreparedSplit(scaled, filled, usable, grid.row_to_grid, share)


def fit_preparation(
  machine: Machine, window_size: int, settings: DataConfig, *, accept_constant: bool = False
) -> tuple[Preparation, PreparedSplit, Parts, dict[str, Any]]:
  """Returns what one machine's training split teaches, the split itself, its parts, and counts for the log.

  Order: grid, counters found and differenced, gaps filled, parts, spectral residual on the fit part, scaler
  fitted on the cleaned fit part. All rows from `train_from` to the end of the fit part's targets are the fit part;
  excluded rows and everything earlier or later are never fitted on.

  Args:
    machine: its training split is read, its test split is not.
    window_size: W, rows.
    settings: the data settings.
    accept_constant: let a machine pass of which every metric is constant (two channels of SMAP are).

  Returns:
    The preparation; the prepared training split; the parts in grid rows; and notes, JSON-able: num_rows,
    grid_rows, grid_collisions, counters, never_seen, constant (names), gap_rows, first_row (of `train_from`),
    excluded_rows (after it), and
    filled_share, cleaned_share, outside_share {metric: share, only those above 0}.

  Raises:
    ValueError: naming the machine: too few rows, nothing but constants, a wrong clock, exclusions that leave
      nothing.
  """
  try:
    return _fit(machine, window_size, settings, accept_constant)
  except ValueError as error:
    raise ValueError(f"machine {machine.name}, train: {error}") from None


def _fit(
  machine: Machine, window_size: int, settings: DataConfig, accept_constant: bool
) -> tuple[Preparation, PreparedSplit, Parts, dict[str, Any]]:
  series, metrics = machine.train, machine.metrics
  source_step_s = gaps.sampling_step(series)
  step_s = settings.sampling_step_s if settings.sampling_step_s > 0 else gaps.grid_step(series)
  if series.timestamps is None:
    step_s = None
  grid = gaps.place_on_grid(series, step_s)
  beginnings = train_from.parse_beginnings(settings.train_from)
  first_row = train_from.first_training_row(beginnings, machine.name, len(series.values), series.timestamps)
  first_slot = int(grid.row_to_grid[first_row]) if first_row else 0
  parts, gap_rows = split_parts(len(grid.values) - first_slot, window_size, settings, first_row=first_slot)
  fit_end = parts.fit[1]

  exclusions = exclude.parse_exclusions(settings.exclude)
  by_row = exclude.excluded_rows(exclusions, machine.name, len(series.values), series.timestamps)
  by_row[:first_row] = True
  usable = ~_on_grid(by_row, grid.row_to_grid, len(grid.values))
  fit_rows = np.flatnonzero(usable[:fit_end])
  if len(fit_rows) <= window_size:
    raise ValueError(
      f"{len(fit_rows)} of {fit_end - first_slot} fit rows are left after exclusions;"
      f" more than {window_size} are needed"
    )

  is_counter = np.zeros(len(metrics), bool)
  if settings.counters == "auto":
    is_counter = counters.find_counters(grid.values[fit_rows])
  differenced = counters.difference(grid.values, is_counter)
  leading_fill, never_seen = _leading_fill(differenced[fit_rows])
  filled = np.isnan(differenced)
  values = gaps.fill(differenced, leading_fill)

  flagged = np.zeros((len(fit_rows), len(metrics)), bool)
  if settings.clean:
    # excluded stretches are cut out, so that what was wrong there does not colour its neighbours' mean
    values[fit_rows], flagged = spectral_residual.clean(values[fit_rows], settings.clean_threshold)
  scaler = scaling.fit_scaler(values[fit_rows], settings.scale_floor)
  if np.all(scaler.is_constant) and not accept_constant:
    raise ValueError(
      f"all {len(metrics)} metrics are constant over the {len(fit_rows)} fit rows; at least one must move"
    )

  preparation = Preparation(metrics, step_s, source_step_s, is_counter, scaler, leading_fill)
  split = _finish(values, grid, filled, usable, scaler, settings.clip_margin)
  notes: dict[str, Any] = {
    "num_rows": len(series.values),
    "grid_rows": len(grid.values),
    "grid_collisions": grid.num_collisions,
    "filled_share": _shares(metrics, np.mean(filled, axis=0)),
    "counters": _names(metrics, is_counter),
    "never_seen": _names(metrics, never_seen),
    "cleaned_share": _shares(metrics, np.mean(flagged, axis=0)),
    "constant": _names(metrics, scaler.is_constant),
    "gap_rows": gap_rows,
    "first_row": first_row,
    "excluded_rows": int(np.sum(by_row[first_row:])),
    "outside_share": _shares(metrics, split.outside_share),
  }
  return preparation, split, parts, notes


def _shares(metrics: tuple[str, ...], shares: np.ndarray) -> dict[str, float]:
  return {name: float(share) for name, share in zip(metrics, shares, strict=True) if share > 0}


def apply_preparation(
  preparation: Preparation, series: Series, settings: DataConfig, previous: np.ndarray | None = None
) -> PreparedSplit:
  """Returns test or new data treated by the training split's statistics; nothing is fitted here.

  Args:
    preparation: of the machine's training split.
    series: [T, F] columns in the trained order (`contract.check_contract` gives it); T may be 0.
    settings: clip_margin is read.
    previous: [F] the raw row just before the first, where the series goes on from one; a counter's first growth
      is measured from it.

  Raises:
    ValueError: another number of metrics, infinite values, or a wrong clock.
  """
  if series.values.shape[1] != len(preparation.metrics):
    raise ValueError(
      f"series has {series.values.shape[1]} metrics; the training split has {len(preparation.metrics)}"
    )
  grid = gaps.place_on_grid(series, preparation.step_s)
  differenced = counters.difference(grid.values, preparation.is_counter, previous)
  values = gaps.fill(differenced, preparation.leading_fill)
  usable = np.ones(len(values), bool)
  return _finish(values, grid, np.isnan(differenced), usable, preparation.scaler, settings.clip_margin)


def own_values(preparation: Preparation, series: Series) -> np.ndarray:
  """Returns [T, F] what each input row holds in its own units, a counter per step; NaN where it was not seen.

  Args:
    preparation: of the machine's training split.
    series: [T, F] columns in the trained order.
  """
  grid = gaps.place_on_grid(series, preparation.step_s)
  return counters.difference(grid.values, preparation.is_counter)[grid.row_to_grid]


def to_json(preparation: Preparation) -> dict[str, Any]:
  """Returns the preparation as plain lists, numbers and text; `from_json` is its exact inverse."""
  return {
    "metrics": list(preparation.metrics),
    "step_s": preparation.step_s,
    "source_step_s": preparation.source_step_s,
    "is_counter": preparation.is_counter.tolist(),
    "scaler": {name: array.tolist() for name, array in preparation.scaler._asdict().items()},
    "leading_fill": preparation.leading_fill.tolist(),
  }


def from_json(values: dict[str, Any]) -> Preparation:
  """Returns the preparation from `to_json`'s dict; raises ValueError naming a field that is missing."""
  missing = [name for name in Preparation._fields if name not in values]
  missing += [f"scaler.{name}" for name in Scaler._fields if name not in values.get("scaler", {})]
  if missing:
    raise ValueError(f"preparation: field {missing[0]!r} is missing")
  scaler = Scaler(
    minimum=np.array(values["scaler"]["minimum"], np.float64),
    maximum=np.array(values["scaler"]["maximum"], np.float64),
    scale=np.array(values["scaler"]["scale"], np.float64),
    is_constant=np.array(values["scaler"]["is_constant"], bool),
  )
  return Preparation(
    metrics=tuple(values["metrics"]),
    step_s=values["step_s"],
    source_step_s=values["source_step_s"],
    is_counter=np.array(values["is_counter"], bool),
    scaler=scaler,
    leading_fill=np.array(values["leading_fill"], np.float64),
  )
