"""Templates: values are escaped, missing ones are errors; Markdown shows text as it is."""

import pytest
from jinja2 import UndefinedError

from evl.runtime.text import code, plain, render, table


def test_html_is_escaped_and_nothing_may_be_missing(tmp_path):
    (tmp_path / "a.html.j2").write_text("<p title='{{ name }}'>{{ name }}</p>")
    text = render(tmp_path / "a.html.j2", name="<b>'\" &\udcff")
    assert text == "<p title='&lt;b&gt;&#39;&#34; &amp;\\udcff'>&lt;b&gt;&#39;&#34; &amp;\\udcff</p>"
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        render(tmp_path / "a.html.j2", nam="a typing error")


def test_markdown_shows_text_as_it_is(tmp_path):
    (tmp_path / "a.md.j2").write_text("{{ name | plain }} {{ name | code }}")
    assert render(tmp_path / "a.md.j2", name="a *b*\n`<c>`") == r"a \*b\* \`\<c\>\` `a *b* <c>`"
    assert [plain(text) for text in ("1. a", "- b", "# c", "[d](e)")] == [r"1\. a", r"\- b", r"\# c", r"\[d\](e)"]
    assert code("`a`\n# b") == "`a # b`"


def test_tables():
    assert table(("a", "b"), [(1, None), ("x", 2.5)]) == ["| a | b |", "|---|---|", "| 1 |  |", "| x | 2.5 |"]
