"""What a command that computes asks of its host first: memory kept, programs kept, all cores used."""

import os
import platform
import sys
import zlib
from pathlib import Path

import jax
from resources import keep_freed_memory, num_cores


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
  root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
  folder = root / "mtad_jax" / f"programs-{_processor()}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    print(f"warning: {folder}: compiled programs are not kept: {error.strerror}", file=sys.stderr)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))


def use_all_cores() -> None:
  """Makes every core this process may use a device, where the CPU computes; JAX_NUM_CPU_DEVICES goes before.

  One device runs a machine's small products on one core after another; with one device a core, machines (or, of few
  machines, the windows of a batch) are trained side by side. To be called before the first use of a device.
  """
  if "JAX_NUM_CPU_DEVICES" not in os.environ:
    jax.config.update("jax_num_cpu_devices", num_cores())


def prepare(*, is_alone: bool = True) -> None:
  """Does all of it; to be called before anything is computed.

  Args:
    is_alone: False where several processes, perhaps of one host, share the work: then each keeps one CPU device.
  """
  keep_freed_memory()
  keep_programs()
  if is_alone:
    use_all_cores()
