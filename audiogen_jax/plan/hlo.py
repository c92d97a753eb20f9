"""What an optimised program does, read from XLA's own text of it.

XLA's cost analysis counts the body of a loop once, and calls no collective by
its name.  Here loops are followed: what stands in a body counts as often as the
loop runs.

A program is computations; a computation is instructions, one a line:

    %name = f32[8,500]{1,0} opcode(%operand, %operand), attribute=value, …
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_BYTES = {
  "pred": 1,
  "bf16": 2,
  "f16": 2,
  "f32": 4,
  "f64": 8,
  "c64": 8,
  "token": 0,
}
# Of a TPU's matrix unit, which multiplies bfloat16, for a float32 product.
_PASSES = {"high": 3, "highest": 6}
COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)


@dataclasses.dataclass(frozen=True)
class Array:
  """Type, shape, and whether it lies in memory or in a TPU's own cache."""

  dtype: str
  shape: tuple[int, ...]
  cached: bool = False

  @property
  def bytes(self) -> int:
    """Its size."""
    bits = re.search(r"\d+", self.dtype)
    size = _BYTES.get(self.dtype)
    if size is None:
      size = int(bits[0]) / 8 if bits else 0
    return int(size * math.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of a computation."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]  # several for a tuple
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @property
  def bytes(self) -> int:
    """Of what it makes."""
    return sum(array.bytes for array in self.arrays)

  def called(self, attribute: str) -> str | None:
    """The computation that an attribute names."""
    found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
    return found[1] if found else None


class Work(NamedTuple):
  """What is done, loops unrolled.

  Attributes:
    flops: Of matrix products and convolutions.
    passed: The same, each as often as a TPU's matrix unit takes for it, which
      multiplies bfloat16: six times for float32 of precision `highest`.
    traffic: Bytes that each kind of collective makes on one device.
    between: Bytes that one device sends to other slices.
    copies: Bytes and number of runs of each copy from memory to memory, by
      name.
  """

  flops: float
  passed: float
  traffic: dict[str, int]
  between: int
  copies: dict[str, tuple[int, int]]


class Program:
  """An optimised program of one device."""

  def __init__(self, text: str) -> None:
    self._computations: dict[str, dict[str, Instruction]] = {}
    self.entry = ""
    inside: dict[str, Instruction] = {}
    for line in text.splitlines():
      head = _HEAD.match(line)
      if head:
        inside = self._computations[head[2]] = {}
        if head[1]:
          self.entry = head[2]
        continue
      row = _LINE.match(line)
      if row:
        made = _instruction(row[2], row[3], bool(row[1]))
        if made:
          inside[made.name] = made

  def work(self, computation: str | None = None) -> Work:
    """All that a computation does; the whole program if none is named."""
    computation = computation or self.entry
    return self._work(computation) if computation else Work(0.0, 0.0, {}, 0, {})

  def loops(self) -> Iterator[tuple[Instruction, int]]:
    """Every loop of the program, and how often it runs."""
    for name, inside in self._computations.items():
      for made in inside.values():
        if made.opcode == "while":
          yield made, self._trips(name, made)

  def body_of(self, loop: Instruction) -> str:
    """The computation that a loop repeats."""
    return loop.called("body") or ""

  @functools.cache  # noqa: B019  lives as long as the program
  def _work(self, computation: str) -> Work:
    flops, passed, between = 0.0, 0.0, 0
    traffic, copies = collections.Counter(), {}

    def add(other: Work, times: int) -> None:
      nonlocal flops, passed, between
      flops += times * other.flops
      passed += times * other.passed
      between += times * other.between
      for kind, size in other.traffic.items():
        traffic[kind] += times * size
      for name, (size, runs) in other.copies.items():
        copies[name] = (size, runs * times)

    inside = self._computations[computation]
    for made in inside.values():
      opcode = made.opcode.removesuffix("-start")
      if opcode in ("dot", "convolution"):
        own = _flops(made, inside)
        flops += own
        passed += own * _passes(made, inside)
      elif opcode == "while":
        body = self.body_of(made)
        add(self._work(body), self._trips(computation, made))
      elif opcode == "conditional":
        branches = [self._work(name) for name in _branches(made)]
        add(max(branches, key=lambda work: work.flops), 1)
      elif opcode == "send":
        # What crosses slices the compiler leaves to the hosts.
        if "megascale" in made.attributes:
          between += made.arrays[0].bytes
      elif opcode in COLLECTIVES:
        if _goes_on(made, inside):
          continue
        # The start of an asynchronous one makes its operand, too.
        largest = max((array.bytes for array in made.arrays), default=0)
        started = made.opcode.endswith("-start")
        traffic[opcode] += largest if started else made.bytes
      elif opcode == "fusion":
        # Only what comes out of a fusion is ever in memory.
        name = made.called("calls")
        add(self._work(name)._replace(copies={}), 1)
        root = next(m for m in self._computations[name].values() if m.root)
        if root.opcode == "copy":
          copies |= _copied(made, inside)
      elif opcode == "copy":
        copies |= _copied(made, inside)
      else:
        for attribute in ("calls", "to_apply", "called_computation"):
          name = made.called(attribute)
          if name in self._computations:
            add(self._work(name), 1)
    return Work(flops, passed, dict(traffic), between, copies)

  def _trips(self, computation: str, loop: Instruction) -> int:
    """How often a loop runs: counted from where it starts to its bound."""
    known = re.search(r"known_trip_count\D+(\d+)", loop.attributes)
    if known:
      return int(known[1])
    condition = self._computations[loop.called("condition") or ""]
    root = next(made for made in condition.values() if made.root)
    bound = index = None
    for name in root.operands:
      made = condition[name]
      if made.opcode == "constant":
        bound = _constant(made)
      elif made.opcode == "get-tuple-element":
        index = int(re.search(r"index=(\d+)", made.attributes)[1])
    if root.opcode != "compare" or bound is None or index is None:
      return 1
    body = self._computations[self.body_of(loop)]
    end = next(made for made in body.values() if made.root)
    step = _constant_operand(body, end.operands[index])
    start = self._start(computation, loop, index)
    return max(1, -(-(bound - start) // max(1, step)))

  def _start(self, computation: str, loop: Instruction, index: int) -> int:
    """Where a counter starts; 0 where that cannot be told."""
    inside = self._computations[computation]
    first = inside.get(loop.operands[0])
    if first is None or first.opcode != "tuple":
      return 0
    made = inside.get(first.operands[index])
    while made is not None and made.opcode in ("copy", "bitcast", "convert"):
      made = inside.get(made.operands[0])
    if made is None or made.opcode != "constant":
      return 0
    return _constant(made) or 0


def _instruction(name: str, rest: str, root: bool) -> Instruction | None:
  """`f32[8]{0} add(%a, %b), metadata=…` taken apart."""
  end = _closing(rest) + 1 if rest.startswith("(") else rest.find(" ")
  made, rest = rest[:end], rest[end:].strip()
  opcode, bracket, tail = rest.partition("(")
  if not bracket:
    return None
  close = _closing(bracket + tail)
  inner = (bracket + tail)[1:close]
  arrays = tuple(
    Array(dtype, tuple(int(n) for n in shape.split(",") if n), "S(1)" in layout)
    for dtype, shape, layout in _ARRAY.findall(made)
  )
  operands = tuple(_NAME.findall(inner))
  attributes = (bracket + tail)[close + 1 :]
  if opcode == "constant":
    attributes = inner
  return Instruction(name, opcode, arrays, operands, attributes, root)


def _goes_on(made: Instruction, inside: dict[str, Instruction]) -> bool:
  """Whether this is a piece of a collective that was counted where it starts.

  A TPU spreads one over the fusions that run meanwhile; it stands in each.
  """
  if "chain_id=" not in made.attributes:
    return False
  return not any(
    "AsyncCollectiveStart" in x.attributes for x in inside.values()
  )


def _copied(
  made: Instruction, inside: dict[str, Instruction]
) -> dict[str, tuple[int, int]]:
  """A copy's name, bytes and runs, if it is from memory to memory.

  Into a TPU's own cache and out of it is how it reads and writes.
  """
  sources = (inside.get(name) for name in made.operands)
  ends = [a for source in sources if source for a in source.arrays[:1]]
  started = made.opcode.endswith("-start")  # makes its operand, too
  ends += made.arrays[:2] if started else made.arrays[:1]
  if any(array.cached for array in ends):
    return {}
  return {made.name: (made.arrays[0].bytes, 1)}


def _closing(text: str) -> int:
  """Where the bracket that `text` starts with is closed."""
  depth = 0
  for place, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return place
  return len(text)


def _constant(made: Instruction) -> int | None:
  number = re.fullmatch(r"\s*(-?\d+)\s*", made.attributes)
  return int(number[1]) if number else None


def _constant_operand(inside: dict[str, Instruction], name: str) -> int:
  """By how much `name = add(x, constant)` moves on; 1 if it is something else.

  XLA unrolls loops by adding twice.
  """
  made, total = inside.get(name), 0
  while made is not None and made.opcode in ("add", "copy"):
    ahead = None
    for operand in made.operands:
      other = inside.get(operand)
      if other is not None and other.opcode == "constant":
        total += _constant(other) or 0
      else:
        ahead = other
    made = ahead
  return total or 1


def _branches(made: Instruction) -> list[str]:
  listed = re.search(r"branch_computations=\{([^}]*)\}", made.attributes)
  if listed:
    return _NAME.findall(listed[1])
  names = (made.called("true_computation"), made.called("false_computation"))
  return [name for name in names if name]


def _flops(made: Instruction, inside: dict[str, Instruction]) -> float:
  """Two for each product of two numbers that both come from the operands."""
  left, right = (inside[name].arrays[0].shape for name in made.operands[:2])
  out = made.arrays[0].shape
  if made.opcode == "dot":
    contracted = re.search(
      r"lhs_contracting_dims=\{([\d,]*)\}", made.attributes
    )
    axes = contracted[1].split(",") if contracted and contracted[1] else []
    return 2.0 * math.prod(out) * math.prod(left[int(axis)] for axis in axes)
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", made.attributes)
  of_left, of_right, of_out = labels.groups()
  total = 2.0 * out[of_out.index("b")] * out[of_out.index("f")]
  total *= right[of_right.index("i")]
  window = _window(made.attributes)
  for axis in filter(str.isdigit, of_out):
    given = {key: values[int(axis)] for key, values in window.items()}
    total *= _pairs(
      out[of_out.index(axis)],
      right[of_right.index(axis)],
      left[of_left.index(axis)],
      **given,
    )
  return total


def _passes(made: Instruction, inside: dict[str, Instruction]) -> int:
  """How often the matrix unit of a TPU goes over a product's operands."""
  asked = re.search(r"operand_precision=\{(\w+)", made.attributes)
  whole = all(
    inside[name].arrays[0].dtype == "f32" for name in made.operands[:2]
  )
  return _PASSES.get(asked[1], 1) if asked and whole else 1


def _window(attributes: str) -> dict[str, list]:
  """`size=3x8 stride=1x7 pad=1_1x0_0` by key; only what is written there."""
  found = re.search(r"window=\{([^}]*)\}", attributes)
  window = {}
  for part in found[1].split() if found else ():
    key, _, value = part.partition("=")
    if key in ("stride", "lhs_dilate", "rhs_dilate"):
      window[key] = [int(n) for n in value.split("x")]
    elif key == "pad":
      window[key] = [int(n.split("_")[0]) for n in value.split("x")]
  return window


def _pairs(
  out: int,
  taps: int,
  inputs: int,
  *,
  stride: int = 1,
  pad: int = 0,
  lhs_dilate: int = 1,
  rhs_dilate: int = 1,
) -> int:
  """Pairs of output and tap that meet an input, not padding or a gap.

  Batches of matrix products become convolutions in which most taps meet gaps.
  """
  total, reach = 0, (inputs - 1) * lhs_dilate
  first = np.arange(out, dtype=np.int64) * stride - pad
  for tap in range(taps):
    place = first + tap * rhs_dilate
    inside = (place >= 0) & (place <= reach) & (place % lhs_dilate == 0)
    total += int(np.count_nonzero(inside))
  return total
