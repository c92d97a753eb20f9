"""Every function says what it takes and what it gives."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "audiogen_jax"


def functions(
  body: list[ast.stmt], name: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
  """The functions of a file and of its classes, not those inside functions."""
  for node in body:
    if isinstance(node, ast.ClassDef):
      yield from functions(node.body, f"{name}.{node.name}")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      yield f"{name}.{node.name}", node


def unannotated(text: str, name: str) -> list[str]:
  """Each function that lacks annotations, with what lacks them."""
  found = []
  for path, node in functions(ast.parse(text).body, name):
    a = node.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    missing = [
      argument.arg
      for argument in filter(None, arguments)
      if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    if node.returns is None:
      missing.append("its result")
    if missing:
      found.append(f"{path}: {', '.join(missing)}")
  return found


def test_functions_are_annotated():
  found = []
  for file in sorted(PACKAGE.rglob("*.py")):
    name = str(file.relative_to(PACKAGE))
    found += unannotated(file.read_text(encoding="utf-8"), name)
  assert found == []


def test_what_lacks_annotations_is_seen():
  text = "class A:\n  def f(self, x, *y: int, **z): ...\n"
  text += "async def g(*, x: int): ...\ndef h() -> None:\n  def i(x): ...\n"
  found = ["a.py.A.f: x, z, its result", "a.py.g: its result"]
  assert unannotated(text, "a.py") == found
