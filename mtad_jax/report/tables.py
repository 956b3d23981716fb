"""Tables of the report as HTML. Every cell is text and is escaped here; no other module writes cells, but for the
fleet's map, whose lines hold a picture (fleet_map.py).

A name may come from anywhere (a file's name is a machine's name), so none reaches the page as markup.
"""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

NONE = "\N{EN DASH}"  # stands where there is no figure
MAX_EVENTS = 500  # lines of the events table; the file has them all
TOP_CONTRIBUTORS = 5


class Column(NamedTuple):
  """A table's column: its heading, and whether it holds numbers (set to the right, in even digits)."""

  name: str
  numeric: bool = False


def number(value: Any, digits: int = 3) -> str:
  """Returns a number as a person reads it, with `digits` significant ones; a missing one is a dash."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return NONE
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, int):
    return f"{value:,}"
  if isinstance(value, float):
    if math.isinf(value):
      return "∞" if value > 0 else "-∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
      # three decimals below 1, as scores are compared; fewer above
      decimals = digits if abs(value) < 10 else max(digits - int(math.log10(abs(value))), 0)
      return f"{value:,.{decimals}f}"
    return f"{value:.{digits - 1}e}"
  return str(value)


def share(value: float | None) -> str:
  """Returns a share 0..1 in per cent."""
  return NONE if value is None or math.isnan(value) else f"{100 * value:.3g}%"


def absent(reason: str) -> str:
  """Returns the note that stands where a part of the page could not be drawn."""
  return f'<p class="absent">Not shown. {html.escape(reason)}</p>'


def table(
  caption: str,
  columns: Sequence[Column],
  rows: Sequence[Sequence[str]],
  *,
  row_machines: Sequence[str] | None = None,
) -> str:
  """Returns an HTML table that scrolls sideways by itself on a narrow screen.

  Args:
    caption: what the table shows, as text.
    columns: one for each cell of a row.
    rows: cells as text; the first cell names the row.
    row_machines: the machine each row belongs to, so that the page can show one machine's rows alone.

  Raises:
    ValueError: a row with another number of cells than there are columns.
  """
  for index, cells in enumerate(rows):
    if len(cells) != len(columns):
      raise ValueError(f"table {caption!r}: row {index} has {len(cells)} cells; {len(columns)} are wanted")
  head = "".join(
    f'<th scope="col"{" class=n" if column.numeric else ""}>{html.escape(column.name)}</th>'
    for column in columns
  )
  body = []
  for index, cells in enumerate(rows):
    machine = "" if row_machines is None else f' data-machine="{html.escape(row_machines[index])}"'
    first = f'<th scope="row">{html.escape(cells[0])}</th>'
    rest = "".join(
      f"<td{' class=n' if column.numeric else ''}>{html.escape(cell)}</td>"
      for column, cell in zip(columns[1:], cells[1:], strict=True)
    )
    body.append(f"<tr{machine}>{first}{rest}</tr>")
  label = html.escape(caption)
  return (
    f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><caption>{label}</caption>'
    f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
  )


def contributors_text(contributors: Sequence[tuple[str, float]]) -> str:
  """Returns the metrics behind an event, largest share first; an event that has none says so."""
  named = [(metric, value) for metric, value in contributors if value > 0]
  if not named:
    return "none: no metric stands above its usual level"
  parts = [f"{metric} {share(value)}" for metric, value in named[:TOP_CONTRIBUTORS]]
  if len(named) > TOP_CONTRIBUTORS:
    parts.append(f"{len(named) - TOP_CONTRIBUTORS} more")
  return ", ".join(parts)
