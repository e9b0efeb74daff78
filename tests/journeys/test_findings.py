"""What stands still is found: each kind is made on purpose, and a round or two of the reconciler later there is a finding with its
cause and what to do; when the trouble is gone, the finding is resolved by itself."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from activities.archiving import ArchivingActivities
from activities.contracts import AuditBatch, Campaign_, JourneyInput, Reconcile, Reconciled, Scope
