"""The transport's rules (docs/sealed.md [B3] [B7] [B8] [B9] [B12] [B13] [B14], docs/receipts.md [R10] [R20])."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any, Callable, List, Optional

import httpx

from assay_client import AssayError, AsyncSealedTransport, SealedTransport
from assay_client.call import OHTTP_KEY, model_of

from .guest import Guest, Inner, Judge, Network, Parts, json_error, receipt, receipt_header, respond, sealed_answer

URL = "https://appliance.example"
CHAT = f"{URL}/v1/chat/completions"
BODY = {"model": "demo", "messages": [{"role": "user", "content": "canary-prompt"}]}
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


def key_problem() -> httpx.Response:
    return httpx.Response(400, headers={"content-type": "application/problem+json"}, json={"type": OHTTP_KEY})


class World:
    """A guest, a network that does what the test says, and a client of each kind."""

    def __init__(self, answer: Callable[["World", httpx.Request, int], httpx.Response], **options: Any):
        self.guest = Guest()
        self.network = Network(lambda request, count: answer(self, request, count))
        self.judge = Judge(self.guest)
        self.waited: List[float] = []
        self.rotations: List[str] = []
        self.now = 1000.0
        self.options = dict(
            verifier=self.judge,
            transport=self.network,
            monotonic=lambda: self.now,
            on_rotated=lambda rotated: self.rotations.append(rotated.boot),
        )
        self.options.update(options)

    def open(self, request: httpx.Request) -> Optional[Inner]:
        return self.guest.open(request.read())

    def client(self) -> httpx.Client:
        return httpx.Client(transport=SealedTransport(URL, wait=self.waited.append, **self.options))

    def post(self, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(CHAT, json=BODY, headers={"authorization": "Bearer canary-key"}, **options)

    def post_async(self) -> httpx.Response:
        async def wait(seconds: float) -> None:
            self.waited.append(seconds)

        async def run() -> httpx.Response:
            transport = AsyncSealedTransport(URL, wait=wait, **self.options)
            async with httpx.AsyncClient(transport=transport) as client:
                return await client.post(CHAT, json=BODY)

        return asyncio.run(run())


def ok(world: World, request: httpx.Request, _count: int) -> httpx.Response:
    inner = world.open(request)
    if inner is None:
        return key_problem()
    return respond(sealed_answer(inner, 200, {"content-type": "application/json"}, [ANSWER]))


def code_of(response: httpx.Response) -> str:
    assert response.status_code == 502, response.status_code
    assert response.headers["x-should-retry"] == "false"
    return response.json()["error"]["code"]


class Sealing(unittest.TestCase):
    def test_an_answer_opens_and_nothing_is_in_the_clear(self):
        world = World(ok)
        response = world.post(params={"a": "canary-query"})
        self.assertEqual((response.status_code, response.content), (200, ANSWER))
        inner = world.guest.seen[0]
        self.assertEqual((inner.method, inner.path), ("POST", "/v1/chat/completions?a=canary-query"))
        self.assertEqual(inner.fields["authorization"], "Bearer canary-key")
        self.assertEqual(inner.fields["assay-model"], "11" * 32)
        self.assertEqual(inner.fields["assay-sealed-at"], str(world.guest.issued_at))
        request = world.network.requests[0]
        self.assertEqual(str(request.url), f"{URL}/v1/sealed")
        outside = repr(request.headers.raw).encode() + world.network.sent[0]
        for secret in (b"canary", b"/v1/chat", b"demo", b"authorization"):
            self.assertNotIn(secret, outside)

    def test_async_is_the_same(self):
        world = World(ok)
        response = world.post_async()
        self.assertEqual((response.status_code, response.content), (200, ANSWER))

    def test_evidence_is_asked_for_once_and_again_when_it_is_old(self):
        world = World(ok)
        with world.client() as client:
            for _ in range(3):
                client.get(f"{URL}/v1/models")
            self.assertEqual(world.judge.asked, 1)
            world.now += 600
            client.get(f"{URL}/v1/models")
        self.assertEqual(world.judge.asked, 2)
        self.assertEqual(world.guest.seen[2].fields["assay-sealed-at"], str(world.guest.issued_at))

    def test_a_refused_verdict_sends_nothing(self):
        world = World(ok)
        world.judge.refusal = AssayError("snp_measurement", "refused")
        with self.assertRaises(AssayError) as raised:
            world.post()
        self.assertEqual(raised.exception.code, "snp_measurement")
        self.assertEqual(world.network.sent, [])

    def test_a_model_that_was_not_attested_sends_nothing(self):
        world = World(ok)
        with world.client() as client, self.assertRaises(AssayError) as raised:
            client.post(CHAT, json={"model": "unknown"})
        self.assertEqual(raised.exception.code, "model_not_attested")
        self.assertEqual(world.network.sent, [])

    def test_the_model_of_a_form_is_found(self):
        for head in (
            'content-disposition: form-data; name="model"',
            'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain',
            "content-disposition: form-data; name=model",
        ):
            parts = ('content-disposition: form-data; name="file"; filename="model"', "sound"), (head, "demo")
            body = "".join(f"--b\r\n{field}\r\n\r\n{value}\r\n" for field, value in parts) + "--b--\r\n"
            fields = [("content-type", "multipart/form-data; boundary=b")]
            self.assertEqual(model_of(fields, body.encode()), "demo")

    def test_plain_http_beyond_loopback_is_refused(self):
        for url in ("http://appliance.example", "ftp://localhost", "http://127.0.0.1.example"):
            with self.assertRaises(AssayError) as raised:
                SealedTransport(url, verifier=Judge(Guest()))
            self.assertEqual(raised.exception.code, "plain_http")


class Streams(unittest.TestCase):
    EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]

    def stream(self, change: Callable[[List[bytes]], List[bytes]], cut: bool = False) -> Any:
        def answer(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            parts = sealed_answer(inner, 200, {"content-type": "text/event-stream"}, self.EVENTS)
            return respond(change(parts), cut)

        world = World(answer)
        got: List[bytes] = []
        try:
            with world.client() as client, client.stream("POST", CHAT, json=BODY) as response:
                if response.status_code == 502:
                    response.read()
                    return got, code_of(response), world
                got.extend(response.iter_raw())
        except AssayError as error:
            return got, error.code, world
        return got, None, world

    def test_each_event_comes_by_itself(self):
        self.assertEqual(self.stream(lambda parts: parts)[:2], (self.EVENTS, None))

    def test_a_cut_at_every_byte_is_no_end(self):
        for length in range(0, 400, 3):
            for cut in (False, True):
                whole = b""

                def change(parts: List[bytes]) -> List[bytes]:
                    nonlocal whole
                    whole = b"".join(parts)
                    return [whole[: min(length, len(whole) - 1)]]

                got, code, _ = self.stream(change, cut)
                self.assertIn(code, ("sealed_truncated", "sealed_altered"), length)
                self.assertTrue(b"".join(self.EVENTS).startswith(b"".join(got)))

    def test_altered_streams(self):
        got, code, _ = self.stream(lambda parts: [*parts[:3], bytes([*parts[3][:-1], parts[3][-1] ^ 1]), *parts[4:]])
        self.assertEqual((got, code), (self.EVENTS[:1], "sealed_altered"))
        self.assertEqual(self.stream(lambda parts: [parts[0], parts[2], parts[1], *parts[3:]])[:2], ([], "sealed_altered"))
        self.assertEqual(self.stream(lambda parts: parts[:-1])[:2], (self.EVENTS, "sealed_truncated"))
        self.assertEqual(self.stream(lambda parts: [*parts, b"x"])[:2], (self.EVENTS, "sealed_altered"))

    def test_a_whole_answer_that_is_cut_is_an_answer_of_the_client(self):
        def answer(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            return respond(sealed_answer(inner, 200, {"content-type": "application/json"}, [ANSWER])[:-1])

        for post in (World.post, World.post_async):
            world = World(answer)
            self.assertEqual(code_of(post(world)), "sealed_truncated")
            self.assertEqual(len(world.network.sent), 1)


class Tries(unittest.TestCase):
    def run_both(self, answer: Any, **options: Any) -> List[Any]:
        results = []
        for post in (World.post, World.post_async):
            world = World(answer, **options)
            results.append((post(world), world))
        return results

    def test_the_same_bytes_again_then_unknown(self):
        def broken(_world: World, _request: httpx.Request, count: int) -> httpx.Response:
            if count == 1:
                raise httpx.ConnectError("no")
            return httpx.Response(503, headers={"retry-after": "1e9" if count == 2 else "2"}, content=b"secret")

        for response, world in self.run_both(broken):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual(len(world.network.sent), 3)
            self.assertEqual(len(set(world.network.sent)), 1)
            self.assertEqual(world.waited, [0.5, 30.0])
            self.assertNotIn(b"secret", response.content)

    def test_other_unsealed_answers_are_shown_to_no_one(self):
        for status in (200, 302, 401, 404, 500):
            for response, world in self.run_both(
                lambda _w, _r, _c: httpx.Response(status, content=b"forged", headers={"location": "https://evil.example/"})
            ):
                self.assertEqual(code_of(response), "sealed_unavailable")
                self.assertEqual(len(world.network.sent), 1)
                self.assertNotIn(b"forged", response.content)

    def test_replayed_is_unknown_and_ends_it(self):
        def replayed(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            return json_error(world.open(request), 409, "sealed_replayed")

        for response, world in self.run_both(replayed):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual(len(world.network.sent), 1)

    def test_the_guests_clock_is_taken_once(self):
        def clock(world: World, request: httpx.Request, count: int) -> httpx.Response:
            inner = world.open(request)
            if inner.fields["assay-sealed-at"] != "1770001000":
                return json_error(inner, 409, "sealed_clock", **{"assay-sealed-time": "1770001000"})
            return ok(world, request, count)

        for response, world in self.run_both(clock):
            self.assertEqual(response.status_code, 200)
            self.assertEqual(len(world.network.sent), 2)
            first = world.guest.seen[0]
            before = f"{first.digest.hex()[:32]};at={first.fields['assay-sealed-at']}"
            self.assertEqual(world.guest.seen[1].fields["assay-sealed-before"], before)

        def never(world: World, request: httpx.Request, count: int) -> httpx.Response:
            return json_error(world.open(request), 409, "sealed_clock", **{"assay-sealed-time": str(1770001000 * count)})

        for response, world in self.run_both(never):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual(len(world.network.sent), 2)

        def late(world: World, request: httpx.Request, count: int) -> httpx.Response:
            world.now += 300
            return never(world, request, count)

        for response, world in self.run_both(late):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual(len(world.network.sent), 1)

        def ahead(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            # These bytes are taken in a while: a copy of them would run as well.
            return json_error(world.open(request), 409, "sealed_clock", **{"assay-sealed-time": "1769999000"})

        for response, world in self.run_both(ahead):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual(len(world.network.sent), 1)

    def test_nothing_is_sealed_anew_that_the_guest_may_have_forgotten(self):
        def rotated(moved: int) -> Any:
            def answer(world: World, request: httpx.Request, count: int) -> httpx.Response:
                if count > 1:
                    return ok(world, request, count)
                world.guest.rotate()
                world.guest.issued_at += moved
                return key_problem()

            return answer

        for moved, sends in ((300, 2), (301, 1), (-300, 2), (-301, 1)):
            for response, world in self.run_both(rotated(moved)):
                self.assertEqual(len(world.network.sent), sends, moved)
                if sends == 1:
                    self.assertEqual(code_of(response), "sealed_outcome_unknown")

        def key_then_clock(world: World, request: httpx.Request, count: int) -> httpx.Response:
            if count == 1:
                world.guest.rotate()
                return key_problem()
            return json_error(world.open(request), 409, "sealed_clock", **{"assay-sealed-time": "1770001000"})

        for response, world in self.run_both(key_then_clock):
            self.assertEqual((code_of(response), len(world.network.sent)), ("sealed_outcome_unknown", 2))

    def test_a_failure_of_the_program_after_sending_is_no_exception(self):
        def fails(*_: Any) -> None:
            raise ZeroDivisionError("canary-prompt")

        def rotated(world: World, request: httpx.Request, count: int) -> httpx.Response:
            world.guest.rotate()
            return key_problem()

        def broken(_world: World, _request: httpx.Request, _count: int) -> httpx.Response:
            raise RuntimeError("canary-prompt")

        def receipted(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            header = receipt_header(receipt(world.guest, inner, ANSWER, 0))
            return respond(sealed_answer(inner, 200, {"assay-receipt": header}, [ANSWER]))

        for answer, code, options in (
            (rotated, "internal", dict(on_rotated=fails)),
            (broken, "internal", {}),
            (receipted, "receipt_unkept", dict(receipts="verify", on_receipt=fails)),
        ):
            for response, world in self.run_both(answer, **options):
                self.assertEqual(code_of(response), code)
                self.assertNotIn(b"canary", response.content)
                self.assertEqual(len(world.network.sent), 1)

    def test_a_listener_may_use_the_transport(self):
        told: List[bytes] = []

        def rotated(world: World, request: httpx.Request, count: int) -> httpx.Response:
            if count == 1:
                world.guest.rotate()
                return key_problem()
            return ok(world, request, count)

        world = World(rotated)
        transport = SealedTransport(
            URL, **{**world.options, "on_rotated": lambda _rotated: told.append(transport.verify().key)}
        )
        with httpx.Client(transport=transport) as client:
            self.assertEqual(client.post(CHAT, json=BODY).status_code, 200)
        self.assertEqual(told, [world.guest.evidence().key])

    def test_a_rotated_key_is_sealed_to_once(self):
        def rotated(world: World, request: httpx.Request, count: int) -> httpx.Response:
            if count == 1:
                world.guest.rotate()
                return key_problem()
            return ok(world, request, count)

        for response, world in self.run_both(rotated):
            self.assertEqual(response.status_code, 200)
            self.assertEqual((world.rotations, world.judge.asked), (["same"], 2))
            self.assertIn("assay-sealed-before", world.guest.seen[0].fields)

        def always(world: World, _request: httpx.Request, _count: int) -> httpx.Response:
            world.guest.rotate()
            return key_problem()

        for response, world in self.run_both(always):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual(len(world.network.sent), 2)

    def test_the_same_key_means_tampering(self):
        for response, world in self.run_both(lambda _w, _r, _c: key_problem()):
            self.assertEqual(code_of(response), "sealed_refused")
            self.assertEqual((len(world.network.sent), world.judge.asked), (1, 2))

    def test_once_never_seals_anew_for_another_boot(self):
        def restarted(world: World, request: httpx.Request, count: int) -> httpx.Response:
            if count == 1:
                world.guest.restart()
                return key_problem()
            return ok(world, request, count)

        for response, world in self.run_both(restarted, once=True):
            self.assertEqual(code_of(response), "sealed_outcome_unknown")
            self.assertEqual((len(world.network.sent), world.rotations), (1, ["other"]))
        for response, _world in self.run_both(restarted):
            self.assertEqual(response.status_code, 200)

    def test_evidence_that_fails_after_a_send_is_an_answer_of_the_client(self):
        def forged(world: World, _request: httpx.Request, _count: int) -> httpx.Response:
            world.judge.refusal = AssayError("snp_measurement", "refused")
            return key_problem()

        for response, world in self.run_both(forged):
            self.assertEqual(code_of(response), "snp_measurement")
            self.assertEqual(len(world.network.sent), 1)

    def test_a_stale_model_is_the_guests_answer_and_spoils_the_evidence(self):
        def stale(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            return json_error(world.open(request), 409, "attestation_stale")

        world = World(stale)
        with world.client() as client:
            for _ in range(2):
                response = client.post(CHAT, json=BODY)
                self.assertEqual((response.status_code, response.json()["error"]["code"]), (409, "attestation_stale"))
        self.assertEqual(world.judge.asked, 2)


class Closing(unittest.TestCase):
    def test_connections_are_closed(self):
        bodies: List[Parts] = []

        def answer(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            parts = sealed_answer(inner, 200, {"content-type": "text/event-stream"}, [b"data: 1\n\n"] * 3)
            body = Parts(parts if len(bodies) != 2 else parts[:-1])
            bodies.append(body)
            return httpx.Response(200, headers={"content-type": "message/ohttp-chunked-res"}, stream=body)

        world = World(answer)
        with world.client() as client:
            client.post(CHAT, json=BODY)
            with client.stream("POST", CHAT, json=BODY) as response:
                next(response.iter_raw())
            with self.assertRaises(AssayError):
                client.post(CHAT, json=BODY)
        self.assertEqual([body.closed for body in bodies], [True, True, True])


if __name__ == "__main__":
    unittest.main()
