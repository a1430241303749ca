"""Which clients there are, how each is started, and which features the table has rows for.

It must not know how a feature is shown: the drivers in `clients` do.
"""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = "clients"  # an environment below .venv-conformance
LITELLM = "litellm"
NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A column of the table; `packages` are what its version is read from, the first first."""

    name: str
    packages: tuple[str, ...]
    driver: str  # a file in `clients`
    words: tuple[str, ...] = ()  # for the driver, behind the URL
    home: str = PYTHON


CLIENTS = (
    Client(name="ollama", packages=("ollama",), driver="ollama_python.py"),
    Client(name="ollama-js", packages=("ollama", "zod"), driver="ollama_js.cjs", home=NODE),
    Client(name="openai", packages=("openai",), driver="openai_python.py"),
    Client(name="anthropic", packages=("anthropic",), driver="anthropic_python.py"),
    Client(name="langchain", packages=("langchain-ollama",), driver="langchain_ollama_.py"),
    Client(
        name="llama-index",
        packages=("llama-index-llms-ollama", "llama-index-embeddings-ollama"),
        driver="llama_index_.py",
    ),
    Client(
        name="litellm ollama/",
        packages=("litellm",),
        driver="litellm_.py",
        words=("ollama",),
        home=LITELLM,
    ),
    Client(
        name="litellm ollama_chat/",
        packages=("litellm",),
        driver="litellm_.py",
        words=("ollama_chat",),
        home=LITELLM,
    ),
    Client(name="llm", packages=("llm-ollama", "llm"), driver="llm_.py"),
    Client(name="pydantic-ai", packages=("pydantic-ai-slim",), driver="pydantic_ai_.py"),
    Client(name="instructor", packages=("instructor",), driver="instructor_.py"),
)

FEATURES = (
    "list",
    "show",
    "ps",
    "load, unload",
    "chat",
    "chat, streamed",
    "generate",
    "generate, streamed",
    "responses",
    "responses, streamed",
    "conversation",
    "system message",
    "token counts",
    "count tokens",
    "seed",
    "limit of tokens",
    "stop strings",
    "JSON schema",
    "JSON schema, streamed",
    "JSON mode",
    "log probabilities",
    "tools refused",
    "thinking refused",
    "embed one",
    "embed many",
    "model not found",
    "pull refused",
    "copy, delete",
    "create",
    "upload a blob",
    "cancel",
    "async",
    "async, streamed",
    "async, cancel",
    "async, embed",
    "in parallel",
)
