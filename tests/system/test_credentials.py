"""API keys and the hub's token: handed over by systemd, seen by nobody else."""

from __future__ import annotations

import pytest

from tests.system.service import Service

pytestmark = pytest.mark.system

KEY = "sk-a-key-for-the-tests-0123456789abcdef"
TOKEN = "hf_a_token_for_the_tests"


def give(service: Service, name: str, secret: str, *, encrypted: bool = False) -> None:
    """Put a credential where systemd looks for it by itself."""
    if encrypted:
        service.setting(f"LoadCredentialEncrypted={name}")
        folder = "/run/credstore.encrypted"
        service.box.run("mkdir", "-p", folder)
        # fmt: off
        service.box.run("systemd-creds", "encrypt", "--with-key=host", f"--name={name}",
                        "-", f"{folder}/{name}", stdin=secret)
        # fmt: on
    else:
        service.write(f"/run/credstore/{name}", secret)


@pytest.fixture
def with_store(service: Service):
    yield service
    service.box.run("rm", "-rf", "/run/credstore", "/run/credstore.encrypted")


@pytest.mark.assertion(12)
def test_without_credentials_it_starts(with_store: Service):
    with_store.start()
    assert with_store.chat().status == 200


@pytest.mark.assertion(12)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_keys_are_a_credential(with_store: Service, encrypted: bool):
    give(with_store, "api_keys", KEY, encrypted=encrypted)
    with_store.start()
    assert with_store.chat().status == 401
    assert with_store.chat(key=KEY).status == 200


@pytest.mark.assertion(12)
def test_a_secret_is_nowhere_but_with_the_daemon(with_store: Service):
    give(with_store, "hf_token", TOKEN)
    give(with_store, "api_keys", KEY)
    with_store.start()
    with_store.ctl("model", "load", "a")
    assert with_store.chat(key=KEY).status == 200
    box = with_store.box
    assert not any(secret in with_store.journal() for secret in (KEY, TOKEN))
    assert not any(secret in box.run("ps", "-e", "-o", "args=") for secret in (KEY, TOKEN))
    worker = box.run("pgrep", "-u", "vllamad", "-f", "launch_vllm").split()
    environments = [box.path(f"/proc/{pid}/environ").read_text() for pid in worker]
    assert environments
    assert not any(s in text for s in (KEY, TOKEN) for text in environments)
