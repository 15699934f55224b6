/* SPDX-License-Identifier: MIT */
/* segment.c - what a received frame means to TCP (RFC 9293, 3.1; RFC 2018, 7323; RFC 792, 4443). */
#include "tcp/segment.h"

#include <stddef.h>

#include "frame.h"
#include "tcp/option.h"

#define IPV4_BYTES 20u
#define IPV6_BYTES 40u
#define ICMP_BYTES 8u
#define EMBEDDED_BYTES 8u /* of the embedded TCP header: ports and sequence. RFC 792 promises no more */

enum {
	ICMP_UNREACHABLE = 3,
	ICMP_NEEDS_FRAGMENTATION = 4, /* a code of it */
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
	ICMPV6_TOO_BIG = 2,
	ICMPV6_LAST_ERROR = 4, /* the first is 1; 5 to 127 are not assigned (IANA) */
};

/* The IP packet: what it carries lies from `at` to `end`. */
struct packet {
	struct frame frame;
	bool verify;
	bool six;
	uint32_t at, end;
	uint64_t pseudo; /* the sum of both addresses */
	struct segment *out;
};

static void set_addresses(struct tcp_tuple *t, bool six, const uint8_t *local, const uint8_t *remote)
{
	uint32_t bytes = six ? 16 : 4;

	t->version = six ? 6 : 4;
	memcpy(t->local, local, bytes);
	memcpy(t->remote, remote, bytes);
}

static void set_ports(struct tcp_tuple *t, const uint8_t *local, const uint8_t *remote)
{
	t->local_port = (uint16_t)be16(local);
	t->remote_port = (uint16_t)be16(remote);
}

/* ---- ICMP errors --------------------------------------------------------------------------------- */

/* What comes behind the ICMP header is the beginning of a packet that we sent. Its length is what it once was, and says
 * nothing. */
static enum segment_kind read_embedded(const struct packet *p, enum segment_kind kind)
{
	uint32_t at = p->at + ICMP_BYTES, header = p->six ? IPV6_BYTES : IPV4_BYTES;
	uint8_t room[IPV6_BYTES], ports[EMBEDDED_BYTES];
	struct segment *s = p->out;
	const uint8_t *ip, *tcp;

	if (p->end < at + header)
		return SEGMENT_MALFORMED;
	ip = frame_at(&p->frame, at, header, room);
	if (ip[0] >> 4 != (p->six ? 6 : 4))
		return SEGMENT_MALFORMED;
	if (!p->six) {
		header = (ip[0] & 15) * 4u;
		if (header < IPV4_BYTES)
			return SEGMENT_MALFORMED;
		/* The first fragment has the ports. */
		if (be16(ip + 6) & 0x1fff)
			return SEGMENT_FOREIGN;
	}
	if (ip[p->six ? 6 : 9] != PROTO_TCP)
		return SEGMENT_FOREIGN;
	if (p->end < at + header + EMBEDDED_BYTES)
		return SEGMENT_MALFORMED;
	tcp = frame_at(&p->frame, at + header, EMBEDDED_BYTES, ports);
	if (p->six)
		set_addresses(&s->tuple, true, ip + 8, ip + 24);
	else
		set_addresses(&s->tuple, false, ip + 12, ip + 16);
	set_ports(&s->tuple, tcp, tcp + 2);
	s->seq = be32(tcp + 4);
	return kind;
}

static enum segment_kind icmp_kind(const struct packet *p, const uint8_t *icmp)
{
	uint8_t type = icmp[0];

	if (p->six) {
		if (type == ICMPV6_TOO_BIG) {
			p->out->mtu = be32(icmp + 4);
			return SEGMENT_TOO_BIG;
		}
		return type && type <= ICMPV6_LAST_ERROR ? SEGMENT_UNREACHABLE : SEGMENT_FOREIGN;
	}
	if (type == ICMP_UNREACHABLE && icmp[1] == ICMP_NEEDS_FRAGMENTATION) {
		p->out->mtu = be16(icmp + 6);
		return SEGMENT_TOO_BIG;
	}
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM
	               ? SEGMENT_UNREACHABLE
	               : SEGMENT_FOREIGN;
}

static COLD enum segment_kind read_icmp(const struct packet *p)
{
	/* RFC 4443, 2.3: over a pseudo header, other than in IPv4. */
	uint64_t pseudo = p->six ? p->pseudo + PROTO_ICMPV6 + (p->end - p->at) : 0;
	uint8_t room[ICMP_BYTES];
	enum segment_kind kind;
	const uint8_t *icmp;

	if (p->end - p->at < ICMP_BYTES)
		return SEGMENT_MALFORMED;
	icmp = frame_at(&p->frame, p->at, ICMP_BYTES, room);
	kind = icmp_kind(p, icmp);
	if (kind == SEGMENT_FOREIGN)
		return kind;
	if (csum_fold(pseudo + frame_sum(&p->frame, p->at, p->end)) != 0xffff)
		return SEGMENT_BAD_CSUM;
	p->out->icmp_type = icmp[0];
	p->out->icmp_code = icmp[1];
	return read_embedded(p, kind);
}

/* ---- segments ------------------------------------------------------------------------------------ */

static void read_sacks(struct segment *s, const uint8_t *option, uint32_t len)
{
	/* RFC 2018, 3. */
	if (len < OPTION_SACK_BYTES(1) || (len - OPTION_SACK_BYTES(0)) % 8)
		return;
	s->sack_count = 0;
	for (const uint8_t *block = option + 2; block < option + len; block += 8)
		s->sacks[s->sack_count++] = (struct sack_block){be32(block), be32(block + 4)};
}

/* One option, kind and length in front. Of a known kind with another length nothing is known: skipped. */
static void read_option(struct segment *s, const uint8_t *option, uint32_t len)
{
	switch (option[0]) {
	case OPTION_MSS:
		if (len == OPTION_MSS_BYTES)
			s->mss = (uint16_t)be16(option + 2);
		break;
	case OPTION_WSCALE:
		if (len == OPTION_WSCALE_BYTES)
			s->wscale = (uint8_t)min_u32(option[2], SEGMENT_NO_WSCALE - 1);
		break;
	case OPTION_SACK_PERMITTED:
		if (len == OPTION_SACK_PERMITTED_BYTES)
			s->sack_permitted = true;
		break;
	case OPTION_SACK:
		read_sacks(s, option, len);
		break;
	case OPTION_TIMESTAMP:
		if (len == OPTION_TIMESTAMP_BYTES) {
			s->has_timestamp = true;
			s->ts_val = be32(option + 2);
			s->ts_ecr = be32(option + 6);
		}
		break;
	default:
		break;
	}
}

/* False: an option's length cannot be. Of two of a kind the last one counts. */
static bool read_options(struct segment *s, const uint8_t *at, const uint8_t *end)
{
	while (at < end && at[0] != OPTION_END) {
		if (at[0] == OPTION_NOP) {
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2 || at[1] > end - at)
			return false;
		read_option(s, at, at[1]);
		at += at[1];
	}
	return true;
}

static void lay_payload(const struct frame *f, uint32_t from, uint32_t to, struct segment *s)
{
	uint32_t at = 0;

	s->payload_len = to - from;
	for (uint32_t i = 0; at < to; at += f->pieces[i++].len) {
		uint32_t first = max_u32(at, from), end = min_u32(at + f->pieces[i].len, to);

		if (first < end)
			s->payload[s->payload_count++] =
			        (struct piece){f->pieces[i].bytes + (first - at), end - first};
	}
}

/* False: wrong, and not merely unfinished. */
static bool tcp_csum(const struct packet *p, const uint8_t *tcp)
{
	uint64_t pseudo = p->pseudo + PROTO_TCP + (p->end - p->at);

	if (likely(csum_fold(pseudo + frame_sum(&p->frame, p->at, p->end)) == 0xffff))
		return true;
	p->out->csum_partial = csum_fold(pseudo) == be16(tcp + 16);
	return p->out->csum_partial;
}

static enum segment_kind read_tcp(const struct packet *p)
{
	uint32_t len = p->end - p->at, header;
	uint8_t room[TCP_MAX_BYTES];
	struct segment *s = p->out;
	const uint8_t *tcp;

	if (len < TCP_BYTES)
		return SEGMENT_MALFORMED;
	tcp = frame_at(&p->frame, p->at, TCP_BYTES, room);
	if (p->verify && unlikely(!tcp_csum(p, tcp)))
		return SEGMENT_BAD_CSUM;
	header = (tcp[12] >> 4) * 4u;
	if (header < TCP_BYTES || header > len)
		return SEGMENT_MALFORMED;
	tcp = frame_at(&p->frame, p->at, header, room);
	set_ports(&s->tuple, tcp + 2, tcp);
	s->seq = be32(tcp + 4);
	s->ack = be32(tcp + 8);
	s->flags = tcp[13];
	s->window = (uint16_t)be16(tcp + 14);
	if (!read_options(s, tcp + TCP_BYTES, tcp + header))
		return SEGMENT_MALFORMED;
	lay_payload(&p->frame, p->at + header, p->end, s);
	return SEGMENT_TCP;
}

/* ---- packets ------------------------------------------------------------------------------------- */

static enum segment_kind read_ipv4(struct packet *p)
{
	uint32_t at = p->at, header, total;
	uint8_t room[IPV4_BYTES];
	const uint8_t *ip;

	if (p->frame.len < at + IPV4_BYTES)
		return SEGMENT_MALFORMED;
	ip = frame_at(&p->frame, at, IPV4_BYTES, room);
	header = (ip[0] & 15) * 4u;
	total = be16(ip + 2);
	if (ip[0] >> 4 != 4 || header < IPV4_BYTES || p->frame.len < at + header)
		return SEGMENT_MALFORMED;
	if (p->verify && unlikely(csum_fold(frame_sum(&p->frame, at, at + header)) != 0xffff))
		return SEGMENT_BAD_CSUM;
	if (total < header || p->frame.len < at + total)
		return SEGMENT_MALFORMED;
	if (be16(ip + 6) & 0x3fff) /* more fragments, or an offset */
		return SEGMENT_FOREIGN;
	p->at = at + header;
	p->end = at + total;
	p->pseudo = csum_bytes(ip + 12, 8);
	if (unlikely(ip[9] == PROTO_ICMP))
		return read_icmp(p);
	if (unlikely(ip[9] != PROTO_TCP))
		return SEGMENT_FOREIGN;
	set_addresses(&p->out->tuple, false, ip + 16, ip + 12);
	return read_tcp(p);
}

static enum segment_kind read_ipv6(struct packet *p)
{
	uint8_t room[IPV6_BYTES];
	const uint8_t *ip;

	if (p->frame.len < p->at + IPV6_BYTES)
		return SEGMENT_MALFORMED;
	ip = frame_at(&p->frame, p->at, IPV6_BYTES, room);
	if (ip[0] >> 4 != 6)
		return SEGMENT_MALFORMED;
	p->six = true;
	p->at += IPV6_BYTES;
	p->end = p->at + be16(ip + 4);
	if (p->frame.len < p->end)
		return SEGMENT_MALFORMED;
	p->pseudo = csum_bytes(ip + 8, 32);
	if (unlikely(ip[6] == PROTO_ICMPV6))
		return read_icmp(p);
	if (unlikely(ip[6] != PROTO_TCP))
		return SEGMENT_FOREIGN;
	set_addresses(&p->out->tuple, true, ip + 24, ip + 8);
	return read_tcp(p);
}

enum segment_kind segment_read(const struct piece *pieces, uint32_t n, bool verify, struct segment *out)
{
	uint64_t len = pieces_len(pieces, n);
	struct packet p = {.frame = {pieces, n, (uint32_t)len}, .verify = verify, .out = out};
	uint32_t type;

	memset(out, 0, offsetof(struct segment, payload));
	out->wscale = SEGMENT_NO_WSCALE;
	out->payload_count = 0;
	if (!n || n > RX_PIECES || len > MAX_FRAME_BYTES)
		return SEGMENT_MALFORMED;
	p.at = frame_network(&p.frame, &type);
	if (!p.at)
		return SEGMENT_MALFORMED;
	if (likely(type == ETH_IPV4))
		return read_ipv4(&p);
	return type == ETH_IPV6 ? read_ipv6(&p) : SEGMENT_FOREIGN;
}

void segment_copy(const struct segment *s, uint32_t offset, uint32_t len, uint8_t *to)
{
	pieces_copy(s->payload, offset, len, to);
}
