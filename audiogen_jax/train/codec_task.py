"""Training EnCodec (Défossez et al., 2022, §3) as AudioGen's codec was trained.

One step, in the order of the published code:

    audio -> encoder -> RVQ -> decoder -> fake         one forward pass, one vjp
    adversary: tell audio from fake, one update
    losses of `fake`: adversarial and feature (the updated adversary), L1, mel
      -> a gradient each with respect to `fake` -> balancer -> one gradient
    that and the commitment loss go back through the vjp: one update
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jaxtyping import Array, Float, Int

from audiogen_jax.audio import distances
from audiogen_jax.codec import encodec, layers, rvq, seanet, usage
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import Codebooks, Quantised, RVQTraining
from audiogen_jax.convert import opening
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import abstract, cost
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, constrain
from audiogen_jax.core.types import Tree
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.gan import balancer, discriminators
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.gan.losses import LossWeights
from audiogen_jax.train import codec_losses
from audiogen_jax.train import state as states
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.sounds_task import SoundsTask
from audiogen_jax.train.state import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class CodecTask(SoundsTask):
  """A codec to train: a `task.Task`, as `loop` calls it.

  Attributes:
    encodec: The codec.
    rvq: How its codebooks follow.
    adversary: Discriminators and their losses.
    weights: Weight of each loss; 0 leaves one out.
    balance_norm: Norm that the balanced gradient is brought to.
    balance_decay: Decay of the running norms of each loss's gradient.
    optim: Settings of both optimisers, the codec's and the adversary's.
    average_decay: Decay of the EMA that is evaluated and exported.
    init_gain: Of the codec's convolutions at the start, see `layers.amplify`;
      1 for the published start, biases and all.
    init_batches: Batches that k-means starts the codebooks from.
    precision: Precision of products and convolutions on accelerators; codes are
      always computed in float32.
  """

  encodec: EncodecConfig = EncodecConfig()
  rvq: RVQTraining = RVQTraining()
  adversary: DiscriminatorConfig = DiscriminatorConfig()
  weights: LossWeights = LossWeights()
  balance_norm: float = 1.0
  balance_decay: float = 0.999
  optim: OptimiserConfig = OptimiserConfig()
  average_decay: float = 0.99
  init_gain: float = 1.0
  init_batches: int = 4
  precision: Literal["default", "high", "highest"] = "default"

  best: ClassVar[str] = "mel_distance"

  def __post_init__(self) -> None:
    if self.encodec.stereo_codes or self.encodec.renormalise:
      raise InputError(
        "a codec is trained without stereo_codes and renormalise; both are"
        " ways to use a trained one"
      )
    if not any(dataclasses.astuple(self.weights)):
      raise InputError("all weights of losses are 0; there is nothing to learn")
    if self.init_gain != 1 and self.encodec.seanet.norm == "layer_norm":
      # Without biases silence has no variance: each layer norm makes its
      # gradient 316 times larger, and the first silent row ends the training.
      raise InputError(
        f"init_gain {self.init_gain:g} takes biases away, which layer norms"
        " need where a sound is silent; set init_gain to 1"
      )

  def opened(self) -> "CodecTask":
    """The task itself: a codec is described by its configuration alone."""
    return self

  @property
  def axes(self) -> Mapping[str, Any]:
    """Meanings of the axes of everything in `TrainState`, by path."""
    tables = {
      "params/codec/": {
        rule.removeprefix("params/"): axes
        for rule, axes in encodec.AXES.items()
        if rule.startswith("params/")
      },
      "params/adversary/": discriminators.AXES,
      "extra/codebooks/": {f"({k})": axes for k, axes in rvq.AXES.items()},
      "extra/balance/": {".*": ()},
    }
    return {
      prefix + rule: axes
      for prefix, table in tables.items()
      for rule, axes in table.items()
    }

  @property
  def rate_hz(self) -> int:
    """The codec's sample rate."""
    return self.encodec.sample_rate_hz

  @property
  def wants(self) -> SoundSpec:
    """What the rows of a dataset must hold."""
    return SoundSpec(self.rate_hz, self.encodec.channels)

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Shapes and types of a batch, by name, for so many rows and seconds."""
    samples = round(seconds * self.rate_hz)
    shape = (rows, samples, self.encodec.channels)
    return {"audio": jax.ShapeDtypeStruct(shape, jnp.float32)}

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; `prepare` fills its codebooks."""
    keys = jax.random.split(key)
    codec = encodec.init(self.encodec, keys[0])
    if self.init_gain != 1:
      codec["params"] = layers.amplify(codec["params"], self.init_gain)
    params = {
      "codec": codec["params"],
      "adversary": discriminators.init(self.adversary, keys[1]),
    }
    tx = self.optim.make()
    return TrainState(
      step=jnp.int32(0),
      params=params,
      optimiser={name: tx.init(params[name]) for name in params},
      extra={
        "codebooks": codec["codebooks"],
        "balance": balancer.init(self._balanced)._asdict(),
      },
      average=jax.tree.map(jnp.copy, codec),
    )

  def prepare(
    self,
    state: TrainState,
    batches: Iterator[Batch],
    key: jax.Array,
  ) -> TrainState:
    """Codebooks by k-means over the latents of some batches."""
    encode = jax.jit(self.latents)
    latents = [
      encode(state.params["codec"], next(batches)["audio"])
      for _ in range(self.init_batches)
    ]
    books = jax.jit(self.first_codebooks)(latents, key)
    return state._replace(
      extra=state.extra | {"codebooks": books},
      average=state.average | {"codebooks": jax.tree.map(jnp.copy, books)},
    )

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the discriminators, and one of the codec against them.

    Args:
      state: Of codec, discriminators, balancer and their optimisers.
      batch: `audio b n c`, at the codec's rate, in [-1, 1].
      key: For dead codebook entries and the dropout of codebooks.

    Returns:
      The new state, and scalar metrics by name.
    """
    audio = constrain(batch["audio"], "batch", None, None)
    books = state.extra["codebooks"]

    def generate(params):
      return self.generate(params, books, audio, key)

    with jax.default_matmul_precision(self.precision):
      codec = state.params["codec"]
      (fake, commitment), pull, coded = jax.vjp(generate, codec, has_aux=True)
      adversary, after, adversary_loss = codec_losses.update_discriminators(
        self.adversary,
        self.optim,
        state.params["adversary"],
        state.optimiser["adversary"],
        audio,
        fake,
      )
      values, gradients = codec_losses.with_gradients(
        self.adversary, adversary, self._balanced, audio, fake, self.rate_hz
      )
      balanced = balancer.balance(
        gradients,
        self._balanced,
        balancer.BalancerState(**state.extra["balance"]),
        total_norm=self.balance_norm,
        decay=self.balance_decay,
      )
      (gradient,) = pull((balanced.gradient, jnp.ones_like(commitment)))
    codec = state.params["codec"]
    updates, moments = self.optim.make().update(
      gradient, state.optimiser["codec"], codec
    )
    codec = optax.apply_updates(codec, updates)
    books = coded.codebooks._asdict()
    new = {"params": codec, "codebooks": books}
    fixed = jax.lax.stop_gradient(fake)
    # Distances first: balanced losses have no scale.
    metrics = {
      "input_rms": jnp.sqrt(jnp.mean(jnp.square(audio))),
      "mel_distance": jnp.mean(
        distances.mel_distance(audio, fixed, self.rate_hz)
      ),
      "si_snr_db": jnp.mean(distances.si_snr(audio, fixed, self.rate_hz)),
      **coded.metrics,
      "loss": sum(balanced.scales[name] * values[name] for name in values),
      **values,
      "commitment": commitment,
      "adversary": adversary_loss,
      "grad_norm": optax.tree.norm(gradient),
      **{f"ratio_{name}": x for name, x in balanced.ratios.items()},
    }
    return TrainState(
      step=state.step + 1,
      params={"codec": codec, "adversary": adversary},
      optimiser={"codec": moments, "adversary": after},
      extra={"codebooks": books, "balance": balanced.state._asdict()},
      average=states.ema_step(state.average, new, self.average_decay),
    ), metrics

  def generate(
    self,
    params: Tree,
    codebooks: Tree,
    audio: Float[Array, "b n c"],
    key: jax.Array,
  ) -> tuple[tuple[Float[Array, "b n c"], Float[Array, ""]], Quantised]:
    """Sound through the codec: ((fake, commitment), all about the codes)."""
    coded = rvq.train(
      self.latents(params, audio), Codebooks(**codebooks), key, self.rvq
    )
    return (
      self._decoded(params, coded.latents, audio.shape[1]),
      coded.commitment,
    ), coded

  def eval_step(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sums over rows, and how often each entry was chosen."""
    audio, valid = batch["audio"], batch["valid"]
    fake, codes = self._through(state.average, audio)
    rows = {
      "mel_distance": distances.mel_distance(audio, fake, self.rate_hz),
      "log_spectral_distance": distances.log_spectral_distance(audio, fake),
      "si_snr": distances.si_snr(audio, fake, self.rate_hz),
    }
    sums = {name: jnp.sum(x, where=valid) for name, x in rows.items()}
    chosen = jax.nn.one_hot(codes, self.encodec.rvq.size)
    counts = jnp.sum(chosen, axis=(0, 2), where=valid[:, None, None, None])
    return sums | {"counts": counts, "rows": jnp.sum(valid)}

  def summary(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over rows; usage and entropy of the codebooks."""
    sums = dict(sums)
    counts, rows = sums.pop("counts"), float(sums.pop("rows"))
    figures = {name: float(x) / rows for name, x in sums.items()}
    used, bits = usage.code_statistics(counts)
    for k, share in enumerate(used):
      figures[f"codebook_usage_{k}"] = float(share)
    frames = self.encodec.sample_rate_hz / self.encodec.hop
    figures["kbit_per_s"] = float(sum(bits)) * frames / 1000
    return figures

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sounds and what becomes of them."""
    fake, _ = self._through(state.average, batch["audio"])
    return {"original": batch["audio"], "reconstruction": fake}

  def model_flops(self, rows: int, seconds: float) -> float:
    """All of a step: no part of it is frozen, none is done twice."""
    key = jax.random.key(0)
    like = jax.eval_shape(self.init, key)
    return cost.flops(
      self.train_step, like, self.batch_spec(rows, seconds), key
    )

  def prepare_programs(
    self,
    state: TrainState,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    key: jax.ShapeDtypeStruct,
    placement: Placement,
  ) -> dict[str, Program]:
    """Latents of a batch, and the k-means over those of all."""
    codec, audio = state.params["codec"], batch["audio"]
    latents = jax.eval_shape(self.latents, codec, audio)
    latents = abstract.put(latents, placement, "batch", None, None)
    others = [latents] * (self.init_batches - 1)
    rest = state._replace(params=state.params | {"codec": ()})
    return {
      "prepare: latents": Program(
        jax.jit(self.latents), (codec, audio), resident=(rest, others)
      ),
      "prepare: k-means": Program(
        jax.jit(self.first_codebooks),
        ([latents, *others], key),
        resident=state,
      ),
    }

  def variants(self) -> "dict[str, CodecTask]":
    """The task as it is."""
    return {"": self}

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the averaged codec in our format."""
    parts = Parts(codec=self.encodec, codec_tree=state.average)
    opening.write_orbax(folder, parts)

  @property
  def _balanced(self) -> dict[str, float]:
    """Weight by name of every loss that is computed."""
    weights = dataclasses.asdict(self.weights)
    adversarial, feature = weights.pop("adversarial"), weights.pop("feature")
    for kind in self.adversary.kinds:
      weights[f"adv_{kind}"] = adversarial
      weights[f"feat_{kind}"] = feature
    return {name: weight for name, weight in weights.items() if weight}

  def latents(
    self, params: Tree, audio: Float[Array, "b n c"]
  ) -> Float[Array, "b t d"]:
    """What the encoder makes of rows that are sound to their end."""
    length = jnp.full(audio.shape[0], audio.shape[1], jnp.int32)
    encoder = seanet.Encoder(self.encodec.seanet)
    return encoder.apply({"params": params["encoder"]}, audio, length)[0]

  def _decoded(
    self, params: Tree, latents: Float[Array, "b t d"], n: int
  ) -> Float[Array, "b {n} c"]:
    length = jnp.full(latents.shape[0], latents.shape[1], jnp.int32)
    decoder = seanet.Decoder(self.encodec.seanet)
    audio, _ = decoder.apply({"params": params["decoder"]}, latents, length)
    return audio[:, :n]

  def _through(
    self, codec: Tree, audio: Float[Array, "b n c"]
  ) -> tuple[Float[Array, "b n c"], Int[Array, "b k t"]]:
    """Sound after coding, and its codes, as at inference."""
    with jax.default_matmul_precision("highest"):
      books = Codebooks(**codec["codebooks"])
      codes = rvq.encode(self.latents(codec["params"], audio), books)
      latents = rvq.decode(codes, books)
      fake = self._decoded(codec["params"], latents, audio.shape[1])
    return fake, codes

  def first_codebooks(
    self, latents: list[Float[Array, "b t d"]], key: jax.Array
  ) -> Tree:
    """Codebooks by k-means over the latents of some batches."""
    config, rows = self.encodec.rvq, jnp.concatenate(latents)
    rows = rows.reshape(-1, config.width)
    books = rvq.initialise(
      rows, key, config, iterations=self.rvq.iterations, batches=len(latents)
    )
    return books._asdict()
