"""Makes `contacts.csv`: 1,000 invented people, always the same ones. Run it from the root: python -m deploy.demo.make_contacts

Messy as real files are, but valid: every cell is one that the import accepts. Addresses are at domains reserved for
examples, phone numbers from ranges reserved for fiction, so nobody real can be in here.
"""

import csv
import json
import random
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

from deploy.demo.places import PLACES, Place

CONTACTS = 1_000
SEED = 2026
FILE = Path(__file__).with_name("contacts.csv")
DOMAINS = ("example.com", "example.org", "example.net", "Example.COM", "mail.example.org")
PLANS = ("free", "free", "team", "business", "")
COMPANIES = (
    "Nordwind & Söhne, GmbH",
    'The "Blue Door" Bakery',
    "Kestrel, Finch and Partners",
    "Atelier Lumière",
    "株式会社みなと",
    "Okafor Logistics",
    "Sol y Sombra, S.A.",
)
INTERESTS = ("cycling", "gardening", "jazz", "cooking", "maps", "sailing")
TAGS = ("VIP", "partner", "webinar 2025", "Trade fair", "wholesale", "vip")
METHODS = (
    ("form", "https://shop.example.com/subscribe"),
    ("checkout", "Checkout, box under the address"),
    ("paper", "Trade fair Leipzig, card 7, hall 3"),
    ("phone", "Service line, call recorded"),
)
NOTES = ("", "", "", "Prefers mail, never calls", 'Said "call me later"', "Two lines,\nas pasted from a mail")
COLUMNS = (
    "external_id", "email", "phone", "first_name", "last_name", "locale", "timezone", "country", "region", "postal_code",
    "plan", "seats", "lifetime_value", "customer_since", "beta_tester", "interests", "company", "note", "tags",
    "newsletter", "product_news", "events", "consented_at", "withdrawn_at", "renewed_at", "consent_method", "consent_source", "opted_out",
)  # fmt: skip
TOPICS = (("newsletter", 66), ("product_news", 52), ("events", 42))  # with the percentage that ever agreed


T = TypeVar("T")


class Chance:
    """Draws that are the same with every Python: only `random.random` promises that for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, end: int, start: int = 0) -> int:
        return start + int(self._random.random() * (end - start))

    def choice(self, items: Sequence[T], weights: Sequence[int] | None = None) -> T:
        if weights is None:
            return items[self.below(len(items))]
        return items[bisect_right(list(accumulate(weights)), self.below(sum(weights)))]

    def some(self, percent: int, value: str) -> str:
        """The value for this many of a hundred people, and nothing for the others."""
        return value if self.below(100) < percent else ""

    def several(self, items: Sequence[T], count: int) -> list[T]:
        """Different ones, in any order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]


class Name(NamedTuple):
    written: str
    ascii: str


def make_contacts(chance: Chance) -> list[dict[str, str]]:
    """One row per person. In any beginning of the list every kind of person occurs about as often as in the whole."""
    weights = [place.weight for place in PLACES]
    return [_contact(chance, number, chance.choice(PLACES, weights)) for number in range(1, CONTACTS + 1)]


def _contact(chance: Chance, number: int, place: Place) -> dict[str, str]:
    zone, region, postal, area = chance.choice(place.zones)
    first, last = (_name(chance.choice(names.split())) for names in (place.first_names, place.last_names))
    country = chance.some(96, place.country if chance.below(10) < 9 else place.country.lower())
    return {
        "external_id": f"crm-{number:05d}",
        "email": _email(chance, first, last, number),
        "phone": _phone(chance, place, area, country),
        "first_name": chance.some(91, first.written),
        "last_name": chance.some(94, last.written),
        "locale": chance.some(85, chance.choice(place.locales)),
        "timezone": chance.some(84, _untidy(chance, zone)),
        "country": country,
        "region": chance.some(80, region),
        "postal_code": chance.some(80, "".join(str(chance.below(10)) if character == "#" else character for character in postal)),
        **_attributes(chance),
        **_consents(chance),
    }


def _name(text: str) -> Name:
    written, _, ascii_form = text.replace("~", " ").partition("|")
    plain = unicodedata.normalize("NFKD", ascii_form or written).encode("ascii", "ignore").decode()
    return Name(written, "".join(character for character in plain.lower() if character.isalnum() or character == "-"))


def _untidy(chance: Chance, value: str) -> str:
    return chance.choice((value, f" {value} ", value.lower()), (90, 6, 4))


def _email(chance: Chance, first: Name, last: Name, number: int) -> str:
    local = chance.choice((f"{first.ascii}.{last.ascii}", f"{last.ascii}+news", f"{first.ascii[0]}{last.ascii}"))
    address = f"{local}{number}@{chance.choice(DOMAINS)}"
    written = chance.choice((address, address.title().replace("+News", "+News"), address.upper(), f" {address}"), (78, 12, 5, 5))
    return chance.some(94, written)


def _phone(chance: Chance, place: Place, area: str, country: str) -> str:
    if not place.phones:
        return ""
    digits = {"one": str(chance.below(10)), "two": f"{chance.below(100):02d}", "three": f"{chance.below(1000):03d}"}
    written = chance.some(60, chance.choice(place.phones).format(area=area, **digits))
    return written if country or written.startswith("+") else ""  # without a country nobody can tell whose number it is


def _attributes(chance: Chance) -> dict[str, str]:
    plan = chance.choice(PLANS)
    interests = chance.several(INTERESTS, chance.below(4))
    return {
        "plan": plan,
        "seats": str(chance.below(400, 2)) if plan in ("team", "business") else "",
        "lifetime_value": f"{chance.below(500_000) / 100:.2f}" if plan != "free" else "",
        "customer_since": chance.some(70, (date(2019, 1, 1) + timedelta(days=chance.below(2_300))).isoformat()),
        "beta_tester": chance.choice(("yes", "no", "", "TRUE", "0")),
        "interests": json.dumps(interests) if chance.below(10) == 0 else ";".join(interests),
        "company": chance.some(35, chance.choice(COMPANIES)),
        "note": chance.choice(NOTES),
        "tags": "; ".join(chance.several(TAGS, chance.choice((0, 0, 1, 1, 2, 3)))),
    }


def _consents(chance: Chance) -> dict[str, str]:
    """`yes` agreed; `left` agreed and withdrew; `back` agreed, withdrew and agreed again; empty: never asked, or said no."""
    said = {topic: chance.some(percent, chance.choice(("yes", "left", "back"), (85, 10, 5))) for topic, percent in TOPICS}
    consented = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.below(900_000))
    withdrawn = consented + timedelta(minutes=chance.below(300_000, 60))
    renewed = withdrawn + timedelta(minutes=chance.below(200_000, 60))
    method, source = chance.choice(METHODS)
    answers, ever = set(said.values()), any(said.values())
    return {
        **said,
        "consented_at": _instant(consented) if ever else "",
        "withdrawn_at": _instant(withdrawn) if answers & {"left", "back"} else "",
        "renewed_at": _instant(renewed) if "back" in answers else "",
        "consent_method": method if ever else "",
        "consent_source": source if ever else "",
        "opted_out": chance.some(6, chance.choice(("unsubscribed", "bounced", "complained"))),
    }


def _instant(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def write(path: Path) -> None:
    """The file holds the 1,000 people, as a comma-separated file in UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(make_contacts(Chance(SEED)))


if __name__ == "__main__":
    write(FILE)
