"""Raw files, a download or a simulation to a prepared dataset on disk; a second call finds it done.

python scripts/prepare.py --dataset=folder --source=myfleet --data_dir=data
python scripts/prepare.py --dataset=smd --source=ServerMachineDataset --data_dir=data
python scripts/prepare.py --dataset=smap --download --data_dir=data                    # from its publishers
python scripts/prepare.py --dataset=simulated --sim_machines=6 --data_dir=data         # with faults of known causes
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from program import QUIET, UsageError, run
from terminal import Row, table_lines, track

from mtad_jax.data.builder import DATASETS, build_dataset, check_place, is_prepared
from mtad_jax.data.download import download
from mtad_jax.data.fingerprint import fingerprint_folder, fingerprint_text
from mtad_jax.data.fleet_folder import select_machines
from mtad_jax.data.load import read_source
from mtad_jax.data.machine import Machine
from mtad_jax.data.publishers import PUBLISHERS

_DATASET = flags.DEFINE_enum("dataset", None, DATASETS, "what to prepare", required=True)
_SOURCE = flags.DEFINE_string(
  "source", None, "folder of raw files, in the publisher's layout or a fleet folder"
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder for prepared datasets", required=True)
_DOWNLOAD = flags.DEFINE_bool("download", False, "fetch the raw files from the publisher (smd, smap, msl)")
_URL = flags.DEFINE_string("url", None, "base address in place of the publisher's, with --download")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace what is there")
_MACHINES = flags.DEFINE_list("machines", [], "only these machines, comma-separated; empty: all")
_SIM_MACHINES = flags.DEFINE_integer("sim_machines", None, "machines of the simulated fleet", lower_bound=1)
_SIM_DAYS = flags.DEFINE_integer("sim_days", None, "training days of the simulated fleet", lower_bound=1)
_SIM_SEED = flags.DEFINE_integer("sim_seed", None, "seed of the simulated fleet", lower_bound=0)


def _check_flags() -> None:
  dataset = _DATASET.value
  if _URL.value and not _DOWNLOAD.value:
    raise UsageError("--url is for --download only")
  if _DOWNLOAD.value and dataset not in PUBLISHERS:
    raise UsageError(f"--download: dataset {dataset!r} has no publisher; {', '.join(PUBLISHERS)} have one")
  if _DOWNLOAD.value and _SOURCE.value:
    raise UsageError("--source and --download: one of them, not both")
  simulated = dataset == "simulated"
  if simulated and _SOURCE.value:
    raise UsageError("--source: a simulated fleet has none; --dataset=folder takes a fleet in files")
  if not simulated and not _SOURCE.value and not _DOWNLOAD.value:
    raise UsageError("--source=DIR" + (" or --download" if dataset in PUBLISHERS else "") + " is needed")
  if not simulated:
    for flag in (_SIM_MACHINES, _SIM_DAYS, _SIM_SEED):
      if flag.value is not None:
        raise UsageError(f"--{flag.name} is for --dataset=simulated only")


def _simulation(names: Sequence[str]) -> tuple[str, Callable[[], list[Machine]]]:
  """Returns the settings' fingerprint, and a function that simulates the fleet."""
  # here, because it brings scipy.signal: seconds that no other dataset has to wait
  from mtad_jax.data.simulate import SimulatorSettings, simulate_fleet

  given = {"num_machines": _SIM_MACHINES.value, "train_days": _SIM_DAYS.value, "random_seed": _SIM_SEED.value}
  settings = SimulatorSettings(**{name: value for name, value in given.items() if value is not None})

  def simulate() -> list[Machine]:
    fleet = {machine.name: machine for machine in simulate_fleet(settings)}
    return [fleet[name] for name in select_machines(fleet, names, "simulated fleet")]

  return fingerprint_text("simulated", ",".join(sorted(names)), repr(dataclasses.asdict(settings))), simulate


def _find_source(
  dataset: str, data_dir: Path, names: Sequence[str]
) -> tuple[str, Callable[[], list[Machine]]]:
  """Returns the source's fingerprint, and a function that reads its machines."""
  if dataset == "simulated":
    return _simulation(names)
  source: str = _SOURCE.value or ""  # empty only before a download
  if _DOWNLOAD.value:
    result = download(dataset, str(data_dir / "downloads"), url=_URL.value, force=_OVERWRITE.value, quiet=QUIET.value)
    if result.unverified:
      print(f"{len(result.unverified)} files unverified: no checksum was known; now it is recorded")
    source = str(result.folder)
    print(f"raw files {'already' if result.already_there else 'now'} in {source}")
  fingerprint = fingerprint_folder(source, dataset, ",".join(sorted(names)))
  return fingerprint, lambda: read_source(dataset, source, names, track=track)


def _share(part: float) -> str:
  return f"{100 * part:.2f}%"


def _table_lines(machines: Sequence[Machine], rest: str) -> list[str]:
  """Returns a row per machine, the most missing values first: sizes, and shares of anomalous test rows and of those.

  Args:
    rest: what has all of them.
  """
  told = []
  for machine in machines:
    values = (machine.train.values, machine.test.values)
    missing = sum(int(np.isnan(split).sum()) for split in values) / max(sum(split.size for split in values), 1)
    anomalous = "-" if machine.labels is None else _share(float(machine.labels.mean()))
    counts = (len(values[0]), len(values[1]), len(machine.metrics))
    cells = (machine.name, machine.role, *map(str, counts), anomalous, _share(missing))
    told.append((missing, Row(cells)))
  told.sort(key=lambda pair: -pair[0])
  head = ("machine", "role", "train", "test", "metrics", "anomalous", "missing")
  return table_lines(head, [row for _, row in told], rest)


def main() -> None:
  """Prepares the dataset that the flags name."""
  _check_flags()
  dataset, data_dir, names = _DATASET.value, _DATA_DIR.value, _MACHINES.value
  root = check_place(dataset, data_dir)  # before any download
  fingerprint, read = _find_source(dataset, root, names)
  if not _OVERWRITE.value and is_prepared(dataset, data_dir, fingerprint):
    print(f"{root / dataset}: already prepared from the same data; nothing to do")
    return
  machines = read()
  build_dataset(dataset, track(machines, "writing"), data_dir, fingerprint, overwrite=_OVERWRITE.value)
  print("\n".join(_table_lines(machines, str(root / dataset))))
  rows = sum(len(machine.train.values) + len(machine.test.values) for machine in machines)
  print(f"{root / dataset}: {len(machines)} machines, {rows} rows prepared")


if __name__ == "__main__":
  run(main)
