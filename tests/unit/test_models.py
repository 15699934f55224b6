"""The models in native/models and the C that they stand for (``make model`` explores them)."""

import pytest

from tests.models import mirrors

EACH = pytest.mark.parametrize("model", mirrors.MODELS, ids=lambda model: model.stem)


@EACH
def test_the_code_is_what_it_was_when_its_model_was_written(model):
    changed = [f"{m.file}:{m.function} has changed" for m in mirrors.changed(model)]
    assert not changed, (
        f"{', '.join(changed)}; look at native/models/{model.name}: does it still do the same, step by step? "
        "Then: python -m tests.models --compared"
    )
    assert mirrors.mirrors_of(model)


@EACH
def test_a_model_can_fail(model):
    runs = mirrors.runs_of(model)
    text = model.read_text().partition("*/")[2]
    assert any(run.must_hold for run in runs)
    assert any(not run.must_hold for run in runs)
    for flag in {flag.removeprefix("-D") for run in runs for flag in run.flags}:
        assert flag in text, f"{flag} changes nothing"


def test_a_changed_function_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "a.c").write_text(
        "int other(void)\n{\n\treturn 1;\n}\n\nint COLD one(int a)\n{\n\treturn a; /* so */\n}\n"
    )
    monkeypatch.setattr(mirrors, "ROOT", tmp_path)
    model = tmp_path / "m.pml"
    model.write_text(" * mirrors a.c one\n")
    assert mirrors.changed(model)
    mirrors.compared(model)
    assert not mirrors.changed(model)
    text = (tmp_path / "a.c").read_text()
    (tmp_path / "a.c").write_text(text.replace("/* so */", "/*\n thus */").replace("return 1", "return 2"))
    assert not mirrors.changed(model), "neither comments nor other functions"
    (tmp_path / "a.c").write_text(text.replace("return a", "return  a + 1"))
    assert [m.function for m in mirrors.changed(model)] == ["one"]
    (tmp_path / "a.c").write_text(text.replace("one", "two"))
    assert mirrors.changed(model), "it has gone"
