"""The sockets and folders of the control plane: what is ours is made and taken away again."""

from __future__ import annotations

import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from vllamad.config.settings import ApiKey, Paths, ServerSettings, Settings
from vllamad.errors import ConfigError, HostProblem
from vllamad.supervisor.folders import prepare_folders
from vllamad.supervisor.public_sockets import close_own, open_sockets


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = Paths(
        state=tmp_path / "state",
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        run=tmp_path / "run",
        control=tmp_path / "control",
    )
    return Settings(paths=paths, server=ServerSettings(listen=("127.0.0.1:0", "127.0.0.2:0")))


def systemd(path: Path) -> socket.socket:
    """A listening socket as systemd hands it over."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_our_own_sockets_are_closed_and_unlinked(settings: Settings) -> None:
    with open_sockets(settings, {}) as (control, http):
        assert stat.S_ISSOCK(settings.paths.control.stat().st_mode)
        assert [sock.getsockname()[0] for sock in http] == ["127.0.0.1", "127.0.0.2"]
        close_own(http, {})
        assert [sock.fileno() for sock in http] == [-1, -1], "new connections are refused at once"
        assert control.fileno() >= 0, "orders are still taken"
    assert not settings.paths.control.exists()
    assert control.fileno() == -1


def test_systemds_sockets_are_used_and_their_files_stay(settings: Settings, tmp_path: Path) -> None:
    inherited = {"ctl": [systemd(tmp_path / "c")], "http": [systemd(tmp_path / "h")]}
    with open_sockets(settings, inherited) as (control, http):
        assert [control] == inherited["ctl"]
        assert http == inherited["http"]
        close_own(http, inherited)
        assert http[0].fileno() >= 0, "it keeps who calls for the next of us"
    assert (tmp_path / "c").exists()
    assert not settings.paths.control.exists()


@pytest.mark.parametrize(
    ("allowed", "keys", "good"),
    [(False, (), False), (True, (), True), (False, (ApiKey(digest="d", scope="infer"),), True)],
)
def test_a_public_socket_of_systemds_needs_what_one_of_ours_would(
    settings: Settings, allowed: bool, keys: tuple[ApiKey, ...], good: bool
) -> None:
    server = replace(settings.server, allow_unauthenticated=allowed)
    wanted = replace(settings, server=server, api_keys=keys)
    with socket.create_server(("0.0.0.0", 0)) as public:
        if good:
            with open_sockets(wanted, {"http": [public]}) as (_, http):
                assert http == [public]
            return
        told = r"a socket passed by systemd: cannot listen on 0\.0\.0\.0:\d+: the API asks"
        with pytest.raises(ConfigError, match=told), open_sockets(wanted, {"http": [public]}):
            pass
    assert not settings.paths.control.exists()


def test_an_address_that_cannot_be_had_leaves_no_control_socket(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        wanted = Settings(paths=settings.paths, server=ServerSettings(listen=(taken,)))
        with pytest.raises(HostProblem, match="cannot listen on"), open_sockets(wanted, {}):
            pass
    assert not settings.paths.control.exists()


def test_folders_are_ours_alone_and_what_was_left_in_them_is_gone(settings: Settings) -> None:
    left = settings.paths.run / "w" / "0123" / "s"
    left.parent.mkdir(parents=True)
    left.write_text("")
    prepare_folders(settings)
    assert not left.parent.exists()
    assert stat.S_IMODE((settings.paths.run / "w").stat().st_mode) == 0o700
    assert stat.S_IMODE(settings.paths.state.stat().st_mode) & 0o007 == 0
    prepare_folders(settings)


def test_the_folder_of_a_worker_that_is_kept_is_left_alone(settings: Settings) -> None:
    for name in ("kept", "gone"):
        (settings.paths.run / "w" / name).mkdir(parents=True)
    prepare_folders(settings, {"kept"})
    assert [path.name for path in (settings.paths.run / "w").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_named_with_advice(settings: Settings) -> None:
    settings.paths.cache.write_text("in the way")
    with pytest.raises(HostProblem, match=r"cannot make \S+/cache: File exists") as caught:
        prepare_folders(settings)
    assert "VLLAMAD_HOME" in caught.value.hint
