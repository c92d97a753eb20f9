"""MPEG audio as files hold it: frames, each with a header of its own."""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

_KBIT = {  # by version (1, or 2 and 2.5) and layer
  (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
  (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
  (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
  (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
  (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBIT[2, 3] = _KBIT[2, 2]
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000)}
_RATES_HZ[0] = (11025, 12000, 8000)


def with_frame_count(raw: BinaryIO) -> io.BytesIO | None:
  """An MP3 that begins with a frame that counts the others (Xing's).

  None where it has one already.

  Raises:
    ValueError: If there are no two frames in a row.
  """
  raw.seek(0)
  data = raw.read()
  at = 0
  while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
    size = 0
    for byte in data[at + 6 : at + 10]:
      size = size << 7 | byte & 0x7F
    at += 10 + size
  found = _frames(data, at)
  first = next(found, None)
  if first is None:
    raise ValueError("no MP3 is in it")
  begin, length = first
  if re.search(b"Xing|Info|VBRI", data[begin : begin + min(length, 200)]):
    return None
  count = 1 + sum(1 for _ in found)
  version, mono = data[begin + 1] >> 3 & 3, data[begin + 3] >> 6 == 3
  side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
  # The same kind of frame, without a checksum, at a bit rate that has room.
  kinds = (i for i in range(1, 15) if (_length(data, begin, i) or 0) >= 200)
  kind = next(kinds)
  head = bytearray(data[begin : begin + 4])
  head[1] |= 1
  head[2] = kind << 4 | head[2] & 0x0C
  frame = head + bytes(side) + b"Xing\0\0\0\1" + count.to_bytes(4, "big")
  frame = frame.ljust(_length(bytes(frame), 0), b"\0")
  return io.BytesIO(bytes(frame) + data[begin:])


def _frames(data: bytes, at: int) -> Iterator[tuple[int, int]]:
  """Where MPEG frames begin, and how long they are."""
  begun = False
  while at + 4 <= len(data):
    length = _length(data, at)
    if length is not None and not begun:
      # A lone sync word may be chance.
      after = at + length
      if after + 4 <= len(data) and _length(data, after) is None:
        length = None
    if length is None:
      at = data.find(b"\xff", at + 1)
      if at < 0:
        return
      continue
    begun = True
    if at + length > len(data):
      return  # of the last frame a part
    yield at, length
    at += length


def _length(data: bytes, at: int, kind: int | None = None) -> int | None:
  """Bytes of the MPEG frame there, or None if none is.

  Args:
    kind: Index of another bit rate than the frame's own.
  """
  if data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
    return None
  version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
  kind = data[at + 2] >> 4 if kind is None else kind
  rate = data[at + 2] >> 2 & 3
  if version == 1 or layer == 4 or not 0 < kind < 15 or rate == 3:
    return None
  family = 1 if version == 3 else 2
  bits = 1000 * _KBIT[family, layer][kind - 1]
  padding = data[at + 2] >> 1 & 1
  rate_hz = _RATES_HZ[version][rate]
  if layer == 1:
    return 4 * (12 * bits // rate_hz + padding)
  samples = 576 if (family, layer) == (2, 3) else 1152
  return samples // 8 * bits // rate_hz + padding
