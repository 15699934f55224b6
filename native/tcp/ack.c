/* SPDX-License-Identifier: MIT */
/*
 * ack.c - what a segment acknowledges: bytes that are ours to free, segments that were delivered, round trips
 * (RFC 9293, 3.10.7.4, fifth; RFC 2018, 2883, 5681, 6298, 7323).
 */
#include <errno.h>

#include "tcp.h"

uint32_t tcp_pipe(const struct xske_tcp_conn *c)
{
	uint32_t out = c->snd_nxt - c->snd_una - c->sacked_bytes - c->lost_bytes, gone;

	if (c->sack_ok || !c->dupacks || c->recovery == TCP_LOSS)
		return out;
	/* Each of them says that one more has left (RFC 5681, 3.2, step 4). */
	gone = c->dupacks * c->mss;
	return out > gone ? out - gone : 0;
}

static void forget(struct xske_tcp_conn *c, struct sent *s, uint32_t bytes)
{
	if (s->flags & SENT_SACKED)
		c->sacked_bytes -= bytes;
	if (s->flags & SENT_LOST)
		c->lost_bytes -= bytes;
}

/* ---- selective ----------------------------------------------------------------------------------- */

static void sack_one(struct xske_tcp_conn *c, const struct sack_block *b)
{
	uint32_t i, n = sents_count(c);

	for (i = sents_find(c, b->start); i < n; i++) {
		struct sent *s = sents_at(c, i);

		if (seq_before(b->end, s->seq + s->len))
			break;
		if (seq_before(s->seq, b->start) || s->flags & SENT_SACKED)
			continue;
		if (s->flags & SENT_LOST) {
			s->flags &= ~SENT_LOST;
			c->lost_bytes -= s->len;
		}
		if (!(s->flags & SENT_RETRANS))
			c->sack_rtt_ns = c->tcp->now_ns - s->sent_ns;
		s->flags |= SENT_SACKED;
		c->sacked_bytes += s->len;
		rack_delivered(c, s, false);
	}
}

/* RFC 2883, 4: the first block tells what came twice when it lies below the ACK, or within the second one. */
static bool is_dsack(const struct segment *s)
{
	const struct sack_block *b = s->sacks;

	if (seq_before(b[0].start, s->ack))
		return true;
	return s->sack_count > 1 && seq_before_eq(b[1].start, b[0].start) &&
	       seq_before_eq(b[0].end, b[1].end);
}

static void take_sacks(struct xske_tcp_conn *c, const struct segment *s)
{
	uint32_t first = 0;

	if (!c->sack_ok || !s->sack_count)
		return;
	if (is_dsack(s)) {
		recovery_dsack(c, &s->sacks[0]);
		first = 1;
	}
	for (uint32_t i = first; i < s->sack_count; i++) {
		const struct sack_block *b = &s->sacks[i];

		/* What was never sent, or is told of twice, is not believed. */
		if (seq_before(b->start, s->ack) || !seq_before(b->start, b->end) ||
		    seq_after(b->end, c->snd_nxt))
			continue;
		sack_one(c, b);
	}
}

/* ---- cumulative ---------------------------------------------------------------------------------- */

/* Segments that were sent once, in order, and are covered whole: what RACK learns of such a run, its first and its last one
 * say. Takes off all in between; the first is off already. */
static void skip_run(struct xske_tcp_conn *c, uint32_t ack)
{
	for (uint32_t left = sents_count(c); left > 1; left--, c->sents.head++) {
		const struct sent *s = sents_at(c, 0), *next = sents_at(c, 1);

		if (s->flags || next->flags || seq_after(next->seq + next->len, ack))
			return;
	}
}

/* Takes what is acknowledged off the list. sample_ns: the round trip of the oldest segment; 0 when any of them was sent
 * again: those behind it had come before, and say when the gap was filled (RFC 6298, 3). */
static void take_sents(struct xske_tcp_conn *c, uint32_t ack, uint64_t *sample_ns)
{
	bool again = false;

	c->acked_retrans = sents_count(c) && sents_at(c, 0)->flags & SENT_RETRANS;
	c->acked_late = false;
	while (sents_count(c)) {
		struct sent *s = sents_at(c, 0);
		uint32_t bytes = min_u32(ack - s->seq, s->len);

		if (!seq_before(s->seq, ack))
			break;
		if (!(s->flags & SENT_SACKED)) {
			again |= !!(s->flags & SENT_RETRANS);
			c->acked_late |= (s->flags & (SENT_LOST | SENT_RETRANS)) == SENT_LOST;
			if (!*sample_ns)
				*sample_ns = c->tcp->now_ns - s->sent_ns;
			if (bytes == s->len)
				rack_delivered(c, s, true);
		}
		forget(c, s, bytes);
		if (bytes < s->len) {
			s->seq += bytes;
			s->len -= bytes;
			break;
		}
		c->sents.head++;
		skip_run(c, ack);
	}
	if (again)
		*sample_ns = 0;
}

/* RFC 7323, 4.1: an ACK that advances, of which it is known what it answers. A segment that was sent again has no
 * round trip of its own (Karn), but an echo has; unless the ACK tells of a duplicate, and may answer either of them. */
static void measure(struct xske_tcp_conn *c, uint64_t sample_ns)
{
	if (!sample_ns)
		sample_ns = c->sack_rtt_ns;
	if (!sample_ns && c->has_ack_echo && !c->rack.dsack_seen) {
		uint32_t ms = tcp_stamp(c) - c->ack_echo;

		/* Milliseconds: what is less counts as half of one. Beyond a day the echo is none of ours. */
		if (ms < 24 * 3600 * 1000)
			sample_ns = ms ? ms * NSEC_PER_MSEC : NSEC_PER_MSEC / 2;
	}
	if (sample_ns)
		rtt_sample(&c->rtt, sample_ns, c->tcp->now_ns);
}

/* A SACK acknowledges nothing, so the RTO runs on (RFC 6298, 5.3); but it may have ended the back-off, and what was armed
 * with it must not wait so long any more. */
static void measure_sacked(struct xske_tcp_conn *c)
{
	uint64_t due_ns = c->rto_due_ns;

	measure(c, 0);
	tcp_restart_rto(c);
	c->rto_due_ns = due_ns ? min_u64(due_ns, c->rto_due_ns) : c->rto_due_ns;
}

/* RFC 9293, 3.10.7.4: a window is taken from newer segments only. True: it has changed. */
static bool take_window(struct xske_tcp_conn *c, const struct segment *s)
{
	uint64_t wnd = (uint64_t)s->window << c->snd_wscale;
	bool changed = c->told_wnd >= 0 && s->window != c->told_wnd;

	if (seq_before(s->seq, c->snd_wl1) || (s->seq == c->snd_wl1 && seq_before(s->ack, c->snd_wl2)))
		return false;
	c->told_wnd = s->window;
	c->snd_wnd = wnd;
	c->snd_wl1 = s->seq;
	c->snd_wl2 = s->ack;
	c->max_snd_wnd = c->max_snd_wnd > wnd ? c->max_snd_wnd : wnd;
	return changed;
}

/* Twice cwnd, so that there is something to send when a window is acknowledged; it grows only (tcp_sndbuf_expand() of
 * Linux). */
static void tune_send_buffer(struct xske_tcp_conn *c)
{
	uint64_t now = atomic_load_explicit(&c->app.send_buffer, memory_order_relaxed);
	uint64_t wanted = min_u64(2 * cc_cwnd(&c->cc), c->config.send_buffer_bytes);

	if (wanted > now)
		atomic_store_explicit(&c->app.send_buffer, wanted, memory_order_relaxed);
}

static void take_ack(struct xske_tcp_conn *c, uint32_t ack)
{
	uint32_t advance = ack - c->snd_una, payload = advance;
	uint64_t sample_ns = 0;

	take_sents(c, ack, &sample_ns);
	measure(c, sample_ns);
	c->snd_una = ack;
	c->progress_ns = c->tcp->now_ns;
	if (c->fin_sent && ack == c->snd_nxt && !c->fin_acked) {
		c->fin_acked = true;
		payload--;
	}
	if (payload) {
		blocks_acked(c, ack);
		tcp_count(&c->info.acked_bytes, payload);
		tune_send_buffer(c);
		app_took_ack(c, payload);
	}
	tcp_restart_rto(c);
}

/* RFC 5681, 2: (a) to (e). */
static bool is_duplicate(const struct xske_tcp_conn *c, const struct segment *s, bool window_changed)
{
	return s->ack == c->snd_una && c->snd_una != c->snd_nxt && !s->payload_len && !window_changed &&
	       !(s->flags & (TCP_SYN | TCP_FIN));
}

/* They count what has left the network behind the gap; a partial ACK covers the gap and some of those. */
static void forget_duplicates(struct xske_tcp_conn *c, uint32_t acked)
{
	uint32_t segments = acked / c->mss;

	if (c->recovery == TCP_OPEN || c->sack_ok)
		c->dupacks = 0;
	else
		c->dupacks -= min_u32(c->dupacks, segments ? segments - 1 : 0);
}

/* RFC 5961, 5.2 */
static bool is_acceptable(const struct xske_tcp_conn *c, uint32_t ack)
{
	uint32_t oldest = c->snd_una - (uint32_t)min_u64(c->max_snd_wnd, UINT32_MAX / 4);

	return seq_before_eq(ack, c->snd_nxt) && seq_after_eq(ack, oldest);
}

/* Outside fast recovery cwnd grows by what was delivered; slow start after a timeout counts as outside. */
static void grow(struct xske_tcp_conn *c, uint32_t acked, uint32_t pipe)
{
	const struct cc_ack ack = {.acked_bytes = acked,
	                           .inflight_bytes = pipe,
	                           .now_ns = c->tcp->now_ns,
	                           .srtt_ns = c->rtt.srtt_ns,
	                           .min_rtt_ns = c->rtt.min_ns,
	                           .cwnd_limited = c->cwnd_limited || c->recovery == TCP_LOSS};

	if (acked && c->recovery != TCP_RECOVERY)
		cc_on_ack(&c->cc, &ack);
}

/* Nothing is left to be acknowledged, and nothing to be sent. */
static void drained(struct xske_tcp_conn *c)
{
	tcp_signal(c, XSKE_TCP_DRAINED);
	tcp_arm(c, TCP_TIMER_IDLE, c->tcp->now_ns + TCP_IDLE_PARK_NS);
}

bool tcp_ack(struct xske_tcp_conn *c, const struct segment *s)
{
	uint32_t before = c->snd_una, pipe = tcp_pipe(c), acked;
	bool window_changed, idle = c->snd_una == c->snd_nxt;

	if (!is_acceptable(c, s->ack)) {
		tcp_count(&c->info.refused_segments, 1);
		tcp_challenge(c);
		return false;
	}
	if (seq_before(s->ack, c->snd_una)) /* old, and overtaken: it says nothing any more */
		return true;
	c->has_ack_echo = c->timestamps_ok && s->has_timestamp && s->ts_ecr;
	c->ack_echo = s->ts_ecr;
	c->sack_rtt_ns = 0;
	window_changed = take_window(c, s);
	if (c->snd_wnd)
		c->probes = 0;
	/* Who answers with a closed window stays (RFC 9293, 3.8.6.1), also one that has taken it back (3.8.6). */
	if (idle || !c->snd_wnd)
		c->progress_ns = c->tcp->now_ns;
	if (c->flight_ns != c->tcp->now_ns) {
		c->flight_ns = c->tcp->now_ns;
		c->flight = c->snd_nxt - c->snd_una;
	}
	c->rack.fack_before = c->rack.fack;
	take_sacks(c, s);
	acked = s->ack - before;
	if (acked) {
		take_ack(c, s->ack);
		forget_duplicates(c, acked);
	} else {
		if (c->sack_rtt_ns)
			measure_sacked(c);
		if (is_duplicate(c, s, window_changed)) {
			tcp_count(&c->info.duplicate_acks, 1);
			c->dupacks++;
		}
	}
	recovery_after_ack(c, before);
	grow(c, acked, pipe);
	if (acked && c->fin_acked && c->snd_una == c->snd_nxt)
		tcp_fin_is_acked(c);
	if (c->state == XSKE_TCP_CLOSED)
		return false;
	if (acked && c->snd_una == c->snd_nxt && c->snd_nxt == c->snd_end + c->fin_sent)
		drained(c);
	tcp_arm_retrans(c);
	tcp_ready(c);
	return true;
}
