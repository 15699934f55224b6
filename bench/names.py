"""What is compared in the emulated machine is called by these names, there (*_guest.py) and by who reads its
measurements. Engine without a mode: zero-copy."""

TSO_OFF, TSO_ON = "kernel TCP, TSO off", "kernel TCP, TSO on"
TSO_SENDFILE, UDP = "kernel TCP, TSO on, sendfile", "kernel UDP sendto"
ENGINE, ENGINE_COPY = "engine", "engine, copy"
PATCHED = "engine, 3 fields and checksum patched"
PATCHED_SMALL = "engine, 3 fields and checksum patched, 60 bytes"
MINIMAL = "minimal C AF_XDP sender"

LENT_TSO_OFF, LENT_TSO_ON = "kernel TCP, MSG_ZEROCOPY, TSO off", "kernel TCP, MSG_ZEROCOPY, TSO on"
ENGINE_TCP, ENGINE_TCP_IN_PLACE = "engine TCP", "engine TCP, in place"
ENGINE_TCP_LOOP = "engine TCP, its loop alone"
WITHOUT_GRO = (TSO_OFF, TSO_ON, ENGINE_TCP)
"""those that are measured without GRO at the receiver, too"""

ACKS_ZEROCOPY, ACKS_COPY = "AF_XDP, zero-copy", "AF_XDP, copy"
ACKS_TCP, ACKS_PASSED = "kernel, TCP socket", "kernel, TCP socket, steering program passes"
ACKS_UDP = "kernel, UDP socket"
