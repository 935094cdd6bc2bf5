"""The receipts of a stream, checked while its bytes pass (docs/receipts.md sections 3 and 4).

Every event but the last goes on at once; what ends an answer for an SDK is withheld until the last receipt holds.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .answers import Expected, Opened, base64url_bytes, check_final, check_receipt, check_transcript, check_usage
from .answers import json_or_none, malformed_receipt, usage_in
from .errors import AssayError
from .hpke import sha256
from .receipt import Receipt, open_receipt

_RESPONSES_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
_ASSAY = ": assay-"
MAX_EVENT_BYTES = 64 * 1024 * 1024


class Event(NamedTuple):
    kind: str  # event, other, assay
    name: str
    data: str
    words: Sequence[str]
    raw: bytes


class EventSplitter:
    """Cuts a stream of server-sent events (WHATWG HTML section 9.2) into its blocks, bytes unchanged."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._blank = True
        self._after_cr = False
        self._open = True

    def push(self, data: bytes) -> Iterator[Event]:
        """The blocks that are whole, each before the next is read: a fault comes after what is before it."""
        start = 0
        for at, byte in enumerate(data):
            if self._after_cr:
                self._after_cr = False
                if byte == 10:
                    if not self._open:
                        yield self._take(data[start : at + 1])
                        start = at + 1
                    continue
                if not self._open:
                    yield self._take(data[start:at])
                    start = at
            if byte not in b"\r\n":
                self._blank = False
                continue
            self._open = not self._blank
            self._blank = True
            if byte == 13:
                self._after_cr = True
            elif not self._open:
                yield self._take(data[start : at + 1])
                start = at + 1
        self._keep(data[start:])

    def end(self) -> Tuple[List[Event], bool]:
        """The block that a carriage return ended, and whether nothing is left over."""
        if self._after_cr and not self._open:
            return [self._take(b"")], True
        return [], not self._block

    def _keep(self, part: bytes) -> None:
        self._block += part
        if len(self._block) > MAX_EVENT_BYTES:
            raise AssayError("receipt_transcript", f"an event of the stream is over {MAX_EVENT_BYTES} bytes")

    def _take(self, part: bytes) -> Event:
        self._keep(part)
        raw = bytes(self._block)
        self._block.clear()
        self._open = self._blank = True
        return _event(raw)


def _event(raw: bytes) -> Event:
    try:
        lines = re.split("\r\n|\n|\r", raw.decode())
    except UnicodeDecodeError:
        raise _refused_event("bytes that are not utf-8") from None
    name = data = ours = None
    others = 0
    for line in lines:
        if line == "":
            continue
        if line.startswith(_ASSAY):
            if ours is not None:
                raise _refused_event("two comments of receipts in one block")
            ours = line
            continue
        others += 1
        if line.startswith(":"):
            continue
        field, colon, value = line.partition(":")
        if colon and value.startswith(" "):
            value = value[1:]
        if field == "data" and data is None:
            data = value
        elif field == "event" and name is None:
            name = value
        else:
            raise _refused_event("an event with a second line of data or name, or with another field")
    if ours is not None:
        if others:
            raise _refused_event("a comment of receipts inside an event")
        return Event("assay", "", "", ours[2:].rstrip().split(" "), raw)
    if data is None and name is not None:
        raise _refused_event("an event without data")
    if data is None:
        return Event("other", "", "", (), raw)
    return Event("event", name or "", data, (), raw)


class StreamCheck:
    """One stream: hand on what ``push`` returns, and call ``end`` when nothing more comes."""

    def __init__(self, expected: Expected, on_final: Optional[Callable[[Opened], None]] = None):
        self._expected = expected
        self._on_final = on_final
        self._splitter = EventSplitter()
        self._hash = hashlib.sha256()
        self._events = 0
        self._opened: Optional[Tuple[bytes, bytes]] = None
        self._checkpoints = 0
        self._last_checkpoint: Optional[bytes] = None
        self._withheld: List[bytes] = []
        self._covered: Optional[Role] = None
        self._usage: Optional[Tuple[Optional[float], Optional[float]]] = None
        self._named: Optional[bool] = None
        self._ended = False
        self._ready: List[bytes] = []
        self.final: Optional[Opened] = None

    def push(self, data: bytes) -> bytes:
        """The bytes that may be handed on. When it raises, ``passed`` has those before the fault."""
        self._ready = []
        for event in self._splitter.push(data):
            self._take(event)
        return self.passed()

    def end(self) -> bytes:
        self._ready = []
        events, whole = self._splitter.end()
        for event in events:
            self._take(event)
        if self.final is None:
            if self._opened is None:
                raise AssayError("receipt_missing", "the stream has no receipt")
            raise AssayError("receipt_truncated", "the stream ended before its last receipt")
        if not whole or not (self._ended or self._covered is not None):
            raise AssayError("receipt_truncated", "the stream ended before its last event")
        return self.passed()

    def passed(self) -> bytes:
        return b"".join(self._ready)

    def _take(self, event: Event) -> None:
        if event.kind == "assay":
            self._comment(event.words)
            if self.final is not None:
                self._ready += self._withheld
                self._withheld = []
            return
        if event.kind == "event":
            if self.final is not None:
                self._last(event, self.final.receipt)
            else:
                self._add(event)
        if self._covered is not None and self.final is None:
            self._withheld.append(event.raw)
        else:
            self._ready.append(event.raw)

    def _add(self, event: Event) -> None:
        if self._opened is None:
            raise AssayError("receipt_missing", "the stream has no receipt")
        if self._covered is not None:
            raise AssayError("receipt_transcript", "the stream goes on after its last event")
        role = _role(event)
        if role.kind == "last":
            raise AssayError("receipt_missing", "the stream ends without its last receipt")
        if role.kind == "doubtful":
            raise AssayError("receipt_transcript", "the stream has an event that ends it for some readers only")
        self._events += 1
        self._hash.update(f"{event.name}\n{event.data}\n".encode())
        if self._named is None:
            self._named = event.name != ""
        if role.kind == "covered":
            self._covered = role
        if '"usage":{' in event.data:
            self._usage = usage_in(json_or_none(event.data)) or self._usage

    def _last(self, event: Event, receipt: Receipt) -> None:
        role = _role(event)
        # The events of a stream all have names, or none has.
        of_dialect = self._named is None or self._named == (event.name != "")
        if self._ended or self._covered is not None or role.kind != "last" or not of_dialect:
            raise AssayError("receipt_transcript", "the stream has an event that no receipt covers")
        if role.error_code != receipt.error_code:
            raise AssayError("receipt_transcript", "the stream ends in another way than its receipt says")
        self._ended = True

    def _comment(self, words: Sequence[str]) -> None:
        if self.final is not None:
            raise AssayError("receipt_transcript", "the stream has a receipt after its last one")
        kind, rest = words[0], words[1:]
        if kind == "assay-open":
            self._open(rest)
        elif kind == "assay-receipt":
            self._receipt(rest)
        elif kind != "assay-tokens":
            raise malformed_receipt()

    def _open(self, words: Sequence[str]) -> None:
        if self._opened is not None or len(words) != 2 or self._events > 0:
            raise malformed_receipt()
        if not re.fullmatch("[0-9a-f]{32}", words[0]):
            raise malformed_receipt()
        salt = base64url_bytes(words[1])
        if len(salt) != 32:
            raise malformed_receipt()
        self._opened = (bytes.fromhex(words[0]), salt)

    def _receipt(self, words: Sequence[str]) -> None:
        if self._opened is None or len(words) != 1:
            raise malformed_receipt()
        name, salt = self._opened
        data = base64url_bytes(words[0])
        receipt = open_receipt(data)
        if receipt.id != name:
            raise AssayError("receipt_transcript", "the receipt is of another answer")
        check_transcript(receipt, salt, self._hash.digest(), self._events)
        digest = sha256(data)
        if not receipt.final:
            self._checkpoint(receipt, digest)
            return
        check_final(receipt, salt, self._expected)
        if receipt.last_checkpoint != self._last_checkpoint:
            raise AssayError("receipt_transcript", "the last receipt names another checkpoint than arrived")
        if receipt.end == "aborted":
            raise AssayError("receipt_truncated", "the receipt says that the answer was broken off")
        if self._covered is not None and (self._covered.error_code is not None) != (receipt.end == "error"):
            raise AssayError("receipt_transcript", "the stream ends in another way than its receipt says")
        if receipt.end == "complete":
            check_usage(receipt, self._usage)
        opened = Opened(receipt, data, salt, digest)
        if self._on_final is not None:
            self._on_final(opened)
        self.final = opened

    def _checkpoint(self, receipt: Receipt, digest: bytes) -> None:
        check_receipt(receipt, self._expected)
        if receipt.seq != self._checkpoints or receipt.prev != (self._last_checkpoint or bytes(32)):
            raise AssayError("receipt_transcript", "the checkpoints of the stream are not in their order")
        self._checkpoints += 1
        self._last_checkpoint = digest


class Role(NamedTuple):
    """The part that an event plays in the end of its stream."""

    # part, covered (the last of Responses), last (the one behind the last receipt), or doubtful: an end for
    # some readers only, or with more in it than an end.
    kind: str
    # None of an end that is no error.
    error_code: Optional[str] = None


_DOUBTFUL = Role("doubtful")


def _role(event: Event) -> Role:
    """Readers go by the name of an event, by the type in its data, or by how the data begins."""
    name, data = event.name, event.data
    if data.startswith("[DONE]"):
        return Role("last") if name == "" and data == "[DONE]" else _DOUBTFUL
    body = json_or_none(data)
    if not isinstance(body, dict):
        body = {}
    kind = body.get("type")
    if not isinstance(kind, str):
        kind = ""
    if name in _RESPONSES_ENDS or kind in _RESPONSES_ENDS:
        failed = "" if name == "response.failed" else None
        return Role("covered", failed) if name == kind else _DOUBTFUL
    if "message_stop" in (name, kind):
        bare = name == kind and all(key in ("type", "obfuscation") and isinstance(body[key], str) for key in body)
        return Role("last") if bare else _DOUBTFUL
    error = body.get("error")
    if "error" not in (name, kind) and not isinstance(error, dict):
        return Role("part")
    whole = len(body) == 1 if name == "" else name == "error" and kind == "error"
    return Role("last", _error_code(error)) if whole and isinstance(error, dict) else _DOUBTFUL


def _error_code(error: Dict[str, Any]) -> str:
    """In the words of either API."""
    code = error.get("code")
    if code is None and isinstance(error.get("details"), dict):
        code = error["details"].get("error_code")
    return code if isinstance(code, str) else ""


def _refused_event(what: str) -> AssayError:
    return AssayError("receipt_transcript", f"the stream has {what}")
