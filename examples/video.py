"""Video-like frames at 1 Gbit/s: numpy writes the pixels into the umem itself.

xsk-engine lab run -- python examples/video.py vtx 10.77.0.2 --seconds 1
"""

import time

import click
import numpy

import xsk_engine

FPS = 50
PIXELS = 1400  # bytes of a packet's payload behind its 8 of header
BURST = 64  # packets that are filled and posted at a time


@click.command()
@click.argument("interface")
@click.argument("address")
@click.option("--seconds", default=1.0)
@click.option("--gbps", default=1.0, help="Of payload.")
def command(interface, address, seconds, gbps):
    packets_per_frame = round(gbps * 1e9 / 8 / FPS / (8 + PIXELS))
    numbers = numpy.arange(packets_per_frame, dtype=">u4")
    with xsk_engine.open(interface) as engine:
        endpoint = engine.udp((address, 9000), quota_chunks=256)
        start = time.monotonic()
        for frame in range(int(seconds * FPS)):
            for first in range(0, packets_per_frame, BURST):
                n = min(BURST, packets_per_frame - first)
                frags = endpoint.alloc(n, 8 + PIXELS)
                payload = frags.array
                payload[:, :4] = numpy.frombuffer(frame.to_bytes(4, "big"), numpy.uint8)
                payload[:, 4:8] = numbers[first : first + n, None].view(numpy.uint8)
                payload[:, 8:] = (frame + numpy.arange(first, first + n))[:, None] & 0xFF
                del payload  # a view must not outlive the post
                endpoint.post(frags)
                # Spread over the frame's time, so that a receiver's buffer holds it.
                due = start + (frame + (first + n) / packets_per_frame) / FPS
                time.sleep(max(due - time.monotonic(), 0))
        endpoint.drain()
        sent, seconds_taken = engine.snapshot(), time.monotonic() - start
        print(
            f"{sent.completed_packets} packets, "
            f"{sent.completed_packets * (8 + PIXELS) * 8 / seconds_taken / 1e9:.3f} Gbit/s of payload"
        )


if __name__ == "__main__":
    command()
