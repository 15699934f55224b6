/* SPDX-License-Identifier: MIT */
/*
 * segment_write.c - headers of segments. Options stand in words of 4 bytes, NOPs in front (RFC 7323, appendix A), in the
 * order that Linux has (tcp_options_write, net/ipv4/tcp_output.c): what receivers and middleboxes see most.
 */
#include "datagram.h"
#include "frame.h"
#include "tcp/option.h"
#include "tcp/segment.h"

#define IPV4_DF 0x40u /* in byte 6 */

static uint8_t *put_u32(uint8_t *to, uint32_t value)
{
	put_u16(to, value >> 16);
	put_u16(to + 2, value & 0xffff);
	return to + 4;
}

static uint8_t *put_bytes(uint8_t *to, uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	to[0] = a;
	to[1] = b;
	to[2] = c;
	to[3] = d;
	return to + 4;
}

/* All but SACK blocks, in whole words. "SACK permitted" needs one of its own where no timestamps are. */
static uint32_t fixed_option_bytes(const struct segment_out *out)
{
	uint32_t bytes = 0;

	if (out->mss)
		bytes += 4;
	if (out->has_timestamp)
		bytes += 12;
	else if (out->sack_permitted)
		bytes += 4;
	if (out->wscale != SEGMENT_NO_WSCALE)
		bytes += 4;
	return bytes;
}

/* The first ones are the newest (RFC 2018, 4), so what does not fit are the oldest. */
static uint32_t sacks_that_fit(const struct segment_out *out, uint32_t fixed)
{
	return min_u32(out->sack_count, (TCP_MAX_BYTES - TCP_BYTES - fixed - 4) / 8);
}

static uint32_t option_bytes(const struct segment_out *out)
{
	uint32_t fixed = fixed_option_bytes(out), sacks = sacks_that_fit(out, fixed);

	return fixed + (sacks ? 4 + 8 * sacks : 0);
}

uint32_t segment_header_bytes(const struct segment_out *out)
{
	return out->header->len + TCP_BYTES + option_bytes(out);
}

static void put_options(uint8_t *to, const struct segment_out *out)
{
	uint32_t sacks = sacks_that_fit(out, fixed_option_bytes(out));
	/* In front of timestamps, to make a word of their kind and length. */
	uint8_t first = out->sack_permitted ? OPTION_SACK_PERMITTED : OPTION_NOP;
	uint8_t second = out->sack_permitted ? OPTION_SACK_PERMITTED_BYTES : OPTION_NOP;

	if (out->mss)
		to = put_bytes(to, OPTION_MSS, OPTION_MSS_BYTES, (uint8_t)(out->mss >> 8), (uint8_t)out->mss);
	if (out->has_timestamp) {
		to = put_bytes(to, first, second, OPTION_TIMESTAMP, OPTION_TIMESTAMP_BYTES);
		to = put_u32(to, out->ts_val);
		to = put_u32(to, out->ts_ecr);
	} else if (out->sack_permitted) {
		to = put_bytes(to, OPTION_NOP, OPTION_NOP, OPTION_SACK_PERMITTED,
		               OPTION_SACK_PERMITTED_BYTES);
	}
	if (out->wscale != SEGMENT_NO_WSCALE)
		to = put_bytes(to, OPTION_NOP, OPTION_WSCALE, OPTION_WSCALE_BYTES, out->wscale);
	if (sacks)
		to = put_bytes(to, OPTION_NOP, OPTION_NOP, OPTION_SACK, (uint8_t)OPTION_SACK_BYTES(sacks));
	for (uint32_t i = 0; i < sacks; i++) {
		to = put_u32(to, out->sacks[i].start);
		to = put_u32(to, out->sacks[i].end);
	}
}

/* Checksum and urgent pointer are 0. */
static void put_tcp(uint8_t *tcp, const struct segment_out *out, uint32_t header)
{
	put_u16(tcp, out->local_port);
	put_u16(tcp + 2, out->remote_port);
	put_u32(tcp + 4, out->seq);
	put_u32(tcp + 8, out->ack);
	tcp[12] = (uint8_t)(header / 4 << 4);
	tcp[13] = out->flags;
	put_u16(tcp + 14, out->window);
	put_u32(tcp + 16, 0);
	put_options(tcp + TCP_BYTES, out);
}

/* Returns where TCP begins; adds the pseudo header to the sum. */
static uint8_t *put_ip(uint8_t *frame, const struct xske_header *h, uint32_t tcp_len, uint64_t *sum)
{
	uint8_t *ip = frame + h->ip_offset;
	bool six = is_ipv6(h);

	header_write(h, frame);
	if (six) {
		ip[6] = PROTO_TCP;
	} else {
		ip[6] |= IPV4_DF; /* RFC 1191, 3: who discovers the path's MTU sets it in all of them */
		ip[9] = PROTO_TCP;
	}
	*sum += PROTO_TCP + tcp_len;
	return ip + pseudo_and_length(ip, six, tcp_len, sum);
}

uint32_t segment_write(uint8_t *frame, const struct segment_out *out, uint32_t payload_len,
                       uint64_t payload_sum, bool partial)
{
	uint32_t header = TCP_BYTES + option_bytes(out);
	uint64_t sum = 0;
	uint8_t *tcp = put_ip(frame, out->header, header + payload_len, &sum);

	put_tcp(tcp, out, header);
	if (partial)
		put_u16(tcp + 16, csum_fold(sum));
	else
		put_u16(tcp + 16, (uint16_t)~csum_fold(sum + csum_bytes(tcp, header) + payload_sum));
	return out->header->len + header;
}

void segment_pattern_init(struct segment_pattern *p, const struct segment_out *out, uint32_t payload_len,
                          bool partial)
{
	struct segment_out zero = *out;
	uint8_t *check;

	zero.seq = 0;
	p->len = segment_write(p->bytes, &zero, payload_len, 0, partial);
	p->seq_at = out->header->len + 4;
	p->partial = partial;
	check = p->bytes + p->seq_at + SEGMENT_SEQ_TO_CHECKSUM;
	p->sum = (uint16_t)~(check[0] << 8 | check[1]);
}
