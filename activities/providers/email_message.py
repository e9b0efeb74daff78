"""A mail as the bytes that go over the wire.

The standard library's `EmailMessage` takes about 1 ms for a usual mail; this takes about 0.05 ms and is tested
against the standard library's parser.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from email.utils import format_datetime

import idna

from activities.providers.port import Mailbox, OutgoingEmail

_ADDRESS = re.compile(r"[^\s<>()\[\]\\,;:\"@\x00-\x20\x7f-\uffff]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")
_PLAIN_HEADER = re.compile(r"[\x20-\x7e]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9 !#$%&'*+/=?^_`{|}~-]*")
_URL = re.compile(r"https?://[\x21-\x3b\x3d\x3f-\x7e]{1,900}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_CHUNK = 45  # bytes: 60 characters of base64 and 12 of frame stay under the 75 that RFC 2047 allows
_LINE = 76


class MalformedMail(ValueError):
    """This mail cannot be put into a valid message. `reason` is a code without personal data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadRecipient(MalformedMail):
    """The recipient's address cannot be written to."""


class UnsubscribeMissing(MalformedMail):
    """A marketing mail without a way to leave must not exist."""


def wire_address(address: str) -> str:
    """The address in ASCII, an international domain as punycode.

    Raises:
        MalformedMail: not an address, or its local part needs SMTPUTF8.
    """
    local, at, domain = address.strip().rpartition("@")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            raise MalformedMail("address_invalid") from None
    if not local.isascii():
        raise MalformedMail("address_needs_smtputf8")
    if not _ADDRESS.fullmatch(local + at + domain) or ".." in domain:
        raise MalformedMail("address_invalid")
    return local + at + domain


def recipient_address(message: OutgoingEmail) -> str:
    """The recipient in ASCII. Raises BadRecipient."""
    try:
        return wire_address(message.recipient)
    except MalformedMail as error:
        raise BadRecipient(error.reason) from None


def build(message: OutgoingEmail) -> bytes:
    """The message with CRLF line ends, all ASCII, no line over 998 characters.

    The Message-ID is made from the delivery id, so a duplicate can be recognised.

    Raises:
        UnsubscribeMissing: marketing without an http(s) unsubscribe URL.
        MalformedMail: an address or header that cannot be written, or no body.
    """
    head = "\r\n".join(_headers(message))
    return (head + "\r\n" + _body(message)).encode("ascii")


def _headers(message: OutgoingEmail) -> Iterator[str]:
    sender = wire_address(message.sender.address)
    yield "From: " + _mailbox(Mailbox(sender, message.sender.name))
    yield "To: " + recipient_address(message)
    if message.reply_to:
        yield "Reply-To: " + wire_address(message.reply_to)
    yield "Subject: " + _text(message.subject)
    yield "Date: " + format_datetime(message.sent_at)
    yield f"Message-ID: <{message.delivery_id}@{sender.rpartition('@')[2]}>"
    yield f"X-LeadStats-Delivery: {message.delivery_id}"
    if message.purpose == "marketing":
        if message.unsubscribe_url is None or not _URL.fullmatch(message.unsubscribe_url):
            raise UnsubscribeMissing("unsubscribe_missing")
        yield f"List-Unsubscribe: <{message.unsubscribe_url}>"
        yield "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
    yield "MIME-Version: 1.0"


def _mailbox(mailbox: Mailbox) -> str:
    if not mailbox.name:
        return mailbox.address
    if len(mailbox.name) <= 60 and _PLAIN_NAME.fullmatch(mailbox.name) and "=?" not in mailbox.name:
        return f'"{mailbox.name}" <{mailbox.address}>'
    return f"{_encoded(mailbox.name)}\r\n <{mailbox.address}>"


def _text(value: str) -> str:
    """An unstructured header's value: as it is when short and plain, otherwise encoded words."""
    if len(value) <= 68 and "=?" not in value and value == value.strip() and _PLAIN_HEADER.fullmatch(value):
        return value
    return _encoded(value)


def _encoded(value: str) -> str:
    if _FORBIDDEN.search(value):
        raise MalformedMail("header_line_break")
    try:
        return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(chunk).decode()}?=" for chunk in _chunks(value.encode()))
    except UnicodeEncodeError:
        raise MalformedMail("header_not_unicode") from None


def _chunks(raw: bytes) -> Iterator[bytes]:
    """Pieces of at most `_CHUNK` bytes that do not cut a character."""
    start = 0
    while start < len(raw):
        end = min(start + _CHUNK, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
        yield raw[start:end]
        start = end


def _body(message: OutgoingEmail) -> str:
    parts = [_part(subtype, content) for subtype, content in (("plain", message.text), ("html", message.html)) if content]
    match parts:
        case []:
            raise MalformedMail("body_empty")
        case [only]:
            return only
    # No encoding in use can produce this line: quoted-printable and base64 never hold "=_", and 7-bit parts are checked.
    boundary = f"=_{message.delivery_id.hex}"
    if any(boundary in part for part in parts):
        raise MalformedMail("body_holds_boundary")
    joined = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n{joined}--{boundary}--\r\n'


def _part(subtype: str, content: str) -> str:
    try:
        raw = _CONTROL.sub("", content).replace("\r\n", "\n").replace("\r", "\n").encode()
    except UnicodeEncodeError:
        raise MalformedMail("body_not_unicode") from None
    encoding, encoded = _transfer(raw)
    return f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{encoded}"


def _transfer(raw: bytes) -> tuple[str, str]:
    """The smallest encoding that survives every mail server."""
    if raw.isascii() and max(map(len, raw.split(b"\n"))) <= _LINE:
        return "7bit", raw.decode("ascii").replace("\n", "\r\n")
    quoted = binascii.b2a_qp(raw, istext=True)
    if len(quoted) < len(raw) * 4 // 3 + 64:
        return "quoted-printable", quoted.decode("ascii").replace("\n", "\r\n")
    return "base64", base64.encodebytes(raw.replace(b"\n", b"\r\n")).decode("ascii").replace("\n", "\r\n")
