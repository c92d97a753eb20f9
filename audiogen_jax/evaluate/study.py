"""A study: points that differ in one thing, the figures of each, a curve.

OUT/
  study.json      what was asked, and the figures of every point that is done
  study.png       a panel for each measure
  POINT/sounds    what a point was judged by, with its manifest
  POINT/...       what was trained for it
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiogen_jax.audio import drawing, io
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate.sounds import Report

FILE, PICTURE, SOUNDS = "study.json", "study.png", "sounds"


@dataclasses.dataclass(frozen=True)
class Point:
  """One of the things that a study compares.

  Attributes:
    name: Of its folder.
    label: For people.
    place: Where it is on the axis of the curve.
    asked: What it is, by name: values that JSON can hold.
    report: What was found, as `Report.plain` gives it; None before.
  """

  name: str
  label: str
  place: float
  asked: Mapping[str, Any]
  report: Mapping[str, Any] | None = None


class Study:
  """The points of a folder, those of earlier calls among them."""

  def __init__(
    self,
    folder: Path,
    name: str,
    asked: Mapping[str, Any],
    points: Sequence[Point],
  ) -> None:
    """Reads what is there, and writes down what is asked now.

    Args:
      folder: Made if need be.
      name: What is studied.
      asked: What is alike for all points, by name: values that JSON can hold.
      points: Those that are wanted.  Others that are there stay.

    Raises:
      InputError: If the folder holds another study, or one of which something
        else was asked, and the message says what; or if it cannot be used.
    """
    self.folder = folder
    self._asked = _plain({"study": name} | dict(asked))
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f"cannot write into {folder}: {error.strerror}; choose another --out"
      ) from None
    self._points: dict[str, Point] = {}
    if (folder / FILE).exists():
      self._read()
    for point in points:
      point = dataclasses.replace(point, asked=_plain(point.asked))
      known = self._points.get(point.name, point)
      self._agree(f"{point.name}: ", known.asked, point.asked)
      # One whose folder was deleted is wanted again.
      done = known.report if (folder / point.name).is_dir() else None
      self._points[point.name] = dataclasses.replace(point, report=done)
    self._write()

  @property
  def points(self) -> list[Point]:
    """Those that are done, along the axis."""
    done = [point for point in self._points.values() if point.report]
    return sorted(done, key=lambda point: point.place)

  def left(self, points: Sequence[Point]) -> list[str]:
    """Names of those that are not done."""
    names = [point.name for point in points]
    return [name for name in names if not self._points[name].report]

  def add(self, name: str, report: Report) -> None:
    """Keeps what was found of a point."""
    found = _plain(report.plain())
    self._points[name] = dataclasses.replace(self._points[name], report=found)
    self._write()

  def draw(self, across: str) -> Path:
    """Draws the curve of each measure, of all points that are done.

    Args:
      across: What the points differ in.

    Returns:
      The picture.
    """
    points = self.points
    panels = []
    for row in zip(*(p.report["figures"] for p in points), strict=True):
      values = [each["value"] for each in row]
      intervals = [tuple(each["interval"]) for each in row]
      # Of the reference, which is that of all points.
      panels.append((row[0]["title"], values, intervals, row[0]["floor"]))
    places = [(point.label, point.place) for point in points]
    path = self.folder / PICTURE
    mark = "halves of the reference"
    drawing.points(path, panels, places, across=across, mark=mark)
    return path

  def _read(self) -> None:
    path = self.folder / FILE
    try:
      held = json.loads(path.read_text(encoding="utf-8"))
      asked = dict(held["asked"])
      for name, fields in held["points"].items():
        self._points[name] = Point(name, **fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
      raise InputError(
        f"{path} is no record of a study; move it away, or name another --out"
      ) from None
    self._agree("", asked, self._asked)

  def _agree(
    self, where: str, old: Mapping[str, Any], new: Mapping[str, Any]
  ) -> None:
    """Raises InputError if something else is asked now, and says what."""
    differ = [
      f"{where}{name} is {_shown(old, name)} there and {_shown(new, name)} here"
      for name in sorted(old.keys() | new.keys())
      if old.get(name) != new.get(name)
    ]
    if differ:
      raise InputError(
        f"{self.folder / FILE} was asked something else: {'; '.join(differ)}."
        "  Name another --out, or ask the same"
      )

  def _write(self) -> None:
    points = {
      point.name: {
        "label": point.label,
        "place": point.place,
        "asked": point.asked,
        "report": point.report,
      }
      for point in self._points.values()
    }
    held = {"asked": self._asked, "points": points}
    with io.whole(self.folder / FILE) as part:
      text = json.dumps(held, indent=2, ensure_ascii=False)
      part.write_text(text + "\n", encoding="utf-8")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
  """Through JSON, so that tuples compare equal to lists."""
  return json.loads(json.dumps(dict(values)))


def _shown(values: Mapping[str, Any], name: str) -> str:
  return shown(values[name]) if name in values else "not set"
