"""The choice of the variant of a model for a machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.kv_caches import flat
from vllamad.core.memory import GIB, Device, Machine, Need, find_placement
from vllamad.core.variants import CONTEXT_WANTED, FORMATS, KnownModel, Variant, choose_variant

GB = 10**9


def model(
    *formats: str, parameters: float = 8e9, kv: int = 128 << 10, **more: object
) -> KnownModel:
    numbers = {"context": 131072, "embeddings": 1 * GB, **more}
    variants = tuple(Variant(format=f, repository=f"org/{f}", revision="main") for f in formats)
    return KnownModel(
        name="m:8b", about="", kind="text", license="mit", parameters=int(parameters),
        cache=flat(kv), variants=variants, **numbers,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


ALL = model("bf16", "fp8", "awq")


def gpus(*gib: float, capability: tuple[int, int] = (9, 0), held: float = 0) -> Machine:
    return Machine(
        host=0,
        devices=tuple(
            Device(
                index=index, total=int(size * GIB), foreign=int(held * GIB), capability=capability
            )
            for index, size in enumerate(gib)
        ),
    )


@pytest.mark.parametrize(
    ("which", "machine", "context", "taken", "count"),
    [
        (ALL, gpus(80), 0, "bf16", 1),
        (ALL, gpus(21), 4096, "bf16", 1),
        (ALL, gpus(20), 0, "fp8", 1),  # the longer context is what is short
        (ALL, gpus(16), 4096, "fp8", 1),
        (ALL, gpus(12), 4096, "awq", 1),
        (ALL, gpus(20, 20), 0, "fp8", 1),  # one GPU before better answers
        (model("bf16"), gpus(20, 20), 0, "bf16", 2),
        (model("bf16", parameters=70e9), gpus(80, 80, 80), 0, "bf16", 2),
        (model("bf16", parameters=70e9), gpus(48, 48, 48, 48), 0, "bf16", 4),
        (model("fp8", "awq"), gpus(80, capability=(7, 5)), 0, "fp8", 1),
        (model("bf16", "mxfp4"), gpus(20, capability=(8, 0)), 4096, "mxfp4", 1),
        (model("mxfp4", "gptq"), gpus(80, capability=(7, 5)), 0, "gptq", 1),
        (model("int4"), gpus(80), 0, "int4", 1),
        (ALL, gpus(80, capability=(0, 0)), 0, "bf16", 1),  # not known: taken to run everything
        (ALL, gpus(24, held=20), 4096, "bf16", 1),  # what is held now is not held for ever
        (ALL, Machine(host=32 * GIB), 0, "bf16", 0),
        (model("fp8", "bf16"), Machine(host=32 * GIB), 0, "bf16", 0),
        (model("bf16", parameters=0.1e9), Machine(host=4 * GIB), 0, "bf16", 0),
    ],
)
def test_the_best_that_fits_is_taken(
    which: KnownModel, machine: Machine, context: int, taken: str, count: int
) -> None:
    choice = choose_variant(which, machine, context)
    assert (choice.variant.format, choice.gpus, choice.fits) == (taken, count, True)


@pytest.mark.parametrize(
    ("which", "machine", "taken"),
    [
        (ALL, gpus(6), "awq"),
        (ALL, gpus(4, 4), "awq"),
        (ALL, gpus(6, capability=(7, 0)), "awq"),
        (ALL, Machine(host=8 * GIB), "bf16"),
        (model("fp8", "awq"), Machine(host=64 * GIB), "awq"),
    ],
)
def test_the_smallest_runnable_variant_is_chosen_if_none_fits(
    which: KnownModel, machine: Machine, taken: str
) -> None:
    choice = choose_variant(which, machine)
    assert (choice.variant.format, choice.fits) == (taken, False)


@pytest.mark.parametrize(
    ("which", "machine", "reasons"),
    [
        (ALL, gpus(80), ()),
        (
            ALL,
            gpus(20),
            ("bf16: needs 22474 MiB, there is room for 18841 MiB",),
        ),
        (
            model("mxfp4", "awq"),
            gpus(24, capability=(7, 5)),
            ("mxfp4: needs compute capability 8.0, the GPU has 7.5",),
        ),
        (model("fp8", "bf16"), Machine(host=64 * GIB), ("fp8: does not run on a CPU",)),
        (
            model("bf16", parameters=30e9),
            gpus(48, 48),
            ("bf16: needs 64436 MiB, there is room for 45219 MiB",),
        ),
    ],
)
def test_variants_passed_over_are_explained(
    which: KnownModel, machine: Machine, reasons: tuple[str, ...]
) -> None:
    assert choose_variant(which, machine).passed_over == reasons


def test_a_reason_over_several_gpus_says_so() -> None:
    choice = choose_variant(model("bf16", parameters=70e9), gpus(48, 48, 48, 48))
    assert choice.passed_over[1].startswith("bf16: needs 73973 MiB")
    assert "on each of 2 GPUs" in choice.passed_over[1]


def test_a_short_context_of_the_model_is_enough() -> None:
    assert choose_variant(model("bf16", context=2048), gpus(80)).context == 2048
    assert choose_variant(ALL, gpus(80)).context == CONTEXT_WANTED


@pytest.mark.parametrize(
    ("form", "weights"), [("bf16", 16 * GB), ("fp8", 9 * GB), ("awq", int(5.64 * GB))]
)
def test_embeddings_stay_in_16_bits(form: str, weights: int) -> None:
    known = model(form)
    assert known.weights(known.variants[0]) == weights
    assert known.memory(known.variants[0], 1000) == weights + 1000 * (128 << 10)


def test_a_given_size_is_not_computed() -> None:
    variant = Variant(format="mxfp4", repository="a/b", revision="main", size=13)
    assert ALL.weights(variant) == 13


@pytest.mark.parametrize("gated", [True, False])
def test_a_model_is_gated_where_any_variant_is(gated: bool) -> None:
    second = Variant(format="awq", repository="a/b", revision="main", gated=gated)
    known = KnownModel(
        name="m:1", about="", kind="text", license="", parameters=1, context=1,
        variants=(ALL.variants[0], second),
    )  # fmt: skip
    assert known.gated == gated


@given(
    formats=st.lists(st.sampled_from(list(FORMATS)), min_size=1, unique=True),
    parameters=st.floats(1e6, 700e9),
    totals=st.lists(st.integers(1, 200), max_size=8),
    minor=st.sampled_from([(7, 0), (7, 5), (8, 0), (8, 9), (10, 0)]),
    context=st.integers(0, 200_000),
)
def test_a_choice_that_fits_can_be_placed(
    formats: list[str],
    parameters: float,
    totals: list[int],
    minor: tuple[int, int],
    context: int,
) -> None:
    known = model(*formats, parameters=parameters)
    machine = gpus(*totals, capability=minor) if totals else Machine(host=64 * GIB)
    choice = choose_variant(known, machine, context)
    need = Need(
        weights=known.weights(choice.variant), cache=known.cache,
        context_length=choice.context, gpus=max(1, choice.gpus),
    )  # fmt: skip
    assert choice.variant in known.variants
    assert not choice.fits or find_placement(need, machine, ()) is not None
