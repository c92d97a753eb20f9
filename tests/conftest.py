"""What every test stands on; set before jax is imported for the first time."""

import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import haste

_DEVICES = "--xla_force_host_platform_device_count"
_flags = os.environ.get("XLA_FLAGS", "")
if _DEVICES not in _flags:
  _flags = f"{_flags} {_DEVICES}=8".strip()
os.environ["XLA_FLAGS"] = f"{_flags} {haste.FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that needs the network is a bug
# The command line keeps programs from call to call; what tests start does not.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
# A program that two files or two workers need is compiled once: the first
# process makes the folder, and those that it starts find its name here.
_CACHE = "AUDIOGEN_TEST_CACHE"
if "PYTEST_XDIST_WORKER" not in os.environ:
  _folder = tempfile.TemporaryDirectory(prefix="audiogen-tests-")
  os.environ[_CACHE] = _folder.name

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
# The flags have been read now.  Programs that tests start are compiled as they
# are for users.
jax.devices()
os.environ["XLA_FLAGS"] = _flags

# From here on the shapes in signatures are checked at every call, in files that
# have shapes: checked everywhere, opening a checkpoint took twice as long.
_ROOT = Path(__file__).parent.parent
jaxtyping.install_import_hook(
  [
    ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for path in (_ROOT / "audiogen_jax").rglob("*.py")
    if "import jaxtyping" in (text := path.read_text("utf-8"))
    or "from jaxtyping" in text
  ],
  "beartype.beartype",
)

# What has been imported stays: it need not be looked through for garbage again
# and again (3 % of the time of tests/test_sampler.py).
gc.freeze()
gc.set_threshold(50_000, 20, 100)

_TINY_PACK = Path(__file__).parent / "golden" / "audiogen_tiny"


def pytest_addoption(parser: pytest.Parser) -> None:
  parser.addoption(
    "--margins",
    action="store_true",
    help="print used / allowed of every tolerance, those with least room first",
  )


def pytest_configure(config: pytest.Config) -> None:
  if config.getoption("margins"):
    import margins

    config.pluginmanager.register(margins.Margins())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Skips live comparisons where there is nothing to compare with."""
  wanted = ("torch", "transformers")
  missing = [n for n in wanted if importlib.util.find_spec(n) is None]
  if missing:
    skip = pytest.mark.skip(reason=f"{' and '.join(missing)} not installed")
    for item in items:
      if item.get_closest_marker("torch"):
        item.add_marker(skip)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
  """Programs stay on the disk alone: those of all files took 6 GB a worker."""
  jax.config.update("jax_enable_compilation_cache", True)  # planning ends it
  yield
  jax.clear_caches()


@pytest.fixture
def key() -> jax.Array:
  return jax.random.key(0)


@pytest.fixture(scope="session")
def tiny() -> Path:
  """The committed pack, for tests that know its sizes."""
  return _TINY_PACK


@pytest.fixture(scope="session")
def pack() -> Path:
  """A parity pack: a checkpoint and what the reference computed from it.

  Tests that take it hold for any pack of that layout, whatever its sizes:
  AUDIOGEN_PACKS names a folder with others, under the same names.
  """
  folder = _pack(_TINY_PACK.name)
  if not (folder / "expected.npz").is_file():
    pytest.fail(f"{folder} is not a parity pack: it has no expected.npz")
  return folder


@pytest.fixture(scope="session")
def magnet_pack() -> Path:
  """MAGNeT's pack, as `pack` is AudioGen's; other folders need not have it."""
  folder = _pack("magnet_tiny")
  if not (folder / "expected.npz").is_file():
    pytest.skip(f"{folder} is no parity pack; AUDIOGEN_PACKS names a folder")
  return folder


def _pack(name: str) -> Path:
  return Path(os.environ.get("AUDIOGEN_PACKS", _TINY_PACK.parent)) / name


@pytest.fixture
def folder(tmp_path) -> Path:
  """A tiny random model in the published format."""
  import published  # not before the hook above

  published.audiocraft.write(tmp_path, published.parts_of())
  return tmp_path


@pytest.fixture
def browser():
  """A real one, without a window and without a network."""
  chromium = shutil.which("chromium") or shutil.which("google-chrome")
  chromedriver = shutil.which("chromedriver")
  if not (chromium and chromedriver):
    pytest.skip("no Chromium or no chromedriver; install both to run this")
  webdriver = pytest.importorskip("selenium.webdriver")
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
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
  service = webdriver.ChromeService(chromedriver)
  driver = webdriver.Chrome(options=options, service=service)
  yield driver
  driver.quit()


@pytest.fixture
def audiogen(monkeypatch, capsys):
  """Runs the command line; returns status, output, errors."""

  from audiogen_jax import cli  # not before the hook above

  def run(*words):
    monkeypatch.setattr(sys, "argv", ["audiogen", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
      cli.main()
    output, errors = capsys.readouterr()
    return stop.value.code or 0, output, errors

  return run


@pytest.fixture
def refused(audiogen):
  """Runs what must fail: one line, status 2, no traceback."""

  def run(*words):
    status, output, errors = audiogen(*words)
    lines = [line for line in errors.splitlines() if line.strip()]
    assert (status, len(lines)) == (2, 1), errors
    assert lines[0].startswith("error: ") and not output
    return lines[0]

  return run
