"""`audiogen demo`: what visitors get, what they are told, what stays behind."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.cli import maker
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.rules import Sampling

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def model(tiny):
  return AudioGen.from_pretrained(tiny)


@pytest.fixture
def make(model, tmp_path):
  """Makes a sound of 0.6 s, but for what is said."""
  folder = tmp_path / "made"
  folder.mkdir()

  def call(prompt="", **changes):
    asked = {
      "upload": None,
      "duration_s": 0.6,
      "seed": 0,
      "sampling": Sampling(),
      "progress": lambda done, total: None,
      "note": lambda line: pytest.fail(line),
    }
    return maker.make(model, folder, prompt=prompt, **(asked | changes))

  call.folder = folder
  return call


@pytest.fixture
def noise(tmp_path):
  """Half a second, stereo, at another rate than the model's."""
  path = tmp_path / "noise.wav"
  values = np.random.default_rng(0).normal(0, 0.1, (11025, 2))
  soundfile.write(path, values, 22050)
  return path


@pytest.fixture
def generate(audiogen, tiny, tmp_path):
  """What `audiogen generate` makes of the same."""

  def call(*words):
    path = tmp_path / "expected.wav"
    common = ("--model", tiny, "-o", path)
    status, _, errors = audiogen("generate", *words, *common)
    assert status == 0, errors
    return soundfile.read(path)[0]

  return call


class TestMaker:
  def test_as_the_command_line_does(self, make, generate):
    steps = []
    made = make(
      " rain ",
      seed=3,
      sampling=Sampling(top_k=20, guidance=2.0),
      progress=lambda *counts: steps.append(counts),
    )
    audio, rate = soundfile.read(made.sound)
    assert rate == 16000 and audio.std() > 1e-3
    options = ("--top-k", 20, "--guidance", 2, "--seed", 3, "--duration", 0.6)
    np.testing.assert_array_equal(audio, generate("rain", *options))
    assert made.picture.read_bytes().startswith(b"\x89PNG")
    assert made.sound.name == "rain_seed3.wav"
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]

  @pytest.mark.parametrize("prompt", ["", "rain"])
  def test_an_upload_is_continued(self, make, generate, noise, prompt):
    made = make(prompt, upload=noise, duration_s=1.0)
    words = [prompt] if prompt else []
    np.testing.assert_array_equal(
      soundfile.read(made.sound)[0],
      generate(*words, "--continue-from", noise, "--duration", 1),
    )

  def test_the_end_of_an_hour_is_continued(
    self, make, generate, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(maker, "CONTINUED_S", 1.0)
    rate = end = 8000
    hour = np.zeros((3600 * rate, 1), np.int16)
    hour[-end:] = np.random.default_rng(0).normal(0, 3000, (end, 1))
    soundfile.write(tmp_path / "hour.wav", hour, rate)
    soundfile.write(tmp_path / "end.wav", hour[-end:], rate)
    read = soundfile.SoundFile.read

    def sparing(self, frames, **options):
      assert frames == end  # all of it would take the machine's memory
      return read(self, frames, **options)

    notes = []
    with monkeypatch.context() as patch:
      patch.setattr(soundfile.SoundFile, "read", sparing)
      made = make(
        upload=tmp_path / "hour.wav", duration_s=1.5, note=notes.append
      )
    assert notes == ["hour.wav lasts 3,600 s: its last 1 s are continued"]
    np.testing.assert_array_equal(
      soundfile.read(made.sound)[0],
      generate("--continue-from", tmp_path / "end.wav", "--duration", 1.5),
    )

  @pytest.mark.parametrize(
    "prompt",
    [
      "собака лает под дождём",
      "狗在雨中叫",
      "🐶🌧️",
      pytest.param("𐌰" * 70, id="Gothic"),
      "نباح",
    ],
  )
  def test_other_alphabets(self, make, prompt):
    made = make(prompt, seed=2**32 - 1)
    assert soundfile.info(made.sound).duration == pytest.approx(0.6)
    assert len(made.sound.name.encode()) < 255

  @pytest.mark.parametrize(
    ("prompt", "changes", "words"),
    [
      ("", {}, "the prompt is empty"),
      (" \n", {}, "the prompt is empty"),
      ("a" * 5000, {}, "at most 512 are allowed"),
      ("rain", {"seed": None}, "the seed is empty"),
      ("rain", {"seed": -1}, "seeds -1"),
      ("rain", {"duration_s": 0}, "duration 0"),
      ("rain", {"duration_s": 31}, "ask for 30 s at most"),
      ("rain", {"duration_s": float("nan")}, "duration nan s"),
      ("rain", {"sampling": Sampling(top_k=97)}, "codebook size 96"),
    ],
  )
  def test_what_it_refuses(self, make, prompt, changes, words):
    with pytest.raises(InputError, match=words):
      make(prompt, **changes)
    assert not list(make.folder.iterdir())

  @pytest.mark.parametrize(
    ("data", "words"),
    [
      (b"", "notes.wav as sound"),
      (b"not a sound", "notes.wav as sound .*convert it to WAV"),
      (b"RIFF and then nothing of the sort", "notes.wav as sound"),
    ],
  )
  def test_an_upload_that_is_not_sound(self, make, tmp_path, data, words):
    path = tmp_path / "notes.wav"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
      make("rain", upload=path)
    assert str(tmp_path) not in str(error.value)
    assert not list(make.folder.iterdir())

  def test_an_upload_as_long_as_the_result(self, make, noise):
    with pytest.raises(InputError, match="is not longer than the sound"):
      make(upload=noise, duration_s=0.5)


class TestCommand:
  @pytest.fixture
  def temporary(self, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir())

  def test_port_in_use(self, refused, tiny, temporary):
    with socket.create_server(("127.0.0.1", 0)) as taken:
      port = taken.getsockname()[1]
      error = refused("demo", "--model", tiny, "--port", port)
    assert f"port {port} of 127.0.0.1 is in use" in error
    assert f"--port {port + 1}" in error

  def test_host_that_is_not_here(self, refused, tiny, temporary):
    error = refused("demo", "--model", tiny, "--host", "203.0.113.1")
    assert "cannot listen at port 7860 of 203.0.113.1" in error

  def test_without_gradio(self, refused, tiny, temporary, monkeypatch):
    from audiogen_jax import cli

    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "audiogen_jax.cli.page", raising=False)
    monkeypatch.delattr(cli, "page", raising=False)
    error = refused("demo", "--model", tiny, "--port", 0)
    assert "pip install 'audiogen_jax[demo]'" in error

  def test_no_model(self, refused, temporary):
    pytest.importorskip("gradio")
    error = refused("demo", "--model", "nowhere/at/all", "--port", 0)
    assert "nowhere/at/all" in error

  def test_other_commands_do_not_import_gradio(self):
    code = "import sys, audiogen_jax.cli; print('gradio' in sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)
    assert out.strip() == b"False"


@contextlib.contextmanager
def serving(tiny, folder, *, end=signal.SIGTERM):
  """A server of its own; yields its address and process, then ends it."""
  code = "from audiogen_jax.cli import main; main()"
  environment = os.environ | {"TMPDIR": str(folder), "XLA_FLAGS": ""}
  environment["PYTHONPATH"] = str(ROOT)
  process = subprocess.Popen(
    [sys.executable, "-c", code, "demo", "--model", str(tiny), "--port", "0"],
    cwd=folder,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    lines = []
    for line in process.stdout:
      lines.append(line)
      if line.startswith("http://"):
        break
    else:
      pytest.fail("".join(lines))
    yield line.split()[0], process
    process.send_signal(end)
    errors, _ = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
  finally:
    process.kill()
    process.wait()
    process.stdout.close()
  assert not list(folder.iterdir())


class Visitor:
  """Asks for sounds as the page does, without a browser."""

  def __init__(self, address: str):
    self._address = address
    # No proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    self._open = opener.open

  def ask(self, prompt="rain", duration_s=0.6, upload=None) -> str:
    """Joins the queue; returns where the answer will be."""
    values = [prompt, upload, duration_s, 0, 3.0, 1.0, 96, 0.0]
    address = f"{self._address}/gradio_api/call/generate"
    request = urllib.request.Request(
      address,
      json.dumps({"data": values}).encode(),
      {"Content-Type": "application/json"},
    )
    with self._open(request, timeout=60) as answer:
      return f"{address}/{json.load(answer)['event_id']}"

  def events(self, place: str):
    """Kinds and values, up to the last."""
    kind = ""
    with self._open(place, timeout=60) as lines:
      for line in lines:
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
          kind = value
        elif name == "data":
          yield kind, json.loads(value)

  def hear(self, place: str) -> np.ndarray:
    kind, values = list(self.events(place))[-1]
    assert kind == "complete", values
    with self._open(values[0]["url"], timeout=60) as file:
      return soundfile.read(io.BytesIO(file.read()))[0]


@pytest.mark.slow
class TestServer:
  @pytest.fixture(autouse=True)
  def needs_gradio(self):
    pytest.importorskip("gradio")

  def test_visitors_wait_their_turn(self, tiny, tmp_path):
    with serving(tiny, tmp_path) as (address, _):
      visitor = Visitor(address)
      places = [visitor.ask(f"rain {i}") for i in range(3)]
      sounds = [visitor.hear(place) for place in places]
      assert all(len(sound) == 9600 for sound in sounds)
      assert not np.array_equal(sounds[0], sounds[1])
      # Other files of the server are nobody's upload.
      stolen = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
      place = visitor.ask(upload=stolen)
      assert list(visitor.events(place))[-1][0] == "error"
      assert len(visitor.hear(visitor.ask())) == 9600

  @pytest.mark.parametrize(
    ("end", "status"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
  )
  def test_it_ends_in_the_middle_of_a_sound(self, tiny, tmp_path, end, status):
    with serving(tiny, tmp_path, end=end) as (address, process):
      visitor = Visitor(address)
      visitor.hear(visitor.ask())
      assert list(tmp_path.iterdir())
      visitor.ask(duration_s=30)
      time.sleep(1)
    assert process.returncode == status


@pytest.fixture
def browser():
  """A real one, without a window and without a network."""
  if not (BROWSER and DRIVER):
    pytest.skip("no Chromium or no chromedriver; install both to run this")
  webdriver = pytest.importorskip("selenium.webdriver")
  options = webdriver.ChromeOptions()
  options.binary_location = BROWSER
  for argument in (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "no-proxy-server",
    "window-size=1280,900",
    "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ):
    options.add_argument(f"--{argument}")
  options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
  service = webdriver.ChromeService(DRIVER)
  driver = webdriver.Chrome(options=options, service=service)
  yield driver
  driver.quit()


class Page:
  """The page as a visitor sees it."""

  def __init__(self, driver, address: str):
    self._driver, self._address, self.fetched = driver, address, set()
    driver.get(address)

  def find(self, selector: str, words: str = ""):
    """The first such element with these words in it, waiting for it."""
    stop = time.monotonic() + 60
    while time.monotonic() < stop:
      for element in self._driver.find_elements("css selector", selector):
        with contextlib.suppress(Exception):  # drawn anew meanwhile
          if words in element.text:
            return element
      time.sleep(0.2)
    shown = self._driver.find_element("css selector", "body").text
    pytest.fail(f"{selector} {words!r} did not come; the page says:\n{shown}")

  def press(self, selector: str, words: str = "") -> None:
    # By script: a message may lie above a button.
    element = self.find(selector, words)
    self._driver.execute_script("arguments[0].click()", element)

  def ask(self, prompt: str) -> None:
    field = self.find("#prompt textarea")
    field.send_keys("\ue009a\ue000\ue003" + prompt)  # control-a, backspace
    self.press("#make")

  def hear(self, name: str, player: str) -> np.ndarray:
    """The file that the player fetched, once all of the result is there."""
    self.find("#sound", player)
    self.find("#download:not([disabled])")
    stop = time.monotonic() + 60
    while time.monotonic() < stop:
      self._note_requests()
      found = {
        urllib.parse.unquote(u).rpartition("/")[2]: u for u in self.fetched
      }
      if {f"{name}.wav", f"{name}.png"} <= found.keys():
        self.find("#picture img")
        with urllib.request.urlopen(found[f"{name}.wav"], timeout=60) as file:
          return soundfile.read(io.BytesIO(file.read()))[0]
      time.sleep(0.2)
    pytest.fail(f"the page fetched no {name}.wav and .png, but {self.fetched}")

  def _note_requests(self) -> None:
    for entry in self._driver.get_log("performance"):
      message = json.loads(entry["message"])["message"]
      if message["method"] == "Network.requestWillBeSent":
        self.fetched.add(message["params"]["request"]["url"])


@pytest.mark.slow
def test_the_page(browser, tiny, tmp_path, monkeypatch):
  pytest.importorskip("gradio")
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  notes, folder = tmp_path / "notes.wav", tmp_path / "server"
  notes.write_text("These are words.")
  folder.mkdir()
  with serving(tiny, folder) as (address, _):
    page = Page(browser, address)
    page.ask("a dog barks")
    sound = page.hear("a-dog-barks_seed0", "0:05")
    assert sound.shape == (80000,) and sound.std() > 1e-3
    page.ask("")
    page.find("[role=status]", "the prompt is empty: say what to hear")
    page.ask("a" * 5000)
    page.find("[role=status]", "at most 512 are allowed")
    page.press("button", "Continue a sound")
    page.find("#upload input[type=file]").send_keys(str(notes))
    page.find("#upload button[aria-label=Clear]")
    page.ask("rain")
    page.find("[role=status]", "cannot read notes.wav as sound")
    page.press("#upload button[aria-label=Clear]")
    page.ask("дождь")
    again = page.hear("дождь_seed0", "0:05")
    assert again.std() > 1e-3 and not np.array_equal(sound, again)
    outside = {
      u for u in page.fetched if not u.startswith((address, "data:", "blob:"))
    }
    assert not outside
