"""The fast paths must never say anything but what the libraries say."""

import random

import phonenumbers
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from models.addresses import normalize_email, normalize_phone, normalize_timezone
from models.domain.contact import Malformed


def library_phone(text: str, country: str | None) -> str | None:
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if phonenumbers.is_valid_number(number) else None


def our_phone(text: str, country: str | None) -> str | None:
    try:
        return normalize_phone(text, country)
    except Malformed:
        return None


@pytest.mark.parametrize("country", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_phones_are_read_as_the_library_reads_them(country: str) -> None:
    chance = random.Random(country)
    for kind in (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.TOLL_FREE):
        example_number = phonenumbers.example_number_for_type(country, kind)
        if example_number is None:
            continue
        for changes in range(3):
            digits = list(phonenumbers.national_significant_number(example_number))
            for _ in range(changes):
                digits[chance.randrange(len(digits))] = chance.choice("0123456789")
            national = "".join(digits)
            for text in (f"+{example_number.country_code}{national}", national, f"0{national}", f"({national[:3]}) {national[3:]}"):
                assert our_phone(text, country) == library_phone(text, country), (text, country)


@given(st.from_regex(r"[A-Za-z0-9_.+-]{1,8}@([a-z0-9-]{1,6}\.){1,2}(com|de|test|local|x)", fullmatch=True))
@example("a@b--c.com")
@example("a..b@example.com")
@example("a@-b.com")
@example("a@b-.com")
@example("a" * 65 + "@example.com")
@example("a@" + "b" * 64 + ".com")
def test_emails_are_read_as_the_library_reads_them(text: str) -> None:
    try:
        expected: str | None = validate_email(text, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        expected = None
    try:
        found: str | None = normalize_email(text)
    except Malformed:
        found = None
    assert found == expected


def test_only_the_domain_of_an_email_is_folded() -> None:
    assert normalize_email(" Ada.L@Example.COM ") == "Ada.L@example.com"


def test_zones_are_found_whatever_their_case() -> None:
    assert normalize_timezone("america/new york") == "America/New_York"
    for wrong in ("EST5", "Factory", "localtime", "../etc/passwd", ""):
        with pytest.raises(Malformed):
            normalize_timezone(wrong)
