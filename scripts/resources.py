"""The cores and the memory that a process has from its host. Standard library alone."""

import ctypes
import os
import platform
import resource
import sys

ALLOCATOR = (
  "MALLOC_",
  "LD_PRELOAD",
  "TCMALLOC_",
  "PYTORCH_",
  "XLA_",
  "OMP_",
  "MKL_",
  "KMP_",
  "GOMP_",
  "TORCH_",
)
# glibc's numbers for mallopt (malloc.h)
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
  """Keeps freed memory in the process, where the C library is glibc; elsewhere does nothing.

  By default every array of some MiB is mapped afresh and given back, and a training step on the CPU touches all of
  its pages for the first time, every time. The process stays as large as its largest step.
  """
  if platform.libc_ver()[0] != "glibc":
    return
  libc = ctypes.CDLL(None)
  for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
    libc.mallopt(parameter, value)


def resident_peak() -> int:
  """Returns the most memory this process has held, in bytes.

  Linux's own figure where there is one: getrusage's also counts the parent's size from before the exec.
  """
  try:
    with open("/proc/self/status") as status:
      return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
  except (OSError, StopIteration):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def allocator_settings() -> dict[str, str]:
  """Returns the variables of the environment that set allocators and threads; they move figures by two times."""
  return {name: value for name, value in sorted(os.environ.items()) if name.startswith(ALLOCATOR)}


def num_cores() -> int:
  """Returns how many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
