"""Uploads a file by HTTP PUT through the engine's TCP, with the streams that asyncio code knows. Needs root.

xsk-engine lab run -- python examples/http_upload.py vtx http://10.77.0.2:8080/file FILE
"""

import hashlib
import os
import urllib.parse

import click
import uvloop

import xsk_engine

PIECE_BYTES = 256 << 10


async def upload(interface, url, file):
    where = urllib.parse.urlsplit(url)
    # With asyncio.open_connection(where.hostname, where.port) the rest is the same.
    reader, writer = await xsk_engine.open_connection(where.hostname, where.port or 80, interface=interface)
    size = os.fstat(file.fileno()).st_size
    head = f"PUT {where.path or '/'} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {size}\r\n\r\n"
    writer.write(head.encode())
    found = hashlib.sha256()
    while data := file.read(PIECE_BYTES):
        found.update(data)
        writer.write(data)
        await writer.drain()
    status = (await reader.readuntil(b"\r\n")).decode().strip()
    length = 0
    while line := (await reader.readline()).decode().strip().lower():
        if line.startswith("content-length:"):
            length = int(line.split(":")[1])
    answer = await reader.readexactly(length)
    info = writer.get_extra_info("tcp_info")
    writer.close()
    await writer.wait_closed()
    click.echo(status)
    click.echo(f"{size} bytes, SHA-256 {found.hexdigest()}")
    if answer.decode(errors="replace") == found.hexdigest():
        click.echo("the receiver has the same")
    click.echo(
        f"{info.tcpi_segs_out} segments, {info.tcpi_total_retrans} of them sent again;"
        f" round-trip time {info.tcpi_rtt} us"
    )


@click.command()
@click.argument("interface")
@click.argument("url")
@click.argument("file", type=click.File("rb"))
def command(interface, url, file):
    uvloop.run(upload(interface, url, file))


if __name__ == "__main__":
    command()
