"""The detector is tried with faults: where they lie, that a live one sees them, and that a dead one is named."""

import numpy as np
import pytest
import tiny

from mtad_jax.data.fleet import part_rows, prepare_groups
from mtad_jax.detect.alive import KINDS, Alive, alive_line, inject_faults, try_faults
from mtad_jax.detect.calibration import calibrate_group
from mtad_jax.roles.prior import know_nothing

CONFIG = tiny.make_config(
  data={"fit_share": 0.6, "calibration_share": 0.15, "check_share": 0.15},
  detect={"min_calibration_rows": 10, "smoothed_minutes": (1, 4)},
)
GROUP = tiny.make_group(CONFIG, (900, 960))
W = CONFIG.model.window_size


@pytest.fixture(scope="module")
def params():
  return tiny.draw_params(CONFIG, GROUP)


@pytest.fixture(scope="module")
def calibrations(params):
  return calibrate_group(GROUP, params, CONFIG)


def test_faults_lie_in_the_check_part_apart_and_move_one_metric_each():
  machine = GROUP.machines[0]
  changed, faults = inject_faults(machine, [0, 2], CONFIG, know_nothing(3))
  rows = part_rows(machine, "check", W, CONFIG.data)
  assert [fault.kind for fault in faults] == (["spike", "level_shift"] * len(faults))[: len(faults)]
  assert len(faults) >= 3
  moved = changed.train.values - machine.train.values
  for fault, following in zip(faults, [*faults[1:], None], strict=True):
    assert rows[0] <= fault.start < fault.end <= rows[-1] + 1
    assert fault.end - fault.start == KINDS[fault.kind]
    assert fault.metric in (0, 2)
    assert np.all(np.abs(moved[fault.start : fault.end, fault.metric]) >= 0.2 - 1e-6)
    assert following is None or following.start - fault.end >= 20
    moved[fault.start : fault.end, fault.metric] = 0
  assert not moved.any()
  assert inject_faults(machine, [0, 2], CONFIG, know_nothing(3))[1] == faults


def test_a_live_detector_raises_alarms_and_a_dead_one_is_named(params, calibrations):
  found = try_faults(GROUP, params, calibrations, CONFIG)
  injected = sum(sum(alive.injected.values()) for alive in found.values())
  assert sum(sum(alive.detected.values()) for alive in found.values()) > 0.5 * injected
  dead = {**calibrations, "machine-1": calibrations["machine-1"]._replace(threshold=1e12)}
  broken = try_faults(GROUP, params, dead, CONFIG)
  assert broken["machine-0"] == found["machine-0"]
  assert not any(broken["machine-1"].detected.values())
  assert alive_line(broken).endswith("; NOT ONE on machine-1")
  assert "NOT ONE" not in alive_line(found)


def test_what_never_moved_stays_and_a_short_check_part_gets_no_fault(params):
  raw = tiny.make_machine("machine-0", 900, seed=0)
  flat = raw.train.values.copy()
  flat[:, 1] = 3.0
  group = prepare_groups([raw._replace(train=raw.train._replace(values=flat))], CONFIG)[0]
  assert inject_faults(group.machines[0], [1], CONFIG, know_nothing(3))[1] == []
  short = tiny.make_config(detect={"min_calibration_rows": 10, "smoothed_minutes": (1, 4)})
  few = tiny.make_group(short, (120,))
  assert inject_faults(few.machines[0], [0], short, know_nothing(3))[1] == []
  assert alive_line({"a": Alive({"spike": 0, "level_shift": 0}, {"spike": 0, "level_shift": 0})}) == (
    "faults of 10 deviations put into the check part raise an alarm: 0 of 0 spikes, 0 of 0 level shifts"
  )
