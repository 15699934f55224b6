/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "csum.h"
#include "edit.h"

#define ETH_TYPE_AT 12u
#define UDP_HEADER_BYTES 8u
/* IEEE 802 numbers; 0x9100 is what QinQ used before 802.1ad */
enum {
	TYPE_IPV4 = 0x0800,
	TYPE_TAG = 0x8100,
	TYPE_IPV6 = 0x86dd,
	TYPE_SERVICE_TAG = 0x88a8,
	TYPE_OLD_TAG = 0x9100
};
/* IANA protocol numbers */
enum {
	PROTO_HOP_BY_HOP = 0,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_AUTH = 51,
	PROTO_ICMPV6 = 58,
	PROTO_OPTIONS = 60,
	PROTO_UDPLITE = 136,
};

/* Where the headers of a packet are; 0: there is none. */
struct layout {
	uint32_t tag; /* the outermost */
	uint32_t ip;
	uint32_t ip_end;   /* of the datagram, as its header says */
	uint32_t l4;       /* 0 in all fragments but the first */
	uint32_t l4_check; /* its checksum */
	uint8_t proto;
	bool ipv6, fragment;
	bool routed; /* the final destination, which checksums cover, stands in a routing header (RFC 8200, 8.1) */
};

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static bool is_tag(uint32_t type)
{
	return type == TYPE_TAG || type == TYPE_SERVICE_TAG || type == TYPE_OLD_TAG;
}

uint32_t edit_tag_bytes(const uint8_t *frame, uint32_t len)
{
	uint32_t at = ETH_TYPE_AT;

	while (at + EDIT_TAG_BYTES + 2 <= len && is_tag(be16(frame + at)))
		at += EDIT_TAG_BYTES;
	return at - ETH_TYPE_AT;
}

static void find_ipv4(struct layout *l, const uint8_t *f, uint32_t len, uint32_t at)
{
	uint32_t header = at + 20 <= len ? (f[at] & 0xfu) * 4 : 0, offset;

	if (header < 20 || f[at] >> 4 != 4 || at + header > len)
		return;
	l->ip = at;
	l->ip_end = at + be16(f + at + 2);
	l->proto = f[at + 9];
	offset = be16(f + at + 6);
	l->fragment = offset & 0x3fff; /* more to come, or not the first */
	if (!(offset & 0x1fff))
		l->l4 = at + header;
}

/* RFC 8200: headers stand in a chain. */
static void find_ipv6(struct layout *l, const uint8_t *f, uint32_t len, uint32_t at)
{
	uint32_t next;

	if (at + 40 > len || f[at] >> 4 != 6)
		return;
	l->ip = at;
	l->ipv6 = true;
	l->ip_end = at + 40 + be16(f + at + 4);
	next = f[at + 6];
	for (at += 40; at + 8 <= len;) {
		uint32_t bytes;

		if (next == PROTO_FRAGMENT) {
			l->fragment = true;
			if (be16(f + at + 2) & 0xfff8)
				return;
			bytes = 8;
		} else if (next == PROTO_AUTH) {
			bytes = (f[at + 1] + 2u) * 4;
		} else if (next == PROTO_HOP_BY_HOP || next == PROTO_ROUTING || next == PROTO_OPTIONS) {
			l->routed |= next == PROTO_ROUTING && f[at + 3];
			bytes = (f[at + 1] + 1u) * 8;
		} else {
			l->proto = (uint8_t)next;
			l->l4 = at;
			return;
		}
		next = f[at];
		at += bytes;
	}
}

/* Where the checksum of this protocol stands; 0: it has none, or one that we cannot keep (SCTP's is a CRC). */
static uint32_t check_offset(const struct layout *l)
{
	switch (l->proto) {
	case PROTO_TCP:
		return 16;
	case PROTO_UDP:
	case PROTO_UDPLITE:
		return 6;
	case PROTO_ICMP:
		return l->ipv6 ? 0 : 2;
	case PROTO_ICMPV6:
		return l->ipv6 ? 2 : 0;
	default:
		return 0;
	}
}

static struct layout find(const uint8_t *f, uint32_t len)
{
	uint32_t tags = edit_tag_bytes(f, len), at = ETH_TYPE_AT + tags, type = be16(f + at), offset;
	struct layout l = {.tag = tags ? ETH_TYPE_AT : 0};

	if (type == TYPE_IPV4)
		find_ipv4(&l, f, len, at + 2);
	else if (type == TYPE_IPV6)
		find_ipv6(&l, f, len, at + 2);
	offset = check_offset(&l);
	if (l.l4 && offset && l.l4 + offset + 2 <= len)
		l.l4_check = l.l4 + offset;
	return l;
}

static bool has_ports(const struct layout *l, uint32_t len)
{
	return l->l4 && l->l4 + 4 <= len &&
	       (l->proto == PROTO_TCP || l->proto == PROTO_UDP || l->proto == PROTO_UDPLITE);
}

static bool is_udp(const struct layout *l)
{
	return l->proto == PROTO_UDP || l->proto == PROTO_UDPLITE;
}

/* RFC 1624, equation 3; `delta` is the sum of ~m and m' of all words that changed. */
static void update_check(uint8_t *at, uint64_t delta, bool udp)
{
	uint32_t old = be16(at);
	uint16_t check;

	if (udp && !old)
		return; /* there is none (RFC 768) */
	check = (uint16_t)~csum_fold((uint16_t)~old + delta);
	put16(at, udp && !check ? 0xffff : check);
}

/* Writes the bytes; what it adds to a sum over words that begin at an even distance from `even`. */
static uint64_t rewrite(const struct xske_edit *e, uint8_t *frame, uint32_t at, uint32_t even)
{
	uint64_t delta = 0;

	for (uint32_t i = 0; i < e->len; i++, at++) {
		uint8_t old = frame[at], new = (uint8_t)((old & ~e->mask[i]) | (e->value[i] & e->mask[i]));
		uint32_t shift = (at - even) & 1 ? 0 : 8;

		delta += (uint16_t)~((uint32_t)old << shift) + ((uint64_t)new << shift);
		frame[at] = new;
	}
	return delta;
}

static void edit_ip(const struct xske_edit *e, uint8_t *frame, uint32_t len, const struct layout *l)
{
	uint32_t addresses = l->ipv6 ? 8 : 12; /* behind it; the pseudo header has them */
	uint64_t delta;

	if (!l->ip || l->ipv6 != (e->layer == XSKE_EDIT_IPV6) || l->ip + e->offset + e->len > len)
		return;
	delta = rewrite(e, frame, l->ip + e->offset, l->ip);
	if (!l->ipv6)
		update_check(frame + l->ip + 10, delta, false);
	if (l->routed && e->offset >= 24)
		return;
	if (e->offset >= addresses && l->l4_check && l->proto != PROTO_ICMP)
		update_check(frame + l->l4_check, delta, is_udp(l));
}

static uint32_t untag(uint8_t *frame, uint32_t len)
{
	uint32_t tags = edit_tag_bytes(frame, len);

	memmove(frame + ETH_TYPE_AT, frame + ETH_TYPE_AT + tags, len - ETH_TYPE_AT - tags);
	return len - tags;
}

static uint32_t add_tag(uint8_t *frame, uint32_t len)
{
	memmove(frame + ETH_TYPE_AT + EDIT_TAG_BYTES, frame + ETH_TYPE_AT, len - ETH_TYPE_AT);
	put16(frame + ETH_TYPE_AT, TYPE_TAG);
	put16(frame + ETH_TYPE_AT + 2, 0);
	return len + EDIT_TAG_BYTES;
}

uint32_t edit_packet(const struct xske_edit *edits, uint32_t n, uint8_t *frame, uint32_t len)
{
	uint32_t room = len + EDIT_GROWS;

	for (uint32_t i = 0; i < n; i++) {
		const struct xske_edit *e = &edits[i];
		struct layout l;

		if (len < EDIT_ETH_BYTES)
			return len;
		l = find(frame, len);
		switch (e->layer) {
		case XSKE_EDIT_UNTAG:
			len = untag(frame, len);
			break;
		case XSKE_EDIT_TAG:
			if (!l.tag && len + EDIT_TAG_BYTES <= room)
				len = add_tag(frame, len);
			else if (!l.tag)
				break;
			rewrite(e, frame, ETH_TYPE_AT + 2, ETH_TYPE_AT);
			break;
		case XSKE_EDIT_PORTS:
			if (has_ports(&l, len)) {
				uint64_t delta = rewrite(e, frame, l.l4 + e->offset, l.l4);

				if (l.l4_check)
					update_check(frame + l.l4_check, delta, is_udp(&l));
			}
			break;
		case XSKE_EDIT_ETH:
			if (!(e->flags & XSKE_EDIT_KEEP_GROUP && frame[e->offset] & 1))
				rewrite(e, frame, e->offset, 0);
			break;
		default:
			edit_ip(e, frame, len, &l);
		}
	}
	return len;
}

void edit_fix_checksums(uint8_t *frame, uint32_t len)
{
	struct layout l;
	uint64_t sum = 0;
	uint32_t covered, length;

	if (len < EDIT_ETH_BYTES)
		return;
	l = find(frame, len);
	if (l.ip && !l.ipv6) {
		put16(frame + l.ip + 10, 0);
		put16(frame + l.ip + 10,
		      (uint16_t)~csum_fold(csum_bytes(frame + l.ip, (frame[l.ip] & 0xfu) * 4)));
	}
	if (!l.l4_check || l.fragment || l.routed || l.ip_end > len || l.ip_end < l.l4_check + 2 ||
	    (l.proto == PROTO_UDP && !l.ipv6 && !be16(frame + l.l4_check)))
		return;
	covered = length = l.ip_end - l.l4;
	if (is_udp(&l) && be16(frame + l.l4 + 4) >= UDP_HEADER_BYTES)
		covered = min_u32(be16(frame + l.l4 + 4), length);
	if (l.proto == PROTO_UDP)
		length = covered; /* RFC 768; of UDP-Lite only a part is covered (RFC 3828) */
	if (l.proto != PROTO_ICMP)
		sum = l.proto + (uint64_t)length +
		      (l.ipv6 ? csum_bytes(frame + l.ip + 8, 32) : csum_bytes(frame + l.ip + 12, 8));
	put16(frame + l.l4_check, 0);
	sum += csum_bytes(frame + l.l4, covered);
	covered = (uint16_t)~csum_fold(sum);
	put16(frame + l.l4_check, is_udp(&l) && !covered ? 0xffff : covered);
}
