"""MAGNeT against the published code: logits, every decoding, the sound.

The pack is one of those that `AUDIOGEN_PACKS` names, by the name magnet_tiny;
whatever its sizes, codebooks, spans and contexts, these tests hold for it.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.convert import export, opening, torch_file
from audiogen_jax.lm import masked

RUNS = {
  "greedy_nonoverlap",
  "greedy_stride1",
  "greedy_prod",
  "greedy_no_anneal_cfg3",
  "greedy_prompted_nonoverlap",
  "greedy_prompted_stride1",
  "greedy_unconditional",
  "greedy_half_length",
  "sampled_default_nonoverlap",
  "sampled_sound_stride1",
  "sampled_top_k",
  "sampled_all",
}
# What a run does where its own lines say nothing else.
_USUAL = dict(temp=3.0, top_p=0.0, top_k=0, max_cfg_coef=10.0)
_USUAL |= dict(min_cfg_coef=1.0, span_arrangement="nonoverlap")
_USUAL |= dict(span_scoring="max", anneal_temp=True, greedy=False)


@pytest.fixture(scope="module")
def want(magnet_pack):
  return np.load(magnet_pack / "expected.npz")


@pytest.fixture(scope="module")
def prompts(want):
  return [str(p) for p in want["prompts"]]


@pytest.fixture(scope="module")
def released(magnet_pack):
  return ag.MAGNeT.from_pretrained(
    magnet_pack,
    text_encoder=magnet_pack / "t5",
    dtype="float32",
    mesh=ag.make_mesh(data=1),
    mask_text_padding=False,
  )


def sampling_of(spec):
  """Our options for a run of the pack."""
  told = _USUAL | spec
  return ag.MaskedSampling(
    temperature=told["temp"],
    top_p=told["top_p"],
    top_k=told["top_k"],
    guidance=told["max_cfg_coef"],
    min_guidance=told["min_cfg_coef"],
    decoding_steps=tuple(told["steps"]),
    span_arrangement=told["span_arrangement"],
    span_scoring=told["span_scoring"],
    anneal_temperature=told["anneal_temp"],
    greedy=told["greedy"],
  )


@pytest.fixture
def noisy(monkeypatch):
  """Lets decoding draw the noise of a run, pass after pass, for all rows."""

  def use(values, steps):
    first = np.cumsum([0, *steps[:-1]])

    def noise(keys, book, index, frames, size):
      drawn = values[jnp.asarray(first)[book] + index]
      uniform = (drawn.astype(np.float32) + 0.5) / 65536
      more = (0, len(keys) - drawn.shape[0]), (0, frames - drawn.shape[1])
      gumbel = -jnp.log(-jnp.log(uniform))
      return jnp.pad(gumbel, (*more, (0, 0)))

    values = jnp.asarray(values)
    monkeypatch.setattr(masked, "noise", noise)
    jax.clear_caches()

  yield use
  jax.clear_caches()


def test_parity_magnet_every_run_is_known(want):
  assert {name.split("/")[0] for name in want if name.endswith("/spec")} <= RUNS


def test_parity_magnet_files_come_out_as_they_went_in(magnet_pack, tmp_path):
  out = tmp_path / "out"
  export.convert(magnet_pack, out, to="audiocraft")
  for path in out.iterdir():
    want = torch_file.read(magnet_pack / path.name)["best_state"]
    got = torch_file.read(path)["best_state"]
    assert got.keys() == want.keys()
    for key, tensor in want.items():
      assert got[key].dtype == tensor.dtype
      assert got[key].read().tobytes() == tensor.read().tobytes(), key
  ours, theirs = (
    opening.open_parts(folder, family="magnet", need_text=False)
    for folder in (out, magnet_pack)
  )
  for name in ("lm", "codec", "masking", "text_name", "window_s"):
    assert getattr(ours, name) == getattr(theirs, name)


def test_parity_magnet_condition(released, want, prompts):
  states, _ = released.encode_text(prompts)
  # 4e-6 measured.
  np.testing.assert_allclose(states, want["cond"][: len(prompts)], atol=5e-5)


@pytest.mark.parametrize("length", ["full", "half"])
@pytest.mark.parametrize("kind", ["cond", "null"])
def test_parity_magnet_logits(released, want, prompts, length, kind):
  texts = prompts if kind == "cond" else [None] * len(prompts)
  for stage in range(released.codec.tokens.codebooks):
    name = f"logits/{length}/stage{stage}"
    # 3e-6 measured.
    got = released.logits(want[f"{name}/sequence"], texts, stage=stage)
    expected = want[f"{name}/{kind}"]
    np.testing.assert_allclose(got[:, stage], expected, atol=1e-4)
    if kind == "cond" and f"{name}/all_codebooks" in want:
      expected = want[f"{name}/all_codebooks"]
      np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("run", sorted(RUNS))
def test_parity_magnet_codes(released, want, prompts, noisy, run):
  if f"{run}/spec" not in want:
    pytest.skip(f"the pack has no {run}")
  spec = json.loads(str(want[f"{run}/spec"]))
  if f"{run}/noise_u16" in want:
    noisy(want[f"{run}/noise_u16"], spec["steps"])
  expected = want[f"{run}/codes"]
  window = released.codec.tokens.frames(released.window_s)
  codes = released.generate_codes(
    [None] * len(expected) if spec.get("uncond") else prompts,
    frames=spec.get("frames", window),
    sampling=sampling_of(spec),
    prompt_codes=want["prompt_codes"] if spec.get("prompt") else None,
  )
  np.testing.assert_array_equal(codes, expected)


def test_parity_magnet_sound(released, want, prompts):
  spec = json.loads(str(want["greedy_nonoverlap/spec"]))
  audio, codes = released.generate(
    prompts,
    duration_s=released.window_s,
    sampling=sampling_of(spec),
    return_codes=True,
  )
  np.testing.assert_array_equal(codes, want["greedy_nonoverlap/codes"])
  expected = want["wav_greedy_nonoverlap"]
  # 5e-7 measured.
  np.testing.assert_allclose(audio[..., 0], expected, atol=1e-3)
