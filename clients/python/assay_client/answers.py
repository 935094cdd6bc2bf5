"""Receipts against the answers they came with (docs/receipts.md sections 3 and 4): whole answers."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple
from urllib.parse import unquote

from .errors import AssayError
from .hpke import sha256
from .receipt import BODY, TRANSCRIPT, Receipt, commitment, open_receipt

#: The routes whose answers have receipts.
_COMPUTING = re.compile(
    r"(?:(?:/v1)?/(?:chat/completions|completions|responses|embeddings|rerank)"
    r"|/v1/(?:messages|reranking|audio/transcriptions|audio/translations))"
)
_ITEM = re.compile(r":([A-Za-z0-9+/]+={0,2}):;salt=:([A-Za-z0-9+/]+={0,2}):")


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
    """Servers route the path percent-decoded."""
    return method == "POST" and _COMPUTING.fullmatch(unquote(re.split("[?#]", path, maxsplit=1)[0])) is not None


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
    data, salt = (base64_bytes(part) for part in item.groups())
    opened = check_answer(data, salt, sha256(body), expected)
    if opened.receipt.status != status or (status >= 400) != (opened.receipt.end == "error"):
        raise AssayError("receipt_transcript", "the receipt is of an answer with another status")
    if opened.receipt.end == "complete":
        check_usage(opened.receipt, usage_in(json_or_none(body)))
    return opened


def json_or_none(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def base64_bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise malformed_receipt() from None
    if base64.b64encode(data).decode() != text:
        raise malformed_receipt()
    return data


def base64url_bytes(text: str) -> bytes:
    """Without padding, in its one spelling."""
    if not re.fullmatch("[A-Za-z0-9_-]*", text):
        raise malformed_receipt()
    plain = text.replace("-", "+").replace("_", "/")
    return base64_bytes(plain + "=" * (-len(plain) % 4))


def _same(code: str, name: str, actual: bytes, expected: bytes) -> None:
    if actual != expected:
        message = f"{name} of the receipt is another than expected"
        raise AssayError(code, message, expected=expected.hex(), actual=actual.hex())


def malformed_receipt() -> AssayError:
    return AssayError("receipt_malformed", "the answer has a receipt of another form")
