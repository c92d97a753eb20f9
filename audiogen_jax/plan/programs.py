"""The programs that training runs, compiled ahead of time.

They are the real ones: those of the loop, on the mesh of the run.  Only their
arguments are shapes.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from audiogen_jax.codec import encodec
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.lm import model
from audiogen_jax.text import t5
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.task import Task


class Compiled(NamedTuple):
  """An optimised program.

  Attributes:
    arguments: Bytes on one device, looked at or not.
    outputs: Bytes of the results on one device.
    aliased: Of the outputs, what takes the place of arguments.
    temporaries: Everything in between.
    text: The program; empty for what reads and places, and compiles nothing.
    compile_s: What compiling took.
    resident: Bytes that are on the device meanwhile and are no arguments.
  """

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  text: str
  compile_s: float
  resident: int = 0


def of_run(
  run: RunConfig, task: Task, placement: Placement
) -> dict[str, Callable[[], Compiled]]:
  """All that `train.loop` runs, in its order; each is compiled when called.

  Raises:
    InputError: If the mesh does not divide something; when called, if memory
      runs out.
  """
  data, loop = run.data, run.loop
  placement.check_batch(data.batch, "data.batch")
  if loop.eval_every:
    placement.check_batch(data.eval_batch, "data.eval_batch")
  of_task = Programs(task, placement, loop.seed, loop.samples)

  def rows(count: int, seconds: float) -> dict[str, jax.ShapeDtypeStruct]:
    return {
      name: put(x, placement, "batch", *[None] * (x.ndim - 1))
      for name, x in task.batch_spec(count, seconds).items()
    }

  now = placed(of_task.like, of_task.places)
  key = put(jax.eval_shape(lambda: of_task.key), placement)
  batch = rows(data.batch, data.duration_s)
  waiting = data.prefetch * size(batch)
  found = {"init": later(of_task.init, placement, key)}
  if isinstance(task, LMTask):
    found["prepare"] = functools.partial(_read, task, now, placement, waiting)
  if isinstance(task, CodecTask):
    found |= _codebooks(task, now, batch["audio"], key, placement, waiting)
  found["step"] = later(of_task.step, placement, now, batch, resident=waiting)
  if loop.eval_every:
    batch = rows(data.eval_batch, data.eval_duration_s)
    valid = jax.ShapeDtypeStruct((data.eval_batch,), jnp.bool_)
    batch["valid"] = put(valid, placement, "batch")
    waiting += LoaderConfig.prefetch * size(batch)
    for name in ("evaluate", "samples") if loop.samples else ("evaluate",):
      found[name] = later(
        getattr(of_task, name), placement, now, batch, resident=waiting
      )
  return found


def training(run: RunConfig, task: Task, placement: Placement) -> Compiled:
  """The training step alone.

  Raises:
    InputError: As for `of_run`.
  """
  return of_run(run, task, placement)["step"]()


def _read(
  task: LMTask, now: TrainState, placement: Placement, waiting: int
) -> Compiled:
  """What sources hold beside a state that has room for it, and the average.

  By shapes alone: the tiles that a TPU fills up are not in it.
  """
  tables = {"codec": encodec.AXES, "text": t5.AXES, "lm": model.AXES}
  read = sum(
    size(placed(tree, sharding.shardings(tree, tables[name], placement)))
    for name, tree in task.start.read().items()
  )
  average = size(now.average)
  return Compiled(size(now), read + average, 0, 0, "", 0.0, waiting)


def _codebooks(
  task: CodecTask,
  now: TrainState,
  audio: jax.ShapeDtypeStruct,
  key: jax.ShapeDtypeStruct,
  placement: Placement,
  waiting: int,
) -> dict[str, Callable[[], Compiled]]:
  """Latents of a batch, and the k-means over those of all."""
  codec = now.params["codec"]
  one = jax.eval_shape(task.latents, codec, audio)
  one = put(one, placement, "batch", None, None)
  others = [one] * task.init_batches
  state = size(now) + waiting
  return {
    "prepare: latents": later(
      jax.jit(task.latents),
      placement,
      codec,
      audio,
      resident=state - size(codec) + size(others[1:]),
    ),
    "prepare: k-means": later(
      jax.jit(task.first_codebooks), placement, others, key, resident=state
    ),
  }


def placed(tree: Tree, places: Tree) -> Tree:
  """Abstract arrays where they live."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    tree,
    places,
  )


def size(tree: Tree) -> int:
  """Bytes of abstract arrays on one device."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )


def put(
  x: jax.ShapeDtypeStruct, placement: Placement, *axes: str | None
) -> jax.ShapeDtypeStruct:
  """An abstract array whose axes mean this."""
  place = placement.sharding(*axes)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def later(
  jitted: Callable,
  on: Placement,
  /,
  *arguments: Tree,
  resident: int = 0,
  **options,
) -> Callable[[], Compiled]:
  """What compiles a program, for the platform of the mesh.

  Args:
    jitted: The program.
    on: Its mesh.
    *arguments: Abstract.
    resident: Bytes that are on the device beside them.
    **options: Its static arguments.
  """

  def now() -> Compiled:
    made = _compiled(jitted, on, *arguments, **options)
    return made._replace(resident=resident)

  return now


def _compiled(
  jitted: Callable, on: Placement, /, *arguments: Tree, **options
) -> Compiled:
  """Lowers and compiles for the mesh's platform."""
  platform = on.mesh.devices.flat[0].platform
  with on.active():
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
    # What prefill does not look at is on the device all the same.
    arguments=max(memory.argument_size_in_bytes, size(arguments)),
    outputs=memory.output_size_in_bytes,
    aliased=memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    text=program.as_text(),
    compile_s=time.perf_counter() - start,
  )
