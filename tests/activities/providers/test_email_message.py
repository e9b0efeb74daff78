from dataclasses import replace
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import compat32, default
from email.utils import parseaddr
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activities.providers.email_message import BadRecipient, MalformedMail, UnsubscribeMissing, build
from activities.providers.port import Mailbox
from tests.inbox import email

characters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029")
headers = st.text(characters, max_size=300).map(lambda value: " ".join(value.split()))
bodies = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\r\t ."), min_size=1, max_size=3000)


def parsed(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def content(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def display_name(raw: bytes) -> str:
    """Read with the older policy: the newer one puts a blank between encoded words of a name, against RFC 2047 section 6.2."""
    name, address = parseaddr(message_from_bytes(raw, policy=compat32)["From"])
    assert address == "news@example.com"
    return str(make_header(decode_header(name)))


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


@given(subject=headers, name=headers, text=bodies, html=bodies)
@example(subject="ж" * 100, name="0" * 100, text="x", html="x")
def test_the_standard_parser_reads_back_what_was_written(subject: str, name: str, text: str, html: str) -> None:
    raw = build(email(subject=subject, sender=Mailbox("news@example.com", name), text=text, html=html))
    message = parsed(raw)
    assert message["Subject"] == subject
    assert display_name(raw) == name
    assert lines(content(message, "plain")) == lines(text)
    assert lines(content(message, "html")) == lines(html)


@given(subject=headers, text=bodies, html=bodies)
def test_no_line_is_too_long_for_any_server(subject: str, text: str, html: str) -> None:
    raw = build(email(subject=subject, text=text, html=html))
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"") and b"\r" not in raw.replace(b"\r\n", b"")


@given(breaker=st.sampled_from(["\r\n", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028"]), before=headers, after=headers)
def test_no_header_can_be_slipped_in(breaker: str, before: str, after: str) -> None:
    evil = f"{before}{breaker}Bcc: eve@example.com{after}"
    for message in (email(subject=evil), email(sender=Mailbox("news@example.com", evil))):
        with pytest.raises(MalformedMail):
            build(message)


@pytest.mark.parametrize(
    "address", ["a@b\r\nBcc: eve@example.com", "a b@example.com", "<a@example.com>", "@example.com", "a@", "a@b@c", "a@-x-"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadRecipient):
        build(email(recipient=address))
    with pytest.raises(MalformedMail):
        build(email(reply_to=address))


def test_an_international_domain_goes_as_punycode() -> None:
    assert parsed(build(email(recipient="ann@bücher.example")))["To"] == "ann@xn--bcher-kva.example"


def test_marketing_carries_both_headers_of_one_click() -> None:
    message = parsed(build(email(unsubscribe_url="https://example.com/u/abc")))
    assert message["List-Unsubscribe"] == "<https://example.com/u/abc>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize("url", [None, "", "mailto:a@example.com", "https://example.com/ x", "https://example.com/>\r\nBcc: x"])
def test_marketing_cannot_be_built_without_a_usable_link(url: str | None) -> None:
    with pytest.raises(UnsubscribeMissing):
        build(email(unsubscribe_url=url))


def test_transactional_mail_has_no_unsubscribe_headers() -> None:
    message = parsed(build(email(purpose="transactional", unsubscribe_url="https://example.com/u/abc")))
    assert message["List-Unsubscribe"] is None and message["List-Unsubscribe-Post"] is None


def test_a_duplicate_can_be_recognised() -> None:
    message = email(delivery_id=UUID(int=7))
    first, second = parsed(build(message)), parsed(build(replace(message, subject="Again")))
    assert first["Message-ID"] == second["Message-ID"] == "<00000000-0000-0000-0000-000000000007@example.com>"
    assert first["X-LeadStats-Delivery"] == "00000000-0000-0000-0000-000000000007"


def test_a_mail_needs_a_body() -> None:
    with pytest.raises(MalformedMail, match="body_empty"):
        build(email(text="", html=""))
    assert parsed(build(email(html=""))).get_content_type() == "text/plain"
    assert parsed(build(email(text=""))).get_content_type() == "text/html"


def test_the_boundary_cannot_be_forged() -> None:
    message = email()
    with pytest.raises(MalformedMail, match="body_holds_boundary"):
        build(replace(message, text=f"--=_{message.delivery_id.hex}--"))


def test_long_plain_lines_and_long_foreign_text_survive() -> None:
    for text in ("x" * 5000, "ж" * 5000, "日本語" * 2000, "= =3D\t \n trailing \n"):
        assert lines(content(parsed(build(email(text=text))), "plain")) == lines(text)
