"""Traces against the fake kernel: bytes and order, passes, streams, gaps; edits against scapy."""

import ctypes
import ipaddress
import itertools
import random
import struct
import threading
import time

import pytest
from fake import Bench, fake
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.libpcap import PacketHeader
from xsk_engine._ffi.native import native
from xsk_engine.edits import parse_edit, to_neighbour
from xsk_engine.trace import _edits

US, MS, SECOND = 10**3, 10**6, 10**9
START = 1_700_000_000 * SECOND


class Tape:
    """A native trace and the arena it fills; takes packets as libpcap would hand them over."""

    def __init__(self, bench=None, *, edits=(), max_bytes=65549, chunk_size=2048, quota=1 << 20, **config):
        self.bench = bench
        self.arena = bench.open_arena(quota=quota) if bench else None
        if bench:
            bench.arenas.append(self.arena)
        raw_edits = _edits(tuple(edits))
        config = ffi.TraceConfig(
            arena=self.arena,
            edits=raw_edits,
            edit_count=len(edits),
            max_bytes=max_bytes,
            chunk_size=chunk_size,
            **config,
        )
        self.handle = ffi.create(native.trace_create, ctypes.byref(config))

    def take(self, packet, time_ns=0, length=None):
        header = PacketHeader(
            (START + time_ns) // SECOND, (START + time_ns) % SECOND, len(packet), length or len(packet)
        )
        buffer = ctypes.create_string_buffer(packet, len(packet))
        native.trace_take(self.handle, ctypes.byref(header), buffer)

    def take_all(self, packets, again=False):
        if self.arena is not None:
            native.arena_enter(self.arena)
        for i, packet in enumerate(packets):
            self.take(packet, i * MS)
        result = native.trace_finish(self.handle, again)
        if self.arena is not None:
            native.arena_leave(self.arena)
        return result

    def stats(self):
        stats = ffi.TraceStats()
        native.trace_read(self.handle, ctypes.byref(stats))
        return stats

    def start(self, pace=None, **values):
        config = ffi.MixConfig(
            pace=ffi.PaceConfig(**(pace or {})), trace=self.handle, **({"batch": 16} | values)
        )
        mix = ffi.create(native.mix_create, ctypes.byref(config))
        self.bench.mixes.append(mix)
        native.loop_command(self.bench.loop, ffi.START_MIX, mix)


def drawn(rng, most=20):
    return [
        rng.randbytes(rng.choice([14, 60, 61, 500, 1514, 2048, 2049, 9000]))
        for _ in range(rng.randrange(1, most))
    ]


class Reader:
    """Puts the packets together that the kernel got, in order."""

    def __init__(self, one):
        self.one, self.seen, self.packets, self.parts = one, 0, [], []

    def look(self):
        one = self.one
        new = fake.taken(one.kernel) - self.seen
        held = fake.held(one.kernel)
        for i in range(held - new, held):
            desc = fake.held_desc(one.kernel, i)
            self.parts.append(bytes(one.umem.area.view(desc.addr, desc.len)))
            if not desc.options & ffi.DESC_CONTD:
                self.packets.append(b"".join(self.parts))
                self.parts = []
        self.seen += new


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 7]), st.sampled_from([1, 7, 64]))
@settings(max_examples=60, deadline=None)
def test_a_loaded_file_goes_out_again_and_again_from_the_same_memory(seed, passes, batch):
    rng = random.Random(seed)
    packets = drawn(rng)
    one = Bench(ring=64, chunks=200)
    tape = Tape(one, passes=passes)
    assert tape.take_all(packets) == 0
    tape.start(batch=batch)
    reader = Reader(one)
    before = None
    for _ in range(2000):
        one.step()
        reader.look()
        stats = ffi.ArenaStats()
        native.arena_read_stats(tape.arena, ctypes.byref(stats))
        assert before in (None, stats.allocated_frags)
        before = stats.allocated_frags
        for _ in range(rng.randrange(30)):
            if held := fake.held(one.kernel):
                fake.complete(one.kernel, 0 if rng.random() < 0.8 else rng.randrange(held))
        if one.counters.finished_flows:
            break
    assert reader.packets == packets * passes
    posted = ffi.FlowCounters()
    native.trace_posted(tape.handle, ctypes.byref(posted))
    assert (posted.packets, posted.bytes) == (len(packets) * passes, sum(map(len, packets)) * passes)
    one.close()


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_stream_goes_through_little_memory_in_order(seed):
    rng = random.Random(seed)
    packets = drawn(rng, 40)
    passes = 5
    one = Bench(ring=64, chunks=64)
    tape = Tape(one, ring=32, quota=12)
    feeder = threading.Thread(
        target=lambda: [tape.take_all(packets, again=i < passes - 1) for i in range(passes)]
    )
    tape.start()
    feeder.start()
    reader = Reader(one)
    deadline = time.monotonic() + 20
    while not one.counters.finished_flows and time.monotonic() < deadline:
        one.step()
        reader.look()
        for _ in range(rng.randrange(30)):
            if fake.held(one.kernel):
                fake.complete(one.kernel, 0)
    feeder.join(5)
    assert reader.packets == packets * passes
    assert tape.stats().backward_packets == 0, "the next pass is no step back"
    audit = one.close()
    assert audit.inflight == 0


def test_a_stream_that_nobody_reads_lets_go_when_the_loop_ends():
    one = Bench(ring=64, chunks=64)
    tape = Tape(one, ring=8, quota=4)
    tape.start()
    feeder = threading.Thread(target=lambda: tape.take_all([bytes(1000)] * 1000))
    feeder.start()
    while not fake.held(one.kernel):
        one.step()
    feeder.join(0.05)
    assert feeder.is_alive()
    one.drain()
    while fake.held(one.kernel):
        fake.complete(one.kernel, 0)
    one.run()
    feeder.join(5)
    assert not feeder.is_alive()
    assert native.trace_is_closed(tape.handle)
    one.close()


@pytest.mark.parametrize(("speed", "period"), [(1, 1), (2, 1), (1, 3), (7, 5)])
def test_recorded_gaps_are_kept_at_any_speed(speed, period):
    rng = random.Random(speed * period)
    times = sorted(rng.randrange(SECOND) for _ in range(50))
    one = Bench(ring=64, chunks=64, cursor=0)
    tape = Tape(one, passes=1)
    native.arena_enter(tape.arena)
    for at in times:
        tape.take(bytes(60), at)
    native.trace_finish(tape.handle, 0)
    native.arena_leave(tape.arena)
    tape.start(pace={"rate_units": speed, "period_ns": period, "recorded": 1})
    posted = []
    end = fake.now(one.kernel) + 10 * SECOND
    while not one.counters.finished_flows:
        now = fake.now(one.kernel)
        assert now < end
        one.step()
        while fake.held(one.kernel):
            posted.append(now)
            fake.complete(one.kernel, 0)
        fake.advance(one.kernel, 10 * US)
    wanted = [(b - a) * period / speed for a, b in itertools.pairwise(times)]
    assert len(posted) == 50
    # each packet by its own time, so errors do not add up
    for i, at in enumerate(posted):
        assert at - posted[0] == pytest.approx((times[i] - times[0]) * period / speed, abs=30 * US), i
    assert one.gaps.asked_ns == pytest.approx(sum(wanted), abs=100)
    one.close()


def test_the_next_pass_begins_after_the_mean_gap_and_long_gaps_are_cut():
    one = Bench(ring=64, chunks=64)
    tape = Tape(one, passes=2, max_gap_ns=3 * MS)
    native.arena_enter(tape.arena)
    for at in (0, 1 * MS, 500 * MS, 300 * MS):  # the last one is older than the one before
        tape.take(bytes(60), at)
    native.trace_finish(tape.handle, 0)
    native.arena_leave(tape.arena)
    stats = tape.stats()
    # 1 ms, 499 cut to 3, 0; and between the passes the mean of these
    assert (stats.long_gaps, stats.backward_packets, stats.gaps_ns) == (1, 1, 4 * MS)
    tape.start(pace={"rate_units": 1, "period_ns": 1, "recorded": 1})
    fake.policy(one.kernel, 1 << 30, 1)
    posted = 0
    while not one.counters.finished_flows:
        one.step()
        fake.advance(one.kernel, 10 * US)
        posted += 1
        assert posted < 10_000
    assert one.gaps.asked_ns == pytest.approx((4 + 4 / 3 + 4) * MS, abs=10)
    one.close()


def test_what_is_too_long_too_short_or_cut_is_counted():
    packets = [
        bytes(60),
        bytes(13),
        bytes(1515),
        bytes(1514),
        bytes(12) + b"\x81\x00\x00\x07\x08\x00" + bytes(1500),
    ]
    tagged_twice = bytes(12) + b"\x88\xa8\x00\x07\x81\x00\x00\x07\x08\x00" + bytes(1500)
    for oversize, taken, longest in ((0, 4, 1522), (1, 4, 1522), (2, 5, 1522)):
        tape = Tape(max_bytes=1514, oversize=oversize)
        for packet in (*packets, tagged_twice):
            tape.take(packet, length=max(len(packet), 100))
        native.trace_finish(tape.handle, 0)
        stats = tape.stats()
        assert (stats.packets, stats.short_packets, stats.oversize_packets) == (taken, 1, 1), oversize
        assert stats.refused == (oversize == 0)
        assert stats.longest_bytes == longest
        assert stats.snapped_packets == 1
        assert stats.bytes == 60 + 1514 + 1518 + 1522 + (1514 if oversize == 2 else 0)
        native.trace_destroy(tape.handle)


def test_chunks_are_counted_as_they_are_filled():
    rng = random.Random(4)
    packets = drawn(rng, 100)
    survey = Tape()
    survey.take_all(packets)
    one = Bench(chunks=survey.stats().chunks)
    tape = Tape(one)
    assert tape.take_all(packets) == 0
    assert one.umem.audit().referenced == survey.stats().chunks
    native.trace_destroy(survey.handle)
    native.trace_destroy(tape.handle)
    one.close()
    one = Bench(chunks=survey_chunks(packets) - 1)
    tape = Tape(one)
    with pytest.raises(OSError, match="No buffer space"):
        tape.take_all(packets)
    native.arena_leave(tape.arena)
    native.trace_destroy(tape.handle)
    assert one.umem.audit().referenced == 0
    one.close()


def survey_chunks(packets):
    tape = Tape()
    tape.take_all(packets)
    chunks = tape.stats().chunks
    native.trace_destroy(tape.handle)
    return chunks


def test_what_comes_late_goes_out_with_its_own_gaps_and_not_in_a_burst():
    one = Bench(ring=64, chunks=64)
    fake.policy(one.kernel, 1 << 30, 1)
    tape = Tape(one, ring=64)
    tape.start(pace={"rate_units": 1, "period_ns": 1, "recorded": 1})
    for _ in range(100):
        one.step()
        fake.advance(one.kernel, MS)
    start = fake.now(one.kernel)
    assert tape.take_all([bytes(60)] * 50) == 0
    while not one.counters.finished_flows:
        one.step()
        fake.advance(one.kernel, 10 * US)
    assert fake.now(one.kernel) - start == pytest.approx(49 * MS, abs=2 * MS)
    one.close()


def test_at_its_own_pace_a_packet_need_not_wait_for_the_next():
    for flags, there in ((0, 1), (ffi.TRACE_WITHOUT_GAPS, 2)):
        one = Bench(ring=64, chunks=64)
        tape = Tape(one, ring=64, flags=flags)
        tape.start()
        native.arena_enter(tape.arena)
        for _ in range(2):
            tape.take(bytes(60))
        native.arena_leave(tape.arena)
        one.step(3)
        assert fake.taken(one.kernel) == there
        one.close()


# ---- edits ---------------------------------------------------------------------------------------------


def edited(packet, edits, **config):
    """The packet as the trace has it, from the umem."""
    one = Bench(chunks=64)
    tape = Tape(one, edits=edits, **config)
    assert tape.take_all([packet]) == 0
    tape.start(batch=1)
    reader = Reader(one)
    one.step(2)
    reader.look()
    while fake.held(one.kernel):
        fake.complete(one.kernel, 0)
    one.close()
    return reader.packets[0]


MAC_A, MAC_B, MAC_C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
IP4, IP6 = (
    IP(src="10.1.2.3", dst="172.16.5.6", ttl=9, tos=0xB9),
    IPv6(src="fd00::1:2", dst="fd11::3:4", hlim=9, tc=0xB9),
)
PACKETS = {
    "udp4": IP4 / UDP(sport=7, dport=9) / b"payload",
    "udp4 without checksum": IP4 / UDP(sport=7, dport=9, chksum=0) / b"payload",
    "tcp4 with options": IP(src="10.1.2.3", dst="172.16.5.6", options=b"\x01" * 4)
    / TCP(sport=7, dport=9, flags="PA", options=[("MSS", 1460)])
    / (b"x" * 801),
    "icmp": IP4 / ICMP() / b"ping",
    "first fragment": IP(src="10.1.2.3", dst="172.16.5.6", flags="MF")
    / UDP(sport=7, dport=9, len=4000, chksum=0x1234)
    / bytes(800),
    "later fragment": IP(src="10.1.2.3", dst="172.16.5.6", frag=100, proto=17) / Raw(bytes(range(200))),
    "udp6": IP6 / UDP(sport=7, dport=9) / b"payload",
    "tcp6 behind options": IP6 / IPv6ExtHdrDestOpt() / TCP(sport=7, dport=9) / b"x",
    "icmp6": IP6 / ICMPv6EchoRequest(data=b"ping"),
    "fragment6": IP6 / IPv6ExtHdrFragment(offset=9, nh=17) / Raw(bytes(range(200))),
    "sctp": IP(src="10.1.2.3", dst="172.16.5.6", proto=132) / Raw(bytes(range(40))),
    "udp without payload": IP4 / UDP(sport=7, dport=9) / b"",
}
EDITS = ["eth.dst=02:00:00:00:00:0c", "ip.src=192.0.2.7", "ip.dst=198.51.100.0/24", "ip.src=2001:db8::7",
         "ip.dst=2001:db8:9::/48", "ip.ttl=77", "ip.dscp=10", "port.src=1111", "port.dst=65535"]  # fmt: skip


def apply_with_scapy(packet, edits):
    """The same changes by somebody else; checksums are left for it to compute, unless the packet has none."""
    packet = packet.copy()
    ip = packet.getlayer(IP) or packet.getlayer(IPv6)
    upper = next((packet.getlayer(kind) for kind in (UDP, TCP) if packet.haslayer(kind)), None)
    for edit in edits:
        name, _, value = edit.partition("=")
        if name == "eth.dst":
            packet[Ether].dst = value
        elif name.startswith("ip.") and name[3:] in ("src", "dst"):
            new = ipaddress.ip_interface(value)
            if (new.version == 4) != isinstance(ip, IP):
                continue
            old = int(ipaddress.ip_address(getattr(ip, name[3:])))
            mask = int(new.netmask)
            setattr(ip, name[3:], str(type(new.ip)(old & ~mask | int(new.ip) & mask)))
        elif name == "ip.ttl":
            setattr(ip, "ttl" if isinstance(ip, IP) else "hlim", int(value))
        elif name == "ip.dscp":
            field = "tos" if isinstance(ip, IP) else "tc"
            setattr(ip, field, getattr(ip, field) & 3 | int(value) << 2)
        elif upper is not None:
            setattr(upper, {"port.src": "sport", "port.dst": "dport"}[name], int(value))
    return packet


@given(st.sampled_from(sorted(PACKETS)), st.lists(st.sampled_from(EDITS), unique=True), st.integers(0, 2))
@settings(max_examples=400, deadline=None)
def test_edits_are_scapys_and_checksums_follow(name, edits, tags):
    template = Ether(src=MAC_A, dst=MAC_B)
    for _ in range(tags):
        template /= Dot1Q(vlan=5)
    template /= PACKETS[name]
    before = raw(Ether(raw(template)))
    got = edited(before, [one for text in edits for one in parse_edit(text)])
    wanted = raw(apply_with_scapy(template, edits))
    if name != "first fragment":
        assert got == wanted
        return
    # whose checksum covers what is in other packets: it moves by what was changed
    at = wanted.index(struct.pack("!H", 0x1234), 14 + 4 * tags + 20)
    assert got[:at] + got[at + 2 :] == wanted[:at] + wanted[at + 2 :]
    change = words(wanted) - words(
        before
    )  # of header, addresses and ports; the IP checksum takes its part back
    header = slice(14 + 4 * tags, 14 + 4 * tags + 20)
    own = words(wanted[header]) - words(before[header])
    addresses = slice(header.start + 12, header.stop)
    ports = slice(header.stop, header.stop + 4)
    covered = (
        words(wanted[addresses]) - words(before[addresses]) + words(wanted[ports]) - words(before[ports])
    )
    assert (struct.unpack_from("!H", got, at)[0] - 0x1234 + covered) % 0xFFFF == 0, (change, own)


def words(data):
    return sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))


def test_a_udp_checksum_of_zero_is_sent_as_ones():
    zero = raw(Ether(src=MAC_A, dst=MAC_B) / IP4 / UDP(sport=7, dport=0) / b"payload!")
    port = struct.unpack_from("!H", zero, 40)[0]  # that makes the sum 0xffff
    got = edited(zero, parse_edit(f"port.dst={port}"))
    assert got == raw(Ether(src=MAC_A, dst=MAC_B) / IP4 / UDP(sport=7, dport=port) / b"payload!")
    assert got[40:42] == b"\xff\xff"
    assert edited(got, (), flags=ffi.TRACE_FIX_CHECKSUMS) == got


def test_a_wrong_checksum_stays_as_wrong_as_it_was_unless_it_is_to_be_fixed():
    packet = Ether(src=MAC_A, dst=MAC_B) / IP4 / UDP(sport=7, dport=9, chksum=0x4321) / b"payload!"
    right = raw(Ether(src=MAC_A, dst=MAC_B) / IP4 / UDP(sport=7, dport=9) / b"payload!")
    got = edited(raw(packet), parse_edit("port.dst=9"))
    assert got == raw(packet)
    assert edited(raw(packet), (), flags=ffi.TRACE_FIX_CHECKSUMS) == right


@pytest.mark.parametrize("name", sorted(set(PACKETS) - {"first fragment"}))
def test_fixed_checksums_are_scapys(name):
    right = raw(Ether(src=MAC_A, dst=MAC_B) / PACKETS[name]) + b"padding"
    broken = bytearray(right)
    packet = Ether(right)
    for kind, offset in ((IP, 10), (TCP, 16), (UDP, 6), (ICMP, 2), (ICMPv6EchoRequest, 2)):
        if packet.haslayer(kind) and not (kind is UDP and "without" in name):
            at = len(right) - len(raw(packet.getlayer(kind))) + offset
            broken[at : at + 2] = b"\x55\xaa"
    assert edited(bytes(broken), (), flags=ffi.TRACE_FIX_CHECKSUMS) == right


def test_a_final_destination_that_stands_elsewhere_keeps_its_checksum():
    routed = IPv6(dst="fd00::1") / IPv6ExtHdrRouting(addresses=["fd00::9"]) / UDP(sport=7, dport=9) / b"x"
    before = raw(Ether(src=MAC_A, dst=MAC_B) / routed)
    after = raw(Ether(src=MAC_A, dst=MAC_B) / routed.copy())
    got = edited(before, parse_edit("ip.dst=fd00::77"))
    assert got[38:54] == bytes.fromhex("fd00000000000000000000000000" + "0077")
    assert got[54:] == after[54:]
    broken = bytearray(before)
    broken[-3:-1] = b"\x12\x34"
    assert edited(bytes(broken), (), flags=ffi.TRACE_FIX_CHECKSUMS) == bytes(broken)


def test_a_datagram_shorter_than_its_packet():
    short = raw(UDP(sport=7, dport=9, chksum=0x1111) / b"12345")
    packet = raw(
        Ether(src=MAC_A, dst=MAC_B) / IP(src="10.1.2.3", dst="172.16.5.6", proto=17) / Raw(short + b"rest")
    )
    right = raw(IP(src="10.1.2.3", dst="172.16.5.6") / UDP(sport=7, dport=9) / b"12345")[26:28]
    assert edited(packet, (), flags=ffi.TRACE_FIX_CHECKSUMS)[40:42] == right


def test_vlan_tags_come_and_go():
    plain = raw(Ether(src=MAC_A, dst=MAC_B) / IP4 / UDP() / b"x")
    tagged = raw(Ether(src=MAC_A, dst=MAC_B) / Dot1Q(vlan=9, prio=5) / IP4 / UDP() / b"x")
    twice = Ether(src=MAC_A, dst=MAC_B, type=0x88A8) / Dot1Q(vlan=7) / Dot1Q(vlan=9, prio=5)
    twice = raw(twice / IP4 / UDP() / b"x")
    assert edited(plain, parse_edit("vlan=9")) == raw(
        Ether(src=MAC_A, dst=MAC_B) / Dot1Q(vlan=9) / IP4 / UDP() / b"x"
    )
    changed = edited(tagged, parse_edit("vlan=100"))
    assert changed == raw(Ether(src=MAC_A, dst=MAC_B) / Dot1Q(vlan=100, prio=5) / IP4 / UDP() / b"x")
    assert edited(twice, parse_edit("vlan=none")) == plain
    thrice = [*parse_edit("vlan=5"), *parse_edit("vlan=none"), *parse_edit("vlan=9")]
    assert edited(plain, thrice) == raw(Ether(src=MAC_A, dst=MAC_B) / Dot1Q(vlan=9) / IP4 / UDP() / b"x")
    both = [*parse_edit("vlan=none"), *parse_edit("vlan=3")]
    assert edited(twice, both) == raw(Ether(src=MAC_A, dst=MAC_B) / Dot1Q(vlan=3) / IP4 / UDP() / b"x")


def test_groups_are_still_groups_when_all_else_goes_to_a_neighbour():
    edits = to_neighbour(MAC_C, MAC_A)
    one = raw(Ether(src=MAC_B, dst=MAC_B) / ARP())
    group = raw(Ether(src=MAC_B, dst="ff:ff:ff:ff:ff:ff") / ARP())
    assert edited(one, edits)[:12].hex(":") == f"{MAC_C}:{MAC_A}"
    assert edited(group, edits)[:12].hex(":") == f"ff:ff:ff:ff:ff:ff:{MAC_A}"


@given(
    st.binary(min_size=14, max_size=120),
    st.lists(st.sampled_from([*EDITS, "vlan=4", "vlan=none"])),
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_can_be_edited(packet, edits, fix):
    types = [b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8"]
    packet = packet[:12] + types[packet[12] % 4] + packet[14:]
    got = edited(packet, [one for text in edits for one in parse_edit(text)], flags=int(fix))
    assert abs(len(got) - len(packet)) <= max(4, len(packet) - 14)
