"""Turns Ollama's `options`, and a model's stored parameters, into vLLM's sampling fields.

Options that only llama.cpp has are checked for their type and then ignored. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from vllamad.errors import BadInput
from vllamad.translate.go.json_decoder import is_list, quoted

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024  # characters
_LARGEST_SEED = (1 << 63) - 1
_LARGEST_TOP_K = (1 << 31) - 1  # vLLM refuses more

# The types that Ollama checks. Other keys of `options` are ignored.
_TYPES = {
    "temperature": "float32", "top_k": "integer", "top_p": "float32", "min_p": "float32",
    "typical_p": "float32", "repeat_penalty": "float32", "repeat_last_n": "integer",
    "presence_penalty": "float32", "frequency_penalty": "float32", "seed": "integer",
    "stop": "array", "num_predict": "integer", "num_ctx": "integer", "num_keep": "integer",
    "num_batch": "integer", "num_gpu": "integer", "main_gpu": "integer", "use_mmap": "boolean",
    "num_thread": "integer", "draft_num_predict": "integer",
}  # fmt: skip

# The range that vLLM takes for each field, for the requests of all APIs.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_k": (0, _LARGEST_TOP_K),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "seed": (-1, _LARGEST_SEED),
    "min_tokens": (0, _LARGEST_TOP_K),
}
_STOPS = ("stop", "stop_sequences")

_DEFAULTS: dict[str, object] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
    "num_predict": -1,
}

# From the keys of generation_config.json to Ollama's options.
_GENERATION_CONFIG = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


def check_options(options: Mapping[str, object]) -> dict[str, object]:
    """Keep the options Ollama knows, each of its type; null is absent.

    Raises BadInput with status 500, as Ollama answers a wrong type.
    """
    return {
        name: _typed(name, value)
        for name, value in options.items()
        if name in _TYPES and value is not None
    }


def is_option(name: str) -> bool:
    """Return true for the name of an option of Ollama's."""
    return name in _TYPES


def option_type(name: str) -> str | None:
    """Return float32, integer, boolean or array; None for an unknown option."""
    return _TYPES.get(name)


def from_generation_config(config: Mapping[str, object]) -> dict[str, object]:
    """Turn a checkpoint's generation_config into options; values of other types are left out."""
    return {
        option: value
        for name, option in _GENERATION_CONFIG.items()
        if isinstance(value := config.get(name), int | float)
        and not isinstance(value, bool)
        and isfinite(value)
    }


def sampling(
    stored: Mapping[str, object], requested: Mapping[str, object], context_length: int
) -> dict[str, object]:
    """Turn options into vLLM's request fields: defaults, then stored, then requested.

    Every field is sent, so that vLLM's defaults have no effect; values that vLLM would refuse are
    brought into its range. `context_length` is the worker's, in tokens, at least 1.

    Raises BadInput.
    """
    options = _DEFAULTS | check_options(stored) | check_options(requested)
    # Ollama penalizes tokens in a window, vLLM all tokens; a window of 0 turns both off.
    unpenalized = options.get("repeat_last_n") == 0
    return in_range({
        "temperature": options["temperature"],
        "top_k": options["top_k"],
        "top_p": options["top_p"],
        "min_p": options["min_p"],
        "repetition_penalty": 1.0 if unpenalized else options["repeat_penalty"],
        "presence_penalty": options["presence_penalty"],
        "frequency_penalty": options["frequency_penalty"],
        "max_tokens": _max_tokens(options, context_length),
        "seed": int(_number(options, "seed")),
        "stop": options.get("stop", []),
    })  # fmt: skip


def in_range(fields: Mapping[str, object]) -> dict[str, object]:
    """Bring vLLM's request fields into the range that vLLM takes; other fields stay as they are.

    A number goes to the nearest edge. A `top_p` of 0 is greedy, a repetition penalty that is not
    above 0 and a negative seed are off, empty stop strings are dropped. Raises BadInput for too
    many or too long stop strings.
    """
    bounded = dict(fields)
    for name, (low, high) in _RANGES.items():
        if isinstance(value := bounded.get(name), int | float):
            bounded[name] = min(max(value, low), high)
    if bounded.get("top_p") == 0:  # vLLM refuses 0; only the likeliest token is greedy
        bounded |= {"top_p": 1.0, "temperature": 0.0}
    if bounded.get("seed") == -1:
        del bounded["seed"]
    if isinstance(penalty := bounded.get("repetition_penalty"), int | float) and penalty <= 0:
        bounded["repetition_penalty"] = 1.0
    for name in _STOPS:
        if stop := _stops(bounded.pop(name, None)):
            bounded[name] = stop
    return bounded


def predicts_nothing(stored: Mapping[str, object], requested: Mapping[str, object]) -> bool:
    """Return true for `num_predict` 0: the prompt is read, and the answer is empty."""
    return (check_options(stored) | check_options(requested)).get("num_predict") == 0


def sets_limit(options: Mapping[str, object]) -> bool:
    """Return true if `num_predict` limits the answer."""
    limit = options.get("num_predict")
    return isinstance(limit, int | float) and limit >= 0


def kept_first(options: Mapping[str, object]) -> int:
    """Return `num_keep`: how many first tokens stay when a context is cut."""
    kept = options.get("num_keep")
    return int(kept) if isinstance(kept, int | float) else 4


def _typed(name: str, value: object) -> object:
    kind = _TYPES[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float32" and number:
        return value
    if kind == "integer" and isinstance(value, int | float) and number:
        return int(value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "array" and is_list(value):
        if all(isinstance(item, str) for item in value):
            return value
        raise BadInput(f"option {quoted(name)} must be of an array of strings", status=500)
    raise BadInput(f"option {quoted(name)} must be of type {kind}", status=500)


def _number(options: Mapping[str, object], name: str) -> float:
    value = options[name]
    assert isinstance(value, int | float)
    return value


def _max_tokens(options: Mapping[str, object], context_length: int) -> int:
    """Return the limit of the answer: at least 1, as vLLM requires; negative fills the context.

    A `num_ctx` bounds it at ten times as many, as in Ollama. It is always sent, since vLLM's
    completions route stops after 16 tokens without it.
    """
    requested, num_ctx = int(_number(options, "num_predict")), options.get("num_ctx")
    bound = 10 * num_ctx if isinstance(num_ctx, int) and num_ctx > 0 else context_length
    limit = min(bound, context_length)
    return limit if requested < 0 else min(max(requested, 1), limit)


def _stops(value: object) -> list[object]:
    """Return the stop strings, of one or a list, without empty ones, which vLLM refuses."""
    listed = value if is_list(value) else [value]
    stops = [stop for stop in listed if stop is not None and stop != ""]
    if len(stops) > MAX_STOPS:
        raise BadInput(f"cannot take {len(stops)} stop strings, at most {MAX_STOPS}")
    if any(len(str(stop)) > MAX_STOP_LENGTH for stop in stops):
        raise BadInput(f"cannot take a stop string longer than {MAX_STOP_LENGTH} characters")
    return stops
