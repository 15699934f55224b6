#include "check.h"
void check_frame(struct xske_check *c, const struct piece *pieces, uint32_t n, uint64_t arrived_ns,
                 uint32_t flags)
{
	(void)c;
	(void)pieces;
	(void)n;
	(void)arrived_ns;
	(void)flags;
}
