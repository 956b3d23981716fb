"""The mixtures of a run's roles as a table, which stands where a run of networks has its training curves."""

from mtad_jax.report import tables
from mtad_jax.report.inputs import Work

_MOST = 6  # machines or components named in a cell before the rest is counted


def section(work: Work) -> str:
  """Returns the table, or why there is none."""
  if "roles" in work.missing:
    return tables.absent(work.missing["roles"])
  tried = sorted({number for stored in work.roles for number in stored.bic})
  grouped = len({stored.group for stored in work.roles}) > 1
  columns = [
    tables.Column("role"),
    *([tables.Column("group", numeric=True)] if grouped else []),
    tables.Column("machines", numeric=True),
    tables.Column("metrics", numeric=True),
    tables.Column("rows", numeric=True),
    tables.Column("components", numeric=True),
    *(tables.Column(f"BIC of {number}", numeric=True) for number in tried),
    tables.Column("their weights"),
    tables.Column("names of machines"),
  ]
  rows = [
    [
      stored.role,
      *([str(stored.group)] if grouped else []),
      tables.number(len(stored.machines)),
      tables.number(stored.num_metrics),
      tables.number(stored.num_rows),
      tables.number(len(stored.weights)),
      *(_bic(stored.bic.get(number)) for number in tried),
      _joined([tables.share(float(weight)) for weight in stored.weights]),
      _joined(list(stored.machines)),
    ]
    for stored in work.roles
  ]
  caption = (
    "One mixture a role, of the rows of all its machines; the number of components has the least BIC of those tried"
  )
  return tables.table(caption, columns, rows)


def _bic(value: float | None) -> str:
  """Returns a BIC, which is read by differences of about ten, in whole numbers; a dash where it was not tried."""
  return tables.NONE if value is None else f"{value:,.0f}"


def _joined(values: list[str]) -> str:
  more = f" and {len(values) - _MOST:,} more" if len(values) > _MOST else ""
  return ", ".join(values[:_MOST]) + more
