/* SPDX-License-Identifier: MIT */
/* metadata.h - what stands in front of a desc for the device: struct xsk_tx_metadata, which ends where the packet begins
 * (net/xdp/xsk.c, xsk_skb_metadata()). */
#ifndef XSKE_METADATA_H
#define XSKE_METADATA_H

#include <stdint.h>
#include <string.h>

#include "xske.h"

/* include/uapi/linux/if_xdp.h, Linux 6.8: XDP_TXMD_FLAGS_TIMESTAMP, XDP_TXMD_FLAGS_CHECKSUM */
#define TXMD_TIMESTAMP 1ull
#define TXMD_CHECKSUM 2ull

/* A request: the device adds up from `start` on and writes what comes of it `offset` bytes further. */
static inline uint64_t metadata_checksum(uint32_t start, uint32_t offset)
{
	return (start & 0xffff) | (uint64_t)(offset & 0xffff) << 16;
}

/* The third word is the time of launch. It is not asked for, so the kernel leaves it alone, and a time of the post can
 * wait there for the tx timestamp. */
static inline void metadata_write(uint8_t *packet, uint64_t flags, uint64_t request, uint64_t posted_ns)
{
	const uint64_t metadata[] = {flags, request, posted_ns};

	_Static_assert(sizeof(metadata) == XSKE_TX_METADATA_BYTES, "struct xsk_tx_metadata");
	memcpy(packet - sizeof(metadata), metadata, sizeof(metadata));
}

#endif
