"""Lines of a UTF-8 file, with bounds: what is not UTF-8 is refused with a sentence, a byte-order mark is skipped and noted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from finetune_trainer.data.formats.record import MAX_ROW_BYTES, FileProblem

UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
MARK_NOTE = "starts with a UTF-8 byte-order mark, which was skipped"
TOO_LONG = f"the line is longer than {MAX_ROW_BYTES // (1024 * 1024)} MiB; split it into rows, or check that the file has line ends"


class Line(NamedTuple):
    """A line without its end, or what is wrong with it."""

    number: int
    text: str
    problem: str | None
    size: int


def open_text(path: Path, notes: list[str]) -> BinaryIO:
    """Open a file after its byte-order mark. Raises FileProblem for UTF-16 and UTF-32."""
    stream = path.open("rb")
    head = stream.read(4)
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            stream.close()
            raise FileProblem(f"the file is {name}; save it as UTF-8 (iconv -f {name} -t UTF-8)")
    # UTF-16 without a mark: every second byte of plain English is zero.
    if len(head) == 4 and (head[0] == head[2] == 0 or head[1] == head[3] == 0):
        stream.close()
        raise FileProblem("the file looks like UTF-16 without a byte-order mark; save it as UTF-8 (iconv -f UTF-16LE -t UTF-8)")
    marked = head.startswith(UTF8_MARK)
    if marked:
        notes.append(MARK_NOTE)
    stream.seek(len(UTF8_MARK) if marked else 0)
    return stream


def read_lines(stream: BinaryIO, *, keep_ends: bool = False) -> Iterator[Line]:
    """Lines as text, numbered from 1; memory is bounded by MAX_ROW_BYTES."""
    number = 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        size = len(raw)
        if size > MAX_ROW_BYTES:
            while not raw.endswith(b"\n") and (raw := stream.readline(MAX_ROW_BYTES)):
                size += len(raw)
            yield Line(number, "", TOO_LONG, size)
            continue
        if b"\0" in raw:
            yield Line(number, "", f"has a NUL byte at byte {raw.index(0) + 1} of the line; the file is damaged or not text", size)
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line; save the file as UTF-8"
            yield Line(number, "", problem, size)
            continue
        yield Line(number, text if keep_ends else text.rstrip("\r\n"), None, size)
