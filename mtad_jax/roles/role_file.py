"""role_mixtures.npz: the mixtures of a run's roles as arrays, read without jax, so that a report can tell them.

The arrays of role n are named "n.NAME"; "about" is JSON of the rest. Nothing in the file is to be unpickled.
"""

import io
import json
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

ROLE_MIXTURES = "role_mixtures.npz"
SCHEMA_VERSION = 1
ARRAYS = ("log_weights", "means", "covariances", "minimum", "maximum", "scale", "is_constant", "deviation_floor")


class StoredRole(NamedTuple):
  """One role's mixture as it is stored.

  group: number of the group of equal metrics. machines: names. bic: by number of components, those tried on the
  search rows; the least is chosen. num_rows: fitted on. arrays: by the names of `ARRAYS`.
  """

  group: int
  role: str
  machines: tuple[str, ...]
  bic: dict[int, float]
  num_rows: int
  arrays: Mapping[str, np.ndarray]

  @property
  def weights(self) -> np.ndarray:
    """[K], the components' shares, the largest first."""
    return np.exp(np.sort(self.arrays["log_weights"])[::-1])

  @property
  def num_metrics(self) -> int:
    """F."""
    return self.arrays["means"].shape[1]


def write_role_file(workdir: epath.PathLike, roles: Sequence[StoredRole], run_id: str) -> None:
  """Writes role_mixtures.npz whole or not at all."""
  about: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": run_id,
    "roles": [
      {
        "group": stored.group,
        "role": stored.role,
        "machines": list(stored.machines),
        "bic": {str(number): value for number, value in stored.bic.items()},
        "num_rows": stored.num_rows,
      }
      for stored in roles
    ],
  }
  arrays = {"about": np.array(json.dumps(about))}
  for number, stored in enumerate(roles):
    arrays.update({f"{number}.{name}": np.asarray(stored.arrays[name]) for name in ARRAYS})
  buffer = io.BytesIO()
  np.savez_compressed(buffer, allow_pickle=False, **arrays)
  target = epath.Path(workdir) / ROLE_MIXTURES
  temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
  try:
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(target)
  finally:
    if temporary.exists():
      temporary.unlink()


def read_role_file(workdir: epath.PathLike) -> list[StoredRole]:
  """Returns what `write_role_file` wrote; raises ValueError where it is missing or damaged, naming the file."""
  file = epath.Path(workdir) / ROLE_MIXTURES
  if not file.exists():
    raise ValueError(f"{file}: not found; train.py writes it where config.model.detector is role_mixture")
  try:
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
      about = json.loads(str(content["about"]))
      if about["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {about['schema_version']!r}, this program reads {SCHEMA_VERSION}")
      return [
        StoredRole(
          group=entry["group"],
          role=entry["role"],
          machines=tuple(entry["machines"]),
          bic={int(key): float(value) for key, value in entry["bic"].items()},
          num_rows=entry["num_rows"],
          arrays={name: content[f"{number}.{name}"] for name in ARRAYS},
        )
        for number, entry in enumerate(about["roles"])
      ]
  except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(f"{file}: damaged: {error}; remove it and run train.py again") from None


def describe_roles(roles: Sequence[StoredRole]) -> list[str]:
  """Returns a line for a person on each role."""
  lines = []
  for stored in roles:
    weights = stored.weights
    shown = ", ".join(f"{weight:.0%}" for weight in weights[:6]) + (", ..." if len(weights) > 6 else "")
    lines.append(
      f"role {stored.role}: {len(weights)} components ({shown}) from {stored.num_rows} rows of"
      f" {len(stored.machines)} machines, {stored.num_metrics} metrics"
    )
  return lines
