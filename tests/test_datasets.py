"""Statistics of many files: the same numbers from every format, and exactly those of fractions."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

import normcli
from normcli.arithmetic import pool
from normcli.datasets import addresses, arrays, resume, shards, spec
from normcli.errors import InputError, UnavailableError

RNG = np.random.default_rng(20)
VALUES = (RNG.standard_normal((24, 3, 5, 7)) * [[[[1.0]], [[2.0]], [[30.0]]]] + 4).astype(np.float32)
TABLE = RNG.standard_normal((50, 3)) * [1, 10, 0.1] + [0, 5, 1000]


def exact(values: np.ndarray) -> tuple[Fraction, Fraction]:
    """The mean and the biased variance of all the numbers, as fractions."""
    numbers = list(map(Fraction, values.astype(np.float64).reshape(-1).tolist()))
    mean = sum(numbers, Fraction(0)) / len(numbers)
    return mean, sum(((number - mean) ** 2 for number in numbers), Fraction(0)) / len(numbers)


def channels(values: np.ndarray, axis: int) -> list[np.ndarray]:
    return list(np.moveaxis(values, axis, 0))


def check(pooled: normcli.Pooled, values: np.ndarray, axis: int = 1) -> None:
    """Every statistic is that of the values, within one unit in its last place."""
    for at, channel in enumerate(channels(values, axis)):
        mean, var = exact(channel)
        assert pooled.n[at] == channel.size
        assert abs(Fraction(pooled.mean[at].item()) - mean) <= Fraction(float(np.spacing(abs(float(mean)))))
        assert abs(Fraction(pooled.var[at].item()) - var) <= Fraction(float(np.spacing(float(var))))
        assert (pooled.min[at], pooled.max[at]) == (channel.min(), channel.max())


# --- exactness ------------------------------------------------------------------------------------

HARD: dict[str, np.ndarray] = {
    "mean 1e6, std 1e-4": 1e6 + 1e-4 * RNG.standard_normal((9000, 1)),
    "constant": np.full((5000, 1), 0.1),
    "one spike": np.concatenate([np.full((7000, 1), 0.1), [[1e3]], np.full((10, 1), 0.1)]),
    "two numbers": np.array([[1e16], [1.0]]),
    "columns": RNG.standard_normal((3000, 5)) * [1, 1e-3, 1e3, 1, 1] + [1e4, 1e4, -1e4, 0, 1e9],
    "float32": VALUES,
    "float32 far from 0": (1e4 + 0.25 * RNG.standard_normal((20_000, 1))).astype(np.float32),
    "float32 constant": np.full((20_001, 1), 0.1, np.float32),
    "float32 spike": np.concatenate([np.full((9000, 1), 0.1), [[1e30]], np.zeros((10, 1))]).astype(np.float32),
    "float32 step": np.repeat([1.0, 1e7, -3.0, 1e-20], [8, 120, 9000, 8])[:, None].astype(np.float32),
    "float32 columns": (RNG.standard_normal((9000, 3)) * [1, 1e-3, 1e3] + [1e4, -1, 1e6]).astype(np.float32),
    "float16": VALUES.astype(np.float16),
    "float16 plane": (RNG.standard_normal((2, 2, 95, 101)) + 9).astype(np.float16),
    "bytes": RNG.integers(0, 256, (9000, 3), dtype=np.uint8),
    "int8": RNG.integers(-128, 128, (9000, 3), dtype=np.int8),
    "int16": RNG.integers(-(2**15), 2**15, (9000, 3), dtype=np.int16),
    "uint16": RNG.integers(65000, 2**16, (9000, 3), dtype=np.uint16),
    "int32": RNG.integers(-(2**31), 2**31, (9000, 2), dtype=np.int32),
    "uint32": RNG.integers(2**32 - 9, 2**32, (9000, 2), dtype=np.uint32),
    "int64": RNG.integers(-(2**40), 2**40, (900, 2), dtype=np.int64),
}


@pytest.mark.parametrize("name", HARD)
def test_within_a_unit_of_fractions(tmp_path: Path, name: str) -> None:
    for number, part in enumerate(np.array_split(HARD[name], 3 if len(HARD[name]) > 2 else 2)):
        np.save(tmp_path / f"{number}.npy", part)
    check(normcli.stats(str(tmp_path)), HARD[name])


@pytest.mark.parametrize("name", HARD)
def test_numpy_does_the_same_where_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(pool, "_compiled", lambda: None)
    check(normcli.stats(np.array_split(HARD[name], 2)), HARD[name])


def test_float16_infinity_and_nan_are_counted() -> None:
    values = np.array([[1.0, np.inf], [np.nan, 2.0], [3.0, -np.inf], [5.0, 4.0]], np.float16)
    left, whole = (normcli.stats([values], finite=finite) for finite in (True, False))
    assert (left.nan.tolist(), left.plus_inf.tolist(), left.minus_inf.tolist()) == ([1, 0], [0, 1], [0, 1])
    assert (left.n.tolist(), left.mean.tolist(), left.max.tolist()) == ([3, 2], [3.0, 3.0], [5.0, 4.0])
    assert whole.n.tolist() == [4, 4]
    np.testing.assert_array_equal(whole.mean, [np.nan, np.nan])
    np.testing.assert_array_equal(whole.max, [np.nan, np.inf])
    np.testing.assert_array_equal(normcli.stats([values[:1]]).mean, [1.0, np.inf])


def test_scale_divides_exactly_once() -> None:
    pooled = normcli.stats([HARD["bytes"]], scale=255)
    mean, var = exact(HARD["bytes"][:, 0])
    assert pooled.mean[0] == float(mean / 255)
    assert pooled.var[0] == float(var / 255**2)


AXES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "channels": ({}, (0, 2, 3)),
    "channels last": ({"channel_axis": -1}, (0, 1, 2)),
    "batch": ({"channel_axis": 0}, (1, 2, 3)),
    "two kept": ({"axes": (0, 3)}, (0, 3)),
    "two kept apart": ({"axes": (0, 2)}, (0, 2)),
    "everything": ({"whole": True}, (0, 1, 2, 3)),
    "nothing averaged": ({"axes": ()}, ()),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", AXES)
def test_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, order: str) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 600)  # so that blocks are cut along every axis
    options, axes = AXES[name]
    np.save(tmp_path / "x.npy", np.asarray(VALUES, order=order))
    monkeypatch.setattr("normcli.datasets.plain.TINY", 0)
    pooled = normcli.stats(tmp_path / "x.npy", **options)
    np.testing.assert_allclose(pooled.mean, VALUES.astype(np.float64).mean(axes), rtol=1e-14)
    np.testing.assert_allclose(pooled.var, VALUES.astype(np.float64).var(axes), rtol=1e-12, atol=1e-30)
    np.testing.assert_array_equal(pooled.max, VALUES.max(axes))


@pytest.mark.parametrize("block", [600, 2**20])
@pytest.mark.parametrize("text", ["5:20:3", ":,1:", "::2,:,1:4,::3", "-3:"])
def test_select_takes_what_python_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block: int) -> None:
    monkeypatch.setattr(arrays, "BLOCK", block)
    np.save(tmp_path / "x.npy", VALUES)
    parts = tuple(slice(*one) for one in spec.selection(text))
    check(normcli.stats(tmp_path / "x.npy", select=parts), VALUES[parts])


# --- formats --------------------------------------------------------------------------------------


def npy(place: Path) -> str:
    for number, part in enumerate(np.array_split(VALUES, 5)):
        np.save(place / f"{number}.npy", part)
    return f"{place}/{{0..4}}.npy"


def turned(place: Path) -> str:
    np.save(place / "x.npy", np.asfortranarray(VALUES).astype(">f4"))
    return f"{place}/x.npy"


def npz(place: Path) -> str:
    np.savez_compressed(place / "x.npz", other=VALUES[:1], a0=VALUES[:9], a1=VALUES[9:])
    return f"{place}/x.npz::a*"


def safetensors(place: Path) -> str:
    from safetensors.numpy import save_file

    save_file({"w": VALUES, "layer.u": np.ones(3)}, place / "x.safetensors")
    return f"{place}/x.safetensors::w"


def zarr2(place: Path) -> str:
    return store(place, 2)


def zarr3(place: Path) -> str:
    return store(place, 3)


def store(place: Path, version: int) -> str:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(place / "x.zarr", mode="w", zarr_format=version)
    group.create_array("fields", shape=VALUES.shape, chunks=(5, 2, 5, 3), dtype="f4")[...] = VALUES
    group.create_array("time", shape=(24,), chunks=(24,), dtype="i8")
    return f"{place}/x.zarr::fields"


def hdf5(place: Path) -> str:
    h5py = pytest.importorskip("h5py")
    with h5py.File(place / "x.h5", "w") as file:
        file.create_dataset("deep/fields", data=VALUES, chunks=(7, 3, 2, 7))
    return f"{place}/x.h5"


FORMATS: list[Callable[[Path], str]] = [npy, turned, npz, safetensors, zarr2, zarr3, hdf5]


@pytest.mark.parametrize("made", FORMATS)
def test_arrays_of_every_format(tmp_path: Path, made: Callable[[Path], str]) -> None:
    check(normcli.stats(made(tmp_path)), VALUES)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "parquet"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {name: TABLE[:, at] for at, name in enumerate("abc")} | {"who": ["x"] * len(TABLE)}
        parquet.write_table(arrow.table(columns), path, row_group_size=7)
    else:
        sign = {"csv": ",", "tsv": "\t", "txt": " "}[suffix]
        lines = [sign.join(("a", "b", "c")), *(sign.join(map(repr, row)) for row in TABLE.tolist())]
        path.write_text("\n".join(lines))
    pooled = normcli.stats(path)
    check(pooled, TABLE)
    assert pooled.columns == ("a", "b", "c")
    check(normcli.stats(f"{path}::b"), TABLE[:, 1:2])


def test_lists_in_parquet_are_channels(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    column = arrow.FixedSizeListArray.from_arrays(arrow.array(TABLE.reshape(-1)), 3)
    parquet.write_table(arrow.table({"state": column}), tmp_path / "x.parquet")
    check(normcli.stats(tmp_path / "x.parquet"), TABLE)


def test_packed_values_are_unpacked(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.nc", "w") as file:
        data = file.create_dataset("t2m", data=np.array([[0, 10], [20, -9]], np.int16))
        data.attrs.update({"scale_factor": 0.5, "add_offset": 270.0, "_FillValue": np.int16(-9)})
        file.create_dataset("lat", data=np.arange(2.0)).make_scale("lat")
        data.dims[0].attach_scale(file["lat"])
    pooled = normcli.stats(tmp_path / "x.nc", whole=True, finite=True)
    assert (pooled.mean.item(), pooled.max.item(), pooled.nan.item()) == (275.0, 280.0, 1)


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    sizes = [(rng.integers(9, 30), rng.integers(9, 30)) for _ in range(12)]
    return [np.clip(rng.normal(rng.integers(20, 230), 30, (*size, 3)), 0, 255).astype(np.uint8) for size in sizes]


def png(values: np.ndarray, kind: str = "PNG") -> bytes:
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def folder_of_images(place: Path) -> Path:
    for number, values in enumerate(pictures()):
        folder = place / "photos" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.png").write_bytes(png(values))
    return place / "photos"


def tarred(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def pixels() -> np.ndarray:
    return np.concatenate([values.reshape(-1, 3) for values in pictures()])


def test_a_folder_of_images(tmp_path: Path) -> None:
    pooled = normcli.stats(folder_of_images(tmp_path))
    check(pooled, pixels())
    assert (pooled.read, pooled.samples) == (12, 12)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_tar_shards(tmp_path: Path, suffix: str) -> None:
    members = {}
    for number, values in enumerate(pictures()):
        stream = io.BytesIO()
        np.save(stream, values)
        members |= {
            f"{number:03}.png": png(values),
            f"{number:03}.cls": b"1",
            f"{number:03}.img.npy": stream.getvalue(),
        }
    path = tarred(tmp_path / f"x.{suffix}", members, "w:gz" if suffix == "tar.gz" else "w")
    check(normcli.stats(path), pixels())
    check(normcli.stats(f"{path}::img.npy", channel_axis=-1), pixels())
    with pytest.raises(InputError, match=r"holds no txt; its members end in cls, img.npy, png"):
        normcli.stats(f"{path}::txt")


def test_images_of_other_modes_are_named_and_converted(tmp_path: Path) -> None:
    photos = folder_of_images(tmp_path)
    (photos / "grey.png").write_bytes(png(np.full((4, 4), 9, np.uint8)))
    with pytest.raises(InputError, match=r"grey.png has 1 channel, and .*000.png has 3 channels"):
        normcli.stats(photos)
    assert normcli.stats(photos, convert="RGB").n.tolist() == [len(pixels()) + 16] * 3


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "x.png").write_bytes(png(np.zeros((50, 50), np.uint8)))
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(InputError, match=r"x.png is too large to be unpacked"):
        normcli.stats(tmp_path / "x.png")


def broken(place: Path) -> list[str]:
    """Files that cannot be read, one of each kind, beside one that can."""
    np.save(place / "a.npy", VALUES)
    data = (place / "a.npy").read_bytes()
    (place / "short.npy").write_bytes(data[:-3])
    (place / "long.npy").write_bytes(data + b"x")
    (place / "none.npy").write_bytes(b"")
    (place / "text.npy").write_text("hello")
    np.save(place / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(place / "empty.npy", np.zeros((0, 3)))
    (place / "bad.npz").write_bytes(b"PK\x03\x04" + b"\0" * 99)
    (place / "bad.safetensors").write_bytes(b"\xff" * 20)
    (place / "bad.csv").write_text("a,b,c\n1,2,3\n1,x,3\n")
    (place / "ragged.csv").write_text("1,2,3\n1,2\n")
    (place / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    (place / "bad.tar").write_bytes(b"\1" * 2000)
    (place / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    (place / "bad.parquet").write_bytes(b"PAR1" + b"\0" * 50)
    (place / "bad.zarr").mkdir()
    return sorted(path.name for path in place.iterdir() if path.name != "a.npy")


def test_a_bad_file_is_named_and_ends_the_run_or_is_left_out(tmp_path: Path, normcli: Run) -> None:
    names = broken(tmp_path)
    done = normcli("stats", "a.npy", *names, "--skip-bad", "--json")
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)["left_out"]
    assert [one["file"] for one in left] == names
    assert [one for one in left if one["file"].partition("::")[0] not in one["why"]] == []
    assert json.loads(done.stdout)["n"] == [VALUES.size // 3] * 3


@pytest.mark.parametrize("name", ["short.npy", "bad.csv", "objects.npy"])
def test_a_bad_file_ends_the_run(tmp_path: Path, normcli: Run, name: str) -> None:
    broken(tmp_path)
    done = normcli("stats", "a.npy", name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert name in done.stderr


WRONG: dict[str, tuple[list[str], str]] = {
    "no file": (["no.npy"], "no file no.npy"),
    "no match": (["*.tif"], "no file matches *.tif"),
    "no format": (["x.what"], "cannot tell the format of x.what"),
    "mixed": (["mixed"], "mixed holds 1 CSV file and 1 NPY file; say which"),
    "axis": (["x.npy", "--channel-axis", "7"], "x.npy has no axis 7: it has 0 to 1"),
    "both": (["x.npy", "--channel-axis", "1", "--axes", "0"], "--channel-axis and --axes say the same"),
    "scale": (["x.npy", "--scale", "0"], "--scale is 0"),
    "select": (["x.npy", "--select", "1"], "--select has '1'; give START:STOP"),
    "select nothing": (["x.npy", "--select", "9:"], "--select takes nothing of x.npy"),
    "other channels": (["x.npy", "wide.npy"], "wide.npy has 3 channels, and x.npy has 2 channels"),
    "workers": (["x.npy", "--workers", "0"], "--workers is 0; it must be between 1 and 1024"),
    "expect": (["x.npy", "--expect", "sum=1"], "--expect names 'sum'; use mean, var"),
    "expect shape": (["x.npy", "--expect", "std=[1,2,3]"], "--expect std has 3 numbers, and there are 2 channels"),
    "output": (["x.npy", "-o", "y.csv"], "--output 'y.csv' must end in .npy"),
    "output twice": (["x.npy", "wide.npy", "-o", "y.npy"], "x.npy and wide.npy would both be written to y.npy"),
    "over itself": (["x.npy", "-o", "{name}.npy"], "x.npy is one of the files that are read"),
    "dask": (["x.npy", "--dask", "nowhere"], "--dask nowhere is neither an address nor a scheduler file"),
    "timeout": (
        ["x.npy", "--dask", "tcp://127.0.0.1:9", "--timeout", "nan"],
        "--timeout is nan; it must be a positive",
    ),
    "member": (["x.npy::a"], "x.npy::a: an NPY file holds one array without a name"),
    "resume": (["x.npy", "--resume", "x.what"], "x.what is no file of --resume"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, normcli: Run, name: str) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "wide.npy", np.arange(6.0).reshape(2, 3))
    (tmp_path / "x.what").write_text("hello")
    (tmp_path / "mixed").mkdir()
    np.save(tmp_path / "mixed" / "x.npy", np.arange(6.0))
    (tmp_path / "mixed" / "labels.csv").write_text("1,2")
    arguments, words = WRONG[name]
    done = normcli("stats", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith(f"error: {words}"), done.stderr


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UnavailableError, match="h5py") as caught:
        normcli.stats(tmp_path / "x.h5")
    assert "normcli[hdf5]" in f"{caught.value} {caught.value.hint}"


def test_a_file_given_twice_counts_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0))
    assert normcli.stats([f"{tmp_path}/x.npy", f"{tmp_path}/*.npy"]).n.item() == 6


def test_parts_of_a_large_file_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    np.save(tmp_path / "y.npy", VALUES + 1)
    whole = normcli.stats(str(tmp_path))
    monkeypatch.setattr("normcli.datasets.plain.TINY", 0)
    monkeypatch.setattr(shards, "PART", 2000)
    monkeypatch.setattr(arrays, "BLOCK", 700)
    pooled = normcli.stats(str(tmp_path))
    assert len(shards.cut(addresses.expanded([str(tmp_path)]))) == 10
    check(pooled, np.concatenate([VALUES, VALUES + 1]))
    assert pooled.read == 2
    np.testing.assert_allclose(pooled.rows[1], whole.rows[1], rtol=1e-9)


# --- slips ----------------------------------------------------------------------------------------


def test_the_usual_constant_is_recognized(tmp_path: Path, normcli: Run) -> None:
    folder_of_images(tmp_path)
    stds = np.mean([values.reshape(-1, 3).std(0) for values in pictures()], 0) / 255
    said = ",".join(f"{std:.3f}" for std in stds)
    done = normcli("stats", "photos", "--scale", "255", "--expect", f"std={said}")
    assert done.returncode == 1
    assert "mean of the samples' stds" in done.stdout.splitlines()[-1]
    right = ",".join(f"{std:.4f}" for std in pixels().std(0) / 255)
    done = normcli("stats", "photos", "--scale", "255", "--expect", right, "--expect", "mean=[0.9]")
    assert done.stdout.splitlines()[-2:][0] == "std checks"
    assert done.returncode == 1  # of the mean


def slips(pooled: normcli.Pooled) -> dict[str, np.ndarray]:
    return {slip.key: slip.std for slip in pooled.mistakes}


def test_every_slip_gives_what_it_says() -> None:
    batches = [VALUES[:5] + 10, VALUES[5:7], VALUES[7:]]
    pooled = normcli.stats(batches, scale=2.0)
    each = [batch.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1) / 2 for batch in batches]
    var, means = np.array([one.var(1) for one in each]), np.array([one.mean(1) for one in each])
    everything = np.concatenate(each, 1)
    expected = {
        "mean_of_stds_of_files": np.sqrt(var).mean(0),
        "mean_of_unbiased_stds_of_files": np.mean([one.std(1, ddof=1) for one in each], 0),
        "root_of_mean_var_of_files": np.sqrt(var.mean(0)),
        "std_of_means_of_files": means.std(0),
        "equal_weights_of_files": np.sqrt(var.mean(0) + means.var(0)),
        "all_channels": np.full(3, everything.std()),
        "reversed_channels": everything.std(1)[::-1],
        "variance_for_std": everything.var(1),
        "not_scaled": everything.std(1) * 2,
        "scaled_by_256": everything.std(1) * 2 / 3,
        "scaled_twice": everything.std(1) / 2,
    }
    found = slips(pooled)
    assert set(found) == {*expected, "float32_one_pass"}
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-12, err_msg=key)


def test_float32_in_one_pass_loses_everything_at_a_mean_of_1e4() -> None:
    found = slips(normcli.stats([np.array([[10000.0], [10001.0], [10002.0]], np.float32)]))
    assert not np.isclose(found["float32_one_pass"][0], np.sqrt(2 / 3), rtol=0.2)


def test_an_outlying_file_is_named(tmp_path: Path) -> None:
    for number in range(9):
        np.save(tmp_path / f"{number}.npy", RNG.standard_normal((40, 2)) + 100 * (number == 5))
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    pooled = normcli.stats(str(tmp_path), finite=True)
    assert [Path(pooled.name_of(one.file)).name for one in pooled.outliers] == ["nan.npy", "5.npy"]


# --- what is done with them -----------------------------------------------------------------------


def test_a_state_is_read_by_the_command_that_needs_it(tmp_path: Path, normcli: Run) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    assert normcli("stats", "x.npy", "--save-state", "bn.json").returncode == 0
    state = json.loads((tmp_path / "bn.json").read_text())
    np.testing.assert_allclose(state["running_var"], VALUES.astype(np.float64).var((0, 2, 3), ddof=1), rtol=1e-12)
    done = normcli("batch", "x.npy", "--state", "bn.json", "--mode", "eval", "--eps", "0", "--only", "output", "--json")
    assert abs(np.mean(json.loads(done.stdout))) < 1e-6


@pytest.mark.parametrize("options", [[], ["--channel-axis", "-1"], ["--axes", "0,2"], ["--channel-axis", "none"]])
def test_every_file_is_standardized(tmp_path: Path, normcli: Run, options: list[str]) -> None:
    parts = [VALUES[:9], np.asfortranarray(VALUES[9:])]
    for number, part in enumerate(parts):
        np.save(tmp_path / f"x{number}.npy", part)
    assert normcli("stats", "x*.npy", "-o", "out/{name}.npy", *options).returncode == 0
    axes = {"": (0, 2, 3), "-1": (0, 1, 2), "0,2": (0, 2), "none": (0, 1, 2, 3)}[options[-1] if options else ""]
    wide = VALUES.astype(np.float64)
    expected = (wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)
    found = np.concatenate([np.load(tmp_path / "out" / f"x{number}.npy") for number in range(2)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_table_is_standardized(tmp_path: Path, normcli: Run) -> None:
    np.savetxt(tmp_path / "x.csv", TABLE, delimiter=",", fmt="%.17g")
    assert normcli("stats", "x.csv", "-o", "{name}.npy").returncode == 0
    np.testing.assert_allclose(
        np.load(tmp_path / "x.npy"), (TABLE - TABLE.mean(0)) / TABLE.std(0), rtol=1e-9, atol=1e-9
    )


# --- workers --------------------------------------------------------------------------------------


def many(place: Path) -> str:
    for number in range(12):
        np.save(place / f"{number:02}.npy", RNG.standard_normal((9, 3, 16, 16)) + number)
    return str(place)


def bits(pooled: normcli.Pooled) -> bytes:
    parts = (pooled.part.total, pooled.part.samples, pooled.part.rows)
    return b"".join(part.tobytes() for part in parts if part is not None)


def test_two_workers_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_FILES", 1)
    source = many(tmp_path)
    assert bits(normcli.stats(source, workers=2)) == bits(normcli.stats(source))


def test_the_order_of_the_parts_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from normcli.datasets.tree import Tree

    monkeypatch.setattr(shards, "_FILES", 1)
    work = shards.cut(addresses.expanded([many(tmp_path)]))
    parts = {shard.number: shards.shard_statistics(shard, spec.Spec()) for shard in work}
    found = []
    for seed in range(4):
        tree = Tree(len(work))
        for number in np.random.default_rng(seed).permutation(len(work)).tolist():
            tree.put(number, resume.unpacked(resume.packed(parts[number])))
        found.append(tree.whole().total.tobytes())
    assert len(set(found)) == 1


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_FILES", 1)
    (tmp_path / "data").mkdir()
    source, kept = many(tmp_path / "data"), tmp_path / "kept"
    whole = bits(normcli.stats(source))

    def stop(done: int, size: int) -> None:
        if done > size / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        normcli.stats(source, resume=str(kept), progress=stop)
    with kept.open("ab") as file:
        file.write(b"\7" * 30)  # a record that was cut off
    seen: list[int] = []
    again = normcli.stats(source, resume=str(kept), progress=lambda done, size: seen.append(done))
    assert (bits(again), len(seen)) == (whole, 5)
    np.save(tmp_path / "data" / "00.npy", np.ones((1, 3, 2, 2)))
    with pytest.raises(InputError, match="is of other files or options"):
        normcli.stats(source, resume=str(kept))


def test_nothing_is_imported_before_it_is_needed(tmp_path: Path, environment: dict[str, str]) -> None:
    import subprocess
    import sys

    np.save(tmp_path / "x.npy", VALUES)
    names = {"fsspec", "dask", "distributed", "zarr", "h5py", "PIL", "torch", "pyarrow", "rich"}
    code = f"import sys, normcli; normcli.stats('x.npy'); print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
