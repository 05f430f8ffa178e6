"""`show` displays the real source, without docstrings, folded where long."""

import ast
import subprocess
import sys

import pytest

from cl_teach import source as src


class Sample:
    """Docstring of the class."""

    # a comment that stays
    width = 3

    def only_docstring(self):
        """Nothing else in here."""

    @property
    def twice(self):
        """Two lines.

        End of docstring.
        """
        return 2 * self.width  # not a "docstring"


def one_line():
    return 1


def tricky(x):
    """Docstring with ``` a fence and a # sign."""
    text = """not a docstring"""
    return x, text


def with_fence():
    return "```"


@pytest.fixture
def shown(monkeypatch):
    """What `show` displays when IPython is there."""
    seen = []
    monkeypatch.setattr(src, "_in_ipython", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    return seen


def test_docstrings_go_and_comments_and_code_stay():
    text = src.source(Sample)
    assert "Docstring of" not in text and "docstring.\n" not in text and "Nothing else" not in text
    assert "# a comment that stays" in text and '# not a "docstring"' in text
    ast.parse(text)


def test_a_body_of_only_a_docstring_becomes_an_ellipsis():
    assert "def only_docstring(self):\n        ...\n" in src.source(Sample)


def test_docstring_true_keeps_everything():
    assert '"""Docstring of the class."""' in src.source(Sample, docstring=True)


def test_strings_that_are_no_docstring_stay():
    assert 'text = """not a docstring"""' in src.source(tricky) and "fence" not in src.source(tricky)

    shared = 'def f(): "doc"'
    assert src._without_docstrings(shared) == shared
    two = 'def f():\n    "doc"; x = 1\n    return x'
    assert src._without_docstrings(two) == two


def test_properties_methods_and_modules_have_source_and_a_module_path():
    assert src.source(Sample.twice).splitlines()[1] == "@property"
    assert src.source(Sample.only_docstring).splitlines()[1].startswith("def only_docstring")
    first, *rest = src.source(src).splitlines()
    assert first == "# cl_teach/source.py" and rest[0].startswith("from __future__")


def test_no_path_of_this_machine_is_shown():
    import cl_teach.core
    from cl_teach.core.similarity import normalize

    assert src.source(normalize).startswith("# cl_teach/core/similarity.py\ndef normalize")
    assert src.source(cl_teach.core).startswith("# cl_teach/core/__init__.py\n")


@pytest.mark.parametrize("thing", [len, 3, Sample(), "text", sys, None])
def test_what_has_no_python_source_is_refused_by_name(thing):
    with pytest.raises(TypeError, match="obj: expected"):
        src.show(thing)


def test_fold_over_is_checked():
    with pytest.raises(ValueError, match="fold_over"):
        src.show(tricky, fold_over=-1)
    with pytest.raises(TypeError, match="fold_over"):
        src.show(tricky, fold_over="all")


def test_short_source_is_a_plain_fence(shown):
    assert src.show(tricky) is None
    text = shown[0]["text/markdown"]
    assert text.startswith("```python\n# ") and text.endswith("    return x, text\n```\n")
    assert "details" not in text


def test_long_source_is_folded_with_blank_lines_around_the_fence(shown):
    src.show(tricky, fold_over=1)
    text = shown[0]["text/markdown"]
    assert text.startswith("<details><summary><code>tricky</code>: 3 lines of ")
    assert "</summary>\n\n```python\n" in text and "\n```\n\n</details>\n" in text


def test_folded_source_is_code_in_commonmark(shown):
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    src.show(tricky, Sample, fold_over=1)
    kinds = [token.type for token in markdown.parse(shown[0]["text/markdown"])]
    assert kinds == ["html_block", "fence", "html_block"] * 2


def test_a_fence_in_the_source_does_not_end_the_block(shown):
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    src.show(with_fence)
    tokens = markdown.parse(shown[0]["text/markdown"])
    assert [token.type for token in tokens] == ["fence"] and 'return "```"' in tokens[0].content


def test_outside_ipython_the_source_is_printed(capsys, monkeypatch):
    monkeypatch.setattr(src, "_in_ipython", lambda: False)
    assert src.show(tricky, one_line) is None
    assert capsys.readouterr().out == src.source(tricky) + "\n" + src.source(one_line)


def test_in_ipython_show_displays_markdown():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance();"
        "from IPython.utils.capture import capture_output\n"
        "with capture_output() as c: s.run_cell('from cl_teach.source import show\\nshow(show)')\n"
        "print(list(c.outputs[0].data), len(c.outputs))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "['text/markdown', 'text/plain'] 1", run.stderr
