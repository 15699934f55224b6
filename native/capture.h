/* SPDX-License-Identifier: MIT */
/*
 * capture.h - a ring of bytes with whole pcap records (draft-ietf-opsawg-pcap), from the loop to one reader.
 * head: the loop writes it, released when a record is complete. tail: the reader's. While there is no room the loop posts
 * nothing, so that the file holds every packet; when the reader has gone it takes nothing more.
 */
#ifndef XSKE_CAPTURE_H
#define XSKE_CAPTURE_H

#include <stdalign.h>

#include "piece.h"
#include "txq.h"

#define CAPTURE_RECORD_BYTES 16u

struct xske_capture {
	uint64_t size;      /* power of two */
	uint64_t left;      /* packets to take; UINT64_MAX: all */
	uint64_t offset_ns; /* of the records' times to the loop's clock */
	uint8_t *bytes;
	/* As in spsc.h, and nobody is woken: the reader comes by himself, the loop while it waits. */
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t head;
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t tail;
	_Atomic uint32_t closed; /* relaxed: it is freed only when the loop has ended */
};

/* Packets of up to len bytes that it could take now. */
uint32_t capture_room(const struct xske_capture *c, uint32_t len);
/* The n packets whose descs were filled into the tx ring from `slot` on. */
void capture_take(struct xske_capture *c, const struct xske_txq *q, uint32_t slot, uint32_t n,
                  uint64_t now_ns);
/* A packet in pieces; false: there is no room for it. For who cannot wait. */
bool capture_put(struct xske_capture *c, const struct piece *pieces, uint32_t n, uint64_t now_ns);

#endif
