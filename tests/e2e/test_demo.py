"""The demo's question is one that the model is sure of, on real vLLM."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.support.daemon import Daemon
from tests.support.paths import ROOT
from tests.support.real_engine import MODEL
from vllamad.runtimes.smollm2 import ANSWER

pytestmark = pytest.mark.e2e

PACKAGING = ROOT / "packaging"


@pytest.mark.case("K1")
def test_each_token_of_the_demo_s_answer_leads_by_a_wide_margin(
    real: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PACKAGING))
    demo = importlib.import_module("demo")
    try:
        answer, margin = demo.ask(int(real.url.rpartition(":")[2]), MODEL)
        assert demo.verdict(answer, margin, exact=True) == 0
        assert demo.verdict("The capital of France is", margin, exact=True) == 1
        assert demo.verdict(ANSWER, demo.MARGIN - 0.1, exact=True) == 1
    finally:
        for name in ("demo", "prepare"):
            sys.modules.pop(name, None)
