/* SPDX-License-Identifier: MIT */
/*
 * segment.h - TCP segments as they stand in frames (RFC 9293, 3.1): read from what came, written to be sent. It keeps
 * nothing and knows no connection.
 *
 * Reading: Ethernet with at most two tags, IPv4 (with options) or IPv6 (without extension headers). Nothing beyond the
 * pieces is read, whatever they hold. The packet ends where IP says; padding behind it is ignored. A checksum is
 * looked at before what it covers is believed, so SEGMENT_MALFORMED is what its sender wrote, or a frame cut short.
 * No checksum covers Ethernet, tags, and IPv6's traffic class, flow label and hop limit.
 * ICMP errors: theirs is always looked at (devices verify TCP and UDP only); of the embedded packet the addresses, the
 * ports and the sequence are read, and none of its checksums: routers change it. Whether such a segment is inflight is
 * for the connection to say (RFC 5927, section 4). ICMPv4 source quench is no error (RFC 6633), nor is redirect.
 */
#ifndef XSKE_TCP_SEGMENT_H
#define XSKE_TCP_SEGMENT_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>

#include "csum.h"
#include "piece.h"
#include "xske.h"

#define SEGMENT_MAX_SACKS 4u /* 40 bytes of options hold no more */
#define SEGMENT_NO_WSCALE 255u
#define SEGMENT_MAX_HEADER_BYTES (22u + 40u + 60u) /* two VLAN tags, IPv6, TCP with all options */

#define SEGMENT_SEQ_TO_CHECKSUM 12u /* RFC 9293, 3.1 */

#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_URG 0x20u

/* What a received frame means to TCP. */
enum segment_kind {
	SEGMENT_TCP,         /* its checksum is right, or exactly the pseudo header's sum (csum_partial) */
	SEGMENT_TOO_BIG,     /* ICMP 3/4 (RFC 1191) or ICMPv6 2 (RFC 8201): mtu says how big may be */
	SEGMENT_UNREACHABLE, /* another ICMP error about a segment: icmp_type, icmp_code */
	SEGMENT_BAD_CSUM,    /* IPv4's, TCP's or ICMP's */
	SEGMENT_MALFORMED,   /* truncated, or contradicts itself */
	SEGMENT_FOREIGN,     /* anything else: not TCP, fragments, other ICMP, errors about those */
};

/* A connection's addresses as a hash key, without holes: in network order as they stand in packets; IPv4: the first 4
 * bytes, the others 0. */
struct tcp_tuple {
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port; /* host order */
	uint32_t version;                 /* 4 or 6 */
};

struct sack_block {
	uint32_t start, end; /* end: the first one that is missing again (RFC 2018, 3) */
};

/* Known only of SEGMENT_TCP, and of ICMP errors as far as said here. What is not there is 0. */
struct segment {
	struct tcp_tuple tuple; /* local: where it came to; of an ICMP error: the embedded source */
	uint32_t seq, ack;      /* of an ICMP error: seq only */
	uint32_t payload_len;   /* bytes, without SYN and FIN */
	uint16_t window;        /* as in the header, not scaled */
	uint8_t flags;          /* all eight: ECE and CWR (RFC 3168), too */
	bool csum_partial;
	bool has_timestamp, sack_permitted;
	uint8_t wscale; /* SEGMENT_NO_WSCALE: not there; larger than 14 as it is, but 254 for 255 */
	uint16_t mss;   /* 0: not there */
	uint32_t ts_val, ts_ecr;
	uint32_t sack_count;
	struct sack_block sacks[SEGMENT_MAX_SACKS];
	uint32_t mtu; /* SEGMENT_TOO_BIG: of the IP packet; 0: not told (RFC 1191, section 5) */
	uint8_t icmp_type, icmp_code;
	struct piece payload[RX_PIECES]; /* where it lies: payload_count pieces, payload_len bytes together */
	uint32_t payload_count;
};

/* n: at most RX_PIECES. verify: false where the device has verified the checksums of IP and TCP; csum_partial is not
 * told then. */
enum segment_kind segment_read(const struct piece *pieces, uint32_t n, bool verify, struct segment *out);
/* `len` bytes from `offset` of the payload, which has them, while its pieces are there. */
void segment_copy(const struct segment *s, uint32_t offset, uint32_t len, uint8_t *to);

/* What is to be sent. */
struct segment_out {
	/* Ethernet, tags, IPv4 without options or IPv6, and nothing behind it: len - ip_offset is 20 or 40. Others
	 * may change its MAC meanwhile (xske_header_set_mac). */
	const struct xske_header *header;
	uint32_t seq, ack;
	uint16_t local_port, remote_port; /* host order */
	uint16_t window;                  /* as it goes into the header */
	uint8_t flags;
	bool has_timestamp, sack_permitted;
	uint8_t wscale; /* SEGMENT_NO_WSCALE: not there */
	uint16_t mss;   /* 0: not there */
	uint32_t ts_val, ts_ecr;
	uint32_t sack_count; /* as many of them are written as there is room beside the other options */
	struct sack_block sacks[SEGMENT_MAX_SACKS];
};

/* From Ethernet to the end of the TCP options. */
uint32_t segment_header_bytes(const struct segment_out *out);
/* Writes these bytes, the headers of a segment with payload_len bytes behind them, and returns how many. The protocol,
 * lengths, checksums and IPv4's DF are written, the rest of the template stays as it is. payload_sum: csum_bytes() of the
 * payload, or a sum of several with odd ones shifted. partial: payload_sum is ignored, and the checksum field holds the
 * folded sum of the pseudo header, not complemented, for a device to finish (CHECKSUM_PARTIAL,
 * include/linux/skbuff.h). The frame must not be inflight: old and new bytes would leave together. */
uint32_t segment_write(uint8_t *frame, const struct segment_out *out, uint32_t payload_len,
                       uint64_t payload_sum, bool partial);

/* Headers that differ in their sequence alone, with no options but timestamps: written once, and then copied. */
#define SEGMENT_MAX_PATTERN_BYTES 96u
#define SEGMENT_PATTERN_HALF (SEGMENT_MAX_PATTERN_BYTES / 2)
struct segment_pattern {
	uint32_t len;    /* at least a half */
	uint32_t seq_at; /* in bytes */
	uint64_t sum;    /* with sequence 0 and no payload */
	bool partial;
	uint8_t bytes[SEGMENT_MAX_PATTERN_BYTES];
};

/* Of segments with payload_len bytes of payload each. out->seq does not matter. */
void segment_pattern_init(struct segment_pattern *p, const struct segment_out *out, uint32_t payload_len,
                          bool partial);

/* As segment_write(). */
static inline void segment_pattern_write(const struct segment_pattern *p, uint8_t *frame, uint32_t seq,
                                         uint64_t payload_sum)
{
	uint32_t rest = p->len - SEGMENT_PATTERN_HALF, turned = htonl(seq);

	/* Two copies of a known length, which overlap: no call. */
	memcpy(frame, p->bytes, SEGMENT_PATTERN_HALF);
	memcpy(frame + rest, p->bytes + rest, SEGMENT_PATTERN_HALF);
	memcpy(frame + p->seq_at, &turned, sizeof(turned));
	if (!p->partial) {
		uint16_t check = htons((uint16_t)~csum_fold(p->sum + seq + payload_sum));

		memcpy(frame + p->seq_at + SEGMENT_SEQ_TO_CHECKSUM, &check, sizeof(check));
	}
}

#endif
