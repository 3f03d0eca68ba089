"""All benchmarks, one table after the other; to be run by hand, on a quiet machine.

python tests/benchmarks                  everything
python tests/benchmarks startup files    some of it
python tests/benchmarks linear JSON      one family of the readers' shapes; exit 1 where a reader is not linear
python tests/benchmarks speed float32    one dtype of the comparison with torch.nn.functional
python tests/benchmarks calls            what a call on a small tensor costs
python tests/benchmarks limit            by size and by groups, and the picture examples/speed.svg
python tests/benchmarks backward float32 one dtype of the comparison with torch's backward pass
python tests/benchmarks datasets 10      many files, among them 10 GiB of NPY shards [1], against cat
"""

from __future__ import annotations

import sys

import backward
import calls
import datasets
import files
import limit
import linear
import speed
import startup

SECTIONS = ("startup", "calls", "speed", "limit", "backward", "files", "linear", "datasets")

if __name__ == "__main__":
    chosen = sys.argv[1:] or SECTIONS
    dtypes = [name for name in chosen if name in speed.DTYPES] or list(speed.DTYPES)
    if "startup" in chosen:
        startup.main()
        print()
    if "calls" in chosen:
        calls.main()
        print()
    if "speed" in chosen:
        speed.main(dtypes)
        print()
    if "limit" in chosen:
        limit.main()
        print()
    if "backward" in chosen:
        backward.main(dtypes)
        print()
    if "files" in chosen:
        files.main()
        print()
    if "datasets" in chosen:
        datasets.main(*(float(name) for name in chosen if name.isdecimal()))
        print()
    if "linear" in chosen:
        sys.exit(linear.main([name for name in chosen if name not in SECTIONS and not name.isdecimal()]))
