"""How the tests of the API ask: a body as it is, whatever its header says of it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.daemon import Daemon

JSON = "application/json; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
HI = [{"role": "user", "content": "hi"}]


def post(one: Daemon, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Post JSON, or bytes as they are; the status and the decoded answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = one.http.post(path, content=content, headers={"content-type": FORM, **headers})
    return answer.status_code, answer.json()


def refusal(text: str) -> dict[str, str]:
    return {"error": text}
