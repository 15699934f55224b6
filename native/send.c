/* SPDX-License-Identifier: MIT */
/*
 * send.c - what applications do with an endpoint: copy payloads into frags behind a header, or fill frags in place, and
 * hand them to the loop. Every call enters the endpoint's arena, so that a second thread gets -EBUSY.
 */
#include <errno.h>

#include "datagram.h"
#include "loop.h"
#include "metadata.h"
#include "tracker.h"

/* Descs that are handed over at a time. Lower: more stores that the loop's core must fetch; higher: it waits for the
 * first of them. */
#define GROUP 64u

#define ETHERNET_BYTES 14u

static int enter(struct xske_endpoint *e, const struct xske_header *h)
{
	int err = e && endpoint_is_open(e) ? xske_arena_enter(e->arena) : -EPIPE;

	if (!err && !header_is_sound(h)) {
		xske_arena_leave(e->arena);
		err = -EINVAL;
	}
	if (!err && !endpoint_is_open(e)) { /* whoever closes it enters, too */
		xske_arena_leave(e->arena);
		err = -EPIPE;
	}
	return err;
}

static uint8_t *bytes_at(const struct xske_endpoint *e, uint64_t addr)
{
	return e->arena->umem->area + addr;
}

/* What is in front of a desc for the device; returns the desc's options. */
static uint32_t write_metadata(const struct xske_endpoint *e, uint64_t addr, bool first)
{
	bool stamped = first && e->flags & XSKE_ENDPOINT_TIMESTAMPS;

	if (e->arena->umem->metadata_len >= XSKE_TX_METADATA_BYTES)
		metadata_write(bytes_at(e, addr), stamped ? TXMD_TIMESTAMP : 0, 0, 0);
	return stamped ? XSKE_DESC_METADATA : 0;
}

/* 0: it can never be sent. */
static uint32_t descs_for(const struct xske_endpoint *e, const struct xske_header *h, uint64_t length)
{
	uint32_t usable = e->arena->umem->chunk_size - e->arena->headroom, len, frame, n;

	if (length > e->max_frame_bytes || header_bytes(h) + length > e->max_frame_bytes)
		return 0;
	len = (uint32_t)length;
	frame = frame_bytes(h, len);
	n = frame <= usable ? 1 : (frame + usable - 1) / usable;
	if (frame < ETHERNET_BYTES || n > XSKE_MAX_DESCS_PER_PACKET)
		return 0;
	return n > e->submits.mask + 1 || n > e->loop->txq->tx.size || n > e->arena->quota ? 0 : n;
}

static void release(struct xske_endpoint *e, const struct xske_desc *descs, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		frag_unref(e->arena, chunk_of(e->arena->umem, descs[i].addr));
}

/* The packet in as many frags as it takes, all or none. */
static int copy(struct xske_endpoint *e, const struct xske_header *h, const uint8_t *payload, uint32_t len,
                struct xske_desc *descs, uint32_t n)
{
	uint32_t usable = e->arena->umem->chunk_size - e->arena->headroom;
	uint32_t frame = frame_bytes(h, len), front = header_bytes(h), left = len;
	const uint8_t *from = payload;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t piece = min_u32(frame - i * usable, usable), part = min_u32(left, piece - front);
		uint64_t addr;
		int err = arena_alloc(e->arena, piece, &addr);

		if (unlikely(err)) {
			release(e, descs, i);
			return err;
		}
		descs[i] = (struct xske_desc){
		        addr, piece, write_metadata(e, addr, !i) | (i + 1 < n ? XSKE_DESC_CONTD : 0)};
		if (front)
			header_write(h, bytes_at(e, addr));
		memcpy(bytes_at(e, addr) + front, from, part);
		frame_pad(bytes_at(e, addr), front + part, piece);
		from += part;
		left -= part;
		front = 0;
	}
	if (h)
		datagram_seal(bytes_at(e, descs[0].addr), h, len, csum_bytes(payload, len));
	return 0;
}

int xske_endpoint_send(struct xske_endpoint *e, const struct xske_header *h, const uint8_t *payload,
                       uint64_t len)
{
	struct xske_desc descs[XSKE_MAX_DESCS_PER_PACKET];
	uint32_t n;
	int err;

	if (!e)
		return -EPIPE;
	if (!header_is_sound(h))
		return -EINVAL;
	n = descs_for(e, h, len);
	if (!n)
		return -EMSGSIZE;
	err = enter(e, h);
	if (err)
		return err;
	err = spsc_room(&e->submits) < n ? -EAGAIN : copy(e, h, payload, (uint32_t)len, descs, n);
	if (!err) {
		spsc_push(&e->submits, descs, n);
		endpoint_count(e, 1, n, frame_bytes(h, (uint32_t)len));
		endpoint_hand_over(e); /* before it leaves: who closes the endpoint enters, too */
	}
	xske_arena_leave(e->arena);
	return err;
}

int64_t xske_endpoint_send_many(struct xske_endpoint *e, const struct xske_header *h, const uint8_t *payloads,
                                uint64_t stride, const uint32_t *lens, uint32_t n)
{
	struct xske_desc descs[GROUP + XSKE_MAX_DESCS_PER_PACKET];
	uint32_t filled = 0, packets = 0;
	uint64_t bytes = 0;
	int64_t sent = 0;
	int err = enter(e, h);

	if (err)
		return err;
	while (sent < n && !err) {
		uint32_t len = lens[sent], need = descs_for(e, h, len);

		if (!need)
			err = -EMSGSIZE;
		else if (spsc_room(&e->submits) < filled + need)
			err = -EAGAIN;
		else
			err = copy(e, h, payloads, len, descs + filled, need);
		if (!err) {
			payloads += stride ? stride : len;
			bytes += frame_bytes(h, len);
			filled += need;
			packets++;
			sent++;
		}
		if (filled >= GROUP || err || sent == n) {
			spsc_push(&e->submits, descs, filled);
			endpoint_count(e, packets, filled, bytes);
			if (filled)
				endpoint_hand_over(e);
			filled = packets = 0;
			bytes = 0;
		}
	}
	xske_arena_leave(e->arena);
	return sent ? sent : err;
}

int xske_endpoint_alloc(struct xske_endpoint *e, const struct xske_header *h, uint32_t n, uint32_t len,
                        struct xske_span *out)
{
	int err;

	if (!n || !len)
		return -EINVAL;
	err = enter(e, h);
	if (err)
		return err;
	err = descs_for(e, h, len) == 1
	              ? arena_alloc_span(e->arena, frame_bytes(h, len), n, &out->addr, &out->pitch)
	              : -EMSGSIZE;
	out->n = n;
	for (uint32_t i = 0; h && !err && i < n; i++)
		header_write(h, bytes_at(e, out->addr + (uint64_t)i * out->pitch));
	xske_arena_leave(e->arena);
	return err;
}

/* What stands in the frag becomes what is sent; false: the kernel would call it invalid. */
static bool finish(struct xske_endpoint *e, const struct xske_header *h, const struct xske_desc *d,
                   struct xske_desc *out)
{
	uint32_t front = header_bytes(h), frame;
	uint8_t *bytes = bytes_at(e, d->addr);

	if (d->len < front || d->len > e->max_frame_bytes)
		return false;
	frame = frame_bytes(h, d->len - front);
	if (frame < ETHERNET_BYTES || d->options || !endpoint_may_post(e, d->addr, frame))
		return false;
	if (h) {
		frame_pad(bytes, d->len, frame);
		datagram_seal(bytes, h, d->len - front, csum_bytes(bytes + front, d->len - front));
	}
	*out = (struct xske_desc){d->addr, frame, write_metadata(e, d->addr, true)};
	return true;
}

/* With the watches in front that go on its chunks. */
static int push(struct xske_endpoint *e, const struct xske_desc *descs, uint32_t n, struct xske_tracker *t)
{
	struct xske_desc marked[GROUP + 1];
	struct watch *w;

	if (!t)
		return spsc_push(&e->submits, descs, n) ? 0 : -EAGAIN;
	if (spsc_room(&e->submits) < n + 1)
		return -EAGAIN;
	w = tracker_watch(t, descs, n);
	if (!w)
		return -EINVAL;
	marked[0] = (struct xske_desc){(uintptr_t)w, n, DESC_WATCHES};
	memcpy(marked + 1, descs, n * sizeof(*descs));
	spsc_push(&e->submits, marked, n + 1);
	return 0;
}

int64_t xske_endpoint_post(struct xske_endpoint *e, const struct xske_header *h,
                           const struct xske_desc *descs, uint32_t n, struct xske_tracker *t)
{
	struct xske_desc group[GROUP];
	int64_t posted = 0;
	int err = enter(e, h);

	if (err)
		return err;
	while (posted < n && !err) {
		uint32_t room = spsc_room(&e->submits), take, good = 0;
		uint64_t bytes = 0;

		room = t && room ? room - 1 : room;
		take = min_u32(min_u32(GROUP, room), n - (uint32_t)posted);
		if (!take)
			err = -EAGAIN;
		for (; good < take && finish(e, h, &descs[posted + good], &group[good]); good++)
			bytes += group[good].len;
		if (good < take)
			err = -EINVAL;
		if (good && push(e, group, good, t)) {
			err = -EINVAL;
		} else if (good) {
			endpoint_count(e, good, good, bytes);
			endpoint_hand_over(e);
			posted += good;
		}
	}
	xske_arena_leave(e->arena);
	return posted ? posted : err;
}

void xske_endpoint_read(const struct xske_endpoint *e, struct xske_endpoint_counters *out)
{
	*out = (struct xske_endpoint_counters){0};
	if (!e)
		return;
	/* Completions first: nobody shall see more of them than posts. */
	out->completed_descs = atomic_load_explicit(&e->arena->completed_descs, memory_order_acquire);
	out->posted_descs = atomic_load_explicit(&e->arena->posted_descs, memory_order_acquire);
	out->submitted_descs = atomic_load_explicit(&e->submitted_descs, memory_order_relaxed);
	out->submitted_packets = atomic_load_explicit(&e->submitted_packets, memory_order_relaxed);
	out->submitted_bytes = atomic_load_explicit(&e->submitted_bytes, memory_order_relaxed);
}

void xske_header_set_mac(struct xske_header *h, const uint8_t mac[6])
{
	uint64_t first = __atomic_load_n(&h->words[0], __ATOMIC_RELAXED);

	memcpy(&first, mac, 6);
	__atomic_store_n(&h->words[0], first, __ATOMIC_RELAXED);
}
