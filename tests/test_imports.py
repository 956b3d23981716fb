"""The direction of imports, read from the source: config <- data <- ... <- report <- scripts.

Every import statement counts, those inside functions too.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["config_limits", "config_choices", "config", "config_presets", "data", "model", "train", "roles", "detect"]
ORDER += ["explain", "evaluate", "alerts", "report", "library"]
YARDSTICK = ("scripts.torch_network", "scripts.benchmark_side_torch")  # may import torch, and needs nothing of ours
NEVER = ("tensorflow", "tensorflow_probability", "clu", "distrax", "torch", "pickle", "cloudpickle", "dill")
WITHOUT_JAX = ("evaluate", "alerts", "report")

PACKAGE_FILES = sorted((ROOT / "mtad_jax").rglob("*.py"))
CONFIG_FILES = sorted((ROOT / "configs").glob("*.py"))
SCRIPT_FILES = sorted((ROOT / "scripts").glob("*.py"))


def module_name(path: Path) -> str:
  """Returns the dotted name of a source file: mtad_jax/data/load.py is mtad_jax.data.load."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, is_package: bool = False) -> list[tuple[int, str]]:
  """Returns (line, dotted name) of everything a source imports; relative names are made absolute.

  `from a import b` gives both a and a.b, since b may be a module.
  """
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found += [(node.lineno, alias.name) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
        base = ".".join([*parents, *([base] if base else [])])
      found.append((node.lineno, base))
      found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
      argument = node.args[0] if node.args else None
      name = argument.value if isinstance(argument, ast.Constant) else "an import by a computed name"
      found.append((node.lineno, str(name)))
  return found


def imports_of(path: Path) -> list[tuple[int, str]]:
  return imported(path.read_text(), module_name(path), is_package=path.name == "__init__.py")


def stage(name: str) -> str | None:
  """Returns the stage of a dotted name: mtad_jax.data.load is in data; None outside the package."""
  parts = name.split(".")
  return parts[1] if parts[0] == "mtad_jax" and len(parts) > 1 else None


def wrong_way(module: str, names: list[tuple[int, str]]) -> list[str]:
  """Returns a line for every import that `module` must not have."""
  here = stage(module)
  wrong = []
  for line, name in names:
    there = stage(name)
    if module == "mtad_jax" and there == "library":
      continue  # its public names, brought only when one is asked for; tests/test_library.py holds it to that
    outside = name.split(".")[0] in ("scripts", "configs", "program")
    later = there in ORDER and (here not in ORDER or ORDER.index(there) > ORDER.index(here))
    if outside or later:
      wrong.append(f"{module}:{line} imports {name}")
  return wrong


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=module_name)
def test_package_imports_only_what_stands_before_it(path: Path) -> None:
  module = module_name(path)
  if module == "mtad_jax":  # the public names, brought when they are asked for
    assert {stage(name) for _, name in imports_of(path)} <= {None, "library"}
    return
  assert stage(module) in ORDER, f"{module} stands in no stage of {ORDER}"
  assert wrong_way(module, imports_of(path)) == []


def test_the_package_itself_brings_no_jax() -> None:
  code = "import sys, mtad_jax; print('jax' in sys.modules, sorted(mtad_jax.__all__))"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.split(None, 1) == ["False", "['LinearForecast', 'MTADGAT', 'RoleMixture', 'load']\n"]


@pytest.mark.parametrize("path", CONFIG_FILES, ids=module_name)
def test_configs_import_config_only(path: Path) -> None:
  stages = {stage(name) for _, name in imports_of(path)} - {None}
  assert stages <= {"config", "config_presets"}
  assert not [name for _, name in imports_of(path) if name.split(".")[0] in ("scripts", "program", "jax")]


def test_one_module_imports_orbax() -> None:
  owners = [
    module_name(path)
    for path in [*PACKAGE_FILES, *CONFIG_FILES, *SCRIPT_FILES]
    if any(name.split(".")[0] == "orbax" for _, name in imports_of(path))
  ]
  assert len(owners) <= 1, f"orbax is imported by {owners}; one module of mtad_jax/train speaks to it"
  assert all(stage(owner) == "train" for owner in owners)


@pytest.mark.parametrize("path", [*PACKAGE_FILES, *CONFIG_FILES, *SCRIPT_FILES], ids=module_name)
def test_never_imported(path: Path) -> None:
  never = set(NEVER) - ({"torch"} if module_name(path) in YARDSTICK else set())
  found = [f"line {line}: {name}" for line, name in imports_of(path) if name.split(".")[0] in never]
  assert found == []


@pytest.mark.parametrize("module", YARDSTICK)
def test_the_yardstick_runs_where_only_torch_is_installed(module: str) -> None:
  allowed = {*sys.stdlib_module_names, "torch", "numpy", "torch_network", "benchmark_protocol", "resources"}
  names = imports_of(ROOT / f"{module.replace('.', '/')}.py")
  assert {name.split(".")[0] for _, name in names} <= allowed


@pytest.mark.parametrize("package", WITHOUT_JAX)
def test_evaluation_and_report_run_without_jax(package: str) -> None:
  """Not by way of another module either: figures are made on machines that have no accelerator set up."""
  modules = {module_name(path): path for path in PACKAGE_FILES}
  todo = [name for name in modules if stage(name) == package]
  seen: dict[str, str] = dict.fromkeys(todo, "")
  while todo:
    module = todo.pop()
    for line, name in imports_of(modules[module]):
      chain = f"{seen[module]} {module}:{line} imports {name}"
      assert name.split(".")[0] not in ("jax", "flax", "optax"), chain
      if name in modules and name not in seen:
        seen[name] = f"{seen[module]} {module} ->"
        todo.append(name)


def test_sources_were_found() -> None:
  assert len(PACKAGE_FILES) > 10
  assert SCRIPT_FILES


def test_the_reader_of_imports_sees_every_form() -> None:
  source = """
import os.path
from mtad_jax.report import page
from .. import train
from . import gaps
def inside():
  from ..evaluate.metrics import average_precision
  import importlib
  importlib.import_module("torch")
"""
  names = {name for _, name in imported(source, "mtad_jax.data.load")}
  assert names == {
    "os.path",
    "mtad_jax.report",
    "mtad_jax.report.page",
    "mtad_jax",
    "mtad_jax.train",
    "mtad_jax.data",
    "mtad_jax.data.gaps",
    "mtad_jax.evaluate.metrics",
    "mtad_jax.evaluate.metrics.average_precision",
    "importlib",
    "torch",
  }


def test_a_wrong_direction_is_told() -> None:
  assert wrong_way("mtad_jax.data.load", [(3, "mtad_jax.train.step")]) == [
    "mtad_jax.data.load:3 imports mtad_jax.train.step"
  ]
  assert wrong_way("mtad_jax.train.step", [(3, "mtad_jax.data.load"), (4, "mtad_jax.train.guard")]) == []
  assert wrong_way("mtad_jax", [(1, "mtad_jax.config")]) != []
  assert wrong_way("mtad_jax.train.step", [(9, "configs.smd")]) != []
