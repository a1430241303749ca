"""Reads the facts of a checkpoint, as plain numbers, from config.json and the files beside it.

Knows no model names, memory plans or engine flags; never runs code of the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllamad.core.audio_support import AudioSupport
from vllamad.core.kv_cache import Layers, per_token
from vllamad.errors import BadInput
from vllamad.models.checkpoint.audio_config import audio_support
from vllamad.models.checkpoint.fim_tokens import added_tokens, find_fim_tokens
from vllamad.models.checkpoint.json_access import (
    Json,
    decode_object,
    get_number,
    get_object,
    get_text,
    get_whole,
)
from vllamad.models.checkpoint.layers import LAYERS, cache_layers
from vllamad.models.checkpoint.safetensors import Tensor, read_header
from vllamad.models.checkpoint.template_and_license import (
    license_of,
    special_token,
    template_file,
    template_of,
)
from vllamad.models.checkpoint.weights import (
    INDEX,
    count_parameters,
    main_dtype,
    names_of,
    quantization_label,
    weight_files,
)
from vllamad.models.store.safe_files import list_files, read_bounded
from vllamad.translate.content.fill_in_middle import FimTokens

TOKENIZER = "tokenizer.json"
JSON_LIMIT = 16 << 20  # bytes; a tokenizer_config.json with thousands of tokens is under 2 MiB
INDEX_LIMIT = 64 << 20
# The keys under which families give the context length.
_CONTEXT = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
)  # fmt: skip

_MISTRAL_WEIGHTS = re.compile(r"consolidated.*\.safetensors")
_MISTRAL_TOKENIZER = re.compile(r"tekken\.json|tokenizer\.model\.v.*")

GENERATION_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One checkpoint. Sizes are bytes, lengths are tokens; 0 and "" mean unknown."""

    model_type: str
    architectures: tuple[str, ...]
    parameter_count: int
    weight_bytes: int
    dtype: str  # of most weights, in safetensors' spelling
    quantization: str  # never empty: BF16, FP8, AWQ-4bit, ...
    context_length: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocab: int
    rope_base: float
    norm_epsilon: float
    vision_layers: int
    cache: tuple[Layers, ...]  # the KV cache of its layers
    is_embedding: bool
    pooling: str  # of an embedding model: mean, cls, last, or rank for scores
    has_vision: bool
    audio: AudioSupport
    fim: FimTokens | None  # the tokens of fill-in-the-middle, if it can do that
    chat_template: str
    mistral_common: bool  # the engine renders with mistral-common, whatever the template
    bos_token: str
    eos_token: str
    license: str  # the text, else the identifier in the model card
    generation: Mapping[str, float]  # the values of GENERATION_KEYS that the model sets

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache per token over all layers, in 16 bits."""
        return per_token(self.cache, 2)


def read_facts(folder: Path) -> ModelFacts:
    """Read a checkpoint's folder, but not its weights; takes milliseconds.

    Raises BadInput for an invalid file, HostProblem for one that cannot be read.
    """
    names = {name for name, _ in list_files(folder)}

    def json(name: str, limit: int = JSON_LIMIT) -> Json:
        return decode_object(read_bounded(folder / name, limit), name) if name in names else {}

    config = json("config.json")
    if not config:
        raise BadInput(f"cannot use {folder.name}: it has no config.json")
    tensors = read_tensors(folder)
    tokenizer = json("tokenizer_config.json")
    return facts_from(
        config,
        tensors,
        tokenizer=tokenizer,
        template=template_file(folder, names) or template_of(tokenizer, json("chat_template.json")),
        generation=json("generation_config.json"),
        license=license_of(folder, names),
        sentence=json("sentence_bert_config.json"),
        embedding="modules.json" in names,
        pooling=json("1_Pooling/config.json"),
        fim=find_fim_tokens(
            added_tokens(tokenizer, folder / TOKENIZER if TOKENIZER in names else None),
            model_type_of(config),
            str(folder),
        ),
        mistral_common=_has_mistral_layout(names),
    )


def _has_mistral_layout(names: set[str]) -> bool:
    """Whether the files have Mistral's layout; vLLM recognises it by the same names."""
    return any(map(_MISTRAL_WEIGHTS.fullmatch, names)) and any(
        map(_MISTRAL_TOKENIZER.fullmatch, names)
    )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the headers of the weights that the engine loads. Raises as `read_facts` does."""
    names = {name for name, _ in list_files(folder)}
    index: Json = {}
    if INDEX in names:
        index = decode_object(read_bounded(folder / INDEX, INDEX_LIMIT), INDEX)
    tensors: dict[str, Tensor] = {}
    for name in weight_files(names, index):
        tensors.update(read_header(folder / name))
    return tensors


def facts_from(
    config: Json,
    tensors: Mapping[str, Tensor],
    *,
    tokenizer: Json | None = None,
    template: str = "",
    generation: Json | None = None,
    license: str = "",
    sentence: Json | None = None,
    embedding: bool = False,
    pooling: Json | None = None,
    fim: FimTokens | None = None,
    mistral_common: bool = False,
) -> ModelFacts:
    """Derive the facts from decoded files; `read_facts` reads them."""
    inner = language_part(config)
    names = names_of(config)
    dtype = main_dtype(tensors.values())
    context = get_whole(inner, *_CONTEXT)
    hidden = get_whole(inner, "hidden_size", "n_embd", "d_model")
    heads = get_whole(inner, "num_attention_heads", "n_head", "decoder_attention_heads")
    kv_heads = get_whole(inner, "num_key_value_heads") or heads
    head_dim = get_whole(inner, "head_dim") or (hidden // heads if heads else 0)
    vision = get_object(config, "vision_config")
    return ModelFacts(
        model_type=model_type_of(config),
        architectures=names,
        parameter_count=count_parameters(tensors, config),
        weight_bytes=sum(tensor.size for tensor in tensors.values()),
        dtype=dtype,
        quantization=quantization_label(config, dtype),
        context_length=min(context, get_whole(sentence or {}, "max_seq_length") or context),
        hidden_size=hidden,
        layers=get_whole(inner, *LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        feed_forward=get_whole(inner, "intermediate_size", "n_inner", "decoder_ffn_dim"),
        vocab=get_whole(inner, "vocab_size"),
        rope_base=get_number({**get_object(inner, "rope_parameters"), **inner}, "rope_theta")
        or 0.0,
        norm_epsilon=get_number(inner, "rms_norm_eps") or 0.0,
        vision_layers=get_whole(vision, "num_hidden_layers", "depth"),
        cache=cache_layers(inner, heads=kv_heads, head_dim=head_dim),
        is_embedding=embedding or any(map(_EMBEDS.match, names)),
        pooling=_pooling(pooling or {}, names),
        has_vision=bool(vision),
        audio=audio_support(config),
        fim=fim,
        chat_template=template,
        mistral_common=mistral_common,
        bos_token=special_token(tokenizer or {}, "bos_token"),
        eos_token=special_token(tokenizer or {}, "eos_token"),
        license=license,
        generation=_generation(generation or {}),
    )


# Architectures that return vectors or scores instead of text.
_EMBEDS = re.compile(
    r"(XLM)?Roberta|(Nomic|Modern|Distil|Camem)?Bert|MPNet|GteModel|NewModel"
    r"|.*ForSequenceClassification$|.*EncoderModel$|.*EmbeddingModel$"
)


# The older keys of sentence-transformers; the newer one is `pooling_mode`.
_POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


def _pooling(settings: Json, architectures: tuple[str, ...]) -> str:
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return "rank"
    older = next((mode for key, mode in _POOLING.items() if settings.get(key) is True), "")
    return get_text(settings, "pooling_mode") or older


# The defaults of transformers for keys that config.json may omit.
_DEFAULTS: Mapping[str, Json] = {
    "gemma3_text": {
        "head_dim": 256, "max_position_embeddings": 131072, "num_attention_heads": 8,
        "num_key_value_heads": 4, "sliding_window": 4096,
    },
}  # fmt: skip


def language_part(config: Json) -> Json:
    """The numbers of the language model: the top level, overridden by those in `text_config`."""
    inner = get_object(config, "text_config")
    merged = {**config, **{key: value for key, value in inner.items() if value}}
    return {**_DEFAULTS.get(get_text(merged, "model_type"), {}), **merged}


def model_type_of(config: Json) -> str:
    """The family: `model_type`, else the first architecture without its usual endings."""
    first = next(iter(names_of(config)), "").lower()
    bare = first.removesuffix("forcausallm").removesuffix("forconditionalgeneration")
    return get_text(config, "model_type") or bare


def _generation(settings: Json) -> dict[str, float]:
    values = {key: get_number(settings, key) for key in GENERATION_KEYS}
    return {key: value for key, value in values.items() if value is not None}
