/* SPDX-License-Identifier: MIT */
/* compile.c - makes a flow ready to run: everything that can be known before the first packet. */
#include <errno.h>
#include <stdlib.h>

#include "csum.h"
#include "flow.h"

/* include/uapi/linux/if_xdp.h: XDP_TXMD_FLAGS_TIMESTAMP, XDP_TXMD_FLAGS_CHECKSUM */
#define TXMD_TIMESTAMP 1ull
#define TXMD_CHECKSUM 2ull

/* Jumbo frames whose fields all lie in front: a head this short is copied, the rest posted from the template.
 * Lower than the fields' end is not possible; higher: bytes copied for nothing. */
#define HEAD_ALIGN FRAG_ALIGN

static bool patch_is_sound(const struct xske_patch *p, const struct xske_flow_config *c, uint32_t shortest)
{
	if (p->kind > XSKE_PATCH_TIME || (c->csum_count < 32 && p->csums >> c->csum_count) || p->shift > 63 ||
	    (p->kind == XSKE_PATCH_LIST && (!p->value_count || !p->values)))
		return false;
	if (!p->width)
		return true;
	if (p->width != 1 && p->width != 2 && p->width != 4 && p->width != 8)
		return false;
	if (p->offset < 0)
		return (uint64_t)-(int64_t)p->offset <= shortest && (uint32_t)-p->offset >= p->width;
	return (uint64_t)p->offset + p->width <= shortest;
}

static bool csum_is_sound(const struct xske_csum *s, const struct xske_flow_config *c, uint32_t i,
                          uint32_t shortest)
{
	return (uint64_t)s->offset + 2 <= shortest && s->start <= shortest && s->end <= shortest &&
	       (uint64_t)s->pseudo_offset + s->pseudo_len <= shortest && !((s->offset | s->start) & 1) &&
	       !((s->pseudo_offset | s->pseudo_len) & 1) && !(s->csums >> c->csum_count) &&
	       !(s->csums & ((2u << i) - 1)); /* the later ones cover it */
}

static bool is_sound(const struct xske_flow_config *c)
{
	uint32_t shortest = c->frame_len;

	if (!c->frame || !c->frame_len || c->patch_count > XSKE_MAX_PATCHES ||
	    c->csum_count > XSKE_MAX_CSUMS || (c->sizes && !c->size_count) || (c->order && !c->order_len) ||
	    !c->weight || !c->queues || c->queue >= c->queues)
		return false;
	for (uint32_t i = 0; c->sizes && i < c->size_count; i++) {
		if (!c->sizes[i] || c->sizes[i] > c->frame_len)
			return false;
		shortest = min_u32(shortest, c->sizes[i]);
	}
	for (uint32_t i = 0; c->order && i < c->order_len; i++)
		if (c->order[i] >= (c->sizes ? c->size_count : 1))
			return false;
	for (uint32_t i = 0; i < c->patch_count; i++)
		if (!patch_is_sound(&c->patches[i], c, shortest) ||
		    (c->flags & XSKE_FLOW_TEMPLATES && c->patches[i].kind != XSKE_PATCH_LENGTH))
			return false;
	for (uint32_t i = 0; i < c->csum_count; i++)
		if (!csum_is_sound(&c->csums[i], c, i, shortest))
			return false;
	return true;
}

/* What patches and checksums write is 0 in the template, so that they only have to be added. */
static void blank(struct xske_flow *f, const struct xske_flow_config *c)
{
	for (uint32_t i = 0; i < c->patch_count; i++) {
		const struct xske_patch *p = &c->patches[i];
		uint64_t mask = p->mask;

		for (uint32_t at = p->width; p->offset >= 0 && at-- > 0; mask >>= 8)
			f->frame[(uint32_t)p->offset + at] &= (uint8_t)~mask;
	}
	for (uint32_t i = 0; i < c->csum_count; i++)
		memset(f->frame + c->csums[i].offset, 0, 2);
}

/* The sum of the frame's bytes before `at`, of which words[] has those of whole words. */
static uint64_t sum_before(const struct xske_flow *f, const uint64_t *words, uint32_t at)
{
	return words[at / 2] + (at & 1 ? (uint64_t)f->frame[at - 1] << 8 : 0);
}

static int sum_up(struct xske_flow *f, const struct xske_flow_config *c)
{
	uint64_t *words = calloc(f->frame_len / 2 + 1, sizeof(*words));

	if (!words)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->frame_len / 2; i++)
		words[i + 1] = words[i] + ((uint64_t)f->frame[2 * i] << 8 | f->frame[2 * i + 1]);
	for (uint32_t v = 0; v < f->variant_count; v++)
		for (uint32_t i = 0; i < c->csum_count; i++) {
			const struct xske_csum *s = &c->csums[i];
			uint32_t end = s->end ? s->end : f->variants[v].len - f->tail_len;
			uint64_t sum = s->constant + words[(s->pseudo_offset + s->pseudo_len) / 2] -
			               words[s->pseudo_offset / 2];

			if (!(s->flags & XSKE_CSUM_PARTIAL) && end > s->start)
				sum += sum_before(f, words, end) - words[s->start / 2];
			f->sums[v * c->csum_count + i] = sum;
		}
	free(words);
	return 0;
}

/* How many bytes of the packet its first desc has, and how many descs there are. */
static int cut(struct xske_flow *f, const struct xske_flow_config *c, uint32_t usable)
{
	uint32_t needed = 1, pieces;

	f->usable = usable;
	f->slot_len = min_u32(f->frame_len, usable);
	for (uint32_t i = 0; i < c->patch_count; i++)
		if (c->patches[i].offset >= 0)
			needed = max_u32(needed, (uint32_t)c->patches[i].offset + c->patches[i].width);
	for (uint32_t i = 0; i < c->csum_count; i++)
		needed = max_u32(needed, c->csums[i].offset + 2);
	needed = align_up(needed, HEAD_ALIGN);
	if (needed > usable)
		return f->frame_len > usable ? -EMSGSIZE : 0;
	if (f->frame_len > usable && !f->templates) {
		pieces = (f->frame_len - needed + usable - 1) / usable;
		if (1 + pieces + !!f->tail_len <= XSKE_MAX_DESCS_PER_PACKET)
			f->slot_len = needed;
	}
	return 0;
}

static int cut_variants(struct xske_flow *f)
{
	for (uint32_t v = 0; v < f->variant_count; v++) {
		struct variant *variant = &f->variants[v];
		uint32_t body = variant->len - f->tail_len;

		if (variant->len <= f->slot_len) {
			variant->head_len = variant->len;
			variant->descs = 1;
		} else {
			variant->head_len = min_u32(f->slot_len, body);
			variant->descs =
			        1 + (body - variant->head_len + f->usable - 1) / f->usable + !!f->tail_len;
		}
		f->max_descs = max_u32(f->max_descs, variant->descs);
	}
	if (f->max_descs > XSKE_MAX_DESCS_PER_PACKET)
		return -EMSGSIZE;
	if (f->max_descs > 1)
		f->piece_count = (f->frame_len - f->slot_len + f->usable - 1) / f->usable;
	return f->piece_count > XSKE_MAX_DESCS_PER_PACKET ? -EMSGSIZE : 0;
}

static int copy_fields(struct xske_flow *f, const struct xske_flow_config *c)
{
	for (uint32_t i = 0; i < c->patch_count; i++) {
		const struct xske_patch *p = &c->patches[i];
		uint64_t *values = NULL;

		field_init(&f->fields[i], p, f->sequence, f->moves);
		f->fields[i].values = NULL;
		if (p->kind == XSKE_PATCH_LIST) {
			values = malloc(p->value_count * sizeof(*values));
			if (!values)
				return -ENOMEM;
			memcpy(values, p->values, p->value_count * sizeof(*values));
			f->fields[i].values = values;
		}
		f->field_count++;
		if (p->offset < 0)
			f->tail_len = max_u32(f->tail_len, (uint32_t)-p->offset);
	}
	for (uint32_t i = 0; i < c->csum_count; i++)
		f->checksums[i] = (struct checksum){.offset = c->csums[i].offset,
		                                    .csums = c->csums[i].csums,
		                                    .udp = c->csums[i].flags & XSKE_CSUM_UDP,
		                                    .partial = c->csums[i].flags & XSKE_CSUM_PARTIAL};
	return 0;
}

static int allocate(struct xske_flow *f, const struct xske_flow_config *c)
{
	f->variant_count = c->sizes ? c->size_count : 1;
	f->order_len = c->order ? c->order_len : f->variant_count;
	f->checksum_count = c->csum_count;
	f->frame_len = c->frame_len;
	/* calloc may return NULL for nothing. */
	f->fields = calloc(c->patch_count + 1, sizeof(*f->fields));
	f->checksums = calloc(c->csum_count + 1, sizeof(*f->checksums));
	/* What a packet's length is looked up in lies together. */
	f->variants = calloc(1, f->variant_count * sizeof(*f->variants) +
	                                (c->order ? c->order_len * sizeof(*f->order) : 0));
	f->sums = calloc((size_t)f->variant_count * c->csum_count + 1, sizeof(*f->sums));
	f->frame = malloc(c->frame_len);
	if (!f->fields || !f->checksums || !f->variants || !f->sums || !f->frame)
		return -ENOMEM;
	memcpy(f->frame, c->frame, c->frame_len);
	if (c->order) {
		f->order = (uint32_t *)(f->variants + f->variant_count);
		memcpy(f->order, c->order, c->order_len * sizeof(*f->order));
	}
	for (uint32_t v = 0; v < f->variant_count; v++)
		f->variants[v].len = c->sizes ? c->sizes[v] : c->frame_len;
	return 0;
}

/* net/xdp/xsk.c, xsk_skb_metadata(): struct xsk_tx_metadata ends where the packet begins. */
static int request_metadata(struct xske_flow *f, const struct xske_flow_config *c,
                            const struct xske_umem *umem)
{
	if (!f->timestamp && !c->offload_start && !umem->metadata_len)
		return 0;
	if (!f->timestamp && !c->offload_start)
		return 0;
	if (umem->metadata_len != XSKE_TX_METADATA_BYTES)
		return -EOPNOTSUPP;
	f->first_options = XSKE_DESC_METADATA;
	f->metadata[0] = (f->timestamp ? TXMD_TIMESTAMP : 0) | (c->offload_start ? TXMD_CHECKSUM : 0);
	f->metadata[1] = (c->offload_start & 0xffff) | (c->offload_offset & 0xffff) << 16;
	return 0;
}

static int make(struct xske_flow *f, const struct xske_flow_config *c, const struct xske_umem *umem)
{
	int err = allocate(f, c);

	if (err)
		return err;
	f->weight = f->left = c->weight;
	f->sequence = (uint64_t)c->queue * c->weight;
	f->moves[FIELD_WITHIN] = 1;
	f->moves[FIELD_NEXT_BLOCK] = 1 + (uint64_t)(c->queues - 1) * c->weight;
	f->size_index = (uint32_t)(f->sequence % f->order_len);
	for (uint32_t i = 0; i < FIELD_MOVES; i++)
		f->size_moves[i] = (uint32_t)(f->moves[i] % f->order_len);
	f->size_key = c->size_key;
	f->templates = c->flags & XSKE_FLOW_TEMPLATES;
	f->random_sizes = c->flags & XSKE_FLOW_RANDOM_SIZES;
	f->timestamp = c->flags & XSKE_FLOW_TIMESTAMP;
	err = copy_fields(f, c);
	if (!err)
		err = request_metadata(f, c, umem);
	if (!err)
		err = cut(f, c, umem->chunk_size - umem->metadata_len);
	if (!err)
		err = cut_variants(f);
	if (err)
		return err;
	/* A trailer of one length lies in the middle of another. */
	f->keeps = !f->tail_len || f->variant_count == 1;
	blank(f, c);
	return sum_up(f, c);
}

int xske_flow_create(struct xske_umem *umem, const struct xske_flow_config *config, struct xske_flow **out)
{
	struct xske_flow *f;
	int err;

	if (!is_sound(config))
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	err = make(f, config, umem);
	if (err) {
		xske_flow_destroy(f);
		return err;
	}
	*out = f;
	return 0;
}

void xske_flow_destroy(struct xske_flow *f)
{
	if (!f)
		return;
	for (uint32_t i = 0; i < f->field_count; i++)
		free((void *)(uintptr_t)f->fields[i].values);
	free(f->fields);
	free(f->checksums);
	free(f->variants);
	free(f->sums);
	free(f->frame);
	free(f);
}
