"""The examples of public docstrings, as they stand there."""

import ast
import asyncio
import builtins
import contextlib
import inspect

import numpy
import pytest
from tcppeer import digest_of, peer
from wire import need_real_root

import xsk_engine
from docs import api

PEER = ("10.77.0.2", 9000)
TCP_PEER = ("10.77.0.2", 9001)
CLOSE_AFTER_S = 1.2
"""an endless example ends with its engine; longer than the interval it shows"""
EXAMPLES = [
    pytest.param(code, id=f"{one.name}-{n}")
    for one in api.everything()
    for n, code in enumerate(api.examples(one.doc))
]


def needs(code):
    """The names that it uses before it makes them itself."""
    first = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            place = (node.lineno, node.col_offset)
            first[node.id] = min(first.get(node.id, (place, node)), (place, node), key=lambda one: one[0])
    return {name for name, (_, node) in first.items() if isinstance(node.ctx, ast.Load)} - set(dir(builtins))


def is_async(code):
    """With an await of its own, or what only makes sense in an event loop."""
    return any(
        isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for node in ast.walk(ast.parse(code))
    )


def run(code, names):
    """Its coroutine when it awaits, else None."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if is_async(code) else 0
    compiled = compile(code, "<example>", "exec", flags=flags, dont_inherit=True)
    space = {"xsk_engine": xsk_engine, "numpy": numpy, "asyncio": asyncio, **names}
    missing = needs(code) - set(space)
    assert not missing, f"what is {missing}?"
    result = eval(compiled, space)
    assert inspect.iscoroutine(result) == is_async(code)
    return result


def traffic():
    return xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=9000")


def answer(sock):
    """Five bytes, and no more."""
    sock.sendall(sock.recv(5))
    return digest_of(sock)


def wants_tcp(code):
    return "connection" in code or "tcp" in code


def run_blocking(code):
    wanted, names = needs(code), {"flow": traffic()}
    with contextlib.ExitStack() as stack:
        if wanted & {"engine", "endpoint", "frags", "running", "connection"}:
            names["engine"] = engine = stack.enter_context(xsk_engine.open("vtx", tcp=wants_tcp(code)))
        if "connection" in wanted:
            names["connection"] = connection = stack.enter_context(engine.tcp(*TCP_PEER))
            connection.sendall(b"hello")
            if "recv" not in code:  # what nobody reads would reset it
                connection.recv(5)
        if wanted & {"endpoint", "frags"}:
            names["endpoint"] = endpoint = stack.enter_context(engine.udp(PEER))
        if "frags" in wanted:
            names["frags"] = frags = endpoint.alloc(64, 1000)
            stack.callback(frags.release)
        if "running" in wanted:
            names["running"] = running = engine.start(traffic(), rate="10kpps", duration=0.2)
            stack.callback(running.stop)
        run(code, names)


async def run_awaiting(code):
    wanted, names = needs(code), {"flow": traffic()}
    async with contextlib.AsyncExitStack() as stack:
        if wanted & {"engine", "endpoint", "frags", "running", "connection"}:
            opening = xsk_engine.aopen("vtx", tcp=wants_tcp(code))
            names["engine"] = engine = await stack.enter_async_context(opening)
        if "connection" in wanted:
            connecting = await engine.tcp(*TCP_PEER)
            names["connection"] = connection = await stack.enter_async_context(connecting)
            await connection.sendall(b"hello")
            if "recv" not in code:
                await connection.recv(5)
        if wanted & {"endpoint", "frags"}:
            names["endpoint"] = endpoint = await stack.enter_async_context(engine.udp(PEER))
        if "frags" in wanted:
            names["frags"] = frags = await endpoint.alloc(64, 1000)
            stack.callback(frags.release)
        if "running" in wanted:
            names["running"] = await engine.start(traffic(), rate="10kpps", duration=0.2)
        if "transport" in wanted:
            names["transport"], _ = await (
                xsk_engine.create_connection(asyncio.Protocol, *TCP_PEER, interface="vtx")
                if wants_tcp(code)
                else xsk_engine.create_datagram_endpoint(
                    asyncio.DatagramProtocol, interface="vtx", remote_addr=PEER
                )
            )
            stack.callback(names["transport"].close)
        if "async for" in code:
            closing = asyncio.get_running_loop().create_task(close_later(engine))
            stack.push_async_callback(lambda: closing)
        if (result := run(code, names)) is not None:
            await asyncio.wait_for(result, 10.0)


async def close_later(engine):
    await asyncio.sleep(CLOSE_AFTER_S)
    await engine.close()


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs(wire, code):
    if wants_tcp(code):
        need_real_root()
    with wire.listening(), peer(wire, answer, port=TCP_PEER[1]):
        if is_async(code) or "transport" in needs(code):
            asyncio.run(run_awaiting(code))
        else:
            run_blocking(code)


def test_every_public_name_says_what_it_must():
    assert not api.missing()


def test_an_example_that_raises_is_noticed(wire):
    with pytest.raises(ValueError, match="payload"):
        run_blocking("endpoint.send(bytes(100_000))")
    with pytest.raises(ValueError, match="payload"):
        asyncio.run(run_awaiting("await endpoint.send(bytes(100_000))"))
