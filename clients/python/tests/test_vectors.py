"""sealed-v1.json and receipts-v1.json pass, and one wrong expectation is noticed ([B22], [R24])."""

import copy
import unittest

from .vectors import RECEIPTS, SEALED, Recipient, load, open_request, open_response, run_receipts, run_sealed


class Sealed(unittest.TestCase):
    def test_vectors(self):
        count, failed = run_sealed(load(SEALED))
        self.assertEqual(failed, [])
        self.assertGreater(count, 170)

    def test_each_wrong_expectation_fails(self):
        vectors = load(SEALED)
        for group in ("bhttp", "requests", "responses"):
            for at, each in enumerate(vectors[group]):
                if group != "bhttp" and at % 4:
                    continue
                changed = {**vectors, group: list(vectors[group])}
                accepted = isinstance(each["expect"], dict)
                changed[group][at] = {**each, "expect": "sealed_clock" if accepted else {"status": 200}}
                if group == "requests" and accepted and at < 2:
                    continue  # Their expectation is the input of sealing, too.
                _, failed = run_sealed(changed)
                self.assertTrue(failed and all(each["name"] in name for name in failed), (each["name"], failed))

    def test_a_cut_response_has_no_end(self):
        whole = load(SEALED)["responses"][0]["input"]
        secret, enc, data = (bytes.fromhex(whole[key]) for key in ("secret", "enc", "bytes"))
        for length in range(len(data)):
            self.assertIn(open_response(secret, enc, data[:length], None), ("sealed_truncated", "sealed_altered"))

    def test_every_bit_counts(self):
        vectors = load(SEALED)
        whole = vectors["responses"][0]["input"]
        secret, enc, data = (bytes.fromhex(whole[key]) for key in ("secret", "enc", "bytes"))
        for bit in range(len(data) * 8):
            changed = bytearray(data)
            changed[bit >> 3] ^= 1 << (bit & 7)
            self.assertIsInstance(open_response(secret, enc, bytes(changed), None), str, bit)
        recipient = Recipient(vectors["recipient"]["private_key"])
        request = bytes.fromhex(vectors["requests"][0]["input"]["bytes"])
        for bit in range(0, len(request) * 8, 61):
            changed = bytearray(request)
            changed[bit >> 3] ^= 1 << (bit & 7)
            self.assertIsInstance(open_request(recipient, bytes(changed), None), str, bit)


class Receipts(unittest.TestCase):
    def test_vectors(self):
        count, failed = run_receipts(load(RECEIPTS))
        self.assertEqual(failed, [])
        self.assertGreater(count, 220)

    def test_each_wrong_expectation_fails(self):
        vectors = load(RECEIPTS)
        for group, marks in (("receipts", "receipt: "), ("answers", "answer: "), ("streams", "stream: ")):
            changed = copy.deepcopy(vectors)
            for each in changed[group]:
                each["code"] = "receipt_missing" if each["code"] != "receipt_missing" else None
            _, failed = run_receipts(changed)
            times = 3 if group == "streams" else 1
            self.assertEqual(len(failed), times * len(vectors[group]))
            self.assertTrue(all(name.startswith(marks) for name in failed))


if __name__ == "__main__":
    unittest.main()
