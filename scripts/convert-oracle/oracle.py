"""The official converter as the oracle of src/models/convert: makes tiny random Hugging Face folders with `transformers`, runs
`convert_hf_to_gguf.py` of the pinned llama.cpp on each, and writes what `transformers` computes. `oracle.py LLAMA_CPP OUT [CASE…]`
leaves OUT/CASE/"tiny model"/ (a folder name with a space keeps the converter from guessing a name, a version and a size from it),
OUT/CASE/TYPE.gguf and OUT/CASE/expected.json. Deterministic: seeds are fixed, CPU only.
`oracle.py LLAMA_CPP OUT --digests` converts the folders that are already in OUT and prints the SHA-256 of each result as JSON.
"""

import base64
import hashlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

LLAMA_CPP = Path(sys.argv[1]).resolve()
OUT = Path(sys.argv[2]).resolve()
sys.path.insert(1, str(LLAMA_CPP / "gguf-py"))

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers as hf  # noqa: E402

FOLDER = "tiny model"
LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_REGEX = LLAMA3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
CHAT_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"


def vocabulary(name: str) -> dict:
    """Tokens, types, scores and merges of a vocabulary that the llama.cpp sources carry."""
    reader = gguf.GGUFReader(LLAMA_CPP / "models" / f"ggml-vocab-{name}.gguf")
    value = lambda key: (f := reader.get_field(key)) and f.contents()  # noqa: E731
    return {
        "tokens": value("tokenizer.ggml.tokens"),
        "types": value("tokenizer.ggml.token_type"),
        "scores": value("tokenizer.ggml.scores"),
        "merges": value("tokenizer.ggml.merges"),
    }


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def added_token(token_id: int, content: str, special: bool = True) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": special}


def byte_pair_tokenizer(folder: Path, name: str, regex: str, *, bos=None, eos, pairs: bool, normalizer=None) -> None:
    vocab = vocabulary(name)
    added = [added_token(i, t) for i, (t, kind) in enumerate(zip(vocab["tokens"], vocab["types"])) if kind in (3, 4)]
    special = {entry["content"] for entry in added}
    post: dict = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    if bos is not None:
        token = {"SpecialToken": {"id": bos, "type_id": 0}}
        ids = {bos: {"id": bos, "ids": [vocab["tokens"].index(bos)], "tokens": [bos]}}
        a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
        pair = [token, a, {"SpecialToken": {"id": bos, "type_id": 1}}, b]
        template = {"type": "TemplateProcessing", "single": [token, a], "pair": pair, "special_tokens": ids}
        post = {"type": "Sequence", "processors": [post, template]}
    merges = [m.split(" ") for m in vocab["merges"]] if pairs else vocab["merges"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": post, "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": bos is not None,
            "vocab": {t: i for i, t in enumerate(vocab["tokens"]) if t not in special}, "merges": merges,
        },
    })
    write_json(folder / "tokenizer_config.json", {
        "bos_token": bos, "eos_token": eos, "pad_token": eos, "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast" if bos is not None else "Qwen2Tokenizer",
    })


def word_piece_tokenizer(folder: Path) -> None:
    vocab = vocabulary("bert-bge")
    back = [t if kind == 3 else t[1:] if t.startswith("\u2581") else f"##{t}" for t, kind in zip(vocab["tokens"], vocab["types"])]
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    special = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}  # noqa: E731
    a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    end = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
    ids = {n: {"id": n, "ids": [back.index(n)], "tokens": [n]} for n in ("[CLS]", "[SEP]")}
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added_token(back.index(n), n) for n in sorted(names.values(), key=back.index)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [special("[CLS]"), a, special("[SEP]")],
            "pair": [special("[CLS]"), a, special("[SEP]"), b, end], "special_tokens": ids,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {t: i for i, t in enumerate(back)},
        },
    })
    write_json(folder / "tokenizer_config.json", {**names, "tokenizer_class": "BertTokenizer", "do_lower_case": True})


def sentence_piece_tokenizer(folder: Path, name: str, *, config: dict, vocab_size: int | None = None) -> None:
    """A `tokenizer.model` (ModelProto of sentencepiece) with the pieces of a vocabulary."""
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    from sentencepiece import sentencepiece_model_pb2 as proto

    vocab = vocabulary(name)
    model = proto.ModelProto()
    count = vocab_size or len(vocab["tokens"])
    for token, score, kind in list(zip(vocab["tokens"], vocab["scores"], vocab["types"]))[:count]:
        piece = model.pieces.add()
        piece.piece, piece.score, piece.type = token, score, kind
    model.trainer_spec.model_type = 2
    model.trainer_spec.vocab_size = count
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id, model.trainer_spec.pad_id = 0, 1, 2, -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(model.SerializeToString(deterministic=True))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "chat_template": CHAT_TEMPLATE, **config})


SPM = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "legacy": False,
    "added_tokens_decoder": {
        str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for i, t in enumerate(("<unk>", "<s>", "</s>"))
    },
}
SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def randomize(model: torch.nn.Module) -> None:
    """Weights of a size at which every part of the network shows in the logits; norms and biases are not left at one and zero."""
    generator = torch.Generator().manual_seed(20261129)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float32)
            if value.ndim == 1:
                value.copy_((noise * 0.1 + (0.0 if "bias" in name else 1.0)).to(value.dtype))
            else:
                value.copy_((noise * (0.6 if "embed" in name else 0.15)).to(value.dtype))


def llama(folder: Path):
    byte_pair_tokenizer(folder, "llama-bpe", LLAMA3_REGEX, bos="<|begin_of_text|>", eos="<|end_of_text|>", pairs=True)
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = hf.LlamaConfig(**SMALL, vocab_size=128256, max_position_embeddings=512, bos_token_id=128000, eos_token_id=128001,
                            rope_parameters={"rope_theta": 500000.0, **rope}, rms_norm_eps=1e-5)
    return hf.LlamaForCausalLM(config)


def llama_spm(folder: Path):
    sentence_piece_tokenizer(folder, "llama-spm", config={**SPM, "add_prefix_space": True})
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, vocab_size=32000, max_position_embeddings=512, attention_bias=True))


def mistral(folder: Path):
    sentence_piece_tokenizer(folder, "llama-spm", config=SPM)
    config = hf.MistralConfig(**SMALL, head_dim=32, vocab_size=32016, max_position_embeddings=512, sliding_window=None)
    return hf.MistralForCausalLM(config)


def smollm(folder: Path):
    """SmolLM2 is a llama with tied embeddings; its tokenizer is the one of StarCoder."""
    byte_pair_tokenizer(folder, "qwen2", QWEN2_REGEX, eos="<|endoftext|>", pairs=False, normalizer={"type": "NFC"})
    config = hf.LlamaConfig(**{**SMALL, "num_attention_heads": 8, "num_key_value_heads": 8}, vocab_size=151936,
                            max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    return hf.LlamaForCausalLM(config)


def qwen2(folder: Path):
    byte_pair_tokenizer(folder, "qwen2", QWEN2_REGEX, eos="<|endoftext|>", pairs=False, normalizer={"type": "NFC"})
    config = hf.Qwen2Config(**SMALL, vocab_size=151936, max_position_embeddings=512, bos_token_id=151643, eos_token_id=151643)
    return hf.Qwen2ForCausalLM(config)


def qwen3(folder: Path):
    byte_pair_tokenizer(folder, "qwen2", QWEN2_REGEX, eos="<|endoftext|>", pairs=True, normalizer={"type": "NFC"})
    config = hf.Qwen3Config(**SMALL, head_dim=32, vocab_size=151936, max_position_embeddings=512, tie_word_embeddings=True)
    return hf.Qwen3ForCausalLM(config)


def bert(folder: Path):
    word_piece_tokenizer(folder)
    write_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])
    write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
    })
    size = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    return hf.BertModel(hf.BertConfig(**size, vocab_size=30522, max_position_embeddings=128))


def qwen3_embedding(folder: Path):
    byte_pair_tokenizer(folder, "qwen2", QWEN2_REGEX, eos="<|endoftext|>", pairs=True, normalizer={"type": "NFC"})
    write_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ])
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, "pooling_mode_lasttoken": True})
    return hf.Qwen3Model(hf.Qwen3Config(**SMALL, head_dim=16, vocab_size=151936, max_position_embeddings=512))


def gemma3(folder: Path):
    config = {**SPM, "bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "GemmaTokenizer"}
    sentence_piece_tokenizer(folder, "llama-spm", config=config)
    size = {**SMALL, "num_hidden_layers": 6}
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**size, head_dim=32, vocab_size=32064, max_position_embeddings=512,
                                                    sliding_window=32, query_pre_attn_scalar=32))


def phi3(folder: Path):
    sentence_piece_tokenizer(folder, "llama-spm", config=SPM)
    config = hf.Phi3Config(**SMALL, vocab_size=32064, max_position_embeddings=512, original_max_position_embeddings=512,
                           bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return hf.Phi3ForCausalLM(config)


CASES = {
    # name: (make, dtype of the weights, output types, shards)
    # Its vocabulary is slow to convert; of weights in BF16 the Qwen cases and gemma3 have the other two types.
    "llama": (llama, torch.bfloat16, ("f16",), "200MB"),
    "llama-spm": (llama_spm, torch.float16, ("f32", "f16", "bf16"), "2MB"),
    "mistral": (mistral, torch.float32, ("f32", "f16", "bf16"), "200MB"),
    "smollm": (smollm, torch.bfloat16, ("bf16",), "200MB"),
    "qwen2": (qwen2, torch.bfloat16, ("f32", "bf16"), "200MB"),
    "qwen3": (qwen3, torch.bfloat16, ("f32", "f16"), "200MB"),
    "bert": (bert, torch.float32, ("f32", "f16"), "200MB"),
    "qwen3-embedding": (qwen3_embedding, torch.bfloat16, ("f32",), "200MB"),
    "gemma3": (gemma3, torch.bfloat16, ("f32", "bf16"), "200MB"),
    "phi3": (phi3, torch.bfloat16, ("f32", "f16"), "200MB"),
}
TOKENS = [17, 4, 1023, 88, 512, 3000, 9, 21, 77, 1500, 6, 301]


def expected(kind: type, folder: Path, embedding: bool) -> dict:
    """Of the fixed tokens: the logits of the last one as the base64 of float32, or the pooled vector. Loaded anew: `to(bfloat16)` has
    rounded the frequencies of the rotary embedding, too."""
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([TOKENS])
    with torch.no_grad():
        if embedding:
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            values = states.mean(dim=0) if isinstance(model, hf.BertModel) else states[-1]
        else:
            values = model(input_ids=ids).logits[0, -1]
    packed = values.numpy().astype("<f4").tobytes()
    return {"tokens": TOKENS, "embedding": embedding, "values": base64.b64encode(packed).decode()}


def convert(case: str, outtype: str) -> Path:
    """The official converter, in a fork of this process: importing its libraries anew for each file takes longer than all it does."""
    target = OUT / case / f"{outtype}.gguf"
    script = LLAMA_CPP / "convert_hf_to_gguf.py"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with tempfile.TemporaryFile("w+") as said:
                os.dup2(said.fileno(), 1)
                sys.argv = [str(script), str(OUT / case / FOLDER), "--outfile", str(target), "--outtype", outtype]
                sys.path.insert(0, str(LLAMA_CPP))
                runpy.run_path(str(script), run_name="__main__")
                code = 0
        except SystemExit as end:
            code = 0 if end.code in (None, 0) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit(f"{case}: the converter failed")
    return target


def make(case: str) -> None:
    build, dtype, types, shard = CASES[case]
    folder = OUT / case / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    model = build(folder)
    randomize(model)
    model = model.to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    for outtype in types:
        convert(case, outtype)
    write_json(OUT / case / "expected.json", expected(type(model), folder, case in ("bert", "qwen3-embedding")))
    print(case, flush=True)


def digests() -> None:
    found = {}
    for folder in sorted(OUT.iterdir()):
        for outtype in ("f32", "f16", "bf16"):
            found[f"{folder.name} {outtype}"] = hashlib.sha256(convert(folder.name, outtype).read_bytes()).hexdigest()
    print(json.dumps(found, indent=2))


if sys.argv[3:] == ["--digests"]:
    digests()
else:
    for name in sys.argv[3:] or CASES:
        make(name)
