/* SPDX-License-Identifier: MIT */
/* common.h - what the programs of the benchmark share: a mistake ends them with its reason, one CPU is theirs, and a
 * file holds the frame. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST_FRAME_BYTES 65535u

static inline void check(int failed, const char *what)
{
	if (failed) {
		perror(what);
		exit(1);
	}
}

/* cpu: -1 for any. */
static inline void pin(int cpu)
{
	cpu_set_t cpus;

	if (cpu < 0)
		return;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	check(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");
}

/* The frame that is the whole file, into `to`, which has room for MOST_FRAME_BYTES + 1; its bytes. */
static inline unsigned read_frame(const char *path, unsigned char *to)
{
	FILE *file = fopen(path, "rb");
	size_t bytes;

	check(!file, path);
	bytes = fread(to, 1, MOST_FRAME_BYTES + 1, file);
	check(ferror(file), path);
	fclose(file);
	if (!bytes || bytes > MOST_FRAME_BYTES) {
		fprintf(stderr, "%s: a frame has 1 to %u bytes\n", path, MOST_FRAME_BYTES);
		exit(1);
	}
	return (unsigned)bytes;
}

#endif
