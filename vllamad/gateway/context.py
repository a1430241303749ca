"""What every route of one gateway shares, and the record of one request."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import cast

from quart import current_app

from vllamad.access.host_and_origin import Gate
from vllamad.gateway.inference.template_probes import TemplateProbes
from vllamad.gateway.inference.upstream import RelayLimits
from vllamad.gateway.supervisor_client import SupervisorClient
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.models.installed import InstalledModels
from vllamad.protocol.gateway_setup import GatewaySettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Made once, in `gateway/run.py`."""

    settings: GatewaySettings
    installed_models: InstalledModels
    gate: Gate
    limits: RelayLimits
    orders: SupervisorClient
    templates: TemplateProbes = field(default_factory=TemplateProbes)
    too_large: set[str] = field(default_factory=set[str])  # models whose num_ctx was remarked on
    left_out: set[tuple[str, str, str]] = field(  # model, route and kind that were logged
        default_factory=set[tuple[str, str, str]]
    )


@dataclass(slots=True, kw_only=True)
class Record:
    """One request as the log shows it: who, what, how long, how many; never what was said."""

    request_id: str
    method: str
    path: str
    route: str  # its path in the route table; empty where it has none
    received: int  # monotonic nanoseconds
    model: str = ""
    status: int = 0
    streams: bool = False  # written by the stream itself, at its end
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def write(self) -> None:
        """One line, when everything is over."""
        event(
            log,
            logging.INFO,
            "request",
            LogEvent.REQUEST_DONE,
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            route=self.route or None,
            model=self.model or None,
            status=self.status,
            ms=round((time.monotonic_ns() - self.received) / 1e6, 1),
            prompt_tokens=self.prompt_tokens or None,
            completion_tokens=self.completion_tokens or None,
            error=self.error or None,
        )


def context_of() -> Context:
    """The context of the application that serves this request."""
    return cast("Context", current_app.config["CONTEXT"])
