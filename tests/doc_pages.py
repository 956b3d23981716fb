"""README.md and docs/*.md as a reader follows them: headings, links, commands; and the flags that scripts have.

Nothing is run or imported: flags are read from the scripts' source, so that a check of all pages takes a second.
"""

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PROGRAM = re.compile(r"(?:scripts/)?([a-z_]+)\.py")


class Command(NamedTuple):
  """One call of a script as a page writes it. is_path: it is named by scripts/, not by its file name alone."""

  script: str
  words: tuple[str, ...]
  is_path: bool


def prose(text: str) -> str:
  """Returns a page without its blocks of code."""
  return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
  """Returns what #fragments lead to in a page, as GitHub names headings."""
  found: set[str] = set()
  for heading in re.findall(r"^#+ +(.+?) *#*$", prose(text), re.MULTILINE):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    base = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
    number = 0
    while (name := f"{base}-{number}" if number else base) in found:
      number += 1
    found.add(name)
  return found


def broken_links(page: Path) -> list[str]:
  """Returns the relative links of a page that lead nowhere: no file, or no such heading in it."""
  broken = []
  for target in _LINK.findall(_SPAN.sub("", prose(page.read_text()))):
    if re.match(r"[a-z]+:", target):
      continue
    path, _, fragment = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists() or (fragment and fragment not in anchors(file.read_text())):
      broken.append(target)
  return broken


def _lines(text: str) -> Iterator[str]:
  """Yields every line of a page's code, continued lines as one, then every span of code in its prose."""
  for block in _FENCE.findall(text):
    yield from re.sub(r"\\ *(#.*)?\n", " ", block).splitlines()
  yield from re.findall(r"^    (\S.*)$", prose(text), re.MULTILINE)  # a block by indentation
  yield from (" ".join(span.split()) for span in _SPAN.findall(prose(text)))


def commands(text: str) -> list[Command]:
  """Returns the calls of scripts in a page, in blocks and spans of code: as the first word, or after python."""
  found = []
  for line in _lines(text):
    try:
      words = shlex.split(line, comments=True)
    except ValueError:  # a quote that does not end: no command line
      continue
    for place, word in enumerate(words):
      if match := _PROGRAM.fullmatch(word):
        before = words[:place]
        if all(w.endswith(("python", "python3")) or "=" in w or w == "srun" for w in before):
          found.append(Command(match[1], tuple(words[place + 1 :]), word.startswith("scripts/")))
        break
  return found


def _flags_in(node: ast.AST) -> set[str]:
  names = set()
  for call in ast.walk(node):
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr.startswith("DEFINE_"):
      kind, first = call.func.attr, call.args[0]
      if isinstance(first, ast.Constant):
        names |= {str(first.value), f"no{first.value}"} if kind == "DEFINE_bool" else {str(first.value)}
  return names


def _imported(tree: ast.Module, folder: Path) -> dict[str, Path]:
  """Returns the modules beside a script that it imports, by name."""
  names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
  names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
  return {name: folder / f"{name}.py" for name in names if (folder / f"{name}.py").exists()}


@functools.cache
def known_flags(script: Path) -> frozenset[str]:
  """Returns the flags that a script takes: its own, those of modules beside it, those of their functions it calls."""
  tree = ast.parse(script.read_text())
  called = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
  found = _flags_in(tree) | {"help"}
  for path in _imported(tree, script.parent).values():
    for node in ast.parse(path.read_text()).body:
      if not isinstance(node, ast.FunctionDef) or node.name in called:
        found |= _flags_in(node)
  return frozenset(found)
