"""How a model takes audio, read from its config.json."""

from __future__ import annotations

import re

from vllamad.core.audio_support import AudioSupport
from vllamad.models.checkpoint.json_access import Json, get_object
from vllamad.models.checkpoint.weights import names_of

# The architectures that vLLM calls transcription only.
_TRANSCRIBE_ONLY = re.compile(
    r"(Whisper|CohereAsr|FireRedASR2|FunASR|MossTranscribeDiarize)ForConditionalGeneration"
)
# Most models that take audio beside text have an `audio_config`; these have another key for it.
_WITH_TEXT = re.compile(r"(GraniteSpeech|GlmAsr|MoonshotKimia|Ultravox)\w*")


def audio_support(config: Json) -> AudioSupport:
    """How the model of this config.json takes audio."""
    names = names_of(config)
    if any(map(_TRANSCRIBE_ONLY.fullmatch, names)):
        return AudioSupport.TRANSCRIBE_ONLY
    thinker = get_object(config, "thinker_config")
    has_audio_config = get_object(config, "audio_config") or get_object(thinker, "audio_config")
    if has_audio_config or any(map(_WITH_TEXT.fullmatch, names)):
        return AudioSupport.WITH_TEXT
    return AudioSupport.NONE
