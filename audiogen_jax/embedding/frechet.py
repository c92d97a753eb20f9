"""The Fréchet distance between two sets of embeddings, as FAD and FD have it.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

of means and covariances (Dowson and Landau, 1982; Heusel et al., 2017; for
sound, Kilgour et al., 2019).  No matrix root is taken: with roots R'R = C of
the covariances, the last trace is the sum of the singular values of R1 R2'.
That holds for sets smaller than the dimension, too, whose own centred rows are
such a root; there the published programs give what their rounding lets them.
"""

import dataclasses
import os
import pathlib
import warnings
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError

_INFINITY_SIZES = 25
_INFINITY_LEAST = 500  # rows; fadtk's smallest set


@dataclasses.dataclass(frozen=True)
class Statistics:
  """What a Fréchet distance knows of a set.

  Attributes:
    count: Rows that were gathered.
    mean: Of the rows.
    root: Its product root' root is the covariance (divisor count - 1).  It has
      `count` rows or fewer, and never more than the dimension.
  """

  count: int
  mean: Float[np.ndarray, " d"]
  root: Float[np.ndarray, "r d"]

  @property
  def covariance(self) -> Float[np.ndarray, "d d"]:
    """Of the rows, with divisor count - 1."""
    return self.root.T @ self.root


class Gatherer:
  """Gathers the statistics of a set in one pass, in float64.

  It holds the rows themselves while they are no more than the dimension, and
  from then on their mean and scatter: of a million clips as much as of a few.
  Parts of a set can be gathered apart and merged (Chan et al., 1983).
  """

  def __init__(self) -> None:
    self._rows: list[np.ndarray] = []
    self._count = 0
    self._mean: np.ndarray | None = None
    self._scatter: np.ndarray | None = None  # None while rows are held

  def add(self, rows: Float[np.ndarray, "n d"]) -> None:
    """Takes in more rows.

    Raises:
      InputError: If they are of another dimension than those before, or hold
        NaN or infinity, with how many of them.
    """
    rows = np.asarray(rows, np.float64)
    if not len(rows):
      return
    bad = np.count_nonzero(~np.isfinite(rows).all(axis=1))
    if bad:
      raise InputError(
        f"{bad:,} of {len(rows):,} embeddings hold NaN or infinity; check the"
        " weights and the sounds"
      )
    if self._mean is None:
      self._mean = np.zeros(rows.shape[1])
    d = len(self._mean)
    if rows.shape[1] != d:
      raise InputError(
        f"embeddings of {d} and of {rows.shape[1]} values are no one set; take"
        " one network for all"
      )
    if self._scatter is None and self._count + len(rows) <= d:
      self._rows.append(rows)
      self._count += len(rows)
      return
    self._collapse()
    self._absorb(*_moments(rows))

  def merge(self, other: "Gatherer") -> None:
    """Takes in what another one has gathered."""
    for rows in other._rows:
      self.add(rows)
    if other._scatter is not None:
      if self._mean is None:
        self._mean = np.zeros(len(other._mean))
      self._collapse()
      self._absorb(other._count, other._mean, other._scatter)

  def statistics(self) -> Statistics:
    """Those of all rows so far.

    Raises:
      InputError: If there are fewer than two.
    """
    if self._count < 2:
      raise InputError(
        f"a covariance needs two embeddings, there are {self._count}; take more"
        " or longer clips"
      )
    if self._scatter is None:
      rows = np.concatenate(self._rows)
      mean = rows.mean(axis=0)
      return Statistics(
        self._count, mean, (rows - mean) / np.sqrt(self._count - 1)
      )
    covariance = self._scatter / (self._count - 1)
    return Statistics(self._count, self._mean.copy(), _root(covariance))

  def _collapse(self) -> None:
    """From rows to mean and scatter."""
    if self._scatter is None:
      d = len(self._mean)
      rows, self._rows = self._rows, []
      self._count, self._scatter = 0, np.zeros((d, d))
      if rows:
        self._absorb(*_moments(np.concatenate(rows)))

  def _absorb(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
    total = self._count + n
    step = mean - self._mean
    self._scatter += scatter
    self._scatter += np.outer(step, step) * (self._count * n / total)
    self._mean = self._mean + step * (n / total)
    self._count = total


def gather(rows: Float[np.ndarray, "n d"]) -> Statistics:
  """The statistics of rows at hand, with the errors of `Gatherer`."""
  gatherer = Gatherer()
  gatherer.add(rows)
  return gatherer.statistics()


def distance(first: Statistics, second: Statistics) -> float:
  """The Fréchet distance; symmetric, and 0 to rounding of a set to itself.

  Warns if a set has no more rows than the dimension: its covariance is
  singular, and the distance grows as the set shrinks.

  Raises:
    InputError: If the sets are of different dimensions.
  """
  d, e = len(first.mean), len(second.mean)
  if d != e:
    raise InputError(
      f"embeddings of {d} and of {e} values have no distance; take one network"
      " for both sets"
    )
  small = [s.count for s in (first, second) if s.count <= d]
  if small:
    warnings.warn(
      f"sets of {first.count:,} and {second.count:,} embeddings of {d} values:"
      f" a covariance needs more than {d}, and the distance comes out too"
      " large; compare it with sets of the same size alone",
      stacklevel=2,
    )
  step = first.mean - second.mean
  common = scipy.linalg.svdvals(first.root @ second.root.T).sum()
  traces = np.sum(first.root**2) + np.sum(second.root**2)
  return float(step @ step + traces - 2 * common)


class Infinity(NamedTuple):
  """FAD of ever larger sets, continued to infinitely many embeddings.

  Attributes:
    value: The intercept.
    slope: Of the line over 1 / size.
    error: Standard error of the intercept.
    r2: How much of the distances' variance the line explains.
    sizes: Embeddings drawn.
    distances: At those sizes.
  """

  value: float
  slope: float
  error: float
  r2: float
  sizes: tuple[int, ...]
  distances: tuple[float, ...]


def at_infinity(
  rows: Float[np.ndarray, "n d"],
  reference: Statistics,
  draws: np.random.RandomState,
) -> Infinity:
  """FAD-infinity (Chong and Forsyth, 2020; Gui et al., 2024, as in fadtk).

  Twenty-five sizes from 500 to all rows, each drawn with replacement; a
  straight line over 1 / size, of which the intercept counts.

  Args:
    rows: Embeddings of the generated set.
    reference: Of the other set, which is always whole.
    draws: Numpy's legacy generator, as the original draws by it.

  Raises:
    InputError: If there are 500 rows or fewer.
  """
  if len(rows) <= _INFINITY_LEAST:
    raise InputError(
      f"FAD-infinity draws sets of {_INFINITY_LEAST} embeddings and more, there"
      f" are {len(rows):,}; take more clips"
    )
  sizes = np.linspace(_INFINITY_LEAST, len(rows), _INFINITY_SIZES).astype(int)
  found = []
  for size in sizes:
    drawn = rows[draws.choice(len(rows), size=size, replace=True)]
    found.append(distance(gather(drawn), reference))
  line = scipy.stats.linregress(1 / sizes, found)
  return Infinity(
    float(line.intercept),
    float(line.slope),
    float(line.intercept_stderr),
    float(line.rvalue**2),
    tuple(sizes.tolist()),
    tuple(found),
  )


def write(
  path: pathlib.Path, found: Mapping[str, Statistics], about: Mapping[str, str]
) -> None:
  """Writes statistics of several measures as .npz, and words beside them.

  The fields are `fad/mean`, `fad/covariance`, `fad/count`, and the words.
  """
  fields = dict(about)
  for name, one in found.items():
    fields[f"{name}/mean"] = one.mean
    fields[f"{name}/covariance"] = one.covariance
    fields[f"{name}/count"] = one.count
  with io.whole(path) as part, part.open("wb") as file:
    np.savez(file, **fields)


def read(
  path: str | os.PathLike,
) -> tuple[dict[str, Statistics], dict[str, str]]:
  """What `write` wrote.

  Raises:
    InputError: If the file is none of these, or damaged.
  """
  try:
    with open(path, "rb") as opened, np.load(opened) as file:
      fields = {name: file[name] for name in file.files}
    names = [n[: -len("/mean")] for n in fields if n.endswith("/mean")]
    if not names:
      raise KeyError("mean")
    parts = {
      name: (
        fields.pop(f"{name}/mean").astype(np.float64),
        fields.pop(f"{name}/covariance").astype(np.float64),
        int(fields.pop(f"{name}/count")),
      )
      for name in names
    }
    about = {name: str(value) for name, value in fields.items()}
  except zipfile.BadZipFile:
    raise InputError(f"{path} is damaged; write it again") from None
  except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
    raise InputError(
      f"{path} holds no statistics ({type(error).__name__}); write it with"
      " audiogen evaluate statistics"
    ) from None
  return {name: _checked(path, *part) for name, part in parts.items()}, about


def _checked(
  path: str | os.PathLike, mean: np.ndarray, covariance: np.ndarray, count: int
) -> Statistics:
  if covariance.shape != (len(mean), len(mean)) or count < 2:
    raise InputError(
      f"{path} holds a covariance of shape {covariance.shape} to a mean of"
      f" {len(mean)} values and {count} embeddings; write it again"
    )
  if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
    raise InputError(f"{path} holds NaN or infinity; write it again")
  return Statistics(count, mean, _root(covariance))


def _moments(rows: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
  mean = rows.mean(axis=0)
  centred = rows - mean
  return len(rows), mean, centred.T @ centred


def _root(covariance: np.ndarray) -> np.ndarray:
  """Rows of eigenvectors times roots of eigenvalues; rounding's own left out.

  An eigenvalue that is none but rounding, 1e-16 of the largest, would come out
  of the root as 1e-8 of it.
  """
  values, vectors = scipy.linalg.eigh((covariance + covariance.T) / 2)
  floor = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
  kept = values > floor
  return (vectors[:, kept] * np.sqrt(values[kept])).T
