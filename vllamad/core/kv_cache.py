"""How much KV cache one request takes, reckoned as the engine does before it admits a length.

Follows vLLM's `get_kv_cache_configs`: layers that keep the same stand in groups of one size, every
block has the same bytes whichever group it serves, and one block is never given out. Where the
engine's own blocks are smaller than ours the answer is an upper bound. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Tokens of a block: a CPU's. Those of GPUs, 16 to 128 by attention backend, divide it.
BLOCK = 128
# The one the engine holds back, and two more for what a version may add.
SPARE_BLOCKS = 3
# A length above this is a multiple of COARSE: the engine's compile cache is kept by length.
FINE_UP_TO = 8192
COARSE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """`count` layers that keep the same of a request; sizes are elements of the cache's type.

    An attention layer keeps `width` for each of `heads` and each token, keys and values together:
    of every token, or of the last `window`. A latent is one head. A recurrent layer keeps `state`
    bytes, however long the request.
    """

    count: int
    heads: int = 1
    width: int = 0
    window: int = 0  # tokens; 0: all
    state: int = 0  # bytes over all GPUs

    @property
    def keeps(self) -> bool:
        return self.count > 0 and bool(self.heads * self.width or self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How a worker uses its cache."""

    gpus: int = 1  # heads are spread over them, at least one on each
    element: int = 2  # bytes of a cached number
    in_flight: int = 0  # tokens of all steps under way: what left a window is freed only after

    def token_bytes(self, layers: Layers) -> int:
        """Bytes of one token in one of `layers`, on one GPU."""
        return max(1, layers.heads // self.gpus) * layers.width * self.element

    def state_bytes(self, layers: Layers) -> int:
        return -(-layers.state // self.gpus)


def per_token(cache: Iterable[Layers], element: int) -> int:
    """Bytes that one more token takes over all layers and GPUs, before any window is full."""
    return sum(layers.count * layers.heads * layers.width for layers in cache) * element


def request_bytes(cache: Iterable[Layers], tokens: int, use: Use) -> int:
    """Bytes of cache on each GPU with which the engine admits a length of `tokens`."""
    kinds = [layers for layers in cache if layers.keeps]
    if not kinds:
        return 0
    if len({layers.window for layers in kinds}) == 1 and not any(one.state for one in kinds):
        unit = sum(layers.count * use.token_bytes(layers) for layers in kinds) * BLOCK
        return unit * (_blocks(kinds[0], tokens, BLOCK, use) + SPARE_BLOCKS)
    block, page = _page(kinds, use)
    size = _group_size([layers.count for layers in kinds])
    blocks = sum(
        _ceil(layers.count, size) * _blocks(layers, tokens, _held(layers, block, page, use), use)
        for layers in kinds
    )
    return size * page * (blocks + SPARE_BLOCKS)


def longest_admitted(cache: Iterable[Layers], limit: int, room: int, use: Use) -> int:
    """The longest length up to `limit` tokens that is admitted with `room` bytes on each GPU.

    `limit` itself, else whole blocks; 0 where not even one fits.
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
    """The nearest length below that is a sane one to give to an engine; 0 under one block."""
    return tokens // COARSE * COARSE if tokens > FINE_UP_TO else tokens // BLOCK * BLOCK


def _blocks(layers: Layers, tokens: int, block: int, use: Use) -> int:
    """Blocks of one request in one group of `layers`."""
    if layers.state:
        return 2  # the present state and the one before it, as prefix caching wants
    if layers.window:
        # A window does not begin where a block does: one more.
        return _ceil(min(layers.window + use.in_flight, tokens), block) + 1
    return _ceil(tokens, block)


def _page(kinds: list[Layers], use: Use) -> tuple[int, int]:
    """Tokens of a block and bytes of a page: of one layer of any kind, the largest decides."""
    widest = max(use.token_bytes(layers) for layers in kinds)
    state = max(use.state_bytes(layers) for layers in kinds)
    if not widest:
        return BLOCK, state
    # vLLM makes the blocks of attention so long that a page of it holds a state.
    full = max((use.token_bytes(one) for one in kinds if not one.window), default=0) or widest
    block = BLOCK * max(1, _ceil(state, BLOCK * full))
    return block, block * widest


def _held(layers: Layers, block: int, page: int, use: Use) -> int:
    """Tokens in a page of `layers`: more where its own would divide the common page."""
    own = block * use.token_bytes(layers)
    return block * (page // own) if own and page % own == 0 else block


def _group_size(counts: list[int]) -> int:
    """Layers of a group, as vLLM chooses it to waste little on padding."""
    return max(counts) if max(counts) < 1.5 * min(counts) else min(counts)


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
