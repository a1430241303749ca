"""The command `create`: makes a model from a Modelfile."""

from __future__ import annotations

import sys
from pathlib import Path

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.file_uploads import Report, files_at, local_path, upload
from vllamactl.ollama_client import OllamaClient, find_api
from vllamactl.progress import Progression
from vllamactl.render import DONE
from vllamad.errors import BadInput, HostProblem
from vllamad.protocol.control import Progress
from vllamad.translate.ollama.modelfile import Modelfile, parse_modelfile

_LIMIT = 16 << 20  # bytes of a Modelfile


def create(context: CommandContext, model: str, file: str) -> None:
    """Read the Modelfile `file` (- is standard input), upload its files, create `model`."""
    modelfile = _read(file)
    for name in modelfile.deprecated:
        context.screen.note(f"warning: parameter {name} is deprecated")
    beside = Path() if file == "-" else Path(file).parent
    api = OllamaClient(find_api(context.client, context.environ), context.environ)
    with Progression(context.screen, f"creating {model}") as progression:
        body = _request(api, modelfile, beside.absolute(), progression.report) | {"model": model}
        for step in api.follow("/api/create", body, Progress):
            if step.status != "success":
                progression.report(step)
        elapsed = progression.elapsed
    if context.screen.json:
        context.screen.event({"event": "done", "model": model, "elapsed": round(elapsed, 3)})
        return
    text = f"{context.screen.mark(DONE)} created {model} in {human.clock(elapsed)}"
    context.screen.answer(None, text)


def _read(file: str) -> Modelfile:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with Path(file).open("rb") as source:
                data = source.read(_LIMIT + 1)
    except OSError as error:
        raise HostProblem(
            f"cannot read {file}: {(error.strerror or str(error)).lower()}",
            hint="-f FILE names the Modelfile, -f - reads it from standard input",
        ) from error
    if len(data) > _LIMIT:
        raise BadInput(f"cannot read {file}: it has over {_LIMIT} bytes")
    try:
        return parse_modelfile(data.decode())
    except UnicodeDecodeError as error:
        raise BadInput(f"cannot read {file}: it is not UTF-8 text") from error
    except BadInput as error:
        raise BadInput(f"cannot read {file}: {error.message}", hint=error.hint) from error


def _request(
    api: OllamaClient, modelfile: Modelfile, beside: Path, report: Report
) -> dict[str, object]:
    """Upload the files of the model, and return the body of the request."""
    if modelfile.draft:
        raise BadInput("cannot use DRAFT: draft models are not supported")
    if len(modelfile.adapters) > 1:
        raise BadInput("only one adapter is currently supported")
    body: dict[str, object] = {}
    files: dict[str, Path] = {}
    for source in modelfile.sources:
        path = local_path(source, beside)
        if path.exists():
            files |= files_at(path)
        else:
            body["from"] = source
    if files:
        body["files"] = upload(api, files, report)
    for adapter in modelfile.adapters:
        body["adapters"] = upload(api, files_at(local_path(adapter, beside)), report)
    fields = {
        "template": modelfile.template,
        "system": modelfile.system,
        "license": list(modelfile.licenses),
        "parameters": modelfile.parameters,
        "messages": modelfile.messages,
        "renderer": modelfile.renderer,
        "parser": modelfile.parser,
        "requires": modelfile.requires,
    }
    return body | {name: value for name, value in fields.items() if value}
