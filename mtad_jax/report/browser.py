"""What runs in the reader's browser: the page's style and its script, kept as files beside this module.

Names are set with textContent and as an option's text; where a chart has one, markup in it is escaped first, since
the plotting library reads markup in its labels.
"""

from importlib import resources

# in the order in which a reader of the page meets what they draw; the first has what all use, the last starts them
SCRIPTS = ("common", "heat", "fleet", "scores", "cards", "event", "losses", "ledger", "main")


def style() -> str:
  """Returns the page's style sheet."""
  return _asset("page.css")


def script() -> str:
  """Returns the script, closed in itself: nothing of it is visible to other scripts."""
  parts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
  return f"(() => {{\n'use strict';\n{parts}\n}})();\n"


def _asset(name: str) -> str:
  return resources.files("mtad_jax.report").joinpath("assets", name).read_text(encoding="utf-8")
