/* SPDX-License-Identifier: MIT */
/*
 * What this machine lets any sender do: looks at the clock without a pause, and notes how far from GAP_NS the gaps
 * between its looks at the due times are. Usage: spin CPU GAP_NS GAPS; prints a JSON object.
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int64_t gap, *errors, due, last, now;
	cpu_set_t cpus;
	size_t n;

	if (argc != 4)
		return 1;
	gap = atoll(argv[2]);
	n = (size_t)atoll(argv[3]);
	errors = calloc(n, sizeof(*errors));
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	if (!n || !errors || sched_setaffinity(0, sizeof(cpus), &cpus))
		return 1;
	last = now_ns();
	due = last + gap;
	for (size_t i = 0; i < n; due += gap) {
		while ((now = now_ns()) < due)
			;
		errors[i++] = llabs(now - last - gap);
		last = now;
	}
	qsort(errors, n, sizeof(*errors), compare);
	printf("{\"p50_ns\": %lld, \"p99_ns\": %lld, \"p99_9_ns\": %lld, \"max_ns\": %lld}\n",
	       (long long)errors[n / 2], (long long)errors[(size_t)((double)(n - 1) * 0.99)],
	       (long long)errors[(size_t)((double)(n - 1) * 0.999)], (long long)errors[n - 1]);
	return 0;
}
