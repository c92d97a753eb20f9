"""Discriminators of the published layout, as they stand in a parity pack."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from audiogen_jax.gan.discriminators import DiscriminatorConfig

_LEAVES = {
  "weight": ("kernel", (2, 3, 1, 0)),  # out in h w -> h w in out
  "weight_v": ("kernel_v", (2, 3, 1, 0)),
  "weight_g": ("kernel_g", None),
  "bias": ("bias", None),
}


def adversary_of(reference, prefix="disc_init"):
  """Configuration and parameters of what lies under `prefix`."""
  found = collections.defaultdict(lambda: collections.defaultdict(dict))
  for name, value in reference.items():
    if not name.startswith(f"{prefix}/"):
      continue
    words = name.partition("/")[2].split(".")
    scale, leaf = int(words[1]), words[-1]
    conv = "conv_post" if words[2] == "conv_post" else f"conv_{words[3]}"
    ours, order = _LEAVES[leaf]
    value = value.transpose(order) if order else value.reshape(-1)
    found[f"scale_{scale}"][conv][ours] = jnp.asarray(value)
  found = jax.tree.map(
    lambda x: x, {k: dict(v) for k, v in sorted(found.items())}
  )
  kernel = found["scale_0"]["conv_0"]["kernel"]
  n_ffts = DiscriminatorConfig().n_ffts[: len(found)]
  config = DiscriminatorConfig(filters=int(np.shape(kernel)[-1]), n_ffts=n_ffts)
  return config, {"msstft": found}
