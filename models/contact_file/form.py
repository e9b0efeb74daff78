"""How a file is written: its encoding, its delimiter, and a digest of it."""

import codecs
import csv
import hashlib
import io
import re
from dataclasses import dataclass
from typing import BinaryIO, Literal, get_args

from models.domain.errors import Invalid

DELIMITERS = ",;\t|"
Encoding = Literal["utf-8", "utf-16", "windows-1250", "windows-1251", "windows-1252", "iso-8859-1", "iso-8859-15"]
ENCODINGS: tuple[str, ...] = get_args(Encoding)
_PIECE_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 16
_MULTIBYTE = re.compile(  # what UTF-8 writes beyond ASCII
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_UTF16 = "The file is not UTF-8, and looks like UTF-16 without a byte order mark; save it as UTF-8 (CSV UTF-8)."
_DAMAGED = (
    "Line {line} holds bytes that are not UTF-8, while other parts of the file are UTF-8; mend it, or name the file's encoding: {known}."
)
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # Excel's own way to name the delimiter


@dataclass(frozen=True)
class Form:
    """`encoding` is one of `ENCODINGS`. `preamble_lines` come before the header and say nothing about contacts."""

    encoding: str
    delimiter: str
    preamble_lines: int
    content_hash: bytes


def examine(file: BinaryIO, encoding: str | None = None, delimiter: str | None = None) -> Form:
    """How the file is written, as far as the caller does not say. Reads it once, and leaves it at its beginning.

    Encodings are tried in the order UTF-8, UTF-16 (only with a byte order mark), Windows-1252: guessing by statistics
    misreads short files (measured). A file that is UTF-8 but for a few bytes is not taken for
    Windows-1252, which would garble every other name in it.

    Raises:
        Invalid: the file is empty, or is not text in its encoding.
    """
    file.seek(0)
    head = file.read(_SAMPLE_BYTES)
    if not head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
        raise Invalid.field("file", "empty_file", "The file is empty; its first line must name the columns.")
    candidates = _candidates(head) if encoding is None else (encoding,)
    if candidates[0] == "utf-8" and _looks_like_utf_16(head):
        raise Invalid.field("file", "undecodable", _UTF16)
    digest, fitting = _read_through(file, candidates)
    if candidates[0] == "utf-8" != fitting and (line := _damaged_line(file)):
        raise Invalid.field("file", "undecodable", _DAMAGED.format(line=line, known=", ".join(ENCODINGS)))
    if not fitting:
        known = ", ".join(ENCODINGS)
        message = f"The file is not text in {' or '.join(candidates)}; save it as CSV UTF-8, or name its encoding: {known}."
        raise Invalid.field("file", "undecodable", message)
    sample = codecs.getincrementaldecoder(codec(fitting))().decode(head)
    lines = sample.splitlines(keepends=True) or [""]
    named = _SEPARATOR_LINE.fullmatch(lines[0])
    if named is None:
        return Form(fitting, delimiter or _guess_delimiter(sample), 0, digest)
    return Form(fitting, delimiter or named[1], 1, digest)


def _candidates(head: bytes) -> tuple[str, ...]:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    return ("utf-8", "windows-1252")


def _looks_like_utf_16(head: bytes) -> bool:
    """Every other byte of Latin text in UTF-16 is zero."""
    pairs = len(head) // 2
    zeros = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    return max(zeros) * 2 > pairs and min(zeros) * 10 < pairs


def _damaged_line(file: BinaryIO) -> int | None:
    """The first line that is not UTF-8, in a file where characters in UTF-8 are at least as many as bytes that are not."""
    file.seek(0)
    number, first, characters, strays = 0, None, 0, 0
    while piece := file.readline(_PIECE_BYTES):
        for line in piece.splitlines():
            number += 1
            rest, found = _MULTIBYTE.subn(b"", line)
            stray = len(_BEYOND_ASCII.findall(rest))
            characters, strays = characters + found, strays + stray
            first = number if stray and first is None else first
    file.seek(0)
    return first if characters >= strays else None


def codec(encoding: str) -> str:
    """Python's name of one of `ENCODINGS`; in UTF-8 a byte order mark is not part of the text."""
    return "utf-8-sig" if encoding == "utf-8" else encoding


def _read_through(file: BinaryIO, candidates: tuple[str, ...]) -> tuple[bytes, str | None]:
    """The file's SHA-256, and the first candidate that decodes all of it."""
    file.seek(0)
    digest = hashlib.sha256()
    decoders = {name: codecs.getincrementaldecoder(codec(name))() for name in candidates}
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
        for name in [name for name in decoders if not _decodes(decoders[name], piece)]:
            del decoders[name]
    fitting = next((name for name in decoders if _decodes(decoders[name], b"", final=True)), None)
    file.seek(0)
    return digest.digest(), fitting


def _decodes(decoder: codecs.IncrementalDecoder, piece: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(piece, final)
    except UnicodeError:
        return False
    return True


def _guess_delimiter(sample: str) -> str:
    """The delimiter that divides the header into the most columns; a comma when there is one column only."""

    def columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=columns)
