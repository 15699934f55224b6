"""Background traffic beside an application: a flow changes its rate while requests go out of the same queue.

xsk-engine lab run -- python examples/flow_beside.py vtx 10.77.0.2
"""

import time

import click

import xsk_engine


@click.command()
@click.argument("interface")
@click.argument("address")
@click.option("--requests", default=100)
def command(interface, address, requests):
    with xsk_engine.open(interface) as engine:
        background = xsk_engine.parse_flow(
            f"ip dst={address} / udp src=1000-1999 dst=9001 ; size=590 ; payload=text:background"
        )
        running = engine.start(background, rate="5kpps")
        endpoint = engine.udp((address, 9000))
        for number in range(requests):
            if number == requests // 2:
                running.set_rate("20kpps")
            endpoint.send(b"request %d" % number)
            time.sleep(0.005)
        running.stop()
        running.wait(1.0)
        endpoint.drain()
        packets, _ = running.counts()[0]
        print(f"{requests} requests beside {packets} packets of background")


if __name__ == "__main__":
    command()
