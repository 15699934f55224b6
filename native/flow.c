/* SPDX-License-Identifier: MIT */
#include "csum.h"
#include "flow.h"
#include "metadata.h"

/* ---- templates in the umem ------------------------------------------------------------------------- */

static void write_metadata(const struct xske_flow *f, uint8_t *head, uint64_t posted_ns)
{
	if (f->first_options & XSKE_DESC_METADATA)
		metadata_write(head, f->metadata[0], f->metadata[1], posted_ns);
}

/* Only a packet's first desc has some, and who reads stamps must see that. */
static void clear_metadata(const struct xske_umem *umem, uint64_t addr)
{
	memset(umem->area + addr - umem->metadata_len, 0, umem->metadata_len);
}

/* The fields and checksums of the n packets in the column. */
static void finish(struct xske_flow *f, struct column *col, uint32_t n, uint64_t tai_ns);

static void write_template(struct xske_flow *f, struct xske_arena *a, uint32_t v)
{
	const struct variant *variant = &f->variants[v];
	uint8_t *head = a->umem->area + variant->addr;
	struct column col = {0};

	memcpy(head, f->frame, variant->head_len);
	col.variant[0] = v;
	col.len[0] = variant->len;
	col.head[0] = head;
	col.end[0] = head + variant->len;
	finish(f, &col, 1, 0);
	write_metadata(f, head, 0);
}

/* A frag for something that stays. Whatever the chunk's slots held before, they do not any more. */
static int alloc_lasting(struct xske_arena *a, uint32_t len, uint64_t *addr)
{
	int err = arena_alloc(a, len, addr);

	if (!err)
		arena_stamp(a, 0);
	return err;
}

/* What lies behind the longest packet's head. */
static void write_pieces(const struct xske_flow *f, struct xske_arena *a)
{
	const uint8_t *from = f->frame + f->slot_len;

	for (uint32_t i = 0; i < f->piece_count; i++, from += f->usable) {
		clear_metadata(a->umem, f->pieces[i]);
		memcpy(a->umem->area + f->pieces[i], from,
		       min_u32(f->usable, (uint32_t)(f->frame + f->frame_len - from)));
	}
}

int flow_load(struct xske_flow *f, struct xske_arena *a)
{
	uint32_t templates = f->templates ? f->variant_count : 0, done = 0;
	int err = 0;

	for (; !err && done < templates; done += !err)
		err = alloc_lasting(a, f->variants[done].head_len, &f->variants[done].addr);
	for (uint32_t i = 0; !err && i < f->piece_count; i++) {
		err = alloc_lasting(a, f->usable, &f->pieces[i]);
		if (err)
			while (i-- > 0)
				frag_unref(a, chunk_of(a->umem, f->pieces[i]));
	}
	if (err) {
		while (done-- > 0)
			frag_unref(a, chunk_of(a->umem, f->variants[done].addr));
		return err;
	}
	for (uint32_t v = 0; v < templates; v++)
		write_template(f, a, v);
	write_pieces(f, a);
	f->stamp = arena_new_stamp(a);
	f->loaded = true;
	return 0;
}

void flow_unload(struct xske_flow *f, struct xske_arena *a)
{
	if (!f->loaded)
		return;
	for (uint32_t v = 0; f->templates && v < f->variant_count; v++)
		frag_unref(a, chunk_of(a->umem, f->variants[v].addr));
	for (uint32_t i = 0; i < f->piece_count; i++)
		frag_unref(a, chunk_of(a->umem, f->pieces[i]));
	f->loaded = false;
}

bool flow_is_inflight(const struct xske_flow *f, const struct xske_arena *a)
{
	for (uint32_t v = 0; f->templates && v < f->variant_count; v++)
		if (chunk_of(a->umem, f->variants[v].addr)->inflight)
			return true;
	for (uint32_t i = 0; i < f->piece_count; i++)
		if (chunk_of(a->umem, f->pieces[i])->inflight)
			return true;
	return false;
}

void flow_update(struct xske_flow *f, struct xske_arena *a, const struct xske_update *update)
{
	if (update->len > sizeof(update->bytes) || (uint64_t)update->offset + update->len > f->frame_len)
		return;
	memcpy(f->frame + update->offset, update->bytes, update->len);
	for (uint32_t v = 0; f->templates && v < f->variant_count; v++)
		write_template(f, a, v);
	write_pieces(f, a);
	f->stamp = arena_new_stamp(a);
}

/* ---- packets of its own ---------------------------------------------------------------------------- */

static inline uint32_t next_size(const struct xske_flow *f, uint32_t at, uint32_t step)
{
	at += step;
	return at >= f->order_len ? at - f->order_len : at;
}

void flow_plan(const struct xske_flow *f, struct column *col, uint32_t n)
{
	uint32_t at = f->size_index, step = f->size_moves[FIELD_NEXT_BLOCK];

	if (f->variant_count == 1) {
		uint32_t len = f->variants[0].len;

		for (uint32_t i = 0; i < n; i++) {
			col->variant[i] = 0;
			col->len[i] = len;
		}
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t pick = at;

		if (f->random_sizes)
			pick = (uint32_t)field_random_below(
			        f->size_key, f->sequence + i * f->moves[FIELD_NEXT_BLOCK], f->order_len);
		at = next_size(f, at, step);
		col->variant[i] = f->order ? f->order[pick] : pick;
		col->len[i] = f->variants[col->variant[i]].len;
	}
}

/* What the n (> 1: all on to the next block) packets in the column needed is used up. */
static void move_on(struct xske_flow *f, uint32_t n, enum field_move move)
{
	uint64_t moved = n * f->moves[move];

	f->sequence += moved;
	if (f->variant_count > 1 && !f->random_sizes)
		for (uint32_t i = 0; i < n; i++)
			f->size_index = next_size(f, f->size_index, f->size_moves[move]);
	f->left = move == FIELD_NEXT_BLOCK ? f->weight : f->left - 1;
}

static void store_checksum(const struct checksum *checksum, struct column *col, const uint64_t *sum,
                           uint32_t n)
{
	const struct checksum c =
	        *checksum; /* or it would be read again after every packet that is written */

	for (uint32_t i = 0; i < n; i++) {
		uint16_t check = checksum_of(&c, sum[i]), wire = __builtin_bswap16(check);

		memcpy(col->head[i] + c.offset, &wire, sizeof(wire));
		col->value[i] = check;
	}
	for (uint32_t csums = c.csums; csums; csums &= csums - 1)
		for (uint32_t i = 0; i < n; i++)
			col->sum[__builtin_ctz(csums)][i] += col->value[i];
}

static inline void start_sum(const struct xske_flow *f, struct column *col, uint32_t n, uint32_t c)
{
	if (f->variant_count > 1) {
		for (uint32_t i = 0; i < n; i++)
			col->sum[c][i] = f->sums[col->variant[i] * f->checksum_count + c];
		return;
	}
	for (uint32_t i = 0; i < n && !f->checksums[c].constant; i++)
		col->sum[c][i] = f->sums[c];
}

static void finish(struct xske_flow *f, struct column *col, uint32_t n, uint64_t tai_ns)
{
	enum field_move move = f->left > 1 ? FIELD_WITHIN : FIELD_NEXT_BLOCK;

	for (uint32_t c = 0; c < f->checksum_count; c++)
		start_sum(f, col, n, c);
	for (uint32_t i = 0; i < f->field_count; i++) {
		struct field *field = &f->fields[i];

		field_values(field, col, n, f->sequence, f->moves[move], move, tai_ns);
		field_store(field, col, n);
	}
	for (uint32_t c = 0; c < f->checksum_count; c++)
		if (!f->checksums[c].constant)
			store_checksum(&f->checksums[c], col, col->sum[c], n);
}

/* Heads for up to n packets, with the template in them. */
static uint32_t alloc_heads(const struct xske_flow *f, struct xske_txq *q, struct column *col, uint32_t n)
{
	struct xske_arena *a = q->self;
	uint32_t got = 0, run, stride;
	uint64_t addr;

	while (got < n && (run = arena_alloc_run(a, f->slot_len, n - got, &addr, &stride))) {
		uint8_t *at = a->umem->area + addr;

		txq_take_open(q, run);
		if (unlikely(arena_stamp_of(a) != f->stamp)) {
			bool whole = addr == a->base + a->headroom + arena_colour(a, stride) &&
			             a->filler == f->stamp;
			uint32_t slots = whole ? a->end / stride : run;

			for (uint32_t i = 0; i < slots; i++)
				memcpy(at + i * stride, f->frame, f->slot_len);
			arena_stamp(a, whole && f->keeps ? f->stamp : 0);
			a->filler = f->stamp;
		}
		for (uint32_t i = 0; i < run; i++, got++) {
			col->addr[got] = addr + i * stride;
			col->head[got] = at + i * stride;
			if (f->tail_len)
				col->end[got] = col->head[got] + col->len[got];
			/* With long slots the cache misses of all heads overlap, before the first is patched. */
			__builtin_prefetch(col->head[got], 1);
		}
	}
	return got;
}

/* A trailer behind the last piece lies in a frag of its own. How many of n have one, or need none. */
static uint32_t alloc_tails(const struct xske_flow *f, struct xske_txq *q, struct column *col, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (f->variants[col->variant[i]].descs == 1)
			continue;
		if (alloc_lasting(q->self, f->tail_len, &col->tail_addr[i]))
			return i;
		txq_take(q, chunk_of(q->umem, col->tail_addr[i]));
		clear_metadata(q->umem, col->tail_addr[i]);
		col->end[i] = q->umem->area + col->tail_addr[i] + f->tail_len;
	}
	return n;
}

/* The descs of one packet behind its head. */
static void fill_rest(const struct xske_flow *f, struct xske_txq *q, const struct variant *v,
                      uint64_t tail_addr)
{
	uint32_t left = v->len - v->head_len - f->tail_len;

	for (uint32_t i = 0; left; i++) {
		uint32_t len = min_u32(left, f->usable);

		left -= len;
		txq_borrow(q, chunk_of(q->umem, f->pieces[i]), 1);
		txq_fill(q, f->pieces[i], len, left || f->tail_len ? XSKE_DESC_CONTD : 0);
	}
	if (f->tail_len)
		txq_fill(q, tail_addr, f->tail_len, 0);
}

static void fill(const struct xske_flow *f, struct xske_txq *q, const struct column *col, uint32_t n)
{
	if (f->max_descs == 1) {
		txq_fill_run(q, col->addr, col->len, f->first_options, n);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct variant *v = &f->variants[col->variant[i]];

		txq_fill(q, col->addr[i], v->head_len,
		         f->first_options | (v->descs > 1 ? XSKE_DESC_CONTD : 0));
		if (v->descs > 1)
			fill_rest(f, q, v, col->tail_addr[i]);
	}
}

static void post_templates(const struct xske_flow *f, struct xske_txq *q, struct column *col, uint32_t n)
{
	if (f->variant_count == 1)
		txq_borrow(q, chunk_of(q->umem, f->variants[0].addr), n);
	for (uint32_t i = 0; i < n; i++) {
		col->addr[i] = f->variants[col->variant[i]].addr;
		if (f->variant_count > 1)
			txq_borrow(q, chunk_of(q->umem, col->addr[i]), 1);
	}
	fill(f, q, col, n);
}

/* Frags that were taken for packets that cannot be sent go back. */
static void give_back(struct xske_txq *q, const struct column *col, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		txq_untake(q, chunk_of(q->umem, col->addr[i]));
}

static uint32_t post_copies(struct xske_flow *f, struct xske_txq *q, struct column *col, uint32_t n,
                            uint64_t tai_ns)
{
	uint32_t got = alloc_heads(f, q, col, n);

	if (f->tail_len && f->max_descs > 1) {
		n = alloc_tails(f, q, col, got);
		give_back(q, col, n, got);
		got = n;
	}
	if (!got)
		return 0;
	finish(f, col, got, tai_ns);
	if (f->first_options & XSKE_DESC_METADATA)
		for (uint32_t i = 0; i < got; i++)
			write_metadata(f, col->head[i], tai_ns);
	fill(f, q, col, got);
	return got;
}

uint32_t flow_post(struct xske_flow *f, struct xske_txq *q, struct column *col, uint32_t n, uint64_t tai_ns)
{
	enum field_move move = f->left > 1 ? FIELD_WITHIN : FIELD_NEXT_BLOCK;
	uint64_t bytes = 0;

	if (f->templates)
		post_templates(f, q, col, n);
	else
		n = post_copies(f, q, col, n, tai_ns);
	if (!n)
		return 0;
	if (f->variant_count == 1) {
		txq_log(q, col->len[0], f->variants[0].descs, n);
		bytes = (uint64_t)n * col->len[0];
	} else {
		for (uint32_t i = 0; i < n; i++) {
			txq_log(q, col->len[i], f->variants[col->variant[i]].descs, 1);
			bytes += col->len[i];
		}
	}
	count_posted(&f->posted, n, bytes);
	move_on(f, n, move);
	return n;
}

void xske_flow_read(struct xske_flow *const *flows, uint32_t n, struct xske_flow_counters *out)
{
	for (uint32_t i = 0; i < n; i++)
		out[i] = read_posted(&flows[i]->posted);
}
