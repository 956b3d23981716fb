"""What one checkpoint's folder holds: the JSON beside the arrays, and the arrays, checked by their checksums.

Read with tensorstore, as Orbax does underneath: so a single branch or machine can be read alone, no process
waits for another, and no device is touched. Whatever is damaged on disk is told as CorruptCheckpoint.
"""

import json
import re
from typing import Any
from urllib.parse import quote

import numpy as np
import tensorstore as ts
from etils import epath

from mtad_jax.train.checksums import content_checksum, lane_checksums

FORMAT = 1
STATE, ABOUT = "state", "about"
_NEEDED = ("_CHECKPOINT_METADATA", f"{ABOUT}/metadata", f"{STATE}/_METADATA", f"{STATE}/manifest.ocdbt")
# tensorstore's errors begin with a code, but for that of invalid content. These ones, or none, mean damage;
# any other one (no permission, the network) does not.
_CODE = re.compile(r"[A-Z]+(_[A-Z]+)*: ")
_DAMAGE = ("DATA_LOSS: ", "NOT_FOUND: ", "FAILED_PRECONDITION: ", "OUT_OF_RANGE: ")


class CorruptCheckpoint(ValueError):
  """A checkpoint damaged on disk; a step before it may serve."""


def read_about(directory: epath.Path, step: int) -> dict[str, Any]:
  """Returns what was written beside a step's arrays, checked.

  Raises:
    CorruptCheckpoint: a file is missing, or the content is not what was written.
    ValueError: another version of the format.
  """
  folder, where = directory / str(step), f"{directory}: step {step}"
  for name in _NEEDED:
    if not (folder / name).exists():
      raise CorruptCheckpoint(f"{where}: {name} is missing")
  try:
    about = json.loads((folder / ABOUT / "metadata").read_bytes().decode())
  except ValueError as error:  # no JSON, or no UTF-8
    raise CorruptCheckpoint(f"{where}: {ABOUT}/metadata is not valid JSON ({error})") from None
  if not isinstance(about, dict):
    raise CorruptCheckpoint(f"{where}: {ABOUT}/metadata is not a JSON object")
  written = about.get("format")
  if isinstance(written, int) and written > FORMAT:
    raise ValueError(
      f"{where}: written by a newer version (format {written}, this reads {FORMAT}): update mtad_jax"
    )
  checksum = about.pop("checksum", None)
  if checksum is None:
    raise ValueError(
      f"{where}: written by an older version, without checksums (this reads format {FORMAT}): "
      "read it with that version, or train again in another folder"
    )
  if checksum != content_checksum(about):
    raise CorruptCheckpoint(f"{where}: {ABOUT}/metadata: checksum differs from the one written")
  return about


def read_leaves(
  directory: epath.Path, step: int, about: dict[str, Any], names: list[str], lane: int | None = None
) -> dict[str, np.ndarray]:
  """Returns {leaf name: array [M, ...]}, or of one machine alone [...]; every checksum holds.

  Args:
    about: the step's, from `read_about`. names: the leaves to read. lane: a machine's index; None: all.

  Raises:
    CorruptCheckpoint: naming the leaf, and for a checksum the machine.
    OSError: the disk or the store cannot be read at all.
  """
  folder = directory / str(step) / STATE
  context = ts.Context()  # its own: what is read comes from the disk, not from a cache
  arrays = {}
  opening = {name: ts.open(_spec(folder, name), read=True, context=context) for name in names}
  stores = {name: _result(opening[name], directory, step, name) for name in names}
  for name in names:
    shape, dtype = about["tree"][name]
    found = [list(stores[name].shape), stores[name].dtype.name]
    if found != [shape, dtype]:  # before the read: a damaged shape may ask for any amount of memory
      raise CorruptCheckpoint(
        f"{directory}: step {step}: leaf {name} is {found}, written was {[shape, dtype]}"
      )
  reading = {name: (stores[name] if lane is None else stores[name][lane]).read() for name in names}
  for name in names:
    read = _result(reading.pop(name), directory, step, name)
    arrays[name] = np.require(read, requirements="W")  # some share tensorstore's own memory, read-only
    wanted = about["checksums"][name]
    lanes = list(range(len(wanted))) if lane is None else [lane]
    values = arrays[name] if lane is None else arrays[name][None]
    for i, checksum in zip(lanes, lane_checksums(values), strict=True):
      if checksum != wanted[i]:
        machine = about["machines"][i]
        raise CorruptCheckpoint(
          f"{directory}: step {step}: leaf {name} of {machine}: checksum differs from the one written"
        )
  return arrays


def _spec(folder: epath.Path, name: str) -> dict[str, Any]:
  base = str(folder)
  store: Any = (
    quote(f"{base}/", safe="/:") if "://" in base else {"driver": "file", "path": f"{folder.resolve()}/"}
  )
  return {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": store}, "path": f"{name}/"}


def _result(future: ts.Future, directory: epath.Path, step: int, name: str) -> Any:
  """Returns a future's result; what tensorstore raises is told in a line."""
  try:
    return future.result()
  except ValueError as error:
    told = f"{directory}: step {step}: leaf {name} cannot be read: {short_reason(error)}"
    code = _CODE.match(str(error))
    raise (CorruptCheckpoint if code is None or code[0] in _DAMAGE else OSError)(told) from error


def short_reason(error: BaseException) -> str:
  """Returns what an error of the disk says, without the addresses in some library's source code."""
  text = " ".join(str(error).split())
  for known in ("No space left on device", "Read-only file system", "Permission denied"):
    if known in text:
      return known[0].lower() + known[1:]
  text = re.split(r" \[(?:source locations|tensorstore_spec)=", text)[0]
  return text if len(text) <= 200 else f"{text[:200]}..."
