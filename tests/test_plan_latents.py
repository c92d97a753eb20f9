"""`audiogen plan --model`: what a Make-An-Audio runs, for chips elsewhere."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
import tiny_make_an_audio as tiny

from audiogen_jax.convert import make_an_audio_parts
from audiogen_jax.core import abstract
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.diffusion import denoiser
from audiogen_jax.latent import mel_autoencoder
from audiogen_jax.make_an_audio import MakeAnAudio
from audiogen_jax.plan import compiling
from audiogen_jax.plan.compiling import Compiled
from audiogen_jax.text import tower
from audiogen_jax.train import latents_planning
from audiogen_jax.vocoder import pieces

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install 'audiogen_jax[plan]'",
)
BF16 = jnp.dtype(jnp.bfloat16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Sounds are so long that the vocoder makes them in two pieces."""
  path = tmp_path_factory.mktemp("models") / "reads"
  parts = dataclasses.replace(tiny.parts(), window_s=9.0)
  make_an_audio_parts.write_orbax(path, parts, tiny.words())
  return path


def kinds(tree):
  return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def test_what_is_planned_is_what_runs(folder, monkeypatch):
  """The same arrays reach the same programs as often; nothing is computed."""
  ran = {"text": [], "U-Net": [], "autoencoder": [], "vocoder": []}

  def watch(module, attribute, name, skipped):
    real = getattr(module, attribute)

    def run(*given, **options):
      ran[name].append(given[skipped:])
      made = jax.eval_shape(
        lambda *rest: real(*given[:skipped], *rest, **options), *given[skipped:]
      )
      return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made)

    monkeypatch.setattr(module, attribute, run)

  watch(tower, "_encode", "text", 1)
  watch(denoiser, "_run", "U-Net", 0)
  watch(mel_autoencoder, "_decode", "autoencoder", 1)
  watch(pieces, "_synthesize", "vocoder", 1)
  mesh = make_mesh(data=2, tensor=2)
  model = MakeAnAudio.from_pretrained(folder, dtype="bfloat16", mesh=mesh)
  model.generate(["a dog barks", "rain", "wind"])
  parts = make_an_audio_parts.open_parts(folder)
  placement = Placement.make(mesh)
  planned = latents_planning.sampling(parts, BF16, 3, placement)
  assert list(planned) == list(ran)
  for name, program in planned.items():
    for given in ran[name]:
      assert kinds(program.arguments) == kinds(given), name
    # On a device: some of the U-Net's weights are split.
    weights, real = program.arguments[0], ran[name][0][0]
    assert abstract.size(weights) == abstract.size(real), name
  runs = {name: len(given) for name, given in ran.items()}
  runs["U-Net"] = int(ran["U-Net"][0][-1])  # in one loop
  assert runs == {name: program.runs for name, program in planned.items()}
  # Three rows on two ways; the vocoder in pieces.
  assert (runs["autoencoder"], runs["vocoder"]) == (2, 4)


def test_the_published_shape():
  """All weights are there in every program; the vocoder's twice."""
  placement = Placement.make(make_mesh(data=1))
  parts = make_an_audio_parts.published()
  planned = latents_planning.sampling(parts, BF16, 1, placement)
  sizes = {n: abstract.size(p.arguments[0]) for n, p in planned.items()}
  assert sizes["text"] == 4 * 111_319_296
  assert sizes["U-Net"] == 2 * 160_223_684
  assert sizes["autoencoder"] == 2 * 68_984_037
  # Without the lengths of weight-normed kernels.
  assert 0 < 4 * 112_231_250 - sizes["vocoder"] < 1e6
  held = sum(sizes.values()) + 4 * 112_231_250
  for name, program in planned.items():
    assert sizes[name] + abstract.size(program.resident) == held, name
  # 10 s; guidance runs both halves of a row at once.
  state, inputs = planned["U-Net"].arguments[1:3]
  assert state.latent.shape == (1, 80, 10, 4)
  assert inputs.context.shape == (2, 77, 1024)


@pytest.mark.parametrize(
  ("net", "context", "beside"),
  [(tiny.LOOKS, (4, 1, 128), None), (tiny.HOLES, None, (2, 16, 10, 5))],
  ids=["looks", "fills holes"],
)
def test_models_that_read_nothing(net, context, beside):
  placement = Placement.make(make_mesh(data=1))
  parts = tiny.parts(net)
  planned = latents_planning.sampling(parts, BF16, 2, placement)
  assert list(planned) == ["U-Net", "autoencoder", "vocoder"]
  inputs = planned["U-Net"].arguments[2]
  assert (inputs.context and inputs.context.shape) == context
  assert (inputs.beside and inputs.beside.shape) == beside


@needs_libtpu
def test_what_it_says(audiogen, folder, monkeypatch, tmp_path):
  """Programs made up: a product each, as often as there are runs."""
  text = (
    "ENTRY %main (a: f32[64,64]) -> f32[64,64] {\n"
    "  %a = f32[64,64]{1,0} parameter(0)\n"
    "  %d = f32[64,64]{1,0} dot(%a, %a), lhs_contracting_dims={1}\n}\n"
  )

  def later(wanted, placement):
    assert placement.mesh.size == 4
    return {
      name: lambda runs=program.runs: Compiled(8, 8, text=text, runs=runs)
      for name, program in wanted.items()
    }

  monkeypatch.setattr(compiling, "later", later)
  file = tmp_path / "plan.json"
  status, output, errors = audiogen(
    *("plan", "--model", folder, "--topology", "v5e:2x2", "--sample"),
    *("--batch", "3", "--json", file),
  )
  assert status == 0, errors
  made = json.loads(file.read_text())["programs"]
  assert list(made) == ["text", "U-Net", "autoencoder", "vocoder"]
  assert [each["runs"] for each in made.values()] == [2, 100, 1, 2]
  assert f"{folder} on v5e:2x2" in output.replace("\n", "")
  for said in ("U-Net", "of 14.90", "a batch of sounds by these programs"):
    assert said in output


@pytest.mark.parametrize(
  ("words", "said"),
  [
    ((), "give one of --config and --model"),
    (
      ("--config", "configs/lm_300m.py:tiny", "--model", "make-an-audio"),
      "give one of --config and --model",
    ),
    (("--model", "make-an-audio", "--search"), "'--search' is for a --config"),
    (
      ("--model", "make-an-audio", "--config.window_s=5"),
      "'--config.window_s=5' is for a --config; leave it out with --model",
    ),
    (("--model", "nano"), "the family audiogen, not a Make-An-Audio"),
    (("--model", "make-an-audio", "--mesh", "fsdp=2"), "one of data, tensor"),
    (
      ("--model", "make-an-audio", "--mesh", "tensor=3"),
      "of shape (1024, 8, 40)",
    ),
  ],
)
def test_what_it_refuses(refused, words, said):
  assert said in refused("plan", *words)


@pytest.mark.tpu
@needs_libtpu
def test_the_published_shape_on_one_chip(audiogen, tmp_path):
  file = tmp_path / "plan.json"
  status, _, errors = audiogen(
    *("plan", "--model", "make-an-audio", "--topology", "v5e:1x1"),
    *("--batch", "8", "--sample", "--json", file),
  )
  assert status == 0, errors
  made = json.loads(file.read_text())["programs"]
  assert all(each["total"] < 0.25 * each["memory"] for each in made.values())
  assert made["U-Net"]["copies"] == 0
