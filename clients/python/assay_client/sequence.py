"""The order of the receipts a client was given (docs/receipts.md section 2): ``seq`` counts the answers to one caller.

Answers that ran side by side arrive in another order than they ended in, so an order is refused only where a
client asked for that. Two receipts of one place are always refused.
"""

from __future__ import annotations

import threading
from typing import Dict

from .errors import AssayError
from .receipt import Receipt

MAX_CHAINS = 64
MAX_PLACES = 1024


class ReceiptSequence:
    """Of one client: may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By chain, then by place: the digest there.
        self._chains: Dict[bytes, Dict[int, bytes]] = {}

    def note(self, receipt: Receipt, digest: bytes) -> str:
        """``first``, ``next``, or ``apart``: the one before it was not seen. Raises ``receipt_sequence``."""
        with self._lock:
            known = self._chains.get(receipt.chain)
            places = {} if known is None else known
            seq = receipt.seq
            before = places.get(seq - 1)
            if places.get(seq, digest) != digest or (before is not None and before != receipt.prev):
                raise AssayError("receipt_sequence", f"two receipts claim the same place of their chain ({seq})")
            after = seq + 1 in places
            places[seq] = digest
            self._chains[receipt.chain] = places
            if len(places) > MAX_PLACES:
                places.pop(next(iter(places)))
            if len(self._chains) > MAX_CHAINS:
                self._chains.pop(next(iter(self._chains)))
            if before is not None or seq == 0:
                return "first" if known is None else "next"
            return "first" if known is None and not after else "apart"
