/* SPDX-License-Identifier: MIT */
/* open.c - a connection comes to be, and goes when the loop has forgotten it: its application's calls. */
#include <errno.h>
#include <stdlib.h>

#include "../datagram.h"
#include "tcp.h"

/* What is not acknowledged, or not read: sequence numbers of it must be comparable (seq.h), with room for what is under
 * way in both directions. */
#define MOST_BUFFER_BYTES (1u << 30)
#define CONN_FLAGS (XSKE_TCP_CONN_NODELAY | XSKE_TCP_CONN_KEEPALIVE | XSKE_TCP_CONN_PACING)
#define ETHERNET_BYTES 14u

/* In front of payload: the header of any segment with data, so that payload begins at a multiple of 8, as copies like
 * it. */
static uint32_t room_in_front(const struct xske_tcp_conn_config *config)
{
	return align_up(config->header.len + 20 + TCP_TIMESTAMP_BYTES, 8);
}

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static bool header_is_fit(const struct xske_header *h)
{
	uint32_t ip_bytes;

	if (h->len > XSKE_HEADER_BYTES || h->ip_offset % 2 || h->ip_offset < ETHERNET_BYTES ||
	    h->ip_offset >= h->len)
		return false;
	ip_bytes = is_ipv6(h) ? 40 : 20;
	return h->ip_offset + ip_bytes == h->len;
}

static bool config_is_fit(const struct xske_tcp *tcp, const struct xske_tcp_conn_config *config)
{
	const struct xske_txq *q = tcp->loop->txq;
	bool six = is_ipv6(&config->header);

	return config->arena && config->arena->umem == q->umem && config->arena->txq_id == q->id &&
	       !(config->arena->flags & XSKE_ARENA_LOOP_OWNED) && !(config->flags & ~CONN_FLAGS) &&
	       header_is_fit(&config->header) && config->local_port && config->remote_port &&
	       config->mtu >= (six ? TCP_MIN_PMTU6 : 576u) && config->mtu <= 65535 &&
	       is_power_of_two(config->entries) && config->entries >= 2 &&
	       is_power_of_two(config->receive_buffer_bytes) && config->receive_buffer_bytes >= 4096 &&
	       config->receive_buffer_bytes <= MOST_BUFFER_BYTES && config->send_buffer_bytes &&
	       config->send_buffer_bytes <= MOST_BUFFER_BYTES && config->connect_timeout_ns &&
	       (!(config->flags & XSKE_TCP_CONN_KEEPALIVE) ||
	        (config->keepalive_idle_ns && config->keepalive_interval_ns)) &&
	       (config->congestion == XSKE_TCP_RENO || config->congestion == XSKE_TCP_CUBIC);
}

static void set_tuple(struct xske_tcp_conn *c)
{
	const struct xske_header *h = &c->config.header;
	const uint8_t *ip = (const uint8_t *)h->words + h->ip_offset;
	bool six = is_ipv6(h);

	memcpy(c->tuple.local, six ? ip + 8 : ip + 12, six ? 16 : 4);
	memcpy(c->tuple.remote, six ? ip + 24 : ip + 16, six ? 16 : 4);
	c->tuple.local_port = c->config.local_port;
	c->tuple.remote_port = c->config.remote_port;
	c->tuple.version = six ? 6 : 4;
}

/* A block is a segment with room in front where the longest one fits into a chunk; and where a packet is one desc it
 * has to. */
static uint32_t choose_room(const struct xske_tcp *tcp, const struct xske_tcp_conn_config *config)
{
	const struct xske_umem *umem = tcp->loop->txq->umem;
	uint32_t front = room_in_front(config), ip_bytes = is_ipv6(&config->header) ? 40 : 20;
	uint32_t longest = front + config->mtu - ip_bytes - 20 + umem->metadata_len;

	return longest <= umem->chunk_size || !(tcp->config.flags & XSKE_TCP_MULTI_BUFFER) ? front : 0;
}

static void free_conn(void *conn)
{
	struct xske_tcp_conn *c = conn;

	free(c->app.submits.slots);
	free(c->app.received);
	free(c);
}

int xske_tcp_open(struct xske_tcp *tcp, const struct xske_tcp_conn_config *config, struct xske_tcp_conn **out)
{
	struct xske_tcp_conn *c;

	if (!config_is_fit(tcp, config))
		return -EINVAL;
	c = aligned_alloc(XSKE_CACHE_LINE, align_up(sizeof(*c), XSKE_CACHE_LINE));
	if (!c)
		return -ENOMEM;
	memset(c, 0, sizeof(*c));
	c->tcp = tcp;
	c->arena = config->arena;
	c->config = *config;
	c->header_room = choose_room(tcp, config);
	set_tuple(c);
	for (int kind = 0; kind < TCP_TIMERS; kind++) {
		c->timers[kind].conn = c;
		c->timers[kind].kind = (enum tcp_timer_kind)kind;
	}
	c->arena->flags |= ARENA_PIECES;
	/* Untouched pages cost nothing: a connection that receives little takes little. */
	c->app.received = malloc(config->receive_buffer_bytes);
	c->app.receive_mask = config->receive_buffer_bytes - 1;
	if (!c->app.received || !spsc_init(&c->app.submits, config->entries)) {
		free_conn(c);
		return -ENOMEM;
	}
	*out = c;
	return 0;
}

void tcp_bury(struct xske_tcp_conn *c)
{
	struct xske_loop *l = c->tcp->loop;

	c->grave = (struct grave){.free = free_conn, .object = c};
	graveyard_bury(&l->dead, &l->txq->umem->lock, &c->grave);
}

void xske_tcp_conn_destroy(struct xske_tcp_conn *c)
{
	if (!c)
		return;
	/* Who comes too late finds it closed. */
	c->app.closed = c->app.shutdown_called = true;
	atomic_store_explicit(&c->app.state, XSKE_TCP_CLOSED, memory_order_release);
	app_drop_submits(c); /* one that crossed its end */
	/* Acq_rel: pairs with take_pending(). A hand-over that crossed its end has left it on the list, and the loop may be
	 * away for longer than a grave lasts. */
	if (!(atomic_fetch_or_explicit(&c->queued, QUEUED_DEAD, memory_order_acq_rel) & QUEUED_PENDING))
		tcp_bury(c);
}

int xske_tcp_connect(struct xske_tcp_conn *c)
{
	struct xske_tcp *t = c->tcp;
	int err;

	if (xske_tcp_state(c) != XSKE_TCP_NEW)
		return -EISCONN;
	if (atomic_fetch_add_explicit(&t->opened, 1, memory_order_relaxed) >= t->config.max_connections) {
		atomic_fetch_sub_explicit(&t->opened, 1, memory_order_relaxed);
		return -ENOBUFS;
	}
	/* From now on it is the loop's, which has not seen it yet: it must not be destroyed meanwhile. */
	atomic_store_explicit(&c->app.state, XSKE_TCP_SYN_SENT, memory_order_relaxed);
	err = xske_loop_command(t->loop, XSKE_COMMAND_CONNECT, c);
	if (err) {
		atomic_store_explicit(&c->app.state, XSKE_TCP_NEW, memory_order_relaxed);
		atomic_fetch_sub_explicit(&t->opened, 1, memory_order_relaxed);
	}
	return err;
}
