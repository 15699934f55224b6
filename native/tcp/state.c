/* SPDX-License-Identifier: MIT */
/* state.c - the life of a connection: opening, closing, resets and errors (RFC 9293, 3.3.2, 3.6 and 3.10). */
#include <errno.h>

#include "tcp.h"

/* Below it nothing is told to be sent, whatever the peer says: headers would be most of it. Linux: TCP_MIN_SND_MSS is 48. */
#define MIN_MSS 64u
/* What may be written before anything is known of the path; Linux starts with 16 KiB to 87 KiB (tcp_wmem). Lower: the
 * first round trips are not filled; higher: pins more than a short transfer needs. */
#define FIRST_SEND_BUFFER_BYTES 65536u

static uint32_t ip_bytes(const struct xske_tcp_conn *c)
{
	return tcp_is_six(c) ? 40 : 20;
}

/* Payload of a full segment: the least of what the peer takes, the path carries, and a chunk holds where a packet is one
 * desc (RFC 9293, 3.7.1; RFC 6691). */
static uint32_t segment_payload(const struct xske_tcp_conn *c)
{
	const struct xske_umem *umem = c->arena->umem;
	uint32_t most = min_u32(c->peer_mss, c->path_mtu - ip_bytes(c) - 20);

	most = max_u32(most, MIN_MSS) - tcp_option_bytes(c);
	if (c->header_room)
		most = min_u32(most, umem->chunk_size - umem->metadata_len - c->header_room);
	return most;
}

static uint32_t recovery_state(const struct xske_tcp_conn *c)
{
	if (c->recovery != TCP_OPEN)
		return c->recovery == TCP_LOSS ? XSKE_TCP_RECOVERY_LOSS : XSKE_TCP_RECOVERY_FAST;
	return c->sacked_bytes || c->dupacks ? XSKE_TCP_RECOVERY_DISORDER : XSKE_TCP_RECOVERY_OPEN;
}

static uint32_t options(const struct xske_tcp_conn *c)
{
	return (c->timestamps_ok ? XSKE_TCP_HAS_TIMESTAMPS : 0) | (c->sack_ok ? XSKE_TCP_HAS_SACK : 0) |
	       (c->wscale_ok ? XSKE_TCP_HAS_WSCALE : 0);
}

void tcp_publish(struct xske_tcp_conn *c)
{
	struct xske_tcp_info *i = &c->info;

	tcp_store(&i->srtt_ns, c->rtt.srtt_ns);
	tcp_store(&i->rttvar_ns, c->rtt.rttvar_ns);
	tcp_store(&i->min_rtt_ns, c->rtt.srtt_ns ? c->rtt.min_ns : 0);
	tcp_store(&i->rto_ns, rtt_rto_ns(&c->rtt));
	tcp_store(&i->cwnd_bytes, c->cc.cwnd);
	tcp_store(&i->ssthresh_bytes, cc_ssthresh(&c->cc));
	tcp_store(&i->inflight_bytes, c->snd_nxt - c->snd_una);
	tcp_store(&i->unsent_bytes, seq_after(c->snd_end, c->snd_nxt) ? c->snd_end - c->snd_nxt : 0);
	tcp_store(&i->peer_window_bytes, c->snd_wnd);
	tcp_store(&i->send_buffer_bytes, atomic_load_explicit(&c->app.send_buffer, memory_order_relaxed));
	tcp_store(&i->mss_bytes, c->mss);
	tcp_store(&i->path_mtu, c->path_mtu);
	tcp_store(&i->recovery_state, recovery_state(c));
	tcp_store(&i->outstanding_segments, sents_count(c));
	tcp_store(&i->backoffs, c->rtt.backoffs);
	tcp_store(&i->options, options(c));
	tcp_store(&i->send_wscale, c->snd_wscale);
	tcp_store(&i->receive_wscale, c->rcv_wscale);
	tcp_store(&i->receive_mss, c->rcv_mss);
}

void tcp_set_state(struct xske_tcp_conn *c, uint32_t state)
{
	c->state = state;
	tcp_store(&c->info.state, state);
	if (state == XSKE_TCP_CLOSED) /* said last, see tcp_closed() */
		return;
	atomic_store_explicit(&c->app.state, state, memory_order_seq_cst);
	tcp_signal(c, XSKE_TCP_CHANGED | XSKE_TCP_WRITABLE);
}

/* ---- opening ------------------------------------------------------------------------------------- */

void tcp_start(struct xske_tcp_conn *c)
{
	const struct xske_tcp *t = c->tcp;

	c->iss = isn_of(&t->secret, (const uint8_t *)&c->tuple, sizeof(c->tuple), t->now_ns);
	c->ts_offset = isn_timestamp_offset(&t->secret, (const uint8_t *)&c->tuple, sizeof(c->tuple));
	c->snd_una = c->iss;
	c->snd_nxt = c->snd_end = c->iss + 1;
	c->path_mtu = c->config.mtu;
	c->peer_mss = tcp_is_six(c) ? TCP_DEFAULT_MSS6 : TCP_DEFAULT_MSS4;
	c->rcv_wscale = 0;
	while (c->config.receive_buffer_bytes >> c->rcv_wscale > UINT16_MAX && c->rcv_wscale < TCP_MAX_WSCALE)
		c->rcv_wscale++;
	rtt_init(&c->rtt);
	c->progress_ns = c->last_sent_ns = c->last_received_ns = t->now_ns;
	c->life_end_ns = t->now_ns + c->config.connect_timeout_ns;
	tcp_count(&t->counters->opened_connections, 1);
	tcp_set_state(c, XSKE_TCP_SYN_SENT);
	c->syn_due = true;
	tcp_ready(c);
	tcp_arm_retrans(c);
}

static void set_mss(struct xske_tcp_conn *c)
{
	const struct xske_umem *umem = c->arena->umem;

	c->mss = segment_payload(c);
	atomic_store_explicit(&c->app.block_bytes,
	                      c->header_room ? c->mss : umem->chunk_size - umem->metadata_len,
	                      memory_order_release);
}

void tcp_established(struct xske_tcp_conn *c)
{
	uint64_t first;

	set_mss(c);
	cc_init(&c->cc, c->config.congestion == XSKE_TCP_RENO ? CC_RENO : CC_CUBIC, c->mss);
	if (c->lost_syns > 1) /* one may be late: RFC 6928, 2 */
		c->cc.cwnd = c->mss;
	if (c->lost_syns)
		rtt_syn_timed_out(&c->rtt);
	first = max_u32(FIRST_SEND_BUFFER_BYTES, 4 * c->mss);
	atomic_store_explicit(&c->app.send_buffer, min_u64(first, c->config.send_buffer_bytes),
	                      memory_order_relaxed);
	c->rack.reo_wnd_mult = 1;
	c->rack.fack = c->rack.end_seq = c->snd_una;
	c->recovery_end = c->snd_una;
	c->life_end_ns = 0;
	c->rto_due_ns = 0;
	c->progress_ns = c->tcp->now_ns;
	tcp_count(&c->tcp->counters->established_connections, 1);
	tcp_set_state(c, XSKE_TCP_ESTABLISHED);
	tcp_arm_retrans(c);
	tcp_arm(c, TCP_TIMER_IDLE, c->tcp->now_ns + TCP_IDLE_PARK_NS);
	if (c->config.flags & XSKE_TCP_CONN_KEEPALIVE)
		tcp_arm(c, TCP_TIMER_KEEPALIVE, c->tcp->now_ns + c->config.keepalive_idle_ns);
	tcp_ready(c);
}

/* ---- ending -------------------------------------------------------------------------------------- */

void tcp_fail(struct xske_tcp_conn *c, int err)
{
	if (c->state == XSKE_TCP_CLOSED)
		return;
	for (int kind = 0; kind < TCP_TIMERS; kind++)
		tcp_disarm(c, (enum tcp_timer_kind)kind);
	c->retrans = TCP_RETRANS_NONE;
	c->syn_due = c->reset_due = c->ack_now = false;
	sendq_free(c);
	atomic_store_explicit(&c->app.error, (uint32_t)err, memory_order_relaxed);
	tcp_publish(c);
	tcp_set_state(c, XSKE_TCP_CLOSED);
	tcp_count(&c->tcp->counters->closed_connections, 1);
	xske_arena_park_if_idle(c->arena);
	tcp_unlink(c);
}

void tcp_closed(struct xske_tcp_conn *c)
{
	/* Whoever waits for anything must look. tcp_signal() reads the connection: it comes before the word that lets
	 * its application destroy it, and the loop writes its event at the end of the turn. */
	if (!c->fin_received)
		atomic_store_explicit(&c->app.at_end, TCP_END_OF_CONNECTION, memory_order_release);
	tcp_signal(c, UINT32_MAX);
	c->tcp->loop->signal = true; /* who comes between these two and waits is woken, too */
	atomic_store_explicit(&c->app.state, XSKE_TCP_CLOSED, memory_order_release);
}

/* A peer that knows of the connection (RFC 9293, 3.10.5). */
static bool has_a_peer(const struct xske_tcp_conn *c)
{
	return c->state >= XSKE_TCP_SYN_RECEIVED && c->state < XSKE_TCP_TIME_WAIT;
}

void tcp_abort(struct xske_tcp_conn *c, int err)
{
	if (c->state == XSKE_TCP_CLOSED)
		return;
	if (has_a_peer(c) && tcp_send_control(c, TCP_RST | TCP_ACK, tcp_seq_to_say(c))) {
		c->reset_due = true;
		c->abort_error = err;
		tcp_ready(c);
		return;
	}
	tcp_fail(c, err);
}

static void live_until(struct xske_tcp_conn *c, uint64_t end_ns)
{
	c->life_end_ns = end_ns;
	c->retrans = TCP_RETRANS_LIFE;
	tcp_arm(c, TCP_TIMER_RETRANS, end_ns);
}

/* Also anew, when the peer's FIN comes again (RFC 9293, 3.10.7.4). */
static void time_wait(struct xske_tcp_conn *c)
{
	tcp_set_state(c, XSKE_TCP_TIME_WAIT);
	tcp_disarm(c, TCP_TIMER_KEEPALIVE);
	live_until(c, c->tcp->now_ns + c->config.time_wait_ns);
}

void tcp_fin_is_sent(struct xske_tcp_conn *c)
{
	if (c->state == XSKE_TCP_ESTABLISHED)
		tcp_set_state(c, XSKE_TCP_FIN_WAIT_1);
	else if (c->state == XSKE_TCP_CLOSE_WAIT)
		tcp_set_state(c, XSKE_TCP_LAST_ACK);
}

void tcp_fin_is_acked(struct xske_tcp_conn *c)
{
	switch (c->state) {
	case XSKE_TCP_FIN_WAIT_1:
		tcp_set_state(c, XSKE_TCP_FIN_WAIT_2);
		/* A peer that never closes must not keep what nobody reads (RFC 9293, 3.6.1; tcp_fin_timeout of Linux). */
		if (c->app_gone)
			live_until(c, c->tcp->now_ns + c->config.time_wait_ns);
		break;
	case XSKE_TCP_CLOSING:
		time_wait(c);
		break;
	case XSKE_TCP_LAST_ACK:
		tcp_fail(c, 0);
		break;
	default:
		break;
	}
}

void tcp_fin_has_come(struct xske_tcp_conn *c)
{
	c->fin_received = true;
	atomic_store_explicit(&c->app.at_end, TCP_END_OF_STREAM, memory_order_seq_cst);
	tcp_signal(c, XSKE_TCP_READABLE);
	switch (c->state) {
	case XSKE_TCP_ESTABLISHED:
		tcp_set_state(c, XSKE_TCP_CLOSE_WAIT);
		break;
	case XSKE_TCP_FIN_WAIT_1: /* had ours been acknowledged, it were FIN_WAIT_2 */
		tcp_set_state(c, XSKE_TCP_CLOSING);
		break;
	case XSKE_TCP_FIN_WAIT_2:
	case XSKE_TCP_TIME_WAIT:
		time_wait(c);
		break;
	default:
		break;
	}
}

/* ---- what the application wants ------------------------------------------------------------------- */

static bool has_unread(const struct xske_tcp_conn *c)
{
	return atomic_load_explicit(&c->app.receive_head, memory_order_relaxed) !=
	       atomic_load_explicit(&c->app.receive_tail, memory_order_acquire);
}

static void shut(struct xske_tcp_conn *c)
{
	c->fin_wanted = true;
	tcp_ready(c);
}

static void leave(struct xske_tcp_conn *c)
{
	if (c->app_gone)
		return;
	c->app_gone = true;
	if (c->state == XSKE_TCP_SYN_SENT) /* RFC 9293, 3.10.4: nobody knows of it */
		tcp_fail(c, ECONNABORTED);
	else if (has_unread(c)) /* the peer must know that it was not read: RFC 2525, 2.17 */
		tcp_abort(c, ECONNABORTED);
	else if (c->state == XSKE_TCP_FIN_WAIT_2)
		live_until(c, c->tcp->now_ns + c->config.time_wait_ns);
	else
		shut(c);
}

void tcp_take_wants(struct xske_tcp_conn *c, uint32_t wants)
{
	if (wants & TCP_WANTS_ABORT) {
		tcp_abort(c, ECONNABORTED);
		return;
	}
	if (c->state == XSKE_TCP_CLOSED)
		return;
	if (wants & TCP_WANTS_WINDOW)
		tcp_tell_window(c);
	if (wants & TCP_WANTS_SHUTDOWN)
		shut(c);
	if (wants & TCP_WANTS_CLOSE)
		leave(c);
}

/* ---- the path ------------------------------------------------------------------------------------ */

/* Segments that are too long now go again at once, and no congestion is meant by it (RFC 1191, 6.4). */
void tcp_set_path_mtu(struct xske_tcp_conn *c, uint32_t mtu)
{
	uint32_t before = c->mss;

	mtu = max_u32(mtu, tcp_is_six(c) ? TCP_MIN_PMTU6 : TCP_MIN_PMTU4);
	if (mtu >= c->path_mtu)
		return;
	c->path_mtu = mtu;
	if (c->state < XSKE_TCP_ESTABLISHED)
		return;
	set_mss(c);
	if (c->mss >= before)
		return;
	cc_on_mss(&c->cc, c->mss, c->tcp->now_ns);
	for (uint32_t i = 0; i < sents_count(c); i++) {
		struct sent *s = sents_at(c, i);

		if (s->len - !!(s->flags & SENT_FIN) <= c->mss)
			continue;
		recovery_mark_lost(c, s);
		s->flags |= SENT_TOO_LONG;
	}
	if (!sents_split(c, c->mss)) {
		tcp_abort(c, ENOMEM);
		return;
	}
	c->resend_now = c->lost_bytes;
	tcp_ready(c);
}

/* RFC 1191, 7.1: what networks there are, where a router does not say. */
static uint32_t next_plateau(uint32_t mtu)
{
	static const uint32_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508};

	for (uint32_t i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++)
		if (plateaus[i] < mtu)
			return plateaus[i];
	return TCP_MIN_PMTU4;
}

static int error_of(const struct segment *s, bool six)
{
	static const uint8_t four[] = {ENETUNREACH,  EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED,
	                               EHOSTUNREACH, EHOSTUNREACH, ENETUNREACH, EHOSTUNREACH};
	static const uint8_t unreachable6[] = {ENETUNREACH, EACCES, EHOSTUNREACH, EHOSTUNREACH, ECONNREFUSED};

	if (six) {
		if (s->icmp_type == 1)
			return s->icmp_code < sizeof(unreachable6) ? unreachable6[s->icmp_code] : EACCES;
		return s->icmp_type == 4 ? EPROTO : EHOSTUNREACH;
	}
	if (s->icmp_type == 3)
		return s->icmp_code < sizeof(four) ? four[s->icmp_code] : EHOSTUNREACH;
	return s->icmp_type == 12 ? EPROTO : EHOSTUNREACH;
}

void tcp_icmp(struct xske_tcp_conn *c, const struct segment *s, enum segment_kind kind)
{
	/* About nothing that is under way: forged, or too late (RFC 5927, 4.1). */
	if (seq_before(s->seq, c->snd_una) || !seq_before(s->seq, c->snd_nxt))
		return;
	tcp_count(&c->info.icmp_messages, 1);
	if (kind == SEGMENT_TOO_BIG) {
		tcp_set_path_mtu(c, s->mtu ? s->mtu : next_plateau(c->path_mtu));
		return;
	}
	/* While connecting nobody waits for what a route may become (RFC 5461, 4.1); later it is remembered for when
	 * patience ends (RFC 1122, 4.2.3.9). */
	c->soft_error = (uint32_t)error_of(s, tcp_is_six(c));
	if (c->state == XSKE_TCP_SYN_SENT)
		tcp_fail(c, (int)c->soft_error);
}
