"""Sampling by several processes: on one mesh together, or sharing prompts."""

import json
import signal
import textwrap
import time

import numpy as np
import pytest
import test_lora
from etils import epath
from virtual_pod import Pod

import audiogen_jax as ag
from audiogen_jax.audio import io
from audiogen_jax.convert import adapters, opening

TEXTS = ["a dog barks at the door", "rain", "a bell"]
CLI = "from audiogen_jax.cli import main\nmain()\n"

_TOGETHER = textwrap.dedent("""
  import sys
  import jax
  import numpy as np
  import audiogen_jax as ag
  from audiogen_jax.core import processes
  from audiogen_jax.core.errors import InputError

  source, out, *texts = sys.argv[1:]
  with processes.distributed():
    index = jax.process_index()
    mesh = ag.make_mesh(data=2, tensor=2)
    assert {d.process_index for d in mesh.devices.flat} == {0, 1}
    model = ag.AudioGen.from_pretrained(source, mesh=mesh)
    audio, codes = model.generate(
      texts, duration_s=0.4, seed=5, return_codes=True
    )
    again = model.codec.encode(audio)
    place = model.lm.placement
    decoded = model.codec.decode(place.put(codes[:2], "batch", None, None))
    encoded = model.codec.encode(place.put(audio[:2], "batch", None, None))
    longer = np.concatenate(list(model.stream(texts[0], duration_s=0.3)), 1)
    logits, _ = model.logits(codes, texts)
    rounded = ag.AudioGen.from_pretrained(source, mesh=mesh, dtype="int8")
    rounded, _ = rounded.logits(codes, texts)
    model.save(f"{out}/model")
    try:
      model.generate([f"of {index}"], duration_s=0.1)
      raise AssertionError("other prompts were not refused")
    except InputError as error:
      assert "process 1 has prompts ['of 1'], process 0 has" in str(error)
    own = ag.AudioGen.from_pretrained(source)
    assert not own.lm.placement.spans
    mine = own.generate_codes([texts[index]], frames=20, seed=5 + index)
    np.savez(
      f"{out}/{index}.npz",
      audio=audio,
      codes=codes,
      again=again,
      decoded=decoded,
      encoded=encoded,
      longer=longer,
      logits=logits,
      rounded=rounded,
      mine=mine,
    )
""")


@pytest.mark.pod
def test_one_mesh_of_two_processes(tiny, tmp_path):
  """Published weights, by shards; the result is one device's, in both."""
  script = tmp_path / "together.py"
  script.write_text(_TOGETHER)
  Pod(count=2, devices=2).start(script, tiny, tmp_path, *TEXTS).well()
  first, second = (dict(np.load(tmp_path / f"{i}.npz")) for i in range(2))
  mine = [x.pop("mine") for x in (first, second)]
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])
  mesh = ag.make_mesh(data=1)
  one = ag.AudioGen.from_pretrained(tiny, mesh=mesh)
  audio, codes = one.generate(TEXTS, duration_s=0.4, seed=5, return_codes=True)
  np.testing.assert_array_equal(first["codes"], codes)
  # Measured: 4e-7 of full scale, and 8e-6.
  np.testing.assert_allclose(first["audio"], audio, atol=5e-6)
  logits, _ = one.logits(codes, TEXTS)
  np.testing.assert_allclose(first["logits"], logits, atol=1e-4)
  spread = np.sqrt(np.mean(np.square(first["rounded"] - logits)))
  assert 0 < spread < 0.1 * logits.std()
  np.testing.assert_array_equal(first["again"], one.codec.encode(audio))
  np.testing.assert_allclose(first["decoded"], audio[:2], atol=5e-6)
  np.testing.assert_array_equal(first["encoded"], first["again"][:2])
  assert first["longer"].shape == (1, 4800, 1)
  for i, own in enumerate(mine):
    want = one.generate_codes([TEXTS[i]], frames=20, seed=5 + i)
    np.testing.assert_array_equal(own, want)
  saved = ag.AudioGen.from_pretrained(tmp_path / "model", mesh=mesh)
  np.testing.assert_array_equal(
    saved.generate_codes(TEXTS, frames=20, seed=5), codes
  )


_ADAPTED = textwrap.dedent("""
  import sys
  import jax
  import numpy as np
  import audiogen_jax as ag
  from audiogen_jax.core import processes

  source, out, first, second, *texts = sys.argv[1:]
  with processes.distributed():
    index = jax.process_index()
    options = dict(mesh=ag.make_mesh(data=2, tensor=2))
    options["adapters"] = [f"{first}@0.5", second]
    model = ag.AudioGen.from_pretrained(source, **options)
    made = {"codes": model.generate_codes(texts, frames=20, seed=5)}
    made["logits"], _ = model.logits(made["codes"], texts)
    model.save(f"{out}/merged")
    model.lm.set_strengths([0, 2])
    made["stronger"], _ = model.logits(made["codes"], texts)
    rounded = ag.AudioGen.from_pretrained(source, dtype="int8", **options)
    made["rounded"], _ = rounded.logits(made["codes"], texts)
    own = ag.AudioGen.from_pretrained(source, adapters=[second])
    made["mine"], _ = own.logits(made["codes"][index:], texts[index:])
    np.savez(f"{out}/{index}.npz", **made)
""")


@pytest.mark.pod
def test_adapters_on_a_mesh_of_two_processes(tiny, tmp_path):
  """Beside the weights, at new strengths, merged: as in one process."""
  folders = [tmp_path / name for name in ("one", "other")]
  lm = opening.open_parts(tiny).lm
  for i, config in enumerate((test_lora.ONE, test_lora.OTHER)):
    tree = test_lora.drawn(config, lm, i)
    adapters.write(epath.Path(folders[i]), tree, config, "tiny")
  script = tmp_path / "adapted.py"
  script.write_text(_ADAPTED)
  words = (script, tiny, tmp_path, *folders, *TEXTS)
  Pod(count=2, devices=2).start(*words).well()
  first, second = (dict(np.load(tmp_path / f"{i}.npz")) for i in range(2))
  mine = [x.pop("mine") for x in (first, second)]
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])
  one = ag.AudioGen.from_pretrained(
    tiny,
    mesh=ag.make_mesh(data=1),
    adapters=[f"{folders[0]}@0.5", folders[1]],
  )
  codes = one.generate_codes(TEXTS, frames=20, seed=5)
  np.testing.assert_array_equal(first["codes"], codes)
  logits, _ = one.logits(codes, TEXTS)
  np.testing.assert_allclose(first["logits"], logits, atol=1e-4)
  saved = ag.AudioGen.from_pretrained(tmp_path / "merged")
  np.testing.assert_allclose(saved.logits(codes, TEXTS)[0], logits, atol=1e-4)
  spread = np.sqrt(np.mean(np.square(first["rounded"] - logits)))
  assert 0 < spread < 0.1 * logits.std()
  one.lm.set_strengths([0, 2])
  stronger, _ = one.logits(codes, TEXTS)
  np.testing.assert_allclose(first["stronger"], stronger, atol=1e-4)
  assert np.abs(stronger - logits).max() > 0.1
  one.lm.set_strengths([0, 1])
  for i, own in enumerate(mine):
    want, _ = one.logits(codes[i:], TEXTS[i:])
    np.testing.assert_allclose(own, want, atol=1e-4)


@pytest.fixture
def generate(tiny, tmp_path):
  """Starts `audiogen generate --prompts` on so many lines."""
  (tmp_path / "audiogen.py").write_text(CLI)

  def start(pod, folder, *options, lines=64, **how):
    prompts = [f"sound {i} {'and ' * (i % 3)}more" for i in range(lines)]
    file = tmp_path / f"{lines}.txt"
    file.write_text("\n".join(prompts))
    return pod.start(
      *(tmp_path / "audiogen.py", "generate", "--model", tiny),
      *("--prompts", file, "-o", tmp_path / folder),
      *("--duration", "0.1", "--batch", "4", *options),
      **how,
    )

  return start


def entries(folder):
  file = folder / "manifest.jsonl"
  return file.read_text().splitlines() if file.exists() else []


def sounds(folder, count=64):
  """Bytes by name; the manifest names each once."""
  named = [json.loads(line)["file"] for line in entries(folder)]
  found = {path.name: path.read_bytes() for path in folder.glob("*.wav")}
  assert sorted(named) == sorted(found) and len(found) == count
  return found


@pytest.mark.slow
def test_two_processes(generate, tmp_path):
  """They share prompts out, or with --mesh make each batch together."""
  generate(Pod(count=1, devices=2), "one", lines=12, only=[0]).well()
  want = sounds(tmp_path / "one", 12)
  first, second = generate(Pod(count=2, devices=2), "two", lines=12).well()
  assert sounds(tmp_path / "two", 12) == want
  # One of them speaks; Gloo, on the same stream, counts its peers.
  assert first.output.count(".wav") == 12 and ".wav" not in second.output

  mesh = ("--mesh", "data=2,tensor=2")
  pod = Pod(count=2, devices=2)
  first, second = generate(pod, "mesh", *mesh, lines=12).well()
  assert ".wav" not in second.output
  for name in sounds(tmp_path / "mesh", 12):
    one, other = (io.read(tmp_path / f / name)[0] for f in ("one", "mesh"))
    # Sums in another order may fall to the next of 16 bits.
    np.testing.assert_allclose(one, other, atol=4 * 2**-15)

  # It saves nothing: SIGTERM to one ends both.
  pod = generate(Pod(count=2, devices=2), "ended", lines=64)
  deadline = time.monotonic() + 200
  while not entries(tmp_path / "ended") and time.monotonic() < deadline:
    time.sleep(0.01)
  pod.processes[1].terminate()
  first, second = pod.ended(60)
  assert second.status == -signal.SIGTERM
  assert first.status == 1 and "process 1 (" in first.lines[0]

  pod = Pod(count=2, devices=2)
  found = generate(pod, "none", "--mesh", "data=2", lines=12).ended(100)
  assert [one.status for one in found] == [2, 2]
  (said,) = {one.lines[0] for one in found}
  assert "takes 2 of 4 devices, and none of process 1's" in said


@pytest.mark.pod
def test_prompts_are_shared_out(generate, tmp_path):
  """By four processes; after a kill two go on: the sounds of one process."""
  generate(Pod(count=1, devices=2), "one", only=[0]).well()
  want = sounds(tmp_path / "one")
  found = generate(Pod(count=4, devices=2), "four").well()
  assert sounds(tmp_path / "four") == want
  assert found[0].output.count(".wav") == 64
  assert not any(".wav" in one.output for one in found[1:])

  pod = generate(Pod(count=4, devices=2), "killed")
  deadline = time.monotonic() + 200
  while len(entries(tmp_path / "killed")) < 4 and time.monotonic() < deadline:
    time.sleep(0.01)
  pod.processes[3].kill()
  others = pod.ended(60)[:3]
  left = 64 - len(entries(tmp_path / "killed"))
  assert 0 < left < 64
  assert all(any("process 3 (" in x for x in one.lines) for one in others)
  found = generate(Pod(count=2, devices=2), "killed").well()
  assert f"{64 - left} of 64 are there already" in found[0].output
  assert sounds(tmp_path / "killed") == want
