"""Taking histories apart: every text and every payload that Temporal keeps about a workflow, as it is stored and decoded."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecution

from workflows.payloads import ENCODING, EncryptingCodec


@dataclass
class Kept:
    """What is kept about some workflows. `open` is readable by anybody who reaches Temporal, `sealed` is what the
    encrypted payloads say once decoded, `ciphertexts` is how they are stored."""

    open: list[str] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)
    ciphertexts: list[bytes] = field(default_factory=list)
    unencrypted: list[Payload] = field(default_factory=list)


async def read_kept(client: Client, workflows: Iterable[WorkflowExecution], codec: EncryptingCodec) -> Kept:
    """Histories, descriptions (summaries, memo, search attributes, pending activities) and list entries of the workflows."""
    kept = Kept()
    for workflow in workflows:
        handle = client.get_workflow_handle(workflow.id, run_id=workflow.run_id)
        history, description = await handle.fetch_history(), await handle.describe()
        for message in (*history.events, description.raw_description, workflow.raw_info):
            await _add(kept, message, codec)
    return kept


async def _add(kept: Kept, message: Message, codec: EncryptingCodec) -> None:
    for leaf in leaves(message):
        if not isinstance(leaf, Payload):
            kept.open.append(leaf)
            continue
        kept.open += [*leaf.metadata, *(value.decode(errors="replace") for value in leaf.metadata.values())]
        if leaf.metadata.get("encoding") == ENCODING:
            [decoded] = await codec.decode([leaf])
            kept.ciphertexts.append(leaf.data)
            kept.sealed.append(readable(decoded.data))
        else:
            kept.unencrypted.append(leaf)
            kept.open.append(readable(leaf.data))


def leaves(message: Message) -> Iterator[str | Payload]:
    """Every text, every byte string as text, and every payload, anywhere in the message."""
    if isinstance(message, Payload):
        yield message
        return
    for descriptor, value in message.ListFields():
        for item in _items(descriptor, value):
            if isinstance(item, Message):
                yield from leaves(item)
            elif isinstance(item, bytes):
                yield readable(item)
            elif isinstance(item, str):
                yield item


def _items(descriptor: FieldDescriptor, value: Any) -> Iterable[Any]:
    if isinstance(value, (str, bytes, int, float, Message)):
        return [value]
    if isinstance(value, Mapping) or hasattr(value, "values"):
        return [*value.keys(), *value.values()]
    return list(value)


def readable(data: bytes) -> str:
    """JSON with its escapes undone, so that no letter hides behind \\u00e9; anything else as text."""
    text = data.decode(errors="replace")
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text


class Wanted:
    """Finds personal values in texts: addresses and numbers anywhere, names as whole words. Case does not matter."""

    def __init__(self, anywhere: Iterable[str], words: Iterable[str]) -> None:
        self._anywhere = {value.casefold() for value in anywhere}
        self._words = {value.casefold() for value in words}

    def found_in(self, texts: Iterable[str]) -> set[str]:
        text = "\n".join(texts).casefold()
        return {value for value in self._anywhere if value in text} | {value for value in self._words if _has_word(text, value)}


def _has_word(text: str, value: str) -> bool:
    return value in text and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None  # the first half is a hundred times faster
