"""Which models hear, by their config.json; and what is promised of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.checkpoints import BERT, SMOLLM2
from tests.support.whisper import CONFIG as WHISPER
from vllamad.core.audio import Hearing
from vllamad.models.checkpoint.audio_config import hearing_of
from vllamad.models.checkpoint.metadata import ModelFacts, facts_from
from vllamad.models.checkpoint.vllm_parsers import capabilities
from vllamad.protocol.gateway_setup import EngineParsers

ALL = ("av", "soundfile", "torchaudio")


def facts(config: dict[str, Any]) -> ModelFacts:
    return facts_from(config, {})


@pytest.mark.parametrize(
    ("config", "hearing"),
    [
        (SMOLLM2, ""),
        (BERT, ""),
        ({}, ""),
        (WHISPER, "only"),
        ({"architectures": ["CohereAsrForConditionalGeneration"]}, "only"),
        ({"architectures": ["FunASRForConditionalGeneration"]}, "only"),
        ({"architectures": ["WhisperForAudioClassification"]}, ""),
        (
            {"architectures": ["VoxtralForConditionalGeneration"], "audio_config": {"a": 1}},
            "beside",
        ),
        (
            {"architectures": ["Gemma3nForConditionalGeneration"], "audio_config": {"a": 1}},
            "beside",
        ),
        ({"thinker_config": {"audio_config": {"a": 1}}}, "beside"),
        ({"architectures": ["GraniteSpeechForConditionalGeneration"]}, "beside"),
        ({"architectures": ["UltravoxModel"], "audio_config": "x"}, "beside"),
    ],
)
def test_the_files_say_what_a_model_hears(config: dict[str, Any], hearing: Hearing) -> None:
    assert hearing_of(config) == hearing
    assert facts(config).hearing == hearing


def test_the_numbers_of_a_whisper_are_those_of_its_decoder() -> None:
    read = facts(WHISPER)
    assert (read.context_length, read.layers, read.heads, read.feed_forward) == (448, 1, 2, 128)
    assert read.kv_bytes_per_token == 2 * 64 * 2


@pytest.mark.parametrize(
    ("config", "there", "promised"),
    [
        (WHISPER, None, ("audio",)),
        (WHISPER, ("av", "soundfile"), ("audio",)),
        (WHISPER, ("av",), ()),
        (SMOLLM2 | {"audio_config": {"a": 1}}, None, ("completion", "audio")),
        (SMOLLM2 | {"audio_config": {"a": 1}}, ALL, ("completion", "audio")),
        (SMOLLM2 | {"audio_config": {"a": 1}}, ("av", "soundfile"), ("completion",)),
        (SMOLLM2, ALL, ("completion",)),
    ],
)
def test_hearing_is_promised_where_the_engine_reads_sound(
    config: dict[str, Any], there: tuple[str, ...] | None, promised: tuple[str, ...]
) -> None:
    engine = None
    if there is not None:
        engine = EngineParsers(tools=frozenset(), reasoning=frozenset(), sound=frozenset(there))
    assert capabilities(facts(config), {}, engine) == promised
