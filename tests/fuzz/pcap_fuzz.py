"""Capture files: whatever is in a file, plain or compressed, it is read to its end or refused in one line,
its packets are counted and loaded alike, and each of them can be told in words."""

import os
import struct

from fuzzing import Input, instrumented, main, refused

with instrumented():
    from xsk_engine import pcapfile
    from xsk_engine.capture import HEADER
    from xsk_engine.dissect import in_words
    from xsk_engine.edits import parse_edit
    from xsk_engine.replay import OVERSIZE, Replay
    from xsk_engine.trace import Trace, survey
    from xsk_engine.umem import Umem

EDITS = [
    "eth.dst=02:00:00:00:00:09",
    "vlan=7",
    "vlan=none",
    "ip.dst=10.0.0.0/24",
    "ip.ttl=3",
    "port.dst=9",
    "ip.src=fd77::1",
]
CHUNK, CHUNKS = 2048, 64
KINDS = {
    0x01: b"\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\0\0\1\x0a\0\0\2\0\x09\0\x09\0\x08\0\0",
    0x02: b"\x60\0\0\0\0\x08\x11\x40" + bytes(32) + b"\0\x09\0\x09\0\x08\0\0",
}


def _record(given):
    """A packet that is nearly right."""
    body = b"\x02" * 12 + given.pick(
        [b"\x08\0", b"\x86\xdd", b"\x81\0\0\x07\x08\0", b"\x88\xa8\0\x07\x81\0\0\x07\x08\0"]
    )
    body += given.pick(list(KINDS.values())) + bytes([given.byte()]) * given.byte()
    held = len(body) if given.byte() < 200 else given.byte()
    length = len(body) if given.byte() < 200 else given.byte() << 8 | given.byte()
    return struct.pack("=IIII", given.byte(), given.byte() << 20, held, length) + body[:held]


def _file(given):
    if given.byte() < 64:
        return given.rest()
    data = HEADER
    for _ in range(given.byte() % 8):
        data += _record(given)
    data += given.rest()
    if given.byte() & 1:
        import gzip

        data = gzip.compress(data, 1)
    return data


def _load(replay):
    umem = Umem(CHUNK * CHUNKS, CHUNK)
    try:
        trace = Trace(umem, replay, 1514, 0)
        try:
            trace.load()
            return trace.summary
        finally:
            from xsk_engine._ffi.native import native

            handle = trace.handle
            trace.stop()
            trace.release()
            native.trace_destroy(handle)
    finally:
        umem.audit()
        umem.close()


def one(data):
    given = Input(data)
    how = given.byte()
    replay = {
        "oversize": OVERSIZE[how % 3],
        "fix_checksums": bool(how & 4),
        "limit": 1 + how % 7 if how & 8 else None,
        "edits": tuple(
            edit for text in EDITS[: given.byte() % (len(EDITS) + 1)] for edit in parse_edit(text)
        ),
    }
    file = _file(given)
    fd = os.memfd_create("capture")
    try:
        os.write(fd, file)
        path = f"/proc/self/fd/{fd}"
        counted, refusal = refused(survey, Replay(path, **replay), 1514, CHUNK)
        loaded, _ = refused(_load, Replay(path, **replay))
    finally:
        os.close(fd)
    if loaded is not None:
        assert refusal is None
        assert (loaded.packets, loaded.bytes) == (counted.packets, counted.bytes), (loaded, counted)
    in_words(file[:256])


def _warm_up():
    """What is imported late."""
    refused(survey, Replay("/proc/self/fd/0"), 1514, CHUNK)
    assert pcapfile


one.warm_up = _warm_up

if __name__ == "__main__":
    main(one)
