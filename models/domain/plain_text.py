"""The text part of a mail whose author wrote only HTML. Pure.

Works on the template, not on the rendered mail: Liquid is set aside, the HTML becomes text, Liquid is put back. So it is done
once, when the template is saved, and its author can read what text readers will get.
"""

import re
from html import unescape

_OPENING = re.compile(r"\{[{%]")
_TOKEN = re.compile("\ue000(\\d+)\ue001")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = frozenset(
    (
        *_HEADINGS,
        "address",
        "article",
        "blockquote",
        "center",
        "div",
        "footer",
        "form",
        "header",
        "li",
        "ol",
        "p",
        "section",
        "table",
        "tr",
        "ul",
    )
)
_TAG = re.compile(r"<(?P<closing>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?P<attributes>[^<>]*)>|<[!?/][^<>]*>")
_VALUE = r"""\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))"""
_HREF = re.compile(r"(?i)\bhref" + _VALUE)
_ALT = re.compile(r"(?i)\balt" + _VALUE)
_UNSEEN = frozenset(("head", "style", "script", "title", "template"))


def text_of(html: str) -> str:
    """The text that this HTML template shows, its Liquid untouched. Links become "words (address)", images their description."""
    without, kept = _set_aside(html.replace("\ue000", "").replace("\ue001", ""))
    text = _tidy(_shown(_without_comments(without)))
    # What was text in HTML, such as &#123;&#123;, must not turn into Liquid.
    text = text.replace("{{", "{ {").replace("{%", "{ %")
    return _TOKEN.sub(lambda match: kept[int(match[1])], text)


def _set_aside(html: str) -> tuple[str, list[str]]:
    """The HTML with a token for each piece of Liquid, and the pieces. One pass: a pattern with both ends takes quadratic time."""
    out: list[str] = []
    kept: list[str] = []
    at = 0
    while (found := _OPENING.search(html, at)) is not None:
        closing = "}}" if found[0] == "{{" else "%}"
        end = html.find(closing, found.end())
        if end < 0:
            break
        out += [html[at : found.start()], f"\ue000{len(kept)}\ue001"]
        at = end + len(closing)
        kept.append(html[found.start() : at])
    return "".join(out) + html[at:], kept


def _tidy(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _shown(html: str) -> str:
    """The text of HTML without Liquid. Unlike the standard library's parser it takes linear time on broken HTML as well."""
    pieces: list[str] = []
    link: str | None = None
    at = 0
    lowered = html.lower()
    while (found := _TAG.search(html, at)) is not None:
        pieces.append(_words(html[at : found.start()]))
        at = found.end()
        closing, name, attributes = found["closing"] == "/", (found["name"] or "").lower(), found["attributes"] or ""
        if name in _UNSEEN and not closing:
            end = lowered.find(f"</{name}", at)
            at = len(html) if end < 0 else end
        elif name == "a" and closing:
            pieces.append(f" ({link})" if link else "")
            link = None
        elif name == "a":
            address = _attribute(_HREF, attributes)
            link = None if address is None or address.startswith(("#", "mailto:")) else address
        else:
            pieces.append(_mark(name, closing, attributes))
    return "".join(pieces) + _words(html[at:])


def _words(html: str) -> str:
    return unescape(html).replace("\n", " ").replace("\r", " ")


def _mark(name: str, closing: bool, attributes: str) -> str:
    """What stands in the text for a tag."""
    match name:
        case "br":
            return "\n"
        case "img":
            return _attribute(_ALT, attributes) or ""
        case "td" | "th":
            return " "
        case "li" | "tr":
            return "" if closing else "\n- " if name == "li" else "\n"
    return "\n\n" if name in _BLOCKS else ""


def _attribute(pattern: re.Pattern[str], attributes: str) -> str | None:
    found = pattern.search(attributes) if len(attributes) <= 5_000 else None
    return unescape(next(group for group in found.groups("") if group)) if found and any(found.groups()) else None


def _without_comments(html: str) -> str:
    pieces, at = [], 0
    while (start := html.find("<!--", at)) >= 0:
        end = html.find("-->", start + 4)
        pieces.append(html[at:start])
        if end < 0:
            return "".join(pieces)
        at = end + 3
    return "".join(pieces) + html[at:]
