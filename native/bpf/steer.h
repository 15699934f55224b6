/* SPDX-License-Identifier: MIT */
/* steer.h - what the steering program and who loads it agree on; xsk_engine/_ffi/native.py mirrors it. */
#ifndef XSKE_STEER_H
#define XSKE_STEER_H

#include <linux/types.h>

enum {
	STEER_BY_SIGNATURE = 1,
	STEER_BY_PORT = 2,
	STEER_BY_TUPLE = 4,
};

#define STEER_QUEUES 64
#define STEER_PORTS 4096
#define STEER_TUPLES 65536
/* The last bytes of a signed packet, and how they begin (xsk_engine/payload.py). */
#define STEER_SIGNATURE_BYTES 24
#define STEER_MAGIC 0x78736b65

/* As the packet has it, network order; an IPv4 address in the last word, the others 0. */
struct steer_tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
	__u8 protocol;
	__u8 version;
	__u16 reserved;
};

#endif
