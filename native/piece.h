/* SPDX-License-Identifier: MIT */
/* piece.h - a part of a received packet, where it lies in memory: a frame may lie in several (multi-buffer). */
#ifndef XSKE_PIECE_H
#define XSKE_PIECE_H

#include <stdint.h>

#include "xske.h"

/* Longer chains are no packet that a device sends: 64 KiB in chunks of 4 KiB are 17 (MAX_SKB_FRAGS + 1, Linux 6.6). */
#define RX_PIECES XSKE_MAX_DESCS_PER_PACKET

struct piece {
	const uint8_t *bytes;
	uint32_t len;
};

#endif
