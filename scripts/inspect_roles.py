"""What a run's role mixtures hold, as plain dicts and as lines: inspect_checkpoint.py prints one or the other."""

from typing import Any

import numpy as np
from etils import epath
from inspect_lines import columns, number, size
from run_flags import Run

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector
from mtad_jax.roles.role_file import ROLE_MIXTURES, StoredRole, read_role_file

MAX_MACHINES = 8  # of a role, named


def has_mixtures(config: Config) -> bool:
  """Returns whether a run has a mixture per role, and no networks and checkpoints."""
  return config.model.detector is Detector.ROLE_MIXTURE


def _components(stored: StoredRole, metrics: tuple[str, ...]) -> list[dict[str, Any]]:
  """Returns a dict per component, heaviest first: its weight, and each metric's mean and deviation, own units."""
  arrays = stored.arrays
  means = arrays["means"] * arrays["scale"] + arrays["minimum"]  # [K, F]
  deviations = np.sqrt(np.diagonal(arrays["covariances"], axis1=1, axis2=2)) * arrays["scale"]
  return [
    {
      "weight": float(np.exp(arrays["log_weights"][k])),
      "means": dict(zip(metrics, means[k].tolist(), strict=True)),
      "deviations": dict(zip(metrics, deviations[k].tolist(), strict=True)),
    }
    for k in np.argsort(-arrays["log_weights"], kind="stable")
  ]


def role_facts(opened: Run, workdir: str, machine: str | None, *, full: bool) -> dict[str, Any]:
  """Returns the mixtures of a run's roles.

  Args:
    machine: the mixture of its role alone. full: each component's means and deviations too.

  Raises:
    ValueError: the file is missing or damaged, or a role's mixture is of other metrics than its group.
  """
  file = epath.Path(workdir) / ROLE_MIXTURES
  roles = []
  for stored in read_role_file(workdir):
    if machine not in (None, *stored.machines):
      continue
    metrics = next((group.metrics for group in opened.groups if group.number == stored.group), ())
    if len(metrics) != stored.num_metrics:
      raise ValueError(
        f"{file}: role {stored.role!r} of group {stored.group} has {stored.num_metrics} metrics, its group"
        f" in fleet.json {len(metrics)}; remove it and run train.py again"
      )
    constant = [name for name, still in zip(metrics, stored.arrays["is_constant"], strict=True) if still]
    entry: dict[str, Any] = {
      "group": stored.group,
      "role": stored.role,
      "machines": list(stored.machines),
      "metrics": list(metrics),
      "constant": constant,
      "num_rows": stored.num_rows,
      "num_components": len(stored.weights),
      "weights": stored.weights.tolist(),
      "bic": {str(count): value for count, value in stored.bic.items()},
    }
    if full:
      entry["components"] = _components(stored, metrics)
    roles.append(entry)
  return {"file": ROLE_MIXTURES, "num_bytes": file.stat().length, "roles": roles}


def role_lines(facts: dict[str, Any]) -> list[str]:
  """Returns the mixtures for a person: a table of roles, then each role's BICs, metrics and components."""
  lines = [f"role mixtures ({facts['file']}, {size(facts['num_bytes'])}):"]
  header = ("role", "group", "machines", "rows", "metrics", "components", "weights")
  rows = [
    (
      role["role"],
      *(str(count) for count in (role["group"], len(role["machines"]), role["num_rows"], len(role["metrics"]))),
      str(role["num_components"]),
      " ".join(f"{weight:.3f}" for weight in role["weights"]),
    )
    for role in facts["roles"]
  ]
  lines += columns(header, rows)
  for role in facts["roles"]:
    tried = ", ".join(f"{count}: {value:.0f}" for count, value in role["bic"].items())
    names = role["machines"][:MAX_MACHINES]
    more = len(role["machines"]) - len(names)
    lines += [
      f"role {role['role']} (group {role['group']}):",
      f"  BIC by number of components: {tried}; the least is chosen",
      f"  machines: {', '.join(names)}" + (f" and {more} more (--json has all)" if more else ""),
      f"  metrics: {', '.join(role['metrics'])}; constant: {', '.join(role['constant']) or 'none'}",
    ]
    if "components" in role:
      lines.append("  mean and deviation by component, in the metrics' own units:")
      heads = [f"{part} {k + 1}" for k in range(role["num_components"]) for part in ("mean", "deviation")]
      cells = [
        [number(found[part][metric]) for found in role["components"] for part in ("means", "deviations")]
        for metric in role["metrics"]
      ]
      table = [(metric, *row) for metric, row in zip(role["metrics"], cells, strict=True)]
      lines += columns(("metric", *heads), table)
  return lines
