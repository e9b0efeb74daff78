"""How those whom we call know that it was us: Standard Webhooks signatures, with one secret per organization."""

import base64
import hashlib
import hmac
from datetime import datetime
from uuid import UUID

from models.settings import Settings


def webhook_secret(settings: Settings, organization_id: UUID) -> bytes:
    """Always the same for an organization of an installation; no other organization's tells it."""
    return settings.keyed_hash("webhook-signatures", str(organization_id))


def printed(secret: bytes) -> str:
    """As libraries for Standard Webhooks take it: `whsec_…`."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def signed_headers(secret: bytes, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """`at` (aware) is the time of this attempt: receivers refuse what is older than some minutes.

    Source: the Standard Webhooks specification, "Signature scheme": HMAC-SHA256 over id, timestamp and body, joined by dots.
    """
    timestamp = str(int(at.timestamp()))
    digest = hmac.new(secret, b".".join((message_id.encode(), timestamp.encode(), body)), hashlib.sha256).digest()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}
