# Python through the local proxy: `assay-verify proxy` verifies the server, the client stays the OpenAI package as it is.
#   npx assay-verify proxy https://127.0.0.1:8443 --policy .assay/policy.json --listen 127.0.0.1:8080
#   OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python3 examples/python-proxy/main.py 'What is attestation?'
# For the simulated TEE of `make run` the proxy needs --allow-simulated as well.

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
    max_retries=0,
)
question = sys.argv[1] if len(sys.argv) > 1 else "What is attestation?"
stream = client.chat.completions.create(
    model="demo-chat",
    temperature=0,
    stream=True,
    messages=[{"role": "user", "content": question}],
)
for part in stream:
    if part.choices:
        print(part.choices[0].delta.content or "", end="", flush=True)
print()
