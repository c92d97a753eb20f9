"""A task that trains in a second: one gain, to make sounds louder."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from recordings import SPEC, dataset

from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.train import loop, state
from audiogen_jax.train.inputs import DataConfig
from audiogen_jax.train.loop import LoopConfig, RunConfig
from audiogen_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Toy:
  """Learns `gain`, with noise from the key so that keys matter."""

  lr: float = 20.0
  wide: int = 1

  best: ClassVar[str] = "distance"
  axes: ClassVar[dict] = {"params/gain": (None,), "extra/.*": ()}
  rate_hz: ClassVar[int] = SPEC.rate_hz
  wants: ClassVar[SoundSpec] = SPEC

  def opened(self):
    return self

  def tokenizer(self):
    return None

  def check_data(self, settings, folders):
    pass

  def batch_spec(self, rows, seconds):
    shape = (rows, round(seconds * self.rate_hz), 1)
    return {"audio": jax.ShapeDtypeStruct(shape, jnp.float32)}

  def check_parts(self):
    pass

  def model_flops(self, rows, seconds):
    return 6.0 * rows * round(seconds * self.rate_hz)

  def prepare_programs(self, state, batch, key, placement):
    return {}

  def sampling_programs(self, rows, placement):
    return {}

  def variants(self):
    return {"": self}

  def init(self, key):
    gain = jax.random.uniform(key, (self.wide,))
    zero = jnp.float32(0)
    extra = {"seen": zero, "prepared": zero}
    return TrainState(jnp.int32(0), {"gain": gain}, {}, extra, {"gain": gain})

  def prepare(self, state, batches, key):
    first = jnp.mean(next(batches)["audio"])
    return state._replace(extra=state.extra | {"prepared": first})

  def train_step(self, now, batch, key):
    audio = batch["audio"]
    noise = 0.01 * jax.random.normal(key)

    def loss(params):
      return jnp.mean(
        jnp.square(audio * (jnp.mean(params["gain"]) - 3 + noise))
      )

    value, gradient = jax.value_and_grad(loss)(now.params)
    params = jax.tree.map(lambda p, g: p - self.lr * g, now.params, gradient)
    seen = now.extra["seen"] + jnp.sum(audio)
    return TrainState(
      now.step + 1,
      params,
      {},
      now.extra | {"seen": seen},
      state.ema_step(now.average, params, 0.9),
    ), {"input_rms": jnp.sqrt(jnp.mean(jnp.square(audio))), "loss": value}

  def eval_step(self, now, batch):
    far = jnp.abs(jnp.mean(now.average["gain"]) - 3)
    rows = jnp.sum(batch["valid"])
    return {"distance": far * rows, "rows": rows}

  def summary(self, sums):
    return {"distance": float(sums["distance"] / sums["rows"])}

  def samples(self, now, batch):
    return {"louder": batch["audio"] * jnp.mean(now.average["gain"])}

  def export(self, now, folder):
    if jax.process_index() == 0:
      folder.mkdir()
      (folder / "gain.txt").write_text(str(np.asarray(now.average["gain"])))


def data(folder):
  """Forty sounds to train on and to hold out."""
  return dataset(folder, range(200, 240), splits=("train", "validation"))


def run_of(folder, **options) -> RunConfig:
  """Twelve steps, evaluated and saved at every fourth."""
  loops = {"log_every": 2, "eval_every": 4, "save_every": 4}
  return RunConfig(
    LoopConfig(**{"steps": 12} | loops | options),
    DataConfig(str(folder), batch=8, eval_batch=8, eval_duration_s=2.0),
    mesh={"data": 1},
  )


def train(workdir, folder, task=None, **options):
  return loop.train(run_of(folder, **options), task or Toy(), str(workdir))


def same(one, other) -> None:
  """Bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, one, other)
