"""Fuzzes framing and decoding, coverage-guided: libFuzzer (by atheris) watches every branch of the compiled rooms.

    make fuzz                        ten seconds
    make fuzz FUZZ_SECONDS=36000     a night
    make fuzz ARGS=fuzz/found/crash-...    one input again

What must hold of every input: AddressSanitizer and UndefinedBehaviorSanitizer are silent, the compiled rooms say what
plain.py says, and what the scan passes msgspec decodes. An input that breaks this is written to fuzz/found/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import atheris

# libFuzzer lives in atheris; the compiled rooms look for it when they are loaded (counters.c).
from atheris import core_with_libfuzzer

os.environ["MCPFAST_LIBFUZZER"] = core_with_libfuzzer.__file__

import msgspec
import plain

from mcpfast import _core, _entry

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "build" / "fuzz" / "corpus"
FOUND = HERE / "found"
LEGACY = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"p"},'
    b'"name":"echo","arguments":{"text":"h\\u00e9 \\ud83d\\ude00"}}}'
)
MODERN = (
    b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":"info",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"}},"name":"echo","arguments":{},"requestState":"s"}}'
)
SEEDS = [
    LEGACY, MODERN, b'[{"jsonrpc":"2.0","method":"ping","id":-1.5e+3},null,true,false]', b" \t\r", b'"text"', b"[[[[[[]]]]]]",
    b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"id":1,"id":2,"\\u0069d":3,"error":{"code":-32600,"message":"\xc3\xa9"}}',
    b'"\xc2\x80\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"',
    b'"\\u00e9\\ud83d\\ude00\\b\\f\\n\\r\\t\\/"',
]  # fmt: skip
# what msgspec says of numbers that no machine type holds; JSON allows them
NUMBERS = ("out of range", "too large")


def decoding(data: bytes) -> None:
    """One line: kind and members, against plain.py and msgspec."""
    depth_max = data[0] % 32 + 1 if data else 1
    line = data[1:].replace(b"\n", b" ")
    kind, members = _core.scan(line, depth_max)
    expected, values = plain.scan(line, depth_max)
    if (kind, expected) != (
        "deep",
        "bad",
    ):  # the scan stops where it is too deep and does not see what follows
        assert kind == expected, f"the scan says {kind}, plain reading says {expected}"
    if kind in ("message", "array", "scalar"):
        refusal = refusal_of_msgspec(line)
        assert not refusal or any(text in refusal for text in NUMBERS), f"msgspec: {refusal}"
    if kind == "message" and "odd" not in members:
        assert members.keys() == values.keys(), (
            f"the scan sees {set(members)}, plain reading sees {set(values)}"
        )
        for name, raw in members.items():
            assert plain.decode(raw) == values[name], f"{name}: the scan took {raw!r}"


def refusal_of_msgspec(line: bytes) -> str:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        return str(error)
    return ""


def framing(data: bytes) -> None:
    """Bytes in pieces of any size into an Inbox of any size, against splitting at newlines."""
    if len(data) < 4:
        return
    frame_bytes_max, block, pieces = data[0] + 1, 16 << data[1] % 4, data[2] + 1
    stream = data[3:]
    inbox = _core.Inbox(_core.Blocks(block), frame_bytes_max)
    found: list[bytes | None] = []
    kept: list[bytes] = []
    for at in range(0, len(stream), pieces):
        piece = stream[at : at + pieces]
        kept.append(piece)
        found += inbox.feed(piece)
    assert found == plain.lines(stream, frame_bytes_max)


def encoding(data: bytes) -> None:
    """Text into a JSON string and back."""
    text = data.decode(errors="replace")
    written = _core.json_string(text)
    assert msgspec.json.decode(written) == text
    assert plain.decode(written) == text
    assert _core.scan(written)[0] == "scalar"


class Arguments(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    n: int = 7
    on: bool = False


DECODER = msgspec.json.Decoder(Arguments)
TOOL = _entry.Entry(
    "tool",
    None,
    None,
    DECODER.decode,
    ("text", "n", "on"),
    decoded_type=Arguments,
    members=((b'"text"', str), (b'"n"', int, 7), (b'"on"', bool, False)),
)


def scalars(data: bytes) -> None:
    """An arguments object: what is read at one look is what msgspec reads."""
    raw = data.replace(b"\n", b" ")
    read = TOOL.scalars_of(raw)
    if read is not None:
        expected = DECODER.decode(raw)
        assert read == (expected.text, expected.n, expected.on), f"read {read}, msgspec: {expected}"
        assert list(map(type, read)) == [str, int, bool]


TARGETS = [decoding, decoding, framing, encoding, scalars]


def one_input(data: bytes) -> None:
    """libFuzzer's target: the first byte chooses what is tried."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz framing and decoding.")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("inputs", nargs="*", help="inputs to run again, instead of fuzzing")
    options = parser.parse_args()
    FOUND.mkdir(exist_ok=True)
    CORPUS.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS):
        (CORPUS / f"seed-{number}").write_bytes(b"\0\x1f" + seed)
        (CORPUS / f"seed-stream-{number}").write_bytes(
            b"\2\x7f\1\5" + seed + b"\r\n" + seed[:9] + b"\n" + seed
        )
    (CORPUS / "seed-arguments").write_bytes(b'\4{"text":"h\xc3\xa9llo, sixteen and more","n" : 12,"on":true}')
    pulse = int(options.seconds > 60)  # lines as it goes on, only where somebody waits for long
    arguments = options.inputs or [
        f"-max_total_time={options.seconds}", "-max_len=4096", "-use_value_profile=1", "-timeout=20",
        "-rss_limit_mb=4096", "-print_final_stats=1", f"-verbosity={pulse}", f"-dict={HERE / 'words.dict'}",
        str(CORPUS),
    ]  # fmt: skip
    set_up([sys.argv[0], f"-artifact_prefix={FOUND}/", *arguments])
    atheris.Fuzz()


def set_up(arguments: list[str]) -> None:
    """atheris.Setup, without its warning that the sanitizer brings coverage functions of its own: counters.c knows."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        atheris.Setup(arguments, one_input)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if __name__ == "__main__":
    main()
