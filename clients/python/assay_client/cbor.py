"""Deterministic CBOR (RFC 8949 section 4.2.1), the part that signed receipts use.

What is read must be byte-equal to what is written of it. Refused: negative numbers, floats, tags, undefined,
indefinite lengths, integers over 2^53-1, nesting over 8, bytes after the end.
"""

from __future__ import annotations

from typing import Any, List, Tuple

MAX_DEPTH = 8
MAX_VALUES = 16_384
MAX_SAFE = 2**53 - 1


class NotCanonical(ValueError):
    """These bytes are not one canonical item."""


def encode(value: Any) -> bytes:
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0x00, value)
    if isinstance(value, bytes):
        return _head(0x40, len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return _head(0x60, len(data)) + data
    if isinstance(value, list):
        return _head(0x80, len(value)) + b"".join(map(encode, value))
    pairs = sorted((encode(key), encode(item)) for key, item in value.items())
    return _head(0xA0, len(pairs)) + b"".join(key + item for key, item in pairs)


def decode(data: bytes) -> Any:
    """One canonical item that fills ``data``: int, bytes, str, list, dict, bool or None."""
    reader = _Reader(data)
    value = reader.item(0)
    if reader.at != len(data):
        raise NotCanonical("bytes after the end")
    if encode(value) != data:
        raise NotCanonical("not the canonical encoding")
    return value


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major | argument])
    for low, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major | low]) + argument.to_bytes(size, "big")
    raise NotCanonical("an integer is too large")


class _Reader:
    def __init__(self, data: bytes):
        self.data = data
        self.at = 0
        self.values = 0

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise NotCanonical("ends early")
        self.at += length
        return self.data[self.at - length : self.at]

    def item(self, depth: int) -> Any:
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise NotCanonical("too deep or too many values")
        initial = self.take(1)[0]
        if initial in (0xF4, 0xF5):
            return initial == 0xF5
        if initial == 0xF6:
            return None
        major, low = initial >> 5, initial & 31
        if low > 27 or major in (1, 6, 7):
            raise NotCanonical("an item that has no place here")
        argument = low if low < 24 else int.from_bytes(self.take(1 << (low - 24)), "big")
        if argument > MAX_SAFE:
            raise NotCanonical("an integer over 2^53-1")
        if major == 0:
            return argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            try:
                return self.take(argument).decode()
            except UnicodeDecodeError:
                raise NotCanonical("text that is not utf-8") from None
        if argument > len(self.data) - self.at:
            raise NotCanonical("ends early")
        if major == 4:
            items: List[Any] = [self.item(depth + 1) for _ in range(argument)]
            return items
        pairs: List[Tuple[Any, Any]] = []
        for _ in range(argument):
            key = self.item(depth + 1)
            if isinstance(key, bool) or not isinstance(key, (int, str)):
                raise NotCanonical("a map key that is neither integer nor text")
            pairs.append((key, self.item(depth + 1)))
        if len({key for key, _ in pairs}) != len(pairs):
            raise NotCanonical("a key twice")
        return dict(pairs)
