"""Masked decoding by several processes, together on one mesh."""

import textwrap

import numpy as np
import pytest
from test_magnet import TEXTS, parts, published_folder  # noqa: F401
from virtual_pod import Pod

import audiogen_jax as ag

_TOGETHER = textwrap.dedent("""
  import sys
  import jax
  import numpy as np
  import audiogen_jax as ag
  from audiogen_jax.core import processes
  from audiogen_jax.core.errors import InputError

  source, out, *texts = sys.argv[1:]
  texts = [text or None for text in texts]
  with processes.distributed():
    index = jax.process_index()
    mesh = ag.make_mesh(data=2, tensor=2)
    assert {d.process_index for d in mesh.devices.flat} == {0, 1}
    model = ag.load(source, mesh=mesh)
    seen = []
    audio, codes = model.generate(
      texts,
      seed=5,
      return_codes=True,
      progress=lambda done, total: seen.append(done),
    )
    assert seen == list(range(10))
    logits = model.logits(codes, texts, stage=1)
    model.save(f"{out}/model")
    try:
      model.generate([f"of {index}"])
      raise AssertionError("other prompts were not refused")
    except InputError as error:
      assert "process 1 has prompts ['of 1'], process 0 has" in str(error)
    np.savez(f"{out}/{index}.npz", audio=audio, codes=codes, logits=logits)
""")


@pytest.mark.pod
def test_one_mesh_of_two_processes(
  published_folder,  # noqa: F811
  tmp_path,
):
  """Published weights, by shards; the result is one device's, in both."""
  script = tmp_path / "together.py"
  script.write_text(_TOGETHER)
  words = [text or "" for text in TEXTS]
  Pod(count=2, devices=2).start(
    script, published_folder, tmp_path, *words
  ).well()
  first, second = (dict(np.load(tmp_path / f"{i}.npz")) for i in range(2))
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])
  mesh = ag.make_mesh(data=1)
  for source in (published_folder, tmp_path / "model"):
    one = ag.load(source, mesh=mesh)
    audio, codes = one.generate(TEXTS, seed=5, return_codes=True)
    np.testing.assert_array_equal(first["codes"], codes)
    scale = np.abs(audio).max()
    # Of full scale: 1e-6 measured.
    np.testing.assert_allclose(first["audio"], audio, atol=1e-5 * scale)
    logits = one.logits(codes, TEXTS, stage=1)
    # 6e-7 measured.
    np.testing.assert_allclose(first["logits"], logits, atol=1e-5)
