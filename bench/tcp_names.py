"""What the senders of bench-tcp are called, in its first table."""

KERNEL, KERNEL_TSO, ENGINE = "kernel, TSO off: write", "kernel, TSO on: write", "engine: write"
KERNEL_LENT, KERNEL_TSO_LENT = "kernel, TSO off: MSG_ZEROCOPY", "kernel, TSO on: MSG_ZEROCOPY"
ENGINE_IN_PLACE, LOOP_ALONE = "engine: in place", "engine: its loop alone"
WITHOUT_GRO = (KERNEL, KERNEL_TSO, ENGINE)
"""those that are measured without GRO at the receiver, too"""
PAIRS = {
    "write": (ENGINE, KERNEL, KERNEL_TSO),
    "zero-copy application": (ENGINE_IN_PLACE, KERNEL_LENT, KERNEL_TSO_LENT),
}
"""what is compared: ours, theirs with TSO and GSO off, theirs with both"""
