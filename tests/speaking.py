"""A toy that makes sounds of its own, a network that hears them, and a run.

As a program it is `python -m audiogen_jax.train` for that toy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import train_toy
from absl import app, flags
from toy import Toy

from audiogen_jax.convert import judges
from audiogen_jax.embedding.extractor import Heard
from audiogen_jax.embedding.protocols import Hearing, Measure, Protocol
from audiogen_jax.train import __main__ as training
from audiogen_jax.train import configuration

BANDS = 3


class Speaking(Toy):
  """The sounds of a batch at its gain, with noise of their seeds."""

  def generated(self, now, batch, seeds):
    gain = jnp.mean(now.average["gain"]) / 3

    def one(audio, seed):
      noise = jax.random.normal(jax.random.key(seed), audio.shape)
      return gain * audio + 0.01 * noise

    return jax.vmap(one)(batch["audio"], seeds)

  def recorded(self, now, batch):
    return batch["audio"]


class Fading(Speaking):
  """Quieter from step to step: best when it is judged for the first time."""

  def generated(self, now, batch, seeds):
    return batch["audio"] * 0.9 ** now.step.astype(jnp.float32)

  def eval_step(self, now, batch):
    rows = jnp.sum(batch["valid"])
    return {"distance": now.step * rows.astype(jnp.float32), "rows": rows}


@jax.jit
def _levels(windows):
  parts = windows.reshape(len(windows), BANDS, -1)
  levels = jnp.log(jnp.mean(jnp.square(parts), axis=2) + 1e-6)
  return jnp.pad(levels, ((0, 0), (0, 1)), constant_values=4)


class Ear:
  """Hears how loud windows of 0.6 s are; louder is what captions ask for."""

  name, sample_rate_hz, sha256 = "ear", 100, ""

  def embed(self, sounds):
    heard = []
    for sound in sounds:
      windows = sound[: len(sound) // 60 * 60].reshape(-1, 60)
      heard.append(Heard(np.asarray(_levels(windows))))
    return heard

  def embed_texts(self, texts):
    return np.tile(np.float32([1] * BANDS + [0]), (len(texts), 1))


def load(name, weights=None):
  """In place of `judges.load`."""
  return Ear()


PLAIN = Protocol(
  "plain",
  "nobody's",
  {"ear": Hearing("ear", "soxr_vhq")},
  (
    Measure("fad", "FAD, ear", "frechet", "ear"),
    Measure("kid", "KID, ear", "kid", "ear"),
    Measure("clap", "CLAP, ear", "clap", "ear", more_is_better=True),
  ),
)


if __name__ == "__main__":
  judges.load = load
  configuration.TASKS["toy"] = Speaking
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(training.main, flags_parser=training.parse_flags)

get_config = train_toy.get_config
