"""Derives from config.json whether a model takes audio, and whether it does anything else."""

from __future__ import annotations

import re

from vllamad.core.audio import Hearing
from vllamad.models.checkpoint.json_access import Json, get_object
from vllamad.models.checkpoint.weights import names_of

# What vLLM calls transcription only: there is no prompt to these, and no answer but the text.
_ONLY = re.compile(
    r"(Whisper|CohereAsr|FireRedASR2|FunASR|MossTranscribeDiarize)ForConditionalGeneration"
)
# Most say it with an `audio_config`; these have another word for it.
_BESIDE = re.compile(r"(GraniteSpeech|GlmAsr|MoonshotKimia|Ultravox)\w*")


def hearing_of(config: Json) -> Hearing:
    """Sound alone, sound beside text, or neither."""
    names = names_of(config)
    if any(map(_ONLY.fullmatch, names)):
        return "only"
    inner = get_object(config, "thinker_config")
    beside = get_object(config, "audio_config") or get_object(inner, "audio_config")
    return "beside" if beside or any(map(_BESIDE.fullmatch, names)) else ""
