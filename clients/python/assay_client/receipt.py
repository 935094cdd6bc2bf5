"""Signed receipts, ``assay/receipt/v1`` (docs/receipts.md sections 1 and 2): form, signature, commitments.

Ed25519 is that of pyca/cryptography; points and scalars that libraries disagree about are refused before.
"""

from __future__ import annotations

import hmac
import math
import re
import struct
from typing import Any, Dict, NamedTuple, Optional, Tuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import cbor
from .errors import AssayError
from .hpke import sha256

LABEL = "assay/receipt/v1"
MAX_RECEIPT_BYTES = 4096
MAX_PATH_BYTES = 512
MAX_CHOICES = 16
MAX_ADAPTERS = 8
MAX_TEXT_BYTES = 1024
PROTECTED = b"\xa2\x01\x27\x03" + cbor.encode("application/vnd.assay.receipt+cbor")

BODY, PROMPT_TOKENS, TRANSCRIPT, STOP, LOGIT_BIAS, GRAMMAR, OUTPUT_TOKENS, OUTPUT_TEXT = range(1, 9)

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset((0, 1, _P - 1, _ORDER_8, _P - _ORDER_8))
_WORD = re.compile("[a-z][a-z0-9_]{0,63}")


class Receipt(NamedTuple):
    """The content of a receipt whose signature holds. Digests and commitments are bytes."""

    final: bool
    id: bytes
    seq: int
    prev: bytes
    receipt_key: bytes
    #: ``("attested", claims, report)``, ``("sealed", request)`` or ``("none",)``.
    channel: Tuple[Any, ...]
    model_id: str
    model_sha256: bytes
    status: int
    transcript: bytes
    events: int
    #: ``complete``, ``aborted`` or ``error``; None in a checkpoint.
    end: Optional[str]
    error_code: Optional[str]
    nonce: Optional[bytes]
    method: Optional[str]
    path: Optional[str]
    body: Optional[bytes]
    prompt_tokens: Optional[int]
    completion_tokens: Optional[int]
    last_checkpoint: Optional[bytes]
    #: The whole payload as it was signed, by the numbers of docs/receipts.md section 1.
    payload: Dict[int, Any]

    @property
    def chain(self) -> bytes:
        """Random per boot and caller, 16 bytes."""
        chain: bytes = self.payload[3]
        return chain


def open_receipt(data: bytes) -> Receipt:
    """The content, once the signature by the key it names holds.

    Raises ``receipt_malformed``, ``receipt_version`` and ``receipt_signature``. Whether that key is one to
    trust is for the caller, by evidence.
    """
    if len(data) > MAX_RECEIPT_BYTES:
        raise _wrong("is too large")
    parts = _decoded(data)
    if not isinstance(parts, list) or len(parts) != 4:
        raise _wrong("is no COSE_Sign1 of four parts")
    header, unprotected, payload, signature = parts
    if header != PROTECTED:
        raise _wrong("has another protected header")
    if unprotected != {}:
        raise _wrong("has an unprotected header that is not empty")
    if not isinstance(payload, bytes):
        raise _wrong("has no payload of bytes")
    if not isinstance(signature, bytes) or len(signature) != 64:
        raise _wrong("has no signature of 64 bytes")
    receipt = _read_body(payload)
    signed = cbor.encode(["Signature1", PROTECTED, b"", payload])
    if not _verifies(receipt.receipt_key, signature, signed):
        raise AssayError("receipt_signature", "the receipt is not signed by the key it names")
    return receipt


def field_salt(salt: bytes, field: int, choice: int = 0) -> bytes:
    return hmac.digest(salt, b"assay/salt/v1" + bytes([field, choice]), "sha256")


def commitment(salt: bytes, field: int, digest: bytes, choice: int = 0) -> bytes:
    """The commitment of a field to bytes with this SHA-256 (docs/receipts.md section 2)."""
    return sha256(b"assay/commit/v1" + bytes([field, choice]) + field_salt(salt, field, choice) + digest)


def _verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    if not (_strict_point(key) and _strict_point(signature[:32])):
        return False
    if int.from_bytes(signature[32:], "little") >= _L:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def _strict_point(data: bytes) -> bool:
    """RFC 8032 section 5.1.7, as far as y tells: one encoding, not of small order."""
    y = int.from_bytes(data, "little") & ((1 << 255) - 1)
    return y < _P and y not in _SMALL_ORDER


def _decoded(data: bytes) -> Any:
    try:
        return cbor.decode(data)
    except cbor.NotCanonical as error:
        raise _wrong(f"is not canonical: {error}") from None


def _read_body(payload: bytes) -> Receipt:
    fields = _map(_decoded(payload), "payload")
    label = fields.get(0)
    if label != LABEL:
        if isinstance(label, str) and re.fullmatch("assay/receipt/v[0-9]{1,9}", label):
            raise AssayError("receipt_version", "the receipt is of another version", expected=LABEL, actual=label)
        raise _wrong(f"is not of the domain {LABEL}")
    kind = fields.get(1)
    if not _is_uint(kind) or kind not in (0, 1):
        raise _wrong("is neither checkpoint nor final")
    final = kind == 1
    needed = range(15) if final else [*range(10), 12]
    _closed(fields, needed, (15, 16, 17) if final else (15,), "payload")
    seq, prev = _uint(fields[4], "seq"), _bytes(fields[5], "prev", 32)
    _bytes(fields[3], "chain", 16)
    if (seq == 0) != (prev == bytes(32)):
        raise _wrong("names one before it if and only if it is not the first")
    status, transcript, events, end, code = _outcome(fields[12])
    if final != (end is not None):
        raise _wrong("has an end if and only if it is final")
    model = _model(fields[8])
    _engine(fields[9])
    method = path = body = prompt_tokens = completion_tokens = None
    if final:
        method, path, body = _request(fields[10])
        if fields[11] is not None:
            _sampling(fields[11])
        prompt_tokens, completion_tokens, _ = (_uint(each, "usage") for each in _numbered(fields[13], "usage", 3))
        received, finished = (_uint(each, "times") for each in _numbered(fields[14], "times", 2))
        if finished < received:
            raise _wrong("finished before it was received")
        for key in (16, 17):
            if key in fields:
                _bytes(fields[key], "hash", 32)
    nonce = fields.get(15)
    if 15 in fields and not (isinstance(nonce, bytes) and 16 <= len(nonce) <= 32):
        raise _wrong("nonce is not 16 to 32 bytes")
    return Receipt(
        final=final, id=_bytes(fields[2], "id", 16), seq=seq, prev=prev,
        receipt_key=_bytes(fields[6], "receipt_key", 32), channel=_channel(fields[7]),
        model_id=model[0], model_sha256=model[1], status=status, transcript=transcript, events=events, end=end,
        error_code=code, nonce=nonce, method=method, path=path, body=body, prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens, last_checkpoint=fields.get(16), payload=fields,
    )  # fmt: skip


def _channel(value: Any) -> Tuple[Any, ...]:
    fields = _map(value, "channel")
    kind = fields.get(0)
    if not _is_uint(kind) or kind not in (0, 1, 2):
        raise _wrong("channel is none of 0, 1, 2")
    parts = _numbered(fields, "channel", (3, 2, 1)[kind])
    return (("attested", "sealed", "none")[kind], *(_bytes(each, "channel", 32) for each in parts[1:]))


def _model(value: Any) -> Tuple[str, bytes]:
    name, form, digest, adapters, template = _numbered(value, "model", 5)
    if form not in ("blob", "manifest"):
        raise _wrong("model is neither blob nor manifest")
    for pair in _list(adapters, "adapters", MAX_ADAPTERS):
        if len(_list(pair, "adapter", 2)) != 2:
            raise _wrong("an adapter is not [digest, scale]")
        _bytes(pair[0], "adapter", 32)
        _f64(pair[1], "scale")
    if template is not None:
        _bytes(template, "template", 32)
    return _text(name, "model id"), _bytes(digest, "model digest", 32)


def _engine(value: Any) -> None:
    release, digest, variant, threads, replay, context, batch = _numbered(value, "engine", 7)
    _text(release, "release")
    _bytes(digest, "engine digest", 32)
    _text(variant, "CPU variant")
    for number in (threads, context, batch):
        _uint(number, "engine")
    if _uint(replay, "replay class") > 2:
        raise _wrong("replay class is none of 0, 1, 2")


def _request(value: Any) -> Tuple[str, str, bytes]:
    method, path, body, prompt = _numbered(value, "request", 4)
    if prompt is not None:
        _bytes(prompt, "prompt tokens", 32)
    return _text(method, "method"), _text(path, "path", MAX_PATH_BYTES), _bytes(body, "body", 32)


def _sampling(value: Any) -> None:
    fields = _map(value, "sampling")
    _closed(fields, range(11), (11, 12, 13), "sampling")
    for key in range(7):
        if not _is_uint(fields[key]):
            number = _f64(fields[key], "sampling")
            if number >= 0 and number == math.floor(number) and number <= cbor.MAX_SAFE:
                raise _wrong("a whole number is in eight bytes")
    _uint(fields[7], "seed")
    if not isinstance(fields[8], bool):
        raise _wrong("does not say whether the seed was given")
    if fields[9] is not None:
        _uint(fields[9], "max_tokens")
    _uint(fields[10], "n")
    for key in (11, 12, 13):
        if key in fields:
            _bytes(fields[key], "commitment", 32)


def _outcome(value: Any) -> Tuple[int, bytes, int, Optional[str], Optional[str]]:
    fields = _map(value, "outcome")
    _closed(fields, range(5), (5,), "outcome")
    for at, each in enumerate(_list(fields[3], "choices", MAX_CHOICES)):
        index, finish, tokens, out_tokens, out_text = _numbered(each, "choice", 5)
        if _uint(index, "index") != at:
            raise _wrong("choices are not in order")
        if finish is not None:
            _word(finish, "finish_reason")
        _uint(tokens, "tokens")
        _bytes(out_tokens, "output tokens", 32)
        _bytes(out_text, "output text", 32)
    end, code = fields[4], fields.get(5)
    if end not in (None, "complete", "aborted", "error"):
        raise _wrong("end is none of complete, aborted, error")
    if (end == "error") != (5 in fields):
        raise _wrong("has an error code if and only if it ended with an error")
    status = _uint(fields[0], "status")
    if not 100 <= status <= 599:
        raise _wrong("status is no HTTP status")
    code = None if 5 not in fields else _word(code, "error code")
    return status, _bytes(fields[1], "transcript", 32), _uint(fields[2], "events"), end, code


def _map(value: Any, what: str) -> Dict[Any, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{what} is no map")
    return value


def _closed(fields: Dict[Any, Any], needed: Any, allowed: Any, what: str) -> None:
    known = {*needed, *allowed}
    if any(key not in fields for key in needed) or any(key not in known for key in fields):
        raise _wrong(f"{what} lacks a key or has an unknown one")


def _numbered(value: Any, what: str, count: int) -> Any:
    fields = _map(value, what)
    _closed(fields, range(count), (), what)
    return [fields[key] for key in range(count)]


def _list(value: Any, what: str, most: int) -> Any:
    if not isinstance(value, list) or len(value) > most:
        raise _wrong(f"{what} is no list of at most {most}")
    return value


def _text(value: Any, what: str, most: int = MAX_TEXT_BYTES) -> str:
    if not isinstance(value, str) or len(value.encode()) > most:
        raise _wrong(f"{what} is no text of at most {most} bytes")
    return value


def _word(value: Any, what: str) -> str:
    if not _WORD.fullmatch(_text(value, what)):
        raise _wrong(f"{what} is no lower-case word")
    return value


def _bytes(value: Any, what: str, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise _wrong(f"{what} is not {length} bytes")
    return value


def _is_uint(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _uint(value: Any, what: str) -> int:
    if not _is_uint(value):
        raise _wrong(f"{what} is no whole number")
    return value


def _f64(value: Any, what: str) -> float:
    number = struct.unpack(">d", _bytes(value, what, 8))[0]
    if not math.isfinite(number) or (number == 0 and math.copysign(1, number) < 0):
        raise _wrong(f"{what} is no number a receipt says")
    return number


def _wrong(what: str) -> AssayError:
    return AssayError("receipt_malformed", f"the receipt {what}")
