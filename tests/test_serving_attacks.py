"""Requests that mean harm, over HTTP: each is refused in plain words, and the service continues."""

import gzip
import json
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.attacked import (
    FEEDBACK,
    INFER,
    INVOKE,
    JSON,
    KEYED,
    LABEL,
    POSTS,
    PREDICT,
    REVIEW,
    check_refused,
    deploy_all,
    find_no_fault,
    surviving,
)
from tests.served import ROW, Deployment, Served

pytestmark = [pytest.mark.slow, pytest.mark.every_case]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy_all(tmp_path_factory.mktemp("attacked"))
    yield made
    made.lake.close()


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with surviving(served) as client:
        yield client


@pytest.mark.exhaustive
def test_schemathesis_finds_no_fault(served: Served, client: httpx2.Client, tmp_path: Path) -> None:
    # Those who start runs are asked elsewhere, with and without an orchestrator.
    url = f"http://{served.http}/openapi.json"
    find_no_fault(url, tmp_path, "--exclude-path-regex", "^/control/")


ODD = [
    # Texts that are none, or that mean something somewhere.
    r'"\ud800"', r'"\udfff\ud800"', r'"a\u0000b"', r'"\u0000"', '"\x7f"', '""', '" "', '"null"',
    '"\'; DROP TABLE trips; --"', '"$(id)"', '"{{7*7}}"', '"' + "x" * 100_000 + '"',
    r'"\n{\"level\": \"error\"}"', '"\\u202e"',
    # Numbers beyond what there is.
    "1e999", "-1e999", "1e308", "-1.7976931348623157e308", "5e-324", "-0.0", "1" + "0" * 400,
    "9" * 5_000, "-" + "9" * 5_000, "9223372036854775808", "-9223372036854775809",
    "18446744073709551616", "NaN", "Infinity", "-Infinity", '"NaN"', '"inf"', "0x10", "01", "1_0",
    # Times before and after all calendars.
    '"infinity"', '"-infinity"', '"epoch"', '"294247-01-10 04:00:54.775806+00"',
    '"290309-12-22 (BC) 00:00:00+00"', '"9999-12-31T23:59:59.999999-23:59"',
    '"0001-01-01T00:00:00+23:59"', '"2024-02-30T00:00:00Z"', '"2024-03-10T02:30:00"',
    # Other things than values.
    "true", "null", "[]", "{}", "[[[]]]", '{"$ref": "#"}', '{"__proto__": {}}',
    "[" * 10_000 + "]" * 10_000, "[" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000,
]  # fmt: skip


def written(row: dict[str, Any], name: str, value: str) -> str:
    """A row as JSON, with a value that is put there as it stands."""
    pairs = (f"{json.dumps(k)}: {value if k == name else json.dumps(v)}" for k, v in row.items())
    return "{" + ", ".join(pairs) + "}"


def bodies_with(value: str) -> Iterator[tuple[str, str]]:
    """Paths and bodies with a piece of JSON wherever a value can stand."""
    for name in ROW:
        row = written(ROW, name, value)
        yield INVOKE, f'{{"dataframe_records": [{row}]}}'
        lists = ", ".join(f'"{n}": [{value if n == name else json.dumps(ROW[n])}]' for n in ROW)
        yield INVOKE, f'{{"inputs": {{{lists}}}}}'
        inputs = ", ".join(
            f'{{"name": "{n}", "shape": [1], "datatype": "{"BYTES" if n == "city" else "FP64"}", '
            f'"data": [{value if n == name else json.dumps(ROW[n])}]}}'
            for n in ROW
        )
        yield INFER, f'{{"inputs": [{inputs}]}}'
    yield INVOKE, f'{{"dataframe_split": {{"columns": {value}, "data": {value}}}}}'
    yield INVOKE, f'{{"dataframe_split": {{"columns": [{value}], "data": [[{value}]]}}}}'
    for key in ("name", "shape", "datatype", "data", "parameters"):
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1], "parameters": {}}
        yield INFER, f'{{"inputs": [{written(tensor, key, value)}]}}'
    for key in ("id", "inputs", "outputs", "parameters"):
        yield INFER, f'{{"{key}": {value}}}'
    for name in KEYED:
        yield PREDICT, f'{{"rows": [{written(KEYED, name, value)}]}}'
    yield PREDICT, f'{{"rows": {value}}}'
    yield PREDICT, f'{{"rows": [{json.dumps(KEYED)}], "version": {value}}}'
    for name in (*LABEL, "kind", "known_at", "prediction_id"):
        item = {**LABEL, name: LABEL.get(name)}
        yield FEEDBACK, f'{{"items": [{written(item, name, value)}]}}'
    yield FEEDBACK, f'{{"items": {value}}}'
    for key in ("label", "skip", "by"):
        yield REVIEW, written({"label": True, key: None}, key, value)
    for path in POSTS:
        yield path, value
        yield path, f"[{value}]"


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:30])
def test_an_odd_value_is_no_fault_of_the_service(client: httpx2.Client, value: str) -> None:
    for path, body in bodies_with(value):
        content = body.encode("utf-8", "surrogatepass")
        answer = client.post(path, content=content, headers=JSON)
        if answer.status_code >= 300:
            check_refused(answer, 400, 404, 422)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [{"city": "\xff"}]}',
        b'{"\xc0\xaf": 1}',
        b'"\xed\xa0\x80"',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"\x00" * 1000,
        b"{}{}",
        b'{"a": 1,}',
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_bytes_that_are_no_json_are_refused(client: httpx2.Client, path: str, body: bytes) -> None:
    check_refused(client.post(path, content=body, headers=JSON), 400)


def test_of_keys_that_come_twice_the_last_one_counts(client: httpx2.Client) -> None:
    row = json.dumps(ROW)
    twice = f'{{"instances": [{row}], "instances": [{row[:-1]}, "city": "Albany"}}]}}'
    once = {"instances": [{**ROW, "city": "Albany"}]}
    answer = client.post(INVOKE, content=twice, headers=JSON)
    assert answer.json() == client.post(INVOKE, json=once).json()


COLUMNS = [f"c{n}" for n in range(10_000)]


def test_ten_thousand_columns_are_refused_in_every_protocol(client: httpx2.Client) -> None:
    wide = dict.fromkeys(COLUMNS, 1.0)
    tensors = [{"name": n, "shape": [1], "datatype": "FP64", "data": [1]} for n in COLUMNS]
    for path, body in [
        (INVOKE, {"dataframe_records": [wide] * 10}),
        (INVOKE, {"dataframe_split": {"columns": COLUMNS, "data": [[1.0] * 10_000]}}),
        (INVOKE, {"instances": [[1.0] * 10_000]}),
        (INVOKE, {"inputs": {name: [1.0] for name in COLUMNS}}),
        (INFER, {"inputs": tensors}),
        (INFER, {"inputs": [{**tensors[0], "shape": [1, 10_000], "data": [1.0] * 10_000}]}),
        (PREDICT, {"rows": [{**KEYED, **wide}] * 10}),
        (FEEDBACK, {"items": [{**LABEL, **wide}]}),
        (REVIEW, {"label": True, **wide}),
    ]:
        check_refused(client.post(path, json=body), 400)


def test_names_without_number_do_not_hold_the_others_up(client: httpx2.Client) -> None:
    # Each of these once took time or memory by the square of its size.
    many = [f"{n:x}" for n in range(600_000)]
    check_refused(client.post(INVOKE, json={"dataframe_split": {"columns": many, "data": []}}), 400)
    sized = {"shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
    head = json.dumps({"inputs": [{"name": f"{n:x}", **sized} for n in range(40_000)]}).encode()
    lengths = {"inference-header-content-length": str(len(head))}
    content = head + b"\x01" * (7_900_000 - len(head))
    check_refused(client.post(INFER, content=content, headers=lengths), 400)
    check_refused(client.post(FEEDBACK, json={"items": [{"x" * 7_000_000: 1}]}), 400)


@pytest.mark.parametrize("length", ["²", "-1", "+2", "1e1", "9" * 5_000, "0x10", "2_0", "٣"])
def test_a_length_that_is_none_is_refused(client: httpx2.Client, length: str) -> None:
    # As bytes: header lines are latin-1, or whatever else somebody sends.
    headers = {"inference-header-content-length": length.encode("latin-1", "ignore") or b"\xd9"}
    check_refused(client.post(INFER, content=b"{}", headers=headers), 400)


def bomb(megabytes: int, packer: Any) -> bytes:
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


def test_a_bomb_is_not_unpacked(client: httpx2.Client) -> None:
    packed = bomb(1_000, zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in POSTS:
        answer = client.post(path, content=packed, headers={**JSON, "content-encoding": "gzip"})
        check_refused(answer, 413)
    # In kilobytes; the bomb has a thousand of megabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("deflate", zlib.compress(b"{}"), 415),
        ("br", b"\x0b\x01\x80{}\x03", 415),
        ("zstd", b"\x28\xb5\x2f\xfd", 415),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 415),
        ("x" * 5_000, b"{}", 415),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("gzip", b"", 400),
    ],
)
def test_what_is_packed_in_another_way_is_refused(
    client: httpx2.Client, encoding: str, content: bytes, status: int
) -> None:
    for path in POSTS:
        headers = {**JSON, "content-encoding": encoding}
        check_refused(client.post(path, content=content, headers=headers), status)


def test_binary_tensors_that_lie_are_refused(client: httpx2.Client) -> None:
    def ask(inputs: list[dict[str, Any]], data: bytes) -> httpx2.Response:
        head = json.dumps({"inputs": inputs}).encode()
        lengths = {"inference-header-content-length": str(len(head))}
        return client.post(INFER, content=head + data, headers=lengths)

    def tensor(name: str, kind: str, size: Any, shape: Any = (1,)) -> dict[str, Any]:
        parameters = {"binary_data_size": size}
        return {"name": name, "datatype": kind, "shape": list(shape), "parameters": parameters}

    good = [tensor("city", "BYTES", 10), tensor("distance", "FP64", 8),
            tensor("pace__pace", "FP64", 8)]  # fmt: skip
    data = struct.pack("<I", 6) + b"Boston" + struct.pack("<dd", 21.5, 0.36)
    assert ask(good, data).status_code == 200
    for inputs, sent in [
        (good, data[:-1]),
        (good, data + b"x"),
        ([tensor("city", "BYTES", 10), *good[1:]], struct.pack("<I", 2**32 - 1) + data[4:]),
        ([tensor("city", "BYTES", 2**70), *good[1:]], data),
        ([tensor("city", "BYTES", -1), *good[1:]], data),
        ([tensor("city", "BYTES", 10, [2**62]), *good[1:]], data),
        ([tensor("city", "BYTES", 10, [1] * 10_000), *good[1:]], data),
        ([tensor("city", "FP64", 10), *good[1:]], data),
        ([good[0], tensor("distance", "INT64", 8), good[2]],
         data[:10] + struct.pack("<qd", 2**53 + 1, 1.0)),
        ([good[0], tensor("distance", "UINT64", 8), good[2]],
         data[:10] + struct.pack("<Qd", 2**64 - 1, 1.0)),
        (good, data[:10] + struct.pack("<dd", float("inf"), 1.0)),
        (good, data[:4] + b"\xff" * 6 + data[10:]),
    ]:  # fmt: skip
        check_refused(ask(inputs, sent), 400)
