# Writes minilm-embeddings.json: what the transformers library makes of fixed texts with all-MiniLM-L6-v2, mean-pooled over the
# attention mask and L2-normalised as its modules.json says. Run once, by hand, with torch and transformers installed:
#   python test/golden/minilm-embeddings.py ~/.cache/assay/real-models/minilm test/golden/minilm-embeddings.json
import base64
import json
import sys

import torch
import transformers

TEXTS = [
    "What is attestation?",
    "A signed statement by the processor about the code it has started.",
    "The capital of France is Paris.",
    "Die Hauptstadt von Frankreich ist Paris.",
    "naïve café, ½ of 3.14; 日本語のテキスト and 👍🏽 emoji",
    "def add(a, b):\n    return a + b",
    "a",
    "The enclave proves its software before it takes a key. " * 15,
]

folder, out = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
# eager: the plain sum of products, without a fused kernel's own order.
model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
rows = []
for text in TEXTS:
    batch = tokenizer(text, return_tensors="pt", truncation=False)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state[0].double()
    vector = hidden.mean(dim=0)
    vector = (vector / vector.norm()).float()
    values = base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    rows.append({"text": text, "tokens": batch["input_ids"][0].tolist(), "vector": values})
made = {
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "transformers": transformers.__version__,
    "torch": torch.__version__,
    "vectors": "base64 of 384 little-endian float32, mean-pooled, L2-normalised",
    "rows": rows,
}
with open(out, "w", encoding="utf-8") as file:
    json.dump(made, file, ensure_ascii=False, indent=1)
    file.write("\n")
