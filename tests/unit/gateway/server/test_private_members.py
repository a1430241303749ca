"""The members of Quart, Quart-Trio, Hypercorn and h11 that the gateway overrides or reads.

None of them is documented: a new version of any of these may lack one. Each is named here, so that
an upgrade fails in this test and not at a client.
"""

from __future__ import annotations

from importlib.metadata import version

import h11
import pytest
from hypercorn.protocol import h11 as hypercorn_h11
from hypercorn.trio import lifespan, task_group, worker_context
from quart import Request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody

PINNED = {"quart": "0.22", "quart-trio": "0.12", "hypercorn": "0.18", "h11": "0.16"}

MEMBERS = [
    (QuartTrio, "asgi_http_class"),
    (TrioASGIHTTPConnection, "_create_request_from_scope"),
    (TrioASGIHTTPConnection, "_send_response"),
    (TrioASGIHTTPConnection, "handle_messages"),
    (TrioASGIHTTPConnection, "handle_request"),
    (TrioBody, "clear"),
    (Request, "max_content_length"),
    (hypercorn_h11, "STREAM_ID"),
    (hypercorn_h11.H11Protocol, "_create_stream"),
    (hypercorn_h11.H11Protocol, "_close_stream"),
    (hypercorn_h11.H11Protocol, "_maybe_recycle"),
    (hypercorn_h11.H11Protocol, "_send_h11_event"),
    (hypercorn_h11.H11Protocol, "_send_error_response"),
    (lifespan.Lifespan, "handle_lifespan"),
    (lifespan.Lifespan, "wait_for_startup"),
    (lifespan.Lifespan, "wait_for_shutdown"),
    (task_group, "TaskGroup"),
    (worker_context, "WorkerContext"),
    (h11.Connection, "they_are_waiting_for_100_continue"),
    (h11.Connection, "trailing_data"),
]


@pytest.mark.parametrize(("package", "pinned"), PINNED.items())
def test_the_members_were_read_in_the_version_that_is_installed(package: str, pinned: str) -> None:
    assert version(package).startswith(f"{pinned}.")


@pytest.mark.parametrize(("holder", "member"), MEMBERS)
def test_a_member_that_the_gateway_relies_on_is_there(holder: object, member: str) -> None:
    assert hasattr(holder, member)


def test_a_body_keeps_its_unread_data_where_the_pacing_looks() -> None:
    assert hasattr(TrioBody(None, None), "_data")
