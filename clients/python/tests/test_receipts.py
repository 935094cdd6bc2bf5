"""Receipts over the transport (docs/receipts.md [R3] [R5] [R10] [R20])."""

from __future__ import annotations

import unittest
from typing import Any, Callable, List
from unittest import mock

import httpx

from assay_client import AssayError
from assay_client._supported import require_httpx

from .guest import Guest, json_error, receipt, receipt_header, respond, sealed_answer, stream_pieces
from .test_transport import ANSWER, BODY, CHAT, World, code_of


class Receipts(unittest.TestCase):
    def whole(self, answer: bytes = ANSWER, header: bool = True, **changes: Any) -> Any:
        def respond_with(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            fields = {"content-type": "application/json"}
            if header:
                fields["assay-receipt"] = receipt_header(receipt(world.guest, inner, ANSWER, 0, **changes))
            return respond(sealed_answer(inner, 200, fields, [answer]))

        kept: List[Any] = []
        world = World(respond_with, receipts="verify", on_receipt=kept.append)
        return world.post(), kept, world

    def test_a_whole_answer_with_its_receipt(self):
        response, kept, world = self.whole()
        self.assertEqual((response.status_code, response.content), (200, ANSWER))
        self.assertEqual(kept[0].receipt.channel, ("sealed", world.guest.seen[0].digest))
        self.assertEqual(world.guest.seen[0].fields["assay-receipts"], "final")

    def test_whole_answers_that_are_refused(self):
        stranger = Guest().signer.public_key().public_bytes_raw()
        for code, options in {
            "receipt_missing": {"header": False},
            "receipt_transcript": {"answer": ANSWER + b" "},
            "receipt_evidence": {"k7": {0: 1, 1: bytes(32)}},
            "receipt_nonce": {"k15": bytes(32)},
            "receipt_signature": {"k6": stranger},
            "receipt_malformed": {"k4": "0"},
            "receipt_usage": {"k13": {0: 3, 1: 1, 2: 0}},
            "receipt_model": {"k8": {0: "demo", 1: "blob", 2: bytes(32), 3: [], 4: None}},
            "receipt_request": {"k10": {0: "POST", 1: "/v1/chat/completions", 2: bytes(32), 3: None}},
        }.items():
            response, kept, _ = self.whole(**options)
            self.assertEqual((code_of(response), kept), (code, []))

    def chain(self, places: List[Any], **options: Any) -> List[Any]:
        """What becomes of answers whose receipts have these places and hashes of the one before."""

        def respond_with(world: World, request: httpx.Request, count: int) -> httpx.Response:
            inner = world.open(request)
            seq, prev = places[count - 1]
            fields = {"assay-receipt": receipt_header(receipt(world.guest, inner, ANSWER, 0, k4=seq, k5=prev))}
            return respond(sealed_answer(inner, 200, fields, [ANSWER]))

        with World(respond_with, receipts="verify", **options).client() as client:
            answers = [client.post(CHAT, json=BODY) for _ in places]
        return [None if each.status_code == 200 else code_of(each) for each in answers]

    def test_the_order_is_refused_where_that_is_asked(self):
        gap = [(0, bytes(32)), (2, bytes([7] * 32))]
        self.assertEqual(self.chain(gap), [None, None])
        self.assertEqual(self.chain(gap, sequence="strict"), [None, "receipt_sequence"])
        self.assertEqual(self.chain([(5, bytes([7] * 32))], sequence="strict"), [None])
        # Another hash than that of the receipt that was in its place.
        self.assertEqual(self.chain([(0, bytes(32)), (1, bytes([7] * 32))]), [None, "receipt_sequence"])
        self.assertEqual(self.chain([(0, bytes(32)), (0, bytes(32))]), [None, "receipt_sequence"])
        with self.assertRaises(ValueError):
            self.chain([], sequence="none")

    def test_a_receipt_that_cannot_be_kept_is_an_answer(self):
        def full(_opened: Any) -> None:
            raise OSError("the disk is full")

        self.assertEqual(self.chain([(0, bytes(32))], on_receipt=full), ["receipt_unkept"])

    def test_an_answer_that_is_too_long_to_be_checked(self):
        with mock.patch("assay_client.exchange.MAX_CHECKED_BYTES", len(ANSWER) - 1):
            response, kept, _ = self.whole()
        self.assertEqual((code_of(response), kept), ("input_too_large", []))

    def test_other_versions_of_httpx_are_refused_at_import(self):
        for version in ("0.25.0", "0.27.2", "0.28.1"):
            require_httpx(version)
        for version in ("0.24.1", "0.29.0", "1.0.0", "2.0", "", "dev"):
            with self.assertRaises(ImportError):
                require_httpx(version)

    def test_another_boots_key(self):
        def respond_with(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            data = receipt(Guest(), inner, ANSWER, 0)
            return respond(sealed_answer(inner, 200, {"assay-receipt": receipt_header(data)}, [ANSWER]))

        self.assertEqual(code_of(World(respond_with, receipts="verify").post()), "receipt_key")

    def stream(self, change: Callable[[List[bytes]], List[bytes]], **changes: Any) -> Any:
        def respond_with(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            inner = world.open(request)
            pieces = change(stream_pieces(world.guest, inner, ['{"a":1}', '{"a":2}'], **changes))
            return respond(sealed_answer(inner, 200, {"content-type": "text/event-stream"}, pieces))

        world = World(respond_with, receipts="verify")
        got = b""
        try:
            with world.client() as client, client.stream("POST", CHAT, json=BODY) as response:
                if response.status_code == 502:
                    response.read()
                    return got, code_of(response)
                for piece in response.iter_raw():
                    got += piece
        except AssayError as error:
            return got, error.code
        return got, None

    def test_streams(self):
        whole = b'data: {"a":1}\n\ndata: {"a":2}\n\n'
        self.assertEqual(self.stream(lambda pieces: pieces), (whole + b"data: [DONE]\n\n", None))
        self.assertEqual(self.stream(lambda pieces: pieces[:-2]), (whole, "receipt_truncated"))
        self.assertEqual(self.stream(lambda pieces: [*pieces[:-2], pieces[-1]]), (whole, "receipt_missing"))
        self.assertEqual(self.stream(lambda pieces: pieces[1:]), (b"", "receipt_missing"))
        self.assertEqual(self.stream(lambda pieces: [*pieces[:2], *pieces[3:]])[1], "receipt_transcript")
        self.assertEqual(self.stream(lambda pieces: pieces, k7={0: 1, 1: bytes(32)}), (whole, "receipt_evidence"))
        self.assertEqual(self.stream(lambda pieces: pieces, k15=bytes(16)), (whole, "receipt_nonce"))

    def test_refusals_before_work_starts_have_none(self):
        def refuse(world: World, request: httpx.Request, _count: int) -> httpx.Response:
            return json_error(world.open(request), 401, "invalid_api_key")

        self.assertEqual(World(refuse, receipts="verify").post().status_code, 401)
