"""One sealed exchange, without input and output.

Generators yield what is to be done and are sent the outcome, so that one implementation serves blocking and
async transports. An ``AssayError`` is thrown in where a step fails.
"""

from __future__ import annotations

from typing import Any, Callable, Generator, NamedTuple, Optional, Sequence, TypeVar, Union

from .answers import Expected, Opened, check_whole
from .bhttp import Field
from .envelope import RESPONSE_TYPE, ResponseOpener, SealedRequest, field_of
from .errors import AssayError
from .streams import StreamCheck

#: An answer that is no stream is held whole up to this, so that a cut one is an answer of this client.
MAX_HELD_BYTES = 16 * 1024 * 1024
#: An answer whose receipt is to be checked is held whole: one that is longer is refused.
MAX_CHECKED_BYTES = 64 * 1024 * 1024
OnReceipt = Callable[[Opened], None]


class Wire(NamedTuple):
    """An answer as it comes; ``response`` and ``pieces`` are the transport's."""

    status: int
    headers: Any
    response: Any
    pieces: Any

    def header(self, name: str) -> Optional[str]:
        return self.headers.get(name)

    def is_sealed(self) -> bool:
        return self.status == 200 and self.header("content-type") == RESPONSE_TYPE


class Renew(NamedTuple):
    """Evidence newer than this generation is needed; the outcome is an Evidence."""

    seen: int


class Post(NamedTuple):
    """These bytes go out; the outcome is a Wire, or None when there was no answer."""

    data: bytes


class Read(NamedTuple):
    """The outcome is the next bytes, or None at the end; ``sealed_truncated`` is thrown in for a cut."""

    wire: Wire


class Close(NamedTuple):
    wire: Wire


class Wait(NamedTuple):
    seconds: float


T = TypeVar("T")
Step = Union[Renew, Post, Read, Close, Wait]
Steps = Generator[Step, Any, T]


def open_answer(wire: Wire, sealed: SealedRequest) -> Steps["Answer"]:
    """Reads until the head opened."""
    opener = ResponseOpener(sealed.enc, sealed.export)
    content = b""
    ended = False
    while opener.head is None:
        data = yield Read(wire)
        ended = data is None
        content += opener.end() if data is None else opener.push(data)
    return Answer(wire, opener, content, ended)


class Answer:
    """A sealed answer whose head opened. ``content`` is opened, and was not handed on yet."""

    def __init__(self, wire: Wire, opener: ResponseOpener, content: bytes, ended: bool):
        assert opener.head is not None
        self.wire = wire
        self.status: int = opener.head.status
        self.fields: Sequence[Field] = opener.head.fields
        self.content = content
        self.ended = ended
        self._opener = opener
        #: What comes instead of more content.
        self._error: Optional[AssayError] = None

    @property
    def is_stream(self) -> bool:
        return (field_of(self.fields, "content-type") or "").lower().startswith("text/event-stream")

    @property
    def needs_receipt(self) -> bool:
        """Refusals before work starts have none."""
        names = [name for name, _ in self.fields]
        return self.status < 400 or "assay-receipt" in names or "assay-receipt-id" in names

    def next(self) -> Steps[Optional[bytes]]:
        """More content; None after the final chunk. Raises where the answer was cut or altered."""
        while not self.content and self._error is None and not self.ended:
            yield from self._more()
        content, self.content = self.content, b""
        if content:
            return content
        if self._error is not None:
            raise self._error
        return None

    def read_whole(self, most: int) -> Steps[None]:
        """Keeps what comes in ``content``, up to about ``most`` bytes; an error comes behind it."""
        while not self.ended and self._error is None and len(self.content) <= most:
            yield from self._more()

    def _more(self) -> Steps[None]:
        try:
            data = yield Read(self.wire)
            self.content += self._opener.end() if data is None else self._opener.push(data)
            self.ended = data is None
        except AssayError as error:
            self._error = error

    def failed(self) -> None:
        """Raises what broke the answer that was read whole."""
        if self._error is not None:
            raise self._error


class Handed:
    """What of an answer goes on to the caller: all of it, or with receipts what they cover."""

    def __init__(self, answer: Answer, expected: Optional[Expected], on_receipt: Optional[OnReceipt]):
        self.answer = answer
        self._check: Optional[StreamCheck] = None
        self._first: Optional[bytes] = None
        self._error: Optional[AssayError] = None
        self._done = False
        self._expected = expected if answer.needs_receipt else None
        self._on_receipt = on_receipt

    def begin(self) -> Steps[None]:
        """Raises what goes wrong before a byte may go on: that is an answer of the client's own."""
        answer = self.answer
        if answer.is_stream:
            if self._expected is not None:
                self._check = StreamCheck(self._expected, self._on_receipt)
        else:
            yield from answer.read_whole(MAX_HELD_BYTES if self._expected is None else MAX_CHECKED_BYTES)
            answer.failed()
            if self._expected is not None and not answer.ended:
                raise AssayError("input_too_large", f"the answer is over {MAX_CHECKED_BYTES} bytes, the most that is held")
            if self._expected is not None:
                header = field_of(answer.fields, "assay-receipt")
                opened = check_whole(header, answer.status, answer.content, self._expected)
                if self._on_receipt is not None:
                    self._on_receipt(opened)
        self._first = yield from self._next()

    def next(self) -> Steps[Optional[bytes]]:
        """The next bytes; None at the end, which is there only when all of the answer holds."""
        first, self._first = self._first, None
        if first is not None:
            return first
        return (yield from self._next())

    def _next(self) -> Steps[Optional[bytes]]:
        if self._check is None:
            return (yield from self.answer.next())
        while self._error is None and not self._done:
            passed = b""
            try:
                data = yield from self.answer.next()
                self._done = data is None
                passed = self._check.end() if data is None else self._check.push(data)
            except AssayError as error:
                self._error = error
                passed = self._check.passed()
            if passed:
                return passed
        if self._error is not None:
            raise self._error
        return None
