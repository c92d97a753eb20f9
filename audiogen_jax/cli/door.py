"""What the page of `audiogen demo` lets in.

Gradio checks where uploads lie only for pages that its own `launch` serves, and
answers a value of the wrong type with an error that says nothing.  Here every
request is read before Gradio sees it, whatever endpoint or component it is for.
"""

import json
import math
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from audiogen_jax.core.errors import InputError

_API = "/gradio_api"
# What a page and a client post to; the queue gives each visitor a turn.
_CALLS = ("queue/join", "call")
_OTHERS = ("cancel", "reset")
_CALL_BYTES = 2**16
_STORE_BYTES = 4 * 2**30


class Door:
  """An ASGI middleware before the page.

  Lets in what reads, uploads while there is room, and well-formed calls of the
  page's functions.  A file in a call must be one that was uploaded here.
  """

  def __init__(
    self, app: ASGIApp, blocks: gr.Blocks, folder: pathlib.Path
  ) -> None:
    """Stands before `app`, which serves `blocks` with files in `folder`."""
    self._app, self._blocks = app, blocks
    self._folder = folder.resolve()

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
      try:
        receive = await self._admit(Request(scope, receive))
      except InputError as error:
        answer = JSONResponse({"detail": f"{error}"}, status_code=422)
        return await answer(scope, receive, send)
    await self._app(scope, receive, send)

  async def _admit(self, request: Request) -> Receive:
    """The request's body to be read again.

    Raises:
      InputError: If it has to stay outside.
    """
    path = request.url.path.rstrip("/").removeprefix(f"{_API}/")
    if path == "upload":
      self._check_room()
      return request.receive
    place, _, name = path.partition("/")
    call = path in _CALLS or (place in _CALLS and name and "/" not in name)
    if not call and path not in _OTHERS:
      raise InputError(
        f"nothing can be posted to {request.url.path[:100]}: post to"
        f" {_API}/call/NAME"
      )
    body = await _body(request)
    if call:
      self._check_call(_json(body), None if path in _CALLS else name)

    async def again() -> dict[str, Any]:
      return {"type": "http.request", "body": body, "more_body": False}

    return _once(again, request.receive)

  def _check_room(self) -> None:
    held = sum(f.lstat().st_size for f in self._folder.rglob("*"))
    if held > _STORE_BYTES:
      raise InputError(
        f"the server holds {held / 2**30:.1f} GiB of sounds already: come back"
        " in an hour"
      )

  def _check_call(self, call: Any, name: str | None) -> None:
    if not isinstance(call, dict) or not isinstance(call.get("data"), list):
      raise InputError('a call is an object with a list called "data"')
    values = call["data"]
    for path in _files(call):
      self._check_file(path)
    function = self._function(name, call.get("fn_index"))
    if len(values) != len(function.inputs):
      labels = ", ".join(_label(i) for i in function.inputs)
      raise InputError(
        f"{len(values)} values where {len(function.inputs)} are expected:"
        f" {labels}"
      )
    for component, value in zip(function.inputs, values, strict=True):
      _check_value(component, value)

  def _function(self, name: str | None, number: Any) -> BlockFunction:
    """The page's function of that name, or else of that number."""
    functions = self._blocks.fns
    if name is None and type(number) is int and number in functions:
      return functions[number]
    for function in functions.values():
      if name is not None and function.api_name == name:
        return function
    names = ", ".join(
      str(f.api_name)
      for f in functions.values()
      if f.api_visibility == "public"
    )
    raise InputError(
      f"there is no function {str(name or number)[:50]!r}; there is {names}"
    )

  def _check_file(self, named: Any) -> None:
    """Refuses a file that was not uploaded to this page."""
    try:
      path = pathlib.Path(named).resolve(strict=True)
      regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, TypeError, ValueError, RuntimeError):
      regular = False
    if not regular or not path.is_relative_to(self._folder):
      raise InputError(
        f"{str(named)[:100]!r} was not uploaded here: post it to {_API}/upload"
        " and give the path that comes back"
      )


async def _body(request: Request) -> bytes:
  """The whole body of a request; raises InputError if it is too long."""
  body = b""
  async for part in request.stream():
    body += part
    if len(body) > _CALL_BYTES:
      raise InputError(
        f"a call of more than {_CALL_BYTES:,} bytes is too long: upload sounds"
        f" to {_API}/upload"
      )
  return body


def _once(first: Receive, then: Receive) -> Receive:
  """Receives one message from `first` and all others from `then`."""
  waiting = [first]

  async def receive():
    return await (waiting.pop() if waiting else then)()

  return receive


def _json(body: bytes) -> Any:
  try:
    return json.loads(body)
  # RecursionError of brackets in brackets, ValueError of all else.
  except (ValueError, RecursionError) as error:
    raise InputError(f"the call is not JSON ({str(error)[:100]})") from None


def _files(value: Any) -> Iterator[Any]:
  """Every path that Gradio could take for a file's, however deep it lies."""
  waiting = [value]
  while waiting:
    value = waiting.pop()
    if isinstance(value, dict):
      if "path" in value:
        yield value["path"]
      waiting.extend(value.values())
    elif isinstance(value, list):
      waiting.extend(value)


def _label(component: gr.components.Component) -> str:
  return getattr(component, "label", None) or type(component).__name__


def _check_value(component: gr.components.Component, value: Any) -> None:
  """Refuses what a control of the page could not have sent."""
  label = _label(component)
  if isinstance(component, gr.Textbox):
    if value is not None and not isinstance(value, str):
      raise InputError(f"{label} must be a text, got {_brief(value)}")
  elif isinstance(component, gr.Audio):
    if value is not None and not (isinstance(value, dict) and "path" in value):
      raise InputError(
        f"{label} must be null or an uploaded file, got {_brief(value)}"
      )
  elif isinstance(component, (gr.Slider, gr.Number)):
    # An empty field of numbers is null; what it is for says so.
    if value is None and isinstance(component, gr.Number):
      return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    low, high = component.minimum, component.maximum
    if not number or not math.isfinite(value) or not low <= value <= high:
      raise InputError(
        f"{label} must be a number from {low:g} to {high:.10g}, got"
        f" {_brief(value)}"
      )
    if isinstance(component, gr.Slider):
      whole = component.step == 1
    else:
      whole = component.precision == 0
    if whole and value != int(value):
      raise InputError(f"{label} must be a whole number, got {_brief(value)}")
  elif isinstance(component, gr.Dataset):
    last = len(component.raw_samples) - 1
    if type(value) is not int or not 0 <= value <= last:
      raise InputError(
        f"{label} must be a number from 0 to {last}, got {_brief(value)}"
      )
  else:
    raise NotImplementedError(f"no check of values for {label}")


def _brief(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 60 else f"{text[:60]}…"
