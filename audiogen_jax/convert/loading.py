"""The parts of a model -> what runs."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import engine, opening, placing
from audiogen_jax.convert.adapters import Adapters
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import types
from audiogen_jax.core.sharding import Placement
from audiogen_jax.lm import model
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.text import t5, tokenizer
from audiogen_jax.text.encoder import TextEncoder


def load_codec(
  source: str | Path, *, mesh: jax.sharding.Mesh | None = None
) -> Encodec:
  """The codec of an AudioGen or a MAGNeT, or a codec alone.

  Raises:
    InputError: If there is none, or it is damaged.
  """
  parts = opening.open_parts(source, family=None, need_text=False)
  return codec(parts, Placement.make(mesh))


def codec(parts: Parts, placement: Placement) -> Encodec:
  """The codec of a model's parts, on the devices of `placement`.

  Raises:
    InputError: If weights are damaged.
  """
  abstract = engine.abstract(encodec.init, parts.codec)
  variables = placing.realise(
    parts.codec_tree, abstract, encodec.AXES, placement
  )
  return Encodec(parts.codec, variables, placement)


def text_encoder(parts: Parts, placement: Placement) -> TextEncoder:
  """The text encoder of a model's parts, with its tokenizer.

  Raises:
    InputError: If weights or tokenizer are damaged.
  """
  abstract = engine.abstract(t5.init, parts.text)
  params = placing.realise(parts.text_tree, abstract, t5.AXES, placement)
  words = tokenizer.load(parts.tokenizer, rows=parts.text.vocabulary)
  return TextEncoder(parts.text, params, words, placement)


def language_model(
  parts: Parts,
  placement: Placement,
  dtype: jnp.dtype,
  adapters: Sequence[Adapters] = (),
) -> LanguageModel:
  """The language model of a model's parts, with adapters beside its weights.

  Raises:
    InputError: If weights are damaged, or not finite in `dtype`.
  """
  kind = types.float_of(dtype)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, kind),
    engine.abstract(model.init, parts.lm),
  )
  params = placing.realise(parts.lm_tree, abstract, model.AXES, placement)
  loaded = LanguageModel.of(
    parts.lm, model.unstack(params), dtype=dtype, placement=placement
  )
  if adapters:
    loaded.adapters = [
      (each.config, each.read(parts.lm, placement)) for each in adapters
    ]
    loaded.set_strengths([each.strength for each in adapters])
  return loaded
