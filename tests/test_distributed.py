"""Several real processes of `jax.distributed`, on this machine."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import textwrap

from recordings import dataset

_READ = textwrap.dedent("""
  import json, sys
  import jax
  address, count, index, folder = sys.argv[1:]
  jax.distributed.initialize(address, int(count), int(index))
  from audiogen_jax.core.sharding import Placement, make_mesh
  from audiogen_jax.data.loader import Loader, Part
  from audiogen_jax.data.rows import LoaderConfig
  mesh = make_mesh(data=2 * int(count))
  config = LoaderConfig(batch=8, duration_s=0.5, epochs=1)
  loader = Loader([Part(folder)], config, placement=Placement.make(mesh))
  texts, shapes = [], set()
  for batch in loader.batches():
    audio = batch["audio"]
    shapes |= {audio.shape, *(s.data.shape for s in audio.addressable_shards)}
    texts.append(batch["caption"])
    # What each device holds is what this process read.
    mine = [s.index[0].start or 0 for s in audio.addressable_shards]
    assert (min(mine) // 4, len(texts[-1])) == (int(index), 4), mine
  print(json.dumps([texts, sorted(shapes)]))
""")


def run(script, *args, count=2):
  """What each of `count` processes with two devices printed."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  root = pathlib.Path(__file__).parents[1]
  env = os.environ | {
    "PYTHONPATH": str(root),
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
  }
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", script, address, str(count), str(i), *args],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(count)
  ]
  outputs = [process.communicate(timeout=120) for process in processes]
  for process, (_, errors) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, errors
  return [out for out, _ in outputs]


def test_two_processes_read_disjoint_halves_of_an_epoch(tmp_path):
  folder = dataset(tmp_path / "tiny", range(30, 70))
  one, two = (
    json.loads(out.splitlines()[-1]) for out in run(_READ, str(folder))
  )
  assert one[1] == two[1] == [[2, 50, 1], [8, 50, 1]]
  parts = [
    {text for batch in texts for text in batch} for texts in (one[0], two[0])
  ]
  assert not parts[0] & parts[1]
  assert parts[0] | parts[1] == {f"sound {i}" for i in range(40)}
  assert [len(part) for part in parts] == [20, 20]
