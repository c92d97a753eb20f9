"""Where parity packs lie: what the published code computed, and from what."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.convert import engine, make_an_audio

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


def arrays(path):
  """What a file of numpy holds, by name; it is closed again."""
  with np.load(path) as held:
    return dict(held)


def realised(tree):
  """Lazy arrays -> arrays."""
  return engine.realise(tree, lambda _, lazy: jnp.asarray(lazy.read()))


def ours(theirs):
  """Published images `… c h w` as ours, time first: `… w h c`."""
  return np.moveaxis(np.asarray(theirs), (-1, -2, -3), (-3, -2, -1))


def theirs(ours):
  """Our images as published."""
  return np.moveaxis(np.asarray(ours), (-3, -2, -1), (-1, -2, -3))


def close(got, want, atol):
  """Two arrays of one shape, each difference at most `atol`."""
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, rtol=0, atol=atol)


class MakeAnAudio:
  """A checkpoint of Make-An-Audio, and what the reference made with it."""

  def __init__(self, name, checkpoint, settings, **options):
    self.folder = folder(name)
    self.want = arrays(self.folder / "expected.npz")
    (self.file,) = (self.folder / "useful_ckpts").glob(checkpoint)
    parts = make_an_audio.read(self.file, self.folder / settings, **options)
    # As read: the trees become arrays.
    self.parts = parts._replace(
      unet_tree=realised(parts.unet_tree),
      autoencoder_tree=realised(parts.autoencoder_tree),
      text_tree=parts.text_tree and realised(parts.text_tree),
    )

  def of(self, *names):
    """Images of the pack, in our layout."""
    return [jnp.asarray(ours(self.want[name])) for name in names]
