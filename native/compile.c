/* SPDX-License-Identifier: MIT */
/* compile.c - makes a flow ready to run: everything that can be known before the first packet. */
#include <errno.h>
#include <stdlib.h>

#include "csum.h"
#include "flow.h"
#include "metadata.h"

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
		return p->kind != XSKE_PATCH_LENGTH && (uint64_t)-(int64_t)p->offset <= shortest &&
		       (uint32_t)-p->offset >= p->width;
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

static uint64_t length_value(const struct xske_patch *p, uint32_t len)
{
	uint64_t value = (uint64_t)(len - p->base) << p->shift;

	return p->width ? value & p->mask : value;
}

/* What a length adds to checksum i, in packets of this length. */
static uint64_t sum_of_lengths(const struct xske_flow_config *c, uint32_t i, uint32_t len)
{
	uint64_t sum = 0;

	for (uint32_t k = 0; k < c->patch_count; k++) {
		const struct xske_patch *p = &c->patches[k];
		uint32_t shift = p->width ? csum_shift(p->width, (uint32_t)p->offset) : 0;

		if (p->kind == XSKE_PATCH_LENGTH && p->csums >> i & 1)
			sum += csum_part(length_value(p, len), shift);
	}
	return sum;
}

/* Of all of checksum i that follows from the length alone. One pass per checksum, however many lengths. */
static int sum_up(struct xske_flow *f, const struct xske_flow_config *c, uint32_t i)
{
	const struct xske_csum *s = &c->csums[i];
	uint64_t *words = calloc(f->frame_len / 2 + 1, sizeof(*words));
	uint64_t fixed = s->constant + csum_bytes(f->frame + s->pseudo_offset, s->pseudo_len);

	if (!words)
		return -ENOMEM;
	for (uint32_t at = s->start; at + 1 < f->frame_len; at += 2)
		words[at / 2 + 1] = words[at / 2] + csum_bytes(f->frame + at, 2);
	for (uint32_t v = 0; v < f->variant_count; v++) {
		uint32_t end = s->end ? s->end : f->variants[v].len - f->tail_len;
		uint64_t sum = fixed + sum_of_lengths(c, i, f->variants[v].len);

		if (!(s->flags & XSKE_CSUM_PARTIAL) && end > s->start)
			sum += words[end / 2] + (end & 1 ? csum_bytes(f->frame + end - 1, 1) : 0);
		f->sums[v * c->csum_count + i] = sum;
	}
	free(words);
	return 0;
}

/* With one length, length fields are constants. */
static void write_lengths(struct xske_flow *f, const struct xske_flow_config *c)
{
	for (uint32_t k = 0; k < c->patch_count; k++) {
		const struct xske_patch *p = &c->patches[k];
		uint64_t value = length_value(p, f->frame_len);

		if (p->kind != XSKE_PATCH_LENGTH || f->variant_count > 1)
			continue;
		for (uint32_t at = p->width; at-- > 0; value >>= 8)
			f->frame[(uint32_t)p->offset + at] |= (uint8_t)value;
	}
}

static bool is_constant(const struct xske_flow *f, const struct xske_flow_config *c, uint32_t i)
{
	if (f->variant_count > 1)
		return false;
	for (uint32_t k = 0; k < c->patch_count; k++)
		if (c->patches[k].kind != XSKE_PATCH_LENGTH && c->patches[k].csums >> i & 1)
			return false;
	for (uint32_t k = 0; k < i; k++)
		if (!f->checksums[k].constant && f->checksums[k].csums >> i & 1)
			return false;
	return true;
}

/* A checksum that is the same in every packet is written once, before those that cover it are summed up. */
static int make_checksums(struct xske_flow *f, const struct xske_flow_config *c)
{
	for (uint32_t i = 0; i < c->csum_count; i++) {
		struct checksum *checksum = &f->checksums[i];
		int err = sum_up(f, c, i);

		if (err)
			return err;
		checksum->constant = is_constant(f, c, i);
		if (checksum->constant) {
			uint16_t check = checksum_of(checksum, f->sums[i]);

			f->frame[checksum->offset] = (uint8_t)(check >> 8);
			f->frame[checksum->offset + 1] = (uint8_t)check;
		}
	}
	write_lengths(f, c); /* which the sums have already */
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
		struct field *field = &f->fields[f->field_count];
		uint64_t *values;

		if (p->offset < 0)
			f->tail_len = max_u32(f->tail_len, (uint32_t)-p->offset);
		/* Its part of the checksums is known for every length: see sum_up(). */
		if (p->kind == XSKE_PATCH_LENGTH && (f->variant_count == 1 || !p->width))
			continue;
		field_init(field, p, f->sequence, f->moves);
		f->field_count++;
		if (p->kind == XSKE_PATCH_LENGTH)
			field->csums = 0;
		field->values = NULL;
		if (p->kind != XSKE_PATCH_LIST)
			continue;
		values = malloc(p->value_count * sizeof(*values));
		if (!values)
			return -ENOMEM;
		memcpy(values, p->values, p->value_count * sizeof(*values));
		field->values = values;
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
	f->metadata[1] = metadata_checksum(c->offload_start, c->offload_offset);
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
	return make_checksums(f, c);
}

int xske_flow_create(struct xske_umem *umem, const struct xske_flow_config *config, struct xske_flow **out)
{
	struct xske_flow *f;
	int err;

	if (!is_sound(config))
		return -EINVAL;
	f = aligned_alloc(XSKE_CACHE_LINE, align_up(sizeof(*f), XSKE_CACHE_LINE));
	if (!f)
		return -ENOMEM;
	memset(f, 0, sizeof(*f));
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
