/* SPDX-License-Identifier: MIT */
/* datagram.h - a UDP datagram in a frame: its header in front, then what depends on the packet (RFC 768, 791, 8200). */
#ifndef XSKE_DATAGRAM_H
#define XSKE_DATAGRAM_H

#include <stdbool.h>
#include <string.h>

#include "csum.h"
#include "util.h"
#include "xske.h"

/* IEEE 802.3 clause 4: without FCS. Shorter ones are padded with zeros, so that no old bytes leave. */
#define FRAME_MIN_BYTES 60u
#define UDP_BYTES 8u

static inline uint32_t header_bytes(const struct xske_header *h)
{
	return h ? h->len : 0;
}

/* Of the frame around a payload. */
static inline uint32_t frame_bytes(const struct xske_header *h, uint32_t len)
{
	return h ? max_u32(h->len + len, FRAME_MIN_BYTES) : len;
}

static inline bool is_ipv6(const struct xske_header *h)
{
	return ((const uint8_t *)h->words)[h->ip_offset] >> 4 == 6;
}

/* Room for IP and UDP between ip_offset and its end, which is where the payload begins: at an even byte. */
static inline bool header_is_sound(const struct xske_header *h)
{
	uint32_t ip_bytes;

	if (!h)
		return true;
	if (h->len > XSKE_HEADER_BYTES || h->len % 2 || h->ip_offset >= h->len)
		return false;
	ip_bytes = is_ipv6(h) ? 40 : 20;
	return h->ip_offset + ip_bytes + UDP_BYTES == h->len;
}

static inline void header_write(const struct xske_header *h, uint8_t *frame)
{
	/* One atomic word: xske_header_set_mac. */
	uint64_t first = __atomic_load_n(&h->words[0], __ATOMIC_RELAXED);

	memcpy(frame, h->words, h->len);
	memcpy(frame, &first, sizeof(first));
}

static inline void put_u16(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

/* Returns where UDP or TCP begins, which is `len` bytes with its payload. The version is the header's own: what stands in
 * the frame may be anything. */
static inline uint32_t pseudo_and_length(uint8_t *ip, bool six, uint32_t len, uint64_t *sum)
{
	if (six) {
		put_u16(ip + 4, len);
		*sum += csum_bytes(ip + 8, 32);
		return 40;
	}
	put_u16(ip + 2, 20 + len);
	put_u16(ip + 10, (uint16_t)~csum_fold(csum_bytes(ip, 10) + csum_bytes(ip + 12, 8)));
	*sum += csum_bytes(ip + 12, 8);
	return 20;
}

/* Writes lengths and checksums from what stands in the header, whoever has changed it. `sum`: of the payload's `len`
 * bytes. Never a wrong byte on the way: a clone of it may be inflight. */
static inline void datagram_seal(uint8_t *frame, const struct xske_header *h, uint32_t len, uint64_t sum)
{
	uint32_t udp_len = UDP_BYTES + len;
	uint8_t *ip = frame + h->ip_offset, *udp;
	uint16_t check;

	udp = ip + pseudo_and_length(ip, is_ipv6(h), udp_len, &sum);
	put_u16(udp + 4, udp_len);
	check = (uint16_t)~csum_fold(sum + csum_bytes(udp, 6) + udp_len + 17);
	put_u16(udp + 6, check ? check : 0xffff);
}

static inline void frame_pad(uint8_t *frame, uint32_t len, uint32_t padded)
{
	if (len < padded)
		memset(frame + len, 0, padded - len);
}

#endif
