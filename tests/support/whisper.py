"""A Whisper of half a megabyte, with random weights."""

from __future__ import annotations

from pathlib import Path

from tests.support.random_weights import BYTES, Shapes, byte_tokenizer, linear, norm, write_files

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
_VOCABULARY = BYTES + len(_SPECIAL)

CONFIG: dict[str, object] = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
    "is_encoder_decoder": True, "d_model": WIDTH, "vocab_size": _VOCABULARY,
    "encoder_layers": 1, "decoder_layers": 1, "num_hidden_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER, "num_mel_bins": MELS,
    "max_source_positions": HEARD, "max_target_positions": SAID, "activation_function": "gelu",
    "bos_token_id": BYTES, "eos_token_id": BYTES, "pad_token_id": BYTES,
    "decoder_start_token_id": BYTES + 1, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
_PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor",
    "feature_size": MELS, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30,
    "n_fft": 400, "padding_value": 0.0, "nb_max_frames": 3000, "n_samples": 480000,
}  # fmt: skip


def write_whisper(folder: Path) -> Path:
    """A whole checkpoint."""
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), _SPECIAL[0])
    files: dict[str, object] = {
        "config.json": CONFIG,
        "generation_config.json": {"eos_token_id": BYTES, "decoder_start_token_id": BYTES + 1},
        "preprocessor_config.json": _PREPROCESSOR,
        "tokenizer.json": byte_tokenizer(_SPECIAL),
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer", "model_max_length": SAID, **named,
        },
    }  # fmt: skip
    return write_files(folder, files, _shapes())


def _shapes() -> Shapes:
    shapes: Shapes = {
        "model.encoder.conv1.weight": (WIDTH, MELS, 3), "model.encoder.conv1.bias": (WIDTH,),
        "model.encoder.conv2.weight": (WIDTH, WIDTH, 3), "model.encoder.conv2.bias": (WIDTH,),
        "model.encoder.embed_positions.weight": (HEARD, WIDTH),
        "model.decoder.embed_positions.weight": (SAID, WIDTH),
        "model.decoder.embed_tokens.weight": (_VOCABULARY, WIDTH),
    }  # fmt: skip
    for part, attentions in (
        ("encoder", ("self_attn",)),
        ("decoder", ("self_attn", "encoder_attn")),
    ):
        shapes |= norm(f"model.{part}.layer_norm", WIDTH)
        shapes |= _layer(f"model.{part}.layers.0", attentions)
    return shapes


def _layer(name: str, attentions: tuple[str, ...]) -> Shapes:
    shapes = linear(f"{name}.fc1", INNER, WIDTH) | linear(f"{name}.fc2", WIDTH, INNER)
    for attention in attentions:
        for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.{attention}.{one}", WIDTH, WIDTH)
        del shapes[f"{name}.{attention}.k_proj.bias"]
        shapes |= norm(f"{name}.{attention}_layer_norm", WIDTH)
    return shapes | norm(f"{name}.final_layer_norm", WIDTH)
