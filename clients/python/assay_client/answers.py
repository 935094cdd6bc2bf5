"""Receipts against the answers they came with (docs/receipts.md sections 3 and 4).

A whole answer is held until its receipt holds. A stream passes as it comes, and what ends it for an SDK is
withheld until the last receipt holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .errors import AssayError
from .hpke import sha256
from .receipt import BODY, TRANSCRIPT, Receipt, commitment, open_receipt

#: The routes whose answers have receipts.
_COMPUTING = re.compile(
    r"(?:(?:/v1)?/(?:chat/completions|completions|responses|embeddings|rerank)"
    r"|/v1/(?:messages|reranking|audio/transcriptions|audio/translations))"
)
_ITEM = re.compile(r":([A-Za-z0-9+/]+={0,2}):;salt=:([A-Za-z0-9+/]+={0,2}):")
_RESPONSES_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
_ASSAY = ": assay-"
MAX_EVENT_BYTES = 64 * 1024 * 1024


class Expected(NamedTuple):
    """What a client knows of its request and of the server, to hold a receipt against."""

    receipt_key: bytes
    #: As ``Receipt.channel``; None: not compared, and then a nonce is needed.
    channel: Optional[Tuple[Any, ...]]
    #: Model id to SHA-256 in hex, as the evidence shows them.
    models: Dict[str, str]
    model: Optional[str]
    method: str
    path: str
    body_digest: bytes
    nonce: Optional[bytes]


class Opened(NamedTuple):
    """A last receipt that holds."""

    receipt: Receipt
    data: bytes
    salt: bytes
    #: SHA-256 of the whole receipt.
    digest: bytes


def asks_for_receipt(method: str, path: str) -> bool:
    return method == "POST" and _COMPUTING.fullmatch(path.split("?", 1)[0]) is not None


def check_receipt(receipt: Receipt, expected: Expected) -> None:
    """What every receipt of an answer must show."""
    _same("receipt_key", "receipt_key", receipt.receipt_key, expected.receipt_key)
    if expected.nonce is None:
        if expected.channel is None:
            raise AssayError("receipt_nonce", "without evidence of this connection a nonce is needed")
    elif receipt.nonce is None:
        raise AssayError("receipt_nonce", "the receipt answers no nonce")
    else:
        _same("receipt_nonce", "nonce", receipt.nonce, expected.nonce)
    if expected.channel is not None and receipt.channel != expected.channel:
        raise AssayError("receipt_evidence", "the answer went another way than this request")
    if expected.model is not None and receipt.model_id != expected.model:
        raise AssayError(
            "receipt_model", "another model answered than was asked", expected=expected.model, actual=receipt.model_id
        )
    digest = expected.models.get(receipt.model_id)
    if digest != receipt.model_sha256.hex():
        raise AssayError("receipt_model", "the model has other bytes than the evidence shows")


def check_final(receipt: Receipt, salt: bytes, expected: Expected) -> None:
    check_receipt(receipt, expected)
    if (receipt.method, receipt.path) != (expected.method, expected.path):
        raise AssayError("receipt_request", "the receipt is of another request")
    assert receipt.body is not None
    _same("receipt_request", "body", receipt.body, commitment(salt, BODY, expected.body_digest))


def check_transcript(receipt: Receipt, salt: bytes, digest: bytes, events: int) -> None:
    if receipt.events != events:
        raise AssayError("receipt_transcript", "the receipt covers another number of events than arrived")
    _same("receipt_transcript", "transcript", receipt.transcript, commitment(salt, TRANSCRIPT, digest))


def check_usage(receipt: Receipt, reported: Optional[Tuple[Optional[float], Optional[float]]]) -> None:
    if reported is None:
        return
    for told, signed in zip(reported, (receipt.prompt_tokens, receipt.completion_tokens)):
        if told is not None and told != signed:
            raise AssayError("receipt_usage", "the answer reports another number of tokens")


def usage_in(answer: Any) -> Optional[Tuple[Optional[float], Optional[float]]]:
    """Prompt and completion tokens that an answer or an event reports, in the words of either API."""
    outer = answer if isinstance(answer, dict) else {}
    inner = next((outer[key] for key in ("response", "message") if isinstance(outer.get(key), dict)), outer)
    usage = inner.get("usage")
    if not isinstance(usage, dict):
        return None

    def number(*names: str) -> Optional[float]:
        values = [usage.get(name) for name in names]
        found = [each for each in values if isinstance(each, (int, float)) and not isinstance(each, bool)]
        return sum(found) if found else None

    prompt = number("prompt_tokens")
    if prompt is None:
        prompt = number("input_tokens", "cache_read_input_tokens")
    return prompt, number("completion_tokens", "output_tokens")


def check_answer(data: bytes, salt: bytes, answer_digest: bytes, expected: Expected) -> Opened:
    """The verdict on an answer that was not streamed."""
    receipt = open_receipt(data)
    if not receipt.final:
        raise AssayError("receipt_truncated", "the last receipt is a checkpoint")
    check_final(receipt, salt, expected)
    check_transcript(receipt, salt, answer_digest, 0)
    if receipt.end == "aborted":
        raise AssayError("receipt_truncated", "the receipt says that the answer was broken off")
    return Opened(receipt, data, salt, sha256(data))


def check_whole(header: Optional[str], status: int, body: bytes, expected: Expected) -> Opened:
    """An answer with its header ``assay-receipt``, status and usage included."""
    if header is None:
        raise AssayError("receipt_missing", "the answer has no receipt")
    item = _ITEM.fullmatch(header)
    if item is None:
        raise AssayError("receipt_malformed", "the header of the receipt is of another form")
    data, salt = (_base64(part) for part in item.groups())
    opened = check_answer(data, salt, sha256(body), expected)
    if opened.receipt.status != status or (status >= 400) != (opened.receipt.end == "error"):
        raise AssayError("receipt_transcript", "the receipt is of an answer with another status")
    if opened.receipt.end == "complete":
        check_usage(opened.receipt, usage_in(_json(body)))
    return opened


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
        self._responses_end: Optional[str] = None
        self._usage: Optional[Tuple[Optional[float], Optional[float]]] = None
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
        if not whole or not (self._ended or self._responses_end is not None):
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
        if self._responses_end is not None and self.final is None:
            self._withheld.append(event.raw)
        else:
            self._ready.append(event.raw)

    def _add(self, event: Event) -> None:
        if self._opened is None:
            raise AssayError("receipt_missing", "the stream has no receipt")
        if self._responses_end is not None:
            raise AssayError("receipt_transcript", "the stream goes on after its last event")
        if _is_last(event):
            raise AssayError("receipt_missing", "the stream ends without its last receipt")
        self._events += 1
        self._hash.update(f"{event.name}\n{event.data}\n".encode())
        if event.name in _RESPONSES_ENDS:
            self._responses_end = event.name
        if '"usage":{' in event.data:
            self._usage = usage_in(_json(event.data)) or self._usage

    def _last(self, event: Event, receipt: Receipt) -> None:
        if self._ended or self._responses_end is not None or not _is_last(event):
            raise AssayError("receipt_transcript", "the stream has an event that no receipt covers")
        if _error_code(event) != receipt.error_code:
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
            raise _malformed_comment()

    def _open(self, words: Sequence[str]) -> None:
        if self._opened is not None or len(words) != 2 or self._events > 0:
            raise _malformed_comment()
        if not re.fullmatch("[0-9a-f]{32}", words[0]):
            raise _malformed_comment()
        salt = _base64url(words[1])
        if len(salt) != 32:
            raise _malformed_comment()
        self._opened = (bytes.fromhex(words[0]), salt)

    def _receipt(self, words: Sequence[str]) -> None:
        if self._opened is None or len(words) != 1:
            raise _malformed_comment()
        name, salt = self._opened
        data = _base64url(words[0])
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
        if self._responses_end is not None and (self._responses_end == "response.failed") != (receipt.end == "error"):
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


def _is_last(event: Event) -> bool:
    if event.name in ("message_stop", "error"):
        return True
    return event.name == "" and (event.data == "[DONE]" or event.data.startswith('{"error":'))


def _error_code(event: Event) -> Optional[str]:
    """Of the terminal event, in the words of either API; None of one that is no error."""
    if event.name == "message_stop" or event.data == "[DONE]":
        return None
    body = _json(event.data)
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    code = error.get("code")
    if code is None and isinstance(error.get("details"), dict):
        code = error["details"].get("error_code")
    return code if isinstance(code, str) else ""


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed_comment() from None
    if base64.b64encode(data).decode() != text:
        raise _malformed_comment()
    return data


def _base64url(text: str) -> bytes:
    """Without padding, in its one spelling."""
    if not re.fullmatch("[A-Za-z0-9_-]*", text):
        raise _malformed_comment()
    plain = text.replace("-", "+").replace("_", "/")
    return _base64(plain + "=" * (-len(plain) % 4))


def _same(code: str, name: str, actual: bytes, expected: bytes) -> None:
    if actual != expected:
        message = f"{name} of the receipt is another than expected"
        raise AssayError(code, message, expected=expected.hex(), actual=actual.hex())


def _malformed_comment() -> AssayError:
    return AssayError("receipt_malformed", "the answer has a receipt of another form")


def _refused_event(what: str) -> AssayError:
    return AssayError("receipt_transcript", f"the stream has {what}")
