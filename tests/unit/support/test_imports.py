"""Test modules stand alone: what two of them share is in tests/support or tests/fakes."""

from __future__ import annotations

import ast

from tests.support.paths import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))


def imported(source: str) -> set[str]:
    """Every module that a file imports, and every name that may be one."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules


def of_tests(modules: set[str]) -> set[str]:
    """Those of them that pytest collects tests or fixtures from."""
    return {
        module
        for module in modules
        if module.startswith("tests.")
        and any(part.startswith("test_") or part == "conftest" for part in module.split("."))
    }


def test_no_file_imports_a_test_module() -> None:
    found = {
        str(path.relative_to(ROOT)): sorted(of_tests(imported(path.read_text()))) for path in FILES
    }
    assert len(found) > 200
    assert {path: modules for path, modules in found.items() if modules} == {}


def test_an_import_of_a_test_module_is_found() -> None:
    source = "from tests.unit.core import test_memory\nimport tests.e2e.conftest, tests.fakes.hub\n"
    assert of_tests(imported(source)) == {"tests.unit.core.test_memory", "tests.e2e.conftest"}
