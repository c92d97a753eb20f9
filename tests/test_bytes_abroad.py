"""A model that reads bytes, in `transformers` and back."""

import json

import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.convert import export, opening
from audiogen_jax.core.errors import InputError
from audiogen_jax.text import tokenizer

TEXTS = ["a dog barks", "rain é"]


@pytest.fixture(scope="module")
def abroad(tmp_path_factory):
  folder = tmp_path_factory.mktemp("abroad") / "nano"
  export.convert("nano", folder, to="transformers", dtype="float32")
  return folder


def test_what_was_lost_is_kept(abroad):
  ours, again = (opening.open_parts(x) for x in ("nano", abroad))
  assert (again.guidance, again.window_s) == (ours.guidance, ours.window_s)
  assert (again.lm, again.codec, again.text) == (ours.lm, ours.codec, ours.text)
  assert isinstance(tokenizer.load(again.tokenizer), tokenizer.ByteTokenizer)


def test_guidance_and_window_of_the_published_format(tiny, tmp_path):
  parts = opening.open_parts(tiny, need_text=False)
  cfg = tmp_path / "own"
  export.convert(tiny, cfg)
  config = json.loads((cfg / "config.json").read_text())
  config |= {"guidance": 4.5, "window_s": 7.25}
  (cfg / "config.json").write_text(json.dumps(config))
  export.convert(cfg, tmp_path / "published", to="audiocraft")
  again = opening.open_parts(tmp_path / "published", need_text=False)
  assert (again.guidance, again.window_s) == (4.5, 7.25)
  assert again.text_name == parts.text_name


def test_an_encoder_of_bytes_has_no_name(tmp_path):
  with pytest.raises(InputError, match="of its own, which reads bytes"):
    export.convert("nano", tmp_path / "out", to="audiocraft")
  assert not list(tmp_path.iterdir())


@pytest.mark.torch
def test_transformers_makes_our_codes(abroad):
  torch = pytest.importorskip("torch")
  from transformers import AutoProcessor, MusicgenForConditionalGeneration

  processor = AutoProcessor.from_pretrained(abroad)
  inputs = processor(text=TEXTS, padding=True, return_tensors="pt")
  ids, mask = tokenizer.pad(tokenizer.ByteTokenizer(), TEXTS)
  np.testing.assert_array_equal(inputs["input_ids"], ids)
  np.testing.assert_array_equal(inputs["attention_mask"], mask)
  theirs = MusicgenForConditionalGeneration.from_pretrained(abroad).eval()
  assert theirs.generation_config.guidance_scale == 5.0
  with torch.no_grad():
    sound = theirs.generate(**inputs, do_sample=False, max_length=24).numpy()
  ours = ag.AudioGen.from_pretrained(
    "nano", dtype="float32", mesh=ag.make_mesh(data=1)
  )
  greedy = ag.Sampling(greedy=True, guidance=5.0)
  codes = ours.generate_codes(TEXTS, frames=20, sampling=greedy)
  mine = ours.codec.decode(codes).transpose(0, 2, 1)
  length = min(sound.shape[2], mine.shape[2]) - 4 * ours.codec.config.hop
  assert length > 4000
  np.testing.assert_allclose(mine[..., :length], sound[..., :length], atol=1e-4)
