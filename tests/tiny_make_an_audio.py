"""A Make-An-Audio so small that tests make many of it, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import (
  Tokenizer,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from audiogen_jax.convert import engine, openclip
from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.diffusion import unet
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap, clip
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text.clip import ClipConfig, ClipTextConfig
from audiogen_jax.text.clip_image import ClipImageConfig
from audiogen_jax.text.clip_layers import TransformerConfig
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import VocoderConfig

_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = "a the dog barks rain falls thunder rooster crows wind".split()
UNET = UNetConfig(
  filters=32, residual_layers=1, attention=(1,), heads=2, context_width=32
)
LOOKS = UNetConfig(
  filters=32,
  residual_layers=1,
  attention=(1,),
  heads=0,
  head_size=32,
  context_width=128,
  known_by_time=True,
)
HOLES = UNetConfig(
  filters=32,
  residual_layers=1,
  attention=(1,),
  heads=2,
  context_width=0,
  beside=5,
  resample="residual",
)


def clip_config(width=128):
  """CLIP of one layer each, whose embeddings have this width."""
  return ClipConfig(
    ClipImageConfig(TransformerConfig(64, 1, 1, 64), width, image=28, patch=14),
    ClipTextConfig(TransformerConfig(64, 1, 1, 64), width, 300, length=9),
  )


def open_clip(width=128):
  """Tensors of a random CLIP, as OpenCLIP names them."""
  config, random = clip_config(width), np.random.default_rng(0)
  return openclip.tensors(config, _random(clip.init, config, random))


def words(limit=77):
  """BERT's rules with a handful of words."""
  pieces = {word: i for i, word in enumerate([*_MARKS, *_WORDS])}
  rules = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
  rules.normalizer = normalizers.BertNormalizer()
  rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  rules.add_special_tokens(_MARKS)
  rules.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
  return WordPieces(rules, limit=limit)


def parts(net=UNET, seed=0):
  """A model with random weights."""
  random = np.random.default_rng(seed)
  latent = AutoencoderConfig(
    filters=32, multipliers=(1, 1, 1, 1), residual_layers=1, attention=(3,),
    scale=0.8,
  )  # fmt: skip
  sound = VocoderConfig(
    filters=64, kernels=(3,), dilations=((1, 3),), paired=False
  )
  bert = BertConfig(
    vocabulary=len(_MARKS + _WORDS), positions=77, first_position=0, kinds=2,
    padding=0, epsilon=1e-12, width=32, layers=1, heads=2, ff=32,
  )  # fmt: skip
  tower = ClapTextConfig(bert=bert, width=32)
  reads = net.context_width == tower.width
  looks = clip_config() if net.known_by_time else None
  return Parts(
    schedule=Schedule(),
    unet=net,
    unet_tree=_random(unet.init, net, random),
    autoencoder=latent,
    autoencoder_tree=_random(autoencoder.init, latent, random),
    vocoder=sound,
    vocoder_tree=_random(generator.init, sound, random),
    text=tower if reads else None,
    text_tree=_random(clap.init, tower, random) if reads else None,
    clip=looks,
    clip_tree=looks and _random(clip.init, looks, random),
    window_s=2.048,
  )


def _random(init, config, random):
  """Parameters of a room, none of which is zero, as at first some would be."""

  def one(path, leaf):
    name, made = str(path[-1].key), random.standard_normal(leaf.shape)
    if name == "scale":
      made = 1 + 0.1 * made
    elif name == "kernel_g":  # loud vocoders amplify rounding
      made = 0.75 + 0.05 * made
    elif name in ("bias", "alpha", "beta"):
      made = 0.1 * made
    else:
      made = made / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
    return jnp.asarray(made, jnp.float32)

  return jax.tree_util.tree_map_with_path(one, engine.abstract(init, config))
