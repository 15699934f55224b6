/* SPDX-License-Identifier: MIT */
/*
 * check.h - what arrived: received frames become counts per flow. Bytes and a passed-in time, no system call, no
 * allocation and no lock per frame. One thread checks; any thread reads counters, which are whole words: while frames
 * are being checked they may be a frame apart from each other, afterwards they are exact.
 *
 * Every frame is one of these, so that they add up to `packets`:
 *   truncated   a header or the IP packet goes on beyond the end of the frame
 *   corrupt     the IPv4 header's checksum, or the one of UDP, TCP, ICMP or ICMPv6, is wrong, or a header contradicts
 *               itself. Nothing in it is trusted: its sequence is missing in its flow, so it is lost there, too
 *   foreign     intact and without our signature; fragments; and IPv6 without a checksum that is known here, for the
 *               protocol itself stands under none
 *   unknown flow  ours, with a flow id that is not below max_flows
 *   received, duplicate or late   ours, and one of these in its flow
 * Ours are those whose last bytes are a signature: of the UDP datagram, else of the IP packet, else, where there is no
 * IP, of the frame. What stands behind the packet (padding to 60 bytes) is not looked at. Of ours, `unverified` had no
 * checksum (UDP's 0 over IPv4, other protocols in IPv4, no IP at all), and in `csum_partial` it was not finished: not
 * right, and either the sum of the pseudo header alone (as packets of the same host's kernel have it) or announced by
 * CHECK_CSUM_PARTIAL. No checksum covers the Ethernet header, VLAN tags, IPv6's traffic class, flow label and hop
 * limit, the options of its extension headers, and its length where that is more than UDP's own.
 *
 * In a flow, sequences are numbers modulo 2^64. The window is the highest one so far and the 4095 before it:
 *   received    new: ahead of the highest, or in the window and not seen before
 *   reordered   of the received: behind the highest (RFC 4737, section 3.3). The extent (section 4.2.2) is how many
 *               received packets ago the earliest one with a larger sequence came. It is found among the last 32 jumps
 *               of the highest sequence; where it may lie further back, the distance to the oldest of those counts, and
 *               the packet is in `least_extents`, too
 *   duplicate   in the window and seen before
 *   late        behind the window, where duplicates and reordered ones are not told apart; more than 2^40 ahead; or of
 *               an earlier run of the sender. Changes nothing else
 *   lost        between the first expected and the highest, and not received. The first expected is 0 when the first
 *               one seen is in 0..4095, else the first one seen: the receiver has joined in the middle. Packets from
 *               before the first expected are received and reordered, and make up for no loss. One that is late stays
 *               lost
 *   restarts    the sender has begun again: a sequence in 0..4095, not ahead, sent 500 ms or more after the packet with
 *               the highest, and behind the window or seen before. The new run's sequences are judged by themselves,
 *               and the counts go on. What was sent more than 250 ms before that packet is of an earlier run. A restart
 *               without times, or sooner, is not seen: its packets are late or duplicate
 * A sender that lies spoils the counts of the flow that it names (and the totals), and no other flow's.
 *
 * XSKE_CHECK_REFLECTED: ours are those that a reflector has sent back, and no others.
 *
 * Latency is the time of arrival minus the signature's, both CLOCK_TAI, of received packets: one-way, or of reflected
 * ones there and back by one clock. One-way between two hosts it is as right as their clocks agree: a negative one is
 * counted and stands in no histogram. Time 0 = none: `untimed`. Jitter is that of RFC 3550, section 6.4.1, by the
 * integer arithmetic of its appendix A.8, in ns, over received packets in order of arrival; differences of clocks do not
 * matter to it.
 */
#ifndef XSKE_CHECK_H
#define XSKE_CHECK_H

#include <stdbool.h>

#include "piece.h"
#include "util.h"
#include "xske.h"

/* The last bytes of a packet of ours, big-endian: magic u32, flow id u32, sequence u64, time u64 (xsk_engine/payload.py). */
#define SIGNATURE_MAGIC 0x78736b65u
#define REFLECTED_MAGIC 0x6b657873u /* of a packet that a reflector has sent back (bpf/steer.h) */
#define SIGNATURE_BYTES 24u

#define CHECK_WINDOW 4096u /* sequences */
#define CHECK_RUNS 32u
#define CHECK_MAX_JUMP (1ull << 40)            /* 20 hours of 15 Mpps */
#define CHECK_RESTART_NS (500 * NSEC_PER_MSEC) /* two queues of one sender are never so far apart */
#define CHECK_FLOW_BYTES 4096u

#define CHECK_CSUM_PARTIAL XSKE_CHECK_CSUM_PARTIAL

/* What a signature says, and what else is known of its packet. */
struct arrival {
	uint64_t sequence;
	uint64_t stamp_ns; /* 0 = none */
	uint64_t arrived_ns;
	uint32_t len; /* of the frame */
};

/* Where the highest sequence went on after a jump: no packet between two of these has come in order. */
struct run {
	uint64_t sequence;
	uint64_t index; /* received packets before it */
};

/* One flow. Zeros until its first packet, and its page untouched. */
struct arrivals {
	struct xske_check_flow
	        shown; /* what readers copy; its jitter is 16 times as large, as RFC 3550 keeps it */
	uint64_t highest_stamp_ns;
	uint64_t since_ns; /* stamps before it are of an earlier run */
	uint64_t transit_ns;
	uint32_t timed; /* transit_ns is there */
	uint32_t known;
	uint64_t run_count; /* pushed so far */
	struct run runs[CHECK_RUNS];
	uint64_t window[CHECK_WINDOW / 64]; /* a bit per sequence, modulo its size */
	uint32_t bucket[XSKE_LATENCY_BUCKETS];
};
_Static_assert(sizeof(struct arrivals) <= CHECK_FLOW_BYTES, "a page per flow");

struct xske_check {
	uint8_t *flows;  /* CHECK_FLOW_BYTES each, by flow id */
	uint32_t *order; /* ids in order of their first packets; as many as totals.flows says */
	uint64_t mapped_bytes;
	uint32_t max_flows;
	uint32_t magic; /* how signatures of ours begin */
	struct xske_check_counters totals;
	struct xske_latency latency;
};

static inline struct arrivals *check_flow(const struct xske_check *c, uint32_t id)
{
	return (struct arrivals *)(c->flows + (size_t)id * CHECK_FLOW_BYTES);
}

/* Readers never see a half-written word. */
static inline void check_store(uint64_t *counter, uint64_t value)
{
	__atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

static inline void check_count(uint64_t *counter, uint64_t by)
{
	check_store(counter, *counter + by);
}

/* arrived_ns: CLOCK_TAI. flags: CHECK_*. Nothing beyond the pieces is read, whatever they hold; they are not kept. */
void check_frame(struct xske_check *c, const struct piece *pieces, uint32_t n, uint64_t arrived_ns,
                 uint32_t flags);

/* arrivals.c: an intact packet of flow `id`, which is below max_flows. */
void arrivals_add(struct xske_check *c, uint32_t id, const struct arrival *p);

#endif
