"""How payloads travel: pydantic JSON, encrypted. One plugin wires clients, workers, replayers and tests alike."""

import dataclasses
import os
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec
from temporalio.plugin import SimplePlugin

from workflows.sandbox import RUNNER

ENCODING = b"binary/encrypted"
NONCE_BYTES = 12


class EncryptingCodec(PayloadCodec):
    """AES-256-GCM with the key's id in the metadata, so that keys can be rotated: the first key encrypts, all decrypt."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = next(iter(keys))

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(nonce, payload.SerializeToString(), self._newest.encode())
        return Payload(metadata={"encoding": ENCODING, "key-id": self._newest.encode()}, data=nonce + sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        key_id = payload.metadata["key-id"]
        cipher = self._ciphers[key_id.decode()]
        opened = cipher.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], key_id)
        return Payload.FromString(opened)


def data_converter(keys: dict[str, bytes]) -> DataConverter:
    """Pydantic JSON under the codec; failure messages and stack traces are encrypted too."""
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptingCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def plugin(keys: dict[str, bytes], workflows: Sequence[type] = ()) -> SimplePlugin:
    """Give it to the client; workers made from that client inherit it."""
    return SimplePlugin("leadstats", data_converter=data_converter(keys), workflow_runner=RUNNER, workflows=workflows or None)
