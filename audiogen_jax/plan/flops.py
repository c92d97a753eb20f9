"""What training a model asks for, whatever a program makes of it."""

from audiogen_jax.lm import patterns
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.task import Task


def of_step(task: Task, rows: int, seconds: float) -> float:
  """Operations of a training step, none done twice; 0 if that is not known.

  Two for each multiplication and addition of a matrix product.  Each product
  is done forward, and backward twice: for what it read and for its weights (the
  text's projection for its weights alone, if the text encoder is frozen).
  Attention scores are counted in full, as they are computed, though half of
  them are masked; embeddings are looked up and cost nothing.  Codec and text
  encoder are no part of the model.  Known of language models whose parameters
  are all trained.

  Args:
    task: What is trained.
    rows: Of the batch.
    seconds: Of each row.
  """
  if not isinstance(task, LMTask) or task.lora.rank:
    return 0.0
  frames = task.encodec.tokens.frames(seconds)
  layout = patterns.layout(task.lm.pattern, task.lm.codebooks, frames)
  text = task.text.length
  parts = forward(task, layout.trained - 1, text)
  total = 3 * sum(parts.values())
  if not task.text.trained:
    total -= parts["text projection"]
  return float(rows * total)


def forward(task: LMTask, steps: int, text: int) -> dict[str, int]:
  """Operations of one row, forward, by part.

  Args:
    task: What is trained.
    steps: That the model reads.
    text: Tokens of the text.
  """
  lm, t = task.lm, task.lm.transformer
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
    "heads": 2 * steps * lm.codebooks * d * lm.size,
    "text projection": 2 * text * lm.text_width * d,
  }
