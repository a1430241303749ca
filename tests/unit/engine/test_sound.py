"""Engines that take audio: how they are started, and the first audio they are sent."""

from __future__ import annotations

import wave
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import trio
from msgspec import structs

from tests.fakes.raw_engine import engine_answering, path_of, raw_engine
from tests.support.engine_plans import CPU_PLAN, CPU_RUNTIME, GPU_PLAN, GPU_RUNTIME, WORKPLACE
from vllamad.config.settings import EngineSettings
from vllamad.core.audio_support import AudioSupport
from vllamad.core.launch import Plan
from vllamad.engine import probe
from vllamad.engine.command import Engine, command
from vllamad.errors import LoadFailed, RuntimeProblem
from vllamad.gateway.routes.audio import read_form

PATH = "/v1/audio/transcriptions"
READS = ("av", "soundfile")


def words(runtime: Engine, plan: Plan, support: AudioSupport) -> list[str]:
    takes_audio = replace(plan, spec=replace(plan.spec, audio=support))
    return command(
        replace(runtime, features=structs.replace(runtime.features, audio_packages=READS)),
        takes_audio,
        WORKPLACE,
        EngineSettings(),
    )


@pytest.mark.parametrize(
    ("support", "audios"),
    [(AudioSupport.NONE, 0), (AudioSupport.WITH_TEXT, 1), (AudioSupport.TRANSCRIBE_ONLY, 1)],
)
def test_audio_is_switched_on_for_models_that_take_it(support: AudioSupport, audios: int) -> None:
    spelled = words(CPU_RUNTIME, CPU_PLAN, support)
    limits = spelled[spelled.index("--limit-mm-per-prompt") + 1]
    assert limits == f'{{"image":8,"video":0,"audio":{audios}}}'


@pytest.mark.parametrize(
    ("support", "chunked"),
    [(AudioSupport.WITH_TEXT, True), (AudioSupport.TRANSCRIBE_ONLY, False)],
)
def test_a_model_that_only_transcribes_has_no_prompts_to_cut_or_keep(
    support: AudioSupport, chunked: bool
) -> None:
    spelled = words(GPU_RUNTIME, GPU_PLAN, support)
    assert ("--enable-chunked-prefill" in spelled) is chunked
    assert ("--enable-prefix-caching" in spelled) is chunked


def test_a_runtime_that_cannot_read_audio_is_refused_by_what_it_lacks() -> None:
    plan = replace(CPU_PLAN, spec=replace(CPU_PLAN.spec, audio=AudioSupport.TRANSCRIBE_ONLY))
    with pytest.raises(RuntimeProblem, match="with av and soundfile, which the runtime") as refused:
        command(CPU_RUNTIME, plan, WORKPLACE, EngineSettings())
    assert "pip install av soundfile" in refused.value.hint
    assert command(
        CPU_RUNTIME,
        replace(plan, spec=replace(plan.spec, audio=AudioSupport.WITH_TEXT)),
        WORKPLACE,
        EngineSettings(),
    )


async def ready(path: Path) -> int:
    with trio.fail_after(5):
        return await probe.until_ready(path, model="a", pooling=False, transcribes=True)


async def test_what_only_transcribes_is_ready_once_it_has_heard_silence(tmp_path: Path) -> None:
    async with raw_engine(
        tmp_path / "s", engine_answering({PATH: (200, b'{"text":""}')})
    ) as exchanges:
        assert await ready(tmp_path / "s") == 4096
    assert [path_of(one) for one in exchanges] == ["/health", PATH, "/v1/models"]
    head, _, body = exchanges[1].request.partition(b"\r\n\r\n")
    kind = next(line for line in head.decode().split("\r\n") if line.startswith("Content-Type"))
    form = read_form(body, content_type=kind.partition(": ")[2])
    assert form.value("model") == "a"
    with wave.open(BytesIO(form.file or b"")) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (16_000, 16_000)


async def test_one_that_cannot_read_it_is_a_failed_load(tmp_path: Path) -> None:
    said = b'{"error":{"message":"Invalid or unsupported audio file."}}'
    async with raw_engine(tmp_path / "s", engine_answering({PATH: (400, said)})):
        with pytest.raises(LoadFailed, match="Invalid or unsupported audio file"):
            await ready(tmp_path / "s")
