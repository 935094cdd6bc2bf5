"""Evidence for sealed bodies (docs/sealed.md section 1), judged by the one verifier: ``assay-verify seal``.

It runs as a child process, once per evidence. Nothing here judges evidence: without an accepted verdict there
is no key, and nothing is sealed or sent.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Union
from urllib.parse import urlsplit

from .envelope import key_id_of
from .errors import AssayError
from .hpke import is_usable_point

_CODE = re.compile(r"^\s*([a-z][a-z0-9_]{2,63})(?: \([^)]*\))?: (.*)$", re.M)
MAX_OUTPUT_BYTES = 1024 * 1024


class Evidence(NamedTuple):
    """What an accepted verdict says; times are seconds since 1970 of the guest."""

    key: bytes
    receipt_key: bytes
    models: Dict[str, str]
    issued_at: int
    expires: int


class Rotated(NamedTuple):
    """Fresh evidence has another key. ``boot``: ``same`` (the key rotated) or ``other`` (a restart, or another guest)."""

    boot: str
    before: Evidence
    after: Evidence


def boot_of(before: Evidence, after: Evidence) -> str:
    return "same" if before.receipt_key == after.receipt_key else "other"


def origin_of(url: str) -> str:
    """The origin, https or http on loopback; else ``plain_http``."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    loopback = host in ("localhost", "::1") or re.fullmatch(r"127(?:\.\d{1,3}){3}", host) is not None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        raise AssayError("plain_http", f"{parts.scheme}://{host} is neither https nor loopback")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if parts.port is None else f":{parts.port}")


class Verifier:
    """Runs ``assay-verify seal ORIGIN --policy FILE --json``."""

    def __init__(
        self,
        policy: Union[str, "os.PathLike[str]"],
        *,
        command: Optional[Sequence[str]] = None,
        arguments: Sequence[str] = (),
        timeout: float = 120.0,
    ):
        found = command or _default_command()
        self._command: List[str] = [*found, "seal"]
        self._arguments = ["--policy", os.fspath(policy), "--json", *arguments]
        self._timeout = timeout

    def judge(self, origin: str) -> Evidence:
        """Raises an ``AssayError`` with the verifier's code, or ``internal`` when it gave no verdict."""
        argv = [*self._command, origin, *self._arguments]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AssayError("internal", f"the verifier gave no verdict: {type(error).__name__}") from error
        if done.returncode != 0:
            raise _refusal(done.returncode, done.stderr[-MAX_OUTPUT_BYTES:].decode("utf-8", "replace"))
        if len(done.stdout) > MAX_OUTPUT_BYTES:
            raise AssayError("internal", "the verifier printed more than is read")
        return _evidence(done.stdout)


def _default_command() -> List[str]:
    named = os.environ.get("ASSAY_VERIFY")
    found = named or shutil.which("assay-verify")
    if found is None:
        raise AssayError("wrong_usage", "assay-verify is neither on the PATH nor named by ASSAY_VERIFY")
    return [found]


def _refusal(status: int, text: str) -> AssayError:
    matches = _CODE.findall(text)
    code, message = matches[-1] if matches else ("internal", "it said nothing that can be read")
    return AssayError(code, f"the verifier refused ({status}): {message}")


def _evidence(text: bytes) -> Evidence:
    try:
        read = json.loads(text)
        evidence = Evidence(
            key=bytes.fromhex(read["key"]),
            receipt_key=bytes.fromhex(read["receipt_key"]),
            models={str(name): str(digest) for name, digest in read["models"].items()},
            issued_at=_seconds(read["issued_at"]),
            expires=_seconds(read["expires"]),
        )
        whole = len(evidence.receipt_key) == 32 and read["key_id"] == key_id_of(evidence.key)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssayError("internal", "the verifier printed no key that can be read") from error
    if not whole or not is_usable_point(evidence.key):
        raise AssayError("internal", "the verifier printed a key that cannot be used")
    return evidence


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no time")
    return value


class Holder:
    """The newest accepted evidence of one origin, and sealed time (docs/sealed.md section 3).

    Only fresh evidence says what a key is: no error of a network does. Thread-safe; callers that want fresh
    evidence at the same time share one run of the verifier.
    """

    def __init__(
        self,
        origin: str,
        judge: Callable[[str], Evidence],
        *,
        on_rotated: Optional[Callable[[Rotated], None]] = None,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self.origin = origin
        self.monotonic = monotonic
        self._judge = judge
        self._on_rotated = on_rotated
        self._lock = threading.Lock()
        self._evidence: Optional[Evidence] = None
        self._generation = 0
        self._held_at = 0.0
        self._stale = False
        self._time = (0, 0.0)

    @property
    def evidence(self) -> Optional[Evidence]:
        return self._evidence

    @property
    def generation(self) -> int:
        """Counts the evidence that was accepted."""
        return self._generation

    def seconds(self) -> int:
        """Sealed time now: the guest's ``issued_at`` plus what has passed here."""
        seconds, at = self._time
        return math.floor(seconds + self.monotonic() - at)

    def set_seconds(self, seconds: int) -> None:
        self._time = (seconds, self.monotonic())

    def spoil(self) -> None:
        """The guest says that a model is another than this evidence showed: the next request asks anew."""
        self._stale = True

    def fresh(self) -> Optional[Evidence]:
        """The evidence, if it need not be asked for anew."""
        held = self._evidence
        if held is None or self._stale or self.monotonic() - self._held_at >= held.expires - held.issued_at:
            return None
        return held

    def renew(self, seen: int) -> Evidence:
        """Evidence newer than generation ``seen``. Blocks while the verifier runs."""
        with self._lock:
            if self._generation > seen and self._evidence is not None:
                return self._evidence
            asked_at = self.monotonic()
            before, after = self._evidence, self._judge(self.origin)
            self._evidence = after
            self._generation += 1
            self._held_at = asked_at
            self._stale = False
            # The guest read its clock after this was asked: earlier time, never later.
            self._time = (after.issued_at, self.monotonic())
        # Outside the lock, since a listener may use the transport.
        if before is not None and before.key != after.key and self._on_rotated is not None:
            self._on_rotated(Rotated(boot_of(before, after), before, after))
        return after
