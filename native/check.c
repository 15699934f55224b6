/* SPDX-License-Identifier: MIT */
/* check.c - one frame: where its packet ends, whether its checksums are right, and what its signature says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "csum.h"

#define ETH_BYTES 14u
#define TAG_BYTES 4u
#define MAX_TAGS 2u
#define MAX_FRAME_BYTES (1u << 20) /* BIG TCP ends at half of it; no sum of offsets overflows */
#define MAX_EXTENSIONS 16u         /* a packet of nothing else must not take long */

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
	SEGMENT_ROUTING = 4, /* a type of routing header, RFC 8754 */
};

enum verdict { RIGHT, PARTIAL, UNVERIFIED, FOREIGN, CORRUPT, TRUNCATED };

struct frame {
	const struct piece *pieces;
	uint32_t n;
	uint32_t len;
	uint32_t flags;
	/* Found on the way: a signature begins at or behind `from` and ends at `end`. */
	uint32_t from;
	uint32_t end;
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

static COLD const uint8_t *gather(const struct frame *f, uint32_t offset, uint32_t len, uint8_t *room)
{
	uint32_t at = 0, done = 0;

	for (uint32_t i = 0; done < len; at += f->pieces[i++].len) {
		uint32_t end = at + f->pieces[i].len, from = offset + done, n;

		if (from >= end)
			continue;
		n = min_u32(end - from, len - done);
		memcpy(room + done, f->pieces[i].bytes + (from - at), n);
		done += n;
	}
	return room;
}

/* Bytes of the frame, which has them: where they lie, or in `room`. */
static inline const uint8_t *bytes_at(const struct frame *f, uint32_t offset, uint32_t len, uint8_t *room)
{
	if (likely(offset + len <= f->pieces[0].len))
		return f->pieces[0].bytes + offset;
	return gather(f, offset, len, room);
}

static COLD uint64_t sum_pieces(const struct frame *f, uint32_t from, uint32_t to)
{
	uint64_t sum = 0;
	uint32_t at = 0;

	for (uint32_t i = 0; i < f->n && at < to; at += f->pieces[i++].len) {
		uint32_t first = max_u32(at, from), end = min_u32(at + f->pieces[i].len, to);

		/* A part that begins in the middle of a word lies a byte lower in all of them. */
		if (first < end)
			sum += csum_bytes(f->pieces[i].bytes + (first - at), end - first)
			       << ((first - from) & 1) * 8;
	}
	return sum;
}

static inline uint64_t sum_of(const struct frame *f, uint32_t from, uint32_t to)
{
	if (likely(to <= f->pieces[0].len))
		return csum_bytes(f->pieces[0].bytes + from, to - from);
	return sum_pieces(f, from, to);
}

/* The transport header begins at f->from. pseudo: the sum of both addresses. */
static inline enum verdict check_transport(struct frame *f, uint32_t protocol, uint64_t pseudo, bool six)
{
	uint32_t at = f->from, len = f->end - at, header, field, found;
	uint8_t room[8];
	const uint8_t *p;

	if (likely(protocol == PROTO_UDP)) {
		header = 8;
		field = 6;
	} else if (protocol == PROTO_TCP) {
		header = 20;
		field = 16;
	} else if (protocol == (six ? PROTO_ICMPV6 : PROTO_ICMP)) {
		header = 8;
		field = 2;
	} else {
		return six ? FOREIGN : UNVERIFIED;
	}
	if (len < header)
		return TRUNCATED;
	f->from = at + header;
	p = bytes_at(f, at + field, 2, room);
	found = be16(p);
	if (protocol == PROTO_UDP) {
		uint32_t said = be16(bytes_at(f, at + 4, 2, room));

		/* Shorter is legal; then what follows is none of the datagram's, and under no checksum. */
		if (said < 8 || said > len)
			return CORRUPT;
		len = said;
		f->end = at + len;
		if (!found)
			return six ? CORRUPT : UNVERIFIED;
	}
	pseudo = protocol == PROTO_ICMP ? 0 : pseudo + protocol + len;
	if (likely(csum_fold(pseudo + sum_of(f, at, f->end)) == 0xffff))
		return RIGHT;
	if (f->flags & CHECK_CSUM_PARTIAL || (pseudo && csum_fold(pseudo) == found))
		return PARTIAL;
	return CORRUPT;
}

static inline enum verdict check_ipv4(struct frame *f, uint32_t at)
{
	uint32_t header, total;
	uint8_t room[20];
	const uint8_t *ip;

	if (f->len < at + 20)
		return TRUNCATED;
	ip = bytes_at(f, at, 20, room);
	header = (ip[0] & 15) * 4u;
	if (ip[0] >> 4 != 4 || header < 20)
		return CORRUPT;
	if (f->len < at + header)
		return TRUNCATED;
	if (csum_fold(likely(header == 20) ? csum_bytes(ip, 20) : sum_of(f, at, at + header)) != 0xffff)
		return CORRUPT;
	total = be16(ip + 2);
	if (total < header)
		return CORRUPT;
	if (f->len < at + total)
		return TRUNCATED;
	if (be16(ip + 6) & 0x3fff) /* more fragments, or an offset */
		return FOREIGN;
	f->from = at + header;
	f->end = at + total;
	return check_transport(f, ip[9], csum_bytes(ip + 12, 8), false);
}

/* The checksum covers where the packet goes in the end, RFC 8200, 8.1; the header is `size` bytes long and has that
 * address first (RFC 8754) or last (types 0 and 2, RFC 5095 and 6275). */
static COLD bool final_address(const struct frame *f, uint32_t at, uint32_t size, uint32_t type,
                               uint64_t *sum)
{
	if (size < 24 || (type != 0 && type != 2 && type != SEGMENT_ROUTING))
		return false;
	at += type == SEGMENT_ROUTING ? 8 : size - 16;
	*sum = sum_of(f, at, at + 16);
	return true;
}

static inline enum verdict check_ipv6(struct frame *f, uint32_t at)
{
	uint64_t source, destination;
	const uint8_t *ip, *header;
	uint32_t next, size;
	uint8_t room[40];

	if (f->len < at + 40)
		return TRUNCATED;
	ip = bytes_at(f, at, 40, room);
	if (ip[0] >> 4 != 6)
		return CORRUPT;
	f->from = at + 40;
	f->end = f->from + be16(ip + 4);
	if (f->end > f->len)
		return TRUNCATED;
	source = csum_bytes(ip + 8, 16);
	destination = csum_bytes(ip + 24, 16);
	next = ip[6];
	/* Hop-by-hop options stand first or not at all, RFC 8200, 4.1. */
	for (uint32_t i = 0;
	     next == PROTO_OPTIONS || next == PROTO_ROUTING || (next == PROTO_HOP_BY_HOP && !i); i++) {
		if (i == MAX_EXTENSIONS)
			return FOREIGN;
		if (f->end - f->from < 8)
			return TRUNCATED;
		header = bytes_at(f, f->from, 4, room);
		size = (header[1] + 1u) * 8;
		if (f->end - f->from < size)
			return TRUNCATED;
		if (next == PROTO_ROUTING && header[3] &&
		    !final_address(f, f->from, size, header[2], &destination))
			return FOREIGN;
		next = header[0];
		f->from += size;
	}
	return check_transport(f, next, source + destination, true);
}

static inline enum verdict check_packet(struct frame *f)
{
	uint32_t at = ETH_BYTES, type;
	uint8_t room[2];

	if (f->len < ETH_BYTES)
		return TRUNCATED;
	type = be16(bytes_at(f, at - 2, 2, room));
	for (uint32_t tags = 0; unlikely(type == ETH_VLAN || type == ETH_QINQ) && tags < MAX_TAGS; tags++) {
		if (f->len < at + TAG_BYTES)
			return TRUNCATED;
		at += TAG_BYTES;
		type = be16(bytes_at(f, at - 2, 2, room));
	}
	if (likely(type == ETH_IPV4))
		return check_ipv4(f, at);
	if (type == ETH_IPV6)
		return check_ipv6(f, at);
	f->from = at;
	f->end = f->len;
	return UNVERIFIED;
}

static COLD void count_other(struct xske_check_counters *t, enum verdict verdict)
{
	if (verdict == TRUNCATED)
		check_count(&t->truncated_packets, 1);
	else if (verdict == CORRUPT)
		check_count(&t->corrupt_packets, 1);
	else
		check_count(&t->foreign_packets, 1);
}

void check_frame(struct xske_check *c, const struct piece *pieces, uint32_t n, uint64_t arrived_ns,
                 uint32_t flags)
{
	struct frame f = {.pieces = pieces, .n = n, .flags = flags};
	struct xske_check_counters *t = &c->totals;
	const uint8_t *signature = NULL;
	uint8_t room[SIGNATURE_BYTES];
	enum verdict verdict;
	struct arrival a;
	uint64_t len = 0;
	uint32_t id;

	for (uint32_t i = 0; i < n; i++)
		len += pieces[i].len;
	check_count(&t->packets, 1);
	check_count(&t->bytes, len);
	f.len = (uint32_t)len;
	verdict = !n ? TRUNCATED : len > MAX_FRAME_BYTES ? FOREIGN : check_packet(&f);
	if (likely(verdict < FOREIGN) && likely(f.end >= f.from + SIGNATURE_BYTES))
		signature = bytes_at(&f, f.end - SIGNATURE_BYTES, SIGNATURE_BYTES, room);
	if (unlikely(!signature || be32(signature) != c->magic)) {
		count_other(t, verdict);
		return;
	}
	if (unlikely(verdict != RIGHT))
		check_count(verdict == PARTIAL ? &t->csum_partial_packets : &t->unverified_packets, 1);
	id = be32(signature + 4);
	if (unlikely(id >= c->max_flows)) {
		check_count(&t->unknown_flow_packets, 1);
		return;
	}
	a = (struct arrival){be64(signature + 8), be64(signature + 16), arrived_ns, f.len};
	arrivals_add(c, id, &a);
}

void xske_check_frame(struct xske_check *c, const uint8_t *frame, uint32_t len, uint64_t arrived_ns,
                      uint32_t flags)
{
	const struct piece whole = {frame, len};

	check_frame(c, &whole, 1, arrived_ns, flags);
}

int xske_check_create(const struct xske_check_config *config, struct xske_check **out)
{
	uint64_t flow_bytes = (uint64_t)config->max_flows * CHECK_FLOW_BYTES;
	uint64_t bytes = flow_bytes + (uint64_t)config->max_flows * sizeof(uint32_t);
	struct xske_check *c;
	void *memory;

	if (!config->max_flows || config->flags & ~XSKE_CHECK_REFLECTED)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	memory =
	        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		free(c);
		return -ENOMEM;
	}
	madvise(memory, bytes, MADV_NOHUGEPAGE); /* else one flow would take the pages of 512 */
	c->flows = memory;
	c->order = (uint32_t *)(c->flows + flow_bytes);
	c->mapped_bytes = bytes;
	c->max_flows = config->max_flows;
	c->magic = config->flags & XSKE_CHECK_REFLECTED ? REFLECTED_MAGIC : SIGNATURE_MAGIC;
	*out = c;
	return 0;
}

void xske_check_destroy(struct xske_check *c)
{
	if (!c)
		return;
	munmap(c->flows, c->mapped_bytes);
	free(c);
}
