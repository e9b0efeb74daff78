import time

import pytest

from models.domain.plain_text import text_of


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b"),
        ('<a href="https://x.example/{{ run.id }}">Go</a>', "Go (https://x.example/{{ run.id }})"),
        ('<a href="mailto:a@example.com">write</a>', "write"),
        ("<style>p{}</style><head><title>t</title></head>Hi<br>there", "Hi\nthere"),
        ('<img alt="Logo" src="x">', "Logo"),
        ("<p>{% if contact.attributes.n < 3 %}few{% endif %}</p>", "{% if contact.attributes.n < 3 %}few{% endif %}"),
        ("Fish &amp; chips &lt;3", "Fish & chips <3"),
        ("&#123;&#123; contact.email }}", "{ { contact.email }}"),
        ("{{ 'a\n b' }}", "{{ 'a\n b' }}"),
        ("", ""),
    ],
)
def test_the_text_part_says_what_the_html_shows(html: str, text: str) -> None:
    assert text_of(html) == text


@pytest.mark.parametrize("unit", ["<", "<a ", "<a href='", "<!--", "<script>", "</", "{{", "&#", "<p>"])
def test_broken_html_takes_no_longer_than_good_html(unit: str) -> None:
    began = time.process_time()
    text_of(unit * (200_000 // len(unit)))
    assert time.process_time() - began < 2
