"""The public names: there, typed, described, and shown once in docs/api.md."""

import ast
import inspect
from pathlib import Path

import pytest

import xsk_engine
from docs import api

SOURCE = ast.parse(Path(xsk_engine.__file__).read_text())


def imported_for_types():
    """Under TYPE_CHECKING, as (module, name)."""
    block = next(node for node in SOURCE.body if isinstance(node, ast.If))
    return {
        (node.module.removeprefix("xsk_engine."), alias.name) for node in block.body for alias in node.names
    }


def test_all_lists_of_them_agree():
    assert dir(xsk_engine) == sorted(xsk_engine.__all__)
    assert xsk_engine.__all__ == sorted(set(xsk_engine.__all__))
    told = {(module, name) for module, names in xsk_engine._PUBLIC.items() for name in names}
    assert {name for _, name in told} == set(xsk_engine.__all__)
    assert imported_for_types() == told


@pytest.mark.parametrize("name", xsk_engine.__all__)
def test_it_can_be_imported_and_says_what_it_is(name):
    value = getattr(xsk_engine, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(one.annotation is not one.empty for one in signature.parameters.values())


def test_nothing_else_is_there():
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        xsk_engine.nosuch  # noqa: B018


def test_every_public_name_has_types_a_docstring_and_an_example():
    assert not api.missing()


def test_members_are_those_that_classes_have():
    """The source is parsed; what it makes is the same."""
    for name in xsk_engine.__all__:
        value = getattr(xsk_engine, name)
        if not inspect.isclass(value):
            continue
        plumbing = set().union(*(api.PLUMBING.get(base.__name__, ()) for base in value.__mro__))
        for base in value.__mro__:
            if not base.__module__.startswith("xsk_engine"):
                continue
            shown = {one.name for one in api.everything()}
            for member in vars(base):
                if member.startswith("_") or member in plumbing or member not in dir(value):
                    continue
                assert f"{base.__name__}.{member}" in shown, member


def test_plumbing_is_there():
    """What is left out of the reference, by names that exist."""
    source = "\n".join(path.read_text() for path in api.PACKAGE.glob("*.py"))
    for name, members in api.PLUMBING.items():
        assert f"class {name}" in source
        for member in members:
            assert f"def {member}(" in source or f"self.{member}" in source or f"    {member}:" in source


def test_examples_are_found():
    doc = "One.\n\n    first()\n\n    more()\n\nTwo.\n\n    second()"
    assert api.examples(doc) == ["first()\n\nmore()", "second()"]
