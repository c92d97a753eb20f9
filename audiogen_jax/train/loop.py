"""The one training loop.  What is trained is a `Task`: see `task`.

    mesh, work folder, data       inputs, workdir
    state and batches             starting: the last checkpoint, or a fresh one
    [ batch -> train_step         programs: the state is donated
      metrics of the step before  reporting: fetched while this one runs
      every so often: evaluate    evaluation: figures, sounds, spectrograms
                      judge       judging: sounds beside recordings
                      save        core.checkpoints ]
    the trained model in workdir/export

A run is a function of its configuration: keys are folded from the seed and the
step, rows of a batch from the seed and their number.  So one that was killed
goes on from its last checkpoint as if nothing had happened.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from audiogen_jax.core import checkpoint, config, processes, sharding
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.core.errors import InputError, Stopped
from audiogen_jax.core.sharding import Placement
from audiogen_jax.train import (
  evaluation,
  inputs,
  judging,
  metrics,
  overview,
  starting,
  stopping,
  workdir,
)
from audiogen_jax.train.inputs import DataConfig
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.reporting import Report, say
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.task import Task
from audiogen_jax.train.tracing import Trace


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """How long, and what is kept and shown on the way.

  Attributes:
    steps: Updates in all.
    seed: Of parameters, and of what is drawn in a step.
    log_every: Steps between two lines of the log, which are means.
    eval_every: Steps between two evaluations; 0 for none.
    save_every: Steps between two checkpoints; there is one more wherever the
      model is evaluated or judged, and at the end.
    keep: Checkpoints kept, beside the best.
    samples: Sounds to listen to at each evaluation.
    judge_every: Steps between two times that sounds are judged beside
      recordings, see `judging`; they are at the end, too.  0 for never.
    judge_clips: How many, of the first clips that are held out.
    judge_protocol: By which networks; a name of `embedding.protocols`.
    best: The metric that keeps the best checkpoint: `judge/fad`, where low is
      good, or `judge/clap`, where high is; empty for the task's own.
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
  judge_every: int = 0
  judge_clips: int = 64
  judge_protocol: str = "sfx"
  best: str = ""
  profile_step: int = 0
  wandb_project: str = ""

  def __post_init__(self) -> None:
    for name in ("steps", "log_every", "save_every", "keep"):
      if getattr(self, name) < 1:
        raise InputError(f"loop.{name} {getattr(self, name)} must be 1 or more")
    for name in (
      "eval_every",
      "samples",
      "judge_every",
      "profile_step",
      "seed",
    ):
      if getattr(self, name) < 0:
        raise InputError(f"loop.{name} {getattr(self, name)} must not be < 0")
    if self.judge_clips < 2:
      raise InputError(f"loop.judge_clips {self.judge_clips} must be 2 or more")
    judged = judging.measures(self.judge_protocol) if self.judge_every else {}
    if self.best and self.best not in judged:
      have = ", ".join(judged) or "none, for loop.judge_every is 0"
      raise InputError(
        f"loop.best {self.best!r} is no figure of the judge; there is {have}"
      )

  def ranking(self, task: Task) -> dict[str, Any]:
    """What `Checkpoints` keeps the best one by."""
    if not self.best:
      return {"best": task.best}
    measure = judging.measures(self.judge_protocol)[self.best]
    return {"best": self.best, "highest": measure.more_is_better}


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
  loop = run.loop
  # One mesh and one configuration, the same in all processes.
  settings = config.as_dict(run) | config.as_dict(task)
  processes.check_same(workdir.flat(settings) | {"workdir": folder})
  placement = Placement.make(sharding.make_mesh(**run.mesh), run.rules)
  placement.check_batch(run.data.batch, "data.batch")
  judging.check(loop.judge_every, task)
  if loop.eval_every or loop.judge_every:
    placement.check_batch(run.data.eval_batch, "data.eval_batch")
  path = checkpoint.path_of(folder)

  with contextlib.ExitStack() as stack:
    # The work folder, ours alone; signals; checkpoints.
    stack.enter_context(workdir.claimed(path, settings))
    caught = stack.enter_context(stopping.collected())
    checkpoints = stack.enter_context(
      Checkpoints(path / "checkpoints", keep=loop.keep, **loop.ranking(task))
    )

    # Data, held against what the task wants.
    loaders = [inputs.train_loader(run.data, loop.seed, placement, task)]
    if loop.eval_every or loop.judge_every:
      loaders.append(inputs.eval_loader(run.data, placement, task))
    processes.check_same(
      {f"the data of {x.folders}": x.digest for x in loaders}
    )

    # The state, from the last whole checkpoint or fresh, and its batches.
    programs = Programs(task, placement, loop.seed, loop.samples)
    spec = task.batch_spec(run.data.batch, run.data.duration_s)
    judge = None
    if loop.judge_every:
      judge = judging.Judge(
        programs,
        placement,
        loaders[1],
        spec,
        rate_hz=task.rate_hz,
        protocol=loop.judge_protocol,
        clips=loop.judge_clips,
      )
    state, batches = starting.start(
      programs, task, placement, loaders[0], checkpoints, spec
    )
    stack.enter_context(batches)
    first = int(state.step) + 1
    if judge and first <= loop.steps:
      judge.listen(state)
    processes.agreed(lambda: workdir.note(path, settings))

    # What is shown: a log, the table of parameters, means, a trace.
    log = stack.enter_context(
      metrics.Log(
        path,
        primary=jax.process_index() == 0,
        step=first - 1,
        wandb_project=loop.wandb_project or None,
        config=settings,
      )
    )
    flops = task.model_flops(run.data.batch, run.data.duration_s)
    overview.tell(path, placement, state, flops)
    report = Report(
      log,
      checkpoints,
      step=first - 1,
      steps=loop.steps,
      batch=run.data.batch,
      flops=flops,
    )
    trace = stack.enter_context(
      Trace(path / "profile", loop.profile_step, loop.steps)
    )

    def evaluated(state: TrainState, step: int) -> dict[str, float]:
      """Figures of the held-out data and of the judge, where they are due."""
      figures = {}
      if _due(loop.eval_every, step, loop.steps):
        figures |= evaluation.evaluate(
          programs, task, state, loaders[1], spec, step, log
        )
      if judge and step and _due(loop.judge_every, step, loop.steps):
        figures |= judge.figures(state, step, log)
      return figures

    # Steps.
    if first == 1:
      evaluated(state, 0)
    for step in range(first, loop.steps + 1):
      with trace.around(step) as computed:
        batch = inputs.arrays(next(batches), spec)
        # What a step needs is on its devices: nothing goes there unasked.
        with jax.transfer_guard("disallow"):
          state, values = programs.step(state, batch)
        computed.append(values)
      report.add(step, values, programs.names)
      if step == first:  # its time is the compiler's
        jax.block_until_ready(values)
        report.restart_clock(step)

      last = step == loop.steps
      # What is left after the last step is what a stop would want done.
      stop = 0 if last else stopping.agreed(caught, checkpoints, step)
      every = loop.eval_every, loop.judge_every
      due = any(_due(each, step, loop.steps) for each in every)
      save = last or stop or due or step % loop.save_every == 0
      if save or step % loop.log_every == 0:
        report.write(step)
      if not save:
        continue
      figures = None if stop else evaluated(state, step)
      checkpoints.save(step, state, {"loader": batches.state}, figures or None)
      report.resume_clock()
      if stop:
        checkpoints.wait()
        raise Stopped(stop, step)
    checkpoints.wait()

    # The trained model.
    export = path / "export"
    processes.agreed(lambda: checkpoint.remove(export))
    task.export(state, export)
    say(f"the trained model is in {export}")
  return state


def _due(every: int, step: int, steps: int) -> bool:
  """Whether something is, that is done every so often and at the end."""
  return bool(every) and (step % every == 0 or step == steps)
