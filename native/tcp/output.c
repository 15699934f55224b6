/* SPDX-License-Identifier: MIT */
/*
 * output.c - what a connection sends in its turn, in order of need: what must go whatever the windows say (SYN, RST), what
 * is lost, a tail loss probe, new data, and an ACK if nothing else has carried it.
 */
#include <errno.h>

#include "tcp.h"

/* How far a paced segment may be ahead of its time. Lower: more timers than the wheel tells apart; higher: bursts. */
#define PACE_SLACK_NS (2 * WHEEL_TICK_NS)

/* ---- SYN and RST --------------------------------------------------------------------------------- */

static enum tcp_turn send_syn(struct xske_tcp_conn *c, uint32_t *posted)
{
	uint8_t flags = c->state == XSKE_TCP_SYN_RECEIVED ? TCP_SYN | TCP_ACK : TCP_SYN;

	if (tcp_send_control(c, flags, c->iss))
		return TCP_TURN_NO_ROOM;
	if (c->state == XSKE_TCP_SYN_SENT && c->syn_tries)
		tcp_count(&c->info.retransmitted_segments, 1);
	c->syn_tries++;
	c->syn_due = false;
	++*posted;
	return TCP_TURN_DONE;
}

static enum tcp_turn send_reset(struct xske_tcp_conn *c, uint32_t *posted)
{
	if (tcp_send_control(c, TCP_RST | TCP_ACK, tcp_seq_to_say(c)))
		return TCP_TURN_NO_ROOM;
	++*posted;
	tcp_fail(c, c->abort_error);
	return TCP_TURN_DONE;
}

/* ---- pace ---------------------------------------------------------------------------------------- */

static bool must_wait(struct xske_tcp_conn *c)
{
	uint64_t now = c->tcp->now_ns;

	if (!(c->config.flags & XSKE_TCP_CONN_PACING) || c->next_pace_ns <= now + PACE_SLACK_NS)
		return false;
	tcp_arm(c, TCP_TIMER_PACE, c->next_pace_ns - PACE_SLACK_NS);
	return true;
}

/* cwnd goes out in half a round trip while it doubles in each, and in 5/6 of one afterwards: the ratios of
 * net/ipv4/tcp_input.c, tcp_update_pacing_rate(). */
static void pace(struct xske_tcp_conn *c, uint32_t bytes)
{
	uint64_t cwnd = cc_cwnd(&c->cc), gap_ns;

	if (!(c->config.flags & XSKE_TCP_CONN_PACING) || !cwnd)
		return;
	gap_ns = bytes * c->rtt.srtt_ns / cwnd;
	gap_ns = cwnd < c->cc.ssthresh / 2 ? gap_ns / 2 : gap_ns * 5 / 6;
	c->next_pace_ns = (c->next_pace_ns > c->tcp->now_ns ? c->next_pace_ns : c->tcp->now_ns) + gap_ns;
}

/* ---- again --------------------------------------------------------------------------------------- */

static int send_again(struct xske_tcp_conn *c, struct sent *s)
{
	bool fin = s->flags & SENT_FIN;
	uint32_t payload = s->len - fin;
	struct segment_out o;
	int err;

	tcp_fill(c, &o, (uint8_t)(TCP_ACK | (payload ? TCP_PSH : 0) | (fin ? TCP_FIN : 0)), s->seq);
	err = tcp_post(c, &o, payload, true);
	if (err)
		return err;
	tcp_was_sent(c, &o, 1, payload);
	if (s->flags & SENT_LOST)
		c->lost_bytes -= s->len;
	s->flags = (s->flags & ~(SENT_LOST | SENT_TOO_LONG)) | SENT_RETRANS;
	s->sent_ns = c->tcp->now_ns;
	tcp_count(&c->info.retransmitted_segments, 1);
	tcp_count(&c->info.retransmitted_bytes, payload);
	c->undo_retrans++;
	if (!c->has_retrans_stamp) {
		c->has_retrans_stamp = true;
		c->retrans_stamp = o.ts_val;
	}
	pace(c, s->len);
	return 0;
}

/* The peer has taken its window back to before that, and would drop it. The first goes all the same: it asks for the window
 * (tcp_retransmit_skb() of Linux). */
static bool is_out_of_window(const struct xske_tcp_conn *c, const struct sent *s)
{
	return s->seq != c->snd_una && s->seq - c->snd_una >= c->snd_wnd;
}

/* One that reaches beyond such a window is dropped whole by a peer that has not read all (tcp_sequence() of Linux, since
 * 6.17): what fits goes alone. */
static void cut_to_window(struct xske_tcp_conn *c, uint32_t index)
{
	const struct sent *s = sents_at(c, index);
	uint64_t before = s->seq - c->snd_una;

	if (before < c->snd_wnd && before + s->len > c->snd_wnd)
		sents_cut(c, index, (uint32_t)(c->snd_wnd - before)); /* no memory: it goes as it is */
}

static enum tcp_turn send_lost(struct xske_tcp_conn *c, uint32_t limit, uint32_t *sent)
{
	for (uint32_t i = 0; c->lost_bytes && i < sents_count(c); i++) {
		struct sent *s = sents_at(c, i);

		if (!(s->flags & SENT_LOST))
			continue;
		if (is_out_of_window(c, s))
			return TCP_TURN_DONE;
		if (!c->resend_now && tcp_pipe(c) + s->len > cc_cwnd(&c->cc) && tcp_pipe(c))
			return TCP_TURN_DONE;
		if (must_wait(c))
			return TCP_TURN_DONE;
		if (*sent == limit)
			return TCP_TURN_MORE;
		cut_to_window(c, i);
		if (send_again(c, sents_at(c, i)))
			return TCP_TURN_NO_ROOM;
		c->resend_now = false;
		++*sent;
	}
	return TCP_TURN_DONE;
}

/* ---- new data ------------------------------------------------------------------------------------ */

static uint32_t unsent(const struct xske_tcp_conn *c)
{
	return seq_after(c->snd_end, c->snd_nxt) ? c->snd_end - c->snd_nxt : 0;
}

/* What the peer's window has room for beyond snd_nxt. */
static uint32_t window_room(const struct xske_tcp_conn *c)
{
	uint64_t out = c->snd_nxt - c->snd_una;

	return c->snd_wnd > out ? (uint32_t)min_u64(c->snd_wnd - out, UINT32_MAX) : 0;
}

static bool fin_is_due(const struct xske_tcp_conn *c)
{
	return c->fin_wanted && !c->fin_sent;
}

/* RFC 9293, 3.8.6.2.1 (the sender's silly window) and 3.7.4 (Nagle). len: what could go. */
static bool is_worth_it(const struct xske_tcp_conn *c, uint32_t len, uint32_t waiting)
{
	bool nodelay = c->config.flags & XSKE_TCP_CONN_NODELAY;

	if (len >= c->mss || c->override_due)
		return true;
	if (len == waiting)
		return nodelay || c->snd_una == c->snd_nxt || fin_is_due(c);
	return len >= c->max_snd_wnd / 2;
}

/* The next segment: its payload, and whether FIN goes with it. false: nothing may go now. */
static bool choose(struct xske_tcp_conn *c, bool probing, uint32_t *len, bool *fin)
{
	uint32_t waiting = unsent(c), window = window_room(c), pipe = tcp_pipe(c), most;

	*len = 0;
	*fin = false;
	/* With a full list an ACK is waited for, not room, or nobody else would have a turn. */
	if ((!waiting && !fin_is_due(c)) || sents_full(c))
		return false;
	most = min_u32(min_u32(waiting, c->mss), window);
	if (!probing && pipe + max_u32(most, 1) > cc_cwnd(&c->cc) && pipe) {
		c->cwnd_limited = true;
		return false;
	}
	if (waiting && (!most || !is_worth_it(c, most, waiting)))
		return false;
	*len = most ? tcp_fits(c, c->snd_nxt, most) : 0;
	*fin = fin_is_due(c) && *len == waiting && window > *len;
	return *len || *fin;
}

/* Nothing is outstanding: what was measured of the last window may be old. */
static void begin_window(struct xske_tcp_conn *c)
{
	if (c->snd_una != c->snd_nxt)
		return;
	c->progress_ns = c->tcp->now_ns;
	cc_on_idle(&c->cc, c->tcp->now_ns - c->last_sent_ns, rtt_rto_ns(&c->rtt), c->tcp->now_ns);
	c->last_sent_ns = c->tcp->now_ns; /* once, though there may be no room now */
}

static void note_new(struct xske_tcp_conn *c, struct sent *s, uint32_t len, uint16_t flags)
{
	*s = (struct sent){.sent_ns = c->tcp->now_ns, .seq = c->snd_nxt, .len = len, .flags = flags};
	c->snd_nxt += len;
}

static void began_new(struct xske_tcp_conn *c)
{
	c->override_due = false;
	if (c->retrans == TCP_RETRANS_PROBE)
		c->retrans = TCP_RETRANS_NONE;
}

static int send_new(struct xske_tcp_conn *c, uint32_t len, bool fin)
{
	bool last = len && len == unsent(c);
	struct segment_out o;
	struct sent *s;
	int err;

	s = sents_push(c);
	if (!s)
		return -EAGAIN;
	tcp_fill(c, &o, (uint8_t)(TCP_ACK | (last ? TCP_PSH : 0) | (fin ? TCP_FIN : 0)), c->snd_nxt);
	err = tcp_post(c, &o, len, false);
	if (err) {
		c->sents.tail--;
		return err;
	}
	tcp_was_sent(c, &o, 1, len);
	note_new(c, s, len + fin, fin ? SENT_FIN : 0);
	began_new(c);
	if (fin) {
		c->fin_sent = true;
		tcp_fin_is_sent(c);
	}
	pace(c, len);
	return 0;
}

/* Segments of which choose() would say, one after the other: a full one, now, and not the last. */
static uint32_t full_segments(const struct xske_tcp_conn *c)
{
	uint64_t cwnd = cc_cwnd(&c->cc), pipe = tcp_pipe(c);
	uint32_t waiting = unsent(c), room = cwnd > pipe ? (uint32_t)min_u64(cwnd - pipe, UINT32_MAX) : 0;

	if (c->config.flags & XSKE_TCP_CONN_PACING || !waiting)
		return 0;
	return min_u32(min_u32(waiting - 1, window_room(c)), room) / c->mss;
}

/* Bulk: what is the same for all of them is done once. How many. */
static uint32_t send_run(struct xske_tcp_conn *c, uint32_t most)
{
	uint32_t n = min_u32(most, full_segments(c));
	struct segment_out o;

	if (n < 2 || !c->header_room)
		return 0;
	tcp_fill(c, &o, TCP_ACK, c->snd_nxt);
	n = tcp_post_run(c, &o, sents_reserve(c, n));
	if (!n)
		return 0;
	tcp_was_sent(c, &o, n, n * c->mss);
	for (uint32_t i = 0; i < n; i++)
		note_new(c, &c->sents.ring[c->sents.tail++ & c->sents.mask], c->mss, 0);
	began_new(c);
	return n;
}

static enum tcp_turn send_data(struct xske_tcp_conn *c, uint32_t limit, uint32_t *sent)
{
	uint32_t len, before = *sent, n;
	enum tcp_turn turn = TCP_TURN_DONE;
	bool fin;

	c->cwnd_limited = false;
	while (choose(c, false, &len, &fin)) {
		if (must_wait(c))
			break;
		if (*sent == limit) {
			turn = TCP_TURN_MORE;
			break;
		}
		begin_window(c);
		n = send_run(c, limit - *sent);
		if (!n && send_new(c, len, fin)) {
			turn = TCP_TURN_NO_ROOM;
			break;
		}
		*sent += max_u32(n, 1);
	}
	/* While it doubles, a window of which half is used may be too small before the next ACK (tcp_is_cwnd_limited() of
	 * Linux). */
	if (cc_in_slow_start(&c->cc) && cc_cwnd(&c->cc) < 2ull * tcp_pipe(c))
		c->cwnd_limited = true;
	if (*sent != before || c->retrans == TCP_RETRANS_NONE) /* RFC 8985, 7.2: not by waiting */
		tcp_arm_retrans(c);
	return turn;
}

/* RFC 8985, 7.3: a new segment if there is one, else the last one again, if the peer may take it; cwnd does not matter. */
static enum tcp_turn send_probe(struct xske_tcp_conn *c, uint32_t *sent)
{
	uint32_t len, n = sents_count(c);
	bool fin, fresh;
	int err = 0;

	fresh = choose(c, true, &len, &fin);
	if (fresh)
		err = send_new(c, len, fin);
	else if (n)
		err = send_again(c, sents_at(c, is_out_of_window(c, sents_at(c, n - 1)) ? 0 : n - 1));
	if (err)
		return TCP_TURN_NO_ROOM;
	c->probe_due = false;
	if (!fresh && !n)
		return TCP_TURN_DONE;
	c->rack.tlp_is_out = true;
	c->rack.tlp_is_retrans = !fresh;
	c->rack.tlp_end_seq = c->snd_nxt;
	c->rack.tlp_stamp = tcp_stamp(c);
	++*sent;
	tcp_arm_retrans(c);
	return TCP_TURN_DONE;
}

/* A peer that is told of no SACKs counts duplicates, and those in segments with data are none (RFC 5681, 2). */
static enum tcp_turn send_acks(struct xske_tcp_conn *c, uint32_t limit, uint32_t *sent)
{
	while (c->ack_now || c->duplicates_due) {
		if (*sent == limit)
			return TCP_TURN_MORE;
		if (tcp_send_control(c, TCP_ACK, tcp_seq_to_say(c)))
			return TCP_TURN_NO_ROOM;
		c->duplicates_due -= !!c->duplicates_due;
		++*sent;
	}
	return TCP_TURN_DONE;
}

static enum tcp_turn run(struct xske_tcp_conn *c, uint32_t limit, uint32_t *sent)
{
	enum tcp_turn turn = TCP_TURN_DONE;

	if (c->reset_due)
		return send_reset(c, sent);
	if (c->state < XSKE_TCP_ESTABLISHED)
		return c->syn_due ? send_syn(c, sent) : TCP_TURN_DONE;
	if (c->state < XSKE_TCP_TIME_WAIT) {
		turn = send_lost(c, limit, sent);
		if (turn == TCP_TURN_DONE && c->probe_due)
			turn = *sent == limit ? TCP_TURN_MORE : send_probe(c, sent);
		if (turn == TCP_TURN_DONE)
			turn = send_data(c, limit, sent);
	}
	if (turn == TCP_TURN_DONE && c->state != XSKE_TCP_CLOSED)
		turn = send_acks(c, limit, sent);
	return turn;
}

enum tcp_turn tcp_output(struct xske_tcp_conn *c, uint32_t limit, uint32_t *posted)
{
	uint32_t sent = 0;
	enum tcp_turn turn = run(c, limit, &sent);

	*posted += sent;
	if (sent && c->state != XSKE_TCP_CLOSED)
		tcp_publish(c);
	return turn;
}
