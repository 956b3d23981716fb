"""What a command that computes asks of its host first: freed memory kept, compiled programs kept."""

import os
import platform
import sys
import tempfile
import zlib
from pathlib import Path

import jax
from resources import keep_freed_memory


def _processor() -> str:
  """Returns eight digits for this kind of processor: a program compiled for another may not run here."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = [platform.processor()]
  told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
  return f"{zlib.crc32(repr((platform.machine(), told)).encode()):08x}"


def keep_programs() -> None:
  """Keeps compiled programs for the next command: where JAX_COMPILATION_CACHE_DIR says, where it is set."""
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  root = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
  folder = root / "mtad_jax" / f"programs-{_processor()}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    told = f"warning: compiled programs are not kept: {folder}: {error.strerror}"
    print(f"{told}; JAX_COMPILATION_CACHE_DIR may name another folder", file=sys.stderr)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))


def prepare() -> None:
  """Does both; to be called before anything is computed.

  The CPU stays one device, whose products use all cores: with a device a core, XLA's threads have been seen to wait
  for one another for ever (jax 0.10.2, 7 machines of batch 256 on two devices of two cores).
  """
  keep_freed_memory()
  keep_programs()
