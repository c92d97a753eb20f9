"""`audiogen demo`."""

import contextlib
import errno
import os
import pathlib
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any

import typer

from audiogen_jax import families
from audiogen_jax.cli import models, scorers, terminal
from audiogen_jax.core.errors import InputError


def demo(
  model: models.Model = models.DEFAULT_MODEL,
  adapters: models.Adapters = None,
  port: Annotated[
    int, typer.Option(min=0, max=65535, help="0 takes a free one.")
  ] = 7860,
  host: Annotated[
    str, typer.Option(help="0.0.0.0 lets other machines in.")
  ] = "127.0.0.1",
  scorer: Annotated[str | None, typer.Option(help=scorers.PAGE_HELP)] = None,
) -> None:
  """Serve a web page that makes sounds (extra `demo`)."""
  with _folder() as folder, _listen(host, port) as listener:
    page = _page(folder)
    with terminal.bar() as bar:
      bar.add_task(f"loading {model}", total=None)
      sampling = families.describe(model).sampling
      loaded = families.load(model, adapters=adapters)
      judge = None if scorer is None else scorers.clap(scorer)
    terminal.say(f"{_url(listener)} (Ctrl-C ends it)")
    stopping = threading.Event()
    # A folder's place on the server is nobody's business.
    place = pathlib.Path(model)
    name = place.resolve().name if place.exists() else model
    blocks = page.build(loaded, sampling, name, folder, stopping.is_set, judge)
    with contextlib.suppress(KeyboardInterrupt):
      _serve(page, blocks, folder, listener, stopping)


@contextlib.contextmanager
def _folder() -> Iterator[pathlib.Path]:
  """A folder for whatever Gradio stores, deleted however the server ends."""
  handlers = {
    signal.SIGTERM: lambda number, _: sys.exit(128 + number),
    # A closed terminal ends the server as gently.
    signal.SIGHUP: lambda *_: signal.raise_signal(signal.SIGTERM),
  }
  before = {
    number: signal.signal(number, do) for number, do in handlers.items()
  }
  try:
    with tempfile.TemporaryDirectory(
      prefix="audiogen-demo-", ignore_cleanup_errors=True
    ) as folder:
      yield pathlib.Path(folder).resolve()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
  """A socket that listens already, so that the port is ours before the model.

  Raises:
    InputError: If it cannot be had.
  """
  try:
    family, kind, _, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    listener = socket.socket(family, kind)
    try:
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(address)
      listener.listen()
    except OSError:
      listener.close()
      raise
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      raise InputError(
        f"port {port} of {host} is in use; take another: --port {port + 1}"
      ) from None
    raise InputError(
      f"cannot listen at port {port} of {host}: {error.strerror}; try another"
      " --port or --host"
    ) from None
  return listener


def _page(folder: pathlib.Path) -> ModuleType:
  """The page's module; Gradio reads the environment when it is imported."""
  os.environ.update(
    GRADIO_TEMP_DIR=str(folder),
    GRADIO_ANALYTICS_ENABLED="False",
    GRADIO_RUN_HISTORY="False",
  )
  try:
    from audiogen_jax.cli import page
  except ModuleNotFoundError as error:
    if error.name != "gradio":
      raise
    raise InputError(
      "the demo needs gradio: pip install 'audiogen_jax[demo]'"
    ) from None
  return page


def _url(listener: socket.socket) -> str:
  host, port = listener.getsockname()[:2]
  return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _serve(
  page: ModuleType,
  blocks: Any,
  folder: pathlib.Path,
  listener: socket.socket,
  stopping: threading.Event,
) -> None:
  """Serves until a signal comes."""
  import fastapi  # comes with gradio
  import uvicorn

  @contextlib.asynccontextmanager
  async def lifespan(_):
    yield
    stopping.set()

  app = fastapi.FastAPI(lifespan=lifespan)
  page.mount(app, blocks, folder)
  config = uvicorn.Config(
    app,
    log_level="error",
    timeout_graceful_shutdown=1,  # open pages hold connections for ever
  )
  uvicorn.Server(config).run(sockets=[listener])
