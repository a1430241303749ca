"""Which test functions can pass without an assertion: read from their source, not run."""

from __future__ import annotations

import ast
from collections.abc import Iterable

Function = ast.FunctionDef | ast.AsyncFunctionDef
_EXPECTING = {"pytest.raises", "pytest.warns", "refused"}


def unsure(source: str) -> list[str]:
    """The tests whose assertions are all in a branch, or in a loop that may have no round."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Function) and node.name.startswith("test_")
        if asserts(node.body) and not asserts(node.body, always=True)
    ]


def asserts(body: Iterable[ast.stmt], *, always: bool = False) -> bool:
    """There is an assertion; with `always`, one on every way through these statements."""
    return any(_asserts(statement, always) for statement in body)


def _asserts(statement: ast.stmt, always: bool) -> bool:
    match statement:
        case ast.Assert():
            return True
        case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
            return any(map(_expects, items)) or asserts(body, always=always)
        case ast.Try(body=body, finalbody=final):
            return asserts([*body, *final], always=always)
        case ast.For(iter=values, body=body):
            return (not always or _has_rounds(values)) and asserts(body, always=always)
        case ast.AsyncFor(body=body) | ast.While(body=body):
            return not always and asserts(body)
        case ast.If(body=body, orelse=orelse):
            either = [asserts(branch, always=always) for branch in (body, orelse)]
            return all(either) if always else any(either)
        case ast.Match(cases=cases):
            # Every value has a case: pyright checks it.
            either = [asserts(case.body, always=always) for case in cases]
            return all(either) if always else any(either)
        case _:
            return False


def _expects(item: ast.withitem) -> bool:
    call = item.context_expr
    return isinstance(call, ast.Call) and ast.unparse(call.func) in _EXPECTING


def _has_rounds(values: ast.expr) -> bool:
    """The values of a loop are written out, or counted, and there is at least one."""
    match values:
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return any(not isinstance(element, ast.Starred) for element in elements)
        case ast.Constant(value=value):
            return bool(value)
        case ast.Call(func=ast.Name(id="range"), args=[*_, ast.Constant(value=int(end))]):
            return end > 0
        case ast.Call(func=ast.Name(id="enumerate" | "zip"), args=[first, *_]):
            return _has_rounds(first)
        case _:
            return False
