"""Binary HTTP (RFC 9292) as sealed bodies use it (docs/sealed.md sections 3 and 4).

Strict and bounded: a head is read whole, and behind it are content, an empty section and zeros.
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Sequence, Tuple

from .errors import malformed

Field = Tuple[str, str]

MAX_HEAD_BYTES = 12 * 1024
HEAD_STEP = 1024
PAD = "assay-pad"
MAX_FIELDS = 100
MAX_TEXT_BYTES = 64 * 1024
MAX_SAFE = 2**53 - 1

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile("(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_PATH = re.compile("/[\x21\x22\x24-\x7e]*")
_REFUSED = frozenset(
    "host connection keep-alive te trailer expect transfer-encoding upgrade cookie forwarded x-real-ip".split()
)


class RequestHead(NamedTuple):
    method: str
    path: str
    fields: Sequence[Field]


class ResponseHead(NamedTuple):
    status: int
    fields: Sequence[Field]
    indeterminate: bool
    #: Offset behind the head.
    next: int


class _Short(Exception):
    """The bytes end before the item does."""


def is_refused_inside(name: str) -> bool:
    """Whether a request may not have the field inside its sealed head."""
    return name in _REFUSED or name.startswith(("x-forwarded-", "proxy-"))


def write_varint(value: int) -> bytes:
    """RFC 9000 section 16, the shortest encoding."""
    for bits, size, mark in ((6, 1, 0x00), (14, 2, 0x40), (30, 4, 0x80), (62, 8, 0xC0)):
        if value < 1 << bits:
            out = bytearray(value.to_bytes(size, "big"))
            out[0] |= mark
            return bytes(out)
    raise malformed("a length is too large")


def read_varint(data: bytes, at: int) -> Optional[Tuple[int, int]]:
    """The integer at ``at`` and the offset behind it; None when the bytes end first."""
    if at >= len(data):
        return None
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return None
    value = int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
    if value > MAX_SAFE:
        raise malformed("a length is over 2^53-1")
    return value, at + size


def encode_request_head(head: RequestHead) -> bytes:
    """Known length, filled to a multiple of 1024 bytes. Raises ``sealed_malformed``."""
    control = write_varint(0) + _text(head.method) + _text("https") + _text("") + _text(head.path)
    lines = b"".join(_line(name, value) for name, value in head.fields)
    pad_name = _text(PAD)
    # The two lengths that depend on the padding always have two bytes.
    bare = len(control) + 2 + len(lines) + len(pad_name) + 2
    zeros = -bare % HEAD_STEP
    if bare + zeros > MAX_HEAD_BYTES:
        raise malformed(f"the head has {bare} bytes, at most {MAX_HEAD_BYTES} are sent")
    pad = pad_name + _varint2(zeros) + b"0" * zeros
    data = control + _varint2(len(lines) + len(pad)) + lines + pad
    decode_request_head(data)
    return data


def decode_request_head(data: bytes) -> Tuple[RequestHead, bool]:
    """A head that fills ``data``, and whether its content is of indeterminate length."""
    if len(data) > MAX_HEAD_BYTES:
        raise malformed("the head is too long")
    try:
        return _request_head(_Reader(data))
    except _Short:
        raise malformed("the head is cut") from None


def _request_head(reader: "_Reader") -> Tuple[RequestHead, bool]:
    framing = reader.varint()
    if framing not in (0, 2):
        raise malformed("the framing indicator is not one of a request")
    method, scheme, _, path = reader.text(), reader.text(), reader.text(), reader.text()
    fields = reader.fields(framing == 2)
    if reader.at != len(reader.data):
        raise malformed("the head is not alone in its chunk")
    if not _TOKEN.fullmatch(method):
        raise malformed("the method is no token")
    if scheme != "https":
        raise malformed("the scheme is not https")
    if not _PATH.fullmatch(path):
        raise malformed("the path is no absolute path without fragment")
    names = [name for name, _ in fields]
    if any(is_refused_inside(name) for name in names):
        raise malformed("there is a field that a sealed request cannot have")
    if len(set(names)) != len(names):
        raise malformed("a field is there twice")
    if any(name == PAD and value.strip("0") for name, value in fields):
        raise malformed(f"{PAD} is not zeros")
    return RequestHead(method, path, [field for field in fields if field[0] != PAD]), framing == 2


def decode_response_head(data: bytes) -> Optional[ResponseHead]:
    """The head at the beginning of ``data``; None when more bytes are needed."""
    reader = _Reader(data)
    try:
        framing = reader.varint()
        if framing not in (1, 3):
            raise malformed("the framing indicator is not one of a response")
        status = reader.varint()
        if not 200 <= status <= 599:
            raise malformed("the status is none of a final response")
        return ResponseHead(status, reader.fields(framing == 3), framing == 3, reader.at)
    except _Short:
        return None


class _Reader:
    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def varint(self) -> int:
        read = read_varint(self.data, self.at)
        if read is None:
            raise _Short
        value, self.at = read
        return value

    def text(self) -> str:
        length = self.varint()
        if length > MAX_TEXT_BYTES:
            raise malformed("a text of a head is too long")
        if length > len(self.data) - self.at:
            raise _Short
        self.at += length
        return self.data[self.at - length : self.at].decode("latin-1")

    def fields(self, indeterminate: bool) -> List[Field]:
        fields: List[Field] = []
        length = None if indeterminate else self.varint()
        if length is not None and length > len(self.data) - self.at:
            raise _Short
        end = None if length is None else self.at + length
        while end is None or self.at < end:
            name = self.text()
            if end is None and name == "":
                return fields
            value = self.text()
            if not _NAME.fullmatch(name):
                raise malformed("the name of a field is no token in lower case")
            if not _VALUE.fullmatch(value):
                raise malformed("the value of a field has a byte no value may have")
            fields.append((name, value))
            if len(fields) > MAX_FIELDS:
                raise malformed(f"there are more than {MAX_FIELDS} fields")
        if self.at != end:
            raise malformed("a field reaches beyond its section")
        return fields


class ContentReader:
    """The bytes behind a head, in any pieces: content, an empty trailer section, zeros."""

    def __init__(self, indeterminate: bool):
        self._indeterminate = indeterminate
        self._state = "length"
        self._left = 0
        self._held = b""
        self._begun = False

    def push(self, data: bytes) -> bytes:
        """The content in ``data``. Raises ``sealed_malformed``."""
        content: List[bytes] = []
        rest = self._held + data
        self._held = b""
        while rest:
            if self._state == "content":
                piece, rest = rest[: self._left], rest[self._left :]
                content.append(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = "length" if self._indeterminate else "trailers"
            elif self._state == "padding":
                if rest.strip(b"\x00"):
                    raise malformed("the padding is not zeros")
                break
            else:
                read = read_varint(rest, 0)
                if read is None:
                    self._held = rest
                    break
                value, at = read
                rest = rest[at:]
                self._length(value)
        return b"".join(content)

    def _length(self, value: int) -> None:
        if self._state == "trailers":
            if value != 0:
                raise malformed("there are trailers")
            self._state = "padding"
            return
        self._begun = True
        self._left = value
        self._state = "content" if value > 0 else "trailers"

    def end(self) -> None:
        """Raises ``sealed_malformed`` when the message has ended too early."""
        nothing = self._state == "length" and not self._begun
        if self._held or not (nothing or self._state in ("trailers", "padding")):
            raise malformed("the message ends inside its content")


def _varint2(value: int) -> bytes:
    return (0x4000 | value).to_bytes(2, "big")


def _text(value: str) -> bytes:
    try:
        data = value.encode("latin-1")
    except UnicodeEncodeError:
        raise malformed("a head has a character beyond latin1") from None
    return write_varint(len(data)) + data


def _line(name: str, value: str) -> bytes:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise malformed("a field cannot be written")
    return _text(name) + _text(value)


