"""The pages hold what they promise: links lead somewhere; scripts, flags, settings and files that they name exist."""

import dataclasses
import re
import subprocess
import sys

import doc_pages
import pytest
from doc_pages import PAGES, ROOT, anchors, broken_links, commands, known_flags

from mtad_jax.alerts.schema import MIGRATIONS
from mtad_jax.config import Config
from mtad_jax.detect.tables import SCHEMAS

_SCRIPTS = ROOT / "scripts"
_SETTINGS = {
  f"{group.name}.{field.name}"
  for group in dataclasses.fields(Config)
  for field in dataclasses.fields(getattr(Config(), group.name))
}
# the original program's, and what the tutorial has its reader write
_OTHERS = {"prepare_data", "training", "make_fleet"}


def _wrong_flags(script: str, words: tuple[str, ...]) -> list[str]:
  """Returns the flags among a command's words that the script does not have."""
  known = known_flags(_SCRIPTS / f"{script}.py")
  wrong = []
  for word in words:
    if not (match := re.match(r"--([A-Za-z_][\w.]*)", word)):
      continue
    name = match[1]
    is_setting = name.startswith("config.") and "config" in known and name.removeprefix("config.") in _SETTINGS
    if name not in known and not is_setting:
      wrong.append(word)
  return wrong


def test_there_are_pages():
  assert {"README.md", "tutorial.md", "thresholds.md", "formats.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_scripts_and_flags_that_exist(page):
  wrong = []
  for command in commands(page.read_text()):
    name = f"{command.script}.py"
    if (_SCRIPTS / name).exists():
      wrong += [f"{name} {flag}" for flag in _wrong_flags(command.script, command.words)]
    elif command.is_path or not (command.script in _OTHERS or (ROOT / "configs" / name).exists()):
      wrong.append(name)
  assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_files_exist(page):
  text = page.read_text()
  settings = set(re.findall(r"(?:--)?\bconfig\.([a-z]+\.[a-z_]+)", text)) - {"py"}
  assert sorted(settings - _SETTINGS) == []
  files = re.findall(r"\b(?:configs|scripts|tests|mtad_jax|docs)/[\w/]+\.(?:py|sh|md|png)\b", text)
  assert sorted(name for name in set(files) if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("table", SCHEMAS)
def test_formats_has_every_column(table):
  text = (ROOT / "docs" / "formats.md").read_text()
  section = text.split(f"## {table}.parquet")[1].split("\n## ")[0]
  assert [name for name in SCHEMAS[table].names if f"`{name}`" not in section] == []


def test_formats_has_every_column_of_the_ledger():
  section = (ROOT / "docs" / "formats.md").read_text().split("## ledger.sqlite")[1].split("\n## ")[0]
  statements = [line for version in MIGRATIONS for line in version if line.startswith("CREATE TABLE")]
  names = {name for line in statements for name in re.findall(r"\b([a-z_]+) (?:TEXT|INTEGER|REAL)\b", line)}
  assert len(names) > 20
  assert sorted(name for name in names if f"`{name}`" not in section) == []


def test_every_script_is_in_a_page():
  told = {command.script for page in PAGES for command in commands(page.read_text())}
  told |= set(re.findall(r"scripts/(\w+)\.py", "".join(page.read_text() for page in PAGES)))
  there = {path.stem for path in _SCRIPTS.glob("*.py") if "__main__" in path.read_text()}
  assert sorted(there - told - {"benchmark_side_jax", "benchmark_side_torch"}) == []


def test_pictures_are_small_and_have_alternative_texts():
  used = set()
  for page in PAGES:
    for text, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text()):
      assert len(text) > 20, f"{page.name}: {target} needs a text for those who do not see it"
      used.add((page.parent / target).resolve())
  there = {path.resolve() for path in (ROOT / "docs" / "pictures").glob("*")}
  assert used == there
  assert all(path.stat().st_size < 200_000 for path in there)


def test_the_flags_read_are_those_that_the_program_lists():
  done = subprocess.run(
    [sys.executable, str(_SCRIPTS / "report.py"), "--help"], capture_output=True, text=True, timeout=60, check=False
  )
  listed = set(re.findall(r"^  --(?:\[no\])?(\w+)", done.stdout, re.MULTILINE))
  assert {"workdir", "scores", "output"} <= listed & known_flags(_SCRIPTS / "report.py")
  assert {"config", "warm_start", "exclude"} <= known_flags(_SCRIPTS / "train.py")
  assert {"cold_start", "nocontext"} <= known_flags(_SCRIPTS / "score.py")
  assert "cold_start" not in known_flags(_SCRIPTS / "train.py")


# The checks find what they are for.


@pytest.mark.parametrize(
  ("text", "broken"),
  [
    ("[a](other.md)", []),
    ("[a](other.md#what-it-is-1)", []),
    ("[a](#here)\n\n# Here", []),
    ("[a](https://example.org/none)", []),
    ("[a](none.md)", ["none.md"]),
    ("[a](other.md#none)", ["other.md#none"]),
    ("![a](pictures/none.png)", ["pictures/none.png"]),
    ("[a](#in-code)\n\n```\n# In code\n```", ["#in-code"]),
    ("`[a](none.md)`", []),
  ],
)
def test_a_broken_link_is_found(tmp_path, text, broken):
  (tmp_path / "other.md").write_text("# What it is\n\n## What, it is?\n")
  page = tmp_path / "page.md"
  page.write_text(text)
  assert broken_links(page) == broken


def test_headings_are_named_as_github_does():
  text = "# How a row's score is made\n## `a.json` and b\n## `a.json` and b\n### The [x](y.md) of z\n"
  assert anchors(text) == {"how-a-rows-score-is-made", "ajson-and-b", "ajson-and-b-1", "the-x-of-z"}


def test_commands_are_read_from_blocks_and_spans():
  text = (
    "Run `train.py --warm_start=A` or `python scripts/score.py\n--workdir=B`; `a.py`'s own is `--no`.\n\n"
    "```\n# 1. a note\nA=1 python scripts/train.py --config=c \\\n    --workdir='x y'   # why\n```\n\n"
    "    bash scripts/demo.sh   # set-up\n"
  )
  assert [(c.script, c.words, c.is_path) for c in commands(text)] == [
    ("train", ("--config=c", "--workdir=x y"), True),
    ("train", ("--warm_start=A",), False),
    ("score", ("--workdir=B",), True),
    ("a", (), False),
  ]


def test_wrong_flags_are_found():
  words = ("--workdir=A", "--config.train.batch_size=1", "--config.train.none=1", "--none", "-x", "word")
  assert _wrong_flags("train", words) == ["--config.train.none=1", "--none"]
  assert _wrong_flags("report", words) == ["--config.train.batch_size=1", "--config.train.none=1", "--none"]
  assert doc_pages.known_flags(_SCRIPTS / "annotate.py") >= {"workdir", "author", "comment"}
