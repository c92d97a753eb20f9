"""What a compiled program would cost, in bytes, operations and seconds."""

import dataclasses
from typing import Any

from audiogen_jax.plan.chips import Chip
from audiogen_jax.plan.compiling import Compiled
from audiogen_jax.plan.hlo import Program, Work

_LARGE = 1e6  # bytes of a copy worth telling


@dataclasses.dataclass(frozen=True)
class ProgramReport:
  """A program on one device of so many.

  Times are estimates.  They assume peaks: all of the chip's FLOP/s in every
  product, all of its bandwidth, all links at once for what each collective
  makes, nothing for latency or for hosts that are late.  Whether memory and
  links work while products are computed is up to the compiler and the chip; the
  two times say what it would be if they always do and if they never do.

  Attributes:
    devices: How many.
    memory: Bytes that are there; 0 if that is not known.
    resident: Bytes that are there meanwhile, beside the program's own.
    arguments: Bytes.
    temporaries: Bytes.
    outputs: Bytes.
    aliased: Bytes of outputs in place of arguments.
    flops: Operations.
    model_flops: Those that the model asks for, 0 if that is not known; the rest
      is done again, or is the codec's and the text encoder's.
    traffic: Bytes that each kind of collective makes.
    between: Bytes sent to other slices.
    copies: Bytes of copies above 1 MB, from memory to memory, in one turn of
      each loop.
    compute_s: Seconds at the chip's peak, products of float32 counted as often
      as the matrix unit goes over them (see `hlo.Work`).
    memory_s: Seconds to read arguments, write outputs, and do both with
      temporaries.
    links_s: Seconds to send what collectives make.
    between_s: Seconds to send what goes to other slices.
    compile_s: Seconds that compiling took.
    runs: How often a batch of sounds takes it; 0 where that has no meaning.
  """

  devices: int
  memory: float
  resident: int
  arguments: int
  temporaries: int
  outputs: int
  aliased: int
  flops: float
  model_flops: float
  traffic: dict[str, int]
  between: int
  copies: int
  compute_s: float
  memory_s: float
  links_s: float
  between_s: float
  compile_s: float
  runs: int = 0

  @property
  def total(self) -> int:
    """Bytes that a device needs."""
    own = self.arguments + self.temporaries + self.outputs - self.aliased
    return self.resident + own

  @property
  def fits(self) -> bool:
    """Whether it does; where memory is not known, yes."""
    return not self.memory or self.total <= self.memory

  @property
  def fastest_s(self) -> float:
    """Seconds, if all goes on at once."""
    return max(self._times)

  @property
  def slowest_s(self) -> float:
    """Seconds, if nothing overlaps."""
    return sum(self._times)

  @property
  def _times(self) -> tuple[float, ...]:
    return self.compute_s, self.memory_s, self.links_s, self.between_s

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
) -> ProgramReport:
  """A report.

  Args:
    compiled: The program.
    chip: What it runs on.
    devices: How many of them.
    model_flops: Of the whole step; 0 if they are not known.
  """
  program = Program(compiled.text)
  work = program.work()
  passed = compiled.arguments + compiled.outputs + 2 * compiled.temporaries
  passed -= compiled.aliased if compiled.in_place else 0

  def seconds(amount: float | int, speed: float) -> float:
    return amount / speed if speed else 0.0

  return ProgramReport(
    devices=devices,
    memory=chip.memory,
    resident=compiled.resident,
    arguments=compiled.arguments,
    temporaries=compiled.temporaries,
    outputs=compiled.outputs,
    aliased=compiled.aliased,
    flops=work.flops,
    model_flops=model_flops / devices,
    traffic=work.traffic,
    between=work.between,
    copies=sum(_copies(program)),
    compute_s=seconds(work.passed, chip.flops),
    memory_s=seconds(passed, chip.bandwidth),
    links_s=seconds(sum(work.traffic.values()), chip.links),
    between_s=seconds(work.between, chip.network),
    compile_s=compiled.compile_s,
    runs=compiled.runs,
  )


def _copies(program: Program) -> list[int]:
  """Bytes of large copies in the bodies of loops."""
  found = []
  for loop, _ in program.loops():
    work: Work = program.work(program.body_of(loop))
    found += [size for size, _ in work.copies.values() if size > _LARGE]
  return found
