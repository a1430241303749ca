"""The variables of an Ollama server: each is a setting of ours, or has no effect for a reason.

It must not know which source wins; `config/sources.py` checks the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from vllamad.config.listen_address import ollama_host
from vllamad.config.schema import SECTIONS
from vllamad.config.settings import FOREVER

STORE = "vllamad"  # our folder in $OLLAMA_MODELS: what an Ollama server keeps there stays its own


class MappedSetting(NamedTuple):
    """The setting that a value means; a `text` is still to be read as one of the environment."""

    section: str
    key: str
    value: object = None
    text: str = ""


Read = Callable[[str], MappedSetting | str | None]
"""A value as a setting, as the reason why it has no effect, or None where it asks for what holds.

Raises ValueError with what is wrong with it.
"""


def truth(text: str) -> bool:
    """Go's booleans as Ollama reads them: any other text that is not empty counts as true."""
    return text.strip().strip("\"'") not in ("", "0", "f", "F", "false", "False", "FALSE")


def _plain(section: str, key: str) -> Read:
    return lambda text: MappedSetting(section, key, text=text)


def _load_timeout(text: str) -> MappedSetting:
    """In Ollama zero or less means "without limit"."""
    kind = SECTIONS["scheduler"]["keep_alive"].kind
    try:
        seconds = kind.check(kind.from_text(text))
    except ValueError:
        return MappedSetting("scheduler", "load_timeout", text=text)
    if seconds in (0, FOREVER):
        return MappedSetting("scheduler", "load_timeout", "forever")
    return MappedSetting("scheduler", "load_timeout", text=text)


def _models(text: str) -> MappedSetting:
    if not text.startswith(("/", "~/")):
        raise ValueError(f'must be an absolute path, or one that starts with "~/", not "{text}"')
    return MappedSetting("paths", "models", text=f"{text.rstrip('/')}/{STORE}")


def _num_parallel(text: str) -> MappedSetting | None:
    return None if text == "0" else MappedSetting("scheduler", "max_running", text=text)


def _debug(text: str) -> MappedSetting | None:
    """1 and true: debug, 2: more than that, -1: warning, -2 and less: error."""
    if re.fullmatch(r"t|T|TRUE|true|True", text):
        number = 1
    elif re.fullmatch(r"f|F|FALSE|false|False", text):
        number = 0
    elif re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        number = int(text)
    else:
        raise ValueError(f'must be true, false or a number from -2 to 2, not "{text}"')
    if not number:
        return None
    level = "debug" if number > 0 else "warning" if number == -1 else "error"
    return MappedSetting("logging", "level", level)


def _kv_cache_type(text: str) -> str | None:
    if text.lower() == "f16":
        return None
    if text.lower() in ("q8_0", "q4_0"):
        return f"the cache is not quantised; `kv-cache-dtype` in engine.args is vLLM's for {text}"
    raise ValueError(f'must be "f16" or "q8_0" or "q4_0", not "{text}"')


def _sched_spread(text: str) -> str | None:
    return "`tensor_parallel_size` of a model spreads it over GPUs" if truth(text) else None


MAPPED: dict[str, Read] = {
    "OLLAMA_HOST": lambda text: MappedSetting("server", "listen", [ollama_host(text)]),
    "OLLAMA_ORIGINS": lambda text: MappedSetting("server", "allowed_origins", text=text.lower()),
    "OLLAMA_MODELS": _models,
    "OLLAMA_KEEP_ALIVE": _plain("scheduler", "keep_alive"),
    "OLLAMA_LOAD_TIMEOUT": _load_timeout,
    "OLLAMA_MAX_LOADED_MODELS": _plain("scheduler", "max_loaded_models"),
    "OLLAMA_MAX_QUEUE": _plain("scheduler", "max_queue"),
    "OLLAMA_NUM_PARALLEL": _num_parallel,
    "OLLAMA_CONTEXT_LENGTH": _plain("engine", "context_length"),
    "OLLAMA_GPU_OVERHEAD": _plain("scheduler", "gpu_overhead"),
    "OLLAMA_DEBUG": _debug,
    "OLLAMA_KV_CACHE_TYPE": _kv_cache_type,
    "OLLAMA_SCHED_SPREAD": _sched_spread,
}
"""The variables of an Ollama server that have a setting of ours, or may have."""

IGNORED = {
    "OLLAMA_FLASH_ATTENTION": "vLLM chooses the attention that suits the model and the machine",
    "OLLAMA_MULTIUSER_CACHE": "vLLM shares the cache of common beginnings among all requests",
    "OLLAMA_NEW_ENGINE": "the engine is vLLM",
    "OLLAMA_LLM_LIBRARY": "`vllamactl runtime use`, or engine.runtime, chooses the engine",
    "OLLAMA_VULKAN": "vLLM has no such backend",
    "OLLAMA_INTEL_GPU": "vllamad runs on NVIDIA GPUs or the CPU",
    "OLLAMA_IGPU_ENABLE": "vllamad runs on NVIDIA GPUs or the CPU",
    "OLLAMA_NOPRUNE": "no model is removed at start; `vllamactl prune` removes what none needs",
    "OLLAMA_MAX_TRANSFER_STREAMS": "a pull brings eight files at once",
    "OLLAMA_DEBUG_LOG_REQUESTS": "prompts and answers are never logged",
    "OLLAMA_GO_TEMPLATE": "templates are the checkpoints' own, in Jinja",
    "OLLAMA_NO_CLOUD": "no request leaves this machine",
    "OLLAMA_CLOUD_BASE_URL": "no request leaves this machine",
    "OLLAMA_REMOTES": "no request leaves this machine",
    "OLLAMA_AUTH": "nothing is sent to ollama.com; `server.api_keys_file` asks clients for keys",
    "OLLAMA_EXPERIMENT": "vllamad has no experiments",
    "OLLAMA_EDITOR": "`vllamactl run` opens no editor",
    "OLLAMA_TMPDIR": "scratch files are in paths.run",
    "OLLAMA_RUNNERS_DIR": "`vllamactl runtime list` shows where the engines are",
}
"""The others, each with the reason why it has no effect."""

CLIENTS = ("OLLAMA_API_KEY", "OLLAMA_NOHISTORY")
"""Those that `vllamactl` reads, and the daemon does not."""
