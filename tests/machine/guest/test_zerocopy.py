"""Zero-copy on the machine's NICs: every byte that leaves arrives, and everything is as before afterwards."""

import asyncio
import random
import socket
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.lab.wire import frame, holdings, start, wait_until
from xsk_engine import netdev
from xsk_engine._ffi import libbpf, native
from xsk_engine.capture import HEADER
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import QueueTakenError, UnavailableError, WouldBlockError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab import topology
from xsk_engine.replay import Replay
from xsk_engine.units import parse_rate
from xsk_engine.values import Sequence

RATE = Fraction(2000)  # what a Python reader follows under emulation
SEQUENCE = {"@42/8": Sequence()}


def sequences(frames):
    return [int.from_bytes(f[42:50], "big") for f in frames]


@pytest.mark.parametrize("chunk_size", [2048, 4096])
@pytest.mark.parametrize("size", [60, 61, 1514])
def test_a_template_arrives(wire, send, size, chunk_size):
    sent = frame(size)
    with wire.capture() as frames:
        engine = send(Traffic(sent, count=200, rate=RATE), chunk_size=chunk_size)
        wait_until(lambda: len(frames) == 200)
    assert frames == [sent] * 200
    assert engine.snapshot().completed_packets == 200
    assert engine.kernel_stats().tx_invalid_descs == 0


def test_patched_frames_arrive_in_order_and_with_right_checksums(wire, send):
    sent = frame(200)
    with wire.capture() as frames, wire.listening() as receiver:
        send(Traffic(Flow(sent, SEQUENCE), count=150, rate=RATE))
        receiver.settimeout(5)
        payloads = [receiver.recv(2048) for _ in range(150)]  # the kernel has checked the sums
        wait_until(lambda: len(frames) == 150)
    assert sequences(frames) == list(range(150))
    assert all(f[50:] == sent[50:] and f[:40] == sent[:40] for f in frames)
    assert payloads == [f[42:] for f in frames]


@pytest.mark.parametrize("stream", [False, True], ids=["loaded", "streamed"])
def test_a_capture_file_is_sent_again(wire, send, tmp_path, stream):
    sent = [frame(length, fill=i & 0xFF) for i, length in enumerate(range(60, 1515, 15))]
    file = tmp_path / "some.pcap"
    records = (struct.pack("=IIII", 0, i, len(data), len(data)) + data for i, data in enumerate(sent))
    file.write_bytes(HEADER + b"".join(records))
    replay = Replay(str(file), speed=None, rate=parse_rate("2kpps"), loops=2, stream=stream)
    with wire.capture() as frames:
        engine = send(replay)
        wait_until(lambda: len(frames) == 2 * len(sent))
    assert frames == sent * 2
    assert engine.snapshot().completed_packets == 2 * len(sent)


def test_frags_at_many_offsets(wire, send):
    """An endpoint's frags lie one behind the other, so lengths of all kinds put them everywhere."""
    lengths = random.Random(1).choices(range(60, 1515), k=200)
    sent = [frame(length) for length in lengths]
    config = EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)
    with wire.capture() as frames, Engine(config) as engine:
        endpoint = engine.raw()
        for one in sent:
            wait_until(lambda one=one: would_not_block(endpoint, one))
        wait_until(lambda: len(frames) == len(sent))
    assert frames == sent


def would_not_block(endpoint, data):
    try:
        endpoint.send(data)
    except WouldBlockError:
        return False
    return True


def test_one_frag_and_its_clones_inflight_many_times(wire, send):
    sent = frame(300)
    config = EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)
    with wire.capture() as frames, Engine(config) as engine:
        endpoint = engine.raw()
        frag = endpoint.alloc(1, len(sent))[0]
        frag.payload[:] = sent
        for _ in range(10):
            endpoint.post([frag.clone() for _ in range(20)])
        frag.release()
        wait_until(lambda: len(frames) == 200)
        wait_until(lambda: engine.snapshot().completed_packets == 200)
        wait_until(lambda: endpoint.stats().owned_chunks <= 1)  # idle, so the rest goes back
    assert frames == [sent] * 200


def test_a_burst_is_counted_by_the_peer(wire, igb, send):
    with wire.counted() as arrived, wire.listening():
        engine = send(Traffic(frame(60), count=4000))
        total = 0

        def all_there():
            nonlocal total
            total = arrived()
            return total >= 4000

        wait_until(all_there)
    assert total == 4000
    assert engine.snapshot().completed_packets == 4000


def test_two_queues_share_a_umem(wire, igb, send):
    with wire.capture() as frames:
        engine = send(
            Traffic(Flow(frame(60), SEQUENCE), count=301, rate=RATE), queues=(0, 1), chunk_size=2048
        )
        wait_until(lambda: len(frames) == 301)
    assert sorted(sequences(frames)) == list(range(301))
    assert engine.snapshot().completed_packets == 301


def test_auto_takes_zerocopy_and_restores_everything(wire, nic, send):
    before = libbpf.attached_program(nic.ifindex)
    with Engine(EngineConfig("vtx", link_timeout_s=20)) as engine:
        program, mode = libbpf.attached_program(nic.ifindex)
        assert (program != 0) == (nic.driver == "igb"), "only where the driver asks for it"
        assert "zero-copy" in engine.binding.reason
        assert engine.binding.mode == "zerocopy"
    assert libbpf.attached_program(nic.ifindex) == before == (0, "none")
    after = netdev.wait_for_link("vtx", 20)
    assert (after.mtu, after.queues, after.rx_ring) == (nic.mtu, nic.queues, nic.rx_ring)


def test_others_still_receive_on_the_queue(wire, nic):
    """More packets than the fill ring has chunks: the kernel uses them again by itself."""
    queues = tuple(range(nic.queues))
    with wire.in_rx():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((topology.TX_IPV4, 7000))
        receiver.settimeout(5)
        with Engine(EngineConfig("vtx", mode="zerocopy", queues=queues, link_timeout_s=20)):
            for i in range(3 * nic.rx_ring):
                sender.sendto(i.to_bytes(4, "big"), (topology.TX_IPV4, 7000))
                assert receiver.recv(64) == i.to_bytes(4, "big")


RULE = """[[allow]]
users = ["root"]
interface = "vtx"
queues = "0-1"
mode = "any"
"""


@pytest.fixture
def opener():
    """The installed one, with the file where it belongs: the guest's own."""
    Path("/etc/xsk-engine.toml").write_text(RULE)
    return Path(native.library_path()).with_name("xsk-engine-open")


def test_sockets_that_the_opener_has_bound(wire, igb, send, opener):
    """Others go on receiving, although the driver gets its chunks only after the bind."""
    queues = tuple(range(min(igb.queues, 2)))
    with wire.capture() as frames:
        send(Traffic(frame(1514), count=200, rate=RATE), queues=queues, opener=str(opener))
        wait_until(lambda: len(frames) == 200)
    assert frames == [frame(1514)] * 200
    with wire.in_rx():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((topology.TX_IPV4, 7000))
        receiver.settimeout(5)
        config = EngineConfig("vtx", mode="zerocopy", queues=queues, opener=str(opener), link_timeout_s=20)
        with Engine(config):
            for i in range(2 * igb.rx_ring):
                sender.sendto(i.to_bytes(4, "big"), (topology.TX_IPV4, 7000))
                assert receiver.recv(64) == i.to_bytes(4, "big")
    Path("/etc/xsk-engine.toml").write_text(RULE.replace("any", "copy"))
    with Engine(EngineConfig("vtx", queues=queues, opener=str(opener), link_timeout_s=20)) as engine:
        assert engine.binding.mode == "copy"
        assert "its mode is another" in engine.binding.reason


def test_a_driver_that_would_starve_is_not_bound_by_the_opener(wire, nic, opener):
    if nic.driver == "igb":
        pytest.skip("igb looks for chunks at every wake-up")
    config = {"opener": str(opener), "link_timeout_s": 20}
    with pytest.raises(UnavailableError, match="nobody would receive anything"):
        Engine(EngineConfig("vtx", mode="zerocopy", **config)).open()
    with Engine(EngineConfig("vtx", **config)) as engine:
        assert engine.binding.mode == "copy"
        assert "nobody would receive anything" in engine.binding.reason


def test_open_and_close_again_and_again(wire, nic):
    for i in range(6):
        with Engine(EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)):
            pass
        if i == 0:
            before = holdings()
    assert holdings() == before
    assert libbpf.attached_program(nic.ifindex)[0] == 0


def test_refusals(wire, igb):
    with pytest.raises(UnavailableError, match=r"queue 7, .*EINVAL.*queue\(s\), 0 to 1.*ethtool -L"):
        Engine(EngineConfig("vtx", queues=(7,), mode="zerocopy")).open()
    with pytest.raises(UnavailableError, match=r"zerocopy\): EOPNOTSUPP: frames of 9000 bytes need several"):
        Engine(EngineConfig("vtx", max_frame_bytes=9000, mode="zerocopy")).open()
    with Engine(EngineConfig("vtx", max_frame_bytes=9000)) as engine:
        assert engine.binding.mode == "copy"
        assert "need several descs" in engine.binding.reason


def test_a_taken_queue(wire, nic):
    script = (
        "from xsk_engine.engine import *; import sys\n"
        "with Engine(EngineConfig('vtx', link_timeout_s=20)): print('up', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True)
    try:
        assert other.stdout.readline() == "up\n"
        with pytest.raises(QueueTakenError, match=r"queue 0.*of another process"):
            Engine(EngineConfig("vtx")).open()
    finally:
        other.communicate(timeout=20)


def test_kill_9_leaves_no_program(wire, nic):
    arguments = ("--dst-ip", topology.RX_IPV4, "--dst-port", "9000", "--mode", "zerocopy", "--rate", "1kpps")
    process = start("send", "vtx", *arguments)
    try:
        with wire.counted() as arrived:
            wait_until(arrived, 30)
        assert bool(libbpf.attached_program(nic.ifindex)[0]) == (nic.driver == "igb")
    finally:
        process.kill()
        process.communicate(timeout=10)
    wait_until(lambda: not libbpf.attached_program(nic.ifindex)[0])
    netdev.wait_for_link("vtx", 20)
    with Engine(EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)) as engine:
        asyncio.run(engine.run(Traffic(frame(60), count=10)))
    assert engine.snapshot().completed_packets == 10
