"""Which source wins, and how every fault names its place."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path

import pytest

from vllamad.config.load import load_settings
from vllamad.config.settings import Settings
from vllamad.errors import ConfigError


def test_with_nothing_said_the_defaults_hold(place):
    settings = place.load()
    assert settings == Settings(paths=settings.paths)
    assert settings.paths.config_files == ()


ORDER = ("etc/config.toml", "etc/conf.d/10-a.toml", "etc/conf.d/20-b.toml",
         "home/.config/vllamad/config.toml", "cwd/vllamad.toml")  # fmt: skip


@pytest.mark.parametrize("last", range(1, len(ORDER)))
def test_a_later_file_wins_over_an_earlier_one(place, last):
    for number, name in enumerate(ORDER[: last + 1]):
        place.write(f"[scheduler]\nmax_queue = {number + 1}\n", name)
    settings = place.load()
    assert settings.scheduler.max_queue == last + 1
    assert settings.paths.config_files == tuple(place.root / name for name in ORDER[: last + 1])


def test_the_environment_wins_over_files_and_the_command_line_over_both(place):
    place.write("[scheduler]\nmax_queue = 1\nmax_running = 1\npreload = ['a']\n")
    settings = place.load(
        {"scheduler.max_queue": "3"},
        {"VLLAMAD_SCHEDULER_MAX_QUEUE": "2", "VLLAMAD_SCHEDULER_MAX_RUNNING": "2"},
    )
    assert settings.scheduler.max_queue == 3
    assert settings.scheduler.max_running == 2
    assert settings.scheduler.preload == ("a:latest",)


def test_a_value_equal_to_the_default_still_overrides(place):
    place.write("[server]\nlisten = ['127.0.0.1:1']\n[scheduler]\nmax_queue = 7\n")
    settings = place.load(
        {"server.listen": "127.0.0.1:11434"}, {"VLLAMAD_SCHEDULER_MAX_QUEUE": "512"}
    )
    assert settings == Settings(paths=settings.paths)


def test_models_and_free_tables_merge_key_by_key(place):
    place.write(
        "[engine.args]\nswap-space = 4\nenforce-eager = true\n"
        '[model."smollm2:135m"]\nkeep_alive = "1h"\nargs = { a = 1 }\n',
        "etc/config.toml",
    )
    place.write(
        "[engine]\nargs.swap-space = 8\n"
        '[model."smollm2:135m"]\ncontext_length = 512\nargs = { b = "x" }\n'
    )
    settings = place.load({"engine.args.seed": "1", 'model."smollm2:135m".keep_alive': "-1"})
    assert settings.engine.args == {"swap-space": 8, "enforce-eager": True, "seed": 1}
    model = settings.models["smollm2:135m"]
    assert (model.keep_alive, model.context_length) == (inf, 512)
    assert model.args == {"a": 1, "b": "x"}


def test_two_spellings_of_a_model_are_one(place):
    place.write("[model.tiny]\npath = '/a'\n[model.'library/tiny:latest']\ncontext_length = 5\n")
    assert list(place.load().models) == ["tiny:latest"]
    assert place.load().models["tiny:latest"].path == "/a"


def test_a_file_asked_for_is_read_in_place_of_those_found(place):
    place.write("[scheduler]\nmax_queue = 1\nmax_running = 1\n")
    settings = place.load(only=place.write("[scheduler]\nmax_queue = 9\n", "mine.toml"))
    assert (settings.scheduler.max_queue, settings.scheduler.max_running) == (9, 256)
    assert settings.paths.config_files == (place.root / "mine.toml",)


def test_xdg_config_home_moves_the_users_file(place):
    other = place.root / "other/vllamad"
    other.mkdir(parents=True)
    place.write("[scheduler]\nmax_queue = 9\n", "other/vllamad/config.toml")
    settings = place.load(environ={"XDG_CONFIG_HOME": str(place.root / "other")})
    assert settings.scheduler.max_queue == 9


# Paths


def test_each_path_can_be_set_and_the_control_socket_goes_with_the_run_directory(place):
    place.write("[paths]\nstate = '~/models'\nrun = '/tmp/r'\n")
    paths = place.load(environ={"VLLAMAD_PATHS_CACHE": "/c"}).paths
    assert paths.state == place.home / "models"
    assert (paths.cache, paths.run) == (Path("/c"), Path("/tmp/r"))
    assert paths.control == Path("/tmp/r/control.sock")


def test_a_run_directory_too_long_for_sockets_is_a_fault(place):
    place.write(f"[paths]\nrun = '/{'r' * 51}'\n")
    (fault,) = place.faults()
    assert fault.startswith("cwd/vllamad.toml:2: paths.run: /rrr")
    assert "at most 51" in fault


def test_so_is_a_default_one(place):
    (fault,) = place.faults(environ={"VLLAMAD_HOME": "/" + "h" * 60})
    assert fault.startswith("default: paths.run: /hhh")


# Ollama's variables


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("OLLAMA_HOST", "127.0.0.1:99", "server", "listen", ("127.0.0.1:99",)),
        ("OLLAMA_HOST", ' "localhost" ', "server", "listen", ("localhost:11434",)),
        ("OLLAMA_HOST", "", "server", "listen", ("127.0.0.1:11434",)),
        ("OLLAMA_ORIGINS", "https://A.b, *", "server", "allowed_origins", ("https://a.b", "*")),
        ("OLLAMA_KEEP_ALIVE", "90", "scheduler", "keep_alive", 90.0),
        ("OLLAMA_KEEP_ALIVE", "-1", "scheduler", "keep_alive", inf),
        ("OLLAMA_KEEP_ALIVE", "1h", "scheduler", "keep_alive", 3600.0),
        ("OLLAMA_LOAD_TIMEOUT", "7m", "scheduler", "load_timeout", 420.0),
        ("OLLAMA_LOAD_TIMEOUT", "0", "scheduler", "load_timeout", inf),
        ("OLLAMA_LOAD_TIMEOUT", "-5m", "scheduler", "load_timeout", inf),
        ("OLLAMA_MAX_LOADED_MODELS", "3", "scheduler", "max_loaded_models", 3),
        ("OLLAMA_MAX_QUEUE", "16", "scheduler", "max_queue", 16),
        ("OLLAMA_NUM_PARALLEL", "4", "scheduler", "max_running", 4),
        ("OLLAMA_NUM_PARALLEL", "0", "scheduler", "max_running", 256),
        ("OLLAMA_CONTEXT_LENGTH", "8192", "engine", "context_length", 8192),
        ("OLLAMA_GPU_OVERHEAD", "1073741824", "scheduler", "gpu_overhead", 1 << 30),
        ("OLLAMA_MODELS", "/data/ollama/", "paths", "models", Path("/data/ollama/vllamad")),
        ("OLLAMA_DEBUG", "1", "logging", "level", "debug"),
        ("OLLAMA_DEBUG", "true", "logging", "level", "debug"),
        ("OLLAMA_DEBUG", "2", "logging", "level", "debug"),
        ("OLLAMA_DEBUG", "0", "logging", "level", "info"),
        ("OLLAMA_DEBUG", "false", "logging", "level", "info"),
        ("OLLAMA_DEBUG", "-1", "logging", "level", "warning"),
        ("OLLAMA_DEBUG", "-2", "logging", "level", "error"),
    ],
)  # fmt: skip
def test_an_ollama_variable_sets_ours(place, variable, text, section, key, value):
    settings = place.load(environ={variable: text})
    assert getattr(getattr(settings, section), key) == value


def test_an_ollama_variable_that_cannot_be_read_is_a_fault(place):
    assert place.faults(environ={"OLLAMA_LOAD_TIMEOUT": "soon", "OLLAMA_MAX_QUEUE": "-1"}) == [
        'environment: OLLAMA_LOAD_TIMEOUT: must be a duration above zero such as 30, "90s" or '
        '"1h30m", or "forever", not "soon"',
        "environment: OLLAMA_MAX_QUEUE: must be a whole number of at least 1, not -1",
    ]


def test_our_variable_wins_over_ollamas(place):
    environ = {"VLLAMAD_SERVER_LISTEN": "127.0.0.1:1,[::1]:1", "OLLAMA_HOST": "127.0.0.1:2"}
    assert place.load(environ=environ).server.listen == ("127.0.0.1:1", "[::1]:1")


def test_an_ollama_variable_wins_over_a_file(place):
    place.write("[server]\nlisten = ['127.0.0.1:1']\n")
    assert place.load(environ={"OLLAMA_HOST": ":0"} | OPEN).server.listen == ("0.0.0.0:0",)


OPEN = {"VLLAMAD_SERVER_ALLOW_UNAUTHENTICATED": "true"}


# Faults


def test_all_faults_of_all_sources_come_at_once(place):
    place.write("[server]\nlistn = ['a']\n", "etc/config.toml")
    place.write("[sheduler]\nx = 1\n[scheduler]\nmax_queue = 'many'\n")
    faults = place.faults(
        {"server.gateways": "0", "no key": "1"}, {"VLLAMAD_WORKER_PROBE_MISSES": "x"}
    )
    assert faults == [
        'etc/config.toml:2: server.listn: unknown key, did you mean "listen"?',
        'cwd/vllamad.toml:1: sheduler: unknown section or key, did you mean "scheduler"?',
        'cwd/vllamad.toml:4: scheduler.max_queue: must be a whole number of at least 1, not "many"',
        'environment: VLLAMAD_WORKER_PROBE_MISSES: must be a whole number of at least 1, not "x"',
        "command line: --server.gateways: must be a whole number from 1 to 64, not 0",
        "command line: --no key: not a dotted key",
    ]


ADDRESSES = 'must be a list of addresses such as "127.0.0.1:11434", at least 1, not'
ADDRESS = 'must be an address such as "127.0.0.1:11434" or "[::1]:11434", not'
DURATION = 'must be a duration such as 30, "90s" or "1h30m", or "forever", not'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("server = 1", "1: server: must be a table"),
        ("[[server]]\ngateways = 1", "1: server: must be a table"),
        ("keep_alive = 1", "1: keep_alive: unknown section or key, it belongs in [scheduler]"),
        ("[worker]\nkeep = 1", "2: worker.keep: unknown key, it belongs in [logging]"),
        ("[server]\nlisten = []", f"2: server.listen: {ADDRESSES} a list"),
        ("[server]\nlisten = '127.0.0.1:1'", f'2: server.listen: {ADDRESSES} "127.0.0.1:1"'),
        (
            "[server]\nlisten = [\n '127.0.0.1:99999']",
            f'2: server.listen: {ADDRESS} "127.0.0.1:99999": '
            "port '99999' is not a number from 0 to 65535",
        ),
        ("[server]\nlisten.x = 1", f"2: server.listen: {ADDRESSES} a table"),
        (
            "[engine.args]\n--seed = 1",
            '2: engine.args.--seed: must be a flag\'s name without its dashes, not "--seed"',
        ),
        (
            "[engine.args]\na.b = 1",
            "2: engine.args.a: must be a text, true or false, or a number, not a table",
        ),
        ("[engine]\nenv = { A = 1 }", "2: engine.env.A: must be a text, not 1"),
        (
            "[model.'a b']\npath = '/x'",
            '1: model."a b": must be a model name such as "qwen2.5:7b", not "a b"',
        ),
        ("[model.a]\nkeep_alive = '5 min'", f'2: model.a.keep_alive: {DURATION} "5 min"'),
        ("[model]\na = 1", "2: model.a: must be a table"),
        (
            "[logging]\nlevel = 'loud'",
            '2: logging.level: must be "debug" or "info" or "warning" or "error", not "loud"',
        ),
        (
            "[paths]\nstate = 'here'",
            '2: paths.state: must be an absolute path, or one that starts with "~/", not "here"',
        ),
        ("[paths]\nconfig_files = []", "2: paths.config_files: unknown key"),
        (
            "[server]\ngateways = 2026-01-01",
            '2: server.gateways: must be a whole number from 1 to 64, not "2026-01-01"',
        ),
        (
            "[worker]\nbackoff_base = 90",
            "default: worker.backoff_limit: must be at least worker.backoff_base, "
            "60 s is less than 90 s",
        ),
    ],
)
def test_a_fault_names_line_key_and_problem(place, text, fault):
    place.write(text)
    (found,) = place.faults()
    assert found.removeprefix("cwd/vllamad.toml:") == fault


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\ngateways = \n", 2),
        ("[server]\n[server]\n", 2),
        ("[a]\nx = 1\n[a.x]\ny = 1\n", 3),
        ("[server]\ngateways = 1\ngateways = 2\n", 3),
        ("\n\nx = 'open", 3),
        ("x = " + "[" * 5000, 1),
        ("x = 2026-13-41", 1),
    ],
)
def test_what_is_not_toml_is_one_fault_with_its_line(place, text, line):
    place.write(text)
    (fault,) = place.faults()
    assert fault.startswith(f"cwd/vllamad.toml:{line}: not valid TOML: ")
    assert "\n" not in fault


def test_bytes_that_are_no_text_are_a_fault_with_their_line(place):
    (place.cwd / "vllamad.toml").write_bytes(b"[server]\n\n# \xff\n")
    assert place.faults() == ["cwd/vllamad.toml:3: not UTF-8: byte 0xff"]


def test_a_huge_file_is_refused_unread(place):
    with (place.cwd / "vllamad.toml").open("wb") as file:
        file.truncate(1 << 40)
    assert place.faults() == ["cwd/vllamad.toml: cannot read: larger than 1 MiB"]


def test_an_endless_device_is_refused_too(place):
    assert place.faults(only=Path("/dev/zero")) == ["/dev/zero: cannot read: larger than 1 MiB"]


def test_a_file_asked_for_must_be_there(place):
    faults = place.faults(only=place.root / "none.toml")
    assert faults == ["none.toml: cannot read: no such file"]


def test_a_directory_in_a_files_place_is_a_fault(place):
    (place.cwd / "vllamad.toml").mkdir()
    assert place.faults() == ["cwd/vllamad.toml: cannot read: is a directory"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_a_fault(place):
    place.write("[server]\n").chmod(0)
    assert place.faults() == ["cwd/vllamad.toml: cannot read: permission denied"]


def test_a_misspelled_variable_gets_a_suggestion(place):
    assert place.faults(environ={"VLLAMAD_SERVER_LISTN": "x"}) == [
        'environment: VLLAMAD_SERVER_LISTN: unknown variable, did you mean "VLLAMAD_SERVER_LISTEN"?'
    ]


def test_an_empty_variable_is_not_set(place):
    assert (
        place.load(environ={"VLLAMAD_SERVER_GATEWAYS": "", "OLLAMA_MAX_QUEUE": " "}) == place.load()
    )


@pytest.mark.parametrize(
    ("text", "environ", "where"),
    [
        (
            "[server]\nlisten = ['127.0.0.1:1', '0.0.0.0:1']",
            {},
            "cwd/vllamad.toml:2: server.listen",
        ),
        ("", {"OLLAMA_HOST": "0.0.0.0"}, "environment: OLLAMA_HOST"),
        ("", {"VLLAMAD_SERVER_LISTEN": ":1"}, "environment: VLLAMAD_SERVER_LISTEN"),
        ("", {"OLLAMA_HOST": "example.com"}, "environment: OLLAMA_HOST"),
    ],
)
def test_listening_beyond_this_machine_must_be_allowed_in_so_many_words(
    place, text, environ, where
):
    place.write(text)
    (fault,) = place.faults(environ=environ)
    assert fault.startswith(f"{where}: cannot listen on ")
    assert "server.allow_unauthenticated = true" in fault
    assert place.load(environ=environ | OPEN).server.allow_unauthenticated


def test_the_error_is_one_line_per_fault(place):
    place.write("a = 1\nb = 2\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {}, cwd=place.cwd, home=place.home, euid=1000, etc=place.etc)
    assert str(caught.value).count("\n") == 1
    assert len(caught.value.problems) == 2


def test_catalogues_of_models_are_found_where_the_configuration_is(place):
    (place.etc / "catalog.d").mkdir()
    for name in ("20.toml", "10.toml", "notes.txt"):
        place.write("", f"etc/catalog.d/{name}")
    names = ("etc/catalog.toml", "etc/catalog.d/10.toml", "etc/catalog.d/20.toml",
             "home/.config/vllamad/catalog.toml")  # fmt: skip
    assert place.load().paths.registry_files == tuple(place.root / name for name in names)


@pytest.mark.case("F8")
@pytest.mark.parametrize(
    ("variable", "text", "why"),
    [
        ("OLLAMA_MODELS", "models", 'must be an absolute path, or one that starts with "~/"'),
        ("OLLAMA_DEBUG", "loud", 'must be true, false or a number from -2 to 2, not "loud"'),
        ("OLLAMA_KV_CACHE_TYPE", "q7", 'must be "f16" or "q8_0" or "q4_0", not "q7"'),
        ("OLLAMA_NUM_PARALLEL", "x", 'must be a whole number of at least 1, not "x"'),
        ("OLLAMA_CONTEXT_LENGTH", "-1", "must be a whole number"),
        ("OLLAMA_GPU_OVERHEAD", "some", "must be a size"),
    ],
)
def test_a_wrong_value_of_an_ollama_variable_names_the_variable(place, variable, text, why):
    (fault,) = place.faults(environ={variable: text})
    assert fault.startswith(f"environment: {variable}: {why}")


def remarks(place, environ, **more):
    return [str(remark) for remark in place.load(environ=environ, **more).remarks]


@pytest.mark.case("F8")
def test_a_variable_without_effect_is_named_with_the_reason(place):
    assert remarks(
        place,
        {
            "OLLAMA_FLASH_ATTENTION": "1",
            "OLLAMA_KV_CACHE_TYPE": "q8_0",
            "OLLAMA_MODLES": "/x",
            "OLLAMA_SCHED_SPREAD": "true",
            "VLLAMAD_SERVR_LISTEN": "127.0.0.1:1",
        },
    ) == [
        "OLLAMA_FLASH_ATTENTION has no effect: vLLM chooses the attention that suits the model and"
        " the machine",
        "OLLAMA_KV_CACHE_TYPE has no effect: the cache is not quantised; `kv-cache-dtype` in"
        " engine.args is vLLM's for q8_0",
        'OLLAMA_MODLES has no effect: unknown variable, did you mean "OLLAMA_MODELS"?',
        "OLLAMA_SCHED_SPREAD has no effect: `tensor_parallel_size` of a model spreads it over GPUs",
        "VLLAMAD_SERVR_LISTEN has no effect: unknown variable, did you mean"
        ' "VLLAMAD_SERVER_LISTEN"?',
    ]


@pytest.mark.case("F8")
def test_a_variable_that_asks_for_what_holds_needs_no_remark(place):
    environ = {
        "OLLAMA_KV_CACHE_TYPE": "f16",
        "OLLAMA_SCHED_SPREAD": "0",
        "OLLAMA_DEBUG": "0",
        "OLLAMA_FLASH_ATTENTION": "",
        "OLLAMA_NOHISTORY": "1",
        "OLLAMA_API_KEY": "x",
        "VLLAMAD_HOME": "/x",
        "VLLAMAD_CONTROL": "/x/c",
    }
    assert remarks(place, environ) == []


SERVICE = {
    "{}_PORT": "tcp://10.0.0.1:11434",
    "{}_PORT_11434_TCP": "tcp://10.0.0.1:11434",
    "{}_PORT_11434_TCP_PROTO": "tcp",
    "{}_PORT_11434_TCP_PORT": "11434",
    "{}_PORT_11434_TCP_ADDR": "10.0.0.1",
    "{}_SERVICE_HOST": "10.0.0.1",
    "{}_SERVICE_PORT": "11434",
    "{}_SERVICE_PORT_HTTP": "11434",
    "{}_NAME": "/web/vllamad",
}


@pytest.mark.case("F7")
@pytest.mark.parametrize("service", ["VLLAMAD", "VLLAMAD_SERVER", "VLLAMAD_HUB", "OLLAMA"])
def test_an_orchestrator_s_variables_of_a_service_of_our_name_are_no_faults(place, service):
    environ = {name.format(service): value for name, value in SERVICE.items()}
    found = place.load(environ=environ)
    assert {remark.name for remark in found.remarks} == set(environ)
    assert all(remark.expected for remark in found.remarks), "told at debug only"
    assert found == place.load()


@pytest.mark.case("F7")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLAMAD_SERVER_PORT", "8080"),
        ("VLLAMAD_SERVER_SERVICE_HOST", "nonsense!"),
        ("VLLAMAD_SERVER_LISTN", "tcp://10.0.0.1:1"),
    ],
)
def test_a_typo_that_looks_like_it_is_still_a_fault(place, name, value):
    (fault,) = place.faults(environ={name: value})
    assert fault.startswith(f"environment: {name}: unknown variable")


@pytest.mark.case("F9")
def test_an_address_is_not_judged_where_systemd_holds_the_sockets(place):
    environ = {"OLLAMA_HOST": "0.0.0.0:8200"}
    assert len(place.faults(environ=environ)) == 1
    assert remarks(place, environ, listening=True) == [
        "environment: OLLAMA_HOST has no effect: systemd holds the sockets"
    ]
    assert remarks(place, {}, listening=True) == []


def test_the_models_move_with_the_state_unless_they_have_a_place_of_their_own(place):
    assert place.load({"paths.state": "/s"}).paths.models == Path("/s/models")
    assert place.load({"paths.models": "/m", "paths.state": "/s"}).paths.models == Path("/m")
