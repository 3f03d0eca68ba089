"""The compiled inner loops of large tensors: built where there is a C compiler, left out where there is none."""

import sysconfig

from setuptools import Extension, setup

# One wheel for all versions of Python from 3.11 on; those without the global lock have no stable interface.
SOURCES = (
    "loops",
    "sums",
    "rows",
    "columns",
    "turned",
    "halves",
    "emit",
    "tensors",
    "threads",
    "backward",
    "backward_floats",
    "once",
    "running",
    "pool",
)
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "normcli.arithmetic._loops",
            [f"normcli/arithmetic/{name}.c" for name in SOURCES],
            depends=["normcli/arithmetic/loops.h"],
            # An fma only where one is written, so that every processor gives the same bits.
            extra_compile_args=[
                "-O3",
                "-g0",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-Wno-psabi",
                "-pthread",
            ],
            extra_link_args=["-pthread"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
            py_limited_api=STABLE,
            optional=True,  # NumPy does the same, more slowly
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
