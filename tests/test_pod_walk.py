"""README's way from recordings to sounds, with two hosts: `pytest -m pod`."""

import json

import numpy as np
import published
import pytest
import soundfile
from signals import noise
from test_pod_models import LM
from virtual_pod import Pod

from audiogen_jax.convert import opening

RATE = 16_000
SETTINGS = LM | {
  "loop.steps": 3,
  "loop.eval_every": 3,
  "loop.samples": 2,
  "data.eval_duration_s": 0.1,
}


@pytest.fixture
def start(tmp_path):
  """Starts a command of `audiogen`, or the training, in all processes."""
  (tmp_path / "audiogen.py").write_text(
    "from audiogen_jax.cli import main\n"
    "if __name__ == '__main__':  # workers read it, too\n"
    "  main()\n"
  )

  def run(pod, *words, **how):
    return pod.start(tmp_path / "audiogen.py", *words, **how).well(600)

  return run


@pytest.fixture
def recordings(tmp_path):
  """Sounds and a table of captions, as somebody has them."""
  folder = tmp_path / "recordings"
  folder.mkdir()
  lines = ["path,caption,split"]
  for i in range(40):
    samples = noise(2400, 1, scale=0.05, seed=i)
    soundfile.write(folder / f"{i}.wav", samples, RATE)
    split = "validation" if i % 5 == 0 else "train"
    lines.append(f"{i}.wav,sound number {i},{split}")
  (folder / "captions.csv").write_text("\n".join(lines) + "\n")
  return folder


@pytest.mark.pod
@pytest.mark.parametrize("cached", [True, False])
def test_from_recordings_to_sounds(start, recordings, tmp_path, cached):
  codec, data = tmp_path / "codec", tmp_path / "data"
  opening.write_orbax(codec, published.parts_of(lm=None))
  alone = Pod(count=1, devices=1)
  start(
    alone,
    *("data", "build", "--source", "csv", "--root", recordings),
    *("--out", data, "--rate", RATE),
    only=[0],
  )
  if cached:
    start(
      Pod("v5e:2x4"),
      *(
        "data",
        "tokenize",
        data,
        "--model",
        codec,
        "--out",
        tmp_path / "codes",
      ),
      *("--min-duration", "0.05", "--distributed"),
    )
    data = tmp_path / "codes"
  settings = SETTINGS | {
    "codec": codec,
    "cached_codes": cached,
    "data.folders": data,
    "mesh.fsdp": 8,
  }
  flags = [f"--config.{name}={value}" for name, value in settings.items()]
  run = tmp_path / "run"
  Pod("v5e:2x4").start(
    "audiogen_jax.train",
    *("--config=configs/lm_300m.py:tiny", f"--workdir={run}", *flags),
  ).well(600)
  prompts, sounds = tmp_path / "prompts.txt", tmp_path / "sounds"
  prompts.write_text("".join(f"sound number {i}\n" for i in range(10)))
  for mesh in ((), ("--mesh", "data=4,tensor=2")):
    start(
      Pod("v5e:2x4"),
      *("generate", "--prompts", prompts, "--model", run / "export"),
      *("--duration", "0.1", "--batch", "4", "-o", sounds / str(len(mesh))),
      *mesh,
    )
  made = {}
  for folder in sounds.iterdir():
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == set(
      prompts.read_text().splitlines()
    )
    files = sorted(folder.glob("*.wav"))
    assert len(files) == len(lines) == 10
    made[folder.name] = np.stack([soundfile.read(file)[0] for file in files])
  rows, samples = made["0"].shape
  assert rows == 10 and 0 <= 1600 - samples < 10  # whole frames, of 6 samples
  # Sums in another order may fall to the next of 16 bits.
  np.testing.assert_allclose(made["0"], made["2"], atol=4 * 2**-15)
