"""Writes docs/models.md out of the catalogue of known models: `python packaging/models_page.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from vllamad.core.memory import CPU_OVERHEAD, GIB, GPU_OVERHEAD
from vllamad.core.model_name import parse_model_name
from vllamad.core.variants import CONTEXT_WANTED, FORMATS, KnownModel
from vllamad.models.registry.registry_file import load_registry

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
CONTEXTS = (4096, 32768, 131072)

_HEAD = """\
# Models

The names that `ollama pull` and `vllamactl pull` know by themselves: {count} of them, in {families}
families. Any other repository of the Hugging Face hub is pulled by its own name.

Made by `packaging/models_page.py` from `vllamad/models/registry/registry.toml`: edit that.

## Names

| name | means |
| --- | --- |
| `qwen3` | the tag of the family that is marked *latest* below |
| `qwen3:8b` | that size, in the variant that suits this machine |
| `qwen3:8b-fp8` | that variant: `-bf16` (or `-fp16`), `-fp8`, `-mxfp4`, `-awq`, `-gptq`, `-int4` |
| `org/repo`, `org/repo:revision` | a repository of the hub, at a branch, tag or commit of it |
| `hf.co/org/repo`, `huggingface.co/org/repo` | the same |
| `[model."name"] path = "/folder"` in the configuration | a folder of this machine |

A model is installed under the name that was typed; `vllamactl cp` gives it others. Its manifest in
the model store says which repository, commit and variant it is. A name that is not known fails as
Ollama's does, `pull model manifest: file does not exist`, and `vllamactl` says what comes near it.
`vllamactl search TEXT` looks through this list without a network.

vllamad does not serve GGUF files; since 0.24 vLLM reads them only with a plugin. A repository of
them is refused; the refusal names the repository they were made from, if it is in this list.

## Which variant is taken

The best that fits on as few GPUs as possible, with a context of {context} tokens, or the model's
own where that is shorter, or its `context_length` in the configuration. What is better comes first
in this table. A model is spread over GPUs only where `tensor_parallel_size` says so. Where nothing
fits, the smallest that would run is taken. On a CPU only bf16 is. The daemon's log says what was
chosen, and why not what comes before it (`event=variant.chosen`).

| variant | bytes a weight | compute capability, at least | |
| --- | --- | --- | --- |
{formats}

## Memory

In GiB: the weights of the best variant, and those with the cache of one context of 4k, 32k and 128k
tokens; in brackets the same with the smallest variant. A dash: the model's context is shorter. A
worker takes about {gpu:.0f} GiB more on a GPU and {cpu:.1f} GiB more on a CPU. Where layers look
back only over a window, as in Gemma's and gpt-oss, the cache's figures are upper bounds.

*gated*: the maker gives the weights, or those of the variant named, only to accounts that accepted
the terms on their page; pulling takes such an account's token in `HF_TOKEN`.

## More names

`/etc/vllamad/catalog.toml`, the files in `/etc/vllamad/catalog.d/` and
`~/.config/vllamad/catalog.toml` add to the list or replace entries of it. They are read anew for
every pull; which files `catalog.d` has is looked up when `vllamad` starts.

```toml
[house]
about = "our own"
license = "apache-2.0"
latest = "7b"

[house.tags.7b]
parameters = 7.6e9
shape = {{ layers = 28, kv_heads = 4, head_dim = 128, embeddings = 1.1e9 }}
context = 32768
bf16 = "our-org/house-7b"
fp8 = {{ repository = "our-org/house-7b-fp8", revision = "v2", gated = true }}
```
"""

_TAIL = """
## Known, and not served

| name | why |
| --- | --- |
"""

_WORTH = {
    "bf16": "as it was trained; computed in float16 below 8.0",
    "fp8": "computed in FP8 from 8.9 on, in 16 bits below",
    "mxfp4": "as gpt-oss was trained",
    "awq": "four bits",
    "gptq": "four bits",
    "int4": "four bits, in the layout of compressed-tensors",
}


def page() -> str:
    """Return the whole page."""
    known = load_registry()
    families = [(family, list(group)) for family, group in groupby(known.models, _family)]
    head = _HEAD.format(
        count=len(known.models),
        families=len(families),
        formats="\n".join(map(_format, FORMATS)),
        context=CONTEXT_WANTED,
        gpu=GPU_OVERHEAD / GIB,
        cpu=CPU_OVERHEAD / GIB,
    )
    latest = [known.find(parse_model_name(family)) for family, _ in families]
    sections = (
        _section(family, group, one) for (family, group), one in zip(families, latest, strict=True)
    )
    unserved = (f"| `{name}` | {why} |\n" for name, why in known.unserved.items())
    return head + "".join(sections) + _TAIL + "".join(unserved)


def _format(name: str) -> str:
    form = FORMATS[name]
    capability = ".".join(map(str, form.capability)) + (" or a CPU" if form.on_cpu else "")
    return f"| {name} | {form.bits / 8:.2g} | {capability} | {_WORTH[name]} |"


def _section(family: str, models: list[KnownModel], latest: KnownModel | None) -> str:
    lines = [
        f"\n## {family}\n",
        f"{models[0].about}.\n",
        "| name | parameters | context | weights | 4k | 32k | 128k | variants | licence |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(model, latest) for model in models),
    ]
    return "\n".join(lines) + "\n"


def _row(model: KnownModel, latest: KnownModel | None) -> str:
    cells = [
        f"`{model.name}`" + (" *latest*" if model == latest else ""),
        _parameters(model.parameters),
        str(model.context),
        _need(model, 0),
        *(_need(model, context) for context in CONTEXTS),
        ", ".join(_variants(model)),
        model.license + (", gated" if all(variant.gated for variant in model.variants) else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _need(model: KnownModel, context: int) -> str:
    if context > model.context:
        return "-"
    sizes = [model.memory(variant, context) / GIB for variant in model.variants]
    best, least = sizes[0], min(sizes)
    return _gib(best) if least == best else f"{_gib(best)} ({_gib(least)})"


def _gib(size: float) -> str:
    return f"{size:.0f}" if size >= 100 else f"{size:.1f}"


def _parameters(count: int) -> str:
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def _variants(model: KnownModel) -> Iterator[str]:
    mixed = len({variant.gated for variant in model.variants}) > 1
    for variant in model.variants:
        gated = " (gated)" if mixed and variant.gated else ""
        yield f"[{variant.format}](https://huggingface.co/{variant.repository}){gated}"


def _family(model: KnownModel) -> str:
    return model.name.partition(":")[0]


if __name__ == "__main__":
    PAGE.write_text(page())
