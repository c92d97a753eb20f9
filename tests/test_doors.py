"""What the public calls refuse, without the checks that tests put on types."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core import seeds

ROOT = Path(__file__).parents[1]

# A call, and words of its error.
BAD = {
  "model.codec.encode(np.zeros((1, 800, 1), np.int16))": "int16: divide",
  "model.codec.encode(np.full((1, 800, 1), 3e4))": "±30000 where full scale",
  "model.codec.encode(np.full((1, 800, 1), 1e300))": "800 NaN or infinite",
  "model.codec.encode(np.zeros((1, 800, 1), bool))": "bool: divide",
  "model.codec.encode(np.zeros((1, 800, 1), complex))": "complex128: divide",
  "model.codec.encode('dog.wav')": "must be floats",
  "model.codec.encode(None)": "must be floats",
  "model.codec.encode([[1.0], [1.0, 2.0]])": "array of floats",
  "model.codec.encode(np.zeros((800,)))": "must be [batch, samples, 1]",
  "model.codec.encode(np.zeros((0, 800, 1)))": "is empty",
  "model.codec.decode(np.zeros((1, 4, 9)))": "got float64",
  "model.codec.decode(np.zeros((4, 9), int))": "shape (4, 9)",
  "model.codec.decode(np.full((1, 4, 9), 10**12))": "lie in [1000000000000",
  "model.codec.decode(None)": "got object",
  "make(prompt=np.zeros((1, 800, 1), np.int16))": "int16: divide",
  "make(seed=None)": "seed None must be a whole number",
  "make(seed=1.5)": "seed 1.5 must be a whole number",
  "make(seed='1')": "seed '1' must be a whole number",
  "make(seed=[0, 1])": "2 seeds for 1 prompts",
  "make(seed=[])": "0 seeds for 1 prompts",
  "make(seed=-1)": "must lie in [0, 4294967295]",
  "make(seed=10**5000)": "must lie in [0, 4294967295]",
  "make(duration_s=10**400)": "more than an hour",
  "make([b'rain'])": "prompt 1 is of type bytes",
  "make(b'rain')": "prompt 1 is of type bytes",
  "make(['rain', 5])": "prompt 2 is of type int",
  "make([])": "no prompt was given",
  "make(['a\\udc80'])": "no Unicode text, at character 2",
  "make(duration_s='5')": "duration '5' must be a number",
  "make(duration_s=None)": "duration 'None' must be a number",
  "make(duration_s=1e9)": "more than an hour",
  "make(duration_s=float('nan'))": "at least one frame",
  "make(window_s=1e9)": "more than an hour",
  "make(stride_s=[2])": "stride '[2]' must be a number",
  "make(sampling={'top_k': 3})": "must be a Sampling, got dict",
  "ag.Sampling(guidance=1e39)": "guidance 1e+39 must lie in",
  "ag.Sampling(guidance='3')": "guidance '3' must be a number",
  "ag.Sampling(guidance=float('nan'))": "guidance nan must lie in",
  "ag.Sampling(temperature=1e39)": "temperature 1e+39 must lie in",
  "ag.Sampling(temperature=None)": "temperature 'None' must be a number",
  "ag.Sampling(top_k=2.5)": "top-k '2.5' must be a whole number",
  "ag.Sampling(top_p=[0.5])": "top-p '[0.5]' must be a number",
  "model.generate_codes(['a'], frames=0)": "frames '0' must",
  "model.generate_codes(['a'], frames=2.5)": "frames '2.5' must be a whole",
  "model.generate_codes(['a'], frames=10**9)": "frames '1000000000' must",
  "model.generate_codes(['a'], frames=9, prompt_codes=np.zeros((1, 4)))": (
    "codes must be integers"
  ),
  "model.logits(np.zeros((1, 4, 9), int), ['a', 'b'])": "1 sounds and 2 texts",
  "model.encode_text([5])": "prompt 1 is of type int",
  "list(model.stream('a', chunk_s=0))": "chunk 0 s",
  "load(dtype=[])": "dtype [] is not one of",
  "load(mesh={'data': 1})": "mesh must be a jax.sharding.Mesh, got dict",
  "load(adapters=None)": "adapters must be a list of folders, got NoneType",
  "load(adapters='nowhere')": "nowhere holds no adapters",
  "list(model.stream(b'a'))": "prompt 1 is of type bytes",
}

_PROGRAM = """
import json, sys
import numpy as np
import audiogen_jax as ag
from audiogen_jax.core.errors import InputError

model = ag.AudioGen.from_pretrained(sys.argv[1])

def load(**changes):
  return ag.AudioGen.from_pretrained(sys.argv[1], **changes)

def make(texts="rain", **changes):
  return model.generate(texts, **({"duration_s": 0.2} | changes))

for call in json.load(sys.stdin):
  try:
    eval(call)
    print(json.dumps("no error"))
  except InputError as error:
    print(json.dumps(str(error)))
  except Exception as error:
    print(json.dumps(repr(error)))
"""


@pytest.fixture(scope="module")
def errors(tiny):
  """The error of each call, in a process where nothing else looks at types."""
  calls = list(BAD)
  run = subprocess.run(
    [sys.executable, "-c", _PROGRAM, str(tiny)],
    input=json.dumps(calls),
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    timeout=300,
  )
  lines = map(json.loads, run.stdout.splitlines())
  return dict(zip(calls, lines, strict=True))


@pytest.mark.parametrize("call", BAD)
def test_what_calls_refuse(errors, call):
  assert BAD[call] in errors[call]


def test_a_seed_may_be_an_array_without_axes():
  assert seeds.checked(np.array(3), 2) == seeds.checked(3, 2) == [3, 4]
  assert seeds.checked(jnp.int32(3), 1) == [3]
