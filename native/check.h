#include "piece.h"
#include "xske.h"

void check_frame(struct xske_check *c, const struct piece *pieces, uint32_t n, uint64_t arrived_ns,
                 uint32_t flags);
