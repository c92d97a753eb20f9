"""A Make-An-Audio so small that tests make many of it, with random weights."""

import jax
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.diffusion import unet
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import VocoderConfig

_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = "a the dog barks rain falls thunder rooster crows wind".split()
UNET = UNetConfig(
  filters=32, residual_layers=1, attention=(1,), heads=2, context_width=32
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
  """Random weights, larger than trained ones begin with: all of it counts."""
  keys = iter(jax.random.split(jax.random.key(seed), 4))
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
  reads = net.context_width > 0
  return Parts(
    schedule=Schedule(),
    unet=net,
    unet_tree=_spread(unet.init(net, next(keys)), seed),
    autoencoder=latent,
    autoencoder_tree=_spread(autoencoder.init(latent, next(keys)), seed),
    vocoder=sound,
    vocoder_tree=_spread(generator.init(sound, next(keys)), seed),
    text=tower if reads else None,
    text_tree=_spread(clap.init(tower, next(keys)), seed) if reads else None,
    window_s=2.048,
  )


def _spread(tree, seed):
  """Parameters, none of which is zero: output layers begin with zeros."""
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: x + 0.02 * random.standard_normal(x.shape).astype(np.float32),
    tree,
  )
