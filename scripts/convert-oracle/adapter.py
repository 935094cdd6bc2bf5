"""PEFT and the official converter as the oracle of src/models/convert/adapter: on a folder that oracle.py made, trains a few steps of
each kind of adapter with `peft`, runs `convert_lora_to_gguf.py` of the pinned llama.cpp on it, and writes what `peft` computes.
`adapter.py LLAMA_CPP OUT CASE` leaves OUT/CASE/adapter-KIND/ (the PEFT folder), OUT/CASE/adapter-KIND.gguf and OUT/CASE/adapters.json.
Deterministic: seeds are fixed, CPU only.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import peft  # noqa: E402
import torch  # noqa: E402
import transformers as hf  # noqa: E402

LLAMA_CPP = Path(sys.argv[1]).resolve()
OUT = Path(sys.argv[2]).resolve()
CASE = sys.argv[3]
FOLDER = OUT / CASE / "tiny model"

PROJECTIONS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
KINDS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=PROJECTIONS),
    "rslora": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "k_proj"]),
    "ranks": dict(r=4, lora_alpha=8, rank_pattern={"v_proj": 2}, target_modules=["q_proj", "v_proj"]),
}


def train(kind: str, tokens: list[int]) -> torch.Tensor:
    torch.manual_seed(7)
    base = hf.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **KINDS[kind]))
    batch = torch.tensor([tokens])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(8):
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.eval()
    folder = OUT / CASE / f"adapter-{kind}"
    model.save_pretrained(folder)
    with torch.inference_mode():
        return model(input_ids=batch).logits[0, -1]


def convert(kind: str) -> None:
    folder = OUT / CASE / f"adapter-{kind}"
    out = OUT / CASE / f"adapter-{kind}.gguf"
    command = [sys.executable, LLAMA_CPP / "convert_lora_to_gguf.py", folder, "--base", FOLDER, "--outfile", out]
    subprocess.run([str(each) for each in command], check=True, capture_output=True)


def main() -> None:
    tokens = json.loads((OUT / CASE / "expected.json").read_text(encoding="utf-8"))["tokens"]
    results = {}
    for kind in KINDS:
        values = train(kind, tokens)
        convert(kind)
        results[kind] = base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
    (OUT / CASE / "adapters.json").write_text(json.dumps(results), encoding="utf-8")


main()
