"""vLLM's own words, as it really wrote them, and what we make of them."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.engine.reasons import (
    admitted_length,
    child_signal,
    is_deterministic,
    is_fatal_start_line,
    last_meaningful_line,
    read_load_phase,
    refuses_parsers,
)

CORE = "(EngineCore pid=13220) ERROR 11-23 04:00:05 [core.py:1234] "
SERVER = "(APIServer pid=11843) ERROR 11-23 04:00:06 [async_llm.py:906] "
NOISE = """\
nanobind: leaked 4 instances!
 - leaked instance 0x7f9b89538d88 of type "triton._C.libtriton.ir.attribute"
nanobind: leaked 64 types!
 - leaked type "triton._C.libtriton.ir.location"
 - ... skipped remainder
nanobind: this is likely caused by a reference counting issue in the binding code.
See https://nanobind.readthedocs.io/en/latest/refleaks.html
/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There \
appear to be 1 leaked semaphore objects to clean up at shutdown
  warnings.warn('resource_tracker: There appear to be %d '
"""
WRAPPED = (
    "RuntimeError: Engine core initialization failed. See root cause above."
    " Failed core proc(s): {'EngineCore': 1}\n"
)

REMARK = "(EngineCore pid=7) WARNING 12-01 01:02:03 [x.py:1] "

KV_TOO_SMALL = (
    "ValueError: To serve at least one request with the model's max seq len (8192), (0.18 GiB KV"
    " cache is needed, which is larger than the available KV cache memory (0.01 GiB)."
)
KV_TOO_BIG = (
    "ValueError: Available memory on node 0 (21.54/23.54 GiB) on kv cache allocation is less than"
    " requested memory for kv (500.0 GiB). Decrease --kv-cache-memory-bytes."
)
NO_GPU_ROOM = (
    "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU"
    " memory utilization (0.92, 72.8 GiB)."
)
NOT_CACHED = (
    "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot"
    " folder for the specified revision on the local disk and outgoing traffic has been disabled."
)
BAD_PATH = (
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or"
    " 'namespace/repo_name': '/models/none'"
)
VALIDATION = (
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
    "  Value error, User-specified max_model_len (9999) is greater than 2048."
    " [type=value_error, input_value=ArgsKwargs((), {'model': 'x'}), input_type=ArgsKwargs]\n"
    "    For further information visit https://errors.pydantic.dev/2.12/v/value_error\n"
)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (BAD_PATH + "\n", BAD_PATH),
        (NOT_CACHED + "\n" + NOISE, NOT_CACHED),
        (
            "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --nonsense\n",
            "api_server.py: error: unrecognized arguments: --nonsense",
        ),
        (
            "KeyError: 'invalid tool call parser: zzz (chose from { apertus,hermes })'\n",
            "KeyError: 'invalid tool call parser: zzz (chose from { apertus,hermes })'",
        ),
        (VALIDATION, "Value error, User-specified max_model_len (9999) is greater than 2048."),
        (f"{CORE}{KV_TOO_SMALL}\nTraceback (most recent call last):\n{WRAPPED}", KV_TOO_SMALL),
        (f"(EngineCore pid=13220) {KV_TOO_BIG}\n{WRAPPED}{NOISE}", KV_TOO_BIG),
        (f"ERROR 11-23 04:00:05 [core.py:7] {NO_GPU_ROOM}\n", NO_GPU_ROOM),
        (
            "OSError: [Errno 98] Address already in use\n",
            "OSError: [Errno 98] Address already in use",
        ),
        (
            f"{CORE}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
            + WRAPPED,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        (
            f"{SERVER}RuntimeError: Worker failed with error 'Unsupported CPU attention"
            " configuration: head_dim=16 isa=2 kv_cache_idx=0', please check the stack trace\n",
            "Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0",
        ),
        (
            f"{CORE}Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down"
            f" executor.\n{SERVER}vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered"
            " an issue. See stack trace (above) for the root cause.\n" + NOISE,
            "Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
        ),
        (
            f"{CORE}EngineCore failed to start.\n{CORE}Traceback (most recent call last):\n"
            f'{CORE}  File "core.py", line 1, in run\n{CORE}    raise ValueError("x: y")\n',
            "EngineCore failed to start.",
        ),
        (
            "Operation not permitted (src/thread.cpp:281)\n",
            "Operation not permitted (src/thread.cpp:281)",
        ),
        (f"{WRAPPED}{NOISE}", WRAPPED.strip()),
        ("AssertionError\n", "AssertionError"),
        (f"{REMARK}RuntimeError: not fatal\n", ""),
        (f"OSError: gone\n{REMARK}RuntimeError: not fatal\n", "OSError: gone"),
        ("INFO:root:x\n[WARNING] ValueError: y\nWARNING:z:ValueError: \n", ""),
        ("W1201 01:02:03.000000 7 torch/x.py:1] died unexpectedly\n", ""),
        ("/usr/lib/x.py:254: UserWarning: RuntimeError: died unexpectedly\n", ""),
        (f"INFO:     Application startup complete.\n{NOISE}", ""),
        ("", ""),
    ],
)
def test_the_reason_is_the_root_cause(tail: str, reason: str):
    assert last_meaningful_line(tail) == reason


@pytest.mark.parametrize(
    ("tail", "number"),
    [
        (WRAPPED, 0),
        (WRAPPED.replace("1}", "-4}"), signal.SIGILL),
        ("Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down", 9),
        ("(EngineCore pid=7) Fatal Python error: Illegal instruction\n\nThread 0x", 4),
        ("Fatal Python error: Segmentation fault\n", signal.SIGSEGV),
        ("Fatal Python error: init_sys_streams: bad\n", 0),
        ("", 0),
    ],
)
def test_the_log_tells_the_signal_that_ended_a_process_of_the_engine(tail: str, number: int):
    assert child_signal(tail) == number


def test_a_progress_bar_does_not_hide_the_reason():
    assert last_meaningful_line("shards: 0%\rshards: 50%\rOSError: gone\r") == "OSError: gone"


@given(st.text(), st.sampled_from(["ValueError: ", f"{CORE}RuntimeError: ", "  Value error, "]))
def test_a_reason_is_one_short_line(text: str, start: str):
    reason = last_meaningful_line(f"{start}{text * 50}\n")
    assert len(reason) <= 500
    assert "\n" not in reason


def test_a_start_can_have_failed_although_all_processes_are_alive():
    assert is_fatal_start_line(f"{CORE}EngineCore failed to start.")
    assert not is_fatal_start_line(f"{CORE}EngineCore encountered a fatal error.")


@pytest.mark.parametrize(
    "reason",
    [
        BAD_PATH,
        NOT_CACHED,
        KV_TOO_SMALL,
        KV_TOO_BIG,
        NO_GPU_ROOM,
        "api_server.py: error: unrecognized arguments: --nonsense",
        "KeyError: 'invalid tool call parser: zzz (chose from { apertus })'",
        "Value error, Total number of attention heads (9) must be divisible by tensor parallel"
        " size (2).",
        "Value error, Sleep mode is not supported on current platform.",
        "torch.OutOfMemoryError: CUDA out of memory.",
        "PermissionError: [Errno 13] Permission denied: '/models/model.safetensors'",
        "RuntimeError: Failed to infer device type",
        "killed by SIGILL (illegal instruction)",
        "killed by SIGKILL: out of memory, the kernel's OOM killer ended it; it had 812 MiB",
    ],
)
def test_a_wrong_configuration_is_not_tried_again(reason: str):
    assert is_deterministic(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "OSError: [Errno 98] Address already in use",
        "Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "killed by SIGKILL: not by the kernel's OOM killer; it had 812 MiB",
        "killed by SIGSEGV (segmentation fault)",
        "",
    ],
)
def test_an_accident_may_be_tried_again(reason: str):
    assert not is_deterministic(reason)


INFO = "(Worker pid=13548) INFO 11-23 03:58:07 [x.py:1] "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (INFO + "vLLM server version 0.32.0", "reading the model's configuration"),
        (INFO + "Resolved architecture: LlamaForCausalLM", "starting the engine"),
        (INFO + "Starting to load model smollm2:135m...", "loading weights"),
        (
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01]",
            "loading weights: 50 %",
        ),
        (INFO + "Loading weights took 2.27 seconds", "preparing the cache"),
        (INFO + "CPU KV cache size: 93,184 tokens, Maximum concurrency for 2,048", "warming up"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   3%|", "capturing graphs"),
        (INFO + "Graph capturing finished in 21 secs, took 0.84 GiB", "warming up"),
        (
            INFO + "init engine (profile, create kv cache, warmup model) took 1 s",
            "starting its server",
        ),
        ("INFO:     Application startup complete.", "making the first token"),
        (INFO + "Engine 000: Avg prompt throughput: 34.1 tokens/s", None),
    ],
)
def test_a_load_says_how_far_it_is(line: str, words: str | None):
    assert read_load_phase(line) == words


@pytest.mark.parametrize(
    ("reason", "refuses"),
    [
        (
            "TypeError: --tool-call-parser hermes and --reasoning-parser qwen3 cannot be used with"
            " the tokenizer of 'm': no start token",
            True,
        ),
        ("TypeError: --reasoning-parser qwen3 cannot be used with the tokenizer of 'm': no", True),
        (
            "TypeError: Error: --enable-auto-tool-choice requires tool_parser:'cohere_command3'"
            " which has not been registered",
            True,
        ),
        (
            "RuntimeError: DeepSeekR1ReasoningParser reasoning parser could not locate think"
            " start/end tokens in the tokenizer!",
            True,
        ),
        (
            "RuntimeError: Mistral parser could not locate the tool call token in the tokenizer!",
            True,
        ),
        ("RuntimeError: the tokenizer of 'm' cannot be read", False),
    ],
)
def test_an_engine_says_that_it_would_start_without_a_parser(reason: str, refuses: bool):
    assert refuses_parsers(reason) is refuses


@pytest.mark.parametrize(
    ("reason", "tokens"),
    [
        (
            "To serve at least one request ... the estimated maximum model length is 32640. Try",
            32640,
        ),
        ("To serve at least one request with the model's max seq len (8192), (0.18 GiB KV", 0),
        ("the estimated maximum model length is many", 0),
    ],
)
def test_the_length_an_engine_would_admit_is_read_from_its_refusal(
    reason: str, tokens: int
) -> None:
    assert admitted_length(reason) == tokens
