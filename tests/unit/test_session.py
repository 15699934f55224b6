"""What a run does beside its traffic."""

import asyncio
import signal
from types import SimpleNamespace

import pytest

from xsk_engine.session import _send
from xsk_engine.signals import ending


@pytest.fixture
def handlers():
    """As they were, afterwards."""
    before = {number: signal.getsignal(number) for number in ending()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_watch_begins_also_when_all_is_sent_at_once(handlers):
    seen = []

    async def watch(engine):
        seen.append("begun")
        await asyncio.sleep(60)

    async def run(traffic, stop):
        seen.append("sent")

    engine = SimpleNamespace(run=run, workers=[])
    asyncio.run(_send(engine, SimpleNamespace(traffic=None), [watch], []))
    assert seen == ["begun", "sent"]
