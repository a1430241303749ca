"""The names and digests of uploaded files are checked, and their purpose read from them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.ollama.create_files import MAX_FILES, check_files, checkpoint_of

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
GGUF = (
    "unknown type: the engine serves no GGUF files; upload the model's safetensors files,"
    " or pull it"
)


@pytest.mark.parametrize("sign", [":", "-"])
def test_a_checkpoint_is_its_files_by_their_hashes(sign: str) -> None:
    files = {"config.json": f"sha256{sign}{HEX}", "1_Dense/model.safetensors": DIGEST}
    check_files(files)
    assert checkpoint_of(files) == {"config.json": HEX, "1_Dense/model.safetensors": HEX}


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"model.gguf": DIGEST, "config.json": DIGEST}, GGUF),
        ({"config.json": DIGEST}, "unknown type: none of the files is a .safetensors file"),
        ({"pytorch_model.bin": DIGEST}, "unknown type: none of the files is a .safetensors file"),
        ({"a.safetensors": DIGEST.upper()}, "invalid digest format"),
        ({"a.safetensors": DIGEST[:-1]}, "invalid digest format"),
        ({"a.safetensors": f"sha256/{HEX}"}, "invalid digest format"),
        ({"a.safetensors": "sha256:" + "../x" * 16}, "invalid digest format"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_the_reason(files: dict[str, str], text: str) -> None:
    with pytest.raises(BadInput) as refused:
        checkpoint_of(files)
    assert (refused.value.status, refused.value.message) == (400, text)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({f"{number}.json": DIGEST for number in range(MAX_FILES + 1)},
         "cannot take 1001 files, at most 1000"),
        ({"é" * 128 + ".json": DIGEST},
         f'cannot use the file name "{"é" * 40}"...: a part of it has over 255 bytes'),
        ({"a:b": DIGEST}, "file path must be relative"),
        ({"a\0b": DIGEST}, "file path must be relative"),
        ({"a": DIGEST, "b": ""}, "invalid digest format"),
    ],
)  # fmt: skip
def test_names_that_no_disk_takes_are_refused(files: dict[str, str], text: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_files(files)
    assert refused.value.message == text


@accepts_some
@example(files={"config.json": DIGEST, "a.safetensors": DIGEST})
@given(files=st.dictionaries(st.text(max_size=8), st.text(max_size=72)))
def test_no_files_raise_anything_but_a_refusal(files: dict[str, str]) -> None:
    with accepted_or_refused():
        check_files(files)
        assert checkpoint_of(files).keys() == files.keys()
