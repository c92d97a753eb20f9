"""What all commands share: both streams, and the bar."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
  """One line of result, as it is: file names may hold brackets."""
  out.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(*, shown: bool = True) -> Iterator[bars.Progress]:
  """A bar on the error stream, gone when done; one of several may show it."""
  columns = (
    bars.SpinnerColumn(),
    bars.TextColumn("{task.description}", markup=False),
    bars.BarColumn(),
    bars.TaskProgressColumn(),
    bars.TimeElapsedColumn(),
    bars.TextColumn("left"),
    bars.TimeRemainingColumn(),
  )
  with bars.Progress(
    *columns, console=err, transient=True, disable=not shown
  ) as made:
    yield made
