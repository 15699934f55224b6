/* SPDX-License-Identifier: MIT */
/* piece.h - a part of a received packet, where it lies in memory: a frame may lie in several (multi-buffer). */
#ifndef XSKE_PIECE_H
#define XSKE_PIECE_H

#include <stdint.h>

struct piece {
	const uint8_t *bytes;
	uint32_t len;
};

#endif
