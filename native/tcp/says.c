/* SPDX-License-Identifier: MIT */
/*
 * says.c - what every segment says of this end: its header, the window that the peer may fill, and ACKs that are owed. And
 * segments that say nothing else.
 */
#include "tcp.h"

/* RFC 9293, 3.8.6.2.2: the right edge moves by a full segment or half the buffer, or it stays; it is never taken
 * back. The rounding of a scaled window may not do so either (RFC 7323, 2.4). */
static uint32_t window_to_tell(const struct xske_tcp_conn *c)
{
	uint32_t told = seq_after(c->rcv_adv, c->rcv_nxt) ? c->rcv_adv - c->rcv_nxt : 0;
	uint32_t room = tcp_receive_room(c), unit = 1u << c->rcv_wscale;
	uint32_t step = min_u32((c->app.receive_mask + 1) / 2, c->rcv_mss);
	uint32_t most = (uint32_t)UINT16_MAX << c->rcv_wscale, window;

	if (room <= told || room - told < step)
		window = told;
	else
		window = room & ~(unit - 1);
	if (window < told || window % unit)
		window = align_up(told, unit);
	return min_u32(window, most);
}

void tcp_fill(struct xske_tcp_conn *c, struct segment_out *o, uint8_t flags, uint32_t seq)
{
	bool syn = flags & TCP_SYN;

	*o = (struct segment_out){
	        .header = &c->config.header,
	        .seq = seq,
	        .ack = flags & TCP_ACK ? c->rcv_nxt : 0,
	        .local_port = c->config.local_port,
	        .remote_port = c->config.remote_port,
	        .flags = flags,
	        .wscale = SEGMENT_NO_WSCALE,
	        .has_timestamp = c->timestamps_ok || (syn && !(flags & TCP_ACK)),
	        .ts_val = tcp_stamp(c),
	        .ts_ecr = flags & TCP_ACK ? c->ts_recent : 0,
	};
	if (syn) {
		bool answer =
		        flags & TCP_ACK; /* what the peer has not offered is not offered (RFC 7323, 2.2) */

		o->window = (uint16_t)min_u32(tcp_receive_room(c), UINT16_MAX);
		o->mss = (uint16_t)(c->config.mtu - (tcp_is_six(c) ? 40 : 20) - 20); /* RFC 6691 */
		o->sack_permitted = !answer || c->sack_ok;
		o->wscale = !answer || c->wscale_ok ? c->rcv_wscale : SEGMENT_NO_WSCALE;
	} else if (flags & TCP_ACK) {
		o->window = (uint16_t)(window_to_tell(c) >> c->rcv_wscale);
	}
}

/* They are on their way, and with them what they acknowledge and tell. */
void tcp_was_sent(struct xske_tcp_conn *c, const struct segment_out *o, uint32_t segments, uint32_t payload)
{
	uint32_t scale = o->flags & TCP_SYN ? 0 : c->rcv_wscale;

	tcp_count(&c->info.sent_segments, segments);
	tcp_count(&c->info.sent_bytes, payload);
	c->last_sent_ns = c->tcp->now_ns;
	if (!(o->flags & TCP_ACK))
		return;
	c->last_ack_sent = o->ack;
	c->rcv_adv = seq_max(c->rcv_adv, o->ack + ((uint32_t)o->window << scale));
	c->ack_now = c->ack_delayed = false;
	/* Told that it is small, the application says when it has read (see xske_tcp_read()). It may have done so
	 * just now. */
	if (c->rcv_adv - c->rcv_nxt <= c->app.receive_mask / 2) {
		atomic_store_explicit(&c->app.window_closed, 1, memory_order_seq_cst);
		tcp_tell_window(c);
	}
}

uint32_t tcp_seq_to_say(const struct xske_tcp_conn *c)
{
	uint64_t out = c->snd_nxt - c->snd_una;

	return out < c->snd_wnd + (1ull << c->snd_wscale) ? c->snd_nxt : c->snd_una + (uint32_t)c->snd_wnd;
}

int tcp_send_control(struct xske_tcp_conn *c, uint8_t flags, uint32_t seq)
{
	struct segment_out o;
	int err;

	tcp_fill(c, &o, flags, seq);
	err = tcp_post(c, &o, 0, false);
	if (!err)
		tcp_was_sent(c, &o, 1, 0);
	return err;
}

void tcp_tell_window(struct xske_tcp_conn *c)
{
	uint32_t told = seq_after(c->rcv_adv, c->rcv_nxt) ? c->rcv_adv - c->rcv_nxt : 0;

	if (c->state < XSKE_TCP_ESTABLISHED || c->state == XSKE_TCP_CLOSED || c->fin_received)
		return;
	if (window_to_tell(c) - told >= min_u32((c->app.receive_mask + 1) / 2, 2 * c->rcv_mss)) {
		atomic_store_explicit(&c->app.window_closed, 0, memory_order_relaxed);
		c->ack_now = true;
		tcp_ready(c);
	}
}

void tcp_challenge(struct xske_tcp_conn *c)
{
	uint64_t now = c->tcp->now_ns;

	if (now - c->challenge_since_ns >= NSEC_PER_SEC || !c->challenge_since_ns) {
		c->challenge_since_ns = now;
		c->challenges = 0;
	}
	if (c->challenges >= TCP_CHALLENGES_PER_SECOND)
		return;
	c->challenges++;
	c->ack_now = true;
	tcp_count(&c->info.challenge_acks, 1);
	tcp_ready(c);
}
