"""`pytest --margins`: what each tolerance allowed, and what the run used.

A tolerance is measured on one processor and has to hold on others, which add
the same numbers in another order.  Where more than half of it is used there is
no room for that.  Counted are `np.testing.assert_allclose` and `pytest.approx`;
of each line the call that used the most.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

_TESTS = Path(__file__).parent
_NAME = "margins"
_ROOM = 0.5


def share_used(actual, desired, rtol, atol) -> tuple[float, float] | None:
  """What the element with least room used, and what it was allowed.

  None where nothing was allowed, or no element is finite.
  """
  a, d = (np.asarray(x) for x in (actual, desired))
  kind = complex if np.iscomplexobj(a) or np.iscomplexobj(d) else float
  a, d = a.astype(kind), d.astype(kind)
  with np.errstate(invalid="ignore"):
    used = np.abs(a - d)
  allowed = np.broadcast_to(atol + rtol * np.abs(d), used.shape)
  counted = np.isfinite(used) & np.isfinite(allowed) & (allowed > 0)
  if not counted.any():
    return None
  used, allowed = used[counted], allowed[counted]
  at = np.argmax(used / allowed)
  return float(used[at]), float(allowed[at])


class Margins:
  """A plugin of pytest.  Workers of xdist send their rows with each report."""

  def __init__(self):
    self._rows: list[tuple[str, float, float]] = []  # of the test that runs
    # Worst of each place: the place, used, allowed, and the test.
    self._worst: dict[str, tuple[float, float, str]] = {}
    self._wrap()

  def _wrap(self) -> None:
    compare = np.testing.assert_allclose

    def assert_allclose(actual, desired, rtol=1e-7, atol=0, *args, **kwargs):
      compare(actual, desired, rtol, atol, *args, **kwargs)
      self._record(share_used(actual, desired, rtol, atol))

    np.testing.assert_allclose = assert_allclose
    approx = type(pytest.approx(1.0))
    equal = approx.__eq__

    def __eq__(expected, actual):
      same = equal(expected, actual)
      if same and np.ndim(actual) == 0:
        allowed = float(expected.tolerance)
        self._record(share_used(actual, expected.expected, 0, allowed))
      return same

    approx.__eq__ = __eq__

  def _record(self, found: tuple[float, float] | None) -> None:
    frame = sys._getframe(2)
    while frame and not _is_test(frame.f_code.co_filename):
      frame = frame.f_back
    if found and frame:
      place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
      self._rows.append((place, *found))

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_makereport(self, item, call):
    item.user_properties += [(_NAME, row) for row in self._rows]
    self._rows.clear()
    return (yield)

  def pytest_runtest_logreport(self, report) -> None:
    if report.when != "teardown":  # what came before is told again
      return
    for name, row in report.user_properties:
      if name == _NAME:
        place, used, allowed = row
        worst = self._worst.get(place)
        if worst is None or used / allowed > worst[0] / worst[1]:
          self._worst[place] = used, allowed, report.nodeid

  def pytest_terminal_summary(self, terminalreporter) -> None:
    rows = sorted(
      (used / allowed, used, allowed, place, test.rpartition("/")[2])
      for place, (used, allowed, test) in self._worst.items()
    )
    terminalreporter.section("margins: used / allowed")
    for share, used, allowed, place, test in reversed(rows):
      mark = "!" if share > _ROOM else " "
      terminalreporter.write_line(
        f"{mark} {share:.3f} {used:8.1e} / {allowed:7.1e}  {place}  {test}"
      )
    tight = sum(share > _ROOM for share, *_ in rows)
    terminalreporter.write_line(
      f"{tight} of {len(rows)} tolerances are more than half used"
    )


def _is_test(file: str) -> bool:
  path = Path(file)
  return path.parent == _TESTS and path != Path(__file__)
