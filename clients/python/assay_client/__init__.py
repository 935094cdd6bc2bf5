"""Requests that only an attested guest can open, for httpx, and so for the SDKs built on it.

>>> client = OpenAI(base_url=f"{url}/v1", http_client=httpx.Client(transport=SealedTransport(url, "policy.json")))
"""

from . import _supported  # noqa: F401  # First: it says what is missing.
from .answers import Expected, Opened, check_answer
from .envelope import ResponseOpener, SealedRequest, seal_request
from .errors import AssayError
from .evidence import Evidence, Rotated, Verifier
from .receipt import Receipt, open_receipt
from .streams import StreamCheck
from .transport import AsyncSealedTransport, SealedTransport

__all__ = [
    "AssayError",
    "AsyncSealedTransport",
    "Evidence",
    "Expected",
    "Opened",
    "Receipt",
    "ResponseOpener",
    "Rotated",
    "SealedRequest",
    "SealedTransport",
    "StreamCheck",
    "Verifier",
    "check_answer",
    "open_receipt",
    "seal_request",
]
