/* SPDX-License-Identifier: MIT */
/* check.c - one frame: where its packet ends, whether its checksums are right, and what its signature says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "frame.h"

#define MAX_EXTENSIONS 16u /* a packet of nothing else must not take long */
#define SEGMENT_ROUTING 4u /* a type of routing header, RFC 8754 */

enum verdict { RIGHT, PARTIAL, UNVERIFIED, FOREIGN, CORRUPT, TRUNCATED };

struct packet {
	struct frame frame;
	uint32_t flags;
	/* Found on the way: a signature begins at or behind `from` and ends at `end`. */
	uint32_t from;
	uint32_t end;
};

/* The transport header begins at p->from. pseudo: the sum of both addresses. */
static inline enum verdict check_transport(struct packet *p, uint32_t protocol, uint64_t pseudo, bool six)
{
	uint32_t at = p->from, len = p->end - at, header, field, found;
	uint8_t room[2];

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
	p->from = at + header;
	found = be16(frame_at(&p->frame, at + field, 2, room));
	if (protocol == PROTO_UDP) {
		uint32_t said = be16(frame_at(&p->frame, at + 4, 2, room));

		/* Shorter is legal; then what follows is none of the datagram's, and under no checksum. */
		if (said < 8 || said > len)
			return CORRUPT;
		len = said;
		p->end = at + len;
		if (!found)
			return six ? CORRUPT : UNVERIFIED;
	}
	pseudo = protocol == PROTO_ICMP ? 0 : pseudo + protocol + len;
	if (likely(csum_fold(pseudo + frame_sum(&p->frame, at, p->end)) == 0xffff))
		return RIGHT;
	if (p->flags & CHECK_CSUM_PARTIAL || (pseudo && csum_fold(pseudo) == found))
		return PARTIAL;
	return CORRUPT;
}

static inline enum verdict check_ipv4(struct packet *p, uint32_t at)
{
	uint32_t header, total;
	uint8_t room[20];
	const uint8_t *ip;

	if (p->frame.len < at + 20)
		return TRUNCATED;
	ip = frame_at(&p->frame, at, 20, room);
	header = (ip[0] & 15) * 4u;
	if (ip[0] >> 4 != 4 || header < 20)
		return CORRUPT;
	if (p->frame.len < at + header)
		return TRUNCATED;
	if (csum_fold(likely(header == 20) ? csum_bytes(ip, 20) : frame_sum(&p->frame, at, at + header)) !=
	    0xffff)
		return CORRUPT;
	total = be16(ip + 2);
	if (total < header)
		return CORRUPT;
	if (p->frame.len < at + total)
		return TRUNCATED;
	if (be16(ip + 6) & 0x3fff) /* more fragments, or an offset */
		return FOREIGN;
	p->from = at + header;
	p->end = at + total;
	return check_transport(p, ip[9], csum_bytes(ip + 12, 8), false);
}

/* The checksum covers where the packet goes in the end, RFC 8200, 8.1; the header is `size` bytes long and has that
 * address first (RFC 8754) or last (types 0 and 2, RFC 5095 and 6275). */
static COLD bool final_address(const struct packet *p, uint32_t at, uint32_t size, uint32_t type,
                               uint64_t *sum)
{
	if (size < 24 || (type != 0 && type != 2 && type != SEGMENT_ROUTING))
		return false;
	at += type == SEGMENT_ROUTING ? 8 : size - 16;
	*sum = frame_sum(&p->frame, at, at + 16);
	return true;
}

static inline enum verdict check_ipv6(struct packet *p, uint32_t at)
{
	uint64_t source, destination;
	const uint8_t *ip, *header;
	uint32_t next, size;
	uint8_t room[40];

	if (p->frame.len < at + 40)
		return TRUNCATED;
	ip = frame_at(&p->frame, at, 40, room);
	if (ip[0] >> 4 != 6)
		return CORRUPT;
	p->from = at + 40;
	p->end = p->from + be16(ip + 4);
	if (p->end > p->frame.len)
		return TRUNCATED;
	source = csum_bytes(ip + 8, 16);
	destination = csum_bytes(ip + 24, 16);
	next = ip[6];
	/* Hop-by-hop options stand first or not at all, RFC 8200, 4.1. */
	for (uint32_t i = 0;
	     next == PROTO_OPTIONS || next == PROTO_ROUTING || (next == PROTO_HOP_BY_HOP && !i); i++) {
		if (i == MAX_EXTENSIONS)
			return FOREIGN;
		if (p->end - p->from < 8)
			return TRUNCATED;
		header = frame_at(&p->frame, p->from, 4, room);
		size = (header[1] + 1u) * 8;
		if (p->end - p->from < size)
			return TRUNCATED;
		if (next == PROTO_ROUTING && header[3] &&
		    !final_address(p, p->from, size, header[2], &destination))
			return FOREIGN;
		next = header[0];
		p->from += size;
	}
	return check_transport(p, next, source + destination, true);
}

static inline enum verdict check_packet(struct packet *p)
{
	uint32_t type, at = frame_network(&p->frame, &type);

	if (!at)
		return TRUNCATED;
	if (likely(type == ETH_IPV4))
		return check_ipv4(p, at);
	if (type == ETH_IPV6)
		return check_ipv6(p, at);
	p->from = at;
	p->end = p->frame.len;
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
	uint64_t len = pieces_len(pieces, n);
	struct packet p = {.frame = {pieces, n, (uint32_t)len}, .flags = flags};
	struct xske_check_counters *t = &c->totals;
	const uint8_t *signature = NULL;
	uint8_t room[SIGNATURE_BYTES];
	enum verdict verdict;
	struct arrival a;
	uint32_t id;

	check_count(&t->packets, 1);
	check_count(&t->bytes, len);
	verdict = !n ? TRUNCATED : len > MAX_FRAME_BYTES ? FOREIGN : check_packet(&p);
	if (likely(verdict < FOREIGN) && likely(p.end >= p.from + SIGNATURE_BYTES))
		signature = frame_at(&p.frame, p.end - SIGNATURE_BYTES, SIGNATURE_BYTES, room);
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
	a = (struct arrival){be64(signature + 8), be64(signature + 16), arrived_ns, p.frame.len};
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
