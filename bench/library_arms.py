"""What the experiments start as processes: one way of sending each, with the library or beside it, without
end.

Usage: ARM QUEUE CPU PAYLOAD_BYTES
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import numpy
import uvloop

import xsk_engine
from xsk_engine.lab import topology

PEER = (topology.RX_IPV4, 9000)
PAYLOAD = bytes(int(sys.argv[4]))
BATCH = 1000
# 2 MiB. In the default, 256 KiB, there is room for three payloads of 64 KiB: each takes 17 chunks.
QUOTA_CHUNKS = 512
PER_TURN = 100
"""datagrams of an asyncio sender before others have their turn"""


def opened(queue: int, cpu: int) -> xsk_engine.Engine:
    """The engine's thread on this CPU, the application's on the others: where the scheduler puts them is no
    figure of ours."""
    engine = xsk_engine.open(topology.TX_INTERFACE, queues=(queue,), cpus=(cpu,))
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {cpu})
    return engine


def send(queue: int, cpu: int) -> None:
    endpoint = opened(queue, cpu).udp(PEER)
    while True:
        endpoint.send(PAYLOAD)


def send_many(queue: int, cpu: int) -> None:
    endpoint = opened(queue, cpu).udp(PEER, quota_chunks=QUOTA_CHUNKS)
    payloads = [PAYLOAD] * BATCH
    while True:
        endpoint.send_many(payloads)


def post(queue: int, cpu: int) -> None:
    endpoint = opened(queue, cpu).udp(PEER, quota_chunks=128)
    source = numpy.zeros((BATCH, len(PAYLOAD)), dtype=numpy.uint8)
    while True:
        frags = endpoint.alloc(BATCH, len(PAYLOAD))
        frags.array[:] = source
        endpoint.post(frags)


def sendto(_queue: int, _cpu: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            sock.sendto(PAYLOAD, PEER)


class Writer(asyncio.DatagramProtocol):
    """Writes whenever it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()

    def pause_writing(self) -> None:
        self.may.clear()

    def resume_writing(self) -> None:
        self.may.set()


async def write(transport: asyncio.DatagramTransport, writer: Writer) -> None:
    while True:
        await writer.may.wait()
        for _ in range(PER_TURN):
            transport.sendto(PAYLOAD)
        await asyncio.sleep(0)


def transport(queue: int, _cpu: int) -> None:
    async def main() -> None:
        await write(
            *await xsk_engine.create_datagram_endpoint(
                Writer, interface=topology.TX_INTERFACE, queue=queue, remote_addr=PEER
            )
        )

    uvloop.run(main())


def plain(_queue: int, _cpu: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await write(*await loop.create_datagram_endpoint(Writer, remote_addr=PEER))

    uvloop.run(main())


if __name__ == "__main__":
    arm, queue, cpu = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    {
        "send": send,
        "send_many": send_many,
        "post": post,
        "sendto": sendto,
        "transport": transport,
        "plain": plain,
    }[arm](queue, cpu)
