/* SPDX-License-Identifier: MIT */
/* steer.h - what the steering program and who loads it agree on; xsk_engine/steering.py mirrors it. */
#ifndef XSKE_STEER_H
#define XSKE_STEER_H

#include <linux/types.h>

enum {
	STEER_BY_SIGNATURE = 1,
	STEER_BY_PORT = 2,
	STEER_BY_TUPLE = 4, /* these connections' packets, and ICMP errors about them */
	STEER_REFLECT = 8,  /* the signed ones go back where they come from, and no other rule is looked at */
	STEER_BY_REFLECTED = 16, /* signed ones that have been sent back */
};

#define STEER_QUEUES 64
#define STEER_PORTS 4096
#define STEER_TUPLES 65536
/* The last bytes of a signed packet, and how they begin (xsk_engine/payload.py). */
#define STEER_SIGNATURE_BYTES 24
#define STEER_MAGIC 0x78736b65
/* As a reflector leaves it: two pairs of bytes, each two places apart, have changed places, so every Internet checksum
 * over them stays as it is, wherever they begin (RFC 1071). */
#define STEER_REFLECTED_MAGIC 0x6b657873

/* As a packet that comes in has it, network order: src is the far end. An IPv4 address in the last word, the others 0. */
struct steer_tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
	__u8 protocol;
	__u8 version;
	__u16 reserved; /* 0 */
};

/* Of one CPU; steer_reflected has one for each. */
struct steer_counters {
	__u64 packets; /* sent back */
	__u64 bytes;   /* of them, without FCS */
	__u64 refused_packets; /* signed, and left to the kernel: multicast, a fragment, or headers that are not whole */
	__u64 first_ns; /* CLOCK_MONOTONIC, 0 = none */
	__u64 last_ns;
};

#endif
