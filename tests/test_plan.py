"""`audiogen plan`: real programs for chips that are not here.

Small ones here; those of the sizes that people train are marked `tpu`, and take
minutes each.  Both need libtpu, of the extra `plan`.
"""

import dataclasses
import importlib.util
import json

import jax
import pytest
import toy

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.plan import compiling
from audiogen_jax.plan.compiling import Compiled
from audiogen_jax.train import configuration

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install 'audiogen_jax[plan]'",
)
TINY = ("--config", "configs/lm_300m.py:tiny")


# TPU programs of it are compiled in seconds.
SMALL = {
  "lm.transformer.width": 16,
  "lm.transformer.layers": 2,
  "lm.transformer.ff": 32,
  "lm.text_width": 8,
  "text.encoder.width": 8,
  "text.encoder.layers": 1,
  "text.encoder.ff": 16,
  "window_s": 0.05,
}


def changes(**values):
  """Words of the command line."""
  given = (SMALL | values).items()
  return [f"--config.{key}={value}" for key, value in given]


@pytest.fixture
def planned(audiogen, tmp_path):
  """Runs it; gives its figures and what it printed."""

  def run(*words):
    file = tmp_path / "plan.json"
    status, output, errors = audiogen("plan", *words, "--json", file)
    assert status == 0, errors
    print(output)  # with -s, and when something fails
    return json.loads(file.read_text()), output

  return run


def on(task, run, **mesh):
  """Programs of a run on devices of this machine."""
  sizes = {"data": 1} | mesh
  placement = Placement.make(make_mesh(**sizes), run.rules)
  return compiling.of_run(run, task, placement)


def test_all_programs_of_a_run():
  """What a run does, in its order, and what is on a device meanwhile."""
  run = toy.run_of("none")
  wanted = on(toy.Toy(wide=1000), run, data=4)
  assert list(wanted) == ["init", "step", "evaluate", "samples"]
  made = {name: compiled() for name, compiled in wanted.items()}
  # Gain and average, and the step; of the batch each device has a fourth.
  state = 2 * 4 * 1000 + 3 * 4
  batch = 8 // 4 * 100 * 4
  trained = made["step"]
  assert trained.arguments == state + batch and trained.resident == 2 * batch
  assert trained.aliased == state
  # Evaluating looks at little of the state; all of it is there.
  held = 8 // 4 * (200 * 4 + 1)
  for name in ("evaluate", "samples"):
    assert made[name].arguments == state + held
    assert made[name].resident == 2 * batch + 2 * held
  assert made["init"].outputs >= state and made["init"].resident == 0
  # All rows that are heard are on every device, the rest of them is not.
  assert made["samples"].outputs >= 4 * 200 * 4


@pytest.mark.parametrize(
  ("options", "names"),
  [
    ({"samples": 0}, ["init", "step", "evaluate"]),
    ({"eval_every": 0}, ["init", "step"]),
  ],
)
def test_what_a_run_leaves_out_is_not_planned(options, names):
  assert list(on(toy.Toy(), toy.run_of("none", **options))) == names


def test_what_is_read_counts():
  """Frozen weights beside the state that has room for them."""
  run, task = configuration.parse(configuration.load("configs/lm_300m.py:tiny"))
  read = {
    name: sum(x.size * 4 for x in jax.tree.leaves(tree))
    for name, tree in task.start.read().items()
  }
  assert read.keys() == {"codec"}
  made = on(task, run, fsdp=1, tensor=1)["prepare"]()
  like = jax.eval_shape(task.init, jax.random.key(0))
  state = sum(x.size * 4 for x in jax.tree.leaves(like))
  average = sum(x.size * 4 for x in jax.tree.leaves(like.average))
  assert made.arguments == state and made.outputs == read["codec"] + average
  # A batch of sound and ids (4 bytes), and masks.
  spec = task.batch_spec(16, 2.5)
  assert made.resident == 2 * sum(
    x.size * x.dtype.itemsize for x in spec.values()
  )
  tuned = dataclasses.replace(task, init_from="a model")
  assert tuned.start.read().keys() == {"codec", "lm"}
  frozen = dataclasses.replace(task.text, source="t5", trained=False)
  frozen = dataclasses.replace(task, text=frozen)
  assert frozen.start.read().keys() == {"codec", "text"}


@pytest.mark.slow
def test_codebooks_are_planned():
  """Latents of each batch, then k-means over all of them."""
  small = ["encodec.seanet.filters=2", "encodec.seanet.ratios=(4, 2)"]
  small += ["encodec.rvq.size=16", "data.duration_s=0.1", "adversary.kinds=()"]
  given = configuration.changed(
    "configs/codec_16khz.py:tiny", [f"--config.{each}" for each in small]
  )
  run, task = configuration.parse(given)
  wanted = on(task, run, data=4, fsdp=1, tensor=1)
  first = list(wanted)[1:3]
  assert first == ["prepare: latents", "prepare: k-means"]
  encoded, fitted = (wanted[name]() for name in first)
  # Frames of two rows, 200 each, 32 numbers wide.
  latents = 2 * 200 * 32 * 4
  assert encoded.outputs == latents
  assert fitted.arguments >= task.init_batches * latents
  assert encoded.resident > (task.init_batches - 1) * latents
  assert fitted.outputs >= 4 * 16 * 32 * 4


@pytest.mark.slow
def test_this_machine(planned):
  """The same command without a topology; what a CPU can do is not known."""
  found, output = planned(
    *(*TINY, "--mesh", "data=2,fsdp=4", "--batch", "8"),
    *changes(cached_codes=True, **{"loop.eval_every": 0}),
  )
  assert list(found["programs"]) == ["init", "prepare", "step"]
  step = found["programs"]["step"]
  assert step["devices"] == 8 and step["fits"] and step["compute_s"] == 0
  # Parameters, two moments and an average, on four ways of fsdp.
  assert step["arguments"] > 0 and step["aliased"] > 0.9 * step["outputs"]
  assert "all-gather" in step["traffic"] or "all-reduce" in step["traffic"]
  assert step["between"] == 0 and step["flops"] > step["model_flops"] > 0
  assert found["hosts"] == {"0": [*range(8)]}
  assert "8 cpu" in output and "MFU, estimated" not in output


@pytest.mark.slow
@needs_libtpu
def test_two_small_slices(planned):
  found, output = planned(
    *(*TINY, "--topology", "v5e:2x2", "--slices", "2", "--mesh", "fsdp=-1"),
    *changes(cached_codes=True, **{"loop.samples": 0}),
  )
  made = found["programs"]
  assert list(made) == ["init", "prepare", "step", "evaluate"]
  assert all(x["memory"] == 16e9 and x["fits"] for x in made.values())
  # `data` joins the slices by itself; each host reads its rows.
  assert found["hosts"] == {"0": [*range(8)], "1": [*range(8, 16)]}
  step = made["step"]
  assert step["copies"] == 0 and step["devices"] == 8
  assert 0 < step["compute_s"] < step["slowest_s"]
  # A fourth of each gradient goes to the other slice, at the network's speed;
  # measured 136,704 bytes, since small arrays fill whole tiles.
  params = 4 * 43_808
  assert params / 4 < step["between"] < params
  assert step["between_s"] == step["between"] / 3.125e9
  assert step["between_s"] > step["links_s"] > 0
  for said in ("MFU, estimated", "of 14.90", "if nothing does", "a host reads"):
    assert said in output


@needs_libtpu
def test_a_search_ranks(planned, monkeypatch):
  """By time for each operation that the model asks for; programs made up."""

  def made_up(run, task, placement):
    if placement.ways("batch") < 4:
      raise InputError("it does not fit")
    # The more is computed again, the more products.
    products = "".join(
      f"  %d{i} = f32[64,64]{{1,0}} dot(%a, %a), lhs_contracting_dims={{1}}\n"
      for i in range({"none": 3, "dots": 1, "full": 2}[task.remat])
    )
    text = "ENTRY %main (a: f32[64,64]) -> f32[64,64] {\n"
    text += f"  %a = f32[64,64]{{1,0}} parameter(0)\n{products}}}\n"
    return Compiled(8, 8, 0, 0, text, 0.0)

  monkeypatch.setattr(compiling, "training", made_up)
  found, output = planned(
    *(*TINY, "--topology", "v5e:2x2", "--batch", "8"),
    *("--search", "--tries", "6"),
  )
  found = found["programs"]
  order = [name.split("remat ")[1] for name in found]
  costs = [made["slowest_s"] / made["model_flops"] for made in found.values()]
  assert len(costs) == 6 and costs == sorted(costs)
  assert order[0] == "dots, batch 16" and order[-1] == "none, batch 8"
  assert "MFU" in output
  assert len({name.split(", remat")[0] for name in found}) > 1


@needs_libtpu
@pytest.mark.parametrize(
  ("words", "said"),
  [
    (("--topology", "v9:2x2"), "the kind must be one of v4, v5e, v5p, v6e"),
    (
      ("--topology", "v5e:3x7"),
      "'v5e:3x7' is unknown to the compiler; slices of v5e are 1x1, 2x2, 2x4,",
    ),
    (("--topology", "v5e:2x2x2"), "slices of v5e are 1x1"),
    (("--topology", "v5p:4x4"), "slices of v5p are 2x2x1, 2x2x2, 2x2x4"),
    (
      ("--topology", "v5e:2x2", "--mesh", "fsdp=3,data=-1"),
      "3 does not divide the 4 devices",
    ),
    (
      ("--topology", "v5e:2x2", "--mesh", "fsdp=8"),
      "needs 8 devices; 4 are here",
    ),
    (
      ("--topology", "v5e:2x2", "--slices", "2", "--mesh", "fsdp=4"),
      "takes 1 of 2 slices; give data a multiple of 2, or -1",
    ),
    (
      ("--topology", "v5e:2x2", "--slices", "2", "--mesh", "fsdp=8"),
      "2 slices of 4 devices are joined along data",
    ),
  ],
)
def test_pods_that_cannot_be(refused, words, said):
  assert said in refused("plan", *TINY, *words)


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (("--config", "configs/lm.py"), "configs/lm.py is not there"),
    (("--config", "configs/lm_300m.py:huge"), "lm_300m.py:huge"),
    ((*TINY, "--mesh", "fsdp"), "write AXIS=NUMBER"),
    ((*TINY, "--mesh", "rows=2"), "'rows' is not one of data, fsdp, tensor"),
    ((*TINY, "--mesh", "fsdp=0"), "write AXIS=NUMBER"),
    ((*TINY, "--config.optim.rate=1"), "optim.rate"),
    ((*TINY, "--config.optim.lr"), "config.optim.lr = True must be of type"),
    ((*TINY, "--set", "optim.lr=1"), "changed by --config.KEY=VALUE"),
    ((*TINY, "--bacth", "9"), "'--bacth' is no option here"),
    (
      (*TINY, "--batch", "9", "--mesh", "data=8"),
      "data.batch 9 does not divide over the mesh",
    ),
    (
      (*TINY, "--mesh", "data=8", "--config.data.eval_batch=12"),
      "data.eval_batch 12 does not divide over the mesh {'data': 8, 'fsdp': 1,"
      " 'tensor': 1}, which splits it 8 ways; the nearest that do: 8 or 16",
    ),
    (
      (*TINY, "--mesh", "data=8", "--batch", "9", "--sample"),
      "batch 9 does not divide over the mesh",
    ),
    ((*TINY, "--mesh", "tensor=8"), "cannot be split over the mesh"),
    ((*TINY, "--config.rules.qkv='tensor'"), "qkv"),
    (
      ("--config", "configs/codec_16khz.py:tiny", "--sample"),
      "trains nothing that samples from texts",
    ),
  ],
)
def test_what_it_refuses(refused, words, said):
  assert said in refused("plan", *words)


def test_a_place_for_figures_that_is_none(refused, tmp_path):
  """Told before anything is compiled."""
  file = tmp_path / "none" / "plan.json"
  assert "none" in refused("plan", *TINY, "--json", file)


@pytest.mark.parametrize("option", ["--batch", "--tries", "--slices"])
def test_numbers_below_one(audiogen, option):
  status, _, errors = audiogen("plan", *TINY, option, "0")
  assert status == 2 and option in errors


TRAINED = [
  ("lm_1p5b", "v5e:4x4", "fsdp=16", 128),
  ("lm_1p5b", "v5e:16x16", "data=16,fsdp=16", 2048),
  ("lm_3b", "v5e:8x8", "fsdp=64", 256),
  ("paper_lm:1b", "v5p:2x2x4", "fsdp=16", 256),
]


@pytest.mark.tpu
@needs_libtpu
@pytest.mark.parametrize(("name", "pod", "mesh", "batch"), TRAINED)
def test_pods_that_people_train_on(planned, name, pod, mesh, batch):
  file, _, variant = name.partition(":")
  config = f"configs/{file}.py:{variant}" if variant else f"configs/{file}.py"
  found, _ = planned(
    *("--config", config, "--topology", pod),
    *("--mesh", mesh, "--batch", batch),
  )
  made = found["programs"]
  assert list(made) == ["init", "prepare", "step", "evaluate", "samples"]
  for which, each in made.items():
    needed = each["total"] / each["memory"]
    assert needed < 0.8, f"{which}: {needed:.0%} of the memory"
  step = made["step"]
  # Measured: 1.26 for lm_1p5b, 1.25 for lm_3b.
  assert step["flops"] / step["model_flops"] <= 1.35


@pytest.mark.tpu
@needs_libtpu
def test_sampling_on_one_chip(planned):
  """16 prompts of the 1.5B model, guided; nothing large is copied."""
  found, _ = planned(
    *("--config", "configs/lm_1p5b.py", "--topology", "v5e:2x2"),
    *("--mesh", "data=1", "--batch", "16", "--sample"),
  )
  found = found["programs"]
  assert found["prefill"]["fits"] and found["decode"]["fits"]
  # The whole model, bfloat16, of which prefill looks at little; and a T5-large.
  assert found["prefill"]["arguments"] > 2 * 1.8e9
  decode = found["decode"]
  assert decode["resident"] > 4 * 0.33e9
  assert decode["copies"] == 0
  # Keys and values, bfloat16, of 32 rows, 640 steps, 48 layers; 1536 wide.
  cache = 2 * 2 * 32 * 640 * 48 * 1536
  assert decode["aliased"] >= cache
  assert jax.default_backend() == "cpu"
