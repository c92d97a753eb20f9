"""Metrics of steps on their way from the devices to a person."""

import sys

import jax
import numpy as np

from audiogen_jax.core import sharding
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.core.errors import InputError
from audiogen_jax.train import metrics
from audiogen_jax.train.metrics import Log


class Report:
  """Collects the metrics of steps and writes their means.

  A step's metrics are fetched once the next one runs, so that the devices wait
  for nobody.
  """

  def __init__(
    self,
    log: Log,
    checkpoints: Checkpoints,
    *,
    step: int,
    steps: int,
    batch: int,
    flops: float,
  ) -> None:
    """Begins at `step`, which may be 0.

    Args:
      log: Where means go.
      checkpoints: Of the run, for what is said of one that diverged.
      step: Updates made so far.
      steps: In all.
      batch: Rows of a step, over all processes.
      flops: Operations of a step; 0 if they are not known.
    """
    self._log, self._checkpoints = log, checkpoints
    self._steps, self._batch, self._flops = steps, batch, flops
    self._rate = metrics.Rate(step)
    self._pending: tuple[int, jax.Array] | None = None
    self._names: tuple[str, ...] = ()
    self._since: list[np.ndarray] = []  # metrics since the last line

  def add(self, step: int, values: jax.Array, names: tuple[str, ...]) -> None:
    """Takes the metrics of a step, `values` by `names`; fetches the last ones.

    Raises:
      InputError: If one of the step before was not finite.
    """
    self._fetch()
    self._pending, self._names = (step, values), names

  def write(self, step: int) -> None:
    """Prints and logs the means of all steps since the last time.

    Raises:
      InputError: If a metric is not finite.
    """
    self._fetch()
    means = np.mean(self._since, axis=0).tolist()
    means = dict(zip(self._names, means, strict=True))
    self._since = []
    per_s = self._rate.take(step)
    say(
      metrics.progress_line(
        step,
        self._steps,
        means,
        steps_per_s=per_s,
        batch=self._batch,
        flops=self._flops,
      )
    )
    scalars = {f"train/{name}": value for name, value in means.items()}
    if per_s is not None:
      scalars["speed/step_s"] = 1 / per_s
      scalars["speed/examples_per_s"] = self._batch * per_s
      if self._flops:
        scalars["speed/flops_per_s"] = self._flops * per_s
    self._log.scalars(step, scalars)

  def restart_clock(self, step: int) -> None:
    """Counts the time of steps from `step` on."""
    self._rate = metrics.Rate(step)

  def resume_clock(self) -> None:
    """Leaves out the time since the last line: it was not that of steps."""
    self._rate.resume()

  def _fetch(self) -> None:
    if self._pending is None:
      return
    step, values = self._pending
    self._pending = None
    values = np.asarray(sharding.fetch(values), np.float64)
    self._check(step, dict(zip(self._names, values.tolist(), strict=True)))
    self._since.append(values)

  def _check(self, step: int, values: dict[str, float]) -> None:
    bad = metrics.first_not_finite(values)
    if bad is None:
      return
    self._checkpoints.wait()
    latest = self._checkpoints.latest()
    whole = f"that of step {latest:,}" if latest is not None else "none yet"
    raise InputError(
      f"training diverged: {bad} is {values[bad]} at step {step:,}.  A lower"
      " --config.optim.lr may help, or look at the data if it is the"
      f" input_rms.  The last checkpoint is whole: {whole}"
    )


def say(line: str) -> None:
  """Prints a line to stderr, in process 0 alone."""
  if jax.process_index() == 0:
    print(line, file=sys.stderr, flush=True)
