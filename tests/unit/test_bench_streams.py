"""What the experiments with streams make of what they see; the streams are made up here."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

from bench import contests
from bench.arms import arriving, first
from bench.experiment import Plan
from bench.experiments import library, micro, pace, replay
from bench.result import Case
from bench.rounds import Measured, joined


def test_rounds_of_passes_are_joined_in_their_order():
    first = Measured({"a": [{"packets": 1}, {"packets": 2}], "b": [{"packets": 10}, {"packets": 20}]})
    second = Measured({"a": [{"packets": 3}], "b": [{"packets": 30}]})
    whole = joined([first, second])
    assert whole.samples == {
        "a": [{"packets": 1}, {"packets": 2}, {"packets": 3}],
        "b": [{"packets": 10}, {"packets": 20}, {"packets": 30}],
    }
    assert not whole.absent


@pytest.mark.parametrize("lacks", [0, 1])
def test_an_arm_that_one_pass_lacks_is_absent(lacks):
    """Else the rounds of two arms would not be those of the same time."""
    passes = [Measured({"a": [{"packets": 1}], "b": [{"packets": 2}]}) for _ in range(2)]
    del passes[lacks].samples["b"]
    passes[lacks].absent["b"] = "has ended"
    whole = joined(passes)
    assert list(whole.samples) == ["a"]
    assert len(whole.samples["a"]) == 2
    assert whole.absent == {"b": "has ended"}


def test_contestants_never_share_a_queue_and_swap_them():
    assert [[contests.queue_of(place, number) for place in (0, 1)] for number in (0, 1)] == [[0, 1], [1, 0]]


@pytest.mark.parametrize(("rounds", "of_a_pass"), [(1, 1), (2, 1), (3, 2), (200, 100)])
def test_slices_are_no_fewer_than_asked_for(rounds, of_a_pass):
    assert contests.slices_of_a_pass(Plan(rounds=rounds), 10, 4) == of_a_pass


def operations(**ns):
    """Two rounds of every operation: 4 ns, or as said."""
    names = [micro.YARDSTICK, *(operation.name for operation in micro.OPERATIONS)]
    return {name: ns.get(name, [4.0, 4.0]) for name in names}


def test_an_operation_is_held_against_an_atomic_add_of_the_same_round():
    found = operations(atomic_add=[5.0, 10.0], alloc_free=[10.0, 10.0])
    case = next(case for case in micro.cases_of(found) if case.name == "alloc and free, 64 bytes")
    (ratio,) = case.ratios
    assert ratio["rounds"] == [2.0, 1.0]
    assert (ratio["median"], ratio["target"], ratio["met"]) == (1.5, "<= 1.5", True)


@pytest.mark.parametrize(("ns", "met"), [(12.0, True), (12.1, False)])
def test_the_path_of_a_packet_has_so_many_ns(ns, met):
    cases = micro.cases_of(operations(path_one_field=[1.0, ns, 100.0]))
    (target,) = next(case.targets for case in cases if case.name == "packet path, one field")
    assert (target["value"], target["met"]) == (ns, met)


def test_an_operation_that_was_not_measured_is_an_error():
    with pytest.raises(KeyError, match="check_66_bytes"):
        micro.cases_of({name: ns for name, ns in operations().items() if name != "check_66_bytes"})


def test_gaps_are_held_against_the_files_and_not_times():
    wanted = [0, 1000, 3000, 3500]
    assert replay.gap_errors(wanted, [7_000_000 + at for at in wanted])["gap_error_p99_ns"] == 0
    late = replay.gap_errors(wanted, [5, 1005, 3305, 3505])  # the third is 300 ns late, so two gaps are wrong
    assert late == {"gap_error_p50_ns": 300, "gap_error_p99_ns": 300}


def test_gaps_of_a_recording_that_lacks_packets_are_none():
    with pytest.raises(RuntimeError, match="2 of 3 packets"):
        replay.gap_errors([0, 1, 2], [0, 1])


@pytest.mark.parametrize(("lag_ms", "met"), [(2.0, True), (2.5, False)])
def test_only_the_engine_that_sends_is_held_against_a_facts_target(lag_ms, met):
    fact = next(fact for fact in library.FACTS_OF_AN_ENGINE if fact.figure == "lag_p99_ms")
    case = fact.case_of({library.ENGINE: [{"lag_p99_ms": lag_ms}], library.NO_TRAFFIC: [{"lag_p99_ms": 9.0}]})
    assert [(target["value"], target["met"]) for target in case.targets] == [(lag_ms, met)]
    assert not fact.case_of({library.NO_TRAFFIC: [{"lag_p99_ms": 9.0}]}).targets


@pytest.mark.parametrize(
    ("packet", "counts"),
    [
        (IP() / UDP(dport=9000), True),
        (IPv6() / UDP(dport=9001), True),
        (IP() / UDP(dport=9002, sport=9000), False),
        (IP() / TCP(dport=9000), False),
        (IPv6() / ICMPv6ND_NS(), False),
        (ARP(), False),
    ],
)
def test_the_first_packet_is_udp_to_the_streams_port(packet, counts):
    frame = bytes(Ether(dst="02:00:00:00:00:01") / packet)
    assert first.is_to(frame, (9000, 9001)) is counts
    assert not first.is_to(frame[:30], (9000, 9001))


def test_a_rate_is_that_between_the_first_and_the_last_frame():
    seen = {"frames": 101, "span_ns": 80_000_000, "p50_ns": 1, "p99_ns": 2, "p99_9_ns": 3}
    found = arriving.figures_of(seen, 1000)
    assert found["off_percent"] == pytest.approx(25)
    assert (found["gap_error_p50_ns"], found["gap_error_p99_9_ns"]) == (1, 3)


@pytest.mark.parametrize(
    ("rate", "packets"), [(1, 60), (10, 600), (100, 1000), (10_000, 30_000), (300_000, 900_000)]
)
def test_an_engine_alone_sends_some_seconds_but_no_more_than_a_minute(rate, packets):
    assert pace.packets_of(rate, Plan()) == packets


def test_an_engine_is_judged_by_its_worst_round_and_its_median_gaps():
    rounds = [
        {"off_percent": off, "gap_error_p99_ns": gap} for off, gap in ((0.01, 6e3), (-0.2, 4e3), (0, 5e3))
    ]
    case = Case.of("10,000 pps", {pace.OWN_CLOCK: rounds}, pace.FIGURES)
    pace.judge(case, pace.JUDGED_RATE)
    assert [(target["value"], target["met"]) for target in case.targets] == [(0.2, False), (5000, True)]
