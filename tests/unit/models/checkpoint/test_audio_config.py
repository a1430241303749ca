"""Which models take audio, by their config.json, and the capabilities that follow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.checkpoints import BERT, SMOLLM2
from tests.support.engine_features import engine_features
from tests.support.whisper import CONFIG as WHISPER
from vllamad.core.audio_support import AudioSupport
from vllamad.models.checkpoint.audio_config import audio_support
from vllamad.models.checkpoint.metadata import ModelFacts, facts_from
from vllamad.models.checkpoint.vllm_parsers import capabilities

ALL = ("av", "soundfile", "torchaudio")


def facts(config: dict[str, Any]) -> ModelFacts:
    return facts_from(config, {})


@pytest.mark.parametrize(
    ("config", "support"),
    [
        (SMOLLM2, AudioSupport.NONE),
        (BERT, AudioSupport.NONE),
        ({}, AudioSupport.NONE),
        (WHISPER, AudioSupport.TRANSCRIBE_ONLY),
        ({"architectures": ["CohereAsrForConditionalGeneration"]}, AudioSupport.TRANSCRIBE_ONLY),
        ({"architectures": ["FunASRForConditionalGeneration"]}, AudioSupport.TRANSCRIBE_ONLY),
        ({"architectures": ["WhisperForAudioClassification"]}, AudioSupport.NONE),
        (
            {"architectures": ["VoxtralForConditionalGeneration"], "audio_config": {"a": 1}},
            AudioSupport.WITH_TEXT,
        ),
        (
            {"architectures": ["Gemma3nForConditionalGeneration"], "audio_config": {"a": 1}},
            AudioSupport.WITH_TEXT,
        ),
        ({"thinker_config": {"audio_config": {"a": 1}}}, AudioSupport.WITH_TEXT),
        ({"architectures": ["GraniteSpeechForConditionalGeneration"]}, AudioSupport.WITH_TEXT),
        ({"architectures": ["UltravoxModel"], "audio_config": "x"}, AudioSupport.WITH_TEXT),
    ],
)
def test_config_json_says_how_a_model_takes_audio(
    config: dict[str, Any], support: AudioSupport
) -> None:
    assert audio_support(config) is support
    assert facts(config).audio is support


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
def test_audio_is_promised_where_the_engine_has_the_packages(
    config: dict[str, Any], there: tuple[str, ...] | None, promised: tuple[str, ...]
) -> None:
    engine = None
    if there is not None:
        engine = engine_features(audio=there)
    assert capabilities(facts(config), {}, engine) == promised
