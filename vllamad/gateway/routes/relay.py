"""Relayed requests: those in the engine's own format, fitted to the model and its worker."""

from __future__ import annotations

from collections.abc import Callable

from quart import Response, g

from vllamad.errors import BadInput, NotSupported
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference.model_lookup import find
from vllamad.gateway.inference.session import inference, log_left_out, recorded
from vllamad.gateway.routes.bodies import SSE, read
from vllamad.gateway.server.quart_glue import hold_until_response_sent
from vllamad.translate.content.fill_in_middle import apply_fim
from vllamad.translate.engine.fit_to_worker import check_media, check_tools
from vllamad.translate.engine.repetition import has_limit
from vllamad.translate.engine.request_fields import LEFT_OUT
from vllamad.translate.go.json_decoder import is_object, quoted
from vllamad.translate.ollama.to_engine import EngineCall, ModelTraits
from vllamad.translate.openai.passthrough import OpenAIPassthrough


async def relayed(
    context: Context,
    path: str,
    decode: Callable[[bytes], tuple[str, dict[str, object] | BadInput]],
    *,
    needs: tuple[str, str],
    answer: type[OpenAIPassthrough] = OpenAIPassthrough,
) -> Response:
    """Relay the engine's own response, in pieces or at once.

    `needs` is the capability it takes, and its name in a refusal; `answer` knows the API.
    """
    record: Record = g.record
    name, body = await read(decode)
    installed = await find(context, name, missing=BadInput("model is required"))
    record.model = installed.name
    if isinstance(body, BadInput):
        raise body
    request = body
    log_left_out(context, installed.name, path, request.pop(LEFT_OUT, None))

    def check(traits: ModelTraits) -> None:
        capability, wanted = needs
        if capability not in traits.capabilities:
            raise NotSupported(f"{quoted(name)} does not support {wanted}")
        check_tools(request, traits)
        check_media(request, traits)
        apply_fim(request, traits.fim, traits.full_name)

    session = await hold_until_response_sent(inference(context, installed, check))
    traits = session.traits
    body, form = session.fit(path, apply_fim(request, traits.fim, traits.full_name))
    stream = body.get("stream") is True
    usage = stream and _include_usage(body)
    output = answer(
        stream=stream, served_name=session.served_name, requested_name=name, usage=usage, form=form
    )
    await hold_until_response_sent(recorded(output))
    call = EngineCall(path=path, body=body)
    call = session.stop_repetition(call, limited=has_limit(body, session.context_length))
    return await session.respond(call, output, streamed=SSE if stream else None)


def _include_usage(body: dict[str, object]) -> bool:
    """Have the engine count tokens in any case; whether the client asks for the count."""
    options = body.get("stream_options")
    options = options if is_object(options) else {}
    body["stream_options"] = options | {"include_usage": True}
    return options.get("include_usage") is True
