"""How payloads travel: pydantic JSON, compressed, encrypted. One plugin wires clients, workers, replayers and tests alike."""

import dataclasses
import os
import zlib
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec
from temporalio.plugin import SimplePlugin

from workflows.sandbox import RUNNER

ENCODING = b"binary/encrypted"
NONCE_BYTES = 12
COMPRESSED = b"zlib"
# Batches of ids and codes shrink to a fifth; a worker keeps what its workflows have asked for as long as it keeps the workflows.
COMPRESSED_FROM = 512  # bytes
FASTEST = 1


class EncryptingCodec(PayloadCodec):
    """AES-256-GCM with the key's id in the metadata: the first key encrypts, all decrypt.

    What is long enough is compressed before; the metadata says so, and the seal covers that word. Payloads hold no text of strangers
    whose length could tell of what stands beside it.
    """

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = next(iter(keys))

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        nonce, key_id = os.urandom(NONCE_BYTES), self._newest.encode()
        plain = payload.SerializeToString()
        metadata = {"encoding": ENCODING, "key-id": key_id}
        if len(plain) >= COMPRESSED_FROM:
            plain = zlib.compress(plain, FASTEST)
            metadata["compression"] = COMPRESSED
        sealed = self._ciphers[self._newest].encrypt(nonce, plain, key_id + metadata.get("compression", b""))
        return Payload(metadata=metadata, data=nonce + sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        key_id = payload.metadata["key-id"]
        compression = payload.metadata.get("compression", b"")
        cipher = self._ciphers[key_id.decode()]
        opened = cipher.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], key_id + compression)
        return Payload.FromString(zlib.decompress(opened) if compression == COMPRESSED else opened)


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
