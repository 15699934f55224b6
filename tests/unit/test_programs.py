"""Every packet of a flow program against scapy's, built from the same values by other code."""

from hypothesis import HealthCheck, given, settings
from packets import flows, sent, why_wrong

from xsk_engine.flow import Traffic


@given(flows())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_scapy_agrees_with_every_packet(flow):
    packets = sent(Traffic(flow), 12)
    assert len(packets) == 12
    for packet in packets:
        assert not why_wrong(packet)
