"""The programs that training and sampling run, compiled ahead of time.

They are the real ones, on the mesh of the run: those of the loop, and those
that its task names.  Only their arguments are shapes.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from audiogen_jax.core import abstract
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.programs import Programs
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
    in_place: Whether `aliased` outputs are hardly written.
    runs: How often a batch of sounds takes it; 0 where that has no meaning.
  """

  arguments: int
  outputs: int
  aliased: int = 0
  temporaries: int = 0
  text: str = ""
  compile_s: float = 0.0
  resident: int = 0
  in_place: bool = False
  runs: int = 0


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
      name: abstract.put(x, placement, "batch", *[None] * (x.ndim - 1))
      for name, x in task.batch_spec(count, seconds).items()
    }

  state = abstract.placed(of_task.like, of_task.places)
  key = abstract.put(jax.eval_shape(lambda: of_task.key), placement)
  batch = rows(data.batch, data.duration_s)
  waiting = [batch] * data.prefetch
  wanted = {"init": Program(of_task.init, (key,))}
  preparing = task.prepare_programs(state, batch, key, placement)
  for name, program in preparing.items():
    wanted[name] = program._replace(resident=(program.resident, waiting))
  wanted["step"] = Program(of_task.step, (state, batch), resident=waiting)
  if loop.eval_every:
    batch = rows(data.eval_batch, data.eval_duration_s)
    valid = jax.ShapeDtypeStruct((data.eval_batch,), jnp.bool_)
    batch["valid"] = abstract.put(valid, placement, "batch")
    waiting = waiting + [batch] * LoaderConfig.prefetch
    for name in ("evaluate", "samples") if loop.samples else ("evaluate",):
      wanted[name] = Program(
        getattr(of_task, name), (state, batch), resident=waiting
      )
  return later(wanted, placement)


def of_sampling(
  task: Task, rows: int, placement: Placement
) -> dict[str, Callable[[], Compiled]]:
  """All that making sounds runs; each is compiled when called.

  Raises:
    InputError: If the task makes no sounds from texts, or the mesh does not
      divide the rows.
  """
  wanted = task.sampling_programs(rows, placement)
  if not wanted:
    raise InputError(
      "this configuration trains nothing that samples from texts"
    )
  placement.check_batch(rows)
  return later(wanted, placement)


def training(run: RunConfig, task: Task, placement: Placement) -> Compiled:
  """The training step alone.

  Raises:
    InputError: As for `of_run`.
  """
  return of_run(run, task, placement)["step"]()


def later(
  wanted: Mapping[str, Program], placement: Placement
) -> dict[str, Callable[[], Compiled]]:
  """What compiles each program, for the platform of the mesh."""
  return {
    name: functools.partial(_compiled, program, placement)
    for name, program in wanted.items()
  }


def _compiled(program: Program, placement: Placement) -> Compiled:
  """Lowers and compiles for the mesh's platform."""
  arguments = abstract.size(program.arguments)
  resident = abstract.size(program.resident)
  if program.function is None:
    return Compiled(
      arguments=arguments,
      outputs=abstract.size(program.outputs),
      resident=resident,
    )
  platform = placement.mesh.devices.flat[0].platform
  with placement.active():
    traced = program.function.trace(*program.arguments, **program.options)
  lowered = traced.lower(lowering_platforms=(platform,))
  start = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    reason = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" not in reason:
      raise
    raise InputError(f"it does not fit: {reason[:300]}") from None
  memory = compiled.memory_analysis()
  return Compiled(
    # What prefill does not look at is on the device all the same.
    arguments=max(memory.argument_size_in_bytes, arguments),
    outputs=memory.output_size_in_bytes,
    aliased=memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    text=compiled.as_text(),
    compile_s=time.perf_counter() - start,
    resident=resident,
    in_place=program.in_place,
    runs=program.runs,
  )
