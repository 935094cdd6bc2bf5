"""HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-GCM.

The primitives are those of pyca/cryptography, whose own HPKE has neither contexts nor the export that a
sealed answer opens with.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Optional

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import AssayError, malformed

KEM, KDF, AES_128_GCM, AES_256_GCM = 0x0020, 0x0001, 0x0001, 0x0002
KEY_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12

# Points of small order of Curve25519 (RFC 7748 section 6.1), without the bit that X25519 ignores.
SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def is_usable_point(key: bytes) -> bool:
    """Whether these are 32 bytes of a public key that is no point of small order."""
    return len(key) == KEY_BYTES and key[:31] + bytes([key[31] & 0x7F]) not in SMALL_ORDER


def extract(salt: bytes, secret: bytes) -> bytes:
    """RFC 5869 section 2.2 with SHA-256."""
    return hmac.digest(salt or bytes(32), secret, "sha256")


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3 with SHA-256."""
    out, block = b"", b""
    counter = 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
        counter += 1
    return out[:length]


def chunk_nonce(base: bytes, counter: int) -> bytes:
    """The base nonce with the counter of the chunk in its last bytes."""
    return (int.from_bytes(base, "big") ^ counter).to_bytes(len(base), "big")


class Context:
    """One end of a message: chunks in their order, and what is exported from it (RFC 9180 section 5)."""

    def __init__(self, enc: bytes, shared: bytes, info: bytes, aead: int):
        suite = b"HPKE" + KEM.to_bytes(2, "big") + KDF.to_bytes(2, "big") + aead.to_bytes(2, "big")
        context = b"\x00" + _labeled_extract(suite, b"", b"psk_id_hash", b"")
        context += _labeled_extract(suite, b"", b"info_hash", info)
        secret = _labeled_extract(suite, shared, b"secret", b"")
        key_bytes = 32 if aead == AES_256_GCM else 16
        self.enc = enc
        self._suite = suite
        self._aead = AESGCM(_labeled_expand(suite, secret, b"key", context, key_bytes))
        self._nonce = _labeled_expand(suite, secret, b"base_nonce", context, NONCE_BYTES)
        self._exporter = _labeled_expand(suite, secret, b"exp", context, 32)
        self._counter = 0

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        return self._aead.encrypt(self._next_nonce(), plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Raises ``sealed_altered``; the context is of no further use then."""
        try:
            return self._aead.decrypt(self._next_nonce(), sealed, aad)
        except InvalidTag:
            raise AssayError("sealed_altered", "a chunk does not open") from None

    def export(self, label: bytes, length: int) -> bytes:
        return _labeled_expand(self._suite, self._exporter, b"sec", label, length)

    def _next_nonce(self) -> bytes:
        nonce = chunk_nonce(self._nonce, self._counter)
        self._counter += 1
        return nonce


def send_to(
    public_key: bytes, info: bytes, *, aead: int = AES_256_GCM, ephemeral: Optional[X25519PrivateKey] = None
) -> Context:
    """A context to the holder of ``public_key``. ``ephemeral`` is for test vectors alone."""
    if not is_usable_point(public_key):
        raise malformed("the public key is no point of X25519 that can be used")
    own = ephemeral or X25519PrivateKey.generate()
    enc = own.public_key().public_bytes_raw()
    dh = own.exchange(X25519PublicKey.from_public_bytes(public_key))
    return Context(enc, kem_secret(dh, enc, public_key), info, aead)


def kem_secret(dh: bytes, enc: bytes, public_key: bytes) -> bytes:
    """ExtractAndExpand of RFC 9180 section 4.1."""
    suite = b"KEM" + KEM.to_bytes(2, "big")
    prk = _labeled_extract(suite, b"", b"eae_prk", dh)
    return _labeled_expand(suite, prk, b"shared_secret", enc + public_key, 32)


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + secret)


def _labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
