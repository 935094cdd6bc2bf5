"""`transformers` as the oracle of images: makes a tiny random model that sees, of each kind of projector that is served, converts it
and its projector with the official converter, and writes what `transformers` computes. `vision.py LLAMA_CPP OUT CASE` leaves
OUT/CASE/model.gguf, mmproj.gguf and expected.json. The images have sizes that each kind takes as they are, so that no resizing is
compared. Deterministic: seeds are fixed, CPU only.
"""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

LLAMA_CPP = Path(sys.argv[1]).resolve()
CASE = sys.argv[3]
OUT = Path(sys.argv[2]).resolve() / CASE
sys.path.insert(1, str(LLAMA_CPP / "gguf-py"))

import gguf  # noqa: E402
import torch  # noqa: E402
import transformers as hf  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

FOLDER = OUT / "tiny model"
torch.set_num_threads(1)
REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARKS = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<start_of_image>", "<end_of_image>",
         "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<img>", "</img>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
TEXTS = [[17, 4, 1023, 88, 512], [3000, 9, 21, 77, 1500], [42, 700, 13]]
TEXT = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=1024, rms_norm_eps=1e-5, pad_token_id=128001, bos_token_id=128000, eos_token_id=128001)
LLAMA = dict(TEXT, model_type="llama", rope_theta=10000.0, architectures=["LlamaForCausalLM"])
TOWER = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def packed(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.detach().numpy().astype("<f4").tobytes()).decode()


def tokenizer() -> list[str]:
    """Llama 3's vocabulary and the marks of images behind it."""
    reader = gguf.GGUFReader(LLAMA_CPP / "models" / "ggml-vocab-llama-bpe.gguf")
    value = lambda key: reader.get_field(key).contents()  # noqa: E731
    tokens, types, merges = (value(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
    names = tokens + MARKS
    special = [i for i, kind in enumerate(types) if kind in (3, 4)] + list(range(len(tokens), len(names)))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated", "invert": False}
    write_json(FOLDER / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": i, "content": names[i], **flags} for i in special],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": {t: i for i, t in enumerate(names) if i not in set(special)}, "merges": [m.split(" ") for m in merges],
        },
    })
    write_json(FOLDER / "tokenizer_config.json", {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "tokenizer_class": "PreTrainedTokenizerFast",
    })
    return names


def normal(pixels: torch.Tensor) -> torch.Tensor:
    """[height, width, 3] in 0…255 → [3, height, width], as a mean and a deviation of 0.5 make it."""
    return (pixels.permute(2, 0, 1).float() / 255.0 - 0.5) / 0.5


def square(*names: str):
    """Marks of a kind that has vectors between two marks."""
    return lambda count, image, _: [ID[names[0]], *[image] * count, ID[names[1]]]


# Each case: the model, the size of its two images, what `transformers` takes for a list of them, the marks and vectors of one image,
# the token in the place of a vector, and the preprocessor's configuration.


def smolvlm():
    config = hf.SmolVLMConfig(text_config=dict(LLAMA, vocab_size=len(ID)), scale_factor=2, image_token_id=ID["<image>"],
                              vision_config=dict(TOWER, image_size=64, patch_size=16, model_type="smolvlm_vision"),
                              pad_token_id=128001, tie_word_embeddings=False)
    layout = lambda count, image, _: [  # noqa: E731  (a tile and the overview)
        ID["<fake_token_around_image>"], ID["<row_1_col_1>"], *[image] * (count // 2), ID["ĊĊ"], ID["<fake_token_around_image>"],
        ID["<global-img>"], *[image] * (count // 2), ID["<fake_token_around_image>"]]
    inputs = lambda images: {"pixel_values": torch.stack([normal(i) for i in images for _ in range(2)])[None]}  # noqa: E731
    return hf.SmolVLMForConditionalGeneration(config), [(64, 64)] * 2, inputs, layout, "<image>", {
        "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}


def gemma3():
    text = hf.Gemma3TextConfig(**dict(TEXT, num_hidden_layers=6), vocab_size=len(ID), head_dim=32, sliding_window=32,
                               query_pre_attn_scalar=32)
    vision = hf.SiglipVisionConfig(**TOWER, image_size=64, patch_size=8)
    config = hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=16, image_token_index=ID["<image>"],
                             boi_token_index=ID["<start_of_image>"], eoi_token_index=ID["<end_of_image>"])
    inputs = lambda images: {"pixel_values": torch.stack([normal(i) for i in images])}  # noqa: E731
    layout = square("<start_of_image>", "<end_of_image>")
    return hf.Gemma3ForConditionalGeneration(config), [(64, 64)] * 2, inputs, layout, "<image>", {
        "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 16, "size": {"height": 64, "width": 64}}


def patches(images, patch=14, merge=2) -> dict:
    """As Qwen2VLImageProcessor lays them out: a square of merge × merge patches after another, each twice (two moments)."""
    rows, grids = [], []
    for image in images:
        values = normal(image)
        height, width = values.shape[1] // patch, values.shape[2] // patch
        cut = values[None].repeat(2, 1, 1, 1).reshape(1, 2, 3, height // merge, merge, patch, width // merge, merge, patch)
        rows.append(cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(height * width, 3 * 2 * patch * patch))
        grids.append([1, height, width])
    return {"pixel_values": torch.cat(rows), "image_grid_thw": torch.tensor(grids)}


QWEN_IMAGES = [(168, 140), (112, 196)]


def qwen(kind: type, config: hf.PretrainedConfig):
    return kind(config), QWEN_IMAGES, patches, square("<|vision_start|>", "<|vision_end|>"), "<|image_pad|>", {
        "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
        "min_pixels": 3136, "max_pixels": 1 << 20}


def qwen_config(kind: type, vision: dict, rope: dict, **text):
    config = {**TEXT, "vocab_size": len(ID), "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope}, **text}
    return kind(text_config=config, vision_config=vision, image_token_id=ID["<|image_pad|>"], tie_word_embeddings=False,
                vision_start_token_id=ID["<|vision_start|>"], vision_end_token_id=ID["<|vision_end|>"], video_token_id=len(ID) - 1)


def qwen2vl():
    vision = dict(depth=3, embed_dim=32, num_heads=2, hidden_size=64, patch_size=14, mlp_ratio=4)
    return qwen(hf.Qwen2VLForConditionalGeneration, qwen_config(hf.Qwen2VLConfig, vision, {"mrope_section": [2, 3, 3]}))


def qwen25vl():
    vision = dict(depth=4, hidden_size=32, num_heads=2, intermediate_size=48, out_hidden_size=64, patch_size=14, window_size=112,
                  fullatt_block_indexes=[1, 3])
    return qwen(hf.Qwen2_5_VLForConditionalGeneration, qwen_config(hf.Qwen2_5_VLConfig, vision, {"mrope_section": [2, 3, 3]}))


def qwen3vl():
    vision = dict(depth=4, hidden_size=32, num_heads=2, intermediate_size=48, out_hidden_size=64, patch_size=14,
                  num_position_embeddings=64, deepstack_visual_indexes=[0, 2], hidden_act="gelu_pytorch_tanh")
    rope = {"mrope_section": [3, 3, 2], "mrope_interleaved": True}
    return qwen(hf.Qwen3VLForConditionalGeneration, qwen_config(hf.Qwen3VLConfig, vision, rope, head_dim=16, num_hidden_layers=4))


CASES = {"idefics3": smolvlm, "gemma3": gemma3, "qwen2vl_merger": qwen2vl, "qwen2.5vl_merger": qwen25vl, "qwen3vl_merger": qwen3vl}


def fill(model: torch.nn.Module) -> None:
    """With numbers that 16 bits hold: the converter keeps some matrices so."""
    generator = torch.Generator().manual_seed(20261129)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim == 1:
                value = noise * 0.1 + (0.0 if "bias" in name else 1.0)
            else:
                value = noise * (0.6 if "embed" in name and "patch" not in name else 0.15)
            parameter.copy_(value.half().float())


def save() -> None:
    """`transformers` has dropped a level of names that the files of Gemma 3 and the converter have."""
    model.save_pretrained(FOLDER)
    if CASE == "gemma3":
        path = FOLDER / "model.safetensors"
        renamed = {re.sub(r"vision_tower\.(?!vision_model)", "vision_tower.vision_model.", key): value for key, value in load_file(path).items()}
        save_file(renamed, path, metadata={"format": "pt"})


def convert(target: Path, *options: str) -> None:
    command = [sys.executable, LLAMA_CPP / "convert_hf_to_gguf.py", FOLDER, "--outfile", target, "--outtype", "f32", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the converter failed\n{done.stderr[-3000:]}")


def image(width: int, height: int, seed: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(x * 4 + seed * 50) % 256, (y * 7 + seed * 9) % 256, (x * 3 + y * 5) % 256], dim=-1)


def vectors(inputs: dict) -> torch.Tensor:
    features = model.model.get_image_features(**inputs)
    deep = getattr(features, "deepstack_features", None)
    features = getattr(features, "pooler_output", features)
    if isinstance(features, (list, tuple)):
        features = torch.cat(list(features))
    features = features.reshape(-1, features.shape[-1])
    # libmtmd gives what deeper layers add behind what the first one takes.
    return features if deep is None else torch.cat([features, *(torch.cat(list(layer)) for layer in deep)], dim=-1)


def logits(tokens: list[int], inputs: dict) -> torch.Tensor:
    ids = torch.tensor([tokens])
    kinds = (ids == ID[mark]).int()
    named = {"gemma3": {"token_type_ids": kinds}, "idefics3": {}}.get(CASE, {"mm_token_type_ids": kinds})
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, **named).logits[0, -1]


FOLDER.mkdir(parents=True, exist_ok=True)
ID = {name: i for i, name in enumerate(tokenizer())}
model, sizes, inputs_of, layout_of, mark, preprocessor = CASES[CASE]()
model = model.eval()
fill(model)
save()
write_json(FOLDER / "preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **preprocessor})
convert(OUT / "model.gguf")
convert(OUT / "mmproj.gguf", "--mmproj")

images = [image(width, height, seed) for seed, (width, height) in enumerate(sizes)]
told = []
with torch.no_grad():
    for each, (width, height) in zip(images, sizes):
        found = vectors(inputs_of([each]))
        told.append({
            "width": width, "height": height, "pixels": base64.b64encode(bytes(each.to(torch.uint8).flatten().tolist())).decode(),
            "layout": layout_of(len(found), ID[mark], each), "vectors": packed(found),
        })
    one = [*TEXTS[0], *told[0]["layout"], *TEXTS[1]]
    two = [*one, *told[1]["layout"], *TEXTS[2]]
    answers = [packed(logits(one, inputs_of(images[:1]))), packed(logits(two, inputs_of(images)))]
write_json(OUT / "expected.json", {"image": ID[mark], "texts": TEXTS, "images": told, "logits": answers})
