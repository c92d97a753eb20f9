"""What a language model is trained on: codes of sounds, and tokens of texts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core.sharding import constrain
from audiogen_jax.core.types import Tree
from audiogen_jax.train.state import Batch


def spec(
  config: EncodecConfig, *, cached: bool, rows: int, seconds: float, tokens: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of a batch, by name.

  Args:
    config: The codec.
    cached: Whether rows are codes, `codes b k t`, and not `audio b n c`.
    rows: Rows of the batch.
    seconds: Seconds of a row.
    tokens: Tokens of the text of a row, `text_ids b l` and `text_mask b l`.
  """
  if cached:
    frames = round(seconds * config.tokens.frame_rate_hz)
    shape = (rows, config.tokens.codebooks, frames)
    sound = {"codes": jax.ShapeDtypeStruct(shape, jnp.int32)}
  else:
    shape = (rows, round(seconds * config.sample_rate_hz), config.channels)
    sound = {"audio": jax.ShapeDtypeStruct(shape, jnp.float32)}
  return sound | {
    "text_ids": jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
    "text_mask": jax.ShapeDtypeStruct((rows, tokens), jnp.bool_),
  }


def codes(
  config: EncodecConfig, codec: Tree, batch: Batch
) -> Int[Array, "b k t"]:
  """The codes of a batch, those that are cached or those of its sound.

  Where a cached row has ended its codes are negative; here they are the size of
  a codebook, which stands for no code.

  Args:
    config: The codec.
    codec: Its frozen parameters and codebooks.
    batch: As in `spec`.
  """
  if "codes" in batch:
    return jnp.where(batch["codes"] < 0, config.tokens.size, batch["codes"])
  audio = constrain(batch["audio"], "batch", None, None)
  length = jnp.full(audio.shape[0], audio.shape[1], jnp.int32)
  found, _ = encodec.encode(config, codec, audio, length)
  return jax.lax.stop_gradient(found)
