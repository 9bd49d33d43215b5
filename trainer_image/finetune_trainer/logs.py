"""What a trainer process logs: to standard error and, in a pod, to a file of the run folder in the layout of `finetune run`.

Secrets are masked where a line is made, so that they reach neither. The last lines are kept for the message that a failure leaves.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from finetune_api.constants import MAX_LOG_LINES
from finetune_api.shown import safe_line

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
MASK: Final = "***"
KEPT_LINES: Final = 40
LONGEST_LINE: Final = 512
"""Characters of a line that a status may hold."""
_LEAST: Final = 6
"""Characters that a text must have to be taken for a token: a shorter one would mask ordinary words."""
_KNOWN: Final = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?<=Bearer )[A-Za-z0-9._~+/-]{8,}=*")
"""The hub's tokens, names and passwords in addresses, bearer tokens."""
_NOISE: Final = {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",
    "torch.utils._pytree": "%s is an Enum subclass",
}
"""What packages that quantise say of themselves, by the logger and how it begins: a kernel for inference is not there, of which we have no use;
of every product, that inputs are rounded to fp16; and that torchao registers its enums by a way that torch calls old."""


class Masking:
    """Replaces the tokens that it was told, and whatever looks like one."""

    def __init__(self) -> None:
        self._tokens: list[str] = []

    def learn(self, secret_files: Mapping[str, str]) -> None:
        """Read the tokens of these files; one that can't be read can't be shown either."""
        for path in secret_files.values():
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                continue
            self._tokens += [word for word in {text, *text.split()} if len(word) >= _LEAST]
        self._tokens.sort(key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for token in self._tokens:
            text = text.replace(token, MASK)
        return _KNOWN.sub(MASK, text)


class ProcessLog:
    """This process's log: set up once, before anything is logged."""

    def __init__(self) -> None:
        self.mask = Masking()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._handlers = [logging.StreamHandler(sys.stderr), _Kept(self._lines)]
        for handler in self._handlers:
            handler.setFormatter(_Formatter(FORMAT, self.mask))
        logging.basicConfig(level=logging.INFO, handlers=self._handlers, force=True)
        logging.captureWarnings(True)
        for name in _NOISE:
            logging.getLogger(name).addFilter(_not_noise)

    def also_to(self, folder: Path, kind: str) -> None:
        """Write the next `NNN-kind.log` of a folder too. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(next_log(folder, kind), encoding="utf-8")
        handler.setFormatter(_Formatter(FORMAT, self.mask))
        self._handlers.append(handler)
        logging.getLogger().addHandler(handler)

    def tail(self, limit: int) -> list[str]:
        """The last 20 lines, as many as together have at most `limit` bytes, without terminal escapes; a long line is cut."""
        lines = [safe_line(line, LONGEST_LINE) for entry in self._lines for line in entry.split("\n")]
        return last_lines([line for line in lines if line][-MAX_LOG_LINES:], limit)

    def close(self) -> None:
        """Let go of the file, and of standard error."""
        logging.captureWarnings(False)
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def next_log(folder: Path, kind: str) -> Path:
    """`003-train.log` after `002-prepare.log`."""
    numbers = [int(path.name.split("-")[0]) for path in folder.glob("[0-9]*-*.log") if path.name.split("-")[0].isdigit()]
    return folder / f"{max(numbers, default=0) + 1:03}-{kind}.log"


def last_lines(lines: Iterable[str], limit: int) -> list[str]:
    """The end of `lines` that fits `limit` bytes of UTF-8, a byte counted for each line's end."""
    kept: deque[str] = deque()
    for line in reversed([line for entry in lines for line in entry.splitlines()]):
        room = limit - 1
        data = line.encode()
        if len(data) > room:
            if not kept and room > 0:
                kept.appendleft(data[-room:].decode("utf-8", "ignore"))
            break
        kept.appendleft(line)
        limit -= len(data) + 1
    return list(kept)


def _not_noise(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NOISE[record.name])


class _Formatter(logging.Formatter):
    def __init__(self, text: str, mask: Masking) -> None:
        super().__init__(text)
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


class _Kept(logging.Handler):
    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
