"""Sealed requests and responses (docs/sealed.md; RFC 9458 with draft-ietf-ohai-chunked-ohttp-08)."""

from __future__ import annotations

from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .bhttp import ContentReader, RequestHead, ResponseHead, decode_response_head, encode_request_head
from .bhttp import read_varint, write_varint
from .errors import AssayError, malformed, truncated
from .hpke import AES_256_GCM, KDF, KEM, NONCE_BYTES, TAG_BYTES, chunk_nonce, expand, extract, send_to, sha256

REQUEST_TYPE = "message/ohttp-chunked-req"
RESPONSE_TYPE = "message/ohttp-chunked-res"
REQUEST_LABEL = b"message/bhttp chunked request"
RESPONSE_LABEL = b"message/bhttp chunked response"
MAX_CHUNK_BYTES = 16_384
RESPONSE_NONCE_BYTES = 32
ENTRY_BYTES = 16
MIN_PADDED_BYTES = 2048
MAX_RESPONSE_HEAD_BYTES = 64 * 1024
FINAL = b"final"

Export = Callable[[bytes, int], bytes]


class SealedRequest(NamedTuple):
    """A request on its way, and what its answer opens with."""

    data: bytes
    enc: bytes
    export: Export
    #: SHA-256(recipient's public key, encapsulated key): key 7 of its receipt; the entry begins with it.
    digest: bytes


def key_id_of(public_key: bytes) -> int:
    return sha256(public_key)[0] % 128


def request_header(key_id: int, aead: int = AES_256_GCM) -> bytes:
    return bytes([key_id]) + KEM.to_bytes(2, "big") + KDF.to_bytes(2, "big") + aead.to_bytes(2, "big")


def request_info(header: bytes) -> bytes:
    return REQUEST_LABEL + b"\x00" + header


def padded_length(length: int) -> int:
    """The Padme size of a message, at least 2048 bytes (docs/sealed.md [B6])."""
    size = max(length, MIN_PADDED_BYTES)
    exponent = size.bit_length() - 1
    step = 1 << (exponent - exponent.bit_length())
    return -(-size // step) * step


def seal_request(
    public_key: bytes, head: RequestHead, content: bytes, *, ephemeral: Optional[X25519PrivateKey] = None
) -> SealedRequest:
    """Head and content sealed to a key that was proven. ``ephemeral`` is for test vectors alone."""
    header = request_header(key_id_of(public_key))
    context = send_to(public_key, request_info(header), ephemeral=ephemeral)
    first = encode_request_head(head)
    bare = write_varint(len(content)) + content
    rest = bare.ljust(padded_length(len(first) + len(bare) + 1) - len(first), b"\x00")
    parts: List[bytes] = [header, context.enc]
    sealed = context.seal(first, b"")
    parts += [write_varint(len(sealed)), sealed]
    for at in range(0, len(rest), MAX_CHUNK_BYTES):
        final = at + MAX_CHUNK_BYTES >= len(rest)
        sealed = context.seal(rest[at : at + MAX_CHUNK_BYTES], FINAL if final else b"")
        parts += [write_varint(0 if final else len(sealed)), sealed]
    return SealedRequest(b"".join(parts), context.enc, context.export, sha256(public_key + context.enc))


class ChunkSplitter:
    """Cuts bytes that come in any pieces into sealed chunks; ``take`` gives (sealed, final)."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._final = False

    def push(self, data: bytes) -> Iterator[bytes]:
        """The chunks before the final one that are whole."""
        self._held += data
        while True:
            if self._final:
                if len(self._held) > MAX_CHUNK_BYTES + TAG_BYTES:
                    raise malformed("the final chunk is over its size")
                return
            read = read_varint(bytes(self._held[:8]), 0)
            if read is None:
                return
            length, at = read
            if length == 0:
                self._final = True
                del self._held[:at]
                continue
            if length <= TAG_BYTES:
                raise malformed("a chunk that is not the final one is empty")
            if length > MAX_CHUNK_BYTES + TAG_BYTES:
                raise malformed("a chunk is over its size")
            if len(self._held) < at + length:
                return
            chunk = bytes(self._held[at : at + length])
            del self._held[: at + length]
            yield chunk

    def end(self) -> bytes:
        """The final chunk, at the end of the bytes. Raises ``sealed_truncated``."""
        if not self._final or len(self._held) < TAG_BYTES:
            raise truncated()
        return bytes(self._held)


class ResponseOpener:
    """Opens an answer piece by piece: ``push`` what arrives, and ``end`` once nothing more does.

    ``head`` is there from the chunk on that completes it. Content is given out only after its chunk opened.
    An answer is whole only when ``end`` has returned.
    """

    def __init__(self, enc: bytes, export: Export, nonce_bytes: int = RESPONSE_NONCE_BYTES):
        self._enc = enc
        self._export = export
        self._nonce_bytes = nonce_bytes
        self._held = b""
        self._aead: Optional[AESGCM] = None
        self._nonce = b""
        self._counter = 0
        self._splitter = ChunkSplitter()
        self._plain = b""
        self._content: Optional[ContentReader] = None
        self.head: Optional[ResponseHead] = None

    def push(self, data: bytes) -> bytes:
        if self._aead is None:
            self._held += data
            if len(self._held) < self._nonce_bytes:
                return b""
            self._derive(self._held[: self._nonce_bytes])
            data, self._held = self._held[self._nonce_bytes :], b""
        return b"".join(self._take(self._open(chunk, b"")) for chunk in self._splitter.push(data))

    def end(self) -> bytes:
        """The rest of the content. Raises ``sealed_truncated``, ``sealed_altered``, ``sealed_malformed``."""
        if self._aead is None:
            raise truncated()
        rest = self._take(self._open(self._splitter.end(), FINAL))
        if self.head is None:
            # Empty sections at the end may be left out (RFC 9292 section 3.8), those of a head too.
            self._plain += b"\x00"
            read = decode_response_head(self._plain)
            if read is None or read.next != len(self._plain):
                raise malformed("the response ends inside its head")
            self._set_head(read)
        assert self._content is not None
        self._content.end()
        return rest

    def _derive(self, nonce: bytes) -> None:
        secret = self._export(RESPONSE_LABEL, self._nonce_bytes)
        prk = extract(self._enc + nonce, secret)
        self._aead = AESGCM(expand(prk, b"key", self._nonce_bytes))
        self._nonce = expand(prk, b"nonce", NONCE_BYTES)

    def _open(self, sealed: bytes, aad: bytes) -> bytes:
        assert self._aead is not None
        nonce = chunk_nonce(self._nonce, self._counter)
        self._counter += 1
        try:
            return self._aead.decrypt(nonce, sealed, aad)
        except InvalidTag:
            raise AssayError("sealed_altered", "a chunk of the response does not open") from None

    def _take(self, plain: bytes) -> bytes:
        if self._content is not None:
            return self._content.push(plain)
        self._plain += plain
        read = decode_response_head(self._plain)
        if read is None:
            if len(self._plain) > MAX_RESPONSE_HEAD_BYTES:
                raise malformed("the head of the response is too long")
            return b""
        self._set_head(read)
        assert self._content is not None
        return self._content.push(self._plain[read.next :])

    def _set_head(self, head: ResponseHead) -> None:
        self.head = head
        self._content = ContentReader(head.indeterminate)


def field_of(fields: Sequence, name: str) -> Optional[str]:
    return next((value for candidate, value in fields if candidate == name), None)
