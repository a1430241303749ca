"""What is in force, written down."""

from __future__ import annotations

import json

from vllamad.config.show import settings_as_json, settings_as_toml

TEXT = """
[server]
listen = ["127.0.0.1:1", "[::1]:1"]
max_body = "10MiB"
[scheduler]
keep_alive = "forever"
load_timeout = "1h30m"
preload = ["smollm2:135m"]
[engine]
args = { enforce-eager = true, seed = 3, ratio = 0.5, api-key = "hush" }
env = { HF_TOKEN = "hush", OMP_NUM_THREADS = "2" }
[model."qwen2.5:0.5b"]
keep_alive = -1
gpu_memory_utilization = 0.5
[model.b]
path = "/x"
"""


def test_the_configuration_as_written_is_the_same_when_read_again(place):
    place.write(TEXT.replace("api-key", "host").replace("HF_TOKEN", "A"))
    first = place.load()
    second = place.load(only=place.write(settings_as_toml(first), "again.toml"))
    assert settings_as_toml(second).replace("again.toml", "cwd/vllamad.toml") == settings_as_toml(
        first
    )
    assert second.models == first.models
    assert second.engine == first.engine
    assert second.scheduler == first.scheduler


def test_it_names_the_files_read(place):
    place.write("", "etc/config.toml")
    place.write("")
    lines = settings_as_toml(place.load()).splitlines()
    assert lines[1:3] == [f"#   {place.root}/etc/config.toml", f"#   {place.root}/cwd/vllamad.toml"]


def test_secrets_are_not_shown(place):
    place.write(TEXT)
    settings = place.load()
    assert settings.engine.env["HF_TOKEN"] == "hush"
    assert "hush" not in settings_as_toml(settings)
    assert "hush" not in json.dumps(settings_as_json(settings))


def test_scripts_get_plain_json_with_seconds_and_bytes(place):
    place.write(TEXT)
    shown = json.loads(json.dumps(settings_as_json(place.load()), allow_nan=False))
    assert shown["scheduler"]["keep_alive"] == -1
    assert shown["scheduler"]["load_timeout"] == 5400
    assert shown["server"]["max_body"] == 10 << 20
    assert shown["server"]["listen"] == ["127.0.0.1:1", "[::1]:1"]
    assert shown["engine"]["args"]["seed"] == 3
    assert shown["model"]["b:latest"]["path"] == "/x"
    assert shown["config_files"] == [f"{place.root}/cwd/vllamad.toml"]
