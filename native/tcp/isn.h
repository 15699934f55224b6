/* SPDX-License-Identifier: MIT */
/*
 * isn.h - initial sequence numbers by RFC 6528, and timestamp offsets by RFC 7323, 5.4: who does not know the
 * secret cannot tell those of one connection from those of another. Both are keyed with SipHash-2-4 (Aumasson
 * and Bernstein, 2012), as in Linux (net/core/secure_seq.c), which is also what hash tables are keyed with
 * whose keys a peer may choose.
 */
#ifndef XSKE_TCP_ISN_H
#define XSKE_TCP_ISN_H

#include <stddef.h>
#include <stdint.h>

struct isn_secret {
	uint8_t sequence_key[16];
	uint8_t timestamp_key[16]; /* of its own: one must not tell of the other */
};

/* Drawn anew for every process. 0, or -errno of getrandom(2): -EAGAIN when the machine has no entropy yet. */
int isn_init(struct isn_secret *s);

/* `tuple`: both addresses and ports, always in the same order. */
uint32_t isn_of(const struct isn_secret *s, const uint8_t *tuple, uint32_t len, uint64_t now_ns);

/* To be added to the connection's timestamp clock. */
uint32_t isn_timestamp_offset(const struct isn_secret *s, const uint8_t *tuple, uint32_t len);

uint64_t siphash24(const uint8_t key[16], const uint8_t *data, size_t len);

#endif
