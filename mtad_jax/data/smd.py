"""SMD, the Server Machine Dataset: a fleet folder whose metrics and roles are known by name.

Any subset of its 28 machines will do. Metric names: OmniAnomaly issue 22; roles: its three groups of servers.
"""

import re
from collections.abc import Sequence

from etils import epath

from mtad_jax.data.fleet_folder import read_fleet_folder
from mtad_jax.data.machine import Machine
from mtad_jax.data.track import Track, untracked

METRICS = (
  "cpu_r", "load_1", "load_5", "load_15", "mem_shmem", "mem_u", "mem_u_e", "total_mem", "disk_q", "disk_r",
  "disk_rb", "disk_svc", "disk_u", "disk_w", "disk_wa", "disk_wb", "si", "so", "eth1_fi", "eth1_fo",
  "eth1_pi", "eth1_po", "tcp_tw", "tcp_use", "active_opens", "curr_estab", "in_errs", "in_segs",
  "listen_overflows", "out_rsts", "out_segs", "passive_opens", "retransegs", "tcp_timeouts", "udp_in_dg",
  "udp_out_dg", "udp_rcv_buf_errs", "udp_snd_buf_errs",
)  # fmt: skip
_GROUP_SIZES = {1: 8, 2: 9, 3: 11}
MACHINES = tuple(f"machine-{group}-{i + 1}" for group, size in _GROUP_SIZES.items() for i in range(size))


def role_of(name: str) -> str:
  """Returns `group-G` for machine-G-I; raises ValueError for any other name."""
  match = re.fullmatch(r"machine-(\d+)-\d+", name)
  if name not in MACHINES or not match:
    raise ValueError(f"machine {name!r} is not of SMD; machine-1-1 to machine-3-11 are, 28 in all")
  return f"group-{match[1]}"


def read_smd(
  path: epath.PathLike, machines: Sequence[str] = (), *, require_train: bool = True, track: Track = untracked
) -> list[Machine]:
  """Returns SMD's machines, as many of the 28 as the folder has.

  Args:
    path: ServerMachineDataset/, with train/, test/, test_label/ and interpretation_label/.
    machines: only these; empty: all.
    require_train: whether a machine in test/ must be in train/ too.
    track: watches the reading, machine by machine.

  Raises:
    ValueError: as `read_fleet_folder`, and for a machine that is not of SMD.
  """
  return read_fleet_folder(
    path, metrics=METRICS, machines=machines, require_train=require_train, role_of=role_of, track=track
  )
