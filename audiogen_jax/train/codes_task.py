"""What tasks share that train a model to write the codes of a frozen codec.

One step:
    audio -> frozen codec -> codes (or codes that were cached)
    text -> T5, frozen or trained along -> states; some texts are dropped
    codes, states -> the task's own loss
    gradient, over parts of the batch if asked -> clip -> optimiser -> EMA

Frozen weights are in the state: a checkpoint needs nothing beside it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from etils import epath
from jaxtyping import Array, Bool, Float, Int, Num

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import adapters
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Cond, Tree
from audiogen_jax.data import witness
from audiogen_jax.data.spec import CodeSpec, SoundSpec
from audiogen_jax.lm import lora, masked, model
from audiogen_jax.lm.lora import LoRAConfig
from audiogen_jax.lm.model import LM, LMConfig
from audiogen_jax.text import t5
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.train import (
  gradients,
  lm_inputs,
  lm_planning,
  lm_samples,
  lm_sources,
  lm_start,
  text_masks,
)
from audiogen_jax.train import state as states
from audiogen_jax.train.codes_model import CodesModel
from audiogen_jax.train.lm_sources import Origins, TextConfig
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.state import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class CodesTask(CodesModel):
  """A model that writes a codec's codes, to train: a `task.Task`, in part.

  Attributes:
    lm: The language model.
    codec: Source of the frozen codec; may be left empty with `init_from`.
    encodec: What that codec is.  Read from the source before training; `plan`,
      which reads nothing, believes what stands here.
    cached_codes: The data are codes, from `audiogen data tokenize`.
    text: The text encoder.
    text_dropout: Share of texts left out, for guidance.
    dropout_unit: Whether texts are dropped one by one or for a whole batch, as
      the released code does.
    mask_text_padding: Whether attention skips padding; the released code does
      not.
    window_s: Seconds of a row, noted in the export.
    optim: The optimiser.
    accumulate: Parts of a batch that are gone through one after another.
    average_decay: Decay of the EMA that is evaluated and exported.
    average_every: Steps between its updates; 0 for no average.
    dtype: Type of products; parameters, norms, softmax and loss are float32.
    remat: What the backward pass computes again; see `model.LM`.
    init_from: Source of a model to start from; empty for a random start.
    lora: Adapters, trained in place of the model's own parameters.
  """

  lm: LMConfig = LMConfig()
  codec: str = ""
  encodec: EncodecConfig = EncodecConfig()
  cached_codes: bool = False
  text: TextConfig = TextConfig()
  text_dropout: float = 0.1
  dropout_unit: Literal["example", "batch"] = "example"
  mask_text_padding: bool = True
  window_s: float = Parts.window_s
  optim: OptimiserConfig = OptimiserConfig()
  accumulate: int = 1
  average_decay: float = 0.99
  average_every: int = 10
  dtype: Literal["float32", "bfloat16"] = "bfloat16"
  remat: Literal["none", "dots", "full"] = "none"
  init_from: str = ""
  lora: LoRAConfig = LoRAConfig()

  axes: ClassVar[Mapping[str, Axes]] = lm_start.AXES
  best: ClassVar[str] = "loss"
  family: ClassVar[str]

  def __post_init__(self) -> None:
    for name in ("text_dropout", "average_decay"):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(f"{name} {getattr(self, name)} must lie in [0, 1)")
    if self.accumulate < 1:
      raise InputError(f"accumulate {self.accumulate} must be 1 or more")
    if self.lora.rank and not self.init_from:
      raise InputError("lora adapts a trained model: give init_from, too")

  def opened(self) -> "CodesTask":
    """The task with what its sources say of themselves; reads no weights.

    Raises:
      InputError: If a source is missing or does not fit.
    """
    codec, text = self._origins.opened(self.lm)
    text = dataclasses.replace(self.text, encoder=text or self.text.encoder)
    opened = dataclasses.replace(self, encodec=codec, text=text)
    opened.check_parts()
    return opened

  def check_parts(self) -> None:
    """Raises InputError where codec, text encoder and model do not fit."""
    lm_sources.check_parts(self.lm, self.codec, self.encodec, self.text)

  def tokenizer(self) -> Tokenizer:
    """What makes ids of captions."""
    return self._origins.tokenizer()

  @property
  def rate_hz(self) -> int:
    """The codec's sample rate."""
    return self.encodec.sample_rate_hz

  @property
  def wants(self) -> SoundSpec | CodeSpec:
    """What the rows of a dataset must hold."""
    if self.cached_codes:
      return CodeSpec(**dataclasses.asdict(self.encodec.tokens))
    return SoundSpec(self.rate_hz, self.encodec.channels)

  def check_data(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError for cached codes of another codec."""
    if self.cached_codes:
      witness.check(load_codec(self.codec or self.init_from), settings, folders)

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Shapes and types of a batch, by name, for so many rows and seconds."""
    return lm_inputs.spec(
      self.encodec,
      cached=self.cached_codes,
      rows=rows,
      seconds=seconds,
      tokens=self.text.length,
    )

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; `prepare` fills in what comes from sources."""
    keys = jax.random.split(key, 3)
    given = self.start.fresh(*keys[:2])
    params, extra = {}, {"averaged": jnp.float32(0), "codec": given["codec"]}
    if self.lora.rank:
      extra["lm"] = lm = given["lm"]
      params["adapters"] = lora.init(self.lora, lm, model.MATRICES, keys[2])
    else:
      params["lm"] = given["lm"]
    (params if self.text.trained else extra)["text"] = given["text"]
    return TrainState(
      step=jnp.int32(0),
      params=params,
      optimiser=self._tx.init(params),
      extra=extra,
      average=jax.tree.map(jnp.copy, params) if self.average_every else {},
    )

  def prepare(
    self,
    state: TrainState,
    batches: Iterator[Batch],
    key: jax.Array,
  ) -> TrainState:
    """Reads the frozen weights, and those to start from."""
    del batches, key
    weights = self._origins.weights(self.lm)
    params, extra = dict(state.params), state.extra | {"codec": weights.codec}
    if weights.text is not None:
      (params if self.text.trained else extra)["text"] = weights.text
    if weights.lm is not None:
      (extra if self.lora.rank else params)["lm"] = weights.lm
    average = jax.tree.map(jnp.copy, params) if state.average else {}
    return state._replace(params=params, extra=extra, average=average)

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sounds made for the texts of a batch, as long as its rows."""
    seeds = jnp.arange(len(batch["text_ids"]))
    original = {"original": batch["audio"]} if "audio" in batch else {}
    return original | {"generated": self.generated(state, batch, seeds)}

  def generated(
    self, state: TrainState, batch: Batch, seeds: Int[Array, " b"]
  ) -> Float[Array, "b n c"]:
    """Sounds made for the texts of a batch, as long as its rows."""
    params = state.average or state.params
    mask = batch["text_mask"]
    codes = self.sampled(
      self.weights(state, params),
      self._states(params | state.extra, batch["text_ids"], mask),
      mask,
      text_masks.visible(mask, mask_padding=self.mask_text_padding),
      seeds,
      jax.eval_shape(self._codes, state, batch).shape[2],
    )
    return lm_samples.decoded(self.encodec, state.extra["codec"], codes)

  def recorded(self, state: TrainState, batch: Batch) -> Float[Array, "b n c"]:
    """The recordings of a batch; of cached codes, what the codec makes."""
    return lm_samples.recorded(self.encodec, state.extra["codec"], batch)

  def prepare_programs(
    self,
    state: TrainState,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    key: jax.ShapeDtypeStruct,
    placement: Placement,
  ) -> dict[str, Program]:
    """What sources hold, beside a state that has room for it."""
    return {"prepare": lm_planning.prepare(self.start, state, placement)}

  def variants(self) -> "dict[str, CodesTask]":
    """What the backward pass computes again."""
    replace = functools.partial(dataclasses.replace, self)
    return {f"remat {x}": replace(remat=x) for x in ("none", "dots", "full")}

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update on the loss of a batch: (state, metrics)."""
    codes = self._codes(state, batch)
    mask = text_masks.dropped(
      batch["text_mask"], key, share=self.text_dropout, unit=self.dropout_unit
    )
    text = self._text(state, batch)

    def loss(params, *rows):
      return self.loss(params, state, *rows)

    rows = (*self.rows(codes, key), text, mask)
    (value, figures), gradient = gradients.accumulated(
      loss, state.params, rows, self.accumulate
    )
    updates, moments = self._tx.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    average, averaged = states.published_ema(
      state, params, decay=self.average_decay, every=self.average_every
    )
    metrics = {
      "loss": value,
      **figures,
      "perplexity": jnp.exp(value),
      "grad_norm": optax.tree.norm(gradient),
      "lr": jnp.float32(self.optim.rate()(state.step)),
    }
    if "audio" in batch:
      power = jnp.mean(jnp.square(batch["audio"]))
      metrics = {"input_rms": jnp.sqrt(power)} | metrics
    extra = state.extra | {"averaged": averaged}
    return TrainState(state.step + 1, params, moments, extra, average), metrics

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the averaged model in our format, adapters merged.

    Adapters are also written alone, to `adapters` beside it.
    """
    params = state.average or state.params
    parts = Parts(
      codec=self.encodec,
      codec_tree=state.extra["codec"],
      lm=self.lm,
      lm_tree=lora.merged(self.weights(state, params)),
      text=self.text.encoder,
      text_tree=(params | state.extra)["text"],
      window_s=self.window_s,
      **self.noted,
    )
    self._origins.export(folder, parts)
    if self.lora.rank:
      beside = folder.parent / "adapters"
      adapters.write(beside, params["adapters"], self.lora, self.init_from)

  @property
  def start(self) -> lm_start.Start:
    """Which parts of the model are read, and which start at random."""
    return lm_start.Start(self.lm, self.text, self.encodec, self.init_from)

  def weights(self, state: TrainState, params: Tree) -> Tree:
    """The language model that `params` of this state make."""
    if not self.lora.rank:
      return params["lm"]
    beside = lora.beside([(self.lora, params["adapters"], 1.0)])
    return lora.adapted(state.extra["lm"], beside)

  @property
  def _origins(self) -> Origins:
    text = self.text
    return Origins(
      self.family, self.init_from, self.codec, text.source, text.trained
    )

  @functools.cached_property
  def _tx(self) -> optax.GradientTransformation:
    return self.optim.make(
      {f"lm/{rule}": axes for rule, axes in model.MATRICES.items()}
    )

  def _codes(self, state: TrainState, batch: Batch) -> Int[Array, "b k t"]:
    return lm_inputs.codes(self.encodec, state.extra["codec"], batch)

  def _text(self, state: TrainState, batch: Batch) -> Num[Array, "b l ..."]:
    """States [b l e] of a frozen encoder; ids [b l] for one that is trained."""
    ids = batch["text_ids"]
    if self.text.trained:
      return ids
    return self._states(state.extra, ids, batch["text_mask"])

  def _states(
    self, params: Tree, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
  ) -> Float[Array, "b l e"]:
    return t5.encode(self.text.encoder, params["text"], ids, mask)

  def _applied(
    self,
    params: Tree,
    state: TrainState,
    steps: Int[Array, "b k s"],
    attended: Bool[Array, "#b s s"],
    text: Num[Array, "b l ..."],
    mask: Bool[Array, "b l"],
    book: Int[Array, ""] | None = None,
  ) -> Float[Array, "b _ s v"]:
    """Logits at each step, of all codebooks or of `book` alone.

    Args:
      params: What is trained.
      state: Which holds the rest.
      steps: Tokens in [0, V].
      attended: Which steps each step attends to.
      text: States of a frozen encoder; ids for one that is trained.
      mask: Tokens of each text.
      book: The codebook whose head alone is computed.
    """
    dtype = types.resolve_dtype(self.dtype)
    visible = text_masks.visible(mask, mask_padding=self.mask_text_padding)
    if self.text.trained:
      text = self._states(params, text, mask)
    weights = types.cast_kernels(self.weights(state, params), dtype)
    if book is not None:
      weights = masked.with_head(weights, book)
    lm = LM(self.lm, dtype, remat=self.remat)

    def logits(lm: LM) -> Float[Array, "b _ s v"]:
      states = lm.condition(text, mask).states
      return lm(steps, Cond(states, visible), attended)

    with jax.default_matmul_precision(types.precision(dtype)):
      return lm.apply({"params": weights}, method=logits)
