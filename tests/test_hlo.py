"""Programs taken apart: loops followed, copies and collectives told."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from audiogen_jax.core import cost
from audiogen_jax.core.sharding import make_mesh
from audiogen_jax.plan.hlo import Program


def compiled(function, *arguments, **options):
  return Program(
    jax.jit(function, **options).lower(*arguments).compile().as_text()
  )


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
  """XLA's own analysis would count it once."""

  def layers(x, kernels):
    def layer(x, kernel):
      return jnp.tanh(x @ kernel), jnp.sum(x)

    return jax.lax.scan(layer, x, kernels)

  given = jnp.ones((8, 16)), jnp.ones((7, 16, 16))
  program = compiled(jax.grad(lambda *x: layers(*x)[0].sum(), 1), *given)
  # Forward, and twice as much backward: kernels and states.
  once = cost.flops(layers, *given)
  assert once == 7 * 2 * 8 * 16 * 16
  # The first layer's own input needs no gradient.
  assert 3 * once - 2 * 8 * 16 * 16 <= program.work().flops <= 3 * once
  assert sorted(trips for _, trips in program.loops()) == [7, 7]


def test_a_loop_in_a_loop():
  def turn(x, _):
    return jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0], None

  program = compiled(lambda x: jax.lax.scan(turn, x, length=3)[0], jnp.eye(8))
  assert program.work().flops == 3 * 5 * 2 * 8**3


def test_collectives_by_kind():
  """Rows on four devices: their sum is reduced, their kernel gathered."""
  mesh = make_mesh(data=4)
  rows = NamedSharding(mesh, P("data"))
  whole = NamedSharding(mesh, P())
  x = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=rows)
  kernel = jax.ShapeDtypeStruct((64, 48), jnp.float32, sharding=rows)
  program = compiled(
    lambda x, kernel: (x.sum(0), jnp.tanh(x) @ kernel),
    x,
    kernel,
    out_shardings=(whole, rows),
  )
  work = program.work()
  assert work.traffic == {"all-reduce": 64 * 4, "all-gather": 64 * 48 * 4}
  assert work.flops == 2 * 8 * 64 * 48


# A step of decoding as a TPU's compiler writes it, shortened.
TPU = """\
HloModule step

%into.1 (a: bf16[512,1024]) -> bf16[512,1024] {
  %a = bf16[512,1024]{0,1:T(8,128)} parameter(0)
  ROOT %copy.1 = bf16[512,1024]{1,0:T(8,128)} copy(%a)
}

%product.1 (b: bf16[512,1024], c: bf16[1024,256]) -> bf16[512,256] {
  %b = bf16[512,1024]{0,1:T(8,128)} parameter(0)
  %c = bf16[1024,256]{1,0:T(8,128)} parameter(1)
  %turned = bf16[512,1024]{1,0:T(8,128)} fusion(%b), kind=kLoop, calls=%into.1
  ROOT %dot.1 = bf16[512,256]{1,0:T(8,128)} dot(%turned, %c), \
lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], bf16[512,1024], bf16[1024,256])) -> (s32[]) {
  %state = (s32[]{:T(128)}, bf16[512,1024]{0,1:T(8,128)}, \
bf16[1024,256]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %x = bf16[512,1024]{0,1:T(8,128)} get-tuple-element(%state), index=1
  %w = bf16[1024,256]{1,0:T(8,128)} get-tuple-element(%state), index=2
  %fetched = bf16[1024,256]{1,0:T(8,128)S(1)} copy(%w)
  %kept = bf16[512,1024]{1,0:T(8,128)} copy(%x)
  %fused = bf16[512,1024]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%into.1
  %y = bf16[512,256]{1,0:T(8,128)} fusion(%x, %fetched), kind=kOutput, \
calls=%product.1
  ROOT %out = (s32[]{:T(128)}, bf16[512,1024]{0,1:T(8,128)}, \
bf16[1024,256]{1,0:T(8,128)}) tuple(%next, %kept, %w)
}

%condition (state: (s32[])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[512,1024]{0,1:T(8,128)}, \
bf16[1024,256]{1,0:T(8,128)}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %end = s32[]{:T(128)} constant(9)
  ROOT %less = pred[]{:T(512)} compare(%at, %end), direction=LT
}

ENTRY %main (x.1: bf16[512,1024], w.1: bf16[1024,256]) -> (s32[]) {
  %x.1 = bf16[512,1024]{0,1:T(8,128)} parameter(0)
  %w.1 = bf16[1024,256]{1,0:T(8,128)} parameter(1)
  %first = s32[]{:T(128)} constant(2)
  %start = (s32[]{:T(128)}, bf16[512,1024]{0,1:T(8,128)}, \
bf16[1024,256]{1,0:T(8,128)}) tuple(%first, %x.1, %w.1)
  ROOT %loop = (s32[]{:T(128)}, bf16[512,1024]{0,1:T(8,128)}, \
bf16[1024,256]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
}
"""


def test_what_is_copied_in_memory():
  """Not what goes into the cache, nor what a product turns as it reads."""
  program = Program(TPU)
  ((loop, trips),) = program.loops()
  assert trips == 9 - 2
  once = program.work(program.body_of(loop))
  size = 2 * 512 * 1024
  assert once.copies == {"kept": (size, 1), "fused": (size, 1)}
  whole = program.work()
  assert whole.copies == {"kept": (size, 7), "fused": (size, 7)}
  assert whole.flops == 7 * 2 * 512 * 1024 * 256


# A gather that goes on while a product is computed, and what crosses slices, as
# a TPU's compiler writes them, shortened.
BETWEEN = """\
HloModule step

%start (a: f32[64,16]) -> (f32[64,16], f32[64,64]) {
  %a = f32[64,16]{1,0} parameter(0)
  %gather.1 = f32[64,64]{1,0} all-gather(%a), channel_id=7, \
replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="4"}
  ROOT %started = (f32[64,16]{1,0}, f32[64,64]{1,0}) custom-call(%gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%during (b: f32[64,16], c: f32[8,8]) -> f32[8,8] {
  %b = f32[64,16]{1,0} parameter(0)
  %c = f32[8,8]{1,0} parameter(1)
  %gather.2 = f32[64,64]{1,0} all-gather(%b), channel_id=7, \
replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="4"}
  ROOT %dot.1 = f32[8,8]{1,0} dot(%c, %c), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
}

%done (d: f32[64,16]) -> f32[64,64] {
  %d = f32[64,16]{1,0} parameter(0)
  %gather.3 = f32[64,64]{1,0} all-gather(%d), channel_id=7, \
replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="4"}
  ROOT %ended = f32[64,64]{1,0} custom-call(%gather.3), \
custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (x: f32[64,16], y: f32[8,8]) -> f32[64,64] {
  %x = f32[64,16]{1,0} parameter(0)
  %y = f32[8,8]{1,0} parameter(1)
  %one = (f32[64,16]{1,0}, f32[64,64]{1,0}) fusion(%x), kind=kCustom, \
calls=%start
  %two = f32[8,8]{1,0} fusion(%x, %y), kind=kOutput, calls=%during
  %token = token[] after-all()
  %sent = (f32[8,8]{1,0}, u32[], token[]) send(%two, %token), channel_id=4, \
is_host_transfer=true, frontend_attributes={\
_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %sent.1 = token[] send-done(%sent), channel_id=4, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  ROOT %three = f32[64,64]{1,0} fusion(%x), kind=kCustom, calls=%done
}
"""


def test_a_collective_that_goes_on_counts_once():
  """It stands in each fusion that runs meanwhile, from its start to its end."""
  work = Program(BETWEEN).work()
  assert work.traffic == {"all-gather": 64 * 64 * 4}
  assert work.flops == 2 * 8**3


def test_what_crosses_slices():
  """Hosts send it; no collective of the program goes from slice to slice."""
  assert Program(BETWEEN).work().between == 8 * 8 * 4


def test_batches_of_products_as_convolutions():
  """TPUs make them of these, with gaps in which nothing is multiplied."""
  text = """\
ENTRY %main (a: f32[4,8,16], b: f32[4,8,32]) -> f32[4,32,16] {
  %a = f32[4,8,16]{2,1,0} parameter(0)
  %b = f32[4,8,32]{2,1,0} parameter(1)
  ROOT %c = f32[4,32,16]{2,1,0} convolution(%a, %b), \
window={size=4 stride=3 lhs_dilate=4}, dim_labels=0fb_0io->0fb
}
"""
  # b: output features 32, contracted 8; a: rows 16; batch 4 as a window.
  assert Program(text).work().flops == 4 * 2 * 16 * 8 * 32


@pytest.mark.parametrize(
  ("dtype", "precision", "passes"),
  [
    ("f32", "highest", 6),
    ("f32", "high", 3),
    ("f32", "default", 1),
    ("bf16", "highest", 1),  # what a TPU multiplies
  ],
)
def test_float32_takes_several_passes(dtype, precision, passes):
  text = f"""\
ENTRY %main (a: {dtype}[8,8]) -> {dtype}[8,8] {{
  %a = {dtype}[8,8]{{1,0}} parameter(0)
  ROOT %c = {dtype}[8,8]{{1,0}} convolution(%a, %a), dim_labels=bf_io->bf, \
operand_precision={{{precision},{precision}}}
}}
"""
  work = Program(text).work()
  assert (work.flops, work.passed) == (2 * 8**3, passes * 2 * 8**3)


def test_convolutions():
  """A strided and a transposed one, against a count by hand."""

  def net(x, kernel, up):
    y = jax.lax.conv_general_dilated(
      x, kernel, (2,), [(3, 3)], dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jax.lax.conv_transpose(y, up, (2,), "VALID")

  given = jnp.ones((2, 64, 4)), jnp.ones((7, 4, 8)), jnp.ones((4, 8, 4))
  found = compiled(net, *given).work().flops
  down, up = 2 * 2 * 32 * 7 * 4 * 8, 2 * 2 * 32 * 4 * 8 * 4
  # Taps that meet padding are left out by the one and not by the other.
  assert found == pytest.approx(down + up, rel=0.06) and found <= down + up
  assert cost.flops(net, *given) == pytest.approx(down + up, rel=0.06)
