"""The one training loop.  What is trained is a `Task`: see `task`.

    mesh -> state, sharded as it is made -> checkpoint, if there is one
    loader -> [ train_step, donated -> metrics of the step before -> log ]
              every so often: evaluate, sound samples, checkpoint
    done: the trained model in workdir/export

A run is a function of its configuration: keys are folded from the seed and the
step, rows of a batch from the seed and their number.  So one that was killed
goes on from its last checkpoint as if nothing had happened.
"""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from audiogen_jax.audio import drawing
from audiogen_jax.core import checkpoint, config, cost, processes, sharding
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.core.errors import InputError, Stopped
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.loader import Batches, Loader
from audiogen_jax.train import inputs, metrics, stopping, workdir
from audiogen_jax.train.inputs import DataConfig
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.task import Batch, Task


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """How long, and what is kept and shown on the way.

  Attributes:
    steps: Updates in all.
    seed: Of parameters, and of what is drawn in a step.
    log_every: Steps between two lines of the log, which are means.
    eval_every: Steps between two evaluations; 0 for none.
    save_every: Steps between two checkpoints; there is one more at each
      evaluation and at the end.
    keep: Checkpoints kept, beside the best.
    samples: Sounds to listen to at each evaluation.
    profile_step: The step at which a trace of five steps begins, for
      TensorBoard or Perfetto; 0 for none.
    wandb_project: Where Weights & Biases gets the log, too; empty for not.
  """

  steps: int
  seed: int = 0
  log_every: int = 50
  eval_every: int = 1000
  save_every: int = 1000
  keep: int = 2
  samples: int = 4
  profile_step: int = 0
  wandb_project: str = ""

  def __post_init__(self):
    for name in ("steps", "log_every", "save_every", "keep"):
      if getattr(self, name) < 1:
        raise InputError(f"loop.{name} {getattr(self, name)} must be 1 or more")
    for name in ("eval_every", "samples", "profile_step", "seed"):
      if getattr(self, name) < 0:
        raise InputError(f"loop.{name} {getattr(self, name)} must not be < 0")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """A run, without what is trained.

  Attributes:
    loop: How long.
    data: Of what.
    mesh: Devices along each mesh axis; -1 for all that are left.
    rules: On which mesh axes each meaning lives.
  """

  loop: LoopConfig
  data: DataConfig
  mesh: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {"data": -1}
  )
  rules: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=lambda: {"batch": ("data",)}
  )


def train(run: RunConfig, task: Task, folder: str) -> TrainState:
  """Trains until `run.loop.steps`, from the last checkpoint if there is one.

  Args:
    run: The run.
    task: What to train.
    folder: The work folder, local or in a bucket.

  Returns:
    The last state.

  Raises:
    InputError: For data, meshes and folders that cannot be used, a folder of
      another configuration, and for metrics that are no longer finite.
    Stopped: After a clean stop by SIGTERM or SIGINT.
  """
  told = _told(run, task)
  processes.check_same(workdir.flat(told) | {"workdir": folder})
  placement = Placement.make(sharding.make_mesh(**run.mesh), run.rules)
  placement.check_batch(run.data.batch, "data.batch")
  if run.loop.eval_every:
    placement.check_batch(run.data.eval_batch, "data.eval_batch")
  path = checkpoint.place(folder)
  with contextlib.ExitStack() as stack:
    stack.enter_context(workdir.claimed(path, told))
    caught = stack.enter_context(stopping.collected())
    checkpoints = stack.enter_context(
      Checkpoints(path / "checkpoints", best=task.best, keep=run.loop.keep)
    )
    return _Run(run, task, path, placement, checkpoints).go(caught)


class _Run:
  """What the parts of the loop share."""

  def __init__(
    self,
    run: RunConfig,
    task: Task,
    path: epath.Path,
    placement: Placement,
    checkpoints: Checkpoints,
  ):
    self.run, self.task, self.path = run, task, path
    self.placement, self.checkpoints = placement, checkpoints
    self.spec = task.batch_spec(run.data.batch, run.data.duration_s)
    loop = run.loop
    self.programs = Programs(task, placement, loop.seed, loop.samples)
    self.primary = jax.process_index() == 0  # speaks, and writes the log
    self.pending: tuple[int, jax.Array] | None = None
    self.window: list[dict[str, float]] = []
    self.traced: int | None = None  # the first step of a trace, while it runs

  def go(self, caught: list[int]) -> TrainState:
    """From the last checkpoint to the last step."""
    loop = self.run.loop
    loader = inputs.train_loader(
      self.run.data, loop.seed, self.placement, self.task
    )
    evaluation = None
    if loop.eval_every:
      evaluation = inputs.eval_loader(self.run.data, self.placement, self.task)
    opened = [loader] if evaluation is None else [loader, evaluation]
    processes.check_same({f"the data of {x.folders}": x.digest for x in opened})
    now, batches = self._start(loader)
    done = int(now.step)
    told = _told(self.run, self.task)
    processes.agreed(lambda: workdir.note(self.path, told))
    self.log = metrics.Log(
      self.path,
      primary=self.primary,
      step=done,
      wandb_project=loop.wandb_project or None,
      config=told,
    )
    with self.log, batches:
      self._tell_size(now)
      if not done:
        self._evaluate(now, evaluation, done)
      self.rate = metrics.Rate(done)
      first = done + 1
      while done < loop.steps:
        with self._profiled(done + 1) as traced:
          batch = _arrays(next(batches), self.spec)
          now, values = self.programs.step(now, batch)
          traced.append(values)
        self._take()
        done += 1
        self.pending = done, values
        if done == first:  # its time is the compiler's
          jax.block_until_ready(values)
          self.rate = metrics.Rate(done)
        last = done == loop.steps
        # What is left after the last step is what a stop would want done.
        stop = 0 if last else self._stopping(caught, done)
        due = loop.eval_every and done % loop.eval_every == 0
        save = last or stop or due or done % loop.save_every == 0
        if save or done % loop.log_every == 0:
          self._take()
          self._report(done)
        if not save:
          continue
        figures = None
        if loop.eval_every and (due or last) and not stop:
          figures = self._evaluate(now, evaluation, done)
        notes = {"loader": batches.state}
        self.checkpoints.save(done, now, notes, figures)
        self.rate.resume()
        if stop:
          self._end_trace(done)
          self.checkpoints.wait()
          raise Stopped(stop, done)
      self.checkpoints.wait()
    self._export(now)
    return now

  def _start(self, loader: Loader) -> tuple[TrainState, Batches]:
    """The state and the batches to go on from."""
    latest = processes.agreed(self.checkpoints.latest)
    if latest is None:
      now = self.programs.init(self.programs.key)
      with loader.batches() as first:
        arrays = (_arrays(batch, self.spec) for batch in first)
        with self.placement.active():
          now = self.task.prepare(now, arrays, self.programs.key)
      now = jax.tree.map(sharding.moved, now, self.programs.places)
      return now, loader.batches()
    like = jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      self.programs.like,
      self.programs.places,
    )
    while True:
      found = reason = None
      try:
        found = self.checkpoints.restore(latest, like)
      except InputError as error:
        reason = str(error)
      # What one process cannot read, none of them goes on from.
      reasons = list(filter(None, processes.gathered(reason)))
      if not reasons:
        self._say(f"going on from step {latest:,}")
        now, notes = found
        return now, loader.batches(notes["loader"])
      older = [s for s in self.checkpoints.steps() if s < latest]
      if not older:
        raise InputError(reasons[0])
      self._say(f"{reasons[0]}: going on from the one before")
      self.checkpoints.set_aside(latest)
      latest = older[-1]

  def _take(self) -> None:
    """Fetches the metrics of the step before, while the next one runs."""
    if self.pending is None:
      return
    step, values = self.pending
    self.pending = None
    values = sharding.fetch(values).tolist()
    values = dict(zip(self.programs.names, values, strict=True))
    bad = metrics.first_not_finite(values)
    if bad is not None:
      self.checkpoints.wait()
      kept = self.checkpoints.latest()
      whole = f"that of step {kept:,}" if kept is not None else "none yet"
      raise InputError(
        f"training diverged: {bad} is {values[bad]} at step {step:,}.  A lower"
        " --config.optim.lr may help, or look at the data if it is the"
        f" input_rms.  The last checkpoint is whole: {whole}"
      )
    self.window.append(values)

  def _report(self, step: int) -> None:
    """Logs the means since the last report."""
    if not self.window:
      return
    means = {
      name: float(np.mean([values[name] for values in self.window]))
      for name in self.programs.names
    }
    self.window = []
    steps_per_s = self.rate.take(step)
    batch = self.run.data.batch
    self._say(
      metrics.progress_line(
        step,
        self.run.loop.steps,
        means,
        steps_per_s=steps_per_s,
        batch=batch,
        flops=self.flops,
      )
    )
    told = {f"train/{name}": value for name, value in means.items()}
    if steps_per_s is not None:
      told["speed/step_s"] = 1 / steps_per_s
      told["speed/examples_per_s"] = batch * steps_per_s
      told["speed/flops_per_s"] = self.flops * steps_per_s
    self.log.scalars(step, told)

  def _evaluate(
    self, now: TrainState, loader: Loader | None, step: int
  ) -> dict[str, float] | None:
    """Figures over the evaluation set, and a few sounds from it."""
    if loader is None:
      return None
    sums = None
    with loader.batches() as batches:
      for number, batch in enumerate(batches):
        arrays = _arrays(batch, self.spec | {"valid": None})
        more = self.programs.evaluate(now, arrays)
        sums = more if sums is None else jax.tree.map(jnp.add, sums, more)
        if number == 0 and self.run.loop.samples:
          self._listen(now, arrays, step)
    figures = self.task.summary(jax.tree.map(sharding.fetch, sums))
    shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    self._say(f"evaluation at step {step:,}: {shown}")
    self.log.scalars(step, {f"eval/{k}": v for k, v in figures.items()})
    self.log.flush()
    return figures

  def _listen(self, now: TrainState, batch: Batch, step: int) -> None:
    """Sounds and their spectrograms, for the log."""
    sounds = self.programs.samples(now, batch)
    if not self.primary:
      return
    sounds = {name: sharding.fetch(rows) for name, rows in sounds.items()}
    self.log.audio(step, sounds, self.task.rate_hz)
    pictures = {
      name: np.stack([drawing.mel_image(s, self.task.rate_hz) for s in rows])
      for name, rows in sounds.items()
    }
    self.log.images(step, pictures)

  def _export(self, now: TrainState) -> None:
    """The trained model, in place of one exported before."""
    folder = self.path / "export"
    processes.agreed(lambda: checkpoint.remove(folder))
    self.task.export(now, folder)
    self._say(f"the trained model is in {folder}")

  @contextlib.contextmanager
  def _profiled(self, step: int) -> Iterator[list]:
    """Traces five steps from `profile_step` on, or what a run has of them.

    A run that goes on from within the five traces the rest.  The caller puts
    into the list what a step computes: a trace ends once that is there.
    """
    first, computed = self.run.loop.profile_step, []
    last = min(first + 4, self.run.loop.steps)
    if first and self.traced is None and first <= step <= last:
      jax.profiler.start_trace(str(self.path / "profile"))
      self.traced = step
    yield computed
    if self.traced is not None and step == last:
      jax.block_until_ready(computed)
      self._end_trace(step)

  def _end_trace(self, step: int) -> None:
    """Writes the trace, if one has begun; `step` is the last that it holds."""
    if self.traced is None:
      return
    jax.profiler.stop_trace()
    self._say(
      f"a trace of steps {self.traced:,} to {step:,} is in"
      f" {self.path / 'profile'}"
    )
    self.traced = None

  def _stopping(self, caught: list[int], step: int) -> int:
    """The signal that ends the run now, or 0; all processes agree."""
    if jax.process_count() == 1:
      return caught[0] if caught else 0
    return signal.SIGTERM if self.checkpoints.reached_preemption(step) else 0

  def _tell_size(self, now: TrainState) -> None:
    """Parameters, devices and the work of a step."""
    self.flops = cost.flops(
      self.task.train_step, self.programs.like, self.spec, self.programs.key
    )
    count = sum(x.size for x in jax.tree.leaves(now.params))
    devices = self.placement.mesh.devices
    shape = " x ".join(f"{k} {v}" for k, v in self.placement.mesh.shape.items())
    self._say(
      f"{count:,} parameters; {self.flops:.3g} FLOP a step; {devices.size}"
      f" {devices.flat[0].device_kind} ({shape})"
    )

  def _say(self, line: str) -> None:
    if self.primary:
      print(line, file=sys.stderr, flush=True)


def _arrays(batch: Mapping[str, Any], names: Mapping[str, Any]) -> Batch:
  """What a step needs of a batch; strings stay behind."""
  return {name: batch[name] for name in names}


def _told(run: RunConfig, task: Task) -> dict[str, Any]:
  """All of a run's configuration, as plain values."""
  return config.as_dict(run) | config.as_dict(task)
