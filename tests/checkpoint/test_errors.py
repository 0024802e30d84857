import errno
import logging
import os
import shutil
import sys

import pytest

from cdjax.checkpoint._errors import check_room, raised_errors_not_logged, write_errors


def test_room_is_what_the_disk_has_free(tmp_path):
    check_room(tmp_path, shutil.disk_usage(tmp_path).free // 2)
    with pytest.raises(OSError, match="No space left on device"):
        check_room(tmp_path, 1 << 60)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "Permission denied"),
        (ValueError("UNKNOWN: \"a\": failed [os_error_code='30']"), "Read-only file system"),
        (ValueError("all\n is   lost"), "all is lost"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_reason_is_one_line_and_the_system_s_own_where_it_has_one(error, reason, tmp_path):
    with pytest.raises(OSError) as caught, write_errors(tmp_path):
        raise error
    assert str(caught.value) == f"a checkpoint cannot be written into {tmp_path}: {reason}"
    assert caught.value.__cause__ is error


def test_only_errors_of_the_library_are_kept_out_of_the_log(caplog):
    def log(path, exc_info):
        logger = logging.getLogger("absl")
        logger.handle(logger.makeRecord("absl", 40, path, 1, path, (), exc_info))

    try:
        raise ValueError
    except ValueError:
        error = sys.exc_info()
    with raised_errors_not_logged("orbax"):
        log("/site/orbax/a.py", error)
        log("/site/orbax/a.py", None)
        log("/site/other/a.py", error)
    log("/site/orbax/b.py", error)
    assert caplog.messages == ["/site/orbax/a.py", "/site/other/a.py", "/site/orbax/b.py"]
