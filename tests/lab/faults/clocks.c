/* SPDX-License-Identifier: MIT */
/*
 * clocks.c - LD_PRELOAD: a process whose clocks are set while it runs. CLOCK_REALTIME and CLOCK_TAI go an hour
 * forward and back every 20 ms. For threads beside the main one CLOCK_MONOTONIC goes an hour forward once,
 * CLOCKS_JUMP_MS after the library came; not for that one, which sleeps until times that the kernel knows better.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define HOUR_S 3600

static long long started_ms, jump_ms;

static long long now_ms(void)
{
	struct timespec t;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("CLOCKS_JUMP_MS");

	started_ms = now_ms();
	jump_ms = text ? atoll(text) : 0;
}

static long offset_s(clockid_t clock)
{
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
	case CLOCK_TAI:
		return now_ms() / 20 % 2 ? HOUR_S : 0;
	case CLOCK_MONOTONIC:
		return jump_ms && syscall(SYS_gettid) != getpid() && now_ms() - started_ms > jump_ms ? HOUR_S
		                                                                                     : 0;
	default:
		return 0;
	}
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	int result = (int)syscall(SYS_clock_gettime, clock, t);

	if (!result)
		t->tv_sec += offset_s(clock);
	return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	struct timespec now;
	int result = clock_gettime(CLOCK_REALTIME, &now);

	(void)zone;
	*t = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
	return result;
}

time_t time(time_t *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (t)
		*t = now.tv_sec;
	return now.tv_sec;
}
