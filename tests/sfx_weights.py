"""Tiny random weights of the sound effects network, as its package has them."""

import dataclasses

import numpy as np

from audiogen_jax.convert import judges, torch_file

CHANNELS = 3, 4, 5, 6


def state(channels=CHANNELS, seed=0):
  numbers = np.random.default_rng(seed)
  made, width = {}, 1
  for block, out in enumerate(channels, 1):
    start = f"embedding_net.conv_block{block}."
    for layer in (1, 2):
      made[f"{start}conv{layer}.weight"] = numbers.normal(
        scale=(4.5 * width) ** -0.5, size=(out, width, 3, 3)
      )
      made[f"{start}bn{layer}.weight"] = numbers.uniform(0.5, 2, out)
      made[f"{start}bn{layer}.bias"] = numbers.normal(size=out)
      made[f"{start}bn{layer}.running_mean"] = numbers.normal(size=out)
      made[f"{start}bn{layer}.running_var"] = numbers.uniform(0.5, 2, out)
      width = out
  return {name: value.astype(np.float32) for name, value in made.items()}


def write(path, tensors=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  tensors = state() if tensors is None else tensors
  torch_file.write(path, (tensors, {"library": (0, 3)}))
  return path


def passing(folder, monkeypatch):
  """A folder with tiny weights that pass for the published ones."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
  path = write(folder / "weights" / judges.WEIGHTS["sfx"].file)
  known = judges.find("sfx", folder / "weights")
  assert known.path == path
  changed = dataclasses.replace(judges.WEIGHTS["sfx"], sha256=known.sha256)
  monkeypatch.setattr(
    judges, "WEIGHTS", dict(judges.WEIGHTS) | {"sfx": changed}
  )
  return folder / "weights"
