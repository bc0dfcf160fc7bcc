"""Every public name explains itself: what it does, from which thread, by an example that runs.

doctest does not find what is written in C by itself; here it is taken through the public names.
"""

import doctest
import inspect
from typing import Any

import pytest

import tailrace as tr

FUNCTIONS = {
    name: getattr(tr, name) for name in tr.__all__ if inspect.isroutine(getattr(tr, name))
}
CLASSES = {name: getattr(tr, name) for name in tr.__all__ if inspect.isclass(getattr(tr, name))}
C_TYPES = {"Pid": tr.Pid, "Ref": tr.Ref, "From": tr.From, "Timer": tr.Timer}
C_METHODS = {
    f"{name}.{method}": value
    for name, kind in C_TYPES.items()
    for method, value in vars(kind).items()
    if not method.startswith("_")
}
IN_C = {name: function for name, function in FUNCTIONS.items() if inspect.isbuiltin(function)}


def examples_of(name: str, thing: Any) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", {}, name, None, 0)


@pytest.mark.parametrize("name", [*IN_C, *C_TYPES, *C_METHODS])
def test_examples_of_what_is_written_in_c(name: str) -> None:
    thing = {**IN_C, **C_TYPES, **C_METHODS}[name]
    test = examples_of(name, thing)
    if inspect.isgetsetdescriptor(thing):
        assert inspect.getdoc(thing)
        return
    assert test.examples, "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    text: list[str] = []
    runner.run(test, out=text.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_whence_and_how(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert ">>> " in text, "no example"
    assert "thread" in text, "which thread may call it?"


@pytest.mark.parametrize("name", IN_C)
def test_a_function_in_c_explains_its_arguments(name: str) -> None:
    signature = inspect.signature(IN_C[name])  # which needs the text signature to be right
    text = inspect.getdoc(IN_C[name]) or ""
    if text.startswith("As spawn,"):
        return
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            assert f"    {parameter.name}: " in text, parameter.name
    if signature.parameters:
        assert "Raises:" in text


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_a_docstring_of_its_own(name: str) -> None:
    assert CLASSES[name].__doc__


def test_the_signatures_match_the_ones_for_type_checkers() -> None:
    """What help() shows is what the stub file promises."""
    import ast
    from pathlib import Path

    stub = Path(tr.__file__).with_name("_core.pyi").read_text()
    functions = {
        node.name: [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        for node in ast.parse(stub).body
        if isinstance(node, ast.FunctionDef)
    }
    for name, function in IN_C.items():
        parameters = inspect.signature(function).parameters.values()
        shown = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        assert shown == functions[name], name
