"""What applications hold, in threads: every byte arrives, and every misuse gets its answer."""

import errno
import gc
import os
import socket
import subprocess
import sys
import threading
import time

import numpy
import psutil
import pytest
from wire import PORT, another_lab, holdings, wait_until

import xsk_engine
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

PEER = (topology.RX_IPV4, PORT)
SMALL_BUFFER = 150  # what an ordinary user's socket keeps


@pytest.fixture
def engine(wire):
    with xsk_engine.open("vtx") as one:
        yield one


def received(sock, n, seconds=5.0):
    sock.settimeout(seconds)
    return [sock.recv(1 << 16) for _ in range(n)]


def silent(sock):
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(1 << 16)


# ---- sending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: numpy.frombuffer(b, numpy.uint8)])
@pytest.mark.parametrize("size", [0, 1, 17, 18, 19, 1472])
def test_one_payload(wire, engine, size, kind):
    payload = bytes(i * 7 & 0xFF for i in range(size))
    with wire.listening() as sock, engine.udp(PEER) as endpoint:
        endpoint.send(kind(payload))
        assert received(sock, 1) == [payload]


def test_the_kernel_accepts_every_checksum(wire, engine):
    payloads = [os.urandom(n % 200) for n in range(SMALL_BUFFER)]
    with wire.listening() as sock, engine.udp(PEER) as endpoint:
        endpoint.send_many(payloads)
        assert received(sock, len(payloads)) == payloads


@pytest.mark.parametrize("order", ["C", "reversed", "transposed"])
def test_rows_of_an_array(wire, engine, order):
    array = numpy.arange(100 * 40, dtype=numpy.uint32).astype(numpy.uint8).reshape(100, 40)
    if order == "reversed":
        array = array[::-1]
    if order == "transposed":
        array = array.T
    lengths = numpy.arange(len(array)) % (array.shape[1] + 1)
    with wire.listening() as sock, engine.udp(PEER) as endpoint:
        assert endpoint.send_many(array, lengths) == len(array)
        assert received(sock, len(array)) == [bytes(row[:n]) for row, n in zip(array, lengths, strict=True)]
        assert endpoint.send_many(array[:3]) == 3
        assert received(sock, 3) == [bytes(row) for row in array[:3]]
        assert endpoint.send_many([]) == endpoint.send_many(array[:0]) == 0


def test_ipv6_multicast_and_vlan(wire, engine):
    def ours(frame):
        return b"marked" in frame

    group = "239.1.2.3"
    with wire.capture(ours) as frames:
        engine.udp((topology.RX_IPV6, PORT)).send(b"marked six")
        engine.udp((group, PORT)).send(b"marked group")
        engine.udp(("ff15::77", PORT)).send(b"marked group six")
        engine.udp(PEER, vlan=77, pcp=5, ttl=9, dscp=46, source=("10.77.0.9", 4000)).send(b"marked tag")
        wait_until(lambda: len(frames) == 4)
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Dot1Q, Ether

    six, four_group, six_group, tagged = (Ether(frame) for frame in frames)
    assert (six.dst, six[IPv6].dst, bytes(six[UDP].payload)) == (
        topology.RX_MAC,
        topology.RX_IPV6,
        b"marked six",
    )
    assert (four_group.dst, four_group[IP].ttl, four_group[IP].dst) == ("01:00:5e:01:02:03", 1, group)
    assert (six_group.dst, six_group[IPv6].hlim) == ("33:33:00:00:00:77", 1)
    assert (tagged[Dot1Q].vlan, tagged[Dot1Q].prio, tagged[IP].ttl, tagged[IP].tos >> 2) == (77, 5, 9, 46)
    assert (tagged[IP].src, tagged[UDP].sport) == ("10.77.0.9", 4000)
    for packet in (six, four_group, six_group, tagged):
        check = packet[UDP].chksum
        del packet[UDP].chksum
        assert Ether(bytes(packet))[UDP].chksum == check


def test_jumbo_datagrams_in_several_descs():
    payload = os.urandom(60_000)
    with (
        another_lab(LabOptions(mtu=65535)) as jumbo,
        jumbo.listening() as sock,
        xsk_engine.open("vtx", umem_mb=8) as engine,
    ):
        endpoint = engine.udp(PEER, quota_chunks=200)
        assert endpoint.send_many([payload, payload[:5000], b"x"]) == 3
        assert received(sock, 3) == [payload, payload[:5000], b"x"]
        with pytest.raises(ValueError, match=r"at most 4054"):
            endpoint.alloc(1, 4055)


def test_raw_frames_are_sent_as_they_are(wire, engine):
    sent = bytes.fromhex("027700000002 027700000001 88b5") + b"marked, and short"
    with wire.capture(lambda frame: frame[12:14] == b"\x88\xb5") as frames:
        raw = engine.raw()
        raw.send(sent)
        frags = raw.alloc(3, 100)
        frags.array[:] = numpy.frombuffer(sent.ljust(100, b"\1"), numpy.uint8)
        raw.post(frags)
        wait_until(lambda: len(frames) == 4)
    assert frames == [sent, *[sent.ljust(100, b"\1")] * 3]
    with pytest.raises(ValueError, match="13 bytes; an Ethernet header alone has 14"):
        raw.send(bytes(13))


def test_what_is_no_payload(engine):
    endpoint = engine.udp(PEER)
    for wrong in ("text", None, 5, [b"a"]):
        with pytest.raises(TypeError):
            endpoint.send(wrong)
    for wrong in (b"one", "text", [b"a", "text"], 5):
        with pytest.raises(TypeError):
            endpoint.send_many(wrong)
    with pytest.raises(TypeError, match="uint8 with 2"):
        endpoint.send_many(numpy.zeros(5))
    with pytest.raises(ValueError, match="numbers from 0 to 4"):
        endpoint.send_many(numpy.zeros((2, 4), numpy.uint8), [1, 5])
    with pytest.raises(ValueError, match="1473 bytes; at most 1472 fit into a packet on vtx"):
        endpoint.send(bytes(1473))
    with pytest.raises(ValueError, match="1473 bytes") as stopped:
        endpoint.send_many([b"a", b"b", bytes(1473), b"c"])
    assert stopped.value.sent == 2
    endpoint.drain()
    assert endpoint.stats().completed_descs == 2


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("localhost", 9), {}, "names are not looked up"),
        (("10.77.0.2", 70000), {}, "port 70000"),
        (PEER, {"source": ("fd77::1", 5)}, "different IP versions"),
        (PEER, {"dst_mac": "nonsense"}, "MAC address"),
        (PEER, {"vlan": 5000}, "12 bits"),
        (PEER, {"ttl": 256}, "8 bits"),
        (PEER, {"queue": 3}, "not one of the engine's"),
        (PEER, {"timeout": -1}, "not 0 s or more"),
        (PEER, {"pcp": 3}, "give a vlan"),
        (PEER, {"entries": 1}, "power of two of 2"),
        (PEER, {"quota_chunks": 0}, "at least one"),
        (PEER, {"timestamps": True}, "not opened with timestamps=True"),
    ],
)
def test_what_is_no_address_or_option(engine, arguments, options, says):
    with pytest.raises(ValueError, match=says):
        engine.udp(arguments, **options)
    assert engine.umem.audit(strict=False).arenas == 1, "nothing is left of it"


def test_nobody_answers_and_no_route(engine):
    with pytest.raises(xsk_engine.UnavailableError, match=r"nobody answered within 3 s.*dst_mac="):
        engine.udp(("10.77.0.200", PORT))
    with pytest.raises(xsk_engine.UnavailableError, match="no route"):
        engine.udp(("192.0.2.1", PORT))


@pytest.fixture
def new_mac(wire):
    """A function: gives the peer another MAC, as far as the kernel knows; it has its own again afterwards."""

    def change(mac):
        wire.ip("neigh", "replace", topology.RX_IPV4, "lladdr", mac, "dev", "vtx", "nud", "permanent")

    yield change
    change(topology.RX_MAC)


def test_a_neighbour_that_changes_its_mac(wire, engine, new_mac):
    endpoint = engine.udp(PEER)
    with wire.capture(lambda frame: b"to whom" in frame) as frames:
        new_mac("02:77:00:00:00:99")

        def arrived():
            endpoint.send(b"to whom")
            time.sleep(0.01)
            return any(frame[:6].hex(":") == "02:77:00:00:00:99" for frame in frames)

        wait_until(arrived)


def test_a_flow_whose_neighbour_changes_its_mac_while_its_loop_takes_no_commands(
    wire, engine, new_mac, monkeypatch
):
    """It hears of it a little later."""
    real, refused = engine.workers[0].start_update, []

    def start_update(*arguments):
        if len(refused) < 3:
            refused.append(arguments)
            raise xsk_engine.BusyError("command", "vtx", "its command ring is full")
        return real(*arguments)

    flow = xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst={PORT} / hex 746f2077686f6d")
    with wire.capture(lambda frame: b"to whom" in frame) as frames:
        running = engine.start(flow, rate="1kpps")
        wait_until(lambda: frames)
        monkeypatch.setattr(engine.workers[0], "start_update", start_update)
        new_mac("02:77:00:00:00:99")
        wait_until(lambda: frames[-1][:6].hex(":") == "02:77:00:00:00:99", 5)
        running.stop()
    assert len(refused) == 3


# ---- frags ----------------------------------------------------------------------------------------------


def test_frags_are_filled_in_place(wire, engine):
    with wire.listening() as sock:
        endpoint = engine.udp(PEER)
        frags = endpoint.alloc(100, 60)
        assert frags.array.shape == (100, 60)
        frags.array[:] = numpy.arange(100, dtype=numpy.uint8)[:, None]
        frags[5].payload[:3] = b"abc"
        frags.lengths = numpy.arange(100) % 61
        frags[7].length = 60
        assert frags[7].frame[:6].hex(":") == topology.RX_MAC
        endpoint.post(frags)
        got = received(sock, 100)
    want = [bytes([i]) * (i % 61) for i in range(100)]
    want[5] = b"abc" + want[5][3:]
    want[7] = bytes([7]) * 60
    assert got == want


def test_the_array_is_the_umem(engine):
    endpoint = engine.udp(PEER)
    frags = endpoint.alloc(200, 90)
    whole = engine.umem.array()
    frags.array[:] = 0xC7
    first = frags[0].addr
    assert numpy.shares_memory(frags.array, whole)
    assert (whole.reshape(-1)[first + 42 : first + 42 + 90] == 0xC7).all()
    assert len({frag.addr for frag in frags}) == 200
    frags.release()


def test_posted_frags_are_gone(engine):
    endpoint = engine.udp(PEER)
    frags = endpoint.alloc(3, 20)
    one, view = frags[0], frags[0].payload
    kept = frags[1].payload
    endpoint.post(frags[:1])
    with pytest.raises(ValueError, match="released memoryview"):
        view[0]
    for use in (
        lambda: one.payload,
        one.clone,
        lambda: one.length,
        lambda: endpoint.post(one),
        lambda: frags.array,
    ):
        with pytest.raises(xsk_engine.ClosedError, match=r"posted or released"):
            use()
    kept[:] = b"still mine, all of it"[:20]
    assert frags.held.tolist() == [False, True, True]
    endpoint.post(frags)
    with pytest.raises(xsk_engine.ClosedError):
        endpoint.post(frags)
    endpoint.drain()
    assert endpoint.stats().completed_descs == 3


def test_a_frag_twice_in_a_list_and_a_strangers(engine):
    endpoint, other = engine.udp(PEER), engine.udp(PEER)
    one, two = endpoint.alloc(2, 20)
    with pytest.raises(xsk_engine.ClosedError, match=r"twice|posted or released"):
        endpoint.post([one, two, one])
    strange = other.alloc(1, 20)
    with pytest.raises(ValueError, match="another endpoint"):
        endpoint.post(strange)
    other.post(strange)
    with pytest.raises(TypeError, match="alloc"):
        endpoint.post([b"bytes"])


def test_clones_are_posted_for_themselves(wire, engine):
    with wire.listening() as sock:
        endpoint = engine.udp(PEER)
        frag = endpoint.alloc(1, 50)[0]
        frag.payload[:] = bytes(range(50))
        endpoint.post([frag.clone() for _ in range(50)])
        endpoint.post(frag)
        assert received(sock, 51) == [bytes(range(50))] * 51
        endpoint.drain()
    assert engine.umem.audit(strict=False).referenced == 0


def test_a_failed_post_hands_back_what_was_not_posted(wire, engine):
    endpoint = engine.udp(PEER, timeout=0, quota_chunks=128, entries=64)
    frags = endpoint.alloc(2000, 64)
    frags.array[:] = numpy.arange(2000, dtype=numpy.uint32)[:, None] & 0xFF
    with wire.capture() as frames:
        while frags.held.any():
            try:
                endpoint.post(frags)
            except xsk_engine.WouldBlockError:
                held = frags.held
                assert 0 < held.sum() < 2000
                assert held.argmax() + held.sum() == 2000, "the last ones"
        endpoint.drain()
        if wire.roomy:
            wait_until(lambda: len(frames) == 2000)
    assert not wire.roomy or [frame[42] for frame in frames] == [i & 0xFF for i in range(2000)]


def test_dropped_frags_go_back_with_a_warning(engine):
    endpoint = engine.udp(PEER)
    frags = endpoint.alloc(40, 1000)
    assert len(frags) == 40
    with pytest.warns(ResourceWarning, match="40 frags of an endpoint on vtx were never posted"):
        del frags
    endpoint.flush()
    assert endpoint.stats().owned_chunks == 0


def test_the_mapping_lives_as_long_as_a_view(wire):
    with xsk_engine.open("vtx") as engine:
        frags = engine.udp(PEER).alloc(10, 100)
        array, view = frags.array, frags[0].payload
        array[:] = 5
    array[:] = 6
    assert bytes(view) == b"\6" * 100
    with pytest.raises(xsk_engine.ClosedError):
        frags.array  # noqa: B018
    with pytest.raises(xsk_engine.ClosedError, match="engine is closed"):
        frags[0].payload  # noqa: B018


def test_debug_finds_who_writes_after_the_post(wire):
    with xsk_engine.open("vtx", debug=True) as engine:
        endpoint = engine.udp(PEER)
        frags = endpoint.alloc(4, 100)
        stale = frags.array
        endpoint.post(frags)
        endpoint.drain()
        stale[2, 50] = 1
        found = []
        for _ in range(50):
            try:
                endpoint.alloc(4, 100).release()
            except xsk_engine.BrokenError as error:
                found.append(error)
        assert [error.errno for error in found] == [errno.EUCLEAN]
        assert "written after it was posted" in str(found[0])
        del stale
        for _ in range(50):
            endpoint.alloc(4, 100).release()


# ---- trackers -------------------------------------------------------------------------------------------


def test_a_tracker_says_when_and_the_timestamps_when_exactly(wire):
    with xsk_engine.open("vtx", timestamps=True) as engine:
        endpoint = engine.udp(PEER, timestamps=True)
        before = time.clock_gettime_ns(time.CLOCK_TAI)
        tracker = endpoint.post(endpoint.alloc(100, 64), track=True)
        tracker.wait(2)
        after = time.clock_gettime_ns(time.CLOCK_TAI)
        stamps = tracker.timestamps_ns
        assert tracker.done
        assert stamps.shape == (100,)
        assert before < int(stamps.min()) <= int(stamps.max()) < after


def test_without_timestamps_they_are_zero(engine):
    endpoint = engine.udp(PEER)
    tracker = endpoint.post(endpoint.alloc(2, 9), track=True)
    tracker.wait(2)
    assert tracker.timestamps_ns.tolist() == [0, 0]
    assert endpoint.post(endpoint.alloc(1, 9)) is None


def test_a_tracker_of_what_never_leaves(wire):
    with another_lab(LabOptions()) as lab, xsk_engine.open("vtx", link_timeout=30) as engine:
        endpoint = engine.udp(PEER)
        lab.ip("link", "set", "vtx", "down")
        endpoint.send(b"finds out")
        wait_until(lambda: engine.snapshot().kick_enetdown)
        tracker = endpoint.post(endpoint.alloc(5, 9), track=True)
        with pytest.raises(xsk_engine.DeadlineError, match="not all have completed") as late:
            tracker.wait(0.2)
        assert late.value.errno == errno.ETIMEDOUT
        assert not tracker.done
        endpoint.close()
        lab.ip("link", "set", "vtx", "up")
        with pytest.raises(xsk_engine.ClosedError, match="endpoint is closed"):
            tracker.wait(2)


# ---- four different answers -----------------------------------------------------------------------------


def test_would_block_busy_closed_and_broken(wire):
    with another_lab(LabOptions()) as lab, xsk_engine.open("vtx", link_timeout=0.5) as engine:
        endpoint = engine.udp(PEER, timeout=0, quota_chunks=2)
        frags = endpoint.alloc(2, 4000 - 2600)
        with pytest.raises(ValueError, match="more than the quota"):
            endpoint.alloc(100, 1400)
        rest = endpoint.alloc(2, 1400)
        with pytest.raises(xsk_engine.WouldBlockError) as blocked:
            endpoint.alloc(1, 100)
        assert blocked.value.errno == errno.EAGAIN
        frags.release()
        rest.release()
        closed = engine.udp(PEER)
        closed.close()
        closed.close()
        for use in (
            lambda: closed.send(b"x"),
            lambda: closed.alloc(1, 1),
            closed.drain,
            closed.stats,
            closed.flush,
        ):
            with pytest.raises(xsk_engine.ClosedError, match="endpoint is closed"):
                use()
        lab.ip("link", "set", "vtx", "down")

        def broken():
            try:
                endpoint.send(b"x")
            except xsk_engine.WouldBlockError:
                return False
            except xsk_engine.BrokenError as error:
                assert error.errno == errno.ENETDOWN
                assert "vtx" in error.arguments
                return True
            return False

        wait_until(broken)
        with pytest.raises(xsk_engine.BrokenError, match="link was down"):
            engine.udp(PEER, dst_mac=topology.RX_MAC, source=("10.77.0.1", 1)).send(b"x")
    with pytest.raises(xsk_engine.ClosedError):
        endpoint.send(b"x")
    with pytest.raises(xsk_engine.ClosedError):
        engine.udp(PEER)


def test_a_device_that_is_deleted(wire):
    with another_lab(LabOptions()) as lab, xsk_engine.open("vtx") as engine:
        endpoint = engine.udp(PEER)
        endpoint.send(b"x")
        lab.ip("link", "delete", "vtx")
        gone = []

        def is_gone():
            try:
                endpoint.send(b"x")
            except xsk_engine.BrokenError as error:
                gone.append(error)
            return gone

        wait_until(is_gone)
        assert gone[0].errno == errno.ENXIO
        assert "vtx" in gone[0].arguments


def test_a_link_that_comes_back_loses_nothing(wire):
    with (
        another_lab(LabOptions()) as lab,
        lab.listening() as sock,
        xsk_engine.open("vtx", link_timeout=None) as engine,
    ):
        endpoint = engine.udp(PEER)
        endpoint.send(b"before")
        received(sock, 1)
        lab.ip("link", "set", "vtx", "down")
        endpoint.send_many([b"%d" % i for i in range(100)])
        time.sleep(0.3)
        assert endpoint.stats().completed_descs < 100
        lab.ip("link", "set", "vtx", "up")
        lab.ip(
            "neigh", "replace", topology.RX_IPV4, "lladdr", topology.RX_MAC, "dev", "vtx", "nud", "permanent"
        )
        endpoint.drain(5)
        got = received(sock, 99)
    assert got == [b"%d" % i for i in range(1, 100)] or got == [b"%d" % i for i in range(99)]


def test_a_blocking_send_waits_for_room(wire, engine):
    endpoint = engine.udp(PEER, quota_chunks=1, entries=16)
    for i in range(3000):
        endpoint.send(b"%d" % i)
    endpoint.drain()
    stats = endpoint.stats()
    assert (stats.submitted_packets, stats.completed_descs, stats.inflight_descs) == (3000, 3000, 0)


def test_chunks_that_an_idle_endpoint_keeps_are_given_to_who_waits(wire):
    with xsk_engine.open("vtx") as engine:
        hoarder = engine.udp(PEER, quota_chunks=1024)
        hoarder.alloc(1800, 1400).release()
        busy = engine.udp(PEER, quota_chunks=1024)
        frags = busy.alloc(1800, 1400)
        frags.release()


# ---- threads and processes ------------------------------------------------------------------------------


def test_endpoints_in_many_threads(wire, engine):
    with wire.counted() as arrived, wire.listening():

        def work():
            endpoint = engine.udp(PEER)
            for _ in range(20):
                endpoint.send_many([b"x" * 30] * 300)
                endpoint.post(endpoint.alloc(100, 64))
            endpoint.drain()
            endpoint.close()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert arrived() == 8 * 20 * 400
    assert engine.umem.audit(strict=False).referenced == 0


def test_a_race_raises_at_once(engine):
    endpoint = engine.udp(PEER)
    with endpoint.using("a test"):
        for use in (lambda: endpoint.send_many([b"x"]), lambda: endpoint.alloc(1, 1), endpoint.close):
            with pytest.raises(xsk_engine.BusyError, match="another thread"):
                use()
    endpoint.send_many([b"x"])


FORKED = """
import os, sys, xsk_engine
engine = xsk_engine.open("vtx")
endpoint = engine.udp(("10.77.0.2", 9000))
frags = endpoint.alloc(2, 20)
if os.fork() == 0:
    answers = []
    for use in (lambda: endpoint.send(b"x"), lambda: endpoint.send_many([b"x"]), lambda: endpoint.alloc(1, 1),
                lambda: engine.udp(("10.77.0.2", 9000)), endpoint.drain):
        try:
            use()
        except xsk_engine.BrokenError as error:
            answers.append("forked" in str(error))
    try:
        frags[0].payload
    except xsk_engine.ClosedError:
        answers.append(True)
    endpoint.close(); engine.close()
    os._exit(0 if answers == [True] * 6 else 1)
_, status = os.wait()
endpoint.post(frags)
endpoint.send(b"the parent goes on")
endpoint.drain()
print(os.waitstatus_to_exitcode(status), engine.snapshot().completed_packets)
engine.close()
"""


def test_a_forked_child_is_broken_and_the_parent_goes_on(wire):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["0", "3"], done.stderr


GIVEN = """
import sys, xsk_engine
with xsk_engine.open("vtx", fd=int(sys.argv[1]), umem_mb=1) as engine:
    endpoint = engine.udp(("10.77.0.2", 9000))
    endpoint.send(b"from a socket that somebody else opened")
    endpoint.drain()
    print(engine.binding.mode, open("/proc/self/status").read().split("CapEff:")[1].split()[0])
"""


def test_a_given_socket_needs_no_capability(wire):
    """setpriv drops everything, CAP_NET_RAW too; the interpreter may only read what it must."""
    given = socket.socket(44, socket.SOCK_RAW)  # AF_XDP
    with given, wire.listening() as sock:
        os.set_inheritable(given.fileno(), True)
        done = subprocess.run(
            [
                "setpriv",
                "--bounding-set=-all",
                "--inh-caps=-all",
                "--ambient-caps=-all",
                sys.executable,
                "-c",
                GIVEN,
                str(given.fileno()),
            ],
            pass_fds=(given.fileno(),),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout.split() == ["copy", "0000000000000000"], done.stderr
        assert received(sock, 1) == [b"from a socket that somebody else opened"]


def test_two_given_sockets_for_two_queues(wire):
    pair = [socket.socket(44, socket.SOCK_RAW) for _ in range(2)]
    with wire.counted() as arrived, wire.listening():
        with xsk_engine.open("vtx", queues=(0, 1), fd=[one.fileno() for one in pair]) as engine:
            for one in pair:
                one.close()
            for queue in (0, 1):
                engine.udp(PEER, queue=queue).send_many([b"x"] * 10)
        assert arrived() == 20
    with pytest.raises(ValueError, match="one per queue"):
        xsk_engine.open("vtx", fd=(1, 2))


# ---- what stays behind ----------------------------------------------------------------------------------


def test_ten_thousand_endpoints_leave_nothing(wire, engine):
    def some(n):
        for i in range(n):
            with engine.udp(PEER) as endpoint:
                endpoint.send(b"x")
                if i % 100 == 0:
                    endpoint.drain()

    some(500)
    gc.collect()
    before, rss = holdings(), psutil.Process().memory_info().rss
    some(10_000)
    gc.collect()
    assert holdings() == before
    assert psutil.Process().memory_info().rss - rss < 4 << 20
    wait_until(lambda: engine.umem.audit(strict=False).referenced == 0)
    assert engine.umem.audit(strict=False).arenas <= 2


def test_a_thousand_open_endpoints_own_nothing_when_idle(engine):
    many = [engine.udp(PEER) for _ in range(1000)]
    for endpoint in many:
        endpoint.send(b"x")
    wait_until(lambda: engine.umem.audit(strict=False).pooled == engine.umem.audit(strict=False).chunks)


MEMORY = """
import xsk_engine, numpy, resource, gc, sys
with xsk_engine.open("vtx") as engine:
    endpoint = engine.udp(("10.77.0.2", 9000))
    for _ in range(200):
        endpoint.send_many(numpy.zeros((1000, 64), numpy.uint8))
        endpoint.post(endpoint.alloc(500, 64))
    endpoint.drain()
    status = open("/proc/self/status").read()
    print(int(status.split("VmRSS:")[1].split()[0]) * 1024 - engine.umem.area.length)
"""


def test_memory_is_the_umem_and_at_most_60_mb(wire):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) < 60 << 20


def test_an_engine_that_nobody_closes(wire):
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "import xsk_engine\ne = xsk_engine.open('vtx')\ne.raw()"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert "engine on vtx was never closed" in done.stderr


def test_endpoints_that_nobody_holds(wire, engine):
    """They send what was sent, and are closed when others are made, however many there were."""
    with wire.counted() as arrived, wire.listening():
        for _ in range(200):
            engine.udp(PEER).send(b"x")
        circle = [engine.udp(PEER)]
        circle.append(circle)
        circle[0].send(b"x")
        del circle
        gc.collect()
        wait_until(lambda: arrived() == 201)
        engine.raw().close()  # and the last of the others with it
        assert engine.umem.audit(strict=False).arenas == 1, "the loop's own"
        for _ in range(5):
            engine.udp(PEER).send_many([b"x"] * 500)
        engine.close()
        assert engine.snapshot().submitted_packets == arrived()


def test_an_idle_engine_rests(engine):
    """Its loop sleeps for seconds at a time; what that costs is in bench-library."""
    endpoint = engine.udp(PEER)
    endpoint.send(b"x")
    endpoint.drain()
    time.sleep(0.1)
    page = engine.counter_pages()[0]
    before = int(page["turns"][0])
    time.sleep(1.0)
    assert int(page["turns"][0]) - before < 10


def test_statistics_are_frozen_and_become_history(engine):
    endpoint = engine.udp(PEER)
    endpoint.send_many([b"x"] * 10)
    endpoint.drain()
    first = engine.snapshot()
    with pytest.raises(AttributeError):
        first.completed_packets = 5
    records = xsk_engine.history([first, engine.snapshot()])
    assert records["completed_packets"].tolist() == [10, 10]
    assert records["time_ns"][0] <= records["time_ns"][1]
    assert engine.counter_pages()[0]["completed_packets"] == 10


UNDER_UVLOOP = """
import asyncio, sys, uvloop, xsk_engine
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
def plainly():
    with xsk_engine.open("vtx") as engine:
        endpoint = engine.udp(("10.77.0.2", 9000))
        endpoint.send(b"x")
        endpoint.drain()
async def awaited():
    async with xsk_engine.aopen("vtx") as engine:
        endpoint = engine.udp(("10.77.0.2", 9000))
        await endpoint.send(b"x")
        await endpoint.drain()
plainly() if sys.argv[1] == "open" else asyncio.run(awaited())
"""


@pytest.mark.parametrize("how", ["open", "aopen"])
def test_a_program_whose_event_loops_are_uvloops(wire, how):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNDER_UVLOOP, how],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
