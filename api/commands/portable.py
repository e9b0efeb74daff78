"""Journeys that come and go as documents, and journeys made from others."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from api.commands import cases
from api.commands import templates as template_commands
from api.dependencies import Caller
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, NotAllowed, Problem, StaleRevision
from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.draft import storable
from models.domain.journey.portable import Name, Version, ids_in, names_in, ordered, with_ids, with_names
from models.domain.segment import NO_SEGMENTS
from models.domain.simulation.case import Case
from models.store import audit, draft_revisions, journey_versions, journeys, portable, segments, simulation_cases, templates, topics
from models.store.portable import TopicWords
from models.store.session import OrganizationSession
from models.tables.journeys import Journey

Outcome = Literal["created", "updated", "unchanged"]
_MAY_CREATE = {"topic": "contacts.write", "segment": "segments.write", "template": "templates.write"}


@dataclass(frozen=True)
class PortableTemplate:
    """`content`: the newest version's, None without any; `pinned`: of versions that the draft names, by their hash."""

    content: TemplateContent | None
    pinned: Mapping[str, TemplateContent]


@dataclass(frozen=True)
class Document:
    name: str
    draft: dict[str, Any]
    templates: Mapping[str, PortableTemplate]
    topics: Mapping[str, TopicWords]
    segments: Mapping[str, dict[str, Any]]
    cases: Sequence[Case] | None = None  # None: they are not spoken of


@dataclass(frozen=True)
class Part:
    """Something that the journey names. `differs`: it is here already, and was left as it is, but says something else."""

    kind: str
    name: str
    outcome: Literal["found", "differs", "created"]


@dataclass(frozen=True)
class Imported:
    """`journey_id` is None for a dry run that would have created it; `revision` is the draft's afterwards."""

    outcome: Outcome
    journey_id: UUID | None
    revision: int
    parts: Sequence[Part]


async def restore(caller: Caller, journey_id: UUID, saved_over: int, version: int | None, revision: int | None) -> Journey:
    """The draft is what the version was published from, or what was saved as that revision; what stood there is in the history.

    Raises:
        NotFound: no such journey, version or revision.
        StaleRevision, Conflict: as saving would.
    """
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        if version is not None:
            draft = await draft_revisions.published(session, await journey_versions.get(session, journey_id, version))
        else:
            draft = (await draft_revisions.get(session, journey_id, revision or 0)).draft
        if problems := storable(draft, "draft"):
            raise Invalid(problems)
        journey = await journeys.save_draft(session, journey_id, saved_over, draft, None, caller.person, "restore")
        of = {"version": version} if version is not None else {"restored_revision": revision}
        await audit.append(session, [_entry(caller, "journey.draft_restored", journey, revision=journey.revision, **of)])
    return journey


async def duplicate(caller: Caller, journey_id: UUID, name: str) -> Journey:
    """Another journey has the same draft. Raises NotFound; Conflict when the name is taken."""
    async with caller.session() as session:
        original = await journeys.get(session, journey_id)
        journey = await journeys.create(session, name, original.draft, caller.person, "duplicate")
        of = {"duplicate_of": original.id, "duplicated_revision": original.revision}
        await audit.append(session, [_entry(caller, "journey.created", journey, **of)])
    return journey


# --- Going ----------------------------------------------------------------------------------------------------------


async def export(caller: Caller, journey_id: UUID) -> Document:
    """The draft with everything that it names: the same journey gives the same document. Raises NotFound."""
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id)
        rules = await _rules(session, journey.draft)
        names = await portable.names(session, ids_in([journey.draft, list(rules.values())]))
        draft = with_names(journey.draft, names)
        named_rules = {name: ordered(with_names(rule, names)) for name, rule in sorted(rules.items())}
        mentioned = {(kind, name) for kind, _, name in names_in([draft, list(named_rules.values())], "")}
        return Document(
            name=journey.name,
            draft=ordered(draft),
            templates=await _templates(session, mentioned, {id: name for (_, id), name in names.items() if isinstance(name, Version)}),
            topics=dict(sorted((await portable.topics(session, _named("topic", mentioned))).items())),
            segments=named_rules,
            cases=await simulation_cases.every(session, journey_id),
        )


async def _rules(session: OrganizationSession, draft: Any) -> dict[str, dict[str, Any]]:
    """Of the segments that the draft names, by the segments' names."""
    names = await portable.names(session, ids_in(draft))
    return await portable.segments(session, [str(name) for (kind, _), name in names.items() if kind == "segment"])


async def _templates(
    session: OrganizationSession, mentioned: set[tuple[str, Name]], versions: Mapping[UUID, Version]
) -> dict[str, PortableTemplate]:
    names = _named("template", mentioned) | {version.template for version in versions.values()}
    newest = await portable.newest_contents(session, names)
    pinned = await portable.pinned_contents(session, list(versions))
    by_template = {
        name: {versions[id].content_hash: content for id, content in pinned.items() if versions[id].template == name} for name in names
    }
    return {name: PortableTemplate(newest.get(name), dict(sorted(by_template[name].items()))) for name in sorted(names)}


def _named(kind: str, mentioned: set[tuple[str, Name]]) -> set[str]:
    return {name for found, name in mentioned if found == kind and isinstance(name, str)}


# --- Coming ---------------------------------------------------------------------------------------------------------


@dataclass
class _Import:
    """One import under way: what is known by name here, what became of the parts, and what the audit record will say."""

    caller: Caller
    session: OrganizationSession
    document: Document
    ids: dict[tuple[str, Name], UUID] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    entries: list[NewEntry] = field(default_factory=list)


async def import_journey(caller: Caller, document: Document, *, over: bool, revision: int | None, dry_run: bool) -> Imported:
    """The journey of the document's name has its draft; topics, segments and templates that are missing here are made from the
    document, those that are here are used as they are. All or nothing; a dry run leaves nothing.

    Raises:
        Invalid: something is named that is neither here nor in the document, or cannot be made, with the path in the document.
        Conflict: there is a journey of this name, and neither `over` nor its revision is given; or it is archived.
        StaleRevision: the draft is not at `revision`.
        NotAllowed: a part has to be made that the caller may not make.
    """
    _require_good_cases(document.cases or ())
    async with caller.session() as session:
        under_way = _Import(caller, session, document)
        await _resolve(under_way)
        imported = await _save_cases(under_way, await _save(under_way, with_ids(document.draft, under_way.ids), over, revision))
        if dry_run:
            await session.rollback()
            return replace(imported, journey_id=None) if imported.outcome == "created" else imported
        await audit.append(session, under_way.entries)
    return imported


def _require_good_cases(given: Sequence[Case]) -> None:
    names: set[str] = set()
    problems: list[Problem] = []
    for index, case in enumerate(given):
        path = f"document.cases[{index}]"
        problems += cases.unstorable(case, path)
        if case.name in names:
            problems.append(Problem(f"{path}.name", "same_name", "Give each case a name of its own."))
        names.add(case.name)
    if problems:
        raise Invalid(problems)


async def _save_cases(under_way: _Import, imported: Imported) -> Imported:
    """The journey has the document's cases and no others, if the document speaks of cases."""
    given, caller, journey_id = under_way.document.cases, under_way.caller, imported.journey_id
    if given is None or journey_id is None:
        return imported
    await cases.require_sense(under_way.session, {f"document.cases[{index}]": case for index, case in enumerate(given)})
    if not await simulation_cases.replace_all(under_way.session, journey_id, given, caller.person):
        return imported
    details = {"cases": len(given), "origin": "import"}
    under_way.entries.append(NewEntry("journey.cases_replaced", "journey", str(journey_id), caller.actor, details))
    return replace(imported, outcome="updated") if imported.outcome == "unchanged" else imported


async def _resolve(under_way: _Import) -> None:
    """Everything that the draft names is known by id."""
    document, session = under_way.document, under_way.session
    mentioned = names_in(document.draft, "document.draft")
    named = {str(name) for kind, _, name in mentioned if kind == "segment"}
    in_rules = {name: names_in(document.segments.get(name, {}), f"document.segments.{name}") for name in sorted(named)}
    wanted = {(kind, name) for part in (mentioned, *in_rules.values()) for kind, _, name in part}
    wanted |= {("template", name.template) for _, name in wanted if isinstance(name, Version)}
    under_way.ids = await portable.ids(session, wanted)
    for name, part in in_rules.items():
        if ("segment", name) not in under_way.ids:  # one that is here needs nothing
            mentioned += part
    made_here = (part for name, part in in_rules.items() if ("segment", name) not in under_way.ids)
    if nested := [path for part in made_here for kind, path, _ in part if kind == "segment"]:
        raise Invalid([Problem(path, *NO_SEGMENTS) for path in nested])
    missing = [(kind, path, name) for kind, path, name in mentioned if (kind, name) not in under_way.ids]
    if problems := [_unknown(kind, path, name) for kind, path, name in missing if not _is_given(under_way, kind, name)]:
        raise Invalid(problems)
    wanted = {(kind, name) for kind, _, name in mentioned}
    for kind, compare in (("topic", _compare_topics), ("segment", _compare_segments), ("template", _compare_templates)):
        here = {name for found, name in wanted if found == kind and (kind, name) in under_way.ids and isinstance(name, str)}
        await compare(under_way, sorted(here))
    for kind, make in (("topic", _make_topic), ("segment", _make_segment), ("template", _make_template)):
        for name in sorted({str(name) for found, name in wanted if found == kind and (kind, name) not in under_way.ids}):
            _require(under_way.caller, kind, name)
            await make(under_way, name)
            under_way.parts.append(Part(kind, name, "created"))


def _is_given(under_way: _Import, kind: str, name: Name) -> bool:
    """Whether the document has what it takes to make it. A version is made only together with its template: added to one that is in
    use, it would change what others send."""
    document = under_way.document
    if isinstance(name, Version):
        template = document.templates.get(name.template)
        return ("template", name.template) not in under_way.ids and template is not None and name.content_hash in template.pinned
    given: Mapping[str, Mapping[str, Any]] = {"template": document.templates, "topic": document.topics, "segment": document.segments}
    return name in given.get(kind, {})


def _unknown(kind: str, path: str, name: Name) -> Problem:
    if isinstance(name, Version):
        message = f"The template {name.template!r} has no version that says what this one says; pin another, or none."
        return Problem(path, "unknown_template_version", message)
    return Problem(path, f"unknown_{kind}", f"There is no {kind} {name!r} here, and the document does not say what it is.")


def _require(caller: Caller, kind: str, name: str) -> None:
    permission = _MAY_CREATE[kind]
    if permission not in caller.permissions:
        raise NotAllowed(f"The {kind} {name!r} is not here yet, and making it needs the permission {permission}.")


async def _compare_topics(under_way: _Import, names: Sequence[str]) -> None:
    here = await portable.topics(under_way.session, names)
    _compare(under_way, "topic", here, under_way.document.topics)


async def _compare_segments(under_way: _Import, names: Sequence[str]) -> None:
    here = await portable.segments(under_way.session, names)
    given = {name: with_ids(rule, under_way.ids) for name, rule in under_way.document.segments.items()}
    _compare(under_way, "segment", here, given)


async def _compare_templates(under_way: _Import, names: Sequence[str]) -> None:
    newest = await portable.newest_contents(under_way.session, names)
    given = {name: template.content for name, template in under_way.document.templates.items()}
    _compare(under_way, "template", {name: newest.get(name) for name in names}, given)


def _compare(under_way: _Import, kind: str, here: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name in sorted(here):
        same = name not in given or given[name] == here[name]
        under_way.parts.append(Part(kind, name, "found" if same else "differs"))


async def _make_topic(under_way: _Import, key: str) -> None:
    words = under_way.document.topics[key]
    topic = await topics.create(under_way.session, key, words.name, words.description)
    under_way.ids["topic", key] = topic.id
    under_way.entries.append(NewEntry("topic.created", "topic", str(topic.id), under_way.caller.actor))


async def _make_segment(under_way: _Import, name: str) -> None:
    rule = with_ids(under_way.document.segments[name], under_way.ids)
    try:
        segment = await segments.create(under_way.session, name, rule)
    except Invalid as error:
        raise _at(f"document.segments.{name}", error, "rule") from None
    under_way.ids["segment", name] = segment.id
    under_way.entries.append(NewEntry("segment.created", "segment", str(segment.id), under_way.caller.actor))


async def _make_template(under_way: _Import, name: str) -> None:
    """With the versions that are pinned first, and the newest last."""
    template = under_way.document.templates[name]
    contents = [*template.pinned.items(), *([("", template.content)] if template.content is not None else [])]
    if not contents:
        raise Invalid.field(f"document.templates.{name}", "empty_template", "The document does not say what this template says.")
    template_id = await templates.create(under_way.session, name, contents[0][1].channel)
    under_way.ids["template", name] = template_id
    for given_hash, content in contents:
        try:
            checked, variables = template_commands.check_content(content)
        except Invalid as error:
            raise _at(f"document.templates.{name}", error) from None
        version = await templates.add_version(under_way.session, template_id, checked, variables, under_way.caller.actor.id)
        _know_version(under_way, name, given_hash, version.id)
    details = {"version": len(contents)}
    under_way.entries.append(NewEntry("template.created", "template", str(template_id), under_way.caller.actor, details))


def _know_version(under_way: _Import, template: str, content_hash: str, version_id: UUID) -> None:
    for kind, _, name in names_in(under_way.document.draft, "draft"):
        if isinstance(name, Version) and (name.template, name.content_hash) == (template, content_hash):
            under_way.ids[kind, name] = version_id


def _at(path: str, error: Invalid, root: str = "") -> Invalid:
    """The same, with the paths in the document; `root`: what the paths began with."""
    found = [(problem, problem.path.removeprefix(root).removeprefix(".")) for problem in error.problems]
    return Invalid([Problem(f"{path}.{inner}" if inner else path, problem.code, problem.message) for problem, inner in found])


async def _save(under_way: _Import, draft: dict[str, Any], over: bool, revision: int | None) -> Imported:
    session, caller, name = under_way.session, under_way.caller, under_way.document.name
    journey = await journeys.find_by_name(session, name)
    if journey is None:
        if revision is not None:
            raise StaleRevision(f"There is no journey named {name!r} to be changed; leave If-Match out to create it.")
        created = await journeys.create(session, name, draft, caller.person, "import")
        under_way.entries.append(_entry(caller, "journey.created", created, origin="import"))
        return Imported("created", created.id, created.revision, under_way.parts)
    if not over and revision is None:
        raise Conflict(f"There is already a journey named {name!r}: send its ETag as If-Match, or replace: true, to change its draft.")
    if revision is not None and revision != journey.revision:
        raise StaleRevision(f"Somebody saved revision {journey.revision} since revision {revision} was read; read it, and import again.")
    if journey.draft == draft:
        return Imported("unchanged", journey.id, journey.revision, under_way.parts)
    saved = await journeys.save_draft(session, journey.id, journey.revision, draft, None, caller.person, "import")
    under_way.entries.append(_entry(caller, "journey.draft_saved", saved, revision=saved.revision, origin="import"))
    return Imported("updated", saved.id, saved.revision, under_way.parts)


def _entry(caller: Caller, action: str, journey: Journey, **details: Any) -> NewEntry:
    return NewEntry(action, "journey", str(journey.id), caller.actor, details)


def document_json(document: Document) -> dict[str, Any]:
    """As it is written down."""
    said = None if document.cases is None else [case.model_dump(mode="json", exclude_unset=True) for case in document.cases]
    return {**asdict(replace(document, cases=None)), "cases": said}
