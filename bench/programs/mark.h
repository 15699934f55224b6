/* SPDX-License-Identifier: MIT */
/* mark.h - where a measurement begins and ends: prefetchnta of an address that nobody uses. It changes nothing;
 * under QEMU with bench/tcg/count.c it is seen. */
#ifndef BENCH_MARK_H
#define BENCH_MARK_H

#define MARK_BEGIN 1
#define MARK_END 2

/* 0f 18 /0: prefetchnta m8, with a 32-bit absolute address: 'XSK' and the mark */
#define MARK_BYTES(mark) {0x0f, 0x18, 0x04, 0x25, (mark), 'K', 'S', 'X'}

#if defined(__x86_64__)
#define MARK(mark)                                                                                           \
	__asm__ volatile(".byte 0x0f, 0x18, 0x04, 0x25, %c0, 0x4b, 0x53, 0x58" : : "i"(mark) : "memory")
#else
#define MARK(mark) ((void)0)
#endif

#endif
