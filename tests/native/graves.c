/* SPDX-License-Identifier: MIT */
/*
 * Objects that two threads bury at once, when nothing was buried for long: they stay for GRAVE_NS all the same.
 * Usage: graves PAIRS. Exit code 0 = none was freed before.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "grave.h"

static struct graveyard yard;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t together;
static _Atomic unsigned early, arrived;
static unsigned pairs;

static void count(void *object)
{
	(void)object;
	atomic_fetch_add(&early, 1);
}

static void *bury(void *graves)
{
	struct grave *own = graves;

	for (unsigned i = 0; i < pairs; i++) {
		*own = (struct grave){.free = count, .object = own};
		pthread_barrier_wait(&together);
		atomic_fetch_add(&arrived, 1);
		while (atomic_load(&arrived) < 2 * (i + 1)) /* a barrier lets one go before the other */
			;
		graveyard_bury(&yard, &lock, own);
		if (pthread_barrier_wait(&together) == PTHREAD_BARRIER_SERIAL_THREAD)
			graveyard_init(&yard); /* as long after */
		pthread_barrier_wait(&together);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[2];
	struct grave graves[2];

	pairs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20000;
	graveyard_init(&yard);
	pthread_barrier_init(&together, NULL, 2);
	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, bury, &graves[i]))
			return 2;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("%u pairs, %u freed at once\n", pairs, early);
	return early != 0;
}
