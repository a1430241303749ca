"""Writes wheels, among them one that passes for vLLM as far as an install can tell."""

from __future__ import annotations

import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

PROBED = {
    "vllm/__init__.py": """
class SamplingParams:
    def __init__(self, **wanted): self.wanted = wanted
class LLM:
    def __init__(self, **settings): pass
    def generate(self, prompt, wanted, use_tqdm):
        class Output: token_ids = [7] * wanted.wanted["max_tokens"]
        class Answer: outputs = [Output]
        return [Answer]
""",
    "vllm/platforms.py": "class current_platform: device_type = 'cpu'",
    "vllm/engine/__init__.py": "",
    "vllm/engine/arg_utils.py": "class EngineArgs:\n    def create_engine_config(self): pass",
    "vllm/utils/__init__.py": "",
    "vllm/utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
    "vllm/tool_parsers.py": "class ToolParserManager: list_registered = lambda: ['hermes']",
    "vllm/reasoning.py": "class ReasoningParserManager: list_registered = lambda: ['qwen3']",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/launchers/__init__.py": "",
    "vllm/entrypoints/launchers/cli_args.py": """
def make_arg_parser(parser):
    parser.add_argument("--uds", "-u")
    return parser
""",
    "vllm/entrypoints/launchers/api_server/__init__.py": "",
    "vllm/entrypoints/launchers/api_server/entry.py": "",
    "av.py": "",
    "soundfile.py": "",
}


def write_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], requires: Sequence[str] = ()
) -> Path:
    """Write a wheel of pure Python and return its path."""
    stem = f"{name.replace('-', '_')}-{version}"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    content = {
        **files,
        f"{stem}.dist-info/METADATA": about,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    content[record] = "".join(f"{_recorded(path, text)}\n" for path, text in content.items())
    content[record] += f"{record},,\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)
    return folder / f"{stem}-py3-none-any.whl"


def _recorded(path: str, text: str) -> str:
    digest = urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(text.encode())}"
