"""What a layer sees: receptive fields that layers declare and stacks add up.

Each layer of `codec/` and `vocoder/` says in `field` which of its inputs an
output depends on.  `series` and `parallel` give the field of a composition, so
that nobody derives it from a configuration a second time, and
`tests/test_fields.py` holds each declaration against the gradient.
"""

import functools
import math
from typing import NamedTuple


class ReceptiveField(NamedTuple):
  """The inputs that one output depends on.

  Output `j` sees the inputs `⌊(j down - before) / up⌋` to
  `⌊(j down + after) / up⌋`.

  Attributes:
    before: How far output `j` looks back, in steps of `1 / up` inputs;
      infinite for a layer that carries state, or looks at the whole.
    after: How far it looks ahead, in the same steps.
    down: Inputs that a layer moves on by for each output: its stride.
    up: Outputs of each input: the ratio of a transposed convolution.
  """

  before: int | float = 0
  after: int | float = 0
  down: int = 1
  up: int = 1

  @property
  def bounded(self) -> bool:
    """Whether an output depends on finitely many inputs."""
    return math.isfinite(self.before) and math.isfinite(self.after)

  @property
  def carries_state(self) -> bool:
    """Whether it looks back without end, but not ahead: a state can be kept."""
    return math.isinf(self.before) and math.isfinite(self.after)

  def inputs(self, first: int, last: int) -> tuple[int, int]:
    """First and last input that the outputs `first` to `last` depend on."""
    return (
      (first * self.down - self.before) // self.up,
      (last * self.down + self.after) // self.up,
    )

  def context(self) -> tuple[int, int]:
    """Frames to the left and right that a frame needs besides its own.

    A frame is the least block of whole inputs and outputs: `down` inputs or
    `up` outputs, of which one is 1.
    """
    first, last = self.inputs(0, self.up - 1)
    return -(first // self.down), last // self.down


POINTWISE = ReceptiveField()
EVERYTHING = ReceptiveField(math.inf, math.inf)


def series(*fields: ReceptiveField) -> ReceptiveField:
  """The field of layers one after the other, the input's neighbour first.

  Raises:
    ValueError: If a layer that widens follows one that strides: what their
      composition sees is not the same for each output.
  """
  return functools.reduce(_then, fields, POINTWISE)


def _then(one: ReceptiveField, other: ReceptiveField) -> ReceptiveField:
  if one.down > 1 and other.up > 1:
    raise ValueError(
      f"a stride of {one.down} before a ratio of {other.up} has no one field"
    )
  return ReceptiveField(
    one.before * other.up + other.before * one.down,
    one.after * other.up + other.after * one.down,
    one.down * other.down,
    one.up * other.up,
  )


def parallel(*fields: ReceptiveField) -> ReceptiveField:
  """The field of a sum of layers that read the same input at one rate."""
  (rate,) = {(field.down, field.up) for field in fields}
  return ReceptiveField(
    max(field.before for field in fields),
    max(field.after for field in fields),
    *rate,
  )
