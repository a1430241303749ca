"""The context length that an engine admits never needs more cache than there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.kv_caches import flat
from vllamad.core.kv_cache import (
    BLOCK,
    SPARE_BLOCKS,
    Layers,
    Use,
    longest_admitted,
    per_token,
    request_bytes,
    whole_blocks,
)

MIB = 1 << 20
LLAMA_1B = (Layers(count=16, heads=8, width=128),)
GEMMA3_4B = (
    Layers(count=5, heads=4, width=512),
    Layers(count=29, heads=4, width=512, window=1024),
)
QWEN3_NEXT = (Layers(count=12, heads=2, width=512), Layers(count=36, state=2 * MIB))
LATENT = (Layers(count=61, width=576),)
CPU = Use(in_flight=2048)

kinds = st.builds(
    Layers,
    count=st.integers(0, 64),
    heads=st.integers(1, 32),
    width=st.integers(0, 512).map(lambda half: 2 * half),
    window=st.sampled_from([0, 0, 128, 1024, 4096]),
    state=st.sampled_from([0, 0, 0, 100_000, 2 * MIB]),
)
caches = st.lists(kinds, max_size=3).map(tuple)
uses = st.builds(
    Use,
    gpus=st.sampled_from([1, 2, 4, 8]),
    element=st.sampled_from([1, 2, 4]),
    in_flight=st.sampled_from([0, 2048, 32768]),
)


@given(caches, st.integers(1, 300_000), st.integers(0, 8 << 30), uses)
def test_an_admitted_length_never_takes_more_than_the_room(
    cache: tuple[Layers, ...], limit: int, room: int, use: Use
) -> None:
    admitted = longest_admitted(cache, limit, room, use)
    assert 0 <= admitted <= limit
    assert admitted == limit or admitted % BLOCK == 0
    if admitted:
        assert request_bytes(cache, admitted, use) <= room


@given(st.lists(kinds, min_size=1, max_size=3).map(tuple), st.integers(BLOCK, 300_000), uses)
def test_a_length_with_enough_room_is_admitted(
    cache: tuple[Layers, ...], limit: int, use: Use
) -> None:
    assert longest_admitted(cache, limit, request_bytes(cache, limit, use), use) == limit


@given(caches, st.integers(1, 300_000), st.integers(0, 4 << 30), st.integers(0, 4 << 30), uses)
def test_more_memory_never_makes_a_length_shorter(
    cache: tuple[Layers, ...], limit: int, room: int, more: int, use: Use
) -> None:
    assert longest_admitted(cache, limit, room, use) <= longest_admitted(
        cache, limit, room + more, use
    )


@given(caches, st.integers(0, 300_000), st.integers(0, 9_000), uses)
def test_more_tokens_never_take_less(
    cache: tuple[Layers, ...], tokens: int, more: int, use: Use
) -> None:
    assert request_bytes(cache, tokens, use) <= request_bytes(cache, tokens + more, use)


@given(caches, st.integers(0, 300_000), uses)
def test_a_wider_type_never_takes_less(cache: tuple[Layers, ...], tokens: int, use: Use) -> None:
    wider = replace(use, element=2 * use.element)
    assert request_bytes(cache, tokens, use) <= request_bytes(cache, tokens, wider)


def test_two_blocks_are_spare_besides_the_reserved_one() -> None:
    """Llama 3.2 1B in 1 GiB: vLLM holds 32768 tokens, and admits 32640 of them."""
    block = per_token(LLAMA_1B, 2) * BLOCK
    assert block * 256 == 1 << 30
    assert SPARE_BLOCKS == 3
    assert request_bytes(LLAMA_1B, 32768 - 3 * BLOCK, CPU) == 1 << 30
    assert longest_admitted(LLAMA_1B, 131072, 1 << 30, CPU) == 31744


@pytest.mark.parametrize(
    ("tokens", "given"),
    [(0, 0), (127, 0), (129, 128), (8192, 8192), (9215, 8192), (32640, 31744)],
)
def test_lengths_are_whole_blocks_and_long_ones_whole_thousands(tokens: int, given: int) -> None:
    assert whole_blocks(tokens) == given


def test_a_window_takes_its_own_tokens_and_those_in_flight() -> None:
    shorter = request_bytes(GEMMA3_4B, 65536, CPU)
    longer = request_bytes(GEMMA3_4B, 131072, CPU)
    # Only the one group of five layers grows: 4 heads of 512 elements of 2 bytes.
    assert longer - shorter == 65536 * 5 * 4 * 512 * 2
    assert longest_admitted(GEMMA3_4B, 131072, 1 << 30, CPU) > longest_admitted(
        (Layers(count=34, heads=4, width=512),), 131072, 1 << 30, CPU
    )


def test_a_recurrent_state_sets_the_block_size() -> None:
    """2 MiB a state, 2 KiB a token and layer: blocks of 1024 tokens, 12 layers a group."""
    page = 2 * MIB
    one_group, three_of_states = 1, 3 * 2
    expected = 12 * page * (one_group + three_of_states + SPARE_BLOCKS)
    assert request_bytes(QWEN3_NEXT, 1024, CPU) == expected
    assert request_bytes((Layers(count=4, state=MIB),), 1024, CPU) == 4 * MIB * 5


def test_a_latent_and_the_last_head_are_whole_on_every_gpu() -> None:
    def of(cache: tuple[Layers, ...], gpus: int) -> int:
        return request_bytes(cache, 8192, Use(gpus=gpus))

    assert of(LATENT, 8) == of(LATENT, 1)
    four_heads = (Layers(count=48, heads=4, width=256),)
    assert of(four_heads, 4) * 4 == of(four_heads, 1)
    assert of(four_heads, 8) == of(four_heads, 4)


def test_layers_of_equal_window_share_one_group_at_any_width() -> None:
    cache = (Layers(count=2, heads=2, width=64), Layers(count=3, heads=4, width=64))
    assert request_bytes(cache, BLOCK, Use()) == per_token(cache, 2) * BLOCK * (1 + SPARE_BLOCKS)


def test_a_narrower_page_that_does_not_divide_the_common_one_is_padded() -> None:
    full, sliding = Layers(count=1, width=96), Layers(count=1, width=64, window=128)
    use = Use(in_flight=0)
    assert request_bytes((full, sliding), 256, use) == 96 * 2 * BLOCK * (2 + 2 + SPARE_BLOCKS)
    halved = replace(sliding, width=48)
    assert request_bytes((full, halved), 256, use) == 96 * 2 * BLOCK * (2 + 2 + SPARE_BLOCKS)


def test_layers_without_cache_take_nothing() -> None:
    assert request_bytes((), 1 << 20, CPU) == 0
    assert longest_admitted((), 1 << 20, 0, CPU) == 1 << 20
    assert per_token(flat(1024), 2) == 1024
