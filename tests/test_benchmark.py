"""Benchmarks run, and what they say adds up.  Nothing here is timed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.benchmark import long, machine, ours, rivals, roofline
from audiogen_jax.benchmark import sample as benchmark
from audiogen_jax.benchmark.ours import Autoregressive, Masked
from audiogen_jax.benchmark.roofline import Passes, Speed
from audiogen_jax.benchmark.sample import Run, SampleFigures, Work
from audiogen_jax.core.errors import InputError


@pytest.fixture(scope="module")
def magnet(magnet_pack):
  return ag.MAGNeT.from_pretrained(
    magnet_pack, dtype="float32", mesh=ag.make_mesh(data=1)
  )


@pytest.fixture(scope="module")
def model(tiny):
  return ag.AudioGen.from_pretrained(
    tiny, dtype="float32", mesh=ag.make_mesh(data=1)
  )


class Slow:
  """A rival that does nothing, and says that it took long."""

  name = "slow"

  def run(self, work):
    return Run(9.0 * work.batch, 10.0 * work.batch)


def test_figures_add_up():
  figures = SampleFigures(
    name="x",
    work=Work(4, 2.0),
    steps=100,
    tokens=400,
    first_s=9.0,
    runs=[Run(1.0, 2.0), Run(3.0, 4.0), Run(2.0, 8.0)],
    limit=Passes(100, floor_bytes=1e9, flops=1e9),
    speed=Speed("x", flops=1e12, bandwidth=1e11),
  )
  assert figures.step_s == 0.02 and figures.total_s == 4.0
  assert figures.tokens_per_s == pytest.approx(4 * 4 / 0.02)
  assert figures.sound_per_s == pytest.approx(4 * 2.0 / 4.0)
  assert figures.limit_share == pytest.approx(0.5)
  assert json.loads(json.dumps(figures.plain()))["step_s"] == 0.02


def test_contestants_take_turns(model, monkeypatch):
  monkeypatch.setattr(machine, "_BYTES", 2**22)
  turns = []
  works = [Work(1, 0.3), Work(2, 0.3)]
  found = benchmark.compare(
    [Autoregressive(model)],
    [Slow()],
    works,
    runs=2,
    progress=lambda what, done, total: turns.append((what, done, total)),
  )
  assert [each.name for each in found] == ["AudioGen", "slow"] * 2
  assert [each.work for each in found] == [works[0]] * 2 + [works[1]] * 2
  names = [what.split(",")[0] for what, *_ in turns]
  assert names == ["AudioGen", "slow"] * 6
  assert [done for _, done, _ in turns] == list(range(12))
  own, slow = found[2:]
  assert slow.step_s == 18.0 / own.steps and slow.limit is None
  assert own.steps == 15 + 3 and len(own.runs) == 2
  assert 0 < own.step_s < 1 and 0 < own.latency_s < 10
  assert own.runs[0].lm_s < own.runs[0].total_s


def test_long_sounds_take_turns(model, monkeypatch):
  monkeypatch.setattr(model, "window_s", 0.4)
  made = []
  generate = model.generate

  def spy(texts, **options):
    made.append((options["stride_s"], options["duration_s"]))
    return generate(texts, **options)

  monkeypatch.setattr(model, "generate", spy)
  found = long.compare(
    *(model, [0.1, 0.2], [1.0, 0.4]),
    guidance=1.0,
    runs=2,
    progress=lambda what, done, total: None,
  )
  works = [(0.1, 0.4), (0.1, 1.0), (0.2, 0.4), (0.2, 1.0)]
  assert [(each.stride_s, each.duration_s) for each in found] == works
  assert made == 3 * works
  first = found[0]
  assert first.cost == pytest.approx(np.mean(first.runs) / 0.4)
  assert first.peak_bytes <= found[-1].peak_bytes
  with pytest.raises(InputError, match="stride 0.4 s must be shorter"):
    long.compare(
      *(model, [0.4], [1.0]), guidance=1.0, runs=1, progress=lambda *_: None
    )


@pytest.mark.parametrize("guidance,rows", [(3.0, 4), (1.0, 2)])
def test_what_a_step_must_read(model, guidance, rows):
  t = model.lm.config.transformer
  width, size = t.width, 4
  layer = 4 * width * width + 2 * width * width + 2 * width * t.ff
  norms = 3 * 2 * width
  weights = t.layers * (layer + norms) + 4 * width * 96 + 2 * width
  cache = rows * 2 * width * t.layers * (50 / 2 + 12)
  found = Autoregressive(model).passes(Work(2, 1.0, guidance))
  assert found.count == 50 + 3
  assert found.floor_bytes == size * (weights + cache)
  assert found.flops == 2 * (rows * weights + cache)


@pytest.mark.parametrize("guidance,rows", [(3.0, 4), (1.0, 2)])
def test_what_a_masked_pass_must_read(magnet, guidance, rows):
  lm = magnet.lm.config
  t, frames = lm.transformer, magnet.codec.tokens.frames(0.5)
  layer = 4 * t.width**2 + 2 * t.width**2 + 2 * t.width * t.ff + 6 * t.width
  weights = t.layers * layer + t.width * lm.size + 2 * t.width
  keys = rows * 2 * t.width * t.layers * 12
  scores = rows * 4 * t.width * t.layers * frames * (frames + 12)
  found = Masked(magnet).passes(Work(2, 0.5, guidance))
  assert found.count == sum(magnet.masking.sampling.decoding_steps)
  assert found.floor_bytes == 4 * (weights + keys)
  assert found.flops == rows * frames * 2 * weights + scores


def test_int8_reads_less(tiny, model):
  small = ag.AudioGen.from_pretrained(
    tiny, dtype="int8", mesh=ag.make_mesh(data=1)
  )
  work = Work(1, 0.02)
  less = Autoregressive(small).passes(work).floor_bytes
  assert less < 0.4 * Autoregressive(model).passes(work).floor_bytes


def test_roofline_of_a_chip():
  """At 10 s a masked 1.5B wins alone, and loses where many are made at once."""
  v5e = Speed("v5e", 197e12, 819e9)

  def total_s(family, count):
    dtype = jnp.dtype(jnp.bfloat16)
    passes = ours.passes(family, "1p5b", Work(count, 10.0), dtype)
    return passes.total_s(v5e)

  assert 2 * total_s("magnet", 1) < total_s("audiogen", 1)
  assert total_s("magnet", 64) > 2 * total_s("audiogen", 64)
  one = roofline.Passes(10, floor_bytes=8e9, flops=2e12)
  assert one.limit_s(Speed("", 1e12, 1e9)) == 8.0
  assert one.total_s(Speed("", 1e11, 1e9)) == 200.0


@pytest.mark.slow
def test_random_weights(monkeypatch):
  small = ours.TransformerConfig(width=32, layers=2, heads=2, ff=64)
  monkeypatch.setitem(ours.SCALES, "300m", small)
  for family in ours.FAMILIES:
    own = ours.random(family, "300m", dtype="int8", mesh=ag.make_mesh(data=1))
    audio = own.model.generate(["rain"], duration_s=0.2)
    assert audio.shape == (1, 3200, 1) and np.isfinite(audio).all()
  with pytest.raises(InputError, match="'7b' is not one of 300m, 1p5b, 3b"):
    ours.random("audiogen", "7b")


def test_bandwidth_and_memory(monkeypatch):
  monkeypatch.setattr(machine, "_BYTES", 2**24)
  assert 1e8 < machine.bandwidth() < 1e13
  assert machine.peak_bytes() > 1e8
  with machine.compilations() as found:
    jax.jit(lambda x: x * 3 + 1)(np.float32(2))
  assert found and min(found) > 0


@pytest.mark.slow
def test_commands(audiogen, tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(machine, "_BYTES", 2**22)
  path, plot = tmp_path / "sample.json", tmp_path / "sample.png"
  status, output, errors = audiogen(
    *("benchmark", "sample", "--model", tiny, "--dtype", "float32"),
    *("--batch", "1", "--batch", "2", "--duration", "0.3", "--runs", "1"),
    *("--mesh", "data=1", "--json", path, "--plot", plot),
  )
  assert status == 0, errors
  assert "1 x 0.3 s" in output and "GB/s" in output
  figures = json.loads(path.read_text())["figures"]
  assert [each["work"]["batch"] for each in figures] == [1, 2]
  assert plot.stat().st_size > 1000
  path = tmp_path / "long.json"
  status, output, errors = audiogen(
    *("benchmark", "long", "--model", tiny, "--dtype", "float32"),
    *("--duration", "0.3", "--duration", "0.6", "--stride", "0.2"),
    *("--runs", "1", "--mesh", "data=1", "--json", path),
  )
  assert status == 0, errors
  assert "windows move by" in output and "0.6 s" in output
  short, long_ = json.loads(path.read_text())["figures"]
  assert short["cost"] == short["runs"][0] / 0.3 and long_["duration_s"] == 0.6
  path = tmp_path / "codec.json"
  status, output, errors = audiogen(
    *("benchmark", "codec", "--model", tiny, "--duration", "0.5"),
    *("--runs", "1", "--json", path),
  )
  assert status == 0, errors
  assert "x real time" in output
  assert json.loads(path.read_text())["figures"][0]["decoded_per_s"] > 0
  path = tmp_path / "precision.json"
  status, output, errors = audiogen(
    *("evaluate", "precision", tiny, "--duration", "0.5", "--json", path),
  )
  assert status == 0, errors
  half, whole = json.loads(path.read_text())["figures"]
  assert [half["dtype"], whole["dtype"]] == ["bfloat16", "int8"]
  assert 0 < half["divergence"] < whole["divergence"] < 0.01


@pytest.mark.slow
def test_startup(audiogen, tiny, tmp_path):
  path = tmp_path / "startup.json"
  status, output, errors = audiogen(
    *("benchmark", "startup", "--model", tiny, "--duration", "1"),
    *("--runs", "1", "--json", path),
  )
  assert status == 0, errors
  assert "in all" in output
  told = json.loads(path.read_text())
  assert all(x > 0 for x in told["first"].values())
  # What the first one compiled is there for the next one.
  assert told["later"][0]["first"] < told["first"]["first"]
  status, _, errors = audiogen("benchmark", "startup", "--model", tmp_path)
  assert status == 2 and "holds no model" in errors


@pytest.mark.slow
def test_training_steps(audiogen, tmp_path):
  path = tmp_path / "train.json"
  status, output, errors = audiogen(
    *("benchmark", "train", "--config", "configs/nano_lm.py:tiny"),
    *("--steps", "1", "--config.data.batch=8", "--json", path),
  )
  assert status == 0, errors
  assert "GFLOP/s" in output
  assert json.loads(path.read_text())["median_s"] > 0


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("compiled", [False, True])
def test_transformers_is_of_our_shape(compiled):
  """As many parameters in its decoder as ours, and the same steps."""
  torch = pytest.importorskip("torch")
  model = ag.AudioGen.from_pretrained("nano", mesh=ag.make_mesh(data=1))
  rival = rivals.Transformers(model, compiled=compiled)
  theirs = sum(x.numel() for x in rival._model.decoder.parameters())
  ours = sum(x.size for x in jax.tree.leaves(model.lm.params))
  t = model.lm.config.transformer
  # Ours projects the text within the language model.
  projection = 128 * t.width + t.width
  assert theirs == ours - projection
  if not compiled:
    assert torch.get_num_threads() > 0
    assert rival.run(Work(1, 0.2)).lm_s > 0


class TestBadInput:
  @pytest.mark.parametrize(
    ("options", "words"),
    [
      (["--scale", "7b"], "'7b' is not one of"),
      (["--against", "magic"], "'magic' is not one of transformers"),
      (["--duration", "0"], "duration 0.0 s must be more than 0"),
      (["--dtype", "int4"], "'int4' is not one of"),
      (["--mesh", "data"], "write AXIS=NUMBER"),
      (["--plot", "x.jpg"], "x.jpg"),
    ],
  )
  def test_one_line(self, audiogen, options, words):
    status, _, errors = audiogen("benchmark", "sample", *options)
    assert (
      status == 2 and words in errors and len(errors.strip().splitlines()) == 1
    )

  def test_more_than_the_machine_holds(self, refused, tiny):
    for words in (
      ("benchmark", "sample", "--model", tiny, "--batch", 10**9),
      ("benchmark", "codec", "--model", tiny, "--duration", "1e9"),
    ):
      told = refused(*words)
      assert "of sound need" in told and "this machine has" in told
    told = refused("evaluate", "precision", tiny, "--duration", "nan")
    assert "duration nan s must be more than 0" in told

  def test_what_is_missing_is_named(self, monkeypatch):
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs torch, which is not installed"):
      rivals.check_known("audiocraft")
