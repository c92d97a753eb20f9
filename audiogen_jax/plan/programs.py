"""The programs that training and sampling run, compiled ahead of time.

They are the real ones: the step of the task on the mesh of the run, and the
prefill and decode of the sampler.  Only their arguments are shapes.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from audiogen_jax.core import sharding, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Cond, Tree, bucket
from audiogen_jax.lm import layouts, model, patterns, sampler
from audiogen_jax.lm.rules import Rules
from audiogen_jax.lm.sampler import State
from audiogen_jax.lm.transformer import KeysValues
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.task import Task


class Compiled(NamedTuple):
  """An optimised program.

  Attributes:
    arguments: Bytes on one device.
    outputs: Likewise.
    aliased: Of the outputs, what takes the place of arguments.
    temporaries: Everything in between.
    text: The program.
    compile_s: What compiling took.
  """

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  text: str
  compile_s: float

  @property
  def total(self) -> int:
    """Bytes that a device needs."""
    return self.arguments + self.outputs - self.aliased + self.temporaries


def training(run: RunConfig, task: Task, placement: Placement) -> Compiled:
  """The training step of `train.loop`, state donated.

  Raises:
    InputError: If the mesh does not divide something, or memory runs out.
  """
  programs = Programs(task, placement, run.loop.seed)
  spec = task.batch_spec(run.data.batch, run.data.duration_s)
  rows = placement.ways("batch")
  if run.data.batch % rows:
    raise InputError(
      f"batch {run.data.batch} does not divide over the mesh"
      f" {dict(placement.mesh.shape)}; choose a multiple of {rows}"
    )

  batch = {
    name: _put(x, placement, "batch", *[None] * (x.ndim - 1))
    for name, x in spec.items()
  }
  now = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    programs.like,
    programs.places,
  )
  return _compiled(programs.step, placement, now, batch)


def sampling(
  task: LMTask, batch: int, duration_s: float, placement: Placement
) -> dict[str, Compiled]:
  """`prefill` and `decode` of the sampler, guided, in `task.dtype`."""
  config, dtype = task.lm, types.resolve_dtype(task.dtype)
  t, tokens = config.transformer, task.encodec.tokens
  layout = patterns.layout(
    config.pattern, config.codebooks, tokens.frames(duration_s)
  )
  room = bucket(layout.frame.shape[1], least=sampler.LEAST_STEPS)
  length = bucket(task.text.length, least=16)

  def shaped(shape, kind, *axes):
    return _put(jax.ShapeDtypeStruct(shape, kind), placement, *axes)

  abstract = jax.eval_shape(
    lambda key: model.unstack(model.init(config, key)), jax.random.key(0)
  )
  places = sharding.shardings(abstract, model.AXES, placement)
  params = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, dtype, sharding=place),
    abstract,
    places,
  )
  params = layouts.laid_out(params, placement)
  before = length if config.prepend_text else 0

  def kept(steps: int) -> KeysValues:
    shape = (2 * batch, t.heads, t.head_size, steps)
    one = shaped(shape, dtype, "batch", "heads", None, None)
    if layouts.matter(placement):
      wanted = layouts.kept(placement).k
      one = jax.ShapeDtypeStruct(shape, dtype, sharding=wanted)
    return KeysValues(one, one)

  seen = shaped((batch, length), jnp.bool_, "batch", None)
  states_ = shaped((batch, length, t.width), dtype, "batch", None, None)
  steps = shaped(
    (batch, config.codebooks, room), jnp.int32, "batch", None, None
  )
  head = shaped((batch, config.codebooks, 0), jnp.int32, "batch", None, None)
  number = functools.partial(shaped, ())
  keys = jax.eval_shape(
    lambda: jax.vmap(jax.random.key)(jnp.arange(batch, dtype=jnp.uint32))
  )
  keys = _put(keys, placement, "batch")
  rules = Rules(
    number(jnp.float32),
    number(jnp.int32),
    number(jnp.float32),
    number(jnp.float32),
  )
  state = State(steps, number(jnp.int32), [kept(before + room)] * t.layers)
  texts = [kept(length) if t.cross_attention else None] * t.layers
  options = dict(config=config, dtype=dtype, placement=placement, guided=True)
  prefill, decode, _ = sampler.compiled(config, placement)
  return {
    "prefill": _compiled(
      prefill,
      placement,
      params,
      head,
      Cond(states_, seen),
      room=sampler.LEAST_STEPS,
      **options,
    ),
    "decode": _compiled(
      decode,
      placement,
      params,
      state,
      texts,
      seen,
      keys,
      rules,
      number(jnp.int32),
      **options,
    ),
  }


def _put(x: jax.ShapeDtypeStruct, placement: Placement, *axes: str | None):
  place = placement.sharding(*axes)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def _compiled(
  jitted: Callable, on: Placement, /, *arguments: Tree, **options
) -> Compiled:
  """Lowers and compiles for the mesh's platform."""
  platform = on.mesh.devices.flat[0].platform
  traced = jitted.trace(*arguments, **options)
  lowered = traced.lower(lowering_platforms=(platform,))
  start = time.perf_counter()
  try:
    program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    reason = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" not in reason:
      raise
    raise InputError(f"it does not fit: {reason[:300]}") from None
  memory = program.memory_analysis()
  return Compiled(
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes,
    aliased=memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    text=program.as_text(),
    compile_s=time.perf_counter() - start,
  )
