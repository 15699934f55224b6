/* SPDX-License-Identifier: MIT */
/*
 * The device behind a fake kernel: what leaves it, as frames, and what comes, over heap rings.
 *
 * Sending: the bytes of every desc are copied when the kernel takes it, and compared with that copy when it completes:
 * what is inflight does not change. A packet's descs become one frame.
 * Receiving: frames are put into chunks from the fill ring, behind a headroom, in pieces.
 */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#include "fake_kernel.h"

struct fake_frame {
	uint8_t *bytes;
	uint64_t now_ns; /* when the kernel took its last desc */
	uint32_t len;
	uint32_t descs;
	uint32_t csum_requested; /* by metadata: the sum from csum_start on goes to csum_offset behind it */
	uint32_t csum_start, csum_offset;
	uint32_t bad; /* no packet that a kernel takes: metadata without room, or on a later desc */
};

struct fake_device;

/* Watches k's descs from now on. */
XSKE_API struct fake_device *fake_device_create(struct fake_kernel *k, uint8_t *area, uint32_t chunk_size,
                                                uint32_t metadata_len);
XSKE_API void fake_device_destroy(struct fake_device *d);
/* Frames that have left and were not dropped from this list yet. */
XSKE_API uint32_t fake_device_frames(const struct fake_device *d);
XSKE_API const struct fake_frame *fake_device_frame(const struct fake_device *d, uint32_t i);
XSKE_API void fake_device_drop(struct fake_device *d); /* all of them */
/* Descs whose bytes were not the same any more when they completed; must stay 0. */
XSKE_API uint64_t fake_device_changed(const struct fake_device *d);

struct fake_rx;

/* headroom: bytes in front of the first one of each desc. */
XSKE_API struct fake_rx *fake_rx_create(uint8_t *area, uint32_t chunk_size, uint32_t size, uint32_t headroom,
                                        uint32_t first_cursor);
XSKE_API void fake_rx_destroy(struct fake_rx *r);
XSKE_API void fake_rx_rings(struct fake_rx *r, struct xske_ring *rx, struct xske_ring *fill);
/* In descs of at most piece_bytes. 0, or -1: no room or no chunk, the frame is lost. */
XSKE_API int fake_rx_give(struct fake_rx *r, const uint8_t *frame, uint32_t len, uint32_t piece_bytes);

#endif
