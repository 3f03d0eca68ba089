"""Arrays of floating-point numbers: what is taken for one, its dtype, rounding to it and its units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.dtypes import DTYPES, FLOAT_DTYPES
from normcli.errors import InputError
from normcli.words import either

Floats = NDArray[np.float64]

_KNOWN = {np.dtype(name): name for name in ("float16", "float32", "float64")}  # NumPy is slow to spell them


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name; bfloat16 is ml_dtypes' extension type."""
    if name == "bfloat16":
        import ml_dtypes  # NumPy has no bfloat16 of its own; imported only where it is used

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def rounded(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The values rounded once to ``dtype``, to nearest, ties to even.

    ml_dtypes goes through float32, and so rounds twice: where that lies halfway between two numbers, the surplus bits
    are rounded away in float64, and what is left converts exactly.

    >>> float(rounded(np.array([1 + 2**-8 + 2**-40]), "bfloat16")[0])
    1.0078125
    """
    if dtype != "bfloat16":
        return values.astype(dtype)
    single = np.asarray(values, np.float32)
    found = single.astype(numpy_dtype(dtype))
    halfway = single.view(np.uint32) << 16 == 2**31
    if halfway.any():
        found[halfway] = _rounded_at_once(np.asarray(values)[halfway])
    return found


def _rounded_at_once(values: NDArray[Any]) -> NDArray[Any]:
    quantum = np.ldexp(1.0, np.maximum(np.frexp(values)[1] - 8, -133))  # 8 bits; the least is 2**-133
    near = np.where(np.isfinite(values), np.rint(values / quantum) * quantum, values)
    return near.astype(np.float32).astype(numpy_dtype("bfloat16"))


def ulp(values: Floats, dtype: str) -> Floats:
    """The distance between neighbouring numbers of ``dtype`` at the values.

    >>> ulp(np.array([1.0, 0.0]), "float32").tolist() == [2.0**-23, 2.0**-149]
    True
    """
    bits, least = DTYPES[dtype].bits, DTYPES[dtype].least
    exponent = np.where(values == 0, least, np.frexp(values)[1] - bits)
    return np.asarray(np.ldexp(1.0, np.maximum(exponent, least)), np.float64)


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, found out without importing torch."""
    return type(x).__module__.split(".")[0] == "torch"


def dtype_name(x: Any) -> str:
    """The name of an array's or a tensor's dtype.

    >>> dtype_name(np.float32(1))
    'float32'
    """
    return _KNOWN.get(x.dtype) or str(x.dtype).removeprefix("torch.")


def as_float_array(x: Any, dtype: str | None = None, *, name: str = "the tensor") -> NDArray[Any]:
    """``x`` as an array of a floating dtype: of ``dtype`` if given, float64 for integers.

    ``name`` is what an error calls it.

    >>> str(as_float_array([1, 2]).dtype), str(as_float_array([1, 2], "float16").dtype)
    ('float64', 'float16')
    """
    if (
        type(x) is np.ndarray
        and (known := _KNOWN.get(x.dtype))
        and (dtype is None or (type(dtype) is str and dtype == known))
    ):
        return x
    if is_torch(x):
        x = _array_of_tensor(x, name)
    if type(x).__name__ == "MaskedArray":
        raise InputError(f"{name} is a masked array; fill or drop what is masked first")
    try:
        array = np.asarray(x)
    except ValueError:
        raise InputError(f"the rows of {name} have different lengths") from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if str(array.dtype) not in FLOAT_DTYPES:
        if array.dtype.kind not in "iu":
            known = f"{either(FLOAT_DTYPES)}, or integers"
            raise InputError(f"{name} holds {array.dtype} values; only real numbers can be normalized: {known}")
        array = array.astype(np.float64)
    _KNOWN[array.dtype] = str(array.dtype)  # bfloat16, which is not always there, from now on
    if not isinstance(dtype, str) or dtype == str(array.dtype) or dtype not in FLOAT_DTYPES:
        return array  # an unknown name is refused by the plan, with the names that are known
    with np.errstate(over="ignore"):
        return rounded(array, dtype)


def _array_of_tensor(x: Any, name: str) -> NDArray[Any]:
    if str(x.layout) != "torch.strided":
        raise InputError(f"{name} is sparse ({x.layout}); give its to_dense()")
    try:
        x = x.detach().cpu()
        if dtype_name(x) != "bfloat16":
            return np.asarray(x)
    except (RuntimeError, TypeError) as error:  # a tensor without data, or of a dtype that NumPy has not
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    return np.asarray(x.float()).astype(numpy_dtype("bfloat16"))  # exact: NumPy cannot take bfloat16 itself
