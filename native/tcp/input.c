/* SPDX-License-Identifier: MIT */
/*
 * input.c - a segment has come: RFC 9293, 3.10.7, with RFC 5961 (blind attacks), RFC 7323 (PAWS, timestamps) and RFC 1337.
 * What comes in order is copied to the application's ring. What does not is dropped, and the peer sends it again: a
 * sender needs no reassembly.
 */
#include <errno.h>

#include "tcp.h"

/* RFC 7323, 5.5: older than that, a timestamp says nothing (a millisecond clock has wrapped). */
#define PAWS_IDLE_NS (24 * 24 * 3600 * NSEC_PER_SEC)

uint32_t tcp_receive_room(const struct xske_tcp_conn *c)
{
	/* seq_cst: also behind the store of window_closed, see xske_tcp_read(). */
	uint64_t held = atomic_load_explicit(&c->app.receive_head, memory_order_relaxed) -
	                atomic_load_explicit(&c->app.receive_tail, memory_order_seq_cst);

	return c->app.receive_mask + 1 - (uint32_t)held;
}

/* What the peer may send: what it was told. */
static uint32_t window(const struct xske_tcp_conn *c)
{
	return seq_after(c->rcv_adv, c->rcv_nxt) ? c->rcv_adv - c->rcv_nxt : 0;
}

static uint32_t sequence_len(const struct segment *s)
{
	return s->payload_len + !!(s->flags & TCP_SYN) + !!(s->flags & TCP_FIN);
}

/* RFC 9293, 3.10.7.4, first: any of it lies in the window. With a closed window what begins there is looked at without
 * its payload: its ACK counts. */
static bool is_in_window(const struct xske_tcp_conn *c, const struct segment *s)
{
	uint32_t len = sequence_len(s), wnd = window(c), first = s->seq - c->rcv_nxt;
	uint32_t last = first + len - 1;

	if (!wnd)
		return !first;
	/* Who has filled the window sends his ACKs from its right edge on: tcp_sequence() of Linux takes them, too. */
	return first < wnd || (len ? last < wnd : first == wnd);
}

static void take_options_of_syn(struct xske_tcp_conn *c, const struct segment *s)
{
	c->irs = s->seq;
	c->rcv_nxt = c->rcv_adv = c->last_ack_sent = s->seq + 1;
	c->timestamps_ok = s->has_timestamp;
	c->sack_ok = s->sack_permitted;
	c->wscale_ok = s->wscale != SEGMENT_NO_WSCALE;
	c->snd_wscale = c->wscale_ok ? (uint8_t)min_u32(s->wscale, TCP_MAX_WSCALE) : 0;
	if (!c->wscale_ok)
		c->rcv_wscale = 0;
	if (s->mss)
		c->peer_mss = s->mss;
	c->ts_recent = s->ts_val;
	c->ts_recent_ns = c->tcp->now_ns;
	c->rcv_mss = TCP_DEFAULT_MSS4;
}

/* The peer has acknowledged our SYN. A window in a SYN is never scaled (RFC 7323, 2.2). */
static void syn_is_acked(struct xske_tcp_conn *c, const struct segment *s, bool in_syn)
{
	uint64_t wnd = (uint64_t)s->window << (in_syn ? 0 : c->snd_wscale);

	c->snd_una = s->ack;
	c->snd_wnd = c->max_snd_wnd = wnd;
	c->told_wnd = in_syn ? -1 : s->window;
	c->snd_wl1 = s->seq;
	c->snd_wl2 = s->ack;
	if (c->syn_tries == 1) /* Karn: else it is not known which of them it answers */
		rtt_sample(&c->rtt, c->tcp->now_ns - c->last_sent_ns, c->tcp->now_ns);
	tcp_established(c);
}

/* ---- payload ------------------------------------------------------------------------------------- */

static void copy_in(struct xske_tcp_conn *c, const struct segment *s, uint32_t offset, uint32_t len)
{
	struct tcp_app *a = &c->app;
	uint64_t head = atomic_load_explicit(&a->receive_head, memory_order_relaxed);
	uint32_t at = (uint32_t)head & a->receive_mask, first = min_u32(len, a->receive_mask + 1 - at);

	segment_copy(s, offset, first, a->received + at);
	segment_copy(s, offset + first, len - first, a->received);
	/* Release: the bytes. seq_cst: then look who waits for them. */
	atomic_store_explicit(&a->receive_head, head + len, memory_order_seq_cst);
	tcp_signal(c, XSKE_TCP_READABLE);
}

/* At most every second full segment waits for an ACK (RFC 9293, 3.8.6.3), and none longer than TCP_DELACK_NS. */
static void owe_ack(struct xske_tcp_conn *c)
{
	if (c->rcv_nxt - c->last_ack_sent >= 2 * c->rcv_mss) {
		c->ack_now = true;
	} else if (!c->ack_delayed) {
		c->ack_delayed = true;
		tcp_arm(c, TCP_TIMER_DELACK, c->tcp->now_ns + TCP_DELACK_NS);
	}
}

/* Returns whether all of it was taken, so that a FIN behind it may be. */
static bool take_payload(struct xske_tcp_conn *c, const struct segment *s)
{
	uint32_t skip = c->rcv_nxt - s->seq, len = s->payload_len, take;

	if (seq_after(s->seq,
	              c->rcv_nxt)) { /* a gap before it: what is missing comes again, and so does this */
		tcp_count(&c->info.dropped_segments, 1);
		c->ack_now = true;
		c->duplicates_due++;
		return false;
	}
	if (skip > len) {
		c->ack_now = true;
		return false;
	}
	len -= skip;
	if (!len)
		return true;
	take = min_u32(len, min_u32(tcp_receive_room(c), window(c)));
	c->rcv_mss = max_u32(c->rcv_mss, min_u32(s->payload_len, c->path_mtu));
	if (take) {
		copy_in(c, s, skip, take);
		c->rcv_nxt += take;
		tcp_count(&c->info.received_bytes, take);
		owe_ack(c);
	}
	if (take < len) {
		tcp_count(&c->info.dropped_segments, 1);
		c->ack_now = true;
	}
	return take == len;
}

static void take_text(struct xske_tcp_conn *c, const struct segment *s)
{
	bool fin = s->flags & TCP_FIN;

	if (!s->payload_len && !fin)
		return;
	if (c->fin_received) { /* nothing comes behind a FIN */
		c->ack_now = true;
		return;
	}
	/* Nobody will read it, and the peer must know: RFC 9293, 3.6.1. */
	if (c->app_gone && seq_after(s->seq + s->payload_len, c->rcv_nxt)) {
		tcp_abort(c, ECONNABORTED);
		return;
	}
	if (!take_payload(c, s) || !fin)
		return;
	c->rcv_nxt++;
	c->ack_now = true;
	tcp_fin_has_come(c);
}

/* ---- the states ---------------------------------------------------------------------------------- */

/* RFC 9293, 3.10.7.3 */
static void in_syn_sent(struct xske_tcp_conn *c, struct segment *s)
{
	bool acked = s->flags & TCP_ACK;

	if (acked && s->ack != c->snd_nxt) {
		tcp_count(&c->info.refused_segments, 1);
		if (!(s->flags & TCP_RST))
			tcp_send_control(c, TCP_RST, s->ack);
		return;
	}
	if (s->flags & TCP_RST) {
		if (acked)
			tcp_fail(c, ECONNREFUSED);
		return;
	}
	if (!(s->flags & TCP_SYN))
		return;
	take_options_of_syn(c, s);
	if (acked) {
		syn_is_acked(c, s, true);
		c->ack_now = true;
		/* What it brings besides begins behind the SYN. */
		s->seq++;
		s->flags &= (uint8_t)~TCP_SYN;
		take_text(c, s);
	} else {
		/* Both have opened at the same time: 3.5, figure 8. */
		tcp_set_state(c, XSKE_TCP_SYN_RECEIVED);
		c->syn_due = true;
	}
}

static void take_reset(struct xske_tcp_conn *c, const struct segment *s)
{
	bool unsettled = seq_before(c->snd_una, c->snd_end);

	if (c->state == XSKE_TCP_TIME_WAIT) /* RFC 1337, 3 */
		return;
	if (s->seq != c->rcv_nxt) { /* RFC 5961, 3.2 */
		tcp_challenge(c);
		return;
	}
	if (c->state == XSKE_TCP_SYN_RECEIVED)
		tcp_fail(c, ECONNREFUSED);
	else if (c->state == XSKE_TCP_CLOSING || c->state == XSKE_TCP_LAST_ACK)
		tcp_fail(c, unsettled ? ECONNRESET : 0);
	else
		tcp_fail(c, ECONNRESET);
}

/* What lies outside the window, or is old: an ACK puts the peer right. Without payload it may be the answer to one
 * of ours, so those are counted out (RFC 5961, 7). */
static void refuse(struct xske_tcp_conn *c, const struct segment *s)
{
	tcp_count(&c->info.refused_segments, 1);
	if (s->flags & TCP_RST)
		return;
	if (c->state == XSKE_TCP_TIME_WAIT && s->flags & TCP_FIN)
		tcp_fin_has_come(c);
	if (s->payload_len || s->flags & TCP_FIN)
		c->ack_now = true;
	else
		tcp_challenge(c);
}

/* After so long what is kept is no measure any more (RFC 7323, 5.5). */
static bool is_older(const struct xske_tcp_conn *c, uint32_t ts_val)
{
	return seq_before(ts_val, c->ts_recent) && c->tcp->now_ns - c->ts_recent_ns < PAWS_IDLE_NS;
}

/* RFC 7323, 5.3, R1, and 3.2 for those who have stopped to send timestamps. RFC 7323, 5.2: resets are spared. */
static bool is_stale(const struct xske_tcp_conn *c, const struct segment *s)
{
	return c->timestamps_ok && s->has_timestamp && !(s->flags & TCP_RST) && is_older(c, s->ts_val);
}

/* RFC 9293, 3.10.7.4 */
static void in_synchronized(struct xske_tcp_conn *c, struct segment *s)
{
	bool in_syn = false;

	/* The peer's SYN again, now with an ACK of ours: what a simultaneous open ends with (3.5, figure 8). */
	if (c->state == XSKE_TCP_SYN_RECEIVED && s->flags & TCP_SYN && s->seq == c->irs) {
		s->seq++;
		s->flags &= (uint8_t)~TCP_SYN;
		if (!(s->flags & TCP_ACK)) { /* the first one once more: ours was lost */
			c->syn_due = true;
			return;
		}
		in_syn = true;
	}
	if (c->timestamps_ok && !s->has_timestamp && !(s->flags & TCP_RST)) {
		tcp_count(&c->info.refused_segments, 1);
		return;
	}
	if (is_stale(c, s) || !is_in_window(c, s)) {
		refuse(c, s);
		return;
	}
	/* R3: what is echoed is of the oldest segment that is not acknowledged (4.3). */
	if (s->has_timestamp && c->timestamps_ok && seq_before_eq(s->seq, c->last_ack_sent) &&
	    !is_older(c, s->ts_val)) {
		c->ts_recent = s->ts_val;
		c->ts_recent_ns = c->tcp->now_ns;
	}
	if (s->flags & TCP_RST) {
		take_reset(c, s);
		return;
	}
	if (s->flags & TCP_SYN) { /* RFC 5961, 4.2 */
		tcp_challenge(c);
		return;
	}
	if (!(s->flags & TCP_ACK))
		return;
	if (c->state == XSKE_TCP_SYN_RECEIVED) {
		if (s->ack != c->snd_nxt) {
			tcp_count(&c->info.refused_segments, 1);
			tcp_send_control(c, TCP_RST, s->ack);
			return;
		}
		syn_is_acked(c, s, in_syn);
	} else if (!tcp_ack(c, s)) {
		return;
	}
	if (c->state != XSKE_TCP_CLOSED)
		take_text(c, s);
}

void tcp_input(struct xske_tcp_conn *c, struct segment *s)
{
	if (c->state == XSKE_TCP_CLOSED || c->reset_due)
		return;
	tcp_count(&c->info.received_segments, 1);
	if (s->csum_partial)
		tcp_count(&c->info.csum_partial_segments, 1);
	c->last_received_ns = c->tcp->now_ns;
	if (c->state == XSKE_TCP_SYN_SENT)
		in_syn_sent(c, s);
	else
		in_synchronized(c, s);
	if (c->state == XSKE_TCP_CLOSED)
		return;
	tcp_publish(c);
	if (c->ack_now || c->syn_due)
		tcp_ready(c);
}
