/* SPDX-License-Identifier: MIT */
#include "fake_device.h"

#include <stdlib.h>
#include <string.h>

/* include/uapi/linux/if_xdp.h, Linux 6.8 */
#define TXMD_CHECKSUM 2ull

/* A desc that the kernel has: its bytes as they were. */
struct copy {
	struct copy *next;
	struct xske_desc desc;
	uint8_t bytes[];
};

struct fake_device {
	struct fake_kernel *kernel;
	uint8_t *area;
	uint32_t chunk_size, metadata_len;
	struct fake_frame *frames;
	uint32_t count, room;
	struct fake_frame open; /* of which more descs are to come */
	struct copy *copies;    /* the oldest first */
	struct copy **copies_end;
	uint64_t changed;
};

static void ask_metadata(struct fake_device *d, const struct xske_desc *desc, struct fake_frame *f)
{
	uint64_t flags;
	uint16_t request[2];

	if (d->metadata_len < XSKE_TX_METADATA_BYTES || desc->addr % d->chunk_size < XSKE_TX_METADATA_BYTES ||
	    f->descs) {
		f->bad = 1;
		return;
	}
	memcpy(&flags, d->area + desc->addr - XSKE_TX_METADATA_BYTES, sizeof(flags));
	memcpy(request, d->area + desc->addr - XSKE_TX_METADATA_BYTES + 8, sizeof(request));
	if (!(flags & TXMD_CHECKSUM))
		return;
	f->csum_requested = 1;
	f->csum_start = request[0];
	f->csum_offset = request[1];
}

static void push(struct fake_device *d, uint64_t now_ns)
{
	if (d->count == d->room) {
		d->room = d->room ? 2 * d->room : 64;
		d->frames = realloc(d->frames, d->room * sizeof(*d->frames));
	}
	d->open.now_ns = now_ns;
	d->frames[d->count++] = d->open;
	memset(&d->open, 0, sizeof(d->open));
}

static void posted(void *watcher, const struct xske_desc *desc, uint64_t now_ns)
{
	struct fake_device *d = watcher;
	struct fake_frame *f = &d->open;
	struct copy *copy = malloc(sizeof(*copy) + desc->len);

	copy->next = NULL;
	copy->desc = *desc;
	memcpy(copy->bytes, d->area + desc->addr, desc->len);
	*d->copies_end = copy;
	d->copies_end = &copy->next;
	if (desc->options & XSKE_DESC_METADATA)
		ask_metadata(d, desc, f);
	if (!desc->len || desc->addr % d->chunk_size + desc->len > d->chunk_size ||
	    desc->addr % d->chunk_size < d->metadata_len)
		f->bad = 1;
	f->bytes = realloc(f->bytes, f->len + desc->len + 1u);
	memcpy(f->bytes + f->len, copy->bytes, desc->len);
	f->len += desc->len;
	f->descs++;
	if (!(desc->options & XSKE_DESC_CONTD))
		push(d, now_ns);
}

static void completed(void *watcher, const struct xske_desc *desc, uint64_t now_ns)
{
	struct fake_device *d = watcher;
	struct copy **at = &d->copies, *copy;

	(void)now_ns;
	while ((copy = *at) && (copy->desc.addr != desc->addr || copy->desc.len != desc->len))
		at = &copy->next;
	if (!copy)
		return;
	d->changed += memcmp(copy->bytes, d->area + desc->addr, desc->len) != 0;
	*at = copy->next;
	if (!*at)
		d->copies_end = at;
	free(copy);
}

struct fake_device *fake_device_create(struct fake_kernel *k, uint8_t *area, uint32_t chunk_size,
                                       uint32_t metadata_len)
{
	struct fake_device *d = calloc(1, sizeof(*d));

	d->kernel = k;
	d->area = area;
	d->chunk_size = chunk_size;
	d->metadata_len = metadata_len;
	d->copies_end = &d->copies;
	fake_watch(k, posted, completed, d);
	return d;
}

void fake_device_destroy(struct fake_device *d)
{
	fake_watch(d->kernel, NULL, NULL, NULL);
	fake_device_drop(d);
	while (d->copies) {
		struct copy *next = d->copies->next;

		free(d->copies);
		d->copies = next;
	}
	free(d->open.bytes);
	free(d->frames);
	free(d);
}

uint32_t fake_device_frames(const struct fake_device *d)
{
	return d->count;
}

const struct fake_frame *fake_device_frame(const struct fake_device *d, uint32_t i)
{
	return &d->frames[i];
}

void fake_device_drop(struct fake_device *d)
{
	for (uint32_t i = 0; i < d->count; i++)
		free(d->frames[i].bytes);
	d->count = 0;
}

uint64_t fake_device_changed(const struct fake_device *d)
{
	return d->changed;
}

struct fake_rx {
	uint8_t *area;
	uint32_t chunk_size, mask, headroom;
	uint32_t rx_producer, rx_consumer, rx_flags, fill_producer, fill_consumer, fill_flags;
	struct xske_desc *rx;
	uint64_t *fill;
};

struct fake_rx *fake_rx_create(uint8_t *area, uint32_t chunk_size, uint32_t size, uint32_t headroom,
                               uint32_t first_cursor)
{
	struct fake_rx *r = calloc(1, sizeof(*r));

	r->area = area;
	r->chunk_size = chunk_size;
	r->mask = size - 1;
	r->headroom = headroom;
	r->rx_producer = r->rx_consumer = r->fill_producer = r->fill_consumer = first_cursor;
	r->rx = calloc(size, sizeof(*r->rx));
	r->fill = calloc(size, sizeof(*r->fill));
	return r;
}

void fake_rx_destroy(struct fake_rx *r)
{
	free(r->rx);
	free(r->fill);
	free(r);
}

void fake_rx_rings(struct fake_rx *r, struct xske_ring *rx, struct xske_ring *fill)
{
	*rx = (struct xske_ring){.mask = r->mask,
	                         .size = r->mask + 1,
	                         .producer = &r->rx_producer,
	                         .consumer = &r->rx_consumer,
	                         .ring = r->rx,
	                         .flags = &r->rx_flags};
	*fill = (struct xske_ring){.mask = r->mask,
	                           .size = r->mask + 1,
	                           .producer = &r->fill_producer,
	                           .consumer = &r->fill_consumer,
	                           .ring = r->fill,
	                           .flags = &r->fill_flags};
}

int fake_rx_give(struct fake_rx *r, const uint8_t *frame, uint32_t len, uint32_t piece_bytes)
{
	uint32_t head = r->rx_producer, most = r->chunk_size - r->headroom, descs, take;

	most = piece_bytes < most ? piece_bytes : most;
	descs = (len + most - 1) / most;
	if (descs > r->mask + 1 - (head - __atomic_load_n(&r->rx_consumer, __ATOMIC_ACQUIRE)) ||
	    descs > __atomic_load_n(&r->fill_producer, __ATOMIC_ACQUIRE) - r->fill_consumer)
		return -1;
	for (; descs--; frame += take, len -= take) {
		uint64_t addr = r->fill[r->fill_consumer & r->mask] + r->headroom;

		__atomic_store_n(&r->fill_consumer, r->fill_consumer + 1, __ATOMIC_RELEASE);
		take = len < most ? len : most;
		memcpy(r->area + addr, frame, take);
		r->rx[head++ & r->mask] = (struct xske_desc){addr, take, descs ? XSKE_DESC_CONTD : 0};
	}
	__atomic_store_n(&r->rx_producer, head, __ATOMIC_RELEASE);
	return 0;
}
