"""Writes a tiny Whisper with random weights, which real vLLM loads; standard library only."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path

WIDTH, INNER, MELS, HEARD, SAID = 64, 128, 80, 1500, 448  # HEARD and SAID: positions
_LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th"
    " ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr"
    " pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt"
    " haw ln ha ba jw su yue"
)
_SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{one}|>" for one in _LANGUAGES.split()),
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
    "<|notimestamps|>",
)  # fmt: skip
_BYTES = 256
_VOCABULARY = _BYTES + len(_SPECIAL)

CONFIG: dict[str, object] = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
    "is_encoder_decoder": True, "d_model": WIDTH, "vocab_size": _VOCABULARY,
    "encoder_layers": 1, "decoder_layers": 1, "num_hidden_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER, "num_mel_bins": MELS,
    "max_source_positions": HEARD, "max_target_positions": SAID, "activation_function": "gelu",
    "bos_token_id": _BYTES, "eos_token_id": _BYTES, "pad_token_id": _BYTES,
    "decoder_start_token_id": _BYTES + 1, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip


def write_whisper(folder: Path) -> Path:
    """A whole checkpoint of half a megabyte."""
    folder.mkdir(parents=True)
    files = {
        "config.json": CONFIG,
        "generation_config.json": {"eos_token_id": _BYTES, "decoder_start_token_id": _BYTES + 1},
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor", "feature_size": MELS, "sampling_rate": 16000,
            "hop_length": 160, "chunk_length": 30, "n_fft": 400, "padding_value": 0.0,
            "nb_max_frames": 3000, "n_samples": 480000,
        },
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer", "model_max_length": SAID,
            "bos_token": _SPECIAL[0], "eos_token": _SPECIAL[0], "unk_token": _SPECIAL[0],
            "pad_token": _SPECIAL[0],
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    _write_weights(folder / "model.safetensors")
    return folder


def _tokenizer() -> dict[str, object]:
    """Every byte is a token; nothing is ever merged."""
    signs = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(_BYTES) if byte not in signs]
    spelled = {byte: chr(byte) for byte in signs}
    spelled |= {byte: chr(_BYTES + number) for number, byte in enumerate(others)}
    of_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                "use_regex": True}  # fmt: skip
    added = [
        {"id": _BYTES + number, "content": text, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True}
        for number, text in enumerate(_SPECIAL)
    ]  # fmt: skip
    return {
        "version": "1.0", "added_tokens": added, "pre_tokenizer": of_bytes, "decoder": of_bytes,
        "model": {"type": "BPE", "vocab": {spelled[byte]: byte for byte in range(_BYTES)},
                  "merges": []},
    }  # fmt: skip


def _write_weights(path: Path) -> None:
    shapes = {
        "encoder.conv1.weight": (WIDTH, MELS, 3), "encoder.conv1.bias": (WIDTH,),
        "encoder.conv2.weight": (WIDTH, WIDTH, 3), "encoder.conv2.bias": (WIDTH,),
        "encoder.embed_positions.weight": (HEARD, WIDTH),
        "decoder.embed_positions.weight": (SAID, WIDTH),
        "decoder.embed_tokens.weight": (_VOCABULARY, WIDTH),
    }  # fmt: skip
    for part, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        shapes |= _norm(f"{part}.layer_norm") | _layer(f"{part}.layers.0", attentions)
    noise = random.Random(7)
    header: dict[str, object] = {}
    data = bytearray()
    for name, shape in shapes.items():
        count = 1
        for length in shape:
            count *= length
        start = len(data)
        data += _bfloat16(noise, count)
        header[f"model.{name}"] = {
            "dtype": "BF16", "shape": shape, "data_offsets": [start, len(data)],
        }  # fmt: skip
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def _layer(name: str, attentions: list[str]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.fc1.weight": (INNER, WIDTH), f"{name}.fc1.bias": (INNER,),
        f"{name}.fc2.weight": (WIDTH, INNER), f"{name}.fc2.bias": (WIDTH,),
    }  # fmt: skip
    for attention in attentions:
        for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{name}.{attention}.{one}.weight"] = (WIDTH, WIDTH)
            if one != "k_proj":
                shapes[f"{name}.{attention}.{one}.bias"] = (WIDTH,)
        shapes |= _norm(f"{name}.{attention}_layer_norm")
    return shapes | _norm(f"{name}.final_layer_norm")


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _bfloat16(noise: random.Random, count: int) -> bytes:
    """The upper half of each number's bits."""
    halves = array("H", array("f", (noise.gauss(0, 0.2) for _ in range(count))).tobytes())
    return halves[1::2].tobytes()
