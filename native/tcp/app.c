/* SPDX-License-Identifier: MIT */
/*
 * app.c - the application's side of a connection: its thread copies into blocks or fills them in place, hands them over,
 * reads what has come, and says what it wants. The loop is never waited for. Calls that write enter the arena, so that a
 * second thread gets -EBUSY.
 */
#include <errno.h>

#include "tcp.h"

/* Bytes of one write after which the loop may begin with them. Lower: it is woken for little; higher: it waits, and so
 * does the wire. 64 KiB take some 10 us to copy. */
#define HAND_OVER_BYTES (64u << 10)

/* Of a connection that has ended, by whoever is the ring's last reader. */
void app_drop_submits(struct xske_tcp_conn *c)
{
	uint32_t first, ready = spsc_ready(&c->app.submits, &first);

	for (uint32_t i = 0; i < ready; i++)
		frag_unref(NULL, chunk_of(c->arena->umem,
		                          c->app.submits.slots[(first + i) & c->app.submits.mask].addr));
	spsc_pop(&c->app.submits, ready);
}

static bool loop_has_ended(const struct xske_tcp_conn *c)
{
	return atomic_load_explicit(&c->tcp->loop->ended, memory_order_acquire);
}

/* Wakes the loop, which then takes submits and wants. */
static void hand_over(struct xske_tcp_conn *c)
{
	struct xske_tcp *t = c->tcp;
	struct xske_tcp_conn *head;

	/* Acq_rel: pairs with the loop's, which clears it before it looks. */
	if (!atomic_fetch_or_explicit(&c->queued, QUEUED_PENDING, memory_order_acq_rel)) {
		head = atomic_load_explicit(&t->pending, memory_order_relaxed);
		do {
			c->next_pending = head;
		} while (!atomic_compare_exchange_weak_explicit(&t->pending, &head, c, memory_order_release,
		                                                memory_order_relaxed));
	}
	loop_wake(t->loop);
}

static void want(struct xske_tcp_conn *c, uint32_t what)
{
	atomic_fetch_or_explicit(&c->app.wants, what, memory_order_release);
	hand_over(c);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static int ended_by(const struct xske_tcp_conn *c)
{
	int err = xske_tcp_error(c);

	return err ? -err : -EPIPE;
}

/* Enters the arena of a connection that may write; or why not. */
static int enter(struct xske_tcp_conn *c)
{
	int state = xske_tcp_state(c), err;

	if (state == XSKE_TCP_CLOSED || loop_has_ended(c))
		return ended_by(c);
	if (c->app.shutdown_called)
		return -EPIPE;
	if (!atomic_load_explicit(&c->app.block_bytes, memory_order_acquire))
		return state == XSKE_TCP_NEW || state < XSKE_TCP_ESTABLISHED ? -ENOTCONN : -EPIPE;
	err = xske_arena_enter(c->arena);
	if (!err)
		c->app.chunks_short = false;
	return err;
}

/* Of `len` bytes, those that are taken with so much room: whole blocks when it is not all of them, or every write would
 * leave an odd one. With nothing outstanding whatever there is room for, as no more will come. */
static uint64_t to_take(const struct xske_tcp_conn *c, uint64_t len, uint64_t room)
{
	uint32_t block = atomic_load_explicit(&c->app.block_bytes, memory_order_relaxed);

	if (len <= room)
		return len;
	return room < block && c->app.submitted_bytes ==
	                               atomic_load_explicit(&c->app.acked_bytes, memory_order_relaxed)
	               ? room
	               : room / block * block;
}

/* Bytes that the send buffer has room for. */
static uint64_t room(const struct xske_tcp_conn *c)
{
	const struct tcp_app *a = &c->app;
	uint64_t held = a->submitted_bytes - atomic_load_explicit(&a->acked_bytes, memory_order_acquire);
	uint64_t most = atomic_load_explicit(&a->send_buffer, memory_order_relaxed);

	return most > held ? most - held : 0;
}

static bool is_summed(const struct xske_tcp_conn *c)
{
	return !(c->tcp->config.flags & XSKE_TCP_OFFLOAD);
}

/* The submit ring has room for it. */
static void submit(struct xske_tcp_conn *c, uint64_t addr, uint32_t len, uint32_t sum)
{
	spsc_put(&c->app.submits, &(struct xske_desc){.addr = addr, .len = len, .options = sum});
	__atomic_store_n(&c->app.submitted_bytes, c->app.submitted_bytes + len, __ATOMIC_RELAXED);
}

/* Who awaits room already may not have asked for chunks to be told of: that is done now, and looked again. */
static int COLD alloc_short(struct xske_tcp_conn *c, uint32_t len, uint64_t *addr, int err)
{
	c->app.chunks_short = true;
	if (!(atomic_load_explicit(&c->app.awaits, memory_order_relaxed) & XSKE_TCP_WRITABLE))
		return err;
	xske_arena_await(c->arena);
	return arena_alloc(c->arena, len, addr);
}

/* A frag for a block. */
static inline int alloc(struct xske_tcp_conn *c, uint32_t len, uint64_t *addr)
{
	int err = arena_alloc(c->arena, len, addr);

	return likely(!err) ? 0 : alloc_short(c, len, addr, err);
}

/* Copies up to `most` bytes into blocks; how many, or an error for the first one. What is handed over on the way is sent
 * while the rest is copied. */
static int64_t copy_blocks(struct xske_tcp_conn *c, const uint8_t *bytes, uint64_t most)
{
	const uint32_t block = atomic_load_explicit(&c->app.block_bytes, memory_order_relaxed);
	const uint32_t header_room = c->header_room;
	const bool summed = is_summed(c);
	uint8_t *area = c->arena->umem->area;
	uint64_t taken = 0, next = HAND_OVER_BYTES;
	uint32_t slots = spsc_room(&c->app.submits);
	int err = slots ? 0 : -EAGAIN;

	for (; taken < most && slots; slots--) {
		uint32_t part = (uint32_t)min_u64(most - taken, block), sum = 0;
		uint64_t addr;

		err = alloc(c, header_room + part, &addr);
		if (unlikely(err))
			break;
		addr += header_room;
		if (summed)
			sum = (uint32_t)csum_copy(area + addr, bytes + taken, part);
		else
			memcpy(area + addr, bytes + taken, part);
		submit(c, addr, part, sum);
		taken += part;
		if (taken >= next) {
			hand_over(c);
			next = taken + HAND_OVER_BYTES;
		}
	}
	return taken ? (int64_t)taken : err;
}

int64_t xske_tcp_write(struct xske_tcp_conn *c, const uint8_t *bytes, uint64_t len)
{
	int64_t taken = enter(c);
	uint64_t most;

	if (taken)
		return taken;
	most = to_take(c, len, room(c));
	taken = !most && len ? -EAGAIN : copy_blocks(c, bytes, most);
	xske_arena_leave(c->arena);
	if (taken > 0)
		hand_over(c);
	return taken;
}

int xske_tcp_alloc(struct xske_tcp_conn *c, uint64_t *addr, uint32_t *bytes)
{
	int err = enter(c);

	if (err)
		return err;
	*bytes = atomic_load_explicit(&c->app.block_bytes, memory_order_relaxed);
	err = room(c) ? alloc(c, c->header_room + *bytes, addr) : -EAGAIN;
	xske_arena_leave(c->arena);
	if (!err)
		*addr += c->header_room;
	return err;
}

/* A block of this connection's arena, as xske_tcp_alloc() gave it. */
static bool is_block(const struct xske_tcp_conn *c, uint64_t addr, uint32_t len)
{
	const struct xske_umem *umem = c->arena->umem;
	const struct chunk *h;

	if (!chunk_holds_desc(umem, addr, len) ||
	    (addr & (umem->chunk_size - 1)) < umem->metadata_len + c->header_room)
		return false;
	h = chunk_of(umem, addr);
	return atomic_load_explicit(&h->refs, memory_order_relaxed) && chunk_arena(h) == c->arena;
}

int xske_tcp_submit(struct xske_tcp_conn *c, uint64_t addr, uint32_t len)
{
	int err;

	if (!is_block(c, addr, len))
		return -EINVAL;
	err = enter(c);
	if (err)
		return err;
	if (spsc_room(&c->app.submits))
		submit(c, addr, len,
		       is_summed(c) ? (uint32_t)csum_bytes(c->arena->umem->area + addr, len) : 0);
	else
		err = -EAGAIN;
	xske_arena_leave(c->arena);
	if (!err)
		hand_over(c);
	return err;
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* The peer has been told of a small window, and there is room again: the loop tells it (says.c, tcp_was_sent()), and takes
 * the mark back only then: it may find that the window would not move far enough, and reading goes on. */
static void tell_window(struct xske_tcp_conn *c)
{
	struct tcp_app *a = &c->app;

	/* seq_cst: pairs with the loop's store of the flag, then load of the tail. */
	if (atomic_load_explicit(&a->window_closed, memory_order_seq_cst) &&
	    tcp_receive_room(c) >= (a->receive_mask + 1) / 2)
		want(c, TCP_WANTS_WINDOW);
}

int64_t xske_tcp_read(struct xske_tcp_conn *c, uint8_t *to, uint64_t len)
{
	struct tcp_app *a = &c->app;
	/* at_end first: what came before it is seen then. */
	uint32_t end = atomic_load_explicit(&a->at_end, memory_order_acquire);
	uint64_t head = atomic_load_explicit(&a->receive_head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&a->receive_tail, memory_order_relaxed);
	uint32_t at = (uint32_t)tail & a->receive_mask, n = (uint32_t)min_u64(head - tail, len), first;

	if (!n && len) {
		if (end == TCP_END_OF_STREAM)
			return 0;
		if (end == TCP_END_OF_CONNECTION || loop_has_ended(c))
			return ended_by(c);
		return xske_tcp_state(c) < XSKE_TCP_ESTABLISHED ? -ENOTCONN : -EAGAIN;
	}
	first = min_u32(n, a->receive_mask + 1 - at);
	memcpy(to, a->received + at, first);
	memcpy(to + first, a->received, n - first);
	/* Release: the bytes are read out. seq_cst: then look whether the loop is to be told. */
	atomic_store_explicit(&a->receive_tail, tail + n, memory_order_seq_cst);
	tell_window(c);
	return n;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

int xske_tcp_shutdown(struct xske_tcp_conn *c)
{
	if (xske_tcp_state(c) == XSKE_TCP_NEW)
		return -ENOTCONN;
	if (xske_tcp_state(c) == XSKE_TCP_CLOSED || loop_has_ended(c))
		return ended_by(c);
	if (c->app.shutdown_called)
		return 0;
	c->app.shutdown_called = true;
	want(c, TCP_WANTS_SHUTDOWN);
	return 0;
}

/* The loop knows nothing of one that is new. */
static bool is_running(const struct xske_tcp_conn *c)
{
	int state = xske_tcp_state(c);

	return state != XSKE_TCP_NEW && state != XSKE_TCP_CLOSED && !loop_has_ended(c);
}

int xske_tcp_close(struct xske_tcp_conn *c)
{
	if (c->app.closed || !is_running(c))
		return 0;
	c->app.closed = c->app.shutdown_called = true;
	want(c, TCP_WANTS_CLOSE);
	return 0;
}

int xske_tcp_abort(struct xske_tcp_conn *c)
{
	if (is_running(c))
		want(c, TCP_WANTS_ABORT);
	return 0;
}

int xske_tcp_state(const struct xske_tcp_conn *c)
{
	return (int)atomic_load_explicit(&c->app.state, memory_order_acquire);
}

int xske_tcp_error(const struct xske_tcp_conn *c)
{
	return (int)atomic_load_explicit(&c->app.error, memory_order_relaxed);
}

void xske_tcp_set_mac(struct xske_tcp_conn *c, const uint8_t mac[6])
{
	xske_header_set_mac(&c->config.header, mac);
}

void xske_tcp_await(struct xske_tcp_conn *c, uint32_t what)
{
	/* Store, then what the caller looks at: pairs with tcp_signal(), which comes after what it tells of. */
	atomic_fetch_or_explicit(&c->app.awaits, what, memory_order_seq_cst);
	if (what & XSKE_TCP_WRITABLE && c->app.chunks_short)
		xske_arena_await(c->arena);
	atomic_thread_fence(memory_order_seq_cst);
}

uint32_t xske_tcp_awaited(const struct xske_tcp_conn *c)
{
	return atomic_load_explicit(&c->app.awaits, memory_order_acquire);
}

void app_took_ack(struct xske_tcp_conn *c, uint64_t bytes)
{
	atomic_store_explicit(&c->app.acked_bytes,
	                      atomic_load_explicit(&c->app.acked_bytes, memory_order_relaxed) + bytes,
	                      memory_order_seq_cst);
	/* For a third of the buffer, as Linux (sk_stream_is_writeable(), include/net/sock.h). Less: a switch of threads for
	 * every ACK; more: the loop has sent all before there is more. */
	if (3ull * (c->snd_end - c->snd_una) <=
	    2 * atomic_load_explicit(&c->app.send_buffer, memory_order_relaxed))
		tcp_signal(c, XSKE_TCP_WRITABLE);
}

void xske_tcp_info(const struct xske_tcp_conn *c, struct xske_tcp_info *out)
{
	const uint64_t *from = (const uint64_t *)&c->info;
	uint64_t *to = (uint64_t *)out;

	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	out->written_bytes = __atomic_load_n(&c->app.submitted_bytes, __ATOMIC_RELAXED);
}
