"""The page of `audiogen demo` asked without a browser, as a stranger would."""

import io
import json
import os
import urllib.parse

import numpy as np
import pytest
import soundfile

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.lm.sampling import Sampling

gradio = pytest.importorskip("gradio")

# Gradio leaves event loops to the garbage collector, and warns of itself.
pytestmark = [
  pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
  pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CALL = ["rain", None, 0.6, 0, 3.0, 1.0, 96, 0.0, "", 1]


class Scorer:
  """Keeps the first; says how many it heard."""

  heard = 0

  def check(self, texts):
    """Judges by any text."""

  def score(self, sounds, rate_hz, texts):
    self.heard += 1
    return np.zeros(len(sounds))


class Server:
  """The page, served in this process."""

  def __init__(self, client, scorer):
    self.client, self.scorer = client, scorer

  def post(self, place: str, call) -> tuple[int, str]:
    """What the server says to a call before it is in the queue."""
    body = call if isinstance(call, bytes) else json.dumps(call).encode()
    answer = self.client.post(f"/gradio_api/{place}", content=body, headers={
      "Content-Type": "application/json"
    })  # fmt: skip
    return answer.status_code, answer.json()

  def ask(self, **changes) -> tuple[str, object]:
    """The last event of a call: its kind and its values."""
    names = ("prompt", "upload", "duration_s", "seed", "guidance")
    places = {name: i for i, name in enumerate(names)} | {"best_of": -1}
    values = CALL.copy()
    for name, value in changes.items():
      values[places[name]] = value
    status, answer = self.post("call/generate", {"data": values})
    assert status == 200, answer
    place = f"/gradio_api/call/generate/{answer['event_id']}"
    lines = self.client.get(place).text.strip().splitlines()
    kind, data = lines[-2:]
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))

  def upload(self, name: str, data: bytes) -> dict:
    answer = self.client.post(
      "/gradio_api/upload", files={"files": (name, data)}
    )
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("server").resolve()


@pytest.fixture(scope="module")
def server(tiny, folder):
  import fastapi
  from fastapi.testclient import TestClient

  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("GRADIO_TEMP_DIR", str(folder))
    from audiogen_jax.cli import page

    app = fastapi.FastAPI()
    model = AudioGen.from_pretrained(tiny)
    scorer = Scorer()
    blocks = page.build(
      model, Sampling(), "tiny", folder, lambda: False, scorer
    )
    page.mount(app, blocks, folder)
    with TestClient(app) as client:
      yield Server(client, scorer)


def file(path, **more):
  return {"path": str(path), "meta": {"_type": "gradio.FileData"}} | more


def sound() -> bytes:
  buffer = io.BytesIO()
  values = np.random.default_rng(0).normal(0, 0.1, 8000)
  soundfile.write(buffer, values, 16000, format="WAV")
  return buffer.getvalue()


def test_a_sound_is_made_and_fetched(server):
  kind, values = server.ask()
  assert kind == "complete"
  answer = server.client.get(values[0]["url"])
  assert len(soundfile.read(io.BytesIO(answer.content))[0]) == 9600


def test_the_best_of_two_is_kept(server):
  before = server.scorer.heard
  kind, _ = server.ask(best_of=2)
  assert kind == "complete" and server.scorer.heard == before + 2


def test_an_upload_is_continued(server):
  kind, values = server.ask(upload=server.upload("noise.wav", sound()))
  assert kind == "complete", values
  kind, values = server.ask(upload=server.upload("a.wav", b"no sound"))
  assert kind == "error" and "cannot read a.wav as sound" in values["error"]


@pytest.mark.parametrize(
  "path",
  [
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "https://example.com/a.wav",
    "file:///etc/passwd",
    "{folder}",
    "{folder}/nothing.wav",
    "{folder}/../../../../../../etc/passwd",
    "{folder}/link.wav",
    "{folder}/pipe.wav",
    "\0",
    "a" * 5000,
    "",
  ],
)
def test_other_files_stay_closed(server, folder, path):
  for name, make in (
    ("link.wav", lambda p: p.symlink_to("/etc/passwd")),
    ("pipe.wav", os.mkfifo),
  ):
    if not (folder / name).is_symlink() and not (folder / name).exists():
      make(folder / name)
  named = file(path.format(folder=folder))
  for place, call in (
    ("call/generate", {"data": [CALL[0], named, *CALL[2:]]}),
    ("call/generate/", {"data": [named, *CALL[1:]]}),
    ("call/load_example", {"data": [named]}),
    ("queue/join", {
      "data": [CALL[0], named, *CALL[2:]], "fn_index": 1, "session_hash": "a"
    }),
    ("queue/join", {
      "data": [CALL[0], named | {"is_stream": True}, *CALL[2:]],
      "fn_index": 1,
      "session_hash": "a",
    }),
    ("call/generate", {"data": [CALL[0], [{"a": named}], *CALL[2:]]}),
  ):  # fmt: skip
    status, answer = server.post(place, call)
    assert status == 422 and "was not uploaded here" in answer["detail"]
  if path.endswith("pipe.wav"):
    return  # the client here lets the server's error through
  place = "/gradio_api/file=" + urllib.parse.quote(named["path"])
  assert server.client.get(place).status_code >= 400


@pytest.mark.parametrize(
  "place",
  [
    "run/generate",
    "api/generate",
    "call/v2/generate",
    "component_server",
    "process_recording",
    "stream/1",
    "vibe-edit",
    "run-history/connect",
    "queue/join/../../run/generate",
  ],
)
def test_nobody_jumps_the_queue(server, place):
  status, answer = server.post(place, {"data": CALL})
  assert status == 422 and "nothing can be posted" in answer["detail"]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({0: 5}, "Prompt must be a text, got 5"),
    ({0: ["a"]}, 'Prompt must be a text, got ["a"]'),
    ({1: "x.wav"}, "must be null or an uploaded file"),
    ({1: 3}, "must be null or an uploaded file"),
    ({2: "5"}, "Seconds must be a number from 0.5 to 30, got \"5\""),
    ({2: None}, "Seconds must be a number from 0.5 to 30, got null"),
    ({2: 1e9}, "from 0.5 to 30, got 1000000000.0"),
    ({2: float("nan")}, "from 0.5 to 30, got NaN"),
    ({2: True}, "from 0.5 to 30, got true"),
    ({3: 1.5}, "Seed must be a whole number, got 1.5"),
    ({3: -1}, "Seed must be a number from 0 to 4294967295, got -1"),
    ({4: 1e39}, "Guidance must be a number from 1 to 10"),
    ({5: {}}, "Temperature must be a number from 0 to 2, got {}"),
    ({6: 10**30}, "Top-k must be a number from 0 to 96, got 1000000000"),
    ({7: [0.5]}, "Top-p must be a number from 0 to 1, got [0.5]"),
    ({8: 5}, "Negative prompt must be a text, got 5"),
    ({9: 9}, "Best of must be a number from 1 to 8, got 9"),
  ],
)  # fmt: skip
def test_wrong_values_are_named(server, changes, words):
  values = [changes.get(i, value) for i, value in enumerate(CALL)]
  status, answer = server.post("call/generate", {"data": values})
  assert status == 422 and words in answer["detail"]


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"[" * 50_000, "not JSON"),
    (b"1" * 5_000, "not JSON"),
    (b"\xff", "not JSON"),
    ([], "an object with a list"),
    ({"data": "rain"}, "an object with a list"),
    ({"data": CALL[:-1]}, "9 values where 10 are expected: Prompt"),
    ({"data": [*CALL, 0]}, "11 values where 10"),
    ({"data": ["a" * 70_000, *CALL[1:]]}, "more than 65,536 bytes"),
  ],
)
def test_what_is_no_call(server, call, words):
  status, answer = server.post("call/generate", call)
  assert status == 422 and words in answer["detail"]


def test_other_functions(server):
  for place in ("call/nothing", "queue/join"):
    status, answer = server.post(place, {"data": [], "fn_index": 99})
    assert status == 422 and "there is generate" in answer["detail"]
  for value in (None, "a", -1, 99, 1.5):
    status, answer = server.post("call/load_example", {"data": [value]})
    assert status == 422 and "Examples must be a number" in answer["detail"]
  assert server.post("call/load_example", {"data": [2]})[0] == 200


def test_an_empty_seed_and_prompt_are_explained(server):
  kind, values = server.ask(seed=None)
  assert kind == "error" and "the seed is empty" in values["error"]
  kind, values = server.ask(prompt=None)
  assert kind == "error" and "the prompt is empty" in values["error"]


def test_a_full_server_takes_no_uploads(server, monkeypatch):
  from audiogen_jax.cli import door

  monkeypatch.setattr(door, "_STORE_BYTES", 100)
  server.ask()
  answer = server.client.post(
    "/gradio_api/upload", files={"files": ("a.wav", sound())}
  )
  assert answer.status_code == 422 and "come back" in answer.json()["detail"]
