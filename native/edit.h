/* SPDX-License-Identifier: MIT */
/* edit.h - rewrites headers of packets that somebody else made, and keeps their checksums as right as they were. */
#ifndef XSKE_EDIT_H
#define XSKE_EDIT_H

#include <stdbool.h>

#include "util.h"
#include "xske.h"

#define EDIT_ETH_BYTES 14u
#define EDIT_TAG_BYTES 4u /* of a VLAN tag */

/* Bytes that edits may add to a packet: a tag. */
#define EDIT_GROWS EDIT_TAG_BYTES

/* All edits, in order, in a buffer of len + EDIT_GROWS bytes; the new length. */
uint32_t edit_packet(const struct xske_edit *edits, uint32_t n, uint8_t *frame, uint32_t len);
/* Computes the checksums of the outermost IP header and of TCP, UDP or ICMP in it, where all of the datagram is there. */
void edit_fix_checksums(uint8_t *frame, uint32_t len);
/* Bytes of VLAN tags in front of the packet's type. */
uint32_t edit_tag_bytes(const uint8_t *frame, uint32_t len);

#endif
