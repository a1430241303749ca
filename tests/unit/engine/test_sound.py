"""Engines that hear: how they are started, and what the first thing is that they hear."""

from __future__ import annotations

import wave
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import trio

from tests.fakes.raw_engine import engine_answering, path_of, raw_engine
from tests.support.engine_plans import CPU_PLAN, CPU_RUNTIME, GPU_PLAN, GPU_RUNTIME, WORKPLACE
from vllamad.config.settings import EngineSettings
from vllamad.core.audio import Hearing
from vllamad.core.launch import Plan
from vllamad.engine import probe
from vllamad.engine.command import Engine, command
from vllamad.errors import LoadFailed, RuntimeProblem
from vllamad.gateway.routes.audio import read_form

PATH = "/v1/audio/transcriptions"
READS = frozenset({"av", "soundfile"})


def words(runtime: Engine, plan: Plan, hearing: Hearing) -> list[str]:
    hears = replace(plan, spec=replace(plan.spec, hearing=hearing))
    return command(replace(runtime, sound=READS), hears, WORKPLACE, EngineSettings())


@pytest.mark.parametrize(("hearing", "sounds"), [("", 0), ("beside", 1), ("only", 1)])
def test_sound_is_switched_on_for_who_hears(hearing: Hearing, sounds: int) -> None:
    spelled = words(CPU_RUNTIME, CPU_PLAN, hearing)
    limits = spelled[spelled.index("--limit-mm-per-prompt") + 1]
    assert limits == f'{{"image":8,"video":0,"audio":{sounds}}}'


@pytest.mark.parametrize(("hearing", "chunked"), [("beside", True), ("only", False)])
def test_what_only_hears_has_no_prompts_to_cut_or_keep(hearing: Hearing, chunked: bool) -> None:
    spelled = words(GPU_RUNTIME, GPU_PLAN, hearing)
    assert ("--enable-chunked-prefill" in spelled) is chunked
    assert ("--enable-prefix-caching" in spelled) is chunked


def test_a_runtime_that_cannot_read_sound_is_refused_by_what_it_lacks() -> None:
    plan = replace(CPU_PLAN, spec=replace(CPU_PLAN.spec, hearing="only"))
    with pytest.raises(RuntimeProblem, match="with av and soundfile, which the runtime") as refused:
        command(CPU_RUNTIME, plan, WORKPLACE, EngineSettings())
    assert "pip install av soundfile" in refused.value.hint
    assert command(
        CPU_RUNTIME,
        replace(plan, spec=replace(plan.spec, hearing="beside")),
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
