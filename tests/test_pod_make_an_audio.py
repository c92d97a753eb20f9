"""Make-An-Audio by several processes, on one mesh and each alone."""

import textwrap

import numpy as np
import pytest
import tiny_make_an_audio as tiny
from virtual_pod import Pod

import audiogen_jax as ag
from audiogen_jax.convert import export, make_an_audio_parts

TEXTS = ["a dog barks", "rain falls", "thunder"]

_TOGETHER = textwrap.dedent("""
  import sys
  import jax
  import numpy as np
  import audiogen_jax as ag
  from audiogen_jax.core import processes
  from audiogen_jax.core.errors import InputError

  ours, theirs, holes, out, *texts = sys.argv[1:]
  with processes.distributed():
    index = jax.process_index()
    mesh = ag.make_mesh(data=2, tensor=2)
    assert {d.process_index for d in mesh.devices.flat} == {0, 1}
    asked = dict(sampling=ag.Diffusion(steps=3, eta=0.5), seed=5)
    sound = np.sin(np.arange(6000) / 9).astype(np.float32)[None, :, None] / 5
    made = {}
    for name, source in (("ours", ours), ("theirs", theirs)):
      model = ag.MakeAnAudio.from_pretrained(source, mesh=mesh)
      made[name] = model.generate(texts, duration_s=0.4, **asked)
    made["varied"] = model.vary(sound, 0.7, texts[:1], **asked)
    keep = model.outside(0.1, 0.2, samples=6000)
    made["filled"] = model.inpaint(sound, keep, texts[:1], **asked)
    model.save(f"{out}/model")
    try:
      model.generate([f"of {index}"], duration_s=0.1)
      raise AssertionError("other prompts were not refused")
    except InputError as error:
      assert "process 1 has prompts ['of 1'], process 0 has" in str(error)
    filler = ag.MakeAnAudio.from_pretrained(holes, mesh=mesh)
    asked["sampling"] = ag.Diffusion(steps=3, guidance=1.0)
    made["alone"] = filler.inpaint(sound, keep, [None], **asked)
    own = ag.MakeAnAudio.from_pretrained(ours)
    made["mine"] = own.generate(
      [texts[index]], duration_s=0.4, sampling=ag.Diffusion(steps=3)
    )
    np.savez(f"{out}/{index}.npz", **made)
""")


@pytest.mark.pod
def test_one_mesh_of_two_processes(tmp_path):
  """Our own format and the published one, by shards: as on one device."""
  ours, holes, theirs = (tmp_path / n for n in ("ours", "holes", "theirs"))
  make_an_audio_parts.write_orbax(ours, tiny.parts(), tiny.words())
  make_an_audio_parts.write_orbax(holes, tiny.parts(tiny.HOLES), None)
  export.convert(ours, theirs, to="make-an-audio")
  script = tmp_path / "together.py"
  script.write_text(_TOGETHER)
  pod = Pod(count=2, devices=2)
  pod.start(script, ours, theirs, holes, tmp_path, *TEXTS).well(timeout=480)
  first, second = (dict(np.load(tmp_path / f"{i}.npz")) for i in range(2))
  mine = [found.pop("mine") for found in (first, second)]
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])
  model = ag.MakeAnAudio.from_pretrained(ours, mesh=ag.make_mesh(data=1))
  asked = dict(sampling=ag.Diffusion(steps=3, eta=0.5), seed=5)
  want = model.generate(TEXTS, duration_s=0.4, **asked)
  for name in ("ours", "theirs"):
    np.testing.assert_allclose(first[name], want, atol=3e-5)
  sound = np.sin(np.arange(6000) / 9).astype(np.float32)[None, :, None] / 5
  varied = model.vary(sound, 0.7, TEXTS[:1], **asked)
  np.testing.assert_allclose(first["varied"], varied, atol=3e-5)
  keep = model.outside(0.1, 0.2, samples=6000)
  filled = model.inpaint(sound, keep, TEXTS[:1], **asked)
  np.testing.assert_allclose(first["filled"], filled, atol=3e-5)
  np.testing.assert_array_equal(first["alone"][:, :1000], sound[:, :1000])
  for text, own in zip(TEXTS, mine, strict=False):
    few = ag.Diffusion(steps=3)
    want = model.generate([text], duration_s=0.4, sampling=few)
    np.testing.assert_allclose(own, want, atol=3e-5)
  saved = ag.load(tmp_path / "model", mesh=ag.make_mesh(data=1))
  again = saved.generate(TEXTS, duration_s=0.4, **asked)
  np.testing.assert_allclose(again, first["ours"], atol=3e-5)
