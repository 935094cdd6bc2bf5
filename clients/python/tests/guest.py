"""A guest for the tests of the transport: opens sealed requests, seals answers, signs receipts."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from assay_client import AssayError, Evidence
from assay_client.bhttp import ContentReader, decode_request_head, read_varint, write_varint
from assay_client.cbor import encode
from assay_client.envelope import FINAL, RESPONSE_LABEL, RESPONSE_TYPE, ChunkSplitter, request_info
from assay_client.hpke import chunk_nonce, expand, extract, sha256
from assay_client.receipt import BODY, PROTECTED, TRANSCRIPT, commitment

from .vectors import Recipient

MODEL = "11" * 32


class Inner(NamedTuple):
    method: str
    path: str
    fields: Dict[str, str]
    body: bytes
    context: Any
    enc: bytes
    digest: bytes


class Guest:
    """Keys of one boot."""

    def __init__(self, issued_at: int = 1_770_000_000):
        self.recipient = Recipient(os.urandom(32).hex())
        self.signer = Ed25519PrivateKey.generate()
        self.issued_at = issued_at
        self.seen: List[Inner] = []

    def evidence(self) -> Evidence:
        receipt_key = self.signer.public_key().public_bytes_raw()
        models = {"demo": MODEL, "other": "22" * 32}
        return Evidence(self.recipient.public_key, receipt_key, models, self.issued_at, self.issued_at + 600)

    def rotate(self) -> None:
        self.recipient = Recipient(os.urandom(32).hex())

    def restart(self) -> None:
        self.rotate()
        self.signer = Ed25519PrivateKey.generate()

    def open(self, data: bytes) -> Optional[Inner]:
        """None where it does not open."""
        context = self.recipient.receive(data[7:39], request_info(data[:7]))
        rest = data[39:]
        length, at = read_varint(rest, 0) or (0, 0)
        try:
            head, indeterminate = decode_request_head(context.open(rest[at : at + length], b""))
        except AssayError:
            return None
        content, splitter = ContentReader(indeterminate), ChunkSplitter()
        body = b"".join(content.push(context.open(chunk, b"")) for chunk in splitter.push(rest[at + length :]))
        body += content.push(context.open(splitter.end(), FINAL))
        content.end()
        digest = sha256(self.recipient.public_key + data[7:39])
        inner = Inner(head.method, head.path, dict(head.fields), body, context, data[7:39], digest)
        self.seen.append(inner)
        return inner


def sealed_answer(
    inner: Inner, status: int, fields: Dict[str, str], pieces: Iterable[bytes], final: bool = True
) -> List[bytes]:
    """The parts of a response, each chunk one part."""
    nonce = os.urandom(32)
    prk = extract(inner.enc + nonce, inner.context.export(RESPONSE_LABEL, 32))
    aead, base = AESGCM(expand(prk, b"key", 32)), expand(prk, b"nonce", 12)
    head = write_varint(3) + write_varint(status)
    for name, value in fields.items():
        head += write_varint(len(name)) + name.encode() + write_varint(len(value)) + value.encode()
    plain = [head + b"\x00", *(write_varint(len(piece)) + piece for piece in pieces if piece)]
    parts = [nonce]
    for at, piece in enumerate(plain):
        sealed = aead.encrypt(chunk_nonce(base, at), piece, b"")
        parts.append(write_varint(len(sealed)) + sealed)
    if final:
        parts.append(b"\x00" + aead.encrypt(chunk_nonce(base, len(plain)), b"\x00", FINAL))
    return parts


class Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in its parts; with ``cut``, the connection ends behind them."""

    def __init__(self, parts: Iterable[bytes], cut: bool = False):
        self.parts = list(parts)
        self.cut = cut
        self.closed = False

    def __iter__(self):
        yield from self.parts
        if self.cut:
            raise httpx.ReadError("cut")

    async def __aiter__(self):
        for part in self.parts:
            yield part
        if self.cut:
            raise httpx.ReadError("cut")

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def respond(parts: Iterable[bytes], cut: bool = False) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": RESPONSE_TYPE}, stream=Parts(parts, cut))


def json_error(inner: Inner, status: int, code: str, **fields: str) -> httpx.Response:
    body = f'{{"error":{{"message":"m","code":"{code}"}}}}'.encode()
    return respond(sealed_answer(inner, status, {"content-type": "application/json", **fields}, [body]))


class Network(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Between client and guest: ``answer`` is asked for each request, and all bytes are kept."""

    def __init__(self, answer: Callable[[httpx.Request, int], httpx.Response]):
        self._answer = answer
        self.sent: List[bytes] = []
        self.requests: List[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.sent.append(request.read())
        return self._answer(request, len(self.sent))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


class Judge:
    """In place of the verifier, whose verdict it repeats: evidence of the guest as it is now."""

    def __init__(self, guest: Guest):
        self.guest = guest
        self.asked = 0
        self.refusal: Optional[AssayError] = None

    def judge(self, _origin: str) -> Evidence:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return self.guest.evidence()


SALT = bytes([0x5A]) * 32
ID = bytes([0x1D]) * 16


def receipt(guest: Guest, inner: Inner, transcript: bytes, events: int, **changes: Any) -> bytes:
    """A last receipt of this answer: ``changes`` replace keys of the payload by ``k<number>``."""
    digest = sha256(transcript)
    body: Dict[int, Any] = {
        0: "assay/receipt/v1", 1: 1, 2: ID, 3: bytes(16), 4: 0, 5: bytes(32),
        6: guest.signer.public_key().public_bytes_raw(),
        7: {0: 1, 1: inner.digest},
        8: {0: "demo", 1: "blob", 2: bytes.fromhex(MODEL), 3: [], 4: None},
        9: {0: "1", 1: bytes(32), 2: "x64", 3: 1, 4: 1, 5: 512, 6: 1},
        10: {0: inner.method, 1: inner.path, 2: commitment(SALT, BODY, sha256(inner.body)), 3: None},
        11: None,
        12: {0: 200, 1: commitment(SALT, TRANSCRIPT, digest), 2: events, 3: [], 4: "complete"},
        13: {0: 3, 1: 2, 2: 0}, 14: {0: 1, 1: 2},
        15: bytes.fromhex(inner.fields["assay-receipt-nonce"]),
    }  # fmt: skip
    body.update({int(key[1:]): value for key, value in changes.items()})
    payload = encode(body)
    signature = guest.signer.sign(encode(["Signature1", PROTECTED, b"", payload]))
    return encode([PROTECTED, {}, payload, signature])


def receipt_header(data: bytes) -> str:
    return f":{base64.b64encode(data).decode()}:;salt=:{base64.b64encode(SALT).decode()}:"


def stream_pieces(guest: Guest, inner: Inner, events: List[str], **changes: Any) -> List[bytes]:
    """The pieces of a streamed answer with receipts; the last one is what ends it."""
    transcript = "".join(f"\n{event}\n" for event in events).encode()
    salt = base64.urlsafe_b64encode(SALT).decode().rstrip("=")
    signed = receipt(guest, inner, transcript, len(events), **changes)
    opening = f": assay-open {ID.hex()} {salt}\n\n".encode()
    last = f": assay-receipt {base64.urlsafe_b64encode(signed).decode().rstrip('=')}\n\n".encode()
    return [opening, *(f"data: {event}\n\n".encode() for event in events), last, b"data: [DONE]\n\n"]


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
