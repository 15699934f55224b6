/* SPDX-License-Identifier: MIT */
/*
 * timers.c - what happens when nothing comes. One timer watches over what is outstanding (TCP_TIMER_RETRANS), armed for
 * whatever is next: a reordering window's end, a tail loss probe, the RTO, a closed window, or the end of a state.
 */
#include <errno.h>

#include "tcp.h"

/* RFC 8985, 7.2: the longest that peers delay an ACK; Linux' TCP_RTO_MIN. */
#define WORST_DELACK_NS (200 * NSEC_PER_MSEC)
/* What a probe waits beyond two round trips, for they may be shorter than the time in our own ring; TCP_TIMEOUT_MIN of
 * Linux is two jiffies. */
#define LEAST_PTO_NS (2 * NSEC_PER_MSEC)
/* RFC 8985, 7.2: without a round trip that was measured. */
#define FIRST_PTO_NS NSEC_PER_SEC

void tcp_arm(struct xske_tcp_conn *c, enum tcp_timer_kind kind, uint64_t due_ns)
{
	wheel_arm(&c->tcp->wheel, &c->timers[kind].timer, due_ns);
}

void tcp_disarm(struct xske_tcp_conn *c, enum tcp_timer_kind kind)
{
	wheel_cancel(&c->tcp->wheel, &c->timers[kind].timer);
}

static bool is_connecting(const struct xske_tcp_conn *c)
{
	return c->state == XSKE_TCP_SYN_SENT || c->state == XSKE_TCP_SYN_RECEIVED;
}

/* Whoever waits is not kept waiting longer than he wanted. */
static uint64_t within_patience(const struct xske_tcp_conn *c, uint64_t due_ns)
{
	uint64_t end_ns = c->progress_ns + c->config.user_timeout_ns;

	return c->config.user_timeout_ns && end_ns > c->tcp->now_ns ? min_u64(due_ns, end_ns) : due_ns;
}

void tcp_restart_rto(struct xske_tcp_conn *c)
{
	c->rto_due_ns = sents_count(c) ? within_patience(c, c->tcp->now_ns + rtt_rto_ns(&c->rtt)) : 0;
}

static void arm_for(struct xske_tcp_conn *c, enum tcp_retrans what, uint64_t due_ns)
{
	c->retrans = what;
	tcp_arm(c, TCP_TIMER_RETRANS, due_ns);
}

/* RFC 8985, 7.1: one probe at a time, and none while losses are being mended. */
static bool may_probe(const struct xske_tcp_conn *c)
{
	return c->sack_ok && c->recovery == TCP_OPEN && !c->sacked_bytes && !c->lost_bytes &&
	       !c->rack.tlp_is_out && !c->probe_due;
}

static uint64_t probe_timeout_ns(const struct xske_tcp_conn *c)
{
	uint64_t pto = c->rtt.srtt_ns ? 2 * c->rtt.srtt_ns : FIRST_PTO_NS;

	return pto + (sents_count(c) == 1 ? WORST_DELACK_NS /* its ACK may be delayed */ : LEAST_PTO_NS);
}

void tcp_arm_reorder(struct xske_tcp_conn *c, uint64_t due_ns)
{
	c->reorder_due_ns = due_ns;
}

void tcp_arm_retrans(struct xske_tcp_conn *c)
{
	uint64_t now = c->tcp->now_ns;

	if (c->state == XSKE_TCP_CLOSED || c->retrans == TCP_RETRANS_LIFE)
		return;
	if (is_connecting(c)) {
		arm_for(c, TCP_RETRANS_RTO, min_u64(now + rtt_rto_ns(&c->rtt), c->life_end_ns));
	} else if (sents_count(c)) {
		if (!c->rto_due_ns)
			tcp_restart_rto(c);
		if (c->reorder_due_ns && c->reorder_due_ns < c->rto_due_ns)
			arm_for(c, TCP_RETRANS_REORDER, c->reorder_due_ns);
		else if (may_probe(c)) /* never later than the RTO: RFC 8985, 7.2 */
			arm_for(c, TCP_RETRANS_TLP, min_u64(now + probe_timeout_ns(c), c->rto_due_ns));
		else
			arm_for(c, TCP_RETRANS_RTO, c->rto_due_ns);
	} else if (seq_after(c->snd_end + (c->fin_wanted && !c->fin_sent), c->snd_nxt)) {
		/* Something to send, and nothing outstanding that would open the window (RFC 9293, 3.8.6.1). */
		if (c->retrans != TCP_RETRANS_PROBE)
			arm_for(c, TCP_RETRANS_PROBE, now + rtt_rto_ns(&c->rtt));
	} else {
		c->retrans = TCP_RETRANS_NONE;
		tcp_disarm(c, TCP_TIMER_RETRANS);
	}
}

static int why_silent(const struct xske_tcp_conn *c)
{
	return c->soft_error ? (int)c->soft_error : ETIMEDOUT;
}

static bool patience_has_ended(const struct xske_tcp_conn *c)
{
	return c->config.user_timeout_ns && c->tcp->now_ns - c->progress_ns >= c->config.user_timeout_ns;
}

static void rto(struct xske_tcp_conn *c)
{
	if (is_connecting(c)) {
		if (c->tcp->now_ns >= c->life_end_ns) {
			tcp_fail(c, why_silent(c));
			return;
		}
		rtt_back_off(&c->rtt);
		c->syn_due = true;
		c->lost_syns++;
	} else if (patience_has_ended(c)) {
		tcp_fail(c, why_silent(c));
		return;
	} else {
		recovery_timeout(c);
		tcp_restart_rto(c);
	}
	tcp_arm_retrans(c);
	tcp_ready(c);
}

/* A segment of nothing, below what the peer expects: it answers with its window (tcp_xmit_probe_skb() of Linux). Ever
 * rarer: RFC 9293, 3.8.6.1. */
static void probe_window(struct xske_tcp_conn *c)
{
	uint64_t wait_ns = rtt_rto_ns(&c->rtt);

	if (patience_has_ended(c)) {
		tcp_fail(c, why_silent(c));
		return;
	}
	tcp_ready(c); /* what a small window, or Nagle's algorithm, has kept back may go now */
	c->override_due = true;
	if (!c->snd_wnd && !tcp_send_control(c, TCP_ACK, c->snd_una - 1)) {
		c->probes++;
		tcp_count(&c->info.window_probes, 1);
	}
	for (uint32_t i = 0; i < c->probes && wait_ns < RTO_MAX_NS; i++)
		wait_ns *= 2;
	arm_for(c, TCP_RETRANS_PROBE, within_patience(c, c->tcp->now_ns + min_u64(wait_ns, RTO_MAX_NS)));
}

static void retrans(struct xske_tcp_conn *c)
{
	enum tcp_retrans what = c->retrans;

	c->retrans = TCP_RETRANS_NONE;
	switch (what) {
	case TCP_RETRANS_NONE:
		break;
	case TCP_RETRANS_RTO:
		rto(c);
		break;
	case TCP_RETRANS_TLP:
		if (recovery_probe(c))
			tcp_ready(c);
		tcp_restart_rto(c);
		tcp_arm_retrans(c);
		break;
	case TCP_RETRANS_REORDER:
		c->reorder_due_ns = 0;
		recovery_after_ack(c, c->snd_una);
		tcp_arm_retrans(c);
		tcp_ready(c);
		break;
	case TCP_RETRANS_PROBE:
		probe_window(c);
		break;
	case TCP_RETRANS_LIFE:
		tcp_fail(c, 0);
		break;
	}
}

/* RFC 9293, 3.8.4: only when nothing has come for so long, and nothing is outstanding that would be sent again. */
static void keepalive(struct xske_tcp_conn *c)
{
	uint64_t silent_since = c->last_received_ns, now = c->tcp->now_ns;
	uint64_t due = silent_since + c->config.keepalive_idle_ns;

	if (c->alive_probes && c->alive_since_ns != silent_since)
		c->alive_probes = 0; /* it has answered */
	if (now < due || sents_count(c)) {
		tcp_arm(c, TCP_TIMER_KEEPALIVE, now < due ? due : now + c->config.keepalive_interval_ns);
		return;
	}
	if (c->alive_probes >= c->config.keepalive_probes) {
		tcp_abort(c, why_silent(c));
		return;
	}
	if (!tcp_send_control(c, TCP_ACK, c->snd_una - 1)) {
		c->alive_probes++;
		c->alive_since_ns = silent_since;
	}
	tcp_arm(c, TCP_TIMER_KEEPALIVE, now + c->config.keepalive_interval_ns);
}

static void park_if_idle(struct xske_tcp_conn *c)
{
	if (c->blocks.head != c->blocks.tail)
		return; /* armed again when it is acknowledged */
	if (!xske_arena_park_if_idle(c->arena))
		tcp_arm(c, TCP_TIMER_IDLE, c->tcp->now_ns + TCP_IDLE_PARK_NS);
}

void tcp_timer_expired(struct tcp_timer *t)
{
	struct xske_tcp_conn *c = t->conn;

	switch (t->kind) {
	case TCP_TIMER_RETRANS:
		retrans(c);
		break;
	case TCP_TIMER_DELACK:
		c->ack_now |= c->ack_delayed;
		tcp_ready(c);
		break;
	case TCP_TIMER_PACE:
		tcp_ready(c);
		break;
	case TCP_TIMER_KEEPALIVE:
		keepalive(c);
		break;
	case TCP_TIMER_IDLE:
		park_if_idle(c);
		break;
	case TCP_TIMERS:
		break;
	}
	if (c->state != XSKE_TCP_CLOSED)
		tcp_publish(c);
}
