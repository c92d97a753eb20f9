"""What does not fit is refused before it is tried."""

import jax
import jax.numpy as jnp
import pytest

import audiogen_jax as ag
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.lm import memory, sampler
from audiogen_jax.lm.model import LMConfig


@pytest.fixture
def free(monkeypatch):
  """Sets how many bytes are free."""

  def set_to(size):
    monkeypatch.setattr(memory, "free_bytes", lambda placement: size)

  return set_to


def _check(**changes):
  options = dict(config=LMConfig(), guided=True, dtype=jnp.dtype(jnp.float32))
  options["placement"] = Placement.make(ag.make_mesh(data=1))
  memory.check(5, 8, 256, **(options | changes))


# Keys and values of AudioGen-medium, with and without the text, one sound.
ONE = 2 * 2 * 1536 * 48 * 256 * 4


def test_what_would_fit_is_said_in_powers_of_two(free):
  for size, words in (
    (8 * ONE - 1, "4 at once would fit"),
    (3 * ONE, "2 at once would fit"),
    (ONE, "1 at once would fit"),
    (ONE - 1, "not even one at once would fit"),
  ):
    free(size)
    with pytest.raises(InputError, match=f"5 sounds of 256 steps .* {words}"):
      _check()


def test_what_fits_passes(free):
  free(8 * ONE)
  _check()
  free(None)  # not known
  _check()
  free(4 * ONE)
  _check(guided=False)
  _check(dtype=jnp.dtype(jnp.bfloat16))


def test_a_model_asks_first(free, tiny):
  model = ag.AudioGen.from_pretrained(tiny, mesh=ag.make_mesh(data=1))
  free(1000)
  with pytest.raises(InputError, match="2 sounds of 128 steps need"):
    model.generate(["rain", "wind"], duration_s=0.2)


def test_this_machine():
  found = memory.free_bytes(Placement.make(None))
  assert found is None or found > 1e6


def test_a_device_that_runs_out(tiny, monkeypatch):
  model = ag.AudioGen.from_pretrained(tiny, mesh=ag.make_mesh(data=1))
  compiled = sampler.compiled

  def full(*arguments):
    def fail(*_, **__):
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB")

    return compiled(*arguments)._replace(decode=fail)

  monkeypatch.setattr(sampler, "compiled", full)
  with pytest.raises(InputError, match="ran out of memory with 3 .* try 1"):
    model.generate(["rain"] * 3, duration_s=0.2)
