"""Emails, phone numbers and time zones in their one form. Nothing here asks the network.

Imports check millions of values, so each has a fast path: a pattern that accepts only what the library would accept
unchanged. Everything else goes to the library (email-validator 22 us, phonenumbers 97 us per value).
"""

import re
from dataclasses import dataclass
from functools import cache

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers.phonemetadata import PhoneMetadata

from models.domain.contact import Malformed
from models.domain.zones import zone_names

_ATOM = r"[A-Za-z0-9_+-]{1,64}"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PLAIN_EMAIL = re.compile(
    rf"(?=.{{3,200}}$)(?!.*--)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?:com|net|org|edu|gov|[a-z]{{2}})"
)
_PUNCTUATION = str.maketrans("", "", " ()-./\u00a0\u2010\u2011\u2013")
_INTERNATIONAL = re.compile(r"\+[1-9][0-9]{6,14}")
_TYPES = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan", "voicemail",
)  # fmt: skip


def normalize_email(value: str) -> str:
    """Checked for syntax, its domain in lower case. The part before the @ keeps its case.

    Domains under .test are accepted, for installations that try things out.

    Raises:
        Malformed: it is not an address.
    """
    text = value.strip()
    if _PLAIN_EMAIL.fullmatch(text):
        return text
    try:
        return validate_email(text, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        raise Malformed("not_an_email", "This is not a valid email address.") from None


def normalize_phone(value: str, country: str | None) -> str:
    """E.164. A number without + and country code is read as one of `country` (ISO 3166-1 alpha-2).

    Raises:
        Malformed: there is no such number, or no country to read it in.
    """
    compact = value.translate(_PUNCTUATION)
    if _INTERNATIONAL.fullmatch(compact):
        if _is_valid_international(compact):
            return compact
    elif country is not None and compact.isascii() and compact.isdigit() and (found := _read_national(compact, country)):
        return found
    return _parse_phone(value, country)


def _is_valid_international(number: str) -> bool:
    """Whether the library would call `+…` valid as it stands. False may also mean: ask the library."""
    for length in (1, 2, 3):
        pattern = _valid_in_code(int(number[1 : 1 + length]))
        if pattern is not None:
            return pattern.fullmatch(number, 1 + length) is not None
    return False


def _read_national(digits: str, country: str) -> str | None:
    rules = _national_rules(country)
    if rules is None or rules.abroad.match(digits):
        return None
    if rules.prefix and digits.startswith(rules.prefix):
        digits = digits[len(rules.prefix) :]
    return f"+{rules.code}{digits}" if rules.numbers.fullmatch(digits) else None


@dataclass(frozen=True)
class _NationalRules:
    code: int
    prefix: str | None  # dialled before a national number
    abroad: re.Pattern[str]  # dialled before a foreign number
    numbers: re.Pattern[str]


@cache
def _valid_in_code(code: int) -> re.Pattern[str] | None:
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(code)
    if regions is None or "001" in regions:
        return None
    return _any_of([metadata for region in regions if (metadata := PhoneMetadata.metadata_for_region(region))])


@cache
def _national_rules(country: str) -> _NationalRules | None:
    metadata = PhoneMetadata.metadata_for_region(country)
    if metadata is None or metadata.country_code is None or metadata.international_prefix is None:
        return None
    if metadata.national_prefix_for_parsing not in (None, metadata.national_prefix):
        return None  # prefixes that are rewritten, as in Argentina: the library knows
    abroad = re.compile(metadata.international_prefix)
    return _NationalRules(metadata.country_code, metadata.national_prefix, abroad, _any_of([metadata], _TYPES[:2]))


def _any_of(regions: list[PhoneMetadata], types: tuple[str, ...] = _TYPES) -> re.Pattern[str]:
    """What `phonenumbers.is_valid_number` accepts: a number of any of the types in any of the regions."""
    descriptions = [getattr(metadata, kind) for metadata in regions for kind in types]
    patterns = dict.fromkeys(found.national_number_pattern for found in descriptions if found and found.national_number_pattern)
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


def _parse_phone(value: str, country: str | None) -> str:
    try:
        number = phonenumbers.parse(value, country)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE and country is None:
            raise Malformed("phone_without_country", "Write the number with + and its country code, or give the country.") from None
        raise Malformed("not_a_phone", "This is not a phone number.") from None
    if not phonenumbers.is_valid_number(number):
        raise Malformed("not_a_phone", "No such phone number exists in its country.")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def normalize_timezone(value: str) -> str:
    """The IANA name as IANA writes it; case and spaces for underscores are forgiven. Raises Malformed."""
    found = _zones().get(value.strip().lower().replace(" ", "_"))
    if found is None:
        raise Malformed("unknown_timezone", "Give an IANA time zone, such as America/New_York or Europe/Berlin.")
    return found


@cache
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in zone_names()}
