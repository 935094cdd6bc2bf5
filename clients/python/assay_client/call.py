"""One sealed request through its tries (docs/sealed.md section 5), without input and output.

``Call.run`` yields what is to be done and is sent the outcome (exchange.py). The same bytes go again while the
outcome is unknown; they are sealed anew only when fresh evidence shows another key, or the guest's clock says so; four sends at most.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

import httpx

from .answers import Expected, asks_for_receipt
from .bhttp import Field, RequestHead, is_refused_inside
from .envelope import ENTRY_BYTES, SealedRequest, field_of, seal_request
from .errors import AssayError
from .exchange import MAX_HELD_BYTES, Answer, Close, Post, Read, Renew, Steps, Wait, open_answer
from .evidence import Evidence, Holder, boot_of
from .hpke import sha256

MAX_SENDS = 4
MAX_REPEATS = 2
MAX_WAIT = 30.0
DEFAULT_WAIT = 0.5
#: Seconds around its time in which the guest takes a request. It remembers one for twice as long after that time:
#: what is sealed anew for a time further away could run a second time.
WINDOW = 300
UNKNOWN_STATUSES = frozenset((408, 429, 502, 503, 504))
OHTTP_KEY = "https://iana.org/assignments/http-problem-types#ohttp-key"
MAX_PROBLEM_BYTES = 4096


class Own(NamedTuple):
    """An answer of this client: SDKs repeat what a transport raises, and would have it sealed anew."""

    code: str
    message: str


class Answered(NamedTuple):
    """The guest's answer, and what its receipt must show, where one was asked for."""

    answer: Answer
    expected: Optional[Expected]


class Unsealed(NamedTuple):
    """An answer that is not sealed: its body is shown to no one. Status 0: there was none."""

    status: int
    retry_after: Optional[str]
    #: Its first bytes, for the problem type alone.
    problem: bytes


class Sent(NamedTuple):
    """A request that was sealed, with its time in seconds by the guest and by the clock of this process."""

    sealed: SealedRequest
    at: int
    sealed_at: float


class Call:
    def __init__(self, holder: Holder, head: RequestHead, content: bytes, *, once: bool, receipts: Optional[str]):
        self._holder = holder
        self._content = content
        self._once = once
        self._model = model_of(head.fields, content)
        self._nonce: Optional[bytes] = None
        fields = [field for field in head.fields if not field[0].startswith("assay-receipt")] if receipts else head.fields
        if receipts and asks_for_receipt(head.method, head.path):
            self._nonce = os.urandom(32)
            fields = [*fields, ("assay-receipts", receipts), ("assay-receipt-nonce", self._nonce.hex())]
        self._head = head._replace(fields=fields)

    def run(self) -> Steps[Union[Answered, Own]]:
        """Raises an ``AssayError`` only before anything was sent."""
        holder = self._holder
        held = holder.fresh()
        if held is None:
            held = yield Renew(holder.generation)
        sent = self._seal(held, None, holder.seconds())
        try:
            return (yield from self._tries(held, sent))
        except Exception as error:
            return own_of(error)

    def _tries(self, held: Evidence, sent: Sent) -> Steps[Union[Answered, Own]]:
        holder = self._holder
        seen = holder.generation
        sends = repeats = 0
        anew_key = anew_clock = False
        while True:
            outcome = yield from _send(sent.sealed)
            sends += 1
            if isinstance(outcome, Answer):
                code = ""
                if outcome.status == 409:
                    yield from outcome.read_whole(MAX_HELD_BYTES)
                    code = _code_in(outcome.content)
                # After sealed_replayed, too: a time this client has wrong would end each of its calls.
                if code in ("attestation_stale", "sealed_replayed"):
                    holder.spoil()
                if code not in ("sealed_replayed", "sealed_clock"):
                    return Answered(outcome, self._expected(held, sent.sealed))
                yield Close(outcome.wire)
                seconds = field_of(outcome.fields, "assay-sealed-time") or ""
                if code != "sealed_clock" or re.fullmatch("[0-9]{1,15}", seconds) is None:
                    return _unknown()
                at = int(seconds)
                holder.set_seconds(at)
                # Only bytes whose time is over are dead: those of a time to come could run later. After a key the
                # guest may have forgotten the first request, and of bytes sealed long ago that they ran.
                late = holder.monotonic() - sent.sealed_at >= WINDOW
                if at <= sent.at or late or anew_key or anew_clock or sends >= MAX_SENDS:
                    return _unknown()
                anew_clock = True
            elif outcome.status == 0 or outcome.status in UNKNOWN_STATUSES:
                if repeats >= MAX_REPEATS or sends >= MAX_SENDS:
                    return _unknown()
                repeats += 1
                yield Wait(retry_after(outcome.retry_after))
                continue
            elif outcome.status != 400 or _problem_type(outcome.problem) != OHTTP_KEY:
                return Own("sealed_unavailable", f"an answer that is not the guest's, with status {outcome.status}")
            else:
                fresh = yield Renew(seen)
                seen = holder.generation
                if fresh.key == held.key:
                    return Own("sealed_refused", "the guest holds the proven key, so the request was altered on the way")
                # The guest must still know what was sent when it takes what is sealed anew.
                other = boot_of(held, fresh) == "other"
                at = holder.seconds()
                apart = not other and abs(at - sent.at) > WINDOW
                if (self._once and other) or apart or anew_key or sends >= MAX_SENDS:
                    return _unknown()
                anew_key = True
                held = fresh
            sent = self._seal(held, sent, at)

    def _seal(self, held: Evidence, before: Optional[Sent], at: int) -> Sent:
        sealed_at = self._holder.monotonic()
        fields: List[Field] = [*self._head.fields, ("assay-sealed-at", str(at))]
        digest = _digest_for(self._model, held.models)
        if digest is not None:
            fields.append(("assay-model", digest))
        if before is not None:
            fields.append(("assay-sealed-before", f"{before.sealed.digest[:ENTRY_BYTES].hex()};at={before.at}"))
        sealed = seal_request(held.key, self._head._replace(fields=fields), self._content)
        return Sent(sealed, at, sealed_at)

    def _expected(self, held: Evidence, sealed: SealedRequest) -> Optional[Expected]:
        if self._nonce is None:
            return None
        return Expected(
            receipt_key=held.receipt_key,
            channel=("sealed", sealed.digest),
            models=held.models,
            model=self._model,
            method=self._head.method,
            path=self._head.path,
            body_digest=sha256(self._content),
            nonce=self._nonce,
        )


def own_of(error: Exception) -> Own:
    """What went wrong once bytes were sent: they may have run, and what a transport raises would be sent again."""
    if isinstance(error, AssayError):
        return Own(error.code, error.message)
    return Own("internal", f"a part of this program failed after the request was sent: {type(error).__name__}")


def head_of(request: httpx.Request, content: bytes) -> RequestHead:
    """The head that is sealed: all fields but those of the connection and of this protocol."""
    fields: Dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        if is_refused_inside(name) or name in ("content-length", "accept-encoding"):
            continue
        if name.startswith("assay-sealed-") or name in ("assay-model", "assay-pad"):
            continue
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if content or request.method not in ("GET", "HEAD"):
        fields["content-length"] = str(len(content))
    return RequestHead(request.method, request.url.raw_path.decode("ascii"), list(fields.items()))


#: Of a part, with whatever fields it has; not of a file that is called so.
_FORM_MODEL = re.compile(
    rb'[;\s]name="?model"?(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]+)\r\n', re.I
)


def model_of(fields: Sequence[Field], content: bytes) -> Optional[str]:
    """The model a request names; None where it names none. The server reads the body itself."""
    kind = (field_of(fields, "content-type") or "").lower()
    if kind.startswith("multipart/form-data"):
        found = _FORM_MODEL.search(content)
        return None if found is None else found.group(1).decode("utf-8", "replace")
    if not kind.startswith("application/json"):
        return None
    body = _json(content)
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


def _digest_for(model: Optional[str], models: Dict[str, str]) -> Optional[str]:
    """The digest of the model a request names. With one model alone, it is that of any request."""
    if model is None:
        return next(iter(models.values())) if len(models) == 1 else None
    if model not in models:
        raise AssayError(
            "model_not_attested", f"the request names the model {model[:128]!r}, which is not attested",
            expected=", ".join(list(models)[:8]), actual=model[:128],
        )  # fmt: skip
    return models[model]


def retry_after(value: Optional[str]) -> float:
    if value is None or not re.fullmatch(r"[0-9]+(\.[0-9]+)?([eE][0-9]{1,3})?", value.strip()):
        return DEFAULT_WAIT
    return min(float(value), MAX_WAIT)


def _problem_type(data: bytes) -> Any:
    body = _json(data)
    return body.get("type") if isinstance(body, dict) else None


def _code_in(data: bytes) -> str:
    """``{error: {code}}``, or that of the Messages API."""
    body = _json(data)
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    code = error.get("code") or (details.get("error_code") if isinstance(details, dict) else None)
    return code if isinstance(code, str) else ""


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _unknown() -> Own:
    return Own("sealed_outcome_unknown", "whether the request was executed cannot be known")


def _send(sealed: SealedRequest) -> Steps[Union[Answer, Unsealed]]:
    wire = yield Post(sealed.data)
    if wire is None:
        return Unsealed(0, None, b"")
    try:
        if wire.is_sealed():
            return (yield from open_answer(wire, sealed))
        problem = b""
        try:
            while len(problem) <= MAX_PROBLEM_BYTES:
                data = yield Read(wire)
                if data is None:
                    break
                problem += data
        except AssayError:
            pass  # Its status is all that counts.
        yield Close(wire)
        return Unsealed(wire.status, wire.header("retry-after"), problem)
    except AssayError:
        yield Close(wire)
        raise
