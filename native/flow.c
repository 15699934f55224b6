/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "csum.h"
#include "flow.h"

static uint64_t read_field(const uint8_t *at, uint32_t width)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < width; i++)
		value = value << 8 | at[i];
	return value;
}

static inline uint64_t write_field(uint8_t *at, uint32_t width, uint64_t value)
{
	uint16_t v16;
	uint32_t v32;
	uint64_t v64;

	switch (width) {
	case 1:
		*at = (uint8_t)value;
		return (uint8_t)value;
	case 2:
		v16 = __builtin_bswap16((uint16_t)value);
		memcpy(at, &v16, sizeof(v16));
		return (uint16_t)value;
	case 4:
		v32 = __builtin_bswap32((uint32_t)value);
		memcpy(at, &v32, sizeof(v32));
		return (uint32_t)value;
	default:
		v64 = __builtin_bswap64(value);
		memcpy(at, &v64, sizeof(v64));
		return value;
	}
}

static bool patch_fits(const struct xske_patch *p, uint32_t head_len)
{
	if (p->width != 1 && p->width != 2 && p->width != 4 && p->width != 8)
		return false;
	if ((uint64_t)p->offset + p->width > head_len)
		return false;
	return !p->csum_offset || (uint64_t)p->csum_offset + 2 <= head_len;
}

/* Which of the flow's checksums; a new one for a new place. */
static uint32_t find_csum(struct xske_flow *f, const struct xske_patch *p)
{
	uint32_t i = 0;

	while (i < f->csum_count && f->csums[i].offset != p->csum_offset)
		i++;
	if (i == f->csum_count) {
		uint16_t check = (uint16_t)read_field(f->frame + p->csum_offset, 2);

		f->csums[f->csum_count++] =
		        (struct flow_csum){.offset = p->csum_offset, .rest = (uint16_t)~check};
	}
	f->csums[i].udp |= p->csum_udp;
	return i;
}

static void compile_patch(struct xske_flow *f, const struct xske_patch *p, uint64_t sequence)
{
	uint64_t at = p->modulo ? sequence % p->modulo : sequence;
	struct flow_patch *patch = &f->patches[f->patch_count++];

	*patch = (struct flow_patch){
	        .offset = p->offset,
	        .width = p->width,
	        .csum = XSKE_MAX_PATCHES,
	        .shift = csum_shift(p->width, p->offset),
	        .value = p->base + p->step * at,
	        .step = p->step,
	        .base = p->base,
	        .modulo = p->modulo,
	        .left = p->modulo ? p->modulo - at : UINT64_MAX,
	};
	if (p->csum_offset) {
		uint64_t was = csum_part(read_field(f->frame + p->offset, p->width), patch->shift);

		patch->csum = find_csum(f, p);
		f->csums[patch->csum].rest += (uint16_t)~csum_fold(was);
	}
}

int xske_flow_create(struct xske_umem *umem, const struct xske_flow_config *config, struct xske_flow **out)
{
	uint32_t usable = umem->chunk_size - umem->metadata_len;
	uint32_t rest = config->frame_len;
	struct xske_flow *f;

	if (!config->frame || !config->frame_len || config->patch_count > XSKE_MAX_PATCHES ||
	    !config->batch || (config->rate_packets && !config->rate_period_ns))
		return -EINVAL;
	if (config->frame_len > XSKE_MAX_DESCS_PER_PACKET * usable)
		return -EMSGSIZE;
	f = calloc(1, sizeof(*f) + align_up(config->frame_len, FRAG_ALIGN));
	if (!f)
		return -ENOMEM;
	memcpy(f->frame, config->frame, config->frame_len);
	f->frame_len = config->frame_len;
	for (; rest; rest -= f->len[f->descs++])
		f->len[f->descs] = min_u32(rest, usable);
	f->head_len = f->len[0];
	f->copy_len = umem->metadata_len ? f->head_len : align_up(f->head_len, FRAG_ALIGN);
	for (uint32_t i = 0; i < config->patch_count; i++) {
		if (!patch_fits(&config->patches[i], f->head_len)) {
			free(f);
			return -EINVAL;
		}
		compile_patch(f, &config->patches[i], config->first_sequence);
	}
	f->pace.packets = config->rate_packets;
	f->pace.period_ns = config->rate_period_ns;
	f->remaining = config->count ? config->count : UINT64_MAX;
	f->duration_ns = config->duration_ns;
	f->batch = config->batch;
	f->quota_frags = config->quota_frags ? config->quota_frags : UINT32_MAX;
	*out = f;
	return 0;
}

void xske_flow_destroy(struct xske_flow *f)
{
	free(f);
}

/* Copies the template into frags of the loop's arena; the flow holds a reference on each. */
int flow_load(struct xske_flow *f, struct xske_arena *a, uint64_t now)
{
	const uint8_t *from = f->frame;

	for (uint32_t i = 0; i < f->descs; i++) {
		int err = arena_alloc(a, f->len[i], &f->addr[i]);

		if (err) {
			while (i-- > 0)
				frag_unref(a, chunk_of(a->umem, f->addr[i]));
			return err;
		}
		memcpy(a->umem->area + f->addr[i], from, f->len[i]);
		from += f->len[i];
	}
	f->loaded = true;
	pace_start(&f->pace, now);
	return 0;
}

void flow_unload(struct xske_flow *f, struct xske_arena *a, struct xske_umem *umem)
{
	for (uint32_t i = 0; f->loaded && i < f->descs; i++)
		frag_unref(a, chunk_of(umem, f->addr[i]));
	f->loaded = false;
}

static inline void patch_head(struct xske_flow *f, uint8_t *head)
{
	uint64_t sums[XSKE_MAX_PATCHES + 1]; /* the last for fields under no checksum */

	for (uint32_t i = 0; i < f->csum_count; i++)
		sums[i] = f->csums[i].rest;
	sums[XSKE_MAX_PATCHES] = 0;
	for (uint32_t i = 0; i < f->patch_count; i++) {
		struct flow_patch *patch = &f->patches[i];
		uint64_t now = write_field(head + patch->offset, patch->width, patch->value);

		sums[patch->csum] += csum_part(now, patch->shift);
		patch->value += patch->step;
		if (--patch->left == 0) {
			patch->value = patch->base;
			patch->left = patch->modulo;
		}
	}
	for (uint32_t i = 0; i < f->csum_count; i++) {
		uint16_t check = (uint16_t)~csum_fold(sums[i]);

		write_field(head + f->csums[i].offset, 2, f->csums[i].udp && !check ? 0xffff : check);
	}
}

static inline void copy_head(const struct xske_flow *f, uint8_t *to)
{
	if (likely(f->copy_len == FRAG_ALIGN))
		memcpy(to, f->frame, FRAG_ALIGN); /* a constant: two to four moves, no call */
	else
		memcpy(to, f->frame, f->copy_len);
}

static inline uint32_t more(const struct xske_flow *f, uint32_t desc)
{
	return desc + 1 < f->descs ? XSKE_DESC_CONTD : 0;
}

/* n packets of nothing but the template. */
static uint32_t post_templates(struct xske_flow *f, struct xske_txq *q, uint32_t n)
{
	for (uint32_t d = 0; d < f->descs; d++)
		txq_borrow(q, chunk_of(q->umem, f->addr[d]), n);
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t d = 0; d < f->descs; d++)
			txq_fill(q, f->addr[d], f->len[d], more(f, d));
	return n;
}

/* n packets with heads of their own; fewer when the arena has no chunk. */
static uint32_t post_copies(struct xske_flow *f, struct xske_txq *q, uint32_t n)
{
	uint32_t posted = 0, stride, run;
	uint64_t addr;

	while (posted < n && (run = arena_alloc_run(q->self, f->head_len, n - posted, &addr, &stride))) {
		txq_take_open(q, run);
		for (uint32_t i = 0; i < run; i++, addr += stride) {
			copy_head(f, q->umem->area + addr);
			patch_head(f, q->umem->area + addr);
			txq_fill(q, addr, f->head_len, more(f, 0));
			for (uint32_t d = 1; d < f->descs; d++)
				txq_fill(q, f->addr[d], f->len[d], more(f, d));
		}
		posted += run;
	}
	for (uint32_t d = 1; posted && d < f->descs; d++)
		txq_borrow(q, chunk_of(q->umem, f->addr[d]), posted);
	return posted;
}

uint32_t flow_run(struct xske_flow *f, struct xske_txq *q, uint64_t now, uint32_t limit, bool *starved)
{
	uint32_t want =
	        (uint32_t)min_u64(min_u64(pace_due(&f->pace, now), f->remaining), min_u32(f->batch, limit));
	uint32_t room, n, posted = 0;

	if (!want)
		return 0;
	room = txq_room(q, want * f->descs);
	if (f->quota_frags != UINT32_MAX) {
		uint32_t used = txq_inflight(q) + q->filled;

		room = min_u32(room, f->quota_frags > used ? f->quota_frags - used : 0);
	}
	n = min_u32(want, room / f->descs);
	if (n)
		posted = f->patch_count ? post_copies(f, q, n) : post_templates(f, q, n);
	*starved |= posted < want;
	if (!posted)
		return 0;
	txq_log(q, f->frame_len, f->descs, posted);
	f->pace.sent += posted;
	if (f->remaining != UINT64_MAX)
		f->remaining -= posted;
	if (unlikely(!f->end_ns) && f->duration_ns)
		f->end_ns = now + f->duration_ns;
	return posted;
}
