"""The vectors of sealed bodies and receipts, run against this package: each runner gives the names that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from assay_client.answers import Expected, check_answer, check_usage, usage_in
from assay_client.bhttp import ContentReader, RequestHead, decode_request_head, read_varint
from assay_client.envelope import FINAL, ChunkSplitter, ResponseOpener, key_id_of, padded_length
from assay_client.envelope import request_header, request_info, seal_request
from assay_client.errors import AssayError
from assay_client.hpke import AES_128_GCM, AES_256_GCM, Context, is_usable_point, kem_secret, sha256
from assay_client.receipt import commitment, field_salt, open_receipt
from assay_client.streams import StreamCheck

TOP = Path(__file__).resolve().parents[3]
SEALED = TOP / "test/vectors/sealed/sealed-v1.json"
RECEIPTS = TOP / "test/vectors/receipts/receipts-v1.json"

MAX_HEAD_BYTES = 12 * 1024


def load(path: Path) -> Dict[str, Any]:
    return json.loads(path.read_text())


def outcome(work: Callable[[], Any]) -> Any:
    """The value, or the code of its refusal."""
    try:
        return work()
    except AssayError as error:
        return error.code


def pieces_of(data: bytes, size: Optional[int]) -> Iterator[bytes]:
    step = size or max(1, len(data))
    return (data[at : at + step] for at in range(0, len(data), step))


class Recipient:
    """The guest's end of a request, for the vectors alone."""

    def __init__(self, private_key: str, aead: int = AES_256_GCM):
        self._private = X25519PrivateKey.from_private_bytes(bytes.fromhex(private_key))
        self.public_key = self._private.public_key().public_bytes_raw()
        self._aead = aead

    def receive(self, enc: bytes, info: bytes) -> Context:
        if not is_usable_point(enc):
            raise AssayError("sealed_altered", "a point of small order")
        dh = self._private.exchange(X25519PublicKey.from_public_bytes(enc))
        return Context(enc, kem_secret(dh, enc, self.public_key), info, self._aead)


def open_request(recipient: Recipient, data: bytes, pieces: Optional[int]) -> Any:
    """As the guest reads it: one answer to whatever is wrong up to the first chunk."""
    header, enc, rest = data[:7], data[7:39], data[39:]
    try:
        if len(enc) < 32 or header != request_header(key_id_of(recipient.public_key)):
            raise AssayError("sealed_malformed", "the header")
        context = recipient.receive(enc, request_info(header))
        length, at = read_varint(rest, 0) or (0, 0)
        if not 16 < length <= MAX_HEAD_BYTES + 16 or len(rest) < at + length:
            raise AssayError("sealed_malformed", "the first chunk")
        first = context.open(rest[at : at + length], b"")
    except AssayError:
        return "ohttp-key"

    def read() -> Any:
        head, indeterminate = decode_request_head(first)
        content = ContentReader(indeterminate)
        splitter = ChunkSplitter()
        body = b""
        for piece in pieces_of(rest[at + length :], pieces):
            for chunk in splitter.push(piece):
                body += content.push(context.open(chunk, b""))
        body += content.push(context.open(splitter.end(), FINAL))
        content.end()
        fields = [list(field) for field in head.fields]
        digest = sha256(recipient.public_key + enc).hex()
        return {"method": head.method, "path": head.path, "fields": fields, "body": body.hex(), "digest": digest}

    return outcome(read)


def open_response(secret: bytes, enc: bytes, data: bytes, pieces: Optional[int], nonce: int = 32) -> Any:
    def read() -> Any:
        opener = ResponseOpener(enc, lambda _label, _length: secret, nonce)
        body = b"".join(opener.push(piece) for piece in pieces_of(data, pieces)) + opener.end()
        assert opener.head is not None
        fields = [list(field) for field in opener.head.fields]
        return {"status": opener.head.status, "fields": fields, "body": body.hex()}

    return outcome(read)


def run_sealed(vectors: Dict[str, Any]) -> Tuple[int, List[str]]:
    """How many were compared, and which differ."""
    seen: List[Tuple[str, bool]] = []

    def same(name: str, actual: Any, expected: Any) -> None:
        seen.append((name, actual == expected))

    rfc = vectors["rfc9180"]
    example = Recipient(rfc["private_key"], AES_128_GCM)
    same("rfc9180 public key", example.public_key.hex(), rfc["public_key"])
    context = example.receive(bytes.fromhex(rfc["enc"]), bytes.fromhex(rfc["info"]))
    for at, chunk in enumerate(rfc["chunks"]):
        opened = outcome(lambda: context.open(bytes.fromhex(chunk["sealed"]), bytes.fromhex(chunk["aad"])).hex())
        same(f"rfc9180 chunk {at}", opened, rfc["plaintext"])
    for each in rfc["exports"]:
        same("rfc9180 export", context.export(bytes.fromhex(each["context"]), each["length"]).hex(), each["value"])

    draft = vectors["draft_example"]
    gateway = Recipient(draft["private_key"], AES_128_GCM)
    sealed = bytes.fromhex(draft["sealed_request"])
    same("draft header", sealed[:7], request_header(draft["key_id"], AES_128_GCM))
    context = gateway.receive(sealed[7:39], request_info(sealed[:7]))
    splitter = ChunkSplitter()
    chunks = [context.open(chunk, b"") for chunk in splitter.push(sealed[39:])]
    same("draft request", b"".join([*chunks, context.open(splitter.end(), FINAL)]).hex(), draft["request"])
    secret = context.export(b"message/bhttp chunked response", 16)
    answer = open_response(secret, sealed[7:39], bytes.fromhex(draft["sealed_response"]), None, 16)
    same("draft response", answer, {"status": 200, "fields": [], "body": ""})

    recipient = Recipient(vectors["recipient"]["private_key"])
    same("recipient", recipient.public_key.hex(), vectors["recipient"]["public_key"])
    same("key id", key_id_of(recipient.public_key), vectors["recipient"]["key_id"])
    for each in vectors["padding"]:
        same(f"padding {each['length']}", padded_length(each["length"]), each["padded"])

    def head_of(data: bytes) -> Any:
        head, _ = decode_request_head(data)
        return {"method": head.method, "path": head.path, "fields": [list(field) for field in head.fields]}

    for each in vectors["bhttp"]:
        data = bytes.fromhex(each["input"]["head"])
        same(f"bhttp: {each['name']}", outcome(lambda: head_of(data)), each["expect"])
    for pieces in (None, 1, 7):
        for each in vectors["requests"]:
            data = bytes.fromhex(each["input"]["bytes"])
            same(f"request: {each['name']} ({pieces})", open_request(recipient, data, pieces), each["expect"])
        for each in vectors["responses"]:
            secret, enc, data = (bytes.fromhex(each["input"][key]) for key in ("secret", "enc", "bytes"))
            same(f"response: {each['name']} ({pieces})", open_response(secret, enc, data, pieces), each["expect"])
    # This end seals the accepted requests to the very bytes.
    ephemerals = [X25519PrivateKey.from_private_bytes(bytes.fromhex(key)) for key in vectors["ephemeral"].values()]
    by_enc = {key.public_key().public_bytes_raw(): key for key in ephemerals}
    for each in vectors["requests"][:2]:
        data = bytes.fromhex(each["input"]["bytes"])
        expect = each["expect"]
        head = RequestHead(expect["method"], expect["path"], [tuple(field) for field in expect["fields"]])
        sent = seal_request(
            recipient.public_key, head, bytes.fromhex(expect["body"]), ephemeral=by_enc[data[7:39]]
        )
        same(f"sealing: {each['name']}", sent.data, data)
        same(f"digest: {each['name']}", sent.digest.hex(), expect["digest"])
    return len(seen), [name for name, ok in seen if not ok]


def expected_of(vector: Dict[str, Any]) -> Expected:
    return Expected(
        receipt_key=bytes.fromhex(vector["receipt_key"]),
        channel=("attested", bytes.fromhex(vector["claims_sha256"]), bytes.fromhex(vector["report_sha256"])),
        models=vector["models"],
        model=vector.get("model"),
        method=vector["method"],
        path=vector["path"],
        body_digest=sha256(vector["body"].encode()),
        nonce=bytes.fromhex(vector["nonce"]),
    )


def _answer(each: Dict[str, Any]) -> Any:
    body = each["answer"].encode()
    data, salt = bytes.fromhex(each["receipt"]), bytes.fromhex(each["salt"])
    opened = check_answer(data, salt, sha256(body), expected_of(each["expected"]))
    check_usage(opened.receipt, usage_in(json.loads(body)))


def _stream(each: Dict[str, Any], size: Optional[int]) -> Tuple[str, Any]:
    check = StreamCheck(expected_of(each["expected"]))
    passed = b""
    try:
        for piece in pieces_of(each["stream"].encode(), size):
            passed += check.push(piece)
        passed += check.end()
        return passed.decode(), None
    except AssayError as error:
        return (passed + check.passed()).decode(), error.code


def run_receipts(vectors: Dict[str, Any]) -> Tuple[int, List[str]]:
    seen: List[Tuple[str, bool]] = []
    for each in vectors["receipts"]:
        code = outcome(lambda: open_receipt(bytes.fromhex(each["receipt"])) and None)
        seen.append((f"receipt: {each['name']}", code == each["code"]))
    for at, each in enumerate(vectors["commitments"]):
        salt, digest = bytes.fromhex(each["salt"]), sha256(bytes.fromhex(each["bytes"]))
        where = (each["field"], each["choice"])
        got = (field_salt(salt, *where).hex(), commitment(salt, where[0], digest, where[1]).hex())
        seen.append((f"commitment {at}", got == (each["field_salt"], each["commitment"])))
    for each in vectors["answers"]:
        seen.append((f"answer: {each['name']}", outcome(lambda: _answer(each)) == each["code"]))
    for size in (None, 1, 7):
        for each in vectors["streams"]:
            seen.append((f"stream: {each['name']} ({size})", _stream(each, size) == (each["passed"], each["code"])))
    return len(seen), [name for name, ok in seen if not ok]
