"""The compiled inner loops of large tensors: built where there is a C compiler, left out where there is none."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "normcli._tiles",
            ["normcli/tiles.c"],
            # An fma only where one is written, so that every processor gives the same bits.
            extra_compile_args=[
                "-O3",
                "-g0",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-Wno-psabi",
            ],
            py_limited_api=True,
            optional=True,  # NumPy does the same, more slowly
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
