"""Checksums of a training state, per leaf and machine, and the names of its leaves.

Neither Orbax nor the array format under it notices a flipped byte: CRC-32 of every machine's part of every
leaf is written beside the arrays and compared whenever they are read.
"""

import json
import zlib
from typing import Any

import jax
import numpy as np


def leaf_names(tree: Any) -> dict[str, Any]:
  """Returns {leaf name: leaf}; a name is the path joined by dots, as Orbax names the arrays on disk.

  Raises:
    ValueError: a key of the tree holds a dot itself, so that two leaves could share a name.
  """
  named = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if name.count(".") != len(path) - 1:
      raise ValueError(f"state: the key {name!r} holds a dot, which separates the keys in a leaf's name")
    named[name] = leaf
  return named


def nest(named: dict[str, Any]) -> dict[str, Any]:
  """Returns nested dicts from {name with dots: leaf}: the inverse of `leaf_names` for dicts."""
  tree: dict[str, Any] = {}
  for name, leaf in named.items():
    *branches, last = name.split(".")
    node = tree
    for branch in branches:
      node = node.setdefault(branch, {})
    node[last] = leaf
  return tree


def describe(named: dict[str, Any]) -> dict[str, list[Any]]:
  """Returns {leaf name: [shape, dtype]}, ready for JSON."""
  return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named.items()}


def lane_checksums(array: np.ndarray) -> list[str]:
  """Returns the CRC-32 of every machine's bytes, in hexadecimal.

  Args:
    array: [M, ...], any dtype; C order counts, not the order in memory.
  """
  lanes = np.ascontiguousarray(array).reshape(array.shape[0], -1).view(np.uint8)  # [M, ...] -> [M, bytes]
  return [f"{zlib.crc32(lane.data):08x}" for lane in lanes]


def content_checksum(content: dict[str, Any]) -> str:
  """Returns the CRC-32 of JSON content, in hexadecimal; the order of the keys does not matter.

  Raises:
    ValueError: NaN or infinity, which JSON does not have.
  """
  text = json.dumps(content, sort_keys=True, allow_nan=False)
  return f"{zlib.crc32(text.encode()):08x}"
