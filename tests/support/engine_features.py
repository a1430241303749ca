"""Made-up features of an engine, for tests that care about a few of them."""

from __future__ import annotations

from vllamad.core.engine_features import EngineFeatures


def engine_features(
    *,
    version: str = "0.32.0",
    device: str = "cpu",
    flags: tuple[str, ...] = (),
    tools: tuple[str, ...] = (),
    reasoning: tuple[str, ...] = (),
    audio: tuple[str, ...] = (),
    flashinfer: bool = False,
    fork: bool = True,
) -> EngineFeatures:
    return EngineFeatures(
        version=version,
        device=device,
        flags=flags,
        tool_parsers=tools,
        reasoning_parsers=reasoning,
        audio_packages=audio,
        flashinfer=flashinfer,
        fork=fork,
    )
