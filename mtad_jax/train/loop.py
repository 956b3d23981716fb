"""The training loop of one group: dispatches, log rows, validations, checkpoints, in that order.

It ends at the last step, when every machine has stopped early, or at a signal, after the dispatch in flight
and with the state saved; called again, it goes on from the newest checkpoint.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tqdm import tqdm

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, training_arrays
from mtad_jax.train.checkpoints import Checkpoints, to_device
from mtad_jax.train.fleet_step import FleetPrograms, make_programs, place
from mtad_jax.train.metrics_log import MetricsLog
from mtad_jax.train.optimizer import learning_rate
from mtad_jax.train.state import TrainState
from mtad_jax.train.workdir import CHECKPOINTS


class Outcome(NamedTuple):
  """How a group's training ended.

  step: reached. finished: False where a signal stopped it. num_skipped: per machine. best_loss: per machine,
  lowest validation loss. best_step: per machine, where it was.
  """

  step: int
  finished: bool
  num_skipped: dict[str, int]
  best_loss: dict[str, float]
  best_step: dict[str, int]


def total_steps(config: Config, num_machines: int) -> int:
  """Returns the steps of a run: num_train_steps, or what the window budget buys for this many machines."""
  settings = config.train
  steps = settings.num_train_steps
  if settings.window_budget:
    steps = max(1, settings.window_budget // (num_machines * settings.batch_size))
  if steps * settings.batch_size >= 2**31:
    raise ValueError(
      f"config.train: {steps} steps of {settings.batch_size} windows exceed 2^31 draws per machine"
    )
  return steps


def group_directory(workdir: epath.PathLike, index: int) -> epath.Path:
  """Returns where a group's checkpoints lie."""
  return epath.Path(workdir) / CHECKPOINTS / f"group-{index}"


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
  """Yields an event that SIGTERM and SIGINT set, in place of ending the process."""
  stop = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield stop  # only the main thread may set handlers
    return
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  for number in before:
    signal.signal(number, lambda *_: stop.set())
  try:
    yield stop
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


class _Pace:
  """How many steps a dispatch may hold so that it lasts about `max_s`; learnt from those before."""

  def __init__(self, max_s: float):
    self._max_s = max_s
    self._step_s: float | None = None
    self._num_seen = 0

  def num_steps(self) -> int:
    return 1 if self._step_s is None else max(1, int(self._max_s / self._step_s))

  def saw(self, num_steps: int, duration_s: float) -> None:
    self._num_seen += 1
    if self._num_seen > 1:  # the first dispatch holds the compilation
      self._step_s = max(duration_s / num_steps, 1e-6)


def _vector(values: Any) -> list[float | None]:
  """Returns per-machine numbers for JSON; what is not finite is null."""
  return [float(x) if np.isfinite(x) else None for x in np.asarray(values, np.float64)]


def _log_row(state: TrainState, config: Config, num_steps: int, num_fit: np.ndarray) -> dict[str, Any]:
  step = int(state.step[0])
  sums = jax.device_get(state.sums)
  with np.errstate(invalid="ignore", divide="ignore"):
    means = [x / sums.num_steps for x in sums.losses]
  rate = learning_rate(jnp.asarray(step - 1), jnp.asarray(num_steps), config.train)
  return {
    "step": step,
    "epoch": float(step * config.train.batch_size / np.median(num_fit)),
    "learning_rate": float(rate),
    "loss": _vector(means[0]),
    "forecast_loss": _vector(means[1]),
    "reconstruction_loss": _vector(means[2]),
    "kl": _vector(means[3]),
    "num_skipped": np.asarray(state.guard.num_skipped).tolist(),
    "stopped": np.asarray(state.stopped).tolist(),
  }


class _Tensorboard:
  """Writes the fleet's median losses and each machine's to event files; an extra."""

  def __init__(self, folder: epath.Path):
    try:
      from tensorboardX import SummaryWriter
    except ImportError:
      raise ValueError(
        "config.train.tensorboard: needs the extra 'tensorboard' (pip install mtad_jax[tensorboard])"
      ) from None
    self._writer = SummaryWriter(str(folder))

  def write(self, row: dict[str, Any], machines: tuple[str, ...]) -> None:
    for name in ("loss", "forecast_loss", "reconstruction_loss", "kl", "validation_loss"):
      for machine, value in zip(machines, row.get(name, []), strict=False):
        if value is not None:
          self._writer.add_scalar(f"{name}/{machine}", value, row["step"])
    self._writer.flush()


def state_template(
  config: Config, num_machines: int, num_metrics: int, targets: tuple[int, ...]
) -> TrainState:
  """Returns the shapes and types of a group's state, for restoring."""
  programs = make_programs(config, num_metrics, targets)
  return jax.eval_shape(programs.init, jax.ShapeDtypeStruct((num_machines,), jnp.uint32))


def train_group(
  group: Group, index: int, config: Config, workdir: epath.PathLike, about: dict[str, Any]
) -> Outcome:
  """Trains (or goes on training) one group to its end; checkpoints and metrics land in the work directory.

  Args:
    group: prepared machines of equal metrics. index: its number in the fleet.
    about: JSON-able facts written beside every checkpoint.
  """
  arrays = training_arrays(group, config)
  num_steps = total_steps(config, len(group.machines))
  programs = make_programs(config, len(group.metrics), group.targets)
  checkpoints = Checkpoints(group_directory(workdir, index), config.train.checkpoints_to_keep)
  try:
    steps = checkpoints.steps()
    if steps:
      template = state_template(config, len(group.machines), len(group.metrics), group.targets)
      state = to_device(checkpoints.restore(steps[-1], template))
      print(f"group {index}: resumed at step {steps[-1]} of {num_steps}")
    else:
      state = programs.init(arrays.machine_ids)
    log = MetricsLog(workdir, index, group.names, steps[-1] if steps else 0)
    tensorboard = (
      _Tensorboard(epath.Path(workdir) / "tensorboard" / f"group-{index}")
      if config.train.tensorboard
      else None
    )
    with _stop_on_signal() as stop:
      runner = _Runner(
        programs, place(arrays), arrays.num_fit, config, num_steps, checkpoints, log, group.names
      )
      state, finished = runner.run(state, stop, about, tensorboard)
    log.flush()
    return Outcome(
      step=int(state.step[0]),
      finished=finished,
      num_skipped=dict(zip(group.names, np.asarray(state.guard.num_skipped).tolist(), strict=True)),
      best_loss=dict(zip(group.names, np.asarray(state.best_loss).tolist(), strict=True)),
      best_step=dict(zip(group.names, np.asarray(state.best_step).tolist(), strict=True)),
    )
  finally:
    checkpoints.close()


class _Runner:
  """The loop itself, with what it needs at hand."""

  def __init__(
    self,
    programs: FleetPrograms,
    arrays: Any,
    num_fit: np.ndarray,
    config: Config,
    num_steps: int,
    checkpoints: Checkpoints,
    log: MetricsLog,
    names: tuple[str, ...],
  ):
    self._programs, self._arrays, self._num_fit, self._config = programs, arrays, num_fit, config
    self._num_steps, self._checkpoints, self._log, self._names = num_steps, checkpoints, log, names

  def run(
    self, state: TrainState, stop: threading.Event, about: dict[str, Any], tensorboard: _Tensorboard | None
  ) -> tuple[TrainState, bool]:
    """Returns (the last state, whether the run came to its end)."""
    settings = self._config.train
    step = int(state.step[0])
    saved = step
    pace = _Pace(settings.max_dispatch_s)
    events = (settings.log_every_steps, settings.validate_every_steps, settings.checkpoint_every_steps)
    shown = settings.progress_bar and sys.stderr.isatty()
    with tqdm(total=self._num_steps, initial=step, unit="step", disable=not shown) as bar:
      while step < self._num_steps and not stop.is_set() and not bool(np.all(state.stopped)):
        boundary = min(self._num_steps, *(step + every - step % every for every in events))
        num = min(boundary - step, pace.num_steps())
        began = time.perf_counter()
        state = self._programs.run(state, self._arrays, num, self._num_steps)
        step = int(state.step[0])  # waits for the device
        pace.saw(num, time.perf_counter() - began)
        bar.update(num)
        last = step == self._num_steps
        validating = last or step % settings.validate_every_steps == 0
        if validating or step % settings.log_every_steps == 0:
          row = _log_row(state, self._config, self._num_steps, self._num_fit)
          state = self._programs.clear_sums(state)
          if validating:
            state, losses = self._programs.validate(state, self._arrays)
            row["validation_loss"] = _vector(losses.total)
          self._log.write(row)
          self._show(bar, row)
          if tensorboard:
            tensorboard.write(row, self._names)
        if last or step % settings.checkpoint_every_steps == 0:
          self._save(step, state, about)
          saved = step
      finished = step >= self._num_steps or bool(np.all(state.stopped))
      if saved != step:
        self._save(step, state, about)
    return state, finished

  def _save(self, step: int, state: TrainState, about: dict[str, Any]) -> None:
    verdicts = {"num_skipped": np.asarray(state.guard.num_skipped).tolist()}
    best = {"best_loss": _vector(state.best_loss), "best_step": np.asarray(state.best_step).tolist()}
    self._log.flush()
    self._checkpoints.save(step, state, self._names, {**about, "step": step, "verdicts": verdicts, **best})

  def _show(self, bar: tqdm, row: dict[str, Any]) -> None:
    def median(name: str) -> str:
      values = [x for x in row.get(name, []) if x is not None]
      return f"{np.median(values):.4f}" if values else "-"

    text = f"loss {median('loss')} (median of {len(self._names)})"
    if "validation_loss" in row:
      text += f", validation {median('validation_loss')}"
    text += f", skipped {sum(row['num_skipped'])}, stopped {sum(row['stopped'])}"
    if bar.disable:
      if "validation_loss" in row:
        print(f"step {row['step']}/{self._num_steps}: {text}", flush=True)
    else:
      bar.set_postfix_str(text)
