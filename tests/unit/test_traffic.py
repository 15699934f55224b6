"""What traffic compiles to, and that the same seed gives the same packets however many queues there are."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packets import flows, sent

from xsk_engine import dryrun, sizes
from xsk_engine.flow import Flow, Pace, Traffic
from xsk_engine.headers import Header
from xsk_engine.mixprogram import compile_traffic
from xsk_engine.payload import Payload
from xsk_engine.spec import parse_flow
from xsk_engine.stats import Snapshot, merge
from xsk_engine.units import parse_rate
from xsk_engine.values import Choice, FlowId, Random, Range, Sequence

UDP = [Header("ipv4"), Header("udp")]
UDP_FLOW = Flow(UDP)


def frame_of(payload):
    """A whole frame of 42 bytes of headers, as a template."""
    (built,) = sent(Traffic(Flow(UDP, payload=Payload(payload), sizes=sizes.of([42 + len(payload)]))), 1)
    return built


@given(
    count=st.integers(1, 10_000),
    txqs=st.integers(1, 9),
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_counts_are_divided_without_loss(count, txqs, weights):
    flows = [Flow(b"x" * 60, weight=weight) for weight in weights]
    programs = compile_traffic(Traffic(flows, count=count), txqs)
    assert sum(mix.count for queue in programs for mix in queue) == count


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        (Traffic(b""), "empty"),
        (Traffic([]), "flows: 0"),
        (Traffic(b"x" * 60, batch=0), "batch"),
        (Traffic(b"x" * 60, batch=5000), "batch"),
        (Traffic("text"), "str"),
        (Traffic(Flow(b"x" * 60, weight=0)), "weight"),
        (Traffic(Flow(b"x" * 60, checksum="maybe")), "checksum"),
        (Traffic(Flow(b"x" * 60, advance="sideways")), "advance"),
        (Traffic(Flow(b"x" * 60, {"@58/4": Sequence()})), "behind the shortest"),
        (Traffic(Flow(b"x" * 60, {"@0/9": Sequence()})), "1 to 8 bytes"),
        (Traffic(Flow(b"x" * 60, {"udp.src": 7})), "0 udp headers"),
        (Traffic(Flow(UDP, {"udp.port": 7})), "no field 'port'"),
        (Traffic(Flow(UDP, {"udp": 7})), "is no field"),
        (Traffic(Flow(UDP, {"@32/4": Sequence()})), "split it in two"),
        (Traffic(Flow(UDP, {"ipv4.ttl": 256})), "does not fit into 8 bits"),
        (Traffic(Flow(UDP, {"ipv4.ttl": Range(250, 260)})), "does not fit into 8 bits"),
        (Traffic(Flow([*UDP, Header("tcp")])), "tcp cannot follow udp"),
        (Traffic(Flow([Header("ipv4", {"size": 7})])), "no field 'size'"),
        (Traffic(Flow(UDP, sizes=sizes.of([41]))), "too short"),
        (Traffic(Flow(UDP, sizes=sizes.of([60]), signature=True)), "signature 24"),
        (Traffic(Flow([Header("arp")], checksum="offload")), "no UDP or TCP"),
        (Traffic(Flow(UDP, pace=Pace()), count=5), "a count too"),
        (Traffic([Flow(UDP), Flow(UDP, pace=Pace())], count=5), "a count too"),
        (Traffic(Flow(UDP, count=5)), "Traffic counts all"),
        (Traffic(Flow(UDP, pace=Pace()), rate=5), "none to share"),
        (Traffic(Flow(UDP, {"ipv4.ttl": Range(1, 5), "@22/1": Range(7, 9)})), "overlap"),
        (Traffic(Flow(UDP, {"@38/4": Random()})), "part of the"),
        (Traffic(Flow(UDP, {"@40/1": Random()})), "part of the checksum of udp"),
        (Traffic(Flow(UDP, sizes=sizes.of([65557]))), "length of ipv4"),
        (Traffic(Flow(UDP, payload=Payload(b"x" * 50), sizes=sizes.of([60]))), "18 fit"),
        (Traffic(Flow(frame_of(b"hi"), signature=True)), "no 24 bytes"),
        (Traffic(Flow(frame_of(b"hi") + bytes(40), signature=True)), "padding"),
        (
            Traffic(Flow([Header("ipv4", {"csum": 0}, b"\1" * 4), Header("udp")], {"@32/8": Random()})),
            "split it",
        ),
        (
            Traffic(UDP_FLOW, rate=Pace(parse_rate("10000Gbps"), burst=2, burst_gap_s=Fraction(2_000_000))),
            "too long",
        ),
    ],
)
def test_what_cannot_be_sent(traffic, said):
    with pytest.raises(ValueError, match=said):
        compile_traffic(traffic)


def test_paces_that_contradict_themselves():
    rate = parse_rate("1kpps")
    for values, said in (
        ({"burst_gap_s": Fraction(1)}, "needs a burst"),
        ({"burst": 3}, "burst gap, or a rate"),
        ({"poisson": True}, "poisson"),
        ({"poisson": True, "rate": rate, "burst": 2}, "poisson"),
        ({"burst": -1}, "burst"),
    ):
        with pytest.raises(ValueError, match=said):
            Pace(**values)


# ---- the same seed, the same bytes ---------------------------------------------------------------------


@given(
    flows=st.lists(flows(), min_size=1, max_size=3),
    weights=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    queues=st.integers(2, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_packets_on_every_number_of_queues(flows, weights, queues, seed):
    import dataclasses

    flows = [dataclasses.replace(f, weight=w) for f, w in zip(flows, weights, strict=False)]
    traffic = Traffic(flows, count=50, seed=seed)
    alone = sent(traffic, 50)
    assert alone == sent(traffic, 50)
    divided = [
        frame for q in range(queues) for _, frame in dryrun.packets(traffic, 50, queue=q, queues=queues)
    ]
    assert Counter(divided) == Counter(alone)


def test_another_seed_gives_other_packets():
    flow = Flow([Header("ipv4"), Header("udp", {"src": Random()})])
    assert sent(Traffic(flow, seed=1), 20) != sent(Traffic(flow, seed=2), 20)


# ---- values ------------------------------------------------------------------------------------------------


def ports(traffic, most):
    return [int.from_bytes(frame[34:36], "big") for frame in sent(traffic, most)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (7, [7] * 7),
        (Range(10, 12), [10, 11, 12, 10, 11, 12, 10]),
        (Range(12, 10), [12, 11, 10, 12, 11, 10, 12]),
        (Range(10, 15, 2), [10, 12, 14, 10, 12, 14, 10]),
        (Choice((5, 1, 9)), [5, 1, 9, 5, 1, 9, 5]),
        (Sequence(65533), [65533, 65534, 65535, 0, 1, 2, 3]),
        (FlowId(40), [40] * 7),
    ],
)
def test_values_in_turn(values, expected):
    assert ports(Traffic(Flow([Header("ipv4"), Header("udp", {"src": values})])), 7) == expected


def test_fields_as_programs_write_them():
    fields = {"udp.sport": "10-12", "udp.dst": [80, 443], "ip.ttl": range(5, 2, -1), "@42/2": "sequence+7"}
    frames = sent(Traffic(Flow(UDP, fields)), 4)
    assert [frame[35] for frame in frames] == [10, 11, 12, 10]
    assert [int.from_bytes(frame[36:38], "big") for frame in frames] == [80, 443, 80, 443]
    assert [frame[22] for frame in frames] == [5, 4, 3, 5]
    assert [frame[43] for frame in frames] == [7, 8, 9, 10]
    whole = Flow(frame_of(b"template"), {"ip.ttl": "1-2"})
    assert [frame[22] for frame in sent(Traffic(whole), 3)] == [1, 2, 1]
    for bad, said in (
        ("10-x", "udp.src: "),
        (object(), "is no value"),
        ([], "is no value"),
        ([1, "2"], "is no value"),
    ):
        with pytest.raises(ValueError, match=said):
            compile_traffic(Traffic(Flow(UDP, {"udp.src": bad})))


def test_templates_of_other_kinds():
    import numpy

    frame = frame_of(b"some bytes")
    for template in (bytearray(frame), memoryview(frame), numpy.frombuffer(frame, dtype=numpy.uint8)):
        assert sent(Traffic(Flow(template)), 1) == [frame]
    with pytest.raises(ValueError, match="dtype uint8"):
        compile_traffic(Traffic(Flow(numpy.array(list(frame)))))


def test_random_is_uniform_within_its_range():
    drawn = Counter(
        ports(Traffic(Flow([Header("ipv4"), Header("udp", {"src": Random(Range(10, 19, 3))})])), 8000)
    )
    assert set(drawn) == {10, 13, 16, 19}
    assert all(1850 < n < 2150 for n in drawn.values()), drawn  # 4 sigma


def test_together_or_nested():
    def pairs(advance):
        headers = [Header("vlan", {"id": Range(1, 2)}), Header("ipv4"), Header("udp", {"src": Range(7, 9)})]
        frames = sent(Traffic(Flow(headers, advance=advance)), 7)
        return [(frame[15], frame[39]) for frame in frames]

    assert pairs("together") == [(1, 7), (2, 8), (1, 9), (2, 7), (1, 8), (2, 9), (1, 7)]
    assert pairs("nest") == [(1, 7), (1, 8), (1, 9), (2, 7), (2, 8), (2, 9), (1, 7)]


def test_the_order_of_writing_says_which_is_fastest():
    frames = sent(
        Traffic(
            Flow([Header("ipv4"), Header("udp", {"dst": Range(1, 2), "src": Range(7, 8)})], advance="nest")
        ),
        4,
    )
    assert [(frame[37], frame[35]) for frame in frames] == [(1, 7), (1, 8), (2, 7), (2, 8)]


def test_weights_and_flow_ids():
    def flow(weight):
        return Flow([Header("ipv4"), Header("udp", {"src": FlowId(), "dst": Sequence()})], weight=weight)

    frames = sent(Traffic([flow(1), flow(3)]), 12)
    assert Counter(frame[35] for frame in frames) == {0: 3, 1: 9}
    assert [frame[37] for frame in frames if frame[35]] == list(range(9)), "each has its own sequence"


def test_a_field_takes_the_place_of_what_is_automatic():
    (frame,) = sent(Traffic(Flow(UDP, {"udp.csum": 5, "ipv4.len": 7})), 1)
    assert (frame[40:42], frame[16:18]) == (b"\0\5", b"\0\7")
    frames = sent(Traffic(Flow(UDP, {"@40/2": Sequence(3)})), 3)
    assert [frame[40:42] for frame in frames] == [b"\0\3", b"\0\4", b"\0\5"]
    frames = sent(Traffic(Flow(frame_of(b"template"), {"udp.csum": Range(1, 2)})), 2)
    assert [frame[40:42] for frame in frames] == [b"\0\1", b"\0\2"]


# ---- lengths and payload --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", [100] * 4),
        ("60-62", [60, 61, 62, 60]),
        ("62-60", [62, 61, 60, 62]),
        ("60-70/5", [60, 65, 70, 60]),
        ("60:1,70:1", [60, 70, 60, 70]),
    ],
)
def test_sizes_in_turn(text, expected):
    assert [len(frame) for frame in sent(Traffic(Flow(UDP, sizes=sizes.parse_sizes(text))), 4)] == expected


def test_imix_and_random_sizes():
    frames = sent(Traffic(Flow(UDP, sizes=sizes.parse_sizes("imix"))), 1200)
    assert Counter(map(len, frames)) == {60: 700, 590: 400, 1514: 100}
    lengths = {
        len(frame) for frame in sent(Traffic(Flow(UDP, sizes=sizes.parse_sizes("random(60-69)"))), 500)
    }
    assert lengths == set(range(60, 70))


def test_sizes_and_payload_from_files(tmp_path):
    (tmp_path / "sizes").write_text("60\n100\n\n80\n")
    (tmp_path / "payload").write_bytes(b"abc")
    flow = parse_flow(f"ip dst=10.0.0.1 / udp ; size=@{tmp_path}/sizes ; payload=file:{tmp_path}/payload")
    frames = sent(Traffic(flow), 3)
    assert [len(frame) for frame in frames] == [60, 100, 80]
    assert all(frame[42:].rstrip(b"\0") == b"abc" for frame in frames)


def test_a_payload_sets_the_length():
    (frame,) = sent(Traffic(Flow(UDP, payload=Payload(b"x" * 100))), 1)
    assert frame[42:] == b"x" * 100


def test_the_signature():
    from xsk_engine.payload import MAGIC

    flow = Flow(UDP, signature=True, sizes=sizes.parse_sizes("66-67"))
    frames = sent(Traffic([flow, flow]), 4)
    told = [frame[-24:] for frame in frames]
    assert {t[:4] for t in told} == {MAGIC.to_bytes(4, "big")}
    assert [(t[7], t[15]) for t in told] == [(0, 0), (1, 0), (0, 1), (1, 1)]


# ---- figures ----------------------------------------------------------------------------------------------


def test_snapshots_add_up_and_times_do_not():
    def page(**values):
        return Snapshot(**values)

    total = merge(
        [
            page(completed_packets=3, completed_bytes=300, first_post_ns=50, last_completion_ns=100),
            page(completed_packets=4, completed_bytes=400, first_post_ns=0, last_completion_ns=0),
            page(completed_packets=5, completed_bytes=500, first_post_ns=20, last_completion_ns=10**9 + 20),
        ]
    )
    assert (total.completed_packets, total.first_post_ns, total.duration_s) == (12, 20, 1.0)
    assert (total.pps, total.bps_l2) == (12.0, 9600.0)
    assert merge([]).duration_s == 0.0


@pytest.mark.parametrize("size", [4096, 4097, 9014, 65549])
def test_packets_of_several_descs_are_seen_whole(size):
    frame = bytes(12) + b"\x88\xb5" + bytes((i * 7) & 0xFF for i in range(size - 14))
    still = [data for _, data in dryrun.packets(Traffic(frame), 2)]
    assert still == [frame, frame]
    moving = [data for _, data in dryrun.packets(Traffic(Flow(frame, {"@14/4": Sequence()})), 2)]
    assert moving == [frame[:14] + i.to_bytes(4, "big") + frame[18:] for i in range(2)]
