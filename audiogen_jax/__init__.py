"""AudioGen (Kreuk et al., ICLR 2023) and MAGNeT (Ziv et al., ICLR 2024) in JAX.

    audio b n c -> Encodec.encode -> codes b k t
                                       |  patterns.interleave
                                     steps b k s
    sentences -> T5 -> Cond b l d ->  LM -> logits b k s v -> sample -> steps
                                       |  patterns.deinterleave
    audio b n c <- Encodec.decode <- codes b k t

Axis letters: `b` batch, `n` samples, `c` channels, `t` codec frames, `k`
codebooks, `s` LM steps, `l` text tokens, `d` width, `h` heads, `e` head size,
`f` feed-forward, `v` codebook size.  `audiogen.py` is the place to start
reading; what MAGNeT does otherwise says `magnet.py`.
"""

__version__ = "0.1.0"

_PUBLIC = {
  "AudioGen": "audiogen_jax.audiogen",
  "Diffusion": "audiogen_jax.diffusion.sampling",
  "Encodec": "audiogen_jax.codec.codec",
  "InputError": "audiogen_jax.core.errors",
  "MAGNeT": "audiogen_jax.magnet",
  "MakeAnAudio": "audiogen_jax.make_an_audio",
  "MaskedSampling": "audiogen_jax.lm.masked_sampling",
  "Sampling": "audiogen_jax.lm.sampling",
  "TextToAudio": "audiogen_jax.families",
  "load": "audiogen_jax.families",
  "load_codec": "audiogen_jax.convert.loading",
  "make_mesh": "audiogen_jax.core.sharding",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> object:
  """Imports a public name when it is first used."""
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  import importlib

  return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
  return sorted(__all__)
