/* SPDX-License-Identifier: MIT */
/*
 * segment_write.c - headers of segments. Options stand in words of 4 bytes, NOPs in front (RFC 7323, appendix A), in the
 * order that Linux has (tcp_options_write, net/ipv4/tcp_output.c): what receivers and middleboxes see most.
 */
#include <arpa/inet.h>

#include "datagram.h"
#include "frame.h"
#include "tcp/option.h"
#include "tcp/segment.h"

#define IPV4_DF 0x40u /* in byte 6 */
#define CHECKSUM_AT 16u

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
	if (likely(out->front != NULL))
		return out->front->len;
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

static uint32_t write_whole(uint8_t *frame, const struct segment_out *out, uint32_t payload_len,
                            uint64_t payload_sum, bool partial)
{
	uint32_t header = TCP_BYTES + option_bytes(out);
	uint64_t sum = 0;
	uint8_t *tcp = put_ip(frame, out->header, header + payload_len, &sum);

	put_tcp(tcp, out, header);
	if (partial)
		put_u16(tcp + CHECKSUM_AT, csum_fold(sum));
	else
		put_u16(tcp + CHECKSUM_AT, (uint16_t)~csum_fold(sum + csum_bytes(tcp, header) + payload_sum));
	return out->header->len + header;
}

/* ---- what segments have in common ---------------------------------------------------------------- */

void segment_front_init(struct segment_front *f, const struct segment_out *like)
{
	struct segment_out out = {.header = like->header,
	                          .local_port = like->local_port,
	                          .remote_port = like->remote_port,
	                          .has_timestamp = like->has_timestamp,
	                          .wscale = SEGMENT_NO_WSCALE};
	uint8_t *ip = f->bytes + like->header->ip_offset, *tcp;
	bool six = is_ipv6(like->header);

	f->header = like->header;
	f->len = write_whole(f->bytes, &out, 0, 0, true);
	f->tcp_offset = like->header->len;
	tcp = f->bytes + f->tcp_offset;
	put_u16(tcp + CHECKSUM_AT, 0);
	put_u16(ip + (six ? 4 : 2), 0);
	if (!six)
		put_u16(ip + 10, 0);
	f->ip_sum = six ? 0 : csum_bytes(ip, 20);
	f->pseudo_sum = PROTO_TCP + (six ? csum_bytes(ip + 8, 32) : csum_bytes(ip + 12, 8));
	f->tcp_sum = csum_bytes(tcp, f->len - f->tcp_offset);
}

static void put_word(uint8_t *to, uint32_t value)
{
	uint32_t turned = htonl(value);

	memcpy(to, &turned, sizeof(turned));
}

/* Only what differs is written, and added to sums that are there. */
static uint32_t write_front(uint8_t *frame, const struct segment_out *out, uint32_t payload_len,
                            uint64_t payload_sum, bool partial)
{
	const struct segment_front *f = out->front;
	uint32_t tcp_len = f->len - f->tcp_offset + payload_len;
	uint64_t first = __atomic_load_n(&f->header->words[0], __ATOMIC_RELAXED), sum = f->pseudo_sum + tcp_len;
	uint8_t *ip = frame + f->header->ip_offset, *tcp = frame + f->tcp_offset;

	memcpy(frame, f->bytes, f->len);
	memcpy(frame, &first, sizeof(first)); /* as header_write() */
	if (is_ipv6(f->header)) {
		put_u16(ip + 4, tcp_len);
	} else {
		put_u16(ip + 2, 20 + tcp_len);
		put_u16(ip + 10, (uint16_t)~csum_fold(f->ip_sum + 20 + tcp_len));
	}
	put_word(tcp + 4, out->seq);
	put_word(tcp + 8, out->ack);
	tcp[13] = out->flags;
	put_u16(tcp + 14, out->window);
	if (out->has_timestamp) {
		put_word(tcp + TCP_BYTES + 4, out->ts_val);
		put_word(tcp + TCP_BYTES + 8, out->ts_ecr);
		payload_sum += (uint64_t)out->ts_val + out->ts_ecr;
	}
	if (partial)
		put_u16(tcp + CHECKSUM_AT, csum_fold(sum));
	else
		put_u16(tcp + CHECKSUM_AT, (uint16_t)~csum_fold(sum + f->tcp_sum + out->seq + out->ack +
		                                                out->flags + out->window + payload_sum));
	return f->len;
}

uint32_t segment_write(uint8_t *frame, const struct segment_out *out, uint32_t payload_len,
                       uint64_t payload_sum, bool partial)
{
	if (likely(out->front != NULL))
		return write_front(frame, out, payload_len, payload_sum, partial);
	return write_whole(frame, out, payload_len, payload_sum, partial);
}
