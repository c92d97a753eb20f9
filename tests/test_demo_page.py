"""The page of `audiogen demo`: served, asked, and seen in a browser."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
from virtual_pod import keeping

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def serving(tiny, folder, cache, *, end=signal.SIGTERM):
  """A server of its own; yields its address and process, then ends it."""
  code = "from audiogen_jax.cli import main; main()"
  environment = os.environ | keeping(cache) | {"TMPDIR": str(folder)}
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
    values = [prompt, upload, duration_s, 0, 3.0, 1.0, 96, 0.0, ""]
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


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  """Where the first server keeps what it compiles for those after it."""
  return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
class TestServer:
  @pytest.fixture(autouse=True)
  def needs_gradio(self):
    pytest.importorskip("gradio")

  def test_visitors_wait_their_turn(self, tiny, tmp_path, cache):
    with serving(tiny, tmp_path, cache) as (address, _):
      visitor = Visitor(address)
      places = [visitor.ask(f"rain {i}") for i in range(3)]
      sounds = [visitor.hear(place) for place in places]
      assert all(len(sound) == 9600 for sound in sounds)
      assert not np.array_equal(sounds[0], sounds[1])
      # Other files of the server are nobody's upload.
      stolen = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
      with pytest.raises(urllib.error.HTTPError, match="422"):
        visitor.ask(upload=stolen)
      assert len(visitor.hear(visitor.ask())) == 9600

  @pytest.mark.parametrize(
    ("end", "status"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
  )
  def test_it_ends_in_the_middle_of_a_sound(
    self, tiny, tmp_path, cache, end, status
  ):
    with serving(tiny, tmp_path, cache, end=end) as (address, process):
      visitor = Visitor(address)
      visitor.hear(visitor.ask())
      assert list(tmp_path.iterdir())
      visitor.ask(duration_s=30)
      time.sleep(1)
    assert process.returncode == status


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
