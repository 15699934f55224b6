"""Market data: every tick of a hundred instruments goes to the multicast group of its own, from asyncio.

xsk-engine lab run -- python examples/fan_out.py vtx --seconds 1
"""

import asyncio
import struct

import click
import uvloop

import xsk_engine

TICK = struct.Struct("!QId")  # sequence number, instrument, price


async def publish(endpoint, instrument, ticks, pause):
    """One instrument: its group gets each of its prices once, in order."""
    price = 100.0
    for number in range(ticks):
        price += 0.01 if number % 3 else -0.02
        await endpoint.send(TICK.pack(number, instrument, price))
        await asyncio.sleep(pause)


async def main(interface, groups, seconds, rate):
    ticks = int(seconds * rate)
    async with xsk_engine.aopen(interface) as engine:
        # A multicast address needs no neighbour; a ttl above 1 would let routers pass it on.
        endpoints = [engine.udp((f"239.77.0.{i + 1}", 9000)) for i in range(groups)]
        await asyncio.gather(*(publish(e, i, ticks, 1 / rate) for i, e in enumerate(endpoints)))
        for endpoint in endpoints:
            await endpoint.drain()
        print(f"{groups} groups, {engine.snapshot().completed_packets} ticks")


@click.command()
@click.argument("interface")
@click.option("--groups", default=100)
@click.option("--seconds", default=1.0)
@click.option("--rate", default=100.0, help="Ticks per second of each instrument.")
def command(interface, groups, seconds, rate):
    uvloop.run(main(interface, groups, seconds, rate))


if __name__ == "__main__":
    command()
