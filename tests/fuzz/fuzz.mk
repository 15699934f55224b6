# What `make fuzz` runs, from the top of the tree: native/ is compiled once for all targets in C.
SECONDS ?= 300
OUT := build/fuzz
C_TARGETS := flow edit check receive segment tcp kernel
PYTHON_TARGETS := values config commands pcap iperf3

CFLAGS := -g -O1 -std=c11 -D_GNU_SOURCE -Wall -Wextra -Inative -Itests/native -Itests/fuzz -MMD -MP \
	$(shell pkg-config --cflags libxdp libbpf) -fno-sanitize-recover=undefined
SANITIZE := address,undefined

NATIVE := $(patsubst %.c,$(OUT)/%.o,$(wildcard native/*.c native/tcp/*.c))
# What one of them needs besides.
WITH_tcp := tests/fuzz/tcp_scene.o tests/native/fake_kernel.o tests/native/fake_device.o
WITH_kernel := tests/fuzz/kernel_scene.o tests/native/fake_kernel.o

.PHONY: all $(C_TARGETS) $(PYTHON_TARGETS)
.SECONDARY:
all: $(C_TARGETS) $(PYTHON_TARGETS)

$(OUT)/%.o: %.c tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@clang $(CFLAGS) -fsanitize=fuzzer-no-link,$(SANITIZE) -c $< -o $@

.SECONDEXPANSION:
$(C_TARGETS:%=$(OUT)/%_fuzz): $(OUT)/%_fuzz: $(OUT)/tests/fuzz/%_fuzz.o $$(addprefix $(OUT)/,$$(WITH_$$*)) $(NATIVE)
	@clang -fsanitize=fuzzer,$(SANITIZE) $^ -lpthread -lm -o $@

$(C_TARGETS): %: $(OUT)/%_fuzz
	@tests/fuzz/run $@ $(SECONDS) $<

$(PYTHON_TARGETS):
	@tests/fuzz/run $@ $(SECONDS) .venv/bin/python tests/fuzz/$@_fuzz.py

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
