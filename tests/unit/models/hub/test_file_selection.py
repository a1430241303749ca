"""Which files are fetched: weights as safetensors and what is needed beside them."""

from __future__ import annotations

import pytest

from vllamad.errors import BadInput, HostProblem
from vllamad.models.hub.file_selection import RemoteFile, check_space, choose_files

SHA1, SHA256 = "a" * 40, "b" * 64


def remote(path: str, size: int = 1, digest: str = "", large: bool | None = None) -> RemoteFile:
    large = path.endswith((".safetensors", ".bin")) if large is None else large
    return RemoteFile(
        path=path, size=size, digest=digest or (SHA256 if large else SHA1), large=large
    )


def chosen(*paths: str) -> list[str]:
    return [file.path for file in choose_files("org/tiny", map(remote, paths))]


def test_the_model_and_what_it_needs_is_chosen_small_files_first():
    wanted = [
        "LICENSE.txt", "README.md", "chat_template.jinja", "config.json", "merges.txt",
        "tokenizer.json", "tokenizer.model", "model.safetensors",
    ]  # fmt: skip
    unwanted = [
        ".gitattributes", "modeling_x.py", "pytorch_model.bin", "original/params.json", "x.gguf",
        "model.pkl", "onnx/model.onnx", "figures/plot.png", "runs/events.out",
    ]  # fmt: skip
    assert chosen(*wanted, *unwanted) == wanted


def test_the_parts_of_sentence_transformers_are_chosen():
    paths = ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert chosen(*paths) == paths


def test_weights_are_fetched_once_where_they_are_there_twice():
    assert chosen("config.json", "consolidated.safetensors", "model.safetensors") == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "original/x.safetensors"])
def test_a_repository_without_safetensors_is_refused(weights):
    with pytest.raises(BadInput, match="cannot pull org/tiny: it has no safetensors weights"):
        chosen("config.json", weights)


@pytest.mark.parametrize("others", [["config.json"], ["model.Q8_0.GGUF", "README.md"]])
def test_a_repository_of_gguf_files_is_refused_as_such(others):
    with pytest.raises(BadInput, match="it holds GGUF files, which vllamad does not serve"):
        chosen("model-Q4_K_M.gguf", *others)


def test_a_repository_without_configuration_is_refused():
    with pytest.raises(BadInput, match=r"it has no config.json"):
        chosen("model.safetensors")


@pytest.mark.parametrize(
    "path", ["../../x.safetensors", "a/../../x.json", "..", "1_a/../../config.json"]
)
def test_a_hostile_path_is_never_chosen(path):
    assert path not in chosen("config.json", "model.safetensors", path)


@pytest.mark.parametrize("path", ["/abs.json", "a\\..\\b.json", "c:x.json", "a\0.json"])
def test_a_hostile_name_is_refused(path):
    with pytest.raises(BadInput, match="cannot use the file name"):
        chosen("config.json", "model.safetensors", path)


@pytest.mark.parametrize(
    "file",
    [
        remote("x.json", size=-1),
        remote("x.json", digest="../x"),
        remote("x.json", digest=SHA1.upper()),
        remote("x.json", digest=SHA1 + "\n"),
        remote("x.safetensors", digest=SHA1),
        remote("x.safetensors", digest="sha256:" + SHA256),
    ],
)
def test_a_file_without_a_true_size_and_digest_is_refused(file):
    with pytest.raises(BadInput, match="gives no size or digest"):
        choose_files("org/tiny", [remote("config.json"), remote("model.safetensors"), file])


def test_a_repository_with_too_many_files_is_refused():
    with pytest.raises(BadInput, match="over 10000 files"):
        chosen(*(f"{number}.json" for number in range(10_001)))


@pytest.mark.parametrize(
    ("needed", "free", "fits"), [(100, 1 << 31, True), (1 << 30, 1 << 31, False)]
)
def test_a_twentieth_and_a_gibibyte_are_kept_free(needed, free, fits):
    if fits:
        check_space("org/tiny", needed, free)
        return
    with pytest.raises(HostProblem, match="it needs 1024 MiB, the disk has room for 972 MiB"):
        check_space("org/tiny", needed, free)
