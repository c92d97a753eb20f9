"""Where parity packs lie: what the published code computed, and from what."""

import os
from pathlib import Path

import jax.numpy as jnp
import pytest

from audiogen_jax.convert import engine

_GOLDEN = Path(__file__).parent / "golden"
_SHARED = Path(__file__).parents[2] / "shared" / "parity"


def folder(name: str, *inside: str) -> Path:
  """A pack, or a folder in it: of AUDIOGEN_PACKS, or where packs are kept.

  Packs that are not committed are skipped where they are not to be had.
  """
  named = os.environ.get("AUDIOGEN_PACKS")
  roots = [Path(named)] if named else [_GOLDEN, _SHARED]
  for root in roots:
    found = root.joinpath(name, *inside)
    if found.is_dir():
      return found
  pytest.skip(f"no pack {name} in {' or '.join(map(str, roots))}")


def realised(tree):
  """Lazy arrays -> arrays."""
  return engine.realise(tree, lambda _, lazy: jnp.asarray(lazy.read()))
