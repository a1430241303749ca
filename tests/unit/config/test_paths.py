"""Where the directories lie, in each of the four ways to run."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from vllamad.config.paths import (
    RUN_LIMIT,
    control_candidates,
    default_paths,
    home_of,
    path_problem,
)

HOME = Path("/home/ann")


def test_systemds_directories_win_and_the_first_of_several_counts():
    environ = {
        "STATE_DIRECTORY": "/var/lib/vllamad:/var/lib/other",
        "CACHE_DIRECTORY": "/var/cache/vllamad",
        "LOGS_DIRECTORY": "/var/log/vllamad",
        "RUNTIME_DIRECTORY": "/run/vllamad",
        "VLLAMAD_HOME": "/elsewhere",
    }
    paths = default_paths(environ, 998, HOME)
    assert paths.state == Path("/var/lib/vllamad")
    assert paths.cache == Path("/var/cache/vllamad")
    assert paths.logs == Path("/var/log/vllamad")
    assert paths.run == Path("/run/vllamad")


def test_a_system_service_has_its_control_socket_beside_the_runtime_directory():
    paths = default_paths({"RUNTIME_DIRECTORY": "/run/vllamad"}, 998, HOME)
    assert paths.control == Path("/run/vllamad-control.sock")


def test_a_users_service_keeps_its_control_socket_to_itself():
    environ = {"RUNTIME_DIRECTORY": "/run/user/1000/vllamad", "XDG_RUNTIME_DIR": "/run/user/1000"}
    paths = default_paths(environ, 1000, HOME)
    assert paths.control == Path("/run/user/1000/vllamad/control.sock")


def test_one_tree_holds_everything():
    paths = default_paths({"VLLAMAD_HOME": "/srv/v", "XDG_RUNTIME_DIR": "/run/user/0"}, 0, HOME)
    found = (paths.state, paths.cache, paths.logs, paths.run, paths.control)
    tree = Path("/srv/v")
    assert found == tuple(
        tree / name for name in ("state", "cache", "logs", "run", "run/control.sock")
    )


def test_root_has_the_systems_directories():
    paths = default_paths({}, 0, Path("/root"))
    assert (paths.state, paths.run) == (Path("/var/lib/vllamad"), Path("/run/vllamad"))
    assert paths.control == Path("/run/vllamad-control.sock")


def test_anyone_else_has_the_xdg_directories():
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000", "XDG_CACHE_HOME": "relative/is/ignored"}
    paths = default_paths(environ, 1000, HOME)
    assert paths.state == Path("/home/ann/.local/state/vllamad")
    assert paths.logs == Path("/home/ann/.local/state/vllamad/logs")
    assert paths.cache == Path("/home/ann/.cache/vllamad")
    assert paths.control == Path("/run/user/1000/vllamad/control.sock")


def test_without_a_runtime_directory_sockets_go_to_a_folder_of_ones_own_in_tmp():
    assert default_paths({}, 1000, HOME).run == Path("/tmp/vllamad-1000")


def test_the_longest_worker_socket_fits_into_a_unix_address():
    worker = f"{'r' * RUN_LIMIT}/w/{'i' * 12}/rpc"
    assert len(worker) == 70
    assert len(f"{worker}/12345678-1234-1234-1234-123456789abc") == 107


def test_a_path_too_long_for_a_socket_is_a_problem_that_names_the_limit():
    assert path_problem("run", Path("/" + "r" * (RUN_LIMIT - 1))) is None
    assert f"at most {RUN_LIMIT}" in (path_problem("run", Path("/" + "r" * RUN_LIMIT)) or "")
    assert path_problem("control", Path("/" + "c" * 106)) is None
    assert "at most 107" in (path_problem("control", Path("/" + "é" * 60)) or "")


def test_a_client_looks_for_its_own_daemon_first_then_for_the_systems():
    assert control_candidates({"XDG_RUNTIME_DIR": "/run/user/1"}, 1, HOME) == (
        Path("/run/user/1/vllamad/control.sock"),
        Path("/run/vllamad-control.sock"),
        Path("/run/vllamad/control.sock"),
    )


@pytest.mark.case("F7")
def test_a_user_without_passwd_entry_and_without_home_lives_at_the_root():
    assert home_of({}, 54321) == Path("/")
    assert home_of({"HOME": "relative"}, 54321) == Path("/")
    assert home_of({"HOME": "/h"}, 54321) == Path("/h")
    assert home_of({}, 0) == Path(pwd.getpwuid(0).pw_dir)
