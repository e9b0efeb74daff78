"""What a contact's values look like once they are in order: locale, country, tags, typed attributes. Pure.

Email, phone and time zone need the libraries that know them: `models.addresses`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal, get_args

from models.domain.errors import Problem
from models.domain.segment_values import is_storable

AttributeType = Literal["string", "number", "integer", "boolean", "date", "datetime", "strings"]

FIELDS = ("external_id", "email", "phone", "first_name", "last_name", "locale", "timezone", "country", "region", "postal_code")
MAX_LENGTHS = {
    "external_id": 200,
    "email": 254,
    "phone": 40,
    "first_name": 200,
    "last_name": 200,
    "locale": 35,
    "timezone": 64,
    "country": 2,
    "region": 100,
    "postal_code": 20,
}
MAX_TAGS = 100
MAX_TAG = 64
MAX_ATTRIBUTE_TEXT = 4_000
MAX_ATTRIBUTE_ITEMS = 200
ATTRIBUTE_KEY = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$"

# ISO 3166-1 alpha-2 as of 2026, and XK, which Kosovo uses.
_ISO_3166 = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF "
    "CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH "
    "GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW "
    "KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG "
    "NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN "
    "SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT "
    "ZA ZM ZW XK"
)
COUNTRIES = frozenset(_ISO_3166.split())
_LANGUAGE_TAG = re.compile(
    r"(?P<language>[a-z]{2,3}(?:-[a-z]{3}){0,3})(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|\d{3}))?"
    r"(?P<rest>(?:-(?:[a-z0-9]{5,8}|\d[a-z0-9]{3}))*(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*(?:-x(?:-[a-z0-9]{1,8})+)?)",
    re.ASCII | re.IGNORECASE,
)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{1,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
_BOOLEANS = {"true": True, "yes": True, "y": True, "1": True, "false": False, "no": False, "n": False, "0": False}


class Malformed(ValueError):
    """A value is not what its field holds. `code` is for programs, the text for people; neither repeats the value."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def normalize_tag(tag: str) -> str:
    """Lower case, without spaces around it, and single spaces within."""
    return " ".join(tag.lower().split())


def normalize_tags(tags: Sequence[str]) -> list[str]:
    """Normalised, each once, in order of their characters; empty ones are left out.

    Raises:
        Malformed: too many, too long, or with a character that separates tags in files.
    """
    found = sorted({tag for tag in map(normalize_tag, tags) if tag})
    if len(found) > MAX_TAGS:
        raise Malformed("too_many_tags", f"A contact has at most {MAX_TAGS} tags.")
    for tag in found:
        if len(tag) > MAX_TAG:
            raise Malformed("tag_too_long", f"A tag has at most {MAX_TAG} characters.")
        if any(character in tag for character in ";|") or not is_storable(tag):
            raise Malformed("tag_character", "A tag holds no semicolon, vertical bar or NUL.")
    return found


def normalize_text(field: str, value: str) -> str | None:
    """Without spaces around it; None when nothing is left.

    Raises:
        Malformed: longer than the field allows, or not storable.
    """
    text = value.strip()
    if len(text) > MAX_LENGTHS[field]:
        raise Malformed("too_long", f"At most {MAX_LENGTHS[field]} characters.")
    if not is_storable(text):
        raise Malformed("not_storable", "Text must be valid Unicode without NUL characters.")
    return text or None


def normalize_country(value: str) -> str:
    """ISO 3166-1 alpha-2 in upper case. Raises Malformed."""
    code = value.strip().upper()
    if code not in COUNTRIES:
        raise Malformed("unknown_country", "Give the country as two letters of ISO 3166-1, such as US or DE.")
    return code


def normalize_locale(value: str) -> str:
    """BCP 47 with its conventional case: `de`, `pt-BR`, `zh-Hant-TW`. Underscores are read as hyphens. Raises Malformed."""
    match = _LANGUAGE_TAG.fullmatch(value.strip().replace("_", "-"))
    if match is None or len(value) > MAX_LENGTHS["locale"]:
        raise Malformed("not_a_locale", "Give the language as in BCP 47, such as en, pt-BR or zh-Hant-TW.")
    parts = [match["language"].lower()]
    if match["script"]:
        parts.append(match["script"].title())
    if match["region"]:
        parts.append(match["region"].upper())
    return "-".join(parts) + match["rest"].lower()


def normalize_attributes(
    values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "attributes"
) -> tuple[dict[str, Any], list[Problem]]:
    """The values in the form that is stored, and what is wrong with the others. None means that the attribute is removed."""
    good: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in values.items():
        if key not in schema:
            known = ", ".join(sorted(schema)) or "none yet"
            problems.append(Problem(f"{path}.{key}", "unknown_attribute", f"The organization has no such attribute; it has {known}."))
            continue
        try:
            good[key] = None if value is None else normalize_attribute(value, schema[key]["type"])
        except Malformed as error:
            problems.append(Problem(f"{path}.{key}", error.code, error.message))
    return good, problems


def normalize_attribute(value: Any, kind: AttributeType) -> Any:
    """A JSON value as an attribute of this type holds it. Dates and times stay ISO 8601 text, times in UTC. Raises Malformed."""
    match kind, value:
        case "string", str():
            return _text(value)
        case (("number" | "integer"), int()) if not isinstance(value, bool) and abs(value) < 10**18:
            return value
        case "number", float() if math.isfinite(value):
            return value
        case "integer", float() if value.is_integer() and abs(value) < 10**15:
            return int(value)
        case "boolean", bool():
            return value
        case "date", str():
            return _date(value)
        case "datetime", str():
            return _datetime(value)
        case "strings", [*items] if len(items) <= MAX_ATTRIBUTE_ITEMS and all(isinstance(item, str) for item in items):
            return [_text(item) for item in items]
    raise Malformed("wrong_type", f"Give {_WANTED[kind]}.")


_WANTED: Mapping[AttributeType, str] = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "date": "a date as YYYY-MM-DD",
    "datetime": "a time with its zone, as 2026-05-01T09:00:00Z",
    "strings": f"a list of at most {MAX_ATTRIBUTE_ITEMS} texts",
}


def read_attribute(cell: str, kind: AttributeType) -> Any:
    """The attribute that a non-empty cell of a file means. Lists are a JSON array or divided by ; or |. Raises Malformed."""
    match kind:
        case "integer" if _WHOLE_NUMBER.fullmatch(cell):
            return int(cell)
        case "number" if _NUMBER.fullmatch(cell):
            return int(cell) if _WHOLE_NUMBER.fullmatch(cell) else normalize_attribute(float(cell), kind)
        case "boolean" if cell.lower() in _BOOLEANS:
            return _BOOLEANS[cell.lower()]
        case "strings":
            return normalize_attribute(_list(cell), kind)
        case "integer" | "number" | "boolean":
            raise Malformed("wrong_type", f"Give {_WANTED[kind]}.")
    return normalize_attribute(cell, kind)


def _list(cell: str) -> list[Any]:
    if cell.startswith("["):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            raise Malformed("wrong_type", "This starts like a JSON list but is none.") from None
        if isinstance(found, list):
            return found
    return [item.strip() for item in re.split(r"[;|]", cell) if item.strip()]


def _text(value: str) -> str:
    if len(value) > MAX_ATTRIBUTE_TEXT:
        raise Malformed("too_long", f"At most {MAX_ATTRIBUTE_TEXT:,} characters.")
    if not is_storable(value):
        raise Malformed("not_storable", "Text must be valid Unicode without NUL characters.")
    return value


def _date(value: str) -> str:
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise Malformed("wrong_type", f"Give {_WANTED['date']}.")


def _datetime(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        pass
    raise Malformed("wrong_type", f"Give {_WANTED['datetime']}.")


def check_attribute_schema(schema: Mapping[str, Any], path: str = "attribute_schema") -> list[Problem]:
    """What is wrong with an organization's attribute schema: `{"plan": {"type": "string"}}`."""
    problems: list[Problem] = []
    for key, declared in schema.items():
        if not re.fullmatch(ATTRIBUTE_KEY, key):
            problems.append(
                Problem(f"{path}.{key}", "bad_key", "A key has letters, digits, - and _, at most 63, and starts with a letter.")
            )
        if not isinstance(declared, Mapping) or set(declared) != {"type"} or declared["type"] not in get_args(AttributeType):
            known = ", ".join(get_args(AttributeType))
            problems.append(Problem(f"{path}.{key}", "bad_type", f'Declare it as {{"type": ...}} with one of {known}.'))
    return problems
