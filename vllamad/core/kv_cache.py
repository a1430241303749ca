"""The KV cache that one request takes, computed as the engine does before it admits a length.

Follows vLLM's `get_kv_cache_configs`: layers of one kind form groups of equal size, every block
has the same bytes in every group, and one block is never allocated. Where the engine's blocks are
smaller than ours, the result is an upper bound. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Tokens of a block on a CPU. The block sizes of GPUs, 16 to 128 by attention backend, divide it.
BLOCK = 128
# One that the engine reserves, and two that a later version may reserve.
SPARE_BLOCKS = 3
# A length above this is a multiple of COARSE: the engine's compile cache is kept by length.
FINE_UP_TO = 8192
COARSE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """`count` layers with equal cache needs; sizes are in elements of the cache's number type.

    An attention layer caches `width` elements, keys and values together, for each of `heads` and
    each token: of every token, or of the last `window`. A latent counts as one head. A recurrent
    layer keeps `state` bytes for a request of any length.
    """

    count: int
    heads: int = 1
    width: int = 0
    window: int = 0  # tokens; 0: all
    state: int = 0  # bytes over all GPUs

    @property
    def keeps(self) -> bool:
        """True if the layers cache anything."""
        return self.count > 0 and bool(self.heads * self.width or self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The way a worker uses its cache."""

    gpus: int = 1  # heads are split over them, at least one on each
    element: int = 2  # bytes of a cached number
    in_flight: int = 0  # tokens of all running steps: a step ends before blocks are freed

    def token_bytes(self, layers: Layers) -> int:
        """Bytes of one token in one of `layers`, on one GPU."""
        return max(1, layers.heads // self.gpus) * layers.width * self.element

    def state_bytes(self, layers: Layers) -> int:
        return -(-layers.state // self.gpus)


def per_token(cache: Iterable[Layers], element: int) -> int:
    """Bytes of one more token over all layers and GPUs, before any window is full."""
    return sum(layers.count * layers.heads * layers.width for layers in cache) * element


def request_bytes(cache: Iterable[Layers], tokens: int, use: Use) -> int:
    """Bytes of cache on each GPU that the engine requires to admit a length of `tokens`."""
    kinds = [layers for layers in cache if layers.keeps]
    if not kinds:
        return 0
    if len({layers.window for layers in kinds}) == 1 and not any(layers.state for layers in kinds):
        unit = sum(layers.count * use.token_bytes(layers) for layers in kinds) * BLOCK
        return unit * (_blocks(kinds[0], tokens, BLOCK, use) + SPARE_BLOCKS)
    block, page = _page(kinds, use)
    size = _group_size([layers.count for layers in kinds])
    blocks = sum(
        _ceil(layers.count, size)
        * _blocks(layers, tokens, _page_tokens(layers, block, page, use), use)
        for layers in kinds
    )
    return size * page * (blocks + SPARE_BLOCKS)


def longest_admitted(cache: Iterable[Layers], limit: int, room: int, use: Use) -> int:
    """The longest length up to `limit` tokens that is admitted with `room` bytes on each GPU.

    It is `limit` or a multiple of whole blocks; 0 if one block does not fit.
    """
    cache = tuple(cache)
    if request_bytes(cache, limit, use) <= room:
        return limit
    fits, fails = 0, limit // BLOCK + 1  # in blocks
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if request_bytes(cache, middle * BLOCK, use) <= room:
            fits = middle
        else:
            fails = middle
    return whole_blocks(fits * BLOCK)


def whole_blocks(tokens: int) -> int:
    """Round down to a length of whole blocks, coarse above FINE_UP_TO; 0 under one block."""
    return tokens // COARSE * COARSE if tokens > FINE_UP_TO else tokens // BLOCK * BLOCK


def _blocks(layers: Layers, tokens: int, block: int, use: Use) -> int:
    """The number of blocks of one request in one group of `layers`."""
    if layers.state:
        return 2  # the current and the previous state, as prefix caching requires
    if layers.window:
        # A window may begin inside a block: one more.
        return _ceil(min(layers.window + use.in_flight, tokens), block) + 1
    return _ceil(tokens, block)


def _page(kinds: list[Layers], use: Use) -> tuple[int, int]:
    """Tokens of a block, and bytes of a page: the largest that a layer of any kind needs."""
    widest = max(use.token_bytes(layers) for layers in kinds)
    state = max(use.state_bytes(layers) for layers in kinds)
    if not widest:
        return BLOCK, state
    # vLLM lengthens attention blocks until a page of them holds a state.
    full = (
        max((use.token_bytes(layers) for layers in kinds if not layers.window), default=0) or widest
    )
    block = BLOCK * max(1, _ceil(state, BLOCK * full))
    return block, block * widest


def _page_tokens(layers: Layers, block: int, page: int, use: Use) -> int:
    """Tokens in a page of `layers`: more where the page holds several of their blocks."""
    block_bytes = block * use.token_bytes(layers)
    return block * (page // block_bytes) if block_bytes and page % block_bytes == 0 else block


def _group_size(counts: list[int]) -> int:
    """The number of layers in a group, as vLLM chooses it to save padding."""
    return max(counts) if max(counts) < 1.5 * min(counts) else min(counts)


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
