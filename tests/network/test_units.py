import pytest

from cdjax.network import bytes_per_second, count, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("50ms", 0.05), ("0.4s", 0.4), (" 3 us ", 3e-6), ("7µs", 7e-6), ("2min", 120), ("1h", 3600),
     ("1e-3s", 1e-3), ("0", 0), ("inf", float("inf"))],
)  # fmt: skip
def test_times_are_in_seconds(text, expected):
    assert seconds(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100Mbit", 12.5e6), ("100Mbit/s", 12.5e6), ("100Mbps", 12.5e6), ("12.5MB", 12.5e6),
     ("12.5MB/s", 12.5e6), ("12.5MBps", 12.5e6), ("1GiB", 2**30), ("8bit", 1), ("8bps", 1),
     ("1kB", 1000), ("2.5Gbit", 312.5e6), ("inf", float("inf"))],
)  # fmt: skip
def test_bandwidths_are_in_bytes_per_second(text, expected):
    assert bytes_per_second(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"), [("124M", 124_000_000), ("30.8k", 30_800), ("7B", 7 * 10**9), ("16", 16),
                           ("1_000", 1000), ("2,168,362", 2_168_362), ("1e6", 10**6)]
)  # fmt: skip
def test_counts_are_whole_numbers(text, expected):
    assert count(text) == expected


@pytest.mark.parametrize("text", ["100Mb", "100Mb/s", "100b"])
def test_a_unit_that_may_be_bits_or_bytes_is_refused(text):
    with pytest.raises(ValueError, match=r"bits or bytes; write 100M?bit or 100M?B"):
        bytes_per_second(text)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (seconds, "50", "'50': it has no unit; give a time, such as 50ms"),
        (seconds, "5 parsecs", "the unit 'parsecs' is none of ns, us"),
        (seconds, "-1s", "'-1s' is negative"),
        (seconds, "fast", "'fast' is no number with a unit"),
        (bytes_per_second, "100", "'100': it has no unit; give a bandwidth"),
        (bytes_per_second, "0MB", "'0MB' is no bandwidth above 0"),
        (bytes_per_second, "100MHz", "the unit 'MHz' is none of"),
        (count, "1.5", "'1.5' is no whole number"),
        (count, "3x", "the unit 'x' is none of"),
    ],
)
def test_what_is_no_quantity_is_named(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
