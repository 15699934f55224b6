"""Two threads send through one engine, each with an endpoint of its own: no lock between them.

xsk-engine lab run -- python examples/two_producers.py vtx 10.77.0.2 --count 100000
"""

import threading

import click

import xsk_engine

BATCH = 500


def produce(endpoint, name, count):
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        endpoint.send_many([b"%s %08d" % (name, number) for number in numbers])
    endpoint.drain()


@click.command()
@click.argument("interface")
@click.argument("address")
@click.option("--count", default=100_000, help="Datagrams of each.")
def command(interface, address, count):
    with xsk_engine.open(interface) as engine:
        threads = [
            threading.Thread(target=produce, args=(engine.udp((address, 9000)), name, count))
            for name in (b"left", b"right")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{engine.snapshot().completed_packets} datagrams of two threads")


if __name__ == "__main__":
    command()
