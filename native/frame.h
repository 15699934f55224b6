/* SPDX-License-Identifier: MIT */
/*
 * frame.h - a received frame in its pieces, read as if it lay in one. Headers nearly always lie in the first piece, and
 * are read there in place. Who asks for bytes has compared with `len` first.
 */
#ifndef XSKE_FRAME_H
#define XSKE_FRAME_H

#include <string.h>

#include "csum.h"
#include "piece.h"
#include "util.h"

#define ETH_BYTES 14u
#define TAG_BYTES 4u
#define MAX_TAGS 2u
#define MAX_FRAME_BYTES (1u << 20) /* BIG TCP ends at half of it; no sum of offsets overflows */

/* IEEE 802 numbers and protocol numbers, IANA. */
enum {
	ETH_IPV4 = 0x0800,
	ETH_IPV6 = 0x86dd,
	ETH_VLAN = 0x8100,
	ETH_QINQ = 0x88a8,
	PROTO_HOP_BY_HOP = 0,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_ICMPV6 = 58,
	PROTO_OPTIONS = 60,
};

struct frame {
	const struct piece *pieces; /* at least one */
	uint32_t n;
	uint32_t len; /* of all of them, at most MAX_FRAME_BYTES */
};

static inline uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return __builtin_bswap32(value);
}

static inline uint64_t be64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return __builtin_bswap64(value);
}

/* `len` bytes from `offset` of the pieces, which have them, copied out. Returns `to`. */
const uint8_t *pieces_copy(const struct piece *pieces, uint32_t offset, uint32_t len, uint8_t *to);
/* frame_sum(), wherever the bytes lie. */
uint64_t pieces_sum(const struct frame *f, uint32_t from, uint32_t to);

static inline uint64_t pieces_len(const struct piece *pieces, uint32_t n)
{
	uint64_t len = 0;

	for (uint32_t i = 0; i < n; i++)
		len += pieces[i].len;
	return len;
}

/* Bytes of the frame, which has them: where they lie, or in `room`. */
static inline const uint8_t *frame_at(const struct frame *f, uint32_t offset, uint32_t len, uint8_t *room)
{
	if (likely(offset + len <= f->pieces[0].len))
		return f->pieces[0].bytes + offset;
	return pieces_copy(f->pieces, offset, len, room);
}

/* csum_bytes() of them, `from` being an even place. */
static inline uint64_t frame_sum(const struct frame *f, uint32_t from, uint32_t to)
{
	if (likely(to <= f->pieces[0].len))
		return csum_bytes(f->pieces[0].bytes + from, to - from);
	return pieces_sum(f, from, to);
}

/* Where what follows Ethernet and the tags begins, and its ethertype; 0: the frame ends before. */
static inline uint32_t frame_network(const struct frame *f, uint32_t *type)
{
	uint32_t at = ETH_BYTES;
	uint8_t room[2];

	if (f->len < at)
		return 0;
	*type = be16(frame_at(f, at - 2, 2, room));
	for (uint32_t i = 0; unlikely(*type == ETH_VLAN || *type == ETH_QINQ) && i < MAX_TAGS; i++) {
		at += TAG_BYTES;
		if (f->len < at)
			return 0;
		*type = be16(frame_at(f, at - 2, 2, room));
	}
	return at;
}

#endif
