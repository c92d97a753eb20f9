"""The contract of every layer of the codec: what it declares is what it does.

In the manner of `verify_contract` of google's sequence-layers: a sound whole is
the sound in pieces that overlap by the declared field, NaN in the padding does
not leak, and the field is exactly the one that the gradient shows.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.codec import layers, rvq, seanet
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core import fields
from audiogen_jax.core.fields import ReceptiveField

CONFIG = SEANetConfig(
  width=4,
  filters=2,
  ratios=(3, 2),
  residual_layers=2,
  residual_kernel=3,
  lstm_layers=0,
  norm="none",
)
CHANNELS = 4


class _Rows(NamedTuple):
  """A layer as a function of one padded row, and what it declares."""

  run: object  # x [n c], length -> y [m d]
  field: ReceptiveField


def _width(shape):
  """What signals grow by: the root of the inputs that are added up."""
  return math.sqrt(math.prod(shape[:-1]))


def _of_module(module, field=None, method=None):
  """A Linen module with random parameters."""
  x, length = np.zeros((1, 12, CHANNELS), np.float32), np.array([12])
  init = functools.partial(module.init, method=method)
  shapes = jax.eval_shape(init, jax.random.key(0), x, length)
  leaves, tree = jax.tree.flatten(shapes)
  leaves = [
    # Such that signals neither vanish nor grow: ELU is flat far below 0.
    jnp.asarray(_noise(*leaf.shape, seed=i) / _width(leaf.shape), jnp.float32)
    for i, leaf in enumerate(leaves)
  ]
  variables = jax.tree.unflatten(tree, leaves)

  @jax.jit
  def run(x, length):
    with jax.default_matmul_precision("highest"):
      y = module.apply(variables, x[None], length[None], method=method)
    return (y[0] if isinstance(y, tuple) else y)[0]

  return _Rows(run, module.bind({}).field if field is None else field)


def _of_stage(coder, part, **changes):
  """The convolutions of a coder before or after its LSTM."""
  config = SEANetConfig(
    **vars(CONFIG) | dict(channels=CHANNELS, filters=2) | changes
  )
  module = coder(config)
  field = module.bind({}).fields[{"before": 0, "after": 2}[part]]
  return _of_module(module, field, method=part)


def _of_quantiser():
  embed = jnp.asarray(_noise(2, 8, CHANNELS))
  books = rvq.init(rvq.RVQConfig(2, 8, CHANNELS))._replace(embed=embed)

  def run(x, length):
    return rvq.decode(rvq.encode(x[None], books), books)[0]

  return _Rows(jax.jit(run), rvq.FIELD)


def _noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _residual(**changes):
  config = SEANetConfig(**vars(CONFIG) | changes)
  return _of_module(seanet.Residual(config, CHANNELS, dilation=3, block=1))


LAYERS = {
  f"{kind}, {'causal' if causal else 'centred'}, {mode}": functools.partial(
    build, causal=causal, pad_mode=mode
  )
  for causal in (False, True)
  for mode in ("constant", "reflect")
  for kind, build in {
    "conv": lambda **o: _of_module(layers.Conv(3, 5, **o)),
    "even conv": lambda **o: _of_module(layers.Conv(3, 4, **o)),
    "pointwise conv": lambda **o: _of_module(layers.Conv(3, 1, **o)),
    "dilated conv": lambda **o: _of_module(layers.Conv(3, 3, dilation=4, **o)),
    "strided conv": lambda **o: _of_module(layers.Conv(3, 6, stride=3, **o)),
    "strided, dilated conv": lambda **o: _of_module(
      layers.Conv(3, 4, stride=2, dilation=3, **o)
    ),
    "residual": lambda **o: _residual(**o),
    "residual with shortcut": lambda **o: _residual(true_skip=False, **o),
    "encoder before": lambda **o: _of_stage(seanet.Encoder, "before", **o),
    "encoder after": lambda **o: _of_stage(
      seanet.Encoder, "after", filters=1, **o
    ),
    "decoder before": lambda **o: _of_stage(seanet.Decoder, "before", **o),
    "decoder after": lambda **o: _of_stage(
      seanet.Decoder, "after", ratios=(2, 3), **o
    ),
  }.items()
}
LAYERS |= {
  f"transposed by {ratio}, {causal=}": functools.partial(
    lambda **o: _of_module(layers.ConvTranspose(3, **o)),
    ratio=ratio,
    causal=causal,
  )
  for ratio in (1, 2, 3)
  for causal in (False, True)
}
LAYERS |= {
  "LSTM": lambda: _of_module(layers.LSTM(2)),
  "quantiser": _of_quantiser,
  "normed conv": lambda: _of_module(layers.Conv(3, 4, 2, norm="layer_norm")),
  "normed transposed": lambda: _of_module(
    layers.ConvTranspose(3, 2, norm="layer_norm")
  ),
}
BUILT = functools.cache(lambda name: LAYERS[name]())  # for all tests of it
BOUNDED = [
  name for name in LAYERS if name != "LSTM" and not name.startswith("normed")
]


def _length(field, frames):
  return frames * field.down


# No gradient passes through a code.
@pytest.mark.parametrize("name", [n for n in LAYERS if n != "quantiser"])
def test_the_field_is_what_the_gradient_shows(name):
  run, field = BUILT(name)
  n = _length(field, 40)
  x = jnp.asarray(_noise(n, CHANNELS))
  touched = jax.jacrev(lambda x: run(x, jnp.int32(n)).sum(-1))(x)
  touched = np.abs(touched).sum(-1) > 0
  outputs = 40 * field.up
  assert len(touched) >= outputs
  left, right = field.context() if field.bounded else (0, 0)
  clear = max(left, right) + 1  # frames at the ends, where mirrors stand
  assert 2 * clear < 40
  for j in range(clear * field.up, outputs - clear * field.up):
    seen = np.flatnonzero(touched[j])
    if field.bounded:
      want = field.inputs(j, j)
    else:
      want = 0, j if field.carries_state else n - 1
    assert (seen[0], seen[-1]) == want


@pytest.mark.parametrize("name", LAYERS)
def test_padding_does_not_leak(name):
  """Neither values nor gradients; a row may end in the midst of a frame."""
  run, field = BUILT(name)
  for n in (_length(field, 9), _length(field, 9) + 1):
    x = _noise(_length(field, 14), CHANNELS)
    x[n:] = np.nan
    outputs = -(-n // field.down) * field.up

    def real(x, n=n, outputs=outputs):
      return run(x, jnp.int32(n))[:outputs]

    y, pull = jax.vjp(real, jnp.asarray(x))
    np.testing.assert_array_equal(y, real(jnp.nan_to_num(x)))
    (slope,) = pull(jnp.ones_like(y))
    assert np.isfinite(slope[:n]).all()
    np.testing.assert_array_equal(np.nan_to_num(slope[n:]), 0)


@pytest.mark.parametrize("name", BOUNDED)
def test_piece_by_piece_is_the_whole(name):
  """Each piece of frames, from the inputs of its field and no others."""
  run, field = BUILT(name)
  frames = 30
  left, right = field.context()
  n = _length(field, frames)
  x = _noise(n, CHANNELS)
  whole = np.asarray(run(x, jnp.int32(n)))[: frames * field.up]
  ends = left + right, frames - left - right
  for start, size in [(ends[0], 1), (ends[0], 9), (ends[0] + 5, 4)]:
    low, high = start - left, min(start + size + right, frames)
    part = x[low * field.down : high * field.down]
    y = np.asarray(run(part, jnp.int32(len(part))))
    stop = min(start + size, ends[1])
    new = y[left * field.up : (stop - low) * field.up]
    # Rounding, as a share of the largest output: 4e-7 measured.
    want = whole[start * field.up : stop * field.up]
    np.testing.assert_allclose(new, want, rtol=0, atol=2e-6 * abs(whole).max())


def test_an_lstm_goes_on_where_it_was():
  module = layers.LSTM(2)
  x = jnp.asarray(_noise(2, 20, CHANNELS))
  variables = module.init(jax.random.key(0), x, jnp.array([20, 20]))
  whole, _ = module.apply(variables, x, jnp.array([20, 20]))
  assert module.field.carries_state and not module.field.bounded
  carry, parts = None, []
  for at in range(0, 20, 5):
    part = x[:, at : at + 5]
    y, carry = module.apply(variables, part, jnp.array([5, 5]), carry)
    parts.append(y)
  # Rounding, of outputs of about 3: 0 measured.
  np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-6)


def test_a_causal_coder_sees_nothing_beyond_its_frame():
  config = SEANetConfig(causal=True)
  for coder in (seanet.Encoder, seanet.Decoder):
    before, _, after = coder(config).bind({}).fields
    assert before.context()[1] == after.context()[1] == 0


def test_composition():
  down = ReceptiveField(2, 3, down=4)
  up = ReceptiveField(2, 1, up=3)
  assert fields.series() == fields.POINTWISE
  assert fields.series(down, down) == ReceptiveField(10, 15, down=16)
  assert fields.series(up, up) == ReceptiveField(8, 4, up=9)
  assert fields.parallel(ReceptiveField(1, 5), ReceptiveField(2, 0)) == (
    2,
    5,
    1,
    1,
  )
  assert not fields.series(down, fields.EVERYTHING).bounded
  with pytest.raises(ValueError, match="stride of 4 before a ratio of 3"):
    fields.series(down, up)
