"""A command's --help: what it does, examples that run as they stand, then its own flags and no library's."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

_WORDS = {"--help", "-help", "--helpshort", "-helpshort", "-h", "-?"}
_NARROWEST, _WIDEST = 60, 118  # columns
_SPELLING = 29  # of them, for a flag's own
_REPEATED = ";\n    repeat this option to specify a list of values"


def is_wanted(arguments: Sequence[str]) -> bool:
  """Returns whether a command line asks for help; --helpfull, with the flags of the libraries, is absl's own."""
  return any(word in _WORDS for word in arguments[1:])


def _is_required(flag: flags.Flag) -> bool:
  return any("must have a value other than None" in str(rule.message) for rule in flag.validators)


def _spelling(flag: flags.Flag) -> str:
  """Returns how a flag is written: --name=N, --[no]name, --name=one|two."""
  if flag.boolean:
    return f"--[no]{flag.name}"
  parser: Any = flag.parser
  if flag.name == "config":
    return "--config=FILE[:SIZE]"
  if hasattr(parser, "enum_values"):
    return f"--{flag.name}={'|'.join(parser.enum_values)}"
  kinds = {"int": "N", "float": "X", "comma separated list of strings": "A,B,..."}
  return f"--{flag.name}={kinds.get(parser.flag_type(), 'VALUE')}"


def _meaning(flag: flags.Flag) -> str:
  # what absl adds of its own accord stands in the spelling, or is said shorter
  text = (flag.help or "").strip().removesuffix(_REPEATED)
  text = re.sub(r"^<[^>]*>: ", "", text)
  if isinstance(flag, flags.MultiFlag):
    text += " (may be given again)"
  if _is_required(flag):
    return f"{text} (needed)"
  if flag.boolean or flag.default in (None, "", []) or "default" in text:
    return text
  shown = ",".join(map(str, flag.default)) if isinstance(flag.default, (list, tuple)) else flag.default
  return f"{text} (default {getattr(shown, 'value', shown)})"


def _own_flags(script: str) -> list[flags.Flag]:
  """Returns the flags of a command: those needed first, then the others by name."""
  by_module = flags.FLAGS.flags_by_module_dict()
  own = [flag for module in (script, "run_flags") for flag in by_module.get(module, [])]
  if "config" in flags.FLAGS:
    own.append(flags.FLAGS["config"])  # ml_collections defines it, for no module
  found = {flag.name: flag for flag in own}
  return sorted(found.values(), key=lambda flag: (not _is_required(flag), flag.name))


def _lines(pairs: Iterable[tuple[str, str]], width: int) -> list[str]:
  """Returns (spelling, meaning) as two columns; a spelling that is too long for its own has a line to itself."""
  lines = []
  for spelling, meaning in pairs:
    if len(spelling) > _SPELLING - 3:
      lines += textwrap.wrap(f"  {spelling}", width, subsequent_indent=" " * 6, break_on_hyphens=False)
      spelling = ""
    wrapped = textwrap.wrap(meaning, width - _SPELLING, break_on_hyphens=False)
    for i, text in enumerate(wrapped):
      lines.append(f"  {spelling if i == 0 else '':<{_SPELLING - 2}}{text}")
  return lines


def help_text(docstring: str, script: str) -> str:
  """Returns what --help prints.

  Args:
    docstring: of the command: what it does, then its examples. script: its path, by which its flags are known.
  """
  width = min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)
  own = [(_spelling(flag), _meaning(flag)) for flag in _own_flags(script)]
  if "config" in flags.FLAGS:
    own.append(("--config.GROUP.NAME=VALUE", "any setting of mtad_jax/config.py"))
  shared = [(_spelling(flags.FLAGS[name]), _meaning(flags.FLAGS[name])) for name in ("quiet", "verbose")]
  shared.append(("--helpfull", "this, with the flags of the libraries"))
  every = ["Of every command:", *_lines(shared, width)]
  return "\n".join([docstring.strip(), "", "Flags:", *_lines(own, width), "", *every])
