"""The transports: ``OpenAI(http_client=httpx.Client(transport=SealedTransport(url, policy="policy.json")))``."""

from __future__ import annotations

import os
import time
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Iterator, Optional, Union

import anyio
import anyio.to_thread
import httpx

from .answers import Opened
from .call import Answered, Call, Own, head_of, own_of
from .envelope import REQUEST_TYPE
from .errors import AssayError, truncated
from .evidence import Evidence, Holder, Rotated, Verifier, origin_of
from .exchange import Close, Handed, OnReceipt, Post, Read, Renew, Step, Steps, Wait, Wire
from .sequence import ReceiptSequence

_HEADERS = {"content-type": REQUEST_TYPE, "incremental": "?1", "cache-control": "no-store"}
_ASKED = {"off": None, "verify": "final", "rolling": "rolling"}
_BROKEN = (httpx.TransportError, OSError)


class _Sealed:
    """What both transports share."""

    def __init__(
        self,
        url: str,
        policy: Union[str, "os.PathLike[str]", None] = None,
        *,
        receipts: str = "off",
        once: bool = False,
        verifier: Optional[Any] = None,
        on_rotated: Optional[Callable[[Rotated], None]] = None,
        on_receipt: Optional[OnReceipt] = None,
        sequence: str = "report",
        transport: Optional[Any] = None,
        wait: Optional[Callable[[float], Any]] = None,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        if receipts not in _ASKED:
            raise ValueError("receipts is off, verify or rolling")
        if sequence not in ("report", "strict"):
            raise ValueError("sequence is report or strict")
        if verifier is None:
            if policy is None:
                raise ValueError("a policy says what to accept: policy=FILE")
            verifier = Verifier(policy)
        self._holder = Holder(origin_of(url), verifier.judge, on_rotated=on_rotated, monotonic=monotonic)
        self._once = once
        self._receipts = _ASKED[receipts]
        self._on_receipt = on_receipt
        self._strict = sequence == "strict"
        self._sequence = ReceiptSequence()
        self._transport = transport or self._default_transport()
        self._wait = wait or self._default_wait

    _default_wait: Callable[[float], Any]

    def _default_transport(self) -> Any:
        raise NotImplementedError

    @property
    def evidence(self) -> Optional[Evidence]:
        """The newest accepted evidence, if there is one."""
        return self._holder.evidence

    def _exchange(self, request: httpx.Request, content: bytes) -> Steps[Union[Handed, httpx.Response]]:
        call = Call(self._holder, head_of(request, content), content, once=self._once, receipts=self._receipts)
        result = yield from call.run()
        if isinstance(result, Own):
            return _own_response(result, request)
        assert isinstance(result, Answered)
        handed = Handed(result.answer, result.expected, self._accept)
        try:
            yield from handed.begin()
        except Exception as error:
            yield Close(result.answer.wire)
            return _own_response(own_of(error), request)
        return handed

    def _accept(self, opened: Opened) -> None:
        order = self._sequence.note(opened.receipt, opened.digest)
        if order == "apart" and self._strict:
            raise AssayError("receipt_sequence", "the receipt does not follow the one before it")
        if self._on_receipt is None:
            return
        try:
            self._on_receipt(opened)
        except Exception as error:
            # Not as it was raised: SDKs send again what a transport raises, and this request ran.
            raise AssayError("receipt_unkept", "the receipt of the answer could not be kept") from error

    def _outer(self, data: bytes, request: httpx.Request) -> httpx.Request:
        extensions = {key: value for key, value in request.extensions.items() if key == "timeout"}
        url = f"{self._holder.origin}/v1/sealed"
        return httpx.Request("POST", url, headers=_HEADERS, content=data, extensions=extensions)


def _own_response(own: Own, request: httpx.Request) -> httpx.Response:
    error = {"message": own.message, "type": "server_error", "param": None, "code": own.code}
    return httpx.Response(502, headers={"x-should-retry": "false"}, json={"error": error}, request=request)


def _response_of(handed: Handed, stream: Any, request: httpx.Request) -> httpx.Response:
    fields = [field for field in handed.answer.fields if field[0] != "transfer-encoding"]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    extensions: Dict[str, Any] = {}
    return httpx.Response(
        handed.answer.status, headers=headers, stream=stream, request=request, extensions=extensions
    )


class _Body(httpx.SyncByteStream):
    def __init__(self, handed: Handed, drive: Callable[[Steps[Optional[bytes]]], Optional[bytes]]):
        self._handed = handed
        self._drive = drive

    def __iter__(self) -> Iterator[bytes]:
        while True:
            piece = self._drive(self._handed.next())
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        self._handed.answer.wire.response.close()


class SealedTransport(_Sealed, httpx.BaseTransport):
    """An ``httpx`` transport whose requests only the attested guest can open (docs/sealed.md).

    Every request goes sealed to ``url``, whatever host it names: only its path counts. ``policy`` is the file
    that ``assay-verify`` judges evidence by; its channel is ``sealed``. ``receipts="verify"`` asks for signed
    receipts and checks them: an answer without one, or of other bytes, never looks complete; ``rolling`` asks
    for checkpoints, too. ``on_receipt`` is called with each last receipt before its answer ends; where it
    raises, the code is ``receipt_unkept``. ``sequence="strict"`` refuses an answer whose receipt does not
    follow the one before it: for clients that ask one thing after another. ``once``:
    never seal anew what an earlier boot may have run.

    Before anything was sent it raises an ``AssayError`` with its code. What ends a request that was sent is a
    502 of its own with ``x-should-retry: false`` and that code, since SDKs repeat what a transport raises. A
    stream that is cut or altered raises the ``AssayError`` in place of its end.

    ``transport`` carries sealed bytes; the default does not judge certificates, since sealed bodies do not
    rest on TLS. ``verifier`` is a ``Verifier`` with arguments of its own.
    """

    def _default_transport(self) -> httpx.BaseTransport:
        return httpx.HTTPTransport(verify=False, trust_env=False)

    def _default_wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def verify(self) -> Evidence:
        """Asks for evidence and has it judged, without sending a request."""
        return self._holder.renew(self._holder.generation)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        result = self._drive(self._exchange(request, content), request)
        if isinstance(result, httpx.Response):
            return result
        return _response_of(result, _Body(result, lambda steps: self._drive(steps, request)), request)

    def close(self) -> None:
        self._transport.close()

    def _drive(self, steps: Steps[Any], request: httpx.Request) -> Any:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._do(step, request)
                except Exception as error:  # Whatever it is: what it means depends on what was sent.
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as stop:
            return stop.value

    def _do(self, step: Step, request: httpx.Request) -> Any:
        if isinstance(step, Renew):
            return self._holder.renew(step.seen)
        if isinstance(step, Wait):
            return self._wait(step.seconds)
        if isinstance(step, Close):
            return step.wire.response.close()
        if isinstance(step, Read):
            try:
                return next(step.wire.pieces, None)
            except _BROKEN:
                raise truncated() from None
        assert isinstance(step, Post)
        try:
            response = self._transport.handle_request(self._outer(step.data, request))
        except _BROKEN:
            return None
        return Wire(response.status_code, response.headers, response, iter(response.stream))


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, handed: Handed, drive: Callable[[Steps[Optional[bytes]]], Awaitable[Optional[bytes]]]):
        self._handed = handed
        self._drive = drive

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            piece = await self._drive(self._handed.next())
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        await self._handed.answer.wire.response.aclose()


class AsyncSealedTransport(_Sealed, httpx.AsyncBaseTransport):
    """As ``SealedTransport``, for ``httpx.AsyncClient``."""

    def _default_transport(self) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=False, trust_env=False)

    async def _default_wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def verify(self) -> Evidence:
        """Asks for evidence and has it judged, without sending a request."""
        return await self._renew(self._holder.generation)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        result = await self._drive(self._exchange(request, content), request)
        if isinstance(result, httpx.Response):
            return result
        return _response_of(result, _AsyncBody(result, lambda steps: self._drive(steps, request)), request)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _renew(self, seen: int) -> Evidence:
        return await anyio.to_thread.run_sync(self._holder.renew, seen, abandon_on_cancel=True)

    async def _drive(self, steps: Steps[Any], request: httpx.Request) -> Any:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._do(step, request)
                except Exception as error:  # Whatever it is: what it means depends on what was sent.
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as stop:
            return stop.value

    async def _do(self, step: Step, request: httpx.Request) -> Any:
        if isinstance(step, Renew):
            return await self._renew(step.seen)
        if isinstance(step, Wait):
            return await self._wait(step.seconds)
        if isinstance(step, Close):
            return await step.wire.response.aclose()
        if isinstance(step, Read):
            try:
                return await step.wire.pieces.__anext__()
            except StopAsyncIteration:
                return None
            except _BROKEN:
                raise truncated() from None
        assert isinstance(step, Post)
        try:
            response = await self._transport.handle_async_request(self._outer(step.data, request))
        except _BROKEN:
            return None
        return Wire(response.status_code, response.headers, response, response.stream.__aiter__())
