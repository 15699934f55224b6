/* SPDX-License-Identifier: MIT */
/*
 * post.c - one segment becomes the descs of one packet, as tcp.h's memory contract says: in place, in front of what it
 * carries; or as a header frag and borrowed pieces of blocks; or copied, where a packet is one desc and its bytes do not lie
 * behind room for a header, or that room may be inflight.
 */
#include <errno.h>

#include "../datagram.h"
#include "../metadata.h"
#include "tcp.h"

#define MOST_PIECES (XSKE_MAX_DESCS_PER_PACKET - 1)
/* Lower: more short segments from odd writes; higher: more copies. */
#define LEAST_RUN 8u
#define CHECKSUM_AT 16u /* in the TCP header: RFC 9293, 3.1 */

/* The payload of a segment, where it lies. */
struct gathered {
	struct xske_desc pieces[MOST_PIECES];
	uint32_t n;
	uint32_t len;
	uint32_t index, offset; /* the first one's block, and how far in it */
	uint64_t sum;           /* only where it is needed */
};

static bool is_offloaded(const struct xske_tcp_conn *c)
{
	return c->tcp->config.flags & XSKE_TCP_OFFLOAD;
}

/* A piece that begins at an odd byte of the payload has its bytes in the other halves of the words (RFC 1071, 2 (B)). */
static uint64_t sum_of(const struct xske_tcp_conn *c, const struct block *b, uint32_t offset, uint32_t len,
                       uint32_t at)
{
	uint64_t sum =
	        !offset && len == b->len ? b->sum : csum_bytes(c->arena->umem->area + b->addr + offset, len);

	return at & 1 ? sum << 8 : sum;
}

/* Up to `len` bytes from seq on: as far as the pieces of a packet reach. */
static void gather(const struct xske_tcp_conn *c, uint32_t seq, uint32_t len, bool summed, struct gathered *g)
{
	uint32_t offset = 0, index = 0;
	const struct block *b = blocks_find(c, seq, &offset, &index);

	g->n = g->len = 0;
	g->sum = 0;
	g->index = index;
	g->offset = offset;
	for (; b && g->len < len && g->n < MOST_PIECES; offset = 0) {
		uint32_t part = min_u32(b->len - offset, len - g->len);

		if (summed)
			g->sum += sum_of(c, b, offset, part, g->len);
		g->pieces[g->n++] = (struct xske_desc){.addr = b->addr + offset, .len = part};
		g->len += part;
		b = ++index == c->blocks.tail ? NULL : &c->blocks.ring[index & c->blocks.mask];
	}
}

/* Where a block is a segment, a segment that has begun before a run of full blocks does not cut the first of them: an odd
 * write would shift all that follow, and all of those would be copied. One that is short is the lesser evil (RFC 9293,
 * 3.8.6.2.1 would not have it); but not for a few. */
static bool ends_before_run(const struct xske_tcp_conn *c, uint32_t index, uint32_t so_far, uint32_t left)
{
	const struct blocks *b = &c->blocks;

	if (!c->header_room || !so_far || left >= b->ring[index & b->mask].len || b->tail - index < LEAST_RUN)
		return false;
	for (uint32_t i = index; i != index + LEAST_RUN; i++)
		if (b->ring[i & b->mask].len < c->mss)
			return false;
	return true;
}

uint32_t tcp_fits(const struct xske_tcp_conn *c, uint32_t seq, uint32_t len)
{
	uint32_t offset, index, fits = 0;
	const struct block *b = blocks_find(c, seq, &offset, &index);

	for (uint32_t n = 0; b && fits < len && n < MOST_PIECES; n++, offset = 0) {
		if (ends_before_run(c, index, fits, len - fits))
			break;
		fits += min_u32(b->len - offset, len - fits);
		b = ++index == c->blocks.tail ? NULL : &c->blocks.ring[index & c->blocks.mask];
	}
	return fits;
}

/* What the first desc has in front of it. */
struct front {
	bool is_there;
	uint32_t options; /* of the desc */
	uint64_t flags, request;
};

static struct front front_of(const struct xske_tcp_conn *c, const struct segment_out *out)
{
	bool offloaded = is_offloaded(c);

	return (struct front){
	        .is_there = c->arena->umem->metadata_len >= XSKE_TX_METADATA_BYTES,
	        .options = offloaded ? XSKE_DESC_METADATA : 0,
	        .flags = offloaded ? TXMD_CHECKSUM : 0,
	        .request = offloaded ? metadata_checksum(out->header->len, CHECKSUM_AT) : 0,
	};
}

static void write_front(const struct front *f, uint8_t *frame)
{
	if (f->is_there)
		metadata_write(frame, f->flags, f->request, 0);
}

static uint8_t *bytes_at(const struct xske_tcp_conn *c, uint64_t addr)
{
	return c->arena->umem->area + addr;
}

static int post_in_place(struct xske_tcp_conn *c, const struct segment_out *out, const struct gathered *g)
{
	const struct front front = front_of(c, out);
	uint32_t header = segment_header_bytes(out);
	uint64_t addr = g->pieces[0].addr - header;
	struct xske_txq *q = c->tcp->loop->txq;

	if (txq_room(q, 1) < 1)
		return -EAGAIN;
	write_front(&front, bytes_at(c, addr));
	segment_write(bytes_at(c, addr), out, g->len, g->sum, is_offloaded(c));
	txq_borrow(q, chunk_of(q->umem, addr), 1);
	txq_fill(q, addr, header + g->len, front.options);
	txq_log(q, header + g->len, 1, 1);
	return 0;
}

static int post_pieces(struct xske_tcp_conn *c, const struct segment_out *out, const struct gathered *g)
{
	const struct front front = front_of(c, out);
	uint32_t header = segment_header_bytes(out);
	struct xske_txq *q = c->tcp->loop->txq;
	uint64_t addr;
	int err;

	if (txq_room(q, g->n + 1) < g->n + 1)
		return -EAGAIN;
	err = arena_alloc(q->self, header, &addr);
	if (err)
		return err;
	arena_stamp(q->self, 0);
	write_front(&front, bytes_at(c, addr));
	segment_write(bytes_at(c, addr), out, g->len, g->sum, is_offloaded(c));
	txq_take(q, chunk_of(q->umem, addr));
	txq_fill(q, addr, header, front.options | XSKE_DESC_CONTD);
	for (uint32_t i = 0; i < g->n; i++) {
		txq_borrow(q, chunk_of(q->umem, g->pieces[i].addr), 1);
		txq_fill(q, g->pieces[i].addr, g->pieces[i].len, i + 1 < g->n ? XSKE_DESC_CONTD : 0);
	}
	txq_log(q, header + g->len, g->n + 1, 1);
	return 0;
}

/* Everything in one frag of the loop's. A frame that is too short is made longer (FRAME_MIN_BYTES). */
static int post_copy(struct xske_tcp_conn *c, const struct segment_out *out, const struct gathered *g)
{
	const struct front front = front_of(c, out);
	uint32_t header = segment_header_bytes(out), frame = max_u32(header + g->len, FRAME_MIN_BYTES);
	struct xske_txq *q = c->tcp->loop->txq;
	uint8_t *to;
	uint64_t addr;
	int err;

	if (txq_room(q, 1) < 1)
		return -EAGAIN;
	err = arena_alloc(q->self, frame, &addr);
	if (err)
		return err;
	arena_stamp(q->self, 0);
	to = bytes_at(c, addr);
	write_front(&front, to);
	segment_write(to, out, g->len, g->sum, is_offloaded(c));
	to += header;
	for (uint32_t i = 0; i < g->n; to += g->pieces[i++].len)
		memcpy(to, bytes_at(c, g->pieces[i].addr), g->pieces[i].len);
	frame_pad(bytes_at(c, addr), header + g->len, frame);
	txq_take(q, chunk_of(q->umem, addr));
	txq_fill(q, addr, frame, front.options);
	txq_log(q, frame, 1, 1);
	return 0;
}

/* May the header be written in front of the first piece? There must be room, which a first transmission has to itself;
 * later nothing of the chunk may be inflight, as it is not known which of its frags is. */
static bool has_room_in_front(const struct xske_tcp_conn *c, const struct gathered *g, bool again)
{
	return c->header_room && !g->offset &&
	       (!again || !chunk_of(c->arena->umem, g->pieces[0].addr)->inflight);
}

int tcp_post(struct xske_tcp_conn *c, const struct segment_out *out, uint32_t len, bool again)
{
	uint32_t header = segment_header_bytes(out);
	struct gathered g = {.n = 0};
	int err;

	if (!len)
		return post_copy(c, out, &g);
	gather(c, out->seq, len, !is_offloaded(c), &g);
	if (!again)
		c->blocks.latest = g.index + g.n - 1;
	if (g.n == 1 && header + len >= FRAME_MIN_BYTES && has_room_in_front(c, &g, again))
		return post_in_place(c, out, &g);
	if (c->tcp->config.flags & XSKE_TCP_MULTI_BUFFER && header + len >= FRAME_MIN_BYTES)
		return post_pieces(c, out, &g);
	err = post_copy(c, out, &g);
	if (!err)
		tcp_count(&c->tcp->counters->copied_segments, 1);
	return err;
}

uint32_t tcp_post_run(struct xske_tcp_conn *c, const struct segment_out *out, uint32_t n)
{
	const struct blocks b = c->blocks; /* a copy: what is written to frames may not alias it */
	const struct front front = front_of(c, out);
	const uint32_t len = c->mss, frame = segment_header_bytes(out) + len;
	struct xske_txq *q = c->tcp->loop->txq;
	uint32_t offset, index, i, seq = out->seq;
	uint8_t *area = c->arena->umem->area;
	struct segment_pattern pattern;

	if (!c->header_room || frame < FRAME_MIN_BYTES || !blocks_find(c, seq, &offset, &index) || offset ||
	    b.ring[index & b.mask].len != len)
		return 0;
	n = min_u32(min_u32(n, b.tail - index), txq_room(q, n));
	segment_pattern_init(&pattern, out, len, is_offloaded(c));
	for (i = 0; i < n; i++, seq += len) {
		const struct block *at = &b.ring[(index + i) & b.mask];
		uint64_t addr = at->addr - pattern.len;

		if (at->len != len)
			break;
		write_front(&front, area + addr);
		segment_pattern_write(&pattern, area + addr, seq, at->sum);
		txq_borrow(q, chunk_of(q->umem, addr), 1);
		txq_fill(q, addr, frame, front.options);
	}
	if (!i)
		return 0;
	txq_log(q, frame, 1, i);
	c->blocks.latest = index + i - 1;
	return i;
}
