"""`/v1/health`: whether this process can do its work."""

import asyncio
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.dependencies import Services, ServicesOf
from api.version import VERSION
from models.store.faults import is_reachable

router = APIRouter(prefix="/health", tags=["health"])

PATIENCE: Final = timedelta(seconds=2)


class Health(BaseModel):
    """True: the part answered within two seconds."""

    database: bool
    temporal: bool
    version: str = Field(examples=["0.1.0"])


@router.get("", responses={503: {"model": Health, "description": "A part does not answer."}})
async def show(response: Response, services: ServicesOf) -> Health:
    """Needs no login. 200 when database and workflow service answer, otherwise 503."""
    database, temporal = await asyncio.gather(_database(services), _temporal(services))
    response.status_code = 200 if database and temporal else 503
    return Health(database=database, temporal=temporal, version=VERSION)


async def _database(services: Services) -> bool:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            return await is_reachable(services.database)
    except TimeoutError:
        return False


async def _temporal(services: Services) -> bool:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            return await services.temporal.service_client.check_health(timeout=PATIENCE)
    except Exception:  # a client that never connected raises RuntimeError, others RPCError: all mean no
        return False
