/* SPDX-License-Identifier: MIT */
/* arrive.c - what devices bring: the receive rings of all queues, in the loop's own thread. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "../rxq.h"
#include "tcp.h"

/* Packets of a queue in a turn. Lower: more turns; higher: what is to be sent waits for them. */
#define BATCH 64u
/* Told apart from txqs: a completion must not pass for something received, nor the other way round. */
#define RECEIVE_ID 0x80000000u

static void count_kind(struct xske_tcp *t, enum segment_kind kind)
{
	struct xske_tcp_counters *n = t->counters;

	if (kind == SEGMENT_BAD_CSUM)
		tcp_count(&n->bad_csum_packets, 1);
	else if (kind == SEGMENT_MALFORMED)
		tcp_count(&n->malformed_packets, 1);
	else
		tcp_count(&n->foreign_packets, 1);
}

static void packet(void *ctx, const struct piece *pieces, uint32_t n)
{
	struct xske_tcp *t = ctx;
	struct segment s;
	enum segment_kind kind = segment_read(pieces, n, true, &s);
	struct xske_tcp_conn *c;

	if (kind != SEGMENT_TCP && kind != SEGMENT_TOO_BIG && kind != SEGMENT_UNREACHABLE) {
		count_kind(t, kind);
		return;
	}
	c = tcp_find(t, &s.tuple);
	if (!c) {
		tcp_count(&t->counters->stray_packets, 1);
	} else if (kind == SEGMENT_TCP) {
		if (s.csum_partial)
			tcp_count(&t->counters->csum_partial_packets, 1);
		tcp_input(c, &s);
	} else {
		tcp_count(&t->counters->icmp_packets, 1);
		tcp_icmp(c, &s, kind);
	}
}

bool tcp_arrive(struct xske_tcp *t)
{
	uint32_t descs = 0;

	for (uint32_t i = 0; i < t->config.queue_count; i++) {
		struct rxq *q = &t->queues[i];
		uint32_t n = min_u32(xsk_cons_nb_avail(&q->rx, BATCH), BATCH);

		if (n)
			descs += rxq_take(q, n, packet, t, &t->arrived);
		else if (unlikely(q->back_count))
			rxq_refill(q);
		/* A driver that has stopped for want of chunks (see receive.c). */
		if (unlikely(rxq_wants_wakeup(q)) && !n)
			recvfrom(q->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	}
	if (!descs)
		return false;
	t->active_ns = t->now_ns;
	tcp_store(&t->counters->received_packets, t->arrived.packets);
	tcp_store(&t->counters->received_bytes, t->arrived.bytes);
	tcp_store(&t->counters->bad_descs, t->arrived.bad_descs);
	tcp_store(&t->counters->bad_addr, t->arrived.bad_addr);
	return true;
}

/* What the caller has put on the ring: all its entries, wherever the kernel has got to meanwhile. */
static int adopt_queue(struct xske_tcp *t, struct rxq *q)
{
	for (uint32_t n = 0; n < q->fill.size; n++) {
		struct chunk *c = chunk_of(q->umem, *xsk_ring_prod__fill_addr(&q->fill, n));

		if (!c || c->inflight)
			return -EINVAL;
		c->txq_id = q->id;
		c->inflight = 1;
		t->chunks[t->chunk_count++] = c;
	}
	return 0;
}

static int fill_queue(struct xske_tcp *t, struct rxq *q)
{
	for (uint32_t n = 0; n < q->fill.size; n++) {
		uint64_t addr;
		int err = xske_frag_alloc(t->config.receive_arena,
		                          q->umem->chunk_size - q->umem->metadata_len, &addr);

		if (err)
			return err;
		t->chunks[t->chunk_count] = chunk_of(q->umem, addr);
		rxq_add(q, t->chunks[t->chunk_count++]);
	}
	rxq_refill(q);
	return 0;
}

int arrive_open(struct xske_tcp *t)
{
	struct xske_umem *umem = t->loop->txq->umem;
	uint32_t chunks = 1;
	int err = 0;

	for (uint32_t i = 0; i < t->config.queue_count; i++)
		chunks += t->config.queues[i].fill.size;
	t->queues = calloc(t->config.queue_count + 1, sizeof(*t->queues));
	t->fds = calloc(t->config.queue_count + 1, sizeof(*t->fds));
	t->chunks = calloc(chunks, sizeof(*t->chunks));
	if (!t->queues || !t->fds || !t->chunks)
		return -ENOMEM;
	t->fds[0] = (struct pollfd){.fd = t->loop->config.wake_fd, .events = POLLIN};
	for (uint32_t i = 0; !err && i < t->config.queue_count; i++) {
		t->fds[i + 1] = (struct pollfd){.fd = t->config.queues[i].fd, .events = POLLIN};
		err = rxq_init(&t->queues[i], umem, &t->config.queues[i], RECEIVE_ID | i);
		if (!err)
			err = t->config.receive_arena ? fill_queue(t, &t->queues[i])
			                              : adopt_queue(t, &t->queues[i]);
	}
	return err;
}

void arrive_close(struct xske_tcp *t)
{
	for (uint32_t i = 0; i < t->chunk_count; i++) {
		t->chunks[i]->inflight = 0;
		t->chunks[i]->txq_id = t->loop->txq->id;
		frag_unref(t->config.receive_arena, t->chunks[i]);
	}
	for (uint32_t i = 0; t->queues && i < t->config.queue_count; i++)
		rxq_free(&t->queues[i]);
	free(t->chunks);
	free(t->fds);
	free(t->queues);
}
