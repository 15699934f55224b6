"""Servers that nobody has changed for us, in the receiver's namespace: what the engine's TCP sends them, and
what they send, is what sha256 says it is."""

import asyncio
import contextlib
import hashlib
import http.client
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop
from tcppeer import ADDRESS
from wire import lacks, wait_until

import xsk_engine

pytestmark = pytest.mark.usefixtures("real_root")

HOST, PORT = ADDRESS[4], 8080
MIB = 1 << 20
BULK = 32 * MIB


def blob(size, seed=1):
    """Bytes that are nowhere the same as their neighbours'."""
    return hashlib.shake_128(bytes([seed])).digest(size)


def listens(wire, port):
    with wire.in_rx():
        done = subprocess.run(
            ["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, timeout=10, check=True
        )
    return bool(done.stdout)


def needs(program):
    if shutil.which(program):
        return
    lacks(f"there is no {program}; run make setup-test")


@contextlib.contextmanager
def server(wire, *command, port=PORT, **options):
    """Runs there until the end of the block, or its own."""
    needs(command[0])
    with wire.in_rx():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
    try:
        wait_until(lambda: listens(wire, port) or process.poll() is not None, 10)
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stderr.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    def run(main):
        async def bounded():
            return await asyncio.wait_for(main, 60)

        return (uvloop if request.param == "uvloop" else asyncio).run(bounded())

    return run


# ---- nginx ----------------------------------------------------------------------------------------------

NGINX = """\
daemon off;
user root root;
worker_processes 1;
error_log stderr;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {host}:{port};
        root files;
        location /up/ {{
            dav_methods PUT;
            create_full_put_path on;
            client_max_body_size 1g;
        }}
    }}
}}
"""


@pytest.fixture
def nginx(wire, tmp_path):
    """Its folder of files."""
    (tmp_path / "files").mkdir()
    (tmp_path / "nginx.conf").write_text(NGINX.format(host=HOST, port=PORT))
    with server(wire, "nginx", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"):
        yield tmp_path / "files"


async def answer(reader):
    """(status, headers, SHA-256 and length of the body) of one answer with Content-Length."""
    status = int((await reader.readline()).split()[1])
    headers = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    found, left = hashlib.sha256(), int(headers.get("content-length", 0))
    length = left
    while left:
        data = await reader.read(min(left, 1 << 18))
        assert data, "the answer ends early"
        found.update(data)
        left -= len(data)
    return status, found.hexdigest(), length


async def put(writer, path, data, piece=100_000):
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: peer\r\nContent-Length: {len(data)}\r\n\r\n".encode())
    for at in range(0, len(data), piece):
        writer.write(data[at : at + piece])
        await writer.drain()


async def get(writer, path):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: peer\r\n\r\n".encode())
    await writer.drain()


def test_nginx_gets_and_gives_a_large_file(wire, nginx, run):
    """PUT and GET over one connection that is kept."""
    data = blob(BULK)
    sha = hashlib.sha256(data).hexdigest()
    (nginx / "given").write_bytes(data)

    async def main():
        reader, writer = await xsk_engine.open_connection(HOST, PORT, interface="vtx", limit=1 << 20)
        await put(writer, "/up/taken", data)
        assert (await answer(reader))[0] == 201
        assert hashlib.sha256((nginx / "up" / "taken").read_bytes()).hexdigest() == sha
        for path in ("/given", "/up/taken"):
            await get(writer, path)
            assert await answer(reader) == (200, sha, len(data))
        await get(writer, "/nosuch")
        assert (await answer(reader))[0] == 404
        writer.close()
        await writer.wait_closed()

    run(main())


def test_nginx_takes_forty_uploads_at_once(wire, nginx, run):
    files = {f"/up/{n}": blob(200_000 + 1000 * n, n) for n in range(40)}

    async def one(path, data):
        reader, writer = await xsk_engine.open_connection(HOST, PORT, interface="vtx")
        await put(writer, path, data, 7000)
        assert (await answer(reader))[0] == 201
        writer.close()
        await writer.wait_closed()

    async def main():
        await asyncio.gather(*(one(path, data) for path, data in files.items()))

    run(main())
    for path, data in files.items():
        assert (nginx / path[1:]).read_bytes() == data


def test_nginx_without_an_event_loop(wire, nginx):
    """http.client is given the connection instead of a socket."""
    data = blob(BULK)
    with xsk_engine.connect(HOST, PORT, interface="vtx") as connection:
        client = http.client.HTTPConnection(HOST, PORT)
        client.sock = connection
        client.request("PUT", "/up/taken", data)
        response = client.getresponse()
        assert (response.status, response.read()) == (201, b"")
        client.request("GET", "/up/taken")
        response = client.getresponse()
        found = hashlib.sha256()
        while part := response.read(1 << 16):
            found.update(part)
        assert found.hexdigest() == hashlib.sha256(data).hexdigest()
        client.close()
    assert (nginx / "up" / "taken").read_bytes() == data


def test_frags_to_nginx(wire, nginx):
    """The header is written, the body is submitted in place."""
    data = blob(4 * MIB)

    async def main():
        reader, writer = await xsk_engine.open_connection(HOST, PORT, interface="vtx")
        connection = writer.get_extra_info("xsk_connection")
        writer.write(f"PUT /up/frags HTTP/1.1\r\nHost: p\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        at = 0
        while at < len(data):
            view = await connection.alloc()
            part = data[at : at + len(view)]
            view[: len(part)] = part
            await connection.submit(len(part))
            at += len(part)
        assert (await answer(reader))[0] == 201
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
    assert (nginx / "up" / "frags").read_bytes() == data


# ---- Python's http.server -------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def http_server(wire):
    with server(wire, sys.executable, str(EXAMPLES / "http_receiver.py"), HOST, str(PORT)):
        yield


def test_pythons_http_server_hashes_an_upload(wire, http_server, run):
    """Its handler hashes. It speaks HTTP/1.0: its end of stream ends the answer."""
    data = blob(BULK)

    async def main():
        reader, writer = await xsk_engine.open_connection(HOST, PORT, interface="vtx")
        await put(writer, "/x", data)
        said = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        await writer.wait_closed()
        return said.decode()

    assert run(main()) == hashlib.sha256(data).hexdigest()


def test_http_client_closes_before_it_reads(wire, http_server):
    """As it does with sockets, when the server ends the connection: the answer is read all the same."""
    data = blob(MIB)
    connection = xsk_engine.connect(HOST, PORT, interface="vtx")
    client = http.client.HTTPConnection(HOST, PORT)
    client.sock = connection
    client.request("PUT", "/x", data)
    response = client.getresponse()
    assert client.sock is None
    assert not connection.closed
    assert response.read().decode() == hashlib.sha256(data).hexdigest()
    assert connection.closed


def test_the_example(wire, http_server, tmp_path):
    data = blob(5 * MIB)
    (tmp_path / "file").write_bytes(data)
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error::ResourceWarning", EXAMPLES / "http_upload.py"),
            *("vtx", f"http://{HOST}:{PORT}/x", tmp_path / "file"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(" 200 OK")
    assert lines[1] == f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}"
    assert lines[2] == "the receiver has the same"


# ---- netcat ---------------------------------------------------------------------------------------------


def test_netcat_writes_what_it_gets(wire, tmp_path, run):
    data = blob(BULK)
    with (
        (tmp_path / "taken").open("wb") as taken,
        server(wire, "nc.openbsd", "-l", "-N", HOST, str(PORT), stdin=subprocess.DEVNULL, stdout=taken) as nc,
    ):

        async def main():
            reader, writer = await xsk_engine.open_connection(HOST, PORT, interface="vtx")
            for at in range(0, len(data), 1 << 20):
                writer.write(data[at : at + (1 << 20)])
                await writer.drain()
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

        run(main())
        assert nc.wait(10) == 0
    assert (tmp_path / "taken").read_bytes() == data


def test_netcat_gives_a_file(wire, tmp_path, run):
    data = blob(BULK)
    (tmp_path / "given").write_bytes(data)
    with (
        (tmp_path / "given").open("rb") as given,
        server(wire, "nc.openbsd", "-l", "-N", HOST, str(PORT), stdin=given, stdout=subprocess.DEVNULL) as nc,
    ):

        async def main():
            reader, writer = await xsk_engine.open_connection(HOST, PORT, interface="vtx")
            received = await reader.read()  # before our end, at which it would leave
            writer.close()
            await writer.wait_closed()
            return received

        assert run(main()) == data
        assert nc.wait(10) == 0
