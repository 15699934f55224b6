"""Every packet of a flow program against scapy's, built from the same values by other code."""

from hypothesis import HealthCheck, given, settings
from packets import flows, sent, why_wrong

from xsk_engine.flow import Traffic
from xsk_engine.spec import parse_flow


@given(flows())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_scapy_agrees_with_every_packet(flow):
    packets = sent(Traffic(flow), 12)
    assert len(packets) == 12
    for packet in packets:
        assert not why_wrong(packet)


def test_scapy_would_disagree_with_one_flipped_bit():
    flow = parse_flow("ip dst=10.0.0.1 / udp ; size=100")
    (good,) = sent(Traffic(flow), 1)
    assert not why_wrong(good)
    for at in (
        *range(16, 42),
        99,
    ):  # all that a checksum or a length covers, but for IP's own version and TOS
        bad = bytearray(good)
        bad[at] ^= 1
        if at not in (20, 21, 23):  # then it is another protocol, or a fragment
            assert why_wrong(bytes(bad)), at


def test_a_udp_checksum_of_0_is_sent_as_ffff():
    """Among 65,536 payloads one has the sum 0 (RFC 768); to TCP it is a checksum like any other."""

    def checksums(packet, at):
        frames = sent(Traffic(parse_flow(f"{packet} ; @58/2=sequence")), 65536)
        return [frame[at : at + 2] for frame in frames]

    found = checksums("ip dst=10.0.0.1 / udp ; size=60", 40)
    assert (found.count(b"\0\0"), found.count(b"\xff\xff")) == (0, 1)
    found = checksums("ip dst=10.0.0.1 / tcp ; size=60", 50)
    assert found.count(b"\0\0") == 1
