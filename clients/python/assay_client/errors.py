"""The error of this package. Its codes are those of docs/codes.md, the same in every language."""

from __future__ import annotations

from typing import Optional

import httpx


class AssayError(httpx.TransportError):
    """A refusal, with its code (docs/codes.md): ``error.code == "sealed_truncated"``.

    It is an ``httpx.TransportError``, so a program that handles failed connections handles it, too.
    """

    def __init__(self, code: str, message: str, *, expected: Optional[str] = None, actual: Optional[str] = None):
        detail = "" if expected is None else f" (expected {expected[:256]}, found {(actual or '')[:256]})"
        super().__init__(f"{code}: {message}{detail}")
        self.code = code
        self.message = message
        self.expected = expected
        self.actual = actual


def malformed(what: str) -> AssayError:
    """Bytes that are no sealed message of the form docs/sealed.md gives."""
    return AssayError("sealed_malformed", what)


def truncated() -> AssayError:
    return AssayError("sealed_truncated", "the message ends before its final chunk")
