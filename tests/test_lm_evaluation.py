"""What an evaluation of a language model sums, and which weights it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from test_lm_task import batches, small, start

from audiogen_jax.train.lm_sources import Origins


def test_batches_weigh_as_many_rows_as_they_have():
  task = small()
  state = start(task)
  (batch,) = batches(1)
  evaluate = jax.jit(task.eval_step)
  first = np.arange(8) < 2
  sums = [evaluate(state, batch | {"valid": v}) for v in (first, ~first)]
  added = task.summary(jax.device_get(jax.tree.map(jnp.add, *sums)))
  whole = evaluate(state, batch | {"valid": first | True})
  assert added == pytest.approx(task.summary(jax.device_get(whole)), rel=1e-5)


def test_the_average_is_what_is_evaluated_and_exported(monkeypatch):
  task = small()
  state = start(task)
  other = jax.tree.map(lambda x: x + 0.05, state.params)
  (batch,) = batches(1)
  batch |= {"valid": np.ones(8, bool)}
  evaluate = jax.jit(task.eval_step)
  raw, average, both = (
    evaluate(state._replace(params=p, average=a), batch)["ce"]
    for p, a in (
      (state.params, state.params),
      (state.params, other),
      (other, other),
    )
  )
  np.testing.assert_array_equal(average, both)
  assert np.all(average != raw)
  exported = []
  monkeypatch.setattr(
    Origins, "export", lambda _, folder, parts: exported.append(parts)
  )
  extra = state.extra | {"codec": {}}
  state = state._replace(average=other, extra=extra)
  task.export(state, epath.Path("nowhere"))
  written = {"lm": exported[0].lm_tree, "text": exported[0].text_tree}
  jax.tree.map(np.testing.assert_array_equal, written, other)
