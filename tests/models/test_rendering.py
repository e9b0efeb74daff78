import contextlib
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.liquid_environment import HardenedEnvironment
from models.rendering import MissingValue, RenderingFailed, analyze, message_context, render_email, render_text

CONTACT = {
    "email": "ann@example.com",
    "first_name": "<b>Ann</b>",
    "last_name": None,
    "locale": "",
    "tags": ["vip", "new"],
    "attributes": {"plan": "pro", "count": 3, "void": None, "orders": [{"id": 1}, {"id": 2, "note": "x"}]},
}


def context() -> dict[str, Any]:
    return message_context(CONTACT, {"order": {"number": "A-17"}}, "Acme & Co", "https://example.com/u/t?a=1&b=2")


def html(source: str) -> str:
    return render_email("s", source, "", context()).html


def text(source: str) -> str:
    return render_text(source, context()).text


def test_values_are_escaped_in_html_and_nowhere_else() -> None:
    source = "{{ contact.first_name }} {{ organization.name }}"
    rendered = render_email(source, source, source, context())
    assert rendered.html == "&lt;b&gt;Ann&lt;/b&gt; Acme &amp; Co"
    assert rendered.text == rendered.subject == "<b>Ann</b> Acme & Co"


def test_a_subject_stays_one_line() -> None:
    evil = message_context({"first_name": "Ann\r\nBcc: eve@example.com"}, {}, "Acme", None)
    assert render_email("Hi {{ contact.first_name }}", "x", "", evil).subject == "Hi Ann Bcc: eve@example.com"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("{{ contact.last_name }}", "contact.last_name"),
        ("{{ contact.locale }}", "contact.locale"),
        ("{{ contact.last_name | upcase }}", "contact.last_name"),
        ("{{ contact.last_name | date: '%Y' }}", "contact.last_name"),
        ("{{ contact.last_name | size }}", "contact.last_name"),
        ("{{ 'Dear ' | append: contact.last_name }}", "contact.last_name"),
        ("{% assign name = contact.last_name %}{{ name }}", "contact.last_name"),
        ("{% echo contact.last_name %}", "contact.last_name"),
        ("{% cycle contact.last_name, 'x' %}", "contact.last_name"),
        ("{% capture c %}{{ contact.last_name }}{% endcapture %}", "contact.last_name"),
        ("{{ contact.attributes.void }}", "contact.attributes.void"),
        ("{{ contact.attributes.a.b.c }}", "contact.attributes.a"),
        ("{{ contact.tags[9] }}", "contact[…]"),
        ("{% for order in contact.attributes.returns %}x{% endfor %}", "contact.attributes.returns"),
        ("{{ contact.attributes.orders | map: 'note' | join: ', ' }}", "note of one of the items"),
        ("{{ contact.first_name | first }}", "contact.first_name | first"),
        ("{{ nil }}", "nil"),
        ("{{ run.missing }}", "run.missing"),
        ("{{ contact.__class__ }}", "contact.__class__"),
    ],
)
def test_a_missing_value_is_never_printed_blank(source: str, path: str) -> None:
    with pytest.raises(MissingValue) as caught:
        text(source)
    assert caught.value.path == path


def test_a_missing_value_says_in_which_part() -> None:
    with pytest.raises(MissingValue) as caught:
        render_email("Hi", "{{ contact.last_name }}", "", context())
    assert (caught.value.part, caught.value.path) == ("html", "contact.last_name")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ contact.last_name | default: 'friend' }}", "friend"),
        ("{% if contact.last_name %}a{% else %}b{% endif %}", "b"),
        ("{% if contact.last_name != blank %}a{% else %}b{% endif %}", "b"),
        ("{% if contact.first_name != blank %}a{% else %}b{% endif %}", "a"),
        ("{% if contact.last_name == nil %}a{% endif %}", "a"),
        ("{% unless contact.attributes.plan == 'free' %}a{% endunless %}", "a"),
        ("{% for tag in contact.tags %}{{ forloop.index }}{{ tag }} {% endfor %}", "1vip 2new "),
        ("{{ run.order.number }}", "A-17"),
        ("{{ 0 | date: '%Y-%m-%d %H:%M' }}", "1970-01-01 00:00"),
    ],
)
def test_optional_values_can_be_asked_for(source: str, expected: str) -> None:
    assert text(source) == expected


HOSTILE = [
    "{{ (1..10000000) | join | size }}",
    "{% for a in (1..99999999999999999999999) %}x{% endfor %}",
    "{% for a in (1..1000) %}{% for b in (1..1000) %}x{% endfor %}{% endfor %}",
    "{% for a in (1..1000) %}x{% endfor %}" * 1000,
    "{% for a in (1..1000) %}" + "{% if true %}{% endif %}" * 5000 + "{% endfor %}",
    "{% assign x = 'xxxxxxxxxx' %}" + "{% assign x = x | replace: 'x', 'xxxxxxxxxx' %}" * 9 + "{{ x }}",
    "{% assign x = 'xxxxxxxxxx' %}" + "{% assign x = x | append: x %}" * 40 + "{{ x }}",
    "{% assign x = 'x,x' | split: ',' %}" + "{% assign x = x | concat: x %}" * 40 + "{{ x | join: 'aaaaaaaaaa' }}",
    "{% assign n = 9999999999 %}" + "{% assign n = n | times: n %}" * 30 + "{{ n }}",
    "{% capture x %}" * 40 + "{% endcapture %}" * 40,
    "{% if true %}" * 500 + "{% endif %}" * 500,
    "{{ " + "contact[" * 2000 + "'a'" + "]" * 2000 + " }}",
    "{{ contact }}",
    "{{ contact.attributes }}",
    "{{ 'x' | date: '%Y' | safe }}",
    "{{ 1 | divided_by: 0 }}",
    "{{ 99999999999999 | date: '%Y' }}",
    "{% include 'secrets' %}",
    "{% render 'secrets' %}",
    "x" * 300_000,
    "{{" * 90_000,
    "{% raw %}" * 20_000,
    "{% a" * 40_000,
    ("{{" + " " * 9_000 + "}}") * 20,
]


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_template_fails_soon(source: str) -> None:
    began = time.process_time()
    for render in (text, html):
        with pytest.raises(RenderingFailed):
            render(source)
    assert time.process_time() - began < 5


values = st.text(st.sampled_from("<>&\"'%3Cscript/;=aA \n\\x+"), max_size=30) | st.sampled_from(
    ["<script>", "%3Cscript%3E", "&lt;script&gt;", "PHNjcmlwdD4=", "&amp;lt;script&amp;gt;", "&#60;script&#62;"]
)
ARGUMENTS = {
    "replace": 2,
    "replace_first": 2,
    "replace_last": 2,
    "slice": 0,
    "append": 1,
    "prepend": 1,
    "remove": 1,
    "split": 1,
    "default": 1,
}
filters = st.lists(st.sampled_from(sorted(set(HardenedEnvironment(autoescape=True).filters) - {"date"})), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(value=values, other=values, chain=filters)
def test_no_chain_of_filters_lets_a_value_become_markup(value: str, other: str, chain: list[str]) -> None:
    """The template is the author's; the values are a stranger's. No tag of the stranger's may appear."""
    stranger = message_context({"first_name": value, "last_name": other}, {}, "Acme", None)
    steps = []
    for name in chain:
        arguments = ", ".join(["contact.last_name"] * ARGUMENTS.get(name, 0)) or ("0, 10" if name == "slice" else "")
        steps.append(f"{name}: {arguments}" if arguments else name)
    source = "{{ contact.first_name | " + " | ".join(steps) + " }}"
    try:
        printed = render_email("s", source, "", stranger).html
    except RenderingFailed:
        return
    assert "<" not in printed.replace("<br />", "")


def test_analysis_names_what_a_template_reads() -> None:
    source = "{% for t in contact.tags %}{{ t }}{% endfor %}{{ run.a.b }}{% if contact.attributes.plan %}{{ unsubscribe_url }}{% endif %}"
    assert analyze(source).variables == ("contact.attributes.plan", "contact.tags", "run.a.b", "unsubscribe_url")


@pytest.mark.parametrize(
    ("source", "code", "where"),
    [
        ("a\n  {{ contact.first_name", "syntax", "line 2, column 3"),
        ("{% if contact.email %}", "syntax", "line 1"),
        ("x\n{{ contact.email | shout }}", "unknown_filter", "line 2"),
        ("{{ contact.email | safe }}", "unknown_filter", "line 1"),
        ("{{ contact.frist_name }}", "unknown_variable", "line 1, column 4"),
        ("{{ customer.name }}", "unknown_variable", "line 1"),
        ("{% include 'x' %}", "syntax", "line 1"),
    ],
)
def test_analysis_refuses_with_line_and_column(source: str, code: str, where: str) -> None:
    problem = analyze(source, "html").problems[0]
    assert (problem.path, problem.code) == ("html", code)
    assert problem.message.startswith(where)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("{}%|'\"[]().,: \nabifcontact0-=<>"), max_size=80))
def test_analysis_and_rendering_never_raise_anything_else(source: str) -> None:
    analyze(source)
    with contextlib.suppress(RenderingFailed):
        text(source)


def test_a_usual_mail_renders_within_a_millisecond_when_warm() -> None:
    source = (
        "<p>Hello {{ contact.first_name }}</p>{% for t in contact.tags %}<li>{{ t }}</li>{% endfor %}<a href='{{ unsubscribe_url }}'>x</a>"
        * 3
    )
    render_email("Hi {{ contact.first_name }}", source, source, context())
    began = time.process_time()
    for _ in range(100):
        render_email("Hi {{ contact.first_name }}", source, source, context())
    assert (time.process_time() - began) / 100 < 0.003
