"""Milliseconds to seal one chat request of 4096 bytes: the median and the 99th percentile of 2000."""

import json
import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay_client.bhttp import RequestHead
from assay_client.envelope import seal_request

key = X25519PrivateKey.generate().public_key().public_bytes_raw()
head = RequestHead("POST", "/v1/chat/completions", [("content-type", "application/json"), ("assay-model", "1" * 64)])
body = b"a" * 4096
times = []
for _ in range(2000):
    begun = time.perf_counter()
    seal_request(key, head, body)
    times.append((time.perf_counter() - begun) * 1000)
times.sort()
print(json.dumps({"median": times[1000], "p99": times[1980]}))
