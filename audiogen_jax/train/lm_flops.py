"""What training a language model asks for, whatever a program makes of it."""

from audiogen_jax.lm import patterns
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.train.lm_sources import TextConfig


def of_row(lm: LMConfig, text: TextConfig, frames: int) -> float:
  """Operations of a training step for one row: `of_steps` of its pattern."""
  layout = patterns.layout(lm.pattern, lm.codebooks, frames)
  return of_steps(lm, text, layout.trained - 1, heads=lm.codebooks)


def of_steps(
  lm: LMConfig, text: TextConfig, steps: int, *, heads: int
) -> float:
  """Operations of a training step for one row of a batch, none done twice.

  Two for each multiplication and addition of a matrix product.  Each product
  is done forward, and backward twice: for what it read and for its weights (the
  text's projection for its weights alone, if the text encoder is frozen).
  Attention scores are counted in full, as they are computed, though half of
  them are masked; embeddings are looked up and cost nothing.  Codec and text
  encoder are no part of the model.

  Args:
    lm: The model, all of whose parameters are trained.
    text: The text encoder.
    steps: That the model reads.
    heads: Codebooks whose logits are computed.
  """
  parts = forward(lm, steps, text.length, heads)
  total = 3 * sum(parts.values())
  if not text.trained:
    total -= parts["text projection"]
  return float(total)


def forward(lm: LMConfig, steps: int, text: int, heads: int) -> dict[str, int]:
  """Operations of one row, forward, by part.

  Args:
    lm: The model.
    steps: That it reads.
    text: Tokens of the text.
    heads: Codebooks whose logits are computed.
  """
  t = lm.transformer
  d = t.width
  places = steps + (text if lm.prepend_text else 0)
  layer = {
    "self-attention": 2 * places * 4 * d * d,
    "scores of self-attention": 4 * places * places * d,
    "feed-forward": 2 * places * 2 * d * t.ff,
  }
  if t.cross_attention:
    # Keys and values once for each token of the text, not for each step.
    layer["cross-attention"] = 2 * places * 2 * d * d + 2 * text * 2 * d * d
    layer["scores of cross-attention"] = 4 * places * text * d
  return {name: t.layers * count for name, count in layer.items()} | {
    "heads": 2 * steps * heads * d * lm.size,
    "text projection": 2 * text * lm.text_width * d,
  }
