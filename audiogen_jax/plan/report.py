"""What a compiled program would cost, in bytes, operations and seconds."""

import dataclasses
from typing import Any

import jax
import numpy as np

from audiogen_jax.lm import model, patterns
from audiogen_jax.plan.chips import Chip
from audiogen_jax.plan.hlo import Program, Work
from audiogen_jax.plan.programs import Compiled
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.task import Task

_LARGE = 1e6  # bytes of a copy worth telling


@dataclasses.dataclass(frozen=True)
class Report:
  """A program on one device of so many.

  Attributes:
    devices: How many.
    memory: Bytes that are there; 0 if that is not known.
    arguments: Bytes.
    temporaries: Bytes.
    outputs: Bytes.
    aliased: Bytes of outputs in place of arguments.
    flops: Operations.
    model_flops: Those that the model asks for, 0 if that is not known; the rest
      is done again, or is the codec's and the text encoder's.
    traffic: Bytes that each kind of collective makes.
    copies: Bytes of copies above 1 MB, from memory to memory, in one turn of
      each loop.
    compute_s: Seconds at the chip's peak.
    memory_s: Seconds to read arguments, write outputs, and do both with
      temporaries.
    links_s: Seconds to send what collectives make.
    compile_s: Seconds that compiling took.
  """

  devices: int
  memory: float
  arguments: int
  temporaries: int
  outputs: int
  aliased: int
  flops: float
  model_flops: float
  traffic: dict[str, int]
  copies: int
  compute_s: float
  memory_s: float
  links_s: float
  compile_s: float

  @property
  def total(self) -> int:
    """Bytes that a device needs."""
    return self.arguments + self.temporaries + self.outputs - self.aliased

  @property
  def fits(self) -> bool:
    """Whether it does; where memory is not known, yes."""
    return not self.memory or self.total <= self.memory

  @property
  def fastest_s(self) -> float:
    """Seconds, if all three go on at once."""
    return max(self.compute_s, self.memory_s, self.links_s)

  @property
  def slowest_s(self) -> float:
    """Seconds, if they wait for each other."""
    return self.compute_s + self.memory_s + self.links_s

  def utilisation(self, peak: float) -> tuple[float, float]:
    """Model FLOPs utilisation, least and most."""
    one = self.model_flops / peak
    return one / self.slowest_s, one / self.fastest_s

  def plain(self) -> dict[str, Any]:
    """For JSON."""
    return dataclasses.asdict(self) | {
      "total": self.total,
      "fits": self.fits,
      "fastest_s": self.fastest_s,
      "slowest_s": self.slowest_s,
    }


def of(
  compiled: Compiled,
  chip: Chip,
  devices: int,
  *,
  model_flops: float = 0.0,
  in_place: bool = False,
) -> Report:
  """A report.

  Args:
    compiled: The program.
    chip: What it runs on.
    devices: How many of them.
    model_flops: Of the whole step; 0 if they are not known.
    in_place: Of outputs that take the place of arguments next to nothing is
      written, as of a cache for one step.
  """
  program = Program(compiled.text)
  work = program.work()
  passed = compiled.arguments + compiled.outputs + 2 * compiled.temporaries
  passed -= compiled.aliased if in_place else 0

  def seconds(amount: float | int, speed: float) -> float:
    return amount / speed if speed else 0.0

  return Report(
    devices=devices,
    memory=chip.memory,
    arguments=compiled.arguments,
    temporaries=compiled.temporaries,
    outputs=compiled.outputs,
    aliased=compiled.aliased,
    flops=work.flops,
    model_flops=model_flops / devices,
    traffic=work.traffic,
    copies=sum(_copies(program)),
    compute_s=seconds(work.flops, chip.flops),
    memory_s=seconds(passed, chip.bandwidth),
    links_s=seconds(sum(work.traffic.values()), chip.links),
    compile_s=compiled.compile_s,
  )


def model_flops(task: Task, rows: int, seconds: float) -> float:
  """Operations that a training step asks for, done once: 6 N a token and more.

  Six for each parameter and token, and for attention twelve for each number of
  a state, step and step that is looked at (Chowdhery et al., 2022, appendix B),
  or token of the text.  0 for tasks that are no language model.
  """
  if not isinstance(task, LMTask):
    return 0.0
  t = task.lm.transformer
  abstract = jax.eval_shape(lambda: model.init(task.lm, jax.random.key(0)))
  count = sum(np.prod(x.shape, dtype=float) for x in jax.tree.leaves(abstract))
  frames = task.encodec.tokens.frames(seconds)
  layout = patterns.layout(task.lm.pattern, task.lm.codebooks, frames)
  steps = layout.trained - 1
  text = task.text.length
  seen = steps + (text if task.lm.prepend_text else 0)
  seen += text if t.cross_attention else 0
  each = 6 * count + 12 * t.layers * t.width * seen
  return float(rows * steps * each)


def _copies(program: Program) -> list[int]:
  """Bytes of large copies in the bodies of loops."""
  found = []
  for loop, _ in program.loops():
    work: Work = program.work(program.body_of(loop))
    found += [size for size, _ in work.copies.values() if size > _LARGE]
  return found
