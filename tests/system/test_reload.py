"""`systemctl reload` returns when the new configuration counts, or fails and changes nothing."""

from __future__ import annotations

import pytest

from tests.system.service import Service

pytestmark = pytest.mark.system


@pytest.fixture
def loaded(service: Service) -> Service:
    """A running daemon with a model loaded."""
    service.start()
    assert service.chat().status == 200
    return service


def reload(service: Service, *, code: int = 0) -> str:
    return service.box.systemctl("reload", service.name, code=code)


def said_version(service: Service) -> str:
    return service.ask("GET", "/api/version").json()["version"]


@pytest.mark.assertion(7)
def test_new_values_count_when_the_reload_returns(loaded: Service):
    before = (loaded.pid, loaded.workers()[0]["pid"])
    loaded.configure('[server]\nollama_version = "9.8.7"')
    reload(loaded)
    assert said_version(loaded) == "9.8.7"
    # Neither the daemon nor a model for which nothing changes is touched.
    assert (loaded.pid, loaded.workers()[0]["pid"]) == before
    assert loaded.show("ReloadResult") == "success"


@pytest.mark.assertion(7)
def test_a_faulty_file_is_refused_and_the_old_one_stays_live(loaded: Service):
    before = (loaded.pid, loaded.workers()[0]["pid"], said_version(loaded))
    loaded.configure("[server]\nollama_version = 9")
    reload(loaded, code=1)
    assert loaded.show("ReloadResult") == "exit-code"
    assert loaded.show("ActiveState") == "active"
    assert (loaded.pid, loaded.workers()[0]["pid"], said_version(loaded)) == before
    assert loaded.chat().status == 200
    assert "server.ollama_version" in loaded.journal()


@pytest.mark.assertion(7)
def test_a_signal_reloads_too(loaded: Service):
    loaded.configure('[server]\nollama_version = "9.8.7"')
    loaded.setting("Type=notify", "ExecReload=", "ExecReload=/bin/kill -HUP $MAINPID")
    reload(loaded)
    assert loaded.box.run("vllamactl", "reload", "--wait")  # waits for the one before as well
    assert said_version(loaded) == "9.8.7"
