"""Facts of real families from the essentials of their files, and how little is believed."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.checkpoints import (
    BERT,
    CHATML_TEMPLATE,
    DEEPSEEK_V3,
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL,
    PHI3,
    QWEN2,
    QWEN3,
    QWEN3_NEXT,
    SMOLLM2,
    write_checkpoint,
    write_safetensors,
)
from vllamad.errors import BadInput, HostProblem
from vllamad.models.checkpoint.metadata import facts_from, read_facts
from vllamad.models.store import safe_files


@pytest.mark.parametrize(
    ("config", "context", "layers", "heads", "kv_heads", "head_dim", "kv_bytes"),
    [
        (LLAMA, 131072, 32, 32, 8, 128, 131072),
        (SMOLLM2, 8192, 30, 9, 3, 64, 23040),
        (QWEN2, 32768, 24, 14, 2, 64, 12288),
        (QWEN3, 40960, 28, 16, 8, 128, 114688),
        (MISTRAL, 32768, 32, 32, 8, 128, 131072),
        (GEMMA3, 131072, 34, 8, 4, 256, 139264),
        (PHI3, 131072, 32, 32, 32, 96, 393216),
        (BERT, 512, 6, 12, 12, 32, 9216),
        (GPT2, 1024, 12, 12, 12, 64, 36864),
        (DEEPSEEK_V3, 163840, 61, 128, 128, 56, 70272),
        (QWEN3_NEXT, 262144, 48, 16, 2, 256, 24576),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else str(value),
)
def test_the_numbers_of_real_families(config, context, layers, heads, kv_heads, head_dim, kv_bytes):
    facts = facts_from(config, {})
    assert facts.context_length == context
    assert (facts.layers, facts.heads, facts.kv_heads) == (layers, heads, kv_heads)
    assert facts.head_dim == head_dim
    assert facts.kv_bytes_per_token == kv_bytes


def test_a_whole_checkpoint_is_read(tmp_path):
    folder = write_checkpoint(
        tmp_path / "m",
        SMOLLM2,
        tokenizer_config_json={
            "chat_template": CHATML_TEMPLATE,
            "bos_token": "<|im_start|>",
            "eos_token": {"content": "<|im_end|>", "special": True},
        },
        generation_config_json={"temperature": 0.6, "top_k": 20, "do_sample": True, "top_p": True},
        LICENSE_txt="Apache License",
    )
    facts = read_facts(folder)
    assert (facts.parameter_count, facts.weight_bytes) == (64, 128)
    assert (facts.dtype, facts.quantization) == ("BF16", "BF16")
    assert facts.chat_template == CHATML_TEMPLATE
    assert (facts.bos_token, facts.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert facts.generation == {"temperature": 0.6, "top_k": 20}
    assert facts.license == "Apache License"


def test_a_plain_chat_model_shows_no_sign_of_anything_else():
    facts = facts_from(SMOLLM2, {}, template=CHATML_TEMPLATE)
    assert (facts.is_embedding, facts.has_vision, facts.fim) == (False, False, None)


def test_the_weights_of_all_shards_are_counted(tmp_path):
    folder = write_checkpoint(
        tmp_path / "m",
        **{
            "model.safetensors.index_json": {
                "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}
            }
        },
    )
    write_safetensors(folder / "m-1.safetensors", {"a": ("F32", (3,))})
    write_safetensors(folder / "m-2.safetensors", {"b": ("F32", (4,))})
    assert read_facts(folder).parameter_count == 7


def test_a_template_file_wins_over_the_tokenizers(tmp_path):
    folder = write_checkpoint(
        tmp_path / "m", chat_template_jinja="new", tokenizer_config_json={"chat_template": "old"}
    )
    assert read_facts(folder).chat_template == "new"


@pytest.mark.parametrize(
    ("named", "chosen"),
    [
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "rag", "template": "r"}, "junk"], "r"),
        ([], ""),
        (7, ""),
    ],
)
def test_of_named_templates_the_default_is_taken(tmp_path, named, chosen):
    folder = write_checkpoint(tmp_path / "m", tokenizer_config_json={"chat_template": named})
    assert read_facts(folder).chat_template == chosen


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# Model\nlicense: mit\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"),
        ("---\nlicense: other\n---\n", "other"),
        ("# Model\nlicense: mit\n", ""),
        ("---\ntags: []\n---\n", ""),
    ],
)
def test_without_a_licence_file_the_card_names_it(tmp_path, card, found):
    assert read_facts(write_checkpoint(tmp_path / "m", README_md=card)).license == found


@pytest.mark.parametrize(
    ("config", "embeds"),
    [
        (BERT, True),
        (SMOLLM2, False),
        ({"architectures": ["XLMRobertaModel"]}, True),
        ({"architectures": ["ModernBertModel"]}, True),
        ({"architectures": ["NomicBertModel"]}, True),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, True),
        ({"architectures": ["NewsForCausalLM"]}, False),
        ({"architectures": "BertModel"}, False),
    ],
)
def test_embedding_models_are_known_by_their_architecture(config, embeds):
    assert facts_from(config, {}).is_embedding is embeds


def test_sentence_transformers_files_make_an_embedding_model_with_its_own_length(tmp_path):
    folder = write_checkpoint(
        tmp_path / "m", QWEN3, modules_json="[]", sentence_bert_config_json={"max_seq_length": 256}
    )
    facts = read_facts(folder)
    assert facts.is_embedding
    assert facts.context_length == 256


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({}, ""),
    ],
)
def test_how_tokens_are_pooled_is_read_from_the_pooling_layer(tmp_path, settings, pooling):
    folder = write_checkpoint(tmp_path / "m", BERT, modules_json="[]")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert read_facts(folder).pooling == pooling


def test_a_classifier_ranks():
    assert facts_from({"architectures": ["BertForSequenceClassification"]}, {}).pooling == "rank"


def test_vision_is_known_by_its_configuration():
    facts = facts_from(GEMMA3, {})
    assert facts.has_vision
    assert facts.vision_layers == 27


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "llama", "architectures": ["X"]}, "llama"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "qwen2"),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "gemma3"),
        ({}, ""),
    ],
)
def test_the_family_is_the_model_type_or_read_from_the_architecture(config, family):
    assert facts_from(config, {}).model_type == family


def test_wrong_types_count_as_absent():
    facts = facts_from(
        {
            "hidden_size": "big",
            "num_hidden_layers": True,
            "num_attention_heads": -3,
            "vocab_size": 1.5,
        },
        {},
        generation={"temperature": "hot", "top_p": float("inf")},
    )
    assert (facts.hidden_size, facts.layers, facts.heads, facts.vocab) == (0, 0, 0, 0)
    assert facts.generation == {}
    assert facts.kv_bytes_per_token == 0


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1e999}', "[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path, content):
    with pytest.raises(BadInput):
        read_facts(write_checkpoint(tmp_path / "m", config_json=content))


def test_a_folder_without_configuration_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"it has no config.json"):
        read_facts(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(HostProblem, match="cannot read"):
        read_facts(tmp_path / "nowhere")


def test_a_huge_configuration_is_not_read(tmp_path):
    folder = write_checkpoint(tmp_path / "m")
    os.truncate(folder / "config.json", (16 << 20) + 1)
    with pytest.raises(BadInput, match="more than 16777216 bytes"):
        read_facts(folder)


def test_a_fifo_in_place_of_a_configuration_is_not_waited_for(tmp_path):
    folder = write_checkpoint(tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(BadInput, match=r"no config.json"):
        read_facts(folder)


def test_a_folder_with_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_files, "FILES_LIMIT", 2)
    with pytest.raises(HostProblem, match="it holds over 2 files"):
        read_facts(write_checkpoint(tmp_path / "m", LICENSE_txt=""))


def test_hidden_files_and_links_to_folders_are_no_part_of_a_model(tmp_path):
    folder = write_checkpoint(tmp_path / "m")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / ".gitattributes").write_text("x")
    (folder / "loop").symlink_to(folder)
    names = [name for name, _ in safe_files.list_files(folder)]
    assert names == ["config.json", "model.safetensors", "1_Pooling/config.json"]
