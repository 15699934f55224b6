/* SPDX-License-Identifier: MIT */
/* isn.h - numbers that nobody outside can guess: where sequences and timestamps begin (RFC 6528; RFC 7323, 5.4). */
#ifndef XSKE_TCP_ISN_H
#define XSKE_TCP_ISN_H

#include <stddef.h>
#include <stdint.h>

struct isn_secret {
	uint8_t key[16];
};

/* From the kernel's random numbers; 0 or a negative errno. */
int isn_init(struct isn_secret *s);
/* M + F(tuple, secret): a clock of 4 us and a keyed hash. */
uint32_t isn_of(const struct isn_secret *s, const uint8_t *tuple, uint32_t len, uint64_t now_ns);
/* What is added to the millisecond clock. */
uint32_t isn_timestamp_offset(const struct isn_secret *s, const uint8_t *tuple, uint32_t len);
/* SipHash-2-4 (Aumasson and Bernstein, 2012); key: 16 bytes. */
uint64_t siphash24(const uint8_t *key, const uint8_t *data, size_t len);

#endif
