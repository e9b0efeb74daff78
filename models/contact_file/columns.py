"""Which column of a file holds which field of a contact."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.domain.contact import FIELDS
from models.domain.errors import Invalid, Problem

# How spreadsheets and other systems head their columns, after `_simplify`.
_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "external_id": ("externalid", "id", "customerid", "customernumber", "userid", "contactid", "memberid", "subscriberid", "crmid"),
    "email": ("email", "emailaddress", "mail", "emailaddr", "primaryemail", "correo", "correoelectronico", "courriel", "emailadresse"),
    "phone": (
        "phone",
        "phonenumber",
        "mobile",
        "mobilephone",
        "mobilenumber",
        "cell",
        "cellphone",
        "telephone",
        "tel",
        "telefon",
        "msisdn",
    ),
    "first_name": ("firstname", "first", "givenname", "forename", "fname", "vorname", "prenom", "nombre"),
    "last_name": ("lastname", "last", "surname", "familyname", "lname", "nachname", "nom", "apellido", "apellidos"),
    "locale": ("locale", "language", "lang", "languagecode", "preferredlanguage", "sprache", "langue", "idioma"),
    "timezone": ("timezone", "tz", "timezonename", "ianatimezone", "zeitzone"),
    "country": ("country", "countrycode", "land", "pays", "pais"),
    "region": ("region", "state", "province", "stateprovince", "county", "bundesland"),
    "postal_code": ("postalcode", "zip", "zipcode", "postcode", "plz", "codepostal", "codigopostal"),
    "tags": ("tags", "tag", "labels"),
}
_BY_VARIANT = {variant: field for field, variants in _VARIANTS.items() for variant in variants}
TARGETS = (*FIELDS, "tags")


@dataclass(frozen=True)
class Column:
    """`field` is a contact's field, `tags` or `attributes.<key>`."""

    index: int
    header: str
    field: str


@dataclass(frozen=True)
class Columns:
    used: tuple[Column, ...]
    ignored: tuple[str, ...]  # headers that name nothing we know


def map_columns(header: Sequence[str], mapping: Mapping[str, str | None], schema: Mapping[str, Any]) -> Columns:
    """What each column holds: as `mapping` (header to field, None to ignore it) says, else by its header.

    Raises:
        Invalid: there is no header, a mapping does not fit, two columns hold one field, or nothing identifies contacts.
    """
    titles = [title.strip() for title in header]
    if not any(titles) or any("@" in title for title in titles):
        raise Invalid.field("file", "missing_header", "The first line must name the columns, such as email,first_name,country.")
    strangers = [name for name in mapping if name not in titles]
    if strangers:
        raise Invalid([Problem(f"options.mapping.{name}", "unknown_column", "The file has no column of this name.") for name in strangers])
    used, ignored = [], []
    for index, title in enumerate(titles):
        field = mapping[title] if title in mapping else _recognize(title)
        if field is not None:
            used.append(Column(index, title, field))
        elif title:
            ignored.append(title)
    _check(used, schema)
    return Columns(tuple(used), tuple(ignored))


def _recognize(title: str) -> str | None:
    if title.startswith("attributes."):
        return title
    return _BY_VARIANT.get(re.sub(r"[\W_]", "", title.lower()))


def _check(used: Sequence[Column], schema: Mapping[str, Any]) -> None:
    problems = []
    seen: dict[str, str] = {}
    for column in used:
        if column.field in seen:
            message = f"The columns {seen[column.field]!r} and {column.header!r} both hold {column.field}; map one of them to null."
            problems.append(Problem("options.mapping", "duplicate_column", message))
        seen[column.field] = column.header
        key = column.field.removeprefix("attributes.")
        if key != column.field and key not in schema:
            message = f"The organization has no attribute {key}; add it to attribute_schema, or map the column to null."
            problems.append(Problem(f"options.mapping.{column.header}", "unknown_attribute", message))
        elif key == column.field and key not in TARGETS:
            message = f"Map it to one of {', '.join(TARGETS)} or attributes.<key>."
            problems.append(Problem(f"options.mapping.{column.header}", "unknown_field", message))
    if not problems and not {"email", "external_id"} & set(seen):
        message = "No column holds email or external_id, by which contacts are recognised; name one so, or give options.mapping."
        problems.append(Problem("file", "no_identity_column", message))
    if problems:
        raise Invalid(problems)
