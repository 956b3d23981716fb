"""Trains the tiny group in a process of its own up to a step, as one of several processes or alone.

python tests/train_part.py WORKDIR UNTIL_STEP NUM_MACHINES [COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

import signal
import sys

import numpy as np
import tiny

from mtad_jax.data.fleet import Group
from mtad_jax.train import loop, processes

CONFIG = tiny.make_config(train={"max_dispatch_s": 0.01})
LENGTHS = (200, 260, 230, 210, 250)
SICK, SICK_ROWS = 1, slice(60, 62)  # a machine some of whose batches are not finite


def make_group(num_machines: int = len(LENGTHS)) -> Group:
  """Returns the first machines of the tiny group."""
  group = tiny.make_group(CONFIG, LENGTHS[:num_machines])
  group.machines[SICK].train.values[SICK_ROWS] = np.nan
  return group


def main() -> None:
  """Trains; the signal comes from inside, at the step wanted, in the first process only."""
  workdir, until = sys.argv[1], int(sys.argv[2])
  if len(sys.argv) > 4:
    processes.join(sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
  group = make_group(int(sys.argv[3]))
  real = loop._Runner._mark

  def marked(runner, state, tick, bar):
    if tick >= until and processes.is_writer():
      signal.raise_signal(signal.SIGTERM)
    return real(runner, state, tick, bar)

  loop._Runner._mark = marked  # type: ignore[method-assign]
  outcome = loop.train_group(group, 0, CONFIG, workdir, {"run_id": "x"})
  processes.leave()
  print(outcome.step, outcome.finished, processes.describe())


if __name__ == "__main__":
  main()
