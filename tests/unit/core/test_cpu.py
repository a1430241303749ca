"""The number type and the threads that a model computes with on a CPU."""

from __future__ import annotations

import pytest

from vllamad.core.cpu import NumberTimes, choose_number_type, explain_threads, thread_count

# As measured on an AVX-512 machine whose kernels have no bfloat16, on one with it, on an old one.
EMULATED = NumberTimes(bfloat16=7.0, float16=8.0, float32=3.0)
NATIVE = NumberTimes(bfloat16=1.0, float16=7.0, float32=2.2)
ALIKE = NumberTimes(bfloat16=1.1, float16=1.1, float32=1.0)
NONE = NumberTimes()


@pytest.mark.parametrize(
    ("label", "times", "name", "why"),
    [
        ("BF16", EMULATED, "float32", "2.3 x as fast as bfloat16 here"),
        ("F16", EMULATED, "float32", "2.7 x as fast as float16 here"),
        ("F32", EMULATED, "float32", "2.3 x as fast as bfloat16 here"),
        ("BF16", NATIVE, "bfloat16", "2.2 x as fast as float32 here"),
        ("F16", NATIVE, "float32", "3.2 x as fast as float16 here"),
        ("BF16", ALIKE, "bfloat16", "0.9 x as fast as float32 here"),
        ("BF16", NONE, "bfloat16", "the checkpoint's own; nothing is measured here"),
        ("AWQ-4bit", EMULATED, "auto", "the checkpoint's own"),
        ("FP8", EMULATED, "auto", "the checkpoint's own"),
        ("unknown", EMULATED, "auto", "the checkpoint's own"),
    ],
)
def test_float32_is_chosen_where_it_is_clearly_faster(
    label: str, times: NumberTimes, name: str, why: str
) -> None:
    chosen = choose_number_type(label, times, wide_fits=True, pooling=False)
    assert (chosen.name, chosen.why) == (name, why)


@pytest.mark.parametrize(("label", "kept"), [("BF16", "bfloat16"), ("AWQ-4bit", "auto")])
@pytest.mark.parametrize("pooling", [False, True])
def test_the_smaller_type_stays_when_memory_is_short(label: str, kept: str, pooling: bool) -> None:
    chosen = choose_number_type(label, EMULATED, wide_fits=False, pooling=pooling)
    assert chosen.name == kept
    assert ("would not fit" in chosen.why) == (pooling or label == "BF16")


@pytest.mark.parametrize("label", ["BF16", "F32", "unknown"])
def test_embedding_models_compute_in_float32_at_any_speed(label: str) -> None:
    chosen = choose_number_type(label, NATIVE, wide_fits=True, pooling=True)
    assert (chosen.name, chosen.why) == ("float32", "vectors are computed in it")


@pytest.mark.parametrize(
    ("cores", "workers", "each"),
    [
        (1, 0, 1),
        (2, 0, 2),  # 0: as many as memory allows, but most often one is asked
        (3, 1, 3),
        (4, 1, 3),
        (16, 1, 15),
        (16, 3, 5),
        (2, 3, 1),
    ],
)
def test_small_machines_keep_no_core_free_and_workers_share(
    cores: int, workers: int, each: int
) -> None:
    assert thread_count(cores, workers) == each


@pytest.mark.parametrize(
    ("cores", "workers", "why"),
    [
        (1, 1, "1 core"),
        (3, 0, "3 cores"),
        (16, 1, "16 cores, one kept free"),
        (16, 3, "16 cores, one kept free, shared by 3 workers"),
    ],
)
def test_the_number_of_threads_is_explained(cores: int, workers: int, why: str) -> None:
    assert explain_threads(cores, workers) == why
