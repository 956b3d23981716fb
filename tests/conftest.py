"""What every test shares: the CPU, strict rank promotion, and the real data where a copy can be found."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before the first import of jax
# Tests and the commands they start compile the same small programs again and again: they share a cache.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Tiny programs take ten times longer to compile than to run; LLVM's optimiser is half of that.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # as many devices on any machine

import subprocess
import sys
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

REAL_MACHINES = ("machine-1-1", "machine-2-1")


@pytest.fixture(scope="session")
def packed_data() -> Path:
  """The folder with the packed real data and all 28 label files of SMD; skips where no copy is at hand."""
  beside = Path(__file__).resolve().parents[2] / "shared" / "data"
  source = Path(os.environ.get("MTAD_REAL_DATA") or beside)
  if not (source / "unpack.py").is_file():
    pytest.skip(f"no unpack.py in {source}; MTAD_REAL_DATA names the folder with the packed real data")
  return source


@pytest.fixture(scope="session")
def real_data(packed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with ServerMachineDataset/ (two machines) and telemanom/."""
  out = tmp_path_factory.mktemp("real")
  command = [sys.executable, str(packed_data / "unpack.py"), str(out), "--machines", ",".join(REAL_MACHINES)]
  subprocess.run(command, check=True, capture_output=True)
  return out
