"""The training loop of one group: dispatches, log rows, validations, checkpoints, in that order.

It ends when every machine has its steps, has stopped early or is retired, or at a signal, after the dispatch in
flight and with the state saved; called again, it goes on from the newest intact checkpoint. With several
processes all of them run it alike; the first one writes.
"""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, training_arrays
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_step import make_programs, place, state_template
from mtad_jax.train.linear_fit import fit_linear_skips
from mtad_jax.train.log_row import checkpoint_note, log_row, report_of, vector
from mtad_jax.train.mesh import held_machines, make_mesh, to_host, to_mesh
from mtad_jax.train.metrics_log import MetricsLog
from mtad_jax.train.pace import Pace
from mtad_jax.train.processes import agree, any_process, first_then_all, is_writer
from mtad_jax.train.run_length import total_steps
from mtad_jax.train.state import TrainState, is_done
from mtad_jax.train.step import lane_rows
from mtad_jax.train.stop_signal import stop_on_signal
from mtad_jax.train.tensorboard import Tensorboard
from mtad_jax.train.workdir import group_directory


class Outcome(NamedTuple):
  """How a group's training ended; the dicts are by machine.

  step: of the fleet, reached. finished: False where a signal stopped it. num_skipped, num_rolled_back: bad steps
  and rollbacks. retired: whether it was. best_loss: lowest validation loss. best_step: where it was.
  """

  step: int
  finished: bool
  num_skipped: dict[str, int]
  num_rolled_back: dict[str, int]
  retired: dict[str, bool]
  best_loss: dict[str, float]
  best_step: dict[str, int]


def _say(line: str) -> None:
  print(line, flush=True)


def train_group(
  group: Group,
  index: int,
  config: Config,
  workdir: epath.PathLike,
  about: dict[str, Any],
  first_params: Callable[[], Any] | None = None,
  stop: threading.Event | None = None,
) -> Outcome:
  """Trains (or goes on training) one group to its end; checkpoints and metrics land in the work directory.

  Args:
    group: prepared machines of equal metrics; only the rows of those on this process's devices are read.
    index: its number in the fleet.
    about: JSON-able facts written beside every checkpoint.
    first_params: gives the [M, ...] parameters to begin with, called only where there is no checkpoint to go on
      from; None: drawn.
    stop: ends training, with the state saved, when set; None: SIGTERM and SIGINT do.

  Raises:
    ValueError: checkpoints of another config or version, or none intact; a checkpoint or row that cannot be written.
  """
  runner = _Runner(group, index, config, workdir, about)
  try:
    if stop:
      return runner.run(runner.begin(first_params), stop)
    with stop_on_signal() as signalled:
      return runner.run(runner.begin(first_params), signalled)
  finally:
    runner.close()


class _Runner:
  """The loop itself, with what it needs at hand."""

  def __init__(
    self, group: Group, index: int, config: Config, workdir: epath.PathLike, about: dict[str, Any]
  ):
    self._names, self._index, self._config = group.names, index, config
    self._title, self._num_lanes = group.title(index), group.extent.num_lanes
    self._workdir, self._about = epath.Path(workdir), about
    self._num_steps = total_steps(config, group.extent.num_machines)
    self._mesh = make_mesh(self._num_lanes, config.train.batch_size)
    num_machines = len(group.names)
    held = held_machines(num_machines, self._mesh, self._num_lanes).tolist()
    arrays = training_arrays(group, config, held)
    self._arrays = place(arrays, self._mesh, self._num_lanes, num_machines=num_machines)
    del arrays
    self._fitted = partial(fit_linear_skips, group, config, held)
    self._num_fit = to_host(self._arrays.num_fit, num_machines)
    self._programs = make_programs(config, len(group.metrics), group.targets, self._mesh)
    self._template = state_template(config, len(group.names), len(group.metrics), group.targets)
    self._directory = group_directory(workdir, index)
    self._checkpoints = (
      Checkpoints(self._directory, config.train.checkpoints_to_keep) if is_writer() else None
    )
    everywhere = NamedSharding(self._mesh, P())  # any process asks for any lane's rows, all alike
    self._batch_rows = jax.jit(partial(lane_rows, config=config), out_shardings=everywhere)
    self._saved = -1  # the newest step on disk or on its way there

  def close(self) -> None:
    if self._checkpoints:
      self._checkpoints.close()

  def _restore(self) -> tuple[int, Any] | None:
    """Returns (step, state) of the newest intact checkpoint, None where there is none; the writer chooses."""
    found = None
    with first_then_all("read its checkpoints"):
      if self._checkpoints:
        found = self._checkpoints.restore_newest(self._template, _say)
        self._check_run(found[0] if found else None)
    step = agree(found[0] if found else -1)
    if step >= 0 and not found:
      with Checkpoints(self._directory, read_only=True) as checkpoints:
        found = step, checkpoints.restore(step, self._template)
    return found

  def _check_run(self, step: int | None) -> None:
    """Raises ValueError where a checkpoint was written by another run."""
    if step is None or not self._checkpoints:
      return
    run_id = self._checkpoints.about(step).get("run_id")
    if run_id != self._about["run_id"]:
      raise ValueError(
        f"{self._directory / str(step)}: a checkpoint of run {run_id}; this is run {self._about['run_id']}"
      )

  def begin(self, first_params: Callable[[], Any] | None) -> TrainState:
    """Returns the state to go on from; opens the log at its tick."""
    found = self._restore()
    if found:
      self._saved, host = found
      state = to_mesh(host, self._mesh, self._num_lanes)
      if is_writer():
        _say(f"{self._title}: resumed at step {self._saved} of {self._num_steps}")
    else:
      state = self._programs.init(self._arrays.machine_ids)
      params = state.params if first_params is None else to_mesh(first_params(), self._mesh, self._num_lanes)
      fitted = to_mesh(self._fitted(), self._mesh, self._num_lanes, num_machines=len(self._names))
      state = self._programs.with_params(state, {**params, **fitted})
    self._log: MetricsLog | None = None
    self._tensorboard: Tensorboard | None = None
    if is_writer():
      self._log = MetricsLog(self._workdir, self._index, self._names, max(self._saved, 0))
      if self._config.train.tensorboard:
        self._tensorboard = Tensorboard(self._workdir / "tensorboard" / f"group-{self._index}")
    if first_params is not None and not found:
      self._save(state, 0)  # resuming needs the other run no more
    return state

  def run(self, state: TrainState, stop: threading.Event) -> Outcome:
    """Returns how it ended.

    Whether all are done is looked at where a row, validation or checkpoint is due, never between: dispatches are
    cut by the clock, and the same run must end at the same tick on any machine.
    """
    settings = self._config.train
    events = (settings.log_every_steps, settings.validate_every_steps, settings.checkpoint_every_steps)
    pace = Pace(settings.max_dispatch_s)
    shown = settings.progress_bar and sys.stderr.isatty() and is_writer()
    report = self._fetch(state)
    tick, stopped = int(report.tick[0]), any_process(stop.is_set())
    was_marked = tick == self._num_steps or any(tick % every == 0 for every in events)
    finished = tick > 0 and was_marked and self._all_done(report)  # else the last row is still to be written
    with tqdm(total=self._num_steps, initial=tick, unit="step", disable=not shown) as bar:
      while not finished and not stopped:
        boundary = min(tick + every - tick % every for every in events)
        if tick < self._num_steps:
          boundary = min(boundary, self._num_steps)
        num = min(boundary - tick, agree(pace.num_steps()))
        began = time.perf_counter()
        state = self._programs.run(state, self._arrays, num, self._num_steps)
        jax.block_until_ready(state.tick)
        pace.saw(num, time.perf_counter() - began)
        tick += num
        bar.update(num)
        if tick == boundary:
          state, finished = self._mark(state, tick, bar)
        stopped = any_process(stop.is_set())
      if tick != self._saved:
        self._save(state, tick)
    if self._checkpoints:
      self._checkpoints.wait()
    return self._outcome(self._fetch(state), finished)

  def _mark(self, state: TrainState, tick: int, bar: tqdm) -> tuple[TrainState, bool]:
    """Returns (the state, whether all are done) after what is due at this tick: log row, validation, checkpoint."""
    settings = self._config.train
    report = self._fetch(state)
    last = self._all_done(report)
    validating = last or tick == self._num_steps or tick % settings.validate_every_steps == 0
    if validating or tick % settings.log_every_steps == 0:
      row = log_row(
        report,
        self._config,
        self._num_steps,
        self._num_fit,
        self._names,
        tuple(sorted(self._template.params)),
        self._rows_of,
      )
      state = self._programs.clear_report(state)
      if validating:
        state, losses = self._programs.validate(state, self._arrays)
        row["validation_loss"] = vector(to_host(losses.total, len(self._names)))
        last = self._all_done(self._fetch(state))  # early stopping is known only now
      self._write(row, bar)
    if last or tick == self._num_steps or tick % settings.checkpoint_every_steps == 0:
      self._save(state, tick)
    return state, last

  def _fetch(self, state: TrainState) -> TrainState:
    return to_host(report_of(state), len(self._names))

  def _all_done(self, report: TrainState) -> bool:
    return bool(np.all(is_done(report, self._num_steps)))

  def _rows_of(self, lane: int, step: int, attempt: int) -> np.ndarray:
    return np.asarray(self._batch_rows(self._arrays, np.int32(lane), np.int32(step), np.int32(attempt)))

  def _save(self, state: TrainState, tick: int) -> None:
    host = to_host(state, len(self._names), copied=False)  # save() copies
    self._saved = tick
    if self._checkpoints and self._log:
      self._log.flush()
      note = checkpoint_note(report_of(host), self._num_steps)
      self._checkpoints.save(tick, host, self._names, {**self._about, **note})

  def _outcome(self, report: TrainState, finished: bool) -> Outcome:
    def by_name(values: Any) -> dict[str, Any]:
      return dict(zip(self._names, np.asarray(values).tolist(), strict=True))

    return Outcome(
      step=int(report.tick[0]),
      finished=finished,
      num_skipped=by_name(report.guard.num_skipped),
      num_rolled_back=by_name(report.guard.attempt),
      retired=by_name(report.guard.retired),
      best_loss=by_name(report.best_loss),
      best_step=by_name(report.best_step),
    )

  def _write(self, row: dict[str, Any], bar: tqdm) -> None:
    if not self._log:
      return
    self._log.write(row)
    if self._tensorboard:
      self._tensorboard.write(row, self._names)

    def median(name: str) -> str:
      values = [x for x in row.get(name, []) if x is not None]
      return f"{np.median(values):.4f}" if values else "-"

    text = f"loss {median('loss')} (median of {len(self._names)})"
    if "validation_loss" in row:
      text += f", validation {median('validation_loss')}"
    counts = {"skipped": row["num_skipped"], "rolled back": row["num_rolled_back"]}
    counts |= {"retired": row["retired"], "stopped": row["stopped"]}
    text += "".join(f", {name} {sum(values)}" for name, values in counts.items())
    if not bar.disable:
      bar.set_postfix_str(text)
    elif "validation_loss" in row:
      print(f"step {row['step']}/{self._num_steps}: {text}", flush=True)
