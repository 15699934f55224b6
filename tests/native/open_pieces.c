/* SPDX-License-Identifier: MIT */
/* The judgement of xsk-engine-open, for tests to call. */
#define main open_main
#include "xsk-engine-open.c"

#define EXPORT __attribute__((visibility("default")))

/* The errno, and why. */
EXPORT uint32_t open_judge(const char *text, const char *interface, const uint32_t *queues, uint32_t n_queues,
                           uint64_t bytes, uint32_t ring_size, uint32_t zerocopy, char why[244]);

EXPORT uint32_t open_judge(const char *text, const char *interface, const uint32_t *queues, uint32_t n_queues,
                           uint64_t bytes, uint32_t ring_size, uint32_t zerocopy, char why[244])
{
	char *copy = strdup(text);

	memset(&request, 0, sizeof(request));
	snprintf(request.interface, sizeof(request.interface), "%s", interface);
	memcpy(request.queues, queues, n_queues * sizeof(*queues));
	request.n_queues = n_queues;
	request.ring_size = ring_size;
	request.zerocopy = zerocopy;
	umem_len = bytes;
	gids[0] = getgid();
	n_gids = 1;
	judge(copy);
	free(copy);
	memcpy(why, reply.text, sizeof(reply.text));
	return reply.error;
}
