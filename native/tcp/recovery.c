/* SPDX-License-Identifier: MIT */
/*
 * recovery.c - what is lost, and what follows. With SACK: RACK-TLP (RFC 8985), by time; without: NewReno (RFC 6582), by
 * duplicate ACKs. cwnd falls once per episode; what may be sent meanwhile is cwnd - pipe (RFC 6675). An episode that
 * turns out to have lost nothing is undone: by the echo of a timestamp (Eifel, RFC 3522), or by DSACKs for everything
 * that was sent again (RFC 3708).
 */
#include "tcp.h"

#define DUPLICATES 3u /* RFC 5681, 3.2 */
/* RFC 8985, 6.2, step 4: episodes without a DSACK until the window is small again. */
#define REO_WND_PERSIST 16u

/* RFC 8985, 6.1: RACK_sent_after */
static bool sent_after(uint64_t ns1, uint32_t end1, uint64_t ns2, uint32_t end2)
{
	return ns1 > ns2 || (ns1 == ns2 && seq_after(end1, end2));
}

/* Of a time of sending: what the segment had in it. */
static uint32_t stamp_at(const struct xske_tcp_conn *c, uint64_t ns)
{
	return (uint32_t)(ns / NSEC_PER_MSEC) + c->ts_offset;
}

/* RFC 8985, 6.2, steps 1 to 3 */
void rack_delivered(struct xske_tcp_conn *c, const struct sent *s, bool by_ack)
{
	struct rack *r = &c->rack;
	uint32_t end = s->seq + s->len;
	uint64_t rtt_ns = c->tcp->now_ns - s->sent_ns;

	if (seq_after(end, r->fack))
		r->fack = end;
	if (!(s->flags & SENT_RETRANS) && seq_before(end, r->fack_before))
		r->reordering_seen = true;
	if (s->flags & SENT_RETRANS) {
		/* Of the first copy, or of the second? Only a cumulative ACK echoes what it answers. */
		if (by_ack && c->has_ack_echo && seq_before(c->ack_echo, stamp_at(c, s->sent_ns)))
			return;
		if (rtt_ns < c->rtt.min_ns)
			return;
	}
	if (r->sent_ns && !sent_after(s->sent_ns, end, r->sent_ns, r->end_seq))
		return;
	r->rtt_ns = rtt_ns;
	r->sent_ns = s->sent_ns;
	r->end_seq = end;
}

/* Step 4 */
static uint64_t reordering_window_ns(const struct xske_tcp_conn *c)
{
	const struct rack *r = &c->rack;
	uint64_t window = r->reo_wnd_mult * (c->rtt.min_ns / 4);

	if (!r->reordering_seen &&
	    (c->recovery != TCP_OPEN || c->sacked_bytes >= (uint64_t)DUPLICATES * c->mss))
		return 0;
	return min_u64(window, c->rtt.srtt_ns);
}

void recovery_mark_lost(struct xske_tcp_conn *c, struct sent *s)
{
	if (s->flags & (SENT_SACKED | SENT_LOST))
		return;
	s->flags |= SENT_LOST;
	c->lost_bytes += s->len;
}

/* Step 5. Segments that were sent after the last delivered one are not looked at: as long as nothing is out of order
 * those are all. */
void rack_detect(struct xske_tcp_conn *c)
{
	uint64_t window = reordering_window_ns(c), now = c->tcp->now_ns, wait_ns = 0;
	const struct rack *r = &c->rack;

	c->reorder_due_ns = 0;
	if (!c->sack_ok || !r->sent_ns || (!c->sacked_bytes && c->recovery == TCP_OPEN))
		return;
	for (uint32_t i = 0, n = sents_count(c); i < n; i++) {
		struct sent *s = sents_at(c, i);
		uint64_t due = s->sent_ns + r->rtt_ns + window;

		if (s->flags & (SENT_SACKED | SENT_LOST) ||
		    !sent_after(r->sent_ns, r->end_seq, s->sent_ns, s->seq + s->len))
			continue;
		if (due <= now)
			recovery_mark_lost(c, s);
		else
			wait_ns = due - now > wait_ns ? due - now : wait_ns;
	}
	if (wait_ns)
		tcp_arm_reorder(c, now + wait_ns);
}

/* FlightSize (RFC 5681, 2), as it was before the ACKs of this turn: nothing has been sent for them yet. With much that is
 * SACKed it may be more than cwnd, and a loss would make that larger; so at most cwnd, which Linux takes for it. */
static uint64_t flight(const struct xske_tcp_conn *c)
{
	uint32_t out = c->flight_ns == c->tcp->now_ns ? c->flight : c->snd_nxt - c->snd_una;

	return min_u64(out, cc_cwnd(&c->cc));
}

/* ---- episodes ------------------------------------------------------------------------------------ */

static void begin(struct xske_tcp_conn *c, enum tcp_recovery kind)
{
	if (c->recovery == TCP_OPEN) {
		c->may_undo = true;
		c->undo_retrans = 0;
		c->undo_start = c->snd_una;
		c->has_retrans_stamp = false;
	}
	c->recovery = kind;
	c->recovery_end = c->snd_nxt;
	c->resend_now = true;
}

static void fast_recovery(struct xske_tcp_conn *c)
{
	begin(c, TCP_RECOVERY);
	cc_on_loss(&c->cc, flight(c), c->tcp->now_ns);
	tcp_count(&c->info.recoveries, 1);
}

static void end(struct xske_tcp_conn *c)
{
	c->recovery = TCP_OPEN;
	c->resend_now = false;
	c->dupacks = 0;
	c->undo_end = c->snd_nxt;
	if (c->rack.reo_wnd_persist && !--c->rack.reo_wnd_persist)
		c->rack.reo_wnd_mult = 1;
}

static void undo(struct xske_tcp_conn *c)
{
	for (uint32_t i = 0, n = sents_count(c); i < n; i++) {
		struct sent *s = sents_at(c, i);

		if ((s->flags & (SENT_LOST | SENT_TOO_LONG)) != SENT_LOST)
			continue;
		s->flags &= ~SENT_LOST;
		c->lost_bytes -= s->len;
	}
	cc_on_undo(&c->cc);
	c->rack.reordering_seen = true; /* what was thought lost was late */
	tcp_count(&c->info.undone_recoveries, 1);
	if (c->recovery != TCP_OPEN)
		end(c);
	c->may_undo = false;
}

/* Everything that was sent again has come twice (RFC 3708), which may be known a round trip later; or what acknowledges a
 * segment that was sent again is older than the first retransmission (RFC 3522, 3.2). Or what was thought lost has come
 * before anything was sent again: the ACKs of one turn are looked at together. */
static bool was_for_nothing(const struct xske_tcp_conn *c, bool advanced)
{
	if (!c->may_undo)
		return false;
	if (!c->has_retrans_stamp)
		return c->recovery != TCP_OPEN && advanced && c->acked_late;
	if (c->rack.dsack_seen && !c->undo_retrans)
		return true;
	return c->recovery != TCP_OPEN && advanced && c->acked_retrans && c->has_ack_echo &&
	       seq_before(c->ack_echo, c->retrans_stamp);
}

/* RFC 6582, 3.2: without SACK the first segment is what is missing. */
static void mark_first_lost(struct xske_tcp_conn *c)
{
	if (sents_count(c))
		recovery_mark_lost(c, sents_at(c, 0));
}

static void newreno(struct xske_tcp_conn *c, bool advanced)
{
	if (c->recovery == TCP_RECOVERY && advanced) { /* a partial ACK */
		mark_first_lost(c);
		c->resend_now = true;
	} else if (c->recovery == TCP_OPEN && c->dupacks >= DUPLICATES &&
	           seq_after_eq(c->snd_una, c->recovery_end)) {
		mark_first_lost(c);
	}
}

/* RFC 8985, 7.4: was the probe for nothing, or has it mended a loss that nobody else will tell of? */
static void settle_probe(struct xske_tcp_conn *c, bool advanced)
{
	struct rack *r = &c->rack;
	/* An older segment than the probe is what filled the gap: as in RFC 3522. */
	bool in_vain = advanced && c->has_ack_echo && seq_before(c->ack_echo, r->tlp_stamp);

	if (!r->tlp_is_out || seq_before(c->snd_una, r->tlp_end_seq))
		return;
	/* With a new segment in it there is nothing to mend. A DSACK, or a second ACK for the same: both copies came. */
	if (!r->tlp_is_retrans || r->dsack_seen || in_vain || (c->snd_una == r->tlp_end_seq && !advanced)) {
		r->tlp_is_out = false;
	} else if (seq_after(c->snd_una, r->tlp_end_seq)) {
		r->tlp_is_out = false;
		if (c->recovery == TCP_OPEN)
			cc_on_loss(&c->cc, flight(c), c->tcp->now_ns);
	}
}

void recovery_dsack(struct xske_tcp_conn *c, const struct sack_block *b)
{
	struct rack *r = &c->rack;

	r->dsack_seen = true;
	/* A network that doubles is no sign of a retransmission that was not needed (RFC 3708, 2). */
	if (c->undo_retrans && seq_after(b->end, c->undo_start))
		c->undo_retrans--;
	/* RFC 8985, 6.2, step 4: once per round trip. */
	if (r->has_dsack_round && seq_before(c->snd_una, r->dsack_round))
		return;
	r->has_dsack_round = true;
	r->dsack_round = c->snd_nxt;
	r->reo_wnd_mult++;
	r->reo_wnd_persist = REO_WND_PERSIST;
}

void recovery_after_ack(struct xske_tcp_conn *c, uint32_t una_before)
{
	bool advanced = c->snd_una != una_before;

	if (was_for_nothing(c, advanced))
		undo(c);
	else if (c->recovery != TCP_OPEN && advanced && seq_after_eq(c->snd_una, c->recovery_end))
		end(c);
	else if (c->recovery == TCP_OPEN && seq_after(c->snd_una, c->undo_end))
		c->may_undo = false;
	settle_probe(c, advanced);
	if (c->sack_ok)
		rack_detect(c);
	else
		newreno(c, advanced);
	if (c->lost_bytes && c->recovery == TCP_OPEN)
		fast_recovery(c);
	c->rack.dsack_seen = false;
}

/* ---- timers -------------------------------------------------------------------------------------- */

/* RFC 6298, 5.4 to 5.6; RFC 8985, 6.3: the first segment is lost, and what was sent so long ago that it should have
 * been acknowledged. A peer whose SACKs cover the first one has thrown away what it had (RFC 2018, 8). */
void recovery_timeout(struct xske_tcp_conn *c)
{
	bool again = c->recovery == TCP_LOSS && c->snd_una == c->timeout_una, reneged;
	uint64_t now = c->tcp->now_ns;
	uint32_t n = sents_count(c);

	if (!n)
		return;
	reneged = sents_at(c, 0)->flags & SENT_SACKED;
	for (uint32_t i = 0; i < n; i++) {
		struct sent *s = sents_at(c, i);

		if (reneged && s->flags & SENT_SACKED) {
			s->flags &= ~SENT_SACKED;
			c->sacked_bytes -= s->len;
		}
		if (!i || !c->rack.rtt_ns || s->sent_ns + c->rack.rtt_ns + reordering_window_ns(c) <= now)
			recovery_mark_lost(c, s);
	}
	c->dupacks = 0;
	c->timeout_una = c->snd_una;
	c->rack.tlp_is_out = false;
	begin(c, TCP_LOSS);
	cc_on_timeout(&c->cc, flight(c), !again, now);
	rtt_back_off(&c->rtt);
	tcp_count(&c->info.timeouts, 1);
}

/* RFC 8985, 7.3 */
bool recovery_probe(struct xske_tcp_conn *c)
{
	if (!sents_count(c) || c->rack.tlp_is_out)
		return false;
	c->probe_due = true;
	tcp_count(&c->info.tail_probes, 1);
	return true;
}
