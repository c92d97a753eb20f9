"""The checkpoints of a training run: states under their step numbers."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from audiogen_jax.core import processes
from audiogen_jax.core.checkpoint import path_of
from audiogen_jax.core.errors import InputError, Stopped
from audiogen_jax.core.types import Tree


class Checkpoints:
  """The checkpoints of a training run: states under their step numbers.

  Written in the background; a folder takes its number only once it is whole, so
  a kill or a full disk costs what was being written and nothing before.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    best: str,
    highest: bool = False,
    keep: int = 2,
  ) -> None:
    """Opens or makes the folder.

    Args:
      folder: Where.
      best: A metric: the checkpoint where it is lowest is kept, too.
      highest: Whether it is that where it is highest, instead.
      keep: How many of the latest are kept.
    """
    policies = ocp.checkpoint_managers.preservation_policy
    self._folder, self._best = path_of(folder), best
    self._sign = -1 if highest else 1
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(keep),
            policies.BestN(
              get_metric_fn=self._rank,
              reverse=True,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        # Without it metrics would be forgotten, and with them the best.
        best_fn=self._rank,
        best_mode="min",
        cleanup_tmp_directories=True,
        # Made behind the scenes, a folder that cannot be has all processes
        # wait ten minutes for it.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
      ),
    )

  def latest(self) -> int | None:
    """Step of the last whole checkpoint."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """Steps of all whole checkpoints."""
    return sorted(self._manager.all_steps())

  def best(self) -> int | None:
    """Step of the checkpoint whose metric is best; None if none has one."""
    known = {}
    for step in self.steps():
      path = self._folder / str(step) / "metrics" / "metrics"
      if path.exists():
        metrics = json.loads(path.read_text())
        if self._best in metrics:
          known[step] = self._rank(metrics)
    return min(known, key=known.get) if known else None

  def _rank(self, metrics: dict[str, float]) -> float:
    """Low for a good checkpoint; one without the metric is the worst."""
    if self._best not in metrics:
      return float("inf")
    return self._sign * metrics[self._best]

  def save(
    self,
    step: int,
    state: Tree,
    notes: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ) -> None:
    """Begins to write a state; the call returns once its arrays are copied.

    Args:
      step: Updates made so far, the checkpoint's number.
      state: Arrays, wherever they live.
      notes: Plain values that belong to it, such as the state of a loader.
      metrics: Those of this very state, as far as it was evaluated or judged.

    Raises:
      InputError: If this or the last checkpoint could not be written.
    """
    items = ocp.args.Composite(
      state=ocp.args.PyTreeSave(state), notes=ocp.args.JsonSave(notes)
    )
    processes.agreed(lambda: self._probe(step))
    with self._explained(step):
      self._manager.save(step, args=items, metrics=metrics, force=True)

  def _probe(self, step: int) -> None:
    """Whether the folder can be written, before all processes begin to."""
    probe = self._folder / ".probe"
    with self._explained(step):
      probe.write_bytes(b"")
      probe.unlink(missing_ok=True)

  def wait(self) -> None:
    """Until everything is written.

    Raises:
      InputError: If it cannot be.
    """
    with self._explained(None):
      self._manager.wait_until_finished()

  def restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """A state and its notes.

    Args:
      step: Of a whole checkpoint.
      like: Abstract arrays with shardings: any mesh may restore what any other
        has saved.

    Raises:
      InputError: If what is stored does not fit, or is damaged.
    """
    items = ocp.args.Composite(
      state=ocp.args.PyTreeRestore(
        like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
      ),
      notes=ocp.args.JsonRestore(),
    )
    try:
      found = self._manager.restore(step, args=items)
    except (ValueError, KeyError, OSError) as error:
      reason = " ".join(str(error).split())[:200]
      raise InputError(
        f"checkpoint {self._folder / str(step)} cannot be restored: {reason};"
        f" remove that folder to go on from an earlier one"
      ) from None
    return found["state"], found["notes"]

  def set_aside(self, step: int) -> None:
    """Gives a damaged checkpoint another name, so that its number is free."""
    old = self._folder / str(step)

    def rename() -> None:
      old.rename(self._folder / f"damaged-{step}-{uuid.uuid4().hex[:8]}")

    with self._explained(step):
      processes.agreed(rename)
      self._manager.reload()

  def reached_preemption(self, step: int) -> bool:
    """Whether the machines are about to be taken away, agreed by all."""
    return self._manager.reached_preemption(step)

  def close(self) -> None:
    """Waits and ends the threads."""
    with self._explained(None):
      self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
    """Closes; an error on the way out is not hidden by another."""
    if error is None or isinstance(error, Stopped):
      self.close()
    elif jax.process_count() == 1:
      with contextlib.suppress(InputError):
        self.close()
    # Elsewhere it would wait ten minutes for what another process cannot write.

  @contextlib.contextmanager
  def _explained(self, step: int | None) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      reason = " ".join(str(error).split())[:200]
      what = (
        "a checkpoint" if step is None else f"the checkpoint of step {step}"
      )
      raise InputError(
        f"{what} could not be written to {self._folder}: {reason}; the last"
        f" whole one is that of step {self.latest()}.  Make room and run the"
        " same command again"
      ) from None
