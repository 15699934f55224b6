"""A log shipper: lines from stdin become syslog datagrams (RFC 5424), by a plain asyncio.DatagramProtocol.

seq 1000 | xsk-engine lab run -- python examples/log_shipper.py vtx 10.77.0.2
"""

import asyncio
import datetime
import socket
import sys

import click
import uvloop

import xsk_engine

PRIORITY = 14  # facility user, severity informational


class Shipper(asyncio.DatagramProtocol):
    """Nothing in here knows of AF_XDP: with loop.create_datagram_endpoint it works as well."""

    def __init__(self):
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.closed = asyncio.get_running_loop().create_future()
        self.shipped = self.refused = 0

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.may_write.clear()

    def resume_writing(self):
        self.may_write.set()

    def error_received(self, error):
        if isinstance(error, ConnectionRefusedError):  # the receiver's answer when nobody listens there
            return
        self.refused += 1
        print(f"not shipped: {error}", file=sys.stderr)

    def connection_lost(self, error):
        self.closed.set_result(None)

    async def ship(self, line):
        await self.may_write.wait()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        text = f"<{PRIORITY}>1 {now} {socket.gethostname()} shipper - - - {line}"
        self.transport.sendto(text.encode())
        self.shipped += 1


async def main(interface, address, port):
    transport, shipper = await xsk_engine.create_datagram_endpoint(
        Shipper, interface=interface, remote_addr=(address, port)
    )
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await shipper.ship(line.rstrip("\n"))
    transport.close()
    await shipper.closed
    print(f"{shipper.shipped - shipper.refused} lines")


@click.command()
@click.argument("interface")
@click.argument("address")
@click.option("--port", default=514)
def command(interface, address, port):
    uvloop.run(main(interface, address, port))


if __name__ == "__main__":
    command()
