"""``make bench-micro``: runs the native micro benchmark and holds it against its targets."""

from __future__ import annotations

import json
import subprocess

from bench.harness import BUILD, save

ROUNDS = 21
PATHS = {
    "path_one_field": 12.0,
    "path_three_fields": 18.0,
    "path_three_random_fields": 18.0,
    "path_imix_10000_tuples": 30.0,
    "path_imix_10000_flows": 30.0,
}
"""ns per packet, at most"""
CHECK_66_NS = 60.0
"""of a frame of 66 bytes in the cache, at most"""


def main() -> None:
    output = subprocess.run([BUILD / "micro", str(ROUNDS)], capture_output=True, text=True, check=True).stdout
    figures = json.loads(output)
    add = figures["atomic_add"]["median"]
    targets = {
        "alloc_free": ("x a lone atomic add", figures["alloc_free"]["median"] / add, 1.5),
        "alloc_free_application": (
            "x a lone atomic add",
            figures["alloc_free_application"]["median"] / add,
            1.5,
        ),
        "cross_thread_return": ("x a lone atomic add", figures["cross_thread_return"]["median"] / add, 6.0),
        **{name: ("ns per packet", figures[name]["median"], limit) for name, limit in PATHS.items()},
        "check_66_bytes": ("ns per frame", figures["check_66_bytes"]["median"], CHECK_66_NS),
    }
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{name:<26} {value['median']:6.2f} ns   ({value['min']:.2f} to {value['max']:.2f})")
    for name, (unit, value, limit) in targets.items():
        print(f"{name:<26} {value:6.2f} {unit}, target {limit:g}: {'met' if value <= limit else 'MISSED'}")
    result = {
        name: {"value": round(v, 3), "unit": unit, "target": t} for name, (unit, v, t) in targets.items()
    }
    print(save("micro", "make bench-micro", {"figures": figures, "targets": result}))


if __name__ == "__main__":
    main()
